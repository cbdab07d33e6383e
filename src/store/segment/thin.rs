//! Thinned segments: what stays of a segment when some or all of its extents are gone by retention.
//! Rows, clock maps, fences and trailer stay as they were sealed, so chain, roots and leaves can be
//! checked for ever, and an extent that stays keeps its proof.
//!
//! ```text
//! header 128 | extents that stay, byte for byte | rows | clock maps | fences | trailer 512
//!            | table: where each row's extent stands, or since when it is gone | rules
//!            | zeros to a block | tail 512, signed
//! ```
//!
//! A reader sees the segment that it was ([`SegmentFile`]): the same offsets, and an error that says
//! since when ([`Gone`]) where an extent was.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::extent::EXTENT_HEADER_BYTES;
use super::footer::{FENCE_BYTES, TRAILER_BYTES, Trailer};
use super::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::name::{SegmentName, folder};
use super::opener::Opener;
use super::read::{SegmentError, read_footer, read_trailer};
use super::thin_table::{
    Fate, THIN_HEADER_BYTES, THIN_ROW_BYTES, THIN_TAIL_BYTES, Tail, emit_header, parse_rules,
};
use super::verify::{SegmentReport, verify_opened};
use crate::base::ids::StreamId;
use crate::base::ports::{Disk, DiskFile};
use crate::base::time::Wall;
use crate::store::evidence::{Salt, Signers, THINNED, sha256, verify_in};
use crate::store::keys::KeyError;

/// Most bytes of table and rules that are read at once: 2 M rows.
const TABLE_BYTES_MAX: u64 = 128 << 20;

/// Why records of a segment are not there: nothing is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Since when.
    pub since: Wall,
    /// The class that it was kept by; empty where its key was destroyed and its bytes are still there.
    pub rule: String,
}

impl fmt::Display for Gone {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "gone by retention since {}", self.since)?;
        match &*self.rule {
            "" => out.write_str(", its key is destroyed"),
            rule => write!(out, ", class {rule}"),
        }
    }
}

impl std::error::Error for Gone {}

impl SegmentError {
    /// That an extent is gone by retention, where this is why it cannot be read.
    pub fn gone(&self) -> Option<Gone> {
        match self {
            SegmentError::Disk { source, .. } => gone(source).cloned(),
            SegmentError::Key { source: KeyError::Shredded { at }, .. } => {
                Some(Gone { since: *at, rule: String::new() })
            }
            _ => None,
        }
    }
}

fn gone(error: &io::Error) -> Option<&Gone> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// A file that is no thinned segment, or not as it was written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the thinned segment is damaged: {0}")]
struct NotThinned(&'static str);

/// A segment as its readers see it, whole or thinned.
pub enum SegmentFile<F> {
    /// All of it is there.
    Whole(F),
    /// Some of it is gone.
    Thinned(Box<Thinned<F>>),
    /// There is a file, and what it says of the rest is damaged: nothing of it is read.
    Damaged(&'static str),
}

/// See the module.
pub struct Thinned<F> {
    file: F,
    tail: Tail,
    trailer: Trailer,
    trailer_bytes: [u8; TRAILER_BYTES],
    fates: Vec<Fate>,
    rules: Vec<String>,
}

/// Opens a segment. While it is both, whole and thinned, it is whole.
pub fn open_segment<D: Disk>(
    disk: &D,
    store: &Path,
    name: SegmentName,
) -> io::Result<SegmentFile<D::File>> {
    let path = |file: String| folder(store).join(file);
    match disk.open_read(&path(name.file())) {
        // A whole one goes only once the thinned one is there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let thinned = disk.open_read(&path(name.thinned_file())).map_err(|other| {
                if other.kind() == io::ErrorKind::NotFound { error } else { other }
            })?;
            SegmentFile::of_thinned(thinned)
        }
        opened => opened.map(SegmentFile::Whole),
    }
}

/// Where a segment is: the path of the whole one, if it is there or nothing is.
pub fn segment_path<D: Disk>(disk: &D, store: &Path, name: SegmentName) -> PathBuf {
    let whole = disk.locate(&folder(store).join(name.file()));
    if disk.open_read(&whole).is_ok() {
        return whole;
    }
    let thinned = disk.locate(&folder(store).join(name.thinned_file()));
    if disk.open_read(&thinned).is_ok() { thinned } else { whole }
}

impl<F: DiskFile> SegmentFile<F> {
    /// A file that is a thinned segment by its name.
    pub fn of_thinned(file: F) -> io::Result<Self> {
        match Thinned::of(file) {
            Ok(thinned) => Ok(SegmentFile::Thinned(Box::new(thinned))),
            Err(error) => match error.get_ref().and_then(|why| why.downcast_ref()) {
                Some(NotThinned(why)) => Ok(SegmentFile::Damaged(why)),
                None => Err(error),
            },
        }
    }

    /// Checks it against its own proof, see [`verify_opened`], and where it is thinned what says so.
    pub fn verify(
        &self,
        streams: Option<&BTreeSet<StreamId>>,
        salt: &mut dyn FnMut(StreamId) -> Option<Salt>,
        signers: Option<&Signers>,
        opener: Option<&dyn Opener>,
    ) -> SegmentReport {
        let mut report = verify_opened(self, streams, salt, signers.map(Signers::own), opener);
        if let Some(thinned) = self.thinned() {
            report.faults.extend(thinned.faults(signers));
        }
        report
    }

    /// The thinned segment, where it is one.
    pub fn thinned(&self) -> Option<&Thinned<F>> {
        match self {
            SegmentFile::Thinned(thinned) => Some(thinned),
            SegmentFile::Whole(_) | SegmentFile::Damaged(_) => None,
        }
    }
}

impl<F: DiskFile> DiskFile for SegmentFile<F> {
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn cut(&mut self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        match self {
            SegmentFile::Whole(file) => file.read_at(offset, out),
            SegmentFile::Thinned(thinned) => thinned.read_at(offset, out),
            SegmentFile::Damaged(why) => Err(damaged(why)),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match self {
            SegmentFile::Whole(file) => file.sync(),
            SegmentFile::Thinned(thinned) => thinned.file.sync(),
            SegmentFile::Damaged(_) => Ok(()),
        }
    }

    fn bytes(&self) -> io::Result<u64> {
        match self {
            SegmentFile::Whole(file) => file.bytes(),
            SegmentFile::Thinned(thinned) => Ok(thinned.tail.segment_bytes),
            SegmentFile::Damaged(why) => Err(damaged(why)),
        }
    }
}

/// Damage is told from a disk that does not answer.
fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, NotThinned(why))
}

fn read_exact<F: DiskFile>(file: &F, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(offset + done as u64, &mut out[done..])? {
            0 => return Err(damaged("it ends too early")),
            count => done += count,
        }
    }
    Ok(())
}

impl<F: DiskFile> Thinned<F> {
    /// Reads what stands around the extents; of kind `InvalidData` where that is not as it was written.
    fn of(file: F) -> io::Result<Self> {
        let file_bytes = file.bytes()?;
        let mut bytes = [0; THIN_TAIL_BYTES];
        let tail_at = file_bytes.checked_sub(THIN_TAIL_BYTES as u64);
        let tail_at = tail_at.ok_or_else(|| damaged("it ends too early"))?;
        read_exact(&file, tail_at, &mut bytes)?;
        let tail = Tail::parse(&bytes, file_bytes).ok_or_else(|| damaged("no valid tail"))?;
        let table_bytes = tail.rows * THIN_ROW_BYTES as u64 + tail.rules_bytes;
        if table_bytes > TABLE_BYTES_MAX {
            return Err(damaged("its table is too long"));
        }
        let mut table = vec![0; table_bytes as usize];
        read_exact(&file, tail.table_at, &mut table)?;
        if sha256(&table) != tail.table {
            return Err(damaged("its table is not what was signed"));
        }
        let (rows, rules) = table.split_at(tail.rows as usize * THIN_ROW_BYTES);
        let fates: Option<Vec<Fate>> =
            rows.as_chunks::<THIN_ROW_BYTES>().0.iter().map(Fate::parse).collect();
        let fates = fates.ok_or_else(|| damaged("a row of its table is none"))?;
        let rules = parse_rules(rules).ok_or_else(|| damaged("its rules are none"))?;
        let mut trailer_bytes = [0; TRAILER_BYTES];
        read_exact(&file, tail.footer_at + tail.footer_bytes, &mut trailer_bytes)?;
        let trailer = Trailer::parse(&trailer_bytes, tail.segment_bytes)
            .filter(|trailer| trailer.head == tail.head && trailer.rows == tail.rows)
            .ok_or_else(|| damaged("no valid trailer"))?;
        let thinned = Thinned { file, tail, trailer, trailer_bytes, fates, rules };
        match thinned.disorder() {
            Some(why) => Err(damaged(why)),
            None => Ok(thinned),
        }
    }

    /// Whether its extents are other than: one behind the other, from the header up to the footer, as
    /// those of the segment were.
    fn disorder(&self) -> Option<&'static str> {
        let (mut offset, mut place) = (SEGMENT_HEADER_BYTES as u64, THIN_HEADER_BYTES as u64);
        let mut gone = 0;
        for fate in &self.fates {
            if fate.offset != offset || fate.bytes < EXTENT_HEADER_BYTES as u64 {
                return Some("the extents of its table are not in order");
            }
            let Some(end) = offset.checked_add(fate.bytes) else {
                return Some("an extent of its table is too long");
            };
            offset = end;
            match fate.place {
                Some(at) if at == place => place += fate.bytes,
                Some(_) => return Some("its extents are not in order"),
                None if self.rules.get(fate.rule as usize).is_none() => {
                    return Some("a rule of its table is none");
                }
                None => gone += 1,
            }
        }
        let Trailer { rows_at, fences_at, fences, .. } = self.trailer;
        if fences_at + fences * FENCE_BYTES as u64 - rows_at != self.tail.footer_bytes {
            return Some("its footer is not as long as its trailer says");
        }
        let footer = self.trailer.rows_at.checked_add(self.tail.footer_bytes);
        let pad = footer.zip(self.tail.segment_bytes.checked_sub(TRAILER_BYTES as u64));
        if offset != self.trailer.rows_at
            || place != self.tail.footer_at
            || gone != self.tail.gone
            || pad.is_none_or(|(footer, end)| footer > end)
        {
            return Some("its parts do not fit together");
        }
        None
    }

    /// Its tail.
    pub const fn tail(&self) -> &Tail {
        &self.tail
    }

    /// What became of row number `row`; `None`: it is here.
    pub fn gone(&self, row: usize) -> Option<Gone> {
        let fate = self.fates.get(row)?;
        fate.place.is_none().then(|| self.gone_by(fate))
    }

    fn gone_by(&self, fate: &Fate) -> Gone {
        let rule = self.rules.get(fate.rule as usize).cloned().unwrap_or_default();
        Gone { since: fate.since, rule }
    }

    /// What is wrong with what a thinned segment has beside its segment: signature, header, padding.
    /// `signers`: who may have signed; `None` takes its own word for it.
    pub fn faults(&self, signers: Option<&Signers>) -> Vec<String> {
        let mut faults = Vec::new();
        let tail = &self.tail;
        let key = &tail.public_key;
        if signers.is_some_and(|signers| !signers.may_thin(key)) {
            faults.push("what is gone from it was signed by another key".to_owned());
        } else if !verify_in(THINNED, key, &tail.signed(), &tail.signature) {
            faults.push("the signature does not fit what is said to be gone from it".to_owned());
        }
        let named = (self.trailer.worker, self.trailer.volume, self.trailer.number);
        if (tail.worker, tail.volume, tail.number) != named {
            faults.push("it was thinned as another segment".to_owned());
        }
        let mut header = [0; THIN_HEADER_BYTES];
        let read = read_exact(&self.file, 0, &mut header);
        if read.is_err() || header != emit_header(tail) {
            faults.push("the header of the thinned segment is damaged".to_owned());
        }
        let pad_at = tail.rules_at + tail.rules_bytes;
        let pad_bytes = tail.file_bytes - THIN_TAIL_BYTES as u64 - pad_at;
        let mut pad = vec![0; pad_bytes.min(1 << 16) as usize];
        let whole =
            pad.len() as u64 == pad_bytes && read_exact(&self.file, pad_at, &mut pad).is_ok();
        let mut tail_bytes = [0; THIN_TAIL_BYTES];
        let at = tail.file_bytes - THIN_TAIL_BYTES as u64;
        let tail_read = read_exact(&self.file, at, &mut tail_bytes);
        if !whole
            || pad.iter().any(|byte| *byte != 0)
            || tail_read.is_err()
            || tail_bytes != tail.emit()
        {
            faults.push(format!("the thinned segment is damaged behind offset {pad_at}"));
        }
        // The table says once more what the rows say.
        match read_trailer(self).and_then(|trailer| read_footer(self, trailer)) {
            Ok(footer) => {
                let same = footer
                    .rows
                    .iter()
                    .zip(&self.fates)
                    .all(|(row, fate)| (row.offset, row.bytes) == (fate.offset, fate.bytes));
                if !same {
                    faults.push("its table is not that of its rows".to_owned());
                }
            }
            Err(error) => faults.push(error.to_string()),
        }
        faults
    }

    /// The header of the segment that it was: it says what the trailer says.
    fn segment_header(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        SegmentHeader {
            worker: self.trailer.worker,
            volume: self.trailer.volume,
            number: self.trailer.number,
            from: self.trailer.from,
            through: self.trailer.through,
            created: self.trailer.created,
            previous: self.trailer.previous,
        }
        .emit()
    }
}

fn copy(from: &[u8], at: u64, out: &mut [u8]) -> usize {
    let left = &from[at as usize..];
    let count = left.len().min(out.len());
    out[..count].copy_from_slice(&left[..count]);
    count
}

/// Reads as the segment that it was.
impl<F: DiskFile> DiskFile for Thinned<F> {
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn cut(&mut self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let tail = &self.tail;
        let trailer_at = tail.segment_bytes - TRAILER_BYTES as u64;
        let rows_at = self.trailer.rows_at;
        let pad_at = rows_at + tail.footer_bytes;
        if offset >= tail.segment_bytes || out.is_empty() {
            return Ok(0);
        }
        if offset < SEGMENT_HEADER_BYTES as u64 {
            return Ok(copy(&self.segment_header(), offset, out));
        }
        if offset >= trailer_at {
            return Ok(copy(&self.trailer_bytes, offset - trailer_at, out));
        }
        if offset >= pad_at {
            let count = (trailer_at - offset).min(out.len() as u64) as usize;
            out[..count].fill(0);
            return Ok(count);
        }
        let (place, left) = if offset >= rows_at {
            (tail.footer_at + (offset - rows_at), pad_at - offset)
        } else {
            let found = self.fates.partition_point(|fate| fate.offset <= offset);
            let fate = &self.fates[found - 1];
            let Some(place) = fate.place else {
                return Err(io::Error::other(self.gone_by(fate)));
            };
            (place + (offset - fate.offset), fate.offset + fate.bytes - offset)
        };
        let count = left.min(out.len() as u64) as usize;
        self.file.read_at(place, &mut out[..count])
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.tail.segment_bytes)
    }
}
