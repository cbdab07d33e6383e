//! Keys of extents: HKDF-SHA-256 (RFC 5869) and AES-256-GCM (NIST SP 800-38D) by aws-lc-rs. The only
//! file that names that engine for what is kept.
//!
//! An extent has a key of its own: from the secret of its stream and octets that are drawn anew for each
//! attempt to write it. So whatever is written again, after a failure, a kill or a power cut, is written under
//! another key, and the nonce is no more than the number of the chunk.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

use super::secret::{Fresh, Secret};
use crate::base::ids::WorkerId;

/// Octets of the tag behind each chunk.
pub const TAG_BYTES: usize = 16;
/// What the key is for, in its derivation.
const EXTENT: &[u8] = b"floortape extent 1\0";

/// The key of one extent. No `Debug`, no `Clone`; the engine wipes the key schedule.
pub struct ChunkKey(LessSafeKey);

impl ChunkKey {
    /// HKDF-SHA-256: salt `fresh`, key material `secret`, info the purpose, worker and number of the segment
    /// (little-endian, 2 and 8 octets).
    pub fn of_extent(secret: &Secret, worker: WorkerId, number: u64, fresh: &Fresh) -> Self {
        let (worker, number) = (worker.0.to_le_bytes(), number.to_le_bytes());
        let info = [EXTENT, &worker, &number];
        let source = Salt::new(HKDF_SHA256, fresh).extract(secret.expose());
        let key = source.expand(&info, &AES_256_GCM).expect("32 octets are few enough for HKDF");
        ChunkKey(LessSafeKey::new(UnboundKey::from(key)))
    }

    /// The key that `secret` is.
    pub(super) fn of(secret: &Secret) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, secret.expose()).expect("32 octets");
        ChunkKey(LessSafeKey::new(key))
    }

    /// Encrypts `bytes` as chunk number `chunk` (0 first); the tag. Each number once under a key.
    pub fn seal(&self, chunk: u64, aad: &[u8], bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = self.0.seal_in_place_separate_tag(nonce(chunk), Aad::from(aad), bytes);
        let tag = tag.expect("AES-GCM takes any text below 64 GiB");
        *tag.as_ref().first_chunk().expect("a tag of AES-GCM has 16 octets")
    }

    /// Decrypts `bytes`, the last 16 of which are the tag; `None` where this is not chunk number `chunk` of
    /// this key, with this `aad`.
    pub fn open<'a>(&self, chunk: u64, aad: &[u8], bytes: &'a mut [u8]) -> Option<&'a [u8]> {
        let opened = self.0.open_in_place(nonce(chunk), Aad::from(aad), bytes);
        opened.ok().map(|text| &*text)
    }
}

fn nonce(chunk: u64) -> Nonce {
    Nonce::assume_unique_for_key(nonce_bytes(chunk))
}

/// Four zeros, then the number, big-endian.
pub(super) fn nonce_bytes(number: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"twenty milliseconds";
    const AAD: &[u8] = b"extent and chunk";

    fn key(secret: u8, worker: u16, number: u64, fresh: u8) -> ChunkKey {
        let secret = Secret::new(std::array::from_fn::<_, 32, _>(|at| at as u8 ^ secret).into());
        let fresh = std::array::from_fn(|at| (0xa0 + at as u8) ^ fresh);
        ChunkKey::of_extent(&secret, WorkerId(worker), number, &fresh)
    }

    /// Made with the HKDF and AESGCM of Python's cryptography 48.0.0.
    #[test]
    fn another_implementation_gives_the_same_octets() {
        let expected = "30164cb8b93bafdb8369f00109c950920f97d1bc9a4e0a477bb1c61f69737d2b816b17";
        let mut bytes = TEXT.to_vec();
        let tag = key(0, 3, 7, 0).seal(5, AAD, &mut bytes);
        let hex: String = bytes.iter().chain(&tag).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn only_the_same_key_number_and_context_opens() {
        let mut sealed = TEXT.to_vec();
        let tag = key(0, 3, 7, 0).seal(5, AAD, &mut sealed);
        sealed.extend_from_slice(&tag);
        let open = |key: ChunkKey, chunk, aad: &[u8], sealed: &[u8]| {
            let mut bytes = sealed.to_vec();
            key.open(chunk, aad, &mut bytes).map(<[u8]>::to_vec)
        };
        assert_eq!(open(key(0, 3, 7, 0), 5, AAD, &sealed).as_deref(), Some(TEXT));
        for other in [key(1, 3, 7, 0), key(0, 4, 7, 0), key(0, 3, 8, 0), key(0, 3, 7, 1)] {
            assert_eq!(open(other, 5, AAD, &sealed), None);
        }
        assert_eq!(open(key(0, 3, 7, 0), 6, AAD, &sealed), None);
        assert_eq!(open(key(0, 3, 7, 0), 5, b"another", &sealed), None);
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(key(0, 3, 7, 0), 5, AAD, &bad), None, "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert_eq!(open(key(0, 3, 7, 0), 5, AAD, &sealed[..cut]), None, "cut at {cut}");
        }
    }
}
