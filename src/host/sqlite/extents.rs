//! Where the extents of segments lie, in runs of streams: whoever asks for one stream of thousands reads
//! one run of each segment. The runs of a segment leave no stream out, so that one that is not there is
//! found out, and is not taken for a stream that was silent.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::segments::SegmentRow;
use super::{Catalogue, FAILS, engine, unreadable};
use crate::base::ids::{SourceId, StreamId, WorkerId};
use crate::base::time::Wall;
use crate::store::catalog::index::{ExtentRow, IndexError};
use crate::store::catalog::schema;
use crate::store::log::crc32c;
use crate::store::segment::SegmentName;

/// Extents of one run: 64 × some 35 bytes are less than a page.
const RUN: usize = 64;

/// One extent as it is kept: stream, ordinal, offset, bytes, indexes, arrivals.
type Kept = (u64, u16, u64, u64, (u64, u64), (i64, i64));

/// What a row of `extents` holds.
#[derive(Serialize, Deserialize)]
struct Run {
    worker: u16,
    number: u64,
    /// All extents in the segment of these streams, both included.
    streams: (u64, u64),
    rows: Vec<Kept>,
}

/// The engine's integers have a sign.
const fn key(stream: u64) -> i64 {
    (stream ^ (1 << 63)) as i64
}

fn kept(row: &ExtentRow) -> Kept {
    let (stream, ordinal) = (row.source.stream().0, row.source.ordinal());
    let arrivals = (row.arrivals.0.0, row.arrivals.1.0);
    (stream, ordinal, row.offset, row.bytes, row.indexes, arrivals)
}

/// All of a segment, in runs.
fn runs(name: SegmentName, extents: &[ExtentRow]) -> Vec<Run> {
    let mut rows: Vec<Kept> = extents.iter().map(kept).collect();
    rows.sort_unstable_by_key(|(stream, ordinal, ..)| (*stream, *ordinal));
    let run = |first, rows| Run {
        worker: name.worker.0,
        number: name.number,
        streams: (first, u64::MAX),
        rows,
    };
    let mut runs = vec![run(0, Vec::new())];
    for row in rows {
        let last = runs.last_mut().expect("one from the start on");
        let begins = last.rows.last().is_some_and(|(stream, ..)| *stream != row.0);
        if begins && last.rows.len() >= RUN {
            last.streams.1 = row.0 - 1;
            runs.push(run(row.0, vec![row]));
        } else {
            last.rows.push(row);
        }
    }
    runs
}

impl Run {
    /// The row of `segment`, if it is as it was written.
    fn parse(segment: &SegmentRow, row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        let first: i64 = row.get(0)?;
        let bytes = row.get_ref(1)?.as_bytes().unwrap_or_default();
        let known: Option<i64> = row.get(2).ok();
        let is_whole = known == Some(i64::from(crc32c(bytes)));
        let run = is_whole.then(|| postcard::from_bytes::<Run>(bytes).ok()).flatten();
        let stands = |run: &Run| {
            (run.worker, run.number) == (segment.worker, segment.number)
                && key(run.streams.0) == first
        };
        Ok(run.filter(stands))
    }

    fn extents(self, segment: SegmentName) -> impl Iterator<Item = ExtentRow> {
        let row = move |(stream, ordinal, offset, bytes, indexes, (first, last)): Kept| ExtentRow {
            segment,
            source: SourceId::new(StreamId(stream), ordinal),
            offset,
            bytes,
            indexes,
            arrivals: (Wall(first), Wall(last)),
        };
        self.rows.into_iter().map(row)
    }
}

fn fails() -> IndexError {
    unreadable("extents", FAILS)
}

impl Catalogue {
    /// The extents of `streams` in a segment.
    pub(super) fn rows_of(
        &self,
        segment: &SegmentRow,
        streams: &BTreeSet<StreamId>,
    ) -> Result<Vec<ExtentRow>, IndexError> {
        let mut query = self.connection.prepare_cached(schema::RUN).map_err(engine)?;
        let (mut rows, mut through) = (Vec::new(), None);
        for StreamId(stream) in streams.iter().copied() {
            if through.is_some_and(|through| stream <= through) {
                continue;
            }
            let place = params![segment.worker, segment.number as i64, key(stream)];
            let run = query.query_row(place, |row| Run::parse(segment, row)).optional();
            let run = run.map_err(engine)?.flatten().ok_or_else(fails)?;
            if !(run.streams.0..=run.streams.1).contains(&stream) {
                return Err(fails());
            }
            through = Some(run.streams.1);
            let mine = |row: &ExtentRow| streams.contains(&row.source.stream());
            rows.extend(run.extents(segment.name()).filter(mine));
        }
        Ok(rows)
    }

    /// Whether all extents of a segment are there.
    pub(super) fn check_rows(&self, segment: &SegmentRow) -> Result<(), IndexError> {
        let mut query = self.connection.prepare_cached(schema::RUNS).map_err(engine)?;
        let place = params![segment.worker, segment.number as i64];
        let mut found = query.query(place).map_err(engine)?;
        let (mut next, mut count) = (Some(0), 0);
        while let Some(row) = found.next().map_err(engine)? {
            let run = Run::parse(segment, row).map_err(engine)?.ok_or_else(fails)?;
            if next != Some(run.streams.0) {
                return Err(fails());
            }
            next = run.streams.1.checked_add(1);
            count += run.rows.len() as u64;
        }
        if next.is_some() || count != segment.extents {
            return Err(fails());
        }
        Ok(())
    }

    pub(super) fn put_rows(
        &self,
        name: SegmentName,
        extents: &[ExtentRow],
    ) -> Result<(), IndexError> {
        let SegmentName { worker: WorkerId(worker), number } = name;
        let place = params![worker, number as i64];
        self.connection.execute(schema::DELETE_EXTENTS, place).map_err(engine)?;
        let mut put = self.connection.prepare_cached(schema::PUT_EXTENTS).map_err(engine)?;
        for run in runs(name, extents) {
            let bytes =
                postcard::to_allocvec(&run).map_err(|error| unreadable("extents", error))?;
            let first = key(run.streams.0);
            let row = params![worker, number as i64, first, bytes, crc32c(&bytes)];
            put.execute(row).map_err(engine)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Folder;
    use super::super::{open_read, open_write};
    use super::*;
    use crate::base::prng::Prng;
    use crate::store::catalog::index::Index as _;

    const NAME: SegmentName = SegmentName { worker: WorkerId(3), number: 9 };

    fn extent(stream: u64, ordinal: u16, offset: u64) -> ExtentRow {
        ExtentRow {
            segment: NAME,
            source: SourceId::new(StreamId(stream), ordinal),
            offset,
            bytes: 1_000,
            indexes: (5, 9),
            arrivals: (Wall(100), Wall(199)),
        }
    }

    /// Streams far and near, some with several sources; that of a host, whose number is the highest.
    fn extents(count: u64) -> Vec<ExtentRow> {
        let mut random = Prng::new(count);
        let mut rows = Vec::new();
        for n in 0..count {
            let stream = 1 + n * (1 + random.below(3));
            let sources = 1 + random.below(3) as u16;
            let place = rows.len() as u64;
            rows.extend((0..sources).map(|ordinal| extent(stream, ordinal, place)));
        }
        rows.push(extent(StreamId::host(WorkerId(3)).0, 0, 7));
        rows.sort_by_key(|row| row.source);
        rows.dedup_by_key(|row| row.source);
        rows
    }

    #[test]
    fn whoever_asks_for_some_streams_gets_all_of_theirs() {
        let folder = Folder::new("runs");
        let mut random = Prng::new(1);
        for count in [0, 1, 63, 64, 65, 500] {
            let all = extents(count);
            let mut index = open_write(&folder.0).expect("made");
            index.put(&[(NAME, all.clone())], &[]).expect("room");
            assert_eq!(index.mend().expect("whole"), 0);
            let reader = open_read(&folder.0).expect("there");
            for _ in 0..200 {
                let some = 1 + random.below(4);
                let streams: BTreeSet<_> =
                    (0..some).map(|_| StreamId(random.below(count * 3 + 5))).collect();
                let found = reader.extents(&streams, (Wall(150), Wall(150))).expect("whole");
                let wanted = |row: &&ExtentRow| streams.contains(&row.source.stream());
                let wanted: Vec<ExtentRow> = all.iter().filter(wanted).copied().collect();
                assert_eq!(found.rows, wanted);
                assert_eq!(found.indexed, [NAME].into());
            }
        }
    }

    /// Each run of a segment goes in turn: of the streams in it nothing is known then, and not that they
    /// were silent.
    #[test]
    fn a_run_that_is_not_there_is_no_silence() {
        let folder = Folder::new("no-run");
        let all = extents(300);
        let wanted = runs(NAME, &all);
        assert!(wanted.len() > 3);
        for run in &wanted {
            let mut index = open_write(&folder.0).expect("made");
            index.put(&[(NAME, all.clone())], &[]).expect("room");
            let first = key(run.streams.0);
            let gone = index.connection.execute("DELETE FROM extents WHERE first = ?1", [first]);
            assert_eq!(gone, Ok(1));
            let reader = open_read(&folder.0).expect("there");
            for row in &all {
                let stream = row.source.stream();
                let is_gone = (run.streams.0..=run.streams.1).contains(&stream.0);
                let found = reader.extents(&[stream].into(), (Wall(0), Wall(900))).expect("read");
                assert_eq!(found.indexed.is_empty(), is_gone, "{stream:?}");
            }
            assert_eq!(index.mend().expect("as a whole it is well"), 1);
        }
    }
}
