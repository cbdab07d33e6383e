//! Reads segments: trailer, rows, one extent. Every length is checked before it is used, and
//! nothing that fails its sum is handed out.

use std::io;

use super::crypt::Chunks;
use super::extent::{
    CIPHER_AES_256_GCM, CIPHER_NONE, COMPRESSION_NONE, COMPRESSION_PACKED, EXTENT_HEADER_BYTES,
    ExtentHeader,
};
use super::footer::{
    CLOCK_BYTES, FENCE_BYTES, FENCE_ROWS, Footer, ROW_BYTES, Row, TRAILER_BYTES, Trailer,
    footer_hash, parse_clock,
};
use super::opener::Opener;
use super::unpack::{first_record, unpack};
use crate::base::ids::{SourceId, StreamId};
use crate::base::ports::DiskFile;
use crate::base::time::{ClockMap, Mono};
use crate::store::evidence::{Hash, path};
use crate::store::keys::KeyError;
use crate::store::log::crc32c;

/// Longest extent that is read at once: a whole segment of the largest configurable size.
pub const RECORD_BYTES_PER_EXTENT_MAX: u64 = 4 << 30;
/// Most bytes of rows, clock maps or fences that are read at once: 2 M rows.
const FOOTER_BYTES_MAX: u64 = 256 << 20;

/// Why a part of a segment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The disk said no.
    #[error("read at offset {offset}: {source}")]
    Disk {
        /// Where.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The file ends too early.
    #[error("{wanted} bytes wanted at offset {offset}, the file ends before")]
    Short {
        /// Where.
        offset: u64,
        /// Bytes wanted.
        wanted: u64,
    },
    /// The last 512 bytes are no valid trailer.
    #[error("no valid trailer at the end of the file")]
    Trailer,
    /// Rows, clock maps or fences are not what the trailer vouches for.
    #[error("the footer is damaged at offset {offset}")]
    Footer {
        /// Where.
        offset: u64,
    },
    /// The bytes at an extent's place are no valid extent.
    #[error("no valid extent at offset {offset}")]
    Extent {
        /// Where.
        offset: u64,
    },
    /// The bytes of an extent are those that were written, and no records can be had from them.
    #[error("the records of the extent at offset {offset} cannot be unpacked")]
    Packed {
        /// Where the extent begins.
        offset: u64,
    },
    /// An extent is encrypted and whole, as far as its sum tells; its key is not there.
    #[error("the extent at offset {offset} is encrypted, and its key is not there")]
    NoKey {
        /// Where the extent begins.
        offset: u64,
    },
    /// An extent is encrypted, and its key cannot be had, though the store's is there.
    #[error("the extent at offset {offset} is encrypted: {source}")]
    Key {
        /// Where the extent begins.
        offset: u64,
        /// Why.
        source: KeyError,
    },
    /// An extent has the sum that it had, and its key does not open it.
    #[error("the extent at offset {offset} is not what was encrypted under its key")]
    Sealed {
        /// Where the extent begins.
        offset: u64,
    },
    /// An extent's records are not those that were written.
    #[error("the records of the extent at offset {offset} are damaged")]
    Records {
        /// Where the extent begins.
        offset: u64,
    },
}

/// Reads exactly `wanted` bytes.
fn read_exact<F: DiskFile>(file: &F, offset: u64, wanted: u64) -> Result<Vec<u8>, SegmentError> {
    let mut bytes = Vec::new();
    read_into(file, offset, wanted, &mut bytes)?;
    Ok(bytes)
}

/// Reads exactly `wanted` bytes to the start of `memory`, which is made longer where it has to be.
pub(super) fn read_into<'m, F: DiskFile>(
    file: &F,
    offset: u64,
    wanted: u64,
    memory: &'m mut Vec<u8>,
) -> Result<&'m [u8], SegmentError> {
    let size = file.bytes().map_err(|source| SegmentError::Disk { offset, source })?;
    // Before any allocation: a length that the file cannot have is not believed.
    if offset.checked_add(wanted).is_none_or(|end| end > size) {
        return Err(SegmentError::Short { offset, wanted });
    }
    if memory.len() < wanted as usize {
        memory.resize(wanted as usize, 0);
    }
    let bytes = &mut memory[..wanted as usize];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(offset + done as u64, &mut bytes[done..]) {
            Ok(0) => return Err(SegmentError::Short { offset, wanted }),
            Ok(count) => done += count,
            Err(source) => return Err(SegmentError::Disk { offset, source }),
        }
    }
    Ok(bytes)
}

/// Reads the trailer ([`TRAILER_BYTES`] from the disk).
pub fn read_trailer<F: DiskFile>(file: &F) -> Result<Trailer, SegmentError> {
    let size = file.bytes().map_err(|source| SegmentError::Disk { offset: 0, source })?;
    let at = size.checked_sub(TRAILER_BYTES as u64).ok_or(SegmentError::Trailer)?;
    let bytes = read_exact(file, at, TRAILER_BYTES as u64)?;
    Trailer::parse(&bytes, size).ok_or(SegmentError::Trailer)
}

/// Reads rows and clock maps, and checks them against the trailer's hash.
pub fn read_footer<F: DiskFile>(file: &F, trailer: Trailer) -> Result<Footer, SegmentError> {
    let offset = trailer.rows_at;
    let wanted = trailer.fences_at + trailer.fences * FENCE_BYTES as u64 - offset;
    if wanted > FOOTER_BYTES_MAX {
        return Err(SegmentError::Footer { offset });
    }
    let bytes = read_exact(file, offset, wanted)?;
    if footer_hash(&bytes) != trailer.footer {
        return Err(SegmentError::Footer { offset });
    }
    let (rows, rest) = bytes.split_at((trailer.clocks_at - offset) as usize);
    let (clocks, _) = rest.split_at((trailer.fences_at - trailer.clocks_at) as usize);
    Ok(Footer { rows: parse_rows(rows, offset)?, clocks: parse_clocks(clocks), trailer })
}

fn parse_rows(bytes: &[u8], offset: u64) -> Result<Vec<Row>, SegmentError> {
    let rows = bytes.chunks_exact(ROW_BYTES).enumerate();
    rows.map(|(place, row)| {
        let offset = offset + (place * ROW_BYTES) as u64;
        Row::parse(row).ok_or(SegmentError::Footer { offset })
    })
    .collect()
}

fn parse_clocks(bytes: &[u8]) -> Vec<ClockMap> {
    bytes.as_chunks::<CLOCK_BYTES>().0.iter().map(parse_clock).collect()
}

/// Reads the clock maps only.
pub(crate) fn read_clocks<F: DiskFile>(
    file: &F,
    trailer: &Trailer,
) -> Result<Vec<ClockMap>, SegmentError> {
    let wanted = (trailer.fences_at - trailer.clocks_at).min(FOOTER_BYTES_MAX);
    read_exact(file, trailer.clocks_at, wanted).map(|bytes| parse_clocks(&bytes))
}

/// Where a run of [`FENCE_ROWS`] rows begins.
struct Fence {
    source: SourceId,
    /// Merkle root of the run's leaves.
    root: Hash,
}

fn read_fences<F: DiskFile>(file: &F, trailer: &Trailer) -> Result<Vec<Fence>, SegmentError> {
    let wanted = trailer.fences * FENCE_BYTES as u64;
    if wanted > FOOTER_BYTES_MAX {
        return Err(SegmentError::Footer { offset: trailer.fences_at });
    }
    let bytes = read_exact(file, trailer.fences_at, wanted)?;
    let fence = |bytes: &[u8; FENCE_BYTES]| {
        let (source, root) = bytes.split_at(8);
        Fence {
            source: SourceId(u64::from_le_bytes(source.try_into().expect("8 of 40 bytes"))),
            root: root.try_into().expect("32 of 40 bytes"),
        }
    };
    Ok(bytes.as_chunks::<FENCE_BYTES>().0.iter().map(fence).collect())
}

/// The rows behind fence number `block`.
fn read_block<F: DiskFile>(
    file: &F,
    trailer: &Trailer,
    block: usize,
) -> Result<Vec<Row>, SegmentError> {
    let row = (block * FENCE_ROWS) as u64;
    let offset = trailer.rows_at + row * ROW_BYTES as u64;
    let count = (trailer.rows - row).min(FENCE_ROWS as u64);
    let bytes = read_exact(file, offset, count * ROW_BYTES as u64)?;
    parse_rows(&bytes, offset)
}

/// A leaf on its way to the root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub source: SourceId,
    pub place: u64,
    pub leaf: Hash,
    /// Lowest first.
    pub path: Vec<Hash>,
}

/// The ways of leaves to the root, of those of `sources` (ascending) that are there: from runs of rows and
/// the fences, of one leaf some 9 KB of a thousand extents, where the whole footer has 130.
///
/// Runs are as long as a power of two, so that the tree over the runs' roots is the upper part of
/// the tree over all leaves (RFC 6962 §2.1 splits at the largest power of two).
pub(crate) fn find_ways<F: DiskFile>(
    file: &F,
    trailer: &Trailer,
    sources: &[SourceId],
) -> Result<Vec<Way>, SegmentError> {
    let fences = read_fences(file, trailer)?;
    let roots: Vec<Hash> = fences.iter().map(|fence| fence.root).collect();
    let mut ways = Vec::with_capacity(sources.len());
    let mut read: Option<(usize, Vec<Row>, Vec<Hash>)> = None;
    for source in sources {
        let before = fences.partition_point(|fence| fence.source <= *source);
        let Some(block) = before.checked_sub(1) else { continue };
        if read.as_ref().is_none_or(|(known, ..)| *known != block) {
            let rows = read_block(file, trailer, block)?;
            let leaves = rows.iter().map(|row| row.leaf).collect();
            read = Some((block, rows, leaves));
        }
        let (_, rows, leaves) = read.as_ref().expect("read above");
        let Ok(place) = rows.binary_search_by_key(source, |row| row.source) else { continue };
        let mut way = path(leaves, place);
        way.extend(path(&roots, block));
        let at = (block * FENCE_ROWS + place) as u64;
        ways.push(Way { source: *source, place: at, leaf: leaves[place], path: way });
    }
    Ok(ways)
}

/// Rows of the given streams, by way of the fences: reads only the blocks of rows that may hold
/// them. Also returns the bytes read.
pub fn find_rows<F: DiskFile>(
    file: &F,
    trailer: &Trailer,
    streams: &std::collections::BTreeSet<StreamId>,
) -> Result<(Vec<Row>, u64), SegmentError> {
    let fences = read_fences(file, trailer)?;
    let mut bytes_read = trailer.fences * FENCE_BYTES as u64;
    let mut found: Vec<Row> = Vec::new();
    let mut next_block = 0;
    for stream in streams {
        let low = SourceId::new(*stream, 0).0;
        let high = SourceId::new(*stream, u16::MAX).0;
        let first = fences.partition_point(|fence| fence.source.0 <= low).saturating_sub(1);
        let end = fences.partition_point(|fence| fence.source.0 <= high);
        for block in first.max(next_block)..end {
            let rows = read_block(file, trailer, block)?;
            bytes_read += (rows.len() * ROW_BYTES) as u64;
            found.extend(rows.into_iter().filter(|row| streams.contains(&row.source.stream())));
            next_block = block + 1;
        }
    }
    Ok((found, bytes_read))
}

/// One extent, whole and checked.
pub struct Extent {
    /// Its header.
    pub header: ExtentHeader,
    /// Its records, in the order of the log.
    pub records: Vec<u8>,
}

/// Reads the extent at `offset` (`bytes`: header included): one read of exactly that. One that is
/// encrypted is not opened.
pub fn read_extent<F: DiskFile>(file: &F, offset: u64, bytes: u64) -> Result<Extent, SegmentError> {
    open_extent(file, offset, bytes, None)
}

/// As [`read_extent`]; `opener` opens what is encrypted.
pub fn open_extent<F: DiskFile>(
    file: &F,
    offset: u64,
    bytes: u64,
    opener: Option<&dyn Opener>,
) -> Result<Extent, SegmentError> {
    extent_fits(offset, bytes)?;
    let stored = read_exact(file, offset, bytes)?;
    let header = stored_header(&stored, offset, bytes)?;
    open_stored(header, stored, offset, opener)
}

/// Whether an extent can be so long.
pub(super) fn extent_fits(offset: u64, bytes: u64) -> Result<(), SegmentError> {
    let fits = (EXTENT_HEADER_BYTES as u64..=RECORD_BYTES_PER_EXTENT_MAX).contains(&bytes);
    if fits { Ok(()) } else { Err(SegmentError::Extent { offset }) }
}

/// The header of an extent as it is stored, `bytes` long; checked, and all of it against its sum.
pub(super) fn stored_header(
    stored: &[u8],
    offset: u64,
    bytes: u64,
) -> Result<ExtentHeader, SegmentError> {
    let header = ExtentHeader::parse(stored)
        .filter(|header| header.bytes == bytes - EXTENT_HEADER_BYTES as u64)
        .ok_or(SegmentError::Extent { offset })?;
    // An unknown cipher or compression is a newer writer's: its bytes are not records to us.
    if header.cipher > CIPHER_AES_256_GCM || header.compression > COMPRESSION_PACKED {
        return Err(SegmentError::Extent { offset });
    }
    if crc32c(&stored[EXTENT_HEADER_BYTES..]) != header.records_crc {
        return Err(SegmentError::Records { offset });
    }
    Ok(header)
}

/// What opens the chunks of an extent that is encrypted.
pub(super) fn chunks_of(
    header: &ExtentHeader,
    offset: u64,
    opener: Option<&dyn Opener>,
) -> Result<Chunks, SegmentError> {
    let stream = header.source.stream();
    let key = opener.ok_or(KeyError::Locked).and_then(|one| one.key(stream, &header.nonce));
    let key = key.map_err(|source| match source {
        KeyError::Locked => SegmentError::NoKey { offset },
        source => SegmentError::Key { offset, source },
    })?;
    Ok(Chunks::new(key, header))
}

/// The records of an extent that was read and checked.
fn open_stored(
    header: ExtentHeader,
    mut stored: Vec<u8>,
    offset: u64,
    opener: Option<&dyn Opener>,
) -> Result<Extent, SegmentError> {
    stored.drain(..EXTENT_HEADER_BYTES);
    if header.cipher == CIPHER_AES_256_GCM {
        let opened = chunks_of(&header, offset, opener)?.open_in(&mut stored);
        stored.truncate(opened.ok_or(SegmentError::Sealed { offset })?);
    } else if header.compression == COMPRESSION_NONE {
        return Ok(Extent { header, records: stored });
    }
    let records = unpack(&stored, RECORD_BYTES_PER_EXTENT_MAX);
    Ok(Extent { header, records: records.ok_or(SegmentError::Packed { offset })? })
}

/// The first record of the extent at `offset`, from the first `room` bytes behind its header. Its own
/// sum is all that vouches for it: check it. Of an extent that is encrypted, all is read. `None` where it
/// is not whole, no extent is there, or it cannot be opened.
pub(crate) fn read_first_record<F: DiskFile>(
    file: &F,
    offset: u64,
    room: usize,
    opener: Option<&dyn Opener>,
) -> Option<Vec<u8>> {
    let mut bytes = vec![0; EXTENT_HEADER_BYTES + room];
    let count = file.read_at(offset, &mut bytes).ok()?;
    let stored = bytes[..count].get(EXTENT_HEADER_BYTES..)?;
    let header = ExtentHeader::parse(&bytes)?;
    match (header.cipher, header.compression) {
        (CIPHER_NONE, COMPRESSION_NONE) => Some(stored.to_vec()),
        (CIPHER_NONE, COMPRESSION_PACKED) => first_record(stored),
        (CIPHER_AES_256_GCM, _) => {
            let bytes = header.bytes.checked_add(EXTENT_HEADER_BYTES as u64)?;
            open_extent(file, offset, bytes, opener).ok().map(|extent| extent.records)
        }
        _ => None,
    }
}

/// The clock map valid at `arrival`: the last one taken by then, else the first.
pub fn clock_at(clocks: &[ClockMap], arrival: Mono) -> ClockMap {
    let behind = clocks.partition_point(|map| map.mono <= arrival);
    clocks.get(behind.saturating_sub(1)).copied().unwrap_or_default()
}
