//! Whether a new RS would be recorded. OPTIONS says the same as an INVITE would get.

use std::collections::BTreeMap;

use crate::base::ids::WorkerId;

/// Seconds after which a refused SRC may try again.
pub(super) const RETRY_AFTER_S: u32 = 5;

/// Writes that may wait for the journal. A second of INVITEs waits where the disk is slow; behind a
/// sync that hangs nothing is promised any more, and what waits must not fill memory.
pub(super) const JOURNAL_WAITS_MAX: usize = 4_096;

/// What stands against recording, each with its own reason.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Keeper asked to drain.
    pub(super) draining: bool,
    /// Keeper has been told that no RS is left.
    pub(super) drained: bool,
    /// Media answers frames.
    pub(super) media_up: bool,
    /// Why the journal takes no more.
    pub(super) journal_error: Option<String>,
    /// Writes that it has not answered.
    pub(super) journal_waits: usize,
    /// Why the disk has no room.
    pub(super) disk_shortfall: Option<String>,
    /// Why a worker's log takes no more.
    pub(super) log_errors: BTreeMap<WorkerId, String>,
    /// Streams that may be recorded at once.
    pub(super) streams_max: usize,
}

impl Admission {
    /// Why nothing new can be promised to be in the journal.
    pub(super) fn journal_obstacle(&self) -> Option<String> {
        if let Some(error) = &self.journal_error {
            return Some(format!("the journal takes no more: {error}"));
        }
        let waits = self.journal_waits;
        let full = waits >= JOURNAL_WAITS_MAX;
        full.then(|| format!("the journal takes no more: {waits} writes wait for its disk"))
    }

    /// Why `wanted` more streams would not be recorded while `used` are; `None`: they would.
    pub(super) fn obstacle(&self, used: usize, free: usize, wanted: usize) -> Option<String> {
        if self.draining {
            return Some("draining: no new recording is taken".to_owned());
        }
        if !self.media_up {
            return Some("media is being started".to_owned());
        }
        if let Some(why) = self.journal_obstacle() {
            return Some(why);
        }
        if let Some(shortfall) = &self.disk_shortfall {
            return Some(format!("the disk has too little room: {shortfall}"));
        }
        if let Some((worker, error)) = self.log_errors.first_key_value() {
            return Some(format!("the log of worker {} takes no more: {error}", worker.0));
        }
        if used + wanted > self.streams_max {
            return Some(format!("{used} of {} streams are in use", self.streams_max));
        }
        if wanted > free {
            return Some(format!("{free} port pairs are free, {wanted} are wanted"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Admission {
        Admission { media_up: true, streams_max: 4, ..Admission::default() }
    }

    #[test]
    fn an_open_recorder_takes_up_to_its_maximum() {
        assert_eq!(open().obstacle(2, 10, 2), None);
        assert!(open().obstacle(3, 10, 2).is_some_and(|why| why.contains("3 of 4")));
        assert!(open().obstacle(0, 1, 2).is_some_and(|why| why.contains("port pairs")));
    }

    #[test]
    fn each_obstacle_is_named() {
        let cases = [
            (Admission { draining: true, ..open() }, "draining"),
            (Admission { media_up: false, ..open() }, "media"),
            (Admission { journal_error: Some("EIO".into()), ..open() }, "EIO"),
            (Admission { disk_shortfall: Some("3 min".into()), ..open() }, "3 min"),
            (Admission { log_errors: [(WorkerId(1), "full".into())].into(), ..open() }, "worker 1"),
        ];
        for (admission, word) in cases {
            assert!(admission.obstacle(0, 9, 1).is_some_and(|why| why.contains(word)), "{word}");
        }
    }
}
