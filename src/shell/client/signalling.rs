//! The SIP socket of the SRC: all its dialogs share one UDP socket or one TCP or TLS connection, which
//! is made again when it falls.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use super::connection::Connection;
use crate::base::limits::SIP_MESSAGE_BYTES_MAX;
use crate::proto::sip::{Input, Target as Hop, TlsPeer, Transport};
use crate::shell::tls::TlsError;
use crate::wire::sip::{Message, Uri, parse_datagram};

/// How long one look for a message waits.
pub(super) const WAIT: Duration = Duration::from_millis(5);

/// Where to call, from `--to`.
pub struct Target {
    /// The URI as given.
    pub uri: String,
    /// Its address.
    pub address: SocketAddr,
    /// Transport.
    pub transport: Transport,
    /// The SIP domain: its host.
    pub host: String,
}

/// How a TLS server is verified, and who we say that we are.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// CA of the server's certificate, PEM.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key, PEM.
    pub own: Option<(PathBuf, PathBuf)>,
    /// The SIP domain that the certificate must name, where it is not the host that is called.
    pub domain: Option<String>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody is there.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A file of ours cannot be used.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// The server is not who it should be, or does not take us.
    #[error("TLS with {domain}: {why}")]
    Tls {
        /// The SIP domain called.
        domain: String,
        /// What is wrong.
        why: String,
    },
}

impl ConnectError {
    /// What an error of an open connection to `domain` means: what TLS says is no accident.
    pub fn of(error: io::Error, domain: &str) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(why) => ConnectError::Tls { domain: domain.to_owned(), why: why.to_string() },
            None => ConnectError::Io(error),
        }
    }
}

/// Why `--to` cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No SIP URI.
    #[error("expected a URI such as sip:srs@192.0.2.20:5060;transport=tcp, found {0}")]
    Uri(String),
    /// Another transport.
    #[error("expected transport udp, tcp or tls, found {0}")]
    Transport(String),
    /// The name has no address.
    #[error("{host} has no address: {error}")]
    Unknown {
        /// Its host.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
}

impl Target {
    /// Reads the URI and looks its host up.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let uri = Uri::parse(text)
            .filter(|uri| ["sip", "sips"].contains(&&*uri.scheme) && !uri.host.is_empty())
            .ok_or_else(|| TargetError::Uri(text.to_owned()))?;
        let secure = uri.scheme == "sips";
        let transport = match uri.params.get("transport").map(str::to_ascii_lowercase).as_deref() {
            // RFC 3261 §26.2.2: TLS over TCP is what `transport=tcp` means there.
            None | Some("tcp" | "tls") if secure => Transport::Tls,
            None => Transport::Udp,
            Some(name) if secure => return Err(TargetError::Transport(name.to_owned())),
            Some(name) => Transport::from_label(name)
                .ok_or_else(|| TargetError::Transport(name.to_owned()))?,
        };
        let port = uri.port.unwrap_or(transport.port());
        let address = match uri.ip() {
            Some(ip) => SocketAddr::new(ip, port),
            None => {
                let unknown = |error| TargetError::Unknown { host: uri.host.clone(), error };
                let mut found = (&*uri.host, port).to_socket_addrs().map_err(unknown)?;
                found.next().ok_or_else(|| unknown(io::ErrorKind::NotFound.into()))?
            }
        };
        Ok(Target { uri: text.to_owned(), address, transport, host: uri.host })
    }
}

/// What has come.
#[derive(Default)]
pub struct Received {
    /// As it came: a datagram, or a piece of the stream.
    pub bytes: Vec<u8>,
    /// The messages that it completed, for those who watch.
    pub messages: Vec<Message>,
}

enum Socket {
    Udp(UdpSocket),
    Stream(Box<Connection>),
}

/// The connected socket.
pub struct Signalling {
    socket: Socket,
    /// Our address, as Via and Contact state it.
    pub local: SocketAddr,
    peer: SocketAddr,
    /// Whether the server has ever answered.
    heard: bool,
}

impl Signalling {
    /// Connects. UDP is connected too, so that "port unreachable" comes back as an error. Over TLS
    /// the server has been verified when this returns; nothing has been said to it before (REQ-026).
    pub fn connect(target: &Target, files: &TlsFiles) -> Result<Self, ConnectError> {
        let peer = target.address;
        let any: SocketAddr = if peer.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let (socket, local) = if target.transport == Transport::Udp {
            let socket = UdpSocket::bind(any)?;
            socket.connect(peer)?;
            socket.set_read_timeout(Some(WAIT))?;
            let local = socket.local_addr()?;
            (Socket::Udp(socket), local)
        } else {
            let connection = Connection::open(target, files)?;
            let local = connection.local()?;
            (Socket::Stream(Box::new(connection)), local)
        };
        Ok(Signalling { socket, local, peer, heard: false })
    }

    /// The one hop there is, as the SIP machine names it.
    pub fn hop(&self) -> Hop {
        let (local, peer) = (self.local, self.peer);
        match &self.socket {
            Socket::Udp(_) => Hop::Udp { local, peer },
            Socket::Stream(own) if own.is_open() => {
                Hop::Stream { conn: own.number, peer, local, secure: own.is_secure() }
            }
            Socket::Stream(own) => Hop::Dial { local, peer, secure: own.is_secure() },
        }
    }

    /// What the SIP machine must hear before its first request; `None` for UDP.
    pub fn connected(&self) -> Option<Input<'static>> {
        let (local, peer) = (self.local, self.peer);
        let Socket::Stream(own) = &self.socket else { return None };
        // One connection is all there is: whose it is has been verified.
        let tls = own.is_secure().then(TlsPeer::default);
        Some(Input::Connected { conn: own.number, local, peer, tls })
    }

    /// Whether requests get out now. UDP has nothing that could fall.
    pub fn is_open(&self) -> bool {
        match &self.socket {
            Socket::Udp(_) => true,
            Socket::Stream(own) => own.is_open(),
        }
    }

    /// What the SIP machine must hear of a connection that ended, once.
    pub fn ended(&mut self) -> Option<Input<'static>> {
        let Socket::Stream(own) = &mut self.socket else { return None };
        own.ended().map(|conn| Input::Closed { conn })
    }

    /// Makes another connection where there is none: what the SIP machine must hear of it. `None`
    /// where there is nothing to do, and, after a short wait, where the server takes none yet. An
    /// error: it is gone.
    pub fn reconnect(&mut self) -> Result<Option<Input<'static>>, ConnectError> {
        let Socket::Stream(own) = &mut self.socket else { return Ok(None) };
        if !own.reopen()? {
            return Ok(None);
        }
        // One that has fallen again had no other place.
        self.local = own.local().unwrap_or(self.local);
        Ok(self.connected())
    }

    /// Received bytes as the SIP machine takes them.
    pub fn input<'a>(&self, bytes: &'a [u8]) -> Input<'a> {
        match &self.socket {
            Socket::Udp(_) => Input::Datagram { local: self.local, peer: self.peer, bytes },
            Socket::Stream(own) => Input::Stream { conn: own.number, bytes },
        }
    }

    /// Sends one message, or keeps it for the next connection.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Udp(socket) => match socket.send(bytes) {
                Err(error) if self.heard && is_refused(&error) => Ok(()),
                sent => sent.map(|_| ()),
            },
            Socket::Stream(own) => own.send(bytes),
        }
    }

    /// What has come, after a wait of a few milliseconds where there is nothing. An error means that
    /// the server is gone.
    pub fn receive(&mut self) -> io::Result<Option<Received>> {
        let mut bytes = vec![0; SIP_MESSAGE_BYTES_MAX];
        let length = match &mut self.socket {
            Socket::Udp(socket) => match quiet(socket.recv(&mut bytes)) {
                Err(error) if self.heard && is_refused(&error) => None,
                received => received?,
            },
            Socket::Stream(own) => own.receive(&mut bytes)?,
        };
        let Some(length) = length else { return Ok(None) };
        self.heard = true;
        bytes.truncate(length);
        let messages = match &mut self.socket {
            Socket::Udp(_) => parse_datagram(&bytes).ok().into_iter().collect(),
            Socket::Stream(own) => own.messages(&bytes),
        };
        Ok(Some(Received { bytes, messages }))
    }
}

/// "Port unreachable" from a server that has answered before: it is being started again, and what
/// was lost is sent again by timers (RFC 3261 §17.1). Before that, nobody is there.
fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// `None` where nothing came in time.
pub(super) fn quiet(result: io::Result<usize>) -> io::Result<Option<usize>> {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    match result {
        Ok(length) => Ok(Some(length)),
        Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_knows_transport_port_and_what_it_cannot_call() {
        let target = Target::parse("sip:srs@127.0.0.1;transport=TCP").expect("valid");
        assert_eq!((target.transport, target.address.port()), (Transport::Tcp, 5_060));
        assert!(matches!(Target::parse("tel:110"), Err(TargetError::Uri(_))));
        for secure in ["sip:srs@127.0.0.1;transport=tls", "sips:srs@127.0.0.1"] {
            let target = Target::parse(secure).expect("valid");
            assert_eq!((target.transport, target.address.port()), (Transport::Tls, 5_061));
        }
        let sctp = Target::parse("sip:srs@127.0.0.1;transport=sctp");
        assert!(matches!(sctp, Err(TargetError::Transport(_))));
        let udp = Target::parse("sips:srs@127.0.0.1;transport=udp");
        assert!(matches!(udp, Err(TargetError::Transport(_))));
    }
}
