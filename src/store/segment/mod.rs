//! Segments: closed spans of a worker's record stream, written once more sorted by source, with a
//! signed footer. Immutable once renamed into place. Formats, emitter, reader and verifier; the
//! writer is `plane::spool`. Page: `appliance/docs/format-segment.md`.
//!
//! ```text
//! header 128 | extent … extent | rows | clock maps | fences | zeros to a block | trailer 512
//! ```
//!
//! What is left of one by retention is a thinned segment (`thin`): it reads as the one that it was.

mod crypt;
mod emit;
mod extent;
mod footer;
mod header;
mod name;
mod opened;
mod opener;
mod pack;
mod read;
mod scrub;
mod set;
#[cfg(test)]
mod shred_tests;
mod span;
mod strays;
mod sum;
mod thin;
mod thin_table;
#[cfg(test)]
mod thin_tests;
mod thin_write;
mod unpack;
mod verify;

pub use emit::{EmitError, Emitter, SegmentFacts};
pub use extent::{
    CIPHER_AES_256_GCM, CIPHER_NONE, COMPRESSION_NONE, COMPRESSION_PACKED, EXTENT_HEADER_BYTES,
    EXTENT_MAGIC, ExtentHeader,
};
pub use footer::{
    FENCE_BYTES, FENCE_ROWS, Footer, ROW_BYTES, Row, TRAILER_BYTES, TRAILER_MAGIC, Trailer,
    footer_hash,
};
pub use header::{SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, SegmentHeader};
pub use name::{SegmentName, folder, last_segment, list, list_thinned, sealed_through};
pub use opened::{ExtentReader, Opened};
pub use opener::{Opener, SegmentOpener};
pub use pack::{CHUNK_RECORD_BYTES_MAX, put_chunk};
pub use read::{
    Extent, RECORD_BYTES_PER_EXTENT_MAX, SegmentError, clock_at, find_rows, open_extent,
    read_extent, read_footer, read_trailer,
};
pub(crate) use read::{Way, find_ways, read_clocks, read_first_record};
pub use scrub::{Failed, scrub};
pub use set::{SegmentSet, Stretch};
pub use span::{SourceSpan, Span};
pub use strays::destroy_stray_keys;
pub use thin::{Gone, SegmentFile, Thinned, open_segment, segment_path};
pub use thin_table::{
    THIN_HEADER_BYTES, THIN_MAGIC, THIN_ROW_BYTES, THIN_TAIL_BYTES, THIN_TAIL_MAGIC, Tail,
};
pub use thin_write::{ThinError, ThinReport, Thinning, withdraw};
pub use unpack::{first_record, unpack};
pub use verify::{Damage, SegmentReport, Verification, verify_opened, verify_segment};

/// Version of every structure in a segment.
pub const VERSION: u32 = 1;
