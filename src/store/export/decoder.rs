//! Payloads to samples: what a stream's audio becomes in a WAV, and how long a payload is without decoding it.
//! The only file that names the engine of Opus.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ropus::OpusDecoder;

use super::g711::Codec;
use super::g722::G722;
use crate::store::event::Format;

/// Samples of the longest Opus packet, per channel at 48 kHz: 120 ms (RFC 6716 §3.2.5).
const OPUS_FRAMES_MAX: usize = 5_760;

/// How audio of a format is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    kind: Kind,
    /// Samples a second.
    pub rate: u32,
    /// Ticks of the RTP clock a second: those of G.722 are half as many as its samples (RFC 3551 §4.5.2).
    pub clock_rate: u32,
    /// Channels of the samples.
    pub channels: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Linear(Codec),
    G722,
    Opus,
}

impl Form {
    /// Of a format; `None`: it has no decoder here.
    pub fn of(format: &Format) -> Option<Form> {
        let (clock_rate, channels) = (format.clock_rate, format.channels.max(1));
        if let Some(codec) = Codec::from_name(&format.codec) {
            return Some(Form {
                kind: Kind::Linear(codec),
                rate: clock_rate,
                clock_rate,
                channels,
            });
        }
        let is = |name: &str| format.codec.eq_ignore_ascii_case(name);
        if is("G722") && channels == 1 {
            return Some(Form { kind: Kind::G722, rate: 16_000, clock_rate: 8_000, channels });
        }
        // RFC 7587 §7: the rtpmap always says two channels; whether there are two, `sprop-stereo` says.
        let stereo = |fmtp: &str| {
            fmtp.split(';').filter_map(|one| one.split_once('=')).any(|(key, value)| {
                key.trim().eq_ignore_ascii_case("sprop-stereo") && value.trim() == "1"
            })
        };
        is("opus").then(|| {
            let channels = if format.fmtp.as_deref().is_some_and(stereo) { 2 } else { 1 };
            Form { kind: Kind::Opus, rate: 48_000, clock_rate: 48_000, channels }
        })
    }

    /// Of a static payload type that needs no rtpmap (RFC 3551 table 4).
    pub fn of_static(payload_type: u8) -> Option<Form> {
        let linear =
            |codec| Form { kind: Kind::Linear(codec), rate: 8_000, clock_rate: 8_000, channels: 1 };
        match payload_type {
            0 => Some(linear(Codec::Pcmu)),
            8 => Some(linear(Codec::Pcma)),
            9 => Some(Form { kind: Kind::G722, rate: 16_000, clock_rate: 8_000, channels: 1 }),
            _ => None,
        }
    }

    /// Whether samples of both can stand one behind the other.
    pub fn fits(&self, other: Form) -> bool {
        let of = |form: Form| (form.rate, form.clock_rate, form.channels);
        of(*self) == of(other)
    }

    /// Ticks of the RTP clock that a payload lasts.
    pub fn ticks(&self, payload: &[u8]) -> u32 {
        let ticks = match self.kind {
            Kind::Linear(codec) => {
                payload.len() / codec.sample_bytes() / usize::from(self.channels.max(1))
            }
            Kind::G722 => payload.len(),
            Kind::Opus => opus_frames(payload),
        };
        ticks as u32
    }

    /// Samples of one channel in that many ticks.
    pub fn frames(&self, ticks: i64) -> i64 {
        let scaled = i128::from(ticks) * i128::from(self.rate);
        scaled.div_euclid(i128::from(self.clock_rate.max(1))) as i64
    }
}

/// Samples of one channel in an Opus packet (RFC 6716 §3.1); 0 where it is none.
fn opus_frames(packet: &[u8]) -> usize {
    let Some(&toc) = packet.first() else { return 0 };
    let of = usize::from(toc >> 3);
    let frame = match of {
        0..12 => [480, 960, 1_920, 2_880][of & 3],
        12..16 => [480, 960][of & 1],
        _ => [120, 240, 480, 960][of & 3],
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => usize::from(packet.get(1).copied().unwrap_or(0) & 0x3f),
    };
    if frame * count > OPUS_FRAMES_MAX { 0 } else { frame * count }
}

/// Sources of one stream that are remembered: more than anybody sends.
const SOURCES_MAX: usize = 256;

/// What decodes one stream: each of its sources by itself.
#[derive(Default)]
pub struct Decoders(BTreeMap<u16, Decoder>);

impl Decoders {
    /// The samples of a payload of source number `ordinal`.
    pub fn decode(&mut self, ordinal: u16, form: Form, payload: &[u8]) -> Vec<i16> {
        if self.0.len() >= SOURCES_MAX && !self.0.contains_key(&ordinal) {
            self.0.clear();
        }
        let decoder = self.0.entry(ordinal).or_insert_with(|| Decoder::new(form));
        if decoder.form != form {
            *decoder = Decoder::new(form);
        }
        let mut samples = Vec::with_capacity(payload.len());
        decoder.decode(payload, &mut samples);
        samples
    }
}

/// What decodes one source: later payloads stand on earlier ones.
pub struct Decoder {
    form: Form,
    engine: Engine,
}

enum Engine {
    Linear(Codec),
    G722(Box<G722>),
    Opus(Box<OpusDecoder>),
    /// It could not be made.
    None,
}

impl Decoder {
    /// Of a source that begins.
    pub fn new(form: Form) -> Self {
        let engine = match form.kind {
            Kind::Linear(codec) => Engine::Linear(codec),
            Kind::G722 => Engine::G722(Box::default()),
            Kind::Opus => match OpusDecoder::new(48_000, i32::from(form.channels)) {
                Ok(decoder) => Engine::Opus(Box::new(decoder)),
                Err(_) => Engine::None,
            },
        };
        Decoder { form, engine }
    }

    /// Appends the samples of `payload`, channel beside channel; none where it is no payload of this kind.
    pub fn decode(&mut self, payload: &[u8], out: &mut Vec<i16>) {
        let before = out.len();
        // These engines read what anybody may send: should one of them fail over it, a packet is silent.
        let done = catch_unwind(AssertUnwindSafe(|| self.engine(payload, out)));
        if !matches!(done, Ok(true)) {
            out.truncate(before);
        }
        if done.is_err() {
            *self = Decoder::new(self.form);
        }
    }

    fn engine(&mut self, payload: &[u8], out: &mut Vec<i16>) -> bool {
        let begin = out.len();
        match &mut self.engine {
            Engine::Linear(codec) => {
                codec.decode(payload, out);
                // Of all channels or of none.
                let odd = (out.len() - begin) % usize::from(self.form.channels);
                out.truncate(out.len() - odd);
            }
            Engine::G722(decoder) => decoder.decode(payload, out),
            Engine::Opus(decoder) => {
                let channels = usize::from(self.form.channels);
                out.resize(begin + opus_frames(payload) * channels, 0);
                if out.len() == begin {
                    return false;
                }
                let room = ((out.len() - begin) / channels) as i32;
                let decoded = decoder.decode(Some(payload), &mut out[begin..], room, false);
                let Ok(count) = decoded else { return false };
                out.truncate(begin + usize::try_from(count).unwrap_or(0) * channels);
            }
            Engine::None => return false,
        }
        true
    }
}

/// One channel at 48 kHz as Opus, in packets of 20 ms, for tests elsewhere.
#[cfg(test)]
pub(crate) fn opus(samples: &[i16]) -> Vec<Vec<u8>> {
    let mut coder =
        ropus::OpusEncoder::new(48_000, 1, ropus::OPUS_APPLICATION_AUDIO).expect("plain");
    let packets = samples.chunks_exact(960).map(|frame| {
        let mut packet = vec![0; 1_500];
        let count = coder.encode(frame, 960, &mut packet, 1_500).expect("room") as usize;
        packet.truncate(count);
        packet
    });
    packets.collect()
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;
    use crate::base::prng::Prng;

    fn format(codec: &str, clock_rate: u32, channels: u8, fmtp: Option<&str>) -> Format {
        let (codec, fmtp) = (codec.to_owned(), fmtp.map(str::to_owned));
        Format { payload_type: 96, codec, clock_rate, channels, fmtp }
    }

    /// Likeness of two signals, 1 where one is a multiple of the other.
    fn alike(one: &[i16], other: &[i16]) -> f64 {
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            one.iter().zip(other).map(|(a, b)| of(f64::from(*a), f64::from(*b))).sum()
        };
        sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
    }

    fn tone(rate: f64, seconds: f64) -> Vec<i16> {
        let at = |n: usize| n as f64 / rate;
        (0..(rate * seconds) as usize)
            .map(|n| (9_000.0 * (TAU * (400.0 + 200.0 * at(n)) * at(n)).sin()) as i16)
            .collect()
    }

    #[test]
    fn g722_has_twice_as_many_samples_as_ticks() {
        let form = Form::of(&format("g722", 8_000, 1, None)).expect("has a decoder");
        assert_eq!((form.rate, form.clock_rate), (16_000, 8_000));
        assert_eq!(Some(form), Form::of_static(9));
        assert_eq!((form.ticks(&[0; 160]), form.frames(160)), (160, 320));
        let mut heard = Vec::new();
        Decoder::new(form).decode(&[0; 160], &mut heard);
        assert_eq!(heard.len(), 320);
    }

    #[test]
    fn opus_lasts_what_its_first_octets_say_and_is_mono_unless_told_otherwise() {
        let form = Form::of(&format("opus", 48_000, 2, Some("useinbandfec=1"))).expect("decoder");
        assert_eq!((form.rate, form.channels), (48_000, 1));
        let fmtp = Some("maxaveragebitrate=20000; sprop-stereo=1");
        assert_eq!(Form::of(&format("OPUS", 48_000, 2, fmtp)).expect("decoder").channels, 2);
        let mut coder =
            ropus::OpusEncoder::new(48_000, 1, ropus::OPUS_APPLICATION_AUDIO).expect("plain");
        let sent = tone(48_000.0, 1.0);
        let (mut decoder, mut heard) = (Decoder::new(form), Vec::new());
        for frame in sent.chunks_exact(960) {
            let mut packet = [0; 1_500];
            let count = coder.encode(frame, 960, &mut packet, 1_500).expect("room") as usize;
            assert_eq!(form.ticks(&packet[..count]), 960);
            decoder.decode(&packet[..count], &mut heard);
        }
        assert_eq!(heard.len(), sent.len());
        let best = (0..960).map(|late| alike(&sent[..40_000], &heard[late..])).fold(0.0, f64::max);
        assert!(best > 0.98, "{best}");
        assert_eq!((form.ticks(&[]), form.ticks(&[3]), form.ticks(&[0xfb, 0xff])), (0, 0, 0));
    }

    #[test]
    fn any_payload_is_taken() {
        let forms = [
            format("PCMA", 8_000, 1, None),
            format("L16", 44_100, 2, None),
            format("G722", 8_000, 1, None),
            format("opus", 48_000, 2, None),
            format("opus", 48_000, 2, Some("sprop-stereo=1")),
        ];
        let mut random = Prng::new(7);
        for form in forms.iter().filter_map(Form::of) {
            let mut decoder = Decoder::new(form);
            for _ in 0..3_000 {
                let mut payload = vec![0; random.below(300) as usize];
                random.fill(&mut payload);
                let mut out = Vec::new();
                decoder.decode(&payload, &mut out);
                let frames = form.frames(i64::from(form.ticks(&payload)));
                assert!(out.len() <= frames as usize * usize::from(form.channels), "{form:?}");
            }
        }
        assert!(
            Form::of(&format("G729", 8_000, 1, None)).is_none() && Form::of_static(18).is_none()
        );
    }
}
