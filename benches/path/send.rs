//! The generator: flows of G.711 packets at a fixed pace, protected on the fly by webrtc-srtp, sent
//! in the rhythm of `floortape src call --one-port`: all that is due at each tick, from one socket.
//! Open loop: whoever receives does not slow it, and it says itself what it was late with.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use floortape::base::ids::{Seq, Ssrc};
use floortape::client::Protector;
use floortape::host::sendmmsg::Sendmmsg;
use floortape::wire::rtp::Fields;

use crate::{FILL, HEADER_BYTES, PAYLOAD_BYTES, SUITE};

/// As the built-in client: a tick each 5 ms for each 1,000 flows of 50 packets/s.
const TICK: Duration = Duration::from_millis(5);
const RATE_PER_TICK: u64 = 50_000;
/// A packet that leaves so long after its time is late: a period of G.711, as the client counts.
const LATE: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Counts {
    sent: u64,
    unsent: u64,
    late: u64,
    worst: Duration,
}

/// Packet `number` of a flow.
fn packet(flow: usize, number: u64) -> [u8; HEADER_BYTES + PAYLOAD_BYTES] {
    let fields = Fields {
        marker: number == 0,
        payload_type: 0,
        seq: Seq(number as u16),
        timestamp: (number as u32).wrapping_mul(PAYLOAD_BYTES as u32),
        ssrc: Ssrc(0x4654_0000 + flow as u32),
    };
    let mut bytes = [FILL; HEADER_BYTES + PAYLOAD_BYTES];
    bytes[..HEADER_BYTES].copy_from_slice(&fields.emit());
    bytes
}

/// Sends `per_second` packets a second of each flow; prints what it did as JSON.
pub(crate) fn run(flows: Vec<SocketAddr>, per_second: usize, seconds: usize, is_srtp: bool) {
    let mut protector = Protector::new(SUITE, &crate::key(), None).expect("the suite's length");
    let mut batch = Sendmmsg::bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).expect("a port");
    let all = (flows.len() * per_second * seconds) as u64;
    // Intended times: the flows take turns, evenly.
    let rate = (flows.len() * per_second) as u64;
    let due = |number: u64| Duration::from_nanos(number * 1_000_000_000 / rate);
    let tick = TICK / rate.div_ceil(RATE_PER_TICK) as u32;
    let begin = Instant::now();
    let (mut counts, mut next, mut ticks) = (Counts::default(), 0, 0);
    while next < all {
        ticks += 1;
        thread::sleep((tick * ticks).saturating_sub(begin.elapsed()));
        let now = begin.elapsed();
        let mut first = next;
        while next < all && due(next) <= now {
            let flow = (next % flows.len() as u64) as usize;
            let clear = packet(flow, next / flows.len() as u64);
            let wire = if is_srtp {
                protector.seal_rtp(&clear).expect("a whole packet")
            } else {
                Bytes::copy_from_slice(&clear)
            };
            next += 1;
            if batch.push(flow, wire, flows[flow]) {
                counts.flush(&mut batch, begin, first..next, due);
                first = next;
            }
        }
        counts.flush(&mut batch, begin, first..next, due);
    }
    println!(
        "{{\"sent\":{},\"unsent\":{},\"late\":{},\"late_ms_max\":{}}}",
        counts.sent,
        counts.unsent,
        counts.late,
        counts.worst.as_millis()
    );
}

impl Counts {
    /// Sends the batch, which is packets `numbers`.
    fn flush(
        &mut self,
        batch: &mut Sendmmsg,
        begin: Instant,
        numbers: std::ops::Range<u64>,
        due: impl Fn(u64) -> Duration,
    ) {
        let mut unsent = 0;
        batch.flush(|_| unsent += 1);
        self.unsent += unsent;
        self.sent += numbers.end - numbers.start - unsent;
        let now = begin.elapsed();
        for number in numbers {
            let late = now.saturating_sub(due(number));
            self.late += u64::from(late > LATE);
            self.worst = self.worst.max(late);
        }
    }
}
