//! Packed records: of each record only what the one before does not tell. Exact: what is unpacked
//! is what was packed, octet for octet. Pure, on whatever thread calls it, nothing kept between two
//! chunks, nothing allocated per record.
//!
//! ```text
//! chunk:   offset  size  field
//!               0     4  stored: octets behind this header
//!               4     4  records: octets of the records, at most 65,576 (the longest record)
//!               8     n  stored = records: the records as they are; stored < records: packed
//!
//! packed record, its parts in this order:
//!   1 octet  what follows
//!            0x01 head       kind 1, flags 1, generation 2, source 8 (else as before)
//!            0x02 index      signed: less the index before, less 1 (else 0)
//!            0x04 length     unsigned: octets of the payload (else as before)
//!            0x08 rtp        octets 0..12 of the payload are told by the RTP packet before
//!            0x10 type       1 octet, only with rtp: octet 1 XOR octet 1 before (else equal)
//!            0x20 timestamp  signed 32 bits, only with rtp: less what was expected (else 0)
//!            0x40 sum        4: CRC-32C of the record, as it must come out; of the first one that is not
//!                            raw always
//!            0x80 raw        nothing else set: the whole record follows as it is
//!   arrival  signed: less what was expected, always there
//!   payload  without its first 12 octets where rtp is set
//! ```
//! Numbers are little-endian; unsigned ones of variable size have 7 bits an octet, lowest first, the
//! highest bit set in all but the last (LEB128); signed ones are n·2, or −n·2−1 where they are below
//! zero. All arithmetic wraps. Before a chunk's first record kind is 1 and all else is 0. A raw record
//! tells nothing of the next one.
//!
//! Expected of arrival: the one before plus *step*. Behind the second record *step* is the difference
//! of the two, behind each later one it moves by an eighth (rounded down) of difference less *step*,
//! by 2^20 at most.
//! Expected of RTP (kind 1, payload of 12 octets or more): octets 0 and 8..12 as in the packet of
//! that kind before, octets 2..4 the lowest 16 bits of the index, octets 4..8 its timestamp plus
//! *ticks* times the difference of the indexes; *ticks* is what the timestamp last grew by from one
//! index to the next.
//! The sum of a record and the zeros behind it are computed.

use crate::base::ids::{Index, SourceId};
use crate::base::time::Mono;
use crate::store::record::{
    self, HEADER_BYTES, PAYLOAD_BYTES_MAX, Record, RecordKind, RecordMeta, record_bytes,
};

/// Octets of a chunk's header.
pub(super) const CHUNK_HEADER_BYTES: usize = 8;
/// Most octets of records in a chunk: one record of the longest kind fits.
pub const CHUNK_RECORD_BYTES_MAX: usize = record_bytes(PAYLOAD_BYTES_MAX);
pub(super) const HEAD: u8 = 0x01;
pub(super) const INDEX: u8 = 0x02;
pub(super) const LENGTH: u8 = 0x04;
pub(super) const RTP: u8 = 0x08;
pub(super) const TYPE: u8 = 0x10;
pub(super) const TIMESTAMP: u8 = 0x20;
pub(super) const SUM: u8 = 0x40;
pub(super) const RAW: u8 = 0x80;

/// Octets of an RTP header that can be told.
pub(super) const RTP_BYTES: usize = 12;
/// Most that the expected distance of two arrivals moves by, ns: a pause of the sender is not to
/// spoil what follows.
const STEP_MOVE_MAX: i64 = 1 << 20;

/// What the records before tell of the next one.
pub(super) struct Before {
    pub(super) meta: RecordMeta,
    pub(super) payload_bytes: usize,
    /// Expected distance of two arrivals, ns.
    step: i64,
    /// Records so far, at most 2.
    count: u8,
    /// First octets of the RTP packet before; `None`: none yet.
    rtp: Option<[u8; RTP_BYTES]>,
    rtp_index: u64,
    ticks: u32,
}

impl Before {
    pub(super) const fn new() -> Self {
        Before {
            meta: RecordMeta {
                kind: RecordKind::Rtp,
                flags: 0,
                generation: 0,
                source: SourceId(0),
                index: Index(0),
                arrival: Mono(0),
            },
            payload_bytes: 0,
            step: 0,
            count: 0,
            rtp: None,
            rtp_index: 0,
            ticks: 0,
        }
    }

    /// Nothing was packed yet.
    pub(super) const fn is_first(&self) -> bool {
        self.count == 0
    }

    pub(super) const fn expected_arrival(&self) -> u64 {
        self.meta.arrival.0.wrapping_add_signed(self.step)
    }

    /// The head of an RTP packet with this index.
    pub(super) fn expected_rtp(&self, index: u64) -> Option<[u8; RTP_BYTES]> {
        let mut head = self.rtp?;
        let distance = index.wrapping_sub(self.rtp_index) as u32;
        let timestamp = timestamp(&head).wrapping_add(self.ticks.wrapping_mul(distance));
        head[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        head[4..8].copy_from_slice(&timestamp.to_be_bytes());
        Some(head)
    }

    pub(super) fn note(&mut self, meta: &RecordMeta, payload: &[u8]) {
        let distance = meta.arrival.0.wrapping_sub(self.meta.arrival.0) as i64;
        match self.count {
            0 => self.count = 1,
            1 => (self.count, self.step) = (2, distance),
            _ => {
                let off = distance.wrapping_sub(self.step) >> 3;
                self.step = self.step.wrapping_add(off.clamp(-STEP_MOVE_MAX, STEP_MOVE_MAX));
            }
        }
        if let Some(head) = rtp_head(meta.kind, payload) {
            let index = meta.index.0;
            if let Some(before) = &self.rtp
                && index == self.rtp_index.wrapping_add(1)
            {
                self.ticks = timestamp(head).wrapping_sub(timestamp(before));
            }
            (self.rtp, self.rtp_index) = (Some(*head), index);
        }
        self.payload_bytes = payload.len();
        self.meta = *meta;
    }
}

fn rtp_head(kind: RecordKind, payload: &[u8]) -> Option<&[u8; RTP_BYTES]> {
    payload.first_chunk().filter(|_| kind == RecordKind::Rtp)
}

fn timestamp(head: &[u8; RTP_BYTES]) -> u32 {
    u32::from_be_bytes([head[4], head[5], head[6], head[7]])
}

fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, (value << 1 ^ value >> 63) as u64);
}

/// Octets that the record at the start of `records` takes by its length; `None` where it does not
/// fit or nothing has that length.
pub(super) fn stretch(records: &[u8]) -> Option<usize> {
    let payload_bytes = u32::from_le_bytes(*records.first_chunk()?) as usize;
    let bytes = record_bytes(Some(payload_bytes).filter(|one| *one <= PAYLOAD_BYTES_MAX)?);
    (bytes <= records.len()).then_some(bytes)
}

/// Octets of the whole records at the start of `records`, by their lengths alone.
pub(super) fn whole_records(records: &[u8]) -> usize {
    let mut at = 0;
    while let Some(bytes) = stretch(&records[at..]) {
        at += bytes;
    }
    at
}

/// Appends the chunk of `records` (at most [`CHUNK_RECORD_BYTES_MAX`]) to `out`: packed where that
/// is wanted and shorter.
pub fn put_chunk(records: &[u8], packed: bool, out: &mut Vec<u8>) {
    assert!(records.len() <= CHUNK_RECORD_BYTES_MAX, "a chunk takes no more");
    let start = out.len() + CHUNK_HEADER_BYTES;
    // Of the worst record a little more is packed than it has.
    out.reserve(CHUNK_HEADER_BYTES + records.len() + records.len() / 8);
    out.resize(start, 0);
    if !packed || !pack(records, out) || out.len() - start >= records.len() {
        out.truncate(start);
        out.extend_from_slice(records);
    }
    let stored = (out.len() - start) as u32;
    out[start - 8..start - 4].copy_from_slice(&stored.to_le_bytes());
    out[start - 4..start].copy_from_slice(&(records.len() as u32).to_le_bytes());
}

/// False where `records` are no run of records, by their lengths.
fn pack(records: &[u8], out: &mut Vec<u8>) -> bool {
    let mut before = Before::new();
    let mut rest = records;
    while !rest.is_empty() {
        let Some(bytes) = stretch(rest) else { return false };
        let (raw, behind) = rest.split_at(bytes);
        match record::read(raw) {
            // What the unpacker would write behind the payload.
            Ok(record)
                if raw[HEADER_BYTES + record.payload.len()..].iter().all(|one| *one == 0) =>
            {
                put_record(&record, &mut before, out);
            }
            _ => {
                out.push(RAW);
                out.extend_from_slice(raw);
            }
        }
        rest = behind;
    }
    true
}

fn put_record(record: &Record<'_>, before: &mut Before, out: &mut Vec<u8>) {
    let Record { meta, payload, raw } = record;
    let at = out.len();
    out.push(0);
    let mut what = 0;
    let head = |meta: &RecordMeta| (meta.kind, meta.flags, meta.generation, meta.source);
    if head(meta) != head(&before.meta) {
        what |= HEAD;
        out.extend_from_slice(&raw[4..16]);
    }
    let off = meta.index.0.wrapping_sub(before.meta.index.0).wrapping_sub(1) as i64;
    if off != 0 {
        what |= INDEX;
        put_signed(out, off);
    }
    if payload.len() != before.payload_bytes {
        what |= LENGTH;
        put_unsigned(out, payload.len() as u64);
    }
    put_signed(out, meta.arrival.0.wrapping_sub(before.expected_arrival()) as i64);
    let mut told = 0;
    if let Some(head) = rtp_head(meta.kind, payload)
        && let Some(expected) = before.expected_rtp(meta.index.0)
        && (head[0], &head[2..4], &head[8..]) == (expected[0], &expected[2..4], &expected[8..])
    {
        what |= RTP;
        told = RTP_BYTES;
        if head[1] != expected[1] {
            what |= TYPE;
            out.push(head[1] ^ expected[1]);
        }
        let off = timestamp(head).wrapping_sub(timestamp(&expected)) as i32;
        if off != 0 {
            what |= TIMESTAMP;
            put_signed(out, off.into());
        }
    }
    if before.is_first() {
        what |= SUM;
        out.extend_from_slice(&raw[HEADER_BYTES - 4..HEADER_BYTES]);
    }
    out.extend_from_slice(&payload[told..]);
    out[at] = what;
    before.note(meta, payload);
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
