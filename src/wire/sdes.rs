//! `a=crypto:` lines: SDP security descriptions (RFC 4568), and the blanking of keys in texts.
//!
//! A line that breaks a rule marked MUST is invalid as a whole and its stream looks at the next
//! line; an unknown suite only skips the line. Keys go straight into [`MasterKey`]; nothing in here
//! prints them.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroize;

use crate::base::mki::{MKI_BYTES_MAX, Mki};
use crate::base::secret::MasterKey;
use crate::base::suite::{Agreed, Suite};

/// `=` is optional in the field, and some SRCs leave stray bits in the last character.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Keys that one line may hold; every one after the first needs an MKI.
const KEYS_MAX: usize = 16;
/// RFC 3711 §9.2: 2^48 SRTP packets.
const LIFETIME_MAX: u64 = 1 << 48;

/// One `inline:` key.
pub struct InlineKey {
    /// Key ‖ salt.
    pub key: MasterKey,
    /// Packets it may protect, where stated.
    pub lifetime: Option<u64>,
    /// Its identifier, where stated.
    pub mki: Option<Mki>,
}

/// Session parameters (RFC 4568 §6.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionParameters {
    /// `KDR=n`: session keys change each 2^n packets.
    pub key_derivation_rate: Option<u8>,
    /// `UNENCRYPTED_SRTP`.
    pub unencrypted_srtp: bool,
    /// `UNENCRYPTED_SRTCP`.
    pub unencrypted_srtcp: bool,
    /// `UNAUTHENTICATED_SRTP`.
    pub unauthenticated_srtp: bool,
    /// `FEC_ORDER=SRTP_FEC` (the default is `FEC_SRTP`).
    pub srtp_before_fec: bool,
    /// A `FEC_KEY` was there (its keys are checked, not kept: we take no separate FEC stream).
    pub fec_key: bool,
    /// `WSH=n`, a hint for the replay window.
    pub window: Option<u64>,
}

/// A valid crypto line of a known suite.
pub struct CryptoLine {
    /// Its tag, unique in its m-line.
    pub tag: u32,
    /// The suite, as spelled, with what of it the parameters say is not used.
    pub suite: Agreed,
    /// One or more keys.
    pub keys: Vec<InlineKey>,
    /// Session parameters.
    pub parameters: SessionParameters,
}

impl std::fmt::Debug for CryptoLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CryptoLine")
            .field("tag", &self.tag)
            .field("suite", &self.suite.name())
            .field("keys", &self.keys.len())
            .field("parameters", &self.parameters)
            .finish()
    }
}

/// Why a crypto line cannot be taken. Never shows key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdesError {
    /// Fewer than three fields.
    #[error("expected tag, suite and key-params, found fewer fields")]
    Fields,
    /// The tag.
    #[error("expected a tag of 1 to 9 digits")]
    Tag,
    /// Two lines of one m-line with the same tag.
    #[error("expected tags that are unique in the m-line, found {tag} twice")]
    DuplicateTag {
        /// The tag.
        tag: u32,
    },
    /// Skip the line (RFC 4568 §7.1.1).
    #[error("unknown crypto suite {name}")]
    UnknownSuite {
        /// Tag of the line.
        tag: u32,
        /// Its name.
        name: String,
    },
    /// A key method other than `inline:`.
    #[error("expected the key method inline")]
    Method,
    /// Base64 or length.
    #[error("expected key and salt of {expected} octets in base64, found {found}")]
    KeyLength {
        /// What the suite needs.
        expected: usize,
        /// What came; 0 where it is no base64.
        found: usize,
    },
    /// The lifetime.
    #[error("expected a lifetime of 1 to 2^48 packets")]
    Lifetime,
    /// The MKI.
    #[error("expected an MKI value below 2^256 that fits its length of 1 to 128 octets")]
    Mki,
    /// Several keys.
    #[error("expected an MKI of one length with each of several keys")]
    KeysWithoutMki,
    /// Two keys that nothing tells apart.
    #[error("expected an MKI of its own with each of several keys, found one twice")]
    DuplicateMki,
    /// More keys than anyone sends.
    #[error("expected at most {KEYS_MAX} keys")]
    TooManyKeys,
    /// A session parameter that must be understood and is not, or whose value is wrong.
    #[error("session parameter {name} is unknown or has a wrong value")]
    Parameter {
        /// Its name (never its value).
        name: String,
    },
    /// `UNENCRYPTED_SRTP` with a suite that encrypts every packet (RFC 7714 §8.2).
    #[error("UNENCRYPTED_SRTP is not usable with {}", suite.name())]
    UnencryptedAead {
        /// The suite.
        suite: Suite,
    },
}

impl CryptoLine {
    /// Reads the value of an `a=crypto:` attribute, without the `a=crypto:`.
    ///
    /// RFC 4568 §5, §6, §9.
    pub fn parse(value: &str) -> Result<Self, SdesError> {
        let mut fields = value.split_ascii_whitespace();
        let (Some(tag), Some(suite), Some(key_params)) =
            (fields.next(), fields.next(), fields.next())
        else {
            return Err(SdesError::Fields);
        };
        if !(1..=9).contains(&tag.len()) || !tag.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SdesError::Tag);
        }
        let tag = tag.parse().map_err(|_| SdesError::Tag)?;
        let named = Agreed::from_name(suite)
            .ok_or_else(|| SdesError::UnknownSuite { tag, name: printable(suite) })?;
        let suite = named.suite();
        let keys = parse_keys(key_params, suite)?;
        let parameters = SessionParameters::parse(fields, suite)?;
        let suite = named
            .in_clear(parameters.unencrypted_srtp, parameters.unencrypted_srtcp)
            .ok_or(SdesError::UnencryptedAead { suite })?;
        Ok(CryptoLine { tag, suite, keys, parameters })
    }

    /// The value of an attribute that carries one key: `1 SUITE inline:…`, with the parameters that both
    /// sides must have (RFC 4568 §6.3.2). Holds a key: to be sent, never to be logged.
    pub fn emit(tag: u32, suite: impl Into<Agreed>, key: &MasterKey) -> String {
        let suite = suite.into();
        let mut text = BASE64.encode(key.expose());
        let value = format!("{tag} {} inline:{text}{}", suite.name(), suite.parameters());
        text.zeroize();
        value
    }
}

/// A peer's word for an error text: printable ASCII, short.
fn printable(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

fn parse_keys(key_params: &str, suite: Suite) -> Result<Vec<InlineKey>, SdesError> {
    let mut keys = Vec::new();
    for param in key_params.split(';') {
        if keys.len() == KEYS_MAX {
            return Err(SdesError::TooManyKeys);
        }
        // Method names are compared with case, as the ABNF's literals in the field are.
        let info = param.strip_prefix("inline:").ok_or(SdesError::Method)?;
        keys.push(parse_key(info, suite)?);
    }
    let length = |key: &InlineKey| key.mki.map(|mki| mki.length());
    // RFC 4568 §6.1: with more than one key each has an MKI, all of one length.
    if keys.len() > 1 && keys.iter().any(|key| key.mki.is_none() || length(key) != length(&keys[0]))
    {
        return Err(SdesError::KeysWithoutMki);
    }
    // Packets of the second one would be judged by the first.
    let again = |(place, key): (usize, &InlineKey)| {
        key.mki.is_some() && keys[..place].iter().any(|other| other.mki == key.mki)
    };
    if keys.iter().enumerate().any(again) {
        return Err(SdesError::DuplicateMki);
    }
    Ok(keys)
}

fn parse_key(info: &str, suite: Suite) -> Result<InlineKey, SdesError> {
    let mut fields = info.split('|');
    let key = decode(fields.next().unwrap_or_default(), suite.master_bytes())?;
    let (mut lifetime, mut mki) = (None, None);
    for field in fields {
        // RFC 4568 §9.2: lifetime before MKI, told apart by the colon.
        if let Some((value, length)) = field.split_once(':') {
            if mki.is_some() {
                return Err(SdesError::Mki);
            }
            mki = Some(parse_mki(value, length)?);
        } else {
            if lifetime.is_some() || mki.is_some() {
                return Err(SdesError::Lifetime);
            }
            lifetime = Some(parse_lifetime(field)?);
        }
    }
    Ok(InlineKey { key, lifetime, mki })
}

fn decode(text: &str, expected: usize) -> Result<MasterKey, SdesError> {
    let mut bytes = BASE64.decode(text).map_err(|_| SdesError::KeyLength { expected, found: 0 })?;
    let found = bytes.len();
    let key = MasterKey::new(&bytes).filter(|_| found == expected);
    bytes.zeroize();
    key.ok_or(SdesError::KeyLength { expected, found })
}

/// Digits without a leading zero (RFC 4568 §9.2).
fn positive(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_lifetime(text: &str) -> Result<u64, SdesError> {
    let (digits, power) = match text.strip_prefix("2^") {
        Some(exponent) => (exponent, true),
        None => (text, false),
    };
    let number: u64 = Some(digits)
        .filter(|d| positive(d))
        .and_then(|d| d.parse().ok())
        .ok_or(SdesError::Lifetime)?;
    let lifetime = if power {
        u32::try_from(number).ok().and_then(|n| 1_u64.checked_shl(n)).ok_or(SdesError::Lifetime)?
    } else {
        number
    };
    if lifetime > LIFETIME_MAX { Err(SdesError::Lifetime) } else { Ok(lifetime) }
}

fn parse_mki(value: &str, length: &str) -> Result<Mki, SdesError> {
    let length: usize =
        Some(length).filter(|l| positive(l)).and_then(|l| l.parse().ok()).ok_or(SdesError::Mki)?;
    // 128 octets are at most 309 decimal digits.
    if !(1..=MKI_BYTES_MAX).contains(&length) || !positive(value) || value.len() > 309 {
        return Err(SdesError::Mki);
    }
    // The value may exceed 64 bits: multiply octet by octet.
    let mut octets = vec![0_u8; length];
    for digit in value.bytes().map(|byte| u32::from(byte - b'0')) {
        let mut carry = digit;
        for octet in octets.iter_mut().rev() {
            let sum = u32::from(*octet) * 10 + carry;
            *octet = sum as u8;
            carry = sum >> 8;
        }
        if carry != 0 {
            return Err(SdesError::Mki);
        }
    }
    Mki::new(&octets).ok_or(SdesError::Mki)
}

impl SessionParameters {
    fn parse<'a>(fields: impl Iterator<Item = &'a str>, suite: Suite) -> Result<Self, SdesError> {
        let mut all = SessionParameters::default();
        for field in fields {
            let (name, value) = match field.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (field, None),
            };
            let fault = || SdesError::Parameter { name: printable(name) };
            match (name, value) {
                ("KDR", Some(value)) => {
                    let rate: u8 = value.parse().map_err(|_| fault())?;
                    // Text of §6.3.1 says 1 to 24; the ABNF's 0 is refused with it.
                    if !positive(value) || !(1..=24).contains(&rate) {
                        return Err(fault());
                    }
                    all.key_derivation_rate = Some(rate);
                }
                ("UNENCRYPTED_SRTP", None) => all.unencrypted_srtp = true,
                ("UNENCRYPTED_SRTCP", None) => all.unencrypted_srtcp = true,
                ("UNAUTHENTICATED_SRTP", None) => all.unauthenticated_srtp = true,
                ("FEC_ORDER", Some("FEC_SRTP")) => all.srtp_before_fec = false,
                ("FEC_ORDER", Some("SRTP_FEC")) => all.srtp_before_fec = true,
                ("FEC_KEY", Some(value)) => {
                    parse_keys(value, suite)?;
                    all.fec_key = true;
                }
                ("WSH", Some(value)) if value.len() >= 2 => {
                    // §6.3.6: below 64 is ignored; it is only a hint.
                    let hint: u64 = value.parse().map_err(|_| fault())?;
                    all.window = (hint >= 64).then_some(hint);
                }
                // RFC 4568 §6.3.7: a dash in front makes it optional.
                _ if name.starts_with('-') => {}
                _ => return Err(fault()),
            }
        }
        Ok(all)
    }
}

/// The same bytes with every inline key (and every `k=` key) replaced by as many `*`, so that a body
/// or message may be journaled or logged. Lengths stay, so Content-Length stays right.
pub fn blank_keys(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    blank_behind(&mut out, b"inline:", |byte| b"|; \t\r\n".contains(&byte), false);
    // RFC 4566 §5.12: keys in the clear or in base64.
    blank_behind(&mut out, b"k=clear:", |byte| b"\r\n".contains(&byte), true);
    blank_behind(&mut out, b"k=base64:", |byte| b"\r\n".contains(&byte), true);
    out
}

fn blank_behind(out: &mut [u8], mark: &[u8], ends: impl Fn(u8) -> bool, at_line_start: bool) {
    let mut at = 0;
    while at + mark.len() <= out.len() {
        let fits = out[at..at + mark.len()].eq_ignore_ascii_case(mark);
        if !fits || (at_line_start && at > 0 && out[at - 1] != b'\n') {
            at += 1;
            continue;
        }
        at += mark.len();
        // A blank between mark and key is no valid line, but it is still a key.
        while at < out.len() && (out[at] == b' ' || out[at] == b'\t') {
            at += 1;
        }
        while at < out.len() && !ends(out[at]) {
            out[at] = b'*';
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    /// RFC 4568 §9.2's example key: 30 octets.
    const KEY: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";

    fn line(rest: &str) -> Result<CryptoLine, SdesError> {
        CryptoLine::parse(&format!("1 AES_CM_128_HMAC_SHA1_80 {rest}"))
    }

    fn key(rest: &str) -> Result<CryptoLine, SdesError> {
        line(&format!("inline:{KEY}{rest}"))
    }

    #[test]
    fn every_suite_is_read_with_its_own_length_padded_or_not() {
        for suite in Suite::ALL {
            let master = MasterKey::new(&vec![9; suite.master_bytes()]).expect("a suite's length");
            let value = CryptoLine::emit(7, suite, &master);
            for text in [value.clone(), value.trim_end_matches('=').to_owned()] {
                let parsed = CryptoLine::parse(&text).expect("just emitted");
                assert_eq!((parsed.tag, parsed.suite), (7, suite.into()));
                assert!(parsed.keys[0].key.same(&master));
            }
            let short = MasterKey::new(&vec![9; suite.master_bytes() - 1]).expect("not empty");
            assert!(matches!(
                CryptoLine::parse(&CryptoLine::emit(7, suite, &short)),
                Err(SdesError::KeyLength { .. })
            ));
        }
    }

    #[test]
    fn tags_are_one_to_nine_digits() {
        let with =
            |tag: &str| CryptoLine::parse(&format!("{tag} AES_CM_128_HMAC_SHA1_80 inline:{KEY}"));
        assert_eq!(with("999999999").expect("nine digits").tag, 999_999_999);
        for tag in ["1000000000", "+1", "x", "1x"] {
            assert_eq!(with(tag).err(), Some(SdesError::Tag), "{tag}");
        }
        assert_eq!(CryptoLine::parse("1 AES_CM_128_HMAC_SHA1_80").err(), Some(SdesError::Fields));
    }

    #[test]
    fn unknown_suites_are_told_apart_from_broken_lines_and_case_counts() {
        for name in ["aes_cm_128_hmac_sha1_80", "ARIA_128_CTR_HMAC_SHA1_80"] {
            let found = CryptoLine::parse(&format!("4 {name} inline:{KEY}"));
            assert!(matches!(found, Err(SdesError::UnknownSuite { tag: 4, .. })), "{name}");
        }
    }

    #[test]
    fn only_inline_with_exact_base64_is_a_key() {
        assert_eq!(line(&format!("uri:{KEY}")).err(), Some(SdesError::Method));
        for bad in ["", "AAAA", "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGV!", &format!("{KEY}AAAA")] {
            let found = line(&format!("inline:{bad}"));
            assert!(matches!(found, Err(SdesError::KeyLength { .. })), "{bad}");
        }
    }

    #[test]
    fn lifetime_is_decimal_or_a_power_without_leading_zero_up_to_the_ceiling() {
        for (text, lifetime) in
            [("2^20", 1 << 20), ("2^48", 1 << 48), ("1000", 1_000), ("281474976710656", 1 << 48)]
        {
            let parsed = key(&format!("|{text}")).expect("a lifetime");
            assert_eq!(parsed.keys[0].lifetime, Some(lifetime));
        }
        for bad in ["2^49", "2^0", "2^064", "2^99999999999", "0", "012", "281474976710657", "", "x"]
        {
            assert_eq!(key(&format!("|{bad}")).err(), Some(SdesError::Lifetime), "{bad}");
        }
    }

    #[test]
    fn mki_is_a_positive_value_that_fits_one_to_128_octets() {
        let mki = |text: &str| key(text).map(|line| line.keys[0].mki.map(|mki| mki.octets()));
        assert_eq!(mki("|2^20|1:4").expect("fits"), Some(vec![0, 0, 0, 1]));
        assert_eq!(mki("|66051:3").expect("lifetime may be missing"), Some(vec![1, 2, 3]));
        let wide = mki("|340282366920938463463374607431768211455:16").expect("2^128-1 fits");
        assert_eq!(wide, Some(vec![255; 16]));
        assert_eq!(mki("|1:128").expect("the longest").map(|octets| octets.len()), Some(128));
        for bad in ["|1:0", "|1:129", "|0:1", "|01:1", "|256:1", "|1:", "|:1", "|1:01", "|1:2|1:2"]
        {
            assert_eq!(key(bad).err(), Some(SdesError::Mki), "{bad}");
        }
        assert_eq!(key("|1:2|2^20").err(), Some(SdesError::Lifetime), "order");
    }

    #[test]
    fn several_keys_need_mkis_of_one_length() {
        let two = |a: &str, b: &str| line(&format!("inline:{KEY}|{a};inline:{KEY}|{b}"));
        assert_eq!(two("1:4", "2:4").expect("two keys").keys.len(), 2);
        assert_eq!(two("1:4", "2:2").err(), Some(SdesError::KeysWithoutMki));
        assert_eq!(two("2^20", "2:4").err(), Some(SdesError::KeysWithoutMki));
        // The second one's packets would fail under the first.
        assert_eq!(two("7:4", "7:4").err(), Some(SdesError::DuplicateMki));
        let many = vec![format!("inline:{KEY}|1:4"); KEYS_MAX + 1].join(";");
        assert_eq!(line(&many).err(), Some(SdesError::TooManyKeys));
    }

    #[test]
    fn session_parameters_follow_section_6_3() {
        let all = key(" KDR=24 UNENCRYPTED_SRTCP FEC_ORDER=SRTP_FEC WSH=128 -future=1 -x")
            .expect("all known or optional")
            .parameters;
        assert_eq!(all.key_derivation_rate, Some(24));
        assert!(all.unencrypted_srtcp && all.srtp_before_fec);
        assert_eq!(all.window, Some(128));
        assert_eq!(key(" WSH=10").expect("a hint").parameters.window, None);
        let fec = key(&format!(" FEC_KEY=inline:{KEY}")).expect("valid").parameters;
        assert!(fec.fec_key);
        for bad in [
            " KDR=0",
            " KDR=25",
            " KDR=01",
            " KDR",
            " FEC_ORDER=X",
            " WSH=9",
            " future=1",
            " UNENCRYPTED_SRTP=1",
        ] {
            assert!(matches!(key(bad).err(), Some(SdesError::Parameter { .. })), "{bad}");
        }
        assert!(key(" FEC_KEY=inline:AAAA").is_err());
    }

    #[test]
    fn gcm_without_encryption_is_invalid() {
        let master = MasterKey::new(&[3; 28]).expect("28 octets");
        let value = CryptoLine::emit(1, Suite::AeadAes128Gcm, &master);
        let found = CryptoLine::parse(&format!("{value} UNENCRYPTED_SRTP")).err();
        assert_eq!(found, Some(SdesError::UnencryptedAead { suite: Suite::AeadAes128Gcm }));
    }

    #[test]
    fn nothing_printed_shows_a_key() {
        let shown = format!("{:?}", key("|1:4").expect("valid"));
        assert!(!shown.contains(&KEY[..8]), "{shown}");
        for bad in [format!("1 X inline:{KEY}"), format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}A")]
        {
            let error = CryptoLine::parse(&bad).expect_err("broken");
            assert!(!format!("{error} {error:?}").contains(&KEY[..8]));
        }
    }

    #[test]
    fn blanking_reaches_every_key_and_keeps_every_length() {
        let text = format!(
            "a=crypto:1 A inline:{KEY}|2^20|1:4;inline:{KEY} KDR=1 FEC_KEY=inline:{KEY}\r\n\
             a=acap:1 crypto:1 B INLINE: {KEY}\r\nk=clear:geheim\r\nk=base64:AAAA\nx=k=clear:open"
        );
        let blanked = String::from_utf8(blank_keys(text.as_bytes())).expect("only stars added");
        assert_eq!(blanked.len(), text.len());
        assert!(
            !blanked.contains("WVNf") && !blanked.contains("geheim") && !blanked.contains("AAAA")
        );
        assert!(
            blanked.contains("|2^20|1:4;inline:*") && blanked.contains(" KDR=1 FEC_KEY=inline:*")
        );
        assert!(blanked.ends_with("x=k=clear:open"));
    }

    #[test]
    fn mutations_never_panic() {
        let seed = format!(
            "1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:4;inline:{KEY}|2^20|2:4 KDR=3 WSH=99 -a=b"
        );
        let mut prng = Prng::new(4568);
        let mut valid = 0;
        for _ in 0..20_000 {
            let mut bytes = seed.clone().into_bytes();
            for _ in 0..=prng.below(3) {
                let at = prng.below(bytes.len() as u64) as usize;
                match prng.below(3) {
                    0 => bytes[at] = (prng.next_u64() % 128) as u8,
                    1 if bytes.len() > 1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b"|:;^=- 0"[prng.below(8) as usize]),
                }
            }
            valid += usize::from(CryptoLine::parse(&String::from_utf8_lossy(&bytes)).is_ok());
            blank_keys(&bytes);
        }
        assert!(valid > 0 && valid < 20_000);
    }
}
