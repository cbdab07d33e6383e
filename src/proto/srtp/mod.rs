//! SRTP and SRTCP (RFC 3711, RFC 6188, RFC 7714): our own engine. It authenticates in the receive buffer and
//! decrypts from there into the caller's buffer, so that a rescan of the buffers after a kill
//! repeats it bit for bit.
//!
//! A [`Context`] is what an SRC encrypts with: indexes and replay windows are the caller's
//! (`wire::seq`), in shared memory on the hot path. Per packet there is no allocation and no key
//! schedule, but for an SRC that asks for new session keys each so many packets (KDR).

mod cm;
mod context;
mod derive;
mod etm;
mod f8;
mod fail;
mod gcm;
mod hmac;
mod keys;
pub mod receiver;

pub use context::{Context, SRTCP_INDEX_MAX};
pub use fail::{Fail, KeyError};
