//! Packet indexes: guessing the 48-bit index of a sequence number, and the window that tells new
//! packets from repeated ones. SRTP (RFC 3711 §3.3), SRTCP and plain RTP use the same two.
//!
//! The window is a handful of words that the caller keeps, in shared memory on the hot path, so
//! that it outlives a killed worker. Looking ([`check`]) and taking ([`accept`]) are apart: the tag
//! is verified in between, and nothing unauthenticated moves the window.

use crate::base::ids::{Index, Seq};
use crate::base::limits::REPLAY_WINDOW;

/// Half the sequence number space.
const HALF: u64 = 1 << 15;
/// All of it.
const WHOLE: u64 = 1 << 16;

/// Guesses the 48-bit packet index of `seq` from the highest index authenticated so far.
///
/// `highest`: last authenticated index, below 2^48; `None` before the first packet, when ROC is 0.
/// Returns the candidate nearest to `highest`, before or after it; `None` where that one would lie
/// below 0 or beyond 2^48 and so cannot exist. Changes nothing: call [`accept`] once the tag has
/// been checked.
///
/// RFC 3711 §3.3.1, appendix A.
#[inline]
pub fn estimate(highest: Option<Index>, seq: Seq) -> Option<Index> {
    let Some(highest) = highest else {
        return Some(Index::new(0, seq));
    };
    let same = highest.0 & !(WHOLE - 1) | u64::from(seq.0);
    let (last, seq) = (u64::from(highest.seq().0), u64::from(seq.0));
    if last < HALF && seq > last + HALF {
        same.checked_sub(WHOLE).map(Index)
    } else if last >= HALF && seq < last - HALF {
        Some(Index(same + WHOLE)).filter(|index| *index <= Index::MAX)
    } else {
        Some(Index(same))
    }
}

/// Words of bits in a window.
const BIT_WORDS: usize = (REPLAY_WINDOW / 64) as usize;
/// Words of a window: one bit for each of the last [`REPLAY_WINDOW`] indexes, at the place index
/// modulo window, then the highest index plus one (0: nothing accepted yet). All zeros is an empty
/// window.
pub const WINDOW_WORDS: usize = BIT_WORDS + 1;
/// Place of the word that holds the highest index plus one.
const HIGHEST: usize = BIT_WORDS;

/// Where a window's words lie. `word` is below [`WINDOW_WORDS`].
///
/// Stores must become visible to a successor in program order (release), nothing more: there is
/// one writer.
pub trait Words {
    /// Reads a word.
    fn load(&self, word: usize) -> u64;
    /// Writes a word.
    fn store(&mut self, word: usize, value: u64);
}

impl Words for [u64; WINDOW_WORDS] {
    #[inline]
    fn load(&self, word: usize) -> u64 {
        self[word]
    }

    #[inline]
    fn store(&mut self, word: usize, value: u64) {
        self[word] = value;
    }
}

/// What the window says of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not accepted before.
    New,
    /// Accepted before.
    Replayed,
    /// So far below the highest index that nobody can tell.
    Late,
}

/// The highest index accepted.
#[inline]
pub fn highest(words: &impl Words) -> Option<Index> {
    words.load(HIGHEST).checked_sub(1).map(Index)
}

/// Whether `index` is new. Changes nothing.
///
/// RFC 3711 §3.3.2.
#[inline]
pub fn check(words: &impl Words, index: Index) -> Verdict {
    let next = words.load(HIGHEST);
    if index.0 >= next {
        Verdict::New
    } else if index.0 + REPLAY_WINDOW < next {
        Verdict::Late
    } else if words.load(word(index.0)) & bit(index.0) != 0 {
        Verdict::Replayed
    } else {
        Verdict::New
    }
}

/// Marks `index` as accepted. Doing it twice, or again after being killed between any two stores,
/// leaves the same window: bits ahead are cleared, the bit is set, the highest index comes last.
/// An index below the window is left alone.
#[inline]
pub fn accept(words: &mut impl Words, index: Index) {
    let next = words.load(HIGHEST);
    if index.0 >= next {
        clear(words, next, index.0);
    } else if index.0 + REPLAY_WINDOW < next {
        return;
    }
    let place = word(index.0);
    words.store(place, words.load(place) | bit(index.0));
    if index.0 >= next {
        words.store(HIGHEST, index.0 + 1);
    }
}

/// Makes the window empty, for a source that begins anew.
pub fn reset(words: &mut impl Words) {
    // The highest goes first: without it the bits mean nothing, so a kill in between is harmless.
    words.store(HIGHEST, 0);
    for place in 0..BIT_WORDS {
        words.store(place, 0);
    }
}

/// Makes a window in which everything up to `highest` counts as accepted: for a source of which only
/// that much is known any more.
pub fn rebuild(words: &mut impl Words, highest: Index) {
    words.store(HIGHEST, 0);
    for place in 0..BIT_WORDS {
        words.store(place, u64::MAX);
    }
    words.store(HIGHEST, highest.0 + 1);
}

/// Clears the bits of `from..to`: indexes that were skipped, and what lay a window below them.
fn clear(words: &mut impl Words, from: u64, to: u64) {
    if from == 0 || to - from >= REPLAY_WINDOW {
        (0..BIT_WORDS).for_each(|place| words.store(place, 0));
        // The place of `to` itself is set by the caller.
        return;
    }
    // The usual step is one: then `from == to`, and only the bit of `to` is written, by the caller.
    let mut at = from;
    while at < to {
        let end = (at | 63).saturating_add(1).min(to);
        let mask = (u64::MAX >> (64 - (end - at))) << (at % 64);
        words.store(word(at), words.load(word(at)) & !mask);
        at = end;
    }
}

#[inline]
fn word(index: u64) -> usize {
    (index % REPLAY_WINDOW / 64) as usize
}

#[inline]
fn bit(index: u64) -> u64 {
    1 << (index % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn estimate_is_the_nearest_index_at_every_distance() {
        for highest in [0, 1, 32_767, 32_768, 65_535, 65_536, 98_303, 98_304, 131_071, 5 << 16] {
            for distance in -32_767_i64..=32_767 {
                let wanted = highest + distance;
                let found = estimate(Some(Index(highest as u64)), Seq(wanted as u16));
                let wanted = u64::try_from(wanted).ok().map(Index);
                assert_eq!(found, wanted, "highest {highest}, distance {distance}");
            }
        }
    }

    #[test]
    fn late_packet_keeps_roc() {
        let highest = Some(Index::new(1, Seq(3)));
        assert_eq!(estimate(highest, Seq(65_530)), Some(Index::new(0, Seq(65_530))));
        assert_eq!(estimate(highest, Seq(4)), Some(Index::new(1, Seq(4))));
    }

    #[test]
    fn first_packet_has_roc_zero_and_no_roc_exists_before_it_or_after_the_last() {
        assert_eq!(estimate(None, Seq(65_530)), Some(Index(65_530)));
        assert_eq!(estimate(Some(Index(3)), Seq(65_530)), None);
        assert_eq!(estimate(Some(Index::MAX), Seq(2)), None);
        assert_eq!(estimate(Some(Index::MAX), Seq(65_534)), Some(Index(Index::MAX.0 - 1)));
    }

    #[test]
    fn window_agrees_with_a_set_of_all_indexes() {
        let mut prng = Prng::new(0x5eed_0002);
        for start in [0_u64, 1, 63, 1_024, 65_000, 1 << 47] {
            let mut words = [0; WINDOW_WORDS];
            let mut seen = BTreeSet::new();
            let mut top = start;
            for _ in 0..20_000 {
                top += match prng.below(200) {
                    0 => prng.below(3_000),
                    1..=20 => prng.below(70),
                    _ => prng.below(3),
                };
                let index = (top + 5).saturating_sub(prng.below(1_100) * prng.below(2));
                let next = seen.last().map_or(0, |last| last + 1);
                let wanted = if index < next && next - index > REPLAY_WINDOW {
                    Verdict::Late
                } else if seen.contains(&index) {
                    Verdict::Replayed
                } else {
                    Verdict::New
                };
                assert_eq!(check(&words, Index(index)), wanted, "index {index}, next {next}");
                if wanted == Verdict::New {
                    accept(&mut words, Index(index));
                    seen.insert(index);
                    assert_eq!(highest(&words), seen.last().copied().map(Index));
                }
            }
        }
    }

    #[test]
    fn the_oldest_index_in_the_window_is_known_and_the_one_below_is_late() {
        let mut words = [0; WINDOW_WORDS];
        for index in 0..=1_024 {
            accept(&mut words, Index(index));
        }
        assert_eq!(check(&words, Index(1)), Verdict::Replayed);
        assert_eq!(check(&words, Index(0)), Verdict::Late);
    }

    /// Words that ignore every store after the first `left`: a kill at that instant.
    struct Killed {
        words: [u64; WINDOW_WORDS],
        left: usize,
    }

    impl Words for Killed {
        fn load(&self, word: usize) -> u64 {
            self.words[word]
        }

        fn store(&mut self, word: usize, value: u64) {
            if self.left > 0 {
                self.left -= 1;
                self.words[word] = value;
            }
        }
    }

    #[test]
    fn accepting_a_batch_again_after_a_kill_at_any_store_gives_the_same_window() {
        let mut prng = Prng::new(0x5eed_0003);
        for _ in 0..300 {
            let mut before = [0; WINDOW_WORDS];
            let base = prng.below(5_000);
            for _ in 0..prng.below(80) {
                accept(&mut before, Index(base + prng.below(1_024)));
            }
            // A batch as the worker makes it: each index was new when it was accepted.
            let mut whole = before;
            let mut batch = Vec::new();
            for _ in 0..8 {
                let jump = if prng.below(4) == 0 { 2_500 } else { 40 };
                let top = highest(&whole).map_or(base, |index| index.0) + prng.below(jump);
                let index = Index(top.saturating_sub(prng.below(60)));
                if check(&whole, index) == Verdict::New {
                    accept(&mut whole, index);
                    batch.push(index);
                }
            }
            for left in 0..160 {
                let mut killed = Killed { words: before, left };
                batch.iter().for_each(|index| accept(&mut killed, *index));
                let mut after = killed.words;
                batch.iter().for_each(|index| accept(&mut after, *index));
                assert_eq!(after, whole, "killed after {left} stores, batch {batch:?}");
            }
        }
    }

    #[test]
    fn a_rebuilt_window_takes_only_what_lies_above() {
        for highest in [0, 5, 1_023, 1_024, 70_000] {
            let mut words = [0; WINDOW_WORDS];
            rebuild(&mut words, Index(highest));
            for below in 0..=highest {
                assert_ne!(check(&words, Index(below)), Verdict::New, "{below} of {highest}");
            }
            for above in [highest + 3, highest + 1, highest + 2] {
                assert_eq!(check(&words, Index(above)), Verdict::New);
                accept(&mut words, Index(above));
                assert_eq!(check(&words, Index(above)), Verdict::Replayed);
            }
            assert_eq!(super::highest(&words), Some(Index(highest + 3)));
        }
    }

    #[test]
    fn reset_forgets_everything() {
        let mut words = [0; WINDOW_WORDS];
        accept(&mut words, Index(9));
        reset(&mut words);
        assert_eq!(words, [0; WINDOW_WORDS]);
        assert_eq!((highest(&words), check(&words, Index(9))), (None, Verdict::New));
    }
}
