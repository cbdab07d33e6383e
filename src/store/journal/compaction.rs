//! Moves what the journal says of recordings that are over into the history, so that its folder
//! grows with what is live and not with what was.
//!
//! ```text
//!  files ≤ N ─┬─ entries of RSs that stand ──► N.journal, replaced; its first entry says `kept`
//!             └─ all others ────────────────► N.history                          (before that)
//! ```
//! Three steps, each durable before the next: the history file, the replaced journal file, the
//! removal of those before it. A cut behind the first leaves entries that stand twice, and replaying
//! them changes nothing; behind the second it leaves files that nobody reads any more, because a
//! `kept` file stands for all before it. No entry is ever in neither.
//!
//! It touches closed files only, so it runs beside the journal's thread. One at a time: whoever
//! starts it sees to that.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::chain::{Before, Chained, Signer, before, covers, link_fault, replaced};
use super::entry::Entry;
use super::file::{Folder, check_device, write_again};
use super::read::{HEAD_BYTES, JournalError, at, numbered, read_whole, snapshot_name, walk};
use super::{frame, history, snapshot};
use crate::base::faults::fault;
use crate::base::ids::RsId;
use crate::base::ports::{Disk, DiskFile};
use crate::store::evidence::{Digest, FileMark};
use crate::store::log::{Marks, learn_marks};

/// Closed files that are merged whatever their size: every start makes one.
const FILES_MAX: usize = 16;
/// Read in one step: an old journal of any length is worked off in such pieces. Two to three times
/// as much memory.
const STEP_BYTES: u64 = 16 * 1024 * 1024;

/// All that is needed to do it; made by [`super::Journal::compaction`].
pub struct Compaction<D> {
    pub(super) disk: D,
    /// The journal, as `disk` lists it.
    pub(super) dir: PathBuf,
    /// Where its files may be.
    pub(super) folders: Vec<Folder>,
    pub(super) history: PathBuf,
    /// The folder above it, which must not have been unmounted meanwhile (F18).
    pub(super) store: Folder,
    /// The two newest snapshots, older one first: files through the older are not read by a start.
    pub(super) snapshots: [u32; 2],
    /// RSs that stand: their entries stay.
    pub(super) standing: BTreeSet<RsId>,
    /// New files together as long as this, or as what is kept, are worth it.
    pub(super) file_bytes: u64,
    /// Whatever there is to move is worth it: somebody waits for it.
    pub(super) wanted: bool,
    /// Chains what it writes; `None`: nothing is chained.
    pub(super) signer: Option<Signer>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Files that went.
    pub files: usize,
    /// Bytes that went into the history.
    pub bytes: u64,
}

/// A file and what it holds.
struct Closed {
    number: u32,
    name: String,
    bytes: Vec<u8>,
    /// Something in the middle of it cannot be read.
    damaged: bool,
}

/// Frames by where they go.
#[derive(Default)]
struct Parted {
    start: Option<Entry>,
    stream_ids: Option<Entry>,
    marks: Marks,
    kept: Vec<u8>,
    over: Vec<u8>,
}

impl<D: Disk> Compaction<D> {
    /// Does all that there is to do. Where it fails the journal stays as long as it is.
    pub fn run(&self) -> Result<Compacted, JournalError> {
        let mut all = Compacted::default();
        // What stands for the files must be readable, not only there.
        let is_whole = |through: &u32| {
            let path = self.dir.join(snapshot_name(*through));
            let bytes = read_whole(&self.disk, &path).unwrap_or_default();
            snapshot::read(&bytes).is_some_and(|(found, _)| found == *through)
        };
        if !self.snapshots.iter().all(is_whole) {
            return Ok(all);
        }
        self.tidy_up()?;
        while let Some(done) = self.step()? {
            all.files += done.files;
            all.bytes += done.bytes;
        }
        Ok(all)
    }

    /// Removes what a cut left: unfinished files, and those that a kept one stands for.
    fn tidy_up(&self) -> Result<(), JournalError> {
        let folders = self.folders.iter().map(|folder| &folder.path);
        for folder in folders.chain([&self.history]) {
            // One that stays costs room and nothing else.
            let names = self.disk.list(folder).unwrap_or_default();
            for name in names.iter().filter(|name| name.ends_with(".kept.tmp")) {
                let _ = self.disk.remove(&folder.join(name));
            }
        }
        let files = self.files()?;
        let mut base = None;
        for (place, (_, name)) in files.iter().enumerate() {
            let path = self.dir.join(name);
            if self.is_kept(&path).map_err(at("read", &path))? {
                base = Some(place);
            }
        }
        for (number, name) in files.into_iter().take(base.unwrap_or(0)) {
            let closed = self.read(number, name)?;
            self.put_away(&closed)?;
        }
        Ok(())
    }

    /// Journal files that a start does not read.
    fn files(&self) -> Result<Vec<(u32, String)>, JournalError> {
        let mut files = numbered(&self.disk, &self.dir, ".journal")?;
        files.retain(|(number, _)| *number <= self.snapshots[0]);
        Ok(files)
    }

    /// Whether nothing was moved out of the first of `files` yet.
    fn is_first_new(&self, files: &[(u32, String)]) -> Result<bool, JournalError> {
        let Some((_, name)) = files.first() else { return Ok(false) };
        let path = self.dir.join(name);
        self.is_kept(&path).map(|is_kept| !is_kept).map_err(at("read", &path))
    }

    fn is_kept(&self, path: &Path) -> io::Result<bool> {
        let mut head = [0; HEAD_BYTES];
        let got = self.disk.open_read(path)?.read_at(0, &mut head)?;
        Ok(frame::read(&head[..got]).is_some_and(|(entry, _)| stands_for_all_before(&entry)))
    }

    fn read(&self, number: u32, name: String) -> Result<Closed, JournalError> {
        let path = self.dir.join(&name);
        let bytes = read_whole(&self.disk, &path).map_err(at("read", &path))?;
        let damaged = walk(&name, &bytes, 0, |_| ()).iter().any(|damage| damage.middle);
        Ok(Closed { number, name, bytes, damaged })
    }

    /// One piece of the work; `None` where it is not worth it.
    fn step(&self) -> Result<Option<Compacted>, JournalError> {
        let files = self.files()?;
        let mut sizes = Vec::new();
        for (_, name) in &files {
            let path = self.dir.join(name);
            let size = self.disk.open_read(&path).and_then(|file| file.bytes());
            sizes.push(size.map_err(at("read", &path))?);
        }
        // The first is what was kept, if anything was.
        let Some((&kept_bytes, new)) = sizes.split_first() else { return Ok(None) };
        let worth = self.file_bytes.max(kept_bytes);
        let is_worth = new.iter().sum::<u64>() >= worth || new.len() >= FILES_MAX || self.wanted;
        if !is_worth || new.is_empty() && !(self.wanted && self.is_first_new(&files)?) {
            return Ok(None);
        }
        let (mut batch, mut read) = (Vec::new(), 0);
        for ((number, name), bytes) in files.into_iter().zip(sizes) {
            if read >= kept_bytes.saturating_add(STEP_BYTES.max(worth)) {
                break;
            }
            read += bytes;
            batch.push(self.read(number, name)?);
        }
        // What is replaced must be whole: of the others damaged bytes are put aside.
        while batch.last().is_some_and(|last| last.damaged) {
            batch.pop();
        }
        let least = if self.wanted { 1 } else { 2 };
        if batch.len() < least {
            return Ok(None);
        }
        if self.signer.is_some() {
            check_links(&batch)?;
        }
        self.replace(batch)
    }

    fn replace(&self, mut batch: Vec<Closed>) -> Result<Option<Compacted>, JournalError> {
        let mark = |closed: &Closed| FileMark::of(closed.number, &closed.bytes);
        let replaces = batch.iter().map(mark).collect();
        let parted = self.part(&mut batch);
        let (last, before) = batch.split_last().expect("two or more");
        // Each file begins with one; without it there is nothing that could say `kept`.
        let Some(Entry::Start { version, volume, at: when, .. }) = parted.start else {
            return Ok(None);
        };
        let start = Entry::Start { version, volume, at: when, kept: true, before: None };
        let marks: Vec<_> = parted.marks.into_values().collect();
        let marks = (!marks.is_empty()).then_some(Entry::Durable { marks, seal: None });
        let heads = [Some(start), parted.stream_ids, marks];
        let mut past = match &self.signer {
            Some(_) => history::newest_mark(&self.disk, &self.history, last.number)?,
            None => None,
        };
        let over = history::write(last.number, &parted.over, past, self.signer.as_ref());
        if !parted.over.is_empty() {
            past = Some(FileMark::of(last.number, &over));
        }
        let said = Before { previous: Vec::new(), replaces, history: past };
        let kept = self.kept(last.number, &heads, &parted.kept, &said)?;
        if !parted.over.is_empty() {
            check_device(&self.disk, &self.store)?;
            let path = self.history.join(history::file_name(last.number));
            self.put(&path, &over, "history.kept.tmp", || {
                fault!("journal.history_rename");
            })?;
            // The name is durable where the store is, or nothing goes.
            check_device(&self.disk, &self.store)?;
        }
        let path = self.disk.locate(&self.dir.join(&last.name));
        let folder =
            self.folders.iter().find(|folder| path.parent() == Some(folder.path.as_path()));
        let Some(folder) = folder else {
            let why = io::Error::other("it is in no folder that may be written to");
            return Err(at("replace", &path)(why));
        };
        check_device(&self.disk, folder)?;
        self.put(&path, &kept, "kept.tmp", || {
            fault!("journal.kept_rename");
        })?;
        fault!("journal.kept_remove");
        before.iter().try_for_each(|closed| self.put_away(closed))?;
        Ok(Some(Compacted { files: before.len(), bytes: parted.over.len() as u64 }))
    }

    /// The bytes of a file that stands for all before it. Signed at its end, where it is chained.
    fn kept(
        &self,
        number: u32,
        heads: &[Option<Entry>],
        frames: &[u8],
        before: &Before,
    ) -> Result<Vec<u8>, JournalError> {
        let (mut kept, mut whole) = (Vec::new(), true);
        match &self.signer {
            None => {
                whole &= heads.iter().flatten().all(|entry| frame::write(entry, &mut kept));
                kept.extend_from_slice(frames);
            }
            Some(signer) => {
                let digest = Digest::new();
                let mut chained = Chained { signer, number, bytes: 0, digest, before };
                whole &= heads.iter().flatten().all(|entry| chained.put(entry, &mut kept));
                kept.extend_from_slice(frames);
                chained.took(frames);
                let end = Entry::Durable { marks: Vec::new(), seal: None };
                whole &= chained.put(&end, &mut kept);
            }
        }
        if whole { Ok(kept) } else { Err(JournalError::TooLong) }
    }

    /// Writes a file whole or not at all, instead of the one of that name if there is one.
    fn put(
        &self,
        path: &Path,
        bytes: &[u8],
        extension: &str,
        before_rename: impl FnOnce(),
    ) -> Result<(), JournalError> {
        let temporary = path.with_extension(extension);
        // Left by an attempt before; may well not exist.
        let _ = self.disk.remove(&temporary);
        write_again(&self.disk, &temporary, bytes).inspect_err(|_| {
            let _ = self.disk.remove(&temporary);
        })?;
        before_rename();
        self.disk.rename(&temporary, path).map_err(at("rename", &temporary))
    }

    /// Takes the bytes out of the files.
    fn part(&self, batch: &mut [Closed]) -> Parted {
        let mut parted = Parted::default();
        for closed in batch {
            let file = std::mem::take(&mut closed.bytes);
            let mut from = 0;
            while from < file.len() {
                let Some((entry, size)) = frame::read::<Entry>(&file[from..]) else {
                    match frame::find(&file, from + 1) {
                        Some(next) => from = next,
                        None => break,
                    }
                    continue;
                };
                let bytes = &file[from..from + size];
                from += size;
                match entry.rs() {
                    Some(rs) if self.standing.contains(&rs) => parted.kept.extend_from_slice(bytes),
                    Some(_) => parted.over.extend_from_slice(bytes),
                    None => match entry {
                        Entry::Start { .. } => parted.start = Some(entry),
                        Entry::Durable { marks, .. } => learn_marks(&mut parted.marks, &marks),
                        _ => parted.stream_ids = Some(entry),
                    },
                }
            }
        }
        parted
    }

    /// A file that others stand for goes. What could not be read of it may be wanted by somebody
    /// with better tools.
    fn put_away(&self, closed: &Closed) -> Result<(), JournalError> {
        let path = self.disk.locate(&self.dir.join(&closed.name));
        if closed.damaged {
            let aside = path.with_extension("journal.damaged");
            return self.disk.rename(&path, &aside).map_err(at("rename", &path));
        }
        self.disk.remove(&path).map_err(at("remove", &path))
    }
}

/// Whether the file whose first entry this is stands for all before it, together with the history.
pub(super) const fn stands_for_all_before(first: &Entry) -> bool {
    matches!(first, Entry::Start { kept: true, .. })
}

/// Whether each file of a batch is what the one behind it says. Where one is not, all of them stay as
/// they are: they are evidence of that.
fn check_links(batch: &[Closed]) -> Result<(), JournalError> {
    for next in batch {
        let Some(before) = before(&next.bytes) else { continue };
        for mark in &before.previous {
            let Some(found) = batch.iter().find(|closed| closed.number == mark.number) else {
                continue;
            };
            let fault = match replaced(&found.bytes) {
                Some(marks) if marks.iter().any(|replaced| covers(replaced, mark)) => None,
                Some(_) => Some("does not stand for the file that had its name".to_owned()),
                None => link_fault(mark, &found.bytes, &next.bytes),
            };
            if let Some(why) = fault {
                return Err(JournalError::Altered { number: mark.number, why });
            }
        }
    }
    Ok(())
}
