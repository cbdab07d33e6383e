//! Turns until told to stop. The caller pins the thread and, after anything but `Stopped`, drops
//! the worker and starts a new one over the same memory.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use super::turn::Worker;
use crate::base::ports::{Clock, Datagrams, Region, WritableRegion};

/// Why a worker ended.
#[derive(Debug)]
pub enum End {
    /// It was told to.
    Stopped,
    /// Its engine failed.
    Failed(io::Error),
    /// A turn panicked; the buffer being handled is marked (F05).
    Panicked,
}

/// Runs `worker` until `stop` is set: a last turn then takes what has arrived before.
pub fn run<S, G, E, C>(mut worker: Worker<S, G, E, C>, stop: &AtomicBool) -> End
where
    S: Region,
    G: WritableRegion,
    E: Datagrams,
    C: Clock,
{
    loop {
        let last = stop.load(Ordering::Acquire);
        // A panic leaves the shared words in a state that the kill protocol covers; what is private
        // goes with the worker.
        match catch_unwind(AssertUnwindSafe(|| worker.turn())) {
            Ok(Ok(_)) if last => return End::Stopped,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                worker.leave();
                return End::Failed(error);
            }
            Err(_) => {
                worker.strike();
                worker.leave();
                return End::Panicked;
            }
        }
    }
}
