//! Certificates for tests, made on the spot, and a SIP peer over TLS that is nobody of ours.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use floortape::base::limits::SIP_STREAM_MESSAGE_BYTES_MAX;
use floortape::wire::sip::{Frame, Message, StreamFramer};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A CA and the folder where its files go.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate on disk.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// What a name is.
pub(crate) fn san(name: &str) -> SanType {
    if name.starts_with("sip:") {
        SanType::URI(name.try_into().expect("ASCII"))
    } else if let Ok(address) = name.parse() {
        SanType::IpAddress(address)
    } else {
        SanType::DnsName(name.try_into().expect("ASCII"))
    }
}

impl Ca {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signed");
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).expect("ours");
        std::fs::write(folder.join("ca.pem"), issuer.pem()).expect("ours");
        Ca { issuer, folder }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate of these names, valid until the first day of `year`.
    pub(crate) fn issue(&self, file: &str, names: &[&str], year: i32) -> Files {
        self.issue_for(file, names, (2020, year))
    }

    /// The same, valid from the first day of one year until that of another.
    pub(crate) fn issue_for(&self, file: &str, names: &[&str], years: (i32, i32)) -> Files {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        params.serial_number = Some(serial(file));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        let files = Files {
            cert: self.folder.join(format!("{file}.pem")),
            key: self.folder.join(format!("{file}.key")),
        };
        std::fs::write(&files.cert, cert.pem()).expect("ours");
        std::fs::write(&files.key, key.serialize_pem()).expect("ours");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&files.key, mode).expect("ours");
        files
    }

    /// A revocation list that names the certificate of `file`.
    pub(crate) fn revoke(&self, file: &str) -> PathBuf {
        let revoked = RevokedCertParams {
            serial_number: serial(file),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("signed");
        let path = self.folder.join("crl.pem");
        std::fs::write(&path, list.pem().expect("PEM")).expect("ours");
        path
    }
}

fn serial(file: &str) -> SerialNumber {
    let mut bytes = vec![1];
    bytes.extend(file.bytes());
    SerialNumber::from(bytes)
}

/// What a client trusts, and shows.
pub(crate) fn client(ca: &Path, own: Option<&Files>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca).expect("PEM");
    roots.add(ca).expect("a CA");
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let cert = CertificateDer::from_pem_file(&files.cert).expect("PEM");
            let key = PrivateKeyDer::from_pem_file(&files.key).expect("PEM");
            builder.with_client_auth_cert(vec![cert], key).expect("they match")
        }
    }
}

/// A SIP peer on one TLS connection.
pub(crate) struct Peer {
    stream: StreamOwned<ClientConnection, TcpStream>,
    framer: StreamFramer,
    pub(crate) local: SocketAddr,
}

impl Peer {
    /// Connects to `localhost` at `port`; the handshake is whole when this returns.
    pub(crate) fn connect(port: u16, ca: &Path, own: Option<&Files>) -> std::io::Result<Self> {
        Peer::over(TcpStream::connect(("127.0.0.1", port))?, ca, own)
    }

    /// Shakes hands over `stream` with who must be `localhost`.
    pub(crate) fn over(stream: TcpStream, ca: &Path, own: Option<&Files>) -> std::io::Result<Self> {
        let name = ServerName::try_from("localhost").expect("a name");
        let config = Arc::new(client(ca, own));
        let tls = ClientConnection::new(config, name).expect("a configuration");
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let local = stream.local_addr()?;
        let mut stream = StreamOwned::new(tls, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let framer = StreamFramer::new(SIP_STREAM_MESSAGE_BYTES_MAX);
        Ok(Peer { stream, framer, local })
    }

    /// The certificate that the server has shown.
    pub(crate) fn shown(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().expect("shown")[0].to_vec()
    }

    /// The next final response.
    pub(crate) fn receive(&mut self) -> std::io::Result<Message> {
        loop {
            while let Some(frame) = self.framer.pull() {
                if let Frame::Message(message) = frame
                    && message.code().is_some_and(|code| code >= 200)
                {
                    return Ok(message);
                }
            }
            let mut bytes = [0; 16_384];
            match self.stream.read(&mut bytes)? {
                0 => return Err(std::io::ErrorKind::ConnectionAborted.into()),
                length => self.framer.push(&bytes[..length]),
            }
        }
    }

    pub(crate) fn send(&mut self, text: &str) -> std::io::Result<()> {
        self.stream.write_all(text.as_bytes())?;
        self.stream.flush()
    }

    pub(crate) fn ask(&mut self, text: &str) -> std::io::Result<Message> {
        self.send(text)?;
        self.receive()
    }
}
