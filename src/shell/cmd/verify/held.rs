//! Recordings in a store, checked against segments, chain and ledger. The index vouches for nothing
//! here; it may only accuse, of a segment that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;

use super::anchored::Anchors;
use super::journalled;
use super::report::{Damaged, Report};
use super::touched::Touched;
use crate::base::ids::{RsId, SourceId, StreamId};
use crate::base::time::Wall;
use crate::host::disk::HostDisk;
use crate::host::spare::StoreDisk;
use crate::shell::cmd::parts::Parts;
use crate::shell::cmd::store::{self, Store, journal_fault};
use crate::shell::exit::Failure;
use crate::store::archive::{Damaged as Damage, Proving};
use crate::store::catalog::library::Reading;
use crate::store::catalog::model::SealState;
use crate::store::catalog::{Library, RsEntry};
use crate::store::evidence::{Keys, Salt};
use crate::store::keys::{self as store_keys, StoreKeys};
use crate::store::segment::{SegmentName, SegmentReport, clock_at};

/// What checking a store came to.
pub(super) struct Checked {
    /// One per recording.
    pub(super) reports: Vec<Report>,
    /// What is wrong where no recording that was asked for can have been.
    pub(super) elsewhere: Vec<String>,
    /// A folder of the store could not be read: what is missing may be there.
    pub(super) unreadable: bool,
    /// The store has lost its identity, or the key to salts of what was asked for: whatever was found,
    /// it is no proof.
    pub(super) unsure: bool,
}

/// Checks `wanted`. `whole`: every byte of every segment, also what belongs to nobody.
pub(super) fn check(
    store: &Store,
    library: &Library<StoreDisk>,
    wanted: &[&RsEntry],
    whole: bool,
    anchors: &Anchors,
) -> Result<Checked, Failure> {
    // Listed before the folder is: what the index knows was there by then.
    let indexed = store.indexed_segments();
    let (salts, sealed) = salts(store, wanted);
    // Asked for the first segment: whoever signed one that was listed is known by then.
    let signers = OnceLock::new();
    let signer = |name: SegmentName| {
        let (keys, _) = signers.get_or_init(|| store.signers());
        keys.as_ref().map(|keys| keys.signers(name.worker.0, name.number))
    };
    let owners: BTreeMap<StreamId, RsId> =
        wanted.iter().flat_map(|rs| rs.streams.keys().map(|stream| (*stream, rs.id))).collect();
    let mut salt = |stream: StreamId| salts.get(&stream).copied();
    let found = Parts::of(wanted).read(store, library, |place, library, part| {
        let mine: BTreeSet<StreamId> =
            part.iter().flat_map(|rs| rs.streams.keys().copied()).collect();
        // What is nobody's is the first one's.
        let whole = whole && place == 0;
        let mut proving = Proving {
            whole,
            wants: &|stream| mine.contains(&stream) || whole && !owners.contains_key(&stream),
            salt: &mut salt.clone(),
            signers: &signer,
            reports: BTreeMap::new(),
        };
        let reading = library.read_proving(part, &mut proving)?;
        Ok((reading, proving.reports))
    })?;
    let (mut reading, mut in_segments) = (Reading::default(), BTreeMap::new());
    for (read, reports) in found {
        reading.join(read);
        for (name, report) in reports {
            in_segments.entry(name).or_insert_with(SegmentReport::default).join(report);
        }
    }
    let mut reports: BTreeMap<RsId, Report> =
        reading.recordings.iter().map(|recording| (recording.id, Report::of(recording))).collect();
    let unsure = store.is_nameless() || !sealed.is_empty();
    for (id, why) in sealed {
        reports.entry(id).and_modify(|report| report.faults.push(why));
    }
    let names = Labels { wanted, reading: &reading, owners: &owners };

    unreadable(&names, &mut reports);
    let mut elsewhere = Vec::new();
    lost(wanted, &reading, &mut reports, &mut elsewhere);
    let segments = library.archive.segments()?;
    let (keys, wrong) = store.signers();
    elsewhere.extend(wrong);
    let mut faults = chain_faults(library, keys.as_ref())?;
    let gone = indexed.without(&segments.iter().copied().collect());
    faults.extend(
        gone.iter().map(|name| (name, "is in the catalogue and not in the store".to_owned())),
    );
    let streams: BTreeSet<StreamId> = owners.keys().copied().collect();
    for name in &segments {
        let report = match in_segments.remove(name) {
            Some(report) => report,
            // Sealed since, or nobody's records were wanted.
            None => library.archive.verify_segment(
                *name,
                (!whole).then_some(&streams),
                &mut salt,
                keys.as_ref().map(|keys| keys.signers(name.worker.0, name.number)).as_ref(),
            )?,
        };
        faults.extend(report.faults.iter().map(|fault| (*name, fault.clone())));
        if !report.unopened.is_empty() {
            let count = report.unopened.len();
            let why = format!("{count} extents are encrypted, and the store's key is not there");
            faults.push((*name, why));
        }
        elsewhere.extend(damaged(library, *name, &report, &names, &mut reports));
    }
    let touched = Touched::of(library, &segments, wanted);
    for (name, why) in faults {
        let text = format!("segment {}: {why}", name.file());
        let owners = touched.by(name);
        for id in &owners {
            reports.entry(*id).and_modify(|report| report.faults.push(text.clone()));
        }
        if owners.is_empty() {
            elsewhere.push(text);
        }
    }
    let against = match whole {
        true => anchors.check(&library.archive, (&store.volume(), keys.as_ref()))?,
        false => Vec::new(),
    };
    for recording in &reading.recordings {
        if let Some(report) = reports.get_mut(&recording.id) {
            let sealed = recording.seal.state == SealState::Sealed;
            report.proven = proven(touched.last_checkpoint(recording.id), sealed);
            // One that does not fit vouches for nothing.
            if whole && against.is_empty() {
                report.proven += &anchored(anchors, &touched, recording.id);
            }
            report.settle();
        }
    }
    if whole {
        elsewhere.extend(StoreKeys::faults(&HostDisk, &store_keys::folder(&store.dir)));
        elsewhere.extend(store.aside());
        elsewhere.extend(store.unwritten());
        for name in store.broken_snapshots() {
            eprintln!(
                "floortape: journal {name} is damaged, and derived: the journal says all of it"
            );
        }
        elsewhere.extend(anchors.faults.iter().cloned());
        elsewhere.extend(against);
        let journal = store.check_journal(keys.as_ref(), &anchors.journal())?;
        let faults = journal.faults.iter();
        let faults = faults.filter(|fault| !journalled::follows(library, &fault.file));
        elsewhere.extend(faults.map(journal_fault));
        if journal.chained && !anchors.has_own() && anchors.faults.is_empty() {
            elsewhere.push("evidence/heads is not in the store".to_owned());
        }
        if !journal.unsigned.is_empty() {
            let count = journal.unsigned.len();
            eprintln!(
                "floortape: {count} files of the journal are of a version that did not sign them: only \
                 their sums speak for {}",
                if count == 1 { "it" } else { "them" }
            );
        }
    }
    let unreadable = store.is_unreadable();
    Ok(Checked { reports: reports.into_values().collect(), elsewhere, unreadable, unsure })
}

/// How far signed segments vouch for a recording, in words.
fn proven(checkpoint: Option<u64>, sealed: bool) -> String {
    match (checkpoint, sealed) {
        (None, _) => "no checkpoint yet".to_owned(),
        (Some(number), true) => format!("proven up to checkpoint {number}"),
        (Some(number), false) => {
            format!("proven up to checkpoint {number}, what came later is not sealed yet")
        }
    }
}

/// What a log outside adds to that.
fn anchored(anchors: &Anchors, touched: &Touched<'_>, id: RsId) -> String {
    let mut at: Option<Wall> = None;
    for name in touched.segments_of(id) {
        match anchors.vouches(name) {
            Some(found) => at = at.max(Some(found)),
            None => return "; not anchored: a roll-back to before it would not show".to_owned(),
        }
    }
    at.map_or_else(String::new, |at| format!(", anchored {at}"))
}

struct Labels<'a> {
    wanted: &'a [&'a RsEntry],
    reading: &'a Reading,
    owners: &'a BTreeMap<StreamId, RsId>,
}

impl Labels<'_> {
    fn label(&self, stream: StreamId) -> String {
        let streams = self.reading.recordings.iter().flat_map(|recording| &recording.streams);
        streams
            .filter(|known| known.stream == stream)
            .map(|known| known.label.clone())
            .next()
            .unwrap_or_default()
    }

    fn damaged(
        &self,
        source: SourceId,
        span: Option<(Wall, Wall)>,
        why: String,
    ) -> Option<(RsId, Damaged)> {
        let owner = *self.owners.get(&source.stream())?;
        Some((
            owner,
            Damaged {
                label: self.label(source.stream()),
                ssrc: self.reading.ssrcs.get(&source).copied(),
                from: span.map(|span| span.0),
                to: span.map(|span| span.1),
                why,
            },
        ))
    }
}

/// The salts of `wanted`, and whose salt cannot be opened, and why. Everything else of those is checked
/// all the same. That there is no key is told once.
fn salts(store: &Store, wanted: &[&RsEntry]) -> (BTreeMap<StreamId, Salt>, Vec<(RsId, String)>) {
    let (mut salts, mut sealed) = (BTreeMap::new(), Vec::new());
    if wanted.is_empty() {
        return (salts, sealed);
    }
    let keys = store.keys().map_err(|failure| eprintln!("floortape: {:#}", failure.error));
    // Whose words went, of it there is nothing to check any more.
    for rs in wanted.iter().filter(|rs| rs.forgotten.is_none()) {
        match keys.as_ref().map(|keys| store::salt(keys, rs)) {
            Ok(Some(salt)) => salts.extend(rs.streams.keys().map(|stream| (*stream, salt))),
            Ok(None) => sealed.push((rs.id, "the machine key does not open its salt".to_owned())),
            Err(()) => sealed.push((rs.id, "its salt is sealed by the machine key".to_owned())),
        }
    }
    (salts, sealed)
}

/// What the reader skipped. Segments are checked in full later; here the logs count. A torn end
/// accuses nobody: until the next start looks at it and writes down what is in doubt, it is what a
/// power cut leaves of what was promised to none.
fn unreadable(names: &Labels<'_>, reports: &mut BTreeMap<RsId, Report>) {
    let in_segment = |path: &Path| {
        path.file_name().and_then(|name| SegmentName::parse(name.to_str()?)).is_some()
    };
    // What was durable is told of everybody whom it may touch, by `lost`.
    let is_durable = |damage: &&Damage| damage.lost.is_some_and(|lost| lost.durable);
    let (torn, skipped): (Vec<_>, Vec<_>) = names
        .reading
        .damaged
        .iter()
        .filter(|damage| !is_durable(damage))
        .partition(|damage| damage.torn || damage.lost.is_some());
    for damage in torn {
        eprintln!("floortape: {} is torn: {}", damage.path.display(), damage.why);
    }
    for damage in skipped.into_iter().filter(|damage| !in_segment(&damage.path)) {
        match damage.source.and_then(|source| names.damaged(source, None, damage.why.clone())) {
            Some((owner, damaged)) => {
                if let Some(report) = reports.get_mut(&owner) {
                    report.damaged.push(damaged);
                }
            }
            // Nobody's in particular: perhaps of any recording that is not sealed yet.
            None => {
                let open = names
                    .reading
                    .recordings
                    .iter()
                    .filter(|recording| recording.seal.state == SealState::Open);
                for recording in open {
                    if let Some(report) = reports.get_mut(&recording.id) {
                        let place = damage.path.display();
                        report.faults.push(format!("{place} at {}: {}", damage.offset, damage.why));
                    }
                }
            }
        }
    }
}

/// Records that were durable and are gone, from the log or before they were sealed: of anybody who
/// was recorded then, but for whom it is known that nothing of theirs can have been there.
fn lost(
    wanted: &[&RsEntry],
    reading: &Reading,
    reports: &mut BTreeMap<RsId, Report>,
    elsewhere: &mut Vec<String>,
) {
    for loss in &reading.losses {
        let text = format!("stored and lost: {}", loss.why);
        let may_miss = |rs: &&&RsEntry| reading.may_miss(rs, loss);
        let mut touched = wanted.iter().filter(may_miss).peekable();
        if touched.peek().is_none() {
            elsewhere.push(text.clone());
        }
        for rs in touched {
            reports.entry(rs.id).and_modify(|report| report.faults.push(text.clone()));
        }
    }
}

fn chain_faults(
    library: &Library<StoreDisk>,
    keys: Option<&Keys>,
) -> Result<Vec<(SegmentName, String)>, Failure> {
    let mut faults = Vec::new();
    for worker in library.archive.workers()? {
        let report = library.archive.verify_chain(worker, keys)?;
        faults.extend(report.faults.into_iter().map(|fault| (fault.segment, fault.why)));
    }
    Ok(faults)
}

fn damaged(
    library: &Library<StoreDisk>,
    name: SegmentName,
    report: &SegmentReport,
    names: &Labels<'_>,
    reports: &mut BTreeMap<RsId, Report>,
) -> Vec<String> {
    let mut elsewhere = Vec::new();
    if report.damaged.is_empty() {
        return elsewhere;
    }
    let clocks = library.archive.rows(name).map(|footer| footer.clocks).unwrap_or_default();
    let wall = |mono| clock_at(&clocks, mono).wall(mono);
    for damage in &report.damaged {
        let span = (wall(damage.arrivals.0), wall(damage.arrivals.1));
        match names.damaged(damage.source, Some(span), damage.why.clone()) {
            Some((owner, damaged)) => {
                if let Some(report) = reports.get_mut(&owner) {
                    report.damaged.push(damaged);
                }
            }
            // The recorder's own events: the evidence of everybody at that time.
            None if damage.source.stream().is_host() => {
                let text = format!("evidence in {}: {}", name.file(), damage.why);
                let touched = names
                    .wanted
                    .iter()
                    .filter(|rs| rs.start <= span.1 && rs.end.is_none_or(|end| end >= span.0));
                let mut is_anybodys = false;
                for rs in touched {
                    if let Some(report) = reports.get_mut(&rs.id) {
                        report.faults.push(text.clone());
                        is_anybodys = true;
                    }
                }
                if !is_anybodys {
                    elsewhere.push(text);
                }
            }
            None => {
                let (file, stream) = (name.file(), damage.source.stream().0);
                let (from, to) = span;
                elsewhere.push(format!("{file}, stream {stream}, {from} to {to}: {}", damage.why));
            }
        }
    }
    elsewhere
}
