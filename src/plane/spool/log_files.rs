//! The log files of one worker: the one being written, those that hold unsealed records, and the
//! pool of those that may be used again.

use std::io;
use std::path::{Path, PathBuf};

use super::buffer::AlignedBuffer;
use super::config::SpoolConfig;
use crate::base::ids::{Position, WorkerId};
use crate::base::ports::{Disk, DiskFile};
use crate::base::time::ClockMap;
use crate::store::evidence::Hash;
use crate::store::log::{
    self, BLOCK_BYTES, FileHeader, Found, GROUP_BYTES_MAX, GROUP_HEADER_BYTES, GroupHeader,
    LogError, crc32c, group_span,
};

/// Files kept for use; more are removed.
const POOL_MAX: usize = 3;
/// Bytes zeroed in one turn while a file is prepared.
const ZERO_BYTES: usize = GROUP_BYTES_MAX;

struct Current<F> {
    path: PathBuf,
    file: F,
    sequence: u64,
    at: u64,
    bytes: u64,
    end: Position,
}

struct Held {
    path: PathBuf,
    end: Position,
    suspect: bool,
}

struct Preparing<F> {
    path: PathBuf,
    file: F,
    zeroed: u64,
}

/// See the module.
pub(super) struct LogFiles<D: Disk> {
    disk: D,
    folder: PathBuf,
    worker: WorkerId,
    volume: [u8; 16],
    ring_bytes: u64,
    file_bytes: u64,
    current: Option<Current<D::File>>,
    held: Vec<Held>,
    free: Vec<PathBuf>,
    preparing: Option<Preparing<D::File>>,
    zeros: AlignedBuffer,
    next_name: u64,
    file_sequence: u64,
    group_sequence: u64,
    previous: Hash,
}

impl<D: Disk + Clone> LogFiles<D> {
    /// Looks at what is there. Returns it with all groups that reach beyond `sealed`.
    pub(super) fn open(
        disk: D,
        config: &SpoolConfig,
        ring_bytes: u64,
        sealed: Position,
    ) -> Result<(Self, Vec<Found>), LogError> {
        let folder = log::folder(&config.store, config.worker);
        let scans = log::scan_worker(&disk, &config.store, config.worker, u64::MAX)?;
        let file_bytes = config.log_file_bytes(ring_bytes);
        let mut files = LogFiles {
            disk,
            folder,
            worker: config.worker,
            volume: config.volume,
            ring_bytes,
            file_bytes,
            current: None,
            held: Vec::new(),
            free: Vec::new(),
            preparing: None,
            zeros: AlignedBuffer::new(ZERO_BYTES),
            next_name: 1,
            file_sequence: 0,
            group_sequence: 0,
            previous: [0; 32],
        };
        let mut unsealed = Vec::new();
        for scan in scans {
            let name = scan.path.file_stem().and_then(|stem| stem.to_str());
            let number = name.and_then(|name| name.parse::<u64>().ok()).unwrap_or(0);
            files.next_name = files.next_name.max(number + 1);
            let sequence = scan.header.map_or(0, |header| header.file_sequence);
            files.file_sequence = files.file_sequence.max(sequence);
            for group in &scan.groups {
                if group.header.group_sequence > files.group_sequence {
                    files.group_sequence = group.header.group_sequence;
                    files.previous = group.header.emit(&mut [0; GROUP_HEADER_BYTES]);
                }
            }
            let end = scan.groups.iter().map(|group| group.header.end()).max();
            let other_size = scan.file_bytes != file_bytes;
            match end.filter(|end| *end > sealed) {
                Some(end) => {
                    files.held.push(Held { path: scan.path, end, suspect: other_size });
                    unsealed
                        .extend(scan.groups.into_iter().filter(|one| one.header.end() > sealed));
                }
                None if scan.file_bytes == file_bytes => files.free.push(scan.path),
                // Best effort: it holds nothing that is not sealed.
                None => drop(files.disk.remove(&scan.path)),
            }
        }
        Ok((files, unsealed))
    }

    /// Sequence number of the last group.
    pub(super) const fn group_sequence(&self) -> u64 {
        self.group_sequence
    }

    /// Writes one group, whose payload stands in `buffer` behind room for the header. Not durable
    /// before [`LogFiles::sync`].
    pub(super) fn write(
        &mut self,
        buffer: &mut AlignedBuffer,
        first: Position,
        bytes: usize,
        incarnation: u64,
        clock: ClockMap,
    ) -> io::Result<()> {
        let span = group_span(bytes as u64);
        if self.current.as_ref().is_some_and(|current| current.at + span > current.bytes) {
            self.sync()?;
            self.close();
        }
        if self.current.is_none() {
            self.current = Some(self.start_file(first)?);
        }
        let current = self.current.as_mut().expect("made above");
        let block = buffer.bytes_mut();
        block[GROUP_HEADER_BYTES + bytes..span as usize].fill(0);
        let header = GroupHeader {
            worker: self.worker,
            file_sequence: current.sequence,
            group_sequence: self.group_sequence + 1,
            incarnation,
            first,
            bytes: bytes as u64,
            clock,
            previous: self.previous,
            ring_bytes: self.ring_bytes,
            payload_crc: crc32c(&block[GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + bytes]),
        };
        let hash = header.emit(block);
        // Taken before the write: whatever of it reaches the disk, its number is used up.
        self.group_sequence += 1;
        self.previous = hash;
        let at = current.at;
        current.at += span;
        current.end = header.end();
        current.file.write_at(at, &block[..span as usize])
    }

    /// Makes what was written durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.current.as_mut().map_or(Ok(()), |current| current.file.sync())
    }

    /// Whether the last group written reads back as it was; after a failure (F12).
    pub(super) fn reads_back(&self, buffer: &AlignedBuffer, bytes: usize) -> io::Result<bool> {
        let Some(current) = &self.current else { return Ok(true) };
        let span = group_span(bytes as u64) as usize;
        let file = self.disk.open_read(&current.path)?;
        let mut found = vec![0; span];
        let mut done = 0;
        while done < span {
            match file.read_at(current.at - (span - done) as u64, &mut found[done..])? {
                0 => return Ok(false),
                count => done += count,
            }
        }
        Ok(found == buffer.bytes()[..span])
    }

    fn start_file(&mut self, first: Position) -> io::Result<Current<D::File>> {
        let (path, mut file) = match self.free.pop() {
            Some(path) => (path.clone(), self.disk.open(&path)?),
            None => match self.preparing.take() {
                Some(preparing) => (preparing.path, preparing.file),
                None => self.create()?,
            },
        };
        self.file_sequence += 1;
        let header = FileHeader {
            worker: self.worker,
            volume: self.volume,
            file_sequence: self.file_sequence,
            first,
            ring_bytes: self.ring_bytes,
            file_bytes: self.file_bytes,
        };
        let mut block = AlignedBuffer::new(BLOCK_BYTES);
        header.emit(block.bytes_mut());
        let started = file.write_at(0, block.bytes()).and_then(|()| file.sync());
        if let Err(error) = started {
            self.held.push(Held { path, end: first, suspect: true });
            return Err(error);
        }
        let at = BLOCK_BYTES as u64;
        Ok(Current {
            path,
            file,
            sequence: self.file_sequence,
            at,
            bytes: self.file_bytes,
            end: first,
        })
    }

    fn create(&mut self) -> io::Result<(PathBuf, D::File)> {
        let path = self.folder.join(format!("{:08}.log", self.next_name));
        self.next_name += 1;
        let file = self.disk.create(&path, self.file_bytes)?;
        Ok((path, file))
    }

    /// The current file takes no more.
    pub(super) fn close(&mut self) {
        if let Some(current) = self.current.take() {
            self.held.push(Held { path: current.path, end: current.end, suspect: false });
        }
    }

    /// A write or sync of the current file failed: that is final for it (F12). What it holds of
    /// durable records stays until they are sealed; it is never used again.
    pub(super) fn fail(&mut self) {
        if let Some(current) = self.current.take() {
            self.held.push(Held { path: current.path, end: current.end, suspect: true });
        }
    }

    /// Everything below `sealed` is in segments: its files return to the pool.
    pub(super) fn release(&mut self, sealed: Position) {
        for held in std::mem::take(&mut self.held) {
            if held.end > sealed {
                self.held.push(held);
            } else if held.suspect {
                // Kept under another name, for whoever looks at the disk; it may fail again.
                let _ = self.disk.rename(&held.path, &held.path.with_extension("suspect"));
            } else if self.free.len() < POOL_MAX && self.blank(&held.path).is_ok() {
                self.free.push(held.path);
            } else {
                let _ = self.disk.remove(&held.path);
            }
        }
    }

    /// Takes the first block off a file, so that readers pass it by. Needs no sync: what the block
    /// says is true until the file is used again, and that begins with a synced one.
    fn blank(&self, path: &Path) -> io::Result<()> {
        let block = AlignedBuffer::new(BLOCK_BYTES);
        self.disk.open(path)?.write_at(0, block.bytes())
    }

    /// Prepares the next file while there is nothing better to do: makes it, then writes zeros, so
    /// that later syncs change no metadata. Returns whether there was something to do.
    pub(super) fn prepare(&mut self) -> bool {
        if !self.free.is_empty() || self.current.is_none() {
            return false;
        }
        let Some(preparing) = &mut self.preparing else {
            // A failure here shows again, and is reported, when the file is needed.
            self.preparing =
                self.create().ok().map(|(path, file)| Preparing { path, file, zeroed: 0 });
            return self.preparing.is_some();
        };
        let left = self.file_bytes - preparing.zeroed;
        let count = left.min(ZERO_BYTES as u64);
        let zeros = &self.zeros.bytes()[..count as usize];
        if count == 0 {
            return false;
        }
        if preparing.file.write_at(preparing.zeroed, zeros).is_err() {
            // Final for this file too; it holds nothing yet.
            if let Some(failed) = self.preparing.take() {
                let _ = self.disk.remove(&failed.path);
            }
            return false;
        }
        preparing.zeroed += count;
        true
    }
}
