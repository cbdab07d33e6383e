//! Two melodies that nobody mistakes for each other: what the built-in parties "say" when no WAV is
//! given. Both turn-taking and pitch differ, so that swapped or mixed channels are heard at once.

use std::f32::consts::TAU;

/// Samples per second of everything the built-in SRC sends.
pub const RATE: u32 = 8_000;

/// A note: pitch in Hz (0 is a rest) and length in milliseconds.
type Note = (f32, u32);

/// The caller: rising, low, even.
const CALLER: [Note; 10] = [
    (196.0, 250),
    (247.0, 250),
    (294.0, 250),
    (392.0, 500),
    (294.0, 250),
    (392.0, 750),
    (0.0, 250),
    (220.0, 250),
    (262.0, 500),
    (0.0, 750),
];

/// The callee: falling, two octaves up, dotted.
const CALLEE: [Note; 10] = [
    (0.0, 1_000),
    (1_047.0, 375),
    (988.0, 125),
    (880.0, 375),
    (784.0, 125),
    (698.0, 375),
    (659.0, 125),
    (587.0, 500),
    (523.0, 750),
    (0.0, 250),
];

/// One round of the melody of party `party` (even: caller, odd: callee) as 16-bit samples; 4 s.
pub fn round(party: usize) -> Vec<i16> {
    let notes = if party.is_multiple_of(2) { &CALLER } else { &CALLEE };
    // The parties beyond the first two sing a little higher each, up to an octave.
    let transpose = 2_f32.powf((party / 2 % 12) as f32 / 12.0);
    let mut samples = Vec::with_capacity(4 * RATE as usize);
    for &(pitch, ms) in notes {
        let count = ms * RATE / 1_000;
        samples.extend((0..count).map(|n| sample(pitch * transpose, n, count)));
    }
    samples
}

/// Sample `n` of a note of `count` samples: four falling harmonics in a soft envelope, which is
/// near enough to a sung vowel to be told from a test tone.
fn sample(pitch: f32, n: u32, count: u32) -> i16 {
    if pitch == 0.0 {
        return 0;
    }
    let time = n as f32 / RATE as f32;
    let attack = (n as f32 / 160.0).min(1.0);
    let release = ((count - n) as f32 / 400.0).min(1.0);
    let vibrato = 1.0 + 0.004 * (TAU * 5.0 * time).sin();
    let wave: f32 = (1..=4_u8)
        .map(f32::from)
        // Harmonics at or above half the sampling rate would fold back.
        .filter(|harmonic| pitch * harmonic < RATE as f32 / 2.0)
        .map(|harmonic| (TAU * pitch * harmonic * vibrato * time).sin() / (harmonic * harmonic))
        .sum();
    (wave * attack * release * 9_000.0) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Zero crossings per second, a fair stand-in for pitch.
    fn crossings(samples: &[i16]) -> usize {
        samples.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count()
    }

    #[test]
    fn the_two_parties_differ_in_pitch_and_in_time() {
        let (caller, callee) = (round(0), round(1));
        assert_eq!(caller.len(), 4 * RATE as usize);
        assert_eq!(callee.len(), caller.len());
        assert!(crossings(&callee) > 2 * crossings(&caller));
        assert!(callee[..RATE as usize].iter().all(|sample| *sample == 0));
        assert!(caller[..RATE as usize].iter().any(|sample| *sample != 0));
        assert_ne!(round(2), caller);
    }
}
