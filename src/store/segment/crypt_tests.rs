//! Encrypted extents: what opens, and what does not.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::base::ids::{Index, Position, SourceId, StreamId};
use crate::base::ports::{Disk, DiskFile};
use crate::base::time::{ClockMap, Mono, Wall};
use crate::store::cipher::{Fresh, WriteKeys};
use crate::store::evidence::SigningKey;
use crate::store::log::crc32c;
use crate::store::record::{self, RecordKind, RecordMeta, record_bytes};
use crate::store::segment::{
    Emitter, Row, SegmentError, SegmentFacts, Span, open_extent, read_extent, read_first_record,
    read_footer, read_trailer, verify_opened,
};
use crate::store::test_disk::TestDisk;

const PLAIN: &[u8] = b"said on a line that is recorded";

/// Secrets by stream; notes what it gave out.
#[derive(Default)]
struct Provider {
    given: Mutex<Vec<Fresh>>,
    /// Another machine's.
    foreign: bool,
}

impl WriteKeys for Provider {
    fn current(&self, stream: StreamId) -> Option<(u32, Secret)> {
        (stream.0 != 99).then(|| (4, Secret::new([stream.0 as u8; 32].into())))
    }

    fn fresh(&self) -> Fresh {
        let mut given = self.given.lock().unwrap();
        let mut fresh = [0xaa; 16];
        fresh[..8].copy_from_slice(&(given.len() as u64).to_le_bytes());
        given.push(fresh);
        fresh
    }
}

impl ReadKeys for Provider {
    fn secret(&self, stream: StreamId, epoch: u32) -> Option<Secret> {
        let octet = stream.0 as u8 ^ u8::from(self.foreign);
        (epoch == 4 && stream.0 != 98).then(|| Secret::new([octet; 32].into()))
    }
}

fn records(streams: &[u64], packets: u64) -> (Vec<u8>, Span) {
    let (mut bytes, mut span) = (Vec::new(), Span::new(Position(0)));
    span.add_clock(ClockMap { mono: Mono(1), wall: Wall(1) });
    for index in 0..packets {
        for stream in streams {
            let mut packet = vec![0x80; 12];
            packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
            (0..5).for_each(|_| packet.extend_from_slice(PLAIN));
            let meta = RecordMeta {
                kind: RecordKind::Rtp,
                flags: 1,
                generation: 1,
                source: SourceId::new(StreamId(*stream), 1),
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

fn emitter(span: &Span, packed: bool, provider: &Arc<Provider>) -> Emitter {
    let keys: Arc<dyn WriteKeys + Send + Sync> = provider.clone();
    Emitter::under(facts(packed), span.clone(), |_| Some([5; 32]), Some(keys)).unwrap()
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

fn opener(keys: &Provider) -> Option<Opener<'_>> {
    Some(Opener { worker: WorkerId(3), keys })
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
        let provider = Arc::new(Provider::default());
        let emitter = emitter(&span, packed, &provider);
        let room = emitter.room_bytes();
        let segment = emitter.all(&signer(), &mut copy_of(&bytes)).unwrap();
        assert!(segment.len() as u64 <= room);
        assert!(!contains(&segment, &PLAIN[..16]), "packed {packed}");
        let file = file(&segment);
        for (row, clear) in rows(&segment).iter().zip(rows(&plain)) {
            assert_eq!((row.leaf, row.cipher, row.key_epoch), (clear.leaf, 1, 4));
            let extent = open_extent(&file, row.offset, row.bytes, opener(&provider)).unwrap();
            let expected = read_extent(&super::tests::file(&plain), clear.offset, clear.bytes);
            assert!(extent.records == expected.unwrap().records);
            let first = read_first_record(&file, row.offset, 2_304, opener(&provider)).unwrap();
            assert!(record::read(&first).is_ok());
        }
        let mut salt = |_| Some([5; 32]);
        let report = verify_opened(&file, None, &mut salt, None, Some(&*provider));
        assert!(report.is_good() && report.proven == 2 && report.unopened.is_empty());
    }
}

#[test]
fn without_its_key_an_extent_is_encrypted_and_not_damaged() {
    let (bytes, span) = records(&[1, 98], 50);
    let provider = Arc::new(Provider::default());
    let segment = emitter(&span, true, &provider).all(&signer(), &mut copy_of(&bytes)).unwrap();
    let image = file(&segment);
    for row in rows(&segment) {
        let found = read_extent(&image, row.offset, row.bytes);
        assert!(matches!(found, Err(SegmentError::NoKey { .. })));
        assert!(read_first_record(&image, row.offset, 2_304, None).is_none());
    }
    let mut salt = |_| Some([5; 32]);
    let report = verify_opened(&image, None, &mut salt, None, None);
    assert!(report.is_good() && report.proven == 0 && report.unopened.len() == 2);
    // One recording's key is destroyed, the other's is there.
    let report = verify_opened(&image, None, &mut salt, None, Some(&*provider));
    assert!(report.is_good() && report.proven == 1 && report.unopened.len() == 1, "{report:?}");
    // Damage shows without any key.
    let mut bad = segment.clone();
    bad[rows(&segment)[0].offset as usize + 300] ^= 1;
    assert_eq!(verify_opened(&file(&bad), None, &mut salt, None, None).damaged.len(), 1);
    let foreign = Provider { foreign: true, ..Provider::default() };
    let report = verify_opened(&image, None, &mut salt, None, Some(&foreign));
    assert_eq!(report.damaged.len(), 1, "another key is told from none");
    let missing = Emitter::under(
        facts(true),
        records(&[99], 1).1,
        |_| Some([5; 32]),
        Some(provider as Arc<dyn WriteKeys + Send + Sync>),
    );
    assert!(missing.is_err(), "nothing is written in the clear for want of a secret");
}

/// Whoever can write the file puts the sums right: chunks are swapped, left out, repeated, cut off at a
/// chunk's border, moved to another extent of the same key's recording; fields of the header are changed.
#[test]
fn chunks_can_not_be_swapped_left_out_cut_or_moved() {
    let (bytes, span) = records(&[1], 1_200);
    let provider = Arc::new(Provider::default());
    let whole = emitter(&span, false, &provider).all(&signer(), &mut copy_of(&bytes)).unwrap();
    let again = emitter(&span, false, &provider).all(&signer(), &mut copy_of(&bytes)).unwrap();
    let row = rows(&whole)[0];
    let extent =
        |segment: &[u8]| segment[row.offset as usize..(row.offset + row.bytes) as usize].to_vec();
    let (good, other) = (extent(&whole), extent(&again));
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
        open_extent(&file(&bytes), 0, length, opener(&provider)).map(|extent| extent.records)
    };
    assert!(open(&good, &good[EXTENT_HEADER_BYTES..]).is_ok());
    let refused = |head: &[u8], parts: &[&[u8]]| {
        let found = open(head, &parts.concat());
        assert!(matches!(found, Err(SegmentError::Sealed { .. })));
    };
    let mut swapped = chunks.clone();
    swapped.swap(0, 1);
    refused(&good, &swapped);
    refused(&good, &chunks[1..]);
    refused(&good, &chunks[..chunks.len() - 1]);
    refused(&good, &[&chunks[..1], &chunks[2..]].concat());
    refused(&good, &[&chunks[..1], &chunks[..]].concat());
    refused(&good, &[&chunks[..], &chunks[chunks.len() - 1..]].concat());
    refused(&good, &[]);
    // Of another attempt to write the same records: same place, same lengths.
    refused(&good, &[&other[borders[0]..borders[1]], &good[borders[1]..]]);
    refused(&other, &chunks);
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
    assert!(open(&good, &body).is_err());
}

#[test]
fn no_key_and_number_come_together_twice_however_often_it_is_written() {
    let (bytes, span) = records(&[1, 2, 3], 1_000);
    let provider = Arc::new(Provider::default());
    let used = RefCell::new(BTreeSet::new());
    // What reaches the disk of attempts that fail somewhere, and of several emitters: kills.
    for attempt in 0..12 {
        let mut emitter = emitter(&span, true, &provider);
        let mut out = vec![0; emitter.room_bytes() as usize];
        for calls in 0..3 {
            for _ in 0..calls + attempt % 2 {
                emitter.fill(&mut out, &signer(), &mut copy_of(&bytes)).unwrap();
            }
            emitter.restart();
        }
        let segment = emitter.all(&signer(), &mut copy_of(&bytes)).unwrap();
        for row in rows(&segment) {
            let nonce = &segment[row.offset as usize + 24..row.offset as usize + 40];
            assert!(used.borrow_mut().insert(nonce.to_vec()), "attempt {attempt}");
        }
    }
    let given = provider.given.lock().unwrap();
    let different: BTreeSet<&Fresh> = given.iter().collect();
    assert!(different.len() == given.len() && given.len() > used.borrow().len());
}
