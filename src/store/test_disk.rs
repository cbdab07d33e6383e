//! A disk in memory that fails on request and forgets what was not synced when its power is cut.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use zeroize::Zeroizing;

use crate::base::ports::{Disk, DiskFile};
use crate::base::prng::Prng;
use crate::store::keys::StoreKey;

const BLOCK: usize = 4096;

#[derive(Default)]
struct Content {
    /// What readers see.
    bytes: Vec<u8>,
    /// What a power cut leaves for certain.
    synced: Vec<u8>,
    /// Blocks written since the last sync.
    dirty: Vec<usize>,
    /// A write or sync failed: that is final, nobody may touch it again (F12).
    failed: bool,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Rc<RefCell<Content>>>,
    operations: u64,
    fail_at: Option<u64>,
    full: bool,
    /// A file that goes once its folder was listed.
    goes: Option<PathBuf>,
    /// The key of the store that lies on it.
    store_key: Option<[u8; 32]>,
    /// Folders below which nothing can be written: why.
    broken: BTreeMap<PathBuf, Broken>,
    watch: Option<Rc<Watch>>,
}

/// Sees each write: file, offset, bytes.
type Watch = dyn Fn(&Path, u64, &[u8]);

#[derive(Clone, Copy, Default)]
struct Broken {
    unreadable: bool,
    full: bool,
    sync_fails: bool,
    /// Changes when another file system is mounted there.
    device: u32,
    /// What is left there.
    free: u64,
}

/// See the module. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct TestDisk(Rc<RefCell<State>>);

/// An open file; it outlives its name.
pub(crate) struct TestFile {
    disk: TestDisk,
    path: PathBuf,
    content: Rc<RefCell<Content>>,
    view: View,
    /// What was written last is the end of a key.
    ends_key: bool,
}

/// What a file was opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    Write,
    Read,
    /// Reads what a power cut would leave for certain.
    Medium,
}

impl TestDisk {
    /// The nth create, write, cut, sync or rename from now fails (1: the next), once.
    pub(crate) fn fail_nth(&self, nth: u64) {
        let mut state = self.0.borrow_mut();
        state.fail_at = Some(state.operations + nth);
    }

    /// Whether the failure that was asked for has happened.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.borrow().fail_at.is_none()
    }

    /// The file is removed behind the next list of its folder, as by another process.
    pub(crate) fn remove_once_listed(&self, path: &Path) {
        self.0.borrow_mut().goes = Some(path.to_owned());
    }

    /// The store on it is encrypted under a store key of such bytes.
    pub(crate) fn set_store_key(&self, byte: Option<u8>) {
        self.0.borrow_mut().store_key = byte.map(|byte| [byte; 32]);
    }

    /// Nothing can be created any more, or again.
    pub(crate) fn set_full(&self, full: bool) {
        self.0.borrow_mut().full = full;
    }

    /// Nothing below `folder` can be read or written.
    pub(crate) fn set_unreadable(&self, folder: &Path, unreadable: bool) {
        self.0.borrow_mut().broken.entry(folder.to_owned()).or_default().unreadable = unreadable;
    }

    /// Nothing can be created below `folder`.
    pub(crate) fn set_full_at(&self, folder: &Path, full: bool) {
        self.0.borrow_mut().broken.entry(folder.to_owned()).or_default().full = full;
    }

    /// No sync succeeds below `folder`.
    pub(crate) fn set_sync_fails(&self, folder: &Path, fails: bool) {
        self.0.borrow_mut().broken.entry(folder.to_owned()).or_default().sync_fails = fails;
    }

    /// How many bytes are left below `folder`; 0 before it was said.
    pub(crate) fn set_free(&self, folder: &Path, bytes: u64) {
        self.0.borrow_mut().broken.entry(folder.to_owned()).or_default().free = bytes;
    }

    /// Something else is mounted at `folder`, or what was before.
    pub(crate) fn set_device(&self, folder: &Path, device: u32) {
        self.0.borrow_mut().broken.entry(folder.to_owned()).or_default().device = device;
    }

    fn broken(&self, path: &Path) -> Broken {
        let state = self.0.borrow();
        let found = state.broken.iter().rev().find(|(folder, _)| path.starts_with(folder));
        found.map(|(_, broken)| *broken).unwrap_or_default()
    }

    fn readable(&self, path: &Path) -> io::Result<()> {
        if self.broken(path).unreadable { Err(io::Error::other("unreadable")) } else { Ok(()) }
    }

    fn operation(&self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.operations += 1;
        if state.fail_at == Some(state.operations) {
            state.fail_at = None;
            return Err(io::Error::other("failed on request"));
        }
        Ok(())
    }

    /// `watch` sees all that is written from now on, also what fails, and what is written after a cut.
    pub(crate) fn watch(&self, watch: impl Fn(&Path, u64, &[u8]) + 'static) {
        self.0.borrow_mut().watch = Some(Rc::new(watch));
    }

    /// What is there after a power cut: of each unsynced block the old or the new content.
    pub(crate) fn power_cut(&self, random: &mut Prng) -> TestDisk {
        let after = TestDisk::default();
        after.0.borrow_mut().store_key = self.0.borrow().store_key;
        after.0.borrow_mut().watch = self.0.borrow().watch.clone();
        for (path, content) in &self.0.borrow().files {
            let content = content.borrow();
            let mut bytes = content.synced.clone();
            // Of a cut that was not synced either length may be left.
            if bytes.len() < content.bytes.len() || random.below(2) == 1 {
                bytes.resize(content.bytes.len(), 0);
            }
            for block in &content.dirty {
                if random.below(2) == 1 {
                    let end = (block * BLOCK + BLOCK).min(content.bytes.len());
                    bytes[block * BLOCK..end].copy_from_slice(&content.bytes[block * BLOCK..end]);
                }
            }
            after.put(path, bytes);
        }
        after
    }

    /// Puts a file there, durable.
    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        let synced = bytes.clone();
        let content = Content { bytes, synced, dirty: Vec::new(), failed: false };
        self.0.borrow_mut().files.insert(path.to_owned(), Rc::new(RefCell::new(content)));
    }

    /// A file as readers see it.
    pub(crate) fn get(&self, path: &Path) -> Vec<u8> {
        self.0.borrow().files[path].borrow().bytes.clone()
    }

    /// All paths.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.0.borrow().files.keys().cloned().collect()
    }

    /// A file that failed may be written again by whoever overwrites it and reads it back from the medium.
    pub(crate) fn forgive(&self, path: &Path) {
        if let Some(content) = self.0.borrow().files.get(path) {
            content.borrow_mut().failed = false;
        }
    }

    fn find(&self, path: &Path) -> io::Result<TestFile> {
        self.readable(path)?;
        let state = self.0.borrow();
        let content = state.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        let content = Rc::clone(content);
        let (disk, path, view) = (self.clone(), path.to_owned(), View::Write);
        Ok(TestFile { disk, path, content, view, ends_key: false })
    }
}

impl Disk for TestDisk {
    type File = TestFile;

    fn create(&self, path: &Path, bytes: u64) -> io::Result<TestFile> {
        self.operation()?;
        self.readable(path)?;
        if self.0.borrow().full || self.broken(path).full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.0.borrow().files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.put(path, vec![0; bytes as usize]);
        self.find(path)
    }

    fn open(&self, path: &Path) -> io::Result<TestFile> {
        self.find(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation()?;
        let mut state = self.0.borrow_mut();
        let content = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn open_read(&self, path: &Path) -> io::Result<TestFile> {
        self.find(path).map(|file| TestFile { view: View::Read, ..file })
    }

    fn open_medium(&self, path: &Path) -> io::Result<TestFile> {
        self.find(path).map(|file| TestFile { view: View::Medium, ..file })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.readable(folder)?;
        let mut state = self.0.borrow_mut();
        let inside = state.files.keys().filter_map(|path| path.strip_prefix(folder).ok());
        let mut names: Vec<String> =
            inside.filter_map(|path| Some(path.iter().next()?.to_str()?.to_owned())).collect();
        names.dedup();
        if let Some(path) = state.goes.take_if(|path| path.parent() == Some(folder)) {
            state.files.remove(&path);
        }
        Ok(names)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.0.borrow_mut().files.remove(path);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn device(&self, folder: &Path) -> io::Result<String> {
        Ok(self.broken(folder).device.to_string())
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        self.readable(folder).map(|()| self.broken(folder).free)
    }

    fn keys(&self, purpose: &str) -> Vec<(u32, Zeroizing<[u8; 32]>)> {
        let store = self.0.borrow().store_key.map(Zeroizing::new);
        let store = store.map(|bytes| StoreKey::taken_over(1, bytes));
        store.iter().map(|key| (1, Zeroizing::new(*key.derive(purpose).expose()))).collect()
    }
}

impl DiskFile for TestFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let failed = self.disk.readable(&self.path).and_then(|()| self.disk.operation());
        if let Some(watch) = &self.disk.0.borrow().watch {
            watch(&self.path, offset, bytes);
        }
        let mut content = self.content.borrow_mut();
        // Of what is out of use a key must go all the same.
        self.ends_key = offset == 0 && bytes.iter().all(|byte| *byte == 0);
        assert!(!content.failed || self.ends_key, "written again after a failure");
        content.failed |= failed.is_err();
        // A failed write leaves half of itself.
        let count = if failed.is_err() { bytes.len() / 2 } else { bytes.len() };
        let (start, end) = (offset as usize, offset as usize + count);
        if content.bytes.len() < end {
            content.bytes.resize(end, 0);
        }
        content.bytes[start..end].copy_from_slice(&bytes[..count]);
        content.dirty.extend(start / BLOCK..end.div_ceil(BLOCK));
        failed
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let content = self.content.borrow();
        let medium = self.view == View::Medium;
        let bytes = if medium { &content.synced } else { &content.bytes };
        let rest = &bytes[(offset as usize).min(bytes.len())..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        let failed = self.disk.readable(&self.path).and_then(|()| self.disk.operation());
        let mut content = self.content.borrow_mut();
        assert!(!content.failed, "cut after a failure");
        content.failed = failed.is_err();
        if failed.is_ok() {
            content.bytes.truncate(bytes as usize);
            content.dirty.retain(|block| block * BLOCK < bytes as usize);
        }
        failed
    }

    fn sync(&mut self) -> io::Result<()> {
        let broken = self.disk.broken(&self.path);
        let failed = match broken.unreadable || broken.sync_fails {
            true => Err(io::Error::other("broken")),
            false => self.disk.operation(),
        };
        let mut content = self.content.borrow_mut();
        // Whoever opens it anew cannot know, and is told that all is well.
        let allowed = self.view != View::Write || !content.failed || self.ends_key;
        assert!(allowed, "synced again after a failure");
        content.failed |= failed.is_err();
        // After a failed sync Linux marks the pages clean all the same: a later one says yes and
        // writes nothing.
        if failed.is_ok() {
            let Content { bytes, synced, dirty, .. } = &mut *content;
            synced.resize(bytes.len(), 0);
            for block in dirty.iter() {
                let end = (block * BLOCK + BLOCK).min(bytes.len());
                synced[block * BLOCK..end].copy_from_slice(&bytes[block * BLOCK..end]);
            }
        }
        content.dirty.clear();
        failed
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.content.borrow().bytes.len() as u64)
    }
}
