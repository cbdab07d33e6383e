//! The helper beside a worker: keeps the pages of its ring that are written next mapped and ready,
//! and gives back those behind, so that a worker never faults, a successor receives before the
//! whole ring is populated again, and little has to be taken apart when the process is killed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::base::ports::Region;
use crate::host::affinity;
use crate::host::mapped::{self, Mapped, Pages};
use crate::plane::handoff::layout::{AT_TAIL, Geometry};

/// Made ready at a time: divides every ring (`RING_STEP_BYTES`).
const STEP_BYTES: u64 = 2 << 20;
/// Ready before the first turn: 2 MiB are 100 ms of 100,000 packets/s of 208 bytes.
pub(super) const FIRST_BYTES: u64 = STEP_BYTES;
/// Kept ready: 8 MiB are 0.4 s at that rate, and 2,048 pages, which the kernel takes apart in about
/// a millisecond.
const AHEAD_BYTES: u64 = 8 << 20;
/// At 100,000 packets/s a nap uses up 200 KiB.
const NAP: Duration = Duration::from_millis(10);

/// The helper's thread; ends when this is dropped.
pub(super) struct Ahead {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What it is given.
pub(super) struct Window {
    pub(super) geometry: Geometry,
    /// To see the tail.
    pub(super) state: Mapped,
    /// The worker's map of the ring.
    pub(super) pages: Pages,
    /// The ring's memory, which may not be there as a whole yet.
    pub(super) ring: OwnedFd,
    /// Where the thread is pinned to; empty: it stays on the worker's core.
    pub(super) cores: Vec<u16>,
}

impl Window {
    /// Makes the first bytes behind the tail ready; the thread goes on from there.
    pub(super) fn begin(self) -> io::Result<Ahead> {
        let tail = self.state.load(AT_TAIL);
        let mut ready = tail / STEP_BYTES * STEP_BYTES;
        while ready < tail + FIRST_BYTES {
            self.populate(ready)?;
            ready += STEP_BYTES;
        }
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread =
            Builder::new().name("ahead".to_owned()).spawn(move || self.run(ready, tail, &ended))?;
        Ok(Ahead { end, thread: Some(thread) })
    }

    fn populate(&self, position: u64) -> io::Result<()> {
        let place = position % self.geometry.ring_bytes;
        self.pages.populate(place as usize, STEP_BYTES as usize)
    }

    fn run(self, mut ready: u64, mut released: u64, end: &AtomicBool) {
        // Best effort, as for the spool, which says so where it fails.
        let _ = affinity::pin(&self.cores);
        let ring_bytes = self.geometry.ring_bytes;
        // Half of a small ring: what is behind must have been released before it comes again.
        let ahead = AHEAD_BYTES.min(ring_bytes / 2);
        // A predecessor may have been killed before the ring's memory was all there.
        let whole = mapped::is_allocated(self.ring.as_fd(), ring_bytes);
        let mut allocated = if whole { ring_bytes } else { 0 };
        while !end.load(Ordering::Acquire) {
            let tail = self.state.load(AT_TAIL);
            released = self.pages.release_between(released, tail);
            if ready < tail + ahead {
                // What fails here is done by the worker's first touch.
                let _ = self.populate(ready.max(tail / STEP_BYTES * STEP_BYTES));
                ready = ready.max(tail / STEP_BYTES * STEP_BYTES) + STEP_BYTES;
            } else if allocated < ring_bytes {
                let _ = mapped::allocate(self.ring.as_fd(), allocated, STEP_BYTES);
                allocated += STEP_BYTES;
            } else {
                std::thread::park_timeout(NAP);
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
