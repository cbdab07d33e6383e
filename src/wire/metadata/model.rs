//! The classes of RFC 7865 §4 and §6 as one document states them. Times are kept as text: the field
//! writes them with and without zone, fraction and colon.

use super::id::Id;

/// Whether a document tells everything or only what changed (RFC 7865 §5.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataMode {
    /// All metadata of this RS at this moment. Also where `datamode` is absent.
    #[default]
    Complete,
    /// Changed elements only.
    Partial,
}

/// Which kind of document it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 7865: namespace `urn:ietf:params:xml:ns:recording:1`.
    #[default]
    Final,
    /// Draft: namespace `urn:ietf:params:xml:ns:recording`, keys `session_id` and so on.
    DraftA,
    /// Draft: the same namespace, keys `id` and `session`, send and recv inside `participant`.
    DraftB,
    /// Draft: root `recording_metadata`, namespace `urn:ietf:params:xml:ns:siprec`.
    DraftC,
    /// The root is known, the namespace is not.
    Unknown,
}

/// An element of a foreign namespace, or one that nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// Namespace; empty where there is none.
    pub namespace: String,
    /// Local name.
    pub name: String,
    /// The element as received, with the namespace declarations it needs.
    pub xml: String,
}

/// Communication Session Group (§6.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// `group_id`
    pub id: Id,
    /// When the grouping formed.
    pub associate_time: Option<String>,
    /// When it ended.
    pub disassociate_time: Option<String>,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

/// `reason` of a session (RFC 3326 values).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// `SIP` where absent.
    pub protocol: String,
    /// Cause code as received.
    pub cause: String,
    /// Text.
    pub text: String,
}

/// Communication Session (§6.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// `session_id`
    pub id: Id,
    /// `sipSessionID` values, white space stripped.
    pub sip_session_ids: Vec<String>,
    /// Why it ended.
    pub reasons: Vec<Reason>,
    /// Its group.
    pub group: Option<Id>,
    /// When it began, by the SRC.
    pub start_time: Option<String>,
    /// When it ended, by the SRC.
    pub stop_time: Option<String>,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

/// One `nameID` (§6.5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Address of record as received.
    pub aor: String,
    /// Display name.
    pub name: Option<String>,
    /// Its `xml:lang`.
    pub language: Option<String>,
}

/// Participant (§6.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Participant {
    /// `participant_id`
    pub id: Id,
    /// Names; a partial document may leave them out.
    pub names: Vec<Name>,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

/// Media Stream (§6.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// `stream_id`
    pub id: Id,
    /// The CS it belongs to.
    pub session: Option<Id>,
    /// `a=label` of its m-line.
    pub label: Option<String>,
    /// From: draft A only, RFC 7865 has no times here.
    pub associate_time: Option<String>,
    /// To: draft A only.
    pub disassociate_time: Option<String>,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

/// CS-RS association (§6.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionRecording {
    /// The CS.
    pub session: Id,
    /// From.
    pub associate_time: Option<String>,
    /// To.
    pub disassociate_time: Option<String>,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

/// Participant-CS association (§6.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParticipantSession {
    /// Who.
    pub participant: Id,
    /// Where.
    pub session: Id,
    /// Joined.
    pub associate_time: Option<String>,
    /// Left.
    pub disassociate_time: Option<String>,
    /// `param`: name and value (Contact feature tags).
    pub parameters: Vec<(String, String)>,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

/// Participant-Stream association (§6.8): the whole set of streams sent and received. Several for one
/// participant are to be united.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParticipantStream {
    /// Who.
    pub participant: Id,
    /// Streams it contributes to.
    pub send: Vec<Id>,
    /// Streams it receives.
    pub recv: Vec<Id>,
    /// From.
    pub associate_time: Option<String>,
    /// To.
    pub disassociate_time: Option<String>,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

/// One document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Complete or partial.
    pub datamode: DataMode,
    /// CS Groups.
    pub groups: Vec<Group>,
    /// Communication Sessions.
    pub sessions: Vec<Session>,
    /// Participants.
    pub participants: Vec<Participant>,
    /// Streams.
    pub streams: Vec<Stream>,
    /// CS-RS associations.
    pub session_recording: Vec<SessionRecording>,
    /// Participant-CS associations.
    pub participant_session: Vec<ParticipantSession>,
    /// Participant-Stream associations.
    pub participant_stream: Vec<ParticipantStream>,
    /// Extensions of the whole document.
    pub extensions: Vec<Extension>,
    /// What kind of document it was.
    pub dialect: Dialect,
    /// What was odd, in words.
    pub quirks: Vec<String>,
}

impl Document {
    /// The stream of that `a=label`.
    pub fn stream_of(&self, label: &str) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.label.as_deref() == Some(label))
    }

    /// Participants that send to and receive from a stream, each once, in order of appearance.
    pub fn ends_of(&self, stream: &Id) -> (Vec<Id>, Vec<Id>) {
        let (mut send, mut recv): (Vec<Id>, Vec<Id>) = (Vec::new(), Vec::new());
        for association in &self.participant_stream {
            for (list, ends) in [(&association.send, &mut send), (&association.recv, &mut recv)] {
                if list.contains(stream) && !ends.contains(&association.participant) {
                    ends.push(association.participant.clone());
                }
            }
        }
        (send, recv)
    }
}
