//! Records that stand one behind the other: an extent of a segment, or one of the log.

use std::path::Path;

use super::reader::{Place, Seen};
use crate::base::ids::WorkerId;
use crate::base::time::ClockMap;
use crate::store::record::{self, RecordError};
use crate::store::segment::{SegmentName, clock_at};

/// The records of one extent, in order, as far as they agree with their sums.
pub struct Run<'a> {
    pub(super) worker: WorkerId,
    pub(super) path: &'a Path,
    pub(super) segment: Option<SegmentName>,
    /// Of the boot that the records are of.
    pub(super) clocks: &'a [ClockMap],
    /// Where `bytes` stand in the file, as if nothing were packed.
    pub(super) offset: u64,
    pub(super) bytes: &'a [u8],
    /// Where the next record begins in them.
    pub(super) at: usize,
    /// The sums were computed just now.
    pub(super) is_summed: bool,
    pub(super) records: u64,
    /// Why there are no more, though bytes are left.
    pub(super) fault: Option<RecordError>,
}

impl<'a> Run<'a> {
    /// Of records that begin at `offset` of a file, and were not looked at yet.
    pub(super) fn new(
        (worker, segment): (WorkerId, Option<SegmentName>),
        (path, offset): (&'a Path, u64),
        clocks: &'a [ClockMap],
        bytes: &'a [u8],
    ) -> Self {
        let (at, is_summed, records, fault) = (0, false, 0, None);
        Run { worker, path, segment, clocks, offset, bytes, at, is_summed, records, fault }
    }
}

impl<'a> Iterator for Run<'a> {
    type Item = Seen<'a>;

    #[inline]
    fn next(&mut self) -> Option<Seen<'a>> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() || self.fault.is_some() {
            return None;
        }
        let read = if self.is_summed { record::read_summed(rest) } else { record::read(rest) };
        let record = match read {
            Ok(record) => record,
            Err(fault) => {
                self.fault = Some(fault);
                return None;
            }
        };
        let offset = self.offset + self.at as u64;
        self.at += record.raw.len();
        self.records += 1;
        let clock = match self.clocks {
            // One serves a whole segment unless the clock was stepped or slewed.
            [only] => *only,
            several => clock_at(several, record.meta.arrival),
        };
        Some(Seen {
            worker: self.worker,
            place: Place { path: self.path, offset, segment: self.segment },
            clock,
            record,
        })
    }
}
