//! What was received of one source, and the report block that says so (RFC 3550 §6.4.1, A.3).

use crate::base::ids::{Index, Ssrc};
use crate::base::time::{Mono, Wall};
use crate::wire::rtcp::ReportBlock;

/// Cumulative loss is a signed number of 24 bits.
const LOST_MAX: i64 = (1 << 23) - 1;
/// See [`LOST_MAX`].
const LOST_MIN: i64 = -(1 << 23);
/// Seconds from 1900, where NTP begins, to 1970.
const NTP_UNIX_S: i64 = 2_208_988_800;

/// The last sender report of a source: what LSR and DLSR are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSenderReport {
    /// Its NTP timestamp.
    pub ntp: u64,
    /// When it arrived.
    pub arrival: Mono,
}

/// What was received of one source since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reception {
    /// The source.
    pub ssrc: Ssrc,
    /// Lowest index received.
    pub lowest: Index,
    /// Highest index received.
    pub highest: Index,
    /// Packets received. RFC 3550 A.3 counts repetitions too, which makes loss fall below 0; where
    /// the caller leaves them out, as our worker does, it never does.
    pub packets: u64,
    /// Interarrival jitter in RTP ticks.
    pub jitter: u32,
    /// The last SR, if any came.
    pub last_sr: Option<LastSenderReport>,
}

impl Reception {
    /// Packets that the sender must have sent by now.
    fn expected(&self) -> u64 {
        self.highest.0.saturating_sub(self.lowest.0) + 1
    }
}

/// What a report said last; the next one's fraction counts from there. Default: nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prior {
    expected: u64,
    packets: u64,
}

impl Prior {
    /// Whether packets arrived since. RFC 3550 §6.4: only then a block is due.
    pub fn is_behind(&self, reception: &Reception) -> bool {
        reception.packets != self.packets
    }

    /// The block to report at `now`; the next one counts from it.
    pub fn block(&mut self, reception: &Reception, now: Mono) -> ReportBlock {
        let expected = reception.expected();
        let lost = signed(expected) - signed(reception.packets);
        let (last_sr, delay_since_last_sr) = match reception.last_sr {
            // The middle 32 bits of the NTP timestamp; the delay in 1/65,536 s.
            Some(sr) => ((sr.ntp >> 16) as u32, short_delay(now.since(sr.arrival))),
            None => (0, 0),
        };
        let block = ReportBlock {
            ssrc: reception.ssrc,
            fraction_lost: self.fraction(expected, reception.packets),
            cumulative_lost: lost.clamp(LOST_MIN, LOST_MAX) as i32,
            // Sequence number and 16 bits of its cycles: the index modulo 2^32.
            highest: reception.highest.0 as u32,
            jitter: reception.jitter,
            last_sr,
            delay_since_last_sr,
        };
        *self = Prior { expected, packets: reception.packets };
        block
    }

    /// Share lost since the last report in 1/256; 0 where more came than was expected (A.3).
    fn fraction(&self, expected: u64, packets: u64) -> u8 {
        let expected = signed(expected) - signed(self.expected);
        let lost = expected - (signed(packets) - signed(self.packets));
        if expected <= 0 || lost <= 0 {
            return 0;
        }
        (i128::from(lost) * 256 / i128::from(expected)).min(255) as u8
    }
}

/// Counts are below 2^48 (indexes) or far below 2^63 (packets).
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX / 4)
}

fn short_delay(ns: u64) -> u32 {
    u32::try_from(u128::from(ns) * 65_536 / 1_000_000_000).unwrap_or(u32::MAX)
}

/// NTP timestamp (32.32 fixed point since 1900, modulo 2^64) of a wall clock instant.
pub fn ntp(wall: Wall) -> u64 {
    let seconds = (wall.0.div_euclid(1_000_000_000) + NTP_UNIX_S) as u64;
    let ns = wall.0.rem_euclid(1_000_000_000) as u64;
    (seconds << 32) | ((ns << 32) / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reception(lowest: u64, highest: u64, packets: u64) -> Reception {
        Reception {
            ssrc: Ssrc(7),
            lowest: Index(lowest),
            highest: Index(highest),
            packets,
            jitter: 3,
            last_sr: None,
        }
    }

    #[test]
    fn loss_is_reported_once_as_fraction_and_for_ever_as_sum() {
        let mut prior = Prior::default();
        let block = prior.block(&reception(1_000, 1_099, 75), Mono(0));
        assert_eq!((block.fraction_lost, block.cumulative_lost), (64, 25));
        assert_eq!((block.ssrc, block.highest, block.jitter), (Ssrc(7), 1_099, 3));
        let block = prior.block(&reception(1_000, 1_199, 175), Mono(0));
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 25));
    }

    #[test]
    fn a_late_packet_takes_loss_back() {
        let mut prior = Prior::default();
        prior.block(&reception(0, 99, 90), Mono(0));
        let block = prior.block(&reception(0, 109, 105), Mono(0));
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 5));
    }

    #[test]
    fn repetitions_make_loss_negative_and_both_ends_are_clamped() {
        let block = Prior::default().block(&reception(0, 9, 15), Mono(0));
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, -5));
        let block = Prior::default().block(&reception(0, 1 << 40, 1), Mono(0));
        assert_eq!((block.fraction_lost, block.cumulative_lost), (255, 0x7f_ffff));
        let block = Prior::default().block(&reception(0, 0, 1 << 40), Mono(0));
        assert_eq!(block.cumulative_lost, -0x80_0000);
    }

    #[test]
    fn the_highest_number_carries_its_cycles() {
        let block = Prior::default().block(&reception(65_530, 65_536 + 5, 12), Mono(0));
        assert_eq!((block.highest, block.cumulative_lost), (0x1_0005, 0));
    }

    #[test]
    fn a_source_is_due_only_after_new_packets() {
        let mut prior = Prior::default();
        let first = reception(5, 9, 5);
        assert!(prior.is_behind(&first));
        prior.block(&first, Mono(0));
        assert!(!prior.is_behind(&first));
        assert!(prior.is_behind(&reception(5, 10, 6)));
    }

    #[test]
    fn lsr_and_dlsr_let_the_sender_compute_its_round_trip() {
        let mut source = reception(0, 0, 1);
        let arrival = Mono(2_000_000_000);
        source.last_sr = Some(LastSenderReport { ntp: 0xb44d_b705_2000_0000, arrival });
        let block = Prior::default().block(&source, arrival.plus_ms(5_250));
        // RFC 3550 figure 2: SR at 0xb44db705:20000000, delay 5.250 s.
        assert_eq!((block.last_sr, block.delay_since_last_sr), (0xb705_2000, 0x0005_4000));
    }

    #[test]
    fn ntp_begins_in_1900_and_counts_in_halves_of_halves() {
        assert_eq!(ntp(Wall(0)), 2_208_988_800 << 32);
        assert_eq!(ntp(Wall(500_000_000)) as u32, 1 << 31);
        assert_eq!(ntp(Wall(-500_000_000)), (2_208_988_799 << 32) + (1 << 31));
    }
}
