//! Sealing of secrets under the machine key: SRTP keys and leaf salts on their way into the journal.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::entry::Sealed;
use crate::base::ids::{RsId, StreamId};
use crate::base::ports::Entropy;

/// Bytes of the machine key.
pub const MACHINE_KEY_BYTES: usize = 32;
/// Bytes of a wrapped key: nonce, cipher text of 32, tag.
pub const WRAPPED_BYTES: usize = NONCE_LEN + 32 + 16;

/// Why a secret cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyBoxError {
    /// The key file holds something else.
    #[error("expected a machine key of 32 bytes, found {bytes}")]
    KeyLength {
        /// Bytes found.
        bytes: usize,
    },
    /// Not base64 of nonce, cipher text and tag.
    #[error("expected base64 of nonce, cipher text and tag")]
    Format,
    /// Another machine key sealed it, it was sealed for another purpose, or it was changed.
    #[error("sealed by another machine key, for another purpose, or changed")]
    Tag,
}

/// The machine key at work. No `Debug`, no `Clone`; the key schedule is wiped by its library.
pub struct KeyBox {
    key: LessSafeKey,
}

impl KeyBox {
    /// Takes the bytes of the key file. The caller wipes its copy.
    pub fn new(key: &[u8]) -> Result<Self, KeyBoxError> {
        if key.len() != MACHINE_KEY_BYTES {
            return Err(KeyBoxError::KeyLength { bytes: key.len() });
        }
        let key = UnboundKey::new(&AES_256_GCM, key)
            .map_err(|_| KeyBoxError::KeyLength { bytes: key.len() })?;
        Ok(KeyBox { key: LessSafeKey::new(key) })
    }

    /// Seals `secret` for `context`: only [`KeyBox::open`] with the same context gives it back.
    ///
    /// The nonce is random: at 2^32 seals under one key the chance of a repeat is still below 2^-32
    /// (NIST SP 800-38D §8.3); 1,000 RSs a day with 10 secrets each take a thousand years to there.
    pub fn seal(&self, entropy: &dyn Entropy, secret: &[u8], context: &str) -> Sealed {
        Sealed(STANDARD.encode(self.seal_bytes(entropy, secret, context)).into())
    }

    /// Wraps a key for `context`: as [`KeyBox::seal`], in bytes of a fixed number.
    pub fn wrap(
        &self,
        entropy: &dyn Entropy,
        key: &[u8; 32],
        context: &str,
    ) -> [u8; WRAPPED_BYTES] {
        let bytes = self.seal_bytes(entropy, key, context);
        bytes.try_into().expect("nonce, as many bytes as the key has, tag")
    }

    /// The key that was wrapped for `context`.
    pub fn unwrap(
        &self,
        wrapped: &[u8; WRAPPED_BYTES],
        context: &str,
    ) -> Result<Zeroizing<[u8; 32]>, KeyBoxError> {
        let mut bytes = Zeroizing::new(*wrapped);
        let key = self.open_bytes(bytes.as_mut(), context)?;
        let mut out = Zeroizing::new([0; 32]);
        out.copy_from_slice(key);
        Ok(out)
    }

    /// As [`KeyBox::seal`], in bytes: nonce, cipher text, tag.
    pub fn seal_bytes(&self, entropy: &dyn Entropy, secret: &[u8], context: &str) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut text = Zeroizing::new(secret.to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.as_bytes()),
                &mut text,
            )
            .expect("AES-GCM takes any text below 64 GiB");
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&text);
        bytes.extend_from_slice(tag.as_ref());
        bytes
    }

    /// Opens what was sealed for `context`.
    pub fn open(&self, sealed: &Sealed, context: &str) -> Result<Zeroizing<Vec<u8>>, KeyBoxError> {
        let mut bytes =
            Zeroizing::new(STANDARD.decode(&*sealed.0).map_err(|_| KeyBoxError::Format)?);
        Ok(Zeroizing::new(self.open_bytes(&mut bytes, context)?.to_vec()))
    }

    /// Opens such bytes in their place.
    pub fn open_bytes<'a>(
        &self,
        bytes: &'a mut [u8],
        context: &str,
    ) -> Result<&'a [u8], KeyBoxError> {
        if bytes.len() < NONCE_LEN + AES_256_GCM.tag_len() {
            return Err(KeyBoxError::Format);
        }
        let (nonce, text) = bytes.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyBoxError::Format)?;
        let opened = self.key.open_in_place(nonce, Aad::from(context.as_bytes()), text);
        opened.map(|secret| &*secret).map_err(|_| KeyBoxError::Tag)
    }
}

/// Another key, for `purpose`, from the machine key: HMAC-SHA-256 of the purpose under it. Who has it
/// learns nothing about the machine key.
pub fn derive(machine_key: &[u8], purpose: &str) -> Zeroizing<Vec<u8>> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, machine_key);
    Zeroizing::new(aws_lc_rs::hmac::sign(&key, purpose.as_bytes()).as_ref().to_vec())
}

/// Context of the leaf salt of an RS.
pub fn salt_context(rs: RsId) -> String {
    format!("salt {rs}")
}

/// Context of the SRC's master key of a stream.
pub fn remote_key_context(rs: RsId, stream: StreamId) -> String {
    format!("remote {rs} {}", stream.0)
}

/// Context of our own master key of a stream.
pub fn local_key_context(rs: RsId, stream: StreamId) -> String {
    format!("local {rs} {}", stream.0)
}

/// Context of the SDP of our answers in an RS.
pub fn answer_context(rs: RsId) -> String {
    format!("answer {rs}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Seeded;

    fn entropy() -> Seeded {
        Seeded::new(1)
    }

    #[test]
    fn only_the_same_key_and_context_open_a_secret() {
        let keys = KeyBox::new(&[7; 32]).expect("32 bytes");
        let sealed = keys.seal(&entropy(), b"secret", "salt 1");
        assert_eq!(keys.open(&sealed, "salt 1").expect("just sealed").as_slice(), b"secret");
        assert_eq!(keys.open(&sealed, "salt 2"), Err(KeyBoxError::Tag));
        let other = KeyBox::new(&[8; 32]).expect("32 bytes");
        assert_eq!(other.open(&sealed, "salt 1"), Err(KeyBoxError::Tag));
        assert!(!sealed.0.contains("secret"));
    }

    #[test]
    fn a_changed_or_short_text_is_refused() {
        let keys = KeyBox::new(&[7; 32]).expect("32 bytes");
        let sealed = keys.seal(&entropy(), b"secret", "c");
        let bytes = STANDARD.decode(&*sealed.0).expect("ours");
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(keys.open(&Sealed(STANDARD.encode(&bad).into()), "c").is_err(), "byte {at}");
        }
        assert_eq!(
            keys.open(&Sealed(STANDARD.encode([0; 27]).into()), "c"),
            Err(KeyBoxError::Format)
        );
        assert_eq!(keys.open(&Sealed("?".into()), "c"), Err(KeyBoxError::Format));
        assert!(matches!(KeyBox::new(&[0; 31]), Err(KeyBoxError::KeyLength { bytes: 31 })));
    }

    #[test]
    fn the_same_secret_never_seals_to_the_same_text() {
        let keys = KeyBox::new(&[7; 32]).expect("32 bytes");
        let entropy = entropy();
        assert_ne!(keys.seal(&entropy, b"s", "c"), keys.seal(&entropy, b"s", "c"));
    }
}
