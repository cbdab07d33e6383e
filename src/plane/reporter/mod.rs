//! The reporter: our RTCP. It reads slots and sources in shared state, which the workers write, and
//! says every five seconds or so, for each open slot, what was received (RR, SDES with CNAME), also
//! where nothing was: an empty report keeps the path through a NAT open.
//!
//! One instance on media's command thread. It opens no socket: the caller sends each
//! [`Transmit`] from the slot's announced RTCP port (RFC 7866 §8.1.8).

mod member;
mod turn;

pub use turn::{Reporter, TURN_REPORTS_MAX, Transmit, WorkerState};
