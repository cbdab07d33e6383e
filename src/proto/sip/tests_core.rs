//! RFC 3261 at its edges: routes of both kinds, forks, large requests, slow and greedy peers.

use super::tests::{Bench, address, at, established, messages, request, sent, txn};
use super::*;
use crate::base::limits::SIP_CONNECTIONS_MAX;
use crate::wire::sip::Message;

fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Where the messages of `outputs` went.
fn targets(outputs: &[Output]) -> Vec<Target> {
    let target = |output: &Output| match output {
        Output::Transmit { target, .. } => Some(*target),
        _ => None,
    };
    outputs.iter().filter_map(target).collect()
}

/// A dialog whose INVITE came by way of `routes`, and our INFO in it.
fn info_by(routes: &str) -> (Message, Target) {
    let mut bench = Bench::new();
    let more = format!("Record-Route: {routes}\r\n");
    let outputs = bench.udp(&request("INVITE", 1, "inv", "", &more));
    let (dialog, outputs) = bench.respond(txn(&outputs), Reply::new(200));
    let answer = messages(&outputs).remove(0);
    assert_eq!(answer.headers.get("Record-Route"), Some(routes), "echoed as it came");
    bench.endpoint.request(at(0), dialog.expect("a dialog"), "INFO", &[], &[]).expect("sent");
    let outputs = bench.drain();
    (messages(&outputs).remove(0), targets(&outputs)[0])
}

#[test]
fn our_requests_follow_loose_and_strict_routers() {
    let routes =
        |message: &Message| message.headers.list("Route").map(str::to_owned).collect::<Vec<_>>();
    let (info, target) = info_by("<sip:192.0.2.30:5070;lr>, <sip:192.0.2.31;lr>");
    assert_eq!(info.uri(), Some("sip:src@192.0.2.10:5062"));
    assert_eq!(routes(&info), ["<sip:192.0.2.30:5070;lr>", "<sip:192.0.2.31;lr>"]);
    assert_eq!(target.peer(), address("192.0.2.30:5070"));
    // RFC 3261 §12.2.1.1: a strict router is the Request-URI, our target the end of the route.
    let (info, target) = info_by("<sip:192.0.2.30:5070>, <sip:192.0.2.31;lr>");
    assert_eq!(info.uri(), Some("sip:192.0.2.30:5070"));
    assert_eq!(routes(&info), ["<sip:192.0.2.31;lr>", "<sip:src@192.0.2.10:5062>"]);
    assert_eq!(target.peer(), address("192.0.2.30:5070"));
}

#[test]
fn requests_by_loose_and_strict_routers_find_their_dialog() {
    let (mut bench, dialog, tag) = established();
    // A strict router before us leaves its own address as Request-URI and ours in Route.
    let strict = request("INFO", 2, "s", &tag, "Route: <sip:rec@192.0.2.20>\r\n")
        .replace("INFO sip:rec@192.0.2.20", "INFO sip:192.0.2.31");
    let loose = request("INFO", 3, "l", &tag, "Route: <sip:192.0.2.20;lr>\r\n");
    for text in [strict, loose] {
        let outputs = bench.udp(&text);
        let Some(Output::Request(found)) = outputs.last() else { panic!("{outputs:?}") };
        assert_eq!(found.dialog, Some(dialog));
    }
}

#[test]
fn max_forwards_is_for_proxies() {
    let mut bench = Bench::new();
    for (number, value) in ["0", "300", "x", "-1"].into_iter().enumerate() {
        let text = request("OPTIONS", 1 + number as u32, value, "", "")
            .replace("Max-Forwards: 70", &format!("Max-Forwards: {value}"));
        assert!(matches!(bench.udp(&text)[..], [Output::Request(_)]), "{value}");
    }
}

#[test]
fn a_merged_request_of_any_method_gets_482_while_the_first_is_open() {
    let mut bench = Bench::new();
    let first = txn(&bench.udp(&request("OPTIONS", 1, "way1", "", "")));
    assert_eq!(sent(&bench.udp(&request("OPTIONS", 1, "way2", "", ""))), ["482"]);
    // A retransmission is none.
    assert!(bench.udp(&request("OPTIONS", 1, "way1", "", "")).is_empty());
    bench.respond(first, Reply::new(200));
    assert_eq!(sent(&bench.udp(&request("OPTIONS", 1, "way1", "", ""))), ["200"]);
    // Timer J is over.
    bench.pass(33_000);
    assert!(matches!(bench.udp(&request("OPTIONS", 1, "way2", "", ""))[..], [Output::Request(_)]));
}

#[test]
fn an_accepted_invite_absorbs_its_repetitions_until_timer_l() {
    // RFC 6026 §7.1.
    let (mut bench, _, tag) = established();
    for _ in 0..3 {
        assert!(bench.udp(&request("INVITE", 1, "inv", "", "")).is_empty());
        assert!(bench.udp(&request("ACK", 1, "ack", &tag, "")).is_empty());
    }
    bench.pass(31_999);
    assert!(bench.udp(&request("INVITE", 1, "inv", "", "")).is_empty());
    bench.pass(1);
    assert_eq!(bench.endpoint.transactions(), 0);
    // Later still the dialog knows it.
    assert_eq!(sent(&bench.udp(&request("INVITE", 1, "inv", "", ""))), ["482"]);
}

#[test]
fn a_branch_that_is_only_the_cookie_joins_no_two_requests() {
    let mut bench = Bench::new();
    for cseq in [1, 2] {
        let outputs = bench.udp(&request("OPTIONS", cseq, "", "", ""));
        assert!(matches!(outputs[..], [Output::Request(_)]), "{cseq}: {outputs:?}");
    }
    assert!(bench.udp(&request("OPTIONS", 2, "", "", "")).is_empty(), "a retransmission");
}

#[test]
fn a_cancel_meets_its_invite_by_branch_and_nothing_else() {
    let mut bench = Bench::new();
    let first = txn(&bench.udp(&request("INVITE", 1, "a", "", "")));
    // Of another call, of another branch, and of a request that is no INVITE.
    assert_eq!(sent(&bench.udp(&request("CANCEL", 1, "b", "", ""))), ["481"]);
    bench.udp(&request("OPTIONS", 7, "o", "", ""));
    assert_eq!(sent(&bench.udp(&request("CANCEL", 7, "o", "", ""))), ["481"]);
    let outputs = bench.udp(&request("CANCEL", 1, "a", "", ""));
    assert!(matches!(outputs.last(), Some(Output::Cancelled { txn }) if *txn == first));
    bench.respond(first, Reply::new(487));
    // Its repetition is answered as before, and tells nothing new.
    assert_eq!(sent(&bench.udp(&request("CANCEL", 1, "a", "", ""))), ["200"]);
    bench.udp(&request("ACK", 1, "a", "x", ""));
    bench.pass(6_000);
    assert_eq!(sent(&bench.udp(&request("CANCEL", 1, "a", "", ""))), ["481"]);
}

fn large_bench() -> (Bench, DialogId) {
    let (mut bench, dialog, _) = established();
    bench.endpoint.config.streams_for_large = true;
    (bench, dialog)
}

fn large(bench: &mut Bench, dialog: DialogId) -> Vec<Output> {
    let body = vec![b'x'; 1_300];
    let now = at(bench.now_ms);
    let fields = headers(&[("Content-Type", "application/sdp")]);
    bench.endpoint.request(now, dialog, "INVITE", &fields, &body).expect("sent");
    bench.drain()
}

#[test]
fn a_large_request_goes_over_a_stream() {
    let (mut bench, dialog) = large_bench();
    let outputs = large(&mut bench, dialog);
    let peer = address("192.0.2.10:5062");
    assert!(matches!(targets(&outputs)[..], [Target::Dial { peer: to, .. }] if to == peer));
    let invite = messages(&outputs).remove(0);
    assert_eq!(invite.via().expect("Via").transport, "TCP");
    assert!(bench.pass(30_000).is_empty(), "a stream repeats by itself");
    // The next one shares the connection.
    let (mut bench, dialog) = large_bench();
    let (local, conn) = (address("192.0.2.20:5060"), ConnId(4));
    bench.endpoint.handle(at(0), Input::Connected { conn, local, peer, tls: None });
    assert!(matches!(
        targets(&large(&mut bench, dialog))[..],
        [Target::Stream { conn: ConnId(4), .. }]
    ));
    // A small one is a datagram as ever.
    bench.endpoint.request(at(0), dialog, "INFO", &[], &[]).expect("sent");
    assert!(matches!(targets(&bench.drain())[..], [Target::Udp { .. }]));
}

#[test]
fn a_large_request_to_a_peer_without_streams_goes_in_datagrams_after_all() {
    let (mut bench, dialog) = large_bench();
    let before = messages(&large(&mut bench, dialog)).remove(0);
    let peer = address("192.0.2.10:5062");
    bench.endpoint.handle(at(0), Input::Unreachable { peer, secure: false });
    let outputs = bench.drain();
    assert!(matches!(targets(&outputs)[..], [Target::Udp { peer: to, .. }] if to == peer));
    let after = messages(&outputs).remove(0);
    assert_eq!(after.via().expect("Via").transport, "UDP");
    assert_eq!((after.cseq(), &after.body), (before.cseq(), &before.body));
    assert_eq!(bench.pass(600).len(), 1, "timer A runs");
    let refusal = format!(
        "SIP/2.0 488 No\r\nVia: {}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {}\r\nContent-Length: 0\r\n\r\n",
        after.headers.get("Via").expect("Via"),
        after.headers.get("From").expect("From"),
        after.headers.get("To").expect("To"),
        after.call_id().expect("Call-ID"),
        after.headers.get("CSeq").expect("CSeq"),
    );
    let outputs = bench.udp(&refusal);
    assert_eq!(sent(&outputs), ["ACK"]);
    assert_eq!(messages(&outputs)[0].via().expect("Via").transport, "UDP");
    assert!(
        matches!(targets(&large(&mut bench, dialog))[..], [Target::Udp { .. }]),
        "known by now"
    );
}

#[test]
fn a_message_that_does_not_end_costs_its_connection_after_64_t1() {
    let mut bench = Bench::new();
    bench.connect(1);
    bench.connect(2);
    let text = request("OPTIONS", 1, "slow", "", "");
    let (mut outputs, mut lived_ms) = (Vec::new(), 0);
    // A byte a second: progress is no excuse. The other one is only idle.
    for byte in text.bytes() {
        outputs = bench.tcp(1, &char::from(byte).to_string());
        outputs.extend(bench.pass(1_000).into_iter().map(|(_, output)| output));
        lived_ms += 1_000;
        if !outputs.is_empty() {
            break;
        }
    }
    assert!(matches!(outputs[..], [Output::Disconnect { conn: ConnId(1) }]));
    assert_eq!(lived_ms, 32_000);
    assert_eq!(bench.endpoint.tally().of(Oddity::SlowStream), 1);
    assert!(bench.pass(600_000).is_empty());
    // A whole message resets it, and line ends are no message.
    let start = bench.now_ms;
    while bench.now_ms < start + 100_000 {
        assert!(bench.tcp(2, &text[..50]).is_empty());
        assert!(bench.pass(20_000).is_empty());
        bench.tcp(2, &text[50..]);
        bench.tcp(2, "\r\n");
        bench.pass(20_000);
    }
    assert_eq!(bench.endpoint.tally().of(Oddity::SlowStream), 1);
}

#[test]
fn a_source_with_many_connections_gives_way_before_others() {
    let mut bench = Bench::new();
    let local = address("192.0.2.20:5060");
    let connect = |bench: &mut Bench, conn: u64, peer: &str| {
        bench.now_ms += 1;
        let peer = address(peer);
        let input = Input::Connected { conn: ConnId(conn), local, peer, tls: None };
        bench.endpoint.handle(at(bench.now_ms), input);
    };
    // An honest one first: it has been silent longest.
    connect(&mut bench, 0, "198.51.100.1:5060");
    for conn in 1..=SIP_CONNECTIONS_MAX as u64 {
        connect(&mut bench, conn, &format!("203.0.113.9:{}", 1_024 + conn));
    }
    let outputs = bench.drain();
    assert!(matches!(outputs[..], [Output::Disconnect { conn: ConnId(1) }]), "{outputs:?}");
}

#[test]
fn what_is_refused_is_counted_by_reason() {
    let mut bench = Bench::new();
    let before = bench.endpoint.tally().clone();
    bench.udp(&request("REGISTER", 1, "r", "", ""));
    bench.udp(&request("BYE", 1, "b", "", ""));
    bench.udp("rubbish");
    bench.udp("\r\n\r\n");
    let stray =
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nCSeq: 1 BYE\r\nl: 0\r\n\r\n";
    bench.udp(stray);
    bench.connect(1);
    bench.tcp(1, "GET / HTTP/1.1\r\n\r\n");
    let tally = bench.endpoint.tally();
    for (oddity, count) in [
        (Oddity::Refused(405), 1),
        (Oddity::Refused(481), 1),
        (Oddity::Unreadable, 2),
        (Oddity::StrayResponse, 1),
        (Oddity::FramingLost, 1),
    ] {
        assert_eq!(tally.of(oddity), count, "{oddity:?}");
    }
    let said = tally.since(&before).expect("something");
    assert!(said.contains("1 answered 481, 2 unreadable"), "{said}");
    assert_eq!(tally.since(tally), None);
}

#[test]
fn peers_are_those_whose_ack_came() {
    let mut bench = Bench::new();
    let outputs = bench.udp(&request("INVITE", 1, "inv", "", ""));
    let (_, outputs) = bench.respond(txn(&outputs), Reply::new(200));
    assert!(bench.endpoint.peers().is_empty(), "a source address can be forged");
    let tag = messages(&outputs)[0].to().and_then(|to| to.tag().map(str::to_owned));
    bench.udp(&request("ACK", 1, "ack", &tag.expect("our tag"), ""));
    assert_eq!(bench.endpoint.peers(), [address("192.0.2.10:1").ip()].into());
}
