//! Packets that no key verifies yet, each race that there may be, with deaths in between: media before the
//! command that brings its key (F36), a roll-over counter that was lost (F32).

use std::collections::BTreeMap;

use super::model::{GEOMETRY, Machine, REMOTE, RTP_PORTS, TestWorker, master, rtp, stream};
use crate::base::counter::{Cause, Counter};
use crate::base::ids::{Generation, Index, Slot, Ssrc, StreamId};
use crate::base::limits::{
    BUFFER_COUNT, QUARANTINE_PACKETS, QUARANTINE_PER_STREAM, QUARANTINE_STRANGERS,
};
use crate::base::ports::Region;
use crate::base::suite::Suite;
use crate::base::time::Mono;
use crate::plane::handoff::frame::{Frame, Notice};
use crate::plane::handoff::layout::AT_COUNTERS;
use crate::plane::handoff::slot::SlotView;
use crate::proto::srtp::Context;
use crate::store::event::{Event, Origin};
use crate::store::ledger::{HostEvidence, Ledgers};
use crate::store::record::{Record, RecordKind};

const SUITE: Suite = Suite::AesCm128HmacSha1_80;
const SHORT: Suite = Suite::AesCm128HmacSha1_32;
const GCM: Suite = Suite::AeadAes128Gcm;
const STRANGER: &str = "203.0.113.66:666";
const TURN_NS: u64 = 5_000_000;
/// The key of every stream at first, and the one that comes.
const OLD: u8 = 1;
const NEW: u8 = 3;

fn ask(machine: &mut Machine, worker: &mut TestWorker, frame: Frame) -> Frame {
    let id = machine.command(frame);
    worker.turn().expect("model");
    machine.answer(id)
}

/// All slots, under the old key.
fn opened(suite: Suite) -> (Machine, TestWorker) {
    let mut machine = Machine::new(0);
    let mut worker = machine.start();
    for slot in 0..GEOMETRY.slot_count {
        let answer =
            ask(&mut machine, &mut worker, Frame::Open(stream(slot, 1, Some((suite, OLD)))));
        assert!(matches!(answer, Frame::Opened { .. }));
    }
    (machine, worker)
}

fn rekeyed(slot: u32, suite: Suite) -> Frame {
    Frame::Update { stream: stream(slot, 1, Some((suite, NEW))), by: Origin::Src }
}

fn close(slot: u32) -> Frame {
    Frame::Close { slot: Slot(slot), generation: Generation(1), by: Origin::Src }
}

fn protect(suite: Suite, fill: u8, ssrc: u32, index: u64) -> Vec<u8> {
    let context = Context::new(suite, &master(suite, fill)).expect("length");
    let mut out = [0; 256];
    let index = Index(index);
    let length = context.protect_rtp(&rtp(ssrc, index.seq().0), index, &mut out).expect("room");
    out[..length].to_vec()
}

/// As [`protect`] of the first suite and SSRC 5, with a broken tag.
fn forged(index: u64) -> Vec<u8> {
    let mut packet = protect(SUITE, OLD, 5, index);
    *packet.last_mut().expect("a tag") ^= 1;
    packet
}

/// Turns, for so many milliseconds.
fn pass(machine: &Machine, worker: &mut TestWorker, ms: u64) {
    for _ in 0..ms * 1_000_000 / TURN_NS {
        machine.pass_ns(TURN_NS);
        worker.turn().expect("model");
    }
}

/// Sends one packet and lets 20 ms pass; when it arrived.
fn play(machine: &Machine, worker: &mut TestWorker, slot: u32, packet: Vec<u8>) -> Mono {
    machine.send(REMOTE, RTP_PORTS[slot as usize], packet);
    let arrival = machine.now().mono;
    worker.turn().expect("model");
    pass(machine, worker, 20);
    arrival
}

fn counted(machine: &Machine, counter: Counter) -> u64 {
    machine.state.load(AT_COUNTERS + counter as usize * 8)
}

fn drops(machine: &Machine, slot: u32, counter: Counter) -> u64 {
    SlotView::new(&machine.state, &GEOMETRY, slot).drops(counter)
}

fn events(machine: &Machine) -> Vec<Event> {
    machine.records(0).iter().filter_map(|record| record.event()).collect()
}

/// What was recorded of a slot's stream: ordinal, index and arrival, in the order of the ring.
fn kept(machine: &Machine, slot: u32) -> Vec<(u16, u64, Mono)> {
    let stream = StreamId(u64::from(slot) * 100 + 1);
    let records = machine.records(0).into_iter();
    let rtp = records.filter(|record| {
        record.meta.kind == RecordKind::Rtp && record.meta.source.stream() == stream
    });
    rtp.map(|record| {
        assert_eq!(record.payload.len(), 32, "decrypted whole");
        assert_eq!(record.payload[12..], [record.meta.index.0 as u8; 20], "plain text");
        (record.meta.source.ordinal(), record.meta.index.0, record.meta.arrival)
    })
    .collect()
}

fn indexes(machine: &Machine, slot: u32) -> Vec<u64> {
    kept(machine, slot).into_iter().map(|(_, index, _)| index).collect()
}

/// Everything that was sent has gone back to the engine and goes round: more than there are buffers.
fn all_buffers_go_round(machine: &Machine, worker: &mut TestWorker) {
    let before = counted(machine, Counter::RtpRecorded);
    let more = u64::from(BUFFER_COUNT) + 300;
    for index in 0..more {
        machine.send(REMOTE, RTP_PORTS[3], protect(SUITE, OLD, 77, 20_000 + index));
    }
    while worker.turn().expect("model") > 0 {
        machine.spool_all();
    }
    assert_eq!(counted(machine, Counter::RtpRecorded), before + more);
}

/// 300 ms of media under the new key before the command that brings it, with a report among it: the SRC goes
/// on counting, begins anew where its numbers were far below, were seen, or are cycles away.
#[test]
fn f36_media_under_a_new_key_that_comes_before_its_command_is_recorded_whole() {
    let cases = [SUITE, SHORT, GCM].into_iter().flat_map(|suite| {
        [(1_100, 1), (50, 2), (1_090, 2), (60_000, 2)].map(|(first, own)| (suite, first, own))
    });
    for (suite, first, own) in cases {
        let (mut machine, mut worker) = opened(suite);
        let mut wanted = Vec::new();
        for index in 1_000..1_100 {
            let arrival = play(&machine, &mut worker, 0, protect(suite, OLD, 5, index));
            wanted.push((1, index, arrival));
        }
        for index in first..first + 20 {
            machine.send(REMOTE, RTP_PORTS[0], protect(suite, NEW, 5, index));
            wanted.push((own, index, machine.now().mono));
            pass(&machine, &mut worker, 15);
        }
        let report = [0x80, 200, 0, 6, 0, 0, 0, 5].into_iter().chain([0; 20]).collect::<Vec<u8>>();
        let context = Context::new(suite, &master(suite, NEW)).expect("length");
        let mut out = [0; 256];
        let length = context.protect_rtcp(&report, 7, &mut out).expect("room");
        machine.send(REMOTE, RTP_PORTS[0] + 1, out[..length].to_vec());
        worker.turn().expect("model");
        assert_eq!(kept(&machine, 0).len(), 100, "nothing of it is recorded before it is proven");
        ask(&mut machine, &mut worker, rekeyed(0, suite));
        for index in first + 20..first + 25 {
            let arrival = play(&machine, &mut worker, 0, protect(suite, NEW, 5, index));
            wanted.push((own, index, arrival));
        }
        let what = format!("{suite:?}, from {first} on");
        assert_eq!(kept(&machine, 0), wanted, "{what}: each with its own arrival, in order");
        assert_eq!(counted(&machine, Counter::RtcpRecorded), 1, "{what}");
        pass(&machine, &mut worker, 3_000);
        let recorded = [Counter::RtpRecorded, Counter::RtcpRecorded];
        for counter in Counter::ALL.into_iter().filter(|counter| !recorded.contains(counter)) {
            assert_eq!(counted(&machine, counter), 0, "{what}: {counter:?}");
        }
    }
}

/// Five packets and a forged one wait across a wrap; the recorder dies after every store of the start that
/// finds them, of the turn that brings the key, and of what is recorded then.
#[test]
fn f36_a_death_after_any_store_while_packets_wait_loses_none_of_them() {
    let (machine, mut worker) = opened(SUITE);
    for index in 65_530..65_534 {
        play(&machine, &mut worker, 0, protect(SUITE, OLD, 5, index));
    }
    for index in 65_534..65_539 {
        play(&machine, &mut worker, 0, protect(SUITE, NEW, 5, index));
    }
    play(&machine, &mut worker, 0, forged(65_539));
    drop(worker);
    let (mut deaths, mut in_recovery) = (0, 0);
    for stores in 0.. {
        let mut fork = machine.fork();
        fork.life.set(stores);
        let mut worker = fork.try_start();
        in_recovery += u32::from(fork.life.get() == 0);
        fork.command(rekeyed(0, SUITE));
        for index in 65_540..65_542 {
            fork.send(REMOTE, RTP_PORTS[0], protect(SUITE, NEW, 5, index));
        }
        worker.turn().expect("model");
        worker.turn().expect("model");
        let survived = fork.life.get() > 0;
        drop(worker);
        // Control asks the successor again for what was not answered.
        while fork.queues.commands.pop().is_some() {}
        let mut worker = fork.start();
        let answer = ask(&mut fork, &mut worker, rekeyed(0, SUITE));
        assert!(matches!(answer, Frame::Opened { .. }));
        worker.turn().expect("model");
        let what = format!("killed after {stores} stores");
        let mut found: BTreeMap<u64, u32> = BTreeMap::new();
        indexes(&fork, 0).into_iter().for_each(|index| *found.entry(index).or_default() += 1);
        let wanted = (65_530..65_539).chain(65_540..65_542).map(|index| (index, 1));
        assert_eq!(found, wanted.collect(), "{what}");
        let source = crate::plane::handoff::source::SourceView::new(&fork.state, &GEOMETRY, 0, 0);
        assert_eq!(source.account().packets, 11, "{what}");
        pass(&fork, &mut worker, 2_100);
        assert_eq!(drops(&fork, 0, Counter::AuthFailed), 1, "{what}: the forged one");
        if survived {
            break;
        }
        deaths += 1;
    }
    assert!(in_recovery > 10 && deaths > in_recovery + 50, "{deaths} deaths, {in_recovery} early");
}

/// The time of three forged packets is over, and the recorder dies while it gives them up: they are counted,
/// and their buffers are not lost.
#[test]
fn f36_a_death_after_any_store_of_giving_up_leaves_no_buffer_behind() {
    let (machine, mut worker) = opened(SUITE);
    play(&machine, &mut worker, 0, protect(SUITE, OLD, 5, 1));
    (2..5).for_each(|index| machine.send(REMOTE, RTP_PORTS[0], forged(index)));
    pass(&machine, &mut worker, 1_990);
    assert_eq!(drops(&machine, 0, Counter::AuthFailed), 0);
    drop(worker);
    for stores in 0.. {
        let fork = machine.fork();
        let mut worker = fork.start();
        worker.turn().expect("model");
        fork.pass_ns(15_000_000);
        fork.life.set(stores);
        worker.turn().expect("model");
        let survived = fork.life.get() > 0;
        drop(worker);
        let mut worker = fork.start();
        worker.turn().expect("model");
        let what = format!("killed after {stores} stores");
        // As of any drop: those of one batch may be counted by both.
        let counted = drops(&fork, 0, Counter::AuthFailed);
        assert!((3..=6).contains(&counted), "{what}: {counted}");
        assert!(!survived || counted == 3, "{what}: {counted}");
        all_buffers_go_round(&fork, &mut worker);
        if survived {
            assert!(stores > 10, "giving up has more stores than {stores}");
            break;
        }
    }
}

/// 10,000 forged packets to one port while a re-key is under way on another: all of that is recorded, all of
/// those are counted.
#[test]
fn f36_a_flood_of_forged_packets_takes_nothing_from_a_re_key_on_another_port() {
    for from in [REMOTE, STRANGER] {
        let (mut machine, mut worker) = opened(SUITE);
        let mut wanted: Vec<u64> = (1_000..1_010).collect();
        for index in 1_000..1_010 {
            play(&machine, &mut worker, 1, protect(SUITE, OLD, 5, index));
        }
        for turn in 0..40 {
            for number in 0..250 {
                machine.send(from, RTP_PORTS[0], forged(turn * 250 + number));
            }
            if turn % 2 == 0 {
                let index = 1_010 + turn / 2;
                machine.send(REMOTE, RTP_PORTS[1], protect(SUITE, NEW, 5, index));
                wanted.push(index);
            }
            machine.pass_ns(TURN_NS);
            worker.turn().expect("model");
        }
        let waiting = match from {
            REMOTE => QUARANTINE_PER_STREAM,
            _ => QUARANTINE_STRANGERS.1,
        };
        let refused = 10_000 - waiting as u64;
        assert_eq!(drops(&machine, 0, Counter::AuthFailed), refused, "{from}: at once");
        ask(&mut machine, &mut worker, rekeyed(1, SUITE));
        assert_eq!(indexes(&machine, 1), wanted, "{from}");
        pass(&machine, &mut worker, 2_100);
        assert_eq!(drops(&machine, 0, Counter::AuthFailed), 10_000, "{from}");
        assert_eq!(counted(&machine, Counter::AuthFailed), 10_000, "{from}");
        assert_eq!(drops(&machine, 1, Counter::AuthFailed), 0, "{from}");
        all_buffers_go_round(&machine, &mut worker);
    }
}

/// Two streams keep all that there is room for: whoever comes then takes from who keeps the most, and what is
/// given up so is counted once.
#[test]
fn f36_where_all_is_full_whoever_keeps_the_most_gives_way() {
    let (mut machine, mut worker) = opened(SUITE);
    for port in &RTP_PORTS[..2] {
        for index in 0..QUARANTINE_PER_STREAM as u64 + 10 {
            machine.send(REMOTE, *port, forged(index));
        }
        worker.turn().expect("model");
    }
    assert_eq!(QUARANTINE_PER_STREAM * 2, QUARANTINE_PACKETS, "no room is left");
    assert_eq!(counted(&machine, Counter::AuthFailed), 20);
    for index in 0..60 {
        for port in &RTP_PORTS[2..] {
            machine.send(REMOTE, *port, protect(SUITE, NEW, 5, 100 + index));
        }
    }
    // Nobody that is unknown takes anything from anybody.
    machine.send(STRANGER, RTP_PORTS[2], forged(7));
    worker.turn().expect("model");
    let given = [0, 1].map(|slot| drops(&machine, slot, Counter::AuthFailed));
    assert_eq!(given, [70, 70], "both as much");
    for slot in 2..4 {
        ask(&mut machine, &mut worker, rekeyed(slot, SUITE));
        assert_eq!(indexes(&machine, slot), (100..160).collect::<Vec<_>>());
    }
    pass(&machine, &mut worker, 2_100);
    let each = QUARANTINE_PER_STREAM as u64 + 10;
    let all = [0, 1, 2, 3].map(|slot| drops(&machine, slot, Counter::AuthFailed));
    assert_eq!(all, [each, each, 1, 0]);
    assert_eq!(counted(&machine, Counter::AuthFailed), 2 * each + 1);
}

/// A third of the way into a stream a packet is broken on its way, another one is lost: the first is counted
/// when its time in quarantine is over, and is the cause of its own hole all the same.
#[test]
fn f36_what_waited_in_vain_is_counted_then_and_explains_its_own_hole() {
    for ends_at in [1_000, 4_000] {
        let (mut machine, mut worker) = opened(SUITE);
        for index in 0..20 + ends_at / 20 {
            let packet = if index == 20 { forged(index) } else { protect(SUITE, OLD, 5, index) };
            play(&machine, &mut worker, 0, packet);
            let waits = index < 20 + 99;
            assert!(!waits || counted(&machine, Counter::AuthFailed) == 0, "{index}: it waits");
        }
        ask(&mut machine, &mut worker, close(0));
        assert_eq!(counted(&machine, Counter::AuthFailed), 1);
        let drops = events(&machine).into_iter().find_map(|event| match event {
            Event::Close { drops, .. } => Some(drops),
            _ => None,
        });
        assert_eq!(drops.expect("closed").get("auth_failed"), Some(&1));
        let account = account(&machine, 0);
        let [source] = &account.sources[..] else { panic!("one source") };
        assert_eq!(source.lost, BTreeMap::from([(Cause::Auth, 1)]), "closed after {ends_at} ms");
        assert_eq!((source.unexplained, source.gaps.len()), (0, 1));
    }
}

fn account(machine: &Machine, slot: u32) -> crate::store::ledger::Account {
    let mut ledgers = Ledgers::default();
    for kept in machine.records(0) {
        let record = Record { meta: kept.meta, payload: &kept.payload, raw: &[] };
        ledgers.record(&record, &machine.now());
    }
    let stream = StreamId(u64::from(slot) * 100 + 1);
    ledgers.streams[&stream].account(&HostEvidence::default(), None, None)
}

/// A re-key race, then the ledger: nothing is missing, and no drop is claimed.
#[test]
fn f36_a_race_leaves_nothing_to_explain() {
    let (mut machine, mut worker) = opened(SUITE);
    for index in 0..50 {
        play(&machine, &mut worker, 0, protect(SUITE, OLD, 5, index));
    }
    for index in 50..70 {
        play(&machine, &mut worker, 0, protect(SUITE, NEW, 5, index));
    }
    ask(&mut machine, &mut worker, rekeyed(0, SUITE));
    for index in 70..200 {
        play(&machine, &mut worker, 0, protect(SUITE, NEW, 5, index));
    }
    ask(&mut machine, &mut worker, close(0));
    let account = account(&machine, 0);
    let [source] = &account.sources[..] else { panic!("one source") };
    assert_eq!((source.packets, source.unexplained, source.gaps.len()), (200, 0, 0));
    assert!(account.drops.is_empty() && account.unproven_s == 0.0, "{account:?}");
}

/// That nothing verifies is told after a second, though nothing is counted before two.
#[test]
fn f34_keys_that_do_not_match_are_told_after_a_second_while_packets_wait() {
    let (machine, mut worker) = opened(SUITE);
    for index in 0..100 {
        play(&machine, &mut worker, 0, protect(SUITE, 9, 5, index));
    }
    assert!(counted(&machine, Counter::AuthFailed) < 10);
    let told = std::iter::from_fn(|| machine.queues.answers.pop())
        .filter(|envelope| {
            let wanted = Notice::AuthFailing { slot: Slot(0), generation: Generation(1) };
            matches!(&envelope.frame, Frame::Notice(notice) if *notice == wanted)
        })
        .count();
    assert_eq!(told, 1);
}

/// F60: what waits when a stream is paused is told by the keys that come with the pause, or given up; it is
/// not there any more when the stream goes on.
#[test]
fn f60_a_pause_clears_what_waits() {
    for with_key in [false, true] {
        let (mut machine, mut worker) = opened(SUITE);
        let paused = |key: u8, active: bool| {
            let mut stream = stream(0, 1, Some((SUITE, key)));
            stream.active = active;
            Frame::Update { stream, by: Origin::Src }
        };
        play(&machine, &mut worker, 0, protect(SUITE, OLD, 5, 10));
        for index in 11..15 {
            play(&machine, &mut worker, 0, protect(SUITE, NEW, 5, index));
        }
        let key = if with_key { NEW } else { OLD };
        ask(&mut machine, &mut worker, paused(key, false));
        machine.send(REMOTE, RTP_PORTS[0], protect(SUITE, NEW, 5, 15));
        worker.turn().expect("model");
        ask(&mut machine, &mut worker, paused(NEW, true));
        play(&machine, &mut worker, 0, protect(SUITE, NEW, 5, 16));
        let wanted: &[u64] = if with_key { &[10, 11, 12, 13, 14, 16] } else { &[10, 16] };
        assert_eq!(indexes(&machine, 0), wanted, "{with_key}");
        let failed = if with_key { 0 } else { 4 };
        assert_eq!(counted(&machine, Counter::AuthFailed), failed, "{with_key}");
        assert_eq!(counted(&machine, Counter::Paused), 1);
    }
}

/// Repetitions under the key in force wait for nothing.
#[test]
fn f33_what_is_repeated_or_late_is_counted_at_once() {
    let (machine, mut worker) = opened(SUITE);
    for index in [5_000, 5_001, 5_001, 7_000, 5_002] {
        machine.send(REMOTE, RTP_PORTS[0], protect(SUITE, OLD, 5, index));
    }
    worker.turn().expect("model");
    assert_eq!(counted(&machine, Counter::Replayed), 1);
    assert_eq!(counted(&machine, Counter::Late), 1);
}

/// The answer is on its way for seconds, and the SRC goes on under the old key until it has it: that key holds
/// until two seconds after the first packet under the new one.
#[test]
fn f35_the_old_key_holds_until_the_new_one_is_heard() {
    let (mut machine, mut worker) = opened(SUITE);
    let mut wanted = Vec::new();
    let mut send = |machine: &Machine, worker: &mut TestWorker, key: u8, index: u64| {
        play(machine, worker, 0, protect(SUITE, key, 5, index));
        wanted.push(index);
    };
    (0..10).for_each(|index| send(&machine, &mut worker, OLD, index));
    ask(&mut machine, &mut worker, rekeyed(0, SUITE));
    (10..310).for_each(|index| send(&machine, &mut worker, OLD, index));
    (310..330).for_each(|index| send(&machine, &mut worker, NEW, index));
    send(&machine, &mut worker, OLD, 330);
    // Old keys are looked for once a second.
    (331..480).for_each(|index| send(&machine, &mut worker, NEW, index));
    play(&machine, &mut worker, 0, protect(SUITE, OLD, 5, 480));
    pass(&machine, &mut worker, 2_100);
    assert_eq!(indexes(&machine, 0), wanted);
    assert_eq!(counted(&machine, Counter::AuthFailed), 1, "the old key has ended");
}

/// What was known of a source is gone anywhere around a wrap, and its counter is anywhere: all of its packets
/// are recorded, those that came before the counter was found too, and the event says how long it took.
#[test]
fn f32_a_state_that_is_wiped_between_65_000_and_500_is_found_again() {
    let cases = [
        (SUITE, 0),
        (SUITE, 1),
        (SUITE, 5),
        (SUITE, 300),
        (SUITE, 15_000),
        (SHORT, 5),
        (SHORT, 300),
        (GCM, 7),
    ];
    for (suite, roc) in cases {
        for wiped in (0..=1_036).step_by(if roc > 1_000 { 518 } else { 37 }) {
            let (machine, mut worker) = opened(suite);
            let first = (roc << 16 | 65_000) + wiped;
            let all: Vec<u64> = (first..first + 40).collect();
            for index in &all {
                play(&machine, &mut worker, 0, protect(suite, OLD, 5, *index));
            }
            let what = format!("{suite:?}, wiped before {first}");
            assert_eq!(indexes(&machine, 0), all, "{what}");
            assert_eq!(counted(&machine, Counter::AuthFailed), 0, "{what}");
            let resyncs: Vec<(u32, u64)> = events(&machine)
                .into_iter()
                .filter_map(|event| match event {
                    Event::RocResync { ssrc: Ssrc(5), roc, us } => Some((roc, us)),
                    _ => None,
                })
                .collect();
            let found = Index(first).roc();
            let wanted: &[u32] = if found > 1 { &[found] } else { &[] };
            assert_eq!(resyncs.iter().map(|(roc, _)| *roc).collect::<Vec<_>>(), wanted, "{what}");
            assert!(roc < 15_000 || resyncs[0].1 > 200_000, "{what}: {resyncs:?}");
        }
    }
}

/// Packets wait for their counter, and the recorder dies after every few stores of the search, of recording
/// them, and of the start before it.
#[test]
fn f32_a_death_in_the_search_loses_nothing_and_repeats_nothing() {
    for (suite, roc) in [(SUITE, 40), (SHORT, 9)] {
        let (machine, worker) = opened(suite);
        drop(worker);
        let first = roc << 16 | 65_533;
        let all: Vec<u64> = (first..first + 5).collect();
        for index in &all {
            machine.send(REMOTE, RTP_PORTS[0], protect(suite, OLD, 5, *index));
        }
        let mut deaths = 0;
        for stores in 0.. {
            let fork = machine.fork();
            fork.life.set(stores);
            let mut worker = fork.try_start();
            for _ in 0..3 {
                worker.turn().expect("model");
            }
            let survived = fork.life.get() > 0;
            drop(worker);
            let mut worker = fork.start();
            for _ in 0..3 {
                worker.turn().expect("model");
            }
            let mut found = indexes(&fork, 0);
            found.sort_unstable();
            assert_eq!(found, all, "{suite:?}: killed after {stores} stores");
            if survived {
                break;
            }
            deaths += 1;
        }
        assert!(deaths > 100, "{deaths}");
    }
}

/// Forged packets of the lost source come with each of its own, and first.
#[test]
fn f32_forged_packets_beside_a_lost_source_cost_none_of_its_own() {
    for suite in [SUITE, SHORT] {
        let (machine, mut worker) = opened(suite);
        let first = 200 << 16 | 100;
        for number in 0..150 {
            let mut forged = protect(suite, OLD, 5, first + 3 + number);
            *forged.last_mut().expect("a tag") ^= 1;
            machine.send(REMOTE, RTP_PORTS[0], forged);
            worker.turn().expect("model");
            play(&machine, &mut worker, 0, protect(suite, OLD, 5, first + number));
        }
        assert_eq!(indexes(&machine, 0), (first..first + 150).collect::<Vec<_>>(), "{suite:?}");
        pass(&machine, &mut worker, 2_100);
        assert_eq!(counted(&machine, Counter::AuthFailed), 150, "{suite:?}");
    }
}

/// A ring without room is no reason to try counters in vain: the search waits until there is some.
#[test]
fn f32_a_full_ring_ends_no_search() {
    let (machine, mut worker) = opened(SUITE);
    let index = 20_000 << 16 | 100;
    play(&machine, &mut worker, 0, protect(SUITE, OLD, 5, index));
    let context = Context::new(SUITE, &master(SUITE, OLD)).expect("length");
    let mut seq = 0;
    while counted(&machine, Counter::RingFull) == 0 {
        for _ in 0..256 {
            let (mut packet, mut out) = (rtp(7, seq), [0; 2_000]);
            packet.extend_from_slice(&[0; 1_200]);
            let length = context.protect_rtp(&packet, Index(seq.into()), &mut out).expect("room");
            machine.send(REMOTE, RTP_PORTS[3], out[..length].to_vec());
            seq += 1;
        }
        worker.turn().expect("model");
    }
    assert!(indexes(&machine, 0).is_empty(), "not found before");
    pass(&machine, &mut worker, 1_000);
    machine.spool_all();
    pass(&machine, &mut worker, 600);
    let stream = StreamId(1);
    let records = machine.records(0);
    let found = records.iter().any(|one| {
        one.meta.kind == RecordKind::Rtp
            && one.meta.source.stream() == stream
            && one.meta.index == Index(index)
    });
    assert!(found, "{} failed", counted(&machine, Counter::AuthFailed));
}
