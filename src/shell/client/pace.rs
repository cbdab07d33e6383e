//! The sending threads: each owns a share of the streams and sends by absolute intended times.

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

/// Streams of one thread: 1,000 × 50 packets/s × some 5 µs is a quarter of a core.
const LEGS_PER_THREAD: usize = 1_000;
/// Longest sleep, so that a stop is noticed, in ns.
const SLEEP_NS_MAX: u64 = 2_000_000;

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

/// A thread's legs and how late they were.
type Share = (Vec<Leg>, Lateness);

/// Streams being sent in the background.
pub struct Pace {
    threads: Vec<JoinHandle<Result<Share, ProtectError>>>,
    stop: Arc<AtomicBool>,
}

impl Pace {
    /// Sends `packets` packets of every leg (fewer where its source ends) from `start` on.
    pub fn start(legs: Vec<Leg>, start: Mono, packets: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let mut rest = legs;
        while !rest.is_empty() {
            let share: Vec<Leg> = rest.drain(..rest.len().min(LEGS_PER_THREAD)).collect();
            let stop = stop.clone();
            threads.push(thread::spawn(move || send(share, start, packets, &stop)));
        }
        Pace { threads, stop }
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
    pub fn join(self) -> Result<Share, ProtectError> {
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

fn send(
    mut legs: Vec<Leg>,
    start: Mono,
    packets: u64,
    stop: &AtomicBool,
) -> Result<Share, ProtectError> {
    let clock = SystemClock;
    let mut lateness = Lateness::default();
    let mut rota = Rota::new(start, legs.len());
    let wanted = |leg: &Leg| leg.sender.packets() < packets && !leg.sender.is_done();
    while !stop.load(Ordering::Relaxed) && legs.iter().any(wanted) {
        // A whole round between two looks at the stop flag: at most one period.
        for _ in 0..legs.len() {
            let (now, due) = (clock.map(), rota.due());
            let Some((place, _)) = rota.take(now.mono) else {
                let wait = due.since(now.mono).min(SLEEP_NS_MAX);
                thread::sleep(Duration::from_nanos(wait));
                break;
            };
            if wanted(&legs[place]) {
                lateness.note(now.mono.since(due));
                legs[place].turn(now)?;
            }
        }
    }
    for leg in &mut legs {
        leg.end(clock.map())?;
    }
    Ok((legs, lateness))
}
