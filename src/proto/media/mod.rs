//! What a receiver owes its senders (RFC 3550 §6): reception statistics, when to report, and the
//! reports themselves. The worker keeps the figures of each source in shared state; the reporter
//! turns them into RR and SDES; the two meet only in values.

mod compose;
mod interval;
mod reception;

pub use compose::{Report, compose};
pub use interval::{INTERVAL_MS, delay};
pub use reception::{LastSenderReport, Prior, Reception, ntp};
