//! What makes a store provable: SHA-256 leaves over each source's records, a Merkle tree per
//! segment, a signed chain of roots per worker, signed anchors for logs elsewhere, and the list of keys.
//! Formats: `appliance/docs/format-evidence.md`.

mod anchor;
mod chain;
mod hash;
mod hex;
mod keys;
mod lanes;
mod mark;
mod merkle;
mod proof;
mod sign;

pub use anchor::{ANCHOR_VERSION, Anchor, AnchorError, AuditHead, Heads, WorkerHead};
pub use chain::{ChainFields, head};
pub use hash::{Digest, Hash, LeafHasher, Salt, sha256};
pub use hex::Hex;
pub use keys::{KeyFields, KeyStatement, Keys, KeysError, Signers, emit_keys, parse_keys};
pub use lanes::two_leaves;
pub use mark::FileMark;
pub use merkle::{beside, node, path, root, root_from_leaves, root_from_path};
pub(crate) use proof::hash as leaf_hash;
pub use proof::{Leaf, Proof, ProofError};
pub use sign::{KeyError, PublicKey, Signature, SigningKey, THINNED, verify, verify_in};
