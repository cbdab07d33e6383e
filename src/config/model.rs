//! The shape of the configuration. Tables arrive with the feature that gives them meaning.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::access::Access;
use super::address::{Host, Listed};
use super::encryption::Encryption;
use super::policy::Policy;
use super::retention::RetentionClass;
use crate::base::family::Family;
use crate::base::keep::Keep;
use crate::base::suite::Suite;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Signalling.
    pub sip: Sip,
    /// Peers with rules of their own; the first match counts.
    pub peers: Vec<Peer>,
    /// What is recorded, and who may record.
    pub policy: Policy,
    /// Media.
    pub media: Media,
    /// Cores and threads.
    pub cpu: Cpu,
    /// Storage.
    pub store: Store,
    /// Who may do what.
    pub access: Access,
    /// How long what is recorded is kept: classes, the first that fits counts.
    pub retention: Vec<RetentionClass>,
    /// Proof, and where its heads are kept.
    pub evidence: Evidence,
    /// Figures over HTTP.
    pub http: Http,
    /// Logging.
    pub log: Log,
}

impl Config {
    /// What the configuration says of who sends from `address`, by the name of its certificate or the
    /// user that it has proven to be.
    pub fn peer(
        &self,
        address: IpAddr,
        identity: Option<&str>,
        user: Option<&str>,
    ) -> Option<&Peer> {
        self.peers.iter().find(|rule| match &rule.matches {
            PeerMatch::Address(known) => *known == address.to_canonical(),
            PeerMatch::Name(name) => identity.is_some_and(|own| own.eq_ignore_ascii_case(name)),
            PeerMatch::User(name) => user == Some(name),
        })
    }
}

/// `[sip]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sip {
    /// UDP listeners.
    pub udp: Vec<SocketAddr>,
    /// TCP listeners.
    pub tcp: Vec<SocketAddr>,
    /// TLS listeners.
    pub tls: Vec<SocketAddr>,
    /// What peers outside call the listeners by: written instead of their addresses.
    pub advertise: Option<Listed<Host>>,
    /// Our certificate and the chain above it, PEM.
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// Certificates that those of peers must descend from, PEM.
    pub client_ca: Option<PathBuf>,
    /// Revoked certificates of peers, PEM.
    pub client_crl: Option<PathBuf>,
    /// Peers without a certificate are refused.
    pub require_client_cert: bool,
    /// Realm of digest challenges.
    pub realm: String,
    /// Peers without a certificate must authenticate by digest.
    pub require_digest: bool,
    /// Largest SIP message taken over TCP, bytes.
    pub max_message_bytes: usize,
    /// Strict RFC 7866 for every peer that has no rule of its own.
    pub strict: bool,
    /// Least session interval taken, seconds (RFC 4028).
    pub min_se_s: u32,
    /// Session interval wanted, seconds; 0: none.
    pub session_expires_s: u32,
}

impl Default for Sip {
    fn default() -> Self {
        let local = SocketAddr::from(([127, 0, 0, 1], 5060));
        Sip {
            udp: vec![local],
            tcp: vec![local],
            tls: Vec::new(),
            advertise: None,
            cert: None,
            key: None,
            client_ca: None,
            client_crl: None,
            require_client_cert: false,
            realm: "floortape".to_owned(),
            require_digest: false,
            max_message_bytes: crate::base::limits::SIP_STREAM_MESSAGE_BYTES_MAX,
            strict: false,
            min_se_s: 90,
            session_expires_s: 1_800,
        }
    }
}

/// `[[peers]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Name in reports.
    pub name: String,
    /// How it is known.
    #[serde(rename = "match")]
    pub matches: PeerMatch,
    /// File with `user:password` that it must prove by digest.
    #[serde(default)]
    pub digest: Option<PathBuf>,
    /// Whether MD5 is taken from it.
    #[serde(default)]
    pub digest_md5: bool,
    /// Strict RFC 7866 for this peer; default as `sip.strict`.
    #[serde(default)]
    pub strict: Option<bool>,
    /// Plain RTP for this peer; default as `media.srtp`.
    #[serde(default)]
    pub srtp: Option<SrtpPolicy>,
    /// Crypto suites taken from it; default as `media.suites`.
    #[serde(default)]
    pub suites: Option<Vec<Suite>>,
    /// Whether its SRTP may be unencrypted; default as `media.unencrypted`.
    #[serde(default)]
    pub unencrypted: Option<bool>,
    /// Its metadata and new recordings over TLS only; default as `policy.secure_signalling`.
    #[serde(default)]
    pub secure_signalling: Option<bool>,
    /// It is behind address translation: plain RTP of it is taken from the first sender alone, wherever
    /// that is.
    #[serde(default)]
    pub nat: bool,
    /// SIP URI by which we call it to begin an RS; default: it calls us.
    #[serde(default)]
    pub call: Option<String>,
}

/// How a peer is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum PeerMatch {
    /// The address that it sends from.
    Address(IpAddr),
    /// What its certificate names, as `src.identity` of its recordings shows it.
    Name(String),
    /// The user that it authenticates as.
    User(String),
}

impl From<PeerMatch> for String {
    fn from(peer: PeerMatch) -> Self {
        match peer {
            PeerMatch::Address(address) => address.to_string(),
            PeerMatch::Name(name) => name,
            PeerMatch::User(user) => format!("user:{user}"),
        }
    }
}

impl TryFrom<String> for PeerMatch {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(PeerMatch::Address(address));
        }
        match text.strip_prefix("user:") {
            Some(user) if !user.is_empty() => Ok(PeerMatch::User(user.to_owned())),
            // Something like an address that is none is a slip, not a name.
            None if text.contains(|c: char| c.is_ascii_alphabetic()) && !text.contains('/') => {
                Ok(PeerMatch::Name(text))
            }
            _ => Err(format!(
                "expected an address such as \"192.0.2.7\", a certificate's name such as \
                 \"sip:desk.example\", or \"user:NAME\", found \"{text}\""
            )),
        }
    }
}

/// `[media]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Media {
    /// Addresses that media is received on and that answers carry, where nothing else is said.
    pub address: Listed<IpAddr>,
    /// What answers carry instead, at most one of each family.
    pub advertise: Option<Listed<IpAddr>>,
    /// RTP/RTCP port range, `first-last`.
    pub ports: PortRange,
    /// Streams recorded at once.
    pub streams_max: u32,
    /// Receive engine.
    pub engine: Engine,
    /// The card at which [`Engine::Xdp`] has frames diverted.
    pub interface: Option<String>,
    /// Whether the ports of all streams are steered to few sockets.
    pub steering: Steering,
    /// Plain RTP lines: refused, taken where no secure line has the label, taken. Default `allow`
    /// on loopback, else `prefer`.
    pub srtp: Option<SrtpPolicy>,
    /// Crypto suites that are taken.
    pub suites: Vec<Suite>,
    /// Whether SRTP and SRTCP are taken that are authenticated and not encrypted.
    pub unencrypted: bool,
}

impl Default for Media {
    fn default() -> Self {
        Media {
            address: Listed(vec![IpAddr::from([127, 0, 0, 1])]),
            advertise: None,
            ports: PortRange { first: 20_000, last: 29_999 },
            streams_max: 64,
            engine: Engine::Auto,
            interface: None,
            steering: Steering::Auto,
            srtp: None,
            suites: Suite::USUAL.to_vec(),
            unencrypted: false,
        }
    }
}

impl Sip {
    /// The files that TLS is made from, where they are named.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.cert, &mut self.key, &mut self.client_ca, &mut self.client_crl]
            .into_iter()
            .flatten()
    }
}

impl Media {
    /// The policy in force.
    pub fn srtp_policy(&self) -> SrtpPolicy {
        self.srtp.unwrap_or(if self.address.0.iter().all(IpAddr::is_loopback) {
            SrtpPolicy::Allow
        } else {
            SrtpPolicy::Prefer
        })
    }

    /// What SRCs reach a bound address by.
    pub fn advertised(&self, bound: IpAddr) -> IpAddr {
        self.advertised_of(Family::of(bound)).unwrap_or(bound)
    }

    /// `media.advertise` of that family.
    pub fn advertised_of(&self, family: Family) -> Option<IpAddr> {
        let all = self.advertise.as_ref().map_or(&[][..], |all| &all.0);
        all.iter().copied().find(|ip| Family::of(*ip) == family)
    }

    /// What we call ourselves in that family where a listener on every address does not say it: the
    /// first address that is one.
    pub fn own(&self, family: Family) -> Option<IpAddr> {
        let bound = self.address.0.iter().copied().filter(|ip| Family::of(*ip) == family);
        bound.clone().find(|ip| !ip.is_unspecified()).or(self.advertised_of(family))
    }
}

/// A port range, written `first-last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        format!("{}-{}", range.first, range.last)
    }
}

impl TryFrom<String> for PortRange {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let fault = || format!("expected a port range such as \"20000-29999\", found \"{text}\"");
        let (first, last) = text.split_once('-').ok_or_else(fault)?;
        let first = first.trim().parse().map_err(|_| fault())?;
        let last = last.trim().parse().map_err(|_| fault())?;
        if first == 0 || first >= last {
            return Err(fault());
        }
        Ok(PortRange { first, last })
    }
}

/// Receive engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// io_uring where it is permitted, else recvmmsg.
    #[default]
    Auto,
    /// io_uring or nothing.
    #[serde(rename = "io_uring")]
    IoUring,
    /// recvmmsg.
    Recvmmsg,
    /// AF_XDP at [`Media::interface`], or nothing.
    Xdp,
}

/// Whether ports are steered to few sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Steering {
    /// Where it is permitted.
    #[default]
    Auto,
    /// That or nothing.
    On,
    /// Each port is received from its own socket.
    Off,
}

/// What to do with plain RTP lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SrtpPolicy {
    /// Refused.
    Require,
    /// Taken only where the offer has no secure line for that label.
    Prefer,
    /// Taken as offered.
    Allow,
}

/// `[cpu]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cpu {
    /// Media workers; 0: one per core in `rx`.
    pub workers: u16,
    /// Cores that workers are pinned to, such as `2-5` or `2,4`; empty: not pinned.
    pub rx: String,
    /// Cores of the spool threads; empty: what `rx` leaves, if anything is pinned.
    pub spool: String,
    /// Cores of control; empty: the same.
    pub control: String,
}

impl Default for Cpu {
    fn default() -> Self {
        Cpu { workers: 1, rx: String::new(), spool: String::new(), control: String::new() }
    }
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Where everything is kept.
    pub dir: PathBuf,
    /// Seconds of full load that the ring holds.
    pub ring_seconds: u32,
    /// Largest segment, MiB.
    pub segment_mib: u32,
    /// Longest time between two syncs of the log, ms.
    pub commit_ms: u64,
    /// Longest span of a segment, s.
    pub segment_s: u64,
    /// Segments hold packed records.
    pub packing: bool,
    /// Journal folder; default: `journal` in `dir`.
    pub journal_dir: Option<PathBuf>,
    /// New RSs are refused when less than this many minutes of the present load fit on the disk.
    pub reserve_minutes: u32,
    /// Where the log, segments and journal go on when the disk of `dir` fails or is full.
    pub spare_dir: Option<PathBuf>,
    /// More folders for segments: each goes to where most room is, `dir` included.
    pub segment_dirs: Vec<PathBuf>,
    /// Id of the store that must be in `dir`.
    pub volume: Option<String>,
    /// `dir` must lie on another disk than `/`.
    pub require_mount: bool,
    /// What becomes of running RSs of which nothing can be kept any more.
    pub unrecordable: Unrecordable,
    /// Where the key-encryption key is; off: what is recorded is stored in clear.
    pub encryption: Encryption,
    /// How long a recording is kept that no class of `[[retention]]` fits.
    pub retention: Keep,
    /// Seconds between two looks for what may go.
    pub retention_check_s: u64,
}

/// What becomes of running RSs of which nothing can be kept: the disk has failed and the ring is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unrecordable {
    /// BYE with Reason: the SRC can go elsewhere, end the call, or announce it.
    #[default]
    End,
    /// They stay up, and go on being recorded when the disk is well again.
    Keep,
}

impl Store {
    /// Folders beside `dir` that anything of the store may be written to: the spare one, then those for
    /// segments.
    pub fn more_dirs(&self) -> impl Iterator<Item = &Path> {
        self.spare_dir.iter().chain(&self.segment_dirs).map(PathBuf::as_path)
    }

    /// All folders whose room counts, `dir` first.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.dir.as_path()).chain(self.more_dirs())
    }
}

impl Default for Store {
    fn default() -> Self {
        Store {
            dir: PathBuf::from("./floortape-data"),
            ring_seconds: 60,
            segment_mib: 256,
            commit_ms: 100,
            segment_s: 300,
            packing: true,
            journal_dir: None,
            reserve_minutes: 10,
            spare_dir: None,
            segment_dirs: Vec::new(),
            volume: None,
            require_mount: false,
            unrecordable: Unrecordable::End,
            encryption: Encryption::Off,
            retention: Keep::Forever,
            retention_check_s: 3_600,
        }
    }
}

/// `[evidence]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evidence {
    /// File on another disk that anchors are appended to.
    pub anchor_file: Option<PathBuf>,
    /// Syslog that gets them: a socket's path, or an IP address with its port.
    pub syslog: Option<String>,
    /// URL that they are posted to.
    pub webhook: Option<String>,
    /// File with the token that the webhook is shown.
    pub webhook_token: Option<PathBuf>,
    /// Longest time from a new segment to its anchor, s.
    pub anchor_s: u64,
    /// Everything that is sealed is read once in so many days; 0: never.
    pub scrub_days: u32,
    /// At most so fast, MiB/s.
    pub scrub_mib_s: u32,
}

impl Default for Evidence {
    fn default() -> Self {
        Evidence {
            anchor_file: None,
            syslog: None,
            webhook: None,
            webhook_token: None,
            anchor_s: 60,
            scrub_days: 7,
            scrub_mib_s: 32,
        }
    }
}

/// `[http]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Where `/metrics`, `/healthz` and `/readyz` are answered; empty: nowhere.
    pub listen: Vec<SocketAddr>,
    /// File with the token that `/metrics` wants to hear.
    pub token: Option<PathBuf>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".to_owned() }
    }
}
