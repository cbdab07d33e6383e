//! The state machine: events in, acts out.
//!
//! ```text
//! Running ── SIGTERM ──► Draining ── Drained or SIGTERM ──► Stopping ──► both reaped: Exit
//!    └────────────────── SIGINT, fatal start ──────────────────┘
//! ```
//! Media is started first and control once media is ready; from then on each is started again by
//! itself. They end in the other order: control says goodbye, then media makes all durable.
//!
//! While both work, a spare of media stands beside it: a process that was started, was handed
//! everything and has made itself ready, all but the last word. A death of media then costs no start of
//! a process, which is most of what it would cost (F01).

use std::collections::VecDeque;

use crate::base::time::Mono;

/// Deaths at least this far apart are each answered at once.
const CALM_MS: u64 = 1_000;
/// Wait before the successor after a second death within [`CALM_MS`]; doubles with each further one.
const DELAY_FIRST_MS: u64 = 50;
/// No longer than this: a role that is down records nothing.
const DELAY_MAX_MS: u64 = 1_000;
/// What was killed for hanging and does not end hangs in the kernel; said again this often.
const STUCK_MS: u64 = 10_000;
/// A version that has not brought both roles up within this long after an upgrade does not work: both
/// start within a second, and packets wait in the sockets for minutes.
const UPGRADE_MS: u64 = 15_000;
/// Nor does one whose roles died this often before they were ready.
const UPGRADE_DEATHS: u32 = 3;
/// A spare is made this long after media is ready: what is late with its work comes first.
const SPARE_MS: u64 = 150;
/// The same after a spare has died.
const SPARE_AGAIN_MS: u64 = 1_000;
/// A stop takes at most 5 s (contract); control has most of it for its BYEs, media the rest.
const STOP_CONTROL_MS: u64 = 2_500;
/// See [`STOP_CONTROL_MS`]. Half a second is left for reaping and exit.
const STOP_MEDIA_MS: u64 = 4_500;

/// `argv[0]` of a spare of media, for as long as it is one. As long as the name of media, which it
/// takes in the same place.
pub const SPARE_NAME: &str = "floortape-spare";
const _: () = assert!(SPARE_NAME.len() == Role::Media.name().len());

/// A child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Receives and stores.
    Media,
    /// Signalling, sessions, catalogue.
    Control,
}

impl Role {
    /// Its `argv[0]`.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Media => "floortape-media",
            Role::Control => "floortape-control",
        }
    }

    /// The role with that `argv[0]`, or whose spare goes by it.
    pub fn from_name(name: &str) -> Option<Self> {
        let by_name = [Role::Media, Role::Control].into_iter().find(|role| role.name() == name);
        by_name.or_else(|| (name == SPARE_NAME).then_some(Role::Media))
    }
}

/// What keeper begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Fresh memory: nothing is being recorded yet, so a role that cannot start ends the server.
    Fresh,
    /// The memory of a keeper that died: recordings are under way, so nobody gives up (F03).
    Kept,
    /// The same after an upgrade: a role that cannot start sends us back to the version before (F09).
    Upgraded,
}

/// Something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A role works now.
    Ready(Role),
    /// A role was reaped; its exit code, or `None` where a signal ended it.
    Died(Role, Option<u8>),
    /// The spare ended, or could not be made.
    SpareDied,
    /// Control says that no RS is running any more.
    Drained,
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// A role has stood still for too long (F07).
    Hangs(Role),
    /// Nothing but the time.
    Tick,
}

/// How the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked, all made durable.
    Clean,
    /// As asked by SIGINT, all made durable.
    Interrupted,
    /// Media had to be killed: the tail of the ring was not made durable.
    Killed,
    /// A role gave up with this code before the server was ready.
    Failed(u8),
}

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Start the role (its predecessor is reaped) and connect it with the other one if that runs.
    Start {
        /// Which.
        role: Role,
        /// How often it has been started, this time included.
        start: u64,
    },
    /// Make a spare of media, for the start of that number. The next [`Act::Start`] of media uses it up.
    Prepare {
        /// See there.
        start: u64,
    },
    /// Tell the role to take no new work.
    Drain(Role),
    /// Tell the role to end.
    Stop(Role),
    /// Kill the role.
    Kill(Role),
    /// The role was killed for hanging and is not gone: say so. No successor may start.
    Stuck(Role),
    /// Both roles are ready for the first time.
    Announce,
    /// Become the version before again: a role of this one does not start.
    GoBack,
    /// All is over.
    Exit(Outcome),
}

/// Where one role is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Not running; to be started at that time, `None`: not (yet).
    Absent(Option<Mono>),
    Running,
    Ready,
}

#[derive(Debug)]
struct Child {
    life: Life,
    starts: u64,
    died: Option<Mono>,
    delay_ms: u64,
    /// Killed for hanging; when to say next that it is still there.
    stuck: Option<Mono>,
}

impl Child {
    const fn new() -> Self {
        Child { life: Life::Absent(None), starts: 0, died: None, delay_ms: 0, stuck: None }
    }

    fn runs(&self) -> bool {
        !matches!(self.life, Life::Absent(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Draining,
    /// Since when; media has been told; killed already.
    Stopping {
        since: Mono,
        media_told: bool,
        killed: bool,
    },
    Over,
}

/// See the module's description.
#[derive(Debug)]
pub struct Machine {
    begin: Begin,
    since: Mono,
    /// Roles that died before both were ready.
    deaths_before: u32,
    phase: Phase,
    media: Child,
    control: Child,
    announced: bool,
    /// When to make a spare, where there is none.
    spare_at: Option<Mono>,
    /// To end, once what was taken over is ours.
    asked: Option<Event>,
    outcome: Outcome,
    acts: VecDeque<Act>,
}

impl Machine {
    /// A keeper at `now` that holds everything and has started nothing.
    pub fn new(now: Mono, begin: Begin) -> Self {
        let mut machine = Machine {
            begin,
            since: now,
            deaths_before: 0,
            phase: Phase::Running,
            media: Child::new(),
            control: Child::new(),
            announced: false,
            spare_at: None,
            asked: None,
            outcome: Outcome::Clean,
            acts: VecDeque::new(),
        };
        machine.media.life = Life::Absent(Some(now));
        machine.turn(now);
        machine
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Mono, event: Event) {
        match event {
            Event::Terminate | Event::Interrupt if self.is_deferred() => self.asked = Some(event),
            Event::Ready(role) => self.ready(now, role),
            Event::Died(role, code) => self.died(now, role, code),
            Event::SpareDied => self.spare_at = Some(now.plus_ms(SPARE_AGAIN_MS)),
            Event::Drained if self.phase == Phase::Draining => self.stop(now, Outcome::Clean),
            Event::Drained | Event::Tick => {}
            Event::Terminate => match self.phase {
                Phase::Running if self.announced => {
                    self.phase = Phase::Draining;
                    if self.control.runs() {
                        self.acts.push_back(Act::Drain(Role::Control));
                    }
                }
                // Nothing is recorded before the first ready, so there is nothing to drain.
                Phase::Running | Phase::Draining => self.stop(now, Outcome::Clean),
                Phase::Stopping { .. } | Phase::Over => {}
            },
            Event::Interrupt => self.stop(now, Outcome::Interrupted),
            Event::Hangs(role) => {
                // Also one that is not ready yet: it was let go and stands still. Killed once; it comes
                // back through its death, whenever that is.
                if self.child(role).runs() && self.child(role).stuck.is_none() {
                    self.child(role).life = Life::Running;
                    self.child(role).stuck = Some(now.plus_ms(STUCK_MS));
                    self.acts.push_back(Act::Kill(role));
                }
            }
        }
        self.turn(now);
    }

    /// What was taken over is recorded by roles that are not ours yet: the end waits until both are,
    /// so that calls end in order. Asked a second time it comes at once.
    fn is_deferred(&self) -> bool {
        let taking_over = self.begin != Begin::Fresh && !self.announced;
        self.phase == Phase::Running && taking_over && self.asked.is_none()
    }

    /// Whether the server runs and is not about to end: only then may it be upgraded, since the next
    /// image would not know what was asked of this one.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running && self.announced
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// When to come back with a [`Event::Tick`] at the latest.
    pub fn wake(&self) -> Option<Mono> {
        if let Phase::Stopping { since, media_told, killed } = self.phase {
            let ms = if media_told { STOP_MEDIA_MS } else { STOP_CONTROL_MS };
            return (!killed).then(|| since.plus_ms(ms));
        }
        [&self.media, &self.control]
            .into_iter()
            .filter_map(|child| match child.life {
                Life::Absent(at) => at,
                Life::Running | Life::Ready => None,
            })
            .chain(self.spare_due())
            .min()
    }

    /// When to make a spare: not before both roles are up, nor while the server ends.
    fn spare_due(&self) -> Option<Mono> {
        let wanted = matches!(self.phase, Phase::Running | Phase::Draining)
            && self.announced
            && self.media.life == Life::Ready;
        self.spare_at.filter(|_| wanted)
    }

    fn child(&mut self, role: Role) -> &mut Child {
        match role {
            Role::Media => &mut self.media,
            Role::Control => &mut self.control,
        }
    }

    fn ready(&mut self, now: Mono, role: Role) {
        if self.child(role).runs() {
            self.child(role).life = Life::Ready;
        }
        if role == Role::Media {
            self.spare_at = Some(now.plus_ms(SPARE_MS));
        }
        if role == Role::Media && self.control.starts == 0 {
            self.control.life = Life::Absent(Some(now));
        }
        let both = self.media.life == Life::Ready && self.control.life == Life::Ready;
        if both && !self.announced && self.phase == Phase::Running {
            self.announced = true;
            self.acts.push_back(Act::Announce);
            if let Some(asked) = self.asked.take() {
                self.handle(now, asked);
            }
        }
    }

    fn died(&mut self, now: Mono, role: Role, code: Option<u8>) {
        let stopping = matches!(self.phase, Phase::Stopping { .. } | Phase::Over);
        let announced = self.announced;
        let child = self.child(role);
        let calm = child.died.is_none_or(|before| now.since(before) >= CALM_MS * 1_000_000);
        child.delay_ms =
            if calm { 0 } else { (child.delay_ms * 2).clamp(DELAY_FIRST_MS, DELAY_MAX_MS) };
        child.died = Some(now);
        child.stuck = None;
        let again = now.plus_ms(child.delay_ms);
        child.life = Life::Absent((!stopping).then_some(again));
        // A role that says no before anything was recorded (a port in use, a store it cannot read)
        // would say no again: end with its own code. A signal is no such answer.
        if !stopping && !announced {
            self.deaths_before += 1;
            match (self.begin, code) {
                (Begin::Fresh, Some(code)) => self.stop(now, Outcome::Failed(code)),
                (Begin::Upgraded, Some(_)) => self.go_back(now),
                (Begin::Upgraded, None) if self.deaths_before >= UPGRADE_DEATHS => {
                    self.go_back(now)
                }
                (Begin::Fresh | Begin::Kept | Begin::Upgraded, _) => {}
            }
        }
        let asked = matches!(self.outcome, Outcome::Clean | Outcome::Interrupted);
        if stopping && asked && role == Role::Media && code != Some(0) {
            self.outcome = Outcome::Killed;
        }
    }

    /// Asked for once: where there is no way back, the roles are tried again.
    fn go_back(&mut self, now: Mono) {
        match self.asked.take() {
            // The image before would not know of it.
            Some(Event::Interrupt) => self.stop(now, Outcome::Interrupted),
            Some(_) => self.stop(now, Outcome::Clean),
            None => {
                self.begin = Begin::Kept;
                self.acts.push_back(Act::GoBack);
            }
        }
    }

    fn stop(&mut self, now: Mono, outcome: Outcome) {
        if matches!(self.phase, Phase::Stopping { .. } | Phase::Over) {
            return;
        }
        self.phase = Phase::Stopping { since: now, media_told: false, killed: false };
        self.outcome = outcome;
        for role in [Role::Media, Role::Control] {
            if !self.child(role).runs() {
                self.child(role).life = Life::Absent(None);
            }
        }
        if self.control.runs() {
            self.acts.push_back(Act::Stop(Role::Control));
        }
    }

    /// What follows from where everything is.
    fn turn(&mut self, now: Mono) {
        let waited_ms = now.since(self.since) / 1_000_000;
        let upgrading = self.begin == Begin::Upgraded && !self.announced;
        if upgrading && self.phase == Phase::Running && waited_ms >= UPGRADE_MS {
            self.go_back(now);
        }
        for role in [Role::Media, Role::Control] {
            let child = self.child(role);
            if let Some(at) = child.stuck.filter(|at| *at <= now) {
                child.stuck = Some(at.plus_ms(STUCK_MS));
                self.acts.push_back(Act::Stuck(role));
            }
            let child = self.child(role);
            if matches!(child.life, Life::Absent(Some(at)) if at <= now) {
                child.life = Life::Running;
                child.starts += 1;
                let start = child.starts;
                if role == Role::Media {
                    self.spare_at = None;
                }
                self.acts.push_back(Act::Start { role, start });
                if role == Role::Control && self.phase == Phase::Draining {
                    self.acts.push_back(Act::Drain(Role::Control));
                }
            }
        }
        if self.spare_due().is_some_and(|at| at <= now) {
            self.spare_at = None;
            self.acts.push_back(Act::Prepare { start: self.media.starts + 1 });
        }
        let Phase::Stopping { since, media_told, killed } = &mut self.phase else { return };
        let waited_ms = now.since(*since) / 1_000_000;
        if self.media.runs()
            && !*media_told
            && (!self.control.runs() || waited_ms >= STOP_CONTROL_MS)
        {
            *media_told = true;
            // Control had its time; nothing it still says would be recorded.
            if self.control.runs() {
                self.acts.push_back(Act::Kill(Role::Control));
            }
            self.acts.push_back(Act::Stop(Role::Media));
        }
        if waited_ms >= STOP_MEDIA_MS && !*killed {
            *killed = true;
            if self.control.runs() {
                self.acts.push_back(Act::Kill(Role::Control));
            }
            if self.media.runs() {
                self.acts.push_back(Act::Kill(Role::Media));
            }
        }
        if !self.media.runs() && !self.control.runs() {
            self.phase = Phase::Over;
            self.acts.push_back(Act::Exit(self.outcome));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    fn acts(machine: &mut Machine) -> Vec<Act> {
        std::iter::from_fn(|| machine.poll()).collect()
    }

    const fn start(role: Role, start: u64) -> Act {
        Act::Start { role, start }
    }

    /// With a spare.
    fn ready() -> Machine {
        let mut machine = announced();
        machine.handle(ms(2 + SPARE_MS), Event::Tick);
        assert_eq!(acts(&mut machine), [Act::Prepare { start: 2 }]);
        machine
    }

    fn announced() -> Machine {
        let mut machine = Machine::new(ms(0), Begin::Fresh);
        assert_eq!(acts(&mut machine), [start(Role::Media, 1)]);
        machine.handle(ms(1), Event::Ready(Role::Media));
        assert_eq!(acts(&mut machine), [start(Role::Control, 1)]);
        machine.handle(ms(2), Event::Ready(Role::Control));
        assert_eq!(acts(&mut machine), [Act::Announce]);
        machine
    }

    #[test]
    fn deaths_a_second_apart_are_answered_at_once_and_quicker_ones_later_and_later() {
        let mut machine = ready();
        for second in 1..5 {
            machine.handle(ms(second * 1_000), Event::Died(Role::Media, None));
            assert_eq!(acts(&mut machine), [start(Role::Media, 1 + second)]);
            machine.handle(ms(second * 1_000 + 5), Event::Ready(Role::Media));
            assert_eq!(acts(&mut machine), [], "ready is announced once");
        }
        machine.handle(ms(4_100), Event::Died(Role::Media, None));
        assert_eq!(acts(&mut machine), []);
        assert_eq!(machine.wake(), Some(ms(4_150)));
        machine.handle(ms(4_150), Event::Tick);
        assert_eq!(acts(&mut machine), [start(Role::Media, 6)]);
        machine.handle(ms(4_160), Event::Died(Role::Media, None));
        assert_eq!(machine.wake(), Some(ms(4_260)));
    }

    #[test]
    fn f01_a_spare_is_made_once_both_work_and_again_when_it_was_used_or_died() {
        let mut machine = announced();
        assert_eq!(machine.wake(), Some(ms(151)));
        machine.handle(ms(150), Event::Tick);
        assert_eq!(acts(&mut machine), []);
        machine.handle(ms(151), Event::Tick);
        machine.handle(ms(160), Event::Tick);
        assert_eq!(acts(&mut machine), [Act::Prepare { start: 2 }], "once");
        assert_eq!(machine.wake(), None);
        machine.handle(ms(200), Event::SpareDied);
        machine.handle(ms(1_199), Event::Tick);
        assert_eq!(acts(&mut machine), []);
        machine.handle(ms(1_200), Event::Tick);
        assert_eq!(acts(&mut machine), [Act::Prepare { start: 2 }]);
        machine.handle(ms(2_000), Event::Died(Role::Media, None));
        assert_eq!(acts(&mut machine), [start(Role::Media, 2)]);
        machine.handle(ms(2_010), Event::Ready(Role::Media));
        machine.handle(ms(2_160), Event::Tick);
        assert_eq!(acts(&mut machine), [Act::Prepare { start: 3 }]);
        machine.handle(ms(2_170), Event::SpareDied);
        machine.handle(ms(3_000), Event::Interrupt);
        machine.handle(ms(3_200), Event::Tick);
        assert_eq!(acts(&mut machine), [Act::Stop(Role::Control)], "none for a server that ends");
    }

    #[test]
    fn both_may_die_at_once_and_each_comes_back() {
        let mut machine = ready();
        machine.handle(ms(2_000), Event::Died(Role::Control, None));
        machine.handle(ms(2_000), Event::Died(Role::Media, Some(1)));
        assert_eq!(acts(&mut machine), [start(Role::Control, 2), start(Role::Media, 2)]);
    }

    #[test]
    fn terminate_drains_then_control_ends_before_media() {
        let mut machine = ready();
        machine.handle(ms(100), Event::Terminate);
        assert_eq!(acts(&mut machine), [Act::Drain(Role::Control)]);
        machine.handle(ms(200), Event::Died(Role::Control, None));
        let again = [start(Role::Control, 2), Act::Drain(Role::Control)];
        assert_eq!(acts(&mut machine), again, "a successor drains as well");
        machine.handle(ms(900), Event::Drained);
        assert_eq!(acts(&mut machine), [Act::Stop(Role::Control)]);
        machine.handle(ms(950), Event::Died(Role::Control, Some(0)));
        assert_eq!(acts(&mut machine), [Act::Stop(Role::Media)]);
        machine.handle(ms(990), Event::Died(Role::Media, Some(0)));
        assert_eq!(acts(&mut machine), [Act::Exit(Outcome::Clean)]);
    }

    #[test]
    fn a_stop_ends_within_five_seconds_whatever_the_roles_do() {
        let mut machine = ready();
        machine.handle(ms(0), Event::Terminate);
        machine.handle(ms(0), Event::Terminate);
        assert_eq!(acts(&mut machine), [Act::Drain(Role::Control), Act::Stop(Role::Control)]);
        let wake = machine.wake().expect("it waits for control");
        machine.handle(wake, Event::Tick);
        assert_eq!(acts(&mut machine), [Act::Kill(Role::Control), Act::Stop(Role::Media)]);
        machine.handle(wake, Event::Died(Role::Control, None));
        let wake = machine.wake().expect("it waits for media");
        assert!(wake < ms(5_000));
        machine.handle(wake, Event::Tick);
        assert_eq!(acts(&mut machine), [Act::Kill(Role::Media)]);
        machine.handle(wake, Event::Died(Role::Media, None));
        assert_eq!(acts(&mut machine), [Act::Exit(Outcome::Killed)]);
    }

    #[test]
    fn a_role_that_says_no_before_ready_ends_the_server_with_its_code() {
        let mut machine = Machine::new(ms(0), Begin::Fresh);
        machine.handle(ms(1), Event::Ready(Role::Media));
        acts(&mut machine);
        machine.handle(ms(2), Event::Died(Role::Control, Some(75)));
        assert_eq!(acts(&mut machine), [Act::Stop(Role::Media)]);
        machine.handle(ms(3), Event::Died(Role::Media, Some(0)));
        assert_eq!(acts(&mut machine), [Act::Exit(Outcome::Failed(75))]);
    }

    #[test]
    fn f03_with_recordings_under_way_a_role_that_says_no_is_asked_again() {
        let mut machine = Machine::new(ms(0), Begin::Kept);
        assert_eq!(acts(&mut machine), [start(Role::Media, 1)]);
        machine.handle(ms(1), Event::Died(Role::Media, Some(74)));
        assert_eq!(acts(&mut machine), [start(Role::Media, 2)]);
    }

    #[test]
    fn f09_an_upgrade_whose_role_says_no_goes_back() {
        let mut machine = Machine::new(ms(0), Begin::Upgraded);
        acts(&mut machine);
        machine.handle(ms(1), Event::Died(Role::Media, Some(78)));
        assert_eq!(acts(&mut machine)[0], Act::GoBack);
    }

    #[test]
    fn f09_an_upgrade_whose_roles_crash_or_never_are_ready_goes_back() {
        let mut machine = Machine::new(ms(0), Begin::Upgraded);
        for death in 1..=3 {
            assert!(!acts(&mut machine).contains(&Act::GoBack));
            machine.handle(ms(death * 2_000), Event::Died(Role::Media, None));
        }
        assert_eq!(acts(&mut machine).iter().filter(|act| **act == Act::GoBack).count(), 1);
        let mut machine = Machine::new(ms(0), Begin::Upgraded);
        machine.handle(ms(1), Event::Ready(Role::Media));
        machine.handle(ms(14_999), Event::Tick);
        assert!(!acts(&mut machine).contains(&Act::GoBack));
        machine.handle(ms(15_000), Event::Tick);
        machine.handle(ms(15_100), Event::Tick);
        assert_eq!(acts(&mut machine), [Act::GoBack], "once");
    }

    #[test]
    fn f03_an_end_that_is_asked_for_during_a_take_over_waits_for_it_once() {
        for (event, wanted) in [
            (Event::Terminate, Act::Drain(Role::Control)),
            (Event::Interrupt, Act::Stop(Role::Control)),
        ] {
            let mut machine = Machine::new(ms(0), Begin::Kept);
            machine.handle(ms(1), event);
            machine.handle(ms(2), Event::Ready(Role::Media));
            let early = acts(&mut machine);
            assert_eq!(early, [start(Role::Media, 1), start(Role::Control, 1)]);
            machine.handle(ms(3), Event::Ready(Role::Control));
            assert_eq!(acts(&mut machine), [Act::Announce, wanted]);

            let mut machine = Machine::new(ms(0), Begin::Kept);
            acts(&mut machine);
            machine.handle(ms(1), event);
            machine.handle(ms(2), event);
            assert_eq!(acts(&mut machine), [Act::Stop(Role::Media)], "asked twice: at once");

            let mut machine = Machine::new(ms(0), Begin::Upgraded);
            acts(&mut machine);
            machine.handle(ms(1), event);
            machine.handle(ms(15_000), Event::Tick);
            assert!(!acts(&mut machine).contains(&Act::GoBack), "nobody there would know of it");
        }
    }

    #[test]
    fn f09_a_server_that_is_ending_is_not_upgraded() {
        let mut machine = Machine::new(ms(0), Begin::Fresh);
        assert!(!machine.is_running(), "not ready yet");
        machine = ready();
        assert!(machine.is_running());
        machine.handle(ms(10), Event::Terminate);
        assert!(!machine.is_running());
    }

    #[test]
    fn f07_what_does_not_die_is_said_again_and_gets_no_successor() {
        let mut machine = ready();
        machine.handle(ms(5_000), Event::Hangs(Role::Media));
        acts(&mut machine);
        machine.handle(ms(14_999), Event::Tick);
        assert_eq!(acts(&mut machine), []);
        for second in [15, 25] {
            machine.handle(ms(second * 1_000), Event::Tick);
            assert_eq!(acts(&mut machine), [Act::Stuck(Role::Media)]);
        }
        machine.handle(ms(26_000), Event::Died(Role::Media, None));
        machine.handle(ms(60_000), Event::Tick);
        assert_eq!(acts(&mut machine), [start(Role::Media, 2)]);
    }

    #[test]
    fn f07_a_role_that_hangs_is_killed_once_and_comes_back_when_it_is_gone() {
        let mut machine = ready();
        machine.handle(ms(5_000), Event::Hangs(Role::Media));
        assert_eq!(acts(&mut machine), [Act::Kill(Role::Media)]);
        machine.handle(ms(5_100), Event::Hangs(Role::Media));
        assert_eq!(acts(&mut machine), [], "it cannot be killed more than once");
        machine.handle(ms(5_200), Event::Died(Role::Media, None));
        assert_eq!(acts(&mut machine), [start(Role::Media, 2)]);
    }

    #[test]
    fn a_role_killed_before_ready_is_started_again() {
        let mut machine = Machine::new(ms(0), Begin::Fresh);
        acts(&mut machine);
        machine.handle(ms(2), Event::Died(Role::Media, None));
        assert_eq!(acts(&mut machine), [start(Role::Media, 2)]);
    }
}
