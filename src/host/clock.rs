//! The machine's clocks.

use rustix::time::{ClockId, clock_gettime};

use crate::base::ports::Clock;
use crate::base::time::{ClockMap, Mono, Wall};

/// CLOCK_MONOTONIC and CLOCK_REALTIME, both read without a system call (vDSO).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// A pair of readings takes 0.1 µs; this is one that was interrupted.
const READING_NS_MAX: i64 = 20_000;
/// A machine that interrupts so many in a row has no better one to give.
const READINGS_MAX: usize = 4;

fn nanoseconds(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

impl Clock for SystemClock {
    fn mono(&self) -> Mono {
        Mono(nanoseconds(ClockId::Monotonic) as u64)
    }

    fn map(&self) -> ClockMap {
        // The wall clock is read between two monotonic readings and tied to their middle, so a
        // pause between two readings shows as at most half its length. A long one would look like a
        // step of the wall clock: then once more, and the best of them counts.
        let read = || {
            let before = nanoseconds(ClockId::Monotonic);
            let wall = nanoseconds(ClockId::Realtime);
            let after = nanoseconds(ClockId::Monotonic);
            let map = ClockMap { mono: Mono(before.midpoint(after) as u64), wall: Wall(wall) };
            (after - before, map)
        };
        let mut best = read();
        for _ in 1..READINGS_MAX {
            if best.0 <= READING_NS_MAX {
                break;
            }
            let next = read();
            best = if next.0 < best.0 { next } else { best };
        }
        best.1
    }
}

/// The kernel's boot id: monotonic time is only comparable within one.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back_and_the_map_agrees_with_it() {
        let clock = SystemClock;
        let first = clock.mono();
        let map = clock.map();
        let last = clock.mono();
        assert!(first <= map.mono && map.mono <= last);
        assert_eq!(boot_id().len(), 36);
    }
}
