//! The shared memory of one worker, held by keeper in three memfds that outlive any process:
//! *state* (words, intents, slots, sources), *buffers* (receive buffers) and *ring* (records).
//!
//! ```text
//! state   0      header words, one page; the words of the commit protocol in cache lines of their own
//!         4096   intent words, 8 bytes × BUFFER_COUNT
//!         12288  slots, SLOT_BYTES each
//!         …      sources, SOURCE_BYTES each, SOURCES_PER_STREAM a slot
//! buffers 0      BUFFER_COUNT × BUFFER_BYTES
//!         …      message headers of the recvmmsg engine, MESSAGE_BYTES each, one per packet of a turn
//! ring    0      ring_bytes, place of position p is p mod ring_bytes
//! ```
//! A change of any offset or meaning raises [`VERSION`]; a binary that finds another one refuses.

use crate::base::limits::{
    BUFFER_BYTES, BUFFER_COUNT, SHARED_SOCKETS_MAX, SOURCES_PER_STREAM, TURN_PACKETS_MAX,
};
use crate::base::ports::Region;

/// "FTSTATE1", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"FTSTATE1");
/// Version of everything in this file.
pub const VERSION: u64 = 3;

/// Word: [`MAGIC`].
pub const AT_MAGIC: usize = 0;
/// Word: [`VERSION`].
pub const AT_VERSION: usize = 8;
/// Word: worker number.
pub const AT_WORKER: usize = 16;
/// Word: slots of this worker.
pub const AT_SLOT_COUNT: usize = 24;
/// Word: ring size in bytes.
pub const AT_RING_BYTES: usize = 32;
/// Word: the only commit point (kill protocol). Position up to which records exist.
pub const AT_TAIL: usize = 128;
/// Word: position up to which the log is synced. Written by the spool.
pub const AT_DURABLE: usize = 256;
/// Word: position up to which segments are sealed. Written by the spool.
pub const AT_SEALED: usize = 320;
/// Word: what ends at or below this position is read back before it is called durable, because a
/// file of it has failed (F12). Written by the spool; 0 in the memory of a version before it.
pub const AT_CHECK_UNTIL: usize = 328;
/// Word: monotonic ns of the worker's last turn.
pub const AT_HEARTBEAT: usize = 384;
/// Word: incarnation, raised by keeper before each "go"; counts over the life of the store.
pub const AT_INCARNATION: usize = 448;
/// Word: the spool's last turn.
pub const AT_SPOOL_HEARTBEAT: usize = 512;
/// Word: monotonic ns since when the spool has been writing and syncing what it took from the ring
/// then; 0: it is not. For those who measure what a power cut may take.
pub const AT_COMMIT_SINCE: usize = 520;
/// Word: ns that the last such commit took.
pub const AT_COMMIT_TOOK: usize = 528;
/// Word: the receive buffer whose handling has begun, plus 1. After a kill only its packet may have
/// been counted by halves.
pub const AT_CURRENT: usize = 576;
/// Word: not 0 while the worker must not receive yet: memory is fresh, and control has not named
/// the streams that go on (F06).
pub const AT_HELD: usize = 592;
/// Word: with fresh memory after an end that was not clean, the last instant of which everything
/// captured is on disk, wall ns; 0: nothing was lost, or it is in the ring that it was (F06).
pub const AT_LOST_SINCE: usize = 600;
/// Word: monotonic ns of the last clock map in the ring.
pub const AT_CLOCK_AT: usize = 640;
/// Word: its wall time minus its monotonic time, ns.
pub const AT_CLOCK_OFFSET: usize = 648;
/// Word: the last step of the wall clock (F70): wall minus monotonic time before it, ns.
pub const AT_STEP_OFFSET: usize = 656;
/// Word: the last turn before the step before that one; 0: there was none.
pub const AT_STEP_SINCE: usize = 664;
/// Word: the last turn before the step, monotonic ns.
pub const AT_STEP_AFTER: usize = 672;
/// Word: the first turn that saw it, monotonic ns; written last. 0: none, as in the memory of a
/// version before it. What that version left there is too old to mean anything.
pub const AT_STEP_AT: usize = 680;
/// Words: the datagram account, one per `base::counter::Counter`.
pub const AT_COUNTERS: usize = 1024;
/// Words: panics while handling a buffer, four bits a buffer; 8 and 9: being counted. F05.
pub const AT_STRIKES: usize = 2048;
/// Buffers in one of them.
pub const STRIKES_PER_WORD: usize = 16;
/// How many words.
pub const STRIKES_WORDS: usize = BUFFER_COUNT as usize / STRIKES_PER_WORD;
const _: () = assert!(AT_STRIKES + STRIKES_WORDS * 8 <= AT_SHARED_DROPS);
/// Words: datagrams dropped by each socket that several slots share, since it was made.
pub const AT_SHARED_DROPS: usize = 3072;
const _: () = assert!(AT_SHARED_DROPS + SHARED_SOCKETS_MAX * 8 <= AT_INTENTS);
/// Intent words.
pub const AT_INTENTS: usize = 4096;
/// Slots.
pub const AT_SLOTS: usize = AT_INTENTS + (BUFFER_COUNT as usize * 8).next_multiple_of(4096);
/// Offset in the buffers memfd of the message headers that recvmmsg fills: they must be shared like
/// the buffers, since the length of a datagram stands nowhere else when its receiver is killed.
pub const AT_MESSAGES: usize = BUFFER_COUNT as usize * BUFFER_BYTES;
/// Bytes of one `struct mmsghdr` on 64-bit Linux.
pub const MESSAGE_BYTES: usize = 64;
/// Bytes of one slot.
pub const SLOT_BYTES: usize = 1600;
/// Bytes of one source.
pub const SOURCE_BYTES: usize = 512;

/// What one worker's memory is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Geometry {
    /// Slots of this worker.
    pub slot_count: u32,
    /// Ring size in bytes, a multiple of 2 MiB.
    pub ring_bytes: u64,
}

impl Geometry {
    /// Bytes of the state memfd.
    pub const fn state_bytes(&self) -> usize {
        (self.sources_at() + self.slot_count as usize * SOURCES_PER_STREAM * SOURCE_BYTES)
            .next_multiple_of(4096)
    }

    /// Bytes of the buffers memfd.
    pub const fn buffers_bytes(&self) -> usize {
        (AT_MESSAGES + TURN_PACKETS_MAX * MESSAGE_BYTES).next_multiple_of(4096)
    }

    /// Offset of slot number `slot` of this worker.
    pub const fn slot_at(&self, slot: u32) -> usize {
        AT_SLOTS + slot as usize * SLOT_BYTES
    }

    /// Offset of the first source.
    pub const fn sources_at(&self) -> usize {
        AT_SLOTS + self.slot_count as usize * SLOT_BYTES
    }

    /// Offset of source `place` (0..SOURCES_PER_STREAM) of slot `slot`.
    pub const fn source_at(&self, slot: u32, place: usize) -> usize {
        self.sources_at() + (slot as usize * SOURCES_PER_STREAM + place) * SOURCE_BYTES
    }
}

/// Writes the header of a fresh state region whose records begin at position `first`.
pub fn initialise(state: &impl Region, worker: u16, geometry: &Geometry, first: u64) {
    state.store(AT_VERSION, VERSION);
    state.store(AT_WORKER, u64::from(worker));
    state.store(AT_SLOT_COUNT, u64::from(geometry.slot_count));
    state.store(AT_RING_BYTES, geometry.ring_bytes);
    for word in [AT_TAIL, AT_DURABLE, AT_SEALED] {
        state.store(word, first);
    }
    for intent in 0..BUFFER_COUNT as usize {
        state.store(AT_INTENTS + intent * 8, INTENT_NONE);
    }
    state.store(AT_MAGIC, MAGIC);
}

/// Why shared memory is not what this binary expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Not a state region, or never initialised.
    #[error("shared state has no header")]
    Magic,
    /// Another binary's layout (F09).
    #[error("shared state of version {found}, this binary knows {VERSION}")]
    Version {
        /// Version found.
        found: u64,
    },
    /// Made for other sizes or another worker.
    #[error("shared state says {what} {found}, expected {expected}")]
    Differs {
        /// Which word.
        what: &'static str,
        /// What it says.
        found: u64,
        /// What it should say.
        expected: u64,
    },
}

/// Checks the header of a state region that another process made.
pub fn check(state: &impl Region, worker: u16, geometry: &Geometry) -> Result<(), LayoutError> {
    if state.bytes() < AT_SLOTS || state.load(AT_MAGIC) != MAGIC {
        return Err(LayoutError::Magic);
    }
    let found = state.load(AT_VERSION);
    if found != VERSION {
        return Err(LayoutError::Version { found });
    }
    let words = [
        ("worker", state.load(AT_WORKER), u64::from(worker)),
        ("slots", state.load(AT_SLOT_COUNT), u64::from(geometry.slot_count)),
        ("ring bytes", state.load(AT_RING_BYTES), geometry.ring_bytes),
        ("bytes", state.bytes() as u64, geometry.state_bytes() as u64),
    ];
    match words.into_iter().find(|(_, found, expected)| found != expected) {
        Some((what, found, expected)) => Err(LayoutError::Differs { what, found, expected }),
        None => Ok(()),
    }
}

/// An intent word that names no record: its buffer is FILLED when its head is set. Ask for it
/// before comparing with the tail (ACCEPTED: at or above it, COMMITTED: below it).
pub const INTENT_NONE: u64 = u64::MAX;
