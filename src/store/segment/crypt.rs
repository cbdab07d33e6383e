//! Chunks of an extent under its key. A chunk is bound to its extent, to its place in it, to the lengths in
//! its header, and to whether it is the last: none can be changed, swapped, moved, left out or added.

use super::extent::{EXTENT_HEADER_BYTES, ExtentHeader};
use super::pack::CHUNK_HEADER_BYTES;
use crate::store::cipher::{ChunkKey, TAG_BYTES};

/// What a chunk is bound to besides its number: 128 of the extent, 8 of the chunk, 1 for the last.
const AAD_BYTES: usize = EXTENT_HEADER_BYTES + CHUNK_HEADER_BYTES + 1;

/// The chunks of one extent.
pub(super) struct Chunks {
    key: ChunkKey,
    aad: [u8; AAD_BYTES],
    next: u64,
}

impl Chunks {
    /// Of an extent with that key and header, as far as it is known.
    pub(super) fn new(key: ChunkKey, header: &ExtentHeader) -> Self {
        let mut aad = [0; AAD_BYTES];
        aad[..EXTENT_HEADER_BYTES].copy_from_slice(&header.context());
        Chunks { key, aad, next: 0 }
    }

    fn aad(&mut self, header: &[u8], last: bool) -> u64 {
        self.aad[EXTENT_HEADER_BYTES..AAD_BYTES - 1].copy_from_slice(header);
        self.aad[AAD_BYTES - 1] = u8::from(last);
        self.next += 1;
        self.next - 1
    }

    /// Encrypts the chunk that begins at `start` of `extent` and ends with it; its tag behind it.
    pub(super) fn seal(&mut self, extent: &mut Vec<u8>, start: usize, last: bool) {
        let (header, body) = extent[start..].split_at_mut(CHUNK_HEADER_BYTES);
        let number = self.aad(header, last);
        let tag = self.key.seal(number, &self.aad, body);
        extent.extend_from_slice(&tag);
    }

    /// Decrypts `stored`, a run of chunks with their tags; they as they were before, without tags, are its
    /// first octets then: how many. `None` where they are not this extent's, all of them.
    pub(super) fn open_in(mut self, stored: &mut [u8]) -> Option<usize> {
        let (mut at, mut end) = (0, 0);
        while at < stored.len() {
            let header: [u8; CHUNK_HEADER_BYTES] = *stored[at..].first_chunk()?;
            let bytes = u32::from_le_bytes(*header.first_chunk()?) as usize;
            let body = at + CHUNK_HEADER_BYTES;
            let behind = body.checked_add(bytes)?.checked_add(TAG_BYTES)?;
            let last = behind == stored.len();
            let number = self.aad(&header, last);
            self.key.open(number, &self.aad, stored.get_mut(body..behind)?)?;
            stored.copy_within(at..behind - TAG_BYTES, end);
            end += CHUNK_HEADER_BYTES + bytes;
            at = behind;
        }
        (self.next > 0).then_some(end)
    }
}

#[cfg(test)]
#[path = "crypt_tests.rs"]
mod tests;
