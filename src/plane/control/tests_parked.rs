//! Requests that come while media is being started, and those that its death finds under way.

use std::collections::HashSet;

use super::Input;
use super::tests::{Bench, invite, request};
use crate::base::ids::Slot;
use crate::plane::handoff::frame::{Frame, Refusal};
use crate::store::journal::entry::Entry;
use crate::wire::sip::Message;

/// The final answers, each once: a 200 to an INVITE comes again until its ACK does.
fn finals(bench: &Bench) -> Vec<u16> {
    let mut seen = HashSet::new();
    let of = |sent: &Message| {
        let cseq = sent.cseq()?;
        Some((sent.headers.get("Call-ID")?.to_owned(), cseq.number, cseq.method))
    };
    let finals = bench.sent.iter().filter(|sent| sent.code().is_some_and(|code| code >= 200));
    finals.filter(|sent| seen.insert(of(sent))).filter_map(Message::code).collect()
}

/// Media died, and what was asked of it is gone.
fn without_media(mut bench: Bench) -> Bench {
    bench.input(Input::MediaDown);
    bench.media.clear();
    bench.sent.clear();
    bench
}

/// Its successor has the memory.
fn media_returns(bench: &mut Bench) {
    bench.input(Input::MediaUp);
    let held = bench.held();
    bench.media_holds(&held);
}

#[test]
fn what_comes_while_media_is_being_started_is_done_when_it_is_up() {
    let bench = Bench::started();
    let tag = bench.tag();
    let mut bench = without_media(bench);
    bench.datagram(&invite("call-2", 1, "", "sendonly", 1));
    bench.datagram(&request("OPTIONS", "o", 1, "", ""));
    bench.datagram(&request("BYE", "call-1", 2, &tag, ""));
    bench.tick(499);
    assert!(!finals(&bench).contains(&503), "{:?}", bench.codes());
    media_returns(&mut bench);
    bench.settles();
    assert_eq!(finals(&bench), [200, 200, 200]);
    assert!(bench.control.parked.is_empty());
    assert_eq!(bench.control.live(), 1);
}

#[test]
fn nobody_waits_longer_than_half_a_second_and_no_more_than_fit_wait() {
    let mut bench = without_media(Bench::up(4));
    for number in 0..600 {
        bench.datagram(&request("OPTIONS", &format!("o{number}"), 1, "", ""));
    }
    let at_once = finals(&bench).len();
    assert_eq!(at_once, 600 - 512);
    bench.tick(500);
    assert_eq!(finals(&bench), [503; 600]);
    assert!(bench.sent.iter().all(|sent| sent.headers.get("Retry-After").is_some()));
    media_returns(&mut bench);
    bench.settles();
    assert_eq!(bench.sent.len(), 600, "nobody is answered twice");
}

#[test]
fn an_invite_that_waits_may_be_cancelled_and_a_drain_ends_the_waiting() {
    let mut bench = without_media(Bench::up(4));
    let text = invite("a", 1, "", "sendonly", 1);
    bench.datagram(&text);
    bench.datagram(&text.replace("INVITE", "CANCEL").replace("-CANCEL-", "-INVITE-"));
    let mut codes = finals(&bench);
    codes.sort_unstable();
    assert_eq!(codes, [200, 487]);
    bench.sent.clear();
    bench.datagram(&invite("b", 1, "", "sendonly", 1));
    bench.input(Input::Keeper(Frame::Drain));
    assert_eq!(finals(&bench), [503]);
    let warning = bench.last().headers.get("Warning").unwrap_or("").to_owned();
    assert!(warning.contains("draining"), "{warning}");
    media_returns(&mut bench);
    bench.settles();
    assert_eq!(bench.control.live(), 0);
    assert!(!finals(&bench).contains(&200));
}

/// A line more needs media; until it is there a second change is one too many (RFC 3261 §14.2).
#[test]
fn a_change_that_adds_a_line_waits_and_keeps_its_place() {
    let bench = Bench::started();
    let tag = bench.tag();
    let mut bench = without_media(bench);
    let text = invite("call-1", 2, &tag, "sendonly", 2);
    let audio: Vec<&str> = text.split_inclusive("m=audio").collect();
    assert_eq!(audio.len(), 2, "one line");
    let body = text.split("\r\n\r\n").nth(1).expect("an SDP");
    let line = &body[body.find("m=audio").expect("a line")..];
    let more = format!("{body}{}", line.replace("a=label:", "a=label:9"));
    let longer = text.replace(body, &more).replace(
        &format!("Content-Length: {}", body.len()),
        &format!("Content-Length: {}", more.len()),
    );
    bench.datagram(&longer);
    assert!(finals(&bench).is_empty());
    bench.datagram(&invite("call-1", 3, &tag, "sendonly", 3));
    assert_eq!(finals(&bench), [500]);
    media_returns(&mut bench);
    bench.settles();
    assert_eq!(finals(&bench), [500, 200]);
    let body = String::from_utf8_lossy(&bench.last().body).into_owned();
    assert_eq!(body.matches("m=audio 2").count(), 2, "{body}");
}

/// Media dies with an INVITE and a re-INVITE in hand: its successor takes the streams up, and both
/// get the answer that they would have got.
#[test]
fn what_media_died_with_is_answered_by_its_successor() {
    let mut bench = Bench::started();
    let tag = bench.tag();
    bench.datagram(&invite("call-2", 1, "", "sendonly", 1));
    bench.datagram(&invite("call-1", 2, &tag, "inactive", 2));
    bench.journal_syncs();
    let mut bench = without_media(bench);
    media_returns(&mut bench);
    assert!(finals(&bench).is_empty(), "media has yet to take the streams");
    let asked: Vec<(Slot, bool)> = bench
        .media
        .iter()
        .filter_map(|asked| match &asked.frame {
            Frame::Open(open) => Some((open.slot, open.active)),
            _ => None,
        })
        .collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().any(|(_, active)| !active), "as the change wants it: {asked:?}");
    bench.settles();
    assert_eq!(finals(&bench), [200, 200]);
    let paused = |entry: &Entry| matches!(entry, Entry::Direction { active: false, .. });
    assert!(bench.journal.iter().any(paused), "since when is known");
}

/// A stream that the successor has no room for yet is asked again; until then nobody is answered.
#[test]
fn what_media_died_with_is_not_answered_before_its_last_stream_is_taken() {
    let mut bench = Bench::up(4);
    bench.datagram(&invite("a", 1, "", "sendonly", 1));
    bench.journal_syncs();
    let mut bench = without_media(bench);
    media_returns(&mut bench);
    bench.media_refuses(Refusal::RingLag);
    assert!(finals(&bench).is_empty());
    bench.tick(60);
    bench.media_agrees();
    assert_eq!(finals(&bench), [200]);
    bench.settles();
}
