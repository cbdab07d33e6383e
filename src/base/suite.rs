//! The SRTP crypto suites and their sizes (RFC 4568 §6.2, RFC 6188 §7, RFC 7714 §12).

use serde::{Deserialize, Serialize};

/// A crypto suite. The number is what shared state and records store; it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[repr(u8)]
pub enum Suite {
    /// `AES_CM_128_HMAC_SHA1_80`
    AesCm128HmacSha1_80 = 1,
    /// `AES_CM_128_HMAC_SHA1_32`
    AesCm128HmacSha1_32 = 2,
    /// `AEAD_AES_128_GCM`
    AeadAes128Gcm = 7,
    /// `AEAD_AES_256_GCM`
    AeadAes256Gcm = 8,
}

impl Suite {
    /// All suites, in the order in which we would offer them (strongest first, `_32` last).
    pub const ALL: [Suite; 4] = [
        Suite::AeadAes256Gcm,
        Suite::AeadAes128Gcm,
        Suite::AesCm128HmacSha1_80,
        Suite::AesCm128HmacSha1_32,
    ];

    /// The SDES name. Compared with case (RFC 4568 §9.2).
    pub const fn name(self) -> &'static str {
        match self {
            Suite::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Suite::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Suite::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Suite::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// The suite of that SDES name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }

    /// The suite stored as that number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| *suite as u8 == code)
    }

    /// Octets of the master key.
    pub const fn key_bytes(self) -> usize {
        if matches!(self, Suite::AeadAes256Gcm) { 32 } else { 16 }
    }

    /// Octets of the master salt.
    pub const fn salt_bytes(self) -> usize {
        if self.is_aead() { 12 } else { 14 }
    }

    /// Octets of key ‖ salt in an `inline:` value.
    pub const fn master_bytes(self) -> usize {
        self.key_bytes() + self.salt_bytes()
    }

    /// Octets by which the authentication tag lengthens an SRTP packet.
    pub const fn rtp_tag_bytes(self) -> usize {
        match self {
            Suite::AesCm128HmacSha1_80 => 10,
            Suite::AesCm128HmacSha1_32 => 4,
            Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => 16,
        }
    }

    /// Octets of the SRTCP tag: 80 bits even for the `_32` suite (RFC 4568 §6.2.2).
    pub const fn rtcp_tag_bytes(self) -> usize {
        if self.is_aead() { 16 } else { 10 }
    }

    /// Whether one operation both authenticates and decrypts.
    pub const fn is_aead(self) -> bool {
        matches!(self, Suite::AeadAes128Gcm | Suite::AeadAes256Gcm)
    }
}

/// Some of the suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suites(u16);

impl Suites {
    /// Whether it is one of them.
    pub const fn contains(self, suite: Suite) -> bool {
        self.0 & 1 << suite as u8 != 0
    }
}

/// All.
impl Default for Suites {
    fn default() -> Self {
        Suite::ALL.into_iter().collect()
    }
}

impl FromIterator<Suite> for Suites {
    fn from_iter<T: IntoIterator<Item = Suite>>(suites: T) -> Self {
        Suites(suites.into_iter().fold(0, |bits, suite| bits | 1 << suite as u8))
    }
}

impl From<Suite> for String {
    fn from(suite: Suite) -> Self {
        suite.name().to_owned()
    }
}

impl TryFrom<String> for Suite {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        let names = || Suite::ALL.map(Suite::name).join(", ");
        Suite::from_name(&name)
            .ok_or_else(|| format!("unknown crypto suite {name}, expected one of {}", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_round_trip_and_sizes_follow_the_rfcs() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_name(suite.name()), Some(suite));
            assert_eq!(Suite::from_code(suite as u8), Some(suite));
        }
        assert_eq!(Suite::AesCm128HmacSha1_32.master_bytes(), 30);
        assert_eq!(Suite::AeadAes128Gcm.master_bytes(), 28);
        assert_eq!(Suite::AeadAes256Gcm.master_bytes(), 44);
        let one = Suites::from_iter([Suite::AeadAes256Gcm]);
        assert!(Suite::ALL.into_iter().all(|suite| Suites::default().contains(suite)));
        assert!(one.contains(Suite::AeadAes256Gcm) && !one.contains(Suite::AeadAes128Gcm));
        assert_eq!(Suite::from_name("aes_cm_128_hmac_sha1_80"), None);
    }
}
