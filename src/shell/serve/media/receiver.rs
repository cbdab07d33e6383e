//! A worker's thread: builds the engine over the shared buffers, takes over what a predecessor left,
//! and turns until told to stop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use crate::base::ids::WorkerId;
use crate::base::ports::Region;
use crate::config::model;
use crate::host::affinity;
use crate::host::clock::{SystemClock, boot_id};
use crate::host::engine::Engine;
use crate::host::mapped::Mapped;
use crate::plane::handoff::layout::{AT_TAIL, Geometry};
use crate::plane::handoff::queues::Queues;
use crate::plane::worker::{self, End, Worker};

/// Ring that a successor faults in before it receives; the rest follows packet by packet, from
/// pages that exist already.
const SUCCESSOR_BYTES: usize = 8 << 20;

/// What the thread is given.
pub(super) struct Receiver {
    pub(super) worker: WorkerId,
    pub(super) workers: u16,
    pub(super) geometry: Geometry,
    pub(super) state: OwnedFd,
    pub(super) buffers: OwnedFd,
    pub(super) ring: OwnedFd,
    /// RTP and RTCP socket of each slot in turn, and their ports.
    pub(super) sockets: Arc<[OwnedFd]>,
    pub(super) ports: Vec<u16>,
    pub(super) engine: model::Engine,
    pub(super) core: Option<u16>,
    pub(super) successor: bool,
    pub(super) queues: Queues,
    pub(super) stop: Arc<AtomicBool>,
    /// Set once the worker receives.
    pub(super) running: Arc<AtomicBool>,
}

impl Receiver {
    /// Starts the thread. It ends with an error where the engine or the memory fails; the process
    /// must then end, and keeper starts the next one.
    pub(super) fn spawn(self) -> io::Result<JoinHandle<io::Result<()>>> {
        Builder::new().name(format!("worker-{}", self.worker.0)).spawn(move || self.run())
    }

    fn run(self) -> io::Result<()> {
        if let Some(core) = self.core
            && let Err(error) = affinity::pin(&[usize::from(core)])
        {
            tracing::warn!("cpu.rx: cannot pin worker {} to core {core}: {error}", self.worker.0);
        }
        let mut successor = self.successor;
        loop {
            let worker = self.build(successor)?;
            self.running.store(true, Ordering::Release);
            match worker::run(worker, &self.stop) {
                End::Stopped => return Ok(()),
                End::Failed(error) => return Err(error),
                // F05: the same thread starts again over the same memory; a buffer that did it
                // twice is kept raw.
                End::Panicked => {
                    tracing::error!("worker {} panicked and starts again", self.worker.0);
                    successor = true;
                }
            }
        }
    }

    fn build(&self, successor: bool) -> io::Result<Worker<Mapped, Mapped, Engine, SystemClock>> {
        let state = Mapped::map(self.state.as_fd(), self.geometry.state_bytes())?;
        let ring = Mapped::map(self.ring.as_fd(), self.geometry.ring_bytes as usize)?;
        state.populate(0, state.bytes())?;
        if successor {
            let place = (state.load(AT_TAIL) % self.geometry.ring_bytes) as usize;
            ring.populate(place, SUCCESSOR_BYTES)?;
        } else {
            ring.populate(0, ring.bytes())?;
        }
        // Best effort: without the right to lock, `check` has said so (F75).
        let _ = state.lock();
        let engine = Engine::choose(
            self.engine,
            self.buffers.as_fd(),
            self.geometry.buffers_bytes(),
            Arc::clone(&self.sockets),
            self.ports.clone(),
        )?;
        let rtp_ports: Vec<u16> = self.ports.iter().copied().step_by(2).collect();
        let setup = worker::Setup {
            worker: self.worker,
            workers: self.workers,
            geometry: self.geometry,
            rtp_ports: &rtp_ports,
            state,
            ring,
            engine,
            clock: SystemClock,
            queues: self.queues.clone(),
            boot: boot_id(),
        };
        Worker::start(setup).map_err(io::Error::other)
    }
}
