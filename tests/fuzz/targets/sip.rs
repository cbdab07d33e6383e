//! SIP: framing of a stream, and everything that is read out of a message.

use std::mem::discriminant;
use std::net::{Ipv4Addr, SocketAddr};

use floortape::base::limits::{SIP_HEADERS_MAX, SIP_MESSAGE_BYTES_MAX};
use floortape::proto::session::{TimerRules, judge_timer};
use floortape::proto::sip::{Challenge, Credentials, Secret};
use floortape::wire::sip::{
    CSeq, Disposition, Echo, Frame, MediaType, Message, NameAddr, StartLine, StreamFramer, Uri,
    Via, parse_datagram, print_response, refuse_unread, split_list, with_source, without_tag,
};

/// Small, so that mutants reach the limit.
const MESSAGE_BYTES_MAX: usize = 4_096;
const SOURCE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), 5_099);

/// A stream gives the same frames however it is cut, and nothing behind a lost border.
pub fn sip_framing(data: &[u8]) {
    let whole = frames(data, data.len());
    let cut = frames(data, 1 + data.len() % 61);
    assert_eq!(whole.len(), cut.len(), "frames of the whole and of the cut stream");
    let mut bytes = 0;
    for (place, (one, other)) in whole.iter().zip(&cut).enumerate() {
        match (one, other) {
            // How much was there when the border was lost depends on the cut.
            (Frame::Lost(one), Frame::Lost(other)) => {
                assert_eq!(discriminant(&one.fault), discriminant(&other.fault));
                assert_eq!(one.head, other.head);
                assert_eq!(place + 1, whole.len(), "a frame behind a lost border");
            }
            _ => assert_eq!(one, other),
        }
        bytes += match one {
            Frame::Message(message) => message.body.len() + b"A B SIP/2.0\n\n".len(),
            Frame::KeepAlive => 4,
            Frame::Broken(_) | Frame::Lost(_) => 0,
        };
    }
    assert!(bytes <= data.len(), "more came out than went in");
}

fn frames(data: &[u8], step: usize) -> Vec<Frame> {
    let mut framer = StreamFramer::new(MESSAGE_BYTES_MAX);
    let mut found = Vec::new();
    for chunk in data.chunks(step.max(1)) {
        framer.push(chunk);
        found.extend(std::iter::from_fn(|| framer.pull()));
    }
    found
}

/// A message printed from what was read reads the same; so does the response to it.
pub fn sip_headers(data: &[u8]) {
    refuse(data);
    let message = match parse_datagram(data) {
        Ok(message) => message,
        Err(error) => {
            if let Some(head) = error.head {
                assert!(head.body.is_empty() && head.headers.len() <= SIP_HEADERS_MAX);
                values(&head);
            }
            return;
        }
    };
    assert!(message.body.len() < data.len() && message.headers.len() <= SIP_HEADERS_MAX);
    values(&message);
    let printed = print(&message);
    if printed.len() <= SIP_MESSAGE_BYTES_MAX {
        assert_eq!(parse_datagram(&printed).as_ref(), Ok(&message));
    }
    respond(&message);
}

/// The answer to what nobody read is one, of a bounded size, to the one who sent it.
fn refuse(data: &[u8]) {
    let Some((target, bytes)) = refuse_unread(data, SOURCE, 4) else { return };
    assert_eq!(target.ip(), SOURCE.ip());
    // Compact names become long ones, and a source is filled in.
    assert!(bytes.len() <= 4 * data.len() + 512, "{} of {}", bytes.len(), data.len());
    // Folds and lone CRs have become blanks, so each line is one field.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.starts_with("SIP/2.0 503 ") && text.ends_with("\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(text.matches("\r\n\r\n").count(), 1);
}

fn print(message: &Message) -> Vec<u8> {
    let mut out = match &message.start {
        StartLine::Request { method, uri } => format!("{method} {uri} SIP/2.0\r\n"),
        StartLine::Response { code, reason } => format!("SIP/2.0 {code} {reason}\r\n"),
    }
    .into_bytes();
    for header in message.headers.iter() {
        out.extend_from_slice(header.name().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(header.raw());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&message.body);
    out
}

fn respond(request: &Message) {
    // Room for what a response adds to what it echoes.
    if request.method().is_none() || request.headers.len() > SIP_HEADERS_MAX - 8 {
        return;
    }
    let echo = Echo { request, source: SOURCE, to_tag: Some("ours") };
    let headers = [("Server".to_owned(), "Floortape".to_owned())];
    let bytes = print_response(echo, 488, None, &headers, b"body");
    if bytes.len() > SIP_MESSAGE_BYTES_MAX {
        return;
    }
    let response = parse_datagram(&bytes).expect("our own response");
    assert_eq!((response.code(), &response.body[..]), (Some(488), &b"body"[..]));
    for name in ["Call-ID", "CSeq", "From"] {
        assert!(response.headers.all(name).eq(request.headers.all(name)), "{name}");
    }
    assert_eq!(response.headers.all("Via").count(), request.headers.all("Via").count());
    if let Some(to) = request.to() {
        let tag = to.tag().unwrap_or("ours");
        assert_eq!(response.to().expect("To as it came").tag(), Some(tag));
    }
}

fn values(message: &Message) {
    for header in message.headers.iter() {
        let text = header.text();
        for part in split_list(text) {
            assert!(!part.trim().is_empty() && part.len() <= text.len());
            via(part);
            address(part);
        }
        address(text);
        if let Some(cseq) = CSeq::parse(text) {
            assert!(!cseq.method.is_empty());
        }
        if let Some(kind) = MediaType::parse(text) {
            assert!(MediaType::parse(&kind.essence()).is_some(), "{kind:?}");
        }
        Disposition::parse(text);
        if let Some(challenge) = Challenge::parse(text) {
            assert!(Challenge::parse(&challenge.print()).is_some() || text.contains(['"', '\\']));
        }
        if let Some(credentials) = Credentials::parse(text) {
            credentials.prove(&Secret::parse("user:password").expect("both"), "INVITE");
        }
    }
    let rules = TimerRules { min_se_s: 90, session_expires_s: 1_800 };
    if let Ok(Some(agreed)) = judge_timer(&message.headers, &rules) {
        assert!(agreed.interval_s >= rules.min_se_s, "{agreed:?}");
        assert!(agreed.after(&message.headers).is_none_or(|after| after.interval_s > 0));
    }
    if let Some(uri) = message.uri().and_then(Uri::parse) {
        assert!(!uri.host.is_empty() || uri.scheme == "tel");
        uri.socket_addr();
    }
}

fn via(text: &str) {
    let Some(before) = Via::parse(text) else { return };
    let line = with_source(text, SOURCE);
    let after = Via::parse(&line).expect("a Via stays one");
    assert_eq!((&after.host, after.port), (&before.host, before.port));
    // Behind a quote that is never closed nothing is a parameter any more.
    if text.contains('"') {
        return;
    }
    assert_eq!(before.branch(), after.branch());
    assert!(line == text || after.params.get("received") == Some("192.0.2.9"), "{line}");
    if before.params.has("rport") {
        assert_eq!(after.response_to(SOURCE), SOURCE);
        assert_eq!(after.params.get("rport"), Some("5099"));
    }
}

fn address(text: &str) {
    let Some(before) = NameAddr::parse(text) else { return };
    let after = NameAddr::parse(&without_tag(text)).expect("an address without its tag is one");
    assert_eq!((&after.uri, &after.display), (&before.uri, &before.display));
    assert_eq!(after.tag(), None);
    if let Some(uri) = before.parts() {
        assert!(!uri.host.is_empty() || uri.scheme == "tel");
    }
}
