//! Two lines of one client, simulated: clocks that drift, networks that delay, reports that are lost,
//! and where two clicks of one instant are found.

use super::align::align;
use super::timeline::{Evidence, TimeLine};
use super::timing::Timing;
use crate::base::prng::Prng;
use crate::base::time::Wall;

const MS: i64 = 1_000_000;
const S: i64 = 1_000 * MS;
const EPOCH: i64 = 1_790_000_000 * S;
const RATE: i64 = 8_000;

/// A sender: all about it is a function of true time, ns since [`EPOCH`].
#[derive(Clone, Copy)]
struct Sender {
    ssrc: u32,
    timestamp: u32,
    /// How fast its RTP clock runs, millionths, and by how much that changes an hour.
    ppm: f64,
    ppm_hour: f64,
    /// What the network holds back at least, and at most beyond that.
    delay_ms: i64,
    jitter_ms: u64,
    /// Its wall clock less ours.
    clock_s: i64,
    packet_ms: i64,
    /// Reports lost of 100.
    lost: u64,
    cname: &'static str,
}

const QUIET: Sender = Sender {
    ssrc: 0xa,
    timestamp: 0xffff_f000,
    ppm: 0.0,
    ppm_hour: 0.0,
    delay_ms: 2,
    jitter_ms: 60,
    clock_s: -7_200,
    packet_ms: 20,
    lost: 0,
    cname: "desk@turret",
};

impl Sender {
    fn ticks(&self, at: i64) -> i64 {
        let seconds = at as f64 / 1e9;
        let ppm = self.ppm + self.ppm_hour * seconds / 7_200.0;
        (seconds * RATE as f64 * (1.0 + ppm / 1e6)).round() as i64
    }

    fn rtp(&self, at: i64) -> u32 {
        self.timestamp.wrapping_add(self.ticks(at) as u32)
    }

    fn report(&self, at: i64, ntp_ns: i64) -> Vec<u8> {
        let mut bytes = vec![0x80, 200, 0, 6];
        bytes.extend(self.ssrc.to_be_bytes());
        let seconds = ntp_ns.div_euclid(S) + 2_208_988_800;
        let fraction = ((ntp_ns.rem_euclid(S) as u64) << 32) / S as u64;
        bytes.extend((seconds as u32).to_be_bytes());
        bytes.extend((fraction as u32).to_be_bytes());
        bytes.extend(self.rtp(at).to_be_bytes());
        bytes.extend([0; 8]);
        let mut chunk = self.ssrc.to_be_bytes().to_vec();
        chunk.extend([1, self.cname.len() as u8]);
        chunk.extend(self.cname.bytes());
        chunk.resize((chunk.len() + 1).next_multiple_of(4), 0);
        bytes.extend([0x81, 202, 0, (chunk.len() / 4) as u8]);
        bytes.extend(chunk);
        bytes
    }

    /// Sends from `from` to `to`; returns the position of RTP tick 0.
    fn send(&self, prng: &mut Prng, timing: &mut Timing, ordinal: u16, from: i64, to: i64) -> i64 {
        // Reports are stored before the packets, as a segment has them.
        let mut at = from + 500 * MS;
        while at < to {
            if prng.below(100) >= self.lost {
                let datagram = self.report(at, EPOCH + at + self.clock_s * S);
                timing.rtcp(Wall(EPOCH + at + self.late(prng)), &datagram);
            }
            at += 5 * S;
        }
        let (mut at, mut zero) = (from, 0);
        let mut arrivals = 0;
        while at < to {
            // In order, as a queue delays: what is behind a late one is late, too.
            arrivals = (EPOCH + at + self.late(prng)).max(arrivals + 1);
            let ticks = (RATE * self.packet_ms / 1_000) as u32;
            let source = (ordinal, self.ssrc);
            zero = timing.packet(source, self.rtp(at), Wall(arrivals), ticks) - self.ticks(at);
            at += self.packet_ms * MS;
        }
        zero
    }

    fn late(&self, prng: &mut Prng) -> i64 {
        self.delay_ms * MS + prng.below(self.jitter_ms * MS as u64 + 1) as i64
    }
}

/// Where clicks of one instant are found on both lines, ms apart at the worst, and the lines.
fn clicks(a: Sender, b: Sender, hours: i64) -> (f64, Vec<TimeLine>) {
    let mut prng = Prng::new(0x5eed_0711);
    let mut timings = [Timing::new(RATE as u32), Timing::new(RATE as u32)];
    let end = hours * 3_600 * S;
    let zeros: Vec<i64> = [a, b]
        .iter()
        .zip(&mut timings)
        .map(|(sender, timing)| sender.send(&mut prng, timing, 1, 0, end))
        .collect();
    let lines = align(&[&timings[0], &timings[1]]);
    let mut worst = 0_f64;
    for share in 0..100 {
        let at = end / 100 * share + S;
        let wall = |sender: Sender, zero: i64, line: &TimeLine| {
            line.wall(zero + sender.ticks(at)).expect("audio").0
        };
        let off = wall(a, zeros[0], &lines[0]) - wall(b, zeros[1], &lines[1]);
        worst = worst.max(off.abs() as f64 / MS as f64);
    }
    (worst, lines)
}

#[test]
fn clicks_of_one_instant_are_within_two_ms_after_an_hour_whatever_reports_are_lost() {
    for lost in [0, 50, 100] {
        let a = Sender { lost, ..QUIET };
        let b = Sender { ssrc: 0xb, timestamp: 77, ppm: 50.0, lost, ..QUIET };
        let (worst, lines) = clicks(a, b, 1);
        assert!(worst < 2.0, "{lost} of 100 reports lost: {worst} ms");
        let evidence = if lost < 100 { Evidence::Sr } else { Evidence::Arrival };
        assert_eq!((lines[0].evidence, lines[1].evidence), (evidence, evidence));
        assert!((lines[1].ppm() - 50.0).abs() < 1.0, "{}", lines[1].ppm());
    }
}

#[test]
fn a_day_of_clocks_that_wander_up_to_200_ppm_is_right_to_the_end() {
    let a = Sender { ppm: -200.0, ppm_hour: 4.0, packet_ms: 100, ..QUIET };
    let b = Sender { ssrc: 0xb, ppm: 200.0, ppm_hour: -3.0, packet_ms: 100, ..QUIET };
    for lost in [0, 100] {
        let (worst, lines) = clicks(Sender { lost, ..a }, Sender { lost, ..b }, 24);
        assert!(worst < 3.0, "{lost} of 100 reports lost: {worst} ms");
        // A node a minute, whatever was sent.
        assert!(lines[0].pieces[0].nodes.len() <= 24 * 60 + 2);
    }
}

#[test]
fn a_line_that_is_sent_later_is_moved_by_its_reports_and_only_by_them() {
    let a = Sender { jitter_ms: 5, ..QUIET };
    let b = Sender { ssrc: 0xb, delay_ms: 152, jitter_ms: 5, ..QUIET };
    let (worst, lines) = clicks(a, b, 1);
    assert!(worst < 2.0, "{worst} ms");
    assert_eq!(lines[1].evidence, Evidence::Sr);
    let (worst, lines) = clicks(a, Sender { cname: "another@turret", ..b }, 1);
    assert!(
        (worst - 150.0).abs() < 2.0,
        "clocks of two clients say nothing of each other: {worst}"
    );
    assert_eq!(lines[1].evidence, Evidence::Arrival);
}

#[test]
fn reports_that_make_no_sense_are_left_out_and_told() {
    let mut prng = Prng::new(7);
    let mut timings = [Timing::new(RATE as u32), Timing::new(RATE as u32)];
    let (a, b) = (QUIET, Sender { ssrc: 0xb, delay_ms: 52, ..QUIET });
    let hour = 3_600 * S;
    // No wall clock at all, one of 1970, and RTP times of another line.
    for n in 0..60 {
        let at = n * 60 * S + 200 * MS;
        let mut bad = b.report(at, 0);
        bad[8..16].fill(0);
        timings[1].rtcp(Wall(EPOCH + at), &bad);
        timings[1].rtcp(Wall(EPOCH + at + MS), &b.report(at, n));
        timings[1].rtcp(Wall(EPOCH + at + MS), &b.report(at + 1_000 * S, EPOCH + at - 7_200 * S));
    }
    let zeros = [
        a.send(&mut prng, &mut timings[0], 1, 0, hour),
        b.send(&mut prng, &mut timings[1], 1, 0, hour),
    ];
    let lines = align(&[&timings[0], &timings[1]]);
    for at in [10 * S, hour / 2, hour - S] {
        let off = lines[0].wall(zeros[0] + a.ticks(at)).expect("audio").0
            - lines[1].wall(zeros[1] + b.ticks(at)).expect("audio").0;
        assert!(off.abs() < 3 * MS, "{off} ns");
    }
    assert!(lines[1].reports.1 >= 100, "{:?}", lines[1].reports);
    assert!(lines[1].reports.0 >= 60, "{:?}", lines[1].reports);
}

#[test]
fn a_new_ssrc_and_a_timestamp_that_stood_still_are_found_at_their_time() {
    let mut prng = Prng::new(8);
    let mut timing = Timing::new(RATE as u32);
    let first = Sender { ppm: 80.0, ..QUIET };
    first.send(&mut prng, &mut timing, 1, 0, 600 * S);
    let second = Sender { ssrc: 0xc, timestamp: 5, ..first };
    let zero = second.send(&mut prng, &mut timing, 2, 601 * S, 1_200 * S);
    // Ten minutes in which nobody counted.
    let ticks = second.ticks(1_200 * S) - second.ticks(1_800 * S);
    let resumed = Sender { timestamp: second.timestamp.wrapping_add(ticks as u32), ..second };
    let later = resumed.send(&mut prng, &mut timing, 2, 1_800 * S, 2_400 * S);
    let [line] = &align(&[&timing])[..] else { panic!("one line") };
    assert_eq!(line.pieces.len(), 3);
    for (zero, at) in [(zero, 900 * S), (later, 1_801 * S), (later, 2_399 * S)] {
        let wall = line.wall(zero + second.ticks(at)).expect("audio").0;
        assert!((wall - EPOCH - at - 2 * MS).abs() < 3 * MS, "{} ns off", wall - EPOCH - at);
    }
    let silent: Vec<_> =
        line.silences.iter().map(|(from, to)| ((from.0 - EPOCH) / S, (to.0 - EPOCH) / S)).collect();
    assert_eq!(silent, [(600, 601), (1_200, 1_800)]);
}

#[test]
fn as_known_so_far_is_right_already() {
    let mut prng = Prng::new(9);
    let mut timing = Timing::new(RATE as u32);
    for minute in 0..10 {
        let from = minute * 60 * S;
        let zero = QUIET.send(&mut prng, &mut timing, 1, from, from + 60 * S);
        let line = &align(&[&timing])[0];
        let at = from + 59 * S;
        let wall = line.wall(zero + QUIET.ticks(at)).expect("audio").0;
        assert!((wall - EPOCH - at - 2 * MS).abs() < 3 * MS, "{} ns off", wall - EPOCH - at);
    }
}

#[test]
fn whatever_comes_makes_a_line_that_rises() {
    let mut prng = Prng::new(0x5eed_0712);
    for _ in 0..200 {
        let mut timing = Timing::new(prng.below(50_000) as u32);
        let mut at = 0;
        for _ in 0..300 {
            let order = prng.below(40);
            at += prng.below(1 << order) as i64 - 1_000;
            let source = prng.below(3) as u16;
            let timestamp = (prng.next_u64() as u32) >> prng.below(32);
            let arrival = Wall(EPOCH + at);
            if prng.below(4) > 0 {
                let packet = (source, u32::from(source));
                timing.packet(packet, timestamp, arrival, prng.below(2_000) as u32);
            } else {
                let sender = Sender { ssrc: u32::from(source), timestamp, ..QUIET };
                timing.rtcp(arrival, &sender.report(0, prng.next_u64() as i64 >> 4));
            }
        }
        for line in align(&[&timing, &timing]) {
            for piece in &line.pieces {
                assert!(piece.nodes.is_sorted_by(|a, b| a.position < b.position));
                assert!(piece.nodes.is_sorted_by(|a, b| a.wall < b.wall), "{piece:?}");
            }
            let straights = line.straights();
            assert!(straights.is_sorted_by(|a, b| a.to <= b.from));
        }
    }
}
