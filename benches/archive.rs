//! Makes a large store in a few seconds, for whoever measures what reading one costs (`verify.sh`): segments by
//! the product's `Emitter`, journal, keys and salts by its own writers; only the packets come from a table
//! instead of a network.
//!
//! Recordings of two lines of G.711, 20 ms, over one worker: arrivals with up to a millisecond of jitter,
//! payload random (so that nothing but headers packs), a sender report of each every 5 s. A segment holds 15 s,
//! or as long as is said; where that is asked for, all lines but the first send one packet of so many only.
//! All recordings have ended, all of them is sealed.
//!
//! `cargo bench --bench archive -- DIR [RECORDINGS] [SECONDS] [packed|plain] [LINES] [TABLE] [SEGMENT_S] [ONE_OF] [CODEC]`
//!     500 × 240 s of 2 lines: 12 M packets. TABLE: octets of payload before they come again (1 MiB); a small one
//!     lets a file system that compresses hold what none else could. CODEC: pcma, or opus: ten seconds of a voice
//!     of a kind in one channel, again and again

use std::fs::File;
use std::io::Write;
use std::path::Path;

use floortape::base::ids::{
    Generation, Index, Position, RsId, Slot, SourceId, Ssrc, StreamId, WorkerId,
};
use floortape::base::ports::Entropy as _;
use floortape::base::prng::Prng;
use floortape::base::time::{ClockMap, Mono, Wall};
use floortape::host::disk::HostDisk;
use floortape::host::entropy::SystemEntropy;
use floortape::host::{keyfile, signing, spare, volume};
use floortape::store::event::{Event, Format, HostDrops, Origin, StreamDescription};
use floortape::store::evidence::SigningKey;
use floortape::store::journal::entry::{DialogState, Entry, Signalling, SrcFacts, StreamOpened};
use floortape::store::journal::keybox::{answer_context, salt_context};
use floortape::store::journal::{Journal, KeyBox, history};
use floortape::store::record::{self, RecordKind, RecordMeta, record_bytes};
use floortape::store::segment::{Emitter, SegmentFacts, SegmentName, Span, folder};
use floortape::wire::rtcp::{SenderInfo, Writer};
use floortape::wire::rtp::Fields;

/// Wall time of monotonic 0.
const EPOCH: i64 = 1_790_000_000_000_000_000;
const MS: u64 = 1_000_000;
/// What half a ring of the default length holds.
const SEGMENT_S: u64 = 15;
const PACKETS_PER_S: u64 = 50;
const REPORT_S: u64 = 5;
const SAMPLES: usize = 160;
/// One for all recordings: whoever reads opens each by itself all the same.
const SALT: [u8; 32] = [3; 32];
/// When the first packet comes.
const START_MS: u64 = 1_000;

struct Ring {
    bytes: Vec<u8>,
    base: u64,
    span: Span,
}

impl Ring {
    fn put(&mut self, kind: RecordKind, source: SourceId, index: u64, ns: u64, payload: &[u8]) {
        let at = self.bytes.len();
        self.bytes.resize(at + record_bytes(payload.len()), 0);
        let meta = RecordMeta {
            kind,
            flags: 0,
            generation: 1,
            source,
            index: Index(index),
            arrival: Mono(ns),
        };
        record::write(&meta, payload, &mut self.bytes[at..]);
        let record = record::read(&self.bytes[at..]).expect("just written");
        self.span.add(Position(self.base + at as u64), &record);
    }

    fn event(&mut self, stream: StreamId, ns: u64, event: &Event) {
        self.put(RecordKind::Event, SourceId::new(stream, 0), 0, ns, &event.to_payload());
    }

    /// Begins the next span where this one ends.
    fn take(&mut self) -> Span {
        let through = Position(self.base + self.bytes.len() as u64);
        let mut span = std::mem::replace(&mut self.span, Span::new(through));
        // As the spool does: each segment tells its clock.
        self.span.add_clock(ClockMap { mono: Mono(0), wall: Wall(EPOCH) });
        span.through = through;
        self.base = through.0;
        span
    }
}

fn recording(number: u64) -> RsId {
    let mut id = [0x2a; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    RsId(id)
}

/// Ten seconds of what a telephone sends as Opus: a pitch that moves, its harmonics and some breath, loud and silent
/// by turns.
fn voice() -> Vec<Vec<u8>> {
    let mut coder =
        ropus::OpusEncoder::new(48_000, 1, ropus::OPUS_APPLICATION_VOIP).expect("plain");
    let (mut random, mut turn) = (Prng::new(5), 0.0_f64);
    let mut sample = |n: u64| {
        let seconds = n as f64 / 48_000.0;
        turn += (140.0 + 40.0 * (seconds * 2.1).sin()) / 48_000.0 * std::f64::consts::TAU;
        let voiced: f64 = (1..12).map(|n| (turn * f64::from(n)).sin() / f64::from(n)).sum();
        let breath = random.below(2_001) as f64 / 1_000.0 - 1.0;
        let swell = (seconds * 4.0).sin().max(0.0);
        ((voiced * 4_000.0 + breath * 600.0) * swell) as i16
    };
    let packet = |number: u64| {
        let frame: Vec<i16> = (number * 960..(number + 1) * 960).map(&mut sample).collect();
        let mut packet = vec![0; 1_500];
        let count = coder.encode(&frame, 960, &mut packet, 1_500).expect("room") as usize;
        packet.truncate(count);
        packet
    };
    (0..500).map(packet).collect()
}

fn description(stream: u64, (lines, is_opus): (u64, bool)) -> StreamDescription {
    let line = (stream % lines) as u16;
    let (payload_type, codec, clock_rate, channels) =
        if is_opus { (96, "opus", 48_000, 2) } else { (8, "PCMA", 8_000, 1) };
    StreamDescription {
        stream: StreamId(stream + 1),
        rs: recording(stream / lines),
        line,
        label: Some(line.to_string()),
        media: "audio".to_owned(),
        formats: vec![Format {
            payload_type,
            codec: codec.to_owned(),
            clock_rate,
            channels,
            fmtp: None,
        }],
        suite: None,
        transport: "RTP/AVP".to_owned(),
        slot: Slot(stream as u32),
        port: 20_000 + 2 * (stream % 10_000) as u16,
        remote: Some(([192, 0, 2, 1], 4_000).into()),
    }
}

fn entries(
    (number, (lines, is_opus)): (u64, (u64, bool)),
    keys: &KeyBox,
    ended_ms: u64,
    through: Position,
) -> Vec<Entry> {
    let rs = recording(number);
    let at = |ms: u64| Wall(EPOCH + (ms * MS) as i64);
    let seal = |secret: &[u8], context: &str| keys.seal(&SystemEntropy, secret, context);
    let streams = number * lines..(number + 1) * lines;
    let description = |stream| description(stream, (lines, is_opus));
    let opened = |stream| StreamOpened {
        description: description(stream),
        generation: Generation(1),
        active: true,
        rtcp_to: None,
        rtcp_mux: false,
        crypto: None,
        barred: None,
        address: None,
    };
    let closed = |stream| Entry::StreamClosed {
        rs,
        stream: description(stream).stream,
        slot: description(stream).slot,
        at: at(ended_ms),
        by: Origin::Src,
        through: Some(through),
    };
    let mut all = vec![
        Entry::Opened {
            rs,
            at: at(START_MS),
            dialog: DialogState {
                call_id: format!("{number}@src"),
                local_tag: "l".to_owned(),
                remote_tag: "r".to_owned(),
                local_uri: "<sip:srs@192.0.2.9>".to_owned(),
                remote_uri: "<sip:src@192.0.2.1>".to_owned(),
                remote_target: "sip:src@192.0.2.1".to_owned(),
                route_set: Vec::new(),
                local_cseq: 0,
                remote_cseq: 1,
                transport: "udp".to_owned(),
                peer: ([192, 0, 2, 1], 5_060).into(),
                local: ([192, 0, 2, 9], 5_060).into(),
                identity: None,
                user: None,
                answered: None,
                update: false,
            },
            src: SrcFacts {
                address: Some(([192, 0, 2, 1], 5_060).into()),
                identity: "sip:src@192.0.2.1".to_owned(),
                user_agent: "archive".to_owned(),
            },
            signalling: Signalling::Udp,
            quirks: Vec::new(),
            salt: seal(&SALT, &salt_context(rs)),
            streams: streams.clone().map(opened).collect(),
            own: false,
            answer: String::new(),
            answer_sdp: seal(b"", &answer_context(rs)),
            bodies: None,
            timer: None,
            retention: None,
        },
        Entry::Ended {
            rs,
            at: at(ended_ms),
            by: Origin::Src,
            reason: "BYE".to_owned(),
            remote_cseq: 2,
            bye: false,
        },
    ];
    all.extend(streams.map(closed));
    all
}

/// Seals what `ring` holds as segment `number`; its chain head, and its bytes.
fn seal(
    store: &Path,
    ring: &mut Ring,
    (number, previous): (u64, [u8; 32]),
    created: Wall,
    key: &SigningKey,
    packed: bool,
) -> ([u8; 32], u64) {
    let base = ring.base;
    let span = ring.take();
    let facts =
        SegmentFacts { worker: WorkerId(0), volume: [1; 16], number, created, previous, packed };
    let mut emitter = Emitter::new(facts, span, |_| Some(SALT)).expect("a salt for each");
    let mut copy = |at: Position, out: &mut [u8]| {
        let at = (at.0 - base) as usize;
        out.copy_from_slice(&ring.bytes[at..at + out.len()]);
        Ok(())
    };
    let name = SegmentName { worker: WorkerId(0), number };
    let mut file = File::create(folder(store).join(name.file())).expect("a folder of ours");
    let (mut out, mut bytes) = (vec![0; 1 << 20], 0);
    while !emitter.is_done() {
        let filled = emitter.fill(&mut out, key, &mut copy).expect("memory");
        file.write_all(&out[..filled]).expect("room");
        bytes += filled as u64;
    }
    ring.bytes.clear();
    (emitter.head(), bytes)
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let Some(dir) = words.first() else {
        println!("archive: makes a store for verify.sh; say where");
        return;
    };
    let number = |place: usize, default: u64| {
        words.get(place).map_or(default, |word| word.parse().expect("a number"))
    };
    let (recordings, seconds) = (number(1, 500), number(2, 240));
    let packed = words.get(3).is_none_or(|word| word != "plain");
    let (lines, table) = (number(4, 2), number(5, 1 << 20));
    let (segment_s, one_of) = (number(6, SEGMENT_S), number(7, 1));
    let is_opus = words.get(8).is_some_and(|word| word == "opus");
    let voice = if is_opus { voice() } else { Vec::new() };
    let every = |stream: u64| if stream == 0 { 1 } else { one_of };
    let store = Path::new(dir);
    let journal_dir = store.join("journal");
    std::fs::create_dir_all(&journal_dir).expect("writable");
    std::fs::create_dir_all(folder(store)).expect("writable");
    let (mut volume, _) = volume::open(store, "archive").expect("writable");
    spare::record(store, &mut volume, None, &journal_dir).expect("writable");
    let secret = keyfile::load_or_make(store, &mut volume, &journal_dir, &SystemEntropy);
    let keys = KeyBox::new(&secret.expect("writable")).expect("32 bytes");
    let key = signing::load_or_make(store, &SystemEntropy).expect("writable");

    let mut table = vec![0; table as usize];
    SystemEntropy.fill(&mut table);
    let mut random = Prng::new(1);
    let mut ring = Ring { bytes: Vec::new(), base: 0, span: Span::new(Position(0)) };
    let host = StreamId::host(WorkerId(0));
    let map = ClockMap { mono: Mono(0), wall: Wall(EPOCH) };
    ring.event(host, 0, &Event::Clock { map });
    let streams = recordings * lines;
    let ssrc = |stream: u64| Ssrc(0x5000_0000 + stream as u32);
    for stream in 0..streams {
        let description = description(stream, (lines, is_opus));
        let (id, from) = (description.stream, description.remote.expect("set above"));
        ring.event(id, START_MS * MS - 2, &Event::Open { description });
        let event = Event::Source { ordinal: 1, ssrc: ssrc(stream), from };
        ring.event(id, START_MS * MS - 1, &event);
    }
    let (mut chain, mut bytes, mut record_bytes) = ((1, [0; 32]), 0, 0);
    let mut packet = Vec::new();
    let (payload_type, ticks) = if is_opus { (96, 960) } else { (8, SAMPLES as u64) };
    let mut sent = 0_u64;
    for second in 0..seconds {
        for place in 0..PACKETS_PER_S {
            let index = second * PACKETS_PER_S + place;
            for stream in (0..streams).filter(|stream| index.is_multiple_of(every(*stream))) {
                let own = index / every(stream);
                let fields = Fields {
                    marker: index == 0,
                    payload_type,
                    seq: Index(own).seq(),
                    timestamp: (index * ticks) as u32,
                    ssrc: ssrc(stream),
                };
                packet.clear();
                packet.extend_from_slice(&fields.emit());
                let at = random.below((table.len() - SAMPLES) as u64) as usize;
                // Each line is elsewhere in it: nothing is decoded twice in a row.
                let spoken = voice.get(((own + stream * 31) % 500) as usize);
                packet.extend_from_slice(spoken.map_or(&table[at..at + SAMPLES], Vec::as_slice));
                let ns = (START_MS + index * 20) * MS + stream * 1_000 + random.below(MS);
                let source = SourceId::new(StreamId(stream + 1), 1);
                ring.put(RecordKind::Rtp, source, own, ns, &packet);
                sent += 1;
            }
        }
        let ns = (START_MS + (second + 1) * 1_000) * MS;
        for stream in (0..streams).filter(|_| (second + 1) % REPORT_S == 0) {
            let packets = ((second + 1) * PACKETS_PER_S).div_ceil(every(stream)) as u32;
            let info = SenderInfo { packets, ..SenderInfo::default() };
            let mut room = [0; 128];
            let mut report = Writer::new(&mut room);
            report.sender_report(ssrc(stream), &info, &[]).expect("room");
            report.cname(ssrc(stream), "src@archive").expect("room");
            let length = report.length();
            let source = SourceId::new(StreamId(stream + 1), 0);
            ring.put(RecordKind::Rtcp, source, 0, ns + 2 * MS + stream, &room[..length]);
        }
        let (before, after) = (HostDrops::default(), HostDrops::default());
        let (from, to) = (Mono(ns - 1_000 * MS), Mono(ns));
        ring.event(host, ns, &Event::HostDrops { from, to, before, after });
        let last = second + 1 == seconds;
        if last {
            for stream in 0..streams {
                let close = Event::Close {
                    by: Origin::Src,
                    drops: Default::default(),
                    socket_drops: 0,
                    shared: false,
                };
                ring.event(StreamId(stream + 1), ns + 10 * MS, &close);
            }
            let (from, to) = (Mono(ns), Mono(ns + 100 * MS));
            ring.event(host, to.0, &Event::HostDrops { from, to, before, after });
        }
        if last || (second + 1) % segment_s == 0 {
            record_bytes += ring.bytes.len() as u64;
            let created = Wall(EPOCH + (ns + 100 * MS) as i64);
            let (head, sealed) = seal(store, &mut ring, chain, created, &key, packed);
            bytes += sealed;
            chain = (chain.0 + 1, head);
        }
    }

    let (mut journal, _) =
        Journal::open(HostDisk, &journal_dir, &history::folder(store)).expect("empty");
    let start = Entry::Start {
        version: 1,
        volume: "archive".to_owned(),
        at: Wall(EPOCH),
        kept: false,
        before: None,
    };
    journal.append(&start).expect("room");
    let ended_ms = START_MS + seconds * 1_000 + 10;
    for number in 0..recordings {
        let entries = entries((number, (lines, is_opus)), &keys, ended_ms, Position(ring.base));
        journal.append_all(&entries).expect("room");
    }
    journal.sync().expect("room");
    println!(
        "{recordings} recordings, {sent} packets, {} segments, {bytes} bytes, {record_bytes} bytes of records",
        chain.0 - 1
    );
}
