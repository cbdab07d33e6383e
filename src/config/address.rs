//! Values that are one address or a list of them, and hosts with a port.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::family::Family;

/// One value, written alone, or several as a list. One is written alone again: versions that knew no
/// list read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T>(pub Vec<T>);

impl<T: Serialize> Serialize for Listed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &*self.0 {
            [one] => one.serialize(serializer),
            all => all.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for One<T> {
            type Value = Listed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Listed<T>, E> {
                let text = de::value::StrDeserializer::new(text);
                Ok(Listed(vec![T::deserialize(text)?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Listed<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(one) = all.next_element()? {
                    list.push(one);
                }
                Ok(Listed(list))
            }
        }
        deserializer.deserialize_any(One(PhantomData))
    }
}

/// A host as it stands in a SIP URI, written `host` or `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Host {
    /// A name, or an address without brackets.
    pub name: String,
    /// Its port; `None`: that of the listener.
    pub port: Option<u16>,
}

impl Host {
    /// The family of an address; `None`: a name, which stands for either.
    pub fn family(&self) -> Option<Family> {
        self.name.parse().ok().map(Family::of)
    }
}

impl From<Host> for String {
    fn from(Host { name, port }: Host) -> Self {
        match (port, name.contains(':')) {
            (Some(port), true) => format!("[{name}]:{port}"),
            (Some(port), false) => format!("{name}:{port}"),
            (None, _) => name,
        }
    }
}

impl TryFrom<String> for Host {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let fault = || {
            format!(
                "expected a name or an address, with or without a port, such as \"203.0.113.5\" or \
                 \"srs.example:5070\", found \"{text}\""
            )
        };
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Host { name: address.to_string(), port: None });
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().map_err(|_| fault())?)),
            None => (&*text, None),
        };
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let is_address = bare.unwrap_or(name).parse::<IpAddr>().is_ok_and(|ip| {
            // Without brackets the port of an IPv6 address could not be told from it.
            ip.is_ipv6() == bare.is_some()
        });
        if port == Some(0) || !is_address && !is_name(name) {
            return Err(fault());
        }
        Ok(Host { name: bare.unwrap_or(name).to_owned(), port })
    }
}

/// RFC 3261 §25.1, hostname: labels of letters, digits and hyphens, the last begins with a letter.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or("");
    text.split('.').all(label) && last.starts_with(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        let cases = [
            ("srs.example", "srs.example", None),
            ("srs.example:5070", "srs.example", Some(5_070)),
            ("203.0.113.5", "203.0.113.5", None),
            ("203.0.113.5:5070", "203.0.113.5", Some(5_070)),
            ("2001:db8::1", "2001:db8::1", None),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("[2001:db8::1]:5070", "2001:db8::1", Some(5_070)),
        ];
        for (text, name, port) in cases {
            let host = Host::try_from(text.to_owned()).expect(text);
            assert_eq!((&*host.name, host.port), (name, port), "{text}");
            assert_eq!(Host::try_from(String::from(host.clone())), Ok(host), "{text}");
        }
        for wrong in ["", ":5060", "a b", "sip:srs", "srs:0", "srs:70000", "1.2.3", "-a", "a..b"] {
            assert!(Host::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_is_written_as_versions_before_wrote_it() {
        let one: Listed<IpAddr> = serde_json::from_str("\"192.0.2.1\"").expect("an address");
        assert_eq!(serde_json::to_string(&one).expect("JSON"), "\"192.0.2.1\"");
        let text = "[\"192.0.2.1\",\"2001:db8::1\"]";
        let two: Listed<IpAddr> = serde_json::from_str(text).expect("addresses");
        assert_eq!(serde_json::to_string(&two).expect("JSON"), text);
        assert!(serde_json::from_str::<Listed<IpAddr>>("7").is_err());
        assert!(serde_json::from_str::<Listed<IpAddr>>("\"x\"").is_err());
    }
}
