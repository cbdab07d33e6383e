//! Certificates, keys and CAs from PEM files, and what is wrong with them.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, RootCertStore};
use zeroize::Zeroizing;

use super::server;
use crate::config::Breach;
use crate::config::model::{Config, Sip};

/// A PEM file is read up to here: a chain or a bundle of CAs is some 300 KiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {error}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file that is no PEM, or has nothing of the kind.
    #[error("{path}: expected {wanted} in PEM, found {found}", path = .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// What is.
        found: String,
    },
    /// A key that everybody may read is no key.
    #[error("{path}: expected a key that others cannot read, found mode {mode:04o}", path = .path.display())]
    OpenKey {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key belongs to another certificate.
    #[error("{key} is not the key of the first certificate in {cert}", key = .key.display(), cert = .cert.display())]
    Mismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// rustls does not take it.
    #[error("{path}: {error}", path = .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it says.
        error: String,
    },
}

/// Who does the cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let of = |error| TlsError::Read { path: path.to_owned(), error };
    let facts = std::fs::metadata(path).map_err(of)?;
    if facts.len() > FILE_BYTES_MAX {
        return Err(of(io::Error::new(io::ErrorKind::FileTooLarge, "more than 4 MiB")));
    }
    std::fs::read(path).map(Zeroizing::new).map_err(of)
}

/// All sections of one kind.
fn sections<T: PemObject>(path: &Path, wanted: &'static str) -> Result<Vec<T>, TlsError> {
    let content = |found: String| TlsError::Content { path: path.to_owned(), wanted, found };
    let found: Result<Vec<T>, _> = T::pem_slice_iter(&read(path)?).collect();
    let found = found.map_err(|error| content(error.to_string()))?;
    if found.is_empty() { Err(content("none".to_owned())) } else { Ok(found) }
}

/// A certificate with the chain above it, and its key.
pub(super) fn certified(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain: Vec<CertificateDer<'static>> = sections(cert, "a certificate")?;
    let content =
        |found: String| TlsError::Content { path: key.to_owned(), wanted: "a private key", found };
    let text = read(key)?;
    let mode = std::fs::metadata(key).map(|facts| facts.permissions().mode()).unwrap_or(0) & 0o777;
    if mode & 0o007 != 0 {
        return Err(TlsError::OpenKey { path: key.to_owned(), mode });
    }
    let private =
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| content(error.to_string()))?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(_) => {
            TlsError::Mismatch { cert: cert.to_owned(), key: key.to_owned() }
        }
        Error::InvalidCertificate(_) => {
            TlsError::Refused { path: cert.to_owned(), error: error.to_string() }
        }
        error => content(error.to_string()),
    })
}

/// The CAs in a file.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in sections::<CertificateDer<'static>>(path, "a CA certificate")? {
        let refused =
            |error: Error| TlsError::Refused { path: path.to_owned(), error: error.to_string() };
        roots.add(cert).map_err(refused)?;
    }
    Ok(roots)
}

/// The revocation lists in a file.
pub(super) fn revoked(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    sections(path, "a revocation list")
}

/// What is wrong with the files that `sip` names, for the configuration's faults.
pub fn faults(config: &Config) -> Vec<Breach> {
    let sip = &config.sip;
    let breach = |path, error: TlsError| Breach { path, why: error.to_string(), fix: None };
    let mut found = Vec::new();
    if let (Some(cert), Some(key)) = (&sip.cert, &sip.key)
        && let Err(error) = certified(cert, key)
    {
        let at_key = match &error {
            TlsError::Read { path, .. }
            | TlsError::Content { path, .. }
            | TlsError::OpenKey { path, .. } => path == key,
            TlsError::Mismatch { .. } => true,
            TlsError::Refused { .. } => false,
        };
        found.push(breach(if at_key { "sip.key" } else { "sip.cert" }, error));
    }
    let ca = sip.client_ca.as_deref().map(roots);
    found.extend(ca.and_then(Result::err).map(|error| breach("sip.client_ca", error)));
    let crl = sip.client_crl.as_deref().map(revoked);
    found.extend(crl.and_then(Result::err).map(|error| breach("sip.client_crl", error)));
    // What the files hold may still be refused together.
    if found.is_empty()
        && !sip.tls.is_empty()
        && let Err(error) = server::acceptor(sip)
    {
        let path = if sip.client_crl.is_some() { "sip.client_crl" } else { "sip.cert" };
        found.push(breach(path, error));
    }
    found
}

/// How long a certificate lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Whole days left; negative once it is over.
    pub days: i64,
}

impl Term {
    /// Whether it has expired.
    pub fn is_over(self) -> bool {
        self.days < 0
    }

    /// The warning level: 30, 7 or 1 days, 0 when it is over; `None`: longer (F62).
    pub fn level(self) -> Option<i64> {
        match self.days {
            ..0 => Some(0),
            0..=1 => Some(1),
            2..=7 => Some(7),
            8..=30 => Some(30),
            _ => None,
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.days;
        match self.level() {
            None => write!(f, "ok: lasts {days} days"),
            Some(0) => write!(f, "expired: clients refuse it; renew sip.cert and reload"),
            Some(_) => write!(f, "lasts only {days} days: renew sip.cert and reload"),
        }
    }
}

/// How long the certificate of `sip` lasts; `None` where there is none that can be read.
pub fn term(sip: &Sip) -> Option<Term> {
    let chain: Vec<CertificateDer<'static>> =
        sections(sip.cert.as_deref()?, "a certificate").ok()?;
    let not_after = not_after(chain.first()?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Some(Term { days: (not_after as i64 - now as i64).div_euclid(86_400) })
}

/// Last second of a certificate, Unix time. rustls says it when it refuses one as expired, which is
/// what it looks at before anything else.
fn not_after(cert: &CertificateDer<'_>) -> Option<u64> {
    /// The year 9999, behind which no certificate ends (RFC 5280 §4.1.2.5).
    const LATER: Duration = Duration::from_secs(253_402_300_800);
    let parsed = ParsedCertificate::try_from(cert).ok()?;
    let verified = verify_server_cert_signed_by_trust_anchor(
        &parsed,
        &RootCertStore::empty(),
        &[],
        UnixTime::since_unix_epoch(LATER),
        provider().signature_verification_algorithms.all,
    );
    match verified {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(not_after.as_secs())
        }
        _ => None,
    }
}
