//! Lines side by side as one stream of frames, a channel each, for who plays it as it comes.
//!
//! On its own line audio lies where RTP time says, as in an export. Where nothing came for a while silence is
//! written by the clock, so that a player goes on; what comes then, and would lie before what is written
//! (a client whose time stood still, or goes slower than ours), is moved behind it.

use std::collections::BTreeSet;

use crate::base::time::Wall;

/// What arrived this long ago is written: reordering reaches no further on any line we saw.
const HOLD_NS: i64 = 100_000_000;
/// Where nothing came for so long, silence is written up to then.
const IDLE_NS: i64 = 200_000_000;
/// Frames rendered at once.
const BLOCK_FRAMES: u64 = 8_192;

/// See the module's description.
pub struct Timeline {
    rate: u32,
    start: Wall,
    written: u64,
    /// Where it ends, whatever comes behind.
    frames_max: Option<u64>,
    channels: Vec<Channel>,
}

struct Channel {
    rate: u32,
    /// Frame at its own rate, counted from the start, minus position on the line.
    shift: Option<i64>,
    /// Behind the newest sample, as a position.
    edge: i64,
    /// Arrival of the newest packet.
    newest: Wall,
    pending: Vec<Packet>,
    moved: u64,
    late: u64,
}

struct Packet {
    source: u16,
    frame: i64,
    at: Wall,
    samples: Vec<i16>,
}

impl Packet {
    fn end(&self) -> i64 {
        self.frame.saturating_add(self.samples.len() as i64)
    }
}

impl Timeline {
    /// Channels of these rates; the first frame is of `start`. All are written at the highest rate.
    pub fn new(start: Wall, written: u64, rates: &[u32]) -> Self {
        let channel = |rate: &u32| Channel {
            rate: (*rate).max(1),
            shift: None,
            edge: i64::MIN,
            newest: start,
            pending: Vec::new(),
            moved: 0,
            late: 0,
        };
        let rate = rates.iter().copied().max().unwrap_or(8_000).max(1);
        let channels = rates.iter().map(channel).collect();
        Timeline { rate, start, written, frames_max: None, channels }
    }

    /// The same, that ends at `end` exactly.
    pub fn until(self, end: Wall) -> Self {
        let frames = u64::try_from(ticks(end.0 - self.start.0, self.rate)).unwrap_or(0);
        Timeline { frames_max: Some(frames), ..self }
    }

    /// Frames a second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Wall time of the first frame.
    pub fn start(&self) -> Wall {
        self.start
    }

    /// Frames written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Samples by which lines were moved, and that came too late to be heard.
    pub fn adjusted(&self) -> (u64, u64) {
        let both = self.channels.iter().map(|channel| (channel.moved, channel.late));
        both.fold((0, 0), |(moved, late), (one, other)| (moved + one, late + other))
    }

    /// `position` of a channel's line is laid at `frame` of its own, as it was before.
    pub fn go_on(&mut self, channel: usize, position: i64, frame: i64) {
        let channel = &mut self.channels[channel];
        channel.shift = Some(frame - position);
        channel.edge = channel.edge.max(position + 1);
    }

    /// Lays samples of a source of the line that arrived at `at` where they belong; the frame of the first one, at
    /// its own rate. Sources that are heard at once are added up.
    pub fn put(
        &mut self,
        channel: usize,
        at: Wall,
        (source, position): (u16, i64),
        samples: Vec<i16>,
    ) -> i64 {
        let written = self.written;
        let (rate, start) = (self.rate, self.start);
        let channel = &mut self.channels[channel];
        let written = (i128::from(written) * i128::from(channel.rate) / i128::from(rate)) as i64;
        let shift =
            *channel.shift.get_or_insert_with(|| ticks(at.0 - start.0, channel.rate) - position);
        let mut frame = position + shift;
        let end = position.saturating_add(samples.len() as i64);
        if frame < written {
            if position >= channel.edge {
                channel.moved += (written - frame) as u64;
                channel.shift = Some(written - position);
                frame = written;
            } else {
                channel.late += (written - frame).min(samples.len() as i64) as u64;
            }
        }
        channel.edge = channel.edge.max(end);
        channel.newest = channel.newest.max(at);
        channel.pending.push(Packet { source, frame, at, samples });
        frame
    }

    /// Everything is known that arrived before `horizon`: appends interleaved frames to `out` as far as nothing
    /// can change them any more.
    pub fn render(&mut self, horizon: Wall, out: &mut Vec<i16>) {
        let due = Wall(horizon.0 - HOLD_NS);
        let quiet = Wall(horizon.0 - IDLE_NS);
        let idle = self.channels.iter().all(|channel| channel.newest <= quiet);
        let silence = if idle { ticks(quiet.0 - self.start.0, self.rate) } else { 0 };
        self.write(self.end(|packet| packet.at <= due).max(silence), out);
    }

    /// Writes all that there is, and silence up to the end that was given.
    pub fn flush(&mut self, out: &mut Vec<i16>) {
        let end = self.frames_max.map_or(0, |frames| frames as i64);
        self.write(self.end(|_| true).max(end), out);
    }

    /// Behind the last of these packets, in frames.
    fn end(&self, wanted: impl Fn(&Packet) -> bool) -> i64 {
        let ends = self.channels.iter().flat_map(|channel| {
            let ends = channel.pending.iter().filter(|packet| wanted(packet)).map(Packet::end);
            ends.max().map(|end| scaled(end, self.rate, channel.rate))
        });
        ends.max().unwrap_or(0)
    }

    fn write(&mut self, end: i64, out: &mut Vec<i16>) {
        let end = u64::try_from(end).unwrap_or(0).min(self.frames_max.unwrap_or(u64::MAX));
        while self.written < end {
            let count = (end - self.written).min(BLOCK_FRAMES) as usize;
            let begins = out.len();
            out.resize(begins + count * self.channels.len(), 0);
            let every = self.channels.len();
            for (number, channel) in self.channels.iter().enumerate() {
                let slots = out[begins..].iter_mut().skip(number).step_by(every);
                channel.render(self.rate, self.written as i64, slots);
            }
            self.written += count as u64;
        }
        let (rate, written) = (self.rate, self.written as i64);
        for channel in &mut self.channels {
            // One more than is written: what lies between two samples is made of both.
            let own = scaled(written, channel.rate, rate) - 1;
            channel.pending.retain(|packet| packet.end() > own);
        }
    }
}

impl Channel {
    fn render<'a>(&self, rate: u32, first: i64, slots: impl ExactSizeIterator<Item = &'a mut i16>) {
        let own = |frame: i64| {
            let scaled = i128::from(frame) * i128::from(self.rate);
            let rate = i128::from(rate);
            (scaled.div_euclid(rate) as i64, scaled.rem_euclid(rate) as i64)
        };
        let (begin, _) = own(first);
        let (last, _) = own(first + slots.len() as i64);
        let count = (last - begin + 2) as usize;
        let mut samples = Vec::new();
        let sources: BTreeSet<u16> = self.pending.iter().map(|packet| packet.source).collect();
        for source in sources {
            let heard = self.of_source(source, begin, count);
            if samples.is_empty() {
                samples = heard;
                continue;
            }
            samples.iter_mut().zip(&heard).for_each(|(sum, one)| *sum = sum.saturating_add(*one));
        }
        samples.resize(count, 0);
        for (number, slot) in slots.enumerate() {
            let (place, fraction) = own(first + number as i64);
            let at = (place - begin) as usize;
            let (left, right) = (i64::from(samples[at]), i64::from(samples[at + 1]));
            *slot = (left + (right - left) * fraction / i64::from(rate)) as i16;
        }
    }
}

impl Channel {
    /// What one source has there; of two of its packets at one place the later one.
    fn of_source(&self, source: u16, begin: i64, count: usize) -> Vec<i16> {
        let mut samples = vec![0; count];
        for packet in self.pending.iter().filter(|packet| packet.source == source) {
            let from = packet.frame.max(begin);
            let to = packet.end().min(begin + count as i64);
            if from < to {
                let source = (from - packet.frame) as usize..(to - packet.frame) as usize;
                let target = (from - begin) as usize..(to - begin) as usize;
                samples[target].copy_from_slice(&packet.samples[source]);
            }
        }
        samples
    }
}

/// Frames at `rate` of that many at `from`.
fn scaled(frames: i64, rate: u32, from: u32) -> i64 {
    (i128::from(frames) * i128::from(rate)).div_euclid(i128::from(from)) as i64
}

/// As the export rounds them.
fn ticks(ns: i64, rate: u32) -> i64 {
    (i128::from(ns) * i128::from(rate) + 500_000_000).div_euclid(1_000_000_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn at(ms: i64) -> Wall {
        Wall(1_000_000 * MS + ms * MS)
    }

    fn rendered(timeline: &mut Timeline, horizon_ms: i64) -> Vec<i16> {
        let mut out = Vec::new();
        timeline.render(at(horizon_ms), &mut out);
        out
    }

    #[test]
    fn reordered_packets_are_written_in_their_place_after_a_moment() {
        let mut timeline = Timeline::new(at(0), 0, &[1_000]);
        timeline.put(0, at(10), (1, 500), vec![1; 10]);
        timeline.put(0, at(40), (1, 530), vec![4; 10]);
        timeline.put(0, at(41), (1, 510), vec![2; 10]);
        assert!(rendered(&mut timeline, 109).is_empty(), "held back");
        let out = rendered(&mut timeline, 141);
        let wanted = [vec![0; 10], vec![1; 10], vec![2; 10], vec![0; 10], vec![4; 10]].concat();
        assert_eq!(out, wanted);
        // Where that is written already it is not heard any more.
        timeline.put(0, at(142), (1, 520), vec![3; 10]);
        assert!(rendered(&mut timeline, 150).is_empty());
        assert_eq!(timeline.adjusted(), (0, 10));
    }

    #[test]
    fn silence_is_written_by_the_clock_and_who_goes_on_behind_it_is_not_moved() {
        let mut timeline = Timeline::new(at(0), 0, &[1_000]);
        assert!(rendered(&mut timeline, 200).is_empty());
        assert_eq!(rendered(&mut timeline, 500).len(), 300);
        timeline.put(0, at(510), (1, 7_000), vec![5; 20]);
        assert_eq!(rendered(&mut timeline, 620), [vec![0; 210], vec![5; 20]].concat());
        // RTP time went on over ten silent seconds.
        assert_eq!(rendered(&mut timeline, 10_000).len(), 9_800 - 530);
        timeline.put(0, at(10_520), (1, 17_000), vec![6; 20]);
        timeline.put(0, at(10_540), (1, 17_020), vec![7; 20]);
        let mut out = Vec::new();
        timeline.flush(&mut out);
        assert_eq!(out, [vec![0; 710], vec![6; 20], vec![7; 20]].concat());
        assert_eq!(timeline.adjusted(), (0, 0));
    }

    #[test]
    fn who_stood_still_meanwhile_goes_on_behind_what_is_written() {
        let mut timeline = Timeline::new(at(0), 0, &[1_000]);
        timeline.put(0, at(0), (1, 0), vec![5; 20]);
        assert_eq!(rendered(&mut timeline, 1_200).len(), 1_000);
        timeline.put(0, at(1_200), (1, 20), vec![6; 20]);
        timeline.put(0, at(1_220), (1, 40), vec![7; 20]);
        let mut out = Vec::new();
        timeline.flush(&mut out);
        assert_eq!(out, [vec![6; 20], vec![7; 20]].concat());
        assert_eq!(timeline.adjusted(), (980, 0));
    }

    #[test]
    fn lines_stand_side_by_side_at_the_highest_rate() {
        let mut timeline = Timeline::new(at(0), 0, &[1_000, 2_000]);
        timeline.put(0, at(10), (1, 0), vec![10, 20, 30, 40]);
        timeline.put(1, at(11), (1, 0), vec![1, 2, 3, 4]);
        let mut out = Vec::new();
        timeline.flush(&mut out);
        let left: Vec<i16> = out.iter().copied().step_by(2).collect();
        let right: Vec<i16> = out.iter().copied().skip(1).step_by(2).collect();
        assert_eq!(left[..19], [0; 19][..]);
        // Between its samples it is interpolated, before the first one and behind the last with silence.
        assert_eq!(left[19..], [5, 10, 15, 20, 25, 30, 35, 40, 20]);
        assert_eq!(right, [vec![0; 22], vec![1, 2, 3, 4], vec![0; 2]].concat());
    }

    #[test]
    fn a_range_is_exactly_as_long_as_it_is() {
        let ranged = |end| Timeline::new(at(0), 0, &[1_000]).until(at(end));
        let mut out = Vec::new();
        let mut short = ranged(15);
        short.put(0, at(10), (1, 0), vec![1; 20]);
        short.flush(&mut out);
        assert_eq!(out, [vec![0; 10], vec![1; 5]].concat());
        out.clear();
        let mut long = ranged(50);
        long.put(0, at(10), (1, 0), vec![1; 20]);
        long.flush(&mut out);
        assert_eq!(out, [vec![0; 10], vec![1; 20], vec![0; 20]].concat());
    }

    #[test]
    fn who_goes_on_elsewhere_writes_what_the_first_would_have() {
        let packets: Vec<Vec<i16>> = (0..50).map(|number| vec![number; 20]).collect();
        let mut whole = Timeline::new(at(0), 0, &[1_000]);
        let mut out = Vec::new();
        for (number, packet) in (0..).zip(&packets) {
            whole.put(0, at(number * 20 + 3), (1, 900 + number * 20), packet.clone());
            whole.render(at(number * 20 + 4), &mut out);
        }
        whole.flush(&mut out);
        let mut parts = Vec::new();
        let mut first = Timeline::new(at(0), 0, &[1_000]);
        let mut frame = 0;
        for (number, packet) in (0..).zip(&packets[..20]) {
            frame = first.put(0, at(number * 20 + 3), (1, 900 + number * 20), packet.clone());
        }
        first.flush(&mut parts);
        let mut second = Timeline::new(at(0), first.written(), &[1_000]);
        // Another process counts positions from the packet that it goes on behind.
        second.go_on(0, 0, frame);
        for (number, packet) in (1..).zip(&packets[20..]) {
            second.put(0, at((19 + number) * 20 + 3), (1, number * 20), packet.clone());
        }
        second.flush(&mut parts);
        assert_eq!(parts, out);
    }

    #[test]
    fn what_is_too_loud_together_is_as_loud_as_can_be() {
        let mut timeline = Timeline::new(at(0), 0, &[1_000]);
        timeline.put(0, at(0), (1, 0), vec![30_000, -30_000, 100]);
        timeline.put(0, at(1), (2, 0), vec![30_000, -30_000, -300]);
        // Of one source the later packet is heard.
        timeline.put(0, at(2), (2, 2), vec![400]);
        let mut out = Vec::new();
        timeline.flush(&mut out);
        assert_eq!(out, [i16::MAX, i16::MIN, 500]);
    }
}
