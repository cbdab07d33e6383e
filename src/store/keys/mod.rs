//! The keys of encryption at rest, and their way to nothing. Page: `appliance/docs/format-keys.md`.
//!
//! ```text
//! key-encryption key (KEK)      a file or a credential of the service manager; never in the store
//!   └ store key                 STORE/keys/store-{a,b}.keys, wrapped by the KEK
//!       ├ secrets of a segment  beside the segment, one for each stream, wrapped by a derived key
//!       ├ keys of files         the head of each file of journal, history and audit trail, wrapped so too
//!       ├ keys of log files     the first block of each, for one use of it
//!       └ catalogue key         derived
//! ```
//!
//! A new KEK wraps one key anew. Who overwrites the secret of a stream in a segment has made of its audio
//! what nobody can read, while every hash over it stays.

mod key_maker;
mod log_wraps;
mod segment_keys;
mod store_key;
mod veiled;

use std::path::{Path, PathBuf};

pub use key_maker::{KeyMaker, WriteKeys};
pub use segment_keys::{KeyError, KeyFault, Of, SegmentKeys, Wraps, bury, destroy, path_of};
pub use store_key::{KEK_BYTES, Kek, StoreKey, StoreKeys, StoreKeysError, derive, fingerprint};
pub(crate) use veiled::no_key;
pub use veiled::{Veil, Veiled, VeiledFile, is_locked};

/// Where the keys of a store are.
pub fn folder(store: &Path) -> PathBuf {
    store.join("keys")
}
