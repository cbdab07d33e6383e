//! The digits of `telephone-event` packets (RFC 4733) as the tones that they stand for, at their place in a
//! stream's samples. The sender left silence there, or what its microphone heard meanwhile.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use super::placement::Placement;
use crate::base::time::Wall;
use crate::wire::event;

/// Segments of tones of a stream that are kept; a trader's line dials a few dozen digits a day.
const SEGMENTS_MAX: usize = 10_000;
/// Low and high frequency of each digit, Hz (ITU-T Q.23), by its event code.
const PAIRS: [(f64, f64); 16] = {
    const LOW: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
    const HIGH: [f64; 4] = [1_209.0, 1_336.0, 1_477.0, 1_633.0];
    [
        (LOW[3], HIGH[1]),
        (LOW[0], HIGH[0]),
        (LOW[0], HIGH[1]),
        (LOW[0], HIGH[2]),
        (LOW[1], HIGH[0]),
        (LOW[1], HIGH[1]),
        (LOW[1], HIGH[2]),
        (LOW[2], HIGH[0]),
        (LOW[2], HIGH[1]),
        (LOW[2], HIGH[2]),
        (LOW[3], HIGH[0]),
        (LOW[3], HIGH[2]),
        (LOW[0], HIGH[3]),
        (LOW[1], HIGH[3]),
        (LOW[2], HIGH[3]),
        (LOW[3], HIGH[3]),
    ]
};
/// A sine of 0 dBm0 peaks 3.17 dB below full scale (ITU-T G.711, µ-law).
const FULL_SCALE_DBM0: f64 = 3.17;
/// Most power of each of the two frequencies: many a sender says 0 dBm0, and means nothing by it.
const LOUDEST_DBM0: f64 = -10.0;

/// The digits of one stream, in segments by source, event and RTP timestamp.
#[derive(Debug, Default)]
pub struct Tones(BTreeMap<(u16, u8, u32), Segment>);

#[derive(Clone, Copy, Debug)]
struct Segment {
    /// Position of its begin, in ticks; `None`: nothing of its source had come.
    position: Option<i64>,
    /// RTP ticks.
    duration: u16,
    volume: u8,
    clock_rate: u32,
}

/// A tone to be put.
#[derive(Clone, Debug, PartialEq)]
pub struct Tone {
    /// Position of its begin, in ticks of the stream's clock.
    pub position: i64,
    /// Ticks of the stream's clock.
    pub ticks: i64,
    pair: (f64, f64),
    volume: u8,
}

impl Tones {
    /// Takes a telephone-event packet of a stream whose audio has `audio_rate` ticks a second. Where its
    /// own clock is another, its timestamps say nothing of the audio's, and its arrival does.
    pub fn packet(
        &mut self,
        (ordinal, timestamp, arrival): (u16, u32, Wall),
        payload: &[u8],
        (clock_rate, audio_rate): (u32, u32),
        placement: &Placement,
    ) {
        for told in event::all(payload).filter(|told| told.digit().is_some()) {
            let key = (ordinal, told.event, timestamp.wrapping_add(told.behind));
            if self.0.len() >= SEGMENTS_MAX && !self.0.contains_key(&key) {
                return;
            }
            let position = match clock_rate == audio_rate {
                true => placement.of_report(ordinal, key.2),
                false => placement.expected(ordinal, arrival),
            };
            let first = Segment { position, duration: 0, volume: told.volume, clock_rate };
            let segment = self.0.entry(key).or_insert(first);
            segment.position = segment.position.or(position);
            segment.duration = segment.duration.max(told.duration);
        }
    }

    /// The tones in order of source and digit; `audio_rate` as above, `placement` after the last packet.
    pub fn all(&self, audio_rate: u32, placement: &Placement) -> Vec<Tone> {
        let tone = |(key, segment): (&(u16, u8, u32), &Segment)| {
            let (ordinal, event, timestamp) = *key;
            let late = || {
                let same = segment.clock_rate == audio_rate;
                same.then(|| placement.of_report(ordinal, timestamp)).flatten()
            };
            let ticks = i64::from(segment.duration) * i64::from(audio_rate)
                / i64::from(segment.clock_rate.max(1));
            Some(Tone {
                position: segment.position.or_else(late)?,
                ticks,
                pair: PAIRS[usize::from(event)],
                volume: segment.volume,
            })
        };
        self.0.iter().filter_map(tone).collect()
    }
}

impl Tone {
    /// `count` of its samples at `rate` a second, the same in all of `channels`, from the `first` of it on.
    pub fn samples(&self, rate: u32, channels: u8, first: u64, count: usize) -> Vec<i16> {
        let level = LOUDEST_DBM0.min(-f64::from(self.volume)) - FULL_SCALE_DBM0;
        let peak = f64::from(i16::MAX) * 10_f64.powf(level / 20.0);
        let mut out = Vec::with_capacity(count * usize::from(channels));
        for number in first..first + count as u64 {
            let turn = TAU * number as f64 / f64::from(rate.max(1));
            let sum = (turn * self.pair.0).sin() + (turn * self.pair.1).sin();
            let sample = (peak * sum).round() as i16;
            out.extend(std::iter::repeat_n(sample, usize::from(channels)));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn audio(placement: &mut Placement, from: u32, to: u32) {
        for number in from..to {
            placement.place(1, 5_000 + number * 160, Wall(i64::from(number) * 20 * MS), 160);
        }
    }

    /// Power of one frequency in samples of 8,000 a second, as its peak.
    fn peak(samples: &[i16], hz: f64) -> f64 {
        let (mut re, mut im) = (0.0, 0.0);
        for (number, sample) in samples.iter().enumerate() {
            let turn = TAU * number as f64 * hz / 8_000.0;
            re += f64::from(*sample) * turn.cos();
            im += f64::from(*sample) * turn.sin();
        }
        2.0 * re.hypot(im) / samples.len() as f64
    }

    #[test]
    fn a_digit_is_where_its_timestamp_says_as_long_and_as_loud_as_told() {
        let (mut placement, mut tones) = (Placement::new(8_000), Tones::default());
        audio(&mut placement, 0, 50);
        // The digit 5 begins at 1.0 s; its updates come later and repeat its timestamp.
        for (at_ms, ticks) in [(1_020, 160_u16), (1_100, 800), (1_140, 800)] {
            let [high, low] = ticks.to_be_bytes();
            let of = (1, 13_000, Wall(at_ms * MS));
            tones.packet(of, &[5, 0x80 | 13, high, low], (8_000, 8_000), &placement);
        }
        audio(&mut placement, 60, 90);
        let all = tones.all(8_000, &placement);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].position, all[0].ticks), (8_000, 800));
        let samples = all[0].samples(8_000, 1, 0, 800);
        for hz in [770.0, 1_336.0] {
            // -13 dBm0: 16.17 dB below full scale.
            assert!((peak(&samples, hz) / 5_110.0 - 1.0).abs() < 0.03, "{}", peak(&samples, hz));
        }
        assert!(peak(&samples, 941.0) < 100.0);
        // In parts as at once, in each channel.
        let parts = [all[0].samples(8_000, 1, 0, 300), all[0].samples(8_000, 1, 300, 500)].concat();
        assert_eq!(parts, samples);
        let two = all[0].samples(8_000, 2, 7, 1);
        assert_eq!(two, [samples[7], samples[7]]);
    }

    #[test]
    fn another_clock_counts_by_arrival_and_what_is_no_digit_is_no_tone() {
        let (mut placement, mut tones) = (Placement::new(48_000), Tones::default());
        placement.place(1, 9_600, Wall(0), 960);
        tones.packet((1, 77, Wall(100 * MS)), &[1, 0x80, 1, 0x90], (8_000, 48_000), &placement);
        tones.packet((1, 99, Wall(100 * MS)), &[16, 0x80, 1, 0x90], (8_000, 48_000), &placement);
        // Of a source that nobody heard.
        tones.packet((2, 99, Wall(100 * MS)), &[2, 0x80, 1, 0x90], (8_000, 48_000), &placement);
        let all = tones.all(48_000, &placement);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].position, all[0].ticks), (4_800, 2_400));
    }

    #[test]
    fn a_digit_before_the_first_sound_has_its_place_too_and_memory_a_bound() {
        let (mut placement, mut tones) = (Placement::new(8_000), Tones::default());
        tones.packet((1, 4_200, Wall(0)), &[3, 0x80, 1, 0x90], (8_000, 8_000), &placement);
        audio(&mut placement, 0, 2);
        assert_eq!(tones.all(8_000, &placement)[0].position, -800);
        for timestamp in 0..SEGMENTS_MAX as u32 + 10 {
            let of = (1, timestamp * 400, Wall(0));
            tones.packet(of, &[1, 0x80, 1, 0x90], (8_000, 8_000), &placement);
        }
        assert_eq!(tones.0.len(), SEGMENTS_MAX);
    }
}
