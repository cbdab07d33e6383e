//! What goes into an endpoint and what comes out.

use std::fmt;
use std::net::SocketAddr;

use super::target::{ConnId, Outside, Target, Transport};
use crate::base::limits::SIP_STREAM_MESSAGE_BYTES_MAX;
use crate::wire::sip::Message;

/// A server transaction: a request that waits for [`respond`](super::Endpoint::respond).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxnId(pub u64);

/// A request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientTxnId(pub u64);

/// A dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialogId(pub u64);

/// Settings of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Seed of tags, branches and Call-IDs: unpredictable in production (RFC 3261 §19.3).
    pub seed: u64,
    /// Value of Server and User-Agent.
    pub user_agent: String,
    /// Methods taken; others get 405 or 501.
    pub allow: Vec<String>,
    /// Largest message over a stream, bytes.
    pub message_bytes_max: usize,
    /// Whether a request that is too large for a datagram goes over a stream (RFC 3261 §18.1.1): not
    /// where whoever owns the sockets can open none.
    pub streams_for_large: bool,
    /// Whether whatever goes over a stream goes over one connection, to whichever address, which
    /// whoever owns the sockets makes again when it falls. What had no final answer by then goes over
    /// the next one as it was, until timer B or F ends it.
    pub one_connection: bool,
    /// Retry-After of a 503 for want of room here, seconds.
    pub retry_after_s: u32,
    /// What stands for our addresses in Via of our requests. Answers come back by `received` and `rport`
    /// (RFC 3581) where that is not where we are.
    pub outside: Vec<Outside>,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        let allow = ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "UPDATE", "INFO"];
        EndpointConfig {
            seed: 0,
            user_agent: "Floortape".to_owned(),
            allow: allow.map(str::to_owned).to_vec(),
            message_bytes_max: SIP_STREAM_MESSAGE_BYTES_MAX,
            streams_for_large: false,
            one_connection: false,
            retry_after_s: 5,
            outside: Vec::new(),
        }
    }
}

/// The other end of a TLS connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsPeer<'a> {
    /// Whom its certificate names, once its chain has been verified (RFC 5922); `None` where it
    /// showed none.
    pub identity: Option<&'a str>,
}

/// What happened outside.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// A datagram arrived.
    Datagram {
        /// Our address, as specific as known.
        local: SocketAddr,
        /// Sender.
        peer: SocketAddr,
        /// Payload.
        bytes: &'a [u8],
    },
    /// A connection was accepted, or one of ours opened.
    Connected {
        /// Its number, not used before.
        conn: ConnId,
        /// Our end.
        local: SocketAddr,
        /// The other end.
        peer: SocketAddr,
        /// What TLS says of the other end; `None` without TLS.
        tls: Option<TlsPeer<'a>>,
    },
    /// Bytes came over a connection.
    Stream {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A connection ended, from whichever side.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// A [`Target::Dial`] failed.
    Unreachable {
        /// Where to.
        peer: SocketAddr,
        /// Whether TLS was wanted.
        secure: bool,
    },
    /// Time passed: [`next_timeout`](super::Endpoint::next_timeout) is reached.
    Tick,
}

/// A request that must be answered by [`respond`](super::Endpoint::respond).
#[derive(Clone, Debug)]
pub struct IncomingRequest {
    /// To answer it by.
    pub txn: TxnId,
    /// Its dialog; `None` outside of one.
    pub dialog: Option<DialogId>,
    /// The request.
    pub message: Message,
    /// Sender.
    pub peer: SocketAddr,
    /// Our address.
    pub local: SocketAddr,
    /// Transport it came by.
    pub transport: Transport,
    /// Whom TLS says that it is from.
    pub identity: Option<String>,
    /// The user that digest says that it is from.
    pub user: Option<String>,
}

/// An answer. The endpoint adds Via, From, To with its tag, Call-ID, CSeq, Record-Route, Server
/// and Content-Length.
#[derive(Clone, Default)]
pub struct Reply {
    /// 101 to 699.
    pub code: u16,
    /// Reason phrase, where the registered one does not do.
    pub reason: Option<String>,
    /// Further header fields: Contact, Content-Type, …
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Bodies carry SDES keys; they never reach a log.
        f.debug_struct("Reply").field("code", &self.code).finish_non_exhaustive()
    }
}

impl Reply {
    /// An answer without anything.
    pub fn new(code: u16) -> Self {
        Reply { code, ..Reply::default() }
    }

    /// Adds a header field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// Why a request of ours got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 64·T1 passed (timers B and F).
    Timeout,
    /// Its connection closed or could not be opened.
    Transport,
}

/// What is to be done.
pub enum Output {
    /// Send bytes.
    Transmit {
        /// Where to.
        target: Target,
        /// One message, whole.
        bytes: Vec<u8>,
    },
    /// Close a connection once all that was sent is out.
    Disconnect {
        /// The connection; `Closed` need not be reported.
        conn: ConnId,
    },
    /// A request to be answered.
    Request(IncomingRequest),
    /// The CANCEL of this INVITE came and has its 200: answer the INVITE with 487 (RFC 3261 §9.2).
    Cancelled {
        /// The INVITE.
        txn: TxnId,
    },
    /// The 2xx to an INVITE arrived.
    Acked {
        /// Its dialog.
        dialog: DialogId,
        /// The ACK, which may carry an answer.
        message: Message,
    },
    /// No ACK within 64·T1: end the session by BYE (RFC 3261 §13.3.1.4).
    AckMissing {
        /// Its dialog.
        dialog: DialogId,
    },
    /// No ACK came to a 2xx of before the restart within 64·T1; it may have come before.
    AckUnknown {
        /// The dialog.
        dialog: DialogId,
    },
    /// A request within a dialog that did not come from the one who made it: it has got 403, and
    /// nothing else has changed (F61).
    Intruder {
        /// The dialog.
        dialog: DialogId,
        /// Its method.
        method: String,
        /// Who sent it.
        peer: SocketAddr,
        /// Whom TLS says that it is from.
        identity: Option<String>,
    },
    /// A response to a request of ours; 100 is left out.
    Response {
        /// The request.
        request: ClientTxnId,
        /// Its dialog; for an initial INVITE from the 2xx on.
        dialog: Option<DialogId>,
        /// The response.
        message: Message,
    },
    /// A request of ours will get no response any more.
    RequestFailed {
        /// The request.
        request: ClientTxnId,
        /// Its dialog.
        dialog: Option<DialogId>,
        /// Why.
        why: Failure,
    },
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies carry keys: only the start line is shown.
        match self {
            Output::Transmit { target, bytes } => {
                let start = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
                write!(f, "Transmit {} to {target:?}", String::from_utf8_lossy(start))
            }
            Output::Disconnect { conn } => write!(f, "Disconnect {conn:?}"),
            Output::Request(request) => request.fmt(f),
            Output::Cancelled { txn } => write!(f, "Cancelled {txn:?}"),
            Output::Acked { dialog, .. } => write!(f, "Acked {dialog:?}"),
            Output::AckMissing { dialog } => write!(f, "AckMissing {dialog:?}"),
            Output::AckUnknown { dialog } => write!(f, "AckUnknown {dialog:?}"),
            Output::Intruder { dialog, method, peer, .. } => {
                write!(f, "Intruder {dialog:?} {method} from {peer}")
            }
            Output::Response { request, dialog, message } => {
                write!(f, "Response {request:?} {dialog:?} {message:?}")
            }
            Output::RequestFailed { request, dialog, why } => {
                write!(f, "RequestFailed {request:?} {dialog:?} {why:?}")
            }
        }
    }
}
