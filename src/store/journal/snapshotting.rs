//! The writing of a snapshot. Answers wait for the journal's thread, and what stands may be a lot: so
//! it is done beside that, from a copy.

use std::path::Path;

use super::file::{Folder, check_device, write_again};
use super::read::{JournalError, at, snapshot_name, snapshot_number};
use super::snapshot;
use super::standing::Standings;
use crate::base::faults::fault;
use crate::base::ports::Disk;

/// A snapshot to be written; made by [`super::Journal::begin_snapshot`].
pub struct Snapshotting<D> {
    pub(super) disk: D,
    /// Where journal files and snapshots may be.
    pub(super) folders: Vec<Folder>,
    /// Which of them it goes to.
    pub(super) place: usize,
    /// The last journal file that it stands for.
    pub(super) through: u32,
    pub(super) standings: Standings,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its length.
    pub(super) bytes: u64,
    /// The one before it, and it.
    pub(super) two: Option<[u32; 2]>,
}

impl<D: Disk> Snapshotting<D> {
    /// Writes it and removes all but the one before it. It may say more than the files that it stands
    /// for: what comes again changes nothing. Where this fails, starts go on with the one before.
    pub fn run(&self) -> Result<Written, JournalError> {
        let Snapshotting { disk, folders, place, through, standings } = self;
        let bytes = snapshot::write(standings, *through).ok_or(JournalError::TooLong)?;
        let folder = &folders[*place];
        check_device(disk, folder)?;
        self.put(&folder.path.join(snapshot_name(*through)), &bytes)?;
        let mut before = Vec::new();
        for folder in folders {
            let names = disk.list(&folder.path).unwrap_or_default();
            let numbers = names.into_iter().filter_map(|name| snapshot_number(&name));
            let older = numbers.filter(|number| number < through);
            before.extend(older.map(|number| (number, folder.path.join(snapshot_name(number)))));
        }
        before.sort_unstable();
        let two = before.pop().map(|(number, _)| [number, *through]);
        for (_, old) in before {
            // One that stays costs room and nothing else: the newest is taken.
            let _ = disk.remove(&old);
        }
        Ok(Written { bytes: bytes.len() as u64, two })
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
        let temporary = path.with_extension("snapshot.tmp");
        // Left by an attempt before; may well not exist.
        let _ = self.disk.remove(&temporary);
        write_again(&self.disk, &temporary, bytes).inspect_err(|_| {
            let _ = self.disk.remove(&temporary);
        })?;
        fault!("journal.snapshot_rename");
        self.disk.rename(&temporary, path).map_err(at("rename", &temporary))?;
        fault!("journal.snapshot_remove");
        Ok(())
    }
}
