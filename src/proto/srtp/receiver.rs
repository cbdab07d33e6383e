//! Which indexes a packet may have: the guesses to try, by tag, in order. Changes nothing and knows
//! no key; the caller tries each with `Context::unprotect_rtp` and accepts the one that verifies.

use crate::base::ids::{Index, Seq};
use crate::wire::seq;

/// How the key in hand relates to what is known of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epoch {
    /// The key under which the source's state was made, or a source that is new.
    Running,
    /// A key that came by a re-offer and has not yet verified any packet of this source.
    Fresh,
}

/// The guesses in order, at most three. None of them twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    indexes: [Index; 3],
    count: u8,
}

impl Candidates {
    fn push(&mut self, index: Option<Index>) {
        let Some(index) = index else { return };
        if !self.as_slice().contains(&index) {
            self.indexes[usize::from(self.count)] = index;
            self.count += 1;
        }
    }

    /// The guesses.
    pub fn as_slice(&self) -> &[Index] {
        &self.indexes[..usize::from(self.count)]
    }
}

impl IntoIterator for Candidates {
    type Item = Index;
    type IntoIter = std::iter::Take<std::array::IntoIter<Index, 3>>;

    fn into_iter(self) -> Self::IntoIter {
        self.indexes.into_iter().take(self.count.into())
    }
}

/// The guesses for a packet with `seq` of a source whose highest authenticated index is `highest`
/// (`None`: nothing of this SSRC was authenticated yet).
///
/// - New source: ROC 0, then ROC 1. RFC 4568 §6.4 asks senders to begin below 2^15; one that begins
///   at 65,530 and loses the first packets is seen only after it wrapped.
/// - Known source: the nearest index (RFC 3711 §3.3.1).
/// - Known source under a fresh key: the nearest index, since a re-key does not reset ROC (RFC 3711
///   §3.3.1), then ROC 0 and 1, since many SRCs begin a new context with a new key (RFC 4568 §7.1.4).
///   The state must be reset before an index of the second kind is accepted: see [`restarts`].
#[inline]
pub fn candidates(highest: Option<Index>, seq: Seq, epoch: Epoch) -> Candidates {
    let mut candidates = Candidates::default();
    if highest.is_some() {
        candidates.push(seq::estimate(highest, seq));
    }
    if highest.is_none() || epoch == Epoch::Fresh {
        candidates.push(Some(Index::new(0, seq)));
        candidates.push(Some(Index::new(1, seq)));
    }
    candidates
}

/// Whether accepting `index` under a fresh key means that the source began anew: it is not the
/// nearest index to `highest`. Replay window and highest index then begin again with it.
pub fn restarts(highest: Option<Index>, index: Index) -> bool {
    highest.is_some() && seq::estimate(highest, index.seq()) != Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(roc: u32, seq: u16) -> Index {
        Index::new(roc, Seq(seq))
    }

    #[test]
    fn a_new_source_may_have_wrapped_already() {
        let found = candidates(None, Seq(3), Epoch::Running);
        assert_eq!(found.as_slice(), [at(0, 3), at(1, 3)]);
        assert_eq!(candidates(None, Seq(3), Epoch::Fresh), found);
    }

    #[test]
    fn a_known_source_costs_one_try() {
        let found = candidates(Some(at(4, 65_535)), Seq(0), Epoch::Running);
        assert_eq!(found.as_slice(), [at(5, 0)]);
    }

    #[test]
    fn no_index_below_zero_is_tried() {
        assert!(candidates(Some(at(0, 3)), Seq(65_530), Epoch::Running).as_slice().is_empty());
    }

    #[test]
    fn a_fresh_key_tries_the_running_counter_then_a_new_context() {
        let found = candidates(Some(at(4, 100)), Seq(101), Epoch::Fresh);
        assert_eq!(found.as_slice(), [at(4, 101), at(0, 101), at(1, 101)]);
        assert!(!restarts(Some(at(4, 100)), at(4, 101)));
        assert!(restarts(Some(at(4, 100)), at(0, 101)));
        assert!(!restarts(None, at(1, 101)));
    }

    #[test]
    fn no_guess_is_tried_twice() {
        let found = candidates(Some(at(0, 100)), Seq(101), Epoch::Fresh);
        assert_eq!(found.as_slice(), [at(0, 101), at(1, 101)]);
    }
}
