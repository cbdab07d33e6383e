//! The SQL text of the file of peaks. A strip has its row once its segment is sealed; whatever is there can be made
//! again. Rows of one stream stand together, by worker and segment: who draws a line reads nothing else. Each
//! carries its CRC-32C, made over its key as well, since the key stands in its bytes.

/// Version of the tables: another one is dropped and built anew.
pub const VERSION: i64 = 1;

/// Makes them.
pub const CREATE: &str = "
CREATE TABLE IF NOT EXISTS strips (
    stream INTEGER NOT NULL, worker INTEGER NOT NULL, number INTEGER NOT NULL,
    ordinal INTEGER NOT NULL, strip BLOB NOT NULL, sum INTEGER NOT NULL,
    PRIMARY KEY (stream, worker, number, ordinal)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (
    worker INTEGER NOT NULL, number INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    gone INTEGER NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (worker, number)) WITHOUT ROWID;
";
/// Drops them.
pub const DROP: &str = "DROP TABLE IF EXISTS strips; DROP TABLE IF EXISTS segments;";

/// All segments of which there are strips, or of which nothing is heard.
pub const SEGMENTS: &str = "SELECT worker, number, first, last, gone, sum FROM segments";
/// One of them.
pub const PUT_SEGMENT: &str = "INSERT OR REPLACE INTO segments VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
/// A strip.
pub const PUT_STRIP: &str = "INSERT OR REPLACE INTO strips VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
/// Those of a stream in some segments of a worker, in order.
pub const STRIPS: &str = "SELECT number, ordinal, strip, sum FROM strips \
     WHERE stream = ?1 AND worker = ?2 AND number BETWEEN ?3 AND ?4 ORDER BY number, ordinal";
/// Forgets a segment.
pub const FORGET_SEGMENT: &str = "DELETE FROM segments WHERE worker = ?1 AND number = ?2";
/// Forgets what a stream has in it.
pub const FORGET_STRIPS: &str =
    "DELETE FROM strips WHERE stream = ?1 AND worker = ?2 AND number = ?3";
/// Forgets all that is in it, where nobody knows whose that is: reads all rows.
pub const FORGET_ALL: &str = "DELETE FROM strips WHERE worker = ?1 AND number = ?2";
