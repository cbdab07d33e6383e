//! What a store keeps and why: its recordings, the audit trail and the configuration together. For the
//! verbs, and for the thread that removes what may go.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::ids::RsId;
use crate::base::keep::Keep;
use crate::base::time::Wall;
use crate::config::model::Config;
use crate::host::audit;
use crate::host::spare::{self, StoreDisk};
use crate::plane::retention::{Census, Classes, Facts, Member, Rules};
use crate::shell::exit::Failure;
use crate::shell::serve::control::anchors;
use crate::store::audit::{AuditError, Head, Trail, lost, walk};
use crate::store::catalog::model::{Recording, Retention};
use crate::store::catalog::{Library, LibraryError, RsEntry};
use crate::store::query::{Client, Expr, Is, Term};

/// The rules of a trail, and the entry up to which they are known.
pub(crate) struct Known {
    pub(crate) rules: Rules,
    pub(crate) head: Head,
    /// What is wrong with the trail, in words: a hold may be missing in it.
    pub(crate) faults: Vec<String>,
}

impl Known {
    fn of(trail: &Trail) -> Self {
        let rules = Rules::of(&trail.entries);
        let mut faults: Vec<String> = trail
            .summary
            .faults
            .iter()
            .map(|fault| format!("audit trail {}: {}", fault.file, fault.wrong))
            .collect();
        faults.extend(rules.unread.iter().map(|number| {
            format!("audit trail: hold {number} is not understood; a newer version wrote it")
        }));
        Known { rules, head: trail.summary.head, faults }
    }

    /// Whoever changes anything by it holds the trail's lock. A trail that ends before the entry that the
    /// store has signed last, or has another one there, has lost some: it would read as one without holds.
    pub(crate) fn read(store: &Path) -> Result<Self, AuditError> {
        // Before the trail, which only grows.
        let signed = anchors::trail_signed(store);
        let mut trail = Trail::default();
        let mut is_there = false;
        trail.summary = walk(&audit::files_of(store), store, |entry, hash| {
            is_there |= matches!(&signed, Ok(Some(head)) if (head.number, head.hash) == (entry.number, *hash));
            trail.entries.push(entry);
        })?;
        let mut known = Known::of(&trail);
        let signed = match signed {
            Ok(signed) => signed,
            Err(why) => {
                known.faults.push(format!("{why}: entries of the audit trail may be gone with it"));
                None
            }
        };
        if let Some(signed) = signed.filter(|_| !is_there) {
            known.faults.push(lost(signed, trail.summary.head).to_string());
        }
        Ok(known)
    }
}

/// Everything that is known of the recordings of a store, for [`Census::of`].
pub(crate) fn facts(
    library: &Library<StoreDisk>,
    config: &Config,
) -> Result<Vec<Facts>, LibraryError> {
    let journalled = library.journalled()?;
    Ok(journalled.recordings.values().map(|rs| Facts::of(rs, config)).collect())
}

/// What keeps the recordings that a verb shows.
pub(crate) struct Keeping {
    config: Config,
    classes: Classes,
    rules: Rules,
}

impl Keeping {
    /// By `config`, and by the trail of the store as far as it can be read.
    pub(crate) fn of(store: &Path, config: Config) -> Self {
        let rules = match Known::read(store) {
            Ok(known) => {
                known.faults.iter().for_each(|fault| eprintln!("floortape: {fault}"));
                known.rules
            }
            Err(error) => {
                eprintln!("floortape: holds are not known: {error}");
                Rules::default()
            }
        };
        Keeping { classes: Classes::of(&config), config, rules }
    }

    /// The name of a client in `[[peers]]`.
    pub(crate) fn peer(&self, client: &Client) -> Option<String> {
        let (identity, user) = (client.identity.as_deref(), client.user.as_deref());
        self.config.peer(client.address, identity, user).map(|peer| peer.name.clone())
    }

    /// The query with what the holds say in the place of `is:held`.
    pub(crate) fn with_holds(&self, query: Expr) -> Expr {
        let held = || Expr::Any(self.rules.holds.values().map(|hold| hold.query.expr()).collect());
        query.with(&|term| (*term == Term::Is(Is::Held)).then(held))
    }

    /// Says of a recording how long it is kept, and by what.
    pub(crate) fn tell(&self, recording: &mut Recording, rs: &RsEntry) {
        let facts = Facts::of_recording(recording, rs, &self.config);
        let member = Member::of(facts, &self.classes, &self.rules);
        let Retention { gone, forgotten, .. } = recording.retention.take().unwrap_or_default();
        recording.retention = Some(Retention {
            keep_until: member.keep_until(),
            class: Some(member.kept.class),
            keep: Some(member.kept.keep),
            held_by: member.held_by,
            gone,
            forgotten,
        });
    }
}

/// What keeps the bytes of the store of `config`, in words; empty where nothing does.
pub(crate) fn keeps(config: &Config, now: Wall) -> Result<String, anyhow::Error> {
    let (store, journal) = (&config.store.dir, config.journal_dir());
    let library = Library::open(spare::places(store, &journal), store, &journal, None)?;
    let known = Known::read(store)?;
    let census = census(&library, config, &known.rules, now)?;
    blockers(&library, &census).map_err(|failure| failure.error)
}

/// What keeps the bytes of a store from going, largest first: `hold 3: 12 MiB`.
fn blockers(library: &Library<StoreDisk>, census: &Census) -> Result<String, Failure> {
    let mut sums = BTreeMap::new();
    for name in library.archive.segments()? {
        // What cannot be read is told by whoever checks it.
        let _ = census.blockers(&library.archive, name, &mut sums);
    }
    Ok(blocker_words(&sums))
}

/// Named in one line: more would be cut off where an SRC reads it.
const BLOCKERS_MAX: usize = 5;

fn blocker_words(sums: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<(&String, &u64)> = sums.iter().collect();
    sorted.sort_by_key(|(name, bytes)| (std::cmp::Reverse(**bytes), (*name).clone()));
    let more = sorted.len().saturating_sub(BLOCKERS_MAX);
    let named = sorted.iter().take(BLOCKERS_MAX);
    let mut words: Vec<String> =
        named.map(|(name, bytes)| format!("{name}: {} MiB", bytes.div_ceil(1 << 20))).collect();
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

/// The recording of each member that is held, with its holds.
pub(crate) fn held(census: &Census, hold: u64) -> Vec<RsId> {
    let held = census.members().filter(|member| member.held_by.contains(&hold));
    held.map(|member| member.facts.id).collect()
}

/// Whether anything may ever go by `classes`.
pub(crate) fn may_go(classes: &Classes) -> bool {
    classes.shortest() != Keep::Forever
}

/// A census of `library` at `now`.
pub(crate) fn census(
    library: &Library<StoreDisk>,
    config: &Config,
    rules: &Rules,
    now: Wall,
) -> Result<Census, LibraryError> {
    Ok(Census::of(facts(library, config)?, &Classes::of(config), rules, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_the_largest_blockers_are_named() {
        let mib = 1 << 20;
        let sums = [("hold 3", 12 * mib), ("class desk (7y)", 300 * mib), ("hold 9", 1)];
        let sums = sums.map(|(name, bytes)| (name.to_owned(), bytes)).into();
        assert_eq!(blocker_words(&sums), "class desk (7y): 300 MiB, hold 3: 12 MiB, hold 9: 1 MiB");
        let many: BTreeMap<String, u64> = (1..=8).map(|n| (format!("hold {n}"), n * mib)).collect();
        assert!(blocker_words(&many).ends_with("hold 4: 4 MiB, 3 more"));
    }
}
