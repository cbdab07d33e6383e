//! A whole session description.

use std::net::{IpAddr, SocketAddr};

use super::codec::{self, Attribute};
use super::media::{self, Direction, Media};
use super::section;
use crate::base::family::Family;

/// `o=`: who wrote it and which version it is. Kept as text: ids of more than 64 bits are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// User; may hold blanks.
    pub username: String,
    /// Session id.
    pub session_id: String,
    /// Version; the same version means the same description (RFC 3264 §8).
    pub version: String,
    /// Address or host name.
    pub address: String,
}

/// `c=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// An address.
    Address(IpAddr),
    /// A host name (nothing here resolves it).
    Host(String),
}

impl Connection {
    /// `0.0.0.0` or `::`: hold in the old style (RFC 3264 §8.4).
    pub fn is_hold(&self) -> bool {
        matches!(self, Connection::Address(ip) if ip.is_unspecified())
    }
}

/// Why a body is no usable SDP. The answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Nothing in it looks like SDP.
    #[error("expected a session description beginning with v=, found none")]
    NoSession,
    /// An `m=` line that cannot even be echoed.
    #[error("expected m= with media, port and transport")]
    MediaLine,
    /// Too many lines.
    #[error("expected at most {} lines", crate::base::limits::SDP_LINES_MAX)]
    TooManyLines,
    /// Too many m-lines.
    #[error("expected at most {} m-lines", crate::base::limits::SDP_MEDIA_MAX)]
    TooManyMedia,
}

/// A parsed description.
#[derive(Debug)]
pub struct Description {
    /// `o=`, where it can be read.
    pub origin: Option<Origin>,
    /// Session-level `c=`.
    pub connection: Option<Connection>,
    /// Session-level direction.
    pub direction: Option<Direction>,
    /// The m-lines, by position.
    pub media: Vec<Media>,
    /// The session-level lines as received; keys are blanked.
    pub lines: Vec<String>,
    /// What was odd, in words.
    pub quirks: Vec<String>,
}

impl Description {
    /// Reads a body. Unknown and unreadable lines stay in [`Description::lines`] and
    /// [`Media::lines`]; only what no answer could be written to is an error.
    pub fn parse(body: &[u8]) -> Result<Self, SdpError> {
        let sections = section::split(body)?;
        let has_version = sections.session.first().is_some_and(|line| line.kind == b'v');
        if !has_version && sections.media.is_empty() {
            return Err(SdpError::NoSession);
        }
        let mut description = Description {
            origin: None,
            connection: None,
            direction: None,
            media: sections
                .media
                .iter()
                .map(|lines| Media::read(lines))
                .collect::<Result<_, _>>()?,
            lines: sections.session.iter().map(media::blanked).collect(),
            quirks: Vec::new(),
        };
        if !has_version {
            description.quirks.push("sdp does not begin with v=".to_owned());
        }
        for line in &sections.session {
            description.take(line);
        }
        description.look_for_oddities();
        Ok(description)
    }

    fn take(&mut self, line: &section::Line) {
        match line.kind {
            b'o' => self.origin = codec::origin(&line.value),
            b'c' if self.connection.is_none() => self.connection = codec::connection(&line.value),
            b'a' => {
                let Some((name, value)) = line.attribute() else { return };
                if name.eq_ignore_ascii_case("crypto") {
                    // RFC 4568 §5: media level only.
                    self.quirks.push("a=crypto at session level is not used".to_owned());
                } else if name.eq_ignore_ascii_case("fingerprint") {
                    self.media.iter_mut().for_each(|media| media.fingerprint = true);
                } else if let Some(Attribute::Direction(direction)) = codec::attribute(name, value)
                {
                    self.direction = Some(direction);
                }
            }
            _ => {}
        }
    }

    fn look_for_oddities(&mut self) {
        if self.origin.is_none() {
            self.quirks.push("sdp without a readable o= line".to_owned());
        }
        for at in 0..self.media.len() {
            let media = &self.media[at];
            let line = at + 1;
            if let Some(label) = &media.label
                && self.media[..at].iter().any(|other| other.label.as_ref() == Some(label))
            {
                self.quirks.push(format!("m-line {line} repeats the label {}", show(label)));
            }
            for format in &media.formats {
                if format.codec == "unknown" {
                    let number = format.payload_type;
                    self.quirks
                        .push(format!("m-line {line} has no rtpmap for payload type {number}"));
                }
            }
            for fault in media.crypto.iter().filter_map(|line| line.as_ref().err()) {
                self.quirks.push(format!("m-line {line} crypto: {fault}"));
            }
            if self.shares_a_key(at) {
                // RFC 4568 §6.1: keys are unique over the whole SDP.
                self.quirks.push(format!("m-line {line} repeats an SRTP key of another line"));
            }
        }
    }

    fn shares_a_key(&self, at: usize) -> bool {
        let keys = |media: usize| {
            self.media[media].crypto.iter().flatten().flat_map(|line| line.keys.iter())
        };
        keys(at)
            .any(|key| (0..at).any(|other| keys(other).any(|earlier| earlier.key.same(&key.key))))
    }

    /// The direction in force for a line: its own, else the session's, else `sendrecv`.
    pub fn direction_of(&self, media: &Media) -> Direction {
        media.direction.or(self.direction).unwrap_or(Direction::SendRecv)
    }

    /// The `c=` in force for a line: its own, else the session's.
    pub fn connection_of<'a>(&'a self, media: &'a Media) -> Option<&'a Connection> {
        media.connection.as_ref().or(self.connection.as_ref())
    }

    /// Where a line's writer receives RTP, and by symmetric RTP sends from. `None` for port 0, hold,
    /// multicast, a host name, or no `c=` at all.
    pub fn rtp_address(&self, media: &Media) -> Option<SocketAddr> {
        self.usable(media).map(|ip| SocketAddr::new(ip, media.port))
    }

    /// Where a line's writer takes RTCP when it is not multiplexed: `a=rtcp`, else port + 1.
    pub fn rtcp_address(&self, media: &Media) -> Option<SocketAddr> {
        let ip = self.usable(media)?;
        match media.rtcp {
            Some(rtcp) if rtcp.port != 0 => {
                Some(SocketAddr::new(rtcp.address.unwrap_or(ip), rtcp.port))
            }
            _ => Some(SocketAddr::new(ip, media.port.checked_add(1)?)),
        }
    }

    /// The family that a line's writer sends from and can be sent to. `None`: it says none, for it is
    /// held, or names a host.
    pub fn family_of(&self, media: &Media) -> Option<Family> {
        match self.connection_of(media)? {
            Connection::Address(ip) if !ip.is_unspecified() => Some(Family::of(*ip)),
            _ => None,
        }
    }

    fn usable(&self, media: &Media) -> Option<IpAddr> {
        match self.connection_of(media)? {
            Connection::Address(ip)
                if media.port != 0 && !ip.is_unspecified() && !ip.is_multicast() =>
            {
                Some(*ip)
            }
            _ => None,
        }
    }
}

/// A peer's word for a report: short and printable.
pub(super) fn show(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}
