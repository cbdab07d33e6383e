//! `mixed.wav`: all streams on one clock, a channel each.

use std::io;
use std::path::Path;

use super::track::Heard;
use super::wave::Wave;
use crate::store::export::mix::Channel;

/// Frames rendered at once.
const BLOCK_FRAMES: usize = 8_192;

/// Writes the mix of `tracks`, one channel each in their order, from the earliest on, at the highest
/// rate.
pub(super) fn write(path: &Path, tracks: &[Heard]) -> io::Result<()> {
    let Some(rate) = tracks.iter().map(|track| track.wave.header.rate).max() else {
        return Ok(());
    };
    let start = tracks.iter().filter_map(|track| track.start).min();
    let channels: Vec<Channel> = tracks
        .iter()
        .map(|track| Channel {
            rate: track.wave.header.rate,
            frames: track.wave.header.frames,
            offset_ns: match (track.start, start) {
                (Some(own), Some(start)) => own.0 - start.0,
                _ => 0,
            },
        })
        .collect();
    let frames = channels.iter().map(|channel| channel.end(rate)).max().unwrap_or(0);
    let mut wave = Wave::create(path, rate, channels.len() as u16, frames)?;
    let mut block = vec![0; BLOCK_FRAMES];
    let mut out = vec![0; BLOCK_FRAMES * channels.len()];
    let mut at = 0;
    while at < frames {
        let count = BLOCK_FRAMES.min((frames - at) as usize);
        for (number, (channel, track)) in channels.iter().zip(tracks).enumerate() {
            let (first, wanted) = channel.wanted(rate, at, count);
            let samples = track.wave.read(first, wanted)?;
            channel.render(rate, at, &samples, &mut block[..count]);
            for (frame, sample) in block[..count].iter().enumerate() {
                out[frame * channels.len() + number] = *sample;
            }
        }
        wave.put(at, &out[..count * channels.len()])?;
        at += count as u64;
    }
    wave.finish(frames)?;
    Ok(())
}
