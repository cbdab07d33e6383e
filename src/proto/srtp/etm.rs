//! A key stream, or none, and HMAC-SHA1 over what it made (RFC 3711 §4.1, §4.2.1): session keys of one
//! direction of one protocol.

use aes::{Aes128, Aes192, Aes256};

use super::cm::Cm;
use super::derive::{Label, Prf};
use super::f8::F8;
use super::fail::Fail;
use super::hmac::{HmacSha1, MAC_BYTES, same_tag};
use super::keys::Protocol;
use crate::base::ids::Ssrc;
use crate::base::suite::{Agreed, Suite};

/// Session keys for SRTP, or for SRTCP: encrypt, then authenticate.
pub(super) struct Etm {
    stream: Stream,
    auth: HmacSha1,
}

/// What encrypts. The smallest and most frequent stands here, the others elsewhere.
#[expect(clippy::large_enum_variant, reason = "nearly every one is the large one")]
enum Stream {
    Cm128(Cm<Aes128>),
    Cm192(Box<Cm<Aes192>>),
    Cm256(Box<Cm<Aes256>>),
    F8(Box<F8>, Protocol),
    /// Nothing does (RFC 3711 §4.1.3): `UNENCRYPTED_SRTP`.
    Null,
}

impl Etm {
    /// Derives the session keys of `protocol`. Those of SRTCP encrypt whatever was agreed: what need not
    /// be encrypted still may be.
    pub(super) fn derive(prf: &Prf<'_>, agreed: Agreed, protocol: Protocol) -> Self {
        let (key, auth, salt) = match protocol {
            Protocol::Rtp => (Label::RtpKey, Label::RtpAuth, Label::RtpSalt),
            Protocol::Rtcp => (Label::RtcpKey, Label::RtcpAuth, Label::RtcpSalt),
        };
        let null = agreed.rtp_in_clear() && matches!(protocol, Protocol::Rtp);
        let stream = match agreed.suite() {
            _ if null => Stream::Null,
            Suite::F8_128HmacSha1_80 => Stream::F8(Box::new(F8::derive(prf, key, salt)), protocol),
            suite => match suite.key_bytes() {
                16 => Stream::Cm128(Cm::derive::<16>(prf, key, salt)),
                24 => Stream::Cm192(Box::new(Cm::derive::<24>(prf, key, salt))),
                _ => Stream::Cm256(Box::new(Cm::derive::<32>(prf, key, salt))),
            },
        };
        Etm { stream, auth: HmacSha1::new(&prf.derive(auth)) }
    }

    /// See [`super::Context::touch`].
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        let salt = if let Stream::Cm128(cm) = &self.stream { cm.touch() } else { 0 };
        self.auth.touch() ^ salt
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

    /// Encrypts or decrypts `input` to `out`, which has its length. `head`: the packet's first octets,
    /// 12 of RTP or 8 of RTCP. `index` is the 48-bit packet index, or the SRTCP index.
    #[inline]
    pub(super) fn crypt(&self, head: &[u8], ssrc: Ssrc, index: u64, input: &[u8], out: &mut [u8]) {
        if let Stream::Cm128(cm) = &self.stream {
            return cm.crypt(ssrc, index, input, out);
        }
        self.crypt_otherwise(head, ssrc, index, input, out);
    }

    /// Apart, so that what most SRCs send is read by straight code.
    #[inline(never)]
    fn crypt_otherwise(&self, head: &[u8], ssrc: Ssrc, index: u64, input: &[u8], out: &mut [u8]) {
        match &self.stream {
            Stream::Cm128(cm) => cm.crypt(ssrc, index, input, out),
            Stream::Cm192(cm) => cm.crypt(ssrc, index, input, out),
            Stream::Cm256(cm) => cm.crypt(ssrc, index, input, out),
            Stream::F8(f8, Protocol::Rtp) => f8.crypt_rtp(head, (index >> 16) as u32, input, out),
            Stream::F8(f8, Protocol::Rtcp) => f8.crypt_rtcp(head, index as u32, input, out),
            Stream::Null => out.copy_from_slice(input),
        }
    }
}
