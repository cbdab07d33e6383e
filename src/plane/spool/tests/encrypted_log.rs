//! A log whose groups are encrypted: failures, kills, power cuts, keys that are not there, and keys that
//! must go.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::bench::{Bench, RING_BYTES, SPARE, STORE, TestSpool, random_stream};
use super::faults::one_fault;
use crate::base::ids::WorkerId;
use crate::base::ports::{Disk, DiskFile, Region};
use crate::base::prng::{Prng, Seeded};
use crate::plane::handoff::layout::AT_TAIL;
use crate::store::archive::Damaged;
use crate::store::fault_disk::{Call, Fault};
use crate::store::keys::{StoreKey, Veil, Veiled};
use crate::store::log::{
    self, FILE_MAGIC, FileHeader, GROUP_HEADER_BYTES, GroupHeader, LogFile, crc32c,
};
use crate::store::test_disk::TestDisk;

/// Keys of a store, by number and byte. Whoever shares them draws on.
fn veil(keys: &[(u32, u8)]) -> Arc<Veil> {
    let key = |(number, byte): &(u32, u8)| StoreKey::taken_over(*number, [*byte; 32].into());
    let store: Vec<StoreKey> = keys.iter().map(key).collect();
    Arc::new(Veil::new([7; 16], &store, Vec::new(), Box::new(Seeded::new(1))))
}

fn encrypted(disk: TestDisk, veil: &Arc<Veil>) -> Veiled<TestDisk> {
    Veiled::new(disk, Some(Arc::clone(veil)))
}

fn bench(disk: &Veiled<TestDisk>, spare: Option<&Path>) -> Bench<Veiled<TestDisk>> {
    let mut bench = Bench::at(disk.clone(), Path::new(STORE), spare, RING_BYTES).unwrap();
    bench.config.segment_bytes = 100_000;
    bench
}

fn is_log(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "log")
}

/// The log files of a disk that still have a first block, as they are.
fn in_use(disk: &TestDisk) -> Vec<PathBuf> {
    let starts = |path: &PathBuf| is_log(path) && disk.get(path).starts_with(&FILE_MAGIC);
    disk.paths().into_iter().filter(starts).collect()
}

/// Every group that was ever given to the disk, whatever became of it.
#[derive(Default)]
struct Witness {
    uses: BTreeMap<PathBuf, FileHeader>,
    /// Secret and number.
    given: BTreeSet<([u8; 32], u64)>,
    uses_seen: usize,
}

impl Witness {
    fn watch(disk: &TestDisk, veil: &Arc<Veil>) -> Rc<RefCell<Witness>> {
        let witness = Rc::new(RefCell::new(Witness::default()));
        let (ours, veil) = (Rc::clone(&witness), Arc::clone(veil));
        disk.watch(move |path, offset, bytes| {
            if is_log(path) {
                ours.borrow_mut().look(&veil, path, offset, bytes);
            }
        });
        witness
    }

    fn look(&mut self, veil: &Arc<Veil>, path: &Path, offset: u64, bytes: &[u8]) {
        // Payloads of the bench are 164 octets of one kind.
        let text = bytes.windows(24).any(|run| run[0] != 0 && run.iter().all(|one| *one == run[0]));
        assert!(!text, "in the clear in {} at {offset}", path.display());
        if let Some(header) = FileHeader::parse(bytes) {
            assert_eq!(offset, 0);
            self.uses.insert(path.to_owned(), header);
            self.uses_seen += 1;
        }
        let Some(group) = GroupHeader::parse(bytes) else { return };
        let file = self.uses[path];
        let found = log::Found { path: path.to_owned(), offset, header: group, key: file.key };
        let secret = log::secret(&Veiled::new(TestDisk::default(), Some(Arc::clone(veil))), &found);
        let secret = *secret.unwrap().expect("it is encrypted").expose();
        assert_eq!(file.file_sequence, group.file_sequence);
        assert!(self.given.insert((secret, group.group_sequence)), "a key and a nonce twice");
    }
}

/// Each call of the disk fails once; media is killed in the middle, the power is cut, and what is started
/// then goes on in the same files.
#[test]
fn no_key_meets_a_nonce_twice_and_nothing_is_lost_or_in_the_clear() {
    let (mut nth, mut groups, mut reused) = (1, 0, 0);
    loop {
        let keys = veil(&[(1, 1)]);
        let disk = encrypted(TestDisk::default(), &keys);
        let witness = Witness::watch(disk.disk(), &keys);
        let spare = (nth % 2 == 0).then_some(Path::new(SPARE));
        let mut bench = bench(&disk, spare);
        let mut spool = bench.spool();
        disk.disk().fail_nth(nth);
        for round in 0..16 {
            for _ in 0..120 {
                assert!(bench.packet(1 + random_stream(bench.sent)));
            }
            bench.clock.advance(100);
            if round % 5 == 4 {
                // Killed between any two steps, perhaps with a group that nobody called durable.
                spool.turn(&bench.clock, 1);
                spool = bench.spool();
            }
            bench.turn(&mut spool, 1);
        }
        assert!(bench.found() == bench.written || spool.durable().0 < bench.state.load(AT_TAIL));
        if spool.durable().0 == bench.state.load(AT_TAIL) {
            // Twice: what recovers may die, too.
            let mut after = disk.disk().clone();
            for cut in 0..2 {
                after = after.power_cut(&mut Prng::new(nth * 2 + cut));
                let mut next = self::bench(&encrypted(after.clone(), &keys), spare);
                next.written = bench.written.clone();
                next.sent = bench.sent;
                next.clock.0.set(90_000_000_000 * (cut + 1));
                let mut spool = next.spool();
                next.turn(&mut spool, 1);
                assert!(next.packet(1));
                bench.written = next.written.clone();
                bench.sent = next.sent;
                if cut == 1 {
                    next.settle(&mut spool);
                    // A folder that had failed is looked at again, and with the next segment its files are.
                    for _ in 0..4 {
                        next.clock.advance(600_000);
                        assert!(next.packet(1));
                        next.settle(&mut spool);
                    }
                } else {
                    next.clock.advance(100);
                    next.turn(&mut spool, 1);
                }
                assert!(next.found() == next.written, "nth {nth}, cut {cut}");
            }
            let left = in_use(&after);
            assert!(left.is_empty(), "nth {nth}: a key is still in {left:?}");
        } else {
            bench.settle(&mut spool);
            assert!(bench.found() == bench.written, "nth {nth}");
        }
        let witness = witness.borrow();
        groups += witness.given.len();
        reused += witness.uses_seen - witness.uses.len();
        if !disk.disk().has_failed() {
            break;
        }
        nth += 1;
    }
    assert!(nth > 60, "the failures reached {nth} operations");
    assert!(groups > 1_000 && reused > 100, "{groups} groups, {reused} uses of a file used before");
}

/// As the same test of a log in the clear: each call of each kind, in each way.
#[test]
fn f12_f13_a_fault_of_each_call_loses_nothing_of_an_encrypted_log() {
    let keys = veil(&[(1, 1)]);
    let mut runs = 0;
    for spare in [None, Some(Path::new(SPARE))] {
        for call in Call::ALL {
            let faults: &[Fault] = match call {
                Call::Write => &[Fault::Io, Fault::Short],
                _ => &[Fault::Io],
            };
            for fault in faults {
                for nth in 1.. {
                    let cut = |disk: &Veiled<TestDisk>| {
                        encrypted(disk.disk().power_cut(&mut Prng::new(nth)), &keys)
                    };
                    runs += 1;
                    let disk = encrypted(TestDisk::default(), &keys);
                    let place = (Path::new(STORE), spare);
                    if !one_fault(disk, place, (call, nth, *fault), cut) {
                        break;
                    }
                }
            }
        }
    }
    assert!(runs > 300, "the faults reached {runs} calls");
}

/// Records until some of it is sealed and some is not.
fn recorded(bench: &mut Bench<Veiled<TestDisk>>, rounds: u32) -> TestSpool<Veiled<TestDisk>> {
    let mut spool = bench.spool();
    for _ in 0..rounds {
        for _ in 0..100 {
            assert!(bench.packet(1 + random_stream(bench.sent)));
        }
        bench.clock.advance(100);
        bench.turn(&mut spool, 1);
    }
    spool
}

#[test]
fn encryption_that_is_switched_on_later_leaves_one_log() {
    let (disk, keys) = (TestDisk::default(), veil(&[(1, 1)]));
    let mut written = BTreeMap::new();
    let mut sent = 0;
    for (life, keys) in [None, Some(&keys), Some(&keys)].into_iter().enumerate() {
        let disk = Veiled::new(disk.clone(), keys.cloned());
        let mut bench = bench(&disk, None);
        // One span is never full: each life leaves what it wrote to the next one.
        bench.config.segment_bytes = 10_000_000;
        (bench.written, bench.sent) = (written, sent);
        bench.clock.0.set(60_000_000_000 * (life as u64 + 1));
        let mut spool = recorded(&mut bench, 3);
        assert_eq!(bench.found(), bench.written, "life {life}");
        if life == 2 {
            bench.settle(&mut spool);
            assert_eq!(bench.found(), bench.written);
            assert!(in_use(disk.disk()).is_empty());
        }
        (written, sent) = (bench.written, bench.sent);
    }
}

fn damage(
    bench: &Bench<Veiled<TestDisk>>,
    disk: &TestDisk,
    keys: Option<Arc<Veil>>,
) -> Vec<Damaged> {
    let other = Bench::at(Veiled::new(disk.clone(), keys), Path::new(STORE), None, RING_BYTES);
    let visit = other.unwrap().archive().visit(&bench.streams(), None, &mut |_| ()).unwrap();
    assert_eq!(visit.unsealed, 0, "nothing of it is shown");
    visit.damaged
}

#[test]
fn without_its_key_a_log_is_neither_damaged_nor_torn_and_nobody_writes_to_it() {
    let keys = veil(&[(1, 1)]);
    let disk = encrypted(TestDisk::default(), &keys);
    let mut bench = bench(&disk, None);
    bench.config.segment_bytes = 10_000_000;
    drop(recorded(&mut bench, 2));
    for other in [None, Some(veil(&[(2, 1)]))] {
        let told = damage(&bench, disk.disk(), other);
        assert!(!told.is_empty());
        for one in told {
            assert!(one.why.contains("encrypted") && !one.torn && one.lost.is_none(), "{one:?}");
        }
    }
    // The right number and another key: no cut does that.
    let told = damage(&bench, disk.disk(), Some(veil(&[(1, 9)])));
    assert!(told.iter().all(|one| !one.torn && one.lost.is_some_and(|lost| lost.durable)));
    assert!(told[0].why.contains("not what was encrypted"), "{told:?}");

    let image = || {
        let paths = disk.disk().paths().into_iter();
        paths.map(|path| (disk.disk().get(&path), path)).collect::<Vec<_>>()
    };
    let before = image();
    let keyless = Veiled::new(disk.disk().clone(), None);
    let keyless = Bench::at(keyless, Path::new(STORE), None, RING_BYTES).unwrap();
    let refused = keyless.try_spool().err().expect("no key").to_string();
    assert!(refused.contains("encrypted"), "{refused}");
    // With a key, but not this one, what is there stays, and waits.
    let mut other = self::bench(&encrypted(disk.disk().clone(), &veil(&[(2, 2)])), None);
    other.config.segment_bytes = bench.config.segment_bytes;
    let mut spool = other.spool();
    for _ in 0..20 {
        other.clock.advance(5_000);
        other.turn(&mut spool, 0);
    }
    assert!(spool.disk_error().is_some_and(|error| error.contains("encrypted")));
    drop(spool);
    let after = image();
    let changed: Vec<_> = after.iter().filter(|file| !before.contains(file)).collect();
    let changed: Vec<_> = changed.iter().map(|(bytes, path)| (bytes.len(), path)).collect();
    assert!(before == after, "files were changed: {changed:?}");
    assert_eq!(bench.found(), bench.written);
}

/// The bytes of a log file: first block and groups.
fn one_group() -> (Veiled<TestDisk>, Bench<Veiled<TestDisk>>, log::Found) {
    let disk = encrypted(TestDisk::default(), &veil(&[(1, 1)]));
    let mut bench = bench(&disk, None);
    let mut spool = bench.spool();
    (0..3).for_each(|n| assert!(bench.packet(1 + n)));
    bench.clock.advance(100);
    bench.turn(&mut spool, 1);
    let scans = log::scan_worker(&disk, Path::new(STORE), WorkerId(0), u64::MAX).unwrap();
    let found = scans.into_iter().flat_map(|scan| scan.groups).next().unwrap();
    (disk, bench, found)
}

#[test]
fn every_flipped_bit_of_an_encrypted_group_is_found() {
    let (disk, bench, found) = one_group();
    let flip = |at: u64, mask: u8| {
        let mut file = disk.disk().open(&found.path).unwrap();
        let mut byte = [0];
        file.read_at(at, &mut byte).unwrap();
        file.write_at(at, &[byte[0] ^ mask]).unwrap();
    };
    let length = GROUP_HEADER_BYTES as u64 + found.header.stored_bytes();
    let key = (8..136).map(|at| (at, 0x10));
    let group =
        (found.offset..found.offset + length).flat_map(|at| (0..8).map(move |bit| (at, 1 << bit)));
    for (at, mask) in key.chain(group) {
        flip(at, mask);
        let scan = log::scan_file(&disk, &found.path, u64::MAX).unwrap();
        let whole = scan.groups.iter().any(|group| {
            let file = LogFile::open(&disk, group).unwrap();
            matches!(file.read(group).unwrap(), log::Content::Whole(_))
        });
        assert!(!whole, "byte {at} mask {mask}");
        flip(at, mask);
    }
    assert_eq!(bench.found(), bench.written);
}

/// Whoever changes cipher text and puts all sums right is found by the tag, and is no power cut.
#[test]
fn what_somebody_changed_is_told_from_what_a_cut_left() {
    let (disk, bench, found) = one_group();
    let from = found.offset as usize;
    let mut image = disk.disk().get(&found.path);
    let stored =
        from + GROUP_HEADER_BYTES..from + GROUP_HEADER_BYTES + found.header.stored_bytes() as usize;
    image[stored.start + 60] ^= 1;
    let payload_crc = crc32c(&image[stored]);
    GroupHeader { payload_crc, ..found.header }.emit(&mut image[from..]);
    disk.disk().put(&found.path, image);
    let visit = bench.archive().visit(&bench.streams(), None, &mut |_| panic!("changed")).unwrap();
    let [one] = &visit.damaged[..] else { panic!("{:?}", visit.damaged) };
    assert!(!one.torn && one.lost.is_some_and(|lost| lost.durable), "{one:?}");
    assert!(one.why.contains("not what was encrypted"), "{}", one.why);
}

/// What a key opens in the log is shredded one day where it is kept: so no key stays in the log, whether
/// its file is used again, had failed, or its writer was killed before it came to that.
#[test]
fn a_key_goes_when_all_that_it_opens_is_sealed() {
    let keys = veil(&[(1, 1)]);
    let disk = encrypted(TestDisk::default(), &keys);
    let mut bench = bench(&disk, None);
    let mut spool = recorded(&mut bench, 2);
    let used = in_use(disk.disk());
    let before: Vec<_> = used.iter().map(|path| (path.clone(), disk.disk().get(path))).collect();
    assert!(!before.is_empty());
    // A write of the log fails, and its file is put aside.
    disk.disk().fail_nth(1);
    (0..50).for_each(|_| assert!(bench.packet(1)));
    bench.clock.advance(100);
    bench.turn(&mut spool, 1);
    bench.settle(&mut spool);
    let suspect = |path: &PathBuf| path.extension().is_some_and(|end| end == "suspect");
    assert!(disk.disk().paths().iter().any(suspect));
    for seed in 0..8 {
        let cut = disk.disk().power_cut(&mut Prng::new(seed));
        assert!(in_use(&cut).is_empty(), "what was overwritten is durable");
    }
    // As if the last one had died between the seal and that.
    drop(spool);
    for (path, bytes) in before {
        disk.disk().put(&path, bytes);
    }
    drop(bench.spool());
    assert!(in_use(&disk.disk().power_cut(&mut Prng::new(1))).is_empty());
    assert_eq!(bench.found(), bench.written);
}
