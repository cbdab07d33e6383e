//! What the trail holds: one entry is one act of one person, or of the server by itself.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::base::time::Wall;
use crate::store::evidence::{Hash, sha256};

/// Largest body of an entry: a configuration of some hundred changed keys, or a long query, with room.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// Names of acts. The list is open: a reader shows what it does not know.
pub mod action {
    /// First entry of a trail: its object is the store's volume id.
    pub const BEGUN: &str = "trail.begun";
    /// Audio is heard or decoded for somebody, without leaving a copy.
    pub const LISTEN: &str = "listen";
    /// A listen that went on for a while has ended; `detail.of` is the number of its entry.
    pub const LISTEN_END: &str = "listen.end";
    /// Audio or packets of a recording leave the store.
    pub const EXPORT: &str = "export";
    /// A legal hold begins.
    pub const HOLD_ADD: &str = "hold.add";
    /// A legal hold ends.
    pub const HOLD_RM: &str = "hold.rm";
    /// A shorter retention is proposed.
    pub const RETENTION_PROPOSED: &str = "retention.proposed";
    /// A second person agrees to it.
    pub const RETENTION_APPROVED: &str = "retention.approved";
    /// What was kept long enough is removed.
    pub const RETENTION_EXPIRED: &str = "retention.expired";
    /// What was said of recordings of which nothing is left is removed.
    pub const RETENTION_FORGOTTEN: &str = "retention.forgotten";
    /// A configuration comes into force: at a start, or by a reload.
    pub const CONFIGURED: &str = "configured";
    /// A source guesses passwords and has to wait (F56).
    pub const GUESSING: &str = "digest.backoff";
    /// A recording is begun by an operator.
    pub const RS_START: &str = "rs.start";
    /// A recording is paused.
    pub const RS_PAUSE: &str = "rs.pause";
    /// A recording is resumed.
    pub const RS_RESUME: &str = "rs.resume";
    /// A recording or a line of it is ended.
    pub const RS_STOP: &str = "rs.stop";
    /// The server reads recordings for somebody who cannot read the files.
    pub const READ: &str = "read";
    /// Somebody looks at the trail.
    pub const AUDIT: &str = "audit";
}

/// Whether the act was allowed. Entries are written before the act, so that none says that it succeeded;
/// where it matters, another one says that it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was, and comes next.
    Allowed,
    /// It was not, and does not come.
    Refused,
    /// What was allowed before did not come to its end; `detail.of` is the number of that entry.
    Failed,
}

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Number of the user, as the kernel says.
    pub uid: u32,
    /// Name of the user, as this machine knows it; the number where it knows none.
    pub user: String,
    /// In which role: `owner` (the store's own user, and root), `operator`, `listener`, `compliance`,
    /// `auditor`; `server`: nobody, the server by itself; empty: in none, which is refused.
    pub role: String,
}

/// An act: all of an entry but its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// When.
    pub at: Wall,
    /// Who.
    pub who: Who,
    /// What is done: see [`action`].
    pub action: String,
    /// To what: a recording's id, a hold's, a key of the configuration; may be empty.
    pub object: String,
    /// Why, in the words of who acts; may be empty.
    pub reason: String,
    /// Whether it was allowed.
    pub outcome: Outcome,
    /// What else there is to say, by action.
    pub detail: Map<String, Value>,
}

impl Act {
    /// An act that is allowed, with nothing else to say.
    pub fn new(at: Wall, who: Who, action: &str, object: impl Into<String>) -> Self {
        Act {
            at,
            who,
            action: action.to_owned(),
            object: object.into(),
            reason: String::new(),
            outcome: Outcome::Allowed,
            detail: Map::new(),
        }
    }

    /// The same, for a reason.
    pub fn because(self, reason: impl Into<String>) -> Self {
        Act { reason: reason.into(), ..self }
    }

    /// The same, with one more thing said.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(key.to_owned(), value.into());
        self
    }

    /// The same, refused.
    pub fn refused(self, why: impl Into<Value>) -> Self {
        Act { outcome: Outcome::Refused, ..self.with("why", why) }
    }
}

/// One entry. Its JSON is the body of a frame; what the next one is chained to is the hash of that very
/// text, so that fields which a reader does not know stay covered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename = "audit")]
pub struct Entry {
    /// Its number, 1 first, without gaps.
    pub number: u64,
    /// Hash of the body before, as 64 hex digits; zeros for the first.
    #[serde(with = "hash_hex")]
    pub previous: Hash,
    /// When.
    pub at: Wall,
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// What: see [`action`].
    pub action: String,
    /// To what.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whether it was allowed.
    pub outcome: Outcome,
    /// What else there is to say.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub detail: Map<String, Value>,
}

impl Entry {
    /// The entry of `act` behind `head`.
    pub(super) fn behind(head: &Head, act: Act) -> Self {
        Entry {
            number: head.number + 1,
            previous: head.hash,
            at: act.at,
            who: act.who,
            action: act.action,
            object: act.object,
            reason: act.reason,
            outcome: act.outcome,
            detail: act.detail,
        }
    }

    /// What its detail says of `key`, where that is text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.detail.get(key)?.as_str()
    }
}

/// The end of a trail: its newest entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Head {
    /// Number of the entry; 0: there is none.
    pub number: u64,
    /// Hash of its body; zeros where there is none.
    #[serde(with = "hash_hex")]
    pub hash: Hash,
}

impl Head {
    pub(super) fn of(number: u64, body: &[u8]) -> Self {
        Head { number, hash: sha256(body) }
    }
}

/// A hash as 64 lower-case hex digits.
pub(super) mod hash_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::store::evidence::Hash;
    use crate::store::export::manifest::{hex, unhex};

    pub(in crate::store) fn serialize<S: Serializer>(
        hash: &Hash,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex(hash))
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Hash, D::Error> {
        let text = String::deserialize(from)?;
        unhex(&text).ok_or_else(|| D::Error::custom("expected 64 hex digits"))
    }
}
