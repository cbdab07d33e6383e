//! SIP, SIPS and tel URIs (RFC 3261 §19.1, RFC 3966).

use std::net::{IpAddr, SocketAddr};

use super::params::Params;

/// The parts of a URI. Escapes are left as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uri {
    /// Scheme in lower case.
    pub scheme: String,
    /// User part with its password, if any; the number of a `tel:` URI.
    pub user: Option<String>,
    /// Host name or address, IPv6 with its brackets; empty for `tel:`; all of an unknown scheme.
    pub host: String,
    /// Port, where given.
    pub port: Option<u16>,
    /// URI parameters.
    pub params: Params,
    /// What follows `?`.
    pub headers: Option<String>,
}

impl Uri {
    /// Reads a URI. `None` where scheme or host is missing or the port is no number.
    pub fn parse(text: &str) -> Option<Uri> {
        let (scheme, rest) = text.trim().split_once(':')?;
        if scheme.is_empty() || rest.is_empty() {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        match &*scheme {
            "sip" | "sips" => Uri::parse_sip(scheme, rest),
            "tel" => {
                let (number, params) = rest.split_once(';').unwrap_or((rest, ""));
                let params = Params::parse(params);
                Some(Uri { scheme, user: Some(number.to_owned()), params, ..Uri::default() })
            }
            _ => Some(Uri { scheme, host: rest.to_owned(), ..Uri::default() }),
        }
    }

    fn parse_sip(scheme: String, rest: &str) -> Option<Uri> {
        // A user part may hold `;` and `?`, so it ends first (RFC 3261 §25.1, user-unreserved).
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, rest),
        };
        let (rest, headers) = match rest.split_once('?') {
            Some((rest, headers)) => (rest, Some(headers.to_owned())),
            None => (rest, None),
        };
        let (place, params) = rest.split_once(';').unwrap_or((rest, ""));
        let (host, port) = split_port(place)?;
        let params = Params::parse(params);
        Some(Uri { scheme, user, host: host.to_owned(), port, params, headers })
    }

    /// The host as an address, where it is one. The three colons before an IPv4 address that the
    /// grammar of RFC 3261 makes are two (RFC 5118 §4.10).
    pub fn ip(&self) -> Option<IpAddr> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        if host.contains(":::") && host.contains('.') {
            return host.replacen(":::", "::", 1).parse().ok();
        }
        host.parse().ok()
    }

    /// Address and port, 5060 where none is given; `None` for host names.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let default = if self.scheme == "sips" { 5_061 } else { 5_060 };
        Some(SocketAddr::new(self.ip()?, self.port.unwrap_or(default)))
    }
}

/// Splits `host[:port]`, IPv6 in brackets. `None` where the host is empty or the port no number.
pub(super) fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let text = text.trim();
    let (host, rest) = if text.starts_with('[') {
        text.split_at(text.find(']')? + 1)
    } else {
        text.split_at(text.find(':').unwrap_or(text.len()))
    };
    let (host, rest) = (host.trim(), rest.trim());
    if host.is_empty() || host.bytes().any(|byte| byte <= b' ' || b"<>\",;".contains(&byte)) {
        return None;
    }
    match rest.strip_prefix(':') {
        Some(port) => Some((host, Some(port.trim().parse().ok()?))),
        None => rest.is_empty().then_some((host, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found() {
        let uri = Uri::parse("sip:john.doe;x=1?y:pw@[2001:db8::10]:5070;transport=tcp;lr?s=a")
            .expect("valid");
        assert_eq!(uri.user.as_deref(), Some("john.doe;x=1?y:pw"));
        assert_eq!((&*uri.host, uri.port), ("[2001:db8::10]", Some(5_070)));
        assert_eq!(uri.params.get("transport"), Some("tcp"));
        assert!(uri.params.has("lr"));
        assert_eq!(uri.socket_addr(), "[2001:db8::10]:5070".parse().ok());
        let tel = Uri::parse("TEL:+15550100;ext=7").expect("valid");
        assert_eq!((&*tel.scheme, tel.user.as_deref(), &*tel.host), ("tel", Some("+15550100"), ""));
        let odd = Uri::parse("sip:u@[2001:db8:::192.0.2.1]").expect("valid");
        assert_eq!(odd.ip(), "2001:db8::192.0.2.1".parse().ok());
        assert_eq!(
            Uri::parse("sip:192.0.2.1").and_then(|uri| uri.socket_addr()),
            "192.0.2.1:5060".parse().ok()
        );
    }

    #[test]
    fn broken_uris_are_refused() {
        for text in
            ["", "sip", "sip:", "sip:@", "sip:a@", "sip:a@h:port", "sip:h:70000", "sip:[::1"]
        {
            assert_eq!(Uri::parse(text), None, "{text}");
        }
    }
}
