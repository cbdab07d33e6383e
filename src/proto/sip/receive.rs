//! Taking requests (RFC 3261 §8.2, §9.2, §12.2.2, §17.2.3).

use super::dialog::DialogSnapshot;
use super::endpoint::Endpoint;
use super::event::{DialogId, IncomingRequest, Output, Reply, TxnId};
use super::guard::Judgement;
use super::restore::{Early, promises};
use super::server::{ServerTxn, State, match_key, merge_key};
use super::tally::Oddity;
use super::target::Hop;
use super::timer::{Deadlines, TRYING_MS};
use crate::base::limits::{SIP_TRANSACTIONS_BYTES_MAX, SIP_TRANSACTIONS_MAX};
use crate::base::time::Mono;
use crate::wire::sip::{CSeq, Echo, Message, NameAddr, Uri, Via, print_response};

/// Out-of-dialog requests leave an eighth of the table to running sessions.
const NEW_TRANSACTIONS_MAX: usize = SIP_TRANSACTIONS_MAX / 8 * 7;
/// The same of the bytes that they keep.
const NEW_TRANSACTIONS_BYTES_MAX: usize = SIP_TRANSACTIONS_BYTES_MAX / 8 * 7;

/// Methods that SIP has; one that is known but not taken gets 405, any other 501.
const KNOWN: [&str; 14] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "OPTIONS",
    "REGISTER",
    "PRACK",
    "SUBSCRIBE",
    "NOTIFY",
    "PUBLISH",
    "INFO",
    "REFER",
    "MESSAGE",
    "UPDATE",
];

/// Schemes of a Request-URI that may mean us; any other gets 416.
const SCHEMES: [&str; 3] = ["sip", "sips", "tel"];

/// A judgement on a request.
enum Verdict {
    /// For control, in that dialog.
    Take(Option<DialogId>),
    /// Answered here, with further header fields.
    Refuse(u16, Vec<(String, String)>),
}

/// Status and headers of an answer that refuses.
type Refusal = (u16, Vec<(String, String)>);

impl Endpoint {
    pub(super) fn receive_request(&mut self, now: Mono, hop: Hop, message: Message) {
        let method = message.method().unwrap_or("").to_owned();
        let Some((via, cseq, uri)) = required(&message) else {
            return self.refuse(hop, &message, 400, &[]);
        };
        if cseq.method != method {
            // RFC 4475 §3.1.2.18: that a method is new says more than that it stands there once.
            let known = KNOWN.contains(&&*method) || self.config.allow.contains(&method);
            return match known {
                true => self.refuse(hop, &message, 400, &[]),
                false => self.refuse(hop, &message, 501, &self.allow()),
            };
        }
        if method == "ACK" {
            return self.receive_ack(now, hop, message, &via, cseq.number);
        }
        let key = match_key(&message, &via, &method);
        if let Some(txn) = self.server_keys.get(&key).copied() {
            return self.receive_again(hop, txn);
        }
        let merge = merge_key(&message);
        if let Some((tag, reply)) = self.answers.get(&merge).cloned() {
            return match &mut self.early {
                Some(early) if promises(&method) => {
                    let message = Message { body: Vec::new(), ..message };
                    drop(early.insert(merge, Early { hop, message }));
                }
                _ => self.answer_plainly(hop, &message, &reply, &tag),
            };
        }
        if method == "CANCEL" {
            return self.receive_cancel(hop, message, &via);
        }
        if !self.config.allow.contains(&method) {
            let code = if KNOWN.contains(&&*method) { 405 } else { 501 };
            return self.refuse(hop, &message, code, &self.allow());
        }
        if !SCHEMES.contains(&&*uri.scheme) {
            return self.refuse(hop, &message, 416, &[]);
        }
        let user = match self.authenticate(now, &hop, &message) {
            Ok(user) => user,
            Err((code, headers)) => return self.refuse(hop, &message, code, &headers),
        };
        let dialog = match self.judge(&hop, user.as_deref(), &message, &merge, &cseq) {
            Verdict::Take(dialog) => dialog,
            Verdict::Refuse(code, headers) => return self.refuse(hop, &message, code, &headers),
        };
        let full = match dialog {
            Some(_) => self.is_full(SIP_TRANSACTIONS_MAX, SIP_TRANSACTIONS_BYTES_MAX),
            None => self.is_full(NEW_TRANSACTIONS_MAX, NEW_TRANSACTIONS_BYTES_MAX),
        };
        if full {
            let wait = ("Retry-After".to_owned(), self.config.retry_after_s.to_string());
            return self.refuse(hop, &message, 503, &[wait]);
        }
        self.admit(now, hop, user, message, via, (key, merge), dialog, &cseq);
    }

    /// The user that a request proves to be from, or the answer that asks for it (RFC 3261 §22.1).
    /// Before anything is kept, and before its number is taken.
    fn authenticate(
        &mut self,
        now: Mono,
        hop: &Hop,
        message: &Message,
    ) -> Result<Option<String>, Refusal> {
        let tag = |address: Option<NameAddr>| {
            address.as_ref().and_then(|address| address.tag()).unwrap_or("").to_owned()
        };
        let call_id = message.call_id().unwrap_or("").to_owned();
        let key = (call_id, tag(message.to()), tag(message.from()));
        let dialog = self.dialog_keys.get(&key).and_then(|id| self.dialogs.get(id));
        let owner = dialog.and_then(|dialog| dialog.snapshot.user.clone());
        let certified = self.identity(hop).is_some();
        let header = |name: &str, value: String| (name.to_owned(), value);
        match self.guard.judge(now, hop.peer.ip(), certified, owner.as_deref(), message) {
            Judgement::Pass(user) => Ok(user),
            Judgement::Challenge(values) => {
                let fields = values.into_iter().map(|value| header("WWW-Authenticate", value));
                Err((401, fields.collect()))
            }
            Judgement::Wait(seconds) => {
                Err((503, vec![header("Retry-After", seconds.to_string())]))
            }
        }
    }

    /// Finds the dialog of a request, or the reason to refuse it.
    fn judge(
        &mut self,
        hop: &Hop,
        user: Option<&str>,
        message: &Message,
        merge: &str,
        cseq: &CSeq,
    ) -> Verdict {
        let tags = (message.to(), message.from());
        let Some(local) = tags.0.as_ref().and_then(|to| to.tag()) else {
            // RFC 3261 §8.2.2.2: the same request by another way.
            if self.merges.contains_key(merge) {
                return Verdict::Refuse(482, Vec::new());
            }
            // F59: never a second RS for one INVITE.
            let from = tags.1.as_ref().and_then(|from| from.tag()).unwrap_or("");
            let call_id = message.call_id().unwrap_or("");
            if cseq.method == "INVITE" && self.is_late_invite(call_id, from, cseq.number) {
                return Verdict::Refuse(482, Vec::new());
            }
            // These exist in dialogs only (RFC 3261 §15.1.2, RFC 3311 §5.2, RFC 6086 §4.2.2).
            let inside = ["BYE", "UPDATE", "INFO"].contains(&&*cseq.method);
            return if inside { Verdict::Refuse(481, Vec::new()) } else { Verdict::Take(None) };
        };
        let remote = tags.1.as_ref().and_then(|from| from.tag()).unwrap_or("");
        let call_id = message.call_id().unwrap_or("");
        let key = (call_id.to_owned(), local.to_owned(), remote.to_owned());
        match self.dialog_keys.get(&key).copied() {
            Some(id) => self.judge_in_dialog(id, hop, user, message, cseq),
            None => Verdict::Refuse(481, Vec::new()),
        }
    }

    fn judge_in_dialog(
        &mut self,
        id: DialogId,
        hop: &Hop,
        user: Option<&str>,
        message: &Message,
        cseq: &CSeq,
    ) -> Verdict {
        if !self.is_owner(id, hop, user) {
            // Before its number is taken: the owner's next one must not come too late for it.
            self.out.push_back(Output::Intruder {
                dialog: id,
                method: cseq.method.clone(),
                peer: hop.peer,
                identity: self.identity(hop).map(str::to_owned),
            });
            return Verdict::Refuse(403, Vec::new());
        }
        let wait = self.prng.below(11).to_string();
        let Some(dialog) = self.dialogs.get_mut(&id) else {
            return Verdict::Refuse(481, Vec::new());
        };
        // RFC 3261 §12.2.2: a number that does not grow is out of order.
        // 0 stands for none yet: numbers may begin there.
        let last = dialog.snapshot.remote_cseq;
        if cseq.number <= last && last != 0 {
            return Verdict::Refuse(500, Vec::new());
        }
        let offers = offers(message, &cseq.method);
        let asking = dialog.asking.and_then(|asking| self.clients.get(&asking));
        // RFC 3261 §14.2, RFC 3311 §5.2: offers that cross.
        if offers && asking.is_some_and(|own| own.is_open() && own.offers) {
            return Verdict::Refuse(491, Vec::new());
        }
        if offers && dialog.asked.is_some() {
            return Verdict::Refuse(500, vec![("Retry-After".to_owned(), wait)]);
        }
        dialog.snapshot.remote_cseq = cseq.number;
        self.stop_repeating(id);
        Verdict::Take(Some(id))
    }

    /// Whether a message by `hop` of `user` comes from the one who made the dialog.
    fn is_owner(&self, id: DialogId, hop: &Hop, user: Option<&str>) -> bool {
        let Some(dialog) = self.dialogs.get(&id) else { return true };
        let DialogSnapshot { user: own, .. } = &dialog.snapshot;
        dialog.snapshot.is_owned_by(hop, self.identity(hop))
            && own.as_deref().is_none_or(|own| user == Some(own))
    }

    /// Opens a server transaction and hands the request to control.
    #[expect(clippy::too_many_arguments, reason = "all parts of one arrival, taken apart once")]
    fn admit(
        &mut self,
        now: Mono,
        hop: Hop,
        user: Option<String>,
        message: Message,
        via: Via,
        (key, merge): (String, String),
        dialog: Option<DialogId>,
        cseq: &CSeq,
    ) {
        let txn = TxnId(self.next_id());
        let tag = self.token();
        let identity = self.identity(&hop).map(str::to_owned);
        let (start, headers) = (message.start.clone(), message.headers.clone());
        let request = Message { start, headers, body: Vec::new() };
        self.server_keys.insert(key.clone(), txn);
        self.merges.insert(merge.clone(), txn);
        self.servers.insert(
            txn,
            Box::new(ServerTxn {
                key,
                merge,
                request,
                via,
                hop,
                identity: identity.clone(),
                user: user.clone(),
                tag,
                dialog,
                state: State::Proceeding,
                last: Vec::new(),
                acked: false,
                cancelled: false,
                deadlines: Deadlines::default(),
                armed: None,
                counted: 0,
            }),
        );
        self.weigh(txn);
        if let Some(open) = dialog.and_then(|dialog| self.dialogs.get_mut(&dialog)) {
            // Whatever control says later, this is where the peer now listens on a stream.
            open.conn = hop.conn.or(open.conn);
            if offers(&message, &cseq.method) {
                open.asked = Some(txn);
            }
        }
        if cseq.method == "INVITE" {
            // A 100 ends the peer's retransmissions (RFC 3261 §17.1.1.2): what dies between it and
            // the final answer is never asked for again. Over UDP it therefore waits for the 200 ms
            // that §17.2.1 allows; a peer on a stream sees the connection fall.
            match hop.conn {
                Some(_) => self.send_answer(txn, &Reply::new(100)),
                None => self.trying_later(now, txn),
            }
        }
        let (Hop { local, peer, .. }, transport) = (hop, hop.transport());
        let request =
            IncomingRequest { txn, dialog, message, peer, local, transport, identity, user };
        self.out.push_back(Output::Request(request));
    }

    fn trying_later(&mut self, now: Mono, txn: TxnId) {
        if let Some(server) = self.servers.get_mut(&txn) {
            server.deadlines.again = Some(now.plus_ms(TRYING_MS));
        }
        self.arm_server(txn);
    }

    /// A retransmission: the last response again, over the way it came.
    fn receive_again(&mut self, hop: Hop, txn: TxnId) {
        let own = self.identity(&hop).map(str::to_owned);
        let Some(server) = self.servers.get_mut(&txn) else { return };
        // A stranger's copy of it moves nothing, and learns nothing.
        if (server.hop.secure, &server.identity) != (hop.secure, &own) {
            return;
        }
        if server.hop.conn.is_some() || hop.conn.is_some() {
            // After a reconnect the answer follows the request.
            server.hop.conn = hop.conn.or(server.hop.conn);
        }
        // RFC 6026 §7.1: in Accepted the INVITE is absorbed, the 2xx has its own timer.
        if server.state != State::Accepted && server.state != State::Confirmed {
            self.repeat_answer(txn);
        }
    }

    fn receive_cancel(&mut self, hop: Hop, message: Message, via: &Via) {
        // RFC 3261 §9.2: matched as if the method were that of the request to cancel.
        let key = match_key(&message, via, "INVITE");
        let Some(txn) = self.server_keys.get(&key).copied() else {
            return self.refuse(hop, &message, 481, &[]);
        };
        let own = self.identity(&hop).map(str::to_owned);
        let Some(invite) = self.servers.get_mut(&txn) else { return };
        if (invite.hop.secure, &invite.identity) != (hop.secure, &own) {
            return self.refuse(hop, &message, 481, &[]);
        }
        // A final answer that has left stands; a CANCEL that comes twice is told once.
        let first = invite.state == State::Proceeding && !invite.cancelled;
        invite.cancelled = true;
        let tag = invite.tag.clone();
        self.answer_plainly(hop, &message, &Reply::new(200), &tag);
        if first {
            self.out.push_back(Output::Cancelled { txn });
        }
    }

    fn receive_ack(&mut self, now: Mono, hop: Hop, message: Message, via: &Via, number: u32) {
        let key = match_key(&message, via, "INVITE");
        if let Some(txn) = self.server_keys.get(&key).copied()
            && let Some(server) = self.servers.get_mut(&txn)
            && server.state != State::Accepted
        {
            if server.state == State::Completed && server.acknowledge(now) {
                self.remove_server(txn);
            }
            return self.arm_server(txn);
        }
        // The ACK of a 2xx is a request of its own within the dialog (RFC 3261 §13.2.2.4).
        let (to, from) = (message.to(), message.from());
        let tag = |address: &Option<crate::wire::sip::NameAddr>| {
            address.as_ref().and_then(|address| address.tag()).unwrap_or("").to_owned()
        };
        let key = (message.call_id().unwrap_or("").to_owned(), tag(&to), tag(&from));
        let Some(id) = self.dialog_keys.get(&key).copied() else { return };
        // An ACK cannot be challenged (RFC 3261 §22.1), so that digest says nothing about it.
        let owner = self.dialogs.get(&id).and_then(|dialog| dialog.snapshot.user.clone());
        if !self.is_owner(id, &hop, owner.as_deref()) {
            return;
        }
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        dialog.conn = hop.conn.or(dialog.conn);
        let Some((_, txn)) = dialog.unacked.filter(|(cseq, _)| *cseq == number) else { return };
        dialog.unacked = None;
        if let Some(server) = self.servers.get_mut(&txn) {
            server.acknowledge(now);
        }
        self.arm_server(txn);
        self.out.push_back(Output::Acked { dialog: id, message });
    }

    /// Answers without a transaction (RFC 3261 §8.2.7). The tag is the same for every
    /// retransmission, as that section demands.
    pub(super) fn refuse(
        &mut self,
        hop: Hop,
        message: &Message,
        code: u16,
        headers: &[(String, String)],
    ) {
        // An ACK is never answered; without a Via nobody knows where to.
        if message.method() == Some("ACK") || message.via().is_none() {
            return self.tally.count(Oddity::Unreadable);
        }
        self.tally.count(Oddity::Refused(code));
        let top = message.headers.list("Via").next().unwrap_or("");
        let mut tag = self.config.seed ^ 0xcbf2_9ce4_8422_2325;
        for byte in top.bytes().chain(message.call_id().unwrap_or("").bytes()) {
            tag = (tag ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let reply = Reply { headers: headers.to_vec(), ..Reply::new(code) };
        self.answer_plainly(hop, message, &reply, &format!("{tag:016x}"));
    }

    pub(super) fn answer_plainly(&mut self, hop: Hop, message: &Message, reply: &Reply, tag: &str) {
        let echo = Echo { request: message, source: hop.peer, to_tag: Some(tag) };
        let mut headers = reply.headers.clone();
        headers.push(("Server".to_owned(), self.config.user_agent.clone()));
        let reason = reply.reason.as_deref();
        let bytes = print_response(echo, reply.code, reason, &headers, &reply.body);
        let target = hop.reply_to(message.via().as_ref(), self.is_alive(&hop));
        self.transmit(target, bytes);
    }

    fn allow(&self) -> [(String, String); 1] {
        [("Allow".to_owned(), self.config.allow.join(", "))]
    }
}

/// Whether a request starts an offer/answer exchange.
pub(super) fn offers(message: &Message, method: &str) -> bool {
    method == "INVITE"
        || (method == "UPDATE"
            && message
                .content_type()
                .is_some_and(|found| found.kind == "multipart" || found.is("application", "sdp")))
}

/// Top Via, CSeq and Request-URI of a request that has every mandatory field exactly once (RFC 3261
/// §8.1.1) and nothing but Via values in Via. Max-Forwards is not asked for: peers of RFC 2543 have
/// none, and a UAS does not need it; 0 is for proxies to refuse (RFC 4475 §3.3.11).
fn required(message: &Message) -> Option<(Via, CSeq, Uri)> {
    for name in ["From", "To", "Call-ID", "CSeq"] {
        if message.headers.fields(name).count() != 1 {
            return None;
        }
    }
    message.call_id()?;
    message.from()?;
    message.to()?;
    if message.headers.list("Via").any(|via| Via::parse(via).is_none()) {
        return None;
    }
    Some((message.via()?, message.cseq()?, Uri::parse(message.uri()?)?))
}
