//! The journal's files: replay, append, sync, rotation.
//!
//! Every start of control begins a new file, so no byte is ever written behind a torn tail, and a
//! file whose sync failed is never written again (F12: after a failed fsync the kernel may have
//! dropped the pages and call the next one a success).

use std::path::{Path, PathBuf};

use super::entry::Entry;
use super::frame;
use crate::base::ports::{Disk, DiskFile};

/// A file is closed and the next one begun above this.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Read in pieces of this size.
const READ_BYTES: usize = 1024 * 1024;

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
    /// A write or sync failed before; nothing more is promised until a new start.
    #[error("journal failed before: nothing more can be made durable until a new start")]
    Failed,
    /// Longer than any entry may be.
    #[error("journal entry is longer than {} bytes", frame::BODY_BYTES_MAX)]
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

/// Reads all entries below `dir` without changing anything: for verbs beside a running server. An
/// entry that is being appended at the moment shows as a torn tail.
pub fn read<D: Disk>(disk: &D, dir: &Path) -> Result<Replay, JournalError> {
    let mut replay = Replay::default();
    for (_, name) in files(disk, dir)? {
        let path = dir.join(&name);
        let bytes = read_whole(disk, &path).map_err(|source| JournalError::Io {
            action: "read",
            path,
            source,
        })?;
        replay_file(&name, &bytes, &mut replay);
    }
    Ok(replay)
}

/// Reads the entries of one file's bytes. Total: any input gives an answer.
pub fn replay_file(name: &str, bytes: &[u8], replay: &mut Replay) {
    let mut at = 0;
    while at < bytes.len() {
        if let Some((entry, size)) = frame::read(&bytes[at..]) {
            replay.entries.push(entry);
            at += size;
            continue;
        }
        let next = frame::find(bytes, at + 1);
        let to = next.unwrap_or(bytes.len());
        replay.damage.push(Damage {
            file: name.to_owned(),
            from: at as u64,
            to: to as u64,
            middle: next.is_some(),
        });
        at = to;
    }
}

/// The writer. There is one per store: the store's lock sees to that.
pub struct Journal<D: Disk> {
    disk: D,
    dir: PathBuf,
    number: u32,
    file: Option<Open<D::File>>,
    start: Option<Entry>,
    failed: bool,
}

struct Open<F> {
    file: F,
    path: PathBuf,
    bytes: u64,
}

impl<D: Disk> Journal<D> {
    /// Replays what `dir` holds and gets ready to write. `dir` must exist. The caller appends an
    /// [`Entry::Start`] next; it is repeated at the head of every file that follows.
    pub fn open(disk: D, dir: &Path) -> Result<(Self, Replay), JournalError> {
        let replay = read(&disk, dir)?;
        let number = files(&disk, dir)?.last().map_or(0, |(number, _)| *number);
        let journal =
            Journal { disk, dir: dir.to_owned(), number, file: None, start: None, failed: false };
        Ok((journal, replay))
    }

    /// Writes `entry`; durable after the next [`Journal::sync`].
    pub fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.append_all(std::slice::from_ref(entry))
    }

    /// Writes several entries by one system call; durable after the next [`Journal::sync`].
    pub fn append_all(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Failed);
        }
        let mut bytes = Vec::new();
        for entry in entries {
            if !frame::write(entry, &mut bytes) {
                return Err(JournalError::TooLong);
            }
        }
        let result = self.write(&bytes);
        self.failed = result.is_err();
        if let Some(start) = entries.iter().rfind(|entry| matches!(entry, Entry::Start { .. })) {
            self.start = Some(start.clone());
        }
        result
    }

    /// Makes all that was appended durable. After a failure nothing more is accepted.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Failed);
        }
        let Some(open) = &mut self.file else { return Ok(()) };
        open.file.sync().map_err(|source| {
            self.failed = true;
            JournalError::Io { action: "sync", path: open.path.clone(), source }
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        if self.file.as_ref().is_none_or(|open| open.bytes >= FILE_BYTES_MAX) {
            self.rotate()?;
        }
        let open = self.file.as_mut().expect("rotate leaves a file");
        open.file.write_at(open.bytes, bytes).map_err(|source| JournalError::Io {
            action: "append to",
            path: open.path.clone(),
            source,
        })?;
        open.bytes += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), JournalError> {
        if self.file.is_some() {
            self.sync()?;
        }
        let number = self.number + 1;
        let path = self.dir.join(file_name(number));
        let mut file = self.disk.create(&path, 0).map_err(|source| JournalError::Io {
            action: "create",
            path: path.clone(),
            source,
        })?;
        let mut head = Vec::new();
        if let Some(start) = &self.start {
            frame::write(start, &mut head);
            file.write_at(0, &head).map_err(|source| JournalError::Io {
                action: "append to",
                path: path.clone(),
                source,
            })?;
        }
        self.number = number;
        self.file = Some(Open { file, path, bytes: head.len() as u64 });
        Ok(())
    }
}

fn file_name(number: u32) -> String {
    format!("{number:08}.journal")
}

fn files<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<(u32, String)>, JournalError> {
    let names = disk.list(dir).map_err(|source| JournalError::Io {
        action: "list",
        path: dir.to_owned(),
        source,
    })?;
    let mut files: Vec<(u32, String)> = names
        .into_iter()
        .filter_map(|name| Some((name.strip_suffix(".journal")?.parse().ok()?, name)))
        .collect();
    files.sort_unstable();
    Ok(files)
}

fn read_whole<D: Disk>(disk: &D, path: &Path) -> std::io::Result<Vec<u8>> {
    let file = disk.open_read(path)?;
    let mut bytes = Vec::new();
    loop {
        let at = bytes.len();
        bytes.resize(at + READ_BYTES, 0);
        let got = file.read_at(at as u64, &mut bytes[at..])?;
        bytes.truncate(at + got);
        if got == 0 {
            return Ok(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::io;
    use std::rc::Rc;

    use super::*;
    use crate::base::ids::StreamId;
    use crate::base::prng::Prng;
    use crate::base::time::Wall;

    /// A disk in memory that can fail its syncs.
    #[derive(Clone, Default)]
    struct Memory(Rc<RefCell<State>>);

    #[derive(Default)]
    struct State {
        files: BTreeMap<PathBuf, Vec<u8>>,
        fail_sync: bool,
    }

    struct MemoryFile(Memory, PathBuf);

    impl Disk for Memory {
        type File = MemoryFile;
        fn create(&self, path: &Path, bytes: u64) -> io::Result<MemoryFile> {
            let files = &mut self.0.borrow_mut().files;
            if files.insert(path.to_owned(), vec![0; bytes as usize]).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Ok(MemoryFile(self.clone(), path.to_owned()))
        }
        fn open(&self, path: &Path) -> io::Result<MemoryFile> {
            Ok(MemoryFile(self.clone(), path.to_owned()))
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            let files = &mut self.0.borrow_mut().files;
            let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
            files.insert(to.to_owned(), bytes);
            Ok(())
        }
        fn open_read(&self, path: &Path) -> io::Result<MemoryFile> {
            self.open(path)
        }
        fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
            let files = &self.0.borrow().files;
            let inside = files.keys().filter(|path| path.parent() == Some(folder));
            Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.0.borrow_mut().files.remove(path);
            Ok(())
        }
    }

    impl DiskFile for MemoryFile {
        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let mut state = self.0.0.borrow_mut();
            let file = state.files.get_mut(&self.1).expect("open");
            file.resize(file.len().max(offset as usize + bytes.len()), 0);
            file[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
        fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
            let state = self.0.0.borrow();
            let file = &state.files[&self.1];
            let rest = &file[(offset as usize).min(file.len())..];
            let got = rest.len().min(out.len());
            out[..got].copy_from_slice(&rest[..got]);
            Ok(got)
        }
        fn sync(&mut self) -> io::Result<()> {
            if self.0.0.borrow().fail_sync { Err(io::Error::other("full")) } else { Ok(()) }
        }
        fn bytes(&self) -> io::Result<u64> {
            Ok(self.0.0.borrow().files[&self.1].len() as u64)
        }
    }

    fn start() -> Entry {
        Entry::Start { version: 1, volume: "v".to_owned(), at: Wall(1) }
    }

    fn ids(next: u64) -> Entry {
        Entry::StreamIds { next: StreamId(next) }
    }

    fn dir() -> &'static Path {
        Path::new("/store/journal")
    }

    #[test]
    fn what_is_appended_is_replayed_across_starts_in_order() {
        let disk = Memory::default();
        for round in 0..3 {
            let (mut journal, replay) = Journal::open(disk.clone(), dir()).expect("memory");
            assert_eq!((replay.entries.len(), replay.damage.len()), (3 * round, 0));
            journal.append(&start()).expect("memory");
            journal.append_all(&[ids(round as u64), ids(100)]).expect("memory");
            journal.sync().expect("memory");
        }
        let replay = read(&disk, dir()).expect("memory");
        assert_eq!(replay.entries[4], ids(1));
        assert_eq!(disk.list(dir()).expect("memory").len(), 3);
    }

    #[test]
    fn a_torn_tail_is_cut_and_a_damaged_middle_is_reported() {
        let disk = Memory::default();
        let (mut journal, _) = Journal::open(disk.clone(), dir()).expect("memory");
        journal.append_all(&[ids(1), ids(2), ids(3)]).expect("memory");
        let path = dir().join("00000001.journal");
        let whole = disk.0.borrow().files[&path].clone();
        let one = whole.len() / 3;
        for cut in 2 * one + 1..whole.len() {
            disk.0.borrow_mut().files.insert(path.clone(), whole[..cut].to_vec());
            let replay = read(&disk, dir()).expect("memory");
            assert_eq!(replay.entries, [ids(1), ids(2)]);
            assert!(matches!(replay.damage[..], [Damage { middle: false, .. }]));
        }
        let mut bad = whole;
        bad[one + 9] ^= 4;
        disk.0.borrow_mut().files.insert(path, bad);
        let replay = read(&disk, dir()).expect("memory");
        assert_eq!(replay.entries, [ids(1), ids(3)]);
        assert!(matches!(replay.damage[..], [Damage { middle: true, .. }]));
    }

    #[test]
    fn nothing_is_promised_after_a_failed_sync() {
        let disk = Memory::default();
        let (mut journal, _) = Journal::open(disk.clone(), dir()).expect("memory");
        journal.append(&start()).expect("memory");
        disk.0.borrow_mut().fail_sync = true;
        assert!(matches!(journal.sync(), Err(JournalError::Io { .. })));
        disk.0.borrow_mut().fail_sync = false;
        assert!(matches!(journal.sync(), Err(JournalError::Failed)));
        assert!(matches!(journal.append(&start()), Err(JournalError::Failed)));
    }

    #[test]
    fn a_new_file_begins_with_the_start_entry() {
        let disk = Memory::default();
        let (mut journal, _) = Journal::open(disk.clone(), dir()).expect("memory");
        journal.append(&start()).expect("memory");
        journal.file.as_mut().expect("written").bytes = FILE_BYTES_MAX;
        journal.append(&ids(9)).expect("memory");
        let bytes = disk.0.borrow().files[&dir().join("00000002.journal")].clone();
        let mut replay = Replay::default();
        replay_file("2", &bytes, &mut replay);
        assert_eq!(replay.entries, [start(), ids(9)]);
    }

    #[test]
    fn any_mutation_gives_an_answer() {
        let mut whole = Vec::new();
        for next in 0..20 {
            frame::write(&ids(next), &mut whole);
        }
        for seed in 0..2_000 {
            let mut prng = Prng::new(seed);
            let mut bytes = whole.clone();
            for _ in 0..1 + prng.below(8) {
                let at = prng.below(bytes.len() as u64) as usize;
                bytes[at] = prng.next_u64() as u8;
            }
            bytes.truncate(prng.below(bytes.len() as u64 + 1) as usize);
            let mut replay = Replay::default();
            replay_file("x", &bytes, &mut replay);
            assert!(replay.entries.len() <= 20, "seed {seed}");
        }
    }
}
