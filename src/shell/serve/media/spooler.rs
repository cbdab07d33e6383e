//! A spool's thread: log, durable watermark, segments of one worker.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use crate::base::faults::fault;
use crate::base::ids::{StreamId, WorkerId};
use crate::base::ports::{Clock, Region};
use crate::host::clock::SystemClock;
use crate::host::disk::HostDisk;
use crate::host::mapped::{Mapped, Pages};
use crate::host::unlocked::{self, StoreFiles};
use crate::plane::handoff::layout::{AT_TAIL, Geometry};
use crate::plane::handoff::slot::{OPEN, SlotView};
use crate::plane::spool::{Check, Output, Spool, SpoolConfig, SpoolError};
use crate::shell::serve::placed;
use crate::store::evidence::{Salt, SigningKey};

/// Requests and outputs that may wait.
const QUEUE: usize = 4_096;
/// How often open streams are counted and figures published.
const LOOK_MS: u64 = 100;
/// Longest nap with nothing to do: a fraction of the commit interval.
const NAP: Duration = Duration::from_millis(10);
/// Time between two attempts to open the log after a death of media.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// At the end all is made durable, and then sealed as far as this much time allows.
pub(super) const SEAL_AT_STOP_MS: u64 = 1_200;

/// What a spool is asked.
pub(super) enum Request {
    /// Salts of streams.
    Salts(Vec<(StreamId, Salt)>),
    /// All salts that control knows have been told.
    NoMoreSalts,
    /// Seal what is there.
    Seal,
    /// A folder was checked.
    Checked {
        /// The folder.
        root: PathBuf,
        /// Whether it passed.
        passed: bool,
    },
}

/// Figures that a spool publishes.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// p50, p99, p99.9 and maximum of captured→durable, ns.
    pub(super) durable_ns: [u64; 4],
    /// The disk failed: why.
    pub(super) error: Option<String>,
    /// A folder is out of use, and where it goes on.
    pub(super) warning: Option<String>,
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

/// A worker's spool, with the pages of its own map of the ring.
pub(super) struct HostSpool {
    spool: Spool<Mapped, Mapped, StoreFiles>,
    pages: Pages,
    /// Position up to which all was sealed when they were given back last.
    sealed: u64,
}

impl HostSpool {
    /// Gives back the pages of all that is durable, also of what has yet to be sealed and will be
    /// read once more: the map would else grow by a whole segment, and taking that apart is time in
    /// which nobody receives when we are killed (F01: 40,000 pages cost 10 ms).
    fn release(&mut self) {
        self.pages.release_between(self.sealed, self.spool.durable().0);
        self.sealed = self.spool.sealed().0;
    }
}

/// What a spool is opened with.
pub(super) struct Opener {
    pub(super) config: SpoolConfig,
    pub(super) geometry: Geometry,
    pub(super) state: Mapped,
    pub(super) ring: OwnedFd,
    pub(super) key: Arc<SigningKey>,
}

impl Opener {
    /// Maps the memory and looks at the files: may take as long as the disk does.
    pub(super) fn open(&self) -> Result<HostSpool, OpenError> {
        let ring = Mapped::map(self.ring.as_fd(), self.geometry.ring_bytes as usize)?;
        let (config, key) = (self.config.clone(), Arc::clone(&self.key));
        let pages = ring.pages();
        let files = unlocked::files(&config.store, &config.journal, &config.spares);
        let keys = unlocked::key_maker(&config.volume);
        let mut spool =
            Spool::open(config, ring, self.state.share(), files, key, SystemClock.map())?;
        if let Some(keys) = keys {
            spool.encrypt(keys);
        }
        Ok(HostSpool { sealed: spool.sealed().0, spool, pages })
    }
}

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The memory.
    #[error("the memory cannot be mapped: {0}")]
    Memory(#[from] io::Error),
    /// The files.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// What the thread is given.
pub(super) struct Spooler {
    pub(super) worker: WorkerId,
    pub(super) geometry: Geometry,
    /// To count open streams.
    pub(super) state: Mapped,
    /// `None`: opened by the thread, as often as it takes. Receiving waits for no disk.
    pub(super) spool: Option<HostSpool>,
    pub(super) opener: Opener,
    /// Where its thread is pinned to; empty: nowhere.
    pub(super) cores: Vec<u16>,
    pub(super) ties: Ties,
}

impl Spooler {
    /// Starts the thread.
    pub(super) fn spawn(self) -> io::Result<JoinHandle<()>> {
        Builder::new().name(format!("spool-{}", self.worker.0)).spawn(move || self.run())
    }

    fn run(mut self) {
        placed::pin("cpu.spool", &format!("spool {}", self.worker.0), &self.cores);
        let Some(mut opened) = self.opened() else { return };
        let clock = SystemClock;
        let mut look_at = clock.mono();
        let mut streams_open = self.streams_open();
        let mut unsaid = None;
        let mut stopping = None;
        loop {
            fault!("spool.turn");
            while let Some(request) = self.ties.requests.pop() {
                match request {
                    Request::Salts(salts) => {
                        for (stream, salt) in salts {
                            opened.spool.set_salt(stream, salt);
                        }
                    }
                    Request::NoMoreSalts => opened.spool.no_more_salts(),
                    Request::Seal => opened.spool.request_seal(),
                    Request::Checked { root, passed } => {
                        opened.spool.checked(&root, passed, clock.mono());
                    }
                }
            }
            let now = clock.mono();
            if stopping.is_none() && self.ties.stop.load(Ordering::Acquire) {
                opened.spool.commit_now();
                opened.spool.request_seal();
                stopping = Some(now);
            }
            if now >= look_at {
                look_at = now.plus_ms(LOOK_MS);
                streams_open = self.streams_open();
                self.publish(&opened.spool);
                opened.release();
            }
            let turn = opened.spool.turn(&clock, streams_open);
            while let Some(output) = unsaid.take().or_else(|| opened.spool.poll()) {
                if let Output::Check(check) = output {
                    self.check(check);
                    continue;
                }
                if let Err(output) = self.ties.outputs.push(output) {
                    unsaid = Some(output);
                    break;
                }
            }
            if let Some(since) = stopping {
                let durable = opened.spool.durable().0 == self.state.load(AT_TAIL);
                let late = clock.mono() >= since.plus_ms(SEAL_AT_STOP_MS);
                if durable && (late || opened.spool.is_settled()) {
                    return;
                }
            }
            if !turn.busy {
                std::thread::park_timeout(NAP);
            }
        }
    }

    /// The spool; tried again each second where the files cannot be read, until media ends. What
    /// comes meanwhile is in the ring.
    fn opened(&mut self) -> Option<HostSpool> {
        if let Some(spool) = self.spool.take() {
            return Some(spool);
        }
        let mut said = None;
        loop {
            match self.opener.open() {
                Ok(spool) => {
                    if said.is_some() {
                        tracing::warn!("spool {}: the log can be read again", self.worker.0);
                    }
                    return Some(spool);
                }
                Err(error) => {
                    let error = error.to_string();
                    if said.as_ref() != Some(&error) {
                        tracing::error!("spool {}: {error}", self.worker.0);
                    }
                    if let Ok(mut figures) = self.ties.figures.lock() {
                        figures.error = Some(error.clone());
                    }
                    said = Some(error);
                }
            }
            if self.ties.stop.load(Ordering::Acquire) {
                return None;
            }
            std::thread::park_timeout(OPEN_AGAIN);
        }
    }

    /// Checks a folder on a thread of its own, which a disk that hangs may keep.
    fn check(&self, check: Check) {
        let requests = Arc::clone(&self.ties.requests);
        let run = move || {
            let result = check.run(&HostDisk);
            if let Err(error) = &result {
                tracing::debug!("{} fails its check: {error}", check.root.display());
            }
            // A full queue is that of a spool that hangs; it asks again after its next failure.
            let _ = requests.push(Request::Checked { root: check.root, passed: result.is_ok() });
        };
        if let Err(error) = Builder::new().name("check".to_owned()).spawn(run) {
            tracing::error!("no thread to check a folder: {error}");
        }
    }

    fn streams_open(&self) -> u32 {
        let slots = 0..self.geometry.slot_count;
        let open = slots
            .filter(|slot| SlotView::new(&self.state, &self.geometry, *slot).has(OPEN))
            .count();
        open as u32
    }

    fn publish(&self, spool: &Spool<Mapped, Mapped, StoreFiles>) {
        let histogram = spool.durable_ns();
        let durable_ns =
            [50.0, 99.0, 99.9, 100.0].map(|percent| histogram.value_at_percentile(percent));
        let error = spool.disk_error().map(str::to_owned);
        let warning = spool.disk_warning();
        if let Ok(mut figures) = self.ties.figures.lock() {
            *figures = Figures { durable_ns, error, warning };
        }
    }
}
