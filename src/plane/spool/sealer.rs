//! Writes one segment, a bounded piece at a time: its keys, `.tmp`, sync, rename.

use std::io;
use std::path::{Path, PathBuf};

use super::buffer::AlignedBuffer;
use crate::base::ids::Position;
use crate::base::ports::{Disk, DiskFile};
use crate::base::time::Wall;
use crate::store::evidence::SigningKey;
use crate::store::keys::{self, KeyError, KeyMaker, Of};
use crate::store::segment::{EmitError, Emitter, SegmentName, folder};

/// Bytes written in one step.
pub(super) const STEP_BYTES: usize = 1 << 20;
/// Bytes written between two syncs, so that the last one is short: a long sync would delay the
/// log's.
const SYNC_BYTES: u64 = 16 << 20;

/// What a step came to.
pub(super) enum Step {
    /// There is more to write.
    More,
    /// The segment is in place.
    Sealed,
}

/// Why a step failed.
pub(super) enum SealError {
    /// The records cannot be read.
    Read(io::Error),
    /// The segment cannot be written: final for its file (F12).
    Write(io::Error),
}

/// What a segment is encrypted under.
pub(super) struct Keys {
    /// Makes them, anew for each attempt.
    pub(super) maker: KeyMaker,
    /// Id of the store.
    pub(super) volume: [u8; 16],
    /// When the segment is sealed.
    pub(super) at: Wall,
}

/// One segment on its way to the disk.
pub(super) struct Sealer<F> {
    pub(super) name: SegmentName,
    pub(super) emitter: Emitter,
    keys: Option<Keys>,
    path: PathBuf,
    temporary: PathBuf,
    file: Option<F>,
    /// Octets at the start of the buffer that wait for it to be full.
    filled: usize,
    at: u64,
    synced: u64,
    /// An attempt came to nothing.
    again: bool,
}

impl<F: DiskFile> Sealer<F> {
    /// `root`: the folder whose `segments` it goes to. `keys`: where the emitter encrypts.
    pub(super) fn new(
        root: &Path,
        name: SegmentName,
        emitter: Emitter,
        keys: Option<Keys>,
    ) -> Self {
        let path = folder(root).join(name.file());
        let temporary = folder(root).join(format!("{}.tmp", name.file()));
        let (file, filled, at, synced, again) = (None, 0, 0, 0, false);
        Sealer { name, emitter, keys, path, temporary, file, filled, at, synced, again }
    }

    /// Whether the next step makes a file.
    pub(super) const fn is_new(&self) -> bool {
        self.file.is_none()
    }

    /// Starts over in another folder, or in the same. The records will be the same ones: should the
    /// file that failed be there all the same, after a rename whose sync failed, it is a copy. Keys that
    /// were made in the other folder stay there, for it.
    pub(super) fn begin_in<D: Disk>(&mut self, disk: &D, root: &Path) {
        // Gives the room back, as far as that works.
        let _ = disk.remove(&self.temporary);
        self.path = folder(root).join(self.name.file());
        self.temporary = folder(root).join(format!("{}.tmp", self.name.file()));
        self.file = None;
    }

    /// Goes on by a turn's work: about a megabyte of records, one write at most. `buffer` is its own
    /// from one step to the next. After an error it starts over on a new file.
    pub(super) fn step<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        buffer: &mut AlignedBuffer,
        key: &SigningKey,
        copy: &mut impl FnMut(Position, &mut [u8]) -> io::Result<()>,
    ) -> Result<Step, SealError> {
        let result = self.try_step(disk, buffer, key, copy);
        if result.is_err() {
            // Final for this file, whatever failed.
            self.file = None;
            self.again = true;
        }
        result
    }

    fn try_step<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        buffer: &mut AlignedBuffer,
        key: &SigningKey,
        copy: &mut impl FnMut(Position, &mut [u8]) -> io::Result<()>,
    ) -> Result<Step, SealError> {
        if self.file.is_none() {
            // Left by a predecessor or by the attempt before; may well not exist.
            let _ = disk.remove(&self.temporary);
            self.begin(disk).map_err(SealError::Write)?;
            self.filled = 0;
            self.at = 0;
            self.synced = 0;
            // What is packed is shorter than this: nothing is begun that might not fit.
            let made = disk.create(&self.temporary, self.emitter.room_bytes());
            self.file = Some(made.map_err(SealError::Write)?);
            if self.keys.is_some() {
                // They were a sync of their own.
                return Ok(Step::More);
            }
        }
        let file = self.file.as_mut().expect("made above");
        let out = &mut buffer.bytes_mut()[self.filled..STEP_BYTES];
        let count = self.emitter.fill(out, key, copy).map_err(|error| match error {
            EmitError::Records { source, .. } => SealError::Read(source),
            EmitError::Salt { .. } => {
                SealError::Read(io::Error::other("salts are known before it begins"))
            }
        })?;
        self.filled += count;
        let done = self.emitter.is_done();
        if self.filled == STEP_BYTES || done && self.filled > 0 {
            let piece = &buffer.bytes()[..self.filled];
            file.write_at(self.at, piece).map_err(SealError::Write)?;
            self.at += self.filled as u64;
            self.filled = 0;
        }
        if done && self.at < self.emitter.room_bytes() {
            file.cut(self.at).map_err(SealError::Write)?;
        }
        if done || self.at - self.synced >= SYNC_BYTES {
            file.sync().map_err(SealError::Write)?;
            self.synced = self.at;
        }
        if !done {
            return Ok(Step::More);
        }
        disk.rename(&self.temporary, &self.path).map_err(SealError::Write)?;
        Ok(Step::Sealed)
    }

    /// Back to the first byte, under keys of which nothing has been used.
    fn begin<D: Disk>(&mut self, disk: &D) -> io::Result<()> {
        let Some(Keys { maker, volume, at }) = &self.keys else {
            self.emitter.restart();
            return Ok(());
        };
        if self.again {
            // After a rename whose sync failed it may be there: without the keys that are overwritten now
            // nobody could read it, and a successor would take it for sealed.
            match disk.remove(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => disk.sync_names(self.path.parent().unwrap_or(&self.path))?,
            }
        }
        let of = Of { volume: *volume, worker: self.name.worker, number: self.name.number };
        match maker.make(disk, &self.path, of, &self.emitter.streams(), *at) {
            Ok(keys) => self.emitter.restart_under(keys),
            Err(error) => {
                // Nothing was encrypted under them. That file has failed: the next one is another.
                let _ = disk.remove(&keys::path_of(&self.path));
                return Err(match error {
                    KeyError::Disk { source, .. } => source,
                    other => io::Error::other(other),
                });
            }
        }
        Ok(())
    }
}
