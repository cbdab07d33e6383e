//! SIP transactions and dialogs (RFC 3261, RFC 6026, RFC 3311, RFC 3581).
//!
//! [`Endpoint`] owns both sides of every transaction and the dialogs; control calls it on the SIP
//! thread. It never judges what a request asks for: option tags, SDP and policy are control's. It
//! never answers an INVITE by itself but with 100, so that control can persist before it replies.
//! [`Uac`] puts the calling role of the built-in SRC on top of the same machine.

mod client;
mod dialog;
mod digest;
mod endpoint;
mod event;
mod guard;
mod receive;
mod respond;
mod restore;
mod send;
mod server;
mod tally;
mod target;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_core;
#[cfg(test)]
mod tests_digest;
#[cfg(test)]
mod tests_lossy;
#[cfg(test)]
mod tests_restart;
#[cfg(test)]
mod tests_uac;
mod timer;
mod uac;

pub use dialog::{Answered, DialogSnapshot};
pub use digest::{Algorithm, Challenge, Credentials, Secret};
pub use endpoint::Endpoint;
pub use event::{
    ClientTxnId, DialogId, EndpointConfig, Failure, IncomingRequest, Input, Output, Reply, TlsPeer,
    TxnId,
};
pub use guard::{DigestPeer, DigestRules, Guessing};
pub use send::Invite;
pub use tally::{Oddity, Tally};
pub use target::{ConnId, Outside, Target, Transport};
pub use uac::{CallRef, Uac, UacOutput};
