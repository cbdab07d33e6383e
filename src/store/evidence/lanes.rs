//! Two SHA-256 at once. One alone waits most of the time for its own last round; where the processor has
//! instructions for it, two that have nothing to do with each other take little longer than one. Elsewhere
//! they are computed one after the other.
#![expect(unsafe_code, reason = "code for a processor's extension is entered behind a look for it")]

use super::hash::{Hash, LEAF, LeafHasher, Salt};

/// The hashes of two leaves: of each its salt and its records ([`LeafHasher`]).
pub fn two_leaves(one: (&Salt, &[u8]), two: (&Salt, &[u8])) -> [Hash; 2] {
    #[cfg(target_arch = "x86_64")]
    if x86::is_there() {
        let leaves = [one, two].map(|(salt, records)| Message::new(salt, records));
        // SAFETY: the code behind it uses nothing but the extensions that were found just now, and memory by
        // references only.
        return unsafe { x86::hash(&leaves) };
    }
    [one, two].map(|(salt, records)| {
        let mut leaf = LeafHasher::new(salt);
        leaf.update(records);
        leaf.finish()
    })
}

/// Bytes of a block.
const BLOCK: usize = 64;
/// What stands before the records: 0x00 and the salt.
const PREFIX: usize = 33;

/// A leaf as the blocks that are hashed (FIPS 180-4 §5.1.1): those that are in the records as they stand, one
/// before them and one or two behind.
struct Message<'a> {
    first: [u8; BLOCK],
    middle: &'a [[u8; BLOCK]],
    last: [u8; 2 * BLOCK],
    blocks: usize,
}

impl<'a> Message<'a> {
    fn new(salt: &Salt, records: &'a [u8]) -> Self {
        let (mut first, mut last) = ([0; BLOCK], [0; 2 * BLOCK]);
        first[0] = LEAF;
        first[1..PREFIX].copy_from_slice(salt);
        let bits = ((PREFIX + records.len()) as u64 * 8).to_be_bytes();
        let Some((head, rest)) = records.split_at_checked(BLOCK - PREFIX) else {
            // All of it may end in the first block, or just not.
            let end = PREFIX + records.len();
            first[PREFIX..end].copy_from_slice(records);
            first[end] = 0x80;
            if end + 9 > BLOCK {
                last[BLOCK - 8..BLOCK].copy_from_slice(&bits);
                return Message { first, middle: &[], last, blocks: 2 };
            }
            first[BLOCK - 8..].copy_from_slice(&bits);
            return Message { first, middle: &[], last, blocks: 1 };
        };
        first[PREFIX..].copy_from_slice(head);
        let (middle, tail) = rest.as_chunks::<BLOCK>();
        last[..tail.len()].copy_from_slice(tail);
        last[tail.len()] = 0x80;
        let behind = if tail.len() + 9 > BLOCK { 2 } else { 1 };
        last[behind * BLOCK - 8..behind * BLOCK].copy_from_slice(&bits);
        Message { first, middle, last, blocks: 1 + middle.len() + behind }
    }

    fn block(&self, number: usize) -> &[u8; BLOCK] {
        match number.checked_sub(1) {
            None => &self.first,
            Some(number) => self
                .middle
                .get(number)
                .unwrap_or_else(|| &self.last.as_chunks::<BLOCK>().0[number - self.middle.len()]),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
        _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    use super::{BLOCK, Hash, Message};

    /// Constants of the rounds (FIPS 180-4 §4.2.2).
    const K: [u32; 64] = [
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2,
    ];
    /// What a hash begins with, from its first word on (FIPS 180-4 §5.3.3).
    const START: [u32; 8] = [
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab,
        0x5be0cd19,
    ];

    /// Words A, B, E, F and C, D, G, H of a hash, as the instructions want them.
    type State = [__m128i; 2];

    /// Whether the processor has what [`hash`] is made of.
    pub(super) fn is_there() -> bool {
        std::arch::is_x86_feature_detected!("sha")
            && std::arch::is_x86_feature_detected!("ssse3")
            && std::arch::is_x86_feature_detected!("sse4.1")
            && std::arch::is_x86_feature_detected!("avx")
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1,avx")]
    fn words(words: [u32; 4]) -> __m128i {
        let [a, b, c, d] = words.map(u32::cast_signed);
        _mm_set_epi32(d, c, b, a)
    }

    /// Hashes two messages.
    #[target_feature(enable = "sha,ssse3,sse4.1,avx")]
    pub(super) fn hash(messages: &[Message<'_>; 2]) -> [Hash; 2] {
        let [a, b, c, d, e, f, g, h] = START;
        let mut states: [State; 2] = [[words([f, e, b, a]), words([h, g, d, c])]; 2];
        let [one, two] = messages;
        let both = one.blocks.min(two.blocks);
        for number in 0..both {
            rounds(&mut states, [one.block(number), two.block(number)]);
        }
        for (state, message) in states.iter_mut().zip(messages) {
            let mut alone = [*state];
            for number in both..message.blocks {
                rounds(&mut alone, [message.block(number)]);
            }
            [*state] = alone;
        }
        states.map(|[abef, cdgh]| {
            let words = [
                _mm_extract_epi32::<3>(abef),
                _mm_extract_epi32::<2>(abef),
                _mm_extract_epi32::<3>(cdgh),
                _mm_extract_epi32::<2>(cdgh),
                _mm_extract_epi32::<1>(abef),
                _mm_extract_epi32::<0>(abef),
                _mm_extract_epi32::<1>(cdgh),
                _mm_extract_epi32::<0>(cdgh),
            ];
            let mut hash = Hash::default();
            for (four, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(words) {
                *four = word.to_be_bytes();
            }
            hash
        })
    }

    /// Rounds 4 × `FOUR` and the three behind it, of each lane; the schedule goes on by four words.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1,avx")]
    fn four<const FOUR: usize, const LANES: usize>(
        (schedule, states): &mut ([[__m128i; 4]; LANES], [State; LANES]),
    ) {
        let constants = words(K.as_chunks::<4>().0[FOUR]);
        let (now, next, last) = (FOUR % 4, (FOUR + 1) % 4, (FOUR + 3) % 4);
        for (words, [abef, cdgh]) in schedule.iter_mut().zip(states) {
            if FOUR >= 4 {
                let sum = _mm_sha256msg1_epu32(words[now], words[next]);
                let seven = _mm_alignr_epi8::<4>(words[last], words[(FOUR + 2) % 4]);
                words[now] = _mm_sha256msg2_epu32(_mm_add_epi32(sum, seven), words[last]);
            }
            let sums = _mm_add_epi32(words[now], constants);
            *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sums);
            *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0x0e>(sums));
        }
    }

    /// Takes a block of each lane, round by round of all.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1,avx")]
    fn rounds<const LANES: usize>(states: &mut [State; LANES], blocks: [&[u8; BLOCK]; LANES]) {
        // Words of a message have their first octet at the top.
        let turn = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let mut schedule = [[_mm_setzero_si128(); 4]; LANES];
        for (words, block) in schedule.iter_mut().zip(blocks) {
            for (word, bytes) in words.iter_mut().zip(block.as_chunks::<16>().0) {
                let bytes = u128::from_le_bytes(*bytes);
                let bytes = _mm_set_epi64x((bytes >> 64) as i64, bytes as i64);
                *word = _mm_shuffle_epi8(bytes, turn);
            }
        }
        let before = *states;
        let lanes = &mut (schedule, *states);
        // Written out: what turns in a loop would be kept in memory.
        four::<0, LANES>(lanes);
        four::<1, LANES>(lanes);
        four::<2, LANES>(lanes);
        four::<3, LANES>(lanes);
        four::<4, LANES>(lanes);
        four::<5, LANES>(lanes);
        four::<6, LANES>(lanes);
        four::<7, LANES>(lanes);
        four::<8, LANES>(lanes);
        four::<9, LANES>(lanes);
        four::<10, LANES>(lanes);
        four::<11, LANES>(lanes);
        four::<12, LANES>(lanes);
        four::<13, LANES>(lanes);
        four::<14, LANES>(lanes);
        four::<15, LANES>(lanes);
        *states = lanes.1;
        for (state, before) in states.iter_mut().zip(before) {
            for (half, before) in state.iter_mut().zip(before) {
                *half = _mm_add_epi32(*half, before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(salt: &Salt, records: &[u8]) -> Hash {
        let mut leaf = LeafHasher::new(salt);
        leaf.update(records);
        leaf.finish()
    }

    /// Whichever way this machine takes, the engine's own hash is the measure.
    #[test]
    fn two_at_once_are_the_same_as_each_alone() {
        let bytes: Vec<u8> = (0..2_000_u32).map(|n| (n * 7 + n / 251) as u8).collect();
        let salts = [[3; 32], [200; 32]];
        for length in 0..=300 {
            for other in [0, 1, 22, 23, 30, 31, 32, 63, 64, 86, 87, 95, 150, 1_999] {
                let (one, two) = (&bytes[..length], &bytes[5..][..other.min(1_995)]);
                let found = two_leaves((&salts[0], one), (&salts[1], two));
                let wanted = [leaf(&salts[0], one), leaf(&salts[1], two)];
                assert_eq!(found, wanted, "{length} and {other} octets");
            }
        }
    }
}
