//! A re-INVITE or UPDATE: streams added, removed, paused, resumed, moved, re-keyed; or metadata
//! alone. Until media and journal have said yes the old state stands (RFC 3261 §14).

use std::collections::HashMap;
use std::net::IpAddr;

use super::actor::Control;
use super::effect::Grave;
use super::end::GRACE_MS;
use super::job::{Job, Plan, Purpose};
use super::lines::{Fit, Locals, Wanted, keep_formats};
use super::recover::state;
use super::selection::{Choice, Veil, left_out, told, unwanted_lines};
use super::session::Phase;
use super::settle::Again;
use super::start::{metadata_quirks, of_refusal, wanted};
use super::timers::with_timer;
use crate::base::family::Family;
use crate::base::ids::{Generation, RsId, Slot};
use crate::base::time::ClockMap;
use crate::plane::handoff::frame::Frame;
use crate::proto::session::{self as rs_proto, Agreed, Body, Line, Negotiated, WhyRefused};
use crate::proto::sip::{IncomingRequest, Reply, TxnId};
use crate::store::event::Origin;
use crate::store::journal::entry::{DialogState, Entry, SessionTimer, StreamOpened};
use crate::store::journal::keybox::answer_context;

impl Control {
    /// A re-INVITE or UPDATE of a running RS.
    pub(super) fn changed(&mut self, rs: RsId, request: &IncomingRequest) {
        if self.is_busy(rs) {
            self.rest_at_once(rs, request);
            // RFC 3311 §5.2, RFC 3261 §14.2: one offer at a time.
            return self.reply(request.txn, Reply::new(500).with("Retry-After", "1"));
        }
        // F19: what cannot be kept is not promised; the RS goes on as it is.
        if let Some(why) = self.admission.journal_obstacle() {
            self.rest_at_once(rs, request);
            self.log(Grave::Error, format!("{rs}: change refused: {why}"));
            let reply = self.unavailable(&why);
            return self.reply(request.txn, reply);
        }
        let policy = self.policy_of(request);
        let body = match Self::body(&request.message, &policy) {
            Ok(body) => body,
            Err(refusal) => return self.reply(request.txn, of_refusal(refusal)),
        };
        if let Some(refusal) = body.refusal() {
            return self.reply(request.txn, of_refusal(refusal));
        }
        let agreed = match self.agree(&request.message.headers) {
            Ok(agreed) => agreed,
            Err(reply) => return self.reply(request.txn, reply),
        };
        let Some(offer) = &body.offer else {
            return self.without_offer(rs, request, &body, agreed);
        };
        let Some(session) = self.sessions.get(&rs) else { return };
        let mut negotiated = rs_proto::negotiate(offer, session.negotiated.as_ref(), &policy);
        // Its stream would end without a word; as it is, it may go on (RFC 3261 §14.2). What is removed or
        // becomes something else ends all the same.
        let loses = |line: &Line| {
            let slip = matches!(
                line.refused(),
                Some(
                    WhyRefused::NoAddress(_)
                        | WhyRefused::NoAcceptableCrypto(_)
                        | WhyRefused::NoCrypto
                        | WhyRefused::Dtls
                        | WhyRefused::Plain
                )
            );
            slip && session.streams.iter().any(|own| own.description.line == line.index)
        };
        if negotiated.lines.iter().any(loses) {
            let refusal = rs_proto::not_acceptable(&negotiated);
            let why = refusal.headers.first().map_or("", |(_, text)| text);
            self.log(Grave::Warn, format!("{rs}: change refused: {why}"));
            return self.reply(request.txn, of_refusal(refusal));
        }
        let held = session.holding.held;
        let ended = self.leave_out_ended(rs, &mut negotiated);
        negotiated.quirks.extend(ended);
        let choice = self.choose(rs, request, &body, Some(&mut negotiated));
        if held {
            negotiated.pause();
        }
        self.apply(rs, request, &body, (negotiated, choice), agreed);
    }

    /// Metadata alone, or nothing but a refresh. An offerless re-INVITE gets our present SDP as the
    /// offer: the same lines, none new (RFC 7866 §7.2).
    fn without_offer(
        &mut self,
        rs: RsId,
        request: &IncomingRequest,
        body: &Body,
        agreed: Option<Agreed>,
    ) {
        let choice = self.choose(rs, request, body, None);
        let mut plan = choice.and_then(|choice| self.plan_of(rs, choice));
        let people = match &plan {
            Some(plan) => plan.people.clone(),
            None => self.people_of(rs),
        };
        let veil = people.as_ref().map_or(Veil::NONE, |people| self.veil(rs, people, &[]));
        let mut entries = self.bodies_of(rs, &request.message, &body.parts, veil);
        self.note_metadata(rs, body);
        let reply = self.with_capabilities(Reply::new(200), request);
        let mut reply = with_timer(reply, agreed);
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        if request.message.method() == Some("INVITE") {
            reply = reply.with("Content-Type", "application/sdp");
            let sdp = plan.as_ref().map_or(&session.answer_sdp, |plan| &plan.answer_sdp);
            reply.body = sdp.clone().into_bytes();
            plan.iter_mut().for_each(|plan| plan.tells = false);
        }
        let old = session.by_line();
        // It stands for no other offer.
        plan.iter_mut().for_each(|plan| plan.negotiated = session.negotiated.take());
        let frames = plan.as_ref().map(|plan| self.frames(rs, plan, &old)).unwrap_or_default();
        // A refresh promises nothing, so that a failed journal is no reason to refuse it (F19).
        let bare = entries.is_empty() && frames.is_empty();
        let purpose = if bare { Purpose::Answer } else { Purpose::Change };
        let (sdp, timer) = (!reply.body.is_empty(), self.refreshed_now(agreed));
        entries.extend(self.unchanged(rs, request, sdp, timer, plan.as_ref()));
        self.begin(purpose, rs, Some(request.txn), Some(reply), frames, entries);
        if let Some(job) = self.job_of(request.txn) {
            job.agreed = Some(agreed);
            job.plan = plan.map(Box::new);
        }
    }

    /// INFO in a dialog: taken, and of no consequence, unless it asks for a pause or resume.
    pub(super) fn informed(&mut self, rs: RsId, request: &IncomingRequest) {
        if self.held_by_info(rs, request) {
            return;
        }
        // While a change is under way the streams of the RS are not known.
        // A journal that has failed, or hangs, keeps its room for what matters.
        let silent = self.is_busy(rs) || self.admission.journal_obstacle().is_some();
        // INFO refreshes no target and no timer.
        let timer = self.sessions.get(&rs).and_then(|session| self.timer_entry(session));
        let entry = if silent { None } else { self.unchanged(rs, request, false, timer, None) };
        let entries = entry.into_iter().collect();
        let reply = Some(Reply::new(200));
        self.begin(Purpose::Answer, rs, Some(request.txn), reply, Vec::new(), entries);
    }

    /// The entry of a request that leaves the streams as they are, or as `plan` has them: its number,
    /// so that it is not taken a second time after a restart, and its way and Contact.
    fn unchanged(
        &self,
        rs: RsId,
        request: &IncomingRequest,
        sdp: bool,
        timer: Option<SessionTimer>,
        plan: Option<&Plan>,
    ) -> Option<Entry> {
        let session = self.sessions.get(&rs)?;
        let (streams, answer, quirks) = match plan {
            Some(plan) => (&plan.streams, &plan.answer_sdp, plan.quirks.clone()),
            None => (&session.streams, &session.answer_sdp, Vec::new()),
        };
        Some(Entry::Changed {
            rs,
            at: self.now.wall,
            dialog: state(self.sip.prospective(request.txn)?, sdp),
            streams: streams.clone(),
            quirks,
            answer_sdp: self.keys.seal(&*self.entropy, answer.as_bytes(), &answer_context(rs)),
            timer,
            hold: None,
            refused: false,
        })
    }

    /// The journal knows the request, or cannot.
    pub(super) fn finish_answer(&mut self, job: Job) {
        let (Some(txn), Some(reply)) = (job.txn, job.reply) else { return };
        let live = self.sessions.get(&job.rs).is_some_and(|session| session.phase == Phase::Live);
        if let (true, Some(agreed)) = (live, job.agreed) {
            self.agreed(job.rs, agreed);
        }
        self.reply(txn, if live { reply } else { Reply::new(481) });
    }

    fn apply(
        &mut self,
        rs: RsId,
        request: &IncomingRequest,
        body: &Body,
        (negotiated, choice): (Negotiated, Option<Choice>),
        agreed: Option<Agreed>,
    ) {
        let wanted = wanted(&negotiated);
        let Some(session) = self.sessions.get(&rs) else { return };
        let old = session.by_line();
        let near = request.local.ip();
        let fresh = wanted.iter().filter(|line| !continues(old.get(&line.line), line));
        let fits: Vec<Fit> = fresh.map(|line| self.fit(line, near)).collect();
        if !fits.is_empty() && self.park(request, Some(rs)) {
            return;
        }
        if !fits.is_empty()
            && let Some(why) = self.obstacle(&fits)
        {
            self.log(Grave::Error, format!("{rs}: change refused: {why}"));
            let reply = self.unavailable(&why);
            return self.reply(request.txn, reply);
        }
        let place = (near, negotiated.lines.len());
        let (mut plan, locals, mut entries) = self.plan(rs, &wanted, &old, place);
        let mut quirks = negotiated.quirks.clone();
        quirks.extend(out_of_reach(&negotiated));
        let lines = unwanted_lines(&negotiated);
        let mut veil = Veil::NONE;
        if let Some(choice) = &choice {
            quirks.extend(told(&old, &plan.streams, &choice.resting));
            quirks.extend(left_out(&negotiated));
            (plan.lacks_names, plan.forgets) = (choice.lacks_names, choice.complete);
            veil = self.veil(rs, &choice.people, &lines);
        }
        // Before what stands for the answer: a cut may leave the front of it.
        entries.extend(self.bodies_of(rs, &request.message, &body.parts, veil));
        plan.people = choice.map(|choice| choice.people);
        self.note_metadata(rs, body);
        let frames = self.frames(rs, &plan, &old);
        self.write_answer(rs, &mut plan, &negotiated, &locals);
        quirks.extend(metadata_quirks(body));
        if let Some(people) = &plan.people {
            quirks.retain(|quirk| !people.mentions_hidden(quirk));
        }
        plan.negotiated = Some(negotiated);
        // The dialog as the answer will leave it (RFC 3261 §12.2.2).
        if let Some(dialog) = self.sip.prospective(request.txn) {
            let answer_sdp =
                self.keys.seal(&*self.entropy, plan.answer_sdp.as_bytes(), &answer_context(rs));
            entries.push(Entry::Changed {
                rs,
                at: self.now.wall,
                dialog: state(dialog, true),
                streams: plan.streams.clone(),
                quirks,
                answer_sdp,
                timer: self.refreshed_now(agreed),
                hold: None,
                refused: false,
            });
        }
        let reply = self
            .with_capabilities(Reply::new(200), request)
            .with("Content-Type", "application/sdp");
        let mut reply = with_timer(reply, agreed);
        reply.body = plan.answer_sdp.clone().into_bytes();
        self.begin(Purpose::Change, rs, Some(request.txn), Some(reply), frames, entries);
        if let Some(job) = self.job_of(request.txn) {
            job.plan = Some(Box::new(plan));
            job.agreed = Some(agreed);
        } else {
            // Answered at once: media and journal had nothing to do.
            self.adopt(rs, plan, &[]);
            self.agreed(rs, agreed);
        }
    }

    /// The streams as they are to be. A line that is now sent over the other family goes on as a new
    /// stream, on a port pair that it reaches. `near`: where signalling came in; `lines`: how many the
    /// offer has.
    pub(super) fn plan(
        &mut self,
        rs: RsId,
        wanted: &[Wanted],
        old: &HashMap<u16, StreamOpened>,
        (near, lines): (IpAddr, usize),
    ) -> (Plan, Locals, Vec<Entry>) {
        let mut entries = Vec::new();
        let mut locals: Locals = (0..lines).map(|_| None).collect();
        let mut plan = Plan::default();
        for line in wanted {
            let known = old.get(&line.line).filter(|known| continues(Some(known), line));
            // Our port stays, and so our key stays with its suite (RFC 4568 §7.1.4).
            let kept = known.and_then(|known| {
                let suite = line.crypto.as_ref()?.suite;
                self.local_key(rs, known).filter(|_| known.description.suite == Some(suite))
            });
            let key = match (kept, &line.crypto) {
                (Some(key), _) => Some(key),
                (None, Some(crypto)) => Some(self.fresh_key(crypto.suite.suite())),
                (None, None) => None,
            };
            let (stream, place) = match known {
                Some(known) => {
                    let slot = known.description.slot;
                    let port = self.slots.port(slot).expect("a stream's slot is in the pool");
                    (known.description.stream, (slot, known.generation, port))
                }
                None => {
                    let place = self
                        .slots
                        .take(self.fit(line, near))
                        .expect("admission counted the free pairs");
                    plan.opened.push(place.0);
                    (self.stream_id(&mut entries), place)
                }
            };
            let sealed = match (&line.crypto, &key, known) {
                (Some(_), Some(_), Some(known)) if self.same_crypto(rs, known, line) => {
                    known.crypto.clone()
                }
                (Some(crypto), Some(key), _) => Some(self.seal_crypto((rs, stream), crypto, key)),
                _ => None,
            };
            let mut stream = line.stream(rs, stream, place, sealed);
            if let Some(known) = known {
                keep_formats(&mut stream.description.formats, &known.description.formats);
            }
            plan.streams.push(stream);
            locals[usize::from(line.line)] = Some((place, key));
        }
        let stays = |stream: &&StreamOpened| {
            !plan.streams.iter().any(|s| s.description.stream == stream.description.stream)
        };
        plan.removed = old.values().filter(stays).cloned().collect();
        (plan, locals, entries)
    }

    /// What media must do about it.
    pub(super) fn frames(
        &self,
        rs: RsId,
        plan: &Plan,
        old: &HashMap<u16, StreamOpened>,
    ) -> Vec<Frame> {
        let Some(session) = self.sessions.get(&rs) else { return Vec::new() };
        let mut frames = Vec::new();
        for stream in &plan.streams {
            let before = old
                .get(&stream.description.line)
                .filter(|before| before.description.stream == stream.description.stream);
            if before == Some(stream) {
                continue;
            }
            let Some(open) = session.open_frame(&self.keys, stream) else { continue };
            frames.push(match before {
                Some(before) => {
                    Frame::Update { stream: Box::new(open), by: plan.by(before, stream) }
                }
                None => Frame::Open(Box::new(open)),
            });
        }
        frames
    }

    /// The answer's text; its version rises only when the text differs (RFC 3264 §8).
    pub(super) fn write_answer(
        &self,
        rs: RsId,
        plan: &mut Plan,
        negotiated: &Negotiated,
        locals: &Locals,
    ) {
        let Some(session) = self.sessions.get(&rs) else { return };
        plan.origin = session.origin;
        let before = Some(&*session.answer_sdp);
        plan.answer_sdp = self.answer_text(negotiated, locals, plan.origin, before);
        if plan.answer_sdp != session.answer_sdp {
            plan.origin.1 += 1;
            plan.answer_sdp = self.answer_text(negotiated, locals, plan.origin, before);
        }
    }

    /// Both have answered, or one has refused.
    pub(super) fn finish_change(&mut self, job: Job) {
        if job.txn.is_none() {
            return self.finish_resume(job);
        }
        let Job { rs, txn, reply, refused, plan, applied, agreed, .. } = job;
        let (Some(txn), Some(reply)) = (txn, reply) else { return };
        let live = self.sessions.get(&rs).is_some_and(|session| session.phase == Phase::Live);
        if !live {
            // It ended meanwhile, and what it had is being closed; what was to be added is not
            // part of it.
            let opened = plan.map(|plan| (plan.opened, plan.streams));
            let opened = opened.into_iter().flat_map(|(opened, mut streams)| {
                streams.retain(|stream| opened.contains(&stream.description.slot));
                streams
            });
            let opened = opened.collect();
            self.close_removed(rs, opened);
            return self.reply(txn, Reply::new(481));
        }
        if let Some(why) = refused {
            self.log(Grave::Error, format!("{rs}: change refused: {why}"));
            let refusal = self.unavailable(&why);
            let reply = if reply.code == 487 { reply } else { refusal };
            return match plan {
                Some(plan) => self.undo(rs, *plan, txn, reply),
                None => self.reply(txn, reply),
            };
        }
        if let Some(plan) = plan {
            self.adopt(rs, *plan, &applied);
        }
        if let Some(agreed) = agreed {
            self.agreed(rs, agreed);
        }
        self.reply(txn, reply);
        // An INVITE's ACK is waited for.
        if self.has_answered_update(rs) {
            self.ask_pictures(rs);
        }
    }

    /// The plan is the state from now on.
    pub(super) fn adopt(&mut self, rs: RsId, plan: Plan, applied: &[(Slot, Generation, ClockMap)]) {
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        let mut entries = Vec::new();
        for stream in &plan.streams {
            let id = stream.description.stream;
            let before = session.streams.iter().find(|s| s.description.stream == id);
            let at = applied.iter().find(|(slot, ..)| *slot == stream.description.slot);
            if let (Some(before), Some((_, _, at))) = (before, at)
                && before.active != stream.active
            {
                entries.push(Entry::Direction {
                    rs,
                    stream: id,
                    at: at.wall,
                    mono: at.mono,
                    active: stream.active,
                    by: plan.by(before, stream),
                });
            }
        }
        session.pictures.note(&session.streams, &plan.streams);
        let goes_on = |old: &StreamOpened| {
            let same = |new: &StreamOpened| {
                let (old, new) = (&old.description, &new.description);
                (old.line, &old.media) == (new.line, &new.media)
            };
            plan.streams.iter().any(same)
        };
        let (moved, removed) = plan.removed.into_iter().partition(goes_on);
        session.streams = plan.streams;
        session.origin = plan.origin;
        session.answer_sdp = plan.answer_sdp;
        session.negotiated = plan.negotiated;
        if let Some(people) = plan.people {
            session.people = people;
            if plan.forgets {
                session.people.forget();
            }
        }
        if plan.lacks_names {
            session.snapshot.ask("names are wanted that the recording policy left out", now);
            self.arm_timer(rs);
        }
        if plan.tells {
            self.tell_policy(rs);
        }
        if !entries.is_empty() {
            self.begin(Purpose::Quiet, rs, None, None, Vec::new(), entries);
        }
        self.close_removed(rs, removed);
        self.close_moved(rs, moved);
    }

    /// A refused change: new streams are closed, changed ones are told their old state again. The
    /// refusal is the last thing.
    fn undo(&mut self, rs: RsId, plan: Plan, txn: TxnId, refusal: Reply) {
        let (opened, kept): (Vec<_>, Vec<_>) = plan
            .streams
            .into_iter()
            .partition(|stream| plan.opened.contains(&stream.description.slot));
        self.close_removed(rs, opened);
        let Some(session) = self.sessions.get_mut(&rs) else { return self.reply(txn, refusal) };
        if plan.by_policy {
            session.negotiated = plan.negotiated;
        }
        // What the policy forbids rests, whatever becomes of the request that said so, and what was said
        // is known.
        if let Some(people) = plan.people {
            session.people = people;
        }
        if session.bar_as(&kept) {
            self.ask_streams(rs);
        }
        let Some(session) = self.sessions.get(&rs) else { return self.reply(txn, refusal) };
        let frames: Vec<Frame> = session
            .streams
            .iter()
            .filter(|old| {
                let same = |new: &&StreamOpened| new.description.stream == old.description.stream;
                kept.iter().find(same).is_some_and(|new| new != *old)
            })
            .filter_map(|old| session.open_frame(&self.keys, old))
            .map(|open| Frame::Update { stream: Box::new(open), by: Origin::Srs })
            .collect();
        let streams = session.streams.clone();
        let Some(dialog) = session.dialog.and_then(|dialog| self.sip.snapshot(dialog)) else {
            return self.reply(txn, refusal);
        };
        let answer_sdp =
            self.keys.seal(&*self.entropy, session.answer_sdp.as_bytes(), &answer_context(rs));
        let entry = Entry::Changed {
            rs,
            at: self.now.wall,
            // The request got no 2xx.
            dialog: DialogState { answered: None, ..state(dialog, false) },
            streams,
            quirks: Vec::new(),
            answer_sdp,
            timer: self.timer_entry(session),
            hold: None,
            refused: true,
        };
        // What media makes of it is not waited for: it is asked until it agrees.
        self.begin(Purpose::Quiet, rs, None, None, frames, Vec::new());
        self.refuse_late(rs, txn, refusal, entry);
    }

    /// Where a line was before it moved: what is under way to it is still taken (RFC 3264 §8.3.1).
    fn close_moved(&mut self, rs: RsId, moved: Vec<StreamOpened>) {
        let at = self.now.mono.plus_ms(GRACE_MS);
        for stream in moved {
            let (slot, generation) = (stream.description.slot, stream.generation);
            self.closing.push((rs, slot, generation, stream.description.stream));
            self.again.push((at, Again::Close(slot, generation, Origin::Src)));
        }
    }

    pub(super) fn close_removed(&mut self, rs: RsId, removed: Vec<StreamOpened>) {
        let mut frames = Vec::new();
        for stream in removed {
            let (slot, generation) = (stream.description.slot, stream.generation);
            self.closing.push((rs, slot, generation, stream.description.stream));
            frames.push(Frame::Close { slot, generation, by: Origin::Src });
        }
        if !frames.is_empty() {
            self.begin(Purpose::Quiet, rs, None, None, frames, Vec::new());
        }
    }
}

/// Whether the line goes on with the stream it had: same kind of media, and it still reaches the port.
fn continues(known: Option<&StreamOpened>, line: &Wanted) -> bool {
    known.is_some_and(|known| known.description.media == line.media && !leaves(known, line))
}

/// Whether the line is sent over another family than its port pair lies in.
fn leaves(known: &StreamOpened, line: &Wanted) -> bool {
    let families = line.family.zip(known.address.map(Family::of));
    families.is_some_and(|(wanted, own)| wanted != own)
}

/// Lines that we have no address for, in words.
fn out_of_reach(negotiated: &Negotiated) -> impl Iterator<Item = String> + '_ {
    negotiated.lines.iter().filter_map(|line| match line.refused()? {
        why @ WhyRefused::NoAddress(_) => {
            Some(format!("m-line {} is not recorded: {why}", line.index + 1))
        }
        _ => None,
    })
}
