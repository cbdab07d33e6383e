//! The frames on the SEQPACKET links between keeper, media and control. One datagram is one frame:
//! a fixed head, then a postcard body; descriptors travel beside it (SCM_RIGHTS), at most 250.
//! Every request is answered with the same id, and every request is idempotent by
//! (slot, generation). Thread mode (tests) uses the same frames over the same kind of socket.
//!
//! ```text
//! offset  size  field
//!      0     2  version (2)
//!      2     2  number of descriptors that travel with it
//!      4     4  zero
//!      8     8  request id; an answer repeats it, a notice has 0
//!     16     n  body: `Frame`, postcard
//! ```

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::base::ids::{Generation, Index, Position, RsId, Slot, Ssrc, StreamId, WorkerId};
use crate::base::keyring::Keyring;
use crate::base::mki::Mki;
use crate::base::secret::MasterKey;
use crate::base::suite::Agreed;
use crate::base::time::{ClockMap, Mono, Wall};
use crate::plane::handoff::layout::Geometry;
use crate::store::event::{Origin, StreamDescription};
use crate::store::keys::StoreKey;

/// Version of the head and of every body.
pub const VERSION: u16 = 2;
/// Bytes of the head.
pub const HEAD_BYTES: usize = 16;

/// A key on its way between our own processes: no `Debug`, wiped on drop.
#[derive(Serialize, Deserialize)]
pub struct WireKey(Vec<u8>);

impl WireKey {
    /// Takes a copy of `key`.
    pub fn new(key: &MasterKey) -> Self {
        WireKey(key.expose().to_vec())
    }

    /// The key; `None` where the bytes are no key of any suite.
    pub fn key(&self) -> Option<MasterKey> {
        MasterKey::new(&self.0)
    }
}

impl Drop for WireKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The same for all keys of an SRC.
#[derive(Serialize, Deserialize)]
pub struct WireKeyring {
    keys: WireKey,
    mkis: Vec<Mki>,
    derivation_rate: u8,
}

impl WireKeyring {
    /// Takes a copy.
    pub fn new(keyring: &Keyring) -> Self {
        let (mkis, derivation_rate) = (keyring.mkis(), keyring.derivation_rate());
        WireKeyring { keys: WireKey(keyring.expose().to_vec()), mkis, derivation_rate }
    }

    /// The keys; `None` where this is no keyring.
    pub fn keyring(&self) -> Option<Keyring> {
        Keyring::from_parts(&self.keys.0, &self.mkis, self.derivation_rate)
    }
}

/// A store key on its way from keeper to a role: no `Debug`, wiped on drop.
#[derive(Serialize, Deserialize)]
pub struct WireStoreKey {
    number: u32,
    key: WireKey,
}

impl WireStoreKey {
    /// Takes a copy.
    pub fn new(key: &StoreKey) -> Self {
        WireStoreKey { number: key.number, key: WireKey(key.expose().to_vec()) }
    }

    /// The key; `None` where it is not 32 bytes long.
    pub fn key(&self) -> Option<StoreKey> {
        let mut bytes = Zeroizing::new([0; 32]);
        if self.key.0.len() != bytes.len() {
            return None;
        }
        bytes.copy_from_slice(&self.key.0);
        Some(StoreKey::taken_over(self.number, bytes))
    }
}

/// Keys and suite of one stream.
#[derive(Serialize, Deserialize)]
pub struct Crypto {
    /// The suite.
    pub suite: Agreed,
    /// What the SRC encrypts with.
    pub remote: WireKeyring,
    /// What our SRTCP is protected with.
    pub local: WireKey,
}

/// Everything media needs to record one m-line.
#[derive(Serialize, Deserialize)]
pub struct OpenStream {
    /// Port pair to use.
    pub slot: Slot,
    /// Which use of it this is; a lower one is stale, the same one a repetition.
    pub generation: Generation,
    /// Written into the ring as the `open` (or `changed`) event.
    pub description: StreamDescription,
    /// Salt of the RS's leaf hashes.
    pub salt: [u8; 32],
    /// False: paused, nothing is stored.
    pub active: bool,
    /// Where our RTCP goes; `None`: send none.
    pub rtcp_to: Option<SocketAddr>,
    /// RTCP shares the RTP port.
    pub rtcp_mux: bool,
    /// SRTP; `None`: plain RTP.
    pub crypto: Option<Crypto>,
    /// Plain RTP: only the signalled address may send.
    pub strict: bool,
    /// Our CNAME for this RS (RFC 7022).
    pub cname: String,
    /// Plain RTP: the first that sends an offered payload type, from wherever, is the only sender.
    pub nat: bool,
}

/// A stream that goes on after the whole recorder was down (F06), with what the store knows of it.
#[derive(Serialize, Deserialize)]
pub struct ResumeStream {
    /// The stream, in its new use of a slot.
    pub open: OpenStream,
    /// Nothing that came after this instant is on disk.
    pub dark_since: Wall,
    /// Ordinal of its next new source.
    pub next_ordinal: u16,
    /// The sources heard last, at most `SOURCES_PER_STREAM`.
    pub sources: Vec<KnownSource>,
}

/// A source as the store knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSource {
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// Its ordinal in the stream.
    pub ordinal: u16,
    /// Highest index on disk; its roll-over counter with it.
    pub highest: Index,
    /// Where it sent from, as far as known.
    pub from: Option<SocketAddr>,
}

/// What media knows of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSlot {
    /// The slot.
    pub slot: Slot,
    /// Its last use; never 0.
    pub generation: Generation,
    /// The stream of that use.
    pub stream: StreamId,
    /// Whether it is open still.
    pub open: bool,
}

/// Why media cannot do what was asked. Becomes 503 before any 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The worker's command queue is full.
    #[error("the worker's command queue is full")]
    QueueFull,
    /// No such slot here.
    #[error("no such slot")]
    NoSlot,
    /// A newer use of the slot exists.
    #[error("a newer use of the slot exists")]
    Stale,
    /// The ring is more than half full of what is not durable yet (F14).
    #[error("the ring is more than half full of bytes that are not durable yet")]
    RingLag,
    /// The disk has no room (F11) or failed (F12).
    #[error("the disk cannot take more")]
    Disk,
    /// Media is not ready.
    #[error("media is not ready")]
    NotReady,
    /// The keys do not fit their suite.
    #[error("the keys do not fit the crypto suite")]
    Keys,
    /// Packets wait long before the worker comes to them (F25).
    #[error("the worker is behind: packets wait for it")]
    Behind,
}

/// What a worker's memory and health look like; sent each second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Its number.
    pub worker: WorkerId,
    /// The datagram account, by counter number.
    pub counters: Vec<u64>,
    /// Records exist up to here.
    pub tail: Position,
    /// Durable up to here.
    pub durable: Position,
    /// Sealed up to here.
    pub sealed: Position,
    /// Ring size.
    pub ring_bytes: u64,
    /// `io_uring` or `recvmmsg`.
    pub engine: String,
    /// Why that engine.
    pub engine_reason: String,
    /// p50, p99, p99.9 and maximum of wire→captured, ns.
    pub captured_ns: [u64; 4],
    /// The same of captured→durable, ns.
    pub durable_ns: [u64; 4],
    /// The disk failed, nothing can be kept: why.
    pub disk_error: Option<String>,
    /// A folder is out of use, and where it goes on.
    pub disk_warning: Option<String>,
    /// Age of the oldest byte that is not durable, ms.
    pub lag_ms: u64,
    /// p50, p99, p99.9 and maximum of a turn's length, its waiting aside, ns.
    pub turn_ns: [u64; 4],
}

/// Something media noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// First authenticated packet of an SSRC.
    Source {
        /// Slot.
        slot: Slot,
        /// Use of it.
        generation: Generation,
        /// SSRC.
        ssrc: Ssrc,
        /// Sender.
        from: SocketAddr,
    },
    /// A segment was sealed and renamed into place.
    Sealed {
        /// Worker.
        worker: WorkerId,
        /// File name within the segments folder.
        file: String,
        /// Sealed up to here.
        through: Position,
    },
    /// Nothing but failing tags for a second (F34).
    AuthFailing {
        /// Slot.
        slot: Slot,
        /// Use of it.
        generation: Generation,
    },
    /// The disk cannot take more, or can again.
    Disk {
        /// Worker.
        worker: WorkerId,
        /// What happened, where nothing can be kept; `None`: well again.
        error: Option<String>,
        /// What is out of use, and where it goes on; recordings are taken (F12).
        warning: Option<String>,
    },
    /// By the SRC's own reports media is sent, and none comes (F40).
    NoMedia {
        /// Slot.
        slot: Slot,
        /// Use of it.
        generation: Generation,
        /// Packets that its last report counts beyond those that came.
        missing: u64,
    },
    /// That is over.
    MediaBack {
        /// Slot.
        slot: Slot,
        /// Use of it.
        generation: Generation,
        /// Media comes again; else none is wanted any more.
        comes: bool,
    },
    /// Packets of a type that was not offered; they are recorded as they came (F39).
    PayloadType {
        /// Slot.
        slot: Slot,
        /// RTP payload type.
        payload_type: u8,
    },
    /// None comes, and by the metadata somebody speaks there (F40). What is over says `MediaBack`.
    NobodyHeard {
        /// Slot.
        slot: Slot,
        /// Use of it.
        generation: Generation,
    },
}

/// One body.
#[derive(Serialize, Deserialize)]
pub enum Frame {
    // keeper → media and control
    /// First frame to a child: everything it needs from the configuration, as JSON of
    /// `config::Config`. One descriptor: the lock of the store, to be held to the end.
    Setup {
        /// JSON of the validated configuration.
        config: String,
        /// How often this role has been started.
        start: u64,
        /// Whether this is a successor (a predecessor died under the same keeper).
        successor: bool,
        /// Whether the run before this keeper's did not end cleanly: what was not durable is lost,
        /// where its memory is.
        unclean: bool,
        /// Whether the memory was made by this keeper, and nobody before it recorded into it.
        fresh: bool,
    },
    /// Three descriptors: state, buffers, ring of one worker. Where its ports are steered to few sockets,
    /// then the link and the program that do it, and these sockets; the slots' addresses say which slot is
    /// steered to which (`host::sockets::share`).
    Memory {
        /// Worker.
        worker: WorkerId,
        /// Sizes.
        geometry: Geometry,
    },
    /// Two descriptors per slot, RTP then RTCP. Control needs the addresses only; it holds the sockets
    /// for a keeper to come, should the others die (F03, F04).
    Slots {
        /// First slot of the run; slot n belongs to worker n mod workers, as its number n div workers.
        first: Slot,
        /// Ports, RTP each; the RTCP port is one above.
        ports: Vec<SocketAddr>,
    },
    /// One descriptor: the link to the other role (media ↔ control). Comes before `Go` if the other
    /// role runs, and again whenever that was started anew; the older link is dead then.
    Link,
    /// The predecessor is reaped: begin.
    Go,
    /// Take no new RS; say `Drained` when the running ones have ended.
    Drain,
    /// End at once: BYE to the running RSs, make all durable, exit.
    Stop,
    /// Configuration was replaced by this (JSON), already validated.
    Reload {
        /// JSON of `config::Config`.
        config: String,
    },
    // media and control → keeper
    /// The role does its work from now on.
    Ready,
    /// No RS is running any more.
    Drained,

    // control → media
    /// Record this m-line. Answered by `Opened` or `Refused`.
    Open(Box<OpenStream>),
    /// The same use of a slot with other keys, addresses or direction. Answered like `Open`.
    Update {
        /// The whole new state.
        stream: Box<OpenStream>,
        /// Who asked for the change of direction, if there is one.
        by: Origin,
    },
    /// Stop recording it. Answered by `Closed`.
    Close {
        /// Slot.
        slot: Slot,
        /// Use of it.
        generation: Generation,
        /// Who asked.
        by: Origin,
    },
    /// An event for a stream's record stream (`store::event::Event` as JSON). Answered by `Done`.
    Note {
        /// The stream.
        stream: StreamId,
        /// Slot.
        slot: Slot,
        /// JSON of the event.
        event: String,
    },
    /// Salts of recordings that may have unsealed records. Sent first after each start of media.
    Salts {
        /// Recording and salt.
        salts: Vec<(RsId, [u8; 32])>,
        /// Streams of them.
        streams: Vec<(StreamId, RsId)>,
    },
    /// Seal what is there now. Answered by `Done` when the segment is in place.
    Seal,

    // media → control
    /// The stream is being recorded; `applied` is when the worker took it.
    Opened {
        /// Slot.
        slot: Slot,
        /// Use of it.
        generation: Generation,
        /// Both clocks when the worker applied it.
        applied: ClockMap,
    },
    /// It is not.
    Refused {
        /// Slot.
        slot: Slot,
        /// Use of it.
        generation: Generation,
        /// Why.
        why: Refusal,
    },
    /// The stream is closed; `applied` is when.
    Closed {
        /// Slot.
        slot: Slot,
        /// Use of it.
        generation: Generation,
        /// Both clocks when the worker applied it.
        applied: ClockMap,
        /// Position behind its last record.
        through: Position,
    },
    /// Done.
    Done,
    /// Each second, all workers.
    Stats(Vec<WorkerStats>),
    /// Something happened.
    Notice(Notice),

    // Later additions; the order above is the numbering on the wire.
    /// Control → media: say what each slot was last used for, once all that was asked before is
    /// done. Answered by `Held` frames with the same id. Sent after each start of a link: a control
    /// that died may have opened streams that its journal does not know.
    Holding,
    /// Media → control: slots that were ever used under this keeper.
    Held {
        /// Some of them.
        slots: Vec<HeldSlot>,
        /// Whether these are the last ones.
        last: bool,
    },
    /// Control → media: as `Open`, for a stream of before a power cut. Answered like `Open`.
    Resume(Box<ResumeStream>),
    /// Control → media: all streams that go on are asked for. Until then, and for at most five
    /// seconds, a media that came up over fresh memory receives nothing: packets wait in the
    /// sockets for their streams.
    Resumed,
    /// A role whose keeper is gone → the next keeper (F03): what it holds. `Memory`, `Slots` and `Go`
    /// follow as at a start. One descriptor: the lock of the store; none where nobody living holds it
    /// (F04).
    Estate {
        /// What the holder reads and writes.
        versions: Versions,
        /// JSON of that part of the configuration that the memory was made for.
        config: String,
        /// Workers whose memory follows.
        workers: u16,
        /// Slots that follow.
        slots: u32,
    },
    /// Media and control → keeper, each second: the loop that answers frames still turns (F07).
    Beat,

    // keeper → a spare of media. New frames stand last: older binaries count them.
    /// All but `Link` and `Go` has been handed over, while the predecessor lives: get ready, say `Ready`,
    /// and wait for them without touching what it works on.
    Wait,

    // control ⇄ media
    /// Control → media: when was anything authenticated on these slots last (F51)? Answered by
    /// `HeardAt`.
    Heard {
        /// The slots of one RS.
        slots: Vec<Slot>,
    },
    /// Media → control: the last RTP packet that was recorded or sender report that was taken; 0
    /// where nothing ever was, nor is the slot open.
    HeardAt {
        /// In the order in which they were asked for.
        slots: Vec<(Slot, Mono)>,
    },

    /// Keeper → control: its descriptors are signalling sockets, UDP, TCP and TLS in the order of the
    /// configuration; more of them may follow in another one.
    Signalling,

    /// Control → media: on which lines somebody speaks by the metadata, as far as that has changed (F40).
    /// A new link begins with none. Not answered.
    Calls {
        /// Somebody does, and since when.
        open: Vec<(Slot, Generation, Mono)>,
        /// Nobody does any more.
        over: Vec<(Slot, Generation)>,
    },

    /// Keeper → media and control, behind `Setup`, and whoever holds something → the next keeper, behind
    /// `Estate`: the keys of an encrypted store. Only its first keeper reads the key-encryption key, so that
    /// one that is gone stops nothing that runs (F73).
    Keys {
        /// Id of the store.
        volume: [u8; 16],
        /// All its keys, newest last.
        keys: Vec<WireStoreKey>,
    },

    /// Five descriptors: what diverts the frames of a worker, and whereto. Behind the `Memory` of the same
    /// worker; only where they are diverted.
    Diverted {
        /// Worker.
        worker: WorkerId,
    },
}

/// Versions of what one binary leaves to another. The frames' own version stands in every head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Shared memory: state, receive buffers, records in the ring.
    pub memory: u64,
    /// Log files.
    pub log: u32,
    /// Segments.
    pub segment: u32,
}

impl Versions {
    /// Those of this binary.
    pub const OURS: Self = Versions {
        memory: crate::plane::handoff::layout::VERSION,
        log: crate::store::log::VERSION,
        segment: crate::store::segment::VERSION,
    };
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "memory {}, log {}, segment {}", self.memory, self.log, self.segment)
    }
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Shorter than the head.
    #[error("frame of {found} bytes is shorter than its head")]
    Short {
        /// Bytes found.
        found: usize,
    },
    /// Another version speaks.
    #[error("frame version {found}, this binary speaks {VERSION}")]
    Version {
        /// Version found.
        found: u16,
    },
    /// Body unreadable.
    #[error("frame body: {0}")]
    Body(#[from] postcard::Error),
}

/// A frame with its head.
pub struct Envelope {
    /// Request id; 0 for notices.
    pub id: u64,
    /// Descriptors that travel with it.
    pub fds: u16,
    /// The body.
    pub frame: Frame,
}

impl Envelope {
    /// The datagram.
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.fds.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.id.to_le_bytes());
        postcard::to_extend(&self.frame, bytes).expect("a Vec takes any frame")
    }

    /// Reads a datagram.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let Some((head, body)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(FrameError::Short { found: bytes.len() });
        };
        let found = u16::from_le_bytes([head[0], head[1]]);
        if found != VERSION {
            return Err(FrameError::Version { found });
        }
        let mut id = [0; 8];
        id.copy_from_slice(&head[8..16]);
        Ok(Envelope {
            id: u64::from_le_bytes(id),
            fds: u16::from_le_bytes([head[2], head[3]]),
            frame: postcard::from_bytes(body)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_other_versions_are_refused() {
        let envelope = Envelope {
            id: 7,
            fds: 2,
            frame: Frame::Close { slot: Slot(1), generation: Generation(4), by: Origin::Src },
        };
        let mut bytes = envelope.emit();
        let back = Envelope::parse(&bytes).expect("just emitted");
        assert_eq!((back.id, back.fds), (7, 2));
        assert!(matches!(back.frame, Frame::Close { slot: Slot(1), .. }));
        bytes[0] = 9;
        assert!(matches!(Envelope::parse(&bytes), Err(FrameError::Version { found: 9 })));
        assert!(matches!(Envelope::parse(&bytes[..5]), Err(FrameError::Short { found: 5 })));
    }
}
