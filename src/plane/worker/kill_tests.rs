//! The kill protocol, by enumeration: a worker dies after every single store of a turn (and of the
//! recovery after it); its successor must bring every datagram into the ring exactly once, with the
//! same account, whatever the instant.

use std::collections::BTreeMap;

use super::model::{GEOMETRY, Machine, REMOTE, RTP_PORTS, master, rtp, stream};
use crate::base::ids::{Index, SourceId};
use crate::base::limits::SOURCES_PER_STREAM;
use crate::base::suite::Suite;
use crate::plane::handoff::frame::Frame;
use crate::plane::handoff::source::SourceView;
use crate::proto::srtp::Context;
use crate::store::event::Event;
use crate::store::record::RecordKind;

pub(super) const SUITE: Suite = Suite::AesCm128HmacSha1_80;
const SSRC: u32 = 0x1234;

pub(super) fn protected(context: &Context, ssrc: u32, index: u64) -> Vec<u8> {
    let mut out = [0; 256];
    let index = Index(index);
    let length = context
        .protect_rtp(&rtp(ssrc, index.seq().0), index, &mut out)
        .expect("room for the packet");
    out[..length].to_vec()
}

/// Both streams open; the secure one has a source that is about to wrap.
pub(super) fn prepared(first: u64) -> (Machine, Context) {
    let mut machine = Machine::new(first);
    let context = Context::new(SUITE, &master(SUITE, 1)).expect("key of the suite");
    let mut worker = machine.start();
    let open = machine.command(Frame::Open(stream(0, 1, Some((SUITE, 1)))));
    let plain = machine.command(Frame::Open(stream(1, 1, None)));
    worker.turn().expect("model");
    assert!(matches!(machine.answer(open), Frame::Opened { .. }));
    assert!(matches!(machine.answer(plain), Frame::Opened { .. }));
    for index in 65_530..65_534 {
        machine.send(REMOTE, RTP_PORTS[0], protected(&context, SSRC, index));
    }
    machine.send(REMOTE, RTP_PORTS[1], rtp(SSRC, 9));
    worker.turn().expect("model");
    (machine, context)
}

/// The batch under test: a wrap, a gap, a late packet, a replay, a forgery, a new SSRC, plain ones.
pub(super) fn send_batch(machine: &Machine, context: &Context) -> BTreeMap<(u64, u64), u32> {
    let mut wanted = BTreeMap::new();
    let secure = [65_534_u64, 65_536, 65_540, 65_535];
    for index in secure {
        machine.send(REMOTE, RTP_PORTS[0], protected(context, SSRC, index));
        *wanted.entry((1, index)).or_default() += 1;
    }
    machine.send(REMOTE, RTP_PORTS[0], protected(context, SSRC, 65_536));
    let mut forged = protected(context, SSRC, 65_541);
    forged[15] ^= 1;
    machine.send(REMOTE, RTP_PORTS[0], forged);
    machine.send(REMOTE, RTP_PORTS[0], protected(context, 0x9999, 3));
    *wanted.entry((1, 3)).or_default() += 1;
    for seq in [10, 11, 13, 10] {
        machine.send(REMOTE, RTP_PORTS[1], rtp(SSRC, seq));
    }
    for seq in [10, 11, 13] {
        *wanted.entry((101, seq)).or_default() += 1;
    }
    wanted
}

/// What the ring holds must be what was sent, once each, as must the accounts of the sources.
pub(super) fn judge(
    machine: &Machine,
    first: u64,
    mut wanted: BTreeMap<(u64, u64), u32>,
    what: &str,
) {
    for (stream, indexes) in [(1, 65_530..65_534_u64), (101, 9..10)] {
        indexes.for_each(|index| *wanted.entry((stream, index)).or_default() += 1);
    }
    let records = machine.records(first);
    let mut found: BTreeMap<(u64, u64), u32> = BTreeMap::new();
    let mut per_source: BTreeMap<SourceId, u64> = BTreeMap::new();
    for record in records.iter().filter(|record| record.meta.kind == RecordKind::Rtp) {
        let source = record.meta.source;
        *found.entry((source.stream().0, record.meta.index.0)).or_default() += 1;
        *per_source.entry(source).or_default() += 1;
        assert_eq!(record.payload.len(), 32, "{what}: decrypted whole");
        assert_eq!(record.payload[12..], [record.meta.index.0 as u8; 20], "{what}: plain text");
    }
    assert_eq!(found, wanted, "{what}: each datagram once");
    // Every source that has records has its event, and an account that says the same.
    let announced: Vec<(u64, u16)> = records
        .iter()
        .filter_map(|record| match record.event()? {
            Event::Source { ordinal, .. } => Some((record.meta.source.stream().0, ordinal)),
            _ => None,
        })
        .collect();
    for (source, packets) in &per_source {
        assert!(announced.contains(&(source.stream().0, source.ordinal())), "{what}: {source:?}");
        let account = (0..GEOMETRY.slot_count)
            .flat_map(|slot| (0..SOURCES_PER_STREAM).map(move |place| (slot, place)))
            .map(|(slot, place)| (slot, SourceView::new(&machine.state, &GEOMETRY, slot, place)))
            .find(|(slot, view)| {
                let stream = u64::from(*slot) * 100 + 1;
                let own = view.identity().map(|(_, ordinal)| ordinal);
                stream == source.stream().0 && own == Some(source.ordinal())
            })
            .map(|(_, view)| view.account())
            .expect("the source lives");
        assert_eq!(account.packets, *packets, "{what}: packets of {source:?}");
        assert_eq!(account.bytes, packets * 32, "{what}: bytes of {source:?}");
    }
}

/// Runs successors over what is left until the network is empty.
pub(super) fn finish(machine: &Machine) {
    let mut worker = machine.start();
    for _ in 0..3 {
        worker.turn().expect("model");
    }
}

#[test]
fn death_after_any_store_of_a_turn_loses_nothing_and_repeats_nothing() {
    let (machine, context) = prepared(0);
    let wanted = send_batch(&machine, &context);
    let mut deaths = 0;
    for stores in 0.. {
        let fork = machine.fork();
        let mut worker = fork.start();
        fork.life.set(stores);
        worker.turn().expect("model");
        let survived = fork.life.get() > 0;
        drop(worker);
        finish(&fork);
        judge(&fork, 0, wanted.clone(), &format!("killed after {stores} stores"));
        if survived {
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 150, "the turn has more stores than {deaths}");
}

#[test]
fn death_after_any_store_of_the_recovery_is_covered_as_well() {
    let (machine, context) = prepared(0);
    let wanted = send_batch(&machine, &context);
    // First deaths spread over the turn; every second death within the recovery that follows.
    for first in (5..200).step_by(17) {
        let dead = machine.fork();
        let mut worker = dead.start();
        dead.life.set(first);
        worker.turn().expect("model");
        drop(worker);
        for second in (0..).step_by(9) {
            let fork = dead.fork();
            fork.life.set(second);
            let worker = fork.try_start();
            let survived = fork.life.get() > 0;
            drop(worker);
            finish(&fork);
            let what = format!("killed after {first} stores, then after {second} of the recovery");
            judge(&fork, 0, wanted.clone(), &what);
            if survived {
                break;
            }
        }
    }
}

#[test]
fn death_at_the_rings_end_is_covered_as_well() {
    // Records begin so close to the end that a pad falls into the batch.
    let first = GEOMETRY.ring_bytes * 3 - 3_000;
    let (machine, context) = prepared(first);
    let wanted = send_batch(&machine, &context);
    for stores in (0..400).step_by(5) {
        let fork = machine.fork();
        let mut worker = fork.start();
        fork.life.set(stores);
        worker.turn().expect("model");
        drop(worker);
        finish(&fork);
        judge(&fork, first, wanted.clone(), &format!("killed after {stores} stores"));
    }
}

/// Test of the test: a successor that ignores the intent words takes accepted packets for replays
/// and loses them.
#[test]
fn without_intents_packets_are_lost() {
    let (machine, context) = prepared(0);
    send_batch(&machine, &context);
    let lost = (20..200).any(|stores| {
        let fork = machine.fork();
        let mut worker = fork.start();
        fork.life.set(stores);
        worker.turn().expect("model");
        drop(worker);
        fork.life.set(u64::MAX);
        for buffer in 0..crate::base::limits::BUFFER_COUNT as usize {
            use crate::base::ports::Region;
            use crate::plane::handoff::layout::{AT_INTENTS, INTENT_NONE};
            fork.state.store(AT_INTENTS + buffer * 8, INTENT_NONE);
        }
        finish(&fork);
        let records = fork.records(0);
        records.iter().filter(|record| record.meta.kind == RecordKind::Rtp).count() != 13
    });
    assert!(lost, "the intent words would be of no use");
}
