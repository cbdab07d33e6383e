//! A file of the journal by what it held: how later files and anchors name it.

use serde::{Deserialize, Serialize};

use super::hash::{Digest, Hash, sha256};
use super::hex::Hex;
use super::sign::{Signature, SigningKey};

/// What stands before the fields in the hashed text of a seal.
const DOMAIN: &[u8] = b"floortape journal 1\0";

/// The beginning of a file, as it was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileMark {
    /// The file's number.
    pub number: u32,
    /// So many bytes of it.
    pub bytes: u64,
    /// SHA-256 of these.
    pub sha256: Hex<32>,
}

impl FileMark {
    /// That of a file of which `bytes` are durable.
    pub fn of(number: u32, bytes: &[u8]) -> Self {
        FileMark { number, bytes: bytes.len() as u64, sha256: Hex(sha256(bytes)) }
    }

    /// Whether `file` begins with what the mark says.
    pub fn begins(&self, file: &[u8]) -> bool {
        usize::try_from(self.bytes)
            .ok()
            .and_then(|bytes| file.get(..bytes))
            .is_some_and(|head| sha256(head) == self.sha256.0)
    }

    /// What is signed of it. `kind` tells a file of the journal from one of the history.
    pub fn digest(&self, kind: &str, volume: &str) -> Hash {
        let mut digest = Digest::new();
        digest.update(DOMAIN);
        digest.update(&self.number.to_le_bytes());
        digest.update(&self.bytes.to_le_bytes());
        digest.update(&self.sha256.0);
        digest.update(kind.as_bytes());
        digest.update(&[0]);
        digest.update(volume.as_bytes());
        digest.finish()
    }

    /// Signs it.
    pub fn sign(&self, kind: &str, volume: &str, key: &SigningKey) -> Signature {
        key.sign(&self.digest(kind, volume))
    }
}
