//! What an operator of the SRS asks for over `STORE/run`, and what becomes of it. It crosses from the
//! verbs to control as JSON; [`super::hold`] and [`super::call`] do it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::base::ids::RsId;
use crate::proto::sip::Transport;

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    /// Store nothing of it any more, until it is resumed.
    Pause {
        /// The recording.
        rs: RsId,
    },
    /// Store it again.
    Resume {
        /// The recording.
        rs: RsId,
    },
    /// Begin one: call an SRC that the configuration names.
    Start {
        /// Its URI, as the configuration has it.
        to: String,
        /// Where that is.
        address: SocketAddr,
        /// By which transport.
        transport: Transport,
    },
    /// End one line of it.
    StopLine {
        /// The recording.
        rs: RsId,
        /// The line's label, else its place, from `m1` on.
        line: String,
        /// Kept with the recording.
        reason: String,
    },
    /// End it.
    Stop {
        /// The recording.
        rs: RsId,
        /// Told to the SRC and kept.
        reason: String,
    },
}

/// Bytes that a reason may have.
const REASON_BYTES_MAX: usize = 200;

impl Verb {
    /// What is wrong with its words, if anything is: a reason goes into a quoted string of a SIP header
    /// (RFC 3326 §2), and all of them into the log. Control asks this too: whoever may write to its
    /// socket need not be our own command.
    pub fn fault(&self) -> Option<&'static str> {
        let unfit = |text: &str| text.contains(char::is_control);
        match self {
            Verb::Stop { reason, .. } | Verb::StopLine { reason, .. }
                if reason.len() > REASON_BYTES_MAX
                    || reason.contains(['"', '\\'])
                    || unfit(reason) =>
            {
                Some(
                    "a reason has at most 200 bytes, without quotes, backslashes, line ends and \
                     other control characters",
                )
            }
            Verb::StopLine { line, .. } if unfit(line) => Some("a label has no control characters"),
            Verb::Start { to, .. } if unfit(to) => Some("a URI has no control characters"),
            _ => None,
        }
    }
}

/// A request of an operator.
pub struct Asked {
    /// To be handed back.
    pub id: u64,
    /// The user that asks.
    pub uid: u32,
    /// What for.
    pub verb: Verb,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "why", rename_all = "snake_case")]
pub enum Outcome {
    /// It holds, and the journal has it.
    Done,
    /// A recording began.
    Started(RsId),
    /// No recording of that id is running here.
    Unknown,
    /// Something else is under way in it; try again.
    Busy,
    /// The SRC does not want it, in words.
    Refused(String),
    /// It could not be done, in words.
    Failed(String),
}

/// In words, for the log.
pub(super) fn told(verb: &Verb) -> String {
    match verb {
        Verb::Pause { rs } => format!("pause {rs}"),
        Verb::Resume { rs } => format!("resume {rs}"),
        Verb::Start { to, .. } => format!("start {to}"),
        Verb::StopLine { rs, line, reason } => format!("stop line {line} of {rs}: {reason}"),
        Verb::Stop { rs, reason } => format!("stop {rs}: {reason}"),
    }
}
