//! Real sockets, real shared memory, both engines: what is sent is in the ring once, in order and in
//! the clear, also when workers are thrown away in the middle and successors take over.

#[expect(dead_code, reason = "shared with tests that divert frames")]
mod rig;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use floortape::base::counter::Counter;
use floortape::base::ports::Region;
use floortape::config::model::Engine;
use floortape::plane::handoff::layout::AT_COUNTERS;
use floortape::proto::srtp::Context;

use rig::{Rig, SUITE, master, packet};

/// Packets per stream.
const PACKETS: u64 = 3_000;
/// Three streams: two SRTP, one plain.
const KEYS: [Option<u8>; 3] = [Some(1), Some(2), None];

/// Engines that this machine permits.
fn engines() -> Vec<Engine> {
    match floortape::host::uring_permit::permitted() {
        Ok(()) => vec![Engine::IoUring, Engine::Recvmmsg],
        Err(_) => vec![Engine::Recvmmsg],
    }
}

fn recorded(rig: &Rig) -> u64 {
    rig.state.load(AT_COUNTERS + Counter::RtpRecorded as usize * 8)
}

/// Sends everything in bursts, drops the worker every `drop_every` bursts, and checks the ring.
fn run(engine: Engine, port_first: u16, drop_every: u64) {
    // A socket a port, and few sockets for all ports, where that is permitted.
    for make in [Rig::new, Rig::steered] {
        run_on(&make(KEYS.len() as u32, port_first), engine, drop_every);
    }
}

fn run_on(rig: &Rig, engine: Engine, drop_every: u64) {
    let mut worker = rig.worker(engine);
    let contexts: Vec<Option<Context>> = KEYS
        .iter()
        .map(|key| key.map(|fill| Context::new(SUITE, &master(fill)).expect("length")))
        .collect();
    for (slot, key) in KEYS.iter().enumerate() {
        rig.open(&mut worker, slot as u32, *key);
    }
    let mut out = [0; 256];
    let mut burst = 0_u64;
    // Begins below the wrap of the sequence number, so that the roll-over counter is in the test.
    let first = 65_536 - PACKETS / 2;
    for number in first..first + PACKETS {
        for (slot, context) in contexts.iter().enumerate() {
            let length = packet(context.as_ref(), 0x100 + slot as u32, number, &mut out);
            let to = ("127.0.0.1", rig.rtp_ports[slot]);
            rig.sender.send_to(&out[..length], to).expect("loopback");
        }
        if number % 50 == 0 {
            worker.turn().expect("the engine works");
            burst += 1;
            if burst.is_multiple_of(drop_every) {
                // Its ring still holds completions that nobody has looked at.
                drop(worker);
                worker = rig.worker(engine);
            }
        }
    }
    let wanted = PACKETS * KEYS.len() as u64;
    let deadline = Instant::now() + Duration::from_secs(20);
    while (rig.packets().len() as u64) < wanted && Instant::now() < deadline {
        worker.turn().expect("the engine works");
    }
    let mut streams: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (meta, payload) in rig.packets() {
        assert_eq!(payload.len(), 172);
        let number = u64::from_be_bytes(payload[12..20].try_into().expect("eight octets"));
        assert_eq!(meta.index.0, number, "index and payload agree");
        assert!(payload[20..].iter().all(|byte| *byte == 0x55), "decrypted");
        assert!(meta.arrival.0 > 0);
        streams.entry(meta.source.stream().0).or_default().push(number);
    }
    assert_eq!(streams.len(), KEYS.len());
    for (stream, numbers) in streams {
        assert!(numbers.iter().copied().eq(first..first + PACKETS), "stream {stream} in order");
    }
    assert_eq!(recorded(rig), wanted, "the account agrees with the ring");
}

#[test]
fn every_packet_is_in_the_ring_once_and_in_order() {
    for (engine, port_first) in engines().into_iter().zip([45_000, 46_000]) {
        run(engine, port_first, u64::MAX);
    }
}

#[test]
fn f01_workers_dropped_in_the_middle_lose_nothing() {
    for (engine, port_first) in engines().into_iter().zip([47_000, 48_000]) {
        run(engine, port_first, 7);
    }
}

#[test]
fn a_successor_may_use_the_other_engine() {
    let rig = Rig::new(1, 49_000);
    let mut worker = rig.worker(Engine::Auto);
    rig.open(&mut worker, 0, None);
    let mut out = [0; 256];
    for number in 0..300 {
        let length = packet(None, 1, number, &mut out);
        rig.sender.send_to(&out[..length], ("127.0.0.1", rig.rtp_ports[0])).expect("loopback");
        if number == 150 {
            worker.turn().expect("the engine works");
            drop(worker);
            worker = rig.worker(Engine::Recvmmsg);
        }
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while rig.packets().len() < 300 && Instant::now() < deadline {
        worker.turn().expect("the engine works");
    }
    assert_eq!(rig.packets().len(), 300);
}
