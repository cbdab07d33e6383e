//! What is due when, in order, so that nothing that happens costs a look at every RS.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::actor::Control;
use super::job::ANSWER_MS;
use super::session::Phase;
use crate::base::ids::{Generation, RsId, Slot};
use crate::base::time::Mono;
use crate::store::event::Origin;

/// Deadlines of RSs and jobs. One that has moved stands here twice: what is really due is asked when
/// its time comes.
#[derive(Default)]
pub(super) struct Agenda {
    /// Ends of RSs that are over, offers of holds, and what is asked about keys.
    sessions: BTreeSet<(Mono, RsId)>,
    /// All jobs have the same time, so these are in order.
    jobs: VecDeque<(Mono, u64)>,
    /// Whose the streams are that media was asked to close.
    closes: HashMap<Slot, (Generation, RsId)>,
}

impl Agenda {
    /// Something of `rs` is due at an instant.
    pub(super) fn session(&mut self, at: Mono, rs: RsId) {
        self.sessions.insert((at, rs));
    }

    /// A job is given up at an instant, not before those that began earlier.
    pub(super) fn job(&mut self, at: Mono, number: u64) {
        debug_assert!(self.jobs.back().is_none_or(|(last, _)| *last <= at));
        self.jobs.push_back((at, number));
    }

    /// Media is asked to close a stream of `rs`.
    pub(super) fn close(&mut self, slot: Slot, generation: Generation, rs: RsId) {
        self.closes.insert(slot, (generation, rs));
    }

    /// Media has closed it: whose it was, if that was noted.
    pub(super) fn closed(&mut self, slot: Slot, generation: Generation) -> Option<RsId> {
        let (of, rs) = self.closes.remove(&slot)?;
        (of == generation).then_some(rs)
    }

    /// When something may be due.
    pub(super) fn next_timeout(&self) -> Option<Mono> {
        let session = self.sessions.first().map(|(at, _)| *at);
        let job = self.jobs.front().map(|(at, _)| *at);
        session.into_iter().chain(job).min()
    }
}

impl Control {
    /// Gives up the jobs whose time is over.
    pub(super) fn expire_jobs(&mut self) {
        while let Some((at, number)) = self.agenda.jobs.front().copied() {
            let is_there = self.jobs.contains_key(&number);
            if is_there && at > self.now.mono {
                return;
            }
            self.agenda.jobs.pop_front();
            if let Some(mut job) = self.jobs.remove(&number) {
                let what = if job.journal.is_some() { "the journal" } else { "media" };
                job.refused = Some(format!("{what} did not answer within {ANSWER_MS} ms"));
                self.finish(job);
            }
        }
    }

    /// Closes the streams of RSs that are over, and sends what is due in others.
    pub(super) fn run_sessions(&mut self) {
        let now = self.now.mono;
        while self.agenda.sessions.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, rs)) = self.agenda.sessions.pop_first()
        {
            let Some(session) = self.sessions.get(&rs) else { continue };
            let is_due = |at: Option<Mono>| at.is_some_and(|at| at <= now);
            let renews = is_due(session.renewal.next_timeout());
            match (session.phase, session.holding.next_timeout()) {
                (Phase::Ending(at), _) if at <= now => self.close_streams(rs, Origin::Src),
                (Phase::Live, due) if is_due(due) => self.tell_hold(rs),
                _ => {}
            }
            if renews {
                self.renew(rs);
            }
        }
    }
}
