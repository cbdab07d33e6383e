//! AES-GCM (RFC 7714) by aws-lc-rs: session keys of one direction of one protocol. The only file of
//! the media path that names that engine.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroize;

use super::derive::{Label, Prf};
use super::fail::Fail;
use crate::base::ids::Ssrc;

/// Octets of the tag; never shortened (RFC 7714 §13.2).
pub(super) const TAG_BYTES: usize = 16;

/// Session keys for SRTP, or for SRTCP.
pub(super) struct Gcm {
    /// The engine wipes its round keys when it frees them.
    key: LessSafeKey,
    salt: [u8; 12],
}

impl Gcm {
    /// Derives the session keys of SRTP; `key_bytes` is 16 or 32.
    pub(super) fn rtp(prf: &Prf<'_>, key_bytes: usize) -> Self {
        Self::derive(prf, key_bytes, Label::RtpKey, Label::RtpSalt)
    }

    /// Derives the session keys of SRTCP.
    pub(super) fn rtcp(prf: &Prf<'_>, key_bytes: usize) -> Self {
        Self::derive(prf, key_bytes, Label::RtcpKey, Label::RtcpSalt)
    }

    fn derive(prf: &Prf<'_>, key_bytes: usize, key: Label, salt: Label) -> Self {
        let unbound = if key_bytes == 16 {
            UnboundKey::new(&AES_128_GCM, &prf.derive::<16>(key)[..])
        } else {
            UnboundKey::new(&AES_256_GCM, &prf.derive::<32>(key)[..])
        };
        let key = LessSafeKey::new(unbound.expect("the key has the algorithm's length"));
        Gcm { key, salt: *prf.derive(salt) }
    }

    /// See [`super::Context::touch`].
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        self.salt[0].into()
    }

    /// RFC 7714 §8.1 and §9.1: 00 00 ‖ SSRC ‖ (ROC ‖ SEQ, or 00 00 ‖ SRTCP index), XORed with the
    /// salt. Both are the SSRC at octet 2 and a 48-bit index behind it.
    #[inline]
    fn nonce(&self, ssrc: Ssrc, index: u64) -> Nonce {
        let mut nonce = self.salt;
        for (byte, ssrc) in nonce[2..6].iter_mut().zip(ssrc.0.to_be_bytes()) {
            *byte ^= ssrc;
        }
        for (byte, index) in nonce[6..].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *byte ^= index;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// Authenticates `aad` and `input`, decrypts `input` without its tag to `out`. On failure `out`
    /// holds nothing of use.
    #[inline]
    pub(super) fn open(
        &self,
        ssrc: Ssrc,
        index: u64,
        aad: &[u8],
        input: &[u8],
        out: &mut [u8],
    ) -> Result<(), Fail> {
        let (cipher_text, tag) = input.split_at(input.len() - TAG_BYTES);
        self.key
            .open_separate_gather(self.nonce(ssrc, index), Aad::from(aad), cipher_text, tag, out)
            .map_err(|_| Fail::Auth)
    }

    /// Encrypts `in_out` in place and returns the tag over it and `aad`. The caller answers for the
    /// pair (SSRC, index) never being used twice under one key.
    pub(super) fn seal(
        &self,
        ssrc: Ssrc,
        index: u64,
        aad: &[u8],
        in_out: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(ssrc, index), Aad::from(aad), in_out)
            .expect("a datagram is far below the algorithm's limit");
        tag.as_ref().try_into().expect("the tag has 16 octets")
    }
}

impl Drop for Gcm {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}
