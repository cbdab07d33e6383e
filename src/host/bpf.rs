//! Steers the ports of many streams onto few sockets: a BPF program at the kernel's socket look-up
//! (`sk_lookup`, Linux 5.9) that names the socket for each of our ports. Receiving from 16 sockets costs
//! less than from 2,000 (`benches/path.sh`, `ours-each`). What is sent still leaves from the port's own
//! socket, which also holds the port, and receives should the steering ever fall away.
//!
//! Needs CAP_BPF and CAP_NET_ADMIN; who lacks them receives from each port's own socket.
//!
//! bpf(2) itself and the words of its programs are here as well, for [`super::xdp`].
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper in any crate we use")]

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Commands of bpf(2).
pub(super) const MAP_CREATE: libc::c_long = 0;
pub(super) const MAP_UPDATE: libc::c_long = 2;
pub(super) const PROG_LOAD: libc::c_long = 5;
pub(super) const OBJ_GET_INFO: libc::c_long = 15;
pub(super) const LINK_CREATE: libc::c_long = 28;
/// BPF_MAP_TYPE_SOCKMAP.
const SOCKMAP: u32 = 15;
/// BPF_PROG_TYPE_SK_LOOKUP.
const SK_LOOKUP: u32 = 30;
/// The attach type of the same name.
const AT_SK_LOOKUP: u32 = 36;

/// Ports of one address that are steered, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Local address; an unspecified one means every address of its family.
    pub ip: IpAddr,
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// A program that steers for as long as somebody holds its link. The sockets must be held as well: one
/// that is closed by its last holder takes its ports out.
#[derive(Debug)]
pub struct Steering {
    link: OwnedFd,
    program: OwnedFd,
}

impl Steering {
    /// Steers, in the network namespace of this process, each port of `ports` (all of them within
    /// `blocks`) to its socket.
    pub fn make<'a>(
        blocks: &[Block],
        ports: impl Iterator<Item = (u16, BorrowedFd<'a>)>,
    ) -> io::Result<Self> {
        let entries = u32::from(u16::MAX) + 1;
        let map = bpf(MAP_CREATE, &words([SOCKMAP, 4, 4, entries]))?;
        for (port, socket) in ports {
            let key = u32::from(port);
            let value = socket.as_raw_fd() as u32;
            let mut update = words([map.as_raw_fd() as u32]);
            update.set_address(8, (&raw const key).addr());
            update.set_address(16, (&raw const value).addr());
            bpf_no_fd(MAP_UPDATE, &update)?;
        }
        let program = load(&program(blocks, map.as_fd()))?;
        let link = attach(program.as_fd())?;
        Ok(Steering { link, program })
    }

    /// Takes over what another process held: its link and its program.
    pub fn held([link, program]: [OwnedFd; 2]) -> Self {
        Steering { link, program }
    }

    /// Link and program, for whoever is to hold them as well.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.link.as_fd(), self.program.as_fd()]
    }

    /// Another handle of the same.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Steering { link: self.link.try_clone()?, program: self.program.try_clone()? })
    }

    /// Whether the program still stands at the look-up: an administrator can take it away.
    pub fn is_attached(&self) -> io::Result<bool> {
        // struct bpf_link_info: type, id, program, padding, then the namespace's inode; 0 once detached.
        let mut info = [0_u32; 12];
        let mut ask = words([self.link.as_raw_fd() as u32, size_of_val(&info) as u32]);
        ask.set_address(8, info.as_mut_ptr().expose_provenance());
        bpf_no_fd(OBJ_GET_INFO, &ask)?;
        Ok(info[4] != 0)
    }

    /// Puts the program back to the look-up under a link of its own.
    pub fn attach_again(&mut self) -> io::Result<()> {
        self.link = attach(self.program.as_fd())?;
        Ok(())
    }
}

/// Whether this process may steer; tried with a program that steers nothing and is gone at once.
pub fn permitted() -> io::Result<()> {
    let nobody = Block { ip: IpAddr::from([0, 0, 0, 0]), first: 1, last: 1 };
    Steering::make(&[nobody], std::iter::empty()).map(drop)
}

fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let namespace = std::fs::File::open("/proc/self/ns/net")?;
    let (program, namespace) = (program.as_raw_fd() as u32, namespace.as_raw_fd() as u32);
    bpf(LINK_CREATE, &words([program, namespace, AT_SK_LOOKUP, 0]))
}

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    // It calls nothing that is only for programs under the GPL.
    let license = c"Apache-2.0";
    let mut ask = words([SK_LOOKUP, program.len() as u32]);
    ask.set_address(8, program.as_ptr().addr());
    ask.set_address(16, license.as_ptr().addr());
    ask.0[48..64].copy_from_slice(b"floortape_steer\0");
    ask.set_word(68, AT_SK_LOOKUP);
    bpf(PROG_LOAD, &ask)
}

/// `union bpf_attr`, as far as we use it.
#[repr(C, align(8))]
pub(super) struct Attr(pub(super) [u8; 144]);

impl Attr {
    pub(super) fn set_word(&mut self, at: usize, word: u32) {
        self.0[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }

    pub(super) fn set_address(&mut self, at: usize, address: usize) {
        self.0[at..at + 8].copy_from_slice(&(address as u64).to_ne_bytes());
    }
}

pub(super) fn words<const N: usize>(words: [u32; N]) -> Attr {
    let mut attr = Attr([0; 144]);
    words.into_iter().enumerate().for_each(|(place, word)| attr.set_word(place * 4, word));
    attr
}

fn call(command: libc::c_long, attr: &Attr) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is as long as said and lives until the call returns; every address in it is of a
    // local or a slice that its maker, our caller, holds until then, of the length that the command reads
    // there (a key and a value of 4 bytes, the program, its license's name up to a zero), or writes (the
    // length that stands beside it).
    // JUSTIFICATION: bpf(2) has no safe wrapper.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.0.as_ptr(), size_of::<Attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A command that answers with a descriptor.
pub(super) fn bpf(command: libc::c_long, attr: &Attr) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us, and nobody else knows it.
    // JUSTIFICATION: an owned descriptor has no other maker.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// A command that answers with nothing.
pub(super) fn bpf_no_fd(command: libc::c_long, attr: &Attr) -> io::Result<()> {
    call(command, attr).map(drop)
}

/// Registers.
pub(super) const R0: u8 = 0;
pub(super) const R1: u8 = 1;
pub(super) const R2: u8 = 2;
pub(super) const R3: u8 = 3;
pub(super) const R6: u8 = 6;
pub(super) const R7: u8 = 7;
pub(super) const R10: u8 = 10;
/// Offsets in `struct bpf_sk_lookup`: addresses in network order, the local port in the host's.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;
const LOCAL_PORT: i16 = 60;
/// Helpers.
pub(super) const MAP_LOOKUP: i32 = 1;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;
/// The program that came last decides (BPF_SK_LOOKUP_F_REPLACE): what is left of a server that is no more, and
/// whose ports are ours now, steers nothing away from us.
const REPLACE: i32 = 1;
/// Bytes of code for `op`: `BPF_ALU64 | BPF_MOV | BPF_K` and so on.
pub(super) const MOV_K: u8 = 0xb7;
pub(super) const MOV_X: u8 = 0xbf;
pub(super) const ADD_K: u8 = 0x07;
pub(super) const LOAD_WORD: u8 = 0x61;
pub(super) const STORE_WORD: u8 = 0x63;
pub(super) const LOAD_IMM: u8 = 0x18;
pub(super) const CALL: u8 = 0x85;
pub(super) const EXIT: u8 = 0x95;
/// Jumps on 64-bit registers, which hold words here; the last on 32 bits, for addresses.
pub(super) const JUMP: u8 = 0x05;
pub(super) const JUMP_EQ_K: u8 = 0x15;
pub(super) const JUMP_NE_K: u8 = 0x55;
pub(super) const JUMP_GT_K: u8 = 0x25;
pub(super) const JUMP_LT_K: u8 = 0xa5;
pub(super) const JUMP32_NE_K: u8 = 0x56;

/// One instruction (`struct bpf_insn`, little-endian fields in memory order on every machine we run on).
pub(super) fn insn(op: u8, dst: u8, src: u8, offset: i16, imm: i32) -> u64 {
    let [low, high] = offset.to_ne_bytes();
    let [a, b, c, d] = imm.to_ne_bytes();
    // The halves of the register byte trade places on big-endian machines.
    let registers = if cfg!(target_endian = "little") { dst | src << 4 } else { dst << 4 | src };
    u64::from_ne_bytes([op, registers, low, high, a, b, c, d])
}

/// The program. Per datagram to one of our ports it runs 20 to 30 instructions and one look-up in `map`,
/// whose keys are ports; for any other it ends within a few.
fn program(blocks: &[Block], map: BorrowedFd<'_>) -> Vec<u64> {
    let steer = vec![
        insn(STORE_WORD, R10, R2, -4, 0),
        // The map's descriptor, in an instruction of two words (BPF_PSEUDO_MAP_FD).
        insn(LOAD_IMM, R1, 1, 0, map.as_raw_fd()),
        insn(0, 0, 0, 0, 0),
        insn(MOV_X, R2, R10, 0, 0),
        insn(ADD_K, R2, 0, 0, -4),
        insn(CALL, 0, 0, 0, MAP_LOOKUP),
        insn(JUMP_EQ_K, R0, 0, 7, 0),
        insn(MOV_X, R7, R0, 0, 0),
        insn(MOV_X, R1, R6, 0, 0),
        insn(MOV_X, R2, R7, 0, 0),
        insn(MOV_K, R3, 0, 0, REPLACE),
        // Refused where the socket is of the other family: then the port's own socket gets it.
        insn(CALL, 0, 0, 0, SK_ASSIGN),
        insn(MOV_X, R1, R7, 0, 0),
        insn(CALL, 0, 0, 0, SK_RELEASE),
    ];
    // A look-up that found nothing jumps here as well.
    let end = [insn(MOV_K, R0, 0, 0, 1), insn(EXIT, 0, 0, 0, 0)];
    let mut tests: Vec<u64> = Vec::new();
    for block in blocks {
        let mut one =
            vec![(JUMP_LT_K, R2, i32::from(block.first)), (JUMP_GT_K, R2, i32::from(block.last))];
        let mut loads = Vec::new();
        let family = if block.ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        loads.push((R1, FAMILY, family));
        let octets = match block.ip {
            IpAddr::V4(ip) => (LOCAL_IP4, ip.octets().to_vec()),
            IpAddr::V6(ip) => (LOCAL_IP6, ip.octets().to_vec()),
        };
        if !block.ip.is_unspecified() {
            for (place, word) in octets.1.chunks_exact(4).enumerate() {
                let word = i32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
                loads.push((R1, octets.0 + 4 * place as i16, word));
            }
        }
        // Each test that fails goes on behind this block's last jump, which leads to `steer`.
        let length = one.len() + 2 * loads.len();
        let mut code = Vec::with_capacity(length + 1);
        for (op, register, value) in one.drain(..) {
            code.push(insn(op, register, 0, (length - code.len()) as i16, value));
        }
        for (register, offset, value) in loads {
            code.push(insn(LOAD_WORD, register, R6, offset, 0));
            code.push(insn(JUMP32_NE_K, register, 0, (length - code.len()) as i16, value));
        }
        // Where it lands depends on what follows; filled in below.
        code.push(insn(JUMP, 0, 0, 0, 0));
        tests.extend(code);
    }
    let total = tests.len();
    for (place, code) in tests.iter_mut().enumerate() {
        if *code == insn(JUMP, 0, 0, 0, 0) {
            // Over the rest of the tests and the jump to the end behind them.
            *code = insn(JUMP, 0, 0, (total - place) as i16, 0);
        }
    }
    let mut code = vec![
        insn(MOV_X, R6, R1, 0, 0),
        insn(LOAD_WORD, R1, R6, PROTOCOL, 0),
        insn(JUMP_NE_K, R1, 0, (total + 2 + steer.len()) as i16, libc::IPPROTO_UDP),
        insn(LOAD_WORD, R2, R6, LOCAL_PORT, 0),
    ];
    code.extend(tests);
    code.push(insn(JUMP, 0, 0, steer.len() as i16, 0));
    code.extend(steer);
    code.extend(end);
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::family::Family;
    use crate::host::socket;
    use std::net::{SocketAddr, UdpSocket};

    fn read(socket: &OwnedFd) -> Vec<Vec<u8>> {
        let mut buffer = [0; 64];
        let take = || {
            socket::receive_from(socket.as_fd(), &mut buffer)
                .ok()
                .map(|(n, _)| buffer[..n].to_vec())
        };
        std::iter::from_fn(take).collect()
    }

    /// What the rest of this module is tested by: it needs the privilege, and says so where it lacks it.
    fn may_steer() -> bool {
        match permitted() {
            Ok(()) => true,
            Err(error) => {
                assert_ne!(rustix::process::geteuid().as_raw(), 0, "root may steer: {error}");
                eprintln!("not shown without CAP_BPF and CAP_NET_ADMIN: {error}");
                false
            }
        }
    }

    #[test]
    fn named_ports_are_steered_and_all_others_are_left_alone() {
        if !may_steer() {
            return;
        }
        for (home, other, free) in
            [("127.0.0.1", "127.0.0.2", "127.0.0.1:0"), ("::1", "::1", "[::1]:0")]
        {
            let (home, other): (IpAddr, IpAddr) =
                (home.parse().expect("one"), other.parse().expect("one"));
            let pairs = socket::reserve(home, 44_000, 44_400, 3).expect("free ports");
            let shared = socket::bind_shared(Family::of(home), 1 << 20).expect("any port");
            let (first, last) = (pairs[0].address.port(), pairs[2].address.port() + 1);
            // A stranger's block first, of the other family: the tests go on behind it.
            let strange = Block { ip: "192.0.2.1".parse().expect("one"), first: 1, last: 65_535 };
            let blocks = [strange, Block { ip: home, first, last }];
            // The pair in the middle is in the block, but named to nobody.
            let named = [&pairs[0], &pairs[2]];
            let ports = named.iter().map(|pair| (pair.address.port(), shared.as_fd()));
            let steering = Steering::make(&blocks, ports).expect("permitted");
            assert!(steering.is_attached().expect("ours"));
            let sender = UdpSocket::bind(free).expect("a port");
            let say = |pair: &socket::PortPair, what: &str| {
                sender.send_to(what.as_bytes(), pair.address).expect("loopback");
            };
            pairs.iter().zip(["a", "b", "c"]).for_each(|(pair, what)| say(pair, what));
            assert_eq!(read(&shared), [b"a", b"c"], "{home}");
            assert_eq!(read(&pairs[1].rtp), [b"b"]);
            assert!(read(&pairs[0].rtp).is_empty());
            // What we send leaves from the port's own socket.
            let back = sender.local_addr().expect("bound");
            socket::send_to(pairs[0].rtp.as_fd(), b"report", back).expect("room");
            let mut buffer = [0; 16];
            let (_, from) = sender.recv_from(&mut buffer).expect("sent");
            assert_eq!(from, pairs[0].address);
            if other != home {
                // The same port on another address is somebody else's.
                let foreign = socket::bind(SocketAddr::new(other, first)).expect("free there");
                sender.send_to(b"d", (other, first)).expect("loopback");
                assert_eq!(read(&foreign), [b"d"]);
            }
            // Held twice: one holder's end changes nothing, the last one's ends it.
            let copy = steering.try_clone().expect("descriptors");
            drop(steering);
            say(&pairs[0], "e");
            assert_eq!(read(&shared), [b"e"]);
            drop(copy);
            say(&pairs[0], "f");
            assert!(read(&shared).is_empty());
            assert_eq!(read(&pairs[0].rtp), [b"f"], "its own socket has it now");
        }
    }

    #[test]
    fn what_was_taken_away_is_seen_and_put_back() {
        if !may_steer() {
            return;
        }
        let home = IpAddr::from([127, 0, 0, 1]);
        let pair = socket::reserve(home, 44_400, 44_800, 1).expect("free ports").remove(0);
        let shared = socket::bind_shared(Family::of(home), 1 << 20).expect("any port");
        let port = pair.address.port();
        let blocks = [Block { ip: home, first: port, last: port }];
        let ports = std::iter::once((port, shared.as_fd()));
        let mut steering = Steering::make(&blocks, ports).expect("permitted");
        // BPF_LINK_DETACH.
        bpf_no_fd(34, &words([steering.link.as_raw_fd() as u32])).expect("ours");
        assert!(!steering.is_attached().expect("ours"));
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        sender.send_to(b"a", pair.address).expect("loopback");
        assert_eq!(read(&pair.rtp), [b"a"]);
        steering.attach_again().expect("permitted");
        assert!(steering.is_attached().expect("ours"));
        sender.send_to(b"b", pair.address).expect("loopback");
        assert_eq!(read(&shared), [b"b"]);
        // Whoever comes later has the port, for as long as he is there.
        let later = socket::bind_shared(Family::V4, 1 << 20).expect("any port");
        let ports = std::iter::once((port, later.as_fd()));
        let other = Steering::make(&blocks, ports).expect("permitted");
        sender.send_to(b"c", pair.address).expect("loopback");
        assert_eq!((read(&shared).len(), read(&later)), (0, vec![b"c".to_vec()]));
        drop(other);
        sender.send_to(b"d", pair.address).expect("loopback");
        assert_eq!(read(&shared), [b"d"]);
    }
}
