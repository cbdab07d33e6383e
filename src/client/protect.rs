//! SRTP and SRTCP of the client role, by the engine `webrtc-srtp`. It is not the engine that the
//! recorder receives with, so each built-in call is also a test of the one against the other. What it
//! does not know (AES-192, f8, SRTP that is not encrypted) is left to the recorder's engine.
//!
//! The engine panics on short SRTCP and believes SRTCP whose E bit is 0, so [`Protector::open_rtcp`]
//! asks for length, SSRC and E bit before it lets the engine see a packet.

use bytes::Bytes;
use webrtc_srtp::context::Context;
use webrtc_srtp::option::{
    ContextOption, srtcp_no_replay_protection, srtcp_replay_protection, srtp_no_replay_protection,
    srtp_replay_protection,
};
use webrtc_srtp::protection_profile::ProtectionProfile;

use crate::base::ids::Index;
use crate::base::limits::REPLAY_WINDOW;
use crate::base::secret::MasterKey;
use crate::base::suite::{Agreed, Suite};
use crate::proto::srtp;
use crate::wire::rtp::Header;
use crate::wire::seq;

/// Octets of the longest tag.
const TAG_BYTES_MAX: usize = 16;

/// Why a context could not be made or a packet not be protected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtectError {
    /// A key of another length.
    #[error("expected {expected} octets of key and salt for {suite}, found {found}")]
    KeyLength {
        /// The suite.
        suite: &'static str,
        /// Octets it needs.
        expected: usize,
        /// Octets given.
        found: usize,
    },
    /// The engine refused.
    #[error("srtp engine: {0}")]
    Engine(String),
}

/// The two directions of one m-line: what we send under our key, what the SRS sends (SRTCP only,
/// RFC 4568 §5.1.2) under its own.
pub struct Protector {
    agreed: Agreed,
    engine: Engine,
}

/// Who does the work.
#[expect(clippy::large_enum_variant, reason = "nearly every one is the large one")]
enum Engine {
    /// The foreign engine.
    Foreign { sending: Context, receiving: Option<Context> },
    /// The recorder's own, for what the foreign one does not know.
    Own(Box<Own>),
}

/// Contexts of the recorder's engine and the indexes that it leaves to its user.
struct Own {
    sending: srtp::Context,
    receiving: Option<srtp::Context>,
    /// Of the last RTP packet sent.
    highest: Option<Index>,
    /// Of the last RTCP packet sent; the first has 1, as with the foreign engine.
    rtcp_sent: u32,
    /// Of the last RTCP packet received; an older one is late, and nothing is lost with it.
    rtcp_received: Option<u32>,
}

impl Protector {
    /// Derives both contexts. `theirs` is the key of the answer.
    pub fn new(
        agreed: impl Into<Agreed>,
        ours: &MasterKey,
        theirs: Option<&MasterKey>,
    ) -> Result<Self, ProtectError> {
        let agreed = agreed.into();
        let suite = agreed.suite();
        for key in std::iter::once(ours).chain(theirs) {
            let (expected, found) = (suite.master_bytes(), key.expose().len());
            if expected != found {
                return Err(ProtectError::KeyLength { suite: suite.name(), expected, found });
            }
        }
        let encrypts = !(agreed.rtp_in_clear() || agreed.rtcp_in_clear());
        let engine = match profile(suite).filter(|_| encrypts) {
            Some(profile) => Engine::foreign(suite, profile, ours, theirs)?,
            None => {
                let context = |key: &MasterKey| srtp::Context::new(agreed, key);
                let fits = "the length was asked for above";
                Engine::Own(Box::new(Own {
                    sending: context(ours).expect(fits),
                    receiving: theirs.map(|key| context(key).expect(fits)),
                    highest: None,
                    rtcp_sent: 0,
                    rtcp_received: None,
                }))
            }
        };
        Ok(Protector { agreed, engine })
    }

    /// A whole RTP packet as SRTP.
    pub fn seal_rtp(&mut self, packet: &[u8]) -> Result<Bytes, ProtectError> {
        match &mut self.engine {
            Engine::Foreign { sending, .. } => sending.encrypt_rtp(packet).map_err(engine),
            Engine::Own(own) => own.seal_rtp(packet),
        }
    }

    /// A whole compound RTCP packet as SRTCP.
    pub fn seal_rtcp(&mut self, packet: &[u8]) -> Result<Bytes, ProtectError> {
        match &mut self.engine {
            Engine::Foreign { sending, .. } => sending.encrypt_rtcp(packet).map_err(engine),
            Engine::Own(own) => own.seal_rtcp(packet),
        }
    }

    /// The compound packet inside an SRTCP packet of the SRS; `None` for anything that is not
    /// whole, encrypted unless agreed otherwise, and authentic. `peer`: the only SSRC let in, once one is known; the engine
    /// keeps state for each it sees.
    pub fn open_rtcp(&mut self, packet: &[u8], peer: Option<u32>) -> Option<Bytes> {
        let suite = self.agreed.suite();
        let tag_bytes = suite.rtcp_tag_bytes();
        // RFC 3711 §3.4: 8 octets of header, E flag and index (4), and the tag; for AEAD the tag
        // stands before the index (RFC 7714 §9.2).
        let index_at = if suite.is_aead() {
            packet.len().checked_sub(4)?
        } else {
            packet.len().checked_sub(4 + tag_bytes)?
        };
        if packet.len() < 12 + tag_bytes {
            return None;
        }
        if packet[index_at] & 0x80 == 0 && !self.agreed.rtcp_in_clear() {
            return None;
        }
        let ssrc = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        if peer.is_some_and(|peer| peer != ssrc) {
            return None;
        }
        match &mut self.engine {
            Engine::Foreign { receiving, .. } => receiving.as_mut()?.decrypt_rtcp(packet).ok(),
            Engine::Own(own) => own.open_rtcp(packet),
        }
    }
}

impl Engine {
    fn foreign(
        suite: Suite,
        profile: ProtectionProfile,
        ours: &MasterKey,
        theirs: Option<&MasterKey>,
    ) -> Result<Self, ProtectError> {
        let context = |key: &MasterKey, rtp: ContextOption, rtcp: ContextOption| {
            let (key, salt) = key.expose().split_at(suite.key_bytes());
            Context::new(key, salt, profile, Some(rtp), Some(rtcp)).map_err(engine)
        };
        // The engine makes a replay window for each packet that it looks up, also of those it seals:
        // none for these.
        let sending = context(ours, srtp_no_replay_protection(), srtcp_no_replay_protection())?;
        let window = REPLAY_WINDOW as usize;
        // Said aloud because the engine's default is no replay protection at all.
        let receiving = theirs.map(|key| {
            context(key, srtp_replay_protection(window), srtcp_replay_protection(window))
        });
        Ok(Engine::Foreign { sending, receiving: receiving.transpose()? })
    }
}

impl Own {
    fn seal_rtp(&mut self, packet: &[u8]) -> Result<Bytes, ProtectError> {
        let header = Header::parse(packet).map_err(|error| own(&error))?;
        let seq = header.seq();
        // Sent in order, so the nearest one is the next one.
        let index = seq::estimate(self.highest, seq).unwrap_or(Index::new(0, seq));
        self.highest = Some(index);
        let mut wire = vec![0; packet.len() + TAG_BYTES_MAX];
        let bytes =
            self.sending.protect_rtp(packet, index, &mut wire).map_err(|error| own(&error))?;
        wire.truncate(bytes);
        Ok(wire.into())
    }

    fn seal_rtcp(&mut self, packet: &[u8]) -> Result<Bytes, ProtectError> {
        self.rtcp_sent += 1;
        let mut wire = vec![0; packet.len() + 4 + TAG_BYTES_MAX];
        let bytes = self
            .sending
            .protect_rtcp(packet, self.rtcp_sent, &mut wire)
            .map_err(|error| own(&error))?;
        wire.truncate(bytes);
        Ok(wire.into())
    }

    fn open_rtcp(&mut self, packet: &[u8]) -> Option<Bytes> {
        let mut out = vec![0; packet.len()];
        let (bytes, index) = self.receiving.as_ref()?.unprotect_rtcp(packet, &mut out).ok()?;
        if self.rtcp_received.is_some_and(|last| index <= last) {
            return None;
        }
        self.rtcp_received = Some(index);
        out.truncate(bytes);
        Some(out.into())
    }
}

/// The foreign engine's name of a suite, if it knows it.
fn profile(suite: Suite) -> Option<ProtectionProfile> {
    match suite {
        Suite::AesCm128HmacSha1_80 => Some(ProtectionProfile::Aes128CmHmacSha1_80),
        Suite::AesCm128HmacSha1_32 => Some(ProtectionProfile::Aes128CmHmacSha1_32),
        Suite::Aes256CmHmacSha1_80 => Some(ProtectionProfile::Aes256CmHmacSha1_80),
        Suite::Aes256CmHmacSha1_32 => Some(ProtectionProfile::Aes256CmHmacSha1_32),
        Suite::AeadAes128Gcm => Some(ProtectionProfile::AeadAes128Gcm),
        Suite::AeadAes256Gcm => Some(ProtectionProfile::AeadAes256Gcm),
        Suite::Aes192CmHmacSha1_80 | Suite::Aes192CmHmacSha1_32 | Suite::F8_128HmacSha1_80 => None,
    }
}

fn own(error: &dyn std::fmt::Display) -> ProtectError {
    ProtectError::Engine(error.to_string())
}

fn engine(error: webrtc_srtp::Error) -> ProtectError {
    ProtectError::Engine(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    fn key(suite: Suite, fill: u8) -> MasterKey {
        MasterKey::new(&vec![fill; suite.master_bytes()]).expect("a suite's own length")
    }

    /// Receiver report without blocks, from SSRC 7.
    const RR: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 7];

    #[test]
    fn the_peers_srtcp_opens_and_nothing_else_does() {
        for suite in Suite::ALL {
            let mut srs = Protector::new(suite, &key(suite, 2), None).expect("right length");
            let mut src =
                Protector::new(suite, &key(suite, 1), Some(&key(suite, 2))).expect("right length");
            let mut compound = RR.to_vec();
            compound.extend([0x81, 202, 0, 2, 0, 0, 0, 7, 1, 1, b'x', 0]);
            let sealed = srs.seal_rtcp(&compound).expect("whole packet");
            let mut forged = sealed.to_vec();
            forged[9] ^= 1;
            assert_eq!(src.open_rtcp(&forged, None), None, "{suite:?}");
            assert_eq!(src.open_rtcp(&sealed, Some(8)), None, "{suite:?}");
            assert_eq!(src.open_rtcp(&sealed, Some(7)).as_deref(), Some(&compound[..]));
            assert_eq!(src.open_rtcp(&sealed, Some(7)), None, "replayed");
        }
    }

    #[test]
    fn short_and_unencrypted_srtcp_never_reaches_the_engine() {
        let suite = Suite::AesCm128HmacSha1_80;
        let mut src =
            Protector::new(suite, &key(suite, 1), Some(&key(suite, 2))).expect("right length");
        let mut prng = Prng::new(3);
        for length in 0..64 {
            let mut bytes = vec![0; length];
            prng.fill(&mut bytes);
            assert_eq!(src.open_rtcp(&bytes, None), None);
        }
        // E = 0 with a tag of zeros: what the engine alone would take for good.
        let mut clear = RR.to_vec();
        clear.extend([0; 14]);
        assert_eq!(src.open_rtcp(&clear, None), None);
    }

    #[test]
    fn media_opens_over_a_roll_over_with_every_suite() {
        for suite in Suite::ALL {
            let mut src = Protector::new(suite, &key(suite, 1), None).expect("right length");
            let srs = srtp::Context::new(suite, &key(suite, 1)).expect("right length");
            let mut out = [0; 64];
            for index in 65_530..65_600 {
                let at = Index(index);
                let mut packet = [0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7, 9, 9];
                packet[2..4].copy_from_slice(&at.seq().0.to_be_bytes());
                let wire = src.seal_rtp(&packet).expect("whole packet");
                let length = srs.unprotect_rtp(&wire, at, &mut out).expect("its tag is good");
                assert_eq!(out[..length], packet, "{suite:?}, {index}");
            }
        }
    }

    #[test]
    fn what_is_not_encrypted_by_agreement_is_readable_and_authenticated() {
        let suite = Suite::AesCm128HmacSha1_80;
        for (rtp, rtcp) in [(true, false), (false, true), (true, true)] {
            let agreed = Agreed::from(suite).in_clear(rtp, rtcp).expect("no AEAD");
            let (ours, theirs) = (key(suite, 1), key(suite, 2));
            let mut src = Protector::new(agreed, &ours, Some(&theirs)).expect("right lengths");
            let mut srs = Protector::new(agreed, &theirs, Some(&ours)).expect("right lengths");
            let packet = [&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0x55; 160]].concat();
            let wire = src.seal_rtp(&packet).expect("in order");
            assert_eq!((wire.starts_with(&packet), wire.len()), (rtp, packet.len() + 10));
            let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
            let wire = srs.seal_rtcp(&report).expect("in order");
            assert_eq!(src.open_rtcp(&wire, None).as_deref(), Some(&report[..]));
            let mut forged = wire.to_vec();
            forged[5] ^= 1;
            assert_eq!(src.open_rtcp(&forged, None), None);
        }
    }

    #[test]
    fn a_key_of_another_suite_is_refused() {
        let wrong = key(Suite::AeadAes128Gcm, 1);
        let made = Protector::new(Suite::AesCm128HmacSha1_80, &wrong, None);
        assert!(matches!(made, Err(ProtectError::KeyLength { expected: 30, found: 28, .. })));
    }
}
