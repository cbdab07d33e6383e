//! Arms the fault points of this process. Only in builds with the feature `faults`.

use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::base::faults::{Hooks, Plan, arm as arm_plan};

/// Reads `FLOORTAPE_FAULTS` for the `start`-th incarnation of a role. Ends the process where it
/// cannot be read: a test must not pass because of a slip.
pub fn arm(start: u64) {
    let Ok(text) = std::env::var("FLOORTAPE_FAULTS") else { return };
    match Plan::parse(&text, start) {
        Ok(plan) => arm_plan(plan, Hooks { kill, stop, sleep_ms }),
        Err(error) => {
            tracing::error!("FLOORTAPE_FAULTS: {error}");
            eprintln!("FLOORTAPE_FAULTS: {error}");
            std::process::abort();
        }
    }
}

fn kill() {
    signal(Signal::KILL);
    // Other threads may run for a moment; this one does not come back.
    loop {
        std::thread::park();
    }
}

fn stop() {
    signal(Signal::STOP);
}

fn signal(signal: Signal) {
    let _ = kill_process(getpid(), signal);
}

fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}
