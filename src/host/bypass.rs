//! The third engine: frames that were diverted at the card ([`super::xdp`]) out of its queue ([`super::xsk`]),
//! and all else from the sockets by recvmmsg, into the same shared buffers with the same layout. A frame is
//! copied out of the queue, since a queue must hold sixteen times what a worker has in hand.
//!
//! Per frame: bytes, tag (its index), head; per batch: consumer index, frames offered again. A successor finds
//! in the tags of filled buffers how far that had come: nothing is lost and nothing is copied twice.
//!
//! Per turn one system call: a wait on the sockets. Whoever has just had frames does not wait for the next one
//! but for 2 ms, so that the kernel wakes nobody.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use super::clock::SystemClock;
use super::mapped::Mapped;
use super::recvmmsg::Recvmmsg;
use super::sockets::Sockets;
use super::xdp::{Diversion, FRAMES, Line};
use super::xsk::{LEAKED_AFTER, Queue, QueueFds};
use crate::base::faults::fault;
use crate::base::limits::{BUFFER_BYTES, BUFFER_COUNT, TURN_PACKETS_MAX};
use crate::base::ports::{Clock, Datagrams, Region};
use crate::base::time::{Mono, Wall};
use crate::plane::handoff::datagram::{self, AT_FLAGS, AT_PAYLOAD, AT_TAG, TAGGED};
use crate::wire::ethernet;

/// The first buffer that frames are copied into; those before are recvmmsg's.
const FIRST: u16 = TURN_PACKETS_MAX as u16;
/// Buffers that may be kept back: half of recvmmsg's, which has the fewest.
const SPARE: usize = TURN_PACKETS_MAX / 2;
/// Of a turn's room what is left to sockets that hold something.
const FOR_SOCKETS: usize = TURN_PACKETS_MAX / 4;
/// So long frames gather before they are looked at.
const BATCH_WAIT: Duration = Duration::from_millis(2);

/// What diverts the frames of one worker, and whereto. Every process that holds the worker's memory holds
/// this as well.
#[derive(Debug)]
pub struct Diverted {
    /// The program at the card, the same for all workers.
    pub diversion: Diversion,
    /// The queue.
    pub queue: QueueFds,
}

impl Diverted {
    /// Another handle of the same.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Diverted { diversion: self.diversion.try_clone()?, queue: self.queue.try_clone()? })
    }

    /// Its descriptors as they travel.
    pub fn fds(&self) -> [BorrowedFd<'_>; 5] {
        let ([link, program, words], [area, socket]) = (self.diversion.fds(), self.queue.fds());
        [link, program, words, area, socket]
    }

    /// The same the other way round.
    pub fn held([link, program, words, area, socket]: [OwnedFd; 5]) -> Self {
        let queue = QueueFds { area, socket };
        Diverted { diversion: Diversion::held([link, program, words]), queue }
    }
}

/// The engine.
pub struct Bypass {
    sockets: Recvmmsg,
    queue: Queue,
    line: Line,
    /// Sockets and queue, for who has nothing to do.
    idle: OwnedFd,
    /// Buffers that hold nothing.
    free: Vec<u16>,
    /// Frames that somebody who died may have had in hand, until they are given back.
    leaked: Option<Leaked>,
    /// The last turn had frames.
    busy: bool,
    started: bool,
}

/// Frames in neither ring.
struct Leaked {
    /// Not those.
    held: Vec<bool>,
    /// Since then.
    since: Mono,
}

impl Bypass {
    /// An engine over `buffers` for what is diverted to `worker`, and for `sockets`. Touches nothing that a
    /// predecessor works on.
    pub fn new(
        buffers: Mapped,
        sockets: Sockets,
        diverted: &Diverted,
        worker: u16,
    ) -> io::Result<Self> {
        let idle = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let reason = "frames diverted at the card, all else by recvmmsg";
        let queue = diverted.queue.queue()?;
        let sockets = Recvmmsg::new(buffers, sockets, reason)?;
        epoll::add(&idle, sockets.watch(), epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        epoll::add(&idle, &queue, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
        Ok(Bypass {
            sockets,
            queue,
            line: diverted.diversion.line(worker)?,
            idle,
            free: Vec::with_capacity(usize::from(BUFFER_COUNT - FIRST)),
            leaked: None,
            busy: false,
            started: false,
        })
    }

    fn buffers(&self) -> &Mapped {
        &self.sockets.buffers
    }

    /// Waits as this turn should; whether sockets hold something.
    fn wait(&mut self, wait_ms: u64) -> io::Result<bool> {
        let limit = Duration::from_millis(wait_ms);
        let (_, waiting) = self.queue.waiting();
        if self.busy || waiting > 0 || !self.started {
            let enough = self.started && waiting as usize >= TURN_PACKETS_MAX;
            let wait = if enough { Duration::ZERO } else { limit.min(BATCH_WAIT) };
            return self.sockets.wait(wait);
        }
        let limit = Timespec { tv_sec: 0, tv_nsec: limit.as_nanos().min(999_999_999) as i64 };
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: zero() }; 2];
        match epoll::wait(&self.idle, &mut events, Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(false),
            Ok(count) if events[..count].iter().any(|event| event.data.u64() == 0) => {
                self.sockets.wait(Duration::ZERO)
            }
            Ok(_) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes up to `room` frames.
    fn take_frames(&mut self, room: usize, taken: &mut Vec<u16>) {
        // Read first: what is given later is not among those that wait.
        let given = self.line.given();
        let (first, waiting) = self.queue.waiting();
        let count = (waiting as usize).min(room).min(self.free.len()) as u32;
        self.busy = count > 0;
        if count > 0 {
            self.copy(first, count, taken);
            fault!("xdp.copied");
            self.queue.consume(count);
            fault!("xdp.consumed");
            self.queue.offer(first, count);
        }
        self.line.set_waiting(given, waiting - count);
    }

    /// Copies `count` frames from index `first` on into buffers; those numbers follow in `taken`.
    fn copy(&mut self, first: u32, count: u32, taken: &mut Vec<u16>) {
        let now = SystemClock.map();
        let stamped = self.line.has_stamps();
        for index in (0..count).map(|place| first.wrapping_add(place)) {
            let buffer = self.free.pop().expect("no more frames than buffers");
            let at = usize::from(buffer) * BUFFER_BYTES;
            let buffers = &self.sockets.buffers;
            let mut header = self.queue.look(index, |frame, stamp| {
                let Ok(found) = ethernet::datagram(frame) else { return datagram::no_datagram() };
                let stamp = Wall(i64::from_ne_bytes(stamp).wrapping_add(now.offset()));
                let kept = found.payload.len().min(BUFFER_BYTES - AT_PAYLOAD);
                buffers.copy_in(at + AT_PAYLOAD, &found.payload[..kept]);
                datagram::header(&datagram::Datagram {
                    from: found.from,
                    port: found.port,
                    stamp: Some(if stamped { stamp } else { now.wall }),
                    socket_drops: None,
                    truncated: false,
                    length: found.payload.len(),
                    payload: found.payload,
                })
            });
            let flags = u32_of(&header, AT_FLAGS) | TAGGED;
            header[AT_FLAGS..AT_FLAGS + 4].copy_from_slice(&flags.to_ne_bytes());
            header[AT_TAG..AT_TAG + 4].copy_from_slice(&index.to_ne_bytes());
            let (head, rest) = header.split_first_chunk().expect("a word and more");
            buffers.copy_in(at + 8, rest);
            // Last: what has a head is whole, for whoever comes next.
            buffers.store(at, u64::from_ne_bytes(*head));
            fault!("xdp.head");
            taken.push(buffer);
            if let Some(leaked) = &mut self.leaked {
                leaked.held[self.queue.frame(index)] = true;
            }
        }
    }

    /// Gives back what a predecessor had in hand, once it is clear that nobody else has it.
    fn return_leaked(&mut self) {
        let Some(leaked) = &self.leaked else { return };
        let now = SystemClock.mono();
        if now.since(leaked.since) < LEAKED_AFTER.as_nanos() as u64 {
            return;
        }
        // What came meanwhile and is still there.
        let (first, waiting) = self.queue.waiting();
        if let Some(mut leaked) = self.leaked.take() {
            for place in 0..waiting {
                leaked.held[self.queue.frame(first.wrapping_add(place))] = true;
            }
            self.queue.offer_others(&leaked.held);
        }
    }

    /// How many frames, from the first that was not consumed on, stand in buffers.
    fn copied(&self) -> u32 {
        let (first, waiting) = self.queue.waiting();
        let mut copied = 0;
        for buffer in FIRST..BUFFER_COUNT {
            let at = usize::from(buffer) * BUFFER_BYTES;
            if self.buffers().load(at) == 0 {
                continue;
            }
            let mut header = [0; AT_PAYLOAD];
            self.buffers().copy_out(at, &mut header);
            if u32_of(&header, AT_FLAGS) & TAGGED != 0 {
                let place = u32_of(&header, AT_TAG).wrapping_sub(first);
                // They are copied in order.
                copied = if place < waiting { copied.max(place + 1) } else { copied };
            }
        }
        copied
    }
}

fn zero() -> epoll::EventData {
    epoll::EventData::new_u64(0)
}

fn u32_of(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Datagrams for Bypass {
    fn name(&self) -> &'static str {
        "xdp"
    }

    fn reason(&self) -> &str {
        self.sockets.reason()
    }

    fn inherit(&mut self) {
        self.sockets.inherit();
        let given = self.line.given();
        let copied = self.copied();
        self.queue.consume(copied);
        let mut held = vec![false; FRAMES];
        self.queue.find(&mut held);
        self.leaked = Some(Leaked { held, since: SystemClock.mono() });
        self.line.set_waiting(given, self.queue.waiting().1);
    }

    fn spare(&self) -> usize {
        SPARE
    }

    fn start(&mut self, urgent: impl Fn(u16) -> bool) -> io::Result<()> {
        self.sockets.start(urgent)?;
        self.free.clear();
        for buffer in (FIRST..BUFFER_COUNT).rev() {
            if self.head(buffer) == 0 {
                self.free.push(buffer);
            }
        }
        self.started = true;
        Ok(())
    }

    fn take(&mut self, wait_ms: u64, taken: &mut Vec<u16>) -> io::Result<()> {
        let sockets_hold = self.wait(wait_ms)?;
        if !self.started {
            return Ok(());
        }
        let passing = self.line.is_passing();
        let room = TURN_PACKETS_MAX - taken.len();
        self.take_frames(if sockets_hold { room - FOR_SOCKETS } else { room }, taken);
        self.return_leaked();
        if !passing {
            if sockets_hold {
                self.sockets.receive_ready(TURN_PACKETS_MAX - taken.len(), taken)?;
            }
            return Ok(());
        }
        // What waits in the queue came before what waits in the sockets, and that before what will be
        // diverted again.
        if self.queue.waiting().1 == 0 {
            if sockets_hold {
                self.sockets.receive_ready(TURN_PACKETS_MAX - taken.len(), taken)?;
            } else {
                self.line.pass(false);
            }
        }
        Ok(())
    }

    fn head(&self, buffer: u16) -> u64 {
        self.sockets.head(buffer)
    }

    fn clear(&mut self, buffer: u16) {
        self.sockets.clear(buffer);
    }

    fn look<R>(&self, buffer: u16, view: impl FnOnce(&[u8]) -> R) -> R {
        self.sockets.look(buffer, view)
    }

    #[cfg(feature = "faults")]
    fn overwrite(&mut self, buffer: u16, offset: usize, bytes: &[u8]) {
        self.sockets.overwrite(buffer, offset, bytes);
    }

    fn offer(&mut self, buffer: u16) {
        if buffer < FIRST {
            self.sockets.offer(buffer);
        } else {
            self.free.push(buffer);
        }
    }

    fn publish(&mut self) {
        self.sockets.publish();
    }

    fn drops(&self, port: u16) -> Option<u32> {
        self.sockets.drops(port)
    }

    fn waits(&self, port: u16) -> bool {
        let (first, waiting) = self.queue.waiting();
        (0..waiting).any(|place| self.queue.port(first.wrapping_add(place)) == Some(port))
            || self.sockets.waits(port)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::{IpAddr, Ipv4Addr, UdpSocket};
    use std::os::fd::AsFd;
    use std::process::Command;

    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    use super::*;
    use crate::host::xdp::Card;
    use crate::host::{engine_tests, mapped, socket};
    use crate::plane::handoff::layout::Geometry;

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// Runs `what` in a network namespace that has nothing but a loopback of its own, since a program is put
    /// at that. Needs root and `ip`; says so where it cannot.
    fn apart(name: &str, what: impl FnOnce() + Send) {
        let ip = |arguments: &[&str]| {
            Command::new("ip").args(arguments).status().is_ok_and(|status| status.success())
        };
        let space = format!("floortape-{name}-{}", std::process::id());
        if !rustix::process::geteuid().is_root() || !ip(&["netns", "add", &space]) {
            return eprintln!("not shown without root and ip(8)");
        }
        let went = ip(&["-n", &space, "link", "set", "lo", "up"]);
        let outcome = std::thread::scope(|scope| {
            let inside = || {
                let file = std::fs::File::open(format!("/run/netns/{space}")).expect("just made");
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(file.as_fd(), network).expect("root may");
                what();
            };
            scope.spawn(inside).join()
        });
        assert!(ip(&["netns", "delete", &space]) && went);
        outcome.expect("the test passes");
    }

    fn divert(ports: &[u16]) -> Diverted {
        let card = Card::named("lo").expect("it is there");
        let queue = QueueFds::make("frames", card.index, 0).expect("root may");
        let places = ports.iter().map(|port| (*port, 0));
        let (diversion, place) =
            Diversion::make(&card, &[HOME], places, &[queue.fds()[1]]).expect("root may");
        assert_eq!(place, "behind the driver", "a loopback has none");
        assert!(diversion.is_attached().expect("ours"));
        let line = diversion.line(0).expect("mapped");
        assert!(line.is_passing(), "until a worker has emptied its sockets");
        line.pass(false);
        Diverted { diversion, queue }
    }

    /// Makes engines for tests that make several over the same sockets; what diverts lives on between them.
    fn maker() -> impl Fn(Mapped, Sockets) -> Bypass {
        let held: RefCell<Option<(Vec<u16>, Diverted)>> = RefCell::new(None);
        move |buffers, sockets: Sockets| {
            let mut held = held.borrow_mut();
            if held.as_ref().is_none_or(|(ports, _)| ports != sockets.ports()) {
                // A card takes one program at a time.
                *held = None;
                *held = Some((sockets.ports().to_vec(), divert(sockets.ports())));
            }
            let (_, diverted) = held.as_ref().expect("just made");
            Bypass::new(buffers, sockets, diverted, 0).expect("mapped")
        }
    }

    #[test]
    fn xdp_takes_datagrams_with_their_evidence() {
        apart("takes", || {
            engine_tests::takes_datagrams_with_their_evidence(maker());
            engine_tests::survives_exhaustion_and_empty_datagrams(maker(), |engine: &Bypass| {
                assert!(engine.line.given() > 2_000, "diverted, {}", engine.line.given());
                assert!(engine.line.has_stamps());
            });
            engine_tests::what_a_dead_engine_took_is_found(maker());
            engine_tests::what_is_kept_back_stays_whole(maker());
        });
    }

    /// A socket pair with all that a worker has beside it.
    struct Desk {
        memory: OwnedFd,
        sockets: Sockets,
        diverted: Diverted,
        port: u16,
        sender: UdpSocket,
    }

    impl Desk {
        const GEOMETRY: Geometry = Geometry { slot_count: 1, ring_bytes: 2 << 20 };

        fn new() -> Self {
            let pair = socket::reserve(HOME, 42_000, 43_000, 1).expect("free ports").remove(0);
            let port = pair.address.port();
            let fds = vec![pair.rtp, pair.rtcp];
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&fds[0], 64 << 20)
                .expect("root may");
            Desk {
                memory: mapped::create("buffers", Self::GEOMETRY.buffers_bytes()).expect("memfd"),
                sockets: Sockets::new(Vec::new(), fds, vec![port, port + 1], Vec::new()),
                diverted: divert(&[port, port + 1]),
                port,
                sender: UdpSocket::bind((HOME, 0)).expect("free port"),
            }
        }

        fn engine(&self) -> Bypass {
            let bytes = Self::GEOMETRY.buffers_bytes();
            let buffers = Mapped::map(self.memory.as_fd(), bytes).expect("map");
            let mut engine =
                Bypass::new(buffers, self.sockets.clone(), &self.diverted, 0).expect("mapped");
            engine.inherit();
            engine.start(|_| true).expect("armed");
            engine
        }

        fn send(&self, numbers: std::ops::Range<u32>) {
            for number in numbers {
                let sent = self.sender.send_to(&number.to_be_bytes(), (HOME, self.port));
                sent.expect("loopback");
            }
        }
    }

    fn number(buffer: &[u8]) -> u32 {
        let datagram = datagram::read(buffer).expect("whole");
        u32::from_be_bytes(*datagram.payload.first_chunk().expect("four octets"))
    }

    /// What the engine takes until nothing more comes, in order.
    fn numbers(engine: &mut Bypass) -> Vec<u32> {
        let (mut found, mut taken) = (Vec::new(), Vec::with_capacity(TURN_PACKETS_MAX));
        let mut quiet = 0;
        while quiet < 5 {
            taken.clear();
            engine.take(2, &mut taken).expect("the engine works");
            quiet = if taken.is_empty() { quiet + 1 } else { 0 };
            for buffer in taken.iter().copied() {
                found.push(engine.look(buffer, number));
                engine.clear(buffer);
                engine.offer(buffer);
            }
            engine.publish();
        }
        found
    }

    #[test]
    fn who_is_behind_has_frames_wait_in_sockets_and_then_diverted_again_in_order() {
        apart("behind", || {
            let desk = Desk::new();
            let mut engine = desk.engine();
            let many = FRAMES as u32 + 5_000;
            desk.send(0..many);
            assert!(engine.line.is_passing());
            assert!(engine.line.given() < FRAMES as u64, "{}", engine.line.given());
            assert_eq!(numbers(&mut engine), (0..many).collect::<Vec<_>>());
            assert!(!engine.line.is_passing(), "all is taken");
            let given = engine.line.given();
            desk.send(0..1_000);
            assert_eq!(numbers(&mut engine), (0..1_000).collect::<Vec<_>>());
            assert_eq!(engine.line.given(), given + 1_000);
            assert_eq!(desk.diverted.queue.drops(), Some(0));
        });
    }

    #[test]
    fn frames_that_a_dead_engine_had_in_hand_are_found_and_none_is_lost_or_copied_twice() {
        apart("leaked", || {
            let desk = Desk::new();
            // Killed between any two steps of a batch, a hundred times.
            for round in 0..100 {
                let mut dead = desk.engine();
                desk.send(0..20);
                let mut taken = Vec::with_capacity(TURN_PACKETS_MAX);
                let (first, waiting) = dead.queue.waiting();
                assert_eq!(waiting, 20);
                if round % 3 > 0 {
                    dead.copy(first, 7, &mut taken);
                }
                if round % 3 > 1 {
                    dead.queue.consume(7);
                }
                drop(dead);
                let mut next = desk.engine();
                let mut found = Vec::new();
                for buffer in FIRST..BUFFER_COUNT {
                    if next.head(buffer) != 0 {
                        found.push(next.look(buffer, number));
                        next.clear(buffer);
                        next.offer(buffer);
                    }
                }
                assert_eq!(found.len(), taken.len());
                found.extend(numbers(&mut next));
                found.sort_unstable();
                assert_eq!(found, (0..20).collect::<Vec<_>>(), "round {round}");
            }
            let mut engine = desk.engine();
            std::thread::sleep(2 * LEAKED_AFTER);
            assert!(numbers(&mut engine).is_empty());
            let mut held = vec![false; FRAMES];
            engine.queue.find(&mut held);
            assert!(held.iter().all(|one| *one), "every frame is in a ring again");
        });
    }

    #[test]
    fn what_was_taken_away_is_seen_and_put_back() {
        apart("away", || {
            let desk = Desk::new();
            let mut engine = desk.engine();
            let mut diversion = desk.diverted.diversion.try_clone().expect("descriptors");
            diversion.detach().expect("ours");
            assert!(!diversion.is_attached().expect("ours"));
            let given = engine.line.given();
            desk.send(0..10);
            assert_eq!(numbers(&mut engine), (0..10).collect::<Vec<_>>(), "by the sockets");
            assert_eq!(engine.line.given(), given);
            desk.send(0..10);
            diversion.attach_again(&Card::named("lo").expect("there")).expect("root may");
            assert!(diversion.is_attached().expect("ours"));
            desk.send(10..20);
            assert_eq!(
                numbers(&mut engine),
                (0..20).collect::<Vec<_>>(),
                "in order, by the sockets"
            );
            assert_eq!(engine.line.given(), given);
            desk.send(0..10);
            assert_eq!(numbers(&mut engine), (0..10).collect::<Vec<_>>());
            assert_eq!(engine.line.given(), given + 10);
        });
    }
}
