//! The pool of port pairs. Keeper reserved them; control decides which RS uses which.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use crate::base::ids::{Generation, Slot};

/// Free and used port pairs. A freed pair goes to the back of the queue and the front is used
/// first, so that late packets of an old use meet a port that rests as long as the pool allows
/// (F58); lack of rest is never a reason to refuse.
#[derive(Debug, Default)]
pub(super) struct Slots {
    ports: HashMap<Slot, SocketAddr>,
    by_address: HashMap<SocketAddr, Slot>,
    generations: HashMap<Slot, Generation>,
    free: VecDeque<Slot>,
}

impl Slots {
    /// Adds a run of pairs, as keeper hands them over. Repeating a pair changes nothing.
    pub(super) fn add(&mut self, first: Slot, ports: &[SocketAddr]) {
        for (number, port) in ports.iter().enumerate() {
            let slot = Slot(first.0 + number as u32);
            self.by_address.insert(*port, slot);
            if self.ports.insert(slot, *port).is_none() {
                self.free.push_back(slot);
            }
        }
    }

    /// Learns a generation from the journal, so that the next use is a newer one.
    pub(super) fn learn(&mut self, slot: Slot, generation: Generation) {
        let known = self.generations.entry(slot).or_default();
        *known = (*known).max(generation);
    }

    /// Takes the pair that has rested longest.
    pub(super) fn take(&mut self) -> Option<(Slot, Generation, SocketAddr)> {
        let slot = self.free.pop_front()?;
        let generation = self.generations.entry(slot).or_default();
        generation.0 += 1;
        Some((slot, *generation, self.ports[&slot]))
    }

    /// Takes a named pair back into use after a restart. False where it is not free.
    pub(super) fn claim(&mut self, slot: Slot, generation: Generation) -> bool {
        let Some(place) = self.free.iter().position(|free| *free == slot) else { return false };
        self.free.remove(place);
        self.learn(slot, generation);
        true
    }

    /// The pair at an RTP address, by which an SRC knows it: numbers may differ from one keeper to
    /// the next.
    pub(super) fn at(&self, address: SocketAddr) -> Option<Slot> {
        self.by_address.get(&address).copied()
    }

    /// Gives a pair back.
    pub(super) fn give_back(&mut self, slot: Slot) {
        debug_assert!(!self.free.contains(&slot));
        self.free.push_back(slot);
    }

    /// The RTP address of a pair.
    pub(super) fn port(&self, slot: Slot) -> Option<SocketAddr> {
        self.ports.get(&slot).copied()
    }

    /// Pairs in use.
    pub(super) fn used(&self) -> usize {
        self.ports.len() - self.free.len()
    }

    /// Pairs free.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Slots {
        let mut slots = Slots::default();
        let ports: Vec<SocketAddr> =
            (0..4).map(|n| SocketAddr::from(([127, 0, 0, 1], 20_000 + 2 * n))).collect();
        slots.add(Slot(0), &ports);
        slots.add(Slot(0), &ports);
        slots
    }

    #[test]
    fn the_pair_that_rested_longest_is_used_first() {
        let mut slots = pool();
        let (first, generation, port) = slots.take().expect("four are free");
        assert_eq!((first, generation, port.port()), (Slot(0), Generation(1), 20_000));
        slots.give_back(first);
        assert_eq!(slots.take().map(|(slot, ..)| slot), Some(Slot(1)));
        assert_eq!((slots.used(), slots.free()), (1, 3));
    }

    #[test]
    fn a_used_up_pool_says_so_and_generations_only_rise() {
        let mut slots = pool();
        slots.learn(Slot(2), Generation(9));
        let taken: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(taken.len(), 4);
        assert_eq!(taken[2].1, Generation(10));
        assert!(slots.take().is_none());
    }

    #[test]
    fn a_claimed_pair_is_not_given_out_again() {
        let mut slots = pool();
        assert!(slots.claim(Slot(0), Generation(3)));
        assert!(!slots.claim(Slot(0), Generation(3)));
        assert_eq!(slots.take().map(|(slot, ..)| slot), Some(Slot(1)));
    }
}
