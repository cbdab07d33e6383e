//! Claims about reading and writing metadata.

use super::*;
use crate::base::limits::{METADATA_BYTES_MAX, METADATA_DEPTH_MAX, METADATA_NODES_MAX};
use crate::base::prng::Prng;

fn document(xml: &str) -> Document {
    match parse(xml.as_bytes(), None) {
        Ok(Root::Recording(document)) => *document,
        other => panic!("no recording: {other:?}"),
    }
}

/// Every element and attribute of the schema, once.
const FULL: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<recording xmlns="urn:ietf:params:xml:ns:recording:1" xmlns:x="http://example.com/x">
  <datamode>complete</datamode>
  <group group_id="AAAAAAAAAAAAAAAAAAAAAQ==">
    <associate-time>2026-01-02T03:04:05Z</associate-time><x:desk n="1">a &amp; b<!-- c --></x:desk>
  </group>
  <session session_id="AAAAAAAAAAAAAAAAAAAAAg==">
    <sipSessionID>ab30317f1a784dc48ff824d0d3715d86;
      remote=47755a9de7794ba387653f2099600ef2</sipSessionID>
    <reason cause="200" protocol="Q.850">call <!-- x -->completed</reason>
    <group-ref>AAAAAAAAAAAAAAAAAAAAAQ==
    </group-ref>
    <start-time>2026-01-02T03:04:05.123+0000</start-time>
  </session>
  <participant participant_id="AAAAAAAAAAAAAAAAAAAAAw==">
    <nameID aor="sip:zoë@example.com"><name xml:lang="nl">Zoë</name></nameID>
    <nameID aor="tel:+31201234567"/>
  </participant>
  <stream stream_id="AAAAAAAAAAAAAAAAAAAABA==" session_id="AAAAAAAAAAAAAAAAAAAAAg==">
    <label>a_leg</label>
  </stream>
  <sessionrecordingassoc session_id="AAAAAAAAAAAAAAAAAAAAAg=="/>
  <participantsessionassoc participant_id="AAAAAAAAAAAAAAAAAAAAAw==" session_id="AAAAAAAAAAAAAAAAAAAAAg==">
    <associate-time>2026-01-02T03:04:05Z</associate-time>
    <param pname="+sip.rendering" pval="no"/>
  </participantsessionassoc>
  <participantstreamassoc participant_id="AAAAAAAAAAAAAAAAAAAAAw==">
    <send>AAAAAAAAAAAAAAAAAAAABA==</send><recv>AAAAAAAAAAAAAAAAAAAABQ==</recv>
    <associate-time>2026-01-02T03:04:05Z</associate-time>
  </participantstreamassoc>
  <x:all/>
</recording>"#;

#[test]
fn every_element_of_the_schema_is_read() {
    let full = document(FULL);
    assert_eq!((full.dialect, full.quirks.as_slice()), (Dialect::Final, [].as_slice()));
    assert_eq!(full.groups[0].extensions[0].name, "desk");
    // It stands alone: the declarations of `recording` came along.
    let xml = &full.groups[0].extensions[0].xml;
    assert!(xml.contains(" xmlns:x=\"http://example.com/x\""), "{xml}");
    assert!(xml.ends_with(" n=\"1\">a &amp; b<!-- c --></x:desk>"), "{xml}");
    assert!(roxmltree::Document::parse(xml).is_ok());
    let session = &full.sessions[0];
    assert_eq!(
        session.sip_session_ids,
        ["ab30317f1a784dc48ff824d0d3715d86;remote=47755a9de7794ba387653f2099600ef2"]
    );
    assert_eq!(session.reasons[0].text, "call completed");
    assert_eq!(session.group.as_ref(), Some(&full.groups[0].id));
    assert_eq!(session.start_time.as_deref(), Some("2026-01-02T03:04:05.123+0000"));
    assert_eq!(full.participants[0].names[0].name.as_deref(), Some("Zoë"));
    assert_eq!(full.participants[0].names[0].language.as_deref(), Some("nl"));
    assert_eq!(full.participants[0].names[1].aor, "tel:+31201234567");
    assert_eq!(full.streams[0].label.as_deref(), Some("a_leg"));
    let parameters = &full.participant_session[0].parameters;
    assert_eq!(parameters, &[("+sip.rendering".to_owned(), "no".to_owned())]);
    assert_eq!(full.extensions[0].namespace, "http://example.com/x");
    let (send, recv) = full.ends_of(&full.streams[0].id);
    assert_eq!((send, recv.len()), (vec![full.participants[0].id.clone()], 0));
}

#[test]
fn a_written_document_reads_back_equal_and_its_extensions_stand_alone() {
    let full = document(FULL);
    let text = String::from_utf8(emit(&full)).expect("UTF-8");
    let mut back = document(&text);
    // Extensions carry more declarations the second time, never fewer.
    let (once, twice) = (&full.groups[0].extensions[0], &back.groups[0].extensions[0]);
    assert_eq!((&once.name, &once.namespace), (&twice.name, &twice.namespace));
    back.groups[0].extensions = full.groups[0].extensions.clone();
    back.extensions = full.extensions.clone();
    assert_eq!(back, full);
    let request = emit_snapshot_request("restart < 1");
    let reason = Some("restart < 1".to_owned());
    assert_eq!(parse(&request, None), Ok(Root::SnapshotRequest { reason }));
}

#[test]
fn dialects_are_read_by_local_name_and_named() {
    let a = document(
        r#"<r:recording xmlns:r="urn:ietf:params:xml:ns:recording"><r:dataMode>Partial</r:dataMode>
        <r:stream id="s1" session="c1"><r:label>1</r:label></r:stream>
        <r:participant participant_id="p1"><r:nameID aor="sip:a@b"/></r:participant></r:recording>"#,
    );
    assert_eq!((a.dialect, a.datamode), (Dialect::DraftA, DataMode::Partial));
    assert_eq!(a.streams[0].id, Id::new("s1"));
    assert!(a.quirks.iter().any(|quirk| quirk.contains("order")));
    assert!(a.quirks.iter().any(|quirk| quirk.contains("spelled dataMode")));
    let b = document(
        r#"<recording xmlns="urn:ietf:params:xml:ns:recording"><session id="c1"/>
        <participant id="p1" session="c1"><nameID aor="sip:a@b"/><send>s1</send><recv>s2</recv>
        <extensiondata><x>1</x></extensiondata></participant>
        <stream id="s1" session="c1"><label>1</label><mode>separate</mode></stream></recording>"#,
    );
    assert_eq!(b.dialect, Dialect::DraftB);
    assert_eq!(b.participant_stream[0].send, [Id::new("s1")]);
    assert_eq!(b.participant_session[0].session, Id::new("c1"));
    assert_eq!(b.participants[0].extensions[0].name, "extensiondata");
    let c = document(
        r#"<recording_metadata xmlns="urn:ietf:params:xml:ns:siprec"><recording id="r"><x/></recording>
        <session id="urn:uuid:1"/><participant id="urn:uuid:2"><aor>sip:a@b</aor><send><id>urn:uuid:3</id></send>
        </participant><stream id="urn:uuid:3"><label>1</label></stream></recording_metadata>"#,
    );
    assert_eq!(c.dialect, Dialect::DraftC);
    assert_eq!(c.participants[0].names[0].aor, "sip:a@b");
    assert_eq!(c.ends_of(&Id::new("urn:uuid:3")).0, [Id::new("urn:uuid:2")]);
}

#[test]
fn an_extension_takes_its_namespaces_along_and_takes_on_none() {
    let extension = |xml: &str| document(xml).extensions[0].xml.clone();
    // Without a namespace it has none in our own document either, and neither have its children.
    assert_eq!(extension("<recording><x><y/></x></recording>"), r#"<x xmlns=""><y/></x>"#);
    let prefixed = r#"<r:recording xmlns:r="urn:ietf:params:xml:ns:recording:1" xmlns:v="urn:v"><v:x><y/></v:x></r:recording>"#;
    assert_eq!(extension(prefixed), r#"<v:x xmlns:v="urn:v" xmlns=""><y/></v:x>"#);
    let own = r#"<recording xmlns="urn:ietf:params:xml:ns:recording:1"><x xmlns = 'urn:v' a="xmlns:b=>"/></recording>"#;
    assert_eq!(extension(own), r#"<x xmlns = 'urn:v' a="xmlns:b=>"/>"#);
    let odd =
        r#"<recording xmlns:b="urn:b"><x xmlns="urn:v" a=">" n="xmlns:b=''" b:c="1"/></recording>"#;
    let xml = extension(odd);
    assert_eq!(xml, r#"<x xmlns:b="urn:b" xmlns="urn:v" a=">" n="xmlns:b=''" b:c="1"/>"#);
    assert!(roxmltree::Document::parse(&xml).is_ok());
}

#[test]
fn hostile_xml_is_refused_by_its_own_limit() {
    let wrap = |inner: &str| format!("<recording>{inner}</recording>");
    let fault = |xml: &str| parse(xml.as_bytes(), None).expect_err("hostile");
    let bomb =
        "<!DOCTYPE r [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><recording>&b;</recording>";
    assert!(matches!(fault(bomb), MetadataError::Xml(_)));
    let external = "<!DOCTYPE r SYSTEM \"file:///etc/passwd\"><recording/>";
    assert!(matches!(fault(external), MetadataError::Xml(_)));
    let nest = |n: usize| wrap(&format!("{}{}", "<a>".repeat(n), "</a>".repeat(n)));
    assert!(parse(nest(METADATA_DEPTH_MAX - 1).as_bytes(), None).is_ok());
    assert_eq!(fault(&nest(METADATA_DEPTH_MAX)), MetadataError::TooDeep);
    assert_eq!(fault(&nest(9_000)), MetadataError::TooDeep);
    assert!(matches!(fault(&wrap(&"<a/>".repeat(METADATA_NODES_MAX))), MetadataError::Xml(_)));
    let large = wrap(&" ".repeat(METADATA_BYTES_MAX));
    assert!(matches!(fault(&large), MetadataError::TooLarge { .. }));
    let attributes: String = (0..600).map(|n| format!(" a{n}=\"\"")).collect();
    assert_eq!(fault(&format!("<recording{attributes}/>")), MetadataError::TooManyAttributes);
    assert!(matches!(fault("<html/>"), MetadataError::Root { .. }));
    assert!(matches!(fault("<recording>"), MetadataError::Xml(_)));
}

#[test]
fn encodings_are_those_declared_and_mime_beats_the_declaration() {
    let latin = b"<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><recording><participant id=\"\xe9\"/></recording>";
    let Ok(Root::Recording(read)) = parse(latin, None) else { panic!("latin-1") };
    assert_eq!(read.participants[0].id, Id::new("é"));
    assert_eq!(parse(latin, Some("utf-8")), Err(MetadataError::Encoding));
    assert_eq!(parse(b"<recording>\xff</recording>", None), Err(MetadataError::Encoding));
    let wide: Vec<u8> = "\u{feff}<recording/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(parse(&wide, None).is_ok());
    assert!(parse("\u{feff}\n <?xml version=\"1.0\"?><recording/>".as_bytes(), None).is_ok());
}

#[test]
fn mutations_never_panic() {
    let mut prng = Prng::new(7865);
    let mut read = 0;
    for _ in 0..5_000 {
        let mut bytes = FULL.as_bytes().to_vec();
        for _ in 0..=prng.below(5) {
            let at = prng.below(bytes.len() as u64) as usize;
            match prng.below(4) {
                0 => bytes[at] = prng.next_u64() as u8,
                1 if bytes.len() > 1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"<>/\"&;: "[prng.below(8) as usize]),
                _ => bytes.swap(at, 0),
            }
        }
        if let Ok(Root::Recording(document)) = parse(&bytes, None) {
            read += 1;
            emit(&document);
        }
    }
    assert!(read > 50, "{read}");
}
