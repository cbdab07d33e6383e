//! The keys that a segment is sealed under, made anew for each attempt to write it.

use std::path::Path;
use std::sync::Arc;

use super::segment_keys::{self, KeyError, Of, Wraps, path_of};
use crate::base::ids::StreamId;
use crate::base::ports::{Disk, Entropy};
use crate::base::time::Wall;
use crate::store::cipher::{ChunkKey, FRESH_BYTES, Fresh, Secret};

/// Random octets, for whoever needs them on another thread.
type Random = Arc<dyn Entropy + Send + Sync>;

/// Makes keys of segments. Clones are the same.
#[derive(Clone)]
pub struct KeyMaker {
    wraps: Arc<Wraps>,
    random: Random,
}

impl KeyMaker {
    /// One whose keys `wraps` opens again.
    pub fn new(wraps: Wraps, random: Random) -> Self {
        KeyMaker { wraps: Arc::new(wraps), random }
    }

    /// A secret for each of `streams` (in their order, each once), durable beside the segment at `segment`
    /// that is to be written. What lies there is of an attempt that came to nothing, and is overwritten.
    pub fn make<D: Disk>(
        &self,
        disk: &D,
        segment: &Path,
        of: Of,
        streams: &[StreamId],
        at: Wall,
    ) -> Result<WriteKeys, KeyError> {
        let (path, random) = (path_of(segment), Arc::clone(&self.random));
        let made = segment_keys::make(disk, &path, of, streams, &self.wraps, &*random, at)?;
        Ok(WriteKeys { of, store_key: self.wraps.newest(), secrets: made, random })
    }
}

/// The keys of one attempt to write a segment.
pub struct WriteKeys {
    of: Of,
    store_key: u32,
    /// By stream.
    secrets: Vec<(StreamId, Secret)>,
    random: Random,
}

impl WriteKeys {
    /// Number of the store key under which they stand.
    pub const fn store_key(&self) -> u32 {
        self.store_key
    }

    /// A key under which nothing was ever encrypted, for an extent of `stream`, and the octets that its
    /// readers make it of.
    pub fn fresh(&self, stream: StreamId) -> (Fresh, ChunkKey) {
        let found = self.secrets.binary_search_by_key(&stream, |(stream, _)| *stream);
        let place = found.expect("keys were made for all streams of the segment");
        let mut fresh = [0; FRESH_BYTES];
        self.random.fill(&mut fresh);
        let Of { worker, number, .. } = self.of;
        (fresh, ChunkKey::of_extent(&self.secrets[place].1, worker, number, &fresh))
    }
}
