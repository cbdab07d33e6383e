//! Files of a store. Each image is read as it is and once more with its sums put right, so that
//! mutants get past the checksums to what the fields say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use floortape::base::ids::{Position, StreamId, WorkerId};
use floortape::base::ports::{Entropy, LogKeys, WrappedKey};
use floortape::store::audit as trail;
use floortape::store::cipher::{ChunkKey, Fresh, GroupKey, Secret};
use floortape::store::event::Event;
use floortape::store::evidence::{Hash, PublicKey, Salt, Signers, sha256};
use floortape::store::export::tar::{Block, Part};
use floortape::store::journal::{Replay, Standings, frame, history, replay_file, snapshot};
use floortape::store::keys::{KeyError, SegmentKeys, StoreKey, Wraps};
use floortape::store::log::{
    self as logs, BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, Mark, Piece, Step, Walk, crc32c,
    replay, scan_worker,
};
use floortape::store::record::{self, HEADER_BYTES, RecordKind};
use floortape::store::segment::{
    CHUNK_RECORD_BYTES_MAX, CIPHER_NONE, COMPRESSION_NONE, ExtentReader, Opener, ROW_BYTES,
    SegmentFile, THIN_ROW_BYTES, THIN_TAIL_BYTES, TRAILER_BYTES, find_rows, first_record,
    footer_hash, open_extent, put_chunk, read_extent, read_footer, read_trailer, unpack,
    verify_opened, verify_segment,
};

use super::disk::{Image, ImageFile, OneKey};

/// Longer images only cost time.
const IMAGE_BYTES_MAX: usize = 1 << 20;

/// A log gives each position at most once and in order, doubts included.
pub fn log(data: &[u8]) {
    if data.len() <= IMAGE_BYTES_MAX {
        read_log(data.to_vec());
        read_log(sealed_log(data));
    }
}

fn read_log(image: Vec<u8>) {
    let (store, worker) = (Path::new("store"), WorkerId(1));
    let file_bytes = image.len() as u64;
    let path: PathBuf = logs::folder(store, worker).join("a.log");
    let disk = Image(BTreeMap::from([(path, image)]));
    assert_eq!(logs::workers(&disk, store).expect("memory"), [worker]);
    let scans = scan_worker(&disk, store, worker, u64::MAX).expect("memory");
    let mut groups: Vec<_> = scans.into_iter().flat_map(|scan| scan.groups).collect();
    let mut end = 0;
    for found in &groups {
        assert!(found.offset >= end && found.offset < file_bytes, "groups overlap");
        end = found.offset + GROUP_HEADER_BYTES as u64 + found.header.stored_bytes();
    }
    let mut at = Position(0);
    let range = (at, Position(u64::MAX));
    let promised = Mark { durable: Position(file_bytes / 2), ..Mark::default() };
    let replayed = replay(&disk, &mut groups, range, &promised, &mut |_, piece| match piece {
        Piece::Doubt(doubt) | Piece::Torn(doubt) => {
            assert!(doubt.from == at && doubt.from < doubt.to, "{doubt:?}");
        }
        Piece::Group { found, payload, from } => {
            assert!(from == at && from < found.header.end());
            assert_eq!(payload.len() as u64, found.header.bytes);
            walk(payload, found.header.first, found.header.ring_bytes);
            at = found.header.end();
        }
        Piece::Locked(doubt) => {
            assert!(doubt.from >= at && doubt.from < doubt.to, "{doubt:?}");
            at = doubt.to;
        }
    });
    assert_eq!(replayed.end, at);
    logs::next_position(&disk, store, worker).expect("memory");
}

fn walk(payload: &[u8], first: Position, ring_bytes: u64) {
    let mut at = first.0;
    for step in Walk::new(payload, first, ring_bytes) {
        let (from, bytes) = match step {
            Step::Record { at, record } => {
                assert!(record.meta.kind != RecordKind::Pad);
                let mut again = vec![0; record.raw.len()];
                record::write(&record.meta, record.payload, &mut again);
                let covered = HEADER_BYTES + record.payload.len();
                assert_eq!(again[..covered], record.raw[..covered]);
                event(record.payload);
                (at.0, record.raw.len() as u64)
            }
            Step::Damaged { at, bytes } => (at.0, bytes),
        };
        assert!(from >= at && bytes > 0, "steps overlap at {at}");
        at = from + bytes;
    }
    assert!(at <= first.0 + payload.len() as u64, "a step behind the payload");
}

fn event(payload: &[u8]) {
    if let Ok(event) = Event::from_payload(payload) {
        let again = Event::from_payload(&event.to_payload()).expect("our own event");
        assert_eq!(again, event);
    }
}

fn sealed_log(data: &[u8]) -> Vec<u8> {
    let mut image = data.to_vec();
    seal(&mut image, 0, 64);
    if image.get(14).is_some_and(|cipher| *cipher != 0) {
        seal(&mut image, 68, 64);
    }
    for at in (BLOCK_BYTES..image.len()).step_by(BLOCK_BYTES) {
        let start = at + GROUP_HEADER_BYTES;
        seal(&mut image, at, 124);
        let header = image.get(at..).and_then(GroupHeader::parse);
        if let Some(mut header) = header
            && let Some(stored) = start
                .checked_add(header.stored_bytes() as usize)
                .and_then(|end| image.get_mut(start..end))
        {
            // What a mutant says is then what was encrypted.
            header.close(log_key(header.encrypted).0.as_ref(), stored);
            header.emit(&mut image[at..]);
        }
    }
    image
}

/// Whether every byte of a segment is proven under `key`.
pub fn is_proven(data: &[u8], salt: Salt, key: &PublicKey) -> bool {
    let file = ImageFile(data.to_vec());
    let report = verify_opened(&file, None, &mut |_| Some(salt), Some(key), Some(&Keys(1)));
    report.is_good() && report.unopened.is_empty()
}

/// What is unpacked is bounded by what is there, and packs again to itself; anything at all that is
/// packed comes back.
pub fn packed(data: &[u8]) {
    let again = |records: &[u8]| {
        for wanted in [true, false] {
            let mut chunk = Vec::new();
            put_chunk(records, wanted, &mut chunk);
            assert!(chunk.len() <= records.len() + 8);
            assert_eq!(unpack(&chunk, u64::MAX).as_deref(), Some(records));
            if let Ok(first) = record::read(records) {
                let found = first_record(&chunk).expect("a whole record");
                assert_eq!(found, first.raw);
            }
        }
    };
    let piece = &data[..data.len().min(CHUNK_RECORD_BYTES_MAX)];
    if !piece.is_empty() {
        again(piece);
    }
    if let Some(first) = first_record(data) {
        assert!(first.len() <= data.len().max(HEADER_BYTES) * 20);
    }
    if let Some(records) = unpack(data, u64::MAX) {
        assert!(records.len() <= data.len() * 20);
        assert!(records.is_empty() || unpack(data, records.len() as u64 - 1).is_none());
        records.chunks(CHUNK_RECORD_BYTES_MAX).for_each(again);
    }
}

/// The key of an encrypted log in the corpus, and how it stands in the first block; none where it is in
/// the clear.
pub fn log_key(encrypted: bool) -> (Option<GroupKey>, Option<WrappedKey>) {
    let key = encrypted.then(|| OneKey.make(""));
    key.map(|(secret, wrapped)| (GroupKey::new(Secret::new(secret)), wrapped)).unzip()
}

/// What the random octets are of which the encrypted segments in the corpus are made: it is the same each
/// time it is written.
pub struct Same;

impl Entropy for Same {
    fn fill(&self, out: &mut [u8]) {
        out.fill(9);
    }
}

/// The keys of the encrypted segments in the corpus, and of the files beside them.
pub fn wraps() -> Wraps {
    Wraps::new(&[StoreKey::taken_over(1, [9; 32].into())])
}

/// What opens the segment of that number.
struct Keys(u64);

impl Opener for Keys {
    fn key(&self, _: StreamId, fresh: &Fresh) -> Result<ChunkKey, KeyError> {
        Ok(ChunkKey::of_extent(&Secret::new([9; 32].into()), WorkerId(1), self.0, fresh))
    }
}

/// Keys of a segment: whatever the file says, a secret is the one that was wrapped or none.
pub fn segment_keys(data: &[u8]) {
    if data.len() > IMAGE_BYTES_MAX {
        return;
    }
    let mut image = data.to_vec();
    for sealed in [false, true] {
        if sealed {
            seal(&mut image, 0, 124);
            (128..image.len()).step_by(96).for_each(|at| seal(&mut image, at, 92));
        }
        let Some(keys) = SegmentKeys::parse(Path::new("a.keys"), &image) else { continue };
        let wraps = wraps();
        let mut streams = Vec::new();
        for entry in image[128..].as_chunks::<96>().0 {
            let stream = StreamId(u64::from_le_bytes(*entry.first_chunk().expect("8 of 96")));
            if let Ok(secret) = keys.secret(stream, &wraps) {
                assert_eq!(secret.expose(), &[9; 32]);
            }
            streams.push(stream);
        }
        keys.faults(&streams);
    }
}

/// A segment's parts lie within it, whatever its fields say.
pub fn segment(data: &[u8]) {
    if data.len() <= IMAGE_BYTES_MAX {
        read_segment(data.to_vec(), false);
        read_segment(sealed_segment(data), true);
    }
}

fn read_segment(image: Vec<u8>, sealed: bool) {
    let file = ImageFile(image);
    let file_bytes = file.0.len() as u64;
    let report = verify_segment(&file, None, &mut |_| None, None);
    assert!(report.trailer.is_some() || !report.is_good(), "good without a trailer");
    let Ok(trailer) = read_trailer(&file) else { return };
    assert!(trailer.rows_at <= trailer.clocks_at && trailer.clocks_at <= trailer.fences_at);
    assert!(trailer.fences_at + trailer.fences * 40 + TRAILER_BYTES as u64 <= file_bytes);
    let Ok(footer) = read_footer(&file, trailer.clone()) else { return };
    assert_eq!(footer.rows.len() as u64, trailer.rows);
    assert_eq!(footer.clocks.len() as u64, trailer.clocks);
    let streams: BTreeSet<StreamId> = footer.rows.iter().map(|row| row.source.stream()).collect();
    let (rows, bytes) = find_rows(&file, &trailer, &streams).expect("rows that were just read");
    assert!(bytes <= file_bytes && rows.len() <= footer.rows.len());
    if !sealed {
        assert_eq!(rows, footer.rows);
    }
    let mut reader = ExtentReader::default();
    for row in &footer.rows {
        let found = open_extent(&file, row.offset, row.bytes, Some(&Keys(trailer.number)));
        let clear = read_extent(&file, row.offset, row.bytes);
        let again = reader.open(&file, row.offset, row.bytes, Some(&Keys(trailer.number)));
        let Ok(extent) = found else {
            assert!(clear.is_err(), "read without a key, and not with one");
            assert!(again.is_err(), "read in the place of another, and not alone");
            continue;
        };
        let again = again.expect("read alone");
        assert_eq!(again.records, extent.records);
        let mut rest = again.records;
        while again.is_summed && !rest.is_empty() {
            rest = &rest[record::read(rest).expect("its sum was computed").raw.len()..];
        }
        assert_eq!(clear.is_ok(), extent.header.cipher == CIPHER_NONE);
        assert!(row.offset + row.bytes <= file_bytes);
        if (extent.header.cipher, extent.header.compression) == (CIPHER_NONE, COMPRESSION_NONE) {
            assert_eq!(extent.records.len() as u64, extent.header.bytes);
        }
        walk(&extent.records, Position(0), u64::MAX);
    }
}

fn sealed_segment(data: &[u8]) -> Vec<u8> {
    let mut image = data.to_vec();
    let Some(trailer) = image.len().checked_sub(TRAILER_BYTES) else { return image };
    let field = |image: &[u8], offset| word(image, trailer + offset);
    let (Some(rows_at), Some(rows), Some(fences_at), Some(fences)) =
        (field(&image, 64), field(&image, 72), field(&image, 96), field(&image, 104))
    else {
        return image;
    };
    for row in 0..rows.min(trailer / ROW_BYTES) {
        let Some(at) = rows_at.checked_add(row * ROW_BYTES) else { break };
        let field = |behind: usize| at.checked_add(behind).and_then(|at| word(&image, at));
        if let (Some(offset), Some(bytes)) = (field(8), field(16)) {
            if let Some(end) = offset.checked_add(bytes)
                && let Some(records) = image.get(offset.saturating_add(128)..end)
            {
                let sum = crc32c(records).to_le_bytes();
                image[offset + 116..offset + 120].copy_from_slice(&sum);
            }
            seal(&mut image, offset, 124);
        }
        seal(&mut image, at, 124);
    }
    let end = fences.checked_mul(40).and_then(|bytes| bytes.checked_add(fences_at));
    if let Some(footer) = end.and_then(|end| image.get(rows_at..end)) {
        let hash = footer_hash(footer);
        image[trailer + 312..trailer + 344].copy_from_slice(&hash);
    }
    let file_bytes = (image.len() as u64).to_le_bytes();
    image[trailer + 304..trailer + 312].copy_from_slice(&file_bytes);
    seal(&mut image, trailer, 508);
    image
}

/// Whether every byte of a thinned segment is proven under `key`.
pub fn is_proven_thinned(data: &[u8], salt: Salt, key: &PublicKey) -> bool {
    let file = SegmentFile::of_thinned(ImageFile(data.to_vec())).expect("memory");
    file.verify(None, &mut |_| Some(salt), Some(&Signers::one(*key)), None).is_good()
}

/// A thinned segment reads as the one that it was: each extent is here or gone, and nothing lies
/// outside of the file.
pub fn thinned(data: &[u8]) {
    if data.len() <= IMAGE_BYTES_MAX {
        read_thinned(data.to_vec());
        read_thinned(sealed_thinned(data));
    }
}

fn read_thinned(image: Vec<u8>) {
    let file_bytes = image.len() as u64;
    let file = SegmentFile::of_thinned(ImageFile(image)).expect("memory");
    let report = file.verify(None, &mut |_| None, None, None);
    let Some(thinned) = file.thinned() else {
        assert!(!report.is_good() && report.trailer.is_none(), "good without a table");
        return;
    };
    let tail = thinned.tail().clone();
    assert!(tail.footer_at + tail.footer_bytes + TRAILER_BYTES as u64 == tail.table_at);
    assert!(tail.rules_at + tail.rules_bytes + THIN_TAIL_BYTES as u64 <= file_bytes);
    let gone = (0..tail.rows as usize).filter(|row| thinned.gone(*row).is_some()).count();
    assert_eq!(gone as u64, tail.gone);
    let Ok(footer) = read_trailer(&file).and_then(|trailer| read_footer(&file, trailer)) else {
        return;
    };
    let known = thinned.faults(None).is_empty();
    for (place, row) in footer.rows.iter().enumerate().filter(|_| known) {
        match read_extent(&file, row.offset, row.bytes) {
            Ok(extent) => {
                assert!(thinned.gone(place).is_none());
                walk(&extent.records, Position(0), u64::MAX);
            }
            Err(error) => assert_eq!(error.gone().is_some(), thinned.gone(place).is_some()),
        }
    }
}

fn sealed_thinned(data: &[u8]) -> Vec<u8> {
    let mut image = data.to_vec();
    let Some(tail) = image.len().checked_sub(THIN_TAIL_BYTES) else { return image };
    let field = |offset| word(&image, tail + offset);
    let (Some(footer_at), Some(footer), Some(table_at), Some(rows), Some(rules)) =
        (field(48), field(56), field(64), field(72), field(88))
    else {
        return image;
    };
    if let Some(trailer) = footer_at.checked_add(footer) {
        seal(&mut image, trailer, 508);
    }
    let end = rows.checked_mul(THIN_ROW_BYTES).and_then(|bytes| bytes.checked_add(rules));
    let end = end.and_then(|bytes| bytes.checked_add(table_at));
    if let Some(table) = end.and_then(|end| image.get(table_at..end)) {
        let hash = sha256(table);
        image[tail + 112..tail + 144].copy_from_slice(&hash);
    }
    let file_bytes = (image.len() as u64).to_le_bytes();
    image[tail + 96..tail + 104].copy_from_slice(&file_bytes);
    seal(&mut image, tail, 508);
    image
}

/// Entries and damage cover the file, each byte once; entries written again are the same entries; a
/// snapshot of them, or what is read of the bytes as one, says the same when it is read again.
pub fn journal(data: &[u8]) {
    if data.len() <= IMAGE_BYTES_MAX {
        for image in [data, &sealed_journal(data)] {
            read_journal(image);
            read_history(image);
            if let Some((through, standings)) = snapshot::read(image) {
                say_again(&standings, through);
            }
        }
    }
}

/// Whatever is read of a file is read again of one that is made of it.
fn read_history(image: &[u8]) {
    let mut found = Vec::new();
    let damage = history::read("00000001.history", image, |entry| found.push(entry));
    assert!(damage.iter().all(|damage| damage.middle && damage.from <= damage.to));
    let mut frames = Vec::new();
    if found.iter().all(|entry| frame::write(entry, &mut frames)) {
        let mut again = Vec::new();
        let whole = history::write(1, &frames, None, None);
        assert!(history::read("h", &whole, |entry| again.push(entry)).is_empty());
        assert_eq!(again, found);
    }
}

fn say_again(standings: &Standings, through: u32) {
    if let Some(written) = snapshot::write(standings, through) {
        assert_eq!(snapshot::read(&written), Some((through, standings.clone())));
    }
}

fn read_journal(image: &[u8]) {
    let mut found = Replay::default();
    replay_file("00000001.journal", image, &mut found);
    let mut end = 0;
    for (place, damage) in found.damage.iter().enumerate() {
        assert!(end <= damage.from && damage.from < damage.to, "{damage:?}");
        assert!(damage.to <= image.len() as u64);
        assert_eq!(damage.middle, damage.to < image.len() as u64, "{damage:?}");
        assert!(damage.middle || place + 1 == found.damage.len());
        end = damage.to;
    }
    let damaged: u64 = found.damage.iter().map(|damage| damage.to - damage.from).sum();
    assert_eq!(found.entries.is_empty(), damaged == image.len() as u64);
    let mut written = Vec::new();
    for entry in &found.entries {
        assert!(frame::write(entry, &mut written) || image.len() > frame::BODY_BYTES_MAX / 8);
    }
    let mut again = Replay::default();
    replay_file("00000001.journal", &written, &mut again);
    assert_eq!(again.entries, found.entries);
    assert!(again.damage.is_empty());
    let mut standings = Standings::of(&found.entries);
    say_again(&standings, 1);
    standings.forget();
    say_again(&standings, 1);
}

/// Entries, damage and tails cover the file, each byte once; what is read without a fault is one chain;
/// entries written again are the same entries.
pub fn audit(data: &[u8]) {
    if data.len() <= IMAGE_BYTES_MAX {
        for image in [data, &sealed_journal(data)] {
            read_trail(image);
        }
    }
}

fn read_trail(image: &[u8]) {
    let mut found = Vec::new();
    let learn = |entry: trail::Entry, hash: &Hash| found.push((entry, *hash));
    let summary = trail::walk_file("00000001.audit", image, learn);
    let mut unread = 0;
    for fault in &summary.faults {
        assert!(fault.at < image.len() as u64, "{fault}");
        if let trail::Wrong::Damaged { bytes } = fault.wrong {
            assert!(bytes > 0 && fault.at + bytes <= image.len() as u64, "{fault}");
            unread += bytes;
        }
    }
    for tail in &summary.tails {
        assert_eq!(tail.from + tail.bytes, image.len() as u64, "a tail ends the file");
        unread += tail.bytes;
    }
    assert!(summary.tails.len() <= 1);
    assert!(unread <= image.len() as u64);
    assert_eq!(found.is_empty(), unread == image.len() as u64);
    let last = found.last().map(|(entry, hash)| trail::Head { number: entry.number, hash: *hash });
    assert_eq!(summary.head, last.unwrap_or_default());
    if summary.faults.is_empty() {
        let mut head = trail::Head::default();
        for (entry, hash) in &found {
            assert_eq!((entry.number, entry.previous), (head.number + 1, head.hash));
            head = trail::Head { number: entry.number, hash: *hash };
        }
    }
    for (entry, _) in &found {
        let mut written = Vec::new();
        assert!(frame::write(entry, &mut written));
        let again = frame::read::<trail::Entry>(&written).expect("just written");
        assert_eq!((&again.0, again.1), (entry, written.len()));
    }
}

/// A header that is read stays below its folder; it and its size are read again of what is written of it.
pub fn tar(data: &[u8]) {
    let mut block: Block = [0; 512];
    let count = data.len().min(block.len());
    block[..count].copy_from_slice(&data[..count]);
    let sums = |block: &Block| -> u32 {
        let others = block[..148].iter().chain(&block[156..]);
        others.map(|byte| u32::from(*byte)).sum::<u32>() + 256
    };
    let mut summed = block;
    summed[148..156].copy_from_slice(format!("{:06o}\0 ", sums(&block)).as_bytes());
    for block in [block, summed] {
        let Ok(Some(part)) = Part::parse(&block) else { continue };
        let (Part::File { path, .. } | Part::Folder { path }) = &part;
        assert!(!path.starts_with('/') && path.split('/').all(|name| name != ".." && name != "."));
        // A path may have been split where ours never is.
        if let Some(header) = part.header() {
            assert_eq!(Part::parse(&header), Ok(Some(part)));
        }
    }
}

fn sealed_journal(data: &[u8]) -> Vec<u8> {
    let mut image = data.to_vec();
    let mut at = 0;
    while let Some(four) = image.get(at..at + 4) {
        let length = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        let end = at + frame::HEAD_BYTES + length as usize;
        let Some(body) = image.get(at + frame::HEAD_BYTES..end) else { break };
        let sum = crc32c(&[&length.to_le_bytes()[..], body].concat()).to_le_bytes();
        image[at + 4..at + 8].copy_from_slice(&sum);
        at = end;
    }
    image
}

fn word(image: &[u8], at: usize) -> Option<usize> {
    let bytes = image.get(at..at.checked_add(8)?)?;
    usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
}

/// Puts the CRC-32C at `start + sum_at` over the bytes between right, where they are there.
fn seal(image: &mut [u8], start: usize, sum_at: usize) {
    let place = start.checked_add(sum_at).and_then(|at| Some((at, at.checked_add(4)?)));
    if let Some((at, end)) = place
        && end <= image.len()
    {
        let sum = crc32c(&image[start..at]).to_le_bytes();
        image[at..end].copy_from_slice(&sum);
    }
}

/// A position of a tap that is understood is told the same again.
pub fn tap_mark(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(mark) = text.parse::<floortape::store::tap::Mark>() {
        assert_eq!(mark.to_string().parse(), Ok(mark));
    }
}

/// Whatever stands in a block of the ring, a walk over it stays inside and goes on only behind whole records.
pub fn tap_walk(data: &[u8]) {
    use floortape::store::tap::{Walked, walk};
    for ring_bytes in [1 << 20, (data.len() as u64).next_multiple_of(8).max(64)] {
        let mut last = ring_bytes;
        let walked = walk(data, ring_bytes, ring_bytes, |_| true, &mut |behind, record| {
            assert!(behind >= last + record.raw.len() as u64);
            assert!(record.payload.len() < data.len());
            last = behind;
        });
        let (Walked::To(end) | Walked::Lost(end)) = walked;
        assert!(end >= last && end <= ring_bytes + data.len() as u64);
    }
}

/// A row of peaks that is understood is written the same again; bytes behind it, or of another row, are not taken.
pub fn peaks(data: &[u8]) {
    use floortape::base::ids::SourceId;
    use floortape::store::peaks::{Strip, StripError};
    use floortape::store::segment::SegmentName;
    let segment = SegmentName { worker: WorkerId(1), number: 300 };
    let source = SourceId::new(StreamId(7), 2);
    if let Ok(strip) = Strip::parse(data, segment, source) {
        let bytes = strip.emit(segment, source);
        assert_eq!(Strip::parse(&bytes, segment, source), Ok(strip.clone()));
        let next = SegmentName { number: 301, ..segment };
        assert_eq!(Strip::parse(data, next, source), Err(StripError::Elsewhere));
        if let Strip::Heard(envelope) = strip {
            let block = envelope.block;
            assert!(envelope.levels.windows(2).all(|two| two[0].0 < two[1].0));
            assert!(envelope.levels.iter().all(|(_, one)| one.frames <= block));
            drawn(&envelope);
        }
    }
}

/// Whatever a row says, what is drawn of it is as much as was asked for, and in the range.
fn drawn(envelope: &floortape::store::peaks::Envelope) {
    use floortape::base::time::Wall;
    use floortape::store::export::align::align;
    use floortape::store::peaks::{Rates, Trace, buckets, silences};
    let description = super::played::description("PCMU", 8_000);
    let Some(mut trace) = Trace::new(&description, 1_000) else { return };
    let of_line = Rates { rate: 8_000, clock_rate: 8_000, channels: 1 };
    trace.envelope(&floortape::store::peaks::Envelope { rates: of_line, ..envelope.clone() });
    let lines = align(&[trace.timing()]);
    let first = envelope.marks.first().map_or(0, |mark| mark.arrival.0);
    let range = (Wall(first.saturating_sub(1 << 30)), Wall(first.saturating_add(1 << 40)));
    assert_eq!(buckets(&trace, &lines[0], range, 0, 50).len(), 50);
    for silence in silences(&trace, &lines[0], range, &[]) {
        assert!(range.0 <= silence.from && silence.from < silence.to && silence.to <= range.1);
    }
}
