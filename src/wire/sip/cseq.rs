//! CSeq (RFC 3261 §20.16).

use super::params::is_token;

/// Sequence number and method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSeq {
    /// Below 2^31 (RFC 3261 §8.1.1.5).
    pub number: u32,
    /// Method, case kept: methods are case-sensitive.
    pub method: String,
}

impl CSeq {
    /// Reads `4711 INVITE`.
    pub fn parse(text: &str) -> Option<CSeq> {
        let mut parts = text.split_ascii_whitespace();
        let (number, method) = (parts.next()?, parts.next()?);
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        if parts.next().is_some() || !is_token(method.as_bytes()) || !digits {
            return None;
        }
        let number: u32 = number.parse().ok()?;
        (number < 1 << 31).then(|| CSeq { number, method: method.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_stays_below_two_to_the_31() {
        let found = CSeq::parse(" 2147483647\t INVITE ").expect("valid");
        assert_eq!((found.number, &*found.method), (2_147_483_647, "INVITE"));
        for text in ["", "1", "INVITE", "2147483648 INVITE", "-1 INVITE", "+1 INVITE", "1 IN VITE"]
        {
            assert_eq!(CSeq::parse(text), None, "{text}");
        }
    }
}
