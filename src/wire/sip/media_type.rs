//! Content-Type and Content-Disposition (RFC 3261 §20.15, §20.11; RFC 5621).

use super::params::{Params, is_token};

/// `type/subtype;params`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    /// Type in lower case.
    pub kind: String,
    /// Subtype in lower case.
    pub subtype: String,
    /// Parameters: boundary, charset.
    pub params: Params,
}

impl MediaType {
    /// Reads a media type.
    pub fn parse(text: &str) -> Option<MediaType> {
        let (essence, params) = text.split_once(';').unwrap_or((text, ""));
        let (kind, subtype) = essence.split_once('/')?;
        let (kind, subtype) = (kind.trim(), subtype.trim());
        (is_token(kind.as_bytes()) && is_token(subtype.as_bytes())).then(|| MediaType {
            kind: kind.to_ascii_lowercase(),
            subtype: subtype.to_ascii_lowercase(),
            params: Params::parse(params),
        })
    }

    /// Whether this is `kind/subtype`, both given in lower case.
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind == kind && self.subtype == subtype
    }

    /// `type/subtype` in lower case.
    pub fn essence(&self) -> String {
        format!("{}/{}", self.kind, self.subtype)
    }
}

/// `disposition;handling=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disposition {
    /// Disposition type in lower case: `session`, `recording-session`, …
    pub kind: String,
    /// Parameters.
    pub params: Params,
}

impl Disposition {
    /// Reads a disposition.
    pub fn parse(text: &str) -> Option<Disposition> {
        let (kind, params) = text.split_once(';').unwrap_or((text, ""));
        let kind = kind.trim();
        is_token(kind.as_bytes())
            .then(|| Disposition { kind: kind.to_ascii_lowercase(), params: Params::parse(params) })
    }

    /// Whether the part must be understood: yes unless it says `optional` (RFC 5621 §8.1).
    pub fn required(&self) -> bool {
        !self.params.get("handling").is_some_and(|value| value.eq_ignore_ascii_case("optional"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_ignore_case_and_keep_parameters() {
        let found = MediaType::parse("Multipart/Mixed ; boundary=\"a;b\"").expect("valid");
        assert!(found.is("multipart", "mixed"));
        assert_eq!(found.params.get("boundary"), Some("a;b"));
        assert_eq!(MediaType::parse("application"), None);
        assert_eq!(MediaType::parse("application/"), None);
    }

    #[test]
    fn handling_is_required_unless_it_says_optional() {
        let required = |text| Disposition::parse(text).map(|found| found.required());
        assert_eq!(required("session"), Some(true));
        assert_eq!(required("signal;handling=Optional"), Some(false));
        assert_eq!(required("Recording-Session;handling=required"), Some(true));
        assert_eq!(required(""), None);
    }
}
