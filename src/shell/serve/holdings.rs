//! What keeper holds for its children and hands to each new one: the store's lock, the memory of
//! the workers, the port pairs. None of it changes while keeper lives, so a child that dies takes
//! nothing with it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::base::ids::{Slot, WorkerId};
use crate::base::limits::FRAME_FDS_MAX;
use crate::base::ports::Region;
use crate::config::model::Config;
use crate::host::entropy::SystemEntropy;
use crate::host::mapped::{self, Mapped};
use crate::host::socket::{self, PortPair};
use crate::host::volume::{self, Lock, Volume, VolumeError};
use crate::host::{keyfile, signing};
use crate::plane::handoff::frame::Frame;
use crate::plane::handoff::layout::{AT_INCARNATION, Geometry};
use crate::plane::keeper::Role;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::link::Link;

/// Slots in one frame: two descriptors each.
const SLOTS_PER_FRAME: usize = FRAME_FDS_MAX / 2;
/// The roles of a keeper that was killed end by themselves; this is how long we wait for them.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(10);

/// See the module's description.
pub(super) struct Holdings {
    lock: Lock,
    volume: Volume,
    /// Next incarnation of media, and the end of those reserved on disk.
    incarnation: u64,
    memory: Vec<Memory>,
    slots: Vec<PortPair>,
}

struct Memory {
    worker: WorkerId,
    geometry: Geometry,
    state: OwnedFd,
    buffers: OwnedFd,
    ring: OwnedFd,
    /// Only to raise the incarnation.
    words: Mapped,
}

impl Holdings {
    /// Locks the store, makes the memory, reserves the ports: the order of the design.
    pub(super) fn take(config: &Config) -> Result<Self, Failure> {
        let lock = lock(config)?;
        let fresh_id = uuid::Uuid::now_v7().to_string();
        let (volume, incarnation) = volume::open(&config.store.dir, &fresh_id)?;
        // Made here, under the lock and before any role, so that the roles only ever read them.
        keyfile::load_or_make(&config.store.dir, &SystemEntropy)?;
        signing::load_or_make(&config.store.dir, &SystemEntropy)?;
        let media = &config.media;
        let wanted = config.slot_count() as usize;
        let slots = socket::reserve(media.address, media.ports.first, media.ports.last, wanted)
            .map_err(|error| {
                let why = format!("cannot bind ports on media.address {}: {error}", media.address);
                Failure::new(Exit::Io, why)
            })?;
        if slots.is_empty() {
            let (first, last) = (media.ports.first, media.ports.last);
            let why = format!("all ports {first}-{last} on {} are taken", media.address);
            return Err(Failure::new(Exit::TryAgain, why));
        }
        if slots.len() < media.streams_max as usize {
            tracing::warn!(
                "only {} port pairs are free in media.ports for {} streams",
                slots.len(),
                media.streams_max
            );
        }
        let memory = (0..config.worker_count())
            .map(|worker| Memory::make(config, WorkerId(worker), slots.len() as u32))
            .collect::<io::Result<_>>()?;
        Ok(Holdings { lock, volume, incarnation, memory, slots })
    }

    /// Port pairs held.
    pub(super) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// Hands `role` all it needs, `peer` last, then lets it go.
    pub(super) fn hand_over(
        &mut self,
        link: &Link,
        role: Role,
        start: u64,
        config: &Config,
        peer: Option<OwnedFd>,
    ) -> Result<(), Failure> {
        let config_text = serde_json::to_string(config)?;
        let setup = Frame::Setup { config: config_text, start, successor: start > 1 };
        link.send(0, setup, &[self.lock.file().as_fd()])?;
        if role == Role::Media {
            self.raise_incarnation(config)?;
            for memory in &self.memory {
                let frame = Frame::Memory { worker: memory.worker, geometry: memory.geometry };
                let fds = [memory.state.as_fd(), memory.buffers.as_fd(), memory.ring.as_fd()];
                link.send(0, frame, &fds)?;
            }
        }
        for (run, pairs) in self.slots.chunks(SLOTS_PER_FRAME).enumerate() {
            let first = Slot((run * SLOTS_PER_FRAME) as u32);
            let ports: Vec<SocketAddr> = pairs.iter().map(|pair| pair.address).collect();
            let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
            if role == Role::Media {
                fds.extend(pairs.iter().flat_map(|pair| [pair.rtp.as_fd(), pair.rtcp.as_fd()]));
            }
            link.send(0, Frame::Slots { first, ports }, &fds)?;
        }
        if let Some(peer) = peer {
            link.send(0, Frame::Link, &[peer.as_fd()])?;
        }
        link.send(0, Frame::Go, &[])?;
        Ok(())
    }

    /// Writes the next incarnation into every state before media goes.
    fn raise_incarnation(&mut self, config: &Config) -> Result<(), VolumeError> {
        if self.incarnation >= self.volume.incarnation_next {
            volume::reserve(&config.store.dir, &mut self.volume)?;
        }
        for memory in &self.memory {
            memory.words.store(AT_INCARNATION, self.incarnation);
        }
        self.incarnation += 1;
        Ok(())
    }
}

impl Memory {
    fn make(config: &Config, worker: WorkerId, slot_count: u32) -> io::Result<Self> {
        let geometry = Geometry {
            slot_count: config.worker_slots(worker, slot_count),
            ring_bytes: config.ring_bytes(),
        };
        let name = |part: &str| format!("floortape-{part}-{}", worker.0);
        let state = mapped::create(&name("state"), geometry.state_bytes())?;
        let words = Mapped::map(state.as_fd(), geometry.state_bytes())?;
        Ok(Memory {
            worker,
            geometry,
            state,
            buffers: mapped::create(&name("buffers"), geometry.buffers_bytes())?,
            ring: mapped::create(&name("ring"), geometry.ring_bytes as usize)?,
            words,
        })
    }
}

/// Takes the store's lock. Where only the roles of a dead keeper hold it, waits until they ended.
fn lock(config: &Config) -> Result<Lock, Failure> {
    let deadline = Instant::now() + PREDECESSOR_WAIT;
    loop {
        match volume::lock(&config.store.dir) {
            Ok(lock) => return Ok(lock),
            Err(VolumeError::InUse { holder, .. })
                if !volume::holder_lives(&holder) && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error @ VolumeError::InUse { .. }) => {
                return Err(Failure::new(Exit::TryAgain, error.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
