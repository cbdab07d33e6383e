//! Encryption of what is kept: who knows the secrets, and the keys that are made of them. Nothing here
//! knows where secrets come from or how they are wrapped; without a provider everything stays in the
//! clear.

mod chunk;
mod secret;

pub use chunk::{ChunkKey, TAG_BYTES};
pub use secret::{FRESH_BYTES, Fresh, ReadKeys, Secret, WriteKeys};
