//! What is shown of a line: levels of equal times, and the times in which nothing is heard.

use serde::{Deserialize, Serialize};

use super::canvas::Level;
use super::trace::{Block, Trace};
use crate::base::time::Wall;
use crate::store::export::timeline::TimeLine;
use crate::store::export::times::{Why, why};

/// No sample farther from silence is quiet: 50 dB below full scale, 32,768 × 10^(-50/20).
const QUIET: u16 = 104;
/// As long as that at least: pauses between sentences are speech.
const QUIET_NS: i64 = 2_000_000_000;
/// Less than this is no silence worth telling, as in `export/align`.
const HOLE_NS: i64 = 100_000_000;

/// What was heard in one of many equal times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// When it begins.
    pub at: Wall,
    /// Lowest sample, of all channels; 0 where there is none.
    pub min: i16,
    /// Highest sample.
    pub max: i16,
    /// Root of their mean square.
    pub rms: u16,
    /// Which samples of the line they are, the last one not: as an export of the same range counts them. Null
    /// where nothing came.
    pub samples: Option<(i64, i64)>,
}

/// A time in which nothing is heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// From here…
    pub from: Wall,
    /// …to here.
    pub to: Wall,
    /// Why.
    pub why: Reason,
}

/// Why nothing is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// The line was paused.
    Paused,
    /// Packets are missing.
    Lost,
    /// Nothing was sent, or nothing that is audio.
    Idle,
    /// It is gone by retention.
    Gone,
    /// Something is recorded there, and it is not drawn yet.
    Undrawn,
    /// Somebody sent, and no sample was louder than 50 dB below full scale.
    Quiet,
}

impl From<Why> for Reason {
    fn from(why: Why) -> Self {
        match why {
            Why::Paused => Reason::Paused,
            Why::Lost => Reason::Lost,
            Why::Idle => Reason::Idle,
        }
    }
}

impl Reason {
    /// As in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Paused => "paused",
            Reason::Lost => "lost",
            Reason::Idle => "idle",
            Reason::Gone => "gone",
            Reason::Undrawn => "undrawn",
            Reason::Quiet => "quiet",
        }
    }
}

/// When places of a line were. Those that are asked for one behind the other are mostly of one piece.
struct Clock<'a> {
    line: &'a TimeLine,
    piece: usize,
}

impl Clock<'_> {
    fn wall(&mut self, position: i64) -> Option<Wall> {
        let holds = |piece: usize| {
            let (from, to) = self.line.pieces[piece].positions;
            (from..to).contains(&position)
        };
        let count = self.line.pieces.len();
        if self.piece >= count || !holds(self.piece) {
            match (0..count).rev().find(|piece| holds(*piece)) {
                Some(piece) => self.piece = piece,
                None => return self.line.wall(position),
            }
        }
        Some(self.line.pieces[self.piece].wall(position))
    }
}

/// Levels of one bucket, together.
#[derive(Clone, Copy)]
struct Together {
    min: i16,
    max: i16,
    squares: f64,
    frames: u64,
    /// First place and the one behind the last.
    from: i64,
    to: i64,
}

impl Together {
    fn of(block: &Block) -> Self {
        let Block { from, to, level: Level { min, max, rms, frames } } = *block;
        let squares = f64::from(rms).powi(2) * f64::from(frames);
        Together { min, max, squares, frames: frames.into(), from, to }
    }

    fn and(self, other: Self) -> Self {
        Together {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            squares: self.squares + other.squares,
            frames: self.frames + other.frames,
            from: self.from.min(other.from),
            to: self.to.max(other.to),
        }
    }

    /// Places without a sample are silent.
    fn level(&self) -> (i16, i16, u16) {
        let frames = ((self.to - self.from) as u64).max(self.frames);
        let (min, max) = match frames > self.frames {
            true => (self.min.min(0), self.max.max(0)),
            false => (self.min, self.max),
        };
        (min, max, (self.squares / frames as f64).sqrt().round() as u16)
    }
}

/// `count` buckets of `range`, in order. A block belongs where its middle is. `origin`: the place that is sample 0.
pub fn buckets(
    trace: &Trace<'_>,
    line: &TimeLine,
    range: (Wall, Wall),
    origin: i64,
    count: u32,
) -> Vec<Bucket> {
    let (from, to) = range;
    let length = i128::from((to.0 - from.0).max(1));
    let begins = |number: i128| Wall(from.0 + (length * number / i128::from(count)) as i64);
    let mut levels: Vec<Option<Together>> = vec![None; count as usize];
    let mut clock = Clock { line, piece: 0 };
    for block in trace.blocks() {
        let middle = trace.rates.ticks(block.from + (block.to - block.from) / 2);
        let Some(wall) = clock.wall(middle) else { continue };
        let into = i128::from(wall.0) - i128::from(from.0);
        let number = (into * i128::from(count)).div_euclid(length);
        let Some(slot) = usize::try_from(number).ok().and_then(|number| levels.get_mut(number))
        else {
            continue;
        };
        let own = Together::of(&block);
        *slot = Some(slot.map_or(own, |known| known.and(own)));
    }
    let bucket = |(number, slot): (usize, Option<Together>)| {
        let at = begins(number as i128);
        let Some(together) = slot else {
            return Bucket { at, min: 0, max: 0, rms: 0, samples: None };
        };
        let (min, max, rms) = together.level();
        let samples = Some((together.from - origin, together.to - origin));
        Bucket { at, min, max, rms, samples }
    };
    levels.into_iter().enumerate().map(bucket).collect()
}

/// The times of `range` in which nothing is heard, by start. `pauses`: when the line was paused.
pub fn silences(
    trace: &Trace<'_>,
    line: &TimeLine,
    range: (Wall, Wall),
    pauses: &[(Wall, Wall)],
) -> Vec<Silence> {
    let mut gaps = trace.gaps.clone();
    gaps.sort();
    let told = |from: Wall, to: Wall| {
        let meets = |(start, end): &(Wall, Wall)| *start < to && from < *end;
        if trace.gone.iter().any(meets) {
            return Reason::Gone;
        }
        if trace.undrawn.iter().any(meets) {
            return Reason::Undrawn;
        }
        // One behind the other: those that begin later cannot meet it, nor those long before.
        let behind = gaps.partition_point(|gap| gap.0 < to);
        let near = gaps[..behind].iter().rev().take_while(|gap| gap.1 > from);
        why(pauses.iter().copied(), near.copied(), (from, to)).into()
    };
    let edges = match line.span() {
        Some((first, last)) => vec![(range.0, first), (last, range.1)],
        None => vec![range],
    };
    let edges = edges.into_iter().filter(|(from, to)| to.0.saturating_sub(from.0) > HOLE_NS);
    let within = |(from, to): (Wall, Wall)| (from.max(range.0), to.min(range.1));
    let silent = line.silences.iter().copied().chain(edges).map(within);
    let mut silences: Vec<Silence> = silent
        .filter(|(from, to)| from < to)
        .map(|(from, to)| Silence { from, to, why: told(from, to) })
        .collect();
    let quiet = quiet(trace, line).into_iter().map(within);
    let quiet = quiet.filter(|(from, to)| to.0.saturating_sub(from.0) >= QUIET_NS);
    silences.extend(quiet.map(|(from, to)| Silence { from, to, why: Reason::Quiet }));
    silences.sort_by_key(|silence| (silence.from, silence.to));
    silences
}

/// Times in which all that came was quiet.
fn quiet(trace: &Trace<'_>, line: &TimeLine) -> Vec<(Wall, Wall)> {
    let rates = trace.rates;
    let hole = i64::from(rates.rate) / 10;
    let mut clock = Clock { line, piece: 0 };
    let mut found = Vec::new();
    let mut run: Option<(i64, i64)> = None;
    let mut end = |(from, to): (i64, i64)| {
        // The last sample is of the piece, what is behind it may be of the next one.
        let first = clock.wall(rates.ticks(from));
        let last = clock.wall(rates.ticks(to - 1));
        found.extend(first.zip(last));
    };
    for Block { from, to, level } in trace.blocks() {
        let is_quiet = level.peak() < QUIET;
        match run {
            Some((start, behind)) if is_quiet && from - behind <= hole => {
                run = Some((start, behind.max(to)));
            }
            _ => {
                run.take().map(&mut end);
                run = is_quiet.then_some((from, to));
            }
        }
    }
    run.map(&mut end);
    found
}
