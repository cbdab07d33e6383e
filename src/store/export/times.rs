//! `timeline.json`: when each sample of each WAV was, what says so, and where there is none.

use serde::{Deserialize, Serialize};

use super::cover::Overlapped;
use super::mix::Samples;
use super::timeline::{Evidence, TimeLine};
use crate::base::ids::StreamId;
use crate::base::time::Wall;
use crate::store::catalog::model::Stream;

/// Its name.
pub const FILE: &str = "timeline.json";
/// Its version.
pub const VERSION: u32 = 1;

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// [`VERSION`].
    pub version: u32,
    /// First sample of `mixed.wav`, if it holds any.
    pub mixed_start: Option<Wall>,
    /// One per WAV of a stream.
    pub wavs: Vec<Wav>,
}

/// One WAV.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wav {
    /// Its file.
    pub file: String,
    /// The stream's label.
    pub label: String,
    /// Number of the stream in the store.
    pub stream: StreamId,
    /// Samples a second, by name.
    pub rate: u32,
    /// How many there are.
    pub samples: u64,
    /// When the first one was, by our clock; null: nothing came.
    pub start: Option<Wall>,
    /// How much faster than its name says the stream's clock ran by ours, millionths.
    pub ppm: f64,
    /// What tied it to the other streams.
    pub evidence: Evidence,
    /// How far single pieces of evidence lie off the line; 95 of 100 are nearer.
    pub residual_ms: f64,
    /// Sender reports that counted.
    pub reports_used: u64,
    /// Those that made no sense.
    pub reports_left_out: u64,
    /// The line: straight between two entries of a run.
    pub runs: Vec<Run>,
    /// Times without audio.
    pub silences: Vec<Silence>,
    /// Audio that is not in it, since other audio came for the same place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlapped: Option<Overlapped>,
    /// There were more breaks or silences than are told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// Samples that one clock counted without a break.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Whose.
    pub ssrc: u32,
    /// What is known: sample of the file (negative, or behind its end, where the file is of a range)
    /// and its time.
    pub nodes: Vec<(i64, Wall)>,
}

/// A time without audio.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// From here…
    pub from: Wall,
    /// …to here.
    pub to: Wall,
    /// Why.
    pub why: Why,
}

/// Why there is no audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// The stream was paused.
    Paused,
    /// Packets are missing, by the ledger.
    Lost,
    /// Nothing was sent, or nothing that is audio.
    Idle,
}

impl Wav {
    /// What is said of audio that is not in it.
    pub fn overlap_words(&self) -> Option<String> {
        let Overlapped { packets, samples } = self.overlapped?;
        let seconds = samples as f64 / f64::from(self.rate.max(1));
        Some(format!(
            "{packets} packet(s) came for a place that had audio already: {seconds:.3} s of that are not in {}, only \
             in the packets (export --format pcapng); play adds up SSRCs that talk at once",
            self.file
        ))
    }

    /// Of a stream's file; `overlapped`: packets and ticks. `range`: only silences in it are told.
    pub fn new(
        file: String,
        stream: &Stream,
        line: &TimeLine,
        (samples, overlapped): (Samples, (u64, u64)),
        range: (Wall, Wall),
    ) -> Self {
        let sample = |position: i64| ((position - samples.origin) as f64 * samples.a_tick) as i64;
        let run = |piece: &super::timeline::Piece| Run {
            ssrc: piece.ssrc,
            nodes: piece.nodes.iter().map(|node| (sample(node.position), node.wall)).collect(),
        };
        let clipped = |(from, to): &(Wall, Wall)| ((*from).max(range.0), (*to).min(range.1));
        let silences = line.silences.iter().map(clipped).filter(|(from, to)| from < to);
        let gaps = || {
            let gaps = stream.sources.iter().flat_map(|source| &source.gaps);
            gaps.map(|gap| (gap.from, gap.to))
        };
        let hundredths = |value: f64| (value * 100.0).round() / 100.0;
        Wav {
            file,
            label: stream.label.clone(),
            stream: stream.stream,
            rate: (f64::from(line.rate) * samples.a_tick).round() as u32,
            samples: samples.frames,
            start: line.wall(samples.origin),
            ppm: hundredths(line.ppm()),
            evidence: line.evidence,
            residual_ms: line.residual_ms,
            reports_used: line.reports.0,
            reports_left_out: line.reports.1,
            runs: line.pieces.iter().map(run).collect(),
            silences: silences
                .map(|(from, to)| Silence {
                    from,
                    to,
                    why: why(pauses(stream), gaps(), (from, to)),
                })
                .collect(),
            overlapped: (overlapped.0 > 0).then_some(Overlapped {
                packets: overlapped.0,
                samples: (overlapped.1 as f64 * samples.a_tick) as u64,
            }),
            cut: line.cut,
        }
    }
}

/// Why there was no audio from `from` to `to`, by the times in which it was paused, and those in which packets
/// are missing. Those are times of arrivals, ours are of samples.
pub fn why(
    mut pauses: impl Iterator<Item = (Wall, Wall)>,
    mut gaps: impl Iterator<Item = (Wall, Wall)>,
    (from, to): (Wall, Wall),
) -> Why {
    let meets = |(start, end): (Wall, Wall)| start < to && from < end;
    if pauses.any(meets) {
        Why::Paused
    } else if gaps.any(meets) {
        Why::Lost
    } else {
        Why::Idle
    }
}

/// The times in which a stream was paused; what lasts has no end.
pub fn pauses(stream: &Stream) -> impl Iterator<Item = (Wall, Wall)> {
    stream.pauses.iter().map(|pause| (pause.from, pause.to.unwrap_or(Wall(i64::MAX))))
}
