//! DTMF digits in telephone-event packets (RFC 4733 §2.3, §2.5, §3.2).
//!
//! A digit is many packets: updates while it lasts, then the end three times. They share the RTP
//! timestamp of its begin, which is how they are put together, in whatever order they come and
//! whichever of them are lost. A packet may carry several digits, one behind the other (§2.5.1.5).

use std::collections::BTreeMap;

use crate::base::time::Wall;
use crate::store::catalog::model::Digit;
use crate::wire::event::{self, Told};

/// Segments of digits kept per stream; a trader's line dials a few dozen digits a day.
const SEGMENTS_MAX: usize = 10_000;
/// An update that says no more than this is the first: one packet each 50 ms is usual (RFC 4733 §2.5.1.2).
/// It stands where an audio packet of its timestamp would, so that its arrival is the digit's time.
const FIRST_MS_MAX: u64 = 50;
/// What the duration field can say; a digit that lasts longer goes on in another segment, whose
/// timestamp is later by as much (RFC 4733 §2.5.1.3).
const TICKS_MAX: u16 = u16::MAX;

/// The digits of one stream.
#[derive(Clone, Debug, Default)]
pub struct Digits {
    /// By source, event and RTP timestamp.
    segments: BTreeMap<(u16, u8, u32), Segment>,
    /// There was no room for more.
    cut: bool,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    /// The shortest duration that was told, and when it began by that.
    least: (u16, Wall),
    duration: u16,
    ended: bool,
    clock_rate: u32,
}

impl Digits {
    /// Takes the payload of a telephone-event packet.
    pub fn packet(
        &mut self,
        ordinal: u16,
        timestamp: u32,
        payload: &[u8],
        clock_rate: u32,
        at: Wall,
    ) {
        let clock_rate = clock_rate.max(1);
        let alone = event::all(payload).nth(1).is_none();
        let mut after: u64 = event::all(payload).map(|told| u64::from(told.duration)).sum();
        for told in event::all(payload) {
            let Told { event, ended, duration, behind, .. } = told;
            after -= u64::from(duration);
            if told.digit().is_none() {
                continue;
            }
            let begun = match alone && is_first(duration, clock_rate) {
                true => at,
                false => earlier(at, after + u64::from(duration), clock_rate),
            };
            let key = (ordinal, event, timestamp.wrapping_add(behind));
            if self.segments.len() >= SEGMENTS_MAX && !self.segments.contains_key(&key) {
                self.cut = true;
                continue;
            }
            let new = Segment { least: (duration, begun), duration, ended: false, clock_rate };
            let segment = self.segments.entry(key).or_insert(new);
            segment.least = segment.least.min((duration, begun));
            segment.duration = segment.duration.max(duration);
            segment.ended |= ended;
        }
    }

    /// Whether there were more than [`Digits::digits`] has.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The digits in order of time.
    pub fn digits(&self) -> Vec<Digit> {
        let mut digits = Vec::new();
        for (key @ (_, code, _), segment) in &self.segments {
            if self.goes_on(*key) {
                continue;
            }
            let ticks = self.ticks(*key, segment);
            // RFC 4733 §2.3.5: no duration at all is for states, and a digit is none. Some senders
            // begin with it, and then say more.
            if ticks == 0 {
                continue;
            }
            let rate = u64::from(segment.clock_rate);
            digits.push(Digit {
                at: segment.least.1,
                digit: char::from(event::DIGITS[usize::from(*code)]).to_string(),
                ms: ticks * 1_000 / rate,
            });
        }
        digits.sort_by_key(|digit| digit.at);
        digits
    }

    /// Whether that segment is the second or a later one of its digit.
    fn goes_on(&self, (ordinal, event, timestamp): (u16, u8, u32)) -> bool {
        let before = timestamp.wrapping_sub(u32::from(TICKS_MAX));
        self.segments.get(&(ordinal, event, before)).is_some_and(|before| !before.ended)
    }

    /// How long the digit lasts that begins with that segment.
    fn ticks(&self, (ordinal, event, mut timestamp): (u16, u8, u32), first: &Segment) -> u64 {
        let (mut segment, mut ticks) = (first, 0);
        // Each step takes another segment: all of them together are fewer than would wrap around.
        while !segment.ended {
            let next = timestamp.wrapping_add(u32::from(TICKS_MAX));
            let Some(found) = self.segments.get(&(ordinal, event, next)) else { break };
            // What is missing of a segment that went on was lost.
            ticks += u64::from(TICKS_MAX);
            (segment, timestamp) = (found, next);
        }
        ticks + u64::from(segment.duration)
    }
}

/// Whether a packet says no more of its event than a first one does.
fn is_first(duration: u16, clock_rate: u32) -> bool {
    u64::from(duration) * 1_000 <= FIRST_MS_MAX * u64::from(clock_rate)
}

/// So many ticks before `at`: where the first packets of an event are lost, or several came in one, it began as
/// long before as they say that it has lasted, and what followed it.
fn earlier(at: Wall, ticks: u64, clock_rate: u32) -> Wall {
    // A packet has some 16,000 events, and each at most 65,535 s, where a sender claims a clock of 1 Hz.
    let ns = u128::from(ticks) * 1_000_000_000 / u128::from(clock_rate);
    Wall(at.0.saturating_sub(i64::try_from(ns).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const RATE: u32 = 8_000;

    fn told(event: u8, ended: bool, duration: u16) -> [u8; 4] {
        let [high, low] = duration.to_be_bytes();
        [event, if ended { 0x8a } else { 0x0a }, high, low]
    }

    fn digit(at_ms: i64, digit: &str, ms: u64) -> Digit {
        Digit { at: Wall(at_ms * MS), digit: digit.to_owned(), ms }
    }

    /// A digit of 100 ms from 1,000 ms on, an update each 20 ms, its end three times.
    fn pressed() -> Vec<(i64, [u8; 4])> {
        let updates = (0..5).map(|n| (1_000 + n * 20, told(11, n == 4, 160 * (n as u16 + 1))));
        let ends = [1_100, 1_120].map(|at| (at, told(11, true, 800)));
        updates.chain(ends).collect()
    }

    fn digits(packets: &[(i64, [u8; 4])]) -> Vec<Digit> {
        let mut digits = Digits::default();
        for (at_ms, payload) in packets {
            digits.packet(1, 4_000, payload, RATE, Wall(at_ms * MS));
        }
        digits.digits()
    }

    #[test]
    fn updates_and_repeated_ends_are_one_digit_in_any_order() {
        let mut packets = pressed();
        assert_eq!(digits(&packets), [digit(1_000, "#", 100)]);
        packets.reverse();
        assert_eq!(digits(&packets), [digit(1_000, "#", 100)]);
        packets.swap(1, 5);
        assert_eq!(digits(&packets), [digit(1_000, "#", 100)]);
    }

    #[test]
    fn each_packet_but_one_may_be_lost() {
        let packets = pressed();
        // The start is lost: 60 ms had passed when the third update came, 20 ms after it ended them.
        assert_eq!(digits(&packets[2..]), [digit(980, "#", 100)]);
        // Only a repeated end is left, which cannot say how often it had been said before.
        assert_eq!(digits(&packets[6..]), [digit(1_020, "#", 100)]);
        // All ends are lost: it lasted at least so long.
        assert_eq!(digits(&packets[..4]), [digit(1_000, "#", 80)]);
    }

    #[test]
    fn the_same_digit_twice_is_two_and_other_events_are_none() {
        let mut digits = Digits::default();
        digits.packet(1, 9_000, &told(5, true, 400), RATE, Wall(90 * MS));
        digits.packet(1, 9_800, &told(5, true, 400), RATE, Wall(190 * MS));
        digits.packet(2, 9_000, &told(5, true, 400), RATE, Wall(290 * MS));
        digits.packet(1, 9_500, &told(16, true, 80), RATE, Wall(95 * MS));
        digits.packet(1, 9_600, &[1, 0, 0], RATE, Wall(96 * MS));
        digits.packet(1, 9_700, &[], RATE, Wall(97 * MS));
        let fives = [digit(90, "5", 50), digit(190, "5", 50), digit(290, "5", 50)];
        assert_eq!(digits.digits(), fives);
    }

    #[test]
    fn a_digit_longer_than_its_field_goes_on_in_segments() {
        // At 48 kHz a field holds 1.365 s; timestamps pass the wrap; updates of the first are lost.
        let mut digits = Digits::default();
        let (first, rate) = (u32::MAX - 100, 48_000);
        let second = first.wrapping_add(65_535);
        let third = second.wrapping_add(65_535);
        digits.packet(1, third, &told(1, true, 48_000), rate, Wall(3_730 * MS));
        digits.packet(1, first, &told(1, false, 960), rate, Wall(0));
        digits.packet(1, second, &told(1, false, 960), rate, Wall(1_365 * MS));
        digits.packet(1, second, &told(1, false, 65_535), rate, Wall(2_730 * MS));
        assert_eq!(digits.digits(), [digit(0, "1", (2 * 65_535 + 48_000) / 48)]);
        // After its end another one is another one, whatever its timestamp.
        digits.packet(1, third.wrapping_add(65_535), &told(1, true, 960), rate, Wall(5_000 * MS));
        assert_eq!(digits.digits().len(), 2);
    }

    #[test]
    fn no_duration_is_a_begin_and_no_digit() {
        let none = [(1_000, told(3, false, 0))];
        assert_eq!(digits(&none), []);
        let more = [none[0], (1_020, told(3, false, 160)), (1_100, told(3, true, 800))];
        assert_eq!(digits(&more), [digit(1_000, "3", 100)]);
    }

    #[test]
    fn a_packet_of_several_digits_says_each_of_them() {
        let several = |events: &[[u8; 4]]| events.concat();
        let mut digits = Digits::default();
        // 4 and 5 are over, 6 is pressed; later 6 alone. The packet of 5 and 6 was lost.
        let first = several(&[told(4, true, 800), told(5, true, 400), told(6, false, 160)]);
        digits.packet(1, 8_000, &first, RATE, Wall(1_170 * MS));
        digits.packet(1, 8_000, &first, RATE, Wall(1_190 * MS));
        digits.packet(1, 9_200, &told(6, true, 800), RATE, Wall(1_250 * MS));
        let expected = [digit(1_000, "4", 100), digit(1_100, "5", 50), digit(1_150, "6", 100)];
        assert_eq!(digits.digits(), expected);
        // What is none goes by, and what is cut off says nothing.
        let mut digits = Digits::default();
        let odd = [&several(&[told(16, true, 800), told(7, true, 800)])[..], &[8, 0x8a]].concat();
        digits.packet(1, 8_000, &odd, RATE, Wall(1_200 * MS));
        assert_eq!(digits.digits(), [digit(1_100, "7", 100)]);
        let longest = [told(1, true, u16::MAX)].repeat(16_000).concat();
        digits.packet(1, 0, &longest, 0, Wall(0));
        assert!(digits.is_cut());
    }

    #[test]
    fn what_is_full_still_hears_the_end_of_what_it_holds() {
        let mut digits = Digits::default();
        for at in 0..SEGMENTS_MAX as u32 + 5 {
            digits.packet(1, at * 1_000, &told(7, false, 160), RATE, Wall(i64::from(at)));
        }
        digits.packet(1, 0, &told(7, true, 800), RATE, Wall(0));
        assert_eq!(digits.digits().len(), SEGMENTS_MAX);
        assert!(digits.is_cut(), "five found no room");
        assert_eq!(digits.digits()[0].ms, 100);
    }
}
