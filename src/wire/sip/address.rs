//! `name-addr` and `addr-spec`: the value of Contact, From, To, Route (RFC 3261 §20.10, §25.1).

use super::params::{Params, find_outside, unquote};
use super::uri::Uri;

/// A display name, a URI and header parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameAddr {
    /// Display name without quotes; may be empty.
    pub display: String,
    /// The URI as it stands, without brackets; `*` in `Contact: *`.
    pub uri: String,
    /// Header parameters (after the `>`): tag, expires, feature tags.
    pub params: Params,
}

impl NameAddr {
    /// Reads one value. `None` where there is no URI in it.
    pub fn parse(text: &str) -> Option<NameAddr> {
        let (head, params) = split(text)?;
        let (display, uri) = match find_outside(head, b'<', false) {
            Some(at) => (unquote(head[..at].trim()), head[at + 1..].strip_suffix('>')?.trim()),
            // RFC 3261 §20: a URI with headers must stand in brackets; whose they are is not clear.
            None if head.contains('?') => return None,
            None => (String::new(), head),
        };
        // A URI has a scheme; a blank or quote in it would break what we print from it.
        if uri.bytes().any(|byte| byte <= b' ' || byte == b'<' || byte == b'>') {
            return None;
        }
        if uri != "*" && uri.split_once(':').is_none_or(|(scheme, rest)| !named(scheme, rest)) {
            return None;
        }
        Some(NameAddr { display, uri: uri.to_owned(), params: Params::parse(params) })
    }

    /// The tag of From or To; `None` where absent or empty.
    pub fn tag(&self) -> Option<&str> {
        self.params.get("tag").filter(|tag| !tag.is_empty())
    }

    /// The parts of the URI.
    pub fn parts(&self) -> Option<Uri> {
        Uri::parse(&self.uri)
    }
}

/// `text` without its tag parameter: what goes into From and To of our own requests.
pub fn without_tag(text: &str) -> String {
    let Some((head, params)) = split(text) else { return text.trim().to_owned() };
    let mut out = head.to_owned();
    for part in super::params::split_outside(params, b';', false).map(str::trim) {
        let name = part.split_once('=').map_or(part, |(name, _)| name.trim());
        if !part.is_empty() && !name.eq_ignore_ascii_case("tag") {
            out.push(';');
            out.push_str(part);
        }
    }
    out
}

/// The value of a From or To with a tag. It stands before all other parameters: a quote that one of them
/// leaves open, or an empty tag, would hide it.
pub fn with_tag(value: &str, tag: &str) -> String {
    let (head, params) = split(value).unwrap_or((value.trim(), ""));
    format!("{head};tag={tag}{params}")
}

/// The same for a value that need not be UTF-8.
pub(super) fn with_tag_raw(value: &[u8], tag: &str) -> Vec<u8> {
    // As long as the value, byte for byte, and with the same meaning where that is ASCII.
    let shape: String =
        value.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }).collect();
    let params = split(&shape).map_or("", |(_, params)| params);
    let (head, params) = value.split_at(shape.trim_end().len() - params.len());
    [head.trim_ascii_end(), b";tag=", tag.as_bytes(), params].concat()
}

/// Splits address and parameters. Without brackets a semicolon begins the header's parameters, not
/// the URI's (RFC 3261 §20).
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let end = match find_outside(text, b'<', false) {
        Some(open) => open + text[open..].find('>')? + 1,
        None => text.find(';').unwrap_or(text.len()),
    };
    let (head, params) = text.split_at(end);
    let params = params.trim_start();
    (params.is_empty() || params.starts_with(';')).then_some((head.trim(), params))
}

fn named(scheme: &str, rest: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    !rest.is_empty()
        && scheme.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.bytes().all(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_seen_in_the_field_are_read() {
        let table = [
            ("<sip:2000@src.example.com>;+sip.src", "", "sip:2000@src.example.com", None),
            ("sip:a@b;tag=x", "", "sip:a@b", Some("x")),
            (
                "\"A \\\" <B>, C\" <sip:a@[2001:db8::1]:5070;lr> ; tag = y",
                "A \" <B>, C",
                "sip:a@[2001:db8::1]:5070;lr",
                Some("y"),
            ),
            (
                "Desk 7 <tel:+15550100;phone-context=x>;tag=1",
                "Desk 7",
                "tel:+15550100;phone-context=x",
                Some("1"),
            ),
            ("*", "", "*", None),
            ("<sips:john.doe@host>;tag=", "", "sips:john.doe@host", None),
        ];
        for (text, display, uri, tag) in table {
            let found = NameAddr::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((&*found.display, &*found.uri, found.tag()), (display, uri, tag), "{text}");
        }
    }

    #[test]
    fn our_tag_is_read_whatever_stands_behind_the_address() {
        let values = [
            "sip:a@b",
            "<sip:a@b>",
            "\"A; <B\" <sip:a@b;lr> ;x=1",
            "<sip:a@b>;x=\"open;y=2",
            "<sip:a@b>;tag=",
            "sip:a@b;x",
        ];
        for value in values {
            let told = with_tag(value, "ours");
            let raw = with_tag_raw(value.as_bytes(), "ours");
            assert_eq!(String::from_utf8_lossy(&raw), told);
            let (before, after) = (NameAddr::parse(value), NameAddr::parse(&told));
            let (before, after) = (before.expect(value), after.expect(&told));
            assert_eq!(after.tag(), Some("ours"), "{told}");
            assert_eq!((after.uri, after.display), (before.uri, before.display), "{told}");
        }
        let raw = with_tag_raw(b"\"\xa8\" <sip:a@b>;x=\"open", "ours");
        assert_eq!(raw, b"\"\xa8\" <sip:a@b>;tag=ours;x=\"open");
    }

    #[test]
    fn values_without_a_uri_are_refused() {
        for text in [
            "sip:a@b?Route=%3Csip:c%3E",
            "",
            "<>",
            "<sip:a@b",
            "name",
            "<sip:a b@c>",
            "<sip:a@b> junk",
            ":x",
            "sip:",
        ] {
            assert_eq!(NameAddr::parse(text), None, "{text}");
        }
    }

    #[test]
    fn tag_is_cut_out_and_the_rest_kept() {
        assert_eq!(
            without_tag("\"a;tag=q\" <sip:a;tag=u@b> ;x=1;TAG=z; y"),
            "\"a;tag=q\" <sip:a;tag=u@b>;x=1;y"
        );
        assert_eq!(without_tag("sip:a@b;tag=z"), "sip:a@b");
    }
}
