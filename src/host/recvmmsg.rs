//! The second engine: epoll and recvmmsg into the same shared buffers with the same layout, for
//! machines where io_uring is not permitted. The message headers are shared memory too: the kernel
//! writes name length and payload length there within the one call that takes the datagrams, and
//! SIGKILL cannot cut that call, so a successor finds all that a dead engine took.
#![expect(unsafe_code, reason = "recvmmsg has no safe wrapper, and its buffers are shared memory")]

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::mapped::Mapped;
use super::sockets::Sockets;
use super::uring::view_buffer;
use crate::base::limits::{
    BUFFER_BYTES, BUFFER_CONTROL_BYTES, BUFFER_COUNT, BUFFER_NAME_BYTES, TURN_PACKETS_MAX,
};
use crate::base::ports::{Datagrams, Region};
use crate::plane::handoff::datagram::{
    AT_CONTROL, AT_FLAGS, AT_NAME, AT_PAYLOAD, AT_PAYLOAD_BYTES,
};
use crate::plane::handoff::layout::{AT_MESSAGES, MESSAGE_BYTES};

const _: () = assert!(size_of::<libc::mmsghdr>() == MESSAGE_BYTES);
const _: () = assert!(TURN_PACKETS_MAX <= BUFFER_COUNT as usize);

/// Half of the buffers that there are message headers for.
const SPARE: usize = TURN_PACKETS_MAX / 2;

/// The engine. Message header n fills buffer n, in this process and in any that comes after it, so only the
/// first buffers are in use. Those that are kept back are stepped over, at a system call more for each gap.
pub struct Recvmmsg {
    epoll: OwnedFd,
    sockets: Sockets,
    pub(super) buffers: Mapped,
    /// One I/O vector per message: private, since it means nothing to another process.
    vectors: Mapped,
    ready: Vec<epoll::Event>,
    /// Which of them were handed out and not yet offered again.
    lent: Vec<bool>,
    reason: String,
}

impl Recvmmsg {
    /// An engine over `buffers` for `sockets`.
    pub fn new(buffers: Mapped, sockets: Sockets, reason: &str) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Recvmmsg {
            epoll,
            sockets,
            buffers,
            vectors: Mapped::anonymous("I/O vectors", TURN_PACKETS_MAX * size_of::<libc::iovec>())?,
            ready: Vec::with_capacity(TURN_PACKETS_MAX),
            lent: vec![false; TURN_PACKETS_MAX],
            reason: reason.to_owned(),
        })
    }

    fn message(&self, number: usize) -> *mut libc::mmsghdr {
        message(&self.buffers, number)
    }

    /// Points message `number` at its buffer: once, at the start.
    fn prepare(&self, number: usize) {
        let at = number * BUFFER_BYTES;
        let vector_at = number * size_of::<libc::iovec>();
        let vector: *mut libc::iovec = self.vectors.at(vector_at, size_of::<libc::iovec>()).cast();
        // SAFETY: all pointers name disjoint areas of maps that live as long as `self`; vector and
        // message are in their maps and aligned to 16 and 64. mmsghdr is plain data, for which
        // zeros are valid.
        // JUSTIFICATION: recvmmsg takes raw pointers.
        unsafe {
            vector.write(libc::iovec {
                iov_base: self.buffers.at(at + AT_PAYLOAD, BUFFER_BYTES - AT_PAYLOAD).cast(),
                iov_len: BUFFER_BYTES - AT_PAYLOAD,
            });
            let mut message: libc::mmsghdr = std::mem::zeroed();
            message.msg_hdr.msg_name = self.buffers.at(at + AT_NAME, BUFFER_NAME_BYTES).cast();
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control =
                self.buffers.at(at + AT_CONTROL, BUFFER_CONTROL_BYTES).cast();
            self.message(number).write(message);
        }
    }

    /// The next free buffers in a row from `next` on; empty behind the last.
    fn run(&self, next: usize) -> Range<usize> {
        let free = |number: &usize| !self.lent[*number];
        let first = (next..TURN_PACKETS_MAX).find(free).unwrap_or(TURN_PACKETS_MAX);
        let end = (first..TURN_PACKETS_MAX).find(|number| !free(number));
        first..end.unwrap_or(TURN_PACKETS_MAX)
    }

    /// What becomes readable when a socket does.
    pub(super) fn watch(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Waits for a datagram, no longer than that (below a second); whether one is there.
    pub(super) fn wait(&mut self, limit: Duration) -> io::Result<bool> {
        let limit = limit.min(Duration::from_millis(999));
        let limit = Timespec { tv_sec: 0, tv_nsec: limit.as_nanos() as i64 };
        self.ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!self.ready.is_empty()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what [`Self::wait`] found, at most `room` datagrams.
    pub(super) fn receive_ready(&mut self, room: usize, taken: &mut Vec<u16>) -> io::Result<()> {
        let end = taken.len() + room;
        let mut run = self.run(0);
        for place in 0..self.ready.len() {
            let socket = self.ready[place].data.u64() as usize;
            // Not all that there was room for: the socket is empty.
            while !run.is_empty() && taken.len() < end {
                let count = self.receive(socket, run.start, run.len().min(end - taken.len()))?;
                for number in run.start..run.start + count {
                    self.lent[number] = finish(&self.buffers, number);
                    if self.lent[number] {
                        taken.push(number as u16);
                    }
                }
                run.start += count;
                if !run.is_empty() {
                    break;
                }
                run = self.run(run.end);
            }
        }
        Ok(())
    }

    /// Takes up to `room` datagrams of one socket into the buffers from `first` on.
    fn receive(&self, socket: usize, first: usize, room: usize) -> io::Result<usize> {
        for number in first..first + room {
            let message = self.message(number);
            // SAFETY: in the map, aligned, and the kernel does not hold it outside the call below.
            // JUSTIFICATION: the kernel reads the sizes of the areas from here.
            unsafe {
                (*message).msg_hdr.msg_namelen = BUFFER_NAME_BYTES as u32;
                (*message).msg_hdr.msg_controllen = BUFFER_CONTROL_BYTES;
            }
        }
        // SAFETY: headers `first..first + room` lie in the map (`message` checked them above) and
        // were prepared; what they point to lives as long as `self`; the socket is open.
        // JUSTIFICATION: no crate wraps recvmmsg.
        let count = unsafe {
            libc::recvmmsg(
                self.sockets.all()[socket].as_raw_fd(),
                self.message(first),
                room as u32,
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                std::ptr::null_mut(),
            )
        };
        if count >= 0 {
            return Ok(count as usize);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // ECONNREFUSED: an ICMP error about something we sent; the next call receives again.
            Some(libc::EAGAIN | libc::EINTR | libc::ECONNREFUSED) => Ok(0),
            _ => Err(error),
        }
    }
}

/// Sets the heads of what a dead engine of this kind had taken. Whichever engine comes next asks for
/// it before the scan: the length of such a datagram stands nowhere but in its message header.
pub(super) fn finish_all(buffers: &Mapped) {
    for number in 0..TURN_PACKETS_MAX {
        finish(buffers, number);
    }
}

fn message(buffers: &Mapped, number: usize) -> *mut libc::mmsghdr {
    buffers.at(AT_MESSAGES + number * MESSAGE_BYTES, MESSAGE_BYTES).cast()
}

/// Turns a message header that the kernel has filled into the buffer's own head, and marks the
/// header as read. Whether there was one.
///
/// The mark is the name length: 16 or 28 when the kernel wrote it, 0 or the size of the area
/// when it did not. Head first, mark second: between the two a kill leaves both, and the head
/// that is there is not written again.
fn finish(buffers: &Mapped, number: usize) -> bool {
    let message = message(buffers, number);
    let at = number * BUFFER_BYTES;
    // SAFETY: in the map and aligned (64-byte steps from a page); the kernel writes it only
    // inside recvmmsg, which is not running: only this thread calls it, or its caller is dead.
    // JUSTIFICATION: the header is the kernel's struct in shared memory.
    let copy = unsafe { message.read() };
    let name_bytes = copy.msg_hdr.msg_namelen;
    if name_bytes == 0 || name_bytes >= BUFFER_NAME_BYTES as u32 {
        return false;
    }
    if buffers.load(at) == 0 {
        buffers.copy_in(at + AT_PAYLOAD_BYTES, &copy.msg_len.to_ne_bytes());
        buffers.copy_in(at + AT_FLAGS, &copy.msg_hdr.msg_flags.to_ne_bytes());
        let control = (copy.msg_hdr.msg_controllen as u64) << 32;
        buffers.store(at, control | u64::from(name_bytes));
    }
    // SAFETY: as above.
    // JUSTIFICATION: as above.
    unsafe { (&raw mut (*message).msg_hdr.msg_namelen).write_volatile(0) };
    true
}

impl Datagrams for Recvmmsg {
    fn name(&self) -> &'static str {
        "recvmmsg"
    }

    fn reason(&self) -> &str {
        &self.reason
    }

    /// What a predecessor of this kind had taken gets its heads, for the scan.
    fn inherit(&mut self) {
        finish_all(&self.buffers);
        for number in 0..TURN_PACKETS_MAX {
            self.prepare(number);
        }
    }

    fn spare(&self) -> usize {
        SPARE
    }

    fn start(&mut self, _urgent: impl Fn(u16) -> bool) -> io::Result<()> {
        for number in 0..TURN_PACKETS_MAX {
            self.lent[number] = self.head(number as u16) != 0;
        }
        for (number, socket) in self.sockets.all().iter().enumerate() {
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN)?;
        }
        Ok(())
    }

    fn take(&mut self, wait_ms: u64, taken: &mut Vec<u16>) -> io::Result<()> {
        self.wait(Duration::from_millis(wait_ms))?;
        self.receive_ready(TURN_PACKETS_MAX, taken)
    }

    fn head(&self, buffer: u16) -> u64 {
        self.buffers.load(usize::from(buffer) * BUFFER_BYTES)
    }

    fn clear(&mut self, buffer: u16) {
        self.buffers.store(usize::from(buffer) * BUFFER_BYTES, 0);
    }

    fn look<R>(&self, buffer: u16, view: impl FnOnce(&[u8]) -> R) -> R {
        view_buffer(&self.buffers, buffer, view)
    }

    #[cfg(feature = "faults")]
    fn overwrite(&mut self, buffer: u16, offset: usize, bytes: &[u8]) {
        self.buffers.copy_in(usize::from(buffer) * BUFFER_BYTES + offset, bytes);
    }

    fn offer(&mut self, buffer: u16) {
        if let Some(lent) = self.lent.get_mut(usize::from(buffer)) {
            *lent = false;
        }
    }

    fn publish(&mut self) {}

    fn drops(&self, port: u16) -> Option<u32> {
        self.sockets.drops(port)
    }

    fn waits(&self, port: u16) -> bool {
        self.sockets.waits(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::engine_tests;

    #[test]
    fn recvmmsg_takes_datagrams_with_their_evidence() {
        let make = |buffers, sockets| Recvmmsg::new(buffers, sockets, "test").expect("epoll");
        engine_tests::takes_datagrams_with_their_evidence(make);
        engine_tests::survives_exhaustion_and_empty_datagrams(make, |_| ());
        engine_tests::a_full_queue_is_counted_exactly(make);
        engine_tests::what_a_dead_engine_took_is_found(make);
        engine_tests::what_is_kept_back_stays_whole(make);
    }

    /// The kill between the system call and the heads: only the shared message headers know.
    #[test]
    fn datagrams_taken_by_a_call_that_nobody_saw_return_are_found() {
        let pair = super::super::socket::reserve(
            std::net::IpAddr::from([127, 0, 0, 1]),
            43_000,
            43_400,
            1,
        )
        .expect("free ports")
        .remove(0);
        let bytes = AT_MESSAGES + TURN_PACKETS_MAX * MESSAGE_BYTES;
        let memory = super::super::mapped::create("buffers", bytes).expect("memfd");
        let map = || Mapped::map(memory.as_fd(), bytes).expect("map");
        let port = pair.address.port();
        let sockets = Sockets::new(Vec::new(), vec![pair.rtp], vec![port], Vec::new());
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("free port");
        for payload in [&b"one"[..], b"", b"three"] {
            sender.send_to(payload, pair.address).expect("loopback");
        }
        let mut dead = Recvmmsg::new(map(), sockets.clone(), "test").expect("epoll");
        dead.inherit();
        // Made while the other one still receives, as a spare is.
        let mut next = Recvmmsg::new(map(), sockets, "test").expect("epoll");
        assert_eq!(dead.receive(0, 0, 10).expect("three wait"), 3);
        assert_eq!(dead.head(0), 0);
        drop(dead);
        next.inherit();
        let found: Vec<Vec<u8>> = (0..10)
            .filter(|buffer| next.head(*buffer) != 0)
            .map(|buffer| {
                next.look(buffer, |bytes| {
                    let datagram = crate::plane::handoff::datagram::read(bytes).expect("whole");
                    datagram.payload.to_vec()
                })
            })
            .collect();
        assert_eq!(found, [b"one".to_vec(), b"".to_vec(), b"three".to_vec()]);
    }
}
