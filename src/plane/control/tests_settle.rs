//! Coming to terms with media: what it holds and nobody owns, what is owned and it does not hold.

use std::net::SocketAddr;

use super::Input;
use super::slots::Slots;
use super::tests::{Bench, HOME, invite, request};
use crate::base::ids::{Generation, Index, Seq, Slot, Ssrc, StreamId};
use crate::base::time::{Mono, Wall};
use crate::plane::handoff::frame::{Envelope, Frame, HeldSlot, KnownSource, Refusal};
use crate::store::archive::{LastSeen, LastSource, LastStream, Sought};
use crate::store::event::Origin;
use crate::store::journal::Standings;
use crate::store::journal::entry::Entry;

/// F06: nothing of media has survived. The RS goes on with what the store knows of it, at the same
/// port, whatever number that has now; nothing is received or taken before.
#[test]
fn f06_a_live_rs_goes_on_after_the_whole_recorder_was_down() {
    let before = Bench::started();
    let tag = before.tag();
    let stream = before.control.sessions.values().next().expect("one").streams[0].clone();
    let stream = stream.description.stream;
    let mut after = Bench::new(4, 2);
    // The pair at port 20,000 has another number under this keeper.
    after.control.slots = Slots::default();
    for (number, port) in [(0, 20_002), (1, 20_004), (2, 20_000)] {
        after.control.slots.add(Slot(number), &[SocketAddr::from(([127, 0, 0, 1], port))]);
    }
    // Monotonic time starts anew with a boot.
    after.now = Mono(5);
    after.control.recover(after.clock(), &Standings::of(&before.journal));
    after.input(Input::MediaUp);
    after.media_holds(&[]);
    let clear = [Sought { stream, since: before.clock().wall, sender: true }];
    assert_eq!(after.sought, clear, "plain RTP: the sender matters");
    assert!(!after.media.iter().any(|asked| matches!(asked.frame, Frame::Resumed)));
    after.datagram(&request("OPTIONS", "o", 1, "", ""));
    assert!(after.sent.is_empty(), "it waits for what the store knows");
    let (ssrc, highest, last) = (Ssrc(9), Index::new(4, Seq(7)), Wall(3));
    let source = LastSource { ssrc, ordinal: 2, highest, from: None, last };
    let known = LastStream { sources: vec![source], next_ordinal: 3, durable: Some(Wall(77)) };
    let streams = [(stream, known)].into();
    after.looks_back(LastSeen { streams, ..LastSeen::default() });
    let resumed = after.media.iter().find_map(|asked| match &asked.frame {
        Frame::Resume(past) => Some(past),
        _ => None,
    });
    let resumed = resumed.expect("the stream is taken up");
    assert_eq!(
        (resumed.open.slot, resumed.dark_since, resumed.next_ordinal),
        (Slot(2), Wall(77), 3)
    );
    assert_eq!(resumed.sources, [KnownSource { ssrc, ordinal: 2, highest, from: None }]);
    assert!(!after.media.iter().any(|asked| matches!(asked.frame, Frame::Resumed)));
    after.media_agrees();
    assert!(after.media.iter().any(|asked| matches!(asked.frame, Frame::Resumed)));
    assert!(after.log.iter().any(|line| line.contains("1 recordings resumed, 1 streams")));
    after.media.clear();
    // The SRC notices nothing: re-INVITE and BYE as ever.
    after.datagram(&invite("call-1", 2, &tag, "sendonly", 2));
    after.media_agrees();
    after.journal_syncs();
    assert_eq!(after.last().code(), Some(200));
    assert!(String::from_utf8_lossy(&after.last().body).contains("m=audio 20000 "));
    after.datagram(&request("BYE", "call-1", 3, &tag, ""));
    after.settles();
    assert_eq!(after.last().code(), Some(200));
    after.nothing_is_left();
    assert!(
        !after.journal.iter().any(|entry| matches!(entry, Entry::Ended { by: Origin::Srs, .. }))
    );
}

#[test]
fn f06_an_rs_whose_port_cannot_be_had_is_ended_by_bye_and_the_journal_says_so() {
    let before = Bench::started();
    let mut after = Bench::new(4, 2);
    after.control.slots = Slots::default();
    after.control.slots.add(Slot(0), &[SocketAddr::from(([127, 0, 0, 1], 20_002))]);
    after.control.recover(after.clock(), &Standings::of(&before.journal));
    after.input(Input::MediaUp);
    after.journal_syncs();
    let bye = after.sent.iter().find(|message| message.method() == Some("BYE")).expect("a BYE");
    assert!(bye.headers.get("Reason").is_some_and(|reason| reason.contains("cannot go on")));
    assert!(after.log.iter().any(|line| line.contains("not resumed")));
    after.settles();
    assert!(after.journal.iter().any(
        |entry| matches!(entry, Entry::Ended { reason, .. } if reason.starts_with("not resumed"))
    ));
    after.nothing_is_left();
}

/// A re-INVITE comes again as soon as control is back, before media has said what it holds: what media
/// is asked for last is what the SRC gets its 200 for.
#[test]
fn f02_a_change_that_comes_before_media_has_said_what_it_holds_is_not_taken_back() {
    let before = Bench::started();
    let tag = before.tag();
    let stream = before.control.sessions.values().next().expect("one").streams[0].clone();
    let mut after = Bench::new(4, 2);
    after.control.recover(after.clock(), &Standings::of(&before.journal));
    after.input(Input::MediaUp);
    after.datagram(&invite("call-1", 2, &tag, "inactive", 2));
    let (slot, generation) = (stream.description.slot, stream.generation);
    let stream = stream.description.stream;
    after.media_holds(&[HeldSlot { slot, generation, stream, open: true }]);
    let asked = |frame: &Frame| match frame {
        Frame::Open(open) => Some(("open", open.active)),
        Frame::Update { stream, .. } => Some(("update", stream.active)),
        _ => None,
    };
    let all: Vec<_> = after.media.iter().filter_map(|all| asked(&all.frame)).collect();
    assert_eq!(all, [("update", false), ("open", false)]);
    after.media_agrees();
    after.journal_syncs();
    assert_eq!(after.last().code(), Some(200));
}

/// Control died after media had opened the slot and before the journal had the RS: the next use of
/// that slot must not look like a repetition of the one that nobody knows.
#[test]
fn f02_a_slot_that_media_holds_for_an_unknown_stream_is_closed_before_anything_is_taken() {
    let mut bench = Bench::new(4, 1);
    bench.input(Input::MediaUp);
    bench.datagram(&invite("early", 1, "", "sendonly", 1));
    bench.tick(500);
    assert_eq!(bench.codes(), [503], "what media holds is not known yet");
    let (slot, generation, stream) = (Slot(0), Generation(1), StreamId(77));
    bench.media_holds(&[HeldSlot { slot, generation, stream, open: true }]);
    assert!(bench.media.iter().any(|asked| matches!(
        asked.frame,
        Frame::Close { slot: Slot(0), generation: Generation(1), .. }
    )));
    bench.datagram(&invite("a", 1, "", "sendonly", 1));
    let opened = bench.media.iter().find_map(|asked| match &asked.frame {
        Frame::Open(open) => Some((open.slot, open.generation)),
        _ => None,
    });
    assert_eq!(opened, Some((Slot(1), Generation(1))), "slot 0 is still held");
    bench.media_agrees();
    bench.journal_syncs();
    let known = |entry: &&Entry| matches!(entry, Entry::StreamClosed { .. });
    assert_eq!(bench.journal.iter().filter(known).count(), 0, "no RS had it");
    bench.control.slots.take(HOME);
    bench.control.slots.take(HOME);
    let uses: Vec<_> = std::iter::from_fn(|| bench.control.slots.take(HOME)).collect();
    let use_of_0 = uses.iter().find(|(slot, ..)| *slot == Slot(0)).map(|place| place.1);
    assert_eq!(use_of_0, Some(Generation(2)), "a later use than any that media knows");
}

#[test]
fn a_use_that_media_has_closed_is_followed_by_the_next_one() {
    let before = Bench::started();
    let mut after = Bench::new(4, 2);
    after.control.recover(after.clock(), &Standings::of(&before.journal));
    after.input(Input::MediaUp);
    let stream = after.control.sessions.values().next().expect("one").streams[0].clone();
    let (slot, stream) = (stream.description.slot, stream.description.stream);
    after.media_holds(&[HeldSlot { slot, generation: Generation(3), stream, open: false }]);
    assert!(after.media.iter().any(|asked| matches!(&asked.frame,
        Frame::Open(open) if open.generation == Generation(4))));
}

#[test]
fn a_stream_that_media_has_no_room_for_at_once_is_asked_again_until_it_is_taken() {
    let before = Bench::started();
    let mut after = Bench::new(4, 2);
    after.control.recover(after.clock(), &Standings::of(&before.journal));
    after.input(Input::MediaUp);
    after.media_holds(&before.held());
    let resumed = |bench: &Bench| {
        bench.media.iter().filter(|asked| matches!(asked.frame, Frame::Resumed)).count()
    };
    for _ in 0..3 {
        after.media_refuses(Refusal::NotReady);
        assert_eq!(resumed(&after), 0, "a stream is not taken yet");
        after.tick(50);
        assert!(after.media.iter().any(|asked| matches!(asked.frame, Frame::Open(_))));
    }
    let open = after.media.remove(0);
    let Frame::Open(asked) = &open.frame else { panic!("expected Open") };
    let (slot, generation, applied) = (asked.slot, asked.generation, after.clock());
    let frame = Frame::Opened { slot, generation, applied };
    after.input(Input::Media(Envelope { id: open.id, fds: 0, frame }));
    assert_eq!(resumed(&after), 1);
}

/// The spool of a media that died needs the salts of RSs that are over, or it seals nothing.
#[test]
fn salts_of_an_rs_that_is_over_are_told_to_a_new_media() {
    let mut bench = Bench::started();
    let (tag, salt) = (bench.tag(), bench.control.sessions.values().next().expect("one").salt);
    bench.datagram(&request("BYE", "call-1", 2, &tag, ""));
    bench.settles();
    bench.nothing_is_left();
    let told = |bench: &Bench| {
        bench.media.iter().any(|asked| {
            matches!(&asked.frame,
            Frame::Salts { salts, streams } if salts[0].1 == salt && streams.len() == 1)
        })
    };
    bench.input(Input::MediaDown);
    bench.input(Input::MediaUp);
    assert!(told(&bench));
    let mut after = Bench::new(4, 2);
    after.now = bench.now;
    after.control.recover(after.clock(), &Standings::of(&bench.journal));
    after.input(Input::MediaUp);
    assert!(told(&after), "the journal remembers as well");
}
