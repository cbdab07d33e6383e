//! A small store for the tests of the reading verbs, built by the product's own writers: one ended
//! recording of two streams (PCMU with a gap, L16 at another rate), sealed in one segment.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::base::ids::{
    Generation, Index, Position, RsId, Slot, SourceId, Ssrc, StreamId, WorkerId,
};
use crate::base::ports::Entropy as _;
use crate::base::time::{ClockMap, Mono, Wall};
use crate::host::disk::HostDisk;
use crate::host::entropy::SystemEntropy;
use crate::host::{audit, keyfile, signing, spare, volume};
use crate::store::archive::Archive;
use crate::store::audit::{Act, Head, action};
use crate::store::event::{Event, Format, HostDrops, Origin, StreamDescription};
use crate::store::journal::entry::{DialogState, Entry, Signalling, SrcFacts, StreamOpened};
use crate::store::journal::keybox::{answer_context, salt_context};
use crate::store::journal::{Journal, KeyBox, history};
use crate::store::record::{self, RecordKind, RecordMeta};
use crate::store::segment::{Emitter, SegmentFacts, SegmentName, Span, folder};
use crate::wire::rtp::Fields;

/// Wall time of monotonic 0.
pub(crate) const EPOCH: i64 = 1_790_000_000_000_000_000;
/// Milliseconds, in nanoseconds.
pub(crate) const MS: u64 = 1_000_000;
/// The recording.
pub(crate) const RS: RsId = RsId([0x2a; 16]);
/// Indexes lost of the first stream.
pub(crate) const LOST: std::ops::Range<u64> = 40..45;
/// Packets of each stream.
pub(crate) const PACKETS: u64 = 100;
/// When the recording ended, by the monotonic clock.
const END_MS: u64 = 5_000;

/// A store in a folder that goes away with it.
pub(crate) struct Fixture(pub(crate) PathBuf);

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Fixture {
    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    pub(crate) fn segment(&self) -> PathBuf {
        let name = SegmentName { worker: WorkerId(0), number: 1 };
        folder(&self.store()).join(name.file())
    }

    /// Makes the store; `name` keeps tests apart.
    pub(crate) fn new(name: &str) -> Fixture {
        Self::of(name, END_MS, &two_lines)
    }

    /// The same with other packets: `fill` puts them, the recording ends at `end_ms`.
    pub(crate) fn of(name: &str, end_ms: u64, fill: &dyn Fn(&mut Ring)) -> Fixture {
        Self::speaking(name, end_ms, &description, fill)
    }

    /// The same of other streams.
    pub(crate) fn speaking(
        name: &str,
        end_ms: u64,
        describe: &dyn Fn(u16) -> StreamDescription,
        fill: &dyn Fn(&mut Ring),
    ) -> Fixture {
        let root = std::env::temp_dir().join(format!("floortape-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        let fixture = Fixture(root);
        let store = fixture.store();
        std::fs::create_dir_all(store.join("journal")).expect("temp folder");
        let journal_dir = store.join("journal");
        let (mut volume, _) = volume::open(&store, "test").expect("writable");
        spare::record(&store, &mut volume, None, &journal_dir).expect("writable");
        let key = keyfile::load_or_make(&store, &mut volume, &journal_dir, &SystemEntropy)
            .expect("writable");
        let keys = KeyBox::new(&key).expect("32 bytes");
        let mut salt = [0; 32];
        SystemEntropy.fill(&mut salt);
        journal(&store, &entries_until(&keys, &salt, end_ms, describe));
        segments(&fixture, &salt, end_ms, describe, fill);
        fixture
    }
}

/// Sample `n` of the µ-law stream, as its code.
pub(crate) fn ulaw(n: u64) -> u8 {
    (n * 7 + 3) as u8
}

/// Sample `n` of the L16 stream.
pub(crate) fn linear(n: u64) -> i16 {
    (n as i16).wrapping_mul(31)
}

/// Its streams, by m-line.
pub(crate) fn description(line: u16) -> StreamDescription {
    let (codec, clock_rate, payload_type) =
        if line == 0 { ("PCMU", 8_000, 0) } else { ("L16", 16_000, 97) };
    StreamDescription {
        stream: StreamId(u64::from(line) + 1),
        rs: RS,
        line,
        label: Some(if line == 0 { "../a" } else { "b" }.to_owned()),
        media: "audio".to_owned(),
        formats: vec![Format {
            payload_type,
            codec: codec.to_owned(),
            clock_rate,
            channels: 1,
            fmtp: None,
        }],
        suite: None,
        transport: "RTP/AVP".to_owned(),
        slot: Slot(u32::from(line)),
        port: 20_000 + 2 * line,
        remote: Some(([192, 0, 2, 1], 4_000 + 2 * line).into()),
    }
}

fn journal(store: &Path, entries: &[Entry]) {
    let (mut journal, _) =
        Journal::open(HostDisk, &store.join("journal"), &history::folder(store)).expect("empty");
    journal.append_all(entries).expect("writable");
    journal.sync().expect("writable");
}

/// What the journal says of it: a start, how it began, and how it ended, with both its streams.
pub(crate) fn entries(keys: &KeyBox, salt: &[u8; 32]) -> [Entry; 6] {
    entries_until(keys, salt, END_MS, &description)
}

fn entries_until(
    keys: &KeyBox,
    salt: &[u8; 32],
    end_ms: u64,
    describe: &dyn Fn(u16) -> StreamDescription,
) -> [Entry; 6] {
    let address = ([192, 0, 2, 9], 5_060).into();
    let seal = |secret: &[u8], context: &str| keys.seal(&SystemEntropy, secret, context);
    let opened = |line| StreamOpened {
        description: describe(line),
        generation: Generation(1),
        active: true,
        rtcp_to: None,
        rtcp_mux: false,
        crypto: None,
        barred: None,
        address: None,
    };
    let at = |ms: u64| Wall(EPOCH + (ms * MS) as i64);
    let closed = |line| Entry::StreamClosed {
        rs: RS,
        stream: description(line).stream,
        slot: description(line).slot,
        at: at(end_ms),
        by: Origin::Src,
        through: None,
    };
    [
        Entry::Start {
            version: 1,
            volume: "test".to_owned(),
            at: at(0),
            kept: false,
            before: None,
        },
        Entry::Opened {
            rs: RS,
            at: at(1_000),
            dialog: DialogState {
                call_id: "call@src".to_owned(),
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
                local: address,
                identity: None,
                user: None,
                answered: None,
                update: false,
            },
            src: SrcFacts {
                address: Some(([192, 0, 2, 1], 5_060).into()),
                identity: "sip:src@192.0.2.1".to_owned(),
                user_agent: "test".to_owned(),
            },
            signalling: Signalling::Udp,
            quirks: vec!["no metadata part".to_owned()],
            salt: seal(salt, &salt_context(RS)),
            streams: vec![opened(0), opened(1)],
            own: false,
            answer: String::new(),
            answer_sdp: seal(b"", &answer_context(RS)),
            bodies: None,
            timer: None,
            retention: None,
        },
        Entry::Body {
            rs: RS,
            number: 1,
            at: at(1_000),
            method: "INVITE".to_owned(),
            cseq: 1,
            content_type: "application/rs-metadata+xml".to_owned(),
            disposition: "recording-session".to_owned(),
            bytes: STANDARD.encode(METADATA),
        },
        Entry::Ended {
            rs: RS,
            at: at(end_ms),
            by: Origin::Src,
            reason: "BYE".to_owned(),
            remote_cseq: 2,
            bye: false,
        },
        closed(0),
        closed(1),
    ]
}

/// A complete document of two parties.
pub(crate) const METADATA: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<recording xmlns="urn:ietf:params:xml:ns:recording:1">
  <datamode>complete</datamode>
  <session session_id="hVpd7YQgRW2nD22h7q60JQ=="><start-time>2026-09-21T14:13:21Z</start-time></session>
  <participant participant_id="srfBElmCRp2QB23b7Mpk0w=="><nameID aor="sip:bob@example.com"><name>Bob</name></nameID></participant>
  <participant participant_id="zSfPoSvdSDCmU3A3TRDxAw=="><nameID aor="sip:paul@example.com"/></participant>
  <stream stream_id="UAAMm5GRQKSCMVvLyl4rFw==" session_id="hVpd7YQgRW2nD22h7q60JQ=="><label>b</label></stream>
  <participantsessionassoc participant_id="srfBElmCRp2QB23b7Mpk0w==" session_id="hVpd7YQgRW2nD22h7q60JQ=="/>
  <participantstreamassoc participant_id="srfBElmCRp2QB23b7Mpk0w=="><send>UAAMm5GRQKSCMVvLyl4rFw==</send></participantstreamassoc>
  <participantstreamassoc participant_id="zSfPoSvdSDCmU3A3TRDxAw=="><recv>UAAMm5GRQKSCMVvLyl4rFw==</recv></participantstreamassoc>
</recording>
"#;

/// What is recorded, as a worker's ring holds it.
pub(crate) struct Ring {
    bytes: Vec<u8>,
    span: Span,
    sealed: Vec<Span>,
}

impl Ring {
    fn put(&mut self, kind: RecordKind, source: SourceId, index: u64, ms: u64, payload: &[u8]) {
        self.put_at(kind, source, index, Mono(ms * MS), payload);
    }

    pub(crate) fn put_at(
        &mut self,
        kind: RecordKind,
        source: SourceId,
        index: u64,
        arrival: Mono,
        payload: &[u8],
    ) {
        let at = self.bytes.len();
        self.bytes.resize(at + record::record_bytes(payload.len()), 0);
        let meta =
            RecordMeta { kind, flags: 0, generation: 1, source, index: Index(index), arrival };
        record::write(&meta, payload, &mut self.bytes[at..]);
        let record = record::read(&self.bytes[at..]).expect("just written");
        self.span.add(Position(at as u64), &record);
    }

    /// What comes stands in the next segment, which tells its clock.
    pub(crate) fn cut(&mut self, ms: u64) {
        let end = Position(self.bytes.len() as u64);
        let mut span = std::mem::replace(&mut self.span, Span::new(end));
        span.through = end;
        self.sealed.push(span);
        let map = ClockMap { mono: Mono(0), wall: Wall(EPOCH) };
        self.event(StreamId::host(WorkerId(0)), ms, &Event::Clock { map });
    }

    pub(crate) fn event(&mut self, stream: StreamId, ms: u64, event: &Event) {
        self.put(RecordKind::Event, SourceId::new(stream, 0), 0, ms, &event.to_payload());
    }
}

/// Begins an audit trail of three entries; its newest one.
fn trail(store: &Path) -> Head {
    for number in 1..=2 {
        let at = Wall(EPOCH + number);
        let act = Act::new(at, audit::ourselves("owner"), action::EXPORT, RS.to_string());
        audit::record(store, act.because("a complaint")).expect("writable");
    }
    audit::head(store).expect("readable").expect("durable")
}

/// The packets of both lines.
fn two_lines(ring: &mut Ring) {
    for line in 0..2 {
        let description = description(line);
        let ssrc = Ssrc(0xabc0 + u32::from(line));
        let samples = if line == 0 { 160 } else { 320 };
        for index in (0..PACKETS).filter(|index| line == 1 || !LOST.contains(index)) {
            let mut packet = Fields {
                marker: false,
                payload_type: description.formats[0].payload_type,
                seq: Index(index).seq(),
                timestamp: 5_000 + (index * samples) as u32,
                ssrc,
            }
            .emit()
            .to_vec();
            for n in index * samples..(index + 1) * samples {
                match line {
                    0 => packet.push(ulaw(n)),
                    _ => packet.extend_from_slice(&linear(n).to_be_bytes()),
                }
            }
            // The second stream begins a second later.
            let ms = 1_010 + u64::from(line) * 1_000 + index * 20;
            let source = SourceId::new(description.stream, 1);
            ring.put(RecordKind::Rtp, source, index, ms, &packet);
        }
    }
}

fn segments(
    fixture: &Fixture,
    salt: &[u8; 32],
    end_ms: u64,
    describe: &dyn Fn(u16) -> StreamDescription,
    fill: &dyn Fn(&mut Ring),
) {
    let store = fixture.store();
    let key = signing::load_or_make(&store, &SystemEntropy).expect("writable");
    let (bytes, span, sealed) = (Vec::new(), Span::new(Position(0)), Vec::new());
    let mut ring = Ring { bytes, span, sealed };
    let host = StreamId::host(WorkerId(0));
    let map = ClockMap { mono: Mono(0), wall: Wall(EPOCH) };
    ring.event(host, 0, &Event::Clock { map });
    for line in 0..2 {
        let description = describe(line);
        ring.event(description.stream, 1_000, &Event::Open { description: description.clone() });
        let ssrc = Ssrc(0xabc0 + u32::from(line));
        let from = description.remote.expect("set above");
        ring.event(description.stream, 1_010, &Event::Source { ordinal: 1, ssrc, from });
    }
    fill(&mut ring);
    for line in 0..2 {
        let close = Event::Close {
            by: Origin::Src,
            drops: Default::default(),
            socket_drops: 0,
            shared: false,
        };
        ring.event(description(line).stream, end_ms, &close);
    }
    let drops = HostDrops::default();
    let event = Event::HostDrops {
        from: Mono(0),
        to: Mono((end_ms + 1_000) * MS),
        before: drops,
        after: drops,
    };
    ring.event(host, end_ms + 1_000, &event);
    ring.event(host, end_ms + 1_100, &Event::Audit { head: trail(&store) });
    let end = Position(ring.bytes.len() as u64);
    let Ring { bytes, mut span, mut sealed } = ring;
    span.through = end;
    sealed.push(span);
    std::fs::create_dir_all(folder(&store)).expect("temp folder");
    let mut previous = [0; 32];
    for (place, span) in sealed.into_iter().enumerate() {
        let number = place as u64 + 1;
        let facts = SegmentFacts {
            worker: WorkerId(0),
            volume: [1; 16],
            number,
            created: Wall(EPOCH + ((end_ms + 1_500) * MS) as i64),
            previous,
            packed: true,
        };
        let emitter = Emitter::new(facts, span, |_| Some(*salt)).expect("salt is known");
        let file = emitter
            .all(&key, &mut |at, out| {
                out.copy_from_slice(&bytes[at.0 as usize..at.0 as usize + out.len()]);
                Ok(())
            })
            .expect("records are in memory");
        let name = SegmentName { worker: WorkerId(0), number };
        std::fs::write(folder(&store).join(name.file()), file).expect("temp folder");
        previous = Archive::open(HostDisk, &store).trailer(name).expect("just written").head;
    }
}
