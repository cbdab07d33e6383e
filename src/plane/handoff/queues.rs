//! What ties a worker to the command thread of its process: bounded queues and a gauge. Nobody
//! waits: a full queue is an answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam::queue::ArrayQueue;

use super::frame::Envelope;
use crate::base::limits::WORKER_QUEUE;
use crate::base::time::Mono;
use crate::store::event::HostDrops;

/// The host's drop counters at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSample {
    /// When they were read.
    pub at: Mono,
    /// Totals since boot.
    pub drops: HostDrops,
}

/// Figures that a worker publishes each second.
#[derive(Debug, Default)]
pub struct Gauge {
    /// p50, p99, p99.9 and maximum of wire→captured since the start, ns.
    captured_ns: [AtomicU64; 4],
    /// The same of a turn's length.
    turn_ns: [AtomicU64; 4],
    /// Datagrams of a predecessor that were found in the receive buffers, since this process began.
    recovered: AtomicU64,
    engine: OnceLock<(String, String)>,
}

impl Gauge {
    /// Publishes the quantiles.
    pub fn set_captured_ns(&self, quantiles: [u64; 4]) {
        for (cell, value) in self.captured_ns.iter().zip(quantiles) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// The quantiles last published.
    pub fn captured_ns(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|place: usize| self.captured_ns[place].load(Ordering::Relaxed))
    }

    /// Publishes the quantiles of a turn's length.
    pub fn set_turn_ns(&self, quantiles: [u64; 4]) {
        for (cell, value) in self.turn_ns.iter().zip(quantiles) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Those last published.
    pub fn turn_ns(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|place: usize| self.turn_ns[place].load(Ordering::Relaxed))
    }

    /// Counts datagrams that a predecessor had taken from the sockets and not recorded.
    pub fn add_recovered(&self, datagrams: u32) {
        self.recovered.fetch_add(u64::from(datagrams), Ordering::Relaxed);
    }

    /// Their number so far.
    pub fn recovered(&self) -> u64 {
        self.recovered.load(Ordering::Relaxed)
    }

    /// Says which engine receives, and why; the first one stays.
    pub fn set_engine(&self, name: &str, reason: &str) {
        let _ = self.engine.set((name.to_owned(), reason.to_owned()));
    }

    /// Name and reason of the engine; empty before the worker has started.
    pub fn engine(&self) -> (String, String) {
        self.engine.get().cloned().unwrap_or_default()
    }
}

/// Both directions of one worker. Clones are the same queues.
#[derive(Clone)]
pub struct Queues {
    /// Open, Update, Close and Note, with their request ids.
    pub commands: Arc<ArrayQueue<Envelope>>,
    /// Their answers, with the same ids, and notices (id 0).
    pub answers: Arc<ArrayQueue<Envelope>>,
    /// Samples of the host's drop counters, about one a second.
    pub host: Arc<ArrayQueue<HostSample>>,
    /// Figures for `Stats`.
    pub gauge: Arc<Gauge>,
}

impl Default for Queues {
    fn default() -> Self {
        Queues {
            commands: Arc::new(ArrayQueue::new(WORKER_QUEUE)),
            answers: Arc::new(ArrayQueue::new(WORKER_QUEUE)),
            host: Arc::new(ArrayQueue::new(8)),
            gauge: Arc::default(),
        }
    }
}
