//! The refusal of a request that nobody had time to read (F52).

use std::net::SocketAddr;

use super::lexer::{head_end, leading_line_ends, read_head};
use super::message::{Message, StartLine};
use super::via::with_source;

/// Heads that are looked at, bytes: what is longer gets no answer.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// A 503 to the request in `datagram`, and where it goes. Nothing is kept of either: the same request
/// gets the same answer (RFC 3261 §8.2.7). `None` for what is no request, for an ACK, and for a
/// request that cannot be answered.
///
/// `source`: who sent it. `retry_after_s`: when it may try again.
pub fn refuse_unread(
    datagram: &[u8],
    source: SocketAddr,
    retry_after_s: u32,
) -> Option<(SocketAddr, Vec<u8>)> {
    let bytes = &datagram[leading_line_ends(datagram)..];
    let end = head_end(&bytes[..bytes.len().min(HEAD_BYTES_MAX)], 0)?;
    let head = read_head(&bytes[..end]);
    let start = head.start.filter(|start| match start {
        StartLine::Request { method, .. } => method != "ACK",
        StartLine::Response { .. } => false,
    })?;
    let request = Message { start, headers: head.headers, body: Vec::new() };
    let target = request.via()?.response_to(source);
    let mut out = b"SIP/2.0 503 Service Unavailable\r\n".to_vec();
    let mut line = |name: &str, value: &[u8], more: &str| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(more.as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    for (place, via) in request.headers.fields("Via").enumerate() {
        match std::str::from_utf8(via.raw()).ok().filter(|_| place == 0) {
            Some(text) => line("Via", with_source(text, source).as_bytes(), ""),
            None => line("Via", via.raw(), ""),
        }
    }
    let tagged = request.to().is_some_and(|to| to.tag().is_some());
    for name in ["From", "To", "Call-ID", "CSeq"] {
        let field = request.headers.fields(name).next()?;
        line(name, field.raw(), if name == "To" && !tagged { ";tag=busy" } else { "" });
    }
    line("Retry-After", retry_after_s.to_string().as_bytes(), "");
    line("Content-Length", b"0", "");
    out.extend_from_slice(b"\r\n");
    Some((target, out))
}

#[cfg(test)]
mod tests {
    use super::super::parse_datagram;
    use super::*;

    fn source() -> SocketAddr {
        "192.0.2.1:4540".parse().expect("an address")
    }

    #[test]
    fn a_request_gets_a_whole_answer_to_where_it_wants_it() {
        let request = b"\r\nINVITE sip:a@b SIP/2.0\r\nv: SIP/2.0/UDP h:5070;branch=z9hG4bK1\r\n\
            Via: SIP/2.0/UDP i\r\nf: \"\xe9\" <sip:c@d>;tag=1\r\nt: <sip:a@b>\r\ni: x\r\n\
            CSeq: 4\r\n INVITE\r\nContent-Length: 9\r\n\r\n123456789";
        let (target, bytes) = refuse_unread(request, source(), 7).expect("an answer");
        assert_eq!(target, "192.0.2.1:5070".parse().expect("an address"));
        let answer = parse_datagram(&bytes).expect("our own");
        assert_eq!((answer.code(), answer.headers.get("Retry-After")), (Some(503), Some("7")));
        assert_eq!(answer.headers.all("Via").count(), 2);
        assert_eq!(answer.via().expect("Via").params.get("received"), Some("192.0.2.1"));
        assert_eq!(answer.to().expect("To").tag(), Some("busy"));
        assert_eq!(answer.cseq().expect("CSeq").method, "INVITE");
        assert_eq!(answer.headers.fields("From").next().expect("From").raw()[1], 0xe9);
    }

    #[test]
    fn what_is_no_request_gets_none() {
        let fields = "Via: SIP/2.0/UDP h\r\nFrom: <sip:c@d>;tag=1\r\nTo: <sip:a@b>\r\n\
            Call-ID: x\r\nCSeq: 4 BYE\r\n";
        let cases = [
            format!("ACK sip:a@b SIP/2.0\r\n{fields}\r\n"),
            format!("SIP/2.0 200 OK\r\n{fields}\r\n"),
            format!("BYE sip:a@b SIP/2.0\r\n{fields}"),
            format!("BYE sip:a@b SIP/2.0\r\n{}\r\n", fields.replace("Via", "Vja")),
            format!("BYE sip:a@b SIP/2.0\r\n{}\r\n", fields.replace("Call-ID", "Call")),
            format!("BYE sip:a@b SIP/2.0\r\nX: {}\r\n{fields}\r\n", "x".repeat(9_000)),
            "\r\n\r\n".to_owned(),
            String::new(),
        ];
        for text in cases {
            assert!(refuse_unread(text.as_bytes(), source(), 1).is_none(), "{text}");
        }
    }
}
