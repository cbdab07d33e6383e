//! Turns a [`Span`] into the bytes of a segment, piece by piece, so that one turn of the spool
//! stays bounded. Pure: record bytes are asked for by position, the file is somebody else's. An extent
//! is made in memory, chunk by chunk, because its header says how long it has become.

use crc_fast::{CrcAlgorithm, Digest};

use super::crypt::Chunks;
use super::extent::{
    CIPHER_AES_256_GCM, CIPHER_NONE, COMPRESSION_NONE, COMPRESSION_PACKED, EXTENT_HEADER_BYTES,
    ExtentHeader,
};
use super::footer::{
    CLOCK_BYTES, FENCE_BYTES, FENCE_ROWS, ROW_BYTES, Row, TRAILER_BYTES, Trailer, emit_clock,
    footer_hash,
};
use super::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::pack::{CHUNK_HEADER_BYTES, CHUNK_RECORD_BYTES_MAX, put_chunk, whole_records};
use super::span::{NO_RUN, Run, SourceSpan, Span};
use crate::base::ids::{Index, Position, SourceId, StreamId, WorkerId};
use crate::base::time::{ClockMap, Wall};
use crate::store::cipher::TAG_BYTES;
use crate::store::evidence::{Hash, LeafHasher, Salt, SigningKey, head, root};
use crate::store::keys::WriteKeys;
use crate::store::log::{BLOCK_BYTES, crc32c};

/// Octets of records that one call of [`Emitter::fill`] takes at most, but for the chunk in hand.
const TURN_RECORD_BYTES: usize = 1 << 20;
/// Room that is kept for the next extent; a longer one gives back what it took more.
const EXTENT_BYTES_KEPT: usize = 4 << 20;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug)]
pub struct SegmentFacts {
    /// Whose span.
    pub worker: WorkerId,
    /// Which store.
    pub volume: [u8; 16],
    /// Number in the worker's chain.
    pub number: u64,
    /// When it is sealed.
    pub created: Wall,
    /// Chain head of the segment before.
    pub previous: Hash,
    /// Whether its records are packed.
    pub packed: bool,
}

/// Why a segment cannot be emitted.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// A recording's salt is not known (yet).
    #[error("the salt of stream {} is not known", stream.0)]
    Salt {
        /// The stream.
        stream: StreamId,
    },
    /// The records cannot be read.
    #[error("records at position {}: {source}", at.0)]
    Records {
        /// Where.
        at: Position,
        /// What the system said.
        source: std::io::Error,
    },
}

enum Stage {
    Extents,
    Footer,
    Done,
}

/// The extent that is being made: place of its source, and how far it is.
struct Current {
    place: usize,
    /// As far as it is known before the records are.
    header: ExtentHeader,
    /// Where they are encrypted.
    chunks: Option<Chunks>,
    leaf: LeafHasher,
    /// Of the records as they were read now.
    sum: Digest,
    run: u32,
    run_done: u32,
    own_done: usize,
}

/// Emits one segment from first byte to last.
pub struct Emitter {
    facts: SegmentFacts,
    from: Position,
    through: Position,
    clocks: Vec<ClockMap>,
    sources: Vec<(SourceId, SourceSpan, Salt)>,
    runs: Vec<Run>,
    encrypted: bool,
    /// Those of this attempt, where it is encrypted.
    keys: Option<WriteKeys>,
    room_bytes: u64,
    next: usize,
    current: Option<Current>,
    /// Records of the chunk that is gathered, and how many octets of them are there.
    records: Vec<u8>,
    gathered: usize,
    /// The extent that is being made, behind room for its header.
    extent: Vec<u8>,
    /// Finished bytes, and how many of them were handed out.
    pending: Vec<u8>,
    pending_done: usize,
    rows: Vec<Row>,
    /// Where the next extent begins in the file.
    at: u64,
    file_bytes: u64,
    stage: Stage,
    head: Hash,
}

impl Emitter {
    /// Prepares the segment of `span`. Every stream's salt must be known; the recorder's own
    /// streams have a salt of zeros, they hold nobody's audio.
    pub fn new(
        facts: SegmentFacts,
        span: Span,
        salt: impl Fn(StreamId) -> Option<Salt>,
    ) -> Result<Self, EmitError> {
        let mut emitter = Self::prepare(facts, span, salt, false)?;
        emitter.restart();
        Ok(emitter)
    }

    /// As [`Self::new`]; every extent is encrypted, also the recorder's own. Begins with
    /// [`Self::restart_under`].
    pub fn encrypted(
        facts: SegmentFacts,
        span: Span,
        salt: impl Fn(StreamId) -> Option<Salt>,
    ) -> Result<Self, EmitError> {
        Self::prepare(facts, span, salt, true)
    }

    fn prepare(
        facts: SegmentFacts,
        span: Span,
        salt: impl Fn(StreamId) -> Option<Salt>,
        encrypted: bool,
    ) -> Result<Self, EmitError> {
        let (from, through) = (span.from, span.through);
        let clocks = span.clocks.clone();
        let (spans, runs) = span.into_parts();
        let mut sources = Vec::with_capacity(spans.len());
        let mut room_bytes = (SEGMENT_HEADER_BYTES + TRAILER_BYTES) as u64;
        for (source, one) in spans {
            let stream = source.stream();
            let salt = if stream.is_host() { Some([0; 32]) } else { salt(stream) };
            room_bytes += extent_room(one.bytes, facts.packed, encrypted);
            sources.push((source, one, salt.ok_or(EmitError::Salt { stream })?));
        }
        room_bytes += footer_bytes(sources.len(), clocks.len()) as u64;
        Ok(Emitter {
            facts,
            from,
            through,
            clocks,
            rows: Vec::with_capacity(sources.len()),
            sources,
            runs,
            encrypted,
            keys: None,
            room_bytes: room_bytes.next_multiple_of(BLOCK_BYTES as u64),
            next: 0,
            current: None,
            records: vec![0; CHUNK_RECORD_BYTES_MAX],
            gathered: 0,
            extent: Vec::new(),
            pending: Vec::new(),
            pending_done: 0,
            at: 0,
            file_bytes: 0,
            stage: Stage::Extents,
            head: [0; 32],
        })
    }

    /// Its streams, each once, in order.
    pub fn streams(&self) -> Vec<StreamId> {
        let mut streams: Vec<StreamId> =
            self.sources.iter().map(|(source, ..)| source.stream()).collect();
        streams.dedup();
        streams
    }

    /// Back to the first byte: the file that it went to failed. What is encrypted is never written twice
    /// under the same keys, see [`Self::restart_under`].
    pub fn restart(&mut self) {
        assert!(!self.encrypted, "each attempt has keys of its own");
        self.begin();
    }

    /// Begins, or begins again, under `keys` that were made for this attempt.
    pub fn restart_under(&mut self, keys: WriteKeys) {
        assert!(self.encrypted, "a segment in the clear has no keys");
        self.keys = Some(keys);
        self.begin();
    }

    fn begin(&mut self) {
        let header = SegmentHeader {
            worker: self.facts.worker,
            volume: self.facts.volume,
            number: self.facts.number,
            from: self.from,
            through: self.through,
            created: self.facts.created,
            previous: self.facts.previous,
        };
        self.rows.clear();
        self.next = 0;
        self.current = None;
        self.gathered = 0;
        self.pending = header.emit().to_vec();
        self.pending_done = 0;
        self.at = SEGMENT_HEADER_BYTES as u64;
        self.file_bytes = 0;
        self.stage = Stage::Extents;
        self.head = [0; 32];
    }

    /// Bytes that the file will not be longer than, a multiple of a block.
    pub const fn room_bytes(&self) -> u64 {
        self.room_bytes
    }

    /// Whether all was handed out.
    pub const fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// The chain head; zeros until all is emitted.
    pub const fn head(&self) -> Hash {
        self.head
    }

    /// End position of the span.
    pub const fn through(&self) -> Position {
        self.through
    }

    /// Puts the next bytes to the start of `out` and returns how many: fewer than `out.len()`, even
    /// none, where that is a turn's work or the end ([`Self::is_done`]). The whole is a multiple of a
    /// block. `copy` brings record bytes from a position.
    pub fn fill(
        &mut self,
        out: &mut [u8],
        key: &SigningKey,
        copy: &mut impl FnMut(Position, &mut [u8]) -> std::io::Result<()>,
    ) -> Result<usize, EmitError> {
        let (mut filled, mut taken) = (0, 0);
        loop {
            let left = &self.pending[self.pending_done..];
            let count = left.len().min(out.len() - filled);
            out[filled..filled + count].copy_from_slice(&left[..count]);
            self.pending_done += count;
            filled += count;
            if self.pending_done < self.pending.len() || taken >= TURN_RECORD_BYTES {
                return Ok(filled);
            }
            match self.stage {
                Stage::Extents if self.current.is_some() => taken += self.take_chunk(copy)?,
                Stage::Extents if self.next < self.sources.len() => self.begin_extent(),
                Stage::Extents => self.emit_footer(key),
                Stage::Footer => self.stage = Stage::Done,
                Stage::Done => return Ok(filled),
            }
        }
    }

    /// The whole segment, for whoever has its records in memory.
    pub fn all(
        mut self,
        key: &SigningKey,
        copy: &mut impl FnMut(Position, &mut [u8]) -> std::io::Result<()>,
    ) -> Result<Vec<u8>, EmitError> {
        let mut out = vec![0; self.room_bytes as usize];
        let mut filled = 0;
        while !self.is_done() {
            filled += self.fill(&mut out[filled..], key, copy)?;
        }
        out.truncate(filled);
        Ok(out)
    }

    fn begin_extent(&mut self) {
        let (source, span, salt) = &self.sources[self.next];
        let mut header = self.extent_header(*source, span);
        let mut chunks = None;
        if self.encrypted {
            let keys = self.keys.as_ref().expect("begun under keys");
            header.cipher = CIPHER_AES_256_GCM;
            header.store_key = keys.store_key();
            let (fresh, key) = keys.fresh(source.stream());
            header.nonce = fresh;
            chunks = Some(Chunks::new(key, &header));
        }
        self.extent.clear();
        self.extent.shrink_to(EXTENT_BYTES_KEPT);
        self.extent.resize(EXTENT_HEADER_BYTES, 0);
        self.current = Some(Current {
            place: self.next,
            header,
            chunks,
            leaf: LeafHasher::new(salt),
            sum: Digest::new(CrcAlgorithm::Crc32Iscsi),
            run: span.first_run,
            run_done: 0,
            own_done: 0,
        });
        self.next += 1;
    }

    /// Takes a chunk's worth of the current extent's records; how many octets were read. The last one
    /// finishes the extent.
    fn take_chunk(
        &mut self,
        copy: &mut impl FnMut(Position, &mut [u8]) -> std::io::Result<()>,
    ) -> Result<usize, EmitError> {
        let Some(current) = &mut self.current else { return Ok(0) };
        let before = self.gathered;
        while let Some(run) = self.runs.get(current.run as usize).copied()
            && self.gathered < self.records.len()
        {
            let at = Position(run.at.0 + u64::from(current.run_done));
            let left = (run.bytes - current.run_done) as usize;
            let target = &mut self.records[self.gathered..];
            let count = left.min(target.len());
            copy(at, &mut target[..count]).map_err(|source| EmitError::Records { at, source })?;
            self.gathered += count;
            current.run_done += count as u32;
            if current.run_done == run.bytes {
                current.run = run.next;
                current.run_done = 0;
            }
        }
        let own = &self.sources[current.place].1.own;
        if current.run == NO_RUN {
            let target = &mut self.records[self.gathered..];
            let count = (own.len() - current.own_done).min(target.len());
            target[..count].copy_from_slice(&own[current.own_done..current.own_done + count]);
            self.gathered += count;
            current.own_done += count;
        }
        let read = self.gathered - before;
        let last = current.run == NO_RUN && current.own_done == own.len();
        let records = &self.records[..self.gathered];
        // What is no record, since memory failed, is a chunk as it is.
        let whole = match whole_records(records) {
            0 => records.len(),
            whole => whole,
        };
        let (chunk, rest) = records.split_at(whole);
        current.leaf.update(chunk);
        current.sum.update(chunk);
        let (left, start) = (rest.len(), self.extent.len());
        if (self.facts.packed || current.chunks.is_some()) && !chunk.is_empty() {
            put_chunk(chunk, self.facts.packed, &mut self.extent);
        } else {
            self.extent.extend_from_slice(chunk);
        }
        if let Some(chunks) = &mut current.chunks {
            chunks.seal(&mut self.extent, start, last && left == 0);
        }
        self.records.copy_within(whole..self.gathered, 0);
        self.gathered = left;
        if last && left == 0 {
            self.finish_extent();
        }
        Ok(read)
    }

    /// Writes the header of the extent that is complete, notes its row, and hands it out.
    fn finish_extent(&mut self) {
        let Some(current) = self.current.take() else { return };
        let (source, span, _) = &self.sources[current.place];
        let bytes = self.extent.len() as u64;
        let stored = &self.extent[EXTENT_HEADER_BYTES..];
        let sum = crc32c(stored);
        // Memory that has changed since the records were looked at: what was made of it is not to pass
        // for what was recorded.
        let right = current.sum.finalize() as u32 == span.records_crc();
        let records_crc = if right { sum } else { !sum };
        let header = ExtentHeader { bytes: stored.len() as u64, records_crc, ..current.header };
        self.extent[..EXTENT_HEADER_BYTES].copy_from_slice(&header.emit());
        self.rows.push(Row {
            source: *source,
            offset: self.at,
            bytes,
            records: span.records,
            packets: span.packets,
            packet_bytes: span.packet_bytes,
            first_index: header.first_index,
            last_index: header.last_index,
            first_arrival: span.first_arrival,
            last_arrival: span.last_arrival,
            leaf: current.leaf.finish(),
            generation: span.generation,
            cipher: header.cipher,
            compression: header.compression,
            store_key: header.store_key,
        });
        self.at += bytes;
        std::mem::swap(&mut self.extent, &mut self.pending);
        self.pending_done = 0;
    }

    /// As far as it is known before the records are read.
    fn extent_header(&self, source: SourceId, span: &SourceSpan) -> ExtentHeader {
        let (first_index, last_index) = span.indexes.unwrap_or((Index(0), Index(0)));
        ExtentHeader {
            source,
            generation: span.generation,
            cipher: CIPHER_NONE,
            compression: if self.facts.packed { COMPRESSION_PACKED } else { COMPRESSION_NONE },
            store_key: 0,
            nonce: [0; 16],
            first_index,
            last_index,
            first_arrival: span.first_arrival,
            last_arrival: span.last_arrival,
            records: span.records,
            bytes: 0,
            number: self.facts.number,
            clock: self.clocks.first().copied().unwrap_or_default(),
            clocks: self.clocks.len() as u32,
            records_crc: 0,
        }
    }

    fn emit_footer(&mut self, key: &SigningKey) {
        let rows_at = self.at;
        let bytes = footer_bytes(self.rows.len(), self.clocks.len());
        let mut footer = Vec::with_capacity(bytes + TRAILER_BYTES + BLOCK_BYTES);
        self.rows.iter().for_each(|row| footer.extend_from_slice(&row.emit()));
        let clocks_at = rows_at + footer.len() as u64;
        self.clocks.iter().for_each(|map| footer.extend_from_slice(&emit_clock(map)));
        let fences_at = rows_at + footer.len() as u64;
        let leaves: Vec<Hash> = self.rows.iter().map(|row| row.leaf).collect();
        for (rows, leaves) in self.rows.chunks(FENCE_ROWS).zip(leaves.chunks(FENCE_ROWS)) {
            footer.extend_from_slice(&rows[0].source.0.to_le_bytes());
            footer.extend_from_slice(&root(leaves));
        }
        let end = rows_at + (bytes + TRAILER_BYTES) as u64;
        let file_bytes = end.next_multiple_of(BLOCK_BYTES as u64);
        assert!(file_bytes <= self.room_bytes, "a segment fits into the room that was made for it");
        let mut trailer = Trailer {
            worker: self.facts.worker,
            volume: self.facts.volume,
            number: self.facts.number,
            from: self.from,
            through: self.through,
            created: self.facts.created,
            rows_at,
            rows: self.rows.len() as u64,
            clocks_at,
            clocks: self.clocks.len() as u64,
            fences_at,
            fences: self.rows.len().div_ceil(FENCE_ROWS) as u64,
            root: root(&leaves),
            previous: self.facts.previous,
            head: [0; 32],
            signature: [0; 64],
            public_key: key.public_key(),
            file_bytes,
            footer: footer_hash(&footer),
        };
        trailer.head = head(&trailer.chain_fields());
        trailer.signature = key.sign(&trailer.head);
        self.head = trailer.head;
        footer.resize((file_bytes - rows_at) as usize - TRAILER_BYTES, 0);
        footer.extend_from_slice(&trailer.emit());
        self.pending = footer;
        self.pending_done = 0;
        self.stage = Stage::Footer;
    }
}

/// Most bytes of an extent of `bytes` of records.
const fn extent_room(bytes: u64, packed: bool, encrypted: bool) -> u64 {
    // What does not shrink stands as it is behind its chunk's header. Two chunks beside each other
    // have more than the records of one.
    let chunks =
        if packed || encrypted { 2 * bytes / CHUNK_RECORD_BYTES_MAX as u64 + 1 } else { 0 };
    let tag = if encrypted { TAG_BYTES } else { 0 };
    EXTENT_HEADER_BYTES as u64 + bytes + chunks * (CHUNK_HEADER_BYTES + tag) as u64
}

const fn footer_bytes(rows: usize, clocks: usize) -> usize {
    rows * ROW_BYTES + clocks * CLOCK_BYTES + rows.div_ceil(FENCE_ROWS) * FENCE_BYTES
}

#[cfg(test)]
#[path = "emit_tests.rs"]
mod tests;
