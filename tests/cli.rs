//! The command line from outside: exit codes, JSON, and what the built-in SRC puts on the wire,
//! against a scripted recorder of thirty lines.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use floortape::base::prng::Prng;
use floortape::wire::sip::{Echo, Message, parse_datagram, print_response};

fn floortape(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_floortape")).args(words).output().expect("the binary runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed by a signal")
}

fn talk(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Takes calls on loopback, answers INVITE with `code`, and gives every packet that came to the port
/// of its answer (one port for all lines: the test tells them apart by SSRC).
struct Recorder {
    uri: String,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Recorder {
    fn start(code: u16) -> Self {
        let sip = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let uri = format!("sip:test@{}", sip.local_addr().expect("bound"));
        let thread = thread::spawn(move || record(&sip, code));
        Recorder { uri, thread }
    }

    fn packets(self) -> Vec<Vec<u8>> {
        self.thread.join().expect("the recorder does not panic")
    }
}

fn record(sip: &UdpSocket, code: u16) -> Vec<Vec<u8>> {
    let media = UdpSocket::bind("127.0.0.1:0").expect("a port");
    media.set_read_timeout(Some(Duration::from_millis(1))).expect("a time");
    sip.set_read_timeout(Some(Duration::from_millis(1))).expect("a time");
    let port = media.local_addr().expect("bound").port();
    let end = Instant::now() + Duration::from_secs(30);
    let (mut packets, mut bytes) = (Vec::new(), vec![0; 65_535]);
    while Instant::now() < end {
        while let Ok(length) = media.recv(&mut bytes) {
            packets.push(bytes[..length].to_vec());
        }
        let Ok((length, from)) = sip.recv_from(&mut bytes) else { continue };
        let request = parse_datagram(&bytes[..length]).expect("our own SIP");
        let method = request.method().expect("a request").to_owned();
        let echo = Echo { request: &request, source: from, to_tag: Some("recorder") };
        let reply = match &*method {
            "ACK" if code >= 300 => return packets,
            "ACK" => continue,
            "INVITE" if code >= 300 => {
                print_response(echo, code, None, &[("Retry-After".into(), "9".into())], b"")
            }
            "INVITE" => print_response(echo, 200, None, &[], answer(&request, port).as_bytes()),
            _ => print_response(echo, 200, None, &[], b""),
        };
        sip.send_to(&reply, from).expect("loopback takes it");
        if method == "BYE" {
            while let Ok(length) = media.recv(&mut bytes) {
                packets.push(bytes[..length].to_vec());
            }
            return packets;
        }
    }
    panic!("no BYE within 30 s");
}

fn answer(invite: &Message, port: u16) -> String {
    let offer = String::from_utf8_lossy(&invite.body);
    let mut sdp =
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n".to_owned();
    for line in offer.lines().filter(|line| line.starts_with("m=")) {
        let mut words = line.split(' ').skip(2);
        let (transport, format) = (words.next().expect("transport"), words.next().expect("format"));
        sdp.push_str(&format!("m=audio {port} {transport} {format}\r\na=rtcp:9\r\na=recvonly\r\n"));
    }
    sdp
}

#[test]
fn wrong_words_are_usage_and_help_is_not() {
    assert_eq!(code(&floortape(&["no-such-verb"])), 2);
    assert_eq!(code(&floortape(&["src", "call"])), 2);
    assert_eq!(code(&floortape(&["src", "call", "--to", "tel:110"])), 2);
    assert_eq!(code(&floortape(&["src", "call", "--to", "sip:a@127.0.0.1", "--suite", "F8"])), 2);
    let help = floortape(&["--help"]);
    assert_eq!(code(&help), 0);
    assert!(help.stderr.is_empty() && !help.stdout.is_empty());
}

#[test]
fn nobody_there_is_69_over_udp_and_over_tcp() {
    // Bound and dropped: nobody else is likely to take the port at once.
    let port = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    for transport in ["udp", "tcp"] {
        let uri = format!("sip:a@127.0.0.1:{port};transport={transport}");
        let output = floortape(&["src", "call", "--to", &uri, "--duration", "1"]);
        assert_eq!(code(&output), 69, "{}", talk(&output));
    }
}

#[test]
fn refusals_become_exit_codes() {
    for (status, expected) in [(503, 75), (403, 4), (421, 4), (488, 4)] {
        let recorder = Recorder::start(status);
        let output = floortape(&["src", "call", "--to", &recorder.uri, "--duration", "1"]);
        assert_eq!(code(&output), expected, "{}", talk(&output));
        assert!(talk(&output).contains(&status.to_string()));
        assert!(recorder.packets().is_empty(), "media before an answer");
    }
}

#[test]
fn numbered_packets_come_as_the_seed_says_and_dropped_ones_count_as_sent() {
    let recorder = Recorder::start(200);
    let words = ["--srtp", "none", "--numbered", "--seed", "77", "--duration", "1.2", "--json"];
    let to = ["src", "call", "--to", &recorder.uri, "--drop", "20:7"];
    let output = floortape(&[&to[..], &words[..]].concat());
    assert_eq!(code(&output), 0, "{}", talk(&output));
    let last = String::from_utf8_lossy(&output.stdout).lines().last().expect("a line").to_owned();
    let report: serde_json::Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!((report["sent"].as_u64(), report["seed"].as_u64()), (Some(120), Some(77)));

    let mut by_ssrc: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
    for packet in recorder.packets() {
        let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
        by_ssrc.entry(ssrc.into()).or_default().push(packet);
    }
    let streams = report["streams"].as_array().expect("streams");
    assert_eq!((streams.len(), by_ssrc.len()), (2, 2));
    for stream in streams {
        let ssrc = stream["ssrc"].as_u64().expect("ssrc");
        assert_eq!((stream["sent"].as_u64(), stream["left_out"].as_u64()), (Some(60), Some(7)));
        let first_seq = stream["first_seq"].as_u64().expect("seq");
        let numbers: Vec<u64> = (0..60).filter(|number| !(20..27).contains(number)).collect();
        assert_eq!(by_ssrc[&ssrc].len(), numbers.len());
        for (packet, number) in by_ssrc[&ssrc].iter().zip(numbers) {
            assert_eq!(u64::from(u16::from_be_bytes([packet[2], packet[3]])), first_seq + number);
            // The layout that --help states, made here once more.
            let mut payload = number.to_be_bytes().to_vec();
            let mut words = Prng::new(77 ^ ssrc ^ number);
            payload.extend((0..19).flat_map(|_| words.next_u64().to_le_bytes()));
            assert_eq!(packet[12..], payload);
        }
    }
}

#[test]
fn demo_finds_its_own_loss_and_leaves_a_recording_that_verifies() {
    let folder = std::env::temp_dir().join(format!("floortape-cli-{}", std::process::id()));
    let keep = folder.display().to_string();
    let begun = Instant::now();
    let output = floortape(&["demo", "--keep", &keep]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{shown}{}", talk(&output));
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(!shown.contains('\x1b'), "colours on a pipe");
    for name in ["1.wav", "2.wav", "mixed.wav", "recording.json", "manifest.json"] {
        assert!(folder.join("recording").join(name).is_file(), "{name} is missing");
    }
    // The same folder is not written over.
    assert_eq!(code(&floortape(&["demo", "--keep", &keep])), 2);
    std::fs::remove_dir_all(&folder).expect("ours to remove");
}
