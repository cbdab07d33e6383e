//! The sockets of one worker: those that its ports are steered to, and each port's own.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::socket;
use crate::base::family::Family;
use crate::base::limits::{SHARED_SOCKETS_MANY, SHARED_SOCKETS_MAX};

/// Sockets of one worker, shared by its engine and by those who send.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// The shared ones, then RTP and RTCP socket of each slot in turn.
    fds: Arc<[OwnedFd]>,
    shared: usize,
    /// RTP and RTCP port of each slot in turn.
    ports: Arc<[u16]>,
    /// Which shared socket the ports of a slot are steered to; empty where nothing is steered.
    steered: Arc<[u8]>,
}

impl Sockets {
    /// `pairs`: RTP and RTCP socket of each slot in turn, of which number n is bound to `ports[n]`.
    /// `steered`: for each slot which of `shared` its ports are steered to; both empty where nothing is.
    pub fn new(
        shared: Vec<OwnedFd>,
        pairs: Vec<OwnedFd>,
        ports: Vec<u16>,
        steered: Vec<u8>,
    ) -> Self {
        assert_eq!(pairs.len(), ports.len(), "a port for each socket");
        assert_eq!(shared.is_empty(), steered.is_empty(), "steered to something");
        assert!(steered.is_empty() || steered.len() * 2 == ports.len(), "all slots or none");
        assert!(steered.iter().all(|one| usize::from(*one) < shared.len()), "to one that there is");
        let count = shared.len();
        Sockets {
            fds: shared.into_iter().chain(pairs).collect(),
            shared: count,
            ports: ports.into(),
            steered: steered.into(),
        }
    }

    /// The shared sockets, then RTP and RTCP socket of each slot in turn.
    pub fn all(&self) -> &[OwnedFd] {
        &self.fds
    }

    /// Sockets that several slots share.
    pub fn shared(&self) -> &[OwnedFd] {
        &self.fds[..self.shared]
    }

    /// RTP and RTCP socket of slot number `slot` of this worker: what they send leaves from its ports.
    pub fn pair(&self, slot: usize) -> Option<[BorrowedFd<'_>; 2]> {
        let at = self.shared + slot * 2;
        let [rtp, rtcp] = self.fds.get(at..at + 2)? else { return None };
        Some([rtp.as_fd(), rtcp.as_fd()])
    }

    /// The port that socket `number` of [`Self::all`] is bound to; `None` of a shared one.
    pub fn port(&self, number: usize) -> Option<u16> {
        number.checked_sub(self.shared).map(|own| self.ports[own])
    }

    /// RTP and RTCP port of each slot in turn.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Which shared socket each slot's ports are steered to; empty where nothing is.
    pub fn steered(&self) -> &[u8] {
        &self.steered
    }

    /// Where datagrams to `port` arrive.
    fn receiver(&self, port: u16) -> Option<&OwnedFd> {
        let own = self.own(port)?;
        match self.steered.get(own / 2) {
            Some(shared) => self.fds.get(usize::from(*shared)),
            None => self.fds.get(own),
        }
    }

    fn own(&self, port: u16) -> Option<usize> {
        self.ports.iter().position(|own| *own == port)
    }

    /// The drop counter of the socket that receives for `port`, read now; `None` where it cannot be.
    pub fn drops(&self, port: u16) -> Option<u32> {
        socket::drops(self.receiver(port)?.as_fd()).ok()
    }

    /// Whether a datagram waits in a socket that may hold one for `port`.
    pub fn waits(&self, port: u16) -> bool {
        let own = self.own(port).and_then(|own| self.fds.get(self.shared + own));
        let holds = |socket: Option<&OwnedFd>| socket.is_some_and(|one| socket::waits(one.as_fd()));
        holds(self.receiver(port)) || self.shared > 0 && holds(own)
    }
}

/// For each of a worker's slots, whose addresses are `slots`, the number of the socket that its ports are
/// steered to, and of each such socket the family. Neighbours get different ones, so that streams that
/// are opened one after the other share the load; a socket is of one family.
pub fn share(slots: impl Iterator<Item = IpAddr> + Clone) -> (Vec<u8>, Vec<Family>) {
    let count_of = |family| slots.clone().filter(|ip| Family::of(*ip) == family).count();
    let counts = [Family::V4, Family::V6].map(|family| (family, count_of(family)));
    let families = counts.iter().filter(|(_, count)| *count > 0).count().max(1);
    let mut sockets: Vec<Family> = Vec::new();
    let mut ranges = counts.map(|(family, count)| {
        let first = sockets.len();
        let own = count <= SHARED_SOCKETS_MAX / families;
        let many = if own { count } else { SHARED_SOCKETS_MANY / families };
        sockets.extend(std::iter::repeat_n(family, many));
        (family, first..sockets.len(), 0)
    });
    let slots = slots.map(|ip| {
        let own = ranges.iter_mut().find(|(family, _, _)| *family == Family::of(ip));
        let (_, range, next) = own.expect("both families are there");
        let number = range.start + *next % range.len();
        *next += 1;
        number as u8
    });
    (slots.collect(), sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared_by(ips: &[&str]) -> (Vec<u8>, Vec<Family>) {
        share(ips.iter().map(|ip| ip.parse::<IpAddr>().expect("an address")))
    }

    #[test]
    fn few_slots_have_a_socket_each_and_many_take_turns() {
        assert_eq!(shared_by(&["10.0.0.1"; 3]), (vec![0, 1, 2], vec![Family::V4; 3]));
        let (slots, sockets) = shared_by(&["10.0.0.1"; 130]);
        assert_eq!(sockets.len(), SHARED_SOCKETS_MANY);
        assert_eq!((slots[0], slots[15], slots[16], slots[129]), (0, 15, 0, 1));
        assert_eq!(shared_by(&["10.0.0.1"; SHARED_SOCKETS_MAX]).1.len(), SHARED_SOCKETS_MAX);
        assert_eq!(shared_by(&[]), (vec![], vec![]));
    }

    #[test]
    fn a_socket_is_of_one_family() {
        let ips = [["10.0.0.1"; 40], ["fd00::1"; 40]].concat();
        let (slots, sockets) = shared_by(&ips);
        assert_eq!(sockets.len(), SHARED_SOCKETS_MANY);
        for (slot, ip) in slots.iter().zip(&ips) {
            let family = Family::of(ip.parse().expect("an address"));
            assert_eq!(sockets[usize::from(*slot)], family);
        }
        let ips = [&["10.0.0.1"; 2][..], &["fd00::1"; 40]].concat();
        assert_eq!(shared_by(&ips).1.len(), 2 + SHARED_SOCKETS_MANY / 2);
    }
}
