//! What a restarted control knows: the journal, told again to the SIP endpoint and to media.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use super::actor::Control;
use super::effect::Grave;
use super::job::Purpose;
use super::session::{Phase, Session};
use crate::base::ids::{RsId, StreamId};
use crate::base::time::{ClockMap, Wall};
use crate::proto::sip::{self, DialogId, DialogSnapshot, Reply, Transport};
use crate::store::event::Origin;
use crate::store::journal::entry::{Answered, DialogState, Entry, StreamOpened};
use crate::store::journal::keybox::{answer_context, salt_context};

/// Stream ids are reserved in the journal by the thousand.
pub(super) const STREAM_ID_BLOCK: u64 = 1_000;

/// For this long a request may be repeated (64·T1, RFC 3261 §17.1.2.2).
const REPEATS_NS: i64 = 32_000_000_000;

/// Answers that are known again, per RS: more are not under way at once.
const ANSWERS_MAX: usize = 8;

/// Requests with a 2xx: the SDP of the answer, and when.
type Answers = VecDeque<(Answered, String, Wall)>;

/// What the journal says of one RS.
struct Known {
    session: Session,
    dialog: DialogState,
    /// Streams that have left it and may still be open in media.
    leaving: Vec<StreamOpened>,
    /// Its last ones.
    answers: Answers,
    /// All streams that it ever had.
    all: BTreeSet<StreamId>,
    /// CSeq of its BYE and when it came, if it is over.
    ended: Option<(u32, Wall)>,
}

impl Known {
    /// The entry that was just taken stands for a request with a 2xx.
    fn note_answer(&mut self, at: Wall) {
        let Some(answered) = self.dialog.answered.clone() else {
            // Its change was refused after all: the 200 that stood ready never left.
            let refused = self.dialog.remote_cseq;
            return self.answers.retain(|(answered, ..)| answered.cseq != refused);
        };
        self.answers.push_back((answered, self.session.answer_sdp.clone(), at));
        if self.answers.len() > ANSWERS_MAX {
            self.answers.pop_front();
        }
    }
}

impl Control {
    /// Takes the journal's entries. RSs that were up go on: with the streams that media still holds,
    /// or, where nothing has survived, with what the store knows of them ([`Self::held`] finds out).
    /// An RS whose port pairs cannot be had any more is told so by BYE.
    pub fn recover(&mut self, now: ClockMap, entries: &[Entry]) {
        self.now = now;
        let mut known: BTreeMap<RsId, Known> = BTreeMap::new();
        for entry in entries {
            self.learn(entry, &mut known);
        }
        // What was not sealed then is not sealed now, however long nothing ran.
        let alive = entries.iter().filter_map(written).max().unwrap_or_default();
        let kept_ns = (self.salts_kept_ms() * 1_000_000) as i64;
        for (rs, known) in known {
            let gone = |stream: &&StreamId| !ids(&known.session.streams).any(|own| own == **stream);
            let over = known.ended.is_none_or(|(_, at)| alive.0 - at.0 < kept_ns);
            for stream in known.all.iter().filter(gone).filter(|_| over) {
                self.keep_salt(rs, known.session.salt, *stream);
            }
            let quiet = known.session.streams.is_empty() && known.leaving.is_empty();
            let old = |(_, at): (u32, Wall)| now.wall.0 - at.0 > REPEATS_NS;
            if !(quiet && known.ended.is_some_and(old)) {
                self.take_back(rs, known);
            }
        }
    }

    fn learn(&mut self, entry: &Entry, known: &mut BTreeMap<RsId, Known>) {
        match entry {
            Entry::StreamIds { next } => self.stream_ids = (*next, *next),
            Entry::Opened { rs, at, dialog, salt, streams, answer_sdp, .. } => {
                let unsealed = |sealed, context: &str| self.keys.open(sealed, context).ok();
                let salt =
                    unsealed(salt, &salt_context(*rs)).and_then(|salt| salt[..].try_into().ok());
                let Some(salt) = salt else {
                    self.log(Grave::Error, format!("{rs}: its salt is sealed by another key"));
                    return;
                };
                let answer = unsealed(answer_sdp, &answer_context(*rs)).unwrap_or_default();
                let answer_sdp = String::from_utf8_lossy(&answer).into_owned();
                let session = Session {
                    rs: *rs,
                    since: *at,
                    phase: Phase::Live,
                    strict: self.policy(dialog.peer.ip()).strict,
                    dialog: None,
                    salt,
                    streams: self.learned(streams),
                    bodies: 0,
                    origin: origin(&answer_sdp),
                    answer_sdp,
                    negotiated: None,
                };
                let (dialog, leaving) = (dialog.clone(), Vec::new());
                let all = ids(streams).collect();
                let answers = VecDeque::new();
                let mut new = Known { session, dialog, leaving, answers, all, ended: None };
                new.note_answer(*at);
                known.insert(*rs, new);
            }
            Entry::Changed { rs, at, dialog, streams, answer_sdp, .. } => {
                let streams = self.learned(streams);
                let answer = self.keys.open(answer_sdp, &answer_context(*rs)).ok();
                if let Some(known) = known.get_mut(rs) {
                    known.dialog = dialog.clone();
                    known.all.extend(ids(&streams));
                    let stays = |gone: &StreamOpened| {
                        !streams.iter().any(|s| s.description.stream == gone.description.stream)
                    };
                    let before = std::mem::take(&mut known.session.streams);
                    known.leaving.extend(before.into_iter().filter(stays));
                    known.session.streams = streams;
                    if let Some(answer) = answer {
                        known.session.answer_sdp = String::from_utf8_lossy(&answer).into_owned();
                        known.session.origin = origin(&known.session.answer_sdp);
                    }
                    known.note_answer(*at);
                }
            }
            Entry::Body { rs, number, .. } => {
                if let Some(known) = known.get_mut(rs) {
                    known.session.bodies = *number;
                }
            }
            Entry::StreamClosed { rs, stream, .. } => {
                if let Some(known) = known.get_mut(rs) {
                    known.session.streams.retain(|open| open.description.stream != *stream);
                    known.leaving.retain(|open| open.description.stream != *stream);
                }
            }
            Entry::Ended { rs, remote_cseq, at, .. } => {
                if let Some(known) = known.get_mut(rs) {
                    known.ended = Some((*remote_cseq, *at));
                }
            }
            Entry::Start { .. } | Entry::Direction { .. } => {}
        }
    }

    fn learned(&mut self, streams: &[StreamOpened]) -> Vec<StreamOpened> {
        for stream in streams {
            self.slots.learn(stream.description.slot, stream.generation);
            let next = StreamId(stream.description.stream.0 + 1);
            if self.stream_ids.0 < next {
                self.stream_ids = (next, self.stream_ids.1.max(next));
            }
        }
        streams.to_vec()
    }

    fn take_back(&mut self, rs: RsId, known: Known) {
        let Known { mut session, dialog, leaving, answers, ended, .. } = known;
        let wanted = session.streams.len();
        session.streams.retain_mut(|stream| self.claim(stream));
        for mut stream in leaving {
            if self.claim(&mut stream) {
                let (slot, generation) = (stream.description.slot, stream.generation);
                self.closing.push((rs, slot, generation, stream.description.stream));
            }
        }
        if ended.is_none() && session.streams.len() < wanted {
            return self.give_up_rs(session, &dialog);
        }
        let id = self.sip.restore(snapshot(&dialog));
        if let Some((cseq, _)) = ended {
            // A BYE whose 200 was lost comes again (RFC 3261 §17.2.2).
            self.sip.restore_answer(id, cseq, "BYE", Reply::new(200));
            if cseq > 0 {
                // Nor do its INVITEs begin another RS.
                self.restore_answers(id, &dialog, &answers);
            }
            self.sip.close(id);
            if session.streams.is_empty() {
                return;
            }
            session.phase = Phase::Ending(self.now.mono);
        } else {
            if answers.is_empty() {
                self.restore_answer(id, &dialog, &session.answer_sdp);
            }
            self.restore_answers(id, &dialog, &answers);
            self.resume_answer(id, &dialog, &answers);
            session.dialog = Some(id);
            self.dialogs.insert(id, rs);
        }
        self.sessions.insert(rs, session);
    }

    /// Takes the port pair of a stream back into use. It is known by its address, since the numbers
    /// are another keeper's where the recorder was down. False: it cannot be had.
    fn claim(&mut self, stream: &mut StreamOpened) -> bool {
        let address = SocketAddr::new(self.config.media.address, stream.description.port);
        let Some(slot) = self.slots.at(address) else { return false };
        stream.description.slot = slot;
        self.slots.claim(slot, stream.generation)
    }

    /// An RS that cannot go on: the SRC hears it at once (rule 9), and what was recorded is kept.
    fn give_up_rs(&mut self, session: Session, dialog: &DialogState) {
        let rs = session.rs;
        self.log(Grave::Error, format!("{rs} not resumed: its ports are not ours any more"));
        let id = self.sip.restore(snapshot(dialog));
        let why = "the recorder was restarted and cannot go on";
        let reason = vec![("Reason".to_owned(), format!("SIP;cause=503;text=\"{why}\""))];
        self.sip.request(self.now.mono, id, "BYE", &reason, &[]);
        let (at, by) = (self.now.wall, Origin::Srs);
        let mut entries = Vec::new();
        for stream in &session.streams {
            let (slot, stream) = (stream.description.slot, stream.description.stream);
            self.slots.give_back(slot);
            self.keep_salt(rs, session.salt, stream);
            entries.push(Entry::StreamClosed { rs, stream, slot, at, by });
        }
        let reason = "not resumed: its ports are not ours any more".to_owned();
        entries.push(Entry::Ended { rs, at, by, reason, remote_cseq: 0 });
        self.begin(Purpose::Quiet, rs, None, None, Vec::new(), entries);
    }

    /// What was answered comes again, and gets the same answer (F59).
    fn restore_answers(&mut self, id: DialogId, dialog: &DialogState, answers: &Answers) {
        // Older ones do not come again, and would take the room of those that may.
        let young = |(.., at): &&(Answered, String, Wall)| self.now.wall.0 - at.0 < REPEATS_NS;
        for (answered, sdp, _) in answers.iter().filter(young) {
            let reply = self.answer_again(dialog, answered, sdp);
            self.sip.restore_answer(id, answered.cseq, &answered.method, reply);
        }
    }

    /// The last 200 is repeated until its ACK comes (RFC 3261 §13.3.1.4).
    fn resume_answer(&mut self, id: DialogId, dialog: &DialogState, answers: &Answers) {
        let Some((answered, sdp, at)) = answers.back() else { return };
        let reply = self.answer_again(dialog, answered, sdp);
        let age_ms = ((self.now.wall.0 - at.0) / 1_000_000).max(0) as u64;
        self.sip.resume_answer(self.now.mono, id, age_ms, &reply);
    }

    fn answer_again(&self, dialog: &DialogState, answered: &Answered, sdp: &str) -> Reply {
        let reply = Reply::new(200);
        if answered.method == "INFO" {
            return reply;
        }
        let mut reply = self.capable(reply, dialog.local, transport(dialog));
        if answered.sdp {
            reply = reply.with("Content-Type", "application/sdp");
            sdp.as_bytes().clone_into(&mut reply.body);
        }
        reply
    }

    /// The same for a journal that does not say which request it was. A number is used once in a
    /// dialog, so that the method need not be known.
    fn restore_answer(&mut self, id: DialogId, dialog: &DialogState, sdp: &str) {
        let mut reply = self
            .capable(Reply::new(200), dialog.local, transport(dialog))
            .with("Content-Type", "application/sdp");
        sdp.as_bytes().clone_into(&mut reply.body);
        for method in ["INVITE", "UPDATE"] {
            self.sip.restore_answer(id, dialog.remote_cseq, method, reply.clone());
        }
    }
}

/// When an entry was written, as far as it says.
fn written(entry: &Entry) -> Option<Wall> {
    match entry {
        Entry::Start { at, .. }
        | Entry::Opened { at, .. }
        | Entry::Changed { at, .. }
        | Entry::Direction { at, .. }
        | Entry::Body { at, .. }
        | Entry::StreamClosed { at, .. }
        | Entry::Ended { at, .. } => Some(*at),
        Entry::StreamIds { .. } => None,
    }
}

fn ids(streams: &[StreamOpened]) -> impl Iterator<Item = StreamId> + '_ {
    streams.iter().map(|stream| stream.description.stream)
}

/// Session id and version of an `o=` line (RFC 4566 §5.2).
fn origin(sdp: &str) -> (u64, u64) {
    let line = sdp.lines().find_map(|line| line.strip_prefix("o=")).unwrap_or("");
    let mut fields = line.split(' ').skip(1).map(|field| field.parse().unwrap_or(1));
    (fields.next().unwrap_or(1), fields.next().unwrap_or(1))
}

fn transport(dialog: &DialogState) -> Transport {
    if dialog.transport == "tcp" { Transport::Tcp } else { Transport::Udp }
}

/// The journal's form of a dialog as the endpoint wants it.
pub(super) fn snapshot(state: &DialogState) -> DialogSnapshot {
    DialogSnapshot {
        call_id: state.call_id.clone(),
        local_tag: state.local_tag.clone(),
        remote_tag: state.remote_tag.clone(),
        local_uri: state.local_uri.clone(),
        remote_uri: state.remote_uri.clone(),
        remote_target: state.remote_target.clone(),
        route_set: state.route_set.clone(),
        local_cseq: state.local_cseq,
        remote_cseq: state.remote_cseq,
        transport: transport(state),
        peer: state.peer,
        local: state.local,
        answered: state.answered.clone().map(|answered| sip::Answered {
            method: answered.method,
            cseq: answered.cseq,
            via: answered.via,
            record_route: answered.record_route,
        }),
    }
}

/// The endpoint's form of a dialog as the journal keeps it. `sdp`: whether the answer carries one.
pub(super) fn state(snapshot: DialogSnapshot, sdp: bool) -> DialogState {
    DialogState {
        call_id: snapshot.call_id,
        local_tag: snapshot.local_tag,
        remote_tag: snapshot.remote_tag,
        local_uri: snapshot.local_uri,
        remote_uri: snapshot.remote_uri,
        remote_target: snapshot.remote_target,
        route_set: snapshot.route_set,
        local_cseq: snapshot.local_cseq,
        remote_cseq: snapshot.remote_cseq,
        transport: match snapshot.transport {
            Transport::Tcp => "tcp".to_owned(),
            Transport::Udp => "udp".to_owned(),
        },
        peer: snapshot.peer,
        local: snapshot.local,
        answered: snapshot.answered.map(|answered| Answered {
            method: answered.method,
            cseq: answered.cseq,
            via: answered.via,
            record_route: answered.record_route,
            sdp,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_an_answer_is_found_again() {
        assert_eq!(origin("v=0\r\no=floortape 77 3 IN IP4 127.0.0.1\r\ns=-\r\n"), (77, 3));
        assert_eq!(origin(""), (1, 1));
    }
}
