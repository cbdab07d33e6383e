//! Server transactions (RFC 3261 §17.2 with RFC 6026).

use super::event::DialogId;
use super::target::{Hop, Target};
use super::timer::{Deadlines, LIFE_MS, T1_MS, T2_MS, T4_MS};
use crate::base::time::Mono;
use crate::wire::sip::{Headers, Message, StartLine, Via};

/// What a request is matched by (RFC 3261 §17.2.3). Branches of RFC 3261 peers are unique; for
/// older ones, and for the cookie with nothing behind it, all that a retransmission repeats is taken
/// together.
pub(super) fn match_key(message: &Message, via: &Via, method: &str) -> String {
    match via.branch() {
        Some(branch)
            if branch.len() > 7
                && branch.get(..7).is_some_and(|c| c.eq_ignore_ascii_case("z9hG4bK")) =>
        {
            let port = via.port.unwrap_or(5_060);
            format!("{branch} {}:{port} {method}", via.host.to_ascii_lowercase())
        }
        _ => {
            let from = message.from();
            let tag = from.as_ref().and_then(|from| from.tag()).unwrap_or("");
            let number = message.cseq().map_or(0, |cseq| cseq.number);
            let top = message.headers.list("Via").next().unwrap_or("");
            let uri = message.uri().unwrap_or("");
            format!("{uri} {tag} {} {number} {top} {method}", message.call_id().unwrap_or(""))
        }
    }
}

/// What tells two arrivals of one request by different ways (RFC 3261 §8.2.2.2), and a
/// retransmission from before a restart.
pub(super) fn merge_key(message: &Message) -> String {
    let from = message.from();
    let tag = from.as_ref().and_then(|from| from.tag()).unwrap_or("");
    let cseq = message.cseq();
    let number = cseq.as_ref().map_or(0, |cseq| cseq.number);
    let method = cseq.as_ref().map_or("", |cseq| &cseq.method);
    request_key(message.call_id().unwrap_or(""), tag, number, method)
}

/// See [`merge_key`].
pub(super) fn request_key(call_id: &str, tag: &str, cseq: u32, method: &str) -> String {
    format!("{call_id} {tag} {cseq} {method}")
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No final response yet.
    Proceeding,
    /// Final response sent; for an INVITE other than 2xx.
    Completed,
    /// Its ACK came.
    Confirmed,
    /// INVITE answered by 2xx (RFC 6026 §7.1).
    Accepted,
}

/// One transaction.
#[derive(Debug)]
pub(super) struct ServerTxn {
    pub(super) key: String,
    pub(super) merge: String,
    /// Head of the request, until it is answered for good; the body is gone to control.
    pub(super) request: Message,
    pub(super) via: Via,
    pub(super) hop: Hop,
    /// Whom TLS says that it is from.
    pub(super) identity: Option<String>,
    /// The user that digest says that it is from.
    pub(super) user: Option<String>,
    /// Our tag in every response.
    pub(super) tag: String,
    pub(super) dialog: Option<DialogId>,
    pub(super) state: State,
    /// Last response sent.
    pub(super) last: Vec<u8>,
    pub(super) acked: bool,
    pub(super) cancelled: bool,
    pub(super) deadlines: Deadlines,
    pub(super) armed: Option<Mono>,
    /// Of its bytes, what the endpoint has counted.
    pub(super) counted: usize,
}

/// What a deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Send the last response again.
    Repeat,
    /// Send 100: the final response takes longer.
    Trying,
    /// Forget the transaction.
    End,
    /// Forget it and say that no ACK came.
    EndUnacked,
}

impl ServerTxn {
    pub(super) fn method(&self) -> &str {
        self.request.method().unwrap_or("")
    }

    /// The head of the request; of what is left of it only the method is known.
    pub(super) fn take_request(&mut self) -> Message {
        let method = self.method().to_owned();
        let start = StartLine::Request { method, uri: String::new() };
        let left = Message { start, headers: Headers::default(), body: Vec::new() };
        std::mem::replace(&mut self.request, left)
    }

    /// Bytes that it keeps: the head of the request, its keys, which repeat parts of that, and the
    /// answer.
    pub(super) fn bytes(&self) -> usize {
        /// A field's place in the list of fields.
        const FIELD_BYTES: usize = 64;
        let fields = self.request.headers.iter();
        let head: usize =
            fields.map(|field| field.name().len() + field.raw().len() + FIELD_BYTES).sum();
        let uri = self.request.uri().map_or(0, str::len);
        // Each key stands in a map as well.
        let keys = 2 * (self.key.len() + self.merge.len());
        size_of::<Self>() + head + uri + keys + self.last.capacity()
    }

    pub(super) fn is_invite(&self) -> bool {
        self.method() == "INVITE"
    }

    /// Takes note of a final response. Returns whether the transaction is over at once.
    pub(super) fn finish(&mut self, now: Mono, code: u16, target: Target) -> bool {
        let reliable = target.is_reliable();
        let retransmission =
            Deadlines { again: Some(now.plus_ms(T1_MS)), interval_ms: T1_MS, end: None };
        let life = Some(now.plus_ms(LIFE_MS));
        if !self.is_invite() {
            // Timer J.
            self.state = State::Completed;
            self.deadlines = Deadlines { end: life, ..Deadlines::default() };
            return reliable;
        }
        if (200..300).contains(&code) {
            // RFC 3261 §13.3.1.4: the 2xx is repeated over any transport. Timer L.
            self.state = State::Accepted;
            self.deadlines = Deadlines { end: life, ..retransmission };
        } else {
            // Timers G (unreliable transports only) and H.
            self.state = State::Completed;
            let repeat = if reliable { Deadlines::default() } else { retransmission };
            self.deadlines = Deadlines { end: life, ..repeat };
        }
        false
    }

    /// The ACK of a final response came. Returns whether the transaction is over at once.
    pub(super) fn acknowledge(&mut self, now: Mono) -> bool {
        self.acked = true;
        self.deadlines.again = None;
        if self.state != State::Completed {
            return false;
        }
        // Timer I.
        self.state = State::Confirmed;
        self.deadlines.end = Some(now.plus_ms(T4_MS));
        self.hop.conn.is_some()
    }

    /// A deadline came.
    pub(super) fn expire(&mut self, now: Mono) -> Due {
        if self.deadlines.ended(now) {
            let unacked = self.state == State::Accepted && !self.acked;
            return if unacked { Due::EndUnacked } else { Due::End };
        }
        if self.state == State::Proceeding {
            return match self.deadlines.again.take_if(|due| *due <= now) {
                Some(_) => Due::Trying,
                None => Due::Nothing,
            };
        }
        if self.deadlines.repeat(now, T2_MS) { Due::Repeat } else { Due::Nothing }
    }
}
