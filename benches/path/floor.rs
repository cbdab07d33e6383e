//! The floor: one socket, one multishot receive of io_uring, no control data; a packet is counted and
//! its buffer offered again. Nothing that records can cost less on this path.
#![expect(
    unsafe_code,
    reason = "ring memory is shared with the kernel, and the product's is its own"
)]

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use floortape::host::socket;
use io_uring::types::{BufRingEntry, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use socket2::{Domain, Socket, Type};

/// As many buffers as the product has, and as large.
const BUFFERS: u16 = floortape::base::limits::BUFFER_COUNT;
const BUFFER_BYTES: usize = floortape::base::limits::BUFFER_BYTES;
const QUEUE_BYTES: usize = 32 << 20;
/// Waits for half the buffers, or so long.
const WAIT: Duration = Duration::from_millis(5);

/// A provided buffer ring: page-aligned, as the kernel wants it.
#[repr(C, align(4096))]
struct Entries([[u8; size_of::<BufRingEntry>()]; BUFFERS as usize]);

/// Never freed: the kernel writes into both until the process ends.
struct Buffers {
    entries: *mut BufRingEntry,
    bytes: *mut u8,
    tail: u16,
}

impl Buffers {
    fn new() -> Self {
        let entries = Box::new(Entries([[0; size_of::<BufRingEntry>()]; BUFFERS as usize]));
        let bytes = vec![0_u8; usize::from(BUFFERS) * BUFFER_BYTES].leak();
        Buffers {
            entries: (&raw mut *Box::leak(entries)).cast(),
            bytes: bytes.as_mut_ptr(),
            tail: 0,
        }
    }

    fn offer(&mut self, buffer: u16) {
        assert!(buffer < BUFFERS, "no such buffer");
        let place = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: both offsets lie in what `new` leaked, checked above and by the mask; an entry is
        // plain data, and this one is free, since there are as many entries as buffers.
        // JUSTIFICATION: the kernel reads the entries from this very memory.
        unsafe {
            let entry = &mut *self.entries.add(place);
            entry.set_addr(self.bytes.add(usize::from(buffer) * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: `entries` is the ring's first entry and lives for ever; its tail is two-byte aligned
        // and only ever accessed as an atomic.
        // JUSTIFICATION: the kernel acquire-loads this very word.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Receives and discards until nothing comes any more; prints what came as JSON.
pub(crate) fn run(address: SocketAddr) {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).expect("a socket");
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES).expect("root");
    socket.bind(&address.into()).expect("a free port");
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_cqsize(4 * u32::from(BUFFERS))
        .build(8)
        .expect("io_uring is permitted");
    let mut buffers = Buffers::new();
    // SAFETY: page-aligned, BUFFERS entries long, never freed.
    // JUSTIFICATION: the crate has no owner type for a provided buffer ring.
    unsafe { ring.submitter().register_buf_ring_with_flags(buffers.entries as u64, BUFFERS, 0, 0) }
        .expect("Linux 5.19");
    ring.submitter().register_files(&[socket.as_raw_fd()]).expect("one file");
    (0..BUFFERS).for_each(|buffer| buffers.offer(buffer));
    buffers.publish();
    println!("ready");

    let (mut packets, mut is_armed, mut last) = (0_u64, false, Instant::now());
    let wait = Timespec::from(WAIT);
    while packets == 0 || last.elapsed() < Duration::from_millis(crate::IDLE_MS) {
        if !is_armed {
            let request = opcode::RecvMulti::new(Fixed(0), 0).build();
            // SAFETY: the request names no memory of ours but the buffers, which are never freed.
            // JUSTIFICATION: the submission queue takes raw requests only.
            unsafe { ring.submission().push(&request) }.expect("an empty queue");
            is_armed = true;
        }
        let args = SubmitArgs::new().timespec(&wait);
        match ring.submitter().submit_with_args(usize::from(BUFFERS / 2), &args) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => {}
            Err(error) => panic!("io_uring_enter: {error}"),
        }
        let before = packets;
        for completion in ring.completion() {
            if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                packets += 1;
                buffers.offer(buffer);
            }
            is_armed &= cqueue::more(completion.flags());
        }
        if packets > before {
            buffers.publish();
            last = Instant::now();
        }
    }
    let drops = socket::drops(socket.as_fd()).expect("Linux 4.12");
    println!("{{\"kept\":{packets},\"drops\":{drops}}}");
}
