//! 2,000 TLS connections with client certificates, of one client at one address: each proves itself by
//! the answer to an OPTIONS and is idle then, but for keep-alives (RFC 5626). A reload and clients that
//! are refused move none of them; control is killed, and each is made again and answers again, while
//! calls over such connections go on.
//!
//! ```text
//! cargo test --release --test idle -- --nocapture               prints the figures
//! FAR_MS=100 cargo test --release --test idle -- --nocapture    as if the client were so far away
//! ```
//! The client makes all connections at once, also those after a fall: after 25 to 75 ms, then at
//! doubled intervals of up to 2 s.

#[expect(dead_code, reason = "shared with tests that end servers and revoke certificates")]
mod pki;
#[expect(dead_code, reason = "shared with tests that start dialogs")]
mod script;
#[expect(dead_code, reason = "shared with tests that read more of the log")]
mod server;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use floortape::host::facts::raise_descriptors;
use floortape::wire::sip::{Frame, StreamFramer};
use pki::{Ca, Files, Peer};
use rustix::process::Signal;
use rustls::pki_types::ServerName;
use script::Script;
use serde_json::Value;
use server::{CONTROL, Server, binary, command, free_port, fresh_folder, send, toml_text, until};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Sleep, interval_at, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connections held.
const CONNECTIONS: usize = 2_000;
/// By then each is usable again, counted from the kill.
const BACK: Duration = Duration::from_secs(30);
/// What control may keep for each of them, KiB.
const CONNECTION_KIB_MAX: u64 = 64;
/// How long they are idle before anything happens.
const IDLE: Duration = Duration::from_secs(5);
/// Between two keep-alives of one of them.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// A connection that does not answer by then is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between an end and the next attempt, at first and at most; half of it is by chance.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Answers to OPTIONS are much shorter.
const MESSAGE_BYTES_MAX: usize = 8_192;
/// Clients that record meanwhile, each over a connection of its own: two RSs of two streams.
const CALLS: usize = 4;
/// How long they do.
const SECONDS: u64 = 20;

/// One of the connections, as the client sees it.
#[derive(Clone, Default)]
struct Line {
    /// Since when it answers; `None`: it does not.
    up: Option<Instant>,
    falls: u32,
    attempts: u32,
    pongs: u32,
    /// The last OPTIONS of all that it has answered.
    round: u32,
    /// What it last ended with.
    said: String,
}

/// What the client's tasks share.
struct Fleet {
    address: SocketAddr,
    /// How long what the server says is under way.
    far: Duration,
    connector: TlsConnector,
    lines: Mutex<Vec<Line>>,
}

impl Fleet {
    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().expect("no panic while held")
    }

    fn count(&self, like: impl Fn(&Line) -> bool) -> usize {
        self.lines().iter().filter(|line| like(line)).count()
    }

    /// When they were usable, counted from `begin`: median, 99th percentile, last. And in how many
    /// attempts since this was last asked.
    fn figures(&self, begin: Instant) -> String {
        let mut lines = self.lines();
        let attempts: u32 = lines.iter_mut().map(|line| std::mem::take(&mut line.attempts)).sum();
        let mut up: Vec<Instant> = lines.iter().filter_map(|line| line.up).collect();
        up.sort_unstable();
        let ms = |share: usize| {
            let passed = up[(up.len() - 1) * share / 100].saturating_duration_since(begin);
            passed.as_secs_f64() * 1_000.0
        };
        format!(
            "median {:.0} ms, 99th percentile {:.0} ms, last {:.0} ms; {attempts} attempts",
            ms(50),
            ms(99),
            ms(100)
        )
    }

    /// Waits until all are like that; what the others said where they are not.
    fn all(&self, what: &str, limit: Duration, like: impl Fn(&Line) -> bool) {
        let end = Instant::now() + limit;
        while self.count(&like) < CONNECTIONS {
            if Instant::now() > end {
                let lines = self.lines().clone();
                let others: Vec<_> = lines.iter().filter(|line| !like(line)).collect();
                let said: Vec<_> = others.iter().take(3).map(|line| &line.said).collect();
                panic!("{what}: {} are not, such as {said:?}", others.len());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The client: a thread with all connections.
struct Client {
    fleet: Arc<Fleet>,
    /// Each asks once more when this changes.
    rounds: watch::Sender<u32>,
    thread: JoinHandle<()>,
}

impl Client {
    fn start(port: u16, ca: &Path, own: &Files) -> Self {
        let fleet = Arc::new(Fleet {
            address: ([127, 0, 0, 1], port).into(),
            far: far(),
            connector: TlsConnector::from(Arc::new(pki::client(ca, Some(own)))),
            lines: Mutex::new(vec![Line::default(); CONNECTIONS]),
        });
        let (rounds, asked) = watch::channel(0);
        let thread = std::thread::spawn({
            let fleet = Arc::clone(&fleet);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("a runtime");
                runtime.block_on(async {
                    let hold = |number| tokio::spawn(hold(number, fleet.clone(), asked.clone()));
                    let tasks: Vec<_> = (0..CONNECTIONS).map(hold).collect();
                    for task in tasks {
                        task.await.expect("no panic");
                    }
                });
            }
        });
        Client { fleet, rounds, thread }
    }

    /// Has each of them ask once more, over the connection that it has.
    fn ask(&self, round: u32) {
        self.rounds.send_replace(round);
        self.fleet.all("answered once more", PATIENCE, |line| line.round == round);
    }

    fn end(self) {
        drop(self.rounds);
        self.thread.join().expect("no panic");
    }
}

/// Holds one connection, and makes it again whenever it falls, until there is nobody to ask for more.
async fn hold(number: usize, fleet: Arc<Fleet>, mut rounds: watch::Receiver<u32>) {
    let mut pause = PAUSE_MIN;
    while rounds.has_changed().is_ok() {
        fleet.lines()[number].attempts += 1;
        let opened = timeout(PATIENCE, open(number, &fleet)).await;
        let why = match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Err(error) => error,
            Ok(mut peer) => {
                pause = PAUSE_MIN;
                fleet.lines()[number].up = Some(Instant::now());
                let why = idle(number, &fleet, &mut peer, &mut rounds).await;
                let mut lines = fleet.lines();
                lines[number].up = None;
                lines[number].falls += 1;
                why
            }
        };
        fleet.lines()[number].said = why.to_string();
        // By chance enough: which of them it is.
        sleep(pause / 2 + pause * (number as u32 * 7 % 64) / 64).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Connects and proves the connection.
async fn open(number: usize, fleet: &Fleet) -> io::Result<Way> {
    // The server sees a connection with the client's second packet, which the next one follows.
    sleep(fleet.far).await;
    let stream = TcpStream::connect(fleet.address).await?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = Far { stream, far: fleet.far, due: None };
    let stream = fleet.connector.connect(name, stream).await?;
    let framer = StreamFramer::new(MESSAGE_BYTES_MAX);
    let mut way = Way { stream, framer, local, call: format!("idle-{number}-{local}"), cseq: 0 };
    way.ask().await?;
    match way.hear().await? {
        Heard::Answer(200) => Ok(way),
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

/// Keeps a connection alive until it falls; why it did.
async fn idle(
    number: usize,
    fleet: &Fleet,
    way: &mut Way,
    rounds: &mut watch::Receiver<u32>,
) -> io::Error {
    let first = KEEP_ALIVE * (number as u32 + 1) / CONNECTIONS as u32;
    let mut tick = interval_at((Instant::now() + first).into(), KEEP_ALIVE);
    let mut waits = false;
    loop {
        let done = tokio::select! {
            heard = way.hear() => match heard {
                Ok(Heard::Pong) => {
                    waits = false;
                    fleet.lines()[number].pongs += 1;
                    Ok(())
                }
                Ok(Heard::Answer(200)) => {
                    fleet.lines()[number].round = *rounds.borrow();
                    Ok(())
                }
                Ok(other) => Err(io::Error::other(format!("{other:?}"))),
                Err(error) => Err(error),
            },
            _ = tick.tick() => match std::mem::replace(&mut waits, true) {
                true => Err(io::Error::other("no answer to a keep-alive")),
                false => way.write(b"\r\n\r\n").await,
            },
            changed = rounds.changed() => match changed {
                Ok(()) => way.ask().await,
                Err(_) => Err(io::Error::other("over")),
            },
        };
        if let Err(error) = done {
            return error;
        }
    }
}

/// A connection of the client.
struct Way {
    stream: TlsStream<Far>,
    framer: StreamFramer,
    local: SocketAddr,
    call: String,
    cseq: u32,
}

#[derive(Debug)]
enum Heard {
    Pong,
    Answer(u16),
}

impl Way {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    async fn ask(&mut self) -> io::Result<()> {
        self.cseq += 1;
        let options =
            Script::new(&self.call).request("OPTIONS", self.cseq, ("TLS", self.local), "");
        self.write(options.as_bytes()).await
    }

    /// The next that is heard. Nothing is lost where this is not waited for to its end.
    async fn hear(&mut self) -> io::Result<Heard> {
        loop {
            match self.framer.pull() {
                Some(Frame::Message(message)) => match message.code() {
                    Some(code) if code >= 200 => return Ok(Heard::Answer(code)),
                    _ => continue,
                },
                // Two pongs in one piece.
                Some(Frame::KeepAlive) => return Ok(Heard::Pong),
                Some(other) => return Err(io::Error::other(format!("{other:?}"))),
                // A pong is one line end, of which a framer makes nothing: behind an answer …
                None if self.framer.waiting() == 2 && !self.framer.begun() => {
                    self.framer = StreamFramer::new(MESSAGE_BYTES_MAX);
                    return Ok(Heard::Pong);
                }
                None => {}
            }
            let mut bytes = [0; 2_048];
            let length = match self.stream.read(&mut bytes).await? {
                0 => return Err(io::ErrorKind::ConnectionAborted.into()),
                length => length,
            };
            // … or before one.
            let rest = bytes[..length].strip_prefix(b"\r\n").filter(|_| self.framer.waiting() == 0);
            self.framer.push(rest.unwrap_or(&bytes[..length]));
            if rest.is_some() {
                return Ok(Heard::Pong);
            }
        }
    }
}

/// A connection to a server that is some way off: what can be read is read that much later.
struct Far {
    stream: TcpStream,
    far: Duration,
    due: Option<Pin<Box<Sleep>>>,
}

/// Both ways of the distance, from `FAR_MS`.
fn far() -> Duration {
    let ms = std::env::var("FAR_MS").ok().map(|ms| ms.parse().expect("FAR_MS is a number"));
    Duration::from_millis(ms.unwrap_or(0))
}

impl AsyncRead for Far {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.far.is_zero() {
            ready!(self.stream.poll_read_ready(context))?;
            let far = self.far;
            let due = self.due.get_or_insert_with(|| Box::pin(sleep(far)));
            ready!(due.as_mut().poll(context));
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.due = None;
        read
    }
}

impl AsyncWrite for Far {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// `src call` over a TLS connection of its own, with new keys each second.
fn call(port: u16, ca: &Path, own: &Files) -> Child {
    Command::new(binary())
        .args(["src", "call", "--to", &format!("sips:srs@localhost:{port}"), "--tls-ca"])
        .arg(ca)
        .arg("--tls-cert")
        .arg(&own.cert)
        .arg("--tls-key")
        .arg(&own.key)
        .args(["--streams", "4", "--rekey", "1", "--numbered", "--json", "--duration"])
        .arg(SECONDS.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built")
}

fn recordings(folder: &Path) -> Vec<Value> {
    let mut command = Command::new(binary());
    let output = command.args(["ls", "--json", "--store"]).arg(folder.join("store")).output();
    let text = String::from_utf8(output.expect("it runs").stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Memory of its own that control holds, KiB.
fn control_kib(server: &Server) -> u64 {
    let pid = server.child(CONTROL).expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("procfs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("KiB")
}

fn started(folder: &Path, ca: &Ca) -> (Server, u16) {
    let own = ca.issue("srs", &["localhost", "127.0.0.1"], 2090);
    let (udp, tls) = (free_port(), free_port());
    let config = folder.join("f.toml");
    let text = format!(
        "[sip]\ntls = [\"127.0.0.1:{tls}\"]\ncert = {}\nkey = {}\nclient_ca = {}\n\
         require_client_cert = true\n",
        toml_text(&own.cert),
        toml_text(&own.key),
        toml_text(&ca.file()),
    );
    std::fs::write(&config, text).expect("ours");
    let mut command = command(folder, udp);
    command.args(["--set", "media.streams_max=64"]).arg("-c").arg(&config);
    (Server::start(command, folder).ready(), tls)
}

#[test]
fn uc8_two_thousand_idle_connections_are_usable_again_after_control_died() {
    let descriptors = raise_descriptors();
    assert!(descriptors > CONNECTIONS as u64 + 200, "{descriptors} descriptors will not do");
    let folder: PathBuf = fresh_folder();
    let ca = Ca::new(&folder, "ca");
    let (server, tls) = started(&folder, &ca);
    let desk = ca.issue("desk", &["sip:desk.example"], 2090);
    let ca_file = ca.file();

    let (before, begin) = (control_kib(&server), Instant::now());
    let client = Client::start(tls, &ca_file, &desk);
    let fleet = Arc::clone(&client.fleet);
    // Nobody knows them yet, so that fewer of their handshakes are under way at a time.
    fleet.all("connected", 2 * BACK, |line| line.up.is_some());
    println!("{CONNECTIONS} at once: {}", fleet.figures(begin));

    let calls: Vec<Child> = (0..CALLS).map(|_| call(tls, &ca_file, &desk)).collect();
    until("the calls", PATIENCE, || (recordings(&folder).len() == 2 * CALLS).then_some(()));
    std::thread::sleep(IDLE);
    let kib = control_kib(&server).saturating_sub(before) / CONNECTIONS as u64;
    println!("control keeps {kib} KiB for each");
    assert!(kib <= CONNECTION_KIB_MAX, "{kib} KiB");

    // Nobody else gets in, nor does a reload move those who are.
    let other = Ca::new(&folder, "other").issue("desk", &["sip:desk.example"], 2090);
    let old = ca.issue("old", &["sip:desk.example"], 2021);
    for own in [None, Some(&other), Some(&old)] {
        let refused = Peer::connect(tls, &ca_file, own).and_then(|mut peer| {
            peer.ask(&Script::new("refused").request("OPTIONS", 1, ("TLS", peer.local), ""))
        });
        assert!(refused.is_err(), "{refused:?}");
    }
    server.signal(Signal::HUP);
    let reloaded = || server.told("control::role: configuration reloaded").then_some(());
    until("the reload", PATIENCE, reloaded);
    client.ask(1);
    fleet.all("held", Duration::ZERO, |line| line.falls == 0);
    fleet.all("answered by pongs", Duration::ZERO, |line| line.pongs > 0);

    let victim = server.child(CONTROL).expect("it runs");
    let killed = Instant::now();
    send(victim, Signal::KILL);
    fleet.all("usable again", BACK, |line| line.up > Some(killed));
    println!("usable again after the kill: {}", fleet.figures(killed));
    client.ask(2);
    fleet.all("fallen once", Duration::ZERO, |line| line.falls == 1);

    // The calls lost their connection as well, and nothing else.
    let sent: Vec<Value> = calls.into_iter().map(ended).collect();
    let is_whole = |recording: &Value| {
        recording["state"] == "ended" && recording["durable_through"] == recording["end"]
    };
    let listed = until("the end of the calls", PATIENCE, || {
        let listed = recordings(&folder);
        listed.iter().all(is_whole).then_some(listed)
    });
    assert_eq!(listed.len(), 2 * CALLS);
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let streams: Vec<Value> = listed.iter().flat_map(|rs| list(rs, "streams")).collect();
    let sources: Vec<Value> = streams.iter().flat_map(|stream| list(stream, "sources")).collect();
    for stream in sent.iter().flat_map(|sent| list(sent, "streams")) {
        let source = sources.iter().find(|source| source["ssrc"] == stream["ssrc"]);
        let source = source.unwrap_or_else(|| panic!("nothing of {stream}"));
        assert_eq!(source["packets"], stream["sent"], "{source}");
        assert_eq!(source["unexplained"], 0, "{source}");
    }
    let rekeyed: u64 = sent.iter().filter_map(|sent| sent["rekeyed"].as_u64()).sum();
    println!("{} RSs over such connections: 0 packets lost, {rekeyed} re-INVITEs", listed.len());
    fleet.all("still held", Duration::ZERO, |line| line.falls == 1);
    client.end();
}

/// What a call says it sent; its connection was made again, and each request was answered by 200.
fn ended(call: Child) -> Value {
    let output = call.wait_with_output().expect("ours");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let sent: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(sent["reconnected"].as_u64() >= Some(1), "{sent}");
    // Two calls, of each one a second.
    assert!(sent["rekeyed"].as_u64() >= Some(SECONDS), "{sent}");
    assert_eq!(sent["rekeys_refused"], 0, "{sent}");
    sent
}
