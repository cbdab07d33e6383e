//! Turns a [`Span`] into the bytes of a segment, piece by piece, so that one turn of the spool
//! stays bounded. Pure: record bytes are asked for by position, the file is somebody else's.

use super::extent::{EXTENT_HEADER_BYTES, ExtentHeader};
use super::footer::{
    CLOCK_BYTES, FENCE_BYTES, FENCE_ROWS, ROW_BYTES, Row, TRAILER_BYTES, Trailer, emit_clock,
    footer_hash,
};
use super::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::span::{Run, SourceSpan, Span};
use crate::base::ids::{Index, Position, SourceId, StreamId, WorkerId};
use crate::base::time::{ClockMap, Wall};
use crate::store::evidence::{Hash, LeafHasher, Salt, SigningKey, head, root};
use crate::store::log::BLOCK_BYTES;

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

/// The extent that is being emitted: place of its source, and how far it is.
struct Current {
    place: usize,
    leaf: LeafHasher,
    run: u32,
    run_done: u32,
    own_done: bool,
}

/// Emits one segment from first byte to last.
pub struct Emitter {
    facts: SegmentFacts,
    from: Position,
    through: Position,
    clocks: Vec<ClockMap>,
    sources: Vec<(SourceId, SourceSpan, Salt)>,
    runs: Vec<Run>,
    next: usize,
    current: Option<Current>,
    rows: Vec<Row>,
    rows_at: u64,
    file_bytes: u64,
    pending: Vec<u8>,
    pending_done: usize,
    done: u64,
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
        let (from, through) = (span.from, span.through);
        let clocks = span.clocks.clone();
        let (spans, runs) = span.into_parts();
        let mut sources = Vec::with_capacity(spans.len());
        let mut extents_bytes = 0;
        for (source, one) in spans {
            let stream = source.stream();
            let salt = if stream.is_host() { Some([0; 32]) } else { salt(stream) };
            extents_bytes += EXTENT_HEADER_BYTES as u64 + one.bytes;
            sources.push((source, one, salt.ok_or(EmitError::Salt { stream })?));
        }
        let rows_at = SEGMENT_HEADER_BYTES as u64 + extents_bytes;
        let footer_bytes = sources.len() * ROW_BYTES
            + clocks.len() * CLOCK_BYTES
            + sources.len().div_ceil(FENCE_ROWS) * FENCE_BYTES;
        let file_bytes =
            (rows_at + (footer_bytes + TRAILER_BYTES) as u64).next_multiple_of(BLOCK_BYTES as u64);
        let mut emitter = Emitter {
            facts,
            from,
            through,
            clocks,
            rows: Vec::with_capacity(sources.len()),
            sources,
            runs,
            next: 0,
            current: None,
            rows_at,
            file_bytes,
            pending: Vec::new(),
            pending_done: 0,
            done: 0,
            stage: Stage::Extents,
            head: [0; 32],
        };
        emitter.restart();
        Ok(emitter)
    }

    /// Back to the first byte: the file that it went to failed.
    pub fn restart(&mut self) {
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
        self.pending = header.emit().to_vec();
        self.pending_done = 0;
        self.done = 0;
        self.stage = Stage::Extents;
        self.head = [0; 32];
    }

    /// Bytes that the file will have, a multiple of a block.
    pub const fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The chain head; zeros until all is emitted.
    pub const fn head(&self) -> Hash {
        self.head
    }

    /// End position of the span.
    pub const fn through(&self) -> Position {
        self.through
    }

    /// Fills `out` with the next bytes and returns how many: fewer than `out.len()` only at the
    /// end of the segment. `copy` brings record bytes from a position.
    pub fn fill(
        &mut self,
        out: &mut [u8],
        key: &SigningKey,
        copy: &mut impl FnMut(Position, &mut [u8]) -> std::io::Result<()>,
    ) -> Result<usize, EmitError> {
        let mut filled = 0;
        while filled < out.len() {
            if self.pending_done < self.pending.len() {
                let left = &self.pending[self.pending_done..];
                let count = left.len().min(out.len() - filled);
                out[filled..filled + count].copy_from_slice(&left[..count]);
                self.pending_done += count;
                filled += count;
                self.done += count as u64;
                continue;
            }
            let copied = self.copy_run(&mut out[filled..], copy)?;
            filled += copied;
            self.done += copied as u64;
            if copied == 0 && !self.next_piece(key) {
                break;
            }
        }
        Ok(filled)
    }

    /// Copies from the current extent's next run; 0 where there is none.
    fn copy_run(
        &mut self,
        out: &mut [u8],
        copy: &mut impl FnMut(Position, &mut [u8]) -> std::io::Result<()>,
    ) -> Result<usize, EmitError> {
        let Some(current) = &mut self.current else { return Ok(0) };
        let Some(run) = self.runs.get(current.run as usize).copied() else { return Ok(0) };
        let at = Position(run.at.0 + u64::from(current.run_done));
        let count = ((run.bytes - current.run_done) as usize).min(out.len());
        let target = &mut out[..count];
        copy(at, target).map_err(|source| EmitError::Records { at, source })?;
        current.leaf.update(target);
        current.run_done += count as u32;
        if current.run_done == run.bytes {
            current.run = run.next;
            current.run_done = 0;
        }
        Ok(count)
    }

    /// Prepares the next piece behind what is emitted; false at the end.
    fn next_piece(&mut self, key: &SigningKey) -> bool {
        self.pending.clear();
        self.pending_done = 0;
        match self.stage {
            Stage::Extents => {
                if let Some(mut current) = self.current.take() {
                    let own = &self.sources[current.place].1.own;
                    if !own.is_empty() && !current.own_done {
                        self.pending.extend_from_slice(own);
                        current.leaf.update(own);
                        current.own_done = true;
                        self.current = Some(current);
                        return true;
                    }
                    self.rows.push(self.row(current));
                }
                match self.sources.get(self.next) {
                    Some((source, span, salt)) => {
                        self.pending.extend_from_slice(&self.extent(*source, span).emit());
                        self.current = Some(Current {
                            place: self.next,
                            leaf: LeafHasher::new(salt),
                            run: span.first_run,
                            run_done: 0,
                            own_done: false,
                        });
                        self.next += 1;
                    }
                    None => {
                        assert_eq!(self.done, self.rows_at, "extents are as long as planned");
                        self.emit_footer(key);
                        self.stage = Stage::Footer;
                    }
                }
                true
            }
            Stage::Footer => {
                assert_eq!(self.done, self.file_bytes, "the segment is as long as planned");
                self.stage = Stage::Done;
                false
            }
            Stage::Done => false,
        }
    }

    fn extent(&self, source: SourceId, span: &SourceSpan) -> ExtentHeader {
        let (first_index, last_index) = span.indexes.unwrap_or((Index(0), Index(0)));
        ExtentHeader {
            source,
            generation: span.generation,
            cipher: 0,
            compression: 0,
            key_epoch: 0,
            nonce: [0; 16],
            first_index,
            last_index,
            first_arrival: span.first_arrival,
            last_arrival: span.last_arrival,
            records: span.records,
            bytes: span.bytes,
            number: self.facts.number,
            clock: self.clocks.first().copied().unwrap_or_default(),
            clocks: self.clocks.len() as u32,
            records_crc: span.records_crc(),
        }
    }

    /// The row of the extent that was just emitted.
    fn row(&self, current: Current) -> Row {
        let (source, span, _) = &self.sources[current.place];
        let (first_index, last_index) = span.indexes.unwrap_or((Index(0), Index(0)));
        let bytes = EXTENT_HEADER_BYTES as u64 + span.bytes;
        Row {
            source: *source,
            offset: self.done - bytes,
            bytes,
            records: span.records,
            packets: span.packets,
            packet_bytes: span.packet_bytes,
            first_index,
            last_index,
            first_arrival: span.first_arrival,
            last_arrival: span.last_arrival,
            leaf: current.leaf.finish(),
            generation: span.generation,
            cipher: 0,
            compression: 0,
            key_epoch: 0,
        }
    }

    fn emit_footer(&mut self, key: &SigningKey) {
        let mut footer = Vec::new();
        self.rows.iter().for_each(|row| footer.extend_from_slice(&row.emit()));
        let clocks_at = self.rows_at + footer.len() as u64;
        self.clocks.iter().for_each(|map| footer.extend_from_slice(&emit_clock(map)));
        let fences_at = self.rows_at + footer.len() as u64;
        let leaves: Vec<Hash> = self.rows.iter().map(|row| row.leaf).collect();
        for (rows, leaves) in self.rows.chunks(FENCE_ROWS).zip(leaves.chunks(FENCE_ROWS)) {
            footer.extend_from_slice(&rows[0].source.0.to_le_bytes());
            footer.extend_from_slice(&root(leaves));
        }
        let mut trailer = Trailer {
            worker: self.facts.worker,
            volume: self.facts.volume,
            number: self.facts.number,
            from: self.from,
            through: self.through,
            created: self.facts.created,
            rows_at: self.rows_at,
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
            file_bytes: self.file_bytes,
            footer: footer_hash(&footer),
        };
        trailer.head = head(&trailer.chain_fields());
        trailer.signature = key.sign(&trailer.head);
        self.head = trailer.head;
        let padded = (self.file_bytes - self.rows_at) as usize - TRAILER_BYTES;
        footer.resize(padded, 0);
        footer.extend_from_slice(&trailer.emit());
        self.pending = footer;
    }
}
