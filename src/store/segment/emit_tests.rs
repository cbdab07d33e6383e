//! Segments of records in memory.

use std::path::Path;

use super::*;
use crate::base::ports::{Disk, DiskFile};
use crate::base::prng::Prng;
use crate::base::time::Mono;
use crate::store::record::{self, RecordKind, RecordMeta, record_bytes};
use crate::store::segment::{
    SegmentReport, read_extent, read_footer, read_trailer, verify_segment,
};
use crate::store::test_disk::TestDisk;

const SALT: Salt = [7; 32];

/// Records of some sources in turn, `packets` of each, as a ring holds them.
fn records(sources: u64, packets: u64, payload_bytes: usize) -> (Vec<u8>, Span) {
    let mut random = Prng::new(packets);
    let (mut bytes, mut span) = (Vec::new(), Span::new(Position(0)));
    span.add_clock(ClockMap { mono: Mono(1), wall: Wall(1) });
    let mut packet = vec![0; 12 + payload_bytes];
    for index in 0..packets {
        for stream in 1..=sources {
            random.fill(&mut packet[12..]);
            packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
            packet[4..8].copy_from_slice(&(index as u32 * 160).to_be_bytes());
            let meta = RecordMeta {
                kind: RecordKind::Rtp,
                flags: 1,
                generation: 1,
                source: SourceId::new(StreamId(stream), 1),
                index: Index(index),
                arrival: Mono(index * 20_000_000 + random.below(1_000_000)),
            };
            let at = bytes.len();
            bytes.resize(at + record_bytes(packet.len()), 0);
            record::write(&meta, &packet, &mut bytes[at..]);
            span.add(Position(at as u64), &record::read(&bytes[at..]).expect("just written"));
        }
    }
    span.through = Position(bytes.len() as u64);
    (bytes, span)
}

fn emitter(span: &Span, packed: bool) -> Emitter {
    let facts = SegmentFacts {
        worker: WorkerId(0),
        volume: [1; 16],
        number: 1,
        created: Wall(2),
        previous: [0; 32],
        packed,
    };
    Emitter::new(facts, span.clone(), |_| Some(SALT)).expect("a salt")
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[4; 32])
}

fn from(bytes: &[u8]) -> impl FnMut(Position, &mut [u8]) -> std::io::Result<()> {
    |at, out| {
        let at = at.0 as usize;
        out.copy_from_slice(&bytes[at..at + out.len()]);
        Ok(())
    }
}

fn on_disk(segment: Vec<u8>) -> impl DiskFile {
    let disk = TestDisk::default();
    disk.put(Path::new("a"), segment);
    disk.open_read(Path::new("a")).expect("there")
}

fn verified(segment: Vec<u8>) -> SegmentReport {
    verify_segment(&on_disk(segment), None, &mut |_| Some(SALT), None)
}

#[test]
fn packed_or_not_the_records_and_their_proof_are_the_same() {
    let (bytes, span) = records(5, 900, 160);
    let mut found = Vec::new();
    for packed in [false, true] {
        let segment = emitter(&span, packed).all(&key(), &mut from(&bytes)).expect("memory");
        assert_eq!(segment.len() % BLOCK_BYTES, 0);
        let report = verified(segment.clone());
        assert!(report.is_good() && report.proven == 5, "{report:?}");
        let file = on_disk(segment.clone());
        let trailer = read_trailer(&file).expect("sealed");
        let rows = read_footer(&file, trailer).expect("sealed").rows;
        let compression = if packed { COMPRESSION_PACKED } else { COMPRESSION_NONE };
        assert!(rows.iter().all(|row| row.compression == compression));
        let extent = |row: &Row| read_extent(&file, row.offset, row.bytes).expect("sealed");
        let records: Vec<Vec<u8>> = rows.iter().map(|row| extent(row).records).collect();
        let leaves: Vec<Hash> = rows.iter().map(|row| row.leaf).collect();
        found.push((records, leaves, segment.len()));
    }
    let [(plain, plain_leaves, plain_bytes), (packed, packed_leaves, packed_bytes)] = &found[..]
    else {
        panic!("two of them")
    };
    assert!(plain == packed && plain_leaves == packed_leaves);
    assert!(packed_bytes * 10 < plain_bytes * 8, "{packed_bytes} of {plain_bytes}");
}

#[test]
fn the_room_is_enough_for_what_cannot_be_packed() {
    for payload_bytes in [0, 1, 160, 1_400, 65_524] {
        let (mut bytes, span) = records(2, 40, payload_bytes);
        // Noise: no record packs, and no record is one.
        Prng::new(9).fill(&mut bytes);
        for packed in [false, true] {
            let emitter = emitter(&span, packed);
            let room = emitter.room_bytes();
            let segment = emitter.all(&key(), &mut from(&bytes)).expect("memory");
            assert!(segment.len() as u64 <= room);
        }
    }
}

#[test]
fn a_call_takes_a_turns_work_however_long_an_extent_is() {
    let (bytes, span) = records(1, 30_000, 160);
    let mut emitter = emitter(&span, true);
    let mut out = vec![0; bytes.len()];
    let (mut filled, mut calls) = (0, 0);
    while !emitter.is_done() {
        let mut taken = 0;
        let mut copy = from(&bytes);
        let mut counted = |at: Position, out: &mut [u8]| {
            taken += out.len();
            copy(at, out)
        };
        filled += emitter.fill(&mut out[filled..], &key(), &mut counted).expect("memory");
        assert!(taken <= TURN_RECORD_BYTES + CHUNK_RECORD_BYTES_MAX, "{taken} in one call");
        calls += 1;
    }
    assert!(calls >= bytes.len() / TURN_RECORD_BYTES, "{calls} calls");
    out.truncate(filled);
    assert!(verified(out).is_good());
}

#[test]
fn after_a_restart_the_bytes_are_the_same() {
    let (bytes, span) = records(3, 2_000, 160);
    let whole = emitter(&span, true).all(&key(), &mut from(&bytes)).expect("memory");
    let mut emitter = emitter(&span, true);
    let mut piece = vec![0; 100_000];
    for calls in 0..4 {
        for _ in 0..calls {
            emitter.fill(&mut piece, &key(), &mut from(&bytes)).expect("memory");
        }
        emitter.restart();
    }
    assert!(emitter.all(&key(), &mut from(&bytes)).expect("memory") == whole);
}

#[test]
fn memory_that_changed_since_the_records_were_looked_at_is_named() {
    let (bytes, span) = records(3, 50, 160);
    for packed in [false, true] {
        // In the header, in the payload, in the length of the second record.
        for at in [208 * 3 + 20, 208 * 3 + 100, 208 * 3] {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            let segment = emitter(&span, packed).all(&key(), &mut from(&bad)).expect("memory");
            let report = verified(segment);
            let [damage] = &report.damaged[..] else { panic!("{report:?}") };
            assert_eq!(damage.source, SourceId::new(StreamId(1), 1));
        }
    }
}
