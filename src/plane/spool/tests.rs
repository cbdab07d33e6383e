//! The spool with its memory and its disk in memory: round trips, failures, power cuts.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::{Output, Spool, SpoolConfig};
use crate::base::ids::{Index, Position, SourceId, StreamId, WorkerId};
use crate::base::ports::{Clock, Region};
use crate::base::prng::Prng;
use crate::base::time::{ClockMap, Mono, Wall};
use crate::plane::handoff::frame::Notice;
use crate::plane::handoff::layout::{AT_DURABLE, AT_SEALED, AT_TAIL, Geometry, initialise};
use crate::store::archive::{Archive, Hint, Hints};
use crate::store::event::Event;
use crate::store::evidence::{SigningKey, verify_proof};
use crate::store::log;
use crate::store::record::{self, HEADER_BYTES, RecordKind, RecordMeta, record_bytes};
use crate::store::test_disk::TestDisk;

/// Ring of most tests: wraps often.
const RING_BYTES: u64 = 2 << 20;
const WALL: i64 = 1_767_225_600_000_000_000;
const STORE: &str = "/store";

#[derive(Clone)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl Memory {
    fn new(bytes: usize) -> Self {
        Memory(Rc::new(RefCell::new(vec![0xee; bytes])))
    }
}

impl Region for Memory {
    fn bytes(&self) -> usize {
        self.0.borrow().len()
    }
    fn load(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.0.borrow()[offset..offset + 8].try_into().unwrap())
    }
    fn store(&self, offset: usize, value: u64) {
        self.0.borrow_mut()[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }
    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.0.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    fn copy_out(&self, offset: usize, out: &mut [u8]) {
        out.copy_from_slice(&self.0.borrow()[offset..offset + out.len()]);
    }
}

struct TestClock(Cell<u64>);

impl TestClock {
    fn advance(&self, ms: u64) {
        self.0.set(self.0.get() + ms * 1_000_000);
    }
}

impl Clock for TestClock {
    fn mono(&self) -> Mono {
        Mono(self.0.get())
    }
    fn map(&self) -> ClockMap {
        ClockMap { mono: self.mono(), wall: Wall(WALL + self.0.get() as i64) }
    }
}

/// What stands for a worker and its keeper: memory that outlives a spool, and a writer of records.
struct Bench {
    disk: TestDisk,
    ring_bytes: u64,
    ring: Memory,
    state: Memory,
    clock: TestClock,
    config: SpoolConfig,
    /// What was appended and has not been lost: source → payloads.
    written: BTreeMap<SourceId, Vec<Vec<u8>>>,
    sent: u64,
    notices: Vec<Notice>,
}

type TestSpool = Spool<Memory, Memory, TestDisk>;

fn salt(stream: StreamId) -> [u8; 32] {
    [stream.0 as u8; 32]
}

fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[42; 32]))
}

impl Bench {
    fn new() -> Self {
        Self::on(TestDisk::default())
    }

    /// Fresh memory on a store that may hold something.
    fn on(disk: TestDisk) -> Self {
        Self::with_ring(disk, RING_BYTES)
    }

    fn with_ring(disk: TestDisk, ring_bytes: u64) -> Self {
        let geometry = Geometry { slot_count: 2, ring_bytes };
        let state = Memory::new(geometry.state_bytes());
        let first = log::next_position(&disk, Path::new(STORE), WorkerId(0)).unwrap();
        initialise(&state, 0, &geometry, first.0);
        Bench {
            disk,
            ring_bytes,
            ring: Memory::new(ring_bytes as usize),
            state,
            clock: TestClock(Cell::new(5_000_000_000)),
            config: SpoolConfig {
                store: STORE.into(),
                worker: WorkerId(0),
                volume: [7; 16],
                commit_ms: 100,
                segment_bytes: 400_000,
                segment_ms: 300_000,
            },
            written: BTreeMap::new(),
            sent: 0,
            notices: Vec::new(),
        }
    }

    fn spool(&self) -> TestSpool {
        let mut spool = self.spool_without_salts();
        (1..=600).for_each(|n| spool.set_salt(StreamId(n), salt(StreamId(n))));
        spool
    }

    fn spool_without_salts(&self) -> TestSpool {
        let (ring, state) = (self.ring.clone(), self.state.clone());
        Spool::open(self.config.clone(), ring, state, self.disk.clone(), key(), self.clock.map())
            .unwrap()
    }

    fn free(&self) -> u64 {
        let kept = self.state.load(AT_DURABLE).min(self.state.load(AT_SEALED));
        self.ring_bytes - (self.state.load(AT_TAIL) - kept)
    }

    /// Appends as a worker does; false where the ring is full.
    fn append(&mut self, source: SourceId, kind: RecordKind, payload: &[u8]) -> bool {
        let total = record_bytes(payload.len()) as u64;
        let mut tail = self.state.load(AT_TAIL);
        let left = self.ring_bytes - tail % self.ring_bytes;
        let skip = if total > left { left } else { 0 };
        if self.free() < total + skip {
            return false;
        }
        self.sent += 1;
        let meta = |kind| RecordMeta {
            kind,
            flags: 0,
            generation: 1,
            source,
            index: Index(self.sent),
            arrival: self.clock.mono(),
        };
        if skip >= HEADER_BYTES as u64 {
            let pad = vec![0; skip as usize - HEADER_BYTES];
            let mut bytes = vec![0; skip as usize];
            record::write(&meta(RecordKind::Pad), &pad, &mut bytes);
            self.ring.copy_in((tail % self.ring_bytes) as usize, &bytes);
        }
        tail += skip;
        let mut bytes = vec![0; total as usize];
        record::write(&meta(kind), payload, &mut bytes);
        self.ring.copy_in((tail % self.ring_bytes) as usize, &bytes);
        self.state.store(AT_TAIL, tail + total);
        if !source.stream().is_host() {
            self.written.entry(source).or_default().push(payload.to_vec());
        }
        true
    }

    fn packet(&mut self, stream: u64) -> bool {
        let mut payload = vec![(self.sent % 251) as u8; 172];
        payload[..8].copy_from_slice(&self.sent.to_le_bytes());
        self.append(SourceId::new(StreamId(stream), 1), RecordKind::Rtp, &payload)
    }

    fn turn(&mut self, spool: &mut TestSpool, open: u32) {
        for _ in 0..64 {
            let busy = spool.turn(&self.clock, open).busy;
            while let Some(output) = spool.poll() {
                if let Output::Notice(notice) = output {
                    self.notices.push(notice);
                }
            }
            if !busy {
                break;
            }
        }
    }

    fn settle(&mut self, spool: &mut TestSpool) {
        for _ in 0..400 {
            self.clock.advance(200);
            self.turn(spool, 0);
            if spool.is_settled() {
                return;
            }
        }
        panic!("not settled: {:?}", spool.disk_error());
    }

    fn archive(&self) -> Archive<TestDisk> {
        Archive::open(self.disk.clone(), STORE)
    }

    fn streams(&self) -> BTreeSet<StreamId> {
        self.written.keys().map(|source| source.stream()).collect()
    }

    /// What the reader finds, in its order.
    fn found(&self) -> BTreeMap<SourceId, Vec<Vec<u8>>> {
        let mut found: BTreeMap<SourceId, Vec<Vec<u8>>> = BTreeMap::new();
        let visit = self.archive().visit(&self.streams(), None, &mut |seen| {
            assert!((seen.wall().0 - WALL - seen.record.meta.arrival.0 as i64).abs() <= 100_000);
            found.entry(seen.record.meta.source).or_default().push(seen.record.payload.to_vec());
        });
        assert_eq!(visit.unwrap().damaged, []);
        found
    }

    fn assert_sound(&self) {
        let archive = self.archive();
        let key = key().public_key();
        for name in archive.segments().unwrap() {
            let mut salts = |stream| Some(salt(stream));
            let report = archive.verify_segment(name, None, &mut salts, Some(&key)).unwrap();
            assert!(report.is_good(), "{}: {report:?}", name.file());
        }
        assert_eq!(archive.verify_chain(WorkerId(0), Some(&key)).unwrap().faults, []);
    }
}

#[test]
fn a_wrapping_ring_goes_through_log_and_segments_and_every_record_is_read_once() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    let mut random = Prng::new(7);
    let mut checked = 0;
    for round in 0..12_000_u64 {
        let stream = 1 + random.below(20);
        let bytes = 12 + random.below(600) as usize;
        let source = SourceId::new(StreamId(stream), (round % 3) as u16);
        let kind = if round % 3 == 0 { RecordKind::Rtcp } else { RecordKind::Rtp };
        let payload = vec![(round % 256) as u8; bytes];
        assert!(bench.append(source, kind, &payload), "the spool keeps up");
        if round % 40 == 0 {
            bench.clock.advance(7);
            // One turn only, so that reads fall between all the steps of a seal.
            spool.turn(&bench.clock, 1);
        }
        if round % 1_500 == 0 {
            bench.clock.advance(200);
            spool.commit_now();
            while spool.durable().0 < bench.state.load(AT_TAIL) {
                spool.turn(&bench.clock, 1);
            }
            assert_eq!(bench.found(), bench.written);
            checked += 1;
        }
    }
    assert!(checked > 7 && bench.state.load(AT_TAIL) > 2 * RING_BYTES);
    bench.settle(&mut spool);
    assert_eq!(bench.found(), bench.written);
    assert_eq!(bench.state.load(AT_SEALED), bench.state.load(AT_TAIL));
    assert!(bench.archive().segments().unwrap().len() > 5);
    bench.assert_sound();
    let logs =
        bench.disk.paths().iter().filter(|path| path.extension() == Some("log".as_ref())).count();
    assert!(logs <= 4, "log files are recycled, found {logs}");
}

#[test]
fn nothing_is_called_durable_before_its_sync_and_the_interval_is_kept() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    bench.turn(&mut spool, 1);
    bench.packet(1);
    bench.turn(&mut spool, 1);
    assert_eq!(spool.durable(), Position(0), "before the interval");
    bench.clock.advance(100);
    bench.turn(&mut spool, 1);
    assert_eq!(spool.durable().0, bench.state.load(AT_TAIL));
    let after = Bench { disk: bench.disk.power_cut(&mut Prng::new(1)), ..Bench::new() };
    let after = Bench { written: bench.written.clone(), ..after };
    assert_eq!(after.found(), bench.written);
}

#[test]
fn a_finished_recording_is_sealed_a_second_later_and_the_recorders_own_events_are_not() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    let host = SourceId::new(StreamId::host(WorkerId(0)), 0);
    let clock = Event::Clock { map: bench.clock.map() }.to_payload();
    bench.append(host, RecordKind::Event, &clock);
    bench.clock.advance(5_000);
    bench.turn(&mut spool, 0);
    assert!(bench.notices.is_empty(), "only host events: nothing to hurry for");
    bench.packet(3);
    bench.clock.advance(900);
    bench.turn(&mut spool, 1);
    bench.clock.advance(900);
    bench.turn(&mut spool, 0);
    assert!(bench.notices.is_empty(), "not idle for a second yet");
    bench.clock.advance(1_000);
    bench.turn(&mut spool, 0);
    assert!(
        matches!(&bench.notices[..], [Notice::Sealed { file, .. }] if file == "w0-0000000001.seg")
    );
    bench.assert_sound();
}

#[test]
fn a_requested_seal_is_answered_when_the_segment_is_in_place_and_waits_for_salts() {
    let mut bench = Bench::new();
    let mut spool = bench.spool_without_salts();
    bench.packet(9);
    spool.request_seal();
    let answered = |spool: &mut TestSpool| {
        let mut answered = false;
        while let Some(output) = spool.poll() {
            answered |= output == Output::SealDone;
        }
        answered
    };
    for _ in 0..20 {
        spool.turn(&bench.clock, 1);
    }
    assert!(!answered(&mut spool));
    assert_eq!(spool.waits_for_salt(), Some(StreamId(9)));
    spool.set_salt(StreamId(9), salt(StreamId(9)));
    for _ in 0..20 {
        spool.turn(&bench.clock, 1);
    }
    assert!(answered(&mut spool));
    assert_eq!(bench.archive().segments().unwrap().len(), 1);
    bench.assert_sound();
}

#[test]
fn a_ring_that_fills_for_want_of_a_salt_is_sealed_without_it() {
    let mut bench = Bench::new();
    let mut spool = bench.spool_without_salts();
    for _ in 0..40_000 {
        assert!(bench.packet(1), "the worker is never stopped by a salt");
        if bench.sent.is_multiple_of(100) {
            bench.clock.advance(100);
            bench.turn(&mut spool, 1);
        }
    }
    bench.assert_sound();
}

#[test]
fn f06_a_stream_that_nobody_has_a_salt_for_does_not_hold_up_sealing() {
    let mut bench = Bench::new();
    let mut spool = bench.spool_without_salts();
    bench.packet(9);
    spool.request_seal();
    bench.turn(&mut spool, 1);
    assert_eq!(spool.waits_for_salt(), Some(StreamId(9)));
    spool.no_more_salts();
    bench.settle(&mut spool);
    assert_eq!(bench.archive().segments().unwrap().len(), 1);
    bench.assert_sound();
}

#[test]
fn media_that_died_goes_on_from_the_words_in_shared_memory() {
    // A spool is dropped at every possible turn; its successor has the same memory.
    let mut bench = Bench::new();
    let mut random = Prng::new(3);
    for _ in 0..60 {
        let mut spool = bench.spool();
        for _ in 0..random.below(12) {
            for _ in 0..random.below(900) {
                assert!(bench.packet(1 + random_stream(bench.sent)));
            }
            bench.clock.advance(60);
            spool.turn(&bench.clock, 1);
        }
    }
    let mut spool = bench.spool();
    bench.settle(&mut spool);
    assert_eq!(bench.found(), bench.written);
    bench.assert_sound();
}

fn random_stream(n: u64) -> u64 {
    n % 7
}

#[test]
fn f12_every_single_write_sync_create_and_rename_may_fail_and_nothing_durable_is_lost() {
    let mut nth = 1;
    loop {
        let mut bench = Bench::new();
        let mut spool = bench.spool();
        bench.disk.fail_nth(nth);
        let mut random = Prng::new(nth);
        let mut durable = BTreeMap::new();
        for _ in 0..24 {
            for _ in 0..150 {
                assert!(bench.packet(1 + random_stream(bench.sent)));
            }
            bench.clock.advance(100);
            bench.turn(&mut spool, 1);
            if spool.durable().0 == bench.state.load(AT_TAIL) {
                durable = bench.written.clone();
            }
        }
        // Power cut here: what was called durable must be there, whatever else is.
        let after = Bench::on(bench.disk.power_cut(&mut random));
        let after = Bench { written: durable.clone(), ..after };
        let mut found = BTreeMap::<SourceId, Vec<Vec<u8>>>::new();
        let visit = after.archive().visit(&after.streams(), None, &mut |seen| {
            found.entry(seen.record.meta.source).or_default().push(seen.record.payload.to_vec());
        });
        visit.unwrap();
        for (source, payloads) in &durable {
            let found = &found[source];
            assert!(found.len() >= payloads.len(), "nth {nth}: durable records are missing");
            assert_eq!(&found[..payloads.len()], &payloads[..], "nth {nth}");
            let all = &bench.written[source];
            assert_eq!(&all[..found.len()], &found[..], "nth {nth}: an invalid record was served");
        }
        // Without a power cut everything goes on.
        bench.settle(&mut spool);
        assert_eq!(bench.found(), bench.written, "nth {nth}");
        bench.assert_sound();
        if !bench.disk.has_failed() {
            break;
        }
        let said = bench.notices.iter().filter(|one| matches!(one, Notice::Disk { .. })).count();
        assert!(said == 0 || said == 2, "nth {nth}: trouble and its end are both said");
        nth += 1;
    }
    assert!(nth > 60, "the failures reached {nth} operations");
}

#[test]
fn f11_a_full_disk_is_reported_retried_and_left_behind() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    bench.disk.set_full(true);
    for _ in 0..20 {
        assert!(bench.packet(1));
        bench.clock.advance(100);
        bench.turn(&mut spool, 1);
    }
    assert_eq!(spool.durable(), Position(0));
    assert!(spool.disk_error().is_some());
    bench.disk.set_full(false);
    bench.clock.advance(3_000);
    bench.turn(&mut spool, 1);
    assert_eq!(spool.durable().0, bench.state.load(AT_TAIL));
    let said: Vec<bool> = bench
        .notices
        .iter()
        .filter_map(|one| match one {
            Notice::Disk { error, .. } => Some(error.is_some()),
            _ => None,
        })
        .collect();
    assert_eq!(said, [true, false]);
}

#[test]
fn after_a_power_cut_the_log_is_sealed_and_the_chain_goes_on() {
    for seed in 0..40 {
        let mut random = Prng::new(seed);
        let mut bench = Bench::new();
        let mut spool = bench.spool();
        for _ in 0..random.below(20) {
            for _ in 0..random.below(400) {
                assert!(bench.packet(1 + random_stream(bench.sent)));
            }
            bench.clock.advance(100);
            spool.turn(&bench.clock, 1);
        }
        let durable = spool.durable();
        let mut after = Bench::on(bench.disk.power_cut(&mut random));
        assert!(after.state.load(AT_TAIL) >= durable.0, "positions are never used twice");
        // The clock of another boot.
        after.clock.0.set(1_000_000_000);
        after.sent = bench.sent;
        let mut spool = after.spool();
        for _ in 0..300 {
            assert!(after.packet(2));
        }
        after.settle(&mut spool);
        after.assert_sound();
        let mut found = BTreeMap::<SourceId, Vec<Vec<u8>>>::new();
        let all = (0..8).map(StreamId).collect();
        after
            .archive()
            .visit(&all, None, &mut |seen| {
                assert!(seen.place.segment.is_some(), "all is sealed");
                let source = seen.record.meta.source;
                found.entry(source).or_default().push(seen.record.payload.to_vec());
            })
            .unwrap();
        let second = SourceId::new(StreamId(2), 1);
        let tail = found.get_mut(&second).unwrap();
        let new = tail.split_off(tail.len() - 300);
        assert_eq!(new, after.written[&second], "seed {seed}");
        for (source, found) in found {
            let all = bench.written.get(&source).map_or(&[][..], |all| &all[..]);
            assert_eq!(found, all[..found.len()], "seed {seed}: in order, none invented");
        }
    }
}

#[test]
fn a_damaged_group_is_named_in_the_segment_that_recovery_makes() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    for _ in 0..3 {
        (0..100).for_each(|_| assert!(bench.packet(1)));
        bench.clock.advance(100);
        bench.turn(&mut spool, 1);
    }
    let path = bench.disk.paths().into_iter().find(|path| path.ends_with("00000001.log")).unwrap();
    let scan = log::scan_file(&bench.disk, &path, u64::MAX).unwrap();
    assert_eq!(scan.groups.len(), 3);
    let mut bytes = bench.disk.get(&path);
    bytes[scan.groups[1].offset as usize + 9_000] ^= 1;
    bench.disk.put(&path, bytes);
    let mut after = Bench::on(bench.disk.clone());
    let mut spool = after.spool();
    after.settle(&mut spool);
    after.assert_sound();
    let mut events = Vec::new();
    let mut packets = 0;
    let both = BTreeSet::from([StreamId(1), StreamId::host(WorkerId(0))]);
    after
        .archive()
        .visit(&both, None, &mut |seen| match seen.record.meta.kind {
            RecordKind::Event => events.push(Event::from_payload(seen.record.payload).unwrap()),
            _ => packets += 1,
        })
        .unwrap();
    let group = &scan.groups[1].header;
    assert_eq!(packets, 200);
    assert!(matches!(&events[..], [Event::InDoubt { from, to, .. }]
        if *from == group.first.0 && *to == group.end().0));
}

#[test]
fn a_bad_record_in_the_ring_costs_itself_and_is_named() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    (0..10).for_each(|_| assert!(bench.packet(1)));
    bench.ring.copy_in(208 * 4 + 100, b"!");
    bench.clock.advance(100);
    bench.settle(&mut spool);
    bench.written.values_mut().for_each(|payloads| drop(payloads.remove(4)));
    assert_eq!(bench.found(), bench.written);
    bench.assert_sound();
}

/// 500 streams of 6 s each, read back with a catalogue's hints and without.
#[test]
fn one_stream_of_500_costs_at_most_1_3_times_its_own_rtp_bytes() {
    let mut bench = Bench::with_ring(TestDisk::default(), 80 << 20);
    bench.config.segment_bytes = 256 << 20;
    let mut spool = bench.spool();
    for _ in 0..300 {
        (1..=500).for_each(|stream| assert!(bench.packet(stream)));
        bench.clock.advance(20);
        bench.turn(&mut spool, 500);
    }
    bench.settle(&mut spool);
    let archive = bench.archive();
    assert_eq!(archive.segments().unwrap().len(), 1);
    let source = SourceId::new(StreamId(250), 1);
    let mut hints = Hints::default();
    for name in archive.segments().unwrap() {
        hints.indexed.insert(name);
        let rows = archive.rows(name).unwrap().rows;
        let mine = rows.iter().filter(|row| row.source == source);
        hints.extents.extend(mine.map(|row| Hint {
            segment: name,
            offset: row.offset,
            bytes: row.bytes,
        }));
    }
    for (hints, limit) in [(Some(&hints), 1.25), (None, 1.5)] {
        let mut payload = 0;
        let mut packets = 0;
        let wanted = BTreeSet::from([StreamId(250)]);
        let visit = archive.visit(&wanted, hints, &mut |seen| {
            payload += seen.record.payload.len() as u64;
            packets += 1;
        });
        let visit = visit.unwrap();
        assert_eq!((packets, visit.unsealed), (300, 0));
        let ratio = visit.bytes_read as f64 / payload as f64;
        assert!(ratio <= limit, "{ratio}");
    }
}

#[test]
fn an_export_is_proven_offline() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    (0..50).for_each(|n| assert!(bench.packet(1 + n % 5)));
    bench.settle(&mut spool);
    let archive = bench.archive();
    let name = archive.segments().unwrap()[0];
    let footer = archive.rows(name).unwrap();
    for row in &footer.rows {
        let stream = row.source.stream();
        let proof = archive.proof(name, row.source).unwrap();
        let mut records = archive.extent(name, row).unwrap().records;
        let head = verify_proof(&records, &salt(stream), &proof, &key().public_key());
        assert_eq!(head, Ok(footer.trailer.head));
        records[40] ^= 1;
        assert!(verify_proof(&records, &salt(stream), &proof, &key().public_key()).is_err());
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_segment_is_found() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    (0..6).for_each(|n| assert!(bench.packet(1 + n % 2)));
    bench.settle(&mut spool);
    let archive = bench.archive();
    let name = archive.segments().unwrap()[0];
    let path = archive.path(name);
    let good = bench.disk.get(&path);
    let key = key().public_key();
    let check = |bytes: Vec<u8>| {
        bench.disk.put(&path, bytes);
        archive
            .verify_segment(name, None, &mut |one| Some(salt(one)), Some(&key))
            .unwrap()
            .is_good()
    };
    assert!(check(good.clone()));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!check(bad), "bit {bit}");
    }
    for cut in 0..good.len() {
        assert!(!check(good[..cut].to_vec()), "cut at {cut}");
    }
}

#[test]
fn a_missing_a_renamed_and_a_foreign_segment_break_the_chain() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    for _ in 0..4 {
        (0..20).for_each(|_| assert!(bench.packet(1)));
        bench.settle(&mut spool);
    }
    let archive = bench.archive();
    let names = archive.segments().unwrap();
    assert_eq!(names.len(), 4);
    let key = key().public_key();
    let faults = || archive.verify_chain(WorkerId(0), Some(&key)).unwrap().faults;
    assert_eq!(faults(), []);
    let second = bench.disk.get(&archive.path(names[1]));
    let third = bench.disk.get(&archive.path(names[2]));
    bench.disk.put(&archive.path(names[1]), third);
    assert!(faults().iter().any(|fault| fault.segment == names[1]));
    bench.disk.put(&archive.path(names[1]), second);
    assert_eq!(faults(), []);
    crate::base::ports::Disk::remove(&bench.disk, &archive.path(names[1])).unwrap();
    assert_eq!(faults()[0].segment, names[1]);
    let other = SigningKey::from_seed(&[1; 32]).public_key();
    assert_eq!(archive.verify_chain(WorkerId(0), Some(&other)).unwrap().faults.len(), 4);
}

#[test]
fn every_cut_and_every_flipped_bit_of_a_log_leaves_a_prefix_or_names_the_damage() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    for _ in 0..3 {
        (0..3).for_each(|_| assert!(bench.packet(1)));
        bench.clock.advance(100);
        bench.turn(&mut spool, 1);
    }
    let path = bench.disk.paths().into_iter().find(|path| path.ends_with("00000001.log")).unwrap();
    let scan = log::scan_file(&bench.disk, &path, u64::MAX).unwrap();
    let mut good = bench.disk.get(&path);
    good.truncate(scan.end as usize + 4_096);
    let all = bench.written[&SourceId::new(StreamId(1), 1)].clone();
    let read = |bytes: Vec<u8>| {
        bench.disk.put(&path, bytes);
        let mut found = Vec::new();
        let wanted = BTreeSet::from([StreamId(1)]);
        let visit = bench
            .archive()
            .visit(&wanted, None, &mut |seen| found.push(seen.record.payload.to_vec()))
            .unwrap();
        (found, visit.damaged.len(), visit.damaged.iter().any(|damaged| damaged.torn))
    };
    assert_eq!(read(good.clone()), (all.clone(), 0, false));
    for cut in (0..good.len()).step_by(7) {
        let (found, ..) = read(good[..cut].to_vec());
        assert_eq!(found, all[..found.len()], "cut at {cut}");
    }
    let payload_of = |group: &log::Found| {
        let start = group.offset as usize + log::GROUP_HEADER_BYTES;
        start..start + group.header.bytes as usize
    };
    for bit in (0..scan.end as usize * 8).step_by(3) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let (found, damaged, torn) = read(bad);
        assert!(found.iter().all(|payload| all.contains(payload)), "bit {bit}");
        let hit = scan.groups.iter().any(|group| payload_of(group).contains(&(bit / 8)));
        assert!(!hit || (damaged == 1 && found.len() == 6), "bit {bit}: silent loss");
        // F10: only of the last group nobody can tell whether it was ever durable.
        let last = scan.groups.last().is_some_and(|last| payload_of(last).contains(&(bit / 8)));
        assert_eq!(torn, last, "bit {bit}");
    }
}
