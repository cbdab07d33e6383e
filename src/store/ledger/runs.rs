//! Which indexes of a source are recorded, as runs without holes.

use std::collections::BTreeMap;

use crate::base::time::Wall;

/// Runs of recorded indexes, by first index. One entry per gap, plus one.
#[derive(Clone, Debug, Default)]
pub struct Runs(BTreeMap<u64, Run>);

#[derive(Clone, Copy, Debug)]
struct Run {
    last: u64,
    /// Arrival of the first index.
    from: Wall,
    /// Arrival of the last index.
    to: Wall,
}

/// Indexes between two runs, and the arrivals of the packets on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// First missing index.
    pub first: u64,
    /// Last missing index.
    pub last: u64,
    /// Arrival of the packet before.
    pub from: Wall,
    /// Arrival of the packet after.
    pub to: Wall,
}

impl Hole {
    /// Number of missing indexes.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }

    /// What is left of it without the indexes from `first` to `last`.
    pub fn without(self, first: u64, last: u64) -> impl Iterator<Item = Hole> {
        let before = Hole { last: self.last.min(first.saturating_sub(1)), ..self };
        let behind = Hole { first: self.first.max(last.saturating_add(1)), ..self };
        let apart = first > self.last || last < self.first || first > last;
        let parts = if apart { [Some(self), None] } else { [Some(before), Some(behind)] };
        // Nothing stands before the first index of all.
        let empty =
            move |hole: &Hole| hole.first > hole.last || (!apart && first == 0 && *hole == before);
        parts.into_iter().flatten().filter(move |hole| !empty(hole))
    }

    /// Its arrivals, earlier one first: reordering may turn them round.
    pub fn span(&self) -> (Wall, Wall) {
        (self.from.min(self.to), self.from.max(self.to))
    }
}

impl Runs {
    /// Notes an index; false where it was there already.
    pub fn add(&mut self, index: u64, arrival: Wall) -> bool {
        // Nearly all come in their order.
        if let Some(mut newest) = self.0.last_entry()
            && newest.get().last.checked_add(1) == Some(index)
        {
            let run = newest.get_mut();
            (run.last, run.to) = (index, arrival);
            return true;
        }
        let before = self.0.range_mut(..=index).next_back();
        let mut first = index;
        if let Some((start, run)) = before {
            if index <= run.last {
                return false;
            }
            if index == run.last + 1 {
                run.last = index;
                run.to = arrival;
                first = *start;
            }
        }
        if first == index {
            self.0.insert(index, Run { last: index, from: arrival, to: arrival });
        }
        if let Some(next) = index.checked_add(1).and_then(|next| self.0.remove(&next)) {
            let run = self.0.get_mut(&first).expect("inserted or extended above");
            run.last = next.last;
            run.to = next.to;
        }
        true
    }

    /// Whether any index from `first` to `last` is there.
    pub fn has_any(&self, first: u64, last: u64) -> bool {
        let before = self.0.range(..=last).next_back();
        first <= last && before.is_some_and(|(_, run)| run.last >= first)
    }

    /// First and last index, with the arrivals of both.
    pub fn bounds(&self) -> Option<(u64, u64)> {
        let (first, _) = self.0.first_key_value()?;
        let (_, run) = self.0.last_key_value()?;
        Some((*first, run.last))
    }

    /// The gaps, in order.
    pub fn holes(&self) -> impl Iterator<Item = Hole> + '_ {
        self.0.values().zip(self.0.iter().skip(1)).map(|(run, (start, next))| Hole {
            first: run.last + 1,
            last: start - 1,
            from: run.to,
            to: next.from,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any order, loss and repetition: the runs agree with a plain set of indexes.
        #[test]
        fn agrees_with_a_set_of_indexes(
            indexes in proptest::collection::vec(0_u64..200, 1..400),
            base in 0_u64..(1 << 47),
        ) {
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for (time, index) in indexes.iter().enumerate() {
                let index = base + index;
                prop_assert_eq!(runs.add(index, Wall(time as i64)), set.insert(index));
            }
            let (first, last) = (*set.first().expect("one at least"), *set.last().expect("one"));
            prop_assert_eq!(runs.bounds(), Some((first, last)));
            let missing: Vec<u64> =
                (first..=last).filter(|index| !set.contains(index)).collect();
            let holes: Vec<u64> =
                runs.holes().flat_map(|hole| hole.first..=hole.last).collect();
            prop_assert_eq!(holes, missing);
            for from in first..=last {
                let any = set.range(from..=from + 3).next().is_some();
                prop_assert_eq!(runs.has_any(from, from + 3), any);
            }
        }
    }

    #[test]
    fn what_is_gone_is_cut_out_of_a_gap() {
        let hole = |first, last| Hole { first, last, from: Wall(1), to: Wall(2) };
        let without = |first, last| hole(10, 20).without(first, last).collect::<Vec<_>>();
        assert_eq!(without(12, 15), [hole(10, 11), hole(16, 20)]);
        assert_eq!(without(10, 20), []);
        assert_eq!(without(0, 30), []);
        assert_eq!(without(0, 12), [hole(13, 20)]);
        assert_eq!(without(15, u64::MAX), [hole(10, 14)]);
        assert_eq!(without(21, 30), [hole(10, 20)]);
        assert_eq!(without(0, 9), [hole(10, 20)]);
        let first = Hole { first: 0, ..hole(0, 5) };
        assert_eq!(first.without(0, 3).collect::<Vec<_>>(), [hole(4, 5)]);
    }

    #[test]
    fn a_gap_names_the_arrivals_around_it() {
        let mut runs = Runs::default();
        for (index, at) in [(5, 50), (6, 60), (10, 100), (9, 101)] {
            runs.add(index, Wall(at));
        }
        let holes: Vec<Hole> = runs.holes().collect();
        assert_eq!(holes, [Hole { first: 7, last: 8, from: Wall(60), to: Wall(101) }]);
        assert_eq!(holes[0].count(), 2);
    }
}
