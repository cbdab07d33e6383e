//! The catalogue's engine: SQLite in `STORE/catalog.sqlite`, write-ahead logged. One writer;
//! readers open it read-only and work beside the writer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::base::ids::{RsId, SourceId, StreamId, WorkerId};
use crate::base::time::Wall;
use crate::store::catalog::RsEntry;
use crate::store::catalog::index::{ExtentRow, Index, IndexError};
use crate::store::catalog::model::Recording;
use crate::store::catalog::schema;
use crate::store::segment::SegmentName;

/// How long one process waits for another's transaction.
const BUSY: Duration = Duration::from_secs(5);

/// An open catalogue.
pub struct Catalogue(Connection);

/// Where the catalogue of a store lies.
pub fn path(store: &Path) -> PathBuf {
    store.join("catalog.sqlite")
}

/// Opens the catalogue for reading; `None` where there is none, or one that another version wrote:
/// then everything is read from journal and segments.
pub fn open_read(store: &Path) -> Option<Catalogue> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path(store), flags).ok()?;
    connection.busy_timeout(BUSY).ok()?;
    (version(&connection).ok()? == schema::VERSION).then_some(Catalogue(connection))
}

/// Opens the catalogue for writing; makes it, or makes it anew where another version wrote it or
/// where it is damaged: nothing is in it that journal and segments do not have.
pub fn open_write(store: &Path) -> Result<Catalogue, IndexError> {
    open(store)
        .or_else(|error| {
            use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
            if !matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)) {
                return Err(error);
            }
            for end in ["", "-wal", "-shm"] {
                let mut file = path(store).into_os_string();
                file.push(end);
                // What cannot be removed shows itself in the second attempt.
                let _ = std::fs::remove_file(file);
            }
            open(store)
        })
        .map_err(engine)
}

fn open(store: &Path) -> rusqlite::Result<Catalogue> {
    let mut connection = Connection::open(path(store))?;
    connection.busy_timeout(BUSY)?;
    // NORMAL: a power cut may lose the last transactions, never the file; they are made again.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;",
    )?;
    let found = version(&connection)?;
    let make = connection.transaction()?;
    if found != schema::VERSION {
        make.execute_batch(schema::DROP)?;
    }
    make.execute_batch(schema::CREATE)?;
    make.pragma_update(None, "user_version", schema::VERSION)?;
    make.commit()?;
    Ok(Catalogue(connection))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn engine(error: rusqlite::Error) -> IndexError {
    IndexError::Engine(error.to_string())
}

fn unreadable(table: &'static str, why: impl ToString) -> IndexError {
    IndexError::Row { table, why: why.to_string() }
}

/// The word by which JSON names a plain variant.
fn word(value: &impl serde::Serialize) -> Result<String, IndexError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        other => Err(unreadable("recordings", format!("expected a word, found {other:?}"))),
    }
}

impl Catalogue {
    /// Empties all tables.
    pub fn clear(&mut self) -> Result<(), IndexError> {
        let clear = self.0.transaction().map_err(engine)?;
        clear.execute_batch(schema::DROP).map_err(engine)?;
        clear.execute_batch(schema::CREATE).map_err(engine)?;
        clear.commit().map_err(engine)
    }
}

impl Index for Catalogue {
    fn settled(&self, id: RsId) -> Result<Option<Recording>, IndexError> {
        let json: Option<String> = self
            .0
            .query_row(schema::SETTLED, [id.to_string()], |row| row.get(0))
            .optional()
            .map_err(engine)?;
        json.map(|json| {
            serde_json::from_str(&json).map_err(|error| unreadable("recordings", error))
        })
        .transpose()
    }

    fn settled_entry(&self, id: RsId) -> Result<Option<RsEntry>, IndexError> {
        let bytes: Option<Vec<u8>> = self
            .0
            .query_row(schema::SETTLED_ENTRY, [id.to_string()], |row| row.get(0))
            .optional()
            .map_err(engine)?;
        bytes
            .map(|bytes| {
                postcard::from_bytes(&bytes).map_err(|error| unreadable("recordings", error))
            })
            .transpose()
    }

    fn is_settled(&self, id: RsId) -> Result<bool, IndexError> {
        let mut query = self.0.prepare_cached(schema::IS_SETTLED).map_err(engine)?;
        query.exists([id.to_string()]).map_err(engine)
    }

    fn segments(&self) -> Result<BTreeSet<SegmentName>, IndexError> {
        let mut query = self.0.prepare_cached(schema::SEGMENTS).map_err(engine)?;
        let rows = query
            .query_map([], |row| {
                let number: i64 = row.get(1)?;
                Ok(SegmentName { worker: WorkerId(row.get(0)?), number: number as u64 })
            })
            .map_err(engine)?;
        rows.map(|row| row.map_err(engine)).collect()
    }

    fn extents(
        &self,
        streams: &BTreeSet<StreamId>,
        span: (Wall, Wall),
    ) -> Result<Vec<ExtentRow>, IndexError> {
        let mut query = self.0.prepare_cached(schema::EXTENTS).map_err(engine)?;
        let mut extents = Vec::new();
        for stream in streams {
            let rows = query
                .query_map(params![stream.0 as i64, span.0.0, span.1.0], |row| {
                    let unsigned = |column| row.get(column).map(|value: i64| value as u64);
                    Ok(ExtentRow {
                        segment: SegmentName {
                            worker: WorkerId(row.get(0)?),
                            number: unsigned(1)?,
                        },
                        source: SourceId::new(*stream, row.get(2)?),
                        offset: unsigned(3)?,
                        bytes: unsigned(4)?,
                        indexes: (unsigned(5)?, unsigned(6)?),
                        arrivals: (Wall(row.get(7)?), Wall(row.get(8)?)),
                    })
                })
                .map_err(engine)?;
            for row in rows {
                extents.push(row.map_err(engine)?);
            }
        }
        // As the records stand in the segments: by worker and number, then by source.
        extents.sort_by_key(|extent| (extent.segment, extent.source));
        Ok(extents)
    }

    fn put_segment(
        &mut self,
        segment: SegmentName,
        extents: &[ExtentRow],
    ) -> Result<(), IndexError> {
        let put = self.0.transaction().map_err(engine)?;
        {
            let mut statement = put.prepare_cached(schema::PUT_EXTENT).map_err(engine)?;
            for extent in extents {
                statement
                    .execute(params![
                        extent.source.stream().0 as i64,
                        segment.worker.0,
                        segment.number as i64,
                        extent.source.ordinal(),
                        extent.offset as i64,
                        extent.bytes as i64,
                        extent.indexes.0 as i64,
                        extent.indexes.1 as i64,
                        extent.arrivals.0.0,
                        extent.arrivals.1.0,
                    ])
                    .map_err(engine)?;
            }
        }
        put.execute(schema::PUT_SEGMENT, params![segment.worker.0, segment.number as i64])
            .map_err(engine)?;
        put.commit().map_err(engine)
    }

    fn put_recording(&mut self, recording: &Recording, entry: &RsEntry) -> Result<(), IndexError> {
        let id = recording.id.to_string();
        let entry =
            postcard::to_allocvec(entry).map_err(|error| unreadable("recordings", error))?;
        let json =
            serde_json::to_string(recording).map_err(|error| unreadable("recordings", error))?;
        let put = self.0.transaction().map_err(engine)?;
        put.execute(schema::DELETE_RECORDING, [&id]).map_err(engine)?;
        put.execute(
            schema::PUT_RECORDING,
            params![
                id,
                word(&recording.state)?,
                recording.start.0,
                recording.end.map(|end| end.0),
                recording.call_id,
                recording.src.address,
                recording.src.identity,
                recording.own,
                json,
                entry
            ],
        )
        .map_err(engine)?;
        for stream in &recording.streams {
            put.execute(
                schema::PUT_STREAM,
                params![
                    stream.stream.0 as i64,
                    id,
                    stream.label,
                    stream.media,
                    stream.codec,
                    word(&stream.verdict)?
                ],
            )
            .map_err(engine)?;
        }
        for session in &recording.sessions {
            put.execute(schema::PUT_SESSION, params![id, session.session_id]).map_err(engine)?;
        }
        for participant in &recording.participants {
            for name in &participant.names {
                put.execute(
                    schema::PUT_NAME,
                    params![id, participant.participant_id, name.aor, name.name],
                )
                .map_err(engine)?;
            }
        }
        put.commit().map_err(engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_database_is_made_anew() {
        let store = std::env::temp_dir().join(format!("floortape-sqlite-{}", std::process::id()));
        std::fs::create_dir_all(&store).expect("a temp folder");
        std::fs::write(path(&store), [0xa5; 8_192]).expect("ours");
        open_write(&store).expect("made anew").clear().expect("a whole database");
        assert!(open_read(&store).is_some());
        std::fs::remove_dir_all(&store).expect("ours");
    }
}
