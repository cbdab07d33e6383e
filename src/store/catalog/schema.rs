//! The SQL text of the catalogue. A recording has its rows once nothing of it can change any more. Times are
//! wall nanoseconds; ids of recordings are their text. What is read back carries its CRC-32C, made over
//! the row's key as well: a row that fails it is not there.

/// Version of the tables: another one is dropped and built anew.
pub const VERSION: i64 = 10;

/// Makes the tables.
pub const CREATE: &str = "
CREATE TABLE IF NOT EXISTS recordings (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER,
    call_id TEXT NOT NULL, src_address TEXT NOT NULL, src_identity TEXT NOT NULL,
    own INTEGER NOT NULL, json TEXT NOT NULL, json_sum INTEGER NOT NULL,
    entry BLOB NOT NULL, entry_sum INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS recordings_start ON recordings (start);
CREATE INDEX IF NOT EXISTS recordings_call ON recordings (call_id);
CREATE TABLE IF NOT EXISTS streams (
    stream INTEGER PRIMARY KEY, recording TEXT NOT NULL REFERENCES recordings ON DELETE CASCADE,
    label TEXT NOT NULL, media TEXT NOT NULL, codec TEXT NOT NULL, verdict TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS streams_recording ON streams (recording);
CREATE TABLE IF NOT EXISTS sessions (
    recording TEXT NOT NULL REFERENCES recordings ON DELETE CASCADE,
    session_id TEXT NOT NULL, PRIMARY KEY (recording, session_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_id ON sessions (session_id);
CREATE TABLE IF NOT EXISTS names (
    recording TEXT NOT NULL REFERENCES recordings ON DELETE CASCADE,
    participant_id TEXT NOT NULL, aor TEXT NOT NULL, name TEXT);
CREATE INDEX IF NOT EXISTS names_aor ON names (aor);
CREATE INDEX IF NOT EXISTS names_recording ON names (recording);
CREATE TABLE IF NOT EXISTS segments (
    worker INTEGER NOT NULL, number INTEGER NOT NULL, extents INTEGER NOT NULL,
    first_arrival INTEGER NOT NULL, last_arrival INTEGER NOT NULL, sum INTEGER NOT NULL,
    gone INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (worker, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS extents (
    worker INTEGER NOT NULL, number INTEGER NOT NULL, rows BLOB NOT NULL, sum INTEGER NOT NULL,
    PRIMARY KEY (worker, number));
";

/// Drops them.
pub const DROP: &str = "
DROP TABLE IF EXISTS names; DROP TABLE IF EXISTS sessions; DROP TABLE IF EXISTS streams;
DROP TABLE IF EXISTS recordings; DROP TABLE IF EXISTS extents; DROP TABLE IF EXISTS segments;
";

/// A recording by id.
pub const SETTLED: &str = "SELECT json, json_sum FROM recordings WHERE id = ?1";
/// What the journal said of it, as postcard of `fold::RsEntry`.
pub const SETTLED_ENTRY: &str = "SELECT entry, entry_sum FROM recordings WHERE id = ?1";
/// All recordings.
pub const ALL: &str = "SELECT rowid, id, json, json_sum, entry, entry_sum FROM recordings";
/// All segments: how many extents each has, when its records arrived.
pub const SEGMENTS: &str =
    "SELECT worker, number, extents, first_arrival, last_arrival, sum FROM segments";
/// The extents of a segment, as postcard of its name and all of them.
pub const EXTENTS: &str = "SELECT rows, sum FROM extents WHERE worker = ?1 AND number = ?2";
/// One segment.
pub const PUT_SEGMENT: &str = "INSERT OR REPLACE INTO segments VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)";
/// How many of its extents are gone by retention.
pub const THINNED: &str = "SELECT worker, number, gone FROM segments";
/// Says so of one.
pub const THIN: &str = "UPDATE segments SET gone = ?3 WHERE worker = ?1 AND number = ?2";
/// Removes the recording that a stream is of.
pub const DELETE_OF_STREAM: &str =
    "DELETE FROM recordings WHERE id = (SELECT recording FROM streams WHERE stream = ?1)";
/// Its extents.
pub const PUT_EXTENTS: &str = "INSERT OR REPLACE INTO extents VALUES (?1, ?2, ?3, ?4)";
/// Removes all segments.
pub const DELETE_SEGMENTS: &str = "DELETE FROM segments; DELETE FROM extents;";
/// Removes a damaged recording.
pub const DELETE_ROW: &str = "DELETE FROM recordings WHERE rowid = ?1";
/// Removes a recording and what hangs on it.
pub const DELETE_RECORDING: &str = "DELETE FROM recordings WHERE id = ?1";
/// One recording.
pub const PUT_RECORDING: &str =
    "INSERT INTO recordings VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
/// One stream.
pub const PUT_STREAM: &str = "INSERT OR REPLACE INTO streams VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
/// One Communication Session.
pub const PUT_SESSION: &str = "INSERT OR IGNORE INTO sessions VALUES (?1, ?2)";
/// One name of a participant.
pub const PUT_NAME: &str = "INSERT INTO names VALUES (?1, ?2, ?3, ?4)";
