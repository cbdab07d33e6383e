//! An export's own proof: what is needed, besides the records and the salt, to check them against
//! a signed chain head without the store and without anybody else's audio.

use super::chain::{ChainFields, head};
use super::hash::{Hash, LeafHasher, Salt};
use super::merkle::root_from_leaves;
use super::sign::{PublicKey, Signature, verify};
use crate::base::ids::SourceId;

/// The way from the records of some sources in one segment to a signed head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The segment's fields.
    pub fields: ChainFields,
    /// Signature over the head.
    pub signature: Signature,
    /// Roots of the largest subtrees without any of the leaves, from left to right.
    pub beside: Vec<Hash>,
    /// What the sources' records are in the tree, in ascending order of place.
    pub leaves: Vec<Leaf>,
}

/// The records of one source in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The source.
    pub source: SourceId,
    /// Place in the tree.
    pub place: u64,
    /// Hash of salt and records.
    pub hash: Hash,
}

/// Why records are not what was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The records or the salt differ.
    #[error("the records are not those that were sealed")]
    Leaf,
    /// The leaves do.
    #[error("the records do not lead to the segment's root")]
    Root,
    /// The head is not signed by that key.
    #[error("the chain head is not signed by this key")]
    Signature,
}

impl Proof {
    /// Checks that the leaves lead to a chain head that `key` signed; returns it.
    pub fn verify(&self, key: &PublicKey) -> Result<Hash, ProofError> {
        let known: Vec<_> = self.leaves.iter().map(|leaf| (leaf.place, leaf.hash)).collect();
        if root_from_leaves(&known, self.fields.leaves, &self.beside) != Some(self.fields.root) {
            return Err(ProofError::Root);
        }
        let head = head(&self.fields);
        if verify(key, &head, &self.signature) { Ok(head) } else { Err(ProofError::Signature) }
    }
}

impl Leaf {
    /// Checks `records` (whole records of its source of its segment, in order) against it.
    pub fn holds(&self, records: &[u8], salt: &Salt) -> Result<(), ProofError> {
        // Zeros stand in for a salt that was not to be had when the ring ran full.
        let is = |salt: &Salt| hash(records, salt) == self.hash;
        if is(salt) || is(&[0; 32]) { Ok(()) } else { Err(ProofError::Leaf) }
    }
}

/// The leaf of `records`.
pub(crate) fn hash(records: &[u8], salt: &Salt) -> Hash {
    let mut leaf = LeafHasher::new(salt);
    leaf.update(records);
    leaf.finish()
}

#[cfg(test)]
mod tests {
    use super::super::{SigningKey, beside, path, root};
    use super::*;

    #[test]
    fn a_proof_holds_for_its_records_only() {
        let key = SigningKey::from_seed(&[3; 32]);
        let hashes = [&b"one"[..], b"two", b"three"].map(|records| hash(records, &[5; 32]));
        let fields = ChainFields {
            previous: [0; 32],
            root: root(&hashes),
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
        let leaf =
            |place: u64| Leaf { source: SourceId(9 + place), place, hash: hashes[place as usize] };
        let paths = [0, 2].map(|place| (place, path(&hashes, place as usize)));
        let beside = beside(&paths, 3);
        let proof = Proof { fields, signature, beside, leaves: vec![leaf(0), leaf(2)] };
        assert_eq!(proof.verify(&key.public_key()), Ok(head(&proof.fields)));
        assert_eq!(proof.leaves[1].holds(b"three", &[5; 32]), Ok(()));
        assert_eq!(proof.leaves[1].holds(b"threE", &[5; 32]), Err(ProofError::Leaf));
        assert_eq!(proof.leaves[1].holds(b"three", &[6; 32]), Err(ProofError::Leaf));
        let mut other = proof.clone();
        other.leaves[0].hash = leaf(1).hash;
        assert_eq!(other.verify(&key.public_key()), Err(ProofError::Root));
        let mut later = proof.clone();
        later.fields.created += 1;
        assert_eq!(later.verify(&key.public_key()), Err(ProofError::Signature));
    }
}
