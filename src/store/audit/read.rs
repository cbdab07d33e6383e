//! Reads the trail and checks its chain, without changing anything: for verbs and verifiers beside whoever
//! writes. Total: any bytes give an answer.
//!
//! A file may end in a piece of an entry whose writer was stopped; whoever writes next begins a new file, so
//! that the chain goes on behind it. Such a piece was promised to nobody. Bytes in the middle that are no
//! entry, an entry that is missing, and one that does not lead on from the one before are faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use super::entry::{Entry, Head};
use super::{AuditError, folder};
use crate::base::ports::Disk;
use crate::store::evidence::Hash;
use crate::store::journal::frame::{self, HEAD_BYTES};
use crate::store::journal::{numbered, read_whole};

/// What is wrong at one place of the trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// File name; empty where no file is at fault alone.
    pub file: String,
    /// Byte in it.
    pub at: u64,
    /// What.
    pub wrong: Wrong,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// So many bytes are no entry.
    Damaged {
        /// How many.
        bytes: u64,
    },
    /// Another entry should follow here: some are missing, or have changed places.
    Number {
        /// The number that should follow.
        expected: u64,
        /// The one that does.
        found: u64,
    },
    /// An entry does not lead on from the one before: one of them is not what was written.
    Link {
        /// The later one.
        number: u64,
    },
    /// The trail ends before an entry that was sealed with the recordings.
    Cut {
        /// The sealed one.
        sealed: u64,
        /// The last one that is there.
        last: u64,
    },
    /// Files are numbered from 1 without gaps, and this is not the next one.
    File {
        /// The number that is not there.
        expected: u32,
    },
    /// An entry is not the one that was sealed with the recordings.
    Changed {
        /// Its number.
        number: u64,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Damaged { bytes } => write!(f, "{bytes} bytes are no entry"),
            Wrong::Number { expected, found } => {
                write!(f, "entry {expected} should follow, found {found}")
            }
            Wrong::Link { number } => write!(
                f,
                "entry {number} does not lead on from the one before: one of them was changed"
            ),
            Wrong::Cut { sealed, last } => write!(
                f,
                "the trail ends with entry {last}, and entry {sealed} was sealed with the recordings"
            ),
            Wrong::File { expected } => write!(f, "file {expected} should come before it"),
            Wrong::Changed { number } => {
                write!(f, "entry {number} is not the one that was sealed with the recordings")
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.is_empty() {
            return write!(f, "audit trail: {}", self.wrong);
        }
        write!(f, "audit trail: {} at byte {}: {}", self.file, self.at, self.wrong)
    }
}

/// The end of a file that is a piece of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// File name.
    pub file: String,
    /// First byte.
    pub from: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a walk over the trail came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The newest entry.
    pub head: Head,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// Pieces of entries at the ends of files.
    pub tails: Vec<Tail>,
}

/// The whole trail.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// All entries, in the order of the chain.
    pub entries: Vec<Entry>,
    /// What is wrong with it, and its newest entry.
    pub summary: Summary,
}

/// Reads all entries of the trail of `store`; none where it has no trail.
pub fn read<D: Disk>(disk: &D, store: &Path) -> Result<Trail, AuditError> {
    let mut trail = Trail::default();
    trail.summary = walk(disk, store, |entry, _| trail.entries.push(entry))?;
    Ok(trail)
}

/// Shows each entry of the trail of `store` with the hash of its body to `learn`, in the order of the
/// chain.
pub fn walk<D: Disk>(
    disk: &D,
    store: &Path,
    mut learn: impl FnMut(Entry, &Hash),
) -> Result<Summary, AuditError> {
    let folder = folder(store);
    let mut chain = Chain::default();
    let mut expected = 1;
    for (number, name) in numbered(disk, &folder, ".audit")? {
        if number != expected {
            let (file, wrong) = (name.clone(), Wrong::File { expected });
            chain.summary.faults.push(Fault { file, at: 0, wrong });
        }
        expected = number.saturating_add(1);
        let path = folder.join(&name);
        let bytes = read_whole(disk, &path).map_err(AuditError::at("read", &path))?;
        chain.file(&name, &bytes, &mut learn);
    }
    Ok(chain.summary)
}

/// The newest entry of `store` that `is_it` likes. Reads from the end, and no further than it must: a fault
/// before that shows to [`walk`] only.
pub fn newest<D: Disk>(
    disk: &D,
    store: &Path,
    is_it: impl Fn(&Entry) -> bool,
) -> Result<Option<Entry>, AuditError> {
    let folder = folder(store);
    for (_, name) in numbered(disk, &folder, ".audit")?.iter().rev() {
        let path = folder.join(name);
        let bytes = read_whole(disk, &path).map_err(AuditError::at("read", &path))?;
        let mut found = None;
        walk_file(name, &bytes, |entry, _| {
            if is_it(&entry) {
                found = Some(entry);
            }
        });
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// What is wrong with a trail that ends with `last` and does not hold `sealed`.
pub fn lost(sealed: Head, last: Head) -> Fault {
    let wrong = if sealed.number > last.number {
        Wrong::Cut { sealed: sealed.number, last: last.number }
    } else {
        Wrong::Changed { number: sealed.number }
    };
    Fault { file: String::new(), at: 0, wrong }
}

/// Holds the trail of `store` against heads that were sealed with its recordings: those that it does not
/// lead to.
pub fn check_sealed<D: Disk>(
    disk: &D,
    store: &Path,
    sealed: &BTreeSet<Head>,
) -> Result<Vec<Fault>, AuditError> {
    let mut wanted: BTreeMap<u64, BTreeSet<Hash>> = BTreeMap::new();
    for head in sealed.iter().filter(|head| head.number > 0) {
        wanted.entry(head.number).or_default().insert(head.hash);
    }
    let summary = walk(disk, store, |entry, hash| {
        if let Some(hashes) = wanted.get_mut(&entry.number) {
            hashes.remove(hash);
        }
    })?;
    let last = summary.head.number;
    wanted.retain(|_, hashes| !hashes.is_empty());
    let cut = wanted.keys().next_back().filter(|number| **number > last);
    let cut = cut.map(|number| Wrong::Cut { sealed: *number, last });
    let changed = wanted.range(..=last).map(|(number, _)| Wrong::Changed { number: *number });
    let wrong = changed.chain(cut);
    Ok(wrong.map(|wrong| Fault { file: String::new(), at: 0, wrong }).collect())
}

/// Shows each entry of the bytes of one file to `learn`, as if it were the whole trail.
pub fn walk_file(name: &str, bytes: &[u8], mut learn: impl FnMut(Entry, &Hash)) -> Summary {
    let mut chain = Chain::default();
    chain.file(name, bytes, &mut learn);
    chain.summary
}

/// The chain as far as it was read.
#[derive(Default)]
struct Chain {
    summary: Summary,
    /// Hashes of the last file that had any entry: what a writer says again stands in it.
    recent: BTreeMap<u64, Hash>,
}

impl Chain {
    fn file(&mut self, name: &str, bytes: &[u8], learn: &mut impl FnMut(Entry, &Hash)) {
        let fault = |at: usize, wrong| Fault { file: name.to_owned(), at: at as u64, wrong };
        let mut own = BTreeMap::new();
        let mut at = 0;
        // The first entries of a file may be said again: those before may not be on the disk (F12).
        let mut again = true;
        while at < bytes.len() {
            let Some((entry, size)) = frame::read::<Entry>(&bytes[at..]) else {
                let next = frame::find_as::<Entry>(bytes, at + 1);
                let rest = &bytes[at..next.unwrap_or(bytes.len())];
                if next.is_none() && is_torn(rest) {
                    let (from, bytes) = (at as u64, rest.len() as u64);
                    self.summary.tails.push(Tail { file: name.to_owned(), from, bytes });
                } else {
                    let bytes = rest.len() as u64;
                    self.summary.faults.push(fault(at, Wrong::Damaged { bytes }));
                }
                at += rest.len();
                continue;
            };
            let head = Head::of(entry.number, &bytes[at + HEAD_BYTES..at + size]);
            let known = self.recent.get(&entry.number).or_else(|| own.get(&entry.number));
            if again && known == Some(&head.hash) {
                own.insert(head.number, head.hash);
                at += size;
                continue;
            }
            again = false;
            let last = self.summary.head;
            if entry.number != last.number + 1 {
                let (expected, found) = (last.number + 1, entry.number);
                self.summary.faults.push(fault(at, Wrong::Number { expected, found }));
            } else if entry.previous != last.hash {
                let number = entry.number;
                self.summary.faults.push(fault(at, Wrong::Link { number }));
            }
            own.insert(head.number, head.hash);
            self.summary.head = head;
            learn(entry, &head.hash);
            at += size;
        }
        if !own.is_empty() {
            self.recent = own;
        }
    }
}

/// Whether the end of a file is what a writer leaves that was stopped: less than a whole frame, or blocks that
/// were never filled. JSON has no zero byte.
fn is_torn(rest: &[u8]) -> bool {
    let Some((head, body)) = rest.split_at_checked(HEAD_BYTES) else { return true };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    length == 0 || head[4..] == [0; 4] || body.len() < length || memchr::memchr(0, body).is_some()
}

/// Where the last entry of a file ends, the frames that it holds, and whether anything follows them.
pub(super) struct Ending {
    /// Frames of the file, each with what it makes the head.
    pub(super) frames: Vec<(Head, std::ops::Range<usize>)>,
    /// Every byte belongs to one of them.
    pub(super) whole: bool,
}

impl Ending {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut ending = Ending { frames: Vec::new(), whole: true };
        let mut at = 0;
        while at < bytes.len() {
            if let Some((entry, size)) = frame::read::<Entry>(&bytes[at..]) {
                let head = Head::of(entry.number, &bytes[at + HEAD_BYTES..at + size]);
                ending.frames.push((head, at..at + size));
                at += size;
            } else {
                ending.whole = false;
                at = frame::find_as::<Entry>(bytes, at + 1).unwrap_or(bytes.len());
            }
        }
        ending
    }
}
