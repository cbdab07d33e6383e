//! Anchors: what logs outside of the store, and the store itself, say that its newest heads were.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::ids::WorkerId;
use crate::base::time::Wall;
use crate::host::disk::read_small_text;
use crate::host::spare::StoreDisk;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::control::anchors;
use crate::store::archive::Archive;
use crate::store::audit;
use crate::store::evidence::{Anchor, AnchorError, FileMark, Hash, Keys, WorkerHead};
use crate::store::segment::SegmentName;

/// What every anchor has near its end: a line with it was meant to be one.
const SIGNATURE: &str = "\"signature\":\"";

/// Anchors, and the lines that should have been one.
#[derive(Default)]
pub(super) struct Anchors {
    /// Those of logs outside, in order of time.
    outside: Vec<Anchor>,
    /// The store's own.
    own: Option<Anchor>,
    /// What is wrong with the lines themselves.
    pub(super) faults: Vec<String>,
}

impl Anchors {
    /// Reads the store's own anchor. Before anything else of it: what that says was there by then.
    pub(super) fn own(store: &Path) -> Self {
        let path = anchors::path(store);
        let mut found = Anchors::default();
        // Byte for byte: nobody but the store has written anything there.
        let whole = |text: String| match Anchor::parse(&text) {
            Ok(anchor) if text != format!("{}\n", anchor.line()) => Err(AnchorError::Form),
            parsed => parsed,
        };
        match read_small_text(&path).map(whole) {
            Ok(Ok(anchor)) => found.own = Some(anchor),
            Ok(Err(error)) => found.faults.push(format!("evidence/heads: {error}")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => found.faults.push(format!("evidence/heads: {error}")),
        }
        found
    }

    /// Adds those in files that were kept elsewhere: of a log that holds other lines, too, those that
    /// are anchors.
    pub(super) fn read(&mut self, files: &[PathBuf]) -> Result<(), Failure> {
        for path in files {
            let fail =
                |why: String| Failure::new(Exit::NotFound, format!("{}: {why}", path.display()));
            let text = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
            let text = String::from_utf8_lossy(&text);
            let before = self.outside.len() + self.faults.len();
            for (place, line) in text.lines().enumerate() {
                match Anchor::parse(line) {
                    Ok(anchor) => self.outside.push(anchor),
                    Err(error) if line.contains(SIGNATURE) => {
                        self.faults.push(format!("{} line {}: {error}", path.display(), place + 1));
                    }
                    Err(_) => {}
                }
            }
            if self.outside.len() + self.faults.len() == before {
                return Err(fail("holds no anchor".to_owned()));
            }
        }
        self.outside.sort_by_key(|anchor| anchor.anchor.at);
        Ok(())
    }

    /// Whether the store has one of its own.
    pub(super) const fn has_own(&self) -> bool {
        self.own.is_some()
    }

    /// What they say of the journal.
    pub(super) fn journal(&self) -> Vec<FileMark> {
        let marks = self.outside.iter().chain(&self.own).filter_map(|anchor| anchor.anchor.journal);
        let mut marks: Vec<FileMark> = marks.collect();
        marks.sort_unstable_by_key(|mark| (mark.number, mark.bytes, mark.sha256));
        marks.dedup();
        marks
    }

    /// What they say of the audit trail.
    pub(super) fn trail(&self) -> impl Iterator<Item = audit::Head> {
        let heads = self.outside.iter().chain(&self.own).filter_map(|anchor| anchor.anchor.audit);
        heads.map(|head| audit::Head { number: head.number, hash: head.sha256.0 })
    }

    /// The newest instant of which a log outside vouches for segment `number` of a worker.
    pub(super) fn vouches(&self, name: SegmentName) -> Option<Wall> {
        let covers =
            |head: &WorkerHead| head.worker == name.worker.0 && head.segment >= name.number;
        let newest = self.outside.last()?;
        newest.anchor.workers.iter().any(covers).then_some(newest.anchor.at)
    }

    /// Holds the chains against them.
    pub(super) fn check(
        &self,
        archive: &Archive<StoreDisk>,
        (volume, keys): (&str, Option<&Keys>),
    ) -> Result<Vec<String>, Failure> {
        let mut faults = Vec::new();
        let mut last: BTreeMap<WorkerId, u64> = BTreeMap::new();
        for name in archive.segments()? {
            last.insert(name.worker, name.number);
        }
        let mut heads: BTreeMap<SegmentName, Option<Hash>> = BTreeMap::new();
        let mut rolled: BTreeMap<WorkerId, (Wall, u64)> = BTreeMap::new();
        for anchor in self.outside.iter().chain(&self.own) {
            let said = &anchor.anchor;
            if said.volume != volume {
                faults.push(format!(
                    "the anchor of {} is of another store, {}",
                    said.at, said.volume
                ));
                continue;
            }
            if keys.is_none_or(|keys| !keys.all().any(|key| key == said.key.0)) {
                let key = said.key;
                faults.push(format!(
                    "the anchor of {} is signed by a key that is not this store's, {key}",
                    said.at
                ));
                continue;
            }
            for head in &said.workers {
                let name = SegmentName { worker: WorkerId(head.worker), number: head.segment };
                let there = last.get(&name.worker).copied().unwrap_or(0);
                if head.segment > there {
                    rolled.entry(name.worker).or_insert((said.at, head.segment));
                    continue;
                }
                let read = || archive.trailer(name).ok().map(|trailer| trailer.head);
                let found = *heads.entry(name).or_insert_with(read);
                // One that cannot be read is told of by itself.
                if found.is_some_and(|found| found != head.head.0) {
                    let file = name.file();
                    faults.push(format!(
                        "segment {file} is another one than the anchor of {} says",
                        said.at
                    ));
                }
            }
        }
        for (worker, (at, segment)) in rolled {
            let there = last.get(&worker).copied().unwrap_or(0);
            faults.push(format!(
                "rolled back: the anchor of {at} says segment {segment} of worker {}, the store ends at {there}",
                worker.0
            ));
        }
        faults.dedup();
        Ok(faults)
    }
}
