//! Samples at their places, as lowest and highest of each stretch of equal length.

use std::collections::BTreeMap;

/// What was heard in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Lowest sample.
    pub min: i16,
    /// Highest sample.
    pub max: i16,
    /// Root of the mean square of its samples.
    pub rms: u16,
    /// Places that have a sample; the others are silent.
    pub frames: u32,
}

impl Level {
    /// The sample that is farthest from silence.
    pub fn peak(&self) -> u16 {
        self.min.unsigned_abs().max(self.max.unsigned_abs())
    }
}

/// Samples that came, by block. Where several are of one place, each counts. Memory: an entry for each block that has
/// any, and for each hole.
#[derive(Clone, Debug)]
pub(super) struct Canvas {
    /// Places of a block.
    block: i64,
    channels: usize,
    blocks: BTreeMap<i64, Sum>,
    /// Places that have a sample: the first ones of each stretch, and those behind it.
    covered: BTreeMap<i64, i64>,
}

#[derive(Clone, Copy, Debug)]
struct Sum {
    min: i16,
    max: i16,
    squares: u64,
    samples: u64,
    frames: i64,
}

impl Canvas {
    /// Of blocks of `block` places, at least one.
    pub(super) fn new(block: i64, channels: u8) -> Self {
        let (block, channels) = (block.max(1), usize::from(channels.max(1)));
        Canvas { block, channels, blocks: BTreeMap::new(), covered: BTreeMap::new() }
    }

    /// Puts samples, channel beside channel, at place `first` on.
    pub(super) fn put(&mut self, first: i64, samples: &[i16]) {
        let behind = first + (samples.len() / self.channels) as i64;
        let (mut at, mut rest) = (first, samples);
        while at < behind {
            let number = at.div_euclid(self.block);
            let to = behind.min((number + 1) * self.block);
            let (piece, others) = rest.split_at((to - at) as usize * self.channels);
            self.add(number, piece, self.fresh(at, to));
            (at, rest) = (to, others);
        }
        if first < behind {
            self.cover(first, behind);
        }
    }

    /// How many of these places had no sample.
    fn fresh(&self, from: i64, to: i64) -> i64 {
        let known = self.covered.range(..to).rev().take_while(|(_, end)| **end > from);
        let twice: i64 = known.map(|(start, end)| *end.min(&to) - *start.max(&from)).sum();
        to - from - twice
    }

    fn cover(&mut self, mut from: i64, mut to: i64) {
        // Mostly it goes on behind the last one.
        while let Some((start, end)) = self.covered.range(..=to).next_back()
            && *end >= from
        {
            (from, to) = (from.min(*start), to.max(*end));
            let start = *start;
            self.covered.remove(&start);
        }
        self.covered.insert(from, to);
    }

    fn add(&mut self, number: i64, samples: &[i16], fresh: i64) {
        let none = Sum { min: i16::MAX, max: i16::MIN, squares: 0, samples: 0, frames: 0 };
        let sum = self.blocks.entry(number).or_insert(none);
        let (mut min, mut max, mut squares) = (sum.min, sum.max, 0);
        for sample in samples {
            min = min.min(*sample);
            max = max.max(*sample);
            squares += i64::from(*sample) * i64::from(*sample);
        }
        (sum.min, sum.max) = (min, max);
        sum.squares += squares as u64;
        sum.samples += samples.len() as u64;
        sum.frames += fresh;
    }

    /// Behind the last sample; `None`: there is none.
    pub(super) fn end(&self) -> Option<i64> {
        self.covered.last_key_value().map(|(_, end)| *end)
    }

    /// The blocks that have samples, by number.
    pub(super) fn levels(&self) -> impl Iterator<Item = (i64, Level)> + '_ {
        let level = |sum: &Sum| Level {
            min: sum.min,
            max: sum.max,
            rms: (sum.squares as f64 / sum.samples.max(1) as f64).sqrt().round() as u16,
            frames: sum.frames as u32,
        };
        self.blocks.iter().map(move |(number, sum)| (*number, level(sum)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_shared_out_to_their_blocks_and_counted_once() {
        let mut canvas = Canvas::new(10, 1);
        canvas.put(-5, &[3, -7, 4, 1, 2, 9, 8]);
        canvas.put(4, &[1; 6]);
        canvas.put(2, &[-40, 50]);
        canvas.put(2, &[-40, 50]);
        let levels: Vec<_> = canvas.levels().collect();
        let [(-1, before), (0, behind)] = levels[..] else { panic!("{levels:?}") };
        assert_eq!((before.min, before.max, before.frames), (-7, 4, 5));
        assert_eq!(before.rms, ((9 + 49 + 16 + 1 + 4) as f64 / 5.0).sqrt().round() as u16);
        assert_eq!((behind.min, behind.max, behind.frames), (-40, 50, 10), "twice is not more");
        assert_eq!(canvas.end(), Some(10));
    }

    #[test]
    fn channels_stand_beside_each_other() {
        let mut canvas = Canvas::new(2, 2);
        canvas.put(0, &[1, -1, 2, -2, 3, -3]);
        let levels: Vec<_> = canvas.levels().collect();
        assert_eq!((levels[0].1.min, levels[0].1.max, levels[0].1.frames), (-2, 2, 2));
        assert_eq!((levels[1].1.min, levels[1].1.max, levels[1].1.frames), (-3, 3, 1));
    }
}
