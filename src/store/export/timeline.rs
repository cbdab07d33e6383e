//! Where a stream's samples lie in wall time, by our clock: straight pieces between nodes.
//!
//! A value without a clock or a file: [`super::timing`] makes it from what came, export, play and tap
//! ask it. Positions are those of [`super::placement`], in ticks of the RTP clock.

use serde::{Deserialize, Serialize};

use crate::base::time::Wall;

/// What tied a stream to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// Sender reports of sources with one CNAME: how late each line's packets are against the others
    /// is known.
    Sr,
    /// Arrivals alone: all lines are taken to be equally late at their best.
    Arrival,
}

/// A place that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Position on the stream's line.
    pub position: i64,
    /// When that was.
    pub wall: Wall,
}

/// Samples that one clock counted without a break: at least two nodes, both rising.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Whose.
    pub ssrc: u32,
    /// First position and the one behind the last; the nodes begin and end there.
    pub positions: (i64, i64),
    /// What is known.
    pub nodes: Vec<Node>,
}

/// A straight part of a line: `position` at `from`, and on at `rate` positions a second until `to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Straight {
    /// From here.
    pub from: Wall,
    /// Up to here.
    pub to: Wall,
    /// Position at `from`.
    pub position: f64,
    /// Positions a second.
    pub rate: f64,
    /// What belongs to it: nothing outside of these positions is to be heard in it.
    pub positions: (i64, i64),
}

/// The line of one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeLine {
    /// The RTP clock, Hz.
    pub rate: u32,
    /// By start in wall time.
    pub pieces: Vec<Piece>,
    /// What tied it to other lines.
    pub evidence: Evidence,
    /// How far single pieces of evidence lie off the line, milliseconds; 95 of 100 are nearer.
    pub residual_ms: f64,
    /// Sender reports that counted, and those that made no sense.
    pub reports: (u64, u64),
    /// Times without audio, by wall: what was not sent, paused, or lost.
    pub silences: Vec<(Wall, Wall)>,
    /// There were more of them, or more breaks, than are kept.
    pub cut: bool,
}

impl Piece {
    fn start(&self) -> Wall {
        self.nodes[0].wall
    }

    fn end(&self) -> Wall {
        self.nodes[self.nodes.len() - 1].wall
    }

    /// Nodes around what `before` says of the left ones; the outermost two beyond either end.
    fn around(&self, before: impl Fn(&Node) -> bool) -> (Node, Node) {
        let right = self.nodes.partition_point(before).clamp(1, self.nodes.len() - 1);
        (self.nodes[right - 1], self.nodes[right])
    }

    /// When a position was; beyond the ends the last slope goes on.
    pub fn wall(&self, position: i64) -> Wall {
        let (left, right) = self.around(|node| node.position <= position);
        let run = i128::from((right.position - left.position).max(1));
        let rise = i128::from(right.wall.0 - left.wall.0);
        Wall(left.wall.0 + (i128::from(position - left.position) * rise / run) as i64)
    }

    /// Position at an instant.
    pub fn position(&self, wall: Wall) -> f64 {
        let (left, right) = self.around(|node| node.wall <= wall);
        let rise = (right.position - left.position) as f64;
        let run = (right.wall.0 - left.wall.0).max(1) as f64;
        left.position as f64 + (wall.0 - left.wall.0) as f64 * rise / run
    }

    /// How much faster than its name says the clock runs by ours, millionths.
    pub fn ppm(&self, rate: u32) -> f64 {
        let (first, last) = (self.nodes[0], self.nodes[self.nodes.len() - 1]);
        let nominal = (last.position - first.position) as f64 * 1e9 / f64::from(rate);
        (nominal / ((last.wall.0 - first.wall.0).max(1) as f64) - 1.0) * 1e6
    }
}

impl TimeLine {
    /// The piece that is heard at `wall`: where several overlap, the one that began last.
    fn heard_at(&self, wall: Wall) -> Option<&Piece> {
        self.pieces.iter().rev().find(|piece| piece.start() <= wall && wall < piece.end())
    }

    /// When a position was: by the piece that has it, else by the nearest.
    pub fn wall(&self, position: i64) -> Option<Wall> {
        let off = |piece: &&Piece| {
            let (from, to) = piece.positions;
            (from - position).max(position - to + 1).max(0)
        };
        self.pieces.iter().rev().min_by_key(off).map(|piece| piece.wall(position))
    }

    /// Position at an instant. Where nothing was sent then, the next piece is followed back, else the
    /// last one on.
    pub fn position(&self, wall: Wall) -> Option<f64> {
        let next = || self.pieces.iter().find(|piece| wall < piece.start());
        let piece = self.heard_at(wall).or_else(next).or(self.pieces.last())?;
        Some(piece.position(wall))
    }

    /// First and last instant with audio.
    pub fn span(&self) -> Option<(Wall, Wall)> {
        let start = self.pieces.first()?.start();
        Some((start, self.pieces.iter().map(Piece::end).max()?))
    }

    /// Of the longest piece: see [`Piece::ppm`].
    pub fn ppm(&self) -> f64 {
        let longest = self.pieces.iter().max_by_key(|piece| piece.positions.1 - piece.positions.0);
        longest.map_or(0.0, |piece| piece.ppm(self.rate))
    }

    /// All of it as straight parts in order of wall time that do not overlap: where pieces do, the
    /// one that began last is heard.
    pub fn straights(&self) -> Vec<Straight> {
        let mut borders: Vec<Wall> =
            self.pieces.iter().flat_map(|piece| [piece.start(), piece.end()]).collect();
        borders.sort();
        borders.dedup();
        let mut straights = Vec::new();
        let mut active: Vec<&Piece> = Vec::new();
        let mut next = self.pieces.iter().peekable();
        for border in borders.windows(2) {
            while let Some(piece) = next.next_if(|piece| piece.start() <= border[0]) {
                active.push(piece);
            }
            active.retain(|piece| piece.end() > border[0]);
            if let Some(piece) = active.last() {
                piece.straights((border[0], border[1]), &mut straights);
            }
        }
        straights
    }
}

impl Piece {
    fn straights(&self, span: (Wall, Wall), out: &mut Vec<Straight>) {
        let first = self.nodes.partition_point(|node| node.wall <= span.0).saturating_sub(1);
        for pair in self.nodes[first..].windows(2).take_while(|pair| pair[0].wall < span.1) {
            let (from, to) = (pair[0].wall.max(span.0), pair[1].wall.min(span.1));
            if from >= to {
                continue;
            }
            let run = (pair[1].wall.0 - pair[0].wall.0) as f64;
            let rise = (pair[1].position - pair[0].position) as f64;
            let position = pair[0].position as f64 + (from.0 - pair[0].wall.0) as f64 * rise / run;
            let rate = rise * 1e9 / run;
            out.push(Straight { from, to, position, rate, positions: self.positions });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    fn piece(positions: (i64, i64), walls: (i64, i64)) -> Piece {
        let node = |position, wall| Node { position, wall: Wall(wall) };
        let nodes = vec![node(positions.0, walls.0), node(positions.1, walls.1)];
        Piece { ssrc: 1, positions, nodes }
    }

    fn line(pieces: Vec<Piece>) -> TimeLine {
        TimeLine {
            rate: 8_000,
            pieces,
            evidence: Evidence::Arrival,
            residual_ms: 0.0,
            reports: (0, 0),
            silences: Vec::new(),
            cut: false,
        }
    }

    #[test]
    fn what_stood_still_is_found_on_both_sides_of_its_pause() {
        let line = line(vec![piece((0, 8_000), (0, S)), piece((8_000, 16_000), (61 * S, 62 * S))]);
        assert_eq!(line.wall(7_999), Some(Wall(S - 125_000)));
        assert_eq!(line.wall(8_000), Some(Wall(61 * S)));
        assert_eq!(line.position(Wall(S / 2)), Some(4_000.0));
        assert_eq!(line.position(Wall(60 * S)), Some(0.0), "followed back from what came next");
        assert_eq!(line.position(Wall(63 * S)), Some(24_000.0));
        assert_eq!(line.span(), Some((Wall(0), Wall(62 * S))));
        assert_eq!(line.straights().len(), 2);
    }

    #[test]
    fn of_two_at_once_the_later_one_is_heard_and_then_the_first_again() {
        let line =
            line(vec![piece((0, 80_000), (0, 10 * S)), piece((40_000, 48_000), (4 * S, 5 * S))]);
        let heard: Vec<_> =
            line.straights().iter().map(|one| (one.from.0 / S, one.positions)).collect();
        assert_eq!(heard, [(0, (0, 80_000)), (4, (40_000, 48_000)), (5, (0, 80_000))]);
        assert_eq!(line.straights()[2].position, 40_000.0);
    }

    #[test]
    fn a_clock_that_runs_fast_is_said_to() {
        assert_eq!(piece((0, 800_040), (0, 100 * S)).ppm(8_000).round(), 50.0);
    }
}
