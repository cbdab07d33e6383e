//! A line heard while it is recorded, with the real server: what is heard, how soon, by whom; and that whoever
//! listens, however badly, takes nothing from the recording.

#[expect(dead_code, reason = "shared with tests that kill processes")]
mod server;
#[expect(dead_code, reason = "shared with tests of flows")]
mod words;

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use floortape::base::time::Wall;
use rustix::process::Signal;
use serde_json::Value;
use server::{
    CONTROL, MEDIA, Server, binary, children, command, free_port, fresh_folder, send, until,
};
use words::{Media, Src, sdp};

const LIMIT: Duration = Duration::from_secs(15);
const READER: &str = "floortape-reader";

struct Bench {
    store: PathBuf,
    port: u16,
    server: Server,
}

impl Bench {
    fn new(sets: &[&str]) -> Self {
        let (folder, port) = (fresh_folder(), free_port());
        let mut command = command(&folder, port);
        for set in sets {
            command.args(["--set", set]);
        }
        let server = Server::start(command, &folder).ready();
        Bench { store: folder.join("store"), port, server }
    }

    fn verb(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(words).arg("--store").arg(&self.store).stdin(Stdio::null());
        command
    }

    /// Exit code, standard output and error.
    fn run(&self, words: &[&str]) -> (i32, Vec<u8>, String) {
        let output = self.verb(words).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), output.stdout, said)
    }

    fn tap(&self, words: &[&str]) -> Child {
        let mut command = self.verb(&[&["tap"], words].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
    }

    fn recording(&self) -> Value {
        let (_, out, _) = self.run(&["ls", "--json"]);
        let text = String::from_utf8_lossy(&out).into_owned();
        serde_json::from_str(text.lines().next().unwrap_or("null")).unwrap_or(Value::Null)
    }

    fn id(&self) -> String {
        until("a recording", LIMIT, || self.recording()["id"].as_str().map(str::to_owned))
    }

    /// The recording, once it is over and all of it durable.
    fn over(&self) -> Value {
        until("the end", LIMIT, || {
            let over = self.recording();
            (over["state"] == "ended" && over["durable_through"] == over["end"]).then_some(over)
        })
    }

    fn call(&self, streams: &str, seconds: &str) -> Child {
        let to = format!("sip:srs@127.0.0.1:{};transport=tcp", self.port);
        Command::new(binary())
            .args(["src", "call", "--to", &to, "--streams", streams, "--duration", seconds])
            .stdout(Stdio::null())
            .spawn()
            .expect("it runs")
    }

    /// The WAVs of an export: data alone.
    fn exported(&self, id: &str, words: &[&str]) -> impl Fn(&str) -> Vec<u8> + use<> {
        let folder = self.store.with_file_name(format!("export-{}", words.len()));
        let to = folder.display().to_string();
        let (code, _, said) = self.run(&[&["export", id, "-o", &to], words].concat());
        assert_eq!(code, 0, "{said}");
        move |name| data(&std::fs::read(folder.join(name)).expect("exported"))
    }

    fn reader(&self) -> u32 {
        until("a reader", LIMIT, || {
            let control = self.server.child(CONTROL)?;
            let found = children(control).into_iter().find(|(_, name)| name == READER);
            found.map(|(pid, _)| pid)
        })
    }
}

/// Everything behind the 44 bytes of a WAV's header.
fn data(wav: &[u8]) -> Vec<u8> {
    assert_eq!((&wav[..4], &wav[36..40]), (&b"RIFF"[..], &b"data"[..]));
    wav[44..].to_vec()
}

/// One channel of several.
fn channel(data: &[u8], number: usize, of: usize) -> Vec<u8> {
    let frames = data.chunks_exact(2 * of);
    frames.flat_map(|frame| [frame[2 * number], frame[2 * number + 1]]).collect()
}

/// Without the silence before and behind.
fn sound(pcm: &[u8]) -> &[u8] {
    let is_sound = |two: &[u8]| two != [0, 0];
    let first = pcm.chunks_exact(2).position(is_sound).expect("not all is silence");
    let last = pcm.chunks_exact(2).rposition(is_sound).expect("as above");
    &pcm[2 * first..2 * last + 2]
}

fn holds(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

fn objects(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn of_type<'a>(all: &'a [Value], kind: &str) -> Vec<&'a Value> {
    all.iter().filter(|one| one["type"] == kind).collect()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_nanos()).expect("before 2262")
}

fn end(child: Child) -> (i32, Vec<u8>, String) {
    let output = child.wait_with_output().expect("ours");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), output.stdout, said)
}

#[test]
fn what_is_tapped_is_what_is_exported_and_comes_within_half_a_second() {
    let bench = Bench::new(&[]);
    let mut call = bench.call("2", "6");
    let id = bench.id();
    let wav = bench.tap(&[&id, "--from", "start"]);
    let mut objects = bench.tap(&[&id, "--format", "jsonl"]);
    let lines = BufReader::new(objects.stdout.take().expect("piped")).lines();
    let timed = std::thread::spawn(move || {
        let mut late = Vec::new();
        for line in lines {
            let read = now();
            let one: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
            if one["type"] == "audio" {
                let at: Wall = one["at"].as_str().expect("a time").parse().expect("RFC 3339");
                late.push((read - at.0) / 1_000_000);
            }
        }
        late
    });
    // From the middle on, one line alone.
    std::thread::sleep(Duration::from_secs(2));
    let raw = bench.tap(&[&id, "--stream", "1", "--format", "raw"]);
    assert!(call.wait().expect("ours").success());
    let (code, tapped, said) = end(wav);
    assert_eq!(code, 0, "{said}");
    assert_eq!(&tapped[4..8], [0xff; 4], "nobody knows how long it will be");
    let (code, part, said) = end(raw);
    assert_eq!(code, 0, "{said}");
    assert_eq!(end(objects).0, 0);
    bench.over();
    let exported = bench.exported(&id, &[]);
    for (number, name) in ["1.wav", "2.wav"].iter().enumerate() {
        let tapped = channel(&data(&tapped), number, 2);
        assert!(sound(&tapped) == sound(&exported(name)), "{name} is not what was tapped");
    }
    let part = sound(&part);
    assert!(part.len() > 2 * 8_000 && holds(&exported("1.wav"), part), "{} bytes", part.len());
    let mut late = timed.join().expect("no panic");
    late.sort_unstable();
    let (median, most) = (late[late.len() / 2], late[late.len() * 95 / 100]);
    eprintln!("{} packets, {median} ms after arrival, 95 % within {most} ms", late.len());
    assert!(late.len() > 300 && most <= 500, "95 % within {most} ms");
}

/// The pipe is full, or the process stands still: the recording goes on and has everything. Later all of it is
/// heard, from the ring and from segments.
#[test]
fn a_reader_that_stands_still_costs_itself() {
    let bench = Bench::new(&["store.segment_s=1"]);
    let mut call = bench.call("2", "6");
    let id = bench.id();
    let unread = bench.tap(&[&id, "--from", "start", "--format", "jsonl"]);
    let stopped = {
        let first = bench.reader();
        let tap = bench.tap(&[&id, "--from", "start", "--format", "jsonl"]);
        let second = until("the other reader", LIMIT, || {
            let all = children(bench.server.child(CONTROL)?);
            all.into_iter().find(|(pid, name)| name == READER && *pid != first)
        });
        send(second.0, Signal::STOP);
        (tap, second.0)
    };
    assert!(call.wait().expect("ours").success());
    let over = bench.over();
    for stream in over["streams"].as_array().expect("two") {
        let source = &stream["sources"][0];
        assert_eq!((&source["packets"], &source["lost"]), (&300.into(), &serde_json::json!({})));
        assert_eq!(source["unexplained"], 0, "{stream}");
    }
    send(stopped.1, Signal::CONT);
    for tap in [unread, stopped.0] {
        let (code, out, said) = end(tap);
        assert_eq!(code, 0, "{said}");
        let all = objects(&out);
        assert_eq!(of_type(&all, "audio").len(), 600, "{said}");
        assert_eq!(of_type(&all, "gap").len() + of_type(&all, "missing").len(), 0);
    }
}

/// The ring has gone round several times while nobody read: what it holds no longer comes from segments, and
/// nothing comes twice.
#[test]
fn what_was_written_over_meanwhile_is_found_in_segments() {
    let bench = Bench::new(&["store.segment_s=1", "store.ring_seconds=1"]);
    let mut src = Src::new(bench.port, "");
    let (_, port) = src.invite();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let mut number = 0_u32;
    let mut packets = |count: u32, bytes: usize| {
        for _ in 0..count {
            let mut packet = vec![0x80, 0];
            packet.extend_from_slice(&(number as u16).to_be_bytes());
            packet.extend_from_slice(&(number * 8).to_be_bytes());
            packet.extend_from_slice(&[0, 0, 0, 17]);
            packet.resize(12 + bytes, number as u8);
            socket.send_to(&packet, ("127.0.0.1", port)).expect("loopback");
            number += 1;
            // The sockets' queues take a burst of some hundred.
            if number.is_multiple_of(50) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    };
    packets(200, 8);
    let id = bench.id();
    let mut tap = bench.tap(&[&id, "--from", "start", "--format", "jsonl"]);
    let mut lines = BufReader::new(tap.stdout.take().expect("piped")).lines();
    let mut all = Vec::new();
    let mut next = || serde_json::from_str(&lines.next()?.expect("text")).ok();
    while of_type(&all, "audio").len() < 200 {
        all.push(next().expect("more to come"));
    }
    send(bench.reader(), Signal::STOP);
    // A second of the eight streams that the ring is made for, and at least 16 MiB: three times round.
    packets(60_000, 900);
    std::thread::sleep(Duration::from_millis(1_500));
    send(bench.reader(), Signal::CONT);
    packets(200, 8);
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
    while let Some(one) = next() {
        all.push(one);
    }
    assert!(tap.wait().expect("ours").success());
    let over = bench.over();
    let stored = over["streams"][0]["sources"][0]["packets"].as_u64().expect("a count");
    assert!(stored > 50_000, "{over}");
    assert_eq!(of_type(&all, "audio").len() as u64, stored);
    let marks: std::collections::BTreeSet<&str> =
        of_type(&all, "audio").into_iter().filter_map(|one| one["position"].as_str()).collect();
    assert_eq!(marks.len() as u64, stored, "each packet once");
    assert!(marks.iter().any(|mark| mark.contains(";g0.")), "none came from a segment");
    assert!(of_type(&all, "missing").is_empty());
}

#[test]
fn who_goes_on_by_position_hears_the_same_as_who_never_stopped() {
    for sets in [&[][..], &["store.segment_s=1"]] {
        let bench = Bench::new(sets);
        let mut call = bench.call("2", "5");
        let id = bench.id();
        let whole = bench.tap(&[&id, "--from", "start", "--format", "jsonl"]);
        let raw = ["--from", "start", "--format", "raw", "--stream", "1"];
        let whole_raw = bench.tap(&[&[&*id], &raw[..]].concat());
        let first = bench.tap(&[&[&*id], &raw[..]].concat());
        std::thread::sleep(Duration::from_secs(2));
        send(first.id(), Signal::INT);
        let (code, mut parts, said) = end(first);
        assert_eq!(code, 130, "{said}");
        let mark = said.split('\'').nth(1).unwrap_or_else(|| panic!("no position: {said}"));
        let again = bench.tap(&[&id, "--format", "raw", "--stream", "1", "--resume", mark]);
        let (code, rest, said) = end(again);
        assert_eq!(code, 0, "{said}");
        assert!(call.wait().expect("ours").success());
        let (_, whole_raw, _) = end(whole_raw);
        parts.extend(rest);
        assert!(sound(&parts) == sound(&whole_raw), "other samples");
        assert!(parts.len() > 2 * 8_000 * 4, "{} bytes", parts.len());

        let (code, whole, said) = end(whole);
        assert_eq!(code, 0, "{said}");
        bench.over();
        let whole = objects(&whole);
        let plain = |all: &[Value]| -> Vec<Value> {
            let heard = all.iter().filter(|one| one["type"] != "start" && one["type"] != "end");
            let mut heard: Vec<Value> = heard.cloned().collect();
            heard.iter_mut().for_each(|one| one["position"] = Value::Null);
            // Lines side by side come as they are found; each in its order.
            heard.sort_by_key(|one| one["label"].as_str().map(str::to_owned));
            heard
        };
        for place in [1, 100, 333] {
            let mark = whole[place]["position"].as_str().expect("a position");
            let (code, out, said) = bench.run(&["tap", &id, "--format", "jsonl", "--resume", mark]);
            assert_eq!(code, 0, "{said}");
            let rest = plain(&objects(&out));
            assert_eq!(rest.len(), plain(&whole[place + 1..]).len(), "behind {place}: {mark}");
            assert!(rest == plain(&whole[place + 1..]), "behind {place}: {mark}");
        }
        let bad = bench.run(&["tap", &id, "--resume", "somewhere"]);
        assert_eq!(bad.0, 2, "{}", bad.2);
    }
}

#[test]
fn a_tap_outlives_media_and_control_and_hears_what_is_recorded() {
    let bench = Bench::new(&[]);
    let mut src = Src::new(bench.port, "");
    let (_, port) = src.invite();
    let mut media = Media::new(port);
    media.send(50);
    let id = bench.id();
    let tap = bench.tap(&[&id, "--from", "start", "--format", "jsonl"]);
    bench.reader();
    for role in [MEDIA, CONTROL, MEDIA] {
        let pid = bench.server.child(role).expect("it runs");
        send(pid, Signal::KILL);
        until("the next one", LIMIT, || bench.server.child(role).filter(|next| *next != pid));
        media.send(100);
    }
    until("control", LIMIT, || (bench.recording()["state"] == "live").then_some(()));
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
    let (code, out, said) = end(tap);
    assert_eq!(code, 0, "{said}");
    let over = bench.over();
    assert_eq!(over["streams"][0]["sources"][0]["packets"], 350, "{over}");
    let all = objects(&out);
    assert_eq!(of_type(&all, "audio").len(), 350, "{said}");
    assert_eq!(of_type(&all, "gap").len(), 0);
    // Its end is in the trail, though whoever began it is gone.
    let ended = || {
        let (_, trail, _) = bench.run(&["audit", "--json"]);
        objects(&trail).into_iter().find(|entry| entry["action"] == "listen.end")
    };
    let ended = until("the end in the trail", LIMIT, ended);
    assert_eq!(ended["object"], *id);
    assert!(ended["detail"]["seconds"].as_f64().is_some_and(|seconds| seconds > 0.5), "{ended}");
}

#[test]
fn nothing_of_a_pause_is_heard_and_that_it_is_one_is_told() {
    let bench = Bench::new(&[]);
    let mut src = Src::new(bench.port, "Allow: INVITE, BYE\r\n");
    let (_, port) = src.invite();
    let mut media = Media::new(port);
    media.send(50);
    let id = bench.id();
    let tap = bench.tap(&[&id, "--from", "start", "--format", "jsonl"]);
    bench.reader();
    let stored = || bench.recording()["streams"][0]["sources"][0]["packets"].as_u64();
    until("the first packets", LIMIT, || stored().filter(|count| *count == 50));

    // Once by the operator, and the SRC goes on sending.
    let (code, _, said) = bench.run(&["rs", "pause", &id]);
    assert_eq!(code, 0, "{said}");
    media.send(60);
    let offer = src.asked("INVITE", LIMIT).expect("the SRC is told");
    src.answer_sdp(&offer, &sdp("inactive", 2));
    let resume = bench.verb(&["rs", "resume", &id]).stderr(Stdio::piped()).spawn();
    let resume = resume.expect("it runs");
    let offer = src.next(LIMIT, |text| text.starts_with("INVITE ") && text.contains("a=recvonly"));
    src.answer_sdp(&offer.expect("the SRC is asked"), &sdp("sendonly", 3));
    assert_eq!(end(resume).0, 0);
    media.send(40);
    until("packets behind the pause", LIMIT, || stored().filter(|count| *count == 90));

    // Once by the SRC's own re-INVITE.
    let answer = src.ask("INVITE", "application/sdp", &sdp("inactive", 4));
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    src.send("ACK", "", "");
    media.send(30);
    let answer = src.ask("INVITE", "application/sdp", &sdp("sendonly", 5));
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    src.send("ACK", "", "");
    media.send(20);
    until("the last packets", LIMIT, || stored().filter(|count| *count == 110));
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));

    let (code, out, said) = end(tap);
    assert_eq!(code, 0, "{said}");
    let all = objects(&out);
    assert_eq!(of_type(&all, "audio").len(), 110, "{said}");
    let told =
        all.iter().filter(|one| ["pause", "resume", "gap"].iter().any(|k| one["type"] == *k));
    let told: Vec<String> = told.map(|one| format!("{} {}", one["type"], one["by"])).collect();
    let wanted = [r#""pause" "srs""#, r#""resume" "srs""#, r#""pause" "src""#, r#""resume" "src""#];
    assert_eq!(told, wanted);
    // The samples say which packet each is of: `words::Media` fills them with its number.
    let pauses = of_type(&all, "pause");
    let resumes = of_type(&all, "resume");
    for audio in of_type(&all, "audio") {
        let at = audio["at"].as_str().expect("a time");
        let within = pauses.iter().zip(&resumes).any(|(pause, resume)| {
            at > pause["at"].as_str().expect("a time")
                && at < resume["at"].as_str().expect("a time")
        });
        assert!(!within, "{at} lies in a pause");
    }
}

#[test]
fn who_may_not_and_what_is_not_there_are_refused_each_with_its_code() {
    let bench = Bench::new(&["access.reason=listen"]);
    let mut call = bench.call("2", "3");
    let id = bench.id();
    let (code, _, said) = bench.run(&["tap", &id]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("--reason"), "{said}");
    let why = ["--reason", "a test"];
    let run = |words: &[&str]| bench.run(&[words, &why].concat());
    let (code, _, said) = run(&["tap", &id, "--format", "raw"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("choose one"), "{said}");
    let (code, _, said) = run(&["tap", &id, "--party", "nobody"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("Anna"), "who there is: {said}");
    assert_eq!(run(&["tap", &id, "--stream", "9"]).0, 3);
    assert_eq!(run(&["tap", &"0".repeat(32)]).0, 3);
    assert_eq!(run(&["tap", "no id"]).0, 3);
    // Stream 0 is nobody's.
    let (code, _, said) = run(&["tap", &id, "--resume", "1;0.0;s1.1.1.1.1.1"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("another recording"), "{said}");
    let one = bench.tap(&[&id, "--party", "anna", "--format", "raw", "--reason", "a test"]);
    assert!(call.wait().expect("ours").success());
    assert_eq!(end(one).0, 0);
    bench.over();
    let (code, _, said) = run(&["tap", &id]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("floortape play"), "{said}");
    let (code, _, said) = bench.run(&["play", &id]);
    assert_eq!(code, 4, "{said}");
    let (_, trail, _) = bench.run(&["audit", "--json"]);
    let listens = objects(&trail).into_iter().filter(|entry| entry["action"] == "listen");
    let refused = listens.filter(|entry| entry["outcome"] == "refused").count();
    assert_eq!(refused, 2);

    let Bench { store, server, .. } = bench;
    drop(server);
    let mut alone = Command::new(binary());
    std::fs::create_dir_all(store.join("run")).expect("ours");
    let output = alone.args(["tap", &id, "--store"]).arg(&store).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    std::fs::remove_dir_all(store.parent().expect("a folder")).expect("ours");
}

#[test]
fn a_tap_ends_with_whoever_listens_and_with_the_server() {
    let mut bench = Bench::new(&[]);
    let mut src = Src::new(bench.port, "");
    let (_, port) = src.invite();
    Media::new(port).send(50);
    let id = bench.id();
    // Nobody reads any more.
    let mut tap = bench.tap(&[&id, "--from", "start", "--format", "jsonl"]);
    bench.reader();
    drop(tap.stdout.take());
    let code = until("its end", LIMIT, || tap.try_wait().expect("ours")).code();
    assert_eq!(code, Some(141));
    // Whoever asked is killed: the reader does not outlive him.
    let mut tap = bench.tap(&[&id, "--format", "jsonl"]);
    let reader = bench.reader();
    tap.kill().expect("ours");
    tap.wait().expect("ours");
    until("the reader's end", LIMIT, || {
        server::argv0(reader).is_none_or(|n| n != READER).then_some(())
    });
    // ^C while its reader stands still, as it does where its output is full.
    let tap = bench.tap(&[&id, "--format", "jsonl"]);
    send(bench.reader(), Signal::STOP);
    send(tap.id(), Signal::INT);
    let (code, _, said) = end(tap);
    assert_eq!(code, 130, "{said}");
    // Who waits for a time to come is told so, and waits.
    let hour = Wall(now() + 3_600_000_000_000).to_string();
    let mut tap = bench.tap(&[&id, "--from", &hour, "--format", "jsonl"]);
    let mut out = BufReader::new(tap.stdout.take().expect("piped"));
    out.read_line(&mut String::new()).expect("text");
    send(tap.id(), Signal::INT);
    let (code, _, said) = end(tap);
    assert!(code == 130 && said.contains(&format!("it begins at {hour}, in ")), "{code} {said}");
    // The server is stopped: the recording is over.
    let tap = bench.tap(&[&id, "--from", "start", "--format", "jsonl"]);
    bench.reader();
    bench.server.signal(Signal::INT);
    let bye = src.asked("BYE", LIMIT).expect("it ends what runs");
    src.answer(&bye, "");
    bench.server.wait();
    let (code, out, said) = end(tap);
    assert_eq!(code, 0, "{said}");
    let all = objects(&out);
    assert_eq!(of_type(&all, "audio").len(), 50);
    assert_eq!(all.last().map(|last| &last["why"]), Some(&"over".into()), "{said}");
}

#[test]
fn a_tap_ends_when_nobody_records_any_more_and_says_where_it_was() {
    let bench = Bench::new(&[]);
    let mut src = Src::new(bench.port, "");
    let (_, port) = src.invite();
    Media::new(port).send(50);
    let mut tap = bench.tap(&[&bench.id(), "--from", "start", "--format", "jsonl"]);
    // It has been handed all that it needs.
    let mut out = BufReader::new(tap.stdout.take().expect("piped"));
    let mut said = String::new();
    out.read_line(&mut said).expect("text");
    let roles = [MEDIA, CONTROL].map(|role| bench.server.child(role).expect("it runs"));
    let others = children(bench.server.keeper.id());
    send(bench.server.keeper.id(), Signal::KILL);
    roles.into_iter().for_each(|pid| send(pid, Signal::KILL));
    for (pid, _) in others {
        server::try_send(pid, Signal::KILL);
    }
    let began = Instant::now();
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).expect("text");
    let (code, _, said) = end(tap);
    assert_eq!(code, 69, "{said}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(said.contains("--resume '1;"), "{said}");
    let all = objects(&rest);
    assert_eq!(of_type(&all, "audio").len(), 50);
    assert_eq!(all.last().map(|last| &last["type"]), Some(&"end".into()), "{said}");
}

#[test]
fn what_is_played_is_what_is_exported() {
    let bench = Bench::new(&["store.segment_s=1"]);
    assert!(bench.call("2", "4").wait().expect("ours").success());
    let (id, over) = (bench.id(), bench.over());
    let exported = bench.exported(&id, &[]);
    let began = Instant::now();
    let mut play = bench.verb(&["play", &id]).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut out = play.stdout.take().expect("piped");
    let mut wav = vec![0; 4_096];
    out.read_exact(&mut wav).expect("some audio");
    eprintln!("the first of it is heard after {} ms", began.elapsed().as_millis());
    out.read_to_end(&mut wav).expect("the rest");
    assert!(play.wait().expect("ours").success());
    for (number, name) in ["1.wav", "2.wav"].iter().enumerate() {
        let played = channel(&data(&wav), number, 2);
        assert!(sound(&played) == sound(&exported(name)), "{name} is not what was played");
    }
    // A second in the middle of one line, by place and by time.
    let start: Wall = over["start"].as_str().expect("a time").parse().expect("RFC 3339");
    let (from, to) = (Wall(start.0 + 1_000_000_000), Wall(start.0 + 2_000_000_000));
    let (from, to) = (from.to_string(), to.to_string());
    let (code, placed, said) =
        bench.run(&["play", &id, "--stream", "1", "--at", "1s", "--to", &to]);
    assert_eq!(code, 0, "{said}");
    let (_, timed, _) = bench.run(&["play", &id, "--party", "anna", "--from", &from, "--to", &to]);
    assert!(placed == timed, "the same second of the same line");
    // In other words: behind the start, and by a clock on the wall.
    let local = |time: &str| time.trim_end_matches('Z').replace('T', " ");
    for words in [
        ["--from", "+0:01", "--to", "+2s", "--tz=UTC"],
        ["--from", &local(&from), "--to", &local(&to), "--tz=UTC"],
        ["--at", &local(&from), "--to", "+0:02", "--tz=+00:00"],
    ] {
        let (_, said, why) = bench.run(&[&["play", &id, "--stream", "1"][..], &words].concat());
        assert!(said == placed, "{words:?}: {why}");
    }
    // Which half past two?
    let twice = "--from=2026-10-25 02:30";
    for verb in [&["play"][..], &["export", "--dry-run"], &["peaks"], &["tap"]] {
        let (code, _, why) = bench.run(&[verb, &[&id, twice, "--tz=Europe/Berlin"]].concat());
        let caret = "\n  2026-10-25 02:30\n  ^^^^^^^^^^^^^^^^";
        assert_eq!(code, 2, "{verb:?}: {why}");
        assert!(why.contains("02:30+02:00 or") && why.contains(caret), "{verb:?}: {why}");
    }
    assert_eq!(data(&placed).len(), 2 * 8_000, "exactly a second");
    assert!(holds(&exported("1.wav"), sound(&data(&placed))));
    let ranged = bench.exported(&id, &["--from", &from, "--to", &to]);
    assert_eq!(ranged("1.wav").len(), data(&placed).len());
    let behind = bench.exported(&id, &["--from", "+0:01", "--to", "+0:02", "--stream", "1"]);
    assert!(behind("1.wav") == ranged("1.wav"), "the same second");
}
