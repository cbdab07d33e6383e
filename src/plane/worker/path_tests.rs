//! What can befall a packet on its way (failure catalogue C and D), each as the worker sees it.

use super::model::{Machine, REMOTE, RTP_PORTS, TestWorker, master, rtp, stream};
use crate::base::counter::{Cause, Counter};
use crate::base::ids::{Index, Slot, Ssrc};
use crate::base::limits::DATAGRAM_BYTES_MAX;
use crate::base::ports::Region;
use crate::base::suite::Suite;
use crate::plane::handoff::frame::{Frame, Notice, Refusal};
use crate::plane::handoff::layout::AT_COUNTERS;
use crate::proto::srtp::Context;
use crate::store::event::{Event, Origin};
use crate::store::record::RecordKind;

const SUITE: Suite = Suite::AesCm128HmacSha1_80;
const SECOND_NS: u64 = 1_100_000_000;

fn ask(machine: &mut Machine, worker: &mut TestWorker, frame: Frame) -> Frame {
    let id = machine.command(frame);
    worker.turn().expect("model");
    machine.answer(id)
}

/// Slot 1, with keys or without.
fn opened(key: Option<u8>) -> (Machine, TestWorker) {
    let mut machine = Machine::new(0);
    let mut worker = machine.start();
    let stream = stream(1, 1, key.map(|fill| (SUITE, fill)));
    let answer = ask(&mut machine, &mut worker, Frame::Open(stream));
    assert!(matches!(answer, Frame::Opened { .. }));
    (machine, worker)
}

fn counted(machine: &Machine, counter: Counter) -> u64 {
    machine.state.load(AT_COUNTERS + counter as usize * 8)
}

fn events(machine: &Machine) -> Vec<Event> {
    machine.records(0).iter().filter_map(|record| record.event()).collect()
}

fn second(machine: &Machine, worker: &mut TestWorker) {
    machine.pass_ns(SECOND_NS);
    worker.turn().expect("model");
}

/// What was recorded: ordinal and index, in the order of arrival.
fn kept(machine: &Machine) -> Vec<(u16, u64)> {
    let records = machine.records(0);
    let rtp = records.iter().filter(|record| record.meta.kind == RecordKind::Rtp);
    rtp.map(|record| (record.meta.source.ordinal(), record.meta.index.0)).collect()
}

/// How many packets the evidence names for a cause.
fn evidence(machine: &Machine, wanted: Cause) -> u64 {
    let counts = events(machine).into_iter().map(|event| match event {
        Event::Dropped { cause, count, .. } if cause == wanted => count,
        _ => 0,
    });
    counts.sum()
}

fn protect(fill: u8, index: u64) -> Vec<u8> {
    let context = Context::new(SUITE, &master(SUITE, fill)).expect("length");
    let mut out = [0; 256];
    let packet = rtp(5, Index(index).seq().0);
    let length = context.protect_rtp(&packet, Index(index), &mut out).expect("room");
    out[..length].to_vec()
}

fn notices(machine: &Machine) -> Vec<Notice> {
    std::iter::from_fn(|| machine.queues.answers.pop())
        .filter_map(|envelope| match envelope.frame {
            Frame::Notice(notice) => Some(notice),
            _ => None,
        })
        .collect()
}

/// Reordered within the window: taken. Repeated: the first is kept. Below the window: late.
#[test]
fn f24_reorder_is_taken_repetitions_are_counted_and_what_is_too_old_is_late() {
    for key in [None, Some(1)] {
        let (machine, mut worker) = opened(key);
        let packet = |index: u64| match key {
            Some(fill) => protect(fill, index),
            None => rtp(5, index as u16),
        };
        for index in [2_000, 2_002, 2_001, 2_002, 3_100, 2_100, 2_070] {
            machine.send(REMOTE, RTP_PORTS[1], packet(index));
        }
        worker.turn().expect("model");
        let found: Vec<u64> = kept(&machine).into_iter().map(|(_, index)| index).collect();
        assert_eq!(found, [2_000, 2_002, 2_001, 3_100, 2_100], "in the order of arrival");
        assert_eq!(counted(&machine, Counter::Replayed), 1);
        assert_eq!(counted(&machine, Counter::Late), 1);
        second(&machine, &mut worker);
        assert_eq!(evidence(&machine, Cause::Late), 1);
    }
}

/// A worker that has not the processor it needs takes no new streams, and drops nothing of those it has.
#[test]
fn f25_a_worker_that_is_behind_refuses_new_streams_and_records_all_that_waits() {
    let (mut machine, mut worker) = opened(None);
    let open = |generation| Frame::Open(stream(0, generation, None));
    let mut seq = 0;
    for round in 0..3 {
        for _ in 0..20 {
            seq += 1;
            machine.send(REMOTE, RTP_PORTS[1], rtp(5, seq));
        }
        // It comes to them more than a second later.
        second(&machine, &mut worker);
        let refused = round >= 2;
        let answer = ask(&mut machine, &mut worker, open(round + 1));
        match refused {
            true => {
                assert!(matches!(answer, Frame::Refused { why: Refusal::Behind, .. }), "{round}")
            }
            false => assert!(matches!(answer, Frame::Opened { .. }), "{round}"),
        }
    }
    assert_eq!(kept(&machine).len(), usize::from(seq));
    // Well again after a second without.
    second(&machine, &mut worker);
    let answer = ask(&mut machine, &mut worker, open(9));
    assert!(matches!(answer, Frame::Opened { .. }));
}

#[test]
fn f26_what_is_longer_than_a_buffer_is_not_kept_in_part_and_its_length_is_told() {
    let (machine, mut worker) = opened(None);
    let mut whole = rtp(5, 1);
    whole.resize(DATAGRAM_BYTES_MAX, 7);
    machine.send(REMOTE, RTP_PORTS[1], whole);
    for octets in [9_000, 2_500] {
        let mut long = rtp(5, 2);
        long.resize(octets, 7);
        machine.send(REMOTE, RTP_PORTS[1], long);
    }
    worker.turn().expect("model");
    second(&machine, &mut worker);
    assert_eq!(kept(&machine), [(1, 1)]);
    assert_eq!(counted(&machine, Counter::Truncated), 2);
    assert_eq!(evidence(&machine, Cause::Truncated), 2);
    let told = |event: &&Event| matches!(event, Event::Oversize { octets: 9_000 });
    assert_eq!(events(&machine).iter().filter(told).count(), 1);
}

/// A new SSRC under the line's key is a new source with an index space of its own; the old one goes on
/// until it is silent.
#[test]
fn f30_a_new_ssrc_is_a_new_source_of_the_same_line() {
    let (machine, mut worker) = opened(Some(1));
    let with_ssrc = |ssrc: u32, seq: u16| {
        let context = Context::new(SUITE, &master(SUITE, 1)).expect("length");
        let mut out = [0; 256];
        let length =
            context.protect_rtp(&rtp(ssrc, seq), Index(seq.into()), &mut out).expect("room");
        out[..length].to_vec()
    };
    for (ssrc, seq) in [(5, 100), (5, 101), (6, 40_000), (6, 40_001), (5, 102)] {
        machine.send(REMOTE, RTP_PORTS[1], with_ssrc(ssrc, seq));
    }
    worker.turn().expect("model");
    let wanted = [(1, 100), (1, 101), (2, 40_000), (2, 40_001), (1, 102)];
    assert_eq!(kept(&machine), wanted);
    let sources = events(&machine).into_iter().filter_map(|event| match event {
        Event::Source { ordinal, ssrc, .. } => Some((ordinal, ssrc)),
        _ => None,
    });
    assert_eq!(sources.collect::<Vec<_>>(), [(1, Ssrc(5)), (2, Ssrc(6))]);
}

/// A capture that is sent again, whole, also after the recorder died: none of it is kept twice.
#[test]
fn f33_a_capture_that_is_sent_again_is_refused_also_by_a_successor() {
    let (machine, mut worker) = opened(Some(1));
    let capture: Vec<Vec<u8>> = (60..120).map(|index| protect(1, index)).collect();
    let send = |machine: &Machine| {
        capture.iter().for_each(|one| machine.send(REMOTE, RTP_PORTS[1], one.clone()));
    };
    send(&machine);
    worker.turn().expect("model");
    send(&machine);
    worker.turn().expect("model");
    drop(worker);
    let mut successor = machine.start();
    send(&machine);
    successor.turn().expect("model");
    assert_eq!(kept(&machine).len(), 60);
    assert_eq!(counted(&machine, Counter::Replayed), 120);
}

/// Every length up to a whole header, and headers that lie about what follows: dropped and counted, no
/// source made, by either protocol and with either protection.
#[test]
fn f37_short_and_malformed_datagrams_make_nothing() {
    for key in [None, Some(1)] {
        let (machine, mut worker) = opened(key);
        let mut sent = 0;
        let mut send = |port: u16, bytes: Vec<u8>| {
            machine.send(REMOTE, port, bytes);
            sent += 1;
        };
        for length in 1..12 {
            let mut bytes = vec![0x80; length];
            send(RTP_PORTS[1], bytes.clone());
            if length > 1 {
                bytes[1] = 200;
                send(RTP_PORTS[1] + 1, bytes);
            }
        }
        // Fifteen CSRCs, an extension of 65,535 words.
        let mut csrc = rtp(5, 1);
        csrc[0] |= 15;
        csrc.truncate(30);
        let mut extension = rtp(5, 1);
        extension[0] |= 0x10;
        extension[14] = 0xff;
        extension[15] = 0xff;
        for bytes in [csrc, extension] {
            send(RTP_PORTS[1], bytes);
        }
        worker.turn().expect("model");
        // What might be under a key that comes late waits for it.
        (0..2).for_each(|_| second(&machine, &mut worker));
        assert_eq!(kept(&machine), [], "{key:?}");
        let refused = [Counter::Malformed, Counter::KeepAlive, Counter::AuthFailed];
        let refused: u64 = refused.into_iter().map(|one| counted(&machine, one)).sum();
        assert_eq!(refused, sent, "{key:?}");
        let sources = events(&machine);
        assert!(!sources.iter().any(|event| matches!(event, Event::Source { .. })));
    }
}

/// Plain RTP on a line with keys is never recorded; after a second of nothing else that is told.
#[test]
fn f38_plain_media_on_a_secure_line_is_refused_and_told() {
    let (machine, mut worker) = opened(Some(1));
    for seq in 0..100 {
        machine.send(REMOTE, RTP_PORTS[1], rtp(5, seq));
        machine.pass_ns(20_000_000);
        worker.turn().expect("model");
    }
    // The last of them wait for another key for two seconds.
    (0..3).for_each(|_| second(&machine, &mut worker));
    assert_eq!(kept(&machine), []);
    assert_eq!(evidence(&machine, Cause::Auth), 100);
    let told = notices(&machine);
    let told = told.iter().filter(|one| matches!(one, Notice::AuthFailing { slot: Slot(1), .. }));
    assert_eq!(told.count(), 1);
}

/// A type that nobody offered is kept as it came, and told once.
#[test]
fn f39_an_unknown_payload_type_is_kept_and_told_once() {
    let (mut machine, mut worker) = opened(None);
    for seq in 1..=4 {
        let mut packet = rtp(5, seq);
        packet[1] = if seq % 2 == 0 { 96 } else { 0 };
        machine.send(REMOTE, RTP_PORTS[1], packet);
    }
    worker.turn().expect("model");
    assert_eq!(kept(&machine).len(), 4);
    let told =
        |event: &&Event| matches!(event, Event::PayloadType { ssrc: Ssrc(5), payload_type: 96 });
    assert_eq!(events(&machine).iter().filter(told).count(), 1);
    let wanted = Notice::PayloadType { slot: Slot(1), payload_type: 96 };
    assert_eq!(notices(&machine).iter().filter(|one| **one == wanted).count(), 1);
    // Once it is offered it is a type like any other.
    let mut offered = stream(1, 1, None);
    offered.description.formats[0].payload_type = 96;
    ask(&mut machine, &mut worker, Frame::Update { stream: offered, by: Origin::Src });
    let mut packet = rtp(5, 6);
    packet[1] = 96;
    machine.send(REMOTE, RTP_PORTS[1], packet);
    worker.turn().expect("model");
    assert_eq!(events(&machine).iter().filter(told).count(), 1);
}

/// Sequence numbers that jump by more than half their range: the same source goes on in a new range, once
/// two packets in sequence say so, and the event names both ends.
#[test]
fn f41_a_jump_of_sequence_numbers_begins_a_new_range() {
    let (machine, mut worker) = opened(None);
    for seq in [1_000, 1_001, 60_000, 60_001, 60_002] {
        machine.send(REMOTE, RTP_PORTS[1], rtp(5, seq));
    }
    worker.turn().expect("model");
    let found = kept(&machine);
    assert_eq!(found[..2], [(1, 1_000), (1, 1_001)]);
    assert_eq!(found.last(), Some(&(1, 60_002)), "one source: {found:?}");
    let jumps: Vec<(u64, u64)> = events(&machine)
        .into_iter()
        .filter_map(|event| match event {
            Event::Jump { ssrc: Ssrc(5), from, to } => Some((from.0, to.0)),
            _ => None,
        })
        .collect();
    assert_eq!(jumps, [(1_001, found[2].1)]);
}
