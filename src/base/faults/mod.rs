//! Fault points: named places where a build made for it fails on purpose, so that a test may cut
//! the product exactly there. In the default build every macro of this module is empty, which
//! `tests/tidy.rs` proves of the binary; the feature `faults` (`cargo build --profile faults
//! --features faults`, its binary stands in `target/faults`) brings them to life.
//!
//! A point is `area.name`; the area says who passes it (`worker`, `media`, `control`, `keeper`,
//! `spool`, `journal`, `disk`):
//! ```text
//! fault!("worker.after_intent");        kills, panics, stops or delays here
//! fault_io!("spool.sync")?;             the same, or fails with an error number
//! if faulty!("worker.private_buffers")  a switch: breaks a rule for good (negative controls)
//! ```
//! Which of them act is read once per process from `FLOORTAPE_FAULTS`, entries parted by commas:
//! ```text
//! AREA.ACTION=POINT[:NTH[+]][:VALUE][@STARTS]      or a switch: AREA.NAME
//!
//! worker.kill=after_intent:1000      SIGKILL to itself at the 1,000th pass of worker.after_intent
//! worker.kill=before_go@even         at the first pass, in every second incarnation of the role
//! worker.panic=after_body:7          a panic at the 7th pass
//! worker.hang=turn:500               sleeps for ever; control.stop=… stops the whole process
//! spool.delay=sync:10+:30000         30,000 ms at the 10th pass and every one after it
//! spool.errno=sync:3:5               the third sync fails with error number 5 (EIO)
//! worker.decrypt_in_place            a switch
//! ```
//! NTH counts passes in one process, from 1. STARTS is which incarnation of the role acts: a number
//! (1 is the first under this keeper), `odd` or `even`; without it each one does. A plan that
//! cannot be read ends the process at once: a test must not pass because of a typing error.

#[cfg(feature = "faults")]
mod plan;

#[cfg(feature = "faults")]
pub use plan::{Hooks, Plan, arm, fails, is_set, pass};

/// Passes a fault point.
#[cfg(feature = "faults")]
macro_rules! fault {
    ($point:literal) => {
        $crate::base::faults::pass($point)
    };
}
/// Passes a fault point: nothing, since this build has none.
#[cfg(not(feature = "faults"))]
macro_rules! fault {
    ($point:literal) => {};
}

/// Passes a fault point that may fail: `io::Result<()>`.
#[cfg(feature = "faults")]
macro_rules! fault_io {
    ($point:literal) => {
        $crate::base::faults::fails($point)
    };
}
/// Passes a fault point that may fail: it does not, since this build has none.
#[cfg(not(feature = "faults"))]
macro_rules! fault_io {
    ($point:literal) => {
        Ok::<(), std::io::Error>(())
    };
}

/// Whether a rule is broken on purpose.
#[cfg(feature = "faults")]
macro_rules! faulty {
    ($switch:literal) => {
        $crate::base::faults::is_set($switch)
    };
}
/// Whether a rule is broken on purpose: never, in this build.
#[cfg(not(feature = "faults"))]
macro_rules! faulty {
    ($switch:literal) => {
        false
    };
}

pub(crate) use {fault, fault_io, faulty};
