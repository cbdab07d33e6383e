//! The complete RFC 7865 document of a [`Call`].

use super::call::{Call, Party, Uid};
use crate::wire::metadata::{
    DataMode, Document, Group, Id, Name, Participant, ParticipantSession, ParticipantStream,
    Session, SessionRecording, Stream, emit,
};

/// The document. `at`: RFC 3339 time at which the call, its parties and streams came to be.
pub fn complete(call: &Call, at: &str) -> Vec<u8> {
    let session = id(&call.session);
    let at = || Some(at.to_owned());
    emit(&Document {
        datamode: DataMode::Complete,
        groups: vec![Group { id: id(&call.group), associate_time: at(), ..Group::default() }],
        sessions: vec![Session {
            id: session.clone(),
            sip_session_ids: vec![call.sip_session_id()],
            group: Some(id(&call.group)),
            start_time: at(),
            ..Session::default()
        }],
        participants: call.parties.iter().map(participant).collect(),
        streams: call
            .streams
            .iter()
            .map(|stream| Stream {
                id: id(&stream.id),
                session: Some(session.clone()),
                label: Some(stream.label.clone()),
                ..Stream::default()
            })
            .collect(),
        session_recording: vec![SessionRecording {
            session: session.clone(),
            associate_time: at(),
            ..SessionRecording::default()
        }],
        participant_session: call
            .parties
            .iter()
            .map(|party| ParticipantSession {
                participant: id(&party.id),
                session: session.clone(),
                associate_time: at(),
                ..ParticipantSession::default()
            })
            .collect(),
        participant_stream: (0..call.parties.len())
            .map(|place| ParticipantStream {
                participant: id(&call.parties[place].id),
                send: call.ends(|stream| call.sends(place, stream)),
                recv: call.ends(|stream| call.hears(place, stream)),
                associate_time: at(),
                ..ParticipantStream::default()
            })
            .collect(),
        ..Document::default()
    })
}

fn id(uid: &Uid) -> Id {
    Id::new(&uid.base64())
}

fn participant(party: &Party) -> Participant {
    let name = Name {
        aor: party.aor.clone(),
        name: Some(party.name.clone()),
        language: Some("en".to_owned()),
    };
    Participant { id: id(&party.id), names: vec![name], ..Participant::default() }
}

impl Call {
    fn ends(&self, holds: impl Fn(usize) -> bool) -> Vec<Id> {
        let held = self.streams.iter().enumerate().filter(|(place, _)| holds(*place));
        held.map(|(_, stream)| id(&stream.id)).collect()
    }

    /// The SIP session id of the Communication Session (RFC 7989): both ends' halves.
    pub fn sip_session_id(&self) -> String {
        let half = |place: usize| {
            self.parties.get(place).map_or("0".repeat(32), |party| Uid::hex(&party.sip_session))
        };
        format!("{};remote={}", half(0), half(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ports::Entropy;
    use crate::client::g711::Law;

    struct Counter(std::cell::Cell<u8>);

    impl Entropy for Counter {
        fn fill(&self, out: &mut [u8]) {
            self.0.set(self.0.get() + 1);
            out.fill(self.0.get());
        }
    }

    #[test]
    fn each_party_sends_one_stream_and_hears_the_other_in_schema_order() {
        let entropy = Counter(std::cell::Cell::new(0));
        let mut call = Call::new(0, 2, &entropy);
        call.parties[0].name = "Anna & <Ben>".to_owned();
        call.add_stream(4_000, Law::Mu, None, &entropy);
        call.add_stream(4_002, Law::Mu, None, &entropy);
        let xml = String::from_utf8(complete(&call, "2026-01-05T09:30:00Z")).expect("UTF-8");
        assert!(xml.contains(">Anna &amp; &lt;Ben&gt;</name>"));
        let order = [
            "<datamode>",
            "<group ",
            "<session ",
            "<participant ",
            "<stream ",
            "<sessionrecordingassoc ",
            "<participantsessionassoc ",
            "<participantstreamassoc ",
        ];
        let places: Vec<_> = order.iter().map(|name| xml.find(name).expect("there")).collect();
        assert!(places.is_sorted());
        let ends = xml.split("<participantstreamassoc ").nth(1).expect("first party");
        let (one, two) = (call.streams[0].id.base64(), call.streams[1].id.base64());
        let ends: String = ends.split_whitespace().collect();
        assert!(ends.contains(&format!("<send>{one}</send><recv>{two}</recv>")));
    }
}
