//! The chain of the journal's files: each says in its first entry what the files before it held, and the
//! marks that are written each second are signed over everything before them in their file. So no frame
//! can be changed, taken out, put in or moved unseen, nor a file be removed; what was cut off at the end
//! shows by a head that is kept elsewhere.
//!
//! A journal without a signer (a version before, or a test) has none of it and is read as ever.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::frame;
use crate::store::evidence::{Digest, FileMark, Hex, SigningKey};

/// Names a file of the journal in what is signed.
pub(super) const KIND: &str = "journal";

/// What a file's first entry says of the files before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The file before, as far as it was durable; and those before that one whose own first entry was
    /// not. What came behind is said again in this file. None: this is the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<FileMark>,
    /// Of a file that stands for all before it: those that it was made of, and whose name it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<FileMark>,
    /// Of such a file: the newest file of the history then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<FileMark>,
}

/// A signature over all that stands before it in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// What it covers: ends where the frame begins that it stands in.
    pub covers: FileMark,
    /// By the store's signing key then.
    pub signature: Hex<64>,
}

/// Who signs the journal of a store. Clones share the key.
#[derive(Clone)]
pub struct Signer {
    /// The store's signing key.
    pub key: Arc<SigningKey>,
    /// The store.
    pub volume: String,
}

impl Signer {
    pub(super) fn seal(&self, covers: FileMark) -> Seal {
        Seal { covers, signature: Hex(covers.sign(KIND, &self.volume, &self.key)) }
    }
}

/// Frames of a chained file, one behind the other.
pub(super) struct Chained<'a> {
    pub(super) signer: &'a Signer,
    pub(super) number: u32,
    /// What the file holds by now.
    pub(super) bytes: u64,
    pub(super) digest: Digest,
    pub(super) before: &'a Before,
}

impl Chained<'_> {
    pub(super) fn mark(&self) -> FileMark {
        let sha256 = Hex(self.digest.clone().finish());
        FileMark { number: self.number, bytes: self.bytes, sha256 }
    }

    /// Appends the frame of `entry` to `out`. False: it is too long.
    pub(super) fn put(&mut self, entry: &Entry, out: &mut Vec<u8>) -> bool {
        let at = out.len();
        let written = match entry {
            Entry::Start { version, volume, at, kept, .. } if self.bytes == 0 => {
                let (version, volume, at, kept) = (*version, volume.clone(), *at, *kept);
                let before = Some(self.before.clone());
                frame::write(&Entry::Start { version, volume, at, kept, before }, out)
            }
            Entry::Durable { marks, .. } => {
                let seal = Some(self.signer.seal(self.mark()));
                frame::write(&Entry::Durable { marks: marks.clone(), seal }, out)
            }
            _ => frame::write(entry, out),
        };
        self.took(&out[at..]);
        written
    }

    /// Frames that are there already.
    pub(super) fn took(&mut self, frames: &[u8]) {
        self.digest.update(frames);
        self.bytes += frames.len() as u64;
    }
}

/// What the first entry of a file says of those before it; `None` where it says nothing.
pub(super) fn before(file: &[u8]) -> Option<Before> {
    match frame::read(file) {
        Some((Entry::Start { before, .. }, _)) => before,
        _ => None,
    }
}

/// What is wrong with `file` by what the one behind it says of it. Behind what was durable of it may
/// stand only what that one says again.
pub(super) fn link_fault(mark: &FileMark, file: &[u8], next: &[u8]) -> Option<String> {
    if !mark.begins(file) {
        return Some("does not hold what the file behind it says".to_owned());
    }
    let mut at = mark.bytes as usize;
    while let Some((entry, size)) = frame::read::<Entry>(&file[at..]) {
        let again = &file[at..at + size];
        let is_start = matches!(entry, Entry::Start { .. });
        if !is_start && memchr::memmem::find(next, again).is_none() {
            return Some(format!(
                "holds an entry at byte {at} that was not there when it was closed"
            ));
        }
        at += size;
    }
    None
}

/// What a file replaced that stands for all before it; `None`: it is no such file.
pub(super) fn replaced(file: &[u8]) -> Option<Vec<FileMark>> {
    match frame::read(file) {
        Some((Entry::Start { kept: true, before, .. }, _)) => {
            Some(before.map(|before| before.replaces).unwrap_or_default())
        }
        _ => None,
    }
}

/// Whether what `mark` says may have been a part of what was replaced.
pub(super) fn covers(replaced: &FileMark, mark: &FileMark) -> bool {
    let whole = (mark.bytes, mark.sha256) == (replaced.bytes, replaced.sha256);
    replaced.number == mark.number && (mark.bytes < replaced.bytes || whole)
}
