//! What journal files say, read without changing anything: by verbs beside a running server, and by
//! whoever is about to write on.

use std::path::{Path, PathBuf};

use super::compaction::stands_for_all_before;
use super::entry::Entry;
use super::standing::{Standings, written};
use super::{frame, history, snapshot};
use crate::base::ports::{Disk, DiskFile};
use crate::base::time::Wall;
use crate::store::log::{Marks, learn_marks};

/// Read in pieces of this size.
const READ_BYTES: usize = 1024 * 1024;
/// Files move into the history minutes apart: a reader meets that once.
const READS_MAX: u32 = 8;
/// Where the first entry of a file is: it is some 150 bytes long.
pub(super) const HEAD_BYTES: usize = 4_096;

/// Why the journal cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refused.
    #[error("journal {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A write or sync failed before; nothing more is promised until a folder works again.
    #[error("journal failed before: nothing more can be made durable until a folder works again")]
    Failed,
    /// A file is not what the one behind it says.
    #[error("journal file {number} {why}")]
    Altered {
        /// Its number.
        number: u32,
        /// What is wrong with it.
        why: String,
    },
    /// Longer than any entry may be, or more than is kept while no folder works.
    #[error("journal entry is longer than {} bytes, or too much waits", frame::BODY_BYTES_MAX)]
    TooLong,
}

/// Bytes of a file that are no entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// File name.
    pub file: String,
    /// First byte.
    pub from: u64,
    /// Byte behind the last.
    pub to: u64,
    /// True: entries follow, so something was damaged. False: the end of the file, as a power cut
    /// leaves it; nothing that was synced is in it.
    pub middle: bool,
}

/// What all files hold, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    /// The entries.
    pub entries: Vec<Entry>,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

/// Reads all entries below `dir`, and of recordings that are over below `past`, without changing
/// anything: for verbs beside a running server. An entry that is being appended at the moment shows
/// as a torn tail.
pub fn read<D: Disk>(disk: &D, dir: &Path, past: &Path) -> Result<Replay, JournalError> {
    unmoved(|| read_once(disk, dir, past))
}

/// As [`read`], without the history: all that there is of recordings that run, because nothing of one is
/// moved before it is over; of the others what has not been moved yet.
pub fn read_standing<D: Disk>(disk: &D, dir: &Path) -> Result<Replay, JournalError> {
    unmoved(|| read_files(disk, dir))
}

fn unmoved(read: impl Fn() -> Result<Replay, JournalError>) -> Result<Replay, JournalError> {
    let mut tries = 0;
    loop {
        match read() {
            // Moved into the history since it was listed.
            Err(JournalError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && tries < READS_MAX =>
            {
                tries += 1;
            }
            result => return result,
        }
    }
}

/// Same, and all that is read is durable: the newest file may hold what its writer has yet to sync,
/// and all others were synced before it was begun.
pub fn read_durable<D: Disk>(disk: &D, dir: &Path, past: &Path) -> Result<Replay, JournalError> {
    let replay = read(disk, dir, past)?;
    if let Some((_, name)) = numbered(disk, dir, ".journal")?.pop() {
        let path = dir.join(name);
        disk.open_read(&path).and_then(|mut file| file.sync()).map_err(at("sync", &path))?;
    }
    Ok(replay)
}

/// What the journal's own files hold.
fn read_files<D: Disk>(disk: &D, dir: &Path) -> Result<Replay, JournalError> {
    let mut journal = Replay::default();
    for (_, name) in numbered(disk, dir, ".journal")? {
        let path = dir.join(&name);
        let bytes = read_whole(disk, &path).map_err(at("read", &path))?;
        let mut own = Replay::default();
        replay_file(&name, &bytes, &mut own);
        if own.entries.first().is_some_and(stands_for_all_before) {
            journal = Replay::default();
        }
        journal.entries.append(&mut own.entries);
        journal.damage.append(&mut own.damage);
    }
    Ok(journal)
}

fn read_once<D: Disk>(disk: &D, dir: &Path, past: &Path) -> Result<Replay, JournalError> {
    let mut journal = read_files(disk, dir)?;
    // Behind the files: what they no longer hold was in the history before it left them.
    let mut replay = Replay::default();
    replay.damage = history::read_all(disk, past, |entry| replay.entries.push(entry))?;
    replay.entries.append(&mut journal.entries);
    replay.damage.append(&mut journal.damage);
    // Their entries have moved on; what is damaged in them is told as long as they are there.
    for name in disk.list(dir).map_err(at("list", dir))? {
        if name.ends_with(".journal.damaged") {
            let path = dir.join(&name);
            let bytes = read_whole(disk, &path).map_err(at("read", &path))?;
            replay.damage.extend(walk(&name, &bytes, 0, |_| ()));
        }
    }
    Ok(replay)
}

/// Reads the entries of one file's bytes. Total: any input gives an answer.
pub fn replay_file(name: &str, bytes: &[u8], replay: &mut Replay) {
    replay.damage.extend(walk(name, bytes, 0, |entry| replay.entries.push(entry)));
}

/// Shows each entry from byte `from` on to `learn`; the damage between them.
pub(super) fn walk(
    name: &str,
    bytes: &[u8],
    from: usize,
    mut learn: impl FnMut(Entry),
) -> Vec<Damage> {
    let mut all = Vec::new();
    let mut at = from;
    while at < bytes.len() {
        if let Some((entry, size)) = frame::read(&bytes[at..]) {
            learn(entry);
            at += size;
            continue;
        }
        let next = frame::find(bytes, at + 1);
        let to = next.unwrap_or(bytes.len());
        all.push(Damage {
            file: name.to_owned(),
            from: at as u64,
            to: to as u64,
            middle: next.is_some(),
        });
        at = to;
    }
    all
}

/// When what stands before damage was written, and what stands behind it, as far as entries of the same file
/// say; of a file that has moved on nothing is known.
pub fn times_around<D: Disk>(
    disk: &D,
    dir: &Path,
    damage: &Damage,
) -> (Option<Wall>, Option<Wall>) {
    let Ok(bytes) = read_whole(disk, &dir.join(&damage.file)) else { return (None, None) };
    let (mut since, mut until) = (None, None);
    let mut at = 0;
    while at < bytes.len() {
        let Some((entry, size)) = frame::read::<Entry>(&bytes[at..]) else {
            at = frame::find(&bytes, at + 1).unwrap_or(bytes.len());
            continue;
        };
        let time = written(&entry);
        if (at as u64) < damage.from {
            since = time.or(since);
        } else if let Some(time) = time {
            until = Some(time);
            break;
        }
        at += size;
    }
    (since, until)
}

/// The frames of a file without what is between them.
pub(super) fn whole_frames(bytes: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if let Some((_, size)) = frame::read::<Entry>(&bytes[at..]) {
            frames.extend_from_slice(&bytes[at..at + size]);
            at += size;
        } else {
            at = frame::find(bytes, at + 1).unwrap_or(bytes.len());
        }
    }
    frames
}

pub(super) fn at<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> JournalError + use<'a> {
    move |source| JournalError::Io { action, path: path.to_owned(), source }
}

pub(super) fn file_name(number: u32) -> String {
    format!("{number:08}.journal")
}

pub(super) fn snapshot_name(through: u32) -> String {
    format!("{through:08}.snapshot")
}

pub(super) fn snapshot_number(name: &str) -> Option<u32> {
    name.strip_suffix(".snapshot")?.parse().ok()
}

/// The newest snapshot that is whole, and its bytes; nothing through file 0 where there is none.
pub(super) fn newest_snapshot<D: Disk>(
    disk: &D,
    dir: &Path,
) -> Result<(u32, u64, Standings), JournalError> {
    let names = disk.list(dir).map_err(at("list", dir))?;
    let mut known: Vec<_> =
        names.into_iter().filter_map(|name| Some((snapshot_number(&name)?, name))).collect();
    known.sort_unstable();
    for (number, name) in known.into_iter().rev() {
        // One that cannot be read is not there: the journal says it all.
        let Ok(bytes) = read_whole(disk, &dir.join(name)) else { continue };
        if let Some((through, standings)) = snapshot::read(&bytes)
            && through == number
        {
            return Ok((through, bytes.len() as u64, standings));
        }
    }
    Ok((0, 0, Standings::default()))
}

/// The snapshots in `dir` that are not whole. Nothing is lost with one: the journal says it all.
pub fn broken_snapshots<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<String>, JournalError> {
    let names = disk.list(dir).map_err(at("list", dir))?;
    let is_broken = |name: &String| {
        let Some(number) = snapshot_number(name) else { return false };
        match read_whole(disk, &dir.join(name)) {
            // One of a version before is not read, and nothing is wrong with it.
            Ok(bytes) if snapshot::is_older(&bytes) => false,
            Ok(bytes) => snapshot::read(&bytes).is_none_or(|(through, _)| through != number),
            // Whoever writes the journal has made a later one.
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    };
    Ok(names.into_iter().filter(is_broken).collect())
}

/// How far the logs were durable, as the journal in `dir` says: for those who begin where a log ends.
pub fn marks<D: Disk>(disk: &D, dir: &Path) -> Result<Marks, JournalError> {
    let (through, _, standings) = newest_snapshot(disk, dir)?;
    let mut marks = standings.marks;
    let files = numbered(disk, dir, ".journal")?.into_iter();
    for (_, name) in files.filter(|(number, _)| *number > through) {
        let path = dir.join(&name);
        let bytes = read_whole(disk, &path).map_err(at("read", &path))?;
        walk(&name, &bytes, 0, |entry| {
            if let Entry::Durable { marks: news, .. } = entry {
                learn_marks(&mut marks, &news);
            }
        });
    }
    Ok(marks)
}

/// The first file in `dir` that was not written for the store `volume`, with the id of the one that
/// it was written for. Entries of two stores must never be mixed: both use the same stream ids.
pub fn foreign<D: Disk>(
    disk: &D,
    dir: &Path,
    volume: &str,
) -> Result<Option<(PathBuf, String)>, JournalError> {
    for (_, name) in numbered(disk, dir, ".journal")? {
        let path = dir.join(&name);
        let mut head = [0; HEAD_BYTES];
        let got = disk.open_read(&path).and_then(|file| file.read_at(0, &mut head));
        let got = got.map_err(at("read", &path))?;
        if let Some((Entry::Start { volume: found, .. }, _)) = frame::read(&head[..got])
            && found != volume
        {
            return Ok(Some((path, found)));
        }
    }
    let names = disk.list(dir).map_err(at("list", dir))?;
    for name in names.iter().filter(|name| snapshot_number(name).is_some()) {
        let path = dir.join(name);
        // One that cannot be read is not there: the journal says it all.
        let found = disk.open_read(&path).ok().and_then(|file| snapshot_of(&file));
        if let Some(found) = found.filter(|found| found != volume) {
            return Ok(Some((path, found)));
        }
    }
    Ok(None)
}

/// Whether the newest file in `dir` that says anything says what was before it: heads of the store were signed
/// before it was begun.
pub fn is_signed<D: Disk>(disk: &D, dir: &Path) -> Result<bool, JournalError> {
    for (_, name) in numbered(disk, dir, ".journal")?.into_iter().rev() {
        let path = dir.join(&name);
        let mut head = [0; HEAD_BYTES];
        let got = disk.open_read(&path).and_then(|file| file.read_at(0, &mut head));
        let got = got.map_err(at("read", &path))?;
        if let Some((Entry::Start { before, .. }, _)) = frame::read(&head[..got]) {
            return Ok(before.is_some());
        }
    }
    Ok(false)
}

/// The store that a snapshot was made for, by its head alone.
fn snapshot_of(file: &impl DiskFile) -> Option<String> {
    let mut bytes = vec![0; frame::HEAD_BYTES];
    let mut done = 0;
    loop {
        while done < bytes.len() {
            match file.read_at(done as u64, &mut bytes[done..]).ok()? {
                0 => return None,
                count => done += count,
            }
        }
        if done > frame::HEAD_BYTES {
            return snapshot::volume(&bytes);
        }
        let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
        (1..=frame::BODY_BYTES_MAX).contains(&length).then_some(())?;
        bytes.resize(frame::HEAD_BYTES + length, 0);
    }
}

/// Whether a folder holds any file of a journal.
pub fn holds_any<D: Disk>(disk: &D, dir: &Path) -> std::io::Result<bool> {
    let names = disk.list(dir)?;
    Ok(names.iter().any(|name| name.ends_with(".journal") || name.ends_with(".snapshot")))
}

/// Files below `dir` whose names are a number and `suffix`, in the order of their numbers.
pub(in crate::store) fn numbered<D: Disk>(
    disk: &D,
    dir: &Path,
    suffix: &str,
) -> Result<Vec<(u32, String)>, JournalError> {
    let names = disk.list(dir).map_err(at("list", dir))?;
    let mut files: Vec<(u32, String)> = names
        .into_iter()
        .filter_map(|name| Some((name.strip_suffix(suffix)?.parse().ok()?, name)))
        .collect();
    files.sort_unstable();
    Ok(files)
}

pub(in crate::store) fn read_whole<D: Disk>(disk: &D, path: &Path) -> std::io::Result<Vec<u8>> {
    read_file(&disk.open_read(path)?)
}

/// No writer of ours leaves a hole that no frame could span.
const HOLE_BYTES: u64 = 2 * frame::BODY_BYTES_MAX as u64;
/// So much of what is behind the last written byte is read all the same: that something follows shows by it.
const BEHIND_BYTES: u64 = 4_096;

/// Up to where a file is read: what somebody made it longer by without writing anything is not, however long
/// that is. [`unwritten`] tells of it.
fn read_end(file: &impl DiskFile) -> std::io::Result<Option<u64>> {
    let (written, bytes) = (file.written(HOLE_BYTES)?, file.bytes()?);
    // One that is being written grows.
    Ok((written < bytes).then(|| bytes.min(written + BEHIND_BYTES)))
}

pub(in crate::store) fn read_file(file: &impl DiskFile) -> std::io::Result<Vec<u8>> {
    let end = read_end(file)?.map_or(usize::MAX, |end| end as usize);
    // A byte more than there are now shows the end; one that is being written grows.
    let mut bytes = Vec::with_capacity(end.min(file.bytes()? as usize + 1));
    loop {
        let at = bytes.len();
        if at >= end {
            return Ok(bytes);
        }
        if at == bytes.capacity() {
            bytes.reserve(READ_BYTES);
        }
        bytes.resize(bytes.capacity().min(end), 0);
        let got = file.read_at(at as u64, &mut bytes[at..])?;
        bytes.truncate(at + got);
        if got == 0 {
            return Ok(bytes);
        }
    }
}

/// Files of the journal, the history or the audit trail in `folder` that are longer than what was written in
/// them: name, last written byte, length.
pub fn unwritten<D: Disk>(
    disk: &D,
    folder: &Path,
) -> Result<Vec<(String, u64, u64)>, JournalError> {
    let mut longer = Vec::new();
    for name in disk.list(folder).map_err(at("list", folder))? {
        if ![".journal", super::history::SUFFIX, ".audit", ".snapshot"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            continue;
        }
        let file = match disk.open_read(&folder.join(&name)) {
            Ok(file) => file,
            // What cannot be opened, or has moved on, is told by whoever reads it.
            Err(_) => continue,
        };
        let sizes = file.written(HOLE_BYTES).and_then(|written| Ok((written, file.bytes()?)));
        let (written, bytes) = sizes.map_err(at("read", folder))?;
        if written < bytes {
            longer.push((name, written, bytes));
        }
    }
    Ok(longer)
}
