//! A document without the names of calls that are not to be recorded: each replaced by as many `*`, so
//! that length, encoding and structure stay. Times, labels and who sends what to whom stay too; names,
//! addresses, SIP session ids, reasons, parameters and extensions go. An id that is a UUID stays; another
//! one may be an address, and gets an alias of its length.

use std::ops::Range;

use roxmltree::{Node, NodeType};

use super::id::Id;
use super::node::{id, is_ours, plain, text};
use super::reader::{Encoding, MetadataError, body, decode, is_root, open};

/// What an element of a document is about.
#[derive(Clone, Copy, Debug)]
pub enum Named<'a> {
    /// A participant.
    Participant(&'a Id),
    /// A Communication Session.
    Session(&'a Id),
}

/// The same bytes with everything blanked that says who or what is meant by what `hides` names.
/// Comments, and extensions of the whole document and of groups, are blanked in any case: nobody knows
/// whose they are. `alias`: letters and digits that stand for an id, of which as many are taken as it is
/// long.
///
/// Fails where the bytes are no document of an SRC, as [`super::parse`] does: then nothing in them can
/// be told apart.
pub fn veil(
    bytes: &[u8],
    charset: Option<&str>,
    hides: &dyn Fn(Named<'_>) -> bool,
    alias: &dyn Fn(&Id) -> String,
) -> Result<Vec<u8>, MetadataError> {
    let (text, encoding) = decode(bytes, charset)?;
    let input = body(&text);
    let tree = open(input)?;
    let root = tree.root_element();
    if !is_root(root) {
        let root = root.tag_name().name().chars().take(64).collect();
        return Err(MetadataError::Root { root });
    }
    let mut veil = Veil { input, hides, alias, ranges: Vec::new() };
    veil.remarks(tree.root());
    veil.container(root);
    let offset = input.as_ptr() as usize - text.as_ptr() as usize;
    let mut ranges = veil.ranges;
    ranges.sort_by_key(|(range, _)| range.start);
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for (range, alias) in ranges {
        let (start, end) = ((range.start + offset).max(at), (range.end + offset).max(at));
        encoding.put(&text[at..start], &mut out);
        encoding.fill(&text[start..end], alias.as_deref().unwrap_or(""), &mut out);
        at = end;
    }
    encoding.put(&text[at..], &mut out);
    // Half a unit behind the end of UTF-16, which no reader takes.
    out.extend(bytes.get(out.len()..).unwrap_or_default().iter().map(|_| b'*'));
    Ok(out)
}

impl Encoding {
    /// Writes `text` as it came.
    fn put(self, text: &str, out: &mut Vec<u8>) {
        for c in text.chars() {
            match self {
                Encoding::Utf8 => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
                Encoding::Latin1 => out.push(c as u8),
                Encoding::Utf16 { .. } => {
                    c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| self.unit(*unit, out));
                }
            }
        }
    }

    /// Writes as many units as `text` has: those of `with` again and again, or `*` where it is empty.
    fn fill(self, text: &str, with: &str, out: &mut Vec<u8>) {
        let units = match self {
            Encoding::Utf8 => text.len(),
            Encoding::Latin1 => text.chars().count(),
            Encoding::Utf16 { .. } => text.encode_utf16().count(),
        };
        let with = if with.is_empty() { "*" } else { with };
        for byte in with.bytes().cycle().take(units) {
            match self {
                Encoding::Utf16 { .. } => self.unit(byte.into(), out),
                _ => out.push(byte),
            }
        }
    }

    fn unit(self, unit: u16, out: &mut Vec<u8>) {
        let little = self == Encoding::Utf16 { little: true };
        out.extend(if little { unit.to_le_bytes() } else { unit.to_be_bytes() });
    }
}

struct Veil<'i> {
    input: &'i str,
    hides: &'i dyn Fn(Named<'_>) -> bool,
    alias: &'i dyn Fn(&Id) -> String,
    /// What is replaced, and by which alias; `None`: by stars.
    ranges: Vec<(Range<usize>, Option<String>)>,
}

impl Veil<'_> {
    /// The root, or what draft C puts into it.
    fn container(&mut self, container: Node<'_, '_>) {
        self.between(container);
        for node in container.children().filter(Node::is_element) {
            let is_ours = is_ours(node.tag_name().namespace().unwrap_or(""));
            let name = if is_ours { plain(node.tag_name().name()) } else { String::new() };
            match name.as_str() {
                "datamode" => {}
                "recording" if container.parent_element().is_none() => self.container(node),
                "group" => self.element(node),
                "participant"
                | "session"
                | "stream"
                | "sessionrecordingassoc"
                | "participantsessionassoc"
                | "participantsessassoc"
                | "participantstreamassoc" => {
                    self.ids(&name, node);
                    if self.is_hidden(&name, node) {
                        self.element(node);
                    }
                }
                _ => self.inside(node.range()),
            }
        }
    }

    /// Whether an element is about somebody who is hidden. One without an id is about the empty one.
    fn is_hidden(&self, name: &str, node: Node<'_, '_>) -> bool {
        let of = |names: &[&str]| id(node, names).unwrap_or_default();
        let who = |names: &[&str]| (self.hides)(Named::Participant(&of(names)));
        let call = |names: &[&str]| (self.hides)(Named::Session(&of(names)));
        match name {
            "participant" => who(&["participantid", "id"]),
            "session" => call(&["sessionid", "id"]),
            "stream" => call(&["sessionid", "session"]),
            "sessionrecordingassoc" => call(&["sessionid", "session", "id"]),
            "participantstreamassoc" => who(&["participantid", "participant"]),
            _ => who(&["participantid", "participant"]) || call(&["sessionid", "session"]),
        }
    }

    /// Gives an alias to each id of somebody hidden that is no UUID.
    fn ids(&mut self, name: &str, node: Node<'_, '_>) {
        let hidden = |key: &str, id: &Id| {
            let named = match key {
                "participantid" | "participant" => Named::Participant(id),
                "sessionid" | "session" => Named::Session(id),
                "id" if name == "participant" => Named::Participant(id),
                "id" if matches!(name, "session" | "sessionrecordingassoc") => Named::Session(id),
                _ => return false,
            };
            !id.is_uuid() && !id.as_str().is_empty() && (self.hides)(named)
        };
        let start = node.range().start;
        let raw = &self.input[node.range()];
        let mut found = Vec::new();
        for (own, range) in values(&raw[..tag_length(raw)]) {
            let range = start + range.start..start + range.end;
            let mut attributes = node.attributes();
            let value = attributes.find(|one| one.range_value() == range).map(|one| one.value());
            let id = Id::new(value.unwrap_or(&self.input[range.clone()]));
            if hidden(&plain(local(own)), &id) {
                found.push((range, id));
            }
        }
        for child in node.children().filter(Node::is_element) {
            let id = Id::new(&text(child));
            if hidden(&plain(child.tag_name().name()), &id) {
                let raw = &self.input[child.range()];
                let end = child.range().start + raw.rfind("</").unwrap_or(raw.len());
                found.push((child.range().start + tag_length(raw)..end, id));
            }
        }
        for (range, id) in found {
            let alias = (self.alias)(&id);
            self.replace(range.start, &self.input[range.clone()], Some(alias));
        }
    }

    /// Blanks an element but for what ties it to others and places it in time.
    fn element(&mut self, node: Node<'_, '_>) {
        let raw = &self.input[node.range()];
        self.tag(node.range().start, &raw[..tag_length(raw)], &|name| stays(&plain(local(name))));
        self.between(node);
        for child in node.children().filter(Node::is_element) {
            let own = is_ours(child.tag_name().namespace().unwrap_or(""));
            if !(own && stays(&plain(child.tag_name().name()))) {
                self.inside(child.range());
            }
        }
    }

    /// Blanks text between the children of an element: it may say anything.
    fn between(&mut self, node: Node<'_, '_>) {
        let range = node.range();
        let mut at = range.start + tag_length(&self.input[range.clone()]);
        for child in node.children().filter(Node::is_element) {
            self.text(at..child.range().start);
            at = child.range().end;
        }
        let end = self.input[..range.end].rfind("</").unwrap_or(at);
        self.text(at..end.max(at));
    }

    /// Comments and processing instructions anywhere.
    fn remarks(&mut self, tree: Node<'_, '_>) {
        for node in tree.descendants() {
            if matches!(node.node_type(), NodeType::Comment | NodeType::PI) {
                self.text(node.range());
            }
        }
    }

    /// Blanks the values of all attributes and all text of the element in `range`.
    fn inside(&mut self, range: Range<usize>) {
        let mut at = range.start;
        // Bounded: each round moves on by a byte at least.
        while at < range.end {
            let rest = &self.input[at..range.end];
            at += if is_markup(rest) {
                self.markup(at, rest)
            } else if rest.starts_with('<') {
                let tag = &rest[..tag_length(rest)];
                self.tag(at, tag, &|_| false);
                tag.len()
            } else {
                let text = &rest[..rest.find('<').unwrap_or(rest.len())];
                self.blank(at, text);
                text.len()
            };
        }
    }

    /// Blanks text, in which comments, CDATA and processing instructions may stand.
    fn text(&mut self, range: Range<usize>) {
        let mut at = range.start;
        while at < range.end {
            let rest = &self.input[at..range.end];
            at += if is_markup(rest) {
                self.markup(at, rest)
            } else {
                let end = rest.find('<').filter(|end| *end > 0).unwrap_or(rest.len());
                self.blank(at, &rest[..end]);
                end
            };
        }
    }

    /// Blanks what a comment, CDATA or processing instruction holds; the length of it all.
    fn markup(&mut self, at: usize, rest: &str) -> usize {
        let (open, close) = if rest.starts_with("<!--") {
            (4, "-->")
        } else if rest.starts_with("<![CDATA[") {
            (9, "]]>")
        } else {
            // Its target is a name and has to stay one.
            let target = rest[2..].find(|c: char| c.is_whitespace() || c == '?');
            (target.map_or(rest.len(), |end| 2 + end), "?>")
        };
        let end = rest[open..].find(close).map_or(rest.len(), |end| open + end);
        self.blank(at + open, &rest[open..end]);
        (end + close.len()).min(rest.len())
    }

    /// Blanks the values in a tag; namespaces stay, and what `keeps` names.
    fn tag(&mut self, at: usize, tag: &str, keeps: &dyn Fn(&str) -> bool) {
        for (name, range) in values(tag) {
            let is_xml = ["xmlns", "xml:lang", "xml:space"].contains(&name);
            if !is_xml && !name.starts_with("xmlns:") && !keeps(name) {
                self.blank(at + range.start, &tag[range]);
            }
        }
    }

    fn blank(&mut self, at: usize, text: &str) {
        self.replace(at, text, None);
    }

    /// White space around stays: it is layout.
    fn replace(&mut self, at: usize, text: &str, alias: Option<String>) {
        let start = at + text.len() - text.trim_start().len();
        self.ranges.push((start..start + text.trim().len(), alias));
    }
}

/// The name without its prefix: readers look at nothing else.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

/// Names of the attributes in a tag, and where their values stand in it.
fn values(tag: &str) -> Vec<(&str, Range<usize>)> {
    let mut found = Vec::new();
    let mut place = 0;
    while let Some(equals) = tag[place..].find('=').map(|found| place + found) {
        let quote = tag[equals..].find(['"', '\'']).map(|found| equals + found);
        let Some(quote) = quote else { break };
        let end = tag[quote + 1..].find(&tag[quote..=quote]).map(|found| quote + 1 + found);
        let Some(end) = end else { break };
        let name = tag[place..equals].split_whitespace().next_back().unwrap_or("");
        found.push((name, quote + 1..end));
        place = end + 1;
    }
    found
}

/// Attributes and children that tie an element to others and place it in time.
fn stays(name: &str) -> bool {
    const STAYS: [&str; 17] = [
        "participantid",
        "participant",
        "sessionid",
        "session",
        "streamid",
        "groupid",
        "groupref",
        "group",
        "id",
        "label",
        "send",
        "recv",
        "associatetime",
        "disassociatetime",
        "starttime",
        "stoptime",
        "endtime",
    ];
    STAYS.contains(&name)
}

fn is_markup(rest: &str) -> bool {
    ["<!--", "<![CDATA[", "<?"].iter().any(|mark| rest.starts_with(mark))
}

/// Length of the tag at the beginning; a `>` in quotes is none.
fn tag_length(rest: &str) -> usize {
    let mut quote = None;
    for (at, c) in rest.char_indices() {
        match (quote, c) {
            (None, '>') => return at + 1,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::super::{Document, Root, parse};
    use super::*;

    const BOB: &str = "AAAAAAAAAAAAAAAAAAAAAw==";
    const CS: &str = "AAAAAAAAAAAAAAAAAAAAAQ==";

    fn document(bytes: &[u8]) -> Document {
        match parse(bytes, None) {
            Ok(Root::Recording(document)) => *document,
            other => panic!("{other:?}"),
        }
    }

    fn hide(bytes: &[u8], participant: &str, session: &str) -> Vec<u8> {
        let (participant, session) = (Id::new(participant), Id::new(session));
        let hides = |named: Named<'_>| match named {
            Named::Participant(id) => *id == participant,
            Named::Session(id) => *id == session,
        };
        let alias = |id: &Id| format!("x{}", id.as_str().len());
        let veiled = veil(bytes, None, &hides, &alias).expect("a document");
        assert_eq!(veiled.len(), bytes.len());
        veiled
    }

    fn call() -> String {
        format!(
            "<?xml version=\"1.0\"?>\r\n<!-- Bob calls -->\
             <recording xmlns=\"urn:ietf:params:xml:ns:recording:1\" xmlns:x=\"urn:x\">\
             <session session_id=\"{CS}\"><sipSessionID>b0b;remote=a</sipSessionID>\
             <start-time>2026-01-02T03:04:05Z</start-time><x:desk who='bob'>of <b>Bob</b></x:desk></session>\
             <participant participant_id=\"{BOB}\" x:nick=\"bob\"><nameID aor=\"sip:bob&amp;@x\">\
             <name xml:lang=\"de\"><![CDATA[Böb]]> ü</name></nameID></participant>\
             <participant participant_id=\"ann\"><nameID aor=\"sip:ann@x\"/></participant>\
             <stream stream_id=\"s\" session_id=\"{CS}\"><label>1</label></stream>\
             <participantstreamassoc participant_id=\"{BOB}\"><send>s</send></participantstreamassoc>\
             <x:note><?who bob?>Bob</x:note></recording>\r\n"
        )
    }

    #[test]
    fn names_of_the_hidden_go_and_what_ties_them_together_stays() {
        let xml = call();
        let veiled = String::from_utf8(hide(xml.as_bytes(), BOB, CS)).expect("UTF-8");
        let lower = veiled.to_lowercase();
        assert!(
            !lower.contains("bob") && !lower.contains("böb") && !veiled.contains("b0b"),
            "{veiled}"
        );
        let (before, after) = (document(xml.as_bytes()), document(veiled.as_bytes()));
        assert_eq!(after.participants[1], before.participants[1], "Ann is as she was");
        assert_eq!(after.streams, before.streams);
        assert_eq!(after.participant_stream, before.participant_stream);
        assert_eq!(after.sessions[0].start_time, before.sessions[0].start_time);
        let bob = &after.participants[0];
        assert_eq!(bob.id, before.participants[0].id);
        assert!(bob.names[0].aor.chars().all(|c| c == '*'), "{bob:?}");
    }

    #[test]
    fn who_is_not_hidden_stays_but_for_what_is_nobody_s() {
        let veiled = String::from_utf8(hide(call().as_bytes(), "nobody", "none")).expect("UTF-8");
        assert!(veiled.contains("sip:bob&amp;@x") && veiled.contains("b0b"), "{veiled}");
        assert!(veiled.contains("<!-- ********* -->"), "{veiled}");
        assert!(veiled.contains("<x:note><?who ***?>***</x:note>"), "{veiled}");
    }

    #[test]
    fn other_encodings_and_dialects_keep_their_length_and_are_read_the_same() {
        let draft = "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><recording \
             xmlns=\"urn:ietf:params:xml:ns:recording\"><session id=\"c\"/>\
             <participant id=\"p\" session=\"c\">Bób<nameID aor=\"sip:bób@x\"/><send>s</send></participant>\
             </recording>";
        let latin: Vec<u8> = draft.chars().map(|c| c as u8).collect();
        let veiled = hide(&latin, "p", "c");
        assert_eq!(document(&veiled).participants[0].names[0].aor, "*********");
        let sends = |bytes: &[u8]| document(bytes).participant_stream[0].send.clone();
        assert_eq!(sends(&veiled), sends(&latin));
        let wide = draft.replace("ISO-8859-1", "UTF-16").replace("Bób", "B𝄞b");
        let wide = format!("\u{feff}{wide}");
        let wide: Vec<u8> = wide.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(document(&hide(&wide, "p", "c")).participants[0].names[0].aor, "*********");
        let odd = b"<recording_metadata xmlns=\"urn:ietf:params:xml:ns:siprec\"><recording/>\
            <participant id=\"p\"><aor>sip:bob@x</aor><name>Bob</name></participant>\
            <extensiondata parent=\"p\">Bob</extensiondata></recording_metadata>";
        let veiled = String::from_utf8(hide(odd, "p", "c")).expect("UTF-8");
        assert!(!veiled.to_lowercase().contains("bob"), "{veiled}");
    }

    #[test]
    fn an_id_that_may_be_an_address_gets_an_alias_of_its_length_wherever_it_stands() {
        let xml = "<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\"><session session_id='sip:c@x'/>\
            <participant participant_id=\"sip:bob@x\"/><participant participant_id=\"ann\" \
            session=\"sip:c@x\"/><participantsessionassoc participant_id=\"sip:bob@x\" \
            session_id=\"sip:c@x\"/><participantstreamassoc participant_id=\" sip:bob@x\"><send>s</send>\
            </participantstreamassoc><sessionrecordingassoc><session_id>sip:c@x</session_id>\
            </sessionrecordingassoc></recording>";
        let veiled = hide(xml.as_bytes(), "sip:bob@x", "sip:c@x");
        let after = document(&veiled);
        let (bob, call) = (Id::new("x9x9x9x9x"), Id::new("x7x7x7x"));
        assert_eq!(after.participants[0].id, bob);
        assert_eq!((&after.participants[1].id, &after.sessions[0].id), (&Id::new("ann"), &call));
        assert_eq!(after.participant_stream[0].participant, bob);
        assert_eq!(after.session_recording[0].session, call);
        for member in &after.participant_session {
            assert_eq!(member.session, call);
        }
        assert!(!String::from_utf8_lossy(&veiled).contains("sip:"));
    }

    #[test]
    fn what_is_no_document_of_an_src_is_told() {
        for bytes in [&b"<recording"[..], b"<requestsnapshot/>", b"\xff", b""] {
            assert!(veil(bytes, None, &|_| true, &|_| String::new()).is_err());
        }
    }
}
