//! Thinned segments: what stays is what it was, what is gone is told, and nothing else changes.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::base::ids::{Index, Position, SourceId, StreamId, WorkerId};
use crate::base::ports::{Disk, DiskFile};
use crate::base::prng::Prng;
use crate::base::time::{ClockMap, Mono, Wall};
use crate::store::evidence::{Hex, KeyFields, Keys, Salt, Signers, SigningKey};
use crate::store::record::{self, RecordKind, RecordMeta};
use crate::store::test_disk::TestDisk;

pub(super) const SALT: Salt = [3; 32];
pub(super) const NAME: SegmentName = SegmentName { worker: WorkerId(1), number: 7 };
pub(super) const NOW: Wall = Wall(1_800_000_000_000_000_000);

pub(super) fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

pub(super) fn store() -> &'static Path {
    Path::new("/store")
}

pub(super) fn path(file: String) -> PathBuf {
    folder(store()).join(file)
}

/// A segment of `sources` sources, a few records each.
fn sealed(sources: u64) -> Vec<u8> {
    let (ring, facts, span) = contents(sources);
    let emitter = Emitter::new(facts, span, |_| Some(SALT)).expect("all salts are known");
    emitter.all(&key(), &mut copy_of(&ring)).expect("memory")
}

/// What copies out of `ring`.
pub(super) fn copy_of(ring: &[u8]) -> impl FnMut(Position, &mut [u8]) -> std::io::Result<()> {
    |at, out| {
        out.copy_from_slice(&ring[at.0 as usize..at.0 as usize + out.len()]);
        Ok(())
    }
}

/// What a segment of `sources` sources holds: the ring, and what stands where in it.
pub(super) fn contents(sources: u64) -> (Vec<u8>, SegmentFacts, Span) {
    let mut ring = Vec::new();
    let mut span = Span::new(Position(0));
    span.add_clock(ClockMap { mono: Mono(0), wall: Wall(1_700_000_000_000_000_000) });
    for number in 0..sources * 3 {
        let meta = RecordMeta {
            kind: RecordKind::Rtp,
            flags: 0,
            generation: 1,
            source: SourceId::new(StreamId(10 + number % sources), 1),
            index: Index(number / sources),
            arrival: Mono(1_000 * number),
        };
        let payload = vec![number as u8; 40 + number as usize % 50];
        let mut bytes = vec![0; record::record_bytes(payload.len())];
        record::write(&meta, &payload, &mut bytes);
        span.add(Position(ring.len() as u64), &record::read(&bytes).expect("just written"));
        ring.extend_from_slice(&bytes);
    }
    span.through = Position(ring.len() as u64);
    let facts = SegmentFacts {
        worker: NAME.worker,
        volume: [6; 16],
        number: NAME.number,
        created: Wall(1_700_000_001_000_000_000),
        previous: [1; 32],
        packed: true,
    };
    (ring, facts, span)
}

fn disk_with(segment: Vec<u8>) -> TestDisk {
    let disk = TestDisk::default();
    disk.put(&path(NAME.file()), segment);
    disk
}

/// Thins by the streams that go: class "short", class "other" from stream 20 on.
fn thin(disk: &TestDisk, goes: &dyn Fn(u64) -> bool) -> Result<Option<ThinReport>, ThinError> {
    thin_seeing(disk, NOW, goes, &mut |_| ())
}

pub(super) fn thin_seeing(
    disk: &TestDisk,
    now: Wall,
    goes: &dyn Fn(u64) -> bool,
    wait: &mut dyn FnMut(u64),
) -> Result<Option<ThinReport>, ThinError> {
    let key = key();
    let fate = |row: &Row| {
        let stream = row.source.stream().0;
        goes(stream).then(|| if stream < 20 { "short" } else { "other" }.to_owned())
    };
    Thinning { now, audit: 5, key: &key }.run(disk, store(), NAME, &fate, wait)
}

fn open(disk: &TestDisk) -> SegmentFile<<TestDisk as Disk>::File> {
    open_segment(disk, store(), NAME).expect("memory")
}

fn check<F: DiskFile>(file: &SegmentFile<F>) -> SegmentReport {
    file.verify(None, &mut |_| Some(SALT), Some(&Signers::one(key().public_key())), None)
}

/// What `disk` has says: these streams are here, byte for byte as in `whole`, the others are gone.
fn assert_holds(disk: &TestDisk, whole: &[u8], stays: &dyn Fn(u64) -> bool) {
    let before = disk_with(whole.to_vec());
    let before = open(&before);
    let after = open(disk);
    let report = check(&after);
    assert!(report.is_good(), "{:?} {:?}", report.faults, report.damaged);
    let footer = read_footer(&before, read_trailer(&before).expect("whole")).expect("whole");
    assert_eq!(read_footer(&after, read_trailer(&after).expect("kept")).expect("kept"), footer);
    for row in &footer.rows {
        let extent = read_extent(&after, row.offset, row.bytes);
        if stays(row.source.stream().0) {
            let own = read_extent(&before, row.offset, row.bytes).expect("whole");
            assert_eq!(extent.expect("it stays").records, own.records);
            assert_eq!(
                find_ways(&after, &report.trailer.clone().expect("read"), &[row.source])
                    .expect("kept"),
                find_ways(&before, &footer.trailer, &[row.source]).expect("whole"),
            );
        } else {
            let error = extent.err().expect("it is gone");
            assert!(error.gone().is_some(), "{error}");
            assert!(report.gone.iter().any(|(source, _)| *source == row.source));
        }
    }
    let here = footer.rows.iter().filter(|row| stays(row.source.stream().0)).count();
    assert_eq!((report.proven, report.gone.len()), (here as u64, footer.rows.len() - here));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any rows may stay; in a second go more of them leave, and what left first keeps its date.
    #[test]
    fn what_stays_is_what_it_was(
        first in proptest::collection::vec(any::<bool>(), 90),
        second in proptest::collection::vec(any::<bool>(), 90),
        sources in 1_u64..90,
    ) {
        let whole = sealed(sources);
        let disk = disk_with(whole.clone());
        let goes = |stream: u64| first[stream as usize - 10];
        let report = thin(&disk, &goes).expect("a disk in memory");
        let any = (10..10 + sources).any(goes);
        prop_assert_eq!(report.is_some(), any);
        prop_assert_eq!(disk.paths().len(), 1);
        assert_holds(&disk, &whole, &|stream| !goes(stream));
        let later = Wall(NOW.0 + 1);
        let both = |stream: u64| second[stream as usize - 10];
        let again = thin_seeing(&disk, later, &both, &mut |_| ()).expect("a disk in memory");
        let fresh = (10..10 + sources).filter(|stream| both(*stream) && !goes(*stream)).count();
        prop_assert_eq!(again.map_or(0, |report| report.gone), fresh as u64);
        assert_holds(&disk, &whole, &|stream| !goes(stream) && !both(stream));
        for (source, gone) in check(&open(&disk)).gone {
            let stream = source.stream().0;
            prop_assert_eq!(gone.since, if goes(stream) { NOW } else { later });
            prop_assert_eq!(gone.rule, if stream < 20 { "short" } else { "other" });
        }
    }
}

#[test]
fn a_segment_of_which_nothing_stays_is_small_and_says_all() {
    let whole = sealed(200);
    let disk = disk_with(whole.clone());
    let report = thin(&disk, &|_| true).expect("a disk in memory").expect("all goes");
    assert_eq!((report.gone, report.kept, report.bytes.0), (200, 0, whole.len() as u64));
    let bytes = disk.get(&path(NAME.thinned_file())).len() as u64;
    assert_eq!(report.bytes.1, bytes);
    assert!(bytes < 200 * 180 + 8_192, "{bytes}");
    assert_holds(&disk, &whole, &|_| false);
    assert!(list(&disk, store()).expect("memory") == [NAME]);
    let (highest, trailer) = last_segment(&disk, store(), NAME.worker).expect("memory");
    assert_eq!((highest, trailer.map(|trailer| trailer.number)), (7, Some(7)));
}

/// Nothing of the file may be other than it was written.
#[test]
fn every_flipped_byte_is_found() {
    let disk = disk_with(sealed(9));
    thin(&disk, &|stream| stream % 2 == 0).expect("a disk in memory").expect("some go");
    let good = disk.get(&path(NAME.thinned_file()));
    assert!(check(&open(&disk)).is_good());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        disk.put(&path(NAME.thinned_file()), bad);
        assert!(!check(&open(&disk)).is_good(), "byte {at} of {}", good.len());
    }
    for cut in [1, 512, 4_096, good.len() - 1] {
        disk.put(&path(NAME.thinned_file()), good[..good.len() - cut].to_vec());
        assert!(!check(&open(&disk)).is_good(), "cut by {cut}");
        // One that is damaged is not one that cannot be read: others count.
        assert!(last_segment(&disk, store(), NAME.worker).expect("readable").1.is_none());
    }
}

/// Who has the key of another store, or none, cannot take an extent away.
#[test]
fn what_is_said_to_be_gone_is_signed() {
    let disk = disk_with(sealed(9));
    let other = SigningKey::from_seed(&[8; 32]);
    let thinning = Thinning { now: NOW, audit: 0, key: &other };
    let thinned = thinning.run(&disk, store(), NAME, &|_| Some("short".to_owned()), &mut |_| ());
    thinned.expect("a disk in memory").expect("all go");
    let faults = check(&open(&disk)).faults;
    assert!(faults.iter().any(|fault| fault.contains("another key")), "{faults:?}");
}

/// What was sealed before the key was changed goes afterwards, too.
#[test]
fn a_key_that_followed_signs_what_is_gone_of_earlier_segments() {
    let disk = disk_with(sealed(9));
    let next = SigningKey::from_seed(&[8; 32]);
    let statement = |number, of: &SigningKey, first: Option<u64>| {
        let from = first.map(|first| (NAME.worker.0, first)).into_iter().collect();
        let (public_key, volume) = (Hex(of.public_key()), "v".to_owned());
        KeyFields { number, public_key, volume, at: NOW, from }.sign(&key())
    };
    let statements = [statement(1, &key(), None), statement(2, &next, Some(NAME.number + 1))];
    let keys = Keys::of(&statements).expect("a list");
    let thinning = Thinning { now: NOW, audit: 0, key: &next };
    let thinned = thinning.run(&disk, store(), NAME, &|_| Some("short".to_owned()), &mut |_| ());
    thinned.expect("a disk in memory").expect("all go");
    let report = |signers: &Signers| open(&disk).verify(None, &mut |_| None, Some(signers), None);
    let good = report(&keys.signers(NAME.worker.0, NAME.number));
    assert!(good.is_good(), "{:?}", good.faults);
    // The other way round nobody vouches for it.
    assert!(!report(&Signers::one(next.public_key())).is_good());
    let before = keys.signers(NAME.worker.0, NAME.number + 1);
    assert!(!before.may_thin(&key().public_key()), "it was destroyed by then");
}

/// A power cut after any step, and any step that fails: the whole one or the thinned one is there, and
/// it can be thinned afterwards.
#[test]
fn at_every_instant_the_segment_is_there() {
    let whole = sealed(30);
    let goes = |stream: u64| stream != 17;
    let mut random = Prng::new(0x5eed_0601);
    let after = |disk: &TestDisk| {
        let is_whole = matches!(open(disk), SegmentFile::Whole(_));
        assert_holds(disk, &whole, &|stream| is_whole || !goes(stream));
        withdraw(disk, store(), NAME).expect("memory");
        thin(disk, &goes).expect("a disk in memory");
        assert_holds(disk, &whole, &|stream| !goes(stream));
        assert_eq!(disk.paths(), [path(NAME.thinned_file())]);
    };
    let disk = disk_with(whole.clone());
    let mut cuts = Vec::new();
    let report = thin_seeing(&disk, NOW, &goes, &mut |_| cuts.push(disk.power_cut(&mut random)));
    report.expect("a disk in memory").expect("most go");
    assert!(cuts.len() > 5, "{}", cuts.len());
    // The last one is between the two names: both are there, and the whole one counts.
    let both = cuts.last().expect("some").paths();
    assert_eq!(both, [path(NAME.thinned_file()), path(NAME.file())]);
    cuts.iter().for_each(after);
    let mut failed = 0;
    for nth in 1.. {
        let disk = disk_with(whole.clone());
        disk.fail_nth(nth);
        let result = thin(&disk, &goes);
        if !disk.has_failed() {
            break;
        }
        assert!(result.is_err(), "step {nth}");
        failed += 1;
        after(&disk);
    }
    assert!(failed > 5, "{failed}");
}
