//! The folders of one store read as if they were one. What could not be written to the store lies
//! under the same names in a spare folder (F12): `STORE/log/w0/…` in `SPARE/log/w0/…`, segments and
//! the journal alike. File names are used once over all folders, so nothing hides anything.
//!
//! Reading only: what is created, opened for writing, renamed or removed is named by its own path.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use zeroize::Zeroizing;

use crate::base::ports::{Disk, LogKeys};

/// A disk whose folders have others behind them. Clones share what they noticed.
#[derive(Clone)]
pub struct Places<D> {
    disk: D,
    roots: Arc<Vec<Root>>,
    /// A folder that cannot be listed: an error, or only noted.
    strict: bool,
    trouble: Arc<Mutex<BTreeMap<PathBuf, String>>>,
}

/// A folder, and those that hold more of the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The folder by whose name everything is asked for.
    pub folder: PathBuf,
    /// More of it, in the order in which they are looked at.
    pub more: Vec<PathBuf>,
}

impl Root {
    /// The roots of a store with its journal and its spare folders. The journal may be anywhere;
    /// in a spare folder it is `journal`.
    pub fn of_store(store: &Path, journal: &Path, spares: &[PathBuf]) -> Vec<Root> {
        let journals = spares.iter().map(|spare| spare.join("journal")).collect();
        vec![
            Root { folder: journal.to_owned(), more: journals },
            Root { folder: store.to_owned(), more: spares.to_vec() },
        ]
    }
}

impl<D: Disk> Places<D> {
    /// For readers: a folder that cannot be read is noted, the others are read all the same.
    pub fn new(disk: D, roots: Vec<Root>) -> Self {
        Places { disk, roots: Arc::new(roots), strict: false, trouble: Arc::default() }
    }

    /// For those who go on where the files end: they must see all of them or nothing.
    pub fn strict(disk: D, roots: Vec<Root>) -> Self {
        Places { strict: true, ..Places::new(disk, roots) }
    }

    /// The disk below.
    pub const fn disk(&self) -> &D {
        &self.disk
    }

    /// Notes that a folder is not what it should be.
    pub fn note(&self, folder: &Path, why: String) {
        if let Ok(mut trouble) = self.trouble.lock() {
            trouble.insert(folder.to_owned(), why);
        }
    }

    /// Folders that could not be read so far, and why.
    pub fn trouble(&self) -> Vec<(PathBuf, String)> {
        let trouble = self.trouble.lock();
        trouble.map_or_else(|_| Vec::new(), |all| all.clone().into_iter().collect())
    }

    /// Every path at which `path` may be; itself first.
    fn candidates(&self, path: &Path) -> Vec<PathBuf> {
        let mut all = vec![path.to_owned()];
        let found =
            self.roots.iter().find_map(|root| Some((root, path.strip_prefix(&root.folder).ok()?)));
        if let Some((root, rest)) = found {
            all.extend(root.more.iter().map(|more| more.join(rest)));
        }
        all
    }
}

impl<D: Disk> Places<D> {
    /// Opens a file where it is.
    fn first(
        &self,
        path: &Path,
        open: impl Fn(&Path) -> io::Result<D::File>,
    ) -> io::Result<D::File> {
        let mut first = None;
        for path in self.candidates(path) {
            match open(&path) {
                Ok(file) => return Ok(file),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        Err(first.expect("a path is its own first candidate"))
    }
}

impl<D: Disk> Disk for Places<D> {
    type File = D::File;

    fn create(&self, path: &Path, bytes: u64) -> io::Result<D::File> {
        self.disk.create(path, bytes)
    }

    fn open(&self, path: &Path) -> io::Result<D::File> {
        self.disk.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn open_read(&self, path: &Path) -> io::Result<D::File> {
        self.first(path, |path| self.disk.open_read(path))
    }

    fn open_medium(&self, path: &Path) -> io::Result<D::File> {
        self.first(path, |path| self.disk.open_medium(path))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = BTreeSet::new();
        let mut failed = None;
        let mut read = false;
        for folder in self.candidates(folder) {
            match self.disk.list(&folder) {
                Ok(found) => {
                    read = true;
                    names.extend(found);
                }
                Err(error) => {
                    self.note(&folder, error.to_string());
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            Some(error) if self.strict || !read => Err(error),
            _ => Ok(names.into_iter().collect()),
        }
    }

    fn sync_names(&self, folder: &Path) -> io::Result<()> {
        self.candidates(folder).iter().try_for_each(|folder| self.disk.sync_names(folder))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn device(&self, folder: &Path) -> io::Result<String> {
        self.disk.device(folder)
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        self.disk.free_bytes(folder)
    }

    fn locate(&self, path: &Path) -> PathBuf {
        let mut all = self.candidates(path);
        let found = all.iter().position(|path| self.disk.open_read(path).is_ok());
        all.swap_remove(found.unwrap_or(0))
    }

    fn may_append(&self, path: &Path) -> io::Result<bool> {
        self.disk.may_append(path)
    }

    fn keys(&self, purpose: &str) -> Vec<(u32, Zeroizing<[u8; 32]>)> {
        self.disk.keys(purpose)
    }

    fn log_keys(&self) -> Option<&dyn LogKeys> {
        self.disk.log_keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::test_disk::TestDisk;

    fn roots() -> Vec<Root> {
        Root::of_store(Path::new("/store"), Path::new("/other/journal"), &["/spare".into()])
    }

    #[test]
    fn f12_two_folders_read_as_one_and_each_file_is_named_by_where_it_is() {
        let disk = TestDisk::default();
        for path in
            ["/store/segments/a", "/spare/segments/b", "/spare/journal/2", "/other/journal/1"]
        {
            disk.put(Path::new(path), vec![1]);
        }
        let places = Places::new(disk, roots());
        assert_eq!(places.list(Path::new("/store/segments")).unwrap(), ["a", "b"]);
        assert_eq!(places.list(Path::new("/other/journal")).unwrap(), ["1", "2"]);
        assert!(places.open_read(Path::new("/store/segments/b")).is_ok());
        let at = |path| places.locate(Path::new(path));
        assert_eq!(at("/store/segments/a"), Path::new("/store/segments/a"));
        assert_eq!(at("/store/segments/b"), Path::new("/spare/segments/b"));
        assert_eq!(at("/other/journal/2"), Path::new("/spare/journal/2"));
        assert_eq!(at("/store/segments/c"), Path::new("/store/segments/c"), "nowhere");
        let missing = places.open_read(Path::new("/store/segments/c")).err().map(|e| e.kind());
        assert_eq!(missing, Some(io::ErrorKind::NotFound));
    }

    #[test]
    fn f12_a_folder_that_cannot_be_read_is_noted_and_the_other_is_read() {
        let disk = TestDisk::default();
        disk.put(Path::new("/store/segments/a"), vec![1]);
        disk.put(Path::new("/spare/segments/b"), vec![1]);
        disk.set_unreadable(Path::new("/spare"), true);
        let places = Places::new(disk.clone(), roots());
        assert_eq!(places.list(Path::new("/store/segments")).unwrap(), ["a"]);
        assert_eq!(places.trouble().len(), 1);
        assert!(places.open_read(Path::new("/store/segments/b")).is_err());
        let strict = Places::strict(disk.clone(), roots());
        assert!(strict.list(Path::new("/store/segments")).is_err());
        disk.set_unreadable(Path::new("/store"), true);
        assert!(places.list(Path::new("/store/segments")).is_err(), "nothing can be read");
    }
}
