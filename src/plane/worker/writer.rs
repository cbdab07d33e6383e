//! Appends records to the ring. A record is built in place behind the cursor; nothing is visible
//! before the tail moves, and nothing behind the watermark is ever overwritten.

use crate::base::ids::{Index, SourceId};
use crate::base::ports::{Region, WritableRegion};
use crate::base::time::Mono;
use crate::plane::handoff::layout::{AT_DURABLE, AT_SEALED, AT_TAIL};
use crate::store::record::{self, HEADER_BYTES, RecordKind, RecordMeta, record_bytes};

/// Kept free of packets, so that the events which explain a full ring still fit: 64 streams × 1 KiB.
const EVENT_RESERVE_BYTES: u64 = 64 * 1024;

/// The writing end of one ring.
pub(super) struct Writer<G> {
    ring: G,
    ring_bytes: u64,
    cursor: u64,
    limit: u64,
}

impl<G: WritableRegion> Writer<G> {
    /// Goes on behind the committed tail of `state`.
    pub(super) fn new(ring: G, state: &impl Region) -> Self {
        let ring_bytes = ring.bytes() as u64;
        assert!(ring_bytes.is_multiple_of(8) && ring_bytes > 0, "a ring holds whole words");
        let mut writer = Writer { ring, ring_bytes, cursor: state.load(AT_TAIL), limit: 0 };
        writer.refresh(state);
        writer
    }

    /// Looks how far the spool is. Once a turn.
    pub(super) fn refresh(&mut self, state: &impl Region) {
        self.limit = state.load(AT_DURABLE).min(state.load(AT_SEALED)) + self.ring_bytes;
    }

    /// Position behind the last record built.
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Bytes in use above `mark`, as a share of the ring: in 1/256.
    pub(super) fn fill_256(&self, mark: u64) -> u64 {
        self.cursor.saturating_sub(mark) * 256 / self.ring_bytes
    }

    /// Where a packet's record of at most `bytes` goes; `None` where the ring has no room.
    #[inline]
    pub(super) fn place(&self, bytes: usize) -> Option<u64> {
        self.place_below(bytes, self.limit.saturating_sub(EVENT_RESERVE_BYTES))
    }

    fn place_below(&self, bytes: usize, limit: u64) -> Option<u64> {
        let left = self.ring_bytes - self.cursor % self.ring_bytes;
        let position = if left < bytes as u64 { self.cursor + left } else { self.cursor };
        (position + bytes as u64 <= limit).then_some(position)
    }

    /// Lends the memory of `bytes` at `position`, which [`Self::place`] gave.
    #[inline]
    pub(super) fn lend<R>(
        &mut self,
        position: u64,
        bytes: usize,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        self.ring.with_mut((position % self.ring_bytes) as usize, bytes, fill)
    }

    /// Takes the record of `bytes` at `position` into the batch; fills the ring's end before it
    /// where it did not fit there.
    #[inline]
    pub(super) fn accept(&mut self, position: u64, bytes: usize) {
        let gap = (position - self.cursor) as usize;
        if gap >= HEADER_BYTES {
            let meta = RecordMeta {
                kind: RecordKind::Pad,
                flags: 0,
                generation: 0,
                source: SourceId(0),
                index: Index(0),
                arrival: Mono(0),
            };
            let at = (self.cursor % self.ring_bytes) as usize;
            self.ring.with_mut(at, gap, |out| {
                out.fill(0);
                record::seal_in_place(&meta, gap - HEADER_BYTES, out);
            });
        }
        self.cursor = position + bytes as u64;
    }

    /// Appends a whole record; its position, or `None` where the ring has no room.
    pub(super) fn append(&mut self, meta: &RecordMeta, payload: &[u8]) -> Option<u64> {
        let bytes = record_bytes(payload.len());
        let position = self.place_below(bytes, self.limit)?;
        self.lend(position, bytes, |out| record::write(meta, payload, out));
        self.accept(position, bytes);
        Some(position)
    }

    /// Copies what stands at `position` now, which may be anything; less at the ring's end.
    pub(super) fn peek(&self, position: u64, out: &mut [u8]) -> usize {
        let at = (position % self.ring_bytes) as usize;
        let length = out.len().min(self.ring_bytes as usize - at);
        self.ring.copy_out(at, &mut out[..length]);
        length
    }

    /// Publishes everything built so far: the only commit point.
    #[inline]
    pub(super) fn commit(&self, state: &impl Region) {
        state.store(AT_TAIL, self.cursor);
    }
}
