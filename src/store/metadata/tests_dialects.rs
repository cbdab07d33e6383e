//! Claims about the dialects of the field: each class, read and merged. The bodies are our own, after
//! what boxes of that class send.

use super::*;
use crate::base::time::Wall;
use crate::wire::metadata::{Dialect, Id, Root, parse};

fn model(documents: &[(&str, &str)]) -> Model {
    let mut model = Model::default();
    for (number, (method, xml)) in documents.iter().enumerate() {
        let arrival = Arrival { at: Wall(number as i64 + 1), method, cseq: number as u32 + 1 };
        match parse(xml.as_bytes(), None) {
            Ok(Root::Recording(document)) => assert!(model.take(&arrival, *document)),
            Ok(Root::SnapshotRequest { .. }) => panic!("a snapshot request"),
            Err(fault) => model.unreadable(&arrival, &fault),
        }
    }
    model
}

/// Everybody on a label as `id direction from-to stated`.
fn on(model: &Model, label: &str) -> Vec<String> {
    let parts = model.on_label(label).into_iter().map(|part| {
        let to = part.to.map(|to| to.arrival.0.to_string()).unwrap_or_default();
        let stated = part.from.stated.unwrap_or_default();
        format!("{} {:?} {}-{to} {stated}", part.participant, part.direction, part.from.arrival.0)
    });
    let mut parts: Vec<String> = parts.collect();
    parts.sort();
    parts
}

fn says(model: &Model, quirk: &str) {
    assert!(model.quirks().iter().any(|own| own.contains(quirk)), "{quirk}: {:?}", model.quirks());
}

#[test]
fn the_final_namespace_with_wrong_order_spelling_and_ids_is_read() {
    let invite = r#"<recording xmlns="urn:ietf:params:xml:ns:recording:1" version="1">
        <dataMode>Complete</dataMode>
        <stream stream_id="0000000000000001" session_id="1736500000"><label>1</label></stream>
        <session session_id="1736500000"><start-time>2026-01-10T09:30:00</start-time></session>
        <participant participant_id="1003@pbx"><nameID aor="1003"/></participant>
        <participantstreamassoc participant_id="1003@pbx">
            <send>0000000000000001</send><associate-time>2026-01-10T09:30:00+0000</associate-time>
        </participantstreamassoc></recording>"#;
    let update = r#"<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>Partial</datamode>
        <participantstreamassoc participantId="1003@pbx"/></recording>"#;
    let bye = r#"<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>complete</datamode>
        <session session_id="1736500000"><end-time>2026-01-10T09:31:00Z</end-time></session></recording>"#;
    let model = model(&[("INVITE", invite), ("UPDATE", update), ("BYE", bye)]);
    assert_eq!(model.dialects(), [Dialect::Final]);
    assert_eq!(on(&model, "1"), ["1003@pbx Send 1-2 2026-01-10T09:30:00+0000"]);
    let session = model.sessions().iter().next().expect("one");
    let span = session.spans.last().expect("it ran");
    // A time without zone is kept as it came.
    assert_eq!(span.from.stated.as_deref(), Some("2026-01-10T09:30:00"));
    let stop = span.to.as_ref().and_then(|to| to.stated.as_deref());
    assert_eq!(stop, Some("2026-01-10T09:31:00Z"));
    for quirk in ["schema's order", "spelled dataMode", "lower case", "16 octets", "in the BYE"] {
        says(&model, quirk);
    }
}

#[test]
fn draft_a_has_prefixes_and_times_inside_streams() {
    let invite = r#"<rc:recording xmlns:rc="urn:ietf:params:xml:ns:recording" id="r1">
        <rc:dataMode>complete</rc:dataMode>
        <rc:session session_id="c1"/>
        <rc:participant participant_id="p1"><rc:nameID aor="sip:ann@x"><rc:name>Ann</rc:name></rc:nameID></rc:participant>
        <rc:stream stream_id="s1" session_id="c1"><rc:label>1</rc:label>
            <rc:associate-time>2012-08-28T10:00:00Z</rc:associate-time></rc:stream>
        <rc:stream id="s2" session="c1"><rc:label>2</rc:label></rc:stream>
        <rc:participantstreamassoc participant_id="p1"><rc:send>s1</rc:send><rc:recv>s2</rc:recv></rc:participantstreamassoc>
        </rc:recording>"#;
    let update = r#"<rc:recording xmlns:rc="urn:ietf:params:xml:ns:recording"><rc:dataMode>partial</rc:dataMode>
        <rc:stream stream_id="s1"><rc:disassociate-time>2012-08-28T10:05:00Z</rc:disassociate-time></rc:stream>
        </rc:recording>"#;
    let model = model(&[("INVITE", invite), ("UPDATE", update)]);
    assert_eq!(model.dialects(), [Dialect::DraftA]);
    assert_eq!(on(&model, "1"), ["p1 Send 1-2 "]);
    assert_eq!(on(&model, "2"), ["p1 Recv 1- "]);
    let stream = model.streams().get(&Id::new("s1")).expect("known");
    let span = stream.spans.last().expect("it was there");
    assert_eq!(span.from.stated.as_deref(), Some("2012-08-28T10:00:00Z"));
    assert!(span.to.as_ref().is_some_and(|to| to.stated.is_some()));
    says(&model, "not of RFC 7865: DraftA");
}

#[test]
fn draft_b_has_short_keys_and_everything_inside_participants() {
    let invite = r#"<recording xmlns="urn:ietf:params:xml:ns:recording"><datamode>complete</datamode>
        <session id="c1"><start-time>2011-01-01T00:00:00Z</start-time></session>
        <participant id="p1" session="c1"><nameID aor="sip:ann@x"><name>Ann</name></nameID>
            <associate-time>2011-01-01T00:00:01Z</associate-time><send>s1</send><recv>s2</recv>
            <extensiondata xmlns:v="urn:v"><v:callid>7</v:callid></extensiondata></participant>
        <participant id="p2" session="c1"><nameID aor="sip:bob@x"/><send>s2</send><recv>s1</recv></participant>
        <stream id="s1" session="c1"><mode>separate</mode><label>1</label></stream>
        <stream id="s2" session="c1"><mode>separate</mode><label>2</label></stream></recording>"#;
    let model = model(&[("INVITE", invite)]);
    assert_eq!(model.dialects(), [Dialect::DraftB]);
    assert_eq!(on(&model, "1"), ["p1 Send 1- 2011-01-01T00:00:01Z", "p2 Recv 1- "]);
    assert_eq!(model.memberships().len(), 2);
    let kept: Vec<&str> = model.extensions().iter().map(|row| row.name.as_str()).collect();
    assert_eq!(kept, ["extensiondata", "mode", "mode"]);
    let xml = model.extensions().iter().next().and_then(|row| row.versions.now()).expect("kept");
    assert!(xml[0].contains("<v:callid>7</v:callid>"), "{xml:?}");
}

#[test]
fn draft_c_has_siblings_under_another_root() {
    let invite = r#"<?xml version="1.0"?><recording_metadata xmlns="urn:ietf:params:xml:ns:siprec">
        <dataMode>complete</dataMode>
        <recording id="urn:uuid:1"><requestor>SRC</requestor></recording>
        <group id="urn:uuid:2" recording="urn:uuid:1"/>
        <session id="urn:uuid:3" group="urn:uuid:2"/>
        <participant id="urn:uuid:4" session="urn:uuid:3"><aor>sip:ann@x</aor><name>Ann</name>
            <send><id>urn:uuid:6</id></send></participant>
        <stream id="urn:uuid:6" session="urn:uuid:3"><label>1</label><mode>separate</mode></stream>
        <extensiondata id="urn:uuid:7" parent="urn:uuid:4"><v>1</v></extensiondata></recording_metadata>"#;
    let model = model(&[("INVITE", invite)]);
    assert_eq!(model.dialects(), [Dialect::DraftC]);
    assert_eq!(on(&model, "1"), ["urn:uuid:4 Send 1- "]);
    let ann = model.participants().iter().next().expect("one");
    let names = ann.names.now().expect("named");
    assert_eq!((names[0].aor.as_str(), names[0].name.as_deref()), ("sip:ann@x", Some("Ann")));
    let session = model.sessions().iter().next().expect("one");
    assert_eq!(session.groups.now().map(Id::as_str), Some("urn:uuid:2"));
    assert!(model.extensions().iter().any(|row| row.name == "extensiondata"));
}

#[test]
fn metadata_without_streams_names_parties_and_attributes_nobody() {
    let invite = r#"<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>complete</datamode>
        <session session_id="20260101120000"/>
        <participant participant_id="1003@pbx"><nameID aor="sip:1003@pbx"/></participant>
        <pbx xmlns="urn:pbx" version="1.0"><site>Delft</site></pbx></recording>"#;
    let model = model(&[("INVITE", invite)]);
    assert_eq!(model.participants().len(), 1);
    assert!(on(&model, "1").is_empty());
    let line = SdpLine { label: Some("1".to_owned()), live: true, ..SdpLine::default() };
    let found = attribute(&model.state(), &[line]);
    assert_eq!(found.contradictions, ["m-line 1 has label 1, no stream element does"]);
    let kept = model.extensions().iter().next().expect("kept");
    assert_eq!((&kept.owner, kept.name.as_str()), (&Owner::Recording, "pbx"));
}

#[test]
fn f54_what_cannot_be_read_is_flagged_and_what_is_known_stays() {
    let good = r#"<recording xmlns="urn:ietf:params:xml:ns:recording:1">
        <participant participant_id="p"><nameID aor="sip:a@x"/></participant>
        <stream stream_id="s"><label>1</label></stream>
        <participantstreamassoc participant_id="p"><send>s</send></participantstreamassoc></recording>"#;
    let bomb = "<!DOCTYPE r [<!ENTITY a \"aaaa\">]><recording>&a;</recording>";
    let deep = format!("<recording>{}{}</recording>", "<a>".repeat(40), "</a>".repeat(40));
    let model = model(&[("INVITE", good), ("UPDATE", bomb), ("UPDATE", &deep), ("UPDATE", "{}")]);
    assert_eq!(model.documents(), (4, 3));
    assert_eq!(on(&model, "1"), ["p Send 1- "]);
    says(&model, "metadata unreadable: expected elements nested at most 32 deep");
    assert!(model.snapshot_wanted().is_some());
}
