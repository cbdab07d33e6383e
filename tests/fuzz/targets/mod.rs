//! What is fuzzed: one plain function per parser, over the product's public API. Each takes any
//! bytes and asserts what must hold of them: that what was read and written again reads the same,
//! that lengths lie within the input, that limits hold. `tests/fuzz.rs` runs them over the corpus
//! and its mutants, `tests/fuzz/cargo-fuzz` under libFuzzer.

mod body;
mod disk;
mod evidence;
mod keys;
mod link;
mod media;
mod merge;
mod played;
mod query;
mod sip;
mod store;

pub use body::{crypto, metadata, multipart, sdp};
pub use evidence::evidence;
pub use keys::{Seeded, VOLUME, kek, store_keys, veil};
pub use link::{config, datagram, handoff};
pub use media::{MASTER, frame, rtcp, rtp, srtp};
pub use merge::{BETWEEN, merge};
pub use played::{digits, h264, text};
pub use query::{moment, query};
pub use sip::{sip_framing, sip_headers};
pub use store::{
    Same, audit, is_proven, is_proven_thinned, journal, log, log_key, packed, peaks, segment,
    segment_keys, tap_mark, tap_walk, tar, thinned, wraps,
};
