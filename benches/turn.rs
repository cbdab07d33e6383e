//! Nanoseconds that a worker's turn spends on a packet, the kernel's part aside: the product's worker over
//! its own shared memory and an engine that has 256 datagrams at hand each turn. And what stands alone in
//! it: reading a datagram out of its buffer, making a record of it.
//!
//! Measured around `turn`, one thread, packets of all streams in turn, as they come from thousands of
//! clients; protecting them and putting them into the buffers is not. Subjects take turns within each
//! round. Prints the median round and the spread of all rounds.
//!
//! `cargo bench --bench turn`
//!
//! `cargo bench --bench turn -- --once SUBJECT`: one round of one subject, within calls of `counted`, for
//! whoever counts instructions (`benches/instructions.sh`). Prints how many packets that are.

use std::cell::RefCell;
use std::hint::black_box;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use floortape::base::ids::{
    Generation, Index, RsId, Seq, Slot, SourceId, Ssrc, StreamId, WorkerId,
};
use floortape::base::keyring::Keyring;
use floortape::base::limits::{BUFFER_BYTES, TURN_PACKETS_MAX};
use floortape::base::ports::{Clock, Datagrams, Region};
use floortape::base::secret::MasterKey;
use floortape::base::suite::Suite;
use floortape::base::time::{ClockMap, Mono, Wall};
use floortape::host::mapped::Mapped;
use floortape::plane::handoff::datagram::{self, Datagram};
use floortape::plane::handoff::frame::{Crypto, Envelope, Frame, OpenStream, WireKey, WireKeyring};
use floortape::plane::handoff::layout::{
    self, AT_DURABLE, AT_INCARNATION, AT_SEALED, AT_TAIL, Geometry,
};
use floortape::plane::handoff::queues::Queues;
use floortape::plane::worker::{Setup, Worker};
use floortape::proto::srtp::Context;
use floortape::store::event::{Format, StreamDescription};
use floortape::store::record::{self, RecordKind, RecordMeta, record_bytes};
use floortape::wire::rtp::{Fields, Header};

const ROUNDS: usize = 15;
/// Turns in a round, of a full batch each.
const TURNS: usize = 64;
const PAYLOAD_BYTES: usize = 160;
const RING_BYTES: u64 = 64 << 20;
const SUITE: Suite = Suite::AesCm128HmacSha1_80;

/// A clock that goes on by a microsecond each time it is read: of the kernel's there is nothing to measure,
/// and who counts instructions has none.
struct Ticks;

static TICKS: AtomicU64 = AtomicU64::new(1 << 40);

impl Clock for Ticks {
    fn map(&self) -> ClockMap {
        let mono = self.mono();
        ClockMap { mono, wall: Wall(mono.0 as i64 + 1_767_225_600_000_000_000) }
    }

    fn mono(&self) -> Mono {
        Mono(TICKS.fetch_add(1_000, Ordering::Relaxed))
    }
}

/// Buffers that the bench fills and the engine hands out.
struct Buffers {
    bytes: Vec<u8>,
    filled: usize,
}

struct Ready(Rc<RefCell<Buffers>>);

impl Datagrams for Ready {
    fn name(&self) -> &'static str {
        "bench"
    }
    fn reason(&self) -> &str {
        ""
    }
    fn inherit(&mut self) {}
    fn spare(&self) -> usize {
        0
    }
    fn start(&mut self, _urgent: impl Fn(u16) -> bool) -> io::Result<()> {
        Ok(())
    }
    fn take(&mut self, _wait_ms: u64, taken: &mut Vec<u16>) -> io::Result<()> {
        let filled = std::mem::take(&mut self.0.borrow_mut().filled);
        taken.extend(0..filled as u16);
        Ok(())
    }
    fn head(&self, buffer: u16) -> u64 {
        self.look(buffer, |bytes| u64::from_ne_bytes(bytes[..8].try_into().expect("eight")))
    }
    fn clear(&mut self, buffer: u16) {
        let at = usize::from(buffer) * BUFFER_BYTES;
        self.0.borrow_mut().bytes[at..at + 8].fill(0);
    }
    fn look<R>(&self, buffer: u16, view: impl FnOnce(&[u8]) -> R) -> R {
        let at = usize::from(buffer) * BUFFER_BYTES;
        view(&self.0.borrow().bytes[at..at + BUFFER_BYTES])
    }
    #[cfg(feature = "faults")]
    fn overwrite(&mut self, _buffer: u16, _offset: usize, _bytes: &[u8]) {}
    fn offer(&mut self, _buffer: u16) {}
    fn publish(&mut self) {}
    fn drops(&self, _port: u16) -> Option<u32> {
        None
    }
    fn waits(&self, _port: u16) -> bool {
        false
    }
}

/// A worker with so many streams.
struct Floor {
    worker: Worker<Mapped, Mapped, Ready, Ticks>,
    buffers: Rc<RefCell<Buffers>>,
    state: Mapped,
    contexts: Vec<Option<Context>>,
    /// Packets of all streams that were sent so far.
    sent: u64,
}

fn port(slot: u32) -> u16 {
    10_000 + 2 * slot as u16
}

fn master(slot: u32) -> MasterKey {
    let mut key = vec![7; SUITE.master_bytes()];
    key[..4].copy_from_slice(&slot.to_be_bytes());
    MasterKey::new(&key).expect("the suite's length")
}

impl Floor {
    fn new(streams: u32, secure: bool) -> Self {
        let geometry = Geometry { slot_count: streams, ring_bytes: RING_BYTES };
        let map = |name, bytes| {
            let map = Mapped::anonymous(name, bytes).expect("memory");
            map.populate(0, bytes).expect("memory");
            map
        };
        let state = map("state", geometry.state_bytes());
        layout::initialise(&state, 0, &geometry, 0);
        state.store(AT_INCARNATION, 1);
        let bytes = vec![0; TURN_PACKETS_MAX * BUFFER_BYTES * 4];
        let buffers = Rc::new(RefCell::new(Buffers { bytes, filled: 0 }));
        let queues = Queues::default();
        let rtp_ports: Vec<u16> = (0..streams).map(port).collect();
        let mut worker = Worker::start(Setup {
            worker: WorkerId(0),
            workers: 1,
            geometry,
            rtp_ports: &rtp_ports,
            steered: &[],
            state: state.share(),
            ring: map("ring", RING_BYTES as usize),
            engine: Ready(Rc::clone(&buffers)),
            clock: Ticks,
            queues: queues.clone(),
            boot: String::new(),
        })
        .expect("our own layout");
        let contexts = (0..streams)
            .map(|slot| secure.then(|| Context::new(SUITE, &master(slot)).expect("length")))
            .collect();
        for slot in 0..streams {
            let frame = Frame::Open(Box::new(open(slot, secure)));
            assert!(queues.commands.push(Envelope { id: 1, fds: 0, frame }).is_ok());
            while queues.answers.pop().is_none_or(|answer| answer.id != 1) {
                worker.turn().expect("it works");
                let tail = state.load(AT_TAIL);
                state.store(AT_DURABLE, tail);
                state.store(AT_SEALED, tail);
            }
        }
        Floor { worker, buffers, state, contexts, sent: 0 }
    }

    /// The first packet of each stream, which admits its source.
    fn admit(&mut self) {
        for _ in 0..self.contexts.len().div_ceil(TURN_PACKETS_MAX) {
            self.fill();
            self.worker.turn().expect("it works");
            self.store();
        }
    }

    /// What the spool would do.
    fn store(&self) {
        let tail = self.state.load(AT_TAIL);
        self.state.store(AT_DURABLE, tail);
        self.state.store(AT_SEALED, tail);
    }

    /// The time of a round, without what fills the buffers.
    fn round(&mut self) -> Duration {
        let mut spent = Duration::ZERO;
        for _ in 0..TURNS {
            self.fill();
            let begin = Instant::now();
            let count = counted(|| self.worker.turn()).expect("it works");
            spent += begin.elapsed();
            assert_eq!(count, TURN_PACKETS_MAX);
            self.store();
        }
        spent
    }

    fn fill(&mut self) {
        let mut buffers = self.buffers.borrow_mut();
        let now = Ticks.map().wall;
        for place in 0..TURN_PACKETS_MAX {
            let streams = self.contexts.len() as u64;
            let (slot, number) = ((self.sent % streams) as u32, self.sent / streams);
            self.sent += 1;
            let mut wire = [0; 256];
            let length = packet(self.contexts[slot as usize].as_ref(), slot, number, &mut wire);
            let at = place * BUFFER_BYTES;
            let datagram = Datagram {
                from: ([192, 0, 2, 1], 5_004).into(),
                port: port(slot),
                stamp: Some(now),
                socket_drops: None,
                truncated: false,
                length,
                payload: &wire[..length],
            };
            datagram::write(&mut buffers.bytes[at..at + BUFFER_BYTES], &datagram);
        }
        buffers.filled = TURN_PACKETS_MAX;
    }
}

fn packet(context: Option<&Context>, slot: u32, number: u64, out: &mut [u8; 256]) -> usize {
    let mut clear = [0xd5; 12 + PAYLOAD_BYTES];
    let (seq, timestamp) = (Seq(number as u16), (number as u32).wrapping_mul(160));
    let fields = Fields { marker: false, payload_type: 0, seq, timestamp, ssrc: Ssrc(slot + 1) };
    clear[..12].copy_from_slice(&fields.emit());
    match context {
        Some(context) => context.protect_rtp(&clear, Index(number), out).expect("room"),
        None => {
            out[..clear.len()].copy_from_slice(&clear);
            clear.len()
        }
    }
}

fn open(slot: u32, secure: bool) -> OpenStream {
    OpenStream {
        slot: Slot(slot),
        generation: Generation(1),
        description: StreamDescription {
            stream: StreamId(u64::from(slot) + 1),
            rs: RsId([1; 16]),
            line: 0,
            label: None,
            media: "audio".to_owned(),
            formats: vec![Format {
                payload_type: 0,
                codec: "PCMU".to_owned(),
                clock_rate: 8_000,
                channels: 1,
                fmtp: None,
            }],
            suite: secure.then(|| SUITE.into()),
            transport: "RTP/SAVP".to_owned(),
            slot: Slot(slot),
            port: port(slot),
            remote: None,
        },
        salt: [0; 32],
        active: true,
        rtcp_to: None,
        rtcp_mux: false,
        crypto: secure.then(|| Crypto {
            suite: SUITE.into(),
            remote: WireKeyring::new(&Keyring::one(master(slot))),
            local: WireKey::new(&master(u32::MAX)),
        }),
        strict: false,
        cname: String::new(),
        nat: false,
    }
}

/// What is measured, by a name that a profiler can find.
#[inline(never)]
fn counted<T>(part: impl FnOnce() -> T) -> T {
    // Behind the call, or it would be a jump and no call.
    black_box(part())
}

/// A round of one of the small parts, as many times as a round of turns has packets.
fn parse(buffer: &[u8]) -> Duration {
    let begin = Instant::now();
    for _ in 0..TURNS * TURN_PACKETS_MAX {
        let datagram = datagram::read(black_box(buffer)).expect("whole");
        let header = Header::parse(datagram.payload).expect("whole");
        black_box((datagram.port, header.ssrc()));
    }
    begin.elapsed()
}

fn append(payload: &[u8], ring: &mut [u8]) -> Duration {
    let bytes = record_bytes(payload.len());
    let begin = Instant::now();
    for number in 0..(TURNS * TURN_PACKETS_MAX) as u64 {
        let meta = RecordMeta {
            kind: RecordKind::Rtp,
            flags: 0,
            generation: 1,
            source: SourceId::new(StreamId(number % 2_000), 1),
            index: Index(number),
            arrival: Mono(number),
        };
        let at = number as usize * bytes % (ring.len() - bytes) / 8 * 8;
        let out = &mut ring[at..at + bytes];
        out[record::HEADER_BYTES..record::HEADER_BYTES + payload.len()].copy_from_slice(payload);
        record::seal_in_place(&meta, payload.len(), out);
    }
    let spent = begin.elapsed();
    black_box(&ring[0]);
    spent
}

fn spread(rounds: &mut [Duration]) -> String {
    rounds.sort();
    let packets = (TURNS * TURN_PACKETS_MAX) as f64;
    let at = |place: usize| rounds[place].as_nanos() as f64 / packets;
    format!("{:6.0}   {:.0} .. {:.0}", at(rounds.len() / 2), at(0), at(rounds.len() - 1))
}

/// One round of one subject.
fn once(subject: &str, buffer: &[u8], payload: &[u8], ring: &mut [u8]) {
    let floor = match subject {
        "turn-srtp" => Some(Floor::new(100, true)),
        "turn-rtp" => Some(Floor::new(100, false)),
        _ => None,
    };
    match (floor, subject) {
        (Some(mut floor), _) => {
            floor.admit();
            floor.round();
        }
        (None, "parse") => {
            counted(|| parse(buffer));
        }
        (None, "append") => {
            counted(|| append(payload, ring));
        }
        _ => panic!("no such subject: turn-srtp, turn-rtp, parse, append"),
    }
    println!("{}", TURNS * TURN_PACKETS_MAX);
}

fn main() {
    let mut ring = vec![0; 8 << 20];
    let mut wire = [0; 256];
    let length = packet(None, 1, 1, &mut wire);
    let mut buffer = vec![0; BUFFER_BYTES];
    let datagram = Datagram {
        from: ([192, 0, 2, 1], 5_004).into(),
        port: port(1),
        stamp: Some(Ticks.map().wall),
        socket_drops: None,
        truncated: false,
        length,
        payload: &wire[..length],
    };
    datagram::write(&mut buffer, &datagram);
    let mut words = std::env::args().skip_while(|word| word != "--once").skip(1);
    if let Some(subject) = words.next() {
        return once(&subject, &buffer, &wire[..length], &mut ring);
    }
    let mut floors = [
        ("turn, 2,000 SRTP streams", Floor::new(2_000, true)),
        ("turn, 100 SRTP streams", Floor::new(100, true)),
        ("turn, 2,000 RTP streams", Floor::new(2_000, false)),
        ("turn, 100 RTP streams", Floor::new(100, false)),
    ];
    let mut found: Vec<Vec<Duration>> = vec![Vec::new(); floors.len() + 2];
    for (_, floor) in &mut floors {
        floor.admit();
    }
    for _ in 0..ROUNDS {
        for (place, (_, floor)) in floors.iter_mut().enumerate() {
            found[place].push(floor.round());
        }
        found[floors.len()].push(parse(&buffer));
        found[floors.len() + 1].push(append(&wire[..length], &mut ring));
    }
    println!(
        "{ROUNDS} rounds of {} packets, {PAYLOAD_BYTES} octets of payload; ns a packet",
        TURNS * TURN_PACKETS_MAX
    );
    println!("{:28} median   min .. max", "");
    let names = floors.iter().map(|(name, _)| *name).chain(["parse", "append with CRC-32C"]);
    for (name, rounds) in names.zip(&mut found) {
        println!("{name:28} {}", spread(rounds));
    }
}
