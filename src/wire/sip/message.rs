//! A whole message, and its reading from a datagram.

use std::fmt;

use super::address::NameAddr;
use super::cseq::CSeq;
use super::error::{SipError, SipFault};
use super::headers::Headers;
use super::lexer::{Head, head_end, leading_line_ends, read_head};
use super::media_type::MediaType;
use super::via::Via;
use crate::base::limits::SIP_MESSAGE_BYTES_MAX;

/// First line of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartLine {
    /// Request line.
    Request {
        /// Method; case counts (RFC 3261 §7.1).
        method: String,
        /// Request-URI as it stands.
        uri: String,
    },
    /// Status line.
    Response {
        /// 100 to 699.
        code: u16,
        /// Reason phrase.
        reason: String,
    },
}

/// A SIP message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// First line.
    pub start: StartLine,
    /// Header fields.
    pub headers: Headers,
    /// Body, cut to Content-Length.
    pub body: Vec<u8>,
}

impl Message {
    /// Method of a request, `None` for a response.
    pub fn method(&self) -> Option<&str> {
        match &self.start {
            StartLine::Request { method, .. } => Some(method),
            StartLine::Response { .. } => None,
        }
    }

    /// Request-URI; `None` for a response.
    pub fn uri(&self) -> Option<&str> {
        match &self.start {
            StartLine::Request { uri, .. } => Some(uri),
            StartLine::Response { .. } => None,
        }
    }

    /// Status code; `None` for a request.
    pub fn code(&self) -> Option<u16> {
        match self.start {
            StartLine::Response { code, .. } => Some(code),
            StartLine::Request { .. } => None,
        }
    }

    /// Topmost Via.
    pub fn via(&self) -> Option<Via> {
        Via::parse(self.headers.list("Via").next()?)
    }

    /// CSeq.
    pub fn cseq(&self) -> Option<CSeq> {
        CSeq::parse(self.headers.get("CSeq")?)
    }

    /// Call-ID; `None` where absent or empty.
    pub fn call_id(&self) -> Option<&str> {
        self.headers.get("Call-ID").filter(|id| !id.is_empty())
    }

    /// From.
    pub fn from(&self) -> Option<NameAddr> {
        NameAddr::parse(self.headers.get("From")?)
    }

    /// To.
    pub fn to(&self) -> Option<NameAddr> {
        NameAddr::parse(self.headers.get("To")?)
    }

    /// First Contact.
    pub fn contact(&self) -> Option<NameAddr> {
        NameAddr::parse(self.headers.list("Contact").next()?)
    }

    /// Content-Type.
    pub fn content_type(&self) -> Option<MediaType> {
        MediaType::parse(self.headers.get("Content-Type")?)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies carry SDES keys; they never reach a log.
        f.debug_struct("Message")
            .field("start", &self.start)
            .field("headers", &self.headers)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// Reads the message in one datagram. Bytes behind Content-Length are dropped, too few are a fault
/// (RFC 3261 §18.3); without Content-Length the body fills the datagram.
pub fn parse_datagram(bytes: &[u8]) -> Result<Message, SipError> {
    let bytes = &bytes[leading_line_ends(bytes)..];
    if bytes.is_empty() || bytes.iter().all(|byte| *byte == 0) {
        return Err(SipError { fault: SipFault::Empty, head: None });
    }
    if bytes.len() > SIP_MESSAGE_BYTES_MAX {
        let fault = SipFault::TooLong { max: SIP_MESSAGE_BYTES_MAX, found: bytes.len() };
        return Err(SipError { fault, head: None });
    }
    let end = head_end(bytes, 0);
    let mut head = read_head(&bytes[..end.unwrap_or(bytes.len())]);
    let body = &bytes[end.unwrap_or(bytes.len())..];
    let length = head.content_length();
    head.fault = head.fault.or(match (end, length) {
        (None, _) => Some(SipFault::Unterminated),
        (_, Err(fault)) => Some(fault),
        (_, Ok(Some(expected))) if expected > body.len() => {
            Some(SipFault::Short { expected, found: body.len() })
        }
        _ => None,
    });
    let length = length.ok().flatten().unwrap_or(body.len()).min(body.len());
    finish(head, &body[..length])
}

/// A message of head and body, or the head's fault.
pub(super) fn finish(head: Head, body: &[u8]) -> Result<Message, SipError> {
    let Head { start, headers, fault } = head;
    match (fault, start) {
        (None, Some(start)) => Ok(Message { start, headers, body: body.to_vec() }),
        (fault, start) => {
            let message = |start| Box::new(Message { start, headers, body: Vec::new() });
            let fault = fault.unwrap_or(SipFault::StartLine);
            Err(SipError { fault, head: start.map(message) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    /// RFC 3261 §24.2, F2 of the session setup, with odd but legal spellings mixed in.
    const INVITE: &[u8] = b"\r\n\r\nINVITE sip:bob@biloxi.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP pc33.atlanta.com;branch=z9hG4bK776asdhds\r\n\
        Max-Forwards: 70\r\n\
        t : Bob <sip:bob@biloxi.com>\r\n\
        From: Alice <sip:alice@atlanta.com>\r\n \t;tag=1928301774\r\n\
        i: a84b4c76e66710@pc33.atlanta.com\r\n\
        CSeq: 314159 INVITE\r\n\
        Contact: <sip:alice@pc33.atlanta.com>\r\n\
        c: application/sdp\r\n\
        l: 4\r\n\r\nv=0\nrest";

    #[test]
    fn compact_names_folds_and_blanks_are_read_and_the_body_is_cut() {
        let message = parse_datagram(INVITE).expect("valid");
        assert_eq!(message.method(), Some("INVITE"));
        assert_eq!(message.uri(), Some("sip:bob@biloxi.com"));
        assert_eq!(message.from().expect("From").tag(), Some("1928301774"));
        assert_eq!(message.to().expect("To").display, "Bob");
        assert_eq!(message.call_id(), Some("a84b4c76e66710@pc33.atlanta.com"));
        assert_eq!(message.cseq().expect("CSeq").number, 314_159);
        assert_eq!(message.via().expect("Via").branch(), Some("z9hG4bK776asdhds"));
        assert!(message.content_type().expect("type").is("application", "sdp"));
        assert_eq!(message.body, b"v=0\n");
    }

    #[test]
    fn line_feeds_alone_end_lines() {
        let text = b"SIP/2.0 200 OK\nCSeq: 1 BYE\nContent-Length: 0\n\n";
        let message = parse_datagram(text).expect("valid");
        assert_eq!((message.code(), message.headers.len()), (Some(200), 2));
    }

    #[test]
    fn a_short_body_is_a_fault_that_can_be_answered() {
        let cut = &INVITE[..INVITE.len() - 6];
        let error = parse_datagram(cut).expect_err("short");
        assert_eq!(error.fault, SipFault::Short { expected: 4, found: 2 });
        let head = error.head.expect("head");
        assert_eq!(head.call_id(), Some("a84b4c76e66710@pc33.atlanta.com"));
        assert!(head.via().is_some() && head.cseq().is_some() && head.to().is_some());
    }

    #[test]
    fn faults_are_named() {
        let table: [(&[u8], SipFault); 9] = [
            (b"\r\n\r\n", SipFault::Empty),
            (b"INVITE sip:a@b SIP/2.0\r\nVia: x\r\n", SipFault::Unterminated),
            (b"INVITE sip:a@b SIP/7.0\r\n\r\n", SipFault::Version),
            (b"INVITE sip:a b SIP/2.0\r\n\r\n", SipFault::StartLine),
            (b"SIP/2.0 20 OK\r\n\r\n", SipFault::StartLine),
            (b"BYE sip:a@b SIP/2.0\r\nno colon\r\n\r\n", SipFault::Header { line: 1 }),
            (b"BYE sip:a@b SIP/2.0\r\nContent-Length: -1\r\n\r\n", SipFault::ContentLength),
            (b"BYE sip:a@b SIP/2.0\r\nl: 0\r\nContent-Length: 1\r\n\r\nx", SipFault::ContentLength),
            (b"BYE sip:a@b SIP/2.0\r\n folded\r\n\r\n", SipFault::Header { line: 1 }),
        ];
        for (bytes, fault) in table {
            assert_eq!(parse_datagram(bytes).expect_err("fault").fault, fault);
        }
        let many = [b"BYE sip:a@b SIP/2.0\r\n".to_vec(), b"X: y\r\n".repeat(257)].concat();
        let error = parse_datagram(&[many, b"\r\n".to_vec()].concat()).expect_err("too many");
        assert_eq!(error.fault, SipFault::TooManyHeaders { max: 256 });
    }

    #[test]
    fn keys_stay_out_of_debug() {
        let message = parse_datagram(INVITE).expect("valid");
        assert!(!format!("{message:?}").contains("v=0"));
    }

    /// Every cut and 20,000 mutants: no panic, and what parses has parts that do not panic either.
    #[test]
    fn mutants_never_panic() {
        for cut in 0..INVITE.len() {
            let _ = parse_datagram(&INVITE[..cut]);
        }
        let mut prng = Prng::new(3_261);
        for _ in 0..20_000 {
            let mut bytes = INVITE.to_vec();
            for _ in 0..=prng.below(6) {
                let at = prng.below(bytes.len() as u64) as usize;
                match prng.below(4) {
                    0 => bytes[at] = prng.next_u64() as u8,
                    1 => bytes[at] = b"\r\n:;,<>\"\\@[] "[prng.below(13) as usize],
                    2 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, bytes[prng.below(bytes.len() as u64) as usize]),
                }
            }
            let message = match parse_datagram(&bytes) {
                Ok(message) => message,
                Err(error) => match error.head {
                    Some(head) => *head,
                    None => continue,
                },
            };
            let _ = (message.via(), message.cseq(), message.content_type());
            for address in [message.from(), message.to(), message.contact()].into_iter().flatten() {
                let _ = address.parts().and_then(|uri| uri.socket_addr());
            }
            for header in message.headers.iter() {
                let _ = super::super::without_tag(header.text());
                let _ = super::super::Disposition::parse(header.text());
                let source = "192.0.2.1:5060".parse().expect("address");
                let _ = super::super::with_source(header.text(), source);
            }
        }
    }
}
