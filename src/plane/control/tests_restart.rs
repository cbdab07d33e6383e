//! F59: signalling outlives control. Each step may find another control, which knows the journal
//! and nothing else.

use std::net::SocketAddr;

use super::Input;
use super::tests::{Bench, invite, request, sdp};
use crate::base::time::Mono;
use crate::plane::handoff::frame::Frame;
use crate::proto::sip::{self, ConnId};
use crate::store::catalog::Journalled;
use crate::store::journal::Standings;
use crate::store::journal::entry::Entry;
use crate::wire::sip::Message;

/// Control dies; its successor has the journal, and media still holds everything.
fn reborn(mut before: Bench) -> Bench {
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
}

/// An RS whose 200 has left and whose ACK has not come.
fn unacked() -> Bench {
    let mut bench = Bench::up(4);
    bench.datagram(&invite("call-1", 1, "", "sendonly", 1));
    bench.media_agrees();
    bench.journal_syncs();
    bench
}

fn has_said_bye(bench: &Bench) -> bool {
    bench.sent.iter().any(|message| message.method() == Some("BYE"))
}

/// The SRC answers what it was sent last.
fn src_answers(bench: &mut Bench, code: u16) {
    let asked = bench.last().clone();
    let mut text = format!("SIP/2.0 {code} Whatever\r\n");
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        for value in asked.headers.all(name) {
            text += &format!("{name}: {value}\r\n");
        }
    }
    bench.datagram(&(text + "Content-Length: 0\r\n\r\n"));
}

fn bodies(bench: &Bench) -> usize {
    bench.journal.iter().filter(|entry| matches!(entry, Entry::Body { .. })).count()
}

/// What a UAC matches a response by, and what it reads in it.
fn essence(answer: &Message) -> (Option<u16>, Vec<String>, Vec<u8>) {
    let fields = ["Via", "From", "To", "Call-ID", "CSeq", "Record-Route", "Contact"];
    let values = fields.iter().flat_map(|name| answer.headers.all(name).map(str::to_owned));
    (answer.code(), values.collect(), answer.body.clone())
}

/// Over a stream, from `port` of the SRC.
fn connect(bench: &mut Bench, conn: u64, port: u16) {
    let local = "127.0.0.1:5060".parse().expect("an address");
    let peer = SocketAddr::from(([192, 0, 2, 10], port));
    bench.input(Input::Sip(sip::Input::Connected { conn: ConnId(conn), local, peer, tls: None }));
}

fn stream(bench: &mut Bench, conn: u64, text: &str) {
    let text = text.replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let bytes = text.as_bytes();
    bench.input(Input::Sip(sip::Input::Stream { conn: ConnId(conn), bytes }));
}

#[test]
fn f59_the_successor_repeats_a_200_whose_ack_has_not_come() {
    let mut before = Bench::up(4);
    let routed = invite("call-1", 1, "", "sendonly", 1).replace(
        "From:",
        "Via: SIP/2.0/UDP 192.0.2.77;branch=z9hG4bK-far\r\nRecord-Route: <sip:p@192.0.2.9;lr>\r\nFrom:",
    );
    before.datagram(&routed);
    before.media_agrees();
    before.journal_syncs();
    let wanted = essence(before.last());
    assert!(wanted.0 == Some(200) && wanted.1.len() == 8, "{wanted:?}");
    let tag = before.tag();
    before.tick(200);
    let mut after = reborn(before);
    assert_eq!(after.codes(), [200], "it may never have left");
    assert_eq!(essence(after.last()), wanted);
    // T1, doubling.
    for (ms, count) in [(499, 1), (1, 2), (999, 2), (1, 3), (2_000, 4)] {
        after.tick(ms);
        assert_eq!(after.codes().len(), count);
        assert_eq!(essence(after.last()), wanted);
    }
    after.datagram(&request("ACK", "call-1", 1, &tag, ""));
    after.tick(3_999);
    after.tick(40_000);
    assert_eq!(after.codes(), [200; 4]);
    assert!(!has_said_bye(&after));
    assert_eq!(after.control.live(), 1);
}

#[test]
fn f59_an_ack_that_may_have_come_before_the_restart_is_not_missed() {
    let mut before = unacked();
    let tag = before.tag();
    before.datagram(&request("ACK", "call-1", 1, &tag, ""));
    before.tick(10_000);
    let mut after = reborn(before);
    for _ in 0..80 {
        after.tick(500);
    }
    // 0, 0.5, 1.5, 3.5, 7.5 and so on, until 22 s are over.
    assert_eq!(after.codes(), [200; 8]);
    assert!(!has_said_bye(&after));
    assert_eq!(after.control.live(), 1);
    after.datagram(&request("BYE", "call-1", 2, &tag, ""));
    after.settles();
    after.nothing_is_left();
}

#[test]
fn f59_an_old_200_is_not_said_again() {
    let mut before = Bench::started();
    before.tick(32_000);
    let mut after = reborn(before);
    after.tick(40_000);
    assert!(after.sent.is_empty());
}

#[test]
fn f59_a_later_request_says_that_the_200_came() {
    let before = unacked();
    let tag = before.tag();
    let mut after = reborn(before);
    after.datagram(&request("INFO", "call-1", 2, &tag, ""));
    after.journal_syncs();
    assert_eq!(after.codes(), [200, 200]);
    after.tick(40_000);
    assert_eq!(after.codes(), [200, 200]);
    // The next control does not begin again.
    let mut third = reborn(after);
    third.tick(40_000);
    assert!(third.sent.is_empty());
}

#[test]
fn f59_the_200_of_a_re_invite_is_repeated_too() {
    let mut before = Bench::started();
    let tag = before.tag();
    before.datagram(&invite("call-1", 2, &tag, "inactive", 2));
    before.media_agrees();
    before.journal_syncs();
    let wanted = essence(before.last());
    let mut after = reborn(before);
    assert_eq!(essence(after.last()), wanted);
    after.datagram(&request("ACK", "call-1", 2, &tag, ""));
    after.tick(40_000);
    assert_eq!(after.codes(), [200]);
}

/// The journal has a change, media died before it had: an SRC that hears of new keys uses them with
/// its next packet (RFC 4568 §7.1.4), which nobody could open.
#[test]
fn f59_no_200_is_said_again_before_media_has_what_it_promises() {
    for asks in [false, true] {
        let mut before = Bench::started();
        let tag = before.tag();
        let held = before.held();
        let text = invite("call-1", 2, &tag, "inactive", 2);
        let count = before.codes().len();
        before.datagram(&text);
        before.journal_syncs();
        assert_eq!(before.codes().len(), count, "media has not answered");
        let mut after = Bench::new(4, 2);
        after.now = before.now;
        after.control.recover(after.clock(), &Standings::of(&before.journal));
        if asks {
            after.datagram(&text);
            after.tick(500);
            after.datagram(&text);
        }
        after.input(Input::MediaUp);
        after.media_holds(&held);
        let opens = after.media.iter().filter(|asked| matches!(asked.frame, Frame::Open(_)));
        assert_eq!((opens.count(), after.codes()), (1, vec![]));
        after.media_agrees();
        // Once by itself, once because it was asked for.
        assert_eq!(after.codes(), vec![200; 1 + usize::from(asks)]);
        let cseqs: Vec<_> = after.sent.iter().map(|sent| sent.cseq().map(|c| c.number)).collect();
        assert!(cseqs.iter().all(|number| *number == Some(2)), "{cseqs:?}");
        after.datagram(&request("ACK", "call-1", 2, &tag, ""));
        after.tick(40_000);
        assert_eq!(after.codes().len(), 1 + usize::from(asks));
        after.datagram(&text);
        assert_eq!(after.codes().len(), 2 + usize::from(asks), "from now on at once");
    }
}

/// While the predecessor's last answer waits for media the dialog goes on: it is not said to what came
/// since.
#[test]
fn f59_an_answer_that_waited_is_not_said_to_a_later_request() {
    let mut before = Bench::started();
    let tag = before.tag();
    let held = before.held();
    before.datagram(&request("UPDATE", "call-1", 2, &tag, ""));
    before.journal_syncs();
    let mut after = Bench::new(4, 2);
    after.now = before.now;
    after.control.recover(after.clock(), &Standings::of(&before.journal));
    after.input(Input::MediaUp);
    after.datagram(&invite("call-1", 3, &tag, "inactive", 2));
    after.journal_syncs();
    after.media_holds(&held);
    after.media_agrees();
    after.journal_syncs();
    after.tick(2_000);
    let to_it = |sent: &&Message| sent.cseq().is_some_and(|cseq| cseq.number == 3);
    let answers: Vec<_> = after.sent.iter().filter(to_it).collect();
    assert!(answers.iter().any(|sent| sent.code() == Some(200)), "{:?}", after.codes());
    let empty = answers.iter().filter(|sent| sent.code() == Some(200) && sent.body.is_empty());
    assert_eq!(empty.count(), 0);
}

/// RFC 3261 §12.2.1.2, RFC 5057 §5.1: an SRC that gave its INVITE up while nobody answered.
#[test]
fn f59_an_rs_that_its_src_does_not_know_is_found_out_and_ended() {
    for (answer, goes_on) in [
        (Some(200), true),
        (Some(405), true),
        (Some(503), true),
        (Some(408), false),
        (Some(481), false),
        (None, false),
    ] {
        let mut after = reborn(unacked());
        let told = |bench: &Bench, method| {
            bench.sent.iter().filter(|one| one.method() == Some(method)).count()
        };
        while after.control.now.mono < Mono(33_000_000_000) {
            assert_eq!(told(&after, "OPTIONS"), 0, "64·T1 are not over");
            after.tick(100);
        }
        assert_eq!(told(&after, "OPTIONS"), 1);
        match answer {
            Some(code) => src_answers(&mut after, code),
            None => (0..320).for_each(|_| after.tick(100)),
        }
        let ended = after.jobs.iter().any(|(_, entries)| {
            entries.iter().any(|entry| matches!(entry, Entry::Ended { bye: true, .. }))
        });
        assert_eq!((ended, has_said_bye(&after)), (!goes_on, false), "{answer:?}");
        after.journal_syncs();
        assert_eq!(has_said_bye(&after), !goes_on, "{answer:?}");
        after.settles();
        assert_eq!(after.control.live(), usize::from(goes_on), "{answer:?}");
        if !goes_on {
            after.nothing_is_left();
        }
    }
    // Asked over a connection that cannot be had: that is no answer of the SRC.
    let mut before = Bench::up(4);
    connect(&mut before, 1, 49_152);
    stream(&mut before, 1, &invite("call-1", 1, "", "sendonly", 1));
    before.media_agrees();
    before.journal_syncs();
    let mut after = reborn(before);
    after.tick(32_000);
    let peer = SocketAddr::from(([192, 0, 2, 10], 5_060));
    assert_eq!(after.last().method(), Some("OPTIONS"));
    after.input(Input::Sip(sip::Input::Unreachable { peer, secure: false }));
    after.tick(40_000);
    assert!(!has_said_bye(&after) && after.control.live() == 1);
}

/// A death between the two ends the RS, too, and says BYE.
#[test]
fn f59_our_bye_leaves_once_the_end_is_durable_and_the_successor_says_it_again() {
    let stopped = || {
        let mut before = Bench::started();
        before.sent.clear();
        before.input(Input::Keeper(Frame::Stop));
        assert!(!has_said_bye(&before), "a successor would go on with it");
        before
    };
    let after = reborn(stopped());
    assert_eq!((after.control.live(), has_said_bye(&after)), (1, false), "nothing has happened");
    let mut before = stopped();
    let (_, entries) = before.jobs.remove(0);
    before.journal.extend(entries);
    let journal = before.journal.clone();
    let mut after = reborn(before);
    assert_eq!((after.control.live(), has_said_bye(&after)), (0, true));
    src_answers(&mut after, 481);
    after.settles();
    after.nothing_is_left();
    // Long after, nobody is told any more.
    let mut late = Bench::new(4, 2);
    late.now = Mono(60_000_000_000);
    late.control.recover(late.clock(), &Standings::of(&journal));
    late.tick(0);
    assert!(!has_said_bye(&late));
}

#[test]
fn f59_an_rs_without_all_its_bodies_was_never_accepted() {
    let whole = unacked().journal;
    let opened = whole.iter().position(|entry| matches!(entry, Entry::Opened { .. }));
    let opened = opened.expect("an RS was begun");
    assert!(matches!(whole[opened], Entry::Opened { bodies: Some(1), .. }));
    for cut in opened + 1..=whole.len() {
        let accepted = cut == whole.len();
        let mut before = unacked();
        before.journal.truncate(cut);
        assert_eq!(Journalled::of(&before.journal).recordings.len(), usize::from(accepted));
        let after = reborn(before);
        assert_eq!(after.control.live(), usize::from(accepted), "{cut} of {}", whole.len());
        assert_eq!(after.control.slots.used(), usize::from(accepted));
        assert_eq!(after.sent.len(), usize::from(accepted), "a 200 that never left is not said");
    }
    // Of a version that did not count, what is there is what was accepted.
    let mut old = whole;
    if let Some(Entry::Opened { bodies, .. }) = old.get_mut(opened) {
        *bodies = None;
    }
    assert_eq!(Journalled::of(&old[..=opened]).recordings.len(), 1);
}

#[test]
fn f59_a_200_over_a_lost_connection_follows_the_peer() {
    let mut before = Bench::up(4);
    connect(&mut before, 1, 49_152);
    stream(&mut before, 1, &invite("call-1", 1, "", "sendonly", 1));
    before.media_agrees();
    before.journal_syncs();
    let (tag, wanted) = (before.tag(), essence(before.last()));
    let mut after = reborn(before);
    // The connection that is dialled goes to the sent-by port (RFC 3261 §18.2.2).
    connect(&mut after, 2, 5_060);
    after.tick(500);
    assert_eq!(essence(after.last()), wanted);
    stream(&mut after, 2, &request("ACK", "call-1", 1, &tag, ""));
    after.tick(40_000);
    assert_eq!(after.codes(), [200, 200]);
}

/// Metadata alone, an empty refresh, INFO: what the journal does not know is taken twice.
#[test]
fn f59_a_request_without_an_offer_is_known_after_a_restart() {
    let metadata = "<recording xmlns='urn:ietf:params:xml:ns:recording:1'/>";
    let update = request("UPDATE", "call-1", 2, "TAG", metadata)
        .replace("application/sdp", "application/rs-metadata+xml");
    let table = [
        (update, 1),
        (request("UPDATE", "call-1", 2, "TAG", ""), 0),
        (request("INVITE", "call-1", 2, "TAG", ""), 0),
        (request("INFO", "call-1", 2, "TAG", ""), 0),
    ];
    for (text, more) in table {
        let mut before = Bench::started();
        let text = text.replace("TAG", &before.tag());
        let known = bodies(&before) + more;
        let count = before.codes().len();
        before.datagram(&text);
        let finals = |bench: &Bench| bench.codes()[count..].iter().filter(|c| **c != 100).count();
        assert_eq!(finals(&before), 0, "persist before reply: {text}");
        before.journal_syncs();
        let wanted = essence(before.last());
        assert_eq!((finals(&before), wanted.0), (1, Some(200)), "{text}");
        let mut after = reborn(before);
        after.sent.clear();
        for _ in 0..2 {
            after.datagram(&text);
            assert_eq!(essence(after.last()), wanted);
        }
        assert!(after.jobs.is_empty() && after.media.is_empty(), "nothing is taken again: {text}");
        assert_eq!(bodies(&after), known);
    }
}

#[test]
fn f59_several_answers_are_known_again() {
    let mut before = Bench::started();
    let tag = before.tag();
    let first = request("UPDATE", "call-1", 2, &tag, &sdp("inactive", 2));
    before.datagram(&first);
    before.media_agrees();
    before.journal_syncs();
    let wanted = essence(before.last());
    before.datagram(&request("INFO", "call-1", 3, &tag, ""));
    before.journal_syncs();
    let mut after = reborn(before);
    after.datagram(&first);
    assert_eq!(essence(after.last()), wanted);
}

/// The journal has the dialog as the answer leaves it (RFC 3261 §12.2.1.2).
#[test]
fn f59_the_contact_of_a_re_invite_holds_after_a_restart() {
    for body in [sdp("inactive", 2), String::new()] {
        let mut before = Bench::started();
        let tag = before.tag();
        let text = request("INVITE", "call-1", 2, &tag, &body)
            .replace("sip:src@192.0.2.10:5060>;+sip.src", "sip:src@192.0.2.99:5090>;+sip.src");
        before.datagram(&text);
        before.media_agrees();
        before.journal_syncs();
        let mut after = reborn(before);
        after.input(Input::Keeper(Frame::Stop));
        after.journal_syncs();
        let bye = after.sent.iter().find(|message| message.method() == Some("BYE"));
        assert_eq!(bye.expect("a BYE").uri(), Some("sip:src@192.0.2.99:5090"));
    }
}

#[test]
fn f59_a_refused_change_leaves_no_answer_behind() {
    let mut before = Bench::started();
    let tag = before.tag();
    let text = invite("call-1", 2, &tag, "inactive", 2);
    before.datagram(&text);
    before.journal_syncs();
    before.media_refuses(crate::plane::handoff::frame::Refusal::RingLag);
    before.settles();
    assert!(before.codes().contains(&503));
    let mut after = reborn(before);
    assert!(after.sent.is_empty(), "that the re-INVITE came shows that the 200 had");
    after.tick(1_000);
    assert!(after.sent.is_empty());
    after.datagram(&text);
    assert_eq!(after.codes(), [500], "a number that was used, and no 200 for it");
}

/// Between a refusal and its entry no death may come.
#[test]
fn f59_what_was_refused_is_not_begun_by_the_successor() {
    let mut before = Bench::up(4);
    let text = invite("call-1", 1, "", "sendonly", 1);
    before.datagram(&text);
    before.journal_syncs();
    before.media_refuses(crate::plane::handoff::frame::Refusal::RingLag);
    let told = |bench: &Bench| bench.codes().contains(&503);
    assert!(!told(&before));
    before.journal_syncs();
    assert!(told(&before));
    let mut after = reborn(before);
    assert!(after.sent.is_empty() && after.control.live() == 0);
    after.settles();
    after.nothing_is_left();
}

/// RFC 3261 §8.2.2.2.
#[test]
fn f59_the_first_invite_repeated_after_a_re_invite_and_a_restart_makes_no_second_rs() {
    for changes in [1, 20] {
        let mut before = Bench::started();
        let tag = before.tag();
        for cseq in 2..2 + changes {
            before.datagram(&invite("call-1", cseq, &tag, "sendonly", cseq));
            before.media_agrees();
            before.journal_syncs();
            before.datagram(&request("ACK", "call-1", cseq, &tag, ""));
        }
        let mut after = reborn(before);
        after.sent.clear();
        after.datagram(&invite("call-1", 1, "", "sendonly", 1));
        // The stored answer while it is known, 482 after that.
        let wanted = if changes == 1 { 200 } else { 482 };
        assert_eq!(after.codes(), [wanted]);
        assert!(after.media.is_empty() && after.jobs.is_empty());
        assert_eq!((after.control.live(), after.control.slots.used()), (1, 1));
        // A new number is a new request.
        after.datagram(&invite("call-1", 2 + changes, "", "sendonly", 1));
        after.media_agrees();
        after.journal_syncs();
        assert_eq!(after.control.live(), 2);
    }
}

#[test]
fn f59_an_invite_repeated_after_its_bye_and_a_restart_makes_no_rs() {
    let mut before = Bench::started();
    let tag = before.tag();
    before.datagram(&request("BYE", "call-1", 2, &tag, ""));
    before.journal_syncs();
    let mut after = reborn(before);
    assert!(after.sent.is_empty(), "a 200 is not repeated in a dialog that is over");
    after.datagram(&invite("call-1", 1, "", "sendonly", 1));
    assert_eq!(after.codes(), [200]);
    assert_eq!(after.control.live(), 0);
    after.datagram(&request("BYE", "call-1", 2, &tag, ""));
    after.datagram(&request("BYE", "call-1", 2, &tag, ""));
    assert_eq!(after.codes(), [200; 3]);
    after.settles();
    after.nothing_is_left();
}

#[test]
fn f59_what_comes_late_or_out_of_order_after_a_restart_is_answered_by_the_rules() {
    let before = Bench::started();
    let tag = before.tag();
    let mut after = reborn(before);
    after.datagram(&request("ACK", "call-1", 1, &tag, ""));
    after.sent.clear();
    let cancel = invite("call-1", 1, "", "sendonly", 1);
    after.datagram(&cancel.replace("INVITE", "CANCEL").replace("-CANCEL-", "-INVITE-"));
    assert_eq!(after.codes(), [481]);
    after.datagram(&request("INFO", "call-1", 1, &tag, ""));
    assert_eq!(after.codes(), [481, 500]);
    for (call, cseq, tag) in [("call-1", 9, &*tag), ("call-1", 1, "other"), ("else", 1, &tag)] {
        after.datagram(&request("ACK", call, cseq, tag, ""));
    }
    assert_eq!(after.codes(), [481, 500]);
    assert!(after.media.is_empty() && after.jobs.is_empty());
    assert_eq!(after.control.live(), 1);
}

#[test]
fn f59_a_connection_that_ends_is_no_reason_to_end_an_rs() {
    let mut before = Bench::up(4);
    connect(&mut before, 1, 49_152);
    stream(&mut before, 1, &invite("call-1", 1, "", "sendonly", 1));
    before.media_agrees();
    before.journal_syncs();
    let tag = before.tag();
    stream(&mut before, 1, &request("ACK", "call-1", 1, &tag, ""));
    before.input(Input::Sip(sip::Input::Closed { conn: ConnId(1) }));
    before.tick(40_000);
    assert!(!has_said_bye(&before));
    let mut after = reborn(before);
    after.tick(40_000);
    assert!(after.sent.is_empty());
    // Another connection will do, and so will another transport.
    connect(&mut after, 5, 50_000);
    stream(&mut after, 5, &request("INFO", "call-1", 2, &tag, ""));
    after.journal_syncs();
    after.datagram(&request("INFO", "call-1", 3, &tag, ""));
    after.journal_syncs();
    assert_eq!(after.codes(), [200, 200]);
    after.input(Input::Sip(sip::Input::Closed { conn: ConnId(5) }));
    after.tick(40_000);
    assert!(!has_said_bye(&after));
    assert_eq!(after.control.live(), 1);
}
