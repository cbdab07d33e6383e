//! Packets by stream, whoever they belong to.

use std::collections::BTreeMap;

use super::reader::{Archive, ArchiveError, TRIES};
use crate::base::ids::{Position, StreamId};
use crate::base::ports::Disk;
use crate::store::log::{self, Found, LOOK_BEHIND_BYTES, Mark, Piece, Step, Walk, scan_worker};
use crate::store::record::RecordKind;
use crate::store::segment;

impl<D: Disk> Archive<D> {
    /// RTP packets of streams that are not `known`, by stream. A stream that has packets was accepted:
    /// who does not know it has lost what said so. Segments are judged by their footers; of the log
    /// everything is read.
    pub fn strays(
        &self,
        known: &dyn Fn(StreamId) -> bool,
    ) -> Result<BTreeMap<StreamId, u64>, ArchiveError> {
        let mut strays = BTreeMap::new();
        self.packets(&mut |stream, packets| {
            if !known(stream) {
                *strays.entry(stream).or_default() += packets;
            }
        })?;
        Ok(strays)
    }

    /// The highest stream that has packets, for those who must not use it again. Reads as much as
    /// [`Self::strays`].
    pub fn highest_stream(&self) -> Result<Option<StreamId>, ArchiveError> {
        let (mut highest, mut tries) = (None, 1);
        loop {
            match self.packets(&mut |stream, _| highest = highest.max(Some(stream))) {
                Ok(()) => return Ok(highest),
                // It was sealed meanwhile.
                Err(error) if error.is_gone() && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Shows `found` streams of recordings, each as often as it comes, with RTP packets of theirs.
    fn packets(&self, found: &mut dyn FnMut(StreamId, u64)) -> Result<(), ArchiveError> {
        let mut found = |stream: StreamId, packets: u64| {
            if packets > 0 && !stream.is_host() {
                found(stream, packets);
            }
        };
        for name in self.segments()? {
            // One that cannot be read is told by whoever checks it.
            if let Ok(footer) = self.rows(name) {
                footer.rows.iter().for_each(|row| found(row.source.stream(), row.packets));
            }
        }
        for worker in log::workers(self.disk(), self.store())? {
            let sealed = segment::sealed_through(self.disk(), self.store(), worker)
                .map_err(|source| ArchiveError::disk(self.store(), source))?;
            let scans = scan_worker(self.disk(), self.store(), worker, LOOK_BEHIND_BYTES)?;
            let mut groups: Vec<Found> = scans.into_iter().flat_map(|scan| scan.groups).collect();
            let range = (sealed, Position(u64::MAX));
            log::replay(self.disk(), &mut groups, range, &Mark::default(), &mut |_, piece| {
                let Piece::Group { found: group, payload, from } = piece else { return };
                for step in Walk::new(payload, group.header.first, group.header.ring_bytes) {
                    if let Step::Record { at, record } = step
                        && at >= from
                        && record.meta.kind == RecordKind::Rtp
                    {
                        found(record.meta.source.stream(), 1);
                    }
                }
            });
        }
        Ok(())
    }
}
