//! The sending threads: each owns a share of the streams and sends by absolute intended times, all
//! that is due at each of its ticks. A load that shares the machine with what it measures must cost
//! little: no sleep, no look at a clock and no allocation of ours for each packet.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::leg::Leg;
use crate::base::ports::Clock;
use crate::base::time::Mono;
use crate::client::rota::PERIOD_NS;
use crate::client::{ProtectError, Rota};
use crate::host::clock::SystemClock;
use crate::host::sendmmsg::{BATCH, Sendmmsg};

/// Streams of one thread: 1,000 × 50 packets/s × some 8 µs, most of them the kernel's on both sides
/// of loopback, is less than half a core.
const LEGS_PER_THREAD: usize = 1_000;
/// A thread wakes so often, ns: a packet leaves at most so long after its time, a quarter of a period.
const TICK_NS: u64 = 5_000_000;

/// How well intended times were kept: a load that was late did not offer what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    /// Packets that left more than a period after their time.
    pub packets: u64,
    /// The latest of all, ns.
    pub worst_ns: u64,
}

impl Lateness {
    fn note(&mut self, late_ns: u64) {
        self.packets += u64::from(late_ns > PERIOD_NS);
        self.worst_ns = self.worst_ns.max(late_ns);
    }

    fn add(&mut self, other: Lateness) {
        self.packets += other.packets;
        self.worst_ns = self.worst_ns.max(other.worst_ns);
    }
}

/// Legs that are through, and how late they were.
type Sent = (Vec<Leg>, Lateness);

/// Streams being sent in the background.
pub struct Pace {
    threads: Vec<JoinHandle<Result<Sent, ProtectError>>>,
    stop: Arc<AtomicBool>,
}

impl Pace {
    /// Sends `packets` packets of every leg (fewer where its source ends) from `start` on, where
    /// `from` is an address all of a thread from one port of it.
    pub fn start(
        legs: Vec<Leg>,
        start: Mono,
        packets: u64,
        from: Option<IpAddr>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let count = legs.len().div_ceil(LEGS_PER_THREAD) as u64;
        let mut rest = legs;
        while !rest.is_empty() {
            let legs: Vec<Leg> = rest.drain(..rest.len().min(LEGS_PER_THREAD)).collect();
            let stop = stop.clone();
            // The threads tick in turn: all at once would take every core from the server.
            let ticks_from = Mono(start.0 + threads.len() as u64 * TICK_NS / count);
            let batch = from.map(Sendmmsg::bind).transpose()?;
            let (rota, lateness) = (Rota::new(start, legs.len()), Lateness::default());
            let share = Share { legs, rota, packets, batch, lateness };
            threads.push(thread::spawn(move || share.send_all(ticks_from, &stop)));
        }
        Ok(Pace { threads, stop })
    }

    /// Whether all has been sent.
    pub fn is_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Ends early, with final reports all the same.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The legs, in the order in which they came, and how late they were.
    pub fn join(self) -> Result<Sent, ProtectError> {
        let (mut legs, mut lateness) = (Vec::new(), Lateness::default());
        for thread in self.threads {
            let (share, late) =
                thread.join().expect("a sending thread panics only on a bug of ours")?;
            legs.extend(share);
            lateness.add(late);
        }
        Ok((legs, lateness))
    }
}

/// What a thread works through, round after round.
struct Share {
    legs: Vec<Leg>,
    rota: Rota,
    packets: u64,
    batch: Option<Sendmmsg>,
    lateness: Lateness,
}

impl Share {
    fn send_all(mut self, ticks_from: Mono, stop: &AtomicBool) -> Result<Sent, ProtectError> {
        let clock = SystemClock;
        while !stop.load(Ordering::Relaxed) && self.legs.iter().any(|leg| self.wants(leg)) {
            self.send_due(&clock)?;
            let now = clock.mono();
            if self.rota.due() > now {
                thread::sleep(Duration::from_nanos(to_next_tick(now, ticks_from)));
            }
        }
        for leg in &mut self.legs {
            leg.end(clock.map())?;
        }
        Ok((self.legs, self.lateness))
    }

    fn wants(&self, leg: &Leg) -> bool {
        leg.sender.periods() < self.packets && !leg.sender.is_done()
    }

    /// Sends what is due, at most one packet of each leg: then the stop flag is looked at again.
    fn send_due(&mut self, clock: &SystemClock) -> Result<(), ProtectError> {
        let mut now = clock.map();
        for taken in 1..=self.legs.len() {
            let due = self.rota.due();
            let Some((place, _)) = self.rota.take(now.mono) else { break };
            if self.wants(&self.legs[place]) {
                self.lateness.note(now.mono.since(due));
                if self.legs[place].turn(now, place, self.batch.as_mut())? {
                    self.flush();
                }
            }
            if taken.is_multiple_of(BATCH) {
                now = clock.map();
            }
        }
        self.flush();
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(batch) = &mut self.batch {
            batch.flush(|place| self.legs[place].unsent += 1);
        }
    }
}

/// From `now` until the next of the ticks that go by in [`TICK_NS`] from `first` on, ns.
fn to_next_tick(now: Mono, first: Mono) -> u64 {
    match first.since(now) {
        0 => TICK_NS - now.since(first) % TICK_NS,
        wait => wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stay_on_their_grid() {
        let first = Mono(1_000);
        assert_eq!(to_next_tick(Mono(400), first), 600);
        assert_eq!(to_next_tick(first, first), TICK_NS);
        assert_eq!(to_next_tick(Mono(1_000 + 3 * TICK_NS + 1), first), TICK_NS - 1);
        assert_eq!(to_next_tick(Mono(1_000 + 3 * TICK_NS - 1), first), 1);
    }
}
