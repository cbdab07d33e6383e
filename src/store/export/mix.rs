//! One channel of `mixed.wav`: a stream's samples moved to their place in time and to the common
//! rate.

/// How a stream's samples map to the mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The stream's rate, Hz.
    pub rate: u32,
    /// Samples the stream has.
    pub frames: u64,
    /// Nanoseconds from the start of the mix to the stream's first sample.
    pub offset_ns: i64,
}

impl Channel {
    /// Frames of the mix at `rate` up to the end of this channel.
    pub fn end(&self, rate: u32) -> u64 {
        let stream = i128::from(self.frames) * i128::from(rate) / i128::from(self.rate.max(1));
        let end = ticks(self.offset_ns, rate) + stream;
        u64::try_from(end).unwrap_or(0)
    }

    /// Stream samples that the mix's frames `from..from + count` at `rate` need: first and count.
    pub fn wanted(&self, rate: u32, from: u64, count: usize) -> (i64, usize) {
        let (first, _) = self.source(rate, from);
        let (last, _) = self.source(rate, from + count as u64);
        (first, (last - first + 2) as usize)
    }

    /// Frames `from..` of the mix into `out`, from `samples` as [`Channel::wanted`] asked for.
    /// Equal rates copy; others interpolate between the two nearest samples.
    pub fn render(&self, rate: u32, from: u64, samples: &[i16], out: &mut [i16]) {
        let (first, _) = self.source(rate, from);
        for (frame, slot) in out.iter_mut().enumerate() {
            let (place, fraction) = self.source(rate, from + frame as u64);
            let at = (place - first) as usize;
            let left = i64::from(samples.get(at).copied().unwrap_or(0));
            let right = i64::from(samples.get(at + 1).copied().unwrap_or(0));
            *slot = (left + (right - left) * fraction / i64::from(rate)) as i16;
        }
    }

    /// Stream sample at or before a frame of the mix, and the rest in 1/`rate` samples.
    fn source(&self, rate: u32, frame: u64) -> (i64, i64) {
        let ticks = i128::from(frame) - ticks(self.offset_ns, rate);
        let scaled = ticks * i128::from(self.rate);
        let rate = i128::from(rate);
        (scaled.div_euclid(rate) as i64, scaled.rem_euclid(rate) as i64)
    }
}

fn ticks(ns: i64, rate: u32) -> i128 {
    i128::from(ns) * i128::from(rate) / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(channel: Channel, rate: u32, samples: &[i16], count: usize) -> Vec<i16> {
        let (first, wanted) = channel.wanted(rate, 0, count);
        let part: Vec<i16> = (first..first + wanted as i64)
            .map(|at| usize::try_from(at).ok().and_then(|at| samples.get(at)).copied().unwrap_or(0))
            .collect();
        let mut out = vec![0; count];
        channel.render(rate, 0, &part, &mut out);
        out
    }

    #[test]
    fn equal_rates_copy_sample_for_sample_at_their_offset() {
        let channel = Channel { rate: 8_000, frames: 3, offset_ns: 250_000 };
        assert_eq!(mix(channel, 8_000, &[5, -6, 7], 6), [0, 0, 5, -6, 7, 0]);
        assert_eq!(channel.end(8_000), 5);
    }

    #[test]
    fn a_lower_rate_is_interpolated() {
        let channel = Channel { rate: 8_000, frames: 3, offset_ns: 0 };
        assert_eq!(mix(channel, 16_000, &[0, 100, 50], 6), [0, 50, 100, 75, 50, 25]);
        assert_eq!(channel.end(16_000), 6);
    }

    #[test]
    fn a_stream_that_began_before_the_range_is_entered_in_its_middle() {
        let channel = Channel { rate: 8_000, frames: 4, offset_ns: -250_000 };
        assert_eq!(mix(channel, 8_000, &[1, 2, 3, 4], 3), [3, 4, 0]);
    }
}
