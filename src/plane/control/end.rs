//! How an RS ends: BYE from the SRC, no ACK, the recorder being stopped.

use super::actor::Control;
use super::effect::Grave;
use super::job::{Job, Purpose};
use super::selection::Veil;
use super::session::{Phase, Session};
use crate::base::ids::{Generation, Position, RsId, Slot, StreamId};
use crate::plane::handoff::frame::Frame;
use crate::proto::sip::{ClientTxnId, DialogId, Failure, IncomingRequest, Reply};
use crate::store::event::Origin;
use crate::store::journal::entry::Entry;
use crate::wire::sip::Message;

/// Packets that were under way when the BYE came are still taken for this long (flows.md, 5: at
/// most a second).
pub(super) const GRACE_MS: u64 = 300;

impl Control {
    /// BYE in a dialog: journal first, then 200, then the streams close.
    pub(super) fn bye(&mut self, rs: RsId, request: &IncomingRequest) {
        self.resume_is_off(rs);
        let people = self.choose_last(rs, request);
        let veil = people.as_ref().map_or(Veil::NONE, |people| self.veil(rs, people, &[]));
        let mut entries = match self.came_in_clear(request) {
            true => Vec::new(),
            false => self.bodies(rs, &request.message, veil),
        };
        entries.push(self.ended(rs, Origin::Src, "BYE from the SRC", &request.message));
        if let Some(session) = self.sessions.get_mut(&rs) {
            let at = self.now.mono.plus_ms(GRACE_MS);
            session.phase = Phase::Ending(at);
            self.agenda.session(at, rs);
            // Nothing else is taken in it; the endpoint forgets it with the 200.
            session.dialog = None;
            if let Some(dialog) = request.dialog {
                self.dialogs.remove(&dialog);
            }
        }
        let reply = Reply::new(200);
        self.begin(Purpose::End, rs, Some(request.txn), Some(reply), Vec::new(), entries);
    }

    fn ended(&self, rs: RsId, by: Origin, reason: &str, message: &Message) -> Entry {
        Entry::Ended {
            rs,
            at: self.now.wall,
            by,
            reason: reason.to_owned(),
            remote_cseq: message.cseq().map_or(0, |cseq| cseq.number),
            bye: false,
        }
    }

    /// The end is journaled, or cannot be: the BYE is answered all the same, since the RS is over
    /// whatever we say. A restart then finds it live and silent.
    pub(super) fn finish_end(&mut self, job: Job) {
        if let (Some(txn), Some(reply)) = (job.txn, job.reply) {
            self.sip.respond(self.now.mono, txn, reply);
        }
        self.log(Grave::Info, format!("{} ended", job.rs));
    }

    /// Asks media to close all streams of an RS; it is forgotten when all have answered.
    pub(super) fn close_streams(&mut self, rs: RsId, by: Origin) {
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        session.phase = Phase::Closing;
        let mut frames = Vec::new();
        for stream in &session.streams {
            let (slot, generation) = (stream.description.slot, stream.generation);
            self.agenda.close(slot, generation, rs);
            frames.push(Frame::Close { slot, generation, by });
        }
        if frames.is_empty() {
            self.sessions.remove(&rs);
        } else {
            self.begin(Purpose::Quiet, rs, None, None, frames, Vec::new());
        }
    }

    /// Media has closed a stream: its port pair is free again. `through`: all of it stands before
    /// this position of its ring; `None`: media does not hold it.
    pub(super) fn stream_closed(
        &mut self,
        slot: Slot,
        generation: Generation,
        through: Option<Position>,
    ) {
        let taken = |session: &mut Box<Session>| {
            let place = session.streams.iter().position(|stream| {
                stream.description.slot == slot && stream.generation == generation
            })?;
            let stream = session.streams.remove(place).description.stream;
            Some((session.rs, session.salt, stream))
        };
        let owner = self.agenda.closed(slot, generation);
        let found = match owner.and_then(|rs| self.sessions.get_mut(&rs)) {
            Some(owner) => taken(owner),
            None => self.sessions.values_mut().find_map(taken),
        };
        if let Some((rs, salt, stream)) = found {
            self.keep_salt(rs, salt, stream);
            self.free_stream(rs, stream, slot, through);
        } else if let Some(place) =
            self.closing.iter().position(|(_, s, g, _)| *s == slot && *g == generation)
        {
            let (rs, _, _, stream) = self.closing.swap_remove(place);
            if let Some(session) = self.sessions.get(&rs) {
                let salt = session.salt;
                self.keep_salt(rs, salt, stream);
            }
            self.free_stream(rs, stream, slot, through);
        }
    }

    fn free_stream(&mut self, rs: RsId, stream: StreamId, slot: Slot, through: Option<Position>) {
        self.slots.give_back(slot);
        // What no RS knows has no place in the journal either.
        if rs != RsId::default() {
            let (at, by) = (self.now.wall, Origin::Src);
            let entry = Entry::StreamClosed { rs, stream, slot, at, by, through };
            self.begin(Purpose::Quiet, rs, None, None, Vec::new(), vec![entry]);
        }
        let over = self
            .sessions
            .get(&rs)
            .is_some_and(|session| session.phase == Phase::Closing && session.streams.is_empty());
        if over {
            self.sessions.remove(&rs);
        }
    }

    /// The 2xx that a predecessor gave was repeated in vain. Its ACK may have come before the restart,
    /// or the SRC may never have heard of this dialog: it is asked (F59). OPTIONS, because which
    /// methods it allows is not known any more, and any answer to it will do.
    pub(super) fn ack_unknown(&mut self, dialog: DialogId) {
        if let Some(rs) = self.dialogs.get(&dialog).copied() {
            self.log(Grave::Info, format!("{rs}: no ACK since the restart, asking the SRC"));
            self.sip.request(self.now.mono, dialog, "OPTIONS", &[], &[]);
        }
    }

    /// RFC 3261 §13.3.1.4: no ACK to our 200. What came is kept.
    pub(super) fn ack_missing(&mut self, dialog: DialogId) {
        if let Some(rs) = self.dialogs.get(&dialog).copied() {
            self.log(Grave::Warn, format!("{rs}: no ACK came, ending it"));
            self.end_by_us(rs, "no ACK");
        }
    }

    /// Ends every RS: BYE with Reason, streams closed.
    pub(super) fn end_all(&mut self, why: &str) {
        let live: Vec<RsId> = self.sessions.keys().copied().collect();
        for rs in live {
            self.end_by_us(rs, why);
        }
    }

    pub(super) fn end_by_us(&mut self, rs: RsId, why: &str) {
        self.end_as(rs, why, Origin::Srs);
    }

    /// Ends an RS by BYE. `by`: what the journal says of it.
    pub(super) fn end_as(&mut self, rs: RsId, why: &str, by: Origin) {
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        match session.phase {
            Phase::Ending(_) | Phase::Closing => return,
            // Nothing is promised yet: its INVITE gets 503.
            Phase::Starting => return self.refuse_start(rs, why),
            Phase::Live => {}
        }
        session.phase = Phase::Ending(self.now.mono);
        let dialog = session.dialog.take();
        self.agenda.session(self.now.mono, rs);
        self.resume_is_off(rs);
        let Some(dialog) = dialog else { return };
        self.dialogs.remove(&dialog);
        let reason = why.to_owned();
        let entry = Entry::Ended {
            rs,
            at: self.now.wall,
            by,
            reason: reason.clone(),
            remote_cseq: 0,
            bye: true,
        };
        self.begin(Purpose::Bye(dialog, reason), rs, None, None, Vec::new(), vec![entry]);
    }

    /// Journal first, then BYE: a successor must not go on with what the SRC was told is over. A
    /// journal that fails or hangs holds it up no further.
    pub(super) fn say_bye(&mut self, dialog: DialogId, why: &str) {
        let reason = vec![("Reason".to_owned(), format!("SIP;cause=503;text=\"{why}\""))];
        self.sip.request(self.now.mono, dialog, "BYE", &reason, &[]);
    }

    /// No answer to a request of ours. A BYE: its dialog is over all the same. A question whether the
    /// SRC is there: silence says no (RFC 3261 §12.2.1.2), a lost connection nothing.
    pub(super) fn unanswered(
        &mut self,
        request: ClientTxnId,
        dialog: Option<DialogId>,
        why: Failure,
    ) {
        if self.call_unanswered(request, why) {
            return;
        }
        let Some(dialog) = dialog else { return };
        match self.dialogs.get(&dialog).copied() {
            None => self.sip.close(dialog),
            Some(rs) if self.refresh_unanswered(rs, request) => {}
            Some(rs) if self.hold_unanswered(rs, request) => {}
            Some(rs) if self.renewal_unanswered(rs, request, why) => {}
            Some(rs) if self.picture_answered(rs, request, None) => {}
            Some(rs) if self.snapshot_unanswered(rs, request) => {}
            Some(rs) if why == Failure::Timeout => self.src_is_gone(rs, "no answer"),
            Some(_) => {}
        }
    }

    fn src_is_gone(&mut self, rs: RsId, why: &str) {
        self.log(Grave::Warn, format!("{rs}: the SRC knows nothing of it ({why}), ending it"));
        self.end_by_us(rs, "the SRC knows nothing of it");
    }

    /// An answer to a request of ours. A BYE is over with any final answer; 481 and 408 to anything
    /// else end the dialog, other answers show that the SRC is there (RFC 3261 §12.2.1.2, RFC 5057
    /// §5.1).
    pub(super) fn responded(
        &mut self,
        request: ClientTxnId,
        dialog: Option<DialogId>,
        message: &Message,
    ) {
        if self.call_answered(request, dialog, message) {
            return;
        }
        let is_bye = message.cseq().is_some_and(|cseq| cseq.method == "BYE");
        let Some(dialog) = dialog else { return };
        let rs = self.dialogs.get(&dialog).copied();
        let mut is_taken = |rs| {
            self.refresh_answered(rs, request, message)
                || self.hold_answered(rs, request, message)
                || self.renewal_answered(rs, request, message)
                || self.picture_answered(rs, request, Some(message))
                || self.snapshot_answered(rs, request, message)
        };
        if rs.is_some_and(&mut is_taken) {
            return;
        }
        match (message.code(), rs) {
            (Some(200..), _) if is_bye => self.sip.close(dialog),
            // An offer that was asked for in an RS that has ended meanwhile: it waits for an ACK.
            (Some(200..300), None) => {
                self.sip.acknowledge_with(request, message, &[], &[]);
            }
            (Some(code @ (408 | 481)), Some(rs)) => self.src_is_gone(rs, &code.to_string()),
            _ => {}
        }
    }
}
