//! One master key: protects and unprotects SRTP and SRTCP packets.
//!
//! ```text
//! AES-CM  SRTP   header ‖ {payload}          ‖ tag (10 or 4)       tag covers all before it ‖ ROC
//!         SRTCP  8 octets ‖ {rest} ‖ E+index ‖ tag (10)            tag covers all before it
//! GCM     SRTP   header ‖ {payload ‖ tag}                          AAD: header
//!         SRTCP  8 octets ‖ {rest ‖ tag} ‖ E+index                 AAD: 8 octets ‖ E+index
//! ```

use super::cm::Cm;
use super::derive::Prf;
use super::fail::{Fail, KeyError};
use super::gcm::Gcm;
use crate::base::ids::{Index, Ssrc};
use crate::base::secret::MasterKey;
use crate::base::suite::Suite;
use crate::wire::rtp::Header;

/// The largest SRTCP index: 31 bits.
pub const SRTCP_INDEX_MAX: u32 = (1 << 31) - 1;
/// Octets of an RTCP packet that stay in the clear: its first header and the sender's SSRC.
const RTCP_CLEAR_BYTES: usize = 8;
/// Octets of the E bit and the SRTCP index.
const RTCP_INDEX_BYTES: usize = 4;
/// The E bit: this SRTCP packet is encrypted.
const E_BIT: u32 = 1 << 31;

/// One master key's session keys for SRTP and SRTCP. Nothing in it changes, so workers may share
/// it; no `Debug`, wiped on drop.
pub struct Context {
    suite: Suite,
    keys: Keys,
}

/// The session keys by family. Boxed: a context is made once and moved about.
enum Keys {
    Cm { rtp: Box<Cm>, rtcp: Box<Cm> },
    Gcm { rtp: Box<Gcm>, rtcp: Box<Gcm> },
}

impl Context {
    /// Derives the session keys (RFC 3711 §4.3). Fails where `master` is not key ‖ salt of exactly
    /// the suite's length.
    pub fn new(suite: Suite, master: &MasterKey) -> Result<Self, KeyError> {
        let (wanted, found) = (suite.master_bytes(), master.expose().len());
        if wanted != found {
            return Err(KeyError { suite, wanted, found });
        }
        let (key, salt) = master.expose().split_at(suite.key_bytes());
        let prf = Prf::new(key, salt);
        let keys = if suite.is_aead() {
            Keys::Gcm {
                rtp: Box::new(Gcm::rtp(&prf, key.len())),
                rtcp: Box::new(Gcm::rtcp(&prf, key.len())),
            }
        } else {
            Keys::Cm { rtp: Box::new(Cm::rtp(&prf)), rtcp: Box::new(Cm::rtcp(&prf)) }
        };
        Ok(Context { suite, keys })
    }

    /// The suite.
    pub fn suite(&self) -> Suite {
        self.suite
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
        let tag_bytes = self.suite.rtp_tag_bytes();
        let Some(clear_bytes) = packet.len().checked_sub(tag_bytes) else {
            return Err(Fail::Malformed);
        };
        if clear_bytes < header_bytes {
            return Err(Fail::Malformed);
        }
        let out = room(out, clear_bytes)?;
        let (ssrc, index) = (header.ssrc(), Index::new(index.roc(), header.seq()));
        match &self.keys {
            Keys::Cm { rtp, .. } => {
                let (message, tag) = packet.split_at(clear_bytes);
                rtp.verify(message, &index.roc().to_be_bytes(), tag)?;
                rtp.crypt(ssrc, index.0, &message[header_bytes..], &mut out[header_bytes..]);
            }
            Keys::Gcm { rtp, .. } => {
                let (aad, input) = packet.split_at(header_bytes);
                rtp.open(ssrc, index.0, aad, input, &mut out[header_bytes..])?;
            }
        }
        out[..header_bytes].copy_from_slice(&packet[..header_bytes]);
        Ok(clear_bytes)
    }

    /// Authenticates the SRTCP packet `packet` and decrypts it to `out`.
    ///
    /// Returns the octets written and the packet's SRTCP index, whose replay check is the caller's.
    /// A packet with E = 0 is refused whatever its tag says: nothing was agreed that allows it.
    ///
    /// RFC 3711 §3.4, RFC 7714 §9.
    pub fn unprotect_rtcp(&self, packet: &[u8], out: &mut [u8]) -> Result<(usize, u32), Fail> {
        let overhead = RTCP_INDEX_BYTES + self.suite.rtcp_tag_bytes();
        if packet.len() < RTCP_CLEAR_BYTES + overhead || packet[0] >> 6 != 2 {
            return Err(Fail::Malformed);
        }
        let clear_bytes = packet.len() - overhead;
        let out = room(out, clear_bytes)?;
        let ssrc = rtcp_ssrc(packet);
        let (head, body) = packet.split_at(RTCP_CLEAR_BYTES);
        let index = match &self.keys {
            Keys::Cm { rtcp, .. } => {
                let (message, tag) = packet.split_at(clear_bytes + RTCP_INDEX_BYTES);
                let index = encrypted_index(&message[clear_bytes..])?;
                rtcp.verify(message, &[], tag)?;
                let cipher_text = &message[RTCP_CLEAR_BYTES..clear_bytes];
                rtcp.crypt(ssrc, index.into(), cipher_text, &mut out[RTCP_CLEAR_BYTES..]);
                index
            }
            Keys::Gcm { rtcp, .. } => {
                let (input, trailer) = body.split_at(body.len() - RTCP_INDEX_BYTES);
                let index = encrypted_index(trailer)?;
                let aad = rtcp_aad(head, index | E_BIT);
                rtcp.open(ssrc, index.into(), &aad, input, &mut out[RTCP_CLEAR_BYTES..])?;
                index
            }
        };
        out[..RTCP_CLEAR_BYTES].copy_from_slice(head);
        Ok((clear_bytes, index))
    }

    /// Encrypts and authenticates the RTP packet `packet` to `out`. Returns the octets written:
    /// those of the packet and the tag.
    ///
    /// The caller answers for (SSRC, index) never being used twice under this key.
    pub fn protect_rtp(&self, packet: &[u8], index: Index, out: &mut [u8]) -> Result<usize, Fail> {
        let header = Header::parse(packet).map_err(|_| Fail::Malformed)?;
        let header_bytes = header.header_bytes();
        let clear_bytes = packet.len();
        let total = clear_bytes + self.suite.rtp_tag_bytes();
        let out = room(out, total)?;
        let (ssrc, index) = (header.ssrc(), Index::new(index.roc(), header.seq()));
        match &self.keys {
            Keys::Cm { rtp, .. } => {
                out[..header_bytes].copy_from_slice(&packet[..header_bytes]);
                let (message, tag) = out.split_at_mut(clear_bytes);
                rtp.crypt(ssrc, index.0, &packet[header_bytes..], &mut message[header_bytes..]);
                let mac = rtp.tag(message, &index.roc().to_be_bytes());
                tag.copy_from_slice(&mac[..tag.len()]);
            }
            Keys::Gcm { rtp, .. } => {
                out[..clear_bytes].copy_from_slice(packet);
                let (message, tag) = out.split_at_mut(clear_bytes);
                let (aad, payload) = message.split_at_mut(header_bytes);
                tag.copy_from_slice(&rtp.seal(ssrc, index.0, aad, payload));
            }
        }
        Ok(total)
    }

    /// Encrypts and authenticates the compound RTCP packet `packet` to `out`, with E = 1. Returns
    /// the octets written.
    ///
    /// `index`: at most [`SRTCP_INDEX_MAX`], never used twice with this SSRC and key; a repeated one
    /// is a repeated nonce.
    pub fn protect_rtcp(&self, packet: &[u8], index: u32, out: &mut [u8]) -> Result<usize, Fail> {
        assert!(index <= SRTCP_INDEX_MAX, "an srtcp index has 31 bits");
        let clear_bytes = packet.len();
        if clear_bytes < RTCP_CLEAR_BYTES {
            return Err(Fail::Malformed);
        }
        let total = clear_bytes + RTCP_INDEX_BYTES + self.suite.rtcp_tag_bytes();
        let out = room(out, total)?;
        let ssrc = rtcp_ssrc(packet);
        let trailer = index | E_BIT;
        out[..clear_bytes].copy_from_slice(packet);
        match &self.keys {
            Keys::Cm { rtcp, .. } => {
                let (input, cipher_text) =
                    (&packet[RTCP_CLEAR_BYTES..], &mut out[RTCP_CLEAR_BYTES..clear_bytes]);
                rtcp.crypt(ssrc, index.into(), input, cipher_text);
                let (message, tag) = out.split_at_mut(clear_bytes + RTCP_INDEX_BYTES);
                message[clear_bytes..].copy_from_slice(&trailer.to_be_bytes());
                let mac = rtcp.tag(message, &[]);
                tag.copy_from_slice(&mac[..tag.len()]);
            }
            Keys::Gcm { rtcp, .. } => {
                let (message, rest) = out.split_at_mut(clear_bytes);
                let (tag, index_out) = rest.split_at_mut(self.suite.rtcp_tag_bytes());
                let (head, body) = message.split_at_mut(RTCP_CLEAR_BYTES);
                tag.copy_from_slice(&rtcp.seal(ssrc, index.into(), &rtcp_aad(head, trailer), body));
                index_out.copy_from_slice(&trailer.to_be_bytes());
            }
        }
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

/// The SRTCP index of a trailer whose E bit is set.
fn encrypted_index(trailer: &[u8]) -> Result<u32, Fail> {
    let word = u32::from_be_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]);
    if word & E_BIT == 0 { Err(Fail::Unencrypted) } else { Ok(word & !E_BIT) }
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
    use crate::base::prng::Prng;

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
        (0..text.len()).step_by(2).map(digit).collect()
    }

    fn context(suite: Suite, key_and_salt: &[u8]) -> Context {
        let master = MasterKey::new(key_and_salt).expect("a key of some suite");
        Context::new(suite, &master).expect("a key of this suite")
    }

    /// A key that is only a pattern, for suites whose vectors do not matter.
    fn any(suite: Suite) -> Context {
        let bytes: Vec<u8> = (1..=suite.master_bytes() as u8).collect();
        context(suite, &bytes)
    }

    fn cm(suite: Suite) -> Context {
        context(suite, &unhex("e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6"))
    }

    fn gcm(suite: Suite) -> Context {
        let key = (0..suite.key_bytes() as u8).chain(0xa0..0xac).collect::<Vec<_>>();
        context(suite, &key)
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
        for suite in Suite::ALL {
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
        for suite in Suite::ALL {
            let context = any(suite);
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
            }
            let mut short = [0; 41];
            short[0] = 0x80;
            for length in 0..12 + suite.rtp_tag_bytes() {
                let found = context.unprotect_rtp(&short[..length], Index(9), &mut out);
                assert_eq!(found, Err(Fail::Malformed), "{suite:?}, SRTP of {length}");
            }
            for length in 0..12 + suite.rtcp_tag_bytes() {
                let found = context.unprotect_rtcp(&short[..length], &mut out);
                assert_eq!(found, Err(Fail::Malformed), "{suite:?}, SRTCP of {length}");
            }
        }
    }

    #[test]
    fn a_buffer_too_small_is_told_and_an_empty_payload_is_a_packet() {
        for suite in Suite::ALL {
            let context = any(suite);
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
