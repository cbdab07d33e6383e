//! Keeper: the process that `floortape serve` is. It does what `plane::keeper` decides: starts the
//! roles, hands them what it holds, reaps them, passes signals on. One thread and `poll`; it parses
//! nothing from outside.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::base::faults::faulty;
use crate::base::ports::Clock;
use crate::base::time::Mono;
use crate::config::Fault;
use crate::config::model::Config;
use crate::host::clock::SystemClock;
use crate::host::process::{self, Child};
use crate::host::signal::{Asked, Signals};
use crate::host::{facts, seqpacket, volume};
use crate::plane::handoff::frame::Frame;
use crate::plane::keeper::{Act, Begin, Event, Machine, Outcome, Role, SPARE_NAME};
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::control::anchors;
use crate::shell::serve::estate;
use crate::shell::serve::holdings::Holdings;
use crate::shell::serve::kek::KekWatch;
use crate::shell::serve::link::Link;
use crate::shell::serve::notify;
use crate::shell::serve::upgrade::{self, Handed};
use crate::shell::serve::vigil::{Seen, Vigil};

/// A child that takes longer than this to take its frames hangs; it is killed and started again.
const HAND_OVER_WAIT: Duration = Duration::from_secs(5);

/// What calls while no control lives waits in the signalling sockets for so long; from then on it is
/// refused by the kernel, which sends an SRC elsewhere at once (4·T1: a request has come again twice).
const UNREAD_MS: u64 = 2_000;

/// How often keeper looks at the heartbeats.
pub(super) const LOOK_MS: u64 = 100;

/// Runs the server until it is asked to end. `reload` reads the configuration anew, as on SIGHUP.
/// `handed`: what an older image of this process left, if it was upgraded.
pub fn run(
    mut config: Config,
    mut handed: Handed,
    reload: &dyn Fn() -> Result<Config, Vec<Fault>>,
) -> Result<Exit, Failure> {
    #[cfg(feature = "faults")]
    crate::host::faults::arm(1);
    let begun = begin(&mut config, &mut handed);
    let (signals, interrupt, holdings, image) = match begun {
        Ok(begun) => begun,
        Err(failure) => return Err(upgrade::failed(handed, failure)),
    };
    let now = SystemClock.mono();
    let begin = match (holdings.held(), handed.can_go_back()) {
        (None, _) => Begin::Fresh,
        (Some(_), false) => Begin::Kept,
        (Some(_), true) => Begin::Upgraded,
    };
    let mut keeper = Keeper {
        config,
        holdings,
        machine: Machine::new(now, begin),
        media: None,
        control: None,
        spare: None,
        retired: Vec::new(),
        signals,
        interrupt,
        image,
        handed: Some(handed),
        vigil: Vigil::new(now),
        kek: KekWatch::default(),
        unread_since: None,
    };
    loop {
        while let Some(act) = keeper.machine.poll() {
            if let Act::Exit(outcome) = act {
                // Roles of a keeper before us that never got a successor must not go on alone.
                let buried = [Role::Control, Role::Media].map(|role| keeper.holdings.bury(role));
                if let Some(failure) = buried.into_iter().find_map(Result::err) {
                    return Err(failure);
                }
                keeper.holdings.forget();
                // A run that came to nothing leaves the mark as it found it.
                let refused = matches!(outcome, Outcome::Failed(_)) && !keeper.holdings.unclean();
                if refused || matches!(outcome, Outcome::Clean | Outcome::Interrupted) {
                    let store = &keeper.config.store.dir;
                    volume::end_run(store)?;
                    if let Err(error) = anchors::renew(store, &keeper.config.journal_dir()) {
                        tracing::warn!("the heads do not tell of the last segments: {error}");
                    }
                }
                return ended(outcome);
            }
            keeper.act(act);
        }
        keeper.wait(reload)?;
    }
}

type Begun = (Signals, OwnedFd, Holdings, PathBuf);

fn begin(config: &mut Config, handed: &mut Handed) -> Result<Begun, Failure> {
    // Before anything else is opened.
    let stored = process::handed_over();
    let signals = Signals::block()?;
    let interrupt = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let wake = interrupt.try_clone()?;
    // Before any tokio exists in this process, and without the `termination` feature, which would
    // take SIGTERM and SIGHUP as well.
    ctrlc::set_handler(move || {
        let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
    })?;
    process::forbid_cores();
    facts::raise_descriptors();
    facts::raise_memlock();
    let image = match handed.path() {
        Some(path) => path,
        None => std::env::current_exe()?,
    };
    make_absolute(config)?;
    let holdings = match handed.take()? {
        Some(queue) => Holdings::unpack(config, queue)?,
        None => Holdings::take(config, stored)?,
    };
    if let Err(error) = holdings.store(config) {
        tracing::warn!("the service manager holds no descriptors: {error}");
    }
    if let Some(held) = holdings.held() {
        let changed = keep_fixed(config, held);
        if !changed.is_empty() {
            tracing::warn!(
                "recordings go on with the values before of {}; the new ones hold once the server \
                 was ended and started",
                changed.join(", ")
            );
        }
    }
    Ok((signals, interrupt, holdings, image))
}

fn ended(outcome: Outcome) -> Result<Exit, Failure> {
    match outcome {
        Outcome::Clean => Ok(Exit::Yes),
        Outcome::Interrupted => Ok(Exit::Interrupted),
        Outcome::Killed => {
            let why = "media did not end in time and was killed; what it had captured last may \
                       not be on disk";
            Err(Failure::new(Exit::Io, why))
        }
        Outcome::Failed(code) => {
            let exit = Exit::ALL.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Exit::Io);
            Err(Failure::new(exit, "a role could not start; its message stands above"))
        }
    }
}

struct Keeper {
    config: Config,
    holdings: Holdings,
    machine: Machine,
    media: Option<Running>,
    control: Option<Running>,
    /// Media's successor to be.
    spare: Option<Running>,
    /// Spares that were killed and are not reaped yet.
    retired: Vec<Child>,
    signals: Signals,
    interrupt: OwnedFd,
    /// Where our binary lay when we started: where a newer one is looked for.
    image: PathBuf,
    /// The way back, until both roles are ready.
    handed: Option<Handed>,
    vigil: Vigil,
    kek: KekWatch,
    /// No control lives since then, and the signalling sockets are held for the next one.
    unread_since: Option<Mono>,
}

struct Running {
    child: Child,
    /// `None` once the child has closed its end; only reaping proves its death.
    link: Option<Link>,
}

impl Keeper {
    fn place(&mut self, role: Role) -> &mut Option<Running> {
        match role {
            Role::Media => &mut self.media,
            Role::Control => &mut self.control,
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Start { role, start } => {
                if let Err(failure) = self.start(role, start) {
                    tracing::error!("cannot start {}: {:#}", role.name(), failure.error);
                    self.kill_or_report(role, failure.exit);
                }
            }
            Act::Prepare { start } => {
                if let Err(failure) = self.prepare(start) {
                    tracing::warn!("cannot make a spare of media: {:#}", failure.error);
                    self.retire();
                }
            }
            Act::Drain(role) => {
                notify::say("STOPPING=1");
                self.tell(role, Frame::Drain);
            }
            Act::Stop(role) => {
                notify::say("STOPPING=1");
                self.retire();
                self.vigil.ends(role);
                self.tell(role, Frame::Stop);
            }
            // Its predecessor is left alone: it may move again.
            Act::Kill(role) if faulty!("keeper.successor_before_reap") => {
                let _ = self.start(role, u64::MAX);
            }
            Act::Kill(role) => {
                if let Some(running) = self.place(role) {
                    tracing::warn!("{} does not end, killing it", role.name());
                    let _ = running.child.kill();
                }
            }
            Act::Announce => self.announce(),
            Act::Stuck(role) => {
                let pid = self.place(role).as_ref().map_or(0, |running| running.child.pid());
                tracing::error!(
                    "alarm: {} (process {pid}) was killed and does not end; nothing can take its \
                     place before: {}",
                    role.name(),
                    process::threads(pid)
                );
            }
            Act::GoBack => self.go_back(),
            Act::Exit(_) => {}
        }
    }

    fn announce(&mut self) {
        if let Some(mut handed) = self.handed.take() {
            handed.settle();
        }
        let list = |list: &[std::net::SocketAddr]| {
            let texts: Vec<_> = list.iter().map(ToString::to_string).collect();
            if texts.is_empty() { "none".to_owned() } else { texts.join(" ") }
        };
        eprintln!(
            "ready: SIP on udp {} tcp {} tls {}; {} port pairs; store {}",
            list(&self.config.sip.udp),
            list(&self.config.sip.tcp),
            list(&self.config.sip.tls),
            self.holdings.slot_count(),
            self.config.store.dir.display()
        );
        notify::say("READY=1");
    }

    /// Starts a role, hands it what it needs, and connects it with the other one.
    fn start(&mut self, role: Role, start: u64) -> Result<(), Failure> {
        self.holdings.bury(role)?;
        if role == Role::Control {
            // Before there is a process: where an address is taken this is its end.
            self.holdings.bind_signalling(&self.config.sip)?;
            self.unread_since = None;
        }
        if start == 1 && self.holdings.held().is_some() {
            // Another keeper's role had been at work until now.
            self.vigil.died(role, SystemClock.mono(), &self.holdings.heartbeats());
        }
        let spare = if role == Role::Media { self.spare.take() } else { None };
        let ready = spare.and_then(|Running { mut child, link }| match link {
            Some(link) => Some((child, link)),
            // It was being made when that failed; what is left of it is not reaped as media.
            None => {
                let _ = child.kill();
                self.retired.push(child);
                None
            }
        });
        let fresh = ready.is_none();
        let (child, link) = match ready {
            Some(ready) => ready,
            None => spawn(role.name())?,
        };
        if let Err(error) = estate::mark(&self.config.store.dir, role, child.pid()) {
            tracing::warn!("cannot note the process of {}: {error}", role.name());
        }
        let kept = start > 1 || self.holdings.held().is_some();
        self.vigil.started(role, role == Role::Media && kept);
        if start > 1 {
            tracing::warn!("{} started again as process {}", role.name(), child.pid());
        }
        let other = match role {
            Role::Media => self.control.as_ref(),
            Role::Control => self.media.as_ref(),
        };
        // The survivor gets its end first: it waits for nothing else, so it can do no harm early.
        let mut peer = None;
        if let Some(other) = other.and_then(|other| other.link.as_ref()) {
            let (near, far) = seqpacket::pair()?;
            match other.try_send(0, Frame::Link, &[far.as_fd()]) {
                Ok(()) => peer = Some(near.into_fd()),
                Err(error) => tracing::warn!("cannot connect {} to its peer: {error}", role.name()),
            }
        }
        let handed = if fresh {
            self.holdings.hand_over(&link, role, start, &self.config, peer)
        } else {
            self.holdings.let_go(&link, role, &self.config, peer)
        };
        *self.place(role) = Some(Running { child, link: Some(link) });
        handed
    }

    /// Starts a spare of media and hands it everything but the word to go.
    fn prepare(&mut self, start: u64) -> Result<(), Failure> {
        let (child, link) = spawn(SPARE_NAME)?;
        self.spare = Some(Running { child, link: None });
        self.vigil.spare_started();
        self.holdings.hand_in_advance(&link, start, &self.config)?;
        link.send(0, Frame::Wait, &[])?;
        self.spare.as_mut().expect("just put there").link = Some(link);
        Ok(())
    }

    /// Ends the spare: it was made for what holds no longer, or nobody will need it.
    fn retire(&mut self) {
        let Some(mut spare) = self.spare.take() else { return };
        let _ = spare.child.kill();
        self.retired.push(spare.child);
        self.machine.handle(SystemClock.mono(), Event::SpareDied);
    }

    /// Hears of the spare's end, and reaps those that were ended.
    fn look_at_spares(&mut self) -> Result<(), Failure> {
        self.retired.retain_mut(|child| !matches!(child.reap(), Ok(Some(_)) | Err(_)));
        let Some(spare) = &mut self.spare else { return Ok(()) };
        // It says that it is ready, and then that it waits.
        while spare.link.as_mut().is_some_and(|link| link.try_recv().is_ok()) {
            self.vigil.spare_beats();
        }
        let Some(status) = spare.child.reap()? else { return Ok(()) };
        tracing::warn!("the spare of media (process {}) ended: {status}", spare.child.pid());
        self.spare = None;
        self.machine.handle(SystemClock.mono(), Event::SpareDied);
        Ok(())
    }

    /// Becomes the binary that now lies where ours did (F09). Comes back where that cannot be.
    fn upgrade(&mut self) {
        if !self.machine.is_running() {
            return tracing::error!("not upgraded: the server is starting or ending");
        }
        let error = match upgrade::probe(&self.image) {
            Ok(version) => {
                tracing::warn!("upgrading to {version}, {}", self.image.display());
                self.retire();
                self.holdings
                    .pack(&self.config)
                    .map_or_else(|error| error, |queue| upgrade::upgrade(&self.image, queue))
            }
            Err(error) => error,
        };
        tracing::error!("not upgraded, going on as before: {}: {error}", self.image.display());
    }

    /// The other way round. Where even that cannot be, the roles are tried again.
    fn go_back(&mut self) {
        let Some(handed) = self.handed.take() else { return };
        self.retire();
        let why = "its roles do not come up";
        match self.holdings.pack(&self.config) {
            Ok(queue) => handed.go_back(Some(queue), why),
            Err(error) => tracing::error!("cannot go back: {error}"),
        }
    }

    /// A role that could not be handed its start: kill it, so that it is reaped and tried again; if
    /// not even a process came to be, that is its death.
    fn kill_or_report(&mut self, role: Role, exit: Exit) {
        match self.place(role) {
            Some(running) => drop(running.child.kill()),
            None => {
                let now = SystemClock.mono();
                self.machine.handle(now, Event::Died(role, Some(exit as u8)));
            }
        }
    }

    fn tell(&mut self, role: Role, frame: Frame) {
        let Some(link) = self.place(role).as_ref().and_then(|running| running.link.as_ref()) else {
            return;
        };
        if let Err(error) = link.try_send(0, frame, &[]) {
            tracing::warn!("{} takes no frames: {error}", role.name());
        }
    }

    /// Waits for something to happen and tells the machine.
    fn wait(&mut self, reload: &dyn Fn() -> Result<Config, Vec<Fault>>) -> Result<(), Failure> {
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.interrupt, PollFlags::IN),
        ];
        for running in [&self.media, &self.control].into_iter().flatten() {
            fds.push(PollFd::new(&running.child, PollFlags::IN));
            fds.extend(running.link.iter().map(|link| PollFd::new(link, PollFlags::IN)));
        }
        let spares = self.spare.iter().map(|spare| &spare.child).chain(&self.retired);
        fds.extend(spares.map(|child| PollFd::new(child, PollFlags::IN)));
        let now = SystemClock.mono();
        // Rounded up, so that the machine finds its time has come.
        let wake = self.machine.wake().map_or(LOOK_MS, |at| at.since(now).div_ceil(1_000_000));
        let ms = wake.min(LOOK_MS) as i64;
        let timeout = Timespec { tv_sec: ms / 1_000, tv_nsec: ms % 1_000 * 1_000_000 };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        drop(fds);
        for role in [Role::Media, Role::Control] {
            self.hear(role);
            self.reap(role)?;
        }
        self.look_at_spares()?;
        let mut count = [0; 8];
        if rustix::io::read(&self.interrupt, &mut count).is_ok() {
            tracing::info!("interrupted: ending all recordings");
            self.machine.handle(SystemClock.mono(), Event::Interrupt);
        }
        while let Some(asked) = self.signals.next()? {
            match asked {
                Asked::Terminate => {
                    tracing::info!("asked to end");
                    self.machine.handle(SystemClock.mono(), Event::Terminate);
                }
                Asked::Reload => self.reload(reload),
                Asked::Upgrade => self.upgrade(),
            }
        }
        self.look();
        self.machine.handle(SystemClock.mono(), Event::Tick);
        Ok(())
    }

    /// Looks at the heartbeats (F07), and tells the service manager while they beat.
    fn look(&mut self) {
        let now = SystemClock.mono();
        if !self.vigil.is_due(now) {
            return;
        }
        if self.unread_since.is_some_and(|since| now >= since.plus_ms(UNREAD_MS)) {
            self.unread_since = None;
            self.holdings.close_signalling();
        }
        self.holdings.keep_steering();
        self.holdings.keep_diversion(self.config.media.interface.as_deref());
        self.kek.look(&self.config.store, now);
        if let Err(error) = self.holdings.note_journal(&self.config) {
            tracing::error!("cannot note that the journal has begun: {error}");
        }
        if self.spare.is_some() && self.vigil.spare_hangs(now) {
            let pid = self.spare.as_ref().map_or(0, |spare| spare.child.pid());
            let threads = process::threads(pid);
            tracing::error!("the spare of media (process {pid}) hangs: {threads}");
            self.retire();
        }
        let seen = Seen { now, workers: &self.holdings.heartbeats() };
        let Some(role) = self.vigil.look(&seen) else { return };
        let pid = self.place(role).as_ref().map_or(0, |running| running.child.pid());
        tracing::error!("{} (process {pid}) hangs: {}", role.name(), process::threads(pid));
        self.machine.handle(now, Event::Hangs(role));
    }

    /// Takes the frames of a role.
    fn hear(&mut self, role: Role) {
        loop {
            let Some(link) = self.place(role).as_mut().and_then(|running| running.link.as_mut())
            else {
                return;
            };
            let event = match link.try_recv() {
                Ok(received) => match received.frame {
                    Frame::Ready => {
                        self.vigil.ready(role, SystemClock.mono(), &self.holdings.heartbeats());
                        Event::Ready(role)
                    }
                    Frame::Beat => {
                        self.vigil.beat(role);
                        continue;
                    }
                    Frame::Drained => Event::Drained,
                    _ => {
                        tracing::warn!("{} sent a frame that is not for keeper", role.name());
                        continue;
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    if error.kind() == io::ErrorKind::InvalidData {
                        tracing::error!("{}: {error}", role.name());
                        self.place(role).as_mut().map(|running| running.child.kill());
                    }
                    self.place(role).as_mut().map(|running| running.link.take());
                    return;
                }
            };
            self.machine.handle(SystemClock.mono(), event);
        }
    }

    /// Reaps a role if it has ended.
    fn reap(&mut self, role: Role) -> Result<(), Failure> {
        let Some(running) = self.place(role) else { return Ok(()) };
        let Some(status) = running.child.reap()? else { return Ok(()) };
        let pid = running.child.pid();
        *self.place(role) = None;
        if !status.success() {
            tracing::warn!("{} (process {pid}) ended: {status}", role.name());
        }
        self.vigil.died(role, SystemClock.mono(), &self.holdings.heartbeats());
        if role == Role::Control {
            self.unread_since = Some(SystemClock.mono());
            if !self.machine.is_running() {
                self.holdings.close_signalling();
            }
        }
        let code = match status.signal() {
            Some(_) => None,
            None => status.code().map(|code| code as u8),
        };
        self.machine.handle(SystemClock.mono(), Event::Died(role, code));
        Ok(())
    }

    /// Reads the configuration anew and swaps it, or keeps the running one and says why (F72).
    fn reload(&mut self, reload: &dyn Fn() -> Result<Config, Vec<Fault>>) {
        let mut fresh = match reload() {
            Ok(fresh) => fresh,
            Err(faults) => {
                for fault in &faults {
                    eprintln!("{fault}");
                }
                tracing::error!("configuration not reloaded: {} fault(s)", faults.len());
                return;
            }
        };
        if let Err(error) = make_absolute(&mut fresh) {
            tracing::error!("configuration not reloaded: {error}");
            return;
        }
        let fixed = fixed_keys_changed(&self.config, &fresh);
        if !fixed.is_empty() {
            tracing::error!("configuration not reloaded: {} need a restart", fixed.join(", "));
            return;
        }
        match serde_json::to_string(&fresh) {
            Ok(config) => {
                self.tell(Role::Media, Frame::Reload { config: config.clone() });
                self.tell(Role::Control, Frame::Reload { config });
                self.config = fresh;
                // Made for the one before.
                self.retire();
                tracing::info!("configuration reloaded");
            }
            Err(error) => tracing::error!("configuration not reloaded: {error}"),
        }
    }
}

/// Starts our own binary as `name`; the process, and our end of its link.
fn spawn(name: &str) -> Result<(Child, Link), Failure> {
    let (ours, theirs) = seqpacket::pair()?;
    set_socket_timeout(&ours, Timeout::Send, Some(HAND_OVER_WAIT)).map_err(io::Error::from)?;
    let child = Child::start(name, theirs.into_fd(), &upgrade::ENVIRONMENT)?;
    Ok((child, Link::new(ours)))
}

/// The roles run in the folder of the server; who reads the store later does not.
fn make_absolute(config: &mut Config) -> io::Result<()> {
    let store = &mut config.store;
    store.dir = std::path::absolute(&store.dir)?;
    for file in config.sip.files_mut() {
        *file = std::path::absolute(&file)?;
    }
    for file in config.peers.iter_mut().filter_map(|peer| peer.digest.as_mut()) {
        *file = std::path::absolute(&file)?;
    }
    let folders = [&mut store.journal_dir, &mut store.spare_dir].into_iter().flatten();
    for folder in folders.chain(&mut store.segment_dirs) {
        *folder = std::path::absolute(&folder)?;
    }
    Ok(())
}

/// Keys that keeper's holdings depend on, as far as they differ.
fn fixed_keys_changed(old: &Config, new: &Config) -> Vec<&'static str> {
    [
        ("store.dir", old.store.dir != new.store.dir),
        ("store.spare_dir", old.store.spare_dir != new.store.spare_dir),
        ("store.segment_dirs", old.store.segment_dirs != new.store.segment_dirs),
        ("sip.udp", old.sip.udp != new.sip.udp),
        ("sip.tcp", old.sip.tcp != new.sip.tcp),
        ("sip.tls", old.sip.tls != new.sip.tls),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .chain(keep_fixed(&mut new.clone(), old))
    .collect()
}

/// Gives `new` the values of `held` that memory and ports were made for; the keys that differed.
fn keep_fixed(new: &mut Config, held: &Config) -> Vec<&'static str> {
    fn keep<T: Clone + PartialEq>(
        key: &'static str,
        new: &mut T,
        held: &T,
        changed: &mut Vec<&'static str>,
    ) {
        if new != held {
            new.clone_from(held);
            changed.push(key);
        }
    }
    let mut changed = Vec::new();
    let workers = held.worker_count();
    let (media, store) = (&mut new.media, &mut new.store);
    keep("media.address", &mut media.address, &held.media.address, &mut changed);
    // A file that stands for other addresses may not say what these are reached by.
    let nameless = |ip: &IpAddr| ip.is_unspecified() && media.advertised(*ip) == *ip;
    if media.address.0.iter().any(nameless) {
        keep("media.advertise", &mut media.advertise, &held.media.advertise, &mut changed);
    }
    keep("media.ports", &mut media.ports, &held.media.ports, &mut changed);
    keep("media.streams_max", &mut media.streams_max, &held.media.streams_max, &mut changed);
    keep("store.journal_dir", &mut store.journal_dir, &held.store.journal_dir, &mut changed);
    keep("store.ring_seconds", &mut store.ring_seconds, &held.store.ring_seconds, &mut changed);
    keep("store.segment_mib", &mut store.segment_mib, &held.store.segment_mib, &mut changed);
    if new.worker_count() != workers {
        new.cpu.workers = workers;
        changed.push("cpu.workers");
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_memory_was_made_for_stays_and_the_rest_changes() {
        let held = Config::default();
        let mut new = held.clone();
        new.media.streams_max += 1;
        new.store.commit_ms += 1;
        new.cpu.workers = held.worker_count() + 1;
        assert_eq!(fixed_keys_changed(&held, &new), ["media.streams_max", "cpu.workers"]);
        assert_eq!(keep_fixed(&mut new, &held), ["media.streams_max", "cpu.workers"]);
        assert_eq!(new.worker_count(), held.worker_count());
        assert_eq!(new.media.streams_max, held.media.streams_max);
        assert_eq!(new.store.commit_ms, held.store.commit_ms + 1);
    }
}
