//! The header fields of a message, in order and as received.

use std::fmt;

use super::params::split_list;

/// One header field.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    name: String,
    text: String,
    /// Kept only where the value is no UTF-8, and `text` therefore lossy.
    raw: Option<Vec<u8>>,
}

impl Header {
    /// Name as received.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Value as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Value as received, folds joined.
    pub fn raw(&self) -> &[u8] {
        self.raw.as_deref().unwrap_or(self.text.as_bytes())
    }

    /// Whether this is the field `name`, in any case, long or compact.
    pub fn is(&self, name: &str) -> bool {
        long(&self.name).eq_ignore_ascii_case(long(name))
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Credentials never reach a log (RFC 3261 §22).
        let secret = self.is("Authorization") || self.is("Proxy-Authorization");
        write!(f, "{}: {}", self.name, if secret { "…" } else { &self.text })
    }
}

/// All header fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<Header>);

impl Headers {
    /// Appends a field.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        let (text, raw) = match String::from_utf8(value.into()) {
            Ok(text) => (text, None),
            Err(fault) => {
                let raw = fault.into_bytes();
                (String::from_utf8_lossy(&raw).into_owned(), Some(raw))
            }
        };
        self.0.push(Header { name: name.into(), text, raw });
    }

    /// Value of the first field `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|header| header.is(name)).map(Header::text)
    }

    /// Values of all fields `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields(name).map(Header::text)
    }

    /// All fields `name`, in order.
    pub fn fields<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Header> {
        self.0.iter().filter(move |header| header.is(name))
    }

    /// Elements of all fields `name`: comma lists are split outside quotes and brackets, empty
    /// elements are left out (RFC 3261 §7.3.1).
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(name).flat_map(split_list)
    }

    /// Whether the option tag `tag` stands in the list `name` (Require, Supported, …).
    pub fn has_option(&self, name: &str, tag: &str) -> bool {
        self.list(name).any(|option| option.eq_ignore_ascii_case(tag))
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = &Header> {
        self.0.iter()
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The long form of a header name (RFC 3261 §7.3.3, RFC 3265, 3515, 3841, 4028, 3892).
fn long(name: &str) -> &str {
    let [letter] = name.as_bytes() else { return name };
    match letter.to_ascii_lowercase() {
        b'v' => "Via",
        b'f' => "From",
        b't' => "To",
        b'i' => "Call-ID",
        b'm' => "Contact",
        b'c' => "Content-Type",
        b'l' => "Content-Length",
        b's' => "Subject",
        b'k' => "Supported",
        b'e' => "Content-Encoding",
        b'o' => "Event",
        b'u' => "Allow-Events",
        b'r' => "Refer-To",
        b'b' => "Referred-By",
        b'x' => "Session-Expires",
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_and_long_names_are_one() {
        let mut headers = Headers::default();
        headers.push("m", "<sip:a@b>, \"x, y\" <sip:c,d@e>");
        headers.push("CONTACT", "<sip:f@g>");
        let found: Vec<_> = headers.list("contact").collect();
        assert_eq!(found, ["<sip:a@b>", "\"x, y\" <sip:c,d@e>", "<sip:f@g>"]);
        assert_eq!(headers.get("M"), Some("<sip:a@b>, \"x, y\" <sip:c,d@e>"));
    }

    #[test]
    fn bytes_that_are_no_utf_8_survive() {
        let mut headers = Headers::default();
        headers.push("From", &b"\"\xe9\" <sip:a@b>"[..]);
        assert_eq!(headers.get("f"), Some("\"\u{fffd}\" <sip:a@b>"));
        assert_eq!(headers.iter().next().expect("one").raw(), b"\"\xe9\" <sip:a@b>");
    }

    #[test]
    fn credentials_stay_out_of_debug() {
        let mut headers = Headers::default();
        headers.push("Authorization", "Digest response=\"secret\"");
        assert!(!format!("{headers:?}").contains("secret"));
    }
}
