//! When to report (RFC 3550 §6.2, §6.3).

use crate::base::prng::Prng;

/// The deterministic interval. Two members and a few hundred octets a report stay far below 5 % of
/// any stream's bandwidth, so the minimum of RFC 3550 §6.2 is what counts.
pub const INTERVAL_MS: u64 = 5_000;

/// Milliseconds to the next report: the interval times a random factor of 0.5 to 1.5 (§6.3.1), half
/// of that before the first one (§6.2), so that a pinhole opens soon after the answer.
///
/// No timer reconsideration, since a stream has two members; so no division by e - 3/2 either,
/// which only makes up for it. RFC 6263 wants something at least every 15 s: the longest is 7.5 s.
pub fn delay(prng: &mut Prng, first: bool) -> u64 {
    let interval = if first { INTERVAL_MS / 2 } else { INTERVAL_MS };
    interval / 2 + prng.below(interval + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_fill_the_whole_range_and_average_five_seconds() {
        let mut prng = Prng::new(0x5eed_0201);
        let delays: Vec<_> = (0..10_000).map(|_| delay(&mut prng, false)).collect();
        assert!(delays.iter().all(|ms| (2_500..=7_500).contains(ms)));
        assert!(delays.iter().any(|ms| *ms < 2_600) && delays.iter().any(|ms| *ms > 7_400));
        let mean = delays.iter().sum::<u64>() / 10_000;
        assert!((4_900..=5_100).contains(&mean), "mean {mean} ms");
        assert!((0..1_000).all(|_| (1_250..=3_750).contains(&delay(&mut prng, true))));
    }
}
