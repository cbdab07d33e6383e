//! Appends to the trail. Each append begins with a look at the end of the trail as the disk has it, since
//! the last one may have been another process's that was killed, or whose sync failed.

use std::path::{Path, PathBuf};

use super::entry::{Act, BODY_BYTES_MAX, Entry, Head, Who, action};
use super::read::Ending;
use super::{AuditError, folder};
use crate::base::ports::{Disk, DiskFile};
use crate::store::journal::frame;
use crate::store::journal::{numbered, read_file, read_whole};

/// A file is closed and the next one begun above this: each append reads the last one, some 3,000 entries.
const FILE_BYTES: u64 = 1024 * 1024;

/// The writer. The caller sees to it that there is one at a time.
pub struct Writer<D: Disk> {
    disk: D,
    folder: PathBuf,
    volume: String,
    file_bytes: u64,
}

/// Where the next entry goes.
struct Place {
    head: Head,
    /// Number of the newest file, 0 where there is none.
    newest: u32,
    /// That file and its size, where it may be appended to.
    open: Option<u64>,
    /// Frames that are known and perhaps not on the disk: to be said again in a new file.
    unsure: Vec<Vec<u8>>,
}

impl<D: Disk> Writer<D> {
    /// A writer of the trail of `store`, whose volume id is `volume`: what a new trail begins with.
    pub fn new(disk: D, store: &Path, volume: &str) -> Self {
        Writer { disk, folder: folder(store), volume: volume.to_owned(), file_bytes: FILE_BYTES }
    }

    /// Closes files above this size.
    #[cfg(test)]
    pub(crate) const fn set_file_bytes(&mut self, bytes: u64) {
        self.file_bytes = bytes;
    }

    /// The newest entry, where it is known to be durable; number 0 where there is none.
    pub fn head(&self) -> Result<Option<Head>, AuditError> {
        let place = self.place(&self.files()?)?;
        Ok(place.unsure.is_empty().then_some(place.head))
    }

    /// Records `act`; durable when it returns, as everything before it is.
    pub fn append(&mut self, act: Act) -> Result<Entry, AuditError> {
        self.append_all(vec![act]).map(|mut entries| entries.pop().expect("one act was given"))
    }

    /// The same for several, at once and in this order.
    pub fn append_all(&mut self, mut acts: Vec<Act>) -> Result<Vec<Entry>, AuditError> {
        let files = self.files()?;
        let place = self.place(&files)?;
        let mut head = place.head;
        let mut frames = place.unsure;
        let is_begun = head.number > 0;
        if let Some(first) = acts.first().filter(|_| !is_begun) {
            let who = Who { role: "server".to_owned(), ..first.who.clone() };
            acts.insert(0, Act::new(first.at, who, action::BEGUN, self.volume.clone()));
        }
        let mut entries = Vec::with_capacity(acts.len());
        for act in acts {
            let entry = Entry::behind(&head, act);
            let mut bytes = Vec::new();
            let fits = frame::write(&entry, &mut bytes);
            let body = bytes.get(frame::HEAD_BYTES..).unwrap_or_default();
            if !fits || body.len() > BODY_BYTES_MAX {
                return Err(AuditError::TooLong { bytes: body.len() });
            }
            head = Head::of(entry.number, body);
            frames.push(bytes);
            entries.push(entry);
        }
        match place.open.filter(|size| *size < self.file_bytes) {
            Some(size) => {
                let path = self.path(place.newest);
                let file = self.disk.open(&path).map_err(AuditError::at("open", &path))?;
                write(file, &path, size, &frames)?;
            }
            None => {
                let path = self.path(place.newest + 1);
                let file = self.disk.create(&path, 0).map_err(AuditError::at("make", &path))?;
                write(file, &path, 0, &frames)?;
            }
        }
        if !is_begun {
            entries.remove(0);
        }
        Ok(entries)
    }

    fn files(&self) -> Result<Vec<(u32, String)>, AuditError> {
        Ok(numbered(&self.disk, &self.folder, ".audit")?)
    }

    /// The end of the trail. Whoever wrote it may have been killed before its sync, or its sync may have
    /// failed, which is told to nobody again: what the medium holds is looked at (F12).
    fn place(&self, files: &[(u32, String)]) -> Result<Place, AuditError> {
        let newest = files.last().map_or(0, |(number, _)| *number);
        let mut place = Place { head: Head::default(), newest, open: None, unsure: Vec::new() };
        for (turn, (_, name)) in files.iter().rev().enumerate() {
            let path = self.folder.join(name);
            let bytes = read_whole(&self.disk, &path).map_err(AuditError::at("read", &path))?;
            let ending = Ending::of(&bytes);
            if turn == 0 {
                let synced = self.disk.open_read(&path).and_then(|mut file| file.sync());
                let stored = synced.and_then(|()| read_file(&self.disk.open_medium(&path)?));
                if !stored.as_ref().is_ok_and(|stored| *stored == bytes) {
                    let stored = stored.unwrap_or_default();
                    let sure = stored.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
                    let frames = ending.frames.iter().filter(|(_, frame)| frame.end > sure);
                    place.unsure = frames.map(|(_, frame)| bytes[frame.clone()].to_vec()).collect();
                } else if ending.whole
                    && self.disk.may_append(&path).map_err(AuditError::at("read", &path))?
                {
                    place.open = Some(bytes.len() as u64);
                }
            }
            if let Some((head, _)) = ending.frames.last() {
                place.head = *head;
                return Ok(place);
            }
        }
        Ok(place)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{number:08}.audit"))
    }
}

/// Writes frames from byte `at` on, each durable before the next: of a file that a power cut has torn only the
/// last one is lost, and never one with another behind it.
fn write(
    mut file: impl DiskFile,
    path: &Path,
    mut at: u64,
    frames: &[Vec<u8>],
) -> Result<(), AuditError> {
    for frame in frames {
        file.write_at(at, frame).map_err(AuditError::at("append to", path))?;
        file.sync().map_err(AuditError::at("sync", path))?;
        at += frame.len() as u64;
    }
    Ok(())
}
