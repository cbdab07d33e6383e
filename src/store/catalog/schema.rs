//! The SQL text of the catalogue. A recording has its rows once nothing of it can change any more. Times are
//! wall nanoseconds; ids of recordings are their text. What is read back carries its CRC-32C, made over
//! the row's key as well: a row that fails it is not there.

/// Version of the tables: another one is dropped and built anew. It is another one as well where the words
/// of a recording are cut otherwise (`store/query/words.rs`, `facts.rs`): what is taken out of the search
/// must be what was put in.
pub const VERSION: i64 = 14;

/// Makes the tables. For the search: `found` has what is compared as a number, by place, which is the order
/// of start; `words` has the rest under the same number, and nothing but the index of it, so that what is
/// said of a recording stands once, in its JSON; who is named, and who sends, stand once each with the
/// number of recordings that they are in. Nothing of these is ever written of an encrypted store.
///
/// For reading: `stretches` has which segments are known, as numbers of a worker without a hole, so that
/// nobody reads a row of each to know that. Within one, `begun` and `reached` of `segments` only grow:
/// what a span of time needs is found by halving. `extents` is a table by row id: only its leaves hold
/// values, where those of a table by key would stand in all pages above them.
pub const CREATE: &str = "
CREATE TABLE IF NOT EXISTS recordings (
    id TEXT PRIMARY KEY, place INTEGER NOT NULL UNIQUE, json TEXT NOT NULL, json_sum INTEGER NOT NULL,
    entry BLOB NOT NULL, entry_sum INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS streams (
    stream INTEGER PRIMARY KEY, recording TEXT NOT NULL REFERENCES recordings ON DELETE CASCADE);
CREATE INDEX IF NOT EXISTS streams_recording ON streams (recording);
CREATE TABLE IF NOT EXISTS found (
    place INTEGER PRIMARY KEY, id BLOB NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL,
    own INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS found_own ON found (own);
CREATE INDEX IF NOT EXISTS found_length ON found (own, end - start);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
    name, aor, src, text, quirk, tag, content = '', columnsize = 0, tokenize = 'ascii');
INSERT INTO words (words, rank) VALUES ('secure-delete', 1);
CREATE TABLE IF NOT EXISTS parties (
    party INTEGER PRIMARY KEY, aor TEXT NOT NULL, name TEXT NOT NULL, lower_aor TEXT NOT NULL,
    lower_name TEXT NOT NULL, recordings INTEGER NOT NULL, UNIQUE (aor, name));
CREATE TABLE IF NOT EXISTS forms (
    form TEXT NOT NULL, party INTEGER NOT NULL, PRIMARY KEY (form, party)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS forms_party ON forms (party);
CREATE TABLE IF NOT EXISTS clients (
    client INTEGER PRIMARY KEY, who BLOB NOT NULL UNIQUE, lower TEXT NOT NULL,
    recordings INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS segments (
    worker INTEGER NOT NULL, number INTEGER NOT NULL, extents INTEGER NOT NULL,
    first_arrival INTEGER NOT NULL, last_arrival INTEGER NOT NULL, begun INTEGER NOT NULL,
    reached INTEGER NOT NULL, sum INTEGER NOT NULL, gone INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (worker, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stretches (
    worker INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, sum INTEGER NOT NULL,
    PRIMARY KEY (worker, first)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS extents (
    worker INTEGER NOT NULL, number INTEGER NOT NULL, first INTEGER NOT NULL, rows BLOB NOT NULL,
    sum INTEGER NOT NULL, PRIMARY KEY (worker, number, first));
";

/// Drops them.
pub const DROP: &str = "
DROP TABLE IF EXISTS names; DROP TABLE IF EXISTS sessions; DROP TABLE IF EXISTS streams;
DROP TABLE IF EXISTS words; DROP TABLE IF EXISTS found; DROP TABLE IF EXISTS forms;
DROP TABLE IF EXISTS parties; DROP TABLE IF EXISTS clients;
DROP TABLE IF EXISTS recordings; DROP TABLE IF EXISTS extents; DROP TABLE IF EXISTS segments;
DROP TABLE IF EXISTS stretches;
";

/// A recording by id.
pub const SETTLED: &str = "SELECT json, json_sum FROM recordings WHERE id = ?1";
/// What the journal said of it, as postcard of `fold::RsEntry`.
pub const SETTLED_ENTRY: &str = "SELECT entry, entry_sum FROM recordings WHERE id = ?1";
/// All recordings.
pub const ALL: &str = "SELECT rowid, id, json, json_sum, entry, entry_sum FROM recordings";
/// All segments: how many extents each has, when its records arrived.
pub const SEGMENTS: &str = "SELECT worker, number, extents, first_arrival, last_arrival, begun, \
     reached, sum FROM segments";
/// One of them.
pub const SEGMENT: &str = "SELECT worker, number, extents, first_arrival, last_arrival, begun, \
     reached, sum FROM segments WHERE worker = ?1 AND number = ?2";
/// Those of some numbers, in order.
pub const SEGMENTS_OF: &str = "SELECT worker, number, extents, first_arrival, last_arrival, begun, \
     reached, sum FROM segments WHERE worker = ?1 AND number BETWEEN ?2 AND ?3 ORDER BY number";
/// Which segments are known.
pub const STRETCHES: &str = "SELECT worker, first, last, sum FROM stretches";
/// The stretch that a number may be in.
pub const STRETCH: &str = "SELECT worker, first, last, sum FROM stretches \
     WHERE worker = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1";
/// A stretch.
pub const PUT_STRETCH: &str = "INSERT OR REPLACE INTO stretches VALUES (?1, ?2, ?3, ?4)";
/// The run of a segment's extents that a stream's stand in, as postcard of where it stands and of them.
pub const RUN: &str = "SELECT first, rows, sum FROM extents \
     WHERE worker = ?1 AND number = ?2 AND first <= ?3 ORDER BY first DESC LIMIT 1";
/// All runs of a segment.
pub const RUNS: &str = "SELECT first, rows, sum FROM extents \
     WHERE worker = ?1 AND number = ?2 ORDER BY first";
/// One segment.
pub const PUT_SEGMENT: &str =
    "INSERT OR REPLACE INTO segments VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0)";
/// How many of its extents are gone by retention.
pub const THINNED: &str = "SELECT worker, number, gone FROM segments";
/// Says so of one.
pub const THIN: &str = "UPDATE segments SET gone = ?3 WHERE worker = ?1 AND number = ?2";
/// The recording that a stream is of.
pub const OF_STREAM: &str = "SELECT recording FROM streams WHERE stream = ?1";
/// A run of its extents.
pub const PUT_EXTENTS: &str = "INSERT INTO extents VALUES (?1, ?2, ?3, ?4, ?5)";
/// Removes all of them.
pub const DELETE_EXTENTS: &str = "DELETE FROM extents WHERE worker = ?1 AND number = ?2";
/// Removes all segments.
pub const DELETE_SEGMENTS: &str =
    "DELETE FROM segments; DELETE FROM extents; DELETE FROM stretches;";
/// Removes a damaged recording.
pub const DELETE_ROW: &str = "DELETE FROM recordings WHERE rowid = ?1";
/// Removes a recording and what hangs on it.
pub const DELETE_RECORDING: &str = "DELETE FROM recordings WHERE id = ?1";
/// One recording.
pub const PUT_RECORDING: &str = "INSERT INTO recordings VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
/// Whether a place is taken.
pub const TAKEN: &str = "SELECT 1 FROM recordings WHERE place = ?1 \
     UNION ALL SELECT 1 FROM found WHERE place = ?1";
/// Where a recording stands.
pub const PLACE: &str = "SELECT place FROM recordings WHERE id = ?1";
/// All of it, the newest first.
pub const BACKWARDS: &str = "SELECT id, place, json, json_sum, entry, entry_sum FROM recordings \
     WHERE place < ?1 ORDER BY place DESC LIMIT ?2";
/// The same, the oldest first.
pub const FORWARDS: &str = "SELECT id, place, json, json_sum, entry, entry_sum FROM recordings \
     WHERE place > ?1 ORDER BY place LIMIT ?2";
/// One stream.
pub const PUT_STREAM: &str = "INSERT OR REPLACE INTO streams VALUES (?1, ?2)";
