//! The log: the ring's image on disk, in commit groups. Formats, and the scan that finds what is
//! there after any kind of end. The writer is `plane::spool`. Page: `appliance/docs/format-log.md`.

mod file;
mod group;
mod mark;
mod read;
mod replay;
mod scan;
mod walk;

pub use file::{FILE_MAGIC, FileHeader};
pub use group::{GROUP_BYTES_MAX, GROUP_HEADER_BYTES, GROUP_MAGIC, GroupHeader, group_span};
pub use mark::{Mark, Marks, learn_marks};
#[cfg(test)]
pub(crate) use read::secret;
pub use read::{Content, LogFile, new_key};
pub use replay::{GROUPS_PER_SYNC, Piece, Replayed, replay};
pub use scan::{
    Doubt, FileScan, Found, LOOK_BEHIND_BYTES, LogError, failed_name, folder, is_failed,
    next_position, scan_file, scan_worker, workers,
};
pub use walk::{Step, Walk};

/// Everything in a log file starts at multiples of this.
pub const BLOCK_BYTES: usize = 4096;
/// Version of file and group headers.
pub const VERSION: u32 = 1;
/// Groups stand in the clear.
const CIPHER_NONE: u16 = 0;
/// They are encrypted, each with a tag behind it.
const CIPHER_AES_256_GCM: u16 = 1;

/// CRC-32C (Castagnoli).
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
