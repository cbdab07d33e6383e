//! One UDP socket that sends to many, a batch of datagrams with each system call. For loads: what
//! needs a port of its own sends from there.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use bytes::Bytes;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use smallvec::SmallVec;

/// Datagrams of one call: by then the call's own price is a thirtieth of each, and the first of them
/// has waited for a fifth of a millisecond.
pub const BATCH: usize = 32;

/// What may wait for a slower interface: some 5,000 packets of speech, 50 ms of 2,000 streams. The
/// default of most systems, 208 KiB, is less than one burst of them.
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// A datagram that waits for its batch.
struct Waiting {
    /// What the caller knows it by.
    name: usize,
    bytes: Bytes,
    to: SocketAddrAny,
}

/// The socket, and what is to be sent from it.
pub struct Sendmmsg {
    socket: UdpSocket,
    waiting: Vec<Waiting>,
}

impl Sendmmsg {
    /// Binds a port of the system's choice.
    pub fn bind(address: IpAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((address, 0))?;
        // Best effort: the system clamps it to net.core.wmem_max, where it has less.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER_BYTES);
        Ok(Sendmmsg { socket, waiting: Vec::with_capacity(BATCH) })
    }

    /// Adds a datagram, which the caller knows as `name`. Whether the batch is full now: it must be
    /// flushed before the next.
    pub fn push(&mut self, name: usize, bytes: Bytes, to: SocketAddr) -> bool {
        assert!(self.waiting.len() < BATCH, "a full batch is flushed first");
        self.waiting.push(Waiting { name, bytes, to: to.as_any() });
        self.waiting.len() == BATCH
    }

    /// Sends the batch, without waiting for room; calls `refused` with the name of each datagram
    /// that the system did not take.
    pub fn flush(&mut self, mut refused: impl FnMut(usize)) {
        let slices: SmallVec<[_; BATCH]> =
            self.waiting.iter().map(|one| [IoSlice::new(&one.bytes)]).collect();
        let mut controls: SmallVec<[_; BATCH]> =
            slices.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut messages: SmallVec<[_; BATCH]> = self
            .waiting
            .iter()
            .zip(&slices)
            .zip(&mut controls)
            .map(|((one, slice), control)| MMsgHdr::new_with_addr(&one.to, slice, control))
            .collect();
        let mut done = 0;
        while done < messages.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmmsg(&self.socket, &mut messages[done..], flags) {
                Ok(count) if count > 0 => done += count,
                // An error is about the first of those that were left.
                Ok(_) | Err(_) => {
                    refused(self.waiting[done].name);
                    done += 1;
                }
            }
        }
        drop(messages);
        drop(controls);
        drop(slices);
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn receiver() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((HOME, 0)).expect("a free port");
        let address = socket.local_addr().expect("bound");
        (socket, address)
    }

    #[test]
    fn a_batch_reaches_every_peer_and_the_next_one_begins_empty() {
        let (one, to_one) = receiver();
        let (two, to_two) = receiver();
        let mut batch = Sendmmsg::bind(HOME).expect("a free port");
        for round in 0..2_u8 {
            for number in 0..BATCH as u8 {
                let to = if number.is_multiple_of(2) { to_one } else { to_two };
                let is_full = batch.push(7, Bytes::from(vec![round, number]), to);
                assert_eq!(is_full, usize::from(number) == BATCH - 1);
            }
            batch.flush(|name| panic!("{name} refused"));
            let mut datagram = [0; 8];
            for number in 0..BATCH as u8 {
                let socket = if number.is_multiple_of(2) { &one } else { &two };
                let length = socket.recv(&mut datagram).expect("sent");
                assert_eq!(datagram[..length], [round, number]);
            }
        }
    }

    #[test]
    fn its_queue_is_as_long_as_the_system_allows() {
        let size = |socket: &UdpSocket| {
            rustix::net::sockopt::socket_send_buffer_size(socket).expect("a socket")
        };
        let (plain, _) = receiver();
        let batch = Sendmmsg::bind(HOME).expect("a free port");
        assert!(size(&batch.socket) > size(&plain), "doubled by the system at the least");
    }

    /// Longer than a datagram can be (RFC 768: 16 bits of length): refused, those beside it are not.
    #[test]
    fn a_refused_datagram_is_named_and_the_others_are_sent() {
        let (socket, to) = receiver();
        let mut batch = Sendmmsg::bind(HOME).expect("a free port");
        for (name, bytes) in [(3, 1), (4, 70_000), (5, 2), (6, 70_000)] {
            batch.push(name, Bytes::from(vec![0; bytes]), to);
        }
        let mut refused = Vec::new();
        batch.flush(|name| refused.push(name));
        assert_eq!(refused, [4, 6]);
        let mut datagram = [0; 8];
        for length in 1..=2 {
            assert_eq!(socket.recv(&mut datagram).expect("sent"), length);
        }
    }
}
