//! The catalogue's engine: SQLite in `STORE/catalog.sqlite`. One writer; readers open it read-only and
//! work beside the writer. No part of it is ever mapped (F13): its journal is a file that is written
//! and cut, not a log beside memory that all share. What is read is checked: to a reader, what is
//! damaged is not there, and it is told once; a writer makes it again.

mod extents;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, Permissions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
mod compile;
mod listed;
pub mod peaks;
mod search;
mod segments;
mod words;

use self::words::Words;
use super::entropy::SystemEntropy;
use super::{process, unlocked, volume};
use crate::base::ids::{RsId, StreamId, WorkerId};
use crate::base::time::Wall;
use crate::store::catalog::RsEntry;
use crate::store::catalog::index::{ExtentRow, Extents, Find, Found, Index, IndexError};
use crate::store::catalog::model::Recording;
use crate::store::catalog::schema;
use crate::store::journal::KeyBox;
use crate::store::log::crc32c;
use crate::store::query::{Client, Facts};
use crate::store::segment::{SegmentName, SegmentSet};

/// How long one process waits for another's transaction.
const BUSY: Duration = Duration::from_secs(5);
/// Pages that a reader keeps: a list of two and a half million, as one of four codecs among ten million recordings
/// has, takes 20 MB, and is counted first and then looked through. Only what was read is there.
const READ_CACHE_KIB: i64 = 64 * 1_024;
/// Rows of one transaction: readers wait for its end, and each costs three syncs.
const ROWS: usize = 256;
/// Place in the file of the two bytes that say how it is journalled, and what they are where that is
/// a write-ahead log, whose index is mapped.
const AT_JOURNALLED: usize = 18;
const WAL: [u8; 2] = [2, 2];
/// Added to the version of the tables where values are sealed: neither kind is taken for the other.
const SEALED: i64 = 1_000;
/// Purpose of the derived key.
const PURPOSE: &str = "floortape catalogue";

/// Hears what is wrong.
type Told = Box<dyn Fn(&str)>;

/// An open catalogue.
pub struct Catalogue {
    connection: Connection,
    /// Of an encrypted store: what says something about people is sealed by this, and the columns that
    /// would say it in clear are empty.
    seal: Option<KeyBox>,
    /// Of a reader: what it does with the first thing that is wrong.
    told: Option<Told>,
    said: Cell<bool>,
    /// Nothing can be read of it any more.
    off: Cell<bool>,
    /// Lists that the last search has made.
    lists: Cell<u32>,
}

/// Where the catalogue of a store lies.
pub fn path(store: &Path) -> PathBuf {
    store.join("catalog.sqlite")
}

/// Opens the catalogue for reading; `None` where there is none, or one that another version wrote:
/// then everything is read from journal and segments.
pub fn open_read(store: &Path) -> Option<Catalogue> {
    open_telling(store, |_| {})
}

/// Same; `told` hears once that something of it cannot be used.
pub fn open_telling(store: &Path, told: impl Fn(&str) + 'static) -> Option<Catalogue> {
    if let Some(why) = in_the_way(&path(store)) {
        told(&why);
        return None;
    }
    if !path(store).exists() || is_mapped(store) {
        return None;
    }
    let seal = seal(store);
    let wanted = wanted_version(&seal);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<(Connection, i64, i64)> {
        let connection = Connection::open_with_flags(path(store), flags)?;
        prepare(&connection)?;
        connection.pragma_update(None, "cache_size", -READ_CACHE_KIB)?;
        let (version, owner) = (version(&connection)?, owner(&connection)?);
        Ok((connection, version, owner))
    };
    match open() {
        Ok((_, version, owner)) if version == wanted && owner != owner_of(store) => {
            told(ANOTHERS);
            None
        }
        Ok((connection, version, _)) if version == wanted => {
            let told: Option<Told> = Some(Box::new(told));
            let (said, off) = (Cell::new(false), Cell::new(false));
            Some(Catalogue { connection, seal, told, said, off, lists: Cell::new(0) })
        }
        Ok(_) => None,
        Err(error) => {
            told(&engine(error).to_string());
            None
        }
    }
}

/// Files that the engine opens for a database, by what is behind its name.
const FILES: [&str; 4] = ["", "-journal", "-wal", "-shm"];

/// What stands in the place of a file that the engine would open for the database at `path`, in words: at a pipe it
/// would wait for ever, and a device might have no end. Nothing is opened here. Whoever may put one there between
/// this and the opening may as well read and write the store.
fn in_the_way(path: &Path) -> Option<String> {
    FILES.into_iter().find_map(|end| {
        let mut file = path.to_owned().into_os_string();
        file.push(end);
        let found = std::fs::metadata(&file).ok()?.file_type();
        let what = match () {
            () if found.is_file() => return None,
            () if found.is_dir() => "a folder",
            () if found.is_fifo() => "a pipe",
            () if found.is_socket() => "a socket",
            () => "a device",
        };
        Some(format!("{}: expected a file, found {what}: it is not opened", file.display()))
    })
}

/// Who looks for some pages is not to read their neighbours, too, as a search may.
pub fn expect_few_reads(store: &Path) {
    process::advise_random(&path(store));
}

/// Names of those who were recorded stand in it, and its folder may be one that others pass through. What
/// cannot be done here shows when it is opened; the engine gives its other files the same mode.
fn make_private(path: &Path) {
    let mut wanted = OpenOptions::new();
    // An empty file is an empty database.
    let _ = wanted.write(true).create_new(true).mode(0o600).open(path);
    let _ = std::fs::set_permissions(path, Permissions::from_mode(0o600));
}

/// Opens the catalogue for writing; makes it, or makes it anew where another version wrote it or
/// where it is damaged: nothing is in it that journal and segments do not have.
pub fn open_write(store: &Path) -> Result<Catalogue, IndexError> {
    let file = path(store);
    if let Some(why) = in_the_way(&file) {
        tracing::warn!("the catalogue is made anew: {why}");
        remove(store);
        in_the_way(&file).map_or(Ok(()), |why| Err(IndexError::Engine(why)))?;
    }
    // A link to nothing is in the way, too.
    if file.is_symlink() && !file.exists() || is_mapped(store) {
        remove(store);
    }
    make_private(&path(store));
    match open(store).map_err(engine) {
        Err(IndexError::Damaged(why)) => {
            tracing::warn!("the catalogue is damaged and is made anew: {why}");
            remove(store);
            make_private(&path(store));
            open(store).map_err(engine)
        }
        other => other,
    }
}

/// Removes the catalogue; whoever opens it for writing makes it anew.
pub fn remove(store: &Path) {
    // The journal first: it would be played back into another file. What cannot be removed shows
    // itself at the next attempt to open it.
    for end in FILES.into_iter().rev() {
        let mut file = path(store).into_os_string();
        file.push(end);
        let _ = std::fs::remove_file(file);
    }
}

/// Whether a version before this one wrote it, which shared a map of its log's index.
fn is_mapped(store: &Path) -> bool {
    let mut head = [0; AT_JOURNALLED + 2];
    let read = File::open(path(store)).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head[AT_JOURNALLED..] == WAL
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.execute_batch("PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;")
}

fn open(store: &Path) -> rusqlite::Result<Catalogue> {
    let seal = seal(store);
    let mut connection = Connection::open(path(store))?;
    prepare(&connection)?;
    // FULL: a power cut takes the last transaction whole, which is made again. What is deleted is
    // overwritten. Of an encrypted store no page is copied elsewhere before: a cut in the middle costs
    // the catalogue, which is made again as a whole then.
    let journal = if seal.is_some() { "MEMORY" } else { "TRUNCATE" };
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = {journal}; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA secure_delete = ON;"
    ))?;
    let wanted = wanted_version(&seal);
    let ours = owner_of(store);
    let is_anothers = version(&connection)? == wanted && owner(&connection)? != ours;
    if is_anothers {
        tracing::warn!("the catalogue is made anew: {ANOTHERS}");
    }
    if is_anothers || version(&connection)? != wanted {
        let make = connection.transaction()?;
        make.execute_batch(schema::DROP)?;
        make.execute_batch(schema::CREATE)?;
        make.pragma_update(None, "application_id", ours)?;
        make.pragma_update(None, "user_version", wanted)?;
        make.commit()?;
    }
    let (said, off) = (Cell::new(false), Cell::new(false));
    Ok(Catalogue { connection, seal, told: None, said, off, lists: Cell::new(0) })
}

/// What seals the values of an encrypted store.
fn seal(store: &Path) -> Option<KeyBox> {
    let unlocked = unlocked::of_store(store)?;
    let key = unlocked.keys.last()?.derive(PURPOSE);
    Some(KeyBox::new(key.expose()).expect("32 bytes"))
}

fn wanted_version(seal: &Option<KeyBox>) -> i64 {
    schema::VERSION + if seal.is_some() { SEALED } else { 0 }
}

/// What is said of a catalogue that came with another store's files.
const ANOTHERS: &str = "catalog.sqlite was made for another store than volume.json names";

/// What a catalogue says of the store that it was made for.
fn owner(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "application_id", |row| row.get(0))
}

/// The same of the store in folder `store`: its id as the 31 bits that there is room for. Of one without an
/// identity no catalogue is.
fn owner_of(store: &Path) -> i64 {
    let id = volume::read(store).map_or_else(|_| String::new(), |volume| volume.id);
    i64::from(crc32c(id.as_bytes()) >> 1)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// What can be well again another time is the engine's trouble; the rest is the file's.
fn engine(error: rusqlite::Error) -> IndexError {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(
            Code::DatabaseBusy
            | Code::DatabaseLocked
            | Code::DiskFull
            | Code::SystemIoFailure
            | Code::CannotOpen
            | Code::ReadOnly
            | Code::PermissionDenied
            | Code::OutOfMemory
            | Code::OperationInterrupted,
        ) => IndexError::Engine(error.to_string()),
        _ => IndexError::Damaged(error.to_string()),
    }
}

fn unreadable(table: &'static str, why: impl ToString) -> IndexError {
    IndexError::Row { table, why: why.to_string() }
}

/// Sum of a recording's value.
fn sum(id: &str, value: &[u8]) -> i64 {
    i64::from(crc32c(&[id.as_bytes(), value].concat()))
}

/// The value and the sum behind it, from column `at` on, if they go together.
fn whole(row: &Row<'_>, at: usize, id: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    let value = row.get_ref(at)?;
    let bytes = value.as_bytes().unwrap_or_default();
    let known: Option<i64> = row.get(at + 1).ok();
    Ok((known == Some(sum(id, bytes))).then(|| bytes.to_vec()))
}

const FAILS: &str = "it fails its sum";

impl Catalogue {
    /// Empties all tables.
    pub fn clear(&mut self) -> Result<(), IndexError> {
        let clear = self.connection.transaction().map_err(engine)?;
        clear.execute_batch(schema::DROP).map_err(engine)?;
        clear.execute_batch(schema::CREATE).map_err(engine)?;
        clear.commit().map_err(engine)
    }

    /// Takes out what is damaged, so that it is made again; returns how many rows. Reads all of it.
    /// `Damaged`: it is no use as a whole.
    pub fn mend(&mut self) -> Result<usize, IndexError> {
        let check: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(engine)?;
        if check != "ok" {
            return Err(IndexError::Damaged(check));
        }
        let bad = self.bad_recordings().map_err(engine)?;
        if !bad.is_empty() && self.seal.is_none() {
            // What the search has of them can be taken out no more.
            let why = format!("{} recordings fail their sums", bad.len());
            return Err(IndexError::Damaged(why));
        }
        for row in &bad {
            self.connection.execute(schema::DELETE_ROW, [row]).map_err(engine)?;
        }
        let (rows, mut damaged) = self.segment_rows()?;
        for row in &rows {
            damaged += usize::from(self.check_rows(row).is_err());
        }
        if damaged == 0 {
            damaged = self.bad_stretches(&rows)?;
        }
        if damaged > 0 {
            // Quickly made: their footers have it all.
            self.connection.execute_batch(schema::DELETE_SEGMENTS).map_err(engine)?;
        }
        Ok(bad.len() + damaged)
    }

    fn bad_recordings(&self) -> rusqlite::Result<Vec<i64>> {
        let mut query = self.connection.prepare(schema::ALL)?;
        let mut rows = query.query([])?;
        let mut bad = Vec::new();
        while let Some(row) = rows.next()? {
            let id = row.get_ref(1)?.as_str().unwrap_or_default();
            if whole(row, 2, id)?.is_none() || whole(row, 4, id)?.is_none() {
                bad.push(row.get(0)?);
            }
        }
        Ok(bad)
    }

    /// A reader goes on without what is damaged or cannot be read, and says so once.
    fn absorb<T: Default>(&self, found: Result<T, IndexError>) -> Result<T, IndexError> {
        match (&self.told, found) {
            (Some(told), Err(error)) => {
                if !self.said.replace(true) {
                    told(&error.to_string());
                }
                self.off.set(self.off.get() || !matches!(error, IndexError::Row { .. }));
                Ok(T::default())
            }
            (_, found) => found,
        }
    }

    fn value(&self, query: &str, id: RsId) -> Result<Option<Vec<u8>>, IndexError> {
        if self.off.get() {
            return Ok(None);
        }
        let id = id.to_string();
        let mut query = self.connection.prepare_cached(query).map_err(engine)?;
        let value = query.query_row([&id], |row| whole(row, 0, &id)).optional().map_err(engine)?;
        let value = value.map(|whole| whole.ok_or_else(|| unreadable("recordings", FAILS)));
        value.transpose()?.map(|value| self.opened(&id, value)).transpose()
    }

    /// A value of recording `id` as it is kept.
    fn kept(&self, id: &str, value: Vec<u8>) -> Vec<u8> {
        match &self.seal {
            Some(seal) => seal.seal_bytes(&SystemEntropy, &value, id),
            None => value,
        }
    }

    /// A value that is kept.
    fn opened(&self, id: &str, mut value: Vec<u8>) -> Result<Vec<u8>, IndexError> {
        let Some(seal) = &self.seal else { return Ok(value) };
        let opened = seal.open_bytes(&mut value, id).map(<[u8]>::to_vec);
        opened.map_err(|error| unreadable("recordings", error))
    }

    fn settled_row(&self, id: RsId) -> Result<Option<Recording>, IndexError> {
        let Some(json) = self.value(schema::SETTLED, id)? else { return Ok(None) };
        serde_json::from_slice(&json).map_err(|error| unreadable("recordings", error))
    }

    fn entry_row(&self, id: RsId) -> Result<Option<RsEntry>, IndexError> {
        let Some(bytes) = self.value(schema::SETTLED_ENTRY, id)? else { return Ok(None) };
        postcard::from_bytes(&bytes).map(Some).map_err(|error| unreadable("recordings", error))
    }

    fn put_recording(
        &self,
        words: &mut Words,
        recording: &Recording,
        entry: &RsEntry,
    ) -> Result<(), IndexError> {
        let put = &self.connection;
        let id = recording.id.to_string();
        self.remove(words, &id)?;
        let place = self.free_place(recording.start, recording.id)?;
        if self.seal.is_none() {
            let facts = Facts::of(recording);
            self.put_words(words, place, &facts, &Client::of(entry))?;
        }
        let entry =
            postcard::to_allocvec(entry).map_err(|error| unreadable("recordings", error))?;
        let json =
            serde_json::to_vec(recording).map_err(|error| unreadable("recordings", error))?;
        let (json, entry) = (self.kept(&id, json), self.kept(&id, entry));
        put.prepare_cached(schema::PUT_RECORDING)
            .and_then(|mut put| {
                put.execute(params![id, place, json, sum(&id, &json), entry, sum(&id, &entry)])
            })
            .map_err(engine)?;
        let mut put_stream = put.prepare_cached(schema::PUT_STREAM).map_err(engine)?;
        for stream in &recording.streams {
            put_stream.execute(params![stream.stream.0 as i64, id]).map_err(engine)?;
        }
        Ok(())
    }

    /// Takes a recording out, with all that was said of it. `Damaged`: what the search has of it is not
    /// known any more.
    fn remove(&self, words: &mut Words, id: &str) -> Result<(), IndexError> {
        let place: Option<i64> = self
            .connection
            .prepare_cached(schema::PLACE)
            .and_then(|mut query| query.query_row([id], |row| row.get(0)).optional())
            .map_err(engine)?;
        let Some(place) = place else { return Ok(()) };
        if self.seal.is_none() {
            let known = id.parse().ok().map(|id| Ok((self.settled_row(id)?, self.entry_row(id)?)));
            match known.transpose() {
                Ok(Some((Some(recording), Some(entry)))) => {
                    let facts = Facts::of(&recording);
                    self.remove_words(words, place, &facts, &Client::of(&entry))?;
                }
                Ok(_) | Err(IndexError::Row { .. }) => {
                    return Err(IndexError::Damaged(format!("recording {id} cannot be read")));
                }
                Err(error) => return Err(error),
            }
        }
        let mut delete =
            self.connection.prepare_cached(schema::DELETE_RECORDING).map_err(engine)?;
        delete.execute([id]).map(drop).map_err(engine)
    }

    /// One transaction of what `put` does.
    fn together(
        &self,
        put: impl FnOnce(&Self, &mut Words) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        // Rolled back where it is dropped.
        let transaction = self.connection.unchecked_transaction().map_err(engine)?;
        let mut words = Words::default();
        put(self, &mut words)?;
        self.flush_words(words)?;
        transaction.commit().map_err(engine)
    }
}

impl Index for Catalogue {
    fn settled(&self, id: RsId) -> Result<Option<Recording>, IndexError> {
        self.absorb(self.settled_row(id))
    }

    fn settled_entry(&self, id: RsId) -> Result<Option<RsEntry>, IndexError> {
        self.absorb(self.entry_row(id))
    }

    fn is_settled(&self, id: RsId) -> Result<bool, IndexError> {
        let both = || {
            let json = self.value(schema::SETTLED, id)?;
            Ok(json.is_some() && self.value(schema::SETTLED_ENTRY, id)?.is_some())
        };
        match both() {
            // It is made again.
            Err(IndexError::Row { .. }) => Ok(false),
            other => self.absorb(other),
        }
    }

    fn segments(&self) -> Result<SegmentSet, IndexError> {
        self.known_segments()
    }

    fn last_arrival(&self, segment: SegmentName) -> Result<Option<Wall>, IndexError> {
        self.absorb(self.last_arrival_in(segment))
    }

    fn thinned(&self) -> Result<BTreeMap<SegmentName, u64>, IndexError> {
        let mut query = self.connection.prepare_cached(schema::THINNED).map_err(engine)?;
        let rows = query.query_map([], |row| {
            let (worker, number): (u16, i64) = (row.get(0)?, row.get(1)?);
            let name = SegmentName { worker: WorkerId(worker), number: number as u64 };
            Ok((name, row.get::<_, i64>(2)? as u64))
        });
        rows.map_err(engine)?.collect::<rusqlite::Result<_>>().map_err(engine)
    }

    fn thin(
        &mut self,
        segment: SegmentName,
        gone: u64,
        streams: &BTreeSet<StreamId>,
    ) -> Result<(), IndexError> {
        self.together(|index, words| {
            let (worker, number) = (segment.worker.0, segment.number as i64);
            let change = &index.connection;
            change.execute(schema::THIN, params![worker, number, gone as i64]).map_err(engine)?;
            for stream in streams {
                let id: Option<String> = change
                    .prepare_cached(schema::OF_STREAM)
                    .and_then(|mut query| {
                        query.query_row([stream.0 as i64], |row| row.get(0)).optional()
                    })
                    .map_err(engine)?;
                if let Some(id) = id {
                    index.remove(words, &id)?;
                }
            }
            Ok(())
        })
    }

    fn forget(&mut self, id: RsId) -> Result<(), IndexError> {
        self.together(|index, words| index.remove(words, &id.to_string()))
    }

    fn find(&self, find: &Find<'_>) -> Result<Found, IndexError> {
        if self.off.get() {
            return Ok(Found::default());
        }
        self.absorb(self.search(find))
    }

    fn apart(&self, span: (Wall, Wall)) -> Result<SegmentSet, IndexError> {
        let mut known = self.known_segments()?;
        for segment in self.segments_in(&mut known, span)? {
            known.remove(segment.name());
        }
        Ok(known)
    }

    fn extents(
        &self,
        streams: &BTreeSet<StreamId>,
        span: (Wall, Wall),
    ) -> Result<Extents, IndexError> {
        let mut extents = Extents { rows: Vec::new(), indexed: self.known_segments()? };
        for segment in self.segments_in(&mut extents.indexed, span)? {
            let rows = self.rows_of(&segment, streams).map(Some);
            let Some(rows) = self.absorb(rows)? else {
                // Its footer is read instead.
                extents.indexed.remove(segment.name());
                continue;
            };
            let overlaps = |row: &ExtentRow| row.arrivals.0 <= span.1 && row.arrivals.1 >= span.0;
            extents.rows.extend(rows.into_iter().filter(overlaps));
        }
        // As the records stand in the segments: by worker and number, then by source.
        extents.rows.sort_by_key(|extent| (extent.segment, extent.source));
        Ok(extents)
    }

    fn put(
        &mut self,
        segments: &[(SegmentName, Vec<ExtentRow>)],
        recordings: &[(&Recording, &RsEntry)],
    ) -> Result<(), IndexError> {
        for some in segments.chunks(ROWS) {
            self.together(|index, _| {
                some.iter().try_for_each(|(name, extents)| index.put_segment(*name, extents))
            })?;
        }
        for some in recordings.chunks(ROWS) {
            self.together(|index, words| {
                some.iter()
                    .try_for_each(|(recording, entry)| index.put_recording(words, recording, entry))
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::cell::RefCell;
    use std::rc::Rc;

    use crate::base::ids::SourceId;

    pub(super) struct Folder(pub(super) PathBuf);

    impl Folder {
        pub(super) fn new(name: &str) -> Self {
            let name = format!("floortape-sqlite-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).expect("a temp folder");
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn segment(number: u64) -> (SegmentName, Vec<ExtentRow>) {
        let segment = SegmentName { worker: WorkerId(0), number };
        let at = number as i64 * 100;
        let row = |stream| ExtentRow {
            segment,
            source: SourceId::new(StreamId(stream), 0),
            offset: 4_096 * stream,
            bytes: 1_000,
            indexes: (number, number + 5),
            arrivals: (Wall(at), Wall(at + 99)),
        };
        (segment, (1..=3).map(row).collect())
    }

    fn three(store: &Path) -> Catalogue {
        let mut index = open_write(store).expect("made");
        index.put(&[segment(1), segment(2), segment(3)], &[]).expect("room");
        index
    }

    /// What a reader finds of streams 2 and 3 in segments 2 and 3, and how often it spoke.
    fn found(store: &Path) -> (Extents, u32) {
        let said = Rc::new(Cell::new(0));
        let count = Rc::clone(&said);
        let found = open_telling(store, move |_| count.set(count.get() + 1)).map(|index| {
            let streams = [StreamId(2), StreamId(3)].into();
            index.extents(&streams, (Wall(200), Wall(900))).expect("a reader goes on")
        });
        (found.unwrap_or_default(), said.get())
    }

    #[test]
    fn a_file_that_is_no_database_is_made_anew() {
        let folder = Folder::new("none");
        let store = &folder.0;
        std::fs::write(path(store), [0xa5; 8_192]).expect("ours");
        assert_eq!(found(store), (Extents::default(), 1));
        open_write(store).expect("made anew").clear().expect("a whole database");
        assert!(open_read(store).is_some());
    }

    #[test]
    fn a_pipe_or_device_in_the_place_of_a_file_is_told_and_made_anew() {
        let folder = Folder::new("pipe");
        let store = &folder.0;
        let pipe = |path: &Path| {
            let _ = std::fs::remove_file(path);
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
                .expect("a pipe");
        };
        let behind = |end: &str| store.join(format!("catalog.sqlite{end}"));
        let ways: [&dyn Fn(); 4] = [
            &|| pipe(&behind("")),
            &|| pipe(&behind("-journal")),
            &|| std::os::unix::fs::symlink("/dev/zero", behind("")).expect("ours"),
            &|| pipe(&store.join("peaks.sqlite")),
        ];
        for (way, make) in ways.iter().enumerate() {
            remove(store);
            if way == 1 {
                drop(three(store));
            }
            make();
            let heard = Rc::new(RefCell::new(String::new()));
            let told = |heard: &Rc<RefCell<String>>| {
                let heard = Rc::clone(heard);
                move |why: &str| heard.borrow_mut().push_str(why)
            };
            // Whoever opened one of these would not come back.
            let catalogue = open_telling(store, told(&heard)).is_some();
            let peaks = super::peaks::open_read(store, told(&heard)).is_some();
            assert!(!catalogue && !peaks, "{way}");
            assert!(heard.borrow().contains(": expected a file, found a "), "{way}: {heard:?}");
            drop(three(store));
            assert_eq!(found(store).0.rows.len(), 4, "{way}: made anew");
            drop(super::peaks::open_empty(store).expect("made anew"));
            assert!(super::peaks::open_read(store, |_| panic!("{way}")).is_some());
            super::peaks::remove(store);
        }
        remove(store);
        std::fs::create_dir(path(store)).expect("ours");
        let why = open_write(store).err().expect("a folder is not taken away").to_string();
        assert!(why.ends_with("found a folder: it is not opened"), "{why}");
    }

    #[test]
    fn one_with_a_write_ahead_log_is_not_opened_and_made_anew() {
        let folder = Folder::new("wal");
        let store = &folder.0;
        let old = Connection::open(path(store)).expect("made");
        old.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE a (b); PRAGMA user_version = 6")
            .expect("made");
        drop(old);
        assert!(open_read(store).is_none());
        three(store);
        assert_eq!(found(store).0.rows.len(), 4);
        let names: Vec<_> = std::fs::read_dir(store).expect("ours").flatten().collect();
        let mapped = |name: &std::fs::DirEntry| name.path().to_string_lossy().ends_with("-shm");
        assert!(!names.iter().any(mapped), "{names:?}");
    }

    #[test]
    fn a_catalogue_of_another_store_is_not_there_and_made_anew() {
        let folders = [Folder::new("theirs"), Folder::new("ours")];
        let [theirs, ours] = &folders;
        for (folder, id) in [(theirs, "one"), (ours, "other")] {
            volume::open(&folder.0, id).expect("made");
            drop(three(&folder.0));
        }
        assert_eq!(found(&ours.0).0.rows.len(), 4);
        std::fs::copy(path(&theirs.0), path(&ours.0)).expect("ours");
        let said = Rc::new(Cell::new(0));
        let told = Rc::clone(&said);
        let read = open_telling(&ours.0, move |why| {
            assert!(why.contains("another store"), "{why}");
            told.set(told.get() + 1);
        });
        assert!(read.is_none() && said.get() == 1);
        assert!(open_write(&ours.0).expect("made anew").segments().expect("readable").is_empty());
        assert!(open_read(&ours.0).is_some());
        assert_eq!(found(&theirs.0).0.rows.len(), 4);
    }

    #[test]
    fn a_reader_works_beside_a_writer() {
        let folder = Folder::new("beside");
        let writer = three(&folder.0);
        let reader = open_read(&folder.0).expect("there");
        assert_eq!(reader.segments().expect("readable").len(), 3);
        writer.connection.execute_batch("BEGIN IMMEDIATE; DELETE FROM extents;").expect("ours");
        assert_eq!(found(&folder.0).0.rows.len(), 4, "before the end of a transaction");
        writer.connection.execute_batch("ROLLBACK").expect("ours");
    }

    #[test]
    fn a_segment_whose_extents_are_not_all_there_is_not_trusted_and_made_again() {
        let folder = Folder::new("extents");
        let store = &folder.0;
        for damage in [
            "DELETE FROM extents WHERE number = 2",
            "UPDATE extents SET rows = zeroblob(40) WHERE number = 2",
            "UPDATE segments SET extents = 2 WHERE number = 2",
            "UPDATE segments SET first_arrival = 9000, last_arrival = 9001 WHERE number = 2",
        ] {
            let mut index = three(store);
            assert_eq!(index.mend().expect("whole"), 0);
            index.connection.execute_batch(damage).expect("ours");
            let (extents, said) = found(store);
            assert!(extents.rows.iter().all(|row| row.segment.number == 3), "{damage}");
            assert_eq!((extents.rows.len(), extents.indexed.len(), said), (2, 2, 1), "{damage}");
            assert_eq!(index.mend().expect("as a whole it is well"), 1, "{damage}");
            assert!(index.segments().expect("readable").is_empty());
        }
    }

    #[test]
    fn a_bit_that_flips_changes_nothing_that_is_said() {
        let folder = Folder::new("bits");
        let store = &folder.0;
        drop(three(store));
        let good = found(store).0;
        let whole = std::fs::read(path(store)).expect("there");
        let mut random = crate::base::prng::Prng::new(3);
        for at in (0..whole.len()).filter(|at| whole[*at] != 0) {
            let mut bad = whole.clone();
            bad[at] ^= 1 << random.below(8);
            std::fs::write(path(store), &bad).expect("ours");
            let found = found(store).0;
            let kept = |row: &&ExtentRow| found.indexed.contains(row.segment);
            let wanted: Vec<_> = good.rows.iter().filter(kept).collect();
            assert_eq!(found.rows.iter().collect::<Vec<_>>(), wanted, "byte {at}");
        }
    }
}
