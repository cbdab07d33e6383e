//! The SRC's side: writing an offer and reading the SRS's answer to it. For the client role.

use std::net::{IpAddr, SocketAddr};

use crate::base::secret::MasterKey;
use crate::base::suite::Suite;
use crate::wire::sdes::CryptoLine;
use crate::wire::sdp::{Description, Direction, Format, Writer};

use super::answer::AnswerOrigin;
use super::line::Chosen;

/// One m-line to offer.
pub struct OfferLine<'a> {
    /// `audio`, `video`, `text`.
    pub kind: &'a str,
    /// RTP port; 0 removes the line.
    pub port: u16,
    /// Formats in order of preference.
    pub formats: &'a [Format],
    /// `a=label`; RFC 7866 §7.1.1 wants one on every recorded line.
    pub label: &'a str,
    /// `SendOnly`, or `Inactive` for a pause.
    pub direction: Direction,
    /// Suites with a key each, in order of preference; tags count from 1. Empty: plain RTP.
    pub crypto: &'a [(Suite, &'a MasterKey)],
    /// Offers rtcp-mux.
    pub rtcp_mux: bool,
    /// Address, where it differs from the session's.
    pub address: Option<IpAddr>,
}

/// Writes an offer. Holds keys: send it, never log it.
pub fn emit_offer(lines: &[OfferLine<'_>], origin: &AnswerOrigin) -> String {
    let mut sdp = Writer::new("floortape", origin.session_id, origin.version, origin.address);
    for line in lines {
        let transport = if line.crypto.is_empty() { "RTP/AVP" } else { "RTP/SAVP" };
        let numbers: Vec<String> =
            line.formats.iter().map(|format| format.payload_type.to_string()).collect();
        sdp.media(line.kind, line.port, transport, numbers.iter().map(String::as_str));
        if let Some(address) = line.address.filter(|address| *address != origin.address) {
            sdp.connection(address);
        }
        line.formats.iter().for_each(|format| sdp.format(format));
        sdp.attribute(&format!("label:{}", line.label));
        for (tag, (suite, key)) in (1..).zip(line.crypto) {
            sdp.attribute(&format!("crypto:{}", CryptoLine::emit(tag, *suite, key)));
        }
        if line.rtcp_mux {
            sdp.attribute("rtcp-mux");
        }
        sdp.attribute(line.direction.name());
    }
    sdp.finish()
}

/// What the SRS took of one offered line.
#[derive(Debug)]
pub struct AnsweredLine {
    /// Where our RTP goes.
    pub rtp: SocketAddr,
    /// Where our RTCP goes.
    pub rtcp: SocketAddr,
    /// RTCP shares the RTP port.
    pub rtcp_mux: bool,
    /// Whether the SRS records now.
    pub active: bool,
    /// The formats it took, in its order.
    pub formats: Vec<Format>,
    /// Tag, suite and the SRS's key.
    pub crypto: Option<Chosen>,
}

/// Reads an answer, line by line in the offer's order. `None`: the line was refused, or its answer
/// cannot be used (no address, or a secure line without a key for one of our suites).
pub fn read_answer(lines: &[OfferLine<'_>], answer: &Description) -> Vec<Option<AnsweredLine>> {
    let read = |(at, line): (usize, &OfferLine<'_>)| {
        let media = answer.media.get(at)?;
        let rtp = answer.rtp_address(media)?;
        let rtcp_mux = line.rtcp_mux && media.rtcp_mux;
        let crypto = if line.crypto.is_empty() {
            None
        } else {
            // RFC 4568 §5.1.3: exactly one line, with a tag and suite of the offer.
            let taken = media.crypto.iter().flatten().next()?;
            let (suite, _) = line.crypto.get(usize::try_from(taken.tag).ok()?.checked_sub(1)?)?;
            Some(Chosen::of(taken).filter(|chosen| chosen.suite == *suite)?)
        };
        Some(AnsweredLine {
            rtp,
            rtcp: if rtcp_mux { rtp } else { answer.rtcp_address(media)? },
            rtcp_mux,
            active: matches!(answer.direction_of(media), Direction::RecvOnly | Direction::SendRecv),
            formats: media.formats.clone(),
            crypto,
        })
    };
    lines.iter().enumerate().map(read).collect()
}
