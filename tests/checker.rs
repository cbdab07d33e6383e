//! `checker.py`, which knows only the format pages, reads what the spool wrote: segments and log,
//! beside each other, and finds damage. Skipped, aloud, where there is no Python.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use floortape::base::ids::{Index, Position, SourceId, StreamId, WorkerId};
use floortape::base::ports::Region;
use floortape::base::time::Mono;
use floortape::host::clock::SystemClock;
use floortape::host::disk::HostDisk;
use floortape::host::mapped::Mapped;
use floortape::plane::handoff::layout::{self, Geometry};
use floortape::plane::spool::{Spool, SpoolConfig};
use floortape::store::evidence::{Digest, SigningKey};
use floortape::store::record::{self, RecordKind, RecordMeta};

const RING_BYTES: u64 = 2 << 20;

fn checker(store: &Path) -> Option<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checker.py");
    Command::new("python3").arg(script).arg(store).args(["--json", "--proofs"]).output().ok()
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

#[test]
fn a_reader_that_shares_no_code_finds_the_same_packets() {
    let store = std::env::temp_dir().join(format!("floortape-checker-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&store);
    let geometry = Geometry { slot_count: 1, ring_bytes: RING_BYTES };
    let memory = |bytes| Mapped::anonymous("test", bytes).expect("memory");
    let fd_ring = memory(RING_BYTES as usize);
    let fd_state = memory(geometry.state_bytes());
    layout::initialise(&fd_state, 0, &geometry, 0);
    let (ring, state) = (Arc::new(fd_ring), Arc::new(fd_state));
    let config = SpoolConfig {
        store: store.clone(),
        journal: store.join("journal"),
        spare: None,
        spares: Vec::new(),
        worker: WorkerId(0),
        volume: [1; 16],
        commit_ms: 0,
        segment_bytes: 1 << 20,
        segment_ms: 3_600_000,
        packing: true,
    };
    let key = Arc::new(SigningKey::from_seed(&[5; 32]));
    let clock = SystemClock;
    let now = floortape::base::ports::Clock::map(&clock);
    let mut spool =
        Spool::open(config, Shared(ring.clone()), Shared(state.clone()), HostDisk, key, now)
            .expect("a fresh store");
    let mut hashes: Vec<Digest> = (0..3).map(|_| Digest::new()).collect();
    for stream in 1..=3 {
        spool.set_salt(StreamId(stream), [stream as u8; 32]);
    }
    for n in 0..1_500 {
        // Packet 777 of stream 2 is lost; two thirds are sealed, the rest stays in the log.
        for stream in 1..=3 {
            if (stream, n) != (2, 777) {
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
    let Some(output) = checker(&store) else {
        eprintln!("skipped: no python3");
        return;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let rows: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON lines"))
        .collect();
    assert_eq!(rows.len(), 3);
    for (row, hash) in rows.iter().zip(hashes) {
        let lost = u64::from(row["stream"] == 2);
        assert_eq!(row["packets"], 1_500 - lost);
        assert_eq!((&row["missing"], &row["duplicates"]), (&lost.into(), &0.into()));
        assert_eq!((&row["first_index"], &row["last_index"]), (&0.into(), &1_499.into()));
        let hex: String = hash.finish().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(row["sha256"], hex);
    }
    // Negative control: one flipped bit in the middle of the segment.
    let path = store.join("segments/w0-0000000001.seg");
    let mut bytes = std::fs::read(&path).expect("sealed");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("ours");
    assert_eq!(checker(&store).expect("ran before").status.code(), Some(1));
    std::fs::remove_dir_all(&store).expect("ours");
}

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
