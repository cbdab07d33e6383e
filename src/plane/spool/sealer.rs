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

/// One segment on its way to the disk.
pub(super) struct Sealer<F> {
    pub(super) name: SegmentName,
    pub(super) emitter: Emitter,
    path: PathBuf,
    temporary: PathBuf,
    file: Option<F>,
    at: u64,
    synced: u64,
}

impl<F: DiskFile> Sealer<F> {
    pub(super) fn new(store: &Path, name: SegmentName, emitter: Emitter) -> Self {
        let path = folder(store).join(name.file());
        let temporary = folder(store).join(format!("{}.tmp", name.file()));
        Sealer { name, emitter, path, temporary, file: None, at: 0, synced: 0 }
    }

    /// Writes the next piece. After an error call it again later: it starts over on a new file.
    pub(super) fn step<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        buffer: &mut AlignedBuffer,
        key: &SigningKey,
        copy: &mut impl FnMut(Position, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<Step> {
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
    ) -> io::Result<Step> {
        if self.file.is_none() {
            // Left by a predecessor or by the attempt before; may well not exist.
            let _ = disk.remove(&self.temporary);
            self.emitter.restart();
            self.at = 0;
            self.synced = 0;
            self.file = Some(disk.create(&self.temporary, self.emitter.file_bytes())?);
        }
        let file = self.file.as_mut().expect("made above");
        let out = &mut buffer.bytes_mut()[..STEP_BYTES];
        let count = self.emitter.fill(out, key, copy).map_err(|error| match error {
            EmitError::Records { source, .. } => source,
            EmitError::Salt { .. } => io::Error::other("salts are known before emission begins"),
        })?;
        if count > 0 {
            file.write_at(self.at, &buffer.bytes()[..count])?;
            self.at += count as u64;
        }
        let done = self.at == self.emitter.file_bytes();
        if done || self.at - self.synced >= SYNC_BYTES {
            file.sync()?;
            self.synced = self.at;
        }
        if !done {
            return Ok(Step::More);
        }
        disk.rename(&self.temporary, &self.path)?;
        Ok(Step::Sealed)
    }
}
