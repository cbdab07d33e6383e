//! What [`super::pack`] has packed, as it was. The bytes come from a disk: whatever they say, what is
//! allocated is bounded by how many they are, and nothing panics.

use super::pack::{
    Before, CHUNK_HEADER_BYTES, CHUNK_RECORD_BYTES_MAX, HEAD, INDEX, LENGTH, RAW, RTP, RTP_BYTES,
    SUM, TIMESTAMP, TYPE, stretch,
};
use crate::base::ids::{Index, SourceId};
use crate::base::time::Mono;
use crate::store::record::{
    HEADER_BYTES, PAYLOAD_BYTES_MAX, RecordKind, record_bytes, seal_in_place,
};

/// Most octets of records that an octet of a packed chunk stands for: a record without payload has
/// 40 and takes two.
const GROWTH_MAX: usize = 20;

/// The header of the chunk at the start of `bytes`: octets stored, octets of records.
fn chunk(bytes: &[u8]) -> Option<(usize, usize)> {
    let (stored, records) = bytes.first_chunk::<CHUNK_HEADER_BYTES>()?.split_at(4);
    let number = |four: &[u8]| four.first_chunk().map(|four| u32::from_le_bytes(*four) as usize);
    let (stored, records) = (number(stored)?, number(records)?);
    let possible = stored <= records
        && records <= CHUNK_RECORD_BYTES_MAX
        && records <= stored.saturating_mul(GROWTH_MAX);
    (possible && records > 0).then_some((stored, records))
}

/// The records of a run of chunks, at most `bytes_max`; `None` where it is none.
pub fn unpack(chunks: &[u8], bytes_max: u64) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    unpack_into(chunks, bytes_max, &mut out)?;
    Some(out)
}

/// The same at the start of `memory`, which is made longer where it has to be. Also returns whether each record
/// was told, and so has got its sum here: one that stands raw has the sum that it had.
pub(super) fn unpack_into<'m>(
    chunks: &[u8],
    bytes_max: u64,
    memory: &'m mut Vec<u8>,
) -> Option<(&'m [u8], bool)> {
    let mut total = 0;
    let mut rest = chunks;
    while !rest.is_empty() {
        let (stored, records) = chunk(rest)?;
        rest = rest.get(CHUNK_HEADER_BYTES + stored..)?;
        total += records;
    }
    if total as u64 > bytes_max {
        return None;
    }
    if memory.len() < total {
        memory.resize(total, 0);
    }
    // Each byte of it is written, or there is nothing.
    let out = &mut memory[..total];
    let mut told = true;
    let (mut rest, mut room) = (chunks, &mut *out);
    while !rest.is_empty() {
        let (stored, records) = chunk(rest)?;
        let (body, behind) = rest[CHUNK_HEADER_BYTES..].split_at(stored);
        let (target, room_behind) = room.split_at_mut(records);
        told &= unpack_chunk(body, target)?;
        (rest, room) = (behind, room_behind);
    }
    Some((out, told))
}

/// Whether each of its records was told.
fn unpack_chunk(stored: &[u8], mut records: &mut [u8]) -> Option<bool> {
    if stored.len() == records.len() {
        records.copy_from_slice(stored);
        return Some(false);
    }
    let mut before = Before::new();
    let mut rest = Rest(stored);
    let mut told = true;
    while !records.is_empty() {
        told &= rest.0.first() != Some(&RAW);
        let bytes = record(&mut rest, &mut before, records)?;
        records = &mut records[bytes..];
    }
    rest.0.is_empty().then_some(told)
}

/// The first record of a run of chunks, of which `start` may be the first octets only; checked
/// against its sum. `None` where it is not whole.
pub fn first_record(start: &[u8]) -> Option<Vec<u8>> {
    let (stored, records) = chunk(start)?;
    let body = &start[CHUNK_HEADER_BYTES..];
    if stored == records {
        return Some(body[..stretch(body)?].to_vec());
    }
    let mut out = vec![0; records];
    let bytes = record(&mut Rest(&body[..stored.min(body.len())]), &mut Before::new(), &mut out)?;
    out.truncate(bytes);
    Some(out)
}

/// Packed octets that were not looked at yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn octet(&mut self) -> Option<u8> {
        self.take(1).map(|one| one[0])
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let octet = self.octet()?;
            // Of the tenth octet one bit is left.
            if shift == 63 && octet > 1 {
                return None;
            }
            value |= u64::from(octet & 0x7f) << shift;
            if octet < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        self.unsigned().map(|value| (value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

/// Writes the next record to the start of `out`; its size.
fn record(rest: &mut Rest<'_>, before: &mut Before, out: &mut [u8]) -> Option<usize> {
    let what = rest.octet()?;
    if what == RAW {
        let bytes = stretch(rest.0).filter(|bytes| *bytes <= out.len())?;
        out[..bytes].copy_from_slice(rest.take(bytes)?);
        return Some(bytes);
    }
    if what & RAW != 0 || what & (TYPE | TIMESTAMP) != 0 && what & RTP == 0 {
        return None;
    }
    let mut meta = before.meta;
    if what & HEAD != 0 {
        let head: &[u8; 12] = rest.take(12)?.first_chunk()?;
        let [kind, flags, low, high, source @ ..] = head;
        meta.kind = RecordKind::from_code(*kind)?;
        meta.flags = *flags;
        meta.generation = u16::from_le_bytes([*low, *high]);
        meta.source = SourceId(u64::from_le_bytes(*source));
    }
    let off = if what & INDEX != 0 { rest.signed()? } else { 0 };
    meta.index = Index(before.meta.index.0.wrapping_add(1).wrapping_add_signed(off));
    let payload_bytes = match what & LENGTH {
        0 => before.payload_bytes,
        _ => usize::try_from(rest.unsigned()?).ok()?,
    };
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return None;
    }
    meta.arrival = Mono(before.expected_arrival().wrapping_add_signed(rest.signed()?));
    let by_rtp = what & RTP != 0;
    if by_rtp && meta.kind != RecordKind::Rtp || before.is_first() && what & SUM == 0 {
        return None;
    }
    let bytes = record_bytes(payload_bytes);
    let raw = out.get_mut(..bytes)?;
    let payload = &mut raw[HEADER_BYTES..HEADER_BYTES + payload_bytes];
    let mut told = 0;
    if by_rtp {
        let mut head = before.expected_rtp(meta.index.0)?;
        if what & TYPE != 0 {
            head[1] ^= rest.octet()?;
        }
        if what & TIMESTAMP != 0 {
            let off = i32::try_from(rest.signed()?).ok()?;
            let timestamp = u32::from_be_bytes(*head[4..].first_chunk()?);
            head[4..8].copy_from_slice(&timestamp.wrapping_add_signed(off).to_be_bytes());
        }
        *payload.first_chunk_mut()? = head;
        told = RTP_BYTES;
    }
    let sum = if what & SUM != 0 { Some(rest.take(4)?) } else { None };
    payload[told..].copy_from_slice(rest.take(payload_bytes - told)?);
    before.note(&meta, payload);
    seal_in_place(&meta, payload_bytes, raw);
    let right = sum.is_none_or(|sum| *sum == raw[HEADER_BYTES - 4..HEADER_BYTES]);
    right.then_some(bytes)
}
