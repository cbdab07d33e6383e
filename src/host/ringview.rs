//! A worker's ring for a process that only looks: what is published in it, copied out, and whether a writer
//! may have been there meanwhile. Nobody who records knows of it, waits for it, or is slowed down by it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{Ordering, fence};

use super::mapped::Looked;
use crate::base::ids::WorkerId;
use crate::base::limits::{BUFFER_BYTES, BUFFER_COUNT};
use crate::base::time::{ClockMap, Mono, Wall};
use crate::plane::handoff::layout::{
    AT_CLOCK_AT, AT_CLOCK_OFFSET, AT_DURABLE, AT_HEARTBEAT, AT_MAGIC, AT_RING_BYTES, AT_SEALED,
    AT_TAIL, AT_VERSION, AT_WORKER, Geometry, MAGIC, VERSION,
};

/// What a writer may have built above the published tail: a successor handles all receive buffers before its
/// first commit, and its events are fewer. Doubled.
const UNPUBLISHED_BYTES: u64 = 2 * BUFFER_COUNT as u64 * BUFFER_BYTES as u64;

/// See the module's description.
pub struct RingView {
    worker: WorkerId,
    state: Looked,
    ring: Looked,
}

impl RingView {
    /// Maps the memory of `worker`. `InvalidData` where it is another's, or of another version.
    pub fn open(
        worker: WorkerId,
        geometry: &Geometry,
        state: BorrowedFd<'_>,
        ring: BorrowedFd<'_>,
    ) -> io::Result<Self> {
        let state = Looked::map(state, geometry.state_bytes())?;
        let ring = Looked::map(ring, geometry.ring_bytes as usize)?;
        let expected = [
            (AT_MAGIC, MAGIC),
            (AT_VERSION, VERSION),
            (AT_WORKER, u64::from(worker.0)),
            (AT_RING_BYTES, geometry.ring_bytes),
        ];
        if expected.iter().any(|(offset, value)| state.load(*offset) != *value) {
            let why = "shared memory of another worker or version";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(RingView { worker, state, ring })
    }

    /// Whose it is.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Bytes of the ring.
    pub fn ring_bytes(&self) -> u64 {
        self.ring.bytes() as u64
    }

    /// Position up to which records are published.
    pub fn tail(&self) -> u64 {
        self.state.load(AT_TAIL)
    }

    /// Position below which memory may be used again, since segments hold it. A record begins there.
    pub fn sealed(&self) -> u64 {
        self.state.load(AT_SEALED).min(self.state.load(AT_DURABLE))
    }

    /// When the worker turned last.
    pub fn heartbeat(&self) -> Mono {
        Mono(self.state.load(AT_HEARTBEAT))
    }

    /// The clock map that the worker has written last.
    pub fn clock(&self) -> ClockMap {
        let (mono, offset) = (self.state.load(AT_CLOCK_AT), self.state.load(AT_CLOCK_OFFSET));
        ClockMap { mono: Mono(mono), wall: Wall((mono as i64).wrapping_add(offset as i64)) }
    }

    /// Copies what is published from `position` on, at most `bytes` of it and not beyond the ring's end. False
    /// where somebody may have written there meanwhile: what is in `out` is worth nothing then.
    pub fn copy(&self, position: u64, bytes: usize, out: &mut Vec<u8>) -> bool {
        let tail = self.tail();
        if !self.is_there(position, tail) {
            return false;
        }
        let at = position % self.ring_bytes();
        let length = (bytes as u64).min(tail - position).min(self.ring_bytes() - at);
        out.resize(length as usize, 0);
        self.ring.copy_out(at as usize, out);
        // The copies above are done before the words below are read (a sequence lock's reader).
        fence(Ordering::Acquire);
        self.is_there(position, self.tail())
    }

    /// Whether what stood at `position` stands there still. Either nothing behind it may be used again, or no
    /// writer can have come so far.
    fn is_there(&self, position: u64, tail: u64) -> bool {
        position <= tail
            && (position >= self.sealed()
                || tail.saturating_add(UNPUBLISHED_BYTES) <= position + self.ring_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::base::ports::Region;
    use crate::host::mapped::{self, Mapped};
    use crate::plane::handoff::layout;

    #[test]
    fn what_is_published_is_copied_and_what_may_be_written_over_is_not() {
        let geometry = Geometry { slot_count: 1, ring_bytes: 16 << 20 };
        let state_fd = mapped::create("state", geometry.state_bytes()).expect("memfd");
        let ring_fd = mapped::create("ring", geometry.ring_bytes as usize).expect("memfd");
        let state = Mapped::map(state_fd.as_fd(), geometry.state_bytes()).expect("right size");
        let ring = Mapped::map(ring_fd.as_fd(), geometry.ring_bytes as usize).expect("right size");
        let open =
            |worker| RingView::open(WorkerId(worker), &geometry, state_fd.as_fd(), ring_fd.as_fd());
        assert!(open(3).is_err(), "nobody has made it yet");
        layout::initialise(&state, 3, &geometry, 1 << 30);
        assert!(open(2).is_err(), "another's");
        let view = open(3).expect("made for it");
        let mut out = Vec::new();
        let first = 1_u64 << 30;
        assert!(view.copy(first, 100, &mut out) && out.is_empty(), "nothing is published");
        assert!(!view.copy(first + 8, 100, &mut out), "above the tail");
        ring.copy_in((first % geometry.ring_bytes) as usize, b"record");
        state.store(layout::AT_TAIL, first + 6);
        assert!(view.copy(first, 100, &mut out));
        assert_eq!(out, b"record");
        // Not beyond the ring's end.
        state.store(layout::AT_TAIL, first + geometry.ring_bytes);
        assert!(view.copy(first + geometry.ring_bytes - 16, 100, &mut out));
        assert_eq!(out.len(), 16);
        // A full ring that nothing was sealed of: nobody may write.
        assert!(view.copy(first, 6, &mut out));
        // Sealed: the next record may be built there already.
        for word in [layout::AT_DURABLE, layout::AT_SEALED] {
            state.store(word, first + geometry.ring_bytes);
        }
        assert!(!view.copy(first, 6, &mut out));
        assert!(view.copy(first + UNPUBLISHED_BYTES, 6, &mut out), "no writer has come so far");
    }
}
