//! G.711 encoding (ITU-T G.711; payload types 0 and 8 of RFC 3551 §4.5.14), by the segment search
//! of the recommendation rather than by table, so that the tests can hold it against the decoder.

/// Which companding law.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// PCMU, payload type 0.
    Mu,
    /// PCMA, payload type 8.
    A,
}

impl Law {
    /// RTP payload type (RFC 3551 table 4).
    pub const fn payload_type(self) -> u8 {
        match self {
            Law::Mu => 0,
            Law::A => 8,
        }
    }

    /// Encoding name of the rtpmap.
    pub const fn name(self) -> &'static str {
        match self {
            Law::Mu => "PCMU",
            Law::A => "PCMA",
        }
    }

    /// The octet of digital silence.
    pub const fn silence(self) -> u8 {
        match self {
            Law::Mu => 0xff,
            Law::A => 0xd5,
        }
    }

    /// One sample of 16 bits.
    pub fn encode(self, sample: i16) -> u8 {
        match self {
            Law::Mu => mu(sample),
            Law::A => a(sample),
        }
    }

    /// The sample that an octet stands for.
    pub fn decode(self, octet: u8) -> i16 {
        match self {
            Law::Mu => {
                let bits = !octet;
                let exponent = u32::from(bits >> 4) & 7;
                let magnitude = ((i32::from(bits & 15) << 3) + MU_BIAS) << exponent;
                let value = magnitude - MU_BIAS;
                (if bits & 0x80 != 0 { -value } else { value }) as i16
            }
            Law::A => {
                let bits = octet ^ 0x55;
                let exponent = u32::from(bits >> 4) & 7;
                let mantissa = i32::from(bits & 15) << 4;
                let value = match exponent {
                    0 => mantissa + 8,
                    _ => (mantissa + 0x108) << (exponent - 1),
                };
                (if bits & 0x80 != 0 { value } else { -value }) as i16
            }
        }
    }
}

/// 33 in the 14-bit domain of the recommendation, four times that for 16-bit samples.
const MU_BIAS: i32 = 132;
/// Largest magnitude that does not overflow the last segment: 2^15 - 1 - 132.
const MU_CLIP: i32 = 32_635;

fn mu(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(MU_CLIP) + MU_BIAS;
    // The bias puts the leading one at bit 7 or above.
    let exponent = 24 - magnitude.leading_zeros();
    let mantissa = (magnitude >> (exponent + 3)) & 15;
    !(sign | (exponent as u8) << 4 | mantissa as u8)
}

fn a(sample: i16) -> u8 {
    let (sign, magnitude) =
        if sample < 0 { (0, -i32::from(sample) - 1) } else { (0x80, i32::from(sample)) };
    let octet = if magnitude < 256 {
        magnitude >> 4
    } else {
        let exponent = 24 - magnitude.leading_zeros();
        (exponent as i32) << 4 | (magnitude >> (exponent + 3)) & 15
    };
    (octet as u8 | sign) ^ 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_survives_decoding_and_encoding_again() {
        for law in [Law::Mu, Law::A] {
            for octet in 0..=255_u8 {
                let again = law.encode(law.decode(octet));
                // µ-law has two zeros; minus zero comes back as plus zero.
                assert!(again == octet || law.decode(again) == law.decode(octet), "{octet}");
            }
        }
    }

    #[test]
    fn the_error_stays_below_the_step_of_the_segment() {
        for law in [Law::Mu, Law::A] {
            for sample in i16::MIN..=i16::MAX {
                let error = (i32::from(law.decode(law.encode(sample))) - i32::from(sample)).abs();
                let step = i32::from(sample).abs() / 16 + 16;
                assert!(error <= step, "{law:?} {sample}: {error}");
            }
        }
    }

    #[test]
    fn known_octets_of_the_recommendation() {
        assert_eq!((Law::Mu.encode(0), Law::A.encode(0)), (0xff, 0xd5));
        assert_eq!((Law::Mu.encode(i16::MAX), Law::Mu.encode(i16::MIN)), (0x80, 0x00));
        assert_eq!((Law::A.encode(i16::MAX), Law::A.encode(i16::MIN)), (0xaa, 0x2a));
        assert_eq!(Law::Mu.decode(0x80), 32_124);
        assert_eq!(Law::A.decode(0xaa), 32_256);
    }
}
