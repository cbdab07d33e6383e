//! Tells the journal how far the log of each worker is durable, so that a store from which something
//! was taken, or has fallen, is told from one that never held more (F10, F18).

use super::actor::Control;
use super::effect::Effect;
use crate::base::ids::WorkerId;
use crate::base::time::Mono;
use crate::plane::handoff::frame::WorkerStats;
use crate::store::journal::entry::Entry;
use crate::store::log::Marks;
use crate::store::segment::SegmentName;

/// A mark is written this often at most, and only while something becomes durable.
const EVERY_MS: u64 = 1_000;

/// What was told, and what can be told next.
#[derive(Default)]
pub(super) struct Known {
    marks: Marks,
    /// The journal has these.
    told: Marks,
    next: Mono,
    /// What the journal has not answered.
    asked: Option<(u64, Marks)>,
}

impl Known {
    /// As the journal has them.
    pub(super) fn restored(marks: &Marks) -> Self {
        Known { marks: marks.clone(), told: marks.clone(), ..Known::default() }
    }
}

impl Control {
    /// What media says each second.
    pub(super) fn mark(&mut self, stats: &[WorkerStats]) {
        let at = self.now.wall;
        for worker in stats {
            let mark = self.known.marks.entry(worker.worker).or_default();
            if worker.durable > mark.durable {
                (mark.worker, mark.durable, mark.at) = (worker.worker, worker.durable, at);
            }
        }
        self.tell_marks();
    }

    /// A segment is in place.
    pub(super) fn mark_sealed(&mut self, worker: WorkerId, file: &str) {
        let Some(name) = SegmentName::parse(file) else { return };
        let mark = self.known.marks.entry(worker).or_default();
        mark.worker = worker;
        mark.segment = mark.segment.max(name.number);
    }

    /// A journal that fails or hangs is not asked: nobody waits for it.
    fn tell_marks(&mut self) {
        let waits = self.known.asked.is_some() || self.admission.journal_error.is_some();
        if waits || self.now.mono < self.known.next || self.known.marks == self.known.told {
            return;
        }
        self.known.next = self.now.mono.plus_ms(EVERY_MS);
        let token = self.number();
        self.known.asked = Some((token, self.known.marks.clone()));
        let marks = self.known.marks.values().copied().collect();
        self.effects.push_back(Effect::Persist {
            token,
            entries: vec![Entry::Durable { marks, seal: None }],
        });
    }

    /// The journal's answer. False: it is to something else.
    pub(super) fn marked(&mut self, token: u64, durable: bool) -> bool {
        let Some((_, marks)) = self.known.asked.take_if(|(asked, _)| *asked == token) else {
            return false;
        };
        if durable {
            self.known.told = marks;
        }
        true
    }
}
