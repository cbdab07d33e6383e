//! The whole recorder goes down at once (keeper, media and control killed together, as a power cut
//! takes them) and is started again on the same store, while calls go on. Their SRCs notice nothing:
//! the recordings continue, and what was sent in the dark is missing for the cause `power`.

mod lost;
mod server;

use std::io::{Read, Seek, SeekFrom, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use floortape::base::ids::{Index, Seq, Ssrc};
use floortape::base::secret::MasterKey;
use floortape::base::suite::Suite;
use floortape::proto::srtp::Context;
use floortape::wire::rtp::Fields;
use rustix::process::Signal;
use serde_json::Value;
use server::{
    CONTROL, MEDIA, Server, argv0, binary, command, free_port, fresh_folder, send, until,
};

/// Patience with a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store, and the server on it that comes and goes.
struct Bench {
    server: Option<Server>,
    folder: PathBuf,
    port: u16,
    /// Its own range, below those that sockets without a wish get: the same ports must be free again.
    ports: &'static str,
    workers: u16,
}

impl Bench {
    fn start(ports: &'static str) -> Self {
        Self::start_with(ports, 1)
    }

    fn start_with(ports: &'static str, workers: u16) -> Self {
        let (folder, port) = (fresh_folder(), free_port());
        let mut bench = Bench { server: None, folder, port, ports, workers };
        bench.power_on();
        bench
    }

    fn power_on(&mut self) {
        let mut command = command(&self.folder, self.port);
        command.args(["--set", &format!("media.ports={}", self.ports)]);
        command.args(["--set", &format!("cpu.workers={}", self.workers)]);
        // The server's end is not the store's.
        self.server = Some(Server::start(command, &self.folder.join("nothing")).ready());
    }

    /// All processes at once.
    fn power_off(&mut self) {
        let mut server = self.server.take().expect("it runs");
        let children = [MEDIA, CONTROL].map(|name| (name, server.child(name).expect("it runs")));
        server.signal(Signal::KILL);
        children.iter().for_each(|(_, pid)| send(*pid, Signal::KILL));
        server.wait();
        for (name, pid) in children {
            until("the end of all", PATIENCE, || {
                (argv0(pid).as_deref() != Some(name)).then_some(())
            });
        }
    }

    fn told(&self, text: &str) -> bool {
        self.server.as_ref().is_some_and(|server| server.told(text))
    }

    fn said(&self) -> String {
        self.server.as_ref().map(|server| server.lines().join("\n")).unwrap_or_default()
    }

    fn verb(&self, words: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(words).arg("--store").arg(self.folder.join("store"));
        command.output().expect("the binary is built")
    }

    fn listed(&self) -> Vec<Value> {
        let listed = self.verb(&["ls", "--json"]);
        assert!(listed.status.success(), "{}", text(&listed.stderr));
        text(&listed.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Packets on disk, of all recordings.
    fn durable(&self) -> u64 {
        self.listed().iter().flat_map(sources).map(|source| number(&source["packets"])).sum()
    }

    /// All recordings, once they have ended and are durable.
    fn ended(&self, count: usize) -> Vec<Value> {
        until("the end of all recordings", PATIENCE, || {
            let listed = self.listed();
            let settled = listed.iter().all(|recording| {
                recording["state"] == "ended" && recording["durable_through"] == recording["end"]
            });
            (settled && listed.len() == count).then_some(listed)
        })
    }

    fn src(&self, words: &[&str]) -> Child {
        Command::new(binary())
            .args(["src", "call", "--numbered", "--json", "--to"])
            .arg(format!("sip:srs@127.0.0.1:{}", self.port))
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary is built")
    }

    /// Every byte proves itself, and nothing is unexplained.
    fn verified(&self, recording: &Value) {
        let id = recording["id"].as_str().expect("an id");
        let verified = self.verb(&["verify", id, "--json"]);
        let told = text(&verified.stdout);
        assert_eq!(verified.status.code(), Some(0), "{told}\n{}", self.said());
    }

    /// Bytes of sound in the exported WAV of the recording's first stream.
    fn wav_bytes(&self, recording: &Value) -> u64 {
        let id = recording["id"].as_str().expect("an id");
        let folder = self.folder.join(format!("export-{id}"));
        let exported = self.verb(&["export", id, "-o", folder.to_str().expect("UTF-8")]);
        assert!(exported.status.success(), "{}", text(&exported.stderr));
        let label = recording["streams"][0]["label"].as_str().expect("a label");
        std::fs::metadata(folder.join(format!("{label}.wav"))).expect("exported").len() - 44
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.server = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn sources(recording: &Value) -> impl Iterator<Item = &Value> {
    let streams = recording["streams"].as_array().into_iter().flatten();
    streams.flat_map(|stream| stream["sources"].as_array().into_iter().flatten())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("expected a number, found {value}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn sent(mut src: Child) -> Value {
    let mut out = String::new();
    src.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
    assert_eq!(src.wait().expect("ours").code(), Some(0), "the SRC noticed something");
    serde_json::from_str(&out).expect("JSON")
}

/// Lets time pass for senders that do not wait for us.
fn dark(time: Duration) {
    let end = Instant::now() + time;
    until("the dark", time * 3, || (Instant::now() >= end).then_some(()));
}

/// What was sent is recorded or was lost with the power, in one gap, with the bounds of the dark.
fn judge_stream(recording: &Value, stream: &Value, said: &str) {
    let ssrc = number(&stream["ssrc"]);
    let source = sources(recording).find(|source| number(&source["ssrc"]) == ssrc);
    let source = source.unwrap_or_else(|| panic!("no source {ssrc} in {recording}\n{said}"));
    let (packets, lost) = (number(&source["packets"]), number(&source["lost"]["power"]));
    assert_eq!(packets + lost, number(&stream["sent"]), "{source}\n{said}");
    assert_eq!(number(&source["unexplained"]), 0, "{source}\n{said}");
    assert_eq!(source["lost"], serde_json::json!({ "power": lost }), "{source}\n{said}");
    let first = number(&stream["first_seq"]);
    assert_eq!(source["first_index"], first);
    assert_eq!(number(&source["last_index"]), first + number(&stream["sent"]) - 1, "{source}");
    let gaps = source["gaps"].as_array().expect("a list");
    assert_eq!((gaps.len(), &gaps[0]["cause"]), (1, &"power".into()), "{source}");
    // At most a commit interval and one sync above the durable mark, and the dark itself.
    assert!(lost >= 50, "{source}");
}

#[test]
fn f06_calls_of_every_suite_go_on_after_a_power_cut() {
    let mut bench = Bench::start("27000-27049");
    assert!(!bench.told("did not end cleanly"), "{}", bench.said());
    let kinds: [&[&str]; 4] = [
        &["--suite=AES_CM_128_HMAC_SHA1_80"],
        &["--suite=AES_CM_128_HMAC_SHA1_32"],
        &["--suite=AEAD_AES_256_GCM"],
        &["--srtp=none"],
    ];
    let calls: Vec<Child> = kinds
        .iter()
        .map(|kind| bench.src(&[kind, &["--streams=2", "--duration=12"][..]].concat()))
        .collect();
    until("packets on disk", PATIENCE, || (bench.durable() >= 800).then_some(()));
    bench.power_off();
    dark(Duration::from_millis(1_500));
    bench.power_on();
    assert!(bench.told("the last run did not end cleanly"), "{}", bench.said());
    assert!(bench.told("4 recordings resumed, 8 streams"), "{}", bench.said());
    let live: Vec<Value> = bench.listed();
    assert!(live.iter().all(|recording| recording["state"] == "live"), "{live:?}");
    let sent: Vec<Value> = calls.into_iter().map(sent).collect();
    let ended = bench.ended(4);
    for call in &sent {
        for stream in call["streams"].as_array().expect("a list") {
            let of_call = |recording: &&Value| recording["call_id"] == stream["call_id"];
            let recording = ended.iter().find(of_call).expect("its recording");
            judge_stream(recording, stream, &bench.said());
        }
    }
    for recording in &ended {
        assert_eq!(recording["streams"][0]["verdict"], "gaps");
        bench.verified(recording);
        // Silence of the right length: RTP time goes on through the dark.
        let stream = &sent.iter().find_map(|call| {
            let streams = call["streams"].as_array().expect("a list");
            streams.iter().find(|stream| stream["call_id"] == recording["call_id"])
        });
        let packets = number(&stream.expect("its call")["sent"]);
        assert_eq!(bench.wav_bytes(recording), packets * 160 * 2);
    }
}

/// Damage to what the cut left: the last commit group of the log is not what it was.
fn tear(store: &Path) {
    let folder = store.join("log").join("w0");
    let mut newest: Option<(u64, PathBuf, u64)> = None;
    for entry in std::fs::read_dir(folder).expect("a log").flatten() {
        let bytes = std::fs::read(entry.path()).expect("readable");
        for at in (0..bytes.len().saturating_sub(4_096)).step_by(4_096) {
            if bytes[at..].starts_with(b"FTGROUP1") {
                let sequence = u64::from_le_bytes(bytes[at + 24..at + 32].try_into().expect("8"));
                if newest.as_ref().is_none_or(|(last, ..)| *last < sequence) {
                    newest = Some((sequence, entry.path(), at as u64));
                }
            }
        }
    }
    let (_, path, at) = newest.expect("a commit group");
    let mut file = std::fs::OpenOptions::new().write(true).open(path).expect("ours");
    file.seek(SeekFrom::Start(at + 128 + 60)).expect("within");
    file.write_all(&[0xee; 32]).expect("ours");
}

/// A recording client in the test's own hand: one dialog over UDP, SRTP under a key of its own.
struct Peer {
    sip: UdpSocket,
    rtp: UdpSocket,
    srs: String,
    to_tag: String,
    cseq: u32,
    suite: Suite,
    key: Vec<u8>,
    next: Index,
    media: u16,
}

impl Peer {
    fn new(port: u16, suite: Suite, first: Index) -> Self {
        let bind = || UdpSocket::bind("127.0.0.1:0").expect("some port is free");
        let sip = bind();
        sip.set_read_timeout(Some(Duration::from_millis(250))).expect("a socket");
        let key = (0..suite.master_bytes() as u8).collect();
        let (srs, to_tag) = (format!("127.0.0.1:{port}"), String::new());
        Peer { sip, rtp: bind(), srs, to_tag, cseq: 0, suite, key, next: first, media: 0 }
    }

    fn request(&self, method: &str, headers: &str, body: &str) -> String {
        let (srs, local) = (&self.srs, self.sip.local_addr().expect("bound"));
        format!(
            "{method} sip:srs@{srs} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {local};branch=z9hG4bK{method}{cseq};rport\r\n\
             From: <sip:src@127.0.0.1>;tag=src\r\nTo: <sip:srs@{srs}>{to_tag}\r\n\
             Call-ID: resume-{media}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n\
             Contact: <sip:src@{local}>;+sip.src\r\n{headers}Content-Length: {length}\r\n\r\n{body}",
            to_tag = self.to_tag,
            media = self.rtp.local_addr().expect("bound").port(),
            cseq = self.cseq,
            length = body.len(),
        )
    }

    /// Sends a request, again and again as UDP wants it, until its final answer.
    fn ask(&mut self, method: &str, headers: &str, body: &str) -> (u16, String) {
        let request = self.request(method, headers, body);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            self.sip.send_to(request.as_bytes(), &self.srs).expect("loopback");
            let mut datagram = vec![0; 65_536];
            while let Ok((length, _)) = self.sip.recv_from(&mut datagram) {
                let answer = text(&datagram[..length]);
                let code = answer.strip_prefix("SIP/2.0 ").and_then(|rest| rest[..3].parse().ok());
                let is_ours = answer.contains(&format!("CSeq: {} {method}", self.cseq));
                if let Some(code) = code.filter(|code| is_ours && *code >= 200) {
                    return (code, answer);
                }
            }
        }
        panic!("{method} is not answered");
    }

    /// INVITE, or re-INVITE in the dialog that stands; `version` is that of the SDP.
    fn invite(&mut self, version: u32) -> (u16, String) {
        self.cseq += 1;
        let port = self.rtp.local_addr().expect("bound").port();
        let (suite, key) = (self.suite.name(), STANDARD.encode(&self.key));
        let body = format!(
            "v=0\r\no=SRC 7 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
             m=audio {port} RTP/SAVP 0\r\na=crypto:1 {suite} inline:{key}\r\na=label:1\r\n\
             a=sendonly\r\n"
        );
        let headers = "Require: siprec\r\nContent-Type: application/sdp\r\n";
        let (code, answer) = self.ask("INVITE", headers, &body);
        if code == 200 {
            let to = answer.lines().find(|line| line.starts_with("To:")).expect("To");
            self.to_tag = to[to.find(";tag=").expect("a tag")..].to_owned();
            let line = answer.lines().find(|line| line.starts_with("m=audio ")).expect("m-line");
            self.media = line.split(' ').nth(1).and_then(|p| p.parse().ok()).expect("a port");
            let ack = self.request("ACK", "", "");
            self.sip.send_to(ack.as_bytes(), &self.srs).expect("loopback");
        }
        (code, answer)
    }

    fn bye(&mut self) -> u16 {
        self.cseq += 1;
        self.ask("BYE", "", "").0
    }

    /// Sends the next `count` packets at once; in the dark they meet a closed port.
    fn play(&mut self, count: u64) {
        let master = MasterKey::new(&self.key).expect("fits");
        let context = Context::new(self.suite, &master).expect("fits");
        for _ in 0..count {
            let fields = Fields {
                marker: false,
                payload_type: 0,
                seq: self.next.seq(),
                timestamp: (self.next.0 as u32).wrapping_mul(160),
                ssrc: Ssrc(0x0102_0304),
            };
            let mut clear = fields.emit().to_vec();
            clear.extend_from_slice(&[0xff; 160]);
            let mut wire = vec![0; 512];
            let length = context.protect_rtp(&clear, self.next, &mut wire).expect("room");
            let to = ("127.0.0.1", self.media);
            self.rtp.send_to(&wire[..length], to).expect("loopback");
            self.next = Index(self.next.0 + 1);
        }
    }
}

/// One call by hand: `before` packets, the cut, `after_cut`, `missed` packets into nowhere, and 50
/// more. Returns its only source.
fn cut(ports: &'static str, suite: Suite, missed: u64, after_cut: impl Fn(&Bench)) -> Value {
    let mut bench = Bench::start(ports);
    let mut peer = Peer::new(bench.port, suite, Index::new(0, Seq(65_400)));
    let (code, answer) = peer.invite(1);
    assert_eq!(code, 200, "{answer}");
    let media = peer.media;
    // Two halves, so that they stand in two commit groups.
    for durable in [25, 50] {
        peer.play(25);
        until("packets on disk", PATIENCE, || (bench.durable() == durable).then_some(()));
    }
    bench.power_off();
    after_cut(&bench);
    peer.play(missed);
    bench.power_on();
    peer.play(50);
    let (code, answer) = peer.invite(2);
    assert_eq!((code, peer.media), (200, media), "{answer}\n{}", bench.said());
    peer.play(50);
    until("the last packet on disk", PATIENCE, || {
        let last = |source: &Value| number(&source["last_index"]) == peer.next.0 - 1;
        bench.listed().iter().flat_map(sources).any(last).then_some(())
    });
    assert_eq!(peer.bye(), 200);
    let ended = bench.ended(1);
    bench.verified(&ended[0]);
    let source = sources(&ended[0]).next().expect("one source").clone();
    let all = sources(&ended[0]).count();
    assert_eq!(all, 1, "one SSRC, one source: {}\n{}", ended[0], bench.said());
    assert_eq!(number(&source["unexplained"]), 0, "{source}\n{}", bench.said());
    assert_eq!(source["last_index"], peer.next.0 - 1, "{source}");
    source
}

#[test]
fn f06_a_sequence_number_that_wraps_in_the_dark_keeps_its_roll_over_counter() {
    let source = cut("27050-27099", Suite::AeadAes128Gcm, 300, |_| {});
    assert_eq!((number(&source["packets"]), &source["lost"]["power"]), (150, &300.into()));
    assert!(number(&source["last_index"]) > 65_536);
}

#[test]
fn f32_a_sender_that_went_on_for_two_cycles_is_found_again() {
    let source = cut("27100-27149", Suite::AesCm128HmacSha1_80, 120_000, |_| {});
    assert_eq!((number(&source["packets"]), &source["lost"]["power"]), (150, &120_000.into()));
}

/// An SRC that sends under its new key before it has said it, and a media that dies while that waits.
#[test]
fn f36_media_under_a_key_that_comes_later_is_recorded_though_media_dies_meanwhile() {
    let bench = Bench::start("27200-27249");
    let mut peer = Peer::new(bench.port, Suite::AesCm128HmacSha1_80, Index::new(0, Seq(65_480)));
    assert_eq!(peer.invite(1).0, 200);
    peer.play(50);
    until("packets on disk", PATIENCE, || (bench.durable() == 50).then_some(()));
    peer.key.reverse();
    peer.play(10);
    let media = bench.server.as_ref().and_then(|server| server.child(MEDIA)).expect("it runs");
    send(media, Signal::KILL);
    peer.play(10);
    let (code, answer) = peer.invite(2);
    assert_eq!(code, 200, "{answer}");
    peer.play(50);
    until("the last packet on disk", PATIENCE, || {
        let last = |source: &Value| number(&source["last_index"]) == peer.next.0 - 1;
        bench.listed().iter().flat_map(sources).any(last).then_some(())
    });
    assert_eq!(peer.bye(), 200);
    let ended = bench.ended(1);
    bench.verified(&ended[0]);
    let all: Vec<&Value> = sources(&ended[0]).collect();
    let [source] = all[..] else { panic!("one SSRC, one source: {}", ended[0]) };
    assert_eq!((number(&source["packets"]), number(&source["unexplained"])), (120, 0), "{source}");
    assert_eq!(source["lost"], serde_json::json!({}), "{source}");
    assert_eq!(source["last_index"], peer.next.0 - 1, "{source}");
}

#[test]
fn f10_a_torn_end_of_the_log_is_lost_with_the_power_and_nothing_else() {
    let source = cut("27150-27199", Suite::AesCm128HmacSha1_32, 100, |bench| {
        tear(&bench.folder.join("store"));
    });
    assert!(source["lost"]["power"].is_u64(), "{source}");
    let (packets, lost) = (number(&source["packets"]), number(&source["lost"]["power"]));
    assert_eq!(packets + lost, 250, "{source}");
    assert!((125..=150).contains(&packets), "{source}");
}
