//! The health line: once a minute, and at the end, one line by which an operator sees that media
//! keeps up, or what it loses and where.

use std::fmt::Write as _;

use crate::base::counter::Counter;
use crate::base::time::Mono;
use crate::plane::handoff::frame::WorkerStats;

/// Time between two lines.
const EVERY_MS: u64 = 60_000;

/// What the line before was about.
pub(super) struct Health {
    since: Mono,
    due: Mono,
    counters: [u64; Counter::ALL.len()],
}

/// What of the state the workers' figures do not hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Now {
    /// Streams open.
    pub(super) streams: usize,
    /// Datagrams that the sockets of these streams dropped.
    pub(super) socket_drops: u64,
    /// Minutes of the present load that fit on the disk.
    pub(super) minutes_left: Option<u64>,
    /// The disk has not answered for so long.
    pub(super) disk_hangs_s: Option<u64>,
}

impl Health {
    /// Begins at `now`, with what a predecessor has counted already.
    pub(super) fn new(now: Mono, stats: &[WorkerStats]) -> Self {
        Health { since: now, due: now.plus_ms(EVERY_MS), counters: sum(stats) }
    }

    /// The line, where one is due.
    pub(super) fn line(&mut self, now: Mono, stats: &[WorkerStats], state: Now) -> Option<String> {
        if now < self.due {
            return None;
        }
        self.due = now.plus_ms(EVERY_MS);
        Some(self.line_now(now, stats, state))
    }

    /// The line about the time since the one before.
    pub(super) fn line_now(&mut self, now: Mono, stats: &[WorkerStats], state: Now) -> String {
        let counters = sum(stats);
        let seconds = (now.since(self.since) as f64 / 1e9).max(1e-3);
        let grown = |counter: Counter| {
            counters[counter as usize].saturating_sub(self.counters[counter as usize])
        };
        let packets = grown(Counter::RtpRecorded) as f64 / seconds;
        let mut line = format!("health: {} streams, {packets:.0} packets/s", state.streams);
        let mut dropped: Vec<(&str, u64)> = Counter::ALL
            .into_iter()
            .filter(|counter| {
                !matches!(
                    counter,
                    Counter::RtpRecorded | Counter::RtcpRecorded | Counter::KeepAlive
                )
            })
            .map(|counter| (counter.label(), grown(counter)))
            .collect();
        dropped.push(("socket", state.socket_drops));
        dropped.retain(|(_, count)| *count > 0);
        let dropped: Vec<_> =
            dropped.iter().map(|(label, count)| format!("{label} {count}")).collect();
        let dropped = if dropped.is_empty() { "nothing".to_owned() } else { dropped.join(" ") };
        let _ = write!(line, ", dropped {dropped}");
        if let Some(minutes) = state.minutes_left {
            let _ = write!(line, ", disk {minutes} min left");
        }
        if let Some(seconds) = state.disk_hangs_s {
            let _ = write!(line, ", disk has not answered for {seconds} s");
        }
        for worker in stats {
            let held = worker.tail.0 - worker.durable.min(worker.sealed).0;
            let fill = held as f64 * 100.0 / worker.ring_bytes.max(1) as f64;
            let behind = (worker.tail.0 - worker.durable.0) >> 10;
            let _ = write!(
                line,
                "; worker {} {}: ring {fill:.1} %, disk {behind} KiB and {:.1} s behind, \
                 wire→captured {}, captured→durable {}, turn {}",
                worker.worker.0,
                worker.engine,
                worker.lag_ms as f64 / 1e3,
                quantiles(worker.captured_ns),
                quantiles(worker.durable_ns),
                quantiles(worker.turn_ns)
            );
            if let Some(error) = &worker.disk_error {
                let _ = write!(line, ", disk failed: {error}");
            }
            if let Some(warning) = &worker.disk_warning {
                let _ = write!(line, ", disk: {warning}");
            }
        }
        (self.since, self.counters) = (now, counters);
        line
    }
}

fn sum(stats: &[WorkerStats]) -> [u64; Counter::ALL.len()] {
    let mut sum = [0; Counter::ALL.len()];
    for worker in stats {
        for (sum, count) in sum.iter_mut().zip(&worker.counters) {
            *sum += count;
        }
    }
    sum
}

fn quantiles([p50, p99, p999, max]: [u64; 4]) -> String {
    let ms = |ns: u64| format!("{:.2}", ns as f64 / 1e6);
    format!("p50 {} p99 {} p99.9 {} max {} ms", ms(p50), ms(p99), ms(p999), ms(max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{Position, WorkerId};

    fn stats(recorded: u64, forged: u64) -> Vec<WorkerStats> {
        let mut counters = vec![0; Counter::ALL.len()];
        counters[Counter::RtpRecorded as usize] = recorded;
        counters[Counter::AuthFailed as usize] = forged;
        vec![WorkerStats {
            worker: WorkerId(0),
            counters,
            tail: Position(3_000_000),
            durable: Position(2_951_952),
            sealed: Position(2_000_000),
            ring_bytes: 10_000_000,
            engine: "io_uring".to_owned(),
            lag_ms: 1_500,
            captured_ns: [100_000, 200_000, 300_000, 4_000_000],
            ..WorkerStats::default()
        }]
    }

    #[test]
    fn a_line_a_minute_says_what_grew_since_the_one_before() {
        let mut health = Health::new(Mono(0), &stats(1_000, 2));
        let state = Now { streams: 7, minutes_left: Some(512), ..Now::default() };
        assert_eq!(health.line(Mono(59_999_000_000), &stats(2_000, 2), state), None);
        let line = health.line(Mono(60_000_000_000), &stats(61_000, 2), state).expect("is due");
        assert!(
            line.starts_with(
                "health: 7 streams, 1000 packets/s, dropped nothing, disk 512 min left;"
            ),
            "{line}"
        );
        assert!(line.contains("ring 10.0 %, disk 46 KiB and 1.5 s behind"), "{line}");
        assert!(line.contains("captured p50 0.10 p99 0.20 p99.9 0.30 max 4.00 ms"), "{line}");
        let state = Now { streams: 7, socket_drops: 3, ..Now::default() };
        let line = health.line_now(Mono(61_000_000_000), &stats(61_050, 6), state);
        assert!(line.contains(" 50 packets/s, dropped auth_failed 4 socket 3;"), "{line}");
    }
}
