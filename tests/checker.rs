//! `checker.py`, which knows only the format pages, reads what the spool wrote: segments and log,
//! beside each other, in the clear and encrypted, and finds damage. Skipped, aloud, where there is no
//! Python, or no package `cryptography` for what is encrypted.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use floortape::base::ids::{Index, Position, SourceId, StreamId, WorkerId};
use floortape::base::ports::{Disk, Region};
use floortape::base::time::{Mono, Wall};
use floortape::host::clock::SystemClock;
use floortape::host::disk::HostDisk;
use floortape::host::entropy::SystemEntropy;
use floortape::host::mapped::Mapped;
use floortape::plane::handoff::layout::{self, Geometry};
use floortape::plane::spool::{Spool, SpoolConfig};
use floortape::store::evidence::{Digest, SigningKey};
use floortape::store::keys::{self, Kek, KeyMaker, StoreKeys, Veil, Veiled, Wraps};
use floortape::store::record::{self, RecordKind, RecordMeta};

const RING_BYTES: u64 = 2 << 20;

const VOLUME: [u8; 16] = [1; 16];
/// Exit code of a reader that was given no key.
const NOT_OPENED: i32 = 3;

fn checker(store: &Path, kek: Option<&Path>) -> Option<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checker.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(store).args(["--json", "--proofs"]);
    if let Some(kek) = kek {
        python.arg("--kek").arg(kek);
    }
    python.output().ok()
}

/// What it says; none, aloud, where it cannot run here.
fn told(store: &Path, kek: Option<&Path>) -> Option<Vec<serde_json::Value>> {
    let Some(output) = checker(store, kek) else {
        eprintln!("skipped: no python3");
        return None;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) && errors.contains("needs Python's package cryptography") {
        eprintln!("skipped: {errors}");
        return None;
    }
    assert!(output.status.success(), "{errors}");
    let lines = String::from_utf8_lossy(&output.stdout);
    Some(lines.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect())
}

fn fresh(name: &str) -> PathBuf {
    let name = format!("floortape-checker-{name}-{}", std::process::id());
    let store = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&store);
    store
}

/// Appends packet `n` of a stream: an RTP header and a numbered payload, whose hash is returned.
fn packet(ring: &Mapped, state: &Mapped, stream: u64, n: u64, hash: &mut Digest) {
    let mut rtp = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, stream as u8];
    rtp.extend_from_slice(&n.to_be_bytes());
    rtp.extend_from_slice(&[stream as u8; 152]);
    hash.update(&rtp[12..]);
    let meta = RecordMeta {
        kind: RecordKind::Rtp,
        flags: 0,
        generation: 1,
        source: SourceId::new(StreamId(stream), 1),
        index: Index(n),
        arrival: Mono(n),
    };
    let mut bytes = vec![0; record::record_bytes(rtp.len())];
    record::write(&meta, &rtp, &mut bytes);
    let tail = state.load(layout::AT_TAIL);
    assert!(tail + bytes.len() as u64 <= RING_BYTES, "this test does not wrap");
    ring.copy_in(tail as usize, &bytes);
    state.store(layout::AT_TAIL, tail + bytes.len() as u64);
}

/// Three streams of 1,500 packets less one, two thirds of them sealed, the rest in the log; the hashes
/// of their payloads.
fn spooled<D: Disk + Clone>(store: &Path, disk: D, keys: Option<KeyMaker>) -> Vec<Digest> {
    let geometry = Geometry { slot_count: 1, ring_bytes: RING_BYTES };
    let memory = |bytes| Mapped::anonymous("test", bytes).expect("memory");
    let fd_ring = memory(RING_BYTES as usize);
    let fd_state = memory(geometry.state_bytes());
    layout::initialise(&fd_state, 0, &geometry, 0);
    let (ring, state) = (Arc::new(fd_ring), Arc::new(fd_state));
    let config = SpoolConfig {
        store: store.to_owned(),
        journal: store.join("journal"),
        spare: None,
        segment_dirs: Vec::new(),
        spares: Vec::new(),
        worker: WorkerId(0),
        volume: VOLUME,
        commit_ms: 0,
        segment_bytes: 1 << 20,
        segment_ms: 3_600_000,
        packing: true,
    };
    let key = Arc::new(SigningKey::from_seed(&[5; 32]));
    let clock = SystemClock;
    let now = floortape::base::ports::Clock::map(&clock);
    let mut spool =
        Spool::open(config, Shared(ring.clone()), Shared(state.clone()), disk, key, now)
            .expect("a fresh store");
    if let Some(keys) = keys {
        spool.encrypt(keys);
    }
    let mut hashes: Vec<Digest> = (0..3).map(|_| Digest::new()).collect();
    for stream in 1..=3 {
        spool.set_salt(StreamId(stream), [stream as u8; 32]);
    }
    for n in 0..1_500 {
        for stream in 1..=3 {
            if (stream, n) != LOST {
                packet(&ring, &state, stream, n, &mut hashes[stream as usize - 1]);
            }
        }
        if n == 1_000 {
            spool.request_seal();
        }
        if n % 50 == 0 {
            while spool.turn(&clock, 3).busy {}
        }
    }
    while spool.durable().0 < state.load(layout::AT_TAIL) {
        spool.turn(&clock, 3);
    }
    assert!(spool.sealed() > Position(0) && spool.sealed() < spool.durable());
    hashes
}

/// Stream and number of the packet that is lost.
const LOST: (u64, u64) = (2, 777);

fn are(rows: &[serde_json::Value], hashes: Vec<Digest>) {
    assert_eq!(rows.len(), 3);
    for (row, hash) in rows.iter().zip(hashes) {
        let lost = u64::from(row["stream"] == LOST.0);
        assert_eq!(row["packets"], 1_500 - lost);
        assert_eq!((&row["missing"], &row["duplicates"]), (&lost.into(), &0.into()));
        assert_eq!((&row["first_index"], &row["last_index"]), (&0.into(), &1_499.into()));
        let hex: String = hash.finish().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(row["sha256"], hex);
    }
}

/// One bit more or less in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("it was written");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("ours");
}

#[test]
fn a_reader_that_shares_no_code_finds_the_same_packets() {
    let store = fresh("clear");
    let hashes = spooled(&store, HostDisk, None);
    let Some(rows) = told(&store, None) else { return };
    are(&rows, hashes);
    // Negative control: one flipped bit in the middle of the segment.
    flip(&store.join("segments/w0-0000000001.seg"));
    assert_eq!(checker(&store, None).expect("ran before").status.code(), Some(1));
    std::fs::remove_dir_all(&store).expect("ours");
}

/// The same from an encrypted store by its KEK alone: store keys, keys of segments and of log files.
/// Without a key nothing is read, and nothing accused; another key, and a key that was changed, are.
#[test]
fn a_reader_that_shares_no_code_opens_what_is_encrypted() {
    let store = fresh("encrypted");
    std::fs::create_dir_all(&store).expect("room");
    let [kek, other] = [7_u8, 8].map(|byte| {
        let path = store.join(format!("kek-{byte}"));
        std::fs::write(&path, [byte; 32]).expect("room");
        path
    });
    let opened = Kek::parse(&[7; 32]).expect("32 bytes");
    let (made, key) = StoreKeys::make(VOLUME, &opened, &SystemEntropy, Wall(0));
    let folder = keys::folder(&store);
    std::fs::create_dir_all(&folder).expect("room");
    made.write(&HostDisk, &folder).expect("room");
    let journal = vec![store.join("journal")];
    let veil = Veil::new(VOLUME, &[key.duplicate()], journal, Box::new(SystemEntropy));
    let disk = Veiled::new(HostDisk, Some(Arc::new(veil)));
    let keys = KeyMaker::new(Wraps::new(&[key]), Arc::new(SystemEntropy));
    let hashes = spooled(&store, disk, Some(keys));
    let Some(rows) = told(&store, Some(&kek)) else { return };
    are(&rows, hashes);

    let code = |kek| checker(&store, kek).expect("ran before").status.code();
    assert_eq!(code(None), Some(NOT_OPENED));
    assert_eq!(code(Some(&other)), Some(2));
    // A key that retention has destroyed is no damage; one that somebody changed is.
    let sidecar = store.join("segments/w0-0000000001.keys");
    let whole = std::fs::read(&sidecar).expect("beside its segment");
    let mut bytes = whole.clone();
    let entry = &mut bytes[128..128 + 96];
    entry[8] = SHREDDED;
    entry[24..84].fill(0);
    let crc = floortape::store::log::crc32c(&entry[..92]);
    entry[92..].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&sidecar, &bytes).expect("ours");
    let shredded = checker(&store, Some(&kek)).expect("ran before");
    let errors = String::from_utf8_lossy(&shredded.stderr);
    assert!(shredded.status.success() && errors.contains("gone: "), "{errors}");
    std::fs::write(&sidecar, whole).expect("ours");
    assert_eq!(code(Some(&kek)), Some(0));
    flip(&store.join("segments/w0-0000000001.seg"));
    assert_eq!((code(Some(&kek)), code(None)), (Some(1), Some(1)));
    std::fs::remove_dir_all(&store).expect("ours");
}

/// What an entry in the keys of a segment says when its key was destroyed.
const SHREDDED: u8 = 2;

/// One map for the test and the spool.
struct Shared(Arc<Mapped>);

impl Region for Shared {
    fn bytes(&self) -> usize {
        self.0.bytes()
    }
    fn load(&self, offset: usize) -> u64 {
        self.0.load(offset)
    }
    fn store(&self, offset: usize, value: u64) {
        self.0.store(offset, value);
    }
    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.0.copy_in(offset, bytes);
    }
    fn copy_out(&self, offset: usize, out: &mut [u8]) {
        self.0.copy_out(offset, out);
    }
}
