//! Segments under keys: failures, kills and power cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::bench::{Bench, SPARE, random_stream, salt};
use crate::base::ids::{SourceId, StreamId, WorkerId};
use crate::base::ports::{Disk, Region};
use crate::base::prng::Prng;
use crate::plane::handoff::layout::AT_TAIL;
use crate::store::cipher::{ChunkKey, FRESH_BYTES};
use crate::store::keys::{KeyError, SegmentKeys, Wraps, path_of};
use crate::store::record::RecordKind;
use crate::store::segment::{EXTENT_HEADER_BYTES, EXTENT_MAGIC, ExtentHeader, destroy_stray_keys};
use crate::store::test_disk::TestDisk;

fn encrypted() -> TestDisk {
    let disk = TestDisk::default();
    disk.set_store_key(Some(1));
    disk
}

/// Segments and what was to become one.
fn segments(disk: &TestDisk) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.to_string_lossy().contains(".seg");
    disk.paths().into_iter().filter(is_one).collect()
}

/// By which a key is known again: the tag of nothing, under a number that no chunk has.
type Mark = [u8; 16];

/// The extents of a file as far as it got: by which key each is encrypted, and how it begins.
fn extents(disk: &TestDisk, path: &Path) -> Vec<(Mark, Vec<u8>)> {
    let bytes = disk.get(path);
    let starts = bytes.windows(8).enumerate().filter(|(_, window)| *window == EXTENT_MAGIC);
    let headers = starts.filter_map(|(at, _)| Some((at, ExtentHeader::parse(&bytes[at..])?)));
    let wraps = Wraps::of(disk).unwrap();
    let mut found = Vec::new();
    for (at, header) in headers {
        assert_eq!((header.cipher, header.store_key), (1, 1), "in the clear");
        let segment = path.to_string_lossy().replace(".tmp", "");
        let keys = SegmentKeys::read(disk, &path_of(Path::new(&segment))).unwrap();
        let secret = keys.secret(header.source.stream(), &wraps).unwrap();
        let key = ChunkKey::of_extent(&secret, WorkerId(0), header.number, &header.nonce);
        let begins = bytes[at + EXTENT_HEADER_BYTES..].iter().copied().take(400).collect();
        found.push((key.seal(u64::MAX, b"", &mut []), begins));
    }
    found
}

/// What is there of each source; nothing is damaged.
fn found(bench: &Bench) -> BTreeMap<SourceId, Vec<Vec<u8>>> {
    bench.assert_sound();
    let archive = bench.archive();
    for name in archive.segments().unwrap() {
        let report = archive.verify_segment(name, None, &mut |one| Some(salt(one)), None).unwrap();
        assert!(report.proven > 0 && report.unopened.is_empty(), "{}", name.file());
    }
    bench.found()
}

/// Each call of the disk fails once; then media dies, or the power does. Every file that ever held an
/// extent is looked at after each turn, also those of attempts that came to nothing.
#[test]
fn failures_kills_and_power_cuts_lose_nothing_and_no_key_is_used_twice() {
    let (mut nth, mut dead) = (1, 0);
    loop {
        let mut bench = match nth % 2 {
            0 => Bench::on(encrypted()),
            _ => Bench::spared(encrypted()),
        };
        bench.config.segment_bytes = 100_000;
        let mut spool = bench.spool();
        bench.disk.fail_nth(nth);
        let mut seen: BTreeMap<Mark, Vec<u8>> = BTreeMap::new();
        let mut look = |disk: &TestDisk| {
            for path in segments(disk) {
                for (mark, begins) in extents(disk, &path) {
                    let before = seen.entry(mark).or_insert_with(|| begins.clone());
                    // What is not there yet is zeros.
                    let mut pairs = begins.iter().zip(&*before);
                    let is_same = pairs.all(|(now, then)| now == then || *now == 0 || *then == 0);
                    assert!(is_same, "nth {nth}: one key, two texts");
                }
            }
        };
        for round in 0..16 {
            for _ in 0..120 {
                assert!(bench.packet(1 + random_stream(bench.sent)));
            }
            bench.clock.advance(100);
            if round == 8 {
                // Killed in the middle of a segment, perhaps.
                spool.turn(&bench.clock, 1);
                look(&bench.disk);
                spool = bench.spool();
            }
            bench.turn_seeing(&mut spool, 1, &mut look);
        }
        let durable = spool.durable().0 == bench.state.load(AT_TAIL);
        if durable && nth % 3 == 0 {
            let disk = bench.disk.power_cut(&mut Prng::new(nth));
            let mut after = if nth % 2 == 0 { Bench::on(disk) } else { Bench::spared(disk) };
            after.written = bench.written.clone();
            after.random = bench.random.clone();
            after.config = bench.config.clone();
            after.clock.0.set(90_000_000_000);
            let mut spool = after.spool();
            after.turn_seeing(&mut spool, 0, &mut look);
            after.settle(&mut spool);
            look(&after.disk);
            assert!(found(&after) == after.written, "nth {nth}");
        }
        for _ in 0..20 {
            bench.clock.advance(200);
            bench.turn_seeing(&mut spool, 0, &mut look);
        }
        bench.settle(&mut spool);
        assert!(found(&bench) == bench.written, "nth {nth}");
        let archive = bench.archive();
        let rows = |name| archive.rows(name).unwrap().rows.len();
        dead += seen.len() - archive.segments().unwrap().into_iter().map(rows).sum::<usize>();
        let given = bench.random.given();
        // Secrets of 32 octets, those of each extent of 16, nonces of 12 under the store's key.
        assert!(given.iter().all(|one| [32, FRESH_BYTES, 12].contains(&one.len())));
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len(), "nth {nth}");
        if !bench.disk.has_failed() {
            break;
        }
        nth += 1;
    }
    assert!(nth > 60, "the failures reached {nth} operations");
    assert!(dead > 50, "of attempts that came to nothing {dead} extents were seen");
}

#[test]
fn no_segment_holds_what_was_said_and_each_has_its_keys_beside_it() {
    let mut bench = Bench::on(encrypted());
    let mut spool = bench.spool();
    let mut payload = vec![0x80; 12];
    (0..20).for_each(|_| payload.extend_from_slice(b"nobody else's business"));
    for stream in [1, 2] {
        let source = SourceId::new(StreamId(stream), 1);
        assert!(bench.append(source, RecordKind::Rtp, &payload));
    }
    bench.settle(&mut spool);
    assert_eq!(found(&bench), bench.written);
    let paths = segments(&bench.disk);
    assert!(!paths.is_empty());
    for path in paths {
        let bytes = bench.disk.get(&path);
        assert!(!bytes.windows(11).any(|window| window == b"nobody else"));
        assert!(SegmentKeys::read(&bench.disk, &path_of(&path)).is_ok());
    }
    // Whoever has no key is told so, and not of damage to the segment; another store's is told from none.
    for (store_key, why) in [(None, "its key is not there"), (Some(2), "the key of stream")] {
        bench.disk.set_store_key(store_key);
        let visit = bench.archive().visit(&bench.streams(), None, &mut |_| panic!("opened"));
        let damaged = visit.unwrap().damaged;
        assert!(
            damaged.len() == 2 && damaged.iter().all(|one| one.why.contains(why)),
            "{damaged:?}"
        );
        for name in bench.archive().segments().unwrap() {
            let report = bench.archive().verify_segment(name, None, &mut |_| None, None).unwrap();
            assert_eq!(
                (report.is_good(), report.unopened.is_empty()),
                match store_key {
                    None => (true, false),
                    Some(_) => (false, true),
                }
            );
        }
    }
}

/// A store that was encrypted later, and one whose spare folder was needed.
#[test]
fn clear_and_encrypted_segments_read_as_one_and_keys_that_were_left_behind_are_destroyed() {
    let disk = TestDisk::default();
    let mut bench = Bench::spared(disk.clone());
    bench.config.segment_bytes = 60_000;
    let round = |bench: &mut Bench| {
        let mut spool = bench.spool();
        (0..600).for_each(|_| assert!(bench.packet(1 + random_stream(bench.sent))));
        bench.settle(&mut spool);
        assert_eq!(bench.found(), bench.written);
        bench.assert_sound();
    };
    round(&mut bench);
    disk.set_store_key(Some(1));
    round(&mut bench);
    // Its keys are there, and it is not.
    let name = *bench.archive().segments().unwrap().last().unwrap();
    disk.set_full_at(Path::new("/store/segments"), true);
    round(&mut bench);
    disk.set_full_at(Path::new("/store/segments"), false);
    round(&mut bench);
    let stray = |disk: &TestDisk| {
        let keys = |path: &PathBuf| path.extension().is_some_and(|found| found == "keys");
        let beside = |path: &PathBuf| disk.open(&path.with_extension("seg")).is_ok();
        disk.paths().into_iter().filter(|path| keys(path) && !beside(path)).count()
    };
    let folder = Path::new("/store/segments");
    let moved = path_of(&folder.join(name.file()));
    disk.put(&path_of(&Path::new(SPARE).join("segments").join(name.file())), disk.get(&moved));
    assert_eq!(stray(&disk), 1);
    for root in ["/store", SPARE] {
        destroy_stray_keys(&bench.places(), Path::new("/store"), Path::new(root)).unwrap();
    }
    assert_eq!(stray(&disk), 0);
    bench.assert_sound();
    assert_eq!(bench.found(), bench.written);
    // Keys of a segment that is gone altogether stay: it may come back.
    let segment = folder.join(name.file());
    let whole = disk.get(&segment);
    disk.remove(&segment).unwrap();
    destroy_stray_keys(&bench.places(), Path::new("/store"), Path::new("/store")).unwrap();
    assert!(disk.open(&moved).is_ok());
    disk.put(&segment, whole);
    bench.assert_sound();
    // Without its keys it is damaged, and says so.
    disk.remove(&moved).unwrap();
    let row = bench.archive().rows(name).unwrap().rows[0];
    let error = bench.archive().extent(name, &row).err().expect("no keys").to_string();
    assert!(error.contains("not in the store"), "{error}");
    let missing = SegmentKeys::read(&disk, &moved);
    assert!(matches!(missing, Err(KeyError::Missing { .. })));
}
