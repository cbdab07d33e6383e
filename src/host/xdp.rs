//! Diverts the frames of our ports to AF_XDP sockets ([`super::xsk`]): a program at the card (XDP, Linux
//! 5.9) that knows our addresses, our ports and which worker's they are. What is left of the kernel's way
//! is its driver: no socket buffer is made, no route or socket is looked for.
//!
//! Diverted is what is plain: UDP over IPv4 or IPv6 to one of our addresses and to the card's own, without
//! tags, options, extension headers or fragments, on the queue that the worker's socket is bound to. All
//! else goes on to the kernel and so to the ports' own sockets, as does everything once a worker is behind:
//! when its queue is nearly full the program passes frames on, which wait in sockets with far more room,
//! until the worker has emptied both and says so ([`Line`]).
//!
//! Needs CAP_BPF and CAP_NET_ADMIN, and CAP_NET_RAW for the sockets.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::bpf::{
    ADD_K, Attr, CALL, EXIT, JUMP, JUMP_EQ_K, JUMP_GT_K, JUMP_NE_K, JUMP32_NE_K, LINK_CREATE,
    LOAD_IMM, LOAD_WORD, MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MOV_K, MOV_X, OBJ_GET_INFO, PROG_LOAD,
    R0, R1, R2, R3, R6, R7, R10, STORE_WORD, bpf, bpf_no_fd, insn, words,
};
use super::mapped::Mapped;
use crate::base::ports::Region;

/// Workers that a program tells apart: as many as a configuration may have.
const WORKERS_MAX: usize = 256;
/// What a worker shares with the program, on two cache lines: each writes one.
const LINE_BYTES: usize = 128;
/// Frames of one worker's queue (kill protocol §4): 32 MiB.
pub const FRAMES: usize = 16_384;
/// With so many on their way to a worker the program passes on what comes. The rest is for those that are
/// given and not in its ring yet, which are one poll's.
const GIVEN_MAX: i32 = FRAMES as i32 - 1_024;
/// The longest frame that is diverted: a frame of the queue holds 256 octets of the driver's first.
const FRAME_BYTES_MAX: i32 = 1_792;
/// What the program writes before a frame: its arrival, ns of CLOCK_MONOTONIC.
pub const STAMP_BYTES: usize = 8;

/// BPF_MAP_TYPE_ARRAY and _XSKMAP.
const ARRAY: u32 = 2;
const XSKMAP: u32 = 17;
/// BPF_F_MMAPABLE.
const MMAPABLE: u32 = 1 << 10;
/// BPF_PROG_TYPE_XDP.
const XDP: u32 = 6;
/// The attach type of the same name.
const AT_XDP: u32 = 37;
/// XDP_FLAGS_DRV_MODE and _SKB_MODE: in the driver, or behind it where that has no place for it.
const MODES: [(u32, &str); 2] = [(1 << 2, "in the driver"), (1 << 1, "behind the driver")];

/// A card as the program must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Index of the interface.
    pub index: u32,
    /// Its own Ethernet address.
    pub address: [u8; 6],
}

impl Card {
    /// The interface of that name. `NotFound`: there is none in this network namespace.
    pub fn named(name: &str) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let any = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        let index = rustix::net::netdevice::name_to_index(&any, name).map_err(|error| {
            let why = format!("no interface {name}: {error}");
            io::Error::new(io::ErrorKind::NotFound, why)
        })?;
        Ok(Card { index, address: super::socket::hardware_address(any.as_fd(), name)? })
    }
}

/// The program at a card, for as long as somebody holds its link.
#[derive(Debug)]
pub struct Diversion {
    link: OwnedFd,
    program: OwnedFd,
    /// The words that it shares with the workers ([`Line`]).
    words: OwnedFd,
}

impl Diversion {
    /// Diverts each port of `ports` to a worker (number below [`WORKERS_MAX`]), of which number n receives
    /// by `sockets[n]`, bound to queue n of the card. `addresses`: ours, none of them unspecified. The
    /// sockets must have been given their frames. Says where the program stands.
    pub fn make(
        card: &Card,
        addresses: &[IpAddr],
        ports: impl Iterator<Item = (u16, u16)>,
        sockets: &[BorrowedFd<'_>],
    ) -> io::Result<(Self, &'static str)> {
        assert!(sockets.len() <= WORKERS_MAX, "a configuration has no more");
        let places = bpf(MAP_CREATE, &words([ARRAY, 4, 4, 1 << 16]))?;
        for (port, worker) in ports {
            update(places.as_fd(), port.into(), u32::from(worker) + 1)?;
        }
        let queues = bpf(MAP_CREATE, &words([XSKMAP, 4, 4, WORKERS_MAX as u32]))?;
        for (worker, socket) in sockets.iter().enumerate() {
            update(queues.as_fd(), worker as u32, socket.as_raw_fd() as u32)?;
        }
        let shared =
            bpf(MAP_CREATE, &words([ARRAY, 4, (WORKERS_MAX * LINE_BYTES) as u32, 1, MMAPABLE]))?;
        let maps = [places.as_fd(), queues.as_fd(), shared.as_fd()];
        let program = load(&program(card, addresses, maps))?;
        pass_all(shared.as_fd())?;
        let (link, place) = attach(program.as_fd(), card)?;
        Ok((Diversion { link, program, words: shared }, place))
    }

    /// Takes over what another process held.
    pub fn held([link, program, words]: [OwnedFd; 3]) -> Self {
        Diversion { link, program, words }
    }

    /// Link, program and words, for whoever is to hold them as well.
    pub fn fds(&self) -> [BorrowedFd<'_>; 3] {
        [self.link.as_fd(), self.program.as_fd(), self.words.as_fd()]
    }

    /// Another handle of the same.
    pub fn try_clone(&self) -> io::Result<Self> {
        let (link, program) = (self.link.try_clone()?, self.program.try_clone()?);
        Ok(Diversion { link, program, words: self.words.try_clone()? })
    }

    /// Whether the program still stands at a card: an administrator can take it away, and so does the end
    /// of the interface.
    pub fn is_attached(&self) -> io::Result<bool> {
        // struct bpf_link_info: type, id, program, padding, then the interface; 0 once detached.
        let mut info = [0_u32; 12];
        let mut ask = words([self.link.as_raw_fd() as u32, size_of_val(&info) as u32]);
        ask.set_address(8, info.as_mut_ptr().expose_provenance());
        bpf_no_fd(OBJ_GET_INFO, &ask)?;
        Ok(info[4] != 0)
    }

    /// Puts the program back to the card under a link of its own.
    pub fn attach_again(&mut self, card: &Card) -> io::Result<()> {
        pass_all(self.words.as_fd())?;
        self.link = attach(self.program.as_fd(), card)?.0;
        Ok(())
    }

    /// As an administrator takes it away.
    #[cfg(test)]
    pub(super) fn detach(&self) -> io::Result<()> {
        // BPF_LINK_DETACH.
        bpf_no_fd(34, &words([self.link.as_raw_fd() as u32]))
    }

    /// What `worker` shares with the program.
    pub fn line(&self, worker: u16) -> io::Result<Line> {
        Ok(Line { words: mapped(self.words.as_fd())?, at: usize::from(worker) * LINE_BYTES })
    }
}

/// Words that a worker shares with the program. By them the program knows how far behind the worker is.
pub struct Line {
    words: Mapped,
    at: usize,
}

/// Frames given to the worker so far; the program's.
const AT_GIVEN: usize = 0;
/// Not 0: frames are passed on. Set by the program, cleared by the worker.
const AT_PASSING: usize = 8;
/// Not 0: this driver has no room for a stamp. The program's.
const AT_UNSTAMPED: usize = 16;
/// How many of those that were given the worker is done with; the worker's.
const AT_TAKEN: usize = 64;

impl Line {
    /// Frames given so far.
    pub fn given(&self) -> u64 {
        self.words.load(self.at + AT_GIVEN)
    }

    /// Says that all but `waiting` of those `given` are taken.
    pub fn set_waiting(&self, given: u64, waiting: u32) {
        self.words.store(self.at + AT_TAKEN, given.saturating_sub(waiting.into()));
    }

    /// Whether frames are passed on to the kernel.
    pub fn is_passing(&self) -> bool {
        self.words.load(self.at + AT_PASSING) != 0
    }

    /// Has frames passed on to the kernel, or diverted again.
    pub fn pass(&self, on: bool) {
        self.words.store(self.at + AT_PASSING, on.into());
    }

    /// Whether the frames have stamps before them.
    pub fn has_stamps(&self) -> bool {
        self.words.load(self.at + AT_UNSTAMPED) == 0
    }
}

/// Has all frames passed on to begin with: what waits in the sockets came before what will be diverted, so
/// each worker empties them first.
fn pass_all(words: BorrowedFd<'_>) -> io::Result<()> {
    let words = mapped(words)?;
    (0..WORKERS_MAX).for_each(|worker| words.store(worker * LINE_BYTES + AT_PASSING, 1));
    Ok(())
}

fn mapped(words: BorrowedFd<'_>) -> io::Result<Mapped> {
    Mapped::of_kernel(words, 0, WORKERS_MAX * LINE_BYTES)
}

/// Whether this process may make all that is needed; nothing is put at any card.
pub fn permitted() -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, flags, None)?;
    let places = bpf(MAP_CREATE, &words([ARRAY, 4, 4, 1]))?;
    let queues = bpf(MAP_CREATE, &words([XSKMAP, 4, 4, 1]))?;
    let lines = bpf(MAP_CREATE, &words([ARRAY, 4, (WORKERS_MAX * LINE_BYTES) as u32, 1]))?;
    let card = Card { index: 0, address: [0; 6] };
    let maps = [places.as_fd(), queues.as_fd(), lines.as_fd()];
    load(&program(&card, &[IpAddr::from([127, 0, 0, 1])], maps)).map(drop)
}

fn update(map: BorrowedFd<'_>, key: u32, value: u32) -> io::Result<()> {
    let mut ask = words([map.as_raw_fd() as u32]);
    ask.set_address(8, (&raw const key).addr());
    ask.set_address(16, (&raw const value).addr());
    bpf_no_fd(MAP_UPDATE, &ask)
}

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    // It calls nothing that is only for programs under the GPL.
    let license = c"Apache-2.0";
    let mut ask: Attr = words([XDP, program.len() as u32]);
    ask.set_address(8, program.as_ptr().addr());
    ask.set_address(16, license.as_ptr().addr());
    ask.0[48..64].copy_from_slice(b"floortape_divert");
    // The name ends with a zero.
    ask.0[63] = 0;
    ask.set_word(68, AT_XDP);
    bpf(PROG_LOAD, &ask)
}

/// In the driver where it has a place for programs, else behind it.
fn attach(program: BorrowedFd<'_>, card: &Card) -> io::Result<(OwnedFd, &'static str)> {
    let program = program.as_raw_fd() as u32;
    let mut refused = None;
    for (mode, place) in MODES {
        match bpf(LINK_CREATE, &words([program, card.index, AT_XDP, mode])) {
            Ok(link) => return Ok((link, place)),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.expect("no mode was taken"))
}

const R4: u8 = 4;
const R5: u8 = 5;
const R8: u8 = 8;
const R9: u8 = 9;
const ADD_X: u8 = 0x0f;
const SUB_X: u8 = 0x1f;
const AND_K: u8 = 0x57;
const SHIFT_LEFT_K: u8 = 0x67;
const LOAD_HALF: u8 = 0x69;
const LOAD_BYTE: u8 = 0x71;
const LOAD_DOUBLE: u8 = 0x79;
const STORE_DOUBLE: u8 = 0x7b;
const STORE_DOUBLE_K: u8 = 0x7a;
const JUMP_GT_X: u8 = 0x2d;
const JUMP_GE_X: u8 = 0x3d;
const JUMP_NE_X: u8 = 0x5d;
const JUMP32_EQ_K: u8 = 0x16;
/// From network order.
const SWAP: u8 = 0xdc;
/// Helpers.
const KTIME_GET_NS: i32 = 5;
const REDIRECT_MAP: i32 = 51;
const ADJUST_META: i32 = 54;
/// BPF_PSEUDO_MAP_FD and _VALUE.
const MAP_FD: u8 = 1;
const MAP_VALUE: u8 = 2;
/// XDP_PASS: what the program says, and what a redirection falls back to.
const PASS: i32 = 2;
/// `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const DATA_META: i16 = 8;
const QUEUE: i16 = 16;

/// Where a jump leads. All lead forward.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Ipv4,
    Ipv6,
    Ours4,
    Next(usize),
    Ours6,
    Port,
    Bare,
    Redirect,
    Full,
    Pass,
}

/// A program as it is written down: jumps get their distances when it is finished.
#[derive(Default)]
struct Code {
    words: Vec<u64>,
    jumps: Vec<(usize, To)>,
    places: Vec<(To, usize)>,
}

impl Code {
    fn add(&mut self, op: u8, dst: u8, src: u8, offset: i16, imm: i32) {
        self.words.push(insn(op, dst, src, offset, imm));
    }

    fn jump(&mut self, op: u8, dst: u8, src: u8, imm: i32, to: To) {
        self.jumps.push((self.words.len(), to));
        self.add(op, dst, src, 0, imm);
    }

    fn here(&mut self, place: To) {
        self.places.push((place, self.words.len()));
    }

    /// A map's descriptor, or the address of its value.
    fn load_map(&mut self, dst: u8, kind: u8, map: BorrowedFd<'_>) {
        self.add(LOAD_IMM, dst, kind, 0, map.as_raw_fd());
        self.add(0, 0, 0, 0, 0);
    }

    /// `R4` = data + `bytes`; further than the frame's end: passed on.
    fn needs(&mut self, bytes: i32) {
        self.add(MOV_X, R4, R2, 0, 0);
        self.add(ADD_K, R4, 0, 0, bytes);
        self.jump(JUMP_GT_X, R4, R3, 0, To::Pass);
    }

    fn finished(mut self) -> Vec<u64> {
        for (at, to) in self.jumps {
            let place = self.places.iter().find(|(name, _)| *name == to).expect("a place").1;
            let distance = (place - at - 1) as i16;
            let mut bytes = self.words[at].to_ne_bytes();
            bytes[2..4].copy_from_slice(&distance.to_ne_bytes());
            self.words[at] = u64::from_ne_bytes(bytes);
        }
        self.words
    }
}

/// A number of the wire as a load of it gives it.
fn as_loaded(word: [u8; 2]) -> i32 {
    u16::from_ne_bytes(word).into()
}

/// The program. R6: context; R7: port, later the instant; R8: worker; R9: its line; R2, R3: the frame.
/// `maps`: workers by port, sockets by worker, lines.
fn program(card: &Card, addresses: &[IpAddr], maps: [BorrowedFd<'_>; 3]) -> Vec<u64> {
    let [places, queues, lines] = maps;
    let mac = card.address;
    let mut code = Code::default();
    code.add(MOV_X, R6, R1, 0, 0);
    code.add(LOAD_WORD, R2, R6, DATA, 0);
    code.add(LOAD_WORD, R3, R6, DATA_END, 0);
    code.needs(42);
    // What is for another machine the kernel drops; so the kernel has it.
    code.add(LOAD_WORD, R5, R2, 0, 0);
    let high = i32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]);
    code.jump(JUMP32_NE_K, R5, 0, high, To::Pass);
    code.add(LOAD_HALF, R5, R2, 4, 0);
    code.jump(JUMP_NE_K, R5, 0, as_loaded([mac[4], mac[5]]), To::Pass);
    code.add(LOAD_HALF, R5, R2, 12, 0);
    // The kernel takes no code that is never come to.
    if addresses.iter().any(IpAddr::is_ipv4) {
        code.jump(JUMP_EQ_K, R5, 0, as_loaded([0x08, 0x00]), To::Ipv4);
    }
    if addresses.iter().any(IpAddr::is_ipv6) {
        code.jump(JUMP_EQ_K, R5, 0, as_loaded([0x86, 0xdd]), To::Ipv6);
    }
    code.jump(JUMP, 0, 0, 0, To::Pass);
    if addresses.iter().any(IpAddr::is_ipv6) {
        code.here(To::Ipv6);
        code.needs(62);
        code.add(LOAD_BYTE, R5, R2, 20, 0);
        code.jump(JUMP_NE_K, R5, 0, libc::IPPROTO_UDP, To::Pass);
        for (number, ip) in addresses.iter().enumerate() {
            let IpAddr::V6(ip) = ip else { continue };
            for (place, word) in ip.octets().as_chunks::<4>().0.iter().enumerate() {
                code.add(LOAD_WORD, R5, R2, 38 + 4 * place as i16, 0);
                code.jump(JUMP32_NE_K, R5, 0, i32::from_ne_bytes(*word), To::Next(number));
            }
            code.jump(JUMP, 0, 0, 0, To::Ours6);
            code.here(To::Next(number));
        }
        code.jump(JUMP, 0, 0, 0, To::Pass);
        code.here(To::Ours6);
        code.add(LOAD_HALF, R7, R2, 56, 0);
        code.jump(JUMP, 0, 0, 0, To::Port);
    }
    if addresses.iter().any(IpAddr::is_ipv4) {
        code.here(To::Ipv4);
        // Version 4 and a header without options.
        code.add(LOAD_BYTE, R5, R2, 14, 0);
        code.jump(JUMP_NE_K, R5, 0, 0x45, To::Pass);
        code.add(LOAD_HALF, R5, R2, 20, 0);
        code.add(AND_K, R5, 0, 0, as_loaded([0x3f, 0xff]));
        code.jump(JUMP_NE_K, R5, 0, 0, To::Pass);
        code.add(LOAD_BYTE, R5, R2, 23, 0);
        code.jump(JUMP_NE_K, R5, 0, libc::IPPROTO_UDP, To::Pass);
        code.add(LOAD_WORD, R5, R2, 30, 0);
        for ip in addresses {
            let IpAddr::V4(ip) = ip else { continue };
            code.jump(JUMP32_EQ_K, R5, 0, i32::from_ne_bytes(ip.octets()), To::Ours4);
        }
        code.jump(JUMP, 0, 0, 0, To::Pass);
        code.here(To::Ours4);
        code.add(LOAD_HALF, R7, R2, 36, 0);
    }
    code.here(To::Port);
    code.add(MOV_X, R4, R2, 0, 0);
    code.add(ADD_K, R4, 0, 0, FRAME_BYTES_MAX + 1);
    code.jump(JUMP_GE_X, R3, R4, 0, To::Pass);
    code.add(SWAP, R7, 0, 0, 16);
    code.add(STORE_WORD, R10, R7, -4, 0);
    code.load_map(R1, MAP_FD, places);
    code.add(MOV_X, R2, R10, 0, 0);
    code.add(ADD_K, R2, 0, 0, -4);
    code.add(CALL, 0, 0, 0, MAP_LOOKUP);
    code.jump(JUMP_EQ_K, R0, 0, 0, To::Pass);
    code.add(LOAD_WORD, R8, R0, 0, 0);
    code.jump(JUMP_EQ_K, R8, 0, 0, To::Pass);
    code.add(ADD_K, R8, 0, 0, -1);
    code.add(AND_K, R8, 0, 0, WORKERS_MAX as i32 - 1);
    // A socket takes from its own queue only.
    code.add(LOAD_WORD, R1, R6, QUEUE, 0);
    code.jump(JUMP_NE_X, R1, R8, 0, To::Pass);
    code.load_map(R9, MAP_VALUE, lines);
    code.add(MOV_X, R1, R8, 0, 0);
    code.add(SHIFT_LEFT_K, R1, 0, 0, LINE_BYTES.ilog2() as i32);
    code.add(ADD_X, R9, R1, 0, 0);
    code.add(LOAD_DOUBLE, R1, R9, AT_PASSING as i16, 0);
    code.jump(JUMP_NE_K, R1, 0, 0, To::Pass);
    code.add(LOAD_DOUBLE, R1, R9, AT_GIVEN as i16, 0);
    code.add(LOAD_DOUBLE, R2, R9, AT_TAKEN as i16, 0);
    code.add(MOV_X, R3, R1, 0, 0);
    code.add(SUB_X, R3, R2, 0, 0);
    code.jump(JUMP_GT_K, R3, 0, GIVEN_MAX, To::Full);
    code.add(ADD_K, R1, 0, 0, 1);
    code.add(STORE_DOUBLE, R9, R1, AT_GIVEN as i16, 0);
    code.add(CALL, 0, 0, 0, KTIME_GET_NS);
    code.add(MOV_X, R7, R0, 0, 0);
    code.add(MOV_X, R1, R6, 0, 0);
    code.add(MOV_K, R2, 0, 0, -(STAMP_BYTES as i32));
    code.add(CALL, 0, 0, 0, ADJUST_META);
    code.jump(JUMP_NE_K, R0, 0, 0, To::Bare);
    code.add(LOAD_WORD, R1, R6, DATA_META, 0);
    code.add(LOAD_WORD, R2, R6, DATA, 0);
    code.add(MOV_X, R3, R1, 0, 0);
    code.add(ADD_K, R3, 0, 0, STAMP_BYTES as i32);
    code.jump(JUMP_GT_X, R3, R2, 0, To::Bare);
    code.add(STORE_DOUBLE, R1, R7, 0, 0);
    code.jump(JUMP, 0, 0, 0, To::Redirect);
    code.here(To::Bare);
    code.add(STORE_DOUBLE_K, R9, 0, AT_UNSTAMPED as i16, 1);
    code.here(To::Redirect);
    code.load_map(R1, MAP_FD, queues);
    code.add(MOV_X, R2, R8, 0, 0);
    code.add(MOV_K, R3, 0, 0, PASS);
    code.add(CALL, 0, 0, 0, REDIRECT_MAP);
    code.add(EXIT, 0, 0, 0, 0);
    code.here(To::Full);
    code.add(STORE_DOUBLE_K, R9, 0, AT_PASSING as i16, 1);
    code.here(To::Pass);
    code.add(MOV_K, R0, 0, 0, PASS);
    code.add(EXIT, 0, 0, 0, 0);
    code.finished()
}
