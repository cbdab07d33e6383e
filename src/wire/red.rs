//! Redundant data in one packet (RFC 2198): what earlier packets carried, and what is new.

use smallvec::SmallVec;

/// Most earlier blocks that are looked at: real-time text sends two (RFC 4103 §4.2).
pub const BLOCKS_MAX: usize = 8;

/// One earlier block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Payload type of its data.
    pub payload_type: u8,
    /// How much earlier it was, in units of the RTP clock.
    pub earlier: u16,
    /// Its data.
    pub data: &'a [u8],
}

/// A payload of redundant data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Red<'a> {
    /// Earlier blocks, the oldest first.
    pub earlier: SmallVec<[Block<'a>; 2]>,
    /// Payload type of what is new.
    pub payload_type: u8,
    /// What is new.
    pub primary: &'a [u8],
}

impl<'a> Red<'a> {
    /// Reads a payload (RFC 2198 §3); `None` where it is none, or has more than [`BLOCKS_MAX`] earlier blocks.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut heads: SmallVec<[(u8, u16, usize); 2]> = SmallVec::new();
        let mut rest = payload;
        let payload_type = loop {
            let (&first, behind) = rest.split_first()?;
            if first & 0x80 == 0 {
                rest = behind;
                break first & 0x7f;
            }
            let (head, behind) = rest.split_first_chunk::<4>()?;
            let word = u32::from_be_bytes(*head);
            if heads.len() == BLOCKS_MAX {
                return None;
            }
            heads.push((first & 0x7f, (word >> 10 & 0x3fff) as u16, (word & 0x3ff) as usize));
            rest = behind;
        };
        let mut earlier = SmallVec::new();
        for (payload_type, before, bytes) in heads {
            let (data, behind) = rest.split_at_checked(bytes)?;
            earlier.push(Block { payload_type, earlier: before, data });
            rest = behind;
        }
        Some(Red { earlier, payload_type, primary: rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_generations_and_what_is_new() {
        // RFC 4103 §4.2, by hand: 600 and 300 ms earlier, payload type 98.
        let head = |earlier: u32, bytes: u32| (0x80 | 98) << 24 | earlier << 10 | bytes;
        let mut payload = Vec::new();
        payload.extend(head(600, 2).to_be_bytes());
        payload.extend(head(300, 0).to_be_bytes());
        payload.extend(b"\x62heX");
        let red = Red::parse(&payload).expect("well formed");
        assert_eq!((red.payload_type, red.primary), (98, &b"X"[..]));
        let told: Vec<_> = red.earlier.iter().map(|one| (one.earlier, one.data)).collect();
        assert_eq!(told, [(600, &b"he"[..]), (300, b"")]);
        for cut in 0..10 {
            assert_eq!(Red::parse(&payload[..cut]), None, "{cut}");
        }
        assert_eq!(Red::parse(&[98]).expect("empty").primary, b"");
    }

    #[test]
    fn more_blocks_than_anybody_sends_are_none() {
        let block = [0x80, 0, 0, 0];
        let many = |count: usize| [block.repeat(count), vec![98]].concat();
        assert!(Red::parse(&many(BLOCKS_MAX)).is_some());
        assert!(Red::parse(&many(BLOCKS_MAX + 1)).is_none());
    }
}
