//! What the spool says when the disk does not take what it is given.

use super::actor::{Output, Spool};
use crate::base::ports::{Disk, Region};
use crate::base::time::Mono;
use crate::plane::handoff::frame::Notice;

/// First pause after a second failure in a row; doubled up to [`RETRY_MS_MAX`].
const RETRY_MS: u64 = 50;
/// Longest pause between two attempts.
const RETRY_MS_MAX: u64 = 2_000;

/// Failures in a row of the log, or of segments, with no folder to go on in.
#[derive(Default)]
pub(super) struct Trouble {
    failures: u32,
    pub(super) retry_at: Mono,
    pub(super) error: Option<String>,
}

impl Trouble {
    /// Returns whether it was the first in a row: the next attempt follows at once.
    pub(super) fn note(&mut self, now: Mono, error: String) -> bool {
        let pause = match self.failures {
            0 => 0,
            failures => (RETRY_MS << (failures - 1).min(16)).min(RETRY_MS_MAX),
        };
        self.failures += 1;
        self.retry_at = now.plus_ms(pause);
        self.error = Some(error);
        self.failures == 1
    }

    pub(super) fn clear(&mut self) {
        *self = Trouble::default();
    }
}

impl<R: Region, S: Region, D: Disk + Clone> Spool<R, S, D> {
    /// Says so when the disk begins to fail, when the spool goes on elsewhere, and when all is well
    /// again.
    pub(super) fn report(&mut self) {
        let fails = self.disk_error().is_some();
        // While nothing can be written at all it does not matter where.
        let said = (fails, if fails { 0 } else { self.paths.failed() });
        if said != self.said {
            let warning = self.disk_warning();
            self.said = said;
            self.outputs.push_back(Output::Notice(Notice::Disk {
                worker: self.config.worker,
                error: self.disk_error().map(str::to_owned),
                warning,
            }));
        }
    }

    /// Folders: whether they are still what they were, and whether those that failed are well.
    pub(super) fn look_after_paths(&mut self, now: Mono) {
        if let Some((place, error)) = self.paths.lost_device(now) {
            // F18: what is written there nobody finds. What is not sealed yet is still in the ring.
            self.paths.fail(place, &error.to_string(), now);
            self.log.leave(place);
            self.report();
        }
        if let Some(check) = self.paths.next_check(now) {
            self.outputs.push_back(Output::Check(check));
        }
    }
}
