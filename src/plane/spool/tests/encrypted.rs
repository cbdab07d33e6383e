//! Segments under keys: failures, kills and power cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::bench::{Bench, key, random_stream, salt};
use crate::base::ids::{SourceId, StreamId};
use crate::base::ports::{Disk, DiskFile, Region};
use crate::base::prng::Prng;
use crate::plane::handoff::layout::AT_TAIL;
use crate::store::cipher::{Fresh, ReadKeys, Secret, WriteKeys};
use crate::store::test_disk::TestDisk;

/// One secret for each stream; notes what it gave out, over all lives of the recorder.
#[derive(Default)]
struct Provider {
    given: Mutex<Vec<Fresh>>,
    /// Streams whose secret is not known yet.
    unknown: Mutex<BTreeSet<StreamId>>,
}

impl WriteKeys for Provider {
    fn current(&self, stream: StreamId) -> Option<(u32, Secret)> {
        let known = !self.unknown.lock().unwrap().contains(&stream);
        known.then(|| (1, Secret::new([stream.0 as u8; 32].into())))
    }

    fn fresh(&self) -> Fresh {
        let mut given = self.given.lock().unwrap();
        let mut fresh = [0x55; 16];
        fresh[..8].copy_from_slice(&(given.len() as u64).to_be_bytes());
        given.push(fresh);
        fresh
    }
}

impl ReadKeys for Provider {
    fn secret(&self, stream: StreamId, _: u32) -> Option<Secret> {
        Some(Secret::new([stream.0 as u8; 32].into()))
    }
}

/// Nonces of the extents in a file that is a segment or was to become one, as far as it got.
fn nonces(bytes: &[u8]) -> Vec<Fresh> {
    let starts = bytes.windows(8).enumerate().filter(|(_, window)| *window == b"FTEXTNT1");
    starts.filter_map(|(at, _)| bytes.get(at + 24..at + 40)?.first_chunk().copied()).collect()
}

fn found(bench: &Bench, provider: &Arc<Provider>) -> BTreeMap<SourceId, Vec<Vec<u8>>> {
    let mut archive = bench.archive();
    archive.open_with(provider.clone());
    let mut found: BTreeMap<SourceId, Vec<Vec<u8>>> = BTreeMap::new();
    let visit = archive.visit(&bench.streams(), None, &mut |seen| {
        found.entry(seen.record.meta.source).or_default().push(seen.record.payload.to_vec());
    });
    assert_eq!(visit.unwrap().damaged, []);
    for name in archive.segments().unwrap() {
        let key = key().public_key();
        let report = archive.verify_segment(name, None, &mut |one| Some(salt(one)), Some(&key));
        let report = report.unwrap();
        assert!(report.is_good() && report.unopened.is_empty(), "{}: {report:?}", name.file());
    }
    found
}

/// Each call of the disk fails once; then media dies, or the power does. Every file that ever held an
/// extent is looked at as it was when the recorder died, and when all was sealed again.
#[test]
fn failures_kills_and_power_cuts_lose_nothing_and_no_key_is_used_twice() {
    let mut nth = 1;
    loop {
        let provider = Arc::new(Provider::default());
        let mut bench = Bench::new();
        bench.config.segment_bytes = 100_000;
        let mut spool = bench.spool();
        spool.encrypt(provider.clone());
        bench.disk.fail_nth(nth);
        let mut seen: BTreeMap<Fresh, Vec<u8>> = BTreeMap::new();
        let mut look = |disk: &TestDisk| {
            let segments = |path: &PathBuf| path.starts_with("/store/segments");
            for path in disk.paths().into_iter().filter(segments) {
                let bytes = disk.get(&path);
                for nonce in nonces(&bytes) {
                    let at = bytes.windows(16).position(|window| window == nonce).unwrap();
                    // The first chunk under that key: whoever writes it again writes the same.
                    let chunk = bytes[at..].iter().copied().skip(104).take(200).collect();
                    let before = seen.entry(nonce).or_insert_with(|| Vec::clone(&chunk));
                    // What is not there yet is zeros.
                    let written = chunk
                        .iter()
                        .zip(before.iter())
                        .all(|(now, then)| now == then || *now == 0 || *then == 0);
                    assert!(written, "nth {nth}: one key, two texts");
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
                spool.encrypt(provider.clone());
            }
            bench.turn(&mut spool, 1);
            look(&bench.disk);
        }
        let durable = spool.durable().0 == bench.state.load(AT_TAIL);
        if durable && nth % 3 == 0 {
            let mut after = Bench::on(bench.disk.power_cut(&mut Prng::new(nth)));
            after.written = bench.written.clone();
            after.clock.0.set(90_000_000_000);
            let mut spool = after.spool();
            spool.encrypt(provider.clone());
            after.settle(&mut spool);
            look(&after.disk);
            assert!(found(&after, &provider) == after.written, "nth {nth}");
        }
        bench.settle(&mut spool);
        look(&bench.disk);
        assert!(found(&bench, &provider) == bench.written, "nth {nth}");
        let given = provider.given.lock().unwrap();
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len());
        assert!(seen.keys().all(|nonce| given.contains(nonce)), "nth {nth}: a nonce of nobody's");
        if !bench.disk.has_failed() {
            break;
        }
        nth += 1;
    }
    assert!(nth > 40, "the failures reached {nth} operations");
}

#[test]
fn no_segment_holds_what_was_said_and_one_without_its_secret_waits() {
    let provider = Arc::new(Provider::default());
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    spool.encrypt(provider.clone());
    provider.unknown.lock().unwrap().insert(StreamId(2));
    let mut payload = vec![0x80; 12];
    (0..20).for_each(|_| payload.extend_from_slice(b"nobody else's business"));
    for stream in [1, 2] {
        let source = SourceId::new(StreamId(stream), 1);
        assert!(bench.append(source, crate::store::record::RecordKind::Rtp, &payload));
    }
    for _ in 0..20 {
        bench.clock.advance(200);
        bench.turn(&mut spool, 0);
    }
    assert_eq!(spool.waits_for_salt(), Some(StreamId(2)));
    assert!(bench.disk.list(Path::new("/store/segments")).unwrap().is_empty());
    provider.unknown.lock().unwrap().clear();
    bench.settle(&mut spool);
    assert_eq!(found(&bench, &provider), bench.written);
    for name in bench.archive().segments().unwrap() {
        let file = bench.disk.open_read(&bench.archive().path(name)).unwrap();
        let mut bytes = vec![0; file.bytes().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        assert!(!bytes.windows(11).any(|window| window == b"nobody else"));
    }
    // Whoever has no key is told so, and not of damage to the segment.
    let visit = bench.archive().visit(&bench.streams(), None, &mut |_| panic!("in the clear"));
    assert!(visit.unwrap().damaged.iter().all(|one| one.why.contains("encrypted")));
}
