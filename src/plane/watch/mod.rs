//! The watch over media that does not come (F40): once a second it holds what the SRC's sender reports
//! say against what was recorded, and what its metadata says against what was heard. A line that is silent
//! because nothing is sent is as it should be, for days; one whose reports count packets that never came, or
//! on which somebody speaks in an open Communication Session, is an alarm within seconds.
//!
//! One instance on media's command thread. It reads slots and sources in shared state, which the workers
//! write; on which lines somebody speaks control tells, and tells again to a successor.

use crate::base::ids::{Generation, Slot};
use crate::base::limits::SOURCES_PER_STREAM;
use crate::base::ports::Region;
use crate::base::time::Mono;
use crate::plane::handoff::frame::Notice;
use crate::plane::handoff::layout::Geometry;
use crate::plane::handoff::slot::{
    ACTIVE, LAST_ARRIVAL, OPEN, OPENED, SINCE, STRANGE_REPORT, SlotView,
};
use crate::plane::handoff::source::SourceView;

/// Nothing for so long before anything is an alarm (F40: within 5 s).
const SILENT_NS: u64 = 4_000_000_000;
/// Reports may count some that are still on their way, or were lost before: a second's packets of one line.
const ON_THE_WAY: u64 = 50;

/// The shared state of one worker; its place in the caller's list is its number.
pub struct Watched<'a, R> {
    /// State region.
    pub state: &'a R,
    /// Its sizes.
    pub geometry: &'a Geometry,
}

/// What is known of one slot's use.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    generation: Generation,
    /// What the SRC had sent by its last report, and what was recorded when that came.
    sent: u64,
    recorded: u64,
    /// Number of that report; 0: none came yet.
    report: u64,
    /// The alarm that was given.
    told: Option<Why>,
}

/// What proves that media should come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Reports,
    Call,
}

/// See the module.
pub struct Watch {
    lines: Vec<Line>,
    /// Of each slot: the use of it on which somebody speaks by the metadata, and since when.
    calls: Vec<Option<(Generation, Mono)>>,
}

impl Watch {
    /// Over slots 0 to `slot_count` - 1.
    pub fn new(slot_count: u32) -> Self {
        let slot_count = slot_count as usize;
        Watch { lines: vec![Line::default(); slot_count], calls: vec![None; slot_count] }
    }

    /// Forgets what it has told and was told: whoever was told is gone, and its successor says again what
    /// it knows.
    pub fn tell_again(&mut self) {
        self.lines.iter_mut().for_each(|line| line.told = None);
        self.calls.fill(None);
    }

    /// On the lines of `open` somebody speaks since then, on those of `over` nobody does any more.
    pub fn expect(&mut self, open: &[(Slot, Generation, Mono)], over: &[(Slot, Generation)]) {
        for (slot, generation) in over {
            if let Some(call) = self.calls.get_mut(slot.0 as usize) {
                call.take_if(|(own, _)| own == generation);
            }
        }
        for (slot, generation, since) in open {
            if let Some(call) = self.calls.get_mut(slot.0 as usize) {
                *call = Some((*generation, *since));
            }
        }
    }

    /// Looks at every slot; what has changed since the last look. Slot n is number n div workers of worker n
    /// mod workers.
    pub fn look<R: Region>(&mut self, now: Mono, workers: &[Watched<'_, R>]) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (place, line) in self.lines.iter_mut().enumerate() {
            let worker = &workers[place % workers.len()];
            let number = (place / workers.len()) as u32;
            if number >= worker.geometry.slot_count {
                continue;
            }
            let slot = SlotView::new(worker.state, worker.geometry, number);
            let (generation, global) = (slot.generation(), Slot(place as u32));
            let wanted = slot.has(OPEN) && slot.has(ACTIVE);
            if !wanted || line.generation != generation {
                let Line { generation: before, told, .. } = *line;
                *line = Line { generation, ..Line::default() };
                if told.is_some() {
                    let over = Notice::MediaBack { slot: global, generation: before, comes: false };
                    notices.push(over);
                }
            }
            if !wanted {
                continue;
            }
            let call = self.calls[place].filter(|(own, _)| *own == generation);
            let since = call.map(|(_, since)| since);
            if let Some(notice) = line.look(now, (slot, global), worker, number, since) {
                notices.push(notice);
            }
        }
        notices
    }
}

impl Line {
    /// `call`: since when somebody speaks there by the metadata.
    fn look<R: Region>(
        &mut self,
        now: Mono,
        (slot, global): (SlotView<'_, R>, Slot),
        worker: &Watched<'_, R>,
        number: u32,
        call: Option<Mono>,
    ) -> Option<Notice> {
        let missing = self.missing(slot, worker, number);
        let begun = slot.word(SINCE).max(slot.word(OPENED));
        let heard = Mono(slot.word(LAST_ARRIVAL).max(begun));
        let silent = |since: Mono| now.since(since) >= SILENT_NS;
        let (slot, generation) = (global, self.generation);
        let comes = !silent(heard);
        if comes || self.told == Some(Why::Call) && call.is_none() {
            return self.told.take().map(|_| Notice::MediaBack { slot, generation, comes });
        }
        if self.told.is_some() {
            return None;
        }
        if let Some(missing) = missing {
            self.told = Some(Why::Reports);
            return Some(Notice::NoMedia { slot, generation, missing });
        }
        let waits = call.is_some_and(|since| silent(since.max(heard)));
        self.told = waits.then_some(Why::Call);
        waits.then_some(Notice::NobodyHeard { slot, generation })
    }

    /// How many packets the SRC's reports count since the last look that did not come, if they prove it.
    fn missing<R: Region>(
        &mut self,
        slot: SlotView<'_, R>,
        worker: &Watched<'_, R>,
        number: u32,
    ) -> Option<u64> {
        let (mut sent, mut recorded, mut report) = (0, 0, 0);
        for place in 0..SOURCES_PER_STREAM {
            let source = SourceView::new(worker.state, worker.geometry, number, place);
            if source.identity().is_none() {
                continue;
            }
            let last = source.last_sr();
            sent += u64::from(last.packets);
            recorded += source.recorded_at_sr();
            report += last.count;
        }
        // Reports of an SSRC that was never heard: how many, and what the last one counts.
        let strange = slot.word(STRANGE_REPORT);
        sent += strange & u64::from(u32::MAX);
        report += strange >> 32;
        let before = *self;
        (self.sent, self.recorded, self.report) = (sent, recorded, report);
        if report == before.report || before.report == 0 {
            return None;
        }
        // Counts of 32 bits turn over, an SRC that begins anew counts from 0, and a source may have lost its
        // place to another: none of that is a proof.
        let grown = sent.checked_sub(before.sent)?;
        let missing = grown.checked_sub(recorded.checked_sub(before.recorded)?)?;
        (missing > ON_THE_WAY).then_some(missing)
    }
}

#[cfg(test)]
mod tests;
