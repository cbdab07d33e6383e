//! Nanoseconds a packet of making a segment from the ring, with and without packing, and of reading it: what
//! the spool does for each packet besides the log, and what a verifier does.
//!
//! Two thousand streams of G.711, 20 ms, as they lie in a ring: one packet of each in turn, arrivals with up
//! to a millisecond of jitter, payload random. Measured around `Emitter` (copying out of the ring, leaf
//! hashes, packing, sums, footer, signature), around `unpack` alone, and around `verify_segment` over the
//! file in memory; the disk has no part in it. One thread; subjects take turns within each round. Prints the
//! median round and the spread of all rounds.
//!
//! `cargo bench --bench seal`

use std::hint::black_box;
use std::io;
use std::time::Instant;

use floortape::base::ids::{Index, Position, SourceId, StreamId, WorkerId};
use floortape::base::ports::DiskFile;
use floortape::base::prng::Prng;
use floortape::base::time::{ClockMap, Mono, Wall};
use floortape::store::evidence::SigningKey;
use floortape::store::record::{self, RecordKind, RecordMeta, record_bytes};
use floortape::store::segment::{
    EXTENT_HEADER_BYTES, Emitter, SegmentFacts, Span, read_footer, read_trailer, unpack,
    verify_segment,
};

const ROUNDS: usize = 9;
const STREAMS: u64 = 2_000;
/// 2 s of each stream: 200,000 packets, 42 MB.
const PACKETS: u64 = 100;
const PACKET_BYTES: usize = 172;
const SALT: [u8; 32] = [3; 32];

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

fn seal(ring: &[u8], span: &Span, packed: bool, out: &mut [u8]) -> usize {
    let facts = SegmentFacts {
        worker: WorkerId(0),
        volume: [1; 16],
        number: 1,
        created: Wall(1_767_225_700_000_000_000),
        previous: [0; 32],
        packed,
    };
    let mut emitter = Emitter::new(facts, span.clone(), |_| Some(SALT)).expect("a salt");
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

fn image(ring: &[u8], span: &Span, packed: bool) -> Image {
    let mut out = vec![0; ring.len() * 2];
    let bytes = seal(ring, span, packed, &mut out);
    out.truncate(bytes);
    Image(out)
}

fn main() {
    let (ring, span) = ring();
    let images = [image(&ring, &span, false), image(&ring, &span, true)];
    let trailer = read_trailer(&images[1]).expect("just made");
    let rows = read_footer(&images[1], trailer).expect("just made").rows;
    let mut out = vec![0; 1 << 20];
    let names = ["seal as it is", "seal packed", "unpack", "verify as it is", "verify packed"];
    let mut rounds = vec![Vec::new(); names.len()];
    for _ in 0..=ROUNDS {
        for (subject, times) in rounds.iter_mut().enumerate() {
            let begun = Instant::now();
            match subject {
                0 | 1 => drop(black_box(seal(&ring, &span, subject == 1, &mut out))),
                2 => {
                    for row in &rows {
                        let start = row.offset as usize;
                        let extent = &images[1].0[start..start + row.bytes as usize];
                        let records = unpack(&extent[EXTENT_HEADER_BYTES..], u64::MAX);
                        assert_eq!(records.expect("just packed").len(), 208 * PACKETS as usize);
                    }
                }
                _ => {
                    let salt = &mut |_| Some(SALT);
                    let report = verify_segment(&images[subject - 3], None, salt, None);
                    assert!(report.is_good() && report.proven == STREAMS);
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
            "{name:16} {median:6.1} ({:.1} to {:.1})  {:.2} GB/s",
            times[0],
            times[ROUNDS - 1],
            208.0 / median
        );
    }
    let [plain, packed] = images.map(|image| image.0.len() as f64 / (STREAMS * PACKETS) as f64);
    println!("octets a packet in the file: {plain:.1} as it is, {packed:.1} packed");
}
