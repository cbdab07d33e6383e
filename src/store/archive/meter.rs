//! A disk that counts what is read from it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use crate::base::ports::{Disk, DiskFile, LogKeys};

/// Passes everything on and counts bytes read.
pub struct Meter<D> {
    disk: D,
    read: Arc<AtomicU64>,
}

/// A file of a [`Meter`].
pub struct MeterFile<F> {
    file: F,
    read: Arc<AtomicU64>,
}

impl<D> Meter<D> {
    /// Counts from 0.
    pub fn new(disk: D) -> Self {
        Meter { disk, read: Arc::default() }
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn file<F>(&self, file: F) -> MeterFile<F> {
        MeterFile { file, read: Arc::clone(&self.read) }
    }
}

impl<D: Disk> Disk for Meter<D> {
    type File = MeterFile<D::File>;

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Self::File> {
        self.disk.create(path, bytes).map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Self::File> {
        self.disk.open(path).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn open_read(&self, path: &Path) -> io::Result<Self::File> {
        self.disk.open_read(path).map(|file| self.file(file))
    }

    fn open_medium(&self, path: &Path) -> io::Result<Self::File> {
        self.disk.open_medium(path).map(|file| self.file(file))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn sync_names(&self, folder: &Path) -> io::Result<()> {
        self.disk.sync_names(folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn device(&self, folder: &Path) -> io::Result<String> {
        self.disk.device(folder)
    }

    fn locate(&self, path: &Path) -> PathBuf {
        self.disk.locate(path)
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

impl<F: DiskFile> DiskFile for MeterFile<F> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(offset, out)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.file.cut(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn written(&self, longest: u64) -> io::Result<u64> {
        self.file.written(longest)
    }
}
