//! The strips of a segment.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use super::kept::Strip;
use super::{BLOCK_MS, Tracer};
use crate::base::ids::{SourceId, StreamId};
use crate::base::ports::Disk;
use crate::base::time::Wall;
use crate::store::archive::{Archive, ArchiveError, Run};
use crate::store::event::{Event, StreamDescription};
use crate::store::record::RecordKind;
use crate::store::segment::{Row, SegmentName};

/// What is kept of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Which.
    pub segment: SegmentName,
    /// First and last arrival in it.
    pub arrivals: (Wall, Wall),
    /// Extents of it that are gone by retention.
    pub gone: u64,
    /// The bytes of its strips.
    pub strips: Vec<(SourceId, Vec<u8>)>,
    /// All of it was read, and what its streams are is known. Else it is not to be kept: what is missing would be
    /// taken for silence.
    pub is_whole: bool,
}

/// What streams are, as far as their own events have told. Those that are open are kept, the others forgotten.
#[derive(Clone, Debug, Default)]
pub struct Lines(BTreeMap<StreamId, StreamDescription>);

/// Says what a stream is that has not told.
pub type Ask<'a> = &'a mut dyn FnMut(StreamId) -> Option<StreamDescription>;

impl Lines {
    fn of(&mut self, stream: StreamId, ask: Ask<'_>) -> Option<&StreamDescription> {
        Some(match self.0.entry(stream) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => free.insert(ask(stream)?),
        })
    }
}

/// Makes what is kept of segment `name`. `breathe` is asked behind each extent whether to go on; `None`: it said no.
pub fn make<D: Disk>(
    archive: &Archive<D>,
    name: SegmentName,
    lines: &mut Lines,
    ask: Ask<'_>,
    breathe: &mut dyn FnMut() -> bool,
) -> Result<Option<Made>, ArchiveError> {
    let (mut strips, mut closed) = (Vec::new(), BTreeSet::new());
    let (mut unknown, mut over) = (false, false);
    let goes_on = std::cell::Cell::new(true);
    let mut visitor = |row: &Row, (from, to): (Wall, Wall), run: Option<&mut Run<'_>>| {
        let (source, stream) = (row.source, row.source.stream());
        match run {
            None if source.ordinal() > 0 => {
                strips.push((source, Strip::Gone(from, to).emit(name, source)));
            }
            None => {}
            Some(run) if source.ordinal() == 0 => {
                for seen in run.filter(|seen| seen.record.meta.kind == RecordKind::Event) {
                    match Event::from_payload(seen.record.payload) {
                        Ok(Event::Open { description } | Event::Changed { description, .. }) => {
                            lines.0.insert(stream, description);
                        }
                        Ok(Event::Close { .. }) => drop(closed.insert(stream)),
                        _ => {}
                    }
                }
            }
            Some(run) => match lines.of(stream, &mut *ask) {
                None => unknown = true,
                Some(description) => {
                    if let Some(mut tracer) = Tracer::new(description, BLOCK_MS) {
                        run.for_each(|seen| tracer.record(&seen.record, seen.wall()));
                        let heard = tracer.finish().into_iter();
                        strips.extend(
                            heard.map(|one| (source, Strip::Heard(one).emit(name, source))),
                        );
                    }
                }
            },
        }
        goes_on.set(breathe());
    };
    let mut wanted = |row: &Row| {
        over |= !goes_on.get();
        !over && !row.source.stream().is_host() && (row.source.ordinal() == 0 || row.packets > 0)
    };
    let extents = archive.visit_extents(name, &mut wanted, &mut visitor)?;
    closed.iter().for_each(|stream| drop(lines.0.remove(stream)));
    if !goes_on.get() {
        return Ok(None);
    }
    Ok(Some(Made {
        segment: name,
        arrivals: extents.arrivals,
        gone: extents.gone,
        strips,
        is_whole: extents.damaged == 0 && !unknown,
    }))
}
