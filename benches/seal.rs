//! Nanoseconds a packet of making a segment from the ring, with and without packing and encryption, and of reading it: what
//! the spool does for each packet besides the log, and what a verifier does.
//!
//! What is encrypted is so under keys of its own for each stream, which are made and read with it.
//!
//! Two thousand streams of G.711, 20 ms, as they lie in a ring: one packet of each in turn, arrivals with up
//! to a millisecond of jitter, payload random. Measured around `Emitter` (copying out of the ring, leaf
//! hashes, packing, sums, footer, signature), around `unpack` alone, and around `verify_opened` over the
//! file in memory; the disk has no part in it. One thread; subjects take turns within each round. Prints the
//! median round and the spread of all rounds.
//!
//! And of closing commit groups of the log, sums with and without encryption: 600 KB of records each, what the
//! default interval of such streams makes, copied out of the ring as the spool does.
//!
//! `cargo bench --bench seal`

use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use floortape::base::ids::{Index, Position, SourceId, StreamId, WorkerId};
use floortape::base::ports::DiskFile;
use floortape::base::prng::Prng;
use floortape::base::time::{ClockMap, Mono, Wall};
use floortape::host::disk::HostDisk;
use floortape::host::entropy::SystemEntropy;
use floortape::store::cipher::{GroupKey, Secret};
use floortape::store::evidence::SigningKey;
use floortape::store::keys::{KeyMaker, Of, StoreKey, Wraps};
use floortape::store::log::GroupHeader;
use floortape::store::record::{self, RecordKind, RecordMeta, record_bytes};
use floortape::store::segment::{
    EXTENT_HEADER_BYTES, Emitter, SegmentFacts, SegmentName, SegmentOpener, Span, folder,
    read_footer, read_trailer, unpack, verify_opened,
};

const ROUNDS: usize = 9;
const STREAMS: u64 = 2_000;
/// 2 s of each stream: 200,000 packets, 42 MB.
const PACKETS: u64 = 100;
const PACKET_BYTES: usize = 172;
const SALT: [u8; 32] = [3; 32];
const NAME: SegmentName = SegmentName { worker: WorkerId(0), number: 1 };

/// A file in memory.
struct Image(Vec<u8>);

impl DiskFile for Image {
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let start = (offset as usize).min(self.0.len());
        let count = out.len().min(self.0.len() - start);
        out[..count].copy_from_slice(&self.0[start..start + count]);
        Ok(count)
    }

    fn cut(&mut self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

/// The ring, and what stands where in it.
fn ring() -> (Vec<u8>, Span) {
    let mut random = Prng::new(1);
    let (mut ring, mut span) = (Vec::new(), Span::new(Position(0)));
    span.add_clock(ClockMap { mono: Mono(1), wall: Wall(1_767_225_600_000_000_000) });
    let mut packet = [0; PACKET_BYTES];
    for number in 0..PACKETS {
        for stream in 0..STREAMS {
            random.fill(&mut packet[12..]);
            packet[..2].copy_from_slice(&[0x80, 8]);
            packet[2..4].copy_from_slice(&(number as u16).to_be_bytes());
            packet[4..8].copy_from_slice(&(number as u32 * 160).to_be_bytes());
            packet[8..12].copy_from_slice(&(stream as u32).to_be_bytes());
            let late = stream * 10_000 + random.below(1_000_000);
            let meta = RecordMeta {
                kind: RecordKind::Rtp,
                flags: 1,
                generation: 1,
                source: SourceId::new(StreamId(stream + 1), 1),
                index: Index(number),
                arrival: Mono(1_000_000_000 + number * 20_000_000 + late),
            };
            let at = ring.len();
            ring.resize(at + record_bytes(PACKET_BYTES), 0);
            record::write(&meta, &packet, &mut ring[at..]);
            span.add(Position(at as u64), &record::read(&ring[at..]).expect("just written"));
        }
    }
    span.through = Position(ring.len() as u64);
    (ring, span)
}

/// Where the keys of the segment are: a file system in memory.
fn store() -> PathBuf {
    Path::new("/dev/shm").join(format!("floortape-seal-{}", std::process::id()))
}

fn wraps() -> Wraps {
    Wraps::new(&[StoreKey::taken_over(1, [6; 32].into())])
}

#[derive(Clone, Copy)]
struct How {
    packed: bool,
    encrypted: bool,
}

fn seal(ring: &[u8], span: &Span, how: How, out: &mut [u8]) -> usize {
    let facts = SegmentFacts {
        worker: NAME.worker,
        volume: [1; 16],
        number: NAME.number,
        created: Wall(1_767_225_700_000_000_000),
        previous: [0; 32],
        packed: how.packed,
    };
    let salt = |_| Some(SALT);
    let mut emitter = if how.encrypted {
        let mut emitter = Emitter::encrypted(facts, span.clone(), salt).expect("a salt");
        let maker = KeyMaker::new(wraps(), Arc::new(SystemEntropy));
        let of = Of { volume: facts.volume, worker: facts.worker, number: facts.number };
        let (segment, streams) = (folder(&store()).join(NAME.file()), emitter.streams());
        let keys = maker.make(&HostDisk, &segment, of, &streams, facts.created);
        emitter.restart_under(keys.expect("memory"));
        emitter
    } else {
        Emitter::new(facts, span.clone(), salt).expect("a salt")
    };
    let key = SigningKey::from_seed(&[5; 32]);
    let mut copy = |at: Position, out: &mut [u8]| {
        let at = at.0 as usize;
        out.copy_from_slice(&ring[at..at + out.len()]);
        Ok(())
    };
    // As the spool does: one buffer, again and again.
    let (mut bytes, mut filled) = (0, 0);
    while !emitter.is_done() {
        filled += emitter.fill(&mut out[filled..], &key, &mut copy).expect("memory");
        if filled == out.len() || emitter.is_done() {
            black_box(&mut *out);
            bytes += filled;
            filled = 0;
        }
    }
    bytes
}

/// Records of a commit group.
const GROUP_BYTES: usize = 208 * 2_900;

/// Closes groups of all that is in the ring, as the spool does: one buffer, again and again.
fn log_groups(ring: &[u8], key: Option<&GroupKey>, out: &mut [u8]) -> usize {
    let (mut groups, mut at) = (0, 0);
    while at < ring.len() {
        let bytes = GROUP_BYTES.min(ring.len() - at);
        let mut header = GroupHeader {
            worker: WorkerId(0),
            file_sequence: 1,
            group_sequence: groups as u64 + 1,
            incarnation: 1,
            first: Position(at as u64),
            bytes: bytes as u64,
            clock: ClockMap { mono: Mono(1), wall: Wall(1) },
            previous: [0; 32],
            ring_bytes: 1 << 30,
            payload_crc: 0,
            encrypted: key.is_some(),
        };
        let stored = &mut out[..header.stored_bytes() as usize];
        stored[..bytes].copy_from_slice(&ring[at..at + bytes]);
        header.close(key, stored);
        black_box((&mut *out, header));
        (groups, at) = (groups + 1, at + bytes);
    }
    groups
}

fn image(ring: &[u8], span: &Span, how: How) -> Image {
    let mut out = vec![0; ring.len() * 2];
    let bytes = seal(ring, span, how, &mut out);
    out.truncate(bytes);
    Image(out)
}

fn verify(image: &Image) {
    let (store, wraps) = (store(), wraps());
    let opener = SegmentOpener::new(&HostDisk, &store, NAME, Some(&wraps));
    let report = verify_opened(image, None, &mut |_| Some(SALT), None, Some(&opener));
    assert!(report.is_good() && report.proven == STREAMS);
}

fn main() {
    let (ring, span) = ring();
    let hows = [(false, false), (true, false), (false, true), (true, true)];
    let hows = hows.map(|(packed, encrypted)| How { packed, encrypted });
    let mut images = hows.map(|how| image(&ring, &span, how));
    let trailer = read_trailer(&images[1]).expect("just made");
    let rows = read_footer(&images[1], trailer).expect("just made").rows;
    let mut out = vec![0; 1 << 20];
    let names = [
        "seal as it is",
        "seal packed",
        "seal encrypted",
        "seal packed, encrypted",
        "unpack",
        "verify as it is",
        "verify packed",
        "verify encrypted",
        "verify packed, encrypted",
        "log in the clear",
        "log encrypted",
    ];
    let key = GroupKey::new(Secret::new([7; 32].into()));
    let mut rounds = vec![Vec::new(); names.len()];
    for _ in 0..=ROUNDS {
        for (subject, times) in rounds.iter_mut().enumerate() {
            if (7..=8).contains(&subject) {
                // Its keys are overwritten by whoever seals it again.
                images[subject - 5] = image(&ring, &span, hows[subject - 5]);
            }
            let begun = Instant::now();
            match subject {
                0..=3 => drop(black_box(seal(&ring, &span, hows[subject], &mut out))),
                4 => {
                    for row in &rows {
                        let start = row.offset as usize;
                        let extent = &images[1].0[start..start + row.bytes as usize];
                        let records = unpack(&extent[EXTENT_HEADER_BYTES..], u64::MAX);
                        assert_eq!(records.expect("just packed").len(), 208 * PACKETS as usize);
                    }
                }
                5..=8 => verify(&images[subject - 5]),
                _ => {
                    let key = (subject == 10).then_some(&key);
                    assert!(log_groups(&ring, key, &mut out) > 50);
                }
            }
            times.push(begun.elapsed().as_nanos() as f64 / (STREAMS * PACKETS) as f64);
        }
    }
    println!(
        "{STREAMS} streams, {PACKETS} packets each; ns a packet: median (least to most), GB/s of records"
    );
    for (name, times) in names.iter().zip(&mut rounds) {
        // The first round warms up.
        times.remove(0);
        times.sort_by(f64::total_cmp);
        let median = times[ROUNDS / 2];
        println!(
            "{name:24} {median:6.1} ({:.1} to {:.1})  {:.2} GB/s",
            times[0],
            times[ROUNDS - 1],
            208.0 / median
        );
    }
    let [plain, packed, _, encrypted] =
        images.map(|image| image.0.len() as f64 / (STREAMS * PACKETS) as f64);
    println!(
        "octets a packet in the file: {plain:.1} as it is, {packed:.1} packed, {encrypted:.1} packed and \
         encrypted"
    );
    let _ = std::fs::remove_dir_all(store());
}
