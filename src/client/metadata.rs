//! The complete RFC 7865 document of a [`Call`].

use std::fmt::Write;

use super::call::{Call, Uid};

/// The document. `at`: RFC 3339 time at which the call, its parties and streams came to be.
///
/// Order of elements is that of the schema (RFC 7865 §9), which is a sequence.
pub fn complete(call: &Call, at: &str) -> String {
    let mut xml = Document(String::with_capacity(4_096));
    let session = call.session.base64();
    xml.line("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    xml.line("<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">");
    xml.line("<datamode>complete</datamode>");
    xml.line(&format!("<group group_id=\"{}\">", call.group.base64()));
    xml.line(&format!("<associate-time>{at}</associate-time></group>"));
    xml.line(&format!("<session session_id=\"{session}\">"));
    xml.line(&format!("<sipSessionID>{}</sipSessionID>", call.sip_session_id()));
    xml.line(&format!("<group-ref>{}</group-ref>", call.group.base64()));
    xml.line(&format!("<start-time>{at}</start-time></session>"));
    for party in &call.parties {
        let (aor, name) = (escaped(&party.aor), escaped(&party.name));
        xml.line(&format!("<participant participant_id=\"{}\">", party.id.base64()));
        xml.line(&format!("<nameID aor=\"{aor}\"><name xml:lang=\"en\">{name}</name></nameID>"));
        xml.line("</participant>");
    }
    for stream in &call.streams {
        let (id, label) = (stream.id.base64(), escaped(&stream.label));
        xml.line(&format!("<stream stream_id=\"{id}\" session_id=\"{session}\">"));
        xml.line(&format!("<label>{label}</label></stream>"));
    }
    xml.line(&format!("<sessionrecordingassoc session_id=\"{session}\">"));
    xml.line(&format!("<associate-time>{at}</associate-time></sessionrecordingassoc>"));
    for party in &call.parties {
        let id = party.id.base64();
        xml.line(&format!(
            "<participantsessionassoc participant_id=\"{id}\" session_id=\"{session}\">"
        ));
        xml.line(&format!("<associate-time>{at}</associate-time></participantsessionassoc>"));
    }
    for (place, party) in call.parties.iter().enumerate() {
        let id = party.id.base64();
        xml.line(&format!("<participantstreamassoc participant_id=\"{id}\">"));
        // The schema wants every send before every recv, and times after both (RFC 7865 §6.8.1).
        xml.ends("send", call, |stream| call.sends(place, stream));
        xml.ends("recv", call, |stream| call.hears(place, stream));
        xml.line(&format!("<associate-time>{at}</associate-time></participantstreamassoc>"));
    }
    xml.line("</recording>");
    xml.0
}

struct Document(String);

impl Document {
    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push_str("\r\n");
    }

    fn ends(&mut self, element: &str, call: &Call, holds: impl Fn(usize) -> bool) {
        for (place, stream) in call.streams.iter().enumerate() {
            if holds(place) {
                let id = stream.id.base64();
                write!(self.0, "<{element}>{id}</{element}>\r\n").expect("a String takes any text");
            }
        }
    }
}

impl Call {
    /// The SIP session id of the Communication Session (RFC 7989): both ends' halves.
    pub fn sip_session_id(&self) -> String {
        let half = |place: usize| {
            self.parties.get(place).map_or("0".repeat(32), |party| Uid::hex(&party.sip_session))
        };
        format!("{};remote={}", half(0), half(1))
    }
}

/// Text for an attribute or an element.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 §2.2 has no other control characters.
            '\t' | '\n' | '\r' => out.push(' '),
            letter if letter.is_control() => {}
            letter => out.push(letter),
        }
    }
    out
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
        let xml = complete(&call, "2026-01-05T09:30:00Z");
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
        assert!(ends.contains(&format!("<send>{one}</send>\r\n<recv>{two}</recv>")));
    }
}
