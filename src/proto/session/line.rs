//! One m-line's decision.

use std::net::SocketAddr;

use crate::base::family::Family;
use crate::base::keyring::{KEYRING_MAX, Keyring};
use crate::base::suite::Agreed;
use crate::wire::sdes::{CryptoLine, SessionParameters};
use crate::wire::sdp::{Description, Direction, Format, Media, Profile};

use super::change::LineChange;
use super::policy::{Policy, SrtpPolicy};
use super::selection::LineFacts;

/// The crypto line that was taken.
pub struct Chosen {
    /// Its tag, to be repeated in the answer.
    pub tag: u32,
    /// Its suite, to be repeated too.
    pub suite: Agreed,
    /// What the peer encrypts with.
    pub remote: Keyring,
    /// Session parameters of the peer.
    pub parameters: SessionParameters,
}

impl std::fmt::Debug for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chosen").field("tag", &self.tag).field("suite", &self.suite.name()).finish()
    }
}

impl Chosen {
    /// Takes over a line; `None` where it has more keys than a line may have in use.
    pub(super) fn of(line: &CryptoLine) -> Option<Self> {
        let keys = line.keys.iter().map(|key| (key.key.duplicate(), key.mki)).collect();
        Some(Chosen {
            tag: line.tag,
            suite: line.suite,
            remote: Keyring::new(keys, line.parameters.key_derivation_rate.unwrap_or(0))?,
            parameters: line.parameters.clone(),
        })
    }
}

/// How a line is recorded.
#[derive(Debug)]
pub struct Accepted {
    /// What the answer lists: one codec, with its events and comfort noise, in offer order.
    pub formats: Vec<Format>,
    /// All that the offer listed. Some SRCs fork a stream whose codec is any of them.
    pub offered: Vec<Format>,
    /// Whether media is wanted now: the answer says `recvonly`; else `inactive`.
    pub active: bool,
    /// The direction in the offer.
    pub direction: Direction,
    /// SRTP; `None`: plain RTP.
    pub crypto: Option<Chosen>,
    /// The family that it is sent over; `None`: not stated, or hold.
    pub family: Option<Family>,
    /// Where the SRC sends from, by symmetric RTP; `None`: not stated, or hold.
    pub remote_rtp: Option<SocketAddr>,
    /// Where our RTCP goes; `None`: nowhere.
    pub remote_rtcp: Option<SocketAddr>,
    /// RTCP shares the RTP port (RFC 5761).
    pub rtcp_mux: bool,
    /// `a=ptime` in ms.
    pub ptime: Option<u32>,
    /// `a=content` (RFC 4796).
    pub content: Option<String>,
}

/// Why a line gets port 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyRefused {
    /// The offer itself says port 0.
    #[error("the offer removed it")]
    Removed,
    /// No RTP over UDP.
    #[error("transport {0} is not RTP over UDP")]
    NotRtp(String),
    /// Not audio, video or text.
    #[error("media type {0} is not recorded")]
    Kind(String),
    /// No payload type.
    #[error("it lists no RTP payload type")]
    NoFormat,
    /// DTLS-SRTP.
    #[error("keying by DTLS is not supported")]
    Dtls,
    /// A secure transport and no `a=crypto`.
    #[error("a secure transport without a=crypto")]
    NoCrypto,
    /// No crypto line can be taken.
    #[error("no acceptable a=crypto line: {0}")]
    NoAcceptableCrypto(String),
    /// `media.srtp = "require"`.
    #[error("plain RTP is refused by policy")]
    Plain,
    /// `media.srtp = "prefer"`.
    #[error("plain RTP beside a secure line of the same label")]
    PlainBesideSecure,
    /// We have no address that it could send to.
    #[error("it sends over {0}, and media.address has no {0} address")]
    NoAddress(Family),
    /// `[policy]`: by which rule, or because none asks for it.
    #[error("the recording policy leaves it out: {0}")]
    Unwanted(String),
    /// An operator has ended it.
    #[error("an operator has ended it")]
    Ended,
}

/// Taken or not.
#[derive(Debug)]
pub enum Decision {
    /// Recorded.
    Accept(Box<Accepted>),
    /// Port 0.
    Refuse(WhyRefused),
}

/// One m-line of the offer and what becomes of it.
#[derive(Debug)]
pub struct Line {
    /// Position in the SDP, 0 first.
    pub index: u16,
    /// `audio`, `video`, `text`, … as offered.
    pub kind: String,
    /// Transport as offered; the answer repeats it.
    pub transport: String,
    /// Format tokens as offered.
    pub tokens: Vec<String>,
    /// `a=label`.
    pub label: Option<String>,
    /// The decision.
    pub decision: Decision,
    /// Taken, and not recorded for now: `[policy]` forbids what was begun. The answer says `inactive`.
    pub rests: bool,
    /// What differs from the last offer; empty on the first.
    pub changes: Vec<LineChange>,
}

impl Line {
    /// How it is recorded, if it is.
    pub fn accepted(&self) -> Option<&Accepted> {
        match &self.decision {
            Decision::Accept(accepted) => Some(accepted),
            Decision::Refuse(_) => None,
        }
    }

    /// Why it is not recorded, if it is not.
    pub fn refused(&self) -> Option<&WhyRefused> {
        match &self.decision {
            Decision::Accept(_) => None,
            Decision::Refuse(why) => Some(why),
        }
    }

    /// What a policy asks about it, if it can be recorded.
    pub fn facts(&self) -> Option<LineFacts> {
        let formats = &self.accepted()?.formats;
        let codec = formats
            .iter()
            .find(|format| !(format.is_event() || format.is_comfort_noise() || format.is_repair()))
            .or(formats.first());
        Some(LineFacts {
            index: self.index,
            label: self.label.clone(),
            media: self.kind.to_ascii_lowercase(),
            codec: codec.map(|format| format.codec.clone()),
        })
    }

    pub(super) fn decide(
        offer: &Description,
        index: usize,
        policy: &Policy,
        quirks: &mut Vec<String>,
    ) -> Self {
        let media = &offer.media[index];
        let decision = match refusal(offer, media, policy) {
            Some(why) => Decision::Refuse(why),
            None => match choose_crypto(media, policy) {
                Err(why) => Decision::Refuse(why),
                Ok(crypto) => Decision::Accept(Box::new(accept(offer, media, crypto))),
            },
        };
        let line = Line {
            index: u16::try_from(index).expect("the parser bounds m-lines far below"),
            kind: media.kind.clone(),
            transport: media.transport.clone(),
            tokens: media.tokens.clone(),
            label: media.label.clone(),
            decision,
            rests: false,
            changes: Vec::new(),
        };
        line.note_oddities(offer, media, quirks);
        line
    }

    fn note_oddities(&self, offer: &Description, media: &Media, quirks: &mut Vec<String>) {
        let number = self.index + 1;
        let Some(accepted) = self.accepted() else { return };
        let mut note = |text: &str| quirks.push(format!("m-line {number} {text}"));
        if media.label.is_none() {
            note("has no a=label (RFC 7866 section 7.1.1)");
        }
        if !media.profile().is_secure() && !media.crypto.is_empty() {
            note("has a=crypto on a plain transport; taken as plain RTP (RFC 4568 section 5)");
        }
        match accepted.direction {
            Direction::SendRecv => note("is not marked sendonly"),
            Direction::RecvOnly => note("is recvonly: the SRC would send nothing"),
            Direction::SendOnly | Direction::Inactive => {}
        }
        match offer.connection_of(media) {
            None => note("has no c= line; its source address is unknown"),
            Some(connection) if connection.is_hold() => {
                note("is held by c=0.0.0.0 (RFC 3264 section 8.4)");
            }
            Some(_) if accepted.remote_rtp.is_none() => {
                note("has a c= line without a usable address")
            }
            Some(_) => {}
        }
    }
}

fn refusal(offer: &Description, media: &Media, policy: &Policy) -> Option<WhyRefused> {
    let profile = media.profile();
    if media.port == 0 {
        return Some(WhyRefused::Removed);
    }
    if !profile.is_rtp() {
        return Some(WhyRefused::NotRtp(media.transport.clone()));
    }
    if !["audio", "video", "text"].iter().any(|kind| media.is(kind)) {
        return Some(WhyRefused::Kind(media.kind.clone()));
    }
    if media.formats.is_empty() {
        return Some(WhyRefused::NoFormat);
    }
    if profile == Profile::Dtls {
        return Some(WhyRefused::Dtls);
    }
    if let Some(family) = policy.lacks.filter(|_| offer.family_of(media) == policy.lacks) {
        return Some(WhyRefused::NoAddress(family));
    }
    if profile.is_secure() {
        return None;
    }
    match policy.srtp {
        SrtpPolicy::Allow => None,
        SrtpPolicy::Require => Some(WhyRefused::Plain),
        SrtpPolicy::Prefer => {
            has_secure_sibling(offer, media).then_some(WhyRefused::PlainBesideSecure)
        }
    }
}

fn has_secure_sibling(offer: &Description, media: &Media) -> bool {
    media.label.is_some()
        && offer.media.iter().any(|other| {
            other.port != 0 && other.profile().is_secure() && other.label == media.label
        })
}

/// The first line of the offer that policy and engine allow (RFC 4568 §5.1.2: the offer's order).
fn choose_crypto(media: &Media, policy: &Policy) -> Result<Option<Chosen>, WhyRefused> {
    if !media.profile().is_sdes() {
        return Ok(None);
    }
    if media.crypto.is_empty() {
        return Err(if media.fingerprint { WhyRefused::Dtls } else { WhyRefused::NoCrypto });
    }
    let mut why = Vec::new();
    for line in &media.crypto {
        let fault = match line {
            Err(error) => error.to_string(),
            Ok(line) => match unusable(line, policy) {
                Some(fault) => format!("crypto {}: {fault}", line.tag),
                None => return Ok(Chosen::of(line)),
            },
        };
        why.push(fault);
    }
    why.truncate(4);
    Err(WhyRefused::NoAcceptableCrypto(why.join("; ")))
}

/// Why a valid crypto line is passed over.
fn unusable(line: &CryptoLine, policy: &Policy) -> Option<&'static str> {
    let parameters = &line.parameters;
    if !policy.suites.contains(line.suite.suite()) {
        return Some("its suite is not among those that the configuration takes");
    }
    if parameters.unauthenticated_srtp {
        return Some("UNAUTHENTICATED_SRTP is refused by policy");
    }
    if (line.suite.rtp_in_clear() || line.suite.rtcp_in_clear()) && !policy.unencrypted {
        return Some("unencrypted SRTP or SRTCP is refused by policy");
    }
    (line.keys.len() > KEYRING_MAX).then_some("it has more than four keys")
}

fn accept(offer: &Description, media: &Media, crypto: Option<Chosen>) -> Accepted {
    let direction = offer.direction_of(media);
    let held = offer.connection_of(media).is_some_and(|connection| connection.is_hold());
    let formats = choose_formats(media);
    // RFC 5761 §4: payload types 64-95 look like RTCP on a shared port.
    let rtcp_mux =
        media.rtcp_mux && !formats.iter().any(|format| (64..=95).contains(&format.payload_type));
    let remote_rtp = offer.rtp_address(media);
    Accepted {
        formats,
        offered: media.formats.clone(),
        active: direction.sends() && !held,
        direction,
        crypto,
        family: offer.family_of(media),
        remote_rtp,
        remote_rtcp: if rtcp_mux { remote_rtp } else { offer.rtcp_address(media) },
        rtcp_mux,
        ptime: media.ptime,
        content: media.content.clone(),
    }
}

/// The answer's formats: the offer's first codec whatever it is (one that we cannot decode is kept
/// as it comes), with events and comfort noise of its clock. Text keeps `red` too: RFC 4103 wraps
/// t140 in it.
fn choose_formats(media: &Media) -> Vec<Format> {
    let extra = |format: &Format| format.is_event() || format.is_comfort_noise();
    let text = media.is("text");
    let codec = |format: &&Format| !extra(format) && !format.is_repair();
    let Some(first) = media.formats.iter().find(codec) else { return media.formats.clone() };
    let rate_fits = |format: &Format| format.clock_rate == first.clock_rate;
    media
        .formats
        .iter()
        .filter(|format| {
            format.payload_type == first.payload_type
                || (extra(format) && rate_fits(format))
                || (text && format.is("red"))
        })
        .cloned()
        .collect()
}
