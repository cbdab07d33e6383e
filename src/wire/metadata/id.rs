//! Identifiers of RFC 7865 §6.10 and when two of them are the same.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// An id as received, outer white space cut off.
///
/// Two ids are equal when both decode from base64 to the same 16 octets (white space inside does not
/// count: the schema's base64Binary collapses it), else when their texts are equal, case included.
#[derive(Clone, Default)]
pub struct Id {
    text: String,
    octets: Option<[u8; 16]>,
}

impl Id {
    /// Takes an id as it stands in the XML.
    pub fn new(text: &str) -> Self {
        let text = text.trim().to_owned();
        let packed: String = text.split_whitespace().collect();
        let octets = (packed.len() == 24)
            .then(|| STANDARD.decode(&packed).ok())
            .flatten()
            .and_then(|bytes| bytes.try_into().ok());
        Id { text, octets }
    }

    /// Makes one from the octets of a UUID (RFC 7865 §6.10).
    pub fn from_uuid(octets: [u8; 16]) -> Self {
        Id { text: STANDARD.encode(octets), octets: Some(octets) }
    }

    /// As received.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a UUID in base64, as it should be.
    pub fn is_uuid(&self) -> bool {
        self.octets.is_some()
    }

    fn key(&self) -> (Option<[u8; 16]>, &str) {
        (self.octets, if self.octets.is_some() { "" } else { &self.text })
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Id {}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl std::hash::Hash for Id {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_compare_by_octets_where_they_are_uuids_else_by_text() {
        assert_eq!(Id::new("7+OTCyoxTmqmqyA/1weDAg==\n   "), Id::new("7+OTCyox TmqmqyA/1weDAg=="));
        assert_ne!(Id::new("7+OTCyoxTmqmqyA/1weDAg=="), Id::new("7+otcyoxTmqmqyA/1weDAg=="));
        // The RFC's own id is no RFC 4122 variant.
        assert!(Id::new("i1Pz3to5hGk8fuXl+PbwCw==").is_uuid());
        assert_eq!(Id::new(" 1003@x "), Id::new("1003@x"));
        assert_ne!(Id::new("1003@x"), Id::new("1003@X"));
        assert_ne!(Id::new(""), Id::new("x"));
        let uuid = Id::from_uuid([7; 16]);
        assert_eq!(Id::new(uuid.as_str()), uuid);
    }
}
