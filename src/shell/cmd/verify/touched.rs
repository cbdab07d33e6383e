//! Whom a fault of a whole segment touches.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::ids::RsId;
use crate::base::time::Wall;
use crate::host::spare::StoreDisk;
use crate::store::catalog::{Library, RsEntry};
use crate::store::segment::{Footer, SegmentName, clock_at};

/// What each segment held, as far as its footer can be read.
pub(super) struct Touched<'a> {
    wanted: &'a [&'a RsEntry],
    held: BTreeMap<SegmentName, Held>,
}

/// What one segment held.
struct Held {
    recordings: BTreeSet<RsId>,
    /// First and last arrival; `None` where it holds no records.
    span: Option<(Wall, Wall)>,
}

impl<'a> Touched<'a> {
    /// Reads the footers of `segments`.
    pub(super) fn of(
        library: &Library<StoreDisk>,
        segments: &[SegmentName],
        wanted: &'a [&'a RsEntry],
    ) -> Self {
        let owners: BTreeMap<_, _> =
            wanted.iter().flat_map(|rs| rs.streams.keys().map(|s| (*s, rs.id))).collect();
        let held = |name: &SegmentName| {
            let footer: Footer = library.archive.rows(*name).ok()?;
            let wall = |mono| clock_at(&footer.clocks, mono).wall(mono);
            let recordings = footer.rows.iter().filter_map(|row| owners.get(&row.source.stream()));
            let first = footer.rows.iter().map(|row| wall(row.first_arrival)).min();
            let last = footer.rows.iter().map(|row| wall(row.last_arrival)).max();
            Some((*name, Held { recordings: recordings.copied().collect(), span: first.zip(last) }))
        };
        Touched { wanted, held: segments.iter().filter_map(held).collect() }
    }

    /// Who has records in `name`; where that cannot be read any more, whoever may have had: those
    /// that were up between the segments around it.
    pub(super) fn by(&self, name: SegmentName) -> BTreeSet<RsId> {
        if let Some(held) = self.held.get(&name) {
            return held.recordings.clone();
        }
        let same = |known: &SegmentName| known.worker == name.worker;
        let spans = |(known, held): (&SegmentName, &Held)| held.span.filter(|_| same(known));
        let from = self.held.range(..name).rev().find_map(spans).map(|span| span.1);
        let to = self.held.range(name..).find_map(spans).map(|span| span.0);
        let was_up = |rs: &&&RsEntry| {
            to.is_none_or(|to| rs.start <= to)
                && from.is_none_or(|from| rs.end.is_none_or(|end| end >= from))
        };
        self.wanted.iter().filter(was_up).map(|rs| rs.id).collect()
    }

    /// The segments that hold records of `id`.
    pub(super) fn segments_of(&self, id: RsId) -> impl Iterator<Item = SegmentName> + '_ {
        let holds = move |held: &Held| held.recordings.contains(&id);
        self.held.iter().filter(move |(_, held)| holds(held)).map(|(name, _)| *name)
    }

    /// The last checkpoint that covers records of `id`.
    pub(super) fn last_checkpoint(&self, id: RsId) -> Option<u64> {
        let holds = |(name, held): (&SegmentName, &Held)| {
            held.recordings.contains(&id).then_some(name.number)
        };
        self.held.iter().filter_map(holds).max()
    }
}
