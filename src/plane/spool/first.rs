//! Where the records of new memory begin.

use std::path::Path;

use crate::base::ids::{Position, WorkerId};
use crate::base::ports::Disk;
use crate::base::time::Wall;
use crate::store::archive::Archive;
use crate::store::journal;
use crate::store::log::{self, LogError};

/// Where a worker without memory begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// The position that its memory is initialised with.
    pub position: Position,
    /// Bytes before it that were durable, as the journal says, and that no file holds any more.
    pub missing: u64,
    /// Everything captured up to then is on disk; `None`: nothing ever was.
    pub through: Option<Wall>,
}

/// Behind all that log and segments of `worker` hold, and behind what they held once: a position
/// never stands for two things, and what is missing becomes an event ([`super::Spool::open`]). A
/// journal that cannot be read proves nothing.
pub fn first_position<D: Disk + Clone>(
    disk: &D,
    store: &Path,
    journal: &Path,
    worker: WorkerId,
) -> Result<First, LogError> {
    let found = log::next_position(disk, store, worker)?;
    let marks = journal::marks(disk, journal).unwrap_or_default();
    let position = marks.get(&worker).map_or(found, |mark| mark.durable.max(found));
    let through = Archive::open(disk.clone(), store).durable_through(worker).unwrap_or_default();
    Ok(First { position, missing: position.0 - found.0, through })
}
