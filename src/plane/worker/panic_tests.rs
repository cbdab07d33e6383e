//! F05 by enumeration: a panic at every store of a turn, of a command, of a recovery; and a datagram
//! whose handling panics whenever it is looked at. Same ring, same buffers: everything else goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::kill_tests::{SUITE, finish, judge, prepared, protected, send_batch};
use super::model::{GEOMETRY, Machine, POISON, REMOTE, RTP_PORTS, TestWorker, master, rtp, stream};
use super::turn::StartError;
use crate::base::counter::{Cause, Counter};
use crate::base::ports::Region;
use crate::plane::handoff::frame::{Frame, Refusal};
use crate::plane::handoff::layout::{
    AT_COUNTERS, AT_DURABLE, AT_SEALED, AT_STRIKES, AT_TAIL, STRIKES_WORDS,
};
use crate::plane::handoff::slot::SlotView;
use crate::proto::srtp::Context;
use crate::store::event::{Event, Origin};
use crate::store::record::RecordKind;

/// Starts until a start succeeds; how often one panicked.
fn start(machine: &Machine) -> (TestWorker, u32) {
    for panics in 0..20 {
        match machine.go() {
            Ok(worker) => return (worker, panics),
            Err(StartError::Panicked) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the recovery panics for ever");
}

/// Three turns, by as many workers as it takes; how often one panicked.
fn run(machine: &Machine, worker: TestWorker) -> u32 {
    let (mut worker, mut panics) = (worker, 0);
    let mut turns = 0;
    while turns < 3 {
        match catch_unwind(AssertUnwindSafe(|| worker.turn())) {
            Ok(result) => {
                result.expect("model");
                turns += 1;
            }
            Err(_) => {
                worker.strike();
                panics += 1;
                assert!(panics < 20, "it panics for ever");
                drop(worker);
                let (next, more) = start(machine);
                worker = next;
                panics += more;
            }
        }
    }
    panics
}

fn counted(machine: &Machine, counter: Counter) -> u64 {
    machine.state.load(AT_COUNTERS + counter as usize * 8)
}

#[test]
fn f05_one_panic_at_any_store_of_a_turn_costs_nothing() {
    let (machine, context) = prepared(0);
    let wanted = send_batch(&machine, &context);
    for stores in 0.. {
        let fork = machine.fork();
        let worker = fork.start();
        fork.bomb.set(stores);
        let panics = run(&fork, worker);
        fork.bomb.set(u64::MAX);
        judge(&fork, 0, wanted.clone(), &format!("panic after {stores} stores"));
        assert_eq!(counted(&fork, Counter::Poison), 0);
        if panics == 0 {
            assert!(stores > 150, "the turn has more stores than {stores}");
            break;
        }
    }
}

#[test]
fn f05_one_panic_at_any_store_of_a_recovery_costs_nothing() {
    let (machine, context) = prepared(0);
    let wanted = send_batch(&machine, &context);
    // Some accepted, some filled, and nothing committed.
    let dead = machine.fork();
    let mut worker = dead.start();
    dead.life.set(60);
    worker.turn().expect("model");
    drop(worker);
    dead.life.set(u64::MAX);
    for stores in (1..).step_by(3) {
        let fork = dead.fork();
        fork.bomb.set(stores);
        let started = catch_unwind(AssertUnwindSafe(|| start(&fork)));
        fork.bomb.set(u64::MAX);
        // Outside of the scan the thread ends, and keeper starts the next process.
        let (worker, panics) = started.unwrap_or_else(|_| (start(&fork).0, 1));
        run(&fork, worker);
        judge(&fork, 0, wanted.clone(), &format!("panic after {stores} stores"));
        if panics == 0 {
            assert!(stores > 50, "the recovery has more stores than {stores}");
            break;
        }
    }
}

/// Stores by which a datagram is kept raw: both halves of the record, then the intent.
const RAW_STORES: u64 = 3;

fn poisonous(seq: u16) -> Vec<u8> {
    let mut packet = rtp(0x1234, seq);
    packet.extend_from_slice(POISON);
    packet
}

/// At whichever store it panics: its neighbours are recorded once, it is kept raw, counted, and
/// becomes evidence.
#[test]
fn f05_a_datagram_that_panics_twice_is_kept_raw_and_skipped() {
    let (machine, context) = prepared(0);
    let mut wanted = send_batch(&machine, &context);
    for seq in [14, 15] {
        machine.send(REMOTE, RTP_PORTS[1], poisonous(seq));
        machine.send(REMOTE, RTP_PORTS[1], rtp(0x1234, seq + 2));
        *wanted.entry((101, u64::from(seq) + 2)).or_default() += 1;
    }
    let (mut poisoned, mut raw_seen) = (0, 0);
    for stores in 0.. {
        let fork = machine.fork();
        fork.poison.set(Some(stores));
        let (worker, _) = start(&fork);
        let panics = run(&fork, worker);
        let what = format!("panics after {stores} stores");
        if panics == 0 {
            break;
        }
        poisoned += 1;
        let raw: Vec<Vec<u8>> = fork
            .records(0)
            .into_iter()
            .filter(|record| record.meta.kind == RecordKind::Poison)
            .map(|record| record.payload)
            .collect();
        let rtp = fork.records(0).into_iter().filter(|record| record.meta.kind == RecordKind::Rtp);
        let mut found = std::collections::BTreeMap::new();
        for record in rtp {
            let key = (record.meta.source.stream().0, record.meta.index.0);
            *found.entry(key).or_insert(0_u32) += 1;
        }
        for (key, count) in &wanted {
            assert_eq!(found.get(key), Some(count), "{what}: {key:?}");
        }
        // Each poisonous one stands there once: raw, or as RTP where it had been accepted already
        // and what is left to do for it does not come as far as that store. Where storing it raw
        // panics as well, it is only counted.
        let mut poison = 0;
        for seq in [14, 15] {
            let as_rtp = found.get(&(101, u64::from(seq))).copied().unwrap_or(0);
            let as_raw = raw.iter().filter(|payload| **payload == poisonous(seq)).count();
            let lost = u32::from(stores < RAW_STORES);
            assert_eq!(as_rtp + as_raw as u32 + lost, 1, "{what}: {seq}");
            poison += u64::from(1 - as_rtp);
        }
        assert_eq!(counted(&fork, Counter::Poison), poison, "{what}");
        for word in 0..STRIKES_WORDS {
            assert_eq!(fork.state.load(AT_STRIKES + word * 8), 0, "{what}: strikes are forgotten");
        }
        fork.pass_ns(1_100_000_000);
        fork.poison.set(None);
        let mut worker = fork.start();
        worker.turn().expect("model");
        fork.pass_ns(1_100_000_000);
        worker.turn().expect("model");
        let evidence =
            fork.records(0).iter().filter_map(|record| record.event()).any(|event| {
                matches!(event, Event::Dropped { cause: Cause::Poison, count, .. } if count == poison)
            });
        assert!(evidence || poison == 0 || stores < RAW_STORES, "{what}: a cause in the ledger");
        raw_seen += raw.len();
    }
    assert!(poisoned > 10, "only {poisoned} places to panic at");
    assert!(raw_seen > 4, "only {raw_seen} were kept raw");
}

/// What panics only when it is told what it is, or in the search for its counter, while it waits in
/// quarantine: kept raw like any other, and what waits beside it is recorded.
#[test]
fn f05_a_datagram_that_panics_in_quarantine_is_kept_raw() {
    for ssrc in [0x1234, 0x4321] {
        let (mut machine, _) = prepared(0);
        let new = Context::new(SUITE, &master(SUITE, 3)).expect("length");
        let mut worker = machine.start();
        let bad = [rtp(ssrc, 65_535), POISON.to_vec()].concat();
        machine.send(REMOTE, RTP_PORTS[0], bad);
        machine.send(REMOTE, RTP_PORTS[0], protected(&new, 0x1234, 65_536));
        // Of an SSRC that nobody knows it is searched for from now on, turn after turn.
        worker.turn().expect("model");
        machine.poison.set(Some(0));
        let update = || Frame::Update { stream: stream(0, 1, Some((SUITE, 3))), by: Origin::Src };
        if ssrc == 0x1234 {
            machine.command(update());
        }
        let panics = run(&machine, worker);
        assert!(panics > 0, "it did not panic");
        // A panic may have taken the command with it: control asks again.
        machine.command(update());
        run(&machine, start(&machine).0);
        let records = machine.records(0);
        let of = |kind: RecordKind| records.iter().filter(move |one| one.meta.kind == kind);
        assert!(of(RecordKind::Rtp).any(|one| one.meta.index.0 == 65_536), "{ssrc:x}");
        assert_eq!(counted(&machine, Counter::Poison), 1, "{ssrc:x}");
        // Keeping it raw panics at its first store as well: it is only counted.
        assert_eq!(of(RecordKind::Poison).count(), 0);
    }
}

/// Two poisonous datagrams, one kept raw already; the recovery that does so for the other, and
/// counts both, is killed after every store.
#[test]
fn f05_a_death_after_any_store_of_poisoning_keeps_it_once_and_counts_it_once() {
    let (machine, context) = prepared(0);
    let wanted = send_batch(&machine, &context);
    for seq in [14, 15] {
        machine.send(REMOTE, RTP_PORTS[1], poisonous(seq));
    }
    let mut worker = machine.start();
    // Behind the stores by which it is kept raw, so that only handling it panics; before its intent,
    // so that it is in no account.
    machine.poison.set(Some(RAW_STORES));
    assert!(catch_unwind(AssertUnwindSafe(|| worker.turn())).is_err());
    worker.strike();
    drop(worker);
    for _ in 0..3 {
        assert!(matches!(machine.go(), Err(StartError::Panicked)), "two strikes each");
    }
    machine.poison.set(None);
    let (mut deaths, mut uncommitted) = (0, 0);
    for stores in 0.. {
        let fork = machine.fork();
        let before = fork.state.load(AT_TAIL);
        fork.life.set(stores);
        drop(fork.try_start());
        let survived = fork.life.get() > 0;
        uncommitted += u32::from(fork.state.load(AT_TAIL) == before);
        finish(&fork);
        let what = format!("killed after {stores} stores");
        judge(&fork, 0, wanted.clone(), &what);
        for seq in [14, 15] {
            let raw = fork.records(0).into_iter().filter(|one| one.payload == poisonous(seq));
            assert_eq!(raw.count(), 1, "{what}: {seq}");
        }
        let slot = SlotView::new(&fork.state, &GEOMETRY, 1);
        assert_eq!(slot.drops(Counter::Poison), 2, "{what}: the evidence");
        if survived {
            break;
        }
        deaths += 1;
    }
    assert!(uncommitted > 5 && deaths > uncommitted + 5, "{deaths} deaths, {uncommitted} before");
}

/// A ring without room for it: it is not kept, and counted once, whenever we are killed.
#[test]
fn f05_a_full_ring_counts_a_poisonous_datagram_once() {
    let first = GEOMETRY.ring_bytes * 3;
    let (machine, _) = prepared(first);
    for seq in [14, 15] {
        machine.send(REMOTE, RTP_PORTS[1], poisonous(seq));
    }
    let mut worker = machine.start();
    machine.poison.set(Some(RAW_STORES));
    assert!(catch_unwind(AssertUnwindSafe(|| worker.turn())).is_err());
    worker.strike();
    drop(worker);
    for _ in 0..3 {
        assert!(matches!(machine.go(), Err(StartError::Panicked)), "two strikes each");
    }
    machine.poison.set(None);
    // Nothing is written away any more.
    let tail = machine.state.load(AT_TAIL);
    machine.state.store(AT_DURABLE, tail - GEOMETRY.ring_bytes);
    machine.state.store(AT_SEALED, tail - GEOMETRY.ring_bytes);
    for stores in 0.. {
        let fork = machine.fork();
        fork.life.set(stores);
        drop(fork.try_start());
        let survived = fork.life.get() > 0;
        finish(&fork);
        let what = format!("killed after {stores} stores");
        let slot = SlotView::new(&fork.state, &GEOMETRY, 1);
        assert_eq!(slot.drops(Counter::Poison), 2, "{what}");
        assert_eq!(slot.drops(Counter::RingFull), 0, "{what}: it has one cause");
        assert_eq!(fork.state.load(AT_TAIL), tail, "{what}: there was no room");
        for word in 0..STRIKES_WORDS {
            assert_eq!(fork.state.load(AT_STRIKES + word * 8), 0, "{what}: strikes are forgotten");
        }
        if survived {
            assert!(stores > 10, "the recovery has more stores than {stores}");
            break;
        }
    }
}

#[test]
fn f05_an_open_that_panics_is_refused_and_may_be_asked_again() {
    for stores in (0..).step_by(2) {
        let mut machine = Machine::new(0);
        let mut worker = machine.start();
        worker.turn().expect("model");
        let id = machine.command(Frame::Open(stream(0, 1, None)));
        machine.bomb.set(stores);
        let panicked = catch_unwind(AssertUnwindSafe(|| worker.turn())).is_err();
        machine.bomb.set(u64::MAX);
        let first = machine.queues.answers.pop();
        drop(worker);
        let mut worker = machine.start();
        worker.turn().expect("model");
        if !panicked {
            assert!(stores > 20, "an open has more stores than {stores}");
            break;
        }
        if let Some(answer) = first {
            assert_eq!(answer.id, id);
            match answer.frame {
                Frame::Refused { why, .. } => assert_eq!(why, Refusal::NotReady),
                Frame::Opened { .. } => {}
                _ => panic!("neither refused nor opened"),
            }
        }
        // Not done again by itself; done when asked again.
        assert!(machine.queues.commands.is_empty());
        let id = machine.command(Frame::Open(stream(0, 1, None)));
        worker.turn().expect("model");
        assert!(matches!(machine.answer(id), Frame::Opened { .. }));
        machine.send(REMOTE, RTP_PORTS[0], rtp(7, 1));
        worker.turn().expect("model");
        let recorded = machine.records(0).iter().any(|one| one.meta.kind == RecordKind::Rtp);
        assert!(recorded, "after {stores} stores");
    }
}
