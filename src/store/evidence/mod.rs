//! What makes a store provable: SHA-256 leaves over each source's records, a Merkle tree per
//! segment, and a signed chain of roots per worker. Formats: `appliance/docs/format-evidence.md`.

mod chain;
mod hash;
mod merkle;
mod proof;
mod sign;

pub use chain::{ChainFields, head};
pub use hash::{Digest, Hash, LeafHasher, Salt, sha256};
pub use merkle::{node, path, root, root_from_path};
pub use proof::{Proof, ProofError, verify_proof};
pub use sign::{KeyError, PublicKey, Signature, SigningKey, THINNED, verify, verify_in};
