//! A look at a recording before a part of it is written: where its streams' samples lie in time.

use super::track::Range;
use crate::base::time::Wall;
use crate::store::archive::Seen;
use crate::store::event::StreamDescription;
use crate::store::export::decoder::Form;
use crate::store::export::encoding::{Encoding, decoded, encoding};
use crate::store::export::timeline::TimeLine;
use crate::store::export::timing::Timing;
use crate::store::export::voice::Clocks;
use crate::store::record::RecordKind;
use crate::wire::rtp;

/// The part of a stream's samples that is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// Position of its first sample; `None`: no packet came.
    pub(super) origin: Option<i64>,
    /// Samples; `None`: all that come.
    pub(super) frames: Option<u64>,
}

/// One stream of it; reads headers only.
pub(super) struct Survey<'a> {
    description: &'a StreamDescription,
    /// How it is decoded.
    form: Form,
    clocks: Clocks,
    pub(super) timing: Timing,
}

impl<'a> Survey<'a> {
    /// `None`: nothing of the stream is decoded.
    pub(super) fn new(description: &'a StreamDescription) -> Option<Survey<'a>> {
        let form = decoded(description)?;
        let (clocks, timing) = (Clocks::new(form), Timing::new(form.clock_rate));
        Some(Survey { description, form, clocks, timing })
    }

    pub(super) fn record(&mut self, seen: &Seen<'_>) {
        let meta = &seen.record.meta;
        match meta.kind {
            RecordKind::Rtcp => self.timing.rtcp(seen.wall(), seen.record.payload),
            RecordKind::Rtp => self.rtp(seen),
            _ => {}
        }
    }

    fn rtp(&mut self, seen: &Seen<'_>) {
        let Ok(header) = rtp::Header::parse(seen.record.payload) else { return };
        let Ok(payload) = header.payload() else { return };
        let Encoding::Audio(form) = encoding(self.description, header.payload_type()) else {
            return;
        };
        if self.form.takes(form) {
            let source = (seen.record.meta.source.ordinal(), header.ssrc().0);
            let at = (header.timestamp(), seen.wall());
            let of = (source.0, seen.record.meta.index.0);
            let timed = self.clocks.time(of, at, (form, payload));
            if timed.anew {
                self.timing.forget(source.0);
            }
            self.timing.packet(source, timed.timestamp, seen.wall(), timed.ticks);
        }
    }

    /// What of it a range is, by its time line. A file of a range is exactly as long as the range by
    /// our clock, and sample for sample what came from where the range begins.
    pub(super) fn cut(&self, line: &TimeLine, range: Range) -> Cut {
        let first = self.timing.placement().first().map(|(first, _)| first);
        let origin = match range.from {
            Some(from) => line.position(from).map(|position| position.round() as i64),
            None => first,
        };
        let start = range.from.or_else(|| line.wall(origin?));
        let frames = range.to.map(|to| start.map_or(0, |start| frames(start, to, self.form.rate)));
        Cut { origin, frames }
    }
}

/// Samples between two instants, to the nearest.
pub(super) fn frames(from: Wall, to: Wall, rate: u32) -> u64 {
    let scaled = i128::from((to.0 - from.0).max(0)) * i128::from(rate);
    ((scaled + 500_000_000) / 1_000_000_000) as u64
}
