//! HMAC-SHA1 (RFC 2104) with both key blocks compressed beforehand: a packet of 172 bytes costs four
//! compressions and no key schedule. The two states are plain words, wiped on drop.

use aes::cipher::generic_array::GenericArray;
use sha1::compress;
use zeroize::Zeroize;

/// Bytes of a SHA-1 block.
const BLOCK_BYTES: usize = 64;
/// Bytes of a whole HMAC-SHA1 value; SRTP uses its first 4 or 10.
pub(super) const MAC_BYTES: usize = 20;
/// FIPS 180-4 §5.3.1.
const INITIAL: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// A key, as the states behind its inner and its outer block.
pub(super) struct HmacSha1 {
    inner: [u32; 5],
    outer: [u32; 5],
}

impl HmacSha1 {
    /// Prepares a 160-bit key (all suites have that size).
    pub(super) fn new(key: &[u8; 20]) -> Self {
        let mut hmac = HmacSha1 { inner: INITIAL, outer: INITIAL };
        for (state, pad) in [(&mut hmac.inner, 0x36), (&mut hmac.outer, 0x5c)] {
            let mut block = [pad; BLOCK_BYTES];
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            compress(state, &[GenericArray::from(block)]);
            block.zeroize();
        }
        hmac
    }

    /// See [`super::Context::touch`].
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        (self.inner[0] ^ self.outer[4]).into()
    }

    /// The HMAC of `message ‖ suffix`. `suffix` has at most 8 octets: the ROC.
    #[inline]
    pub(super) fn mac(&self, message: &[u8], suffix: &[u8]) -> [u8; MAC_BYTES] {
        debug_assert!(suffix.len() <= 8);
        let mut state = self.inner;
        let blocks = message.chunks_exact(BLOCK_BYTES);
        let rest = blocks.remainder();
        for block in blocks {
            compress(&mut state, std::slice::from_ref(GenericArray::from_slice(block)));
        }
        // What is left: at most 63 + 8 bytes, the bit 1, zeros, and the length in bits.
        let mut tail = [[0; BLOCK_BYTES]; 2];
        let flat = tail.as_flattened_mut();
        let length = rest.len() + suffix.len();
        flat[..rest.len()].copy_from_slice(rest);
        flat[rest.len()..length].copy_from_slice(suffix);
        flat[length] = 0x80;
        let tail_bytes = (length + 9).next_multiple_of(BLOCK_BYTES);
        let bits = ((BLOCK_BYTES + message.len() + suffix.len()) * 8) as u64;
        flat[tail_bytes - 8..tail_bytes].copy_from_slice(&bits.to_be_bytes());
        for block in &tail[..tail_bytes / BLOCK_BYTES] {
            compress(&mut state, std::slice::from_ref(GenericArray::from_slice(block)));
        }
        self.finish(&state)
    }

    /// The outer hash over the inner one.
    #[inline]
    fn finish(&self, inner: &[u32; 5]) -> [u8; MAC_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[..MAC_BYTES].copy_from_slice(&bytes(inner));
        block[MAC_BYTES] = 0x80;
        let bits = ((BLOCK_BYTES + MAC_BYTES) * 8) as u64;
        block[BLOCK_BYTES - 8..].copy_from_slice(&bits.to_be_bytes());
        let mut state = self.outer;
        compress(&mut state, &[GenericArray::from(block)]);
        bytes(&state)
    }
}

impl Drop for HmacSha1 {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

fn bytes(state: &[u32; 5]) -> [u8; MAC_BYTES] {
    let mut out = [0; MAC_BYTES];
    for (out, word) in out.chunks_exact_mut(4).zip(state) {
        out.copy_from_slice(&word.to_be_bytes());
    }
    out
}

/// Whether two tags are equal, in a time that does not tell where they differ. False where their
/// lengths differ.
#[inline]
pub(super) fn same_tag(expected: &[u8], found: &[u8]) -> bool {
    let folded = expected.iter().zip(found).fold(0, |folded, (a, b)| folded | (a ^ b));
    // The barrier keeps the compiler from leaving the fold at the first difference.
    expected.len() == found.len() && std::hint::black_box(folded) == 0
}

#[cfg(test)]
mod tests {
    use hmac::Mac;

    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn agrees_with_another_implementation_at_every_length() {
        let mut prng = Prng::new(0x5eed_0005);
        let (mut key, mut message) = ([0; 20], [0; 400]);
        for length in 0..400 {
            prng.fill(&mut key);
            prng.fill(&mut message);
            let suffix = length.min(4);
            let (head, tail) = message[..length].split_at(length - suffix);
            let mut other = hmac::Hmac::<sha1::Sha1>::new_from_slice(&key).expect("any length");
            other.update(&message[..length]);
            let wanted: [u8; 20] = other.finalize().into_bytes().into();
            assert_eq!(HmacSha1::new(&key).mac(head, tail), wanted, "length {length}");
        }
    }

    #[test]
    fn a_tag_is_the_same_only_whole() {
        assert!(same_tag(&[1, 2, 3], &[1, 2, 3]));
        assert!(!same_tag(&[1, 2, 3], &[1, 2, 2]));
        assert!(!same_tag(&[1, 2, 3], &[1, 2]));
        assert!(!same_tag(&[1, 2], &[1, 2, 3]));
    }
}
