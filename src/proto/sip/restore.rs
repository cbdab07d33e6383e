//! Going on after a restart (F59): dialogs, the answers to what is repeated, and the 2xx whose ACK
//! has not come.

use std::net::SocketAddr;

use super::dialog::{Answered, DialogSnapshot};
use super::endpoint::Endpoint;
use super::event::{DialogId, Reply, TxnId};
use super::server::{ServerTxn, State, request_key};
use super::target::{ConnId, Hop, Target, Transport};
use super::timer::{Deadlines, LIFE_MS, T1_MS};
use crate::base::limits::{SIP_ANSWERS_MAX, SIP_TRANSACTIONS_BYTES_MAX, SIP_TRANSACTIONS_MAX};
use crate::base::time::Mono;
use crate::wire::sip::{Headers, Message, StartLine, with_tag};

/// The connection of a request of before the restart: none that is open.
const GONE: ConnId = ConnId(u64::MAX);

/// A request that came before its answer of before the restart may be said again.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) hop: Hop,
    pub(super) message: Message,
}

/// Whether a 2xx to it says something about media: that it is taken, and under which keys.
pub(super) fn promises(method: &str) -> bool {
    matches!(method, "INVITE" | "UPDATE")
}

impl Endpoint {
    /// From here on no answer of before the restart says anything about media, to nobody, until
    /// [`release_answers`](Self::release_answers): control may have died before media knew of it.
    pub fn hold_answers(&mut self) {
        self.early.get_or_insert_default();
    }

    /// What the answers of before the restart promise holds: who has asked gets them now. One request
    /// is kept for each answer, so that nobody makes this grow.
    pub fn release_answers(&mut self) {
        for (key, Early { hop, message }) in self.early.take().unwrap_or_default() {
            if let Some((tag, reply)) = self.answers.get(&key).cloned() {
                self.answer_plainly(hop, &message, &reply, &tag);
            }
        }
    }

    /// Goes on with a dialog after a restart. A stream connection of before is gone: the peer's
    /// next request brings its own, our next request dials one.
    pub fn restore(&mut self, mut snapshot: DialogSnapshot) -> DialogId {
        // Requests sent after the last snapshot may have used numbers that were not kept; gaps
        // are legal (RFC 3261 §12.2.2), repeats are not.
        snapshot.local_cseq = snapshot.local_cseq.saturating_add(1_000);
        self.open(snapshot, None)
    }

    /// Remembers the answer to a request of before the restart, so that its retransmission gets it
    /// again, under the same tag. It outlives [`close`](Self::close).
    pub fn restore_answer(&mut self, dialog: DialogId, cseq: u32, method: &str, reply: Reply) {
        let Some(dialog) = self.dialogs.get(&dialog) else { return };
        let snapshot = &dialog.snapshot;
        let key = request_key(&snapshot.call_id, &snapshot.remote_tag, cseq, method);
        let answer = (snapshot.local_tag.clone(), reply);
        if self.answers.insert(key.clone(), answer).is_none() {
            self.answer_order.push_back(key);
        }
        if self.answer_order.len() > SIP_ANSWERS_MAX
            && let Some(oldest) = self.answer_order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }

    /// Says the 2xx to the INVITE `cseq` that a restored dialog was answered with last again, `age_ms`
    /// after it left first, unless the dialog has gone on since, until its ACK or a later request comes or 64·T1 are over (RFC 3261
    /// §13.3.1.4). An ACK that came before the restart is unknown here: then the peer, which
    /// acknowledges every 2xx (§13.2.2.4), does so once more, and its silence ends nothing.
    pub fn resume_answer(
        &mut self,
        now: Mono,
        id: DialogId,
        cseq: u32,
        age_ms: u64,
        reply: &Reply,
    ) {
        let Some(dialog) = self.dialogs.get(&id) else { return };
        let Some(answered) = dialog.snapshot.answered.as_ref() else { return };
        let last = dialog.snapshot.remote_cseq;
        let is_last = answered.cseq == cseq && cseq == last;
        let waits = answered.method == "INVITE" && is_last && age_ms < LIFE_MS;
        if !waits || self.is_full(SIP_TRANSACTIONS_MAX, SIP_TRANSACTIONS_BYTES_MAX) {
            return;
        }
        let (number, request) = (answered.cseq, repeated(&dialog.snapshot, answered));
        let Some(via) = request.via() else { return };
        let DialogSnapshot { local, peer, transport, .. } = dialog.snapshot;
        let tag = dialog.snapshot.local_tag.clone();
        let identity = dialog.snapshot.identity.clone();
        let hop = Hop {
            local,
            peer,
            conn: transport.is_stream().then_some(GONE),
            secure: transport == Transport::Tls,
        };
        let txn = TxnId(self.next_id());
        let deadlines = Deadlines {
            again: Some(now.plus_ms(T1_MS)),
            interval_ms: T1_MS,
            end: Some(now.plus_ms(LIFE_MS - age_ms)),
        };
        let server = ServerTxn {
            // Neither retransmissions nor a CANCEL find it: the former have their answer already,
            // the latter comes too late.
            key: String::new(),
            merge: String::new(),
            request,
            via,
            hop,
            identity,
            user: None,
            tag,
            dialog: Some(id),
            state: State::Accepted,
            last: Vec::new(),
            acked: false,
            cancelled: false,
            deadlines,
            armed: None,
            counted: 0,
        };
        self.servers.insert(txn, Box::new(server));
        self.resumed.insert(txn);
        if let Some(dialog) = self.dialogs.get_mut(&id) {
            dialog.unacked = Some((number, txn));
        }
        // It may never have left.
        self.send_answer(txn, reply);
        self.arm_server(txn);
    }

    /// A later request of the peer: it has the 2xx that was being repeated.
    pub(super) fn stop_repeating(&mut self, dialog: DialogId) {
        let unacked = self.dialogs.get(&dialog).and_then(|dialog| dialog.unacked);
        if let Some((_, txn)) = unacked.filter(|(_, txn)| self.resumed.contains(txn)) {
            self.remove_server(txn);
        }
    }

    /// What was dialled for goes on over the new connection.
    pub(super) fn follow(&mut self, conn: ConnId, peer: SocketAddr, secure: bool) {
        for txn in &self.resumed {
            let Some(server) = self.servers.get_mut(txn) else { continue };
            let target = server.hop.reply_to(Some(&server.via), false);
            let dialled = Target::Dial { local: target.local(), peer, secure };
            if target == dialled {
                server.hop.conn = Some(conn);
            }
        }
    }

    /// Whether an INVITE without To tag belongs to a dialog that is open: a number that is not new
    /// there comes late, by another way or from before a restart.
    pub(super) fn is_late_invite(&self, call_id: &str, from_tag: &str, cseq: u32) -> bool {
        let first = (call_id.to_owned(), String::new(), String::new());
        let same = self.dialog_keys.range(first..).take_while(|(key, _)| key.0 == call_id);
        same.filter(|(key, _)| key.2 == from_tag)
            .filter_map(|(_, id)| self.dialogs.get(id))
            .any(|dialog| cseq <= dialog.snapshot.remote_cseq)
    }
}

/// The head of the request as far as its answer needs it.
fn repeated(snapshot: &DialogSnapshot, answered: &Answered) -> Message {
    let tagged = |address: &str, tag: &str| match tag {
        "" => address.to_owned(),
        tag => with_tag(address, tag),
    };
    let mut headers = Headers::default();
    for via in &answered.via {
        headers.push("Via", via.as_str());
    }
    for route in &answered.record_route {
        headers.push("Record-Route", route.as_str());
    }
    headers.push("From", tagged(&snapshot.remote_uri, &snapshot.remote_tag));
    headers.push("To", tagged(&snapshot.local_uri, &snapshot.local_tag));
    headers.push("Call-ID", snapshot.call_id.as_str());
    headers.push("CSeq", format!("{} {}", answered.cseq, answered.method));
    let start = StartLine::Request { method: answered.method.clone(), uri: String::new() };
    Message { start, headers, body: Vec::new() }
}
