//! What stands for a worker, keeper and readers around a spool.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use crate::base::ids::{Index, SourceId, StreamId, WorkerId};
use crate::base::ports::{Clock, Disk, Entropy, Region};
use crate::base::prng::Prng;
use crate::base::time::{ClockMap, Mono, Wall};
use crate::plane::handoff::frame::Notice;
use crate::plane::handoff::layout::{AT_DURABLE, AT_SEALED, AT_TAIL, Geometry, initialise};
use crate::plane::spool::{Output, Spool, SpoolConfig, SpoolError, first_position};
use crate::store::archive::Archive;
use crate::store::evidence::{Keys, Signers, SigningKey};
use crate::store::keys::{KeyMaker, Wraps};
use crate::store::log;
use crate::store::places::{Places, Root};
use crate::store::record::{self, HEADER_BYTES, RecordKind, RecordMeta, record_bytes};
use crate::store::test_disk::TestDisk;

/// Ring of most tests: wraps often.
pub(super) const RING_BYTES: u64 = 2 << 20;
pub(super) const WALL: i64 = 1_767_225_600_000_000_000;
pub(super) const STORE: &str = "/store";
pub(super) const SPARE: &str = "/spare";

#[derive(Clone)]
pub(super) struct Memory(Rc<RefCell<Vec<u8>>>);

impl Memory {
    pub(super) fn new(bytes: usize) -> Self {
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

pub(super) struct TestClock(pub(super) Cell<u64>);

impl TestClock {
    pub(super) fn advance(&self, ms: u64) {
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

/// Random octets; notes what it gave out, over all lives of the recorder.
pub(super) struct Random(Mutex<(Prng, Vec<Vec<u8>>)>);

impl Random {
    pub(super) fn given(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().1.clone()
    }
}

impl Default for Random {
    fn default() -> Self {
        Random(Mutex::new((Prng::new(0x5ea1), Vec::new())))
    }
}

impl Entropy for Random {
    fn fill(&self, out: &mut [u8]) {
        let mut random = self.0.lock().unwrap();
        random.0.fill(out);
        random.1.push(out.to_vec());
    }
}

/// What stands for a worker and its keeper: memory that outlives a spool, and a writer of records.
pub(super) struct Bench<D: Disk + Clone = TestDisk> {
    pub(super) disk: D,
    pub(super) ring_bytes: u64,
    pub(super) ring: Memory,
    pub(super) state: Memory,
    pub(super) clock: TestClock,
    pub(super) config: SpoolConfig,
    /// What was appended and has not been lost: source → payloads.
    pub(super) written: BTreeMap<SourceId, Vec<Vec<u8>>>,
    pub(super) sent: u64,
    pub(super) notices: Vec<Notice>,
    pub(super) random: Arc<Random>,
}

pub(super) type TestSpool<D = TestDisk> = Spool<Memory, Memory, D>;

pub(super) fn salt(stream: StreamId) -> [u8; 32] {
    [stream.0 as u8; 32]
}

pub(super) fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[42; 32]))
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::on(TestDisk::default())
    }

    /// Fresh memory on a store that may hold something.
    pub(super) fn on(disk: TestDisk) -> Self {
        Self::with_ring(disk, RING_BYTES)
    }

    pub(super) fn with_ring(disk: TestDisk, ring_bytes: u64) -> Self {
        Self::at(disk, Path::new(STORE), None, ring_bytes).unwrap()
    }

    /// With a spare folder.
    pub(super) fn spared(disk: TestDisk) -> Self {
        Self::at(disk, Path::new(STORE), Some(Path::new(SPARE)), RING_BYTES).unwrap()
    }

    /// With a folder for segments, in the place of the spare one.
    pub(super) fn spread(disk: TestDisk) -> Self {
        let mut bench = Self::spared(disk);
        bench.config.segment_dirs = bench.config.spare.take().into_iter().collect();
        bench
    }
}

impl<D: Disk + Clone> Bench<D> {
    pub(super) fn at(
        disk: D,
        store: &Path,
        spare: Option<&Path>,
        ring_bytes: u64,
    ) -> Result<Self, log::LogError> {
        let geometry = Geometry { slot_count: 2, ring_bytes };
        let state = Memory::new(geometry.state_bytes());
        let spares: Vec<PathBuf> = spare.map(Path::to_owned).into_iter().collect();
        let roots = vec![Root { folder: store.to_owned(), more: spares.clone() }];
        let places = Places::strict(disk.clone(), roots);
        let first = first_position(&places, store, &store.join("journal"), WorkerId(0))?;
        initialise(&state, 0, &geometry, first.position.0);
        Ok(Bench {
            disk,
            ring_bytes,
            ring: Memory::new(ring_bytes as usize),
            state,
            clock: TestClock(Cell::new(5_000_000_000)),
            config: SpoolConfig {
                store: store.to_owned(),
                journal: store.join("journal"),
                spare: spares.first().cloned(),
                segment_dirs: Vec::new(),
                spares,
                worker: WorkerId(0),
                volume: [7; 16],
                commit_ms: 100,
                segment_bytes: 400_000,
                segment_ms: 300_000,
                packing: true,
            },
            written: BTreeMap::new(),
            sent: 0,
            notices: Vec::new(),
            random: Arc::default(),
        })
    }

    pub(super) fn spool(&self) -> TestSpool<D> {
        let mut spool = self.spool_without_salts();
        (1..=600).for_each(|n| spool.set_salt(StreamId(n), salt(StreamId(n))));
        spool
    }

    pub(super) fn spool_without_salts(&self) -> TestSpool<D> {
        self.try_spool().unwrap()
    }

    pub(super) fn try_spool(&self) -> Result<TestSpool<D>, SpoolError> {
        let (ring, state) = (self.ring.clone(), self.state.clone());
        let mut spool = Spool::open(
            self.config.clone(),
            ring,
            state,
            self.disk.clone(),
            key(),
            self.clock.map(),
        )?;
        // Where the store on the disk is encrypted.
        if let Some(wraps) = Wraps::of(&self.disk) {
            spool.encrypt(KeyMaker::new(wraps, self.random.clone()));
        }
        Ok(spool)
    }

    pub(super) fn free(&self) -> u64 {
        let kept = self.state.load(AT_DURABLE).min(self.state.load(AT_SEALED));
        self.ring_bytes - (self.state.load(AT_TAIL) - kept)
    }

    /// Appends as a worker does; false where the ring is full.
    pub(super) fn append(&mut self, source: SourceId, kind: RecordKind, payload: &[u8]) -> bool {
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

    pub(super) fn packet(&mut self, stream: u64) -> bool {
        let mut payload = vec![(self.sent % 251) as u8; 172];
        payload[..8].copy_from_slice(&self.sent.to_le_bytes());
        self.append(SourceId::new(StreamId(stream), 1), RecordKind::Rtp, &payload)
    }

    pub(super) fn turn(&mut self, spool: &mut TestSpool<D>, open: u32) {
        self.turn_seeing(spool, open, &mut |_| ());
    }

    /// Shows the disk after each turn.
    pub(super) fn turn_seeing(
        &mut self,
        spool: &mut TestSpool<D>,
        open: u32,
        see: &mut dyn FnMut(&D),
    ) {
        for _ in 0..64 {
            let before = self.state.load(AT_DURABLE);
            let busy = spool.turn(&self.clock, open).busy;
            see(&self.disk);
            let durable = self.state.load(AT_DURABLE);
            assert!(before <= durable && durable <= self.state.load(AT_TAIL), "the mark went back");
            while let Some(output) = spool.poll() {
                match output {
                    Output::Notice(notice) => self.notices.push(notice),
                    Output::Check(check) => {
                        let passed = check.run(&self.disk).is_ok();
                        spool.checked(&check.root, passed, self.clock.mono());
                    }
                    Output::SealDone => {}
                }
            }
            if !busy {
                break;
            }
        }
    }

    pub(super) fn settle(&mut self, spool: &mut TestSpool<D>) {
        for _ in 0..400 {
            self.clock.advance(200);
            self.turn(spool, 0);
            if spool.is_settled() {
                return;
            }
        }
        panic!("not settled: {:?}", spool.disk_error());
    }

    pub(super) fn places(&self) -> Places<D> {
        let (folder, more) = (self.config.store.clone(), self.config.spares.clone());
        Places::new(self.disk.clone(), vec![Root { folder, more }])
    }

    pub(super) fn archive(&self) -> Archive<Places<D>> {
        Archive::open(self.places(), &self.config.store)
    }

    pub(super) fn streams(&self) -> BTreeSet<StreamId> {
        self.written.keys().map(|source| source.stream()).collect()
    }

    /// What the reader finds, in its order.
    pub(super) fn found(&self) -> BTreeMap<SourceId, Vec<Vec<u8>>> {
        let mut found: BTreeMap<SourceId, Vec<Vec<u8>>> = BTreeMap::new();
        let visit = self.archive().visit(&self.streams(), None, &mut |seen| {
            assert!((seen.wall().0 - WALL - seen.record.meta.arrival.0 as i64).abs() <= 100_000);
            found.entry(seen.record.meta.source).or_default().push(seen.record.payload.to_vec());
        });
        assert_eq!(visit.unwrap().damaged, []);
        found
    }

    pub(super) fn assert_sound(&self) {
        let archive = self.archive();
        let key = key().public_key();
        for name in archive.segments().unwrap() {
            let mut salts = |stream| Some(salt(stream));
            let report =
                archive.verify_segment(name, None, &mut salts, Some(&Signers::one(key))).unwrap();
            assert!(report.is_good(), "{}: {report:?}", name.file());
        }
        assert_eq!(archive.verify_chain(WorkerId(0), Some(&Keys::one(key))).unwrap().faults, []);
    }
}

pub(super) fn random_stream(n: u64) -> u64 {
    n % 7
}
