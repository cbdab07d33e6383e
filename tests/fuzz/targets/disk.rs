//! Files of a store in memory, for readers.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use floortape::base::ports::{Disk, DiskFile, LogKeys, LogSecret, Unopened, WrappedKey};

/// A disk that can only be read.
pub(super) struct Image(pub(super) BTreeMap<PathBuf, Vec<u8>>);

/// One file.
pub(super) struct ImageFile(pub(super) Vec<u8>);

impl Disk for Image {
    type File = ImageFile;

    fn create(&self, _: &Path, _: u64) -> io::Result<ImageFile> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, path: &Path) -> io::Result<ImageFile> {
        self.open_read(path)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open_read(&self, path: &Path) -> io::Result<ImageFile> {
        self.0.get(path).cloned().map(ImageFile).ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let inside = self.0.keys().filter_map(|path| path.strip_prefix(folder).ok());
        Ok(inside.filter_map(|path| Some(path.iter().next()?.to_str()?.to_owned())).collect())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn log_keys(&self) -> Option<&dyn LogKeys> {
        Some(&OneKey)
    }
}

/// Knows store key 1, under which every secret is the same.
pub(super) struct OneKey;

impl LogKeys for OneKey {
    fn make(&self, _: &str) -> (LogSecret, WrappedKey) {
        ([5; 32].into(), WrappedKey { store_key: 1, bytes: [6; 60] })
    }

    fn open(&self, key: &WrappedKey, _: &str) -> Result<LogSecret, Unopened> {
        match key.store_key {
            1 => Ok([5; 32].into()),
            2 => Err(Unopened::Changed),
            _ => Err(Unopened::NoKey),
        }
    }
}

impl DiskFile for ImageFile {
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let count = out.len().min(self.0.len() - start);
        out[..count].copy_from_slice(&self.0[start..start + count]);
        Ok(count)
    }

    fn cut(&mut self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}
