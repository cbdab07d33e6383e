//! Session timers (RFC 4028) between a scripted SRC, a scripted media and a scripted journal, hours in
//! milliseconds.

use super::Input;
use super::tests::{Bench, invite, request, sdp};
use crate::base::ids::Slot;
use crate::base::time::Mono;
use crate::plane::handoff::frame::{Envelope, Frame};
use crate::store::event::Origin;
use crate::store::journal::Standings;
use crate::store::journal::entry::Entry;
use crate::wire::sip::Message;

/// A request with further header fields.
pub(super) fn with(text: &str, fields: &str) -> String {
    text.replacen("Max-Forwards: 70\r\n", &format!("Max-Forwards: 70\r\n{fields}"), 1)
}

/// A running RS whose INVITE had `fields`.
fn started(fields: &str) -> Bench {
    let mut bench = Bench::up(4);
    bench.datagram(&with(&invite("call-1", 1, "", "sendonly", 1), fields));
    bench.media_agrees();
    bench.journal_syncs();
    assert_eq!(bench.codes(), [200]);
    let tag = bench.tag();
    bench.datagram(&request("ACK", "call-1", 1, &tag, ""));
    bench
}

/// The SRC answers what it was sent last, with further header fields.
pub(super) fn answers(bench: &mut Bench, code: u16, fields: &str) {
    let asked = bench.last().clone();
    let mut text = format!("SIP/2.0 {code} Whatever\r\n");
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        for value in asked.headers.all(name) {
            text += &format!("{name}: {value}\r\n");
        }
    }
    bench.datagram(&(text + fields + "Content-Length: 0\r\n\r\n"));
}

pub(super) fn header(message: &Message, name: &str) -> String {
    message.headers.get(name).unwrap_or("").to_owned()
}

/// Media says when it heard the RS last.
fn media_heard(bench: &mut Bench, last: Mono) {
    let asked = bench.media.iter().position(|asked| matches!(asked.frame, Frame::Heard { .. }));
    let id = bench.media.remove(asked.expect("control asks")).id;
    let frame = Frame::HeardAt { slots: vec![(Slot(0), last)] };
    bench.input(Input::Media(Envelope { id, fds: 0, frame }));
}

fn requests(bench: &Bench, method: &str) -> usize {
    bench.sent.iter().filter(|message| message.method() == Some(method)).count()
}

const PEER_REFRESHES: &str = "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n";

#[test]
fn the_answer_says_who_refreshes_and_a_brief_interval_gets_422() {
    let bench = started(PEER_REFRESHES);
    assert_eq!(header(bench.last_200(), "Session-Expires"), "90;refresher=uac");
    assert_eq!(header(bench.last_200(), "Require"), "timer");
    let bench = started("Require: timer\r\nSession-Expires: 7200\r\n");
    assert_eq!(header(bench.last_200(), "Session-Expires"), "1800;refresher=uas");
    assert_eq!(header(bench.last_200(), "Require"), "");

    let mut bench = Bench::up(4);
    let fields = "Supported: timer\r\nSession-Expires: 60\r\n";
    bench.datagram(&with(&invite("call-1", 1, "", "sendonly", 1), fields));
    assert_eq!(bench.codes(), [422]);
    assert_eq!(header(bench.last(), "Min-SE"), "90");
    assert!(bench.media.is_empty() && bench.jobs.is_empty());
}

#[test]
fn a_refresh_of_ours_touches_no_media_and_keeps_the_sdp() {
    // Without UPDATE in Allow it is a re-INVITE with the same SDP; with it an UPDATE without a body.
    for (fields, method) in
        [("Allow: INVITE, BYE\r\n", "INVITE"), ("Allow: INVITE, UPDATE\r\n", "UPDATE")]
    {
        let mut bench = started(&format!("Supported: timer\r\n{fields}"));
        let answer = String::from_utf8_lossy(&bench.last_200().body).into_owned();
        bench.tick(899_000);
        assert_eq!(requests(&bench, method), 0);
        bench.tick(1_000);
        assert_eq!(bench.last().method(), Some(method));
        assert_eq!(header(bench.last(), "Session-Expires"), "1800;refresher=uac");
        assert_eq!(header(bench.last(), "Min-SE"), "90");
        let body = String::from_utf8_lossy(&bench.last().body).into_owned();
        assert_eq!(body, if method == "INVITE" { answer } else { String::new() });
        answers(&mut bench, 200, "Require: timer\r\nSession-Expires: 600;refresher=uac\r\n");
        assert!(bench.media.is_empty(), "{method}: media hears nothing of it");
        bench.journal_syncs();
        assert!(matches!(
            bench.journal.last(),
            Some(Entry::Timer { orphan: false, timer: Some(timer), .. }) if timer.interval_s == 600
        ));
        let before = requests(&bench, method);
        bench.tick(300_000);
        assert_eq!(requests(&bench, method), before + 1, "the new interval counts");
    }
}

#[test]
fn a_refresh_of_the_peer_moves_the_end() {
    let mut bench = started(PEER_REFRESHES);
    let tag = bench.tag();
    bench.tick(50_000);
    bench.datagram(&with(&request("UPDATE", "call-1", 2, &tag, ""), PEER_REFRESHES));
    bench.journal_syncs();
    assert_eq!(header(bench.last_200(), "Session-Expires"), "90;refresher=uac");
    // A re-INVITE with the SDP of before: media is asked nothing.
    bench.tick(50_000);
    let again = request("INVITE", "call-1", 3, &tag, &sdp("sendonly", 1));
    bench.datagram(&with(&again, PEER_REFRESHES));
    bench.journal_syncs();
    bench.datagram(&request("ACK", "call-1", 3, &tag, ""));
    assert!(bench.media.is_empty());
    bench.tick(59_000);
    assert!(bench.media.is_empty(), "60 s from the last refresh on");
    bench.tick(1_000);
    assert!(bench.media.iter().any(|asked| matches!(asked.frame, Frame::Heard { .. })));
}

#[test]
fn f51_an_expired_rs_is_kept_while_media_comes_and_ended_once_it_is_silent() {
    let mut bench = started(PEER_REFRESHES);
    bench.tick(60_000);
    let (now, calls) = (bench.now, requests(&bench, "INVITE"));
    media_heard(&mut bench, now);
    bench.tick(0);
    assert!(bench.log.iter().any(|line| line.starts_with("alarm: ")), "{:?}", bench.log);
    assert_eq!(requests(&bench, "INVITE"), calls + 1, "its SRC is asked");
    bench.journal_syncs();
    assert!(matches!(bench.journal.last(), Some(Entry::Timer { orphan: true, .. })));
    // No answer to the re-INVITE changes anything while media comes.
    bench.tick(30_000);
    let now = bench.now;
    media_heard(&mut bench, now);
    assert_eq!(requests(&bench, "BYE"), 0);
    bench.tick(30_000);
    media_heard(&mut bench, now);
    bench.journal_syncs();
    let bye = bench.sent.iter().find(|message| message.method() == Some("BYE")).expect("a BYE");
    assert!(header(bye, "Reason").contains("session timer expired"), "{}", header(bye, "Reason"));
    assert!(matches!(
        bench.journal.iter().rfind(|entry| matches!(entry, Entry::Ended { .. })),
        Some(Entry::Ended { by: Origin::Observed, bye: true, .. })
    ));
    bench.settles();
    bench.nothing_is_left();
}

#[test]
fn f51_an_expired_rs_without_media_is_over_at_once() {
    let mut bench = started(PEER_REFRESHES);
    bench.tick(60_000);
    media_heard(&mut bench, Mono(0));
    bench.journal_syncs();
    assert_eq!((requests(&bench, "BYE"), requests(&bench, "INVITE")), (1, 0));
}

#[test]
fn f51_an_orphan_whose_src_answers_is_none_any_more() {
    let mut bench = started(PEER_REFRESHES);
    bench.tick(60_000);
    let now = bench.now;
    media_heard(&mut bench, now);
    bench.tick(0);
    answers(&mut bench, 200, "Session-Expires: 90;refresher=uas\r\n");
    bench.journal_syncs();
    assert!(matches!(bench.journal.last(), Some(Entry::Timer { orphan: false, .. })));
    assert!(bench.log.iter().any(|line| line.contains("is there again")));
    bench.media.clear();
    bench.tick(59_000);
    assert!(bench.media.is_empty(), "the whole interval again");
}

#[test]
fn f51_the_timer_outlives_control() {
    let mut before = started(PEER_REFRESHES);
    before.journal_syncs();
    before.tick(40_000);
    let reborn = |before: &mut Bench| {
        let mut after = Bench::new(4, 2);
        after.now = before.now;
        after.control.recover(after.clock(), &Standings::of(&before.journal));
        after.input(Input::MediaUp);
        after.media_holds(&before.held());
        after.journal = std::mem::take(&mut before.journal);
        while !(after.media.is_empty() && after.jobs.is_empty()) {
            after.media_agrees();
            after.journal_syncs();
        }
        after
    };
    let mut after = reborn(&mut before);
    after.tick(19_000);
    assert!(after.media.is_empty(), "60 s are not over");
    after.tick(1_000);
    let now = after.now;
    media_heard(&mut after, now);
    after.journal_syncs();
    let mut third = reborn(&mut after);
    third.tick(0);
    assert_eq!(requests(&third, "INVITE"), 1, "an orphan's SRC is asked by the successor too");
    // Its Contact and Via are the dialog's own, and numbers go on.
    assert_eq!(third.last().call_id(), Some("call-1"));
}

#[test]
fn a_refresh_that_is_refused_or_unanswered_is_judged_by_its_code() {
    let refreshed = || {
        let mut bench = started("Supported: timer\r\nAllow: UPDATE\r\n");
        bench.tick(900_000);
        assert_eq!(requests(&bench, "UPDATE"), 1);
        bench
    };
    let mut bench = refreshed();
    answers(&mut bench, 491, "");
    bench.tick(2_010);
    assert_eq!(requests(&bench, "UPDATE"), 2, "after a random wait");
    answers(&mut bench, 422, "Min-SE: 3600\r\n");
    bench.tick(900_000);
    assert_eq!(header(bench.last(), "Session-Expires"), "3600;refresher=uac");
    answers(&mut bench, 501, "");
    assert_eq!(requests(&bench, "BYE"), 0);
    bench.tick(10_000);
    answers(&mut bench, 481, "");
    bench.journal_syncs();
    assert_eq!(requests(&bench, "BYE"), 1, "it knows nothing of the session");

    // A peer that answers without Session-Expires has turned it off.
    let mut bench = refreshed();
    answers(&mut bench, 200, "");
    bench.tick(10_000_000);
    assert_eq!((requests(&bench, "UPDATE"), requests(&bench, "BYE")), (1, 0));

    // Silence is judged by what media hears.
    let mut bench = refreshed();
    bench.tick(32_000);
    bench.tick(0);
    let now = bench.now;
    media_heard(&mut bench, now);
    assert_eq!(requests(&bench, "BYE"), 0);
}

#[test]
fn a_refresh_waits_while_an_offer_of_the_peer_is_open() {
    let mut bench = started("Supported: timer\r\nAllow: UPDATE\r\n");
    let tag = bench.tag();
    bench.tick(899_900);
    bench.datagram(&with(&invite("call-1", 2, &tag, "inactive", 2), "Supported: timer\r\n"));
    bench.tick(100);
    assert_eq!(requests(&bench, "UPDATE"), 0, "the re-INVITE is not answered");
    bench.media_agrees();
    bench.journal_syncs();
    bench.datagram(&request("ACK", "call-1", 2, &tag, ""));
    bench.tick(60_000);
    assert_eq!(requests(&bench, "UPDATE"), 0, "it was a refresh itself");
}
