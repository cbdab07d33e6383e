//! The watch over media that does not come (F40): once a second it holds what the SRC's sender reports
//! say against what was recorded. A line that is silent because nothing is sent is as it should be, for
//! days; one whose reports count packets that never came is an alarm within seconds.
//!
//! One instance on media's command thread. It reads slots and sources in shared state, which the workers
//! write, and remembers nothing that a successor could not find again.

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
    /// The alarm was given.
    told: bool,
}

/// See the module.
pub struct Watch {
    lines: Vec<Line>,
}

impl Watch {
    /// Over slots 0 to `slot_count` - 1.
    pub fn new(slot_count: u32) -> Self {
        Watch { lines: vec![Line::default(); slot_count as usize] }
    }

    /// Forgets what it has told: whoever was told is gone.
    pub fn tell_again(&mut self) {
        self.lines.iter_mut().for_each(|line| line.told = false);
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
                if told {
                    let over = Notice::MediaBack { slot: global, generation: before, comes: false };
                    notices.push(over);
                }
            }
            if !wanted {
                continue;
            }
            if let Some(notice) = line.look(now, slot, worker, number, global) {
                notices.push(notice);
            }
        }
        notices
    }
}

impl Line {
    fn look<R: Region>(
        &mut self,
        now: Mono,
        slot: SlotView<'_, R>,
        worker: &Watched<'_, R>,
        number: u32,
        global: Slot,
    ) -> Option<Notice> {
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
        let begun = slot.word(SINCE).max(slot.word(OPENED));
        let heard = slot.word(LAST_ARRIVAL).max(begun);
        let silent = now.since(Mono(heard)) >= SILENT_NS;
        let generation = self.generation;
        let before = *self;
        (self.sent, self.recorded, self.report) = (sent, recorded, report);
        if !silent {
            return std::mem::take(&mut self.told).then_some(Notice::MediaBack {
                slot: global,
                generation,
                comes: true,
            });
        }
        if report == before.report || before.report == 0 || self.told {
            return None;
        }
        // Counts of 32 bits turn over, an SRC that begins anew counts from 0, and a source may have lost its
        // place to another: none of that is a proof.
        let grown = sent.checked_sub(before.sent)?;
        let missing = grown.checked_sub(recorded.checked_sub(before.recorded)?)?;
        self.told = missing > ON_THE_WAY;
        self.told.then_some(Notice::NoMedia { slot: global, generation, missing })
    }
}

#[cfg(test)]
mod tests;
