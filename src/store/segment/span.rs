//! A span of positions on its way into a segment: where each source's records stand.

use std::collections::HashMap;

use crc_fast::{CrcAlgorithm, Digest};

use crate::base::ids::{Index, Position, SourceId, StreamId};
use crate::base::time::{ClockMap, Mono};
use crate::store::event::Event;
use crate::store::record::{self, Record, RecordKind, RecordMeta};

/// A further clock map is kept when the kept one is wrong by more than this.
const CLOCK_DEVIATION_NS: u64 = 100_000;

/// No run.
pub(super) const NO_RUN: u32 = u32::MAX;

/// A stretch of whole records of one source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Position of the first record.
    pub(super) at: Position,
    /// Bytes.
    pub(super) bytes: u32,
    /// The source's next run, or [`NO_RUN`].
    pub(super) next: u32,
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
    /// Records that no ring holds: what the spool or recovery itself has to say. They come last.
    pub own: Vec<u8>,
    /// Where the others stand: a list in the span's runs, in order of position.
    pub(super) first_run: u32,
    last_run: u32,
    /// State of the running sum: a whole digest is four times as long as all else that is here.
    crc: u64,
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
            own: Vec::new(),
            first_run: NO_RUN,
            last_run: NO_RUN,
            crc: Digest::new(CrcAlgorithm::Crc32Iscsi).get_state(),
        }
    }

    /// CRC-32C over all its records.
    pub fn records_crc(&self) -> u32 {
        self.digest().finalize() as u32
    }

    fn digest(&self) -> Digest {
        Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, self.crc)
    }

    fn count(&mut self, record: &Record<'_>) {
        self.records += 1;
        self.bytes += record.raw.len() as u64;
        // What waited for its keys stands behind what came after it.
        self.first_arrival = self.first_arrival.min(record.meta.arrival);
        self.last_arrival = self.last_arrival.max(record.meta.arrival);
        let mut digest = self.digest();
        digest.update(record.raw);
        self.crc = digest.get_state();
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
    /// Its clock maps; the first is valid from the start.
    pub clocks: Vec<ClockMap>,
    /// Its sources in the order in which they came, and the place of each. A record costs one look-up,
    /// the source's two cache lines, and an entry at the end of `runs`.
    sources: Vec<(SourceId, SourceSpan)>,
    places: HashMap<SourceId, usize>,
    /// Of all sources.
    runs: Vec<Run>,
}

impl Span {
    /// An empty span from `from` on.
    pub fn new(from: Position) -> Self {
        Span {
            from,
            through: from,
            clocks: Vec::new(),
            sources: Vec::new(),
            places: HashMap::new(),
            runs: Vec::new(),
        }
    }

    /// The streams of its sources; one with several comes several times.
    pub fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.sources.iter().map(|(source, _)| source.stream())
    }

    /// Whether anything but the recorder's own events is in it.
    pub fn has_streams(&self) -> bool {
        self.streams().any(|stream| !stream.is_host())
    }

    /// Its sources in the order of their numbers, and the runs that they refer to.
    pub(super) fn into_parts(mut self) -> (Vec<(SourceId, SourceSpan)>, Vec<Run>) {
        self.sources.sort_unstable_by_key(|(source, _)| *source);
        (self.sources, self.runs)
    }

    /// The source of `meta`, which begins here where it is new.
    fn source(&mut self, meta: &RecordMeta) -> &mut SourceSpan {
        let Span { sources, places, .. } = self;
        let place = *places.entry(meta.source).or_insert_with(|| {
            sources.push((meta.source, SourceSpan::new(meta)));
            sources.len() - 1
        });
        &mut sources[place].1
    }

    /// Takes the record at `at`; those of one source come in order of position.
    pub fn add(&mut self, at: Position, record: &Record<'_>) {
        let number = self.runs.len() as u32;
        assert!(number < NO_RUN, "a span has fewer records than a u32 can count");
        let source = self.source(&record.meta);
        source.count(record);
        let last = std::mem::replace(&mut source.last_run, number);
        if last == NO_RUN {
            source.first_run = number;
        }
        let bytes = record.raw.len() as u32;
        if let Some(before) = self.runs.get_mut(last as usize) {
            if before.at.0 + u64::from(before.bytes) == at.0
                && let Some(sum) = before.bytes.checked_add(bytes)
            {
                before.bytes = sum;
                self.source(&record.meta).last_run = last;
                return self.note_clock(record);
            }
            before.next = number;
        }
        self.runs.push(Run { at, bytes, next: NO_RUN });
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
            generation: self
                .places
                .get(&source)
                .map_or(0, |place| self.sources[*place].1.generation),
            source,
            index: Index(0),
            arrival,
        };
        let mut bytes = vec![0; record::record_bytes(payload.len())];
        record::write(&meta, &payload, &mut bytes);
        let record = record::read(&bytes).expect("just written");
        let source = self.source(&meta);
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
