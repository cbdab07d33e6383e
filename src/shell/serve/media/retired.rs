//! Logs of workers that are no more: fewer are configured than when they were written. What a cut
//! left in them is sealed on one thread, one log after the other, beside the workers that receive;
//! then the thread ends. What fails is told, and tried again by the next media.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::seat::Common;
use super::spooler::{Request, SEAL_AT_STOP_MS, Ties};
use crate::base::ids::{StreamId, WorkerId};
use crate::base::ports::Clock;
use crate::config::model::Config;
use crate::host::affinity;
use crate::host::clock::SystemClock;
use crate::host::disk::HostDisk;
use crate::host::mapped::Mapped;
use crate::host::spare;
use crate::host::unlocked::{self, StoreFiles};
use crate::host::volume::Volume;
use crate::plane::handoff::frame::Notice;
use crate::plane::handoff::layout::{self, Geometry};
use crate::plane::spool::{First, Output, Spool, SpoolConfig, first_position};
use crate::shell::exit::Failure;
use crate::store::evidence::{Salt, SigningKey};
use crate::store::{log, segment};

/// Nothing is ever written to it: what there is to seal stands in files.
const RING_BYTES: u64 = 2 << 20;
/// Longest nap, as of any spool.
const NAP: Duration = Duration::from_millis(10);

/// The thread and its ties. It may end at any time, and nobody waits for it but the end of media.
pub(super) struct Retired {
    pub(super) ties: Ties,
    pub(super) thread: JoinHandle<()>,
}

struct Work {
    config: Config,
    /// Those of the first worker's spool.
    cores: Vec<u16>,
    volume: Volume,
    key: Arc<SigningKey>,
    ties: Ties,
    /// Told so far, of all streams; and whether those are all.
    salts: BTreeMap<StreamId, Salt>,
    salts_told: bool,
}

impl Retired {
    /// Starts the thread; it looks for such logs itself, since the disk may take its time.
    pub(super) fn start(common: &Common<'_>) -> io::Result<Self> {
        let ties = Ties::default();
        let work = Work {
            config: common.config.clone(),
            cores: common.plan.worker(WorkerId(0)).spool,
            volume: common.volume.clone(),
            key: Arc::clone(&common.key),
            ties: ties.clone(),
            salts: BTreeMap::new(),
            salts_told: false,
        };
        let thread = Builder::new().name("retired".to_owned()).spawn(move || work.run())?;
        Ok(Retired { ties, thread })
    }

    /// Asks it something, while it is there to hear it.
    pub(super) fn ask(&self, request: Request) {
        if !self.thread.is_finished() && self.ties.requests.push(request).is_err() {
            tracing::error!("the spool of workers that are no more takes no requests");
        }
    }
}

impl Work {
    fn run(mut self) {
        // Best effort, as for the spool there, which says so where it fails.
        let _ = affinity::pin(&self.cores);
        let workers = match self.workers() {
            Ok(workers) => workers,
            Err(failure) => {
                return tracing::error!("logs of workers that are no more: {:#}", failure.error);
            }
        };
        for worker in workers {
            if self.ties.stop.load(Ordering::Acquire) {
                return;
            }
            match self.seal(worker) {
                Ok(None) => {}
                Ok(Some(true)) => {
                    tracing::info!("worker {} is no more: what it left is sealed", worker.0);
                }
                Ok(Some(false)) => return,
                Err(failure) => tracing::error!(
                    "worker {} is no more, and what it left is not sealed: {:#}; the next start \
                     tries again",
                    worker.0,
                    failure.error
                ),
            }
        }
    }

    fn workers(&self) -> Result<Vec<WorkerId>, Failure> {
        let store = &self.config.store.dir;
        let places = spare::strict_places(store, &self.config.journal_dir())?;
        let mut workers = log::workers(&places, store)?;
        workers.retain(|worker| worker.0 >= self.config.worker_count());
        workers.sort_unstable();
        Ok(workers)
    }

    /// Seals what the log of `worker` holds. `None`: all of it is sealed already; false: media ends
    /// before.
    fn seal(&mut self, worker: WorkerId) -> Result<Option<bool>, Failure> {
        let (store, journal) = (&self.config.store.dir, self.config.journal_dir());
        let places = spare::strict_places(store, &journal)?;
        let First { position, missing, .. } = first_position(&places, store, &journal, worker)?;
        if segment::sealed_through(&places, store, worker)? == position {
            return Ok(None);
        }
        if missing > 0 {
            tracing::error!(
                "alarm: worker {}: {missing} bytes of records that were durable are in the store \
                 no more; `verify --all` tells whose",
                worker.0
            );
        }
        let geometry = Geometry { slot_count: 0, ring_bytes: RING_BYTES };
        let state = Mapped::anonymous("retired-state", geometry.state_bytes())?;
        layout::initialise(&state, worker.0, &geometry, position.0);
        let ring = Mapped::anonymous("retired-ring", RING_BYTES as usize)?;
        let id = uuid::Uuid::parse_str(&self.volume.id)?.into_bytes();
        let config = SpoolConfig::new(&self.config.store, self.volume.spares.clone(), worker, id);
        let (key, now) = (Arc::clone(&self.key), SystemClock.map());
        let files = unlocked::files(&config.store, &config.journal, &config.spares);
        let mut spool = Spool::open(config, ring, state, files, key, now)?;
        if let Some(keys) = unlocked::key_maker(&id) {
            spool.encrypt(keys);
        }
        for (stream, salt) in &self.salts {
            spool.set_salt(*stream, *salt);
        }
        if self.salts_told {
            spool.no_more_salts();
        }
        Ok(Some(self.turns(spool, worker)))
    }

    /// Turns until all is sealed, or until media has ended and waits no longer.
    fn turns(&mut self, mut spool: Spool<Mapped, Mapped, StoreFiles>, worker: WorkerId) -> bool {
        let clock = SystemClock;
        let mut stopping = None;
        let mut unsaid = VecDeque::new();
        loop {
            while let Some(request) = self.ties.requests.pop() {
                match request {
                    Request::Salts(salts) => {
                        for (stream, salt) in salts {
                            spool.set_salt(stream, salt);
                            self.salts.insert(stream, salt);
                        }
                    }
                    Request::NoMoreSalts => {
                        spool.no_more_salts();
                        self.salts_told = true;
                    }
                    Request::Seal | Request::Checked { .. } => {}
                }
            }
            let turn = spool.turn(&clock, 0);
            while let Some(output) = spool.poll() {
                match output {
                    // Nobody waits for this thread: a disk that hangs may have it.
                    Output::Check(check) => {
                        let passed = check.run(&HostDisk).is_ok();
                        spool.checked(&check.root, passed, clock.mono());
                    }
                    // Not control's: whether streams can be recorded, their own spools know.
                    Output::Notice(Notice::Disk { error: Some(error), .. }) => {
                        tracing::error!("what worker {} left: {error}", worker.0);
                    }
                    Output::Notice(Notice::Disk { warning: Some(warning), .. }) => {
                        tracing::warn!("what worker {} left: {warning}", worker.0);
                    }
                    Output::Notice(notice @ Notice::Sealed { .. }) => unsaid.push_back(notice),
                    Output::Notice(_) | Output::SealDone => {}
                }
            }
            while let Some(notice) = unsaid.pop_front() {
                if self.ties.outputs.push(Output::Notice(notice.clone())).is_err() {
                    unsaid.push_front(notice);
                    break;
                }
            }
            if spool.is_settled() && unsaid.is_empty() {
                return true;
            }
            if self.ties.stop.load(Ordering::Acquire) {
                let since = *stopping.get_or_insert(clock.mono());
                if !turn.busy || clock.mono() >= since.plus_ms(SEAL_AT_STOP_MS) {
                    return false;
                }
            }
            if !turn.busy {
                std::thread::park_timeout(NAP);
            }
        }
    }
}
