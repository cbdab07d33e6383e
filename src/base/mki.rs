//! Master key identifiers (RFC 3711 §8.1): which key a packet is under, in octets of its own.

use serde::{Deserialize, Serialize};

/// The longest (RFC 4568 §6.1), octets.
pub const MKI_BYTES_MAX: usize = 128;
/// The lowest octets, which carry its value: below 2^256. The octets above them are 0.
pub const MKI_VALUE_BYTES: usize = 32;

/// A master key identifier: a number, big-endian, in 1 to 128 octets behind what is encrypted of each
/// SRTP and SRTCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Mki {
    length: u8,
    value: [u8; MKI_VALUE_BYTES],
}

impl Mki {
    /// Takes its octets; `None` for none or more than 128 of them, or a value of 2^256 or more.
    pub fn new(octets: &[u8]) -> Option<Self> {
        if octets.is_empty() || octets.len() > MKI_BYTES_MAX {
            return None;
        }
        let (zeros, low) = octets.split_at(octets.len().saturating_sub(MKI_VALUE_BYTES));
        let mut value = [0; MKI_VALUE_BYTES];
        value[MKI_VALUE_BYTES - low.len()..].copy_from_slice(low);
        is_zero(zeros).then_some(Mki { length: octets.len() as u8, value })
    }

    /// From its length and its lowest octets, as [`Self::value`] gives them.
    pub fn from_value(length: usize, value: [u8; MKI_VALUE_BYTES]) -> Option<Self> {
        let fits = is_zero(&value[..MKI_VALUE_BYTES.saturating_sub(length)]);
        let known = (1..=MKI_BYTES_MAX).contains(&length);
        (fits && known).then_some(Mki { length: length as u8, value })
    }

    /// Octets in each packet.
    #[inline]
    pub fn length(&self) -> usize {
        self.length.into()
    }

    /// The lowest octets.
    pub fn value(&self) -> &[u8; MKI_VALUE_BYTES] {
        &self.value
    }

    /// Whether `octets` are its own.
    #[inline]
    pub fn is(&self, octets: &[u8]) -> bool {
        let above = self.length().saturating_sub(MKI_VALUE_BYTES);
        let low = &self.value[MKI_VALUE_BYTES.saturating_sub(self.length())..];
        octets.len() == self.length() && is_zero(&octets[..above]) && octets[above..] == *low
    }

    /// Its octets.
    pub fn octets(&self) -> Vec<u8> {
        let mut octets = vec![0; self.length()];
        let low = self.length().min(MKI_VALUE_BYTES);
        octets[self.length() - low..].copy_from_slice(&self.value[MKI_VALUE_BYTES - low..]);
        octets
    }
}

impl From<Mki> for Vec<u8> {
    fn from(mki: Mki) -> Self {
        mki.octets()
    }
}

impl TryFrom<Vec<u8>> for Mki {
    type Error = &'static str;

    fn try_from(octets: Vec<u8>) -> Result<Self, Self::Error> {
        Mki::new(&octets).ok_or("expected an MKI of 1 to 128 octets with a value below 2^256")
    }
}

fn is_zero(octets: &[u8]) -> bool {
    octets.iter().all(|octet| *octet == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_keeps_its_octets_and_is_only_itself() {
        for length in 1..=MKI_BYTES_MAX {
            let mut octets = vec![0; length];
            for (place, octet) in octets.iter_mut().rev().take(MKI_VALUE_BYTES).enumerate() {
                *octet = place as u8 + 1;
            }
            let mki = Mki::new(&octets).expect("a value below 2^256");
            assert_eq!((mki.length(), mki.octets()), (length, octets.clone()));
            assert_eq!(Mki::from_value(length, *mki.value()), Some(mki));
            assert!(mki.is(&octets));
            assert!(!mki.is(&octets[1..]) && !mki.is(&[&[0], &octets[..]].concat()));
            for place in 0..length {
                octets[place] ^= 0x80;
                assert!(!mki.is(&octets), "octet {place} of {length}");
                octets[place] ^= 0x80;
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_none() {
        assert_eq!(Mki::new(&[]), None);
        assert_eq!(Mki::new(&[0; 129]), None);
        let mut wide = [0; 33];
        wide[0] = 1;
        assert_eq!(Mki::new(&wide), None);
        assert_eq!(Mki::from_value(1, [1; 32]), None);
        assert_eq!(Mki::from_value(0, [0; 32]), None);
        assert_eq!(Mki::from_value(129, [0; 32]), None);
    }
}
