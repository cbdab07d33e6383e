//! RSs that we start: an INVITE without offer, the offer in its 200, the answer in our ACK.

use std::net::SocketAddr;

use super::tests::{Bench, invite, request};
use super::{Asked, Input, Outcome, Verb};
use crate::config::model::{Peer, PeerMatch};
use crate::plane::handoff::frame::{Frame, Refusal};
use crate::proto::sip::Transport;
use crate::store::event::Origin;
use crate::store::journal::Standings;
use crate::store::journal::entry::Entry;
use crate::wire::sip::Message;

const URI: &str = "sip:turret@192.0.2.10";
const OFFER: &str = "v=0\r\no=- 7 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
                     m=audio 49170 RTP/AVP 0\r\na=label:1\r\na=sendonly\r\n\
                     m=audio 49172 RTP/AVP 0\r\na=label:2\r\na=sendonly\r\n";

fn start(bench: &mut Bench, id: u64, to: &str) {
    let address = SocketAddr::from(([192, 0, 2, 10], 5060));
    let verb = Verb::Start { to: to.to_owned(), address, transport: Transport::Udp };
    bench.input(Input::Asked(Asked { id, uid: 7, verb }));
}

/// A recorder that may call one SRC.
fn bench() -> Bench {
    let mut bench = Bench::up(4);
    bench.control.config.sip.udp = vec!["127.0.0.1:5060".parse().expect("an address")];
    bench.control.config.peers = vec![Peer {
        name: "turret".to_owned(),
        matches: PeerMatch::Address([192, 0, 2, 10].into()),
        digest: None,
        digest_md5: false,
        strict: None,
        srtp: None,
        suites: None,
        unencrypted: None,
        secure_signalling: None,
        nat: false,
        call: Some(URI.to_owned()),
    }];
    bench
}

fn calling() -> Bench {
    let mut bench = bench();
    start(&mut bench, 1, URI);
    bench
}

/// The SRC answers our INVITE.
fn answers(bench: &mut Bench, code: u16, contact: &str, sdp: &str) {
    let invite = sent(bench, "INVITE").expect("an INVITE").clone();
    let mut text = format!("SIP/2.0 {code} Answer\r\n");
    for name in ["Via", "From", "Call-ID", "CSeq"] {
        let value = invite.headers.get(name).expect("every request has it");
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("To: <{URI}>;tag=src\r\nContact: {contact}\r\nServer: Turret/1\r\n"));
    text.push_str("Allow: INVITE, UPDATE, BYE\r\nContent-Type: application/sdp\r\n");
    text.push_str(&format!("Content-Length: {}\r\n\r\n{sdp}", sdp.len()));
    bench.datagram(&text);
}

const SRC: &str = "<sip:turret@192.0.2.10>;+sip.src";

fn sent<'b>(bench: &'b Bench, method: &str) -> Option<&'b Message> {
    bench.sent.iter().rev().find(|message| message.method() == Some(method))
}

fn body(message: &Message) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

#[test]
fn req001_an_rs_that_we_start_is_acknowledged_when_media_and_journal_have_it() {
    let mut bench = calling();
    let invite = sent(&bench, "INVITE").expect("it is called");
    assert!(invite.body.is_empty(), "the SRC makes the offer");
    assert_eq!(invite.headers.get("Require"), Some("siprec"));
    assert!(invite.headers.get("Contact").is_some_and(|contact| contact.ends_with(";+sip.srs")));
    answers(&mut bench, 200, SRC, OFFER);
    assert!(sent(&bench, "ACK").is_none() && bench.outcomes.is_empty(), "nothing is promised yet");
    bench.media_agrees();
    assert!(sent(&bench, "ACK").is_none(), "the journal does not have it");
    bench.journal_syncs();
    let ack = sent(&bench, "ACK").expect("the answer");
    assert_eq!(body(ack).matches("a=recvonly").count(), 2, "{}", body(ack));
    let rs = *bench.control.sessions.keys().next().expect("an RS");
    assert_eq!(bench.outcomes, [(1, Outcome::Started(rs))]);
    let opened = bench.journal.iter().find_map(|entry| match entry {
        Entry::Opened { src, bodies, .. } => {
            Some((src.identity.clone(), src.user_agent.clone(), *bodies))
        }
        _ => None,
    });
    assert_eq!(opened, Some((URI.to_owned(), "Turret/1".to_owned(), Some(1))));
    // A 200 that comes again gets the same ACK.
    let first = body(ack);
    let acks = |bench: &Bench| bench.sent.iter().filter(|one| one.method() == Some("ACK")).count();
    assert_eq!(acks(&bench), 1);
    answers(&mut bench, 200, SRC, OFFER);
    assert_eq!((acks(&bench), body(sent(&bench, "ACK").expect("again"))), (2, first));
}

#[test]
fn an_rs_that_we_started_is_changed_and_ended_by_its_src_also_after_a_restart() {
    for restarts in [false, true] {
        let mut bench = calling();
        answers(&mut bench, 200, SRC, OFFER);
        bench.media_agrees();
        bench.journal_syncs();
        let invite = sent(&bench, "INVITE").expect("ours").clone();
        let call = invite.call_id().expect("a Call-ID").to_owned();
        let ours = invite.headers.get("From").expect("a From").to_owned();
        if restarts {
            let before = bench;
            bench = Bench::new(4, 2);
            bench.now = before.now;
            bench.control.recover(bench.clock(), &Standings::of(&before.journal));
            bench.input(Input::MediaUp);
            bench.media_holds(&before.held());
            bench.journal = before.journal.clone();
            while !(bench.media.is_empty() && bench.jobs.is_empty()) {
                bench.media_agrees();
                bench.journal_syncs();
            }
        }
        assert_eq!(bench.control.live(), 1);
        bench.sent.clear();
        // In its dialog the SRC's tag is `src`, ours is that of our From.
        let tag = ours.split(";tag=").nth(1).expect("a tag").to_owned();
        let of = |text: String| {
            let from = text.lines().find(|line| line.starts_with("From:")).expect("one").to_owned();
            text.replace(&from, &format!("From: <{URI}>;tag=src"))
        };
        bench.datagram(&of(invite_in(&call, 1, &tag)));
        bench.media_agrees();
        bench.journal_syncs();
        assert_eq!(bench.last().code(), Some(200), "{:?}", bench.codes());
        assert!(body(bench.last()).contains("a=inactive"));
        bench.datagram(&of(request("BYE", &call, 2, &tag, "")));
        bench.settles();
        assert_eq!(bench.last().code(), Some(200));
        bench.nothing_is_left();
    }
}

fn invite_in(call: &str, cseq: u32, tag: &str) -> String {
    invite(call, cseq, tag, "inactive", 2)
}

#[test]
fn who_is_called_is_what_the_configuration_says_and_a_refusal_is_told() {
    let mut bench = bench();
    start(&mut bench, 1, "sip:somebody@192.0.2.10");
    assert!(
        matches!(&bench.outcomes[..], [(1, Outcome::Refused(why))] if why.contains("no `call`"))
    );
    assert!(bench.sent.is_empty());
    start(&mut bench, 2, URI);
    answers(&mut bench, 486, SRC, "");
    assert!(matches!(&bench.outcomes[1..], [(2, Outcome::Refused(why))] if why.contains("486")));
    bench.sent.clear();
    start(&mut bench, 3, URI);
    bench.tick(32_001);
    assert!(
        matches!(&bench.outcomes[2..], [(3, Outcome::Refused(why))] if why.contains("not answer"))
    );
    assert_eq!(bench.control.live(), 0);
}

/// Flows of RFC 7866 §7.2: ports 0, then BYE.
#[test]
fn what_cannot_be_recorded_is_answered_by_ports_of_zero_and_bye() {
    let plain = "<sip:turret@192.0.2.10>";
    let none = OFFER.replace("m=audio", "m=application");
    for (contact, offer, why) in
        [(plain, OFFER, "+sip.src"), (SRC, &*none, "no line"), (SRC, "", "offer")]
    {
        let mut bench = calling();
        answers(&mut bench, 200, contact, offer);
        let ack = sent(&bench, "ACK").expect("acknowledged all the same");
        let ports: Vec<String> = body(ack)
            .lines()
            .filter_map(|line| line.strip_prefix("m=")?.split(' ').nth(1).map(str::to_owned))
            .collect();
        assert!(ports.iter().all(|port| port == "0"), "{ports:?}");
        assert_eq!(ports.is_empty(), offer.is_empty());
        assert!(sent(&bench, "BYE").is_some());
        assert!(matches!(&bench.outcomes[..], [(1, Outcome::Refused(text))] if text.contains(why)));
        bench.settles();
        bench.nothing_is_left();
    }
}

#[test]
fn what_media_does_not_take_is_declined_and_the_journal_says_so() {
    let mut bench = calling();
    answers(&mut bench, 200, SRC, OFFER);
    bench.journal_syncs();
    bench.media_refuses(Refusal::RingLag);
    assert!(body(sent(&bench, "ACK").expect("an ACK")).contains("m=audio 0 "));
    assert!(sent(&bench, "BYE").is_some());
    assert!(matches!(&bench.outcomes[..], [(1, Outcome::Refused(_))]));
    bench.settles();
    let over = |entry: &Entry| matches!(entry, Entry::Ended { by: Origin::Srs, reason, .. } if reason.starts_with("not started"));
    assert!(bench.journal.iter().any(over));
    bench.nothing_is_left();
}

#[test]
fn a_recorder_that_ends_takes_no_answer_to_a_call_of_before() {
    let mut bench = calling();
    bench.input(Input::Keeper(Frame::Stop));
    answers(&mut bench, 200, SRC, OFFER);
    assert!(body(sent(&bench, "ACK").expect("an ACK")).contains("m=audio 0 "));
    assert!(
        matches!(&bench.outcomes[..], [(1, Outcome::Refused(why))] if why.contains("draining"))
    );
}

/// RFC 3261 §9.1, §15: the operator has heard that nothing came of it.
#[test]
fn an_src_that_only_rings_is_given_up_and_an_answer_that_crosses_the_cancel_is_hung_up_on() {
    for code in [200, 487] {
        let mut bench = calling();
        answers(&mut bench, 180, SRC, "");
        bench.tick(31_000);
        assert!(bench.outcomes.is_empty() && sent(&bench, "CANCEL").is_none());
        bench.tick(1_001);
        assert!(sent(&bench, "CANCEL").is_some());
        let gone = |why: &str| why.contains("not answer");
        assert!(matches!(&bench.outcomes[..], [(1, Outcome::Refused(why))] if gone(why)));
        answers(&mut bench, code, SRC, if code == 200 { OFFER } else { "" });
        assert!(sent(&bench, "ACK").is_some());
        assert_eq!(sent(&bench, "BYE").is_some(), code == 200);
        assert_eq!((bench.control.live(), bench.outcomes.len()), (0, 1));
        assert!(bench.control.calling.is_empty());
        bench.settles();
        bench.nothing_is_left();
    }
}

#[test]
fn an_src_that_hangs_up_before_our_ack_leaves_nothing_running() {
    let mut bench = calling();
    answers(&mut bench, 200, SRC, OFFER);
    let invite = sent(&bench, "INVITE").expect("ours").clone();
    let call = invite.call_id().expect("a Call-ID").to_owned();
    let tag = invite.headers.get("From").and_then(|from| from.split(";tag=").nth(1));
    let tag = tag.expect("a tag").to_owned();
    let of = |text: String| {
        let from = text.lines().find(|line| line.starts_with("From:")).expect("one").to_owned();
        text.replace(&from, &format!("From: <{URI}>;tag=src"))
    };
    // Its offer has no answer yet (RFC 3311 §5.2).
    bench.datagram(&of(request("UPDATE", &call, 1, &tag, "")));
    assert_eq!(bench.last().code(), Some(500));
    assert!(bench.last().headers.get("Retry-After").is_some());
    bench.datagram(&of(request("BYE", &call, 2, &tag, "")));
    assert_eq!(bench.last().code(), Some(200));
    assert!(body(sent(&bench, "ACK").expect("an ACK")).contains("m=audio 0 "));
    assert!(sent(&bench, "BYE").is_none(), "it is over already");
    assert!(matches!(&bench.outcomes[..], [(1, Outcome::Refused(why))] if why.contains("hung up")));
    bench.settles();
    let over = |entry: &Entry| matches!(entry, Entry::Ended { by: Origin::Src, .. });
    assert!(bench.journal.iter().any(over));
    bench.nothing_is_left();
}

#[test]
fn why_nothing_of_an_offer_is_recorded_is_told_to_the_operator() {
    let mut bench = calling();
    answers(&mut bench, 200, SRC, &OFFER.replace("RTP/AVP", "UDP/TLS/RTP/SAVP"));
    let why = "DTLS";
    assert!(matches!(&bench.outcomes[..], [(1, Outcome::Refused(text))] if text.contains(why)));
    let reason = sent(&bench, "BYE").and_then(|bye| bye.headers.get("Reason"));
    assert!(reason.is_some_and(|reason| reason.contains(why) && reason.matches('"').count() == 2));
    let mut bench = calling();
    answers(&mut bench, 200, SRC, "no SDP");
    assert!(matches!(&bench.outcomes[..], [(1, Outcome::Refused(text))] if text.contains("sdp")));
}
