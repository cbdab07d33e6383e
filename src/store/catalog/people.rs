//! Sessions, participants and attribution of a recording, by its metadata bodies and the SDPs that
//! came with them, in the order in which they came.
//!
//! Whoever was ever named stays named: a recording is about all of its time. What held when is said
//! beside it.

use std::collections::BTreeMap;

use super::fold::{Body, RsEntry, StreamEntry};
use super::model::{Association, Ends, LabelPeriod, Participant, Session, Source, Stream};
use super::people_view::period;
use crate::base::ids::StreamId;
use crate::base::time::Wall;
use crate::store::metadata::{
    AnnouncedSource, Arrival, Direction, HeardSource, HeardStream, Model, Part, SdpLine, Span,
    attribute, cross_check, sdp_lines,
};
use crate::wire::metadata::{self, Id, Root};
use crate::wire::sdp::Description;

/// Announced sources kept per line of an RS: re-offers name new ones.
const ANNOUNCED_MAX: usize = 256;
/// How late an SRC may tell of a session whose stated start is believed; more is a clock that is wrong.
const TOLD_LATE_NS: i64 = 10_000_000_000;

/// Who spoke, as far as the metadata says.
#[derive(Debug, Default)]
pub(super) struct People {
    pub(super) model: Model,
    /// By m-line: SSRCs that any of its SDPs announced.
    announced: BTreeMap<u16, Vec<AnnouncedSource>>,
}

/// Reads the bodies of `rs`. What cannot be read is left out here; its bytes are exported as they
/// came.
pub(super) fn people(rs: &RsEntry) -> People {
    let mut people = People::default();
    let mut lines: Vec<SdpLine> = Vec::new();
    let bodies: Vec<&Body> = rs.bodies.values().collect();
    // The bodies of one request stand together.
    for request in
        bodies.chunk_by(|one, other| (one.cseq, &one.method) == (other.cseq, &other.method))
    {
        let sdp = request.iter().find(|body| body.is_sdp());
        if let Some(sdp) = sdp.and_then(|body| Description::parse(&body.bytes).ok()) {
            lines = sdp_lines(&sdp);
            people.announce(&lines);
        }
        // More than one metadata part is told when it comes; the first is used.
        if let Some(body) = request.iter().find(|body| body.is_metadata()) {
            people.take(body, &lines);
        }
    }
    if let Some(end) = rs.end {
        people.model.end(end);
    }
    people
}

/// Whether any document of `rs` names that Communication Session.
pub fn names_session(rs: &RsEntry, session: &Id) -> bool {
    rs.bodies.values().filter(|body| body.is_metadata()).any(|body| {
        match metadata::parse(&body.bytes, body.charset()) {
            Ok(Root::Recording(document)) => {
                document.sessions.iter().any(|own| own.id == *session)
                    || document.streams.iter().any(|own| own.session.as_ref() == Some(session))
                    || document.session_recording.iter().any(|own| own.session == *session)
                    || document.participant_session.iter().any(|own| own.session == *session)
            }
            _ => false,
        }
    })
}

/// The Communication Sessions and participants that any document of `rs` names.
pub fn named_in(rs: &RsEntry) -> (Vec<Session>, Vec<Participant>) {
    let people = people(rs);
    (people.sessions(), people.participants())
}

/// Who ever sent on each line of `rs` while it was recorded, in order of appearance.
pub fn senders_of(rs: &RsEntry) -> BTreeMap<StreamId, Vec<Participant>> {
    let people = people(rs);
    let all = people.participants();
    let named = |id: &String| all.iter().find(|one| one.participant_id == *id).cloned();
    let of = |stream: &StreamEntry| people.on(stream).0.send.iter().filter_map(named).collect();
    rs.streams.iter().map(|(stream, entry)| (*stream, of(entry))).collect()
}

/// What a recording holds of one Communication Session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSpan {
    /// From when on it is to be heard.
    pub from: Wall,
    /// Until when; `None`: as long as the recording.
    pub to: Option<Wall>,
    /// When each of its lines was its own, by label; empty: the SRC named none.
    pub lines: BTreeMap<String, Vec<(Wall, Option<Wall>)>>,
    /// No session of the recording has lines that are named: then all are this one's.
    pub unnamed: bool,
}

/// When the session of one of `ids` ran in `rs`, by our clock: from the document that told of it, or
/// from the start that it states where that is a little earlier, so that its first word is in it; to
/// the document that ended it. Where a line went to another session meanwhile, that is none of this one.
pub fn session_span(rs: &RsEntry, ids: &[Id]) -> Option<SessionSpan> {
    let sessions = people(rs).sessions();
    let unnamed = sessions.iter().all(|one| one.lines.is_empty());
    let session = sessions.into_iter().find(|one| ids.contains(&Id::new(&one.session_id)))?;
    let (first, last) = (session.periods.first()?, session.periods.last()?);
    let stated: Option<Wall> = first.stated_from.as_deref().and_then(|text| text.parse().ok());
    let trusted = |stated: &Wall| {
        *stated <= first.from && first.from.0 - stated.0 <= TOLD_LATE_NS && *stated >= rs.start
    };
    let from = stated.filter(trusted).unwrap_or(first.from);
    let mut lines: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for LabelPeriod { label, period } in session.lines {
        let begin = if period.from == first.from { from } else { period.from };
        lines.entry(label).or_default().push((begin, period.to));
    }
    Some(SessionSpan { from, to: last.to, lines, unnamed })
}

impl SessionSpan {
    /// Whether what came on that line at that instant is of the session.
    pub fn holds(&self, label: Option<&str>, at: Wall) -> bool {
        let within = |(from, to): &(Wall, Option<Wall>)| at >= *from && to.is_none_or(|to| at < to);
        match label.and_then(|label| self.lines.get(label)) {
            Some(slices) => slices.iter().any(within),
            None => self.unnamed && within(&(self.from, self.to)),
        }
    }
}

impl People {
    fn announce(&mut self, lines: &[SdpLine]) {
        for line in lines {
            let known = self.announced.entry(line.index).or_default();
            for source in &line.sources {
                if known.len() < ANNOUNCED_MAX && !known.contains(source) {
                    known.push(source.clone());
                }
            }
        }
    }

    fn take(&mut self, body: &Body, lines: &[SdpLine]) {
        let arrival = Arrival { at: body.at, method: &body.method, cseq: body.cseq };
        match metadata::parse(&body.bytes, body.charset()) {
            Ok(Root::Recording(document)) => {
                // Without an SDP there is nothing to hold labels against.
                if self.model.take(&arrival, *document) && !lines.is_empty() {
                    // A label is valid with the SDP of its own message, and until the next one.
                    let found = attribute(&self.model.state(), lines).contradictions;
                    found.iter().for_each(|text| self.model.note(text));
                }
            }
            Ok(Root::SnapshotRequest { .. }) => {}
            Err(fault) => self.model.unreadable(&arrival, &fault),
        }
    }

    /// Who was on a recorded line while it was recorded.
    pub(super) fn on(&self, stream: &StreamEntry) -> (Ends, Vec<Association>) {
        let Some(label) = stream.description.label.as_deref() else { return Default::default() };
        let here = |part: &Part| {
            part.to.as_ref().is_none_or(|to| to.arrival >= stream.opened)
                && stream.closed.is_none_or(|closed| part.from.arrival < closed)
        };
        let parts: Vec<Part> = self.model.on_label(label).into_iter().filter(here).collect();
        let mut ends = Ends::default();
        for part in &parts {
            let list = match part.direction {
                Direction::Send => &mut ends.send,
                Direction::Recv => &mut ends.recv,
            };
            add(list, &self.participant_id(&part.participant));
        }
        (ends, parts.into_iter().map(|part| self.association(part)).collect())
    }

    fn association(&self, part: Part) -> Association {
        let span = Span { from: part.from, to: part.to };
        let stream = self.model.streams().get(&part.stream);
        Association {
            participant_id: self.participant_id(&part.participant),
            direction: word(part.direction).to_owned(),
            stream_id: stream.map_or_else(|| part.stream.to_string(), |row| row.id.to_string()),
            period: period(&span),
        }
    }

    /// What is odd about the metadata, in itself and against what was heard.
    pub(super) fn quirks(&self, rs: &RsEntry, streams: &[Stream]) -> Vec<String> {
        let heard: Vec<HeardStream> = streams
            .iter()
            .map(|stream| {
                let description = &rs.streams[&stream.stream].description;
                HeardStream {
                    name: stream.label.clone(),
                    label: description.label.clone(),
                    announced: self.announced.get(&description.line).cloned().unwrap_or_default(),
                    sources: stream.sources.iter().filter_map(heard).collect(),
                }
            })
            .collect();
        let mut quirks = self.model.quirks().to_vec();
        quirks.extend(cross_check(&self.model, &heard));
        quirks
    }

    /// The id as its own row shows it: two spellings of one id are shown as one.
    pub(super) fn participant_id(&self, id: &Id) -> String {
        self.model.participants().get(id).map_or_else(|| id.to_string(), |row| row.id.to_string())
    }
}

fn heard(source: &Source) -> Option<HeardSource> {
    let span = (source.first_arrival?, source.last_arrival?);
    Some(HeardSource { ssrc: source.ssrc, cname: source.cname.clone(), span })
}

pub(super) fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Send => "send",
        Direction::Recv => "recv",
    }
}

fn add(ids: &mut Vec<String>, id: &str) {
    if !ids.iter().any(|known| known == id) {
        ids.push(id.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{Generation, RsId, Slot, StreamId};
    use crate::store::catalog::fold::Journalled;
    use crate::store::event::{Origin, StreamDescription};
    use crate::store::journal::entry::{
        DialogState, Entry, Sealed, Signalling, SrcFacts, StreamOpened,
    };
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    const RS: RsId = RsId([7; 16]);

    fn opened(stream: u64, line: u16) -> StreamOpened {
        let description = StreamDescription {
            stream: StreamId(stream),
            rs: RS,
            line,
            label: Some("1".to_owned()),
            media: "audio".to_owned(),
            formats: Vec::new(),
            suite: None,
            transport: "RTP/AVP".to_owned(),
            slot: Slot(0),
            port: 20_000,
            remote: None,
        };
        StreamOpened {
            description,
            generation: Generation(1),
            active: true,
            rtcp_to: None,
            rtcp_mux: false,
            crypto: None,
            barred: None,
            address: None,
        }
    }

    fn dialog() -> DialogState {
        let address = ([192, 0, 2, 1], 5_060).into();
        DialogState {
            call_id: "c".to_owned(),
            local_tag: "l".to_owned(),
            remote_tag: "r".to_owned(),
            local_uri: String::new(),
            remote_uri: String::new(),
            remote_target: String::new(),
            route_set: Vec::new(),
            local_cseq: 0,
            remote_cseq: 1,
            transport: "udp".to_owned(),
            peer: address,
            local: address,
            identity: None,
            user: None,
            answered: None,
            update: false,
        }
    }

    fn body(number: u32, second: i64, cseq: u32, content_type: &str, text: &str) -> Entry {
        Entry::Body {
            rs: RS,
            number,
            at: Wall(second),
            method: "INVITE".to_owned(),
            cseq,
            content_type: content_type.to_owned(),
            disposition: String::new(),
            bytes: STANDARD.encode(text),
        }
    }

    const SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
        m=audio 5004 RTP/AVP 0\r\na=label:1\r\na=ssrc:7 cname:x\r\n";
    const SAID: &str = r#"<recording xmlns="urn:ietf:params:xml:ns:recording:1">
        <session session_id="c"/><participant participant_id="ann"><nameID aor="sip:ann@x"/></participant>
        <stream stream_id="s" session_id="c"><label>1</label></stream>
        <participantstreamassoc participant_id="ann"><send>s</send></participantstreamassoc></recording>"#;
    const HOLD: &str = r#"<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>partial</datamode>
        <participantstreamassoc participant_id="ann"/></recording>"#;

    fn entries() -> Vec<Entry> {
        let metadata = "application/rs-metadata+xml";
        vec![
            Entry::Opened {
                rs: RS,
                at: Wall(10),
                dialog: dialog(),
                src: SrcFacts::default(),
                signalling: Signalling::Udp,
                quirks: Vec::new(),
                salt: Sealed("".into()),
                streams: vec![opened(1, 0)],
                own: false,
                answer: String::new(),
                answer_sdp: Sealed("".into()),
                bodies: None,
                timer: None,
                retention: None,
            },
            body(1, 10, 1, "application/sdp", SDP),
            body(2, 10, 1, metadata, SAID),
            // Not the first of its request: told as a quirk when it came, and not used.
            body(3, 10, 1, metadata, "<recording/>"),
            body(4, 20, 2, "application/sdp", &SDP.replace("ssrc:7", "ssrc:8")),
            body(5, 20, 2, metadata, HOLD),
            // Recovered after a crash: the same request once more.
            body(6, 21, 2, metadata, SAID),
            body(7, 30, 3, "application/octet-stream", &SAID.replace("sip:ann@x", "sip:a@y")),
            body(8, 40, 4, metadata, "<not"),
        ]
    }

    #[test]
    fn bodies_fold_into_who_sent_when_whatever_their_label() {
        let journalled = Journalled::of(&entries());
        let rs = &journalled.recordings[&RS];
        let people = people(rs);
        let (ends, associations) = people.on(&rs.streams[&StreamId(1)]);
        assert_eq!((ends.send.as_slice(), ends.recv.len()), (["ann".to_owned()].as_slice(), 0));
        let times: Vec<_> = associations
            .iter()
            .map(|one| (one.period.from.0, one.period.to.map(|to| to.0)))
            .collect();
        assert_eq!(times, [(10, Some(20)), (30, None)]);
        let ann = &people.participants()[0];
        assert_eq!((ann.names[0].aor.as_str(), ann.former_names.len()), ("sip:a@y", 1));
        assert_eq!(people.announced[&0].len(), 2);
        let metadata = people.metadata();
        assert_eq!((metadata.documents, metadata.unreadable), (4, 1));
        assert!(metadata.snapshot_wanted.is_some());
        assert!(
            people.quirks(rs, &[]).iter().any(|quirk| quirk.starts_with("metadata unreadable"))
        );
        assert!(names_session(rs, &Id::new("c")) && !names_session(rs, &Id::new("d")));
    }

    #[test]
    fn the_end_of_an_rs_ends_what_was_said_and_a_closed_stream_keeps_its_own_speakers() {
        let mut entries = entries();
        entries.push(Entry::StreamClosed {
            rs: RS,
            stream: StreamId(1),
            slot: Slot(0),
            at: Wall(25),
            by: Origin::Src,
            through: None,
        });
        entries.push(Entry::Changed {
            rs: RS,
            at: Wall(29),
            dialog: dialog(),
            streams: vec![opened(2, 0)],
            quirks: Vec::new(),
            answer_sdp: Sealed("".into()),
            timer: None,
            hold: None,
            refused: false,
        });
        entries.push(Entry::Ended {
            rs: RS,
            at: Wall(50),
            by: Origin::Src,
            reason: String::new(),
            remote_cseq: 9,
            bye: false,
        });
        let journalled = Journalled::of(&entries);
        let rs = &journalled.recordings[&RS];
        let people = people(rs);
        let times = |stream| {
            let (_, on) = people.on(&rs.streams[&StreamId(stream)]);
            on.iter()
                .map(|one| (one.period.from.0, one.period.to.map(|to| to.0)))
                .collect::<Vec<_>>()
        };
        assert_eq!((times(1), times(2)), (vec![(10, Some(20))], vec![(30, Some(50))]));
        assert_eq!(people.sessions()[0].periods[0].to, Some(Wall(50)));
        assert_eq!(people.sessions()[0].stop, None, "the client stated none");
    }
}
