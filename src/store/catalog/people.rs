//! Sessions, participants and attribution of a recording, by its metadata bodies.
//!
//! The bodies are taken in the order in which they came. Whoever was ever named stays named: a
//! recording is about all of its time, and many SRCs send a last document that holds only who
//! leaves. Within one element the latest word counts.

use std::collections::BTreeMap;

use super::fold::{Body, RsEntry};
use super::model::{Ends, Name, Participant, Session};
use crate::wire::metadata::{self, Document, Id, Root};

/// Who spoke, as far as the metadata says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct People {
    pub(super) sessions: Vec<Session>,
    pub(super) participants: Vec<Participant>,
    /// By label.
    pub(super) ends: BTreeMap<String, Ends>,
}

/// Reads the bodies of `rs`. What cannot be read is left out here; its bytes are exported as they
/// came.
pub(super) fn people(rs: &RsEntry) -> People {
    let mut known = Known::default();
    for body in rs.bodies.values().filter(|body| body.is_metadata()) {
        if let Ok(Root::Recording(document)) = metadata::parse(&body.bytes, charset(body)) {
            known.take(*document);
        }
    }
    known.people()
}

/// The charset parameter of a content type: it beats the XML declaration (RFC 7865 §5.1).
fn charset(body: &Body) -> Option<&str> {
    body.content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    })
}

/// Everything named so far; `order` numbers by first appearance.
#[derive(Default)]
struct Known {
    sessions: BTreeMap<Id, (usize, Session)>,
    participants: BTreeMap<Id, (usize, Participant)>,
    labels: BTreeMap<Id, String>,
    ends: BTreeMap<Id, Ends>,
}

impl Known {
    fn take(&mut self, document: Document) {
        for session in document.sessions {
            let order = self.sessions.len();
            let (_, known) = self.sessions.entry(session.id.clone()).or_insert_with(|| {
                let session_id = session.id.as_str().to_owned();
                let empty = Session {
                    session_id,
                    start: None,
                    stop: None,
                    group: None,
                    sip_session_ids: Vec::new(),
                };
                (order, empty)
            });
            known.start = session.start_time.or(known.start.take());
            known.stop = session.stop_time.or(known.stop.take());
            let group = session.group.map(|group| group.as_str().to_owned());
            known.group = group.or(known.group.take());
            if !session.sip_session_ids.is_empty() {
                // RFC 7865 §6.3: examples break the value over two lines; white space is no part.
                let stripped = session.sip_session_ids.iter();
                known.sip_session_ids = stripped
                    .map(|id| id.chars().filter(|c| !c.is_whitespace()).collect())
                    .collect();
            }
        }
        for participant in document.participants {
            let order = self.participants.len();
            let (_, known) = self.participants.entry(participant.id.clone()).or_insert_with(|| {
                let participant_id = participant.id.as_str().to_owned();
                (order, Participant { participant_id, names: Vec::new() })
            });
            if !participant.names.is_empty() {
                let name = |name: metadata::Name| Name { aor: name.aor, name: name.name };
                known.names = participant.names.into_iter().map(name).collect();
            }
        }
        for stream in document.streams {
            if let Some(label) = stream.label {
                self.labels.insert(stream.id, label);
            }
        }
        for association in document.participant_stream {
            let participant = association.participant.as_str();
            for stream in association.send {
                add(&mut self.ends.entry(stream).or_default().send, participant);
            }
            for stream in association.recv {
                add(&mut self.ends.entry(stream).or_default().recv, participant);
            }
        }
    }

    fn people(self) -> People {
        let mut sessions: Vec<_> = self.sessions.into_values().collect();
        sessions.sort_by_key(|(order, _)| *order);
        let mut participants: Vec<_> = self.participants.into_values().collect();
        participants.sort_by_key(|(order, _)| *order);
        let mut ends: BTreeMap<String, Ends> = BTreeMap::new();
        for (stream, label) in self.labels {
            if let Some(one) = self.ends.get(&stream) {
                let all = ends.entry(label).or_default();
                one.send.iter().for_each(|id| add(&mut all.send, id));
                one.recv.iter().for_each(|id| add(&mut all.recv, id));
            }
        }
        People {
            sessions: sessions.into_iter().map(|(_, session)| session).collect(),
            participants: participants.into_iter().map(|(_, participant)| participant).collect(),
            ends,
        }
    }
}

fn add(ids: &mut Vec<String>, id: &str) {
    if !ids.iter().any(|known| known == id) {
        ids.push(id.to_owned());
    }
}
