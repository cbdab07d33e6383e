//! Protects and unprotects SRTP and SRTCP packets.
//!
//! ```text
//! HMAC    SRTP   header ‖ {payload} ‖ MKI ‖ tag (10 or 4)          tag covers what is before MKI ‖ ROC
//!         SRTCP  8 octets ‖ {rest} ‖ E+index ‖ MKI ‖ tag (10)      tag covers what is before MKI
//! GCM     SRTP   header ‖ {payload ‖ tag} ‖ MKI                    AAD: header
//!         SRTCP  8 octets ‖ {rest ‖ tag} ‖ E+index ‖ MKI           AAD: 8 octets ‖ E+index
//! ```
//! Where `UNENCRYPTED_SRTCP` was agreed an SRTCP packet may have E = 0: nothing between the braces is
//! encrypted then, and GCM's AAD is the whole packet ‖ E+index, with the tag behind the packet.
//!
//! The MKI is there where the peer's SDP says so, and says which of its keys it is. It is not
//! authenticated: a packet without one of its own is held to have none and judged by its tag.

use super::fail::{Fail, KeyError};
use super::keys::{Cipher, Key};
use crate::base::ids::{Index, Ssrc};
use crate::base::keyring::Keyring;
use crate::base::limits::DATAGRAM_BYTES_MAX;
use crate::base::secret::MasterKey;
use crate::base::suite::{Agreed, Suite};
use crate::wire::rtp::Header;

/// The largest SRTCP index: 31 bits.
pub const SRTCP_INDEX_MAX: u32 = (1 << 31) - 1;
/// Octets of an RTCP packet that stay in the clear: its first header and the sender's SSRC.
const RTCP_CLEAR_BYTES: usize = 8;
/// Octets of the E bit and the SRTCP index.
const RTCP_INDEX_BYTES: usize = 4;
/// The E bit: this SRTCP packet is encrypted.
const E_BIT: u32 = 1 << 31;

/// Session keys for SRTP and SRTCP under one master key, or under several that MKIs tell apart. No
/// `Debug`, wiped on drop.
pub struct Context {
    agreed: Agreed,
    first: Key,
    /// Further keys; their MKIs have the length of the first one's.
    others: Box<[Key]>,
}

impl Context {
    /// Derives the session keys (RFC 3711 §4.3). Fails where `master` is not key ‖ salt of exactly
    /// the suite's length.
    pub fn new(agreed: impl Into<Agreed>, master: &MasterKey) -> Result<Self, KeyError> {
        let agreed = agreed.into();
        let first = Key::new(agreed, master, None, 0)?;
        Ok(Context { agreed, first, others: Box::default() })
    }

    /// The same for all that an SRC may encrypt with. Protects nothing: what we send is under one key.
    pub fn of(agreed: impl Into<Agreed>, keyring: &Keyring) -> Result<Self, KeyError> {
        let (agreed, rate) = (agreed.into(), keyring.derivation_rate());
        let mut keys = keyring.keys().iter().map(|(key, mki)| Key::new(agreed, key, *mki, rate));
        let first = keys.next().expect("a keyring has a key")?;
        let others = keys.collect::<Result<_, _>>()?;
        Ok(Context { agreed, first, others })
    }

    /// The suite.
    pub fn suite(&self) -> Suite {
        self.agreed.suite()
    }

    /// Asks for the memory of the session keys, so that the processor has it when a packet comes; the number
    /// says nothing.
    #[inline]
    pub fn touch(&self) -> u64 {
        self.first.touch()
    }

    /// Authenticates the SRTP packet `packet` and decrypts it to `out`, header included.
    ///
    /// `index`: the guess for its index (`wire::seq::estimate`, [`super::receiver`]); only the ROC
    /// counts, the sequence number is the packet's. Returns the octets written: those of the packet
    /// without tag. `out` may be larger. On any failure `out` holds nothing of use.
    ///
    /// RFC 3711 §3.3, RFC 7714 §8.
    #[inline]
    pub fn unprotect_rtp(
        &self,
        packet: &[u8],
        index: Index,
        out: &mut [u8],
    ) -> Result<usize, Fail> {
        let header = Header::parse(packet).map_err(|_| Fail::Malformed)?;
        let header_bytes = header.header_bytes();
        let tag_bytes = self.agreed.suite().rtp_tag_bytes();
        let (key, mki_bytes) = self.key_of(packet, header_bytes, tag_bytes);
        let Some(clear_bytes) = packet.len().checked_sub(tag_bytes + mki_bytes) else {
            return Err(Fail::Malformed);
        };
        if clear_bytes < header_bytes {
            return Err(Fail::Malformed);
        }
        let out = room(out, clear_bytes)?;
        let (ssrc, index) = (header.ssrc(), Index::new(index.roc(), header.seq()));
        key.with_rtp(index.0, |cipher| match cipher {
            Cipher::Etm(rtp) => {
                let (message, tag) = (&packet[..clear_bytes], &packet[clear_bytes + mki_bytes..]);
                rtp.verify(message, &index.roc().to_be_bytes(), tag)?;
                let (head, payload) = message.split_at(header_bytes);
                rtp.crypt(head, ssrc, index.0, payload, &mut out[header_bytes..]);
                Ok(())
            }
            Cipher::Gcm(rtp) => {
                let (aad, input) = packet[..clear_bytes + tag_bytes].split_at(header_bytes);
                rtp.open(ssrc, index.0, aad, input, &mut out[header_bytes..])
            }
        })?;
        out[..header_bytes].copy_from_slice(&packet[..header_bytes]);
        Ok(clear_bytes)
    }

    /// Authenticates the SRTCP packet `packet` and decrypts it to `out`.
    ///
    /// Returns the octets written and the packet's SRTCP index, whose replay check is the caller's.
    /// A packet with E = 0 is refused whatever its tag says, unless `UNENCRYPTED_SRTCP` was agreed.
    ///
    /// RFC 3711 §3.4, RFC 7714 §9.
    pub fn unprotect_rtcp(&self, packet: &[u8], out: &mut [u8]) -> Result<(usize, u32), Fail> {
        let tag_bytes = self.agreed.suite().rtcp_tag_bytes();
        let overhead = RTCP_INDEX_BYTES + tag_bytes;
        if packet.len() < RTCP_CLEAR_BYTES + overhead || packet[0] >> 6 != 2 {
            return Err(Fail::Malformed);
        }
        let least = RTCP_CLEAR_BYTES + RTCP_INDEX_BYTES;
        let (key, mki_bytes) = self.key_of(packet, least, tag_bytes);
        let clear_bytes = packet.len() - overhead - mki_bytes;
        let index_at = clear_bytes + if self.agreed.suite().is_aead() { tag_bytes } else { 0 };
        let (encrypted, index) = trailer(&packet[index_at..]);
        if !(encrypted || self.agreed.rtcp_in_clear()) {
            return Err(Fail::Unencrypted);
        }
        let out = room(out, clear_bytes)?;
        let ssrc = rtcp_ssrc(packet);
        let head = &packet[..RTCP_CLEAR_BYTES];
        key.with_rtcp(index, |cipher| match cipher {
            Cipher::Etm(rtcp) => {
                let (message, rest) = packet.split_at(clear_bytes + RTCP_INDEX_BYTES);
                rtcp.verify(message, &[], &rest[mki_bytes..])?;
                let (body, out) =
                    (&message[RTCP_CLEAR_BYTES..clear_bytes], &mut out[RTCP_CLEAR_BYTES..]);
                if encrypted {
                    rtcp.crypt(head, ssrc, index.into(), body, out);
                } else {
                    out.copy_from_slice(body);
                }
                Ok(())
            }
            Cipher::Gcm(rtcp) if !encrypted => {
                let (clear, tag) = packet[..index_at].split_at(clear_bytes);
                let (aad, bytes) = rtcp_whole_aad(clear, index)?;
                rtcp.open(ssrc, index.into(), &aad[..bytes], tag, &mut [])?;
                out.copy_from_slice(clear);
                Ok(())
            }
            Cipher::Gcm(rtcp) => {
                let aad = rtcp_aad(head, index | E_BIT);
                let input = &packet[RTCP_CLEAR_BYTES..index_at];
                rtcp.open(ssrc, index.into(), &aad, input, &mut out[RTCP_CLEAR_BYTES..])
            }
        })?;
        out[..RTCP_CLEAR_BYTES].copy_from_slice(head);
        Ok((clear_bytes, index))
    }

    /// The key that `packet` is under and the octets of its MKI, none of them among the first `least`.
    /// An MKI stands before an HMAC tag of `tag_bytes`, and at the end where the tag is part of what is
    /// encrypted (RFC 7714 §8, §9).
    #[inline]
    fn key_of(&self, packet: &[u8], least: usize, tag_bytes: usize) -> (&Key, usize) {
        let Some(mki) = &self.first.mki else { return (&self.first, 0) };
        let (bytes, behind) =
            (mki.length(), if self.agreed.suite().is_aead() { 0 } else { tag_bytes });
        if packet.len() < least + tag_bytes + bytes {
            return (&self.first, 0);
        }
        let end = packet.len() - behind;
        let found = &packet[end - bytes..end];
        let mut keys = std::iter::once(&self.first).chain(&self.others);
        let named = keys.find(|key| key.mki.is_some_and(|mki| mki.is(found)));
        named.map_or((&self.first, 0), |key| (key, bytes))
    }

    /// Encrypts and authenticates the RTP packet `packet` to `out`. Returns the octets written:
    /// those of the packet and the tag.
    ///
    /// The caller answers for (SSRC, index) never being used twice under this key.
    pub fn protect_rtp(&self, packet: &[u8], index: Index, out: &mut [u8]) -> Result<usize, Fail> {
        let header = Header::parse(packet).map_err(|_| Fail::Malformed)?;
        let header_bytes = header.header_bytes();
        let clear_bytes = packet.len();
        let total = clear_bytes + self.agreed.suite().rtp_tag_bytes();
        let out = room(out, total)?;
        let (ssrc, index) = (header.ssrc(), Index::new(index.roc(), header.seq()));
        self.first.with_rtp(index.0, |cipher| match cipher {
            Cipher::Etm(rtp) => {
                out[..header_bytes].copy_from_slice(&packet[..header_bytes]);
                let (message, tag) = out.split_at_mut(clear_bytes);
                let (head, payload) = packet.split_at(header_bytes);
                rtp.crypt(head, ssrc, index.0, payload, &mut message[header_bytes..]);
                let mac = rtp.tag(message, &index.roc().to_be_bytes());
                tag.copy_from_slice(&mac[..tag.len()]);
            }
            Cipher::Gcm(rtp) => {
                out[..clear_bytes].copy_from_slice(packet);
                let (message, tag) = out.split_at_mut(clear_bytes);
                let (aad, payload) = message.split_at_mut(header_bytes);
                tag.copy_from_slice(&rtp.seal(ssrc, index.0, aad, payload));
            }
        });
        Ok(total)
    }

    /// Encrypts and authenticates the compound RTCP packet `packet` to `out`, with E = 1; with E = 0 it
    /// is authenticated only, where `UNENCRYPTED_SRTCP` was agreed. Returns the octets written.
    ///
    /// `index`: at most [`SRTCP_INDEX_MAX`], never used twice with this SSRC and key; a repeated one
    /// is a repeated nonce.
    pub fn protect_rtcp(&self, packet: &[u8], index: u32, out: &mut [u8]) -> Result<usize, Fail> {
        assert!(index <= SRTCP_INDEX_MAX, "an srtcp index has 31 bits");
        let clear_bytes = packet.len();
        if clear_bytes < RTCP_CLEAR_BYTES {
            return Err(Fail::Malformed);
        }
        let total = clear_bytes + RTCP_INDEX_BYTES + self.agreed.suite().rtcp_tag_bytes();
        let out = room(out, total)?;
        let ssrc = rtcp_ssrc(packet);
        let clear = self.agreed.rtcp_in_clear();
        let trailer = if clear { index } else { index | E_BIT };
        out[..clear_bytes].copy_from_slice(packet);
        self.first.with_rtcp(index, |cipher| {
            match cipher {
                Cipher::Etm(rtcp) => {
                    if !clear {
                        let (head, body) = packet.split_at(RTCP_CLEAR_BYTES);
                        let out = &mut out[RTCP_CLEAR_BYTES..clear_bytes];
                        rtcp.crypt(head, ssrc, index.into(), body, out);
                    }
                    let (message, tag) = out.split_at_mut(clear_bytes + RTCP_INDEX_BYTES);
                    message[clear_bytes..].copy_from_slice(&trailer.to_be_bytes());
                    let mac = rtcp.tag(message, &[]);
                    tag.copy_from_slice(&mac[..tag.len()]);
                }
                Cipher::Gcm(rtcp) => {
                    let (message, rest) = out.split_at_mut(clear_bytes);
                    let (tag, index_out) = rest.split_at_mut(self.agreed.suite().rtcp_tag_bytes());
                    let sealed = if clear {
                        let (aad, bytes) = rtcp_whole_aad(message, trailer)?;
                        rtcp.seal(ssrc, index.into(), &aad[..bytes], &mut [])
                    } else {
                        let (head, body) = message.split_at_mut(RTCP_CLEAR_BYTES);
                        rtcp.seal(ssrc, index.into(), &rtcp_aad(head, trailer), body)
                    };
                    tag.copy_from_slice(&sealed);
                    index_out.copy_from_slice(&trailer.to_be_bytes());
                }
            }
            Ok(())
        })?;
        Ok(total)
    }
}

/// The part of `out` that is written.
#[inline]
fn room(out: &mut [u8], wanted: usize) -> Result<&mut [u8], Fail> {
    let found = out.len();
    out.get_mut(..wanted).ok_or(Fail::Room { wanted, found })
}

/// The sender's SSRC of an RTCP packet of at least 8 octets.
fn rtcp_ssrc(packet: &[u8]) -> Ssrc {
    Ssrc(u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]))
}

/// Of a trailer the E bit and the SRTCP index.
fn trailer(trailer: &[u8]) -> (bool, u32) {
    let word = u32::from_be_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]);
    (word & E_BIT != 0, word & !E_BIT)
}

/// RFC 7714 §9.3: the whole packet ‖ E ‖ index, where E is 0; and its octets.
fn rtcp_whole_aad(packet: &[u8], index: u32) -> Result<([u8; DATAGRAM_BYTES_MAX], usize), Fail> {
    let mut aad = [0; DATAGRAM_BYTES_MAX];
    let bytes = packet.len() + RTCP_INDEX_BYTES;
    let used = aad.get_mut(..bytes).ok_or(Fail::Malformed)?;
    used[..packet.len()].copy_from_slice(packet);
    used[packet.len()..].copy_from_slice(&index.to_be_bytes());
    Ok((aad, bytes))
}

/// RFC 7714 §9.2: the first 8 octets ‖ E ‖ index.
fn rtcp_aad(head: &[u8], trailer: u32) -> [u8; RTCP_CLEAR_BYTES + RTCP_INDEX_BYTES] {
    let mut aad = [0; RTCP_CLEAR_BYTES + RTCP_INDEX_BYTES];
    aad[..RTCP_CLEAR_BYTES].copy_from_slice(head);
    aad[RTCP_CLEAR_BYTES..].copy_from_slice(&trailer.to_be_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Seq;
    use crate::base::mki::Mki;
    use crate::base::prng::Prng;

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
        (0..text.len()).step_by(2).map(digit).collect()
    }

    fn context(agreed: impl Into<Agreed>, key_and_salt: &[u8]) -> Context {
        let master = MasterKey::new(key_and_salt).expect("a key of some suite");
        Context::new(agreed, &master).expect("a key of this suite")
    }

    /// A key that is only a pattern, for suites whose vectors do not matter.
    fn any(agreed: Agreed) -> Context {
        let bytes: Vec<u8> = (1..=agreed.suite().master_bytes() as u8).collect();
        context(agreed, &bytes)
    }

    /// The same where packets carry `mki`.
    fn marked(agreed: Agreed, mki: Mki) -> Context {
        let bytes: Vec<u8> = (1..=agreed.suite().master_bytes() as u8).collect();
        let key = MasterKey::new(&bytes).expect("fits");
        let keyring = Keyring::new(vec![(key, Some(mki))], 0).expect("a key");
        Context::of(agreed, &keyring).expect("a key of this suite")
    }

    fn cm(agreed: impl Into<Agreed>) -> Context {
        context(agreed, &unhex("e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6"))
    }

    fn gcm(agreed: impl Into<Agreed>) -> Context {
        let agreed = agreed.into();
        let key = (0..agreed.suite().key_bytes() as u8).chain(0xa0..0xac).collect::<Vec<_>>();
        context(agreed, &key)
    }

    /// `UNENCRYPTED_SRTP` and `UNENCRYPTED_SRTCP`.
    fn in_clear(suite: Suite, rtp: bool, rtcp: bool) -> Agreed {
        Agreed::from(suite).in_clear(rtp, rtcp).expect("not SRTP under AEAD")
    }

    /// Every suite, and every suite with as much in the clear as there may be.
    fn all_agreed() -> impl Iterator<Item = Agreed> {
        let clear = |suite: Suite| in_clear(suite, !suite.is_aead(), true);
        Suite::ALL.into_iter().flat_map(move |suite| [suite.into(), clear(suite)])
    }

    const RTP: &str = "800f1234decafbadcafebabeabababababababababababababababab";
    const RTCP: &str = "81c8000bcafebabeabababababababababababababababab";

    fn rtp_both_ways(context: &Context, roc: u32, cipher_text: &str) {
        let index = Index::new(roc, Seq(0x1234));
        let (clear, wire) = (unhex(RTP), unhex(&format!("{}{cipher_text}", &RTP[..24])));
        let mut out = [0; 100];
        let length = context.protect_rtp(&clear, index, &mut out).expect("room");
        assert_eq!(&out[..length], wire);
        let length = context.unprotect_rtp(&wire, index, &mut out).expect("the vector is good");
        assert_eq!(&out[..length], clear);
        let other = Index::new(roc + 1, Seq(0x1234));
        assert_eq!(context.unprotect_rtp(&wire, other, &mut out), Err(Fail::Auth));
    }

    fn rtcp_both_ways(context: &Context, cipher_text: &str) {
        let (clear, wire) = (unhex(RTCP), unhex(&format!("{}{cipher_text}", &RTCP[..16])));
        let mut out = [0; 100];
        let length = context.protect_rtcp(&clear, 1, &mut out).expect("room");
        assert_eq!(&out[..length], wire);
        let (length, index) = context.unprotect_rtcp(&wire, &mut out).expect("the vector is good");
        assert_eq!((&out[..length], index), (&clear[..], 1));
    }

    #[test]
    fn published_packets_of_aes_cm() {
        let long = cm(Suite::AesCm128HmacSha1_80);
        rtp_both_ways(&long, 0, "4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb");
        rtp_both_ways(&long, 1, "179265c8bf303e4c24e7279f739bb5a6f8b3916fd670057bf1dc");
        rtcp_both_ways(&long, "7128035be487b9bdbef89041f977a5a880000001993e08cd54d6c1230798");
        let short = cm(Suite::AesCm128HmacSha1_32);
        rtp_both_ways(&short, 0, "4e55dc4ce79978d88ca4d215949d2402b78d6acc");
        // The tag of SRTCP stays at 80 bits.
        rtcp_both_ways(&short, "7128035be487b9bdbef89041f977a5a880000001993e08cd54d6c1230798");
    }

    /// Master keys of RFC 6188 §7.4 and §7.2; packets by its formulae.
    #[test]
    fn published_packets_of_aes_192_and_aes_256() {
        let key = "73edc66c4fa15776fb57f9505c17136550ffda71f3e8e5f1c8522f3acd4ce86d5add78edbb11";
        let rtcp = "3a8b5fbd5eabc9949eec92043a9a4b58800000012fd0d52db8f8be3d1e48";
        let long = context(Suite::Aes192CmHmacSha1_80, &unhex(key));
        rtp_both_ways(&long, 0, "1e84e1395a55cc6cd7b80db939a83a78e3e7e10bf579c261e5c6");
        rtp_both_ways(&long, 1, "9ae191b44701e6de4b88826652b00a4ea44b8a75fa5b48dcc903");
        rtcp_both_ways(&long, rtcp);
        let short = context(Suite::Aes192CmHmacSha1_32, &unhex(key));
        rtp_both_ways(&short, 0, "1e84e1395a55cc6cd7b80db939a83a78e3e7e10b");
        rtcp_both_ways(&short, rtcp);
        let key = "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6\
                   3b04803de51ee7c96423ab5b78d2";
        let rtcp = "b4d0e7a917d24b9faab9d3b6127b3ba680000001e04ac0ec2846f71bd31c";
        let long = context(Suite::Aes256CmHmacSha1_80, &unhex(key));
        rtp_both_ways(&long, 0, "f1d9de17ff251ff1aa007774b0b4b40da08d9d9a5b3a55d8873b");
        rtp_both_ways(&long, 1, "b07fe476abe1d1f6b9cd5f488cc912e519bb0033e2aba642f88e");
        rtcp_both_ways(&long, rtcp);
        let short = context(Suite::Aes256CmHmacSha1_32, &unhex(key));
        rtp_both_ways(&short, 0, "f1d9de17ff251ff1aa007774b0b4b40da08d9d9a");
        rtcp_both_ways(&short, rtcp);
        let draft = Agreed::from_name("AES_CM_256_HMAC_SHA1_80").expect("of a draft");
        rtcp_both_ways(&context(draft, &unhex(key)), rtcp);
    }

    /// Computed by other means: AES of OpenSSL by the formulae of RFC 3711 §4.1.2, which give the packet
    /// of its appendix B.1.
    #[test]
    fn packets_of_f8() {
        let f8 = cm(Suite::F8_128HmacSha1_80);
        rtp_both_ways(&f8, 0, "46fa3d4da1643d3cdb04034ae3482023d7833d69cf9d842cfcc8");
        rtp_both_ways(&f8, 1, "7422c24cf2ede9399e59a791b2a4e49357519b0e9e99e123f44d");
        let high = "ce299617f588e8137fbfc65d31a60285804a21ccc256bbf387b4";
        rtp_both_ways(&f8, 0xd462_564a, high);
        rtcp_both_ways(&f8, "22523f52a7e1002538ad93d395107c90800000012a129dcc4cef7dcb0c6d");
    }

    #[test]
    fn what_is_not_encrypted_is_authenticated_all_the_same() {
        let suite = Suite::AesCm128HmacSha1_80;
        // Computed by other means: HMAC under the session key of RFC 3711 appendix B.3.
        let clear = cm(in_clear(suite, true, false));
        rtp_both_ways(&clear, 0, "abababababababababababababababababa136270b679134ce9b");
        rtp_both_ways(&clear, 1, "abababababababababababababababab9f15db6125b0c5bbd5bb");
        // SRTCP is another matter.
        let encrypted = "7128035be487b9bdbef89041f977a5a880000001993e08cd54d6c1230798";
        rtcp_both_ways(&clear, encrypted);
        let tail = "abababababababababababababababab00000001fe88c7fdfd37ebce615d";
        rtcp_both_ways(&cm(in_clear(suite, false, true)), tail);
        let rtp = "4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb";
        rtp_both_ways(&cm(in_clear(suite, false, true)), 0, rtp);
        // AES-GCM of OpenSSL under the session keys of the packets above (RFC 7714 §9.3).
        let short = gcm(in_clear(Suite::AeadAes128Gcm, false, true));
        rtcp_both_ways(
            &short,
            "abababababababababababababababab0cf635168f8242a21b12d664ecd862e800000001",
        );
        let long = gcm(in_clear(Suite::AeadAes256Gcm, false, true));
        rtcp_both_ways(
            &long,
            "ababababababababababababababababb15bc8e6a130312f2ce1a64a9122247700000001",
        );
    }

    #[test]
    fn where_srtcp_need_not_be_encrypted_it_may_be_and_else_it_must() {
        for suite in Suite::ALL {
            let (strict, lax) = (any(suite.into()), any(in_clear(suite, false, true)));
            let (mut wire, mut out) = ([0; 100], [0; 100]);
            let length = strict.protect_rtcp(&unhex(RTCP), 9, &mut wire).expect("room");
            assert_ne!(wire[8..24], unhex(RTCP)[8..]);
            for context in [&strict, &lax] {
                assert_eq!(context.unprotect_rtcp(&wire[..length], &mut out), Ok((24, 9)));
                assert_eq!(out[..24], unhex(RTCP), "{suite:?}");
            }
            let length = lax.protect_rtcp(&unhex(RTCP), 9, &mut wire).expect("room");
            assert_eq!(wire[..24], unhex(RTCP), "{suite:?}");
            assert_eq!(lax.unprotect_rtcp(&wire[..length], &mut out), Ok((24, 9)));
            assert_eq!(out[..24], unhex(RTCP), "{suite:?}");
            let refused = strict.unprotect_rtcp(&wire[..length], &mut out);
            assert_eq!(refused, Err(Fail::Unencrypted), "{suite:?}");
        }
    }

    #[test]
    fn published_packets_of_gcm() {
        let short = gcm(Suite::AeadAes128Gcm);
        rtp_both_ways(
            &short,
            0,
            "c5002ede04cfdd2eb91159e0880aa06ed2976826f796b201df3131a127e8a392",
        );
        rtcp_both_ways(
            &short,
            "c98b8b5df0392a55852b6c21ac8e7025c52c6fbea2b3b446ea31123ba88ce61e80000001",
        );
        let long = gcm(Suite::AeadAes256Gcm);
        rtp_both_ways(&long, 0, "0af7f21e8a90bdad7a425c9c31ed4bb1d90238917e7390a2793500e1681acaea");
        rtcp_both_ways(
            &long,
            "8abfafa780070a90e80f9161cf4aac081ed93aaa53c15b0f3ed1a3b984167b0380000001",
        );
    }

    /// What a sender with an MKI makes of a protected packet.
    fn with_mki(wire: &[u8], mki: &Mki, behind: usize) -> Vec<u8> {
        let (before, after) = wire.split_at(wire.len() - behind);
        [before, &mki.octets(), after].concat()
    }

    #[test]
    fn an_mki_is_cut_off_and_what_has_none_or_another_is_judged_by_its_tag() {
        for agreed in all_agreed() {
            let suite = agreed.suite();
            for length in [1, 4, 31, 32, 33, 128] {
                let mut octets = vec![0; length];
                octets[length - 1] = 7;
                let mki = Mki::new(&octets).expect("fits");
                let context = marked(agreed, mki);
                let (index, mut wire, mut out) = (Index::new(3, Seq(0x1234)), [0; 100], [0; 300]);
                let behind = |tag_bytes| if suite.is_aead() { 0 } else { tag_bytes };

                let bytes = context.protect_rtp(&unhex(RTP), index, &mut wire).expect("room");
                let mut marked = with_mki(&wire[..bytes], &mki, behind(suite.rtp_tag_bytes()));
                for packet in [&marked[..], &wire[..bytes]] {
                    let found = context.unprotect_rtp(packet, index, &mut out);
                    assert_eq!(found, Ok(28), "{agreed}, {length}");
                    assert_eq!(out[..28], unhex(RTP));
                }
                let at = bytes - behind(suite.rtp_tag_bytes());
                marked[at] ^= 1;
                let found = context.unprotect_rtp(&marked, index, &mut out);
                assert_eq!(found, Err(Fail::Auth), "{agreed}, {length}");

                let bytes = context.protect_rtcp(&unhex(RTCP), 9, &mut wire).expect("room");
                let mut marked = with_mki(&wire[..bytes], &mki, behind(suite.rtcp_tag_bytes()));
                for packet in [&marked[..], &wire[..bytes]] {
                    let found = context.unprotect_rtcp(packet, &mut out);
                    assert_eq!(found, Ok((24, 9)), "{agreed}, {length}");
                    assert_eq!(out[..24], unhex(RTCP));
                }
                let at = bytes - behind(suite.rtcp_tag_bytes());
                marked[at] ^= 1;
                let found = context.unprotect_rtcp(&marked, &mut out);
                assert!(found.is_err(), "{agreed}, {length}");
            }
        }
    }

    #[test]
    fn session_keys_change_with_the_derivation_rate() {
        // Computed by other means: AES of OpenSSL over the blocks of RFC 3711 §4.3.1, 2^4 packets.
        let suite = Suite::AesCm128HmacSha1_80;
        let key = unhex("e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6");
        let key = MasterKey::new(&key).expect("fits");
        let keyring = Keyring::new(vec![(key, None)], 4).expect("a key");
        let context = Context::of(suite, &keyring).expect("its suite");
        rtp_both_ways(&context, 0, "f8dbaefd05a8667604d15c5f9bb8a04edcb19f96313556d85906");
        let mut out = [0; 100];
        let length = context.protect_rtcp(&unhex(RTCP), 0x21, &mut out).expect("room");
        let wanted = "2b685d13bee328e6527ecf23fe64366080000021cc9f5cb667092598ee6b";
        assert_eq!(out[8..length], unhex(wanted));
        // Late ones are of the keys before.
        for suite in Suite::ALL {
            for rate in [1, 24] {
                let bytes: Vec<u8> = (1..=suite.master_bytes() as u8).collect();
                let keyring = Keyring::from_parts(&bytes, &[], rate).expect("a key");
                let context = Context::of(suite, &keyring).expect("its suite");
                let clear = &mut unhex(RTP);
                let mut wire = |index: Index| {
                    clear[2..4].copy_from_slice(&index.seq().0.to_be_bytes());
                    let mut wire = [0; 100];
                    let length = context.protect_rtp(clear, index, &mut wire).expect("room");
                    wire[..length].to_vec()
                };
                let edge = 3 << 24;
                let indexes = [edge - 2, edge - 1, edge, edge + 1, edge + 2, 7];
                let packets: Vec<_> = indexes.map(|at| (at, wire(Index(at)))).into();
                for (at, packet) in packets.iter().chain(packets.iter().rev()) {
                    let found = context.unprotect_rtp(packet, Index(*at), &mut out);
                    assert_eq!(found, Ok(28), "{suite:?}, rate {rate}, {at}");
                    let other = Index(*at + (1 << 25));
                    assert_eq!(context.unprotect_rtp(packet, other, &mut out), Err(Fail::Auth));
                }
            }
        }
    }

    #[test]
    fn of_several_keys_the_mki_says_which() {
        for suite in Suite::ALL {
            let bytes = |fill: u8| vec![fill; suite.master_bytes()];
            let mki = |value: u8| Mki::new(&[0, value]).expect("fits");
            let all = [1, 2, 3].map(|fill| (context(suite, &bytes(fill)), mki(fill)));
            let mkis = all.each_ref().map(|(_, mki)| *mki);
            let octets = [bytes(1), bytes(2), bytes(3)].concat();
            let keyring = Keyring::from_parts(&octets, &mkis, 0).expect("three keys");
            let ours = Context::of(suite, &keyring).expect("its suite");
            let behind = |tag_bytes| if suite.is_aead() { 0 } else { tag_bytes };
            let (index, mut wire, mut out) = (Index::new(3, Seq(0x1234)), [0; 100], [0; 100]);
            for (place, (one, mki)) in all.iter().enumerate() {
                let bytes = one.protect_rtp(&unhex(RTP), index, &mut wire).expect("room");
                let rtp = |mki| with_mki(&wire[..bytes], mki, behind(suite.rtp_tag_bytes()));
                assert_eq!(ours.unprotect_rtp(&rtp(mki), index, &mut out), Ok(28), "{suite:?}");
                let another = rtp(&mkis[(place + 1) % 3]);
                assert_eq!(ours.unprotect_rtp(&another, index, &mut out), Err(Fail::Auth));
                let bytes = one.protect_rtcp(&unhex(RTCP), 5, &mut wire).expect("room");
                let rtcp = with_mki(&wire[..bytes], mki, behind(suite.rtcp_tag_bytes()));
                assert_eq!(ours.unprotect_rtcp(&rtcp, &mut out), Ok((24, 5)), "{suite:?}");
            }
        }
    }

    #[test]
    fn an_authentic_srtcp_packet_with_e_zero_is_refused_as_unencrypted() {
        let context = cm(Suite::AesCm128HmacSha1_80);
        let tail = "abababababababababababababababab00000001fe88c7fdfd37ebce615d";
        let wire = unhex(&format!("{}{tail}", &RTCP[..16]));
        assert_eq!(context.unprotect_rtcp(&wire, &mut [0; 100]), Err(Fail::Unencrypted));
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        for suite in Suite::ALL {
            for length in 1..=46 {
                let master = MasterKey::new(&vec![7; length]).expect("up to 46 octets");
                let fits = length == suite.master_bytes();
                assert_eq!(Context::new(suite, &master).is_ok(), fits, "{length} octets");
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for suite in all_agreed() {
            let context = any(suite);
            let index = Index::new(3, Seq(0x1234));
            let (mut wire, mut out) = ([0; 100], [0; 100]);
            let length = context.protect_rtp(&unhex(RTP), index, &mut wire).expect("room");
            for bit in 0..length * 8 {
                let mut bad = wire;
                bad[bit / 8] ^= 1 << (bit % 8);
                let found = context.unprotect_rtp(&bad[..length], index, &mut out);
                assert!(found.is_err(), "{suite:?}, SRTP bit {bit}");
            }
            let length = context.protect_rtcp(&unhex(RTCP), 77, &mut wire).expect("room");
            for bit in 0..length * 8 {
                let mut bad = wire;
                bad[bit / 8] ^= 1 << (bit % 8);
                let found = context.unprotect_rtcp(&bad[..length], &mut out);
                assert!(found.is_err(), "{suite:?}, SRTCP bit {bit}");
            }
        }
    }

    #[test]
    fn short_and_random_packets_are_refused_without_panic() {
        let mut prng = Prng::new(0x5eed_0006);
        for agreed in all_agreed() {
            let suite = agreed.suite();
            let mki = Mki::new(&[0]).expect("an octet");
            let marked = marked(agreed, mki);
            let context = any(agreed);
            let mut out = [0; 64];
            for round in 0..20_000 {
                let mut packet = [0; 64];
                prng.fill(&mut packet);
                if round % 2 == 0 {
                    packet[0] = 0x80 | packet[0] & 0x1f;
                }
                let packet = &packet[..round % 65];
                assert!(context.unprotect_rtp(packet, Index(9), &mut out).is_err());
                assert!(context.unprotect_rtcp(packet, &mut out).is_err());
                assert!(marked.unprotect_rtp(packet, Index(9), &mut out).is_err());
                assert!(marked.unprotect_rtcp(packet, &mut out).is_err());
            }
            let mut short = [0; 41];
            short[0] = 0x80;
            for length in 0..12 + suite.rtp_tag_bytes() {
                for context in [&context, &marked] {
                    let found = context.unprotect_rtp(&short[..length], Index(9), &mut out);
                    assert_eq!(found, Err(Fail::Malformed), "{agreed}, SRTP of {length}");
                }
            }
            for length in 0..12 + suite.rtcp_tag_bytes() {
                for context in [&context, &marked] {
                    let found = context.unprotect_rtcp(&short[..length], &mut out);
                    assert_eq!(found, Err(Fail::Malformed), "{agreed}, SRTCP of {length}");
                }
            }
        }
    }

    #[test]
    fn a_buffer_too_small_is_told_and_an_empty_payload_is_a_packet() {
        for suite in Suite::ALL {
            let context = any(suite.into());
            let (clear, mut wire, mut out) = (&unhex(RTP)[..12], [0; 64], [0; 64]);
            let index = Index::new(0, Seq(0x1234));
            let length = context.protect_rtp(clear, index, &mut wire).expect("room");
            assert_eq!(length, 12 + suite.rtp_tag_bytes());
            assert_eq!(context.unprotect_rtp(&wire[..length], index, &mut out), Ok(12));
            let found = context.unprotect_rtp(&wire[..length], index, &mut out[..11]);
            assert_eq!(found, Err(Fail::Room { wanted: 12, found: 11 }));
        }
    }
}
