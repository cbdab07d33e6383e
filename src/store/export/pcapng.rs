//! pcapng: one section, one raw-IP interface with nanosecond stamps, one enhanced packet block per
//! datagram. The IP and UDP headers are made anew around what was decrypted; addresses and ports
//! are the real ones.

use std::net::{IpAddr, SocketAddr};

/// LINKTYPE_RAW: begins with an IPv4 or IPv6 header.
const LINKTYPE_RAW: u16 = 101;
/// What a UDP datagram can carry behind an IPv4 header.
const PAYLOAD_BYTES_MAX: usize = 65_535 - 28;

/// The blocks that open a file: section header and interface description.
pub fn head() -> Vec<u8> {
    let mut section = Vec::new();
    section.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
    section.extend_from_slice(&1_u16.to_le_bytes());
    section.extend_from_slice(&0_u16.to_le_bytes());
    section.extend_from_slice(&(-1_i64).to_le_bytes());
    let mut interface = Vec::new();
    interface.extend_from_slice(&LINKTYPE_RAW.to_le_bytes());
    interface.extend_from_slice(&[0; 6]);
    // if_tsresol (9), one octet: 10^-9 s; opt_endofopt.
    interface.extend_from_slice(&[9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    let mut out = block(0x0a0d_0d0a, &section);
    out.extend(block(1, &interface));
    out
}

/// One datagram that arrived at `wall_ns` from `source` at `target`. Longer than UDP can carry is
/// cut and says so by its original length.
pub fn packet(wall_ns: i64, source: SocketAddr, target: SocketAddr, payload: &[u8]) -> Vec<u8> {
    block(6, &enhanced(wall_ns, source, target, payload))
}

/// The same with words that readers show beside it.
pub fn commented(
    wall_ns: i64,
    (source, target): (SocketAddr, SocketAddr),
    payload: &[u8],
    comment: &str,
) -> Vec<u8> {
    let mut body = enhanced(wall_ns, source, target, payload);
    body.resize(body.len().next_multiple_of(4), 0);
    // opt_comment, opt_endofopt.
    let comment = &comment.as_bytes()[..comment.len().min(usize::from(u16::MAX))];
    body.extend_from_slice(&1_u16.to_le_bytes());
    body.extend_from_slice(&(comment.len() as u16).to_le_bytes());
    body.extend_from_slice(comment);
    body.resize(body.len().next_multiple_of(4) + 4, 0);
    block(6, &body)
}

fn enhanced(wall_ns: i64, source: SocketAddr, target: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let kept = &payload[..payload.len().min(PAYLOAD_BYTES_MAX)];
    let datagram = ip(source, target, kept);
    let original = datagram.len() + payload.len() - kept.len();
    let stamp = wall_ns.max(0) as u64;
    let mut body = Vec::with_capacity(datagram.len() + 24);
    body.extend_from_slice(&0_u32.to_le_bytes());
    body.extend_from_slice(&((stamp >> 32) as u32).to_le_bytes());
    body.extend_from_slice(&(stamp as u32).to_le_bytes());
    body.extend_from_slice(&(datagram.len() as u32).to_le_bytes());
    body.extend_from_slice(&(original as u32).to_le_bytes());
    body.extend_from_slice(&datagram);
    body
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let total = 12 + body.len().next_multiple_of(4);
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&(total as u32).to_le_bytes());
    out.extend_from_slice(body);
    out.resize(total - 4, 0);
    out.extend_from_slice(&(total as u32).to_le_bytes());
    out
}

fn ip(source: SocketAddr, target: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut udp = Vec::with_capacity(usize::from(length));
    udp.extend_from_slice(&source.port().to_be_bytes());
    udp.extend_from_slice(&target.port().to_be_bytes());
    udp.extend_from_slice(&length.to_be_bytes());
    udp.extend_from_slice(&[0; 2]);
    udp.extend_from_slice(payload);
    match (source.ip(), target.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut out = vec![0x45, 0];
            out.extend_from_slice(&(20 + length).to_be_bytes());
            out.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
            let sum = checksum(&[&out]);
            out[10..12].copy_from_slice(&sum.to_be_bytes());
            // UDP checksum 0: not computed, which IPv4 permits (RFC 768).
            out.extend(udp);
            out
        }
        (from, to) => {
            let (from, to) = (v6(from), v6(to));
            let pseudo = [&from[..], &to[..], &[0, 0], &length.to_be_bytes(), &[0, 0, 0, 17]];
            let sum = checksum(&[&pseudo.concat(), &udp]);
            // RFC 8200 §8.1: IPv6 demands a checksum, and 0 is sent as all ones.
            udp[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
            let mut out = vec![0x60, 0, 0, 0];
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&[17, 64]);
            out.extend_from_slice(&from);
            out.extend_from_slice(&to);
            out.extend(udp);
            out
        }
    }
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The Internet checksum (RFC 1071) over parts of even length but for the last.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    fn addresses() -> [(SocketAddr, SocketAddr); 2] {
        [("192.0.2.1:4000", "192.0.2.9:20000"), ("[2001:db8::1]:4000", "[2001:db8::9]:20000")]
            .map(|(from, to)| (from.parse().expect("literal"), to.parse().expect("literal")))
    }

    #[test]
    fn a_foreign_reader_gets_stamp_and_payload_back() {
        for (from, to) in addresses() {
            let mut file = head();
            file.extend(packet(1_767_225_600_123_456_789, from, to, b"odd"));
            file.extend(packet(1_767_225_600_123_456_790, from, to, b""));
            let mut reader = PcapNgReader::new(&file[..]).expect("a section");
            let mut stamps = Vec::new();
            while let Some(block) = reader.next_block() {
                if let Block::EnhancedPacket(block) = block.expect("whole") {
                    stamps.push(block.timestamp.as_nanos());
                    if stamps.len() == 1 {
                        assert!(block.data.ends_with(b"odd"));
                    }
                }
            }
            assert_eq!(stamps, [1_767_225_600_123_456_789, 1_767_225_600_123_456_790]);
        }
    }

    #[test]
    fn checksums_verify() {
        let [(from, to), (from6, to6)] = addresses();
        assert_eq!(checksum(&[&ip(from, to, b"hello")[..20]]), 0);
        let six = ip(from6, to6, b"hello!");
        let length = six[4..6].to_vec();
        let pseudo = [&six[8..40], &[0, 0], &length[..], &[0, 0, 0, 17]].concat();
        assert_eq!(checksum(&[&pseudo, &six[40..]]), 0);
    }
}
