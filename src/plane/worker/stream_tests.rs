//! One stream's life as the worker sees it: commands, latching, pauses, bounds, evidence.

use super::model::{Machine, REMOTE, RTP_PORTS, TestWorker, master, rtp, stream};
use crate::base::counter::{Cause, Counter};
use crate::base::ids::{Generation, Index, Seq, Slot, Ssrc, StreamId};
use crate::base::keyring::Keyring;
use crate::base::limits::TURN_PACKETS_MAX;
use crate::base::mki::Mki;
use crate::base::ports::Region;
use crate::base::suite::Suite;
use crate::base::time::{Mono, Wall};
use crate::plane::handoff::frame::{
    Frame, KnownSource, Notice, Refusal, ResumeStream, WireKeyring,
};
use crate::plane::handoff::layout::{AT_COUNTERS, AT_HELD};
use crate::proto::srtp::Context;
use crate::store::event::{Event, Origin};
use crate::store::record::{FLAG_AUTHENTICATED, RecordKind};

const SUITE: Suite = Suite::AeadAes128Gcm;

fn counted(machine: &Machine, counter: Counter) -> u64 {
    machine.state.load(AT_COUNTERS + counter as usize * 8)
}

fn ask(machine: &mut Machine, worker: &mut TestWorker, frame: Frame) -> Frame {
    let id = machine.command(frame);
    worker.turn().expect("model");
    machine.answer(id)
}

fn opened() -> (Machine, TestWorker) {
    let mut machine = Machine::new(0);
    let mut worker = machine.start();
    let answer = ask(&mut machine, &mut worker, Frame::Open(stream(1, 1, None)));
    assert!(matches!(answer, Frame::Opened { .. }));
    (machine, worker)
}

fn events(machine: &Machine) -> Vec<Event> {
    machine.records(0).iter().filter_map(|record| record.event()).collect()
}

fn close(generation: u32) -> Frame {
    Frame::Close { slot: Slot(1), generation: Generation(generation), by: Origin::Src }
}

#[test]
fn every_datagram_ends_in_exactly_one_counter() {
    let (mut machine, mut worker) = opened();
    let port = RTP_PORTS[1];
    machine.send(REMOTE, port, rtp(1, 1));
    machine.send(REMOTE, port, rtp(1, 1));
    machine.send(REMOTE, port, vec![]);
    machine.send(REMOTE, port, vec![0x80, 0]);
    machine.send(REMOTE, port, vec![0x40; 40]);
    machine.send(REMOTE, port + 1, rtp(1, 2));
    machine.send(REMOTE, RTP_PORTS[0], rtp(1, 2));
    machine.send(REMOTE, 9, rtp(1, 2));
    let report = [0x80, 200, 0, 6, 0, 0, 0, 1].into_iter().chain([0; 20]).collect::<Vec<u8>>();
    machine.send(REMOTE, port + 1, report);
    worker.turn().expect("model");
    let wanted = [
        (Counter::RtpRecorded, 1),
        (Counter::Replayed, 1),
        (Counter::KeepAlive, 1),
        (Counter::Malformed, 3),
        (Counter::NoStream, 2),
        (Counter::RtcpRecorded, 1),
    ];
    for counter in Counter::ALL {
        let count = wanted.iter().find(|(own, _)| *own == counter).map_or(0, |(_, count)| *count);
        assert_eq!(counted(&machine, counter), count, "{counter:?}");
    }
    let answer = ask(&mut machine, &mut worker, close(1));
    assert!(matches!(answer, Frame::Closed { .. }));
    let drops = events(&machine).into_iter().find_map(|event| match event {
        Event::Close { drops, .. } => Some(drops),
        _ => None,
    });
    let drops = drops.expect("the stream closed");
    assert_eq!((drops["malformed"], drops["replayed"], drops["keep_alive"]), (3, 1, 1));
}

#[test]
fn commands_are_idempotent_and_stale_ones_refused() {
    let (mut machine, mut worker) = opened();
    let before = events(&machine).len();
    let again = ask(&mut machine, &mut worker, Frame::Open(stream(1, 1, None)));
    assert!(matches!(again, Frame::Opened { generation: Generation(1), .. }));
    assert_eq!(events(&machine).len(), before, "a repetition writes nothing");
    for _ in 0..2 {
        let closed = ask(&mut machine, &mut worker, close(1));
        assert!(matches!(closed, Frame::Closed { .. }));
    }
    let closes = events(&machine);
    let closes = closes.iter().filter(|event| matches!(event, Event::Close { .. })).count();
    assert_eq!(closes, 1);
    let stale = ask(&mut machine, &mut worker, Frame::Open(stream(1, 1, None)));
    assert!(matches!(stale, Frame::Refused { why: Refusal::Stale, .. }));
    let newer = ask(&mut machine, &mut worker, Frame::Open(stream(1, 2, None)));
    assert!(matches!(newer, Frame::Opened { .. }));
    let stale = ask(&mut machine, &mut worker, close(1));
    assert!(matches!(stale, Frame::Refused { why: Refusal::Stale, .. }));
    let mut far = stream(1, 3, None);
    far.slot = Slot(99);
    let none = ask(&mut machine, &mut worker, Frame::Open(far));
    assert!(matches!(none, Frame::Refused { why: Refusal::NoSlot, .. }));
    let mut short = stream(0, 1, Some((SUITE, 1)));
    short.crypto.as_mut().expect("SRTP").suite = Suite::AeadAes256Gcm.into();
    let keys = ask(&mut machine, &mut worker, Frame::Open(short));
    assert!(matches!(keys, Frame::Refused { why: Refusal::Keys, .. }));
}

/// A control that died asked for a change that its journal never knew, or the other way round: the
/// open of its successor says what holds.
#[test]
fn f59_a_repeated_open_that_differs_changes_the_stream() {
    let (mut machine, mut worker) = opened();
    let wanted = |key: Option<u8>, active: bool| {
        let mut stream = stream(1, 1, key.map(|fill| (SUITE, fill)));
        stream.active = active;
        Frame::Open(stream)
    };
    let count = |machine: &Machine, kind: fn(&Event) -> bool| {
        events(machine).iter().filter(|event| kind(event)).count()
    };
    for (number, (key, active)) in
        [(Some(5), false), (Some(6), false), (Some(6), true), (None, true)].into_iter().enumerate()
    {
        for _ in 0..2 {
            let answer = ask(&mut machine, &mut worker, wanted(key, active));
            assert!(matches!(answer, Frame::Opened { generation: Generation(1), .. }));
            let changed = count(&machine, |event| matches!(event, Event::Changed { .. }));
            assert_eq!(changed, number + 1, "once, and its repetition writes nothing");
        }
    }
    assert_eq!(count(&machine, |event| matches!(event, Event::Pause { .. })), 1);
    assert_eq!(count(&machine, |event| matches!(event, Event::Resume { .. })), 1);
    assert_eq!(count(&machine, |event| matches!(event, Event::Open { .. })), 1);
}

#[test]
fn the_same_use_by_another_stream_is_no_repetition() {
    let (mut machine, mut worker) = opened();
    let mut other = stream(1, 1, None);
    other.description.stream = StreamId(99);
    let answer = ask(&mut machine, &mut worker, Frame::Open(other));
    assert!(matches!(answer, Frame::Refused { why: Refusal::Stale, .. }));
}

#[test]
fn f06_a_held_worker_leaves_packets_in_the_sockets_and_takes_commands() {
    let mut machine = Machine::new(0);
    machine.state.store(AT_HELD, 1);
    let mut worker = machine.start();
    machine.send(REMOTE, RTP_PORTS[1], rtp(1, 1));
    machine.pass_ns(1_000_000);
    let answer = ask(&mut machine, &mut worker, Frame::Open(stream(1, 1, None)));
    assert!(matches!(answer, Frame::Opened { .. }));
    assert_eq!(machine.network.borrow().len(), 1, "nothing is received yet");
    machine.state.store(AT_HELD, 0);
    worker.turn().expect("model");
    assert!(machine.network.borrow().is_empty());
    assert_eq!(counted(&machine, Counter::NoStream), 1, "it came before the stream");
}

/// A stream that goes on: what waited in the sockets is its own, its index goes on with the
/// roll-over counter of the store, and nothing that is on disk is taken twice.
#[test]
fn f06_a_stream_goes_on_after_the_dark_with_its_sources() {
    for suite in [None, Some((SUITE, 1))] {
        let mut machine = Machine::new(0);
        machine.state.store(AT_HELD, 1);
        let mut worker = machine.start();
        let context = Context::new(SUITE, &master(SUITE, 1)).expect("a key");
        let packet = |roc: u32, seq: u16| {
            let clear = rtp(7, seq);
            if suite.is_none() {
                return clear;
            }
            let mut wire = vec![0; 2_048];
            let length = context.protect_rtp(&clear, Index::new(roc, Seq(seq)), &mut wire);
            wire.truncate(length.expect("room"));
            wire
        };
        for (roc, seq) in [(3, 65_530), (3, 65_534), (4, 2), (4, 3)] {
            machine.send(REMOTE, RTP_PORTS[1], packet(roc, seq));
        }
        let highest = Index::new(3, Seq(65_532));
        let from = Some(REMOTE.parse().expect("an address"));
        let known = KnownSource { ssrc: Ssrc(7), ordinal: 5, highest, from };
        let past = ResumeStream {
            open: *stream(1, 1, suite),
            dark_since: Wall(1_000),
            next_ordinal: 6,
            sources: vec![known],
        };
        machine.pass_ns(1_000_000);
        let answer = ask(&mut machine, &mut worker, Frame::Resume(Box::new(past)));
        assert!(matches!(answer, Frame::Opened { .. }));
        machine.state.store(AT_HELD, 0);
        worker.turn().expect("model");
        machine.send(REMOTE, RTP_PORTS[1], packet(4, 4));
        worker.turn().expect("model");
        let records = machine.records(0);
        let kept: Vec<_> = records
            .iter()
            .filter(|record| record.meta.kind == RecordKind::Rtp)
            .map(|record| (record.meta.source.ordinal(), record.meta.index))
            .collect();
        let index = |roc, seq| (5, Index::new(roc, Seq(seq)));
        assert_eq!(kept, [index(3, 65_534), index(4, 2), index(4, 3), index(4, 4)], "{suite:?}");
        assert_eq!(counted(&machine, Counter::Replayed), 1);
        let gap = |event: &Event| {
            matches!(event,
            Event::Gap { cause: Cause::Power, from: Wall(1_000), to } if *to > Wall(1_000))
        };
        assert_eq!(events(&machine).iter().filter(|event| gap(event)).count(), 1);
        let sources = events(&machine);
        let sources = sources.iter().filter(|event| matches!(event, Event::Source { .. }));
        assert_eq!(sources.count(), 0, "no new source");
    }
}

#[test]
fn f60_a_packet_is_stored_if_it_arrived_before_the_pause() {
    let (mut machine, mut worker) = opened();
    let mut paused = stream(1, 1, None);
    paused.active = false;
    // The command is applied at an instant after the first packet's stamp, though the packet is
    // taken in a later turn: it was still in its socket.
    machine.send(REMOTE, RTP_PORTS[1], rtp(1, 1));
    let waiting = machine.network.borrow_mut().pop_front().expect("sent");
    machine.pass_ns(1_000_000);
    ask(&mut machine, &mut worker, Frame::Update { stream: paused, by: Origin::Src });
    machine.network.borrow_mut().push_back(waiting);
    machine.send(REMOTE, RTP_PORTS[1], rtp(1, 2));
    // An empty receiver report: reports go on while media is paused.
    machine.send(REMOTE, RTP_PORTS[1], vec![0x80, 201, 0, 1, 0, 0, 0, 1]);
    worker.turn().expect("model");
    machine.pass_ns(1_000_000);
    let resumed = stream(1, 1, None);
    ask(&mut machine, &mut worker, Frame::Update { stream: resumed, by: Origin::Src });
    machine.send(REMOTE, RTP_PORTS[1], rtp(1, 3));
    worker.turn().expect("model");
    let kept: Vec<u64> = machine
        .records(0)
        .iter()
        .filter(|record| record.meta.kind == RecordKind::Rtp)
        .map(|record| record.meta.index.0)
        .collect();
    assert_eq!(kept, [1, 3]);
    assert_eq!(counted(&machine, Counter::Paused), 1);
    assert_eq!(counted(&machine, Counter::RtcpRecorded), 1);
    let events = events(&machine);
    let pauses = events.iter().filter(|event| matches!(event, Event::Pause { by: Origin::Src }));
    let resumes = events.iter().filter(|event| matches!(event, Event::Resume { .. }));
    assert_eq!((pauses.count(), resumes.count()), (1, 1));
}

#[test]
fn f31_a_second_plain_sender_is_kept_apart_and_refused_when_strict() {
    let (mut machine, mut worker) = opened();
    machine.send(REMOTE, RTP_PORTS[1], rtp(1, 1));
    // Any port of the signalled address is the same sender; another address is another one.
    machine.send("10.0.0.1:7777", RTP_PORTS[1], rtp(1, 2));
    machine.send("10.0.0.66:5004", RTP_PORTS[1], rtp(1, 2));
    worker.turn().expect("model");
    let ordinals: Vec<u16> = machine
        .records(0)
        .iter()
        .filter(|record| record.meta.kind == RecordKind::Rtp)
        .map(|record| record.meta.source.ordinal())
        .collect();
    assert_eq!(ordinals, [1, 1, 2]);
    let mut strict = stream(1, 1, None);
    strict.strict = true;
    ask(&mut machine, &mut worker, Frame::Update { stream: strict, by: Origin::Src });
    machine.send("10.0.0.66:5004", RTP_PORTS[1], rtp(1, 3));
    worker.turn().expect("model");
    assert_eq!(counted(&machine, Counter::Stranger), 1);
}

#[test]
fn f42_at_most_four_sources_live_and_a_silent_one_frees_its_place() {
    let (mut machine, mut worker) = opened();
    for ssrc in 1..=6 {
        machine.send(REMOTE, RTP_PORTS[1], rtp(ssrc, 1));
    }
    worker.turn().expect("model");
    assert_eq!(counted(&machine, Counter::TooManySources), 2);
    machine.pass_ns(6_000_000_000);
    machine.send(REMOTE, RTP_PORTS[1], rtp(7, 1));
    worker.turn().expect("model");
    assert_eq!(counted(&machine, Counter::RtpRecorded), 5);
    let notices: Vec<u32> = std::iter::from_fn(|| machine.queues.answers.pop())
        .filter_map(|envelope| match envelope.frame {
            Frame::Notice(Notice::Source { ssrc, .. }) => Some(ssrc.0),
            _ => None,
        })
        .collect();
    assert_eq!(notices.len(), 5);
    machine.pass_ns(1_000_000_000);
    worker.turn().expect("model");
    let refused = events(&machine)
        .into_iter()
        .any(|event| matches!(event, Event::Dropped { cause: Cause::Refused, count: 2, .. }));
    assert!(refused, "evidence within a second");
    drop(ask(&mut machine, &mut worker, close(1)));
}

#[test]
fn f34_f35_forgeries_are_counted_and_a_new_key_takes_over() {
    let mut machine = Machine::new(0);
    let mut worker = machine.start();
    ask(&mut machine, &mut worker, Frame::Open(stream(0, 1, Some((SUITE, 1)))));
    let protect = |fill: u8, index: u64| {
        let context = Context::new(SUITE, &master(SUITE, fill)).expect("length");
        let mut out = [0; 256];
        let packet = rtp(5, Index(index).seq().0);
        let length = context.protect_rtp(&packet, Index(index), &mut out).expect("room");
        out[..length].to_vec()
    };
    machine.send(REMOTE, RTP_PORTS[0], protect(2, 100));
    worker.turn().expect("model");
    machine.pass_ns(1_500_000_000);
    machine.send(REMOTE, RTP_PORTS[0], protect(2, 101));
    worker.turn().expect("model");
    let failing = |event: &Event| matches!(event, Event::AuthFailing { count: 2, .. });
    assert_eq!(events(&machine).iter().filter(|event| failing(event)).count(), 1);
    machine.pass_ns(2_000_000_000);
    worker.turn().expect("model");
    assert_eq!(counted(&machine, Counter::AuthFailed), 2, "no key came for them");

    machine.send(REMOTE, RTP_PORTS[0], protect(1, 65_600));
    worker.turn().expect("model");
    let update = Frame::Update { stream: stream(0, 1, Some((SUITE, 3))), by: Origin::Src };
    ask(&mut machine, &mut worker, update);
    // One under the old key is still on its way; the new key begins a new context (RFC 4568).
    machine.send(REMOTE, RTP_PORTS[0], protect(1, 65_601));
    machine.send(REMOTE, RTP_PORTS[0], protect(3, 65));
    machine.send(REMOTE, RTP_PORTS[0], protect(3, 66));
    worker.turn().expect("model");
    machine.pass_ns(2_100_000_000);
    worker.turn().expect("model");
    machine.send(REMOTE, RTP_PORTS[0], protect(1, 65_700));
    worker.turn().expect("model");
    machine.pass_ns(2_000_000_000);
    worker.turn().expect("model");
    let records = machine.records(0);
    let kept: Vec<(u64, u16)> = records
        .iter()
        .filter(|record| record.meta.kind == RecordKind::Rtp)
        .inspect(|record| assert_eq!(record.meta.flags, FLAG_AUTHENTICATED))
        .map(|record| (record.meta.index.0, record.meta.source.ordinal()))
        .collect();
    // Another source: nothing is missing between 66 and 65,600.
    assert_eq!(kept, [(65_600, 1), (65_601, 1), (65, 2), (66, 2)]);
    let told = |event: &Event| matches!(event, Event::Source { ordinal: 2, ssrc: Ssrc(5), .. });
    assert_eq!(events(&machine).iter().filter(|event| told(event)).count(), 1);
    assert_eq!(counted(&machine, Counter::AuthFailed), 3, "the old key has ended");
}

/// The SRC begins a new context at numbers that its old one had: they are no replays under the new key.
#[test]
fn f35_a_new_key_may_begin_at_numbers_that_were_seen() {
    let mut machine = Machine::new(0);
    let mut worker = machine.start();
    ask(&mut machine, &mut worker, Frame::Open(stream(0, 1, Some((SUITE, 1)))));
    let protect = |fill: u8, seq: u16| {
        let context = Context::new(SUITE, &master(SUITE, fill)).expect("length");
        let mut out = [0; 256];
        let index = Index::new(0, Seq(seq));
        let length = context.protect_rtp(&rtp(5, seq), index, &mut out).expect("room");
        out[..length].to_vec()
    };
    for seq in [100, 101, 102] {
        machine.send(REMOTE, RTP_PORTS[0], protect(1, seq));
    }
    worker.turn().expect("model");
    let update = Frame::Update { stream: stream(0, 1, Some((SUITE, 3))), by: Origin::Src };
    ask(&mut machine, &mut worker, update);
    // One of before is repeated, then the new ones come, and one of them twice.
    for (key, seq) in [(1, 102), (3, 101), (3, 102), (3, 102), (3, 103)] {
        machine.send(REMOTE, RTP_PORTS[0], protect(key, seq));
    }
    worker.turn().expect("model");
    let records = machine.records(0);
    let kept: Vec<(u64, u16)> = records
        .iter()
        .filter(|record| record.meta.kind == RecordKind::Rtp)
        .map(|record| (record.meta.index.0, record.meta.source.ordinal()))
        .collect();
    assert_eq!(kept, [(100, 1), (101, 1), (102, 1), (101, 2), (102, 2), (103, 2)]);
}

#[test]
fn f35_reports_count_anew_under_a_new_key_and_go_on_under_the_same() {
    let mut machine = Machine::new(0);
    let mut worker = machine.start();
    let keyed = |fill: u8, octet: u8| {
        let mut stream = stream(0, 1, Some((SUITE, fill)));
        let key = (master(SUITE, fill), Mki::new(&[octet]));
        let keyring = Keyring::new(vec![key], 0).expect("a key");
        stream.crypto.as_mut().expect("SRTP").remote = WireKeyring::new(&keyring);
        stream
    };
    let report = [0x80, 200, 0, 6, 0, 0, 0, 5].into_iter().chain([0; 20]).collect::<Vec<u8>>();
    let protect = |fill: u8, octet: u8, index: u32| {
        let context = Context::new(SUITE, &master(SUITE, fill)).expect("length");
        let mut out = [0; 256];
        let length = context.protect_rtcp(&report, index, &mut out).expect("room");
        [&out[..length], &[octet]].concat()
    };
    ask(&mut machine, &mut worker, Frame::Open(keyed(1, 1)));
    // How many are recorded, replayed and late, each as if it were the next.
    let sent = |worker: &mut TestWorker, machine: &Machine, packets: &[(u8, u8, u32)]| {
        for (fill, octet, index) in packets {
            machine.send(REMOTE, RTP_PORTS[0] + 1, protect(*fill, *octet, *index));
        }
        worker.turn().expect("model");
        [Counter::RtcpRecorded, Counter::Replayed, Counter::Late].map(|one| counted(machine, one))
    };
    let found = sent(&mut worker, &machine, &[(1, 1, 500), (1, 1, 500), (1, 1, 501)]);
    assert_eq!(found, [2, 1, 0]);
    ask(&mut machine, &mut worker, Frame::Update { stream: keyed(3, 2), by: Origin::Src });
    // One under the key before is on its way; under the new one they begin anew, and it is over.
    let found = sent(&mut worker, &machine, &[(1, 1, 502), (3, 2, 0), (3, 2, 0), (1, 1, 503)]);
    assert_eq!(found, [4, 2, 1]);
    drop(worker);
    let mut worker = machine.start();
    assert_eq!(sent(&mut worker, &machine, &[(3, 2, 0), (3, 2, 1)]), [5, 3, 1]);
    // Another MKI for the same key: nothing of before is taken twice, and what is under way is late.
    ask(&mut machine, &mut worker, Frame::Update { stream: keyed(3, 4), by: Origin::Src });
    let found = sent(&mut worker, &machine, &[(3, 4, 1), (3, 2, 0), (3, 4, 2)]);
    assert_eq!(found, [6, 4, 2]);
}

#[test]
fn f35_an_mki_is_cut_off_by_a_successor_too_and_another_one_takes_over() {
    let mut machine = Machine::new(0);
    let mut worker = machine.start();
    let marked = |octets: &[u8]| {
        let mut stream = stream(0, 1, Some((SUITE, 1)));
        let key = (master(SUITE, 1), Mki::new(octets));
        let keyring = Keyring::new(vec![key], 0).expect("a key");
        stream.crypto.as_mut().expect("SRTP").remote = WireKeyring::new(&keyring);
        stream
    };
    ask(&mut machine, &mut worker, Frame::Open(marked(&[0, 0, 1])));
    let protect = |index: u64, mki: &[u8]| {
        let context = Context::new(SUITE, &master(SUITE, 1)).expect("length");
        let mut out = [0; 256];
        let packet = rtp(5, Index(index).seq().0);
        let length = context.protect_rtp(&packet, Index(index), &mut out).expect("room");
        [&out[..length], mki].concat()
    };
    machine.send(REMOTE, RTP_PORTS[0], protect(65_500, &[0, 0, 1]));
    worker.turn().expect("model");
    drop(worker);
    let mut worker = machine.start();
    machine.send(REMOTE, RTP_PORTS[0], protect(65_600, &[0, 0, 1]));
    worker.turn().expect("model");
    let answer = ask(&mut machine, &mut worker, Frame::Open(marked(&[0, 0, 1])));
    assert!(matches!(answer, Frame::Opened { .. }), "asked again");
    let update = Frame::Update { stream: marked(&[2]), by: Origin::Src };
    ask(&mut machine, &mut worker, update);
    // One under the old MKI is on its way still; the key and its roll-over counter go on.
    machine.send(REMOTE, RTP_PORTS[0], protect(65_601, &[0, 0, 1]));
    machine.send(REMOTE, RTP_PORTS[0], protect(65_602, &[2]));
    machine.send(REMOTE, RTP_PORTS[0], protect(65_603, &[3]));
    // An MKI is not authenticated: what was recorded is no new packet under the other one.
    machine.send(REMOTE, RTP_PORTS[0], protect(65_600, &[2]));
    machine.send(REMOTE, RTP_PORTS[0], protect(65_500, &[2]));
    worker.turn().expect("model");
    machine.pass_ns(2_000_000_000);
    worker.turn().expect("model");
    let records = machine.records(0);
    let kept: Vec<(u64, usize)> = records
        .iter()
        .filter(|record| record.meta.kind == RecordKind::Rtp)
        .map(|record| (record.meta.index.0, record.payload.len()))
        .collect();
    let bytes = rtp(5, 1).len();
    assert_eq!(kept, [(65_500, bytes), (65_600, bytes), (65_601, bytes), (65_602, bytes)]);
    assert_eq!(counted(&machine, Counter::AuthFailed), 1, "an MKI that nobody named");
    assert_eq!(counted(&machine, Counter::Replayed), 2);
    let changed = |event: &Event| matches!(event, Event::Changed { key_changed: true, .. });
    assert_eq!(events(&machine).iter().filter(|event| changed(event)).count(), 1);
}

#[test]
fn a_full_ring_refuses_and_explains_and_never_overwrites() {
    let (machine, mut worker) = opened();
    let tail = |machine: &Machine| machine.records(0).len();
    let mut seq = 0_u32;
    while counted(&machine, Counter::RingFull) == 0 {
        for _ in 0..256 {
            seq += 1;
            let mut packet = rtp(1, seq as u16);
            packet.extend_from_slice(&[0; 1_200]);
            machine.send(REMOTE, RTP_PORTS[1], packet);
        }
        worker.turn().expect("model");
    }
    let full = tail(&machine);
    machine.pass_ns(1_100_000_000);
    worker.turn().expect("model");
    let explained = events(&machine)
        .into_iter()
        .any(|event| matches!(event, Event::Dropped { cause: Cause::Ring, .. }));
    assert!(explained && tail(&machine) > full, "events still have room");
    machine.spool_all();
    machine.send(REMOTE, RTP_PORTS[1], rtp(1, seq as u16 + 1));
    let before = counted(&machine, Counter::RtpRecorded);
    worker.turn().expect("model");
    assert_eq!(counted(&machine, Counter::RtpRecorded), before + 1);
}

/// A worker that is behind takes commands between full turns; the sockets may then hold packets that
/// came before the close.
#[test]
fn a_close_waits_for_what_came_before_it() {
    let (mut machine, mut worker) = opened();
    let behind = 9 * TURN_PACKETS_MAX as u16 - 20;
    (0..behind).for_each(|seq| machine.send(REMOTE, RTP_PORTS[1], rtp(1, seq)));
    let id = machine.command(close(1));
    while worker.turn().expect("model") == TURN_PACKETS_MAX {
        machine.spool_all();
    }
    assert!(matches!(machine.answer(id), Frame::Closed { .. }));
    assert_eq!(counted(&machine, Counter::RtpRecorded), u64::from(behind));
    assert_eq!(counted(&machine, Counter::NoStream), 0);
}

/// A sender that does not know the end keeps its port busy: what came before the close counts.
#[test]
fn a_close_does_not_wait_for_what_comes_after_it() {
    let (mut machine, mut worker) = opened();
    let id = machine.command(close(1));
    let mut seq = 0;
    // No turn drains the socket; the clock moves on with each packet.
    for _ in 0..24 {
        for _ in 0..2 * TURN_PACKETS_MAX {
            machine.send(REMOTE, RTP_PORTS[1], rtp(1, seq));
            seq += 1;
        }
        worker.turn().expect("model");
        machine.spool_all();
    }
    assert!(matches!(machine.answer(id), Frame::Closed { .. }));
    assert!(counted(&machine, Counter::NoStream) > 0);
}

#[test]
fn f22_socket_drops_become_evidence_of_the_stream_that_is_open() {
    let (mut machine, mut worker) = opened();
    machine.send(REMOTE, RTP_PORTS[1], rtp(1, 1));
    machine.send(REMOTE, RTP_PORTS[1], rtp(1, 9));
    machine.network.borrow_mut()[1].socket_drops = Some(7);
    worker.turn().expect("model");
    machine.pass_ns(1_100_000_000);
    worker.turn().expect("model");
    let socket =
        |event: &Event| matches!(event, Event::Dropped { cause: Cause::Socket, count: 7, .. });
    assert!(events(&machine).iter().any(socket));
    drop(ask(&mut machine, &mut worker, close(1)));
    let total =
        events(&machine).iter().any(|event| matches!(event, Event::Close { socket_drops: 7, .. }));
    assert!(total);
}

#[test]
fn evidence_says_nothing_about_what_came_before() {
    let (mut machine, mut worker) = opened();
    let mut arrivals = Vec::new();
    for seq in 1..=5 {
        machine.send(REMOTE, RTP_PORTS[1], rtp(1, seq));
        arrivals.push(machine.now().mono);
        worker.turn().expect("model");
        machine.pass_ns(1_100_000_000);
        worker.turn().expect("model");
    }
    machine.send(REMOTE, RTP_PORTS[1], rtp(1, 9));
    machine.network.borrow_mut()[0].socket_drops = Some(3);
    worker.turn().expect("model");
    drop(ask(&mut machine, &mut worker, close(1)));
    let begins: Vec<Mono> = events(&machine)
        .iter()
        .filter_map(|event| match event {
            Event::Dropped { cause: Cause::Socket, from, .. } => Some(*from),
            _ => None,
        })
        .collect();
    assert_eq!(begins, [arrivals[4]], "the last packet that came before");
}

#[test]
fn a_plain_sender_that_begins_anew_goes_on_one_cycle_higher() {
    let (machine, mut worker) = opened();
    for seq in [30_000, 30_001, 5_000, 5_001, 5_002] {
        machine.send(REMOTE, RTP_PORTS[1], rtp(1, seq));
    }
    worker.turn().expect("model");
    let kept: Vec<u64> = machine
        .records(0)
        .iter()
        .filter(|record| record.meta.kind == RecordKind::Rtp)
        .map(|record| record.meta.index.0)
        .collect();
    // RFC 3550 A.1: the second packet in sequence proves it.
    assert_eq!(kept, [30_000, 30_001, 65_536 + 5_001, 65_536 + 5_002]);
    assert_eq!(counted(&machine, Counter::Late), 1);
}

#[test]
fn a_start_says_who_began_and_what_the_predecessor_left() {
    let (machine, worker) = opened();
    drop(worker);
    drop(machine.start());
    let started: Vec<(u64, bool)> = events(&machine)
        .into_iter()
        .filter_map(|event| match event {
            Event::Started { incarnation, predecessor_last, .. } => {
                Some((incarnation, predecessor_last.is_some()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(started, [(1, false), (2, true)]);
}

/// F32: the sender went on for cycles while nobody listened. Its counter is found by trying, within
/// the bound of each turn; a short tag must speak three times. What came until then is recorded with what
/// tells it.
#[test]
fn f32_a_roll_over_counter_far_ahead_is_found_within_the_bound_of_each_turn() {
    let cases = [
        (Suite::AesCm128HmacSha1_80, 1, 1),
        (Suite::AesCm128HmacSha1_80, 200, 1),
        (Suite::AesCm128HmacSha1_80, 600, 4),
        (Suite::AeadAes128Gcm, 300, 2),
        (Suite::AesCm128HmacSha1_32, 2, 3),
        (Suite::AesCm128HmacSha1_32, 100, 3),
        (Suite::AesCm128HmacSha1_32, 700, 5),
        (Suite::Aes256CmHmacSha1_80, 200, 1),
        (Suite::Aes192CmHmacSha1_32, 2, 3),
        (Suite::Aes256CmHmacSha1_32, 100, 3),
        (Suite::F8_128HmacSha1_80, 1, 1),
    ];
    for (suite, cycles, packets) in cases {
        let mut machine = Machine::new(0);
        let mut worker = machine.start();
        let key = Some((suite, 1));
        ask(&mut machine, &mut worker, Frame::Open(stream(1, 1, key)));
        let context = Context::new(suite, &master(suite, 1)).expect("a key");
        let send = |machine: &Machine, index: Index| {
            let mut wire = vec![0; 2_048];
            let length = context.protect_rtp(&rtp(7, index.seq().0), index, &mut wire);
            wire.truncate(length.expect("room"));
            machine.send(REMOTE, RTP_PORTS[1], wire);
        };
        send(&machine, Index::new(0, Seq(1_000)));
        worker.turn().expect("model");
        machine.pass_ns(2_000_000_000);
        let mut wanted = vec![Index::new(0, Seq(1_000))];
        for n in 0..packets + 3 {
            // As far from the last packet as a sequence number can be.
            let index = Index::new(cycles, Seq(40_000 + n));
            send(&machine, index);
            wanted.push(index);
            worker.turn().expect("model");
            let records = machine.records(0).into_iter();
            let kept: Vec<Index> = records
                .filter(|record| record.meta.kind == RecordKind::Rtp)
                .map(|record| record.meta.index)
                .collect();
            let known = if n + 1 < packets { 1 } else { wanted.len() };
            assert_eq!(kept, wanted[..known], "{suite:?}, {cycles} cycles, {n}");
        }
        let events = events(&machine);
        let found = events.iter().filter(|event| {
            matches!(event,
            Event::RocResync { ssrc: Ssrc(7), roc, .. } if *roc == cycles)
        });
        assert_eq!(found.count(), 1);
    }
}

#[test]
fn f32_forged_packets_do_not_keep_a_source_from_being_found() {
    let suite = Suite::AesCm128HmacSha1_80;
    let mut machine = Machine::new(0);
    let mut worker = machine.start();
    ask(&mut machine, &mut worker, Frame::Open(stream(1, 1, Some((suite, 1)))));
    let context = Context::new(suite, &master(suite, 1)).expect("a key");
    let send = |machine: &Machine, index: Index, forged: bool| {
        let mut wire = vec![0; 2_048];
        let length = context.protect_rtp(&rtp(7, index.seq().0), index, &mut wire);
        wire.truncate(length.expect("room"));
        *wire.last_mut().expect("a tag") ^= u8::from(forged);
        machine.send(REMOTE, RTP_PORTS[1], wire);
    };
    send(&machine, Index::new(0, Seq(1_000)), false);
    worker.turn().expect("model");
    machine.pass_ns(2_000_000_000);
    for n in 0..40 {
        send(&machine, Index::new(9, Seq(40_000 + n)), true);
        worker.turn().expect("model");
    }
    send(&machine, Index::new(2, Seq(40_100)), false);
    worker.turn().expect("model");
    let last = machine.records(0).iter().filter(|r| r.meta.kind == RecordKind::Rtp).count();
    assert_eq!(last, 2, "the true counter is among those tried with every packet");
}
