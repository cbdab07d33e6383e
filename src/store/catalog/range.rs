//! Part of a recording at the cost of its own bytes: only extents are read that overlap a span of time, and
//! of the log what was committed around it.

use std::collections::BTreeSet;

use super::fold::RsEntry;
use super::library::{Library, LibraryError, Reading, touches, with_margin};
use super::model::{Account, Recording};
use super::read::sketch;
use crate::base::ids::{RsId, StreamId};
use crate::base::ports::Disk;
use crate::base::time::Wall;
use crate::store::archive::{Damaged, Run, Seen, Visit};
use crate::store::journal::entry::line_name;

/// What is said of a recording without reading a record.
#[derive(Clone, Debug)]
pub struct Quick {
    /// What the journal says.
    pub entry: RsEntry,
    /// All of it where it has settled; else what is said of its media is empty, and of nothing.
    pub recording: Recording,
    /// Nothing of it will change any more.
    pub settled: bool,
}

/// Whether what could not be read may have stood in that time.
pub(super) fn is_of(damage: &Damaged, span: (Wall, Wall)) -> bool {
    damage.lost.is_none_or(|lost| {
        lost.since.is_none_or(|since| since <= span.1)
            && lost.until.is_none_or(|until| until >= span.0)
    })
}

impl<D: Disk + Clone> Library<D> {
    /// Shows the records of `streams` of a recording (`None`: of all) that stand in extents with something
    /// of `from` to `to`, each extent whole: what came before and after is shown, too. In the order of
    /// [`crate::store::archive::Archive::visit`].
    pub fn visit_range(
        &self,
        rs: &RsEntry,
        streams: Option<&BTreeSet<StreamId>>,
        from: Wall,
        to: Wall,
        visitor: &mut dyn FnMut(Seen<'_>),
    ) -> Result<Visit, LibraryError> {
        let (streams, span) = (of(rs, streams), (from, to));
        let hints = self.hints_of_range(&streams, span)?;
        let mut visitor = |run: &mut Run<'_>| run.for_each(&mut *visitor);
        let mut visit =
            self.archive.visit_within(&streams, span, hints.as_ref(), None, &mut visitor)?;
        visit.damaged.retain(|damage| is_of(damage, span));
        Ok(visit)
    }

    /// What of `rs` could not be read of that time: of what visits have skipped, and segments that are gone,
    /// which no visit comes by.
    pub fn unread(
        &self,
        rs: &RsEntry,
        span: (Wall, Wall),
        mut skipped: Vec<Damaged>,
    ) -> Result<Vec<Damaged>, LibraryError> {
        skipped.extend(self.missing()?);
        // A torn end of a log was never promised to anybody.
        skipped.retain(|damage| !damage.torn && touches(damage, rs) && is_of(damage, span));
        Ok(skipped)
    }

    /// As [`Library::read_with`], of part of one recording. What is said of its media is the whole account
    /// where the recording has settled, and else that of what was read, which it then says.
    pub fn read_range_with(
        &self,
        rs: &RsEntry,
        streams: Option<&BTreeSet<StreamId>>,
        span: (Wall, Wall),
        visitor: &mut dyn FnMut(&Seen<'_>),
    ) -> Result<Reading, LibraryError> {
        let own = of(rs, streams);
        let is_whole = own.len() == rs.streams.len()
            && span.0 <= rs.start
            && rs.end.is_some_and(|end| end <= span.1);
        let settled = if is_whole { None } else { self.settled(rs.id)? };
        let is_told = settled.is_some();
        let mut reading = self.read_by(&[rs], |all, _, watch| {
            // The recorder's own events tell what was lost of a recording, and why packets are missing. Of one that has
            // settled that is known.
            let is_wanted = |stream: &&StreamId| stream.is_host() && !is_told;
            let host: BTreeSet<StreamId> = all.iter().filter(is_wanted).copied().collect();
            let around = if is_told { span } else { with_margin(span) };
            let hints = match is_told {
                true => self.hints_of_range(&own, span)?,
                false => self.hints(&[(&own, span), (&host, around)])?,
            };
            let wanted: BTreeSet<StreamId> = own.union(&host).copied().collect();
            let mut visitor = |run: &mut Run<'_>| watch.run(run.inspect(&mut *visitor));
            Ok(self.archive.visit_within(&wanted, around, hints.as_ref(), None, &mut visitor)?)
        })?;
        reading.damaged.retain(|damage| is_of(damage, span));
        if is_whole {
            return Ok(reading);
        }
        reading.settled.clear();
        if let Some(settled) = settled {
            reading.recordings = vec![settled];
            reading.settled.insert(rs.id);
            return Ok(reading);
        }
        let lines = streams.map(|streams| {
            let read = rs.streams.values().map(|entry| &entry.description);
            let read = read.filter(|one| streams.contains(&one.stream));
            read.map(|one| line_name(one.label.as_deref(), one.line)).collect()
        });
        for recording in &mut reading.recordings {
            recording.account = Some(Account { from: span.0, to: span.1, lines: lines.clone() });
        }
        Ok(reading)
    }

    /// What is said of a recording without reading its records: from the index where it has settled, else
    /// from the journal, all of which is read. `None` where there is none of that id.
    pub fn recording_quick(&self, id: RsId) -> Result<Option<Quick>, LibraryError> {
        let settled = self.settled(id)?;
        let Some(entry) = self.entry(id)? else { return Ok(None) };
        if let Some(recording) = settled {
            return Ok(Some(Quick { entry, recording, settled: true }));
        }
        Ok(Some(Quick { recording: sketch(&entry), entry, settled: false }))
    }
}

/// Those of a recording that are wanted.
fn of(rs: &RsEntry, streams: Option<&BTreeSet<StreamId>>) -> BTreeSet<StreamId> {
    let is_wanted = |stream: &&StreamId| streams.is_none_or(|some| some.contains(stream));
    rs.streams.keys().filter(is_wanted).copied().collect()
}
