//! Extent after extent into the same memory, for whoever reads many: what is allocated is the longest one.

use std::ops::Range;

use super::extent::{CIPHER_NONE, COMPRESSION_NONE, EXTENT_HEADER_BYTES, ExtentHeader};
use super::opener::Opener;
use super::read::{
    RECORD_BYTES_PER_EXTENT_MAX, SegmentError, chunks_of, extent_fits, read_into, stored_header,
};
use super::unpack::unpack_into;
use crate::base::ports::DiskFile;

/// Memory of a longer extent is given back behind it: only what one source sends in hours is as long.
const KEPT_BYTES: usize = 64 << 20;

/// One extent, whole and checked, until the next is read.
pub struct Opened<'a> {
    /// Its header.
    pub header: ExtentHeader,
    /// Its records, in the order of the log.
    pub records: &'a [u8],
    /// The records' own sums were computed of what was unpacked, just now: they cannot but be right.
    pub is_summed: bool,
}

/// The records of an extent, with the memory that they stand in.
pub(super) struct Held {
    memory: Vec<u8>,
    records: Range<usize>,
}

impl Held {
    pub(super) fn records(&self) -> &[u8] {
        &self.memory[self.records.clone()]
    }
}

/// Reads extents.
#[derive(Default)]
pub struct ExtentReader {
    stored: Vec<u8>,
    records: Vec<u8>,
    /// Where in `stored` the records of the last one are; `None`: in `records`, as many octets.
    last: (Option<Range<usize>>, usize),
    spare: Option<Vec<u8>>,
}

impl ExtentReader {
    /// As [`super::open_extent`].
    pub fn open<F: DiskFile>(
        &mut self,
        file: &F,
        offset: u64,
        bytes: u64,
        opener: Option<&dyn Opener>,
    ) -> Result<Opened<'_>, SegmentError> {
        let ExtentReader { stored, records, last, .. } = self;
        *last = (None, 0);
        for memory in [&mut *stored, &mut *records] {
            if memory.capacity() > KEPT_BYTES {
                *memory = Vec::new();
            }
        }
        extent_fits(offset, bytes)?;
        read_into(file, offset, bytes, stored)?;
        let stored = &mut stored[..bytes as usize];
        let header = stored_header(stored, offset, bytes)?;
        let mut body = EXTENT_HEADER_BYTES..stored.len();
        if header.cipher != CIPHER_NONE {
            let chunks = chunks_of(&header, offset, opener)?;
            let opened = chunks.open_in(&mut stored[body.clone()]);
            body.end = body.start + opened.ok_or(SegmentError::Sealed { offset })?;
        } else if header.compression == COMPRESSION_NONE {
            *last = (Some(body.clone()), 0);
            return Ok(Opened { header, records: &stored[body], is_summed: false });
        }
        let (records, is_summed) = unpack_into(&stored[body], RECORD_BYTES_PER_EXTENT_MAX, records)
            .ok_or(SegmentError::Packed { offset })?;
        *last = (None, records.len());
        Ok(Opened { header, records, is_summed })
    }

    /// Gives the records of the last one away that was opened, before the next is.
    pub(super) fn hold(&mut self) -> Held {
        let (stands, bytes) = self.last.clone();
        let memory = if stands.is_some() { &mut self.stored } else { &mut self.records };
        let memory = std::mem::replace(memory, self.spare.take().unwrap_or_default());
        Held { memory, records: stands.unwrap_or(0..bytes) }
    }

    /// Takes memory back.
    pub(super) fn give_back(&mut self, held: Held) {
        if held.memory.capacity() <= KEPT_BYTES {
            self.spare = Some(held.memory);
        }
    }
}
