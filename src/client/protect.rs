//! SRTP and SRTCP of the client role, by the engine `webrtc-srtp`. It is not the engine that the
//! recorder receives with, so each built-in call is also a test of the one against the other.
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

use crate::base::limits::REPLAY_WINDOW;
use crate::base::secret::MasterKey;
use crate::base::suite::Suite;

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
    suite: Suite,
    sending: Context,
    receiving: Option<Context>,
}

impl Protector {
    /// Derives both contexts. `theirs` is the key of the answer.
    pub fn new(
        suite: Suite,
        ours: &MasterKey,
        theirs: Option<&MasterKey>,
    ) -> Result<Self, ProtectError> {
        // The engine makes a replay window for each packet that it looks up, also of those it seals:
        // none for these.
        let sending =
            context(suite, ours, srtp_no_replay_protection(), srtcp_no_replay_protection())?;
        let window = REPLAY_WINDOW as usize;
        let receiving = theirs.map(|key| {
            // Said aloud because the engine's default is no replay protection at all.
            let rtp = srtp_replay_protection(window);
            context(suite, key, rtp, srtcp_replay_protection(window))
        });
        Ok(Protector { suite, sending, receiving: receiving.transpose()? })
    }

    /// A whole RTP packet as SRTP.
    pub fn seal_rtp(&mut self, packet: &[u8]) -> Result<Bytes, ProtectError> {
        self.sending.encrypt_rtp(packet).map_err(engine)
    }

    /// A whole compound RTCP packet as SRTCP.
    pub fn seal_rtcp(&mut self, packet: &[u8]) -> Result<Bytes, ProtectError> {
        self.sending.encrypt_rtcp(packet).map_err(engine)
    }

    /// The compound packet inside an SRTCP packet of the SRS; `None` for anything that is not
    /// whole, encrypted and authentic. `peer`: the only SSRC let in, once one is known; the engine
    /// keeps state for each it sees.
    pub fn open_rtcp(&mut self, packet: &[u8], peer: Option<u32>) -> Option<Bytes> {
        let context = self.receiving.as_mut()?;
        let tag_bytes = self.suite.rtcp_tag_bytes();
        // RFC 3711 §3.4: 8 octets of header, E flag and index (4), and the tag; for AEAD the tag
        // stands before the index (RFC 7714 §9.2).
        let index_at = if self.suite.is_aead() {
            packet.len().checked_sub(4)?
        } else {
            packet.len().checked_sub(4 + tag_bytes)?
        };
        if packet.len() < 12 + tag_bytes || packet[index_at] & 0x80 == 0 {
            return None;
        }
        let ssrc = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        if peer.is_some_and(|peer| peer != ssrc) {
            return None;
        }
        context.decrypt_rtcp(packet).ok()
    }
}

fn context(
    suite: Suite,
    key: &MasterKey,
    rtp: ContextOption,
    rtcp: ContextOption,
) -> Result<Context, ProtectError> {
    let bytes = key.expose();
    if bytes.len() != suite.master_bytes() {
        return Err(ProtectError::KeyLength {
            suite: suite.name(),
            expected: suite.master_bytes(),
            found: bytes.len(),
        });
    }
    let (key, salt) = bytes.split_at(suite.key_bytes());
    let profile = match suite {
        Suite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Suite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
        Suite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Suite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
    };
    Context::new(key, salt, profile, Some(rtp), Some(rtcp)).map_err(engine)
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
    fn a_key_of_another_suite_is_refused() {
        let wrong = key(Suite::AeadAes128Gcm, 1);
        let made = Protector::new(Suite::AesCm128HmacSha1_80, &wrong, None);
        assert!(matches!(made, Err(ProtectError::KeyLength { expected: 30, found: 28, .. })));
    }
}
