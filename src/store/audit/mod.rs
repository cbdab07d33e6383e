//! The audit trail: who listened, exported, held, changed, configured, and who was refused. Entries are
//! chained by hash, and the newest head is sealed with the recordings, so that a trail cannot be changed
//! or cut without its showing. Formats: `appliance/docs/format-audit.md`.
//!
//! An act is recorded before it is done: [`Writer::append`] returns when the entry is durable, and where
//! it cannot be there is no act. The other way round an entry may stand for an act that was not come to.
//!
//! Whoever acts writes: the server, or a verb beside it. One at a time, which is for the caller to see to
//! (`host/audit` holds a lock); readers need none.

mod append;
mod entry;
mod read;
#[cfg(test)]
mod tests;

pub use append::Writer;
pub use entry::{Act, BODY_BYTES_MAX, Entry, Head, Outcome, Who, action};
pub use read::{
    Fault, Summary, Tail, Trail, Wrong, check_sealed, lost, newest, read, walk, walk_file,
};

use std::path::{Path, PathBuf};

use super::journal::JournalError;

/// Where the trail of a store lies.
pub fn folder(store: &Path) -> PathBuf {
    store.join("audit")
}

/// Why the trail cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The disk refused.
    #[error("audit trail: cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// Longer than any entry may be.
    #[error("audit trail: an entry of {bytes} bytes is longer than {BODY_BYTES_MAX}")]
    TooLong {
        /// Bytes of its body.
        bytes: usize,
    },
    /// Other writers have not come to an end.
    #[error("audit trail: others write it without end")]
    Busy,
}

impl AuditError {
    fn at<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(std::io::Error) -> AuditError + use<'a> {
        move |source| AuditError::Io { action, path: path.to_owned(), source }
    }

    /// Whether the store is one that nobody can write: a copy on a read-only disk, or another user's.
    /// A full disk is none.
    pub fn is_read_only(&self) -> bool {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        match self {
            AuditError::Io { source, .. } => {
                matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem)
            }
            AuditError::TooLong { .. } | AuditError::Busy => false,
        }
    }
}

/// As the journal says it.
impl From<JournalError> for AuditError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Io { action, path, source } => AuditError::Io { action, path, source },
            other => AuditError::Io {
                action: "read",
                path: PathBuf::new(),
                source: std::io::Error::other(other.to_string()),
            },
        }
    }
}
