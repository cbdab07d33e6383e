//! The SRTP crypto suites and their sizes (RFC 4568 §6.2, RFC 6188 §4, RFC 7714 §12), and what two
//! sides agree on besides.

use serde::{Deserialize, Serialize};

/// A crypto suite. The number is what shared state and records store; it never changes and is below 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[repr(u8)]
pub enum Suite {
    /// `AES_CM_128_HMAC_SHA1_80`
    AesCm128HmacSha1_80 = 1,
    /// `AES_CM_128_HMAC_SHA1_32`
    AesCm128HmacSha1_32 = 2,
    /// `F8_128_HMAC_SHA1_80`
    F8_128HmacSha1_80 = 3,
    /// `AEAD_AES_128_GCM`
    AeadAes128Gcm = 7,
    /// `AEAD_AES_256_GCM`
    AeadAes256Gcm = 8,
    /// `AES_192_CM_HMAC_SHA1_80`
    Aes192CmHmacSha1_80 = 9,
    /// `AES_192_CM_HMAC_SHA1_32`
    Aes192CmHmacSha1_32 = 10,
    /// `AES_256_CM_HMAC_SHA1_80`
    Aes256CmHmacSha1_80 = 11,
    /// `AES_256_CM_HMAC_SHA1_32`
    Aes256CmHmacSha1_32 = 12,
}

impl Suite {
    /// All suites: those that are taken unless something else is said, then the others.
    pub const ALL: [Suite; 9] = [
        Suite::AeadAes256Gcm,
        Suite::AeadAes128Gcm,
        Suite::Aes256CmHmacSha1_80,
        Suite::Aes192CmHmacSha1_80,
        Suite::AesCm128HmacSha1_80,
        Suite::Aes256CmHmacSha1_32,
        Suite::Aes192CmHmacSha1_32,
        Suite::AesCm128HmacSha1_32,
        Suite::F8_128HmacSha1_80,
    ];

    /// Those that are taken unless something else is said, in the order in which we would offer them
    /// (strongest first, `_32` last). Not f8: hardly anybody has it, so hardly anybody has tested it.
    pub const USUAL: &'static [Suite] = Suite::ALL.split_at(8).0;

    /// The SDES name. Compared with case (RFC 4568 §9.2).
    pub const fn name(self) -> &'static str {
        match self {
            Suite::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Suite::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Suite::F8_128HmacSha1_80 => "F8_128_HMAC_SHA1_80",
            Suite::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Suite::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Suite::Aes192CmHmacSha1_80 => "AES_192_CM_HMAC_SHA1_80",
            Suite::Aes192CmHmacSha1_32 => "AES_192_CM_HMAC_SHA1_32",
            Suite::Aes256CmHmacSha1_80 => "AES_256_CM_HMAC_SHA1_80",
            Suite::Aes256CmHmacSha1_32 => "AES_256_CM_HMAC_SHA1_32",
        }
    }

    /// The name that a draft of RFC 6188 gave the suite and some SRCs still do.
    const fn draft_name(self) -> Option<&'static str> {
        match self {
            Suite::Aes256CmHmacSha1_80 => Some("AES_CM_256_HMAC_SHA1_80"),
            Suite::Aes256CmHmacSha1_32 => Some("AES_CM_256_HMAC_SHA1_32"),
            _ => None,
        }
    }

    /// The suite of that SDES name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }

    /// Octets of the master key.
    pub const fn key_bytes(self) -> usize {
        match self {
            Suite::AesCm128HmacSha1_80
            | Suite::AesCm128HmacSha1_32
            | Suite::F8_128HmacSha1_80
            | Suite::AeadAes128Gcm => 16,
            Suite::Aes192CmHmacSha1_80 | Suite::Aes192CmHmacSha1_32 => 24,
            Suite::AeadAes256Gcm | Suite::Aes256CmHmacSha1_80 | Suite::Aes256CmHmacSha1_32 => 32,
        }
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
            Suite::AesCm128HmacSha1_80
            | Suite::F8_128HmacSha1_80
            | Suite::Aes192CmHmacSha1_80
            | Suite::Aes256CmHmacSha1_80 => 10,
            Suite::AesCm128HmacSha1_32
            | Suite::Aes192CmHmacSha1_32
            | Suite::Aes256CmHmacSha1_32 => 4,
            Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => 16,
        }
    }

    /// Octets of the SRTCP tag: 80 bits even for the `_32` suites (RFC 4568 §6.2.2).
    pub const fn rtcp_tag_bytes(self) -> usize {
        if self.is_aead() { 16 } else { 10 }
    }

    /// Whether one operation both authenticates and decrypts.
    pub const fn is_aead(self) -> bool {
        matches!(self, Suite::AeadAes128Gcm | Suite::AeadAes256Gcm)
    }
}

/// A suite as both sides of a line have agreed on it: with the spelling of the offer, which the answer
/// repeats, and with what of it is not used (RFC 4568 §6.3.2). As text it is what a crypto line says:
/// `AES_CM_128_HMAC_SHA1_80 UNENCRYPTED_SRTCP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Agreed {
    suite: Suite,
    draft_name: bool,
    rtp_in_clear: bool,
    rtcp_in_clear: bool,
}

/// Flag of a stored number: the draft's name.
const DRAFT_NAME: u8 = 0x20;
/// Flag of a stored number: SRTP is authenticated, not encrypted.
const RTP_IN_CLEAR: u8 = 0x40;
/// Flag of a stored number: SRTCP is authenticated, not encrypted.
const RTCP_IN_CLEAR: u8 = 0x80;
/// Session parameters, as crypto lines have them.
const UNENCRYPTED_SRTP: &str = "UNENCRYPTED_SRTP";
const UNENCRYPTED_SRTCP: &str = "UNENCRYPTED_SRTCP";

impl Agreed {
    /// The suite that a crypto line names.
    pub fn from_name(name: &str) -> Option<Self> {
        let draft = |suite: &Suite| suite.draft_name() == Some(name);
        match Suite::from_name(name) {
            Some(suite) => Some(suite.into()),
            None => {
                let suite = Suite::ALL.into_iter().find(draft)?;
                Some(Agreed { draft_name: true, ..suite.into() })
            }
        }
    }

    /// The same where SRTP or SRTCP is authenticated only. `None` for SRTP in the clear under a suite
    /// that encrypts every packet (RFC 7714 §8.2).
    pub fn in_clear(self, rtp: bool, rtcp: bool) -> Option<Self> {
        let can = !(rtp && self.suite.is_aead());
        can.then_some(Agreed { rtp_in_clear: rtp, rtcp_in_clear: rtcp, ..self })
    }

    /// The suite.
    pub const fn suite(self) -> Suite {
        self.suite
    }

    /// `UNENCRYPTED_SRTP`: the payload of SRTP is not encrypted.
    pub const fn rtp_in_clear(self) -> bool {
        self.rtp_in_clear
    }

    /// `UNENCRYPTED_SRTCP`: SRTCP need not be encrypted.
    pub const fn rtcp_in_clear(self) -> bool {
        self.rtcp_in_clear
    }

    /// The suite's name as offered.
    pub fn name(self) -> &'static str {
        self.suite.draft_name().filter(|_| self.draft_name).unwrap_or(self.suite.name())
    }

    /// Session parameters that an answer repeats, each behind a space.
    pub const fn parameters(self) -> &'static str {
        match (self.rtp_in_clear, self.rtcp_in_clear) {
            (false, false) => "",
            (true, false) => " UNENCRYPTED_SRTP",
            (false, true) => " UNENCRYPTED_SRTCP",
            (true, true) => " UNENCRYPTED_SRTP UNENCRYPTED_SRTCP",
        }
    }

    /// The number that shared state stores; never 0.
    pub fn code(self) -> u8 {
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        self.suite as u8
            | flag(self.draft_name, DRAFT_NAME)
            | flag(self.rtp_in_clear, RTP_IN_CLEAR)
            | flag(self.rtcp_in_clear, RTCP_IN_CLEAR)
    }

    /// What is stored as that number.
    pub fn from_code(code: u8) -> Option<Self> {
        let suite = Suite::ALL.into_iter().find(|suite| *suite as u8 == code & 0xf)?;
        let (rtp, rtcp) = (code & RTP_IN_CLEAR != 0, code & RTCP_IN_CLEAR != 0);
        let draft_name = code & DRAFT_NAME != 0;
        let agreed = Agreed { draft_name, ..suite.into() }.in_clear(rtp, rtcp)?;
        (agreed.code() == code && (suite.draft_name().is_some() || !draft_name)).then_some(agreed)
    }
}

/// Nothing but the suite, by its own name.
impl From<Suite> for Agreed {
    fn from(suite: Suite) -> Self {
        Agreed { suite, draft_name: false, rtp_in_clear: false, rtcp_in_clear: false }
    }
}

impl std::fmt::Display for Agreed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.name(), self.parameters())
    }
}

impl From<Agreed> for String {
    fn from(agreed: Agreed) -> Self {
        agreed.to_string()
    }
}

impl TryFrom<String> for Agreed {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let fault = || format!("expected a crypto suite with what of it is not used, found {text}");
        let mut words = text.split(' ');
        let agreed = words.next().and_then(Agreed::from_name).ok_or_else(fault)?;
        let (mut rtp, mut rtcp) = (false, false);
        for word in words {
            match word {
                UNENCRYPTED_SRTP => rtp = true,
                UNENCRYPTED_SRTCP => rtcp = true,
                _ => return Err(fault()),
            }
        }
        agreed.in_clear(rtp, rtcp).ok_or_else(fault)
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

/// The usual ones.
impl Default for Suites {
    fn default() -> Self {
        Suite::USUAL.iter().copied().collect()
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
            assert_eq!(Agreed::from_code(suite as u8), Some(suite.into()));
            assert!((suite as u8) < 16);
        }
        let sizes = [44, 28, 46, 38, 30, 46, 38, 30, 30];
        assert_eq!(Suite::ALL.map(Suite::master_bytes), sizes);
        let tags = [16, 16, 10, 10, 10, 4, 4, 4, 10];
        assert_eq!(Suite::ALL.map(Suite::rtp_tag_bytes), tags);
        assert_eq!(Suite::ALL.map(Suite::rtcp_tag_bytes), [16, 16, 10, 10, 10, 10, 10, 10, 10]);
        let one = Suites::from_iter([Suite::AeadAes256Gcm]);
        assert!(one.contains(Suite::AeadAes256Gcm) && !one.contains(Suite::AeadAes128Gcm));
        assert_eq!(Suite::from_name("aes_cm_128_hmac_sha1_80"), None);
    }

    #[test]
    fn f8_is_taken_only_where_it_is_asked_for() {
        let usual = Suites::default();
        let left_out = Suite::ALL.into_iter().filter(|suite| !usual.contains(*suite));
        assert_eq!(left_out.collect::<Vec<_>>(), [Suite::F8_128HmacSha1_80]);
        assert!(Suites::from_iter(Suite::ALL).contains(Suite::F8_128HmacSha1_80));
    }

    #[test]
    fn what_was_agreed_comes_back_from_text_and_number() {
        let drafts = ["AES_CM_256_HMAC_SHA1_80", "AES_CM_256_HMAC_SHA1_32"];
        let named = Suite::ALL.map(Suite::name).into_iter().chain(drafts);
        let all = named.flat_map(|name| [0, 1, 2, 3].map(|flags| (name, flags)));
        let mut codes = std::collections::HashSet::new();
        for (name, flags) in all {
            let (rtp, rtcp) = (flags & 1 != 0, flags & 2 != 0);
            let agreed = Agreed::from_name(name).expect("known");
            assert_eq!(agreed.name(), name);
            let Some(agreed) = agreed.in_clear(rtp, rtcp) else {
                assert!(agreed.suite().is_aead() && rtp, "{name}");
                continue;
            };
            assert_eq!((agreed.rtp_in_clear(), agreed.rtcp_in_clear()), (rtp, rtcp));
            assert_eq!(Agreed::from_code(agreed.code()), Some(agreed));
            assert_eq!(Agreed::try_from(agreed.to_string()), Ok(agreed));
            codes.insert(agreed.code());
        }
        assert_eq!(codes.len(), 9 * 4 + 2 * 2);
        let strange = (0..=u8::MAX).filter(|code| !codes.contains(code));
        strange.for_each(|code| assert_eq!(Agreed::from_code(code), None, "{code}"));
        let whole = Agreed::from_name(drafts[0]).expect("known").in_clear(true, true);
        let text = "AES_CM_256_HMAC_SHA1_80 UNENCRYPTED_SRTP UNENCRYPTED_SRTCP";
        assert_eq!(whole.expect("not AEAD").to_string(), text);
        for bad in ["", "X", "AEAD_AES_128_GCM UNENCRYPTED_SRTP", "AES_CM_128_HMAC_SHA1_80 X"] {
            assert!(Agreed::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
