//! The server's side: our certificate, and whose certificates we take.

use std::io;
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, Error, ServerConfig};

use super::material::{TlsError, certified, provider, revoked, roots};
use crate::config::model::Sip;

/// What a listener shakes hands with. `sip` names the files; a missing one is an error.
pub fn acceptor(sip: &Sip) -> Result<Arc<ServerConfig>, TlsError> {
    let missing = |wanted| TlsError::Content {
        path: "sip.tls".into(),
        wanted,
        found: "no file named".to_owned(),
    };
    let cert = sip.cert.as_deref().ok_or_else(|| missing("a certificate"))?;
    let key = sip.key.as_deref().ok_or_else(|| missing("a private key"))?;
    let own = certified(cert, key)?;
    let refused = |path: &std::path::Path, error: &dyn std::fmt::Display| TlsError::Refused {
        path: path.to_owned(),
        error: error.to_string(),
    };
    let verifier = match sip.client_ca.as_deref() {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(roots(ca)?);
            let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
            if let Some(crl) = &sip.client_crl {
                // The list of the CA that issued it is what the operator has; lists of CAs above
                // are rarely at hand, and an old list is better than none.
                builder = builder
                    .with_crls(revoked(crl)?)
                    .only_check_end_entity_revocation()
                    .allow_unknown_revocation_status();
            }
            if !sip.require_client_cert {
                builder = builder.allow_unauthenticated();
            }
            builder.build().map_err(|error| refused(ca, &error))?
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(cert, &error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    // No resumption: a session from before would bring a certificate that has expired or been revoked
    // since. SIP connections last, so that a handshake more is nothing.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Why a handshake was refused, or came to nothing. Each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// The client shows no certificate, and must.
    NoCertificate,
    /// Its certificate has expired.
    Expired,
    /// Its certificate is not valid yet.
    NotYetValid,
    /// Its certificate comes from no CA that we know.
    UnknownCa,
    /// Its certificate is revoked.
    Revoked,
    /// Its certificate is wrong in another way.
    Certificate,
    /// No version or cipher in common.
    Incompatible,
    /// It does not take our certificate, or ended the handshake otherwise.
    ByPeer,
    /// What came is no TLS.
    NoTls,
    /// Nothing came in time.
    Silent,
    /// The handshake took too long.
    Slow,
    /// It gave way to a newer one.
    GaveWay,
    /// Its source has too many under way.
    TooMany,
    /// We have no certificate that can be used.
    NotReady,
    /// The connection fell.
    Closed,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 15] = [
        Refusal::NoCertificate,
        Refusal::Expired,
        Refusal::NotYetValid,
        Refusal::UnknownCa,
        Refusal::Revoked,
        Refusal::Certificate,
        Refusal::Incompatible,
        Refusal::ByPeer,
        Refusal::NoTls,
        Refusal::Silent,
        Refusal::Slow,
        Refusal::GaveWay,
        Refusal::TooMany,
        Refusal::NotReady,
        Refusal::Closed,
    ];

    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Refusal::NoCertificate => "no client certificate",
            Refusal::Expired => "client certificate has expired",
            Refusal::NotYetValid => "client certificate is not valid yet",
            Refusal::UnknownCa => "client certificate is of an unknown CA",
            Refusal::Revoked => "client certificate is revoked",
            Refusal::Certificate => "client certificate cannot be used",
            Refusal::Incompatible => "no TLS version or cipher in common",
            Refusal::ByPeer => "the client does not take our certificate or gave up",
            Refusal::NoTls => "no TLS",
            Refusal::Silent => "nothing came within 2 s",
            Refusal::Slow => "no handshake within 5 s",
            Refusal::GaveWay => "gave way to a newer connection",
            Refusal::TooMany => "too many handshakes of its source",
            Refusal::NotReady => "our own certificate cannot be used",
            Refusal::Closed => "closed during the handshake",
        }
    }

    /// What the error of a handshake means.
    pub fn of(error: &io::Error) -> Refusal {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(Error::NoCertificatesPresented) => Refusal::NoCertificate,
            Some(Error::InvalidCertificate(why)) => match why {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Refusal::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Refusal::NotYetValid
                }
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Refusal::UnknownCa
                }
                CertificateError::Revoked => Refusal::Revoked,
                _ => Refusal::Certificate,
            },
            Some(Error::PeerIncompatible(_)) => Refusal::Incompatible,
            Some(Error::AlertReceived(_)) => Refusal::ByPeer,
            Some(_) => Refusal::NoTls,
            None => Refusal::Closed,
        }
    }
}
