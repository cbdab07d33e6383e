//! Unsealed records that only the log holds, after the ring is gone: makes spans of them and reads
//! them by position.

use std::io;

use super::config::SpoolConfig;
use crate::base::ids::{Position, SourceId, StreamId};
use crate::base::ports::Disk;
use crate::base::time::{ClockMap, Mono};
use crate::store::event::Event;
use crate::store::log::{self, Doubt, Found, LogError, LogFile, Mark, Piece, Step, Walk};
use crate::store::segment::Span;

/// Which positions a group serves.
struct Stretch {
    from: Position,
    found: Found,
}

/// The log as a source of record bytes.
pub(super) struct LogSource<D: Disk> {
    disk: D,
    stretches: Vec<Stretch>,
    open: Option<LogFile<D::File>>,
}

impl<D: Disk> LogSource<D> {
    /// Reads record bytes from position `at` on.
    pub(super) fn copy(&mut self, at: Position, out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            let position = at.0 + done as u64;
            let place = self.stretches.partition_point(|one| one.found.header.end().0 <= position);
            let stretch = self.stretches.get(place).filter(|one| one.from.0 <= position);
            let Stretch { found, .. } = stretch.ok_or(io::ErrorKind::UnexpectedEof)?;
            if self.open.as_ref().is_none_or(|file| !file.holds(found)) {
                self.open = Some(LogFile::open(&self.disk, found)?);
            }
            let file = self.open.as_ref().expect("opened above");
            let count = ((found.header.end().0 - position) as usize).min(out.len() - done);
            let at = position - found.header.first.0;
            match file.read_part(found, at, &mut out[done..done + count])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }
}

/// What is to be recovered.
pub(super) struct Wanted<'a> {
    /// Of this log.
    pub(super) groups: Vec<Found>,
    /// From here on.
    pub(super) from: Position,
    /// Up to here.
    pub(super) until: Position,
    /// What the journal says of it.
    pub(super) promised: &'a Mark,
    /// When it is done.
    pub(super) now: ClockMap,
    /// What cannot be read now cannot be another time either (F13).
    pub(super) no_hope: bool,
}

/// What the log holds of the positions wanted: spans ready to be sealed, in order, and where their
/// bytes are. What cannot be vouched for becomes an `in_doubt` event in its span; so does what
/// cannot be read, if there is no hope.
pub(super) fn recover<D: Disk + Clone>(
    disk: &D,
    config: &SpoolConfig,
    wanted: Wanted<'_>,
) -> Result<(Vec<Span>, LogSource<D>), LogError> {
    let Wanted { mut groups, from, until, promised, now, no_hope } = wanted;
    let mut spans = Spans::new(config, from);
    let mut stretches = Vec::new();
    let range = (from, until);
    let (mut last_wall, mut locked) = (None, None);
    let replayed = log::replay(disk, &mut groups, range, promised, &mut |_, piece| match piece {
        Piece::Group { found, payload, from } => {
            spans.boundary(found);
            for step in Walk::new(payload, found.header.first, found.header.ring_bytes) {
                match step {
                    Step::Record { at, record } if at >= from => spans.open.add(at, &record),
                    Step::Damaged { at, bytes } if at >= from => spans.doubts.push(Doubt {
                        path: found.path.clone(),
                        from: at,
                        to: Position(at.0 + bytes),
                        why: "record fails its sum".to_owned(),
                        // The group's sum is right: so it was written.
                        durable: true,
                        since: Some(found.header.clock.wall),
                        until: Some(found.header.clock.wall),
                    }),
                    _ => {}
                }
            }
            spans.open.through = found.header.end();
            spans.last = found.header.clock.mono;
            last_wall = Some(found.header.clock.wall);
            // Behind a hole a group begins later than what is wanted of it.
            let from = from.max(found.header.first);
            stretches.push(Stretch { from, found: found.clone() });
        }
        Piece::Locked(doubt) => locked = Some(doubt.path),
        Piece::Doubt(doubt) | Piece::Torn(doubt) => {
            spans.open.through = spans.open.through.max(doubt.to.min(until));
            spans.doubts.push(doubt);
        }
    });
    if let Some(path) = locked {
        // It is there. Whoever gave it up would destroy it.
        return Err(LogError::locked(&path));
    }
    if let Some(error) = replayed.unreadable.into_iter().next()
        && !no_hope
    {
        return Err(error);
    }
    let reached = spans.open.through.max(replayed.end);
    if reached < until {
        let why = "was durable, but the log does not hold it".to_owned();
        let path = log::folder(&config.store, config.worker);
        spans.doubts.push(Doubt {
            path,
            from: reached,
            to: until,
            why,
            durable: true,
            since: last_wall,
            until: Some(if until <= promised.durable { promised.at } else { now.wall }),
        });
        spans.open.through = until;
    }
    if spans.open.clocks.is_empty() {
        // Nothing is left that would tell the time of what is said here.
        spans.open.add_clock(now);
        spans.last = now.mono;
    }
    spans.close();
    Ok((spans.closed, LogSource { disk: disk.clone(), stretches, open: None }))
}

struct Spans<'a> {
    config: &'a SpoolConfig,
    open: Span,
    closed: Vec<Span>,
    doubts: Vec<Doubt>,
    last: Mono,
}

impl<'a> Spans<'a> {
    fn new(config: &'a SpoolConfig, from: Position) -> Self {
        let open = Span::new(from);
        Spans { config, open, closed: Vec::new(), doubts: Vec::new(), last: Mono(0) }
    }

    /// Starts another span where the open one is full, or where monotonic time starts anew: clock
    /// maps of two boots do not go together.
    fn boundary(&mut self, next: &Found) {
        let full = next.header.end().0 - self.open.from.0 > self.config.segment_bytes;
        let boot = next.header.clock.mono < self.last;
        if (full || boot) && self.open.through > self.open.from {
            self.close();
        }
        self.open.add_clock(next.header.clock);
    }

    fn close(&mut self) {
        let next = Span::new(self.open.through);
        let mut span = std::mem::replace(&mut self.open, next);
        let own = SourceId::new(StreamId::host(self.config.worker), 0);
        for doubt in self.doubts.drain(..) {
            add_doubt(&mut span, own, self.last, &doubt);
        }
        if span.through > span.from {
            self.closed.push(span);
        }
    }
}

/// Notes in `span` that a range of positions cannot be vouched for (rule 8: no silent repair).
pub(super) fn add_doubt(span: &mut Span, own: SourceId, at: Mono, doubt: &Doubt) {
    let Doubt { from, to, why, durable, since, until, .. } = doubt;
    let event = Event::InDoubt {
        from: from.0,
        to: to.0,
        why: why.clone(),
        durable: *durable,
        since: *since,
        until: *until,
    };
    span.add_own(own, at, &event);
}
