//! The ledger: what was recorded of a stream, what is missing, and what proves why.
//!
//! A pure fold over the records of one stream ([`StreamLedger`]) and over the recorder's own events
//! ([`HostEvidence`]). Every index from a source's first to its last is recorded, or has a cause
//! with evidence, or is `unexplained`: there is no default. Memory grows with gaps, silences and
//! sender reports, changes of CSRC lists,
//! never with packets. Called by verbs and by the catalogue, on any thread.

mod blame;
mod contributors;
pub mod dtmf;
pub mod evidence;
mod feed;
mod instants;
mod jitter;
pub mod presence;
pub mod reports;
pub mod runs;
mod stream;
mod text;

pub use evidence::{HostEvidence, Loss};
pub use feed::Ledgers;
pub use stream::{Account, Packet, StreamLedger};
