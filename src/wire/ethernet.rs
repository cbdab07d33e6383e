//! A UDP datagram in its Ethernet frame, as a card gives it before any kernel has looked at it. What a
//! kernel checks is checked here: lengths and sums (RFC 791, RFC 768, RFC 8200 §8.1).
//!
//! Tags of VLANs, options, extension headers and fragments are left to the kernel: the program at the card
//! passes them on ([`crate::host::xdp`] says which frames come this way).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Octets of an Ethernet header without tags.
pub const HEADER_BYTES: usize = 14;
/// A frame's first octets, among which [`port`] finds what it looks for.
pub const PORT_WITHIN: usize = HEADER_BYTES + 60 + 4;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
const UDP_HEADER_BYTES: usize = 8;
const IPV6_HEADER_BYTES: usize = 40;
/// "More fragments" and the offset (RFC 791 §3.1).
const FRAGMENT: u16 = 0x3fff;

/// A datagram in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Sender.
    pub from: SocketAddr,
    /// Port that it was sent to.
    pub port: u16,
    /// What was sent.
    pub payload: &'a [u8],
}

/// Why a frame holds no datagram for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Something else than UDP, or with what is left to the kernel.
    Other,
    /// Shorter than its lengths say.
    Cut,
    /// A sum is wrong: something changed it on its way.
    Sum,
}

/// Reads a frame. Never panics.
pub fn datagram(frame: &[u8]) -> Result<Datagram<'_>, Fault> {
    let kind = short(frame, 12).ok_or(Fault::Cut)?;
    let packet = &frame[HEADER_BYTES..];
    match kind {
        ETHERTYPE_IPV4 => over_ipv4(packet),
        ETHERTYPE_IPV6 => over_ipv6(packet),
        _ => Err(Fault::Other),
    }
}

/// The port that a frame's datagram is for, where it is one that [`datagram`] may take.
pub fn port(frame: &[u8]) -> Option<u16> {
    match short(frame, 12)? {
        ETHERTYPE_IPV4 => short(frame, HEADER_BYTES + 4 * usize::from(frame.get(14)? & 15) + 2),
        ETHERTYPE_IPV6 => short(frame, HEADER_BYTES + IPV6_HEADER_BYTES + 2),
        _ => None,
    }
}

fn over_ipv4(packet: &[u8]) -> Result<Datagram<'_>, Fault> {
    let header: &[u8; 20] = packet.first_chunk().ok_or(Fault::Cut)?;
    let header_bytes = 4 * usize::from(header[0] & 15);
    if header[0] >> 4 != 4 || header_bytes < 20 || header[9] != UDP {
        return Err(Fault::Other);
    }
    if u16::from_be_bytes([header[6], header[7]]) & FRAGMENT != 0 {
        return Err(Fault::Other);
    }
    // A short packet is padded to the shortest frame.
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let packet = packet.get(..total).ok_or(Fault::Cut)?;
    let (whole, rest) = packet.split_at_checked(header_bytes).ok_or(Fault::Cut)?;
    if folded(sum(whole)) != u16::MAX {
        return Err(Fault::Sum);
    }
    let from = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    // No sum is 0 here (RFC 768).
    in_udp(from.into(), sum(&header[12..20]), rest, true)
}

fn over_ipv6(packet: &[u8]) -> Result<Datagram<'_>, Fault> {
    let header: &[u8; IPV6_HEADER_BYTES] = packet.first_chunk().ok_or(Fault::Cut)?;
    if header[0] >> 4 != 6 || header[6] != UDP {
        return Err(Fault::Other);
    }
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let rest = packet[IPV6_HEADER_BYTES..].get(..length).ok_or(Fault::Cut)?;
    let mut from = [0; 16];
    from.copy_from_slice(&header[8..24]);
    // No sum is none of UDP over IPv6 (RFC 8200 §8.1).
    in_udp(Ipv6Addr::from(from).into(), sum(&header[8..40]), rest, false)
}

/// `addresses`: the sum over both.
fn in_udp(
    from: IpAddr,
    addresses: u64,
    packet: &[u8],
    may_lack_sum: bool,
) -> Result<Datagram<'_>, Fault> {
    let header: &[u8; UDP_HEADER_BYTES] = packet.first_chunk().ok_or(Fault::Cut)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let packet = packet.get(..length).ok_or(Fault::Cut)?;
    let payload = packet.get(UDP_HEADER_BYTES..).ok_or(Fault::Cut)?;
    let stated = u16::from_ne_bytes([header[6], header[7]]);
    if stated != 0 || !may_lack_sum {
        let pseudo = addresses + word([0, UDP]) + word([header[4], header[5]]);
        // What never left the machine has the sum of the pseudo-header only: the rest was left to a card
        // that it has not met.
        let unfinished = stated == folded(pseudo);
        if stated == 0 || !unfinished && folded(pseudo + sum(packet)) != u16::MAX {
            return Err(Fault::Sum);
        }
    }
    let port_at = |at| u16::from_be_bytes([header[at], header[at + 1]]);
    Ok(Datagram { from: SocketAddr::new(from, port_at(0)), port: port_at(2), payload })
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: [u8; 2]) -> u64 {
    u16::from_ne_bytes(bytes).into()
}

/// Sum of all 16-bit words in the machine's order, which does not matter to a sum that is folded
/// (RFC 1071 §2); an octet that is left over has a zero behind it.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let total: u64 = words.iter().map(|four| u64::from(u32::from_ne_bytes(*four))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_ne_bytes(last))
}

/// 16 bits of it, with what leaves them added again.
fn folded(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Writes the frame of a datagram, for tests and for whoever sends what [`datagram`] reads. `from` and `to`
/// are of one family.
pub fn frame(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = ((UDP_HEADER_BYTES + payload.len()) as u16).to_be_bytes();
    let mut udp = [from.port().to_be_bytes(), to.port().to_be_bytes(), length, [0, 0]].concat();
    udp.extend_from_slice(payload);
    let mut out = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    let addresses = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = ((20 + udp.len()) as u16).to_be_bytes();
            let mut header = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, UDP, 0, 0];
            header.extend([from.octets(), to.octets()].concat());
            let check = !folded(sum(&header));
            header[10..12].copy_from_slice(&check.to_ne_bytes());
            out.extend(ETHERTYPE_IPV4.to_be_bytes());
            out.extend_from_slice(&header);
            sum(&header[12..20])
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            out.extend(ETHERTYPE_IPV6.to_be_bytes());
            out.extend([0x60, 0, 0, 0, length[0], length[1], UDP, 64]);
            out.extend([from.octets(), to.octets()].concat());
            sum(&out[HEADER_BYTES + 8..])
        }
        _ => panic!("two families"),
    };
    let check = !folded(addresses + word([0, UDP]) + word(length) + sum(&udp));
    // A sum that is 0 is sent as its other form.
    let check = if check == 0 { u16::MAX } else { check };
    udp[6..8].copy_from_slice(&check.to_ne_bytes());
    out.extend(udp);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    fn pairs() -> [(SocketAddr, SocketAddr); 2] {
        [("192.0.2.1:5004", "192.0.2.9:20000"), ("[2001:db8::1]:5004", "[2001:db8::9]:20000")]
            .map(|(from, to)| (from.parse().expect("one"), to.parse().expect("one")))
    }

    #[test]
    fn what_is_framed_is_read_with_padding_behind_it() {
        for (from, to) in pairs() {
            for payload in [&b""[..], b"x", b"four", &[7; 1_000], &[0xff; 333]] {
                let mut bytes = frame(from, to, payload);
                let expected = Ok(Datagram { from, port: 20_000, payload });
                assert_eq!(datagram(&bytes), expected);
                assert_eq!(port(&bytes), Some(20_000));
                bytes.extend([0xee; 18]);
                assert_eq!(datagram(&bytes), expected, "padded");
            }
        }
    }

    #[test]
    fn any_changed_bit_behind_the_addresses_of_the_cards_is_found() {
        for (from, to) in pairs() {
            let good = frame(from, to, b"payload");
            for bit in HEADER_BYTES * 8..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                // Traffic class, flow label and hop limit are in no sum of IPv6.
                let unproven = from.is_ipv6() && matches!(bit / 8, 14..=17 | 21);
                assert!(unproven || datagram(&bytes).is_err(), "bit {bit} of {from}");
            }
        }
    }

    #[test]
    fn what_needs_no_sum_and_what_has_an_unfinished_one_is_taken() {
        let [(from, to), (from6, to6)] = pairs();
        let mut bytes = frame(from, to, b"payload");
        bytes[40..42].fill(0);
        assert!(datagram(&bytes).is_ok(), "none (RFC 768)");
        let pseudo = sum(&bytes[26..34]) + word([0, UDP]) + word([bytes[38], bytes[39]]);
        bytes[40..42].copy_from_slice(&folded(pseudo).to_ne_bytes());
        assert!(datagram(&bytes).is_ok(), "unfinished");
        let mut bytes = frame(from6, to6, b"payload");
        bytes[60..62].fill(0);
        assert_eq!(datagram(&bytes), Err(Fault::Sum), "RFC 8200 §8.1");
    }

    #[test]
    fn what_is_left_to_the_kernel_is_no_datagram() {
        let (from, to) = pairs()[0];
        let good = frame(from, to, b"payload");
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            datagram(&bytes).map(drop)
        };
        assert_eq!(with(20, 0x20), Err(Fault::Other), "more fragments");
        assert_eq!(with(23, 6), Err(Fault::Other), "TCP");
        assert_eq!(with(12, 0x81), Err(Fault::Other), "a tag");
        assert_eq!(with(16, 0x7f), Err(Fault::Cut), "longer than its frame");
        for end in 0..good.len() {
            assert!(datagram(&good[..end]).is_err(), "{end} octets");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut prng = Prng::new(3);
        for round in 0..20_000 {
            let (from, to) = pairs()[round % 2];
            let mut bytes = frame(from, to, b"payload");
            for _ in 0..3 {
                let at = (prng.next_u64() % bytes.len() as u64) as usize;
                bytes[at] = prng.next_u64() as u8;
            }
            bytes.truncate((prng.next_u64() % 80) as usize);
            let _ = (datagram(&bytes), port(&bytes));
        }
    }
}
