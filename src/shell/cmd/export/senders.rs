//! Who sent the packets of a stream: an event says it, which stands behind the first packet of its source.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use crate::base::ids::Ssrc;
use crate::base::time::Wall;

/// Packets that wait for the event; it stands right behind its packet, unless a part of a stream is
/// read in which it is not.
const HELD: usize = 64;

/// A packet on its way to a packet file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent<'a> {
    pub(super) arrival: Wall,
    /// Of its source; 0 is RTCP's.
    pub(super) ordinal: u16,
    pub(super) is_rtcp: bool,
    /// It came to the port behind the stream's own.
    pub(super) rtcp_port: bool,
    pub(super) payload: &'a [u8],
}

/// A packet that waits.
struct Held {
    arrival: Wall,
    ordinal: u16,
    is_rtcp: bool,
    rtcp_port: bool,
    payload: Vec<u8>,
}

/// The senders of a stream, and the packets whose sender is not told yet, in their order.
#[derive(Default)]
pub(super) struct Senders {
    by_ordinal: BTreeMap<u16, Option<SocketAddr>>,
    by_ssrc: BTreeMap<Ssrc, SocketAddr>,
    held: VecDeque<Held>,
}

impl Senders {
    /// A `source` event.
    pub(super) fn told(&mut self, ordinal: u16, ssrc: Ssrc, from: SocketAddr) {
        self.by_ordinal.insert(ordinal, Some(from));
        self.by_ssrc.insert(ssrc, from);
    }

    /// Gives `out` this packet and those before it as soon as their sender is told; with `None` where
    /// nobody told it within the next [`HELD`] packets.
    pub(super) fn put(
        &mut self,
        sent: Sent<'_>,
        out: &mut impl FnMut(Sent<'_>, Option<SocketAddr>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.held.is_empty()
            && let Some(from) = self.of(&sent)
        {
            return out(sent, from);
        }
        let Sent { arrival, ordinal, is_rtcp, rtcp_port, payload } = sent;
        self.held.push_back(Held {
            arrival,
            ordinal,
            is_rtcp,
            rtcp_port,
            payload: payload.to_vec(),
        });
        self.release(HELD, out)
    }

    /// Gives `out` what still waits.
    pub(super) fn finish(
        &mut self,
        out: &mut impl FnMut(Sent<'_>, Option<SocketAddr>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.release(0, out)
    }

    fn release(
        &mut self,
        most: usize,
        out: &mut impl FnMut(Sent<'_>, Option<SocketAddr>) -> io::Result<()>,
    ) -> io::Result<()> {
        while let Some(first) = self.held.front() {
            let sent = first.sent();
            let from = match self.of(&sent) {
                Some(from) => from,
                None if self.held.len() > most => {
                    self.by_ordinal.insert(first.ordinal, None);
                    None
                }
                None => break,
            };
            out(sent, from)?;
            self.held.pop_front();
        }
        Ok(())
    }

    /// Who sent it; `Some(None)`: nobody will tell, `None`: not told yet.
    fn of(&self, sent: &Sent<'_>) -> Option<Option<SocketAddr>> {
        if sent.is_rtcp {
            // RFC 3550 §6.4.1: the sender's SSRC is the second word.
            let ssrc = sent.payload.get(4..8).and_then(|word| word.try_into().ok());
            let known = ssrc.and_then(|word| self.by_ssrc.get(&Ssrc(u32::from_be_bytes(word))));
            return Some(known.copied());
        }
        self.by_ordinal.get(&sent.ordinal).copied()
    }
}

impl Held {
    fn sent(&self) -> Sent<'_> {
        let Held { arrival, ordinal, is_rtcp, rtcp_port, ref payload } = *self;
        Sent { arrival, ordinal, is_rtcp, rtcp_port, payload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(ordinal: u16, arrival: i64, payload: &[u8]) -> Sent<'_> {
        Sent {
            arrival: Wall(arrival),
            ordinal,
            is_rtcp: ordinal == 0,
            rtcp_port: ordinal == 0,
            payload,
        }
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// What came out: (arrival, port of the sender; 0: unknown).
    fn collect(
        into: &mut Vec<(i64, u16)>,
        one: Sent<'_>,
        from: Option<SocketAddr>,
    ) -> io::Result<()> {
        into.push((one.arrival.0, from.map_or(0, |from| from.port())));
        Ok(())
    }

    #[test]
    fn the_first_packet_has_the_sender_that_is_told_behind_it() {
        let (mut senders, mut out) = (Senders::default(), Vec::new());
        let mut put = |senders: &mut Senders, one: Sent<'_>| {
            senders.put(one, &mut |one, from| collect(&mut out, one, from)).unwrap();
        };
        put(&mut senders, sent(1, 10, b"a"));
        senders.told(1, Ssrc(7), address(4000));
        put(&mut senders, sent(1, 20, b"b"));
        // A second source; what is behind its first packet stays behind it.
        put(&mut senders, sent(2, 30, b"c"));
        put(&mut senders, sent(1, 40, b"d"));
        senders.told(2, Ssrc(8), address(5000));
        put(&mut senders, sent(0, 50, &[0x80, 200, 0, 1, 0, 0, 0, 8]));
        put(&mut senders, sent(0, 60, &[0x80, 200, 0, 1, 0, 0, 0, 9]));
        assert_eq!(out, [(10, 4000), (20, 4000), (30, 5000), (40, 4000), (50, 5000), (60, 0)]);
    }

    #[test]
    fn what_nobody_tells_waits_no_longer_than_its_bound() {
        let (mut senders, mut out) = (Senders::default(), Vec::new());
        let count = HELD as i64 + 10;
        for arrival in 0..count {
            senders
                .put(sent(1, arrival, b"x"), &mut |one, from| collect(&mut out, one, from))
                .unwrap();
            assert!(senders.held.len() <= HELD);
        }
        // Given up once, nothing of this source waits again.
        assert!(senders.held.is_empty());
        assert_eq!(out, (0..count).map(|arrival| (arrival, 0)).collect::<Vec<_>>());
        senders.put(sent(2, count, b"y"), &mut |one, from| collect(&mut out, one, from)).unwrap();
        senders.finish(&mut |one, from| collect(&mut out, one, from)).unwrap();
        assert_eq!(out.last(), Some(&(count, 0)));
    }
}
