//! What goes into control and what comes out of it.

use super::operator::{Asked, Outcome};
use crate::plane::handoff::frame::{Envelope, Frame};
use crate::proto::sip::{self, DigestRules};
use crate::store::archive::{LastSeen, Sought};
use crate::store::journal::entry::Entry;

/// Something happened outside.
pub enum Input<'a> {
    /// Signalling bytes, a connection's end, or time.
    Sip(sip::Input<'a>),
    /// A frame from media.
    Media(Envelope),
    /// The link to media is up (again): everything that media must know is said once more.
    MediaUp,
    /// The link to media broke.
    MediaDown,
    /// A journal job is durable, or failed for good.
    Persisted {
        /// Its token.
        token: u64,
        /// `None`: durable.
        error: Option<NotDurable>,
    },
    /// The journal takes entries again; what failed before is durable by now (F19).
    JournalWorks,
    /// Free space of the store's disk was looked at.
    DiskFree {
        /// `None`: enough; else what is missing, in words.
        shortfall: Option<String>,
    },
    /// A frame from keeper.
    Keeper(Frame),
    /// Who must authenticate by digest from now on, and the key of its nonces.
    Digest {
        /// Outlives control.
        key: &'a [u8],
        /// Peers and passwords.
        rules: DigestRules,
    },
    /// An operator asks for something; answered by [`Effect::Outcome`].
    Asked(Asked),
    /// What the store knows last of the streams of [`Effect::LookBack`], or why it cannot say.
    LookedBack(Result<LastSeen, String>),
}

/// Why entries are not durable, in words.
#[derive(Clone, Debug)]
pub enum NotDurable {
    /// These entries cannot be kept; others can.
    Entries(String),
    /// The journal takes nothing any more (F19).
    Journal(String),
}

/// Something to do outside.
pub enum Effect {
    /// Send signalling bytes.
    Transmit {
        /// Where.
        target: sip::Target,
        /// What.
        bytes: Vec<u8>,
    },
    /// Close a signalling connection.
    Disconnect {
        /// Which.
        conn: sip::ConnId,
    },
    /// Send a frame to media.
    Media(Envelope),
    /// Make entries durable, then say so.
    Persist {
        /// To be handed back.
        token: u64,
        /// In order.
        entries: Vec<Entry>,
    },
    /// A segment is in place: the catalogue should take its footer.
    Sealed,
    /// Look up what the store knows last of streams that go on after the recorder was down, and
    /// say so by [`Input::LookedBack`].
    LookBack(Vec<Sought>),
    /// Send a frame to keeper.
    Keeper(Frame),
    /// Tell the operator who asked what became of it.
    Outcome {
        /// Of [`Asked`].
        id: u64,
        /// What.
        outcome: Outcome,
    },
    /// Tell the audit trail who guesses passwords (F56).
    Guessing(sip::Guessing),
    /// Tell the operator.
    Log {
        /// How grave.
        grave: Grave,
        /// In words, without keys.
        text: String,
    },
}

/// How grave a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grave {
    /// Business as usual.
    Info,
    /// Somebody should look.
    Warn,
    /// Something is not being recorded.
    Error,
}
