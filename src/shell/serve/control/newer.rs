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

/// Where stream ids begin over new memory, if `free` is the next one that the journal knows of: what it
/// has lost without being noticed has used none above.
pub(super) const fn margin(free: StreamId) -> StreamId {
    StreamId(free.0 + MARGIN)
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
