//! A recording as the interface contract shows it (`ls`, `show`, `recording.json`). More fields are
//! welcome; these keep name and meaning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::controls::Action;
pub use super::people_model::{
    Association, Attached, Ends, ExtensionSeen, GroupSeen, LabelPeriod, MediaStream, Member,
    MemberGroup, Metadata, Name, Participant, Period, Reason, RenamedFrom, Session, SessionPeriod,
};
use crate::base::counter::{Cause, Counter};
use crate::base::ids::{RsId, StreamId};
use crate::base::keep::Keep;
use crate::base::limits::SOURCES_PER_STREAM;
use crate::base::time::Wall;
use crate::store::event::Origin;
use crate::store::journal::entry::Signalling;

/// One Recording Session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// Stable, URL-safe.
    pub id: RsId,
    /// `live`, `ended` or `orphan`.
    pub state: State,
    /// Our clock when the RS was accepted.
    pub start: Wall,
    /// Our clock when it ended.
    pub end: Option<Wall>,
    /// SIP Call-ID.
    pub call_id: String,
    /// The SRC.
    pub src: Src,
    /// How it was protected.
    pub security: Security,
    /// What was odd, in words an SBC admin can act on.
    pub quirks: Vec<String>,
    /// Communication Sessions.
    pub sessions: Vec<Session>,
    /// Participants.
    pub participants: Vec<Participant>,
    /// Media streams.
    pub streams: Vec<Stream>,
    /// Everything up to here would survive a power cut. It is the end only when nothing that is said
    /// of it can change any more for want of a record.
    pub durable_through: Option<Wall>,
    /// How far it is sealed.
    pub seal: Seal,
    /// The recorder's own test call.
    pub own: bool,
    /// What else its metadata said, and when.
    #[serde(default)]
    pub metadata: Metadata,
    /// How long it is kept, and what of it is gone; absent where nobody has asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// What of it was read for what is said of its media; absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
}

/// The part of a recording that an account of its media is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// From then on; what was received close before may be in it.
    pub from: Wall,
    /// Up to then; what was received close after may be in it.
    pub to: Wall,
    /// Of these lines, by label; null: of all.
    pub lines: Option<Vec<String>>,
}

/// How long a recording is kept, what holds it, and what of it is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// How long that keeps: `forever`, `90d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// Until when: its end and `keep`; null while it is open, and for ever.
    #[serde(default)]
    pub keep_until: Option<Wall>,
    /// Numbers of the holds that hold it, whatever its class says.
    #[serde(default)]
    pub held_by: Vec<u64>,
    /// What is gone of it; null: nothing.
    #[serde(default)]
    pub gone: Option<Expiry>,
    /// When what was said of it went, too: who called whom, and all that its client sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Wall>,
}

/// What is gone of a recording by retention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// Since when: of several parts that went, the last.
    pub since: Wall,
    /// By which class.
    pub class: String,
    /// All of it is; false: what came later is here.
    pub whole: bool,
}

/// Where a recording stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its RS is up.
    Live,
    /// Its RS ended by BYE.
    Ended,
    /// Its SRC is gone without a BYE.
    Orphan,
}

/// The recording client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Src {
    /// `address:port` of the INVITE.
    pub address: String,
    /// Authenticated identity, else the From AoR.
    pub identity: String,
    /// User-Agent value.
    pub user_agent: String,
}

/// Protection of signalling and media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// Transport of the dialog.
    pub signalling: Signalling,
    /// The weakest of its lines.
    pub media: MediaSecurity,
}

/// Protection of media, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaSecurity {
    /// Plain RTP, or SRTP that is authenticated and not encrypted.
    Rtp,
    /// SRTP keyed by SDES.
    Sdes,
    /// SRTP keyed by DTLS.
    Dtls,
}

/// One recorded m-line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// `a=label`, else `mN` with N the m-line from 1.
    pub label: String,
    /// `audio`, `video` or `text`.
    pub media: String,
    /// First accepted codec.
    pub codec: String,
    /// Its RTP clock rate.
    pub clock_rate: u32,
    /// SRTP suite, or null for plain RTP.
    pub suite: Option<String>,
    /// The ledger's word.
    pub verdict: Verdict,
    /// Seconds neither recorded, paused nor proven idle.
    pub unproven_s: f64,
    /// Who ever sent and received it.
    pub participants: Ends,
    /// The same with times: who, which way, from when to when.
    #[serde(default)]
    pub associations: Vec<Association>,
    /// Where it stands.
    pub state: StreamState,
    /// Its SSRCs, in order of appearance.
    pub sources: Vec<Source>,
    /// Its pauses.
    pub pauses: Vec<Pause>,
    /// What was done to it, in order (REQ-024).
    #[serde(default)]
    pub controls: Vec<Control>,
    /// Digits decoded from telephone-event.
    pub dtmf: Vec<Digit>,
    /// There were more digits than those.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dtmf_cut: bool,
    /// Real-time text, if any: its lines, one below the other.
    pub text: Option<String>,
    /// The same line by line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub text_lines: Vec<TextLine>,
    /// There was more text than that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub text_cut: bool,
    /// Number of the stream in the store.
    pub stream: StreamId,
    /// Datagrams that were not recorded, by counter label.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
}

impl Stream {
    /// What is said of SSRCs that had no place, if any.
    pub fn refused_words(&self) -> Option<String> {
        let count = self.drops.get(Counter::TooManySources.label())?;
        Some(format!(
            "{count} packet(s) of further SSRCs were not recorded: a line has place for {SOURCES_PER_STREAM} at once"
        ))
    }
}

/// The ledger's verdict on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No gap but in pauses, and the SRC's own SR counts agree.
    Complete,
    /// No gap but in pauses, and no SR to prove head and tail.
    Continuous,
    /// Packets are missing that nobody wanted to be, or further SSRCs had no place.
    Gaps,
    /// No packet at all.
    Empty,
}

/// State of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamState {
    /// Recording.
    Active,
    /// Paused by SRC or SRS.
    Paused,
    /// Ended.
    Closed,
}

/// One SSRC of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// SSRC as a number.
    pub ssrc: u32,
    /// CNAME from SDES, if seen.
    pub cname: Option<String>,
    /// First index recorded.
    pub first_index: u64,
    /// Last index recorded.
    pub last_index: u64,
    /// Packets recorded.
    pub packets: u64,
    /// Bytes of them: RTP header and payload after decryption.
    pub bytes: u64,
    /// Missing indexes with a cause: always an integer.
    pub lost: BTreeMap<Cause, u64>,
    /// Bounds `[low, high]` where a shared counter cannot tell streams apart.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost_range: BTreeMap<Cause, [u64; 2]>,
    /// Packets that came again.
    pub duplicates: u64,
    /// How unevenly they arrived; null where no two packets can be compared.
    #[serde(default)]
    pub jitter: Option<Jitter>,
    /// Missing indexes without a cause.
    pub unexplained: u64,
    /// Arrival of the first packet.
    pub first_arrival: Option<Wall>,
    /// Arrival of the last.
    pub last_arrival: Option<Wall>,
    /// The SRC's own packet count by its last SR, or null.
    pub rtcp_sent: Option<u64>,
    /// Each gap: first and last missing index, arrivals around it, cause (null: unexplained).
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// Whose media a mixer put into which packets, by their CSRC lists; empty where it says nothing.
    #[serde(default)]
    pub contributors: Vec<Contribution>,
    /// Where that ends before the packets do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contributors_cut: Option<ContributionsCut>,
}

/// Interarrival jitter (RFC 3550 §6.4.1) in microseconds, of the packets that were recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jitter {
    /// Mean of the estimate over all packets but the first.
    pub mean_us: u64,
    /// Its highest value.
    pub max_us: u64,
    /// Its value at the last packet.
    pub last_us: u64,
}

/// Packets to which the same sources contributed (RFC 3550 §5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contribution {
    /// First index.
    pub first: u64,
    /// Last index: all that were recorded in between are the same sources'.
    pub last: u64,
    /// Arrival of the first.
    pub from: Wall,
    /// Arrival of the last.
    pub to: Wall,
    /// Packets recorded.
    pub packets: u64,
    /// The sources, by SSRC.
    pub csrcs: Vec<Contributor>,
}

/// A contributing source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contributor {
    /// SSRC as a number.
    pub ssrc: u32,
    /// CNAME from SDES, if seen.
    pub cname: Option<String>,
}

/// Packets with CSRC lists beyond what is told: the list changed too often. The records hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContributionsCut {
    /// The first of them.
    pub first: u64,
    /// Its arrival.
    pub from: Wall,
    /// How many.
    pub packets: u64,
}

/// A run of missing indexes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First missing index.
    pub first: u64,
    /// Last missing index.
    pub last: u64,
    /// Arrival of the packet before it.
    pub from: Wall,
    /// Arrival of the packet after it.
    pub to: Wall,
    /// Why; null where there is no evidence.
    pub cause: Option<Cause>,
}

/// One pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Start.
    pub from: Wall,
    /// End; null while it lasts.
    pub to: Option<Wall>,
    /// `src`, `srs` or `observed`.
    pub cause: String,
}

/// A start, pause, resume or stop of a stream: of a line that is there from the beginning, comes or
/// goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// When it was so, by our clock.
    pub at: Wall,
    /// `start`, `pause`, `resume` or `stop`.
    pub action: Action,
    /// `src`, `srs` or `observed`.
    pub by: Origin,
    /// By what, in words: `INVITE 101`, `operator, uid 0`, the reason of an end.
    pub cause: String,
    /// When the SRC says that it was, by its metadata, byte for byte. Only starts and stops have an
    /// element for it.
    pub stated: Option<String>,
    /// RTP time then, per SSRC; empty where no packet came.
    pub rtp: Vec<RtpTime>,
}

/// RTP time of a source at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtpTime {
    /// The source.
    pub ssrc: u32,
    /// RTP timestamp then.
    pub timestamp: u32,
    /// Milliseconds from the packet that it is reckoned from; negative: that came later.
    pub distance_ms: i64,
}

/// One DTMF digit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digit {
    /// When it began.
    pub at: Wall,
    /// `0`-`9`, `*`, `#`, `A`-`D`.
    pub digit: String,
    /// Milliseconds it lasted.
    pub ms: u64,
}

/// A line of real-time text (T.140).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextLine {
    /// When its first character was sent, by our clock.
    pub at: Wall,
    /// Who typed it.
    pub ssrc: u32,
    /// The line; U+FFFD stands for what was lost.
    pub text: String,
}

/// How far evidence goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// `open` or `sealed`.
    pub state: SealState,
    /// Chain head (hex) of the last segment that holds records of it.
    pub head: Option<String>,
}

/// See [`Seal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SealState {
    /// Some records are not in a segment yet.
    Open,
    /// All are.
    Sealed,
}
