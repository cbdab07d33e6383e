//! Encrypted extents: what opens, and what does not.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::base::ids::{Index, Position, SourceId, StreamId, WorkerId};
use crate::base::ports::{Disk, DiskFile, Entropy};
use crate::base::prng::Prng;
use crate::base::time::{ClockMap, Mono, Wall};
use crate::store::evidence::SigningKey;
use crate::store::keys::{KeyMaker, Of, SegmentKeys, Wraps, WriteKeys, path_of};
use crate::store::log::crc32c;
use crate::store::record::{self, RecordKind, RecordMeta, record_bytes};
use crate::store::segment::{
    Emitter, Opener, Row, SegmentError, SegmentFacts, SegmentName, SegmentOpener, Span, folder,
    open_extent, read_extent, read_first_record, read_footer, read_trailer, verify_opened,
};
use crate::store::test_disk::TestDisk;

const PLAIN: &[u8] = b"said on a line that is recorded";
const NAME: SegmentName = SegmentName { worker: WorkerId(3), number: 7 };

/// Random octets; notes what it gave out.
#[derive(Default)]
struct Random(Mutex<Vec<Vec<u8>>>);

impl Entropy for Random {
    fn fill(&self, out: &mut [u8]) {
        let mut given = self.0.lock().unwrap();
        Prng::new(given.len() as u64).fill(out);
        given.push(out.to_vec());
    }
}

/// A store under a key.
struct Store {
    disk: TestDisk,
    wraps: Wraps,
    random: Arc<Random>,
}

impl Store {
    fn new() -> Self {
        let disk = TestDisk::default();
        disk.set_store_key(Some(1));
        let wraps = Wraps::of(&disk).unwrap();
        Store { disk, wraps, random: Arc::default() }
    }

    /// Keys for the next attempt to write the segment.
    fn keys(&self, emitter: &Emitter) -> WriteKeys {
        let maker = KeyMaker::new(Wraps::of(&self.disk).unwrap(), self.random.clone());
        let segment = folder(Path::new("/store")).join(NAME.file());
        let of = Of { volume: [1; 16], worker: NAME.worker, number: NAME.number };
        maker.make(&self.disk, &segment, of, &emitter.streams(), Wall(2)).unwrap()
    }

    fn emitter(&self, span: &Span, packed: bool) -> Emitter {
        let emitter = Emitter::encrypted(facts(packed), span.clone(), |_| Some([5; 32]));
        let mut emitter = emitter.unwrap();
        emitter.restart_under(self.keys(&emitter));
        emitter
    }

    fn opener(&self) -> SegmentOpener<'_, TestDisk> {
        SegmentOpener::new(&self.disk, Path::new("/store"), NAME, Some(&self.wraps))
    }
}

fn records(streams: &[u64], packets: u64) -> (Vec<u8>, Span) {
    let sources = streams.iter().map(|stream| SourceId::new(StreamId(*stream), 1));
    records_of(&sources.collect::<Vec<_>>(), packets)
}

fn records_of(sources: &[SourceId], packets: u64) -> (Vec<u8>, Span) {
    let (mut bytes, mut span) = (Vec::new(), Span::new(Position(0)));
    span.add_clock(ClockMap { mono: Mono(1), wall: Wall(1) });
    for index in 0..packets {
        for source in sources {
            let mut packet = vec![0x80; 12];
            packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
            (0..5).for_each(|_| packet.extend_from_slice(PLAIN));
            let meta = RecordMeta {
                kind: RecordKind::Rtp,
                flags: 1,
                generation: 1,
                source: *source,
                index: Index(index),
                arrival: Mono(1_000 + index * 20_000_000),
            };
            let at = bytes.len();
            bytes.resize(at + record_bytes(packet.len()), 0);
            record::write(&meta, &packet, &mut bytes[at..]);
            span.add(Position(at as u64), &record::read(&bytes[at..]).unwrap());
        }
    }
    span.through = Position(bytes.len() as u64);
    (bytes, span)
}

fn facts(packed: bool) -> SegmentFacts {
    SegmentFacts {
        worker: WorkerId(3),
        volume: [1; 16],
        number: 7,
        created: Wall(2),
        previous: [0; 32],
        packed,
    }
}

fn copy_of(bytes: &[u8]) -> impl FnMut(Position, &mut [u8]) -> std::io::Result<()> {
    |at, out| {
        let at = at.0 as usize;
        out.copy_from_slice(&bytes[at..at + out.len()]);
        Ok(())
    }
}

fn signer() -> SigningKey {
    SigningKey::from_seed(&[4; 32])
}

fn file(segment: &[u8]) -> impl DiskFile {
    let disk = TestDisk::default();
    disk.put(Path::new("a"), segment.to_vec());
    disk.open_read(Path::new("a")).unwrap()
}

fn rows(segment: &[u8]) -> Vec<Row> {
    let file = file(segment);
    let trailer = read_trailer(&file).unwrap();
    read_footer(&file, trailer).unwrap().rows
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn nothing_is_in_the_clear_and_the_key_gives_the_records_and_their_proof() {
    let (bytes, span) = records(&[1, 2], 900);
    let plain = Emitter::new(facts(true), span.clone(), |_| Some([5; 32])).unwrap();
    let plain = plain.all(&signer(), &mut copy_of(&bytes)).unwrap();
    assert!(contains(&plain, PLAIN));
    for packed in [true, false] {
        let store = Store::new();
        let emitter = store.emitter(&span, packed);
        let room = emitter.room_bytes();
        let segment = emitter.all(&signer(), &mut copy_of(&bytes)).unwrap();
        assert!(segment.len() as u64 <= room);
        assert!(!contains(&segment, &PLAIN[..16]), "packed {packed}");
        let (file, opener) = (file(&segment), store.opener());
        for (row, clear) in rows(&segment).iter().zip(rows(&plain)) {
            assert_eq!((row.leaf, row.cipher, row.store_key), (clear.leaf, 1, 1));
            let extent = open_extent(&file, row.offset, row.bytes, Some(&opener)).unwrap();
            let expected = read_extent(&super::tests::file(&plain), clear.offset, clear.bytes);
            assert!(extent.records == expected.unwrap().records);
            let first = read_first_record(&file, row.offset, 2_304, Some(&opener)).unwrap();
            assert!(record::read(&first).is_ok());
        }
        let mut salt = |_| Some([5; 32]);
        let report = verify_opened(&file, None, &mut salt, None, Some(&opener));
        assert!(report.is_good() && report.proven == 2 && report.unopened.is_empty());
    }
}

#[test]
fn no_key_a_wrong_one_a_lost_one_and_one_that_was_destroyed_are_told_apart() {
    let (bytes, span) = records(&[1, 98], 50);
    let store = Store::new();
    let segment = store.emitter(&span, true).all(&signer(), &mut copy_of(&bytes)).unwrap();
    let image = file(&segment);
    for row in rows(&segment) {
        let found = read_extent(&image, row.offset, row.bytes);
        assert!(matches!(found, Err(SegmentError::NoKey { .. })));
        assert!(read_first_record(&image, row.offset, 2_304, None).is_none());
    }
    let check = |opener: &dyn Opener| {
        verify_opened(&image, None, &mut |_| Some([5; 32]), None, Some(opener))
    };
    let locked = SegmentOpener::new(&store.disk, Path::new("/store"), NAME, None);
    let report = check(&locked);
    assert!(report.is_good() && report.proven == 0 && report.unopened.len() == 2);
    // Damage shows without any key.
    let mut bad = segment.clone();
    bad[rows(&segment)[0].offset as usize + 300] ^= 1;
    let mut salt = |_| Some([5; 32]);
    assert_eq!(verify_opened(&file(&bad), None, &mut salt, None, None).damaged.len(), 1);
    // One stream's key is destroyed, the other's is there.
    let keys = path_of(&folder(Path::new("/store")).join(NAME.file()));
    let found = SegmentKeys::read(&store.disk, &keys).unwrap();
    assert_eq!(found.shred(&store.disk, &[StreamId(98)], Wall(77)).unwrap(), 1);
    let report = check(&store.opener());
    assert!(report.is_good() && report.proven == 1, "{report:?}");
    let [(source, gone)] = &report.gone[..] else { panic!("{report:?}") };
    assert_eq!((source.stream(), gone.since), (StreamId(98), Wall(77)));
    assert!(gone.to_string().contains("its key is destroyed"));
    let words = |opener: &dyn Opener| {
        let report = check(opener);
        assert!(report.damaged.len() == 1 && report.unopened.is_empty(), "{report:?}");
        report.damaged[0].why.clone()
    };
    store.disk.set_store_key(Some(2));
    let other = Wraps::of(&store.disk).unwrap();
    let foreign = SegmentOpener::new(&store.disk, Path::new("/store"), NAME, Some(&other));
    assert!(words(&foreign).contains("the key of stream 1: "), "{}", words(&foreign));
    // Another segment's keys, and none.
    let elsewhere = SegmentName { number: 8, ..NAME };
    let moved = path_of(&folder(Path::new("/store")).join(elsewhere.file()));
    store.disk.put(&moved, store.disk.get(&keys));
    let opener =
        SegmentOpener::new(&store.disk, Path::new("/store"), elsewhere, Some(&store.wraps));
    assert!(check(&opener).damaged[0].why.contains("another segment's"));
    store.disk.remove(&keys).unwrap();
    assert!(check(&store.opener()).damaged[0].why.contains("the keys are not in the store"));
}

/// Whoever can write the file puts the sums right: chunks are swapped, left out, repeated, cut off at a
/// chunk's border, moved to another extent under the same secret; fields of the header are changed.
#[test]
fn chunks_can_not_be_swapped_left_out_cut_or_moved() {
    let (bytes, span) =
        records_of(&[SourceId::new(StreamId(1), 1), SourceId::new(StreamId(1), 2)], 1_200);
    let store = Store::new();
    let whole = store.emitter(&span, false).all(&signer(), &mut copy_of(&bytes)).unwrap();
    let extent = |row: &Row| whole[row.offset as usize..(row.offset + row.bytes) as usize].to_vec();
    let [good, other] = &rows(&whole).iter().map(extent).collect::<Vec<_>>()[..] else {
        panic!("two sources")
    };
    let mut borders = vec![EXTENT_HEADER_BYTES];
    while let Some(at) = borders.last().copied().filter(|at| *at < good.len()) {
        let stored = u32::from_le_bytes(*good[at..].first_chunk().unwrap()) as usize;
        borders.push(at + CHUNK_HEADER_BYTES + stored + TAG_BYTES);
    }
    let chunks: Vec<&[u8]> = borders.windows(2).map(|two| &good[two[0]..two[1]]).collect();
    assert!(chunks.len() > 3);
    let open = |head: &[u8], body: &[u8]| {
        let mut bytes = head[..EXTENT_HEADER_BYTES].to_vec();
        bytes[80..88].copy_from_slice(&(body.len() as u64).to_le_bytes());
        bytes[116..120].copy_from_slice(&crc32c(body).to_le_bytes());
        let sum = crc32c(&bytes[..124]);
        bytes[124..128].copy_from_slice(&sum.to_le_bytes());
        bytes.extend_from_slice(body);
        let length = bytes.len() as u64;
        open_extent(&file(&bytes), 0, length, Some(&store.opener())).map(|extent| extent.records)
    };
    assert!(open(good, &good[EXTENT_HEADER_BYTES..]).is_ok());
    let refused = |head: &[u8], parts: &[&[u8]]| {
        let found = open(head, &parts.concat());
        assert!(matches!(found, Err(SegmentError::Sealed { .. })));
    };
    let mut swapped = chunks.clone();
    swapped.swap(0, 1);
    refused(good, &swapped);
    refused(good, &chunks[1..]);
    refused(good, &chunks[..chunks.len() - 1]);
    refused(good, &[&chunks[..1], &chunks[2..]].concat());
    refused(good, &[&chunks[..1], &chunks[..]].concat());
    refused(good, &[&chunks[..], &chunks[chunks.len() - 1..]].concat());
    refused(good, &[]);
    // Of the extent beside it: the same secret, place and lengths.
    refused(good, &[&other[borders[0]..borders[1]], &good[borders[1]..]]);
    refused(other, &chunks);
    for at in (8..EXTENT_HEADER_BYTES - 4).filter(|at| !matches!(at, 18 | 19 | 80..88 | 116..120)) {
        // What is not in any field is zero when it is read.
        if (120..124).contains(&at) {
            continue;
        }
        let mut head = good.clone();
        head[at] ^= 1;
        let found = open(&head, &good[EXTENT_HEADER_BYTES..]);
        assert!(found.is_err(), "octet {at} of the header");
    }
    // The lengths in a chunk's header.
    let mut body = good[EXTENT_HEADER_BYTES..].to_vec();
    body[4] ^= 8;
    assert!(open(good, &body).is_err());
}

#[test]
fn no_key_and_number_come_together_twice_however_often_it_is_written() {
    let (bytes, span) = records(&[1, 2, 3], 1_000);
    let store = Store::new();
    let mut used = BTreeSet::new();
    // What reaches the disk of attempts that fail somewhere, and of several emitters: kills.
    for attempt in 0..12 {
        let mut emitter = store.emitter(&span, true);
        let mut out = vec![0; emitter.room_bytes() as usize];
        for calls in 0..3 {
            for _ in 0..calls + attempt % 2 {
                emitter.fill(&mut out, &signer(), &mut copy_of(&bytes)).unwrap();
            }
            let keys = store.keys(&emitter);
            emitter.restart_under(keys);
        }
        let segment = emitter.all(&signer(), &mut copy_of(&bytes)).unwrap();
        let opener = store.opener();
        for row in rows(&segment) {
            let header = ExtentHeader::parse(&segment[row.offset as usize..]).unwrap();
            let key = opener.key(row.source.stream(), &header.nonce).unwrap();
            assert!(used.insert(key.seal(u64::MAX, b"", &mut [])), "attempt {attempt}");
        }
    }
    let given = store.random.0.lock().unwrap();
    let different: BTreeSet<&Vec<u8>> = given.iter().collect();
    assert!(different.len() == given.len() && given.len() > used.len());
}
