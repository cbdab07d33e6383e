//! What a spool is made with, and how it fails to start.

use std::path::PathBuf;

use crate::base::ids::{Position, WorkerId};
use crate::store::log::{BLOCK_BYTES, LogError};

/// Largest log file: small enough to be returned to the pool soon, large enough that switching
/// files is rare (6 s of 1,000 G.711 streams).
const LOG_FILE_BYTES_MAX: u64 = 64 << 20;

/// What a spool is made with.
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// The store.
    pub store: PathBuf,
    /// The store's journal, which knows how far the log was durable.
    pub journal: PathBuf,
    /// Where to go on when the store's disk fails (F12).
    pub spare: Option<PathBuf>,
    /// Other disks that segments go to as well, where the most room is.
    pub segment_dirs: Vec<PathBuf>,
    /// Other folders that were ever configured: parts of the log may lie there.
    pub spares: Vec<PathBuf>,
    /// Whose ring.
    pub worker: WorkerId,
    /// Volume id of the store.
    pub volume: [u8; 16],
    /// Longest time between two syncs while there is something to sync.
    pub commit_ms: u64,
    /// Largest span of a segment; half of the ring is the most there can be.
    pub segment_bytes: u64,
    /// Longest span of a segment.
    pub segment_ms: u64,
    /// Whether segments hold packed records.
    pub packing: bool,
}

impl SpoolConfig {
    /// From the `[store]` table; `spares` as the store's `volume.json` names them.
    pub fn new(
        table: &crate::config::model::Store,
        spares: Vec<PathBuf>,
        worker: WorkerId,
        volume: [u8; 16],
    ) -> Self {
        SpoolConfig {
            store: table.dir.clone(),
            journal: table.journal_dir.clone().unwrap_or_else(|| table.dir.join("journal")),
            spare: table.spare_dir.clone(),
            segment_dirs: table.segment_dirs.clone(),
            spares,
            worker,
            volume,
            commit_ms: table.commit_ms,
            segment_bytes: u64::from(table.segment_mib) << 20,
            segment_ms: table.segment_s.saturating_mul(1_000),
            packing: table.packing,
        }
    }

    /// Span at which a segment is closed.
    pub(super) fn span_bytes(&self, ring_bytes: u64) -> u64 {
        self.segment_bytes.min(ring_bytes / 2)
    }

    /// Size of a log file: a span, room for the padding of small groups, the first block.
    pub(super) fn log_file_bytes(&self, ring_bytes: u64) -> u64 {
        let span = self.span_bytes(ring_bytes);
        (span + span / 4 + (4 << 20)).min(LOG_FILE_BYTES_MAX).next_multiple_of(BLOCK_BYTES as u64)
    }
}

/// Why a spool cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The segments cannot be read.
    #[error("{}: {source}", path.display())]
    Segments {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The memory was made for an older end of the store than its segments show.
    #[error("segments reach to position {}, the ring is durable only to {}", sealed.0, durable.0)]
    Positions {
        /// The durable mark in memory.
        durable: Position,
        /// End of the last segment.
        sealed: Position,
    },
}
