//! REQ-020: told in steps or at once, the state is the same.

use super::tests::sound;
use super::*;
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::wire::metadata::{
    DataMode, Document, Extension, Group, Id, Name, Participant, ParticipantSession,
    ParticipantStream, Session, SessionRecording, Stream,
};

/// A call as its SRC knows it, for [`told_in_steps_or_at_once_the_state_is_the_same`].
#[derive(Clone, Default)]
struct Truth {
    groups: Vec<u8>,
    /// Id, group, SIP session ids.
    sessions: Vec<(u8, Option<u8>, Vec<u8>)>,
    /// Id, revision of the name.
    participants: Vec<(u8, u8)>,
    /// Id, label, session.
    streams: Vec<(u8, u8, Option<u8>)>,
    members: Vec<(u8, u8, u32)>,
    /// Participant, stream, sends.
    ends: Vec<(u8, u8, bool)>,
    extension: u8,
}

fn id(kind: char, n: u8) -> Id {
    Id::new(&format!("{kind}{n}"))
}

impl Truth {
    fn group(&self, n: u8) -> Group {
        Group { id: id('g', n), associate_time: Some(format!("g{n}")), ..Group::default() }
    }

    fn session(&self, (n, group, sip): &(u8, Option<u8>, Vec<u8>)) -> Session {
        Session {
            id: id('c', *n),
            start_time: Some(format!("c{n}")),
            group: group.map(|n| id('g', n)),
            sip_session_ids: sip.iter().map(u8::to_string).collect(),
            ..Session::default()
        }
    }

    fn participant(&self, (n, revision): &(u8, u8)) -> Participant {
        let name = |n| Name { aor: format!("sip:{n}.{revision}@x"), name: None, language: None };
        Participant { id: id('p', *n), names: vec![name(*n)], ..Participant::default() }
    }

    fn stream(&self, (n, label, session): &(u8, u8, Option<u8>)) -> Stream {
        Stream {
            id: id('s', *n),
            label: Some(label.to_string()),
            session: session.map(|n| id('c', n)),
            ..Stream::default()
        }
    }

    fn member(&self, (participant, session, time): &(u8, u8, u32)) -> ParticipantSession {
        ParticipantSession {
            participant: id('p', *participant),
            session: id('c', *session),
            associate_time: Some(time.to_string()),
            ..ParticipantSession::default()
        }
    }

    fn ends_of(&self, participant: u8) -> ParticipantStream {
        let own = |sends: bool| {
            let mine = self.ends.iter().filter(move |end| end.0 == participant && end.2 == sends);
            mine.map(|end| id('s', end.1)).collect()
        };
        ParticipantStream {
            participant: id('p', participant),
            send: own(true),
            recv: own(false),
            ..ParticipantStream::default()
        }
    }

    fn extensions(&self) -> Vec<Extension> {
        let xml = format!("<a xmlns=\"urn:x\">{}</a>", self.extension);
        vec![Extension { namespace: "urn:x".to_owned(), name: "a".to_owned(), xml }]
    }

    /// Whether `participant` is in any CS.
    fn is_member(&self, participant: u8) -> bool {
        self.members.iter().any(|member| member.0 == participant)
    }

    fn complete(&self) -> Document {
        let recorded = |(n, ..): &(u8, Option<u8>, Vec<u8>)| SessionRecording {
            session: id('c', *n),
            associate_time: Some(format!("c{n}")),
            ..SessionRecording::default()
        };
        let on: Vec<u8> = self.participants.iter().map(|(n, _)| *n).collect();
        Document {
            groups: self.groups.iter().map(|n| self.group(*n)).collect(),
            sessions: self.sessions.iter().map(|one| self.session(one)).collect(),
            participants: self.participants.iter().map(|one| self.participant(one)).collect(),
            streams: self.streams.iter().map(|one| self.stream(one)).collect(),
            session_recording: self.sessions.iter().map(recorded).collect(),
            participant_session: self.members.iter().map(|one| self.member(one)).collect(),
            participant_stream: on
                .iter()
                .filter(|n| self.is_member(**n))
                .map(|n| self.ends_of(*n))
                .collect(),
            extensions: self.extensions(),
            ..Document::default()
        }
    }

    /// One thing happens; what the SRC says of it in a partial document.
    fn happen(&mut self, prng: &mut Prng, time: u32) -> Document {
        let mut said = Document { datamode: DataMode::Partial, ..Document::default() };
        let pick = |prng: &mut Prng, length: usize| prng.below(length.max(1) as u64) as usize;
        let n = prng.below(6) as u8;
        match prng.below(9) {
            0 if !self.groups.contains(&n) => {
                self.groups.push(n);
                said.groups.push(self.group(n));
            }
            1 if !self.sessions.iter().any(|one| one.0 == n) => {
                let group = self.groups.first().copied();
                // An id is never used again: the same start-time would be the same session.
                if self.sessions.len() < 4 {
                    self.sessions.push((n, group, vec![n]));
                    let one = self.sessions.last().expect("pushed");
                    said.sessions.push(self.session(one));
                    said.session_recording.push(SessionRecording {
                        session: id('c', n),
                        associate_time: Some(format!("c{n}")),
                        ..SessionRecording::default()
                    });
                }
            }
            2 if !self.sessions.is_empty() => {
                let at = pick(prng, self.sessions.len());
                self.sessions[at].2.push(n);
                self.sessions[at].1 = self.groups.last().copied().or(self.sessions[at].1);
                said.sessions.push(self.session(&self.sessions[at]));
            }
            3 => {
                match self.participants.iter_mut().find(|one| one.0 == n) {
                    Some(known) => known.1 = known.1.wrapping_add(1),
                    None => self.participants.push((n, 0)),
                }
                let one = self.participants.iter().find(|one| one.0 == n).expect("there");
                said.participants.push(self.participant(one));
            }
            4 => {
                let session = self.sessions.last().map(|one| one.0);
                match self.streams.iter_mut().find(|one| one.0 == n) {
                    // Moved to another session, or taken anew.
                    Some(known) => known.2 = session.or(known.2),
                    None => self.streams.push((n, n, session)),
                }
                let one = self.streams.iter().find(|one| one.0 == n).expect("there");
                said.streams.push(self.stream(one));
            }
            5 if !self.participants.is_empty() && !self.sessions.is_empty() => {
                let who = self.participants[pick(prng, self.participants.len())].0;
                let cs = self.sessions[pick(prng, self.sessions.len())].0;
                if !self.members.iter().any(|one| (one.0, one.1) == (who, cs)) {
                    self.members.push((who, cs, time));
                    said.participant_session.push(self.member(&(who, cs, time)));
                }
            }
            6 if !self.members.is_empty() => {
                let (who, cs, _) = self.members.remove(pick(prng, self.members.len()));
                said.participant_session.push(ParticipantSession {
                    participant: id('p', who),
                    session: id('c', cs),
                    disassociate_time: Some(time.to_string()),
                    ..ParticipantSession::default()
                });
            }
            7 if !self.members.is_empty() && !self.streams.is_empty() => {
                let who = self.members[pick(prng, self.members.len())].0;
                let end = (who, self.streams[pick(prng, self.streams.len())].0, prng.below(2) == 0);
                match self.ends.iter().position(|own| *own == end) {
                    Some(at) => drop(self.ends.remove(at)),
                    None => self.ends.push(end),
                }
                said.participant_stream.push(self.ends_of(who));
            }
            _ => {
                self.extension = n;
                said.extensions = self.extensions();
            }
        }
        said
    }
}

/// The same whatever the order of elements.
fn sorted(mut document: Document) -> Document {
    document.groups.sort_by(|a, b| a.id.cmp(&b.id));
    document.sessions.sort_by(|a, b| a.id.cmp(&b.id));
    document.participants.sort_by(|a, b| a.id.cmp(&b.id));
    document.streams.sort_by(|a, b| a.id.cmp(&b.id));
    document.session_recording.sort_by(|a, b| a.session.cmp(&b.session));
    let key = |one: &ParticipantSession| (one.participant.clone(), one.session.clone());
    document.participant_session.sort_by_key(key);
    document.participant_stream.sort_by(|a, b| a.participant.cmp(&b.participant));
    for one in &mut document.participant_stream {
        one.send.sort();
        one.recv.sort();
    }
    document
}

#[test]
fn told_in_steps_or_at_once_the_state_is_the_same() {
    // REQ-020: complete, then partials, against one complete document of the same content.
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let mut truth = Truth::default();
        let mut stepwise = Model::default();
        let mut always = Model::default();
        for step in 0..40u32 {
            let said = truth.happen(&mut prng, step);
            let said = if step == 0 { truth.complete() } else { said };
            let arrival = Arrival { at: Wall(i64::from(step)), method: "UPDATE", cseq: step };
            stepwise.take(&arrival, said);
            always.take(&arrival, truth.complete());
            let mut once = Model::default();
            once.take(&arrival, truth.complete());
            let state = sorted(stepwise.state());
            assert_eq!(state, sorted(once.state()), "seed {seed}, step {step}");
            assert_eq!(state, sorted(always.state()), "seed {seed}, step {step}");
            sound(&stepwise);
        }
        assert_eq!(stepwise.snapshot_wanted(), None, "seed {seed}: {:?}", stepwise.quirks());
        // And the history of each label is the same whichever way it was told.
        for label in 0..6 {
            let shown = |model: &Model| {
                let parts = model.on_label(&label.to_string()).into_iter();
                let mut parts: Vec<_> = parts
                    .map(|part| {
                        let to = part.to.map(|to| to.arrival);
                        (part.participant, part.direction, part.from.arrival, to)
                    })
                    .collect();
                parts.sort();
                parts
            };
            assert_eq!(shown(&stepwise), shown(&always), "seed {seed}, label {label}");
        }
    }
}
