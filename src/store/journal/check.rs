//! Whether the files of a journal and of its history are those that were written: the chain from the
//! newest back to the first, and the signatures in them. Reads everything, changes nothing.

use std::path::Path;

use super::chain::{KIND, before, covers, link_fault};
use super::compaction::stands_for_all_before;
use super::entry::Entry;
use super::history::{self, Link};
use super::read::{JournalError, at, file_name, numbered, read_whole};
use super::{frame, history as past};
use crate::base::ports::Disk;
use crate::store::evidence::{FileMark, Hash, Signature};

/// Files move into the history minutes apart: a reader meets that once.
const READS_MAX: u32 = 8;

/// One file that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    /// Its name, below `journal` or `history`.
    pub file: String,
    /// What is wrong with it.
    pub why: String,
}

/// What checking found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalCheck {
    /// In the order of the files.
    pub faults: Vec<FileFault>,
    /// Files for which nothing but their sums speaks: of versions that did not sign.
    pub unsigned: Vec<String>,
    /// Whether anything is signed at all.
    pub chained: bool,
    /// Bytes at the end of the newest file that no seal covers yet.
    pub open_bytes: u64,
}

impl JournalCheck {
    fn fault(&mut self, file: &str, why: impl Into<String>) {
        self.faults.push(FileFault { file: file.to_owned(), why: why.into() });
    }
}

/// Who signed, and for which store.
pub struct Signed<'a> {
    /// The store.
    pub volume: &'a str,
    /// Whether one of its keys made the signature of a hash.
    pub by: &'a dyn Fn(&Hash, &Signature) -> bool,
}

struct File {
    number: u32,
    name: String,
    bytes: Vec<u8>,
}

/// Checks the journal in `dir` and the history in `past`, and that both hold what `heads` say: what a
/// log elsewhere, or the store itself, says that they held.
pub fn check<D: Disk>(
    disk: &D,
    dir: &Path,
    past: &Path,
    signed: &Signed<'_>,
    heads: &[FileMark],
) -> Result<JournalCheck, JournalError> {
    let mut tries = 0;
    loop {
        match check_once(disk, dir, past, signed, heads) {
            // Moved into the history since it was listed.
            Err(JournalError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && tries < READS_MAX =>
            {
                tries += 1;
            }
            result => return result,
        }
    }
}

fn files<D: Disk>(disk: &D, dir: &Path, suffix: &str) -> Result<Vec<File>, JournalError> {
    let mut files = Vec::new();
    for (number, name) in numbered(disk, dir, suffix)? {
        let path = dir.join(&name);
        let bytes = read_whole(disk, &path).map_err(at("read", &path))?;
        files.push(File { number, name, bytes });
    }
    Ok(files)
}

fn check_once<D: Disk>(
    disk: &D,
    dir: &Path,
    past: &Path,
    signed: &Signed<'_>,
    heads: &[FileMark],
) -> Result<JournalCheck, JournalError> {
    let mut check = JournalCheck::default();
    let mut journal = files(disk, dir, ".journal")?;
    let is_kept = |file: &File| {
        frame::read(&file.bytes).is_some_and(|(first, _)| stands_for_all_before(&first))
    };
    // What stands before the newest such file is on its way out, and nobody reads it.
    let base = journal.iter().rposition(is_kept);
    let gone = journal.drain(..base.unwrap_or(0)).collect::<Vec<_>>();
    let kept = base.and_then(|_| before(&journal[0].bytes));
    let replaces = kept.as_ref().map_or(&[][..], |kept| &kept.replaces);
    for file in &gone {
        let known = replaces.iter().find(|mark| mark.number == file.number);
        match known {
            Some(mark) if !mark.begins(&file.bytes) => {
                check.fault(&file.name, "does not hold what the file says that stands for it");
            }
            None if kept.is_some() => {
                check.fault(&file.name, "is not among those that were replaced");
            }
            _ => {}
        }
    }
    for (place, file) in journal.iter().enumerate() {
        links(&journal, place, replaces, &mut check);
        seals(file, signed, &mut check);
    }
    let newest = kept.as_ref().and_then(|kept| kept.history);
    let through = base.map(|_| journal[0].number);
    histories(files(disk, past, past::SUFFIX)?, through, newest, signed, &mut check);
    for head in heads {
        holds(&journal, replaces, head, &mut check);
    }
    check.faults.dedup();
    Ok(check)
}

/// What a file says of those before it.
fn links(journal: &[File], place: usize, replaces: &[FileMark], check: &mut JournalCheck) {
    let file = &journal[place];
    let below = place.checked_sub(1).map(|place| &journal[place]);
    let Some(said) = before(&file.bytes) else {
        // A first entry that never became durable is made up for by the file behind it.
        let is_named = journal[place + 1..].iter().any(|next| {
            let marks = before(&next.bytes).map(|said| said.previous).unwrap_or_default();
            marks.iter().any(|mark| mark.number == file.number && mark.bytes == 0)
        });
        if check.chained && !is_named && !file.bytes.is_empty() {
            check.fault(&file.name, "does not say what was before it");
        } else if !check.chained {
            check.unsigned.push(file.name.clone());
        }
        return;
    };
    check.chained = true;
    // One that stands for all before it says so by itself, and what it replaced is gone.
    if stands_alone(&file.bytes) {
        return;
    }
    let named = said.previous.iter().map(|mark| mark.number).max();
    if named != below.map(|below| below.number) {
        let name = |number: Option<u32>| number.map_or_else(|| "nothing".to_owned(), file_name);
        let found = below.map(|below| below.number);
        // A file of which nothing was durable may be gone.
        let lost = said.previous.iter().filter(|mark| Some(mark.number) > found);
        if lost.clone().any(|mark| mark.bytes > 0) || named < found {
            let (expected, found) = (name(named), name(found));
            let why = format!("expected {expected} before it, found {found}");
            check.fault(&file.name, why);
        }
    }
    for mark in &said.previous {
        let found = journal[..place].iter().find(|known| known.number == mark.number);
        let fault = found.and_then(|known| {
            let stood_for = || replaces.iter().any(|replaced| covers(replaced, mark));
            let why = match stands_alone(&known.bytes) {
                true if stood_for() => None,
                true => Some("does not stand for the file that had its name".to_owned()),
                false => link_fault(mark, &known.bytes, &file.bytes),
            };
            Some((&known.name, why?))
        });
        if let Some((name, why)) = fault {
            check.fault(name, why);
        }
    }
}

fn stands_alone(bytes: &[u8]) -> bool {
    frame::read(bytes).is_some_and(|(first, _)| stands_for_all_before(&first))
}

/// The signatures in a file. What is signed elsewhere stands here a second time and says nothing.
fn seals(file: &File, signed: &Signed<'_>, check: &mut JournalCheck) {
    let (mut at, mut covered) = (0, 0);
    while at < file.bytes.len() {
        let Some((entry, size)) = frame::read::<Entry>(&file.bytes[at..]) else {
            match frame::find(&file.bytes, at + 1) {
                Some(next) => at = next,
                None => break,
            }
            continue;
        };
        if let Entry::Durable { seal: Some(seal), .. } = entry
            && seal.covers.number == file.number
        {
            let digest = seal.covers.digest(KIND, signed.volume);
            if seal.covers.bytes != at as u64 || !seal.covers.begins(&file.bytes) {
                check.fault(&file.name, format!("is not what was signed before byte {at}"));
            } else if !(signed.by)(&digest, &seal.signature.0) {
                check
                    .fault(&file.name, format!("the seal at byte {at} is not by this store's key"));
            }
            covered = at + size;
        }
        at += size;
    }
    check.open_bytes = (file.bytes.len() - covered) as u64;
    if stands_alone(&file.bytes) && before(&file.bytes).is_some() && check.open_bytes > 0 {
        check.fault(&file.name, "does not end with its seal");
    }
}

/// The files of the history: each names the one before it, the journal the newest.
fn histories(
    files: Vec<File>,
    through: Option<u32>,
    newest: Option<FileMark>,
    signed: &Signed<'_>,
    check: &mut JournalCheck,
) {
    let name = |file: &File| format!("history/{}", file.name);
    // Above that number work was cut short: all of it still stands in the journal.
    let (files, ahead): (Vec<File>, Vec<File>) =
        files.into_iter().partition(|file| Some(file.number) <= through);
    let mut below: Option<&File> = None;
    let mut chained = false;
    for file in &files {
        match history::link(file.number, &file.bytes, signed.volume, signed.by) {
            Link::None if chained => check.fault(&name(file), "is not signed"),
            Link::None => check.unsigned.push(name(file)),
            Link::Broken(why) => check.fault(&name(file), why),
            Link::Follows(previous) => {
                // One that was rewritten may have been made by a version that did not sign.
                chained |= previous.is_some() || !history::is_rewritten(&file.bytes);
                let missing =
                    previous.filter(|mark| below.is_none_or(|below| below.number != mark.number));
                let fits = match (previous, below) {
                    (None, None) => true,
                    (None, Some(_)) => history::is_rewritten(&file.bytes),
                    (Some(mark), Some(below)) => history::is_or_replaces(&below.bytes, &mark),
                    _ => false,
                };
                if let Some(mark) = missing {
                    let gone = format!("history/{}", past::file_name(mark.number));
                    check.fault(&gone, format!("is not there, and {} follows it", file.name));
                } else if !fits {
                    check.fault(&name(file), "does not follow the file of the history before it");
                }
            }
        }
        below = Some(file);
    }
    for file in &ahead {
        if let Link::Broken(why) = history::link(file.number, &file.bytes, signed.volume, signed.by)
        {
            check.fault(&name(file), why);
        }
    }
    let Some(newest) = newest else {
        if chained {
            check.fault(&name(&files[files.len() - 1]), "is named by no file of the journal");
        }
        return;
    };
    match below {
        Some(last) if history::is_or_replaces(&last.bytes, &newest) => {}
        Some(last) if last.number == newest.number => {
            check.fault(&name(last), "does not hold what the journal says");
        }
        _ => {
            let file = format!("history/{}", past::file_name(newest.number));
            check.fault(&file, "is the newest by what the journal says");
        }
    }
}

/// Whether the journal goes as far as `head`, and is the same up to there.
fn holds(journal: &[File], replaces: &[FileMark], head: &FileMark, check: &mut JournalCheck) {
    let name = super::read::file_name(head.number);
    let Some(file) = journal.iter().find(|file| file.number == head.number) else {
        // What is older stands in another file, or in the history.
        if journal.first().is_none_or(|first| first.number < head.number) {
            check.fault(&name, "was the newest, and is gone");
        }
        return;
    };
    let there = file.bytes.len() as u64;
    if stands_alone(&file.bytes) {
        if !replaces.iter().any(|replaced| covers(replaced, head)) {
            check.fault(&name, "was another one");
        }
    } else if there < head.bytes {
        check.fault(&name, format!("was cut: it held {} bytes, it has {there}", head.bytes));
    } else if !head.begins(&file.bytes) {
        check.fault(&name, "was another one");
    }
}
