//! What is heard, as bytes: a header and interleaved samples, samples alone, or an object for each thing.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::base::ids::{SourceId, StreamId};
use crate::base::time::Wall;
use crate::shell::serve::reading::TapFormat;
use crate::store::catalog::model::Participant;
use crate::store::export::wav::WavHeader;
use crate::store::tap::{Happening, Mark, Timeline};

/// The header of a WAV whose length nobody knows: sizes of -1, which players take for "to the end".
pub(crate) fn live_header(channels: u16, rate: u32) -> Vec<u8> {
    let mut header = WavHeader { channels, rate, frames: 0 }.emit();
    let behind = header.len() - 4;
    for at in [4, behind] {
        header[at..at + 4].fill(0xff);
    }
    header
}

/// Whose line it is, for whoever reads.
pub(super) struct Named {
    pub(super) label: String,
    pub(super) rate: u32,
    pub(super) paused: bool,
    pub(super) who: Vec<Participant>,
}

impl Named {
    /// Addresses of those who are heard on it.
    fn heard(&self) -> Vec<&str> {
        self.who
            .iter()
            .map(|one| one.names.first().map_or(&*one.participant_id, |name| &*name.aor))
            .collect()
    }
}

/// Where it goes before it is written.
pub(super) enum Give {
    /// Text.
    Objects { bytes: Vec<u8> },
    /// Samples; `channels`: of which line each is.
    Frames {
        timeline: Timeline,
        channels: BTreeMap<StreamId, usize>,
        samples: Vec<i16>,
        bytes: Vec<u8>,
    },
}

impl Give {
    /// `lines`: in the order of channels. `mark`: where it goes on; its header was written then.
    pub(super) fn new(
        format: TapFormat,
        lines: &[(StreamId, u32)],
        mark: &Mark,
        resumed: bool,
    ) -> Self {
        if format == TapFormat::Jsonl {
            return Give::Objects { bytes: Vec::new() };
        }
        let rates: Vec<u32> = lines.iter().map(|(_, rate)| *rate).collect();
        let timeline = Timeline::new(mark.start, mark.written, &rates);
        let mut bytes = Vec::new();
        if format == TapFormat::Wav && !resumed {
            bytes = live_header(rates.len() as u16, timeline.rate());
        }
        let channels = lines.iter().enumerate().map(|(place, (id, _))| (*id, place)).collect();
        Give::Frames { timeline, channels, samples: Vec::new(), bytes }
    }

    /// An object of its own.
    pub(super) fn say(&mut self, value: &Value) {
        if let Give::Objects { bytes } = self {
            bytes.extend_from_slice(value.to_string().as_bytes());
            bytes.push(b'\n');
        }
    }

    /// Lays samples where they belong; their frame.
    pub(super) fn lay(&mut self, of: SourceId, at: Wall, position: i64, samples: &[i16]) -> i64 {
        match self {
            Give::Frames { timeline, channels, .. } => match channels.get(&of.stream()) {
                Some(channel) => {
                    timeline.put(*channel, at, (of.ordinal(), position), samples.to_vec())
                }
                None => 0,
            },
            Give::Objects { .. } => position,
        }
    }

    /// Says what happened.
    pub(super) fn tell(&mut self, line: &Named, happening: &Happening, mark: &Mark) {
        if !matches!(self, Give::Objects { .. }) {
            return;
        }
        let mut value = match happening {
            Happening::Audio { at, samples, .. } => {
                let pcm: Vec<u8> = samples.iter().flat_map(|one| one.to_le_bytes()).collect();
                json!({ "type": "audio", "at": at, "rate": line.rate, "pcm": STANDARD.encode(pcm) })
            }
            Happening::Gap { from, to, packets } => {
                json!({ "type": "gap", "from": from, "to": to, "packets": packets })
            }
            Happening::Pause { at, by } => json!({ "type": "pause", "at": at, "by": by }),
            Happening::Resume { at, by } => json!({ "type": "resume", "at": at, "by": by }),
            Happening::Digit { at, digit } => json!({ "type": "dtmf", "at": at, "digit": digit }),
            Happening::Closed { at } => json!({ "type": "closed", "at": at }),
        };
        value["label"] = json!(line.label);
        value["participants"] = json!(line.heard());
        value["position"] = json!(mark.to_string());
        self.say(&value);
    }

    /// Everything is known that arrived before `horizon`.
    pub(super) fn render(&mut self, horizon: Wall) {
        if let Give::Frames { timeline, samples, .. } = self {
            timeline.render(horizon, samples);
        }
    }

    /// Nothing more comes.
    pub(super) fn flush(&mut self) {
        if let Give::Frames { timeline, samples, .. } = self {
            timeline.flush(samples);
        }
    }

    /// What is to be written now.
    pub(super) fn take(&mut self) -> Vec<u8> {
        match self {
            Give::Objects { bytes } => std::mem::take(bytes),
            Give::Frames { samples, bytes, .. } => {
                bytes.extend(samples.drain(..).flat_map(i16::to_le_bytes));
                std::mem::take(bytes)
            }
        }
    }

    /// Start and frames written, for the mark.
    pub(super) fn place(&self) -> Option<(Wall, u64)> {
        match self {
            Give::Frames { timeline, .. } => Some((timeline.start(), timeline.written())),
            Give::Objects { .. } => None,
        }
    }

    /// Goes on as it was.
    pub(super) fn go_on(&mut self, line: StreamId, position: i64, frame: i64) {
        if let Give::Frames { timeline, channels, .. } = self
            && let Some(channel) = channels.get(&line)
        {
            timeline.go_on(*channel, position, frame);
        }
    }

    /// What was not laid where RTP time says, in words.
    pub(super) fn adjusted(&self) -> Option<String> {
        let Give::Frames { timeline, .. } = self else { return None };
        match timeline.adjusted() {
            (0, 0) => None,
            (moved, late) => Some(format!(
                "{moved} samples of silence were put in, where a line's own time stood still or went \
                 slower than the clock; {late} came too late to be heard"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_wav_without_end_has_44_bytes_and_sizes_of_minus_one() {
        let header = live_header(2, 8_000);
        assert_eq!((header.len(), &header[..4]), (44, &b"RIFF"[..]));
        assert_eq!((&header[4..8], &header[40..]), (&[0xff; 4][..], &[0xff; 4][..]));
        assert_eq!((&header[22..24], &header[24..28]), (&[2, 0][..], &[64, 31, 0, 0][..]));
    }
}
