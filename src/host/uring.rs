//! The io_uring engine: one ring, one provided buffer ring, one multishot recvmsg per socket. Made,
//! used and dropped on the worker's own thread (SINGLE_ISSUER). The receive buffers lie in shared
//! memory, so what the kernel filled before a SIGKILL is found by the successor.
//!
//! DEFER_TASKRUN: packets are taken from the sockets only inside our own io_uring_enter, at most one
//! such call a turn.
#![expect(unsafe_code, reason = "ring memory is shared with the kernel")]

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use super::mapped::Mapped;
use super::sockets::Sockets;
use crate::base::limits::{
    BUFFER_BYTES, BUFFER_CONTROL_BYTES, BUFFER_COUNT, BUFFER_NAME_BYTES, QUARANTINE_PACKETS,
    TURN_PACKETS_MAX,
};
use crate::base::ports::{Datagrams, Region};

/// The only buffer group of a ring.
const GROUP: u16 = 0;
/// Submission entries: requests armed again in one turn; more wait for the next.
const SUBMISSIONS: u32 = 256;
/// Bytes of one entry of a provided buffer ring (`struct io_uring_buf`).
const ENTRY_BYTES: usize = 16;
/// `struct io_uring_buf_ring`: the tail is the reserved field of the first entry.
const AT_ENTRY_TAIL: usize = 14;
/// Wait this long for a full batch before a single packet is enough; within the 5 ms of a turn.
const BATCH_WAIT_US: u32 = 2_000;

/// What happened besides packets. Counted, never logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UringCounts {
    /// Requests that ended because the buffers were used up (F21).
    pub no_buffers: u64,
    /// Requests armed again, for whatever reason.
    pub rearmed: u64,
    /// Completions that the full queue pushed into the kernel's overflow list (F20).
    pub overflows: u64,
    /// Requests that ended with another error.
    pub errors: u64,
}

/// The engine. Fields drop in this order: the ring is closed before anything it points to.
pub struct Uring {
    ring: IoUring,
    /// Entries of the provided buffer ring; the kernel holds their address until unregistered.
    entries: Mapped,
    /// The receive buffers; the kernel writes into them while requests are armed.
    buffers: Mapped,
    /// What every request says about name and control areas; read when a request is prepared.
    message: Box<libc::msghdr>,
    sockets: Sockets,
    /// Sockets whose request has ended, by number.
    ended: Vec<u32>,
    tail: u16,
    registered: bool,
    min_wait: bool,
    counts: UringCounts,
    reason: String,
}

// SAFETY: the only field that is not `Send` by itself is the boxed msghdr, whose pointers are null;
// nothing else refers to it but requests of this ring, which go with it.
// JUSTIFICATION: a worker is built where its parts are known and moved to its thread as a whole.
unsafe impl Send for Uring {}

impl Uring {
    /// Sets up a ring over `buffers` for `sockets`. Fails where the kernel or a policy does not permit
    /// what is needed (Linux 6.1).
    ///
    /// Takes nothing from any socket before [`Datagrams::start`].
    pub fn new(buffers: Mapped, sockets: Sockets) -> io::Result<Self> {
        // Every buffer may complete, and every request may end besides.
        let completions =
            (u32::from(BUFFER_COUNT) + sockets.all().len() as u32).next_power_of_two();
        Self::with(buffers, sockets, completions.clamp(2 * SUBMISSIONS, 65_536))
    }

    /// The same with a completion queue of that size.
    fn with(buffers: Mapped, sockets: Sockets, completions: u32) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_cqsize(completions)
            .build(SUBMISSIONS)?;
        let params = ring.params();
        if !params.is_feature_ext_arg() || !params.is_feature_nodrop() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "io_uring lacks timeouts or overflow lists",
            ));
        }
        let min_wait = params.is_feature_min_timeout();
        let entries = Mapped::anonymous("ring entries", BUFFER_COUNT as usize * ENTRY_BYTES)?;
        entries.populate(0, entries.bytes())?;
        // SAFETY: `entries` is page-aligned, BUFFER_COUNT entries long, and outlives the
        // registration: `drop` unregisters, and the ring field closes before it in any case.
        // JUSTIFICATION: the crate has no owner type for a provided buffer ring.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.at(0, entries.bytes()) as u64,
                BUFFER_COUNT,
                GROUP,
                0,
            )?;
        }
        let descriptors: Vec<_> = sockets.all().iter().map(AsRawFd::as_raw_fd).collect();
        let registered =
            !descriptors.is_empty() && ring.submitter().register_files(&descriptors).is_ok();
        // SAFETY: msghdr is plain data for which all zeros is a valid value (null pointers, length
        // 0).
        // JUSTIFICATION: libc's struct has private padding on some targets, so no literal.
        let mut message: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        message.msg_namelen = BUFFER_NAME_BYTES as u32;
        message.msg_controllen = BUFFER_CONTROL_BYTES;
        let ended = Vec::with_capacity(sockets.all().len() + TURN_PACKETS_MAX);
        let reason = format!(
            "multishot recvmsg into shared buffers, {} files{}",
            if registered { "registered" } else { "plain" },
            if min_wait { ", batched waits" } else { "" }
        );
        Ok(Uring {
            ring,
            entries,
            buffers,
            message,
            sockets,
            ended,
            tail: 0,
            registered,
            min_wait,
            counts: UringCounts::default(),
            reason,
        })
    }

    /// What happened so far.
    pub fn counts(&self) -> UringCounts {
        self.counts
    }

    /// Queues requests for ended sockets as far as the submission queue has room.
    fn arm(&mut self) {
        let mut queue = self.ring.submission();
        while let Some(number) = self.ended.last().copied() {
            let message: *const libc::msghdr = &raw const *self.message;
            let request = if self.registered {
                opcode::RecvMsgMulti::new(Fixed(number), message, GROUP)
            } else {
                let socket = Fd(self.sockets.all()[number as usize].as_raw_fd());
                opcode::RecvMsgMulti::new(socket, message, GROUP)
            };
            // MSG_TRUNC asks for the true length of a datagram that is cut.
            let entry = request.flags(libc::MSG_TRUNC as u32).build().user_data(u64::from(number));
            // SAFETY: `message` is boxed and lives as long as the ring; buffers come from the
            // registered group, which `drop` takes back before the memory goes.
            // JUSTIFICATION: the submission queue takes raw requests only.
            if unsafe { queue.push(&entry) }.is_err() {
                break;
            }
            self.ended.pop();
            self.counts.rearmed += 1;
        }
    }

    fn enter(&mut self, wait_ms: u64) -> io::Result<()> {
        let limit = Timespec::from(Duration::from_millis(wait_ms));
        let mut args = SubmitArgs::new().timespec(&limit);
        if self.min_wait && u64::from(BATCH_WAIT_US) < wait_ms * 1_000 {
            args = args.min_wait_usec(BATCH_WAIT_US);
        }
        match self.ring.submitter().submit_with_args(TURN_PACKETS_MAX, &args) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up, a signal came, or the overflow list must be drained first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }
}

impl Datagrams for Uring {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn reason(&self) -> &str {
        &self.reason
    }

    fn inherit(&mut self) {
        // The predecessor may have been of the other kind.
        super::recvmmsg::finish_all(&self.buffers);
    }

    fn spare(&self) -> usize {
        QUARANTINE_PACKETS
    }

    fn start(&mut self, urgent: impl Fn(u16) -> bool) -> io::Result<()> {
        for buffer in 0..BUFFER_COUNT {
            if self.head(buffer) == 0 {
                self.offer(buffer);
            }
        }
        self.publish();
        let numbers = || (0..self.sockets.all().len() as u32).rev();
        // What is steered arrives at the shared ones; each port's own is for the day when it is not.
        let is_urgent = |number: &u32| match self.sockets.port(*number as usize) {
            None => true,
            Some(port) => self.sockets.shared().is_empty() && urgent(port),
        };
        // Taken from the end.
        self.ended.extend(numbers().filter(|number| !is_urgent(number)));
        let later = self.ended.len();
        self.ended.extend(numbers().filter(is_urgent));
        while self.ended.len() > later {
            self.arm();
            self.ring.submitter().submit()?;
        }
        self.counts.rearmed = 0;
        Ok(())
    }

    fn take(&mut self, wait_ms: u64, taken: &mut Vec<u16>) -> io::Result<()> {
        // What was left over from the last turn comes first, without a system call.
        if self.ring.completion().is_empty() {
            // Sockets that are not armed yet do not wait for those that are.
            self.enter(if self.ended.is_empty() { wait_ms } else { 0 })?;
        }
        let mut queue = self.ring.completion();
        self.counts.overflows = u64::from(queue.overflow());
        while taken.len() < TURN_PACKETS_MAX {
            let Some(completion) = queue.next() else { break };
            if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                taken.push(buffer);
            }
            if !cqueue::more(completion.flags()) {
                // Also after an empty datagram, which is no end of anything.
                self.ended.push(completion.user_data() as u32);
            }
            match -completion.result() {
                libc::ENOBUFS => self.counts.no_buffers += 1,
                error if error > 0 => self.counts.errors += 1,
                _ => {}
            }
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
        view_buffer(&self.buffers, buffer, view)
    }

    #[cfg(feature = "faults")]
    fn overwrite(&mut self, buffer: u16, offset: usize, bytes: &[u8]) {
        self.buffers.copy_in(usize::from(buffer) * BUFFER_BYTES + offset, bytes);
    }

    fn offer(&mut self, buffer: u16) {
        assert!(buffer < BUFFER_COUNT, "no such buffer");
        let place = usize::from(self.tail & (BUFFER_COUNT - 1)) * ENTRY_BYTES;
        let address = self.buffers.at(usize::from(buffer) * BUFFER_BYTES, BUFFER_BYTES) as u64;
        let entry = self.entries.at(place, AT_ENTRY_TAIL);
        // SAFETY: 14 bytes at `entry` lie in the map and belong to a free entry, since there are as
        // many entries as buffers; address, length and number are written, but not the last two
        // bytes, where the first entry keeps the tail.
        // JUSTIFICATION: the layout is the kernel's and it reads it from here.
        unsafe {
            entry.cast::<u64>().write(address);
            entry.add(8).cast::<u32>().write(BUFFER_BYTES as u32);
            entry.add(12).cast::<u16>().write(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        let tail = self.entries.at(AT_ENTRY_TAIL, 2).cast::<u16>();
        // SAFETY: in the map, two-byte aligned (14 after a page), and accessed as an atomic only.
        // JUSTIFICATION: the kernel acquire-loads this very word.
        unsafe { AtomicU16::from_ptr(tail) }.store(self.tail, Ordering::Release);
        self.arm();
    }

    fn drops(&self, port: u16) -> Option<u32> {
        self.sockets.drops(port)
    }

    fn waits(&self, port: u16) -> bool {
        self.sockets.waits(port)
    }
}

/// Lends buffer number `buffer`.
pub(super) fn view_buffer<R>(buffers: &Mapped, buffer: u16, view: impl FnOnce(&[u8]) -> R) -> R {
    assert!(buffer < BUFFER_COUNT, "no such buffer");
    let start = buffers.at(usize::from(buffer) * BUFFER_BYTES, BUFFER_BYTES);
    // SAFETY: in the map (`at`) and initialised; the kernel does not write into it, because it was
    // handed back by a completion (or found after its engine's death) and is offered again only by
    // `&mut self`, which the borrow of `self` for the closure excludes.
    // JUSTIFICATION: decryption reads straight from the receive buffer.
    view(unsafe { std::slice::from_raw_parts(start, BUFFER_BYTES) })
}

impl Drop for Uring {
    fn drop(&mut self) {
        // Cancel, then unregister; the fields then close the ring and unmap, in that order. Errors
        // change nothing: closing the ring cancels what is left.
        let _ = self.ring.submitter().register_sync_cancel(None, CancelBuilder::any());
        let _ = self.ring.submitter().unregister_buf_ring(GROUP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::engine_tests;

    /// Containers may forbid io_uring; the other engine has the same tests.
    fn permitted() -> bool {
        let permitted = super::super::uring_permit::permitted();
        permitted.map_err(|error| assert!(error.raw_os_error().is_some())).is_ok()
    }

    fn make(buffers: Mapped, sockets: Sockets) -> Uring {
        Uring::new(buffers, sockets).expect("permitted")
    }

    #[test]
    fn io_uring_takes_datagrams_with_their_evidence() {
        if permitted() {
            engine_tests::takes_datagrams_with_their_evidence(make);
            engine_tests::what_a_dead_engine_took_is_found(make);
            engine_tests::what_is_kept_back_stays_whole(make);
        }
    }

    #[test]
    fn f20_f21_a_full_completion_queue_and_used_up_buffers_lose_nothing() {
        if !permitted() {
            return;
        }
        let counts = engine_tests::survives_exhaustion_and_empty_datagrams(make, Uring::counts);
        assert!(counts.rearmed > 0, "{counts:?}");
        let counts =
            engine_tests::used_up_buffers_leave_the_rest_in_the_socket(make, Uring::counts);
        assert!(counts.no_buffers > 0, "{counts:?}");
        // The smallest queue that there may be beside so many submissions: a quarter of the buffers.
        let small =
            |buffers, sockets| Uring::with(buffers, sockets, SUBMISSIONS).expect("permitted");
        let counts = engine_tests::survives_exhaustion_and_empty_datagrams(small, Uring::counts);
        assert!(counts.rearmed > 0, "a request that ended is armed again: {counts:?}");
    }

    #[test]
    fn f22_a_full_socket_queue_is_counted_exactly() {
        if permitted() {
            engine_tests::a_full_queue_is_counted_exactly(make);
        }
    }
}
