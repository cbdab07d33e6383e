//! RTCP (RFC 3550 §6): reading compound packets as they come, writing our own reports.
//!
//! Media workers read on their own thread, after decryption; the reporter writes. Both work on
//! borrowed bytes: nothing is allocated.

mod read;
mod write;

pub use read::{Chunk, Compound, Packet, ReportBlock, RtcpError, SenderInfo};
pub use write::{BLOCKS_MAX, Full, Writer};

/// Packet type of a sender report.
pub const SENDER_REPORT: u8 = 200;
/// Packet type of a receiver report.
pub const RECEIVER_REPORT: u8 = 201;
/// Packet type of a source description.
pub const SOURCE_DESCRIPTION: u8 = 202;
/// Packet type of a BYE.
pub const BYE: u8 = 203;
/// The CNAME item of a source description.
const CNAME: u8 = 1;
/// Bytes of one report block.
const BLOCK_BYTES: usize = 24;
