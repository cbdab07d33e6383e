//! From the ring to the log: groups, syncs, the durable mark, and what follows a failure.

use std::io;

use super::actor::{Spool, copy_ring};
use crate::base::faults::faulty;
use crate::base::ids::Position;
use crate::base::ports::{Clock, Disk, Region};
use crate::base::time::{ClockMap, Mono};
use crate::plane::handoff::layout::{
    AT_CHECK_UNTIL, AT_COMMIT_SINCE, AT_COMMIT_TOOK, AT_DURABLE, AT_INCARNATION, AT_TAIL,
};
use crate::store::log::{self, Doubt, GROUP_BYTES_MAX, GROUP_HEADER_BYTES, Walk};

/// Groups written before one sync: 4 MiB, 20 ms of a slow disk.
const GROUPS_PER_TURN: usize = log::GROUPS_PER_SYNC as usize;
/// A sync that takes this long is a stall, whatever the disk is.
const SLOW_MS: u64 = 2_000;

impl<R: Region, S: Region, D: Disk + Clone> Spool<R, S, D> {
    /// Writes a few groups and syncs them, where that is due.
    pub(super) fn commit(&mut self, now: ClockMap, clock: &impl Clock) -> bool {
        let tail = Position(self.state.load(AT_TAIL));
        let pending = tail.0 - self.durable.0;
        let due = pending >= GROUP_BYTES_MAX as u64
            || now.mono >= self.last_commit.plus_ms(self.config.commit_ms)
            || self.commit_wanted
            || !self.seals_wanted.is_empty();
        if pending == 0 || !due || now.mono < self.log_trouble.retry_at {
            self.commit_wanted &= pending > 0;
            return false;
        }
        let began = clock.mono();
        self.state.store(AT_COMMIT_SINCE, began.0);
        let written = self.write_groups(tail, now);
        self.state.store(AT_COMMIT_TOOK, clock.mono().since(began));
        self.state.store(AT_COMMIT_SINCE, 0);
        match written {
            Ok(end) => {
                assert!(
                    end > self.durable && end <= tail,
                    "the mark moves forward, behind the tail"
                );
                self.durable = end;
                self.state.store(AT_DURABLE, end.0);
                if self.indexed == self.durable {
                    self.open.through = end;
                }
                self.open_since.get_or_insert(now.mono);
                self.last_commit = now.mono;
                self.commit_wanted = end < tail && self.commit_wanted;
                if let Some(oldest) = self.oldest.take() {
                    self.durable_ns.saturating_record(clock.mono().since(oldest));
                }
                if self.log_trouble.error.is_some() {
                    // Nothing else was left: what has just been read back works.
                    self.paths.works(self.log.place());
                    self.log_trouble.clear();
                }
                self.leave_slow(began, clock.mono());
                self.report();
                tail.0 - end.0 >= GROUP_BYTES_MAX as u64
            }
            Err(error) => self.fail_over(&error, now.mono),
        }
    }

    /// F12: the file is final, its folder is out of use, and everything above the durable mark is
    /// written again from the ring, elsewhere where there is an elsewhere. Returns whether that
    /// follows at once.
    fn fail_over(&mut self, error: &io::Error, now: Mono) -> bool {
        let place = self.log.place();
        self.log.fail();
        self.check_until = self.check_until.max(self.written);
        // For a successor, who would believe a sync.
        self.state.store(AT_CHECK_UNTIL, self.check_until.0);
        let (from, to) = (self.durable.0, self.check_until.0);
        let why = format!("log: {error}; positions {from} to {to} are written again");
        self.paths.fail(place, &why, now);
        let again = if self.paths.any_sound() {
            true
        } else {
            self.log_trouble.note(now, format!("log: {error}"))
        };
        self.report();
        again
    }

    /// Writes what lies between the durable mark and `tail`, syncs once, and returns how far.
    fn write_groups(&mut self, tail: Position, now: ClockMap) -> io::Result<Position> {
        let incarnation = self.state.load(AT_INCARNATION);
        let mut first = self.durable;
        for _ in 0..GROUPS_PER_TURN {
            let bytes = self.load_group(first, tail, now);
            self.log.write(&self.paths, &mut self.group, first, bytes, incarnation, now)?;
            self.last_bytes = bytes;
            first = Position(first.0 + bytes as u64);
            if first == tail || self.durable < self.check_until {
                break;
            }
        }
        if faulty!("spool.ack_before_sync") {
            self.state.store(AT_DURABLE, first.0);
        }
        self.log.sync()?;
        // What failed once is believed when it has been read, not when it has been synced.
        if self.durable < self.check_until && !self.log.reads_back(&self.group, self.last_bytes)? {
            return Err(io::Error::other("what was written does not read back"));
        }
        Ok(first)
    }

    /// F14: a sync that took so long that the ring is half full has shown that this disk is no
    /// place to go on in, if there is another one. Only between two syncs: the same span is never
    /// under way to two places.
    fn leave_slow(&mut self, began: Mono, ended: Mono) {
        let behind = self.state.load(AT_TAIL) - self.durable.0;
        let place = self.log.place();
        if ended < began.plus_ms(SLOW_MS)
            || behind <= self.ring_bytes / 2
            || !self.paths.is_sound(place)
        {
            return;
        }
        let why = format!("log: a sync took {} ms", ended.since(began) / 1_000_000);
        self.paths.fail(place, &why, ended);
        if self.paths.any_sound() {
            self.log.leave(place);
        } else {
            self.paths.works(place);
        }
    }

    /// Looks at some of what lies below the durable mark and was never indexed: a predecessor's. Four
    /// groups at most, and only what the ring still holds, which is all that is not sealed.
    pub(super) fn index_some(&mut self) {
        // Neither the durability of these records nor a doubt about them is the commit's.
        let (oldest, doubt_until) = (self.oldest, self.doubt_until);
        self.doubt_until = self.index_doubt_until;
        for _ in 0..GROUPS_PER_TURN {
            if self.indexed == self.durable {
                break;
            }
            self.copy_group(self.indexed, self.durable);
        }
        if self.indexed == self.durable {
            self.open.through = self.durable;
        }
        self.index_doubt_until = self.doubt_until;
        (self.oldest, self.doubt_until) = (oldest, doubt_until);
    }

    /// Copies what the next group is to hold. Returns its bytes.
    fn load_group(&mut self, first: Position, tail: Position, clock: ClockMap) -> usize {
        self.open.add_clock(clock);
        let bytes = self.copy_group(first, tail);
        self.written = self.written.max(Position(first.0 + bytes as u64));
        bytes
    }

    /// Copies ring bytes from `first` on behind the header's place of the group buffer, up to a
    /// record's end at or before `tail`; indexes the records that are new, unless there are older ones
    /// that are not indexed yet. Returns the bytes.
    fn copy_group(&mut self, first: Position, tail: Position) -> usize {
        let is_next = self.indexed >= first;
        let goal = if self.doubt_until > first { self.doubt_until.min(tail) } else { tail };
        let wanted = (goal.0 - first.0).min(GROUP_BYTES_MAX as u64) as usize;
        let payload = &mut self.group.bytes_mut()[GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + wanted];
        copy_ring(&self.ring, self.ring_bytes, first, payload);
        if self.doubt_until > first {
            if is_next {
                self.indexed = self.indexed.max(Position(first.0 + wanted as u64));
            }
            return wanted;
        }
        let end = Position(first.0 + wanted as u64);
        let mut cut = end;
        for step in Walk::new(payload, first, self.ring_bytes) {
            match step {
                log::Step::Record { at, record } => {
                    if at >= self.indexed {
                        if is_next {
                            self.open.add(at, &record);
                        }
                        let arrival = record.meta.arrival;
                        self.oldest = Some(self.oldest.map_or(arrival, |old| old.min(arrival)));
                    }
                }
                // The last record goes on behind the buffer: the next group begins with it.
                log::Step::Damaged { at, bytes }
                    if end < tail && at > first && at.0 + bytes == end.0 =>
                {
                    cut = at;
                }
                log::Step::Damaged { at, bytes } => {
                    let mut to = Position(at.0 + bytes);
                    if to == end {
                        // Where the next record begins is unknown up to what is the tail now.
                        self.doubt_until = tail;
                        to = tail;
                    }
                    if is_next && at >= self.indexed {
                        self.doubts.push(Doubt {
                            path: Default::default(),
                            from: at,
                            to,
                            why: "the ring held no valid record there".to_owned(),
                            durable: true,
                            since: None,
                            until: None,
                        });
                    }
                }
            }
        }
        if is_next {
            self.indexed = self.indexed.max(cut);
        }
        (cut.0 - first.0) as usize
    }
}
