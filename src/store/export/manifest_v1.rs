//! `manifest.json` of version 1, which is read and not written any more: each run of records had all of its way
//! to the signed chain head beside it, which made 1.2 GB of the manifest of a day of sixteen lines.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::manifest::{DOMAIN, FileEntry};
use crate::base::ids::{RsId, SourceId};
use crate::base::time::Wall;
use crate::store::evidence::{
    ChainFields, Hash, KeyStatement, PublicKey, Salt, Signature, head, leaf_hash, root_from_path,
    verify,
};

/// The version.
pub const VERSION: u32 = 1;

/// The manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) content: Content,
    pub(super) signature: String,
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    pub(super) version: u32,
    pub(super) software: String,
    pub(super) recording: RsId,
    pub(super) created: Wall,
    pub(super) from: Option<Wall>,
    pub(super) to: Option<Wall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<String>,
    pub(super) files: Vec<FileEntry>,
    pub(super) salt: String,
    pub(super) records: Vec<Run>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) keys: Vec<KeyStatement>,
    pub(super) public_key: String,
}

/// Records of one source, as one run of bytes in a file of the export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
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
    /// The way to a signed chain head; none: not sealed yet, vouched for by the signature alone.
    pub proof: Option<Way>,
}

/// The way from one source's records in one segment to a signed head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The source.
    pub source: SourceId,
    /// Place of its leaf in the tree.
    pub place: u64,
    /// Hashes beside the way to the root, lowest first.
    pub path: Vec<Hash>,
    /// The segment's fields.
    pub fields: ChainFields,
    /// Signature over the head, as 128 hex digits.
    #[serde(with = "signature_hex")]
    pub signature: Signature,
}

impl Manifest {
    /// Two spaces of indent and a newline at the end.
    pub(super) fn emit(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("nothing in it that JSON cannot");
        bytes.push(b'\n');
        bytes
    }
}

impl Content {
    /// What is signed.
    pub(super) fn digest(&self) -> Hash {
        super::manifest::digest(DOMAIN, self)
    }
}

impl Way {
    /// Checks `records` against it; the error says what does not fit.
    pub fn check(&self, records: &[u8], salt: &Salt, key: &PublicKey) -> Result<(), String> {
        let leads = |salt: &Salt| {
            let leaf = leaf_hash(records, salt);
            let root = root_from_path(&leaf, self.place, self.fields.leaves, &self.path);
            root == Some(self.fields.root)
        };
        // Zeros stand in for a salt that was not to be had when the ring ran full.
        if !leads(salt) && !leads(&[0; 32]) {
            return Err("the records do not lead to the segment's root".to_owned());
        }
        if verify(key, &head(&self.fields), &self.signature) {
            Ok(())
        } else {
            Err("the chain head is not signed by this key".to_owned())
        }
    }
}

/// serde knows arrays up to 32 only.
mod signature_hex {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 64], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::super::manifest::hex(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 64], D::Error> {
        let text = String::deserialize(from)?;
        let bytes = super::super::manifest::unhex(&text);
        bytes.ok_or_else(|| D::Error::custom("expected 128 hex digits"))
    }
}
