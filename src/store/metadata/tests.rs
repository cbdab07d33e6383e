//! Claims about merging.

use super::*;
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::wire::metadata::{Document, Id, Root, Stream, parse};
use crate::wire::sdp::Description;

fn document(inner: &str) -> Document {
    let xml =
        format!("<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">{inner}</recording>");
    match parse(xml.as_bytes(), None) {
        Ok(Root::Recording(document)) => *document,
        other => panic!("no recording: {other:?}"),
    }
}

/// Documents one after the other, the first at second 1.
struct Dialog {
    model: Model,
    second: u32,
}

impl Dialog {
    fn new() -> Self {
        Dialog { model: Model::default(), second: 0 }
    }

    fn say(&mut self, method: &str, inner: &str) -> &mut Self {
        self.second += 1;
        let at = Wall(i64::from(self.second));
        self.model.take(&Arrival { at, method, cseq: self.second }, document(inner));
        sound(&self.model);
        self
    }

    fn complete(&mut self, inner: &str) -> &mut Self {
        self.say("INVITE", inner)
    }

    fn partial(&mut self, inner: &str) -> &mut Self {
        self.say("UPDATE", &format!("<datamode>partial</datamode>{inner}"))
    }

    /// Senders on a label, as `id from-to`.
    fn senders(&self, label: &str) -> Vec<String> {
        let parts = self.model.on_label(label).into_iter();
        let mut parts: Vec<String> = parts
            .filter(|part| part.direction == Direction::Send)
            .map(|part| {
                let to = part.to.map(|to| to.arrival.0.to_string()).unwrap_or_default();
                format!("{} {}-{to}", part.participant, part.from.arrival.0)
            })
            .collect();
        parts.sort();
        parts
    }

    fn quirks(&self) -> String {
        let own = |text: &&String| !text.contains("16 octets") && !text.contains("order");
        self.model.quirks().iter().filter(own).cloned().collect::<Vec<_>>().join("\n")
    }
}

/// What holds of every model whatever it was told.
pub(super) fn sound(model: &Model) {
    let spans = |spans: &Spans| {
        assert!(spans.iter().filter(|span| span.to.is_none()).count() <= 1, "{spans:?}");
        assert!(spans.iter().rev().skip(1).all(|span| span.to.is_some()), "{spans:?}");
        for span in spans.iter() {
            assert!(span.to.as_ref().is_none_or(|to| to.arrival >= span.from.arrival), "{span:?}");
        }
    };
    model.groups().iter().for_each(|row| spans(&row.spans));
    model.sessions().iter().for_each(|row| (spans(&row.spans), spans(&row.recorded)).1);
    model.participants().iter().for_each(|row| spans(&row.spans));
    model.streams().iter().for_each(|row| spans(&row.spans));
    model.memberships().iter().for_each(|row| spans(&row.spans));
    model.contributions().iter().for_each(|row| spans(&row.spans));
    // The state says all there is to say: a new machine that hears it is in that state, and this one
    // stays in it.
    let state = model.state();
    let mut new = Model::default();
    let arrival = Arrival { at: Wall(i64::MAX), method: "INVITE", cseq: u32::MAX };
    assert!(new.take(&arrival, state.clone()));
    assert_eq!(new.state(), state);
    assert_eq!(new.snapshot_wanted(), None, "{:?}", new.quirks());
    let mut again = model.clone();
    again.take(&arrival, state.clone());
    assert_eq!(again.state(), state);
}

/// Two parties in one CS, a stream each.
const CALL: &str = r#"<group group_id="g"/><session session_id="c"><sipSessionID>1;remote=2</sipSessionID>
    <group-ref>g</group-ref><start-time>t0</start-time></session>
    <participant participant_id="ann"><nameID aor="sip:ann@x"/></participant>
    <participant participant_id="bob"><nameID aor="sip:bob@x"/></participant>
    <stream stream_id="s1" session_id="c"><label>1</label></stream>
    <stream stream_id="s2" session_id="c"><label>2</label></stream>
    <sessionrecordingassoc session_id="c"><associate-time>t0</associate-time></sessionrecordingassoc>
    <participantsessionassoc participant_id="ann" session_id="c"><associate-time>t0</associate-time></participantsessionassoc>
    <participantsessionassoc participant_id="bob" session_id="c"><associate-time>t0</associate-time></participantsessionassoc>
    <participantstreamassoc participant_id="ann"><send>s1</send><recv>s2</recv></participantstreamassoc>
    <participantstreamassoc participant_id="bob"><send>s2</send><recv>s1</recv></participantstreamassoc>"#;

#[test]
fn hold_and_resume_replace_the_set_of_who_is_named_only() {
    // RFC 8068 §3.2.2.
    let mut dialog = Dialog::new();
    dialog.complete(CALL);
    dialog.partial(
        r#"<participantstreamassoc participant_id="ann"><recv>s2</recv></participantstreamassoc>"#,
    );
    dialog.partial(
        r#"<participantstreamassoc participant_id="ann"><send>s1</send></participantstreamassoc>
        <participantstreamassoc participant_id="ann"><recv>s2</recv></participantstreamassoc>"#,
    );
    assert_eq!(dialog.senders("1"), ["ann 1-2", "ann 3-"]);
    assert_eq!(dialog.senders("2"), ["bob 1-"]);
    // Several elements of one participant were one statement: she still receives.
    let hears = dialog.model.on_label("2");
    assert!(hears.iter().any(|part| part.direction == Direction::Recv && part.to.is_none()));
    assert_eq!(dialog.quirks(), "");
}

#[test]
fn who_leaves_the_cs_stops_contributing_and_who_comes_back_goes_on() {
    // RFC 7865 §8.2, RFC 8068 §3.3.4: the stream sets end though they are not named.
    let mut dialog = Dialog::new();
    dialog.complete(CALL);
    let assoc = |time: &str| {
        format!(
            r#"<participantsessionassoc participant_id="bob" session_id="c">{time}</participantsessionassoc>"#
        )
    };
    dialog.partial(&assoc("<disassociate-time>t1</disassociate-time>"));
    dialog.partial(&assoc("<disassociate-time>t1</disassociate-time>"));
    dialog.partial(&assoc("<associate-time>t2</associate-time>"));
    assert_eq!(dialog.senders("2"), ["bob 1-2", "bob 4-"]);
    let bob = dialog.model.memberships().iter().nth(1).expect("two parties");
    let stated = |moment: &Moment| moment.stated.clone().unwrap_or_default();
    let shown: Vec<_> =
        bob.spans.iter().map(|span| (stated(&span.from), span.to.as_ref().map(stated))).collect();
    assert_eq!(shown, [("t0".into(), Some("t1".into())), ("t2".into(), None)]);
    assert_eq!(dialog.quirks(), "");
}

#[test]
fn a_stop_time_ends_the_cs_and_all_that_hangs_on_it() {
    let mut dialog = Dialog::new();
    dialog.complete(CALL);
    dialog.say("BYE", r#"<datamode>partial</datamode><session session_id="c"><stop-time>t9</stop-time></session>"#);
    assert_eq!(dialog.senders("1"), ["ann 1-2"]);
    let state = dialog.model.state();
    assert!(state.sessions.is_empty() && state.participant_session.is_empty());
    assert!(state.participant_stream.is_empty() && state.session_recording.is_empty());
    assert_eq!(state.participants.len(), 2);
    let session = dialog.model.sessions().iter().next().expect("one");
    let end = session.spans.last().and_then(|span| span.to.clone()).expect("ended");
    assert_eq!(end, Moment { arrival: Wall(2), stated: Some("t9".to_owned()) });
    assert_eq!(dialog.quirks(), "");
    // Said again, with all its associations, by a client that always tells everything.
    let over = CALL.replace("</start-time>", "</start-time><stop-time>t9</stop-time>");
    for _ in 0..3 {
        dialog.complete(&over);
    }
    assert_eq!(dialog.senders("1"), ["ann 1-2"]);
    assert_eq!(dialog.quirks(), "");
}

#[test]
fn a_transfer_moves_streams_and_ends_the_first_cs_by_absence() {
    // RFC 8068 §3.2.3, second form: the complete document of the new call has no group.
    let mut dialog = Dialog::new();
    dialog.complete(CALL);
    dialog.complete(
        r#"<session session_id="d"><start-time>t5</start-time></session>
        <participant participant_id="bob"><nameID aor="sip:bob@x"/></participant>
        <participant participant_id="eve"><nameID aor="sip:eve@x"/></participant>
        <stream stream_id="s2" session_id="d"><label>2</label></stream>
        <stream stream_id="s3" session_id="d"><label>1</label></stream>
        <participantsessionassoc participant_id="bob" session_id="d"/>
        <participantsessionassoc participant_id="eve" session_id="d"/>
        <participantstreamassoc participant_id="bob"><send>s2</send></participantstreamassoc>
        <participantstreamassoc participant_id="eve"><send>s3</send></participantstreamassoc>"#,
    );
    assert_eq!(dialog.senders("1"), ["ann 1-2", "eve 2-"]);
    assert_eq!(dialog.senders("2"), ["bob 1-"]);
    let moved = dialog.model.streams().get(&Id::new("s2")).expect("known");
    let sessions: Vec<&str> = moved.sessions.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(sessions, ["c", "d"]);
    let first = dialog.model.sessions().get(&Id::new("c")).expect("known");
    assert!(!first.spans.is_open());
    // Absence does not take the first CS out of its group.
    assert_eq!(first.groups.iter().last().map(|(id, _)| id.as_str()), Some("g"));
    let lines = |cs| dialog.model.labels_of(&Id::new(cs));
    let spans: Vec<_> =
        lines("c").into_iter().map(|(label, span)| (label, span.to.is_some())).collect();
    assert_eq!(spans, [("1".to_owned(), true), ("2".to_owned(), true)]);
    assert!(lines("d").iter().all(|(_, span)| span.to.is_none() && span.from.arrival == Wall(2)));
    assert_eq!(dialog.quirks(), "");
}

#[test]
fn the_third_party_of_a_conference_comes_with_a_longer_list_of_session_ids() {
    let mut dialog = Dialog::new();
    dialog.complete(CALL);
    dialog.partial(
        r#"<session session_id="c"><sipSessionID>1;remote=2</sipSessionID><sipSessionID>3;remote=4</sipSessionID></session>
        <participant participant_id="eve"><nameID aor="sip:eve@x"/></participant>
        <participantsessionassoc participant_id="eve" session_id="c"><associate-time>t3</associate-time></participantsessionassoc>
        <participantstreamassoc participant_id="eve"><send>s1</send><recv>s1</recv></participantstreamassoc>"#,
    );
    dialog.partial(
        r#"<session session_id="c"><sipSessionID>3;remote=4</sipSessionID></session>
        <participantsessionassoc participant_id="ann" session_id="c"><disassociate-time>t1</disassociate-time></participantsessionassoc>"#,
    );
    // Ordered by arrival: the SRC's times run backwards in RFC 8068 §3.3.
    assert_eq!(dialog.senders("1"), ["ann 1-3", "eve 2-"]);
    let session = dialog.model.sessions().iter().next().expect("one");
    let lengths: Vec<usize> = session.sip_session_ids.iter().map(|(ids, _)| ids.len()).collect();
    assert_eq!(lengths, [1, 2, 1]);
    assert_eq!(session.groups.now().map(Id::as_str), Some("g"), "absent scalars stay");
    assert_eq!(dialog.quirks(), "");
}

#[test]
fn a_turrets_stream_belongs_to_both_its_calls() {
    // RFC 8068 §3.5: two CSs, one mixed stream tied to the first.
    let mut dialog = Dialog::new();
    let both = |who| {
        format!(
            r#"<participantstreamassoc participant_id="{who}"><send>s</send><recv>s</recv></participantstreamassoc>"#
        )
    };
    let member =
        |who, cs| format!(r#"<participantsessionassoc participant_id="{who}" session_id="{cs}"/>"#);
    let person = |who| {
        format!(r#"<participant participant_id="{who}"><nameID aor="sip:{who}@x"/></participant>"#)
    };
    let inner = [
        r#"<session session_id="c"/><session session_id="d"/>"#.to_owned(),
        ["ann", "bob", "eve"].map(person).concat(),
        r#"<stream stream_id="s" session_id="c"><label>1</label></stream>"#.to_owned(),
        [("ann", "c"), ("bob", "c"), ("bob", "d"), ("eve", "d")]
            .map(|(who, cs)| member(who, cs))
            .concat(),
        ["ann", "bob", "eve"].map(both).concat(),
    ];
    dialog.complete(&inner.concat());
    dialog.partial(r#"<session session_id="c"><stop-time>t2</stop-time></session>"#);
    let lines = |cs| {
        let lines = dialog.model.labels_of(&Id::new(cs));
        lines
            .into_iter()
            .map(|(label, span)| (label, span.to.map(|to| to.arrival.0)))
            .collect::<Vec<_>>()
    };
    assert_eq!(lines("c"), [("1".to_owned(), Some(2))]);
    assert_eq!(lines("d"), [("1".to_owned(), None)]);
    // Ann was in the first call only; Bob goes on in the other.
    assert_eq!(dialog.senders("1"), ["ann 1-2", "bob 1-", "eve 1-"]);
}

#[test]
fn a_partial_without_base_is_taken_told_and_healed_by_a_complete_one() {
    let mut dialog = Dialog::new();
    dialog.partial(
        r#"<participantstreamassoc participant_id="ann"><send>s1</send></participantstreamassoc>"#,
    );
    assert!(dialog.quirks().contains("a partial document came before any complete one"));
    assert!(dialog.quirks().contains("participantstreamassoc names the unknown stream s1"));
    assert!(dialog.quirks().contains("participantstreamassoc names the unknown participant ann"));
    assert!(dialog.model.snapshot_wanted().is_some());
    // Nothing is dropped: they are there, undescribed.
    let ann = dialog.model.participants().iter().next().expect("a placeholder");
    assert!(!ann.defined && ann.spans.is_open());
    dialog.complete(CALL);
    assert_eq!(dialog.model.snapshot_wanted(), None);
    assert_eq!(dialog.senders("1"), ["ann 2-"]);
    assert!(dialog.model.participants().iter().all(|row| row.defined));
}

#[test]
fn a_retransmission_counts_once_and_a_repeated_document_changes_nothing() {
    let mut dialog = Dialog::new();
    dialog.complete(CALL);
    let arrival = Arrival { at: Wall(9), method: "invite", cseq: 1 };
    assert!(!dialog.model.take(&arrival, document("")));
    let before = format!("{:?}", dialog.model.state());
    dialog.complete(CALL).complete(CALL);
    assert_eq!(format!("{:?}", dialog.model.state()), before);
    assert_eq!(dialog.senders("1"), ["ann 1-"]);
    assert_eq!(dialog.model.documents(), (3, 0));
    assert_eq!(dialog.quirks(), "");
}

#[test]
fn a_complete_document_in_a_bye_is_partial() {
    // Cisco lists the leavers only.
    let mut dialog = Dialog::new();
    dialog.complete(CALL);
    dialog.say(
        "BYE",
        r#"<participant participant_id="bob"><nameID aor="sip:bob@x"/></participant>
        <participantsessionassoc participant_id="bob" session_id="c"><disassociate-time>t4</disassociate-time></participantsessionassoc>"#,
    );
    assert_eq!(dialog.senders("1"), ["ann 1-"]);
    assert_eq!(dialog.senders("2"), ["bob 1-2"]);
    assert!(dialog.quirks().contains("send datamode partial"));
}

#[test]
fn ids_used_again_are_told() {
    let mut dialog = Dialog::new();
    dialog.complete(CALL);
    dialog.partial(r#"<session session_id="c"><stop-time>t1</stop-time></session>"#);
    dialog.partial(r#"<session session_id="c"><sipSessionID>9;remote=9</sipSessionID></session>"#);
    assert!(dialog.model.state().sessions.is_empty(), "scalars that are absent stay");
    dialog.partial(r#"<session session_id="c"><start-time>t2</start-time></session>"#);
    assert!(dialog.quirks().contains("session c runs again after its stop-time"));
    dialog.partial(r#"<session session_id="c"><start-time>t3</start-time></session>"#);
    assert!(dialog.quirks().contains("session c has another start-time than before"));
    dialog.partial(
        r#"<stream stream_id="ann"><label>7</label></stream><stream stream_id="ann"><label>8</label></stream>
        <participant participant_id="ann"><nameID aor="sip:ann@y"/></participant>"#,
    );
    assert!(dialog.quirks().contains("id ann names two elements"));
    assert!(dialog.quirks().contains("stream ann has two labels"));
    dialog.partial(
        r#"<participantsessionassoc participant_id="ann" session_id="c"><associate-time>t5</associate-time></participantsessionassoc>"#,
    );
    dialog.partial(
        r#"<participantsessionassoc participant_id="ann" session_id="c"><associate-time>t6</associate-time></participantsessionassoc>
        <participantsessionassoc participant_id="zoe" session_id="c"><disassociate-time>t6</disassociate-time></participantsessionassoc>"#,
    );
    assert!(dialog.quirks().contains("participant ann joins communication session c again"));
    assert!(dialog.quirks().contains("participant zoe leaves communication session c"));
}

#[test]
fn a_stream_that_takes_a_label_over_ends_the_other_on_that_line() {
    let mut dialog = Dialog::new();
    dialog.complete(CALL);
    dialog.partial(
        r#"<stream stream_id="s9" session_id="c"><label>1</label></stream>
        <participant participant_id="eve"><nameID aor="sip:eve@x"/></participant>
        <participantstreamassoc participant_id="eve"><send>s9</send></participantstreamassoc>"#,
    );
    assert_eq!(dialog.senders("1"), ["ann 1-2", "eve 2-"]);
}

#[test]
fn times_of_one_element_are_those_of_its_streams() {
    // RFC 7865 §6.8.1: to give streams different times an SRC writes several elements.
    let mut dialog = Dialog::new();
    dialog.complete(
        r#"<participant participant_id="ann"><nameID aor="sip:ann@x"/></participant>
        <stream stream_id="s1"><label>1</label></stream><stream stream_id="s2"><label>2</label></stream>
        <participantstreamassoc participant_id="ann"><send>s1</send><associate-time>t1</associate-time></participantstreamassoc>
        <participantstreamassoc participant_id="ann"><send>s2</send><associate-time>t2</associate-time></participantstreamassoc>"#,
    );
    let from = |label| dialog.model.on_label(label)[0].from.stated.clone();
    assert_eq!((from("1"), from("2")), (Some("t1".to_owned()), Some("t2".to_owned())));
    dialog.partial(
        r#"<participantstreamassoc participant_id="ann"><disassociate-time>t3</disassociate-time></participantstreamassoc>"#,
    );
    let to = |label: &str| dialog.model.on_label(label)[0].to.clone().and_then(|to| to.stated);
    assert_eq!((to("1"), to("2")), (Some("t3".to_owned()), Some("t3".to_owned())));
}

#[test]
fn extensions_are_replaced_by_name_and_place_and_all_versions_stay() {
    let mut dialog = Dialog::new();
    dialog.complete(r#"<session session_id="c"><a xmlns="urn:x">1</a><a xmlns="urn:x">2</a><b xmlns="urn:x"/></session>"#);
    dialog.partial(r#"<session session_id="c"><a xmlns="urn:x">3</a></session>"#);
    dialog.partial(r#"<session session_id="c"><a xmlns="urn:x">3</a></session>"#);
    let rows: Vec<_> = dialog.model.extensions().iter().collect();
    let versions: Vec<_> = rows[0].versions.iter().map(|(xml, _)| xml.concat()).collect();
    assert_eq!(
        versions,
        [r#"<a xmlns="urn:x">1</a><a xmlns="urn:x">2</a>"#, r#"<a xmlns="urn:x">3</a>"#]
    );
    assert!(rows[1].versions.now().is_some(), "b was not named and stays");
    dialog.complete(r#"<session session_id="c"/>"#);
    assert!(dialog.model.extensions().iter().all(|row| row.versions.now().is_none()));
}

#[test]
fn a_full_history_ends_what_it_knows_instead_of_going_stale() {
    let mut model = Model::default();
    let mut taken = 0u32;
    for cseq in 0..2_000u32 {
        let streams = (0..500).map(|n| Stream {
            id: Id::new(&format!("{cseq}-{n}")),
            label: Some(format!("{n}")),
            ..Stream::default()
        });
        let document = Document { streams: streams.collect(), ..Document::default() };
        let arrival = Arrival { at: Wall(i64::from(cseq)), method: "UPDATE", cseq };
        if !model.take(&arrival, document) {
            break;
        }
        taken += 1;
    }
    assert!((100..1_999).contains(&taken), "{taken}");
    assert!(model.state().streams.is_empty());
    assert!(model.quirks().iter().any(|quirk| quirk.contains("history of the metadata is full")));
}

#[test]
fn contradictions_between_metadata_and_sdp_are_told_and_nobody_is_guessed() {
    let found = document(
        r#"<session session_id="c"/><participant participant_id="p"><nameID aor="sip:a@b"/></participant>
        <stream stream_id="s" session_id="c"><label>1</label></stream>
        <stream stream_id="t" session_id="nowhere"><label>9</label></stream>
        <participantstreamassoc participant_id="p"><send>s</send><recv>ghost</recv></participantstreamassoc>
        <participantstreamassoc participant_id="q"><recv>s</recv></participantstreamassoc>"#,
    );
    let sdp = b"v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
        m=audio 5004 RTP/AVP 0\r\na=label:1\r\nm=audio 5006 RTP/AVP 0\r\na=label:2\r\n\
        m=audio 5008 RTP/AVP 0\r\nm=audio 0 RTP/AVP 0\r\na=label:4\r\n";
    let lines = sdp_lines(&Description::parse(sdp).expect("readable"));
    let found = attribute(&found, &lines);
    assert_eq!(found.lines[0].send[0].as_str(), "p");
    assert_eq!(found.lines[0].recv[0].as_str(), "q");
    assert_eq!(found.lines[1].stream, None);
    assert_eq!(
        found.contradictions,
        [
            "m-line 2 has label 2, no stream element does",
            "stream t has label 9, no m-line does",
            "stream t names the unknown session nowhere",
            "participantstreamassoc names the unknown stream ghost",
            "participantstreamassoc names the unknown participant q",
        ]
    );
}

fn heard(name: &str, announced: &[u32], sources: &[(u32, Option<&str>)]) -> HeardStream {
    let announced = announced
        .iter()
        .map(|ssrc| AnnouncedSource { ssrc: *ssrc, cname: Some("said".to_owned()) });
    let source = |(ssrc, cname): &(u32, Option<&str>)| HeardSource {
        ssrc: *ssrc,
        cname: cname.map(str::to_owned),
        span: (Wall(0), Wall(9)),
    };
    HeardStream {
        name: name.to_owned(),
        label: Some(name.to_owned()),
        announced: announced.collect(),
        sources: sources.iter().map(source).collect(),
    }
}

#[test]
fn media_that_contradicts_metadata_or_sdp_is_told_and_changes_nothing() {
    let mut dialog = Dialog::new();
    dialog.complete(CALL);
    let tell = |streams: &[HeardStream]| cross_check(&dialog.model, streams).join("\n");
    let fine = [heard("1", &[], &[(7, Some("ann@x"))]), heard("2", &[], &[(8, Some("bob@x"))])];
    assert_eq!(tell(&fine), "");
    let own = [heard("1", &[7], &[(7, Some("said"))]), heard("2", &[8], &[(8, Some("said"))])];
    assert_eq!(tell(&own), "", "the SRC's own CNAME on all lines tells nothing");
    // Crossed by CNAME: what Ann's endpoint sends comes on Bob's line.
    let crossed = [heard("1", &[], &[(7, Some("BOB@x"))]), heard("2", &[], &[(8, Some("ann@x"))])];
    let told = tell(&crossed);
    assert!(told.contains("line 1: its RTCP says CNAME BOB@x, which is sip:bob@x"), "{told}");
    assert!(told.contains("the metadata says that sip:ann@x sends there"), "{told}");
    assert_eq!(dialog.senders("1"), ["ann 1-"]);
    // Crossed by SSRC.
    let crossed = [heard("1", &[7], &[(8, None)]), heard("2", &[8], &[(7, None)])];
    let told = tell(&crossed);
    assert!(told.contains("SSRC 00000008 is announced for line 2 and heard on line 1"), "{told}");
    let told = tell(&[heard("1", &[7], &[(9, None)]), heard("2", &[8], &[(8, Some("other"))])]);
    assert!(told.contains("line 1: SSRC 00000009 is heard, the SDP announces others"), "{told}");
    assert!(
        told.contains("SSRC 00000008 has CNAME other in its RTCP and said in the SDP"),
        "{told}"
    );
    let told = tell(&[heard("1", &[], &[(7, None)]), heard("2", &[], &[(7, None)])]);
    assert!(told.contains("SSRC 00000007 is heard on lines 1 and 2 at a time"), "{told}");
    let told = tell(&[
        heard("1", &[], &[(7, Some("u1"))]),
        heard("2", &[], &[(8, Some("u1"))]),
        heard("3", &[], &[(9, Some("u2"))]),
    ]);
    assert!(told.contains("lines 1 and 2 share the CNAME u1"), "{told}");
}

#[test]
fn any_documents_in_any_order_leave_a_sound_model() {
    let pieces: Vec<&str> = CALL.split_inclusive('>').collect();
    let mut taken = 0;
    for seed in 0..400 {
        let mut prng = Prng::new(seed);
        let mut model = Model::default();
        for cseq in 0..6 {
            let mut text = String::new();
            for piece in &pieces {
                match prng.below(40) {
                    0 => {}
                    1 => text.push_str(&piece.replace("ann", "bob").replace("s1", "s2")),
                    2 => text.push_str(&piece.replace("\"c\"", "\"d\"").replace("t0", "t1")),
                    3 => text.push_str(&piece.replace("associate-time", "disassociate-time")),
                    4 => text.push_str(&piece.replace("start-time", "stop-time")),
                    _ => text.push_str(piece),
                }
            }
            let mode = if prng.below(2) == 0 { "<datamode>partial</datamode>" } else { "" };
            let xml = format!("<recording>{mode}{text}</recording>");
            let Ok(Root::Recording(document)) = parse(xml.as_bytes(), None) else { continue };
            let method = if prng.below(4) == 0 { "BYE" } else { "UPDATE" };
            let arrival = Arrival { at: Wall(i64::from(cseq)), method, cseq };
            taken += usize::from(model.take(&arrival, *document));
            sound(&model);
        }
    }
    assert!(taken > 500, "{taken}");
}
