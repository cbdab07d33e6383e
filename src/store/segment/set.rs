//! Which segments: numbers have few holes, so however many there are, they are few stretches.

use super::name::SegmentName;
use crate::base::ids::WorkerId;

/// Numbers of a worker without a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    /// Whose.
    pub worker: WorkerId,
    /// Lowest number.
    pub first: u64,
    /// Highest number.
    pub last: u64,
}

impl Stretch {
    /// How many segments.
    pub const fn count(&self) -> u64 {
        self.last - self.first + 1
    }

    fn names(self) -> impl Iterator<Item = SegmentName> {
        (self.first..=self.last).map(move |number| SegmentName { worker: self.worker, number })
    }
}

/// Some segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentSet {
    /// By worker and number, none in two of them, none to be joined with the next.
    stretches: Vec<Stretch>,
}

impl SegmentSet {
    /// Those of stretches, in any order, of which several may hold the same.
    pub fn of(mut stretches: Vec<Stretch>) -> Self {
        stretches.retain(|one| one.first <= one.last);
        stretches.sort_unstable();
        let mut set = SegmentSet::default();
        for one in stretches {
            match set.stretches.last_mut() {
                Some(last)
                    if last.worker == one.worker && one.first <= last.last.saturating_add(1) =>
                {
                    last.last = last.last.max(one.last);
                }
                _ => set.stretches.push(one),
            }
        }
        set
    }

    /// Their stretches, in order.
    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.stretches.iter().map(Stretch::count).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// Whether `name` is one of them.
    pub fn contains(&self, name: SegmentName) -> bool {
        self.place(name).is_some()
    }

    fn place(&self, SegmentName { worker, number }: SegmentName) -> Option<usize> {
        let behind =
            self.stretches.partition_point(|one| (one.worker, one.first) <= (worker, number));
        let place = behind.checked_sub(1)?;
        let stretch = self.stretches[place];
        (stretch.worker == worker && number <= stretch.last).then_some(place)
    }

    /// Takes one in.
    pub fn insert(&mut self, name: SegmentName) {
        let SegmentName { worker, number } = name;
        let mut stretches = std::mem::take(&mut self.stretches);
        stretches.push(Stretch { worker, first: number, last: number });
        *self = SegmentSet::of(stretches);
    }

    /// Leaves one out.
    pub fn remove(&mut self, name: SegmentName) {
        let Some(place) = self.place(name) else { return };
        let whole = self.stretches[place];
        let below = (whole.first < name.number).then(|| Stretch { last: name.number - 1, ..whole });
        let above = (name.number < whole.last).then(|| Stretch { first: name.number + 1, ..whole });
        self.stretches.splice(place..=place, below.into_iter().chain(above));
    }

    /// Those that are in both.
    pub fn common(&self, other: &SegmentSet) -> SegmentSet {
        let (mut common, mut rest) = (Vec::new(), other.stretches.as_slice());
        for one in &self.stretches {
            let before =
                rest.partition_point(|two| (two.worker, two.last) < (one.worker, one.first));
            rest = &rest[before..];
            let here =
                rest.iter().take_while(|two| two.worker == one.worker && two.first <= one.last);
            common.extend(here.map(|two| Stretch {
                worker: one.worker,
                first: one.first.max(two.first),
                last: one.last.min(two.last),
            }));
        }
        SegmentSet { stretches: common }
    }

    /// Those that are not in `other`.
    pub fn without(&self, other: &SegmentSet) -> SegmentSet {
        let mut left = Vec::new();
        for one in &self.stretches {
            let mut first = Some(one.first);
            let alone = SegmentSet { stretches: vec![*one] };
            for two in alone.common(other).stretches {
                if let Some(below) = first.filter(|first| *first < two.first) {
                    left.push(Stretch { first: below, last: two.first - 1, ..*one });
                }
                first = two.last.checked_add(1);
            }
            if let Some(first) = first.filter(|first| *first <= one.last) {
                left.push(Stretch { first, ..*one });
            }
        }
        SegmentSet { stretches: left }
    }

    /// One by one, in order.
    pub fn iter(&self) -> impl Iterator<Item = SegmentName> + '_ {
        self.stretches.iter().flat_map(|one| one.names())
    }
}

impl FromIterator<SegmentName> for SegmentSet {
    fn from_iter<I: IntoIterator<Item = SegmentName>>(names: I) -> Self {
        let one = |name: SegmentName| Stretch {
            worker: name.worker,
            first: name.number,
            last: name.number,
        };
        SegmentSet::of(names.into_iter().map(one).collect())
    }
}

impl<const N: usize> From<[SegmentName; N]> for SegmentSet {
    fn from(names: [SegmentName; N]) -> Self {
        names.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::base::prng::Prng;

    fn name(worker: u16, number: u64) -> SegmentName {
        SegmentName { worker: WorkerId(worker), number }
    }

    fn some(random: &mut Prng) -> BTreeSet<SegmentName> {
        let count = random.below(12);
        (0..count).map(|_| name(random.below(2) as u16, random.below(9))).collect()
    }

    #[test]
    fn it_is_the_set_of_its_names() {
        let mut random = Prng::new(1);
        for _ in 0..2_000 {
            let (mut ours, theirs) = (some(&mut random), some(&mut random));
            let mut set: SegmentSet = ours.iter().copied().collect();
            let other: SegmentSet = theirs.iter().copied().collect();
            let names = |set: &SegmentSet| set.iter().collect::<Vec<_>>();
            assert!(set.common(&other).iter().eq(ours.intersection(&theirs).copied()));
            assert!(set.without(&other).iter().eq(ours.difference(&theirs).copied()));
            let one = name(random.below(2) as u16, random.below(9));
            assert_eq!(set.contains(one), ours.contains(&one));
            if random.below(2) == 0 {
                set.insert(one);
                ours.insert(one);
            } else {
                set.remove(one);
                ours.remove(&one);
            }
            assert_eq!(names(&set), Vec::from_iter(ours.iter().copied()));
            assert_eq!(set.len(), ours.len() as u64);
            assert_eq!(set, ours.into_iter().collect(), "none to be joined");
        }
    }

    #[test]
    fn the_last_number_is_one_like_others() {
        let end = Stretch { worker: WorkerId(0), first: u64::MAX - 1, last: u64::MAX };
        let mut set = SegmentSet::of(vec![end, end]);
        set.insert(name(1, 0));
        assert_eq!(set.without(&[name(0, u64::MAX)].into()).len(), 2);
        set.remove(name(0, u64::MAX));
        assert!(set.contains(name(0, u64::MAX - 1)) && !set.contains(name(0, u64::MAX)));
    }
}
