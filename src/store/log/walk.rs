//! Walks over the records of a range of positions, as the ring laid them out.

use crate::base::ids::Position;
use crate::store::record::{self, HEADER_BYTES, Record, RecordKind};

/// What stands at a position.
#[derive(Debug)]
pub enum Step<'a> {
    /// A valid record (never a pad).
    Record {
        /// Where it begins.
        at: Position,
        /// The record.
        record: Record<'a>,
    },
    /// Bytes that are no valid record; the walk goes on behind them.
    Damaged {
        /// Where they begin.
        at: Position,
        /// How many.
        bytes: u64,
    },
}

/// Iterates over `bytes`, which are the ring bytes from position `first` on. Pads and the ring's
/// unused end are passed over. A record whose sum differs but whose length is plausible costs
/// itself only; where the length is not, nothing behind it can be found and the rest is damaged.
pub struct Walk<'a> {
    bytes: &'a [u8],
    at: u64,
    ring_bytes: u64,
}

impl<'a> Walk<'a> {
    /// A walk over `bytes` of a ring of `ring_bytes` (a multiple of 8, not 0).
    pub fn new(bytes: &'a [u8], first: Position, ring_bytes: u64) -> Self {
        debug_assert!(ring_bytes > 0);
        Walk { bytes, at: first.0, ring_bytes }
    }

    /// Position of the next step.
    pub fn position(&self) -> Position {
        Position(self.at)
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes = &self.bytes[bytes..];
        self.at += bytes as u64;
    }

    /// Length that the header at the front claims, if a record of that length can stand here.
    fn plausible(&self, left: usize) -> Option<usize> {
        let length = self.bytes.first_chunk::<4>().map(|four| u32::from_le_bytes(*four))?;
        let total = record::record_bytes(length as usize);
        let fits = total <= self.bytes.len() && total <= left;
        (fits && length as usize <= record::PAYLOAD_BYTES_MAX).then_some(total)
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        while !self.bytes.is_empty() {
            let left = (self.ring_bytes - self.at % self.ring_bytes) as usize;
            if left < HEADER_BYTES {
                self.advance(left.min(self.bytes.len()));
                continue;
            }
            let at = Position(self.at);
            let window = &self.bytes[..self.bytes.len().min(left)];
            match record::read(window) {
                Ok(record) => {
                    let total = record.raw.len();
                    self.advance(total);
                    if record.meta.kind != RecordKind::Pad {
                        return Some(Step::Record { at, record });
                    }
                }
                Err(_) => {
                    let bytes = self.plausible(left).unwrap_or(self.bytes.len());
                    self.advance(bytes);
                    return Some(Step::Damaged { at, bytes: bytes as u64 });
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{Index, SourceId};
    use crate::base::time::Mono;
    use crate::store::record::{RecordMeta, record_bytes};

    fn push(out: &mut Vec<u8>, kind: RecordKind, payload: &[u8]) {
        let meta = RecordMeta {
            kind,
            flags: 0,
            generation: 1,
            source: SourceId(1 << 16),
            index: Index(0),
            arrival: Mono(1),
        };
        let start = out.len();
        out.resize(start + record_bytes(payload.len()), 0);
        record::write(&meta, payload, &mut out[start..]);
    }

    #[test]
    fn pads_and_the_rings_end_are_passed_over() {
        let mut bytes = Vec::new();
        push(&mut bytes, RecordKind::Rtp, &[1; 20]);
        push(&mut bytes, RecordKind::Pad, &[0; 60]);
        let ring_bytes = bytes.len() as u64 + 32;
        bytes.resize(ring_bytes as usize, 0xee);
        push(&mut bytes, RecordKind::Rtp, &[2; 20]);
        let first = Position(ring_bytes * 5);
        let seen: Vec<_> = Walk::new(&bytes, first, ring_bytes)
            .map(|step| match step {
                Step::Record { at, record } => (at.0 - first.0, record.payload[0]),
                Step::Damaged { .. } => panic!("nothing is damaged"),
            })
            .collect();
        assert_eq!(seen, [(0, 1), (ring_bytes, 2)]);
    }

    #[test]
    fn a_bad_record_costs_itself_and_a_bad_length_the_rest() {
        let mut bytes = Vec::new();
        for n in 0..3 {
            push(&mut bytes, RecordKind::Rtp, &[n; 20]);
        }
        let mut sum = bytes.clone();
        sum[56 + 40] ^= 1;
        let good = |bytes: &[u8]| {
            Walk::new(bytes, Position(0), 1 << 20)
                .filter(|step| matches!(step, Step::Record { .. }))
                .count()
        };
        assert_eq!((good(&bytes), good(&sum)), (3, 2));
        let mut length = bytes.clone();
        length[56 + 3] = 0xff;
        assert_eq!(good(&length), 1);
    }
}
