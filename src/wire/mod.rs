//! Bytes to values and back. Nothing here waits, allocates without a bound, or panics on any input.

pub mod aor;
pub mod ethernet;
pub mod event;
pub mod metadata;
pub mod multipart;
pub mod red;
pub mod rtcp;
pub mod rtp;
pub mod sdes;
pub mod sdp;
pub mod seq;
pub mod sip;
