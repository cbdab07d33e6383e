//! `mixed.wav`: all streams on our clock, a channel each.

use std::io;
use std::path::Path;

use super::pen::Pen;
use super::survey::frames;
use super::track::{Heard, Range};
use super::wave::Wave;
use crate::base::time::Wall;
use crate::store::export::mix::{Channel, Filter, Samples};
use crate::store::export::timeline::TimeLine;

/// Frames rendered at once.
const BLOCK_FRAMES: usize = 8_192;

/// Where the mix begins: with the range, else with the earliest stream.
pub(super) fn start(tracks: &[Heard], lines: &[TimeLine], range: Range) -> Option<Wall> {
    let first = |(track, line): (&Heard, &TimeLine)| line.wall(track.origin?);
    range.from.or_else(|| tracks.iter().zip(lines).filter_map(first).min())
}

/// Writes the mix of `tracks` at the highest rate: one channel each in their order, or all in one.
/// `done`: frames that are on disk. `block_done` is told after each block how many are written, of how
/// many, and may bring them to the disk; when it says so, the rest is left.
pub(super) fn write(
    (path, pen): (&Path, &Pen),
    (tracks, lines): (&[Heard], &[TimeLine]),
    range: Range,
    mono: bool,
    done: u64,
    block_done: &mut dyn FnMut(&mut Wave, u64, u64) -> io::Result<bool>,
) -> io::Result<()> {
    let Some(rate) = tracks.iter().map(|track| track.wave.header.rate).max() else {
        return Ok(());
    };
    let start = start(tracks, lines, range).unwrap_or_default();
    let channels: Vec<Channel> = tracks
        .iter()
        .zip(lines)
        .map(|(track, line)| {
            let header = track.wave.header;
            let origin = track.origin.unwrap_or_default();
            let a_tick = f64::from(header.rate) / f64::from(line.rate);
            Channel::new(line, Samples { origin, a_tick, frames: header.frames }, start, rate)
        })
        .collect();
    let last = channels.iter().map(Channel::end).max().unwrap_or(0);
    let total = range.to.map_or(last, |to| frames(start, to, rate));
    let count = if mono { 1 } else { channels.len() };
    let mut wave = Wave::create(path, pen, (rate, count as u16), total)?;
    let filter = Filter::default();
    let mut block = vec![0; BLOCK_FRAMES];
    let mut out = vec![0; BLOCK_FRAMES * count];
    let mut at = done;
    while at < total {
        let frames = BLOCK_FRAMES.min((total - at) as usize);
        out.fill(0_i16);
        for (number, (channel, track)) in channels.iter().zip(tracks).enumerate() {
            for part in channel.parts(at, frames) {
                let (first, wanted) = part.wanted();
                let mut samples = track.wave.read(first, wanted)?;
                part.trim(&mut samples);
                let (frame, frames) = part.frames();
                let block = &mut block[..frames];
                part.render(&filter, &samples, block);
                let first = (frame - at) as usize;
                let slots = out[first * count..].iter_mut().skip(number % count).step_by(count);
                for (slot, sample) in slots.zip(block) {
                    // Only one channel that is of all streams is ever added to.
                    *slot = slot.saturating_add(*sample);
                }
            }
        }
        wave.put(at, &out[..frames * count])?;
        at += frames as u64;
        if block_done(&mut wave, at, total)? {
            return Ok(());
        }
    }
    wave.finish(total)?;
    Ok(())
}
