//! Which interface has which address: asked of the kernel by rtnetlink, since no file says it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `struct nlmsghdr` (netlink(7)): length, type, flags, sequence, port.
const HEADER_BYTES: usize = 16;
/// `struct ifaddrmsg` (rtnetlink(7)): family, prefix length, flags, scope, index.
const MESSAGE_BYTES: usize = 8;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH.
const DUMP: u16 = 0x301;
const IFA_ADDRESS: u16 = 1;
/// The own end where `IFA_ADDRESS` is that of the peer.
const IFA_LOCAL: u16 = 2;
/// What one look returns at most: the kernel fills up to 32 KiB.
const ANSWER_BYTES: usize = 64 << 10;
/// The kernel answers while it is asked; this only keeps us from waiting for ever.
const WAIT: Duration = Duration::from_secs(2);
/// Bound of the answers to one question: thousands of addresses.
const ANSWERS_MAX: usize = 256;

/// An address and the index of its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Assigned {
    index: u32,
    address: IpAddr,
}

/// Each address of this network namespace with the name of its interface. Fails where netlink is
/// forbidden, as by a service manager.
pub fn read() -> io::Result<Vec<(String, IpAddr)>> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(WAIT))?;
    rustix::net::send(&socket, &question(), SendFlags::empty())?;
    let mut found = Vec::new();
    let mut answer = vec![0; ANSWER_BYTES];
    for _ in 0..ANSWERS_MAX {
        let (bytes, _) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
        if !take(&answer[..bytes], &mut found)? {
            break;
        }
    }
    let named = found.into_iter().filter_map(|Assigned { index, address }| {
        Some((rustix::net::netdevice::index_to_name(&socket, index).ok()?, address))
    });
    Ok(named.collect())
}

/// "All addresses, of both families."
fn question() -> [u8; HEADER_BYTES + MESSAGE_BYTES] {
    let mut out = [0; HEADER_BYTES + MESSAGE_BYTES];
    let length = out.len() as u32;
    out[0..4].copy_from_slice(&length.to_ne_bytes());
    out[4..6].copy_from_slice(&RTM_GETADDR.to_ne_bytes());
    out[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    out
}

/// Takes the messages of one answer; whether more will come.
fn take(mut bytes: &[u8], found: &mut Vec<Assigned>) -> io::Result<bool> {
    while bytes.len() >= HEADER_BYTES {
        let length = number(bytes, 0) as usize;
        let kind = short(bytes, 4);
        if length < HEADER_BYTES || length > bytes.len() {
            break;
        }
        match kind {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => return Err(io::Error::other("rtnetlink refused to list addresses")),
            RTM_NEWADDR => found.extend(assigned(&bytes[HEADER_BYTES..length])),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(true)
}

/// The address of one `RTM_NEWADDR`.
fn assigned(message: &[u8]) -> Option<Assigned> {
    let index = u32::from_ne_bytes(message.get(4..8)?.try_into().ok()?);
    let mut attributes = message.get(MESSAGE_BYTES..)?;
    let mut address = None;
    while attributes.len() >= 4 {
        let length = usize::from(short(attributes, 0));
        let kind = short(attributes, 2);
        let value = attributes.get(4..length)?;
        match (kind, address) {
            (IFA_LOCAL, _) | (IFA_ADDRESS, None) => address = ip(value).or(address),
            _ => {}
        }
        if kind == IFA_LOCAL {
            break;
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some(Assigned { index, address: address? })
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(value) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(value).ok().map(|six| Ipv6Addr::from(six).into())
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_address() {
        let found = read().expect("netlink is permitted where tests run");
        let own = found.iter().find(|(_, address)| *address == IpAddr::from([127, 0, 0, 1]));
        assert_eq!(own.map(|(name, _)| name.as_str()), Some("lo"), "{found:?}");
    }

    /// One message with the attributes `kinds` and values.
    fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![2, 24, 0, 0];
        body.extend(7_u32.to_ne_bytes());
        for (kind, value) in attributes {
            body.extend((4 + value.len() as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut out = ((HEADER_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
        out.extend(RTM_NEWADDR.to_ne_bytes());
        out.resize(HEADER_BYTES, 0);
        out.extend(body);
        out
    }

    #[test]
    fn the_own_end_of_a_point_to_point_link_counts() {
        let mut found = Vec::new();
        let mut answer = message(&[(IFA_ADDRESS, &[192, 0, 2, 9]), (IFA_LOCAL, &[192, 0, 2, 8])]);
        answer.extend(message(&[(3, b"odd"), (IFA_ADDRESS, &[192, 0, 2, 7])]));
        assert!(take(&answer, &mut found).expect("no error"));
        let addresses: Vec<_> = found.iter().map(|one| one.address.to_string()).collect();
        assert_eq!(addresses, ["192.0.2.8", "192.0.2.7"]);
        assert_eq!(found[0].index, 7);
    }

    #[test]
    fn an_answer_that_is_cut_anywhere_ends_the_look() {
        let whole = message(&[(IFA_ADDRESS, &[192, 0, 2, 9])]);
        for length in 0..whole.len() {
            let mut found = Vec::new();
            assert!(take(&whole[..length], &mut found).expect("no error"));
            assert!(found.is_empty(), "{length}");
            // The same with a length in the header that fits.
            let mut cut = whole[..length].to_vec();
            if length >= HEADER_BYTES {
                cut[..4].copy_from_slice(&(length as u32).to_ne_bytes());
                let _ = take(&cut, &mut found);
            }
        }
        let mut error = whole.clone();
        error[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        assert!(take(&error, &mut Vec::new()).is_err());
        error[4..6].copy_from_slice(&NLMSG_DONE.to_ne_bytes());
        assert!(!take(&error, &mut Vec::new()).expect("the end"));
    }
}
