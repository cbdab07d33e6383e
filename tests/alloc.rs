//! No allocation and no page fault per packet: 100,000 SRTP packets through a real engine, a real
//! ring and the real worker, counted by the allocator and by the kernel.

mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use floortape::base::counter::Counter;
use floortape::base::ids::{Index, Seq, Ssrc};
use floortape::base::ports::Region;
use floortape::base::secret::MasterKey;
use floortape::base::suite::{Agreed, Suite};
use floortape::config::model::Engine;
use floortape::plane::handoff::layout::{AT_COUNTERS, AT_DURABLE, AT_SEALED, AT_TAIL};
use floortape::proto::srtp::Context;
use floortape::wire::rtcp::Writer;
use floortape::wire::rtp::Fields;

use rig::{Rig, SUITE, apart, master, packet};

thread_local! {
    /// Allocations of this thread.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the count is a thread-local cell
// without a destructor, so that counting allocates nothing.
// JUSTIFICATION: there is no other way to see each allocation.
#[expect(unsafe_code, reason = "a counting allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Minor page faults of this thread.
#[expect(unsafe_code, reason = "no crate we use wraps RUSAGE_THREAD")]
fn faults() -> i64 {
    // SAFETY: rusage is plain data for which zeros are valid, and the kernel fills it.
    // JUSTIFICATION: see above.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &mut usage), 0);
        usage.ru_minflt
    }
}

/// One window is a second or less of work, so that what a worker writes about itself (a clock map
/// each ten seconds) falls into few of them.
const WINDOW: u64 = 5_000;
const WINDOWS: u64 = 20;
const STREAMS: u32 = 8;

/// `broken`: beside each so many packets comes one that does not verify, and waits in quarantine.
fn measure(engine: Engine, rig: &Rig, broken: Option<u64>) {
    let mut worker = rig.worker(engine);
    let context = Context::new(SUITE, &master(1)).expect("length");
    for slot in 0..STREAMS {
        rig.open(&mut worker, slot, Some(1));
    }
    let recorded = || rig.state.load(AT_COUNTERS + Counter::RtpRecorded as usize * 8);
    let targets: Vec<std::net::SocketAddr> = rig
        .rtp_ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}").parse().expect("address"))
        .collect();
    let mut out = [0; 256];
    let mut sent = 0_u64;
    let mut window = || {
        let end = sent + WINDOW;
        let deadline = Instant::now() + Duration::from_secs(60);
        while recorded() < end {
            assert!(Instant::now() < deadline, "{} of {end} packets recorded", recorded());
            for _ in 0..(end - sent).min(200) {
                let stream = (sent % u64::from(STREAMS)) as u32;
                let number = sent / u64::from(STREAMS);
                let length = packet(Some(&context), stream + 1, number, &mut out);
                rig.sender.send_to(&out[..length], targets[stream as usize]).expect("loopback");
                if broken.is_some_and(|each| sent.is_multiple_of(each)) {
                    out[length - 1] ^= 1;
                    rig.sender.send_to(&out[..length], targets[stream as usize]).expect("loopback");
                }
                sent += 1;
            }
            worker.turn().expect("the engine works");
            // What the spool would do.
            let tail = rig.state.load(AT_TAIL);
            rig.state.store(AT_DURABLE, tail);
            rig.state.store(AT_SEALED, tail);
        }
    };
    // Sources are admitted and announced, code and stack pages touched.
    window();
    let mut busy = Vec::new();
    for number in 0..WINDOWS {
        let before = (ALLOCATIONS.with(Cell::get), faults());
        window();
        let grown = (ALLOCATIONS.with(Cell::get) - before.0, faults() - before.1);
        if grown != (0, 0) {
            busy.push((number, grown));
        }
    }
    eprintln!("{engine:?}: busy windows of {WINDOWS}: {busy:?}");
    // One packet in 5,000 that allocated or faulted would make every window busy. What was refused becomes
    // evidence once a second.
    let busy_max = if broken.is_some() { 8 } else { 3 };
    assert!(busy.len() <= busy_max, "(window, (allocations, faults)) of {engine:?}: {busy:?}");
    let total = busy.iter().map(|(_, (allocations, faults))| allocations + *faults as u64);
    assert_eq!(rig.packets().len() as u64, WINDOW * (WINDOWS + 1), "all are in the ring");
    assert!(
        total.sum::<u64>() < if broken.is_some() { 800 } else { 200 },
        "of {} packets, {engine:?}: {busy:?}",
        WINDOW * WINDOWS
    );
}

#[test]
fn no_suite_allocates_for_a_packet() {
    let in_clear = |suite: Suite| Agreed::from(suite).in_clear(!suite.is_aead(), true);
    let all = Suite::ALL.into_iter();
    for agreed in all.clone().map(Agreed::from).chain(all.filter_map(in_clear)) {
        let master = MasterKey::new(&[7; 46][..agreed.suite().master_bytes()]).expect("fits");
        let context = Context::new(agreed, &master).expect("its length");
        let (seq, ssrc) = (Seq(9), Ssrc(1));
        let fields = Fields { marker: false, payload_type: 0, seq, timestamp: 0, ssrc };
        let rtp = [&fields.emit()[..], &[0xd5; 160]].concat();
        let mut rtcp = [0; 100];
        let mut writer = Writer::new(&mut rtcp);
        writer.receiver_report(ssrc, &[]).expect("room");
        let bytes = writer.length();
        let (mut wire, mut out) = ([0; 256], [0; 256]);
        let before = ALLOCATIONS.with(Cell::get);
        let length = context.protect_rtp(&rtp, Index(9), &mut wire).expect("room");
        assert_eq!(context.unprotect_rtp(&wire[..length], Index(9), &mut out), Ok(172));
        let length = context.protect_rtcp(&rtcp[..bytes], 1, &mut wire).expect("room");
        assert_eq!(context.unprotect_rtcp(&wire[..length], &mut out), Ok((bytes, 1)));
        assert_eq!(ALLOCATIONS.with(Cell::get), before, "{agreed}");
    }
}

#[test]
fn no_packet_allocates_or_faults() {
    if floortape::host::uring_permit::permitted().is_ok() {
        measure(Engine::IoUring, &Rig::new(STREAMS, 51_000), None);
        measure(Engine::IoUring, &Rig::steered(STREAMS, 51_000), None);
    }
    measure(Engine::Recvmmsg, &Rig::new(STREAMS, 52_000), None);
    measure(Engine::Recvmmsg, &Rig::steered(STREAMS, 52_000), None);
}

#[test]
fn no_diverted_frame_allocates_or_faults() {
    apart("alloc", || measure(Engine::Xdp, &Rig::diverted(STREAMS, 55_000), None));
    apart("alloc", || measure(Engine::Xdp, &Rig::diverted(STREAMS, 55_000), Some(50)));
}

#[test]
fn f36_what_waits_for_its_key_allocates_nothing() {
    if floortape::host::uring_permit::permitted().is_ok() {
        measure(Engine::IoUring, &Rig::new(STREAMS, 53_000), Some(50));
    }
    measure(Engine::Recvmmsg, &Rig::new(STREAMS, 54_000), Some(50));
}
