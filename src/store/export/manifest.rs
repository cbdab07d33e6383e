//! `manifest.json`: what an export holds and what proves it.
//!
//! Every file of the folder is listed with its SHA-256; the stored records' way to a signed chain
//! head stands beside them; the whole is signed. The file must be byte for byte what this program
//! writes for its content, so that no byte of it can change unseen: not a space, not the case of a
//! hex digit.

use serde::{Deserialize, Serialize};

use super::ExportError;
use crate::base::ids::{RsId, SourceId};
use crate::base::time::Wall;
use crate::store::evidence::{
    Digest, Hash, KeyStatement, Keys, Proof, PublicKey, Salt, Signature, SigningKey, verify,
    verify_proof,
};

/// Version of the manifest.
pub const VERSION: u32 = 1;
/// Its file name.
pub const FILE: &str = "manifest.json";
/// What stands before the content in the signed hash, so that a chain head can never pass for one.
const DOMAIN: &[u8] = b"floortape export 1\0";

/// The manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What is signed.
    pub content: Content,
    /// Ed25519 over the content, 128 hex digits.
    pub signature: String,
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// [`VERSION`].
    pub version: u32,
    /// The program that wrote it.
    pub software: String,
    /// The recording.
    pub recording: RsId,
    /// When it was exported.
    pub created: Wall,
    /// Start of the range, if one was asked for.
    pub from: Option<Wall>,
    /// End of the range.
    pub to: Option<Wall>,
    /// The Communication Session that it was narrowed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Every file but this one, sorted by path.
    pub files: Vec<FileEntry>,
    /// Salt of the recording's leaves, 64 hex digits.
    pub salt: String,
    /// The stored records.
    pub records: Vec<RecordsEntry>,
    /// The keys of the store where it had more than one: each vouches for the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyStatement>,
    /// The store's public key, 64 hex digits: signed the segments, signs this.
    pub public_key: String,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path within the folder, `/` between names.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// SHA-256, 64 hex digits.
    pub sha256: String,
}

/// Records of one source, as one run of bytes in a file of the export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordsEntry {
    /// The file.
    pub path: String,
    /// Where the run begins.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Whose records.
    pub source: SourceId,
    /// From here…
    pub from: Wall,
    /// …to here.
    pub to: Wall,
    /// The way to a signed chain head; none: not sealed yet, vouched for by this signature alone.
    pub proof: Option<Proof>,
}

/// Bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hex digits as bytes; lower case only, so that there is one spelling of each value.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let lower = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 2 * N || !digits.iter().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl Manifest {
    /// Signs `content`.
    pub fn sign(content: Content, key: &SigningKey) -> Self {
        let signature = hex(&key.sign(&content.digest()));
        Manifest { content, signature }
    }

    /// The bytes of the file.
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("nothing in it that JSON cannot");
        bytes.push(b'\n');
        bytes
    }

    /// Reads the file: its form must be exactly what [`Manifest::emit`] writes, its signature
    /// must be by the key it names. Whether that key is to be trusted is the reader's to know.
    pub fn parse(bytes: &[u8]) -> Result<Self, ExportError> {
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| ExportError::Form(error.to_string()))?;
        if manifest.emit() != bytes {
            return Err(ExportError::Form("found other bytes for the same content".to_owned()));
        }
        let signature: Option<Signature> = unhex(&manifest.signature);
        match (signature, manifest.content.key()) {
            (Some(signature), Some(key))
                if verify(&key, &manifest.content.digest(), &signature) =>
            {
                Ok(manifest)
            }
            _ => Err(ExportError::Signature),
        }
    }
}

impl Content {
    fn digest(&self) -> Hash {
        let mut digest = Digest::new();
        digest.update(DOMAIN);
        digest.update(&serde_json::to_vec(self).expect("nothing in it that JSON cannot"));
        digest.finish()
    }

    /// The store's public key.
    pub fn key(&self) -> Option<PublicKey> {
        unhex(&self.public_key)
    }

    /// All keys of the store, the one that signed this last; `None` where they do not hold together.
    pub fn keys(&self) -> Option<Keys> {
        let own = self.key()?;
        if self.keys.is_empty() {
            return Some(Keys::one(own));
        }
        Keys::of(&self.keys).ok().filter(|keys| keys.last() == own)
    }

    /// Checks the bytes of one run of records; the error says what does not fit.
    pub fn check(&self, entry: &RecordsEntry, records: &[u8]) -> Result<(), String> {
        let (Some(keys), Some(salt)) = (self.keys(), unhex::<32>(&self.salt)) else {
            return Err("expected a key and a salt of 64 hex digits".to_owned());
        };
        let Some(proof) = &entry.proof else { return Ok(()) };
        let key = keys.signer(proof.fields.worker, proof.fields.number);
        // The recorder's own events are not salted: they say nothing about anybody.
        let salt: Salt = if entry.source.stream().is_host() { [0; 32] } else { salt };
        if proof.source != entry.source {
            return Err("the proof is another source's".to_owned());
        }
        verify_proof(records, &salt, proof, &key).map(|_| ()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::StreamId;

    fn manifest() -> Manifest {
        let key = SigningKey::from_seed(&[7; 32]);
        let content = Content {
            version: VERSION,
            software: "floortape 0".to_owned(),
            recording: RsId([1; 16]),
            created: Wall(5),
            from: None,
            to: Some(Wall(9)),
            session: None,
            files: vec![FileEntry { path: "1.wav".to_owned(), bytes: 44, sha256: hex(&[2; 32]) }],
            salt: hex(&[3; 32]),
            records: vec![RecordsEntry {
                path: "proof/records".to_owned(),
                offset: 0,
                bytes: 8,
                source: SourceId::new(StreamId(1), 1),
                from: Wall(1),
                to: Wall(2),
                proof: None,
            }],
            keys: Vec::new(),
            public_key: hex(&key.public_key()),
        };
        Manifest::sign(content, &key)
    }

    #[test]
    fn every_changed_missing_or_added_byte_is_found() {
        let whole = manifest().emit();
        assert_eq!(Manifest::parse(&whole), Ok(manifest()));
        for at in 0..whole.len() {
            for change in [1, 0x20, 0x80] {
                let mut bad = whole.clone();
                bad[at] ^= change;
                assert!(Manifest::parse(&bad).is_err(), "byte {at} by {change:#x}");
            }
            let mut longer = whole.clone();
            longer.insert(at, b' ');
            assert!(Manifest::parse(&longer).is_err(), "space at {at}");
            assert!(Manifest::parse(&whole[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_manifest_signed_by_another_key_than_it_names_is_refused() {
        let other = SigningKey::from_seed(&[8; 32]);
        let forged = Manifest::sign(manifest().content, &other);
        assert_eq!(Manifest::parse(&forged.emit()), Err(ExportError::Signature));
    }
}
