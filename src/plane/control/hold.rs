//! Pause, resume and stop by the operator of the SRS (RFC 7866 §7.2), and pause and resume by an INFO
//! with `X-AC-Action`, as AudioCodes SBCs know it for their own calls. A pause holds from the moment
//! of the decision: media is told first, and the SRC hears of it when the journal has it, by an offer
//! whose lines are `inactive`. Whatever the SRC says, or offers meanwhile, nothing of it is stored. A
//! resume is the SRC's to grant: its answer says which lines it sends on again.
//!
//! What was decided and whether the SRC knows stands in the journal; a successor goes on from there.

use std::collections::BTreeSet;

use super::actor::Control;
use super::effect::{Effect, Grave};
use super::job::{Job, Purpose};
use super::operator::{Asked, Outcome, Verb, told};
use super::recover::state;
use super::session::Phase;
use super::start::wanted;
use crate::base::ids::{RsId, Slot};
use crate::base::time::Mono;
use crate::plane::handoff::frame::Frame;
use crate::proto::session as rs_proto;
use crate::proto::sip::{ClientTxnId, IncomingRequest, Reply};
use crate::store::event::Origin;
use crate::store::journal::entry::{DialogState, Entry, Hold};
use crate::store::journal::keybox::answer_context;
use crate::wire::sip::Message;

/// How long an offer that cannot leave now waits.
const AGAIN_MS: u64 = 500;
/// An SRC of before a restart that may not have heard of a decision is told after this long.
const RETOLD_MS: u64 = 1_000;

/// What an RS knows of its holds.
#[derive(Default)]
pub(super) struct Holding {
    /// We have paused it.
    pub(super) held: bool,
    /// The offer that tells the SRC is under way.
    offering: Option<ClientTxnId>,
    /// An offer that was under way when something else was decided: its answer comes too late.
    stale: Option<ClientTxnId>,
    /// When it is sent (again).
    due: Option<Mono>,
    /// Who asked for a resume, and waits for the SRC's answer.
    asked: Option<u64>,
    /// The user who asked last.
    uid: u32,
    /// The SRC asked last, by the INFO with that CSeq.
    info: Option<u32>,
    /// The offer only tells what was decided here, by the recording policy or of single lines.
    tells: bool,
    /// Lines that an operator has ended, by name.
    pub(super) ended: BTreeSet<String>,
}

/// Who wants a pause or resume, and waits for it.
enum Asker<'r> {
    /// An operator.
    Operator(u64),
    /// The SRC, by an INFO.
    Src(&'r IncomingRequest),
}

impl Holding {
    /// As the journal has it.
    pub(super) fn restored(hold: Option<Hold>, now: Mono) -> Self {
        let Some(hold) = hold else { return Holding::default() };
        let due = (!hold.told).then(|| now.plus_ms(RETOLD_MS));
        let Hold { held, uid, info, ended, tells, .. } = hold;
        Holding { held, due, uid, info, ended, tells, ..Holding::default() }
    }

    /// A line is ended. An offer that is due anyway says it too.
    pub(super) fn end_line(&mut self, name: &str) {
        self.ended.insert(name.to_owned());
        self.tells |= self.due.is_none();
    }

    /// Whether an offer of ours is not settled yet.
    pub(super) fn is_open(&self) -> bool {
        self.offering.is_some()
    }

    /// Who asked last.
    const fn by(&self) -> Origin {
        if self.info.is_some() { Origin::Src } else { Origin::Srs }
    }

    /// When something is to be sent.
    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.due
    }
}

impl Control {
    /// Does what an operator asks for, or says why not.
    pub(super) fn asked(&mut self, asked: Asked) {
        let Asked { id, uid, verb } = asked;
        if let Some(fault) = verb.fault() {
            return self.outcome(id, Outcome::Refused(fault.to_owned()));
        }
        let rs = match &verb {
            Verb::Pause { rs }
            | Verb::Resume { rs }
            | Verb::StopLine { rs, .. }
            | Verb::Stop { rs, .. } => *rs,
            Verb::Start { to, address, transport } => {
                self.log(Grave::Info, format!("user {uid} asks: {}", told(&verb)));
                return self.call(id, to, *address, *transport);
            }
        };
        let live = self.sessions.get(&rs).is_some_and(|session| session.phase == Phase::Live);
        if !live {
            return self.outcome(id, Outcome::Unknown);
        }
        self.log(Grave::Info, format!("user {uid} asks: {}", told(&verb)));
        if let Verb::Stop { reason, .. } = verb {
            return self.stop(id, rs, &reason);
        }
        if let Verb::StopLine { line, reason, .. } = verb {
            return self.end_line((id, uid), rs, &line, &reason);
        }
        if let Some(why) = self.admission.journal_obstacle() {
            return self.outcome(id, Outcome::Failed(why));
        }
        let held = matches!(verb, Verb::Pause { .. });
        if self.cannot_hold(rs, held) {
            return self.outcome(id, Outcome::Busy);
        }
        let Some(session) = self.sessions.get(&rs) else { return };
        // One of the SRC becomes the operator's: the SRC cannot lift it any more.
        if session.holding.held == held && !(held && session.holding.info.is_some()) {
            return self.outcome(id, Outcome::Done);
        }
        self.decide(rs, Holding { held, uid, ..Holding::default() });
        self.hold(&Asker::Operator(id), rs, held);
    }

    /// The SRC wants a pause or resume by INFO. It is a hold like an operator's, since an offer that only
    /// refreshes must not undo it; but it never lifts one of an operator. False: nothing is to be done.
    pub(super) fn held_by_info(&mut self, rs: RsId, request: &IncomingRequest) -> bool {
        let Some(held) = siprec_action(&request.message) else { return false };
        let Some(session) = self.sessions.get(&rs) else { return false };
        let operators = session.holding.held && session.holding.info.is_none();
        if session.phase != Phase::Live || session.holding.held == held || operators {
            return false;
        }
        if self.cannot_hold(rs, held) {
            let reply = Reply::new(500).with("Retry-After", "1".to_owned());
            self.reply(request.txn, reply);
            return true;
        }
        if let Some(why) = self.admission.journal_obstacle() {
            let reply = self.unavailable(&why);
            self.reply(request.txn, reply);
            return true;
        }
        self.log(Grave::Info, format!("{rs}: its SRC asks for a {} by INFO", word(held)));
        let info = request.message.cseq().map(|cseq| cseq.number);
        self.decide(rs, Holding { held, info, ..Holding::default() });
        self.hold(&Asker::Src(request), rs, held);
        true
    }

    /// Whether something under way stands in the way. An offer of ours without an answer does not stand in
    /// that of a pause: its answer comes too late then.
    fn cannot_hold(&self, rs: RsId, held: bool) -> bool {
        if held { self.is_changing(rs) } else { self.is_busy(rs) }
    }

    /// What is decided from now on. Whoever waited for a resume hears that there is none.
    fn decide(&mut self, rs: RsId, holding: Holding) {
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        let mut before = std::mem::replace(&mut session.holding, holding);
        session.holding.ended = std::mem::take(&mut before.ended);
        session.holding.stale = before.offering.or(before.stale);
        if let Some(asked) = before.asked {
            self.outcome(asked, Outcome::Refused("it was paused meanwhile".to_owned()));
        }
    }

    /// The RS ends: whoever waits for a resume of it hears so.
    pub(super) fn resume_is_off(&mut self, rs: RsId) {
        let asked = self.sessions.get_mut(&rs).and_then(|session| session.holding.asked.take());
        if let Some(asked) = asked {
            self.outcome(asked, Outcome::Refused("the recording has ended meanwhile".to_owned()));
        }
    }

    /// An answer for whoever asked.
    pub(super) fn outcome(&mut self, id: u64, outcome: Outcome) {
        self.effects.push_back(Effect::Outcome { id, outcome });
    }

    fn stop(&mut self, id: u64, rs: RsId, reason: &str) {
        self.end_as(rs, reason, Origin::Srs);
        let ends = |job: &&mut Job| job.rs == rs && matches!(job.purpose, Purpose::Bye(..));
        match self.jobs.values_mut().find(ends) {
            Some(job) => job.verb = Some(id),
            None => self.outcome(id, Outcome::Done),
        }
    }

    /// Media first: what is decided now holds for the packets of now.
    fn hold(&mut self, asker: &Asker<'_>, rs: RsId, held: bool) {
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        let by = session.holding.by();
        let before = session.streams.clone();
        if held {
            session.streams.iter_mut().for_each(|stream| stream.active = false);
        }
        let (own, (session_id, version)) = (&session.answer_sdp, session.origin);
        let active = |line| !held && !session.is_barred(line);
        let text = directed(own, &active, (session_id, version + 1));
        session.origin.1 += 1;
        session.answer_sdp = text;
        let changed = session.streams.iter().zip(&before).filter(|(now, before)| now != before);
        let frames = changed
            .filter_map(|(now, _)| session.open_frame(&self.keys, now))
            .map(|open| Frame::Update { stream: Box::new(open), by })
            .collect();
        let mut entry = self.held_entry(rs, false);
        let id = match asker {
            Asker::Operator(id) => *id,
            Asker::Src(request) => {
                // Its number and its way, so that it gets the same answer again.
                if let Some(Entry::Changed { dialog, .. }) = &mut entry
                    && let Some(own) = self.sip.prospective(request.txn)
                {
                    *dialog = state(own, false);
                }
                let (txn, reply) = (Some(request.txn), Some(Reply::new(200)));
                let entries = entry.into_iter().collect();
                return self.begin(Purpose::Hold, rs, txn, reply, frames, entries);
            }
        };
        if !held && let Some(session) = self.sessions.get_mut(&rs) {
            session.holding.asked = Some(id);
        }
        let entries = entry.into_iter().collect();
        self.begin(Purpose::Hold, rs, None, None, frames, entries);
        let holds = |job: &&mut Job| job.rs == rs && matches!(job.purpose, Purpose::Hold);
        match self.jobs.values_mut().find(holds) {
            Some(job) => job.verb = held.then_some(id),
            // A dialog that is being lost has neither.
            None => self.outcome(id, Outcome::Unknown),
        }
    }

    /// The state of an RS for the journal. `told`: the SRC knows.
    pub(super) fn held_entry(&self, rs: RsId, told: bool) -> Option<Entry> {
        let session = self.sessions.get(&rs)?;
        let dialog = self.sip.snapshot(session.dialog?)?;
        let &Holding { held, uid, info, tells, ref ended, .. } = &session.holding;
        let speaks = !tells || held || !ended.is_empty();
        let hold = || Hold { held, told, uid, info, ended: ended.clone(), ends: None, tells };
        let answer = session.answer_sdp.as_bytes();
        Some(Entry::Changed {
            rs,
            at: self.now.wall,
            // No request of the SRC stands behind it.
            dialog: DialogState { answered: None, ..state(dialog, false) },
            streams: session.streams.clone(),
            quirks: Vec::new(),
            answer_sdp: self.keys.seal(&*self.entropy, answer, &answer_context(rs)),
            timer: self.timer_entry(session),
            hold: speaks.then(hold),
            refused: false,
        })
    }

    /// Media and journal have it, or cannot. A pause stays one in any case: what was not to be
    /// stored is not.
    pub(super) fn finish_hold(&mut self, job: Job) {
        let Job { rs, txn, reply, refused, applied, .. } = job;
        let now = self.now.mono;
        let live = self.sessions.get(&rs).is_some_and(|session| session.phase == Phase::Live);
        if let (Some(txn), Some(reply)) = (txn, reply) {
            let reply = match &refused {
                Some(why) => self.unavailable(why),
                None if live => reply,
                None => Reply::new(481),
            };
            self.reply(txn, reply);
        }
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        if !live {
            return;
        }
        session.holding.due = Some(now);
        self.agenda.session(now, rs);
        let &Holding { held, asked, tells, .. } = &session.holding;
        let by = session.holding.by();
        if let Some(why) = &refused {
            let what = if tells { "end of a line" } else { word(held) };
            self.log(Grave::Error, format!("{rs}: a {what} is not confirmed: {why}"));
            self.ask_streams(rs);
            if let Some(id) = asked {
                self.outcome(id, Outcome::Failed(why.clone()));
            }
        }
        let Some(session) = self.sessions.get(&rs) else { return };
        let of = |slot: Slot| session.streams.iter().find(|own| own.description.slot == slot);
        let entries: Vec<Entry> = applied
            .iter()
            .filter_map(|(slot, _, at)| {
                let stream = of(*slot)?.description.stream;
                let (at, mono) = (at.wall, at.mono);
                Some(Entry::Direction { rs, stream, at, mono, active: !held, by })
            })
            .collect();
        if !entries.is_empty() {
            self.begin(Purpose::Quiet, rs, None, None, Vec::new(), entries);
        }
        self.run_sessions();
    }

    /// The SRC hears by an offer which lines the recording policy has paused, or wants again. One that
    /// is due anyway says it too.
    pub(super) fn tell_policy(&mut self, rs: RsId) {
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        if session.holding.due.is_none() {
            (session.holding.due, session.holding.tells) = (Some(now), true);
        }
        self.agenda.session(now, rs);
    }

    /// Sends the offer of a hold that is due.
    pub(super) fn tell_hold(&mut self, rs: RsId) {
        let sent = self.offer(rs);
        let again = sent.is_none().then(|| self.now.mono.plus_ms(AGAIN_MS));
        if let Some(session) = self.sessions.get_mut(&rs) {
            session.holding.offering = sent;
            session.holding.due = again;
        }
        if let Some(again) = again {
            self.agenda.session(again, rs);
        }
    }

    fn offer(&mut self, rs: RsId) -> Option<ClientTxnId> {
        let session = self.sessions.get(&rs)?;
        let dialog = session.dialog?;
        let waits = session.refreshing.is_some() || session.snapshot.is_open() || self.is_busy(rs);
        if waits || !self.is_settled() {
            return None;
        }
        let place = self.sip.snapshot(dialog)?;
        let mut headers = self.capable_in(&place).headers;
        headers.push(("Content-Type".to_owned(), "application/sdp".to_owned()));
        let method = if place.update { "UPDATE" } else { "INVITE" };
        let body = session.answer_sdp.clone().into_bytes();
        self.sip.request(self.now.mono, dialog, method, &headers, &body)
    }

    /// The SRC's answer to such an offer. False: it is none.
    pub(super) fn hold_answered(
        &mut self,
        rs: RsId,
        request: ClientTxnId,
        message: &Message,
    ) -> bool {
        let code = message.code().unwrap_or(0);
        let glare_ms = self.glare_ms();
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(&rs) else { return false };
        if session.holding.offering != Some(request) {
            return false;
        }
        if code < 200 {
            return true;
        }
        session.holding.offering = None;
        match code {
            200..300 if session.holding.held => {
                session.holding.tells = false;
                self.src_knows(rs);
            }
            200..300 => self.resume(rs, message),
            // RFC 3261 §14.1.
            491 => {
                let due = now.plus_ms(glare_ms);
                session.holding.due = Some(due);
                self.agenda.session(due, rs);
            }
            // Judged by whoever looks at answers in a dialog.
            408 | 481 => return false,
            _ => self.src_refuses(rs, &format!("the SRC answers {code}")),
        }
        true
    }

    /// No answer came to a request of ours. True: it was such an offer. Whether the SRC is there is for
    /// its timer to find out: media may come all the same.
    pub(super) fn hold_unanswered(&mut self, rs: RsId, request: ClientTxnId) -> bool {
        let Some(session) = self.sessions.get_mut(&rs) else { return false };
        if session.holding.stale.take_if(|stale| *stale == request).is_some() {
            return true;
        }
        if session.holding.offering != Some(request) {
            return false;
        }
        self.src_refuses(rs, "the SRC does not answer");
        true
    }

    fn src_refuses(&mut self, rs: RsId, why: &str) {
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        session.holding.offering = None;
        let held = session.holding.held;
        if std::mem::take(&mut session.holding.tells) {
            // What is decided holds; the SRC hears of it by its next offer.
            return self.log(Grave::Warn, format!("{rs}: lines of it told in vain: {why}"));
        }
        self.log(Grave::Warn, format!("{rs}: {} told in vain: {why}", word(held)));
        // A pause holds whatever it says. A resume that it does not grant is none: it may be asked
        // for again.
        if let Some(session) = self.sessions.get_mut(&rs).filter(|_| !held) {
            session.holding.held = true;
            let (id, version) = session.origin;
            session.answer_sdp = directed(&session.answer_sdp, &|_| false, (id, version + 1));
            session.origin.1 += 1;
        }
        let asked = self.sessions.get_mut(&rs).and_then(|session| session.holding.asked.take());
        self.src_knows(rs);
        if let Some(id) = asked {
            self.outcome(id, Outcome::Refused(why.to_owned()));
        }
    }

    /// Nothing more is to be told.
    fn src_knows(&mut self, rs: RsId) {
        let entries = self.held_entry(rs, true).into_iter().collect();
        self.begin(Purpose::Quiet, rs, None, None, Vec::new(), entries);
    }

    /// The SRC sends again, on the lines that its answer names: an answer is judged as an offer is,
    /// for what we wrote was an offer of what stood.
    fn resume(&mut self, rs: RsId, message: &Message) {
        let Some(session) = self.sessions.get(&rs) else { return };
        let Some(dialog) = session.dialog.and_then(|dialog| self.sip.snapshot(dialog)) else {
            return;
        };
        let (identity, user) = (dialog.identity.as_deref(), dialog.user.as_deref());
        let policy = self.policy(dialog.peer.ip(), identity, user, dialog.transport);
        let body = Self::body(message, &policy).ok();
        let Some(answer) = body.and_then(|body| body.offer) else {
            return self.src_refuses(rs, "the SRC's answer has no SDP");
        };
        let old = session.by_line();
        let negotiated = rs_proto::negotiate(&answer, None, &policy);
        let mut lines = wanted(&negotiated);
        // An answer has no lines of its own.
        lines.retain(|line| old.contains_key(&line.line));
        // Nor does it change what the policy wants.
        for line in &mut lines {
            // What we offered stays where it is.
            line.family = None;
            // Of a line that we offered as inactive its answer says nothing of its own.
            if let Some(sends) = old[&line.line].barred {
                (line.barred, line.active) = (true, sends);
            }
        }
        let by_policy = session.holding.tells;
        if !by_policy && !lines.iter().any(|line| line.active) {
            return self.src_refuses(rs, "the SRC sends on no line");
        }
        let (mut plan, _, mut entries) =
            self.plan(rs, &lines, &old, (dialog.local.ip(), negotiated.lines.len()));
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        plan.origin = session.origin;
        plan.answer_sdp = session.answer_sdp.clone();
        plan.negotiated = session.negotiated.take();
        plan.by_us = session.holding.by() == Origin::Srs;
        plan.by_policy = by_policy;
        let asked = session.holding.asked.take();
        let frames = self.frames(rs, &plan, &old);
        if let Some(Entry::Changed { rs, at, dialog, quirks, answer_sdp, timer, hold, .. }) =
            self.held_entry(rs, true)
        {
            let streams = plan.streams.clone();
            entries.push(Entry::Changed {
                rs,
                at,
                dialog,
                streams,
                quirks,
                answer_sdp,
                timer,
                hold,
                refused: false,
            });
        }
        if let Some(session) = self.sessions.get_mut(&rs) {
            session.holding.tells = false;
        }
        self.begin(Purpose::Change, rs, None, None, frames, entries);
        let changes = |job: &&mut Job| job.rs == rs && matches!(job.purpose, Purpose::Change);
        if let Some(job) = self.jobs.values_mut().find(changes) {
            job.plan = Some(Box::new(plan));
            job.verb = asked;
        }
    }

    /// Media and journal have the resume, or cannot: then the streams stay as they are.
    pub(super) fn finish_resume(&mut self, job: Job) {
        let Job { rs, refused, plan, applied, .. } = job;
        let live = self.sessions.get(&rs).is_some_and(|session| session.phase == Phase::Live);
        match (refused, plan) {
            (Some(why), plan) => {
                self.log(Grave::Error, format!("{rs} not resumed: {why}"));
                // The SRC sends and nothing is stored: it is asked once more.
                if let Some(session) = self.sessions.get_mut(&rs) {
                    let due = self.now.mono.plus_ms(AGAIN_MS);
                    session.holding.due = Some(due);
                    session.holding.tells = plan.is_some_and(|plan| plan.by_policy);
                    self.agenda.session(due, rs);
                }
            }
            (None, Some(plan)) if live => {
                self.adopt(rs, *plan, &applied);
                self.ask_pictures(rs);
            }
            (None, _) => {}
        }
    }
}

/// What an INFO wants: true to pause, false to resume.
fn siprec_action(message: &Message) -> Option<bool> {
    let value = message.headers.get("X-AC-Action")?;
    let action = value.split(';').next().unwrap_or_default().trim();
    match () {
        () if action.eq_ignore_ascii_case("pause-siprec") => Some(true),
        () if action.eq_ignore_ascii_case("resume-siprec") => Some(false),
        () => None,
    }
}

fn word(held: bool) -> &'static str {
    if held { "pause" } else { "resume" }
}

/// Our SDP with the direction of each line as `active` has it, under another `o=` version (RFC 3264
/// §8.4): `recvonly`, or `inactive`.
pub(super) fn directed(
    sdp: &str,
    active: &dyn Fn(u16) -> bool,
    (session_id, version): (u64, u64),
) -> String {
    let mut text = String::with_capacity(sdp.len());
    let mut line_now = None;
    for line in sdp.lines() {
        match line {
            "a=recvonly" | "a=inactive" => {
                let active = line_now.is_some_and(active);
                text.push_str(if active { "a=recvonly" } else { "a=inactive" });
            }
            _ if line.starts_with("o=") => {
                let mut fields: Vec<&str> = line.split(' ').collect();
                let (id, version) = (session_id.to_string(), version.to_string());
                if fields.len() > 2 {
                    (fields[1], fields[2]) = (&id, &version);
                }
                text.push_str(&fields.join(" "));
            }
            _ => {
                if line.starts_with("m=") {
                    line_now = Some(line_now.map_or(0, |line: u16| line.saturating_add(1)));
                }
                text.push_str(line);
            }
        }
        text.push_str("\r\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sdp_is_directed_the_other_way_and_nothing_else_of_it_changes() {
        let sdp = "v=0\r\no=floortape 77 3 IN IP4 127.0.0.1\r\ns=-\r\nm=audio 4000 RTP/AVP 0\r\n\
                   a=label:1\r\na=recvonly\r\nm=audio 0 RTP/AVP 0\r\n";
        let held = directed(sdp, &|_| false, (77, 4));
        assert_eq!(held, sdp.replace("77 3", "77 4").replace("recvonly", "inactive"));
        assert_eq!(directed(&held, &|_| true, (77, 3)), sdp);
        let two = format!("{sdp}a=recvonly\r\n");
        let first = directed(&two, &|line| line == 0, (77, 3));
        assert_eq!(first, format!("{sdp}a=inactive\r\n"));
    }
}
