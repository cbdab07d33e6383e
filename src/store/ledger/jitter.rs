//! How unevenly the packets of a source arrived: interarrival jitter (RFC 3550 §6.4.1), over all of its
//! packets. The worker keeps the estimate of the moment for its reports; this is what was recorded.

use crate::base::time::Wall;
use crate::store::catalog::model::Jitter;

/// Longer than this between two packets is a pause of the sender, not their jitter: it begins anew behind it.
const PAUSE_NS: i64 = 10_000_000_000;

/// The estimate over the packets so far, in milliseconds: every compared figure of it is of the first 52 bits.
#[derive(Clone, Debug, Default)]
pub(super) struct Jitters {
    last: Option<Last>,
    /// RTP clock of `last`, in ms a tick.
    tick_ms: f64,
    estimate: f64,
    sum: f64,
    count: u64,
    most: f64,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    arrival: Wall,
    timestamp: u32,
    rate: u32,
}

impl Jitters {
    /// Takes a packet in the order of arrival; `rate`: ticks a second of its RTP clock. What has no rate, or another
    /// one than the packet before, has no distance to that.
    pub(super) fn packet(&mut self, arrival: Wall, timestamp: u32, rate: u32) {
        let last = self.last.replace(Last { arrival, timestamp, rate });
        let Some(last) = last.filter(|last| last.rate == rate && rate > 0) else {
            self.tick_ms = if rate > 0 { 1_000.0 / f64::from(rate) } else { 0.0 };
            return;
        };
        let passed = arrival.0.saturating_sub(last.arrival.0);
        if !(0..PAUSE_NS).contains(&passed) {
            return;
        }
        let media = f64::from(timestamp.wrapping_sub(last.timestamp) as i32) * self.tick_ms;
        let distance = (passed as f64 / 1e6 - media).abs();
        // The sender's clock was set anew (a new talk spurt after silence is none).
        if distance >= PAUSE_NS as f64 / 1e6 {
            return;
        }
        self.estimate += (distance - self.estimate) / 16.0;
        self.sum += self.estimate;
        self.count += 1;
        self.most = self.most.max(self.estimate);
    }

    /// `None`: there are no two packets to compare.
    pub(super) fn told(&self) -> Option<Jitter> {
        let us = |ms: f64| (ms * 1e3).round() as u64;
        (self.count > 0).then(|| Jitter {
            mean_us: us(self.sum / self.count as f64),
            max_us: us(self.most),
            last_us: us(self.estimate),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn of(packets: impl IntoIterator<Item = (i64, u32, u32)>) -> Option<Jitter> {
        let mut jitters = Jitters::default();
        for (at, timestamp, rate) in packets {
            jitters.packet(Wall(at), timestamp, rate);
        }
        jitters.told()
    }

    #[test]
    fn a_steady_stream_has_none_and_one_packet_says_nothing() {
        let steady = |n: i64| (n * 20 * MS, (n * 160) as u32, 8_000);
        assert_eq!(of((0..100).map(steady)), Some(Jitter { mean_us: 0, max_us: 0, last_us: 0 }));
        assert_eq!(of([steady(0)]), None);
        assert_eq!(of([]), None);
    }

    #[test]
    fn alternating_packets_settle_at_their_deviation() {
        // Every other packet is 5 ms late: the distance is 5 ms each time.
        let late = |n: i64| (n * 20 * MS + n % 2 * 5 * MS, (n * 960) as u32, 48_000);
        let found = of((0..500).map(late)).expect("packets");
        assert_eq!((found.max_us, found.last_us), (5_000, 5_000));
        // Of 499 steps the first some sixteen are on the way up.
        assert!((4_800..4_900).contains(&found.mean_us), "{found:?}");
    }

    #[test]
    fn order_on_the_wire_and_the_wrap_of_the_clock_do_no_harm() {
        // Overtaken by its follower: RTP time goes back by 20 ms while 1 ms passes.
        let found = of([(0, 160, 8_000), (MS, 0, 8_000)]).expect("two");
        assert_eq!(found.last_us, 21_000 / 16 + 1);
        let wrapped = of([(0, u32::MAX - 59, 8_000), (20 * MS, 100, 8_000)]).expect("two");
        assert_eq!(wrapped.last_us, 0);
    }

    #[test]
    fn a_pause_a_clock_set_anew_and_another_format_are_no_jitter() {
        let hour = 3_600_000 * MS;
        assert_eq!(of([(0, 0, 8_000), (hour, 160, 8_000)]), None);
        assert_eq!(of([(0, 0, 8_000), (20 * MS, 1 << 31, 8_000)]), None);
        assert_eq!(of([(0, 0, 8_000), (20 * MS, 960, 48_000)]), None);
        assert_eq!(of([(0, 0, 0), (20 * MS, 960, 0), (i64::MAX, 1, 0)]), None);
        let found = of([(0, 0, 8_000), (hour, 9, 8_000), (hour + 20 * MS, 169, 8_000)]);
        assert_eq!(found.map(|found| found.max_us), Some(0), "it goes on behind");
    }
}
