//! One worker with its spool: what the command thread knows of both, and how they are started. The
//! receiver first: a spool may have a whole ring to look through, and nobody waits for that with
//! packets in the sockets (F01).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::lag::Lag;
use super::receiver::{Begin, Receiver};
use super::spooler::{Opener, Spooler, Ties};
use super::stages::Stages;
use crate::base::counter::Counter;
use crate::base::ids::{Position, Slot, WorkerId};
use crate::base::limits::SOURCES_PER_STREAM;
use crate::base::ports::{Clock, Region};
use crate::base::time::Mono;
use crate::config::model::Config;
use crate::config::placement::Placement;
use crate::host::bypass::Diverted;
use crate::host::clock::SystemClock;
use crate::host::mapped::Mapped;
use crate::host::sockets::Sockets;
use crate::host::spare;
use crate::host::volume::Volume;
use crate::plane::handoff::frame::{HeldSlot, WorkerStats};
use crate::plane::handoff::layout::{
    self, AT_COUNTERS, AT_DURABLE, AT_HELD, AT_LOST_SINCE, AT_MAGIC, AT_SEALED, AT_SHARED_DROPS,
    AT_TAIL, Geometry, MAGIC,
};
use crate::plane::handoff::queues::Queues;
use crate::plane::handoff::slot::{LAST_ARRIVAL, OPEN, SlotView};
use crate::plane::handoff::source::SourceView;
use crate::plane::spool::{First, SpoolConfig, first_position};
use crate::shell::exit::Failure;
use crate::shell::serve::link::WorkerMemory;
use crate::store::evidence::SigningKey;

/// What all seats of a process share.
pub(super) struct Common<'a> {
    pub(super) config: &'a Config,
    pub(super) plan: Placement,
    pub(super) key: Arc<SigningKey>,
    pub(super) volume: Volume,
    pub(super) stop: Arc<AtomicBool>,
    /// The run before did not end cleanly.
    pub(super) unclean: bool,
}

/// A worker that receives, or is about to; its spool has yet to be opened.
pub(super) struct Receiving {
    worker: WorkerId,
    geometry: Geometry,
    state: Mapped,
    ring: OwnedFd,
    sockets: Sockets,
    diverted: Option<Arc<Diverted>>,
    queues: Queues,
    running: Arc<AtomicBool>,
    receiver: JoinHandle<io::Result<()>>,
    successor: bool,
    /// Of a spare: its thread has made itself ready, and how to let it go.
    prepared: Arc<AtomicBool>,
    go: mpsc::Sender<Stages>,
}

/// See the module.
pub(super) struct Seat {
    pub(super) worker: WorkerId,
    pub(super) geometry: Geometry,
    pub(super) state: Mapped,
    pub(super) sockets: Sockets,
    pub(super) diverted: Option<Arc<Diverted>>,
    pub(super) queues: Queues,
    pub(super) running: Arc<AtomicBool>,
    pub(super) receiver: JoinHandle<io::Result<()>>,
    pub(super) ties: Ties,
    pub(super) spooler: JoinHandle<()>,
    /// Age of what is not durable.
    pub(super) lag: Lag,
    /// Ids of `Seal` requests that this spool has yet to answer, oldest first.
    pub(super) seals: VecDeque<u64>,
}

impl Receiving {
    /// Starts the worker's thread over its memory; makes the state where nobody has yet. Without
    /// `stages`, of a spare, it only gets ready and waits for [`Self::go`].
    pub(super) fn start(
        memory: WorkerMemory,
        sockets: Sockets,
        common: &Common<'_>,
        stages: Option<Stages>,
    ) -> Result<Self, Failure> {
        let WorkerMemory { worker, geometry, state: state_fd, buffers, ring, diverted, .. } =
            memory;
        let diverted = diverted.map(Arc::new);
        let config = common.config;
        let state = Mapped::map(state_fd.as_fd(), geometry.state_bytes())?;
        // Whoever kept the memory, what stands in it says whether there was a predecessor.
        let successor = state.load(AT_MAGIC) == MAGIC;
        if !successor {
            let places = spare::strict_places(&config.store.dir, &config.journal_dir())?;
            let (store, journal) = (&config.store.dir, config.journal_dir());
            let First { position, missing, through } =
                first_position(&places, store, &journal, worker)?;
            if missing > 0 {
                tracing::error!(
                    "alarm: worker {}: {missing} bytes of records that were durable are in the \
                     store no more; `verify --all` tells whose",
                    worker.0
                );
            }
            // F06: what waits in the sockets is for streams that control has yet to name.
            state.store(AT_HELD, 1);
            let lost_since = through.filter(|_| common.unclean).map_or(0, |through| through.0);
            state.store(AT_LOST_SINCE, lost_since as u64);
            layout::initialise(&state, worker.0, &geometry, position.0);
        }
        let queues = Queues::default();
        let running = Arc::new(AtomicBool::new(false));
        let prepared = Arc::new(AtomicBool::new(false));
        let (go, gone) = mpsc::channel();
        let begin = match stages {
            Some(stages) => Begin::Now(stages),
            None => Begin::When { prepared: Arc::clone(&prepared), go: gone },
        };
        let receiver = Receiver {
            worker,
            workers: config.worker_count(),
            geometry,
            state: state.share(),
            buffers,
            ring: ring.try_clone()?,
            sockets: sockets.clone(),
            engine: config.media.engine,
            diverted: diverted.clone(),
            place: common.plan.worker(worker),
            successor,
            begin,
            queues: queues.clone(),
            stop: Arc::clone(&common.stop),
            running: Arc::clone(&running),
        };
        let receiver = receiver.spawn()?;
        Ok(Receiving {
            worker,
            geometry,
            state,
            ring,
            sockets,
            diverted,
            queues,
            running,
            receiver,
            successor,
            prepared,
            go,
        })
    }

    /// Waits until a spare's thread is ready; whether it is, and has not failed.
    pub(super) fn wait_prepared(&self) -> bool {
        self.wait_for(&self.prepared)
    }

    /// Lets a spare's thread go: the predecessor is reaped.
    pub(super) fn go(&self, stages: Stages) {
        // One that has failed is found by its end.
        let _ = self.go.send(stages);
    }

    /// Waits until it receives, or has failed: until then nothing else shall ask for the processor.
    pub(super) fn wait(&self) {
        self.wait_for(&self.running);
    }

    fn wait_for(&self, flag: &AtomicBool) -> bool {
        while !flag.load(Ordering::Acquire) {
            if self.receiver.is_finished() {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        true
    }

    /// Opens the files and starts the spool's thread.
    pub(super) fn store(self, common: &Common<'_>) -> Result<Seat, Failure> {
        let Receiving {
            worker,
            geometry,
            state,
            ring,
            sockets,
            diverted,
            queues,
            running,
            receiver,
            successor,
            ..
        } = self;
        let config = common.config;
        let id = uuid::Uuid::parse_str(&common.volume.id)?.into_bytes();
        let opener = Opener {
            config: SpoolConfig::new(&config.store, common.volume.spares.clone(), worker, id),
            geometry,
            state: state.share(),
            ring,
            key: Arc::clone(&common.key),
        };
        // A successor waits for no disk: it may be what its predecessor hung on (F14).
        let spool = if successor { None } else { Some(opener.open()?) };
        let ties = Ties::default();
        let spooler = Spooler {
            worker,
            geometry,
            state: state.share(),
            spool,
            opener,
            cores: common.plan.worker(worker).spool,
            ties: ties.clone(),
        };
        Ok(Seat {
            worker,
            geometry,
            state,
            sockets,
            diverted,
            queues,
            running,
            receiver,
            ties,
            spooler: spooler.spawn()?,
            lag: Lag::new(SystemClock.mono()),
            seals: VecDeque::new(),
        })
    }
}

impl Seat {
    /// Whether one of its threads has ended, which neither does by itself.
    pub(super) fn has_ended(&self) -> bool {
        self.receiver.is_finished() || self.spooler.is_finished()
    }

    /// Its slots that were ever used, by the numbers that control knows.
    pub(super) fn held<'a>(&'a self, all: &'a [Seat]) -> impl Iterator<Item = HeldSlot> + 'a {
        (0..self.geometry.slot_count).filter_map(move |number| {
            let view = SlotView::new(&self.state, &self.geometry, number);
            let slot = Slot(number * all.len() as u32 + u32::from(self.worker.0));
            let (generation, stream, open) = (view.generation(), view.stream(), view.has(OPEN));
            (generation.0 > 0).then_some(HeldSlot { slot, generation, stream, open })
        })
    }

    /// When anything was authenticated on slot number `number` last: an RTP packet that was recorded,
    /// or a sender report; 0 where nothing was.
    pub(super) fn heard(&self, number: u32) -> Mono {
        let slot = SlotView::new(&self.state, &self.geometry, number);
        if !slot.has(OPEN) {
            return Mono(0);
        }
        let reports = (0..SOURCES_PER_STREAM).filter_map(|place| {
            let source = SourceView::new(&self.state, &self.geometry, number, place);
            source.identity().map(|_| source.last_sr().arrival)
        });
        reports.max().unwrap_or_default().max(Mono(slot.word(LAST_ARRIVAL)))
    }

    /// What the sockets that its slots share have dropped.
    pub(super) fn shared_drops(&self) -> u64 {
        let count = self.sockets.shared().len();
        (0..count).map(|shared| self.state.load(AT_SHARED_DROPS + shared * 8)).sum()
    }

    pub(super) fn stats(&self) -> WorkerStats {
        let figures = self.ties.figures.lock().map(|figures| figures.clone()).unwrap_or_default();
        let (engine, engine_reason) = self.queues.gauge.engine();
        let counter = |counter: Counter| self.state.load(AT_COUNTERS + counter as usize * 8);
        WorkerStats {
            worker: self.worker,
            counters: Counter::ALL.into_iter().map(counter).collect(),
            tail: Position(self.state.load(AT_TAIL)),
            durable: Position(self.state.load(AT_DURABLE)),
            sealed: Position(self.state.load(AT_SEALED)),
            ring_bytes: self.geometry.ring_bytes,
            engine,
            engine_reason,
            captured_ns: self.queues.gauge.captured_ns(),
            durable_ns: figures.durable_ns,
            disk_error: figures.error,
            disk_warning: figures.warning,
            lag_ms: self.lag.ms(),
            turn_ns: self.queues.gauge.turn_ns(),
        }
    }
}
