//! Keys of what goes by retention: destroyed before anything else, and of nobody else; and damage of keys.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::thin_tests::{NAME, NOW, SALT, contents, copy_of, key, path, store, thin_seeing};
use super::*;
use crate::base::ids::StreamId;
use crate::base::ports::{Disk, Entropy};
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::store::archive::Archive;
use crate::store::evidence::Signers;
use crate::store::keys::{KeyMaker, Of, SegmentKeys, Wraps, path_of};
use crate::store::test_disk::TestDisk;

/// Random octets, and what it gave out.
struct Random(Mutex<(Prng, Vec<Vec<u8>>)>);

impl Entropy for Random {
    fn fill(&self, out: &mut [u8]) {
        let mut random = self.0.lock().expect("ours");
        random.0.fill(out);
        random.1.push(out.to_vec());
    }
}

/// A disk with one encrypted segment of streams 10 and up, and the secrets of these.
struct Sealed {
    disk: TestDisk,
    segment: Vec<u8>,
    keys: Vec<u8>,
    secrets: Vec<Vec<u8>>,
}

impl Sealed {
    fn of(sources: u64) -> Self {
        let disk = TestDisk::default();
        disk.set_store_key(Some(1));
        let (ring, facts, span) = contents(sources);
        let emitter = Emitter::encrypted(facts, span, |_| Some(SALT));
        let mut emitter = emitter.expect("all salts are known");
        let random = Arc::new(Random(Mutex::new((Prng::new(sources), Vec::new()))));
        let wraps = Wraps::of(&disk).expect("a key");
        let of = Of { volume: facts.volume, worker: facts.worker, number: facts.number };
        let maker = KeyMaker::new(wraps, Arc::clone(&random) as Arc<dyn Entropy + Send + Sync>);
        let made = maker.make(&disk, &path(NAME.file()), of, &emitter.streams(), Wall(1));
        emitter.restart_under(made.expect("memory"));
        let segment = emitter.all(&key(), &mut copy_of(&ring)).expect("memory");
        disk.put(&path(NAME.file()), segment.clone());
        let mut secrets = random.0.lock().expect("ours").1.clone();
        secrets.retain(|octets| octets.len() == 32);
        assert_eq!(secrets.len(), sources as usize);
        let keys = disk.get(&keys_path());
        Sealed { disk, segment, keys, secrets }
    }

    /// The same on a disk of its own.
    fn again(&self) -> TestDisk {
        let disk = TestDisk::default();
        disk.set_store_key(Some(1));
        disk.put(&path(NAME.file()), self.segment.clone());
        disk.put(&keys_path(), self.keys.clone());
        disk
    }

    /// What of a stream must be in no byte of a disk: its secret, and that as it stood wrapped.
    fn traces(&self, stream: u64) -> [&[u8]; 2] {
        let place = (stream - 10) as usize;
        let entry = 128 + 96 * place;
        [&self.secrets[place], &self.keys[entry + 24 + 12..entry + 84]]
    }
}

fn keys_path() -> PathBuf {
    path_of(&path(NAME.file()))
}

fn holds(disk: &TestDisk, octets: &[u8]) -> bool {
    let mut files = disk.paths().into_iter().map(|path| disk.get(&path));
    files.any(|bytes| bytes.windows(octets.len()).any(|window| window == octets))
}

fn check(disk: &TestDisk) -> SegmentReport {
    let archive = Archive::open(disk.clone(), store());
    let key = key().public_key();
    archive
        .verify_segment(NAME, None, &mut |_| Some(SALT), Some(&Signers::one(key)))
        .expect("memory")
}

/// Which streams can be read, and which are gone by what the segment says.
fn state(disk: &TestDisk) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let archive = Archive::open(disk.clone(), store());
    let (footer, gone) = archive.rows_left(NAME).expect("memory");
    let keys = SegmentKeys::read(disk, &keys_path()).expect("there");
    let wraps = Wraps::of(disk).expect("a key");
    let stream = |row: &Row| row.source.stream().0;
    let is_live = |row: &&Row| keys.secret(row.source.stream(), &wraps).is_ok();
    let live = footer.rows.iter().filter(is_live).map(stream).collect();
    (live, gone.iter().map(|row| stream(&footer.rows[*row])).collect())
}

#[test]
fn what_went_cannot_be_had_from_an_image_with_all_keys_and_the_rest_opens_and_verifies() {
    let sealed = Sealed::of(40);
    let goes = |stream: u64| !stream.is_multiple_of(3);
    let disk = &sealed.disk;
    assert!((10..50).all(|stream| holds(disk, sealed.traces(stream)[1])));
    let report = thin_seeing(disk, NOW, &goes, &mut |_| ()).expect("memory").expect("most go");
    let stays: Vec<u64> = (10..50).filter(|stream| !goes(*stream)).collect();
    assert_eq!((report.gone, report.kept), (40 - stays.len() as u64, stays.len() as u64));
    let after = check(disk);
    assert!(after.is_good(), "{after:?}");
    assert_eq!((after.proven, after.gone.len()), (report.kept, report.gone as usize));
    assert!(after.gone.iter().all(|(_, gone)| gone.since == NOW && !gone.rule.is_empty()));
    for image in [disk.clone(), disk.power_cut(&mut Prng::new(1))] {
        for stream in 10..50 {
            let [secret, wrapped] = sealed.traces(stream);
            assert!(!holds(&image, secret));
            assert_eq!(holds(&image, wrapped), !goes(stream), "stream {stream}");
        }
    }
    // Whoever kept the segment of before and has all keys of now.
    disk.put(&path(NAME.file()), sealed.segment.clone());
    let before = check(disk);
    assert!(before.is_good() && before.proven == report.kept, "{before:?}");
    let told = before.gone.iter().map(|(_, gone)| gone.to_string());
    assert!(told.clone().count() == report.gone as usize);
    assert!(told.into_iter().all(|words| words.contains("its key is destroyed")));
    // A second time, of what is left: none of its keys stays.
    disk.remove(&path(NAME.file())).expect("there");
    thin_seeing(disk, NOW, &|_| true, &mut |_| ()).expect("memory").expect("the rest");
    assert!((10..50).all(|stream| !holds(disk, sealed.traces(stream)[1])));
    assert!(check(disk).is_good());
}

/// At any instant what is due can be read and is due, or it cannot be read by anybody.
#[test]
fn a_kill_or_a_cut_at_any_step_never_leaves_what_is_forgotten_and_can_be_read() {
    let sealed = Sealed::of(30);
    let goes = |stream: u64| stream != 17;
    let (live, gone) = state(&sealed.disk);
    assert!(live.len() == 30 && gone.is_empty());
    let mut seen = BTreeSet::new();
    let mut judge = |disk: &TestDisk| {
        let (live, gone) = state(disk);
        assert!(live.is_disjoint(&gone), "{:?}", live.intersection(&gone));
        assert!(live.contains(&17) && !gone.contains(&17), "it stays");
        // Of a key that is half overwritten nobody can say more.
        let report = check(disk);
        assert!(report.faults.is_empty(), "{report:?}");
        assert!(report.damaged.iter().all(|damage| goes(damage.source.stream().0)));
        seen.insert((live.len(), gone.len()));
        // Who comes next goes on.
        disk.forgive(&keys_path());
        withdraw(disk, store(), NAME).expect("memory");
        thin_seeing(disk, NOW, &goes, &mut |_| ()).expect("memory");
        assert_eq!(state(disk), ([17].into(), (10..40).filter(|stream| goes(*stream)).collect()));
        assert!(check(disk).is_good());
    };
    let mut nth = 1;
    loop {
        let disk = sealed.again();
        disk.fail_nth(nth);
        let cuts = RefCell::new(Vec::new());
        let mut random = Prng::new(nth);
        let mut cut = |_| cuts.borrow_mut().push(disk.power_cut(&mut random));
        let thinned = thin_seeing(&disk, NOW, &goes, &mut cut);
        let has_failed = disk.has_failed();
        assert_eq!(thinned.is_err(), has_failed, "step {nth}");
        judge(&disk.power_cut(&mut Prng::new(nth)));
        judge(&disk);
        cuts.borrow().iter().for_each(&mut judge);
        if !has_failed {
            break;
        }
        nth += 1;
    }
    assert!(nth > 30, "{nth} steps");
    let stages = [(30, 0), (1, 0), (1, 29)];
    assert!(stages.iter().all(|stage| seen.contains(stage)) && seen.len() > 5, "{seen:?}");
}

#[test]
fn every_flipped_bit_of_the_keys_is_found_and_named() {
    let sealed = Sealed::of(5);
    let disk = sealed.again();
    let keys = SegmentKeys::read(&disk, &keys_path()).expect("whole");
    keys.shred(&disk, &[StreamId(12)], NOW).expect("memory");
    let whole = disk.get(&keys_path());
    assert!(check(&disk).is_good() && check(&disk).proven == 4);
    for bit in 0..whole.len() * 8 {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        disk.put(&keys_path(), bad);
        let report = check(&disk);
        let damaged: Vec<u64> =
            report.damaged.iter().map(|damage| damage.source.stream().0).collect();
        match bit / 8 {
            // The head: whoever is still there.
            0..128 => assert_eq!(damaged, [10, 11, 12, 13, 14], "bit {bit}"),
            at @ 128..608 => {
                assert_eq!(damaged, [10 + (at as u64 - 128) / 96], "bit {bit}: {report:?}");
            }
            _ => assert!(!report.faults.is_empty() && damaged.is_empty(), "bit {bit}"),
        }
    }
    for cut in [1, 96, 4_096 - 600, 4_000, 4_096] {
        disk.put(&keys_path(), whole[..whole.len() - cut].to_vec());
        assert!(!check(&disk).is_good(), "cut by {cut}");
    }
    // Without any key of the store the same is found, and nothing is called damaged that may be whole.
    disk.set_store_key(None);
    let mut bad = whole.clone();
    bad[130] ^= 1;
    disk.put(&keys_path(), bad);
    let report = check(&disk);
    assert!(report.damaged.is_empty() && report.unopened.len() == 5, "{report:?}");
    assert!(!report.faults.is_empty());
    disk.remove(&keys_path()).expect("there");
    let faults = check(&disk).faults;
    assert!(faults.iter().any(|fault| fault.contains("not in the store")), "{faults:?}");
}

/// Retention goes on where keys are damaged and nothing of the segment stays; else what is held is more.
#[test]
fn damaged_keys_are_destroyed_with_all_of_their_segment_only() {
    let sealed = Sealed::of(6);
    let damaged = || {
        let disk = sealed.again();
        let mut keys = sealed.keys.clone();
        keys[50] ^= 1;
        disk.put(&keys_path(), keys);
        disk
    };
    let disk = damaged();
    let refused = thin_seeing(&disk, NOW, &|stream| stream != 11, &mut |_| ());
    assert!(matches!(refused, Err(ThinError::Keys { .. })));
    assert!(disk.open_read(&path(NAME.file())).is_ok() && holds(&disk, sealed.traces(11)[1]));
    let disk = damaged();
    thin_seeing(&disk, NOW, &|_| true, &mut |_| ()).expect("memory").expect("all go");
    assert!((10..16).all(|stream| !holds(&disk, sealed.traces(stream)[1])));
    assert!(check(&disk).is_good());
}
