//! Fresh keys for lines of which nothing verifies (F34). Their SRC is asked for a new offer by a
//! re-INVITE without one (RFC 3261 §14.1): what its 2xx offers is judged as any offer of its is, and our
//! ACK brings the answer, once media and journal have it. The RS, its metadata and its other lines go on
//! whatever comes of it.
//!
//! An SRC is asked once for each key of a line: what it offers again is what it has. It is not asked
//! where its Allow has no INVITE, nor again once it has refused.

use std::collections::{BTreeMap, BTreeSet};

use super::actor::Control;
use super::effect::{Effect, Grave};
use super::job::{Job, Plan, Purpose};
use super::lines::{Fit, Locals, Wanted};
use super::recover::state;
use super::selection::{Veil, left_out, told, unwanted_lines};
use super::session::{Phase, Session};
use super::start::{metadata_quirks, wanted};
use crate::base::ids::{Generation, RsId, Slot, StreamId};
use crate::base::time::Mono;
use crate::plane::handoff::frame::{Envelope, Frame};
use crate::proto::session::{self as rs_proto, Agreed, Body, Negotiated};
use crate::proto::sip::{ClientTxnId, DialogSnapshot, Failure};
use crate::store::journal::entry::{DialogState, Entry, SealedCrypto, StreamOpened};
use crate::store::journal::keybox::answer_context;
use crate::wire::sip::Message;

/// From media's word that nothing verifies, a second into it at the earliest, to the look whether that is
/// still so: 5 s of failures (F34).
const LOOK_MS: u64 = 4_000;
/// What was heard so long ago does not count any more.
const SILENT_NS: u64 = 5_000_000_000;
/// Something else is under way in the dialog: again after this.
const AGAIN_MS: u64 = 500;
/// A re-INVITE is answered at once, since nobody has to pick up; an SRC that lets it ring longer is not
/// asked any more (RFC 3261 §9.1).
const ANSWER_MS: u64 = 10_000;
/// Times that one question is put, where offers cross or the SRC has no time for it.
const TRIES_MAX: u8 = 5;
/// What an SRC may ask us to wait for at most (RFC 3261 §14.1: up to 10 s).
const RETRY_S_MAX: u64 = 30;

/// What an RS knows of its keys.
#[derive(Default)]
pub(super) struct Renewal {
    /// Lines of which media says that nothing verifies.
    failing: BTreeSet<(Slot, Generation)>,
    /// Nothing has for five seconds.
    proven: bool,
    tries: u8,
    /// When they are looked at, the SRC is asked (again), or the question is taken back.
    due: Option<Mono>,
    /// Our re-INVITE that is under way.
    asking: Option<ClientTxnId>,
    /// Its 2xx, until our ACK leaves.
    answered: Option<Box<Offered>>,
    /// Keys that their SRC was asked about.
    asked: BTreeMap<StreamId, SealedCrypto>,
    /// It does not answer such questions.
    refused: bool,
}

/// What a 2xx offers.
struct Offered {
    message: Message,
    locals: Locals,
    agreed: Option<Agreed>,
}

impl Renewal {
    /// Whether an offer of the SRC is asked for.
    pub(super) fn is_open(&self) -> bool {
        self.asking.is_some()
    }

    /// When something is to be done.
    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.due
    }

    /// Nothing is wanted any more.
    fn rest(&mut self) {
        self.failing.clear();
        (self.proven, self.tries, self.due) = (false, 0, None);
    }
}

impl Control {
    /// Media says that nothing verifies on a line.
    pub(super) fn keys_fail(&mut self, slot: Slot, generation: Generation) {
        let due = self.now.mono.plus_ms(LOOK_MS);
        let of = |session: &&mut Box<Session>| session.may_ask((slot, generation));
        let Some(session) = self.sessions.values_mut().find(of) else { return };
        let (rs, renewal) = (session.rs, &mut session.renewal);
        renewal.failing.insert((slot, generation));
        if renewal.due.is_none() && renewal.asking.is_none() {
            renewal.due = Some(due);
            self.agenda.session(due, rs);
        }
    }

    /// What is due of an RS whose keys do not match.
    pub(super) fn renew(&mut self, rs: RsId) {
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        session.renewal.due = None;
        if let Some(request) = session.renewal.asking {
            // Its 487 says that there is no offer.
            self.sip.cancel(now, request);
            return;
        }
        if session.renewal.proven {
            return self.ask_offer(rs);
        }
        let slots = session.renewal.failing.iter().map(|(slot, _)| *slot).collect();
        let id = self.number();
        self.asked_keys.insert(id, rs);
        let frame = Frame::Heard { slots };
        self.effects.push_back(Effect::Media(Envelope { id, fds: 0, frame }));
    }

    /// Media says when it heard anything last of lines whose keys did not match.
    pub(super) fn keys_heard(&mut self, id: u64, slots: &[(Slot, Mono)]) {
        let Some(rs) = self.asked_keys.remove(&id) else { return };
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        let silent = |slot: Slot| {
            let heard = slots.iter().find(|(own, _)| *own == slot);
            heard.is_some_and(|(_, at)| now.since(*at) >= SILENT_NS)
        };
        let mut failing = std::mem::take(&mut session.renewal.failing);
        failing.retain(|line| silent(line.0) && session.may_ask(*line));
        if failing.is_empty() {
            return session.renewal.rest();
        }
        (session.renewal.failing, session.renewal.proven) = (failing, true);
        self.ask_offer(rs);
    }

    /// Asks the SRC for an offer, now or when nothing else is under way in the dialog.
    fn ask_offer(&mut self, rs: RsId) {
        let now = self.now.mono;
        let Some(session) = self.sessions.get(&rs) else { return };
        let place = session.dialog.and_then(|dialog| Some((dialog, self.sip.snapshot(dialog)?)));
        let place = place.filter(|(_, place)| !place.refuses_invite);
        // In a pause nothing of it is to verify.
        let wanted = session.phase == Phase::Live && !session.holding.held;
        let Some((dialog, place)) = place.filter(|_| wanted) else {
            if let Some(session) = self.sessions.get_mut(&rs) {
                session.renewal.rest();
            }
            return;
        };
        let waits = session.refreshing.is_some()
            || session.snapshot.is_open()
            || self.is_busy(rs)
            || !self.is_settled()
            || self.admission.journal_obstacle().is_some();
        let mut headers = self.capable_in(&place).headers;
        if let Some(timer) = &session.timer {
            // A re-INVITE that says nothing of it would end it (RFC 4028 §7.4).
            headers.extend(timer.agreed().of_request(&self.timer_rules()));
        }
        let asking = (!waits).then(|| self.sip.ask_offer(now, dialog, &headers)).flatten();
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        let due = now.plus_ms(if asking.is_some() { ANSWER_MS } else { AGAIN_MS });
        session.renewal.due = Some(due);
        session.renewal.asking = asking;
        if asking.is_some() {
            let text = format!("{rs}: its SRC is asked for fresh keys of {}", session.note_asked());
            self.log(Grave::Warn, text);
        }
        self.agenda.session(due, rs);
    }

    /// The SRC's answer to such a question. False: it is none.
    pub(super) fn renewal_answered(
        &mut self,
        rs: RsId,
        request: ClientTxnId,
        message: &Message,
    ) -> bool {
        let (code, glare_ms) = (message.code().unwrap_or(0), self.glare_ms());
        let Some(session) = self.sessions.get_mut(&rs) else { return false };
        let renewal = &mut session.renewal;
        if renewal.asking != Some(request) {
            return false;
        }
        if code < 200 {
            return true;
        }
        (renewal.asking, renewal.due) = (None, None);
        let wait_ms = match code {
            200..300 => {
                renewal.rest();
                self.renewed(rs, request, message);
                return true;
            }
            // Judged by whoever looks at answers in a dialog.
            481 => return false,
            // RFC 3261 §14.1.
            491 => glare_ms,
            500 | 503 => {
                let seconds = message.headers.get("Retry-After").unwrap_or("");
                let digits: String = seconds.chars().take_while(char::is_ascii_digit).collect();
                digits.parse().unwrap_or(1_u64).clamp(1, RETRY_S_MAX) * 1_000
            }
            _ => {
                self.not_renewed(rs, &format!("it answers {code}"));
                return true;
            }
        };
        renewal.tries += 1;
        if renewal.tries >= TRIES_MAX {
            self.not_renewed(rs, &format!("it answers {code}, {TRIES_MAX} times"));
            return true;
        }
        let due = self.now.mono.plus_ms(wait_ms);
        renewal.due = Some(due);
        self.agenda.session(due, rs);
        true
    }

    /// No answer came to a request of ours. True: it was such a question. Whether the SRC is there is for
    /// its timer to find out.
    pub(super) fn renewal_unanswered(
        &mut self,
        rs: RsId,
        request: ClientTxnId,
        why: Failure,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&rs) else { return false };
        if session.renewal.asking != Some(request) {
            return false;
        }
        session.renewal.asking = None;
        let why = match why {
            Failure::Timeout => "it does not answer",
            _ => "it cannot be reached",
        };
        self.not_renewed(rs, why);
        true
    }

    fn not_renewed(&mut self, rs: RsId, why: &str) {
        if let Some(session) = self.sessions.get_mut(&rs) {
            session.renewal.rest();
            session.renewal.refused = true;
        }
        self.log(Grave::Error, format!("{rs}: its SRC gives no fresh keys: {why}"));
    }

    /// The SRC offers: what it offers is judged as in a re-INVITE of its own, but that nothing of it can be
    /// refused any more except by line.
    fn renewed(&mut self, rs: RsId, request: ClientTxnId, message: &Message) {
        let live = self.sessions.get(&rs).is_some_and(|session| session.phase == Phase::Live);
        let offered = if live { self.offered(rs, message) } else { Err("it is over".to_owned()) };
        let (place, body, negotiated) = match offered {
            Ok(offered) => offered,
            Err(why) => {
                self.sip.acknowledge_with(request, message, &[], &[]);
                return self.log(Grave::Error, format!("{rs}: no fresh keys: {why}"));
            }
        };
        self.apply_offered(rs, request, (&place, message, &body), negotiated);
    }

    /// What a 2xx offers, judged by line.
    fn offered(
        &self,
        rs: RsId,
        message: &Message,
    ) -> Result<(DialogSnapshot, Body, Negotiated), String> {
        let session = self.sessions.get(&rs);
        let place = session.and_then(|session| self.sip.snapshot(session.dialog?));
        let (Some(session), Some(place)) = (session, place) else {
            return Err("its dialog is gone".to_owned());
        };
        let (identity, user) = (place.identity.as_deref(), place.user.as_deref());
        let policy = self.policy(place.peer.ip(), identity, user, place.transport);
        let body = Self::body(message, &policy)
            .map_err(|refusal| format!("its answer cannot be read: {}", refusal.why()))?;
        let offer = body.offer.as_ref().ok_or("its answer has no offer")?;
        let mut negotiated = rs_proto::negotiate(offer, session.negotiated.as_ref(), &policy);
        let ended = self.leave_out_ended(rs, &mut negotiated);
        negotiated.quirks.extend(ended);
        Ok((place, body, negotiated))
    }

    fn apply_offered(
        &mut self,
        rs: RsId,
        request: ClientTxnId,
        (place, message, body): (&DialogSnapshot, &Message, &Body),
        mut negotiated: Negotiated,
    ) {
        let (identity, user) = (place.identity.as_deref(), place.user.as_deref());
        let peer = self.rule_of(place.peer.ip(), identity, user).map(|rule| &*rule.name);
        let choice = self.choose_by(rs, (peer, "INVITE"), body, Some(&mut negotiated));
        let Some(session) = self.sessions.get(&rs) else { return };
        if session.holding.held {
            negotiated.pause();
        }
        let old = session.by_line();
        let agreed = session.timer.as_ref().and_then(|own| own.agreed().after(&message.headers));
        let near = place.local.ip();
        let mut lines = wanted(&negotiated);
        // What cannot be opened now is not promised: its line gets port 0.
        let opens = |line: &Wanted| !old.contains_key(&line.line);
        let fits: Vec<Fit> =
            lines.iter().filter(|line| opens(line)).map(|line| self.fit(line, near)).collect();
        let obstacle = if fits.is_empty() { None } else { self.obstacle(&fits) };
        if let Some(why) = obstacle {
            lines.retain(|line| !opens(line));
            self.log(Grave::Error, format!("{rs}: lines that were added are refused: {why}"));
        }
        let (mut plan, locals, mut entries) =
            self.plan(rs, &lines, &old, (near, negotiated.lines.len()));
        let mut quirks = negotiated.quirks.clone();
        let unwanted = unwanted_lines(&negotiated);
        let mut veil = Veil::NONE;
        if let Some(choice) = &choice {
            quirks.extend(told(&old, &plan.streams, &choice.resting));
            quirks.extend(left_out(&negotiated));
            (plan.lacks_names, plan.forgets) = (choice.lacks_names, choice.complete);
            veil = self.veil(rs, &choice.people, &unwanted);
        }
        entries.extend(self.bodies_of(rs, message, &body.parts, veil));
        plan.people = choice.map(|choice| choice.people);
        self.note_metadata(rs, body);
        let frames = self.frames(rs, &plan, &old);
        self.write_answer(rs, &mut plan, &negotiated, &locals);
        quirks.extend(metadata_quirks(body));
        if let Some(people) = &plan.people {
            quirks.retain(|quirk| !people.mentions_hidden(quirk));
        }
        plan.negotiated = Some(negotiated);
        entries.push(self.offered_entry(rs, place.clone(), &plan, agreed, quirks));
        if let Some(session) = self.sessions.get_mut(&rs) {
            let offered = Offered { message: message.clone(), locals, agreed };
            session.renewal.answered = Some(Box::new(offered));
        }
        self.begin(Purpose::Renewed(request), rs, None, None, frames, entries);
        let renews =
            |job: &&mut Job| matches!(job.purpose, Purpose::Renewed(own) if own == request);
        if let Some(job) = self.jobs.values_mut().find(renews) {
            job.plan = Some(Box::new(plan));
        }
    }

    fn offered_entry(
        &self,
        rs: RsId,
        place: DialogSnapshot,
        plan: &Plan,
        agreed: Option<Agreed>,
        quirks: Vec<String>,
    ) -> Entry {
        let answer = plan.answer_sdp.as_bytes();
        Entry::Changed {
            rs,
            at: self.now.wall,
            // No request of the SRC stands behind it.
            dialog: DialogState { answered: None, ..state(place, false) },
            streams: plan.streams.clone(),
            quirks,
            answer_sdp: self.keys.seal(&*self.entropy, answer, &answer_context(rs)),
            timer: self.refreshed_now(agreed),
            hold: None,
            refused: false,
        }
    }

    /// Media and journal have it: the answer leaves. Where they do not, it leaves all the same, for the SRC
    /// keeps its new keys in any case and waits for nothing else; media is asked until it agrees, and what
    /// was to be added is not promised.
    pub(super) fn finish_renewed(&mut self, request: ClientTxnId, job: Job) {
        let Job { rs, refused, plan, applied, .. } = job;
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        let live = session.phase == Phase::Live;
        let before = session.by_line();
        let (Some(offered), Some(plan)) = (session.renewal.answered.take(), plan) else { return };
        let Offered { message, mut locals, agreed } = *offered;
        let mut plan = *plan;
        let fresh = |plan: &mut Plan| -> Vec<StreamOpened> {
            let opened = std::mem::take(&mut plan.opened);
            let fresh = |own: &mut StreamOpened| opened.contains(&own.description.slot);
            plan.streams.extract_if(.., fresh).collect()
        };
        if !live {
            // It ended meanwhile, and what it had is being closed.
            let opened = fresh(&mut plan);
            self.close_removed(rs, opened);
            self.sip.acknowledge_with(request, &message, &[], &[]);
            return;
        }
        if let Some(why) = &refused {
            let opened = fresh(&mut plan);
            for stream in &opened {
                locals[usize::from(stream.description.line)] = None;
            }
            self.close_removed(rs, opened);
            if let Some(negotiated) = plan.negotiated.take() {
                self.write_answer(rs, &mut plan, &negotiated, &locals);
                plan.negotiated = Some(negotiated);
            }
            self.log(Grave::Error, format!("{rs}: fresh keys are not confirmed: {why}"));
        }
        let answer = plan.answer_sdp.clone();
        let same = |own: &StreamOpened| {
            before.get(&own.description.line).is_some_and(|old| old.crypto == own.crypto)
        };
        let changed = plan.streams.iter().filter(|own| !same(own)).count();
        self.adopt(rs, plan, &applied);
        if refused.is_some() {
            self.ask_streams(rs);
            let due = self.sessions.get(&rs).and_then(|session| session.holding.next_timeout());
            let entry = self.held_entry(rs, due.is_none());
            self.begin(Purpose::Quiet, rs, None, None, Vec::new(), entry.into_iter().collect());
        }
        let sdp = [("Content-Type".to_owned(), "application/sdp".to_owned())];
        self.sip.acknowledge_with(request, &message, &sdp, answer.as_bytes());
        if agreed.is_some() {
            self.agreed(rs, agreed);
        }
        self.ask_pictures(rs);
        match changed {
            0 => self.log(Grave::Error, format!("{rs}: its SRC offers the same keys again")),
            _ => self.log(Grave::Info, format!("{rs}: its SRC has changed {changed} lines")),
        }
    }
}

impl Session {
    /// Whether the SRC can be asked for another key of a line.
    fn may_ask(&self, (slot, generation): (Slot, Generation)) -> bool {
        let own = |stream: &&StreamOpened| {
            (stream.description.slot, stream.generation) == (slot, generation) && stream.active
        };
        let Some(stream) = self.streams.iter().find(own) else { return false };
        let asked = self.renewal.asked.get(&stream.description.stream);
        !self.renewal.refused && stream.crypto.is_some() && asked != stream.crypto.as_ref()
    }

    /// Notes that the SRC is asked about the keys that fail; what to call their lines.
    fn note_asked(&mut self) -> String {
        let failing = std::mem::take(&mut self.renewal.failing);
        let mut names = Vec::new();
        let streams = &self.streams;
        let asked = &mut self.renewal.asked;
        asked.retain(|id, _| streams.iter().any(|own| own.description.stream == *id));
        for own in streams {
            if failing.contains(&(own.description.slot, own.generation))
                && let Some(crypto) = &own.crypto
            {
                asked.insert(own.description.stream, crypto.clone());
                names.push(own.description.label.clone().unwrap_or_default());
            }
        }
        self.renewal.failing = failing;
        names.join(", ")
    }
}
