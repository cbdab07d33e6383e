//! Signalling sockets: UDP, and listeners for TCP and TLS. Keeper binds them and hands copies to each
//! control, so that what arrives between two of them waits in the kernel's queues.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::socket;

/// Receive buffer of a UDP listener: a second of 1,000 INVITE/s with 3 KB each.
const UDP_BUFFER_BYTES: usize = 4 << 20;
/// Connections that may wait to be accepted: those of an SBC that comes back with 2,000 while control is
/// being started again, doubled. One that finds no room is tried again by its TCP after a second.
const BACKLOG: i32 = 4_096;

/// A bound UDP socket that never blocks. The error names transport and address.
pub fn bind_udp(address: SocketAddr) -> io::Result<OwnedFd> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket::set_queue_bytes(&socket, UDP_BUFFER_BYTES)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    bind().map_err(|error| named("UDP", address, &error))
}

/// A listener that never blocks. `transport`: what the error calls it.
pub fn bind_stream(transport: &str, address: SocketAddr) -> io::Result<OwnedFd> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A server that is started again takes its port while old connections are in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error| named(transport, address, &error))
}

fn named(transport: &str, address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{transport} {address}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_is_named_with_its_transport() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("some port");
        let address = taken.local_addr().expect("bound");
        let error = bind_udp(address).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("UDP {address}: ")), "{error}");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("some port");
        let address = taken.local_addr().expect("bound");
        let error = bind_stream("TLS", address).expect_err("taken");
        assert!(error.to_string().starts_with(&format!("TLS {address}: ")), "{error}");
    }
}
