//! What the operator allows, for one peer.

use crate::base::family::Family;
use crate::base::suite::Suites;

/// What to do with plain RTP lines (`media.srtp` of the configuration).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SrtpPolicy {
    /// Refused.
    Require,
    /// Taken only where the offer has no secure line for that label.
    Prefer,
    /// Taken as offered.
    #[default]
    Allow,
}

/// The rules for one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Policy {
    /// Strict RFC 7866 (spec: option tag, feature tag, no keys over clear signalling).
    pub strict: bool,
    /// Plain RTP.
    pub srtp: SrtpPolicy,
    /// Crypto suites that are taken; lines with others are passed over.
    pub suites: Suites,
    /// Whether lines are taken that are authenticated but not encrypted.
    pub unencrypted: bool,
    /// Whether this hop of signalling is encrypted (TLS): RFC 4568 §8.3 wants it for keys.
    pub signalling_protected: bool,
    /// The family that we have no address of, if there is one: its lines cannot be received.
    pub lacks: Option<Family>,
}
