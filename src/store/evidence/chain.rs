//! The chain of segments of one worker: each head covers the head before it, so that a segment
//! that is missing, renumbered or altered breaks every later one.

use serde::{Deserialize, Serialize};

use super::hash::{Digest, Hash};

/// What stands before the fields in the hashed text.
const DOMAIN: &[u8] = b"floortape chain 1\0";

/// What a chain head covers, in the order in which it is hashed (numbers little-endian).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainFields {
    /// Head of the segment before; zeros for the first.
    pub previous: Hash,
    /// Merkle root over the leaves.
    pub root: Hash,
    /// Leaves in the tree.
    pub leaves: u64,
    /// SHA-256 of the footer: rows, clock maps, fences.
    pub footer: Hash,
    /// The store.
    pub volume: [u8; 16],
    /// The worker.
    pub worker: u16,
    /// The segment's number, 1 first.
    pub number: u64,
    /// First position.
    pub from: u64,
    /// End position.
    pub through: u64,
    /// When it was sealed, wall ns.
    pub created: i64,
}

/// The chain head of a segment.
pub fn head(fields: &ChainFields) -> Hash {
    let mut digest = Digest::new();
    digest.update(DOMAIN);
    digest.update(&fields.previous);
    digest.update(&fields.root);
    digest.update(&fields.leaves.to_le_bytes());
    digest.update(&fields.footer);
    digest.update(&fields.volume);
    digest.update(&fields.worker.to_le_bytes());
    digest.update(&fields.number.to_le_bytes());
    digest.update(&fields.from.to_le_bytes());
    digest.update(&fields.through.to_le_bytes());
    digest.update(&fields.created.to_le_bytes());
    digest.finish()
}
