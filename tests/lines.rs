//! Lines of a running session, with the real server: many at once, of several media, that come and go
//! and come again as something else, move, rest and go on. What was sent on which is counted on disk.

#[expect(dead_code, reason = "shared with tests that kill processes")]
mod server;
#[expect(dead_code, reason = "shared with tests of flows")]
mod words;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use server::{Server, binary, command, free_port, fresh_folder, until};
use words::{Media, Src, ports};

const LIMIT: Duration = Duration::from_secs(10);

struct Bench {
    store: PathBuf,
    port: u16,
    _server: Server,
}

impl Bench {
    fn new(streams: u32) -> Self {
        let (folder, port) = (fresh_folder(), free_port());
        let mut command = command(&folder, port);
        command.arg("--set").arg(format!("media.streams_max={streams}"));
        let server = Server::start(command, &folder).ready();
        Bench { store: folder.join("store"), port, _server: server }
    }

    fn run(&self, words: &[&str]) -> String {
        let output = Command::new(binary()).args(words).arg("--store").arg(&self.store).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn recordings(&self) -> Vec<Value> {
        let listed = self.run(&["ls", "--json"]);
        listed.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
    }

    /// The recording of that SRC (its From is the same for all, its streams' first label is not), once
    /// all of it is over and durable.
    fn over(&self, label: &str) -> Value {
        until("the end", LIMIT, || {
            self.recordings().into_iter().find(|one| {
                one["streams"][0]["label"] == label
                    && one["state"] == "ended"
                    && one["durable_through"] == one["end"]
            })
        })
    }
}

/// One m-line.
fn line(media: &str, port: u16, formats: &str, label: &str, more: &str) -> String {
    format!("m={media} {port} RTP/AVP {formats}\r\na=label:{label}\r\n{more}")
}

fn audio(label: &str) -> String {
    line("audio", 6_000, "0", label, "a=sendonly\r\n")
}

fn sdp(version: u32, address: &str, lines: &[String]) -> String {
    format!(
        "v=0\r\no=- 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n{}",
        lines.concat()
    )
}

fn again(src: &mut Src, version: u32, address: &str, lines: &[String]) -> Vec<u16> {
    let answer = src.ask("INVITE", "application/sdp", &sdp(version, address, lines));
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    src.send("ACK", "", "");
    ports(&answer)
}

/// Packets on disk by label.
fn counts(recording: &Value) -> Vec<(String, u64)> {
    let streams = recording["streams"].as_array().expect("a list");
    let count = |stream: &Value| {
        let sources = stream["sources"].as_array().into_iter().flatten();
        sources.map(|source| source["packets"].as_u64().expect("a count")).sum()
    };
    let label = |stream: &Value| stream["label"].as_str().expect("a label").to_owned();
    streams.iter().map(|stream| (label(stream), count(stream))).collect()
}

fn bye(src: &mut Src) {
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
}

#[test]
fn req031_sixteen_audio_lines_are_recorded_each_for_itself() {
    let bench = Bench::new(16);
    let mut src = Src::new(bench.port, "");
    let labels: Vec<String> = (1..=16).map(|number| format!("line{number}")).collect();
    let lines: Vec<String> = labels.iter().map(|label| audio(label)).collect();
    let answer = src.invite_with("application/sdp", &sdp(1, "127.0.0.1", &lines));
    for label in &labels {
        assert!(answer.contains(&format!("a=label:{label}\r\n")), "{answer}");
    }
    let to = ports(&answer);
    assert_eq!(to.len(), 16);
    // A 17th finds no room, and is told so by 503 (not by port 0: it would be lost silently).
    let refused = Src::new(bench.port, "").ask(
        "INVITE",
        "application/sdp",
        &sdp(1, "127.0.0.1", &[audio("seventeen")]),
    );
    assert!(refused.starts_with("SIP/2.0 503"), "{refused}");
    for (number, port) in (1..).zip(&to) {
        Media::new(*port).send(number);
    }
    bye(&mut src);
    let over = bench.over("line1");
    let expected: Vec<(String, u64)> = labels.into_iter().zip(1..).collect();
    assert_eq!(counts(&over), expected);
    bench.run(&["verify", over["id"].as_str().expect("an id")]);
}

#[test]
fn req010_two_audio_and_two_video_lines_are_recorded_each_with_its_codec() {
    let bench = Bench::new(8);
    let mut src = Src::new(bench.port, "");
    let video =
        |label: &str| line("video", 7_000, "96", label, "a=rtpmap:96 H264/90000\r\na=sendonly\r\n");
    let lines = [audio("a1"), video("v1"), audio("a2"), video("v2")];
    let answer = src.invite_with("application/sdp", &sdp(1, "127.0.0.1", &lines));
    assert_eq!(answer.matches("a=rtpmap:96 H264/90000").count(), 2, "{answer}");
    let to = ports(&answer);
    for ((port, count), kind) in to.iter().zip([20, 30, 40, 50]).zip([0, 96, 0, 96]) {
        let mut media = Media::new(*port);
        media.payload_type = kind;
        media.send(count);
    }
    bye(&mut src);
    let over = bench.over("a1");
    let expected = [("a1", 20), ("v1", 30), ("a2", 40), ("v2", 50)];
    assert_eq!(counts(&over), expected.map(|(label, count)| (label.to_owned(), count)));
    let codecs: Vec<&str> = over["streams"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|stream| stream["codec"].as_str())
        .collect();
    assert!(codecs.iter().filter(|codec| codec.contains("H264")).count() == 2, "{over}");
    bench.run(&["verify", over["id"].as_str().expect("an id")]);
}

/// RFC 7866 §7.1.1.1, RFC 3264 §8: a line is added, one is removed, its place is used again for
/// something else, one moves, one is held the old way.
#[test]
fn lines_come_and_go_and_each_packet_stands_in_the_stream_that_it_was_sent_on() {
    let bench = Bench::new(8);
    let mut src = Src::new(bench.port, "");
    let answer = src.invite_with("application/sdp", &sdp(1, "127.0.0.1", &[audio("one")]));
    let one = ports(&answer)[0];
    let mut first = Media::new(one);
    first.send(10);
    let added = again(&mut src, 2, "127.0.0.1", &[audio("one"), audio("two")]);
    assert_eq!(added[0], one, "it stays where it is");
    let mut second = Media::new(added[1]);
    second.send(20);
    first.send(10);
    // The first is removed; what still comes to its port is nobody's.
    let gone = line("audio", 0, "0", "one", "");
    let removed = again(&mut src, 3, "127.0.0.1", &[gone, audio("two")]);
    assert_eq!(removed, [0, added[1]]);
    std::thread::sleep(Duration::from_millis(500));
    first.send(7);
    second.send(5);
    // Its place is used for another one.
    let used = again(&mut src, 4, "127.0.0.1", &[audio("three"), audio("two")]);
    let mut third = Media::new(used[0]);
    third.send(15);
    // Held by an address of zeros: what comes is not stored. Then it goes on, from another port.
    again(&mut src, 5, "0.0.0.0", &[audio("three"), audio("two")]);
    third.send(9);
    second.send(9);
    let moved = line("audio", 6_100, "0", "three", "a=sendonly\r\n");
    let moved = again(&mut src, 6, "127.0.0.1", &[moved, audio("two")]);
    assert_eq!(moved, used);
    third.send(15);
    second.send(5);
    bye(&mut src);
    let over = until("the end", LIMIT, || {
        bench
            .recordings()
            .into_iter()
            .find(|one| one["state"] == "ended" && one["durable_through"] == one["end"])
    });
    let mut found = counts(&over);
    found.sort();
    let expected = [("one", 20), ("three", 30), ("two", 30)];
    assert_eq!(found, expected.map(|(label, count)| (label.to_owned(), count)), "{over}");
    for stream in over["streams"].as_array().expect("a list") {
        for source in stream["sources"].as_array().expect("a list") {
            assert_eq!(source["unexplained"], 0, "{over}");
        }
    }
    bench.run(&["verify", over["id"].as_str().expect("an id")]);
}

/// REQ-024: each start, pause, resume and stop of each line has its instant, who wanted it by what, and the
/// RTP time then.
#[test]
fn req024_what_was_done_to_a_line_is_known_with_its_rtp_time() {
    let bench = Bench::new(4);
    let mut src = Src::new(bench.port, "");
    let answer = src.invite_with("application/sdp", &sdp(1, "127.0.0.1", &[audio("one")]));
    let mut one = Media::new(ports(&answer)[0]);
    one.gap = Duration::from_millis(20);
    one.send(20);
    let paused = line("audio", 6_000, "0", "one", "a=inactive\r\n");
    let with_two = again(&mut src, 2, "127.0.0.1", &[paused.clone(), audio("two")]);
    let mut two = Media::new(with_two[1]);
    two.gap = Duration::from_millis(20);
    two.send(20);
    again(&mut src, 3, "127.0.0.1", &[audio("one"), audio("two")]);
    one.send(20);
    let gone = line("audio", 0, "0", "two", "");
    again(&mut src, 4, "127.0.0.1", &[audio("one"), gone]);
    one.send(10);
    bye(&mut src);
    let over = bench.over("one");
    let told = |stream: &Value| -> Vec<String> {
        let controls = stream["controls"].as_array().expect("a list").iter();
        let words = |one: &Value| format!("{} {}", one["action"], one["cause"]).replace('"', "");
        controls.map(words).collect()
    };
    let streams = over["streams"].as_array().expect("a list");
    let ended = "stop BYE from the SRC";
    assert_eq!(told(&streams[0]), ["start INVITE 1", "pause INVITE 2", "resume INVITE 3", ended]);
    assert_eq!(told(&streams[1]), ["start INVITE 2", "stop INVITE 4"]);
    for (stream, packets) in [(&streams[0], 50), (&streams[1], 20)] {
        assert_eq!(stream["sources"][0]["packets"], packets, "{over}");
        let controls = stream["controls"].as_array().expect("a list");
        let times: Vec<&str> = controls.iter().filter_map(|one| one["at"].as_str()).collect();
        assert!(times.is_sorted() && times.len() == controls.len(), "{over}");
        for control in controls {
            assert_eq!(control["by"], "src", "{over}");
            let rtp = control["rtp"].as_array().expect("a list");
            assert_eq!((rtp.len(), &rtp[0]["ssrc"]), (1, &17.into()), "{over}");
        }
    }
    // The first packet has RTP time 0: at the start it was so much less, as that came later.
    let start = &streams[0]["controls"][0]["rtp"][0];
    let (timestamp, distance) = (start["timestamp"].as_u64(), start["distance_ms"].as_i64());
    let ticks = i64::from(timestamp.expect("a number") as u32 as i32);
    let distance = distance.expect("a number");
    assert!(distance <= 0 && (ticks - distance * 8).abs() <= 8, "{start}");
    // The last one before the pause has 19 times 160; what is reckoned from it goes on at 8 kHz.
    let pause = &streams[0]["controls"][1]["rtp"][0];
    let ticks = pause["timestamp"].as_i64().expect("a number") - 19 * 160;
    let distance = pause["distance_ms"].as_i64().expect("a number");
    assert!(distance >= 0 && (ticks - distance * 8).abs() <= 8, "{pause}");
    let shown = bench.run(&["show", over["id"].as_str().expect("an id")]);
    assert!(shown.contains("by src, INVITE 3, RTP "), "{shown}");
}

/// RFC 3262 §3: we send no provisional response that would have to be reliable.
/// RFC 7866 §8.1.7.1.1: what is recorded of video begins with an intra picture.
#[test]
fn an_intra_picture_is_asked_for_when_video_begins_and_when_it_goes_on() {
    let bench = Bench::new(8);
    let video = |way: &str| {
        line("video", 5_006, "96", "2", &format!("a=rtpmap:96 H264/90000\r\na={way}\r\n"))
    };
    let offer = |version, lines: &[String]| sdp(version, "127.0.0.1", lines);
    let asked = |src: &Src| src.asked("INFO", Duration::from_millis(700));
    let mut src = Src::new(bench.port, "Allow: INVITE, UPDATE, INFO, BYE\r\n");
    src.invite_with("application/sdp", &offer(1, &[audio("1")]));
    assert!(asked(&src).is_none(), "nobody looks at audio");
    // A line that comes to it; one that rests and goes on, told by UPDATE.
    again(&mut src, 2, "127.0.0.1", &[audio("1"), video("sendonly")]);
    let info = asked(&src).expect("an intra picture is wanted");
    assert!(
        info.contains("media_control+xml") && info.contains("<picture_fast_update/>"),
        "{info}"
    );
    src.answer(&info, "");
    assert!(
        src.ask("UPDATE", "application/sdp", &offer(3, &[audio("1"), video("inactive")]))
            .contains(" 200 ")
    );
    assert!(asked(&src).is_none(), "it rests");
    assert!(
        src.ask("UPDATE", "application/sdp", &offer(4, &[audio("1"), video("sendonly")]))
            .contains(" 200 ")
    );
    let info = asked(&src).expect("it goes on");
    src.answer(&info, "");
    bye(&mut src);
    bench.over("1");
}

#[test]
fn a_client_that_requires_reliable_provisional_responses_is_recorded() {
    let bench = Bench::new(4);
    let mut src = Src::new(bench.port, "Require: 100rel\r\n");
    let answer = src.invite_with("application/sdp", &sdp(1, "127.0.0.1", &[audio("one")]));
    assert!(!answer.contains("RSeq"), "{answer}");
    bye(&mut src);
}

/// REQ-004, use case 5: pauses at random instants while others are recorded. What was sent before a
/// pause was asked for and after a resume was granted is stored, nothing in between is. `PAUSES` says
/// how many.
#[test]
fn f60_of_many_pauses_under_load_nothing_inside_is_stored_and_nothing_outside_is_lost() {
    let pauses = std::env::var("PAUSES").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let bench = Bench::new(110);
    let to = format!("sip:srs@127.0.0.1:{}", bench.port);
    let mut load = Command::new(binary())
        .args(["src", "call", "--streams=100", "--duration=3600", "--to", &to])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary is built");
    until("the load", LIMIT, || (bench.recordings().len() >= 50).then_some(()));
    let mut src = Src::new(bench.port, "");
    let answer = src.invite_with("application/sdp", &sdp(1, "127.0.0.1", &[audio("part")]));
    let mut media = Media::new(ports(&answer)[0]);
    media.gap = Duration::from_micros(300);
    let (mut stored, mut inside) = (0_u64, 0_u64);
    // Small, odd and never the same twice in a row: instants of no rhythm.
    let mut state = 12_345_u32;
    let mut some = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        3 + (state >> 24) as u16 % 23
    };
    let rests = line("audio", 6_000, "0", "part", "a=inactive\r\n");
    for number in 0..pauses {
        let (out, within) = (some(), some());
        media.send(out);
        stored += u64::from(out);
        again(&mut src, 2 + 2 * number, "127.0.0.1", std::slice::from_ref(&rests));
        media.send(within);
        inside += u64::from(within);
        again(&mut src, 3 + 2 * number, "127.0.0.1", &[audio("part")]);
    }
    media.send(1);
    stored += 1;
    bye(&mut src);
    let _ = load.kill();
    let _ = load.wait();
    let over = bench.over("part");
    let source = &over["streams"][0]["sources"][0];
    assert_eq!(source["packets"], stored, "{source}");
    assert_eq!(source["lost"], serde_json::json!({ "paused": inside }), "{source}");
    assert_eq!(over["streams"][0]["pauses"].as_array().map(Vec::len), Some(pauses as usize));
    println!("{pauses} pauses: {stored} packets stored, {inside} sent inside and not stored");
}
