//! What `FLOORTAPE_FAULTS` says, and what happens at each pass. Only in builds with the feature
//! `faults`.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a process does to itself what pure code cannot.
pub struct Hooks {
    /// SIGKILL to this process; does not return.
    pub kill: fn(),
    /// SIGSTOP to this process.
    pub stop: fn(),
    /// Sleeps so many ms.
    pub sleep_ms: fn(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Panic,
    Stop,
    Hang,
    Delay(u64),
    Errno(i32),
}

#[derive(Debug)]
struct Entry {
    point: String,
    action: Action,
    nth: u64,
    /// Also at every later pass.
    after: bool,
    passes: AtomicU64,
}

/// The faults of one process.
#[derive(Debug, Default)]
pub struct Plan {
    entries: Vec<Entry>,
    switches: Vec<String>,
}

struct Armed {
    plan: Plan,
    hooks: Hooks,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Brings `plan` to life; the first one in a process stays.
pub fn arm(plan: Plan, hooks: Hooks) {
    let _ = ARMED.set(Armed { plan, hooks });
}

impl Plan {
    /// Reads a plan for the `start`-th incarnation of a role. The error names the entry.
    pub fn parse(text: &str, start: u64) -> Result<Self, String> {
        let mut plan = Plan::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            plan.add(entry, start).ok_or_else(|| {
                format!("fault '{entry}': expected AREA.ACTION=POINT[:NTH[+]][:VALUE][@STARTS]")
            })?;
        }
        Ok(plan)
    }

    fn add(&mut self, entry: &str, start: u64) -> Option<()> {
        let (entry, starts) = match entry.split_once('@') {
            Some((entry, starts)) => (entry, Some(starts)),
            None => (entry, None),
        };
        let here = match starts {
            None => true,
            Some("odd") => start % 2 == 1,
            Some("even") => start.is_multiple_of(2),
            Some(number) => number.parse::<u64>().ok()? == start,
        };
        let Some((verb, place)) = entry.split_once('=') else {
            entry.split_once('.')?;
            if here {
                self.switches.push(entry.to_owned());
            }
            return Some(());
        };
        let (area, action) = verb.split_once('.')?;
        let mut parts = place.split(':');
        let point = format!("{area}.{}", parts.next()?);
        let nth = parts.next().unwrap_or("1");
        let after = nth.ends_with('+');
        let nth = nth.trim_end_matches('+').parse().ok()?;
        let value: Option<u64> = parts.next().map(str::parse).transpose().ok()?;
        let action = match (action, value) {
            ("kill", None) => Action::Kill,
            ("panic", None) => Action::Panic,
            ("stop", None) => Action::Stop,
            ("hang", None) => Action::Hang,
            ("delay", Some(ms)) => Action::Delay(ms),
            ("errno", Some(number)) => Action::Errno(i32::try_from(number).ok()?),
            _ => return None,
        };
        if here {
            self.entries.push(Entry { point, action, nth, after, passes: AtomicU64::new(0) });
        }
        parts.next().is_none().then_some(())
    }

    /// The action due at this pass of `point`.
    fn due(&self, point: &str) -> Option<Action> {
        let mut due = None;
        for entry in self.entries.iter().filter(|entry| entry.point == point) {
            let pass = entry.passes.fetch_add(1, Ordering::Relaxed) + 1;
            if pass == entry.nth || entry.after && pass > entry.nth {
                due = due.or(Some(entry.action));
            }
        }
        due
    }
}

/// Passes `point`. Only [`fails`] can answer with an error.
pub fn pass(point: &str) {
    drop(fails(point));
}

/// Passes `point`, and fails there if so planned.
pub fn fails(point: &str) -> io::Result<()> {
    let Some(Armed { plan, hooks }) = ARMED.get() else { return Ok(()) };
    match plan.due(point) {
        None => {}
        Some(Action::Kill) => (hooks.kill)(),
        Some(Action::Stop) => (hooks.stop)(),
        Some(Action::Panic) => panic!("fault point {point}"),
        Some(Action::Hang) => loop {
            (hooks.sleep_ms)(1_000);
        },
        Some(Action::Delay(ms)) => (hooks.sleep_ms)(ms),
        Some(Action::Errno(number)) => return Err(io::Error::from_raw_os_error(number)),
    }
    Ok(())
}

/// Whether the plan names this switch.
pub fn is_set(switch: &str) -> bool {
    ARMED.get().is_some_and(|armed| armed.plan.switches.iter().any(|own| own == switch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(plan: &Plan, point: &str, passes: usize) -> Vec<Option<Action>> {
        (0..passes).map(|_| plan.due(point)).collect()
    }

    #[test]
    fn an_entry_acts_at_its_pass_and_in_its_incarnation() {
        let text = "worker.kill=after_tail:2, spool.errno=sync:2+:5,control.delay=reply@even";
        assert!(Plan::parse(text, 1).is_err(), "a delay needs its length");
        let text = "worker.kill=after_tail:2, spool.errno=sync:2+:5,control.stop=reply@even";
        let plan = Plan::parse(text, 2).expect("well formed");
        let kill = Some(Action::Kill);
        assert_eq!(dues(&plan, "worker.after_tail", 3), [None, kill, None]);
        let eio = Some(Action::Errno(5));
        assert_eq!(dues(&plan, "spool.sync", 3), [None, eio, eio]);
        assert_eq!(dues(&plan, "control.reply", 2), [Some(Action::Stop), None]);
        assert_eq!(dues(&plan, "spool.after_tail", 3), [None; 3]);
        let other = Plan::parse(text, 3).expect("well formed");
        assert_eq!(dues(&other, "control.reply", 2), [None; 2]);
    }

    #[test]
    fn a_switch_is_on_or_off_and_a_slip_is_refused() {
        let plan = Plan::parse("worker.private_buffers,worker.two@3", 1).expect("well formed");
        assert_eq!(plan.switches, ["worker.private_buffers"]);
        for slip in
            ["worker", "worker.kil=after_tail", "worker.kill=a:x", "a.kill=b:1:2:3", "a.kill=b@x"]
        {
            assert!(Plan::parse(slip, 1).is_err(), "{slip}");
        }
    }
}
