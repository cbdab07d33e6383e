//! The present state as one complete document.

use super::model::Model;
use super::past::{Contribution, Direction, Owner};
use crate::wire::metadata::{
    DataMode, Document, Extension, Group, Id, Participant, ParticipantSession, ParticipantStream,
    Session, SessionRecording, Stream,
};

impl Model {
    /// What holds now, as the SRC would say it in one complete document: sessions that have not
    /// stopped, who is in them, who is on which stream. Placeholders are in it, without content.
    pub fn state(&self) -> Document {
        Document {
            datamode: DataMode::Complete,
            groups: self.present_groups(),
            sessions: self.present_sessions(),
            participants: self.present_participants(),
            streams: self.present_streams(),
            session_recording: self.present_session_recording(),
            participant_session: self.present_participant_session(),
            participant_stream: self.present_participant_stream(),
            extensions: self.present_extensions(&Owner::Recording),
            ..Document::default()
        }
    }

    fn present_groups(&self) -> Vec<Group> {
        let open = self.groups.iter().filter_map(|row| Some((row, row.spans.open()?)));
        open.map(|(row, span)| Group {
            id: row.id.clone(),
            associate_time: span.from.stated.clone(),
            disassociate_time: None,
            extensions: self.present_extensions(&Owner::Group(row.id.clone())),
        })
        .collect()
    }

    fn present_sessions(&self) -> Vec<Session> {
        let open = self.sessions.iter().filter_map(|row| Some((row, row.spans.open()?)));
        open.map(|(row, span)| Session {
            id: row.id.clone(),
            sip_session_ids: row.sip_session_ids.now().cloned().unwrap_or_default(),
            reasons: row.reasons.clone(),
            group: row.groups.now().filter(|id| self.has_group(id)).cloned(),
            start_time: span.from.stated.clone(),
            stop_time: None,
            extensions: self.present_extensions(&Owner::Session(row.id.clone())),
        })
        .collect()
    }

    fn present_participants(&self) -> Vec<Participant> {
        let open = self.participants.iter().filter(|row| row.spans.is_open());
        open.map(|row| Participant {
            id: row.id.clone(),
            names: row.names.now().cloned().unwrap_or_default(),
            extensions: self.present_extensions(&Owner::Participant(row.id.clone())),
        })
        .collect()
    }

    fn present_streams(&self) -> Vec<Stream> {
        let open = self.streams.iter().filter_map(|row| Some((row, row.spans.open()?)));
        open.map(|(row, span)| Stream {
            id: row.id.clone(),
            session: row.sessions.now().filter(|id| self.has_session(id)).cloned(),
            label: row.labels.now().cloned(),
            associate_time: span.from.stated.clone(),
            disassociate_time: None,
            extensions: self.present_extensions(&Owner::Stream(row.id.clone())),
        })
        .collect()
    }

    fn present_session_recording(&self) -> Vec<SessionRecording> {
        // One that was named again after its end is not there for that.
        let there = self.sessions.iter().filter(|row| row.spans.is_open());
        let open = there.filter_map(|row| Some((row, row.recorded.open()?)));
        open.map(|(row, span)| SessionRecording {
            session: row.id.clone(),
            associate_time: span.from.stated.clone(),
            disassociate_time: None,
            extensions: self.present_extensions(&Owner::SessionRecording(row.id.clone())),
        })
        .collect()
    }

    fn present_participant_session(&self) -> Vec<ParticipantSession> {
        let open = self.memberships.iter().filter_map(|row| Some((row, row.spans.open()?)));
        open.filter(|(row, _)| self.has_session(&row.session))
            .map(|(row, span)| {
                let owner = Owner::ParticipantSession(row.participant.clone(), row.session.clone());
                ParticipantSession {
                    participant: row.participant.clone(),
                    session: row.session.clone(),
                    associate_time: span.from.stated.clone(),
                    disassociate_time: None,
                    parameters: row.parameters.clone(),
                    extensions: self.present_extensions(&owner),
                }
            })
            .collect()
    }

    /// One element for each participant and time: the times of an element are those of all its
    /// streams (RFC 7865 §6.8.1).
    fn present_participant_stream(&self) -> Vec<ParticipantStream> {
        let mut elements: Vec<ParticipantStream> = Vec::new();
        for row in self.contributions.iter() {
            let there = self.streams.get(&row.stream).is_some_and(|row| row.spans.is_open());
            let Some(span) = row.spans.open().filter(|_| there) else { continue };
            let fits = |element: &&mut ParticipantStream| {
                element.participant == row.participant && element.associate_time == span.from.stated
            };
            match elements.iter_mut().find(fits) {
                Some(element) => add(element, row),
                None => {
                    let first = !elements.iter().any(|one| one.participant == row.participant);
                    let owner = Owner::ParticipantStream(row.participant.clone());
                    let mut element = ParticipantStream {
                        participant: row.participant.clone(),
                        associate_time: span.from.stated.clone(),
                        extensions: if first {
                            self.present_extensions(&owner)
                        } else {
                            Vec::new()
                        },
                        ..ParticipantStream::default()
                    };
                    add(&mut element, row);
                    elements.push(element);
                }
            }
        }
        elements
    }

    fn has_group(&self, id: &Id) -> bool {
        self.groups.get(id).is_some_and(|row| row.spans.is_open())
    }

    fn has_session(&self, id: &Id) -> bool {
        self.sessions.get(id).is_some_and(|row| row.spans.is_open())
    }

    fn present_extensions(&self, owner: &Owner) -> Vec<Extension> {
        let rows = self
            .extensions
            .run((owner.clone(), String::new(), String::new()), |(own, ..)| own == owner);
        let mut places = rows;
        places.sort_unstable();
        let rows = places.into_iter().map(|place| self.extensions.at(place));
        rows.flat_map(|row| {
            let xml = row.versions.now().map(Vec::as_slice).unwrap_or_default();
            xml.iter().map(|xml| Extension {
                namespace: row.namespace.clone(),
                name: row.name.clone(),
                xml: xml.clone(),
            })
        })
        .collect()
    }
}

fn add(element: &mut ParticipantStream, row: &Contribution) {
    let list: &mut Vec<Id> = match row.direction {
        Direction::Send => &mut element.send,
        Direction::Recv => &mut element.recv,
    };
    list.push(row.stream.clone());
}
