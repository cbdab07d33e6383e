//! [`Archive`]: sealed extents first, then what the logs hold beyond them; each record once.

use std::cell::{LazyCell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::check::{ChainReport, check_chain};
use super::meter::Meter;
use super::proving::Proving;
use super::run::Run;
use super::unsealed::{self, Unsealed, Wanted};
use crate::base::ids::{Position, SourceId, StreamId, WorkerId};
use crate::base::ports::Disk;
use crate::base::time::{ClockMap, Wall};
use crate::store::evidence::{Keys, Leaf, Proof, PublicKey, Salt, Signers, beside};
use crate::store::keys::Wraps;
use crate::store::log::{self, LogError, Mark, Marks};
use crate::store::record::Record;
use crate::store::segment::{
    self, EXTENT_HEADER_BYTES, Extent, ExtentReader, Footer, Row, SegmentError, SegmentFile,
    SegmentName, SegmentOpener, SegmentReport, SegmentSet, Trailer, Verification, Way, clock_at,
    find_rows, find_ways, open_extent, read_footer, read_trailer,
};

/// How often a read starts over because segments were sealed under it. Seals are seconds apart.
pub(super) const TRIES: usize = 8;

/// Why the store cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The disk said no.
    #[error("{}: {source}", path.display())]
    Disk {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A segment cannot be used.
    #[error("{}: {source}", path.display())]
    Segment {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SegmentError,
    },
    /// Segments were sealed faster than they could be read.
    #[error("the store changed during {TRIES} attempts to read it")]
    Busy,
    /// No such source in that segment.
    #[error("{file} holds no source {}", source_id.0)]
    NoSource {
        /// The segment.
        file: String,
        /// The source.
        source_id: SourceId,
    },
}

impl ArchiveError {
    pub(super) fn disk(path: &Path, source: io::Error) -> Self {
        ArchiveError::Disk { path: path.to_owned(), source }
    }

    /// Whether a file was not there any more that its folder had listed.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, ArchiveError::Disk { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl From<LogError> for ArchiveError {
    fn from(error: LogError) -> Self {
        let LogError::Disk { path, source } = error;
        ArchiveError::Disk { path, source }
    }
}

/// Where an extent is, as a catalogue remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The segment.
    pub segment: SegmentName,
    /// Offset of the extent ([`Row::offset`]).
    pub offset: u64,
    /// Its bytes ([`Row::bytes`]).
    pub bytes: u64,
    /// Whose it is.
    pub source: SourceId,
    /// Lowest and highest index.
    pub indexes: (u64, u64),
    /// First and last arrival.
    pub arrivals: (Wall, Wall),
}

/// Whenever.
pub const ALWAYS: (Wall, Wall) = (Wall(i64::MIN), Wall(i64::MAX));

/// What a catalogue knows. Segments not in `indexed` are searched by their footers.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// Extents of the wanted streams, in order of their segments.
    pub extents: Vec<Hint>,
    /// Segments all of whose extents the catalogue knows.
    pub indexed: SegmentSet,
}

impl Hints {
    /// Those in one segment.
    fn of(&self, segment: SegmentName) -> &[Hint] {
        let first = self.extents.partition_point(|hint| hint.segment < segment);
        let end = self.extents.partition_point(|hint| hint.segment <= segment);
        &self.extents[first..end]
    }
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The file.
    pub path: &'a Path,
    /// Offset of the record.
    pub offset: u64,
    /// The segment; `None`: still in the log.
    pub segment: Option<SegmentName>,
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Whose.
    pub worker: WorkerId,
    /// Where.
    pub place: Place<'a>,
    /// The clock map valid for its arrival.
    pub clock: ClockMap,
    /// The record.
    pub record: Record<'a>,
}

impl Lost {
    /// Records of a segment: they were durable.
    const fn between(since: Option<Wall>, until: Option<Wall>) -> Self {
        Lost { since, until, durable: true, tail: until.is_none() }
    }
}

impl Seen<'_> {
    /// Arrival in wall time.
    pub const fn wall(&self) -> Wall {
        self.clock.wall(self.record.meta.arrival)
    }
}

/// Bytes that were not served because they fail their sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Whose, where that is known.
    pub source: Option<SourceId>,
    /// The log's end, as a power cut leaves it: nothing there need ever have been durable.
    pub torn: bool,
    /// What is wrong.
    pub why: String,
    /// Positions of a log that nobody can read: whoever was recorded then may miss something.
    pub lost: Option<Lost>,
}

/// When the records were written that are missing from a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// When what stands before them was; `None`: nothing does.
    pub since: Option<Wall>,
    /// When what stands behind them was, or when they were known to be durable.
    pub until: Option<Wall>,
    /// They were durable: not a cut has taken them, but damage.
    pub durable: bool,
    /// They stand behind all segments of their worker: what is sealed to its end misses none of them.
    pub tail: bool,
}

/// Records of one source in one segment that are gone by retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The segment.
    pub segment: SegmentName,
    /// Whose.
    pub source: SourceId,
    /// Lowest and highest index.
    pub indexes: (u64, u64),
    /// First and last arrival.
    pub arrivals: (Wall, Wall),
    /// Since when, and by which class.
    pub gone: segment::Gone,
}

/// What a visit came to.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    /// Records seen.
    pub records: u64,
    /// Of them, in the log only.
    pub unsealed: u64,
    /// Newest segment that holds records of the wanted streams, by worker.
    pub last_segments: BTreeMap<WorkerId, SegmentName>,
    /// What was skipped.
    pub damaged: Vec<Damaged>,
    /// What is gone by retention.
    pub expired: Vec<Expired>,
    /// Bytes read from the disk.
    pub bytes_read: u64,
}

/// How far a worker's stream is on the ladder, by its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The worker.
    pub worker: WorkerId,
    /// Durable up to here.
    pub durable: Position,
    /// Everything captured up to then is; `None`: nothing ever was.
    pub durable_through: Option<Wall>,
    /// Sealed up to here.
    pub sealed: Position,
}

/// A segment of a store, open.
type OpenSegment<D> = SegmentFile<<Meter<D> as Disk>::File>;

/// Whose an extent is: source, indexes, arrivals.
type Whose = Option<(SourceId, (u64, u64), (Wall, Wall))>;

/// A store, for reading.
pub struct Archive<D: Disk> {
    disk: Meter<D>,
    store: PathBuf,
    promised: OnceCell<Marks>,
    /// When the last record of a worker's newest segment arrived: a row of each of its extents is read for it.
    lasts: RefCell<BTreeMap<WorkerId, (u64, Wall)>>,
    /// What opens the keys of segments; `None`: nobody has given the store's.
    wraps: Option<Wraps>,
}

impl<D: Disk> Archive<D> {
    /// The store in folder `store`. Nothing is read yet.
    pub fn open(disk: D, store: impl Into<PathBuf>) -> Self {
        let wraps = Wraps::of(&disk);
        let (disk, store) = (Meter::new(disk), store.into());
        let (promised, lasts) = (OnceCell::new(), RefCell::default());
        Archive { disk, store, promised, lasts, wraps }
    }

    /// Opens the extents of segment `name`.
    pub(super) fn opener(&self, name: SegmentName) -> SegmentOpener<'_, Meter<D>> {
        SegmentOpener::new(&self.disk, &self.store, name, self.wraps.as_ref())
    }

    /// What the journal says of the logs: a reader misses what they no longer hold of that.
    pub fn promise(&self, marks: Marks) {
        // Said once by whoever has read the journal.
        let _ = self.promised.set(marks);
    }

    /// What was said of them.
    pub fn promises(&self) -> Marks {
        self.promised.get().cloned().unwrap_or_default()
    }

    fn promised(&self, worker: WorkerId) -> Mark {
        self.promised.get().and_then(|marks| marks.get(&worker)).copied().unwrap_or_default()
    }

    /// Bytes read from the disk so far.
    pub fn bytes_read(&self) -> u64 {
        self.disk.bytes_read()
    }

    /// All segments, by worker and number.
    pub fn segments(&self) -> Result<Vec<SegmentName>, ArchiveError> {
        let names = segment::list(&self.disk, &self.store);
        names.map_err(|source| ArchiveError::disk(&segment::folder(&self.store), source))
    }

    /// Path of a segment, or of what is left of it.
    pub fn path(&self, name: SegmentName) -> PathBuf {
        segment::segment_path(&self.disk, &self.store, name)
    }

    /// Segments some or all of whose extents are gone by retention, and how many.
    pub fn thinned(&self) -> Result<Vec<(SegmentName, u64)>, ArchiveError> {
        let fault = |source| ArchiveError::disk(&segment::folder(&self.store), source);
        let mut thinned = Vec::new();
        for name in segment::list_thinned(&self.disk, &self.store).map_err(fault)? {
            if let Some(one) = self.file(name)?.thinned() {
                thinned.push((name, one.tail().gone));
            }
        }
        Ok(thinned)
    }

    /// A segment's rows, and the places of those that are gone by retention.
    pub fn rows_left(&self, name: SegmentName) -> Result<(Footer, BTreeSet<usize>), ArchiveError> {
        let file = self.file(name)?;
        let footer = read_trailer(&file).and_then(|trailer| read_footer(&file, trailer));
        let footer = footer.map_err(self.fault(name))?;
        let is_gone = |row: &usize| file.thinned().is_some_and(|one| one.gone(*row).is_some());
        let gone = (0..footer.rows.len()).filter(is_gone).collect();
        Ok((footer, gone))
    }

    /// Streams of which extents in segment `name` are gone by retention.
    pub fn gone_streams(&self, name: SegmentName) -> Result<BTreeSet<StreamId>, ArchiveError> {
        let (footer, gone) = self.rows_left(name)?;
        Ok(gone.iter().map(|row| footer.rows[*row].source.stream()).collect())
    }

    pub(super) fn disk(&self) -> &Meter<D> {
        &self.disk
    }

    /// Its folder.
    pub fn store(&self) -> &Path {
        &self.store
    }

    pub(super) fn file(&self, name: SegmentName) -> Result<OpenSegment<D>, ArchiveError> {
        let opened = segment::open_segment(&self.disk, &self.store, name);
        opened.map_err(|source| {
            ArchiveError::disk(&segment::folder(&self.store).join(name.file()), source)
        })
    }

    pub(super) fn fault(
        &self,
        name: SegmentName,
    ) -> impl FnOnce(SegmentError) -> ArchiveError + '_ {
        move |source| ArchiveError::Segment { path: self.path(name), source }
    }

    /// A segment's trailer.
    pub fn trailer(&self, name: SegmentName) -> Result<Trailer, ArchiveError> {
        read_trailer(&self.file(name)?).map_err(self.fault(name))
    }

    /// A segment's rows and clock maps, checked against its trailer.
    pub fn rows(&self, name: SegmentName) -> Result<Footer, ArchiveError> {
        let file = self.file(name)?;
        let footer = read_trailer(&file).and_then(|trailer| read_footer(&file, trailer));
        footer.map_err(self.fault(name))
    }

    /// The extent of a row.
    pub fn extent(&self, name: SegmentName, row: &Row) -> Result<Extent, ArchiveError> {
        let (file, opener) = (self.file(name)?, self.opener(name));
        open_extent(&file, row.offset, row.bytes, Some(&opener)).map_err(self.fault(name))
    }

    /// What an export needs to prove the records of `sources` (ascending, one at least) in segment `name`.
    pub fn proof(&self, name: SegmentName, sources: &[SourceId]) -> Result<Proof, ArchiveError> {
        let file = self.file(name)?;
        let trailer = read_trailer(&file).map_err(self.fault(name))?;
        let found = find_ways(&file, &trailer, sources).map_err(self.fault(name))?;
        if let Some(missing) =
            sources.iter().find(|one| found.iter().all(|way| way.source != **one))
        {
            return Err(ArchiveError::NoSource { file: name.file(), source_id: *missing });
        }
        let fields = trailer.chain_fields();
        let leaf = |way: &Way| Leaf { source: way.source, place: way.place, hash: way.leaf };
        let leaves = found.iter().map(leaf).collect();
        let paths: Vec<_> = found.into_iter().map(|way| (way.place, way.path)).collect();
        let beside = beside(&paths, fields.leaves);
        Ok(Proof { fields, signature: trailer.signature, beside, leaves })
    }

    /// See [`SegmentFile::verify`].
    pub fn verify_segment(
        &self,
        name: SegmentName,
        streams: Option<&BTreeSet<StreamId>>,
        salt: &mut dyn FnMut(StreamId) -> Option<Salt>,
        signers: Option<&Signers>,
    ) -> Result<SegmentReport, ArchiveError> {
        let (file, opener) = (self.file(name)?, self.opener(name));
        let mut report = file.verify(streams, salt, signers, Some(&opener));
        if streams.is_none() {
            self.check_keys(name, &file, &mut report);
        }
        Ok(report)
    }

    fn check_keys(&self, name: SegmentName, file: &OpenSegment<D>, report: &mut SegmentReport) {
        if let Ok(footer) = read_trailer(file).and_then(|trailer| read_footer(file, trailer)) {
            report.check_keys(&footer, &self.opener(name));
        }
    }

    /// A segment to be read extent by extent: what is gone of it by retention is told by the error.
    pub fn segment_file(&self, name: SegmentName) -> Result<OpenSegment<D>, ArchiveError> {
        self.file(name)
    }

    /// What is wrong with the keys beside segment `name`, where it is encrypted. Opens nothing.
    pub fn key_faults(&self, name: SegmentName, footer: &Footer) -> Vec<String> {
        match self.opener(name).faults(footer) {
            Ok(faults) => faults.iter().map(ToString::to_string).collect(),
            Err(error) => vec![error.to_string()],
        }
    }

    /// Checks that the segments of `worker` are one unbroken chain signed by `keys`.
    pub fn verify_chain(
        &self,
        worker: WorkerId,
        keys: Option<&Keys>,
    ) -> Result<ChainReport, ArchiveError> {
        let mine = self.segments()?.into_iter().filter(|name| name.worker == worker);
        let mut trailers = Vec::new();
        for name in mine {
            trailers.push((name, read_trailer(&self.file(name)?)));
        }
        Ok(check_chain(&trailers, keys))
    }

    /// The public key that this store signs with; `None` where there is none yet.
    pub fn public_key(&self) -> Option<PublicKey> {
        use crate::base::ports::DiskFile;
        let file = self.disk.open_read(&self.store.join("evidence").join("signing.pub")).ok()?;
        let mut key = [0; 32];
        (file.bytes().ok()? == 32 && file.read_at(0, &mut key).ok()? == 32).then_some(key)
    }

    /// Workers that have files here.
    pub fn workers(&self) -> Result<BTreeSet<WorkerId>, ArchiveError> {
        let mut workers: BTreeSet<WorkerId> =
            self.segments()?.into_iter().map(|name| name.worker).collect();
        workers.extend(log::workers(&self.disk, &self.store)?);
        Ok(workers)
    }

    /// How far each worker's stream is durable and sealed.
    pub fn watermarks(&self) -> Result<Vec<Watermark>, ArchiveError> {
        self.watermarks_knowing(&|_| None)
    }

    /// The same; `known`: when the last record of a segment arrived, for whom a catalogue tells it.
    pub fn watermarks_knowing(
        &self,
        known: &dyn Fn(SegmentName) -> Option<Wall>,
    ) -> Result<Vec<Watermark>, ArchiveError> {
        let (_, watermarks) = self.at_one_instant(|| {
            let workers = self.workers()?.into_iter();
            workers.map(|worker| self.watermark(worker, known)).collect()
        })?;
        Ok(watermarks)
    }

    /// Everything of `worker` that was captured up to then is durable; `None`: nothing ever was.
    pub fn durable_through(&self, worker: WorkerId) -> Result<Option<Wall>, ArchiveError> {
        Ok(self.watermark(worker, &|_| None)?.durable_through)
    }

    fn watermark(
        &self,
        worker: WorkerId,
        known: &dyn Fn(SegmentName) -> Option<Wall>,
    ) -> Result<Watermark, ArchiveError> {
        let last = segment::last_segment(&self.disk, &self.store, worker);
        let (_, last) = last.map_err(|source| ArchiveError::disk(&self.store, source))?;
        let sealed = last.as_ref().map_or(Position(0), |trailer| trailer.through);
        let logged =
            unsealed::read(&self.disk, &self.store, worker, sealed, None, &Mark::default())?
                .through;
        let logged = logged.filter(|(end, _)| *end >= sealed);
        Ok(Watermark {
            worker,
            durable: logged.map_or(sealed, |(end, _)| end),
            durable_through: logged
                .and_then(|(_, wall)| wall)
                .or_else(|| last.and_then(|trailer| self.last_arrival(worker, &trailer, known))),
            sealed,
        })
    }

    /// Arrival of the last record in a segment. When it was sealed says less: what had come since its
    /// last record need not be anywhere by then.
    fn last_arrival(
        &self,
        worker: WorkerId,
        trailer: &Trailer,
        known: &dyn Fn(SegmentName) -> Option<Wall>,
    ) -> Option<Wall> {
        let name = SegmentName { worker, number: trailer.number };
        if let Some((number, last)) = self.lasts.borrow().get(&worker)
            && *number == name.number
        {
            return Some(*last);
        }
        let last = known(name).or_else(|| {
            let footer = self.rows(name).ok()?;
            let arrivals = footer.rows.iter().map(|row| row.last_arrival);
            arrivals.max().map(|mono| clock_at(&footer.clocks, mono).wall(mono))
        });
        if let Some(last) = last {
            self.lasts.borrow_mut().insert(worker, (name.number, last));
        }
        last
    }

    /// Shows `visitor` every durable record of `streams` once: sealed ones first, segment by
    /// segment, source by source, in order of arrival; then those that are in the log only, in
    /// order of position. What fails its sum is reported and never shown.
    pub fn visit(
        &self,
        streams: &BTreeSet<StreamId>,
        hints: Option<&Hints>,
        visitor: &mut dyn FnMut(Seen<'_>),
    ) -> Result<Visit, ArchiveError> {
        self.visit_runs(streams, hints, None, &mut |run| run.for_each(&mut *visitor))
    }

    /// As [`Self::visit`], extent by extent. `proving`: what is held against its proof on the way, in the
    /// bytes that are read once; `hints` say nothing to it.
    pub fn visit_runs(
        &self,
        streams: &BTreeSet<StreamId>,
        hints: Option<&Hints>,
        proving: Option<&mut Proving<'_>>,
        visitor: &mut dyn FnMut(&mut Run<'_>),
    ) -> Result<Visit, ArchiveError> {
        self.visit_within(streams, ALWAYS, hints, proving, visitor)
    }

    /// As [`Self::visit_runs`]: the extents that overlap `span`, each whole, and of a log what was committed
    /// around it. Of `hints` those are read that are there, wherever they lie. What is reported may
    /// be of another time.
    pub fn visit_within(
        &self,
        streams: &BTreeSet<StreamId>,
        span: (Wall, Wall),
        hints: Option<&Hints>,
        mut proving: Option<&mut Proving<'_>>,
        visitor: &mut dyn FnMut(&mut Run<'_>),
    ) -> Result<Visit, ArchiveError> {
        let before = self.bytes_read();
        let (names, unsealed) = self.snapshot(streams, span)?;
        let mut visit = Visit::default();
        let mut reader = ExtentReader::default();
        for name in names {
            let proving = proving.as_deref_mut();
            self.visit_segment(
                name,
                (streams, span, hints),
                (&mut reader, proving),
                visitor,
                &mut visit,
            )?;
        }
        for one in unsealed {
            show_unsealed(one, visitor, &mut visit);
        }
        visit.bytes_read = self.bytes_read() - before;
        Ok(visit)
    }

    /// Segments that must have been there: their numbers have no holes, and the journal's marks and
    /// `indexed`, what a catalogue has seen, name the last ones.
    pub fn missing(&self, indexed: &SegmentSet) -> Result<Vec<Damaged>, ArchiveError> {
        let names = self.segments()?;
        let mut numbers: BTreeMap<WorkerId, (BTreeSet<u64>, u64)> = BTreeMap::new();
        for name in &names {
            numbers.entry(name.worker).or_default().0.insert(name.number);
        }
        let marks = self.promised.get().into_iter().flat_map(Marks::values);
        let marked = marks.map(|mark| (mark.worker, mark.segment));
        let known = indexed.stretches().iter().map(|one| (one.worker, one.last));
        for (worker, number) in known.chain(marked) {
            let (_, last) = numbers.entry(worker).or_default();
            *last = number.max(*last);
        }
        let mut gone = Vec::new();
        for (worker, (there, last)) in numbers {
            let mut next = 1;
            for number in there.into_iter().chain([last.saturating_add(1)]) {
                if number > next {
                    gone.push(self.gone(SegmentName { worker, number: next }, number - next));
                }
                next = next.max(number.saturating_add(1));
            }
        }
        Ok(gone)
    }

    /// `count` segments from `first` on.
    fn gone(&self, first: SegmentName, count: u64) -> Damaged {
        let why = match count {
            1 => format!("segment {} is not in the store", first.file()),
            _ => format!("{count} segments from {} on are not in the store", first.file()),
        };
        let lost = Some(self.around(first));
        Damaged {
            path: self.path(first),
            offset: 0,
            bytes: 0,
            source: None,
            torn: false,
            why,
            lost,
        }
    }

    /// When the records of a segment that cannot be read were written: between those of the segments
    /// around it.
    fn around(&self, name: SegmentName) -> Lost {
        let arrivals = |name: &SegmentName| {
            let footer = self.rows(*name).ok()?;
            let wall = |mono| clock_at(&footer.clocks, mono).wall(mono);
            let first = footer.rows.iter().map(|row| wall(row.first_arrival)).min()?;
            let last = footer.rows.iter().map(|row| wall(row.last_arrival)).max()?;
            Some((first, last))
        };
        let names: BTreeSet<_> = self.segments().into_iter().flatten().collect();
        let mine = |known: &&SegmentName| known.worker == name.worker;
        let before = names.range(..name).rev().filter(mine).find_map(arrivals);
        let behind = names.range(name..).filter(mine).filter(|one| **one != name);
        let behind = behind.clone().find_map(arrivals);
        Lost::between(before.map(|(_, last)| last), behind.map(|(first, _)| first))
    }

    /// Segments and what lies behind them, as of one instant. Nothing outside of `span` is wanted.
    fn snapshot(
        &self,
        streams: &BTreeSet<StreamId>,
        span: (Wall, Wall),
    ) -> Result<(Vec<SegmentName>, Vec<Unsealed>), ArchiveError> {
        self.at_one_instant(|| {
            let workers = log::workers(&self.disk, &self.store)?.into_iter();
            let unsealed = workers.map(|worker| {
                let (_, last) = segment::last_segment(&self.disk, &self.store, worker)
                    .map_err(|source| ArchiveError::disk(&self.store, source))?;
                let sealed = last.as_ref().map_or(Position(0), |trailer| trailer.through);
                let sealed_at = || self.last_arrival(worker, last.as_ref()?, &|_| None);
                let wanted = Wanted { streams, span, sealed_at: &sealed_at };
                let promised = self.promised(worker);
                unsealed::read(&self.disk, &self.store, worker, sealed, Some(wanted), &promised)
            });
            unsealed.collect()
        })
    }

    /// What `read` finds in the logs, and the segments of the same instant. A log file is recycled or
    /// removed only after its segment was renamed into place: if no segment appeared while the logs
    /// were read, then nothing left the logs meanwhile. A file that goes between the look at its folder
    /// and the look at itself is such a change, too.
    fn at_one_instant<T>(
        &self,
        read: impl Fn() -> Result<T, ArchiveError>,
    ) -> Result<(Vec<SegmentName>, T), ArchiveError> {
        let mut last = ArchiveError::Busy;
        for _ in 0..TRIES {
            let names = self.segments()?;
            match read() {
                Ok(found) if self.segments()? == names => return Ok((names, found)),
                Ok(_) => last = ArchiveError::Busy,
                Err(error) if error.is_gone() => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn visit_segment(
        &self,
        name: SegmentName,
        (streams, span, hints): (&BTreeSet<StreamId>, (Wall, Wall), Option<&Hints>),
        (reader, mut proving): (&mut ExtentReader, Option<&mut Proving<'_>>),
        visitor: &mut dyn FnMut(&mut Run<'_>),
        visit: &mut Visit,
    ) -> Result<(), ArchiveError> {
        // Nothing of a segment is opened that holds nothing of what is wanted.
        let path = LazyCell::new(|| self.path(name));
        let Visit { damaged: skipped, expired, records, last_segments, .. } = visit;
        let mut damaged = |offset, bytes, whose: Whose, why: String| {
            let (path, torn, source) =
                (PathBuf::clone(&path), false, whose.map(|(source, ..)| source));
            let lost = match whose {
                Some((_, _, (first, last))) => Some(Lost::between(Some(first), Some(last))),
                // All that there was in it.
                None if bytes == 0 => Some(self.around(name)),
                None => None,
            };
            skipped.push(Damaged { path, offset, bytes, source, torn, why, lost });
        };
        let hinted = hints.filter(|hints| hints.indexed.contains(name) && proving.is_none());
        let mut file = None;
        let mut verification = None;
        if let Some(proving) = proving.as_deref_mut() {
            let file = file.insert(self.file(name)?);
            let signers = (proving.signers)(name);
            match Verification::begin(file, proving.whole, signers.as_ref().map(Signers::own)) {
                Ok(begun) => verification = Some(begun),
                // Of its rows those are used that can be.
                Err(report) => self.proven(name, *report, file, proving),
            }
        }
        // Where each begins, how long it is, whose it is, and its row.
        let extents: Vec<(u64, u64, Whose, usize)> = match (&verification, hinted) {
            (Some(verification), _) => {
                let Footer { rows, clocks, .. } = verification.footer();
                let whose = whose(clocks);
                let all = rows.iter().enumerate();
                all.map(|(place, row)| (row.offset, row.bytes, Some(whose(row)), place)).collect()
            }
            (None, Some(hints)) => {
                let whose = |hint: &Hint| (hint.source, hint.indexes, hint.arrivals);
                hints
                    .of(name)
                    .iter()
                    .map(|hint| (hint.offset, hint.bytes, Some(whose(hint)), 0))
                    .collect()
            }
            (None, None) => {
                let file = match &file {
                    Some(file) => file,
                    None => file.insert(self.file(name)?),
                };
                let rows = read_trailer(file).and_then(|trailer| {
                    let (rows, _) = find_rows(file, &trailer, streams)?;
                    Ok((rows, segment::read_clocks(file, &trailer)?))
                });
                match rows {
                    Ok((rows, clocks)) => {
                        let whose = whose(&clocks);
                        let mine = rows.iter().filter_map(|row| {
                            let (.., (first, last)) = whose(row);
                            let overlaps = first <= span.1 && last >= span.0;
                            overlaps.then(|| (row.offset, row.bytes, Some(whose(row)), 0))
                        });
                        mine.collect()
                    }
                    Err(error) => {
                        damaged(0, 0, None, error.to_string());
                        return Ok(());
                    }
                }
            }
        };
        if extents.is_empty() && verification.is_none() {
            return Ok(());
        }
        let file = match file {
            Some(file) => file,
            None => self.file(name)?,
        };
        let opener = self.opener(name);
        let mut clocks: Option<Vec<ClockMap>> = None;
        for (offset, bytes, whose, place) in extents {
            let mut is_wanted = true;
            let mut to_prove = None;
            let opened = if let (Some(verification), Some(proving)) =
                (&mut verification, proving.as_deref_mut())
            {
                let stream = verification.footer().rows[place].source.stream();
                is_wanted = streams.contains(&stream);
                let is_proven = (proving.wants)(stream);
                if !is_wanted && !is_proven {
                    continue;
                }
                let opened = reader.open(&file, offset, bytes, Some(&opener));
                if is_proven {
                    to_prove = verification.extent(place, opened.as_ref(), proving.salt);
                }
                opened
            } else {
                reader.open(&file, offset, bytes, Some(&opener))
            };
            'shown: {
                if !is_wanted {
                    break 'shown;
                }
                let extent = match opened {
                    Ok(extent) if extent.header.number == name.number => extent,
                    Ok(_) => {
                        damaged(offset, bytes, whose, "another segment's extent".to_owned());
                        break 'shown;
                    }
                    Err(error) => {
                        match (error.gone(), whose) {
                            (Some(gone), Some((source, indexes, arrivals))) => {
                                let segment = name;
                                let one = Expired { segment, source, indexes, arrivals, gone };
                                expired.push(one);
                            }
                            _ => damaged(offset, bytes, whose, error.to_string()),
                        }
                        break 'shown;
                    }
                };
                if !streams.contains(&extent.header.source.stream()) {
                    damaged(offset, bytes, whose, "another source's extent".to_owned());
                    break 'shown;
                }
                // One map serves the whole segment unless the clock was stepped or slewed.
                if extent.header.clocks > 1 && clocks.is_none() {
                    let read = read_trailer(&file)
                        .and_then(|trailer| segment::read_clocks(&file, &trailer));
                    match read {
                        Ok(maps) => clocks = Some(maps),
                        Err(error) => damaged(0, 0, None, error.to_string()),
                    }
                }
                let first = [extent.header.clock];
                let begins = offset + EXTENT_HEADER_BYTES as u64;
                let mut run = Run {
                    is_summed: extent.is_summed,
                    ..Run::new(
                        (name.worker, Some(name)),
                        (path.as_path(), begins),
                        clocks.as_deref().unwrap_or(&first),
                        extent.records,
                    )
                };
                visitor(&mut run);
                // What nobody wanted to see is checked all the same.
                run.by_ref().for_each(drop);
                if run.records > 0 {
                    *records += run.records;
                    last_segments.insert(name.worker, name);
                }
                if let Some(error) = run.fault {
                    let left = (run.bytes.len() - run.at) as u64;
                    damaged(begins + run.at as u64, left, whose, error.to_string());
                }
            }
            if let (Some(salt), Some(verification)) = (to_prove, &mut verification) {
                verification.prove(place, salt, reader);
            }
        }
        if let (Some(verification), Some(proving)) = (verification, proving) {
            self.proven(name, verification.finish(), &file, proving);
        }
        Ok(())
    }

    /// Keeps what was found of a segment, and what is wrong with it as a thinned one.
    fn proven(
        &self,
        name: SegmentName,
        mut report: SegmentReport,
        file: &OpenSegment<D>,
        proving: &mut Proving<'_>,
    ) {
        if let Some(thinned) = file.thinned() {
            report.faults.extend(thinned.faults((proving.signers)(name).as_ref()));
        }
        if proving.whole {
            self.check_keys(name, file, &mut report);
        }
        proving.reports.insert(name, report);
    }
}

/// Whose the extent of a row is. `clocks`: those of its segment.
fn whose(clocks: &[ClockMap]) -> impl Fn(&Row) -> (SourceId, (u64, u64), (Wall, Wall)) + '_ {
    let wall = move |mono| clock_at(clocks, mono).wall(mono);
    move |row| {
        let indexes = (row.first_index.0, row.last_index.0);
        (row.source, indexes, (wall(row.first_arrival), wall(row.last_arrival)))
    }
}

fn show_unsealed(one: Unsealed, visitor: &mut dyn FnMut(&mut Run<'_>), visit: &mut Visit) {
    for item in &one.items {
        visit.records += 1;
        visit.unsealed += 1;
        let mut run = Run {
            // Read once before.
            is_summed: true,
            ..Run::new(
                (one.worker, None),
                (&one.groups[item.group].path, item.offset),
                &one.clocks[item.epoch],
                &one.bytes[item.bytes.clone()],
            )
        };
        visitor(&mut run);
    }
    visit.damaged.extend(one.damaged);
}
