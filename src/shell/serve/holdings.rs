//! What keeper holds for its children and hands to each new one: the store's lock, the memory of
//! the workers, the port pairs. None of it changes while keeper lives, so a child that dies takes
//! nothing with it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::base::ids::WorkerId;
use crate::base::limits::FRAME_FDS_MAX;
use crate::base::ports::{Clock, Region};
use crate::config::model::{Config, PortRange, Sip, Steering};
use crate::host::bypass::Diverted;
use crate::host::clock::SystemClock;
use crate::host::entropy::SystemEntropy;
use crate::host::mapped::{self, Mapped};
use crate::host::socket::{self, PortPair};
use crate::host::volume::{self, Lock, Volume, VolumeError};
use crate::host::xdp::Card;
use crate::host::{
    affinity, keyfile, letter, listener, reserve, seqpacket, signing, spare, unlocked,
};
use crate::plane::handoff::frame::Frame;
use crate::plane::handoff::layout::{self, AT_HEARTBEAT, AT_INCARNATION, Geometry};
use crate::plane::keeper::Role;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::diverted;
use crate::shell::serve::estate::{self, Sink};
use crate::shell::serve::link::{self, Link, SlotPorts, Taken, WorkerMemory};
use crate::shell::serve::notify;
use crate::shell::serve::placed;
use crate::shell::serve::steered::{self, Steered};
use crate::shell::serve::stored::{self, Stored};
use crate::shell::serve::succession::{self, Found, GOES_ON, Survivors};

/// Of a queue that holds everything: the frames of the head and of the memory, with what the kernel
/// charges for them.
const QUEUE_BYTES: usize = 256 << 10;
/// The same of a slot: its address, and its share of a frame's charge.
const QUEUE_BYTES_PER_SLOT: usize = 64;
/// A queue that is full stays full: nobody reads it yet.
const QUEUE_WAIT: Duration = Duration::from_secs(1);
/// Sockets of a dead process are free at the latest after this long.
const DYING_WAIT: Duration = Duration::from_millis(1_500);
/// Ends a refusal of a store whose recorder runs without keeper.
const UNTOUCHED: &str = "; the recorder that runs was not touched and goes on";

/// See the module's description.
pub(super) struct Holdings {
    lock: Lock,
    volume: Volume,
    /// Next incarnation of media, and the end of those reserved on disk.
    incarnation: u64,
    memory: Vec<Memory>,
    slots: Vec<PortPair>,
    /// The configuration that memory and slots were made for, where another keeper made them.
    held: Option<Config>,
    /// The service manager holds copies of this memory already.
    stored: bool,
    /// The run before this one did not end cleanly.
    unclean: bool,
    /// The memory is ours, made new.
    fresh: bool,
    /// Roles that another keeper started and that have no successor yet.
    survivors: Survivors,
    /// Signalling sockets, UDP, TCP and TLS in the order of the configuration; none before control is
    /// started. They are this keeper's alone: its successor binds its own when control is gone.
    signalling: Vec<OwnedFd>,
    /// It was noted in the volume that the journal has begun.
    journal_noted: bool,
    /// The steering of our ports was found to be gone.
    astray: bool,
    /// The same of the program that diverts frames.
    undiverted: bool,
}

struct Memory {
    fds: WorkerMemory,
    /// To raise the incarnation, and to see the heartbeat.
    words: Mapped,
}

impl Holdings {
    /// Locks the store, makes the memory, reserves the ports: the order of the design. Where the
    /// roles of a dead keeper still hold all that, it is taken over from them (F03), who go on until
    /// [`Self::bury`]; where nobody lives and the service manager held it, from there (F04).
    /// [`Self::held`] says so.
    pub(super) fn take(config: &Config, handed: Vec<OwnedFd>) -> Result<Self, Failure> {
        // Before the lock, which would make the folder.
        let store = &config.store;
        spare::guard(&store.dir, store.volume.as_deref(), store.require_mount)
            .map_err(refused_by)?;
        match succession::find(&config.store.dir)? {
            Found::Free(lock) => {
                let refused = !handed.is_empty();
                let stored = stored::claim(&handed, &config.store.dir).and_then(checked);
                // Its sockets would take the ports from us.
                drop(handed);
                match stored {
                    Some(stored) => Self::take_up(config, lock, stored),
                    None => Self::make(config, lock, refused),
                }
            }
            // The turn ends when the lock names us.
            Found::Roles(taken, _turn) => {
                // What the manager holds besides is mostly the same: they had it from the keeper
                // that gave it there. Not where they are of a server that it did not start.
                let stored = stored::is_of(&handed, &taken.workers);
                Ok(Holdings { stored, ..Self::take_over(config, *taken)? })
            }
        }
    }

    /// Made by nobody before us, held by nobody else.
    fn of(
        lock: Lock,
        volume: Volume,
        incarnation: u64,
        memory: Vec<Memory>,
        slots: Vec<PortPair>,
    ) -> Self {
        Holdings {
            lock,
            volume,
            incarnation,
            memory,
            slots,
            held: None,
            stored: false,
            unclean: false,
            fresh: false,
            survivors: Survivors::default(),
            signalling: Vec::new(),
            journal_noted: false,
            astray: false,
            undiverted: false,
        }
    }

    /// Nobody lived, but the service manager held everything (F04).
    fn take_up(config: &Config, lock: Lock, stored: Checked) -> Result<Self, Failure> {
        let Checked { config: held, memory, slots } = stored;
        let (volume, incarnation) = reopen(config, &memory, "")?;
        let slots: Vec<PortPair> = slots.into_iter().filter_map(pair).collect();
        tracing::warn!("took up memory and {} port pairs from the service manager", slots.len());
        let fresh = Self::of(lock, volume, incarnation, memory, slots);
        Ok(Holdings { held: Some(held), stored: true, ..fresh })
    }

    /// Gives the service manager copies of everything but the lock, which only the living hold, in the
    /// place of what it may hold of another memory.
    pub(super) fn store(&self, config: &Config) -> io::Result<()> {
        if self.stored || std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(());
        }
        self.forget();
        let mut letters = Vec::new();
        self.emit(config, None, &mut |frame, fds: &[BorrowedFd<'_>]| {
            letters.push(letter::write(&link::emit(0, frame, fds), fds)?);
            Ok(())
        })?;
        notify::store(&letters);
        Ok(())
    }

    /// The end in order: nothing is left for anybody to go on from.
    pub(super) fn forget(&self) {
        notify::forget();
    }

    /// Takes what an older image of this very process put into a queue ([`Self::pack`]).
    pub(super) fn unpack(config: &Config, queue: OwnedFd) -> Result<Self, Failure> {
        let taken = link::take(Link::from_fd(queue)?)?;
        Ok(Holdings { stored: true, ..Self::take_over(config, taken)? })
    }

    /// Puts all of it into the queue of a socket, which holds it for as long as it is open.
    pub(super) fn pack(&self, config: &Config) -> io::Result<OwnedFd> {
        let (ours, queue) = seqpacket::pair()?;
        // Room for all of it: nobody reads before it is complete.
        let bytes = QUEUE_BYTES + self.slots.len() * QUEUE_BYTES_PER_SLOT;
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&ours, bytes);
        set_socket_timeout(&ours, Timeout::Send, Some(QUEUE_WAIT)).map_err(io::Error::from)?;
        let link = Link::new(ours);
        let lock = self.lock.file().as_fd();
        self.emit(config, Some(lock), &mut |frame, fds: &[BorrowedFd<'_>]| {
            link.send(0, frame, fds)
        })?;
        link.send(0, Frame::Go, &[])?;
        Ok(queue.into_fd())
    }

    /// All of it as frames.
    fn emit(
        &self,
        config: &Config,
        lock: Option<BorrowedFd<'_>>,
        to: &mut impl Sink,
    ) -> io::Result<()> {
        let config = self.held.as_ref().unwrap_or(config);
        estate::emit_head(config, self.memory.len(), self.slots.len(), lock, to)?;
        self.emit_parts(to)
    }

    /// Memory and sockets.
    fn emit_parts(&self, to: &mut impl Sink) -> io::Result<()> {
        for memory in &self.memory {
            estate::emit_memory(&memory.fds, to)?;
        }
        let ports: Vec<SocketAddr> = self.slots.iter().map(|pair| pair.address).collect();
        let pair = |slot: usize| [self.slots[slot].rtp.as_fd(), self.slots[slot].rtcp.as_fd()];
        estate::emit_slots(&ports, pair, to)
    }

    /// `refused`: the service manager holds what we do not go on from, among it ports.
    fn make(config: &Config, lock: Lock, refused: bool) -> Result<Self, Failure> {
        spare::guard_writable(&config.store.dir).map_err(refused_by)?;
        let (mut volume, incarnation) = open(config)?;
        if refused {
            notify::forget();
        }
        let unclean = volume::was_cut(&config.store.dir);
        if unclean {
            tracing::warn!("the last run did not end cleanly; recordings that were up go on");
        }
        let media = &config.media;
        let slots = reserve(config, unclean || refused)?;
        if slots.is_empty() {
            let (first, last) = (media.ports.first, media.ports.last);
            let why = format!("all ports {first}-{last} on media.address are taken");
            return Err(Failure::new(Exit::TryAgain, why));
        }
        for ip in &media.address.0 {
            let free = slots.iter().filter(|pair| pair.address.ip() == *ip).count();
            if free < media.streams_max as usize {
                tracing::warn!(
                    "only {free} port pairs are free on {ip} in media.ports for {} streams",
                    media.streams_max
                );
            }
        }
        let plan = placed::plan(config);
        let make = |worker: WorkerId| {
            // What is touched for each packet: the worker's own node keeps it. Buffers and ring are first
            // touched by the worker itself.
            let make = || Memory::make(config, worker, slots.len() as u32);
            affinity::beside(plan.worker(worker).core, make)
        };
        let mut memory = (0..config.worker_count())
            .map(|worker| make(WorkerId(worker)))
            .collect::<io::Result<Vec<_>>>()?;
        for (memory, steered) in memory.iter_mut().zip(steer(config, &slots)?) {
            memory.fds.steered = Some(steered);
        }
        let ports = slots.iter().map(|pair| pair.address.port());
        for (memory, diverted) in memory.iter_mut().zip(diverted::make(config, ports)?) {
            memory.fds.diverted = Some(diverted);
        }
        volume::begin_memory(&config.store.dir, &mut volume, incarnation)?;
        volume::begin_run(&config.store.dir)?;
        Ok(Holdings { unclean, fresh: true, ..Self::of(lock, volume, incarnation, memory, slots) })
    }

    /// Everything is looked at before anybody is ended: what we cannot go on from goes on as it is
    /// (F09).
    fn take_over(config: &Config, taken: Taken) -> Result<Self, Failure> {
        let Taken { config: held, lock, workers, slots } = taken;
        let refuse = |why: String| Failure::new(Exit::Config, format!("{why}; {GOES_ON}"));
        let memory = workers
            .into_iter()
            .map(|fds| Memory::held(fds).map_err(|error| refuse(error.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        let slots: Vec<PortPair> = slots.into_iter().filter_map(pair).collect();
        if memory.is_empty() || slots.is_empty() {
            return Err(refuse("the running recorder handed over no memory or no ports".into()));
        }
        let (volume, incarnation) = reopen(config, &memory, UNTOUCHED)?;
        let lock = Lock::taken_over(lock, &config.store.dir)?;
        let survivors = Survivors::of(&config.store.dir);
        tracing::warn!("took over memory and {} port pairs of a keeper that died", slots.len());
        let fresh = Self::of(lock, volume, incarnation, memory, slots);
        Ok(Holdings { held: Some(held), survivors, ..fresh })
    }

    /// Ends whoever plays `role` for a keeper before us. Only then may its successor start; an error
    /// where it does not end. Until then it goes on, so that our own death now would lose nothing.
    pub(super) fn bury(&mut self, role: Role) -> Result<(), Failure> {
        self.survivors.end(role)
    }

    /// Notes once that the journal has begun, when it has; a start without it is refused from then on.
    pub(super) fn note_journal(&mut self, config: &Config) -> Result<(), VolumeError> {
        if self.journal_noted || !spare::has_journal(&self.volume, &config.journal_dir()) {
            return Ok(());
        }
        // Where this fails it is left to the next start.
        self.journal_noted = true;
        volume::begin_journal(&config.store.dir, &mut self.volume)
    }

    /// The configuration that memory and slots were made for, where another keeper made them.
    pub(super) fn held(&self) -> Option<&Config> {
        self.held.as_ref()
    }

    /// Monotonic ns of each worker's last turn.
    pub(super) fn heartbeats(&self) -> Vec<u64> {
        self.memory.iter().map(|memory| memory.words.load(AT_HEARTBEAT)).collect()
    }

    /// Looks whether the ports are still steered, which an administrator can end, and steers them anew
    /// where they are not. Until then each port's own socket has what arrives. Says what it found the
    /// first time.
    pub(super) fn keep_steering(&mut self) {
        let first = self.memory.first_mut().and_then(|memory| memory.fds.steered.as_mut());
        let Some(Steered { steering, .. }) = first else { return };
        if matches!(steering.is_attached(), Ok(true)) {
            self.astray = false;
            return;
        }
        match steering.attach_again() {
            Ok(()) => tracing::warn!("somebody took the steering of our ports away: it is back"),
            Err(error) if !self.astray => tracing::error!(
                "alarm: somebody took the steering of our ports away, and it cannot be put back: \
                 {error}; each port is received from its own socket"
            ),
            Err(_) => {}
        }
        self.astray = true;
    }

    /// The same of the program that diverts frames; until it is back they come by the sockets.
    pub(super) fn keep_diversion(&mut self, interface: Option<&str>) {
        let first = self.memory.first_mut().and_then(|memory| memory.fds.diverted.as_mut());
        let (Some(Diverted { diversion, .. }), Some(interface)) = (first, interface) else {
            return;
        };
        if matches!(diversion.is_attached(), Ok(true)) {
            self.undiverted = false;
            return;
        }
        match Card::named(interface).and_then(|card| diversion.attach_again(&card)) {
            Ok(()) => tracing::warn!("somebody took our program away from {interface}: it is back"),
            Err(error) if !self.undiverted => tracing::error!(
                "alarm: our program is no more at {interface}, and cannot be put back: {error}; \
                 packets come by the sockets"
            ),
            Err(_) => {}
        }
        self.undiverted = true;
    }

    /// Whether the run before this one did not end cleanly.
    pub(super) fn unclean(&self) -> bool {
        self.unclean
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
        self.hand_in_advance(link, start, config)?;
        self.let_go(link, role, config, peer)
    }

    /// Hands over what does not depend on the death of a predecessor.
    pub(super) fn hand_in_advance(
        &self,
        link: &Link,
        start: u64,
        config: &Config,
    ) -> Result<(), Failure> {
        let config_text = serde_json::to_string(config)?;
        let successor = start > 1 || self.held.is_some();
        let (unclean, fresh) = (self.unclean, self.fresh);
        let setup = Frame::Setup { config: config_text, start, successor, unclean, fresh };
        link.send(0, setup, &[self.lock.file().as_fd()])?;
        if let Some(keys) = link::keys_of(&config.store.dir) {
            link.send(0, keys, &[])?;
        }
        self.emit_parts(&mut |frame, fds: &[BorrowedFd<'_>]| link.send(0, frame, fds))?;
        Ok(())
    }

    /// Lets go whoever has all else: the predecessor is reaped.
    pub(super) fn let_go(
        &mut self,
        link: &Link,
        role: Role,
        config: &Config,
        peer: Option<OwnedFd>,
    ) -> Result<(), Failure> {
        match role {
            Role::Media => self.raise_incarnation(config)?,
            Role::Control => self.hand_signalling(link, config)?,
        }
        if let Some(peer) = peer {
            link.send(0, Frame::Link, &[peer.as_fd()])?;
        }
        link.send(0, Frame::Go, &[])?;
        Ok(())
    }

    /// Binds the signalling sockets where they are not held. Only when no control lives.
    pub(super) fn bind_signalling(&mut self, sip: &Sip) -> Result<(), Failure> {
        // A control that was killed may hold them for a moment yet.
        let patient = self.unclean || self.held.is_some();
        let deadline = Instant::now() + DYING_WAIT;
        while self.signalling.is_empty() {
            match bind_all(sip) {
                Ok(sockets) if sockets.is_empty() => break,
                Ok(sockets) => self.signalling = sockets,
                Err(error)
                    if patient
                        && error.kind() == io::ErrorKind::AddrInUse
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Lets go of them: nobody will read them soon, and who calls must hear that.
    pub(super) fn close_signalling(&mut self) {
        self.signalling.clear();
    }

    fn hand_signalling(&mut self, link: &Link, config: &Config) -> Result<(), Failure> {
        self.bind_signalling(&config.sip)?;
        for some in self.signalling.chunks(FRAME_FDS_MAX) {
            let fds: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            link.send(0, Frame::Signalling, &fds)?;
        }
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
        // For media as well, which would lock it anew at each start. Best effort: without the right
        // to, `check` has said so (F75).
        if words.lock().is_err() {
            let _ = words.populate(0, geometry.state_bytes());
        }
        let buffers = mapped::create(&name("buffers"), geometry.buffers_bytes())?;
        let ring = mapped::create(&name("ring"), geometry.ring_bytes as usize)?;
        let (steered, diverted) = (None, None);
        let fds = WorkerMemory { worker, geometry, state, buffers, ring, steered, diverted };
        Ok(Memory { fds, words })
    }

    /// Memory that another keeper made, checked.
    fn held(fds: WorkerMemory) -> io::Result<Self> {
        let geometry = &fds.geometry;
        let words = Mapped::map(fds.state.as_fd(), geometry.state_bytes())?;
        layout::check(&words, fds.worker.0, geometry).map_err(io::Error::other)?;
        let _ = words.lock();
        // Only to see that they can be mapped, and have their sizes.
        drop(Mapped::map(fds.buffers.as_fd(), geometry.buffers_bytes())?);
        drop(Mapped::map(fds.ring.as_fd(), geometry.ring_bytes as usize)?);
        Ok(Memory { fds, words })
    }
}

/// What the service manager held, its memory mapped.
struct Checked {
    config: Config,
    memory: Vec<Memory>,
    slots: Vec<SlotPorts>,
}

fn checked(stored: Stored) -> Option<Checked> {
    let Stored { config, workers, slots } = stored;
    match workers.into_iter().map(Memory::held).collect::<io::Result<_>>() {
        Ok(memory) => Some(Checked { config, memory, slots }),
        Err(error) => {
            tracing::error!("memory from the service manager is not usable: {error}");
            None
        }
    }
}

/// Few sockets for all ports where that is permitted and wanted; none else.
fn steer(config: &Config, slots: &[PortPair]) -> Result<Vec<Steered>, Failure> {
    if config.media.steering == Steering::Off {
        return Ok(Vec::new());
    }
    match steered::make(config, slots) {
        Ok(steered) => {
            let sockets: usize = steered.iter().map(|one| one.shared.len()).sum();
            tracing::info!("{} port pairs are steered to {sockets} sockets", slots.len());
            Ok(steered)
        }
        Err(error) if config.media.steering == Steering::On => {
            let why = format!("media.steering is \"on\", and it is not permitted: {error}");
            Err(Failure::new(Exit::Config, why))
        }
        Err(error) => {
            tracing::info!("each port is received from its own socket: steering: {error}");
            Ok(Vec::new())
        }
    }
}

fn pair(slot: SlotPorts) -> Option<PortPair> {
    let (rtp, rtcp) = slot.sockets?;
    Some(PortPair { rtp, rtcp, address: slot.address })
}

/// UDP, TCP and TLS, in the order of the configuration.
fn bind_all(sip: &Sip) -> io::Result<Vec<OwnedFd>> {
    let udp = sip.udp.iter().map(|one| listener::bind_udp(*one));
    let tcp = sip.tcp.iter().map(|one| listener::bind_stream("TCP", *one));
    let tls = sip.tls.iter().map(|one| listener::bind_stream("TLS", *one));
    udp.chain(tcp).chain(tls).collect()
}

/// Reads the volume and makes what the store must hold, under the lock and before any role, so that
/// the roles only ever read it. On a disk that is full to its last block the store's reserve goes for it: a
/// server that does not start removes nothing of what is due.
fn open(config: &Config) -> Result<(Volume, u64), VolumeError> {
    let store = &config.store.dir;
    open_as_it_is(config).or_else(|error| {
        let full = matches!(&error, VolumeError::Io { error, .. } if reserve::wants_room(error));
        if !full || !reserve::give_back(store) {
            return Err(error);
        }
        tracing::warn!(
            "{error}: the disk is full to its last block: its reserve of {} MiB is given back",
            reserve::BYTES >> 20
        );
        open_as_it_is(config)
    })
}

fn open_as_it_is(config: &Config) -> Result<(Volume, u64), VolumeError> {
    let fresh_id = uuid::Uuid::now_v7().to_string();
    let (store, journal) = (&config.store, config.journal_dir());
    // Before an incarnation is used up: a service manager tries for ever.
    spare::guard_keys(&store.dir, &journal)?;
    let has_keys = match unlocked::unlock_as(&store.dir, &store.encryption) {
        Err(error) if unlocked::of_store(&store.dir).is_some() => {
            tracing::error!(
                "alarm: {error}; going on with the keys of those before us, which a start after a \
                 reboot will not have"
            );
            true
        }
        unlocked => unlocked?,
    };
    let (mut volume, incarnation) = volume::open(&store.dir, &fresh_id)?;
    if !has_keys {
        unlocked::make(&store.dir, &store.encryption, &mut volume, SystemClock.map().wall)?;
    }
    spare::record(&store.dir, &mut volume, store.more_dirs(), &journal)?;
    keyfile::load_or_make(&store.dir, &mut volume, &journal, &SystemEntropy)?;
    signing::load_or_make(&store.dir, &SystemEntropy)?;
    Ok((volume, incarnation))
}

/// The same where there is memory to go on from: a store that takes no writes now (F11, F12) is no
/// reason to leave recordings alone. One without its identity or a key of it is: those who record have
/// them in memory, and nobody after them would. `unless`: what is said of them then.
fn reopen(config: &Config, memory: &[Memory], unless: &str) -> Result<(Volume, u64), Failure> {
    open(config).or_else(|error| {
        if error.is_of_identity() {
            return Err(Failure::new(exit_of(&error), format!("{error}{unless}")));
        }
        let reserved = reserved(config, memory).ok_or_else(|| {
            let why = "and no incarnation is left of those reserved";
            Failure::new(Exit::Io, format!("{error}, {why}"))
        })?;
        tracing::error!("{error}; taking over all the same");
        Ok(reserved)
    })
}

/// The volume as it stands, where an incarnation of those reserved before is left: all that were used
/// have stood in this very memory.
fn reserved(config: &Config, memory: &[Memory]) -> Option<(Volume, u64)> {
    let volume = volume::read(&config.store.dir).ok()?;
    let used = memory.iter().map(|memory| memory.words.load(AT_INCARNATION)).max()?;
    (used + 1 < volume.incarnation_next).then_some((volume, used + 1))
}

/// A store that the configuration does not mean is a fault of the configuration (F18), and so is a key that
/// does not open it (F73).
const fn exit_of(error: &VolumeError) -> Exit {
    match error {
        VolumeError::Wrong { .. } | VolumeError::NotMounted { .. } | VolumeError::Kek { .. } => {
            Exit::Config
        }
        _ => Exit::Io,
    }
}

fn refused_by(error: VolumeError) -> Failure {
    Failure::new(exit_of(&error), error.to_string())
}

/// Reserves the port pairs. SRCs of a run that was cut still send to the pairs of that run, and its
/// sockets may be held by a dying ring for a moment (kill protocol §2), or by a service manager that
/// has yet to let go of them: where we are `patient`, it is tried again for a while as long as one of
/// the range's first pairs is taken.
fn reserve(config: &Config, patient: bool) -> Result<Vec<PortPair>, Failure> {
    let deadline = Instant::now() + DYING_WAIT;
    let mut slots = Vec::new();
    for (place, ip) in config.media.address.0.iter().enumerate() {
        slots.extend(reserve_on(config, *ip, place, patient.then_some(deadline))?);
    }
    Ok(slots)
}

/// The pairs of address number `place`. `patient`: until when it is tried again.
fn reserve_on(
    config: &Config,
    ip: IpAddr,
    place: usize,
    patient: Option<Instant>,
) -> Result<Vec<PortPair>, Failure> {
    let PortRange { first, last } = config.ports_of(place);
    loop {
        let wanted = config.slots_each() as usize;
        let slots = socket::reserve(ip, first, last, wanted).map_err(|error| {
            Failure::new(Exit::Io, format!("cannot bind ports on media.address {ip}: {error}"))
        })?;
        let at = |pair: &PortPair| pair.address.port();
        let from_first = slots.first().is_some_and(|pair| at(pair) <= first + 1);
        let whole = from_first && slots.windows(2).all(|two| at(&two[1]) - at(&two[0]) == 2);
        if whole || patient.is_none_or(|deadline| Instant::now() >= deadline) {
            return Ok(slots);
        }
        drop(slots);
        std::thread::sleep(Duration::from_millis(20));
    }
}
