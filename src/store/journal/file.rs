//! The journal's files: append, sync, rotation, and the snapshot that a start begins with.
//!
//! Every start of control begins a new file, so no byte is ever written behind a torn tail, and a
//! file whose sync failed is never written again (F12: after a failed fsync the kernel may have
//! dropped the pages and call the next one a success).

use std::path::{Path, PathBuf};

use super::chain::{Before, Chained, Signer};
use super::compaction::{Compaction, stands_for_all_before};
use super::entry::Entry;
use super::frame;
use super::read::{
    Damage, JournalError, at, file_name, newest_snapshot, numbered, read, read_file, read_whole,
    walk, whole_frames,
};
use super::snapshotting::{Snapshotting, Written};
use super::standing::Standings;
use crate::base::ports::{Disk, DiskFile};
use crate::store::evidence::{Digest, FileMark, Hex};

/// A file is closed and the next one begun above this, so that a snapshot may stand for it: a start
/// reads what is behind the last snapshot, some 10 ms a MiB. More where the snapshot is more than
/// half of that: then writing it costs no more than the journal itself.
pub const FILE_BYTES_MIN: u64 = 2 * 1024 * 1024;
/// A file never grows above this.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What is written at once of a file that is written whole.
const PIECE_BYTES: usize = 512 * 1024;
/// Kept in memory while no folder works. New RSs and changes are refused then: what comes are ends
/// of RSs, some 300 bytes each and a body of at most 2 MiB.
const UNSYNCED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The writer. There is one per store: the store's lock sees to that.
///
/// A failed file is final. What was appended and not synced is kept in memory and written again by
/// [`Journal::revive`], at once or when a folder works again (F19).
pub struct Journal<D: Disk> {
    disk: D,
    /// The journal's own folder, then the spare one.
    folders: Vec<Folder>,
    /// Which of them the file is in.
    place: usize,
    number: u32,
    file: Option<Open<D::File>>,
    start: Option<Entry>,
    /// Frames appended since the last sync that succeeded.
    unsynced: Vec<u8>,
    failed: bool,
    /// What stands of all entries, those included that are not durable yet.
    standings: Standings,
    /// The last file that a snapshot stands for, or that one was tried for.
    through: u32,
    snapshot_bytes: u64,
    /// The folder of what is over, and the one above it.
    history: PathBuf,
    store: Folder,
    /// The two newest snapshots, older one first, once a second one was written here.
    snapshots: Option<[u32; 2]>,
    /// [`FILE_BYTES_MIN`] and [`FILE_BYTES_MAX`], but in tests.
    file_bytes: (u64, u64),
    /// Chains the files; `None`: they are not chained.
    signer: Option<Signer>,
    /// What the next file says of those before it.
    before: Before,
    /// Behind the last seal of the file stands something that is not sealed.
    unsealed: bool,
    /// What is over in files through this one is to go into the history as soon as it can.
    turned: Option<u32>,
}

/// A folder, and the file system that it was on.
#[derive(Clone)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) device: String,
}

impl Folder {
    fn of<D: Disk>(disk: &D, path: &Path) -> Result<Self, JournalError> {
        let device = disk.device(path).map_err(at("look at", path))?;
        Ok(Folder { path: path.to_owned(), device })
    }
}

struct Open<F> {
    file: F,
    path: PathBuf,
    bytes: u64,
    /// Over these bytes.
    digest: Digest,
    /// How much of them a sync has made durable, and its hash.
    synced: FileMark,
}

impl<F> Open<F> {
    /// A file that is there and empty.
    fn new(file: F, path: PathBuf, number: u32) -> Self {
        let synced = FileMark::of(number, &[]);
        Open { file, path, bytes: 0, digest: Digest::new(), synced }
    }

    fn took(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn is_synced(&mut self) {
        let (number, bytes) = (self.synced.number, self.bytes);
        if self.synced.bytes != bytes {
            let sha256 = Hex(self.digest.clone().finish());
            self.synced = FileMark { number, bytes, sha256 };
        }
    }
}

impl<D: Disk> Journal<D> {
    /// Learns what stands from the newest snapshot and the files behind it, and gets ready to write.
    /// `dir` must exist, and the folder in which `past` is: what is over goes there. The caller
    /// appends an [`Entry::Start`] next; it is repeated at the head of every file that follows. Also
    /// what could not be read of those files.
    pub fn open(disk: D, dir: &Path, past: &Path) -> Result<(Self, Vec<Damage>), JournalError> {
        let files = numbered(&disk, dir, ".journal")?;
        let (through, bytes, mut standings) = newest_snapshot(&disk, dir)?;
        let mut damage = Vec::new();
        let mut whole = through == 0;
        for (_, name) in files.iter().filter(|(number, _)| *number > through) {
            if whole {
                break;
            }
            let path = dir.join(name);
            let bytes = read_whole(&disk, &path).map_err(at("read", &path))?;
            let mut first = true;
            damage.extend(walk(name, &bytes, 0, |entry| {
                // A snapshot older than the two that stand for the files before this one.
                whole |= std::mem::take(&mut first) && stands_for_all_before(&entry);
                standings.learn(&entry);
            }));
        }
        if whole {
            let replay = read(&disk, dir, past)?;
            standings = Standings::of(&replay.entries);
            damage = replay.damage;
        }
        let store = Folder::of(&disk, past.parent().unwrap_or(past))?;
        let mut journal = Journal {
            disk,
            folders: Vec::new(),
            place: 0,
            number: files.last().map_or(0, |(number, _)| *number),
            file: None,
            start: None,
            unsynced: Vec::new(),
            failed: false,
            standings,
            through,
            snapshot_bytes: bytes,
            history: past.to_owned(),
            store,
            snapshots: None,
            file_bytes: (FILE_BYTES_MIN, FILE_BYTES_MAX),
            signer: None,
            before: Before::default(),
            unsealed: false,
            turned: None,
        };
        journal.add_folder(dir)?;
        journal.settle_last()?;
        // What is behind a snapshot must never be taken for something before it.
        journal.number = journal.number.max(through);
        Ok((journal, damage))
    }

    /// Closes files above this size, whatever the snapshot's.
    #[cfg(test)]
    pub(crate) const fn set_file_bytes(&mut self, bytes: u64) {
        self.file_bytes = (bytes, bytes);
    }

    /// Chains what is written from now on, signed by `signer`. Asked before anything is appended.
    pub fn sign_by(&mut self, signer: Signer) {
        self.signer = Some(signer);
    }

    /// How far the newest file is durable; `None` where there is none.
    pub fn head(&self) -> Option<FileMark> {
        let open = self.file.as_ref().map(|open| open.synced).filter(|mark| mark.bytes > 0);
        open.or_else(|| self.before.previous.last().copied())
    }

    /// Whether entries stand behind the last seal.
    pub const fn is_unsealed(&self) -> bool {
        self.unsealed && !self.failed
    }

    /// Seals them; durable after the next [`Journal::sync`].
    pub fn seal(&mut self) -> Result<(), JournalError> {
        if self.signer.is_none() || !self.is_unsealed() {
            return Ok(());
        }
        self.append(&Entry::Durable { marks: Vec::new(), seal: None })
    }

    /// What stands of all entries so far.
    pub const fn standings(&self) -> &Standings {
        &self.standings
    }

    /// Leaves out what nobody asks for any more; a snapshot does so too, but there is one for each file
    /// only.
    pub fn forget(&mut self) {
        self.standings.forget();
    }

    /// Learns what stands from the entries alone: a snapshot may say more than the files that it stands
    /// for, and what is in none is known to no reader. What was durable is missed all the same.
    pub fn relearn(&mut self) -> Result<(), JournalError> {
        let replay = read(&self.disk, &self.folders[0].path, &self.history)?;
        let marks = std::mem::take(&mut self.standings.marks);
        self.standings = Standings::of(&replay.entries);
        self.standings.learn(&Entry::Durable { marks: marks.into_values().collect(), seal: None });
        Ok(())
    }

    /// Whether there are files that a start would read and a new snapshot would spare it. Asked
    /// behind a sync: only what is durable may stand in one.
    pub fn wants_snapshot(&self) -> bool {
        let current = u32::from(self.file.is_some());
        !self.failed && self.unsynced.is_empty() && self.through + current < self.number
    }

    /// A snapshot of all that is durable, to be written beside the journal's work and one at a time;
    /// `None` where none is wanted. What becomes of it is for [`Self::take_snapshot`].
    pub fn begin_snapshot(&mut self) -> Option<Snapshotting<D>>
    where
        D: Clone,
    {
        if !self.wants_snapshot() {
            return None;
        }
        // Tried once for each file, whatever comes of it.
        self.through = self.number - u32::from(self.file.is_some());
        self.standings.forget();
        Some(Snapshotting {
            disk: self.disk.clone(),
            folders: self.folders.clone(),
            place: self.place,
            through: self.through,
            standings: self.standings.clone(),
        })
    }

    /// It is written.
    pub fn take_snapshot(&mut self, written: &Written) {
        self.snapshot_bytes = written.bytes;
        self.snapshots = written.two;
    }

    /// All of that at once.
    #[cfg(test)]
    pub(crate) fn snapshot(&mut self) -> Result<(), JournalError>
    where
        D: Clone,
    {
        if let Some(snapshotting) = self.begin_snapshot() {
            self.take_snapshot(&snapshotting.run()?);
        }
        Ok(())
    }

    /// Closes the file, however short it is, so that what is over in it can go into the history: behind
    /// the second snapshot from now on. For whoever waits for that to take the words out.
    pub fn turn_over(&mut self) -> Result<(), JournalError> {
        if self.failed || self.file.is_none() {
            return Ok(());
        }
        self.turned.get_or_insert(self.number);
        let result = self.rotate();
        self.fail_on(result)
    }

    /// What could go into the history now, to be done beside the journal's work and one at a time.
    /// Behind two snapshots: files of which no start reads anything, even where the newest is bad.
    pub fn compaction(&mut self) -> Option<Compaction<D>>
    where
        D: Clone,
    {
        let snapshots = self.snapshots.filter(|_| !self.failed)?;
        let wanted = self.turned.take_if(|turned| *turned <= snapshots[0]).is_some();
        Some(Compaction {
            disk: self.disk.clone(),
            dir: self.folders[0].path.clone(),
            folders: self.folders.clone(),
            history: self.history.clone(),
            store: self.store.clone(),
            snapshots,
            standing: self.standings.recordings.keys().copied().collect(),
            file_bytes: self.file_bytes.0,
            wanted,
            signer: self.signer.clone(),
        })
    }

    /// Makes the newest file durable, before anybody relies on what was read of it: its writer may
    /// have been killed between append and sync, and the kernel still knows what the disk does not.
    /// All older files were synced, at rotation or here. A sync that failed before we came is told to
    /// nobody again, so what the medium holds is looked at as well. Where it is not what was read, that
    /// is said again in a new file, and the journal has failed until then (F12).
    fn settle_last(&mut self) -> Result<(), JournalError> {
        let dir = &self.folders[0].path;
        if self.number == 0 {
            return Ok(());
        }
        let path = dir.join(file_name(self.number));
        let synced = self.disk.open_read(&path).and_then(|mut file| file.sync());
        let read = read_whole(&self.disk, &path).map_err(at("read", &path))?;
        let stored = synced.and_then(|()| read_file(&self.disk.open_medium(&path)?));
        let same = match &stored {
            Ok(stored) => read.iter().zip(stored).take_while(|(one, other)| one == other).count(),
            Err(_) => 0,
        };
        if !stored.is_ok_and(|stored| stored == read) {
            self.unsynced = whole_frames(&read);
            self.failed = true;
        }
        let durable = if self.failed { same } else { read.len() };
        self.before.previous = vec![FileMark::of(self.number, &read[..durable])];
        self.link_back(&read[..durable])
    }

    /// A file whose own first entry is not there names none before it: the next one does.
    fn link_back(&mut self, newest: &[u8]) -> Result<(), JournalError> {
        let has_first = |bytes: &[u8]| frame::read::<Entry>(bytes).is_some();
        if has_first(newest) {
            return Ok(());
        }
        let files = numbered(&self.disk, &self.folders[0].path, ".journal")?;
        for (number, name) in files.into_iter().rev().filter(|(number, _)| *number < self.number) {
            let path = self.folders[0].path.join(name);
            let bytes = read_whole(&self.disk, &path).map_err(at("read", &path))?;
            self.before.previous.insert(0, FileMark::of(number, &bytes));
            if has_first(&bytes) {
                break;
            }
        }
        Ok(())
    }

    /// A folder to go on in when the others fail; it must exist, and `disk` must list it together
    /// with the first.
    pub fn add_folder(&mut self, dir: &Path) -> Result<(), JournalError> {
        self.folders.push(Folder::of(&self.disk, dir)?);
        Ok(())
    }

    /// Whether nothing can be made durable until [`Journal::revive`] succeeds.
    pub const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Writes `entry`; durable after the next [`Journal::sync`].
    pub fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.append_all(std::slice::from_ref(entry))
    }

    /// Writes several entries by one system call; durable after the next [`Journal::sync`]. After
    /// a failure they are kept in memory, to be written by [`Journal::revive`].
    pub fn append_all(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        for entry in entries {
            if !frame::write(entry, &mut bytes) {
                return Err(JournalError::TooLong);
            }
        }
        if self.failed && self.unsynced.len() + bytes.len() > UNSYNCED_BYTES_MAX {
            return Err(JournalError::TooLong);
        }
        entries.iter().for_each(|entry| self.standings.learn(entry));
        // The head of the file that this makes repeats the start before this one, if any.
        let result =
            if self.failed { Err(JournalError::Failed) } else { self.write(entries, &mut bytes) };
        self.unsynced.extend_from_slice(&bytes);
        if let Some(start) = entries.iter().rfind(|entry| matches!(entry, Entry::Start { .. })) {
            self.start = Some(start.clone());
        }
        self.fail_on(result)
    }

    /// Makes all that was appended durable. After a failure nothing is, until
    /// [`Journal::revive`].
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Failed);
        }
        let result = self.try_sync();
        if result.is_ok() {
            self.unsynced.clear();
        }
        self.fail_on(result)
    }

    /// Begins a new file with everything that is not durable, in the spare folder or in the one
    /// that failed; reads it back. All of it is durable then. The file gets its name last, so that
    /// a cut never leaves half of what is said again.
    pub fn revive(&mut self) -> Result<PathBuf, JournalError> {
        let mut first = None;
        for turn in 1..=self.folders.len() {
            let place = (self.place + turn) % self.folders.len();
            match self.begin_again(place) {
                Ok(path) => return Ok(path),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        Err(first.expect("a journal has a folder"))
    }

    fn fail_on(&mut self, result: Result<(), JournalError>) -> Result<(), JournalError> {
        if result.is_err() {
            self.failed = true;
            if let Some(open) = self.file.take() {
                self.leave(open.synced);
            }
        }
        result
    }

    /// The file of that mark is final. Where nothing of it is durable, it does not say what was before.
    fn leave(&mut self, mark: FileMark) {
        if mark.bytes > 0 {
            self.before.previous.clear();
        }
        self.before.previous.push(mark);
    }

    fn try_sync(&mut self) -> Result<(), JournalError> {
        // What is written to a file system that was unmounted nobody finds again (F18).
        self.check_device(self.place)?;
        let Some(open) = &mut self.file else { return Ok(()) };
        open.file.sync().map_err(at("sync", &open.path))?;
        open.is_synced();
        Ok(())
    }

    fn check_device(&self, place: usize) -> Result<(), JournalError> {
        check_device(&self.disk, &self.folders[place])
    }

    fn begin_again(&mut self, place: usize) -> Result<PathBuf, JournalError> {
        self.check_device(place)?;
        let path = self.folders[place].path.join(file_name(self.number + 1));
        let temporary = path.with_extension("journal.tmp");
        // Left by the attempt before; may well not exist.
        let _ = self.disk.remove(&temporary);
        let mut bytes = Vec::new();
        self.emit_any_start(&mut bytes);
        bytes.extend_from_slice(&self.unsynced);
        let file = write_again(&self.disk, &temporary, &bytes).inspect_err(|_| {
            let _ = self.disk.remove(&temporary);
        })?;
        // Used up, whatever the rename comes to: its file may be there after an error too, and
        // replaying entries twice changes nothing.
        self.number += 1;
        let mut open = Open::new(file, path.clone(), self.number);
        if let Err(error) = self.disk.rename(&temporary, &path) {
            self.leave(open.synced);
            return Err(at("rename", &temporary)(error));
        }
        open.took(&bytes);
        open.is_synced();
        self.file = Some(open);
        self.unsealed = true;
        self.place = place;
        self.unsynced.clear();
        self.failed = false;
        Ok(path)
    }

    /// The first entry of a file, repeated with what that file says of those before it.
    fn emit_start(&self, out: &mut Vec<u8>) {
        match (&self.start, &self.signer) {
            (Some(Entry::Start { version, volume, at, kept, .. }), Some(_)) => {
                let (version, volume, at, kept) = (*version, volume.clone(), *at, *kept);
                let before = Some(self.before.clone());
                frame::write(&Entry::Start { version, volume, at, kept, before }, out);
            }
            (Some(start), _) => drop(frame::write(start, out)),
            (None, _) => {}
        }
    }

    /// The same of a file that is begun before anything was appended by this start.
    fn emit_any_start(&self, out: &mut Vec<u8>) {
        let Some(signer) = self.signer.as_ref().filter(|_| self.start.is_none()) else {
            return self.emit_start(out);
        };
        let (volume, at) = (signer.volume.clone(), self.standings.alive);
        let before = Some(self.before.clone());
        frame::write(&Entry::Start { version: 1, volume, at, kept: false, before }, out);
    }

    /// Writes `bytes`, the frames of `entries`; of a journal that is chained they become others.
    fn write(&mut self, entries: &[Entry], bytes: &mut Vec<u8>) -> Result<(), JournalError> {
        let full = (2 * self.snapshot_bytes).clamp(self.file_bytes.0, self.file_bytes.1);
        if self.file.as_ref().is_none_or(|open| open.bytes >= full) {
            self.rotate()?;
        }
        let open = self.file.as_mut().expect("rotate leaves a file");
        if let Some(signer) = &self.signer {
            let mut chained = Chained {
                signer,
                number: self.number,
                bytes: open.bytes,
                digest: open.digest.clone(),
                before: &self.before,
            };
            bytes.clear();
            if !entries.iter().all(|entry| chained.put(entry, bytes)) {
                return Err(JournalError::TooLong);
            }
        }
        open.file.write_at(open.bytes, bytes).map_err(at("append to", &open.path))?;
        open.took(bytes);
        self.unsealed = !matches!(entries.last(), Some(Entry::Durable { .. }));
        Ok(())
    }

    /// The next file. What was written to the one before is durable then.
    fn rotate(&mut self) -> Result<(), JournalError> {
        if self.file.is_some() {
            self.try_sync()?;
            self.unsynced.clear();
        }
        if let Some(open) = self.file.take() {
            self.leave(open.synced);
        }
        self.check_device(self.place)?;
        let number = self.number + 1;
        let path = self.folders[self.place].path.join(file_name(number));
        let file = self.disk.create(&path, 0).map_err(at("create", &path))?;
        // Used up, whatever becomes of it.
        self.number = number;
        let mut head = Vec::new();
        self.emit_start(&mut head);
        let open = self.file.insert(Open::new(file, path, number));
        if !head.is_empty() {
            open.file.write_at(0, &head).map_err(at("append to", &open.path))?;
            open.took(&head);
        }
        Ok(())
    }
}

/// What is written to a file system that was unmounted nobody finds again (F18).
pub(super) fn check_device<D: Disk>(disk: &D, folder: &Folder) -> Result<(), JournalError> {
    let found = disk.device(&folder.path).map_err(at("look at", &folder.path))?;
    if found != folder.device {
        let why = format!("expected device {}, found {found}", folder.device);
        return Err(at("look at", &folder.path)(std::io::Error::other(why)));
    }
    Ok(())
}

/// Makes a file of `bytes`, syncs it and reads it back.
pub(super) fn write_again<D: Disk>(
    disk: &D,
    path: &Path,
    bytes: &[u8],
) -> Result<D::File, JournalError> {
    let mut file = disk.create(path, 0).map_err(at("create", path))?;
    // In pieces: a sync of the journal itself may have to wait for all that is not on the disk yet.
    for (place, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
        file.write_at((place * PIECE_BYTES) as u64, piece).map_err(at("append to", path))?;
        file.sync().map_err(at("sync", path))?;
    }
    if bytes.is_empty() {
        file.sync().map_err(at("sync", path))?;
    }
    let found = read_whole(disk, path).map_err(at("read", path))?;
    if found != bytes {
        let why = std::io::Error::other("what was written does not read back");
        return Err(at("read", path)(why));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::read::{Replay, replay_file};
    use super::*;
    use crate::base::ids::StreamId;
    use crate::base::prng::Prng;
    use crate::base::time::Wall;
    use crate::store::places::{Places, Root};
    use crate::store::test_disk::TestDisk;

    fn start() -> Entry {
        Entry::Start { version: 1, volume: "v".to_owned(), at: Wall(1), kept: false, before: None }
    }

    fn ids(next: u64) -> Entry {
        Entry::StreamIds { next: StreamId(next) }
    }

    fn dir() -> &'static Path {
        Path::new("/store/journal")
    }

    fn past() -> &'static Path {
        Path::new("/store/history")
    }

    #[test]
    fn what_is_appended_is_replayed_across_starts_in_order() {
        let disk = TestDisk::default();
        for round in 0..3 {
            let replay = read(&disk, dir(), past()).expect("memory");
            assert_eq!((replay.entries.len(), replay.damage.len()), (3 * round, 0));
            let (mut journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
            journal.append(&start()).expect("memory");
            journal.append_all(&[ids(round as u64), ids(100)]).expect("memory");
            journal.sync().expect("memory");
        }
        let replay = read(&disk, dir(), past()).expect("memory");
        assert_eq!(replay.entries[4], ids(1));
        assert_eq!(disk.list(dir()).expect("memory").len(), 3);
    }

    #[test]
    fn a_torn_tail_is_cut_and_a_damaged_middle_is_reported() {
        let disk = TestDisk::default();
        let (mut journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
        journal.append_all(&[ids(1), ids(2), ids(3)]).expect("memory");
        let path = dir().join("00000001.journal");
        let whole = disk.get(&path);
        let one = whole.len() / 3;
        for cut in 2 * one + 1..whole.len() {
            disk.put(&path, whole[..cut].to_vec());
            let replay = read(&disk, dir(), past()).expect("memory");
            assert_eq!(replay.entries, [ids(1), ids(2)]);
            assert!(matches!(replay.damage[..], [Damage { middle: false, .. }]));
        }
        let mut bad = whole;
        bad[one + 9] ^= 4;
        disk.put(&path, bad);
        let replay = read(&disk, dir(), past()).expect("memory");
        assert_eq!(replay.entries, [ids(1), ids(3)]);
        assert!(matches!(replay.damage[..], [Damage { middle: true, .. }]));
    }

    #[test]
    fn what_a_start_has_read_survives_the_power_cut_that_follows() {
        for fails in [false, true] {
            let disk = TestDisk::default();
            let (mut journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
            journal.append_all(&[start(), ids(1)]).expect("memory");
            drop(journal); // Killed before its sync: the kernel knows, the disk does not.
            disk.set_sync_fails(dir(), fails);
            let replay = read(&disk, dir(), past()).expect("memory");
            let (mut journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
            assert_eq!((replay.entries.len(), journal.has_failed()), (2, fails));
            if fails {
                disk.set_sync_fails(dir(), false);
                journal.revive().expect("works again");
            }
            for seed in 0..20 {
                let after =
                    read(&disk.power_cut(&mut Prng::new(seed)), dir(), past()).expect("memory");
                assert!(after.entries.ends_with(&[start(), ids(1)]), "{seed} {fails}");
            }
        }
    }

    #[test]
    fn f19_a_failed_file_is_final_and_what_was_not_synced_is_written_again_elsewhere() {
        let disk = TestDisk::default();
        let (mut journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
        journal.append_all(&[start(), ids(1)]).expect("memory");
        journal.sync().expect("memory");
        journal.append(&ids(2)).expect("memory");
        disk.set_sync_fails(dir(), true);
        assert!(matches!(journal.sync(), Err(JournalError::Io { .. })));
        assert!(matches!(journal.sync(), Err(JournalError::Failed)));
        // Kept in memory: the end of an RS must not be forgotten.
        assert!(matches!(journal.append(&ids(3)), Err(JournalError::Failed)));
        assert!(journal.revive().is_err() && journal.has_failed());
        disk.set_sync_fails(dir(), false);
        journal.revive().expect("works again");
        journal.append(&ids(4)).expect("memory");
        journal.sync().expect("memory");
        let after = disk.power_cut(&mut Prng::new(5));
        let replay = read(&after, dir(), past()).expect("memory");
        // Of the file that failed the tail may be there or not; its successor has all of it.
        let tail = [start(), ids(2), ids(3), ids(4)];
        assert_eq!(replay.entries[replay.entries.len() - 4..], tail);
        assert_eq!(replay.entries[..2], [start(), ids(1)]);
        assert!(!disk.paths().iter().any(|path| path.ends_with("00000002.journal.tmp")));
    }

    /// A writer is killed behind a sync that failed: pages that the disk does not hold are still there
    /// to be read, and a sync of them says yes. Nobody may be answered out of them before they are
    /// durable.
    #[test]
    fn f12_a_successor_says_again_what_a_failed_sync_left_in_memory() {
        let disk = TestDisk::default();
        let (mut journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
        journal.append_all(&[start(), ids(1)]).expect("memory");
        journal.sync().expect("memory");
        journal.append(&ids(2)).expect("memory");
        disk.set_sync_fails(dir(), true);
        assert!(journal.sync().is_err());
        drop(journal);
        disk.set_sync_fails(dir(), false);
        let (mut journal, damage) = Journal::open(disk.clone(), dir(), past()).expect("memory");
        assert_eq!(damage, []);
        assert_eq!(journal.standings().stream_ids.0, StreamId(2), "it was read");
        assert!(journal.has_failed(), "and is not durable");
        journal.revive().expect("memory");
        let cut = disk.power_cut(&mut Prng::new(1));
        let replay = read(&cut, dir(), past()).expect("memory");
        assert_eq!(replay.entries[replay.entries.len() - 3..], [start(), ids(1), ids(2)]);
        // What is sound is not said again.
        let (journal, _) = Journal::open(cut.clone(), dir(), past()).expect("memory");
        assert!(!journal.has_failed());
    }

    #[test]
    fn f19_the_spare_folder_takes_over_at_once_and_both_are_replayed_in_order() {
        let disk = TestDisk::default();
        let spare = Path::new("/spare/journal");
        let open = || {
            let root = Root { folder: dir().to_owned(), more: vec![spare.to_owned()] };
            let places = Places::strict(disk.clone(), vec![root]);
            let replay = read(&places, dir(), past()).expect("memory");
            let (mut journal, _) = Journal::open(places, dir(), past()).expect("memory");
            journal.add_folder(spare).expect("memory");
            (journal, replay)
        };
        let (mut journal, _) = open();
        journal.append_all(&[start(), ids(1)]).expect("memory");
        journal.sync().expect("memory");
        disk.set_full_at(dir(), true);
        disk.set_sync_fails(dir(), true);
        journal.append(&ids(2)).expect("memory");
        assert!(journal.sync().is_err());
        assert_eq!(journal.revive().expect("the spare"), spare.join("00000002.journal"));
        journal.append(&ids(3)).expect("memory");
        journal.sync().expect("memory");
        let (_, replay) = open();
        let distinct: Vec<_> = replay.entries.iter().filter(|one| **one != start()).collect();
        assert_eq!(distinct, [&ids(1), &ids(2), &ids(2), &ids(3)]);
        // A third file never takes a number that the spare folder has.
        disk.set_full_at(dir(), false);
        disk.set_sync_fails(dir(), false);
        let (mut journal, _) = open();
        journal.append(&start()).expect("memory");
        assert!(disk.paths().contains(&dir().join("00000003.journal")));
    }

    #[test]
    fn f18_an_unmounted_folder_fails_the_journal_and_is_not_written_to() {
        let disk = TestDisk::default();
        let (mut journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
        journal.append(&start()).expect("memory");
        journal.sync().expect("memory");
        disk.set_device(dir(), 7);
        journal.append(&ids(1)).expect("the file is open");
        assert!(journal.sync().is_err(), "nobody would find it again");
        assert!(journal.revive().is_err());
        assert_eq!(disk.paths().len(), 1);
        disk.set_device(dir(), 0);
        journal.revive().expect("mounted again");
    }

    #[test]
    fn f19_every_operation_may_fail_and_nothing_synced_is_missing_after_a_power_cut() {
        for nth in 1.. {
            let disk = TestDisk::default();
            disk.fail_nth(nth);
            let mut promised = 0;
            let mut random = Prng::new(nth);
            let Ok((mut journal, _)) = Journal::open(disk.clone(), dir(), past()) else { continue };
            let _ = journal.append(&start());
            for next in 1..=12 {
                let _ = journal.append(&ids(next));
                if random.below(3) > 0 && (journal.sync().is_ok() || journal.revive().is_ok()) {
                    promised = next;
                }
            }
            let after = disk.power_cut(&mut random);
            let replay = read(&after, dir(), past()).expect("memory");
            let mut seen: Vec<_> = replay
                .entries
                .iter()
                .filter_map(|entry| match entry {
                    Entry::StreamIds { next } => Some(next.0),
                    _ => None,
                })
                .collect();
            assert!(seen.iter().all(|next| (1..=12).contains(next)), "nth {nth}");
            seen.sort_unstable();
            seen.dedup();
            let kept: Vec<u64> = (1..=promised).collect();
            assert_eq!(seen[..kept.len()], kept, "nth {nth}: promised and not there");
            if !disk.has_failed() {
                assert!(nth > 15, "the failures reached {nth} operations");
                return;
            }
        }
    }

    #[test]
    fn a_new_file_begins_with_the_start_entry() {
        let disk = TestDisk::default();
        let (mut journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
        journal.append(&start()).expect("memory");
        journal.file.as_mut().expect("written").bytes = FILE_BYTES_MAX;
        journal.append(&ids(9)).expect("memory");
        let bytes = disk.get(&dir().join("00000002.journal"));
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
