//! Asking an SRC for a snapshot of its metadata (RFC 7866 §9.2): after a restart, and where a partial
//! document has no base, names what is unknown, or cannot be read. The limits are
//! `proto/session/snapshot.rs`'s. Only an SRC whose Allow lists UPDATE can be asked; the recording
//! goes on whatever it says.

use super::actor::Control;
use super::effect::Grave;
use super::session::Phase;
use crate::base::ids::RsId;
use crate::proto::session::{Body, METADATA_TYPE, People, Snapshot};
use crate::proto::sip::ClientTxnId;
use crate::store::journal::standing::Standing;
use crate::wire::metadata::{self, Root};
use crate::wire::sip::Message;

/// The first RS of before a restart is asked after this; the SRCs of the others have 20 ms each, so
/// that the answers of 2,000 come over 40 s and not in one burst.
const FIRST_MS: u64 = 1_000;
const EACH_MS: u64 = 20;

impl Control {
    /// Takes the metadata of a request that is being taken, if it has any.
    pub(super) fn note_metadata(&mut self, rs: RsId, body: &Body) {
        let Some(root) = body.root() else { return };
        let (selective, now) = (self.selection.is_selective(), self.now.mono);
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        if !selective {
            // Whoever makes the policy selective later does not know it.
            session.people = People::unknown();
        }
        match root {
            Ok(Root::Recording(document)) => {
                session.snapshot.take(document);
                session.speaking.take(now, document);
            }
            Ok(Root::SnapshotRequest { .. }) => {}
            Err(_) => session.snapshot.unreadable(),
        }
        self.arm_timer(rs);
    }

    /// The need of an RS that was up before a restart.
    pub(super) fn snapshot_of(&self, standing: &Standing) -> Snapshot {
        let wait_ms = FIRST_MS + EACH_MS * self.sessions.len() as u64;
        match standing.dialog.update {
            true => Snapshot::after_restart(self.now.mono.plus_ms(wait_ms)),
            false => Snapshot::default(),
        }
    }

    /// Asks for a snapshot where one is due.
    pub(super) fn request_snapshot(&mut self, rs: RsId) {
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        let Some(why) = session.snapshot.poll(now).filter(|_| session.phase == Phase::Live) else {
            return;
        };
        let Some(dialog) = session.dialog else { return session.snapshot.later(now, 1_000) };
        let Some(place) = self.sip.snapshot(dialog).filter(|place| place.update) else {
            // No conforming way to ask (spec 3.10): what is in doubt stays so.
            session.snapshot.answered(501);
            let text =
                format!("{rs}: no snapshot can be asked for, its SRC takes no UPDATE: {why}");
            return self.log(Grave::Warn, text);
        };
        let busy = session.refreshing.is_some() || self.is_busy(rs);
        let request = (!busy).then(|| {
            let mut headers = self.capable_in(&place).headers;
            headers.push(("Content-Type".to_owned(), METADATA_TYPE.to_owned()));
            headers.push(("Content-Disposition".to_owned(), "recording-session".to_owned()));
            let body = metadata::emit_snapshot_request(why);
            self.sip.request(now, dialog, "UPDATE", &headers, &body)
        });
        let wait_ms = self.glare_ms();
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        match request.flatten() {
            Some(request) => {
                session.requesting = Some(request);
                session.snapshot.sent(now);
                self.log(Grave::Info, format!("{rs}: snapshot asked for: {why}"));
            }
            None => session.snapshot.later(now, wait_ms),
        }
    }

    /// The answer to our request for a snapshot. False: it is no such answer.
    pub(super) fn snapshot_answered(
        &mut self,
        rs: RsId,
        request: ClientTxnId,
        message: &Message,
    ) -> bool {
        let code = message.code().unwrap_or(0);
        let Some(session) = self.sessions.get_mut(&rs) else { return false };
        if session.requesting != Some(request) {
            return false;
        }
        if code < 200 {
            return true;
        }
        session.requesting = None;
        session.snapshot.answered(code);
        if session.snapshot.is_given_up() {
            let text =
                format!("{rs}: its SRC sends no snapshot ({code}); its metadata is in doubt");
            self.log(Grave::Warn, text);
        }
        self.arm_timer(rs);
        // A dialog that is not known there is judged by whoever looks at answers in it.
        !matches!(code, 408 | 481)
    }

    /// No answer came to a request of ours. True: it asked for a snapshot, and media decides whether
    /// the SRC is there.
    pub(super) fn snapshot_unanswered(&mut self, rs: RsId, request: ClientTxnId) -> bool {
        let Some(session) = self.sessions.get_mut(&rs) else { return false };
        if session.requesting != Some(request) {
            return false;
        }
        session.requesting = None;
        session.snapshot.unanswered();
        self.arm_timer(rs);
        true
    }
}
