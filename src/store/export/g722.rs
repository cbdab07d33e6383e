//! G.722 at 64 kbit/s to linear PCM at 16 kHz (ITU-T G.722 §6), octet for octet.
//!
//! Ours, because the libraries that have it bring an asynchronous runtime, or name a G.729 that must not be
//! here, for these two filters and a few tables.

/// Multipliers of the scale factor's logarithm, low band (table 16).
const WL: [i32; 8] = [-60, -30, 58, 172, 334, 538, 1_198, 3_042];
/// Which of them belongs to a code without its two lowest bits (table 17).
const RL42: [usize; 16] = [0, 7, 6, 5, 4, 3, 2, 1, 7, 6, 5, 4, 3, 2, 1, 0];
/// Powers of two by 32nds (table 18).
const ILB: [i32; 32] = [
    2_048, 2_093, 2_139, 2_186, 2_233, 2_282, 2_332, 2_383, 2_435, 2_489, 2_543, 2_599, 2_656,
    2_714, 2_774, 2_834, 2_896, 2_960, 3_025, 3_091, 3_158, 3_228, 3_298, 3_371, 3_444, 3_520,
    3_597, 3_676, 3_756, 3_838, 3_922, 4_008,
];
/// Multipliers, high band, and which of them belongs to a code (tables 19 and 20).
const WH: [i32; 2] = [-214, 798];
const RH2: [usize; 4] = [1, 0, 1, 0];
/// Quantizers turned round: two bits of the high band, four and six of the low one (tables 21, 14, 15).
const QM2: [i32; 4] = [-7_408, -1_616, 7_408, 1_616];
const QM4: [i32; 16] = [
    0, -20_456, -12_896, -8_968, -6_288, -4_240, -2_584, -1_200, 20_456, 12_896, 8_968, 6_288,
    4_240, 2_584, 1_200, 0,
];
const QM6: [i32; 64] = [
    -136, -136, -136, -136, -24_808, -21_904, -19_008, -16_704, -14_984, -13_512, -12_280, -11_192,
    -10_232, -9_360, -8_576, -7_856, -7_192, -6_576, -6_000, -5_456, -4_944, -4_464, -4_008,
    -3_576, -3_168, -2_776, -2_400, -2_032, -1_688, -1_360, -1_040, -728, 24_808, 21_904, 19_008,
    16_704, 14_984, 13_512, 12_280, 11_192, 10_232, 9_360, 8_576, 7_856, 7_192, 6_576, 6_000,
    5_456, 4_944, 4_464, 4_008, 3_576, 3_168, 2_776, 2_400, 2_032, 1_688, 1_360, 1_040, 728, 432,
    136, -432, -136,
];
/// Every second coefficient of the filter that joins the bands; the others are these backwards (table 11).
const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3_876, -805, 362, -156, 53, -11];

/// One source's decoder.
#[derive(Clone, Debug)]
pub struct G722 {
    low: Band,
    high: Band,
    /// Sums and differences of the bands.
    joined: [i32; 24],
}

/// The predictor of one band; names as in §6.2.
#[derive(Clone, Debug, Default)]
struct Band {
    /// What is predicted, and the part of it that the zeros give.
    s: i32,
    sz: i32,
    r: [i32; 3],
    a: [i32; 3],
    p: [i32; 3],
    d: [i32; 7],
    b: [i32; 7],
    /// Logarithm of the scale factor, and the factor.
    nb: i32,
    det: i32,
}

impl Default for G722 {
    fn default() -> Self {
        let band = |det| Band { det, ..Band::default() };
        G722 { low: band(32), high: band(8), joined: [0; 24] }
    }
}

fn saturate(value: i32) -> i32 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}

impl G722 {
    /// Appends two samples for each octet.
    pub fn decode(&mut self, payload: &[u8], out: &mut Vec<i16>) {
        for code in payload {
            let low = self.low.low(usize::from(code & 0x3f)).clamp(-16_384, 16_383);
            let high = self.high.high(usize::from(code >> 6)).clamp(-16_384, 16_383);
            self.joined.copy_within(2.., 0);
            (self.joined[22], self.joined[23]) = (low + high, low - high);
            let (mut even, mut odd) = (0, 0);
            for (place, pair) in self.joined.as_chunks::<2>().0.iter().enumerate() {
                even += pair[0] * QMF[place];
                odd += pair[1] * QMF[11 - place];
            }
            out.extend([odd, even].map(|sum| saturate(sum >> 11) as i16));
        }
    }
}

impl Band {
    fn low(&mut self, code: usize) -> i32 {
        let sample = self.s + ((self.det * QM6[code]) >> 15);
        let difference = (self.det * QM4[code >> 2]) >> 15;
        self.scale(WL[RL42[code >> 2]], 18_432, 8);
        self.adapt(difference);
        sample
    }

    fn high(&mut self, code: usize) -> i32 {
        let difference = (self.det * QM2[code]) >> 15;
        let sample = self.s + difference;
        self.scale(WH[RH2[code]], 22_528, 10);
        self.adapt(difference);
        sample
    }

    /// LOGSCL, SCALEL (LOGSCH, SCALEH).
    fn scale(&mut self, step: i32, most: i32, shift: i32) {
        self.nb = (((self.nb * 127) >> 7) + step).clamp(0, most);
        let (power, down) = (ILB[(self.nb >> 6 & 31) as usize], shift - (self.nb >> 11));
        self.det = if down < 0 { power << -down } else { power >> down } << 2;
    }

    /// Block 4: the predictor follows.
    fn adapt(&mut self, difference: i32) {
        self.d[0] = difference;
        self.r[0] = saturate(self.s + difference);
        self.p[0] = saturate(self.sz + difference);
        let same = |one: i32, other: i32| (one < 0) == (other < 0);
        // UPPOL2.
        let first = saturate(self.a[1] << 2);
        let turned = if same(self.p[0], self.p[1]) { -first } else { first }.min(32_767);
        let pole = (turned >> 7) + if same(self.p[0], self.p[2]) { 128 } else { -128 };
        let second = (pole + ((self.a[2] * 32_512) >> 15)).clamp(-12_288, 12_288);
        // UPPOL1.
        let pole = if same(self.p[0], self.p[1]) { 192 } else { -192 };
        let bound = saturate(15_360 - second);
        let first = saturate(pole + ((self.a[1] * 32_640) >> 15)).clamp(-bound, bound);
        // UPZERO.
        let step = if difference == 0 { 0 } else { 128 };
        for place in 1..7 {
            let signed = if same(self.d[place], difference) { step } else { -step };
            self.b[place] = saturate(signed + ((self.b[place] * 32_640) >> 15));
        }
        // DELAYA.
        self.d.copy_within(..6, 1);
        self.r.copy_within(..2, 1);
        self.p.copy_within(..2, 1);
        (self.a[1], self.a[2]) = (first, second);
        // FILTEP, FILTEZ, PREDIC.
        let twice = |value: i32| saturate(value + value);
        let poles = ((self.a[1] * twice(self.r[1])) >> 15) + ((self.a[2] * twice(self.r[2])) >> 15);
        self.sz = 0;
        for place in (1..7).rev() {
            self.sz = saturate(self.sz + ((self.b[place] * twice(self.d[place])) >> 15));
        }
        self.s = saturate(saturate(poles) + self.sz);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;
    use crate::store::log::crc32c;

    /// 8,000 random octets visit every entry of every table; another decoder of the standard (FFmpeg 5.1) has given
    /// the same 16,000 samples.
    #[test]
    fn samples_are_those_of_the_standard_bit_for_bit() {
        let mut coded = vec![0; 8_000];
        Prng::new(1).fill(&mut coded);
        let (mut decoder, mut samples) = (G722::default(), Vec::new());
        coded.chunks(77).for_each(|payload| decoder.decode(payload, &mut samples));
        assert_eq!(samples.len(), 16_000);
        let octets: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        assert_eq!(crc32c(&octets), 0x75bf_3810);
    }
}
