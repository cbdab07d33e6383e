//! The records of one worker, in order: out of its ring, and out of segments where they are there no longer.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::ids::{RsId, SourceId, StreamId, WorkerId};
use crate::base::time::{ClockMap, Wall};
use crate::host::ringview::RingView;
use crate::host::spare::StoreDisk;
use crate::shell::exit::{Exit, Failure};
use crate::store::archive::{Archive, ArchiveError};
use crate::store::event::{Event, StreamDescription};
use crate::store::record::{self, RecordKind, RecordMeta};
use crate::store::segment::{SegmentName, clock_at, find_rows, read_trailer};
use crate::store::tap::{LastOf, Walked, walk};

/// Copied out of the ring at a time; more than the longest record.
const BLOCK_BYTES: usize = 256 * 1024;
/// Clock maps kept: they come each few seconds, and the last one holds for what is read now.
const CLOCKS_MAX: usize = 64;
/// How an `open` event begins: those of other recordings need not be read further.
const OPEN: &[u8] = br#"{"event":"open""#;

/// One record, or what else there is to know.
pub(super) enum Item {
    /// A record of a wanted stream.
    Record { meta: RecordMeta, payload: Vec<u8>, wall: Wall },
    /// A line was added to the recording.
    Opened(StreamDescription),
    /// What was recorded in between is not there any more.
    Missing { from: Wall, to: Wall },
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) position: u64,
    /// Exactly there; else behind what was given out of each source, from the segment of that position on.
    pub(super) exact: bool,
}

/// See the module's description.
pub(super) struct Feed {
    view: RingView,
    rs: RsId,
    at: At,
    /// What arrived before is left out.
    from: Wall,
    clocks: Vec<ClockMap>,
    buffer: Vec<u8>,
    /// Everything that arrived before is known.
    frontier: Wall,
}

/// The last that was given out of each source.
type Known = BTreeMap<SourceId, LastOf>;

/// What was found, and where the next one stands.
pub(super) type Found = Vec<(At, Item)>;

impl Feed {
    /// From `at` on; `None`: from what is written next on, or from `from` on where that is given.
    pub(super) fn new(view: RingView, rs: RsId, at: Option<At>, from: Option<Wall>) -> Self {
        let at = match (at, from) {
            (Some(at), _) => at,
            (None, Some(_)) => At { position: 0, exact: false },
            (None, None) => At { position: view.tail(), exact: true },
        };
        let (clocks, from) = (vec![view.clock()], from.unwrap_or(Wall(0)));
        Feed { view, rs, at, from, clocks, buffer: Vec::new(), frontier: from }
    }

    pub(super) fn view(&self) -> &RingView {
        &self.view
    }

    pub(super) fn worker(&self) -> WorkerId {
        self.view.worker()
    }

    pub(super) fn at(&self) -> At {
        self.at
    }

    /// Everything that arrived before is known.
    pub(super) fn frontier(&self) -> Wall {
        self.frontier
    }

    /// Reads some more; false where there is none. `now`: taken before.
    pub(super) fn step(
        &mut self,
        archive: &Archive<StoreDisk>,
        streams: &BTreeSet<StreamId>,
        known: &Known,
        now: Wall,
        found: &mut Found,
    ) -> Result<bool, Failure> {
        if self.at.exact {
            if self.at.position == self.view.tail() {
                self.frontier = now;
                return Ok(false);
            }
            if self.view.copy(self.at.position, BLOCK_BYTES, &mut self.buffer) {
                return self.ring(streams, found);
            }
            if self.at.position > self.view.tail() {
                let why = "this position is ahead of the recorder: it is of another store or boot";
                return Err(Failure::new(Exit::NotFound, why));
            }
        }
        self.segments(archive, streams, known, found)?;
        Ok(true)
    }

    fn ring(&mut self, streams: &BTreeSet<StreamId>, found: &mut Found) -> Result<bool, Failure> {
        let Feed { view, rs, at, from, clocks, buffer, frontier } = self;
        let host = StreamId::host(view.worker());
        // Events of all streams are looked at: one of them may open a line of ours.
        let wanted = |source: u64| {
            let source = SourceId(source);
            source.ordinal() == 0 || streams.contains(&source.stream())
        };
        let walked = walk(buffer, at.position, view.ring_bytes(), wanted, &mut |behind, record| {
            let meta = record.meta;
            let is_event = meta.kind == RecordKind::Event;
            if meta.source.stream() == host {
                let event = is_event.then(|| Event::from_payload(record.payload));
                if let Some(Ok(Event::Clock { map } | Event::Started { map, .. })) = event {
                    if clocks.len() >= CLOCKS_MAX {
                        clocks.remove(0);
                    }
                    let place = clocks.partition_point(|one| one.mono <= map.mono);
                    clocks.insert(place, map);
                }
                return;
            }
            let wall = clock_at(clocks, meta.arrival).wall(meta.arrival);
            // Events of others tell how late it is, too.
            *frontier = (*frontier).max(wall);
            let behind = At { position: behind, exact: true };
            if is_event && record.payload.starts_with(OPEN) {
                if let Ok(Event::Open { description }) = Event::from_payload(record.payload)
                    && description.rs == *rs
                {
                    found.push((behind, Item::Opened(description)));
                }
            } else if streams.contains(&meta.source.stream()) && wall >= *from {
                let payload = record.payload.to_vec();
                found.push((behind, Item::Record { meta, payload, wall }));
            }
        });
        match walked {
            Walked::To(position) if position > at.position => {
                at.position = position;
                Ok(true)
            }
            Walked::To(_) | Walked::Lost(_) => {
                let why = format!("nothing in the ring stands at position {}", at.position);
                Err(Failure::new(Exit::NotFound, why))
            }
        }
    }

    /// What is sealed from where we stand on, a segment at a time, and then the ring.
    fn segments(
        &mut self,
        archive: &Archive<StoreDisk>,
        streams: &BTreeSet<StreamId>,
        known: &Known,
        found: &mut Found,
    ) -> Result<(), Failure> {
        let sealed = self.view.sealed();
        let mut names = archive.segments()?;
        names.retain(|name| name.worker == self.worker());
        let mut missed = None;
        let mut wanted = Vec::new();
        for name in names.into_iter().rev() {
            let trailer = match archive.trailer(name) {
                Ok(trailer) => trailer,
                // What cannot be read is `verify`'s to tell; what it held is missing here.
                Err(_) => continue,
            };
            if trailer.through.0 <= self.at.position || trailer.created < self.from {
                break;
            }
            if trailer.from.0 < sealed {
                wanted.push((name, trailer.from.0, trailer.through.0, trailer.created));
            }
        }
        wanted.reverse();
        if let (true, Some((_, from, ..))) = (self.at.exact, wanted.first())
            && *from > self.at.position
        {
            missed = Some(*from);
        }
        if missed.is_some() || (self.at.exact && wanted.is_empty()) {
            let to = wanted.first().map_or(self.frontier, |(.., created)| *created);
            found.push((self.at, Item::Missing { from: self.frontier, to }));
        }
        for (name, begins, through, created) in wanted {
            self.segment(archive, name, begins, streams, known, found)?;
            self.at = At { position: through, exact: true };
            self.frontier = self.frontier.max(created);
        }
        // The ring begins where the segments end, or before.
        self.at = At { position: self.at.position.max(sealed), exact: true };
        Ok(())
    }

    fn segment(
        &self,
        archive: &Archive<StoreDisk>,
        name: SegmentName,
        begins: u64,
        streams: &BTreeSet<StreamId>,
        known: &Known,
        found: &mut Found,
    ) -> Result<(), ArchiveError> {
        let file = archive.segment_file(name)?;
        let rows = read_trailer(&file).and_then(|trailer| find_rows(&file, &trailer, streams));
        let Ok((rows, _)) = rows else { return Ok(()) };
        // Events stand in a source of their own: those before the last packet were told.
        let told = |stream: StreamId| {
            let own = known.iter().filter(|(source, _)| source.stream() == stream);
            own.map(|(_, last)| last.arrival).max().unwrap_or(0)
        };
        let mut all: Vec<(Wall, RecordMeta, Vec<u8>)> = Vec::new();
        for row in rows {
            // Gone by retention, or damaged: silence.
            let Ok(extent) = archive.extent(name, &row) else { continue };
            let several = (extent.header.clocks > 1).then(|| archive.rows(name)).transpose()?;
            let only = [extent.header.clock];
            let clocks = several.as_ref().map_or(&only[..], |footer| &footer.clocks);
            let mut own = Vec::new();
            let mut rest = &extent.records[..];
            while let Ok(record) = record::read(rest) {
                rest = &rest[record.raw.len()..];
                let meta = record.meta;
                let is_last =
                    |last: &LastOf| (last.index, last.arrival) == (meta.index.0, meta.arrival.0);
                if meta.source.ordinal() == 0 {
                    if meta.arrival.0 <= told(meta.source.stream()) {
                        continue;
                    }
                } else if known.get(&meta.source).is_some_and(is_last) {
                    // This and what is before it was given out.
                    own.clear();
                    continue;
                }
                let wall = clock_at(clocks, meta.arrival).wall(meta.arrival);
                own.push((wall, meta, record.payload.to_vec()));
            }
            all.extend(own);
        }
        // Sources stand one behind the other there; as they came they are heard.
        all.sort_by_key(|(wall, ..)| *wall);
        let at = At { position: begins, exact: false };
        all.retain(|(wall, ..)| *wall >= self.from);
        let record = |(wall, meta, payload)| (at, Item::Record { meta, payload, wall });
        found.extend(all.into_iter().map(record));
        Ok(())
    }
}
