//! The rules of RFC 3261 and its kin, one claim a test, under a clock that only the test moves.

use std::net::SocketAddr;

use super::*;
use crate::base::time::Mono;
use crate::wire::sip::{Message, parse_datagram};

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(super) fn at(ms: u64) -> Mono {
    Mono(ms * 1_000_000)
}

/// An endpoint with its outputs in order.
pub(super) struct Bench {
    pub(super) endpoint: Endpoint,
    pub(super) now_ms: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        Bench {
            endpoint: Endpoint::new(EndpointConfig { seed: 7, ..Default::default() }),
            now_ms: 0,
        }
    }

    pub(super) fn udp(&mut self, text: &str) -> Vec<Output> {
        let (local, peer) = (address("192.0.2.20:5060"), address("192.0.2.10:5060"));
        let input = Input::Datagram { local, peer, bytes: text.as_bytes() };
        self.endpoint.handle(at(self.now_ms), input);
        self.drain()
    }

    pub(super) fn tcp(&mut self, conn: u64, text: &str) -> Vec<Output> {
        let input = Input::Stream { conn: ConnId(conn), bytes: text.as_bytes() };
        self.endpoint.handle(at(self.now_ms), input);
        self.drain()
    }

    pub(super) fn connect(&mut self, conn: u64) {
        let (local, peer) = (address("192.0.2.20:5060"), address("192.0.2.10:49152"));
        self.endpoint.handle(
            at(self.now_ms),
            Input::Connected { conn: ConnId(conn), local, peer, tls: None },
        );
    }

    pub(super) fn respond(&mut self, txn: TxnId, reply: Reply) -> (Option<DialogId>, Vec<Output>) {
        let dialog = self.endpoint.respond(at(self.now_ms), txn, reply);
        (dialog, self.drain())
    }

    /// Lets time pass tick by tick; gives what came out with its instant.
    pub(super) fn pass(&mut self, ms: u64) -> Vec<(u64, Output)> {
        let end = self.now_ms + ms;
        let mut out = Vec::new();
        while let Some(due) = self.endpoint.next_timeout().filter(|due| *due <= at(end)) {
            self.now_ms = due.0 / 1_000_000;
            self.endpoint.handle(due, Input::Tick);
            out.extend(self.drain().into_iter().map(|output| (self.now_ms, output)));
        }
        self.now_ms = end;
        out
    }

    pub(super) fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.endpoint.poll()).collect()
    }
}

/// Status codes and methods of the messages sent.
pub(super) fn sent(outputs: &[Output]) -> Vec<String> {
    messages(outputs)
        .iter()
        .map(|message| match message.code() {
            Some(code) => code.to_string(),
            None => message.method().unwrap_or("").to_owned(),
        })
        .collect()
}

pub(super) fn messages(outputs: &[Output]) -> Vec<Message> {
    let bytes = outputs.iter().filter_map(|output| match output {
        Output::Transmit { bytes, .. } => Some(bytes),
        _ => None,
    });
    bytes.filter_map(|bytes| parse_datagram(bytes).ok()).collect()
}

pub(super) fn txn(outputs: &[Output]) -> TxnId {
    let found = outputs.iter().find_map(|output| match output {
        Output::Request(request) => Some(request.txn),
        _ => None,
    });
    found.expect("a request for control")
}

/// A request of the peer: method, CSeq, branch, our tag (empty: none) and further header lines.
pub(super) fn request(method: &str, cseq: u32, branch: &str, to_tag: &str, more: &str) -> String {
    let to_tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
    format!(
        "{method} sip:rec@192.0.2.20 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK{branch}\r\n\
        From: \"SRC\" <sip:src@example.com>;tag=peer\r\nTo: <sip:rec@example.com>{to_tag}\r\n\
        Call-ID: c1@192.0.2.10\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n\
        Contact: <sip:src@192.0.2.10:5062>;+sip.src\r\n{more}Content-Length: 0\r\n\r\n"
    )
}

/// An endpoint with a dialog that the peer's INVITE made and its ACK confirmed.
pub(super) fn established() -> (Bench, DialogId, String) {
    let mut bench = Bench::new();
    let outputs = bench.udp(&request("INVITE", 1, "inv", "", ""));
    let (dialog, outputs) = bench.respond(txn(&outputs), Reply::new(200));
    let ok = messages(&outputs).remove(0);
    let tag = ok.to().and_then(|to| to.tag().map(str::to_owned)).expect("our tag");
    let outputs = bench.udp(&request("ACK", 1, "ack", &tag, ""));
    assert!(matches!(outputs[..], [Output::Acked { .. }]));
    (bench, dialog.expect("a dialog"), tag)
}

#[test]
fn invite_gets_100_after_200_ms_and_200_when_control_answers() {
    let mut bench = Bench::new();
    let outputs = bench.udp(&request("INVITE", 1, "a", "", "Timestamp: 54\r\n"));
    assert!(sent(&outputs).is_empty(), "the peer must repeat what a crash of ours may forget");
    let txn = txn(&outputs);
    assert!(bench.pass(199).is_empty());
    let outputs: Vec<Output> = bench.pass(1).into_iter().map(|(_, output)| output).collect();
    assert_eq!(sent(&outputs), ["100"]);
    assert_eq!(messages(&outputs)[0].headers.get("Timestamp"), Some("54"));
    assert_eq!(messages(&outputs)[0].to().expect("To").tag(), None);
    assert!(bench.pass(10_000).is_empty(), "once");
    let tag = bench.endpoint.reserve_tag(txn).expect("alive");
    let snapshot = bench.endpoint.prospective(txn).expect("alive");
    let reply = Reply::new(200).with("Contact", "<sip:rec@192.0.2.20>;+sip.srs");
    let (dialog, outputs) = bench.respond(txn, reply);
    assert_eq!(sent(&outputs), ["200"]);
    let ok = &messages(&outputs)[0];
    assert_eq!(ok.to().expect("To").tag(), Some(&*tag));
    assert_eq!(ok.headers.get("Server"), Some("Floortape"));
    assert_eq!(bench.endpoint.snapshot(dialog.expect("a dialog")), Some(snapshot.clone()));
    assert_eq!(snapshot.local_tag, tag);
    assert_eq!(snapshot.remote_target, "sip:src@192.0.2.10:5062");
    assert_eq!(
        (&*snapshot.local_uri, &*snapshot.remote_uri),
        ("<sip:rec@example.com>", "\"SRC\" <sip:src@example.com>")
    );
    assert_eq!(bench.respond(txn, Reply::new(500)).1.len(), 0, "a final answer stands");
}

#[test]
fn retransmitted_requests_get_the_last_answer_and_reach_control_once() {
    let mut bench = Bench::new();
    let invite = request("INVITE", 1, "a", "", "");
    let txn = txn(&bench.udp(&invite));
    assert!(bench.udp(&invite).is_empty(), "not answered yet");
    bench.pass(200);
    let again = bench.udp(&invite);
    assert_eq!(sent(&again), ["100"]);
    assert_eq!(again.len(), 1);
    bench.respond(txn, Reply::new(486));
    assert_eq!(sent(&bench.udp(&invite)), ["486"]);
}

#[test]
fn a_2xx_is_repeated_until_its_ack_comes() {
    for reliable in [false, true] {
        let mut bench = Bench::new();
        let invite = request("INVITE", 1, "a", "", "");
        let outputs = if reliable {
            bench.connect(1);
            bench.tcp(1, &invite)
        } else {
            bench.udp(&invite)
        };
        let (_, outputs) = bench.respond(txn(&outputs), Reply::new(200));
        let tag = messages(&outputs)[0].to().expect("To").tag().expect("tag").to_owned();
        let repeats: Vec<_> = bench.pass(10_000).into_iter().map(|(ms, _)| ms).collect();
        // RFC 3261 §13.3.1.4: T1, doubling up to T2.
        assert_eq!(repeats, [500, 1_500, 3_500, 7_500]);
        assert!(bench.udp(&invite).is_empty(), "absorbed by Accepted");
        let outputs = bench.udp(&request("ACK", 1, "k", &tag, ""));
        assert!(matches!(outputs[..], [Output::Acked { .. }]));
        assert!(bench.pass(60_000).is_empty());
        assert_eq!(bench.endpoint.transactions(), 0);
    }
}

#[test]
fn a_missing_ack_is_told_after_64_t1_and_the_bye_goes_out() {
    let mut bench = Bench::new();
    let outputs = bench.udp(&request("INVITE", 1, "a", "", ""));
    let (dialog, _) = bench.respond(txn(&outputs), Reply::new(200));
    let outputs = bench.pass(40_000);
    let (ms, last) = outputs.last().expect("outputs");
    assert!(matches!(last, Output::AckMissing { .. }));
    assert_eq!(*ms, 32_000);
    let now = at(bench.now_ms);
    bench.endpoint.request(now, dialog.expect("a dialog"), "BYE", &[], &[]).expect("a dialog");
    assert_eq!(sent(&bench.drain()), ["BYE"]);
}

#[test]
fn a_refusal_is_repeated_over_udp_until_ack_and_never_over_tcp() {
    let mut bench = Bench::new();
    let outputs = bench.udp(&request("INVITE", 1, "a", "", ""));
    let (dialog, outputs) = bench.respond(txn(&outputs), Reply::new(488));
    assert_eq!(dialog, None);
    let tag = messages(&outputs)[0].to().expect("To").tag().expect("tag").to_owned();
    let repeats: Vec<_> = bench.pass(4_000).into_iter().map(|(ms, _)| ms).collect();
    assert_eq!(repeats, [500, 1_500, 3_500]);
    assert!(bench.udp(&request("ACK", 1, "a", &tag, "")).is_empty());
    // Timer I keeps it for T4.
    assert_eq!(bench.endpoint.transactions(), 1);
    assert!(bench.pass(5_000).is_empty());
    assert_eq!(bench.endpoint.transactions(), 0);

    bench.connect(3);
    let outputs = bench.tcp(3, &request("INVITE", 2, "b", "", ""));
    bench.respond(txn(&outputs), Reply::new(488));
    assert!(bench.pass(20_000).is_empty());
    bench.tcp(3, &request("ACK", 2, "b", "x", ""));
    assert_eq!(bench.endpoint.transactions(), 0, "timer I is zero over a stream");
}

#[test]
fn cancel_is_answered_and_told_once() {
    let mut bench = Bench::new();
    let txn = txn(&bench.udp(&request("INVITE", 1, "a", "", "")));
    let outputs = bench.udp(&request("CANCEL", 1, "a", "", ""));
    assert_eq!(sent(&outputs), ["200"]);
    assert!(matches!(outputs[..], [_, Output::Cancelled { txn: found }] if found == txn));
    let tag = messages(&outputs)[0].to().expect("To").tag().map(str::to_owned);
    assert_eq!(bench.udp(&request("CANCEL", 1, "a", "", "")).len(), 1);
    let (_, outputs) = bench.respond(txn, Reply::new(487));
    assert_eq!(sent(&outputs), ["487"]);
    // RFC 3261 §9.2: both answers carry the same tag.
    assert_eq!(messages(&outputs)[0].to().expect("To").tag().map(str::to_owned), tag);
}

#[test]
fn cancel_after_the_final_answer_changes_nothing_and_without_invite_is_481() {
    let mut bench = Bench::new();
    let txn = txn(&bench.udp(&request("INVITE", 1, "a", "", "")));
    bench.respond(txn, Reply::new(200));
    let outputs = bench.udp(&request("CANCEL", 1, "a", "", ""));
    assert_eq!((sent(&outputs), outputs.len()), (vec!["200".to_owned()], 1));
    assert_eq!(sent(&bench.udp(&request("CANCEL", 1, "other", "", ""))), ["481"]);
}

#[test]
fn what_control_need_not_see_is_refused_here() {
    let (mut bench, _, tag) = established();
    bench.udp(&request("INVITE", 60, "merged1", "", ""));
    let table = [
        (request("BYE", 9, "b1", "wrong", ""), "481"),
        (request("INFO", 9, "b2", "", ""), "481"),
        (request("INVITE", 9, "b3", "wrong", ""), "481"),
        (request("FROB", 9, "b4", &tag, ""), "501"),
        (request("SUBSCRIBE", 9, "b5", "", ""), "405"),
        (request("REGISTER", 9, "b6", "", ""), "405"),
        (request("INVITE", 60, "merged2", "", ""), "482"),
        (request("BYE", 1, "b7", &tag, ""), "500"),
        (request("BYE", 9, "b8", &tag, "").replace("CSeq: 9 BYE", "CSeq: 9 INFO"), "400"),
        (request("BYE", 9, "b9", &tag, "").replace("CSeq: 9 BYE", "CSeq: x BYE"), "400"),
        (request("BYE", 9, "c1", &tag, "Call-ID: second\r\n"), "400"),
        (request("BYE", 9, "c2", &tag, "broken line\r\n"), "400"),
        (request("BYE", 9, "c3", &tag, "").replace("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"), "505"),
        (
            request("BYE", 9, "c4", &tag, "").replace("Content-Length: 0", "Content-Length: 9"),
            "400",
        ),
    ];
    for (text, code) in table {
        let outputs = bench.udp(&text);
        assert_eq!(sent(&outputs), [code], "{text}");
        assert_eq!(outputs.len(), 1, "{text}");
    }
    let refused = messages(&bench.udp(&request("FROB", 9, "c5", "", ""))).remove(0);
    assert!(refused.headers.has_option("Allow", "UPDATE"));
    assert!(bench.udp(&request("ACK", 9, "c6", "wrong", "")).is_empty(), "never answer an ACK");
    assert!(bench.udp("\r\n\r\n").is_empty());
    assert!(bench.udp("SIP/2.0 200 OK\r\n\r\n").is_empty());
}

#[test]
fn in_dialog_requests_reach_control_with_their_dialog() {
    let (mut bench, dialog, tag) = established();
    for (cseq, method) in [(2, "UPDATE"), (3, "INFO"), (4, "OPTIONS"), (7, "INVITE"), (8, "BYE")] {
        let outputs = bench.udp(&request(method, cseq, &format!("d{cseq}"), &tag, ""));
        let Some(Output::Request(found)) = outputs.last() else { panic!("{method}: {outputs:?}") };
        assert_eq!(found.dialog, Some(dialog));
        assert!(sent(&outputs).is_empty());
        let txn = found.txn;
        let (answered, outputs) = bench.respond(txn, Reply::new(200));
        assert_eq!((answered, &*sent(&outputs)), (Some(dialog), &["200".to_owned()][..]));
    }
    assert_eq!(bench.endpoint.snapshot(dialog), None, "the BYE closed it");
    assert_eq!(sent(&bench.udp(&request("BYE", 8, "d8", &tag, ""))), ["200"], "timer J");
    assert_eq!(sent(&bench.udp(&request("INFO", 9, "d9", &tag, ""))), ["481"]);
}

#[test]
fn a_target_refresh_counts_only_when_accepted() {
    let (mut bench, dialog, tag) = established();
    let moved = |cseq: u32| {
        request("UPDATE", cseq, &format!("u{cseq}"), &tag, "").replace("10:5062", "99:7000")
    };
    let refused = txn(&bench.udp(&moved(2)));
    bench.respond(refused, Reply::new(403));
    let target = |bench: &Bench| bench.endpoint.snapshot(dialog).expect("open").remote_target;
    assert_eq!(target(&bench), "sip:src@192.0.2.10:5062");
    let accepted = txn(&bench.udp(&moved(3)));
    bench.respond(accepted, Reply::new(200));
    assert_eq!(target(&bench), "sip:src@192.0.2.99:7000");
    assert_eq!(bench.endpoint.snapshot(dialog).expect("open").remote_cseq, 3);
}

#[test]
fn crossing_offers_get_491_and_500() {
    let (mut bench, dialog, tag) = established();
    let pending = txn(&bench.udp(&request("INVITE", 2, "r1", &tag, "")));
    let second = messages(&bench.udp(&request("INVITE", 3, "r2", &tag, ""))).remove(0);
    assert_eq!(second.code(), Some(500));
    let wait: u32 = second.headers.get("Retry-After").expect("a wait").parse().expect("seconds");
    assert!(wait <= 10);
    assert_eq!(bench.endpoint.request(at(0), dialog, "INVITE", &[], &[]), None);
    bench.respond(pending, Reply::new(200));
    bench.endpoint.request(at(0), dialog, "INVITE", &[], &[]).expect("free again");
    assert_eq!(sent(&bench.drain()), ["INVITE"]);
    assert_eq!(sent(&bench.udp(&request("INVITE", 4, "r3", &tag, ""))), ["491"]);
    // An UPDATE without an offer crosses nothing.
    let outputs = bench.udp(&request("UPDATE", 5, "r4", &tag, ""));
    assert!(matches!(outputs[..], [Output::Request(_)]));
}

#[test]
fn bye_ends_a_pending_reinvite_with_487() {
    let (mut bench, _, tag) = established();
    bench.udp(&request("INVITE", 2, "r1", &tag, ""));
    let bye = txn(&bench.udp(&request("BYE", 3, "r2", &tag, "")));
    let (_, outputs) = bench.respond(bye, Reply::new(200));
    assert_eq!(sent(&outputs), ["200", "487"]);
}

#[test]
fn responses_follow_rport_received_and_the_connection() {
    let mut bench = Bench::new();
    let options = |via: &str, branch: &str| {
        request("OPTIONS", 1, branch, "", "").replace("192.0.2.10:5060;", via)
    };
    let table = [
        ("host.example:5070;", "192.0.2.10:5070", Some("192.0.2.10")),
        ("host.example;rport;", "192.0.2.10:5060", Some("192.0.2.10")),
        ("192.0.2.10:5099;", "192.0.2.10:5099", None),
    ];
    for (number, (via, wanted, received)) in table.into_iter().enumerate() {
        let text = options(via, &number.to_string()).replace("c1@", &format!("{number}@"));
        let txn = txn(&bench.udp(&text));
        let (_, outputs) = bench.respond(txn, Reply::new(200));
        let [Output::Transmit { target: Target::Udp { peer, .. }, .. }] = outputs[..] else {
            panic!("{outputs:?}")
        };
        assert_eq!(peer, address(wanted));
        let via = messages(&outputs)[0].via().expect("Via");
        assert_eq!(via.params.get("received"), received);
    }
    bench.connect(5);
    let txn = txn(&bench.tcp(5, &options("host.example:5070;", "tcp")));
    bench.endpoint.handle(at(0), Input::Closed { conn: ConnId(5) });
    let (_, outputs) = bench.respond(txn, Reply::new(200));
    // RFC 3261 §18.2.2: a new connection to the sent-by port.
    assert!(matches!(outputs[..],
        [Output::Transmit { target: Target::Dial { peer, .. }, .. }]
            if peer == address("192.0.2.10:5070")));
}

#[test]
fn a_stream_gets_pongs_answers_in_place_and_is_closed_when_framing_is_lost() {
    let mut bench = Bench::new();
    bench.connect(1);
    let outputs = bench.tcp(1, "\r\n\r\n");
    assert!(matches!(&outputs[..],
        [Output::Transmit { target: Target::Stream { conn: ConnId(1), .. }, bytes }]
            if bytes == b"\r\n"));
    let options = request("OPTIONS", 1, "t", "", "");
    assert!(bench.tcp(1, &options[..40]).is_empty());
    assert!(matches!(bench.tcp(1, &options[40..])[..], [Output::Request(_)]));
    let mut bench = Bench::new();
    bench.connect(2);
    let text = request("INVITE", 1, "long", "", "")
        .replace("Content-Length: 0", "Content-Length: 9000000");
    let outputs = bench.tcp(2, &text);
    assert_eq!(sent(&outputs), ["413"]);
    assert!(matches!(outputs.last(), Some(Output::Disconnect { conn: ConnId(2) })));
    assert!(bench.tcp(2, &request("OPTIONS", 1, "x", "", "")).is_empty());
}
