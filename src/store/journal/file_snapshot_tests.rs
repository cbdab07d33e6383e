//! Starts from a snapshot: as good as reading everything, whatever broke while it was made.

use std::path::Path;

use super::entry::Entry;
use super::file::{FILE_BYTES_MIN, Journal};
use super::read::read;
use super::standing::Standings;
use super::standing_tests::{essence, history};
use crate::base::ports::Disk;
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::store::test_disk::TestDisk;

fn dir() -> &'static Path {
    Path::new("/store/journal")
}

fn past() -> &'static Path {
    Path::new("/store/history")
}

fn start() -> Entry {
    Entry::Start { version: 1, volume: "v".to_owned(), at: Wall(1), kept: false, before: None }
}

/// What a start finds, and what all files say.
fn found_and_said(disk: &TestDisk) -> (Standings, Standings) {
    let (journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
    let said = Standings::of(&read(disk, dir(), past()).expect("memory").entries);
    (essence(journal.standings().clone()), essence(said))
}

/// A start that writes `entries`, each durable, and a snapshot of what was there before.
fn run(disk: &TestDisk, entries: &[Entry]) {
    let (mut journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
    let _ = journal.append(&start());
    for (place, entry) in entries.iter().enumerate() {
        let _ = journal.append(entry);
        let _ = journal.sync();
        if journal.has_failed() {
            let _ = journal.revive();
        }
        if place == entries.len() / 2 {
            let _ = journal.snapshot();
        }
    }
}

#[test]
fn a_start_reads_the_journal_from_the_snapshot_on() {
    let disk = TestDisk::default();
    let entries = history(1, 60);
    run(&disk, &entries[..30]);
    assert_eq!(disk.paths().len(), 1, "nothing is behind the file that is written");
    run(&disk, &entries[30..]);
    let snapshot = dir().join("00000001.snapshot");
    assert!(disk.paths().contains(&snapshot));
    let (found, said) = found_and_said(&disk);
    assert_eq!(found, said);
    // The file that it stands for is not even looked at.
    let first = dir().join("00000001.journal");
    let whole = disk.get(&first);
    disk.put(&first, vec![0xff; 100]);
    let (mut journal, damage) = Journal::open(disk.clone(), dir(), past()).expect("memory");
    assert_eq!((essence(journal.standings().clone()), damage), (said.clone(), Vec::new()));
    journal.append(&start()).expect("memory");
    journal.sync().expect("memory");
    assert!(journal.wants_snapshot(), "the second file is behind it");
    disk.put(&first, whole);
    // One that is damaged is not there.
    let mut bad = disk.get(&snapshot);
    bad[20] ^= 1;
    disk.put(&snapshot, bad);
    assert_eq!(found_and_said(&disk).0, said);
    journal.snapshot().expect("memory");
    assert!(!journal.wants_snapshot() && disk.paths().contains(&snapshot), "the one before stays");
    assert_eq!(found_and_said(&disk).0, said);
}

#[test]
fn a_journal_is_numbered_behind_its_snapshot_even_where_its_files_are_gone() {
    let disk = TestDisk::default();
    let entries = history(2, 40);
    run(&disk, &entries[..20]);
    run(&disk, &entries[20..]);
    for name in ["00000001.journal", "00000002.journal"] {
        disk.remove(&dir().join(name)).expect("there");
    }
    let (mut journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
    journal.append(&start()).expect("memory");
    assert!(disk.paths().contains(&dir().join("00000002.journal")), "{:?}", disk.paths());
}

#[test]
fn every_operation_may_fail_and_every_power_be_cut_and_a_start_knows_what_the_files_say() {
    for nth in 1.. {
        let disk = TestDisk::default();
        let entries = history(nth, 60);
        run(&disk, &entries[..20]);
        disk.fail_nth(nth);
        run(&disk, &entries[20..40]);
        let cut = disk.power_cut(&mut Prng::new(nth));
        for disk in [disk.clone(), cut] {
            run(&disk, &entries[40..]);
            let (found, said) = found_and_said(&disk);
            assert_eq!(found, said, "operation {nth}");
        }
        if !disk.has_failed() {
            assert!(nth > 40, "the failures reached {nth} operations");
            return;
        }
    }
}

#[test]
fn the_files_of_a_long_run_are_closed_so_that_a_snapshot_may_stand_for_them() {
    let disk = TestDisk::default();
    let (mut journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
    let entries = history(3, 200);
    let mut written = 0;
    while !journal.wants_snapshot() {
        journal.append_all(&entries).expect("memory");
        journal.sync().expect("memory");
        written += 1;
        assert!(written < 1_000, "it never wants one");
    }
    let bytes = disk.get(&dir().join("00000001.journal")).len() as u64;
    assert!((FILE_BYTES_MIN..2 * FILE_BYTES_MIN).contains(&bytes), "{bytes}");
    journal.snapshot().expect("memory");
    assert!(!journal.wants_snapshot());
    let (found, said) = found_and_said(&disk);
    assert_eq!(found, said);
}
