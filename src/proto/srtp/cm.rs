//! AES-CM with HMAC-SHA1 (RFC 3711 §4.1.1, §4.2.1): session keys of one direction of one protocol.

use aes::Aes128;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher};
use ctr::{Ctr128BE, CtrCore, flavors::Ctr128BE as Flavor};
use zeroize::Zeroize;

use super::derive::{Label, Prf};
use super::fail::Fail;
use super::hmac::{HmacSha1, MAC_BYTES, same_tag};
use crate::base::ids::Ssrc;

/// Session keys for SRTP, or for SRTCP.
pub(super) struct Cm {
    cipher: Aes128,
    auth: HmacSha1,
    salt: [u8; 14],
}

impl Cm {
    /// Derives the session keys of SRTP.
    pub(super) fn rtp(prf: &Prf<'_>) -> Self {
        Self::derive(prf, Label::RtpKey, Label::RtpAuth, Label::RtpSalt)
    }

    /// Derives the session keys of SRTCP.
    pub(super) fn rtcp(prf: &Prf<'_>) -> Self {
        Self::derive(prf, Label::RtcpKey, Label::RtcpAuth, Label::RtcpSalt)
    }

    fn derive(prf: &Prf<'_>, key: Label, auth: Label, salt: Label) -> Self {
        Cm {
            cipher: Aes128::new(GenericArray::from_slice(&prf.derive::<16>(key)[..])),
            auth: HmacSha1::new(&prf.derive(auth)),
            salt: *prf.derive(salt),
        }
    }

    /// The tag over `message ‖ suffix`; its user takes as many octets as the suite says.
    #[inline]
    pub(super) fn tag(&self, message: &[u8], suffix: &[u8]) -> [u8; MAC_BYTES] {
        self.auth.mac(message, suffix)
    }

    /// Checks `tag` over `message ‖ suffix`.
    #[inline]
    pub(super) fn verify(&self, message: &[u8], suffix: &[u8], tag: &[u8]) -> Result<(), Fail> {
        let expected = self.tag(message, suffix);
        if same_tag(&expected[..tag.len()], tag) { Ok(()) } else { Err(Fail::Auth) }
    }

    /// Encrypts or decrypts `input` to `out`, which has its length. `index` is the 48-bit packet
    /// index, or the SRTCP index.
    #[inline]
    pub(super) fn crypt(&self, ssrc: Ssrc, index: u64, input: &[u8], out: &mut [u8]) {
        // RFC 3711 §4.1.1: IV = (salt · 2^16) ⊕ (SSRC · 2^64) ⊕ (index · 2^16). The low 16 bits
        // count blocks; a datagram has fewer than 2^12.
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        for (byte, ssrc) in iv[4..8].iter_mut().zip(ssrc.0.to_be_bytes()) {
            *byte ^= ssrc;
        }
        for (byte, index) in iv[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *byte ^= index;
        }
        let core = CtrCore::<&Aes128, Flavor>::inner_iv_init(&self.cipher, &iv.into());
        Ctr128BE::from_core(core)
            .apply_keystream_b2b(input, out)
            .expect("both slices have one length and a datagram is no key stream's end");
    }
}

impl Drop for Cm {
    fn drop(&mut self) {
        // The cipher and the authentication key wipe themselves.
        self.salt.zeroize();
    }
}
