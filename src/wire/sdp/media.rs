//! One m-line with what belongs to it.

use std::net::IpAddr;

use crate::wire::sdes::{CryptoLine, SdesError, blank_keys};

use super::SdpError;
use super::codec::{self, Attribute};
use super::description::Connection;
use super::format::Format;
use super::section::Line;

/// Which way media flows, seen from who wrote the SDP (RFC 3264 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `a=sendonly`
    SendOnly,
    /// `a=recvonly`
    RecvOnly,
    /// `a=sendrecv`, also the default
    SendRecv,
    /// `a=inactive`
    Inactive,
}

impl Direction {
    /// The attribute's name.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::SendRecv => "sendrecv",
            Direction::Inactive => "inactive",
        }
    }

    /// Whether its writer sends media.
    pub const fn sends(self) -> bool {
        matches!(self, Direction::SendOnly | Direction::SendRecv)
    }
}

/// The transport of an m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `RTP/AVP` (RFC 3551)
    Avp,
    /// `RTP/AVPF` (RFC 4585)
    Avpf,
    /// `RTP/SAVP` (RFC 3711)
    Savp,
    /// `RTP/SAVPF` (RFC 5124)
    Savpf,
    /// `UDP/TLS/RTP/SAVP` or `…/SAVPF` (RFC 5764 §8)
    Dtls,
    /// Anything else: udptl, MSRP, TCP.
    Other,
}

impl Profile {
    fn of(transport: &str) -> Self {
        match transport.to_ascii_uppercase().as_str() {
            "RTP/AVP" => Profile::Avp,
            "RTP/AVPF" => Profile::Avpf,
            "RTP/SAVP" => Profile::Savp,
            "RTP/SAVPF" => Profile::Savpf,
            "UDP/TLS/RTP/SAVP" | "UDP/TLS/RTP/SAVPF" => Profile::Dtls,
            _ => Profile::Other,
        }
    }

    /// Whether media on it is SRTP keyed by SDES.
    pub const fn is_sdes(self) -> bool {
        matches!(self, Profile::Savp | Profile::Savpf)
    }

    /// Whether media on it is encrypted at all.
    pub const fn is_secure(self) -> bool {
        matches!(self, Profile::Savp | Profile::Savpf | Profile::Dtls)
    }

    /// Whether it carries RTP over UDP.
    pub const fn is_rtp(self) -> bool {
        !matches!(self, Profile::Other)
    }
}

/// `a=rtcp:` (RFC 3605).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcpAddress {
    /// RTCP port.
    pub port: u16,
    /// Its address, where it is another one than that of the media.
    pub address: Option<IpAddr>,
}

/// One m-line.
#[derive(Debug)]
pub struct Media {
    /// `audio`, `video`, `text`, … as offered.
    pub kind: String,
    /// RTP port; 0: rejected or removed.
    pub port: u16,
    /// Transport as offered.
    pub transport: String,
    /// Format tokens as offered.
    pub tokens: Vec<String>,
    /// The tokens that are payload types, in offer order, with their meaning.
    pub formats: Vec<Format>,
    /// `a=label` (RFC 4574): a token, not a number.
    pub label: Option<String>,
    /// `a=mid`.
    pub mid: Option<String>,
    /// The line's own direction.
    pub direction: Option<Direction>,
    /// The line's own `c=`; the first where there are several.
    pub connection: Option<Connection>,
    /// `a=rtcp`.
    pub rtcp: Option<RtcpAddress>,
    /// `a=rtcp-mux` (RFC 5761).
    pub rtcp_mux: bool,
    /// Crypto lines in offer order, the faulty ones with their fault.
    pub crypto: Vec<Result<CryptoLine, SdesError>>,
    /// `a=ptime` in ms.
    pub ptime: Option<u32>,
    /// `a=content` (RFC 4796).
    pub content: Option<String>,
    /// Whether a DTLS fingerprint stands at the line.
    pub fingerprint: bool,
    /// Every line of the section as received, `m=` first; keys are blanked.
    pub lines: Vec<String>,
}

impl Media {
    /// The transport, understood.
    pub fn profile(&self) -> Profile {
        Profile::of(&self.transport)
    }

    /// Whether it is of that kind, in any case.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind)
    }

    /// Values of all attributes of that name, raw (keys blanked).
    pub fn attributes<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter_map(move |line| {
            let (own, value) = line.strip_prefix("a=")?.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(super) fn read(section: &[Line]) -> Result<Self, SdpError> {
        let (head, rest) = section.split_first().expect("a section begins with its m= line");
        let head = codec::media(&head.value).ok_or(SdpError::MediaLine)?;
        let mut media = Media {
            formats: payload_types(&head.formats, &head.kind),
            kind: head.kind,
            port: head.port,
            transport: head.transport,
            tokens: head.formats,
            label: None,
            mid: None,
            direction: None,
            connection: None,
            rtcp: None,
            rtcp_mux: false,
            crypto: Vec::new(),
            ptime: None,
            content: None,
            fingerprint: false,
            lines: section.iter().map(blanked).collect(),
        };
        for line in rest {
            if line.kind == b'c' && media.connection.is_none() {
                media.connection = codec::connection(&line.value);
            } else if let Some((name, value)) = line.attribute() {
                media.take(name, value);
            }
        }
        Ok(media)
    }

    fn take(&mut self, name: &str, value: &str) {
        match name.to_ascii_lowercase().as_str() {
            "crypto" => self.take_crypto(value),
            "fmtp" => self.take_fmtp(value),
            "content" => self.content = Some(value.to_owned()),
            "fingerprint" => self.fingerprint = true,
            _ => {}
        }
        match codec::attribute(name, value) {
            Some(Attribute::Rtpmap { payload_type, codec, clock_rate, channels }) => {
                // The first map of a payload type counts: it keeps its codec (RFC 3264 §8.3.2).
                let unmapped = |format: &&mut Format| {
                    format.payload_type == payload_type && !format.mapped && clock_rate > 0
                };
                if let Some(format) = self.formats.iter_mut().find(unmapped) {
                    (format.codec, format.clock_rate) = (codec, clock_rate);
                    (format.channels, format.mapped) = (channels, true);
                }
            }
            Some(Attribute::Label(label)) => self.label = self.label.take().or(Some(label)),
            Some(Attribute::Mid(mid)) => self.mid = Some(mid),
            Some(Attribute::Ptime(ms)) => self.ptime = Some(ms),
            Some(Attribute::Rtcp(rtcp)) => self.rtcp = Some(rtcp),
            Some(Attribute::RtcpMux) => self.rtcp_mux = true,
            Some(Attribute::Direction(direction)) => self.direction = Some(direction),
            None => {}
        }
    }

    fn take_crypto(&mut self, value: &str) {
        let tag = |line: &Result<CryptoLine, SdesError>| match line {
            Ok(line) => Some(line.tag),
            Err(SdesError::UnknownSuite { tag, .. }) => Some(*tag),
            Err(_) => None,
        };
        let mut line = CryptoLine::parse(value);
        // RFC 4568 §4.1: a tag is unique in its m-line.
        if let Some(own) = tag(&line)
            && self.crypto.iter().any(|other| tag(other) == Some(own))
        {
            line = Err(SdesError::DuplicateTag { tag: own });
        }
        self.crypto.push(line);
    }

    fn take_fmtp(&mut self, value: &str) {
        let Some((payload_type, parameters)) = value.split_once([' ', '\t']) else { return };
        let Ok(payload_type) = payload_type.parse::<u8>() else { return };
        if let Some(format) = self.formats.iter_mut().find(|f| f.payload_type == payload_type) {
            format.fmtp = Some(parameters.trim().to_owned());
        }
    }
}

fn payload_types(tokens: &[String], media: &str) -> Vec<Format> {
    let mut formats: Vec<Format> = Vec::new();
    for payload_type in tokens.iter().filter_map(|token| token.parse::<u8>().ok()) {
        // Bounded by the 128 payload types there are.
        if payload_type < 128 && formats.iter().all(|format| format.payload_type != payload_type) {
            formats.push(Format::without_map(payload_type, media));
        }
    }
    formats
}

/// The line as text without key material.
pub(super) fn blanked(line: &Line) -> String {
    String::from_utf8_lossy(&blank_keys(line.text().as_bytes())).into_owned()
}
