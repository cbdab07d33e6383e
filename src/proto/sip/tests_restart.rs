//! A control that died and came back, and the bounds under a flood.

use super::tests::{Bench, address, at, established, messages, request, sent, txn};
use super::*;
use crate::base::limits::{SIP_TRANSACTIONS_BYTES_MAX, SIP_TRANSACTIONS_MAX};

/// A fresh endpoint that holds the dialog of `established` as it was journalled.
fn restarted() -> (Bench, DialogId, String) {
    let (old, dialog, tag) = established();
    let snapshot = old.endpoint.snapshot(dialog).expect("open");
    let text = serde_json::to_string(&snapshot).expect("plain data");
    let mut bench = Bench::new();
    let dialog = bench.endpoint.restore(serde_json::from_str(&text).expect("just written"));
    (bench, dialog, tag)
}

#[test]
fn a_restored_dialog_takes_the_bye_and_refuses_old_numbers() {
    let (mut bench, dialog, tag) = restarted();
    assert_eq!(sent(&bench.udp(&request("INFO", 1, "x", &tag, ""))), ["500"]);
    let outputs = bench.udp(&request("BYE", 2, "y", &tag, ""));
    let (found, outputs) = bench.respond(txn(&outputs), Reply::new(200));
    assert_eq!((found, &*sent(&outputs)), (Some(dialog), &["200".to_owned()][..]));
}

#[test]
fn a_retransmission_from_before_the_restart_gets_the_same_answer() {
    let (mut bench, dialog, tag) = restarted();
    let accepted = Reply { body: b"v=0\r\n".to_vec(), ..Reply::new(200) };
    bench.endpoint.restore_answer(dialog, 1, "INVITE", accepted);
    bench.endpoint.restore_answer(dialog, 2, "BYE", Reply::new(200));
    for _ in 0..2 {
        let outputs = bench.udp(&request("INVITE", 1, "inv", "", ""));
        assert_eq!(outputs.len(), 1, "no request for control");
        let answer = messages(&outputs).remove(0);
        assert_eq!((answer.code(), &*answer.body), (Some(200), &b"v=0\r\n"[..]));
        assert_eq!(answer.to().expect("To").tag(), Some(&*tag));
    }
    bench.endpoint.close(dialog);
    let answer = messages(&bench.udp(&request("BYE", 2, "y", &tag, ""))).remove(0);
    assert_eq!((answer.code(), answer.to().expect("To").tag()), (Some(200), Some(&*tag)));
    assert_eq!(sent(&bench.udp(&request("BYE", 3, "z", &tag, ""))), ["481"]);
}

#[test]
fn own_requests_after_a_restart_use_numbers_not_used_before() {
    let (mut old, dialog, _) = established();
    let snapshot = old.endpoint.snapshot(dialog).expect("open");
    old.endpoint.request(at(0), dialog, "UPDATE", &[], &[]).expect("sent after the snapshot");
    let mut bench = Bench::new();
    let dialog = bench.endpoint.restore(snapshot);
    bench.endpoint.request(at(0), dialog, "BYE", &[], &[]).expect("open");
    let number = |bench: &mut Bench| messages(&bench.drain())[0].cseq().expect("CSeq").number;
    assert!(number(&mut bench) > number(&mut old));
}

#[test]
fn a_restored_stream_dialog_answers_in_place_and_dials_for_itself() {
    let mut bench = Bench::new();
    bench.connect(1);
    let outputs = bench.tcp(1, &request("INVITE", 1, "a", "", ""));
    let (dialog, _) = bench.respond(txn(&outputs), Reply::new(200));
    let snapshot = bench.endpoint.snapshot(dialog.expect("a dialog")).expect("open");
    assert_eq!(snapshot.transport, Transport::Tcp);
    let tag = snapshot.local_tag.clone();

    let mut bench = Bench::new();
    let dialog = bench.endpoint.restore(snapshot);
    let update = bench.endpoint.request(at(0), dialog, "UPDATE", &[], &[]).expect("open");
    let (local, peer) = (address("192.0.2.20:5060"), address("192.0.2.10:5062"));
    let outputs = bench.drain();
    assert!(matches!(outputs[..],
        [Output::Transmit { target: Target::Dial { peer: to, .. }, .. }] if to == peer));
    bench.endpoint.handle(at(0), Input::Connected { conn: ConnId(4), local, peer, tls: None });
    bench.endpoint.handle(at(0), Input::Closed { conn: ConnId(4) });
    assert!(matches!(bench.drain()[..],
        [Output::RequestFailed { request, why: Failure::Transport, .. }] if request == update));
    bench.endpoint.request(at(0), dialog, "UPDATE", &[], &[]).expect("open");
    bench.drain();
    bench.endpoint.handle(at(0), Input::Unreachable { peer, secure: false });
    assert!(matches!(bench.drain()[..], [Output::RequestFailed { why: Failure::Transport, .. }]));

    // The peer's next request brings a connection, which both sides use from then on.
    bench.connect(7);
    let outputs = bench.tcp(7, &request("INFO", 2, "i", &tag, ""));
    let (_, outputs) = bench.respond(txn(&outputs), Reply::new(200));
    assert!(matches!(
        outputs[..],
        [Output::Transmit { target: Target::Stream { conn: ConnId(7), .. }, .. }]
    ));
    bench.endpoint.request(at(0), dialog, "BYE", &[], &[]).expect("open");
    assert!(matches!(
        bench.drain()[..],
        [Output::Transmit { target: Target::Stream { conn: ConnId(7), .. }, .. }]
    ));
}

/// Over TCP the dialogs of a peer that has one connection share it; over TLS who the other end must
/// be is each dialog's own affair.
#[test]
fn restored_stream_dialogs_of_a_peer_share_a_connection_but_not_over_tls() {
    let (local, peer) = (address("192.0.2.20:5060"), address("192.0.2.10:5062"));
    for (transport, tls) in [(Transport::Tcp, None), (Transport::Tls, Some(TlsPeer::default()))] {
        let (old, dialog, _) = established();
        let mut snapshot = old.endpoint.snapshot(dialog).expect("open");
        snapshot.transport = transport;
        let mut bench = Bench::new();
        let first = bench.endpoint.restore(snapshot.clone());
        snapshot.call_id = "another".to_owned();
        let second = bench.endpoint.restore(snapshot);
        bench.endpoint.request(at(0), first, "UPDATE", &[], &[]).expect("open");
        assert!(matches!(
            bench.drain()[..],
            [Output::Transmit { target: Target::Dial { .. }, .. }]
        ));
        bench.endpoint.handle(at(0), Input::Connected { conn: ConnId(4), local, peer, tls });
        bench.endpoint.request(at(0), second, "UPDATE", &[], &[]).expect("open");
        let outputs = bench.drain();
        let [Output::Transmit { target, .. }] = outputs[..] else { panic!("{outputs:?}") };
        let shared = matches!(target, Target::Stream { conn: ConnId(4), .. });
        assert_eq!(shared, transport == Transport::Tcp, "{target:?}");
    }
}

#[test]
fn own_requests_follow_the_route_set() {
    let table = [
        // RFC 3261 §12.2.1.1: loose routers, then a strict one.
        (
            "<sip:192.0.2.30;lr>, <sip:192.0.2.31:5070;lr>",
            "sip:src@192.0.2.10:5062",
            vec!["<sip:192.0.2.30;lr>", "<sip:192.0.2.31:5070;lr>"],
            "192.0.2.30:5060",
        ),
        (
            "<sip:192.0.2.30:5080>",
            "sip:192.0.2.30:5080",
            vec!["<sip:src@192.0.2.10:5062>"],
            "192.0.2.30:5080",
        ),
        (
            "<sip:proxy.example;lr>",
            "sip:src@192.0.2.10:5062",
            vec!["<sip:proxy.example;lr>"],
            "192.0.2.10:5060",
        ),
    ];
    for (routes, uri, wanted, next_hop) in table {
        let mut bench = Bench::new();
        let invite = request("INVITE", 1, "a", "", &format!("Record-Route: {routes}\r\n"));
        let outputs = bench.udp(&invite);
        let (dialog, outputs) = bench.respond(txn(&outputs), Reply::new(200));
        assert_eq!(messages(&outputs)[0].headers.get("Record-Route"), Some(routes));
        bench.endpoint.request(at(0), dialog.expect("a dialog"), "BYE", &[], &[]).expect("open");
        let outputs = bench.drain();
        let bye = &messages(&outputs)[0];
        assert_eq!(bye.uri(), Some(uri));
        assert_eq!(bye.headers.list("Route").collect::<Vec<_>>(), wanted);
        let tags = (bye.from().expect("From"), bye.to().expect("To"));
        assert_eq!(tags.1.tag(), Some("peer"));
        assert_eq!(tags.0.uri, "sip:rec@example.com");
        assert!(matches!(outputs[..],
            [Output::Transmit { target: Target::Udp { peer, .. }, .. }] if peer == address(next_hop)));
    }
}

#[test]
fn own_requests_are_repeated_and_given_up_as_timers_e_and_f_say() {
    let (mut bench, dialog, _) = established();
    let bye = bench.endpoint.request(at(0), dialog, "BYE", &[], &[]).expect("open");
    bench.drain();
    let outputs = bench.pass(40_000);
    let (last, repeats) = outputs.split_last().expect("outputs");
    let at_ms: Vec<_> = repeats.iter().map(|(ms, _)| *ms).collect();
    assert_eq!(at_ms, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
    assert!(matches!(last, (32_000, Output::RequestFailed { request, why: Failure::Timeout, .. })
        if *request == bye));
}

/// What is kept of a stranger's requests is bounded in bytes too, and given back.
#[test]
fn large_requests_fill_the_table_before_it_has_all_its_places() {
    let (mut bench, _, tag) = established();
    let begin = bench.endpoint.kept;
    let padding = format!("X-Padding: {}\r\nFrom:", "x".repeat(60_000));
    let mut waiting = Vec::new();
    for number in 0..SIP_TRANSACTIONS_MAX {
        let invite = request("INVITE", 1, &format!("f{number}"), "", "");
        let invite = invite.replace("c1@", &format!("f{number}@")).replacen("From:", &padding, 1);
        let outputs = bench.udp(&invite);
        if sent(&outputs) == ["503"] {
            break;
        }
        let [Output::Request(request)] = &outputs[..] else { panic!("{outputs:?}") };
        waiting.push(request.txn);
    }
    let bound = SIP_TRANSACTIONS_BYTES_MAX / 8 * 7;
    assert!(waiting.len() > 1_000 && waiting.len() < SIP_TRANSACTIONS_MAX / 4);
    assert!((bound..bound + 70_000).contains(&bench.endpoint.kept), "{}", bench.endpoint.kept);
    let outputs = bench.udp(&request("INFO", 2, "info", &tag, ""));
    let [Output::Request(info)] = &outputs[..] else { panic!("room for running dialogs") };
    bench.respond(info.txn, Reply::new(200));
    for txn in waiting {
        bench.respond(txn, Reply::new(486));
    }
    assert!(bench.endpoint.kept < bound / 16, "of what is answered only the answer is kept");
    bench.pass(70_000);
    assert!(bench.endpoint.transactions() == 0 && bench.endpoint.kept == 0, "{begin}");
}

#[test]
fn a_full_table_refuses_new_sessions_cheaply_and_keeps_room_for_running_ones() {
    let (mut bench, _, tag) = established();
    let mut refused = 0;
    for number in 0..SIP_TRANSACTIONS_MAX {
        let invite = request("INVITE", 1, &format!("f{number}"), "", "");
        let outputs = bench.udp(&invite.replace("c1@", &format!("f{number}@")));
        if sent(&outputs) == ["503"] {
            assert!(messages(&outputs)[0].headers.get("Retry-After").is_some());
            refused += 1;
        }
    }
    assert!(refused >= SIP_TRANSACTIONS_MAX / 8);
    assert_eq!(bench.endpoint.transactions(), SIP_TRANSACTIONS_MAX / 8 * 7);
    let outputs = bench.udp(&request("BYE", 2, "bye", &tag, ""));
    assert!(matches!(outputs[..], [Output::Request(_)]));
}

#[test]
fn connections_beyond_the_bound_are_closed() {
    let mut bench = Bench::new();
    for conn in 0..=crate::base::limits::SIP_CONNECTIONS_MAX as u64 {
        bench.connect(conn);
    }
    assert!(matches!(bench.drain()[..], [Output::Disconnect { .. }]));
}

#[test]
fn a_full_house_drops_the_stranger_that_was_silent_longest() {
    let mut bench = Bench::new();
    bench.connect(0);
    let outputs = bench.tcp(0, &request("INVITE", 1, "a", "", ""));
    bench.respond(txn(&outputs), Reply::new(200));
    for conn in 1..=crate::base::limits::SIP_CONNECTIONS_MAX as u64 {
        bench.now_ms += 1;
        bench.connect(conn);
    }
    // The first one carries a dialog, so the second gives way.
    let dropped = |outputs: &[Output]| {
        let gone = |output: &Output| match output {
            Output::Disconnect { conn } => Some(*conn),
            _ => None,
        };
        outputs.iter().filter_map(gone).collect::<Vec<_>>()
    };
    assert_eq!(dropped(&bench.drain()), [ConnId(1)]);
}

#[test]
fn half_messages_of_strangers_are_bounded_together() {
    let mut bench = Bench::new();
    bench.connect(0);
    let outputs = bench.tcp(0, &request("INVITE", 1, "a", "", ""));
    bench.respond(txn(&outputs), Reply::new(200));
    let max = crate::base::limits::SIP_STREAM_MESSAGE_BYTES_MAX;
    let half = format!("BYE sip:a@b SIP/2.0\r\nContent-Length: {}\r\n\r\n", max - 100);
    let half = half + &"x".repeat(max - 200);
    let mut gone = 0;
    for conn in 1..200 {
        bench.connect(conn);
        let outputs = bench.tcp(conn, &half);
        gone += outputs.iter().filter(|o| matches!(o, Output::Disconnect { .. })).count();
    }
    assert_eq!(gone, 199 - 128);
    for conn in 0..200 {
        bench.endpoint.handle(at(0), Input::Closed { conn: ConnId(conn) });
    }
    assert_eq!(bench.endpoint.waiting(), 0);
}
