//! Envelopes put together say what the records say, however the records are cut.

use std::collections::BTreeMap;

use super::*;
use crate::base::ids::{Index, RsId, Slot, SourceId, Ssrc, StreamId, WorkerId};
use crate::base::prng::Prng;
use crate::base::time::{Mono, Wall};
use crate::store::event::{Format, StreamDescription};
use crate::store::export::align::align;
use crate::store::export::g711::Codec;
use crate::store::export::timing::Timing;
use crate::store::record::{self, Record, RecordKind, RecordMeta};
use crate::store::segment::SegmentName;
use crate::wire::rtp::Fields;

const S: i64 = 1_000_000_000;
const NAME: SegmentName = SegmentName { worker: WorkerId(2), number: 77 };
const STREAM: StreamId = StreamId(9);

fn line() -> StreamDescription {
    let format = Format {
        payload_type: 8,
        codec: "PCMA".to_owned(),
        clock_rate: 8_000,
        channels: 1,
        fmtp: None,
    };
    StreamDescription {
        stream: STREAM,
        rs: RsId([1; 16]),
        line: 0,
        label: None,
        media: "audio".to_owned(),
        formats: vec![format],
        suite: None,
        transport: "RTP/AVP".to_owned(),
        slot: Slot(0),
        port: 20_000,
        remote: None,
    }
}

/// A packet on its way.
#[derive(Clone)]
struct Sent {
    ordinal: u16,
    index: u64,
    timestamp: u32,
    arrival: i64,
    payload: Vec<u8>,
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let mut packet = Fields {
            marker: false,
            payload_type: 8,
            seq: Index(self.index).seq(),
            timestamp: self.timestamp,
            ssrc: Ssrc(0x100 + u32::from(self.ordinal)),
        }
        .emit()
        .to_vec();
        packet.extend_from_slice(&self.payload);
        let meta = RecordMeta {
            kind: RecordKind::Rtp,
            flags: 0,
            generation: 1,
            source: SourceId::new(STREAM, self.ordinal),
            index: Index(self.index),
            arrival: Mono(self.arrival as u64),
        };
        let mut bytes = vec![0; record::record_bytes(packet.len())];
        record::write(&meta, &packet, &mut bytes);
        bytes
    }
}

fn read(bytes: &[u8]) -> Record<'_> {
    record::read(bytes).expect("just written")
}

/// Sources one behind the other, with losses, pauses in which RTP time goes on or stands still, packets that come
/// late, and leaps. No two packets are of one time.
fn call(seed: u64) -> Vec<Sent> {
    let mut random = Prng::new(seed);
    let mut sent: Vec<Sent> = Vec::new();
    let mut at = 5 * S;
    for ordinal in 1..=1 + random.below(3) as u16 {
        let (mut index, mut timestamp) = (random.below(1 << 20), random.next_u64() as u32);
        let mut clock = at;
        let loudness = [3, 20, 0x55][random.below(3) as usize];
        for _ in 0..200 + random.below(600) {
            let payload = (0..160).map(|_| (random.below(loudness) as u8) ^ 0xd5).collect();
            let late = random.below(15_000_000) as i64;
            let arrival = clock + late;
            sent.push(Sent { ordinal, index, timestamp, arrival, payload });
            let mut step = 1;
            match random.below(60) {
                // Lost, or not sent: RTP time goes on.
                0 => step = 1 + random.below(40),
                1 => step = 1 + random.below(2_000),
                // The encoder has begun anew.
                2 if random.below(4) == 0 => {
                    timestamp = timestamp.wrapping_add(0x4000_0000);
                }
                _ => {}
            }
            index += if random.below(2) == 0 { step } else { 1 };
            timestamp = timestamp.wrapping_add(160 * step as u32);
            clock += 20_000_000 * step as i64;
        }
        // Where two sources are heard at once, one is silent in the holes of the other.
        at = clock + S;
    }
    // Neighbours may come the other way round.
    for place in 1..sent.len() {
        let (one, two) = (&sent[place - 1], &sent[place]);
        if place > 1 && one.ordinal == two.ordinal && random.below(30) == 0 {
            sent.swap(place - 1, place);
        }
    }
    sent
}

/// Lowest and highest of those that are written at a place: where RTP time leaps, packets may overlap, and the last
/// one stands in the WAV.
type Samples = BTreeMap<i64, (i16, i16)>;

/// As an export writes it: samples by place, as it finds them; and when they were.
fn exported(sent: &[Sent]) -> (Samples, Timing) {
    let mut timing = Timing::new(8_000);
    let mut samples = Samples::new();
    for one in sent {
        let source = (one.ordinal, 0x100 + u32::from(one.ordinal));
        let at = Wall(one.arrival);
        let position = timing.packet(source, one.timestamp, at, one.payload.len() as u32);
        let mut decoded = Vec::new();
        Codec::from_name("PCMA").expect("ours").decode(&one.payload, &mut decoded);
        for (place, sample) in (position..).zip(decoded) {
            let (min, max) = samples.entry(place).or_insert((sample, sample));
            (*min, *max) = (sample.min(*min), sample.max(*max));
        }
    }
    (samples, timing)
}

/// The same from envelopes of pieces, each in its bytes.
fn joined<'a>(stream: &'a StreamDescription, sent: &[Sent], cuts: &[usize]) -> Trace<'a> {
    let mut trace = Trace::new(stream, BLOCK_MS).expect("audio");
    let mut from = 0;
    for to in cuts.iter().copied().chain([sent.len()]) {
        let mut tracer = Tracer::new(stream, BLOCK_MS).expect("audio");
        for one in &sent[from..to] {
            tracer.record(&read(&one.bytes()), Wall(one.arrival));
        }
        for envelope in tracer.finish() {
            let source = SourceId::new(STREAM, envelope.ordinal);
            let strip = Strip::Heard(envelope);
            let bytes = strip.emit(NAME, source);
            let parsed = Strip::parse(&bytes, NAME, source).expect("our own");
            assert_eq!(parsed, strip);
            let Strip::Heard(envelope) = parsed else { panic!("one that was heard") };
            trace.envelope(&envelope);
        }
        from = to;
    }
    trace
}

fn level(samples: &Samples, from: i64, to: i64) -> (i16, i16) {
    let silent = (samples.range(from..to).count() as i64) < to - from;
    let all = || samples.range(from..to).map(|(_, both)| *both).chain(silent.then_some((0, 0)));
    (all().map(|both| both.0).min().unwrap_or(0), all().map(|both| both.1).max().unwrap_or(0))
}

fn check(seed: u64, trace: &Trace<'_>, sent: &[Sent]) {
    let (samples, timing) = exported(sent);
    let (first, last) =
        (*samples.keys().next().expect("some"), *samples.keys().last().expect("some"));
    assert_eq!(trace.timing().placement().first(), timing.placement().first(), "seed {seed}");
    assert_eq!(trace.timing().placement().frames(), timing.placement().frames(), "seed {seed}");
    let [theirs] = &align(&[&timing])[..] else { panic!("one line") };
    let [ours] = &align(&[trace.timing()])[..] else { panic!("one line") };
    for place in [first, (first + last) / 2, last] {
        let (theirs, ours) = (theirs.wall(place).expect("known"), ours.wall(place).expect("known"));
        assert!((theirs.0 - ours.0).abs() < S / 50, "seed {seed}: {theirs} {ours}");
    }
    let count = |line: &crate::store::export::timeline::TimeLine| line.silences.len();
    assert_eq!(count(ours), count(theirs), "seed {seed}");
    let range = (Wall(0), Wall(10_000 * S));
    let buckets = buckets(trace, ours, range, 0, 3_000);
    let mut heard = 0;
    for bucket in buckets {
        let Some((from, to)) = bucket.samples else { continue };
        assert_eq!((bucket.min, bucket.max), level(&samples, from, to), "seed {seed} {from}");
        heard += samples.range(from..to).count();
    }
    // A bucket ends within another one's where sources overlap.
    assert!(heard >= samples.len(), "seed {seed}: each sample is in a bucket");
}

#[test]
fn whatever_the_cuts_levels_and_places_are_those_of_the_export() {
    let stream = line();
    for seed in 0..60 {
        let sent = call(seed);
        let mut random = Prng::new(seed ^ 0xc0de);
        let mut cuts: Vec<usize> =
            (0..random.below(6)).map(|_| random.below(sent.len() as u64) as usize).collect();
        // Not between two of which the later one came first: nobody knows then of one that it fills the other's hole.
        let is_late = |cut: usize| {
            let (one, two) = (&sent[cut.max(1) - 1], &sent[cut]);
            one.ordinal == two.ordinal && one.index > two.index
        };
        cuts.iter_mut().for_each(|cut| *cut -= usize::from(is_late(*cut)));
        cuts.sort_unstable();
        check(seed, &joined(&stream, &sent, &cuts), &sent);
        let mut whole = Trace::new(&stream, BLOCK_MS).expect("audio");
        for one in &sent {
            whole.record(&read(&one.bytes()), Wall(one.arrival));
        }
        check(seed, &whole, &sent);
        let (_, timing) = exported(&sent);
        assert_eq!(
            align(&[whole.timing()]),
            align(&[&timing]),
            "seed {seed}: of records, the same"
        );
    }
}

fn packets(from: u64, count: u64, code: u8) -> Vec<Sent> {
    let packet = |n: u64| Sent {
        ordinal: 1,
        index: n,
        timestamp: n as u32 * 160,
        arrival: n as i64 * S / 50,
        payload: vec![code; 160],
    };
    (from..from + count).map(packet).collect()
}

#[test]
fn silences_are_told_with_their_reasons() {
    const LOUD: u8 = 0x2a;
    const STILL: u8 = 0xd5;
    let stream = line();
    let mut sent = packets(50, 100, LOUD);
    // Three seconds lost, three seconds not sent, a pause of four, five quiet seconds.
    sent.extend(packets(300, 50, LOUD));
    let quietly = |mut some: Vec<Sent>, less: u64| {
        some.iter_mut().for_each(|one| one.index -= less);
        some
    };
    sent.extend(quietly(packets(500, 50, LOUD), 150));
    sent.extend(quietly(packets(750, 50, LOUD), 350));
    sent.extend(quietly(packets(800, 250, STILL), 350));
    sent.extend(quietly(packets(1_050, 50, LOUD), 350));
    let trace = joined(&stream, &sent, &[120, 150, 200]);
    let line = &align(&[trace.timing()])[0];
    let pauses = [(Wall(11 * S), Wall(15 * S))];
    let range = (Wall(0), Wall(30 * S));
    let told = silences(&trace, line, range, &pauses);
    let told: Vec<(i64, i64, Reason)> = told
        .iter()
        .map(|one| ((one.from.0 + S / 4) / S, (one.to.0 + S / 4) / S, one.why))
        .collect();
    let wanted = [
        (0, 1, Reason::Idle),
        (3, 6, Reason::Lost),
        (7, 10, Reason::Idle),
        (11, 15, Reason::Paused),
        (16, 21, Reason::Quiet),
        (22, 30, Reason::Idle),
    ];
    assert_eq!(told, wanted);
    let mut gone = joined(&stream, &sent, &[]);
    gone.gone(Wall(3 * S), Wall(6 * S));
    assert_eq!(silences(&gone, line, range, &[])[1].why, Reason::Gone);
}

#[test]
fn bytes_that_are_no_strip_are_told_apart() {
    let stream = line();
    let mut tracer = Tracer::new(&stream, BLOCK_MS).expect("audio");
    for one in packets(0, 500, 0x2a) {
        tracer.record(&read(&one.bytes()), Wall(one.arrival));
    }
    let source = SourceId::new(STREAM, 1);
    let envelope = tracer.finish().pop().expect("one");
    assert_eq!(envelope.levels.len(), 10);
    let bytes = Strip::Heard(envelope).emit(NAME, source);
    // A second costs some ten bytes.
    assert!(bytes.len() < 150, "{}", bytes.len());
    let other = SourceId::new(STREAM, 2);
    assert_eq!(Strip::parse(&bytes, NAME, other), Err(StripError::Elsewhere));
    let next = SegmentName { number: 78, ..NAME };
    assert_eq!(Strip::parse(&bytes, next, source), Err(StripError::Elsewhere));
    assert_eq!(Strip::parse(&[], NAME, source).map_err(|_| ()), Err(()));
    assert_eq!(Strip::parse(&[9; 40], NAME, source), Err(StripError::Version(9)));
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(Strip::parse(&longer, NAME, source), Err(StripError::Form(_))));
    for end in 0..bytes.len() {
        assert!(Strip::parse(&bytes[..end], NAME, source).is_err(), "cut at {end}");
    }
    let gone = Strip::Gone(Wall(5), Wall(9));
    let bytes = gone.emit(NAME, source);
    assert_eq!(Strip::parse(&bytes, NAME, source), Ok(gone));
    let before = Strip::Gone(Wall(9), Wall(5)).emit(NAME, source);
    assert!(matches!(Strip::parse(&before, NAME, source), Err(StripError::Impossible(_))));
}
