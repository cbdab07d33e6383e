//! The stored records that an export carries, each run with its way to a signed chain head.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::pen::{Appended, Pen};
use crate::base::ids::SourceId;
use crate::base::time::Wall;
use crate::host::spare::StoreDisk;
use crate::shell::exit::Failure;
use crate::store::archive::{Archive, Seen};
use crate::store::export::manifest::{RECORDS, Run, Segment};
use crate::store::segment::SegmentName;

/// The runs of records that an export carries.
#[derive(Default)]
pub(super) struct Carried {
    pub(super) segments: Vec<Segment>,
    /// No chain head vouches for them.
    pub(super) unproven: Vec<Run>,
}

/// Gathers records on the way.
pub(super) struct Gathered {
    out: Appended,
    at: u64,
    sealed: Vec<(SegmentName, Run)>,
    /// Of these some records are left out: what is left cannot prove itself without them, and is as
    /// good as the signature of the manifest.
    partial: BTreeSet<(SegmentName, SourceId)>,
    /// Records that are in a log only: they come mixed, so each source is gathered in memory (at
    /// most a ring's worth).
    unsealed: BTreeMap<SourceId, (Vec<u8>, Wall, Wall)>,
    failed: Option<io::Error>,
}

impl Gathered {
    pub(super) fn create(dir: &Path, pen: &Pen) -> io::Result<Gathered> {
        std::fs::create_dir_all(dir.join("proof"))?;
        let out = Appended::create(&dir.join(RECORDS), pen)?;
        Ok(Gathered {
            out,
            at: 0,
            sealed: Vec::new(),
            partial: BTreeSet::new(),
            unsealed: BTreeMap::new(),
            failed: None,
        })
    }

    pub(super) fn record(&mut self, seen: &Seen<'_>) {
        let (source, raw, wall) = (seen.record.meta.source, seen.record.raw, seen.wall());
        let Some(segment) = seen.place.segment else {
            let (bytes, from, to) =
                self.unsealed.entry(source).or_insert_with(|| (Vec::new(), wall, wall));
            bytes.extend_from_slice(raw);
            (*from, *to) = ((*from).min(wall), (*to).max(wall));
            return;
        };
        match self.sealed.last_mut() {
            Some((known, run)) if *known == segment && run.source == source => {
                run.bytes += raw.len() as u64;
                run.from = run.from.min(wall);
                run.to = run.to.max(wall);
            }
            _ => self.sealed.push((segment, run(source, self.at, raw.len(), (wall, wall)))),
        }
        self.write(raw);
    }

    /// Notes a record of a source that is not wanted.
    pub(super) fn leave_out(&mut self, seen: &Seen<'_>) {
        if let Some(segment) = seen.place.segment {
            self.partial.insert((segment, seen.record.meta.source));
        }
    }

    fn write(&mut self, raw: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.out.put(raw).err();
        }
        self.at += raw.len() as u64;
    }

    /// What was gathered is written; `sync`: and on the disk.
    pub(super) fn flush(&mut self, sync: bool) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None if sync => self.out.sync(),
            None => self.out.flush(),
        }
    }

    /// The runs with what proves them.
    pub(super) fn finish(mut self, archive: &Archive<StoreDisk>) -> Result<Carried, Failure> {
        let mut carried = Carried::default();
        let sealed = std::mem::take(&mut self.sealed);
        for runs in sealed.chunk_by(|(one, _), (next, _)| one == next) {
            let segment = runs[0].0;
            let is_whole = |run: &&Run| !self.partial.contains(&(segment, run.source));
            let (mut whole, part): (Vec<Run>, Vec<Run>) =
                runs.iter().map(|(_, run)| run).partition(is_whole);
            carried.unproven.extend(part);
            if !whole.is_empty() {
                whole.sort_by_key(|run| run.source);
                let sources: Vec<SourceId> = whole.iter().map(|run| run.source).collect();
                carried.segments.push(Segment::new(&archive.proof(segment, &sources)?, whole));
            }
        }
        for (source, (bytes, from, to)) in std::mem::take(&mut self.unsealed) {
            carried.unproven.push(run(source, self.at, bytes.len(), (from, to)));
            self.write(&bytes);
        }
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        self.out.finish()?;
        Ok(carried)
    }
}

fn run(source: SourceId, offset: u64, bytes: usize, span: (Wall, Wall)) -> Run {
    Run { source, offset, bytes: bytes as u64, from: span.0, to: span.1 }
}
