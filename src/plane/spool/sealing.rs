//! From closed spans to segments.

use std::io;

use super::actor::{Output, Sealing, Spool, copy_ring};
use super::recovery::add_doubt;
use super::sealer::{Keys, SealError, Sealer, Step};
use crate::base::ids::{Position, SourceId, StreamId};
use crate::base::ports::{Disk, Region};
use crate::base::time::{ClockMap, Mono};
use crate::plane::handoff::frame::Notice;
use crate::plane::handoff::layout::{AT_SEALED, AT_TAIL};
use crate::store::log::Doubt;
use crate::store::segment::{Emitter, SegmentFacts, SegmentName, Span};

/// No stream open for this long: what is unsealed is sealed.
const IDLE_MS: u64 = 1_000;

impl<R: Region, S: Region, D: Disk + Clone> Spool<R, S, D> {
    /// Closes the open span where it is due, after a look at what a predecessor left of it; returns
    /// whether there is more to look at.
    pub(super) fn consider_closing(&mut self, clock: ClockMap, streams_open: u32) -> bool {
        let now = clock.mono;
        self.idle_since =
            if streams_open > 0 { None } else { Some(self.idle_since.unwrap_or(now)) };
        let (from, through) = (self.open.from, self.durable);
        // Indexed above the durable mark: what failed is being written again.
        if self.closed.is_some() || through == from || self.indexed > through {
            return false;
        }
        let idle = self.idle_since.is_some_and(|since| now >= since.plus_ms(IDLE_MS))
            && through.0 == self.state.load(AT_TAIL);
        let due = through.0 - from.0 >= self.config.span_bytes(self.ring_bytes)
            || self.open_since.is_some_and(|since| now >= since.plus_ms(self.config.segment_ms))
            || self.seals_wanted.iter().any(|target| *target > from && *target <= through);
        if self.indexed < through {
            if due || idle {
                self.index_some();
            }
            return due || idle;
        }
        let due = due || idle && self.open.has_streams();
        if !due {
            return false;
        }
        let mut span = std::mem::replace(&mut self.open, Span::new(through));
        let own = SourceId::new(StreamId::host(self.config.worker), 0);
        let first = span.clocks.first().map(|first| first.wall);
        for doubt in self.doubts.drain(..) {
            // Somewhere in this span: nobody has looked more closely.
            let (since, until) = (first, Some(clock.wall));
            add_doubt(&mut span, own, now, &Doubt { since, until, ..doubt });
        }
        self.open_since = None;
        self.closed = Some(span);
        self.log.close();
        false
    }

    /// Begins or continues to seal; returns whether there is more to do at once.
    pub(super) fn seal(&mut self, now: ClockMap) -> bool {
        if let Some(from) = self.recovery_from {
            if now.mono < self.seal_trouble.retry_at {
                return false;
            }
            self.start_recovery(from, now);
            return self.recovery_from.is_none();
        }
        if self.sealing.is_none() && !self.begin_sealing(now) {
            return false;
        }
        if now.mono < self.seal_trouble.retry_at {
            return false;
        }
        let Some(sealing) = &mut self.sealing else { return false };
        if sealing.sealer.is_new()
            && let Err(error) = self.paths.check_device(sealing.place)
        {
            return self.seal_elsewhere(&error, now.mono);
        }
        let step = if sealing.recovered {
            let source = self.recovery_source.as_mut().expect("recovered spans have a source");
            let mut copy = |at: Position, out: &mut [u8]| source.copy(at, out);
            sealing.sealer.step(&self.disk, &mut self.piece, &self.key, &mut copy)
        } else {
            let (ring, ring_bytes) = (&self.ring, self.ring_bytes);
            let mut copy = |at: Position, out: &mut [u8]| {
                copy_ring(ring, ring_bytes, at, out);
                Ok(())
            };
            sealing.sealer.step(&self.disk, &mut self.piece, &self.key, &mut copy)
        };
        match step {
            Ok(Step::More) => true,
            Ok(Step::Sealed) => {
                self.finish_sealing();
                true
            }
            Err(SealError::Write(error)) => self.seal_elsewhere(&error, now.mono),
            Err(SealError::Read(error)) => {
                // The log may be what failed: look again at what can be read.
                if let Some(from) = sealing.recovered.then_some(sealing.from) {
                    self.sealing = None;
                    self.start_recovery(from, now);
                }
                self.seal_trouble.note(now.mono, format!("segment: {error}"));
                self.report();
                false
            }
        }
    }

    /// F12: a segment that cannot be written begins again in another folder. The log goes on where
    /// it is: its file has room of its own and has not failed.
    fn seal_elsewhere(&mut self, error: &io::Error, now: Mono) -> bool {
        let Some(sealing) = &mut self.sealing else { return false };
        self.paths.fail(sealing.place, &format!("segment: {error}"), now);
        sealing.place = self.paths.choose_for_segment();
        sealing.sealer.begin_in(&self.disk, self.paths.root(sealing.place));
        let again = self.paths.any_sound();
        if !again {
            self.seal_trouble.note(now, format!("segment: {error}"));
        }
        self.report();
        again
    }

    fn begin_sealing(&mut self, now: ClockMap) -> bool {
        let Some(span) = self.recovered.front().or(self.closed.as_ref()) else { return false };
        let salts = &self.salts;
        let waits = |stream: &StreamId| !stream.is_host() && !salts.contains_key(stream);
        self.waits_for = span.streams().find(waits);
        // A salt hides what a leaf is of; it proves nothing. Rather than wait for one that nobody
        // has, or let the ring fill up for want of it, a salt of zeros is used, which every verifier
        // tries.
        let kept = self.state.load(AT_TAIL) - self.sealed.0;
        let pressed = kept > self.ring_bytes / 4 * 3;
        if self.waits_for.is_some() && !pressed && !self.salts_told {
            return false;
        }
        let recovered = !self.recovered.is_empty();
        let span = self.recovered.pop_front().or_else(|| self.closed.take());
        let Some(span) = span else { return false };
        let name = SegmentName { worker: self.config.worker, number: self.next_number };
        let facts = SegmentFacts {
            worker: self.config.worker,
            volume: self.config.volume,
            number: self.next_number,
            created: now.wall,
            previous: self.previous,
            packed: self.config.packing,
        };
        let from = span.from;
        let salt = |stream: StreamId| Some(salts.get(&stream).copied().unwrap_or([0; 32]));
        let keys =
            self.keys.clone().map(|maker| Keys { maker, volume: facts.volume, at: facts.created });
        let emitter = match keys {
            Some(_) => Emitter::encrypted(facts, span, salt),
            None => Emitter::new(facts, span, salt),
        };
        let emitter = emitter.expect("every stream has some salt");
        let place = self.paths.choose_for_segment();
        let sealer = Sealer::new(self.paths.root(place), name, emitter, keys);
        self.sealing = Some(Sealing { sealer, place, from, recovered });
        true
    }

    fn finish_sealing(&mut self) {
        let Some(sealing) = self.sealing.take() else { return };
        let through = sealing.sealer.emitter.through();
        self.previous = sealing.sealer.emitter.head();
        self.next_number += 1;
        if !sealing.recovered {
            self.sealed = through;
            self.state.store(AT_SEALED, through.0);
        }
        if self.seal_trouble.error.is_some() {
            self.paths.works(sealing.place);
            self.seal_trouble.clear();
        }
        self.log.release(&self.paths, through);
        if sealing.recovered && self.recovered.is_empty() {
            self.recovery_source = None;
            self.recovery_groups = Vec::new();
        }
        self.outputs.push_back(Output::Notice(Notice::Sealed {
            worker: self.config.worker,
            file: sealing.sealer.name.file(),
            through,
        }));
        self.report();
    }
}
