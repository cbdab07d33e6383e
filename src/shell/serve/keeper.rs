//! Keeper: the process that `floortape serve` is. It does what `plane::keeper` decides: starts the
//! roles, hands them what it holds, reaps them, passes signals on. One thread and `poll`; it parses
//! nothing from outside.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::base::ports::Clock;
use crate::config::Fault;
use crate::config::model::Config;
use crate::host::clock::SystemClock;
use crate::host::process::{self, Child};
use crate::host::signal::{Asked, Signals};
use crate::host::{facts, seqpacket};
use crate::plane::handoff::frame::Frame;
use crate::plane::keeper::{Act, Event, Machine, Outcome, Role};
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::holdings::Holdings;
use crate::shell::serve::link::Link;
use crate::shell::serve::notify;

/// A child that takes longer than this to take its frames hangs; it is killed and started again.
const HAND_OVER_WAIT: Duration = Duration::from_secs(5);

/// Runs the server until it is asked to end. `reload` reads the configuration anew, as on SIGHUP.
pub fn run(
    mut config: Config,
    reload: &dyn Fn() -> Result<Config, Vec<Fault>>,
) -> Result<Exit, Failure> {
    let signals = Signals::block()?;
    let interrupt = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let wake = interrupt.try_clone()?;
    // Before any tokio exists in this process, and without the `termination` feature, which would
    // take SIGTERM and SIGHUP as well.
    ctrlc::set_handler(move || {
        let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
    })?;
    #[cfg(feature = "faults")]
    crate::host::faults::arm(1);
    process::forbid_cores();
    facts::raise_descriptors();
    facts::raise_memlock();
    config.store.dir = std::path::absolute(&config.store.dir)?;
    let holdings = Holdings::take(&config)?;
    let machine = Machine::new(SystemClock.mono());
    let mut keeper =
        Keeper { config, holdings, machine, media: None, control: None, signals, interrupt };
    loop {
        while let Some(act) = keeper.machine.poll() {
            if let Act::Exit(outcome) = act {
                return ended(outcome);
            }
            keeper.act(act);
        }
        keeper.wait(reload)?;
    }
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
    signals: Signals,
    interrupt: OwnedFd,
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
            Act::Drain(role) => {
                notify::say("STOPPING=1");
                self.tell(role, Frame::Drain);
            }
            Act::Stop(role) => {
                notify::say("STOPPING=1");
                self.tell(role, Frame::Stop);
            }
            Act::Kill(role) => {
                if let Some(running) = self.place(role) {
                    tracing::warn!("{} does not end, killing it", role.name());
                    let _ = running.child.kill();
                }
            }
            Act::Announce => self.announce(),
            Act::Exit(_) => {}
        }
    }

    fn announce(&self) {
        let list = |list: &[std::net::SocketAddr]| {
            let texts: Vec<_> = list.iter().map(ToString::to_string).collect();
            if texts.is_empty() { "none".to_owned() } else { texts.join(" ") }
        };
        eprintln!(
            "ready: SIP on udp {} tcp {}; {} port pairs; store {}",
            list(&self.config.sip.udp),
            list(&self.config.sip.tcp),
            self.holdings.slot_count(),
            self.config.store.dir.display()
        );
        notify::say("READY=1");
    }

    /// Starts a role, hands it what it needs, and connects it with the other one.
    fn start(&mut self, role: Role, start: u64) -> Result<(), Failure> {
        let (ours, theirs) = seqpacket::pair()?;
        set_socket_timeout(&ours, Timeout::Send, Some(HAND_OVER_WAIT)).map_err(io::Error::from)?;
        let child = Child::start(role.name(), theirs.into_fd())?;
        if start > 1 {
            tracing::warn!("{} started again as process {}", role.name(), child.pid());
        }
        let link = Link::new(ours);
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
        let handed = self.holdings.hand_over(&link, role, start, &self.config, peer);
        *self.place(role) = Some(Running { child, link: Some(link) });
        handed
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
        let timeout = self.machine.wake().map(|at| {
            // Rounded up, so that the machine finds its time has come.
            let ms = at.since(SystemClock.mono()).div_ceil(1_000_000) as i64;
            Timespec { tv_sec: ms / 1_000, tv_nsec: ms % 1_000 * 1_000_000 }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        drop(fds);
        for role in [Role::Media, Role::Control] {
            self.hear(role);
            self.reap(role)?;
        }
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
            }
        }
        self.machine.handle(SystemClock.mono(), Event::Tick);
        Ok(())
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
                    Frame::Ready => Event::Ready(role),
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
        if let Ok(dir) = std::path::absolute(&fresh.store.dir) {
            fresh.store.dir = dir;
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
                tracing::info!("configuration reloaded");
            }
            Err(error) => tracing::error!("configuration not reloaded: {error}"),
        }
    }
}

/// Keys that keeper's holdings depend on, as far as they differ.
fn fixed_keys_changed(old: &Config, new: &Config) -> Vec<&'static str> {
    [
        ("media.address", old.media.address != new.media.address),
        ("media.ports", old.media.ports != new.media.ports),
        ("media.streams_max", old.media.streams_max != new.media.streams_max),
        ("cpu.workers", old.worker_count() != new.worker_count()),
        ("store.dir", old.store.dir != new.store.dir),
        ("store.journal_dir", old.journal_dir() != new.journal_dir()),
        ("store.ring_seconds", old.ring_bytes() != new.ring_bytes()),
        ("store.segment_mib", old.segment_bytes() != new.segment_bytes()),
        ("sip.udp", old.sip.udp != new.sip.udp),
        ("sip.tcp", old.sip.tcp != new.sip.tcp),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .collect()
}
