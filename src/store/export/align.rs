//! The time lines of the streams of a recording, from their [`Timing`]s.

use std::collections::BTreeMap;

use super::timeline::{Evidence, Node, Piece, TimeLine};
use super::timing::{Low, Report, Stretch, Timing};
use crate::base::time::Wall;

/// Less than this is no silence worth telling.
const HOLE_NS: i64 = 100_000_000;
/// Half of the window that a clock is fitted in.
const WINDOW_S: i64 = 900;
/// A node each minute.
const NODE_S: i64 = 60;
/// Below that nothing is said of the clock's rate: 30 s at 200 ppm are 6 ms.
const FIT_S: i64 = 30;
/// No clock is worse; RTP clocks of sound hardware are within 100.
const PPM_MAX: f64 = 1_000.0;
/// Half of the window of that median.
const REPORT_WINDOW_NS: i64 = 150_000_000_000;
/// A report's RTP time is now, give or take what an encoder and a network hold back. Lines of one
/// CNAME do not differ by more.
const REPORT_OFF_NS: i64 = 2_000_000_000;
/// A sender's clock that moves by more against ours was set.
const CLOCK_SET_NS: i64 = 1_000_000_000;
/// Reports that agree on a clock that was set.
const CLOCK_SET_REPORTS: u32 = 3;
/// Finds the line of each stream, as far as it is known.
pub fn align(timings: &[&Timing]) -> Vec<TimeLine> {
    let fitted: Vec<Vec<Fitted>> = timings.iter().map(|timing| fit_all(timing)).collect();
    // Offsets of each source's clock, by CNAME: those are of one clock.
    let mut clocks: Vec<Vec<Clock>> = Vec::new();
    for (timing, pieces) in timings.iter().zip(&fitted) {
        clocks.push(of_reports(timing, pieces));
    }
    let mut groups: BTreeMap<&[u8], Vec<&Clock>> = BTreeMap::new();
    for clock in clocks.iter().flatten() {
        if let Some(cname) = &clock.cname {
            groups.entry(cname).or_default().push(clock);
        }
    }
    let lines = timings.iter().zip(fitted).zip(&clocks);
    lines.map(|((timing, fitted), own)| line(timing, fitted, own, &groups)).collect()
}

/// A stretch with its nodes by arrival alone, and how far its delays lie above them.
struct Fitted {
    piece: Piece,
    /// Timestamp at position `zero`.
    timestamp: u32,
    zero: i64,
    above_ns: Vec<i64>,
    holes: Vec<(i64, i64)>,
}

/// What the reports of one source say of its sender's clock.
struct Clock {
    ssrc: u32,
    cname: Option<Vec<u8>>,
    /// Wall time by arrivals, and that less the sender's.
    offsets: Vec<(Wall, i64)>,
    left_out: u64,
}

fn fit_all(timing: &Timing) -> Vec<Fitted> {
    let stretches = timing.stretches.iter().filter(|stretch| stretch.to > stretch.from);
    let mut fitted: Vec<Fitted> = stretches.map(|stretch| fit(stretch, timing.rate)).collect();
    fitted.sort_by_key(|one| one.piece.nodes[0].wall);
    fitted
}

fn fit(stretch: &Stretch, rate: i64) -> Fitted {
    let mut nodes = Vec::new();
    let mut at = stretch.from;
    while at < stretch.to {
        nodes.push(at);
        // The last one is not to be a sliver.
        at = if stretch.to - at < NODE_S * rate * 3 / 2 { stretch.to } else { at + NODE_S * rate };
    }
    nodes.push(stretch.to);
    let wall = |position: i64| {
        let delay = delay_at(&stretch.lows, position, rate);
        Wall(stretch.base.0 + stretch.ns(position, rate) + delay)
    };
    let mut nodes: Vec<Node> =
        nodes.into_iter().map(|position| Node { position, wall: wall(position) }).collect();
    rise(&mut nodes);
    let positions = (stretch.from, stretch.to);
    let piece = Piece { ssrc: stretch.ssrc, positions, nodes };
    let above = |low: &Low| {
        let arrival = stretch.base.0 + stretch.ns(low.position, rate) + low.delay;
        arrival - piece.wall(low.position).0
    };
    let above_ns = stretch.lows.iter().map(above).collect();
    let holes = stretch.holes.clone();
    Fitted { piece, timestamp: stretch.timestamp, zero: stretch.zero, above_ns, holes }
}

/// Time goes on, whatever an SRC's clock and ours do within a minute.
fn rise(nodes: &mut [Node]) {
    for at in 1..nodes.len() {
        nodes[at].wall = nodes[at].wall.max(Wall(nodes[at - 1].wall.0 + 1));
    }
}

/// The delay of a packet that is late by nothing, at a position: the line below all delays around it
/// that lies nearest to them. Of all lines below a set of points the one nearest in sum is the side of
/// the lower convex hull over their mean.
fn delay_at(lows: &[Low], position: i64, rate: i64) -> i64 {
    let window = WINDOW_S * rate;
    let first = lows.partition_point(|low| low.position < position - window);
    let behind = lows.partition_point(|low| low.position <= position + window);
    // Where nothing came for a while, what is nearest.
    let first = first.min(lows.len() - 1);
    let near = &lows[first..behind.max(first + 1)];
    let least = near.iter().map(|low| low.delay).min().expect("one at least");
    let (left, right) = (near[0].position, near[near.len() - 1].position);
    if right - left < FIT_S * rate {
        return least;
    }
    let hull = lower_hull(near);
    let sum: i128 = near.iter().map(|low| i128::from(low.position)).sum();
    let mean = (sum / near.len() as i128) as i64;
    let at = hull.partition_point(|low| low.position <= mean).clamp(1, hull.len() - 1);
    let (left, right) = (hull[at - 1], hull[at]);
    let run_ns = (right.position - left.position) as f64 * 1e9 / rate as f64;
    let slope = (right.delay - left.delay) as f64 / run_ns;
    if slope.abs() * 1e6 > PPM_MAX {
        return least;
    }
    left.delay + (slope * (position - left.position) as f64 * 1e9 / rate as f64) as i64
}

fn lower_hull(points: &[Low]) -> Vec<Low> {
    let mut hull: Vec<Low> = Vec::new();
    for point in points {
        while let [.., a, b] = hull[..] {
            let run = |to: &Low| i128::from(to.position - a.position);
            let rise = |to: &Low| i128::from(to.delay - a.delay);
            if rise(&b) * run(point) < rise(point) * run(&b) {
                break;
            }
            hull.pop();
        }
        hull.push(*point);
    }
    hull
}

/// What the reports of a stream's sources say, and how many of them make no sense.
fn of_reports(timing: &Timing, fitted: &[Fitted]) -> Vec<Clock> {
    let mut clocks = Vec::new();
    for (ssrc, reports) in &timing.sources {
        let pieces: Vec<&Fitted> =
            fitted.iter().filter(|fitted| fitted.piece.ssrc == *ssrc).collect();
        if pieces.is_empty() || reports.kept.is_empty() {
            continue;
        }
        let cname = reports.cname.clone();
        let mut clock = Clock { ssrc: *ssrc, cname, offsets: Vec::new(), left_out: 0 };
        let mut steady = Steady::default();
        for report in &reports.kept {
            let offset = placed(report, &pieces)
                .filter(|_| steady.accepts(report))
                .map(|wall| (wall, wall.0 - report.ntp));
            match offset {
                Some(offset) => clock.offsets.push(offset),
                None => clock.left_out += 1,
            }
        }
        clock.offsets.sort();
        clocks.push(clock);
    }
    clocks
}

/// When the sample that a report names was, by arrivals; `None`: it is no sample of then.
fn placed(report: &Report, pieces: &[&Fitted]) -> Option<Wall> {
    let slack = Wall(report.arrival.0 + CLOCK_SET_NS);
    let began = pieces.partition_point(|one| one.piece.nodes[0].wall <= slack);
    let fitted = pieces[..began].last()?;
    let expected = fitted.piece.position(report.arrival) as i64;
    // The position with that timestamp that is nearest to it.
    let of_expected = fitted.timestamp.wrapping_add((expected - fitted.zero) as u32);
    let position = expected + i64::from(report.rtp.wrapping_sub(of_expected) as i32);
    let wall = fitted.piece.wall(position);
    (wall.0.abs_diff(report.arrival.0) <= REPORT_OFF_NS as u64).then_some(wall)
}

/// Whether a sender's clock goes on as it did.
#[derive(Default)]
struct Steady {
    last: Option<i64>,
    skew: Option<i64>,
    odd: Option<(i64, u32)>,
}

impl Steady {
    fn accepts(&mut self, report: &Report) -> bool {
        if report.ntp == i64::MIN {
            return false;
        }
        let skew = report.arrival.0.saturating_sub(report.ntp);
        let near = |other: i64| skew.abs_diff(other) <= CLOCK_SET_NS as u64;
        match self.skew {
            Some(known) if !near(known) => {
                let count =
                    self.odd.filter(|(odd, _)| near(*odd)).map_or(1, |(_, count)| count + 1);
                self.odd = Some((skew, count));
                if count < CLOCK_SET_REPORTS {
                    return false;
                }
            }
            // The same instant told again.
            _ if self.last.is_some_and(|last| report.ntp <= last) => return false,
            _ => {}
        }
        (self.last, self.skew, self.odd) = (Some(report.ntp), Some(skew), None);
        true
    }
}

impl Clock {
    /// Its offset around an instant: the median of what was said.
    fn offset(&self, at: Wall) -> Option<i64> {
        let first = self.offsets.partition_point(|(wall, _)| wall.0 < at.0 - REPORT_WINDOW_NS);
        let behind = self.offsets.partition_point(|(wall, _)| wall.0 <= at.0 + REPORT_WINDOW_NS);
        let mut near: Vec<i64> =
            self.offsets[first..behind].iter().map(|(_, offset)| *offset).collect();
        near.sort_unstable();
        near.get(near.len() / 2).copied()
    }
}

/// By how much the line of a source is to be moved at an instant: to the earliest of its CNAME.
fn moved(own: &Clock, group: &[&Clock], at: Wall) -> Option<i64> {
    let offset = own.offset(at)?;
    let others = group.iter().filter(|other| other.ssrc != own.ssrc);
    let near = |other: &i64| other.abs_diff(offset) <= REPORT_OFF_NS as u64;
    let least = others.filter_map(|other| other.offset(at)).filter(near).min()?;
    Some((least - offset).min(0))
}

fn line(
    timing: &Timing,
    fitted: Vec<Fitted>,
    own: &[Clock],
    groups: &BTreeMap<&[u8], Vec<&Clock>>,
) -> TimeLine {
    let mut evidence = Evidence::Arrival;
    let mut off: Vec<i64> = Vec::new();
    let mut pieces = Vec::new();
    let mut heard = Vec::new();
    for Fitted { mut piece, above_ns, holes, .. } in fitted {
        let clock = own.iter().find(|clock| clock.ssrc == piece.ssrc);
        let group = clock.and_then(|clock| groups.get(clock.cname.as_deref()?));
        if let (Some(clock), Some(group)) = (clock, group)
            && shift(&mut piece.nodes, |at| moved(clock, group, at))
        {
            evidence = Evidence::Sr;
            let from_median =
                |(at, offset): &(Wall, i64)| Some((offset - clock.offset(*at)?).abs());
            off.extend(clock.offsets.iter().filter_map(from_median));
        } else {
            off.extend(above_ns);
        }
        let mut at = piece.positions.0;
        for (from, to) in holes.into_iter().chain([(piece.positions.1, i64::MAX)]) {
            heard.push((piece.wall(at), piece.wall(from)));
            at = to;
        }
        pieces.push(piece);
    }
    pieces.sort_by_key(|piece| piece.nodes[0].wall);
    off.sort_unstable();
    let residual = off.get(off.len().saturating_sub(1) * 95 / 100).copied().unwrap_or(0);
    TimeLine {
        rate: timing.rate as u32,
        pieces,
        evidence,
        residual_ms: (residual as f64 / 1e3).round() / 1e3,
        reports: (
            own.iter().map(|clock| clock.offsets.len() as u64).sum(),
            own.iter().map(|clock| clock.left_out).sum(),
        ),
        silences: silences(heard),
        cut: timing.cut,
    }
}

/// Moves nodes by what is known at each; between and beyond, by what is known next to it. Returns
/// whether anything is.
fn shift(nodes: &mut [Node], known: impl Fn(Wall) -> Option<i64>) -> bool {
    let moves: Vec<(Wall, i64)> =
        nodes.iter().filter_map(|node| Some((node.wall, known(node.wall)?))).collect();
    let (Some(first), Some(last)) = (moves.first(), moves.last()) else { return false };
    for node in nodes.iter_mut() {
        let right = moves.partition_point(|(wall, _)| *wall <= node.wall);
        node.wall.0 += match (moves.get(right.wrapping_sub(1)), moves.get(right)) {
            (Some(left), Some(right)) => {
                let share = (node.wall.0 - left.0.0) as f64 / (right.0.0 - left.0.0) as f64;
                left.1 + ((right.1 - left.1) as f64 * share) as i64
            }
            (None, _) => first.1,
            (_, None) => last.1,
        };
    }
    rise(nodes);
    true
}

/// What lies between all that is heard.
fn silences(mut heard: Vec<(Wall, Wall)>) -> Vec<(Wall, Wall)> {
    heard.sort();
    let mut silences = Vec::new();
    let mut end: Option<Wall> = None;
    for (from, to) in heard {
        if let Some(end) = end.filter(|end| from.0 - end.0 > HOLE_NS) {
            silences.push((end, from));
        }
        end = end.max(Some(to));
    }
    silences
}
