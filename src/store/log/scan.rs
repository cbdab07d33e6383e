//! Finds what a worker's log holds. Accepts only groups whose header verifies and whose file
//! sequence is the file's; looks behind holes (F10) and says where they are.

use std::io;
use std::path::{Path, PathBuf};

use super::BLOCK_BYTES;
use super::file::{FILE_MAGIC, FileHeader};
use super::group::{GROUP_BYTES_MAX, GROUP_HEADER_BYTES, GroupHeader, group_span};
use crate::base::ids::{Position, WorkerId};
use crate::base::ports::{Disk, DiskFile, WrappedKey};
use crate::base::time::Wall;
use crate::store::keys::no_key;

/// How far behind the last valid group a reader looks for more: a hole is never longer than what
/// was not synced yet, one group, or one group whose header went bad.
pub const LOOK_BEHIND_BYTES: u64 = 2 * GROUP_BYTES_MAX as u64;

/// The log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk said no.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl LogError {
    /// Of a file that is encrypted and whose key is not here.
    pub fn locked(path: &Path) -> Self {
        LogError::Disk { path: path.to_owned(), source: no_key() }
    }

    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> LogError + '_ {
        move |source| LogError::Disk { path: path.to_owned(), source }
    }
}

/// A span of positions or of a file that cannot be vouched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The file, where there is one.
    pub path: PathBuf,
    /// First position.
    pub from: Position,
    /// End position, as far as it can be told.
    pub to: Position,
    /// What was found.
    pub why: String,
    /// It was durable: not a cut has taken it, but damage.
    pub durable: bool,
    /// When what stands before it was written; `None`: nothing does.
    pub since: Option<Wall>,
    /// When what stands behind it was written, or when it was known to be durable.
    pub until: Option<Wall>,
}

/// A valid group header and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Offset of its header.
    pub offset: u64,
    /// The header.
    pub header: GroupHeader,
    /// What it is encrypted under, as the file's first block says.
    pub key: Option<WrappedKey>,
}

/// One log file.
#[derive(Clone, Debug)]
pub struct FileScan {
    /// The file.
    pub path: PathBuf,
    /// Its first block; `None`: not in use.
    pub header: Option<FileHeader>,
    /// Its groups, in order.
    pub groups: Vec<Found>,
    /// Offset behind the last group.
    pub end: u64,
    /// Size of the file.
    pub file_bytes: u64,
}

/// Where the log of `worker` is.
pub fn folder(store: &Path, worker: WorkerId) -> PathBuf {
    store.join("log").join(format!("w{}", worker.0))
}

/// Workers that ever wrote a log in this store.
pub fn workers<D: Disk>(disk: &D, store: &Path) -> Result<Vec<WorkerId>, LogError> {
    let path = store.join("log");
    let names = disk.list(&path).map_err(LogError::at(&path))?;
    Ok(names.iter().filter_map(|name| name.strip_prefix('w')?.parse().ok().map(WorkerId)).collect())
}

/// Fills `out` as far as the file goes; returns the bytes read.
pub(super) fn read_up_to<F: DiskFile>(file: &F, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(offset + done as u64, &mut out[done..])? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

/// Scans one file for group headers. `look_behind`: how many bytes without a valid header end the
/// search; `u64::MAX` searches to the end. Payloads are checked by [`super::LogFile::read`].
pub fn scan_file<D: Disk>(disk: &D, path: &Path, look_behind: u64) -> Result<FileScan, LogError> {
    let fail = || LogError::at(path);
    let file = open_read(disk, path).map_err(fail())?;
    let file_bytes = file.bytes().map_err(fail())?;
    let mut head = [0; GROUP_HEADER_BYTES];
    let count = read_up_to(&file, 0, &mut head).map_err(fail())?;
    let mut scan =
        FileScan { path: path.to_owned(), header: None, groups: Vec::new(), end: 0, file_bytes };
    // A file in the pool has no first block: 128 bytes tell.
    if count < head.len() || !head.starts_with(&FILE_MAGIC) {
        return Ok(scan);
    }
    let mut block = vec![0; BLOCK_BYTES];
    read_up_to(&file, 0, &mut block).map_err(fail())?;
    scan.header = FileHeader::parse(&block);
    let Some(header) = scan.header else { return Ok(scan) };
    let mut at = BLOCK_BYTES as u64;
    scan.end = at;
    while at + GROUP_HEADER_BYTES as u64 <= file_bytes && at - scan.end <= look_behind {
        read_up_to(&file, at, &mut head).map_err(fail())?;
        match GroupHeader::parse(&head).filter(|group| belongs(group, &header)) {
            Some(group) => {
                let (path, key) = (path.to_owned(), header.key);
                scan.groups.push(Found { path, offset: at, header: group, key });
                at += group_span(group.stored_bytes());
                scan.end = at;
            }
            None => at += BLOCK_BYTES as u64,
        }
    }
    Ok(scan)
}

fn belongs(group: &GroupHeader, file: &FileHeader) -> bool {
    group.file_sequence == file.file_sequence
        && group.worker == file.worker
        && group.encrypted == file.key.is_some()
        && group.ring_bytes == file.ring_bytes
        && group.first >= file.first
}

/// How the name of a file ends that failed a write or sync (F12).
const FAILED: &str = "failed.log";

/// The name of a file that failed. What it holds of durable records is read like any other; it is
/// never written again, by nobody.
pub fn failed_name(path: &Path) -> PathBuf {
    if is_failed(path) { path.to_owned() } else { path.with_extension(FAILED) }
}

/// Whether a file has failed, by its name.
pub fn is_failed(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".failed.log")
}

/// Opens a file that was found under that name; it may have failed since.
pub(super) fn open_read<D: Disk>(disk: &D, path: &Path) -> std::io::Result<D::File> {
    disk.open_read(path).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => disk.open_read(&failed_name(path)).map_err(|_| error),
        _ => Err(error),
    })
}

/// All log files of a worker, files in use first and by their sequence, unused ones behind.
pub fn scan_worker<D: Disk>(
    disk: &D,
    store: &Path,
    worker: WorkerId,
    look_behind: u64,
) -> Result<Vec<FileScan>, LogError> {
    let folder = folder(store, worker);
    let names = disk.list(&folder).map_err(LogError::at(&folder))?;
    let mut scans = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".log")) {
        scans.push(scan_file(disk, &disk.locate(&folder.join(name)), look_behind)?);
    }
    scans.sort_by_key(|scan| scan.header.map_or(u64::MAX, |header| header.file_sequence));
    Ok(scans)
}

/// The position at which the next records of `worker` may begin: behind everything its log and its
/// segments hold. What a new ring is initialised with.
pub fn next_position<D: Disk>(
    disk: &D,
    store: &Path,
    worker: WorkerId,
) -> Result<Position, LogError> {
    let logged = scan_worker(disk, store, worker, u64::MAX)?
        .iter()
        .flat_map(|scan| &scan.groups)
        .map(|group| group.header.end())
        .max()
        .unwrap_or_default();
    let sealed = crate::store::segment::sealed_through(disk, store, worker)
        .map_err(|source| LogError::Disk { path: store.join("segments"), source })?;
    Ok(logged.max(sealed))
}
