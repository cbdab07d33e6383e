//! Reads documents of every dialect that is known (RFC 7865 §5, §6; F54 limits).

use roxmltree::{Node, ParsingOptions};

use crate::base::limits::{METADATA_BYTES_MAX, METADATA_DEPTH_MAX, METADATA_NODES_MAX};

use super::id::Id;
use super::model::{
    DataMode, Dialect, Document, Extension, Group, Name, Participant, ParticipantSession,
    ParticipantStream, Reason, Session, SessionRecording, Stream,
};
use super::node::{attribute, child_text, children, extension, id, is_ours, plain, text};

/// `=` signs between two `<`: attributes of one tag. XML readers compare them pairwise.
const ATTRIBUTES_MAX: usize = 512;

/// Why bytes are no metadata. Media goes on; the bytes are kept raw.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Larger than the limit.
    #[error("expected at most {METADATA_BYTES_MAX} bytes of metadata, found {found}")]
    TooLarge {
        /// Bytes found.
        found: usize,
    },
    /// Not in the encoding it claims, or in one that is not read here.
    #[error("metadata is not in a readable encoding")]
    Encoding,
    /// A tag with too many attributes.
    #[error("expected at most {ATTRIBUTES_MAX} attributes in a tag")]
    TooManyAttributes,
    /// Deeper than the limit.
    #[error("expected elements nested at most {METADATA_DEPTH_MAX} deep")]
    TooDeep,
    /// Not well-formed, a DTD, too many nodes.
    #[error("metadata is not well-formed: {0}")]
    Xml(String),
    /// Another root element.
    #[error("expected the root element recording, found {root}")]
    Root {
        /// Its local name.
        root: String,
    },
}

/// What a document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// Metadata from an SRC.
    Recording(Box<Document>),
    /// A snapshot request from an SRS (RFC 7865 §7).
    SnapshotRequest {
        /// `requestreason`, if any.
        reason: Option<String>,
    },
}

/// Whether the bytes are recording metadata, whatever their media type says.
pub fn is_recording(bytes: &[u8]) -> bool {
    let begins_with_tag = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'<');
    begins_with_tag && matches!(parse(bytes, None), Ok(Root::Recording(_)))
}

/// Reads a document. `charset`: the MIME parameter, which beats the XML declaration (RFC 7865 §5.1,
/// RFC 7303 §3).
pub fn parse(bytes: &[u8], charset: Option<&str>) -> Result<Root, MetadataError> {
    let (decoded, _) = decode(bytes, charset)?;
    let input = body(&decoded);
    let tree = open(input)?;
    let root = tree.root_element();
    match plain(root.tag_name().name()).as_str() {
        "requestsnapshot" => {
            Ok(Root::SnapshotRequest { reason: child_text(root, &["requestreason"]) })
        }
        _ if is_root(root) => {
            let mut reader = Reader { input, document: Document::default(), rank: 0 };
            reader.read(root);
            Ok(Root::Recording(Box::new(reader.document)))
        }
        _ => Err(MetadataError::Root { root: root.tag_name().name().chars().take(64).collect() }),
    }
}

/// Whether it is the root of an SRC's document.
pub(super) fn is_root(root: Node<'_, '_>) -> bool {
    ["recording", "recordingmetadata"].contains(&plain(root.tag_name().name()).as_str())
}

/// What is XML of a decoded document: white space before the declaration is not well-formed, and sent.
pub(super) fn body(decoded: &str) -> &str {
    decoded.trim_start_matches('\u{feff}').trim()
}

/// The tree of a document within the limits.
pub(super) fn open(input: &str) -> Result<roxmltree::Document<'_>, MetadataError> {
    if input.split('<').any(|tag| tag.matches('=').count() > ATTRIBUTES_MAX) {
        return Err(MetadataError::TooManyAttributes);
    }
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: METADATA_NODES_MAX as u32,
        ..ParsingOptions::default()
    };
    let tree = roxmltree::Document::parse_with_options(input, options)
        .map_err(|error| MetadataError::Xml(error.to_string().chars().take(160).collect()))?;
    if depth(tree.root_element()) > METADATA_DEPTH_MAX {
        return Err(MetadataError::TooDeep);
    }
    Ok(tree)
}

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Latin1,
    Utf16 { little: bool },
}

/// UTF-8 as it must be; Latin-1 and UTF-16 where they are declared.
pub(super) fn decode(
    bytes: &[u8],
    charset: Option<&str>,
) -> Result<(String, Encoding), MetadataError> {
    if bytes.len() > METADATA_BYTES_MAX {
        return Err(MetadataError::TooLarge { found: bytes.len() });
    }
    if let Some(little) = match bytes {
        [0xff, 0xfe, ..] => Some(true),
        [0xfe, 0xff, ..] => Some(false),
        _ => None,
    } {
        let unit = |pair: &[u8]| {
            let pair = [pair[0], pair[1]];
            if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
        };
        let units: Vec<u16> = bytes.chunks_exact(2).map(unit).collect();
        let text = String::from_utf16(&units).map_err(|_| MetadataError::Encoding)?;
        return Ok((text, Encoding::Utf16 { little }));
    }
    let declared = charset.map(str::to_owned).or_else(|| declaration(bytes));
    match declared.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "utf-8" | "utf8" | "us-ascii" | "ascii" => {
            let text = String::from_utf8(bytes.to_vec()).map_err(|_| MetadataError::Encoding)?;
            Ok((text, Encoding::Utf8))
        }
        "iso-8859-1" | "latin1" | "windows-1252" => {
            Ok((bytes.iter().map(|byte| char::from(*byte)).collect(), Encoding::Latin1))
        }
        _ => Err(MetadataError::Encoding),
    }
}

/// The encoding of the XML declaration.
fn declaration(bytes: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let declaration = head.trim_start_matches('\u{feff}').trim_start().strip_prefix("<?xml")?;
    let declaration = &declaration[..declaration.find("?>")?];
    let value = declaration.split_once("encoding")?.1.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    value[1..].split(quote).next().map(str::to_owned)
}

/// Depth of the tree, counted without recursion and given up one above the limit.
fn depth(root: Node<'_, '_>) -> usize {
    let (mut deepest, mut now) = (1, 1);
    let mut node = root;
    // Bounded: visits each node once on the way down and once on the way up.
    loop {
        if let Some(child) = node.first_element_child() {
            node = child;
            now += 1;
            deepest = deepest.max(now);
            if deepest > METADATA_DEPTH_MAX {
                return deepest;
            }
            continue;
        }
        loop {
            if node == root {
                return deepest;
            }
            if let Some(next) = node.next_sibling_element() {
                node = next;
                break;
            }
            let Some(parent) = node.parent_element() else { return deepest };
            node = parent;
            now -= 1;
        }
    }
}

struct Reader<'i> {
    input: &'i str,
    document: Document,
    /// Place of the last element in the schema's sequence.
    rank: usize,
}

/// RFC 7865 §9: the sequence in `recording`.
const SEQUENCE: [&str; 8] = [
    "datamode",
    "group",
    "session",
    "participant",
    "stream",
    "sessionrecordingassoc",
    "participantsessionassoc",
    "participantstreamassoc",
];

impl Reader<'_> {
    fn read(&mut self, root: Node<'_, '_>) {
        self.document.dialect = dialect(root);
        if self.document.dialect != Dialect::Final {
            let dialect = self.document.dialect;
            self.quirk(format!("metadata is not of RFC 7865: {dialect:?}"));
        }
        self.read_children(root);
        self.look_at_ids();
    }

    fn quirk(&mut self, text: String) {
        if !self.document.quirks.contains(&text) && self.document.quirks.len() < 64 {
            self.document.quirks.push(text);
        }
    }

    fn read_children(&mut self, container: Node<'_, '_>) {
        for node in container.children().filter(Node::is_element) {
            if !is_ours(node.tag_name().namespace().unwrap_or("")) {
                self.document.extensions.push(extension(node, self.input));
                continue;
            }
            let name = plain(node.tag_name().name());
            self.check_order(&name);
            match name.as_str() {
                "datamode" => self.datamode(node),
                "group" => self.group(node),
                "session" => self.session(node),
                "participant" => self.participant(node),
                "stream" => self.stream(node),
                "sessionrecordingassoc" => self.session_recording(node),
                "participantsessionassoc" | "participantsessassoc" => {
                    self.participant_session(node)
                }
                "participantstreamassoc" => self.participant_stream(node),
                // Draft C: `recording` stands beside the others, or around them.
                "recording" if container.parent_element().is_none() => self.read_children(node),
                _ => {
                    self.quirk(format!("element {} is not of RFC 7865", node.tag_name().name()));
                    self.document.extensions.push(extension(node, self.input));
                }
            }
        }
    }

    fn check_order(&mut self, name: &str) {
        let Some(rank) = SEQUENCE.iter().position(|own| *own == name) else { return };
        if rank < self.rank {
            self.quirk("elements are not in the schema's order".to_owned());
        }
        self.rank = self.rank.max(rank);
    }

    fn datamode(&mut self, node: Node<'_, '_>) {
        let value = text(node);
        if node.tag_name().name() != "datamode" {
            self.quirk(format!("datamode is spelled {}", node.tag_name().name()));
        }
        self.document.datamode = match value.to_ascii_lowercase().as_str() {
            "partial" => DataMode::Partial,
            "complete" => DataMode::Complete,
            _ => {
                self.quirk("datamode is neither complete nor partial".to_owned());
                DataMode::Complete
            }
        };
        if value != "partial" && value != "complete" {
            self.quirk("datamode is not in lower case".to_owned());
        }
    }

    /// The id, or an empty one: an element without an id is kept and told.
    fn id_of(&mut self, node: Node<'_, '_>, names: &[&str]) -> Id {
        id(node, names).unwrap_or_else(|| {
            self.quirk(format!("{} without {}", node.tag_name().name(), names[0]));
            Id::new("")
        })
    }

    fn extensions(&mut self, node: Node<'_, '_>, known: &[&str]) -> Vec<Extension> {
        let foreign = |child: &Node<'_, '_>| {
            child.is_element()
                && (!is_ours(child.tag_name().namespace().unwrap_or(""))
                    || !known.contains(&plain(child.tag_name().name()).as_str()))
        };
        node.children().filter(foreign).map(|child| extension(child, self.input)).collect()
    }

    fn group(&mut self, node: Node<'_, '_>) {
        let group = Group {
            id: self.id_of(node, &["groupid", "id"]),
            associate_time: child_text(node, &["associatetime"]),
            disassociate_time: child_text(node, &["disassociatetime"]),
            extensions: self
                .extensions(node, &["associatetime", "disassociatetime", "groupid", "id"]),
        };
        self.document.groups.push(group);
    }

    fn session(&mut self, node: Node<'_, '_>) {
        let known = [
            "sipsessionid",
            "reason",
            "groupref",
            "starttime",
            "stoptime",
            "endtime",
            "sessionid",
            "id",
        ];
        let named = |wanted: &'static str| {
            children(node).filter(move |(name, _)| name == wanted).map(|(_, child)| child)
        };
        let session = Session {
            id: self.id_of(node, &["sessionid", "id"]),
            // A plain string in the schema, broken over lines in the RFC's own examples.
            sip_session_ids: named("sipsessionid")
                .map(|child| text(child).split_whitespace().collect())
                .collect(),
            reasons: named("reason")
                .map(|child| Reason {
                    protocol: attribute(child, &["protocol"]).unwrap_or("SIP").to_owned(),
                    cause: attribute(child, &["cause"]).unwrap_or_default().to_owned(),
                    text: text(child),
                })
                .collect(),
            group: child_text(node, &["groupref"])
                .or_else(|| attribute(node, &["groupid", "group"]).map(str::to_owned))
                .map(|text| Id::new(&text)),
            start_time: child_text(node, &["starttime"]),
            // Cisco writes end-time (RFC 7865 §6.1 against §6.3).
            stop_time: child_text(node, &["stoptime"]).or_else(|| child_text(node, &["endtime"])),
            extensions: self.extensions(node, &known),
        };
        self.document.sessions.push(session);
    }

    fn participant(&mut self, node: Node<'_, '_>) {
        let known = [
            "nameid",
            "aor",
            "name",
            "send",
            "recv",
            "associatetime",
            "disassociatetime",
            "participantid",
            "id",
        ];
        let participant = self.id_of(node, &["participantid", "id"]);
        let names = names(node);
        let extensions = self.extensions(node, &known);
        // Draft B and C: the associations stand inside.
        let (send, recv) = (ends(node, "send"), ends(node, "recv"));
        if !send.is_empty() || !recv.is_empty() {
            self.document.participant_stream.push(ParticipantStream {
                participant: participant.clone(),
                send,
                recv,
                associate_time: child_text(node, &["associatetime"]),
                disassociate_time: child_text(node, &["disassociatetime"]),
                extensions: Vec::new(),
            });
        }
        if let Some(session) = attribute(node, &["sessionid", "session"]) {
            self.document.participant_session.push(ParticipantSession {
                participant: participant.clone(),
                session: Id::new(session),
                associate_time: child_text(node, &["associatetime"]),
                disassociate_time: child_text(node, &["disassociatetime"]),
                parameters: Vec::new(),
                extensions: Vec::new(),
            });
        }
        self.document.participants.push(Participant { id: participant, names, extensions });
    }

    fn stream(&mut self, node: Node<'_, '_>) {
        let known = [
            "label",
            "streamid",
            "id",
            "sessionid",
            "session",
            "associatetime",
            "disassociatetime",
        ];
        let stream = Stream {
            id: self.id_of(node, &["streamid", "id"]),
            session: id(node, &["sessionid", "session"]),
            label: child_text(node, &["label"])
                .or_else(|| attribute(node, &["label"]).map(str::to_owned)),
            associate_time: child_text(node, &["associatetime"]),
            disassociate_time: child_text(node, &["disassociatetime"]),
            extensions: self.extensions(node, &known),
        };
        self.document.streams.push(stream);
    }

    fn session_recording(&mut self, node: Node<'_, '_>) {
        let association = SessionRecording {
            session: self.id_of(node, &["sessionid", "session", "id"]),
            associate_time: child_text(node, &["associatetime"]),
            disassociate_time: child_text(node, &["disassociatetime"]),
            extensions: self.extensions(node, &["associatetime", "disassociatetime"]),
        };
        self.document.session_recording.push(association);
    }

    fn participant_session(&mut self, node: Node<'_, '_>) {
        let parameter = |child: Node<'_, '_>| {
            let value = |name| attribute(child, &[name]).unwrap_or_default().to_owned();
            (value("pname"), value("pval"))
        };
        let association = ParticipantSession {
            participant: self.id_of(node, &["participantid", "participant"]),
            session: self.id_of(node, &["sessionid", "session"]),
            associate_time: child_text(node, &["associatetime"]),
            disassociate_time: child_text(node, &["disassociatetime"]),
            parameters: children(node)
                .filter(|(name, _)| name == "param")
                .map(|(_, child)| parameter(child))
                .collect(),
            extensions: self.extensions(node, &["associatetime", "disassociatetime", "param"]),
        };
        self.document.participant_session.push(association);
    }

    fn participant_stream(&mut self, node: Node<'_, '_>) {
        let known = ["send", "recv", "associatetime", "disassociatetime"];
        let association = ParticipantStream {
            participant: self.id_of(node, &["participantid", "participant"]),
            send: ends(node, "send"),
            recv: ends(node, "recv"),
            associate_time: child_text(node, &["associatetime"]),
            disassociate_time: child_text(node, &["disassociatetime"]),
            extensions: self.extensions(node, &known),
        };
        self.document.participant_stream.push(association);
    }

    fn look_at_ids(&mut self) {
        let document = &self.document;
        let odd = document
            .sessions
            .iter()
            .map(|session| &session.id)
            .chain(document.participants.iter().map(|participant| &participant.id))
            .chain(document.streams.iter().map(|stream| &stream.id))
            .any(|id| !id.is_uuid());
        if odd {
            self.quirk("ids are not base64 of 16 octets (RFC 7865 section 6.10)".to_owned());
        }
    }
}

fn names(node: Node<'_, '_>) -> Vec<Name> {
    let mut names: Vec<Name> = children(node)
        .filter(|(name, _)| name == "nameid")
        .map(|(_, child)| Name {
            aor: attribute(child, &["aor"])
                .map(str::to_owned)
                .or_else(|| child_text(child, &["aor"]))
                .unwrap_or_default()
                .trim()
                .to_owned(),
            name: child_text(child, &["name"]),
            language: language(child),
        })
        .collect();
    if names.is_empty() {
        // Draft C: `aor` and `name` as children of the participant.
        let aors = children(node).filter(|(name, _)| name == "aor").map(|(_, child)| text(child));
        names = aors
            .map(|aor| Name { aor, name: child_text(node, &["name"]), language: None })
            .collect();
    }
    names
}

fn language(name_id: Node<'_, '_>) -> Option<String> {
    let (_, name) = children(name_id).find(|(name, _)| name == "name")?;
    attribute(name, &["lang"]).map(str::to_owned)
}

/// Stream ids of all children of that name; draft C wraps each in an `id` element.
fn ends(node: Node<'_, '_>, wanted: &str) -> Vec<Id> {
    children(node)
        .filter(|(name, _)| name == wanted)
        .filter_map(|(_, child)| {
            let stated = text(child);
            let inner = || id(child, &["id", "streamid"]);
            if stated.is_empty() { inner() } else { Some(Id::new(&stated)) }
        })
        .collect()
}

fn dialect(root: Node<'_, '_>) -> Dialect {
    let namespace = root.tag_name().namespace().unwrap_or("");
    if namespace == super::NAMESPACE {
        Dialect::Final
    } else if plain(root.tag_name().name()) == "recordingmetadata"
        || namespace.starts_with("urn:ietf:params:xml:ns:siprec")
    {
        Dialect::DraftC
    } else if namespace.starts_with("urn:ietf:params:xml:ns:recording") {
        let short_keys = children(root).any(|(name, child)| {
            name == "participant" && attribute(child, &["participantid"]).is_none()
        });
        if short_keys { Dialect::DraftB } else { Dialect::DraftA }
    } else {
        Dialect::Unknown
    }
}
