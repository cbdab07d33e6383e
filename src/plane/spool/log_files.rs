//! The log files of one worker: the one being written, those that hold unsealed records, and the
//! pool of those that may be used again.

use std::io;
use std::path::{Path, PathBuf};

use super::buffer::AlignedBuffer;
use super::config::SpoolConfig;
use super::paths::Paths;
use crate::base::ids::{Position, WorkerId};
use crate::base::ports::{Disk, DiskFile};
use crate::base::time::ClockMap;
use crate::store::cipher::{GroupKey, TAG_BYTES};
use crate::store::evidence::Hash;
use crate::store::log::{
    self, BLOCK_BYTES, FileHeader, Found, GROUP_BYTES_MAX, GROUP_HEADER_BYTES, GroupHeader,
    LOOK_BEHIND_BYTES, LogError, group_span,
};

/// Files kept for use; more are removed.
const POOL_MAX: usize = 3;
/// Files of folders that are out of use which are remembered, to be tidied up when they are back.
const HELD_MAX: usize = 256;
/// Bytes zeroed in one turn while a file is prepared.
const ZERO_BYTES: usize = GROUP_BYTES_MAX;

struct Current<F> {
    place: usize,
    path: PathBuf,
    file: F,
    sequence: u64,
    at: u64,
    bytes: u64,
    end: Position,
    /// Drawn for this use of the file; `None`: the store is not encrypted.
    key: Option<GroupKey>,
}

struct Held {
    place: usize,
    path: PathBuf,
    end: Position,
    /// Of the size that is in force: may be used again.
    fits: bool,
    suspect: bool,
    /// Its first block holds a wrapped key.
    keyed: bool,
}

struct Preparing<F> {
    place: usize,
    path: PathBuf,
    file: F,
    zeroed: u64,
}

/// See the module.
pub(super) struct LogFiles<D: Disk> {
    disk: D,
    worker: WorkerId,
    volume: [u8; 16],
    ring_bytes: u64,
    file_bytes: u64,
    /// Each use of a file has a key.
    encrypts: bool,
    current: Option<Current<D::File>>,
    held: Vec<Held>,
    /// The pool, by place.
    free: Vec<(usize, PathBuf)>,
    preparing: Option<Preparing<D::File>>,
    /// Preparing the next file failed: not tried again before that file is needed.
    unprepared: bool,
    /// Where the last write or sync was.
    at: usize,
    zeros: AlignedBuffer,
    next_name: u64,
    file_sequence: u64,
    group_sequence: u64,
    previous: Hash,
    /// Places of files that failed before a start and hold what is not sealed.
    failed_before: Vec<usize>,
}

impl<D: Disk + Clone> LogFiles<D> {
    /// Looks at what is there. Returns it with all groups that reach beyond `sealed`. `durable`: what
    /// the log is said to hold; where it is found nobody looks further, since the rest of a file may be
    /// 256 MiB of zeros, and a successor has packets waiting.
    pub(super) fn open(
        disk: D,
        paths: &Paths<D>,
        config: &SpoolConfig,
        ring_bytes: u64,
        sealed: Position,
        durable: Position,
    ) -> Result<(Self, Vec<Found>), LogError> {
        let scan = |look_behind| {
            log::scan_worker(&paths.whole(), &config.store, config.worker, look_behind)
        };
        let mut scans = scan(LOOK_BEHIND_BYTES)?;
        let ends = scans.iter().flat_map(|scan| &scan.groups).map(|group| group.header.end());
        if ends.max().is_none_or(|end| end < durable) {
            scans = scan(u64::MAX)?;
        }
        let file_bytes = config.log_file_bytes(ring_bytes);
        let mut files = LogFiles {
            encrypts: disk.log_keys().is_some(),
            disk,
            worker: config.worker,
            volume: config.volume,
            ring_bytes,
            file_bytes,
            current: None,
            held: Vec::new(),
            free: Vec::new(),
            preparing: None,
            unprepared: false,
            at: 0,
            zeros: AlignedBuffer::new(ZERO_BYTES),
            next_name: 1,
            file_sequence: 0,
            group_sequence: 0,
            previous: [0; 32],
            failed_before: Vec::new(),
        };
        let mut unsealed = Vec::new();
        for scan in scans {
            let name = scan.path.file_name().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.split('.').next()?.parse::<u64>().ok());
            let number = number.unwrap_or(0);
            let failed = log::is_failed(&scan.path);
            files.next_name = files.next_name.max(number + 1);
            let sequence = scan.header.map_or(0, |header| header.file_sequence);
            files.file_sequence = files.file_sequence.max(sequence);
            for group in &scan.groups {
                if group.header.group_sequence > files.group_sequence {
                    files.group_sequence = group.header.group_sequence;
                    files.previous = group.header.emit(&mut [0; GROUP_HEADER_BYTES]);
                }
            }
            // What the system remembers of a file that failed need not be what the medium holds (F12).
            let lies = failed && files.encrypts;
            let keyed = lies || scan.header.is_some_and(|header| header.key.is_some());
            if keyed && !files.encrypts {
                // Neither could what is there be sealed, nor anything be written that may stand beside it.
                return Err(LogError::locked(&scan.path));
            }
            let end = scan.groups.iter().map(|group| group.header.end()).max();
            let fits = scan.file_bytes == file_bytes;
            let whole = scan.header.is_some_and(|header| header.file_bytes == scan.file_bytes);
            let place = paths.place_of(&scan.path);
            match end.filter(|end| *end > sealed) {
                Some(end) => {
                    if failed {
                        files.failed_before.push(place);
                    }
                    let suspect = failed || !whole;
                    files.held.push(Held { place, path: scan.path, end, fits, suspect, keyed });
                    unsealed
                        .extend(scan.groups.into_iter().filter(|one| one.header.end() > sealed));
                }
                // Whoever died here came not as far as to destroy its key.
                None if keyed => {
                    let (path, end) = (scan.path, end.unwrap_or_default());
                    files.give_back(Held { place, path, end, fits, suspect: failed, keyed });
                }
                None if failed => files.put_aside(&scan.path),
                None if fits => files.free.push((place, scan.path)),
                // Best effort: it holds nothing that is not sealed.
                None => drop(files.disk.remove(&scan.path)),
            }
        }
        Ok((files, unsealed))
    }

    /// The folders in which a predecessor saw a file fail (F12), as the files' names say.
    pub(super) fn failed_before(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.failed_before)
    }

    /// Sequence number of the last group.
    pub(super) const fn group_sequence(&self) -> u64 {
        self.group_sequence
    }

    /// Writes one group, whose payload stands in `buffer` behind room for the header. Not durable
    /// before [`LogFiles::sync`].
    pub(super) fn write(
        &mut self,
        paths: &Paths<D>,
        buffer: &mut AlignedBuffer,
        first: Position,
        bytes: usize,
        incarnation: u64,
        clock: ClockMap,
    ) -> io::Result<()> {
        let span = self.span(bytes);
        if self.current.as_ref().is_some_and(|current| current.at + span > current.bytes) {
            self.sync()?;
            self.close();
        }
        if self.current.is_none() {
            self.at = paths.choose();
            self.current = Some(self.start_file(paths, first)?);
        }
        let current = self.current.as_mut().expect("made above");
        self.at = current.place;
        let mut header = GroupHeader {
            worker: self.worker,
            file_sequence: current.sequence,
            group_sequence: self.group_sequence + 1,
            incarnation,
            first,
            bytes: bytes as u64,
            clock,
            previous: self.previous,
            ring_bytes: self.ring_bytes,
            payload_crc: 0,
            encrypted: current.key.is_some(),
        };
        // Taken before the write: whatever of it reaches the disk, its number is used up.
        self.group_sequence += 1;
        let block = buffer.bytes_mut();
        block[GROUP_HEADER_BYTES + bytes..span as usize].fill(0);
        let stored = GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + header.stored_bytes() as usize;
        // In its place: who writes these records again copies them from the ring again.
        header.close(current.key.as_ref(), &mut block[stored]);
        self.previous = header.emit(block);
        let at = current.at;
        current.at += span;
        current.end = header.end();
        current.file.write_at(at, &block[..span as usize])
    }

    /// Bytes that a group takes.
    fn span(&self, bytes: usize) -> u64 {
        let tag = if self.encrypts { TAG_BYTES } else { 0 };
        group_span((bytes + tag) as u64)
    }

    /// Makes what was written durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        self.at = current.place;
        current.file.sync()
    }

    /// The place of the last write or sync: where it failed, if it did.
    pub(super) const fn place(&self) -> usize {
        self.at
    }

    /// Whether the last group written reads back as it was; after a failure (F12).
    pub(super) fn reads_back(&self, buffer: &AlignedBuffer, bytes: usize) -> io::Result<bool> {
        let Some(current) = &self.current else { return Ok(true) };
        let span = self.span(bytes) as usize;
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

    fn start_file(&mut self, paths: &Paths<D>, first: Position) -> io::Result<Current<D::File>> {
        let place = self.at;
        paths.check_device(place)?;
        self.unprepared = false;
        let (path, mut file) = match self.free.iter().position(|(at, _)| *at == place) {
            Some(free) => {
                let (_, path) = self.free.swap_remove(free);
                (path.clone(), self.disk.open(&path)?)
            }
            None => match self.preparing.take_if(|preparing| preparing.place == place) {
                Some(preparing) => (preparing.path, preparing.file),
                None => self.create(paths.root(place))?,
            },
        };
        self.file_sequence += 1;
        let key = log::new_key(&self.disk, self.worker, self.file_sequence);
        let (key, wrapped) = key.unzip();
        let header = FileHeader {
            worker: self.worker,
            volume: self.volume,
            file_sequence: self.file_sequence,
            first,
            ring_bytes: self.ring_bytes,
            file_bytes: self.file_bytes,
            key: wrapped,
        };
        let mut block = AlignedBuffer::new(BLOCK_BYTES);
        header.emit(block.bytes_mut());
        let started = file.write_at(0, block.bytes()).and_then(|()| file.sync());
        if let Err(error) = started {
            self.hold_failed(place, &path, first, key.is_some());
            return Err(error);
        }
        let at = BLOCK_BYTES as u64;
        Ok(Current {
            place,
            path,
            file,
            sequence: self.file_sequence,
            at,
            bytes: self.file_bytes,
            end: first,
            key,
        })
    }

    fn create(&mut self, root: &Path) -> io::Result<(PathBuf, D::File)> {
        let path = log::folder(root, self.worker).join(format!("{:08}.log", self.next_name));
        self.next_name += 1;
        let file = self.disk.create(&path, self.file_bytes)?;
        Ok((path, file))
    }

    /// The current file takes no more.
    pub(super) fn close(&mut self) {
        if let Some(current) = self.current.take() {
            let Current { place, path, end, key, .. } = current;
            let keyed = key.is_some();
            self.held.push(Held { place, path, end, fits: true, suspect: false, keyed });
        }
    }

    /// A write or sync of the current file failed: that is final for it (F12). What it holds of
    /// durable records stays until they are sealed; it is never used again.
    pub(super) fn fail(&mut self) {
        if let Some(current) = self.current.take() {
            let Current { place, path, end, key, .. } = current;
            self.hold_failed(place, &path, end, key.is_some());
        }
    }

    /// The name says it to whoever comes after us, who must neither write the file again nor believe
    /// its folder. Where not even the name can be changed, nothing can be written there at all.
    fn hold_failed(&mut self, place: usize, path: &Path, end: Position, keyed: bool) {
        let failed = log::failed_name(path);
        let renamed =
            self.disk.rename(path, &failed).is_ok() || self.disk.open_read(&failed).is_ok();
        let path = if renamed { failed } else { path.to_owned() };
        self.held.push(Held { place, path, end, fits: true, suspect: true, keyed });
    }

    /// Kept under another name, for whoever looks at the disk; that may fail again.
    fn put_aside(&self, path: &Path) {
        let stem = path.file_name().and_then(|name| name.to_str()?.split('.').next());
        let name = format!("{}.suspect", stem.unwrap_or_default());
        let _ = self.disk.rename(path, &path.with_file_name(name));
    }

    /// The current file takes no more where it is in `place`, which has become something else.
    pub(super) fn leave(&mut self, place: usize) {
        if self.current.as_ref().is_some_and(|current| current.place == place) {
            self.close();
        }
    }

    /// What was found at the start could not all be read: none of it is used again.
    pub(super) fn suspect_all(&mut self) {
        self.held.iter_mut().for_each(|held| held.suspect = true);
    }

    /// Everything below `sealed` is in segments: its files return to the pool.
    pub(super) fn release(&mut self, paths: &Paths<D>, sealed: Position) {
        for held in std::mem::take(&mut self.held) {
            // A folder that is out of use is not touched; its files wait.
            if held.end > sealed || !paths.is_sound(held.place) && self.held.len() < HELD_MAX {
                self.held.push(held);
            } else {
                self.give_back(held);
            }
        }
    }

    /// To the pool, aside, or away. Its key goes first: what it opens may have to be destroyed one day,
    /// in the segments that have it now.
    fn give_back(&mut self, held: Held) {
        let reused = !held.suspect && held.fits && self.pooled(held.place) < POOL_MAX;
        let blank = !reused && !held.keyed || self.blank(&held.path, held.keyed).is_ok();
        if !blank && held.keyed && self.held.len() < HELD_MAX {
            // Final for this file (F12), but for its key: tried again with the next segment, and by whoever
            // starts next.
            self.hold_failed(held.place, &held.path, held.end, true);
        } else if held.suspect {
            self.put_aside(&held.path);
        } else if reused && blank {
            self.free.push((held.place, held.path));
        } else {
            let _ = self.disk.remove(&held.path);
        }
    }

    fn pooled(&self, place: usize) -> usize {
        self.free.iter().filter(|(at, _)| *at == place).count()
    }

    /// Takes the first block off a file, so that readers pass it by. That needs no sync: what the block
    /// says is true until the file is used again, and that begins with a synced one. The end of a key
    /// does, and has to be seen on the medium: the file may have failed.
    fn blank(&self, path: &Path, keyed: bool) -> io::Result<()> {
        let block = AlignedBuffer::new(BLOCK_BYTES);
        let mut file = self.disk.open(path)?;
        file.write_at(0, block.bytes())?;
        if !keyed {
            return Ok(());
        }
        file.sync()?;
        let mut found = AlignedBuffer::new(BLOCK_BYTES);
        found.bytes_mut().fill(1);
        self.disk.open_medium(path)?.read_at(0, found.bytes_mut())?;
        match found.bytes() == block.bytes() {
            true => Ok(()),
            false => Err(io::Error::other("a key that was overwritten is still there")),
        }
    }

    /// Prepares the next file while there is nothing better to do: makes it, then writes zeros, so
    /// that later syncs change no metadata. Returns whether there was something to do.
    pub(super) fn prepare(&mut self, paths: &Paths<D>) -> bool {
        let place = paths.choose();
        let wanted = self.current.is_some() && paths.is_sound(place) && !self.unprepared;
        if !wanted || self.pooled(place) > 0 {
            return false;
        }
        // One that was begun before its folder failed stays there: the next start finds it.
        let preparing = self.preparing.take().filter(|preparing| preparing.place == place);
        let Some(mut preparing) = preparing else {
            // A failure here shows again, and is reported, when the file is needed.
            let made = paths.check_device(place).and_then(|()| self.create(paths.root(place))).ok();
            self.preparing = made.map(|(path, file)| Preparing { place, path, file, zeroed: 0 });
            self.unprepared = self.preparing.is_none();
            return !self.unprepared;
        };
        let count = (self.file_bytes - preparing.zeroed).min(ZERO_BYTES as u64);
        let zeros = &self.zeros.bytes()[..count as usize];
        if count > 0 && preparing.file.write_at(preparing.zeroed, zeros).is_err() {
            // Final for this file too; it holds nothing yet.
            let _ = self.disk.remove(&preparing.path);
            self.unprepared = true;
            return false;
        }
        preparing.zeroed += count;
        self.preparing = Some(preparing);
        count > 0
    }
}
