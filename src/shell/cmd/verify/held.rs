//! Recordings in a store, checked against segments, chain and ledger. The index is not asked.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Damaged, Report};
use crate::base::ids::{RsId, SourceId, StreamId};
use crate::base::time::Wall;
use crate::host::disk::HostDisk;
use crate::shell::cmd::store::{Store, salt};
use crate::shell::exit::{Exit, Failure};
use crate::store::catalog::library::Reading;
use crate::store::catalog::model::SealState;
use crate::store::catalog::{Library, RsEntry};
use crate::store::evidence::{PublicKey, Salt};
use crate::store::segment::{SegmentReport, clock_at};

/// Checks `wanted`. `whole`: every byte of every segment, also what belongs to nobody.
pub(super) fn check(
    store: &Store,
    library: &Library<HostDisk>,
    wanted: &[&RsEntry],
    whole: bool,
) -> Result<Vec<Report>, Failure> {
    let reading = library.read(wanted)?;
    let mut reports: BTreeMap<RsId, Report> =
        reading.recordings.iter().map(|recording| (recording.id, Report::of(recording))).collect();
    let owners: BTreeMap<StreamId, RsId> =
        wanted.iter().flat_map(|rs| rs.streams.keys().map(|stream| (*stream, rs.id))).collect();
    let salts = salts(store, wanted)?;
    let names = Labels { wanted, reading: &reading, owners: &owners };

    unreadable(&names, &mut reports);
    let key = store.public_key();
    chains(library, key.as_ref(), &mut reports)?;
    let streams: BTreeSet<StreamId> = owners.keys().copied().collect();
    let mut last = 0;
    for name in library.archive.segments()? {
        let report = library.archive.verify_segment(
            name,
            (!whole).then_some(&streams),
            &mut |stream| salts.get(&stream).copied(),
            key.as_ref(),
        )?;
        last = last.max(report.trailer.as_ref().map_or(0, |trailer| trailer.number));
        for fault in &report.faults {
            all(&mut reports, &format!("segment {}: {fault}", name.file()));
        }
        damaged(library, name, &report, &names, &mut reports);
    }
    let mut reports: Vec<Report> = reports.into_values().collect();
    for report in &mut reports {
        report.proven = match last {
            0 => "no checkpoint yet".to_owned(),
            last => format!("proven up to checkpoint {last}"),
        };
        report.settle();
    }
    Ok(reports)
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

fn salts(store: &Store, wanted: &[&RsEntry]) -> Result<BTreeMap<StreamId, Salt>, Failure> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let keys = store.keys()?;
    let mut salts = BTreeMap::new();
    for rs in wanted {
        let salt = salt(&keys, rs).ok_or_else(|| {
            Failure::new(Exit::Io, format!("the machine key does not open the salt of {}", rs.id))
        })?;
        salts.extend(rs.streams.keys().map(|stream| (*stream, salt)));
    }
    Ok(salts)
}

fn all(reports: &mut BTreeMap<RsId, Report>, fault: &str) {
    reports.values_mut().for_each(|report| report.faults.push(fault.to_owned()));
}

/// What the reader skipped. Segments are checked in full later; here the logs count.
fn unreadable(names: &Labels<'_>, reports: &mut BTreeMap<RsId, Report>) {
    for damage in &names.reading.damaged {
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

fn chains(
    library: &Library<HostDisk>,
    key: Option<&PublicKey>,
    reports: &mut BTreeMap<RsId, Report>,
) -> Result<(), Failure> {
    for worker in library.archive.workers()? {
        for fault in library.archive.verify_chain(worker, key)?.faults {
            all(reports, &format!("chain at {}: {}", fault.segment.file(), fault.why));
        }
    }
    Ok(())
}

fn damaged(
    library: &Library<HostDisk>,
    name: crate::store::segment::SegmentName,
    report: &SegmentReport,
    names: &Labels<'_>,
    reports: &mut BTreeMap<RsId, Report>,
) {
    if report.damaged.is_empty() {
        return;
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
                let touched = names
                    .wanted
                    .iter()
                    .filter(|rs| rs.start <= span.1 && rs.end.is_none_or(|end| end >= span.0));
                for rs in touched {
                    if let Some(report) = reports.get_mut(&rs.id) {
                        report.faults.push(format!("evidence in {}: {}", name.file(), damage.why));
                    }
                }
            }
            None => {}
        }
    }
}
