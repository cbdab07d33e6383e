//! Writes documents in the schema's order (RFC 7865 §9).

use quick_xml::Writer;
use quick_xml::escape::escape;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use super::NAMESPACE;
use super::model::{DataMode, Document, Extension};

/// The document as bytes, `application/rs-metadata+xml`. Extensions are written as they are.
pub fn emit(document: &Document) -> Vec<u8> {
    let mut xml = Xml::new("recording");
    xml.leaf(
        "datamode",
        match document.datamode {
            DataMode::Complete => "complete",
            DataMode::Partial => "partial",
        },
    );
    for group in &document.groups {
        xml.open("group", &[("group_id", group.id.as_str())]);
        xml.times(&group.associate_time, &group.disassociate_time);
        xml.close("group", &group.extensions);
    }
    for session in &document.sessions {
        xml.open("session", &[("session_id", session.id.as_str())]);
        session.sip_session_ids.iter().for_each(|id| xml.leaf("sipSessionID", id));
        for reason in &session.reasons {
            xml.open("reason", &[("cause", &reason.cause), ("protocol", &reason.protocol)]);
            xml.text(&reason.text);
            xml.close("reason", &[]);
        }
        xml.optional("group-ref", session.group.as_ref().map(|id| id.as_str()));
        xml.optional("start-time", session.start_time.as_deref());
        xml.optional("stop-time", session.stop_time.as_deref());
        xml.close("session", &session.extensions);
    }
    for participant in &document.participants {
        xml.open("participant", &[("participant_id", participant.id.as_str())]);
        for name in &participant.names {
            xml.open("nameID", &[("aor", &name.aor)]);
            if let Some(text) = &name.name {
                let language: Vec<_> =
                    name.language.iter().map(|language| ("xml:lang", language.as_str())).collect();
                xml.open("name", &language);
                xml.text(text);
                xml.close("name", &[]);
            }
            xml.close("nameID", &[]);
        }
        xml.close("participant", &participant.extensions);
    }
    for stream in &document.streams {
        let mut attributes = vec![("stream_id", stream.id.as_str())];
        attributes.extend(stream.session.as_ref().map(|id| ("session_id", id.as_str())));
        xml.open("stream", &attributes);
        xml.optional("label", stream.label.as_deref());
        xml.times(&stream.associate_time, &stream.disassociate_time);
        xml.close("stream", &stream.extensions);
    }
    associations(&mut xml, document);
    xml.finish("recording", &document.extensions)
}

fn associations(xml: &mut Xml, document: &Document) {
    for association in &document.session_recording {
        xml.open("sessionrecordingassoc", &[("session_id", association.session.as_str())]);
        xml.times(&association.associate_time, &association.disassociate_time);
        xml.close("sessionrecordingassoc", &association.extensions);
    }
    for association in &document.participant_session {
        xml.open(
            "participantsessionassoc",
            &[
                ("participant_id", association.participant.as_str()),
                ("session_id", association.session.as_str()),
            ],
        );
        xml.times(&association.associate_time, &association.disassociate_time);
        for (name, value) in &association.parameters {
            xml.open("param", &[("pname", name), ("pval", value)]);
            xml.close("param", &[]);
        }
        xml.close("participantsessionassoc", &association.extensions);
    }
    for association in &document.participant_stream {
        xml.open("participantstreamassoc", &[("participant_id", association.participant.as_str())]);
        association.send.iter().for_each(|id| xml.leaf("send", id.as_str()));
        association.recv.iter().for_each(|id| xml.leaf("recv", id.as_str()));
        // Here the times stand behind send and recv.
        xml.times(&association.associate_time, &association.disassociate_time);
        xml.close("participantstreamassoc", &association.extensions);
    }
}

/// A snapshot request (RFC 7865 §7), to be sent in an UPDATE without SDP (RFC 7866 §9.2).
pub fn emit_snapshot_request(reason: &str) -> Vec<u8> {
    let mut xml = Xml::new("requestsnapshot");
    xml.open("requestreason", &[("xml:lang", "en")]);
    xml.text(reason);
    xml.close("requestreason", &[]);
    xml.finish("requestsnapshot", &[])
}

struct Xml(Writer<Vec<u8>>);

impl Xml {
    fn new(root: &str) -> Self {
        let mut xml = Xml(Writer::new(Vec::new()));
        xml.event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
        xml.open(root, &[("xmlns", NAMESPACE)]);
        xml
    }

    fn event(&mut self, event: Event<'_>) {
        self.0.write_event(event).expect("a Vec takes any event");
    }

    fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        let mut start = BytesStart::new(name);
        for (name, value) in attributes {
            let value = clean(value);
            start.push_attribute((*name, value.as_str()));
        }
        self.event(Event::Start(start));
    }

    fn close(&mut self, name: &str, extensions: &[Extension]) {
        for extension in extensions {
            self.0.get_mut().extend_from_slice(extension.xml.as_bytes());
        }
        self.event(Event::End(BytesEnd::new(name)));
    }

    fn text(&mut self, text: &str) {
        // A carriage return that stands as it is would be read as a line feed (XML 1.0 §2.11).
        let text = escape(clean(text)).replace('\r', "&#13;");
        self.event(Event::Text(BytesText::from_escaped(text)));
    }

    fn leaf(&mut self, name: &str, text: &str) {
        self.open(name, &[]);
        self.text(text);
        self.close(name, &[]);
    }

    fn optional(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.leaf(name, text);
        }
    }

    fn times(&mut self, associate: &Option<String>, disassociate: &Option<String>) {
        self.optional("associate-time", associate.as_deref());
        self.optional("disassociate-time", disassociate.as_deref());
    }

    fn finish(mut self, root: &str, extensions: &[Extension]) -> Vec<u8> {
        self.close(root, extensions);
        self.0.into_inner()
    }
}

/// What XML 1.0 can hold of a text (§2.2, Char).
fn clean(text: &str) -> String {
    let is_char = |c: &char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    text.chars().filter(is_char).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Id, Participant, Root, Stream, parse};
    use super::*;

    #[test]
    fn every_character_that_xml_can_hold_comes_back() {
        let text = "a\t\n\r\u{7f}\u{85}<&>\"']]>\u{fffd}\u{10ffff}z";
        let mut document = Document::default();
        let stream =
            Stream { id: Id::new(text), label: Some(text.to_owned()), ..Stream::default() };
        document.streams.push(stream);
        let odd =
            Participant { id: Id::new("\u{1}x\u{fffe}\u{ffff}y\0"), ..Participant::default() };
        document.participants.push(odd);
        let Ok(Root::Recording(again)) = parse(&emit(&document), None) else {
            panic!("expected a recording");
        };
        assert_eq!(again.streams[0].id.as_str(), text);
        assert_eq!(again.streams[0].label.as_deref(), Some(text));
        assert_eq!(again.participants[0].id.as_str(), "xy");
    }
}
