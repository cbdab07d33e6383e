//! The audit trail of a store: its own chain, and what of it was sealed with the recordings.

use std::collections::BTreeSet;

use crate::base::ids::StreamId;
use crate::base::time::Wall;
use crate::host::spare::StoreDisk;
use crate::host::{self, volume};
use crate::shell::cmd::store::Store;
use crate::shell::exit::Failure;
use crate::store::audit;
use crate::store::catalog::Library;
use crate::store::event::Event;
use crate::store::record::RecordKind;

/// What is wrong with the trail, in words. The heads are read first: the trail only grows. `anchored`: heads
/// that stand elsewhere.
pub(super) fn faults(
    store: &Store,
    library: &Library<StoreDisk>,
    anchored: impl Iterator<Item = audit::Head>,
) -> Result<Vec<String>, Failure> {
    let mut sealed = sealed(library)?;
    sealed.extend(anchored);
    let volume = volume::read(&store.dir).ok().map(|volume| volume.id);
    let mut faults = Vec::new();
    let files = host::audit::files_of(&store.dir);
    let summary = audit::walk(&files, &store.dir, |entry, _| {
        let is_begun = entry.number == 1 && entry.action == audit::action::BEGUN;
        if let Some(volume) = volume.as_ref().filter(|volume| is_begun && **volume != entry.object)
        {
            let of = &entry.object;
            faults.push(format!("audit trail: it is of the store {of}, and this is {volume}"));
        }
    })?;
    for tail in &summary.tails {
        eprintln!(
            "floortape: audit trail: {} is torn: {} bytes of an entry that was promised to nobody",
            tail.file, tail.bytes
        );
    }
    faults.extend(summary.faults.iter().map(ToString::to_string));
    let missing = audit::check_sealed(&files, &store.dir, &sealed)?;
    faults.extend(missing.iter().map(ToString::to_string));
    Ok(faults)
}

/// The heads of the trail that stand among the recorder's own events.
fn sealed(library: &Library<StoreDisk>) -> Result<BTreeSet<audit::Head>, Failure> {
    let workers = library.archive.workers()?;
    let streams: BTreeSet<StreamId> = workers.into_iter().map(StreamId::host).collect();
    let mut heads = BTreeSet::new();
    // What cannot be read is told by those who check the segments.
    library.visit(&streams, (Wall(i64::MIN), Wall(i64::MAX)), &mut |seen| {
        if seen.record.meta.kind == RecordKind::Event
            && let Ok(Event::Audit { head }) = Event::from_payload(seen.record.payload)
        {
            heads.insert(head);
        }
    })?;
    Ok(heads)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::shell::cmd::fixture::Fixture;
    use crate::shell::cmd::store::StoreArgs;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        store: StoreArgs,
    }

    fn found(fixture: &Fixture) -> Vec<String> {
        let dir = fixture.store().display().to_string();
        let store = Line::parse_from(["floortape", "--store", &*dir]).store.find().expect("there");
        let library = store.bare_library().expect("readable");
        faults(&store, &library, std::iter::empty()).expect("readable")
    }

    #[test]
    fn a_trail_that_was_cut_changed_or_removed_is_named_by_what_was_sealed() {
        let fixture = Fixture::new("trail");
        let folder = audit::folder(&fixture.store());
        let path = folder.join("00000001.audit");
        assert_eq!(found(&fixture), [""; 0]);
        let good = std::fs::read(&path).expect("the fixture's trail");
        // The last entry is taken off at its border: the chain of the rest is whole.
        let mut ends = Vec::new();
        let mut at = 0;
        while let Some((_, size)) = crate::store::journal::frame::read::<audit::Entry>(&good[at..])
        {
            at += size;
            ends.push(at);
        }
        std::fs::write(&path, &good[..ends[ends.len() - 2]]).expect("ours");
        let said = found(&fixture).join("\n");
        assert!(said.contains("ends with entry 2, and entry 3 was sealed"), "{said}");
        let mut bad = good.clone();
        bad[ends[0] + 40] ^= 1;
        std::fs::write(&path, bad).expect("ours");
        let said = found(&fixture).join("\n");
        assert!(said.contains("00000001.audit at byte") && said.contains("are no entry"), "{said}");
        std::fs::remove_dir_all(&folder).expect("ours");
        let said = found(&fixture).join("\n");
        assert!(said.contains("ends with entry 0"), "{said}");
        std::fs::create_dir(&folder).expect("ours");
        std::fs::write(&path, good).expect("ours");
        assert_eq!(found(&fixture), [""; 0]);
    }
}
