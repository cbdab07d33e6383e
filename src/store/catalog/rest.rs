//! What stands in segments of which somebody knows nothing yet, and in the log.

use std::collections::BTreeSet;

use super::library::{Library, LibraryError};
use super::range::is_of;
use crate::base::ids::StreamId;
use crate::base::ports::Disk;
use crate::base::time::Wall;
use crate::store::archive::{Run, Visit};
use crate::store::segment::{SegmentName, SegmentSet};

/// So many segments are searched by their footers sooner than all that overlap a span are looked up.
const FOOTERS_MAX: usize = 64;

impl<D: Disk + Clone> Library<D> {
    /// Shows the extents of `streams` with something of `span` that are in none of the segments `known`, then what
    /// is in no segment. In the order of [`crate::store::archive::Archive::visit`].
    pub fn visit_rest(
        &self,
        streams: &BTreeSet<StreamId>,
        span: (Wall, Wall),
        known: BTreeSet<SegmentName>,
        visitor: &mut dyn FnMut(&mut Run<'_>),
    ) -> Result<Visit, LibraryError> {
        let there = self.archive.segments()?;
        let rest = there.iter().filter(|name| !known.contains(name)).count();
        let found = match rest > FOOTERS_MAX {
            true => self.hints(&[(streams, span)])?,
            false => None,
        };
        let mut hints = found.unwrap_or_default();
        hints.extents.retain(|hint| !known.contains(&hint.segment));
        let known: SegmentSet = known.into_iter().collect();
        hints.indexed = SegmentSet::of([hints.indexed.stretches(), known.stretches()].concat());
        let mut visit = self.archive.visit_within(streams, span, Some(&hints), None, visitor)?;
        visit.damaged.retain(|damage| is_of(damage, span));
        Ok(visit)
    }
}
