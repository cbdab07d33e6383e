//! What is kept and what may go: the class of a recording and how long that keeps, holds, and which
//! extents of a segment are due. Pure: recordings, entries of the audit trail, the configuration and an
//! instant go in, decisions come out. Who carries them out is the shell's thread for it and the verbs.
//!
//! What was promised when a recording began only grows. A configuration that keeps it longer counts; one
//! that keeps it shorter is for new recordings, unless two persons have agreed to it. What a hold holds
//! stays, whatever its class says.

mod census;
mod class;
mod facts;
mod query;
mod rules;

pub use census::{Census, Due, Member, SegmentPlan};
pub use class::Classes;
pub use facts::Facts;
pub use query::{Query, QueryError};
pub use rules::{Hold, Proposal, Rules, Shortening, detail};
