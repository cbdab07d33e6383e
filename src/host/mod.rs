//! The adapters: what the ports of `base` mean on this operating system.

pub mod keyfile;
