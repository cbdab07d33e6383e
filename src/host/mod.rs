//! The adapters: what the ports of `base` mean on this operating system.

pub mod facts;
pub mod keyfile;
pub mod uring_permit;
