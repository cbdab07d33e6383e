//! The SIP socket of the SRC: all its dialogs share one UDP socket or one TCP or TLS connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use crate::base::limits::{SIP_MESSAGE_BYTES_MAX, SIP_STREAM_MESSAGE_BYTES_MAX};
use crate::proto::sip::{ConnId, Input, Target as Hop, TlsPeer, Transport};
use crate::shell::tls::{self, ClientSettings, TlsError, server_name};
use crate::wire::sip::{Frame, Message, StreamFramer, Uri, parse_datagram};

/// How long a TCP connection may take to come up.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one look for a message waits.
const WAIT: Duration = Duration::from_millis(5);

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

/// The only connection of a load.
const CONNECTION: ConnId = ConnId(1);

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
    Tcp(TcpStream, Box<StreamFramer>),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>, Box<StreamFramer>),
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
            let stream = TcpStream::connect_timeout(&peer, CONNECT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(WAIT))?;
            let local = stream.local_addr()?;
            let framer = Box::new(StreamFramer::new(SIP_STREAM_MESSAGE_BYTES_MAX));
            let socket = match target.transport {
                Transport::Tls => Socket::Tls(Box::new(shake(stream, target, files)?), framer),
                _ => Socket::Tcp(stream, framer),
            };
            (socket, local)
        };
        Ok(Signalling { socket, local, peer, heard: false })
    }

    /// The one hop there is, as the SIP machine names it.
    pub fn hop(&self) -> Hop {
        let (local, peer) = (self.local, self.peer);
        match self.socket {
            Socket::Udp(_) => Hop::Udp { local, peer },
            Socket::Tcp(..) | Socket::Tls(..) => {
                let secure = matches!(self.socket, Socket::Tls(..));
                Hop::Stream { conn: CONNECTION, peer, local, secure }
            }
        }
    }

    /// What the SIP machine must hear before its first request; `None` for UDP.
    pub fn connected(&self) -> Option<Input<'static>> {
        let (local, peer) = (self.local, self.peer);
        let tls = match self.socket {
            Socket::Udp(_) => return None,
            Socket::Tcp(..) => None,
            // One connection is all there is: whose it is has been verified.
            Socket::Tls(..) => Some(TlsPeer::default()),
        };
        Some(Input::Connected { conn: CONNECTION, local, peer, tls })
    }

    /// Received bytes as the SIP machine takes them.
    pub fn input<'a>(&self, bytes: &'a [u8]) -> Input<'a> {
        match self.socket {
            Socket::Udp(_) => Input::Datagram { local: self.local, peer: self.peer, bytes },
            Socket::Tcp(..) | Socket::Tls(..) => Input::Stream { conn: CONNECTION, bytes },
        }
    }

    /// Sends one message.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Udp(socket) => match socket.send(bytes) {
                Err(error) if self.heard && is_refused(&error) => Ok(()),
                sent => sent.map(|_| ()),
            },
            Socket::Tcp(stream, _) => stream.write_all(bytes),
            Socket::Tls(stream, _) => {
                let sent = stream.write_all(bytes).and_then(|()| stream.flush());
                // What the server said before it closed tells more than that it did.
                sent.map_err(|error| match stream.read(&mut [0]) {
                    Err(said) if said.get_ref().is_some() => said,
                    _ => error,
                })
            }
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
            Socket::Tcp(stream, _) => quiet(stream.read(&mut bytes))?,
            Socket::Tls(stream, _) => quiet(stream.read(&mut bytes))?,
        };
        let Some(length) = length else { return Ok(None) };
        self.heard = true;
        bytes.truncate(length);
        let messages = match &mut self.socket {
            Socket::Udp(_) => parse_datagram(&bytes).ok().into_iter().collect(),
            _ if length == 0 => return Err(io::ErrorKind::ConnectionAborted.into()),
            Socket::Tcp(_, framer) | Socket::Tls(_, framer) => {
                framer.push(&bytes);
                let whole = |frame| match frame {
                    Frame::Message(message) => Some(message),
                    Frame::KeepAlive | Frame::Broken(_) | Frame::Lost(_) => None,
                };
                std::iter::from_fn(|| framer.pull()).filter_map(whole).collect()
            }
        };
        Ok(Some(Received { bytes, messages }))
    }
}

/// The handshake, whole: chain and SIP domain of the server are verified in it.
fn shake(
    mut stream: TcpStream,
    target: &Target,
    files: &TlsFiles,
) -> Result<StreamOwned<ClientConnection, TcpStream>, ConnectError> {
    let own = files.own.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
    let config = tls::caller(ClientSettings { ca: files.ca.as_deref(), own })?;
    let domain = files.domain.as_deref().unwrap_or(&target.host);
    let wrong = |why: String| ConnectError::Tls { domain: domain.to_owned(), why };
    let name = server_name(domain).ok_or_else(|| wrong("no name of a domain".to_owned()))?;
    let mut tls = ClientConnection::new(config, name).map_err(|error| wrong(error.to_string()))?;
    let deadline = Instant::now() + CONNECT;
    while tls.is_handshaking() {
        match quiet(tls.complete_io(&mut stream).map(|(read, _)| read)) {
            Ok(Some(_)) => {}
            Ok(None) if Instant::now() < deadline => {}
            Ok(None) => return Err(wrong("no handshake within 5 s".to_owned())),
            Err(error) => return Err(wrong(error.to_string())),
        }
    }
    Ok(StreamOwned::new(tls, stream))
}

/// "Port unreachable" from a server that has answered before: it is being started again, and what
/// was lost is sent again by timers (RFC 3261 §17.1). Before that, nobody is there.
fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// `None` where nothing came in time.
fn quiet(result: io::Result<usize>) -> io::Result<Option<usize>> {
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
