//! Flows inside a running session, with the real server: session timers refreshed by either side, a
//! client that stops refreshing, snapshots asked for; control killed in between.

#[expect(dead_code, reason = "shared with tests that kill processes")]
mod server;

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use server::{CONTROL, Server, binary, command, free_port, fresh_folder, send, until};

const LIMIT: Duration = Duration::from_secs(10);

/// A client with one dialog.
struct Src {
    socket: UdpSocket,
    cseq: u32,
    to_tag: String,
    /// Further header fields of its INVITE and UPDATE.
    fields: &'static str,
}

impl Src {
    fn new(server: u16, fields: &'static str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.connect(("127.0.0.1", server)).expect("loopback");
        Src { socket, cseq: 0, to_tag: String::new(), fields }
    }

    fn send(&self, method: &str, content_type: &str, body: &str) {
        let (cseq, tag, fields) = (self.cseq, &self.to_tag, self.fields);
        let own = self.socket.local_addr().expect("bound");
        let kind = match body {
            "" => String::new(),
            _ => format!("Content-Type: {content_type}\r\n"),
        };
        let text = format!(
            "{method} sip:srs@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{method}{cseq};rport\r\n\
             From: <sip:flow@127.0.0.1>;tag=flow\r\nTo: <sip:srs@127.0.0.1>{tag}\r\nCall-ID: flow-{own}\r\n\
             CSeq: {cseq} {method}\r\nMax-Forwards: 70\r\nRequire: siprec\r\nContact: <sip:flow@{own}>;+sip.src\r\n\
             {fields}{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.socket.send(text.as_bytes()).expect("loopback");
    }

    /// The next message that `wanted` takes; others are passed over.
    fn next(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + limit;
        let mut buffer = vec![0; 65_536];
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            self.socket
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .expect("a timeout");
            // A server that is being replaced answers with ICMP.
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if wanted(&text) {
                return Some(text);
            }
        }
        None
    }

    fn ask(&mut self, method: &str, content_type: &str, body: &str) -> String {
        self.cseq += 1;
        self.send(method, content_type, body);
        let cseq = format!("CSeq: {} {method}\r\n", self.cseq);
        let answer = self.next(LIMIT, |text| {
            text.starts_with("SIP/2.0 ") && !text.starts_with("SIP/2.0 1") && text.contains(&cseq)
        });
        answer.unwrap_or_else(|| panic!("no answer to {method}"))
    }

    /// Begins an RS of one line; returns the answer and our port at the server.
    fn invite(&mut self) -> (String, u16) {
        let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
            m=audio 6000 RTP/AVP 0\r\na=label:1\r\na=sendonly\r\n";
        let answer = self.ask("INVITE", "application/sdp", sdp);
        assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
        let to = answer.lines().find(|line| line.starts_with("To:")).expect("a To");
        self.to_tag = to[to.find(";tag=").expect("a tag")..].to_owned();
        self.send("ACK", "", "");
        let line = answer.lines().find_map(|line| line.strip_prefix("m=audio ")).expect("a line");
        let port = line.split(' ').next().expect("a port").parse().expect("a port");
        (answer, port)
    }

    /// The next request of the server; the same one twice over UDP counts once for `cseq` above.
    fn asked(&self, method: &str, limit: Duration) -> Option<String> {
        self.next(limit, |text| text.starts_with(&format!("{method} ")))
    }

    /// Says 200 to a request of the server.
    fn answer(&self, request: &str, fields: &str) {
        let own = self.socket.local_addr().expect("bound");
        let same = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
        let copied: Vec<&str> =
            request.lines().filter(|line| same.iter().any(|name| line.starts_with(name))).collect();
        let text = format!(
            "SIP/2.0 200 OK\r\n{}\r\nContact: <sip:flow@{own}>;+sip.src\r\n{fields}Content-Length: 0\r\n\r\n",
            copied.join("\r\n")
        );
        self.socket.send(text.as_bytes()).expect("loopback");
    }
}

fn value<'t>(message: &'t str, name: &str) -> &'t str {
    let line = message.lines().find_map(|line| line.strip_prefix(name));
    line.map_or("", |rest| rest.trim_start_matches(':').trim())
}

fn cseq(message: &str) -> u32 {
    value(message, "CSeq").split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}

/// The only recording.
fn recording(store: &Path) -> Value {
    let output = Command::new(binary())
        .args(["ls", "--json", "--store"])
        .arg(store)
        .output()
        .expect("the binary is built");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(text.lines().next().unwrap_or("null")).unwrap_or(Value::Null)
}

fn serve(folder: &Path, port: u16) -> Server {
    let mut command = command(folder, port);
    command.args(["--set", "sip.min_se_s=2", "--set", "sip.session_expires_s=4"]);
    Server::start(command, folder).ready()
}

/// Kills control and waits until its successor answers.
fn kill_control(server: &Server) {
    let pid = server.child(CONTROL).expect("control runs");
    send(pid, Signal::KILL);
    until("the next control", LIMIT, || server.child(CONTROL).filter(|next| *next != pid));
}

#[test]
fn either_side_refreshes_and_the_timer_outlives_control() {
    // REQ-001: the RS is up past more than two intervals of 4 s, and one BYE ends it.
    let (folder, port) = (fresh_folder(), free_port());
    let store = folder.join("store");
    let server = serve(&folder, port);
    let mut src = Src::new(port, "Supported: timer\r\nAllow: INVITE, UPDATE, BYE\r\n");
    let (answer, _) = src.invite();
    assert_eq!(value(&answer, "Session-Expires"), "4;refresher=uas");
    let began = Instant::now();
    let first = src.asked("UPDATE", LIMIT).expect("a refresh at half the interval");
    assert!(began.elapsed() >= Duration::from_millis(1_500), "{:?}", began.elapsed());
    assert_eq!(value(&first, "Session-Expires"), "4;refresher=uac");
    assert!(first.ends_with("\r\n\r\n"), "without a body: {first}");
    src.answer(&first, "Session-Expires: 4;refresher=uac\r\n");
    // What this control has promised, the next one keeps.
    kill_control(&server);
    let mut last = cseq(&first);
    for _ in 0..4 {
        let again = src
            .next(LIMIT, |text| text.starts_with("UPDATE ") && cseq(text) > last)
            .expect("a refresh by the successor");
        last = cseq(&again);
        src.answer(&again, "Session-Expires: 4;refresher=uac\r\n");
    }
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(recording(&store)["state"], "live");
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
    until("the end", LIMIT, || (recording(&store)["state"] == "ended").then_some(()));

    // Its own refresher, and an interval below ours.
    let mut brief = Src::new(port, "Supported: timer\r\nSession-Expires: 1\r\n");
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
        m=audio 6000 RTP/AVP 0\r\na=label:1\r\na=sendonly\r\n";
    let refused = brief.ask("INVITE", "application/sdp", sdp);
    assert!(refused.starts_with("SIP/2.0 422"), "{refused}");
    assert_eq!(value(&refused, "Min-SE"), "2");
}

#[test]
fn f51_a_client_that_stops_refreshing_is_kept_while_it_sends() {
    let (folder, port) = (fresh_folder(), free_port());
    let store = folder.join("store");
    let server = serve(&folder, port);
    let fields = "Supported: timer\r\nSession-Expires: 3;refresher=uac\r\n";
    let mut src = Src::new(port, fields);
    let (answer, rtp) = src.invite();
    assert_eq!(value(&answer, "Session-Expires"), "3;refresher=uac");
    assert_eq!(value(&answer, "Require"), "timer");
    // Media comes, refreshes do not.
    let media = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let mut seq = 0u8;
    let mut say = || {
        let mut packet = vec![0x80, 0, 0, seq, 0, 0, 0, seq, 0, 0, 0, 17];
        packet.resize(172, 0xff);
        seq = seq.wrapping_add(1);
        media.send_to(&packet, ("127.0.0.1", rtp)).expect("loopback");
    };
    let orphan = until("an orphan", LIMIT, || {
        say();
        std::thread::sleep(Duration::from_millis(50));
        Some(recording(&store)).filter(|found| found["state"] == "orphan")
    });
    assert!(orphan["end"].is_null(), "{orphan}");
    assert!(server.told("is an orphan"));
    let invite = src.asked("INVITE", LIMIT).expect("its SRC is asked");
    assert!(invite.contains("a=recvonly"), "{invite}");
    // The SRC answers: it is none any more.
    src.answer(&invite, "Session-Expires: 4;refresher=uac\r\n");
    until("live again", LIMIT, || (recording(&store)["state"] == "live").then_some(()));
    assert!(src.asked("ACK", LIMIT).is_some());

    // One that never sends anything is over with its timer.
    let mut silent = Src::new(port, fields);
    silent.invite();
    let bye = silent.asked("BYE", LIMIT).expect("a BYE");
    assert!(value(&bye, "Reason").contains("session timer expired"), "{bye}");
}

#[test]
fn a_snapshot_is_asked_for_without_base_and_after_a_restart() {
    let (folder, port) = (fresh_folder(), free_port());
    let server = Server::start(command(&folder, port), &folder).ready();
    let mut src = Src::new(port, "Allow: INVITE, UPDATE, BYE\r\n");
    src.invite();
    let partial = "<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">\
        <datamode>partial</datamode></recording>";
    src.ask("UPDATE", "application/rs-metadata+xml", partial);
    let request = src.asked("UPDATE", LIMIT).expect("a snapshot request");
    assert_eq!(value(&request, "Content-Type"), "application/rs-metadata+xml");
    assert_eq!(value(&request, "Content-Disposition"), "recording-session");
    assert!(request.contains("<requestsnapshot"), "{request}");
    assert!(!request.contains("m=audio"), "no SDP in it: {request}");
    src.answer(&request, "");
    let complete = "<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">\
        <datamode>complete</datamode></recording>";
    src.ask("UPDATE", "application/rs-metadata+xml", complete);
    kill_control(&server);
    let last = cseq(&request);
    let again = src
        .next(LIMIT, |text| text.starts_with("UPDATE ") && cseq(text) > last)
        .expect("the successor asks");
    assert!(again.contains("restarted"), "{again}");
    src.answer(&again, "");
    src.ask("BYE", "", "");
}
