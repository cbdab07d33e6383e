//! The calling role of the built-in SRC: calls placed, acknowledged, refreshed and ended, on top of
//! [`Endpoint`].

use std::collections::BTreeMap;
use std::fmt;

use super::client::Outline;
use super::digest::{Challenge, Secret};
use super::endpoint::Endpoint;
use super::event::{
    ClientTxnId, DialogId, EndpointConfig, Failure, IncomingRequest, Input, Output, Reply, TxnId,
};
use super::receive::offers;
use super::send::Invite;
use super::target::{ConnId, Target};
use crate::base::time::Mono;
use crate::wire::sip::Message;

/// A call of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallRef(pub u64);

/// What is to be done, and what became of calls.
pub enum UacOutput {
    /// Send bytes.
    Transmit {
        /// Where to.
        target: Target,
        /// One message, whole.
        bytes: Vec<u8>,
    },
    /// Close a connection once all that was sent is out.
    Disconnect {
        /// The connection.
        conn: ConnId,
    },
    /// A provisional response.
    Progress {
        /// The call.
        call: CallRef,
        /// Its code.
        code: u16,
    },
    /// The call stands; its ACK has been sent.
    Answered {
        /// The call.
        call: CallRef,
        /// The 2xx.
        message: Message,
    },
    /// The call was refused, redirected or cancelled; it is over.
    Refused {
        /// The call.
        call: CallRef,
        /// The final response.
        message: Message,
    },
    /// The INVITE got no answer; the call is over.
    Failed {
        /// The call.
        call: CallRef,
        /// Why.
        why: Failure,
    },
    /// An offer from the peer: answer it by [`Uac::respond`].
    Offer {
        /// The call.
        call: CallRef,
        /// To answer it by.
        txn: TxnId,
        /// The re-INVITE or UPDATE.
        message: Message,
    },
    /// A request from the peer that has been answered by 200: an UPDATE without an offer (a
    /// snapshot request, say), OPTIONS, INFO.
    Told {
        /// The call.
        call: CallRef,
        /// The request.
        message: Message,
    },
    /// The final response to a request sent by [`Uac::request`].
    Response {
        /// The call.
        call: CallRef,
        /// The request.
        request: ClientTxnId,
        /// The response.
        message: Message,
    },
    /// A request sent by [`Uac::request`] got no answer.
    RequestFailed {
        /// The call.
        call: CallRef,
        /// The request.
        request: ClientTxnId,
        /// Why.
        why: Failure,
    },
    /// The call is over.
    Ended {
        /// The call.
        call: CallRef,
        /// Whether the peer sent the BYE.
        by_peer: bool,
    },
}

impl fmt::Debug for UacOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies carry keys: bytes are only counted.
        match self {
            UacOutput::Transmit { target, bytes } => {
                write!(f, "Transmit {} bytes to {target:?}", bytes.len())
            }
            UacOutput::Disconnect { conn } => write!(f, "Disconnect {conn:?}"),
            UacOutput::Progress { call, code } => write!(f, "Progress {call:?} {code}"),
            UacOutput::Answered { call, .. } => write!(f, "Answered {call:?}"),
            UacOutput::Refused { call, message } => write!(f, "Refused {call:?} {message:?}"),
            UacOutput::Failed { call, why } => write!(f, "Failed {call:?} {why:?}"),
            UacOutput::Offer { call, txn, .. } => write!(f, "Offer {call:?} {txn:?}"),
            UacOutput::Told { call, message } => write!(f, "Told {call:?} {message:?}"),
            UacOutput::Response { call, message, .. } => write!(f, "Response {call:?} {message:?}"),
            UacOutput::RequestFailed { call, why, .. } => {
                write!(f, "RequestFailed {call:?} {why:?}")
            }
            UacOutput::Ended { call, by_peer } => write!(f, "Ended {call:?} by peer: {by_peer}"),
        }
    }
}

/// One call.
struct Leg {
    invite: ClientTxnId,
    sip_call_id: String,
    contact: Vec<(String, String)>,
    dialog: Option<DialogId>,
    bye: Option<ClientTxnId>,
    /// Hung up before there was an answer.
    unwanted: bool,
    /// The INVITE and what it said, in case that it is challenged; and whether it was.
    request: Invite,
    outline: Option<Outline>,
    challenged: bool,
}

/// Places and ends calls. Bytes and time in, bytes and events out, as [`Endpoint`].
pub struct Uac {
    endpoint: Endpoint,
    legs: BTreeMap<CallRef, Leg>,
    last: u64,
    /// Who we are, if anybody asks.
    secret: Option<Secret>,
    /// The last challenge, and how often it was answered.
    challenge: Option<(Challenge, u32)>,
}

impl fmt::Debug for Uac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uac with {} calls", self.legs.len())
    }
}

impl Uac {
    /// A caller without calls.
    pub fn new(config: EndpointConfig) -> Self {
        let endpoint = Endpoint::new(config);
        Uac { endpoint, legs: BTreeMap::new(), last: 0, secret: None, challenge: None }
    }

    /// Answers challenges from now on (RFC 3261 §22).
    pub fn set_secret(&mut self, secret: Secret) {
        self.secret = Some(secret);
    }

    /// The headers with credentials, once a challenge has come.
    fn authorised(
        &mut self,
        method: &str,
        uri: &str,
        headers: &[(String, String)],
    ) -> Vec<(String, String)> {
        let mut all = headers.to_vec();
        if let (Some(secret), Some((challenge, count))) = (&self.secret, &mut self.challenge) {
            *count += 1;
            let cnonce = self.endpoint.token();
            let answer = challenge.answer(secret, (method, uri), (*count, &cnonce));
            all.push(("Authorization".to_owned(), answer));
        }
        all
    }

    /// Takes the challenge of a 401. False: there is none that we can answer.
    fn take_challenge(&mut self, message: &Message) -> bool {
        // The first that we know is the strongest (RFC 8760 §2.4).
        let found = message.headers.all("WWW-Authenticate").find_map(Challenge::parse);
        let known = self.secret.is_some() && message.code() == Some(401);
        match found.filter(|_| known) {
            Some(challenge) => {
                // Two requests that were challenged at once may have got the same nonce.
                let known = self.challenge.as_ref().filter(|(own, _)| own.nonce == challenge.nonce);
                let count = known.map_or(0, |(_, count)| *count);
                self.challenge = Some((challenge, count));
                true
            }
            None => false,
        }
    }

    /// Places a call. The INVITE is repeated over UDP and acknowledged when answered.
    pub fn call(&mut self, now: Mono, invite: &Invite) -> Option<CallRef> {
        let mut sent = invite.clone();
        sent.headers = self.authorised("INVITE", &invite.uri, &invite.headers);
        let txn = self.endpoint.invite(now, &sent)?;
        let contact = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("Contact");
        self.last += 1;
        let call = CallRef(self.last);
        self.legs.insert(
            call,
            Leg {
                invite: txn,
                sip_call_id: self.endpoint.call_id(txn).unwrap_or("").to_owned(),
                contact: invite.headers.iter().filter(contact).cloned().collect(),
                dialog: None,
                bye: None,
                unwanted: false,
                request: invite.clone(),
                outline: self.endpoint.outline(txn),
                challenged: false,
            },
        );
        Some(call)
    }

    /// The Call-ID header value of a call.
    pub fn call_id(&self, call: CallRef) -> Option<&str> {
        self.legs.get(&call).map(|leg| &*leg.sip_call_id)
    }

    /// Calls that are not over.
    pub fn calls(&self) -> usize {
        self.legs.len()
    }

    /// Sends a re-INVITE, UPDATE, INFO or OPTIONS in a call. `None` while it is not answered, and
    /// as [`Endpoint::request`] says.
    pub fn request(
        &mut self,
        now: Mono,
        call: CallRef,
        method: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Option<ClientTxnId> {
        let dialog = self.legs.get(&call)?.dialog?;
        self.ask(now, dialog, method, headers, body)
    }

    fn ask(
        &mut self,
        now: Mono,
        dialog: DialogId,
        method: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Option<ClientTxnId> {
        let (uri, _) = self.endpoint.snapshot(dialog)?.routing();
        let headers = self.authorised(method, &uri, headers);
        self.endpoint.request(now, dialog, method, &headers, body)
    }

    /// Answers an [`UacOutput::Offer`].
    pub fn respond(&mut self, now: Mono, txn: TxnId, reply: Reply) {
        self.endpoint.respond(now, txn, reply);
    }

    /// Ends a call: BYE, or CANCEL as soon as that is allowed. `headers` and `body` go into the
    /// BYE. [`UacOutput::Ended`], `Refused` or `Failed` follows.
    pub fn hang_up(&mut self, now: Mono, call: CallRef, headers: &[(String, String)], body: &[u8]) {
        let Some(leg) = self.legs.get_mut(&call).filter(|leg| leg.bye.is_none()) else { return };
        match leg.dialog {
            Some(dialog) => {
                let bye = self.ask(now, dialog, "BYE", headers, body);
                if let Some(leg) = self.legs.get_mut(&call) {
                    leg.bye = bye;
                }
            }
            None => {
                leg.unwanted = true;
                self.endpoint.cancel(now, leg.invite);
            }
        }
    }

    /// Takes an input.
    pub fn handle(&mut self, now: Mono, input: Input<'_>) {
        self.endpoint.handle(now, input);
    }

    /// When [`Input::Tick`] is wanted at the latest.
    pub fn next_timeout(&self) -> Option<Mono> {
        self.endpoint.next_timeout()
    }

    /// The next thing to be done. `now`: as in the last call.
    pub fn poll(&mut self, now: Mono) -> Option<UacOutput> {
        loop {
            let output = match self.endpoint.poll()? {
                Output::Transmit { target, bytes } => Some(UacOutput::Transmit { target, bytes }),
                Output::Disconnect { conn } => Some(UacOutput::Disconnect { conn }),
                Output::Request(request) => self.requested(now, request),
                Output::Response { request, dialog, message } => {
                    self.responded(now, request, dialog, message)
                }
                Output::RequestFailed { request, dialog, why } => self.failed(request, dialog, why),
                // Offers of the peer in a 2xx of ours are acknowledged without a body.
                Output::Acked { .. }
                | Output::Cancelled { .. }
                | Output::AckUnknown { .. }
                | Output::Intruder { .. } => None,
                Output::AckMissing { dialog } => {
                    if let Some(call) = self.of_dialog(dialog) {
                        self.hang_up(now, call, &[], &[]);
                    }
                    None
                }
            };
            if output.is_some() {
                return output;
            }
        }
    }

    fn of_dialog(&self, dialog: DialogId) -> Option<CallRef> {
        self.legs.iter().find(|(_, leg)| leg.dialog == Some(dialog)).map(|(call, _)| *call)
    }

    fn of_request(&self, request: ClientTxnId, dialog: Option<DialogId>) -> Option<CallRef> {
        let own = |leg: &Leg| {
            leg.invite == request
                || leg.bye == Some(request)
                || (dialog.is_some() && leg.dialog == dialog)
        };
        self.legs.iter().find(|(_, leg)| own(leg)).map(|(call, _)| *call)
    }

    fn requested(&mut self, now: Mono, request: IncomingRequest) -> Option<UacOutput> {
        let IncomingRequest { txn, dialog, message, .. } = request;
        let method = message.method().unwrap_or("").to_owned();
        let Some(call) = dialog.and_then(|dialog| self.of_dialog(dialog)) else {
            // A caller takes no calls (RFC 3261 §21.4.18).
            let code = if method == "OPTIONS" { 200 } else { 480 };
            self.endpoint.respond(now, txn, Reply::new(code));
            return None;
        };
        if offers(&message, &method) {
            return Some(UacOutput::Offer { call, txn, message });
        }
        let headers = self.legs.get(&call).map(|leg| leg.contact.clone()).unwrap_or_default();
        self.endpoint.respond(now, txn, Reply { headers, ..Reply::new(200) });
        if method == "BYE" {
            self.legs.remove(&call);
            return Some(UacOutput::Ended { call, by_peer: true });
        }
        Some(UacOutput::Told { call, message })
    }

    fn responded(
        &mut self,
        now: Mono,
        request: ClientTxnId,
        dialog: Option<DialogId>,
        message: Message,
    ) -> Option<UacOutput> {
        let code = message.code().unwrap_or(0);
        let call = self.of_request(request, dialog)?;
        if code == 401 && self.answer_challenge(now, call, request, &message) {
            return None;
        }
        let leg = self.legs.get_mut(&call)?;
        if leg.bye == Some(request) {
            return (code >= 200).then(|| self.over(call)).flatten();
        }
        if leg.invite != request {
            return (code >= 200).then_some(UacOutput::Response { call, request, message });
        }
        if code < 200 {
            return Some(UacOutput::Progress { call, code });
        }
        if code >= 300 {
            self.legs.remove(&call);
            return Some(UacOutput::Refused { call, message });
        }
        leg.dialog = dialog;
        leg.challenged = false;
        if leg.unwanted {
            // RFC 3261 §9.1: the answer was faster than the CANCEL.
            self.hang_up(now, call, &[], &[]);
            return None;
        }
        Some(UacOutput::Answered { call, message })
    }

    /// Says an INVITE or BYE again with credentials, once. False: that would not help.
    fn answer_challenge(
        &mut self,
        now: Mono,
        call: CallRef,
        request: ClientTxnId,
        message: &Message,
    ) -> bool {
        let Some(leg) = self.legs.get(&call) else { return false };
        let is_bye = leg.bye == Some(request);
        let wanted = is_bye || leg.invite == request && !leg.unwanted;
        let again = wanted && !leg.challenged;
        // What is not said again at least lets the next one be right.
        if !self.take_challenge(message) || !again {
            return false;
        }
        let Some(leg) = self.legs.get(&call) else { return false };
        let again = match (leg.dialog, is_bye) {
            (Some(dialog), true) => self.ask(now, dialog, "BYE", &[], &[]),
            _ => {
                let mut invite = leg.request.clone();
                let headers = std::mem::take(&mut invite.headers);
                invite.headers = self.authorised("INVITE", &invite.uri, &headers);
                let before = self.legs.get(&call).and_then(|leg| leg.outline.clone());
                let Some(before) = before else { return false };
                self.endpoint.invite_again(now, before, &invite)
            }
        };
        let (Some(again), Some(leg)) = (again, self.legs.get_mut(&call)) else { return false };
        leg.challenged = true;
        if is_bye {
            leg.bye = Some(again);
        } else {
            leg.invite = again;
        }
        true
    }

    fn failed(
        &mut self,
        request: ClientTxnId,
        dialog: Option<DialogId>,
        why: Failure,
    ) -> Option<UacOutput> {
        // A CANCEL belongs to no call: the INVITE's own end tells what became of it.
        let call = self.of_request(request, dialog)?;
        let leg = self.legs.get(&call)?;
        if leg.bye == Some(request) {
            return self.over(call);
        }
        if leg.invite != request {
            return Some(UacOutput::RequestFailed { call, request, why });
        }
        self.legs.remove(&call);
        Some(UacOutput::Failed { call, why })
    }

    fn over(&mut self, call: CallRef) -> Option<UacOutput> {
        let leg = self.legs.remove(&call)?;
        if let Some(dialog) = leg.dialog {
            self.endpoint.close(dialog);
        }
        Some(UacOutput::Ended { call, by_peer: false })
    }
}
