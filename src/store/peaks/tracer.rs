//! From the records of a stream to envelopes: one for each source's records that stand together.

use super::canvas::Canvas;
use super::envelope::{Envelope, Mark, Rates};
use crate::base::time::Wall;
use crate::store::event::StreamDescription;
use crate::store::export::decoder::Form;
use crate::store::export::encoding::{Encoding, decoded, encoding};
use crate::store::export::placement::Placement;
use crate::store::export::voice::Voice;
use crate::store::record::{Record, RecordKind};
use crate::wire::rtp;

/// Less than this is no silence worth telling, as in `export/timing`, milliseconds.
const HOLE_MS: i64 = 100;
/// A mark at least each so many seconds: of so many the least delay counts in `export/timing`.
const RUN_S: i64 = 10;

/// A packet of audio.
pub(super) struct Heard<'a> {
    pub(super) timestamp: u32,
    pub(super) form: Form,
    pub(super) body: &'a [u8],
}

/// What an RTP record is: its SSRC, and what is heard in it. `form`: that of the line.
pub(super) fn heard<'a>(
    stream: &StreamDescription,
    form: Form,
    record: &Record<'a>,
) -> Option<(u32, Option<Heard<'a>>)> {
    if record.meta.kind != RecordKind::Rtp {
        return None;
    }
    let header = rtp::Header::parse(record.payload).ok()?;
    let body = header.payload().ok()?;
    let heard = match encoding(stream, header.payload_type()) {
        Encoding::Audio(own) if form.takes(own) => {
            Some(Heard { timestamp: header.timestamp(), form: own, body })
        }
        _ => None,
    };
    Some((header.ssrc().0, heard))
}

/// Makes envelopes of one stream.
pub struct Tracer<'a> {
    stream: &'a StreamDescription,
    block_ms: u32,
    voice: Voice,
    sheet: Option<Sheet>,
    done: Vec<Envelope>,
}

impl<'a> Tracer<'a> {
    /// `None`: nothing of the stream is decoded.
    pub fn new(stream: &'a StreamDescription, block_ms: u32) -> Option<Self> {
        let form = decoded(stream)?;
        let voice = Voice::new(form);
        Some(Tracer { stream, block_ms, voice, sheet: None, done: Vec::new() })
    }

    /// Takes a record of the stream.
    pub fn record(&mut self, record: &Record<'_>, wall: Wall) {
        let (form, block_ms) = (self.voice.form(), self.block_ms);
        let Some((ssrc, heard)) = heard(self.stream, form, record) else { return };
        let (ordinal, index) = (record.meta.source.ordinal(), record.meta.index.0);
        if self.sheet.as_ref().is_some_and(|sheet| sheet.ordinal != ordinal) {
            self.close();
        }
        let sheet =
            self.sheet.get_or_insert_with(|| Sheet::new((ordinal, ssrc), form, block_ms, index));
        sheet.count(index);
        if let Some(Heard { timestamp, form, body }) = heard {
            let (of, at) = ((ordinal, index), (timestamp, wall));
            let (timed, samples) = self.voice.packet(of, at, (form, body));
            sheet.packet(timed.timestamp, wall, timed.ticks, &samples);
        }
    }

    /// What comes stands apart from what came.
    pub fn close(&mut self) {
        self.done.extend(self.sheet.take().map(Sheet::finish));
    }

    /// All of it.
    pub fn finish(mut self) -> Vec<Envelope> {
        self.close();
        self.done
    }
}

#[derive(Clone, Copy)]
struct Packet {
    timestamp: u32,
    arrival: Wall,
    position: i64,
    ticks: u32,
}

impl Packet {
    /// Its mark, from its first sample to `end`.
    fn mark(&self, end: i64, missing: u64) -> Mark {
        let ticks = u32::try_from((end - self.position).max(0)).unwrap_or(u32::MAX);
        Mark { timestamp: self.timestamp, arrival: self.arrival, ticks, missing }
    }

    /// How much later it came than its RTP time says, from some zero on.
    fn delay(&self, clock_rate: i64) -> i128 {
        let ns = i128::from(self.position) * 1_000_000_000 / i128::from(clock_rate.max(1));
        i128::from(self.arrival.0) - ns
    }
}

/// Packets without a hole between them.
struct Run {
    first: Packet,
    least: Packet,
    end: i64,
    missing: u64,
}

/// An envelope that is being drawn.
struct Sheet {
    ordinal: u16,
    ssrc: u32,
    rates: Rates,
    indexes: (u64, u64),
    /// Packets that are missing since the last one with audio.
    missing: u64,
    placement: Placement,
    run: Option<Run>,
    last: Option<Packet>,
    /// Lowest place, and the one behind the last.
    from: i64,
    to: i64,
    marks: Vec<Mark>,
    block: i64,
    canvas: Canvas,
}

impl Sheet {
    fn new((ordinal, ssrc): (u16, u32), form: Form, block_ms: u32, index: u64) -> Self {
        let rates = Rates::from(form);
        let block = rates.block(block_ms);
        Sheet {
            ordinal,
            ssrc,
            rates,
            indexes: (index, index),
            missing: 0,
            placement: Placement::new(form.clock_rate),
            run: None,
            last: None,
            from: 0,
            to: 0,
            marks: Vec::new(),
            block,
            canvas: Canvas::new(block, form.channels),
        }
    }

    fn count(&mut self, index: u64) {
        let (lowest, highest) = self.indexes;
        self.missing += index.saturating_sub(highest).saturating_sub(1);
        self.indexes = (lowest.min(index), highest.max(index));
    }

    fn packet(&mut self, timestamp: u32, arrival: Wall, ticks: u32, samples: &[i16]) {
        let placed = self.placement.place(self.ordinal, timestamp, arrival, ticks);
        let packet = Packet { timestamp, arrival, position: placed.position, ticks };
        let (position, end) = (packet.position, packet.position + i64::from(ticks));
        let rate = i64::from(self.rates.clock_rate);
        let missing = std::mem::take(&mut self.missing);
        let breaks = placed.anew || position - self.to > rate * HOLE_MS / 1_000;
        let goes_on = self.run.as_ref().is_some_and(|run| {
            !breaks && position >= self.from && position - run.first.position < rate * RUN_S
        });
        match &mut self.run {
            Some(run) if goes_on => {
                run.end = run.end.max(end);
                if packet.delay(rate) < run.least.delay(rate) {
                    run.least = packet;
                }
            }
            _ => {
                self.end_run(breaks);
                let missing = if breaks { missing } else { 0 };
                self.run = Some(Run { first: packet, least: packet, end, missing });
            }
        }
        self.last = Some(packet);
        (self.from, self.to) = (self.from.min(position), self.to.max(end));
        self.canvas.put(self.rates.frames(position), samples);
    }

    /// `whole`: what comes does not tell any more where the last packet was.
    fn end_run(&mut self, whole: bool) {
        let Some(run) = self.run.take() else { return };
        self.marks.push(run.first.mark(run.end, run.missing));
        let mut mark = |packet: Packet| {
            let mark = packet.mark(packet.position + i64::from(packet.ticks), 0);
            let told = self.marks.last();
            let is_told = told.is_some_and(|told| {
                (told.timestamp, told.arrival) == (mark.timestamp, mark.arrival)
            });
            if !is_told {
                self.marks.push(mark);
            }
        };
        mark(run.least);
        if whole {
            self.last.map(&mut mark);
        }
    }

    fn finish(mut self) -> Envelope {
        self.end_run(true);
        Envelope {
            ordinal: self.ordinal,
            ssrc: self.ssrc,
            rates: self.rates,
            indexes: self.indexes,
            marks: self.marks,
            block: self.block as u32,
            levels: self.canvas.levels().collect(),
        }
    }
}
