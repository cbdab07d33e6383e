//! Splits the head of a message into start line and header fields.

use memchr::memchr;

use super::error::SipFault;
use super::headers::Headers;
use super::message::StartLine;
use super::params::is_token;
use crate::base::limits::SIP_HEADERS_MAX;

/// What could be read of a head. A fault does not end the reading: the other fields are needed to
/// answer, and Content-Length to find the next message.
pub(super) struct Head {
    pub(super) start: Option<StartLine>,
    pub(super) headers: Headers,
    pub(super) fault: Option<SipFault>,
}

impl Head {
    /// The body's length. `Ok(None)` where Content-Length is absent.
    pub(super) fn content_length(&self) -> Result<Option<usize>, SipFault> {
        let mut found = None;
        for text in self.headers.all("Content-Length") {
            let text = text.trim();
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let length: usize = match text.parse() {
                Ok(length) if digits => length,
                _ => return Err(SipFault::ContentLength),
            };
            // Two lengths that differ are a smuggling attempt, not an oddity.
            if found.is_some_and(|other| other != length) {
                return Err(SipFault::ContentLength);
            }
            found = Some(length);
        }
        Ok(found)
    }
}

/// Length of the leading line ends, which a sender may use as keep-alive (RFC 3261 §7.5).
pub(super) fn leading_line_ends(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}

/// Place behind the blank line that ends the head, looking from `from` on. A bare LF counts.
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = memchr(b'\n', bytes.get(at..)?) {
        at += found + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// Reads start line and fields of `bytes`, which begin with the start line.
pub(super) fn read_head(bytes: &[u8]) -> Head {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(without_cr);
    let first = lines.next().unwrap_or_default();
    let (start, mut fault) = match read_start(first) {
        Ok(start) => (Some(start), None),
        Err((start, fault)) => (start, Some(fault)),
    };
    let mut headers = Headers::default();
    let mut open: Option<(String, Vec<u8>)> = None;
    for (line, text) in lines.enumerate() {
        if text.is_empty() {
            break;
        }
        if matches!(text[0], b' ' | b'\t') {
            // RFC 3261 §7.3.1: a fold is one blank, and none at either end of the value.
            match &mut open {
                Some((_, value)) => {
                    let more = clean(text);
                    if !value.is_empty() && !more.is_empty() {
                        value.push(b' ');
                    }
                    value.extend_from_slice(&more);
                }
                None => fault = fault.or(Some(SipFault::Header { line: line + 1 })),
            }
            continue;
        }
        if let Some((name, value)) = open.take() {
            headers.push(name, value);
        }
        if headers.len() == SIP_HEADERS_MAX {
            fault = fault.or(Some(SipFault::TooManyHeaders { max: SIP_HEADERS_MAX }));
            break;
        }
        open = read_field(text);
        if open.is_none() {
            fault = fault.or(Some(SipFault::Header { line: line + 1 }));
        }
    }
    if let Some((name, value)) = open {
        headers.push(name, value);
    }
    Head { start, headers, fault }
}

fn read_field(text: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = memchr(b':', text)?;
    let name = text[..colon].trim_ascii_end();
    if !is_token(name) {
        return None;
    }
    Some((String::from_utf8_lossy(name).into_owned(), clean(&text[colon + 1..])))
}

/// The value without blanks around it. A lone CR would read as a line end elsewhere, so it
/// becomes a blank.
fn clean(value: &[u8]) -> Vec<u8> {
    value.trim_ascii().iter().map(|byte| if *byte == b'\r' { b' ' } else { *byte }).collect()
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Reads the start line. With a fault comes what is needed to answer: the method of what is
/// clearly a request.
fn read_start(line: &[u8]) -> Result<StartLine, (Option<StartLine>, SipFault)> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    if text.get(..4).is_some_and(|first| first.eq_ignore_ascii_case("SIP/")) {
        return read_status(text).ok_or((None, SipFault::StartLine));
    }
    let (method, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (uri, version) = rest.trim_start().rsplit_once(' ').unwrap_or((rest, ""));
    if !is_token(method.as_bytes()) {
        return Err((None, SipFault::StartLine));
    }
    let uri = uri.trim_end();
    let request = StartLine::Request { method: method.to_owned(), uri: uri.to_owned() };
    // RFC 3261 §7.1: no blanks inside the URI, and the version ignores case.
    let protocol = version.get(..4).is_some_and(|name| name.eq_ignore_ascii_case("SIP/"));
    if uri.is_empty() || uri.contains([' ', '\t', '<', '>', '"', '\r']) || !protocol {
        return Err((Some(request), SipFault::StartLine));
    }
    if &version[4..] != "2.0" {
        return Err((Some(request), SipFault::Version));
    }
    Ok(request)
}

fn read_status(text: &str) -> Option<StartLine> {
    let rest = text.get(4..)?.strip_prefix("2.0")?.strip_prefix(' ')?.trim_start();
    let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let digits = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    let code: u16 = code.parse().ok().filter(|code| digits && (100..700).contains(code))?;
    Some(StartLine::Response { code, reason: reason.to_owned() })
}
