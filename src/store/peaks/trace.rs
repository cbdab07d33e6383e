//! A line as a whole: envelopes and records joined, in the order in which an export reads them.

use std::collections::BTreeMap;

use super::canvas::{Canvas, Level};
use super::envelope::{Envelope, Rates};
use super::tracer::heard;
use crate::base::time::Wall;
use crate::store::event::StreamDescription;
use crate::store::export::encoding::decoded;
use crate::store::export::timing::Timing;
use crate::store::export::voice::Voice;
use crate::store::record::{Record, RecordKind};

/// Samples that share a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// First place and the one behind the last.
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) level: Level,
}

/// See the module.
pub struct Trace<'a> {
    stream: &'a StreamDescription,
    pub(super) rates: Rates,
    timing: Timing,
    voice: Voice,
    canvas: Canvas,
    block: i64,
    blocks: Vec<Block>,
    sources: BTreeMap<u16, Counted>,
    /// Times around missing packets, by arrivals.
    pub(super) gaps: Vec<(Wall, Wall)>,
    /// Times of which all is gone by retention.
    pub(super) gone: Vec<(Wall, Wall)>,
    /// Times that are recorded and were not drawn.
    pub(super) undrawn: Vec<(Wall, Wall)>,
}

/// What came of a source.
#[derive(Clone, Copy)]
struct Counted {
    highest: u64,
    missing: u64,
    /// Its last packet with audio.
    last: Option<Wall>,
}

impl<'a> Trace<'a> {
    /// `block_ms`: what records are drawn in. `None`: nothing of the stream is decoded.
    pub fn new(stream: &'a StreamDescription, block_ms: u32) -> Option<Self> {
        let form = decoded(stream)?;
        let rates = Rates::from(form);
        let block = rates.block(block_ms);
        Some(Trace {
            stream,
            rates,
            timing: Timing::new(form.clock_rate),
            voice: Voice::new(form),
            canvas: Canvas::new(block, form.channels),
            block,
            blocks: Vec::new(),
            sources: BTreeMap::new(),
            gaps: Vec::new(),
            gone: Vec::new(),
            undrawn: Vec::new(),
        })
    }

    /// What came, as far as it says when.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// What its audio is.
    pub fn rates(&self) -> Rates {
        self.rates
    }

    /// Takes a record of the stream.
    pub fn record(&mut self, record: &Record<'_>, wall: Wall) {
        if record.meta.kind == RecordKind::Rtcp {
            return self.timing.rtcp(wall, record.payload);
        }
        let Some((ssrc, heard)) = heard(self.stream, self.voice.form(), record) else { return };
        let (ordinal, index) = (record.meta.source.ordinal(), record.meta.index.0);
        let counted = self.counted(ordinal, index);
        counted.missing += index.saturating_sub(counted.highest).saturating_sub(1);
        counted.highest = counted.highest.max(index);
        let Some(heard) = heard else { return };
        let missing = std::mem::take(&mut counted.missing);
        let before = counted.last.replace(wall);
        if let (1.., Some(before)) = (missing, before) {
            self.gaps.push((before, wall));
        }
        let at = (heard.timestamp, wall);
        let (timed, samples) = self.voice.packet((ordinal, index), at, (heard.form, heard.body));
        if timed.anew {
            self.timing.forget(ordinal);
        }
        let source = (ordinal, ssrc);
        let position = self.timing.packet(source, timed.timestamp, wall, timed.ticks);
        self.canvas.put(self.rates.frames(position), &samples);
    }

    /// Takes an envelope of the stream, which is of the line's form: what was drawn of another is drawn anew.
    pub fn envelope(&mut self, envelope: &Envelope) {
        if envelope.rates != self.rates {
            return;
        }
        let (lowest, highest) = envelope.indexes;
        let counted = self.counted(envelope.ordinal, lowest);
        let before = lowest.saturating_sub(counted.highest).saturating_sub(1);
        let mut missing = counted.missing.saturating_add(before);
        counted.highest = counted.highest.max(highest);
        let mut before = counted.last;
        if let Some(last) = envelope.marks.last() {
            (counted.missing, counted.last) = (0, Some(last.arrival));
        } else {
            counted.missing = missing;
        }
        let source = (envelope.ordinal, envelope.ssrc);
        let mut span: Option<(i64, i64, i64)> = None;
        for mark in &envelope.marks {
            missing = missing.saturating_add(mark.missing);
            if let (1.., Some(before)) = (missing, before) {
                self.gaps.push((before, mark.arrival));
            }
            (missing, before) = (0, Some(mark.arrival));
            let position = self.timing.packet(source, mark.timestamp, mark.arrival, mark.ticks);
            let end = position + i64::from(mark.ticks);
            let (zero, from, to) = span.unwrap_or((position, position, end));
            span = Some((zero, from.min(position), to.max(end)));
        }
        let Some((zero, from, to)) = span else { return };
        let (from, to) = (self.rates.frames(from), self.rates.frames(to));
        let (zero, block) = (self.rates.frames(zero), i64::from(envelope.block));
        for (number, level) in &envelope.levels {
            let first = zero.saturating_add(number.saturating_mul(block));
            let (from, to) = (first.max(from), first.saturating_add(block).min(to));
            if from < to {
                self.blocks.push(Block { from, to, level: *level });
            }
        }
    }

    /// From then to then all is gone by retention.
    pub fn gone(&mut self, from: Wall, to: Wall) {
        self.gone.push((from, to));
    }

    /// What was recorded from then to then is not drawn.
    pub fn undrawn(&mut self, from: Wall, to: Wall) {
        self.undrawn.push((from, to));
    }

    fn counted(&mut self, ordinal: u16, index: u64) -> &mut Counted {
        let fresh = || Counted { highest: index.saturating_sub(1), missing: 0, last: None };
        // The first index of a source says nothing of those before it.
        self.sources.entry(ordinal).or_insert_with(fresh)
    }

    /// All that was heard, in order of place.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let mut blocks = self.blocks.clone();
        let first = self.timing.placement().first().map(|(first, _)| self.rates.frames(first));
        if let (Some(first), Some(end)) = (first, self.canvas.end()) {
            blocks.extend(self.canvas.levels().filter_map(|(number, level)| {
                let (from, to) = (number * self.block, (number + 1) * self.block);
                let (from, to) = (from.max(first), to.min(end));
                (from < to).then_some(Block { from, to, level })
            }));
        }
        blocks.sort_by_key(|block| block.from);
        blocks
    }
}
