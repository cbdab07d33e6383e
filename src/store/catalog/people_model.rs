//! People, sessions and what else metadata says, as the interface contract shows them. Times `from`
//! and `to` are ours: arrival of the document that said so. `stated_from` and `stated_to` are the
//! SRC's own, as received.

use serde::{Deserialize, Serialize};

use crate::base::time::Wall;

/// When something held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// Arrival of the document that said it began.
    pub from: Wall,
    /// Arrival of the one that ended it; null while it lasts.
    pub to: Option<Wall>,
    /// The beginning by the SRC, if it gave one.
    pub stated_from: Option<String>,
    /// The end by the SRC.
    pub stated_to: Option<String>,
    /// Milliseconds from our time of the beginning to the SRC's: negative where its clock is behind ours, or
    /// where the document came late. Absent where it stated none that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stated_offset_ms: Option<i64>,
}

/// A Communication Session (RFC 7865 §6.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// As received.
    pub session_id: String,
    /// SRC-stated start, as received, else null.
    pub start: Option<String>,
    /// SRC-stated stop.
    pub stop: Option<String>,
    /// Group id, if any.
    pub group: Option<String>,
    /// `sipSessionID` values, white space stripped.
    pub sip_session_ids: Vec<String>,
    /// When it ran, as far as this RS was told.
    #[serde(default)]
    pub periods: Vec<Period>,
    /// When it was part of this RS (`sessionrecordingassoc`), where the SRC said.
    #[serde(default)]
    pub recorded: Vec<Period>,
    /// Why it ended.
    #[serde(default)]
    pub reasons: Vec<Reason>,
    /// Who was in it.
    #[serde(default)]
    pub members: Vec<Member>,
    /// Labels of the lines that carried it.
    #[serde(default)]
    pub lines: Vec<LabelPeriod>,
    /// All its groups, where it had more than one.
    #[serde(default)]
    pub groups: Vec<MemberGroup>,
    /// False where documents refer to it and none describes it.
    #[serde(default)]
    pub defined: bool,
}

/// A `reason`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// `SIP` or another.
    pub protocol: String,
    /// As received.
    pub cause: String,
    /// As received.
    pub text: String,
}

/// A participant in a session, once for each time it joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub participant_id: String,
    /// When.
    #[serde(flatten)]
    pub period: Period,
    /// `param` values: Contact feature tags.
    pub parameters: Vec<(String, String)>,
}

/// A group of a session for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberGroup {
    /// As received.
    pub group_id: String,
    /// When.
    #[serde(flatten)]
    pub period: Period,
}

/// A participant (RFC 7865 §6.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// As received.
    pub participant_id: String,
    /// Its names, the latest.
    pub names: Vec<Name>,
    /// Names that it had before.
    #[serde(default)]
    pub former_names: Vec<RenamedFrom>,
    /// When it was there.
    #[serde(default)]
    pub periods: Vec<Period>,
    /// False where documents refer to it and none describes it.
    #[serde(default)]
    pub defined: bool,
}

/// One `nameID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Address of record, as received.
    pub aor: String,
    /// Display name.
    pub name: Option<String>,
}

/// Names until they were replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenamedFrom {
    /// The names.
    pub names: Vec<Name>,
    /// When.
    #[serde(flatten)]
    pub period: Period,
}

/// Participant ids by direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// They contribute to it.
    pub send: Vec<String>,
    /// They hear it.
    pub recv: Vec<String>,
}

/// A participant on a line for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    /// Who.
    pub participant_id: String,
    /// `send` or `recv`.
    pub direction: String,
    /// By which stream element.
    pub stream_id: String,
    /// When.
    #[serde(flatten)]
    pub period: Period,
}

/// What the documents of an RS said beside sessions, participants and lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Documents that came, retransmissions aside.
    pub documents: u32,
    /// How many of them could not be read; their bytes are in an export.
    pub unreadable: u32,
    /// Dialects: `RFC 7865`, `draft A` and so on.
    pub dialects: Vec<String>,
    /// Why the state is in doubt until a complete document comes; null where it is not.
    pub snapshot_wanted: Option<String>,
    /// CS Groups.
    pub groups: Vec<GroupSeen>,
    /// Stream elements, those of lines that are not recorded too.
    pub streams: Vec<MediaStream>,
    /// Elements of other namespaces, as received.
    pub extensions: Vec<ExtensionSeen>,
}

/// A CS Group (RFC 7865 §6.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSeen {
    /// As received.
    pub group_id: String,
    /// When.
    pub periods: Vec<Period>,
    /// False where documents refer to it and none describes it.
    pub defined: bool,
}

/// A stream element (RFC 7865 §6.7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaStream {
    /// As received.
    pub stream_id: String,
    /// When.
    pub periods: Vec<Period>,
    /// Which lines it was, one after the other.
    pub labels: Vec<LabelPeriod>,
    /// Which CS it belonged to, one after the other.
    pub sessions: Vec<SessionPeriod>,
    /// Who was on it.
    pub associations: Vec<Attached>,
    /// False where documents refer to it and none describes it.
    pub defined: bool,
}

/// A label of a stream element for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelPeriod {
    /// `a=label`.
    pub label: String,
    /// When.
    #[serde(flatten)]
    pub period: Period,
}

/// A CS of a stream element for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPeriod {
    /// As received.
    pub session_id: String,
    /// When.
    #[serde(flatten)]
    pub period: Period,
}

/// A participant on a stream element for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Who.
    pub participant_id: String,
    /// `send` or `recv`.
    pub direction: String,
    /// When.
    #[serde(flatten)]
    pub period: Period,
}

/// An extension for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionSeen {
    /// `recording`, `group`, `session`, `participant`, `stream`, or an association's element name.
    pub of: String,
    /// Ids of that element; none of `recording`, two of `participantsessionassoc`.
    pub ids: Vec<String>,
    /// Namespace; empty where there is none.
    pub namespace: String,
    /// Local name.
    pub name: String,
    /// The elements of that name there, as received.
    pub xml: Vec<String>,
    /// When.
    #[serde(flatten)]
    pub period: Period,
}
