//! A store by hand: two segments and a log, whole, torn and empty.

use std::path::{Path, PathBuf};

use super::*;
use crate::base::ports::DiskFile;
use crate::base::time::Mono;
use crate::store::evidence::SigningKey;
use crate::store::log::{
    BLOCK_BYTES, FileHeader, GROUP_HEADER_BYTES, GroupHeader, crc32c, group_span,
};
use crate::store::record::{RecordMeta, record_bytes};
use crate::store::segment::{Emitter, SegmentFacts, Span};
use crate::store::test_disk::TestDisk;

const RING: u64 = 1 << 26;
const STREAM: StreamId = StreamId(7);
const OTHER: StreamId = StreamId(8);

fn push(out: &mut Vec<u8>, stream: StreamId, ordinal: u16, index: u64, ms: u64, payload: &[u8]) {
    let kind = if ordinal == 0 { RecordKind::Event } else { RecordKind::Rtp };
    let meta = RecordMeta {
        kind,
        flags: 0,
        generation: 1,
        source: SourceId::new(stream, ordinal),
        index: Index(index),
        arrival: Mono(ms * 1_000_000),
    };
    let start = out.len();
    out.resize(start + record_bytes(payload.len()), 0);
    record::write(&meta, payload, &mut out[start..]);
}

fn rtp(ssrc: u32, seq: u64) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&(seq as u16).to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[0xff; 160]);
    packet
}

fn source(ordinal: u16, ssrc: u32, from: &str) -> Vec<u8> {
    let from = from.parse().expect("an address");
    Event::Source { ordinal, ssrc: Ssrc(ssrc), from }.to_payload()
}

/// Monotonic 0 is this wall time.
const EPOCH: i64 = 1_000_000_000_000;

fn clock(ms: u64) -> ClockMap {
    ClockMap { mono: Mono(ms * 1_000_000), wall: Wall(EPOCH + ms as i64 * 1_000_000) }
}

fn log_file(disk: &TestDisk, worker: u16, groups: &[(u64, &[u8], u64, u64)]) -> PathBuf {
    let path = log::folder(Path::new("store"), WorkerId(worker)).join("00000001.log");
    let mut file = disk.create(&path, 64 << 20).expect("room");
    let mut block = vec![0; BLOCK_BYTES];
    let first = Position(groups[0].0);
    let (worker, volume) = (WorkerId(worker), [1; 16]);
    let (file_sequence, ring_bytes, file_bytes, key) = (1, RING, 64 << 20, None);
    FileHeader { worker, volume, file_sequence, first, ring_bytes, file_bytes, key }
        .emit(&mut block);
    file.write_at(0, &block).expect("room");
    let mut at = BLOCK_BYTES as u64;
    for (number, (first, payload, ms, incarnation)) in groups.iter().enumerate() {
        let header = GroupHeader {
            worker,
            file_sequence: 1,
            group_sequence: number as u64 + 1,
            incarnation: *incarnation,
            first: Position(*first),
            bytes: payload.len() as u64,
            clock: clock(*ms),
            previous: [0; 32],
            ring_bytes: RING,
            payload_crc: crc32c(payload),
            encrypted: false,
        };
        let mut bytes = vec![0; group_span(payload.len() as u64) as usize];
        header.emit(&mut bytes);
        bytes[GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + payload.len()].copy_from_slice(payload);
        file.write_at(at, &bytes).expect("room");
        at += bytes.len() as u64;
    }
    file.sync().expect("a disk in memory");
    path
}

fn segment(disk: &TestDisk, worker: u16, number: u64, first: u64, records: &[u8], created_ms: u64) {
    let worker = WorkerId(worker);
    let mut span = Span::new(Position(first));
    span.add_clock(clock(0));
    for step in Walk::new(records, Position(first), RING) {
        if let Step::Record { at, record } = step {
            span.add(at, &record);
        }
    }
    span.through = Position(first + records.len() as u64);
    let created = clock(created_ms).wall;
    let (volume, previous) = ([1; 16], [0; 32]);
    let facts = SegmentFacts { worker, volume, number, created, previous, packed: true };
    let emitter = Emitter::new(facts, span, |_| Some([3; 32])).expect("salts");
    let key = SigningKey::from_seed(&[5; 32]);
    let mut copy = |at: Position, out: &mut [u8]| {
        let from = (at.0 - first) as usize;
        out.copy_from_slice(&records[from..from + out.len()]);
        Ok(())
    };
    let bytes = emitter.all(&key, &mut copy).expect("all in memory");
    let name = SegmentName { worker, number };
    let path = crate::store::segment::folder(Path::new("store")).join(name.file());
    let mut file = disk.create(&path, bytes.len() as u64).expect("room");
    file.write_at(0, &bytes).expect("room");
    file.sync().expect("a disk in memory");
}

fn look(disk: &TestDisk, sender: bool) -> LastSeen {
    let sought = Sought { stream: STREAM, since: Wall(EPOCH), sender };
    Archive::open(disk.clone(), "store").last_seen(&[sought], 4, 9).expect("readable")
}

/// Two segments and a log, one SSRC after the other, and groups of this run that do not count.
fn store() -> TestDisk {
    let disk = TestDisk::default();
    let mut old = Vec::new();
    push(&mut old, STREAM, 0, 0, 5, &source(1, 11, "192.0.2.1:4000"));
    for n in 0..10 {
        push(&mut old, STREAM, 1, 65_530 + n, 10 + n, &rtp(11, 65_530 + n));
        push(&mut old, OTHER, 1, n, 10 + n, &rtp(99, n));
    }
    segment(&disk, 0, 1, 0, &old, 20);
    let mut newer = Vec::new();
    push(&mut newer, STREAM, 0, 0, 30, &source(2, 22, "192.0.2.1:4002"));
    push(&mut newer, STREAM, 2, 100, 31, &rtp(22, 100));
    let second = old.len() as u64;
    segment(&disk, 0, 2, second, &newer, 40);
    let (mut one, mut two, mut own) = (Vec::new(), Vec::new(), Vec::new());
    let third = second + newer.len() as u64;
    push(&mut one, STREAM, 2, 101, 50, &rtp(22, 101));
    push(&mut one, OTHER, 1, 77, 51, &rtp(99, 77));
    push(&mut two, STREAM, 2, 102, 60, &rtp(22, 102));
    push(&mut own, STREAM, 2, 500, 70, &rtp(22, 500));
    let fourth = third + one.len() as u64;
    let fifth = fourth + two.len() as u64;
    log_file(&disk, 0, &[(third, &one, 55, 8), (fourth, &two, 65, 8), (fifth, &own, 75, 9)]);
    disk
}

#[test]
fn the_newest_of_log_and_segments_is_found_with_all_ordinals() {
    let seen = look(&store(), true);
    let stream = &seen.streams[&STREAM];
    let (second, first) = (stream.sources[0], stream.sources[1]);
    assert_eq!((second.ssrc, second.ordinal, second.highest), (Ssrc(22), 2, Index(102)));
    assert_eq!((first.ssrc, first.ordinal, first.highest), (Ssrc(11), 1, Index(65_539)));
    assert_eq!(first.from, Some("192.0.2.1:4000".parse().expect("an address")));
    assert_eq!((stream.next_ordinal, stream.durable), (3, Some(clock(65).wall)));
    assert_eq!(seen.in_doubt, 0);
}

#[test]
fn f10_a_torn_last_group_ends_the_log_before_it() {
    let disk = store();
    let path = log::folder(Path::new("store"), WorkerId(0)).join("00000001.log");
    let mut file = disk.open(&path).expect("there");
    let torn = BLOCK_BYTES as u64 * 2 + 200;
    file.write_at(torn, &[0xee; 16]).expect("room");
    let seen = look(&disk, false);
    let stream = &seen.streams[&STREAM];
    assert_eq!((stream.sources[0].ssrc, stream.sources[0].highest), (Ssrc(22), Index(101)));
    assert_eq!(stream.durable, Some(clock(55).wall));
    assert!(seen.in_doubt > 0);
}

#[test]
fn without_a_log_the_segments_tell_and_a_stream_unknown_to_all_has_nothing() {
    let disk = TestDisk::default();
    let mut old = Vec::new();
    for n in 0..10 {
        push(&mut old, STREAM, 1, n, 10 + n, &rtp(11, n));
    }
    segment(&disk, 3, 1, 0, &old, 20);
    let stream = &look(&disk, false).streams[&STREAM];
    assert_eq!((stream.sources[0].ssrc, stream.sources[0].highest), (Ssrc(11), Index(9)));
    assert_eq!((stream.sources[0].from, stream.durable), (None, Some(clock(19).wall)));
    let sought = Sought { stream: StreamId(55), since: Wall(EPOCH), sender: true };
    let seen = Archive::open(disk, "store").last_seen(&[sought], 4, 9).expect("readable");
    let nothing = LastStream { next_ordinal: 1, ..LastStream::default() };
    assert_eq!(seen.streams[&StreamId(55)], nothing);
}

#[test]
fn segments_older_than_every_stream_sought_are_not_read() {
    let disk = store();
    let since = Wall(clock(40).wall.0 + CLOCK_SLACK_NS + 1);
    let archive = Archive::open(disk, "store");
    let read = |since| {
        let sought = Sought { stream: STREAM, since, sender: false };
        let seen = archive.last_seen(&[sought], 4, 9).expect("readable");
        (seen.streams[&STREAM].sources.len(), seen.bytes_read)
    };
    let (all, all_bytes) = read(Wall(EPOCH));
    let (recent, recent_bytes) = read(since);
    assert_eq!((all, recent), (2, 1), "the first source is in a segment only");
    assert!(recent_bytes < all_bytes);
}
