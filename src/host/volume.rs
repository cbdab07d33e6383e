//! The store's identity, its lock and the mark of a run: `volume.json`, `lock` and `running` in the
//! store's folder.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::disk::{make_folder, read_small_text};
use super::survivor::{self, Survivor};

/// Version of the store's layout.
pub const VERSION: u32 = 1;
/// Of a store that was ever encrypted. A version that knows of no encryption takes a log file that is
/// encrypted for one that holds nothing, and would use it again: so it must not open the store at all.
pub const VERSION_ENCRYPTED: u32 = 2;
/// Incarnations reserved at once, so that a restart of media waits for no sync.
const INCARNATIONS: u64 = 1_024;

/// What `volume.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// UUID of the store, made with it; never changes.
    pub id: String,
    /// [`VERSION`] or [`VERSION_ENCRYPTED`].
    pub version: u32,
    /// Incarnations of media below this are used up.
    pub incarnation_next: u64,
    /// First incarnation over the memory that was made last: who holds memory of an earlier one
    /// holds what the store has outrun (F04). 0: not known, made by a version before this field.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub memory_from: u64,
    /// Spare folders that were ever configured: parts of the store may lie there (F12).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spares: Vec<PathBuf>,
    /// The journal's folder, where it is not in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<PathBuf>,
    /// The journal has its first entry: from now on an empty folder is not it (F18).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub journal_begun: bool,
    /// Fingerprint of the key in `machine.key` ([`super::keyfile::fingerprint`]): a start with another
    /// one, or none, is refused. `None`: not noted yet, made by a version before this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_key: Option<String>,
    /// This is a spare folder, of that store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare_of: Option<PathBuf>,
    /// This is the folder of a journal, of that store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal_of: Option<PathBuf>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks it")]
fn is_unknown(incarnation: &u64) -> bool {
    *incarnation == 0
}

impl Volume {
    pub(super) fn fresh(id: &str) -> Self {
        Volume {
            id: id.to_owned(),
            version: VERSION,
            incarnation_next: 1,
            memory_from: 0,
            spares: Vec::new(),
            journal: None,
            journal_begun: false,
            machine_key: None,
            spare_of: None,
            journal_of: None,
        }
    }
}

impl Volume {
    /// The first incarnation that the present keeper may have used, for as long as it has not
    /// reserved a second lot: what older ones wrote is of before it.
    pub fn incarnation_first(&self) -> u64 {
        self.incarnation_next.saturating_sub(INCARNATIONS)
    }

    /// How often it was opened before: no two runs have the same number.
    pub fn run(&self) -> u64 {
        self.incarnation_first() / INCARNATIONS
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Another server has it.
    #[error("the store {} is in use by another server (process {holder})", store.display())]
    InUse {
        /// The store.
        store: PathBuf,
        /// Its keeper.
        holder: Holder,
    },
    /// `volume.json` cannot be understood.
    #[error(
        "{}: expected a store of version {VERSION} or {VERSION_ENCRYPTED}: {why}",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// It is another store than the configuration names (F18).
    #[error("{}: expected the store {expected} (store.volume), found {found}", store.display())]
    Wrong {
        /// The folder.
        store: PathBuf,
        /// The id that the configuration names.
        expected: String,
        /// The id that is there, or what else.
        found: String,
    },
    /// Nothing is mounted there (F18).
    #[error("{}: expected a mounted disk (store.require_mount), found a folder of the root disk", store.display())]
    NotMounted {
        /// The folder.
        store: PathBuf,
    },
    /// It cannot be written (F18).
    #[error("{}: expected a writable disk, found it mounted read-only", store.display())]
    ReadOnly {
        /// The folder.
        store: PathBuf,
    },
    /// A spare folder is not there, or is not this store's (F18).
    #[error(
        "the folder {} holds parts of the store, and {why}: mount it; if it is lost for good, take it \
         out of `spares` in {}",
        spare.display(), volume.display()
    )]
    Spare {
        /// The spare folder.
        spare: PathBuf,
        /// The store's `volume.json`.
        volume: PathBuf,
        /// What was found.
        why: String,
    },
    /// The journal is not there, or is another store's (F18).
    #[error(
        "{} is not the journal of this store, without which nothing in it can be found: {why}; mount \
         it, or set store.journal_dir to where it is; if it is lost for good, take `journal_begun` \
         out of {}",
        journal.display(), volume.display()
    )]
    Journal {
        /// The journal's folder.
        journal: PathBuf,
        /// The store's `volume.json`.
        volume: PathBuf,
        /// What was found.
        why: String,
    },
    /// The store holds recordings and no `volume.json`: a new identity would let positions, segment
    /// numbers and incarnations be used twice.
    #[error(
        "{} is not there, and the store holds {}: put it back; if it is lost for good, it is written \
         anew as the operator's guide says",
        volume.display(), holds.display()
    )]
    Nameless {
        /// Where it should be.
        volume: PathBuf,
        /// What only a store that had it holds.
        holds: PathBuf,
    },
    /// A key that the store works with is not there, or is another one.
    #[error(
        "{}: expected {expected}, found {found}: put the right one back; if it is lost for good, \
         {otherwise}",
        path.display()
    )]
    Key {
        /// The key's file.
        path: PathBuf,
        /// Which one, in words: never the key.
        expected: String,
        /// The same of what is there.
        found: String,
        /// How to go on without it, and what is lost then.
        otherwise: String,
    },
    /// The key-encryption key that the configuration names is not there, or is another one.
    #[error("the keys of the store {}: {why}", store.display())]
    Kek {
        /// The store.
        store: PathBuf,
        /// What was found.
        why: String,
    },
    /// The store keys that it opens are not what was written.
    #[error("the keys of the store {}: {why}", store.display())]
    StoreKeys {
        /// The store.
        store: PathBuf,
        /// What was found.
        why: String,
    },
    /// The operating system's own words.
    #[error("{}: {error}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl VolumeError {
    /// Whether the store's identity or a key of it is gone: whoever went on would record into what
    /// nobody can read or prove, so that this refuses a takeover too.
    pub fn is_of_identity(&self) -> bool {
        matches!(
            self,
            VolumeError::Nameless { .. }
                | VolumeError::Key { .. }
                | VolumeError::Kek { .. }
                | VolumeError::StoreKeys { .. }
        )
    }
}

/// Who signed the lock of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process number; `None` where the lock does not say it.
    pid: Option<u32>,
    /// What tells the process from a later one of that number.
    mark: String,
}

impl Holder {
    /// Reads what [`sign`] wrote: the process number, and below it the mark.
    fn parse(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim);
        let pid = lines.next().and_then(|line| line.parse().ok());
        Holder { pid, mark: lines.next().unwrap_or_default().to_owned() }
    }

    /// Whether it is alive. We ourselves are not: our number stands there when this process held the
    /// store under an older image.
    pub fn lives(&self) -> bool {
        let other = self.pid.filter(|pid| *pid != std::process::id());
        other.is_some_and(|pid| match self.mark.as_str() {
            "" => survivor::lives(pid),
            mark => Survivor::find(mark).is_some(),
        })
    }
}

/// Whoever signed the lock of `store` last; `None` where nobody ever did. Takes nothing.
pub fn holder(store: &Path) -> Option<Holder> {
    let text = std::fs::read_to_string(store.join("lock")).ok()?;
    Some(Holder::parse(&text))
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "{pid}"),
            None => f.write_str("unknown"),
        }
    }
}

/// The lock of a store: held as long as any copy of its descriptor is open, in any process.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// The descriptor, to hand a copy to children: the store stays locked until all have ended.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// The lock of `store` as another process held it: a copy of its descriptor. We are its holder
    /// from now on.
    pub fn taken_over(fd: OwnedFd, store: &Path) -> Result<Self, VolumeError> {
        let path = store.join("lock");
        let mut file = File::from(fd);
        let named = |error: io::Error| VolumeError::Io { path: path.clone(), error };
        let (ours, there) =
            (file.metadata().map_err(named)?, std::fs::metadata(&path).map_err(named)?);
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            let other = io::Error::other("the lock that was handed over is another store's");
            return Err(VolumeError::Io { path, error: other });
        }
        // Recordings go on whether the disk takes writes or not (F12).
        sign(&mut file).unwrap_or_else(|error| unsigned(&path, &error));
        Ok(Lock(file))
    }
}

/// Whoever comes next looks for the processes that hold the lock.
fn unsigned(path: &Path, error: &io::Error) {
    tracing::error!(
        "alarm: {} cannot be written and names no holder: {error}; holding it all the same",
        path.display()
    );
}

/// Bytes of a signed lock: two numbers and room.
const SIGNED: usize = 64;

/// Writes our process number into the lock, for people, and our mark, for the next keeper: numbers
/// are used again.
fn sign(file: &mut File) -> io::Result<()> {
    let pid = std::process::id();
    // Always as long, and never cut first: whoever reads it meanwhile finds one holder or the other,
    // and a full disk has its room already.
    let text = format!("{:<width$}", format!("{pid}\n{}\n", survivor::mark(pid)?), width = SIGNED);
    let mut there = Vec::new();
    file.rewind()?;
    file.take(SIGNED as u64 + 1).read_to_end(&mut there)?;
    if there == text.as_bytes() {
        // After an upgrade: the same process, perhaps on a disk that takes no writes any more.
        return Ok(());
    }
    if there.len() > SIGNED {
        file.set_len(0)?;
    }
    file.rewind()?;
    file.write_all(text.as_bytes())
}

/// Takes the lock of `store`, which is made if it is not there.
///
/// [`VolumeError::InUse`] at once where anybody holds it; where that are only the roles of a dead
/// keeper ([`Holder::lives`] tells), a caller may take it over from them, or try again.
pub fn lock(store: &Path) -> Result<Lock, VolumeError> {
    let failed = |path: &Path, error: io::Error| match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => VolumeError::ReadOnly { store: store.to_owned() },
        _ => VolumeError::Io { path: path.to_owned(), error },
    };
    make_folder(store).map_err(|error| failed(store, error))?;
    let path = store.join("lock");
    let mut file = open_lock(&path).map_err(|error| failed(&path, error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = (&file).take(64).read_to_string(&mut text);
            let holder = Holder::parse(&text);
            return Err(VolumeError::InUse { store: store.to_owned(), holder });
        }
        Err(error) => return Err(failed(&path, error.into())),
    }
    match sign(&mut file) {
        Ok(()) => {}
        Err(error) if is_read_only(&error) => unsigned(&path, &error),
        Err(error) => return Err(failed(&path, error)),
    }
    Ok(Lock(file))
}

/// On a disk that has become read-only the lock is there and can be held, but not written. Whether
/// such a store will do is for the caller to say.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut wanted = OpenOptions::new();
    match wanted.read(true).write(true).create(true).truncate(false).open(path) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            File::open(path).map_err(|_| error)
        }
        opened => opened,
    }
}

/// How a descriptor answers that was opened for reading (EBADF), and a disk that became read-only
/// under one that was opened for writing.
fn is_read_only(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    errno.is_some_and(|errno| [rustix::io::Errno::ROFS, rustix::io::Errno::BADF].contains(&errno))
}

/// Reads `volume.json` of `store`.
pub fn read(store: &Path) -> Result<Volume, VolumeError> {
    let path = store.join("volume.json");
    let text =
        read_small_text(&path).map_err(|error| VolumeError::Io { path: path.clone(), error })?;
    let volume: Volume = serde_json::from_str(&text)
        .map_err(|error| VolumeError::Unreadable { path: path.clone(), why: error.to_string() })?;
    if ![VERSION, VERSION_ENCRYPTED].contains(&volume.version) {
        let why = format!("found version {}", volume.version);
        return Err(VolumeError::Unreadable { path, why });
    }
    Ok(volume)
}

/// Names in `volume.json` that this version does not know: a later one wrote them, or one of ours was changed,
/// and what it said, such as where a spare folder is, is overlooked.
pub fn unknown_names(store: &Path) -> Vec<String> {
    let names = [
        "id",
        "version",
        "incarnation_next",
        "memory_from",
        "spares",
        "journal",
        "journal_begun",
        "machine_key",
        "spare_of",
        "journal_of",
    ];
    let text = read_small_text(&store.join("volume.json")).unwrap_or_default();
    let all = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
    let unknown = all.unwrap_or_default().into_iter().map(|(name, _)| name);
    unknown.filter(|name| !names.contains(&name.as_str())).collect()
}

/// Whether readers can tell which store this is. One that is yet to begin has no identity, and none
/// is missed.
pub fn check(store: &Path) -> Result<(), VolumeError> {
    match read(store) {
        Ok(_) => Ok(()),
        Err(VolumeError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            nameable(store)
        }
        Err(error) => Err(error),
    }
}

/// An error where `store` holds what only a store with an identity does. Folders and empty files say
/// nothing: `volume.json` is durable before anything is put into them, and whoever makes a mount
/// point may make them first.
fn nameable(store: &Path) -> Result<(), VolumeError> {
    const ENDINGS: [&str; 5] = ["seg", "log", "journal", "snapshot", "history"];
    let failed = |path: &Path, error| VolumeError::Io { path: path.to_owned(), error };
    let log = store.join("log");
    let mut folders = ["segments", "journal", "history"].map(|name| store.join(name)).to_vec();
    folders.extend(listed(&log).map_err(|error| failed(&log, error))?);
    for folder in folders {
        for path in listed(&folder).map_err(|error| failed(&folder, error))? {
            let ours = path.extension().is_some_and(|end| ENDINGS.iter().any(|one| end == *one));
            if ours && path.metadata().is_ok_and(|found| found.len() > 0) {
                return Err(VolumeError::Nameless {
                    volume: store.join("volume.json"),
                    holds: path,
                });
            }
        }
    }
    Ok(())
}

/// What is in `folder`; nothing where it is none.
fn listed(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Opens the volume of a locked store, made with the id `fresh_id` where it has none: refused
/// where recordings lie there. Returns it with the first incarnation this keeper may use;
/// [`INCARNATIONS`] from there on are its own.
pub fn open(store: &Path, fresh_id: &str) -> Result<(Volume, u64), VolumeError> {
    let mut volume = match read(store) {
        Ok(volume) => volume,
        Err(VolumeError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            nameable(store)?;
            Volume::fresh(fresh_id)
        }
        Err(error) => return Err(error),
    };
    if let Some(of) = volume.spare_of.as_ref().or(volume.journal_of.as_ref()) {
        let what = if volume.spare_of.is_some() { "spare folder" } else { "journal" };
        let why = format!("it is the {what} of the store {}", of.display());
        return Err(VolumeError::Unreadable { path: store.join("volume.json"), why });
    }
    let first = reserve(store, &mut volume)?;
    Ok((volume, first))
}

/// Reserves further incarnations; synced before it returns. Returns the first of them.
pub fn reserve(store: &Path, volume: &mut Volume) -> Result<u64, VolumeError> {
    let first = volume.incarnation_next;
    volume.incarnation_next = first + INCARNATIONS;
    write(store, volume)
        .map_err(|error| VolumeError::Io { path: store.join("volume.json"), error })?;
    Ok(first)
}

/// Notes that memory was made that `incarnation` is the first to use; synced before it returns. From
/// now on positions are given anew, and what older memory holds belongs to nothing.
pub fn begin_memory(
    store: &Path,
    volume: &mut Volume,
    incarnation: u64,
) -> Result<(), VolumeError> {
    volume.memory_from = incarnation;
    write(store, volume).map_err(|error| VolumeError::Io { path: store.join("volume.json"), error })
}

/// Notes that the journal has its first entry; synced before it returns. Nothing where it is noted.
pub fn begin_journal(store: &Path, volume: &mut Volume) -> Result<(), VolumeError> {
    if volume.journal_begun {
        return Ok(());
    }
    let begun = Volume { journal_begun: true, ..volume.clone() };
    write(store, &begun)
        .map_err(|error| VolumeError::Io { path: store.join("volume.json"), error })?;
    *volume = begun;
    Ok(())
}

/// Notes which machine key the store works with; synced before it returns.
pub(super) fn note_key(
    store: &Path,
    volume: &mut Volume,
    fingerprint: String,
) -> Result<(), VolumeError> {
    let noted = Volume { machine_key: Some(fingerprint), ..volume.clone() };
    write(store, &noted)
        .map_err(|error| VolumeError::Io { path: store.join("volume.json"), error })?;
    *volume = noted;
    Ok(())
}

/// The mark of a run that has not ended: an empty file beside `volume.json`.
const RUNNING: &str = "running";

/// Whether the mark of the last run is still there: that one did not end cleanly (F06).
pub fn was_cut(store: &Path) -> bool {
    store.join(RUNNING).exists()
}

/// Marks the store as in use by a run; synced before it returns.
pub fn begin_run(store: &Path) -> Result<(), VolumeError> {
    let path = store.join(RUNNING);
    let made = File::create(&path)
        .and_then(|file| file.sync_all())
        .and_then(|()| File::open(store)?.sync_all());
    made.map_err(|error| VolumeError::Io { path, error })
}

/// Takes the mark away: everything is durable, and nothing runs any more.
pub fn end_run(store: &Path) -> Result<(), VolumeError> {
    let path = store.join(RUNNING);
    let gone = std::fs::remove_file(&path).and_then(|()| File::open(store)?.sync_all());
    gone.map_err(|error| VolumeError::Io { path, error })
}

pub(super) fn write(store: &Path, volume: &Volume) -> io::Result<()> {
    let path = store.join("volume.json");
    let fresh = store.join("volume.json.new");
    let mut file = File::create(&fresh)?;
    serde_json::to_writer_pretty(&mut file, volume)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(fresh, path)?;
    File::open(store)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("floortape-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_store_is_locked_once_and_names_its_holder() {
        let store = folder("lock");
        let first = lock(&store).expect("nobody has it");
        match lock(&store) {
            Err(VolumeError::InUse { holder, .. }) => {
                assert_eq!(holder.to_string(), std::process::id().to_string());
                assert!(!holder.lives(), "it is ourselves, as after an upgrade");
            }
            other => panic!("expected InUse, found {other:?}"),
        }
        drop(first);
        lock(&store).expect("free again");
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn f12_a_lock_is_taken_over_where_nothing_can_be_written_any_more() {
        let store = folder("readonly");
        drop(lock(&store).expect("nobody has it"));
        let path = store.join("lock");
        std::fs::write(&path, format!("{:<SIGNED$}", "1\n1 77\n")).expect("ours");
        let mut file = File::open(&path).expect("there");
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).expect("free");
        assert!(is_read_only(&sign(&mut file).expect_err("opened for reading")));
        let held = Lock::taken_over(file.into(), &store).expect("all the same");
        match lock(&store) {
            Err(VolumeError::InUse { holder, .. }) => assert!(!holder.lives(), "unsigned"),
            other => panic!("expected InUse, found {other:?}"),
        }
        drop(held);
        lock(&store).expect("free again");
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn f03_a_holder_is_told_from_a_later_process_of_its_number() {
        let first = survivor::mark(1).expect("it lives");
        assert!(Holder::parse(&format!("1\n{first}\n")).lives());
        assert!(!Holder::parse("1\n1 77\n").lives(), "an older process 1");
        assert!(Holder::parse("1\n").lives(), "without a mark the number decides");
        for unknown in ["", "\n", "x\n"] {
            assert!(!Holder::parse(unknown).lives());
            assert_eq!(Holder::parse(unknown).to_string(), "unknown");
        }
    }

    #[test]
    fn f06_a_run_that_did_not_end_is_told_by_the_next_one() {
        let store = folder("running");
        std::fs::create_dir_all(&store).expect("a temp folder");
        assert!(!was_cut(&store), "no run yet");
        begin_run(&store).expect("room");
        assert!(was_cut(&store), "it has not ended");
        end_run(&store).expect("there");
        assert!(!was_cut(&store));
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn the_id_stays_and_incarnations_are_never_given_twice() {
        let store = folder("volume");
        let _lock = lock(&store).expect("nobody has it");
        let (first, one) = open(&store, "id-1").expect("fresh");
        let (second, two) = open(&store, "id-2").expect("there now");
        assert_eq!((first.id.as_str(), second.id.as_str()), ("id-1", "id-1"));
        assert!(two >= one + INCARNATIONS);
        std::fs::write(store.join("volume.json"), "{}").expect("ours");
        assert!(matches!(open(&store, "id-3"), Err(VolumeError::Unreadable { .. })));
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn an_identity_is_made_in_folders_only_where_nothing_was_recorded() {
        let store = folder("nameless");
        for name in ["segments", "log/w0", "journal", "history", "evidence", "run"] {
            std::fs::create_dir_all(store.join(name)).expect("a temp folder");
        }
        // What a first start that was cut may leave, and what others may have put there.
        for (name, text) in
            [("lock", "1"), ("log/w0/1.log", ""), ("journal/volume.json", "x"), ("log/.check", "x")]
        {
            std::fs::write(store.join(name), text).expect("ours");
        }
        assert!(check(&store).is_ok(), "nothing is missed");
        open(&store, "id").expect("nothing was recorded");
        for name in
            ["segments/w0-1.seg", "log/w0/1.log", "journal/00000001.journal", "history/1.history"]
        {
            let (volume, path) = (store.join("volume.json"), store.join(name));
            std::fs::write(&path, "x").expect("ours");
            assert!(open(&store, "id").is_ok() && check(&store).is_ok());
            std::fs::rename(&volume, store.join("aside")).expect("ours");
            let refused = open(&store, "another").expect_err("it was another store");
            assert!(refused.is_of_identity() && refused.to_string().contains(name), "{refused}");
            assert!(check(&store).is_err() && !volume.exists());
            std::fs::write(&volume, "").expect("ours");
            assert!(open(&store, "another").is_err() && check(&store).is_err(), "cut");
            std::fs::rename(store.join("aside"), &volume).expect("ours");
            std::fs::remove_file(path).expect("ours");
        }
        std::fs::remove_dir_all(store).expect("ours");
    }
}
