//! The corpus, made by the product's own writers from the messages in `tests/corpus`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use floortape::base::ids::{
    Generation, Index, Position, RsId, Seq, Slot, SourceId, Ssrc, StreamId, WorkerId,
};
use floortape::base::keyring::Keyring;
use floortape::base::limits::BUFFER_BYTES;
use floortape::base::mki::Mki;
use floortape::base::ports::{Disk, DiskFile};
use floortape::base::secret::MasterKey;
use floortape::base::suite::{Agreed, Suite};
use floortape::base::time::{ClockMap, Mono, Wall};
use floortape::host::disk::HostDisk;
use floortape::plane::handoff::datagram::{self, AT_CONTROL, AT_PAYLOAD, Datagram};
use floortape::plane::handoff::frame::{
    Crypto, Envelope, Frame, Notice, OpenStream, Refusal, WireKey, WireKeyring, WorkerStats,
};
use floortape::proto::srtp::Context;
use floortape::store::audit::{self as trail, Act, Who, action};
use floortape::store::event::{Event, Format, Origin, StreamDescription};
use floortape::store::evidence::{
    ANCHOR_VERSION, AuditHead, FileMark, Heads, Hex, KeyFields, Salt, SigningKey, WorkerHead,
    emit_keys, sha256,
};
use floortape::store::export::tar::Part;
use floortape::store::journal::{Standings, entry::Entry, frame, history, snapshot};
use floortape::store::keys::{KeyMaker, Of, SegmentKeys, StoreKeys, Veiled, path_of};
use floortape::store::log::{
    BLOCK_BYTES, FileHeader, GROUP_HEADER_BYTES, GroupHeader, Mark, group_span,
};
use floortape::store::record::{self, RecordKind, RecordMeta, record_bytes};
use floortape::store::segment::{
    Emitter, Row, SegmentFacts, SegmentName, Span, Thinning, put_chunk,
};
use floortape::wire::rtcp::{ReportBlock, SenderInfo, Writer};
use floortape::wire::rtp::Fields;
use floortape::wire::sdes::CryptoLine;
use floortape::wire::{ethernet, multipart, sip};

use crate::targets::{BETWEEN, MASTER, Same, Seeded, VOLUME, kek, log_key, veil, wraps};

/// Salt of every stream in the segments.
pub const SALT: Salt = [3; 32];
const CLOCK: ClockMap = ClockMap { mono: Mono(1_000), wall: Wall(1_700_000_000_000_000_000) };
const RING_BYTES: u64 = 1 << 20;

/// Who signs the segments.
pub fn signing_key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

/// Target, file name and bytes of each input.
pub fn all() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut out = Vec::new();
    let mut add = |target, name: &str, bytes| out.push((target, name.to_owned(), bytes));
    signalling(&mut add);
    media(&mut add);
    played(&mut add);
    buffers(&mut add);
    frames(&mut add);
    store(&mut add);
    trail(&mut add);
    evidence(&mut add);
    tap(&mut add);
    peaks(&mut add);
    keys(&mut add);
    queries(&mut add);
    out
}

type Add<'a> = dyn FnMut(&'static str, &str, Vec<u8>) + 'a;

/// What people ask for.
const QUERIES: &[(&str, &str)] = &[
    ("words", "miller mil* \"ann miller\" M\u{fc}ller"),
    ("people", "sip:*@desk.example OR party:ann aor:+4930* name:bob -word:mill"),
    (
        "things",
        "session:urn:uuid:0b3e4bba-7ce1-45f8-9a0a-0c2ea4ad3b40 label:desk-12 call:a@b codec:opus",
    ),
    (
        "states",
        "has:gap verdict:gaps is:live -is:own (is:held OR NOT is:sealed) peer:sbc-1 desk:x src:1",
    ),
    (
        "times",
        "from:-2h to:now at:2026-11-30 14:05 Europe/Berlin on:yesterday from:\"2026-11-30 14:05\"",
    ),
    ("zones", "from:2026-11-30T14:05:09.5Z to:14:05 UTC at:2026-10-25 02:30 +01:00"),
    ("lengths", "duration:>10m duration:<=1h30m duration:10m..2h duration:45s"),
    (
        "spellings",
        "Stra\u{df}e* GRO\u{1e9e} \u{130}stanbul Ju\u{308}rgen label:\u{fb01}x call:\u{1f80}",
    ),
    ("stars", "mil*er sip:*@*.example 49*12 *"),
    ("wrong", "verdit:gaps"),
    ("nested", "((a OR (b -(c AND d))) NOT e) *"),
];

/// When somebody wants to hear from.
const MOMENTS: &[(&str, &str)] = &[
    ("instant", "2026-11-30T14:05:09.5+01:00"),
    ("local", "2026-11-30 14:05:09 Europe/Berlin"),
    ("offset", "2026-10-25T02:30-05:30"),
    ("day", "yesterday 14:05 UTC"),
    ("ago", "1h30m ago"),
    ("back", "-2d"),
    ("behind", "+1:02:03.250"),
    ("length", "+1h30m"),
];

fn queries(add: &mut Add<'_>) {
    QUERIES.iter().for_each(|(name, text)| add("query", name, text.as_bytes().to_vec()));
    MOMENTS.iter().for_each(|(name, text)| add("moment", name, text.as_bytes().to_vec()));
}

/// Documents of one RS each, as the examples of RFC 7865 §8 and RFC 8068 §3 go.
const DIALOGS: &[(&str, &[&str])] = &[
    (
        "hold-leave-return-stop",
        &[
            CALL,
            r#"<recording><datamode>partial</datamode><participantstreamassoc participant_id="a"><recv>t</recv></participantstreamassoc></recording>"#,
            r#"<recording><datamode>partial</datamode><participantsessionassoc participant_id="b" session_id="c"><disassociate-time>2</disassociate-time></participantsessionassoc></recording>"#,
            r#"<recording><datamode>partial</datamode><participantsessionassoc participant_id="b" session_id="c"><associate-time>3</associate-time></participantsessionassoc></recording>"#,
            "BYE\n<recording><session session_id=\"c\"><stop-time>4</stop-time></session></recording>",
        ],
    ),
    (
        "transfer",
        &[
            CALL,
            r#"<recording><session session_id="d"/><participant participant_id="b"/><stream stream_id="t" session_id="d"><label>2</label></stream>
            <stream stream_id="u" session_id="d"><label>1</label></stream><participantstreamassoc participant_id="b"><send>t</send></participantstreamassoc>
            <participantstreamassoc participant_id="b"><send>u</send><associate-time>1</associate-time><disassociate-time>2</disassociate-time></participantstreamassoc></recording>"#,
            "<recording>",
            CALL,
        ],
    ),
    (
        "partial-first",
        &[
            r#"<recording><datamode>partial</datamode><participantstreamassoc participant_id="a"><send>s</send></participantstreamassoc>
            <sessionrecordingassoc session_id="c"/><stream stream_id="s" session_id="c"><associate-time>1</associate-time><disassociate-time>2</disassociate-time></stream></recording>"#,
            CALL,
            r#"<recording><group group_id="h"/><session session_id="c"><group-ref>h</group-ref><x xmlns="urn:x">2</x></session><stream stream_id="s"/></recording>"#,
        ],
    ),
];

const CALL: &str = r#"<recording xmlns="urn:ietf:params:xml:ns:recording:1"><group group_id="g"><associate-time>1</associate-time></group>
    <session session_id="c"><sipSessionID>1;remote=2</sipSessionID><group-ref>g</group-ref><start-time>1</start-time><x xmlns="urn:x">1</x></session>
    <participant participant_id="a"><nameID aor="sip:a@x"/></participant><participant participant_id="b"><nameID aor="sip:b@x"/></participant>
    <stream stream_id="s" session_id="c"><label>1</label></stream><stream stream_id="t" session_id="c"><label>2</label></stream>
    <sessionrecordingassoc session_id="c"><associate-time>1</associate-time></sessionrecordingassoc>
    <participantsessionassoc participant_id="a" session_id="c"><associate-time>1</associate-time><param pname="p" pval="v"/></participantsessionassoc>
    <participantsessionassoc participant_id="b" session_id="c"><associate-time>1</associate-time></participantsessionassoc>
    <participantstreamassoc participant_id="a"><send>s</send><recv>t</recv></participantstreamassoc>
    <participantstreamassoc participant_id="b"><send>t</send><recv>s</recv></participantstreamassoc></recording>"#;

/// The messages of RFC 4475 and RFC 5118, one by one and in a stream each section.
fn torture(add: &mut Add<'_>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/torture");
    let entries = fs::read_dir(folder).expect("the messages");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    let mut streams: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for path in paths {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let bytes = fs::read(&path).expect("readable");
        let section = name.rsplit_once(['.', '-']).map_or(&*name, |(section, _)| section);
        streams.entry(section.to_owned()).or_default().extend_from_slice(&bytes);
        add("sip_headers", &format!("torture-{name}"), bytes);
    }
    for (section, stream) in streams {
        add("sip_framing", &format!("torture-{section}"), stream);
    }
}

fn signalling(add: &mut Add<'_>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let entries = fs::read_dir(folder).expect("the messages");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sip"));
    paths.sort();
    let mut streams: Vec<Vec<u8>> = vec![b"\r\n\r\n".to_vec(); 4];
    for (place, path) in paths.iter().enumerate() {
        let name = path.file_stem().expect("a name").to_string_lossy();
        let bytes = fs::read(path).expect("readable");
        streams[place % 4].extend_from_slice(&bytes);
        streams[place % 4].extend_from_slice(b"\r\n\r\n\n");
        let Ok(message) = sip::parse_datagram(&bytes) else { continue };
        let content_type = message.headers.get("Content-Type").unwrap_or_default();
        for part in multipart::parse(content_type, &message.body).unwrap_or_default() {
            match part.content_type.as_str() {
                "application/sdp" => add("sdp", &name, part.body),
                "application/rs-metadata+xml" => add("metadata", &name, part.body),
                _ => {}
            }
        }
        let body = [content_type.as_bytes(), b"\n", &message.body].concat();
        add("multipart", &name, body);
        add("sip_headers", &name, bytes);
    }
    torture(add);
    for (place, stream) in streams.into_iter().enumerate() {
        add("sip_framing", &format!("stream-{place}"), stream);
    }
    for (name, documents) in DIALOGS {
        add("merge", name, documents.join(BETWEEN).into_bytes());
    }
    let nested = b"multipart/mixed;boundary=a\n--a\r\nContent-Type: multipart/related; \
        boundary=\"b c\"\r\n\r\n--b c\r\n\r\nx\r\n--b c--\r\n--a\r\nX-Long: one\r\n two\r\n\r\ny\r\n--a--";
    add("multipart", "nested", nested.to_vec());
    for suite in Suite::ALL {
        let master = MasterKey::new(&MASTER[..suite.master_bytes()]).expect("its length");
        let line = CryptoLine::emit(1, suite, &master);
        let lines = format!(
            "a=crypto:{line}\na=crypto:{line}|2^20|1:4\n{line}|17:2;{} KDR=3 WSH=128 -X=1\n\
             {line} UNENCRYPTED_SRTCP FEC_ORDER=SRTP_FEC",
            line.rsplit(' ').next().expect("the key").to_owned() + "|18:2"
        );
        add("crypto", suite.name(), lines.into_bytes());
    }
    let master = MasterKey::new(&MASTER[..46]).expect("a suite's length");
    let draft = Agreed::from_name("AES_CM_256_HMAC_SHA1_80").expect("of a draft");
    let in_clear = draft.in_clear(true, true).expect("not AEAD");
    let lines = [draft, in_clear].map(|suite| CryptoLine::emit(2, suite, &master));
    add("crypto", "agreed", lines.join("\n").into_bytes());
    let sets = [
        ("numbers", "media.streams_max=500\nmedia.ports=\"20000-20999\"\nmedia.workers=2"),
        ("odd", "no equals\n=\na.b.c=1\nmedia.streams_max=\"x\"\nmedia={}\nsip.listen=[\"udp:1\"]"),
    ];
    sets.iter().for_each(|(name, text)| add("config", name, text.as_bytes().to_vec()));
}

fn media(add: &mut Add<'_>) {
    let packet = |seq: u16, payload: &[u8]| {
        let fields = Fields {
            marker: seq == 1,
            payload_type: 8,
            seq: Seq(seq),
            timestamp: 160,
            ssrc: Ssrc(0xcafe),
        };
        [&fields.emit()[..], payload].concat()
    };
    let plain = packet(1, &[0xd5; 40]);
    let mut full = packet(2, &[0, 0, 0, 9, 0xbe, 0xde, 0, 1, 9, 9, 9, 9, 1, 2, 3, 4, 0, 0, 3]);
    full[0] |= 0x31;
    let info = SenderInfo { ntp: 1 << 40, rtp: 160, packets: 50, octets: 8_000 };
    let block = ReportBlock { ssrc: Ssrc(5), cumulative_lost: -3, ..ReportBlock::default() };
    let mut out = [0; 256];
    let mut writer = Writer::new(&mut out);
    writer.sender_report(Ssrc(0xcafe), &info, &[block, block]).expect("room");
    writer.cname(Ssrc(0xcafe), "desk@example.com").expect("room");
    writer.bye(Ssrc(0xcafe)).expect("room");
    let length = writer.length();
    let report = out[..length].to_vec();
    let mut writer = Writer::new(&mut out);
    writer.receiver_report(Ssrc(9), &[block]).expect("room");
    let length = writer.length();
    let receiver = out[..length].to_vec();
    for suite in Suite::ALL {
        let master = MasterKey::new(&MASTER[..suite.master_bytes()]).expect("its length");
        let context = Context::new(suite, &master).expect("its length");
        let mut out = [0; 512];
        let total = context.protect_rtp(&full, Index(0), &mut out).expect("room");
        add("srtp", &format!("{}-rtp", suite.name()), out[..total].to_vec());
        let total = context.protect_rtcp(&report, 3, &mut out).expect("room");
        add("srtp", &format!("{}-rtcp", suite.name()), out[..total].to_vec());
    }
    add("srtp", "plain", full.clone());
    add("rtp", "plain", plain);
    add("rtp", "full", full);
    add("rtcp", "sender", report);
    add("rtcp", "receiver", receiver);
}

/// Runs of packets, as `targets::played` reads them.
fn played(add: &mut Add<'_>) {
    let run = |packets: &[&[u8]]| -> Vec<u8> {
        packets.iter().flat_map(|one| [&[1, one.len() as u8], *one].concat()).collect()
    };
    let head = |earlier: u32, bytes: u32| (0x80 | 98) << 24 | earlier << 10 | bytes;
    let red = |old: &str, last: &str, now: &str| {
        let heads = [head(600, old.len() as u32), head(300, last.len() as u32)];
        let mut payload: Vec<u8> = heads.iter().flat_map(|head| head.to_be_bytes()).collect();
        payload.push(98);
        payload.extend([old, last, now].concat().bytes());
        payload
    };
    let typed =
        [red("", "", "Buy "), red("", "Buy ", "5\u{8}"), red("Buy ", "5\u{8}", "7\u{2028}")];
    let text: Vec<&[u8]> = typed.iter().map(Vec::as_slice).collect();
    add("text", "red", run(&text));
    add("text", "plain", run(&[b"x", b"\x1b[1m", "\u{98}y\u{9c}\r\nz".as_bytes()]));
    let (begun, ended): (&[u8], &[u8]) = (&[11, 0x0a, 0, 160], &[11, 0x8a, 3, 32]);
    add("digits", "one", run(&[begun, ended, ended]));
    for (name, from, to) in [
        ("v4", "192.0.2.1:5004", "192.0.2.9:20000"),
        ("v6", "[2001:db8::1]:5004", "[2001:db8::9]:20000"),
    ] {
        let [from, to] = [from, to].map(|text| text.parse().expect("an address"));
        add("frame", name, ethernet::frame(from, to, b"what was said"));
    }
    let several: &[u8] = &[1, 0x8a, 1, 0x90, 2, 0x8a, 1, 0x90, 16, 0x0a, 0, 80, 9];
    add("digits", "several", run(&[several, &[3, 0x0a, 0xff, 0xff], &[3, 0x8a, 1, 0]]));
    let sets: &[u8] = &[24, 0, 5, 0x67, 66, 0, 30, 1, 0, 2, 0x68, 2];
    let fragments: [&[u8]; 3] = [&[0x7c, 0x85, 1, 2], &[0x7c, 0x05, 3], &[0x7c, 0x45, 4]];
    let [first, second, third] = fragments;
    add("h264", "fragments", run(&[sets, first, second, third, &[0x41, 9, 9]]));
    let aggregate: &[u8] = &[26, 0, 0, 0, 3, 0, 0, 1, 0x65, 1, 2];
    add("h264", "aggregates", run(&[sets, aggregate, &[25, 0, 0, 0, 2, 0x41, 7]]));
}

fn description() -> StreamDescription {
    StreamDescription {
        stream: StreamId(9),
        rs: RsId([4; 16]),
        line: 0,
        label: Some("1".to_owned()),
        media: "audio".to_owned(),
        formats: vec![Format {
            payload_type: 8,
            codec: "PCMA".to_owned(),
            clock_rate: 8_000,
            channels: 1,
            fmtp: None,
        }],
        suite: Some(Suite::AeadAes128Gcm.into()),
        transport: "RTP/SAVP".to_owned(),
        slot: Slot(2),
        port: 20_004,
        remote: Some(peer()),
    }
}

fn peer() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(192, 0, 2, 10).into(), 5_004)
}

fn frames(add: &mut Add<'_>) {
    let (slot, generation) = (Slot(2), Generation(1));
    let master = MasterKey::new(&MASTER[..28]).expect("a suite's length");
    let keys = [MASTER[..28].to_vec(), MASTER[2..30].to_vec()].concat();
    let mkis = [[0, 1], [0, 2]].map(|octets| Mki::new(&octets).expect("fits"));
    let remote = WireKeyring::new(&Keyring::from_parts(&keys, &mkis, 7).expect("two keys"));
    let open = OpenStream {
        slot,
        generation,
        description: description(),
        salt: SALT,
        active: true,
        rtcp_to: Some(peer()),
        rtcp_mux: true,
        crypto: Some(Crypto {
            suite: Suite::AeadAes128Gcm.into(),
            remote,
            local: WireKey::new(&master),
        }),
        strict: false,
        cname: "ours".to_owned(),
        nat: false,
    };
    let stats = WorkerStats {
        counters: vec![1, 2, 300],
        engine: "io_uring".to_owned(),
        disk_error: Some("full".to_owned()),
        ..WorkerStats::default()
    };
    let all = [
        ("open", Frame::Open(Box::new(open))),
        ("stats", Frame::Stats(vec![stats])),
        ("slots", Frame::Slots { first: slot, ports: vec![peer(); 3] }),
        ("refused", Frame::Refused { slot, generation, why: Refusal::RingLag }),
        (
            "salts",
            Frame::Salts {
                salts: vec![(RsId([4; 16]), SALT)],
                streams: vec![(StreamId(9), RsId([4; 16]))],
            },
        ),
        (
            "calls",
            Frame::Calls {
                open: vec![(slot, generation, Mono(6)); 2],
                over: vec![(Slot(1), generation)],
            },
        ),
        ("source", Frame::Notice(Notice::Source { slot, generation, ssrc: Ssrc(5), from: peer() })),
    ];
    for (name, frame) in all {
        add("handoff", name, Envelope { id: 7, fds: 2, frame }.emit());
    }
}

/// Receive buffers as the kernel leaves them, of both families.
fn buffers(add: &mut Add<'_>) {
    let empty = Datagram {
        from: peer(),
        port: 20_000,
        stamp: None,
        socket_drops: None,
        truncated: false,
        length: 0,
        payload: &[],
    };
    let payload = [0x80; 172];
    let mut written = |name: &str, datagram: &Datagram<'_>, patch: &[(usize, u8)]| {
        let mut buffer = [0; BUFFER_BYTES];
        datagram::write(&mut buffer, datagram);
        patch.iter().for_each(|(at, octet)| buffer[*at] = *octet);
        let end = (AT_PAYLOAD + datagram.payload.len()).min(BUFFER_BYTES);
        add("datagram", name, buffer[..end].to_vec());
    };
    written("empty", &empty, &[]);
    let whole = Datagram {
        stamp: Some(CLOCK.wall),
        socket_drops: Some(7),
        length: payload.len(),
        payload: &payload,
        ..empty
    };
    written("v4", &whole, &[]);
    // Behind stamp (32) and drops (24): the destination of IPv6 (level 41, type 74).
    let destination = AT_CONTROL + 32 + 24;
    let six = Datagram { from: "[2001:db8::7]:5004".parse().expect("one"), ..whole };
    written("v6", &six, &[(destination + 8, 41), (destination + 12, 74)]);
    let long = [0x80; BUFFER_BYTES];
    written("cut", &Datagram { length: long.len(), payload: &long, ..whole }, &[]);
}

/// Records as a ring would hold them: the recorder's own clock, a stream that opens, two packets.
fn records() -> Vec<u8> {
    let mut out = Vec::new();
    let mut push = |kind, source: SourceId, index: u64, payload: &[u8]| {
        let meta = RecordMeta {
            kind,
            flags: 1,
            generation: 1,
            source,
            index: Index(index),
            arrival: Mono(2_000 + index),
        };
        let start = out.len();
        out.resize(start + record_bytes(payload.len()), 0);
        record::write(&meta, payload, &mut out[start..]);
    };
    let own = SourceId::new(StreamId::host(WorkerId(1)), 0);
    let stream = |ordinal| SourceId::new(StreamId(9), ordinal);
    push(RecordKind::Event, own, 0, &Event::Clock { map: CLOCK }.to_payload());
    let open = Event::Open { description: description() };
    push(RecordKind::Event, stream(0), 0, &open.to_payload());
    push(RecordKind::Rtp, stream(1), 65_535, &[0x80; 52]);
    let drops = BTreeMap::from([("replayed".to_owned(), 1)]);
    let close = Event::Close { by: Origin::Src, drops, socket_drops: 0, shared: false };
    push(RecordKind::Rtp, stream(1), 65_536, &[0x81; 40]);
    push(RecordKind::Pad, SourceId(0), 0, &[0; 20]);
    push(RecordKind::Event, stream(0), 0, &close.to_payload());
    out
}

/// Anchors, bare and in a syslog, and a list of two keys.
fn evidence(add: &mut Add<'_>) {
    let (old, new) = (signing_key(), SigningKey::from_seed(&[8; 32]));
    let heads = Heads {
        version: ANCHOR_VERSION,
        at: CLOCK.wall,
        volume: "0199aa00-0000-7000-8000-000000000000".to_owned(),
        workers: vec![WorkerHead { worker: 0, segment: 17, head: Hex([4; 32]) }],
        journal: Some(FileMark::of(3, b"journal")),
        audit: Some(AuditHead { number: 9, sha256: Hex([5; 32]) }),
        key: Hex([0; 32]),
    };
    let line = heads.sign(&old).line();
    let logged = format!("<109>1 2026-11-30T18:00:00Z host floortape 7 anchor - {line}\n");
    add("evidence", "logged", logged.into_bytes());
    add("evidence", "anchor", line.into_bytes());
    let fields = |number, key: &SigningKey, from: &[(u16, u64)]| KeyFields {
        number,
        public_key: Hex(key.public_key()),
        volume: "v".to_owned(),
        at: CLOCK.wall,
        from: from.iter().copied().collect(),
    };
    let keys = [fields(1, &old, &[]).sign(&old), fields(2, &new, &[(0, 9), (1, 4)]).sign(&old)];
    add("evidence", "keys", emit_keys(&keys));
}

/// A store's key as it stands in its file, a veiled file, one that was given up, and a key as text.
fn keys(add: &mut Add<'_>) {
    let folder = std::env::temp_dir().join(format!("floortape-keys-{}", std::process::id()));
    let read = |name: &str| fs::read(folder.join(name)).expect("just written");
    fs::create_dir_all(&folder).expect("a temp folder");
    let (made, _) = StoreKeys::make(VOLUME, &kek(), &Seeded::new(1), CLOCK.wall);
    made.write(&HostDisk, &folder).expect("a temp folder");
    add("store_keys", "block", read("store-a.keys"));
    let veiled = Veiled::new(HostDisk, Some(veil(&folder)));
    let path = folder.join("journal");
    let mut file = veiled.create(&path, 0).expect("a temp folder");
    file.write_at(0, &[7; 300]).expect("a temp folder");
    add("store_keys", "veiled", read("journal"));
    let link = folder.join("again");
    fs::hard_link(&path, &link).expect("a temp folder");
    veiled.remove(&path).expect("a temp folder");
    add("store_keys", "given-up", read("again"));
    add(
        "store_keys",
        "kek",
        b"0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789ABCDEF\n".to_vec(),
    );
    let _ = fs::remove_dir_all(&folder);
}

fn store(add: &mut Add<'_>) {
    let records = records();
    let groups = |count: u64, skip: u64, encrypted: bool| {
        let mut image = vec![0; BLOCK_BYTES];
        let (key, wrapped) = log_key(encrypted);
        FileHeader {
            worker: WorkerId(1),
            volume: [6; 16],
            file_sequence: 3,
            first: Position(0),
            ring_bytes: RING_BYTES,
            file_bytes: BLOCK_BYTES as u64 * 4,
            key: wrapped,
        }
        .emit(&mut image);
        let mut previous = [0; 32];
        for number in 0..count {
            let mut header = GroupHeader {
                worker: WorkerId(1),
                file_sequence: 3,
                group_sequence: number + 1,
                incarnation: 1,
                first: Position((number + skip * number) * records.len() as u64),
                bytes: records.len() as u64,
                clock: CLOCK,
                previous,
                ring_bytes: RING_BYTES,
                payload_crc: 0,
                encrypted,
            };
            let mut stored = records.clone();
            stored.resize(header.stored_bytes() as usize, 0);
            header.close(key.as_ref(), &mut stored);
            let start = image.len();
            image.resize(start + group_span(header.stored_bytes()) as usize, 0);
            previous = header.emit(&mut image[start..]);
            let payload = start + GROUP_HEADER_BYTES;
            image[payload..payload + stored.len()].copy_from_slice(&stored);
        }
        image
    };
    add("log", "one", groups(1, 0, false));
    add("log", "two", groups(2, 0, false));
    add("log", "hole", groups(2, 1, false));
    add("log", "encrypted", groups(2, 0, true));
    add("segment", "sealed", segment(&records, 1, false));
    add("segment", "packed", segment(&records, 1, true));
    let (encrypted, keys) = encrypted(&records);
    add("segment", "encrypted", encrypted);
    add("segment_keys", "live", keys.0);
    add("segment_keys", "shredded", keys.1);
    let mut endless = segment(&records, 1, false);
    let row = endless.windows(8).rposition(|word| word == 128_u64.to_le_bytes());
    let row = row.expect("the first row's offset");
    endless[row + 8..row + 16].fill(0xff);
    add("segment", "endless-row", endless);
    add("segment", "next", segment(&records, 2, false));
    packed(&records, add);
    add("thinned", "all", thinned(&segment(&records, 1, true), u64::MAX));
    add("thinned", "some", thinned(&segment(&records, 1, false), 1));
    let start = Entry::Start {
        version: 1,
        volume: "v".to_owned(),
        at: CLOCK.wall,
        kept: false,
        before: None,
    };
    let rs = RsId([4; 16]);
    let body = Entry::Body {
        rs,
        number: 1,
        at: CLOCK.wall,
        method: "INVITE".to_owned(),
        cseq: 1,
        content_type: "application/sdp".to_owned(),
        disposition: String::new(),
        bytes: "dj0wDQo=".to_owned(),
    };
    let direction = Entry::Direction {
        rs,
        stream: StreamId(9),
        at: CLOCK.wall,
        mono: CLOCK.mono,
        active: false,
        by: Origin::Src,
    };
    let ended = Entry::Ended {
        rs,
        at: CLOCK.wall,
        by: Origin::Srs,
        reason: "bye".to_owned(),
        remote_cseq: 2,
        bye: false,
    };
    let ids = Entry::StreamIds { next: StreamId(10) };
    let (durable, at) = (Position(4_096), CLOCK.wall);
    let mark = Mark { worker: WorkerId(1), durable, segment: 2, at };
    let marks = Entry::Durable { marks: vec![mark], seal: None };
    let mut out = Vec::new();
    for entry in [&start, &ids, &marks, &body, &direction, &ended] {
        assert!(frame::write(entry, &mut out));
    }
    add("journal", "history", history::write(1, &out, None, None));
    add("journal", "torn", out[..out.len() - 5].to_vec());
    add("journal", "whole", out);
    let opened: Entry = serde_json::from_str(OPENED).expect("an entry");
    let mut standings = Standings::of(&[start, ids, marks, opened, body, direction]);
    let live = snapshot::write(&standings, 1).expect("short lines");
    add("journal", "snapshot", live);
    standings.learn(&ended);
    for standing in standings.recordings.values_mut() {
        Arc::make_mut(standing).streams.clear();
    }
    standings.alive.0 += 60_000_000_000;
    standings.forget();
    add("journal", "snapshot-over", snapshot::write(&standings, 1).expect("short lines"));
}

const OPENED: &str = r#"{"entry":"opened","rs":"04040404040404040404040404040404",
    "at":"2026-01-01T00:00:00.000000000Z","dialog":{"call_id":"c","local_tag":"l","remote_tag":"r",
    "local_uri":"<sip:s@x>","remote_uri":"<sip:c@x>","remote_target":"sip:c@x","route_set":[],
    "local_cseq":0,"remote_cseq":1,"transport":"udp","peer":"192.0.2.1:5060","local":"192.0.2.9:5060",
    "answered":{"method":"INVITE","cseq":1,"via":["SIP/2.0/UDP 192.0.2.1"],"record_route":[],"sdp":true}},
    "src":{"address":null,"identity":"sip:c@x","user_agent":"t"},"signalling":"udp","quirks":[],
    "salt":"AAAA","streams":[{"description":{"stream":9,"rs":"04040404040404040404040404040404",
    "line":0,"label":"1","media":"audio","formats":[],"suite":null,"transport":"RTP/AVP","slot":3,
    "port":20006,"remote":null},"generation":2,"active":true,"rtcp_to":null,"rtcp_mux":false,
    "crypto":null}],"own":false,"answer":"","answer_sdp":"BBBB","bodies":1}"#;

/// Chunks of packed records: all kinds; a sender as most are, with what breaks its regularity.
fn packed(records: &[u8], add: &mut Add<'_>) {
    let mut chunks = Vec::new();
    put_chunk(records, true, &mut chunks);
    add("packed", "kinds", chunks.clone());
    let mut out = Vec::new();
    for number in 0_u64..24 {
        let (skipped, talk) = (number / 9, number / 17);
        let index = 65_526 + number + 3 * skipped;
        let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        packet[1] = if number == 17 * talk { 0x88 } else { 8 };
        packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        let timestamp = (index * 160 + talk * 80_000) as u32;
        packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
        packet.resize(if number % 7 == 6 { 13 } else { 20 }, number as u8);
        let meta = RecordMeta {
            kind: RecordKind::Rtp,
            flags: 1,
            generation: 1,
            source: SourceId::new(StreamId(9), 1),
            index: Index(index),
            arrival: Mono(7_000_000_000 + 20_000_000 * number + 77_777 * (number % 5)),
        };
        let start = out.len();
        out.resize(start + record_bytes(packet.len()), 0);
        record::write(&meta, &packet, &mut out[start..]);
    }
    // One that fails its sum.
    out[200] ^= 1;
    chunks.clear();
    put_chunk(&out, true, &mut chunks);
    put_chunk(&records[..3], true, &mut chunks);
    put_chunk(&out[..300], false, &mut chunks);
    add("packed", "sender", chunks);
}

/// What is left of a segment when its first `gone` extents have gone.
fn thinned(segment: &[u8], gone: u64) -> Vec<u8> {
    let name = SegmentName { worker: WorkerId(1), number: 1 };
    let store =
        std::env::temp_dir().join(format!("floortape-thinned-{}-{gone}", std::process::id()));
    let folder = floortape::store::segment::folder(&store);
    std::fs::create_dir_all(&folder).expect("a temp folder");
    std::fs::write(folder.join(name.file()), segment).expect("a temp file");
    let key = signing_key();
    let left = Cell::new(gone);
    let fate = |_: &Row| {
        let goes = left.get() > 0;
        left.set(left.get().saturating_sub(1));
        goes.then(|| "default".to_owned())
    };
    let thinning = Thinning { now: CLOCK.wall, audit: 7, key: &key };
    thinning.run(&HostDisk, &store, name, &fate, &mut |_| ()).expect("a temp folder");
    let bytes = std::fs::read(folder.join(name.thinned_file())).expect("just written");
    let _ = std::fs::remove_dir_all(&store);
    bytes
}

fn segment(records: &[u8], number: u64, packed: bool) -> Vec<u8> {
    let (facts, span) = contents(records, number, packed);
    let emitter = Emitter::new(facts, span, |_| Some(SALT)).expect("all salts are known");
    emitter.all(&signing_key(), &mut copy_of(records)).expect("memory")
}

/// Segment number 1, encrypted, and its keys: as they were made, and with one of them destroyed.
fn encrypted(records: &[u8]) -> (Vec<u8>, (Vec<u8>, Vec<u8>)) {
    let (facts, span) = contents(records, 1, true);
    let emitter = Emitter::encrypted(facts, span, |_| Some(SALT));
    let mut emitter = emitter.expect("all salts are known");
    let folder = std::env::temp_dir().join(format!("floortape-keys-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temp folder");
    let segment = folder.join("w1-0000000001.seg");
    let of = Of { volume: facts.volume, worker: facts.worker, number: facts.number };
    let (maker, streams) = (KeyMaker::new(wraps(), Arc::new(Same)), emitter.streams());
    let keys = maker.make(&HostDisk, &segment, of, &streams, CLOCK.wall).expect("a temp file");
    emitter.restart_under(keys);
    let path = path_of(&segment);
    let live = std::fs::read(&path).expect("just written");
    let keys = SegmentKeys::read(&HostDisk, &path).expect("just written");
    keys.shred(&HostDisk, &streams[..1], CLOCK.wall).expect("a temp file");
    let shredded = std::fs::read(&path).expect("just written");
    let _ = std::fs::remove_dir_all(&folder);
    (emitter.all(&signing_key(), &mut copy_of(records)).expect("memory"), (live, shredded))
}

fn copy_of(records: &[u8]) -> impl FnMut(Position, &mut [u8]) -> std::io::Result<()> {
    |at, out| {
        let at = at.0 as usize;
        out.copy_from_slice(&records[at..at + out.len()]);
        Ok(())
    }
}

fn contents(records: &[u8], number: u64, packed: bool) -> (SegmentFacts, Span) {
    let mut span = Span::new(Position(0));
    let mut at = 0;
    while let Ok(record) = record::read(&records[at..]) {
        if record.meta.kind != RecordKind::Pad {
            span.add(Position(at as u64), &record);
        }
        at += record.raw.len();
    }
    span.through = Position(at as u64);
    let facts = SegmentFacts {
        worker: WorkerId(1),
        volume: [6; 16],
        number,
        created: CLOCK.wall,
        previous: [1; 32],
        packed,
    };
    (facts, span)
}

/// Four entries of an audit trail, and what may have become of them.
fn trail(add: &mut Add<'_>) {
    let who = |role: &str| Who { uid: 1_000, user: "kim".into(), role: role.into() };
    let at = CLOCK.wall;
    let id = RsId([5; 16]).to_string();
    let acts = [
        Act::new(at, who("server"), action::BEGUN, "01890a5d-ac96-774b-bcce-b302099a8057"),
        Act::new(at, who("listener"), action::EXPORT, &*id)
            .because("a complaint")
            .with("format", "wav"),
        Act::new(at, who(""), action::LISTEN, &*id).refused("no role"),
        Act::new(at, who("compliance"), action::HOLD_ADD, "h1")
            .with("query", serde_json::json!({"ids": [id]})),
    ];
    let mut out = Vec::new();
    let (mut previous, mut frames) = ([0; 32], Vec::new());
    for (number, act) in (1..).zip(acts) {
        let Act { at, who, action, object, reason, outcome, detail } = act;
        let entry =
            trail::Entry { number, previous, at, who, action, object, reason, outcome, detail };
        let from = out.len();
        assert!(frame::write(&entry, &mut out));
        previous = sha256(&out[from + frame::HEAD_BYTES..]);
        frames.push(out[from..].to_vec());
    }
    add("audit", "torn", out[..out.len() - 5].to_vec());
    add("audit", "gap", [&*frames[0], &frames[1], &frames[3]].concat());
    add("audit", "whole", out);
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(90));
    for (name, part) in [
        ("file", Part::File { path: "metadata/001.xml".into(), bytes: 4_711 }),
        ("large", Part::File { path: "mixed.wav".into(), bytes: 1 << 35 }),
        ("long", Part::File { path: long, bytes: 1 }),
        ("folder", Part::Folder { path: "records".into() }),
    ] {
        add("tar", name, part.header().expect("a safe path").to_vec());
    }
}

/// Where a tap stands: at its beginning, and in the middle of two lines; and a block of the ring.
fn tap(add: &mut Add<'_>) {
    use floortape::base::ids::{Index, SourceId, StreamId, WorkerId};
    use floortape::base::time::{Mono, Wall};
    use floortape::store::record::{self, RecordKind, RecordMeta, record_bytes};
    use floortape::store::tap::{LastOf, Mark};

    let last = |index, frame| LastOf {
        index,
        arrival: 1 << 40,
        timestamp: 0xffff_ff00,
        frame,
        wall: CLOCK.wall,
    };
    let mark = Mark {
        start: Wall(CLOCK.wall.0 - 1_000_000_000),
        written: 16_000,
        rings: [(WorkerId(0), (1 << 33, true)), (WorkerId(1), (4_096, false))].into(),
        sources: [
            (SourceId::new(StreamId(7), 1), last(65_540, 15_840)),
            (SourceId::new(StreamId(8), 2), last(9, -160)),
        ]
        .into(),
    };
    add("tap_mark", "empty", Mark::default().to_string().into_bytes());
    add("tap_mark", "lines", mark.to_string().into_bytes());
    let mut block = Vec::new();
    let kinds = [(RecordKind::Rtp, 172), (RecordKind::Event, 40), (RecordKind::Pad, 3)];
    for (kind, bytes) in kinds {
        let meta = RecordMeta {
            kind,
            flags: 0,
            generation: 1,
            source: SourceId::new(StreamId(7), 1),
            index: Index(9),
            arrival: Mono(5),
        };
        let at = block.len();
        block.resize(at + record_bytes(bytes), 0);
        record::write(&meta, &vec![7; bytes], &mut block[at..]);
    }
    add("tap_walk", "block", block);
}

/// What is kept of an extent: of one with a hole, of one without audio, and of one that is gone.
fn peaks(add: &mut Add<'_>) {
    use floortape::store::peaks::{Envelope, Level, Mark, Rates, Strip};

    let mark = |timestamp, ms: i64, ticks, missing| Mark {
        timestamp,
        arrival: Wall(CLOCK.wall.0 + ms * 1_000_000),
        ticks,
        missing,
    };
    let level = |min, max, rms, frames| Level { min, max, rms, frames };
    let heard = Envelope {
        ordinal: 2,
        ssrc: 0xfeed_beef,
        rates: Rates { rate: 8_000, clock_rate: 8_000, channels: 1 },
        indexes: (65_530, 65_800),
        marks: vec![
            mark(u32::MAX - 159, 0, 16_000, 0),
            mark(8_000, 980, 160, 0),
            mark(15_840, 2_004, 160, 0),
            mark(40_000, 5_010, 1_600, 150),
        ],
        block: 8_000,
        levels: vec![
            (-1, level(-5, 9, 4, 160)),
            (0, level(-20_000, 19_000, 4_096, 8_000)),
            (1, level(-100, 104, 60, 7_840)),
            (5, level(0, 0, 0, 1_600)),
        ],
    };
    let still = Envelope { marks: Vec::new(), levels: Vec::new(), ..heard.clone() };
    let segment = SegmentName { worker: WorkerId(1), number: 300 };
    let source = SourceId::new(StreamId(7), 2);
    let gone = Strip::Gone(CLOCK.wall, Wall(CLOCK.wall.0 + 5_000_000_000));
    let strips = [("heard", Strip::Heard(heard)), ("still", Strip::Heard(still)), ("gone", gone)];
    for (name, strip) in strips {
        add("peaks", name, strip.emit(segment, source));
    }
}
