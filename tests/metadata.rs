//! Metadata end to end, with the real server: two clients record one call, one of them tells of it in
//! steps; what `show` says of it, live and afterwards.

#[expect(dead_code, reason = "shared with tests that kill processes")]
mod server;

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use server::{Server, binary, command, free_port, fresh_folder, until};

const LIMIT: Duration = Duration::from_secs(10);
const CS: &str = "AAAAAAAAAAAAAAAAAAAAAQ==";
const ANN: &str = "AAAAAAAAAAAAAAAAAAAAAg==";
const BOB: &str = "AAAAAAAAAAAAAAAAAAAAAw==";
const S1: &str = "AAAAAAAAAAAAAAAAAAAABA==";
const S2: &str = "AAAAAAAAAAAAAAAAAAAABQ==";

/// A client with one dialog.
struct Src {
    socket: UdpSocket,
    name: &'static str,
    cseq: u32,
    to_tag: String,
}

impl Src {
    fn new(name: &'static str, server: u16) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.connect(("127.0.0.1", server)).expect("loopback");
        socket.set_read_timeout(Some(LIMIT)).expect("a timeout");
        Src { socket, name, cseq: 0, to_tag: String::new() }
    }

    fn send(&self, method: &str, content_type: &str, body: &str) {
        let (name, cseq, tag) = (self.name, self.cseq, &self.to_tag);
        let own = self.socket.local_addr().expect("bound");
        let disposition = match content_type {
            "application/rs-metadata+xml" => "Content-Disposition: recording-session\r\n",
            _ => "",
        };
        let head = format!(
            "{method} sip:srs@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{name}{method}{cseq};rport\r\n\
             From: <sip:{name}@127.0.0.1>;tag={name}\r\nTo: <sip:srs@127.0.0.1>{tag}\r\nCall-ID: {name}\r\n\
             CSeq: {cseq} {method}\r\nMax-Forwards: 70\r\nRequire: siprec\r\nContact: <sip:{name}@{own}>;+sip.src\r\n\
             Content-Type: {content_type}\r\n{disposition}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.socket.send(head.as_bytes()).expect("loopback");
    }

    /// Sends a request and returns its final response.
    fn ask(&mut self, method: &str, content_type: &str, body: &str) -> String {
        self.cseq += 1;
        self.send(method, content_type, body);
        let wanted = format!("CSeq: {} {method}", self.cseq);
        loop {
            let mut buffer = vec![0; 65_536];
            let length = self.socket.recv(&mut buffer).expect("an answer");
            let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if answer.starts_with("SIP/2.0 1") || !answer.contains(&wanted) {
                continue;
            }
            assert!(answer.starts_with("SIP/2.0 200"), "{method}: {answer}");
            return answer;
        }
    }

    /// Begins an RS of two lines; returns our ports at the server.
    fn invite(&mut self, metadata: &str) -> Vec<u16> {
        let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
            m=audio 6000 RTP/AVP 0\r\na=label:1\r\na=ssrc:17 cname:ann@x\r\na=sendonly\r\n\
            m=audio 6002 RTP/AVP 0\r\na=label:2\r\na=ssrc:18 cname:bob@x\r\na=sendonly\r\n";
        let body = format!(
            "--e\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--e\r\n\
             Content-Type: application/rs-metadata+xml\r\nContent-Disposition: recording-session\r\n\r\n\
             {metadata}\r\n--e--\r\n"
        );
        let answer = self.ask("INVITE", "multipart/mixed;boundary=e", &body);
        let to = answer.lines().find(|line| line.starts_with("To:")).expect("a To");
        self.to_tag = to[to.find(";tag=").expect("a tag")..].to_owned();
        self.send("ACK", "application/sdp", "");
        let lines = answer.lines().filter_map(|line| line.strip_prefix("m=audio "));
        lines.map(|line| line.split(' ').next().expect("a port").parse().expect("a port")).collect()
    }

    fn tell(&mut self, method: &str, inner: &str) {
        let document = document(inner);
        self.ask(method, "application/rs-metadata+xml", &document);
    }
}

fn document(inner: &str) -> String {
    format!("<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">{inner}</recording>")
}

fn streams_of(who: &str, send: &str, recv: &str) -> String {
    let one = |name: &str, id: &str| match id {
        "" => String::new(),
        _ => format!("<{name}>{id}</{name}>"),
    };
    format!(
        "<participantstreamassoc participant_id=\"{who}\">{}{}</participantstreamassoc>",
        one("send", send),
        one("recv", recv)
    )
}

fn call() -> String {
    let person = |id: &str, name: &str| {
        format!("<participant participant_id=\"{id}\"><nameID aor=\"sip:{name}@x\"/></participant>")
    };
    let stream = |id: &str, label: &str| {
        format!("<stream stream_id=\"{id}\" session_id=\"{CS}\"><label>{label}</label></stream>")
    };
    let member = |id: &str| {
        format!(
            "<participantsessionassoc participant_id=\"{id}\" session_id=\"{CS}\">\
             <associate-time>2026-01-02T03:04:05Z</associate-time></participantsessionassoc>"
        )
    };
    [
        format!("<session session_id=\"{CS}\"><start-time>2026-01-02T03:04:05Z</start-time>"),
        "<desk xmlns=\"urn:desk\">7</desk></session>".to_owned(),
        person(ANN, "ann") + &person(BOB, "bob") + &stream(S1, "1") + &stream(S2, "2"),
        member(ANN) + &member(BOB) + &streams_of(ANN, S1, S2) + &streams_of(BOB, S2, S1),
    ]
    .concat()
}

fn show(store: &Path, words: &[&str]) -> String {
    let output = Command::new(binary())
        .arg("show")
        .args(words)
        .arg("--store")
        .arg(store)
        .output()
        .expect("the binary is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn parts(store: &Path) -> Vec<Value> {
    let lines = show(store, &["--session", CS, "--json"]);
    lines.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

fn quirk(recording: &Value, text: &str) -> bool {
    let quirks = recording["quirks"].as_array().expect("a list");
    quirks.iter().any(|quirk| quirk.as_str().is_some_and(|quirk| quirk.contains(text)))
}

/// Who sends on a line, as id and whether it has ended.
fn sends(recording: &Value, line: usize) -> Vec<(String, bool)> {
    let all = recording["streams"][line]["associations"].as_array().expect("a list");
    let send = all.iter().filter(|one| one["direction"] == "send");
    send.map(|one| {
        (one["participant_id"].as_str().expect("an id").to_owned(), !one["to"].is_null())
    })
    .collect()
}

#[test]
fn a_call_told_in_steps_by_two_clients_is_one_call_with_its_speakers() {
    let (folder, port) = (fresh_folder(), free_port());
    let store = folder.join("store");
    let _server = Server::start(command(&folder, port), &folder).ready();

    let mut one = Src::new("one", port);
    let ports = one.invite(&document(&call()));
    // What was announced for line 2 comes on line 1.
    let media = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    for seq in 0..3u8 {
        let mut packet = vec![0x80, 0, 0, seq, 0, 0, 0, seq * 160, 0, 0, 0, 18];
        packet.resize(172, 0xff);
        media.send_to(&packet, ("127.0.0.1", ports[0])).expect("loopback");
    }
    // Hold, while the call goes on: Ann sends nothing any more.
    let partial = |inner: String| format!("<datamode>partial</datamode>{inner}");
    one.tell("UPDATE", &partial(streams_of(ANN, "", S2)));
    let live = until("the hold", LIMIT, || {
        let live = parts(&store).remove(0);
        (sends(&live, 0) == [(ANN.to_owned(), true)]).then_some(live)
    });
    assert_eq!(
        (live["state"].as_str(), sends(&live, 1)),
        (Some("live"), vec![(BOB.to_owned(), false)])
    );
    one.tell("UPDATE", &partial(streams_of(ANN, S1, S2)));
    one.tell("UPDATE", "<not well-formed");
    // All that leave, in a document that says it is complete.
    one.tell(
        "BYE",
        &format!(
            "<session session_id=\"{CS}\"><stop-time>2026-01-02T03:09:05Z</stop-time></session>"
        ),
    );

    // Another client sees the same call, in the words of a draft.
    let mut two = Src::new("two", port);
    two.invite(
        &format!(
            "<recording xmlns=\"urn:ietf:params:xml:ns:recording\"><session id=\"{CS}\"/>\
             <participant id=\"{ANN}\" session=\"{CS}\"><nameID aor=\"sip:ann@x\"/><send>{S1}</send></participant>\
             <stream id=\"{S1}\" session=\"{CS}\"><label>1</label></stream></recording>"
        ),
    );
    two.ask("BYE", "application/sdp", "");

    let parts = until("both ended, and their packets durable", LIMIT, || {
        let parts = parts(&store);
        // Control ends a recording before media has settled its last packets: who sent on which
        // line stands only once those are durable.
        let settled =
            |part: &&Value| part["state"] == "ended" && part["durable_through"] == part["end"];
        (parts.iter().filter(settled).count() == 2).then_some(parts)
    });
    let [first, second] = &parts[..] else { panic!("two parts") };
    assert_eq!(sends(first, 0), [(ANN.to_owned(), true), (ANN.to_owned(), true)]);
    assert_eq!(sends(first, 1), [(BOB.to_owned(), true)]);
    let session = &first["sessions"][0];
    assert_eq!(session["start"], "2026-01-02T03:04:05Z");
    assert_eq!(session["stop"], "2026-01-02T03:09:05Z");
    assert_eq!(session["members"].as_array().map(Vec::len), Some(2));
    assert_eq!(session["lines"].as_array().map(Vec::len), Some(2));
    let kept = &first["metadata"]["extensions"][0];
    assert_eq!(kept["xml"][0], "<desk xmlns=\"urn:desk\">7</desk>");
    assert_eq!(first["metadata"]["documents"], 5);
    assert_eq!(first["metadata"]["unreadable"], 1);
    for told in [
        "metadata unreadable",
        "the document in the BYE says complete",
        "SSRC 00000012 is announced for line 2 and heard on line 1",
    ] {
        assert!(quirk(first, told), "{told}: {}", first["quirks"]);
    }
    assert!(!quirk(first, "m-line"), "{}", first["quirks"]);
    assert_eq!(second["metadata"]["dialects"][0], "draft B");
    assert!(quirk(second, "m-line 2 has label 2, no stream element does"), "{}", second["quirks"]);
    assert_eq!(sends(second, 0), [(ANN.to_owned(), true)]);

    let text = show(&store, &["--session", CS]);
    assert!(text.contains("2 from 2 client(s)"), "{text}");
    assert!(text.contains("not covered: "), "{text}");
    // The same call by the same UUID as logs write it.
    let dashed = show(&store, &["--session", "00000000-0000-0000-0000-000000000001"]);
    assert!(dashed.contains("2 from 2 client(s)"), "{dashed}");
}
