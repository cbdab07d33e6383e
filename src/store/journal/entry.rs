//! What the journal holds. Entries are JSON inside checksummed frames; every key is sealed by the
//! machine key before it gets here ([`Sealed`]).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::chain::{Before, Seal};
use crate::base::ids::{Generation, Position, RsId, Slot, StreamId};
use crate::base::keep::Keep;
use crate::base::mki::Mki;
use crate::base::suite::Agreed;
use crate::base::time::{ClockMap, Mono, Wall};
use crate::store::event::{Origin, StreamDescription};
use crate::store::log::Mark;

/// AES-256-GCM of a secret under the machine key: base64 of nonce ‖ cipher text ‖ tag.
///
/// Copies share it: several stand for each RS that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed(pub Arc<str>);

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Sealed(text.into()))
    }
}

/// How the signalling was protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signalling {
    /// Plain UDP.
    Udp,
    /// Plain TCP.
    Tcp,
    /// TLS, server authenticated.
    Tls,
    /// TLS, both authenticated.
    Mtls,
}

/// The SIP side of an RS as control needs it to go on after a restart: the raw header values that
/// identify and route the dialog (RFC 3261 §12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialogState {
    /// Call-ID, byte for byte.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The peer's tag; empty for a peer of RFC 2543.
    pub remote_tag: String,
    /// Our From/To value without tag, as it stood in the INVITE.
    pub local_uri: String,
    /// The peer's From/To value without tag.
    pub remote_uri: String,
    /// The peer's Contact URI.
    pub remote_target: String,
    /// Route set, in the order in which we use it.
    pub route_set: Vec<String>,
    /// Last CSeq we sent.
    pub local_cseq: u32,
    /// Last CSeq received.
    pub remote_cseq: u32,
    /// Transport of the last request: `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Where the last request came from.
    pub peer: SocketAddr,
    /// Which of our listening addresses took it.
    pub local: SocketAddr,
    /// Who made the dialog, as authenticated; requests in it are taken from nobody else (F61).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The user who made it, as digest has proven; the same holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The request that the entry stands for, when its answer is a 2xx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Answered>,
    /// The peer takes UPDATE (RFC 3311 §4). Versions before it did not say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub update: bool,
}

/// A session timer (RFC 4028) as it was agreed or refreshed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTimer {
    /// Session interval, seconds.
    pub interval_s: u32,
    /// We refresh; else the peer.
    pub ours: bool,
    /// The peer knows session timers.
    pub peer: bool,
    /// When it was refreshed last, by both clocks.
    pub since: ClockMap,
}

/// A pause or resume of a whole RS without an offer of the SRC: by an operator of the SRS (RFC 7866
/// §7.2), or by an INFO.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// It is paused: nothing of it is stored, whatever the SRC offers.
    pub held: bool,
    /// The SRC has been told, or has refused to hear it; false: a successor tells it.
    pub told: bool,
    /// The user who asked.
    pub uid: u32,
    /// CSeq of the INFO by which the SRC asked; `None`: an operator did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<u32>,
    /// Lines that an operator has ended while the RS goes on, by [`line_name`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ended: BTreeSet<String>,
    /// This entry ends one of them: the user who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<u32>,
    /// The SRC is only told; false: where it is not held, it is asked to send.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tells: bool,
}

/// How long a recording is kept: what was promised when it began only grows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// Name of its class.
    pub class: String,
    /// How long each part of it is kept from when it came.
    pub keep: Keep,
}

impl Default for Promise {
    fn default() -> Self {
        Promise { class: String::new(), keep: Keep::Forever }
    }
}

/// How an m-line is named where people see it: its label, else its place, from `m1` on.
pub fn line_name(label: Option<&str>, line: u16) -> String {
    label.map_or_else(|| format!("m{}", u32::from(line) + 1), str::to_owned)
}

/// A request of the peer that got a 2xx: what a successor needs to say that answer again (RFC 3261
/// §13.3.1.4, F59).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Its method.
    pub method: String,
    /// Its CSeq number.
    pub cseq: u32,
    /// Its Via fields, topmost first.
    pub via: Vec<String>,
    /// Its Record-Route fields.
    pub record_route: Vec<String>,
    /// Whether the answer carries the SDP of the entry.
    pub sdp: bool,
}

/// A stream with what is needed to open it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOpened {
    /// What it is.
    pub description: StreamDescription,
    /// Use of the slot.
    pub generation: Generation,
    /// Whether media is wanted now (`a=sendonly`/`recvonly`), or paused.
    pub active: bool,
    /// Where our RTCP goes; `None` while unknown (`c=0.0.0.0`).
    pub rtcp_to: Option<SocketAddr>,
    /// Whether RTCP shares the RTP port (RFC 5761).
    pub rtcp_mux: bool,
    /// Suite and sealed master keys: the SRC's, then ours.
    pub crypto: Option<SealedCrypto>,
    /// The recording policy has it paused (then `active` is false), and whether its SRC sends; `None`:
    /// it is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barred: Option<bool>,
    /// The address that our port pair is bound to. `None`: from a version that had one, which the answer
    /// carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// The keys of one m-line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedCrypto {
    /// The suite.
    pub suite: Agreed,
    /// Tag of the crypto line that was taken.
    pub tag: u32,
    /// Key ‖ salt of the SRC: what it encrypts with; one behind the other where it has several.
    pub remote: Sealed,
    /// Key ‖ salt of ours: what our SRTCP is protected with.
    pub local: Sealed,
    /// MKIs of the SRC's keys, in their order; none where it has one key without an MKI.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mkis: Vec<Mki>,
    /// Its session keys change each 2^n packets; 0: never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub derivation_rate: u8,
}

/// The SRC, as far as known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SrcFacts {
    /// Transport address the INVITE came from.
    pub address: Option<SocketAddr>,
    /// Authenticated identity, else the From AoR.
    pub identity: String,
    /// User-Agent value.
    pub user_agent: String,
}

/// One journal entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// First entry of a file: which store, which control incarnation.
    Start {
        /// Format version.
        version: u32,
        /// Store volume id.
        volume: String,
        /// When.
        at: Wall,
        /// The file stands for all before it: what they said of RSs that stand is in it, the rest in
        /// the history. Only as the first entry of a file.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        kept: bool,
        /// What the files before it held, as the first entry of a file. `None`: from a version that did
        /// not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Before>,
    },
    /// Stream ids below this are used up (reserved in blocks).
    StreamIds {
        /// The next free one.
        next: StreamId,
    },
    /// How far the log of each worker was durable: written every few seconds while it moves, and
    /// never before it is so. A store that holds less has lost something (F10, F18).
    Durable {
        /// One a worker.
        marks: Vec<Mark>,
        /// A signature over all that stands before it in its file. `None`: from a version that did not
        /// sign, or what it covered was written again elsewhere.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seal: Option<Seal>,
    },
    /// An RS was accepted. Synced before its 200 leaves.
    Opened {
        /// The RS.
        rs: RsId,
        /// When the INVITE was accepted.
        at: Wall,
        /// The dialog.
        dialog: DialogState,
        /// The SRC.
        src: SrcFacts,
        /// How signalling was protected.
        signalling: Signalling,
        /// What was odd about it, in words.
        quirks: Vec<String>,
        /// Salt of its leaf hashes, sealed.
        salt: Sealed,
        /// Its streams.
        streams: Vec<StreamOpened>,
        /// The recorder's own test call (`--own`).
        own: bool,
        /// The whole answer sent, with keys blanked, so that a retransmission gets it again.
        answer: String,
        /// The SDP of that answer with our keys, sealed.
        answer_sdp: Sealed,
        /// Bodies of its INVITE, whose entries follow: with fewer of them it was never accepted,
        /// since all are synced before the 200. `None`: from a version that did not count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bodies: Option<u32>,
        /// Its session timer, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timer: Option<SessionTimer>,
        /// How long it will be kept at least. `None`: from a version that deleted nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retention: Option<Promise>,
    },
    /// A re-INVITE, UPDATE or INFO was taken; its streams may be the same.
    Changed {
        /// The RS.
        rs: RsId,
        /// When.
        at: Wall,
        /// The dialog now.
        dialog: DialogState,
        /// All its streams now (closed ones left out).
        streams: Vec<StreamOpened>,
        /// Further oddities.
        quirks: Vec<String>,
        /// The SDP of our answer, sealed.
        answer_sdp: Sealed,
        /// Its session timer from now on, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timer: Option<SessionTimer>,
        /// What an operator here has decided of it; absent: as before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hold: Option<Hold>,
        /// It takes back the change before it, whose request got no 2xx after all.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        refused: bool,
    },
    /// The session timer of an RS was refreshed by us, or has run out.
    Timer {
        /// The RS.
        rs: RsId,
        /// When.
        at: Wall,
        /// The timer from now on; `None`: off.
        timer: Option<SessionTimer>,
        /// It has run out, and media still comes (F51); false: it runs.
        orphan: bool,
    },
    /// A pause or resume of one stream.
    Direction {
        /// The RS.
        rs: RsId,
        /// The stream.
        stream: StreamId,
        /// Wall time at which the worker applied it.
        at: Wall,
        /// The same instant, monotonic.
        mono: Mono,
        /// True from here on: recording; false: paused.
        active: bool,
        /// Who asked.
        by: Origin,
    },
    /// A body arrived (SDP, metadata, anything else), byte for byte but for keys, which are blanked.
    Body {
        /// The RS.
        rs: RsId,
        /// Number within the RS, 1 first.
        number: u32,
        /// When.
        at: Wall,
        /// SIP method that carried it.
        method: String,
        /// CSeq number.
        cseq: u32,
        /// Content type as received.
        content_type: String,
        /// Content-Disposition as received.
        disposition: String,
        /// The body, base64.
        bytes: String,
    },
    /// A stream is over: nothing of it comes any more.
    StreamClosed {
        /// The RS.
        rs: RsId,
        /// The stream.
        stream: StreamId,
        /// Its slot.
        slot: Slot,
        /// When.
        at: Wall,
        /// Who asked.
        by: Origin,
        /// All of it stands before this position of its worker's ring. `None`: media does not hold it.
        #[serde(default)]
        through: Option<Position>,
    },
    /// The RS ended. Synced before the answer to BYE leaves.
    Ended {
        /// The RS.
        rs: RsId,
        /// When.
        at: Wall,
        /// Who asked.
        by: Origin,
        /// Why, in words.
        reason: String,
        /// The dialog's last CSeq, so that a retransmitted BYE gets its answer.
        remote_cseq: u32,
        /// Our BYE follows: a successor that finds this young says it (again).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        bye: bool,
    },
    /// Nothing of it is kept any more, and its entries in the history say nothing but that it was.
    Forgotten {
        /// The RS.
        rs: RsId,
        /// When its words went.
        at: Wall,
        /// The entry of the audit trail that says so.
        audit: u64,
    },
}

impl Entry {
    /// The RS that it is about.
    pub const fn rs(&self) -> Option<RsId> {
        match self {
            Entry::Start { .. } | Entry::StreamIds { .. } | Entry::Durable { .. } => None,
            Entry::Opened { rs, .. }
            | Entry::Changed { rs, .. }
            | Entry::Direction { rs, .. }
            | Entry::Timer { rs, .. }
            | Entry::Body { rs, .. }
            | Entry::StreamClosed { rs, .. }
            | Entry::Ended { rs, .. }
            | Entry::Forgotten { rs, .. } => Some(*rs),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}
