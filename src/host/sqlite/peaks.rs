//! The file of peaks: SQLite in `STORE/peaks.sqlite`, kept as the catalogue is, and apart from it, so that what
//! searches reads and what draws reads do not push each other out of memory, and neither writer waits for the
//! other. Of an encrypted store each strip is sealed. What is damaged is not there: of it records are read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, params};

use super::{FILES, IndexError, crc32c, engine, in_the_way, make_private, prepare, version};
use crate::base::ids::{SourceId, StreamId, WorkerId};
use crate::base::time::Wall;
use crate::host::entropy::SystemEntropy;
use crate::host::unlocked::{self, Unlocked};
use crate::store::journal::KeyBox;
use crate::store::peaks::schema;
use crate::store::peaks::{Made, Strip};
use crate::store::segment::SegmentName;

/// Added to the version of the tables where strips are sealed.
const SEALED: i64 = 1_000;

/// Purpose of the derived keys; behind it the number of the run of segments.
const PURPOSE: &str = "floortape peaks";
/// Segments of one key: nonces are random, and of 4,000 streams 65,536 segments take 2^28 of the 2^32 that one key
/// may have (NIST SP 800-38D §8.3).
const RUN: u64 = 1 << 16;

/// An open file of peaks.
pub struct Peaks {
    connection: Connection,
    seal: Option<Seal>,
}

/// What seals strips.
struct Seal {
    keys: Arc<Unlocked>,
    /// The key that was used last, and of which run.
    last: RefCell<Option<(u64, KeyBox)>>,
}

impl Seal {
    fn of_store(store: &Path) -> Option<Self> {
        let keys = unlocked::of_store(store).filter(|unlocked| !unlocked.keys.is_empty())?;
        Some(Seal { keys, last: RefCell::new(None) })
    }

    fn with<T>(&self, name: SegmentName, act: impl FnOnce(&KeyBox) -> T) -> T {
        let run = name.number / RUN;
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(known, _)| *known != run) {
            let newest = self.keys.keys.last().expect("looked for when it was opened");
            let key = newest.derive(&format!("{PURPOSE} {run}"));
            *last = Some((run, KeyBox::new(key.expose()).expect("32 bytes")));
        }
        act(&last.as_ref().expect("set above").1)
    }

    fn seal(&self, bytes: &[u8], name: SegmentName, source: SourceId) -> Vec<u8> {
        let context = context(name, source);
        self.with(name, |key| key.seal_bytes(&SystemEntropy, bytes, &context))
    }

    fn open(&self, bytes: &[u8], name: SegmentName, source: SourceId) -> Option<Vec<u8>> {
        let (mut bytes, context) = (bytes.to_vec(), context(name, source));
        self.with(name, |key| key.open_bytes(&mut bytes, &context).map(<[u8]>::to_vec).ok())
    }
}

/// What is kept of a segment as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// First and last arrival in it.
    pub arrivals: (Wall, Wall),
    /// Extents of it that were gone by retention.
    pub gone: u64,
}

/// A strip, by where it belongs.
pub type Found = (SegmentName, SourceId, Strip);

/// Where the peaks of a store lie.
pub fn path(store: &Path) -> PathBuf {
    store.join("peaks.sqlite")
}

/// Opens them for reading; `None` where there are none that this version knows. `told` hears of what is no file.
pub fn open_read(store: &Path, told: impl Fn(&str)) -> Option<Peaks> {
    if let Some(why) = in_the_way(&path(store)) {
        told(&why);
        return None;
    }
    if !path(store).exists() {
        return None;
    }
    let seal = Seal::of_store(store);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path(store), flags).ok()?;
    prepare(&connection).ok()?;
    let is_ours = version(&connection).is_ok_and(|version| version == wanted(&seal));
    is_ours.then_some(Peaks { connection, seal })
}

/// Opens them for writing; makes them, or makes them anew where another version wrote them or where they are
/// damaged.
pub fn open_write(store: &Path) -> Result<Peaks, IndexError> {
    if let Some(why) = in_the_way(&path(store)) {
        tracing::warn!("the peaks are made anew: {why}");
        remove(store);
        in_the_way(&path(store)).map_or(Ok(()), |why| Err(IndexError::Engine(why)))?;
    }
    make_private(&path(store));
    match open(store).map_err(engine) {
        Ok(Some(peaks)) => return Ok(peaks),
        Ok(None) => {}
        Err(IndexError::Damaged(why)) => {
            tracing::warn!("the peaks are damaged and are made anew: {why}");
        }
        Err(error) => return Err(error),
    }
    remove(store);
    make_private(&path(store));
    let made = open(store).map_err(engine)?;
    made.ok_or_else(|| IndexError::Engine("somebody else makes the peaks anew".to_owned()))
}

/// Opens them for writing with nothing in them, whatever state they are in.
pub fn open_empty(store: &Path) -> Result<Peaks, IndexError> {
    let mut peaks = open_write(store)?;
    match peaks.clear() {
        // Its head was sound, its tables are not.
        Err(IndexError::Damaged(why)) => {
            tracing::warn!("the peaks are damaged and are made anew: {why}");
            drop(peaks);
            remove(store);
            open_write(store)
        }
        done => done.map(|()| peaks),
    }
}

/// Removes them; whoever opens them for writing makes them anew.
pub fn remove(store: &Path) {
    // The journal first: it would be played back into another file.
    for end in FILES.into_iter().rev() {
        let mut file = path(store).into_os_string();
        file.push(end);
        let _ = std::fs::remove_file(file);
    }
}

fn wanted(seal: &Option<Seal>) -> i64 {
    schema::VERSION + if seal.is_some() { SEALED } else { 0 }
}

/// `None`: another version wrote them, or they are sealed and may not be, or the other way round.
fn open(store: &Path) -> rusqlite::Result<Option<Peaks>> {
    let seal = Seal::of_store(store);
    let mut connection = Connection::open(path(store))?;
    let _ = std::fs::set_permissions(path(store), Permissions::from_mode(0o600));
    prepare(&connection)?;
    // As the catalogue: of an encrypted store no page is copied elsewhere before, and what is deleted is
    // overwritten.
    let journal = if seal.is_some() { "MEMORY" } else { "TRUNCATE" };
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = {journal}; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;"
    ))?;
    let found = version(&connection)?;
    if found == 0 {
        let make = connection.transaction()?;
        make.execute_batch(schema::CREATE)?;
        make.pragma_update(None, "user_version", wanted(&seal))?;
        make.commit()?;
    } else if found != wanted(&seal) {
        return Ok(None);
    }
    Ok(Some(Peaks { connection, seal }))
}

/// The engine's integers have a sign.
const fn signed(number: u64) -> i64 {
    number as i64
}

/// Sum of a segment's row.
fn sum(name: SegmentName, known: &Known) -> i64 {
    let mut bytes = name.worker.0.to_le_bytes().to_vec();
    for number in [signed(name.number), known.arrivals.0.0, known.arrivals.1.0, signed(known.gone)]
    {
        bytes.extend(number.to_le_bytes());
    }
    i64::from(crc32c(&bytes))
}

fn context(name: SegmentName, source: SourceId) -> String {
    format!("peaks {} {} {}", name.worker.0, name.number, source.0)
}

impl Peaks {
    /// Empties it.
    fn clear(&mut self) -> Result<(), IndexError> {
        let clear = self.connection.transaction().map_err(engine)?;
        clear.execute_batch(schema::DROP).map_err(engine)?;
        clear.execute_batch(schema::CREATE).map_err(engine)?;
        clear.commit().map_err(engine)
    }

    /// Segments whose strips are all there. One whose row is damaged is not.
    pub fn segments(&self) -> Result<BTreeMap<SegmentName, Known>, IndexError> {
        let mut query = self.connection.prepare_cached(schema::SEGMENTS).map_err(engine)?;
        let mut found = query.query([]).map_err(engine)?;
        let mut segments = BTreeMap::new();
        while let Some(row) = found.next().map_err(engine)? {
            let parse = || -> rusqlite::Result<(SegmentName, Known, i64)> {
                let number = |column| row.get(column).map(|value: i64| value as u64);
                let name = SegmentName { worker: WorkerId(row.get(0)?), number: number(1)? };
                let arrivals = (Wall(row.get(2)?), Wall(row.get(3)?));
                Ok((name, Known { arrivals, gone: number(4)? }, row.get(5)?))
            };
            match parse() {
                Ok((name, known, own)) if own == sum(name, &known) => {
                    segments.insert(name, known);
                }
                _ => {}
            }
        }
        Ok(segments)
    }

    /// The strips of `streams` in the segments `first` to `last` of a worker, in order; and the segments in which
    /// one is damaged.
    pub fn strips(
        &self,
        streams: &BTreeSet<StreamId>,
        (first, last): (SegmentName, SegmentName),
    ) -> Result<(Vec<Found>, BTreeSet<SegmentName>), IndexError> {
        let mut query = self.connection.prepare_cached(schema::STRIPS).map_err(engine)?;
        let (mut strips, mut damaged) = (Vec::new(), BTreeSet::new());
        for stream in streams {
            let (from, to) = (signed(first.number), signed(last.number));
            let place = params![signed(stream.0), first.worker.0, from, to];
            let mut rows = query.query(place).map_err(engine)?;
            while let Some(row) = rows.next().map_err(engine)? {
                let number: i64 = row.get(0).map_err(engine)?;
                let name = SegmentName { worker: first.worker, number: number as u64 };
                let source = SourceId::new(*stream, row.get(1).map_err(engine)?);
                let bytes = row.get_ref(2).map_err(engine)?.as_bytes().unwrap_or_default();
                let known: Option<i64> = row.get(3).ok();
                let is_sound = known == Some(i64::from(crc32c(bytes)));
                match is_sound.then(|| self.opened(bytes, name, source)).flatten() {
                    Some(strip) => strips.push((name, source, strip)),
                    None => drop(damaged.insert(name)),
                }
            }
        }
        Ok((strips, damaged))
    }

    fn opened(&self, bytes: &[u8], name: SegmentName, source: SourceId) -> Option<Strip> {
        match &self.seal {
            Some(seal) => Strip::parse(&seal.open(bytes, name, source)?, name, source).ok(),
            None => Strip::parse(bytes, name, source).ok(),
        }
    }

    /// Keeps all that was made of some segments, in one transaction.
    pub fn put(&mut self, made: &[Made]) -> Result<(), IndexError> {
        let transaction = self.connection.transaction().map_err(engine)?;
        {
            let mut put = transaction.prepare_cached(schema::PUT_STRIP).map_err(engine)?;
            let mut put_segment =
                transaction.prepare_cached(schema::PUT_SEGMENT).map_err(engine)?;
            for Made { segment, arrivals, gone, strips, .. } in made {
                let (worker, number) = (segment.worker.0, signed(segment.number));
                for (source, bytes) in strips {
                    let seal = self.seal.as_ref();
                    let sealed = seal.map(|seal| seal.seal(bytes, *segment, *source));
                    let bytes = sealed.as_ref().unwrap_or(bytes);
                    let stream = signed(source.stream().0);
                    let sum = crc32c(bytes);
                    put.execute(params![stream, worker, number, source.ordinal(), bytes, sum])
                        .map_err(engine)?;
                }
                let known = Known { arrivals: *arrivals, gone: *gone };
                let (first, last) = (arrivals.0.0, arrivals.1.0);
                let sum = sum(*segment, &known);
                put_segment
                    .execute(params![worker, number, first, last, signed(*gone), sum])
                    .map_err(engine)?;
            }
        }
        transaction.commit().map_err(engine)
    }

    /// Forgets segment `name`, in which `streams` are; `None`: nobody knows which.
    pub fn forget(
        &mut self,
        name: SegmentName,
        streams: Option<&BTreeSet<StreamId>>,
    ) -> Result<(), IndexError> {
        let (worker, number) = (name.worker.0, signed(name.number));
        let transaction = self.connection.transaction().map_err(engine)?;
        for stream in streams.into_iter().flatten() {
            let place = params![signed(stream.0), worker, number];
            transaction.execute(schema::FORGET_STRIPS, place).map_err(engine)?;
        }
        if streams.is_none() {
            transaction.execute(schema::FORGET_ALL, params![worker, number]).map_err(engine)?;
        }
        transaction.execute(schema::FORGET_SEGMENT, params![worker, number]).map_err(engine)?;
        transaction.commit().map_err(engine)
    }
}
