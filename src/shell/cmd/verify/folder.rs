//! An exported folder, checked by itself ([`exported`]).

use std::path::Path;

use super::report::{Damaged, Integrity, Report};
use crate::host::exported::{self, CheckError, Exported};
use crate::shell::exit::{Exit, Failure};
use crate::store::evidence::{Hex, PublicKey};

/// Digits of a key that people are shown.
const SHOWN: usize = 16;

/// Checks `dir`. `trusted`: the key that must have signed it, where the reader knows it.
pub(super) fn check(dir: &Path, trusted: Option<PublicKey>) -> Result<Report, Failure> {
    let found = exported::check(dir, trusted).map_err(|error| {
        let exit = match error {
            CheckError::NoManifest(_) => Exit::NotFound,
            CheckError::TooLong { .. } | CheckError::Disk { .. } => Exit::Io,
        };
        Failure::new(exit, error.to_string())
    })?;
    let mut report = match &found.recording {
        Some(recording) => Report::of(recording),
        None => bad(dir),
    };
    if let Some(id) = found.id {
        report.id = id.to_string();
    }
    report.proven = proven(&found);
    report.faults.extend(found.faults);
    report.damaged.extend(found.damaged.into_iter().map(|run| Damaged {
        label: run.label,
        ssrc: None,
        from: Some(run.from),
        to: Some(run.to),
        why: run.why,
    }));
    report.settle();
    Ok(report)
}

fn bad(dir: &Path) -> Report {
    Report {
        id: dir.display().to_string(),
        store: false,
        integrity: Integrity::Bad,
        complete: false,
        unexplained: 0,
        pending: 0,
        lost: Default::default(),
        lost_range: Default::default(),
        damaged: Vec::new(),
        faults: Vec::new(),
        proven: String::new(),
        gone: None,
    }
}

fn proven(found: &Exported) -> String {
    let mut text = match found.checkpoint {
        Some(number) => format!("proven up to checkpoint {number}"),
        None => "no checkpoint yet".to_owned(),
    };
    if found.unsealed > 0 {
        let open = found.unsealed;
        text.push_str(&format!(", {open} runs vouched for by the export's signature alone"));
    }
    let Some(keys) = &found.keys else { return text };
    let (first, last) = (Hex(keys.first()).to_string(), Hex(keys.last()).to_string());
    text.push_str(&format!(", key {}", &last[..SHOWN]));
    if first != last {
        text.push_str(&format!(", which descends from {}", &first[..SHOWN]));
    }
    text
}
