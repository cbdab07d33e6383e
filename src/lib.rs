//! Floortape: a SIPREC Session Recording Server (RFC 7866) that captures (S)RTP with pinned
//! io_uring workers, loses nothing when it is killed, and proves what it holds.
//!
//! Folders are layers and imports point down; `src/ARCHITECTURE.md` draws the two paths (one RTP
//! packet, one INVITE) and `tests/tidy.rs` holds the table of allowed arrows.

pub mod base;
pub mod client;
pub mod config;
pub mod host;
pub mod plane;
pub mod proto;
pub mod shell;
pub mod store;
pub mod wire;
