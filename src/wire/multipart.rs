//! Bodies: `multipart/*` (RFC 2046 §5.1) as SIP carries it (RFC 5621), taken apart and put together.
//!
//! A body that is no multipart comes back as one part, so that callers have one path. What SRCs in
//! the field send is taken: parts in any order, types in any case, quoted and unquoted boundaries,
//! preamble, epilogue, folded part headers, bare LF, nesting, and a missing closing delimiter.
//! A part's own Content-Length is ignored: the delimiters bound it.
//!
//! ```
//! use floortape::wire::multipart;
//! let body = b"--b\r\nContent-Type: application/SDP\r\n\r\nv=0\r\n--b--\r\n";
//! let parts = multipart::parse("multipart/mixed; boundary=\"b\"", body).unwrap();
//! assert_eq!(parts[0].content_type, "application/sdp");
//! assert_eq!(parts[0].body, b"v=0");
//! ```

use memchr::{memchr, memmem};

use crate::base::limits::{MULTIPART_DEPTH_MAX, MULTIPART_PARTS_MAX};

/// Header lines of one part; ours carry three, Cisco's five.
const PART_HEADERS_MAX: usize = 32;
/// RFC 2046 §5.1.1 allows 70 characters; longer ones are taken as long as they are bounded.
const BOUNDARY_BYTES_MAX: usize = 256;

/// Whether a part may be ignored by who does not understand it (RFC 5621 §8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handling {
    /// It must be understood, or the request fails with 415. The default.
    #[default]
    Required,
    /// It may be ignored.
    Optional,
}

/// One body part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Media type in lower case without parameters, such as `application/sdp`; `text/plain` where
    /// the part names none (RFC 2046 §5.2).
    pub content_type: String,
    /// Disposition type in lower case, such as `recording-session`.
    pub disposition: Option<String>,
    /// `handling` parameter of the disposition.
    pub handling: Handling,
    /// The part's header lines, unfolded: name and value as received.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
}

/// Why a body is no multipart. The answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// Neither the type nor the first line names a boundary.
    #[error(
        "expected a boundary of 1 to {BOUNDARY_BYTES_MAX} bytes in the multipart type, found none"
    )]
    NoBoundary,
    /// The boundary never occurs.
    #[error("expected at least one part, found no delimiter line")]
    NoDelimiter,
    /// More parts than anyone sends.
    #[error("expected at most {MULTIPART_PARTS_MAX} parts, found more")]
    TooManyParts,
    /// Multipart in multipart in …
    #[error("expected multiparts nested at most {MULTIPART_DEPTH_MAX} deep, found more")]
    TooDeep,
    /// More header lines in a part than anyone sends.
    #[error("expected at most {PART_HEADERS_MAX} header lines in a part, found more")]
    TooManyHeaders,
}

impl Part {
    /// A part to be sent. `disposition` is the whole Content-Disposition value.
    pub fn new(content_type: &str, disposition: Option<&str>, body: Vec<u8>) -> Self {
        let mut headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        if let Some(value) = disposition {
            headers.push(("Content-Disposition".to_owned(), value.to_owned()));
        }
        Self::with_headers(headers, body)
    }

    /// First value of that header; the name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Takes a Content-Disposition value that stood outside, in the SIP header of a bare body.
    pub fn set_disposition(&mut self, value: &str) {
        let kind = media_type(value);
        self.disposition = (!kind.is_empty()).then_some(kind);
        self.handling = match parameter(value, "handling") {
            Some(handling) if handling.eq_ignore_ascii_case("optional") => Handling::Optional,
            _ => Handling::Required,
        };
    }

    fn with_headers(headers: Vec<(String, String)>, body: Vec<u8>) -> Self {
        let mut part = Part { headers, body, ..Part::default() };
        let stated = part.header("content-type").or_else(|| part.header("c")).map(media_type);
        part.content_type =
            stated.filter(|kind| !kind.is_empty()).unwrap_or_else(|| "text/plain".to_owned());
        if let Some(value) = part.header("content-disposition").map(str::to_owned) {
            part.set_disposition(&value);
        }
        part
    }
}

/// The media (or disposition) type of a header value, lower case, parameters cut off.
pub fn media_type(value: &str) -> String {
    // RFC 3261 §25.1, SLASH: blanks may stand around it.
    let essence = value.split(';').next().unwrap_or_default();
    essence.split('/').map(str::trim).collect::<Vec<_>>().join("/").to_ascii_lowercase()
}

/// A parameter of a header value, unquoted; the name in any case.
pub fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value;
    // Bounded: every turn drops at least one byte of `rest`.
    while let Some(at) = next_semicolon(rest) {
        rest = &rest[at + 1..];
        let field = &rest[..next_semicolon(rest).unwrap_or(rest.len())];
        if let Some((own, text)) = field.split_once('=')
            && own.trim().eq_ignore_ascii_case(name)
        {
            return Some(unquote(text.trim()));
        }
    }
    None
}

/// Position of the next `;` outside quotes.
fn next_semicolon(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn unquote(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"') else { return text.to_owned() };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}

/// Takes a body apart. `content_type` is the SIP Content-Type value with its parameters.
///
/// Nested multiparts are flattened in order of appearance. An empty body has no parts. A body of
/// another type is one part with that type and no disposition ([`Part::set_disposition`] takes the
/// one of the SIP header).
pub fn parse(content_type: &str, body: &[u8]) -> Result<Vec<Part>, MultipartError> {
    let mut parts = Vec::new();
    if !is_multipart(content_type) {
        if !body.is_empty() {
            let headers = match content_type.trim() {
                "" => Vec::new(),
                stated => vec![("Content-Type".to_owned(), stated.to_owned())],
            };
            parts.push(Part::with_headers(headers, body.to_vec()));
        }
        return Ok(parts);
    }
    collect(content_type, body, 1, &mut parts)?;
    Ok(parts)
}

fn is_multipart(content_type: &str) -> bool {
    media_type(content_type).starts_with("multipart/")
}

fn collect(
    content_type: &str,
    body: &[u8],
    depth: usize,
    parts: &mut Vec<Part>,
) -> Result<(), MultipartError> {
    if depth > MULTIPART_DEPTH_MAX {
        return Err(MultipartError::TooDeep);
    }
    let boundary = boundary(content_type, body).ok_or(MultipartError::NoBoundary)?;
    let mut delimiter = b"--".to_vec();
    delimiter.extend_from_slice(boundary.as_bytes());
    let mut at = find_delimiter(body, &delimiter, 0).ok_or(MultipartError::NoDelimiter)?;
    // Bounded: `at` moves on by a delimiter each turn, and the parts are counted.
    while !at.closing {
        let next = find_delimiter(body, &delimiter, at.content);
        // A missing closing delimiter (Ribbon, Cisco): the part runs to the end of the body.
        let end = next.as_ref().map_or(body.len(), |next| next.line);
        let part = parse_part(&body[at.content..end.max(at.content)])?;
        let stated = part.header("content-type").unwrap_or_default().to_owned();
        if is_multipart(&stated) {
            collect(&stated, &part.body, depth + 1, parts)?;
        } else if next.is_some() || !part.headers.is_empty() || !part.body.is_empty() {
            if parts.len() == MULTIPART_PARTS_MAX {
                return Err(MultipartError::TooManyParts);
            }
            parts.push(part);
        }
        let Some(next) = next else { break };
        at = next;
    }
    Ok(())
}

/// The boundary of the type; where it names none, the one that the first line shows.
fn boundary(content_type: &str, body: &[u8]) -> Option<String> {
    let stated = parameter(content_type, "boundary").map(|text| text.trim_end().to_owned());
    let shown = || {
        let line = &body[..memchr(b'\n', body).unwrap_or(body.len())];
        let text = std::str::from_utf8(line).ok()?.trim_end();
        text.strip_prefix("--").map(str::to_owned)
    };
    stated
        .filter(|text| !text.is_empty())
        .or_else(shown)
        .filter(|text| (1..=BOUNDARY_BYTES_MAX).contains(&text.len()))
}

/// A delimiter line: where the content before it ends, where the content after it begins.
struct Delimiter {
    line: usize,
    content: usize,
    closing: bool,
}

/// The next delimiter line at or behind `from`. The line break before it belongs to it
/// (RFC 2046 §5.1.1); white space may follow it on its line.
fn find_delimiter(body: &[u8], delimiter: &[u8], from: usize) -> Option<Delimiter> {
    for found in memmem::find_iter(&body[from..], delimiter) {
        let start = from + found;
        if start > 0 && start != from && body[start - 1] != b'\n' {
            continue;
        }
        let behind = start + delimiter.len();
        let closing = body[behind..].starts_with(b"--");
        let tail = behind + if closing { 2 } else { 0 };
        let line_end = memchr(b'\n', &body[tail..]).map(|n| tail + n);
        let padding = &body[tail..line_end.unwrap_or(body.len())];
        if !closing && !padding.iter().all(u8::is_ascii_whitespace) {
            // A longer boundary that begins with this one.
            continue;
        }
        let mut line = start;
        if line > from && body[line - 1] == b'\n' {
            line -= 1;
            if line > from && body[line - 1] == b'\r' {
                line -= 1;
            }
        }
        return Some(Delimiter { line, content: line_end.map_or(body.len(), |n| n + 1), closing });
    }
    None
}

/// Header lines, blank line, content. Without a line that looks like a header all is content.
fn parse_part(bytes: &[u8]) -> Result<Part, MultipartError> {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |n| at + n);
        let line = bytes[at..end].strip_suffix(b"\r").unwrap_or(&bytes[at..end]);
        let next = (end + 1).min(bytes.len());
        if line.is_empty() {
            return Ok(Part::with_headers(headers, bytes[next..].to_vec()));
        }
        let text = String::from_utf8_lossy(line);
        if line[0] == b' ' || line[0] == b'\t' {
            let text = text.trim();
            if let Some((_, value)) = headers.last_mut().filter(|_| !text.is_empty()) {
                if !value.is_empty() {
                    value.push(' ');
                }
                value.push_str(text);
            }
        } else if let Some((name, value)) = text.split_once(':') {
            if headers.len() == PART_HEADERS_MAX {
                return Err(MultipartError::TooManyHeaders);
            }
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        } else {
            // No header and no blank line: content began without one.
            return Ok(Part::with_headers(headers, bytes[at..].to_vec()));
        }
        at = next;
    }
    Ok(Part::with_headers(headers, Vec::new()))
}

/// Puts parts together. Returns the Content-Type value and the body; `boundary` is lengthened until
/// no part contains it.
pub fn emit(parts: &[Part], boundary: &str) -> (String, Vec<u8>) {
    let mut boundary = boundary.to_owned();
    while parts.iter().any(|part| memmem::find(&part.body, boundary.as_bytes()).is_some()) {
        boundary.push('x');
    }
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        for (name, value) in &part.headers {
            body.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(&part.body);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/mixed;boundary={boundary}"), body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    const TYPE: &str = "multipart/mixed;boundary=foobar";

    fn types(content_type: &str, body: &[u8]) -> Vec<String> {
        let parts = parse(content_type, body).expect("a multipart");
        parts.into_iter().map(|part| part.content_type).collect()
    }

    #[test]
    fn folds_that_hold_nothing_add_nothing() {
        let body = b"--foobar\r\nX-A:\r\n one\r\n \t \r\n two\r\n \r\n\r\n--foobar--";
        let parts = parse(TYPE, body).expect("a multipart");
        assert_eq!(parts[0].header("X-A"), Some("one two"));
    }

    #[test]
    fn any_order_any_case_preamble_epilogue_and_padding() {
        let body = b"preamble\r\n--foobar  \r\ncontent-TYPE: Application/RS-metadata+XML\r\n\
            Content-Disposition: Recording-Session; handling=optional\r\nContent-Length: 9999\r\n\r\n<x/>\r\n\
            --foobar\r\nContent-Type: application/SDP; charset=x\r\n\r\nv=0\r\n\r\n--foobar--\r\nepilogue";
        let parts = parse("Multipart/Mixed; Boundary=\"foobar\"", body).expect("a multipart");
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].content_type, "application/rs-metadata+xml");
        assert_eq!(parts[0].disposition.as_deref(), Some("recording-session"));
        assert_eq!(parts[0].handling, Handling::Optional);
        assert_eq!(parts[0].body, b"<x/>");
        assert_eq!(parts[1].content_type, "application/sdp");
        assert_eq!(parts[1].handling, Handling::Required);
        assert_eq!(parts[1].body, b"v=0\r\n");
    }

    #[test]
    fn folded_headers_lf_only_and_missing_closing_delimiter() {
        let body = b"--foobar\nContent-Type:\n application/sdp\n\nv=0\n--foobar\n\
            Content-Type: application/rs-metadata\n\n<x/>\n";
        let parts = parse(TYPE, body).expect("a multipart");
        assert_eq!(parts[0].content_type, "application/sdp");
        assert_eq!(parts[0].body, b"v=0");
        assert_eq!(parts[1].body, b"<x/>\n");
    }

    #[test]
    fn nested_parts_come_out_flat_in_order() {
        let body = b"--foobar\r\nContent-Type: multipart/related;boundary=in\r\n\r\n\
            --in\r\nContent-Type: a/b\r\n\r\n1\r\n--in\r\nContent-Type: c/d\r\n\r\n2\r\n--in--\r\n\
            --foobar\r\nContent-Type: e/f\r\n\r\n3\r\n--foobar--\r\n";
        assert_eq!(types(TYPE, body), ["a/b", "c/d", "e/f"]);
    }

    #[test]
    fn a_longer_boundary_that_begins_alike_is_content() {
        let body = b"--foo\r\nContent-Type: a/b\r\n\r\n--foobar\r\nx\r\n--foo--\r\n";
        let parts = parse("multipart/mixed;boundary=foo", body).expect("a multipart");
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].body, b"--foobar\r\nx");
    }

    #[test]
    fn boundary_is_taken_from_the_first_line_where_the_type_names_none() {
        assert_eq!(
            types("multipart/mixed", b"--x\r\nContent-Type: a/b\r\n\r\n1\r\n--x--"),
            ["a/b"]
        );
        assert_eq!(parse("multipart/mixed", b"no dashes"), Err(MultipartError::NoBoundary));
        assert_eq!(parse(TYPE, b"--other\r\n"), Err(MultipartError::NoDelimiter));
    }

    #[test]
    fn a_bare_body_is_one_part_and_an_empty_one_is_none() {
        let parts = parse("application/SDP", b"v=0\r\n").expect("bare");
        assert_eq!((parts[0].content_type.as_str(), parts.len()), ("application/sdp", 1));
        assert_eq!(parse("", b""), Ok(Vec::new()));
    }

    #[test]
    fn parts_depth_and_headers_are_bounded() {
        let many = "--foobar\r\n\r\nx\r\n".repeat(MULTIPART_PARTS_MAX + 1);
        assert_eq!(parse(TYPE, many.as_bytes()), Err(MultipartError::TooManyParts));
        let deep: String = (0..9)
            .map(|n| format!("--b{n}\r\nContent-Type: multipart/mixed;boundary=b{}\r\n\r\n", n + 1))
            .collect();
        let result = parse("multipart/mixed;boundary=b0", deep.as_bytes());
        assert_eq!(result, Err(MultipartError::TooDeep));
        let headers = format!("--foobar\r\n{}\r\nx", "A: b\r\n".repeat(PART_HEADERS_MAX + 1));
        assert_eq!(parse(TYPE, headers.as_bytes()), Err(MultipartError::TooManyHeaders));
    }

    #[test]
    fn emitted_parts_parse_back_even_when_they_contain_the_boundary() {
        let parts = [
            Part::new("application/sdp", None, b"v=0\r\n--edge\r\n".to_vec()),
            Part::new("application/rs-metadata+xml", Some("recording-session"), b"<x/>".to_vec()),
        ];
        let (content_type, body) = emit(&parts, "edge");
        assert_eq!(parse(&content_type, &body).expect("just emitted"), parts);
    }

    #[test]
    fn mutations_never_panic_and_stay_bounded() {
        let seed = b"--foobar\r\nContent-Type: multipart/mixed;boundary=\"i n\"\r\n\r\n--i n\r\nA: b\r\n c\r\n\r\n\
            x\r\n--i n--\r\n--foobar\r\nContent-Disposition: session;handling=required\r\n\r\nv=0\r\n--foobar--";
        let mut prng = Prng::new(11);
        for _ in 0..20_000 {
            let mut bytes = seed.to_vec();
            for _ in 0..=prng.below(6) {
                let at = prng.below(bytes.len() as u64) as usize;
                match prng.below(3) {
                    0 => bytes[at] = prng.next_u64() as u8,
                    1 if bytes.len() > 1 => drop(bytes.remove(at)),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            if let Ok(parts) = parse(TYPE, &bytes) {
                assert!(parts.len() <= MULTIPART_PARTS_MAX);
            }
        }
    }
}
