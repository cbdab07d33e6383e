//! Two clocks that never meet by accident: monotonic for order and timers, wall for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Nanoseconds of the machine's monotonic clock (CLOCK_MONOTONIC). Starts again at each boot.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Mono(pub u64);

impl Mono {
    /// This instant plus `ms` milliseconds.
    pub const fn plus_ms(self, ms: u64) -> Self {
        Mono(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// Nanoseconds since `earlier`; 0 where `earlier` is later.
    pub const fn since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Nanoseconds since 1970-01-01 UTC. Text form: RFC 3339 with nine decimals and `Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wall(pub i64);

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(stamp) => write!(f, "{stamp:.9}"),
            Err(_) => f.write_str("1970-01-01T00:00:00.000000000Z"),
        }
    }
}

impl std::str::FromStr for Wall {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let stamp: jiff::Timestamp = text.parse().map_err(|_| TimeError)?;
        i64::try_from(stamp.as_nanosecond()).map(Wall).map_err(|_| TimeError)
    }
}

impl Serialize for Wall {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wall {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Text that is no RFC 3339 instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an RFC 3339 time such as 2026-01-31T09:30:00Z")]
pub struct TimeError;

/// Ties the two clocks together at one instant: `wall` = what the wall clock said at `mono`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockMap {
    /// Monotonic instant.
    pub mono: Mono,
    /// Wall time at that instant.
    pub wall: Wall,
}

impl ClockMap {
    /// Wall minus monotonic time, ns: what a step of the wall clock changes.
    pub const fn offset(&self) -> i64 {
        self.wall.0.wrapping_sub(self.mono.0 as i64)
    }

    /// The wall time of `at`, by this map.
    pub const fn wall(&self, at: Mono) -> Wall {
        Wall(self.wall.0 + (at.0 as i64 - self.mono.0 as i64))
    }

    /// The monotonic instant of `at`, by this map; 0 where it lies before the boot.
    pub const fn mono(&self, at: Wall) -> Mono {
        let mono = at.0.saturating_sub(self.offset());
        Mono(if mono < 0 { 0 } else { mono as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_prints_and_reads_rfc_3339_with_nanoseconds() {
        let wall = Wall(1_767_225_600_123_456_789);
        assert_eq!(wall.to_string(), "2026-01-01T00:00:00.123456789Z");
        assert_eq!(wall.to_string().parse(), Ok(wall));
        assert_eq!("2026-01-01T01:00:00+01:00".parse(), Ok(Wall(1_767_225_600_000_000_000)));
        assert_eq!("yesterday".parse::<Wall>(), Err(TimeError));
    }

    #[test]
    fn clock_map_converts_both_ways() {
        let map = ClockMap { mono: Mono(500), wall: Wall(10_000) };
        assert_eq!(map.wall(Mono(400)), Wall(9_900));
        assert_eq!(map.mono(Wall(10_050)), Mono(550));
        assert_eq!(map.mono(Wall(0)), Mono(0));
    }
}
