//! The audio of a line in one form, whatever it is sent in. A line whose codec is another one for a while (a
//! re-INVITE, a second codec of the offer) is heard all through: in the form of its last one, and in a tap, which
//! cannot know that, of the one that it had when the tap began.
//!
//! What is of the line's own form passes as it is, sample for sample and tick for tick. Other audio is brought to
//! its rate and channels by a sinc of 32 samples of the lower rate under a Kaiser window (flat to 0.4 of it),
//! and is heard 16 of those later: 2 ms at 8,000 Hz. RTP time of another clock goes on in the line's:
//! by arrival where a source changes its clock, from there on by its own steps. So does a source whose
//! timestamps leap while its sequence numbers go on: back by more than a second, or so far on that a packet would be
//! earlier by as much than any before. A packet can be late, never early.

use std::collections::BTreeMap;

use super::decoder::{Decoders, Form};
use super::mix::kernel;
use crate::base::time::Wall;

/// Rates between which audio is brought to each other.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;
/// Zero crossings of the sinc on either side.
const HALF: usize = 16;
/// Places between two of them at which it is known.
const STEPS: usize = 256;
/// A timestamp that is so far off was set. No jitter and no clock is.
const LEAP_NS: i64 = 1_000_000_000;
/// Of a clock that runs fast: a thousandth of the time that nothing came is no leap.
const FAST: i64 = 1_000;
/// A silence of so many ticks hides whether timestamps went back or round: placement decides.
const ROUND: i64 = 1 << 30;
/// Sources of one stream that are remembered.
const SOURCES_MAX: usize = 256;

impl Form {
    /// Whether audio of `other` can be heard on a line of this form.
    pub fn takes(&self, other: Form) -> bool {
        let known = |form: &Form| {
            RATES.contains(&form.rate) && RATES.contains(&form.clock_rate) && form.channels <= 16
        };
        self.fits(other) || (known(self) && known(&other))
    }
}

/// When a payload is, by the line's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed {
    /// RTP timestamp.
    pub timestamp: u32,
    /// Ticks that it lasts.
    pub ticks: u32,
    /// What its source said before does not say when it is; its arrival does.
    pub anew: bool,
}

/// RTP time of each source of a line, by the line's clock.
#[derive(Debug)]
pub struct Clocks {
    form: Form,
    sources: BTreeMap<u16, Clock>,
}

/// Of one source: what its newest packet said, and what that was by the line's clock.
#[derive(Clone, Copy, Debug)]
struct Clock {
    rate: u32,
    timestamp: u32,
    told: u32,
    /// Parts of a tick beyond `told`, in `rate`ths.
    rest: i64,
    arrival: Wall,
    index: u64,
    /// How far its RTP time has run ahead of arrivals, ns, and the most that it ever had.
    ahead: (i64, i64),
}

impl Clocks {
    /// Of a line of `form`.
    pub fn new(form: Form) -> Self {
        Clocks { form, sources: BTreeMap::new() }
    }

    /// When a payload in the form `own` is, of a source with an index.
    pub fn time(
        &mut self,
        (ordinal, index): (u16, u64),
        (timestamp, arrival): (u32, Wall),
        (own, payload): (Form, &[u8]),
    ) -> Timed {
        let (to, rate) = (i64::from(self.form.clock_rate), own.clock_rate);
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&ordinal) {
            self.sources.clear();
        }
        let fresh =
            Clock { rate, timestamp, told: timestamp, rest: 0, arrival, index, ahead: (0, 0) };
        let clock = self.sources.entry(ordinal).or_insert(fresh);
        let step = i64::from(timestamp.wrapping_sub(clock.timestamp) as i32);
        // What comes late says nothing of what comes next.
        let is_newer = index > clock.index;
        let (leaps, ahead) = clock.leaps(step, arrival);
        let anew = is_newer && (clock.rate != rate || leaps);
        let ahead = if anew { (0, 0) } else { ahead };
        let (told, rest) = if clock.rate != rate {
            let elapsed = i128::from(arrival.0 - clock.arrival.0) * i128::from(to) / 1_000_000_000;
            (elapsed as i64, 0)
        } else if i64::from(rate) == to {
            (step, 0)
        } else {
            let (step, from) = (step * to + clock.rest, i64::from(rate.max(1)));
            (step.div_euclid(from), step.rem_euclid(from))
        };
        let told = clock.told.wrapping_add(told as u32);
        if is_newer {
            *clock = Clock { rate, timestamp, told, rest, arrival, index, ahead };
        }
        // As many as leave no hole before the next one.
        let ticks = i64::from(own.ticks(payload)) * to + rest;
        let ticks = ticks.div_euclid(i64::from(rate.max(1)));
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        Timed { timestamp: told, ticks, anew }
    }
}

impl Clock {
    /// Whether a step of so many ticks up to `arrival` is one that no clock makes, and how far ahead it is then.
    fn leaps(&self, step: i64, arrival: Wall) -> (bool, (i64, i64)) {
        let ns = |ticks: i64| ticks * 1_000_000_000 / i64::from(self.rate.max(1));
        let elapsed = arrival.0.saturating_sub(self.arrival.0);
        let (ahead, most) = self.ahead;
        let ahead = ahead.saturating_add(ns(step)).saturating_sub(elapsed);
        let is_round = elapsed.saturating_abs() > ns(ROUND);
        let bound = most.saturating_add(LEAP_NS).saturating_add(elapsed.max(0) / FAST);
        let leaps = !is_round && (ns(step) < -LEAP_NS || ahead > bound);
        (leaps, (ahead, most.max(ahead)))
    }
}

/// See the module.
pub struct Voice {
    form: Form,
    decoders: Decoders,
    clocks: Clocks,
    bent: BTreeMap<u16, Bend>,
}

/// What brings one source to the line's form.
struct Bend {
    own: Form,
    /// The sinc, from its middle on.
    sinc: Vec<f32>,
    /// Samples before the next payload, in the line's channels.
    tail: Vec<f32>,
    /// RTP timestamp by the line's clock of what would follow them.
    next: u32,
}

impl Voice {
    /// Of a line of `form`.
    pub fn new(form: Form) -> Self {
        Voice {
            form,
            decoders: Decoders::default(),
            clocks: Clocks::new(form),
            bent: BTreeMap::new(),
        }
    }

    /// The form of all that is heard.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Takes a payload in the form `own`, one that the line [takes](Form::takes): when it is, and its samples.
    pub fn packet(
        &mut self,
        (ordinal, index): (u16, u64),
        at: (u32, Wall),
        (own, payload): (Form, &[u8]),
    ) -> (Timed, Vec<i16>) {
        let timed = self.clocks.time((ordinal, index), at, (own, payload));
        let samples = self.decoders.decode(ordinal, own, payload);
        if self.form.fits(own) {
            self.bent.remove(&ordinal);
            return (timed, samples);
        }
        if self.bent.len() >= SOURCES_MAX && !self.bent.contains_key(&ordinal) {
            self.bent.clear();
        }
        let form = self.form;
        let bend = self.bent.entry(ordinal).or_insert_with(|| Bend::new(own, form));
        if bend.own != own {
            *bend = Bend::new(own, form);
        }
        let frames = form.frames(i64::from(timed.ticks)).max(0) as usize;
        (timed, bend.render(form, timed, &samples, frames))
    }
}

impl Bend {
    fn new(own: Form, to: Form) -> Self {
        let steps = (HALF * STEPS) as i64;
        let sinc = (0..=steps).map(|at| kernel(at as f64 / STEPS as f64) as f32).collect();
        Bend { own, sinc, tail: vec![0.0; Self::tail_of(own, to)], next: 0 }
    }

    /// Frames of its own rate on either side of one that is made, as many of `to` as the sinc has.
    fn reach(own: Form, to: Form) -> usize {
        (HALF * own.rate.max(to.rate) as usize).div_ceil(to.rate as usize)
    }

    fn tail_of(own: Form, to: Form) -> usize {
        2 * Self::reach(own, to) * usize::from(to.channels)
    }

    fn render(&mut self, to: Form, timed: Timed, samples: &[i16], frames: usize) -> Vec<i16> {
        let channels = usize::from(to.channels);
        if timed.timestamp != self.next {
            self.tail.fill(0.0);
        }
        self.next = timed.timestamp.wrapping_add(timed.ticks);
        let mut near = std::mem::take(&mut self.tail);
        let kept = near.len();
        spread(samples, usize::from(self.own.channels), channels, &mut near);
        let ratio = f64::from(self.own.rate) / f64::from(to.rate);
        // Of two rates the lower one says what can be heard.
        let narrow = ratio.max(1.0);
        let reach = Self::reach(self.own, to) as f64;
        let mut out = Vec::with_capacity(frames * channels);
        for frame in 0..frames {
            // In `near`: its tail is two reaches long, and what is made lies one behind.
            let place = frame as f64 * ratio + reach;
            let first = (place - reach).ceil().max(0.0) as usize;
            let last =
                ((place + reach).floor() as usize).min((near.len() / channels).saturating_sub(1));
            for channel in 0..channels {
                let (mut sum, mut weight) = (0.0, 0.0);
                for at in first..=last {
                    let tap = self.tap((at as f64 - place).abs() / narrow);
                    sum += near[at * channels + channel] * tap;
                    weight += tap;
                }
                // A constant stays what it is.
                let level = if weight.abs() > f32::EPSILON { sum / weight } else { 0.0 };
                out.push(level.round() as i16);
            }
        }
        self.tail = near.split_off(near.len() - kept);
        out
    }

    fn tap(&self, distance: f64) -> f32 {
        let at = (distance * STEPS as f64).round() as usize;
        self.sinc.get(at).copied().unwrap_or(0.0)
    }
}

/// Frames of `from` channels as frames of `to`: the mean where they become one, the first ones else, the last one
/// again where there are too few.
fn spread(samples: &[i16], from: usize, to: usize, out: &mut Vec<f32>) {
    for frame in samples.chunks_exact(from.max(1)) {
        if to == 1 {
            let sum: i32 = frame.iter().map(|one| i32::from(*one)).sum();
            out.push(sum as f32 / frame.len() as f32);
            continue;
        }
        let at = |channel: usize| f32::from(frame[channel.min(frame.len() - 1)]);
        out.extend((0..to).map(at));
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::super::decoder::opus;
    use super::*;
    use crate::base::prng::Prng;
    use crate::store::event::Format;

    const MS: i64 = 1_000_000;

    fn form(codec: &str, clock_rate: u32, channels: u8) -> Form {
        let codec = codec.to_owned();
        Form::of(&Format { payload_type: 96, codec, clock_rate, channels, fmtp: None })
            .expect("it has a decoder")
    }

    fn l16(samples: &[i16]) -> Vec<u8> {
        samples.iter().flat_map(|one| one.to_be_bytes()).collect()
    }

    fn sine(rate: u32, hz: f64, first: usize, count: usize) -> Vec<i16> {
        let at = |n: usize| 9_000.0 * (TAU * hz * n as f64 / f64::from(rate)).sin();
        (first..first + count).map(|n| at(n).round() as i16).collect()
    }

    /// How far above all else a sine of `hz` lies, dB.
    fn purity(samples: &[i16], rate: u32, hz: f64) -> f64 {
        let (mut re, mut im, mut all) = (0.0, 0.0, 0.0);
        for (n, sample) in samples.iter().enumerate() {
            let turn = TAU * hz * n as f64 / f64::from(rate);
            re += f64::from(*sample) * turn.cos();
            im += f64::from(*sample) * turn.sin();
            all += f64::from(*sample).powi(2);
        }
        let own = 2.0 * (re * re + im * im) / samples.len() as f64;
        10.0 * (own / (all - own).max(1.0)).log10()
    }

    #[test]
    fn what_is_of_the_lines_own_form_passes_as_it_is() {
        let own = form("PCMU", 8_000, 1);
        let mut voice = Voice::new(own);
        let other = form("PCMA", 8_000, 1);
        for (n, form) in [own, other, own].into_iter().enumerate() {
            let (at, payload) = ((u32::MAX - 100).wrapping_add(n as u32 * 160), [n as u8; 160]);
            let (timed, samples) = voice.packet((1, n as u64), (at, Wall(0)), (form, &payload));
            assert_eq!(timed, Timed { timestamp: at, ticks: 160, anew: false });
            let mut decoders = Decoders::default();
            assert_eq!(samples, decoders.decode(1, form, &payload));
        }
    }

    #[test]
    fn other_rates_are_heard_at_their_pitch_without_a_seam() {
        for (from, to) in
            [(8_000, 48_000), (48_000, 8_000), (16_000, 8_000), (44_100, 16_000), (8_000, 44_100)]
        {
            let (own, line) = (form("L16", from, 1), form("L16", to, 1));
            assert!(line.takes(own) && !line.fits(own));
            let mut voice = Voice::new(line);
            // The source is known before it changes its codec.
            voice.packet((1, 0), (5, Wall(0)), (line, &[]));
            let (mut heard, mut next) = (Vec::new(), None);
            let count = from as usize / 100;
            for n in 0..100 {
                let payload = l16(&sine(from, 1_000.0, n * count, count));
                let at = (77_u32.wrapping_add((n * count) as u32), Wall(n as i64 * 10 * MS));
                let (timed, samples) = voice.packet((1, n as u64 + 1), at, (own, &payload));
                assert_eq!(timed.anew, n == 0);
                assert_eq!(next.get_or_insert(timed.timestamp), &timed.timestamp, "no hole");
                assert_eq!(samples.len(), timed.ticks as usize);
                next = Some(timed.timestamp + timed.ticks);
                heard.extend(samples);
            }
            assert_eq!(heard.len(), to as usize, "a second is a second");
            // Without the beginning, where nothing was before it.
            let rest = &heard[heard.len() / 4..heard.len() * 3 / 4];
            let pure = purity(rest, to, 1_000.0);
            assert!(pure > 60.0, "{from} to {to}: {pure} dB");
            let peak = rest.iter().max().expect("some");
            assert!((8_800..=9_050).contains(peak), "{from} to {to}: {peak}");
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_not_heard_as_something_else() {
        let (own, line) = (form("L16", 48_000, 1), form("L16", 8_000, 1));
        let mut voice = Voice::new(line);
        let payload = l16(&sine(48_000, 6_000.0, 0, 9_600));
        let (_, samples) = voice.packet((1, 0), (0, Wall(0)), (own, &payload));
        assert!(samples[100..].iter().all(|sample| sample.abs() < 10));
    }

    #[test]
    fn a_source_that_changes_its_clock_goes_on_by_arrival_and_then_by_its_steps() {
        let (pcmu, opus) = (form("PCMU", 8_000, 1), form("opus", 48_000, 2));
        let mut clocks = Clocks::new(pcmu);
        let (packet, mut index) = ([0xf8; 3], 0);
        let mut time = |at: u32, ms: i64, own: Form| {
            let payload = if own == pcmu { &[0xff; 160][..] } else { &packet[..] };
            index += 1;
            let timed = clocks.time((1, index), (at, Wall(ms * MS)), (own, payload));
            (timed.timestamp, timed.ticks, timed.anew)
        };
        assert_eq!(time(1_000, 0, pcmu), (1_000, 160, false));
        assert_eq!(time(4_000_000_000, 20, opus), (1_160, 160, true));
        assert_eq!(time(4_000_001_920, 61, opus), (1_480, 160, false));
        assert_eq!(time(4_000_002_880, 82, opus), (1_640, 160, false));
        // Over the wrap of a clock that is not the line's.
        assert_eq!(time(4_294_967_000, 6_200_000, opus).1, 160);
        let before = time(u32::MAX - 479, 6_200_000, opus).0;
        assert_eq!(time(480, 6_200_020, opus).0, before + 160);
        assert_eq!(time(9, 6_200_040, pcmu).0, before + 320);
        // Another source is another clock.
        assert_eq!(clocks.time((2, 0), (7, Wall(0)), (opus, &packet)).timestamp, 7);
    }

    #[test]
    fn timestamps_that_are_set_back_begin_anew_and_what_comes_late_does_not() {
        let pcmu = form("PCMU", 8_000, 1);
        let mut clocks = Clocks::new(pcmu);
        let mut anew =
            |index: u64, at: u32| clocks.time((1, index), (at, Wall(0)), (pcmu, &[0xff; 160])).anew;
        assert!(!anew(5, 80_000) && !anew(6, 80_160));
        assert!(!anew(4, 60_000), "an older one that comes late");
        assert!(!anew(7, 80_320));
        assert!(!anew(8, 80_320 - 8_000), "a second may be jitter of a careless client");
        assert!(!anew(9, 80_480));
        assert!(anew(10, 160));
        assert!(!anew(11, 320) && !anew(3, 60_000) && !anew(12, 480));
    }

    #[test]
    fn timestamps_that_leap_on_begin_anew_and_stalls_pauses_and_fast_clocks_do_not() {
        let pcmu = form("PCMU", 8_000, 1);
        let (mut clocks, mut index) = (Clocks::new(pcmu), 0);
        let mut anew = |at_ms: i64, came_ms: i64| {
            index += 1;
            let at = ((at_ms * 8) as u32, Wall(came_ms * MS));
            clocks.time((1, index), at, (pcmu, &[0xff; 160])).anew
        };
        assert!(!anew(0, 5) && !anew(20, 25));
        // Three seconds held back, and a pause in them.
        assert!(!anew(40, 3_040) && !anew(2_500, 3_041) && !anew(3_060, 3_065));
        // An hour in which nothing is sent, by a clock that is 500 ppm fast.
        assert!(!anew(3_604_865, 3_603_070));
        assert!(anew(3_634_905, 3_603_090), "half a minute at once");
        assert!(!anew(3_634_925, 3_603_110));
        assert!(anew(3_636_100, 3_603_130), "a second and more");
        // A quarter of an hour in which the timestamp stood still: late, which placement knows.
        assert!(!anew(3_636_120, 4_503_150));
        // Days: whether it went round is not told by one step.
        assert!(!anew(3_636_140, 400_000_000));
    }

    #[test]
    fn opus_is_heard_on_a_line_of_g711() {
        let line = form("PCMU", 8_000, 1);
        let own = form("opus", 48_000, 2);
        let mut voice = Voice::new(line);
        let packets = opus(&sine(48_000, 1_000.0, 0, 48_000));
        let mut heard = Vec::new();
        for (n, packet) in packets.iter().enumerate() {
            let at = (n as u32 * 960, Wall(n as i64 * 20 * MS));
            heard.extend(voice.packet((1, n as u64), at, (own, packet)).1);
        }
        assert_eq!(heard.len(), 8_000);
        assert!(purity(&heard[2_000..6_000], 8_000, 1_000.0) > 20.0);
    }

    #[test]
    fn any_forms_and_payloads_are_taken_and_their_ticks_and_samples_agree() {
        let mut random = Prng::new(11);
        let codecs = [("L16", 0), ("PCMU", 8_000), ("G722", 8_000), ("opus", 48_000)];
        let any = |random: &mut Prng| {
            let (codec, rate) = codecs[random.below(4) as usize];
            let rate = if rate == 0 { 4_000 + random.below(188_000) as u32 } else { rate };
            let channels = if codec == "L16" { 1 + random.below(3) as u8 } else { 1 };
            form(codec, rate, channels)
        };
        for _ in 0..60 {
            let line = any(&mut random);
            let mut voice = Voice::new(line);
            for _ in 0..20 {
                let own = any(&mut random);
                assert!(line.takes(own));
                let mut payload = vec![0; random.below(300) as usize];
                random.fill(&mut payload);
                let at = (random.below(1 << 32) as u32, Wall(random.below(1 << 40) as i64));
                let of = (random.below(3) as u16, random.below(1 << 20));
                let (timed, samples) = voice.packet(of, at, (own, &payload));
                let most = line.frames(i64::from(timed.ticks)) as usize;
                assert!(samples.len() <= most * usize::from(line.channels), "{line:?} {own:?}");
            }
        }
        let wild = form("L16", 2_000_000_000, 1);
        assert!(!wild.takes(form("PCMU", 8_000, 1)) && wild.takes(wild));
    }
}
