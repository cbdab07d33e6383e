//! The client's side: whom we call, and how we show who we are (REQ-026).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::material::{TlsError, certified, provider, roots};
use super::names::speaks_for;

/// Files of a caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientSettings<'a> {
    /// CA of the servers, PEM.
    pub ca: Option<&'a Path>,
    /// Our certificate and its key, PEM.
    pub own: Option<(&'a Path, &'a Path)>,
}

/// What a caller shakes hands with: the chain must end at `settings.ca`, and the certificate must
/// speak for the SIP domain that is called (RFC 5922). Without a CA nobody is genuine.
pub fn caller(settings: ClientSettings<'_>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let roots = settings.ca.map(roots).transpose()?.unwrap_or_else(RootCertStore::empty);
    let verifier = Arc::new(SipDomain { roots, provider: Arc::clone(&provider) });
    let refused = |error: Error| TlsError::Refused {
        path: settings.ca.unwrap_or(Path::new("TLS")).to_owned(),
        error: error.to_string(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match settings.own {
        Some((cert, key)) => {
            let own = SingleCertAndKey::from(certified(cert, key)?);
            builder.with_client_cert_resolver(Arc::new(own))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Verifies the chain as WebPKI does, and the name as SIP does.
struct SipDomain {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for SipDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SipDomain with {} CAs", self.roots.len())
    }
}

impl ServerCertVerifier for SipDomain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        speaks_for(end_entity, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
