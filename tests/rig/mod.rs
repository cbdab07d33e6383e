//! A worker with real sockets, real shared memory and a real engine, without keeper or control.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use floortape::base::ids::{Generation, Index, RsId, Seq, Slot, Ssrc, StreamId, WorkerId};
use floortape::base::keyring::Keyring;
use floortape::base::ports::Region;
use floortape::base::secret::MasterKey;
use floortape::base::suite::Suite;
use floortape::config::model;
use floortape::host::bpf::{self, Block, Steering};
use floortape::host::bypass::Diverted;
use floortape::host::clock::SystemClock;
use floortape::host::engine::Engine;
use floortape::host::mapped::{self, Mapped};
use floortape::host::socket;
use floortape::host::sockets::{Sockets, share};
use floortape::host::xdp::{Card, Diversion};
use floortape::host::xsk::QueueFds;
use floortape::plane::handoff::frame::{Crypto, Envelope, Frame, OpenStream, WireKey, WireKeyring};
use floortape::plane::handoff::layout::{self, AT_INCARNATION, AT_TAIL, Geometry};
use floortape::plane::handoff::queues::Queues;
use floortape::plane::worker::{Setup, Worker};
use floortape::proto::srtp::Context;
use floortape::store::event::{Format, StreamDescription};
use floortape::store::record::{self, HEADER_BYTES, RecordKind, RecordMeta};
use floortape::wire::rtp::Fields;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) const SUITE: Suite = Suite::AesCm128HmacSha1_80;
const RING_BYTES: u64 = 32 << 20;

pub(crate) type RealWorker = Worker<Mapped, Mapped, Engine, SystemClock>;

pub(crate) struct Rig {
    geometry: Geometry,
    memories: [OwnedFd; 3],
    sockets: Sockets,
    _steering: Option<Steering>,
    diverted: Option<Diverted>,
    pub(crate) rtp_ports: Vec<u16>,
    pub(crate) queues: Queues,
    pub(crate) state: Mapped,
    ring: Mapped,
    pub(crate) sender: UdpSocket,
}

impl Rig {
    /// As `serve` makes it where it may: all ports steered to few sockets. Without the privilege each port
    /// has its own.
    pub(crate) fn steered(slots: u32, port_first: u16) -> Self {
        Self::make(slots, port_first, bpf::permitted().is_ok(), false)
    }

    pub(crate) fn new(slots: u32, port_first: u16) -> Self {
        Self::make(slots, port_first, false, false)
    }

    /// Frames are diverted at the loopback, which should be one [`apart`].
    pub(crate) fn diverted(slots: u32, port_first: u16) -> Self {
        Self::make(slots, port_first, true, true)
    }

    fn make(slots: u32, port_first: u16, steered: bool, diverted: bool) -> Self {
        let geometry = Geometry { slot_count: slots, ring_bytes: RING_BYTES };
        let home = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let pairs = socket::reserve(home, port_first, port_first + 999, slots as usize)
            .expect("loopback binds");
        assert_eq!(pairs.len(), slots as usize, "enough free ports");
        let rtp_ports: Vec<u16> = pairs.iter().map(|pair| pair.address.port()).collect();
        let ports = rtp_ports.iter().flat_map(|port| [*port, *port + 1]).collect();
        let (mut steering, mut shared, mut places) = (None, Vec::new(), Vec::new());
        if steered {
            let (slots, families) = share(pairs.iter().map(|pair| pair.address.ip()));
            let bind = |family| socket::bind_shared(family, 32 << 20).expect("a socket");
            shared = families.into_iter().map(bind).collect::<Vec<OwnedFd>>();
            let named = rtp_ports.iter().zip(&slots).flat_map(|(port, slot)| {
                [*port, *port + 1].map(|port| (port, shared[usize::from(*slot)].as_fd()))
            });
            let block = Block { ip: home, first: port_first, last: port_first + 999 };
            steering = Some(Steering::make(&[block], named).expect("permitted"));
            places = slots;
            for pair in &pairs {
                socket::stop_telling_drops(pair.rtp.as_fd()).expect("an option");
                socket::stop_telling_drops(pair.rtcp.as_fd()).expect("an option");
            }
        }
        let diverted = diverted.then(|| {
            let card = Card::named("lo").expect("it is there");
            let queue = QueueFds::make("frames", card.index, 0).expect("root may");
            let places = rtp_ports.iter().flat_map(|port| [(*port, 0), (*port + 1, 0)]);
            let made = Diversion::make(&card, &[home], places, &[queue.fds()[1]]);
            Diverted { diversion: made.expect("root may").0, queue }
        });
        let pairs: Vec<OwnedFd> =
            pairs.into_iter().flat_map(|pair| [pair.rtp, pair.rtcp]).collect();
        let sockets = Sockets::new(shared, pairs, ports, places);
        let sizes = [geometry.state_bytes(), geometry.buffers_bytes(), RING_BYTES as usize];
        let memories = sizes.map(|bytes| mapped::create("rig", bytes).expect("memfd"));
        let state = Mapped::map(memories[0].as_fd(), sizes[0]).expect("map");
        let ring = Mapped::map(memories[2].as_fd(), sizes[2]).expect("map");
        layout::initialise(&state, 0, &geometry, 0);
        Rig {
            geometry,
            memories,
            sockets,
            _steering: steering,
            diverted,
            rtp_ports,
            queues: Queues::default(),
            state,
            ring,
            sender: UdpSocket::bind((home, 0)).expect("a free port"),
        }
    }

    /// The next incarnation over the same memory and sockets.
    pub(crate) fn worker(&self, engine: model::Engine) -> RealWorker {
        self.state.store(AT_INCARNATION, self.state.load(AT_INCARNATION) + 1);
        let map = |place: usize, bytes: usize| {
            let map = Mapped::map(self.memories[place].as_fd(), bytes).expect("map");
            map.populate(0, bytes).expect("populate");
            map
        };
        let engine = Engine::choose(
            engine,
            (self.memories[1].as_fd(), self.geometry.buffers_bytes()),
            self.sockets.clone(),
            self.diverted.as_ref().map(|diverted| (diverted, 0)),
        )
        .expect("the engine is permitted");
        Worker::start(Setup {
            worker: WorkerId(0),
            workers: 1,
            geometry: self.geometry,
            rtp_ports: &self.rtp_ports,
            steered: self.sockets.steered(),
            state: map(0, self.geometry.state_bytes()),
            ring: map(2, RING_BYTES as usize),
            engine,
            clock: SystemClock,
            queues: self.queues.clone(),
            boot: String::new(),
        })
        .expect("our own layout")
    }

    /// Opens a slot; `fill`: SRTP under the key made of that byte.
    pub(crate) fn open(&self, worker: &mut RealWorker, slot: u32, fill: Option<u8>) {
        let stream = OpenStream {
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
                suite: fill.map(|_| SUITE.into()),
                transport: "RTP/AVP".to_owned(),
                slot: Slot(slot),
                port: self.rtp_ports[slot as usize],
                remote: None,
            },
            salt: [0; 32],
            active: true,
            rtcp_to: None,
            rtcp_mux: false,
            crypto: fill.map(|fill| Crypto {
                suite: SUITE.into(),
                remote: WireKeyring::new(&Keyring::one(master(fill))),
                local: WireKey::new(&master(0xee)),
            }),
            strict: false,
            cname: String::new(),
            nat: false,
        };
        let envelope = Envelope { id: 1, fds: 0, frame: Frame::Open(Box::new(stream)) };
        assert!(self.queues.commands.push(envelope).is_ok());
        for _ in 0..100 {
            worker.turn().expect("the engine works");
            while let Some(answer) = self.queues.answers.pop() {
                if answer.id == 1 {
                    assert!(matches!(answer.frame, Frame::Opened { .. }), "opened");
                    return;
                }
            }
        }
        panic!("no answer to open");
    }

    /// All RTP records up to the tail.
    pub(crate) fn packets(&self) -> Vec<(RecordMeta, Vec<u8>)> {
        let (mut at, tail) = (0, self.state.load(AT_TAIL) as usize);
        let mut bytes = vec![0; tail];
        self.ring.copy_out(0, &mut bytes);
        let mut found = Vec::new();
        while at + HEADER_BYTES <= tail {
            let record = record::read(&bytes[at..]).expect("whole below the tail");
            at += record.raw.len();
            if record.meta.kind == RecordKind::Rtp {
                found.push((record.meta, record.payload.to_vec()));
            }
        }
        found
    }
}

/// Runs `what` in a network namespace that has nothing but a loopback of its own. Needs root and `ip`; says so
/// where it cannot.
pub(crate) fn apart(name: &str, what: impl FnOnce() + Send) {
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

pub(crate) fn master(fill: u8) -> MasterKey {
    MasterKey::new(&vec![fill; SUITE.master_bytes()]).expect("the suite's length")
}

/// Writes a G.711 packet whose payload begins with its number, protected where there is a context;
/// its length.
pub(crate) fn packet(
    context: Option<&Context>,
    ssrc: u32,
    number: u64,
    out: &mut [u8; 256],
) -> usize {
    let mut clear = [0x55; 172];
    let index = Index(number);
    let fields = Fields {
        marker: false,
        payload_type: 0,
        seq: Seq(number as u16),
        timestamp: (number as u32).wrapping_mul(160),
        ssrc: Ssrc(ssrc),
    };
    clear[..12].copy_from_slice(&fields.emit());
    clear[12..20].copy_from_slice(&number.to_be_bytes());
    match context {
        Some(context) => context.protect_rtp(&clear, index, out).expect("256 octets suffice"),
        None => {
            out[..172].copy_from_slice(&clear);
            172
        }
    }
}
