//! F70: the wall clock is set while packets wait. Nothing is lost, nothing that came in a pause is
//! kept, and every packet keeps its instant and its place, over a death as well.

use std::collections::BTreeMap;

use super::kill_tests::{finish, judge, prepared, protected};
use super::model::{Kept, Machine, REMOTE, RTP_PORTS, TestWorker, rtp, stream};
use crate::base::counter::Counter;
use crate::base::ports::Region;
use crate::base::time::{ClockMap, Mono};
use crate::plane::handoff::frame::Frame;
use crate::plane::handoff::layout::AT_COUNTERS;
use crate::proto::srtp::Context;
use crate::store::event::{Event, Origin};
use crate::store::record::RecordKind;

const MS: u64 = 1_000_000;
/// A leap second, a bad time server, a wrong day, each way.
const STEPS_NS: [i64; 8] = [
    1_000_000_000,
    -1_000_000_000,
    7_000_000_000,
    -7_000_000_000,
    3_600_000_000_000,
    -3_600_000_000_000,
    86_400_000_000_000,
    -86_400_000_000_000,
];

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

fn media(machine: &Machine) -> Vec<Kept> {
    let records = machine.records(0).into_iter();
    records.filter(|record| record.meta.kind == RecordKind::Rtp).collect()
}

/// Sends a plain packet and says when.
fn send(machine: &Machine, seq: u16) -> (u64, Mono) {
    machine.send(REMOTE, RTP_PORTS[1], rtp(1, seq));
    (seq.into(), machine.now().mono)
}

fn kept(machine: &Machine) -> Vec<(u64, Mono)> {
    media(machine).iter().map(|record| (record.meta.index.0, record.meta.arrival)).collect()
}

#[test]
fn f70_packets_that_wait_over_a_step_keep_their_instants() {
    for step in STEPS_NS {
        let (machine, mut worker) = opened();
        machine.pass_ns(20 * MS);
        let mut sent = vec![send(&machine, 1)];
        worker.turn().expect("model");
        for seq in 2..6 {
            machine.pass_ns(2 * MS);
            sent.push(send(&machine, seq));
        }
        machine.step_wall_ns(step);
        for seq in 6..10 {
            machine.pass_ns(2 * MS);
            sent.push(send(&machine, seq));
        }
        // A backlog: what came before is taken in the turn that sees the step, and later.
        let late = machine.network.borrow_mut().split_off(2);
        worker.turn().expect("model");
        machine.network.borrow_mut().extend(late);
        machine.pass_ns(15 * MS);
        worker.turn().expect("model");
        machine.pass_ns(2 * MS);
        sent.push(send(&machine, 10));
        worker.turn().expect("model");
        assert_eq!(kept(&machine), sent, "set by {step}");
        assert_eq!(counted(&machine, Counter::NoStream), 0);
    }
}

/// A step as large as the instants that count: each packet is judged by the direction in which it
/// arrived, whichever turn takes it.
#[test]
fn f70_a_step_moves_no_packet_into_a_pause_or_out_of_it() {
    for step in STEPS_NS {
        for pausing in [true, false] {
            let (mut machine, mut worker) = opened();
            let set = |active: bool| {
                let mut stream = stream(1, 1, None);
                stream.active = active;
                Frame::Update { stream, by: Origin::Src }
            };
            machine.pass_ns(20 * MS);
            if !pausing {
                ask(&mut machine, &mut worker, set(false));
                machine.pass_ns(20 * MS);
            }
            let first = send(&machine, 1);
            let waiting = machine.network.borrow_mut().pop_front().expect("sent");
            machine.pass_ns(MS);
            ask(&mut machine, &mut worker, set(!pausing));
            machine.pass_ns(MS);
            let second = send(&machine, 2);
            machine.step_wall_ns(step);
            machine.pass_ns(MS);
            let third = send(&machine, 3);
            machine.network.borrow_mut().push_front(waiting);
            worker.turn().expect("model");
            let wanted = if pausing { vec![first] } else { vec![second, third] };
            assert_eq!(kept(&machine), wanted, "set by {step}, pausing {pausing}");
            let paused = if pausing { 2 } else { 1 };
            assert_eq!(counted(&machine, Counter::Paused), paused);
        }
    }
}

/// What was sent, with its instant, while the clock is set between the halves.
fn send_over_step(machine: &Machine, context: &Context, step: i64) -> BTreeMap<(u64, u64), Mono> {
    let mut sent = BTreeMap::new();
    for (secure, seq) in (65_534..65_540).zip(10..16) {
        if seq == 13 {
            machine.step_wall_ns(step);
        }
        machine.pass_ns(MS);
        machine.send(REMOTE, RTP_PORTS[0], protected(context, 0x1234, secure));
        sent.insert((1, secure), machine.now().mono);
        machine.send(REMOTE, RTP_PORTS[1], rtp(0x1234, seq));
        sent.insert((101, u64::from(seq)), machine.now().mono);
    }
    sent
}

/// Every packet once, each flow in the order in which it was sent; where `exact`, at its instant.
fn judge_order(machine: &Machine, sent: &BTreeMap<(u64, u64), Mono>, exact: bool, what: &str) {
    judge(machine, 0, sent.keys().map(|key| (*key, 1)).collect(), what);
    let mut last = BTreeMap::new();
    for record in media(machine) {
        let (stream, index) = (record.meta.source.stream().0, record.meta.index.0);
        let before = last.insert(stream, index);
        assert!(before.is_none_or(|before| before < index), "{what}: {index} behind {before:?}");
        if let Some(arrival) = sent.get(&(stream, index)).filter(|_| exact) {
            assert_eq!(record.meta.arrival, *arrival, "{what}: {index}");
        }
    }
}

#[test]
fn f70_a_step_before_a_death_at_any_store_loses_nothing_and_turns_no_order() {
    // Back by less than the packets waited as well: what a stamp means is then unknown, and not the
    // order.
    for step in STEPS_NS.into_iter().take(6).chain([2_500_000, -2_500_000]) {
        let (machine, context) = prepared(0);
        for stores in (0..).step_by(3) {
            let fork = machine.fork();
            let mut worker = fork.start();
            let sent = send_over_step(&fork, &context, step);
            fork.pass_ns(MS);
            fork.life.set(stores);
            worker.turn().expect("model");
            let survived = fork.life.get() > 0;
            drop(worker);
            fork.pass_ns(25 * MS);
            finish(&fork);
            let exact = step.unsigned_abs() > 100 * MS;
            judge_order(&fork, &sent, exact, &format!("set by {step}, killed after {stores}"));
            if survived {
                break;
            }
        }
    }
}

/// The clock is set while nobody lives, and the successor dies as well.
#[test]
fn f70_a_step_between_two_deaths_loses_nothing_and_turns_no_order() {
    for step in [2_000_000_000, -2_000_000_000, 3_600_000_000_000, -3_600_000_000_000, -30_000_000]
    {
        let (machine, context) = prepared(0);
        let sent = send_over_step(&machine, &context, 0);
        for first in (40..200).step_by(37) {
            let dead = machine.fork();
            let mut worker = dead.start();
            dead.life.set(first);
            worker.turn().expect("model");
            drop(worker);
            dead.pass_ns(10 * MS);
            dead.step_wall_ns(step);
            dead.pass_ns(10 * MS);
            for second in (0..).step_by(13) {
                let fork = dead.fork();
                fork.life.set(second);
                let worker = fork.try_start();
                let survived = fork.life.get() > 0;
                drop(worker);
                fork.pass_ns(10 * MS);
                finish(&fork);
                let exact = step.unsigned_abs() > 100 * MS;
                let what = format!("set by {step}, killed after {first} and {second} stores");
                judge_order(&fork, &sent, exact, &what);
                if survived {
                    break;
                }
            }
        }
    }
}

/// Each step has its clock map, also where a death comes between; what is due by time is not due
/// earlier or later.
#[test]
fn f70_a_step_is_recorded_and_moves_no_timer() {
    for step in STEPS_NS {
        let (machine, mut worker) = opened();
        send(&machine, 1);
        worker.turn().expect("model");
        let maps = |machine: &Machine| -> Vec<ClockMap> {
            let events = machine.records(0).into_iter().filter_map(|record| record.event());
            events
                .filter_map(|event| match event {
                    Event::Clock { map } | Event::Started { map, .. } => Some(map),
                    _ => None,
                })
                .collect()
        };
        let before = maps(&machine).len();
        machine.step_wall_ns(step);
        machine.pass_ns(MS);
        worker.turn().expect("model");
        assert_eq!(maps(&machine)[before..], [machine.now()], "set by {step}");
        machine.step_wall_ns(-step);
        machine.pass_ns(MS);
        drop(worker);
        let mut worker = machine.start();
        worker.turn().expect("model");
        assert_eq!(maps(&machine)[before + 1..], [machine.now()], "and back, over a death");

        // A forged sender is refused while four are alive, and silence is five seconds of time.
        for ssrc in 2..=5 {
            machine.send(REMOTE, RTP_PORTS[1], rtp(ssrc, 1));
        }
        worker.turn().expect("model");
        assert_eq!(counted(&machine, Counter::TooManySources), 1, "set by {step}");
        // Evidence of it is due after a second, whatever the wall clock says.
        let dropped = |machine: &Machine| {
            let events = machine.records(0).into_iter().filter_map(|record| record.event());
            events.filter(|event| matches!(event, Event::Dropped { .. })).count()
        };
        machine.step_wall_ns(step);
        machine.pass_ns(900 * MS);
        worker.turn().expect("model");
        assert_eq!(dropped(&machine), 0, "set by {step}");
        machine.pass_ns(200 * MS);
        worker.turn().expect("model");
        assert_eq!(dropped(&machine), 1, "set by {step}");
    }
}
