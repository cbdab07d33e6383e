//! One source's records in one segment, in the order of the log (of arrival, but for what waited for its key): the unit of reading, of proof, and
//! later of encryption and compression.
//!
//! ```text
//! offset  size  field
//!      0     8  magic "FTEXTNT1"
//!      8     8  source
//!     16     2  generation of its first record
//!     18     1  cipher (0 = clear, 1 = AES-256-GCM by chunks)
//!     19     1  compression (0 = none: records; 1 = packed: chunks, see `pack`)
//!     20     4  number of the store key (0 = clear)
//!     24    16  nonce (zeros = clear): drawn anew for each attempt to write the extent
//!     40     8  lowest index of its RTP records (0 where there is none)
//!     48     8  highest index of its RTP records
//!     56     8  arrival of the first record, monotonic ns
//!     64     8  arrival of the last record
//!     72     8  records
//!     80     8  bytes behind this header
//!     88     8  segment number
//!     96     8  clock map: monotonic ns
//!    104     8  clock map: wall ns at that instant
//!    112     4  clock maps in the segment; more than one: see the footer's
//!    116     4  CRC-32C of the bytes behind this header
//!    120     4  zero
//!    124     4  CRC-32C of bytes 0..124
//!    128     n  records, or chunks of them
//! ```

use zerocopy::byteorder::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::sum::{is_sound, summed};
use crate::base::ids::{Index, SourceId};
use crate::base::time::{ClockMap, Mono, Wall};

/// First bytes of an extent.
pub const EXTENT_MAGIC: [u8; 8] = *b"FTEXTNT1";
/// Bytes of its header.
pub const EXTENT_HEADER_BYTES: usize = 128;
/// Cipher: in the clear.
pub const CIPHER_NONE: u8 = 0;
/// Cipher: AES-256-GCM, chunk by chunk.
pub const CIPHER_AES_256_GCM: u8 = 1;
/// Compression: the records stand as they are.
pub const COMPRESSION_NONE: u8 = 0;
/// Compression: chunks of packed records.
pub const COMPRESSION_PACKED: u8 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    source: U64,
    generation: U16,
    cipher: u8,
    compression: u8,
    store_key: U32,
    nonce: [u8; 16],
    first_index: U64,
    last_index: U64,
    first_arrival: U64,
    last_arrival: U64,
    records: U64,
    bytes: U64,
    number: U64,
    mono: U64,
    wall: I64,
    clocks: U32,
    records_crc: U32,
    zero: U32,
    crc: U32,
}

/// What an extent's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentHeader {
    /// The source.
    pub source: SourceId,
    /// Generation of its first record.
    pub generation: u16,
    /// `CIPHER_…`.
    pub cipher: u8,
    /// How the bytes behind the header hold the records, `COMPRESSION_…`.
    pub compression: u8,
    /// Number of the store key that the keys of its segment stand under; 0: clear.
    pub store_key: u32,
    /// Nonce; zeros: clear.
    pub nonce: [u8; 16],
    /// Lowest index.
    pub first_index: Index,
    /// Highest index.
    pub last_index: Index,
    /// Arrival of the first record.
    pub first_arrival: Mono,
    /// Arrival of the last.
    pub last_arrival: Mono,
    /// Records.
    pub records: u64,
    /// Bytes behind the header.
    pub bytes: u64,
    /// Segment it belongs to.
    pub number: u64,
    /// The segment's first clock map.
    pub clock: ClockMap,
    /// Clock maps in the segment.
    pub clocks: u32,
    /// CRC-32C of the bytes behind the header.
    pub records_crc: u32,
}

impl ExtentHeader {
    /// What each chunk of the extent is bound to: the header, but for what is known only when all chunks are
    /// there (bytes, their sum, and so its own sum: zeros).
    pub(super) fn context(&self) -> [u8; EXTENT_HEADER_BYTES] {
        let mut context = ExtentHeader { bytes: 0, records_crc: 0, ..*self }.emit();
        context[EXTENT_HEADER_BYTES - 4..].fill(0);
        context
    }

    /// The bytes.
    pub fn emit(&self) -> [u8; EXTENT_HEADER_BYTES] {
        let wire = Wire {
            magic: EXTENT_MAGIC,
            source: U64::new(self.source.0),
            generation: U16::new(self.generation),
            cipher: self.cipher,
            compression: self.compression,
            store_key: U32::new(self.store_key),
            nonce: self.nonce,
            first_index: U64::new(self.first_index.0),
            last_index: U64::new(self.last_index.0),
            first_arrival: U64::new(self.first_arrival.0),
            last_arrival: U64::new(self.last_arrival.0),
            records: U64::new(self.records),
            bytes: U64::new(self.bytes),
            number: U64::new(self.number),
            mono: U64::new(self.clock.mono.0),
            wall: I64::new(self.clock.wall.0),
            clocks: U32::new(self.clocks),
            records_crc: U32::new(self.records_crc),
            zero: U32::new(0),
            crc: U32::new(0),
        };
        summed(&wire)
    }

    /// Reads the bytes; `None` where they are no valid header.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (wire, _) = Wire::read_from_prefix(bytes).ok()?;
        let valid = wire.magic == EXTENT_MAGIC && is_sound(&wire);
        valid.then(|| ExtentHeader {
            source: SourceId(wire.source.get()),
            generation: wire.generation.get(),
            cipher: wire.cipher,
            compression: wire.compression,
            store_key: wire.store_key.get(),
            nonce: wire.nonce,
            first_index: Index(wire.first_index.get()),
            last_index: Index(wire.last_index.get()),
            first_arrival: Mono(wire.first_arrival.get()),
            last_arrival: Mono(wire.last_arrival.get()),
            records: wire.records.get(),
            bytes: wire.bytes.get(),
            number: wire.number.get(),
            clock: ClockMap { mono: Mono(wire.mono.get()), wall: Wall(wire.wall.get()) },
            clocks: wire.clocks.get(),
            records_crc: wire.records_crc.get(),
        })
    }
}
