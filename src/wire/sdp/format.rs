//! What a payload type means (RFC 3551 §6, RFC 4566 §6 `rtpmap`, `fmtp`).

/// One format of an m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// RTP payload type, below 128.
    pub payload_type: u8,
    /// Encoding name as offered; `unknown` for a dynamic type without rtpmap.
    pub codec: String,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Channels; 1 where the offer says nothing.
    pub channels: u8,
    /// The fmtp value, if any.
    pub fmtp: Option<String>,
    /// Whether the offer had an rtpmap for it.
    pub mapped: bool,
}

impl Format {
    /// The format that RFC 3551 tables 4 and 5 give a payload type without rtpmap. `media` decides
    /// the clock of what they do not name.
    pub fn without_map(payload_type: u8, media: &str) -> Self {
        let known = STATIC.iter().find(|(number, ..)| *number == payload_type);
        let (codec, clock_rate, channels) = match known {
            Some((_, codec, clock_rate, channels)) => (*codec, *clock_rate, *channels),
            None if media.eq_ignore_ascii_case("video") => ("unknown", 90_000, 1),
            None if media.eq_ignore_ascii_case("text") => ("unknown", 1_000, 1),
            None => ("unknown", 8_000, 1),
        };
        Format {
            payload_type,
            codec: codec.to_owned(),
            clock_rate,
            channels,
            fmtp: None,
            mapped: false,
        }
    }

    /// Codec names ignore case (RFC 4855 §3).
    pub fn is(&self, codec: &str) -> bool {
        self.codec.eq_ignore_ascii_case(codec)
    }

    /// DTMF and other events (RFC 4733).
    pub fn is_event(&self) -> bool {
        self.is("telephone-event") || self.is("tone")
    }

    /// Comfort noise (RFC 3389).
    pub fn is_comfort_noise(&self) -> bool {
        self.is("CN") || self.is("comfort-noise")
    }

    /// Repair and redundancy around another codec, no codec itself.
    pub fn is_repair(&self) -> bool {
        ["red", "rtx", "ulpfec", "flexfec", "parityfec", "flexfec-03"]
            .iter()
            .any(|name| self.is(name))
    }
}

/// RFC 3551 §6: payload type, encoding name, clock rate, channels. G.722's RTP clock is 8,000 by
/// decree (§4.5.2).
const STATIC: &[(u8, &str, u32, u8)] = &[
    (0, "PCMU", 8_000, 1),
    (3, "GSM", 8_000, 1),
    (4, "G723", 8_000, 1),
    (5, "DVI4", 8_000, 1),
    (6, "DVI4", 16_000, 1),
    (7, "LPC", 8_000, 1),
    (8, "PCMA", 8_000, 1),
    (9, "G722", 8_000, 1),
    (10, "L16", 44_100, 2),
    (11, "L16", 44_100, 1),
    (12, "QCELP", 8_000, 1),
    (13, "CN", 8_000, 1),
    (14, "MPA", 90_000, 1),
    (15, "G728", 8_000, 1),
    (16, "DVI4", 11_025, 1),
    (17, "DVI4", 22_050, 1),
    (18, "G729", 8_000, 1),
    (25, "CelB", 90_000, 1),
    (26, "JPEG", 90_000, 1),
    (28, "nv", 90_000, 1),
    (31, "H261", 90_000, 1),
    (32, "MPV", 90_000, 1),
    (33, "MP2T", 90_000, 1),
    (34, "H263", 90_000, 1),
];
