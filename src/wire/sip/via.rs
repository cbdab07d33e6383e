//! Via (RFC 3261 §20.42, RFC 3581).

use std::net::SocketAddr;

use super::params::{Params, find_outside, is_token, split_outside};
use super::uri::split_port;

/// One Via value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// Transport in upper case: `UDP`, `TCP`, `TLS`, …
    pub transport: String,
    /// sent-by host, IPv6 in brackets.
    pub host: String,
    /// sent-by port, where given.
    pub port: Option<u16>,
    /// branch, received, rport and others.
    pub params: Params,
}

impl Via {
    /// Reads one value; blanks around the slashes and the colon are taken (RFC 3261 §25.1, SLASH).
    /// Of another version of SIP too: its sender must hear that we do not speak it (505).
    pub fn parse(text: &str) -> Option<Via> {
        let mut parts = text.trim().splitn(3, '/');
        let (name, version) = (parts.next()?.trim(), parts.next()?.trim());
        let digits = version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if !name.eq_ignore_ascii_case("SIP") || version.is_empty() || !digits {
            return None;
        }
        let rest = parts.next()?.trim_start();
        let (transport, rest) = rest.split_once([' ', '\t'])?;
        // A parameter in it would be cut off where we fill in ours.
        if !is_token(transport.as_bytes()) {
            return None;
        }
        let (place, params) = rest.split_at(find_outside(rest, b';', false).unwrap_or(rest.len()));
        let (host, port) = split_port(place)?;
        Some(Via {
            transport: transport.to_ascii_uppercase(),
            host: host.to_owned(),
            port,
            params: Params::parse(params),
        })
    }

    /// The branch, `None` where absent or empty.
    pub fn branch(&self) -> Option<&str> {
        self.params.get("branch").filter(|branch| !branch.is_empty())
    }

    /// Where a response over UDP goes (RFC 3261 §18.2.2, RFC 3581 §4): back to the source address,
    /// to the source port if `rport` was asked for, else to the sent-by port.
    pub fn response_to(&self, source: SocketAddr) -> SocketAddr {
        if self.params.has("rport") {
            return source;
        }
        SocketAddr::new(source.ip(), self.port.unwrap_or(5_060))
    }
}

/// The topmost Via line with `received` and `rport` filled in as the source of the request demands
/// (RFC 3261 §18.2.1, RFC 3581 §4). Every other byte stays.
pub fn with_source(line: &str, source: SocketAddr) -> String {
    let end = find_outside(line, b',', true).unwrap_or(line.len());
    let (first, others) = line.split_at(end);
    let Some(via) = Via::parse(first) else { return line.to_owned() };
    let asked = via.params.has("rport");
    let ip = source.ip().to_canonical();
    let same = via.host.trim_matches(['[', ']']).parse() == Ok(ip);
    if !asked && same {
        return line.to_owned();
    }
    let mut out = String::with_capacity(line.len() + 48);
    for (place, part) in split_outside(first, b';', false).enumerate() {
        let name = part.split_once('=').map_or(part, |(name, _)| name).trim();
        if place > 0 && name.eq_ignore_ascii_case("received") {
            // The sender has no business here; ours is the one that counts.
            continue;
        }
        if place > 0 {
            out.push(';');
        }
        if place > 0 && name.eq_ignore_ascii_case("rport") {
            out.push_str(&format!("rport={}", source.port()));
        } else {
            out.push_str(part);
        }
    }
    let kept = out.trim_end().len();
    out.truncate(kept);
    out.push_str(&format!(";received={ip}"));
    out.push_str(others);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_ipv6_are_read() {
        let via = Via::parse("SIP / 2.0 / udp  [2001:db8::9] : 5070 ;branch=z9hG4bK87asdks7;rport")
            .expect("valid");
        assert_eq!((&*via.transport, &*via.host, via.port), ("UDP", "[2001:db8::9]", Some(5_070)));
        assert_eq!(via.branch(), Some("z9hG4bK87asdks7"));
        for text in [
            "",
            "SIP/2.0",
            "SIP/2.0/UDP",
            "SIP/x/UDP h",
            "SIP/2.0/UDP ;branch=x",
            "SIP/2.0/UDP;received=1 h",
        ] {
            assert_eq!(Via::parse(text), None, "{text}");
        }
    }

    #[test]
    fn source_is_filled_in_only_where_needed() {
        let source: SocketAddr = "192.0.2.1:4540".parse().expect("address");
        let table = [
            ("SIP/2.0/UDP 192.0.2.1:5060;branch=a", "SIP/2.0/UDP 192.0.2.1:5060;branch=a"),
            (
                "SIP/2.0/UDP 10.1.1.1:4540;rport;branch=b",
                "SIP/2.0/UDP 10.1.1.1:4540;rport=4540;branch=b;received=192.0.2.1",
            ),
            (
                "SIP/2.0/UDP h;branch=c, SIP/2.0/TCP i;rport",
                "SIP/2.0/UDP h;branch=c;received=192.0.2.1, SIP/2.0/TCP i;rport",
            ),
            (
                "SIP/2.0/UDP h;received=1.1.1.1;branch=c",
                "SIP/2.0/UDP h;branch=c;received=192.0.2.1",
            ),
            ("nonsense", "nonsense"),
        ];
        for (line, wanted) in table {
            assert_eq!(with_source(line, source), wanted);
        }
    }

    #[test]
    fn response_port_follows_rfc_3581() {
        let source: SocketAddr = "192.0.2.1:4540".parse().expect("address");
        let table = [
            ("SIP/2.0/UDP h:5070;branch=a", "192.0.2.1:5070"),
            ("SIP/2.0/UDP h;branch=a", "192.0.2.1:5060"),
            ("SIP/2.0/UDP h:5070;rport;branch=a", "192.0.2.1:4540"),
        ];
        for (line, wanted) in table {
            let via = Via::parse(line).expect("valid");
            assert_eq!(via.response_to(source), wanted.parse().expect("address"));
        }
    }
}
