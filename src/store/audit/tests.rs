//! What the trail promises, over a disk in memory: nothing of it changes unseen, nothing that was promised
//! is lost, and where an entry cannot be made durable there is none to act on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;
use crate::base::ports::Disk;
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::store::fault_disk::{Call, Fault as DiskFault, FaultDisk};
use crate::store::journal::frame::{self, HEAD_BYTES};
use crate::store::test_disk::TestDisk;

const STORE: &str = "/store";

fn who() -> Who {
    Who { uid: 1_000, user: "kim".into(), role: "listener".into() }
}

fn act(number: u64) -> Act {
    Act::new(Wall(number as i64), who(), action::LISTEN, format!("recording {number}"))
        .because("a complaint")
        .with("from", "2026-01-01T00:00:00Z")
}

fn writer<D: Disk + Clone>(disk: &D) -> Writer<D> {
    Writer::new(disk.clone(), Path::new(STORE), "volume")
}

/// A trail of `count` entries in files of some 700 bytes.
fn trail(count: u64) -> TestDisk {
    let disk = TestDisk::default();
    let mut writer = writer(&disk);
    writer.set_file_bytes(700);
    for number in 1..count {
        writer.append(act(number)).expect("a good disk");
    }
    disk
}

fn files(disk: &TestDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|e| e == "audit")).collect()
}

fn heads(disk: &TestDisk) -> Vec<Head> {
    let mut heads = Vec::new();
    walk(disk, Path::new(STORE), |entry, hash| {
        heads.push(Head { number: entry.number, hash: *hash });
    })
    .expect("readable");
    heads
}

/// What a verifier finds that knows the sealed head.
fn found(disk: &TestDisk, sealed: Head) -> bool {
    let trail = read(disk, Path::new(STORE)).expect("readable");
    let found = check_sealed(disk, Path::new(STORE), &[sealed].into()).expect("readable");
    !trail.summary.faults.is_empty() || !found.is_empty()
}

#[test]
fn what_was_recorded_is_read_again_and_the_first_entry_names_the_store() {
    let disk = trail(20);
    let trail = read(&disk, Path::new(STORE)).expect("readable");
    assert_eq!(trail.entries.len(), 20);
    assert!(files(&disk).len() > 3, "it was rotated");
    let first = &trail.entries[0];
    assert_eq!((first.number, &*first.action, &*first.object), (1, action::BEGUN, "volume"));
    assert_eq!(first.who.role, "server");
    let second = &trail.entries[1];
    assert_eq!((second.number, &*second.object, &second.who), (2, "recording 1", &who()));
    assert_eq!(
        (second.outcome, second.text("from")),
        (Outcome::Allowed, Some("2026-01-01T00:00:00Z"))
    );
    assert_eq!((trail.summary.faults, trail.summary.tails), (vec![], vec![]));
    assert_eq!(Some(&trail.summary.head), heads(&disk).last());
    assert_eq!(writer(&disk).head().expect("readable"), Some(trail.summary.head));
    let is_first = |entry: &Entry| entry.number < 3;
    let found = newest(&disk, Path::new(STORE), is_first).expect("readable");
    assert_eq!(found.map(|entry| entry.number), Some(2));
    assert_eq!(newest(&disk, Path::new(STORE), |_| false).expect("readable"), None);
}

#[test]
fn fields_of_a_later_version_are_covered_and_left_out() {
    /// What it may write.
    #[derive(serde::Serialize)]
    #[serde(tag = "entry", rename = "audit")]
    struct Later {
        #[serde(flatten)]
        known: serde_json::Map<String, serde_json::Value>,
        later: u32,
    }
    let mut bytes = Vec::new();
    let entry = Entry::behind(&Head::default(), act(1));
    let json = serde_json::to_value(&entry).expect("JSON");
    let mut known = json.as_object().expect("an object").clone();
    known.remove("entry");
    let raw = Later { known, later: 7 };
    assert!(frame::write(&raw, &mut bytes));
    let mut seen = Vec::new();
    let summary = walk_file("1", &bytes, |entry, hash| seen.push((entry, *hash)));
    assert_eq!((&seen[0].0, summary.faults.len()), (&entry, 0));
    assert_eq!(summary.head.hash, crate::store::evidence::sha256(&bytes[HEAD_BYTES..]));
}

#[test]
fn every_flipped_bit_and_every_cut_of_every_file_is_found() {
    let disk = trail(7);
    let sealed = *heads(&disk).last().expect("entries");
    assert!(!found(&disk, sealed));
    let mut tried = 0;
    for path in files(&disk) {
        let bytes = disk.get(&path);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            disk.put(&path, bad);
            assert!(found(&disk, sealed), "{} bit {bit}", path.display());
            tried += 1;
        }
        for cut in 0..bytes.len() {
            disk.put(&path, bytes[..cut].to_vec());
            assert!(found(&disk, sealed), "{} cut at {cut}", path.display());
            // The same with the room that a file system may leave.
            let mut zeros = bytes[..cut].to_vec();
            zeros.resize(bytes.len(), 0);
            disk.put(&path, zeros);
            assert!(found(&disk, sealed), "{} zeros from {cut}", path.display());
        }
        disk.put(&path, bytes);
    }
    assert!(tried > 10_000, "{tried} bits");
    assert!(!found(&disk, sealed), "as it was");
}

/// Entries as their frames, so that whole ones can be moved about with their checksums.
fn frames(disk: &TestDisk) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for path in files(disk) {
        let bytes = disk.get(&path);
        let mut at = 0;
        while let Some((_, size)) = frame::read::<Entry>(&bytes[at..]) {
            frames.push(bytes[at..at + size].to_vec());
            at += size;
        }
    }
    frames
}

fn image(frames: &[Vec<u8>]) -> TestDisk {
    let disk = TestDisk::default();
    disk.put(&folder(Path::new(STORE)).join("00000001.audit"), frames.concat());
    disk
}

#[test]
fn entries_that_are_removed_swapped_repeated_or_forged_are_found_and_named() {
    let disk = trail(9);
    let all = frames(&disk);
    let sealed = *heads(&disk).last().expect("entries");
    assert!(!found(&image(&all), sealed), "one file or many: the same chain");
    for place in 0..all.len() {
        let mut less = all.clone();
        less.remove(place);
        assert!(found(&image(&less), sealed), "without {}", place + 1);
        for other in 0..place {
            let mut swapped = all.clone();
            swapped.swap(place, other);
            assert!(found(&image(&swapped), sealed), "{other} and {place} swapped");
        }
        let mut twice = all.clone();
        twice.insert(all.len(), all[place].clone());
        assert!(found(&image(&twice), sealed), "{} twice", place + 1);
        // With a right checksum, and the right chain before it.
        let mut forged = all.clone();
        let (mut entry, _) = frame::read::<Entry>(&all[place]).expect("whole");
        entry.who.user = "somebody else".into();
        let mut bytes = Vec::new();
        assert!(frame::write(&entry, &mut bytes));
        forged[place] = bytes;
        assert!(found(&image(&forged), sealed), "{} forged", place + 1);
    }
    // All behind a forged one chained anew: nothing but the sealed head can tell.
    let mut head = Head::default();
    let mut anew = Vec::new();
    for (place, bytes) in all.iter().enumerate() {
        let (mut entry, _) = frame::read::<Entry>(bytes).expect("whole");
        if place == 4 {
            entry.reason = "another one".into();
        }
        entry.previous = head.hash;
        let mut bytes = Vec::new();
        assert!(frame::write(&entry, &mut bytes));
        head = Head::of(entry.number, &bytes[HEAD_BYTES..]);
        anew.push(bytes);
    }
    let disk = image(&anew);
    assert_eq!(read(&disk, Path::new(STORE)).expect("readable").summary.faults, []);
    let said = check_sealed(&disk, Path::new(STORE), &[sealed].into()).expect("readable");
    assert_eq!(
        said.iter().map(|f| f.wrong.clone()).collect::<Vec<_>>(),
        [Wrong::Changed { number: 9 }]
    );
}

#[test]
fn whole_files_that_are_removed_or_swapped_are_found() {
    let disk = trail(20);
    let sealed = *heads(&disk).last().expect("entries");
    let all = files(&disk);
    for path in &all {
        let bytes = disk.get(path);
        disk.remove(path).expect("there");
        assert!(found(&disk, sealed), "without {}", path.display());
        for other in all.iter().filter(|other| *other != path) {
            let others = disk.get(other);
            disk.put(path, others.clone());
            disk.put(other, bytes.clone());
            assert!(found(&disk, sealed), "{} and {}", path.display(), other.display());
            disk.put(other, others);
        }
        disk.put(path, bytes);
    }
    assert!(!found(&disk, sealed), "as it was");
    let last = disk.get(all.last().expect("files"));
    disk.remove(all.last().expect("files")).expect("there");
    let said = check_sealed(&disk, Path::new(STORE), &[sealed].into()).expect("readable");
    assert!(matches!(said[..], [Fault { wrong: Wrong::Cut { sealed: 20, .. }, .. }]), "{said:?}");
    disk.put(all.last().expect("files"), last);
}

/// Every call of the disk fails once, in every way: what was promised before is there, what was refused
/// may be, and the chain goes on without a fault; after a power cut as well.
#[test]
fn f12_whatever_fails_what_was_promised_is_kept_and_nothing_else_is_acted_on() {
    let mut random = Prng::new(7);
    let mut failures = 0;
    for call in Call::ALL {
        for fault in [DiskFault::Io, DiskFault::Full, DiskFault::Short] {
            for nth in 1..60 {
                let memory = TestDisk::default();
                let disk = FaultDisk::new(memory.clone());
                let mut promised = BTreeSet::new();
                let mut asked = 0;
                let mut append = |writer: &mut Writer<FaultDisk<TestDisk>>| {
                    asked += 1;
                    // Some are longer than a block of the disk, of which a power cut takes what it likes.
                    let long = act(asked).with("long", "x".repeat(asked as usize % 3 * 5_000));
                    let done = writer.append(long);
                    if done.is_ok() {
                        promised.insert(format!("recording {asked}"));
                    }
                };
                let mut writer = writer(&disk);
                writer.set_file_bytes(12_000);
                (0..3).for_each(|_| append(&mut writer));
                disk.fail(call, nth, fault);
                (0..4).for_each(|_| append(&mut writer));
                let has_failed = disk.has_failed();
                disk.calm();
                (0..2).for_each(|_| append(&mut writer));
                failures += u32::from(has_failed);
                let mut cuts = vec![memory.clone()];
                cuts.extend((0..4).map(|_| memory.power_cut(&mut random)));
                for disk in cuts {
                    let trail = read(&disk, Path::new(STORE)).expect("readable");
                    let place = format!("{call:?} {fault:?} {nth}");
                    assert_eq!(trail.summary.faults, [], "{place}");
                    let there: BTreeSet<_> =
                        trail.entries.iter().map(|entry| entry.object.clone()).collect();
                    assert!(promised.is_subset(&there), "{place}: {promised:?} {there:?}");
                    assert_eq!(there.len(), trail.entries.len(), "{place}: none twice");
                }
                if !has_failed {
                    break;
                }
                // What only hinders the look at what the disk holds is mended by saying it again.
                let is_told = promised.len() < 9 || !matches!(call, Call::Create | Call::Write);
                assert!(is_told, "{call:?} {fault:?} {nth}: said so");
            }
        }
    }
    assert!(failures > 60, "{failures} failures");
}

/// A writer is killed between any two bytes: the file ends there.
#[test]
fn whoever_comes_after_a_killed_writer_goes_on_in_a_new_file() {
    let whole = trail(4);
    let path = files(&whole).pop().expect("files");
    let bytes = whole.get(&path);
    for cut in 0..bytes.len() {
        let disk = trail(4);
        disk.put(&path, bytes[..cut].to_vec());
        let before = heads(&disk);
        let next = writer(&disk).append(act(77)).expect("a good disk");
        let trail = read(&disk, Path::new(STORE)).expect("readable");
        assert_eq!(trail.summary.faults, [], "cut at {cut}");
        assert_eq!(next.number, before.len() as u64 + 1, "cut at {cut}");
        assert_eq!(trail.entries.last(), Some(&next));
        // What was torn stays where it is.
        assert!(disk.get(&path).starts_with(&bytes[..cut]));
    }
}

#[test]
fn a_full_disk_refuses_and_an_entry_has_a_bound() {
    let disk = TestDisk::default();
    disk.set_full(true);
    let error = writer(&disk).append(act(1)).expect_err("full");
    assert!(!error.is_read_only(), "{error}");
    disk.set_full(false);
    let long = act(1).because("x".repeat(BODY_BYTES_MAX));
    assert!(matches!(writer(&disk).append(long), Err(AuditError::TooLong { .. })));
    assert_eq!(read(&disk, Path::new(STORE)).expect("readable").entries, []);
    writer(&disk).append(act(1)).expect("a good disk");
    assert_eq!(read(&disk, Path::new(STORE)).expect("readable").entries.len(), 2);
}

#[test]
fn f12_a_head_that_may_not_be_on_the_disk_is_none() {
    let disk = TestDisk::default();
    assert_eq!(writer(&disk).head().expect("readable"), Some(Head::default()), "nothing is lost");
    writer(&disk).append(act(1)).expect("a good disk");
    // A look at what the disk holds, a write, and the sync that fails.
    disk.fail_nth(3);
    assert!(writer(&disk).append(act(2)).is_err() && disk.has_failed());
    // It can be read, and after a power cut it may be gone.
    assert_eq!(heads(&disk).len(), 3);
    assert_eq!(writer(&disk).head().expect("readable"), None);
    writer(&disk).append(act(3)).expect("a good disk");
    assert_eq!(writer(&disk).head().expect("readable").map(|head| head.number), Some(4));
}

#[test]
fn several_acts_are_one_append_in_their_order() {
    let disk = TestDisk::default();
    let made = writer(&disk).append_all(vec![act(1), act(2).refused("not yours")]).expect("good");
    assert_eq!(made.iter().map(|entry| entry.number).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((made[1].outcome, made[1].text("why")), (Outcome::Refused, Some("not yours")));
    assert_eq!(read(&disk, Path::new(STORE)).expect("readable").entries[1..], made);
}
