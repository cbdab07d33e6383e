//! Video that begins in the middle of a prediction cannot be decoded before its next intra picture. No
//! answer of ours agrees to feedback in RTCP (FIR, RFC 5104), so the SRC is asked for one by INFO (RFC
//! 7866 §8.1.7.1.1, RFC 5168), each time recording of a video line begins or goes on. Whatever it says to
//! that, the recording goes on.

use super::actor::Control;
use super::effect::Grave;
use crate::base::ids::RsId;
use crate::proto::sip::{ClientTxnId, DialogId};
use crate::store::journal::entry::StreamOpened;
use crate::wire::sip::Message;

const CONTENT_TYPE: &str = "application/media_control+xml";
/// RFC 5168 §7.1.
const PICTURE_FAST_UPDATE: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<media_control>\
    <vc_primitive><to_encoder><picture_fast_update/></to_encoder></vc_primitive></media_control>\r\n";

/// What an RS knows of its pictures.
#[derive(Default)]
pub(super) struct Pictures {
    /// Its SRC is to be asked once it can be.
    wanted: bool,
    /// That has been done, and has no answer yet.
    asked: Option<ClientTxnId>,
    /// It does not know what is meant.
    refused: bool,
}

impl Pictures {
    /// Notes what begins, or goes on, between two states of the streams.
    pub(super) fn note(&mut self, before: &[StreamOpened], after: &[StreamOpened]) {
        let ran = |stream: &StreamOpened| {
            let same = |old: &&StreamOpened| old.description.stream == stream.description.stream;
            before.iter().find(same).is_some_and(|old| old.active)
        };
        let is_video = |stream: &&StreamOpened| stream.description.media == "video";
        self.wanted |= after.iter().filter(is_video).any(|stream| stream.active && !ran(stream));
    }
}

impl Control {
    /// The ACK for a 2xx of ours has come: the SRC may be asked.
    pub(super) fn acked(&mut self, dialog: DialogId) {
        if let Some(rs) = self.dialogs.get(&dialog).copied() {
            self.ask_pictures(rs);
        }
    }

    /// Whether the last request that got a 2xx is an UPDATE.
    pub(super) fn has_answered_update(&self, rs: RsId) -> bool {
        let dialog = self.sessions.get(&rs).and_then(|session| session.dialog);
        let answered = dialog.and_then(|dialog| self.sip.snapshot(dialog)?.answered);
        answered.is_some_and(|answered| answered.method == "UPDATE")
    }

    /// Asks for an intra picture, where one is wanted.
    pub(super) fn ask_pictures(&mut self, rs: RsId) {
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        let pictures = &mut session.pictures;
        let (wanted, Some(dialog)) = (std::mem::take(&mut pictures.wanted), session.dialog) else {
            return;
        };
        if !wanted || pictures.refused || pictures.asked.is_some() {
            return;
        }
        let headers = [("Content-Type".to_owned(), CONTENT_TYPE.to_owned())];
        let body = PICTURE_FAST_UPDATE.as_bytes();
        let asked = self.sip.request(self.now.mono, dialog, "INFO", &headers, body);
        if let Some(session) = self.sessions.get_mut(&rs) {
            session.pictures.asked = asked;
        }
    }

    /// The answer to that; `None`: there is none. False: it is another request's.
    pub(super) fn picture_answered(
        &mut self,
        rs: RsId,
        request: ClientTxnId,
        message: Option<&Message>,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&rs) else { return false };
        if session.pictures.asked != Some(request) {
            return false;
        }
        let code = message.and_then(Message::code);
        if code.is_some_and(|code| code < 200) {
            return true;
        }
        session.pictures.asked = None;
        // Busy, or the other one's turn: it knows what is meant.
        session.pictures.refused = !matches!(code, Some(200..300 | 491 | 500 | 503));
        if session.pictures.refused {
            let code = code.map_or("nothing".to_owned(), |code| code.to_string());
            let text =
                format!("{rs}: its SRC answers {code} to picture_fast_update: not asked again");
            self.log(Grave::Info, text);
        }
        // A dialog that is not known there is judged by whoever looks at answers in it.
        code != Some(481)
    }
}
