//! A commit group: what one sync made durable. It starts on a block, its payload is a range of
//! ring positions byte for byte, zeros fill its last block. Ranges start and end at records.
//!
//! ```text
//! offset  size  field
//!      0     8  magic "FTGROUP1"
//!      8     4  version (1)
//!     12     2  worker
//!     14     2  cipher, as the file's first block says: 0 none, 1 AES-256-GCM
//!     16     8  file sequence of the file's first block
//!     24     8  group sequence: counts over the life of the worker, 1 first
//!     32     8  incarnation of media that wrote it
//!     40     8  first position
//!     48     8  payload bytes
//!     56     8  monotonic ns when it was written
//!     64     8  wall ns at the same instant
//!     72    32  SHA-256 of the header of the group before (zeros where there is none)
//!    104     8  ring bytes
//!    112     4  CRC-32C of the payload as it stands here, and of its tag
//!    116     8  zero
//!    124     4  CRC-32C of bytes 0..124
//!    128     n  payload: ring bytes of positions first..first + n
//!  128+n    16  tag, where it is encrypted
//! ```
//!
//! A payload is encrypted under the secret of the file's use, with the group sequence as its nonce (see
//! [`GroupKey`]) and bytes 0..112 as associated data. The sum is over what stands on the disk, so that
//! torn ends and damage are told apart by whoever has no key.

use zerocopy::byteorder::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BLOCK_BYTES, CIPHER_AES_256_GCM, CIPHER_NONE, VERSION, crc32c};
use crate::base::ids::{Position, WorkerId};
use crate::base::time::{ClockMap, Mono, Wall};
use crate::store::cipher::{GroupKey, TAG_BYTES};
use crate::store::evidence::{Hash, sha256};

/// First bytes of a group.
pub const GROUP_MAGIC: [u8; 8] = *b"FTGROUP1";
/// Bytes of its header.
pub const GROUP_HEADER_BYTES: usize = 128;
/// Of them, those that are known before the payload is encrypted.
const KNOWN_BYTES: usize = 112;
/// Longest payload: one write of 1 MiB, header and padding not counted.
pub const GROUP_BYTES_MAX: usize = 1024 * 1024;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    version: U32,
    worker: U16,
    cipher: U16,
    file_sequence: U64,
    group_sequence: U64,
    incarnation: U64,
    first: U64,
    bytes: U64,
    mono: U64,
    wall: I64,
    previous: Hash,
    ring_bytes: U64,
    payload_crc: U32,
    reserved: [u8; 8],
    crc: U32,
}

/// What a group's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// Whose log.
    pub worker: WorkerId,
    /// Use of the file it was written in.
    pub file_sequence: u64,
    /// Its number.
    pub group_sequence: u64,
    /// Media incarnation.
    pub incarnation: u64,
    /// First position.
    pub first: Position,
    /// Bytes of payload.
    pub bytes: u64,
    /// Both clocks when it was written.
    pub clock: ClockMap,
    /// SHA-256 of the header before.
    pub previous: Hash,
    /// Size of the ring it was copied from.
    pub ring_bytes: u64,
    /// CRC-32C of what stands behind the header.
    pub payload_crc: u32,
    /// Whether that is cipher text and a tag.
    pub encrypted: bool,
}

/// Bytes that a group takes in the file which stores `stored_bytes` behind its header
/// ([`GroupHeader::stored_bytes`]).
pub const fn group_span(stored_bytes: u64) -> u64 {
    (GROUP_HEADER_BYTES as u64 + stored_bytes).next_multiple_of(BLOCK_BYTES as u64)
}

impl GroupHeader {
    /// Position behind the last byte.
    pub const fn end(&self) -> Position {
        Position(self.first.0 + self.bytes)
    }

    /// Bytes behind the header: the payload, and its tag where there is one.
    pub const fn stored_bytes(&self) -> u64 {
        self.bytes + if self.encrypted { TAG_BYTES as u64 } else { 0 }
    }

    /// Sums up what is `stored` behind the header, the payload in front, and encrypts it before where there
    /// is a key. `stored` has as many bytes as this header says.
    pub fn close(&mut self, key: Option<&GroupKey>, stored: &mut [u8]) {
        assert_eq!(self.encrypted, key.is_some(), "the file has a key, or none");
        if let Some(key) = key {
            let (payload, tag) = stored.split_at_mut(self.bytes as usize);
            tag.copy_from_slice(&key.seal(self.group_sequence, &self.known(), payload));
        }
        self.payload_crc = crc32c(stored);
    }

    /// Decrypts what is `stored` behind the header; `None` where it is not what `key` encrypted for it.
    pub fn open<'a>(&self, key: &GroupKey, stored: &'a mut [u8]) -> Option<&'a [u8]> {
        key.open(self.group_sequence, &self.known(), stored)
    }

    fn known(&self) -> [u8; KNOWN_BYTES] {
        *self.wire().as_bytes().first_chunk().expect("a header is longer")
    }

    /// Writes the header and returns its hash, which the next group carries.
    pub fn emit(&self, out: &mut [u8]) -> Hash {
        let mut wire = self.wire();
        wire.crc = U32::new(crc32c(&wire.as_bytes()[..124]));
        out[..GROUP_HEADER_BYTES].copy_from_slice(wire.as_bytes());
        sha256(wire.as_bytes())
    }

    /// But for its sum.
    fn wire(&self) -> Wire {
        Wire {
            magic: GROUP_MAGIC,
            version: U32::new(VERSION),
            worker: U16::new(self.worker.0),
            cipher: U16::new(if self.encrypted { CIPHER_AES_256_GCM } else { CIPHER_NONE }),
            file_sequence: U64::new(self.file_sequence),
            group_sequence: U64::new(self.group_sequence),
            incarnation: U64::new(self.incarnation),
            first: U64::new(self.first.0),
            bytes: U64::new(self.bytes),
            mono: U64::new(self.clock.mono.0),
            wall: I64::new(self.clock.wall.0),
            previous: self.previous,
            ring_bytes: U64::new(self.ring_bytes),
            payload_crc: U32::new(self.payload_crc),
            reserved: [0; 8],
            crc: U32::new(0),
        }
    }

    /// Reads a header; `None` where the bytes are no valid one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (wire, _) = Wire::read_from_prefix(bytes).ok()?;
        let valid = wire.magic == GROUP_MAGIC
            && wire.version.get() == VERSION
            && wire.crc.get() == crc32c(&wire.as_bytes()[..124])
            && [CIPHER_NONE, CIPHER_AES_256_GCM].contains(&wire.cipher.get())
            && wire.bytes.get() > 0
            && wire.bytes.get() <= GROUP_BYTES_MAX as u64
            && wire.bytes.get().is_multiple_of(8)
            && wire.first.get().is_multiple_of(8)
            && wire.first.get().checked_add(wire.bytes.get()).is_some()
            && wire.ring_bytes.get() >= BLOCK_BYTES as u64
            && wire.ring_bytes.get().is_multiple_of(8);
        valid.then(|| GroupHeader {
            worker: WorkerId(wire.worker.get()),
            file_sequence: wire.file_sequence.get(),
            group_sequence: wire.group_sequence.get(),
            incarnation: wire.incarnation.get(),
            first: Position(wire.first.get()),
            bytes: wire.bytes.get(),
            clock: ClockMap { mono: Mono(wire.mono.get()), wall: Wall(wire.wall.get()) },
            previous: wire.previous,
            ring_bytes: wire.ring_bytes.get(),
            payload_crc: wire.payload_crc.get(),
            encrypted: wire.cipher.get() == CIPHER_AES_256_GCM,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::cipher::Secret;

    fn header() -> GroupHeader {
        GroupHeader {
            worker: WorkerId(2),
            file_sequence: 5,
            group_sequence: 77,
            incarnation: 3,
            first: Position(4_096),
            bytes: 208,
            clock: ClockMap { mono: Mono(5), wall: Wall(-6) },
            previous: [9; 32],
            ring_bytes: 1 << 21,
            payload_crc: 1,
            encrypted: false,
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_header_is_found() {
        let header = header();
        let mut bytes = [0; GROUP_HEADER_BYTES];
        header.emit(&mut bytes);
        assert_eq!(GroupHeader::parse(&bytes), Some(header));
        for bit in 0..GROUP_HEADER_BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(GroupHeader::parse(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for cut in 0..GROUP_HEADER_BYTES {
            assert_eq!(GroupHeader::parse(&bytes[..cut]), None, "cut {cut}");
        }
    }

    /// Whoever changes a header or a payload and puts the sums right does not get past the tag.
    #[test]
    fn a_group_opens_under_its_own_header_and_key_only() {
        let key = |byte| GroupKey::new(Secret::new([byte; 32].into()));
        let mut header = GroupHeader { encrypted: true, ..header() };
        let text: Vec<u8> = (0..208).collect();
        let mut stored = text.clone();
        stored.resize(header.stored_bytes() as usize, 0);
        header.close(Some(&key(1)), &mut stored);
        assert_eq!((stored.len(), crc32c(&stored)), (224, header.payload_crc));
        assert!(stored[..208] != text);
        let open = |header: &GroupHeader, byte, stored: &[u8]| {
            let mut stored = stored.to_vec();
            header.open(&key(byte), &mut stored).map(<[u8]>::to_vec)
        };
        assert_eq!(open(&header, 1, &stored), Some(text.clone()));
        assert_eq!(open(&header, 2, &stored), None);
        let clock = ClockMap { mono: Mono(6), ..header.clock };
        for other in [
            GroupHeader { worker: WorkerId(3), ..header },
            GroupHeader { file_sequence: 6, ..header },
            GroupHeader { group_sequence: 78, ..header },
            GroupHeader { incarnation: 4, ..header },
            GroupHeader { first: Position(8_192), ..header },
            GroupHeader { clock, ..header },
            GroupHeader { previous: [8; 32], ..header },
            GroupHeader { ring_bytes: 1 << 22, ..header },
        ] {
            assert_eq!(open(&other, 1, &stored), None, "{other:?}");
        }
        for bit in 0..stored.len() * 8 {
            let mut bad = stored.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(crc32c(&bad) != header.payload_crc && open(&header, 1, &bad).is_none());
        }
        // In the clear nothing changes but the sum.
        let (mut clear, mut payload) = (GroupHeader { encrypted: false, ..header }, text.clone());
        clear.close(None, &mut payload);
        assert_eq!((clear.payload_crc, &payload), (crc32c(&text), &text));
    }
}
