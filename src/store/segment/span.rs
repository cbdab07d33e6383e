//! A span of positions on its way into a segment: where each source's records stand.

use std::collections::BTreeMap;

use crate::base::ids::{Index, Position, SourceId};
use crate::base::time::{ClockMap, Mono};
use crate::store::event::Event;
use crate::store::record::{self, Record, RecordKind, RecordMeta};

/// A further clock map is kept when the kept one is wrong by more than this.
const CLOCK_DEVIATION_NS: u64 = 100_000;

/// A stretch of whole records of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Position of the first record.
    pub at: Position,
    /// Bytes.
    pub bytes: u32,
}

/// One source in a span.
#[derive(Clone)]
pub struct SourceSpan {
    /// Generation of the first record.
    pub generation: u16,
    /// Lowest and highest RTP index.
    pub indexes: Option<(Index, Index)>,
    /// Arrival of the first record.
    pub first_arrival: Mono,
    /// Arrival of the last.
    pub last_arrival: Mono,
    /// Records.
    pub records: u64,
    /// RTP packets.
    pub packets: u64,
    /// Bytes of them.
    pub packet_bytes: u64,
    /// Bytes of all records.
    pub bytes: u64,
    /// Where they stand, in order.
    pub runs: Vec<Run>,
    /// Records that no ring holds: what the spool or recovery itself has to say. They come last.
    pub own: Vec<u8>,
    crc: crc_fast::Digest,
}

impl SourceSpan {
    fn new(first: &RecordMeta) -> Self {
        SourceSpan {
            generation: first.generation,
            indexes: None,
            first_arrival: first.arrival,
            last_arrival: first.arrival,
            records: 0,
            packets: 0,
            packet_bytes: 0,
            bytes: 0,
            runs: Vec::new(),
            own: Vec::new(),
            crc: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi),
        }
    }

    /// CRC-32C over all its records.
    pub fn records_crc(&self) -> u32 {
        self.crc.finalize() as u32
    }

    fn count(&mut self, record: &Record<'_>) {
        self.records += 1;
        self.bytes += record.raw.len() as u64;
        self.last_arrival = record.meta.arrival;
        self.crc.update(record.raw);
        if record.meta.kind == RecordKind::Rtp {
            self.packets += 1;
            self.packet_bytes += record.payload.len() as u64;
            let index = record.meta.index;
            let (low, high) = self.indexes.unwrap_or((index, index));
            self.indexes = Some((low.min(index), high.max(index)));
        }
    }
}

/// What a segment will hold.
#[derive(Clone)]
pub struct Span {
    /// First position.
    pub from: Position,
    /// End position.
    pub through: Position,
    /// Its sources.
    pub sources: BTreeMap<SourceId, SourceSpan>,
    /// Its clock maps; the first is valid from the start.
    pub clocks: Vec<ClockMap>,
}

impl Span {
    /// An empty span from `from` on.
    pub const fn new(from: Position) -> Self {
        Span { from, through: from, sources: BTreeMap::new(), clocks: Vec::new() }
    }

    /// Whether anything but the recorder's own events is in it.
    pub fn has_streams(&self) -> bool {
        self.sources.keys().next().is_some_and(|first| !first.stream().is_host())
    }

    /// Takes the record at `at`; those of one source come in order of position.
    pub fn add(&mut self, at: Position, record: &Record<'_>) {
        let meta = &record.meta;
        let source =
            self.sources.entry(meta.source).or_insert_with(|| SourceSpan::new(&record.meta));
        let bytes = record.raw.len() as u32;
        match source.runs.last_mut() {
            Some(last)
                if last.at.0 + u64::from(last.bytes) == at.0
                    && last.bytes.checked_add(bytes).is_some() =>
            {
                last.bytes += bytes;
            }
            _ => source.runs.push(Run { at, bytes }),
        }
        source.count(record);
        self.note_clock(record);
    }

    /// Takes the clock map that `record` carries, if it is such an event of the recorder's own.
    pub fn note_clock(&mut self, record: &Record<'_>) {
        if record.meta.kind == RecordKind::Event && record.meta.source.stream().is_host() {
            let event = Event::from_payload(record.payload);
            if let Ok(Event::Clock { map } | Event::Started { map, .. }) = event {
                self.add_clock(map);
            }
        }
    }

    /// Keeps `map` if the one before it does not predict it. A group's own map is younger than those
    /// of the records in it: where one of these says the same earlier, it takes its place.
    pub fn add_clock(&mut self, map: ClockMap) {
        let predicts = |one: &ClockMap, other: &ClockMap| {
            one.wall(other.mono).0.abs_diff(other.wall.0) <= CLOCK_DEVIATION_NS
        };
        let at = self.clocks.partition_point(|one| one.mono <= map.mono);
        if at > 0 && predicts(&self.clocks[at - 1], &map) {
            return;
        }
        match self.clocks.get_mut(at) {
            Some(next) if predicts(&map, next) => *next = map,
            _ => self.clocks.insert(at, map),
        }
    }

    /// Adds an event that no ring holds to `source`. Call it when all of that source's records are
    /// in: such events come last in an extent.
    pub fn add_own(&mut self, source: SourceId, arrival: Mono, event: &Event) {
        let payload = event.to_payload();
        let meta = RecordMeta {
            kind: RecordKind::Event,
            flags: 0,
            generation: self.sources.get(&source).map_or(0, |source| source.generation),
            source,
            index: Index(0),
            arrival,
        };
        let mut bytes = vec![0; record::record_bytes(payload.len())];
        record::write(&meta, &payload, &mut bytes);
        let record = record::read(&bytes).expect("just written");
        let source = self.sources.entry(source).or_insert_with(|| SourceSpan::new(&meta));
        source.count(&record);
        source.own.extend_from_slice(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock_at;
    use super::*;
    use crate::base::time::Wall;

    /// The spool's own map, of the instant of its commit, comes before the worker's in the group.
    #[test]
    fn f70_what_arrived_between_a_step_and_the_commit_has_the_map_of_the_step() {
        let map = |mono: u64, offset: i64| ClockMap {
            mono: Mono(mono),
            wall: Wall(mono as i64 + 1_000_000_000_000 + offset),
        };
        for step in [3_600_000_000_000, -900_000_000_000] {
            let mut span = Span::new(Position(0));
            let own = [map(100, 0), map(5_000, step), map(9_000, 0)];
            span.add_clock(own[0]);
            span.add_clock(map(6_000, step));
            span.add_clock(own[1]);
            span.add_clock(map(9_500, 0));
            span.add_clock(map(7_000, step));
            span.add_clock(own[2]);
            span.add_clock(map(8_000, step));
            assert_eq!(span.clocks, own);
            let wall = |mono| clock_at(&span.clocks, Mono(mono)).wall(Mono(mono));
            assert_eq!(wall(5_500), map(5_500, step).wall);
            assert_eq!(wall(4_999), map(4_999, 0).wall);
            assert_eq!(wall(9_100), map(9_100, 0).wall);
        }
    }
}
