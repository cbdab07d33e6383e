//! Key material: one type, no `Debug`, no `Display`, no `Clone`, wiped on drop.

use zeroize::Zeroize;

/// Longest SRTP master key ‖ salt: 32 + 14 octets (AES_256_CM).
pub const MASTER_BYTES_MAX: usize = 46;

/// An SRTP master key ‖ master salt as carried by SDES (RFC 4568 §6.1), at most 46 octets.
pub struct MasterKey {
    length: u8,
    bytes: [u8; MASTER_BYTES_MAX],
}

impl MasterKey {
    /// Takes key ‖ salt; `None` where it is empty or longer than any suite's.
    pub fn new(key_and_salt: &[u8]) -> Option<Self> {
        if key_and_salt.is_empty() || key_and_salt.len() > MASTER_BYTES_MAX {
            return None;
        }
        let mut bytes = [0; MASTER_BYTES_MAX];
        bytes[..key_and_salt.len()].copy_from_slice(key_and_salt);
        Some(MasterKey { length: key_and_salt.len() as u8, bytes })
    }

    /// Key ‖ salt. Named so that every place that reads it can be searched for.
    pub fn expose(&self) -> &[u8] {
        &self.bytes[..self.length as usize]
    }

    /// A second holder of the same key, made on purpose and visibly.
    pub fn duplicate(&self) -> Self {
        MasterKey { length: self.length, bytes: self.bytes }
    }

    /// Whether both are the same key (not constant time: both are ours or the peer's own).
    pub fn same(&self, other: &MasterKey) -> bool {
        self.expose() == other.expose()
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_every_suites_length_and_no_more() {
        assert!(MasterKey::new(&[]).is_none());
        assert!(MasterKey::new(&[1; 47]).is_none());
        let key = MasterKey::new(&[7; 30]).expect("30 octets is AES-128 with a 14-octet salt");
        assert_eq!(key.expose(), &[7; 30]);
        assert!(key.same(&key.duplicate()));
    }
}
