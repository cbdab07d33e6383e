//! What both engines must do, told once. Only compiled for tests.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{mapped, mapped::Mapped, socket, sockets::Sockets};
use crate::base::limits::{BUFFER_COUNT, DATAGRAM_BYTES_MAX, TURN_PACKETS_MAX};
use crate::base::ports::Datagrams;
use crate::plane::handoff::datagram;
use crate::plane::handoff::layout::Geometry;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const GEOMETRY: Geometry = Geometry { slot_count: 1, ring_bytes: 2 << 20 };

struct Bench {
    memory: OwnedFd,
    sockets: Sockets,
    ports: Vec<u16>,
    sender: UdpSocket,
}

impl Bench {
    fn new() -> Self {
        let pair = socket::reserve(HOME, 42_000, 43_000, 1).expect("free ports").remove(0);
        let port = pair.address.port();
        Bench {
            memory: mapped::create("buffers", GEOMETRY.buffers_bytes()).expect("memfd"),
            sockets: Sockets::new(
                Vec::new(),
                vec![pair.rtp, pair.rtcp],
                vec![port, port + 1],
                Vec::new(),
            ),
            ports: vec![port, port + 1],
            sender: UdpSocket::bind("127.0.0.1:0").expect("free port"),
        }
    }

    fn buffers(&self) -> Mapped {
        let map = Mapped::map(self.memory.as_fd(), GEOMETRY.buffers_bytes()).expect("map");
        map.populate(0, GEOMETRY.buffers_bytes()).expect("populate");
        map
    }

    fn send(&self, socket: usize, payload: &[u8]) {
        self.sender.send_to(payload, (HOME, self.ports[socket])).expect("loopback");
    }
}

/// Takes until `count` datagrams have come, giving each buffer back; what they held, in order.
fn drain(engine: &mut impl Datagrams, count: usize) -> Vec<(u16, usize, bool, Vec<u8>)> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut found = Vec::new();
    let mut taken = Vec::with_capacity(TURN_PACKETS_MAX);
    while found.len() < count && Instant::now() < deadline {
        taken.clear();
        engine.take(5, &mut taken).expect("the engine works");
        assert!(taken.len() <= TURN_PACKETS_MAX);
        for buffer in taken.iter().copied() {
            assert_ne!(engine.head(buffer), 0);
            engine.look(buffer, |bytes| {
                let datagram = datagram::read(bytes).expect("name, port and stamp are there");
                assert!(datagram.stamp.is_some());
                let payload = datagram.payload;
                let kept = payload[..payload.len().min(16)].to_vec();
                found.push((datagram.port, payload.len(), datagram.truncated, kept));
            });
            engine.clear(buffer);
            engine.offer(buffer);
        }
        engine.publish();
    }
    assert_eq!(found.len(), count, "all that was sent arrives");
    found
}

/// Destination, length, truncation and payload come through for every size.
pub(super) fn takes_datagrams_with_their_evidence<E: Datagrams>(
    make: impl Fn(Mapped, Sockets) -> E,
) {
    let bench = Bench::new();
    let mut engine = make(bench.buffers(), bench.sockets.clone());
    engine.inherit();
    engine.start(|_| true).expect("arm");
    assert!(!engine.reason().is_empty());
    bench.send(0, b"first");
    bench.send(1, b"on the RTCP port");
    bench.send(0, &[7; DATAGRAM_BYTES_MAX]);
    bench.send(0, &[8; DATAGRAM_BYTES_MAX + 1]);
    let mut found = drain(&mut engine, 4);
    found.sort_by_key(|(port, length, truncated, _)| (*port, *truncated, *length));
    assert_eq!(found[0], (bench.ports[0], 5, false, b"first".to_vec()));
    assert_eq!(found[1].1, DATAGRAM_BYTES_MAX);
    assert_eq!((found[2].1, found[2].2), (DATAGRAM_BYTES_MAX, true));
    assert_eq!(found[3].0, bench.ports[1]);
    assert_eq!(engine.drops(bench.ports[0]), Some(0));
}

/// More datagrams than buffers, empty ones among them: none is lost, and receiving goes on (F21). What the
/// engine `counts` afterwards.
pub(super) fn survives_exhaustion_and_empty_datagrams<E: Datagrams, C>(
    make: impl Fn(Mapped, Sockets) -> E,
    counts: impl Fn(&E) -> C,
) -> C {
    let bench = Bench::new();
    let mut engine = make(bench.buffers(), bench.sockets.clone());
    engine.inherit();
    engine.start(|_| true).expect("arm");
    let count = usize::from(BUFFER_COUNT) * 2;
    for number in 0..count as u32 {
        if number % 100 == 0 {
            bench.send(0, b"");
        } else {
            bench.send(0, &number.to_be_bytes());
        }
    }
    let found = drain(&mut engine, count);
    let numbers: Vec<u32> = found
        .iter()
        .filter_map(|(_, _, _, kept)| Some(u32::from_be_bytes(*kept.first_chunk()?)))
        .collect();
    assert!(numbers.is_sorted(), "one socket keeps its order");
    assert_eq!(numbers.len(), count - count.div_ceil(100));
    bench.send(0, b"still here");
    drain(&mut engine, 1);
    counts(&engine)
}

/// All buffers are taken and none is given back: what comes meanwhile waits in the socket, and comes when they
/// are (F21). For engines that may be asked again before a turn is over.
pub(super) fn used_up_buffers_leave_the_rest_in_the_socket<E: Datagrams, C>(
    make: impl Fn(Mapped, Sockets) -> E,
    counts: impl Fn(&E) -> C,
) -> C {
    let bench = Bench::new();
    let mut engine = make(bench.buffers(), bench.sockets.clone());
    engine.inherit();
    engine.start(|_| true).expect("arm");
    let (all, sent) = (usize::from(BUFFER_COUNT), usize::from(BUFFER_COUNT) + 300);
    (0..sent).for_each(|_| bench.send(0, b"one of many"));
    let mut held: Vec<u16> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(5);
    while held.len() < all && Instant::now() < deadline {
        let mut taken = Vec::with_capacity(TURN_PACKETS_MAX);
        engine.take(5, &mut taken).expect("the engine works");
        held.extend(taken);
    }
    let mut more = Vec::with_capacity(TURN_PACKETS_MAX);
    engine.take(5, &mut more).expect("the engine works");
    assert_eq!((held.len(), more.len()), (all, 0));
    for buffer in held {
        engine.clear(buffer);
        engine.offer(buffer);
    }
    engine.publish();
    drain(&mut engine, sent - all);
    counts(&engine)
}

/// Nobody takes anything until the socket's queue is full: what did not fit is what its counter says, both
/// asked and as told with the next datagram (F22).
pub(super) fn a_full_queue_is_counted_exactly<E: Datagrams>(make: impl Fn(Mapped, Sockets) -> E) {
    let bench = Bench::new();
    let mut engine = make(bench.buffers(), bench.sockets.clone());
    let small =
        rustix::net::sockopt::set_socket_recv_buffer_size(&bench.sockets.all()[0], 64 << 10);
    small.expect("smaller is always permitted");
    const SENT: usize = 1_000;
    (0..SENT).for_each(|_| bench.send(0, &[9; 172]));
    let dropped = engine.drops(bench.ports[0]).expect("it can be asked") as usize;
    assert!((1..SENT).contains(&dropped), "{dropped} of {SENT}");
    engine.inherit();
    engine.start(|_| true).expect("arm");
    drain(&mut engine, SENT - dropped);
    bench.send(0, b"after");
    let (mut taken, mut told) = (Vec::with_capacity(TURN_PACKETS_MAX), None);
    let deadline = Instant::now() + Duration::from_secs(5);
    while told.is_none() && Instant::now() < deadline {
        taken.clear();
        engine.take(5, &mut taken).expect("the engine works");
        for buffer in taken.iter().copied() {
            told = engine.look(buffer, |bytes| datagram::read(bytes).expect("whole").socket_drops);
            engine.clear(buffer);
            engine.offer(buffer);
        }
        engine.publish();
    }
    assert_eq!(told, Some(dropped as u32));
}

/// An engine dies with datagrams it took and nobody looked at: their heads are set in the shared
/// buffers, and the next engine takes the rest. None is lost, none comes twice.
pub(super) fn what_a_dead_engine_took_is_found<E: Datagrams>(make: impl Fn(Mapped, Sockets) -> E) {
    let bench = Bench::new();
    let mut engine = make(bench.buffers(), bench.sockets.clone());
    engine.inherit();
    engine.start(|_| true).expect("arm");
    for number in 0..300_u32 {
        bench.send(0, &number.to_be_bytes());
    }
    engine.take(5, &mut Vec::with_capacity(TURN_PACKETS_MAX)).expect("take");
    drop(engine);
    let mut next = make(bench.buffers(), bench.sockets.clone());
    next.inherit();
    let mut numbers = Vec::new();
    let mut note = |payload: &[u8]| {
        numbers.push(u32::from_be_bytes(*payload.first_chunk().expect("four octets")));
    };
    for buffer in 0..BUFFER_COUNT {
        if next.head(buffer) != 0 {
            next.look(buffer, |bytes| note(datagram::read(bytes).expect("whole").payload));
            next.clear(buffer);
        }
    }
    let left = 300 - numbers.len();
    assert!(left < 300, "the dead engine had taken some");
    let mut note = |payload: &[u8]| {
        numbers.push(u32::from_be_bytes(*payload.first_chunk().expect("four octets")));
    };
    next.start(|_| true).expect("arm");
    drain(&mut next, left).iter().for_each(|(_, _, _, kept)| note(kept));
    numbers.sort_unstable();
    assert_eq!(numbers, (0..300).collect::<Vec<_>>());
}

/// As many filled buffers as may be are kept back, every other one of those that came: they stay as they are
/// while all others go round, and neither this engine nor the next fills or offers them (F36).
pub(super) fn what_is_kept_back_stays_whole<E: Datagrams>(make: impl Fn(Mapped, Sockets) -> E) {
    let bench = Bench::new();
    let mut engine = make(bench.buffers(), bench.sockets.clone());
    engine.inherit();
    engine.start(|_| true).expect("arm");
    let spare = engine.spare();
    assert!(spare >= TURN_PACKETS_MAX / 2, "{spare}");
    (0..2 * spare as u32).for_each(|number| bench.send(0, &number.to_be_bytes()));
    let number = |engine: &E, buffer: u16| {
        let read = |bytes: &[u8]| datagram::read(bytes)?.payload.first_chunk().copied();
        u32::from_be_bytes(engine.look(buffer, read).expect("four octets"))
    };
    let (mut kept, mut seen) = (Vec::new(), 0);
    let mut taken = Vec::with_capacity(TURN_PACKETS_MAX);
    let deadline = Instant::now() + Duration::from_secs(5);
    while seen < 2 * spare && Instant::now() < deadline {
        taken.clear();
        engine.take(5, &mut taken).expect("the engine works");
        seen += taken.len();
        for buffer in taken.iter().copied() {
            if number(&engine, buffer) % 2 == 0 {
                kept.push(buffer);
            } else {
                engine.clear(buffer);
                engine.offer(buffer);
            }
        }
        engine.publish();
    }
    let wanted: Vec<u32> = (0..spare as u32).map(|number| number * 2).collect();
    let held = |engine: &E| kept.iter().map(|buffer| number(engine, *buffer)).collect::<Vec<_>>();
    for _ in 0..2 {
        let count = 2 * usize::from(BUFFER_COUNT);
        (0..count as u32).for_each(|_| bench.send(0, b"goes round"));
        drain(&mut engine, count);
        assert_eq!(held(&engine), wanted);
        drop(engine);
        engine = make(bench.buffers(), bench.sockets.clone());
        engine.inherit();
        engine.start(|_| true).expect("arm");
    }
    for buffer in kept {
        engine.clear(buffer);
        engine.offer(buffer);
    }
    engine.publish();
    let count = 2 * usize::from(BUFFER_COUNT);
    (0..count as u32).for_each(|_| bench.send(0, b"all of them"));
    drain(&mut engine, count);
}
