//! Reads commit groups, and opens those that are encrypted.

use std::io;
use std::path::PathBuf;

use super::crc32c;
use super::group::{GROUP_HEADER_BYTES, GroupHeader};
use super::scan::{Found, LogError, open_read, read_up_to};
use crate::base::ids::WorkerId;
use crate::base::ports::{Disk, DiskFile, Unopened, WrappedKey};
use crate::store::cipher::{GroupKey, Secret};

/// What stands where a group was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// Its payload, in the clear.
    Whole(Vec<u8>),
    /// The file no longer holds this group, or the sum is wrong.
    Damaged,
    /// The sum is right, and what it is over is not what was encrypted under the file's key. No torn write
    /// does that.
    Changed,
    /// The sum is right, and nobody here has the key.
    Locked,
}

/// The key of one use of a log file on `disk`, drawn now, and how it stands in the first block; `None`: the
/// disk is not encrypted.
pub fn new_key<D: Disk>(
    disk: &D,
    worker: WorkerId,
    file_sequence: u64,
) -> Option<(GroupKey, WrappedKey)> {
    let (secret, wrapped) = disk.log_keys()?.make(&context(worker, file_sequence));
    Some((GroupKey::new(Secret::new(secret)), wrapped))
}

/// What a secret is bound to.
fn context(worker: WorkerId, file_sequence: u64) -> String {
    format!("log worker {} use {file_sequence}", worker.0)
}

/// A log file open for reading, with the key of its use.
pub struct LogFile<F> {
    path: PathBuf,
    file: F,
    wrapped: Option<WrappedKey>,
    key: Result<Option<GroupKey>, Unopened>,
}

impl<F: DiskFile> LogFile<F> {
    /// Opens the file of a group.
    pub fn open<D: Disk<File = F>>(disk: &D, found: &Found) -> io::Result<Self> {
        let (path, wrapped) = (found.path.clone(), found.key);
        let key = secret(disk, found).map(|secret| secret.map(GroupKey::new));
        Ok(LogFile { file: open_read(disk, &path)?, path, wrapped, key })
    }

    /// Whether `found` stands in it.
    pub fn holds(&self, found: &Found) -> bool {
        self.path == found.path && self.wrapped == found.key
    }

    /// Reads a group, again checking header and sum.
    pub fn read(&self, found: &Found) -> Result<Content, LogError> {
        let total = GROUP_HEADER_BYTES + found.header.stored_bytes() as usize;
        let mut bytes = vec![0; total];
        let count = read_up_to(&self.file, found.offset, &mut bytes);
        let count = count.map_err(LogError::at(&found.path))?;
        if count < total || GroupHeader::parse(&bytes).as_ref() != Some(&found.header) {
            return Ok(Content::Damaged);
        }
        bytes.drain(..GROUP_HEADER_BYTES);
        if crc32c(&bytes) != found.header.payload_crc {
            return Ok(Content::Damaged);
        }
        let content = match &self.key {
            Ok(None) => Content::Whole(bytes),
            Ok(Some(key)) if found.header.open(key, &mut bytes).is_some() => {
                bytes.truncate(found.header.bytes as usize);
                Content::Whole(bytes)
            }
            Ok(Some(_)) | Err(Unopened::Changed) => Content::Changed,
            Err(Unopened::NoKey) => Content::Locked,
        };
        Ok(content)
    }

    /// Reads some of the payload of a group that was read before, from octet `at` of it on; returns how much.
    pub fn read_part(&self, found: &Found, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let Ok(key) = &self.key else { return Err(crate::store::keys::no_key()) };
        let count = self.file.read_at(found.offset + GROUP_HEADER_BYTES as u64 + at, out)?;
        if let Some(key) = key {
            key.part(found.header.group_sequence, at, &mut out[..count]);
        }
        Ok(count)
    }
}

/// What a group is encrypted under; `None`: it is in the clear.
pub(crate) fn secret<D: Disk>(disk: &D, found: &Found) -> Result<Option<Secret>, Unopened> {
    let Some(wrapped) = &found.key else { return Ok(None) };
    let keys = disk.log_keys().ok_or(Unopened::NoKey)?;
    let secret = keys.open(wrapped, &context(found.header.worker, found.header.file_sequence))?;
    Ok(Some(Secret::new(secret)))
}
