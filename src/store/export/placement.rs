//! Where each packet's audio lies on its stream's line of samples.
//!
//! Place is RTP time (RFC 3550 §5.1), so a gap or pause is as long as the SRC says. Arrival decides
//! where RTP time cannot: at a new SSRC, where [`super::voice`] finds that a source counts anew, and when a timestamp
//! leaps by more than a minute against the clock, which only a restarted encoder does. Run twice over the same records (first to find
//! the earliest sample, then to write) it gives the same places.

use std::collections::BTreeMap;

use crate::base::time::Wall;

/// A leap of the timestamp against arrival, in seconds, that is no gap, pause or jitter.
const LEAP_S: i64 = 60;
/// A packet that comes so much later than its timestamp says was held back, or the timestamp stood
/// still: no jitter reaches a second.
const LATE_NS: i64 = 1_000_000_000;

/// Where a packet lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Position of its first sample.
    pub position: i64,
    /// RTP time does not tie it to the packets before: wall time has to be found anew from here.
    pub anew: bool,
}

/// Places packets of one stream. Positions are in samples; the first packet seen is at 0, an
/// earlier one below it.
#[derive(Clone, Debug)]
pub struct Placement {
    rate: i64,
    sources: BTreeMap<u16, Last>,
    latest: Option<Last>,
    /// Lowest position, and the arrival of the packet there.
    first: Option<(i64, Wall)>,
    /// Position behind the last sample.
    end: i64,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    timestamp: u32,
    position: i64,
    arrival: Wall,
}

impl Placement {
    /// For a stream of `rate` Hz.
    pub fn new(rate: u32) -> Self {
        Placement {
            rate: i64::from(rate.max(1)),
            sources: BTreeMap::new(),
            latest: None,
            first: None,
            end: 0,
        }
    }

    /// Position of the first sample of a packet that holds `frames` samples per channel.
    pub fn place(&mut self, ordinal: u16, timestamp: u32, arrival: Wall, frames: u32) -> Placed {
        let placed = match (self.sources.get(&ordinal), self.latest) {
            (Some(last), _) => self.beside(last, timestamp, arrival),
            // A new SSRC goes on where its arrival says.
            (None, Some(last)) => {
                let position = last.position + self.ticks(arrival.0 - last.arrival.0);
                Placed { position, anew: true }
            }
            (None, None) => Placed { position: 0, anew: true },
        };
        let position = placed.position;
        let last = Last { timestamp, position, arrival };
        self.sources.insert(ordinal, last);
        self.latest = Some(last);
        if frames > 0 {
            if self.first.is_none_or(|(lowest, _)| position < lowest) {
                self.first = Some((position, arrival));
            }
            self.end = self.end.max(position.saturating_add(i64::from(frames)));
        }
        placed
    }

    /// The RTP time of a source begins anew: its next packet is placed by arrival.
    pub fn forget(&mut self, ordinal: u16) {
        self.sources.remove(&ordinal);
    }

    /// Position of a timestamp of a source, reckoned from its last packet: a report's.
    pub fn of_report(&self, ordinal: u16, timestamp: u32) -> Option<i64> {
        let last = self.sources.get(&ordinal)?;
        Some(last.position + i64::from(timestamp.wrapping_sub(last.timestamp) as i32))
    }

    /// Where a source would be at `arrival` if it went on as it did at its last packet.
    pub fn expected(&self, ordinal: u16, arrival: Wall) -> Option<i64> {
        let last = self.sources.get(&ordinal)?;
        Some(last.position + self.ticks(arrival.0 - last.arrival.0))
    }

    fn beside(&self, last: &Last, timestamp: u32, arrival: Wall) -> Placed {
        let elapsed = self.ticks(arrival.0 - last.arrival.0);
        let step = i64::from(timestamp.wrapping_sub(last.timestamp) as i32);
        // More than half a turn of the timestamp in one pause: the turn nearest to the clock.
        const TURN: i64 = 1 << 32;
        let turns = if elapsed.abs() > TURN / 2 { (elapsed - step + TURN / 2) / TURN } else { 0 };
        let step = step + turns * TURN;
        let leap = LEAP_S * self.rate;
        if step > elapsed + leap || step < -leap {
            return Placed { position: last.position + elapsed, anew: true };
        }
        let late = elapsed - step > self.ticks(LATE_NS);
        Placed { position: last.position + step, anew: late }
    }

    fn ticks(&self, ns: i64) -> i64 {
        (i128::from(ns) * i128::from(self.rate) / 1_000_000_000) as i64
    }

    /// Position of the earliest sample, and the arrival of its packet: where the stream's audio
    /// starts in wall time.
    pub fn first(&self) -> Option<(i64, Wall)> {
        self.first
    }

    /// Samples from the earliest to the last.
    pub fn frames(&self) -> u64 {
        self.first.map_or(0, |(first, _)| (self.end - first).max(0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn position(placement: &mut Placement, packet: (u16, u32), arrival: i64, frames: u32) -> i64 {
        placement.place(packet.0, packet.1, Wall(arrival), frames).position
    }

    #[test]
    fn rtp_time_places_gaps_reorder_and_the_wrap() {
        let mut placement = Placement::new(8_000);
        let start = u32::MAX - 159;
        let mut place = |n: u32, at: i64| {
            position(&mut placement, (1, start.wrapping_add(n * 160)), at * MS, 160)
        };
        assert_eq!(place(1, 0), 0);
        assert_eq!(place(0, 5), -160, "the first packet came second");
        assert_eq!(place(2, 20), 160);
        assert_eq!(place(50, 980), 49 * 160);
        assert_eq!(placement.first(), Some((-160, Wall(5 * MS))));
        assert_eq!(placement.frames(), 51 * 160);
    }

    #[test]
    fn a_pause_is_as_long_as_rtp_time_says() {
        let mut placement = Placement::new(8_000);
        placement.place(1, 0, Wall(0), 160);
        // Ten minutes of silence during which the SRC's timestamp stood still.
        assert_eq!(position(&mut placement, (1, 160), 600_000 * MS, 160), 160);
        // And ten minutes in which it went on.
        assert_eq!(position(&mut placement, (1, 4_800_320), 1_200_000 * MS, 160), 4_800_320);
    }

    #[test]
    fn a_new_ssrc_and_a_leap_go_on_by_arrival() {
        let mut placement = Placement::new(8_000);
        placement.place(1, 1_000, Wall(0), 160);
        assert_eq!(position(&mut placement, (2, 3_000_000_000), 100 * MS, 160), 800);
        assert_eq!(position(&mut placement, (2, 3_000_000_160), 119 * MS, 160), 960);
        assert_eq!(position(&mut placement, (2, 77), 139 * MS, 160), 960 + 160);
        assert_eq!(position(&mut placement, (2, 237), 160 * MS, 160), 960 + 320);
    }

    #[test]
    fn three_silent_days_are_three_days() {
        let mut placement = Placement::new(48_000);
        placement.place(1, 0, Wall(0), 960);
        let ticks = 3 * 86_400 * 48_000_i64;
        let arrival = 3 * 86_400 * 1_000 * MS + 3 * MS;
        assert_eq!(position(&mut placement, (1, ticks as u32), arrival, 960), ticks);
    }
}
