//! Encryption of what is kept: secrets, and the keys that are made of them. Nothing here knows where
//! secrets come from or how they are wrapped (`store::keys`).

mod chunk;
mod group;
mod secret;

pub use chunk::{ChunkKey, TAG_BYTES};
pub use group::GroupKey;
pub use secret::{FRESH_BYTES, Fresh, Secret};
