//! TLS for signalling (RFC 3261 §26, RFC 5922): rustls with aws-lc-rs, versions 1.2 and 1.3.
//!
//! `material` reads PEM files and says what is wrong with them, `server` and `client` make the two
//! roles from them, `names` tells whom a certificate names. Nothing here opens a socket; control and
//! the built-in SRC do. Keys stay in rustls and never reach a log or an error.

mod client;
mod material;
mod names;
mod server;
#[cfg(test)]
mod tests;

pub use client::{ClientSettings, caller};
pub use material::{Term, TlsError, faults, term};
pub use names::{identity, server_name};
pub use server::{Refusal, acceptor};
