//! The SRC's side of one SIP dialog: INVITE, ACK, BYE as a client (RFC 3261 §13.2, §15.1, §17.1) and
//! the few requests that an SRS sends. Messages and time come in, bytes and events go out.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::base::prng::Prng;
use crate::base::time::Mono;
use crate::wire::sip::{Echo, Message, NameAddr, print_request, print_response};

/// Timer T1 (RFC 3261 §17.1.1.1).
const T1_MS: u64 = 500;
/// Timer T2: the longest pause between two BYEs (§17.1.2.2).
const T2_MS: u64 = 4_000;
/// Timers B and F: 64 × T1.
const GIVE_UP_MS: u64 = 64 * T1_MS;

/// What became of a dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A 2xx came and was acknowledged.
    Answered {
        /// Its body.
        body: Vec<u8>,
        /// Its Contact, to see whom we reached (`+sip.srs`).
        contact: String,
    },
    /// A final answer that is no 2xx.
    Refused {
        /// Status code.
        code: u16,
        /// Reason phrase, with the Warning's text where there is one.
        reason: String,
        /// Retry-After in seconds.
        retry_after: Option<u32>,
    },
    /// No final answer in time.
    Silent,
    /// Our BYE was answered, with whatever code: the dialog is gone (§15.1.1).
    Ended,
    /// The SRS sent BYE.
    EndedByPeer {
        /// Its Reason value, if any.
        reason: String,
    },
}

/// Who we are and whom we call.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Request-URI of the INVITE, and To.
    pub target: String,
    /// Where our requests leave from.
    pub local: SocketAddr,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// Call-ID.
    pub call_id: String,
    /// Session-ID value of RFC 7989, our half.
    pub session_id: String,
    /// User part of From and Contact.
    pub user: String,
}

/// A request of ours that waits for its final answer.
struct Pending {
    method: &'static str,
    bytes: Vec<u8>,
    /// When to send it again; `None` over TCP or after a provisional answer to INVITE.
    resend: Option<Mono>,
    interval_ms: u64,
    give_up: Mono,
}

/// One dialog.
pub struct Uac {
    identity: Identity,
    prng: Prng,
    from_tag: String,
    branch: String,
    cseq: u32,
    /// To value with the peer's tag, once known.
    to: String,
    remote_target: String,
    routes: Vec<String>,
    pending: Option<Pending>,
    /// The last ACK, for a 2xx that comes again (§13.2.2.4).
    ack: Option<Vec<u8>>,
    is_up: bool,
    transmit: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
}

impl Uac {
    /// A dialog that has not begun. Tags and branches come from `prng`.
    pub fn new(identity: Identity, mut prng: Prng) -> Self {
        let from_tag = format!("{:016x}", prng.next_u64());
        let to = format!("<{}>", identity.target);
        let remote_target = identity.target.clone();
        Uac {
            identity,
            prng,
            from_tag,
            branch: String::new(),
            cseq: 0,
            to,
            remote_target,
            routes: Vec::new(),
            pending: None,
            ack: None,
            is_up: false,
            transmit: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Its Call-ID.
    pub fn call_id(&self) -> &str {
        &self.identity.call_id
    }

    /// Whether a 2xx was acknowledged and nobody has ended the dialog.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Whether a request of ours waits for its answer.
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// Starts the RS: INVITE with this body.
    pub fn invite(&mut self, now: Mono, content_type: &str, body: &[u8]) {
        // RFC 7866 §6.1.1: +sip.src in Contact, siprec in Require. No `timer` in Supported: a call
        // of ours is short and the SRS need not refresh it.
        let fields = [
            ("Require", "siprec"),
            ("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE"),
            ("Accept", "application/sdp, application/rs-metadata+xml, application/rs-metadata"),
            ("Content-Type", content_type),
        ];
        self.request(now, "INVITE", &fields, body);
    }

    /// Ends the RS. Nothing happens where it is not up.
    pub fn bye(&mut self, now: Mono) {
        if std::mem::take(&mut self.is_up) {
            self.request(now, "BYE", &[], b"");
        }
    }

    /// Takes a message of this dialog (the caller has looked at its Call-ID).
    pub fn handle(&mut self, now: Mono, message: &Message, source: SocketAddr) {
        match (message.method(), message.code()) {
            (Some(method), _) => self.handle_request(method, message, source),
            (None, Some(code)) => self.handle_response(now, code, message),
            (None, None) => {}
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Mono) {
        let Some(pending) = &mut self.pending else { return };
        if now >= pending.give_up {
            let event = if pending.method == "BYE" { Event::Ended } else { Event::Silent };
            self.pending = None;
            self.events.push_back(event);
        } else if pending.resend.is_some_and(|due| now >= due) {
            // INVITE doubles without a bound (timer A), others up to T2 (timer E).
            let doubled = pending.interval_ms * 2;
            pending.interval_ms =
                if pending.method == "INVITE" { doubled } else { doubled.min(T2_MS) };
            pending.resend = Some(now.plus_ms(pending.interval_ms));
            self.transmit.push_back(pending.bytes.clone());
        }
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmit.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn request(&mut self, now: Mono, method: &'static str, more: &[(&str, &str)], body: &[u8]) {
        self.cseq += 1;
        self.branch = format!("z9hG4bK{:016x}", self.prng.next_u64());
        let bytes = self.print(method, &self.remote_target, &self.branch, more, body);
        self.pending = Some(Pending {
            method,
            bytes: bytes.clone(),
            resend: (self.identity.transport == "UDP").then(|| now.plus_ms(T1_MS)),
            interval_ms: T1_MS,
            give_up: now.plus_ms(GIVE_UP_MS),
        });
        self.transmit.push_back(bytes);
    }

    fn print(
        &self,
        method: &str,
        uri: &str,
        branch: &str,
        more: &[(&str, &str)],
        body: &[u8],
    ) -> Vec<u8> {
        let Identity { local, transport, call_id, session_id, user, .. } = &self.identity;
        let host = host(*local);
        let contact =
            format!("<sip:{user}@{local};transport={}>;+sip.src", transport.to_lowercase());
        let mut fields = vec![
            ("Via".to_owned(), format!("SIP/2.0/{transport} {local};branch={branch};rport")),
            ("Max-Forwards".to_owned(), "70".to_owned()),
            ("From".to_owned(), format!("<sip:{user}@{host}>;tag={}", self.from_tag)),
            ("To".to_owned(), self.to.clone()),
            ("Call-ID".to_owned(), call_id.clone()),
            ("CSeq".to_owned(), format!("{} {method}", self.cseq)),
            ("Contact".to_owned(), contact),
            ("Session-ID".to_owned(), session_id.clone()),
            ("User-Agent".to_owned(), concat!("floortape/", env!("CARGO_PKG_VERSION")).to_owned()),
        ];
        fields.extend(self.routes.iter().map(|route| ("Route".to_owned(), route.clone())));
        fields.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        print_request(method, uri, &fields, body).expect("a method that SIP has")
    }

    fn handle_response(&mut self, now: Mono, code: u16, message: &Message) {
        let Some(cseq) = message.cseq() else { return };
        if cseq.number == self.cseq
            && self.pending.as_ref().is_some_and(|pending| pending.method == cseq.method)
        {
            match (cseq.method.as_str(), code) {
                // §17.1.1.2: INVITE is not sent again after a provisional answer; §17.1.2.2: others
                // are, at intervals of T2.
                ("INVITE", 100..=199) => self.calm(None),
                (_, 100..=199) => self.calm(Some(now.plus_ms(T2_MS))),
                ("INVITE", 200..=299) => self.answered(message),
                ("INVITE", _) => self.refused(code, message),
                _ => {
                    self.pending = None;
                    self.events.push_back(Event::Ended);
                }
            }
        } else if cseq.method == "INVITE" && (200..300).contains(&code) {
            // Our ACK was lost.
            self.transmit.extend(self.ack.clone());
        }
    }

    fn calm(&mut self, resend: Option<Mono>) {
        if let Some(pending) = &mut self.pending {
            pending.resend = pending.resend.and(resend);
        }
    }

    fn answered(&mut self, message: &Message) {
        self.pending = None;
        self.is_up = true;
        if let Some(to) = message.headers.get("To") {
            self.to = to.to_owned();
        }
        let contact = message.headers.get("Contact").unwrap_or_default().to_owned();
        if let Some(target) = NameAddr::parse(&contact) {
            self.remote_target = target.uri;
        }
        // §12.1.2: the route set of a UAC is Record-Route in reverse order.
        self.routes = message.headers.list("Record-Route").map(str::to_owned).collect();
        self.routes.reverse();
        let branch = format!("z9hG4bK{:016x}", self.prng.next_u64());
        let ack = self.print("ACK", &self.remote_target, &branch, &[], b"");
        self.ack = Some(ack.clone());
        self.transmit.push_back(ack);
        self.events.push_back(Event::Answered { body: message.body.clone(), contact });
    }

    fn refused(&mut self, code: u16, message: &Message) {
        self.pending = None;
        // §17.1.1.3: within the INVITE's transaction, with the To of the answer.
        let ours = self.to.clone();
        if let Some(to) = message.headers.get("To") {
            self.to = to.to_owned();
        }
        let ack = self.print("ACK", &self.remote_target, &self.branch, &[], b"");
        self.to = ours;
        self.transmit.push_back(ack);
        let phrase = match &message.start {
            crate::wire::sip::StartLine::Response { reason, .. } => reason.as_str(),
            crate::wire::sip::StartLine::Request { .. } => "",
        };
        let reason = match message.headers.get("Warning") {
            Some(warning) => format!("{phrase} ({warning})"),
            None => phrase.to_owned(),
        };
        let retry_after = message
            .headers
            .get("Retry-After")
            .and_then(|value| value.split([' ', ';', '(']).next()?.parse().ok());
        self.events.push_back(Event::Refused { code, reason, retry_after });
    }

    fn handle_request(&mut self, method: &str, message: &Message, source: SocketAddr) {
        let (code, reason) = match method {
            "ACK" => return,
            "BYE" => (200, None),
            "OPTIONS" | "INFO" => (200, None),
            // A refresh without an offer changes nothing; a new offer is not taken, which leaves
            // the session as it is (RFC 3261 §14.2).
            "UPDATE" if message.body.is_empty() => (200, None),
            "INVITE" | "UPDATE" => (488, None),
            _ => (405, None),
        };
        let echo = Echo { request: message, source, to_tag: Some(&self.from_tag) };
        let contact = format!(
            "<sip:{}@{};transport={}>;+sip.src",
            self.identity.user,
            self.identity.local,
            self.identity.transport.to_lowercase()
        );
        let fields = [("Contact".to_owned(), contact)];
        self.transmit.push_back(print_response(echo, code, reason, &fields, b""));
        if method == "BYE" && std::mem::take(&mut self.is_up) {
            let reason = message.headers.get("Reason").unwrap_or_default().to_owned();
            self.events.push_back(Event::EndedByPeer { reason });
        }
    }
}

fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sip::parse_datagram;

    fn uac(transport: &'static str) -> Uac {
        let identity = Identity {
            target: "sip:srs@127.0.0.1:5060".to_owned(),
            local: "127.0.0.1:5070".parse().expect("address"),
            transport,
            call_id: "one@here".to_owned(),
            session_id: "a;remote=b".to_owned(),
            user: "src".to_owned(),
        };
        Uac::new(identity, Prng::new(1))
    }

    fn sent(uac: &mut Uac) -> Message {
        parse_datagram(&uac.poll_transmit().expect("a message")).expect("our own is valid")
    }

    fn answer(request: &Message, code: u16, more: &[(String, String)]) -> Message {
        let source = "127.0.0.1:5070".parse().expect("address");
        let echo = Echo { request, source, to_tag: Some("srs") };
        let bytes = print_response(echo, code, None, more, b"v=0\r\n");
        parse_datagram(&bytes).expect("valid")
    }

    fn peer() -> SocketAddr {
        "127.0.0.1:5060".parse().expect("address")
    }

    #[test]
    fn call_is_answered_acknowledged_and_ended_along_contact_and_routes() {
        let mut uac = uac("UDP");
        uac.invite(Mono(0), "application/sdp", b"v=0\r\n");
        let invite = sent(&mut uac);
        assert!(invite.headers.has_option("Require", "siprec"));
        assert!(invite.headers.get("Contact").expect("Contact").ends_with(";+sip.src"));
        let fields = [
            ("Contact".to_owned(), "<sip:here@192.0.2.9:5080>;+sip.srs".to_owned()),
            ("Record-Route".to_owned(), "<sip:p1;lr>, <sip:p2;lr>".to_owned()),
        ];
        // Record-Route is echoed from the request by the printer, so it is put in by hand here.
        let mut ok = answer(&invite, 200, &fields[..1]);
        ok.headers.push("Record-Route", fields[1].1.clone());
        uac.handle(Mono(1), &ok, peer());
        let ack = sent(&mut uac);
        assert_eq!((ack.method(), ack.uri()), (Some("ACK"), Some("sip:here@192.0.2.9:5080")));
        assert_eq!(ack.headers.get("Route"), Some("<sip:p2;lr>"));
        assert_eq!(ack.to().expect("To").tag(), Some("srs"));
        assert_ne!(ack.via().expect("Via").branch(), invite.via().expect("Via").branch());
        assert!(matches!(uac.poll_event(), Some(Event::Answered { .. })) && uac.is_up());
        // The 200 comes again: so does the ACK.
        uac.handle(Mono(2), &ok, peer());
        assert_eq!(sent(&mut uac).method(), Some("ACK"));
        uac.bye(Mono(3));
        let bye = sent(&mut uac);
        assert_eq!(bye.cseq().map(|cseq| cseq.number), Some(2));
        uac.handle(Mono(4), &answer(&bye, 200, &[]), peer());
        assert_eq!(uac.poll_event(), Some(Event::Ended));
    }

    #[test]
    fn refusal_is_acknowledged_in_its_own_transaction_and_told() {
        let mut uac = uac("TCP");
        uac.invite(Mono(0), "application/sdp", b"");
        let invite = sent(&mut uac);
        let fields = [("Retry-After".to_owned(), "7 (disk)".to_owned())];
        uac.handle(Mono(1), &answer(&invite, 503, &fields), peer());
        let ack = sent(&mut uac);
        assert_eq!(ack.via().expect("Via").branch(), invite.via().expect("Via").branch());
        let event = uac.poll_event();
        assert!(
            matches!(event, Some(Event::Refused { code: 503, retry_after: Some(7), .. })),
            "{event:?}"
        );
        assert!(!uac.is_up());
    }

    #[test]
    fn udp_repeats_until_a_provisional_answer_and_gives_up_after_64_t1() {
        let mut silent = uac("UDP");
        silent.invite(Mono(0), "application/sdp", b"");
        let invite = sent(&mut silent);
        let mut sendings = 0;
        for ms in 0..=GIVE_UP_MS {
            silent.tick(Mono(0).plus_ms(ms));
            sendings += usize::from(silent.poll_transmit().is_some());
        }
        // 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 s.
        assert_eq!(sendings, 6);
        assert_eq!(silent.poll_event(), Some(Event::Silent));

        let mut trying = uac("UDP");
        trying.invite(Mono(0), "application/sdp", b"");
        sent(&mut trying);
        trying.handle(Mono(1), &answer(&invite, 100, &[]), peer());
        trying.tick(Mono(0).plus_ms(5_000));
        assert!(trying.poll_transmit().is_none());
    }

    #[test]
    fn the_peers_bye_is_answered_and_ends_the_dialog() {
        let mut uac = uac("UDP");
        uac.invite(Mono(0), "application/sdp", b"");
        let invite = sent(&mut uac);
        uac.handle(Mono(1), &answer(&invite, 200, &[]), peer());
        sent(&mut uac);
        uac.poll_event();
        let bye = b"BYE sip:src@127.0.0.1:5070 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKx\r\n\
            From: <sip:srs@127.0.0.1>;tag=srs\r\nTo: <sip:src@127.0.0.1>;tag=x\r\nCall-ID: one@here\r\n\
            CSeq: 1 BYE\r\nReason: SIP;cause=503\r\nContent-Length: 0\r\n\r\n";
        uac.handle(Mono(2), &parse_datagram(bye).expect("valid"), peer());
        assert_eq!(sent(&mut uac).code(), Some(200));
        let reason = "SIP;cause=503".to_owned();
        assert_eq!(uac.poll_event(), Some(Event::EndedByPeer { reason }));
        uac.bye(Mono(3));
        assert!(uac.poll_transmit().is_none());
    }
}
