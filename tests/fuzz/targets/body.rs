//! What SIP bodies hold: SDP, crypto attributes, multiparts, metadata.

use std::net::{IpAddr, Ipv4Addr};

use floortape::base::limits::{
    METADATA_BYTES_MAX, MULTIPART_PARTS_MAX, SDP_LINES_MAX, SDP_MEDIA_MAX,
};
use floortape::proto::session::normal_aor;
use floortape::wire::metadata::{self as rs_metadata, Document, Root};
use floortape::wire::multipart as mime;
use floortape::wire::sdes::{CryptoLine, blank_keys};
use floortape::wire::sdp::{self as rs_sdp, Connection, Description, Writer};

/// The kept lines hold no key and read the same again; what our writer makes of them does too. What a
/// veil leaves is as long, and has as many lines.
pub fn sdp(data: &[u8]) {
    let veiled = rs_sdp::veil(data, &|line| line % 2 == 0);
    assert_eq!(veiled.len(), data.len());
    assert!(rs_sdp::veil(&veiled, &|line| line % 2 == 0) == veiled, "a second veil hides more");
    let ends = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(ends(&veiled), ends(data));
    let Ok(first) = Description::parse(data) else { return };
    let lines = lines(&first);
    assert!(first.media.len() <= SDP_MEDIA_MAX && lines.len() <= SDP_LINES_MAX);
    for line in &lines {
        assert!(blank_keys(line.as_bytes()) == line.as_bytes(), "a key stands in a kept line");
    }
    for media in &first.media {
        for address in [first.rtp_address(media), first.rtcp_address(media)].into_iter().flatten() {
            assert!(address.port() != 0 && !address.ip().is_unspecified());
        }
    }
    // Blanking may have changed what a line says; the second reading is of blanked lines alone.
    let second = Description::parse(lines.join("\r\n").as_bytes()).expect("lines as kept");
    let kept = self::lines(&second);
    assert_eq!(kept, lines);
    let third = Description::parse(kept.join("\n").as_bytes()).expect("lines as kept");
    assert_eq!(format!("{third:?}"), format!("{second:?}"));
    // Our writer leaves NUL out: it would end the text for some readers.
    if !data.contains(&0) {
        written(&first);
    }
}

fn lines(description: &Description) -> Vec<String> {
    let media = description.media.iter().flat_map(|media| &media.lines);
    description.lines.iter().chain(media).cloned().collect()
}

fn written(description: &Description) {
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 20));
    let mut writer = Writer::new("fuzz", 1, 2, address);
    for media in &description.media {
        let tokens = media.tokens.iter().map(String::as_str);
        writer.media(&media.kind, media.port, &media.transport, tokens);
        media.formats.iter().for_each(|format| writer.format(format));
        if let Some(label) = &media.label {
            writer.attribute(&format!("label:{label}"));
        }
        writer.attribute(description.direction_of(media).name());
    }
    let text = writer.finish();
    let Ok(again) = Description::parse(text.as_bytes()) else {
        panic!("our own description is not read: {text:?}");
    };
    assert_eq!(again.connection, Some(Connection::Address(address)));
    assert_eq!(again.media.len(), description.media.len());
    for (one, other) in description.media.iter().zip(&again.media) {
        assert_eq!((&one.kind, one.port), (&other.kind, other.port));
        assert_eq!((&one.transport, &one.tokens), (&other.transport, &other.tokens));
        assert_eq!(one.label, other.label);
        assert_eq!(other.direction, Some(description.direction_of(one)));
        for (one, other) in one.formats.iter().zip(&other.formats) {
            assert_eq!(one.payload_type, other.payload_type);
            assert_eq!((&one.codec, one.clock_rate), (&other.codec, other.clock_rate));
            assert_eq!((one.channels, &one.fmtp), (other.channels, &other.fmtp));
        }
    }
}

/// A crypto line has keys of its suite's length, survives being written, and is useless once blanked.
pub fn crypto(data: &[u8]) {
    let blank = blank_keys(data);
    assert_eq!(blank.len(), data.len());
    assert!(blank_keys(&blank) == blank, "blanking twice changes more");
    for value in String::from_utf8_lossy(data).lines().take(64) {
        let value = value.strip_prefix("a=crypto:").unwrap_or(value);
        let line = match CryptoLine::parse(value) {
            Ok(line) => line,
            Err(error) => {
                assert!(error.to_string().len() < 200, "a whole line in an error text");
                continue;
            }
        };
        assert!((1..=16).contains(&line.keys.len()) && line.tag <= 999_999_999);
        for key in &line.keys {
            assert_eq!(key.key.expose().len(), line.suite.suite().master_bytes());
            assert!(key.mki.is_none_or(|mki| (1..=128).contains(&mki.length())));
            assert!(key.lifetime.is_none_or(|packets| (1..=1 << 48).contains(&packets)));
            let again = CryptoLine::parse(&CryptoLine::emit(line.tag, line.suite, &key.key))
                .expect("our own line");
            assert_eq!((again.tag, again.suite), (line.tag, line.suite));
            assert!(again.keys[0].key.same(&key.key), "the key changed");
        }
        let blank = blank_keys(value.as_bytes());
        let blank = std::str::from_utf8(&blank).expect("blanking leaves UTF-8");
        assert!(CryptoLine::parse(blank).is_err(), "a key survived blanking");
    }
}

/// The first line is the Content-Type, the rest the body. Parts written again are the same parts.
pub fn multipart(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let content_type = String::from_utf8_lossy(&data[..end]);
    let body = &data[(end + 1).min(data.len())..];
    let Ok(parts) = mime::parse(content_type.trim(), body) else { return };
    assert!(parts.len() <= MULTIPART_PARTS_MAX);
    assert!(parts.iter().map(|part| part.body.len()).sum::<usize>() <= body.len());
    for part in &parts {
        assert!(!part.content_type.is_empty());
        assert_eq!(part.content_type, mime::media_type(&part.content_type));
    }
    let multipart = |part: &mime::Part| part.content_type.starts_with("multipart/");
    if parts.is_empty() || parts.iter().any(multipart) {
        return;
    }
    let (content_type, written) = mime::emit(&parts, "edge");
    let again = mime::parse(&content_type, &written).expect("our own multipart");
    assert_eq!(again, parts);
}

/// A document written again is well-formed and says the same. Under a veil it is as long, ties the same
/// things together, and names nobody who is hidden.
pub fn metadata(data: &[u8]) {
    let Ok(root) = rs_metadata::parse(data, None) else { return };
    if let Root::Recording(document) = &root {
        veiled(data, document);
    }
    match root {
        Root::Recording(first) => {
            assert!(rs_metadata::is_recording(data) || data.first() != Some(&b'<'));
            // A document in a document is read from the inner one on where the outer one breaks.
            if first.extensions.iter().any(|one| one.name == "recording") {
                return;
            }
            let bytes = rs_metadata::emit(&first);
            if bytes.len() > METADATA_BYTES_MAX / 2 {
                return;
            }
            let second = read(&bytes);
            assert_eq!(stripped(&second), stripped(&first));
            let third = read(&rs_metadata::emit(&second));
            assert_eq!(third, second);
        }
        Root::SnapshotRequest { reason } => {
            let bytes = rs_metadata::emit_snapshot_request(reason.as_deref().unwrap_or(""));
            let again = rs_metadata::parse(&bytes, None);
            assert_eq!(again, Ok(Root::SnapshotRequest { reason }));
        }
    }
}

fn veiled(data: &[u8], before: &Document) {
    let alias = |_: &rs_metadata::Id| "x".to_owned();
    let veiled = rs_metadata::veil(data, None, &|_| true, &alias).expect("it was read");
    assert_eq!(veiled.len(), data.len());
    let after = read(&veiled);
    let names = after.participants.iter().flat_map(|participant| &participant.names);
    for name in names {
        let blank = |text: &str| text.chars().all(|c| c == '*' || c.is_whitespace());
        assert!(blank(&name.aor) && name.name.as_deref().is_none_or(blank), "{name:?}");
    }
    for name in before.participants.iter().flat_map(|participant| &participant.names) {
        assert!(!normal_aor(&name.aor).chars().any(|c| c.is_ascii_uppercase()), "{name:?}");
    }
    let ids = |document: &Document| -> Vec<_> {
        let streams = document.streams.iter().map(|one| (one.id.clone(), one.label.clone()));
        streams.collect()
    };
    assert_eq!(ids(&after), ids(before));
    assert_eq!(after.participants.len(), before.participants.len());
    // Nobody hidden: everybody is named as before.
    let open = read(&rs_metadata::veil(data, None, &|_| false, &alias).expect("it was read"));
    let said = |document: &Document| -> Vec<_> {
        let calls = document.sessions.iter();
        let people = document.participants.iter();
        let calls = calls.map(|one| (one.id.clone(), one.sip_session_ids.clone(), Vec::new()));
        let people = people.map(|one| (one.id.clone(), Vec::new(), one.names.clone()));
        calls.chain(people).collect()
    };
    assert_eq!(said(&open), said(before));
}

fn read(bytes: &[u8]) -> Document {
    match rs_metadata::parse(bytes, None) {
        Ok(Root::Recording(document)) => *document,
        other => panic!("expected our own document, found {other:?}"),
    }
}

/// What a document says, without how it was said.
fn stripped(document: &Document) -> Document {
    Document { dialect: Document::default().dialect, quirks: Vec::new(), ..document.clone() }
}
