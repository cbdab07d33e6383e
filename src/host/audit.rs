//! The audit trail on this machine: one writer at a time by a lock of its own, `STORE/audit/lock`, in
//! whatever process; and who it is that acts.
//!
//! A verb that root runs leaves files that the store's own user can write.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::disk::{HostDisk, HostFile, make_folder};
use super::{unlocked, users, volume};
use crate::base::ports::Disk;
use crate::store::audit::{self, Act, AuditError, Entry, Head, Trail, Who};
use crate::store::keys::Veiled;

/// So long a writer waits for others; each holds the lock for one append, some milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

/// Files that belong to whom the store belongs.
#[derive(Clone, Copy)]
struct Owned {
    /// The store's user and group, where we are root and it is not.
    owner: Option<(u32, u32)>,
}

impl Owned {
    fn of(store: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(store)?;
        let is_others = rustix::process::geteuid().is_root() && found.uid() != 0;
        Ok(Owned { owner: is_others.then_some((found.uid(), found.gid())) })
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match self.owner {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

impl Disk for Owned {
    type File = HostFile;

    fn create(&self, path: &Path, bytes: u64) -> io::Result<HostFile> {
        let file = HostDisk.create(path, bytes)?;
        self.give(path)?;
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<HostFile> {
        HostDisk.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        HostDisk.rename(from, to)
    }

    fn open_read(&self, path: &Path) -> io::Result<HostFile> {
        HostDisk.open_read(path)
    }

    fn open_medium(&self, path: &Path) -> io::Result<HostFile> {
        HostDisk.open_medium(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        HostDisk.list(folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        HostDisk.remove(path)
    }
}

/// The trail of a store, locked: nobody else writes while this lives. Whoever decides by what the trail
/// says reads it under the lock.
pub struct Locked {
    writer: audit::Writer<Veiled<Owned>>,
    store: PathBuf,
    _lock: File,
}

impl Locked {
    /// Waits for its turn, at most five seconds. Makes the trail's folder where there is none.
    pub fn take(store: &Path) -> Result<Self, AuditError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| AuditError::Io { action, path, source }
        };
        let owned = Owned::of(store).map_err(failed("look at", store))?;
        let folder = audit::folder(store);
        if !folder.is_dir() {
            make_folder(&folder)
                .and_then(|()| std::fs::set_permissions(&folder, private()))
                .and_then(|()| owned.give(&folder))
                .map_err(failed("make", &folder))?;
        }
        let path = folder.join("lock");
        let is_new = !path.exists();
        let mut wanted = OpenOptions::new();
        wanted.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = wanted.open(&path).map_err(failed("open", &path))?;
        if is_new {
            owned.give(&path).map_err(failed("make", &path))?;
        }
        let until = Instant::now() + LOCK_WAIT;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                    std::thread::sleep(PAUSE);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(AuditError::Busy),
                Err(error) => return Err(failed("lock", &path)(error.into())),
            }
        }
        // A store that has lost its identity can be listened to all the same.
        let id = volume::read(store).map_or_else(|_| String::new(), |volume| volume.id);
        let writer = audit::Writer::new(files(store, owned), store, &id);
        Ok(Locked { writer, store: store.to_owned(), _lock: lock })
    }

    /// All that was recorded so far.
    pub fn read(&self) -> Result<Trail, AuditError> {
        read(&self.store)
    }

    /// The newest entry that `is_it` likes.
    pub fn newest(&self, is_it: impl Fn(&Entry) -> bool) -> Result<Option<Entry>, AuditError> {
        newest(&self.store, is_it)
    }

    /// Records `act`: durable when it returns.
    pub fn append(&mut self, act: Act) -> Result<Entry, AuditError> {
        self.writer.append(act)
    }

    /// The same for several, at once and in this order.
    pub fn append_all(&mut self, acts: Vec<Act>) -> Result<Vec<Entry>, AuditError> {
        self.writer.append_all(acts)
    }
}

fn private() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o700)
}

/// Records one act in the trail of `store`: durable when it returns. Where this fails, the act must not be
/// done.
pub fn record(store: &Path, act: Act) -> Result<Entry, AuditError> {
    Locked::take(store)?.append(act)
}

/// The newest entry of the trail of `store` that `is_it` likes.
pub fn newest(store: &Path, is_it: impl Fn(&Entry) -> bool) -> Result<Option<Entry>, AuditError> {
    audit::newest(&files(store, HostDisk), store, is_it)
}

/// All that was recorded so far in `store`, whoever writes meanwhile.
pub fn read(store: &Path) -> Result<Trail, AuditError> {
    audit::read(&files(store, HostDisk), store)
}

/// The newest entry of the trail of `store`, where it is known to be durable.
pub fn head(store: &Path) -> Result<Option<Head>, AuditError> {
    audit::Writer::new(files(store, HostDisk), store, "").head()
}

/// The trail's files on `disk`, encrypted where the store is.
fn files<D: Disk>(store: &Path, disk: D) -> Veiled<D> {
    unlocked::veiled(store, disk, vec![audit::folder(store)])
}

/// The same for reading.
pub fn files_of(store: &Path) -> Veiled<HostDisk> {
    files(store, HostDisk)
}

/// Us, in `role`.
pub fn ourselves(role: &str) -> Who {
    who(rustix::process::geteuid().as_raw(), role)
}

/// The user of that number, in `role`.
pub fn who(uid: u32, role: &str) -> Who {
    Who { uid, user: users::name(uid), role: role.to_owned() }
}

/// The user who logged in and has become another one since (`su`, `sudo`), as the kernel has kept it for
/// the process `pid`; `None` where it kept none, or they are the same.
pub fn login(pid: u32, uid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|login| *login != u32::MAX && *login != uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Wall;
    use crate::store::audit::action;

    fn store(name: &str) -> PathBuf {
        let pid = std::process::id();
        let store = std::env::temp_dir().join(format!("floortape-audit-{name}-{pid}"));
        std::fs::create_dir_all(&store).expect("a temp folder");
        store
    }

    fn listen(number: u64) -> Act {
        Act::new(Wall(5), ourselves("owner"), action::LISTEN, number.to_string())
    }

    #[test]
    fn writers_at_once_have_one_chain() {
        let store = store("many");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..25 {
                        record(store, listen(writer * 100 + number)).expect("recorded");
                    }
                });
            }
        });
        let trail = read(&store).expect("readable");
        assert_eq!(trail.entries.len(), 101, "the first one begins the trail");
        assert_eq!(trail.summary.faults, []);
        assert_eq!(trail.summary.tails, []);
        assert_eq!(head(&store).expect("readable"), Some(trail.summary.head));
        for writer in 0..4 {
            let of = |entry: &&Entry| {
                entry.object.parse::<u64>().is_ok_and(|object| object / 100 == writer)
            };
            let own: Vec<_> = trail.entries.iter().filter(of).map(|e| e.object.clone()).collect();
            let wanted: Vec<_> =
                (0..25).map(|number| (writer * 100 + number).to_string()).collect();
            assert_eq!(own, wanted, "in the order of each");
        }
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn nobody_else_reads_the_files_and_the_lock_is_waited_for() {
        let store = store("modes");
        record(&store, listen(1)).expect("recorded");
        for name in ["", "lock", "00000001.audit"] {
            let mode = std::fs::metadata(store.join("audit").join(name)).expect("there").mode();
            assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
        }
        let held = Locked::take(&store).expect("free");
        let other = std::thread::scope(|scope| {
            let other = scope.spawn(|| record(&store, listen(2)));
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(read(&store).expect("readable").entries.len(), 2, "it waits");
            drop(held);
            other.join().expect("no panic")
        });
        assert_eq!(other.expect("recorded").number, 3);
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn a_trail_that_cannot_be_written_says_whether_it_is_a_copy() {
        let store = store("shut");
        // A file where the folder should be stands for any other failure of the disk.
        std::fs::write(store.join("audit"), "").expect("ours");
        let error = record(&store, listen(1)).expect_err("no folder");
        assert!(!error.is_read_only(), "{error}");
        let copy = AuditError::Io {
            action: "open",
            path: store.clone(),
            source: io::ErrorKind::ReadOnlyFilesystem.into(),
        };
        assert!(copy.is_read_only());
        std::fs::remove_dir_all(store).expect("ours");
    }
}
