//! Our own requests and the responses to them (RFC 3261 §8.1, §12.2.1, §13.2, §17.1).

use std::net::SocketAddr;

use super::client::{ClientTxn, Outline, State, Step};
use super::dialog::DialogSnapshot;
use super::endpoint::Endpoint;
use super::event::{ClientTxnId, DialogId, Output};
use super::tally::Oddity;
use super::target::{Hop, Outside, Target, Transport};
use super::timer::Deadlines;
use crate::base::limits::SIP_DATAGRAM_REQUEST_BYTES_MAX;
use crate::base::time::Mono;
use crate::wire::sip::{Message, NameAddr, print_request, with_tag};

/// An INVITE that starts a dialog.
#[derive(Clone)]
pub struct Invite {
    /// Where to, and from which of our addresses.
    pub target: Target,
    /// Request-URI.
    pub uri: String,
    /// From without tag.
    pub from: String,
    /// To.
    pub to: String,
    /// Further header fields: Contact, Content-Type, Require, …
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// What is left to be said once the outline of a request stands.
struct Plan<'a> {
    method: &'a str,
    dialog: Option<DialogId>,
    target: Target,
    headers: &'a [(String, String)],
    body: &'a [u8],
    /// Whoever sends it answers the offer of its 2xx.
    owes_answer: bool,
}

impl Endpoint {
    /// Sends a request within a dialog. `None` for an unknown dialog or method, and for an offer
    /// while another one is open (it would only earn a 491).
    pub fn request(
        &mut self,
        now: Mono,
        dialog: DialogId,
        method: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Option<ClientTxnId> {
        self.request_in(now, dialog, (method, headers, body), false)
    }

    /// Sends an INVITE without an offer within a dialog. Its 2xx brings one (RFC 3261 §14.1) and waits for
    /// [`Self::acknowledge_with`]. `None` as [`Self::request`] says.
    pub fn ask_offer(
        &mut self,
        now: Mono,
        dialog: DialogId,
        headers: &[(String, String)],
    ) -> Option<ClientTxnId> {
        self.request_in(now, dialog, ("INVITE", headers, &[]), true)
    }

    fn request_in(
        &mut self,
        now: Mono,
        dialog: DialogId,
        (method, headers, body): (&str, &[(String, String)], &[u8]),
        owes_answer: bool,
    ) -> Option<ClientTxnId> {
        if matches!(method, "ACK" | "CANCEL") {
            return None;
        }
        let open = self.dialogs.get(&dialog)?;
        let offers = is_offer(method, headers);
        if offers && (open.asking.is_some() || open.asked.is_some()) {
            return None;
        }
        let target = self.way(open);
        let open = self.dialogs.get_mut(&dialog)?;
        open.snapshot.local_cseq += 1;
        let snapshot = open.snapshot.clone();
        let outline = outline(&snapshot, self.via(target));
        let plan = Plan { method, dialog: Some(dialog), target, headers, body, owes_answer };
        let txn = self.start(now, plan, outline)?;
        if let Some(open) = self.dialogs.get_mut(&dialog).filter(|_| offers) {
            open.asking = Some(txn);
        }
        Some(txn)
    }

    /// Sends an INVITE outside of a dialog. Its dialog comes with [`Output::Response`] of a 2xx,
    /// which is acknowledged here; where the INVITE has no body, by [`Self::acknowledge_with`].
    pub fn invite(&mut self, now: Mono, invite: &Invite) -> Option<ClientTxnId> {
        let outline = Outline {
            uri: invite.uri.clone(),
            via: self.via(invite.target),
            from: with_tag(&invite.from, &self.token()),
            to: invite.to.clone(),
            call_id: self.token() + &self.token(),
            cseq: 1,
            routes: Vec::new(),
        };
        let Invite { target, headers, body, .. } = invite;
        let owes_answer = body.is_empty();
        let (method, target) = ("INVITE", *target);
        let plan = Plan { method, dialog: None, target, headers, body, owes_answer };
        self.start(now, plan, outline)
    }

    /// Sends an INVITE once more that has got a final answer other than 2xx: the same Call-ID and From,
    /// the next number (RFC 3261 §22.2). `before`: what that one was; over a stream its transaction is
    /// over with the answer.
    pub(super) fn invite_again(
        &mut self,
        now: Mono,
        before: Outline,
        invite: &Invite,
    ) -> Option<ClientTxnId> {
        let via = self.via(invite.target);
        let outline = Outline { via, cseq: before.cseq + 1, ..before };
        let Invite { target, headers, body, .. } = invite;
        let owes_answer = body.is_empty();
        let (method, target) = ("INVITE", *target);
        let plan = Plan { method, dialog: None, target, headers, body, owes_answer };
        self.start(now, plan, outline)
    }

    /// What a request of ours says that is not over yet.
    pub(super) fn outline(&self, request: ClientTxnId) -> Option<Outline> {
        self.clients.get(&request).map(|client| client.outline.clone())
    }

    /// Call-ID of a request of ours that is not over yet.
    pub fn call_id(&self, request: ClientTxnId) -> Option<&str> {
        self.clients.get(&request).map(|client| &*client.outline.call_id)
    }

    /// Cancels an INVITE of ours. Before a provisional response RFC 3261 §9.1 forbids it: then the
    /// CANCEL follows the first one, and `None` comes back, as it does where there is nothing to
    /// cancel after the final response.
    pub fn cancel(&mut self, now: Mono, request: ClientTxnId) -> Option<ClientTxnId> {
        let invite = self.clients.get_mut(&request)?;
        invite.unwanted = invite.state == State::Calling;
        if !invite.is_invite() || invite.state != State::Proceeding {
            return None;
        }
        let (outline, target) = (invite.outline.clone(), invite.target);
        let (headers, body) = (&[], &[]);
        let plan =
            Plan { method: "CANCEL", dialog: None, target, headers, body, owes_answer: false };
        self.start(now, plan, outline)
    }

    fn via(&mut self, target: Target) -> String {
        let transport = match target.transport() {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
        };
        // RFC 3581: rport brings the answer back through address translation.
        let own = Outside::of(&self.config.outside, target.local());
        format!("SIP/2.0/{transport} {own};branch=z9hG4bK{};rport", self.token())
    }

    fn start(&mut self, now: Mono, plan: Plan<'_>, mut outline: Outline) -> Option<ClientTxnId> {
        let Plan { method, dialog, mut target, headers, body, owes_answer } = plan;
        let agent = self.config.user_agent.clone();
        let mut bytes = print(method, &outline, Some(&agent), headers, body)?;
        let mut fallback = None;
        if let Some(stream) = self.stream_instead(dialog, target, bytes.len()) {
            outline.via = outline.via.replacen("SIP/2.0/UDP", "SIP/2.0/TCP", 1);
            fallback = Some((target, bytes));
            bytes = print(method, &outline, Some(&agent), headers, body)?;
            target = stream;
        }
        let txn = ClientTxnId(self.next_id());
        let key = client_key(&outline.via, method)?;
        let mut client = ClientTxn {
            method: method.to_owned(),
            key: key.clone(),
            outline,
            dialog,
            offers: is_offer(method, headers),
            owes_answer,
            target,
            bytes: bytes.clone(),
            fallback,
            unwanted: false,
            forks: Vec::new(),
            state: State::Calling,
            ack: None,
            deadlines: Deadlines::default(),
            armed: None,
        };
        client.start(now);
        self.client_keys.insert(key, txn);
        self.clients.insert(txn, client);
        self.arm_client(txn);
        self.transmit(target, bytes);
        Some(txn)
    }

    /// The way of a request that is too large for a datagram (RFC 3261 §18.1.1): a stream to the
    /// same place. `None`: it goes as it was meant to.
    fn stream_instead(
        &self,
        dialog: Option<DialogId>,
        target: Target,
        length: usize,
    ) -> Option<Target> {
        let Target::Udp { local, peer } = target else { return None };
        if !self.config.streams_for_large {
            return None;
        }
        let known = dialog.and_then(|dialog| self.dialogs.get(&dialog));
        if length <= SIP_DATAGRAM_REQUEST_BYTES_MAX || known.is_some_and(|own| own.datagrams_only) {
            return None;
        }
        let open = self.conns.iter().find(|(_, own)| own.peer == peer && !own.secure);
        Some(match open {
            Some((conn, _)) => Target::Stream { conn: *conn, peer, local, secure: false },
            None => Target::Dial { local, peer, secure: false },
        })
    }

    /// No stream to `peer` opens: what went there only for its size goes in datagrams after all
    /// (RFC 3261 §18.1.1), and so does all that follows in its dialog.
    pub(super) fn fall_back(&mut self, now: Mono, peer: SocketAddr) {
        let dialled =
            |target: Target| target == Target::Dial { local: target.local(), peer, secure: false };
        let mut moved = Vec::new();
        for (id, client) in self.clients.iter_mut().filter(|(_, client)| dialled(client.target)) {
            let Some((target, bytes)) = client.fallback.take() else { continue };
            client.outline.via = client.outline.via.replacen("SIP/2.0/TCP", "SIP/2.0/UDP", 1);
            (client.target, client.bytes) = (target, bytes.clone());
            client.start(now);
            if let Some(dialog) = client.dialog.and_then(|id| self.dialogs.get_mut(&id)) {
                dialog.datagrams_only = true;
            }
            moved.push((*id, target, bytes));
        }
        for (id, target, bytes) in moved {
            self.arm_client(id);
            self.transmit(target, bytes);
        }
    }

    pub(super) fn receive_response(&mut self, now: Mono, hop: Hop, message: Message) {
        let (Some(code), Some(cseq), Some(top)) =
            (message.code(), message.cseq(), message.headers.list("Via").next())
        else {
            return;
        };
        let key = client_key(top, &cseq.method).unwrap_or_default();
        let Some(request) = self.client_keys.get(&key).copied() else {
            return self.tally.count(Oddity::StrayResponse);
        };
        let Some(client) = self.clients.get_mut(&request) else { return };
        if client.outline.call_id != message.call_id().unwrap_or("")
            || client.outline.cseq != cseq.number
        {
            return;
        }
        match client.receive(now, code) {
            Step::Absorb => {}
            Step::Progress => {
                let (dialog, unwanted) = (client.dialog, client.unwanted);
                if unwanted {
                    self.cancel(now, request);
                }
                if code != 100 {
                    self.out.push_back(Output::Response { request, dialog, message });
                }
            }
            Step::Again if code < 300 && self.is_fork(request, &message) => {
                self.receive_fork(now, request, hop, &message);
            }
            Step::Again => {
                if let Some(client) = self.clients.get(&request)
                    && let Some(ack) = client.ack.clone()
                {
                    let target = client.target;
                    self.transmit(target, ack);
                }
            }
            Step::Final => self.finish_request(request, code, hop, message),
        }
        self.arm_client(request);
    }

    /// Whether a 2xx comes from another one than the first: the INVITE was forked.
    fn is_fork(&self, request: ClientTxnId, message: &Message) -> bool {
        let first = self.clients.get(&request).and_then(|client| client.dialog);
        let first = first.and_then(|dialog| self.dialogs.get(&dialog));
        let to = message.to();
        let tag = to.as_ref().and_then(NameAddr::tag).unwrap_or("");
        first.is_some_and(|dialog| dialog.snapshot.remote_tag != tag)
    }

    /// One answer to an INVITE of ours is enough: any other is acknowledged and ended at once (RFC
    /// 3261 §13.2.2.4).
    fn receive_fork(&mut self, now: Mono, request: ClientTxnId, hop: Hop, message: &Message) {
        /// Branches that a proxy may fork to, above all that is known.
        const FORKS_MAX: usize = 16;
        let Some(client) = self.clients.get(&request) else { return };
        let identity = self.identity(&hop).map(str::to_owned);
        let snapshot = of_client(&client.outline, message, &hop, identity);
        let tag = snapshot.remote_tag.clone();
        let known = client.forks.iter().find(|(own, _)| *own == tag).map(|(_, ack)| ack.clone());
        let target = snapshot.target(hop.conn);
        if let Some(ack) = known {
            return self.transmit(target, ack);
        }
        if client.forks.len() >= FORKS_MAX {
            return;
        }
        let cseq = client.outline.cseq;
        let ack = Outline { cseq, ..outline(&snapshot, self.via(target)) };
        let Some(bytes) = print("ACK", &ack, None, &[], &[]) else { return };
        if let Some(client) = self.clients.get_mut(&request) {
            client.forks.push((tag, bytes.clone()));
        }
        self.transmit(target, bytes);
        let dialog = self.open(snapshot, hop.conn);
        self.request(now, dialog, "BYE", &[], &[]);
        self.close(dialog);
    }

    fn finish_request(&mut self, request: ClientTxnId, code: u16, hop: Hop, message: Message) {
        let Some(client) = self.clients.get(&request) else { return };
        let accepted = code < 300;
        let mut dialog = client.dialog;
        if accepted && client.is_invite() && dialog.is_none() {
            let identity = self.identity(&hop).map(str::to_owned);
            let snapshot = of_client(&client.outline, &message, &hop, identity);
            dialog = Some(self.open(snapshot, hop.conn));
        }
        if let Some(open) = dialog.and_then(|dialog| self.dialogs.get_mut(&dialog)) {
            if open.asking == Some(request) {
                open.asking = None;
            }
            if accepted {
                // The 2xx of a target refresh refreshes us too (RFC 3261 §12.2.1.2).
                open.snapshot.refresh(&message);
            }
        }
        let owes = |client: &ClientTxn| accepted && client.owes_answer;
        if !self.clients.get(&request).is_some_and(owes) {
            self.acknowledge(request, dialog, accepted, &message, (&[], &[]));
        }
        if let Some(client) = self.clients.get_mut(&request) {
            client.dialog = dialog;
        }
        self.out.push_back(Output::Response { request, dialog, message });
    }

    /// Acknowledges the 2xx of an INVITE without offer, with the answer. False: it is too late for that,
    /// or another request.
    pub fn acknowledge_with(
        &mut self,
        request: ClientTxnId,
        message: &Message,
        headers: &[(String, String)],
        body: &[u8],
    ) -> bool {
        let owes = |client: &&ClientTxn| client.owes_answer && client.state == State::Accepted;
        let Some(client) = self.clients.get(&request).filter(owes) else { return false };
        let dialog = client.dialog;
        self.acknowledge(request, dialog, true, message, (headers, body));
        true
    }

    /// Sends the ACK of a final response to an INVITE: of the dialog for a 2xx (RFC 3261
    /// §13.2.2.4), of the transaction for others (§17.1.1.3).
    fn acknowledge(
        &mut self,
        request: ClientTxnId,
        dialog: Option<DialogId>,
        accepted: bool,
        message: &Message,
        (headers, body): (&[(String, String)], &[u8]),
    ) {
        let Some(client) = self.clients.get(&request).filter(|client| client.is_invite()) else {
            return;
        };
        let (mut ack, mut target) = (client.outline.clone(), client.target);
        let open = dialog.filter(|_| accepted).and_then(|dialog| self.dialogs.get(&dialog));
        if let Some(open) = open {
            target = self.way(open);
            let snapshot = open.snapshot.clone();
            ack = Outline { cseq: ack.cseq, ..outline(&snapshot, self.via(target)) };
        } else {
            message.headers.get("To").unwrap_or("").clone_into(&mut ack.to);
        }
        let Some(bytes) = print("ACK", &ack, None, headers, body) else { return };
        if let Some(client) = self.clients.get_mut(&request) {
            client.ack = Some(bytes.clone());
            client.target = target;
        }
        self.transmit(target, bytes);
    }
}

/// Whether a request of ours starts an offer/answer exchange.
fn is_offer(method: &str, headers: &[(String, String)]) -> bool {
    let body = |(name, value): &(String, String)| {
        let value = value.trim_start().to_ascii_lowercase();
        name.eq_ignore_ascii_case("Content-Type")
            && (value.starts_with("application/sdp") || value.starts_with("multipart/"))
    };
    method == "INVITE" || (method == "UPDATE" && headers.iter().any(body))
}

fn client_key(via: &str, method: &str) -> Option<String> {
    let via = crate::wire::sip::Via::parse(via)?;
    Some(format!("{} {method}", via.branch()?))
}

fn outline(snapshot: &DialogSnapshot, via: String) -> Outline {
    let (uri, routes) = snapshot.routing();
    let tagged = |address: &str, tag: &str| match tag {
        // A peer of RFC 2543 has no tag, and gets none (RFC 3261 §12.2.1.1).
        "" => address.to_owned(),
        tag => with_tag(address, tag),
    };
    Outline {
        uri,
        via,
        from: tagged(&snapshot.local_uri, &snapshot.local_tag),
        to: tagged(&snapshot.remote_uri, &snapshot.remote_tag),
        call_id: snapshot.call_id.clone(),
        cseq: snapshot.local_cseq,
        routes,
    }
}

/// The dialog that a 2xx to our INVITE makes (RFC 3261 §12.1.2).
fn of_client(
    outline: &Outline,
    message: &Message,
    hop: &Hop,
    identity: Option<String>,
) -> DialogSnapshot {
    let tag = |text: &str| NameAddr::parse(text).and_then(|own| own.tag().map(str::to_owned));
    let to = message.headers.get("To").unwrap_or("");
    let mut route_set: Vec<_> = message.headers.list("Record-Route").map(str::to_owned).collect();
    route_set.reverse();
    DialogSnapshot {
        call_id: outline.call_id.clone(),
        local_tag: tag(&outline.from).unwrap_or_default(),
        remote_tag: tag(to).unwrap_or_default(),
        local_uri: crate::wire::sip::without_tag(&outline.from),
        remote_uri: crate::wire::sip::without_tag(&outline.to),
        remote_target: message.contact().map_or(outline.uri.clone(), |contact| contact.uri),
        route_set,
        local_cseq: outline.cseq,
        remote_cseq: 0,
        transport: hop.transport(),
        peer: hop.peer,
        local: hop.local,
        identity,
        user: None,
        answered: None,
        update: super::dialog::allows(message, "UPDATE").unwrap_or(false),
        refuses_invite: super::dialog::allows(message, "INVITE") == Some(false),
    }
}

fn print(
    method: &str,
    outline: &Outline,
    agent: Option<&str>,
    headers: &[(String, String)],
    body: &[u8],
) -> Option<Vec<u8>> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut all = vec![pair("Via", &outline.via), pair("Max-Forwards", "70")];
    all.extend(outline.routes.iter().map(|route| pair("Route", route)));
    all.push(pair("From", &outline.from));
    all.push(pair("To", &outline.to));
    all.push(pair("Call-ID", &outline.call_id));
    all.push(pair("CSeq", &format!("{} {method}", outline.cseq)));
    all.extend(agent.map(|agent| pair("User-Agent", agent)));
    all.extend_from_slice(headers);
    print_request(method, &outline.uri, &all, body)
}
