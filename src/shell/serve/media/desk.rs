//! The command thread: takes frames from keeper and control, passes them to the workers and spools
//! that they are for ([`super::requests`]), sends answers, figures and RTCP. It waits for links only, never for a queue.

use std::collections::HashMap;
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::health::{Health, Now};
use super::outbox::Outbox;
use super::retired::Retired;
use super::seat::{Common, Receiving, Seat};
use super::stages::Stages;
use crate::base::faults::fault;
use crate::base::ports::{Clock, Entropy, Region};
use crate::base::time::Mono;
use crate::config::model::Config;
use crate::config::room_shortfall;
use crate::host::clock::SystemClock;
use crate::host::entropy::SystemEntropy;
use crate::host::{drops, process, signing, socket, volume};
use crate::plane::handoff::frame::Frame;
use crate::plane::handoff::layout::{AT_DURABLE, AT_HELD, AT_TAIL};
use crate::plane::handoff::queues::HostSample;
use crate::plane::handoff::slot::{OPEN, SOCKET_DROPS, SlotView};
use crate::plane::keeper::Role;
use crate::plane::reporter::{Reporter, WorkerState};
use crate::plane::watch::{Watch, Watched};
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::estate::{self, Estate, LINGER_S};
use crate::shell::serve::link::{self, Link, Received, Start};
use crate::shell::serve::placed;
use crate::shell::serve::room::{Load, Room};
use crate::shell::serve::steered;
use crate::store::event::HostDrops;
use crate::store::evidence::SigningKey;

/// How long an answer may lie in a worker's queue while control waits for it.
const ANSWER_MS: u64 = 1;
/// The same with nothing asked: only notices can be late.
const IDLE_MS: u64 = 20;
/// Reports are looked at twenty times a second.
const REPORT_MS: u64 = 50;
/// Figures and samples.
const SECOND_MS: u64 = 1_000;
/// Longest wait for control before a fresh media receives: sockets hold more than that.
const HELD_MS_MAX: u64 = 5_000;
/// A spool that has not ended by then is held up by its disk; keeper kills media 2 s later.
const SPOOL_END_MS: u64 = 2_500;
/// Between two alarms about full socket queues.
const DROPS_TOLD_NS: u64 = 60_000_000_000;
/// Request ids carry the number of control's link above these bits, so that an answer meant for a
/// dead control never reaches its successor.
pub(super) const ID_BITS: u32 = 48;

/// Keeps the workers from receiving while control tells them which streams go on. The word is in
/// shared state, so that a media that dies in between leaves it to its successor.
pub(super) struct Gate {
    until: Option<Mono>,
}

impl Gate {
    fn new(now: Mono) -> Self {
        Gate { until: Some(now.plus_ms(HELD_MS_MAX)) }
    }

    pub(super) fn open(&mut self, seats: &[Seat]) {
        self.until = None;
        seats.iter().for_each(|seat| seat.state.store(AT_HELD, 0));
    }

    /// Without control there is nothing to wait for.
    fn expire(&mut self, now: Mono, seats: &[Seat]) {
        if self.until.is_some_and(|until| until <= now) {
            if seats.iter().any(|seat| seat.state.load(AT_HELD) != 0) {
                tracing::warn!("control has not named its streams in time: receiving without it");
            }
            self.open(seats);
        }
    }
}

/// The thread's state; see the module.
pub(super) struct Desk {
    config: Config,
    /// `None`: it is gone, and what we hold is for the next one.
    keeper: Option<Link>,
    estate: Option<Estate>,
    pub(super) control: Option<Link>,
    pub(super) epoch: u64,
    pub(super) outbox: Outbox,
    pub(super) seats: Vec<Seat>,
    /// What workers left that are no more, on its way into segments.
    pub(super) retired: Option<Retired>,
    stop_workers: Arc<AtomicBool>,
    reporter: Reporter,
    pub(super) watch: Watch,
    /// What sockets had dropped a second ago, and when that was last told.
    dropped: Option<(u64, Option<Mono>)>,
    /// Requests that workers have not answered yet.
    pub(super) asked: u64,
    /// Spools yet to answer, by id of the `Seal` request.
    pub(super) sealing: HashMap<u64, usize>,
    /// The `Holding` request under way, by id, and workers yet to come to it.
    pub(super) holding: Option<(u64, usize)>,
    room: Room,
    load: Load,
    pub(super) disk_full: bool,
    /// Seconds in which nothing was recorded.
    idle_s: u64,
    pub(super) ready: bool,
    pub(super) gate: Gate,
    health: Health,
}

/// Runs the role until keeper stops it or is gone.
pub fn run(mut start: Start) -> Result<Exit, Failure> {
    let (workers, slots) = (mem::take(&mut start.workers), mem::take(&mut start.slots));
    let estate = Estate::of(Role::Media, &start.config, start.lock.as_fd(), &workers, &slots)?;
    let slot_count = slots.len() as u32;
    let config = start.config.clone();
    let plan = placed::plan(&config);
    // Before any other thread begins: each starts here, and goes where it has a place of its own.
    placed::pin("cpu.rx", "commands", &plan.commands);
    let common = Common {
        config: &config,
        plan,
        key: Arc::new(signing_key(&config.store.dir)?),
        volume: volume::read(&config.store.dir)?,
        stop: Arc::default(),
        unclean: start.unclean,
    };
    let mut workers = workers;
    let steered = workers.iter_mut().map(|memory| memory.steered.take()).collect();
    let sockets = steered::by_worker(slots, steered);
    let mut receiving = Vec::new();
    let stages = (!start.spare).then(|| Stages::of_process(start.began, start.go));
    for memory in workers {
        let own = sockets[usize::from(memory.worker.0)].clone();
        receiving.push(Receiving::start(memory, own, &common, stages.clone())?);
    }
    if start.spare && !needed(&mut start, &receiving)? {
        return Ok(Exit::Yes);
    }
    // The lock is held to the end, see `Start`.
    let Start { keeper, peer, lock: _lock, .. } = start;
    receiving.iter().for_each(Receiving::wait);
    let seats: Result<Vec<_>, _> =
        receiving.into_iter().map(|receiving| receiving.store(&common)).collect();
    // A process ends with its threads; a role in a thread must end them itself.
    let seats = seats.inspect_err(|_| common.stop.store(true, Ordering::Release))?;
    // After the workers: nobody who receives waits for it, nor fails with it.
    let retired = Retired::start(&common)
        .inspect_err(|error| tracing::error!("no thread for what is left of workers: {error}"));
    let stop_workers = common.stop;
    let mut seed = [0; 8];
    SystemEntropy.fill(&mut seed);
    let stats: Vec<_> = seats.iter().map(Seat::stats).collect();
    let mut desk = Desk {
        room: Room::watch(folders(&config))?,
        load: Load::default(),
        health: Health::new(SystemClock.mono(), &stats),
        reporter: Reporter::new(u64::from_le_bytes(seed), slot_count),
        watch: Watch::new(slot_count),
        dropped: None,
        config,
        keeper: Some(keeper),
        estate: Some(estate),
        control: peer,
        epoch: 1,
        outbox: Outbox::default(),
        seats,
        retired: retired.ok(),
        stop_workers,
        asked: 0,
        sealing: HashMap::new(),
        holding: None,
        disk_full: false,
        idle_s: 0,
        ready: false,
        gate: Gate::new(SystemClock.mono()),
    };
    desk.work()?;
    desk.end()?;
    Ok(Exit::Yes)
}

/// What a spare does: waits until all is ready, then until it is needed, and takes the name and the
/// place of its predecessor. Not needed any more: keeper is gone, or has closed the link.
fn needed(start: &mut Start, receiving: &[Receiving]) -> Result<bool, Failure> {
    if !receiving.iter().all(Receiving::wait_prepared) {
        return Err(Failure::new(Exit::Io, "a worker of the spare cannot be made ready"));
    }
    match start.wait_for_go() {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        other => other?,
    }
    if let Err(error) = process::rename_self(Role::Media.name()) {
        tracing::warn!("a spare that plays media keeps its name: {error}");
    }
    receiving.iter().for_each(|receiving| receiving.go(Stages::of_spare(start.go)));
    Ok(true)
}

/// The key to sign with. One that was exchanged under a running server is told and taken: what comes
/// now is recorded all the same, and the next start of the server is refused.
fn signing_key(store: &Path) -> Result<SigningKey, Failure> {
    let key = signing::load(store).map_err(|error| {
        Failure::new(Exit::Io, format!("{}: {error}", signing::path(store).display()))
    })?;
    if signing::published(store).is_some_and(|known| known != key.public_key()) {
        tracing::error!("alarm: {} is not the key of this store", signing::path(store).display());
    }
    Ok(key)
}

/// The folders whose room counts.
fn folders(config: &Config) -> Vec<PathBuf> {
    config.store.dirs().map(Path::to_owned).collect()
}

impl Desk {
    /// Works until told to stop.
    fn work(&mut self) -> Result<(), Failure> {
        let now = SystemClock.mono();
        let (mut report_at, mut second_at) = (now, now);
        loop {
            self.wait()?;
            fault!("media.turn");
            if self.hear_keeper()? {
                let stats: Vec<_> = self.seats.iter().map(Seat::stats).collect();
                tracing::info!("{}", self.health.line_now(SystemClock.mono(), &stats, self.now()));
                return Ok(());
            }
            self.hear_control();
            self.collect();
            if self.seats.iter().any(Seat::has_ended) {
                // The engine or the memory failed, or a spool panicked: end, so that keeper starts the next one.
                self.end()?;
                return Err(Failure::new(Exit::Io, "a worker or a spool ended unasked"));
            }
            if !self.ready && self.seats.iter().all(|seat| seat.running.load(Ordering::Acquire)) {
                self.ready = true;
                self.say(Frame::Ready);
                let recovered: u64 = self.seats.iter().map(|s| s.queues.gauge.recovered()).sum();
                if recovered > 0 {
                    tracing::warn!("{recovered} datagrams of the predecessor recovered");
                }
            }
            let now = SystemClock.mono();
            self.gate.expire(now, &self.seats);
            if now >= report_at {
                report_at = now.plus_ms(REPORT_MS);
                for seat in &mut self.seats {
                    seat.lag.note(now, seat.state.load(AT_TAIL), seat.state.load(AT_DURABLE));
                }
                self.report(now);
            }
            if now >= second_at {
                second_at = now.plus_ms(SECOND_MS);
                self.each_second(now);
                self.say(Frame::Beat);
                self.idle_s = if self.now().streams == 0 { self.idle_s + 1 } else { 0 };
                if self.keeper.is_none() && self.idle_s >= LINGER_S && self.is_durable() {
                    tracing::warn!("without keeper and with nothing to record: ending");
                    return Ok(());
                }
            }
            if let Some(control) = &self.control
                && self.outbox.flush(control).is_err()
            {
                self.drop_control();
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let mut fds = Vec::with_capacity(2);
        fds.extend(self.keeper.iter().map(|keeper| PollFd::new(keeper, PollFlags::IN)));
        if let Some(control) = &self.control {
            let room = if self.outbox.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::new(control, PollFlags::IN | room));
        }
        let ms = if self.asked > 0 || !self.ready { ANSWER_MS } else { IDLE_MS };
        let timeout = Timespec { tv_sec: 0, tv_nsec: ms as i64 * 1_000_000 };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes keeper's frames; true: end.
    fn hear_keeper(&mut self) -> Result<bool, Failure> {
        loop {
            let Some(keeper) = &mut self.keeper else { return Ok(false) };
            match keeper.try_recv() {
                Ok(Received { frame: Frame::Stop, .. }) => return Ok(true),
                Ok(Received { frame: Frame::Link, fds, .. }) => {
                    self.drop_control();
                    self.control = link::one(fds)?;
                }
                Ok(Received { frame: Frame::Reload { config }, .. }) => {
                    self.config = serde_json::from_str(&config)?;
                }
                Ok(_) => tracing::warn!("keeper sent a frame that is not for media"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(!self.go_on_alone());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// F03: keeper is gone. What is being recorded goes on, and whoever comes next gets a copy of all
    /// that we hold. False: nothing is being recorded or written, so that our end costs nothing.
    fn go_on_alone(&mut self) -> bool {
        self.keeper = None;
        let streams = self.now().streams;
        if streams == 0 && self.is_durable() {
            return false;
        }
        tracing::error!("keeper is gone: {streams} streams go on without it");
        let Some(estate) = self.estate.take() else { return true };
        let sockets = self.seats.iter().map(|seat| seat.sockets.clone()).collect();
        if let Err(error) = estate::open_door(estate.with(sockets)) {
            tracing::error!("nobody can take over from us: {error}");
        }
        true
    }

    /// Whether all that was captured is on disk: without keeper the ring lives in us alone.
    fn is_durable(&self) -> bool {
        self.seats.iter().all(|seat| seat.state.load(AT_TAIL) == seat.state.load(AT_DURABLE))
    }

    /// To keeper, if there is one; that it is gone shows in its link.
    fn say(&self, frame: Frame) {
        if let Some(keeper) = &self.keeper {
            let _ = keeper.try_send(0, frame, &[]);
        }
    }

    /// Control is gone; what was meant for it is not for its successor, which asks again.
    fn drop_control(&mut self) {
        self.control = None;
        self.epoch += 1;
        self.watch.tell_again();
        self.outbox.clear();
        self.sealing.clear();
        self.holding = None;
    }

    fn hear_control(&mut self) {
        loop {
            let Some(control) = &mut self.control else { return };
            match control.try_recv() {
                Ok(Received { id, frame, .. }) => self.request(id, frame),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    if error.kind() != io::ErrorKind::UnexpectedEof {
                        tracing::error!("control: {error}");
                    }
                    return self.drop_control();
                }
            }
        }
    }

    /// Sends the RTCP that is due, each report from the announced port (RFC 7866 §8.1.8).
    fn report(&mut self, now: Mono) {
        let states: Vec<_> = self
            .seats
            .iter()
            .map(|seat| WorkerState { state: &seat.state, geometry: &seat.geometry })
            .collect();
        for transmit in self.reporter.turn(now, &states) {
            let workers = self.seats.len() as u32;
            let seat = &self.seats[(transmit.slot.0 % workers) as usize];
            let pair = seat.sockets.pair((transmit.slot.0 / workers) as usize);
            let Some(fd) = pair.map(|pair| pair[usize::from(!transmit.mux)]) else { continue };
            // A report that cannot leave is lost like one on the network; the next one follows.
            if let Err(error) = socket::send_to(fd, &transmit.bytes, transmit.to) {
                tracing::debug!("RTCP to {}: {error}", transmit.to);
            }
        }
    }

    /// What was dropped before any socket: as the host counts it, and what found no place in the queues that
    /// frames are diverted to.
    fn host_drops(&self) -> HostDrops {
        let mut drops = drops::read();
        let queues = self.seats.iter().filter_map(|seat| seat.diverted.as_ref());
        drops.nic += queues.filter_map(|diverted| diverted.queue.drops()).sum::<u64>();
        drops
    }

    fn each_second(&mut self, now: Mono) {
        let sample = HostSample { at: now, drops: self.host_drops() };
        for seat in &self.seats {
            // A worker that has not taken the last eight samples gets a longer span.
            let _ = seat.queues.host.push(sample);
        }
        let stats: Vec<_> = self.seats.iter().map(Seat::stats).collect();
        self.load.note(now, stats.iter().map(|worker| worker.tail.0).sum());
        let state = self.now();
        self.look_at_sockets(now, state.socket_drops);
        let watched: Vec<_> = self
            .seats
            .iter()
            .map(|seat| Watched { state: &seat.state, geometry: &seat.geometry })
            .collect();
        let notices = self.watch.look(now, &watched);
        notices.into_iter().for_each(|one| self.outbox.push(0, Frame::Notice(one)));
        // F11: asked of the disk, not remembered, because others fill it as well.
        if let Ok(free) = self.room.free() {
            let shortfall = room_shortfall(&self.config, free, self.bytes_per_s(state.streams));
            if shortfall.is_some() != self.disk_full {
                match &shortfall {
                    Some(why) => tracing::error!("new streams are refused: {why}"),
                    None => tracing::info!("the disk has room again: {} MiB free", free >> 20),
                }
            }
            self.disk_full = shortfall.is_some();
        }
        if let Some(line) = self.health.line(now, &stats, state) {
            tracing::info!("{line}");
        }
        self.outbox.push(0, Frame::Stats(stats));
    }

    /// F22: a queue that was full is an alarm at the first drop, and then each minute.
    fn look_at_sockets(&mut self, now: Mono, dropped: u64) {
        // What a predecessor's sockets had dropped was told then.
        let (before, told) = self.dropped.unwrap_or((dropped, None));
        // Streams that have closed take their count along.
        let grown = dropped.saturating_sub(before);
        let is_due = told.is_none_or(|told| now.since(told) >= DROPS_TOLD_NS);
        if grown > 0 && is_due {
            tracing::error!(
                "alarm: socket queues were full, {grown} datagrams were dropped: the workers do not get the \
                 processor, or net.core.rmem_max is too small"
            );
            self.dropped = Some((dropped, Some(now)));
        } else if grown == 0 {
            self.dropped = Some((dropped, told));
        }
    }

    fn bytes_per_s(&self, streams: usize) -> u64 {
        self.config.load_bytes_per_s(streams as u64, self.load.bytes_per_s())
    }

    fn now(&self) -> Now {
        let mut now = Now { disk_hangs_s: self.room.hangs_s(), ..Now::default() };
        for seat in &self.seats {
            // Of a socket that streams share, since it was made.
            now.socket_drops += seat.shared_drops();
            for number in 0..seat.geometry.slot_count {
                let slot = SlotView::new(&seat.state, &seat.geometry, number);
                if slot.has(OPEN) {
                    now.streams += 1;
                    now.socket_drops += slot.word(SOCKET_DROPS);
                }
            }
        }
        let free = self.room.free().ok();
        now.minutes_left =
            free.map(|free| Config::minutes_left(free, self.bytes_per_s(now.streams)));
        now
    }

    /// Ends the threads: workers commit what has arrived, then spools make all durable.
    fn end(&mut self) -> io::Result<()> {
        // What is missing of the last second is judged by what the host counted until now.
        let sample = HostSample { at: SystemClock.mono(), drops: self.host_drops() };
        for seat in &self.seats {
            let _ = seat.queues.host.push(sample);
        }
        self.stop_workers.store(true, Ordering::Release);
        let retired = self.retired.take();
        if let Some(retired) = &retired {
            retired.ties.stop.store(true, Ordering::Release);
            retired.thread.thread().unpark();
        }
        let mut result = Ok(());
        let seats: Vec<_> = self.seats.drain(..).collect();
        let mut spoolers = Vec::new();
        for seat in seats {
            match seat.receiver.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => result = Err(error),
                Err(_) => result = Err(io::Error::other("a worker's thread panicked")),
            }
            seat.ties.stop.store(true, Ordering::Release);
            seat.spooler.thread().unpark();
            spoolers.push((seat.spooler, seat.ties, seat.state, seat.worker));
        }
        let deadline = SystemClock.mono().plus_ms(SPOOL_END_MS);
        for (spooler, ties, state, worker) in spoolers {
            let mut is_late = false;
            while !spooler.is_finished() {
                is_late = SystemClock.mono() >= deadline;
                if is_late {
                    break;
                }
                // Nobody listens any more; a full queue must not hold the spool up.
                while ties.outputs.pop().is_some() {}
                std::thread::park_timeout(std::time::Duration::from_millis(1));
            }
            if is_late {
                // In the kernel, most likely: nobody can end it there.
                if state.load(AT_DURABLE) == state.load(AT_TAIL) {
                    tracing::warn!(
                        "spool {} is held up by its disk at a segment; all is durable, the next \
                         start seals it",
                        worker.0
                    );
                } else {
                    // What is not durable is in the ring, which keeper holds.
                    result = Err(io::Error::other("a spool is held up by its disk"));
                }
            } else if spooler.join().is_err() {
                result = Err(io::Error::other("a spool's thread panicked"));
            }
        }
        // What it has not sealed by then the next start seals.
        while let Some(retired) = &retired
            && !retired.thread.is_finished()
            && SystemClock.mono() < deadline
        {
            while retired.ties.outputs.pop().is_some() {}
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
        result
    }
}
