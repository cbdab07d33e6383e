//! Reads PCM WAV files as a media source: 16-bit, mono or the first channel, any rate brought to
//! 8 kHz by linear interpolation (good enough for a test call; 8 kHz passes sample for sample).

use super::melody::RATE;

/// Longest source taken, in samples at the file's own rate: an hour at 48 kHz.
const SAMPLES_MAX: usize = 48_000 * 3_600;

/// Why bytes are no usable WAV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WavError {
    /// No RIFF/WAVE header.
    #[error("expected a RIFF/WAVE file")]
    NotWave,
    /// No `fmt ` or no `data` chunk.
    #[error("expected a fmt and a data chunk")]
    Chunks,
    /// Another sample format.
    #[error("expected 16-bit PCM, found format {format} with {bits} bits")]
    Format {
        /// wFormatTag.
        format: u16,
        /// wBitsPerSample.
        bits: u16,
    },
    /// Too long.
    #[error("expected at most {SAMPLES_MAX} samples, found {found}")]
    Long {
        /// Samples found.
        found: usize,
    },
}

/// The first channel of the file at 8 kHz.
pub fn parse(bytes: &[u8]) -> Result<Vec<i16>, WavError> {
    let (format, data) = chunks(bytes)?;
    let frame_bytes = 2 * usize::from(format.channels);
    let count = data.len() / frame_bytes;
    if count > SAMPLES_MAX {
        return Err(WavError::Long { found: count });
    }
    let samples: Vec<i16> = data
        .chunks_exact(frame_bytes)
        .map(|frame| i16::from_le_bytes([frame[0], frame[1]]))
        .collect();
    Ok(if format.rate == RATE { samples } else { resample(&samples, format.rate) })
}

struct Format {
    channels: u16,
    rate: u32,
}

fn chunks(bytes: &[u8]) -> Result<(Format, &[u8]), WavError> {
    if bytes.len() < 12 || &bytes[..4] != b"RIFF" || &bytes[8..12] != b"WAVE" {
        return Err(WavError::NotWave);
    }
    let mut format = None;
    let mut rest = &bytes[12..];
    while rest.len() >= 8 {
        let (head, body) = rest.split_at(8);
        let stated = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        // Streams written to a pipe state 0 or 2^32 - 1: take what is there.
        let length = stated.min(body.len());
        match &head[..4] {
            b"fmt " => format = Some(parse_format(&body[..length])?),
            b"data" => return Ok((format.ok_or(WavError::Chunks)?, &body[..length])),
            _ => {}
        }
        // Chunks are padded to an even length.
        rest = body.get(length + length % 2..).unwrap_or(&[]);
    }
    Err(WavError::Chunks)
}

fn parse_format(body: &[u8]) -> Result<Format, WavError> {
    if body.len() < 16 {
        return Err(WavError::Chunks);
    }
    let word = |at: usize| u16::from_le_bytes([body[at], body[at + 1]]);
    let (format, channels, bits) = (word(0), word(2), word(14));
    let rate = u32::from_le_bytes([body[4], body[5], body[6], body[7]]);
    // 0xFFFE is WAVE_FORMAT_EXTENSIBLE, whose first 16 octets mean the same.
    if !matches!(format, 1 | 0xfffe) || bits != 16 || channels == 0 || rate == 0 {
        return Err(WavError::Format { format, bits });
    }
    Ok(Format { channels, rate })
}

fn resample(samples: &[i16], rate: u32) -> Vec<i16> {
    let count = samples.len() as u64 * u64::from(RATE) / u64::from(rate);
    (0..count)
        .map(|n| {
            let at = n as f64 * f64::from(rate) / f64::from(RATE);
            let (left, share) = (at as usize, at.fract());
            let here = f64::from(samples[left]);
            let next = f64::from(*samples.get(left + 1).unwrap_or(&samples[left]));
            (here + (next - here) * share) as i16
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    fn wav(channels: u16, rate: u32, samples: &[i16]) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0".to_vec();
        bytes.extend(channels.to_le_bytes());
        bytes.extend(rate.to_le_bytes());
        bytes.extend((rate * 2 * u32::from(channels)).to_le_bytes());
        bytes.extend((2 * channels).to_le_bytes());
        bytes.extend(16_u16.to_le_bytes());
        bytes.extend(b"LIST\x03\0\0\0abc\0data");
        bytes.extend((samples.len() as u32 * 2).to_le_bytes());
        bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        bytes
    }

    #[test]
    fn eight_kilohertz_passes_sample_for_sample_and_stereo_gives_its_first_channel() {
        assert_eq!(parse(&wav(1, 8_000, &[1, -2, 3])), Ok(vec![1, -2, 3]));
        assert_eq!(parse(&wav(2, 8_000, &[1, 9, 2, 9])), Ok(vec![1, 2]));
    }

    #[test]
    fn other_rates_keep_their_length_in_time() {
        let samples: Vec<i16> = (0..16_000).map(|n| (n % 100) as i16).collect();
        assert_eq!(parse(&wav(1, 16_000, &samples)).map(|out| out.len()), Ok(8_000));
        assert_eq!(parse(&wav(1, 11_025, &samples)).map(|out| out.len()), Ok(11_609));
    }

    #[test]
    fn broken_files_are_named_and_never_panic() {
        assert_eq!(parse(b"RIFX"), Err(WavError::NotWave));
        let good = wav(1, 16_000, &[5; 50]);
        assert_eq!(parse(&good[..40]), Err(WavError::Chunks));
        let mut prng = Prng::new(11);
        for _ in 0..5_000 {
            let mut bytes = good.clone();
            for _ in 0..3 {
                let at = prng.below(bytes.len() as u64) as usize;
                bytes[at] = prng.next_u64() as u8;
            }
            bytes.truncate(prng.below(bytes.len() as u64 + 1) as usize);
            let _ = parse(&bytes);
        }
    }
}
