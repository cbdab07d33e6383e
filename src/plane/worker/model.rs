//! A machine in miniature for the worker's tests: shared memory whose stores stop at a chosen
//! instant, a kernel that fills receive buffers, and a sender. Nothing here waits.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use super::turn::{Setup, StartError, Worker};
use crate::base::ids::{Generation, RsId, Slot, StreamId, WorkerId};
use crate::base::keyring::Keyring;
use crate::base::limits::{BUFFER_BYTES, BUFFER_COUNT, QUARANTINE_PACKETS, TURN_PACKETS_MAX};
use crate::base::ports::{Clock, Datagrams, Region, WritableRegion};
use crate::base::secret::MasterKey;
use crate::base::suite::Suite;
use crate::base::time::{ClockMap, Mono, Wall};
use crate::plane::handoff::datagram::{self, Datagram};
use crate::plane::handoff::frame::{Crypto, Envelope, Frame, OpenStream, WireKey, WireKeyring};
use crate::plane::handoff::layout::{
    self, AT_DURABLE, AT_INCARNATION, AT_SEALED, AT_TAIL, Geometry,
};
use crate::plane::handoff::queues::Queues;
use crate::store::event::{Event, Format, StreamDescription};
use crate::store::record::{self, HEADER_BYTES, RecordKind, RecordMeta};
use crate::wire::rtp::Fields;

/// Small enough for thousands of runs, wide enough for every test's slots.
pub(super) const GEOMETRY: Geometry = Geometry { slot_count: 4, ring_bytes: 2 << 20 };
pub(super) const RTP_PORTS: [u16; 4] = [20_000, 20_002, 20_004, 20_006];
/// Monotonic 0 is this wall time at first.
const EPOCH: i64 = 1_767_225_600_000_000_000;

/// What a poisonous payload ends with.
pub(super) const POISON: &[u8] = b"poison!";

/// Stores left before the process dies; all memories of one machine share it.
pub(super) type Life = Rc<Cell<u64>>;

/// Memory that outlives its user. A store by a dead one is lost.
#[derive(Clone)]
pub(super) struct Memory {
    bytes: Rc<RefCell<Vec<u8>>>,
    life: Life,
    bomb: Bomb,
}

/// Stores left before a store panics; `u64::MAX`: none does.
pub(super) type Bomb = Rc<Cell<u64>>;

impl Memory {
    fn new(bytes: usize, life: &Life, bomb: &Bomb) -> Self {
        let bytes = Rc::new(RefCell::new(vec![0; bytes]));
        Memory { bytes, life: life.clone(), bomb: bomb.clone() }
    }

    fn live(&self) -> bool {
        match self.bomb.get() {
            u64::MAX => {}
            0 => {
                self.bomb.set(u64::MAX);
                panic!("the bomb");
            }
            stores => self.bomb.set(stores - 1),
        }
        let left = self.life.get();
        self.life.set(left.saturating_sub(1));
        left > 0
    }
}

impl Region for Memory {
    fn bytes(&self) -> usize {
        self.bytes.borrow().len()
    }

    fn load(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8));
        let bytes = self.bytes.borrow();
        u64::from_ne_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
    }

    fn store(&self, offset: usize, value: u64) {
        assert!(offset.is_multiple_of(8));
        if self.live() {
            self.bytes.borrow_mut()[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        }
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        // A copy is many stores: it may be cut in the middle.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for (at, part) in [(offset, first), (offset + first.len(), second)] {
            if self.live() {
                self.bytes.borrow_mut()[at..at + part.len()].copy_from_slice(part);
            }
        }
    }

    fn copy_out(&self, offset: usize, out: &mut [u8]) {
        out.copy_from_slice(&self.bytes.borrow()[offset..offset + out.len()]);
    }
}

impl WritableRegion for Memory {
    fn with_mut<R>(
        &mut self,
        offset: usize,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let mut copy = self.bytes.borrow()[offset..offset + length].to_vec();
        let result = fill(&mut copy);
        self.copy_in(offset, &copy);
        result
    }
}

/// What the sockets hold: outlives every process.
pub(super) type Network = Rc<RefCell<VecDeque<Sent>>>;

/// One datagram on its way.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) from: &'static str,
    pub(super) port: u16,
    pub(super) stamp: Wall,
    pub(super) socket_drops: Option<u32>,
    pub(super) payload: Vec<u8>,
}

/// A kernel that fills free buffers from the network, for a process that lives.
pub(super) struct FakeEngine {
    buffers: Memory,
    network: Network,
    free: VecDeque<u16>,
    poison: Rc<Cell<Option<u64>>>,
}

impl Datagrams for FakeEngine {
    fn name(&self) -> &'static str {
        "model"
    }

    fn reason(&self) -> &str {
        "a test"
    }

    fn inherit(&mut self) {}

    fn spare(&self) -> usize {
        QUARANTINE_PACKETS
    }

    fn start(&mut self, _urgent: impl Fn(u16) -> bool) -> io::Result<()> {
        self.free = (0..BUFFER_COUNT).filter(|buffer| self.head(*buffer) == 0).collect();
        Ok(())
    }

    fn take(&mut self, _wait_ms: u64, taken: &mut Vec<u16>) -> io::Result<()> {
        while taken.len() < TURN_PACKETS_MAX {
            // A dead process makes no system call, so nothing leaves the sockets.
            if self.buffers.life.get() == 0 {
                break;
            }
            let Some(buffer) = self.free.pop_front() else { break };
            let Some(sent) = self.network.borrow_mut().pop_front() else {
                self.free.push_front(buffer);
                break;
            };
            let at = usize::from(buffer) * BUFFER_BYTES;
            let mut memory = self.buffers.bytes.borrow_mut();
            let out = &mut memory[at..at + BUFFER_BYTES];
            assert_eq!(out[..8], [0; 8], "a buffer is cleared before it is offered");
            datagram::write(
                out,
                &Datagram {
                    from: sent.from.parse().expect("address"),
                    port: sent.port,
                    stamp: Some(sent.stamp),
                    socket_drops: sent.socket_drops,
                    truncated: false,
                    length: sent.payload.len(),
                    payload: &sent.payload,
                },
            );
            taken.push(buffer);
        }
        Ok(())
    }

    fn head(&self, buffer: u16) -> u64 {
        self.buffers.load(usize::from(buffer) * BUFFER_BYTES)
    }

    fn clear(&mut self, buffer: u16) {
        self.buffers.store(usize::from(buffer) * BUFFER_BYTES, 0);
    }

    fn look<R>(&self, buffer: u16, view: impl FnOnce(&[u8]) -> R) -> R {
        let at = usize::from(buffer) * BUFFER_BYTES;
        let copy = self.buffers.bytes.borrow()[at..at + BUFFER_BYTES].to_vec();
        let payload = datagram::read(&copy).map_or(&[][..], |datagram| datagram.payload);
        // A poisonous datagram panics at some store while it is looked at, each time anew.
        let fuse = self.poison.get().filter(|_| payload.ends_with(POISON));
        if let Some(stores) = fuse {
            self.buffers.bomb.set(stores);
        }
        let result = view(&copy);
        if fuse.is_some() {
            self.buffers.bomb.set(u64::MAX);
        }
        result
    }

    #[cfg(feature = "faults")]
    fn overwrite(&mut self, buffer: u16, offset: usize, bytes: &[u8]) {
        self.buffers.copy_in(usize::from(buffer) * BUFFER_BYTES + offset, bytes);
    }

    fn offer(&mut self, buffer: u16) {
        self.free.push_back(buffer);
    }

    fn publish(&mut self) {}

    fn drops(&self, _port: u16) -> Option<u32> {
        None
    }

    fn waits(&self, port: u16) -> bool {
        self.network.borrow().iter().any(|sent| sent.port == port)
    }
}

/// A clock that stands still until it is moved, and a wall clock that may be set.
#[derive(Clone)]
pub(super) struct FakeClock {
    mono: Rc<Cell<u64>>,
    /// Wall time at monotonic 0.
    epoch: Rc<Cell<i64>>,
}

impl FakeClock {
    fn new(mono: u64, epoch: i64) -> Self {
        FakeClock { mono: Rc::new(Cell::new(mono)), epoch: Rc::new(Cell::new(epoch)) }
    }
}

impl Clock for FakeClock {
    fn mono(&self) -> Mono {
        Mono(self.mono.get())
    }

    fn map(&self) -> ClockMap {
        ClockMap { mono: self.mono(), wall: Wall(self.epoch.get() + self.mono.get() as i64) }
    }
}

pub(super) type TestWorker = Worker<Memory, Memory, FakeEngine, FakeClock>;

/// Everything that outlives a worker.
pub(super) struct Machine {
    pub(super) life: Life,
    pub(super) state: Memory,
    buffers: Memory,
    ring: Memory,
    pub(super) network: Network,
    pub(super) bomb: Bomb,
    /// At which store, counted while it is looked at, a poisonous datagram panics.
    pub(super) poison: Rc<Cell<Option<u64>>>,
    clock: FakeClock,
    pub(super) queues: Queues,
    next_id: u64,
}

/// A record in the ring, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) meta: RecordMeta,
    pub(super) payload: Vec<u8>,
}

impl Kept {
    pub(super) fn event(&self) -> Option<Event> {
        (self.meta.kind == RecordKind::Event)
            .then(|| Event::from_payload(&self.payload).expect("an event of ours"))
    }
}

impl Machine {
    /// Fresh memory; records begin at `first`, so that a test may start next to the ring's end.
    pub(super) fn new(first: u64) -> Self {
        let life = Rc::new(Cell::new(u64::MAX));
        let bomb = Rc::new(Cell::new(u64::MAX));
        let state = Memory::new(GEOMETRY.state_bytes(), &life, &bomb);
        layout::initialise(&state, 0, &GEOMETRY, first);
        Machine {
            state,
            buffers: Memory::new(GEOMETRY.buffers_bytes(), &life, &bomb),
            ring: Memory::new(GEOMETRY.ring_bytes as usize, &life, &bomb),
            network: Network::default(),
            bomb,
            poison: Rc::default(),
            clock: FakeClock::new(5_000_000_000, EPOCH),
            queues: Queues::default(),
            next_id: 1,
            life,
        }
    }

    /// Reaps what was, starts the next incarnation.
    pub(super) fn start(&self) -> TestWorker {
        self.life.set(u64::MAX);
        self.try_start()
    }

    /// As [`Self::start`], under the life that is left.
    pub(super) fn try_start(&self) -> TestWorker {
        self.go().expect("the layout is ours")
    }

    /// As [`Self::try_start`], where the start itself may fail.
    pub(super) fn go(&self) -> Result<TestWorker, StartError> {
        self.state.store(AT_INCARNATION, self.state.load(AT_INCARNATION) + 1);
        Worker::start(Setup {
            worker: WorkerId(0),
            workers: 1,
            geometry: GEOMETRY,
            rtp_ports: &RTP_PORTS,
            steered: &[],
            state: self.state.clone(),
            ring: self.ring.clone(),
            engine: FakeEngine {
                buffers: self.buffers.clone(),
                network: self.network.clone(),
                free: VecDeque::new(),
                poison: self.poison.clone(),
            },
            clock: self.clock.clone(),
            queues: self.queues.clone(),
            boot: "boot".to_owned(),
        })
    }

    /// A copy of everything shared, with its own life: the same instant, to be killed differently.
    pub(super) fn fork(&self) -> Self {
        let life = Rc::new(Cell::new(u64::MAX));
        let bomb = Rc::new(Cell::new(u64::MAX));
        let copy = |memory: &Memory| Memory {
            bomb: bomb.clone(),
            bytes: Rc::new(RefCell::new(memory.bytes.borrow().clone())),
            life: life.clone(),
        };
        Machine {
            state: copy(&self.state),
            buffers: copy(&self.buffers),
            ring: copy(&self.ring),
            network: Rc::new(RefCell::new(self.network.borrow().clone())),
            bomb,
            poison: Rc::new(Cell::new(self.poison.get())),
            clock: FakeClock::new(self.clock.mono.get(), self.clock.epoch.get()),
            queues: Queues::default(),
            next_id: self.next_id,
            life,
        }
    }

    pub(super) fn pass_ns(&self, ns: u64) {
        self.clock.mono.set(self.clock.mono.get() + ns);
    }

    pub(super) fn now(&self) -> ClockMap {
        self.clock.map()
    }

    /// Somebody sets the wall clock by so much.
    pub(super) fn step_wall_ns(&self, ns: i64) {
        self.clock.epoch.set(self.clock.epoch.get() + ns);
    }

    /// Sends a datagram now.
    pub(super) fn send(&self, from: &'static str, port: u16, payload: Vec<u8>) {
        // Kernel stamps differ: the clock moves a little with each.
        self.pass_ns(1_000);
        let stamp = self.clock.map().wall;
        self.network.borrow_mut().push_back(Sent {
            from,
            port,
            stamp,
            socket_drops: None,
            payload,
        });
    }

    /// Queues a command and returns its id.
    pub(super) fn command(&mut self, frame: Frame) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        assert!(self.queues.commands.push(Envelope { id, fds: 0, frame }).is_ok());
        id
    }

    /// Takes the answer with that id; notices before it are dropped.
    pub(super) fn answer(&self, id: u64) -> Frame {
        while let Some(envelope) = self.queues.answers.pop() {
            if envelope.id == id {
                return envelope.frame;
            }
        }
        panic!("no answer to request {id}");
    }

    /// All records between `first` and the committed tail, pads left out.
    pub(super) fn records(&self, first: u64) -> Vec<Kept> {
        let (mut at, tail) = (first, self.state.load(AT_TAIL));
        let ring = self.ring.bytes.borrow();
        let mut kept = Vec::new();
        while at < tail {
            let place = (at % GEOMETRY.ring_bytes) as usize;
            let rest = &ring[place..];
            if rest.len() < HEADER_BYTES {
                at += rest.len() as u64;
                continue;
            }
            let record = record::read(rest).expect("whole below the tail");
            at += record.raw.len() as u64;
            if record.meta.kind != RecordKind::Pad {
                kept.push(Kept { meta: record.meta, payload: record.payload.to_vec() });
            }
        }
        assert_eq!(at, tail, "records end at the tail");
        kept
    }

    /// The spool wrote and sealed everything.
    pub(super) fn spool_all(&self) {
        let tail = self.state.load(AT_TAIL);
        self.state.store(AT_DURABLE, tail);
        self.state.store(AT_SEALED, tail);
    }
}

pub(super) const REMOTE: &str = "10.0.0.1:5004";

/// A test key.
pub(super) fn master(suite: Suite, fill: u8) -> MasterKey {
    MasterKey::new(&vec![fill; suite.master_bytes()]).expect("the suite's length")
}

/// What opens slot number `slot`; `key`: SRTP under it.
pub(super) fn stream(slot: u32, generation: u32, key: Option<(Suite, u8)>) -> Box<OpenStream> {
    Box::new(OpenStream {
        slot: Slot(slot),
        generation: Generation(generation),
        description: StreamDescription {
            stream: StreamId(u64::from(slot) * 100 + u64::from(generation)),
            rs: RsId([7; 16]),
            line: 0,
            label: Some("1".to_owned()),
            media: "audio".to_owned(),
            formats: vec![Format {
                payload_type: 0,
                codec: "PCMU".to_owned(),
                clock_rate: 8_000,
                channels: 1,
                fmtp: None,
            }],
            suite: key.map(|(suite, _)| suite.into()),
            transport: "RTP/SAVP".to_owned(),
            slot: Slot(slot),
            port: RTP_PORTS[slot as usize],
            remote: Some(REMOTE.parse().expect("address")),
        },
        salt: [0; 32],
        active: true,
        rtcp_to: None,
        rtcp_mux: false,
        crypto: key.map(|(suite, fill)| Crypto {
            suite: suite.into(),
            remote: WireKeyring::new(&Keyring::one(master(suite, fill))),
            local: WireKey::new(&master(suite, 0xee)),
        }),
        strict: false,
        cname: "cname".to_owned(),
        nat: false,
    })
}

/// A plain RTP packet whose payload names it.
pub(super) fn rtp(ssrc: u32, seq: u16) -> Vec<u8> {
    let fields = Fields {
        marker: false,
        payload_type: 0,
        seq: crate::base::ids::Seq(seq),
        timestamp: u32::from(seq) * 160,
        ssrc: crate::base::ids::Ssrc(ssrc),
    };
    let mut packet = fields.emit().to_vec();
    packet.extend_from_slice(&[seq as u8; 20]);
    packet
}
