//! The first block of a log file: which worker and store it belongs to, and which use of it this
//! is. Written and synced before the first group of a use; groups of an earlier use carry another
//! file sequence and are refused.
//!
//! ```text
//! offset  size  field
//!      0     8  magic "FTLOGF01"
//!      8     4  version (1)
//!     12     2  worker
//!     14     2  cipher of the groups: 0 none, 1 AES-256-GCM
//!     16    16  volume id of the store
//!     32     8  file sequence: counts the uses of all log files of this worker, 1 first
//!     40     8  first position
//!     48     8  ring bytes: where in the record stream the ring ended
//!     56     8  file bytes
//!     64     4  CRC-32C of bytes 0..64
//!     68  4028  zeros where the cipher is 0, else:
//!     68     4  number of the store key
//!     72    60  nonce ‖ cipher text ‖ tag of the secret of this use
//!    132     4  CRC-32C of bytes 68..132
//!    136  3960  zeros
//! ```

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BLOCK_BYTES, CIPHER_AES_256_GCM, CIPHER_NONE, VERSION, crc32c};
use crate::base::ids::{Position, WorkerId};
use crate::base::ports::WrappedKey;

/// First bytes of a log file.
pub const FILE_MAGIC: [u8; 8] = *b"FTLOGF01";

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    version: U32,
    worker: U16,
    cipher: U16,
    volume: [u8; 16],
    file_sequence: U64,
    first: U64,
    ring_bytes: U64,
    file_bytes: U64,
    crc: U32,
    key: WireKey,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireKey {
    store_key: U32,
    bytes: [u8; 60],
    crc: U32,
}

impl WireKey {
    fn new(key: &WrappedKey) -> Self {
        let (store_key, bytes) = (U32::new(key.store_key), key.bytes);
        let mut wire = WireKey { store_key, bytes, crc: U32::new(0) };
        wire.crc = U32::new(crc32c(&wire.as_bytes()[..64]));
        wire
    }

    fn key(&self) -> Option<WrappedKey> {
        let key = WrappedKey { store_key: self.store_key.get(), bytes: self.bytes };
        (self.crc.get() == crc32c(&self.as_bytes()[..64])).then_some(key)
    }
}

/// What the first block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Whose log.
    pub worker: WorkerId,
    /// Which store.
    pub volume: [u8; 16],
    /// Which use of a log file.
    pub file_sequence: u64,
    /// Position of the first group.
    pub first: Position,
    /// Size of the ring that was copied.
    pub ring_bytes: u64,
    /// Size of this file.
    pub file_bytes: u64,
    /// The secret that its groups are encrypted under; `None`: they are in the clear.
    pub key: Option<WrappedKey>,
}

impl FileHeader {
    /// Writes the block.
    pub fn emit(&self, block: &mut [u8]) {
        let mut wire = Wire {
            magic: FILE_MAGIC,
            version: U32::new(VERSION),
            worker: U16::new(self.worker.0),
            cipher: U16::new(if self.key.is_some() { CIPHER_AES_256_GCM } else { CIPHER_NONE }),
            volume: self.volume,
            file_sequence: U64::new(self.file_sequence),
            first: U64::new(self.first.0),
            ring_bytes: U64::new(self.ring_bytes),
            file_bytes: U64::new(self.file_bytes),
            crc: U32::new(0),
            key: self.key.as_ref().map_or(WireKey::new_zeroed(), WireKey::new),
        };
        wire.crc = U32::new(crc32c(&wire.as_bytes()[..64]));
        block[..BLOCK_BYTES].fill(0);
        block[..size_of::<Wire>()].copy_from_slice(wire.as_bytes());
    }

    /// Reads the block; `None` where it is no valid one.
    pub fn parse(block: &[u8]) -> Option<Self> {
        let (wire, rest) = Wire::read_from_prefix(block.get(..BLOCK_BYTES)?).ok()?;
        let key = match wire.cipher.get() {
            CIPHER_NONE => wire.key.as_bytes().iter().all(|byte| *byte == 0).then_some(None)?,
            CIPHER_AES_256_GCM => Some(wire.key.key()?),
            _ => return None,
        };
        let valid = wire.magic == FILE_MAGIC
            && wire.version.get() == VERSION
            && wire.crc.get() == crc32c(&wire.as_bytes()[..64])
            && rest.iter().all(|byte| *byte == 0)
            && wire.ring_bytes.get() >= BLOCK_BYTES as u64
            && wire.ring_bytes.get().is_multiple_of(8)
            && wire.first.get().is_multiple_of(8);
        valid.then(|| FileHeader {
            worker: WorkerId(wire.worker.get()),
            volume: wire.volume,
            file_sequence: wire.file_sequence.get(),
            first: Position(wire.first.get()),
            ring_bytes: wire.ring_bytes.get(),
            file_bytes: wire.file_bytes.get(),
            key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_the_block_is_found() {
        for key in [None, Some(WrappedKey { store_key: 3, bytes: [9; 60] })] {
            let header = FileHeader { key, ..header() };
            let mut block = [0xff; BLOCK_BYTES];
            header.emit(&mut block);
            assert_eq!(FileHeader::parse(&block), Some(header));
            for bit in 0..BLOCK_BYTES * 8 {
                block[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(FileHeader::parse(&block), None, "bit {bit}");
                block[bit / 8] ^= 1 << (bit % 8);
            }
            assert_eq!(FileHeader::parse(&block[..4095]), None);
        }
    }

    fn header() -> FileHeader {
        FileHeader {
            worker: WorkerId(1),
            volume: [7; 16],
            file_sequence: 3,
            first: Position(800),
            ring_bytes: 1 << 21,
            file_bytes: 1 << 22,
            key: None,
        }
    }

    /// What versions before encryption wrote, and read.
    #[test]
    fn a_block_in_the_clear_is_what_it_always_was() {
        let mut block = [0xff; BLOCK_BYTES];
        header().emit(&mut block);
        let mut before = b"FTLOGF01\x01\0\0\0\x01\0\0\0".to_vec();
        before.extend_from_slice(&[7; 16]);
        for word in [3_u64, 800, 1 << 21, 1 << 22] {
            before.extend_from_slice(&word.to_le_bytes());
        }
        before.extend_from_slice(&crc32c(&before).to_le_bytes());
        before.resize(BLOCK_BYTES, 0);
        assert_eq!(block[..], before);
    }
}
