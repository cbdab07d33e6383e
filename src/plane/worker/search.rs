//! F32: the roll-over counter of a source that was lost, or is behind after a long silence, found
//! again by trying. Only upwards: what lies below the highest index known is refused in any case.

use crate::base::ids::{Index, Seq};
use crate::base::ports::Region;
use crate::base::suite::Suite;
use crate::plane::handoff::source::{SEARCH, SUSPECT, SourceView};
use crate::wire::seq;

/// Tags tried in one turn, of all sources together: 64 × 0.4 µs, less than a full turn's packets
/// cost, so that nobody else's packet waits long.
pub(super) const TAGS_PER_TURN: u16 = 64;
/// Counters tried before the search begins anew. 65,536 cycles are 995 days at 50 packets/s.
const CYCLES_MAX: u64 = 65_536;
/// Counters that every packet is tried with: forged ones must not drive the search past the true
/// one, which is nearly always among the first.
const NEAREST: u64 = 3;
/// A tag of 32 bits passes by chance once in 2^32 tries, and a search makes many: three packets
/// under the same counter prove it.
const SHORT_TAG_HITS: u64 = 3;

/// Tries counters for a packet whose nearest index did not verify. `tries`: how many tags may still
/// be tried in this turn. `verify`: whether the packet is new and authentic under an index, and its
/// length then.
///
/// Where it was left off stands in the source, so that the next packet goes on from there.
pub(super) fn search<R: Region>(
    source: SourceView<'_, R>,
    highest: Index,
    seq: Seq,
    suite: Suite,
    tries: &mut u16,
    mut verify: impl FnMut(Index) -> Option<usize>,
) -> Option<(Index, usize)> {
    let mut attempt = |index: Index, tries: &mut u16| {
        *tries = tries.checked_sub(1)?;
        verify(index)
    };
    let wanted = if suite.rtp_tag_bytes() >= 10 { 1 } else { SHORT_TAG_HITS };
    let suspect = source.word(SUSPECT);
    let (hits, near) = (suspect >> 48, Index(suspect & Index::MAX.0));
    if hits > 0
        && let Some(index) = seq::estimate(Some(near), seq)
        && let Some(length) = attempt(index, tries)
    {
        if hits + 1 >= wanted {
            source.set(SUSPECT, 0);
            source.set(SEARCH, 0);
            return Some((index, length));
        }
        source.set(SUSPECT, index.0 | (hits + 1) << 48);
        return None;
    }
    let left_off = source.word(SEARCH).max(NEAREST);
    let cycles = (0..NEAREST).chain(left_off..CYCLES_MAX);
    let mut reached = left_off;
    let mut found = None;
    for cycle in cycles {
        let roc = u64::from(highest.roc()) + cycle;
        let Ok(roc) = u32::try_from(roc) else { break };
        let index = Index::new(roc, seq);
        if let Some(length) = attempt(index, tries) {
            found = Some((index, length));
            break;
        }
        if *tries == 0 {
            break;
        }
        reached = reached.max(cycle + 1);
    }
    source.set(SEARCH, if reached >= CYCLES_MAX { 0 } else { reached });
    let (index, length) = found?;
    if wanted == 1 {
        source.set(SEARCH, 0);
        return Some((index, length));
    }
    source.set(SUSPECT, index.0 | 1 << 48);
    None
}
