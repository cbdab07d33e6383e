//! Dialogs (RFC 3261 §12).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::event::{ClientTxnId, TxnId};
use super::server::ServerTxn;
use super::target::{ConnId, Hop, Target, Transport};
use crate::wire::sip::{Header, Message, NameAddr, Uri, without_tag};

/// A request of the peer that got a 2xx: what its answer repeats of it (RFC 3261 §8.2.6.2), so that
/// a restarted process can say that answer again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Its method.
    pub method: String,
    /// Its CSeq number.
    pub cseq: u32,
    /// Its Via fields, topmost first.
    pub via: Vec<String>,
    /// Its Record-Route fields.
    pub record_route: Vec<String>,
}

impl Answered {
    fn of(request: &Message) -> Answered {
        let fields = |name| {
            let raw = request.headers.fields(name).map(Header::raw);
            raw.map(|raw| String::from_utf8_lossy(raw).into_owned()).collect()
        };
        Answered {
            method: request.method().unwrap_or("").to_owned(),
            cseq: request.cseq().map_or(0, |cseq| cseq.number),
            via: fields("Via"),
            record_route: fields("Record-Route"),
        }
    }
}

/// Whether the sender takes a method; `None` where it does not say what it takes.
pub(super) fn allows(message: &Message, method: &str) -> Option<bool> {
    message.headers.get("Allow")?;
    Some(message.headers.list("Allow").any(|own| own.eq_ignore_ascii_case(method)))
}

/// All that a restarted process needs to go on with a dialog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialogSnapshot {
    /// Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The peer's tag; empty for a peer of RFC 2543.
    pub remote_tag: String,
    /// Our From/To value without tag.
    pub local_uri: String,
    /// The peer's From/To value without tag.
    pub remote_uri: String,
    /// The peer's Contact URI.
    pub remote_target: String,
    /// Route set, in the order in which we use it.
    pub route_set: Vec<String>,
    /// CSeq of our last request; 0 before the first.
    pub local_cseq: u32,
    /// CSeq of the peer's last request.
    pub remote_cseq: u32,
    /// Transport of the last request taken.
    pub transport: Transport,
    /// Where it came from.
    pub peer: SocketAddr,
    /// Which of our addresses took it.
    pub local: SocketAddr,
    /// Who made the dialog, where TLS says so. Requests in it are taken from nobody else (F61).
    pub identity: Option<String>,
    /// The user who made it, where digest says so; the same holds.
    pub user: Option<String>,
    /// The peer's last request that got a 2xx.
    pub answered: Option<Answered>,
    /// The peer takes UPDATE, as its last Allow says (RFC 3311 §4).
    #[serde(default)]
    pub update: bool,
    /// The peer takes no INVITE from us, as its last Allow says; a restart forgets it.
    #[serde(default)]
    pub refuses_invite: bool,
}

impl DialogSnapshot {
    /// The dialog that a 2xx to this INVITE makes (RFC 3261 §12.1.1).
    pub(super) fn of_server(txn: &ServerTxn) -> DialogSnapshot {
        let headers = &txn.request.headers;
        let from = txn.request.from().unwrap_or_default();
        DialogSnapshot {
            call_id: txn.request.call_id().unwrap_or("").to_owned(),
            local_tag: txn.tag.clone(),
            remote_tag: from.tag().unwrap_or("").to_owned(),
            local_uri: without_tag(headers.get("To").unwrap_or("")),
            remote_uri: without_tag(headers.get("From").unwrap_or("")),
            // An INVITE without Contact is broken, but its From is better than no recording.
            remote_target: txn.request.contact().map_or(from.uri, |contact| contact.uri),
            route_set: headers.list("Record-Route").map(str::to_owned).collect(),
            local_cseq: 0,
            remote_cseq: txn.request.cseq().map_or(0, |cseq| cseq.number),
            transport: txn.hop.transport(),
            peer: txn.hop.peer,
            local: txn.hop.local,
            identity: txn.identity.clone(),
            user: txn.user.clone(),
            answered: Some(Answered::of(&txn.request)),
            update: allows(&txn.request, "UPDATE").unwrap_or(false),
            refuses_invite: allows(&txn.request, "INVITE") == Some(false),
        }
    }

    /// Takes over what an accepted request changes: its way, and for a target refresh its Contact
    /// (RFC 3261 §12.2.2).
    pub(super) fn accept(&mut self, message: &Message, hop: &Hop) {
        (self.transport, self.peer, self.local) = (hop.transport(), hop.peer, hop.local);
        self.answered = Some(Answered::of(message));
        self.refresh(message);
    }

    /// Takes the Contact of a target refresh request or its 2xx.
    pub(super) fn refresh(&mut self, message: &Message) {
        self.update = allows(message, "UPDATE").unwrap_or(self.update);
        let invite = allows(message, "INVITE");
        self.refuses_invite = invite.map_or(self.refuses_invite, |takes| !takes);
        let method = message.cseq().map(|cseq| cseq.method).unwrap_or_default();
        let contact = message.contact().filter(|contact| contact.uri != "*");
        if let ("INVITE" | "UPDATE", Some(contact)) = (&*method, contact) {
            self.remote_target = contact.uri;
        }
    }

    /// Whether a request by `hop` from `identity` comes from the one who made the dialog. Without a
    /// certificate the only thing known is whether it was made over TLS: then its tags, which only
    /// its two ends know, are no secret to those who hear clear signalling.
    pub(super) fn is_owned_by(&self, hop: &Hop, identity: Option<&str>) -> bool {
        match &self.identity {
            Some(own) => identity == Some(own),
            None => self.transport != Transport::Tls || hop.transport() == Transport::Tls,
        }
    }

    /// What requests and their lookups are keyed by.
    pub(super) fn key(&self) -> (String, String, String) {
        (self.call_id.clone(), self.local_tag.clone(), self.remote_tag.clone())
    }

    /// Request-URI and Route values (RFC 3261 §12.2.1.1).
    pub(super) fn routing(&self) -> (String, Vec<String>) {
        let Some(first) = self.route_set.first().and_then(|route| NameAddr::parse(route)) else {
            return (self.remote_target.clone(), Vec::new());
        };
        if first.parts().is_some_and(|uri| uri.params.has("lr")) {
            return (self.remote_target.clone(), self.route_set.clone());
        }
        // A strict router takes the place of the Request-URI; the target goes to the end.
        let mut routes = self.route_set[1..].to_vec();
        routes.push(format!("<{}>", self.remote_target));
        (first.uri, routes)
    }

    /// Where requests go. A next hop that is an address is followed; a name cannot be resolved
    /// here, so its requests go where the peer's came from. `conn`: the open connection, if any.
    pub(super) fn target(&self, conn: Option<ConnId>) -> Target {
        let (local, peer) = (self.local, self.peer);
        let secure = self.transport == Transport::Tls;
        if let (true, Some(conn)) = (self.transport.is_stream(), conn) {
            return Target::Stream { conn, peer, local, secure };
        }
        let route = self.route_set.first().and_then(|route| NameAddr::parse(route));
        let hop = route.map_or_else(|| Uri::parse(&self.remote_target), |route| route.parts());
        let address = hop.as_ref().and_then(Uri::socket_addr);
        let address = address.filter(|address| {
            !address.ip().is_unspecified() && address.is_ipv4() == local.is_ipv4()
        });
        match self.transport {
            Transport::Udp => Target::Udp { local, peer: address.unwrap_or(peer) },
            Transport::Tcp | Transport::Tls => {
                // The source port of a connection is no place to call back to. A `sip:` URI without
                // port that came over TLS means the port of TLS all the same.
                let port = hop.and_then(|uri| uri.port).unwrap_or(self.transport.port());
                let fallback = SocketAddr::new(peer.ip(), port);
                let named = address.map(|address| SocketAddr::new(address.ip(), port));
                Target::Dial { local, peer: named.unwrap_or(fallback), secure }
            }
        }
    }
}

/// A dialog at work.
#[derive(Debug)]
pub(super) struct Dialog {
    pub(super) snapshot: DialogSnapshot,
    pub(super) conn: Option<ConnId>,
    /// Our 2xx that waits for its ACK: CSeq of the INVITE and its transaction.
    pub(super) unacked: Option<(u32, TxnId)>,
    /// The peer's INVITE or UPDATE that has no final response yet.
    pub(super) asked: Option<TxnId>,
    /// Our INVITE or UPDATE that has no final response yet.
    pub(super) asking: Option<ClientTxnId>,
    /// The peer takes no streams: whatever we send goes in datagrams.
    pub(super) datagrams_only: bool,
}

impl Dialog {
    pub(super) fn new(snapshot: DialogSnapshot, conn: Option<ConnId>) -> Self {
        Dialog { snapshot, conn, unacked: None, asked: None, asking: None, datagrams_only: false }
    }
}
