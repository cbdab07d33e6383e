//! Which places of a stream's line of samples hold audio already. What comes where something is takes its
//! place in the WAV: two SSRCs that talk at once on one line, a timestamp that stands still. It is counted, so
//! that nothing disappears without a word.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Places without audio that are remembered. A packet that comes later than so many holes, half a minute of
/// one lost of two, fills the oldest of them or lies over something: nobody is told that it does.
const HOLES_MAX: usize = 1_024;

/// What lies over something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlapped {
    /// Packets whose audio took the place of other audio.
    pub packets: u64,
    /// Samples of a channel that are gone from the file by it.
    pub samples: u64,
}

/// See the module. Positions are those of [`super::placement`], in ticks of the RTP clock.
#[derive(Clone, Debug, Default)]
pub struct Cover {
    /// First place with audio, and the one behind the last.
    ends: Option<(i64, i64)>,
    /// Places between them without any: from, to.
    holes: BTreeMap<i64, i64>,
    /// Before here it is not known any more.
    known_from: Option<i64>,
    packets: u64,
    ticks: u64,
}

impl Cover {
    /// Takes a packet's audio.
    pub fn packet(&mut self, position: i64, ticks: u32) {
        let (from, to) = (position, position.saturating_add(i64::from(ticks)));
        if from >= to {
            return;
        }
        let Some((first, end)) = self.ends else {
            self.ends = Some((from, to));
            return;
        };
        if to < first {
            self.hole(to, first);
        } else if from > end {
            self.hole(end, from);
        }
        self.ends = Some((first.min(from), end.max(to)));
        // Where there was something, known or not, less what was a hole.
        let known = self.known_from.unwrap_or(i64::MIN);
        let (low, high) = (from.max(first).max(known), to.min(end));
        let over = (high - low).max(0) - self.fill(from, to, low, high);
        if over > 0 {
            self.packets += 1;
            self.ticks += over as u64;
        }
    }

    /// Ticks that lay over others, and the packets that they came in.
    pub fn over(&self) -> (u64, u64) {
        (self.packets, self.ticks)
    }

    fn hole(&mut self, from: i64, to: i64) {
        self.holes.insert(from, to);
        if self.holes.len() > HOLES_MAX
            && let Some((_, to)) = self.holes.pop_first()
        {
            self.known_from = self.known_from.max(Some(to));
        }
    }

    /// Takes `from..to` out of the holes; says how much of `low..high` was one.
    fn fill(&mut self, from: i64, to: i64, low: i64, high: i64) -> i64 {
        let mut filled = 0;
        // The only one that can begin before it and reach into it, then those that begin in it.
        while let Some((&start, &end)) = self.holes.range(..to).next_back() {
            if end <= from {
                break;
            }
            self.holes.remove(&start);
            filled += (end.min(high) - start.max(low)).max(0);
            if end > to {
                self.holes.insert(to, end);
            }
            if start < from {
                self.hole(start, from);
                break;
            }
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn gaps_that_are_filled_late_lie_over_nothing() {
        let mut cover = Cover::default();
        for n in [5, 3, 8, 4, 0, 6, 7, 1, 2] {
            cover.packet(n * 160, 160);
        }
        assert_eq!(cover.over(), (0, 0));
        cover.packet(3 * 160 + 80, 160);
        assert_eq!(cover.over(), (1, 160));
        cover.packet(9 * 160 - 1, 160);
        cover.packet(-100, 160);
        assert_eq!(cover.over(), (3, 160 + 1 + 60));
        cover.packet(20 * 160, 0);
        cover.packet(20 * 160, 160);
        assert_eq!(cover.over(), (3, 221), "a packet without audio takes no place");
    }

    /// Against a bit for each tick.
    #[test]
    fn what_it_counts_is_what_a_map_of_all_places_counts() {
        let mut prng = Prng::new(0x5eed_c0fe);
        for _ in 0..200 {
            let mut cover = Cover::default();
            let mut map = [false; 3_000];
            let (mut packets, mut ticks) = (0, 0);
            for _ in 0..prng.below(60) {
                let (at, length) = (prng.below(2_900) as usize, prng.below(100) as usize);
                let over = map[at..at + length].iter().filter(|there| **there).count() as u64;
                map[at..at + length].fill(true);
                packets += u64::from(over > 0);
                ticks += over;
                cover.packet(at as i64 - 1_500, length as u32);
                assert_eq!(cover.over(), (packets, ticks));
            }
        }
    }

    #[test]
    fn without_end_it_stays_small_and_accuses_nobody() {
        let mut cover = Cover::default();
        for n in 0..10_000 {
            cover.packet(2 * n * 160, 160);
        }
        assert_eq!(cover.holes.len(), HOLES_MAX);
        // All holes at last: those of long ago are not known to be any.
        for n in 0..10_000 {
            cover.packet((2 * n + 1) * 160, 160);
        }
        assert_eq!(cover.over(), (0, 0));
        cover.packet(0, 160);
        assert_eq!(cover.over(), (0, 0), "too long ago");
        cover.packet(19_000 * 160, 160);
        assert_eq!(cover.over(), (1, 160));
    }
}
