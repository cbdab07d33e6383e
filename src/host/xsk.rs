//! One queue of a card in shared memory (AF_XDP): frames of 2 KiB that the kernel copies what it is given
//! into, a ring of those that hold something, and a ring of those that it may fill. Keeper makes them, and
//! whoever maps them goes on at the same place: all indexes are in the rings.
//!
//! A frame is in one of the rings, in the kernel's hands between them, or has leaked: taken by somebody who
//! was killed before he gave it back. Each ring holds all frames, so that none of them is ever full and the
//! kernel keeps no frame to itself (kill protocol §4).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt;
use rustix::net::xdp::{SocketAddrXdp, SocketAddrXdpFlags, XdpUmemReg, XdpUmemRegFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::mapped::{self, Mapped};
use super::xdp::{FRAMES, STAMP_BYTES};
use crate::base::ports::{Region, WritableRegion};
use crate::wire::ethernet;

/// Octets of a frame.
const FRAME_BYTES: usize = 2_048;
const AREA_BYTES: usize = FRAMES * FRAME_BYTES;
const MASK: u32 = FRAMES as u32 - 1;
/// The ring of frames sent, which must be there and is never used.
const SENT: u32 = 64;
/// Octets of an entry: `struct xdp_desc`, and an address.
const FULL_BYTES: usize = 16;
const EMPTY_BYTES: usize = 8;
/// What is in neither ring and does not come for so long is in nobody's hands.
pub const LEAKED_AFTER: Duration = Duration::from_millis(100);
/// Where the rings are mapped (`linux/if_xdp.h`).
const FULL_AT: u64 = 0;
const EMPTY_AT: u64 = 0x1_0000_0000;

/// What a queue is made of, to be held by every process.
#[derive(Debug)]
pub struct QueueFds {
    /// The frames.
    pub area: OwnedFd,
    /// The socket.
    pub socket: OwnedFd,
}

impl QueueFds {
    /// Makes frames and socket for a queue of the interface number `interface`; all frames may be filled.
    pub fn make(name: &str, interface: u32, queue: u32) -> io::Result<Self> {
        let area = mapped::create(name, AREA_BYTES)?;
        let memory = Mapped::map(area.as_fd(), AREA_BYTES)?;
        memory.populate(0, AREA_BYTES)?;
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, flags, None)?;
        // The kernel keeps the pages, not this map of them.
        let frames = XdpUmemReg {
            addr: memory.at(0, AREA_BYTES).expose_provenance() as u64,
            len: AREA_BYTES as u64,
            chunk_size: FRAME_BYTES as u32,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        sockopt::set_xdp_umem_reg(&socket, frames)?;
        sockopt::set_xdp_umem_fill_ring_size(&socket, FRAMES as u32)?;
        sockopt::set_xdp_umem_completion_ring_size(&socket, SENT)?;
        sockopt::set_xdp_rx_ring_size(&socket, FRAMES as u32)?;
        let fds = QueueFds { area, socket };
        // Before anything is given to it: what finds no frame is lost.
        fds.queue()?.offer_others(&[false; FRAMES]);
        // Copied: with zero-copy frames are in the card's hands, and no one could tell which have leaked.
        let address = SocketAddrXdp::new(SocketAddrXdpFlags::XDP_COPY, interface, queue);
        rustix::net::bind(&fds.socket, &address)?;
        Ok(fds)
    }

    /// Frames and socket, for whoever is to hold them as well.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.area.as_fd(), self.socket.as_fd()]
    }

    /// Another handle of the same.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(QueueFds { area: self.area.try_clone()?, socket: self.socket.try_clone()? })
    }

    /// Frames that were diverted here and found no place, ever; `None` where the kernel does not say.
    pub fn drops(&self) -> Option<u64> {
        let found = sockopt::xdp_statistics(&self.socket).ok()?;
        Some(found.rx_dropped + found.rx_ring_full.unwrap_or(0))
    }

    /// Maps it. Only the one who works on it may change anything.
    pub fn queue(&self) -> io::Result<Queue> {
        let offsets = sockopt::xdp_mmap_offsets(&self.socket)?;
        let area = Mapped::map(self.area.as_fd(), AREA_BYTES)?;
        area.populate(0, AREA_BYTES)?;
        let map = |at, end: usize| Mapped::of_kernel(self.socket.as_fd(), at, end);
        let [full, empty] = [&offsets.rx, &offsets.fr].map(|ring| Places {
            produced: ring.producer as usize,
            consumed: ring.consumer as usize,
            entries: ring.desc as usize,
        });
        Ok(Queue {
            area,
            full: map(FULL_AT, full.entries + FRAMES * FULL_BYTES)?,
            empty: map(EMPTY_AT, empty.entries + FRAMES * EMPTY_BYTES)?,
            at_full: full,
            at_empty: empty,
            socket: self.socket.try_clone()?,
        })
    }
}

/// Offsets within a ring's map.
#[derive(Clone, Copy)]
struct Places {
    produced: usize,
    consumed: usize,
    entries: usize,
}

/// A queue, mapped.
pub struct Queue {
    area: Mapped,
    full: Mapped,
    empty: Mapped,
    at_full: Places,
    at_empty: Places,
    socket: OwnedFd,
}

impl Queue {
    /// Index of the first frame that holds something, if one does, and how many do.
    pub fn waiting(&self) -> (u32, u32) {
        let first = self.full.load_half(self.at_full.consumed);
        (first, self.full.load_half(self.at_full.produced).wrapping_sub(first))
    }

    /// Lends the frame at index `index` of those that hold something, with what stands before it.
    pub fn look<R>(&mut self, index: u32, view: impl FnOnce(&[u8], [u8; STAMP_BYTES]) -> R) -> R {
        let (address, length) = self.entry(index);
        // An address of the kernel's: of the first octet, with the driver's octets before it.
        let from = address.saturating_sub(STAMP_BYTES).min(AREA_BYTES);
        let bytes = (STAMP_BYTES + length).min(AREA_BYTES - from);
        self.area.with_mut(from, bytes, |bytes| match bytes.split_first_chunk() {
            Some((before, frame)) => view(frame, *before),
            None => view(&[], [0; STAMP_BYTES]),
        })
    }

    fn entry(&self, index: u32) -> (usize, usize) {
        let entry = self.at_full.entries + (index & MASK) as usize * FULL_BYTES;
        let address = self.full.load(entry) as usize;
        (address, self.full.load_half(entry + 8) as usize)
    }

    /// Says that `count` frames, from the first that held something on, have been looked at. They are given
    /// back by [`Self::offer`]; whoever is killed in between has leaked them.
    pub fn consume(&self, count: u32) {
        let first = self.full.load_half(self.at_full.consumed);
        self.full.store_half(self.at_full.consumed, first.wrapping_add(count));
    }

    /// Gives back the frames at `count` indexes from `first` on, after they were consumed and before so many
    /// have come again.
    pub fn offer(&self, first: u32, count: u32) {
        let produced = self.empty.load_half(self.at_empty.produced);
        for place in 0..count {
            let (address, _) = self.entry(first.wrapping_add(place));
            self.put(produced.wrapping_add(place), address / FRAME_BYTES);
        }
        self.empty.store_half(self.at_empty.produced, produced.wrapping_add(count));
    }

    fn put(&self, index: u32, frame: usize) {
        let entry = self.at_empty.entries + (index & MASK) as usize * EMPTY_BYTES;
        self.empty.store(entry, (frame * FRAME_BYTES) as u64);
    }

    /// Notes in `held` ([`FRAMES`] of them) the frames that are in either ring, when whoever worked on the
    /// queue before is gone.
    ///
    /// The ring to be filled is looked at first, since the kernel mostly publishes a frame as full before it
    /// says that it took it. Mostly: within one poll of the card it may do so the other way round, so that a
    /// frame found in neither has leaked only if it does not come within [`LEAKED_AFTER`].
    pub fn find(&self, held: &mut [bool]) {
        let mut see = |address: usize| {
            if let Some(one) = held.get_mut(address / FRAME_BYTES) {
                *one = true;
            }
        };
        let produced = self.empty.load_half(self.at_empty.produced);
        let mut at = self.empty.load_half(self.at_empty.consumed);
        while at != produced {
            let entry = self.at_empty.entries + (at & MASK) as usize * EMPTY_BYTES;
            see(self.empty.load(entry) as usize);
            at = at.wrapping_add(1);
        }
        let (first, waiting) = self.waiting();
        (0..waiting).for_each(|place| see(self.entry(first.wrapping_add(place)).0));
    }

    /// Number of the frame at index `index` of those that hold something.
    pub fn frame(&self, index: u32) -> usize {
        self.entry(index).0 / FRAME_BYTES
    }

    /// The port that the frame at index `index` is for, where it is a datagram's.
    pub fn port(&self, index: u32) -> Option<u16> {
        let (address, length) = self.entry(index);
        let mut start = [0; ethernet::PORT_WITHIN];
        let bytes = length.min(start.len()).min(AREA_BYTES.saturating_sub(address));
        self.area.copy_out(address.min(AREA_BYTES), &mut start[..bytes]);
        ethernet::port(&start[..bytes])
    }

    /// Gives the kernel every frame that is not in `held`; how many.
    pub fn offer_others(&self, held: &[bool]) -> usize {
        let produced = self.empty.load_half(self.at_empty.produced);
        let mut count = 0;
        for frame in (0..FRAMES).filter(|frame| !held[*frame]) {
            self.put(produced.wrapping_add(count), frame);
            count += 1;
        }
        self.empty.store_half(self.at_empty.produced, produced.wrapping_add(count));
        count as usize
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
