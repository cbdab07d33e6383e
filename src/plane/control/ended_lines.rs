//! Single lines that the operator of the SRS ends while their RS goes on (REQ-015). Nothing of such a
//! line is stored from the moment of the decision: media closes it first, the operator hears when the
//! journal has it, and the SRC by an offer with port 0 (RFC 3264 §8.2). Whatever it answers, and whatever
//! it offers under that name later, the line gets port 0 as long as the RS lives, over restarts as well.

use std::collections::BTreeSet;

use super::actor::Control;
use super::job::{Job, Purpose};
use super::operator::Outcome;
use super::start::stored_label;
use crate::base::ids::RsId;
use crate::plane::handoff::frame::Frame;
use crate::proto::session::{Line, Negotiated};
use crate::store::event::Origin;
use crate::store::journal::entry::{Entry, StreamOpened, line_name};

/// Lines that may be ended in one RS: an operator who ends more of them ends the RS.
const ENDED_MAX: usize = 256;

impl Control {
    /// Ends the line of that name.
    pub(super) fn end_line(&mut self, (id, uid): (u64, u32), rs: RsId, name: &str, reason: &str) {
        if let Some(why) = self.admission.journal_obstacle() {
            return self.outcome(id, Outcome::Failed(why));
        }
        if self.is_busy(rs) {
            return self.outcome(id, Outcome::Busy);
        }
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        let named = |stream: &StreamOpened| own_name(stream) == name;
        if !session.streams.iter().any(named) {
            let outcome = match session.holding.ended.contains(name) {
                true => Outcome::Done,
                false => Outcome::Refused(no_such_line(name, &session.streams)),
            };
            return self.outcome(id, outcome);
        }
        if session.holding.ended.len() >= ENDED_MAX {
            let why = format!("{ENDED_MAX} lines of it are ended: stop the recording");
            return self.outcome(id, Outcome::Refused(why));
        }
        let ended: Vec<StreamOpened> = session.streams.extract_if(.., |one| named(one)).collect();
        let lines: BTreeSet<u16> = ended.iter().map(|one| one.description.line).collect();
        session.holding.end_line(name);
        session.origin.1 += 1;
        session.answer_sdp = without(&session.answer_sdp, &lines, session.origin);
        let mut frames = Vec::new();
        for stream in &ended {
            let (slot, generation) = (stream.description.slot, stream.generation);
            self.closing.push((rs, slot, generation, stream.description.stream));
            frames.push(Frame::Close { slot, generation, by: Origin::Srs });
        }
        let mut entry = self.held_entry(rs, false);
        if let Some(Entry::Changed { hold: Some(hold), quirks, .. }) = &mut entry {
            hold.ends = Some(uid);
            quirks.extend(lines.iter().map(|line| {
                let number = line + 1;
                format!("m-line {number} ({name}) was ended by the operator: {reason}")
            }));
        }
        let entries = entry.into_iter().collect();
        self.begin(Purpose::Hold, rs, None, None, frames, entries);
        let holds = |job: &&mut Job| job.rs == rs && matches!(job.purpose, Purpose::Hold);
        match self.jobs.values_mut().find(holds) {
            Some(job) => job.verb = Some(id),
            // A dialog that is being lost has no entry, and a line without one is closed at once.
            None => self.outcome(id, Outcome::Done),
        }
    }

    /// Leaves out of an offer what an operator has ended. Returns what it leaves out, in words.
    pub(super) fn leave_out_ended(&self, rs: RsId, negotiated: &mut Negotiated) -> Vec<String> {
        let Some(session) = self.sessions.get(&rs) else { return Vec::new() };
        let ended = &session.holding.ended;
        if ended.is_empty() {
            return Vec::new();
        }
        let is_ended = |line: &&Line| {
            let label = line.label.as_deref().map(stored_label);
            line.accepted().is_some() && ended.contains(&line_name(label, line.index))
        };
        let again: Vec<u16> = negotiated.lines.iter().filter(is_ended).map(|l| l.index).collect();
        let told =
            |line: &u16| format!("m-line {} is offered again after an operator ended it", line + 1);
        again.iter().for_each(|line| negotiated.end(*line));
        again.iter().map(told).collect()
    }
}

fn own_name(stream: &StreamOpened) -> String {
    line_name(stream.description.label.as_deref(), stream.description.line)
}

fn no_such_line(name: &str, streams: &[StreamOpened]) -> String {
    let names: Vec<String> = streams.iter().map(own_name).collect();
    match names.is_empty() {
        true => format!("it has no line {name:?}, and no other"),
        false => format!("it has no line {name:?}: its lines are {}", names.join(", ")),
    }
}

/// Our SDP with port 0 for `lines`, and nothing of them but type, transport, formats and label, under
/// another `o=` version.
fn without(sdp: &str, lines: &BTreeSet<u16>, (session_id, version): (u64, u64)) -> String {
    let mut text = String::with_capacity(sdp.len());
    let mut line_now: Option<u16> = None;
    for line in sdp.lines() {
        let begins = line.starts_with("m=");
        if begins {
            line_now = Some(line_now.map_or(0, |line| line.saturating_add(1)));
        }
        let ended = line_now.is_some_and(|line| lines.contains(&line));
        let mut fields: Vec<&str> = line.split(' ').collect();
        let (id, version) = (session_id.to_string(), version.to_string());
        match () {
            () if line.starts_with("o=") && fields.len() > 2 => {
                (fields[1], fields[2]) = (&id, &version)
            }
            () if ended && begins && fields.len() > 1 => fields[1] = "0",
            () if ended && !begins && !line.starts_with("a=label:") => continue,
            () => {}
        }
        text.push_str(&fields.join(" "));
        text.push_str("\r\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_line_has_port_0_and_no_key() {
        let sdp = "v=0\r\no=floortape 77 3 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
            m=audio 4000 RTP/SAVP 0\r\na=label:1\r\na=crypto:1 SUITE inline:key\r\na=recvonly\r\n\
            m=audio 4002 RTP/SAVP 0 8\r\nc=IN IP4 127.0.0.2\r\na=rtpmap:0 PCMU/8000\r\na=label:2\r\n\
            a=crypto:1 SUITE inline:key\r\na=rtcp-mux\r\na=recvonly\r\n";
        let after = without(sdp, &BTreeSet::from([1]), (77, 4));
        let begins = sdp.find("m=audio 4002").expect("there");
        let kept = sdp[..begins].replace("77 3", "77 4");
        assert_eq!(after, format!("{kept}m=audio 0 RTP/SAVP 0 8\r\na=label:2\r\n"));
        assert_eq!(without(&after, &BTreeSet::from([1]), (77, 4)), after);
    }
}
