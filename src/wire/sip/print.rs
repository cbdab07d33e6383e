//! Printing through rsip. Its models carry start line and header fields; what a peer wrote (Via,
//! From, To, Call-ID, CSeq, Record-Route) and bodies go around it byte for byte, because rsip
//! holds text and rewrites what is no UTF-8.

use std::net::SocketAddr;

use rsip::headers::untyped;
use rsip::{Domain, Header, Host, HostWithPort, Method, Scheme, StatusCode};

use super::address::with_tag_raw;
use super::headers::Headers;
use super::message::Message;
use super::reason::reason_phrase;
use super::uri::Uri;
use super::via::with_source;

/// What a response repeats of its request (RFC 3261 §8.2.6.2).
#[derive(Clone, Copy, Debug)]
pub struct Echo<'a> {
    /// The request.
    pub request: &'a Message,
    /// Where it came from: goes into the topmost Via.
    pub source: SocketAddr,
    /// Tag added to To where the request had none.
    pub to_tag: Option<&'a str>,
}

/// Prints a response. `reason`: `None` for the registered phrase. Content-Length is added; header
/// values lose their line ends.
pub fn print_response(
    echo: Echo<'_>,
    code: u16,
    reason: Option<&str>,
    headers: &[(String, String)],
    body: &[u8],
) -> Vec<u8> {
    let phrase = one_line(reason.unwrap_or(reason_phrase(code)));
    let response = rsip::Response {
        status_code: StatusCode::Other(code, phrase),
        version: rsip::Version::V2,
        headers: fields(headers, body.len()),
        body: Vec::new(),
    };
    splice(&response.to_string(), &echoed(echo, code), body)
}

fn echoed(echo: Echo<'_>, code: u16) -> Vec<u8> {
    let headers = &echo.request.headers;
    let mut out = Vec::with_capacity(512);
    for (place, via) in headers.fields("Via").enumerate() {
        // A Via that is no UTF-8 goes back untouched: its sender can read it, we cannot.
        let text = std::str::from_utf8(via.raw()).ok().filter(|_| place == 0);
        match text {
            Some(text) => line(&mut out, "Via", with_source(text, echo.source).as_bytes()),
            None => line(&mut out, "Via", via.raw()),
        }
    }
    if (101..300).contains(&code) {
        copy(&mut out, headers, "Record-Route");
    }
    if code == 100 {
        // RFC 3261 §8.2.6.1.
        copy(&mut out, headers, "Timestamp");
    }
    copy(&mut out, headers, "From");
    let tagged = echo.request.to().is_some_and(|to| to.tag().is_some());
    for to in headers.fields("To").take(1) {
        match echo.to_tag.filter(|_| !tagged) {
            Some(tag) => line(&mut out, "To", &with_tag_raw(to.raw(), tag)),
            None => line(&mut out, "To", to.raw()),
        }
    }
    copy(&mut out, headers, "Call-ID");
    copy(&mut out, headers, "CSeq");
    out
}

fn copy(out: &mut Vec<u8>, headers: &Headers, name: &str) {
    for header in headers.fields(name) {
        line(out, name, header.raw());
    }
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Prints a request with the given fields, Content-Length added. `None` for a method that SIP does
/// not have.
pub fn print_request(
    method: &str,
    uri: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Option<Vec<u8>> {
    let method = Method::all().into_iter().find(|known| known.to_string() == method)?;
    let request = rsip::Request {
        method,
        uri: model_uri(&one_line(uri)),
        version: rsip::Version::V2,
        headers: fields(headers, body.len()),
        body: Vec::new(),
    };
    Some(splice(&request.to_string(), &[], body))
}

/// Fills the public fields of rsip's URI. Where its printer would not give back the same text (a
/// `tel:` URI, embedded headers, odd parameters) the text is its host and it has no other part.
fn model_uri(text: &str) -> rsip::Uri {
    let whole = |host: &str| HostWithPort { host: Host::Domain(Domain::from(host)), port: None };
    if let Some(uri) = Uri::parse(text).filter(|uri| uri.params.0.is_empty()) {
        let model = rsip::Uri {
            scheme: Some(if uri.scheme == "sips" { Scheme::Sips } else { Scheme::Sip }),
            auth: uri.user.map(|user| rsip::Auth { user, password: None }),
            host_with_port: HostWithPort {
                port: uri.port.map(rsip::Port::from),
                ..whole(&uri.host)
            },
            params: Vec::new(),
            headers: Vec::new(),
        };
        if model.to_string() == text {
            return model;
        }
    }
    rsip::Uri { scheme: None, host_with_port: whole(text), ..rsip::Uri::default() }
}

fn fields(headers: &[(String, String)], body_bytes: usize) -> rsip::Headers {
    let mut out = rsip::Headers::default();
    for (name, value) in headers {
        if !name.eq_ignore_ascii_case("Content-Length") {
            out.push(field(&one_line(name), one_line(value)));
        }
    }
    out.push(Header::ContentLength(untyped::ContentLength::from(body_bytes as u32)));
    out
}

fn field(name: &str, value: String) -> Header {
    match name.to_ascii_lowercase().as_str() {
        "accept" => Header::Accept(value.into()),
        "allow" => Header::Allow(value.into()),
        "contact" => Header::Contact(value.into()),
        "content-type" => Header::ContentType(value.into()),
        "cseq" => Header::CSeq(value.into()),
        "from" => Header::From(value.into()),
        "max-forwards" => Header::MaxForwards(value.into()),
        "require" => Header::Require(value.into()),
        "retry-after" => Header::RetryAfter(value.into()),
        "route" => Header::Route(value.into()),
        "server" => Header::Server(value.into()),
        "supported" => Header::Supported(value.into()),
        "to" => Header::To(value.into()),
        "unsupported" => Header::Unsupported(value.into()),
        "user-agent" => Header::UserAgent(value.into()),
        "via" => Header::Via(value.into()),
        "warning" => Header::Warning(value.into()),
        _ => Header::Other(name.to_owned(), value),
    }
}

/// Puts raw lines behind the start line and the body behind the head.
fn splice(printed: &str, raw: &[u8], body: &[u8]) -> Vec<u8> {
    let start = printed.find("\r\n").map_or(printed.len(), |at| at + 2);
    let mut out = Vec::with_capacity(printed.len() + raw.len() + body.len());
    out.extend_from_slice(&printed.as_bytes()[..start]);
    out.extend_from_slice(raw);
    out.extend_from_slice(&printed.as_bytes()[start..]);
    out.extend_from_slice(body);
    out
}

/// A header value never brings a line of its own.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|letter| if matches!(letter, '\r' | '\n' | '\0') { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sip::parse_datagram;

    #[test]
    fn what_the_peer_wrote_comes_back_byte_for_byte() {
        let request = parse_datagram(
            b"INVITE sip:rec@[2001:db8::1] SIP/2.0\r\n\
            v: SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK1;rport, SIP/2.0/TCP  other;branch=2\r\n\
            Via: SIP/2.0/UDP third\r\n\
            f: \"J\xe9r\" <sip:j.d@[::1]>;tag=a\r\nTo: tel:+1555\r\nRecord-Route: <sip:p;lr>, <sip:q;lr>\r\n\
            i: x@y\r\nCSeq: 7   INVITE\r\nTimestamp: 54\r\n\r\n",
        )
        .expect("valid");
        let source = "192.0.2.1:5071".parse().expect("address");
        let echo = Echo { request: &request, source, to_tag: Some("our") };
        let headers = [
            ("Contact".to_owned(), "<sip:srs@192.0.2.9>;+sip.srs".to_owned()),
            ("X-Own".to_owned(), "a\r\nInjected: b".to_owned()),
        ];
        let printed = print_response(echo, 486, None, &headers, b"\xff\x00");
        let wanted: &[u8] = b"SIP/2.0 486 Busy Here\r\n\
            Via: SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK1;rport=5071;received=192.0.2.1, SIP/2.0/TCP  other;branch=2\r\n\
            Via: SIP/2.0/UDP third\r\n\
            From: \"J\xe9r\" <sip:j.d@[::1]>;tag=a\r\nTo: tel:+1555;tag=our\r\nCall-ID: x@y\r\n\
            CSeq: 7   INVITE\r\nContact: <sip:srs@192.0.2.9>;+sip.srs\r\n\
            X-Own: a  Injected: b\r\nContent-Length: 2\r\n\r\n\xff\x00";
        assert_eq!(String::from_utf8_lossy(&printed), String::from_utf8_lossy(wanted));
        assert_eq!(printed, wanted);
        let ok = String::from_utf8_lossy(&print_response(echo, 200, None, &[], b"")).into_owned();
        assert!(ok.contains("\r\nRecord-Route: <sip:p;lr>, <sip:q;lr>\r\n"));
        assert!(!ok.contains("Timestamp"));
    }

    #[test]
    fn request_uris_come_out_as_they_are() {
        for uri in [
            "sip:src@192.0.2.1:5060",
            "sip:[2001:db8::1]:5070",
            "tel:+1555;ext=1",
            "sips:john.doe@h;transport=tls;lr?a=b",
            "sip:a:b@h;x=\"y\"",
        ] {
            let printed = print_request("BYE", uri, &[], b"").expect("known method");
            let wanted = format!("BYE {uri} SIP/2.0\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(String::from_utf8_lossy(&printed), wanted);
        }
        assert_eq!(print_request("FROB", "sip:a@b", &[], b""), None);
    }
}
