//! What the kernel leaves in a receive buffer: the layout of io_uring's multishot recvmsg, which the
//! second engine imitates.
//!
//! ```text
//! offset  size  field
//!      0     4  name length      ┐ the head word: 0 means that the buffer holds nothing
//!      4     4  control length   ┘ (an empty datagram has payload length 0, so that is no mark)
//!      8     4  payload length, the true one where the datagram was cut
//!     12     4  flags (MSG_TRUNC, MSG_CTRUNC)
//!     16    32  name: sockaddr_in or sockaddr_in6 of the sender
//!     48   112  control: timestamp 32, drops 24, original destination 32 or 48
//!    160     …  payload
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::limits::{BUFFER_BYTES, BUFFER_CONTROL_BYTES, BUFFER_NAME_BYTES};
use crate::base::time::Wall;

/// Offset of the payload length.
pub const AT_PAYLOAD_BYTES: usize = 8;
/// Offset of the flags.
pub const AT_FLAGS: usize = 12;
/// Offset of the name.
pub const AT_NAME: usize = 16;
/// Offset of the control data.
pub const AT_CONTROL: usize = AT_NAME + BUFFER_NAME_BYTES;
/// Offset of the payload.
pub const AT_PAYLOAD: usize = AT_CONTROL + BUFFER_CONTROL_BYTES;

/// Where an engine that copies into the buffer notes from which place of its queue it did: behind the longest
/// name that there is.
pub const AT_TAG: usize = AT_NAME + 28;
/// Of the flags: [`AT_TAG`] says something. The kernel sets no such flag.
pub const TAGGED: u32 = 1 << 31;

/// socket(7): the datagram was longer than the buffer.
const MSG_TRUNC: u32 = 0x20;
/// cmsg(3): the control data were longer than their area.
const MSG_CTRUNC: u32 = 0x8;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOL_IP: u32 = 0;
const SOL_SOCKET: u32 = 1;
const SOL_IPV6: u32 = 41;
const IP_ORIGDSTADDR: u32 = 20;
const SO_TIMESTAMPNS: u32 = 35;
const SO_RXQ_OVFL: u32 = 40;
const IPV6_ORIGDSTADDR: u32 = 74;

/// A datagram in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Sender.
    pub from: SocketAddr,
    /// Our port that it was sent to.
    pub port: u16,
    /// When the kernel saw it, by the wall clock.
    pub stamp: Option<Wall>,
    /// Datagrams that this socket has dropped so far (modulo 2^32), where it has dropped any.
    pub socket_drops: Option<u32>,
    /// It was longer than the buffer; `payload` is its beginning.
    pub truncated: bool,
    /// Its true length, octets.
    pub length: usize,
    /// What was sent.
    pub payload: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn port_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn address(name: &[u8]) -> Option<SocketAddr> {
    let port = port_at(name, 2)?;
    match u16_at(name, 0)? {
        AF_INET => {
            let ip: [u8; 4] = *name.get(4..)?.first_chunk()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port))
        }
        AF_INET6 => {
            let ip: [u8; 16] = *name.get(8..)?.first_chunk()?;
            Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)), port))
        }
        _ => None,
    }
}

/// Our port that the datagram in a filled buffer was sent to, and nothing else of it.
#[inline]
pub fn port(buffer: &[u8]) -> Option<u16> {
    let control_bytes = (u32_at(buffer, 4)? as usize).min(BUFFER_CONTROL_BYTES);
    let mut control = buffer.get(AT_CONTROL..AT_CONTROL + control_bytes)?;
    while let (Some(length), Some(level), Some(kind)) =
        (u64_at(control, 0), u32_at(control, 8), u32_at(control, 12))
    {
        if matches!((level, kind), (SOL_IP, IP_ORIGDSTADDR) | (SOL_IPV6, IPV6_ORIGDSTADDR)) {
            return port_at(control, 16 + 2);
        }
        let length = (length as usize).clamp(16, BUFFER_CONTROL_BYTES);
        control = control.get(length.next_multiple_of(8)..)?;
    }
    None
}

/// Reads a filled buffer; `None` where sender or destination are missing, which only a broken
/// engine or a cut control area leaves (nothing is ever guessed by SSRC).
pub fn read(buffer: &[u8]) -> Option<Datagram<'_>> {
    let name_bytes = (u32_at(buffer, 0)? as usize).min(BUFFER_NAME_BYTES);
    let control_bytes = (u32_at(buffer, 4)? as usize).min(BUFFER_CONTROL_BYTES);
    let payload_bytes = u32_at(buffer, AT_PAYLOAD_BYTES)? as usize;
    let flags = u32_at(buffer, AT_FLAGS)?;
    if flags & MSG_CTRUNC != 0 {
        return None;
    }
    let from = address(buffer.get(AT_NAME..AT_NAME + name_bytes)?)?;
    let room = buffer.get(AT_PAYLOAD..)?;
    let mut datagram = Datagram {
        from,
        port: 0,
        stamp: None,
        socket_drops: None,
        truncated: flags & MSG_TRUNC != 0 || payload_bytes > room.len(),
        length: payload_bytes,
        payload: &room[..payload_bytes.min(room.len())],
    };
    let mut control = buffer.get(AT_CONTROL..AT_CONTROL + control_bytes)?;
    // A control message: length (with its own head) 8, level 4, type 4, data; then up to the next
    // multiple of 8. Each pass takes at least 16 of at most BUFFER_CONTROL_BYTES octets.
    while let (Some(length), Some(level), Some(kind)) =
        (u64_at(control, 0), u32_at(control, 8), u32_at(control, 12))
    {
        let length = (length as usize).min(control.len());
        let Some(data) = control.get(16..length) else { break };
        match (level, kind) {
            (SOL_SOCKET, SO_TIMESTAMPNS) => {
                let seconds = u64_at(data, 0)? as i64;
                let nanoseconds = u64_at(data, 8)? as i64;
                let stamp = seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)?;
                datagram.stamp = Some(Wall(stamp));
            }
            (SOL_SOCKET, SO_RXQ_OVFL) => datagram.socket_drops = u32_at(data, 0),
            // The first counts, as for [`port`].
            (SOL_IP, IP_ORIGDSTADDR) | (SOL_IPV6, IPV6_ORIGDSTADDR) if datagram.port == 0 => {
                datagram.port = port_at(data, 2).filter(|port| *port != 0)?;
            }
            _ => {}
        }
        control = control.get(length.next_multiple_of(8)..).unwrap_or(&[]);
    }
    (datagram.port != 0).then_some(datagram)
}

/// Writes a buffer as an engine leaves it, the head word last: for engines that are not the kernel.
/// A payload that does not fit is cut and flagged.
pub fn write(out: &mut [u8], datagram: &Datagram<'_>) {
    assert_eq!(out.len(), BUFFER_BYTES, "one whole receive buffer");
    let kept = datagram.payload.len().min(BUFFER_BYTES - AT_PAYLOAD);
    out[AT_PAYLOAD..AT_PAYLOAD + kept].copy_from_slice(&datagram.payload[..kept]);
    let header = header(datagram);
    out[8..AT_PAYLOAD].copy_from_slice(&header[8..]);
    out[..8].copy_from_slice(&header[..8]);
}

/// What stands before the payload. Its first 8 octets are the head word, to be stored last.
pub fn header(datagram: &Datagram<'_>) -> [u8; AT_PAYLOAD] {
    let mut out = [0; AT_PAYLOAD];
    let mut at = AT_CONTROL;
    let mut message = |level: u32, kind: u32, data: &[u8]| {
        out[at..at + 8].copy_from_slice(&(16 + data.len() as u64).to_ne_bytes());
        out[at + 8..at + 12].copy_from_slice(&level.to_ne_bytes());
        out[at + 12..at + 16].copy_from_slice(&kind.to_ne_bytes());
        out[at + 16..at + 16 + data.len()].copy_from_slice(data);
        at = (at + 16 + data.len()).next_multiple_of(8);
    };
    if let Some(stamp) = datagram.stamp {
        let mut data = [0; 16];
        data[..8].copy_from_slice(&stamp.0.div_euclid(1_000_000_000).to_ne_bytes());
        data[8..].copy_from_slice(&stamp.0.rem_euclid(1_000_000_000).to_ne_bytes());
        message(SOL_SOCKET, SO_TIMESTAMPNS, &data);
    }
    if let Some(drops) = datagram.socket_drops {
        message(SOL_SOCKET, SO_RXQ_OVFL, &drops.to_ne_bytes());
    }
    let mut destination = [0; 16];
    destination[2..4].copy_from_slice(&datagram.port.to_be_bytes());
    message(SOL_IP, IP_ORIGDSTADDR, &destination);
    let control_bytes = (at - AT_CONTROL) as u32;

    let name = &mut out[AT_NAME..AT_NAME + BUFFER_NAME_BYTES];
    name[2..4].copy_from_slice(&datagram.from.port().to_be_bytes());
    let name_bytes: u32 = match datagram.from.ip() {
        IpAddr::V4(ip) => {
            name[..2].copy_from_slice(&AF_INET.to_ne_bytes());
            name[4..8].copy_from_slice(&ip.octets());
            16
        }
        IpAddr::V6(ip) => {
            name[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
            name[8..24].copy_from_slice(&ip.octets());
            28
        }
    };
    let cut = datagram.truncated || datagram.payload.len() > BUFFER_BYTES - AT_PAYLOAD;
    let flags = if cut { MSG_TRUNC } else { 0 };
    out[AT_PAYLOAD_BYTES..AT_FLAGS].copy_from_slice(&(datagram.payload.len() as u32).to_ne_bytes());
    out[AT_FLAGS..AT_NAME].copy_from_slice(&flags.to_ne_bytes());
    out[4..8].copy_from_slice(&control_bytes.to_ne_bytes());
    out[..4].copy_from_slice(&name_bytes.to_ne_bytes());
    out
}

/// The header of something that came and is no datagram: it is read as malformed.
pub fn no_datagram() -> [u8; AT_PAYLOAD] {
    let mut out = [0; AT_PAYLOAD];
    out[..4].copy_from_slice(&1_u32.to_ne_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    fn sample(payload: &[u8]) -> Datagram<'_> {
        Datagram {
            from: "[2001:db8::7]:5004".parse().expect("address"),
            port: 20_000,
            stamp: Some(Wall(1_767_225_600_000_000_009)),
            socket_drops: Some(7),
            truncated: false,
            length: payload.len(),
            payload,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut buffer = [0; BUFFER_BYTES];
        for payload in [&b""[..], b"x", &[9; BUFFER_BYTES - AT_PAYLOAD]] {
            write(&mut buffer, &sample(payload));
            assert_eq!(read(&buffer), Some(sample(payload)));
            assert_eq!(port(&buffer), Some(20_000));
        }
        let v4 = Datagram { from: "10.0.0.1:9".parse().expect("address"), ..sample(b"v4") };
        write(&mut buffer, &v4);
        assert_eq!(read(&buffer), Some(v4));
    }

    #[test]
    fn a_datagram_longer_than_the_buffer_is_flagged() {
        let mut buffer = [0; BUFFER_BYTES];
        write(&mut buffer, &sample(&[1; BUFFER_BYTES]));
        let datagram = read(&buffer).expect("readable");
        assert!(datagram.truncated);
        assert_eq!(datagram.payload.len(), BUFFER_BYTES - AT_PAYLOAD);
    }

    #[test]
    fn without_its_destination_a_datagram_is_not_read() {
        let mut buffer = [0; BUFFER_BYTES];
        write(&mut buffer, &sample(b"payload"));
        buffer[AT_FLAGS] |= MSG_CTRUNC as u8;
        assert_eq!(read(&buffer), None);
        assert_eq!(read(&[0; BUFFER_BYTES]), None);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut prng = Prng::new(7);
        let mut buffer = [0; BUFFER_BYTES];
        for _ in 0..20_000 {
            write(&mut buffer, &sample(b"payload"));
            for _ in 0..4 {
                let at = (prng.next_u64() % AT_PAYLOAD as u64) as usize;
                buffer[at] = prng.next_u64() as u8;
            }
            let cut = (prng.next_u64() % BUFFER_BYTES as u64) as usize;
            let _ = (read(&buffer), read(&buffer[..cut]));
        }
    }
}
