//! When something was heard: spans of arrivals not more than a second apart.

use crate::base::time::Wall;

/// A silence up to this long needs no proof.
pub const SILENCE_NS: i64 = 1_000_000_000;

/// Spans in which arrivals are at most [`SILENCE_NS`] apart, in order. One entry per silence, plus
/// one.
#[derive(Clone, Debug, Default)]
pub struct Presence(Vec<(Wall, Wall)>);

impl Presence {
    /// Notes an arrival. Nearly sorted arrivals cost a comparison.
    #[inline]
    pub fn add(&mut self, at: Wall) {
        if let Some((_, end)) = self.0.last_mut()
            && at >= *end
            && at.0.wrapping_sub(end.0) as u64 <= SILENCE_NS as u64
        {
            *end = at;
            return;
        }
        self.place(at);
    }

    fn place(&mut self, at: Wall) {
        let near = |start: Wall, end: Wall| {
            at.0 >= start.0.saturating_sub(SILENCE_NS) && at.0 <= end.0.saturating_add(SILENCE_NS)
        };
        if let Some((start, end)) = self.0.last_mut()
            && near(*start, *end)
        {
            if at >= *start {
                // There is none behind it that it could touch.
                *end = (*end).max(at);
                return;
            }
            *start = at;
            self.mend(self.0.len() - 1);
            return;
        }
        let place = self.0.partition_point(|(_, end)| end.0.saturating_add(SILENCE_NS) < at.0);
        match self.0.get_mut(place) {
            Some((start, end)) if near(*start, *end) => {
                *start = (*start).min(at);
                *end = (*end).max(at);
                self.mend(place);
            }
            _ => self.0.insert(place, (at, at)),
        }
    }

    /// Joins a grown span with its neighbours where they touch now.
    fn mend(&mut self, mut place: usize) {
        if place > 0 && self.0[place].0.0 - self.0[place - 1].1.0 <= SILENCE_NS {
            self.0[place - 1].1 = self.0[place - 1].1.max(self.0[place].1);
            self.0.remove(place);
            place -= 1;
        }
        if place + 1 < self.0.len() && self.0[place + 1].0.0 - self.0[place].1.0 <= SILENCE_NS {
            self.0[place].1 = self.0[place].1.max(self.0[place + 1].1);
            self.0.remove(place + 1);
        }
    }

    /// The spans.
    pub fn spans(&self) -> &[(Wall, Wall)] {
        &self.0
    }
}

/// What `cuts` (in any order) leaves of `span`.
pub fn subtract(span: (Wall, Wall), cuts: &mut [(Wall, Wall)]) -> Vec<(Wall, Wall)> {
    cuts.sort_unstable();
    let mut left = Vec::new();
    let mut at = span.0;
    for (from, to) in cuts.iter() {
        if *from > at && at < span.1 {
            left.push((at, (*from).min(span.1)));
        }
        at = at.max(*to);
    }
    if at < span.1 {
        left.push((at, span.1));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn arrivals_in_any_order_give_the_same_spans() {
        const MS: i64 = 1_000_000;
        for seed in 0..50 {
            let mut prng = Prng::new(seed);
            let mut times: Vec<i64> = (0..60).map(|_| prng.below(60_000) as i64 * MS).collect();
            let mut sorted = times.clone();
            sorted.sort_unstable();
            let mut expected: Vec<(Wall, Wall)> = Vec::new();
            for at in sorted {
                match expected.last_mut() {
                    Some((_, end)) if at - end.0 <= SILENCE_NS => *end = Wall(at),
                    _ => expected.push((Wall(at), Wall(at))),
                }
            }
            for at in (1..times.len()).rev() {
                times.swap(at, prng.below(at as u64 + 1) as usize);
            }
            let mut presence = Presence::default();
            times.iter().for_each(|at| presence.add(Wall(*at)));
            assert_eq!(presence.spans(), expected, "seed {seed}");
        }
    }

    #[test]
    fn what_is_cut_away_is_gone() {
        let w = |from, to| (Wall(from), Wall(to));
        assert_eq!(subtract(w(0, 10), &mut [w(4, 6), w(-3, 1)]), [w(1, 4), w(6, 10)]);
        assert_eq!(subtract(w(0, 10), &mut [w(0, 10)]), []);
        assert_eq!(subtract(w(0, 10), &mut [w(12, 20)]), [w(0, 10)]);
    }
}
