//! A store that is newer than its journal: the journal lost its end, or an older copy was put back.

use std::path::Path;

use crate::base::ids::StreamId;
use crate::base::ports::Disk;
use crate::base::time::Wall;
use crate::store::archive::Archive;

/// How far what workers recorded may be ahead of the journal, which marks that each second: twice
/// that.
const AHEAD_NS: i64 = 2_000_000_000;

/// Ids that may be in use within that time: 4,000 calls a second of two lines each.
const MARGIN: u64 = 16_384;

/// So many runs in a row are not within that time.
const RUNS: u64 = 64;

/// Where stream ids begin over new memory in a `run` of the store, if `free` is the next one that the
/// journal knows of. What it has lost without being noticed is of runs before, which began elsewhere, and
/// has used none above the margin.
pub(super) const fn begin(free: StreamId, run: u64) -> StreamId {
    StreamId(free.0.next_multiple_of(MARGIN) + MARGIN * (run % RUNS))
}

/// Where stream ids must begin, if the store goes on behind the end of its journal at `alive`: its
/// packets then may be of streams that the journal has never heard of, and whoever got the id of one
/// would be shown its packets. Told as an alarm, for calls are missing that were accepted.
pub(super) fn first_stream<D: Disk + Clone>(
    disk: &D,
    store: &Path,
    alive: Wall,
) -> Option<StreamId> {
    let archive = Archive::open(disk.clone(), store);
    let through = match archive.watermarks() {
        Ok(workers) => workers.iter().filter_map(|worker| worker.durable_through).max()?,
        Err(error) => {
            tracing::warn!("nobody can say whether the journal is as new as the store: {error}");
            return None;
        }
    };
    if through.0 - alive.0 <= AHEAD_NS {
        return None;
    }
    match archive.highest_stream() {
        Ok(highest) => {
            let next = StreamId(highest.map_or(1, |highest| highest.0 + 1));
            tracing::error!(
                "alarm: the journal ends {} s before what is recorded does: control was not there to \
                 write it, its end is gone, or it is an older copy. `floortape verify --all` tells \
                 what it does not know; new streams begin at {}",
                (through.0 - alive.0) / 1_000_000_000,
                next.0
            );
            Some(next)
        }
        Err(error) => {
            tracing::error!("alarm: the journal is older than the store, and that fails: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_know_the_same_never_begin_at_the_same_id() {
        for free in [1, 1_001, MARGIN, 10 * MARGIN + 7] {
            let of = |run| begin(StreamId(free), run).0;
            for run in 0..200 {
                assert!(of(run) >= free, "none that is known to be used");
                assert!(of(run).abs_diff(of(run + 1)) >= MARGIN, "run {run}");
            }
        }
    }
}
