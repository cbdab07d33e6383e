//! An export's own proof: what is needed, besides the records and the salt, to check them against
//! a signed chain head without the store and without anybody else's audio.

use serde::{Deserialize, Serialize};

use super::chain::{ChainFields, head};
use super::hash::{Hash, LeafHasher, Salt};
use super::merkle::root_from_path;
use super::sign::{PublicKey, Signature, verify};
use crate::base::ids::SourceId;

/// The way from one source's records in one segment to a signed head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
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

/// Why records are not what was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The records, salt or path differ.
    #[error("the records do not lead to the segment's root")]
    Root,
    /// The head is not signed by that key.
    #[error("the chain head is not signed by this key")]
    Signature,
}

/// Checks `records` (whole records of one source of one segment, in order) against `proof`.
/// Returns the chain head that vouches for them.
pub fn verify_proof(
    records: &[u8],
    salt: &Salt,
    proof: &Proof,
    key: &PublicKey,
) -> Result<Hash, ProofError> {
    let leads = |salt: &Salt| {
        let mut leaf = LeafHasher::new(salt);
        leaf.update(records);
        let root = root_from_path(&leaf.finish(), proof.place, proof.fields.leaves, &proof.path);
        root == Some(proof.fields.root)
    };
    // Zeros stand in for a salt that was not to be had when the ring ran full.
    if !leads(salt) && !leads(&[0; 32]) {
        return Err(ProofError::Root);
    }
    let head = head(&proof.fields);
    if verify(key, &head, &proof.signature) { Ok(head) } else { Err(ProofError::Signature) }
}

/// serde knows arrays up to 32 only.
mod signature_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 64], to: S) -> Result<S::Ok, S::Error> {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 64], D::Error> {
        let text = String::deserialize(from)?;
        let mut bytes = [0; 64];
        if text.len() != 128 || !text.is_ascii() {
            return Err(D::Error::custom("expected 128 hex digits"));
        }
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[place * 2..place * 2 + 2], 16)
                .map_err(D::Error::custom)?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SigningKey, path, root};
    use super::*;

    #[test]
    fn a_proof_holds_for_its_records_only_and_survives_json() {
        let key = SigningKey::from_seed(&[3; 32]);
        let leaf = |records: &[u8]| {
            let mut leaf = LeafHasher::new(&[5; 32]);
            leaf.update(records);
            leaf.finish()
        };
        let leaves = [leaf(b"one"), leaf(b"two"), leaf(b"three")];
        let fields = ChainFields {
            previous: [0; 32],
            root: root(&leaves),
            leaves: 3,
            footer: [1; 32],
            volume: [2; 16],
            worker: 0,
            number: 1,
            from: 0,
            through: 80,
            created: 5,
        };
        let signature = key.sign(&head(&fields));
        let proof =
            Proof { source: SourceId(9), place: 2, path: path(&leaves, 2), fields, signature };
        let text = serde_json::to_string(&proof).unwrap();
        let proof: Proof = serde_json::from_str(&text).unwrap();
        assert!(verify_proof(b"three", &[5; 32], &proof, &key.public_key()).is_ok());
        let wrong = verify_proof(b"threE", &[5; 32], &proof, &key.public_key());
        assert_eq!(wrong, Err(ProofError::Root));
        let salt = verify_proof(b"three", &[6; 32], &proof, &key.public_key());
        assert_eq!(salt, Err(ProofError::Root));
        let mut later = proof.clone();
        later.fields.created += 1;
        let forged = verify_proof(b"three", &[5; 32], &later, &key.public_key());
        assert_eq!(forged, Err(ProofError::Signature));
    }
}
