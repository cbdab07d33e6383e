//! The stream connection of the SRC, TCP or TLS. A server that is started again loses the connection
//! and nothing else, so another one is made: what the SIP machine must hear of both comes from here.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::signalling::{ConnectError, Target, TlsFiles, WAIT, quiet};
use crate::base::limits::SIP_STREAM_MESSAGE_BYTES_MAX;
use crate::proto::sip::{ConnId, Transport};
use crate::shell::tls::{self, ClientSettings, server_name};
use crate::wire::sip::{Frame, Message, StreamFramer};

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(5);
/// A server that takes no connection for so long is gone: 64·T1, as for a request without an answer.
const PATIENCE: Duration = Duration::from_secs(32);
/// Before the second attempt; it doubles with each one up to [`PAUSE_MAX`]. A server that is started
/// again listens after some 20 ms.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A connection that stood for so long, or brought anything, was a good one: what follows its end
/// begins with the first attempt again.
const GOOD: Duration = Duration::from_secs(1);
/// Messages that may wait for the next connection: one for each call of the largest load.
const UNSENT_MAX: usize = 20_000;

/// What is written and read.
enum Wire {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// What it takes to verify the server, and who we say that we are: the same for each connection.
struct Secure {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    domain: String,
}

/// The attempts since the last good connection.
struct Search {
    since: Instant,
    next: Instant,
    pause: Duration,
}

/// The connection, or the lack of one.
pub(super) struct Connection {
    peer: SocketAddr,
    secure: Option<Secure>,
    /// `None` from its end to the next one.
    wire: Option<Wire>,
    /// Of the last one; 1 is the first.
    pub(super) number: ConnId,
    framer: StreamFramer,
    made: Instant,
    /// Whether any of them brought anything, and whether this one did.
    heard: bool,
    heard_now: bool,
    /// Whether the SIP machine has heard of its end.
    told: bool,
    /// What waits for the next one.
    unsent: Vec<Vec<u8>>,
    search: Option<Search>,
}

impl Connection {
    /// Connects. Over TLS the server has been verified when this returns; nothing has been said to it
    /// before (REQ-026).
    pub(super) fn open(target: &Target, files: &TlsFiles) -> Result<Self, ConnectError> {
        let secure = match target.transport {
            Transport::Tls => Some(Secure::new(target, files)?),
            _ => None,
        };
        let wire = Wire::open(target.address, secure.as_ref())?;
        Ok(Connection {
            peer: target.address,
            secure,
            wire: Some(wire),
            number: ConnId(1),
            framer: StreamFramer::new(SIP_STREAM_MESSAGE_BYTES_MAX),
            made: Instant::now(),
            heard: false,
            heard_now: false,
            told: true,
            unsent: Vec::new(),
            search: None,
        })
    }

    /// Whether it stands, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.wire.is_some()
    }

    pub(super) fn is_secure(&self) -> bool {
        self.secure.is_some()
    }

    /// Our address.
    pub(super) fn local(&self) -> io::Result<SocketAddr> {
        match &self.wire {
            Some(Wire::Tcp(stream)) => stream.local_addr(),
            Some(Wire::Tls(stream)) => stream.sock.local_addr(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Writes a message, or keeps it for the next connection. An error ends the load: the server has
    /// never said anything, or says by TLS that it does not take us.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.wire {
            Some(wire) => wire.write(bytes).or_else(|error| self.end(error)),
            // The SIP machine will hear of the end, and say again what it must.
            None if !self.told => Ok(()),
            None if self.unsent.len() < UNSENT_MAX => {
                self.unsent.push(bytes.to_vec());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Reads what has come into `bytes`; its length, and `None` where there is nothing. An error as
    /// that of [`send`](Self::send).
    pub(super) fn receive(&mut self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(wire) = &mut self.wire else { return Ok(None) };
        match quiet(wire.read(bytes)) {
            Ok(Some(0)) => self.end(io::ErrorKind::ConnectionAborted.into()).map(|()| None),
            Ok(Some(length)) => {
                (self.heard, self.heard_now, self.search) = (true, true, None);
                Ok(Some(length))
            }
            Ok(None) => Ok(None),
            Err(error) => self.end(error).map(|()| None),
        }
    }

    /// The messages that `bytes` complete.
    pub(super) fn messages(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.framer.push(bytes);
        let whole = |frame| match frame {
            Frame::Message(message) => Some(message),
            Frame::KeepAlive | Frame::Broken(_) | Frame::Lost(_) => None,
        };
        std::iter::from_fn(|| self.framer.pull()).filter_map(whole).collect()
    }

    /// What was written into a connection that falls is lost with it.
    fn end(&mut self, error: io::Error) -> io::Result<()> {
        // What TLS says is no accident; who never said a word is no server of SIP.
        let is_said = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        if is_said || !self.heard {
            return Err(error);
        }
        let now = Instant::now();
        (self.wire, self.told) = (None, false);
        if self.heard_now || self.made.elapsed() >= GOOD {
            self.search = None;
        }
        let search = Search { since: now, next: now, pause: PAUSE_MIN };
        let search = self.search.get_or_insert(search);
        // It takes connections and ends them.
        if search.since.elapsed() >= PATIENCE { Err(in_vain(&error)) } else { Ok(()) }
    }

    /// Once for each end: the number of the connection that fell.
    pub(super) fn ended(&mut self) -> Option<ConnId> {
        let news = self.wire.is_none() && !self.told;
        self.told = self.told || news;
        news.then_some(self.number)
    }

    /// Makes another connection where there is none, and sends what waited for it. `true`: there is a
    /// new one, of the next [`number`](Self::number). `false`: nothing to do, or not yet, after a
    /// short wait. An error: the server is gone.
    pub(super) fn reopen(&mut self) -> Result<bool, ConnectError> {
        // One thing after the other: the SIP machine hears of the end first.
        if self.wire.is_some() || !self.told {
            return Ok(false);
        }
        let Some(search) = &mut self.search else { return Ok(false) };
        if Instant::now() < search.next {
            std::thread::sleep(WAIT);
            return Ok(false);
        }
        search.next = Instant::now() + search.pause;
        search.pause = (search.pause * 2).min(PAUSE_MAX);
        match Wire::open(self.peer, self.secure.as_ref()) {
            Ok(wire) => self.begin(wire)?,
            Err(_) if search.since.elapsed() < PATIENCE => return Ok(false),
            Err(ConnectError::Io(error)) => return Err(in_vain(&error).into()),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn begin(&mut self, wire: Wire) -> io::Result<()> {
        self.number = ConnId(self.number.0 + 1);
        self.framer = StreamFramer::new(SIP_STREAM_MESSAGE_BYTES_MAX);
        (self.wire, self.made, self.heard_now) = (Some(wire), Instant::now(), false);
        for bytes in std::mem::take(&mut self.unsent) {
            self.send(&bytes)?;
        }
        Ok(())
    }
}

fn in_vain(error: &io::Error) -> io::Error {
    let seconds = PATIENCE.as_secs();
    io::Error::other(format!(
        "the connection was lost, and none has lasted for {seconds} s: {error}"
    ))
}

impl Secure {
    fn new(target: &Target, files: &TlsFiles) -> Result<Self, ConnectError> {
        let own = files.own.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
        let config = tls::caller(ClientSettings { ca: files.ca.as_deref(), own })?;
        let domain = files.domain.as_deref().unwrap_or(&target.host).to_owned();
        let Some(name) = server_name(&domain) else {
            return Err(ConnectError::Tls { domain, why: "no name of a domain".to_owned() });
        };
        Ok(Secure { config, name, domain })
    }

    /// The handshake, whole: chain and SIP domain of the server are verified in it.
    fn shake(
        &self,
        mut stream: TcpStream,
    ) -> Result<StreamOwned<ClientConnection, TcpStream>, ConnectError> {
        let wrong = |why: String| ConnectError::Tls { domain: self.domain.clone(), why };
        let mut tls = ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map_err(|error| wrong(error.to_string()))?;
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
}

impl Wire {
    fn open(peer: SocketAddr, secure: Option<&Secure>) -> Result<Self, ConnectError> {
        let stream = TcpStream::connect_timeout(&peer, CONNECT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT))?;
        Ok(match secure {
            Some(secure) => Wire::Tls(Box::new(secure.shake(stream)?)),
            None => Wire::Tcp(stream),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Wire::Tcp(stream) => stream.write_all(bytes),
            Wire::Tls(stream) => {
                let sent = stream.write_all(bytes).and_then(|()| stream.flush());
                // What the server said before it closed tells more than that it did.
                sent.map_err(|error| match stream.read(&mut [0]) {
                    Err(said) if said.get_ref().is_some() => said,
                    _ => error,
                })
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.read(bytes),
            Wire::Tls(stream) => stream.read(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A connection to a server on loopback that has said something, and the server's end of it.
    fn opened(server: &TcpListener) -> (Connection, TcpStream) {
        let uri = format!("sip:srs@{};transport=tcp", server.local_addr().expect("bound"));
        let target = Target::parse(&uri).expect("valid");
        let mut connection = Connection::open(&target, &TlsFiles::default()).expect("it listens");
        let (mut other, _) = server.accept().expect("connected");
        other.write_all(b"word").expect("it reads");
        let mut bytes = [0; 16];
        while connection.receive(&mut bytes).expect("it stands").is_none() {}
        (connection, other)
    }

    fn falls(connection: &mut Connection) -> ConnId {
        loop {
            assert_eq!(connection.receive(&mut [0; 16]).expect("no end of the load"), None);
            if let Some(number) = connection.ended() {
                return number;
            }
        }
    }

    fn server() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").expect("a free port")
    }

    #[test]
    fn a_connection_that_falls_is_told_of_once_and_followed_by_another() {
        let server = server();
        let (mut connection, other) = opened(&server);
        assert!(connection.ended().is_none());
        assert!(!connection.reopen().expect("nothing to do"));
        drop(other);
        assert_eq!(falls(&mut connection), ConnId(1));
        assert!(connection.ended().is_none());
        connection.send(b"kept").expect("kept");
        while !connection.reopen().expect("it listens") {}
        assert_eq!(connection.number, ConnId(2));
        assert!(!connection.reopen().expect("nothing to do"));
        let (mut stream, peer) = server.accept().expect("connected");
        assert_eq!(peer, connection.local().expect("it stands"));
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).expect("sent");
        assert_eq!(&bytes, b"kept");
    }

    /// What is sent between an end and the machine's hearing of it is left to the machine, which says
    /// it again: else it would go out twice.
    #[test]
    fn what_is_sent_before_the_end_is_told_of_does_not_wait() {
        let server = server();
        let (mut connection, other) = opened(&server);
        drop(other);
        while connection.is_open() {
            connection.receive(&mut [0; 16]).expect("no end of the load");
        }
        connection.send(b"lost").expect("as if written");
        assert_eq!(connection.ended(), Some(ConnId(1)));
        connection.send(b"kept").expect("kept");
        assert_eq!(connection.unsent, [b"kept"]);
    }

    /// Whoever ends connections without a word is asked less and less often, and not for ever.
    #[test]
    fn attempts_grow_apart_and_end() {
        let server = server();
        let (mut connection, other) = opened(&server);
        drop((other, server));
        falls(&mut connection);
        for pause in [20, 40, 80] {
            let before = connection.search.as_ref().expect("it looks").next;
            while connection.search.as_ref().expect("it looks").next == before {
                assert!(!connection.reopen().expect("not for ever yet"));
            }
            assert_eq!(
                connection.search.as_ref().expect("it looks").pause,
                Duration::from_millis(pause)
            );
        }
        let search = connection.search.as_mut().expect("it looks");
        search.since = Instant::now().checked_sub(PATIENCE).expect("a clock that has run so long");
        search.next = Instant::now();
        let error = connection.reopen().expect_err("in vain").to_string();
        assert!(error.starts_with("the connection was lost, and none has lasted"), "{error}");
    }

    #[test]
    fn a_server_that_never_said_a_word_is_none() {
        let server = server();
        let uri = format!("sip:srs@{};transport=tcp", server.local_addr().expect("bound"));
        let target = Target::parse(&uri).expect("valid");
        let mut connection = Connection::open(&target, &TlsFiles::default()).expect("it listens");
        drop(server.accept().expect("connected"));
        let error = loop {
            if let Err(error) = connection.receive(&mut [0; 16]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
