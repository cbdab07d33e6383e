//! The classes of RFC 7865 §6 with their past.

use super::span::{Spans, Succession};
use crate::base::time::Wall;
use crate::wire::metadata::{Id, Name, Reason};

/// Communication Session Group (§6.2).
#[derive(Clone, Debug)]
pub struct GroupPast {
    /// `group_id`, as first received.
    pub id: Id,
    /// Whether an element of its own described it, or it is only referred to.
    pub defined: bool,
    /// When it was there; stated: associate- and disassociate-time.
    pub spans: Spans,
}

impl GroupPast {
    pub(super) fn of(id: &Id) -> Self {
        GroupPast { id: id.clone(), defined: false, spans: Spans::default() }
    }
}

/// Communication Session (§6.3).
#[derive(Clone, Debug)]
pub struct SessionPast {
    /// `session_id`, as first received.
    pub id: Id,
    /// Whether an element of its own described it.
    pub defined: bool,
    /// When it ran; stated: start- and stop-time.
    pub spans: Spans,
    /// When it was part of this RS (`sessionrecordingassoc`, §6.4), where the SRC said.
    pub recorded: Spans,
    /// The lists of `sipSessionID` values, one after the other.
    pub sip_session_ids: Succession<Vec<String>>,
    /// Why it ended.
    pub reasons: Vec<Reason>,
    /// Its groups, one after the other.
    pub groups: Succession<Id>,
}

impl SessionPast {
    pub(super) fn of(id: &Id) -> Self {
        SessionPast {
            id: id.clone(),
            defined: false,
            spans: Spans::default(),
            recorded: Spans::default(),
            sip_session_ids: Succession::default(),
            reasons: Vec::new(),
            groups: Succession::default(),
        }
    }
}

/// Participant (§6.5).
#[derive(Clone, Debug)]
pub struct ParticipantPast {
    /// `participant_id`, as first received.
    pub id: Id,
    /// Whether an element of its own described it.
    pub defined: bool,
    /// When it was there.
    pub spans: Spans,
    /// The lists of names, one after the other.
    pub names: Succession<Vec<Name>>,
}

impl ParticipantPast {
    pub(super) fn of(id: &Id) -> Self {
        ParticipantPast {
            id: id.clone(),
            defined: false,
            spans: Spans::default(),
            names: Succession::default(),
        }
    }
}

/// Media Stream (§6.7).
#[derive(Clone, Debug)]
pub struct StreamPast {
    /// `stream_id`, as first received.
    pub id: Id,
    /// Whether an element of its own described it.
    pub defined: bool,
    /// When it was there.
    pub spans: Spans,
    /// Its labels, one after the other: which m-line it was.
    pub labels: Succession<String>,
    /// Its Communication Sessions, one after the other.
    pub sessions: Succession<Id>,
}

impl StreamPast {
    pub(super) fn of(id: &Id) -> Self {
        StreamPast {
            id: id.clone(),
            defined: false,
            spans: Spans::default(),
            labels: Succession::default(),
            sessions: Succession::default(),
        }
    }

    /// It is no more: neither a line nor a part of a CS.
    pub(super) fn end(&mut self, at: Wall) {
        self.spans.end(at, None);
        self.labels.set(at, None);
        self.sessions.set(at, None);
    }
}

/// A participant in a CS (`participantsessionassoc`, §6.6).
#[derive(Clone, Debug)]
pub struct Membership {
    /// Who.
    pub participant: Id,
    /// Where.
    pub session: Id,
    /// When.
    pub spans: Spans,
    /// The latest `param` values.
    pub parameters: Vec<(String, String)>,
}

/// Which way, seen from the participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Contributes to the stream.
    Send,
    /// Receives it.
    Recv,
}

/// A participant on a stream (`participantstreamassoc`, §6.8).
#[derive(Clone, Debug)]
pub struct Contribution {
    /// Who.
    pub participant: Id,
    /// On which stream.
    pub stream: Id,
    /// Which way.
    pub direction: Direction,
    /// When.
    pub spans: Spans,
    /// Whether it is in the set that the SRC stated last. It may be so and yet not hold: the
    /// participant has left the CS, and comes back to the same streams.
    pub stated: bool,
}

/// Where an extension stood.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// `recording`
    Recording,
    /// `group`
    Group(Id),
    /// `session`
    Session(Id),
    /// `participant`
    Participant(Id),
    /// `stream`
    Stream(Id),
    /// `sessionrecordingassoc`
    SessionRecording(Id),
    /// `participantsessionassoc`
    ParticipantSession(Id, Id),
    /// `participantstreamassoc`
    ParticipantStream(Id),
}

/// An extension and what it said over time.
#[derive(Clone, Debug)]
pub struct ExtensionPast {
    /// Where it stands.
    pub owner: Owner,
    /// Its namespace; empty where there is none.
    pub namespace: String,
    /// Its local name.
    pub name: String,
    /// The XML of all elements of that name there, as received.
    pub versions: Succession<Vec<String>>,
}
