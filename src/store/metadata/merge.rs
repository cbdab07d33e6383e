//! The rules of merging. RFC 7865 gives examples only (§8); this is the reading that fits all of them
//! and those of RFC 8068 §3.
//!
//! - Complete: what is named is so, what is not named is no more, from the document's arrival on
//!   where it gives no time.
//! - Partial: what is named changes. Scalars and lists that are present replace, absent ones stay.
//! - A `participantstreamassoc` states the whole set of its participant (§6.8.1); several for one
//!   participant are one statement.
//! - A session's stop-time ends its memberships too (RFC 8068 §3.2.3). Who is in no CS any more
//!   contributes to no stream; who comes back contributes to the same ones.
//! - A reference to nothing makes a placeholder and wants a snapshot; nothing is dropped.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Model;
use super::past::{ExtensionPast, GroupPast, Owner, ParticipantPast, SessionPast, StreamPast};
use super::span::{Spans, Stated, Succession};
use crate::base::time::Wall;
use crate::wire::metadata::{Document, Extension, Group, Id, Participant, Session, Stream};

/// One document on its way in.
pub(super) struct Merge<'m> {
    pub(super) model: &'m mut Model,
    pub(super) at: Wall,
    pub(super) complete: bool,
    pub(super) named: Named,
    /// Left a CS by this document's word.
    pub(super) gone: BTreeSet<Id>,
    /// Joined a CS by this document.
    pub(super) back: BTreeSet<Id>,
}

/// What this document names: a complete one ends all else.
#[derive(Default)]
pub(super) struct Named {
    pub(super) groups: BTreeSet<Id>,
    pub(super) sessions: BTreeSet<Id>,
    pub(super) participants: BTreeSet<Id>,
    pub(super) streams: BTreeSet<Id>,
    pub(super) recorded: BTreeSet<Id>,
    pub(super) memberships: BTreeSet<(Id, Id)>,
    pub(super) stated: BTreeSet<Id>,
    /// Sessions with a stop-time, and that.
    pub(super) stopped: BTreeMap<Id, String>,
    /// Extensions by place and name: elements of one name at one place are one statement.
    pub(super) extensions: BTreeMap<(Owner, String, String), Vec<String>>,
    /// Their keys in order.
    extension_keys: Vec<(Owner, String, String)>,
}

impl<'m> Merge<'m> {
    pub(super) fn new(model: &'m mut Model, at: Wall, complete: bool) -> Self {
        let named = Named::default();
        Merge { model, at, complete, named, gone: BTreeSet::new(), back: BTreeSet::new() }
    }

    pub(super) fn apply(mut self, document: &Document) {
        self.extensions(Owner::Recording, &document.extensions);
        document.groups.iter().for_each(|group| self.group(group));
        document.sessions.iter().for_each(|session| self.session(session));
        document.participants.iter().for_each(|participant| self.participant(participant));
        document.streams.iter().for_each(|stream| self.stream(stream));
        self.take_labels_over(document);
        document.session_recording.iter().for_each(|one| self.session_recording(one));
        document.participant_session.iter().for_each(|one| self.participant_session(one));
        self.participant_streams(&document.participant_stream);
        self.references(document);
        self.replace_extensions();
        if self.complete {
            self.end_what_is_missing();
        }
        self.end_stopped_sessions();
        self.follow_memberships();
    }

    fn group(&mut self, group: &Group) {
        self.extensions(Owner::Group(group.id.clone()), &group.extensions);
        self.named.groups.insert(group.id.clone());
        let row = self.model.groups.entry(group.id.clone(), GroupPast::of);
        row.defined = true;
        let (from, to) = (group.associate_time.as_deref(), group.disassociate_time.as_deref());
        existence(&mut row.spans, self.at, from, to, self.complete);
    }

    fn session(&mut self, session: &Session) {
        self.extensions(Owner::Session(session.id.clone()), &session.extensions);
        let first = self.named.sessions.insert(session.id.clone());
        let row = self.model.sessions.entry(session.id.clone(), SessionPast::of);
        row.defined = true;
        let (from, to) = (session.start_time.as_deref(), session.stop_time.as_deref());
        let odd = existence(&mut row.spans, self.at, from, to, self.complete);
        let replaces = self.complete && first;
        if replaces || !session.sip_session_ids.is_empty() {
            let ids = Some(session.sip_session_ids.clone()).filter(|ids| !ids.is_empty());
            row.sip_session_ids.set(self.at, ids);
        }
        if replaces || !session.reasons.is_empty() {
            row.reasons.clone_from(&session.reasons);
        }
        if replaces || session.group.is_some() {
            row.groups.set(self.at, session.group.clone());
        }
        if let Some(stop) = &session.stop_time {
            self.named.stopped.insert(session.id.clone(), stop.clone());
        }
        if let Some(odd) = odd {
            let odd = match odd {
                Existence::RunsAgain => "runs again after its stop-time: use a new id for each",
                Existence::StartMoved => {
                    "has another start-time than before: use a new id for each"
                }
            };
            self.model
                .quirks
                .note(&format!("communication session {} {odd} communication session", session.id));
        }
    }

    fn participant(&mut self, participant: &Participant) {
        self.extensions(Owner::Participant(participant.id.clone()), &participant.extensions);
        let first = self.named.participants.insert(participant.id.clone());
        let row = self.model.participants.entry(participant.id.clone(), ParticipantPast::of);
        row.defined = true;
        row.spans.hold(self.at, None);
        if participant.names.is_empty() {
            // The schema wants one; a partial document does well without (RFC 7865 §8.2).
            return;
        }
        let mut names = participant.names.clone();
        if !first {
            // Two elements of one id: both are kept to be found, and a quirk tells.
            let known = row.names.now().cloned().unwrap_or_default();
            names = known.iter().cloned().chain(names).collect();
        }
        row.names.set(self.at, Some(names));
    }

    fn stream(&mut self, stream: &Stream) {
        self.extensions(Owner::Stream(stream.id.clone()), &stream.extensions);
        let first = self.named.streams.insert(stream.id.clone());
        let row = self.model.streams.entry(stream.id.clone(), StreamPast::of);
        row.defined = true;
        let (from, to) = (stream.associate_time.as_deref(), stream.disassociate_time.as_deref());
        row.spans.state(self.at, from, to, true);
        if to.is_some() {
            // Draft A: over, whether or not it was known before.
            if row.labels.is_empty() {
                row.labels.set(self.at, stream.label.clone());
                row.sessions.set(self.at, stream.session.clone());
            }
            row.end(self.at);
            return;
        }
        if !first && stream.label.is_some() && row.labels.now() != stream.label.as_ref() {
            self.model.quirks.note(&format!(
                "stream {} has two labels: one stream element for each m-line (RFC 7865 section \
                 6.7), the first counts",
                stream.id
            ));
            return;
        }
        let replaces = self.complete && first;
        if replaces || stream.label.is_some() {
            row.labels.set(self.at, stream.label.clone());
        }
        if replaces || stream.session.is_some() {
            row.sessions.set(self.at, stream.session.clone());
        }
    }

    /// A partial document cannot take a stream away. One m-line is one stream (RFC 7865 §6.7.1), so
    /// a stream that comes with the label of another that is not named has taken its place.
    fn take_labels_over(&mut self, document: &Document) {
        let taken: BTreeSet<&String> =
            document.streams.iter().filter_map(|stream| stream.label.as_ref()).collect();
        for row in self.model.streams.iter_mut() {
            if row.labels.now().is_some_and(|label| taken.contains(label))
                && !self.named.streams.contains(&row.id)
            {
                row.labels.set(self.at, None);
            }
        }
    }

    fn end_what_is_missing(&mut self) {
        let (at, named) = (self.at, &self.named);
        // Most rows of a long RS are over: that is asked first, it costs least.
        for row in self.model.groups.iter_mut().filter(|row| row.spans.is_open()) {
            if !named.groups.contains(&row.id) {
                row.spans.end(at, None);
            }
        }
        for row in self.model.sessions.iter_mut() {
            if row.spans.is_open() && !named.sessions.contains(&row.id) {
                row.spans.end(at, None);
            }
            if row.recorded.is_open() && !named.recorded.contains(&row.id) {
                row.recorded.end(at, None);
            }
        }
        for row in self.model.participants.iter_mut().filter(|row| row.spans.is_open()) {
            if !named.participants.contains(&row.id) {
                row.spans.end(at, None);
            }
        }
        for row in self.model.streams.iter_mut().filter(|row| row.spans.is_open()) {
            if !named.streams.contains(&row.id) {
                row.end(at);
            }
        }
        for row in self.model.memberships.iter_mut().filter(|row| row.spans.is_open()) {
            if !named.memberships.contains(&(row.participant.clone(), row.session.clone())) {
                row.spans.end(at, None);
            }
        }
        for row in self.model.contributions.iter_mut() {
            let holds = row.stated || row.spans.is_open();
            if holds && !named.stated.contains(&row.participant) {
                row.stated = false;
                row.spans.end(at, None);
            }
        }
        for row in self.model.extensions.iter_mut().filter(|row| row.versions.now().is_some()) {
            let key = (row.owner.clone(), row.namespace.clone(), row.name.clone());
            if !named.extensions.contains_key(&key) {
                row.versions.set(at, None);
            }
        }
    }

    /// Gathers them: several elements of a document may be at one place.
    pub(super) fn extensions(&mut self, owner: Owner, extensions: &[Extension]) {
        for extension in extensions {
            let key = (owner.clone(), extension.namespace.clone(), extension.name.clone());
            let elements = self.named.extensions.entry(key.clone()).or_default();
            if elements.is_empty() {
                self.named.extension_keys.push(key);
            }
            elements.push(extension.xml.clone());
        }
    }

    fn replace_extensions(&mut self) {
        for key in std::mem::take(&mut self.named.extension_keys) {
            let xml = self.named.extensions[&key].clone();
            let row = self.model.extensions.entry(key, |(owner, namespace, name)| ExtensionPast {
                owner: owner.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
                versions: Succession::default(),
            });
            row.versions.set(self.at, Some(xml));
        }
    }
}

/// What is odd about a session that goes on being there.
enum Existence {
    RunsAgain,
    StartMoved,
}

/// Groups and sessions: one existence, whose times are scalars that replace.
fn existence(
    spans: &mut Spans,
    at: Wall,
    from: Option<&str>,
    to: Option<&str>,
    complete: bool,
) -> Option<Existence> {
    let mut odd = None;
    if let (Some(open), Some(from)) = (spans.open_mut(), from) {
        let before = open.from.stated.replace(from.to_owned());
        if before.is_some_and(|before| before != from) {
            odd = Some(Existence::StartMoved);
        }
    }
    if let (None, Some(last), Some(from)) = (to, spans.last(), from)
        && last.from.stated.as_deref() == Some(from)
        && last.to.is_some()
        && !complete
    {
        // Scalars that are absent stay: it has stopped.
        return odd;
    }
    let stopped =
        spans.last().is_some_and(|last| last.to.as_ref().is_some_and(|to| to.stated.is_some()));
    let stated = spans.state(at, from, to, complete);
    if stated == Stated::Opened && stopped {
        odd = Some(Existence::RunsAgain);
    }
    odd
}
