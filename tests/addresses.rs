//! Several addresses, and those that stand for them outside, with the real server: each line is received
//! where its SRC can send to, whatever is killed meanwhile.

#[expect(dead_code, reason = "shared with tests that kill processes")]
mod server;
#[expect(dead_code, reason = "shared with tests of flows")]
mod words;

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use server::{
    CONTROL, MEDIA, Server, argv0, binary, command, free_port, fresh_folder, send, until,
};
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;
use words::{Media, Src, ports, value};

const LIMIT: Duration = Duration::from_secs(20);

struct Bench {
    folder: PathBuf,
    port: u16,
    sets: Vec<String>,
    server: Option<Server>,
}

impl Bench {
    /// `ports`: of each test its own, since what it kills comes back to the same ones.
    fn new(address: &str, ports: &str, more: &[String]) -> Self {
        let mut sets = vec![format!("media.address={address}"), format!("media.ports={ports}")];
        sets.extend_from_slice(more);
        let mut bench = Bench { folder: fresh_folder(), port: free_port(), sets, server: None };
        bench.power_on();
        bench
    }

    fn power_on(&mut self) {
        let mut command = command(&self.folder, self.port);
        // The port is not known to who names further listeners.
        for set in &self.sets {
            command.args(["--set", &set.replace("PORT", &self.port.to_string())]);
        }
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
            until("the end of all", LIMIT, || (argv0(pid).as_deref() != Some(name)).then_some(()));
        }
    }

    /// Kills a role and waits for its successor.
    fn kill(&self, name: &str) {
        let server = self.server.as_ref().expect("it runs");
        let dead = server.child(name).expect("it runs");
        send(dead, Signal::KILL);
        until("a successor", LIMIT, || server.child(name).filter(|pid| *pid != dead));
    }

    fn run(&self, words: &[&str]) -> String {
        let mut command = Command::new(binary());
        let output = command.args(words).arg("--store").arg(self.folder.join("store")).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{words:?}: {said}{out}");
        out
    }

    /// The only recording, once all of it is over, durable and verified.
    fn over(&self) -> Value {
        let over = until("the end", LIMIT, || {
            let listed = self.run(&["ls", "--json"]);
            let one: Value = serde_json::from_str(listed.lines().next()?).expect("JSON");
            (one["state"] == "ended" && one["durable_through"] == one["end"]).then_some(one)
        });
        self.run(&["verify", over["id"].as_str().expect("an id")]);
        over
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.server.take());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// One m-line, sent from that address.
fn audio(label: &str, from: &str) -> String {
    let family = if from.contains(':') { "IP6" } else { "IP4" };
    format!("m=audio 6000 RTP/AVP 0\r\nc=IN {family} {from}\r\na=label:{label}\r\na=sendonly\r\n")
}

fn sdp(version: u32, lines: &[String]) -> String {
    let lines = lines.concat();
    format!("v=0\r\no=- 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{lines}")
}

/// Where each line of an answer is received.
fn places(answer: &str) -> Vec<(String, u16)> {
    let (mut session, mut all) = (String::new(), Vec::new());
    for line in answer.lines() {
        if let Some(connection) = line.strip_prefix("c=") {
            let ip = connection.rsplit(' ').next().expect("an address").to_owned();
            match all.last_mut() {
                Some((own, _)) => *own = ip,
                None => session = ip,
            }
        } else if let Some(media) = line.strip_prefix("m=") {
            let port = media.split(' ').nth(1).and_then(|port| port.parse().ok());
            all.push((session.clone(), port.expect("a port")));
        }
    }
    all
}

fn again(src: &mut Src, version: u32, lines: &[String]) -> Vec<(String, u16)> {
    let answer = src.ask("INVITE", "application/sdp", &sdp(version, lines));
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    src.send("ACK", "", "");
    places(&answer)
}

fn bye(src: &mut Src) {
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
}

/// Packets on disk by label, of all streams with it.
fn counts(recording: &Value) -> Vec<(String, u64)> {
    let mut counts = std::collections::BTreeMap::<String, u64>::new();
    for stream in recording["streams"].as_array().expect("a list") {
        let label = stream["label"].as_str().expect("a label").to_owned();
        for source in stream["sources"].as_array().into_iter().flatten() {
            assert_eq!(source["unexplained"], 0, "{recording}");
            *counts.entry(label.clone()).or_default() +=
                source["packets"].as_u64().expect("a count");
        }
    }
    counts.into_iter().collect()
}

fn expected(all: &[(&str, u64)]) -> Vec<(String, u64)> {
    all.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect()
}

#[test]
fn an_rs_of_both_families_is_recorded_whatever_is_killed() {
    let bench = Bench::new("[\"127.0.0.1\", \"::1\"]", "29000-29079", &[]);
    let mut src = Src::new(bench.port, "");
    let lines = [audio("four", "127.0.0.1"), audio("six", "::1")];
    let first = places(&src.invite_with("application/sdp", &sdp(1, &lines)));
    assert_eq!((&*first[0].0, &*first[1].0), ("127.0.0.1", "::1"));
    let mut four = Media::at("127.0.0.1", first[0].1);
    let mut six = Media::at("::1", first[1].1);
    four.send(20);
    six.send(30);
    bench.kill(CONTROL);
    four.send(5);
    six.send(5);
    let lines = [&lines[..], &[audio("more", "::1")]].concat();
    let second = again(&mut src, 2, &lines);
    assert_eq!(second[..2], first, "they stay where they are");
    assert_eq!(second[2].0, "::1");
    let mut more = Media::at("::1", second[2].1);
    more.send(7);
    bench.kill(MEDIA);
    // The successor has yet to come, or works: their packets wait in the sockets.
    four.send(20);
    six.send(30);
    more.send(7);
    assert_eq!(again(&mut src, 3, &lines), second);
    bye(&mut src);
    let over = bench.over();
    assert_eq!(counts(&over), expected(&[("four", 45), ("more", 14), ("six", 65)]));
}

#[test]
fn all_three_killed_the_pairs_of_both_families_are_found_again() {
    let mut bench = Bench::new("[\"127.0.0.1\", \"::1\"]", "29080-29159", &[]);
    let mut src = Src::new(bench.port, "");
    let lines = [audio("six", "::1"), audio("four", "127.0.0.1")];
    let first = places(&src.invite_with("application/sdp", &sdp(1, &lines)));
    let mut six = Media::at("::1", first[0].1);
    let mut four = Media::at("127.0.0.1", first[1].1);
    six.send(20);
    four.send(20);
    until("both on disk", LIMIT, || {
        let listed = bench.run(&["ls", "--json"]);
        let one: Value = serde_json::from_str(listed.lines().next()?).expect("JSON");
        (counts(&one) == expected(&[("four", 20), ("six", 20)])).then_some(())
    });
    bench.power_off();
    bench.power_on();
    assert_eq!(again(&mut src, 2, &lines), first);
    six.send(10);
    four.send(10);
    bye(&mut src);
    let over = bench.over();
    assert_eq!(counts(&over), expected(&[("four", 30), ("six", 30)]));
}

#[test]
fn a_new_keeper_takes_over_the_pairs_of_all_addresses() {
    let mut bench = Bench::new("[\"127.0.0.2\", \"::1\"]", "29160-29239", &[]);
    let mut src = Src::new(bench.port, "");
    let lines = [audio("six", "::1"), audio("four", "127.0.0.1")];
    let first = places(&src.invite_with("application/sdp", &sdp(1, &lines)));
    assert_eq!((&*first[0].0, &*first[1].0), ("::1", "127.0.0.2"));
    let mut six = Media::at("::1", first[0].1);
    let mut four = Media::at("127.0.0.2", first[1].1);
    six.send(20);
    let server = bench.server.as_mut().expect("it runs");
    server.signal(Signal::KILL);
    server.wait();
    four.send(20);
    // With other addresses in its file: those of before hold, and answers stay right.
    bench.sets[0] = "media.address=127.0.0.1".to_owned();
    bench.power_on();
    assert_eq!(again(&mut src, 2, &lines), first);
    six.send(10);
    four.send(10);
    bye(&mut src);
    assert_eq!(counts(&bench.over()), expected(&[("four", 30), ("six", 30)]));
}

#[test]
fn of_two_addresses_the_one_that_signalling_came_in_on_is_answered() {
    let listeners = "sip.udp=[\"127.0.0.1:PORT\", \"127.0.0.2:PORT\"]".to_owned();
    let bench = Bench::new("[\"127.0.0.1\", \"127.0.0.2\"]", "29240-29319", &[listeners]);
    let mut streams = Vec::new();
    for home in ["127.0.0.2", "127.0.0.1"] {
        let mut src = Src::to((home, bench.port), "");
        let offer = sdp(1, &[audio(home, "127.0.0.1")]);
        let answer = src.invite_with("application/sdp", &offer);
        assert_eq!(places(&answer)[0].0, home, "{answer}");
        assert!(answer.contains(&format!(" IN IP4 {home}\r\ns=-")), "o=: {answer}");
        let contact = format!("<sip:floortape@{home}:{}>;+sip.srs", bench.port);
        assert_eq!(value(&answer, "Contact"), contact);
        let mut media = Media::at(home, places(&answer)[0].1);
        media.send(25);
        bye(&mut src);
        streams.push(expected(&[(home, 25)]));
    }
    let found = until("the end", LIMIT, || {
        let listed = bench.run(&["ls", "--json"]);
        let all: Vec<Value> =
            listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let over = |one: &Value| one["state"] == "ended" && one["durable_through"] == one["end"];
        (all.len() == 2 && all.iter().all(over)).then_some(all)
    });
    let mut found: Vec<_> = found.iter().map(counts).collect();
    found.sort();
    streams.sort();
    assert_eq!(found, streams);
}

#[test]
fn behind_address_translation_answers_carry_the_address_outside() {
    let more = [
        "media.advertise=203.0.113.5".to_owned(),
        "sip.advertise=[\"203.0.113.5\", \"srs.example:5070\"]".to_owned(),
        "sip.tcp=[\"127.0.0.1:PORT\", \"[::1]:PORT\"]".to_owned(),
        "sip.udp=[\"127.0.0.1:PORT\", \"[::1]:PORT\"]".to_owned(),
    ];
    // Bound to all: there is no other way to say that the address is another one.
    let bench = Bench::new("[\"0.0.0.0\", \"::1\"]", "29320-29399", &more);
    let mut src = Src::new(bench.port, "");
    let lines = [audio("four", "127.0.0.1"), audio("six", "::1")];
    let answer = src.invite_with("application/sdp", &sdp(1, &lines));
    let all = places(&answer);
    assert_eq!((&*all[0].0, &*all[1].0), ("203.0.113.5", "::1"), "{answer}");
    assert!(answer.contains("IN IP4 203.0.113.5\r\ns=-"), "o=: {answer}");
    let contact = format!("<sip:floortape@203.0.113.5:{}>;+sip.srs", bench.port);
    assert_eq!(value(&answer, "Contact"), contact);
    // The translation leaves ports alone.
    let mut four = Media::at("127.0.0.1", all[0].1);
    four.send(20);
    bench.kill(CONTROL);
    four.send(20);
    assert_eq!(again(&mut src, 2, &lines), all);
    bye(&mut src);
    assert_eq!(counts(&bench.over()), expected(&[("four", 40)]));
    let answer = Src::to(("::1", bench.port), "").ask("OPTIONS", "", "");
    assert_eq!(value(&answer, "Contact"), "<sip:floortape@srs.example:5070>;+sip.srs");
}

#[test]
fn without_an_address_of_its_family_a_line_gets_port_0_and_a_call_488() {
    let bench = Bench::new("127.0.0.1", "29400-29479", &[]);
    let mut src = Src::new(bench.port, "");
    let lines = [audio("six", "::1"), audio("four", "127.0.0.1")];
    let answer = src.invite_with("application/sdp", &sdp(1, &lines));
    let to = ports(&answer);
    assert_eq!(to[0], 0, "{answer}");
    Media::new(to[1]).send(12);
    // What would lose a line is refused, and it goes on.
    let refused =
        src.ask("INVITE", "application/sdp", &sdp(2, &[audio("six", "::1"), audio("four", "::1")]));
    assert!(refused.starts_with("SIP/2.0 488"), "{refused}");
    assert!(value(&refused, "Warning").contains("no IPv6 address"), "{refused}");
    src.send("ACK", "", "");
    bye(&mut src);
    let over = bench.over();
    assert_eq!(counts(&over), expected(&[("four", 12)]));
    let quirks = over["quirks"].to_string();
    assert!(quirks.contains("m-line 1 is not recorded: it sends over IPv6"), "{quirks}");
    let offer = sdp(1, &[audio("six", "::1")]);
    let refused = Src::new(bench.port, "").ask("INVITE", "application/sdp", &offer);
    assert!(refused.starts_with("SIP/2.0 488"), "{refused}");
}

#[test]
fn a_line_that_moves_to_the_other_family_is_recorded_there() {
    let bench = Bench::new("[\"127.0.0.1\", \"::1\"]", "29480-29559", &[]);
    let mut src = Src::new(bench.port, "");
    let first = places(&src.invite_with("application/sdp", &sdp(1, &[audio("line", "127.0.0.1")])));
    let mut four = Media::at("127.0.0.1", first[0].1);
    four.send(20);
    let second = again(&mut src, 2, &[audio("line", "::1")]);
    assert_eq!(second[0].0, "::1");
    // Under way when the answer came.
    four.send(3);
    let mut six = Media::at("::1", second[0].1);
    six.number = four.number;
    six.send(20);
    bench.kill(CONTROL);
    assert_eq!(again(&mut src, 3, &[audio("line", "::1")]), second);
    six.send(20);
    bye(&mut src);
    let over = bench.over();
    assert_eq!(counts(&over), expected(&[("line", 63)]));
    assert_eq!(over["streams"].as_array().map(Vec::len), Some(2), "{over}");
}

/// What an SRC behind address translation says of itself: an address that nobody can send to.
fn inside(label: &str, more: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 10.255.0.7\r\ns=-\r\nc=IN IP4 10.255.0.7\r\nt=0 0\r\n{more}\
         a=label:{label}\r\na=rtcp-mux\r\na=sendonly\r\n"
    )
}

/// The next datagram that comes back, before `limit`.
fn comes_back(media: &Media, limit: Duration) -> Option<Vec<u8>> {
    let mut out = vec![0; 2_048];
    media.socket.set_read_timeout(Some(limit)).expect("a timeout");
    let length = media.socket.recv(&mut out).ok()?;
    out.truncate(length);
    Some(out)
}

/// Plain RTP by a rule: the first sender is taken and nobody else, and reports come back to it,
/// whoever dies meanwhile.
#[test]
fn uc7_an_src_behind_address_translation_is_recorded_and_nobody_else() {
    let folder = fresh_folder();
    let file = folder.join("nat.toml");
    let port = free_port();
    let text = format!(
        "[sip]\nudp = [\"127.0.0.1:{port}\"]\ntcp = []\n[media]\nports = \"29560-29579\"\n\
         streams_max = 2\n[[peers]]\nname = \"desk\"\nmatch = \"127.0.0.1\"\nnat = true\n[store]\n\
         dir = {:?}\n",
        folder.join("store").display().to_string()
    );
    std::fs::write(&file, text).expect("a file");
    let mut command = Command::new(binary());
    command.arg("serve").arg("-c").arg(&file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let server = Some(Server::start(command, &folder.join("nothing")).ready());
    let bench = Bench { folder, port, sets: Vec::new(), server };
    let mut src = Src::new(bench.port, "");
    let answer = src.invite_with("application/sdp", &inside("line", "m=audio 6000 RTP/AVP 0\r\n"));
    let to = ports(&answer)[0];
    let (mut desk, mut other) = (Media::new(to), Media::new(to));
    desk.send(20);
    other.socket = UdpSocket::bind("127.0.0.3:0").expect("a free port");
    other.number = 1_000;
    other.send(5);
    bench.kill(MEDIA);
    other.send(5);
    desk.send(20);
    bench.kill(CONTROL);
    other.send(5);
    desk.send(20);
    // An empty report at first, or one about it: RR (RFC 3550 §6.4.2).
    let report = until("a report", LIMIT, || {
        desk.send(1);
        comes_back(&desk, Duration::from_millis(100))
    });
    assert_eq!((report[0] & 0xe0, report[1]), (0x80, 201));
    assert_eq!(comes_back(&other, Duration::from_millis(10)), None);
    // Its binding changes: the same client on another port, at once.
    let mut rebound = Media::new(to);
    rebound.number = desk.number;
    rebound.send(10);
    let all = u64::from(rebound.number);
    bye(&mut src);
    let over = bench.over();
    assert_eq!(counts(&over), expected(&[("line", all)]), "{over}");
    assert_eq!(over["streams"][0]["sources"].as_array().map(Vec::len), Some(1), "{over}");
    assert_eq!(over["streams"][0]["drops"]["stranger"], 15, "{over}");
}

/// SRTP needs no rule: what authenticates is taken from wherever it comes, and reports go there.
#[test]
fn uc7_reports_follow_srtp_through_address_translation() {
    let bench = Bench::new("127.0.0.1", "29580-29599", &["media.streams_max=2".to_owned()]);
    let mut src = Src::new(bench.port, "");
    // Octets 0 to 29, as SDES writes them.
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd";
    let line =
        format!("m=audio 6000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n");
    let answer = src.invite_with("application/sdp", &inside("line", &line));
    let to = ports(&answer)[0];
    let bytes: Vec<u8> = (0..30).collect();
    let profile = ProtectionProfile::Aes128CmHmacSha1_80;
    let mut context =
        Context::new(&bytes[..16], &bytes[16..], profile, None, None).expect("its lengths");
    let mut seq = 0_u16;
    let mut say = |from: &Media| {
        let mut packet = vec![0x80, 0];
        packet.extend(seq.to_be_bytes());
        packet.extend((u32::from(seq) * 160).to_be_bytes());
        packet.extend([0, 0, 0, 17]);
        packet.resize(172, 3);
        seq += 1;
        let packet = context.encrypt_rtp(&packet).expect("a packet");
        from.socket.send_to(&packet, ("127.0.0.1", to)).expect("loopback");
    };
    let (first, second, stranger) = (Media::new(to), Media::new(to), Media::new(to));
    for from in [&first, &second] {
        let report = until("a report", LIMIT, || {
            say(from);
            stranger.socket.send_to(&[0x80; 60], ("127.0.0.1", to)).expect("loopback");
            comes_back(from, Duration::from_millis(50))
        });
        assert_eq!((report[0] & 0xe0, report[1]), (0x80, 201));
        bench.kill(MEDIA);
    }
    assert_eq!(comes_back(&stranger, Duration::from_millis(10)), None);
    say(&second);
    bye(&mut src);
    assert_eq!(counts(&bench.over()), expected(&[("line", seq.into())]));
}
