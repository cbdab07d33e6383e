//! The caller against a peer that the test plays, and noise against both machines.

use super::tests::{Bench, address, at, request};
use super::*;
use crate::base::prng::Prng;
use crate::wire::sip::{Message, parse_datagram};

struct Caller {
    uac: Uac,
    now_ms: u64,
    conn: Option<ConnId>,
}

impl Caller {
    fn new() -> Self {
        Caller {
            uac: Uac::new(EndpointConfig { seed: 3, ..Default::default() }),
            now_ms: 0,
            conn: None,
        }
    }

    /// Places a call and gives its INVITE.
    fn call(&mut self, target: Target) -> (CallRef, Message) {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let call = self.uac.call(
            at(self.now_ms),
            &Invite {
                target,
                uri: "sip:rec@192.0.2.20".to_owned(),
                from: "<sip:src@192.0.2.10>".to_owned(),
                to: "<sip:rec@192.0.2.20>".to_owned(),
                headers: vec![
                    header("Contact", "<sip:src@192.0.2.10>;+sip.src"),
                    header("Require", "siprec"),
                    header("Content-Type", "application/sdp"),
                ],
                body: b"v=0\r\n".to_vec(),
            },
        );
        let invite = sent(&self.drain()).remove(0);
        (call.expect("a valid INVITE"), invite)
    }

    fn drain(&mut self) -> Vec<UacOutput> {
        std::iter::from_fn(|| self.uac.poll(at(self.now_ms))).collect()
    }

    fn feed(&mut self, text: &str) -> Vec<UacOutput> {
        let (local, peer) = (address("192.0.2.10:5060"), address("192.0.2.20:5060"));
        let bytes = text.as_bytes();
        self.uac.handle(
            at(self.now_ms),
            match self.conn {
                Some(conn) => Input::Stream { conn, bytes },
                None => Input::Datagram { local, peer, bytes },
            },
        );
        self.drain()
    }
}

fn udp() -> Target {
    Target::Udp { local: address("192.0.2.10:5060"), peer: address("192.0.2.20:5060") }
}

fn sent(outputs: &[UacOutput]) -> Vec<Message> {
    let bytes = outputs.iter().filter_map(|output| match output {
        UacOutput::Transmit { bytes, .. } => Some(bytes),
        _ => None,
    });
    bytes.map(|bytes| parse_datagram(bytes).expect("we print valid messages")).collect()
}

/// The peer's answer to a request of ours.
fn answer(request: &Message, code: u16) -> String {
    let get = |name| request.headers.get(name).unwrap_or("");
    let tag = if get("To").contains("tag=") { "" } else { ";tag=srs" };
    format!(
        "SIP/2.0 {code} Text\r\nVia: {}\r\nFrom: {}\r\nTo: {}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
        Contact: <sip:rec@192.0.2.20:5070>;+sip.srs\r\n\
        Record-Route: <sip:192.0.2.30;lr>, <sip:192.0.2.31;lr>\r\nContent-Length: 0\r\n\r\n",
        get("Via"),
        get("From"),
        get("To"),
        get("Call-ID"),
        get("CSeq")
    )
}

/// A request of the peer within the call that `invite` started.
fn from_peer(invite: &Message, method: &str, cseq: u32, more: &str) -> String {
    let get = |name| invite.headers.get(name).unwrap_or("");
    format!(
        "{method} sip:src@192.0.2.10 SIP/2.0\r\n\
        Via: SIP/2.0/UDP 192.0.2.20:5060;branch=z9hG4bKp{cseq}\r\nFrom: {};tag=srs\r\nTo: {}\r\n\
        Call-ID: {}\r\nCSeq: {cseq} {method}\r\n{more}Content-Length: 0\r\n\r\n",
        get("To"),
        get("From"),
        get("Call-ID")
    )
}

#[test]
fn an_answer_is_acknowledged_each_time_it_comes_by_way_of_the_route_set() {
    let mut caller = Caller::new();
    let (call, invite) = caller.call(udp());
    assert_eq!(invite.method(), Some("INVITE"));
    assert_eq!(caller.uac.call_id(call), invite.call_id());
    assert!(matches!(
        caller.feed(&answer(&invite, 180))[..],
        [UacOutput::Progress { code: 180, .. }]
    ));
    let outputs = caller.feed(&answer(&invite, 200));
    assert!(matches!(outputs[..], [UacOutput::Transmit { .. }, UacOutput::Answered { .. }]));
    let ack = &sent(&outputs)[0];
    assert_eq!((ack.method(), ack.uri()), (Some("ACK"), Some("sip:rec@192.0.2.20:5070")));
    assert_eq!(ack.cseq().expect("CSeq").number, invite.cseq().expect("CSeq").number);
    assert_ne!(ack.via().expect("Via").branch(), invite.via().expect("Via").branch());
    // RFC 3261 §12.1.2: reversed.
    assert_eq!(
        ack.headers.list("Route").collect::<Vec<_>>(),
        ["<sip:192.0.2.31;lr>", "<sip:192.0.2.30;lr>"]
    );
    let again = caller.feed(&answer(&invite, 200));
    assert_eq!((sent(&again), again.len()), (vec![ack.clone()], 1));

    caller.uac.hang_up(at(0), call, &[("Reason".to_owned(), "SIP;cause=200".to_owned())], b"");
    let bye = sent(&caller.drain()).remove(0);
    assert_eq!((bye.method(), bye.headers.get("Reason")), (Some("BYE"), Some("SIP;cause=200")));
    assert!(matches!(
        caller.feed(&answer(&bye, 200))[..],
        [UacOutput::Ended { by_peer: false, .. }]
    ));
    assert_eq!(caller.uac.calls(), 0);
}

#[test]
fn a_refusal_is_acknowledged_within_its_transaction() {
    let mut caller = Caller::new();
    let (_, invite) = caller.call(udp());
    for round in 0..2 {
        let outputs = caller.feed(&answer(&invite, 488));
        let ack = &sent(&outputs)[0];
        assert_eq!(ack.method(), Some("ACK"));
        // RFC 3261 §17.1.1.3: same branch, To of the response.
        assert_eq!(ack.via(), invite.via());
        assert_eq!(ack.to().expect("To").tag(), Some("srs"));
        assert_eq!(outputs.len(), 2 - round, "told once");
    }
    assert_eq!(caller.uac.calls(), 0);
}

#[test]
fn hanging_up_early_cancels_once_that_is_allowed() {
    let mut caller = Caller::new();
    let (call, invite) = caller.call(udp());
    caller.uac.hang_up(at(0), call, &[], &[]);
    assert!(caller.drain().is_empty(), "RFC 3261 §9.1: not before a provisional response");
    let outputs = caller.feed(&answer(&invite, 180));
    let cancel = sent(&outputs).remove(0);
    assert_eq!((cancel.method(), cancel.via()), (Some("CANCEL"), invite.via()));
    caller.feed(&answer(&cancel, 200));
    assert!(matches!(
        caller.feed(&answer(&invite, 487))[..],
        [UacOutput::Transmit { .. }, UacOutput::Refused { .. }]
    ));

    let (call, invite) = caller.call(udp());
    caller.uac.hang_up(at(0), call, &[], &[]);
    let methods: Vec<_> = sent(&caller.feed(&answer(&invite, 200)))
        .iter()
        .map(|message| message.method().map(str::to_owned))
        .collect();
    assert_eq!(methods, [Some("ACK".to_owned()), Some("BYE".to_owned())], "200 was faster");
}

#[test]
fn requests_of_the_peer_are_answered() {
    let mut caller = Caller::new();
    let (_, invite) = caller.call(udp());
    caller.feed(&answer(&invite, 200));
    for (cseq, method) in [(10, "OPTIONS"), (11, "UPDATE"), (12, "INFO")] {
        let outputs = caller.feed(&from_peer(&invite, method, cseq, ""));
        assert_eq!(sent(&outputs)[0].code(), Some(200), "{method}");
        assert!(matches!(outputs[..], [_, UacOutput::Told { .. }] | [UacOutput::Told { .. }, _]));
        assert!(sent(&outputs)[0].headers.get("Contact").is_some_and(|c| c.contains("+sip.src")));
    }
    let outputs = caller.feed(&from_peer(&invite, "INVITE", 13, ""));
    let Some(UacOutput::Offer { txn, .. }) = outputs.last() else { panic!("{outputs:?}") };
    caller.uac.respond(at(0), *txn, Reply::new(200));
    assert_eq!(sent(&caller.drain())[0].code(), Some(200));
    caller.feed(&from_peer(&invite, "ACK", 13, ""));
    let outputs = caller.feed(&from_peer(&invite, "BYE", 14, ""));
    assert!(outputs.iter().any(|output| matches!(output, UacOutput::Ended { by_peer: true, .. })));
    assert_eq!((sent(&outputs)[0].code(), caller.uac.calls()), (Some(200), 0));
}

#[test]
fn a_call_over_a_stream_dials_and_is_not_repeated() {
    let mut caller = Caller::new();
    let (local, peer) = (address("192.0.2.10:40000"), address("192.0.2.20:5060"));
    let (call, invite) = caller.call(Target::Dial { local, peer, secure: false });
    assert_eq!(invite.via().expect("Via").transport, "TCP");
    let conn = ConnId(1);
    caller.uac.handle(at(0), Input::Connected { conn, local, peer, tls: None });
    caller.conn = Some(conn);
    caller.now_ms = 20_000;
    caller.uac.handle(at(20_000), Input::Tick);
    assert!(caller.drain().is_empty());
    let outputs = caller.feed(&answer(&invite, 200));
    assert!(matches!(
        outputs[..],
        [
            UacOutput::Transmit { target: Target::Stream { conn: ConnId(1), .. }, .. },
            UacOutput::Answered { .. }
        ]
    ));
    let update = caller.uac.request(at(20_000), call, "UPDATE", &[], &[]).expect("answered");
    let update_sent = sent(&caller.drain()).remove(0);
    assert!(matches!(caller.feed(&answer(&update_sent, 200))[..],
        [UacOutput::Response { request, .. }] if request == update));
}

/// A caller whose calls share one connection, which falls twice: what had no final answer goes over
/// the next one word for word, what had one does not, and what is new goes the same way.
#[test]
fn what_a_fallen_connection_left_unanswered_goes_over_the_next_one_as_it_was() {
    let config = EndpointConfig { seed: 3, one_connection: true, ..Default::default() };
    let mut caller = Caller { uac: Uac::new(config), now_ms: 0, conn: Some(ConnId(1)) };
    let (local, peer) = (address("192.0.2.10:40000"), address("192.0.2.20:5060"));
    let connects = |caller: &mut Caller, number| {
        caller.conn = Some(ConnId(number));
        let conn = ConnId(number);
        caller.uac.handle(at(caller.now_ms), Input::Connected { conn, local, peer, tls: None });
        assert!(caller.drain().is_empty(), "whoever owns the sockets has what was dialled for");
    };
    let falls = |caller: &mut Caller, number| {
        caller.uac.handle(at(caller.now_ms), Input::Closed { conn: ConnId(number) });
        let outputs = caller.drain();
        let dials = |output: &UacOutput| {
            matches!(output, UacOutput::Transmit { target: Target::Dial { .. }, .. })
        };
        assert!(outputs.iter().all(dials), "{outputs:?}");
        sent(&outputs)
    };
    connects(&mut caller, 1);
    let stream = Target::Stream { conn: ConnId(1), peer, local, secure: false };
    let (up, invite) = caller.call(stream);
    caller.feed(&answer(&invite, 200));
    let (_, unanswered) = caller.call(stream);
    // A 100 is no final answer.
    caller.feed(&answer(&unanswered, 100));
    assert_eq!(falls(&mut caller, 1), std::slice::from_ref(&unanswered));
    connects(&mut caller, 2);
    let outputs = caller.feed(&answer(&unanswered, 200));
    assert!(matches!(outputs[..], [UacOutput::Transmit { .. }, UacOutput::Answered { .. }]));

    // Its ACK was lost with the connection, so the 2xx comes again.
    assert!(falls(&mut caller, 2).is_empty());
    caller.uac.request(at(0), up, "UPDATE", &[], b"").expect("answered");
    let update = sent(&caller.drain()).remove(0);
    connects(&mut caller, 3);
    let outputs = caller.feed(&answer(&unanswered, 200));
    assert_eq!(sent(&outputs)[0].method(), Some("ACK"));

    // By the route set to another address, and still over the one connection.
    caller.uac.hang_up(at(0), up, &[], b"");
    let outputs = caller.drain();
    let [UacOutput::Transmit { target: Target::Stream { conn: ConnId(3), .. }, .. }] = outputs[..]
    else {
        panic!("{outputs:?}")
    };
    let bye = sent(&outputs).remove(0);
    assert_eq!(falls(&mut caller, 3), [update.clone(), bye.clone()]);
    connects(&mut caller, 4);
    assert!(matches!(caller.feed(&answer(&update, 200))[..], [UacOutput::Response { .. }]));
    // A server that says nothing more: timer F ends it, however often the connection falls.
    caller.now_ms = 31_999;
    assert_eq!(falls(&mut caller, 4), [bye]);
    caller.now_ms = 32_000;
    caller.uac.handle(at(32_000), Input::Tick);
    let outputs = caller.drain();
    assert!(matches!(outputs[..], [UacOutput::Ended { call, by_peer: false }] if call == up));
    assert_eq!(caller.uac.calls(), 1);
}

#[test]
fn a_call_without_an_answer_fails() {
    let mut caller = Caller::new();
    let (call, _) = caller.call(udp());
    caller.now_ms = 32_000;
    caller.uac.handle(at(32_000), Input::Tick);
    assert!(matches!(caller.drain()[..],
        [UacOutput::Failed { call: found, why: Failure::Timeout }] if found == call));
    let (local, peer) = (address("192.0.2.10:40000"), address("192.0.2.20:5060"));
    caller.call(Target::Dial { local, peer, secure: false });
    caller.uac.handle(at(32_000), Input::Unreachable { peer, secure: false });
    assert!(matches!(caller.drain()[..], [UacOutput::Failed { why: Failure::Transport, .. }]));
}

#[test]
fn noise_never_panics_and_what_we_send_can_always_be_read() {
    let mut prng = Prng::new(4_475);
    let mut bench = Bench::new();
    bench.connect(1);
    let methods = ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "UPDATE", "FROB"];
    for number in 0..20_000_u64 {
        let method = methods[prng.below(7) as usize];
        let branch = prng.below(40).to_string();
        let text =
            request(method, prng.below(9) as u32, &branch, "", "Record-Route: <sip:p;lr>\r\n");
        let mut bytes = text.into_bytes();
        for _ in 0..prng.below(5) {
            let at = prng.below(bytes.len() as u64) as usize;
            bytes[at] = b"\r\n:;,<>\"@ =\xff\x00"[prng.below(13) as usize];
        }
        bench.now_ms += prng.below(400);
        let now = at(bench.now_ms);
        if prng.below(9) == 0 {
            bench.connect(number + 2);
            bench.endpoint.handle(now, Input::Stream { conn: ConnId(number + 2), bytes: &bytes });
            bench.endpoint.handle(now, Input::Closed { conn: ConnId(number + 2) });
        } else {
            let (local, peer) = (address("[2001:db8::1]:5060"), address("[2001:db8::2]:5060"));
            bench.endpoint.handle(now, Input::Datagram { local, peer, bytes: &bytes });
        }
        while let Some(output) = bench.endpoint.poll() {
            match output {
                Output::Transmit { bytes, .. } if bytes != b"\r\n" => {
                    parse_datagram(&bytes).expect("we print valid messages");
                }
                Output::Request(request) => {
                    let code = [180, 200, 200, 404, 503][prng.below(5) as usize];
                    bench.endpoint.respond(now, request.txn, Reply::new(code));
                }
                Output::Cancelled { txn } => {
                    bench.endpoint.respond(now, txn, Reply::new(487));
                }
                Output::AckMissing { dialog } => {
                    bench.endpoint.request(now, dialog, "BYE", &[], &[]);
                    bench.endpoint.close(dialog);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn every_other_answer_of_a_forked_invite_is_acknowledged_and_ended() {
    let mut caller = Caller::new();
    let (_, invite) = caller.call(udp());
    let outputs = caller.feed(&answer(&invite, 200));
    assert!(matches!(outputs[..], [UacOutput::Transmit { .. }, UacOutput::Answered { .. }]));
    let fork = answer(&invite, 200).replace(";tag=srs", ";tag=other");
    let outputs = caller.feed(&fork);
    let found = sent(&outputs);
    assert_eq!(found.len(), outputs.len(), "nothing is told of it");
    let [ack, bye] = &found[..] else { panic!("{found:?}") };
    assert_eq!((ack.method(), bye.method()), (Some("ACK"), Some("BYE")));
    for message in [ack, bye] {
        assert_eq!(message.to().expect("To").tag(), Some("other"));
    }
    assert_eq!(ack.cseq().expect("CSeq").number, invite.cseq().expect("CSeq").number);
    // Its repetition gets the ACK again and no second BYE; the first dialog is as it was.
    assert_eq!(sent(&caller.feed(&fork)).first(), Some(ack));
    assert!(caller.feed(&answer(bye, 200)).is_empty());
    assert_eq!(caller.uac.calls(), 1);
    let again = sent(&caller.feed(&answer(&invite, 200)));
    assert_eq!(again[0].to().expect("To").tag(), Some("srs"));
}
