//! What checking one recording came to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::show::{expiry_words, lost_words};
use crate::base::counter::Cause;
use crate::base::limits::QUARANTINE_MS;
use crate::base::time::Wall;
use crate::store::catalog::model::{Expiry, Gap, Recording};

/// One line of `--json`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) id: String,
    /// It is the store itself, beside its recordings, by its own id.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) store: bool,
    pub(super) integrity: Integrity,
    /// No packet is missing.
    pub(super) complete: bool,
    pub(super) unexplained: u64,
    /// Missing without a cause, and so recently that its evidence may be on its way: the recording is
    /// not over.
    pub(super) pending: u64,
    pub(super) lost: BTreeMap<Cause, u64>,
    /// Bounds `[low, high]` of causes that cannot be told exactly.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) lost_range: BTreeMap<Cause, [u64; 2]>,
    pub(super) damaged: Vec<Damaged>,
    /// What is wrong beyond single streams.
    pub(super) faults: Vec<String>,
    /// How far a signature vouches for it.
    pub(super) proven: String,
    /// What is gone of it by retention; nothing is wrong with that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gone: Option<Expiry>,
}

/// Whether all bytes passed their proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Integrity {
    Ok,
    Bad,
}

/// Records that failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Damaged {
    pub(super) label: String,
    pub(super) ssrc: Option<u32>,
    pub(super) from: Option<Wall>,
    pub(super) to: Option<Wall>,
    pub(super) why: String,
}

/// Counters that name causes are written once a second, and made durable with what is recorded; what no key
/// verifies waits in quarantine before it is counted.
const EVIDENCE_NS: i64 = 2_000_000_000 + QUARANTINE_MS as i64 * 1_000_000;

/// Up to when a missing packet has its evidence; `None`: all of it has.
fn judged_through(recording: &Recording) -> Option<Wall> {
    if recording.end.is_some() && recording.durable_through == recording.end {
        return None;
    }
    let through = recording.durable_through.unwrap_or(recording.start);
    Some(Wall(through.0 - EVIDENCE_NS))
}

/// Bounds over several sources: of a cause that one of them knows exactly, its count is both.
fn bounds<'s>(
    sources: impl Iterator<Item = (&'s BTreeMap<Cause, u64>, &'s BTreeMap<Cause, [u64; 2]>)> + Clone,
) -> BTreeMap<Cause, [u64; 2]> {
    let mut all = BTreeMap::new();
    for cause in sources.clone().flat_map(|(_, ranges)| ranges.keys()) {
        let of = |(lost, ranges): (&BTreeMap<Cause, u64>, &BTreeMap<Cause, [u64; 2]>)| {
            let exact = lost.get(cause).copied().unwrap_or(0);
            ranges.get(cause).copied().unwrap_or([exact, exact])
        };
        let sum = |[low, high]: [u64; 2], own: [u64; 2]| [low + own[0], high + own[1]];
        all.entry(*cause).or_insert_with(|| sources.clone().map(of).fold([0, 0], sum));
    }
    all
}

impl Report {
    /// By the ledger of `recording`; nothing is known to be damaged yet.
    pub(super) fn of(recording: &Recording) -> Report {
        let mut report = Report {
            id: recording.id.to_string(),
            store: false,
            integrity: Integrity::Ok,
            complete: true,
            unexplained: 0,
            pending: 0,
            lost: BTreeMap::new(),
            lost_range: BTreeMap::new(),
            damaged: Vec::new(),
            faults: Vec::new(),
            proven: String::new(),
            gone: recording.retention.as_ref().and_then(|retention| retention.gone.clone()),
        };
        let judged = judged_through(recording);
        for source in recording.streams.iter().flat_map(|stream| &stream.sources) {
            let is_pending =
                |gap: &&Gap| gap.cause.is_none() && judged.is_some_and(|at| gap.to > at);
            let sizes = source.gaps.iter().filter(is_pending).map(|gap| gap.last - gap.first + 1);
            let pending = sizes.sum::<u64>().min(source.unexplained);
            report.pending += pending;
            report.unexplained += source.unexplained - pending;
            for (cause, count) in &source.lost {
                *report.lost.entry(*cause).or_default() += count;
            }
        }
        let sources = recording.streams.iter().flat_map(|stream| &stream.sources);
        report.lost_range = bounds(sources.map(|source| (&source.lost, &source.lost_range)));
        report.complete = report.unexplained == 0 && report.pending == 0 && report.lost.is_empty();
        report
    }

    /// Of the store as a whole, of which something is wrong that is no recording's alone.
    pub(super) fn of_store(id: String, faults: &[String]) -> Report {
        let mut report = Report {
            id,
            store: true,
            integrity: Integrity::Bad,
            complete: false,
            unexplained: 0,
            pending: 0,
            lost: BTreeMap::new(),
            lost_range: BTreeMap::new(),
            damaged: Vec::new(),
            faults: faults.to_vec(),
            proven: String::new(),
            gone: None,
        };
        report.settle();
        report
    }

    /// Closes the account: anything damaged or at fault makes it bad.
    pub(super) fn settle(&mut self) {
        self.damaged.sort();
        self.damaged.dedup();
        self.faults.dedup();
        if !self.damaged.is_empty() || !self.faults.is_empty() {
            self.integrity = Integrity::Bad;
            self.complete = false;
            self.proven = "not proven".to_owned();
        }
    }

    /// Whether the answer is yes.
    pub(super) fn is_good(&self, complete: bool) -> bool {
        self.integrity == Integrity::Ok && self.unexplained == 0 && (!complete || self.complete)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let lost = lost_words(&self.lost, &self.lost_range);
        let mut out = format!(
            "{}  {}  lost {}  unexplained {}  {}\n",
            self.id,
            if self.integrity == Integrity::Ok { "ok " } else { "BAD" },
            if lost.is_empty() { "0".to_owned() } else { lost.join(", ") },
            self.unexplained,
            self.proven,
        );
        if self.pending > 0 {
            out.push_str(&format!("  {} are missing too recently to say why\n", self.pending));
        }
        if let Some(gone) = &self.gone {
            out.push_str(&format!("  {}\n", expiry_words(gone)));
        }
        let time = |at: Option<Wall>| at.map_or_else(|| "?".to_owned(), |at| at.to_string());
        for damage in &self.damaged {
            let ssrc = damage.ssrc.map_or_else(|| "?".to_owned(), |ssrc| format!("{ssrc:08x}"));
            out.push_str(&format!(
                "  stream {} {ssrc}: {} to {}: {}\n",
                super::super::table::plain(&damage.label),
                time(damage.from),
                time(damage.to),
                damage.why
            ));
        }
        for fault in &self.faults {
            out.push_str(&format!("  {fault}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_several_sources_add_up() {
        let exact = ([(Cause::Socket, 5), (Cause::Net, 1)].into(), BTreeMap::new());
        let vague = (
            [(Cause::Socket, 15)].into(),
            [(Cause::Socket, [10, 15]), (Cause::Net, [0, 5])].into(),
        );
        let all = [&exact, &vague].map(|(lost, ranges)| (lost, ranges));
        let expected = [(Cause::Socket, [15, 20]), (Cause::Net, [1, 6])].into();
        assert_eq!(bounds(all.into_iter()), expected);
        assert!(bounds(all[..1].iter().copied()).is_empty());
    }
}
