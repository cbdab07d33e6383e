//! The bytes of a thinned segment that its segment did not have: header, table, rules, tail.
//!
//! ```text
//! header: offset  size  field                    tail: offset  size  field
//!              0     8  magic "FTKEPT01"                    0     8  magic "FTKEPEND"
//!              8     4  version (1)                         8     4  version (1)
//!             12     2  worker                             12     2  worker
//!             14     2  zero                               14     2  zero
//!             16    16  volume id                          16    16  volume id
//!             32     8  segment number                     32     8  segment number
//!             40     8  wall ns when it was thinned        40     8  wall ns when it was thinned
//!             48    76  zero                               48     8  footer: offset
//!            124     4  CRC-32C of 0..124                  56     8  footer: bytes
//! table, one a row of the footer:                          64     8  table: offset
//!              0     8  offset in the segment              72     8  table: rows
//!              8     8  bytes, header included             80     8  rules: offset
//!             16     8  offset here; 0: gone               88     8  rules: bytes
//!             24     8  wall ns since when; 0: here        96     8  bytes of this file
//!             32     4  rule by which, from 0             104     8  bytes of the segment
//!             36     4  zero                              112    32  SHA-256 of table and rules
//! rules, one behind the other:                            144    32  chain head of the segment
//!              0     2  bytes of its name                 176     8  entry of the audit trail
//!              2     n  its name, UTF-8                   184     8  rows that are gone
//!                                                         192    32  public key
//!                                                         224    64  Ed25519 of 0..224
//!                                                         288   220  zero
//!                                                         508     4  CRC-32C of 0..508
//! ```

use zerocopy::byteorder::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::VERSION;
use super::footer::TRAILER_BYTES;
use super::sum::{is_sound, summed};
use crate::base::ids::WorkerId;
use crate::base::time::Wall;
use crate::store::evidence::{Hash, PublicKey, Signature, sha256};

/// First bytes of a thinned segment.
pub const THIN_MAGIC: [u8; 8] = *b"FTKEPT01";
/// First bytes of its tail.
pub const THIN_TAIL_MAGIC: [u8; 8] = *b"FTKEPEND";
/// Bytes of its header.
pub const THIN_HEADER_BYTES: usize = 128;
/// Bytes of its tail: the last of the file.
pub const THIN_TAIL_BYTES: usize = 512;
/// Bytes of a row of its table.
pub const THIN_ROW_BYTES: usize = 40;
/// Bytes of the tail that are signed.
const SIGNED_BYTES: usize = 224;
/// Rules that one segment can have been thinned by: classes of a configuration, over years.
pub(super) const RULES_MAX: usize = 4_096;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireHeader {
    magic: [u8; 8],
    version: U32,
    worker: U16,
    zero: U16,
    volume: [u8; 16],
    number: U64,
    thinned: I64,
    reserved: [u8; 76],
    crc: U32,
}

/// The header of a thinned segment that says what `tail` says.
pub(super) fn emit_header(tail: &Tail) -> [u8; THIN_HEADER_BYTES] {
    let wire = WireHeader {
        magic: THIN_MAGIC,
        version: U32::new(VERSION),
        worker: U16::new(tail.worker.0),
        zero: U16::new(0),
        volume: tail.volume,
        number: U64::new(tail.number),
        thinned: I64::new(tail.thinned.0),
        reserved: [0; 76],
        crc: U32::new(0),
    };
    summed(&wire)
}

/// What became of one extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// Offset in the segment.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) bytes: u64,
    /// Offset in the thinned one; `None`: gone.
    pub(super) place: Option<u64>,
    /// Since when it is gone, and by which rule.
    pub(super) since: Wall,
    pub(super) rule: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireFate {
    offset: U64,
    bytes: U64,
    place: U64,
    since: I64,
    rule: U32,
    zero: U32,
}

impl Fate {
    pub(super) fn emit(&self) -> [u8; THIN_ROW_BYTES] {
        let wire = WireFate {
            offset: U64::new(self.offset),
            bytes: U64::new(self.bytes),
            place: U64::new(self.place.unwrap_or(0)),
            since: I64::new(self.since.0),
            rule: U32::new(self.rule),
            zero: U32::new(0),
        };
        let mut out = [0; THIN_ROW_BYTES];
        out.copy_from_slice(wire.as_bytes());
        out
    }

    pub(super) fn parse(bytes: &[u8; THIN_ROW_BYTES]) -> Option<Self> {
        let wire = WireFate::read_from_bytes(bytes).ok()?;
        let place = Some(wire.place.get()).filter(|place| *place != 0);
        let valid = wire.zero.get() == 0
            && (place.is_none() || (wire.since.get(), wire.rule.get()) == (0, 0));
        valid.then(|| Fate {
            offset: wire.offset.get(),
            bytes: wire.bytes.get(),
            place,
            since: Wall(wire.since.get()),
            rule: wire.rule.get(),
        })
    }
}

/// Writes the names of rules.
pub(super) fn emit_rules(rules: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for rule in rules {
        // A longer name is cut where a character ends.
        let end = rule.floor_char_boundary(usize::from(u16::MAX));
        out.extend_from_slice(&(end as u16).to_le_bytes());
        out.extend_from_slice(&rule.as_bytes()[..end]);
    }
    out
}

/// Reads them; `None` where they are none.
pub(super) fn parse_rules(mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut rules = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        rules.push(String::from_utf8(name.to_vec()).ok()?);
        bytes = rest;
        if rules.len() > RULES_MAX {
            return None;
        }
    }
    Some(rules)
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireTail {
    magic: [u8; 8],
    version: U32,
    worker: U16,
    zero: U16,
    volume: [u8; 16],
    number: U64,
    thinned: I64,
    footer_at: U64,
    footer_bytes: U64,
    table_at: U64,
    rows: U64,
    rules_at: U64,
    rules_bytes: U64,
    file_bytes: U64,
    segment_bytes: U64,
    table: Hash,
    head: Hash,
    audit: U64,
    gone: U64,
    public_key: PublicKey,
    signature: Signature,
    reserved: [u8; 220],
    crc: U32,
}

/// The last 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Whose segment.
    pub worker: WorkerId,
    /// Which store.
    pub volume: [u8; 16],
    /// Its number.
    pub number: u64,
    /// When it was thinned last.
    pub thinned: Wall,
    /// Offset of the segment's rows, clock maps and fences; its trailer stands behind them.
    pub footer_at: u64,
    /// Bytes of them, without the trailer.
    pub footer_bytes: u64,
    /// Offset of the table.
    pub table_at: u64,
    /// Its rows.
    pub rows: u64,
    /// Offset of the rules.
    pub rules_at: u64,
    /// Bytes of them.
    pub rules_bytes: u64,
    /// Bytes of this file.
    pub file_bytes: u64,
    /// Bytes of the segment that it was.
    pub segment_bytes: u64,
    /// SHA-256 of table and rules.
    pub table: Hash,
    /// Chain head of the segment.
    pub head: Hash,
    /// The entry of the audit trail that told of it; 0: none did.
    pub audit: u64,
    /// How many rows are gone.
    pub gone: u64,
    /// The key that signed.
    pub public_key: PublicKey,
    /// Its signature.
    pub signature: Signature,
}

impl Tail {
    fn wire(&self) -> WireTail {
        WireTail {
            magic: THIN_TAIL_MAGIC,
            version: U32::new(VERSION),
            worker: U16::new(self.worker.0),
            zero: U16::new(0),
            volume: self.volume,
            number: U64::new(self.number),
            thinned: I64::new(self.thinned.0),
            footer_at: U64::new(self.footer_at),
            footer_bytes: U64::new(self.footer_bytes),
            table_at: U64::new(self.table_at),
            rows: U64::new(self.rows),
            rules_at: U64::new(self.rules_at),
            rules_bytes: U64::new(self.rules_bytes),
            file_bytes: U64::new(self.file_bytes),
            segment_bytes: U64::new(self.segment_bytes),
            table: self.table,
            head: self.head,
            audit: U64::new(self.audit),
            gone: U64::new(self.gone),
            public_key: self.public_key,
            signature: self.signature,
            reserved: [0; 220],
            crc: U32::new(0),
        }
    }

    /// What is signed: everything that the tail says, which stands for everything else that is new.
    pub fn signed(&self) -> Hash {
        sha256(&self.wire().as_bytes()[..SIGNED_BYTES])
    }

    /// The bytes.
    pub fn emit(&self) -> [u8; THIN_TAIL_BYTES] {
        summed(&self.wire())
    }

    /// Reads the bytes; `None` where they are no valid tail of a file of `file_bytes`. What comes back
    /// has its parts in order and within the file.
    pub fn parse(bytes: &[u8], file_bytes: u64) -> Option<Self> {
        let (wire, _) = WireTail::read_from_prefix(bytes).ok()?;
        let end = file_bytes.checked_sub(THIN_TAIL_BYTES as u64)?;
        let behind = |at: &U64, bytes: u64| at.get().checked_add(bytes);
        let table_bytes = wire.rows.get().checked_mul(THIN_ROW_BYTES as u64)?;
        let footer_end = behind(&wire.footer_at, wire.footer_bytes.get())?;
        let valid = wire.magic == THIN_TAIL_MAGIC
            && wire.version.get() == VERSION
            && is_sound(&wire)
            && wire.file_bytes.get() == file_bytes
            && wire.footer_at.get() >= THIN_HEADER_BYTES as u64
            && footer_end.checked_add(TRAILER_BYTES as u64)? == wire.table_at.get()
            && behind(&wire.table_at, table_bytes)? == wire.rules_at.get()
            && behind(&wire.rules_at, wire.rules_bytes.get())? <= end
            && wire.gone.get() <= wire.rows.get();
        valid.then(|| Tail {
            worker: WorkerId(wire.worker.get()),
            volume: wire.volume,
            number: wire.number.get(),
            thinned: Wall(wire.thinned.get()),
            footer_at: wire.footer_at.get(),
            footer_bytes: wire.footer_bytes.get(),
            table_at: wire.table_at.get(),
            rows: wire.rows.get(),
            rules_at: wire.rules_at.get(),
            rules_bytes: wire.rules_bytes.get(),
            file_bytes: wire.file_bytes.get(),
            segment_bytes: wire.segment_bytes.get(),
            table: wire.table,
            head: wire.head,
            audit: wire.audit.get(),
            gone: wire.gone.get(),
            public_key: wire.public_key,
            signature: wire.signature,
        })
    }
}
