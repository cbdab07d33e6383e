//! Writes one segment, a bounded piece at a time: `.tmp`, sync, rename.

use std::io;
use std::path::{Path, PathBuf};

use super::buffer::AlignedBuffer;
use crate::base::ids::Position;
use crate::base::ports::{Disk, DiskFile};
use crate::store::evidence::SigningKey;
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

/// One segment on its way to the disk.
pub(super) struct Sealer<F> {
    pub(super) name: SegmentName,
    pub(super) emitter: Emitter,
    path: PathBuf,
    temporary: PathBuf,
    file: Option<F>,
    /// Octets at the start of the buffer that wait for it to be full.
    filled: usize,
    at: u64,
    synced: u64,
}

impl<F: DiskFile> Sealer<F> {
    /// `root`: the folder whose `segments` it goes to.
    pub(super) fn new(root: &Path, name: SegmentName, emitter: Emitter) -> Self {
        let path = folder(root).join(name.file());
        let temporary = folder(root).join(format!("{}.tmp", name.file()));
        Sealer { name, emitter, path, temporary, file: None, filled: 0, at: 0, synced: 0 }
    }

    /// Whether the next step makes a file.
    pub(super) const fn is_new(&self) -> bool {
        self.file.is_none()
    }

    /// Starts over in another folder, or in the same. The bytes will be the same ones: should the
    /// file that failed be there all the same, after a rename whose sync failed, it is a copy.
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
            self.emitter.restart();
            self.filled = 0;
            self.at = 0;
            self.synced = 0;
            // What is packed is shorter than this: nothing is begun that might not fit.
            let made = disk.create(&self.temporary, self.emitter.room_bytes());
            self.file = Some(made.map_err(SealError::Write)?);
        }
        let file = self.file.as_mut().expect("made above");
        let out = &mut buffer.bytes_mut()[self.filled..STEP_BYTES];
        let count = self.emitter.fill(out, key, copy).map_err(|error| match error {
            EmitError::Records { source, .. } => SealError::Read(source),
            EmitError::Salt { .. } | EmitError::Secret { .. } => {
                SealError::Read(io::Error::other("salts and secrets are known before it begins"))
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
}
