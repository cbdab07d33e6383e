//! Claims about several addresses: which one a line gets, what answers carry, what becomes of a line
//! that moves to another family, or to keys that cannot be taken.

use std::net::SocketAddr;

use super::tests::{Bench, request};
use super::{Input, Outcome};
use crate::base::ids::Slot;
use crate::config::address::{Host, Listed};
use crate::config::model::{Config, Peer, PeerMatch};
use crate::plane::handoff::frame::{Envelope, Frame};
use crate::store::journal::Standings;
use crate::store::journal::entry::Entry;
use crate::wire::sip::Message;

const FOUR: &str = "192.0.2.20";
const OTHER: &str = "192.0.2.21";
const SIX: &str = "2001:db8::20";

fn config(addresses: &[&str]) -> Config {
    let mut config = Config::default();
    config.media.streams_max = 4;
    let all = addresses.iter().map(|ip| ip.parse().expect("an address"));
    config.media.address = Listed(all.collect());
    config
}

/// Four pairs on each address, the ports of each a hundred above those before.
fn bench(config: Config, seed: u64) -> Bench {
    let mut slots = Vec::new();
    for (place, ip) in config.media.address.0.iter().enumerate() {
        for number in 0..4 {
            let port = 20_000 + 100 * place as u16 + 2 * number;
            slots.push((Slot(slots.len() as u32), SocketAddr::new(*ip, port)));
        }
    }
    Bench::of(config, slots, seed)
}

fn up(config: Config) -> Bench {
    let mut bench = bench(config, 1);
    bench.input(Input::MediaUp);
    bench.media_agrees();
    bench.media.clear();
    bench
}

/// An SDP with a line for each label, sent from that address.
fn sdp(version: u32, lines: &[(&str, &str)]) -> String {
    let lines = lines.iter().map(|(label, ip)| {
        let family = if ip.contains(':') { "IP6" } else { "IP4" };
        format!("m=audio 4000 RTP/AVP 0\r\nc=IN {family} {ip}\r\na=sendonly\r\na=label:{label}\r\n")
    });
    let lines: String = lines.collect();
    format!("v=0\r\no=src 1 {version} IN IP4 192.0.2.10\r\ns=-\r\nt=0 0\r\n{lines}")
}

fn body(message: &Message) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

/// `o=`, `c=` and `m=` of the last answer.
fn placed(bench: &Bench) -> Vec<String> {
    let text = body(bench.last_200());
    let kinds = ["o=", "c=", "m="];
    let lines = text.lines().filter(|line| kinds.iter().any(|kind| line.starts_with(kind)));
    lines.map(str::to_owned).collect()
}

fn agree(bench: &mut Bench) {
    bench.media_agrees();
    bench.journal_syncs();
}

#[test]
fn each_line_gets_an_address_of_its_family_and_the_one_that_signalling_came_in_on() {
    let mut bench = up(config(&[FOUR, OTHER, SIX]));
    let offer = sdp(1, &[("one", "192.0.2.10"), ("two", "2001:db8::10")]);
    bench.datagram_at("192.0.2.21:5060", &request("INVITE", "a", 1, "", &offer));
    agree(&mut bench);
    let lines = placed(&bench);
    assert!(lines[0].ends_with("IN IP4 192.0.2.21"), "{lines:?}");
    let rest = [
        "c=IN IP4 192.0.2.21",
        "m=audio 20100 RTP/AVP 0",
        "m=audio 20200 RTP/AVP 0",
        "c=IN IP6 2001:db8::20",
    ];
    assert_eq!(lines[1..], rest);
    // By an address of which we have no media: the first.
    let offer = sdp(1, &[("three", "192.0.2.10")]);
    bench.datagram_at("198.51.100.1:5060", &request("INVITE", "b", 1, "", &offer));
    agree(&mut bench);
    assert_eq!(placed(&bench)[1..], ["c=IN IP4 192.0.2.20", "m=audio 20000 RTP/AVP 0"]);
    // Held, so that its family is not known: that of its signalling.
    let offer = sdp(1, &[("four", "0.0.0.0")]);
    bench.datagram_at("[2001:db8::20]:5060", &request("INVITE", "c", 1, "", &offer));
    agree(&mut bench);
    assert_eq!(placed(&bench)[1..], ["c=IN IP6 2001:db8::20", "m=audio 20202 RTP/AVP 0"]);
    // streams_max bounds all together.
    let offer = sdp(1, &[("five", "192.0.2.10")]);
    bench.datagram(&request("INVITE", "d", 1, "", &offer));
    assert_eq!(bench.codes().last(), Some(&503));
}

#[test]
fn a_line_without_an_address_for_it_gets_port_0_and_a_call_of_such_lines_488() {
    let mut bench = up(config(&[FOUR]));
    let offer = sdp(1, &[("one", "2001:db8::10"), ("two", "192.0.2.10")]);
    bench.datagram(&request("INVITE", "a", 1, "", &offer));
    agree(&mut bench);
    let lines = placed(&bench);
    assert_eq!(
        lines[1..],
        ["c=IN IP4 192.0.2.20", "m=audio 0 RTP/AVP 0", "m=audio 20000 RTP/AVP 0"]
    );
    let quirks = bench.journal.iter().find_map(|entry| match entry {
        Entry::Opened { quirks, .. } => Some(quirks.join("\n")),
        _ => None,
    });
    let quirks = quirks.expect("it was opened");
    assert!(quirks.contains("m-line 1 is not recorded: it sends over IPv6"), "{quirks}");
    bench.datagram(&request("INVITE", "b", 1, "", &sdp(1, &[("one", "2001:db8::10")])));
    let refusal = bench.last();
    assert_eq!(refusal.code(), Some(488));
    let warning = refusal.headers.get("Warning").unwrap_or("");
    assert!(warning.starts_with("301 ") && warning.contains("no IPv6 address"), "{warning}");
}

#[test]
fn a_line_that_moves_to_the_other_family_gets_a_pair_there_and_the_old_one_a_moment_more() {
    let mut bench = up(config(&[FOUR, SIX]));
    bench.datagram(&request("INVITE", "a", 1, "", &sdp(1, &[("one", "192.0.2.10")])));
    agree(&mut bench);
    let before = placed(&bench);
    let tag = bench.tag();
    bench.datagram(&request("ACK", "a", 1, &tag, ""));
    bench.datagram(&request("INVITE", "a", 2, &tag, &sdp(2, &[("one", "2001:db8::10")])));
    let opens = |asked: &Envelope| matches!(asked.frame, Frame::Open(_));
    assert!(bench.media.len() == 1 && bench.media.iter().all(opens), "nothing is closed yet");
    agree(&mut bench);
    let after = placed(&bench);
    let origin = |lines: &[String]| lines[0].rsplit(' ').next().map(str::to_owned);
    assert_eq!(origin(&after), origin(&before), "RFC 3264 section 8");
    assert_eq!(after[1..], ["c=IN IP6 2001:db8::20", "m=audio 20100 RTP/AVP 0"]);
    bench.datagram(&request("ACK", "a", 2, &tag, ""));
    assert_eq!(bench.control.slots.used(), 2, "what is under way is still taken");
    bench.tick(400);
    agree(&mut bench);
    assert_eq!(bench.control.slots.used(), 1);
    // Held the old way it stays where it is.
    bench.datagram(&request("INVITE", "a", 3, &tag, &sdp(3, &[("one", "0.0.0.0")])));
    agree(&mut bench);
    assert_eq!(placed(&bench)[1..], ["c=IN IP6 2001:db8::20", "m=audio 20100 RTP/AVP 0"]);
}

#[test]
fn a_line_that_moves_to_where_we_have_no_address_is_refused_and_goes_on_as_it_was() {
    let mut bench = up(config(&[FOUR]));
    bench.datagram(&request("INVITE", "a", 1, "", &sdp(1, &[("one", "192.0.2.10")])));
    agree(&mut bench);
    let tag = bench.tag();
    bench.datagram(&request("ACK", "a", 1, &tag, ""));
    bench.datagram(&request("INVITE", "a", 2, &tag, &sdp(2, &[("one", "2001:db8::10")])));
    assert_eq!(bench.codes().last(), Some(&488));
    assert_eq!((bench.control.live(), bench.control.slots.used()), (1, 1));
    let more = sdp(2, &[("one", "192.0.2.10"), ("two", "2001:db8::10")]);
    bench.datagram(&request("INVITE", "a", 3, &tag, &more));
    agree(&mut bench);
    let lines = placed(&bench);
    assert_eq!(lines[2..], ["m=audio 20000 RTP/AVP 0", "m=audio 0 RTP/AVP 0"]);
    let quirks = bench.journal.iter().rev().find_map(|entry| match entry {
        Entry::Changed { quirks, .. } => Some(quirks.join("\n")),
        _ => None,
    });
    assert!(quirks.is_some_and(|quirks| quirks.contains("m-line 2 is not recorded: it sends")));
}

#[test]
fn a_line_whose_new_keys_cannot_be_taken_goes_on_as_it_was() {
    let mut bench = up(config(&[FOUR]));
    let offer = |version: u32, transport: &str, attribute: &str| {
        format!(
            "v=0\r\no=src 1 {version} IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
             m=audio 4000 {transport} 0\r\n{attribute}a=sendonly\r\na=label:one\r\n"
        )
    };
    let key = "inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
    let crypto = format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 {key}\r\n");
    bench.datagram(&request("INVITE", "a", 1, "", &offer(1, "RTP/SAVP", &crypto)));
    agree(&mut bench);
    let tag = bench.tag();
    bench.datagram(&request("ACK", "a", 1, &tag, ""));
    let unknown = "a=crypto:1 ARIA_128_CTR_HMAC_SHA1_80 inline:AAAA\r\n";
    for (number, transport, attribute) in [
        (2, "RTP/SAVP", unknown),
        (3, "RTP/SAVP", ""),
        (4, "UDP/TLS/RTP/SAVP", "a=fingerprint:sha-256 AB\r\n"),
    ] {
        bench.datagram(&request("INVITE", "a", number, &tag, &offer(number, transport, attribute)));
        assert_eq!(bench.codes().last(), Some(&488), "{transport} {attribute}");
        assert_eq!((bench.control.live(), bench.control.slots.used()), (1, 1));
        bench.datagram(&request("ACK", "a", number, &tag, ""));
    }
    // What is taken away ends.
    let gone = offer(5, "RTP/SAVP", &crypto).replace("m=audio 4000", "m=audio 0");
    bench.datagram(&request("INVITE", "a", 5, &tag, &gone));
    agree(&mut bench);
    assert_eq!(bench.codes().last(), Some(&200));
}

#[test]
fn answers_and_contact_carry_what_is_reached_from_outside() {
    let mut config = config(&["0.0.0.0", SIX]);
    config.media.advertise = Some(Listed(vec!["203.0.113.5".parse().expect("an address")]));
    let host = |text: &str| Host::try_from(text.to_owned()).expect("a host");
    config.sip.advertise = Some(Listed(vec![host("203.0.113.5"), host("six.example:5070")]));
    config.peers.push(Peer {
        name: "desk".to_owned(),
        matches: PeerMatch::Name("desk.example".to_owned()),
        digest: None,
        digest_md5: false,
        nat: false,
        strict: None,
        srtp: None,
        suites: None,
        unencrypted: None,
        secure_signalling: None,
        call: Some("sip:src@192.0.2.10".to_owned()),
    });
    let mut bench = up(config);
    let offer = sdp(1, &[("one", "192.0.2.10"), ("two", "2001:db8::10")]);
    bench.datagram_at("10.0.0.5:5060", &request("INVITE", "a", 1, "", &offer));
    agree(&mut bench);
    let contact = |message: &Message| message.headers.get("Contact").unwrap_or("").to_owned();
    assert_eq!(contact(bench.last_200()), "<sip:floortape@203.0.113.5:5060>;+sip.srs");
    let lines = placed(&bench);
    assert!(lines[0].ends_with("IN IP4 203.0.113.5"), "{lines:?}");
    assert_eq!((&*lines[1], &*lines[4]), ("c=IN IP4 203.0.113.5", "c=IN IP6 2001:db8::20"));
    bench.datagram_at("[2001:db8::20]:5062", &request("OPTIONS", "b", 1, "", ""));
    assert_eq!(contact(bench.last()), "<sip:floortape@six.example:5070>;+sip.srs");
    // Our own requests: Via and From as well.
    let peer = "192.0.2.10:5060".parse().expect("an address");
    let transport = crate::proto::sip::Transport::Udp;
    bench.control.call(7, "sip:src@192.0.2.10", peer, transport);
    bench.tick(0);
    let invite = bench.last();
    assert_eq!(invite.method(), Some("INVITE"));
    let via = invite.headers.get("Via").unwrap_or("");
    assert!(via.starts_with("SIP/2.0/UDP 203.0.113.5:5060;branch="), "{via}");
    assert!(via.ends_with(";rport"), "{via}");
    assert!(invite.headers.get("From").is_some_and(|from| from.contains("@203.0.113.5:5060>")));
    assert_eq!(contact(invite), "<sip:floortape@203.0.113.5:5060>;+sip.srs");
    assert!(!bench.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_))));
}

/// The journal names the address; one that does not is of a version with one address, which its answer
/// carried.
#[test]
fn a_restart_finds_the_pairs_of_each_address_again() {
    for old in [false, true] {
        let mut before = up(config(&[FOUR, OTHER, SIX]));
        let offer = sdp(1, &[("one", "192.0.2.10")]);
        before.datagram_at("192.0.2.21:5060", &request("INVITE", "a", 1, "", &offer));
        agree(&mut before);
        let offer = sdp(1, &[("two", if old { "192.0.2.10" } else { "2001:db8::10" })]);
        before.datagram_at("192.0.2.21:5060", &request("INVITE", "b", 1, "", &offer));
        agree(&mut before);
        let mut entries = before.journal.clone();
        for entry in &mut entries {
            let Entry::Opened { streams, .. } = entry else { continue };
            streams.iter_mut().filter(|_| old).for_each(|stream| stream.address = None);
        }
        let mut after = bench(config(&[FOUR, OTHER, SIX]), 2);
        after.control.recover(after.clock(), &Standings::of(&entries));
        let mut ports: Vec<(u16, Option<String>)> = Vec::new();
        for session in after.control.sessions.values() {
            for stream in &session.streams {
                let at = after.control.slots.port(stream.description.slot).expect("claimed");
                assert_eq!(stream.address, Some(at.ip()));
                assert_eq!(stream.description.port, at.port());
                ports.push((at.port(), Some(at.ip().to_string())));
            }
        }
        ports.sort();
        let second = if old { (20_102, OTHER) } else { (20_200, SIX) };
        let expected = [(20_100, OTHER), second];
        assert_eq!(ports, expected.map(|(port, ip)| (port, Some(ip.to_owned()))), "{old}");
    }
}
