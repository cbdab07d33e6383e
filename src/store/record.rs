//! The record: one RTP packet, RTCP packet or event, as it stands in the ring, the log and the
//! segments. The three hold the same bytes; only their order and wrapping differ.
//!
//! ```text
//! offset  size  field
//!      0     4  payload length (bytes after the 36-byte header, padding not counted)
//!      4     1  kind
//!      5     1  flags
//!      6     2  generation: low 16 bits of the media incarnation that wrote it
//!      8     8  source: stream << 16 | ordinal
//!     16     8  index: 48-bit packet index; RTCP: SRTCP index or 0; events: 0
//!     24     8  arrival: monotonic ns of this boot, kernel receive stamp
//!     32     4  CRC-32C over bytes 0..32 and the payload
//!     36     n  payload, as received after decryption
//!   36+n     p  zeros up to the next multiple of 8
//! ```
//! All numbers are little-endian. A record never crosses the ring's end: what is left there is
//! filled by a [`RecordKind::Pad`] record, or left as it is when fewer than 36 bytes remain.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::base::ids::{Index, SourceId};
use crate::base::time::Mono;

/// Size of the header.
pub const HEADER_BYTES: usize = 36;
/// Records start at multiples of this.
pub const ALIGN: usize = 8;
/// Longest payload: a datagram, or an event.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// What a record holds. The number is the format's and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// An RTP packet: header, CSRC list, extension, payload and padding, decrypted.
    Rtp = 1,
    /// A compound RTCP packet, decrypted. Ordinal 0 of the stream.
    Rtcp = 2,
    /// An event: payload is JSON, one `store::record::Event`.
    Event = 3,
    /// A datagram that could not be handled, as it came.
    Poison = 4,
    /// Fills the ring's end.
    Pad = 255,
}

impl RecordKind {
    /// The kind of that number.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => RecordKind::Rtp,
            2 => RecordKind::Rtcp,
            3 => RecordKind::Event,
            4 => RecordKind::Poison,
            255 => RecordKind::Pad,
            _ => return None,
        })
    }
}

/// Flag: the packet came over SRTP or SRTCP and its tag verified.
pub const FLAG_AUTHENTICATED: u8 = 1;
/// Flag: came on the RTCP port (not multiplexed).
pub const FLAG_RTCP_PORT: u8 = 2;

/// The header on disk and in memory.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RecordHeader {
    payload_bytes: U32,
    kind: u8,
    flags: u8,
    generation: U16,
    source: U64,
    index: U64,
    arrival: U64,
    crc: U32,
}

/// What a header says, before its checksum is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMeta {
    /// What it holds.
    pub kind: RecordKind,
    /// `FLAG_…` bits.
    pub flags: u8,
    /// Low 16 bits of the media incarnation.
    pub generation: u16,
    /// Stream and SSRC.
    pub source: SourceId,
    /// 48-bit index.
    pub index: Index,
    /// When the kernel saw it.
    pub arrival: Mono,
}

/// Bytes that a record with `payload_bytes` of payload takes.
pub const fn record_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).next_multiple_of(ALIGN)
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than header or payload need.
    #[error("record cut short: {wanted} bytes wanted, {found} found")]
    Short {
        /// Bytes the record needs.
        wanted: usize,
        /// Bytes there are.
        found: usize,
    },
    /// A kind that no version wrote.
    #[error("unknown record kind {kind}")]
    Kind {
        /// The byte found.
        kind: u8,
    },
    /// Longer than any payload.
    #[error("record payload of {bytes} bytes is longer than any")]
    Long {
        /// The length found.
        bytes: usize,
    },
    /// Checksum differs.
    #[error("record checksum differs")]
    Crc,
}

impl RecordHeader {
    /// Seals a header for `payload`.
    pub fn seal(meta: &RecordMeta, payload: &[u8]) -> Self {
        debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
        let mut header = RecordHeader {
            payload_bytes: U32::new(payload.len() as u32),
            kind: meta.kind as u8,
            flags: meta.flags,
            generation: U16::new(meta.generation),
            source: U64::new(meta.source.0),
            index: U64::new(meta.index.0),
            arrival: U64::new(meta.arrival.0),
            crc: U32::new(0),
        };
        header.crc = U32::new(header.checksum(payload));
        header
    }

    fn checksum(&self, payload: &[u8]) -> u32 {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        digest.update(&self.as_bytes()[..32]);
        digest.update(payload);
        digest.finalize() as u32
    }

    /// Bytes of payload.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes.get() as usize
    }

    /// The fields; `None` for an unknown kind.
    pub fn meta(&self) -> Option<RecordMeta> {
        Some(RecordMeta {
            kind: RecordKind::from_code(self.kind)?,
            flags: self.flags,
            generation: self.generation.get(),
            source: SourceId(self.source.get()),
            index: Index(self.index.get()),
            arrival: Mono(self.arrival.get()),
        })
    }
}

/// One record read from bytes.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The header's fields.
    pub meta: RecordMeta,
    /// What it holds.
    pub payload: &'a [u8],
    /// Header, payload and padding as stored: what leaf hashes cover.
    pub raw: &'a [u8],
}

/// Reads the record at the start of `bytes` and checks its sum.
pub fn read(bytes: &[u8]) -> Result<Record<'_>, RecordError> {
    let (header, record) = read_unsummed(bytes)?;
    if header.crc.get() != header.checksum(record.payload) {
        return Err(RecordError::Crc);
    }
    Ok(record)
}

/// Reads one whose sum was computed just now, of what else is in it.
pub(crate) fn read_summed(bytes: &[u8]) -> Result<Record<'_>, RecordError> {
    read_unsummed(bytes).map(|(_, record)| record)
}

fn read_unsummed(bytes: &[u8]) -> Result<(RecordHeader, Record<'_>), RecordError> {
    let Ok((header, _)) = RecordHeader::read_from_prefix(bytes) else {
        return Err(RecordError::Short { wanted: HEADER_BYTES, found: bytes.len() });
    };
    let Some(meta) = header.meta() else {
        return Err(RecordError::Kind { kind: header.kind });
    };
    let payload_bytes = header.payload_bytes();
    if payload_bytes > PAYLOAD_BYTES_MAX && meta.kind != RecordKind::Pad {
        return Err(RecordError::Long { bytes: payload_bytes });
    }
    let wanted = record_bytes(payload_bytes);
    if wanted > bytes.len() {
        return Err(RecordError::Short { wanted, found: bytes.len() });
    }
    let payload = &bytes[HEADER_BYTES..HEADER_BYTES + payload_bytes];
    Ok((header, Record { meta, payload, raw: &bytes[..wanted] }))
}

/// Writes a record to the start of `out` and returns its size; `out` must have room for
/// [`record_bytes`].
pub fn write(meta: &RecordMeta, payload: &[u8], out: &mut [u8]) -> usize {
    let total = record_bytes(payload.len());
    out[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
    seal_in_place(meta, payload.len(), &mut out[..total]);
    total
}

/// Seals a record whose payload was built in place at `out[36..36 + payload_bytes]`: writes header
/// and zero padding. `out` is exactly [`record_bytes`] long.
pub fn seal_in_place(meta: &RecordMeta, payload_bytes: usize, out: &mut [u8]) {
    debug_assert_eq!(out.len(), record_bytes(payload_bytes));
    out[HEADER_BYTES + payload_bytes..].fill(0);
    let header = RecordHeader::seal(meta, &out[HEADER_BYTES..HEADER_BYTES + payload_bytes]);
    out[..HEADER_BYTES].copy_from_slice(header.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::StreamId;

    fn meta() -> RecordMeta {
        RecordMeta {
            kind: RecordKind::Rtp,
            flags: FLAG_AUTHENTICATED,
            generation: 3,
            source: SourceId::new(StreamId(9), 1),
            index: Index(65_536 + 7),
            arrival: Mono(123_456),
        }
    }

    #[test]
    fn a_g711_packet_takes_208_bytes() {
        assert_eq!(record_bytes(172), 208);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = [0xff; 256];
        let total = write(&meta(), b"hello", &mut out);
        let record = read(&out).expect("just written");
        assert_eq!((record.meta, record.payload, record.raw.len()), (meta(), &b"hello"[..], total));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let mut out = [0; 64];
        let total = write(&meta(), b"payload!!", &mut out);
        for bit in 0..(HEADER_BYTES + 9) * 8 {
            let mut bad = out;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad[..total]).is_err(), "bit {bit}");
        }
        for cut in 0..total {
            assert!(read(&out[..cut]).is_err(), "cut at {cut}");
        }
    }
}
