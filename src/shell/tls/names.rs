//! Whom a certificate names: SIP domains and identities in subjectAltName (RFC 5922 §7).
//!
//! The names of a certificate mean nothing before its chain is verified; callers do that first.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error};
use webpki::EndEntityCert;

use crate::wire::sip::Uri;

/// An identity is kept with every dialog and recording; real ones are some 30 characters.
const IDENTITY_BYTES_MAX: usize = 255;

/// Whom a verified certificate names: its first SIP URI, one of a domain before one of a user; else
/// its first DNS name; else, since such a certificate still tells one peer from another, its
/// SHA-256. RFC 5922 §7.1 but for the two last: an identity that is compared with itself need not be
/// a domain.
pub fn identity(cert: &CertificateDer<'_>) -> String {
    let found = EndEntityCert::try_from(cert).ok().and_then(|parsed| {
        let uris = || parsed.valid_uri_names().filter(|name| name.len() <= IDENTITY_BYTES_MAX);
        let domain = uris().find(|name| sip_domain(name).is_some());
        let user = || uris().find(|name| Uri::parse(name).is_some_and(|uri| uri.scheme == "sip"));
        let dns = || parsed.valid_dns_names().find(|name| name.len() <= IDENTITY_BYTES_MAX);
        domain.or_else(user).or_else(dns).map(str::to_owned)
    });
    found.unwrap_or_else(|| {
        let hash = digest(&SHA256, cert);
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    })
}

/// The domain of a `sip:` URI that names a domain: without user part (RFC 5922 §7.1).
fn sip_domain(name: &str) -> Option<String> {
    let uri = Uri::parse(name).filter(|uri| uri.scheme == "sip" && uri.user.is_none())?;
    Some(uri.host)
}

/// The host of a SIP URI as rustls wants it; also for addresses.
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    ServerName::try_from(bare.to_owned()).ok()
}

/// Whether a certificate, whose chain is verified, speaks for `wanted`: RFC 5922 §7.2 and §7.3. SIP
/// URIs before DNS names, no wildcards, no common name; addresses only as iPAddress.
pub(super) fn speaks_for(cert: &CertificateDer<'_>, wanted: &ServerName<'_>) -> Result<(), Error> {
    let ServerName::DnsName(domain) = wanted else {
        return verify_server_name(&ParsedCertificate::try_from(cert)?, wanted);
    };
    let parsed = EndEntityCert::try_from(cert)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let uris: Vec<String> = parsed.valid_uri_names().filter_map(sip_domain).collect();
    let dns = parsed.valid_dns_names().map(str::to_owned);
    let named: Vec<String> = if uris.is_empty() { dns.collect() } else { uris };
    if named.iter().any(|name| name.eq_ignore_ascii_case(domain.as_ref())) {
        return Ok(());
    }
    Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
        expected: wanted.to_owned(),
        presented: named,
    }))
}
