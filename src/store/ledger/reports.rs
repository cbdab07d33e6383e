//! The SRC's own account: packet counts of its sender reports (RFC 3550 §6.4.1) held against what
//! was recorded.
//!
//! A report at `t` says how many packets had been sent by then. With `recorded(t)` the number
//! recorded by then, the difference is what is missing at the head or in gaps before `t`. Two
//! reports with the same difference prove that nothing sent between them is missing, so a silence
//! there was silence at the SRC.

use crate::base::time::Wall;

/// Arrivals kept to put packets that came just before a report on its right side.
const RECENT: usize = 16;
/// Reports that vote on whether the counts agree: one report may cross a packet on the way.
const VOTES: usize = 9;

/// The reports of one SSRC.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    list: Vec<Report>,
    /// Packets that arrived after the last report.
    tail: u64,
    recent: [Wall; RECENT],
    recent_at: usize,
    /// Where in the list the last packet fell: the next one most often does, too.
    place: usize,
}

#[derive(Clone, Copy, Debug)]
struct Report {
    at: Wall,
    count: u32,
    /// Packets recorded between the report before and this one.
    packets: u64,
}

impl Reports {
    /// Notes a recorded packet (not a duplicate).
    pub fn packet(&mut self, arrival: Wall) {
        let before = |place: usize| self.list.get(place).is_none_or(|report| arrival <= report.at);
        let behind = |place: usize| self.list.get(place).is_none_or(|report| report.at < arrival);
        let place = match self.place {
            place
                if place <= self.list.len()
                    && before(place)
                    && (place == 0 || behind(place - 1)) =>
            {
                place
            }
            _ => self.list.partition_point(|report| report.at < arrival),
        };
        self.place = place;
        match self.list.get_mut(place) {
            Some(report) => report.packets += 1,
            None => {
                self.tail += 1;
                self.recent[self.recent_at % RECENT] = arrival;
                self.recent_at += 1;
            }
        }
    }

    /// Notes a sender report with its packet count.
    pub fn report(&mut self, at: Wall, count: u32) {
        if self.list.last().is_some_and(|last| last.at >= at) {
            // A repetition, or one between two others: it would split packets that are no longer
            // known apart, so it is left out.
            return;
        }
        let known = self.recent_at.min(RECENT).min(self.tail as usize);
        let later = (0..known)
            .filter(|back| self.recent[(self.recent_at - 1 - back) % RECENT] > at)
            .count() as u64;
        self.list.push(Report { at, count, packets: self.tail - later });
        self.tail = later;
    }

    /// The SRC's count by its last report, roll-overs of its 32 bits added.
    pub fn sent(&self) -> Option<u64> {
        let differences = self.differences();
        let (_, recorded, difference) = differences.last()?;
        u64::try_from(*recorded as i64 + i64::from(*difference)).ok()
    }

    /// Whether the counts say that nothing is missing from the first packet sent on. What crossed
    /// the last report on its way came after it, so all that it counts must be there in the end.
    pub fn agree(&self) -> bool {
        let differences = self.differences();
        if differences.last().is_some_and(|(.., missing)| i64::from(*missing) > self.tail as i64) {
            return false;
        }
        let mut votes: Vec<i32> =
            differences.iter().rev().take(VOTES).map(|(_, _, difference)| *difference).collect();
        votes.sort_unstable();
        votes.get(votes.len() / 2) == Some(&0)
    }

    /// Spans in which nothing that was sent is missing. `open`: when the stream opened.
    pub fn proven(&self, open: Wall) -> Vec<(Wall, Wall)> {
        let mut before = (open, 0);
        let mut spans = Vec::new();
        for (at, _, difference) in self.differences() {
            if difference == before.1 && at > before.0 {
                spans.push((before.0, at));
            }
            before = (at, difference);
        }
        spans
    }

    /// Per report: when, packets recorded by then, count minus that.
    fn differences(&self) -> Vec<(Wall, u64, i32)> {
        let mut recorded = 0;
        self.list
            .iter()
            .map(|report| {
                recorded += report.packets;
                (report.at, recorded, report.count.wrapping_sub(recorded as u32) as i32)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn order_of_reading_does_not_matter() {
        // Log order: packets and reports mixed. Segment order: the reports first.
        let (mut log, mut segment) = (Reports::default(), Reports::default());
        let packets: Vec<Wall> = (0..50).map(|n| Wall(n * S / 5)).collect();
        for (n, at) in packets.iter().enumerate() {
            log.packet(*at);
            if n % 10 == 9 {
                log.report(Wall(at.0 + 1), n as u32 + 1);
                segment.report(Wall(at.0 + 1), n as u32 + 1);
            }
        }
        packets.iter().for_each(|at| segment.packet(*at));
        for reports in [log, segment] {
            assert!(reports.agree());
            assert_eq!(reports.sent(), Some(50));
        }
    }

    #[test]
    fn a_missing_head_disagrees_and_one_crossing_does_not() {
        let mut head = Reports::default();
        let mut crossing = Reports::default();
        for n in 0..100_i64 {
            crossing.packet(Wall(n * S));
            if n >= 3 {
                head.packet(Wall(n * S));
            }
            if n % 10 == 9 {
                head.report(Wall(n * S + 1), n as u32 + 1);
                crossing.report(Wall(n * S + 1), n as u32 + 1 + u32::from(n == 99));
            }
        }
        assert!(!head.agree());
        assert!(!crossing.agree(), "the last packet counted has not come yet");
        crossing.packet(Wall(100 * S));
        assert!(crossing.agree());
    }

    #[test]
    fn a_missing_tail_disagrees() {
        let mut reports = Reports::default();
        for n in 0..100_i64 {
            reports.packet(Wall(n * S));
            if n % 10 == 9 {
                reports.report(Wall(n * S + 1), n as u32 + 1);
            }
        }
        assert!(reports.agree());
        reports.report(Wall(120 * S), 112);
        assert!(!reports.agree());
    }

    #[test]
    fn silence_is_proven_between_reports_of_equal_difference_only() {
        let mut reports = Reports::default();
        reports.packet(Wall(S));
        reports.report(Wall(2 * S), 1);
        reports.report(Wall(7 * S), 1);
        reports.report(Wall(12 * S), 40);
        let open = Wall(0);
        assert_eq!(reports.proven(open), [(open, Wall(2 * S)), (Wall(2 * S), Wall(7 * S))]);
    }

    #[test]
    fn a_count_that_rolls_over_is_extended() {
        let mut reports = Reports::default();
        reports.report(Wall(1), u32::MAX);
        assert_eq!(reports.sent(), None);
        reports.packet(Wall(2));
        reports.report(Wall(3), 1);
        assert!(reports.sent() == Some(1) && !Reports::default().agree());
    }
}
