//! Which segments the catalogue knows, and when their records arrived. However many there are, a reader
//! reads a row of each stretch of them, and of its segments those around the span that it wants: it finds
//! the first by halving.

use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;

use super::{Catalogue, FAILS, engine, unreadable};
use crate::base::ids::WorkerId;
use crate::base::time::Wall;
use crate::store::catalog::index::{ExtentRow, IndexError};
use crate::store::catalog::schema;
use crate::store::log::crc32c;
use crate::store::segment::{SegmentName, SegmentSet, Stretch};

/// What waited for its keys, and what the kernel held, stands behind what came after it: a segment may
/// begin so much earlier than one before it. Where the clock was set back by more, another stretch begins.
const DISORDER_NS: i64 = 60_000_000_000;

/// A row of `segments`.
#[derive(Clone, Serialize)]
pub(super) struct SegmentRow {
    pub(super) worker: u16,
    pub(super) number: u64,
    pub(super) extents: u64,
    pub(super) first_arrival: i64,
    pub(super) last_arrival: i64,
    /// The latest first arrival of it and of those before it in its stretch: none behind it begins more than
    /// [`DISORDER_NS`] earlier.
    begun: i64,
    /// The latest arrival of them: nothing of it or before it came later.
    reached: i64,
}

/// A row of `stretches`, as its sum covers it.
#[derive(Serialize)]
struct StretchRow(u16, u64, u64);

fn sum_of(row: &impl Serialize) -> Result<i64, IndexError> {
    let bytes = postcard::to_allocvec(row).map_err(|error| unreadable("segments", error))?;
    Ok(i64::from(crc32c(&bytes)))
}

fn fails() -> IndexError {
    unreadable("segments", FAILS)
}

impl SegmentRow {
    /// Number `name` with these extents, behind `before`.
    fn new(name: SegmentName, extents: &[ExtentRow], before: Option<&SegmentRow>) -> Self {
        let first_arrival = extents.iter().map(|row| row.arrivals.0.0).min().unwrap_or(i64::MAX);
        let last_arrival = extents.iter().map(|row| row.arrivals.1.0).max().unwrap_or(i64::MIN);
        // One without extents moves nothing.
        let begins = if extents.is_empty() { i64::MIN } else { first_arrival };
        SegmentRow {
            worker: name.worker.0,
            number: name.number,
            extents: extents.len() as u64,
            first_arrival,
            last_arrival,
            begun: before.map_or(begins, |before| before.begun.max(begins)),
            reached: before.map_or(last_arrival, |before| before.reached.max(last_arrival)),
        }
    }

    pub(super) const fn name(&self) -> SegmentName {
        SegmentName { worker: WorkerId(self.worker), number: self.number }
    }

    /// Whether it goes on with the stretch that ends with `before`.
    fn follows(&self, before: &SegmentRow) -> bool {
        self.extents == 0 || self.first_arrival >= before.begun.saturating_sub(DISORDER_NS)
    }

    /// Whether nothing behind it in its stretch can have begun by then.
    fn is_beyond(&self, to: Wall) -> bool {
        self.begun > to.0.saturating_add(DISORDER_NS)
    }

    fn overlaps(&self, span: (Wall, Wall)) -> bool {
        self.first_arrival <= span.1.0 && self.last_arrival >= span.0.0
    }

    /// The row, if it is as it was written.
    fn parse(row: &Row<'_>) -> Option<Self> {
        let signed = |column| row.get::<_, i64>(column).ok();
        let unsigned = |column| signed(column).map(|value| value as u64);
        let segment = SegmentRow {
            worker: row.get(0).ok()?,
            number: unsigned(1)?,
            extents: unsigned(2)?,
            first_arrival: signed(3)?,
            last_arrival: signed(4)?,
            begun: signed(5)?,
            reached: signed(6)?,
        };
        (sum_of(&segment).ok()? == signed(7)?).then_some(segment)
    }
}

fn parse_stretch(row: &Row<'_>) -> Option<Stretch> {
    let signed = |column| row.get::<_, i64>(column).ok();
    let worker: u16 = row.get(0).ok()?;
    let (first, last) = (signed(1)? as u64, signed(2)? as u64);
    let is_whole = sum_of(&StretchRow(worker, first, last)).ok()? == signed(3)?;
    is_whole.then_some(Stretch { worker: WorkerId(worker), first, last })
}

impl Catalogue {
    /// Which segments are known. A reader goes on without those that it cannot be sure of.
    pub(super) fn known_segments(&self) -> Result<SegmentSet, IndexError> {
        let (stretches, damaged) = self.absorb(self.stretches())?;
        if damaged > 0 {
            self.absorb(Err::<(), _>(unreadable("stretches", FAILS)))?;
        }
        Ok(SegmentSet::of(stretches))
    }

    /// Stretches that are whole, as they are kept, and how many are not.
    fn stretches(&self) -> Result<(Vec<Stretch>, usize), IndexError> {
        if self.off.get() {
            return Ok(Default::default());
        }
        let mut query = self.connection.prepare_cached(schema::STRETCHES).map_err(engine)?;
        let mut found = query.query([]).map_err(engine)?;
        let (mut stretches, mut damaged) = (Vec::new(), 0);
        while let Some(row) = found.next().map_err(engine)? {
            match parse_stretch(row) {
                Some(stretch) => stretches.push(stretch),
                None => damaged += 1,
            }
        }
        Ok((stretches, damaged))
    }

    /// Segments of `known` with something of `span`. Those whose rows are damaged are left out, and are not
    /// known any more.
    pub(super) fn segments_in(
        &self,
        known: &mut SegmentSet,
        span: (Wall, Wall),
    ) -> Result<Vec<SegmentRow>, IndexError> {
        let mut segments = Vec::new();
        // As they are kept: two that lie side by side are in order each by itself.
        let (stretches, _) = self.absorb(self.stretches())?;
        for stretch in stretches {
            match self.absorb(self.segments_of(&stretch, span).map(Some))? {
                Some(found) => segments.extend(found),
                None => {
                    // All of it is looked at, and what is whole of it stays.
                    let all = self.absorb(self.whole_segments(&stretch))?;
                    let there: SegmentSet = all.iter().map(SegmentRow::name).collect();
                    let lost = SegmentSet::of(vec![stretch]).without(&there);
                    *known = known.without(&lost);
                    segments.extend(all.into_iter().filter(|one| one.overlaps(span)));
                }
            }
        }
        segments.retain(|one| known.contains(one.name()));
        Ok(segments)
    }

    fn segment_row(&self, worker: u16, number: u64) -> Result<Option<SegmentRow>, IndexError> {
        let mut query = self.connection.prepare_cached(schema::SEGMENT).map_err(engine)?;
        let found =
            query.query_row(params![worker, number as i64], |row| Ok(SegmentRow::parse(row)));
        let found = found.optional().map_err(engine)?.flatten();
        Ok(found.filter(|row| (row.worker, row.number) == (worker, number)))
    }

    /// Those of a stretch with something of `span`.
    fn segments_of(
        &self,
        stretch: &Stretch,
        span: (Wall, Wall),
    ) -> Result<Vec<SegmentRow>, IndexError> {
        let worker = stretch.worker.0;
        let (mut low, mut high) = (stretch.first, stretch.last);
        while low < high {
            let middle = low + (high - low) / 2;
            let row = self.segment_row(worker, middle)?.ok_or_else(fails)?;
            if row.reached < span.0.0 { low = middle + 1 } else { high = middle }
        }
        let mut query = self.connection.prepare_cached(schema::SEGMENTS_OF).map_err(engine)?;
        let place = params![worker, low as i64, stretch.last as i64];
        let mut found = query.query(place).map_err(engine)?;
        let mut segments = Vec::new();
        for number in low..=stretch.last {
            let row = found.next().map_err(engine)?.and_then(SegmentRow::parse);
            let row = row.filter(|row| (row.worker, row.number) == (worker, number));
            let row = row.ok_or_else(fails)?;
            if row.is_beyond(span.1) {
                break;
            }
            if row.overlaps(span) {
                segments.push(row);
            }
        }
        Ok(segments)
    }

    /// All of a stretch that are whole.
    fn whole_segments(&self, stretch: &Stretch) -> Result<Vec<SegmentRow>, IndexError> {
        let mut query = self.connection.prepare_cached(schema::SEGMENTS_OF).map_err(engine)?;
        let place = params![stretch.worker.0, stretch.first as i64, stretch.last as i64];
        let mut found = query.query(place).map_err(engine)?;
        let mut segments = Vec::new();
        while let Some(row) = found.next().map_err(engine)? {
            segments.extend(SegmentRow::parse(row));
        }
        Ok(segments)
    }

    pub(super) fn last_arrival_in(&self, name: SegmentName) -> Result<Option<Wall>, IndexError> {
        if self.off.get() {
            return Ok(None);
        }
        let row = self.segment_row(name.worker.0, name.number)?;
        Ok(row.filter(|row| row.extents > 0).map(|row| Wall(row.last_arrival)))
    }

    /// Rows of segments that are whole, and how many are not.
    pub(super) fn segment_rows(&self) -> Result<(Vec<SegmentRow>, usize), IndexError> {
        let mut query = self.connection.prepare_cached(schema::SEGMENTS).map_err(engine)?;
        let mut found = query.query([]).map_err(engine)?;
        let (mut rows, mut damaged) = (Vec::new(), 0);
        while let Some(row) = found.next().map_err(engine)? {
            match SegmentRow::parse(row) {
                Some(segment) => rows.push(segment),
                None => damaged += 1,
            }
        }
        Ok((rows, damaged))
    }

    /// How many stretches are damaged, or are not what `rows`, all segments, say.
    pub(super) fn bad_stretches(&self, rows: &[SegmentRow]) -> Result<usize, IndexError> {
        let (stretches, mut damaged) = self.stretches()?;
        let there: SegmentSet = rows.iter().map(SegmentRow::name).collect();
        damaged += usize::from(SegmentSet::of(stretches.clone()) != there);
        for stretch in stretches {
            let rows = self.whole_segments(&stretch)?;
            let in_order = |two: &[SegmentRow]| {
                two[1].follows(&two[0])
                    && two[1].begun >= two[0].begun
                    && two[1].reached >= two[0].reached
            };
            damaged += usize::from(!rows.windows(2).all(in_order));
        }
        Ok(damaged)
    }

    pub(super) fn put_segment(
        &self,
        name: SegmentName,
        extents: &[ExtentRow],
    ) -> Result<(), IndexError> {
        self.put_rows(name, extents)?;
        let SegmentName { worker: WorkerId(worker), number } = name;
        let mut stretch = None;
        let mut before = None;
        if let Some(known) = self.stretch_of(name)? {
            if number <= known.last {
                self.cut_stretch(known, number)?;
            } else if number - 1 == known.last {
                before = self.segment_row(worker, known.last)?;
                stretch = Some(known);
            }
        }
        let mut row = SegmentRow::new(name, extents, before.as_ref());
        if before.as_ref().is_none_or(|before| !row.follows(before)) {
            row = SegmentRow::new(name, extents, None);
            stretch = None;
        }
        let sum = sum_of(&row)?;
        let SegmentRow { extents, first_arrival, last_arrival, begun, reached, .. } = row;
        let (number_kept, extents) = (number as i64, extents as i64);
        let row =
            params![worker, number_kept, extents, first_arrival, last_arrival, begun, reached, sum];
        let put = self.connection.prepare_cached(schema::PUT_SEGMENT);
        put.and_then(|mut put| put.execute(row)).map_err(engine)?;
        let first = stretch.map_or(number, |stretch| stretch.first);
        self.put_stretch(Stretch { worker: name.worker, first, last: number })
    }

    /// The stretch that `name` is in, or else the last one before it.
    fn stretch_of(&self, name: SegmentName) -> Result<Option<Stretch>, IndexError> {
        let mut query = self.connection.prepare_cached(schema::STRETCH).map_err(engine)?;
        let place = params![name.worker.0, name.number as i64];
        let found = query.query_row(place, |row| Ok(parse_stretch(row)));
        Ok(found.optional().map_err(engine)?.flatten())
    }

    /// Number `number` is another one than it was: it is on its own.
    fn cut_stretch(&self, whole: Stretch, number: u64) -> Result<(), IndexError> {
        if number < whole.last {
            self.put_stretch(Stretch { first: number + 1, ..whole })?;
        }
        if whole.first < number {
            self.put_stretch(Stretch { last: number - 1, ..whole })?;
        }
        Ok(())
    }

    fn put_stretch(&self, Stretch { worker, first, last }: Stretch) -> Result<(), IndexError> {
        let sum = sum_of(&StretchRow(worker.0, first, last))?;
        let row = params![worker.0, first as i64, last as i64, sum];
        let put = self.connection.prepare_cached(schema::PUT_STRETCH);
        put.and_then(|mut put| put.execute(row)).map(drop).map_err(engine)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::Folder;
    use super::super::{open_read, open_write};
    use super::*;
    use crate::base::ids::{SourceId, StreamId};
    use crate::base::prng::Prng;
    use crate::store::catalog::index::Index as _;

    const SECOND: i64 = 1_000_000_000;

    fn extent(segment: SegmentName, from: i64, to: i64) -> ExtentRow {
        ExtentRow {
            segment,
            source: SourceId::new(StreamId(7), 1),
            offset: 128,
            bytes: 1_000,
            indexes: (5, 9),
            arrivals: (Wall(from), Wall(to)),
        }
    }

    fn name(worker: u16, number: u64) -> SegmentName {
        SegmentName { worker: WorkerId(worker), number }
    }

    /// Segments of two workers that come late, empty, twice, with numbers left out, and while the clock is
    /// set back and on.
    #[test]
    fn whoever_asks_for_a_span_gets_all_that_overlaps_it() {
        let mut stretches = 0;
        for seed in 0..30 {
            let folder = Folder::new("spans");
            let mut random = Prng::new(seed);
            let mut index = open_write(&folder.0).expect("made");
            let mut known: BTreeMap<SegmentName, Option<(i64, i64)>> = BTreeMap::new();
            let (mut now, mut number) = (1_000 * SECOND, 0);
            for _ in 0..60 {
                number = match random.below(12) {
                    0 => 1 + random.below(number + 1),
                    1 => number + 2,
                    _ => number + 1,
                };
                match random.below(15) {
                    0 => now -= random.below(900) as i64 * SECOND,
                    1 => now += random.below(900) as i64 * SECOND,
                    _ => now += 15 * SECOND,
                }
                let from = now - random.below(20) as i64 * SECOND;
                let to = from + random.below(40) as i64 * SECOND;
                let name = name(random.below(2) as u16, number);
                let span = (random.below(20) > 0).then_some((from, to));
                let rows = span.map(|(from, to)| extent(name, from, to)).into_iter().collect();
                index.put(&[(name, rows)], &[]).expect("room");
                known.insert(name, span);
            }
            assert_eq!(index.mend().expect("whole"), 0, "seed {seed}");
            stretches += index.stretches().expect("whole").0.len();
            let reader = open_read(&folder.0).expect("there");
            assert!(reader.segments().expect("whole").iter().eq(known.keys().copied()));
            for (name, span) in &known {
                let last = reader.last_arrival(*name).expect("whole");
                assert_eq!(last, span.map(|(_, to)| Wall(to)));
            }
            for _ in 0..100 {
                let from = now - random.below(2_500) as i64 * SECOND;
                let to = from + random.below(300) as i64 * SECOND;
                let found = reader.extents(&[StreamId(7)].into(), (Wall(from), Wall(to)));
                let found = found.expect("whole");
                let overlaps = |span: &(i64, i64)| span.0 <= to && span.1 >= from;
                let wanted = known.iter().filter(|(_, span)| span.as_ref().is_some_and(overlaps));
                let wanted: Vec<SegmentName> = wanted.map(|(name, _)| *name).collect();
                let found_in: Vec<_> = found.rows.iter().map(|row| row.segment).collect();
                assert_eq!(found_in, wanted, "seed {seed}");
                assert!(found.indexed.iter().eq(known.keys().copied()));
            }
        }
        assert!(
            stretches > 30 * 5,
            "the clock was set back, and numbers were left out: {stretches}"
        );
    }

    #[test]
    fn a_server_that_goes_on_makes_one_stretch_of_each_worker() {
        let folder = Folder::new("stretch");
        let mut index = open_write(&folder.0).expect("made");
        for number in 1..=500 {
            let at = number as i64 * 15 * SECOND;
            for worker in 0..2 {
                let name = name(worker, number);
                // What waited for its keys is two seconds older.
                let row = extent(name, at - 2 * SECOND, at + 15 * SECOND);
                index.put(&[(name, vec![row])], &[]).expect("room");
            }
        }
        let known = index.segments().expect("whole");
        assert_eq!((known.stretches().len(), known.len()), (2, 1_000));
    }

    #[test]
    fn no_table_of_segments_is_read_whole_to_find_some() {
        let folder = Folder::new("plans");
        let index = open_write(&folder.0).expect("made");
        for text in [schema::SEGMENT, schema::SEGMENTS_OF, schema::STRETCH, schema::RUN] {
            let mut plan =
                index.connection.prepare(&format!("EXPLAIN QUERY PLAN {text}")).expect("ours");
            let count = plan.parameter_count();
            let values = rusqlite::params_from_iter(std::iter::repeat_n(1, count));
            let steps = plan.query_map(values, |row| row.get::<_, String>(3)).expect("ours");
            let steps: Vec<String> = steps.map(|step| step.expect("a text")).collect();
            assert!(steps.iter().all(|step| step.starts_with("SEARCH")), "{text}: {steps:?}");
        }
    }
}
