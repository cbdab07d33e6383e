//! The adapters: what the ports of `base` mean on this operating system.

pub mod affinity;
pub mod clock;
pub mod drops;
pub mod entropy;
pub mod facts;
pub mod keyfile;
pub mod mapped;
pub mod process;
pub mod seqpacket;
pub mod signal;
pub mod socket;
pub mod uring_permit;
pub mod volume;
