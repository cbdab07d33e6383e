//! The end of a segment: a row per extent, the clock maps, fences for finding a row without
//! reading them all, and the signed trailer.
//!
//! ```text
//! row: offset  size  field                          trailer: offset  size  field
//!           0     8  source                                       0     8  magic "FTSEGEND"
//!           8     8  offset of the extent's header                8     4  version (1)
//!          16     8  bytes, header included                      12     2  worker
//!          24     8  records                                     14     2  zero
//!          32     8  RTP packets                                 16    16  volume id
//!          40     8  bytes of those packets                      32     8  segment number
//!          48     8  lowest index                                40     8  first position
//!          56     8  highest index                               48     8  end position
//!          64     8  arrival of the first record                 56     8  wall ns when sealed
//!          72     8  arrival of the last                         64     8  rows: offset
//!          80    32  leaf hash                                   72     8  rows: count
//!         112     2  generation                                  80     8  clock maps: offset
//!         114     1  cipher                                      88     8  clock maps: count
//!         115     1  compression                                 96     8  fences: offset
//!         116     4  number of the store key                    104     8  fences: count
//!         120     4  zero                                       112    32  Merkle root
//!         124     4  CRC-32C of 0..124                          144    32  chain head before
//! clock map: 8 monotonic ns, 8 wall ns                          176    32  chain head
//! fence: 8 source of row 0, 64, 128, …; 32 Merkle root of the   208    64  Ed25519 of the head
//!        leaves of its up to 64 rows (a subtree of RFC 6962's)
//!                                                               272    32  public key
//!                                                               304     8  bytes of the file
//!                                                               312    32  SHA-256 of the footer
//!                                                               344   164  zero
//!                                                               508     4  CRC-32C of 0..508
//! ```

use zerocopy::byteorder::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::VERSION;
use super::sum::{is_sound, summed};
use crate::base::ids::{Index, Position, SourceId, WorkerId};
use crate::base::time::{ClockMap, Mono, Wall};
use crate::store::evidence::{ChainFields, Hash, PublicKey, Signature, sha256};

/// First bytes of a trailer.
pub const TRAILER_MAGIC: [u8; 8] = *b"FTSEGEND";
/// Bytes of a trailer: the last of the file.
pub const TRAILER_BYTES: usize = 512;
/// Bytes of a row.
pub const ROW_BYTES: usize = 128;
/// Bytes of a fence: the source of its first row, the Merkle root of its rows' leaves.
pub const FENCE_BYTES: usize = 40;
/// Rows from one fence to the next: a power of two, so that its rows are a subtree.
pub const FENCE_ROWS: usize = 64;
/// Bytes of a clock map.
pub(super) const CLOCK_BYTES: usize = 16;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireRow {
    source: U64,
    offset: U64,
    bytes: U64,
    records: U64,
    packets: U64,
    packet_bytes: U64,
    first_index: U64,
    last_index: U64,
    first_arrival: U64,
    last_arrival: U64,
    leaf: Hash,
    generation: U16,
    cipher: u8,
    compression: u8,
    store_key: U32,
    zero: U32,
    crc: U32,
}

/// One extent, as the footer describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The source.
    pub source: SourceId,
    /// Offset of the extent's header in the file.
    pub offset: u64,
    /// Bytes of the extent, header included.
    pub bytes: u64,
    /// Records.
    pub records: u64,
    /// RTP packets among them.
    pub packets: u64,
    /// Bytes of those packets: header, payload and padding as received, after decryption.
    pub packet_bytes: u64,
    /// Lowest index of them.
    pub first_index: Index,
    /// Highest index of them.
    pub last_index: Index,
    /// Arrival of the first record.
    pub first_arrival: Mono,
    /// Arrival of the last.
    pub last_arrival: Mono,
    /// Leaf hash.
    pub leaf: Hash,
    /// Generation of the first record.
    pub generation: u16,
    /// 0: clear.
    pub cipher: u8,
    /// As in the extent's header.
    pub compression: u8,
    /// Number of the store key that the keys of its segment stand under; 0: clear.
    pub store_key: u32,
}

impl Row {
    /// The bytes.
    pub fn emit(&self) -> [u8; ROW_BYTES] {
        let wire = WireRow {
            source: U64::new(self.source.0),
            offset: U64::new(self.offset),
            bytes: U64::new(self.bytes),
            records: U64::new(self.records),
            packets: U64::new(self.packets),
            packet_bytes: U64::new(self.packet_bytes),
            first_index: U64::new(self.first_index.0),
            last_index: U64::new(self.last_index.0),
            first_arrival: U64::new(self.first_arrival.0),
            last_arrival: U64::new(self.last_arrival.0),
            leaf: self.leaf,
            generation: U16::new(self.generation),
            cipher: self.cipher,
            compression: self.compression,
            store_key: U32::new(self.store_key),
            zero: U32::new(0),
            crc: U32::new(0),
        };
        summed(&wire)
    }

    /// Reads the bytes; `None` where they are no valid row.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (wire, _) = WireRow::read_from_prefix(bytes).ok()?;
        is_sound(&wire).then(|| Row {
            source: SourceId(wire.source.get()),
            offset: wire.offset.get(),
            bytes: wire.bytes.get(),
            records: wire.records.get(),
            packets: wire.packets.get(),
            packet_bytes: wire.packet_bytes.get(),
            first_index: Index(wire.first_index.get()),
            last_index: Index(wire.last_index.get()),
            first_arrival: Mono(wire.first_arrival.get()),
            last_arrival: Mono(wire.last_arrival.get()),
            leaf: wire.leaf,
            generation: wire.generation.get(),
            cipher: wire.cipher,
            compression: wire.compression,
            store_key: wire.store_key.get(),
        })
    }
}

/// Writes a clock map.
pub(super) fn emit_clock(map: &ClockMap) -> [u8; CLOCK_BYTES] {
    let mut out = [0; CLOCK_BYTES];
    out[..8].copy_from_slice(&map.mono.0.to_le_bytes());
    out[8..].copy_from_slice(&map.wall.0.to_le_bytes());
    out
}

/// Reads a clock map.
pub(super) fn parse_clock(bytes: &[u8; CLOCK_BYTES]) -> ClockMap {
    let (mono, wall) = bytes.split_at(8);
    let word = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("half of 16 is 8"));
    ClockMap { mono: Mono(word(mono)), wall: Wall(word(wall) as i64) }
}

/// SHA-256 of everything between extents and padding; the chain head covers it.
pub fn footer_hash(rows_clocks_fences: &[u8]) -> Hash {
    sha256(rows_clocks_fences)
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireTrailer {
    magic: [u8; 8],
    version: U32,
    worker: U16,
    zero: U16,
    volume: [u8; 16],
    number: U64,
    from: U64,
    through: U64,
    created: I64,
    rows_at: U64,
    rows: U64,
    clocks_at: U64,
    clocks: U64,
    fences_at: U64,
    fences: U64,
    root: Hash,
    previous: Hash,
    head: Hash,
    signature: Signature,
    public_key: PublicKey,
    file_bytes: U64,
    footer: Hash,
    reserved: [u8; 164],
    crc: U32,
}

/// The last 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Whose span.
    pub worker: WorkerId,
    /// Which store.
    pub volume: [u8; 16],
    /// Number in the worker's chain.
    pub number: u64,
    /// First position.
    pub from: Position,
    /// End position.
    pub through: Position,
    /// When it was sealed.
    pub created: Wall,
    /// Offset of the rows.
    pub rows_at: u64,
    /// How many.
    pub rows: u64,
    /// Offset of the clock maps.
    pub clocks_at: u64,
    /// How many.
    pub clocks: u64,
    /// Offset of the fences.
    pub fences_at: u64,
    /// How many.
    pub fences: u64,
    /// Merkle root over the rows' leaves.
    pub root: Hash,
    /// Chain head before.
    pub previous: Hash,
    /// Chain head.
    pub head: Hash,
    /// Signature of the head.
    pub signature: Signature,
    /// The key that made it.
    pub public_key: PublicKey,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// SHA-256 of rows, clock maps and fences.
    pub footer: Hash,
}

impl Trailer {
    /// What the chain head covers.
    pub fn chain_fields(&self) -> ChainFields {
        ChainFields {
            previous: self.previous,
            root: self.root,
            leaves: self.rows,
            footer: self.footer,
            volume: self.volume,
            worker: self.worker.0,
            number: self.number,
            from: self.from.0,
            through: self.through.0,
            created: self.created.0,
        }
    }

    /// The bytes.
    pub fn emit(&self) -> [u8; TRAILER_BYTES] {
        let wire = WireTrailer {
            magic: TRAILER_MAGIC,
            version: U32::new(VERSION),
            worker: U16::new(self.worker.0),
            zero: U16::new(0),
            volume: self.volume,
            number: U64::new(self.number),
            from: U64::new(self.from.0),
            through: U64::new(self.through.0),
            created: I64::new(self.created.0),
            rows_at: U64::new(self.rows_at),
            rows: U64::new(self.rows),
            clocks_at: U64::new(self.clocks_at),
            clocks: U64::new(self.clocks),
            fences_at: U64::new(self.fences_at),
            fences: U64::new(self.fences),
            root: self.root,
            previous: self.previous,
            head: self.head,
            signature: self.signature,
            public_key: self.public_key,
            file_bytes: U64::new(self.file_bytes),
            footer: self.footer,
            reserved: [0; 164],
            crc: U32::new(0),
        };
        summed(&wire)
    }

    /// Reads the bytes; `None` where they are no valid trailer of a file of `file_bytes`. What
    /// comes back has its parts in order and within the file.
    pub fn parse(bytes: &[u8], file_bytes: u64) -> Option<Self> {
        let (wire, _) = WireTrailer::read_from_prefix(bytes).ok()?;
        let end = file_bytes.checked_sub(TRAILER_BYTES as u64)?;
        let part = |at: &U64, count: &U64, size: usize| {
            at.get().checked_add(count.get().checked_mul(size as u64)?)
        };
        let valid = wire.magic == TRAILER_MAGIC
            && wire.version.get() == VERSION
            && is_sound(&wire)
            && wire.file_bytes.get() == file_bytes
            && part(&wire.rows_at, &wire.rows, ROW_BYTES)? == wire.clocks_at.get()
            && part(&wire.clocks_at, &wire.clocks, CLOCK_BYTES)? == wire.fences_at.get()
            && part(&wire.fences_at, &wire.fences, FENCE_BYTES)? <= end
            && wire.fences.get() == wire.rows.get().div_ceil(FENCE_ROWS as u64);
        valid.then(|| Trailer {
            worker: WorkerId(wire.worker.get()),
            volume: wire.volume,
            number: wire.number.get(),
            from: Position(wire.from.get()),
            through: Position(wire.through.get()),
            created: Wall(wire.created.get()),
            rows_at: wire.rows_at.get(),
            rows: wire.rows.get(),
            clocks_at: wire.clocks_at.get(),
            clocks: wire.clocks.get(),
            fences_at: wire.fences_at.get(),
            fences: wire.fences.get(),
            root: wire.root,
            previous: wire.previous,
            head: wire.head,
            signature: wire.signature,
            public_key: wire.public_key,
            file_bytes: wire.file_bytes.get(),
            footer: wire.footer,
        })
    }
}

/// Trailer, rows and clock maps of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The trailer.
    pub trailer: Trailer,
    /// Its rows, by source.
    pub rows: Vec<Row>,
    /// Its clock maps, in order.
    pub clocks: Vec<ClockMap>,
}
