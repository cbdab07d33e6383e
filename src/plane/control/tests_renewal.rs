//! Lines of which nothing verifies: their SRC is asked for fresh keys (F34).

use super::tests::{Bench, request};
use super::{Asked, Input, Verb};
use crate::base::ids::{Generation, RsId, Slot};
use crate::base::time::Mono;
use crate::plane::handoff::frame::{Envelope, Frame, Notice, Refusal};
use crate::store::journal::entry::{Entry, SealedCrypto};
use crate::wire::sip::Message;

const FIRST: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
const SECOND: &str = "NzB4d1BINUAvLEw6UzF3WSJ+PSdFcGdUJShpX1Zj";

fn offer(version: u32, key: &str, lines: usize) -> String {
    let mut text = format!(
        "v=0\r\no=src 1 {version} IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n"
    );
    for line in 1..=lines {
        text.push_str(&format!(
            "m=audio {port} RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n\
             a=label:{line}\r\na=sendonly\r\n",
            port = 4_000 + 2 * line
        ));
    }
    text
}

fn agree(bench: &mut Bench) {
    while !(bench.media.is_empty() && bench.jobs.is_empty()) {
        bench.media_agrees();
        bench.journal_syncs();
    }
}

/// A running RS of one secure line. `allow`: header fields of its INVITE.
fn secure(allow: &str) -> Bench {
    let mut bench = Bench::up(4);
    let invite = request("INVITE", "a", 1, "", &offer(1, FIRST, 1));
    bench.datagram(&invite.replacen("Content-Type", &format!("{allow}Content-Type"), 1));
    agree(&mut bench);
    let tag = bench.tag();
    bench.datagram(&request("ACK", "a", 1, &tag, ""));
    bench.sent.clear();
    bench
}

fn rs(bench: &Bench) -> RsId {
    *bench.control.sessions.keys().next().expect("an RS")
}

fn line(bench: &Bench) -> (Slot, Generation) {
    let stream = &bench.control.sessions[&rs(bench)].streams[0];
    (stream.description.slot, stream.generation)
}

fn crypto(bench: &Bench) -> Option<SealedCrypto> {
    bench.control.sessions[&rs(bench)].streams[0].crypto.clone()
}

/// Media says that nothing verifies, and four seconds later that it has heard something at `heard`.
fn fails(bench: &mut Bench, heard: Mono) {
    let (slot, generation) = line(bench);
    let frame = Frame::Notice(Notice::AuthFailing { slot, generation });
    bench.input(Input::Media(Envelope { id: 0, fds: 0, frame }));
    bench.tick(3_999);
    assert!(bench.media.is_empty(), "five seconds are not over");
    bench.tick(1);
    let Some(asked) = bench.media.pop() else { return };
    assert!(matches!(&asked.frame, Frame::Heard { slots } if slots[..] == [slot]));
    let frame = Frame::HeardAt { slots: vec![(slot, heard)] };
    bench.input(Input::Media(Envelope { id: asked.id, fds: 0, frame }));
}

fn failing(bench: &mut Bench) {
    fails(bench, Mono(0));
}

fn sent(bench: &Bench, method: &str) -> Vec<Message> {
    bench.sent.iter().filter(|message| message.method() == Some(method)).cloned().collect()
}

/// The SRC answers our last INVITE.
fn answers(bench: &mut Bench, code: u16, fields: &str, sdp: &str) {
    let invite = sent(bench, "INVITE").pop().expect("an INVITE");
    let mut text = format!("SIP/2.0 {code} Answer\r\n");
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        let value = invite.headers.get(name).expect("every request has it");
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("Contact: <sip:src@192.0.2.10:5060>;+sip.src\r\n");
    text.push_str(fields);
    if !sdp.is_empty() {
        text.push_str("Content-Type: application/sdp\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{sdp}", sdp.len()));
    bench.datagram(&text);
}

#[test]
fn f34_an_src_whose_keys_do_not_match_is_asked_for_others_once_for_each() {
    let mut bench = secure("");
    failing(&mut bench);
    let invite = sent(&bench, "INVITE").pop().expect("it is asked");
    assert!(invite.body.is_empty() && invite.content_type().is_none(), "the SRC makes the offer");
    assert!(invite.headers.get("Contact").is_some_and(|contact| contact.ends_with(";+sip.srs")));
    let before = crypto(&bench);
    answers(&mut bench, 200, "", &offer(2, SECOND, 1));
    assert!(sent(&bench, "ACK").is_empty(), "nothing is promised yet");
    assert!(matches!(bench.media[..], [Envelope { frame: Frame::Update { .. }, .. }]));
    bench.media_agrees();
    assert!(sent(&bench, "ACK").is_empty(), "the journal does not have it");
    bench.journal_syncs();
    let acks = sent(&bench, "ACK");
    let answer = String::from_utf8_lossy(&acks[0].body).into_owned();
    assert!(acks.len() == 1 && answer.contains("a=crypto:1 ") && answer.contains("m=audio 20000 "));
    assert_ne!(crypto(&bench), before);
    let kept = |entry: &Entry| match entry {
        Entry::Changed { streams, .. } => streams[0].crypto == crypto(&bench),
        _ => false,
    };
    assert!(bench.journal.iter().any(kept), "a successor knows the keys");
    // A 2xx that comes again gets the same ACK.
    answers(&mut bench, 200, "", &offer(2, SECOND, 1));
    assert_eq!(sent(&bench, "ACK").len(), 2);

    // Others, so it may be asked again; the same ones again, and it is not.
    bench.sent.clear();
    failing(&mut bench);
    assert_eq!(sent(&bench, "INVITE").len(), 1);
    answers(&mut bench, 200, "", &offer(3, SECOND, 1));
    agree(&mut bench);
    assert_eq!(sent(&bench, "ACK").len(), 1);
    assert!(bench.log.iter().any(|text| text.contains("the same keys again")));
    bench.sent.clear();
    failing(&mut bench);
    bench.tick(60_000);
    assert!(sent(&bench, "INVITE").is_empty(), "{:?}", bench.log);
    assert_eq!(bench.control.live(), 1);
}

#[test]
fn a_line_that_was_heard_meanwhile_is_none_of_those() {
    let mut bench = secure("");
    let heard = bench.now;
    fails(&mut bench, heard);
    bench.tick(60_000);
    assert!(sent(&bench, "INVITE").is_empty());
    // It is when it fails again.
    failing(&mut bench);
    assert_eq!(sent(&bench, "INVITE").len(), 1);
}

#[test]
fn offers_that_cross_and_an_src_without_time_are_asked_again_and_a_refusal_is_final() {
    for (code, fields, wait_ms) in [(491, "", 2_010), (500, "Retry-After: 7\r\n", 7_000)] {
        let mut bench = secure("");
        failing(&mut bench);
        for asked in 1..=5 {
            assert_eq!(sent(&bench, "INVITE").len(), asked, "{code}");
            answers(&mut bench, code, fields, "");
            bench.tick(wait_ms);
        }
        bench.tick(60_000);
        assert_eq!(sent(&bench, "INVITE").len(), 5, "{code}");
        assert!(bench.log.iter().any(|text| text.contains("gives no fresh keys")));
        assert_eq!(bench.control.live(), 1);
    }
    let mut bench = secure("");
    failing(&mut bench);
    answers(&mut bench, 488, "", "");
    failing(&mut bench);
    bench.tick(60_000);
    assert_eq!(sent(&bench, "INVITE").len(), 1);
    assert_eq!((bench.control.live(), sent(&bench, "BYE").len()), (1, 0));
    // A dialog that is not known there is over, as with any request of ours (RFC 5057 §5.1).
    let mut bench = secure("");
    failing(&mut bench);
    answers(&mut bench, 481, "", "");
    agree(&mut bench);
    assert_eq!(sent(&bench, "BYE").len(), 1);
}

#[test]
fn who_takes_no_invite_is_not_asked_and_who_lets_it_ring_not_for_long() {
    let mut bench = secure("Allow: ACK, BYE, CANCEL, UPDATE\r\n");
    failing(&mut bench);
    bench.tick(60_000);
    assert!(sent(&bench, "INVITE").is_empty());
    let mut bench = secure("Allow: INVITE, ACK, BYE, CANCEL\r\n");
    failing(&mut bench);
    answers(&mut bench, 180, "", "");
    bench.tick(9_999);
    assert!(sent(&bench, "CANCEL").is_empty());
    bench.tick(1);
    assert_eq!(sent(&bench, "CANCEL").len(), 1);
    answers(&mut bench, 487, "", "");
    failing(&mut bench);
    assert_eq!((sent(&bench, "INVITE").len(), bench.control.live()), (1, 1));
}

#[test]
fn an_answer_without_an_offer_is_acknowledged_and_changes_nothing() {
    for sdp in ["", "no SDP"] {
        let mut bench = secure("");
        let before = crypto(&bench);
        failing(&mut bench);
        answers(&mut bench, 200, "", sdp);
        let acks = sent(&bench, "ACK");
        assert!(acks.len() == 1 && acks[0].body.is_empty());
        assert_eq!((bench.control.live(), crypto(&bench)), (1, before));
    }
}

/// The SRC has the keys that it offers, whatever becomes of them here.
#[test]
fn what_media_refuses_it_is_asked_again_and_a_line_that_is_added_then_is_not_promised() {
    let mut bench = secure("");
    let before = crypto(&bench);
    failing(&mut bench);
    answers(&mut bench, 200, "", &offer(2, SECOND, 2));
    assert_eq!(bench.media.len(), 2, "one changes, one opens");
    bench.journal_syncs();
    bench.media_refuses(Refusal::QueueFull);
    let acks = sent(&bench, "ACK");
    let answer = String::from_utf8_lossy(&acks[0].body).into_owned();
    assert!(answer.contains("m=audio 20000 ") && answer.contains("m=audio 0 "), "{answer}");
    assert_ne!(crypto(&bench), before);
    bench.tick(60);
    assert!(bench.media.iter().any(|asked| matches!(asked.frame, Frame::Open(_))));
    agree(&mut bench);
    let streams: Vec<_> = bench
        .journal
        .iter()
        .filter_map(|entry| match entry {
            Entry::Changed { streams, .. } => Some(streams.len()),
            _ => None,
        })
        .collect();
    assert_eq!(streams.last(), Some(&1), "{streams:?}");
    bench.settles();
    assert_eq!((bench.control.live(), bench.control.job_count()), (1, 0));
}

#[test]
fn an_offer_that_comes_when_all_is_over_is_acknowledged_and_nothing_is_left() {
    let mut bench = secure("");
    failing(&mut bench);
    let tag = bench.control.sip.snapshot(bench.control.sessions[&rs(&bench)].dialog.expect("one"));
    let tag = tag.expect("a dialog").local_tag;
    bench.datagram(&request("BYE", "a", 2, &tag, ""));
    agree(&mut bench);
    answers(&mut bench, 200, "", &offer(2, SECOND, 1));
    assert_eq!(sent(&bench, "ACK").len(), 1);
    bench.settles();
    bench.nothing_is_left();
}

#[test]
fn in_an_operators_pause_nothing_is_asked_for_and_an_offer_that_crosses_it_stays_paused() {
    let mut bench = secure("");
    let pause = |bench: &mut Bench| {
        let rs = rs(bench);
        bench.input(Input::Asked(Asked { id: 1, uid: 7, verb: Verb::Pause { rs } }));
        agree(bench);
    };
    failing(&mut bench);
    pause(&mut bench);
    answers(&mut bench, 200, "", &offer(2, SECOND, 1));
    agree(&mut bench);
    let ack = sent(&bench, "ACK").pop().expect("an answer");
    assert!(String::from_utf8_lossy(&ack.body).contains("a=inactive"));
    assert!(!bench.control.sessions[&rs(&bench)].streams[0].active);
    let mut bench = secure("");
    let (slot, generation) = line(&bench);
    let frame = Frame::Notice(Notice::AuthFailing { slot, generation });
    bench.input(Input::Media(Envelope { id: 0, fds: 0, frame }));
    pause(&mut bench);
    let offers = sent(&bench, "INVITE").len();
    bench.tick(4_000);
    if let Some(asked) = bench.media.pop() {
        let frame = Frame::HeardAt { slots: vec![(slot, Mono(0))] };
        bench.input(Input::Media(Envelope { id: asked.id, fds: 0, frame }));
    }
    let asked = |one: &Message| one.body.is_empty();
    assert!(!sent(&bench, "INVITE")[offers..].iter().any(asked));
}
