//! Our answer's text.

use std::net::IpAddr;

use crate::base::secret::MasterKey;
use crate::wire::sdes::CryptoLine;
use crate::wire::sdp::Writer;

use super::line::{Accepted, Line};
use super::negotiate::Negotiated;

/// `o=` of what we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerOrigin {
    /// Stable for the dialog.
    pub session_id: u64,
    /// One higher whenever the text differs from the last one sent in this dialog (RFC 3264 §8).
    /// [`emit_answer`] is deterministic: write with the old version, compare, raise if different.
    pub version: u64,
    /// Ours. Stays for the life of the dialog (RFC 3264 §8).
    pub address: IpAddr,
    /// `c=` of the session: that of lines which say nothing else.
    pub connection: IpAddr,
}

/// What we give for one accepted line.
pub struct Local<'a> {
    /// Our RTP port.
    pub port: u16,
    /// Our own SRTP master key of the taken suite's length: an SRS sends SRTCP and so needs one even
    /// on a `recvonly` line (RFC 4568 §5.1.2). Must differ from every key in the offer.
    pub key: Option<&'a MasterKey>,
    /// Our address, where this line's differs from [`AnswerOrigin::connection`].
    pub address: Option<IpAddr>,
}

/// Writes the answer: as many m-lines as the offer, in order, each with its transport.
///
/// `locals` has an entry per m-line; a line without one, or that was refused, gets port 0. Where
/// our key is missing or has another suite's length the line gets port 0 too: a secure line without
/// a key in the answer is a failed negotiation (RFC 4568 §7.1.2).
///
/// The text holds keys: send it, never log it; journal it sealed or blanked.
pub fn emit_answer(
    negotiated: &Negotiated,
    locals: &[Option<Local<'_>>],
    origin: &AnswerOrigin,
) -> String {
    let AnswerOrigin { session_id, version, address, connection } = *origin;
    let mut sdp = Writer::at("floortape", session_id, version, address, connection);
    for line in &negotiated.lines {
        let local = locals.get(usize::from(line.index)).and_then(Option::as_ref);
        match (line.accepted(), local) {
            (Some(accepted), Some(local)) if key_fits(accepted, local) => {
                accept(&mut sdp, line, accepted, local, origin);
            }
            _ => refuse(&mut sdp, line),
        }
    }
    sdp.finish()
}

fn key_fits(accepted: &Accepted, local: &Local<'_>) -> bool {
    match (&accepted.crypto, local.key) {
        (None, _) => true,
        (Some(crypto), Some(key)) => key.expose().len() == crypto.suite.suite().master_bytes(),
        (Some(_), None) => false,
    }
}

fn accept(
    sdp: &mut Writer,
    line: &Line,
    accepted: &Accepted,
    local: &Local<'_>,
    origin: &AnswerOrigin,
) {
    let numbers: Vec<String> =
        accepted.formats.iter().map(|format| format.payload_type.to_string()).collect();
    sdp.media(&line.kind, local.port, &line.transport, numbers.iter().map(String::as_str));
    if let Some(address) = local.address.filter(|address| *address != origin.connection) {
        sdp.connection(address);
    }
    accepted.formats.iter().for_each(|format| sdp.format(format));
    // RFC 7866 figure 6 echoes the label; some SRCs match by it.
    if let Some(label) = &line.label {
        sdp.attribute(&format!("label:{label}"));
    }
    if let (Some(crypto), Some(key)) = (&accepted.crypto, local.key) {
        // RFC 4568 §5.1.2: same tag, same suite, own key; §6.3: the same negotiated parameters.
        sdp.attribute(&format!("crypto:{}", CryptoLine::emit(crypto.tag, crypto.suite, key)));
    }
    if accepted.rtcp_mux {
        sdp.attribute("rtcp-mux");
    }
    let active = accepted.active && !line.rests;
    sdp.attribute(if active { "recvonly" } else { "inactive" });
}

/// RFC 3264 §6: port 0, same type and transport, formats as offered.
fn refuse(sdp: &mut Writer, line: &Line) {
    let tokens = line.tokens.iter().map(String::as_str);
    if line.tokens.is_empty() {
        sdp.media(&line.kind, 0, &line.transport, ["0"].into_iter());
    } else {
        sdp.media(&line.kind, 0, &line.transport, tokens);
    }
}
