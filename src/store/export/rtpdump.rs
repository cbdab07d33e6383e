//! rtpdump: the binary format of rtptools, as rtpplay reads it.

use std::net::{IpAddr, SocketAddr};

/// The head of a file whose first packet arrived at `wall_ns` from `source`.
pub fn head(wall_ns: i64, source: SocketAddr) -> Vec<u8> {
    let mut out = format!("#!rtpplay1.0 {}/{}\n", source.ip(), source.port()).into_bytes();
    let micros = wall_ns.max(0) / 1_000;
    out.extend_from_slice(&((micros / 1_000_000) as u32).to_be_bytes());
    out.extend_from_slice(&((micros % 1_000_000) as u32).to_be_bytes());
    // The format knows IPv4 only; the text line above carries the whole address.
    let address = match source.ip() {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => [0; 4],
    };
    out.extend_from_slice(&address);
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    out
}

/// One packet, `since_ms` after the first. `rtcp`: a length of zero in the second field says so.
pub fn packet(since_ms: u32, payload: &[u8], rtcp: bool) -> Vec<u8> {
    let length = payload.len().min(usize::from(u16::MAX) - 8);
    let mut out = Vec::with_capacity(8 + length);
    out.extend_from_slice(&((length + 8) as u16).to_be_bytes());
    out.extend_from_slice(&if rtcp { 0 } else { length as u16 }.to_be_bytes());
    out.extend_from_slice(&since_ms.to_be_bytes());
    out.extend_from_slice(&payload[..length]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_that_of_rtptools() {
        let head = head(1_500_000_000, "192.0.2.1:5004".parse().expect("literal"));
        let text = b"#!rtpplay1.0 192.0.2.1/5004\n";
        assert!(head.starts_with(text));
        assert_eq!(head[text.len()..], [0, 0, 0, 1, 0, 7, 161, 32, 192, 0, 2, 1, 0x13, 0x8c, 0, 0]);
        assert_eq!(packet(20, b"abc", false), [0, 11, 0, 3, 0, 0, 0, 20, b'a', b'b', b'c']);
        assert_eq!(packet(0, b"x", true)[2..4], [0, 0]);
    }
}
