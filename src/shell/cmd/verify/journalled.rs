//! Damage of the journal: one line for each place of it, with when that was written and who was recorded then.
//! What follows from it is folded into that.

use std::collections::BTreeMap;

use crate::base::ids::StreamId;
use crate::base::time::Wall;
use crate::host::spare::{self, StoreDisk};
use crate::shell::cmd::store::Store;
use crate::shell::exit::Failure;
use crate::store::catalog::Library;
use crate::store::journal::{Damage, times_around};

/// Recordings that a line names; of more their number is said.
const NAMED_MAX: usize = 20;

/// Damage with entries behind it: a torn tail is what a running server or a power cut leaves.
pub(super) fn damage(store: &Store, library: &Library<StoreDisk>) -> Result<Vec<String>, Failure> {
    let places = spare::places(&store.dir, &store.journal);
    let mut told = Vec::new();
    for damage in library.damage().iter().filter(|damage| damage.middle) {
        let Damage { file, from, to, .. } = damage;
        let (since, until) = times_around(&places, &store.journal, damage);
        let when = match (since, until) {
            (Some(since), Some(until)) => format!(", written between {since} and {until}"),
            (Some(since), None) => format!(", written after {since}"),
            (None, Some(until)) => format!(", written before {until}"),
            (None, None) => String::new(),
        };
        let (since, until) = (since.unwrap_or(Wall(i64::MIN)), until.unwrap_or(Wall(i64::MAX)));
        let recordings = library.journalled()?.recordings.values();
        let up: Vec<_> = recordings.filter(|rs| rs.was_up(since, until)).collect();
        let mut names: Vec<_> = up.iter().take(NAMED_MAX).map(|rs| rs.id.to_string()).collect();
        if up.len() > NAMED_MAX {
            names.push(format!("{} more", up.len() - NAMED_MAX));
        }
        let who = match names.len() {
            0 => "no recording that is known was up then".to_owned(),
            _ => format!("up then: {}", names.join(", ")),
        };
        told.push(format!("journal {file} is damaged from byte {from} to {to}{when}; {who}"));
    }
    Ok(told)
}

/// Whether a fault of a file says no more than that it is damaged.
pub(super) fn follows(library: &Library<StoreDisk>, file: &str) -> bool {
    library.damage().iter().any(|damage| damage.middle && damage.file == file)
}

/// Packets of streams that belong to no recording: each by itself, or, where what named them may have stood in
/// bytes that are damaged, all at once.
pub(super) fn strays(library: &Library<StoreDisk>, strays: BTreeMap<StreamId, u64>) -> Vec<String> {
    let is_damaged = library.damage().iter().any(|damage| damage.middle);
    let text = |(stream, packets): (&StreamId, &u64)| {
        format!("stream {}: {packets} packets of no recording that the journal knows", stream.0)
    };
    match (strays.first_key_value(), strays.last_key_value()) {
        (Some((first, _)), Some((last, _))) if is_damaged && strays.len() > 1 => {
            let packets: u64 = strays.values().sum();
            let count = strays.len();
            vec![format!(
                "{count} streams from {} to {}: {packets} packets of no recording that the journal knows; what \
                 named it may be what is damaged",
                first.0, last.0
            )]
        }
        _ => strays.iter().map(text).collect(),
    }
}
