//! An anchor: the newest heads of a store, signed, as one line of JSON for a log that is kept elsewhere. A
//! store that ends before one, or says otherwise, was rolled back or made anew.

use serde::{Deserialize, Serialize};

use super::hash::{Digest, Hash};
use super::hex::Hex;
use super::mark::FileMark;
use super::sign::{PublicKey, SigningKey, verify};
use crate::base::time::Wall;

/// Version of the line.
pub const ANCHOR_VERSION: u32 = 1;
/// What stands before the content in the hashed text.
const DOMAIN: &[u8] = b"floortape anchor 1\0";
/// What the JSON of a line begins with; what stands before it a log has written.
const START: &str = "{\"anchor\":";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// What is signed.
    pub anchor: Heads,
    /// By the key that it names.
    pub signature: Hex<64>,
}

/// The heads of a store at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heads {
    /// [`ANCHOR_VERSION`].
    pub version: u32,
    /// When.
    pub at: Wall,
    /// The store.
    pub volume: String,
    /// The newest segment of each worker.
    pub workers: Vec<WorkerHead>,
    /// How far the journal was durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<FileMark>,
    /// The newest entry of the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditHead>,
    /// The store's signing key then.
    pub key: Hex<32>,
}

/// The newest segment of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerHead {
    /// The worker.
    pub worker: u16,
    /// The segment's number.
    pub segment: u64,
    /// Its chain head.
    pub head: Hex<32>,
}

/// The newest entry of the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    /// Its number.
    pub number: u64,
    /// SHA-256 of its body.
    pub sha256: Hex<32>,
}

/// Why a line is no anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// It is not what this program writes, of a version that it knows.
    #[error("no anchor of version {ANCHOR_VERSION}, or changed")]
    Form,
    /// The signature does not fit.
    #[error("not signed by the key that it names")]
    Signature,
}

impl Heads {
    fn digest(&self) -> Hash {
        let mut digest = Digest::new();
        digest.update(DOMAIN);
        digest.update(&serde_json::to_vec(self).expect("nothing in it that JSON cannot"));
        digest.finish()
    }

    /// Signs it. The key that it names is that one.
    pub fn sign(mut self, key: &SigningKey) -> Anchor {
        self.key = Hex(key.public_key());
        let signature = Hex(key.sign(&self.digest()));
        Anchor { anchor: self, signature }
    }

    /// Whether anything but the time is another.
    pub fn moved(&self, before: Option<&Heads>) -> bool {
        before.is_none_or(|before| {
            (&self.workers, &self.journal, &self.audit)
                != (&before.workers, &before.journal, &before.audit)
        })
    }
}

impl Anchor {
    /// The line, without its end.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("nothing in it that JSON cannot")
    }

    /// Reads a line; a log may have put words of its own before it. Every byte from its start on must
    /// be as it was written. Whether the key is to be trusted is the reader's to know. Total: any input
    /// gives an answer.
    pub fn parse(line: &str) -> Result<Self, AnchorError> {
        let at = line.find(START).ok_or(AnchorError::Form)?;
        let text = line[at..].trim_end_matches(['\r', '\n']);
        let anchor: Anchor = serde_json::from_str(text).map_err(|_| AnchorError::Form)?;
        if anchor.anchor.version != ANCHOR_VERSION || anchor.line() != text {
            return Err(AnchorError::Form);
        }
        let key: PublicKey = anchor.anchor.key.0;
        match verify(&key, &anchor.anchor.digest(), &anchor.signature.0) {
            true => Ok(anchor),
            false => Err(AnchorError::Signature),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor() -> Anchor {
        let heads = Heads {
            version: ANCHOR_VERSION,
            at: Wall(1_790_000_000_123_456_789),
            volume: "0199aa00-0000-7000-8000-000000000000".to_owned(),
            workers: vec![WorkerHead { worker: 0, segment: 17, head: Hex([4; 32]) }],
            journal: Some(FileMark::of(3, b"journal")),
            audit: Some(AuditHead { number: 9, sha256: Hex([5; 32]) }),
            key: Hex([0; 32]),
        };
        heads.sign(&SigningKey::from_seed(&[7; 32]))
    }

    #[test]
    fn a_line_is_read_from_any_log_and_a_changed_byte_of_it_is_refused() {
        let line = anchor().line();
        assert_eq!(Anchor::parse(&line), Ok(anchor()));
        let logged = format!("<134>1 2026-11-30T18:00:00Z host floortape - - - {line}\r\n");
        assert_eq!(Anchor::parse(&logged), Ok(anchor()));
        for at in 0..line.len() {
            for change in [1, 2, 0x20] {
                let mut bad = line.clone().into_bytes();
                bad[at] ^= change;
                let Ok(bad) = String::from_utf8(bad) else { continue };
                assert!(Anchor::parse(&bad).is_err(), "byte {at}: {bad}");
            }
            assert!(Anchor::parse(&line[..at]).is_err(), "cut at {at}");
        }
        assert!(Anchor::parse(&format!("{line}x")).is_err());
    }
}
