//! The signalling sockets: bytes in, bytes out, nothing understood here. TLS ends here.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::doorway::{Doorway, Shaken, Wire};
use super::lanes::{Inbox, Lanes, lanes};
use crate::base::family::Family;
use crate::base::limits::SIP_MESSAGE_BYTES_MAX;
use crate::config::model::Sip;

/// Something came in from the network.
pub(super) enum Arrival {
    /// A datagram.
    Datagram {
        /// The listener that took it.
        local: SocketAddr,
        /// Who sent it.
        peer: SocketAddr,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A connection, accepted or dialled.
    Connected {
        /// Its number.
        conn: u64,
        /// Our end.
        local: SocketAddr,
        /// Their end.
        peer: SocketAddr,
        /// Where to write.
        writer: Writer,
        /// Reading ends when this is dropped.
        reading: oneshot::Sender<()>,
        /// For TLS, whom the peer's certificate names, if it showed one.
        tls: Option<Option<String>>,
    },
    /// Bytes of a connection.
    Stream {
        /// Its number.
        conn: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A connection ended.
    Closed {
        /// Its number.
        conn: u64,
    },
    /// A connection of our own could not be opened.
    Unreachable {
        /// Where to.
        peer: SocketAddr,
        /// Whether it was to be TLS.
        secure: bool,
    },
}

/// The writing half of a connection.
pub(super) type Writer = WriteHalf<Box<dyn Wire>>;

/// Messages that may wait for a slow connection before it is given up.
const WRITES_MAX: usize = 256;
/// A peer that takes nothing for so long (64·T1) is gone.
const WRITE_TIME: std::time::Duration = std::time::Duration::from_secs(32);
/// A connection of ours that does not open by then goes another way, or nowhere: 8·T1, so that a
/// request that was only too large for UDP still gets there in time.
const CONNECT_TIME: std::time::Duration = std::time::Duration::from_secs(4);
/// Connections at once.
const CONNECTIONS_MAX: usize = 8_192;

/// Numbers of connections that we opened are above this.
const DIALLED_FIRST: u64 = 1 << 62;

/// The listeners as keeper bound them. Nobody reads them yet: what arrives waits in the kernel.
pub(super) struct Bound {
    udp: Vec<std::net::UdpSocket>,
    tcp: Vec<std::net::TcpListener>,
    tls: Vec<std::net::TcpListener>,
}

impl Bound {
    /// Sorts what keeper handed over: UDP, TCP and TLS in the order of the configuration.
    pub(super) fn of(sip: &Sip, sockets: Vec<OwnedFd>) -> std::io::Result<Self> {
        let (wanted, found) = (sip.udp.len() + sip.tcp.len() + sip.tls.len(), sockets.len());
        if wanted != found {
            let why = format!("expected {wanted} signalling sockets from keeper, found {found}");
            return Err(std::io::Error::other(why));
        }
        let mut sockets = sockets.into_iter();
        Ok(Bound {
            udp: sockets.by_ref().take(sip.udp.len()).map(Into::into).collect(),
            tcp: sockets.by_ref().take(sip.tcp.len()).map(Into::into).collect(),
            tls: sockets.map(Into::into).collect(),
        })
    }
}

/// The listeners and connections.
pub(super) struct Net {
    udp: Vec<(SocketAddr, Arc<UdpSocket>)>,
    /// Queue of the writer, and what keeps the reader going: a connection that we have done with
    /// must not hold its descriptor until the peer has, too.
    writers: HashMap<u64, (Sender<Vec<u8>>, oneshot::Sender<()>)>,
    arrivals: Lanes,
    /// Connections being opened, and what is to be sent when they are.
    dialling: HashMap<(SocketAddr, bool), Vec<Vec<u8>>>,
    dialled: u64,
    doorway: Doorway,
}

impl Net {
    /// Takes what is bound into use. Must run inside the runtime.
    ///
    /// `own`: what a listener on every address of a family calls itself, since messages carry its
    /// address.
    pub(super) fn open(
        bound: Bound,
        own: impl Fn(Family) -> Option<IpAddr>,
        doorway: Doorway,
    ) -> std::io::Result<(Self, Inbox)> {
        let (arrivals, inbox) = lanes();
        let mut net = Net {
            udp: Vec::new(),
            writers: HashMap::new(),
            arrivals,
            dialling: HashMap::new(),
            dialled: DIALLED_FIRST,
            doorway,
        };
        for socket in bound.udp {
            let socket = Arc::new(UdpSocket::from_std(socket)?);
            let mut local = socket.local_addr()?;
            if local.ip().is_unspecified()
                && let Some(own) = own(Family::of(local.ip()))
            {
                local.set_ip(own);
            }
            net.udp.push((local, Arc::clone(&socket)));
            tokio::spawn(read_udp(socket, local, net.arrivals.clone()));
        }
        let plain = bound.tcp.into_iter().map(|listener| (listener, None));
        let secure = bound.tls.into_iter().map(|listener| (listener, Some(net.doorway.clone())));
        for (number, (listener, doorway)) in plain.chain(secure).enumerate() {
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(accept(listener, (number as u64) << 48, doorway, net.arrivals.clone()));
        }
        Ok((net, inbox))
    }

    /// Takes a new connection's writing half; what was waiting for it is sent.
    pub(super) fn connected(
        &mut self,
        conn: u64,
        peer: SocketAddr,
        secure: bool,
        writer: Writer,
        reading: oneshot::Sender<()>,
    ) -> bool {
        if self.writers.len() >= CONNECTIONS_MAX {
            return false;
        }
        let (sender, receiver) = mpsc::channel(WRITES_MAX);
        self.writers.insert(conn, (sender, reading));
        tokio::spawn(write(writer, receiver));
        if conn > DIALLED_FIRST {
            for bytes in self.dialling.remove(&(peer, secure)).unwrap_or_default() {
                self.write(conn, bytes);
            }
        }
        true
    }

    /// Forgets what was to be sent to a peer that cannot be reached.
    pub(super) fn unreachable(&mut self, peer: SocketAddr, secure: bool) {
        self.dialling.remove(&(peer, secure));
    }

    /// Forgets a connection; its writer ends when what was queued is written.
    pub(super) fn close(&mut self, conn: u64) {
        self.writers.remove(&conn);
    }

    /// Queues bytes for a connection. False: it is gone, or too slow and now given up.
    pub(super) fn write(&mut self, conn: u64, bytes: Vec<u8>) -> bool {
        let Some((writer, _)) = self.writers.get(&conn) else { return false };
        if writer.try_send(bytes).is_ok() {
            return true;
        }
        self.writers.remove(&conn);
        false
    }

    /// Sends a datagram from the listener at `local`, or from the nearest to it of the same family. A
    /// full socket loses it, as any network may; SIP sends again.
    pub(super) fn send(&self, local: SocketAddr, peer: SocketAddr, bytes: &[u8]) {
        let fits = |address: &SocketAddr| address.is_ipv4() == peer.is_ipv4();
        let far = |address: &SocketAddr| {
            (*address != local, address.ip() != local.ip(), address.port() != local.port())
        };
        let fitting = self.udp.iter().filter(|(address, _)| fits(address));
        let socket = fitting.min_by_key(|(address, _)| far(address));
        if let Some((_, socket)) = socket {
            let _ = socket.try_send_to(bytes, peer);
        }
    }

    /// Opens a connection to `peer` and sends `bytes` over it; it arrives as
    /// [`Arrival::Connected`] or [`Arrival::Unreachable`]. `host`: over TLS, with whom the
    /// certificate must be.
    pub(super) fn dial(&mut self, peer: SocketAddr, host: Option<String>, bytes: Vec<u8>) {
        let secure = host.is_some();
        if let Some(waiting) = self.dialling.get_mut(&(peer, secure)) {
            if waiting.len() < WRITES_MAX {
                waiting.push(bytes);
            }
            return;
        }
        self.dialling.insert((peer, secure), vec![bytes]);
        self.dialled += 1;
        let (conn, arrivals) = (self.dialled, self.arrivals.clone());
        let doorway = self.doorway.clone();
        tokio::spawn(async move {
            match open(peer, host.as_deref(), &doorway).await {
                Ok((local, opened)) => serve(opened, conn, (local, peer), arrivals).await,
                Err(why) => {
                    if secure {
                        tracing::warn!("TLS to {peer}: {why}");
                    }
                    let _ = arrivals.send(Arrival::Unreachable { peer, secure }).await;
                }
            }
        });
    }
}

async fn read_udp(socket: Arc<UdpSocket>, local: SocketAddr, arrivals: Lanes) {
    let mut buffer = vec![0; SIP_MESSAGE_BYTES_MAX];
    loop {
        // An ICMP error of an earlier send shows up here; the socket lives on.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        match arrivals.datagram(local, peer, &buffer[..length]).await {
            Ok(None) => {}
            Ok(Some((target, answer))) => drop(socket.try_send_to(&answer, target)),
            Err(_) => return,
        }
    }
}

async fn accept(listener: TcpListener, first: u64, doorway: Option<Doorway>, arrivals: Lanes) {
    let mut conn = first;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                conn += 1;
                tokio::spawn(take(stream, conn, peer, doorway.clone(), arrivals.clone()));
                // Handshakes that have begun go first: in a burst the newest would push them out.
                if doorway.is_some() {
                    tokio::task::yield_now().await;
                }
            }
            // Out of descriptors: wait for some to return instead of spinning.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

/// An open connection: its stream, and for TLS whom its certificate names.
type Opened = (Box<dyn Wire>, Option<Option<String>>);

async fn take(
    stream: TcpStream,
    conn: u64,
    peer: SocketAddr,
    doorway: Option<Doorway>,
    arrivals: Lanes,
) {
    let Ok(local) = stream.local_addr() else { return };
    let _ = stream.set_nodelay(true);
    let opened: Opened = match doorway {
        None => (Box::new(stream), None),
        Some(doorway) => match doorway.welcome(stream, peer, arrivals.knows(peer.ip())).await {
            Some(Shaken { stream, identity }) => (stream, Some(identity)),
            None => return,
        },
    };
    serve(opened, conn, (local, peer), arrivals).await;
}

/// Opens a connection of our own. The error is in words.
async fn open(
    peer: SocketAddr,
    host: Option<&str>,
    doorway: &Doorway,
) -> Result<(SocketAddr, Opened), String> {
    let words = |error: std::io::Error| error.to_string();
    let opened = timeout(CONNECT_TIME, TcpStream::connect(peer)).await;
    let stream = opened.map_err(|_| "no answer".to_owned())?.map_err(words)?;
    let local = stream.local_addr().map_err(words)?;
    let _ = stream.set_nodelay(true);
    match host {
        None => Ok((local, (Box::new(stream), None))),
        Some(host) => {
            let Shaken { stream, identity } = doorway.call(stream, host).await?;
            Ok((local, (stream, Some(identity))))
        }
    }
}

async fn serve(
    (stream, tls): Opened,
    conn: u64,
    (local, peer): (SocketAddr, SocketAddr),
    arrivals: Lanes,
) {
    let certified = tls.as_ref().is_some_and(Option::is_some);
    let arrivals = arrivals.of(peer.ip(), certified);
    let (reader, writer) = tokio::io::split(stream);
    let (reading, done) = oneshot::channel();
    let connected = Arrival::Connected { conn, local, peer, writer, reading, tls };
    if arrivals.send(connected).await.is_ok() {
        tokio::select! {
            _ = done => {}
            () = read_stream(reader, conn, &arrivals) => {}
        }
        let _ = arrivals.send(Arrival::Closed { conn }).await;
    }
}

async fn read_stream(mut reader: ReadHalf<Box<dyn Wire>>, conn: u64, arrivals: &Lanes) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = reader.read(&mut buffer).await {
        let bytes = buffer[..length].to_vec();
        if length == 0 || arrivals.send(Arrival::Stream { conn, bytes }).await.is_err() {
            return;
        }
    }
}

async fn write(mut writer: Writer, mut queue: Receiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        let sent = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        if !matches!(timeout(WRITE_TIME, sent).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = writer.shutdown().await;
}
