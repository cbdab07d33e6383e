//! Opens the extents of one segment.

use std::cell::{OnceCell, RefCell};
use std::path::{Path, PathBuf};

use super::extent::CIPHER_NONE;
use super::footer::Footer;
use super::name::SegmentName;
use super::thin::segment_path;
use crate::base::ids::StreamId;
use crate::base::ports::Disk;
use crate::store::cipher::{ChunkKey, Fresh, Secret};
use crate::store::keys::{KeyError, KeyFault, SegmentKeys, Wraps, path_of};

/// Who knows the keys of a segment's extents.
pub trait Opener {
    /// The key of an extent of `stream` in it, by the octets in the extent's header.
    fn key(&self, stream: StreamId, fresh: &Fresh) -> Result<ChunkKey, KeyError>;
}

/// The keys beside a segment. They are read when the first extent is opened, and a secret is unwrapped once
/// for all extents of a stream that stand one behind the other.
pub struct SegmentOpener<'a, D: Disk> {
    disk: &'a D,
    store: &'a Path,
    name: SegmentName,
    /// `None`: nobody has given the store's key.
    wraps: Option<&'a Wraps>,
    keys: OnceCell<SegmentKeys>,
    last: RefCell<Option<(StreamId, Secret)>>,
}

impl<'a, D: Disk> SegmentOpener<'a, D> {
    /// Of segment `name` in `store`. Nothing is read yet.
    pub fn new(disk: &'a D, store: &'a Path, name: SegmentName, wraps: Option<&'a Wraps>) -> Self {
        let (keys, last) = (OnceCell::new(), RefCell::default());
        SegmentOpener { disk, store, name, wraps, keys, last }
    }

    fn path(&self) -> PathBuf {
        path_of(&segment_path(self.disk, self.store, self.name))
    }

    fn keys(&self) -> Result<&SegmentKeys, KeyError> {
        if self.keys.get().is_none() {
            let path = self.path();
            let keys = SegmentKeys::read(self.disk, &path)?;
            let of = keys.of();
            if (of.worker, of.number) != (self.name.worker, self.name.number) {
                return Err(KeyError::Foreign { path });
            }
            // Nobody else can have set it: the cell is not shared between threads.
            let _ = self.keys.set(keys);
        }
        Ok(self.keys.get().expect("set above"))
    }

    /// Whether the keys are as they were written for the segment with that `footer`. Needs no key of the
    /// store.
    pub fn faults(&self, footer: &Footer) -> Result<Vec<KeyFault>, KeyError> {
        let encrypted = footer.rows.iter().filter(|row| row.cipher != CIPHER_NONE);
        let mut streams: Vec<StreamId> = encrypted.map(|row| row.source.stream()).collect();
        streams.dedup();
        if streams.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys()?;
        if keys.of().volume != footer.trailer.volume {
            return Err(KeyError::Foreign { path: self.path() });
        }
        Ok(keys.faults(&streams))
    }
}

impl<D: Disk> Opener for SegmentOpener<'_, D> {
    fn key(&self, stream: StreamId, fresh: &Fresh) -> Result<ChunkKey, KeyError> {
        let wraps = self.wraps.ok_or(KeyError::Locked)?;
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(known, _)| *known != stream) {
            *last = Some((stream, self.keys()?.secret(stream, wraps)?));
        }
        let (_, secret) = last.as_ref().expect("set above");
        let SegmentName { worker, number } = self.name;
        Ok(ChunkKey::of_extent(secret, worker, number, fresh))
    }
}
