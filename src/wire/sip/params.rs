//! Generic parameters, `;name=value`, and the lists that SIP is made of (RFC 3261 §25.1).

/// Parameters in order; names ignore case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(pub Vec<(String, Option<String>)>);

impl Params {
    /// Reads `;a=b;c;d="x;y"`. The first semicolon may be missing. Never fails: what is no
    /// parameter becomes a name without a value. Quotes are removed from values.
    pub fn parse(text: &str) -> Params {
        let parts = split_outside(text, b';', false).map(str::trim).filter(|part| !part.is_empty());
        let pair = |part: &str| match part.split_once('=') {
            Some((name, value)) => (name.trim().to_owned(), Some(unquote(value.trim()))),
            None => (part.to_owned(), None),
        };
        Params(parts.map(pair).collect())
    }

    /// Value of `name`; `Some("")` where it has none.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        Some(found.1.as_deref().unwrap_or(""))
    }

    /// Whether `name` is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// Splits a comma list outside quotes and angle brackets, leaving empty elements out.
pub fn split_list(text: &str) -> impl Iterator<Item = &str> {
    split_outside(text, b',', true).map(str::trim).filter(|part| !part.is_empty())
}

/// Splits at `mark` outside quoted strings and, where `brackets`, outside `<…>`.
pub(super) fn split_outside(text: &str, mark: u8, brackets: bool) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match find_outside(text, mark, brackets) {
            Some(at) => {
                rest = Some(&text[at + 1..]);
                Some(&text[..at])
            }
            None => rest.take(),
        }
    })
}

/// Place of the first `mark` outside quoted strings and, where `brackets`, outside `<…>`.
pub(super) fn find_outside(text: &str, mark: u8, brackets: bool) -> Option<usize> {
    let (mut quoted, mut escaped, mut inside) = (false, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if !inside => quoted = !quoted,
            _ if quoted => {}
            _ if byte == mark && !inside => return Some(at),
            b'<' if brackets => inside = true,
            b'>' if brackets => inside = false,
            _ => {}
        }
    }
    None
}

/// The text of a quoted string; other text unchanged.
pub(super) fn unquote(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"') else { return text.to_owned() };
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    let mut out = String::with_capacity(inner.len());
    let mut escaped = false;
    for letter in inner.chars() {
        if letter == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(letter);
            escaped = false;
        }
    }
    out
}

/// Whether `text` is a token (RFC 3261 §25.1).
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_keep_their_separators() {
        let params =
            Params::parse(";+sip.instance=\"<urn:uuid:f81d;x>\";+sip.src;q = 0.7 ;text=\"a\\\"b\"");
        assert_eq!(params.get("+SIP.instance"), Some("<urn:uuid:f81d;x>"));
        assert_eq!(params.get("+sip.src"), Some(""));
        assert_eq!(params.get("q"), Some("0.7"));
        assert_eq!(params.get("text"), Some("a\"b"));
        assert!(!params.has("src"));
    }

    #[test]
    fn lists_drop_empty_elements() {
        let found: Vec<_> = split_list(" a ,, \"b,c\" , <d,e>;f , ").collect();
        assert_eq!(found, ["a", "\"b,c\"", "<d,e>;f"]);
    }
}
