//! SHA-256, by aws-lc-rs: the only file that names that engine for hashing.

use aws_lc_rs::digest;

/// A SHA-256 value.
pub type Hash = [u8; 32];
/// Salt of a recording's leaves: without it a leaf hash says nothing about the audio.
pub type Salt = [u8; 32];

/// First byte of what a leaf hashes (RFC 6962 §2.1).
pub(super) const LEAF: u8 = 0;

/// A running SHA-256.
#[derive(Clone)]
pub struct Digest(digest::Context);

impl Digest {
    /// An empty one.
    pub fn new() -> Self {
        Digest(digest::Context::new(&digest::SHA256))
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all that was taken.
    pub fn finish(self) -> Hash {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.0.finish().as_ref());
        hash
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

/// The leaf of one source in one segment: SHA-256(0x00 ‖ salt ‖ its records in order).
#[derive(Clone)]
pub struct LeafHasher(Digest);

impl LeafHasher {
    /// A leaf under `salt`.
    pub fn new(salt: &Salt) -> Self {
        let mut digest = Digest::new();
        digest.update(&[LEAF]);
        digest.update(salt);
        LeafHasher(digest)
    }

    /// Takes further records, whole and in order.
    pub fn update(&mut self, records: &[u8]) {
        self.0.update(records);
    }

    /// The leaf hash.
    pub fn finish(self) -> Hash {
        self.0.finish()
    }
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Hash {
    let mut digest = Digest::new();
    digest.update(bytes);
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_abc_is_the_published_value() {
        // FIPS 180-4, example of one block.
        assert_eq!(sha256(b"abc")[..8], [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea]);
    }

    #[test]
    fn salt_changes_the_leaf_and_pieces_do_not() {
        let mut whole = LeafHasher::new(&[1; 32]);
        whole.update(b"records");
        let mut pieces = LeafHasher::new(&[1; 32]);
        pieces.update(b"rec");
        pieces.update(b"ords");
        let mut other = LeafHasher::new(&[2; 32]);
        other.update(b"records");
        let whole = whole.finish();
        assert_eq!(whole, pieces.finish());
        assert_ne!(whole, other.finish());
    }
}
