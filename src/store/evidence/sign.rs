//! Ed25519 (RFC 8032), by aws-lc-rs: the only file that names that engine for signatures.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::hash::Hash;

/// An Ed25519 public key.
pub type PublicKey = [u8; 32];
/// An Ed25519 signature.
pub type Signature = [u8; 64];

/// What stands before a chain head in the signed text, so that the signature serves nothing else.
const DOMAIN: &[u8] = b"floortape seal 1\0";
/// The same for what is said to be gone from a segment.
pub const THINNED: &[u8] = b"floortape kept 1\0";

/// Bytes that are no signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an Ed25519 key in PKCS#8, found {bytes} bytes of something else")]
pub struct KeyError {
    /// Bytes found.
    pub bytes: usize,
}

/// The key that signs chain heads. No `Debug`, no `Clone`; the engine wipes it.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key of 32 unpredictable bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        SigningKey(
            Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are an Ed25519 seed"),
        )
    }

    /// Reads what [`SigningKey::to_pkcs8`] gave.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes)
            .map(SigningKey)
            .map_err(|_| KeyError { bytes: bytes.len() })
    }

    /// PKCS#8 (RFC 8410), to be kept where only the owner reads. `None` if the engine cannot.
    pub fn to_pkcs8(&self) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = self.0.as_der().ok()?;
        Some(zeroize::Zeroizing::new(der.as_ref().to_vec()))
    }

    /// Its public half.
    pub fn public_key(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        key
    }

    /// Signs a chain head.
    pub fn sign(&self, head: &Hash) -> Signature {
        self.sign_in(DOMAIN, head)
    }

    /// Signs a hash of something else, by the text that stands for its kind.
    pub fn sign_in(&self, domain: &[u8], hash: &Hash) -> Signature {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(&[domain, hash].concat()).as_ref());
        signature
    }
}

/// Whether `signature` over `head` is by the holder of `key`.
pub fn verify(key: &PublicKey, head: &Hash, signature: &Signature) -> bool {
    verify_in(DOMAIN, key, head, signature)
}

/// Same, of what [`SigningKey::sign_in`] signed.
pub fn verify_in(domain: &[u8], key: &PublicKey, hash: &Hash, signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(&[domain, hash].concat(), signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_signs_only_its_heads() {
        let key = SigningKey::from_seed(&[7; 32]);
        let bytes = key.to_pkcs8().expect("the engine writes PKCS#8");
        let back = SigningKey::from_pkcs8(&bytes).expect("just written");
        assert_eq!(key.public_key(), back.public_key());
        let signature = back.sign(&[1; 32]);
        assert!(verify(&key.public_key(), &[1; 32], &signature));
        assert!(!verify(&key.public_key(), &[2; 32], &signature));
        assert!(!verify(&[9; 32], &[1; 32], &signature));
        let other = key.sign_in(THINNED, &[1; 32]);
        assert!(verify_in(THINNED, &key.public_key(), &[1; 32], &other));
        assert!(!verify(&key.public_key(), &[1; 32], &other), "a head is nothing else");
        assert!(SigningKey::from_pkcs8(&bytes[1..]).is_err());
    }
}
