//! The torture messages of RFC 4475 and RFC 5118 against the real server, over UDP and TCP: each is
//! judged as its section says. The messages are our own, written after the sections' descriptions; a
//! file of `tests/corpus/torture` is named for its section.
//!
//! Most of them ask for something that a recorder does not do. What shows that such a message was
//! read is the answer of RFC 3261 §8.2 behind the parser: 421 for an INVITE that is no RS, 405 for a
//! REGISTER or MESSAGE, 481 for a tag that nobody gave, 200 for OPTIONS.

#[expect(dead_code, reason = "shared with tests that also kill and signal")]
mod server;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use floortape::wire::sip::{Frame, Message, StreamFramer, Via, parse_datagram};
use server::{Server, command, free_port, fresh_folder};

/// What comes over TCP where that is not what comes over UDP.
enum Tcp {
    /// The same, and the connection goes on.
    Same,
    /// These answers, and the connection goes on.
    Answers(&'static [u16]),
    /// The same, then the end of the connection: the border of the next message is lost.
    Closed,
    /// Nothing, because the rest of the message is waited for.
    Waits,
}

use Tcp::{Answers, Closed, Same, Waits};

/// File, what the section says, answers over UDP, and over TCP.
const TABLE: &[(&str, &str, &[u16], Tcp)] = &[
    ("4475-3.1.1.1", "short tortuous INVITE: valid; its To has a tag", &[481], Same),
    ("4475-3.1.1.2", "wide range of characters: valid, unknown method", &[501], Same),
    ("4475-3.1.1.3", "% escapes: valid", &[421], Same),
    ("4475-3.1.1.4", "escaped nulls: valid", &[405], Same),
    ("4475-3.1.1.5", "% in a method is no escape", &[501], Same),
    ("4475-3.1.1.6", "no blank before <: valid", &[200], Same),
    ("4475-3.1.1.7", "long values: valid", &[421], Same),
    // The datagram ends with its first message, a stream goes on with the second.
    ("4475-3.1.1.8", "octets behind the message are dropped", &[405], Answers(&[405, 421])),
    ("4475-3.1.1.9", "semicolons in the user part: valid", &[200], Same),
    ("4475-3.1.1.10", "unknown transports in Via: valid", &[200], Same),
    ("4475-3.1.1.11", "binary multipart: valid", &[405], Same),
    ("4475-3.1.1.12", "odd reason phrase: a valid response, of nobody's request", &[], Same),
    ("4475-3.1.1.13", "empty reason phrase: a valid response", &[], Same),
    ("4475-3.1.2.1", "stray separators in Via: 400", &[400], Same),
    ("4475-3.1.2.2", "body shorter than Content-Length: 400", &[400], Waits),
    ("4475-3.1.2.3", "negative Content-Length: an error", &[400], Closed),
    ("4475-3.1.2.4", "CSeq above 2^31: 400", &[400], Same),
    ("4475-3.1.2.5", "response with numbers too large: dropped", &[], Same),
    ("4475-3.1.2.6", "unterminated quote: 400", &[400], Same),
    ("4475-3.1.2.7", "<> around the Request-URI: 400", &[400], Same),
    ("4475-3.1.2.8", "blank in the Request-URI: 400", &[400], Same),
    ("4475-3.1.2.9", "two blanks in the Request-Line: 400 or taken", &[421], Same),
    ("4475-3.1.2.10", "blanks behind the Request-Line: 400 or taken", &[200], Same),
    ("4475-3.1.2.11", "headers in the Request-URI: 400 or ignored", &[421], Same),
    ("4475-3.1.2.12", "Date of another zone: 400 or ignored", &[421], Same),
    // RFC 3261 §8.2.1: the method is judged first.
    ("4475-3.1.2.13", "headers in a Contact without <>: 400", &[405], Same),
    ("own-3.1.2.13-to", "the same in To", &[400], Same),
    ("4475-3.1.2.14", "blanks around an addr-spec: 400 or taken", &[200], Same),
    ("4475-3.1.2.15", "unquoted comma in a display name: 400 or taken", &[200], Same),
    ("4475-3.1.2.16", "SIP/7.0: 505", &[505], Same),
    ("own-3.1.2.16-via", "SIP/7.0 with a Via of ours: 505", &[505], Same),
    ("4475-3.1.2.17", "CSeq of another method: 400", &[400], Same),
    ("4475-3.1.2.18", "the same with an unknown method: 501", &[501], Same),
    ("4475-3.1.2.19", "status code of ten digits: dropped", &[], Same),
    ("4475-3.2.1", "cookie without a branch: 400, or matched as RFC 2543 did", &[200], Same),
    ("4475-3.3.1", "mandatory fields missing: 400", &[400], Same),
    ("4475-3.3.2", "unknown scheme: 416", &[416], Same),
    ("4475-3.3.3", "known scheme that is not SIP: 416", &[416], Same),
    // A registrar says 400; we are none.
    ("4475-3.3.4", "other schemes in From, To, Contact: valid", &[405], Same),
    ("4475-3.3.5", "unknown Require: 420; Proxy-Require is not ours", &[420], Same),
    ("4475-3.3.6", "unknown body of an INVITE: 415", &[415], Same),
    ("4475-3.3.7", "unknown Authorization: valid", &[405], Same),
    ("4475-3.3.8", "single fields twice: 400", &[400], Same),
    ("4475-3.3.9", "two Content-Lengths: 400", &[400], Closed),
    ("4475-3.3.10", "response with a broadcast Via: dropped", &[], Same),
    ("4475-3.3.11", "Max-Forwards 0: an endpoint takes it", &[200], Same),
    ("4475-3.3.12", "Contact parameter: valid", &[405], Same),
    ("4475-3.3.13", "Contact URI parameter: valid", &[405], Same),
    ("4475-3.3.14", "Contact URI with a header: valid", &[405], Same),
    ("4475-3.3.15", "Accept without SDP: 406", &[406], Same),
    // Without Content-Length a stream has no borders (RFC 3261 §18.3).
    ("4475-3.4.1", "INVITE of RFC 2543: taken", &[421], Tcp::Closed),
    ("5118-4.1", "IPv6 reference: valid", &[405], Same),
    ("5118-4.2", "IPv6 address without brackets: 400", &[400], Same),
    ("5118-4.3", "all in the brackets is the address: valid", &[405], Same),
    ("5118-4.4", "port behind the brackets: valid", &[405], Same),
    ("5118-4.5-brackets", "received in brackets: must be taken", &[481], Same),
    ("5118-4.5-bare", "received without brackets: must be taken", &[200], Same),
    ("5118-4.6", "IPv6 in SDP: valid", &[421], Same),
    ("5118-4.7", "IPv4 and IPv6 in Via: valid", &[481], Same),
    ("5118-4.8", "IPv4 and IPv6 in SDP: valid", &[421], Same),
    ("5118-4.9", "IPv4-mapped IPv6: valid", &[421], Same),
    ("5118-4.10-three", "three colons before an IPv4 address: must be taken", &[200], Same),
    ("5118-4.10-two", "two colons: valid", &[200], Same),
    ("own-tortuous-rs", "a tortuous INVITE that is an RS: it is recorded", &[200], Same),
];

/// The field that an answer must have, by its code.
const FIELDS: &[(u16, &str)] = &[
    (405, "Allow"),
    (501, "Allow"),
    (415, "Accept"),
    (420, "Unsupported"),
    (421, "Require"),
    (200, "Contact"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/torture")
}

fn bytes(name: &str) -> Vec<u8> {
    let path = folder().join(name).with_added_extension("sip");
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The topmost Via, wherever in the head it stands; sections that have none that can be read are
/// answered to the default port.
fn sent_by(bytes: &[u8]) -> u16 {
    let head = match parse_datagram(bytes) {
        Ok(message) => Some(message),
        Err(error) => error.head.map(|head| *head),
    };
    let line = head.and_then(|head| head.headers.list("Via").next().map(str::to_owned));
    line.and_then(|line| Via::parse(&line)).and_then(|via| via.port).unwrap_or(5_060)
}

fn probe(number: usize, transport: &str) -> String {
    format!(
        "OPTIONS sip:srs@torture.example SIP/2.0\r\n\
         Via: SIP/2.0/{transport} probe.torture.example;branch=z9hG4bKprobe{number};rport\r\n\
         From: <sip:probe@torture.example>;tag=p\r\nTo: <sip:srs@torture.example>\r\n\
         Call-ID: probe-{number}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
}

/// Codes of the final answers, without what is only repeated; each must be whole.
fn judge(name: &str, answers: &[Message]) -> Vec<u16> {
    let mut seen = BTreeSet::new();
    let mut codes = Vec::new();
    for answer in answers {
        let code = answer.code().unwrap_or_else(|| panic!("{name}: {answer:?}"));
        let call = answer.call_id().unwrap_or_default().to_owned();
        if code == 100 || !seen.insert((call, code)) {
            continue;
        }
        for (_, field) in FIELDS.iter().filter(|(own, _)| *own == code) {
            assert!(answer.headers.get(field).is_some(), "{name}: {code} without {field}");
        }
        if let Some(to) = answer.to() {
            assert!(to.tag().is_some(), "{name}: {code} without a tag in To");
        }
        codes.push(code);
    }
    codes
}

fn started() -> (Server, SocketAddr) {
    let (folder, port) = (fresh_folder(), free_port());
    (Server::start(command(&folder, port), &folder).ready(), ([127, 0, 0, 1], port).into())
}

#[test]
fn every_message_stands_in_the_table_once() {
    let listed: BTreeSet<String> = TABLE.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let files = fs::read_dir(folder()).expect("the corpus is there");
    let files: BTreeSet<String> = files
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .map(|name| name.trim_end_matches(".sip").to_owned())
        .collect();
    assert_eq!(listed, files);
    assert_eq!(listed.len(), TABLE.len());
    // 13 + 19 + 1 + 15 + 1 sections of RFC 4475 §3, 10 of RFC 5118 §4, two of which are pairs.
    let of = |rfc: &str| listed.iter().filter(|name| name.starts_with(rfc)).count();
    assert_eq!((of("4475-"), of("5118-")), (49, 12));
}

#[test]
fn each_is_judged_as_its_section_says_over_udp() {
    let (server, address) = started();
    for (number, (name, says, wanted, _)) in TABLE.iter().enumerate() {
        let bytes = bytes(name);
        // An address of its own: nothing of the message before comes here.
        let own = Ipv4Addr::new(127, 0, 10, number as u8 + 1);
        let socket = UdpSocket::bind((own, sent_by(&bytes))).expect("a port of our own");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("settable");
        socket.send_to(&bytes, address).expect("sent");
        let mut answers = Vec::new();
        let mut probed = false;
        let mut buffer = vec![0; 65_536];
        loop {
            // All that we expect came, so ask for more: what else there is comes first.
            if !probed && judge(name, &answers).len() >= wanted.len() {
                probed = true;
                socket.send_to(probe(number, "UDP").as_bytes(), address).expect("sent");
            }
            let length = socket.recv(&mut buffer);
            let length = length.unwrap_or_else(|error| panic!("{name} ({says}): {error}"));
            let answer = parse_datagram(&buffer[..length]).expect("an answer of ours");
            if answer.call_id() == Some(&*format!("probe-{number}")) {
                assert_eq!(answer.code(), Some(200), "{name}: the server goes on");
                break;
            }
            answers.push(answer);
        }
        assert_eq!(judge(name, &answers), *wanted, "{name}: {says}");
    }
    assert!(!server.told("panic"), "{:?}", server.lines());
}

#[test]
fn each_is_judged_as_its_section_says_over_tcp() {
    let (server, address) = started();
    for (number, (name, says, udp, tcp)) in TABLE.iter().enumerate() {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        let waits = matches!(tcp, Waits);
        let patience = Duration::from_millis(if waits { 300 } else { 5_000 });
        stream.set_read_timeout(Some(patience)).expect("settable");
        stream.write_all(&bytes(name)).expect("sent");
        // Where the connection is closed this may come too late.
        let sent = stream.write_all(probe(number, "TCP").as_bytes());
        assert!(sent.is_ok() || matches!(tcp, Closed), "{name}: {sent:?}");
        let wanted: &[u16] = match tcp {
            Answers(wanted) => wanted,
            Waits => &[],
            // Without a border it is refused before it is looked at.
            Closed if *name == "4475-3.4.1" => &[400][..],
            Same | Closed => udp,
        };
        let (answers, end) = read_until_probe(&mut stream, number, name, wanted.len());
        assert_eq!(judge(name, &answers), wanted, "{name}: {says}");
        let expected = match tcp {
            Same | Answers(_) => End::Probed,
            Closed => End::Closed,
            Waits => End::Silence,
        };
        assert_eq!(end, expected, "{name}: {says}");
    }
    assert!(!server.told("panic"), "{:?}", server.lines());
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Probed,
    Closed,
    Silence,
}

/// Reads until the probe is answered and as many other answers came as are wanted: one that waits for
/// the disk comes behind the probe's.
fn read_until_probe(
    stream: &mut TcpStream,
    number: usize,
    name: &str,
    wanted: usize,
) -> (Vec<Message>, End) {
    let mut probed = false;
    let mut framer = StreamFramer::new(1 << 20);
    let mut answers = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (answers, End::Closed),
            Ok(length) => framer.push(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return (answers, End::Closed);
            }
            Err(_) if probed => return (answers, End::Probed),
            Err(_) => return (answers, End::Silence),
        }
        while let Some(frame) = framer.pull() {
            let Frame::Message(answer) = frame else { panic!("{frame:?}") };
            if answer.call_id() == Some(&*format!("probe-{number}")) {
                assert_eq!(answer.code(), Some(200), "the connection is of use");
                probed = true;
            } else {
                answers.push(answer);
            }
        }
        if probed && judge(name, &answers).len() >= wanted {
            return (answers, End::Probed);
        }
    }
}
