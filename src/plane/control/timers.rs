//! Session timers of running RSs (RFC 4028): negotiated with each INVITE and UPDATE, refreshed, and
//! what becomes of an RS whose timer has run out (F51). The rules are `proto/session/timer.rs`'s; here
//! they meet SIP, media and the journal.
//!
//! A refresh never touches media: it is an UPDATE without a body, or, for a peer that takes none, a
//! re-INVITE with the SDP of our last answer, `o=` version included.

use super::actor::Control;
use super::effect::{Effect, Grave};
use super::job::Purpose;
use super::session::{Phase, Session};
use crate::base::ids::{RsId, Slot};
use crate::base::time::{ClockMap, Mono};
use crate::plane::handoff::frame::{Envelope, Frame};
use crate::proto::session::{Agreed, Due, Fate, Refresher, Timer, TimerRules, judge_timer};
use crate::proto::sip::{ClientTxnId, Reply};
use crate::store::event::Origin;
use crate::store::journal::entry::{Entry, SessionTimer};
use crate::wire::sip::{Headers, Message};

/// Our refresh found an offer open, or was told 491: again within this time, in steps of 10 ms (RFC
/// 3261 §14.1: up to 2 s, since the Call-ID is the peer's).
const GLARE_STEPS: u64 = 200;
/// A refresh that was refused for another reason is tried again after this.
const REFUSED_MS: u64 = 10_000;

impl Control {
    pub(super) fn timer_rules(&self) -> TimerRules {
        let sip = &self.config.sip;
        TimerRules { min_se_s: sip.min_se_s, session_expires_s: sip.session_expires_s }
    }

    /// The timer that a request of the peer asks for, or the 422 that refuses it.
    pub(super) fn agree(&self, headers: &Headers) -> Result<Option<Agreed>, Reply> {
        judge_timer(headers, &self.timer_rules())
            .map_err(|brief| Reply::new(422).with("Min-SE", brief.0.to_string()))
    }

    /// The journal's form of a timer that is refreshed now.
    pub(super) fn refreshed_now(&self, agreed: Option<Agreed>) -> Option<SessionTimer> {
        let agreed = agreed?;
        Some(SessionTimer {
            interval_s: agreed.interval_s,
            ours: agreed.refresher == Refresher::Us,
            peer: agreed.peer,
            since: self.now,
        })
    }

    /// The journal's form of a timer that is as it was.
    pub(super) fn timer_entry(&self, session: &Session) -> Option<SessionTimer> {
        let timer = session.timer.as_ref()?;
        let (agreed, since) = (timer.agreed(), timer.since());
        Some(SessionTimer {
            interval_s: agreed.interval_s,
            ours: agreed.refresher == Refresher::Us,
            peer: agreed.peer,
            since: ClockMap { mono: since, wall: self.now.wall(since) },
        })
    }

    /// Sets or ends the timer of an RS: what it had is over.
    pub(super) fn set_timer(&mut self, rs: RsId, timer: Option<Timer>) {
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        if session.timer.as_ref().is_some_and(Timer::is_orphan)
            && timer.as_ref().is_none_or(|timer| !timer.is_orphan())
        {
            let text = format!("{rs}: its SRC is there again");
            session.timer = timer;
            self.log(Grave::Info, text);
        } else {
            session.timer = timer;
        }
        self.arm_timer(rs);
    }

    /// The request that agreed it has its 2xx.
    pub(super) fn agreed(&mut self, rs: RsId, agreed: Option<Agreed>) {
        let now = self.now.mono;
        self.set_timer(rs, agreed.map(|agreed| Timer::new(agreed, now)));
    }

    /// Brings the list of deadlines up to date.
    pub(super) fn arm_timer(&mut self, rs: RsId) {
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        if let Some(at) = session.armed.take() {
            self.timers.remove(&(at, rs));
        }
        if session.phase != Phase::Live {
            return;
        }
        let timer = session.timer.as_ref().map(Timer::due);
        session.armed = timer.into_iter().chain(session.snapshot.due()).min();
        self.timers.extend(session.armed.map(|at| (at, rs)));
    }

    /// Does what session timers want done by now.
    pub(super) fn run_timers(&mut self) {
        let now = self.now.mono;
        while let Some((at, rs)) = self.timers.first().copied() {
            if at > now {
                return;
            }
            self.timers.pop_first();
            let Some(session) = self.sessions.get_mut(&rs) else { continue };
            session.armed = None;
            let live = session.phase == Phase::Live;
            let due = session.timer.as_mut().filter(|_| live).and_then(|timer| timer.poll(now));
            match due {
                Some(Due::Refresh) => self.refresh(rs, false),
                Some(Due::Call) => self.refresh(rs, true),
                Some(Due::Ask) => self.ask_heard(rs),
                None => {}
            }
            self.request_snapshot(rs);
            self.arm_timer(rs);
        }
    }

    /// Sends a refresh. `call`: a re-INVITE whatever the peer takes, since an orphan's SRC may have
    /// lost its session.
    fn refresh(&mut self, rs: RsId, call: bool) {
        let Some(session) = self.sessions.get(&rs) else { return };
        let (Some(dialog), Some(timer)) = (session.dialog, &session.timer) else { return };
        let Some(snapshot) = self.sip.snapshot(dialog) else { return };
        let mut headers = self.capable_in(&snapshot).headers;
        headers.extend(timer.agreed().of_request(&self.timer_rules()));
        let (method, body) = match snapshot.update && !call {
            true => ("UPDATE", Vec::new()),
            false => {
                headers.push(("Content-Type".to_owned(), "application/sdp".to_owned()));
                ("INVITE", session.answer_sdp.clone().into_bytes())
            }
        };
        // While a request of the peer is being answered no other one is begun; nor a second UPDATE
        // (RFC 3311 §5.1).
        let sent = match self.is_busy(rs) || session.snapshot.is_open() {
            true => None,
            false => self.sip.request(self.now.mono, dialog, method, &headers, &body),
        };
        let wait_ms = self.glare_ms();
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        let Some(timer) = &mut session.timer else { return };
        match sent {
            Some(request) => {
                session.refreshing = Some(request);
                timer.asked();
            }
            None => timer.again_in(now, wait_ms),
        }
    }

    pub(super) fn glare_ms(&self) -> u64 {
        let mut random = [0; 2];
        self.entropy.fill(&mut random);
        10 + u64::from(u16::from_le_bytes(random)) % GLARE_STEPS * 10
    }

    /// The answer to a refresh of ours. False: it is no such answer.
    pub(super) fn refresh_answered(
        &mut self,
        rs: RsId,
        request: ClientTxnId,
        message: &Message,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&rs) else { return false };
        if session.refreshing != Some(request) {
            return false;
        }
        let code = message.code().unwrap_or(0);
        if code < 200 {
            return true;
        }
        session.refreshing = None;
        let now = self.now.mono;
        let wait_ms = self.glare_ms();
        let Some(session) = self.sessions.get_mut(&rs) else { return true };
        let Some(timer) = &mut session.timer else { return true };
        let agreed = *timer.agreed();
        match code {
            200..300 => return self.refreshed(rs, agreed.after(&message.headers)),
            // RFC 4028 §7.3.
            422 => timer.raise(agreed.raised(&message.headers)),
            491 => timer.again_in(now, wait_ms),
            408 => timer.unanswered(now),
            // Judged by whoever looks at answers in a dialog.
            481 => return false,
            // It is there, which is all that can be learnt of a peer that counts no time.
            _ if !agreed.peer => return self.refreshed(rs, Some(agreed)),
            _ => {
                timer.again_in(now, REFUSED_MS);
                let text = format!("{rs}: refresh of its session refused: {code}");
                self.log(Grave::Warn, text);
            }
        }
        self.arm_timer(rs);
        true
    }

    /// Our refresh has its answer: the interval begins anew.
    fn refreshed(&mut self, rs: RsId, agreed: Option<Agreed>) -> bool {
        self.agreed(rs, agreed);
        let timer = self.refreshed_now(agreed);
        let entry = Entry::Timer { rs, at: self.now.wall, timer, orphan: false };
        self.begin(Purpose::Quiet, rs, None, None, Vec::new(), vec![entry]);
        true
    }

    /// No answer came to a request of ours. True: it was a refresh, and F51 says what follows.
    pub(super) fn refresh_unanswered(&mut self, rs: RsId, request: ClientTxnId) -> bool {
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(&rs) else { return false };
        if session.refreshing != Some(request) {
            return false;
        }
        session.refreshing = None;
        if let Some(timer) = &mut session.timer {
            timer.unanswered(now);
        }
        self.arm_timer(rs);
        true
    }

    /// Asks media when it heard anything of an RS last.
    fn ask_heard(&mut self, rs: RsId) {
        let Some(session) = self.sessions.get(&rs) else { return };
        let slots: Vec<Slot> = session.streams.iter().map(|s| s.description.slot).collect();
        let id = self.number();
        self.asked_heard.insert(id, rs);
        let frame = Frame::Heard { slots };
        self.effects.push_back(Effect::Media(Envelope { id, fds: 0, frame }));
    }

    /// Media says when it heard anything of each slot last.
    pub(super) fn heard(&mut self, id: u64, slots: &[(Slot, Mono)]) {
        let Some(rs) = self.asked_heard.remove(&id) else { return self.keys_heard(id, slots) };
        let (now, wall) = (self.now.mono, self.now.wall);
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        let Some(timer) = session.timer.as_mut().filter(|_| session.phase == Phase::Live) else {
            return;
        };
        // A stream that was opened just now has not had the time to be heard.
        let last = slots.iter().map(|(_, at)| *at).filter(|at| at.0 > 0).max();
        let fate = timer.heard(now, last);
        match fate {
            Fate::Runs => {}
            Fate::Orphan { first: false } => {}
            Fate::Orphan { first: true } => {
                self.log(
                    Grave::Error,
                    format!("alarm: {rs} is an orphan: its session timer ran out and media comes"),
                );
                let timer = self.sessions.get(&rs).and_then(|session| self.timer_entry(session));
                let entry = Entry::Timer { rs, at: wall, timer, orphan: true };
                self.begin(Purpose::Quiet, rs, None, None, Vec::new(), vec![entry]);
            }
            Fate::Over => {
                self.log(Grave::Warn, format!("{rs}: its session timer ran out, it is silent"));
                self.end_as(rs, "session timer expired", Origin::Observed);
            }
        }
        self.arm_timer(rs);
    }

    /// The timer of before a restart, in an RS that goes on.
    pub(super) fn timer_of(&self, timer: &SessionTimer, orphan: bool) -> Timer {
        let agreed = Agreed {
            interval_s: timer.interval_s,
            refresher: if timer.ours { Refresher::Us } else { Refresher::Peer },
            peer: timer.peer,
        };
        Timer::restored(agreed, timer.since, self.now, orphan)
    }
}

/// Adds what was agreed to the 2xx.
pub(super) fn with_timer(mut reply: Reply, agreed: Option<Agreed>) -> Reply {
    reply.headers.extend(agreed.iter().flat_map(Agreed::of_answer));
    reply
}
