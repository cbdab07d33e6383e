//! Why a packet or a key is refused.

use crate::base::suite::Suite;

/// Why a packet comes to nothing: a result to count, not an error to carry upward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fail {
    /// Header, tag or index do not fit the packet, or it is not version 2.
    #[error("packet too short for its header, index and tag, or of another version")]
    Malformed,
    /// The tag does not verify.
    #[error("authentication tag does not verify")]
    Auth,
    /// SRTCP with E = 0, although encryption was agreed (RFC 3711 §3.4).
    #[error("srtcp packet is not encrypted")]
    Unencrypted,
    /// The caller's buffer is smaller than the result.
    #[error("buffer of {wanted} bytes expected, {found} found")]
    Room {
        /// Bytes needed.
        wanted: usize,
        /// Bytes there are.
        found: usize,
    },
}

/// A master key that does not fit its suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} needs {wanted} octets of key and salt, {found} found", suite.name())]
pub struct KeyError {
    /// The suite.
    pub suite: Suite,
    /// Octets it needs.
    pub wanted: usize,
    /// Octets given.
    pub found: usize,
}
