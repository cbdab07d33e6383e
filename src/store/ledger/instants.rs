//! RTP time at given instants (REQ-024): reckoned from the nearest packet.

use crate::base::time::Wall;

/// A packet: when it came, its RTP timestamp and payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    /// Arrival.
    pub(super) arrival: Wall,
    /// RTP timestamp.
    pub(super) timestamp: u32,
    /// Payload type.
    pub(super) payload_type: u8,
}

/// The packets of one source on both sides of each instant. Memory grows with instants, never with
/// packets.
#[derive(Clone, Debug, Default)]
pub(super) struct Anchors {
    /// Per instant: the last packet between the instant before and this one.
    before: Vec<Option<Anchor>>,
    /// Per instant: the first packet behind it.
    after: Vec<Option<Anchor>>,
}

impl Anchors {
    /// Takes a packet. `instants`: sorted, the same ones each time. Packets may come in any order.
    #[inline]
    pub(super) fn packet(&mut self, instants: &[Wall], anchor: Anchor) {
        // Nearly all come behind all instants, or between the last two, and not first there.
        let is_behind = |instant: &Wall| *instant < anchor.arrival;
        let is_known =
            |after: &Option<Anchor>| after.is_some_and(|known| known.arrival <= anchor.arrival);
        if self.after.len() == instants.len()
            && let (Some(last), Some(after)) = (instants.last(), self.after.last())
        {
            if is_behind(last) && is_known(after) {
                return;
            }
            if let ([.., one, last], [.., after, _]) = (instants, self.after.as_slice())
                && is_behind(one)
                && !is_behind(last)
                && is_known(after)
                && let Some(before) = self.before.last_mut()
            {
                if before.is_none_or(|known| known.arrival <= anchor.arrival) {
                    *before = Some(anchor);
                }
                return;
            }
        }
        self.place(instants, anchor);
    }

    fn place(&mut self, instants: &[Wall], anchor: Anchor) {
        if self.before.len() != instants.len() {
            self.before.resize(instants.len(), None);
            self.after.resize(instants.len(), None);
        }
        let place = instants.partition_point(|instant| *instant < anchor.arrival);
        if let Some(before) = self.before.get_mut(place)
            && before.is_none_or(|known| known.arrival <= anchor.arrival)
        {
            *before = Some(anchor);
        }
        for after in self.after[..place].iter_mut().rev() {
            // What is first behind an instant is no later than what is behind the next one.
            if after.is_some_and(|known| known.arrival <= anchor.arrival) {
                break;
            }
            *after = Some(anchor);
        }
    }

    /// The packet nearest to the instant at `place`, which is `at`.
    pub(super) fn nearest(&self, place: usize, at: Wall) -> Option<Anchor> {
        let before = self.before.get(..=place)?.iter().rev().find_map(|before| *before);
        let after = *self.after.get(place)?;
        let distance = |anchor: &Anchor| (anchor.arrival.0 - at.0).abs();
        before.into_iter().chain(after).min_by_key(distance)
    }
}

impl Anchor {
    /// RTP timestamp at `at` of a clock of `rate` Hz, wrapping as it does.
    pub(super) fn timestamp_at(&self, at: Wall, rate: u32) -> u32 {
        let ns = i128::from(at.0 - self.arrival.0);
        let ticks = (ns * i128::from(rate)).div_euclid(1_000_000_000);
        self.timestamp.wrapping_add(ticks as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn packets_in_any_order_give_the_nearest_one() {
        for seed in 0..200 {
            let mut prng = Prng::new(seed);
            let mut instants: Vec<Wall> =
                (0..prng.below(6)).map(|_| Wall(prng.below(1_000) as i64)).collect();
            instants.sort_unstable();
            let packets: Vec<Anchor> = (0..prng.below(40))
                .map(|count| Anchor {
                    arrival: Wall(prng.below(1_000) as i64),
                    timestamp: count as u32,
                    payload_type: 0,
                })
                .collect();
            let mut anchors = Anchors::default();
            packets.iter().for_each(|packet| anchors.packet(&instants, *packet));
            for (place, at) in instants.iter().enumerate() {
                let distance = |anchor: &Anchor| (anchor.arrival.0 - at.0).abs();
                let wanted = packets.iter().map(distance).min();
                let found = anchors.nearest(place, *at).map(|anchor| distance(&anchor));
                assert_eq!(found, wanted, "seed {seed}, instant {place}");
            }
        }
    }

    #[test]
    fn timestamps_wrap_both_ways() {
        let anchor = Anchor { arrival: Wall(2_000_000_000), timestamp: 80, payload_type: 0 };
        assert_eq!(anchor.timestamp_at(Wall(2_010_000_000), 8_000), 160);
        assert_eq!(anchor.timestamp_at(Wall(1_980_000_000), 8_000), u32::MAX - 79);
    }
}
