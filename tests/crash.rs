//! `kill -9` of control and of media as a dialog sees it: INVITE, re-INVITE and BYE are answered, and
//! what was answered is recorded. Kills by the number are in `tests/crash/`.

mod server;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use server::{CONTROL, MEDIA, Server, binary, command, free_port, fresh_folder, send, until};

/// Patience with a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server with the folder of its store, which lives as long as it does.
struct Bench {
    server: Server,
    folder: PathBuf,
    port: u16,
}

impl Bench {
    fn start() -> Self {
        let (folder, port) = (fresh_folder(), free_port());
        let mut command = command(&folder, port);
        command.args(["--set", "media.streams_max=20"]);
        let server = Server::start(command, &folder).ready();
        Bench { server, folder, port }
    }

    /// Kills a role, and its successor too as soon as there is one, `times` in all.
    fn kill(&self, name: &str, times: u32) {
        for _ in 0..times {
            let before = until(name, PATIENCE, || self.server.child(name));
            send(before, Signal::KILL);
            until("a successor", PATIENCE, || self.server.child(name).filter(|pid| *pid != before));
        }
    }

    fn call(&self, words: &[&str]) -> Call {
        Call::start(self.port, words)
    }

    fn verb(&self, words: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(words).arg("--store").arg(self.folder.join("store"));
        command.output().expect("the binary is built")
    }

    fn listed(&self) -> Vec<Value> {
        let listed = self.verb(&["ls", "--json"]);
        assert!(listed.status.success(), "{}", text(&listed.stderr));
        lines(&listed.stdout)
    }

    /// Packets on disk, of all recordings.
    fn durable(&self) -> u64 {
        self.listed().iter().flat_map(sources).map(|source| number(&source["packets"])).sum()
    }

    /// All recordings, once they have ended, are durable, and their ledgers say "complete".
    fn ended(&self, count: usize) -> Vec<Value> {
        until("the end of all recordings", PATIENCE, || {
            let listed = self.listed();
            let settled = listed.iter().all(|recording| {
                recording["state"] == "ended" && recording["durable_through"] == recording["end"]
            });
            (settled && listed.len() == count).then_some(listed)
        })
    }
}

fn sources(recording: &Value) -> impl Iterator<Item = &Value> {
    let streams = recording["streams"].as_array().into_iter().flatten();
    streams.flat_map(|stream| stream["sources"].as_array().into_iter().flatten())
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    text(bytes).lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

/// `floortape src call` at work.
struct Call {
    child: Child,
    stages: mpsc::Receiver<String>,
}

impl Call {
    fn start(port: u16, words: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["src", "call", "--numbered", "--json", "--to"])
            .arg(format!("sip:srs@127.0.0.1:{port}"))
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (stage, stages) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = stage.send(line);
            }
        });
        Call { child, stages }
    }

    /// Waits for a stage such as `sending`.
    fn reaches(&self, stage: &str) {
        let end = Instant::now() + PATIENCE;
        while let Ok(line) = self.stages.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            if line.starts_with(stage) {
                return;
            }
        }
        panic!("the call does not reach {stage}");
    }

    /// Its exit code, and what it sent where that is 0.
    fn end(mut self) -> (Option<i32>, Value) {
        let mut out = String::new();
        let mut stdout = self.child.stdout.take().expect("piped");
        stdout.read_to_string(&mut out).expect("text");
        let code = self.child.wait().expect("ours").code();
        let sent =
            if code == Some(0) { serde_json::from_str(&out).expect("JSON") } else { Value::Null };
        (code, sent)
    }
}

/// Media dies while INVITEs are under way. Each is refused with 503, or answered with 200 and
/// recorded from its first packet: never 200 and empty.
#[test]
fn an_invite_while_media_dies_is_recorded_or_refused() {
    let bench = Bench::start();
    let mut recorded = Vec::new();
    for round in 0..8 {
        let call = bench.call(&["--streams=4", "--duration=0.2"]);
        if round % 2 == 0 {
            // The INVITEs are leaving now; else they meet a media that is gone already.
            call.reaches("inviting");
        }
        bench.kill(MEDIA, 1);
        match call.end() {
            (Some(0), sent) => recorded.push(sent),
            (Some(75), _) => {}
            (code, _) => panic!("exit code {code:?}\n{}", bench.server.lines().join("\n")),
        }
    }
    let streams: Vec<Value> = recorded
        .iter()
        .flat_map(|sent| sent["streams"].as_array().expect("a list"))
        .cloned()
        .collect();
    eprintln!("{} of 8 rounds recorded", recorded.len());
    // A call of a refused load may have stood for a moment, without a packet.
    let listed = until("the end of all recordings", PATIENCE, || {
        let listed = bench.listed();
        // What media has captured is listed once it is durable, and media has just been dead.
        let over = |one: &Value| one["state"] != "live" && one["durable_through"] == one["end"];
        listed.iter().all(over).then_some(listed)
    });
    let found: BTreeMap<u64, u64> = listed
        .iter()
        .flat_map(sources)
        .map(|source| (number(&source["ssrc"]), number(&source["packets"])))
        .collect();
    for stream in streams {
        let packets = found.get(&number(&stream["ssrc"])).copied();
        let said = bench.server.lines().join("\n");
        assert_eq!(packets, Some(number(&stream["sent"])), "{stream}\n{said}");
    }
}

#[test]
fn a_dialog_outlives_control_through_re_invite_and_bye() {
    let bench = Bench::start();
    let mut peer = Peer::new(bench.port);
    let (code, answer) = peer.invite(1);
    assert_eq!(code, 200, "{answer}");
    let media = media_port(&answer);
    peer.play(media, 50);
    until("packets on disk", PATIENCE, || (bench.durable() == 50).then_some(()));
    bench.kill(CONTROL, 1);
    let (code, answer) = peer.invite(2);
    assert_eq!(code, 200, "{answer}");
    assert_eq!(media_port(&answer), media, "the same line, the same port");
    peer.play(media, 50);
    until("packets on disk", PATIENCE, || (bench.durable() == 100).then_some(()));
    bench.kill(CONTROL, 2);
    bench.kill(MEDIA, 1);
    peer.play(media, 50);
    assert_eq!(peer.bye().0, 200);
    let listed = bench.ended(1);
    let source = sources(&listed[0]).next().expect("one source");
    assert_eq!((&source["packets"], &source["unexplained"]), (&150.into(), &0.into()), "{source}");
    // Not "complete", which takes the sender's own count: this one sends no reports.
    assert_eq!(listed[0]["streams"][0]["verdict"], "continuous");
}

#[test]
fn a_server_that_is_asked_to_end_ends_by_itself_and_keeps_what_it_has() {
    let mut bench = Bench::start();
    let call = bench.call(&["--streams=4", "--duration=60"]);
    call.reaches("sending");
    until("packets on disk", PATIENCE, || (bench.durable() >= 100).then_some(()));
    // The first lets running calls end, the second does not wait for them.
    bench.server.signal(Signal::TERM);
    until("draining", PATIENCE, || bench.server.told("asked to end").then_some(()));
    bench.server.signal(Signal::TERM);
    assert_eq!(bench.server.wait().code(), Some(0), "{:?}", bench.server.lines());
    assert!(!bench.server.told("killing it"), "{:?}", bench.server.lines());
    assert!(bench.server.told("health: "), "{:?}", bench.server.lines());
    // The sender heard a BYE and says that the recorder ended its calls.
    assert_eq!(call.end().0, Some(1));
    for recording in bench.ended(2) {
        let id = recording["id"].as_str().expect("an id");
        assert_eq!(bench.verb(&["verify", id]).status.code(), Some(0));
    }
}

fn media_port(answer: &str) -> u16 {
    let line = answer.lines().find(|line| line.starts_with("m=audio ")).expect("an m-line");
    line.split(' ').nth(1).and_then(|port| port.parse().ok()).expect("a port")
}

/// A recording client in the test's own hand: one dialog over UDP, plain RTP.
struct Peer {
    sip: UdpSocket,
    rtp: UdpSocket,
    srs: String,
    to_tag: String,
    cseq: u32,
    packets: u16,
}

impl Peer {
    fn new(port: u16) -> Self {
        let bind = || UdpSocket::bind("127.0.0.1:0").expect("some port is free");
        let sip = bind();
        sip.set_read_timeout(Some(Duration::from_millis(250))).expect("a socket");
        let srs = format!("127.0.0.1:{port}");
        Peer { sip, rtp: bind(), srs, to_tag: String::new(), cseq: 0, packets: 0 }
    }

    fn local(&self) -> String {
        self.sip.local_addr().expect("bound").to_string()
    }

    fn request(&self, method: &str, branch: &str, headers: &str, body: &str) -> String {
        let (srs, local) = (&self.srs, self.local());
        format!(
            "{method} sip:srs@{srs} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{branch};rport\r\n\
             From: <sip:src@{local}>;tag=src\r\nTo: <sip:srs@{srs}>{to_tag}\r\n\
             Call-ID: crash@{local}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n\
             Contact: <sip:src@{local}>;+sip.src\r\n{headers}Content-Length: {length}\r\n\r\n{body}",
            to_tag = self.to_tag,
            cseq = self.cseq,
            length = body.len(),
        )
    }

    /// Sends a request, again and again as UDP wants it, until its final answer.
    fn ask(&mut self, method: &str, headers: &str, body: &str) -> (u16, String) {
        self.cseq += 1;
        let branch = format!("{method}{}", self.cseq);
        let request = self.request(method, &branch, headers, body);
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
        let port = self.rtp.local_addr().expect("bound").port();
        let metadata = concat!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n",
            "<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">",
            "<datamode>complete</datamode></recording>"
        );
        let body = format!(
            "--edge\r\nContent-Type: application/sdp\r\n\r\nv=0\r\no=SRC 7 {version} IN IP4 127.0.0.1\r\n\
             s=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\na=label:1\r\n\
             a=sendonly\r\n\r\n--edge\r\nContent-Type: application/rs-metadata+xml\r\n\
             Content-Disposition: recording-session\r\n\r\n{metadata}\r\n--edge--\r\n"
        );
        let headers = "Require: siprec\r\nContent-Type: multipart/mixed;boundary=\"edge\"\r\n";
        let (code, answer) = self.ask("INVITE", headers, &body);
        if code == 200 {
            let to = answer.lines().find(|line| line.starts_with("To:")).expect("To");
            self.to_tag = to[to.find(";tag=").expect("a tag")..].to_owned();
            let branch = format!("ack{}", self.cseq);
            let ack = self.request("ACK", &branch, "", "");
            self.sip.send_to(ack.as_bytes(), &self.srs).expect("loopback");
        }
        (code, answer)
    }

    fn bye(&mut self) -> (u16, String) {
        self.ask("BYE", "", "")
    }

    /// Sends the next `count` packets at once.
    fn play(&mut self, port: u16, count: u16) {
        for _ in 0..count {
            let mut packet = vec![0x80, 0];
            packet.extend_from_slice(&self.packets.to_be_bytes());
            packet.extend_from_slice(&(u32::from(self.packets) * 160).to_be_bytes());
            packet.extend_from_slice(&0x0102_0304_u32.to_be_bytes());
            packet.extend_from_slice(&[0xff; 160]);
            self.rtp.send_to(&packet, ("127.0.0.1", port)).expect("loopback");
            self.packets += 1;
        }
    }
}
