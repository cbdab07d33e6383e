//! G.711 and L16 to linear PCM.

/// A codec that turns into samples without loss of meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// Linear 16 bit, big-endian (RFC 3551 §4.5.11).
    L16,
}

impl Codec {
    /// The codec of that encoding name; names are compared without case (RFC 3551 §3).
    pub fn from_name(name: &str) -> Option<Self> {
        [("PCMU", Codec::Pcmu), ("PCMA", Codec::Pcma), ("L16", Codec::L16)]
            .into_iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, codec)| codec)
    }

    /// Octets of one sample of one channel.
    pub const fn sample_bytes(self) -> usize {
        if matches!(self, Codec::L16) { 2 } else { 1 }
    }

    /// Appends the samples of `payload` to `out`; a half sample at the end is left out.
    pub fn decode(self, payload: &[u8], out: &mut Vec<i16>) {
        match self {
            Codec::Pcmu => out.extend(payload.iter().map(|byte| ulaw(*byte))),
            Codec::Pcma => out.extend(payload.iter().map(|byte| alaw(*byte))),
            Codec::L16 => {
                out.extend(payload.chunks_exact(2).map(|two| i16::from_be_bytes([two[0], two[1]])));
            }
        }
    }
}

/// G.711 table 2a: sign, three bits of segment, four of step, all inverted; bias 33 × 4.
const fn ulaw(byte: u8) -> i16 {
    let code = !byte;
    let magnitude = ((((code & 0x0f) as i16) << 3) + 132) << ((code >> 4) & 7);
    if code & 0x80 != 0 { 132 - magnitude } else { magnitude - 132 }
}

/// G.711 table 1a: even bits inverted; segment 0 is linear.
const fn alaw(byte: u8) -> i16 {
    let code = byte ^ 0x55;
    let step = ((code & 0x0f) as i16) << 4;
    let magnitude = match (code >> 4) & 7 {
        0 => step + 8,
        segment => (step + 0x108) << (segment - 1),
    };
    if code & 0x80 != 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(codec: Codec, payload: &[u8]) -> Vec<i16> {
        let mut out = Vec::new();
        codec.decode(payload, &mut out);
        out
    }

    #[test]
    fn known_values_of_the_recommendation() {
        // ITU-T G.711 tables 1a/1b and 2a/2b: decoder output values, 14/13 bit scaled to 16.
        assert_eq!(
            decode(Codec::Pcmu, &[0x00, 0x80, 0xff, 0x7f, 0x0f, 0x8f, 0xf0]),
            [-32_124, 32_124, 0, 0, -16_764, 16_764, 120]
        );
        assert_eq!(
            decode(Codec::Pcma, &[0xd5, 0x55, 0xaa, 0x2a, 0x80, 0x00]),
            [8, -8, 32_256, -32_256, 5_504, -5_504]
        );
        assert_eq!(decode(Codec::L16, &[0x01, 0x02, 0xff, 0xfe, 9]), [0x0102, -2]);
    }

    #[test]
    fn both_laws_are_odd_and_rise_with_the_segment() {
        for code in 0..128_u8 {
            assert_eq!(ulaw(code), -ulaw(code | 0x80));
            assert_eq!(alaw(code), -alaw(code | 0x80));
        }
        let mut levels: Vec<i16> = (0x80..=0xff_u8).rev().map(ulaw).collect();
        assert!(levels.is_sorted());
        levels = (0..128_u8).map(|code| alaw((code | 0x80) ^ 0x55)).collect();
        assert!(levels.is_sorted());
    }
}
