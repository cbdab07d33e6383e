//! Which payload types of a stream are audio, and how that is decoded.

use super::decoder::Form;
use crate::store::event::StreamDescription;

/// How a stream is decoded; `None`: nothing of it is.
pub fn decoded(stream: &StreamDescription) -> Option<Form> {
    stream.formats.iter().find_map(Form::of)
}

/// What a packet of a stream holds, by its payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Audio that is decoded so.
    Audio(Form),
    /// Comfort noise (RFC 3389): no samples.
    Silence,
    /// Events (RFC 4733), of a clock of so many ticks a second: no samples either.
    Event(u32),
    /// Something else.
    Other,
}

/// What packets of `payload_type` hold on a stream.
pub fn encoding(stream: &StreamDescription, payload_type: u8) -> Encoding {
    let Some(format) = stream.formats.iter().find(|format| format.payload_type == payload_type)
    else {
        return match (Form::of_static(payload_type), payload_type) {
            (Some(form), _) => Encoding::Audio(form),
            // RFC 3551 table 4.
            (None, 13) => Encoding::Silence,
            (None, _) => Encoding::Other,
        };
    };
    let is = |name: &str| name.eq_ignore_ascii_case(&format.codec);
    match Form::of(format) {
        Some(form) => Encoding::Audio(form),
        None if is("CN") => Encoding::Silence,
        None if is("telephone-event") => Encoding::Event(format.clock_rate),
        None => Encoding::Other,
    }
}
