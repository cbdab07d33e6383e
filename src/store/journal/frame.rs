//! One frame of a journal file.
//!
//! ```text
//! offset  size  field
//!      0     4  length of the body, little-endian
//!      4     4  CRC-32C over bytes 0..4 and the body
//!      8     n  body: one `Entry`, or one line of a snapshot, JSON
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::entry::Entry;

/// Bytes before the body.
pub const HEAD_BYTES: usize = 8;
/// Largest body: a 256 KiB metadata body is 350 KiB in base64; an `Opened` of 32 lines some 60 KiB.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What every body starts with: the tag that serde writes first. Used to find the next frame behind
/// damage.
const BODY_START: &[u8] = b"{\"entry\":\"";

/// Appends the frame of `entry` to `out`; false (and nothing appended) where it is too long.
pub fn write<T: Serialize>(entry: &T, out: &mut Vec<u8>) -> bool {
    let body = serde_json::to_vec(entry).expect("entries hold nothing that JSON cannot");
    if body.len() > BODY_BYTES_MAX {
        return false;
    }
    let length = (body.len() as u32).to_le_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(&length, &body).to_le_bytes());
    out.extend_from_slice(&body);
    true
}

/// Reads the frame at the start of `bytes`: the entry and the frame's size. `None` where there is
/// no whole, undamaged frame.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, usize)> {
    let length: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    let crc: [u8; 4] = bytes.get(4..HEAD_BYTES)?.try_into().ok()?;
    let body_bytes = u32::from_le_bytes(length) as usize;
    if body_bytes > BODY_BYTES_MAX {
        return None;
    }
    let body = bytes.get(HEAD_BYTES..HEAD_BYTES + body_bytes)?;
    if !body.starts_with(BODY_START) || checksum(&length, body) != u32::from_le_bytes(crc) {
        return None;
    }
    Some((serde_json::from_slice(body).ok()?, HEAD_BYTES + body_bytes))
}

/// Offset of the next whole frame of the journal in `bytes` at or after `from`.
pub fn find(bytes: &[u8], from: usize) -> Option<usize> {
    find_as::<Entry>(bytes, from)
}

/// The same, of whatever is framed so.
pub fn find_as<T: DeserializeOwned>(bytes: &[u8], from: usize) -> Option<usize> {
    let finder = memchr::memmem::Finder::new(BODY_START);
    let mut at = from;
    while let Some(found) = finder.find(bytes.get(at..)?) {
        let body = at + found;
        if let Some(start) = body.checked_sub(HEAD_BYTES)
            && start >= from
            && read::<T>(&bytes[start..]).is_some()
        {
            return Some(start);
        }
        at = body + 1;
    }
    None
}

fn checksum(length: &[u8; 4], body: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(length);
    digest.update(body);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::StreamId;

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let mut bytes = Vec::new();
        assert!(write(&Entry::StreamIds { next: StreamId(64) }, &mut bytes));
        assert_eq!(read::<Entry>(&bytes).map(|(_, size)| size), Some(bytes.len()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read::<Entry>(&bad).is_none(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(read::<Entry>(&bytes[..cut]).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn the_next_frame_is_found_behind_damage() {
        let mut bytes = Vec::new();
        for next in 1..4 {
            write(&Entry::StreamIds { next: StreamId(next) }, &mut bytes);
        }
        let one = bytes.len() / 3;
        bytes[one + 12] ^= 1;
        assert_eq!(find(&bytes, one), Some(2 * one));
        assert_eq!(find(&bytes, 2 * one + 1), None);
    }
}
