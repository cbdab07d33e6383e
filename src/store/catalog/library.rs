//! A store as its readers see it: journal, archive and, where there is one, the index.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::fold::{Journalled, RsEntry};
use super::index::{ExtentRow, Extents, Find, Found, Index, IndexError};
use super::model::Recording;
use super::read::{Watch, assemble};
use crate::base::ids::{RsId, SourceId, StreamId, WorkerId};
use crate::base::ports::Disk;
use crate::base::time::Wall;
use crate::store::archive::{
    Archive, ArchiveError, Damaged, Hint, Hints, Proving, Run, Seen, Visit, Watermark,
};
use crate::store::journal::{self, Damage, JournalError, history};
use crate::store::ledger::Loss;
use crate::store::segment::{self, SegmentName, SegmentSet, clock_at};

/// Why a store cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The segments and logs.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// A store, for reading.
pub struct Library<D: Disk + Clone> {
    /// Records.
    pub archive: Archive<D>,
    disk: D,
    journal_dir: PathBuf,
    history: PathBuf,
    /// What the journal says, and what of it cannot be read: read when first asked for, because one
    /// settled recording of many needs none of it.
    journal: OnceCell<(Journalled, Vec<Damage>)>,
    index: Option<Box<dyn Index>>,
    /// See [`Library::for_proofs`].
    by_footers: bool,
    /// Segments that the index knows and that are not there: looked for when first asked.
    gone: OnceCell<SegmentSet>,
    /// How far each worker's records go: read before anything else, so that what they promise is
    /// there when records are read.
    pub(super) marks: BTreeMap<WorkerId, Watermark>,
}

/// Recordings read in one pass over the store.
#[derive(Debug, Default)]
pub struct Reading {
    /// In order of start.
    pub recordings: Vec<Recording>,
    /// Those of which nothing can change any more.
    pub settled: BTreeSet<RsId>,
    /// What could not be read, and may be of one of them.
    pub damaged: Vec<Damaged>,
    /// Records that were durable and that no file holds any more.
    pub losses: Vec<Loss>,
    /// Recordings of which each stream is sealed to its own last record.
    pub ends_sealed: BTreeSet<RsId>,
    /// SSRCs by source.
    pub ssrcs: BTreeMap<SourceId, u32>,
}

/// What an index does not know yet.
pub struct Stale<'a> {
    fresh: Vec<(SegmentName, Vec<ExtentRow>)>,
    /// Segments of which extents are gone, and how many.
    thinned: Vec<(SegmentName, u64)>,
    /// Recordings that are over, and not settled there.
    pub ended: Vec<&'a RsEntry>,
}

impl Reading {
    /// Whether some of what was lost may be of `rs`: it was up then, and not all of it is known to be there.
    pub fn may_miss(&self, rs: &RsEntry, loss: &Loss) -> bool {
        rs.was_up(loss.since, loss.until) && !(loss.tail && self.ends_sealed.contains(&rs.id))
    }

    /// Adds what was read of other recordings. What all of them share is told once.
    pub fn join(&mut self, other: Reading) {
        fn once<T: PartialEq>(all: &mut Vec<T>, more: Vec<T>) {
            for one in more {
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
        self.recordings.extend(other.recordings);
        self.recordings.sort_by_key(|recording| (recording.start, recording.id));
        self.settled.extend(other.settled);
        self.ends_sealed.extend(other.ends_sealed);
        once(&mut self.damaged, other.damaged);
        once(&mut self.losses, other.losses);
        self.ssrcs.extend(other.ssrcs);
    }
}

/// A span with what bounds the gaps at its edges: events of the host a little before and after.
pub(super) fn with_margin((from, to): (Wall, Wall)) -> (Wall, Wall) {
    const MARGIN_NS: i64 = 10_000_000_000;
    (Wall(from.0.saturating_sub(MARGIN_NS)), Wall(to.0.saturating_add(MARGIN_NS)))
}

/// Whether what could not be read may be of a recording.
pub(super) fn touches(damage: &Damaged, rs: &RsEntry) -> bool {
    if let Some(source) = damage.source.filter(|source| !source.stream().is_host()) {
        return rs.streams.contains_key(&source.stream());
    }
    damage.lost.is_none_or(|lost| {
        let (since, until) = (lost.since.unwrap_or(Wall(i64::MIN)), lost.until);
        rs.was_up(since, until.unwrap_or(Wall(i64::MAX)))
    })
}

impl<D: Disk + Clone> Library<D> {
    /// Opens the store in `store` with its journal in `journal_dir`. `index`: if there is one.
    pub fn open(
        disk: D,
        store: &Path,
        journal_dir: &Path,
        index: Option<Box<dyn Index>>,
    ) -> Result<Self, LibraryError> {
        let archive = Archive::open(disk.clone(), store);
        let known = |name| index.as_ref()?.last_arrival(name).ok()?;
        let marks = archive.watermarks_knowing(&known)?;
        let marks = marks.into_iter().map(|mark| (mark.worker, mark)).collect();
        let (journal_dir, history) = (journal_dir.to_owned(), history::folder(store));
        let journal = OnceCell::new();
        let gone = OnceCell::new();
        let by_footers = false;
        Ok(Library { archive, disk, journal_dir, history, journal, index, by_footers, gone, marks })
    }

    /// For whoever gives proofs along with what he reads of a range: the rows that those need say where its
    /// extents are, and what the index has of them is not read beside them.
    #[must_use]
    pub fn for_proofs(self) -> Self {
        Library { by_footers: true, ..self }
    }

    /// What the journal says of all recordings.
    pub fn journalled(&self) -> Result<&Journalled, LibraryError> {
        if self.journal.get().is_none() {
            let replay = journal::read(&self.disk, &self.journal_dir, &self.history)?;
            let journalled = Journalled::of(&replay.entries);
            self.archive.promise(journalled.marks.clone());
            // Nobody else can have set it: the cell is not shared between threads.
            let _ = self.journal.set((journalled, replay.damage));
        }
        Ok(&self.journal.get().expect("set above").0)
    }

    /// What of the journal could not be read, as far as it was read.
    pub fn damage(&self) -> &[Damage] {
        self.journal.get().map_or(&[], |(_, damage)| damage)
    }

    /// What the journal says of one recording; from the index where it is settled. Of one that runs the
    /// history is not read, however long it is.
    pub fn entry(&self, id: RsId) -> Result<Option<RsEntry>, LibraryError> {
        if let Some(index) = &self.index
            && let Some(entry) = index.settled_entry(id)?
        {
            return Ok(Some(entry));
        }
        match self.running(id)? {
            Some(entry) => Ok(Some(entry)),
            None => Ok(self.journalled()?.recordings.get(&id).cloned()),
        }
    }

    /// What the journal says of a recording that runs; `None`: all of the journal has to be asked.
    fn running(&self, id: RsId) -> Result<Option<RsEntry>, LibraryError> {
        if self.journal.get().is_some() {
            return Ok(None);
        }
        let replay = journal::read_standing(&self.disk, &self.journal_dir)?;
        // What is damaged is told by whoever reads all of it.
        if !replay.damage.is_empty() {
            return Ok(None);
        }
        let mut journalled = Journalled::of(&replay.entries);
        let entry = journalled.recordings.remove(&id).filter(|entry| entry.end.is_none());
        if entry.is_some() {
            self.archive.promise(journalled.marks);
        }
        Ok(entry)
    }

    /// One recording as it stands; `None` where there is none of that id.
    pub fn recording(&self, id: RsId) -> Result<Option<Recording>, LibraryError> {
        if let Some(settled) = self.settled(id)? {
            return Ok(Some(settled));
        }
        let Some(rs) = self.journalled()?.recordings.get(&id) else { return Ok(None) };
        Ok(self.read(&[rs])?.recordings.pop())
    }

    /// All recordings that `wanted` picks, in order of start.
    pub fn recordings(
        &self,
        wanted: impl Fn(&RsEntry) -> bool,
    ) -> Result<Vec<Recording>, LibraryError> {
        let mut recordings = Vec::new();
        let mut open = Vec::new();
        for rs in self.journalled()?.recordings.values().filter(|rs| wanted(rs)) {
            match self.settled(rs.id)? {
                Some(settled) => recordings.push(settled),
                None => open.push(rs),
            }
        }
        recordings.extend(self.read(&open)?.recordings);
        recordings.sort_by_key(|recording| (recording.start, recording.id));
        Ok(recordings)
    }

    /// What the index finds; nothing where there is none.
    pub fn find(&self, find: &Find<'_>) -> Result<Found, LibraryError> {
        Ok(self.index.as_ref().map(|index| index.find(find)).transpose()?.unwrap_or_default())
    }

    /// What the journal says of recordings that no index has: those that run, and those that have not
    /// settled.
    pub fn unsettled(&self) -> Result<Vec<&RsEntry>, LibraryError> {
        let mut unsettled = Vec::new();
        for rs in self.journalled()?.recordings.values() {
            let settled = self.index.as_ref().map(|index| index.is_settled(rs.id)).transpose()?;
            if !settled.unwrap_or(false) {
                unsettled.push(rs);
            }
        }
        Ok(unsettled)
    }

    /// One of which nothing can change any more, as the index keeps it; `None`: it keeps none.
    pub fn settled(&self, id: RsId) -> Result<Option<Recording>, LibraryError> {
        match &self.index {
            Some(index) if !self.has_lost(index.as_ref(), id)? => Ok(index.settled(id)?),
            _ => Ok(None),
        }
    }

    /// Whether segments that the index knows are not there any more, and one of them held records of
    /// the recording: what is kept of it is true no longer.
    fn has_lost(&self, index: &dyn Index, id: RsId) -> Result<bool, LibraryError> {
        if self.gone.get().is_none() {
            // In this order: what is in the index was there before.
            let indexed = index.segments()?;
            let there = self.archive.segments()?.into_iter().collect();
            let _ = self.gone.set(indexed.without(&there));
        }
        let gone = self.gone.get().expect("set above");
        let Some(entry) =
            (!gone.is_empty()).then(|| index.settled_entry(id)).transpose()?.flatten()
        else {
            return Ok(false);
        };
        let streams = entry.streams.keys().copied().collect();
        let extents = index.extents(&streams, (Wall(i64::MIN), Wall(i64::MAX)))?;
        Ok(extents.rows.iter().any(|row| gone.contains(row.segment)))
    }

    /// Reads recordings from the records themselves, all in one pass.
    pub fn read(&self, wanted: &[&RsEntry]) -> Result<Reading, LibraryError> {
        self.read_by(wanted, |streams, span, watch| {
            self.visit_runs(streams, span, &mut |run| watch.run(run))
        })
    }

    /// Same, and shows each record to `visitor` on the way.
    pub fn read_with(
        &self,
        wanted: &[&RsEntry],
        visitor: &mut dyn FnMut(&Seen<'_>),
    ) -> Result<Reading, LibraryError> {
        self.read_by(wanted, |streams, span, watch| {
            self.visit_runs(streams, span, &mut |run| watch.run(run.inspect(&mut *visitor)))
        })
    }

    /// Reads recordings, and holds what is read against its proof on the way. No index has a say in it.
    pub fn read_proving(
        &self,
        wanted: &[&RsEntry],
        proving: &mut Proving<'_>,
    ) -> Result<Reading, LibraryError> {
        self.read_by(wanted, |streams, _, watch| {
            let mut visitor = |run: &mut Run<'_>| watch.run(run);
            Ok(self.archive.visit_runs(streams, None, Some(proving), &mut visitor)?)
        })
    }

    /// Reads recordings from what `visit` shows of these streams in that time.
    pub(super) fn read_by(
        &self,
        wanted: &[&RsEntry],
        visit: impl FnOnce(&BTreeSet<StreamId>, (Wall, Wall), &mut Watch) -> Result<Visit, LibraryError>,
    ) -> Result<Reading, LibraryError> {
        if wanted.is_empty() {
            return Ok(Reading::default());
        }
        let mut watch = Watch::new(wanted);
        let mut streams: BTreeSet<StreamId> =
            wanted.iter().flat_map(|rs| rs.streams.keys().copied()).collect();
        streams.extend(self.marks.keys().map(|worker| StreamId::host(*worker)));
        let start = wanted.iter().map(|rs| rs.start).min().unwrap_or_default();
        let end = wanted.iter().map(|rs| rs.end.unwrap_or(Wall(i64::MAX))).max();
        let span = (start, end.unwrap_or_default());
        let Visit { mut damaged, expired, .. } = visit(&streams, span, &mut watch)?;
        expired.iter().for_each(|one| watch.expired(one));
        damaged.extend(self.missing()?);
        watch.all_seen();
        damaged.iter().for_each(|damage| watch.damaged(damage));
        let mut heads = BTreeMap::new();
        for name in watch.last_segments() {
            // A segment whose trailer cannot be read has no head to show; `verify` says why.
            if let Ok(trailer) = self.archive.trailer(name) {
                heads.insert(name, (trailer.created, trailer.head));
            }
        }
        let recordings: Vec<Recording> =
            wanted.iter().map(|rs| assemble(rs, &watch, &heads, &self.marks)).collect();
        let settled = recordings
            .iter()
            .zip(wanted)
            .filter(|(_, rs)| !damaged.iter().any(|damage| touches(damage, rs)))
            .filter(|(recording, _)| watch.is_final(recording))
            .map(|(recording, _)| recording.id)
            .collect();
        let (ssrcs, losses) = (watch.ssrcs(), watch.losses());
        let ends_sealed =
            wanted.iter().filter(|rs| watch.ends_sealed(rs)).map(|rs| rs.id).collect();
        damaged.retain(|damage| wanted.iter().any(|rs| touches(damage, rs)));
        Ok(Reading { recordings, settled, damaged, losses, ends_sealed, ssrcs })
    }

    /// Segments that were there and are there no more.
    pub(super) fn missing(&self) -> Result<Vec<Damaged>, LibraryError> {
        let indexed = match &self.index {
            Some(index) => index.segments()?,
            None => SegmentSet::default(),
        };
        Ok(self.archive.missing(&indexed)?)
    }

    /// Shows the records of `streams` once each, by way of the index where there is one. Records
    /// outside of `span` may be left out.
    pub fn visit(
        &self,
        streams: &BTreeSet<StreamId>,
        span: (Wall, Wall),
        visitor: &mut dyn FnMut(Seen<'_>),
    ) -> Result<Visit, LibraryError> {
        self.visit_runs(streams, span, &mut |run| run.for_each(&mut *visitor))
    }

    fn visit_runs(
        &self,
        streams: &BTreeSet<StreamId>,
        span: (Wall, Wall),
        visitor: &mut dyn FnMut(&mut Run<'_>),
    ) -> Result<Visit, LibraryError> {
        let hints = self.hints(&[(streams, with_margin(span))])?;
        Ok(self.archive.visit_runs(streams, hints.as_ref(), None, visitor)?)
    }

    /// Sealed extents of streams in their spans, without looking at any footer; `None`: there is no index.
    pub(super) fn hints(
        &self,
        wanted: &[(&BTreeSet<StreamId>, (Wall, Wall))],
    ) -> Result<Option<Hints>, LibraryError> {
        let Some(index) = &self.index else { return Ok(None) };
        let hint = |row: &ExtentRow| Hint {
            segment: row.segment,
            offset: row.offset,
            bytes: row.bytes,
            source: row.source,
            indexes: row.indexes,
            arrivals: row.arrivals,
        };
        let mut hints = Hints::default();
        for (place, (streams, span)) in wanted.iter().enumerate() {
            let Extents { rows, indexed } = index.extents(streams, *span)?;
            hints.extents.extend(rows.iter().map(hint));
            // What was kept since the first look is searched for by its footer.
            match place {
                0 => hints.indexed = indexed,
                _ => hints.indexed = hints.indexed.common(&indexed),
            }
        }
        hints.extents.sort_by_key(|hint| (hint.segment, hint.source));
        Ok(Some(hints))
    }

    /// Hints for one span: by the index, or that only segments around it need be looked at.
    pub(super) fn hints_of_range(
        &self,
        streams: &BTreeSet<StreamId>,
        span: (Wall, Wall),
    ) -> Result<Option<Hints>, LibraryError> {
        match &self.index {
            Some(index) if self.by_footers => {
                Ok(Some(Hints { extents: Vec::new(), indexed: index.apart(span)? }))
            }
            _ => self.hints(&[(streams, span)]),
        }
    }

    /// What the journal says of all recordings, for an index to be made of it: not a word that a power
    /// cut could take back.
    pub fn durable_journal(&self) -> Result<Journalled, LibraryError> {
        let replay = journal::read_durable(&self.disk, &self.journal_dir, &self.history)?;
        Ok(Journalled::of(&replay.entries))
    }

    /// Brings `index` up to date: extents of new segments, and recordings that have settled. `known`:
    /// what the journal says, of which nothing may be lost in a power cut; what is settled may be left
    /// out. Returns how many segments and recordings were written.
    ///
    /// The index may be lost and never wrong: what it keeps is final. So only what is sealed goes into
    /// it, and only once the names of the segments are durable, because one that a power cut takes is
    /// sealed again under the same number and holds something else.
    pub fn refresh(
        &self,
        index: &mut dyn Index,
        known: &Journalled,
    ) -> Result<(usize, usize), LibraryError> {
        let stale = self.stale(index, known)?;
        let reading = self.read(&stale.ended)?;
        self.keep(index, &stale, &reading)
    }

    /// What [`Self::refresh`] has to bring: for whoever has a faster way to read recordings.
    pub fn stale<'a>(
        &self,
        index: &dyn Index,
        known: &'a Journalled,
    ) -> Result<Stale<'a>, LibraryError> {
        let indexed = index.segments()?;
        let mut fresh = Vec::new();
        let mut thinned = Vec::new();
        for name in self.archive.segments()?.into_iter().filter(|name| !indexed.contains(*name)) {
            // A damaged footer is `verify`'s to report; the segment stays unindexed.
            if let Ok(rows) = self.extent_rows(name) {
                fresh.push((name, rows));
            }
        }
        if !fresh.is_empty() {
            thinned = self.archive.thinned()?;
        }
        let mut ended = Vec::new();
        for rs in known.recordings.values().filter(|rs| rs.end.is_some() && rs.was_accepted()) {
            if !index.is_settled(rs.id)? {
                ended.push(rs);
            }
        }
        Ok(Stale { fresh, thinned, ended })
    }

    /// Writes it. `reading`: what was read of all recordings in it, since.
    pub fn keep(
        &self,
        index: &mut dyn Index,
        stale: &Stale<'_>,
        reading: &Reading,
    ) -> Result<(usize, usize), LibraryError> {
        let folder = segment::folder(self.archive.store());
        self.disk
            .sync_names(&folder)
            .map_err(|source| ArchiveError::Disk { path: folder, source })?;
        let entries: BTreeMap<RsId, &RsEntry> =
            stale.ended.iter().map(|entry| (entry.id, *entry)).collect();
        let settled = reading.recordings.iter().filter(|one| reading.settled.contains(&one.id));
        let settled: Vec<_> =
            settled.filter_map(|one| Some((one, *entries.get(&one.id)?))).collect();
        index.put(&stale.fresh, &settled)?;
        // These recordings were read as the segments are now.
        for (name, _) in &stale.fresh {
            if let Some((_, gone)) = stale.thinned.iter().find(|(thinned, _)| thinned == name) {
                index.thin(*name, *gone, &BTreeSet::new())?;
            }
        }
        Ok((stale.fresh.len(), reading.settled.len()))
    }

    /// What has gone by retention since the index was told: recordings that lost something by it are not
    /// settled any more, and are read anew. Returns whether there are any.
    pub fn refresh_thinned(&self, index: &mut dyn Index) -> Result<bool, LibraryError> {
        let known = index.thinned()?;
        let mut any = false;
        for (name, gone) in self.archive.thinned()? {
            // One that the index does not know is taken in as it is.
            if known.get(&name).is_some_and(|known| *known != gone) {
                index.thin(name, gone, &self.archive.gone_streams(name)?)?;
                any = true;
            }
        }
        Ok(any)
    }

    fn extent_rows(&self, segment: SegmentName) -> Result<Vec<ExtentRow>, LibraryError> {
        let footer = self.archive.rows(segment)?;
        let wall = |mono| clock_at(&footer.clocks, mono).wall(mono);
        Ok(footer
            .rows
            .iter()
            .map(|row| ExtentRow {
                segment,
                source: row.source,
                offset: row.offset,
                bytes: row.bytes,
                indexes: (row.first_index.0, row.last_index.0),
                arrivals: (wall(row.first_arrival), wall(row.last_arrival)),
            })
            .collect())
    }
}
