//! What is said of recordings of which nothing is kept any more: who called whom, and all that clients
//! sent. It goes when the last record has gone, from the history; the journal hands over to it before.

use std::collections::BTreeSet;

use crate::base::ids::{RsId, StreamId};
use crate::base::time::Wall;
use crate::config::model::Config;
use crate::host::audit::{self, Locked};
use crate::host::{signing, spare, sqlite, volume};
use crate::shell::kept::{self, Known};
use crate::store::audit::{Act, action};
use crate::store::catalog::{Index, Library, RsEntry};
use crate::store::journal::{self, Forgetting, Signer, history};

/// A recording that ended a shorter time ago may still be asked for by its client (64·T1, RFC 3261
/// §17.1.2.2).
const SETTLED_NS: i64 = 40_000_000_000;
/// Looked at in one pass: a few KiB each.
const PASS_MAX: usize = 2_048;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forgotten {
    /// Recordings whose words are gone.
    pub(super) recordings: usize,
    /// Recordings that wait for the journal to hand theirs over.
    pub(super) waiting: usize,
    /// Recordings whose time has come, and of which something is still there.
    pub(super) left: usize,
}

/// Takes the words of all recordings that are gone as a whole out of the history.
pub(super) fn forget(config: &Config, now: Wall) -> Result<Forgotten, anyhow::Error> {
    let (store, journal) = (config.store.dir.as_path(), config.journal_dir());
    // Strict: what a folder holds that is not there now would come back with it.
    let disk = spare::strict_places(store, &journal)?;
    let index = sqlite::open_telling(store, |_| ()).map(|index| Box::new(index) as Box<dyn Index>);
    let library = Library::open(disk.clone(), store, &journal, index)?;
    let known = Known::read(store)?;
    if let Some(fault) = known.faults.first() {
        anyhow::bail!("a hold may be missing: {fault}");
    }
    let census = kept::census(&library, config, &known.rules, now)?;
    let is_over = |rs: &&RsEntry| {
        rs.forgotten.is_none()
            && rs.end.is_some_and(|end| now.0.saturating_sub(end.0) > SETTLED_NS)
            && census.member(rs.id).is_some_and(|member| !member.stays(now))
    };
    let over: Vec<&RsEntry> =
        library.journalled()?.recordings.values().filter(is_over).take(PASS_MAX).collect();
    let gone = of_which_nothing_is_left(&library, &over)?;
    let held_back = journal::in_journal(&disk, &journal, &gone)?;
    let ready: BTreeSet<RsId> = gone.difference(&held_back).copied().collect();
    let waiting = held_back.len();
    let done = Forgotten { recordings: ready.len(), waiting, left: over.len() - gone.len() };
    if ready.is_empty() {
        return Ok(done);
    }
    let audit = {
        let mut trail = Locked::take(store)?;
        if Known::read(store)?.head != known.head {
            // A hold may have come; the next look knows it.
            return Ok(Forgotten { recordings: 0, left: done.left + ready.len(), ..done });
        }
        trail.append(words_go(&ready, now))?.number
    };
    let key = signing::load(store)?.into();
    let signer = Signer { key, volume: volume::read(store)?.id };
    let forgetting = Forgetting { recordings: &ready, at: now, audit };
    journal::forget(&disk, &history::folder(store), &forgetting, Some(&signer))?;
    Ok(done)
}

/// Those of `over` of which all is sealed and no record is there any more.
fn of_which_nothing_is_left(
    library: &Library<spare::StoreDisk>,
    over: &[&RsEntry],
) -> Result<BTreeSet<RsId>, anyhow::Error> {
    let mut seen: BTreeSet<StreamId> = BTreeSet::new();
    let reading = library.read_with(over, &mut |one| {
        seen.insert(one.record.meta.source.stream());
    })?;
    let is_gone = |rs: &&&RsEntry| {
        reading.settled.contains(&rs.id) && !rs.streams.keys().any(|stream| seen.contains(stream))
    };
    Ok(over.iter().filter(is_gone).map(|rs| rs.id).collect())
}

/// What the trail says before anything goes.
fn words_go(recordings: &BTreeSet<RsId>, now: Wall) -> Act {
    let named: Vec<String> = recordings.iter().map(ToString::to_string).collect();
    Act::new(now, audit::ourselves("server"), action::RETENTION_FORGOTTEN, "history")
        .with("count", named.len())
        .with("recordings", named)
}
