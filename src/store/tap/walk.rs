//! Records of a block of the ring, one behind the other.

use crate::store::record::{self, HEADER_BYTES, Record, RecordKind, record_bytes};

/// How a block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    /// Up to this position; what is left of the block, if anything, is the beginning of a record.
    To(u64),
    /// No record stands at this position.
    Lost(u64),
}

/// Shows each record of `bytes`, which stand from `position` on in a ring of `ring_bytes`, to `visitor`, with
/// the position behind it. `wanted`: by source, whose records are of interest; of the others only the length
/// is looked at.
pub fn walk(
    bytes: &[u8],
    position: u64,
    ring_bytes: u64,
    wanted: impl Fn(u64) -> bool,
    visitor: &mut dyn FnMut(u64, &Record<'_>),
) -> Walked {
    let mut at = position;
    let mut rest = bytes;
    loop {
        let left = (ring_bytes - at % ring_bytes) as usize;
        if left < HEADER_BYTES {
            // Too little for a record: the next one stands at the ring's beginning.
            if rest.len() < left {
                return Walked::To(at);
            }
            (at, rest) = (at + left as u64, &rest[left..]);
            continue;
        }
        let Some((length, kind, source)) = head(rest) else { return Walked::To(at) };
        let total = record_bytes(length);
        let is_pad = kind == RecordKind::Pad as u8;
        if total > left || (length > record::PAYLOAD_BYTES_MAX && !is_pad) {
            return Walked::Lost(at);
        }
        if total > rest.len() {
            return Walked::To(at);
        }
        if !is_pad && wanted(source) {
            match record::read(&rest[..total]) {
                Ok(record) => visitor(at + total as u64, &record),
                Err(_) => return Walked::Lost(at),
            }
        } else if RecordKind::from_code(kind).is_none() {
            return Walked::Lost(at);
        }
        (at, rest) = (at + total as u64, &rest[total..]);
    }
}

/// Length of the payload, kind and source, as a header claims them.
fn head(bytes: &[u8]) -> Option<(usize, u8, u64)> {
    let head = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let mut source = [0; 8];
    source.copy_from_slice(&head[8..16]);
    Some((length as usize, head[4], u64::from_le_bytes(source)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{Index, SourceId};
    use crate::base::prng::Prng;
    use crate::base::time::Mono;
    use crate::store::record::RecordMeta;

    fn push(out: &mut Vec<u8>, kind: RecordKind, source: u64, payload: &[u8]) {
        let meta = RecordMeta {
            kind,
            flags: 0,
            generation: 1,
            source: SourceId(source),
            index: Index(out.len() as u64),
            arrival: Mono(1),
        };
        let at = out.len();
        out.resize(at + record_bytes(payload.len()), 0);
        record::write(&meta, payload, &mut out[at..]);
    }

    /// Two records of source 5 with one of another between them.
    fn three() -> Vec<u8> {
        let mut bytes = Vec::new();
        push(&mut bytes, RecordKind::Rtp, 5, b"first");
        push(&mut bytes, RecordKind::Rtp, 6, b"not ours");
        push(&mut bytes, RecordKind::Event, 5, b"third");
        bytes
    }

    fn seen(bytes: &[u8], position: u64, ring: u64) -> (Vec<Vec<u8>>, Walked) {
        let mut seen = Vec::new();
        let walked = walk(bytes, position, ring, |source| source == 5, &mut |_, record| {
            seen.push(record.payload.to_vec());
        });
        (seen, walked)
    }

    #[test]
    fn wanted_records_are_shown_and_a_cut_one_is_left_for_later() {
        let bytes = three();
        let (all, walked) = seen(&bytes, 1 << 20, 1 << 20);
        assert_eq!(all, [b"first".to_vec(), b"third".to_vec()]);
        assert_eq!(walked, Walked::To((1 << 20) + bytes.len() as u64));
        for cut in 0..bytes.len() {
            let (some, walked) = seen(&bytes[..cut], 0, 1 << 20);
            let Walked::To(at) = walked else { panic!("cut at {cut}") };
            let (rest, _) = seen(&bytes[at as usize..], at, 1 << 20);
            assert_eq!([some, rest].concat(), all, "cut at {cut}");
        }
    }

    #[test]
    fn the_rings_end_is_passed_over() {
        let record = record_bytes(5) as u64;
        for left in [8_usize, 32, 40, 48] {
            let ring = 4 * record + left as u64;
            let mut bytes = Vec::new();
            push(&mut bytes, RecordKind::Rtp, 5, b"first");
            if left >= HEADER_BYTES {
                let pad = vec![0; left - HEADER_BYTES];
                push(&mut bytes, RecordKind::Pad, 0, &pad);
            } else {
                bytes.resize(bytes.len() + left, 0xee);
            }
            push(&mut bytes, RecordKind::Rtp, 5, b"second");
            let (all, walked) = seen(&bytes, ring + 3 * record, ring);
            assert_eq!(all, [b"first".to_vec(), b"second".to_vec()], "{left} bytes are left");
            assert_eq!(walked, Walked::To(ring + 3 * record + bytes.len() as u64));
        }
    }

    #[test]
    fn whatever_stands_there_nothing_wrong_is_shown() {
        let good = three();
        let mut random = Prng::new(11);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
            let (some, _) = seen(&bytes, 0, 1 << 20);
            assert!(some.iter().all(|one| [&b"first"[..], b"third"].contains(&one.as_slice())));
        }
    }
}
