//! Extent after extent into the same memory, for whoever reads many: what is allocated is the longest one.

use super::extent::{CIPHER_NONE, COMPRESSION_NONE, EXTENT_HEADER_BYTES, ExtentHeader};
use super::opener::Opener;
use super::read::{
    RECORD_BYTES_PER_EXTENT_MAX, SegmentError, extent_fits, open_stored, read_into, stored_header,
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

/// Reads extents.
#[derive(Default)]
pub struct ExtentReader {
    stored: Vec<u8>,
    records: Vec<u8>,
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
        let ExtentReader { stored, records } = self;
        for memory in [&mut *stored, &mut *records] {
            if memory.capacity() > KEPT_BYTES {
                *memory = Vec::new();
            }
        }
        extent_fits(offset, bytes)?;
        let stored = read_into(file, offset, bytes, stored)?;
        let header = stored_header(stored, offset, bytes)?;
        if header.cipher != CIPHER_NONE {
            *records = open_stored(header, stored.to_vec(), offset, opener)?.records;
            return Ok(Opened { header, records, is_summed: false });
        }
        let body = &stored[EXTENT_HEADER_BYTES..];
        if header.compression == COMPRESSION_NONE {
            return Ok(Opened { header, records: body, is_summed: false });
        }
        let (records, is_summed) = unpack_into(body, RECORD_BYTES_PER_EXTENT_MAX, records)
            .ok_or(SegmentError::Packed { offset })?;
        Ok(Opened { header, records, is_summed })
    }
}
