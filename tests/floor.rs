//! Calls of a trading floor, with the real server: many on one RS that never ends, two at once on a
//! turret's line, hold and consultation and transfer as one chain. Each is found, and heard alone.

#[expect(dead_code, reason = "shared with tests that kill processes")]
mod server;
#[expect(dead_code, reason = "shared with tests of flows")]
mod words;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use floortape::store::export::g711::Codec;
use serde_json::Value;
use server::{Server, binary, command, free_port, fresh_folder, until};
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;
use words::{Src, ports};

const LIMIT: Duration = Duration::from_secs(10);
const METADATA: &str = "application/rs-metadata+xml";

struct Bench {
    folder: PathBuf,
    port: u16,
    _server: Server,
}

impl Bench {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(words: &[&str]) -> Self {
        let (folder, port) = (fresh_folder(), free_port());
        let mut command = command(&folder, port);
        command.args(words);
        let server = Server::start(command, &folder).ready();
        Bench { folder, port, _server: server }
    }

    fn verb(&self, words: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(words).arg("--store").arg(self.folder.join("store"));
        command.output().expect("it runs")
    }

    fn json(&self, words: &[&str]) -> Vec<Value> {
        let output = self.verb(words);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
    }

    /// The only recording, once it has ended and is durable.
    fn over(&self) -> Value {
        until("the end", LIMIT, || {
            let over = self.json(&["ls", "--json"]).swap_remove(0);
            let is = over["state"] == "ended" && over["durable_through"] == over["end"];
            is.then_some(over)
        })
    }

    /// What is heard of one Communication Session on a line: the bytes of PCMU that were sent, each
    /// once, silence left out.
    fn heard(&self, recording: &Value, session: &str, label: &str) -> Vec<u8> {
        let name = session.replace(['/', '+', '='], "_");
        let dir = self.folder.join(format!("export-{label}-{name}"));
        let id = recording["id"].as_str().expect("an id");
        let dir_text = dir.to_str().expect("UTF-8");
        let exported = self.verb(&["export", id, "-o", dir_text, "--session", session]);
        assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
        let verified = Command::new(binary()).args(["verify", dir_text]).output().expect("it runs");
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        let wav = std::fs::read(dir.join(format!("{label}.wav"))).expect("the line's audio");
        let mut samples = Vec::new();
        for pair in wav[44..].chunks_exact(2) {
            samples.push(i16::from_le_bytes([pair[0], pair[1]]));
        }
        let mut heard: Vec<u8> =
            (0..0x7f).filter(|byte| samples.contains(&linear(*byte))).collect();
        heard.sort_unstable();
        heard
    }
}

/// PCMU, decoded. The bytes below 0x7f have a value each, and none is silence.
fn linear(byte: u8) -> i16 {
    let mut out = Vec::new();
    Codec::from_name("PCMU").expect("known").decode(&[byte], &mut out);
    out[0]
}

/// One source whose RTP time follows the clock, through silences as well.
struct Line {
    socket: UdpSocket,
    to: u16,
    seq: u16,
    began: Instant,
}

impl Line {
    fn new(to: u16) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        Line { socket, to, seq: 0, began: Instant::now() }
    }

    /// 20 ms of one byte, `packets` times.
    fn say(&mut self, byte: u8, packets: u32) {
        for _ in 0..packets {
            let stamp = (self.began.elapsed().as_micros() as u64 / 125) as u32;
            let mut packet = vec![0x80, 0];
            packet.extend(self.seq.to_be_bytes());
            packet.extend(stamp.to_be_bytes());
            packet.extend([0, 0, 0, 17]);
            packet.resize(172, byte);
            self.seq = self.seq.wrapping_add(1);
            self.socket.send_to(&packet, ("127.0.0.1", self.to)).expect("loopback");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

const SUITE: &str = "AES_CM_128_HMAC_SHA1_80";
/// Octets 0 to 29, as SDES writes them.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd";

/// A sender under that key, by another hand than ours.
fn srtp() -> Context {
    let bytes: Vec<u8> = (0..30).collect();
    let profile = ProtectionProfile::Aes128CmHmacSha1_80;
    Context::new(&bytes[..16], &bytes[16..], profile, None, None).expect("its lengths")
}

fn id(kind: u8, number: u8) -> String {
    let mut bytes = [kind; 16];
    bytes[15] = number;
    STANDARD.encode(bytes)
}

fn document(inner: &str) -> String {
    format!("<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">{inner}</recording>")
}

fn partial(inner: &str) -> String {
    document(&format!("<datamode>partial</datamode>{inner}"))
}

fn person(id: &str, name: &str) -> String {
    format!("<participant participant_id=\"{id}\"><nameID aor=\"sip:{name}@floor\"/></participant>")
}

fn stream(id: &str, session: &str, label: &str) -> String {
    format!("<stream stream_id=\"{id}\" session_id=\"{session}\"><label>{label}</label></stream>")
}

fn member(who: &str, session: &str, time: &str) -> String {
    format!(
        "<participantsessionassoc participant_id=\"{who}\" session_id=\"{session}\">{time}\
         </participantsessionassoc>"
    )
}

fn on(who: &str, send: &str, recv: &str) -> String {
    let one = |name: &str, id: &str| match id {
        "" => String::new(),
        _ => format!("<{name}>{id}</{name}>"),
    };
    let (send, recv) = (one("send", send), one("recv", recv));
    format!(
        "<participantstreamassoc participant_id=\"{who}\">{send}{recv}</participantstreamassoc>"
    )
}

fn stops(session: &str) -> String {
    format!(
        "<session session_id=\"{session}\"><stop-time>2026-02-03T10:00:00Z</stop-time></session>"
    )
}

/// An INVITE of lines with those labels, with a document.
fn invite(src: &mut Src, labels: &[&str], metadata: &str) -> Vec<u16> {
    let lines: String = labels
        .iter()
        .map(|label| format!("m=audio 6000 RTP/AVP 0\r\na=label:{label}\r\na=sendonly\r\n"))
        .collect();
    let body = format!(
        "--e\r\nContent-Type: application/sdp\r\n\r\nv=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\n\
         c=IN IP4 127.0.0.1\r\nt=0 0\r\n{lines}\r\n--e\r\nContent-Type: {METADATA}\r\n\
         Content-Disposition: recording-session\r\n\r\n{metadata}\r\n--e--\r\n"
    );
    ports(&src.invite_with("multipart/mixed;boundary=e", &body))
}

fn tell(src: &mut Src, method: &str, metadata: &str) {
    let answer = src.ask(method, METADATA, metadata);
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
}

fn session<'r>(recording: &'r Value, id: &str) -> &'r Value {
    let all = recording["sessions"].as_array().expect("a list");
    all.iter().find(|one| one["session_id"] == id).expect("that session")
}

/// Use case 1: every call is a recording of its own, with all its packets and its parties.
#[test]
fn uc1_a_thousand_calls_are_a_thousand_recordings() {
    const WAVES: usize = 10;
    let bench = Bench::with(&["--set", "media.streams_max=400"]);
    let to = format!("sip:srs@127.0.0.1:{}", bench.port);
    let mut sent: BTreeMap<String, u64> = BTreeMap::new();
    for wave in 0..WAVES {
        let words = ["src", "call", "--to", &to, "--streams", "100", "--streams-per-call", "1"];
        let call = Command::new(binary()).args(words).args(["--duration", "1", "--json"]).output();
        let call = call.expect("it runs");
        let said = String::from_utf8_lossy(&call.stdout).into_owned();
        assert!(call.status.success(), "wave {wave}: {}", String::from_utf8_lossy(&call.stderr));
        let report: Value =
            serde_json::from_str(said.lines().last().expect("a report")).expect("JSON");
        for stream in report["streams"].as_array().expect("a list") {
            let id = stream["call_id"].as_str().expect("an id").to_owned();
            let count = stream["sent"].as_u64().expect("a count");
            assert_eq!(sent.insert(id, count), None, "every call has its own Call-ID");
        }
    }
    assert_eq!(sent.len(), WAVES * 100);
    let listed = until("the end of all", LIMIT, || {
        let listed = bench.json(&["ls", "--json"]);
        let over = |one: &Value| one["state"] == "ended" && one["durable_through"] == one["end"];
        listed.iter().all(over).then_some(listed)
    });
    assert_eq!(listed.len(), sent.len(), "none is missing and none is merged");
    for recording in &listed {
        let call_id = recording["call_id"].as_str().expect("an id");
        let packets = recording["streams"][0]["sources"][0]["packets"].as_u64();
        assert_eq!(packets, sent.remove(call_id), "{recording}");
        assert_eq!(recording["streams"][0]["sources"][0]["unexplained"], 0, "{recording}");
        assert_eq!(recording["participants"].as_array().map(Vec::len), Some(2), "{recording}");
    }
    assert!(sent.is_empty(), "{sent:?}");
    assert_eq!(bench.verb(&["verify", "--all", "--complete"]).status.code(), Some(0));
}

/// REQ-005: what comes in the instant of the 200, before any ACK, is stored, and so is the first packet of
/// each call on a line that stands ready.
#[test]
fn req005_the_first_packet_in_the_instant_of_the_200_is_stored() {
    let bench = Bench::new();
    for secure in [false, true] {
        let mut src = Src::new(bench.port, "");
        let offer = match secure {
            false => words::sdp("sendonly", 1),
            true => words::sdp("sendonly", 1)
                .replace("RTP/AVP", "RTP/SAVP")
                .replace("a=label", &format!("a=crypto:1 {SUITE} inline:{KEY}\r\na=label")),
        };
        let answer = src.ask("INVITE", "application/sdp", &offer);
        let to = ports(&answer)[0];
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let mut context = secure.then(srtp);
        for seq in 0..10u8 {
            let mut packet = vec![0x80, 0, 0, seq, 0, 0, 0, seq * 20, 0, 0, 0, 17];
            packet.resize(172, 0x2a);
            if let Some(context) = &mut context {
                packet = context.encrypt_rtp(&packet).expect("a key").to_vec();
            }
            socket.send_to(&packet, ("127.0.0.1", to)).expect("loopback");
        }
        let tag = answer.lines().find(|line| line.starts_with("To:")).expect("a To");
        src.to_tag = tag[tag.find(";tag=").expect("a tag")..].to_owned();
        src.send("ACK", "", "");
        let count = || {
            let last = bench.json(&["ls", "--json"]).pop().expect("it is recorded");
            last["streams"][0]["sources"][0]["packets"].as_u64()
        };
        until("all ten", LIMIT, || (count() == Some(10)).then_some(()));
        assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
    }
}

/// Use case 4: one RS over 200 calls, with silence between them. Each call is one session, found by its
/// id and heard alone, to the first word and no more.
#[test]
fn uc4_of_two_hundred_calls_on_one_rs_each_is_retrieved_alone() {
    const CALLS: u8 = 200;
    let bench = Bench::new();
    let mut src = Src::new(bench.port, "Allow: INVITE, UPDATE, BYE\r\n");
    let (agent, line) = (id(1, 0), id(2, 0));
    let port = invite(&mut src, &["96"], &document("<datamode>complete</datamode>"))[0];
    let mut media = Line::new(port);
    // A byte of its own for each of many calls in a row.
    let byte = |call: u8| call % 100 + 1;
    for call in 0..CALLS {
        let (cs, caller) = (id(3, call), id(4, call));
        let begins = [
            format!("<session session_id=\"{cs}\"><start-time>2026-02-03T09:00:00Z</start-time>"),
            "</session>".to_owned(),
            person(&agent, "agent") + &person(&caller, &format!("caller{call}")),
            stream(&line, &cs, "96") + &member(&agent, &cs, "") + &member(&caller, &cs, ""),
            on(&agent, &line, &line) + &on(&caller, &line, &line),
        ];
        tell(&mut src, "UPDATE", &partial(&begins.concat()));
        media.say(byte(call), 2);
        tell(&mut src, "UPDATE", &partial(&stops(&cs)));
    }
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
    let over = bench.over();
    assert_eq!(over["streams"][0]["sources"][0]["packets"], u64::from(CALLS) * 2, "{over}");
    assert_eq!(over["streams"][0]["sources"][0]["unexplained"], 0, "{over}");
    assert_eq!(over["sessions"].as_array().map(Vec::len), Some(usize::from(CALLS)));
    for call in (0..CALLS).step_by(19).chain([CALLS - 1]) {
        let cs = id(3, call);
        let parts = bench.json(&["show", "--session", &cs, "--json"]);
        assert_eq!(parts.len(), 1, "call {call}");
        let own = session(&parts[0], &cs);
        assert_eq!((own["defined"].as_bool(), own["lines"][0]["label"].as_str()), {
            (Some(true), Some("96"))
        });
        let members = own["members"].as_array().expect("a list");
        assert!(members.iter().all(|one| one["to"].is_string()), "{own}");
        assert_eq!(bench.heard(&over, &cs, "96"), [byte(call)], "call {call}");
    }
    let (recording, none) = (over["id"].as_str().expect("an id"), bench.folder.join("none"));
    let none = none.to_str().expect("UTF-8");
    let nobody = bench.verb(&["export", recording, "-o", none, "--session", &id(9, 9)]);
    assert_eq!(nobody.status.code(), Some(3), "{}", String::from_utf8_lossy(&nobody.stderr));
}

/// REQ-008, RFC 8068 §3.5: two calls of a turret mixed on one line. Either call finds the recording and
/// its line, each with its parties and its time.
#[test]
fn req008_two_calls_mixed_on_a_turrets_line_are_found_by_either() {
    let bench = Bench::new();
    let mut src = Src::new(bench.port, "Allow: INVITE, UPDATE, BYE\r\n");
    let (first, second, line) = (id(3, 1), id(3, 2), id(2, 0));
    let (alice, bob, carol) = (id(1, 1), id(1, 2), id(1, 3));
    let cs = |id: &str| {
        format!(
            "<session session_id=\"{id}\"><start-time>2026-02-03T09:00:00Z</start-time></session>"
        )
    };
    let both = [
        "<datamode>complete</datamode>".to_owned() + &cs(&first) + &cs(&second),
        person(&alice, "alice") + &person(&bob, "bob") + &person(&carol, "carol"),
        // The stream names the first call only; the second is on it by its parties.
        stream(&line, &first, "96") + &member(&alice, &first, "") + &member(&bob, &first, ""),
        member(&bob, &second, "") + &member(&carol, &second, ""),
        on(&alice, &line, &line) + &on(&bob, &line, &line) + &on(&carol, &line, &line),
    ];
    let port = invite(&mut src, &["96"], &document(&both.concat()))[0];
    let mut media = Line::new(port);
    media.say(1, 5);
    tell(&mut src, "UPDATE", &partial(&stops(&first)));
    media.say(2, 5);
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
    let over = bench.over();
    for (cs, parties) in [(&first, [&alice, &bob]), (&second, [&bob, &carol])] {
        let parts = bench.json(&["show", "--session", cs, "--json"]);
        assert_eq!((parts.len(), &parts[0]["id"]), (1, &over["id"]));
        let own = session(&parts[0], cs);
        let members = own["members"].as_array().expect("a list").iter();
        let mut found: Vec<&str> =
            members.filter_map(|one| one["participant_id"].as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, parties.map(String::as_str), "{own}");
        assert_eq!(own["lines"][0]["label"], "96", "{own}");
    }
    assert_eq!(bench.heard(&over, &first, "96"), [1]);
    assert_eq!(bench.heard(&over, &second, "96"), [1, 2]);
}

/// Use case 9: a customer is held while the agent asks a supervisor, and is transferred to him at last.
/// One group; the hold is a span of the customer's line, not an end of his call.
#[test]
fn uc9_hold_consultation_and_transfer_are_one_chain() {
    let bench = Bench::new();
    let mut src = Src::new(bench.port, "Allow: INVITE, UPDATE, BYE\r\n");
    let (one, two, group) = (id(3, 1), id(3, 2), id(5, 1));
    let (customer, agent, supervisor) = (id(1, 1), id(1, 2), id(1, 3));
    let (from_customer, from_agent) = (id(2, 1), id(2, 2));
    let cs = |id: &str| {
        format!(
            "<session session_id=\"{id}\"><group-ref>{group}</group-ref>\
             <start-time>2026-02-03T09:00:00Z</start-time></session>"
        )
    };
    let talk =
        on(&customer, &from_customer, &from_agent) + &on(&agent, &from_agent, &from_customer);
    let begins = [
        format!("<datamode>complete</datamode><group group_id=\"{group}\"/>") + &cs(&one),
        person(&customer, "customer") + &person(&agent, "agent"),
        stream(&from_customer, &one, "1") + &stream(&from_agent, &one, "2"),
        member(&customer, &one, "") + &member(&agent, &one, "") + &talk,
    ];
    let to = invite(&mut src, &["1", "2"], &document(&begins.concat()));
    let (mut left, mut right) = (Line::new(to[0]), Line::new(to[1]));
    let mut speak = |customer: u8, agent: u8| {
        left.say(customer, 3);
        right.say(agent, 3);
    };
    speak(1, 2);
    // 2: the customer hears music. 3: the streams go to another call, with the supervisor.
    tell(&mut src, "UPDATE", &partial(&on(&customer, "", &from_agent)));
    let asks = [
        cs(&two) + &person(&supervisor, "supervisor"),
        stream(&from_customer, &two, "1") + &stream(&from_agent, &two, "2"),
        member(&agent, &two, "") + &member(&supervisor, &two, ""),
        on(&supervisor, &from_customer, &from_agent) + &on(&agent, &from_agent, &from_customer),
    ];
    tell(&mut src, "UPDATE", &partial(&asks.concat()));
    speak(3, 4);
    tell(&mut src, "UPDATE", &partial(&stops(&two)));
    // 5: back to the customer. 5c: the agent goes, the supervisor comes.
    let back = stream(&from_customer, &one, "1") + &stream(&from_agent, &one, "2") + &talk;
    tell(&mut src, "UPDATE", &partial(&back));
    speak(5, 6);
    let leaves = "<disassociate-time>2026-02-03T09:05:00Z</disassociate-time>";
    let transfer = [
        member(&agent, &one, leaves) + &member(&supervisor, &one, ""),
        on(&supervisor, &from_agent, &from_customer),
    ];
    tell(&mut src, "UPDATE", &partial(&transfer.concat()));
    speak(7, 8);
    tell(&mut src, "BYE", &partial(&stops(&one)));
    let over = bench.over();
    let (own, consult) = (session(&over, &one), session(&over, &two));
    assert_eq!((&own["group"], &consult["group"]), (&group.clone().into(), &group.into()));
    assert_eq!(own["periods"].as_array().map(Vec::len), Some(1), "one call with a hold: {own}");
    let sends = |label: usize, who: &str| -> Vec<(String, String)> {
        let all = over["streams"][label]["associations"].as_array().expect("a list").iter();
        let own = all.filter(|one| one["direction"] == "send" && one["participant_id"] == who);
        let time = |one: &Value, name: &str| one[name].as_str().unwrap_or("-").to_owned();
        own.map(|one| (time(one, "from"), time(one, "to"))).collect()
    };
    let spans = sends(0, &customer);
    let asked = &consult["periods"][0];
    assert_eq!(spans.len(), 2, "before and after the hold: {}", over["streams"][0]);
    assert!(spans[0].1.as_str() <= asked["from"].as_str().expect("a time"), "{spans:?} {asked}");
    assert!(spans[1].0.as_str() >= asked["to"].as_str().expect("a time"), "{spans:?} {asked}");
    // The agent's line is the supervisor's from the transfer on.
    let (gone, come) = (sends(1, &agent), sends(1, &supervisor));
    assert_eq!(
        gone.last().map(|span| &span.1),
        come.last().map(|span| &span.0),
        "{gone:?} {come:?}"
    );
    assert_eq!(bench.heard(&over, &two, "1"), [3], "the supervisor");
    assert_eq!(bench.heard(&over, &two, "2"), [4], "and nothing of the customer's call");
    assert_eq!(bench.heard(&over, &one, "1"), [1, 5, 7], "and nothing of what was asked meanwhile");
}
