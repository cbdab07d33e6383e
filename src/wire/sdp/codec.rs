//! The edge to `webrtc-sdp`: one line in, our types out. What it cannot read (it knows no TCP or
//! udptl transports, no `ptime:20.0`, no blank in an `o=` user) is read by the plain rules behind it
//! or stays raw; a section never falls because of a line.
//!
//! Lines with keys never get here: the crate would log them.

use std::net::IpAddr;

use webrtc_sdp::address::{Address, ExplicitlyTypedAddress};
use webrtc_sdp::attribute_type::SdpAttribute;
use webrtc_sdp::{SdpType, parse_sdp_line};

use super::description::{Connection, Origin};
use super::media::{Direction, RtcpAddress};

/// The fields of an `m=` line.
pub(super) struct MediaHead {
    pub(super) kind: String,
    pub(super) port: u16,
    pub(super) transport: String,
    pub(super) formats: Vec<String>,
}

/// What one attribute says, where we have a use for it.
pub(super) enum Attribute {
    Rtpmap { payload_type: u8, codec: String, clock_rate: u32, channels: u8 },
    Label(String),
    Mid(String),
    Ptime(u32),
    Rtcp(RtcpAddress),
    RtcpMux,
    Direction(Direction),
}

fn line(kind: char, value: &str) -> Option<SdpType> {
    parse_sdp_line(&format!("{kind}={value}"), 0).ok().map(|line| line.sdp_type)
}

/// `m=`; `None` where even the plain rules find no media, port and transport. Its words stay as they
/// came, which is how an answer repeats them: the crate makes 1 of 01 and audio of AUDIO.
pub(super) fn media(value: &str) -> Option<MediaHead> {
    let mut fields = value.split_ascii_whitespace();
    let (kind, port, transport) = (fields.next()?, fields.next()?, fields.next()?);
    let port = match line('m', value) {
        Some(SdpType::Media(head)) => u16::try_from(head.port).ok()?,
        _ => port.split('/').next()?.parse().ok()?,
    };
    Some(MediaHead {
        kind: kind.to_owned(),
        port,
        transport: transport.to_owned(),
        formats: fields.map(str::to_owned).collect(),
    })
}

/// `o=`; the user may hold blanks, so the plain rules count fields from the right.
pub(super) fn origin(value: &str) -> Option<Origin> {
    if let Some(SdpType::Origin(origin)) = line('o', value) {
        return Some(Origin {
            username: origin.username,
            session_id: origin.session_id.to_string(),
            version: origin.session_version.to_string(),
            address: address_text(&origin.unicast_addr),
        });
    }
    let fields: Vec<&str> = value.split_ascii_whitespace().collect();
    let [user @ .., session_id, version, _net, _family, address] = fields.as_slice() else {
        return None;
    };
    Some(Origin {
        username: user.join(" "),
        session_id: (*session_id).to_owned(),
        version: (*version).to_owned(),
        address: (*address).to_owned(),
    })
}

fn address_text(address: &ExplicitlyTypedAddress) -> String {
    match address {
        ExplicitlyTypedAddress::Ip(ip) => ip.to_string(),
        ExplicitlyTypedAddress::Fqdn { domain, .. } => domain.clone(),
    }
}

/// `c=`.
pub(super) fn connection(value: &str) -> Option<Connection> {
    if let Some(SdpType::Connection(connection)) = line('c', value) {
        return Some(match Address::from(connection.address) {
            Address::Ip(ip) => Connection::Address(ip),
            Address::Fqdn(host) => Connection::Host(host),
        });
    }
    // `IN IP4` with an IPv6 address, extra fields and the like: the address is what counts.
    let host = value.split_ascii_whitespace().nth(2)?.split('/').next()?;
    Some(
        host.parse::<IpAddr>()
            .map_or_else(|_| Connection::Host(host.to_owned()), Connection::Address),
    )
}

/// `a=`; `None` for what we have no use for and for what nobody can read.
pub(super) fn attribute(name: &str, value: &str) -> Option<Attribute> {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "rtpmap" | "label" | "mid" | "ptime" | "rtcp" | "rtcp-mux" | "sendonly" | "recvonly"
        | "sendrecv" | "inactive" => {}
        _ => return None,
    }
    let text = if value.is_empty() { lower.clone() } else { format!("{lower}:{value}") };
    let Some(SdpType::Attribute(read)) = line('a', &text) else { return plain(&lower, value) };
    Some(match read {
        SdpAttribute::Rtpmap(map) => Attribute::Rtpmap {
            payload_type: map.payload_type,
            codec: map.codec_name,
            clock_rate: map.frequency,
            channels: map.channels.and_then(|n| u8::try_from(n).ok()).unwrap_or(1).max(1),
        },
        SdpAttribute::Label(label) => Attribute::Label(label),
        SdpAttribute::Mid(mid) => Attribute::Mid(mid),
        SdpAttribute::Ptime(ms) => Attribute::Ptime(u32::try_from(ms).ok()?),
        SdpAttribute::Rtcp(rtcp) => Attribute::Rtcp(RtcpAddress {
            port: rtcp.port,
            address: match rtcp.unicast_addr {
                Some(ExplicitlyTypedAddress::Ip(ip)) => Some(ip),
                _ => None,
            },
        }),
        SdpAttribute::RtcpMux => Attribute::RtcpMux,
        SdpAttribute::Sendonly => Attribute::Direction(Direction::SendOnly),
        SdpAttribute::Recvonly => Attribute::Direction(Direction::RecvOnly),
        SdpAttribute::Sendrecv => Attribute::Direction(Direction::SendRecv),
        SdpAttribute::Inactive => Attribute::Direction(Direction::Inactive),
        _ => return None,
    })
}

/// The plain rules behind the crate.
fn plain(name: &str, value: &str) -> Option<Attribute> {
    match name {
        "rtpmap" => {
            let (payload_type, map) = value.split_once([' ', '\t'])?;
            let mut fields = map.trim().split('/');
            Some(Attribute::Rtpmap {
                payload_type: payload_type.parse().ok()?,
                codec: fields.next()?.trim().to_owned(),
                clock_rate: fields.next()?.trim().parse().ok()?,
                channels: fields.next().and_then(|n| n.trim().parse().ok()).unwrap_or(1).max(1),
            })
        }
        // Some gateways write `20.0`.
        "ptime" => value.split('.').next()?.trim().parse().ok().map(Attribute::Ptime),
        "rtcp" => {
            let mut fields = value.split_ascii_whitespace();
            let port = fields.next()?.parse().ok()?;
            Some(Attribute::Rtcp(RtcpAddress {
                port,
                address: fields.nth(2).and_then(|ip| ip.parse().ok()),
            }))
        }
        "label" if !value.is_empty() => Some(Attribute::Label(value.to_owned())),
        _ => None,
    }
}
