//! References: what names something that no element describes makes a placeholder, so that nothing is
//! dropped, and wants a snapshot (RFC 7866 §9.2).

use super::merge::Merge;
use super::past::{GroupPast, ParticipantPast, SessionPast, StreamPast};
use crate::wire::metadata::{Document, Id};

impl Merge<'_> {
    pub(super) fn references(&mut self, document: &Document) {
        for stream in &document.streams {
            if let Some(id) = &stream.session {
                self.refers_to_session(id, true, || {
                    format!("stream {} names the unknown session {id}", stream.id)
                });
            }
        }
        for session in &document.sessions {
            if let Some(id) = &session.group {
                self.refers_to_group(id, &session.id);
            }
        }
        for one in &document.session_recording {
            let id = &one.session;
            let text = || format!("sessionrecordingassoc names the unknown session {id}");
            self.refers_to_session(id, one.disassociate_time.is_none(), text);
        }
        for one in &document.participant_session {
            let id = &one.session;
            let text = || format!("participantsessionassoc names the unknown session {id}");
            self.refers_to_session(id, one.disassociate_time.is_none(), text);
            let holds = one.disassociate_time.is_none();
            self.refers_to_participant(&one.participant, holds, "participantsessionassoc");
        }
        for one in &document.participant_stream {
            self.refers_to_participant(&one.participant, true, "participantstreamassoc");
            one.send.iter().chain(&one.recv).for_each(|id| self.refers_to_stream(id));
        }
    }

    /// `holds`: the reference says that the CS is there, not that it was.
    fn refers_to_session(&mut self, id: &Id, holds: bool, text: impl Fn() -> String) {
        let known = self.model.sessions.get(id).is_some_and(|row| row.defined);
        if !known || (self.complete && !self.named.sessions.contains(id)) {
            self.unknown(&text());
        }
        let row = self.model.sessions.entry(id.clone(), SessionPast::of);
        if holds && (row.spans.is_empty() || self.complete) {
            row.spans.hold(self.at, None);
        }
        if holds {
            self.named.sessions.insert(id.clone());
        }
    }

    fn refers_to_group(&mut self, id: &Id, session: &Id) {
        let row = self.model.groups.entry(id.clone(), GroupPast::of);
        if row.spans.is_empty() || (self.complete && !self.named.groups.contains(id)) {
            row.spans.hold(self.at, None);
            self.unknown(&format!("session {session} names the unknown group {id}"));
        }
        self.named.groups.insert(id.clone());
    }

    fn refers_to_participant(&mut self, id: &Id, holds: bool, by: &str) {
        let row = self.model.participants.entry(id.clone(), ParticipantPast::of);
        if !holds && row.defined {
            return;
        }
        if row.spans.hold(self.at, None) || (self.complete && !self.named.participants.contains(id))
        {
            self.unknown(&format!("{by} names the unknown participant {id}"));
        }
        self.named.participants.insert(id.clone());
    }

    fn refers_to_stream(&mut self, id: &Id) {
        if self.named.streams.contains(id) {
            return;
        }
        let row = self.model.streams.entry(id.clone(), StreamPast::of);
        if row.spans.hold(self.at, None) || self.complete {
            self.unknown(&format!("participantstreamassoc names the unknown stream {id}"));
        }
        self.named.streams.insert(id.clone());
    }

    fn unknown(&mut self, text: &str) {
        self.model.quirks.note(text);
        self.model.want_snapshot("a document refers to elements that none has described");
    }
}
