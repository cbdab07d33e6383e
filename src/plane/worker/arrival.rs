//! When a datagram arrived. The kernel stamps by the wall clock, everything here goes by the
//! monotonic one, and each turn reads both. Where the wall clock was set meanwhile (F70), what still
//! waits in sockets and receive buffers was stamped by the clock before: shared state remembers the
//! last step, so that a successor knows of it as well.

use super::core::Core;
use crate::base::ports::{Region, WritableRegion};
use crate::base::time::{ClockMap, Mono, Wall};
use crate::plane::handoff::layout::{
    AT_CLOCK_AT, AT_CLOCK_OFFSET, AT_HEARTBEAT, AT_STEP_AFTER, AT_STEP_AT, AT_STEP_OFFSET,
    AT_STEP_SINCE,
};

/// Clocks that moved apart by more than this between two turns: the wall clock was set. Slewing
/// (adjtime, 500 ppm) takes two seconds for it; after so long a pause it is a step that costs nothing.
pub(super) const STEP_NS: u64 = 1_000_000;
/// So long after a step something may still wait that was stamped before it: more than any backlog
/// of a restart, and of a machine that was held until control came (5 s).
const WAIT_NS_MAX: u64 = 60_000_000_000;

/// The last step of the wall clock that a worker has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Wall minus monotonic time before it, ns.
    offset: i64,
    /// Since when that was so at the earliest: 0, or the last turn before the step before.
    since: Mono,
    /// The last turn before the step: what it was after is in force since then at the earliest.
    after: Mono,
    /// The first turn that saw it.
    at: Mono,
}

/// Where a stamp lies in monotonic time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// The instant.
    pub(super) at: Mono,
    /// It was stamped before the last step.
    pub(super) before: bool,
    /// The clock was set back by so little that it may have been stamped before or behind the step.
    pub(super) unsure: bool,
}

impl Step {
    fn load(state: &impl Region) -> Option<Step> {
        let at = Mono(state.load(AT_STEP_AT));
        (at != Mono(0)).then(|| Step {
            offset: state.load(AT_STEP_OFFSET) as i64,
            since: Mono(state.load(AT_STEP_SINCE)),
            after: Mono(state.load(AT_STEP_AFTER)),
            at,
        })
    }

    /// What `stamp` means, read at `now`. Of both clocks that one counts which puts it into the time
    /// when it was in force; the newer one where either does, since sockets are emptied each turn.
    fn place(&self, stamp: Wall, now: ClockMap) -> Arrival {
        let within = |instant: i64, from: Mono, to: Mono| {
            let (from, to) = (from.0.saturating_sub(STEP_NS), to.0.saturating_add(STEP_NS));
            u64::try_from(instant).is_ok_and(|instant| (from..=to).contains(&instant))
        };
        let new = stamp.0.saturating_sub(now.offset());
        let old = stamp.0.saturating_sub(self.offset);
        let (new_fits, old_fits) =
            (within(new, self.after, now.mono), within(old, self.since, self.at));
        let before = !new_fits && old_fits;
        // Where neither fits, the clock was set more than once while it waited: as near as it may be.
        let earliest = if before { Mono(0) } else { self.after.min(now.mono) };
        let instant = Mono(if before { old } else { new }.max(0) as u64);
        Arrival {
            at: instant.clamp(earliest, now.mono),
            before,
            unsure: new_fits && old_fits && old < new,
        }
    }
}

impl<S: Region, G: WritableRegion> Core<S, G> {
    /// When something arrived that the kernel stamped with `stamp`: never later than this turn. An
    /// instant between two turns may be wrong by a step shorter than the time between them.
    #[inline]
    pub(super) fn arrival(&self, stamp: Option<Wall>) -> Arrival {
        let now = self.now;
        let certain = |at: Mono| Arrival { at, before: false, unsure: false };
        let Some(stamp) = stamp else { return certain(now.mono) };
        match self.step.filter(|step| now.mono.since(step.at) <= WAIT_NS_MAX) {
            Some(step) => step.place(stamp, now),
            None => certain(now.mono(stamp).min(now.mono)),
        }
    }

    /// Takes up both clocks of a new turn.
    pub(super) fn tell_time(&mut self, now: ClockMap) {
        let before = std::mem::replace(&mut self.now, now);
        self.note_step(before);
    }

    /// Takes up both clocks at a start. What the predecessor's were stands in shared state: its last
    /// turn, and the offset of the last clock map in the ring.
    pub(super) fn tell_time_first(&mut self, now: ClockMap) {
        self.now = now;
        self.step = Step::load(&self.state);
        let heartbeat = Mono(self.state.load(AT_HEARTBEAT));
        let offset = self.state.load(AT_CLOCK_OFFSET) as i64;
        // A step that was noted, but its clock map found no room, or a kill came between.
        let known = self.step.is_some_and(|step| {
            step.offset.abs_diff(offset) <= STEP_NS && now.mono.since(step.at) <= WAIT_NS_MAX
        });
        if heartbeat != Mono(0) && self.state.load(AT_CLOCK_AT) != 0 && !known {
            let wall = Wall(offset.saturating_add(heartbeat.0 as i64));
            self.note_step(ClockMap { mono: heartbeat, wall });
        }
    }

    /// Notes a step between `before` and now. A kill after any store leaves what the successor, which
    /// sees the same step, completes.
    fn note_step(&mut self, before: ClockMap) {
        let offset = before.offset();
        if offset.abs_diff(self.now.offset()) <= STEP_NS {
            return;
        }
        self.state.store(AT_STEP_AT, 0);
        let after = self.state.load(AT_STEP_AFTER);
        if after != before.mono.0 {
            self.state.store(AT_STEP_SINCE, after);
            self.state.store(AT_STEP_AFTER, before.mono.0);
        }
        self.state.store(AT_STEP_OFFSET, offset as u64);
        self.state.store(AT_STEP_AT, self.now.mono.0);
        self.step = Step::load(&self.state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn map(mono: u64, offset: i64) -> ClockMap {
        ClockMap { mono: Mono(mono), wall: Wall(mono as i64 + offset) }
    }

    /// Every size of step, every instant around it: exact, but for a clock set back by less than
    /// what a packet waited, or any way by less than the time in which nobody looked.
    #[test]
    fn f70_a_stamp_means_the_instant_when_it_was_made() {
        let (after, at, now) = (100 * SECOND, 100 * SECOND + 40_000_000, 103 * SECOND);
        let stepped = after + 20_000_000;
        let offset = 1_767_225_600_000_000_000;
        let step = Step { offset, since: Mono(0), after: Mono(after), at: Mono(at) };
        for size in [5_000_000, SECOND, 2 * SECOND, 3 * SECOND + 1, 5 * SECOND, 7_200 * SECOND] {
            for size in [size as i64, -(size as i64)] {
                let clock = map(now, offset + size);
                for true_at in (99 * SECOND..=now).step_by(7_000_003) {
                    let before = true_at < stepped;
                    let wall = true_at as i64 + offset + if before { 0 } else { size };
                    let found = step.place(Wall(wall), clock);
                    let wrong = found.at.0.abs_diff(true_at);
                    let doubtful = size.unsigned_abs() <= at - after + 2 * STEP_NS
                        || before && size < 0 && true_at as i64 - size <= (now + STEP_NS) as i64;
                    let wrong_max = if doubtful { size.unsigned_abs() + STEP_NS } else { 0 };
                    assert!(wrong <= wrong_max, "{size}: at {true_at}, {wrong} ns away");
                    assert!(doubtful || found.before == before, "{size}: at {true_at}");
                }
            }
        }
    }

    /// There and back while it waited: neither clock fits, and it is not hours away.
    #[test]
    fn f70_two_steps_leave_a_stamp_near_its_instant() {
        let hour = 3_600 * SECOND as i64;
        let step = Step {
            offset: hour,
            since: Mono(99 * SECOND),
            after: Mono(100 * SECOND),
            at: Mono(101 * SECOND),
        };
        let found = step.place(Wall(98 * SECOND as i64), map(102 * SECOND, 0));
        assert_eq!(found.at, Mono(100 * SECOND));
        let future = step.place(Wall(2 * hour), map(102 * SECOND, 0));
        assert_eq!(future.at, Mono(102 * SECOND));
        assert_eq!(step.place(Wall(i64::MIN), map(102 * SECOND, 0)).at, Mono(100 * SECOND));
        assert_eq!(step.place(Wall(i64::MAX), map(102 * SECOND, 0)).at, Mono(102 * SECOND));
    }
}
