//! The pool of port pairs. Keeper reserved them; control decides which RS uses which.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::lines::Fit;
use crate::base::family::Family;
use crate::base::ids::{Generation, Slot};

/// Free and used port pairs. A freed pair goes to the back of its address's queue and the front is used
/// first, so that late packets of an old use meet a port that rests as long as the pool allows
/// (F58); lack of rest is never a reason to refuse.
#[derive(Debug, Default)]
pub(super) struct Slots {
    ports: HashMap<Slot, SocketAddr>,
    by_address: HashMap<SocketAddr, Slot>,
    generations: HashMap<Slot, Generation>,
    /// By address, in the order of the configuration.
    free: Vec<(IpAddr, VecDeque<Slot>)>,
}

impl Slots {
    /// Adds a run of pairs, as keeper hands them over. Repeating a pair changes nothing.
    pub(super) fn add(&mut self, first: Slot, ports: &[SocketAddr]) {
        for (number, port) in ports.iter().enumerate() {
            let slot = Slot(first.0 + number as u32);
            self.by_address.insert(*port, slot);
            if self.ports.insert(slot, *port).is_none() {
                self.queue(port.ip()).push_back(slot);
            }
        }
    }

    /// Free pairs of an address.
    fn queue(&mut self, ip: IpAddr) -> &mut VecDeque<Slot> {
        let place = self.free.iter().position(|(own, _)| *own == ip).unwrap_or_else(|| {
            self.free.push((ip, VecDeque::new()));
            self.free.len() - 1
        });
        &mut self.free[place].1
    }

    /// Whether there is an address of that family.
    pub(super) fn has(&self, family: Family) -> bool {
        self.free.iter().any(|(ip, _)| Family::of(*ip) == family)
    }

    /// The family of `near`, or, where we have no address of it, of our first one.
    pub(super) fn family_near(&self, near: IpAddr) -> Family {
        let first = self.free.first().map_or(near, |(ip, _)| *ip);
        Family::of(if self.has(Family::of(near)) { near } else { first })
    }

    /// Learns a generation from the journal, so that the next use is a newer one.
    pub(super) fn learn(&mut self, slot: Slot, generation: Generation) {
        let known = self.generations.entry(slot).or_default();
        *known = (*known).max(generation);
    }

    /// Takes the pair that has rested longest of those on the address that fits best: of the family
    /// always, the near one where it has any, else the first that has.
    pub(super) fn take(&mut self, fit: Fit) -> Option<(Slot, Generation, SocketAddr)> {
        let mut fitting: Vec<_> = self
            .free
            .iter_mut()
            .filter(|(ip, free)| Family::of(*ip) == fit.family && !free.is_empty())
            .collect();
        fitting.sort_by_key(|(ip, _)| *ip != fit.near);
        let slot = fitting.first_mut()?.1.pop_front()?;
        let generation = self.generations.entry(slot).or_default();
        generation.0 += 1;
        Some((slot, *generation, self.ports[&slot]))
    }

    /// Takes a named pair back into use after a restart. False where it is not free.
    pub(super) fn claim(&mut self, slot: Slot, generation: Generation) -> bool {
        let Some(address) = self.port(slot) else { return false };
        let free = self.queue(address.ip());
        let Some(place) = free.iter().position(|free| *free == slot) else { return false };
        free.remove(place);
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
        let Some(address) = self.port(slot) else { return };
        let free = self.queue(address.ip());
        debug_assert!(!free.contains(&slot));
        free.push_back(slot);
    }

    /// The RTP address of a pair.
    pub(super) fn port(&self, slot: Slot) -> Option<SocketAddr> {
        self.ports.get(&slot).copied()
    }

    /// Pairs in use.
    pub(super) fn used(&self) -> usize {
        self.ports.len() - self.free()
    }

    /// Pairs free.
    pub(super) fn free(&self) -> usize {
        self.free.iter().map(|(_, free)| free.len()).sum()
    }

    /// Those on addresses of one family.
    pub(super) fn free_of(&self, family: Family) -> usize {
        let of = self.free.iter().filter(|(ip, _)| Family::of(*ip) == family);
        of.map(|(_, free)| free.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Fit = Fit { family: Family::V4, near: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST) };

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
        let (first, generation, port) = slots.take(HOME).expect("four are free");
        assert_eq!((first, generation, port.port()), (Slot(0), Generation(1), 20_000));
        slots.give_back(first);
        assert_eq!(slots.take(HOME).map(|(slot, ..)| slot), Some(Slot(1)));
        assert_eq!((slots.used(), slots.free()), (1, 3));
    }

    #[test]
    fn a_used_up_pool_says_so_and_generations_only_rise() {
        let mut slots = pool();
        slots.learn(Slot(2), Generation(9));
        let taken: Vec<_> = std::iter::from_fn(|| slots.take(HOME)).collect();
        assert_eq!(taken.len(), 4);
        assert_eq!(taken[2].1, Generation(10));
        assert!(slots.take(HOME).is_none());
    }

    #[test]
    fn a_claimed_pair_is_not_given_out_again() {
        let mut slots = pool();
        assert!(slots.claim(Slot(0), Generation(3)));
        assert!(!slots.claim(Slot(0), Generation(3)));
        assert_eq!(slots.take(HOME).map(|(slot, ..)| slot), Some(Slot(1)));
    }

    #[test]
    fn the_family_decides_then_nearness_then_the_order() {
        let mut slots = Slots::default();
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let all = ["192.0.2.1:20000", "192.0.2.2:20100", "[2001:db8::1]:20200", "192.0.2.2:20102"];
        slots.add(Slot(0), &all.map(at));
        let fit = |family, near: &str| Fit { family, near: near.parse().expect("an address") };
        let mut ports =
            |family, near| slots.take(fit(family, near)).map(|(_, _, address)| address.port());
        assert_eq!(ports(Family::V4, "192.0.2.2"), Some(20_100));
        assert_eq!(ports(Family::V6, "192.0.2.2"), Some(20_200), "no matter where it came in");
        assert_eq!(ports(Family::V6, "192.0.2.2"), None);
        assert_eq!(ports(Family::V4, "203.0.113.9"), Some(20_000));
        assert_eq!(ports(Family::V4, "192.0.2.1"), Some(20_102), "the near one has none left");
        assert_eq!((slots.free_of(Family::V4), slots.free(), slots.used()), (0, 0, 4));
        slots.give_back(Slot(3));
        assert_eq!((slots.free_of(Family::V4), slots.free_of(Family::V6)), (1, 0));
        assert!(slots.claim(Slot(3), Generation(2)) && slots.has(Family::V6));
        let near = |text: &str| slots.family_near(text.parse().expect("an address"));
        assert_eq!((near("2001:db8::9"), near("192.0.2.9")), (Family::V6, Family::V4));
    }
}
