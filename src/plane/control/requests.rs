//! Which request goes where, and the answers that need no session.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::actor::Control;
use super::admission::RETRY_AFTER_S;
use super::effect::Grave;
use super::selection::Veil;
use crate::base::family::Family;
use crate::base::ids::RsId;
use crate::config::model::Sip;
use crate::proto::sip::{DialogSnapshot, IncomingRequest, Outside, Reply, Transport, TxnId};
use crate::store::journal::entry::Entry;
use crate::wire::multipart::{self, Part};
use crate::wire::sdes::blank_keys;
use crate::wire::sip::Message;

/// What we take as bodies: both labels of the metadata type (RFC 9806).
pub(super) const ACCEPT: &str =
    "application/sdp, application/rs-metadata+xml, application/rs-metadata, multipart/mixed";
/// Methods of a dialog with us.
pub(super) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO";

impl Control {
    /// A request that the endpoint wants answered.
    pub(super) fn requested(&mut self, request: IncomingRequest) {
        if let Some(refusal) = self.general(&request).or_else(|| self.forbidden(&request)) {
            return self.reply(request.txn, refusal);
        }
        self.dispatch(&request);
    }

    /// Does what a request asks for.
    pub(super) fn dispatch(&mut self, request: &IncomingRequest) {
        let method = request.message.method().unwrap_or("").to_owned();
        let rs = request.dialog.and_then(|dialog| self.dialogs.get(&dialog).copied());
        match (&*method, rs) {
            // A dialog whose RS we have ended is over, whatever the SRC still sends in it.
            ("OPTIONS", _) => self.options(request),
            (_, None) if request.dialog.is_some() => {
                if !self.called_asks(request) {
                    self.reply(request.txn, Reply::new(481));
                }
            }
            ("INVITE", None) => self.initial_invite(request),
            ("INVITE" | "UPDATE", Some(rs)) => self.changed(rs, request),
            ("BYE", Some(rs)) => self.bye(rs, request),
            ("INFO", Some(rs)) => self.informed(rs, request),
            (_, Some(_)) => self.reply(request.txn, Reply::new(501)),
            ("UPDATE" | "BYE" | "INFO", None) => self.reply(request.txn, Reply::new(481)),
            _ => self.reply(request.txn, Reply::new(405).with("Allow", ALLOW)),
        }
    }

    /// Says what an INVITE would get (RFC 3261 §11.2, rule 9).
    fn options(&mut self, request: &IncomingRequest) {
        if self.park(request, None) {
            return;
        }
        let reply = match self.admission.obstacle(self.slots.used(), self.slots.free(), 1) {
            Some(why) => self.unavailable(&why),
            None => Reply::new(200),
        };
        let reply = self.with_capabilities(reply, request);
        self.reply(request.txn, reply);
    }

    /// The INVITE was cancelled: no RS (RFC 3261 §9.2).
    pub(super) fn cancelled(&mut self, txn: TxnId) {
        if self.cancel_parked(txn) {
            return;
        }
        if let Some(job) = self.job_of(txn) {
            job.reply = Some(Reply::new(487));
            self.refuse_job(txn, "cancelled by the SRC");
        }
    }

    pub(super) fn reply(&mut self, txn: TxnId, reply: Reply) {
        self.sip.respond(self.now.mono, txn, reply);
    }

    /// 503 with the reason in words; the SRC may try again or elsewhere.
    pub(super) fn unavailable(&self, why: &str) -> Reply {
        Reply::new(503)
            .with("Retry-After", RETRY_AFTER_S.to_string())
            .with("Warning", format!("399 floortape \"{}\"", why.replace(['"', '\\'], "'")))
    }

    /// Contact with the feature tag that makes us an SRS (RFC 7866 §6.2), and what we take.
    pub(super) fn with_capabilities(&self, reply: Reply, request: &IncomingRequest) -> Reply {
        let contact = request.message.contact().map(|contact| contact.uri);
        let uri = request.message.uri().unwrap_or("");
        let sips = is_sips(uri) || contact.is_some_and(|uri| is_sips(&uri));
        self.capable(reply, request.local, request.transport, sips)
    }

    /// The same for a dialog that came by `local` and `transport`. `sips`: for a `sips:` URI, whose
    /// dialog keeps to that scheme (RFC 3261 §12.1.1).
    pub(super) fn capable(
        &self,
        reply: Reply,
        local: SocketAddr,
        transport: Transport,
        sips: bool,
    ) -> Reply {
        reply
            .with("Contact", self.contact(local, transport, sips))
            .with("Allow", ALLOW)
            .with("Accept", ACCEPT)
            .with("Supported", "siprec, timer")
    }

    /// The same for a request of ours in a dialog.
    pub(super) fn capable_in(&self, dialog: &DialogSnapshot) -> Reply {
        let sips = is_sips(&dialog.remote_target);
        self.capable(Reply::default(), dialog.local, dialog.transport, sips)
    }

    /// Our Contact for a dialog.
    fn contact(&self, local: SocketAddr, transport: Transport, sips: bool) -> String {
        let mut address = local;
        if address.ip().is_unspecified()
            && let Some(own) = self.config.media.own(Family::of(local.ip()))
        {
            address.set_ip(own);
        }
        let address = Outside::of(&outside(&self.config.sip), address);
        let (scheme, transport) = match transport {
            Transport::Tls if sips => ("sips", ""),
            Transport::Udp => ("sip", ""),
            Transport::Tcp => ("sip", ";transport=tcp"),
            Transport::Tls => ("sip", ";transport=tls"),
        };
        format!("<{scheme}:floortape@{address}{transport}>;+sip.srs")
    }

    /// The parts of a body; a bare body is one part.
    pub(super) fn parts(message: &Message) -> Result<Vec<Part>, multipart::MultipartError> {
        if message.body.is_empty() {
            return Ok(Vec::new());
        }
        let content_type = message.headers.get("Content-Type").unwrap_or("application/sdp");
        let mut parts = multipart::parse(content_type, &message.body)?;
        if let (Some(value), [part]) = (message.headers.get("Content-Disposition"), &mut *parts)
            && part.disposition.is_none()
        {
            part.set_disposition(value);
        }
        Ok(parts)
    }

    /// Journal entries of a message's bodies, keys blanked, and of what the policy does not want what
    /// `veil` leaves. Unreadable containers are kept whole.
    pub(super) fn bodies(&mut self, rs: RsId, message: &Message, veil: Veil<'_>) -> Vec<Entry> {
        let parts = Self::parts(message).unwrap_or_else(|fault| {
            self.log(Grave::Warn, format!("{rs}: body kept as received: {fault}"));
            let content_type = message.headers.get("Content-Type").unwrap_or("");
            vec![Part::new(content_type, None, message.body.clone())]
        });
        self.bodies_of(rs, message, &parts, veil)
    }

    /// The same of one that has been taken apart.
    pub(super) fn bodies_of(
        &mut self,
        rs: RsId,
        message: &Message,
        parts: &[Part],
        veil: Veil<'_>,
    ) -> Vec<Entry> {
        let cseq = message.cseq().map_or(0, |cseq| cseq.number);
        let (at, method) = (self.now.wall, message.method().unwrap_or("").to_owned());
        let Some(session) = self.sessions.get_mut(&rs) else { return Vec::new() };
        let mut entries = Vec::new();
        for part in parts {
            session.bodies += 1;
            entries.push(Entry::Body {
                rs,
                number: session.bodies,
                at,
                method: method.clone(),
                cseq,
                content_type: part.content_type.clone(),
                disposition: part.disposition.clone().unwrap_or_default(),
                bytes: STANDARD.encode(blank_keys(&veil.kept(part))),
            });
        }
        entries
    }
}

/// What stands for our addresses outside.
pub(super) fn outside(sip: &Sip) -> Vec<Outside> {
    let all = sip.advertise.iter().flat_map(|all| &all.0);
    all.map(|host| Outside { family: host.family(), host: host.name.clone(), port: host.port })
        .collect()
}

/// Whether a URI wants TLS on every hop.
pub(super) fn is_sips(uri: &str) -> bool {
    uri.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sips:"))
}
