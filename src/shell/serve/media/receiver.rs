//! A worker's thread: builds the engine over the shared buffers, takes over what a predecessor left,
//! and turns until told to stop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use super::ahead::{Ahead, Window};
use super::stages::Stages;
use crate::base::ids::WorkerId;
use crate::base::ports::{Clock, Region};
use crate::config::model;
use crate::config::placement::Place;
use crate::host::bypass::Diverted;
use crate::host::clock::{SystemClock, boot_id};
use crate::host::engine::Engine;
use crate::host::mapped::{self, Mapped};
use crate::host::sockets::Sockets;
use crate::plane::handoff::layout::Geometry;
use crate::plane::handoff::queues::Queues;
use crate::plane::worker::{self, End, StartError, Worker};
use crate::shell::serve::placed;

/// What the thread is given.
pub(super) struct Receiver {
    pub(super) worker: WorkerId,
    pub(super) workers: u16,
    pub(super) geometry: Geometry,
    pub(super) state: Mapped,
    pub(super) buffers: OwnedFd,
    pub(super) ring: OwnedFd,
    pub(super) sockets: Sockets,
    pub(super) engine: model::Engine,
    /// What diverts frames to it.
    pub(super) diverted: Option<Arc<Diverted>>,
    pub(super) place: Place,
    pub(super) successor: bool,
    pub(super) begin: Begin,
    pub(super) queues: Queues,
    pub(super) stop: Arc<AtomicBool>,
    /// Set once the worker receives.
    pub(super) running: Arc<AtomicBool>,
}

/// When the thread begins.
pub(super) enum Begin {
    /// At once: the predecessor is reaped. What the process did before.
    Now(Stages),
    /// A spare makes all ready that the predecessor does not work on, then waits. It ends where nobody
    /// will ever say go.
    When {
        /// Set once it waits.
        prepared: Arc<AtomicBool>,
        /// The predecessor is reaped.
        go: mpsc::Receiver<Stages>,
    },
}

/// So many panics in a row, each within a second of the one before, are none of one datagram's: two
/// blame it, one more each for a second and a third one of the same batch, and some to spare.
const PANICS_MAX: u32 = 12;
const CALM_NS: u64 = 1_000_000_000;

type Built = Worker<Mapped, Mapped, Engine, SystemClock>;

/// What a worker is made of that may be made while its predecessor lives.
struct Parts {
    ring: Mapped,
    ahead: Ahead,
    engine: Engine,
}

/// Which engine.
enum Wanted {
    /// The configured one.
    Configured,
    /// recvmmsg, because another one failed: why.
    Instead(String),
}

impl Receiver {
    /// Starts the thread. It ends with an error where the engine or the memory fails; the process
    /// must then end, and keeper starts the next one.
    pub(super) fn spawn(self) -> io::Result<JoinHandle<io::Result<()>>> {
        Builder::new().name(format!("worker-{}", self.worker.0)).spawn(move || self.run())
    }

    fn run(self) -> io::Result<()> {
        placed::pin("cpu.rx", &format!("worker {}", self.worker.0), self.place.core.as_slice());
        if !self.successor {
            // The first one waits until the ring's memory is there: better no start than a ring
            // that turns out to be missing in mid-call.
            mapped::allocate(self.ring.as_fd(), 0, self.geometry.ring_bytes)?;
        }
        let (mut wanted, mut panics, mut parts) = (Wanted::Configured, 0, None);
        let mut stages = match &self.begin {
            Begin::Now(stages) => stages.clone(),
            Begin::When { prepared, go } => {
                let mut aside = Stages::of_thread(SystemClock.mono());
                parts = Some(self.parts(&mut wanted, &mut aside)?);
                prepared.store(true, Ordering::Release);
                let Ok(stages) = go.recv() else { return Ok(()) };
                stages
            }
        };
        stages.mark("thread", SystemClock.mono());
        loop {
            let Parts { ring, engine, ahead: _ahead } = match parts.take() {
                Some(parts) => parts,
                None => self.parts(&mut wanted, &mut stages)?,
            };
            let worker = match self.build(ring, engine) {
                Ok(worker) => worker,
                Err(StartError::Engine(error)) => {
                    wanted = self.instead(&wanted, error)?;
                    continue;
                }
                Err(StartError::Panicked) if panics < PANICS_MAX => {
                    panics += 1;
                    tracing::error!("worker {} panicked in its recovery", self.worker.0);
                    continue;
                }
                Err(error) => return Err(io::Error::other(error)),
            };
            let began = SystemClock.mono();
            if let Some(line) = stages.line(self.worker, worker.beginning()) {
                tracing::info!("{line}");
            }
            self.running.store(true, Ordering::Release);
            match worker::run(worker, &self.stop) {
                End::Stopped => return Ok(()),
                End::Failed(error) => wanted = self.instead(&wanted, error)?,
                // F05: the same thread starts again over the same memory; a buffer that did it
                // twice is kept raw.
                End::Panicked => {
                    tracing::error!("worker {} panicked and starts again", self.worker.0);
                    let calm = SystemClock.mono().since(began) > CALM_NS;
                    panics = if calm { 1 } else { panics + 1 };
                    if panics > PANICS_MAX {
                        return Err(io::Error::other("a worker panics again and again"));
                    }
                }
            }
            stages = Stages::of_thread(SystemClock.mono());
        }
    }

    /// The engine after one that failed: recvmmsg over the same buffers, where we may choose.
    fn instead(&self, failed: &Wanted, error: io::Error) -> io::Result<Wanted> {
        let may_choose = self.engine == model::Engine::Auto || self.diverted.is_some();
        if !may_choose || matches!(failed, Wanted::Instead(_)) {
            return Err(error);
        }
        if let Some(diverted) = &self.diverted {
            // What comes from now on; what waits in the queue has nobody to take it out.
            diverted.diversion.line(self.worker.0)?.pass(true);
        }
        tracing::error!("worker {}: {error}; it goes on with recvmmsg", self.worker.0);
        Ok(Wanted::Instead(error.to_string()))
    }

    /// Makes the parts, with another engine where the wanted one fails and may.
    fn parts(&self, wanted: &mut Wanted, stages: &mut Stages) -> io::Result<Parts> {
        loop {
            match self.try_parts(wanted, stages) {
                Ok(parts) => return Ok(parts),
                Err(error) => *wanted = self.instead(wanted, error)?,
            }
        }
    }

    fn try_parts(&self, wanted: &Wanted, stages: &mut Stages) -> io::Result<Parts> {
        let ring = Mapped::map(self.ring.as_fd(), self.geometry.ring_bytes as usize)?;
        self.state.populate(0, self.state.bytes())?;
        let window = Window {
            geometry: self.geometry,
            state: self.state.share(),
            pages: ring.pages(),
            ring: self.ring.try_clone()?,
            cores: self.place.spool.clone(),
        };
        let ahead = window.begin()?;
        stages.mark("memory", SystemClock.mono());
        let memory = (self.buffers.as_fd(), self.geometry.buffers_bytes());
        let sockets = self.sockets.clone();
        let engine = match wanted {
            Wanted::Configured => {
                let diverted = self.diverted.as_deref().map(|diverted| (diverted, self.worker.0));
                Engine::choose(self.engine, memory, sockets, diverted)?
            }
            Wanted::Instead(why) => Engine::fall_back(memory, sockets, why)?,
        };
        stages.mark("engine", SystemClock.mono());
        Ok(Parts { ring, ahead, engine })
    }

    fn build(&self, ring: Mapped, engine: Engine) -> Result<Built, StartError> {
        let rtp_ports: Vec<u16> = self.sockets.ports().iter().copied().step_by(2).collect();
        let setup = worker::Setup {
            worker: self.worker,
            workers: self.workers,
            geometry: self.geometry,
            rtp_ports: &rtp_ports,
            steered: self.sockets.steered(),
            state: self.state.share(),
            ring,
            engine,
            clock: SystemClock,
            queues: self.queues.clone(),
            boot: boot_id(),
        };
        Worker::start(setup)
    }
}
