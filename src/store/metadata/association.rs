//! Associations: who is in which CS, who is on which stream, and how the one ends the other.

use std::collections::{BTreeMap, BTreeSet};

use super::merge::Merge;
use super::past::{Contribution, Direction, Membership, Owner, SessionPast, StreamPast};
use super::span::{Spans, Stated};
use super::table::Table;
use crate::wire::metadata::{Id, ParticipantSession, ParticipantStream, SessionRecording};

impl Merge<'_> {
    pub(super) fn session_recording(&mut self, association: &SessionRecording) {
        let id = &association.session;
        self.extensions(Owner::SessionRecording(id.clone()), &association.extensions);
        self.named.recorded.insert(id.clone());
        let row = self.model.sessions.entry(id.clone(), SessionPast::of);
        let from = association.associate_time.as_deref();
        let stop = self.named.stopped.get(id).map(String::as_str);
        let to = association.disassociate_time.as_deref().or(stop);
        row.recorded.state(self.at, from, to, self.complete);
    }

    pub(super) fn participant_session(&mut self, association: &ParticipantSession) {
        let key = (association.participant.clone(), association.session.clone());
        let owner = Owner::ParticipantSession(key.0.clone(), key.1.clone());
        self.extensions(owner, &association.extensions);
        self.named.memberships.insert(key.clone());
        let row = self.model.memberships.entry(key, |(participant, session)| Membership {
            participant: participant.clone(),
            session: session.clone(),
            spans: Spans::default(),
            parameters: Vec::new(),
        });
        if self.complete || !association.parameters.is_empty() {
            row.parameters.clone_from(&association.parameters);
        }
        let (who, cs) = (&association.participant, &association.session);
        let from = association.associate_time.as_deref();
        // The end of the CS is the end of being in it (RFC 8068 §3.2.3).
        let stop = self.named.stopped.get(cs).map(String::as_str);
        if stop.is_some() && row.spans.is_empty() {
            row.spans.hold(self.at, from);
        }
        let to = association.disassociate_time.as_deref().or(stop);
        let stated = row.spans.state(self.at, from, to, self.complete);
        if to.is_some() {
            self.gone.insert(who.clone());
        }
        match stated {
            Stated::Opened => drop(self.back.insert(who.clone())),
            Stated::BeganAgain => self.model.quirks.note(&format!(
                "participant {who} joins communication session {cs} again without having left it: \
                 send disassociate-time first (RFC 7865 section 6.6)"
            )),
            Stated::EndedUnbegun => self.model.quirks.note(&format!(
                "participant {who} leaves communication session {cs}, which no document said it \
                 had joined"
            )),
            Stated::Same | Stated::Closed => {}
        }
    }

    pub(super) fn participant_streams(&mut self, associations: &[ParticipantStream]) {
        for (at, association) in associations.iter().enumerate() {
            let who = &association.participant;
            let owner = Owner::ParticipantStream(who.clone());
            self.extensions(owner, &association.extensions);
            if self.named.stated.insert(who.clone()) {
                let all: Vec<&ParticipantStream> =
                    associations[at..].iter().filter(|other| other.participant == *who).collect();
                self.participant_stream(who, &all);
            }
        }
    }

    /// The whole of what `who` sends and receives, by all elements of one document.
    fn participant_stream(&mut self, who: &Id, all: &[&ParticipantStream]) {
        let at = self.at;
        let over = self.is_over(who);
        // Those with a stop say what was; what is follows, so that it has the last word.
        let mut ended_all = None;
        for part in all {
            let Some(to) = part.disassociate_time.as_deref() else { continue };
            if part.send.is_empty() && part.recv.is_empty() {
                ended_all = Some(to);
            }
            for (stream, direction) in ends(part) {
                let row = self.contribution(who, stream, direction);
                row.stated = false;
                row.spans.state(at, part.associate_time.as_deref(), Some(to), true);
            }
        }
        let mut present = BTreeSet::new();
        for part in all.iter().filter(|part| part.disassociate_time.is_none()) {
            for (stream, direction) in ends(part) {
                present.insert((stream, direction));
                let over = over.for_stream(&self.model.streams, &self.named.stopped, stream);
                let row = self.contribution(who, stream, direction);
                row.stated = true;
                if over {
                    continue;
                }
                let from = part.associate_time.as_deref();
                if !row.spans.hold(at, from)
                    && let Some(open) = row.spans.open_mut()
                    && open.from.stated.is_none()
                {
                    open.from.stated = from.map(str::to_owned);
                }
            }
        }
        for place in self.model.contributions_of(who) {
            let row = self.model.contributions.at_mut(place);
            if !present.contains(&(&row.stream, row.direction)) {
                row.stated = false;
                row.spans.end(at, ended_all);
            }
        }
    }

    /// Whether this document itself says that `who` is out of the call.
    fn is_over(&self, who: &Id) -> Over {
        let memberships = self.memberships_of(who);
        let open = |place: &usize| self.model.memberships.at(*place).spans.is_open();
        match () {
            () if memberships.is_empty() => Over::WithTheStreamsSession,
            () if self.gone.contains(who) && !memberships.iter().any(open) => Over::Yes,
            () => Over::No,
        }
    }

    fn contribution(&mut self, who: &Id, stream: &Id, direction: Direction) -> &mut Contribution {
        let key = (who.clone(), stream.clone(), direction);
        self.model.contributions.entry(key, |(participant, stream, direction)| Contribution {
            participant: participant.clone(),
            stream: stream.clone(),
            direction: *direction,
            spans: Spans::default(),
            stated: false,
        })
    }

    fn memberships_of(&self, who: &Id) -> Vec<usize> {
        let first = (who.clone(), Id::default());
        self.model.memberships.run(first, |(participant, _)| participant == who)
    }

    pub(super) fn end_stopped_sessions(&mut self) {
        for (session, stop) in std::mem::take(&mut self.named.stopped) {
            let stop = Some(stop.as_str());
            if let Some(row) = self.model.sessions.get_mut(&session) {
                row.recorded.end(self.at, stop);
            }
            for row in self.model.memberships.iter_mut().filter(|row| row.session == session) {
                if row.spans.end(self.at, stop) {
                    self.gone.insert(row.participant.clone());
                }
            }
            self.end_the_unattached(&session, stop);
        }
    }

    /// Participants of whom no document says in which CS they are: they go with the CS of the stream.
    fn end_the_unattached(&mut self, session: &Id, stop: Option<&str>) {
        let of_session = |row: &&StreamPast| row.sessions.now() == Some(session);
        let streams: BTreeSet<Id> =
            self.model.streams.iter().filter(of_session).map(|row| row.id.clone()).collect();
        let attached: BTreeSet<Id> =
            self.model.memberships.iter().map(|row| row.participant.clone()).collect();
        for row in self.model.contributions.iter_mut() {
            if streams.contains(&row.stream) && !attached.contains(&row.participant) {
                row.spans.end(self.at, stop);
            }
        }
    }

    pub(super) fn follow_memberships(&mut self) {
        for who in std::mem::take(&mut self.gone) {
            let memberships = self.memberships_of(&who);
            let rows = || memberships.iter().map(|place| self.model.memberships.at(*place));
            if rows().any(|row| row.spans.is_open()) {
                continue;
            }
            // What the SRC said of the newest one that ended.
            let ended = rows().filter_map(|row| row.spans.last()?.to.as_ref());
            let stated = ended.max_by_key(|to| to.arrival).and_then(|to| to.stated.clone());
            for place in self.model.contributions_of(&who) {
                self.model.contributions.at_mut(place).spans.end(self.at, stated.as_deref());
            }
        }
        for who in std::mem::take(&mut self.back) {
            let memberships = self.memberships_of(&who);
            let open = |place: &usize| self.model.memberships.at(*place).spans.is_open();
            if !memberships.iter().any(open) {
                continue;
            }
            for place in self.model.contributions_of(&who) {
                let row = self.model.contributions.at_mut(place);
                if row.stated {
                    row.spans.hold(self.at, None);
                }
            }
        }
    }
}

/// Whether a participant is out of the call by the document that states its streams.
#[derive(Clone, Copy)]
enum Over {
    No,
    Yes,
    /// In no CS as far as anybody said: it goes with the CS of the stream.
    WithTheStreamsSession,
}

impl Over {
    fn for_stream(
        self,
        streams: &Table<Id, StreamPast>,
        stopped: &BTreeMap<Id, String>,
        stream: &Id,
    ) -> bool {
        let session = || streams.get(stream).and_then(|row| row.sessions.now());
        match self {
            Over::No => false,
            Over::Yes => true,
            Over::WithTheStreamsSession => session().is_some_and(|id| stopped.contains_key(id)),
        }
    }
}

fn ends(part: &ParticipantStream) -> impl Iterator<Item = (&Id, Direction)> {
    let send = part.send.iter().map(|id| (id, Direction::Send));
    send.chain(part.recv.iter().map(|id| (id, Direction::Recv)))
}
