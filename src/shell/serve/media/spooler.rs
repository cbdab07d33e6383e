//! A spool's thread: log, durable watermark, segments of one worker.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use crate::base::ids::{StreamId, WorkerId};
use crate::base::ports::{Clock, Region};
use crate::host::affinity;
use crate::host::clock::SystemClock;
use crate::host::disk::HostDisk;
use crate::host::mapped::Mapped;
use crate::plane::handoff::layout::{AT_TAIL, Geometry};
use crate::plane::handoff::slot::{OPEN, SlotView};
use crate::plane::spool::{Output, Spool};
use crate::store::evidence::Salt;

/// Requests and outputs that may wait.
const QUEUE: usize = 4_096;
/// How often open streams are counted and figures published.
const LOOK_MS: u64 = 100;
/// Longest nap with nothing to do: a fraction of the commit interval.
const NAP: Duration = Duration::from_millis(10);
/// At the end all is made durable, and then sealed as far as this much time allows.
const SEAL_AT_STOP_MS: u64 = 1_200;

/// What a spool is asked.
pub(super) enum Request {
    /// Salts of streams.
    Salts(Vec<(StreamId, Salt)>),
    /// All salts that control knows have been told.
    NoMoreSalts,
    /// Seal what is there.
    Seal,
}

/// Figures that a spool publishes.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// p50, p99, p99.9 and maximum of captured→durable, ns.
    pub(super) durable_ns: [u64; 4],
    /// The disk failed: why.
    pub(super) error: Option<String>,
}

/// Ties a spool's thread to the desk. Clones are the same.
#[derive(Clone)]
pub(super) struct Ties {
    pub(super) requests: Arc<ArrayQueue<Request>>,
    pub(super) outputs: Arc<ArrayQueue<Output>>,
    pub(super) figures: Arc<Mutex<Figures>>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Default for Ties {
    fn default() -> Self {
        Ties {
            requests: Arc::new(ArrayQueue::new(QUEUE)),
            outputs: Arc::new(ArrayQueue::new(QUEUE)),
            figures: Arc::default(),
            stop: Arc::default(),
        }
    }
}

/// What the thread is given.
pub(super) struct Spooler {
    pub(super) worker: WorkerId,
    pub(super) geometry: Geometry,
    /// A map of its own, to count open streams.
    pub(super) state: Mapped,
    pub(super) spool: Spool<Mapped, Mapped, HostDisk>,
    pub(super) core: Option<u16>,
    pub(super) ties: Ties,
}

impl Spooler {
    /// Starts the thread.
    pub(super) fn spawn(self) -> io::Result<JoinHandle<()>> {
        Builder::new().name(format!("spool-{}", self.worker.0)).spawn(move || self.run())
    }

    fn run(mut self) {
        if let Some(core) = self.core
            && let Err(error) = affinity::pin(&[usize::from(core)])
        {
            tracing::warn!("cpu.spool: cannot pin spool {} to core {core}: {error}", self.worker.0);
        }
        let clock = SystemClock;
        let mut look_at = clock.mono();
        let mut streams_open = self.streams_open();
        let mut unsaid = None;
        let mut stopping = None;
        loop {
            while let Some(request) = self.ties.requests.pop() {
                match request {
                    Request::Salts(salts) => {
                        for (stream, salt) in salts {
                            self.spool.set_salt(stream, salt);
                        }
                    }
                    Request::NoMoreSalts => self.spool.no_more_salts(),
                    Request::Seal => self.spool.request_seal(),
                }
            }
            let now = clock.mono();
            if stopping.is_none() && self.ties.stop.load(Ordering::Acquire) {
                self.spool.commit_now();
                self.spool.request_seal();
                stopping = Some(now);
            }
            if now >= look_at {
                look_at = now.plus_ms(LOOK_MS);
                streams_open = self.streams_open();
                self.publish();
            }
            let turn = self.spool.turn(&clock, streams_open);
            while let Some(output) = unsaid.take().or_else(|| self.spool.poll()) {
                if let Err(output) = self.ties.outputs.push(output) {
                    unsaid = Some(output);
                    break;
                }
            }
            if let Some(since) = stopping {
                let durable = self.spool.durable().0 == self.state.load(AT_TAIL);
                let late = clock.mono() >= since.plus_ms(SEAL_AT_STOP_MS);
                if durable && (late || self.spool.is_settled()) {
                    return;
                }
            }
            if !turn.busy {
                std::thread::park_timeout(NAP);
            }
        }
    }

    fn streams_open(&self) -> u32 {
        let slots = 0..self.geometry.slot_count;
        let open = slots
            .filter(|slot| SlotView::new(&self.state, &self.geometry, *slot).has(OPEN))
            .count();
        open as u32
    }

    fn publish(&self) {
        let histogram = self.spool.durable_ns();
        let durable_ns =
            [50.0, 99.0, 99.9, 100.0].map(|percent| histogram.value_at_percentile(percent));
        let error = self.spool.disk_error().map(str::to_owned);
        if let Ok(mut figures) = self.ties.figures.lock() {
            *figures = Figures { durable_ns, error };
        }
    }
}
