//! RSs that we start (RFC 7866 §6.2): an INVITE without offer to an SRC that the configuration names.
//! Its 200 brings the offer, and our ACK the answer, once media records what it says and the journal
//! has it. What cannot be recorded is answered by port 0 and ended at once.

use std::net::SocketAddr;

use super::actor::Control;
use super::effect::{Effect, Grave};
use super::job::{Job, Purpose};
use super::lines::{Fit, Locals};
use super::operator::Outcome;
use super::recover::state;
use super::requests::outside;
use super::selection::{select, unwanted_lines};
use super::session::Phase;
use super::start::{metadata_quirks, refused_lines, text, wanted};
use crate::base::family::Family;
use crate::base::ids::RsId;
use crate::base::time::Mono;
use crate::plane::handoff::frame::Frame;
use crate::proto::session::{self as rs_proto, Body, FeatureTag, Negotiated, People};
use crate::proto::sip::{
    ClientTxnId, DialogId, DialogSnapshot, Failure, IncomingRequest, Invite, Outside, Reply,
    Target, Transport,
};
use crate::store::event::Origin;
use crate::store::journal::entry::{Entry, Signalling, SrcFacts};
use crate::store::journal::keybox::{answer_context, salt_context};
use crate::wire::sdes::blank_keys;
use crate::wire::sip::{Message, StartLine};

/// Calls of ours without an answer, at once.
const CALLS_MAX: usize = 64;
/// How long an SRC may ring: as long as it may be silent (64·T1), and no longer than operators wait.
const RING_MS: u64 = 32_000;
/// Characters of our reason in a BYE.
const REASON_CHARS_MAX: usize = 200;
const UNANSWERED: &str = "the SRC does not answer";

/// A call of ours.
pub(super) struct Calling {
    /// The operator who waits for it; `None`: nobody does any more, and it is being cancelled.
    verb: Option<u64>,
    /// When it is cancelled.
    until: Mono,
    /// The URI called.
    to: String,
    /// Its 2xx, once it came, and what it is in.
    answered: Option<(Message, DialogId)>,
    /// The SRC has said BYE before our ACK.
    hung_up: bool,
}

impl Control {
    /// Calls an SRC that the configuration names.
    pub(super) fn call(&mut self, id: u64, to: &str, peer: SocketAddr, transport: Transport) {
        let known = |call: &String| call == to;
        if !self.config.peers.iter().any(|peer| peer.call.as_ref().is_some_and(known)) {
            let why = format!("{to} is no `call` of [[peers]]");
            return self.outcome(id, Outcome::Refused(why));
        }
        // Its answer carries metadata.
        if self.config.policy.secure_signalling && transport != Transport::Tls {
            let why = format!("policy.secure_signalling takes TLS only, {to} is not called by it");
            return self.outcome(id, Outcome::Refused(why));
        }
        let obstacle = self.admission.obstacle(self.slots.used(), self.slots.free(), 1);
        if let Some(why) = obstacle {
            return self.outcome(id, Outcome::Failed(why));
        }
        if self.calling.len() >= CALLS_MAX {
            return self.outcome(id, Outcome::Busy);
        }
        let Some(local) = self.own_address(peer, transport) else {
            let why = format!("no listener of ours can speak {} with {peer}", transport.label());
            return self.outcome(id, Outcome::Failed(why));
        };
        let target = match transport {
            Transport::Udp => Target::Udp { local, peer },
            Transport::Tcp | Transport::Tls => {
                Target::Dial { local, peer, secure: transport == Transport::Tls }
            }
        };
        let sips = super::requests::is_sips(to);
        let mut headers = self.capable(Default::default(), local, transport, sips).headers;
        headers.push(("Require".to_owned(), "siprec".to_owned()));
        let invite = Invite {
            target,
            uri: to.to_owned(),
            from: format!("<sip:floortape@{}>", Outside::of(&outside(&self.config.sip), local)),
            to: format!("<{to}>"),
            headers,
            body: Vec::new(),
        };
        match self.sip.invite(self.now.mono, &invite) {
            Some(request) => {
                self.log(Grave::Info, format!("calling {to} at {peer}"));
                let calling = Calling {
                    verb: Some(id),
                    until: self.now.mono.plus_ms(RING_MS),
                    to: to.to_owned(),
                    answered: None,
                    hung_up: false,
                };
                self.calling.insert(request, calling);
            }
            None => self.outcome(id, Outcome::Failed(format!("{to} cannot be written"))),
        }
    }

    /// Where we can be reached by an SRC of that address: the first listener of its family.
    fn own_address(&self, peer: SocketAddr, transport: Transport) -> Option<SocketAddr> {
        let sip = &self.config.sip;
        let all = match transport {
            Transport::Udp => &sip.udp,
            Transport::Tcp => &sip.tcp,
            Transport::Tls => &sip.tls,
        };
        let mut own = *all.iter().find(|own| own.is_ipv4() == peer.is_ipv4())?;
        if own.ip().is_unspecified()
            && let Some(ip) = self.config.media.own(Family::of(own.ip()))
        {
            own.set_ip(ip);
        }
        Some(own)
    }

    /// An answer to a call of ours. False: it is none.
    pub(super) fn call_answered(
        &mut self,
        request: ClientTxnId,
        dialog: Option<DialogId>,
        message: &Message,
    ) -> bool {
        if !self.calling.contains_key(&request) {
            return false;
        }
        match message.code() {
            Some(200..300) => self.called(request, dialog, message),
            Some(300..) => {
                let StartLine::Response { code, reason } = &message.start else { return true };
                let why = format!("the SRC answers {code} {reason}");
                self.not_called(request, Outcome::Refused(why));
            }
            _ => {}
        }
        true
    }

    /// No answer came to a request of ours. True: it was a call.
    pub(super) fn call_unanswered(&mut self, request: ClientTxnId, why: Failure) -> bool {
        let known = self.calling.contains_key(&request);
        if known {
            let why = match why {
                Failure::Timeout => UNANSWERED,
                _ => "the SRC cannot be reached",
            };
            self.not_called(request, Outcome::Refused(why.to_owned()));
        }
        known
    }

    fn not_called(&mut self, request: ClientTxnId, outcome: Outcome) {
        if let Some(Calling { verb: Some(verb), to, .. }) = self.calling.remove(&request) {
            self.log(Grave::Warn, format!("{to} is not recorded: {outcome:?}"));
            self.outcome(verb, outcome);
        }
    }

    /// When a call is given up.
    pub(super) fn next_ring(&self) -> Option<Mono> {
        let waits = |call: &&Calling| call.verb.is_some() && call.answered.is_none();
        self.calling.values().filter(waits).map(|call| call.until).min()
    }

    /// Gives up calls that only ring: the operator is told that nothing came of it, so nothing may come
    /// of it later. An answer that crosses the CANCEL is hung up on (RFC 3261 §9.1, §15).
    pub(super) fn cancel_calls(&mut self) {
        let now = self.now.mono;
        let due = |call: &Calling| call.answered.is_none() && call.until <= now;
        for (request, call) in self.calling.iter_mut().filter(|(_, call)| due(call)) {
            let Some(verb) = call.verb.take() else { continue };
            let outcome = Outcome::Refused(UNANSWERED.to_owned());
            let text = format!("{} is not recorded: {outcome:?}", call.to);
            self.effects.push_back(Effect::Log { grave: Grave::Warn, text });
            self.effects.push_back(Effect::Outcome { id: verb, outcome });
            self.sip.cancel(now, *request);
        }
    }

    /// A request in a dialog that waits for our ACK. A BYE ends it: what is begun is undone, and the ACK
    /// leaves, before it is answered. Anything else comes too early (RFC 3311 §5.2). False: no such dialog.
    pub(super) fn called_asks(&mut self, request: &IncomingRequest) -> bool {
        let of = |call: &&mut Calling| {
            call.answered.as_ref().is_some_and(|(_, dialog)| Some(*dialog) == request.dialog)
        };
        let Some(calling) = self.calling.values_mut().find(of) else { return false };
        if request.message.method() != Some("BYE") {
            let reply = Reply::new(500).with("Retry-After", "1".to_owned());
            self.reply(request.txn, reply);
            return true;
        }
        calling.hung_up = true;
        let waits = |rs: &RsId| self.sessions[rs].dialog == request.dialog;
        if let Some(rs) = self.sessions.keys().copied().find(waits) {
            self.refuse_start(rs, "the SRC hung up");
        }
        self.reply(request.txn, Reply::new(200));
        true
    }

    /// The SRC has answered: what it offers is judged as any offer is.
    fn called(&mut self, request: ClientTxnId, dialog: Option<DialogId>, message: &Message) {
        let Some(place) = dialog.and_then(|dialog| Some((dialog, self.sip.snapshot(dialog)?)))
        else {
            return self.not_called(request, Outcome::Failed("it made no dialog".to_owned()));
        };
        let (dialog, snapshot) = place;
        if self.calling.get(&request).is_some_and(|calling| calling.verb.is_none()) {
            return self.decline(request, dialog, message, None, UNANSWERED);
        }
        let (identity, user) = (snapshot.identity.as_deref(), snapshot.user.as_deref());
        let policy = self.policy(snapshot.peer.ip(), identity, user, snapshot.transport);
        let body = match Self::body(message, &policy) {
            Ok(body) => body,
            Err(refusal) => {
                let why = format!("its body cannot be read: {}", refusal.why());
                return self.decline(request, dialog, message, None, &why);
            }
        };
        let Some(offer) = &body.offer else {
            return self.decline(request, dialog, message, None, "its answer has no offer");
        };
        let mut negotiated = rs_proto::negotiate(offer, None, &policy);
        let contact = message.headers.get("Contact").unwrap_or("");
        let tag = FeatureTag::in_contact(contact, "src");
        if tag == FeatureTag::Absent {
            let why = "it is no SRC: its Contact lacks +sip.src";
            return self.decline(request, dialog, message, Some(&negotiated), why);
        }
        let lines = wanted(&negotiated);
        if lines.is_empty() {
            let why = rs_proto::not_acceptable(&negotiated);
            let why = format!("no line of its offer can be recorded: {}", why.why());
            return self.decline(request, dialog, message, Some(&negotiated), &why);
        }
        let people =
            match select(&self.selection, self.called_name(request), &body, &mut negotiated) {
                Ok(people) => people,
                Err(reason) => {
                    self.unwanted.count(reason);
                    let why = "the recording policy does not ask for it";
                    return self.decline(request, dialog, message, Some(&negotiated), why);
                }
            };
        let lines = wanted(&negotiated);
        let near = snapshot.local.ip();
        let fits: Vec<Fit> = lines.iter().map(|line| self.fit(line, near)).collect();
        if let Some(why) = self.obstacle(&fits) {
            return self.decline(request, dialog, message, Some(&negotiated), &why);
        }
        let mut quirks = negotiated.quirks.clone();
        if tag != FeatureTag::Header {
            quirks
                .push("its Contact has +sip.src in another form (RFC 7866 section 6.1)".to_owned());
        }
        quirks.extend(refused_lines(&negotiated));
        quirks.extend(metadata_quirks(&body));
        quirks.retain(|quirk| !people.mentions_hidden(quirk));
        self.open_called(
            request,
            dialog,
            &snapshot,
            (message, &body),
            (negotiated, people),
            quirks,
        );
    }

    /// The name of who was called.
    fn called_name(&self, request: ClientTxnId) -> Option<&str> {
        let to = &self.calling.get(&request)?.to;
        let called = self.config.peers.iter().find(|peer| peer.call.as_ref() == Some(to));
        called.map(|peer| &*peer.name)
    }

    fn open_called(
        &mut self,
        request: ClientTxnId,
        dialog: DialogId,
        snapshot: &DialogSnapshot,
        (message, body): (&Message, &Body),
        (negotiated, people): (Negotiated, People),
        quirks: Vec<String>,
    ) {
        let lines = wanted(&negotiated);
        let (identity, user) = (snapshot.identity.as_deref(), snapshot.user.as_deref());
        let mut session = self.fresh_session(snapshot.peer.ip(), identity, user);
        let (rs, salt) = (session.rs, session.salt);
        let mut entries = Vec::new();
        let place = (snapshot.local.ip(), negotiated.lines.len());
        let locals = self.fill(&mut session, &lines, place, &mut entries);
        session.answer_sdp = self.answer_text(&negotiated, &locals, session.origin, None);
        let left_out = unwanted_lines(&negotiated);
        session.negotiated = Some(negotiated);
        session.dialog = Some(dialog);
        let frames = session
            .streams
            .iter()
            .filter_map(|stream| session.open_frame(&self.keys, stream))
            .map(|open| Frame::Open(Box::new(open)))
            .collect();
        let seal = |secret: &[u8], context: &str| self.keys.seal(&*self.entropy, secret, context);
        let (identity, user) = (snapshot.identity.as_deref(), snapshot.user.as_deref());
        let peer = self.rule_of(snapshot.peer.ip(), identity, user).map(|rule| &*rule.name);
        // Its SRC sends metadata later; what that says counts as soon as it is there.
        let promise = self.promise(peer, &session.streams, &Body::default());
        entries.push(Entry::Opened {
            rs,
            at: self.now.wall,
            dialog: state(snapshot.clone(), false),
            src: src_of(snapshot, message),
            signalling: match (snapshot.transport, &snapshot.identity) {
                (Transport::Udp, _) => Signalling::Udp,
                (Transport::Tcp, _) => Signalling::Tcp,
                (Transport::Tls, None) => Signalling::Tls,
                (Transport::Tls, Some(_)) => Signalling::Mtls,
            },
            quirks,
            salt: seal(&salt, &salt_context(rs)),
            streams: session.streams.clone(),
            own: false,
            answer: text(&blank_keys(session.answer_sdp.as_bytes())),
            answer_sdp: seal(session.answer_sdp.as_bytes(), &answer_context(rs)),
            bodies: None,
            timer: None,
            retention: Some(promise),
        });
        self.sessions.insert(rs, Box::new(session));
        let veil = self.veil(rs, &people, &left_out);
        let of_answer = self.bodies_of(rs, message, &body.parts, veil);
        if let Some(Entry::Opened { bodies, .. }) = entries.last_mut() {
            *bodies = Some(of_answer.len() as u32);
        }
        entries.extend(of_answer);
        if let Some(session) = self.sessions.get_mut(&rs) {
            session.people = people;
        }
        self.note_metadata(rs, body);
        if let Some(calling) = self.calling.get_mut(&request) {
            calling.answered = Some((message.clone(), dialog));
        }
        self.begin(Purpose::Called(request), rs, None, None, frames, entries);
    }

    /// Media and journal have it: the SRC may send. Or they cannot: then the SRC is told so.
    pub(super) fn finish_called(&mut self, request: ClientTxnId, job: Job) {
        let Job { rs, refused, .. } = job;
        let Some(calling) = self.calling.get(&request) else { return };
        let Some((message, dialog)) = calling.answered.clone() else { return };
        let hung_up = calling.hung_up;
        let live = self.sessions.get(&rs).is_some_and(|session| session.phase == Phase::Starting);
        if let Some(why) = refused.or((!live).then(|| "the recorder is being stopped".to_owned())) {
            let negotiated =
                self.sessions.get_mut(&rs).and_then(|session| session.negotiated.take());
            let by = if hung_up { Origin::Src } else { Origin::Srs };
            let entry = Entry::Ended {
                rs,
                at: self.now.wall,
                by,
                reason: format!("not started: {why}"),
                remote_cseq: 0,
                bye: !hung_up,
            };
            self.begin(Purpose::Quiet, rs, None, None, Vec::new(), vec![entry]);
            self.close_streams(rs, by);
            return self.decline(request, dialog, &message, negotiated.as_ref(), &why);
        }
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        session.phase = Phase::Live;
        let answer = session.answer_sdp.clone();
        session.pictures.note(&[], &session.streams);
        let streams = session.streams.len();
        self.dialogs.insert(dialog, rs);
        let headers = [("Content-Type".to_owned(), "application/sdp".to_owned())];
        let sent = self.sip.acknowledge_with(request, &message, &headers, answer.as_bytes());
        self.log(Grave::Info, format!("{rs} recording, {streams} streams; called by us"));
        self.ask_pictures(rs);
        let verb = self.calling.remove(&request).and_then(|calling| calling.verb);
        if let Some(verb) = verb {
            // Too late: the SRC ends what gets no ACK, and its BYE comes as any other.
            let late = || Outcome::Failed("the SRC's answer had expired".to_owned());
            self.outcome(verb, if sent { Outcome::Started(rs) } else { late() });
        }
    }

    /// Nothing of it is recorded: an answer of ports 0 and BYE (RFC 3264 §6, flows of RFC 7866 §7.2).
    fn decline(
        &mut self,
        request: ClientTxnId,
        dialog: DialogId,
        message: &Message,
        negotiated: Option<&Negotiated>,
        why: &str,
    ) {
        let answer = negotiated.map(|negotiated| {
            let none: Locals = negotiated.lines.iter().map(|_| None).collect();
            self.answer_text(negotiated, &none, (1, 1), None)
        });
        let sdp = [("Content-Type".to_owned(), "application/sdp".to_owned())];
        let headers: &[(String, String)] = if answer.is_some() { &sdp } else { &[] };
        let body = answer.unwrap_or_default();
        self.sip.acknowledge_with(request, message, headers, body.as_bytes());
        if self.calling.get(&request).is_none_or(|calling| !calling.hung_up) {
            self.say_bye(dialog, &quotable(why));
        }
        self.not_called(request, Outcome::Refused(why.to_owned()));
    }
}

/// What fits into the quoted text of a Reason (RFC 3326 §2), and into one datagram with it.
fn quotable(why: &str) -> String {
    let clean = |c: char| if c.is_control() || c == '"' || c == '\\' { '\'' } else { c };
    why.chars().take(REASON_CHARS_MAX).map(clean).collect()
}

/// Who was called, as far as its answer says.
fn src_of(snapshot: &DialogSnapshot, message: &Message) -> SrcFacts {
    let agent = message.headers.get("Server").or_else(|| message.headers.get("User-Agent"));
    SrcFacts {
        address: Some(snapshot.peer),
        identity: snapshot.identity.clone().unwrap_or_else(|| {
            let uri = snapshot.remote_uri.trim_start_matches('<').trim_end_matches('>');
            uri.to_owned()
        }),
        user_agent: agent.unwrap_or("").to_owned(),
    }
}
