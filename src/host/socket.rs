//! Media sockets: a UDP port pair per slot, bound once by keeper and held for its whole life. They
//! receive through the worker's engine and send our RTCP from the announced port (RFC 7866 §8.1.8).
#![expect(
    unsafe_code,
    reason = "four socket options and an ioctl have no safe wrapper in any crate we use"
)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, Socket, Type};

use crate::base::family::Family;

/// Socket queue of one stream: a packet of 172 bytes is charged 832, so this is about 5,000 packets
/// or 100 s of one stream; the kernel doubles the figure for its bookkeeping.
pub const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// An RTP port and the RTCP port above it (RFC 3550 §11), both bound.
#[derive(Debug)]
pub struct PortPair {
    /// Even port.
    pub rtp: OwnedFd,
    /// The odd port above it.
    pub rtcp: OwnedFd,
    /// Address of the RTP socket.
    pub address: SocketAddr,
}

/// Binds a UDP socket with everything the receive path needs: kernel stamps, drop counts, and the
/// original destination, which names the stream after a kill (kill protocol: never guess by SSRC).
pub fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    bind_with(address, RECEIVE_BUFFER_BYTES)
}

/// The same for a socket that the ports of many streams are steered to ([`super::bpf`]), with a queue of
/// `bytes`: on a loopback port that nobody is told of, of that family.
pub fn bind_shared(family: Family, bytes: usize) -> io::Result<OwnedFd> {
    let home = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    bind_with(SocketAddr::new(home, 0), bytes)
}

/// Of a port's own socket: its drops are told no more, since what arrives there is another socket's, and
/// a stream's drops are counted by one.
pub fn stop_telling_drops(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_flag(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, false)
}

fn bind_with(address: SocketAddr, bytes: usize) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_queue_bytes(&socket, bytes)?;
    set_flag(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, true)?;
    set_flag(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, true)?;
    if address.is_ipv4() {
        set_flag(socket.as_fd(), libc::SOL_IP, libc::IP_RECVORIGDSTADDR, true)?;
    } else {
        set_flag(socket.as_fd(), libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR, true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Sets how many bytes wait in a socket. RCVBUFFORCE needs CAP_NET_ADMIN; without it the kernel clamps
/// to net.core.rmem_max, 208 KiB on most machines.
pub(super) fn set_queue_bytes(socket: &Socket, bytes: usize) -> io::Result<()> {
    match rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, bytes) {
        Ok(()) => Ok(()),
        Err(_) => socket.set_recv_buffer_size(bytes),
    }
}

/// Binds the pair whose RTP port is `port`; `None` where either port is taken.
pub fn bind_pair(ip: IpAddr, port: u16) -> io::Result<Option<PortPair>> {
    let taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let address = SocketAddr::new(ip, port);
    let rtp = match bind(address) {
        Ok(socket) => socket,
        Err(error) if taken(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    match bind(SocketAddr::new(ip, port + 1)) {
        Ok(rtcp) => Ok(Some(PortPair { rtp, rtcp, address })),
        Err(error) if taken(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reserves up to `count` pairs in `first..=last`, RTP on even ports; a pair of which somebody else
/// holds a port is skipped. Fewer than `count` mean that the range is exhausted.
pub fn reserve(ip: IpAddr, first: u16, last: u16, count: usize) -> io::Result<Vec<PortPair>> {
    let mut pairs = Vec::with_capacity(count);
    let even = u32::from(first).next_multiple_of(2);
    for port in (even..u32::from(last)).step_by(2) {
        if pairs.len() == count {
            break;
        }
        let port = u16::try_from(port).expect("below last, which is a port");
        pairs.extend(bind_pair(ip, port)?);
    }
    Ok(pairs)
}

/// Sends one datagram without waiting; a full queue is `WouldBlock`.
pub fn send_to(socket: BorrowedFd<'_>, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
    rustix::net::sendto(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &to)?;
    Ok(())
}

/// Takes one datagram without waiting: for the rare sockets that no engine reads.
pub fn receive_from(socket: BorrowedFd<'_>, out: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    let (length, _, from) = rustix::net::recvfrom(socket, out, RecvFlags::DONTWAIT)?;
    let from = from.ok_or(io::ErrorKind::InvalidData)?;
    Ok((length, SocketAddr::try_from(from)?))
}

/// The socket's own drop counter, also while nothing arrives (SO_MEMINFO, `SK_MEMINFO_DROPS`).
pub fn drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = [0_u32; 16];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `info`, which is that large, and the
    // descriptor is open for as long as it is borrowed.
    // JUSTIFICATION: neither rustix nor socket2 has SO_MEMINFO.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if result == 0 {
        Ok(info[libc::SK_MEMINFO_DROPS as usize])
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether the next datagram stands in the socket's queue (an empty one cannot be told from none).
pub fn waits(socket: BorrowedFd<'_>) -> bool {
    rustix::io::ioctl_fionread(socket).is_ok_and(|bytes| bytes > 0)
}

fn set_flag(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    on: bool,
) -> io::Result<()> {
    let on = libc::c_int::from(on);
    // SAFETY: the kernel reads one `c_int` at the pointer given; the descriptor is borrowed, so it
    // is open.
    // JUSTIFICATION: neither rustix nor socket2 has SO_TIMESTAMPNS, SO_RXQ_OVFL or RECVORIGDSTADDR.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The Ethernet address of an interface; `any`: a socket in its network namespace. `InvalidInput`: it is of
/// another kind.
pub fn hardware_address(any: BorrowedFd<'_>, name: &str) -> io::Result<[u8; 6]> {
    // SAFETY: ifreq is plain data, for which zeros are valid.
    // JUSTIFICATION: the struct has a union, and so no literal of all its parts.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last octet stays zero.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: `request` lives until the call returns, is an ifreq as SIOCGIFHWADDR takes it, and its name ends
    // with a zero.
    // JUSTIFICATION: ioctl(2) has no safe wrapper for it.
    let result = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so that the kernel has filled this field of the union; any bytes are a
    // sockaddr.
    // JUSTIFICATION: as above.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    if !matches!(address.sa_family, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK) {
        let why = format!("{name} is no Ethernet interface");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut out = [0; 6];
    out.iter_mut().zip(address.sa_data).for_each(|(to, from)| *to = from as u8);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_pair_with_a_taken_port_is_skipped() {
        let pairs = reserve(HOME, 41_000, 41_400, 3).expect("some ports are free");
        assert_eq!(pairs.len(), 3);
        let first = pairs[0].address.port();
        assert!(pairs.iter().all(|pair| pair.address.port().is_multiple_of(2)));
        assert!(bind_pair(HOME, first).expect("taken is no error").is_none());
        let again = reserve(HOME, first, first + 1, 1).expect("taken is no error");
        assert!(again.is_empty());
    }

    #[test]
    fn a_datagram_leaves_from_the_bound_port() {
        let pair = reserve(HOME, 41_400, 41_800, 1).expect("free").remove(0);
        let peer = UdpSocket::bind("127.0.0.1:0").expect("free");
        let to = peer.local_addr().expect("bound");
        send_to(pair.rtp.as_fd(), b"report", to).expect("room in the queue");
        let mut out = [0; 16];
        let (length, from) = peer.recv_from(&mut out).expect("sent");
        assert_eq!((&out[..length], from), (&b"report"[..], pair.address));
        assert_eq!(drops(pair.rtp.as_fd()).expect("SO_MEMINFO"), 0);
        assert!(!waits(pair.rtp.as_fd()));
        peer.send_to(b"answer", pair.address).expect("room");
        assert!(waits(pair.rtp.as_fd()));
        let (length, from) = receive_from(pair.rtp.as_fd(), &mut out).expect("loopback is at once");
        assert_eq!((&out[..length], from), (&b"answer"[..], to));
    }
}
