//! From an offer to a decision per m-line (RFC 3264 §6, §8; RFC 7866 §7.2).

use crate::wire::sdp::{Description, Origin};

use super::change::{self, LineChange};
use super::line::{Accepted, Decision, Line, WhyRefused};
use super::policy::Policy;

/// An offer, decided. Holds the peer's keys, so it is neither cloned nor printed with them.
#[derive(Debug)]
pub struct Negotiated {
    /// `o=` of the offer.
    pub origin: Origin,
    /// One per m-line, in order.
    pub lines: Vec<Line>,
    /// The offer repeats the last one's version: nothing changed and the answer is the same
    /// (RFC 3264 §8).
    pub unchanged: bool,
    /// Lines of the last offer that are missing in this one, against RFC 3264 §8: close them.
    pub vanished: Vec<u16>,
    /// What was odd.
    pub quirks: Vec<String>,
}

impl Negotiated {
    /// The recorded lines.
    pub fn accepted(&self) -> impl Iterator<Item = (&Line, &Accepted)> {
        self.lines.iter().filter_map(|line| Some((line, line.accepted()?)))
    }

    /// Whether no line differs from the last offer, whatever its version says: leave ports, SRTP
    /// contexts and files alone.
    pub fn is_quiet(&self) -> bool {
        self.vanished.is_empty() && self.lines.iter().all(|line| line.changes.is_empty())
    }
}

/// Decides each m-line of an offer by position. `current`: the last offer of this dialog that was
/// answered with 2xx; `None` for the first. A rejected re-offer is simply not kept by the caller, so
/// the state before it stands.
///
/// An unchanged version with changed content is an SRC's fault; the content is followed, because
/// media comes as the content says.
pub fn negotiate(offer: &Description, current: Option<&Negotiated>, policy: &Policy) -> Negotiated {
    let mut quirks = Vec::new();
    let mut lines: Vec<Line> = (0..offer.media.len())
        .map(|index| Line::decide(offer, index, policy, &mut quirks))
        .collect();
    let origin = offer.origin.clone().unwrap_or_default();
    let mut negotiated =
        Negotiated { origin, lines: Vec::new(), unchanged: false, vanished: Vec::new(), quirks };
    if let Some(current) = current {
        for line in &mut lines {
            let old = current.lines.get(usize::from(line.index));
            line.changes = change::compare(old, line);
            note_stale_key(old, line, &mut negotiated.quirks);
        }
        negotiated.lines = lines;
        negotiated.compare_versions(current);
    } else {
        negotiated.lines = lines;
    }
    negotiated
}

impl Negotiated {
    /// The policy does not want a line: port 0, and why.
    pub fn leave_out(&mut self, index: u16, why: String) {
        if let Some(line) = self.lines.get_mut(usize::from(index)) {
            line.decision = Decision::Refuse(WhyRefused::Unwanted(why));
        }
    }

    /// An operator has ended a line: port 0.
    pub fn end(&mut self, index: u16) {
        if let Some(line) = self.lines.get_mut(usize::from(index)) {
            line.decision = Decision::Refuse(WhyRefused::Ended);
        }
    }

    /// The policy does not want a line that is being recorded: `inactive` until it does.
    pub fn rest(&mut self, index: u16) {
        if let Some(line) = self.lines.get_mut(usize::from(index)) {
            line.rests = true;
        }
    }

    /// The same with no line wanted now: the answer says `inactive`, whatever was offered. What rests
    /// does so anyway, and keeps what was offered.
    pub fn pause(&mut self) {
        for line in self.lines.iter_mut().filter(|line| !line.rests) {
            if let Decision::Accept(accepted) = &mut line.decision {
                accepted.active = false;
            }
        }
    }

    fn compare_versions(&mut self, current: &Negotiated) {
        self.vanished = current
            .lines
            .iter()
            .skip(self.lines.len())
            .filter(|line| line.accepted().is_some())
            .map(|line| line.index)
            .collect();
        if current.lines.len() > self.lines.len() {
            self.quirks.push("the re-offer has fewer m-lines (RFC 3264 section 8)".to_owned());
        }
        let same_session = self.origin.session_id == current.origin.session_id
            && self.origin.username == current.origin.username;
        if !same_session {
            self.quirks.push("the re-offer has another o= session (RFC 3264 section 8)".to_owned());
        } else if self.origin.version == current.origin.version {
            self.unchanged = self.is_quiet();
            // What we left out was no less offered.
            let left_out = |line: &Line| {
                let old = current.lines.get(usize::from(line.index)).and_then(Line::refused);
                matches!(old, Some(WhyRefused::Unwanted(_) | WhyRefused::Ended))
            };
            let changed = |line: &Line| !line.changes.is_empty() && !left_out(line);
            if !self.vanished.is_empty() || self.lines.iter().any(changed) {
                let text = "the re-offer changed under the same o= version (RFC 3264 section 8)";
                self.quirks.push(text.to_owned());
            }
        }
    }
}

/// RFC 4568 §7.1.4: a new address or port needs a new key. Many SBCs keep it; noted, not refused.
fn note_stale_key(old: Option<&Line>, line: &Line, quirks: &mut Vec<String>) {
    let moved = line
        .changes
        .iter()
        .any(|change| matches!(change, LineChange::RemoteMoved { from: Some(_), to: Some(_) }));
    let before = old.and_then(|line| line.accepted()?.crypto.as_ref());
    let now = line.accepted().and_then(|accepted| accepted.crypto.as_ref());
    if let (true, Some(before), Some(now)) = (moved, before, now)
        && change::same_key(before, now)
    {
        let number = line.index + 1;
        quirks.push(format!("m-line {number} moved without a new key (RFC 4568 section 7.1.4)"));
    }
}
