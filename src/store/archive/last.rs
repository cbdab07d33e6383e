//! What the store knows last of some streams: their sources with the highest index on disk, so that
//! a recorder that was down as a whole can go on with them (F06). Lean on purpose, because it stands
//! between a power cut and the first packet: of segments it reads rows, newest first and no further
//! back than the streams are old; of the log each group once, and keeps none of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use super::reader::{Archive, ArchiveError, TRIES};
use crate::base::ids::{Index, Position, SourceId, Ssrc, StreamId, WorkerId};
use crate::base::ports::Disk;
use crate::base::time::{ClockMap, Wall};
use crate::store::event::Event;
use crate::store::log::{self, Found, LOOK_BEHIND_BYTES, Mark, Piece, Step, Walk, scan_worker};
use crate::store::record::{self, Record, RecordKind};
use crate::store::segment::{
    Row, SegmentName, clock_at, find_rows, open_extent, read_clocks, read_first_record,
    read_trailer,
};

/// How far the wall clock may have been set back between a stream's opening and the seal of its
/// first segment.
const CLOCK_SLACK_NS: i64 = 600_000_000_000;
/// Enough for an RTP record of the largest datagram.
const FIRST_RECORD_BYTES: usize = 2_304;
/// A `source` event begins with these octets.
const SOURCE_EVENT: &[u8] = b"{\"event\":\"source\"";

/// A stream to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sought {
    /// The stream.
    pub stream: StreamId,
    /// When it was opened: nothing of it is older.
    pub since: Wall,
    /// Whether the sender's address matters (plain RTP); it costs more reading.
    pub sender: bool,
}

/// A source as it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSource {
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// Its ordinal in the stream.
    pub ordinal: u16,
    /// Highest index on disk.
    pub highest: Index,
    /// Where it sent from, as far as that was looked for and found.
    pub from: Option<SocketAddr>,
    /// Arrival of its last packet on disk.
    pub last: Wall,
}

/// A stream as it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastStream {
    /// Its sources, those heard last in front.
    pub sources: Vec<LastSource>,
    /// Ordinal that its next source gets.
    pub next_ordinal: u16,
    /// Everything captured up to this instant is on disk; `None`: no record of it was found.
    pub durable: Option<Wall>,
}

/// What [`Archive::last_seen`] found.
#[derive(Clone, Debug, Default)]
pub struct LastSeen {
    /// Per stream sought.
    pub streams: BTreeMap<StreamId, LastStream>,
    /// Bytes of positions that no valid commit group holds.
    pub in_doubt: u64,
    /// Bytes read from the disk.
    pub bytes_read: u64,
}

/// One source while it is looked for.
#[derive(Clone, Copy)]
struct Known {
    highest: Index,
    last: Wall,
    ssrc: Option<Ssrc>,
    from: Option<SocketAddr>,
    /// Its newest extent, where only a segment has it.
    extent: Option<(SegmentName, u64)>,
}

#[derive(Default)]
struct Stream {
    sources: BTreeMap<u16, Known>,
    /// `source` events, which may say more of sources than packets do.
    senders: BTreeMap<u16, (Ssrc, SocketAddr)>,
    /// The worker that recorded it last, and when.
    worker: Option<(Wall, WorkerId)>,
}

struct Search<'a> {
    sought: BTreeMap<StreamId, &'a Sought>,
    found: HashMap<StreamId, Stream>,
    through: BTreeMap<WorkerId, Wall>,
    in_doubt: u64,
}

impl<D: Disk> Archive<D> {
    /// Looks for `sought`; of each the `keep` sources heard last. Commit groups of incarnation
    /// `before` and later are left out: they are this run's own.
    ///
    /// What is sealed meanwhile is found all the same: the log is read first, and a log file is
    /// reused only after its segment is in place. Where one goes between the look at its folder and the
    /// look at itself, all is looked at once more.
    pub fn last_seen(
        &self,
        sought: &[Sought],
        keep: usize,
        before: u64,
    ) -> Result<LastSeen, ArchiveError> {
        let mut tries = 1;
        loop {
            match self.look_back(sought, keep, before) {
                Err(error) if error.is_gone() && tries < TRIES => tries += 1,
                result => return result,
            }
        }
    }

    fn look_back(
        &self,
        sought: &[Sought],
        keep: usize,
        before: u64,
    ) -> Result<LastSeen, ArchiveError> {
        let start = self.bytes_read();
        let mut search = Search {
            sought: sought.iter().map(|one| (one.stream, one)).collect(),
            found: HashMap::new(),
            through: BTreeMap::new(),
            in_doubt: 0,
        };
        for worker in self.workers()? {
            self.search_log(worker, before, &mut search)?;
        }
        let mut oldest_first = self.segments()?;
        oldest_first.sort();
        let workers: BTreeSet<WorkerId> = oldest_first.iter().map(|name| name.worker).collect();
        for worker in workers {
            let mine = oldest_first.iter().rev().filter(|name| name.worker == worker);
            self.search_segments(mine, &mut search);
        }
        let mut seen = LastSeen { in_doubt: search.in_doubt, ..LastSeen::default() };
        for one in sought {
            let stream = search.found.remove(&one.stream).unwrap_or_default();
            let durable =
                stream.worker.and_then(|(_, worker)| search.through.get(&worker).copied());
            seen.streams.insert(one.stream, self.conclude(one.stream, stream, keep, durable));
        }
        seen.bytes_read = self.bytes_read() - start;
        Ok(seen)
    }

    fn search_log(
        &self,
        worker: WorkerId,
        before: u64,
        search: &mut Search<'_>,
    ) -> Result<(), ArchiveError> {
        let (disk, store) = (self.disk(), self.store());
        let sealed = crate::store::segment::sealed_through(disk, store, worker)
            .map_err(|source| ArchiveError::disk(store, source))?;
        let scans = scan_worker(disk, store, worker, LOOK_BEHIND_BYTES)?;
        let mut groups: Vec<Found> = scans
            .into_iter()
            .flat_map(|scan| scan.groups)
            .filter(|group| group.header.incarnation < before)
            .collect();
        let range = (sealed, Position(u64::MAX));
        let promised = Mark::default();
        log::replay(disk, &mut groups, range, &promised, &mut |_, piece| match piece {
            Piece::Group { found, payload, from } => {
                let clock = found.header.clock;
                let through = search.through.entry(worker).or_insert(clock.wall);
                *through = (*through).max(clock.wall);
                for step in Walk::new(payload, found.header.first, found.header.ring_bytes) {
                    if let Step::Record { at, record } = step
                        && at >= from
                    {
                        search.record(worker, &clock, &record);
                    }
                }
            }
            Piece::Doubt(doubt) | Piece::Torn(doubt) | Piece::Locked(doubt) => {
                search.in_doubt += doubt.to.0 - doubt.from.0;
            }
        });
        Ok(())
    }

    /// `names`: of one worker, newest first. A segment that cannot be read is passed over: its loss
    /// is for `verify` to tell.
    fn search_segments<'n>(
        &self,
        names: impl Iterator<Item = &'n SegmentName>,
        search: &mut Search<'_>,
    ) {
        let mut newest = true;
        for name in names {
            let Ok(file) = self.file(*name) else { continue };
            let Ok(trailer) = read_trailer(&file) else { continue };
            let sealed = trailer.created.0.saturating_add(CLOCK_SLACK_NS);
            let streams: BTreeSet<StreamId> = search
                .sought
                .values()
                .filter(|one| one.since.0 <= sealed)
                .map(|one| one.stream)
                .collect();
            if streams.is_empty() {
                return;
            }
            let Ok((rows, _)) = find_rows(&file, &trailer, &streams) else { continue };
            if rows.is_empty() {
                continue;
            }
            let Ok(clocks) = read_clocks(&file, &trailer) else { continue };
            for row in &rows {
                let last = clock_at(&clocks, row.last_arrival).wall(row.last_arrival);
                search.row(*name, row, last);
                // With an empty log this is how far the worker's stream goes.
                if newest {
                    let through = search.through.entry(name.worker).or_insert(last);
                    *through = (*through).max(last);
                }
            }
            // Events stand in front of the sources that they tell of: these must be known first.
            let opener = self.opener(*name);
            for row in &rows {
                if row.source.ordinal() == 0
                    && search.wants_sender(row.source.stream())
                    && let Ok(extent) = open_extent(&file, row.offset, row.bytes, Some(&opener))
                {
                    search.events(row.source.stream(), &extent.records);
                }
            }
            newest = false;
        }
    }

    fn conclude(
        &self,
        stream: StreamId,
        found: Stream,
        keep: usize,
        durable: Option<Wall>,
    ) -> LastStream {
        let ordinals = found.sources.keys().chain(found.senders.keys());
        let next_ordinal = ordinals.max().map_or(1, |last| last.saturating_add(1));
        let mut known: Vec<(u16, Known)> = found.sources.into_iter().collect();
        known.sort_by_key(|(_, source)| std::cmp::Reverse(source.last));
        let mut sources = Vec::new();
        for (ordinal, source) in known.into_iter().take(keep) {
            let sender = found.senders.get(&ordinal);
            let by_event = sender.map(|(ssrc, _)| *ssrc);
            let by_extent = || {
                let (name, offset) = source.extent?;
                self.first_ssrc(name, offset, SourceId::new(stream, ordinal))
            };
            let Some(ssrc) = source.ssrc.or(by_event).or_else(by_extent) else { continue };
            let from = source.from.or(sender.map(|(_, from)| *from));
            let Known { highest, last, .. } = source;
            sources.push(LastSource { ssrc, ordinal, highest, from, last });
        }
        LastStream { sources, next_ordinal, durable }
    }

    /// SSRC of the first packet of an extent.
    fn first_ssrc(&self, name: SegmentName, offset: u64, source: SourceId) -> Option<Ssrc> {
        let file = self.file(name).ok()?;
        let opener = self.opener(name);
        let bytes = read_first_record(&file, offset, FIRST_RECORD_BYTES, Some(&opener))?;
        let first = record::read(&bytes).ok()?;
        (first.meta.source == source).then(|| ssrc_of(&first)).flatten()
    }
}

impl Search<'_> {
    fn record(&mut self, worker: WorkerId, clock: &ClockMap, record: &Record<'_>) {
        let source = record.meta.source;
        let stream = source.stream();
        if !self.sought.contains_key(&stream) {
            return;
        }
        let at = clock.wall(record.meta.arrival);
        let found = self.found.entry(stream).or_default();
        if found.worker.is_none_or(|(last, _)| last <= at) {
            found.worker = Some((at, worker));
        }
        match record.meta.kind {
            RecordKind::Rtp => {
                let known = found.sources.entry(source.ordinal()).or_insert(Known {
                    highest: record.meta.index,
                    last: at,
                    ssrc: ssrc_of(record),
                    from: None,
                    extent: None,
                });
                known.highest = known.highest.max(record.meta.index);
                known.last = known.last.max(at);
            }
            RecordKind::Event => found.event(record.payload),
            _ => {}
        }
    }

    fn row(&mut self, name: SegmentName, row: &Row, last: Wall) {
        let found = self.found.entry(row.source.stream()).or_default();
        if found.worker.is_none_or(|(newest, _)| newest < last) {
            found.worker = Some((last, name.worker));
        }
        if row.packets == 0 {
            return;
        }
        let extent = Some((name, row.offset));
        let known = found.sources.entry(row.source.ordinal()).or_insert(Known {
            highest: row.last_index,
            last,
            ssrc: None,
            from: None,
            extent,
        });
        known.highest = known.highest.max(row.last_index);
        known.last = known.last.max(last);
        known.extent = known.extent.or(extent);
    }

    fn wants_sender(&self, stream: StreamId) -> bool {
        let found = self.found.get(&stream);
        let lacks = |found: &Stream| {
            found.sources.keys().any(|ordinal| !found.senders.contains_key(ordinal))
        };
        self.sought.get(&stream).is_some_and(|one| one.sender) && found.is_none_or(lacks)
    }

    fn events(&mut self, stream: StreamId, records: &[u8]) {
        let found = self.found.entry(stream).or_default();
        let mut at = 0;
        while let Ok(record) = record::read(&records[at..]) {
            at += record.raw.len();
            if record.meta.kind == RecordKind::Event {
                found.event(record.payload);
            }
        }
    }
}

impl Stream {
    fn event(&mut self, payload: &[u8]) {
        if payload.starts_with(SOURCE_EVENT)
            && let Ok(Event::Source { ordinal, ssrc, from }) = Event::from_payload(payload)
        {
            self.senders.insert(ordinal, (ssrc, from));
        }
    }
}

fn ssrc_of(record: &Record<'_>) -> Option<Ssrc> {
    let bytes = record.payload.get(8..12).filter(|_| record.meta.kind == RecordKind::Rtp)?;
    Some(Ssrc(u32::from_be_bytes(bytes.try_into().expect("four octets"))))
}

#[cfg(test)]
#[path = "last_tests.rs"]
mod tests;
