//! What is over moves into the history, and whatever breaks on the way, readers and starts are told
//! the same as before.

use std::path::Path;

use super::compaction::{Compacted, stands_for_all_before};
use super::entry::Entry;
use super::file::Journal;
use super::frame;
use super::read::read;
use super::standing::Standings;
use super::standing_tests::{essence, history};
use crate::base::ports::Disk;
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::store::catalog::Journalled;
use crate::store::test_disk::TestDisk;

/// Small files, so that a short run has many.
const FILE_BYTES: u64 = 8 * 1024;

fn dir() -> &'static Path {
    Path::new("/store/journal")
}

fn past() -> &'static Path {
    Path::new("/store/history")
}

fn open(disk: &TestDisk) -> Journal<TestDisk> {
    let (mut journal, damage) = Journal::open(disk.clone(), dir(), past()).expect("memory");
    assert_eq!(damage, []);
    journal.set_file_bytes(FILE_BYTES);
    let start =
        Entry::Start { version: 1, volume: "v".to_owned(), at: Wall(1), kept: false, before: None };
    journal.append(&start).expect("memory");
    journal
}

/// Writes `entries`, each durable, with a snapshot whenever one is wanted.
fn write(journal: &mut Journal<TestDisk>, entries: &[Entry]) {
    for entry in entries {
        journal.append(entry).expect("memory");
        journal.sync().expect("memory");
        journal.snapshot().expect("memory");
    }
}

/// A journal with several files behind two snapshots.
fn written(entries: &[Entry]) -> (TestDisk, Journal<TestDisk>) {
    let disk = TestDisk::default();
    let mut journal = open(&disk);
    write(&mut journal, entries);
    (disk, journal)
}

fn said(disk: &TestDisk) -> Journalled {
    let replay = read(disk, dir(), past()).expect("memory");
    assert_eq!(replay.damage, []);
    Journalled::of(&replay.entries)
}

/// Readers and a start are told what `entries` say; a start without any snapshot too.
fn assert_tells(disk: &TestDisk, entries: &[Entry], why: &str) {
    let mut wanted = Journalled::of(entries);
    wanted.volume = Some("v".to_owned());
    assert_eq!(said(disk), wanted, "{why}");
    let found = || {
        let (journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
        essence(journal.standings().clone())
    };
    let wanted = Standings { volume: "v".to_owned(), ..Standings::of(entries) };
    let wanted = essence(wanted);
    assert_eq!(found(), wanted, "{why}");
    let names = disk.list(dir()).expect("memory");
    let snapshots = names.iter().filter(|name| name.ends_with(".snapshot"));
    let snapshots: Vec<_> = snapshots.map(|name| dir().join(name)).collect();
    let whole: Vec<_> = snapshots.iter().map(|path| disk.get(path)).collect();
    snapshots.iter().for_each(|path| disk.put(path, b"bad".to_vec()));
    assert_eq!(found(), wanted, "{why}: without a snapshot");
    snapshots.iter().zip(whole).for_each(|(path, bytes)| disk.put(path, bytes));
}

fn names(disk: &TestDisk, suffix: &str) -> Vec<String> {
    let paths = disk.paths();
    let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
    names.filter(|name| name.ends_with(suffix)).map(ToOwned::to_owned).collect()
}

#[test]
fn what_is_over_moves_into_the_history_and_the_rest_stays() {
    for seed in 0..20 {
        let entries = history(seed, 450);
        let (disk, mut journal) = written(&entries[..250]);
        let before = names(&disk, ".journal");
        assert!(before.len() > 4 && names(&disk, ".snapshot").len() == 2, "{before:?}");
        let done = journal.compaction().expect("two snapshots").run().expect("memory");
        assert!(done.files > 0 && done.bytes > 0, "seed {seed}: {done:?}");
        let after = names(&disk, ".journal");
        assert_eq!(after, before[done.files..], "seed {seed}");
        assert_eq!(names(&disk, ".history").len(), 1);
        let kept = disk.get(&dir().join(&after[0]));
        let (first, _) = frame::read::<Entry>(&kept).expect("a start");
        assert!(stands_for_all_before(&first));
        assert_tells(&disk, &entries[..250], "once");
        // Nothing more to do; and again, when there is.
        assert_eq!(journal.compaction().expect("still").run().expect("memory").files, 0);
        write(&mut journal, &entries[250..300]);
        drop(journal);
        let mut journal = open(&disk);
        write(&mut journal, &entries[300..]);
        assert_tells(&disk, &entries, "before the second time");
        journal.compaction().expect("two snapshots").run().expect("memory");
        assert_tells(&disk, &entries, "twice");
    }
}

#[test]
fn every_operation_may_fail_and_every_power_be_cut_and_nothing_is_lost_or_twice() {
    for nth in 1.. {
        let entries = history(nth, 400);
        let (entries, all) = (&entries[..300], &entries);
        let (disk, mut journal) = written(entries);
        let compaction = journal.compaction().expect("two snapshots");
        disk.fail_nth(nth);
        let result = compaction.run();
        let reached = disk.has_failed();
        assert_eq!(result.is_err(), reached, "operation {nth}");
        if !reached {
            assert!(nth > 8, "the failures reached {nth} operations");
            return;
        }
        let cut = disk.power_cut(&mut Prng::new(nth));
        for disk in [disk, cut] {
            assert_tells(&disk, entries, &format!("operation {nth}"));
            // The next start's snapshot finds it as it is, and goes on.
            let mut journal = open(&disk);
            write(&mut journal, &all[300..]);
            let done = journal.compaction().expect("two snapshots").run().expect("memory");
            assert!(done != Compacted::default(), "operation {nth}");
            assert_tells(&disk, all, &format!("after operation {nth}"));
            assert!(names(&disk, ".tmp").is_empty(), "{:?}", disk.paths());
        }
    }
}

/// A file system shows some of the names that were removed again after a power cut.
#[test]
fn files_that_come_back_are_not_read_and_never_overwrite_the_history() {
    let entries = history(3, 400);
    let (disk, mut journal) = written(&entries[..250]);
    let before: Vec<_> =
        names(&disk, ".journal").iter().map(|name| (dir().join(name), name.clone())).collect();
    let bytes: Vec<_> = before.iter().map(|(path, _)| disk.get(path)).collect();
    let done = journal.compaction().expect("two snapshots").run().expect("memory");
    for (place, (path, _)) in before.iter().enumerate().take(done.files) {
        if place % 2 == 0 {
            disk.put(path, bytes[place].clone());
        }
    }
    assert_tells(&disk, &entries[..250], "come back");
    let first = disk.get(&past().join(&names(&disk, ".history")[0]));
    write(&mut journal, &entries[250..]);
    journal.compaction().expect("two snapshots").run().expect("memory");
    assert_eq!(disk.get(&past().join(&names(&disk, ".history")[0])), first);
    assert_tells(&disk, &entries, "gone again");
    assert!(names(&disk, ".journal").iter().all(|name| name >= &before[done.files].1));
}

#[test]
fn of_a_damaged_file_what_can_be_read_moves_on_and_its_bytes_stay() {
    let entries = history(4, 300);
    let (disk, mut journal) = written(&entries);
    let first = dir().join(&names(&disk, ".journal")[0]);
    let mut bad = disk.get(&first);
    bad[400] ^= 1;
    disk.put(&first, bad.clone());
    let told = read(&disk, dir(), past()).expect("memory");
    assert_eq!(told.damage.len(), 1);
    journal.compaction().expect("two snapshots").run().expect("memory");
    let after = read(&disk, dir(), past()).expect("memory");
    assert_eq!(Journalled::of(&after.entries), Journalled::of(&told.entries));
    assert_eq!((after.damage.len(), after.damage[0].from), (1, told.damage[0].from));
    assert_eq!(disk.get(&first.with_extension("journal.damaged")), bad);
    assert!(!disk.paths().contains(&first));
}

#[test]
fn without_two_whole_snapshots_nothing_goes_and_with_another_disk_mounted_neither() {
    let entries = history(5, 300);
    let (disk, mut journal) = written(&entries);
    let files = names(&disk, ".journal");
    let snapshots = names(&disk, ".snapshot");
    let compaction = journal.compaction().expect("two snapshots");
    for name in &snapshots {
        let path = dir().join(name);
        let whole = disk.get(&path);
        disk.put(&path, whole[..whole.len() - 1].to_vec());
        assert_eq!(compaction.run().expect("memory"), Compacted::default());
        disk.put(&path, whole);
    }
    for folder in [Path::new("/store"), dir()] {
        disk.set_device(folder, 7);
        assert!(compaction.run().is_err(), "{}", folder.display());
        disk.set_device(folder, 0);
        assert_eq!(names(&disk, ".journal"), files);
        assert_tells(&disk, &entries, "unmounted");
    }
    assert!(compaction.run().expect("memory").files > 0);
}

/// 10,000 calls of a minute, a week of them, beside one that lasts: what a start reads and the
/// journal's folder stay as they were after the first day; the history has the rest.
#[test]
fn the_folder_and_the_start_do_not_grow_with_what_was() {
    let calls = super::standing_tests::short_calls(10_000, 60);
    let disk = TestDisk::default();
    let mut journal = open(&disk);
    journal.set_file_bytes(16 * FILE_BYTES);
    let (mut early, mut late) = (0, 0);
    for (place, call) in calls.chunks(5).enumerate() {
        journal.append_all(call).expect("memory");
        journal.sync().expect("memory");
        if journal.wants_snapshot() {
            journal.snapshot().expect("memory");
            if let Some(compaction) = journal.compaction() {
                compaction.run().expect("memory");
            }
        }
        if place % 10 == 0 {
            let of = |name: &str| disk.get(&dir().join(name)).len();
            let bytes: usize = disk.list(dir()).expect("memory").iter().map(|name| of(name)).sum();
            let side = if place < 3_000 { &mut early } else { &mut late };
            *side = bytes.max(*side);
        }
    }
    assert!(late < early + early / 4, "{early} bytes in the first days, {late} later");
    let all: usize = disk.paths().iter().map(|path| disk.get(path).len()).sum();
    assert!(all > 4 * late, "{all} bytes in all, {late} in the journal");
    assert_tells(&disk, &calls, "a week later");
    // A start does not even look at the history.
    let wanted = essence(journal.standings().clone());
    for name in names(&disk, ".history") {
        disk.remove(&past().join(name)).expect("there");
    }
    let (journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
    assert_eq!(essence(journal.standings().clone()), wanted);
}

mod chained {
    //! The same journals, signed: the chain holds through every compaction, and shows what does not belong.

    use std::sync::Arc;

    use super::super::Signer;
    use super::super::check::{JournalCheck, Signed, check};
    use super::*;
    use crate::store::evidence::{FileMark, SigningKey, verify};

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32])
    }

    fn open(disk: &TestDisk) -> Journal<TestDisk> {
        let (mut journal, _) = Journal::open(disk.clone(), dir(), past()).expect("memory");
        journal.sign_by(Signer { key: Arc::new(key()), volume: "v".to_owned() });
        journal.set_file_bytes(FILE_BYTES);
        if journal.has_failed() {
            journal.revive().expect("works again");
        }
        let start = Entry::Start {
            version: 1,
            volume: "v".to_owned(),
            at: Wall(1),
            kept: false,
            before: None,
        };
        journal.append(&start).and_then(|()| journal.sync()).expect("memory");
        journal
    }

    fn checked(disk: &TestDisk, heads: &[FileMark]) -> JournalCheck {
        let key = key().public_key();
        let signed = Signed { volume: "v", by: &|hash, signature| verify(&key, hash, signature) };
        check(disk, dir(), past(), &signed, heads).expect("memory")
    }

    /// Writes with compactions and starts in between.
    fn lived(seed: u64, heads: &mut Vec<FileMark>) -> TestDisk {
        let disk = TestDisk::default();
        let mut journal = open(&disk);
        for (place, entries) in history(seed, 600).chunks(60).enumerate() {
            write(&mut journal, entries);
            journal.seal().and_then(|()| journal.sync()).expect("memory");
            heads.extend(journal.head());
            if let Some(compaction) = journal.compaction() {
                compaction.run().expect("memory");
            }
            if place % 3 == 2 {
                drop(journal);
                journal = open(&disk);
            }
        }
        journal.seal().and_then(|()| journal.sync()).expect("memory");
        heads.extend(journal.head());
        disk
    }

    #[test]
    fn the_chain_holds_through_starts_and_compactions_and_all_heads_are_in_it() {
        for seed in 0..8 {
            let mut heads = Vec::new();
            let disk = lived(seed, &mut heads);
            assert!(names(&disk, ".history").len() > 1, "seed {seed}");
            let found = checked(&disk, &heads);
            assert_eq!((found.faults, found.unsigned), (Vec::new(), Vec::new()), "seed {seed}");
            assert!(found.chained && found.open_bytes == 0);
        }
    }

    #[test]
    fn every_frame_and_file_taken_out_doubled_or_swapped_is_found() {
        let mut heads = Vec::new();
        let disk = lived(3, &mut heads);
        let mut paths = disk.paths();
        paths.retain(|path| !path.to_str().is_some_and(|path| path.ends_with("snapshot")));
        let mut tries = 0;
        for path in &paths {
            let whole = disk.get(path);
            let is_found = |bytes: Option<Vec<u8>>, what: &str| {
                match bytes {
                    Some(bytes) => disk.put(path, bytes),
                    None => disk.remove(path).expect("there"),
                }
                let found = checked(&disk, &heads);
                disk.put(path, whole.clone());
                assert!(!found.faults.is_empty(), "{}: {what}", path.display());
                let name = path.file_name().and_then(|name| name.to_str()).expect("text");
                let number = name.split('.').next().expect("a number").trim_start_matches('0');
                let text = format!("{:?}", found.faults);
                assert!(text.contains(number), "{}: {what}: {text}", path.display());
            };
            is_found(None, "gone");
            let mut frames = Vec::new();
            let mut at = 0;
            while let Some((_, size)) = frame::read::<serde_json::Value>(&whole[at..]) {
                frames.push(&whole[at..at + size]);
                at += size;
            }
            assert_eq!(at, whole.len());
            for place in 0..frames.len() {
                let mut without = frames.clone();
                without.remove(place);
                is_found(Some(without.concat()), "a frame taken out");
                let mut twice = frames.clone();
                twice.insert(place, frames[place]);
                is_found(Some(twice.concat()), "a frame doubled");
                if place > 0 {
                    let mut swapped = frames.clone();
                    swapped.swap(place, place - 1);
                    is_found(Some(swapped.concat()), "two frames swapped");
                }
                tries += 3;
            }
        }
        assert!(tries > 300, "{tries}");
        // The files of two numbers in each other's place.
        for pair in paths.windows(2).filter(|pair| pair[0].parent() == pair[1].parent()) {
            let held = [disk.get(&pair[0]), disk.get(&pair[1])];
            disk.put(&pair[0], held[1].clone());
            disk.put(&pair[1], held[0].clone());
            assert!(!checked(&disk, &heads).faults.is_empty(), "{pair:?}");
            disk.put(&pair[0], held[0].clone());
            disk.put(&pair[1], held[1].clone());
        }
        assert_eq!(checked(&disk, &heads).faults, []);
        // Without what was kept elsewhere an end that was cut at a seal is only shorter.
        let last = paths.iter().rfind(|path| path.starts_with(dir())).expect("files");
        let whole = disk.get(last);
        let (_, start) = frame::read::<Entry>(&whole).expect("a start");
        disk.put(last, whole[..start].to_vec());
        assert_eq!(checked(&disk, &[]).faults, []);
        assert!(!checked(&disk, &heads).faults.is_empty(), "the last heads");
    }

    #[test]
    fn whatever_operation_fails_and_whenever_power_is_cut_the_chain_accuses_nobody() {
        for nth in 1.. {
            let entries = history(nth, 160);
            let disk = TestDisk::default();
            let mut journal = open(&disk);
            write(&mut journal, &entries[..60]);
            disk.fail_nth(nth);
            for entry in &entries[60..] {
                let _ = journal.append(entry).and_then(|()| journal.sync());
                if journal.has_failed() {
                    let _ = journal.revive();
                }
                let _ = journal.snapshot();
                if let Some(compaction) = journal.compaction() {
                    let _ = compaction.run();
                }
            }
            let failed = disk.has_failed();
            drop(journal);
            for seed in 0..3 {
                let cut = disk.power_cut(&mut Prng::new(nth * 10 + seed));
                let found = checked(&cut, &[]);
                assert_eq!(found.faults, [], "nth {nth}, seed {seed}, before a start");
                let mut journal = open(&cut);
                journal.seal().and_then(|()| journal.sync()).expect("memory");
                let found = checked(&cut, &[]);
                assert_eq!(found.faults, [], "nth {nth}, seed {seed}, behind a start");
            }
            if !failed {
                assert!(nth > 60, "the failures reached {nth} operations");
                return;
            }
        }
    }
}

/// Whoever waits for words to leave the journal gets them out of it, however little there is.
#[test]
fn a_journal_that_is_turned_over_hands_what_is_over_to_the_history() {
    let entries = history(3, 200);
    let disk = TestDisk::default();
    let mut journal = open(&disk);
    journal.set_file_bytes(1 << 20);
    write(&mut journal, &entries);
    let said_before = said(&disk);
    let mut turns = 0;
    while names_past(&disk).is_empty() {
        turns += 1;
        assert!(turns <= 4, "it never comes");
        journal.turn_over().expect("memory");
        journal.append(&Entry::StreamIds { next: Default::default() }).expect("memory");
        journal.sync().expect("memory");
        journal.snapshot().expect("memory");
        if let Some(compaction) = journal.compaction() {
            compaction.run().expect("memory");
        }
    }
    assert_eq!(said(&disk).recordings, said_before.recordings);
    let over: std::collections::BTreeSet<_> = said_before
        .recordings
        .keys()
        .copied()
        .filter(|rs| !journal.standings().recordings.contains_key(rs))
        .collect();
    assert!(!over.is_empty());
    assert!(super::in_journal(&disk, dir(), &over).expect("memory").is_empty());
}

fn names_past(disk: &TestDisk) -> Vec<String> {
    disk.list(past()).unwrap_or_default()
}
