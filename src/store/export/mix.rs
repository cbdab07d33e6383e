//! One channel of `mixed.wav`: a stream's samples where its time line says, at the common rate.
//!
//! Between samples the sound is band-limited interpolation: a sinc of 32 samples under a Kaiser window
//! (β = 8), at the nearest of 4,096 places between two samples. Flat up to 0.42 of the stream's rate
//! (3,370 Hz of 8,000), what mirrors at its half is 80 dB down, the noise of choosing the nearest place
//! 75 dB. Where a sample falls on one of the mix, it is that sample, bit for bit.

use std::f64::consts::PI;

use super::timeline::TimeLine;
use crate::base::time::Wall;

/// Samples that one of the mix is made of.
const TAPS: usize = 32;
/// Of those, before the place.
const LEFT: i64 = TAPS as i64 / 2 - 1;
/// Places between two samples.
const PHASES: usize = 4_096;
/// Of the Kaiser window.
const BETA: f64 = 8.0;

/// The filter.
pub struct Filter(Vec<[f32; TAPS]>);

/// How a stream's samples lie in its own file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Samples {
    /// Position on the stream's line of its first sample.
    pub origin: i64,
    /// Samples a tick of the RTP clock.
    pub a_tick: f64,
    /// How many there are.
    pub frames: u64,
}

/// How a stream's samples map to the mix.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel(Vec<Part>);

/// Frames of the mix that are a straight part of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// First frame of the mix, and the one behind the last.
    frames: (u64, u64),
    /// Sample at the first one, and samples a frame.
    at: f64,
    step: f64,
    /// Samples that may be heard.
    samples: (i64, i64),
}

impl Default for Filter {
    fn default() -> Self {
        let tap = |phase: usize, tap: usize| {
            kernel(tap as f64 - LEFT as f64 - phase as f64 / PHASES as f64) as f32
        };
        let phases = (0..PHASES).map(|phase| {
            let taps: [f32; TAPS] = std::array::from_fn(|at| tap(phase, at));
            // A constant stays what it is.
            let sum: f32 = taps.iter().sum();
            taps.map(|tap| tap / sum)
        });
        Filter(phases.collect())
    }
}

/// The sinc under its window, so many samples from its middle.
pub(super) fn kernel(x: f64) -> f64 {
    let half = TAPS as f64 / 2.0;
    let window = bessel(BETA * (1.0 - (x / half).powi(2)).max(0.0).sqrt()) / bessel(BETA);
    let sinc = if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
    sinc * window
}

/// The modified Bessel function of order 0.
fn bessel(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 1..40 {
        term *= (x / 2.0 / f64::from(k)).powi(2);
        sum += term;
    }
    sum
}

impl Channel {
    /// Of a stream in a mix of `rate` Hz that begins at `start`.
    pub fn new(line: &TimeLine, samples: Samples, start: Wall, rate: u32) -> Self {
        let frame = |wall: Wall| (wall.0 - start.0) as f64 * f64::from(rate) / 1e9;
        let sample = |position: f64| (position - samples.origin as f64) * samples.a_tick;
        let last = samples.frames as i64;
        let parts = line.straights().into_iter().filter_map(|straight| {
            // The first frame at or after its start; a hair before counts as it.
            let first = |wall| (frame(wall) - 1e-6).ceil().max(0.0) as u64;
            let frames = (first(straight.from), first(straight.to));
            let step = straight.rate * samples.a_tick / f64::from(rate);
            let at = sample(straight.position) + (frames.0 as f64 - frame(straight.from)) * step;
            let (low, high) = straight.positions;
            let samples = (
                (sample(low as f64).floor() as i64).clamp(0, last),
                (sample(high as f64).ceil() as i64).clamp(0, last),
            );
            (frames.0 < frames.1).then_some(Part { frames, at, step, samples })
        });
        Channel(parts.collect())
    }

    /// Frames of the mix up to its end.
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |part| part.frames.1)
    }

    /// What of it lies in `count` frames of the mix from `from` on.
    pub fn parts(&self, from: u64, count: usize) -> impl Iterator<Item = Part> + '_ {
        let to = from + count as u64;
        let first = self.0.partition_point(|part| part.frames.1 <= from);
        self.0[first..].iter().take_while(move |part| part.frames.0 < to).map(move |part| {
            let frames = (part.frames.0.max(from), part.frames.1.min(to));
            let at = part.at + (frames.0 - part.frames.0) as f64 * part.step;
            Part { frames, at, ..*part }
        })
    }
}

impl Part {
    /// First frame of the mix and how many.
    pub fn frames(&self) -> (u64, usize) {
        (self.frames.0, (self.frames.1 - self.frames.0) as usize)
    }

    /// Samples of the stream that it needs: first and count.
    pub fn wanted(&self) -> (i64, usize) {
        let first = self.at.floor() as i64 - LEFT;
        let last = self.at + (self.frames.1 - self.frames.0) as f64 * self.step;
        (first, (last.ceil() as i64 - first) as usize + TAPS)
    }

    /// Silences samples, as [`Part::wanted`] asked for them, that belong to another time.
    pub fn trim(&self, samples: &mut [i16]) {
        let (first, _) = self.wanted();
        let low = (self.samples.0 - first).clamp(0, samples.len() as i64) as usize;
        let high = (self.samples.1 - first).clamp(0, samples.len() as i64) as usize;
        samples[..low].fill(0);
        samples[high.max(low)..].fill(0);
    }

    /// Its frames into `out`, from samples as [`Part::wanted`] asked for them.
    pub fn render(&self, filter: &Filter, samples: &[i16], out: &mut [i16]) {
        let (first, _) = self.wanted();
        for (frame, slot) in out.iter_mut().enumerate() {
            let place = self.at + frame as f64 * self.step - first as f64;
            let ticks = (place * PHASES as f64).round() as usize;
            let (at, phase) = (ticks / PHASES - LEFT as usize, ticks % PHASES);
            if phase == 0 {
                *slot = samples[at + LEFT as usize];
                continue;
            }
            let near = &samples[at..at + TAPS];
            let sum: f32 =
                near.iter().zip(&filter.0[phase]).map(|(s, tap)| f32::from(*s) * tap).sum();
            // Saturates: what overshoots a full scale is full scale.
            *slot = sum.round() as i16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{Evidence, Node, Piece};
    use super::*;

    const S: i64 = 1_000_000_000;

    /// A stream of `rate` Hz by its own clock, from `offset_ns` after the start of the mix on, that
    /// takes `ns`.
    fn line(rate: u32, frames: i64, offset_ns: i64, ns: i64) -> TimeLine {
        let node = |position, wall| Node { position, wall: Wall(wall) };
        let nodes = vec![node(0, offset_ns), node(frames, offset_ns + ns)];
        TimeLine {
            rate,
            pieces: vec![Piece { ssrc: 1, positions: (0, frames), nodes }],
            evidence: Evidence::Arrival,
            residual_ms: 0.0,
            reports: (0, 0),
            silences: Vec::new(),
            cut: false,
        }
    }

    fn mix(line: &TimeLine, rate: u32, samples: &[i16], count: usize, block: usize) -> Vec<i16> {
        let of = Samples { origin: 0, a_tick: 1.0, frames: samples.len() as u64 };
        let channel = Channel::new(line, of, Wall(0), rate);
        let filter = Filter::default();
        let mut out = vec![0; count];
        for from in (0..count).step_by(block) {
            for part in channel.parts(from as u64, block.min(count - from)) {
                let (first, wanted) = part.wanted();
                let at = |at: i64| usize::try_from(at).ok().and_then(|at| samples.get(at).copied());
                let mut near: Vec<i16> =
                    (first..first + wanted as i64).map(|n| at(n).unwrap_or(0)).collect();
                part.trim(&mut near);
                let (frame, frames) = part.frames();
                part.render(&filter, &near, &mut out[frame as usize..frame as usize + frames]);
            }
        }
        out
    }

    #[test]
    fn what_falls_on_a_frame_is_the_sample_itself() {
        let ramp = line(8_000, 3, 250_000, 375_000);
        assert_eq!(mix(&ramp, 8_000, &[5, -6, 7], 6, 4), [0, 0, 5, -6, 7, 0]);
        // One that began before the mix is entered in its middle.
        let early = line(8_000, 4, -250_000, 500_000);
        assert_eq!(mix(&early, 8_000, &[1, 2, 3, 4], 3, 8), [3, 4, 0]);
        let tone: Vec<i16> = (0..800).map(|n| (n * 37 % 2_001 - 1_000) as i16).collect();
        let twice = mix(&line(8_000, 800, 0, S / 10), 16_000, &tone, 1_600, 256);
        assert!(twice.iter().step_by(2).eq(&tone));
    }

    /// A sine of an SRC whose clock is 50 ppm fast comes out at its true pitch, without a click, 70 dB
    /// above everything else.
    #[test]
    fn a_drift_is_followed_without_a_click() {
        let (frames, rate) = (160_008, 8_000.4);
        for hz in [440.0, 1_000.0, 3_000.0] {
            let sine = |seconds: f64| 12_000.0 * (2.0 * PI * hz * seconds).sin();
            let samples: Vec<i16> =
                (0..frames).map(|n| sine(n as f64 / rate).round() as i16).collect();
            for mixed_rate in [8_000, 48_000] {
                let count = 20 * mixed_rate as usize;
                let out = mix(&line(8_000, frames, 0, 20 * S), mixed_rate, &samples, count, 1_000);
                let (mut power, mut off) = (0.0, 0.0);
                for (n, sample) in out.iter().enumerate().skip(100).take(count - 200) {
                    let wanted = sine(n as f64 / f64::from(mixed_rate));
                    power += wanted * wanted;
                    off += (f64::from(*sample) - wanted).powi(2);
                }
                let db = 10.0 * (power / off).log10();
                assert!(db > 70.0, "{hz} Hz at {mixed_rate}: {db} dB");
            }
        }
    }

    #[test]
    fn nothing_of_what_comes_after_a_pause_is_heard_before_it() {
        let mut line = line(8_000, 80, 0, S / 100);
        let node = |position, wall| Node { position, wall: Wall(wall) };
        let nodes = vec![node(80, S + 60_000), node(160, S + S / 100 + 60_000)];
        line.pieces.push(Piece { ssrc: 1, positions: (80, 160), nodes });
        let mut samples = vec![0; 80];
        samples.resize(160, 30_000);
        let out = mix(&line, 8_000, &samples, 8_200, 8_200);
        assert!(out[..8_000].iter().all(|sample| *sample == 0));
        assert!(out[8_010..8_060].iter().all(|sample| *sample > 25_000));
    }
}
