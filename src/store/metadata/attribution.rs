//! Who is on which line: RFC 7865 streams joined to m-lines by label. Media is recorded whatever
//! metadata says; where the two contradict each other (F57) the difference is told, never guessed
//! away.

use super::quirks::Quirks;
use super::sdp_lines::SdpLine;
use crate::wire::metadata::{Document, Id};

/// One m-line and who is on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineAttribution {
    /// Position in the SDP, 0 first.
    pub index: u16,
    /// Its stream element.
    pub stream: Option<Id>,
    /// The CS of that stream.
    pub session: Option<Id>,
    /// Participants that contribute to it.
    pub send: Vec<Id>,
    /// Participants that receive it.
    pub recv: Vec<Id>,
}

/// The joined view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attribution {
    /// One per line given.
    pub lines: Vec<LineAttribution>,
    /// Where metadata and SDP, or metadata and itself, do not agree.
    pub contradictions: Vec<String>,
}

/// Joins a document to the lines of the SDP in the same message (RFC 7866 §7.1.1). For a partial
/// document give the merged one ([`Model::state`]): references that it leaves open look like faults.
///
/// [`Model::state`]: super::Model::state
pub fn attribute(document: &Document, lines: &[SdpLine]) -> Attribution {
    let mut found = Contradictions::default();
    let mut attributed = Vec::new();
    let mut labels = Vec::new();
    for line in lines {
        let (index, label) = (line.index, line.label.as_deref());
        labels.extend(label);
        let stream = label.and_then(|label| document.stream_of(label));
        if let (Some(label), None, true) = (label, stream, line.live) {
            found.note(format!("m-line {} has label {label}, no stream element does", index + 1));
        }
        let (send, recv) = stream.map(|stream| document.ends_of(&stream.id)).unwrap_or_default();
        attributed.push(LineAttribution {
            index,
            stream: stream.map(|stream| stream.id.clone()),
            session: stream.and_then(|stream| stream.session.clone()),
            send,
            recv,
        });
    }
    found.labels(document, &labels);
    found.references(document);
    found.doubles(document);
    Attribution { lines: attributed, contradictions: found.0.into_vec() }
}

/// Contradictions on their way.
#[derive(Default)]
struct Contradictions(Quirks);

impl Contradictions {
    fn note(&mut self, text: String) {
        self.0.note(&text);
    }

    fn labels(&mut self, document: &Document, labels: &[&str]) {
        for (at, stream) in document.streams.iter().enumerate() {
            let Some(label) = stream.label.as_deref() else { continue };
            if !labels.contains(&label) {
                // Legal for streams that are not delivered (RFC 7865 §6.7.1), still worth a word.
                self.note(format!("stream {} has label {label}, no m-line does", stream.id));
            }
            if document.streams[..at].iter().any(|other| other.label.as_deref() == Some(label)) {
                self.note(format!("two stream elements have label {label}"));
            }
        }
    }

    fn references(&mut self, document: &Document) {
        let has_session = |id: &Id| document.sessions.iter().any(|own| own.id == *id);
        let has_participant = |id: &Id| document.participants.iter().any(|own| own.id == *id);
        let has_stream = |id: &Id| document.streams.iter().any(|own| own.id == *id);
        for stream in &document.streams {
            if let Some(id) = stream.session.as_ref().filter(|id| !has_session(id)) {
                self.note(format!("stream {} names the unknown session {id}", stream.id));
            }
        }
        for session in &document.sessions {
            let known = |id: &&Id| document.groups.iter().any(|own| own.id == **id);
            if let Some(id) = session.group.as_ref().filter(|id| !known(id)) {
                self.note(format!("session {} names the unknown group {id}", session.id));
            }
        }
        for association in &document.participant_session {
            if !has_session(&association.session) {
                let id = &association.session;
                self.note(format!("participantsessionassoc names the unknown session {id}"));
            }
            if !has_participant(&association.participant) {
                let id = &association.participant;
                self.note(format!("participantsessionassoc names the unknown participant {id}"));
            }
        }
        for association in &document.participant_stream {
            if !has_participant(&association.participant) {
                let id = &association.participant;
                self.note(format!("participantstreamassoc names the unknown participant {id}"));
            }
            for id in association.send.iter().chain(&association.recv).filter(|id| !has_stream(id))
            {
                self.note(format!("participantstreamassoc names the unknown stream {id}"));
            }
        }
    }

    /// RFC 7865 §6.10: a UUID that names two elements at a time is an error.
    fn doubles(&mut self, document: &Document) {
        let mut ids: Vec<&Id> = document.groups.iter().map(|own| &own.id).collect();
        ids.extend(document.sessions.iter().map(|own| &own.id));
        ids.extend(document.participants.iter().map(|own| &own.id));
        ids.extend(document.streams.iter().map(|own| &own.id));
        ids.sort();
        for pair in ids.windows(2).filter(|pair| pair[0] == pair[1]) {
            self.note(format!("id {} names two elements (RFC 7865 section 6.10)", pair[0]));
        }
    }
}
