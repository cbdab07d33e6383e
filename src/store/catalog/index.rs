//! The index: what saves reading segments and scanning audio. A port; the engine is elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::fold::RsEntry;
use super::model::Recording;
use crate::base::ids::{RsId, SourceId, StreamId};
use crate::base::time::Wall;
use crate::store::query::{Client, Expr};
use crate::store::segment::{SegmentName, SegmentSet};

/// Why the index cannot answer. It can always be made again (`floortape rebuild`).
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The engine's own words.
    #[error("catalogue: {0}")]
    Engine(String),
    /// It is not what was written, in the engine's own words.
    #[error("catalogue: damaged: {0}")]
    Damaged(String),
    /// A row that this version did not write.
    #[error("catalogue: unreadable row of {table}: {why}")]
    Row {
        /// The table.
        table: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// One extent, as the index keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentRow {
    /// The segment.
    pub segment: SegmentName,
    /// The source.
    pub source: SourceId,
    /// Offset of its header in the segment.
    pub offset: u64,
    /// Bytes, header included.
    pub bytes: u64,
    /// Lowest and highest index.
    pub indexes: (u64, u64),
    /// First and last arrival.
    pub arrivals: (Wall, Wall),
}

/// What the index knows of some streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    /// Their extents.
    pub rows: Vec<ExtentRow>,
    /// Segments of which that is all there is of them.
    pub indexed: SegmentSet,
}

/// What is searched for.
pub struct Find<'a> {
    /// Which recordings.
    pub query: &'a Expr,
    /// The recorder's own test calls, too.
    pub own: bool,
    /// Our clock.
    pub now: Wall,
    /// The name of a client in `[[peers]]`.
    pub peers: &'a dyn Fn(&Client) -> Option<String>,
    /// The oldest first, else the newest.
    pub oldest: bool,
    /// Only what comes behind this place, in that order.
    pub after: Option<Place>,
    /// Hits that are wanted.
    pub limit: usize,
    /// Whether their number is wanted.
    pub count: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many there are in all, wherever one begins to read; 0 where that was not asked.
    pub count: u64,
    /// The first of them, in order.
    pub hits: Vec<(Place, RsId)>,
}

/// Where a recording stands among all: by its start, in microseconds, then by bits of its id. Never again
/// another's, so that what begins meanwhile moves nothing on the next page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub i64);

impl Place {
    /// Bits of the id: of 1,000 calls within a millisecond two share a place in a thousand.
    pub const BITS: u32 = 10;

    /// Where it belongs.
    pub fn of(start: Wall, id: RsId) -> Self {
        let micros = start.0.div_euclid(1_000).clamp(0, (i64::MAX >> Self::BITS) - 1);
        let low = i64::from(u16::from_be_bytes([id.0[14], id.0[15]]) & ((1 << Self::BITS) - 1));
        Place(micros << Self::BITS | low)
    }

    /// The first place of a start, and of the next microsecond.
    pub fn span_of(start: Wall) -> (Self, Self) {
        let micros = start.0.div_euclid(1_000).clamp(0, (i64::MAX >> Self::BITS) - 1);
        (Place(micros << Self::BITS), Place((micros + 1) << Self::BITS))
    }
}

/// The index. Whoever reads gets what is whole; what is damaged is not there.
pub trait Index {
    /// A recording that will not change any more, if it is kept.
    fn settled(&self, id: RsId) -> Result<Option<Recording>, IndexError>;
    /// What the journal said of a settled recording: saves reading the journal for one of many.
    fn settled_entry(&self, id: RsId) -> Result<Option<RsEntry>, IndexError>;
    /// Whether that recording is kept, as it was written.
    fn is_settled(&self, id: RsId) -> Result<bool, IndexError>;
    /// Segments whose extents are kept.
    fn segments(&self) -> Result<SegmentSet, IndexError>;
    /// When the last record of a segment arrived, where that is known.
    fn last_arrival(&self, segment: SegmentName) -> Result<Option<Wall>, IndexError>;
    /// How many extents of each of them were gone by retention when that was last looked at.
    fn thinned(&self) -> Result<BTreeMap<SegmentName, u64>, IndexError>;
    /// So many extents of a segment are gone. Recordings with `streams` have changed: they are forgotten.
    fn thin(
        &mut self,
        segment: SegmentName,
        gone: u64,
        streams: &BTreeSet<StreamId>,
    ) -> Result<(), IndexError>;
    /// Forgets a recording, which is read anew.
    fn forget(&mut self, id: RsId) -> Result<(), IndexError>;
    /// The recordings that are kept and meant.
    fn find(&self, find: &Find<'_>) -> Result<Found, IndexError>;
    /// Segments that are kept, and hold nothing of `span`.
    fn apart(&self, span: (Wall, Wall)) -> Result<SegmentSet, IndexError>;
    /// The extents of `streams` that overlap `span`.
    fn extents(
        &self,
        streams: &BTreeSet<StreamId>,
        span: (Wall, Wall),
    ) -> Result<Extents, IndexError>;
    /// Keeps segments, each with all its extents, and recordings of which nothing can change any more.
    fn put(
        &mut self,
        segments: &[(SegmentName, Vec<ExtentRow>)],
        recordings: &[(&Recording, &RsEntry)],
    ) -> Result<(), IndexError>;
}
