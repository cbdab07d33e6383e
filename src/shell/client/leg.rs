//! One sent stream: its machine, its socket pair, and what came of it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::base::ids::Ssrc;
use crate::base::prng::Prng;
use crate::base::time::{ClockMap, Mono};
use crate::client::protect::Protector;
use crate::client::reports::{Heard, heard};
use crate::client::{ProtectError, Sender};
use crate::host::sendmmsg::Sendmmsg;

/// RFC 3550 §6.2: five seconds, drawn from 0.5 to 1.5 times that so that reports do not fall into
/// step; the first after half of it.
const REPORT_MS: u64 = 5_000;

/// RTP and RTCP sockets of one m-line: media leaves from the announced port, and the SRS's reports
/// come to the one above (RFC 7866 §8.1.8).
pub struct Sockets {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    /// The announced RTP port.
    pub port: u16,
}

impl Sockets {
    /// Binds an even port and the next one, both chosen by the system.
    pub fn bind(address: IpAddr) -> io::Result<Self> {
        // Half of all ephemeral ports are even, and the next one is rarely taken.
        for _ in 0..256 {
            let rtp = UdpSocket::bind((address, 0))?;
            let port = rtp.local_addr()?.port();
            if port % 2 == 1 || port == u16::MAX {
                continue;
            }
            let Ok(rtcp) = UdpSocket::bind((address, port + 1)) else { continue };
            rtp.set_nonblocking(true)?;
            rtcp.set_nonblocking(true)?;
            return Ok(Sockets { rtp, rtcp, port });
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free pair of UDP ports"))
    }

    /// Sends media nowhere else from here on: a connected socket needs no route for each packet.
    fn connect(&self, rtp_to: SocketAddr) -> io::Result<()> {
        self.rtp.connect(rtp_to)
    }

    /// Sends a media packet; whether the system took it. The first error may be that of a packet
    /// before, to a port that was closed for a moment: this one has not been sent then.
    fn send(&self, packet: &[u8]) -> bool {
        self.rtp.send(packet).or_else(|_| self.rtp.send(packet)).is_ok()
    }
}

/// A stream on its way.
pub struct Leg {
    /// Its machine.
    pub sender: Sender,
    sockets: Sockets,
    rtp_to: SocketAddr,
    rtcp_to: SocketAddr,
    prng: Prng,
    report_due: Mono,
    /// Packets that the system refused to send.
    pub unsent: u64,
    /// Genuine reports of the SRS about this stream.
    pub reports_heard: u64,
    /// The last of them.
    pub heard: Option<Heard>,
    /// The SRS's own SSRC, once heard.
    peer: Option<Ssrc>,
    /// `None` where nobody brings new keys.
    fresh: Option<Fresh>,
    rests: Rests,
}

/// Whether nothing is to be sent for now, as the SRS wants it.
pub type Rests = Arc<AtomicBool>;

/// The place where a re-INVITE leaves the next keys of a stream that is being sent.
pub type Fresh = Arc<Mutex<Option<Protector>>>;

impl Leg {
    /// Ready to send to the ports of the answer from `start` on. Fails where there is no way to
    /// `rtp_to`.
    pub fn new(
        sender: Sender,
        sockets: Sockets,
        rtp_to: SocketAddr,
        rtcp_to: SocketAddr,
        start: Mono,
    ) -> io::Result<Self> {
        sockets.connect(rtp_to)?;
        let mut prng = Prng::new(u64::from(sender.origin().ssrc.0));
        let report_due = start.plus_ms(REPORT_MS / 4 + prng.below(REPORT_MS / 2));
        Ok(Leg {
            sender,
            sockets,
            rtp_to,
            rtcp_to,
            prng,
            report_due,
            unsent: 0,
            reports_heard: 0,
            heard: None,
            peer: None,
            fresh: None,
            rests: Rests::default(),
        })
    }

    /// Where new keys go from here on.
    pub fn fresh(&mut self) -> Fresh {
        Arc::clone(self.fresh.get_or_insert_default())
    }

    /// Where it is said whether it rests.
    pub fn rests(&self) -> Rests {
        Arc::clone(&self.rests)
    }

    /// From the next packet on under the new keys, where there are some (RFC 4568 §7.1.4).
    fn rekey(&mut self) {
        if let Some(fresh) = &self.fresh
            && let Ok(mut fresh) = fresh.try_lock()
            && let Some(protector) = fresh.take()
        {
            self.sender.protect(protector);
            // The SRS's reports come under new keys as well, from an SSRC that may be new.
            self.peer = None;
        }
    }

    /// Sends the next packet, and a report where one is due. With a batch the packet is added to it
    /// under the name `place`, and the answer is whether the batch is full.
    pub fn turn(
        &mut self,
        clock: ClockMap,
        place: usize,
        batch: Option<&mut Sendmmsg>,
    ) -> Result<bool, ProtectError> {
        self.rekey();
        let packet = if self.rests.load(Ordering::Relaxed) {
            self.sender.rest();
            None
        } else {
            self.sender.packet(clock.mono)?
        };
        let is_full = match (packet, batch) {
            (Some(packet), Some(batch)) => batch.push(place, packet, self.rtp_to),
            (Some(packet), None) => {
                self.unsent += u64::from(!self.sockets.send(&packet));
                false
            }
            (None, _) => false,
        };
        if clock.mono >= self.report_due {
            self.report_due = clock.mono.plus_ms(REPORT_MS / 2 + self.prng.below(REPORT_MS));
            self.report(clock, false)?;
            self.listen();
        }
        Ok(is_full)
    }

    /// The last report, with BYE, and a last look at what the SRS had to say.
    pub fn end(&mut self, clock: ClockMap) -> Result<(), ProtectError> {
        self.listen();
        self.report(clock, true)
    }

    fn report(&mut self, clock: ClockMap, bye: bool) -> Result<(), ProtectError> {
        if let Some(packet) = self.sender.report(clock.mono, clock.wall, bye)? {
            // A lost report is made good by the next one.
            let _ = self.sockets.rtcp.send_to(&packet, self.rtcp_to);
        }
        Ok(())
    }

    /// Reads at most a handful of reports; strangers' and forged ones are passed over.
    fn listen(&mut self) {
        let mut datagram = [0; 2_048];
        for _ in 0..16 {
            let Ok((length, from)) = self.sockets.rtcp.recv_from(&mut datagram) else { break };
            if from != self.rtcp_to {
                continue;
            }
            let peer = self.peer.map(|ssrc| ssrc.0);
            let Some(compound) = self.sender.open_report(&datagram[..length], peer) else {
                continue;
            };
            let about = self.sender.origin().ssrc;
            if let Some(block) = heard(&compound).into_iter().find(|block| block.about == about) {
                self.reports_heard += 1;
                self.peer = Some(block.reporter);
                self.heard = Some(block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_even_and_next_to_each_other() {
        let sockets = Sockets::bind(IpAddr::from([127, 0, 0, 1])).expect("ports on loopback");
        let rtcp = sockets.rtcp.local_addr().expect("bound");
        assert_eq!((sockets.port % 2, rtcp.port()), (0, sockets.port + 1));
    }
}
