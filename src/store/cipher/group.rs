//! The key of commit groups: AES-256-GCM under a secret that serves for one use of one log file.
//!
//! No key meets a nonce twice. The nonce is the group's sequence number, which a process raises before each
//! write, whether that succeeds or not, so within a process no number comes twice under any key. The
//! secret is drawn anew whenever a file is taken into use, again or for the first time, and whoever drew
//! it is the only process that ever writes under it: what another one began is read, and never gone on
//! with. So two texts under one number, as a successor writes them who does not know of a write that the
//! power took, are under two keys.

use aes::Aes256;
use ctr::Ctr32BE;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

use super::chunk::{ChunkKey, TAG_BYTES, nonce_bytes};
use super::secret::Secret;

/// See the module. No `Debug`, no `Clone`, wiped on drop.
pub struct GroupKey {
    secret: Secret,
    key: ChunkKey,
}

impl GroupKey {
    /// The key that `secret` is.
    pub fn new(secret: Secret) -> Self {
        GroupKey { key: ChunkKey::of(&secret), secret }
    }

    /// Encrypts `bytes` in their place as group number `sequence`; the tag. Each number once under a key.
    pub fn seal(&self, sequence: u64, aad: &[u8], bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        self.key.seal(sequence, aad, bytes)
    }

    /// Decrypts `bytes`, the last 16 of which are the tag; `None` where this is not group number `sequence`
    /// of this key, with this `aad`.
    pub fn open<'a>(&self, sequence: u64, aad: &[u8], bytes: &'a mut [u8]) -> Option<&'a [u8]> {
        self.key.open(sequence, aad, bytes)
    }

    /// Decrypts `bytes`, which begin `at` octets into group number `sequence`. Nothing is checked: of a
    /// group that was opened before, this reads a record again without the whole.
    pub fn part(&self, sequence: u64, at: u64, bytes: &mut [u8]) {
        // GCM counts blocks in the last four octets, and the text begins with 2 (SP 800-38D §7.1).
        let mut block = [0; 16];
        block[..12].copy_from_slice(&nonce_bytes(sequence));
        block[15] = 2;
        let mut stream = Ctr32BE::<Aes256>::new(self.secret.expose().into(), &block.into());
        stream.seek(at);
        stream.apply_keystream(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> GroupKey {
        GroupKey::new(Secret::new(std::array::from_fn::<_, 32, _>(|at| at as u8 ^ byte).into()))
    }

    /// Made with the AESGCM of Python's cryptography 48.0.0.
    #[test]
    fn another_implementation_gives_the_same_octets() {
        let mut bytes = *b"twenty milliseconds";
        let tag = key(0).seal(5, b"header", &mut bytes);
        let hex: String = bytes.iter().chain(&tag).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ecd6a70cb7c7b520013e25983692368d756054db1f6aa8377541c7288c34e1d837b4c0");
    }

    #[test]
    fn a_part_is_what_stands_there_in_the_whole() {
        let text: Vec<u8> = (0..5_000_u32).map(|n| (n * 7) as u8).collect();
        let mut sealed = text.clone();
        let tag = key(0).seal(1 << 40, b"", &mut sealed);
        sealed.extend_from_slice(&tag);
        for (at, bytes) in [(0, 1), (0, 5_000), (15, 2), (16, 16), (1_001, 208), (4_999, 1)] {
            let mut part = sealed[at..at + bytes].to_vec();
            key(0).part(1 << 40, at as u64, &mut part);
            assert_eq!(part, text[at..at + bytes], "{bytes} from {at}");
        }
        assert_eq!(key(0).open(1 << 40, b"", &mut sealed), Some(&text[..]));
    }
}
