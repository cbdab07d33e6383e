//! First bytes of a segment: what a stranger needs to know what it is. The trailer repeats them
//! under the signature.
//!
//! ```text
//! offset  size  field
//!      0     8  magic "FTSEGM01"
//!      8     4  version (1)
//!     12     2  worker
//!     14     2  zero
//!     16    16  volume id of the store
//!     32     8  segment number, 1 first, no gaps within a worker
//!     40     8  first position covered
//!     48     8  end position covered
//!     56     8  wall ns when it was sealed
//!     64    32  chain head of the segment before (zeros for the first)
//!     96    28  zero
//!    124     4  CRC-32C of bytes 0..124
//! ```

use zerocopy::byteorder::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::VERSION;
use super::sum::{is_sound, summed};
use crate::base::ids::{Position, WorkerId};
use crate::base::time::Wall;
use crate::store::evidence::Hash;

/// First bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"FTSEGM01";
/// Bytes of its header.
pub const SEGMENT_HEADER_BYTES: usize = 128;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    version: U32,
    worker: U16,
    zero: U16,
    volume: [u8; 16],
    number: U64,
    from: U64,
    through: U64,
    created: I64,
    previous: Hash,
    reserved: [u8; 28],
    crc: U32,
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose span.
    pub worker: WorkerId,
    /// Which store.
    pub volume: [u8; 16],
    /// Number in the worker's chain.
    pub number: u64,
    /// First position.
    pub from: Position,
    /// End position.
    pub through: Position,
    /// When it was sealed.
    pub created: Wall,
    /// Chain head of the segment before.
    pub previous: Hash,
}

impl SegmentHeader {
    /// The bytes.
    pub fn emit(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let wire = Wire {
            magic: SEGMENT_MAGIC,
            version: U32::new(VERSION),
            worker: U16::new(self.worker.0),
            zero: U16::new(0),
            volume: self.volume,
            number: U64::new(self.number),
            from: U64::new(self.from.0),
            through: U64::new(self.through.0),
            created: I64::new(self.created.0),
            previous: self.previous,
            reserved: [0; 28],
            crc: U32::new(0),
        };
        summed(&wire)
    }

    /// Reads the bytes; `None` where they are no valid header.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (wire, _) = Wire::read_from_prefix(bytes).ok()?;
        let valid = wire.magic == SEGMENT_MAGIC && wire.version.get() == VERSION && is_sound(&wire);
        valid.then(|| SegmentHeader {
            worker: WorkerId(wire.worker.get()),
            volume: wire.volume,
            number: wire.number.get(),
            from: Position(wire.from.get()),
            through: Position(wire.through.get()),
            created: Wall(wire.created.get()),
            previous: wire.previous,
        })
    }
}
