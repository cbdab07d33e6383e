//! A buffer that O_DIRECT takes.

use crate::store::log::BLOCK_BYTES;

/// Zeroed bytes that begin on a block boundary in memory.
pub(super) struct AlignedBuffer {
    room: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl AlignedBuffer {
    pub(super) fn new(bytes: usize) -> Self {
        let room = vec![0; bytes + BLOCK_BYTES];
        let address = room.as_ptr().addr();
        AlignedBuffer { start: address.next_multiple_of(BLOCK_BYTES) - address, room, bytes }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.room[self.start..self.start + self.bytes]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + self.bytes]
    }
}
