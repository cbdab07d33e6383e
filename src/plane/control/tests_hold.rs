//! Pause, resume and stop by an operator.

use super::tests::{Bench, invite, request};
use super::{Asked, Input, Outcome, Verb};
use crate::base::ids::RsId;
use crate::plane::handoff::frame::{Frame, Refusal};
use crate::proto::sip::Transport;
use crate::store::event::Origin;
use crate::store::journal::Standings;
use crate::store::journal::entry::{Entry, Hold};
use crate::wire::sip::Message;

fn rs(bench: &Bench) -> RsId {
    *bench.control.sessions.keys().next().expect("an RS")
}

fn ask(bench: &mut Bench, id: u64, verb: Verb) {
    bench.input(Input::Asked(Asked { id, uid: 7, verb }));
}

/// Media and journal agree to all.
fn agree(bench: &mut Bench) {
    while !(bench.media.is_empty() && bench.jobs.is_empty()) {
        bench.media_agrees();
        bench.journal_syncs();
    }
}

/// An RS of one line that is paused, and the offer that says so.
fn paused() -> Bench {
    let mut bench = Bench::started();
    let rs = rs(&bench);
    ask(&mut bench, 1, Verb::Pause { rs });
    agree(&mut bench);
    bench
}

/// The SRC answers a request of ours.
fn answers(bench: &mut Bench, offer: &Message, code: u16, sdp: &str) {
    let mut text = format!("SIP/2.0 {code} Answer\r\n");
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        let value = offer.headers.get(name).expect("every request has it");
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("Contact: <sip:src@192.0.2.10>;+sip.src\r\nContent-Type: application/sdp\r\n");
    text.push_str(&format!("Content-Length: {}\r\n\r\n{sdp}", sdp.len()));
    bench.datagram(&text);
}

fn offers(bench: &Bench, direction: &str) -> usize {
    let says = |body: &[u8]| String::from_utf8_lossy(body).contains(direction);
    bench.sent.iter().filter(|one| one.code().is_none() && says(&one.body)).count()
}

#[test]
fn a_pause_is_media_s_first_then_the_journal_s_and_then_the_src_s() {
    let mut bench = Bench::started();
    let rs = rs(&bench);
    ask(&mut bench, 1, Verb::Pause { rs });
    let stopped = |frame: &Frame| match frame {
        Frame::Update { stream, by } => !stream.active && *by == Origin::Srs,
        _ => false,
    };
    assert!(bench.media.iter().any(|asked| stopped(&asked.frame)), "at once");
    assert_eq!((offers(&bench, "a=inactive"), bench.outcomes.len()), (0, 0));
    bench.media_agrees();
    assert!(bench.outcomes.is_empty(), "the journal does not have it yet");
    bench.journal_syncs();
    assert_eq!(bench.outcomes, [(1, Outcome::Done)]);
    assert_eq!(offers(&bench, "a=inactive"), 1);
    let paused =
        |entry: &Entry| matches!(entry, Entry::Direction { active: false, by: Origin::Srs, .. });
    agree(&mut bench);
    assert!(bench.journal.iter().any(paused), "since when is known");
    // A second one finds it so; what is unknown is said to be.
    ask(&mut bench, 2, Verb::Pause { rs: RsId([9; 16]) });
    assert_eq!(bench.outcomes[1..], [(2, Outcome::Unknown)]);
}

#[test]
fn what_media_refuses_to_pause_it_is_asked_again_and_the_operator_hears_of_it() {
    let mut bench = Bench::started();
    let rs = rs(&bench);
    ask(&mut bench, 1, Verb::Pause { rs });
    bench.media_refuses(Refusal::QueueFull);
    bench.journal_syncs();
    assert!(matches!(bench.outcomes[..], [(1, Outcome::Failed(_))]), "{:?}", bench.outcomes);
    bench.tick(60);
    let inactive = |frame: &Frame| matches!(frame, Frame::Open(open) if !open.active);
    assert!(bench.media.iter().any(|asked| inactive(&asked.frame)));
}

#[test]
fn a_pause_outlives_control_and_is_told_again_where_the_src_may_not_know() {
    for told in [false, true] {
        let mut before = paused();
        if told {
            let offer = before.sent.last().expect("the offer").clone();
            answers(&mut before, &offer, 200, "");
            agree(&mut before);
        }
        let tag = before.tag();
        let standings = Standings::of(&before.journal);
        let hold = standings.recordings.values().next().expect("one").hold.clone();
        assert_eq!(hold, Some(Hold { held: true, told, uid: 7, ..Hold::default() }));
        let mut after = Bench::new(4, 2);
        after.now = before.now;
        after.control.recover(after.clock(), &standings);
        after.input(Input::MediaUp);
        after.media_holds(&before.held());
        let taken = |frame: &Frame| matches!(frame, Frame::Open(open) if !open.active);
        assert!(after.media.iter().any(|asked| taken(&asked.frame)), "as it was: paused");
        agree(&mut after);
        after.tick(1_100);
        assert_eq!(offers(&after, "a=inactive"), usize::from(!told));
        if told {
            // The SRC's own offer does not undo it.
            after.datagram(&invite("call-1", 3, &tag, "sendonly", 3));
            agree(&mut after);
            let body = String::from_utf8_lossy(&after.last().body).into_owned();
            assert!(body.contains("a=inactive") && !body.contains("a=recvonly"), "{body}");
            let streams = &after.control.sessions.values().next().expect("one").streams;
            assert!(streams.iter().all(|stream| !stream.active));
        }
    }
}

#[test]
fn a_resume_that_the_src_refuses_is_none_and_may_be_asked_for_again() {
    let mut bench = paused();
    let rs = rs(&bench);
    let offer = bench.sent.last().expect("the offer").clone();
    answers(&mut bench, &offer, 200, "");
    agree(&mut bench);
    ask(&mut bench, 2, Verb::Resume { rs });
    agree(&mut bench);
    assert_eq!(bench.outcomes.len(), 1, "the SRC has not said anything");
    let offer = bench.sent.last().expect("the offer").clone();
    assert!(String::from_utf8_lossy(&offer.body).contains("a=recvonly"));
    answers(&mut bench, &offer, 488, "");
    agree(&mut bench);
    assert!(matches!(&bench.outcomes[1..], [(2, Outcome::Refused(why))] if why.contains("488")));
    let session = &bench.control.sessions[&rs];
    assert!(session.holding.held && session.streams.iter().all(|stream| !stream.active));

    ask(&mut bench, 4, Verb::Resume { rs });
    agree(&mut bench);
    let offer = bench.sent.last().expect("the offer").clone();
    let sdp = "v=0\r\no=- 1 9 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
               m=audio 49170 RTP/AVP 0\r\na=label:1\r\na=sendonly\r\n";
    answers(&mut bench, &offer, 200, sdp);
    assert_eq!(bench.outcomes.len(), 2, "media and journal have yet to take it");
    agree(&mut bench);
    assert_eq!(bench.outcomes[2..], [(4, Outcome::Done)]);
    let session = &bench.control.sessions[&rs];
    assert!(!session.holding.held && session.streams.iter().all(|stream| stream.active));
    let resumed =
        |entry: &Entry| matches!(entry, Entry::Direction { active: true, by: Origin::Srs, .. });
    assert!(bench.journal.iter().any(resumed));
}

#[test]
fn f60_a_pause_wins_over_a_resume_that_the_src_has_not_granted_yet() {
    let mut bench = paused();
    let rs = rs(&bench);
    let told = bench.sent.last().expect("the offer").clone();
    answers(&mut bench, &told, 200, "");
    agree(&mut bench);
    ask(&mut bench, 2, Verb::Resume { rs });
    agree(&mut bench);
    let late = bench.sent.last().expect("the offer").clone();
    ask(&mut bench, 3, Verb::Pause { rs });
    assert!(matches!(bench.outcomes[1..], [(2, Outcome::Refused(_))]), "{:?}", bench.outcomes);
    agree(&mut bench);
    assert_eq!(bench.outcomes[2..], [(3, Outcome::Done)]);
    let sdp = "v=0\r\no=- 1 9 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
               m=audio 49170 RTP/AVP 0\r\na=label:1\r\na=sendonly\r\n";
    answers(&mut bench, &late, 200, sdp);
    agree(&mut bench);
    let rests = |bench: &Bench| {
        let session = &bench.control.sessions[&rs];
        session.holding.held && session.streams.iter().all(|stream| !stream.active)
    };
    assert!(rests(&bench), "what was granted too late is not taken");
    let before = offers(&bench, "a=inactive");
    bench.tick(600);
    assert!(offers(&bench, "a=inactive") > before, "the SRC is told once more");
    agree(&mut bench);
    assert!(rests(&bench));
}

#[test]
fn a_stop_is_a_bye_with_its_reason_once_the_journal_has_the_end() {
    let mut bench = Bench::started();
    let rs = rs(&bench);
    let reason = "not needed".to_owned();
    ask(&mut bench, 1, Verb::Stop { rs, reason });
    assert!(bench.outcomes.is_empty() && !bench.sent.iter().any(|m| m.method() == Some("BYE")));
    bench.journal_syncs();
    assert_eq!(bench.outcomes, [(1, Outcome::Done)]);
    let bye = bench.sent.iter().find(|message| message.method() == Some("BYE")).expect("a BYE");
    assert!(bye.headers.get("Reason").is_some_and(|reason| reason.contains("not needed")));
    bench.settles();
    bench.nothing_is_left();
    bench.datagram(&request("OPTIONS", "o", 1, "", ""));
    ask(&mut bench, 2, Verb::Resume { rs });
    assert_eq!(bench.outcomes[1..], [(2, Outcome::Unknown)]);
}

#[test]
fn words_that_would_break_a_header_or_a_line_of_the_log_are_refused_by_control_itself() {
    let mut bench = Bench::started();
    let rs = rs(&bench);
    let long = "x".repeat(201);
    for reason in ["a\"b", "a\\b", "a\r\nVia: b", "a\nb", "a\u{1b}[2J", "a\u{7f}", long.as_str()] {
        let before = bench.sent.len();
        ask(&mut bench, 1, Verb::Stop { rs, reason: reason.to_owned() });
        assert!(matches!(bench.outcomes[..], [(1, Outcome::Refused(_))]), "{reason:?}");
        bench.outcomes.clear();
        agree(&mut bench);
        assert_eq!(bench.sent.len(), before, "nobody hears of it");
    }
    let (address, transport) = (([192, 0, 2, 10], 5_060).into(), Transport::Udp);
    ask(&mut bench, 2, Verb::Start { to: "sip:a@b\nalarm: x".to_owned(), address, transport });
    assert!(matches!(bench.outcomes[..], [(2, Outcome::Refused(_))]));
    ask(&mut bench, 3, Verb::Stop { rs, reason: "legal hold, Zürich: over".to_owned() });
    agree(&mut bench);
    assert_eq!(bench.outcomes[1..], [(3, Outcome::Done)]);
}

#[test]
fn a_line_is_ended_by_media_first_then_in_the_journal_and_then_for_the_src() {
    let mut bench = Bench::started();
    let rs = rs(&bench);
    let (line, reason) = ("96".to_owned(), "private".to_owned());
    let stop = |line: String| Verb::StopLine { rs, line, reason: reason.clone() };
    ask(&mut bench, 1, stop("9".to_owned()));
    assert!(matches!(&bench.outcomes[..], [(1, Outcome::Refused(why))] if why.contains("are 96")));
    bench.outcomes.clear();
    ask(&mut bench, 2, stop(line.clone()));
    let closes = |frame: &Frame| matches!(frame, Frame::Close { by: Origin::Srs, .. });
    assert!(bench.media.iter().any(|asked| closes(&asked.frame)), "at once");
    bench.journal_syncs();
    assert!(bench.outcomes.is_empty(), "media has yet to close it");
    agree(&mut bench);
    assert_eq!(bench.outcomes, [(2, Outcome::Done)]);
    let offer = bench.sent.last().expect("an offer").clone();
    assert!(offer.code().is_none() && String::from_utf8_lossy(&offer.body).contains("m=audio 0 "));
    // The SRC has heard it, whatever it says; the RS goes on without a line, and is not held.
    answers(&mut bench, &offer, 488, "");
    agree(&mut bench);
    assert!(bench.control.closing.is_empty());
    let session = &bench.control.sessions[&rs];
    assert!(session.streams.is_empty() && !session.holding.held);
    // A successor knows; it tells the SRC once more, which has not agreed, and takes the line no more.
    let standings = Standings::of(&bench.journal);
    let tag = bench.tag();
    let mut after = Bench::new(4, 2);
    after.now = bench.now;
    after.control.recover(after.clock(), &standings);
    after.input(Input::MediaUp);
    after.media_holds(&[]);
    agree(&mut after);
    after.tick(1_100);
    assert_eq!(offers(&after, "m=audio 0 "), 1);
    let offer = after.sent.last().expect("an offer").clone();
    answers(&mut after, &offer, 200, "");
    agree(&mut after);
    after.datagram(&invite("call-1", 3, &tag, "sendonly", 3));
    agree(&mut after);
    let body = String::from_utf8_lossy(&after.last().body).into_owned();
    assert!(body.contains("m=audio 0 ") && !body.contains("a=recvonly"), "{body}");
    assert!(after.control.sessions[&rs].streams.is_empty());
    // Another line is taken: the place of one that was ended may be used again.
    let again = invite("call-1", 4, &tag, "sendonly", 4).replace("a=label:96", "a=label:97");
    after.datagram(&again);
    agree(&mut after);
    assert_eq!(after.control.sessions[&rs].streams.len(), 1);
}

/// An answer that comes too late is none, and neither is silence: whether the SRC is there is for its timer.
#[test]
fn an_offer_that_a_pause_has_overtaken_ends_nothing_when_it_times_out() {
    let mut bench = paused();
    let rs = rs(&bench);
    let told = bench.sent.last().expect("the offer").clone();
    answers(&mut bench, &told, 200, "");
    agree(&mut bench);
    ask(&mut bench, 2, Verb::Resume { rs });
    agree(&mut bench);
    ask(&mut bench, 3, Verb::Pause { rs });
    agree(&mut bench);
    for _ in 0..40 {
        bench.tick(1_000);
        agree(&mut bench);
    }
    assert!(!bench.sent.iter().any(|message| message.method() == Some("BYE")));
    assert!(bench.control.sessions[&rs].holding.held && bench.control.live() == 1);
}

#[test]
fn who_waits_for_a_resume_hears_of_the_end_whoever_ends_it() {
    for by_src in [true, false] {
        let mut bench = paused();
        let rs = rs(&bench);
        let told = bench.sent.last().expect("the offer").clone();
        answers(&mut bench, &told, 200, "");
        agree(&mut bench);
        ask(&mut bench, 2, Verb::Resume { rs });
        agree(&mut bench);
        if by_src {
            let tag = bench.tag();
            bench.datagram(&request("BYE", "call-1", 2, &tag, ""));
        } else {
            ask(&mut bench, 3, Verb::Stop { rs, reason: "over".to_owned() });
        }
        let told = |(id, outcome): &(u64, Outcome)| {
            *id == 2 && matches!(outcome, Outcome::Refused(why) if why.contains("ended"))
        };
        assert!(bench.outcomes.iter().any(told), "{:?}", bench.outcomes);
    }
}
