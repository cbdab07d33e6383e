//! Thins a segment. At every instant the whole one or the thinned one is there: the thinned one is
//! written under a name of its own, synced, read back and renamed into place before the whole one goes.
//!
//! Where the segment is encrypted the keys of what goes are destroyed before anything else: until that is
//! done it can be read and is due, and from then on nobody can read it, wherever its bytes still are.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::footer::{Footer, Row, TRAILER_BYTES, Trailer};
use super::header::SEGMENT_HEADER_BYTES;
use super::name::{SegmentName, folder};
use super::read::{SegmentError, read_footer, read_trailer};
use super::thin::{Gone, SegmentFile, open_segment};
use super::thin_table::{
    Fate, RULES_MAX, THIN_HEADER_BYTES, THIN_TAIL_BYTES, Tail, emit_header, emit_rules,
};
use crate::base::ids::StreamId;
use crate::base::ports::{Disk, DiskFile};
use crate::base::time::Wall;
use crate::store::evidence::{Digest, Hash, Signers, SigningKey, THINNED, sha256};
use crate::store::keys::{KeyError, Of, SegmentKeys, bury, path_of};
use crate::store::log::BLOCK_BYTES;

/// Extents are copied in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// Why a segment stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum ThinError {
    /// The disk said no.
    #[error("{action} {}: {source}", path.display())]
    Disk {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The segment cannot be read.
    #[error("segment {file}: {source}")]
    Segment {
        /// Its name.
        file: String,
        /// What is wrong with it.
        source: SegmentError,
    },
    /// The keys of what is to go cannot be destroyed.
    #[error("keys of segment {file}: {source}")]
    Keys {
        /// Its name.
        file: String,
        /// What is wrong.
        source: KeyError,
    },
    /// What was written is not what is read.
    #[error("{}: what was written is not what is read back", path.display())]
    ReadBack {
        /// The file, which is removed.
        path: PathBuf,
    },
    /// By more rules than one table holds.
    #[error("segment {file} would be thinned by more than {RULES_MAX} rules")]
    Rules {
        /// Its name.
        file: String,
    },
}

/// How a segment is thinned.
pub struct Thinning<'a> {
    /// When.
    pub now: Wall,
    /// The entry of the audit trail that tells of it.
    pub audit: u64,
    /// Signs what is gone.
    pub key: &'a SigningKey,
}

/// What thinning a segment came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThinReport {
    /// Extents that have gone by it.
    pub gone: u64,
    /// Extents that stay.
    pub kept: u64,
    /// Bytes of the file before and after.
    pub bytes: (u64, u64),
}

impl Thinning<'_> {
    /// Thins `name`, of whose rows those go that `fate` names. `wait` is told of the bytes that were
    /// written, and of 0 once the thinned one is in place: whoever has listed the folder before must
    /// have come to its end when the whole one goes. `None`: nothing has to go.
    ///
    /// The extents of a stream have one key, and go together: one that goes before the others leaves it.
    pub fn run<D: Disk>(
        &self,
        disk: &D,
        store: &Path,
        name: SegmentName,
        fate: &dyn Fn(&Row) -> Option<String>,
        wait: &mut dyn FnMut(u64),
    ) -> Result<Option<ThinReport>, ThinError> {
        let fault = |source| ThinError::Segment { file: name.file(), source };
        let whole = disk.locate(&folder(store).join(name.file()));
        let source = open_segment(disk, store, name).map_err(|source| ThinError::Disk {
            action: "open",
            path: whole.clone(),
            source,
        })?;
        let footer = read_trailer(&source).and_then(|trailer| read_footer(&source, trailer));
        let footer = footer.map_err(fault)?;
        check_order(&footer).map_err(fault)?;
        let Some(plan) = Plan::of(&footer, &source, self.now, fate) else { return Ok(None) };
        if plan.rules.len() > RULES_MAX {
            return Err(ThinError::Rules { file: name.file() });
        }
        // Beside what it stands for: a store may lie in several folders.
        let (is_whole, before) = match &source {
            SegmentFile::Thinned(thinned) => (false, thinned.tail().file_bytes),
            _ => (true, footer.trailer.file_bytes),
        };
        let path = if is_whole {
            whole.with_file_name(name.thinned_file())
        } else {
            disk.locate(&folder(store).join(name.thinned_file()))
        };
        self.shred(disk, &path, name, &footer, &plan)?;
        let fresh = path.with_file_name(format!("{}.tmp", name.thinned_file()));
        let after = self.write(disk, &fresh, &source, &footer, &plan, wait).and_then(|written| {
            self.read_back(disk, &fresh, &written)?;
            disk.rename(&fresh, &path).map_err(at("rename", &fresh))?;
            Ok(written.bytes)
        });
        if after.is_err() {
            // What is not in place is in the way of nobody but the next attempt, which removes it, too.
            let _ = disk.remove(&fresh);
        }
        let after = after?;
        if is_whole {
            wait(0);
            disk.remove(&whole).map_err(at("remove", &whole))?;
            let folder = whole.parent().unwrap_or(&whole);
            disk.sync_names(folder).map_err(at("sync", folder))?;
        }
        let kept = footer.trailer.rows - plan.gone;
        Ok(Some(ThinReport { gone: plan.fresh, kept, bytes: (before, after) }))
    }

    /// Destroys the keys of streams of which nothing stays.
    fn shred<D: Disk>(
        &self,
        disk: &D,
        path: &Path,
        name: SegmentName,
        footer: &Footer,
        plan: &Plan,
    ) -> Result<(), ThinError> {
        let rows = || footer.rows.iter().zip(&plan.fates);
        let stream = |(row, _): (&Row, &Fate)| row.source.stream();
        let stays: BTreeSet<StreamId> =
            rows().filter(|(_, fate)| fate.place.is_some()).map(stream).collect();
        let goes: BTreeSet<StreamId> =
            rows().map(stream).filter(|one| !stays.contains(one)).collect();
        let goes: Vec<StreamId> = goes.into_iter().collect();
        let shredded = SegmentKeys::read(disk, &path_of(path))
            .and_then(|keys| keys.shred(disk, &goes, self.now).map(drop));
        match shredded {
            // In the clear, or there is no key that could be destroyed.
            Ok(()) | Err(KeyError::Missing { .. }) => Ok(()),
            // Whatever it holds, nobody needs it any more.
            Err(KeyError::Damaged { .. } | KeyError::Foreign { .. }) if stays.is_empty() => {
                let Trailer { volume, worker, number, .. } = footer.trailer;
                let buried =
                    bury(disk, &path_of(path), Of { volume, worker, number }, &goes, self.now);
                buried.map_err(|source| ThinError::Keys { file: name.file(), source })
            }
            Err(source) => Err(ThinError::Keys { file: name.file(), source }),
        }
    }

    fn write<D: Disk>(
        &self,
        disk: &D,
        path: &Path,
        source: &SegmentFile<D::File>,
        footer: &Footer,
        plan: &Plan,
        wait: &mut dyn FnMut(u64),
    ) -> Result<Written, ThinError> {
        let trailer = &footer.trailer;
        let rules = emit_rules(&plan.rules);
        let mut table: Vec<u8> = plan.fates.iter().flat_map(Fate::emit).collect();
        let footer_bytes =
            trailer.fences_at + trailer.fences * super::FENCE_BYTES as u64 - trailer.rows_at;
        let footer_at = plan.footer_at;
        let table_at = footer_at + footer_bytes + TRAILER_BYTES as u64;
        let rules_at = table_at + table.len() as u64;
        table.extend_from_slice(&rules);
        let end = table_at + (table.len() + THIN_TAIL_BYTES) as u64;
        let file_bytes = end.next_multiple_of(BLOCK_BYTES as u64);
        let mut tail = Tail {
            worker: trailer.worker,
            volume: trailer.volume,
            number: trailer.number,
            thinned: self.now,
            footer_at,
            footer_bytes,
            table_at,
            rows: trailer.rows,
            rules_at,
            rules_bytes: rules.len() as u64,
            file_bytes,
            segment_bytes: trailer.file_bytes,
            table: sha256(&table),
            head: trailer.head,
            audit: self.audit,
            gone: plan.gone,
            public_key: self.key.public_key(),
            signature: [0; 64],
        };
        tail.signature = self.key.sign_in(THINNED, &tail.signed());

        // Left by one that died.
        match disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at("remove", path)(error));
            }
            _ => {}
        }
        let mut file = disk.create(path, file_bytes).map_err(at("create", path))?;
        let mut sum = Digest::default();
        let mut done = 0;
        let mut put = |bytes: &[u8]| -> Result<(), ThinError> {
            file.write_at(done, bytes).map_err(at("write", path))?;
            sum.update(bytes);
            done += bytes.len() as u64;
            wait(bytes.len() as u64);
            Ok(())
        };
        put(&emit_header(&tail))?;
        let name = SegmentName { worker: trailer.worker, number: trailer.number };
        let mut piece = vec![0; PIECE_BYTES];
        let mut copy =
            |from: u64, bytes: u64, put: &mut dyn FnMut(&[u8]) -> Result<(), ThinError>| {
                let mut copied = 0;
                while copied < bytes {
                    let count = (bytes - copied).min(PIECE_BYTES as u64) as usize;
                    let got = source.read_at(from + copied, &mut piece[..count]);
                    let got = got.and_then(|got| {
                        if got == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(got) }
                    });
                    let got = got.map_err(|source| ThinError::Segment {
                        file: name.file(),
                        source: SegmentError::Disk { offset: from + copied, source },
                    })?;
                    put(&piece[..got])?;
                    copied += got as u64;
                }
                Ok(())
            };
        for fate in plan.fates.iter().filter(|fate| fate.place.is_some()) {
            copy(fate.offset, fate.bytes, &mut put)?;
        }
        copy(trailer.rows_at, footer_bytes, &mut put)?;
        copy(trailer.file_bytes - TRAILER_BYTES as u64, TRAILER_BYTES as u64, &mut put)?;
        put(&table)?;
        put(&vec![0; (file_bytes - end) as usize])?;
        put(&tail.emit())?;
        assert_eq!(done, file_bytes, "the thinned segment is as long as planned");
        file.sync().map_err(at("sync", path))?;
        Ok(Written { bytes: file_bytes, sum: sum.finish() })
    }

    /// What the medium holds is what was written, and reads as a thinned segment.
    fn read_back<D: Disk>(
        &self,
        disk: &D,
        path: &Path,
        written: &Written,
    ) -> Result<(), ThinError> {
        let file = disk.open_medium(path).map_err(at("open", path))?;
        let mut sum = Digest::default();
        let mut piece = vec![0; PIECE_BYTES];
        let mut done = 0;
        loop {
            let got = file.read_at(done, &mut piece).map_err(at("read back", path))?;
            if got == 0 {
                break;
            }
            sum.update(&piece[..got]);
            done += got as u64;
        }
        let same = done == written.bytes && sum.finish() == written.sum;
        let reads = SegmentFile::of_thinned(file).map_err(at("read back", path))?;
        let good = reads.thinned().is_some_and(|thinned| {
            thinned.faults(Some(&Signers::one(self.key.public_key()))).is_empty()
        });
        if same && good { Ok(()) } else { Err(ThinError::ReadBack { path: path.to_owned() }) }
    }
}

/// Extents lie one behind the other from header to rows: what else a footer says is nothing to copy by.
fn check_order(footer: &Footer) -> Result<(), SegmentError> {
    let mut end = SEGMENT_HEADER_BYTES as u64;
    for row in &footer.rows {
        let next = end.checked_add(row.bytes).filter(|_| row.offset == end);
        end = next.ok_or(SegmentError::Extent { offset: row.offset })?;
    }
    if end == footer.trailer.rows_at { Ok(()) } else { Err(SegmentError::Footer { offset: end }) }
}

struct Written {
    bytes: u64,
    sum: Hash,
}

/// What stays and what goes.
struct Plan {
    fates: Vec<Fate>,
    rules: Vec<String>,
    /// Behind the extents that stay.
    footer_at: u64,
    /// All that are gone afterwards; those that go now.
    gone: u64,
    fresh: u64,
}

impl Plan {
    /// `None`: nothing goes.
    fn of<F: DiskFile>(
        footer: &Footer,
        source: &SegmentFile<F>,
        now: Wall,
        fate: &dyn Fn(&Row) -> Option<String>,
    ) -> Option<Plan> {
        let mut plan = Plan {
            fates: Vec::with_capacity(footer.rows.len()),
            rules: Vec::new(),
            footer_at: THIN_HEADER_BYTES as u64,
            gone: 0,
            fresh: 0,
        };
        for (number, row) in footer.rows.iter().enumerate() {
            let before = source.thinned().and_then(|thinned| thinned.gone(number));
            let goes = before.is_none().then(|| fate(row)).flatten();
            plan.fresh += u64::from(goes.is_some());
            let gone = before.or(goes.map(|rule| Gone { since: now, rule }));
            let (place, since, rule) = match gone {
                Some(Gone { since, rule }) => {
                    plan.gone += 1;
                    (None, since, plan.rule(rule))
                }
                None => {
                    let place = plan.footer_at;
                    plan.footer_at += row.bytes;
                    (Some(place), Wall(0), 0)
                }
            };
            plan.fates.push(Fate { offset: row.offset, bytes: row.bytes, place, since, rule });
        }
        (plan.fresh > 0).then_some(plan)
    }

    fn rule(&mut self, name: String) -> u32 {
        let known = self.rules.iter().position(|rule| *rule == name);
        let place = known.unwrap_or_else(|| {
            self.rules.push(name);
            self.rules.len() - 1
        });
        place as u32
    }
}

fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ThinError + use<'a> {
    move |source| ThinError::Disk { action, path: path.to_owned(), source }
}

/// Removes a thinned segment whose whole one is still there: whoever wrote it died before that went, and
/// what was decided then may not hold any more. Returns whether there was one.
pub fn withdraw<D: Disk>(disk: &D, store: &Path, name: SegmentName) -> io::Result<bool> {
    let at = |file| disk.locate(&folder(store).join(file));
    let (whole, thinned) = (at(name.file()), at(name.thinned_file()));
    if disk.open_read(&whole).is_err() || disk.open_read(&thinned).is_err() {
        return Ok(false);
    }
    disk.remove(&thinned)?;
    disk.sync_names(thinned.parent().unwrap_or(&thinned))?;
    Ok(true)
}
