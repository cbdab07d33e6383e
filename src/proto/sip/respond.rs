//! Answering requests (RFC 3261 §8.2.6, §12.1.1, §13.3).

use super::dialog::DialogSnapshot;
use super::endpoint::Endpoint;
use super::event::{DialogId, Reply, TxnId};
use super::server::State;
use crate::base::time::Mono;
use crate::wire::sip::{Echo, print_response};

impl Endpoint {
    /// The tag that To has in every answer to this request; `None` where it is gone.
    pub fn reserve_tag(&self, txn: TxnId) -> Option<String> {
        let server = self.servers.get(&txn)?;
        let own = server.request.to().and_then(|to| to.tag().map(str::to_owned));
        Some(own.unwrap_or_else(|| server.tag.clone()))
    }

    /// The dialog as a 2xx to this request will leave it, to be persisted before that leaves:
    /// a new one for an initial INVITE, the refreshed one for a request within a dialog.
    pub fn prospective(&self, txn: TxnId) -> Option<DialogSnapshot> {
        let server = self.servers.get(&txn)?;
        match server.dialog {
            Some(dialog) => {
                let mut snapshot = self.snapshot(dialog)?;
                snapshot.accept(&server.request, &server.hop);
                Some(snapshot)
            }
            None => Some(DialogSnapshot::of_server(server)),
        }
    }

    /// Answers a request. Returns the dialog of a 2xx to an INVITE, or of the request. An answer
    /// after the final one, or to a request that is gone, is dropped: `None`.
    pub fn respond(&mut self, now: Mono, txn: TxnId, reply: Reply) -> Option<DialogId> {
        let code = reply.code;
        debug_assert!((100..700).contains(&code));
        let prospective = self.prospective(txn);
        let server = self.servers.get_mut(&txn)?;
        if server.state != State::Proceeding {
            return None;
        }
        if code < 200 {
            let dialog = server.dialog;
            self.send_answer(txn, &reply);
            return dialog;
        }
        let (method, hop, known) = (server.method().to_owned(), server.hop, server.dialog);
        let accepted = (200..300).contains(&code);
        let dialog = match (known, prospective) {
            (None, Some(snapshot)) if accepted && method == "INVITE" => {
                Some(self.open(snapshot, hop.conn))
            }
            _ => known,
        };
        self.send_answer(txn, &reply);
        let server = self.servers.get_mut(&txn)?;
        server.dialog = dialog;
        let target = hop.reply_to(Some(&server.via), true);
        let over = server.finish(now, code, target);
        // Nobody asks for its head any more: what comes again gets the answer again.
        let request = server.take_request();
        let number = request.cseq()?.number;
        if let Some(open) = dialog.and_then(|dialog| self.dialogs.get_mut(&dialog)) {
            if open.asked == Some(txn) {
                open.asked = None;
            }
            if accepted {
                open.snapshot.accept(&request, &hop);
            }
            if accepted && method == "INVITE" {
                open.unacked = Some((number, txn));
            }
        }
        if over {
            self.remove_server(txn);
        } else {
            self.weigh(txn);
            self.arm_server(txn);
        }
        if let (true, "BYE", Some(dialog)) = (accepted, &*method, dialog) {
            // RFC 3261 §15.1.2: requests still pending are answered by 487.
            if let Some(pending) = self.dialogs.get(&dialog).and_then(|dialog| dialog.asked) {
                self.respond(now, pending, Reply::new(487));
            }
            self.close(dialog);
        }
        dialog
    }

    /// Prints and sends an answer, and keeps it for retransmissions.
    pub(super) fn send_answer(&mut self, txn: TxnId, reply: &Reply) {
        let Some(server) = self.servers.get(&txn) else { return };
        let mut headers = reply.headers.clone();
        let named = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("Server"));
        if !named && reply.code >= 200 {
            headers.push(("Server".to_owned(), self.config.user_agent.clone()));
        }
        // RFC 3261 §8.2.6.2: the 100 needs no tag, as it makes no dialog.
        let tag = (reply.code > 100).then_some(&*server.tag);
        let echo = Echo { request: &server.request, source: server.hop.peer, to_tag: tag };
        let reason = reply.reason.as_deref();
        let bytes = print_response(echo, reply.code, reason, &headers, &reply.body);
        let target = self.reply_target(&server.hop, server);
        if let Some(server) = self.servers.get_mut(&txn) {
            server.last.clone_from(&bytes);
        }
        self.weigh(txn);
        self.transmit(target, bytes);
    }
}
