//! Callers who may: calls at a rate, whatever became of those before, each timed from its first INVITE to
//! the 200, challenge and retransmissions included, and ended by BYE a moment later. Over UDP they prove a
//! password; over TLS each call has a connection of its own, and its handshake counts as well.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use floortape::base::ports::Clock;
use floortape::base::suite::Suite;
use floortape::client::Call;
use floortape::client::g711::Law;
use floortape::client::offer::invite_body;
use floortape::host::clock::SystemClock;
use floortape::host::entropy::SystemEntropy;
use floortape::proto::sip::{
    CallRef, EndpointConfig, Input, Invite, Secret, Target, Uac, UacOutput,
};
use socket2::{Domain, Socket, Type};

use super::options::Options;
use super::pki::{Files, Peer};
use super::script::Script;

/// Calls a second, unless another number is asked for.
const RATE: u32 = 8;
/// How long a call stands.
const STANDS: Duration = Duration::from_millis(300);
/// Calls that are not over by then are not answered: 64·T1.
const PATIENCE: Duration = Duration::from_secs(32);
/// Between two looks for datagrams: far below what is measured.
const LOOK: Duration = Duration::from_millis(1);

/// Content-Type and body of an INVITE: one secure line, and metadata of a call of two.
pub(crate) fn offer(number: usize, local: IpAddr) -> (String, Vec<u8>) {
    let mut call = Call::new(number, 2, &SystemEntropy);
    call.add_stream(40_000, Law::Mu, Some(Suite::AesCm128HmacSha1_80.into()), &SystemEntropy);
    invite_body(&call, local, "2026-01-05T09:30:00.000Z")
}

/// What came of the calls.
#[derive(Default)]
struct Calls {
    /// From INVITE to 200, ms.
    took: Vec<f64>,
    failed: Vec<String>,
}

impl Calls {
    fn verdict(mut self, name: &str, limit_ms: f64) -> Result<String, String> {
        self.took.sort_by(f64::total_cmp);
        let made = self.took.len() + self.failed.len();
        let mut told = format!("{name}: {made} calls, {} failed", self.failed.len());
        let Some(last) = self.took.len().checked_sub(1) else { return Err(told) };
        // The smallest that as many of a hundred are not above.
        let ms = |share: usize| self.took[(self.took.len() * share).div_ceil(100) - 1];
        let (p50, p99, longest) = (ms(50), ms(99), self.took[last]);
        let _ =
            write!(told, "; INVITE to 200: p50 {p50:.1} ms, p99 {p99:.1}, longest {longest:.1}");
        match self.failed.first() {
            Some(first) => Err(format!("{told}; {first}")),
            None if p99 > limit_ms => Err(format!("{told}; expected p99 of {limit_ms} ms")),
            None => Ok(told),
        }
    }
}

/// Instants of calls: evenly spread from `begin` on.
fn instants(options: &Options, begin: Instant) -> impl Iterator<Item = Instant> {
    let rate = f64::from(options.rate.unwrap_or(RATE));
    let count = (options.seconds * rate) as u32;
    (0..count).map(move |number| begin + Duration::from_secs_f64(f64::from(number) / rate))
}

/// Calls over one UDP socket.
pub(crate) fn udp(options: &Options) -> Result<String, String> {
    let words = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind((options.from, 0)).map_err(words)?;
    socket.connect(options.to).map_err(words)?;
    // Not a timeout of the socket, which comes in steps of up to 10 ms.
    socket.set_nonblocking(true).map_err(words)?;
    let local = socket.local_addr().map_err(words)?;
    let file = options.folder.join(format!("{}.password", options.user));
    let line = std::fs::read_to_string(&file).map_err(words)?;
    let seed = SystemClock.mono().0;
    let mut uac = Uac::new(EndpointConfig { seed, ..EndpointConfig::default() });
    uac.set_secret(Secret::parse(line.trim_end()).ok_or("no password")?);
    let mut due = instants(options, Instant::now()).peekable();
    let mut calls = Calls::default();
    let mut asked: HashMap<CallRef, Instant> = HashMap::new();
    let mut standing: Vec<(Instant, CallRef)> = Vec::new();
    let mut buffer = vec![0; 65_536];
    let mut number = 0;
    let end = Instant::now() + Duration::from_secs_f64(options.seconds) + PATIENCE;
    while due.peek().is_some() || uac.calls() > 0 {
        let now = Instant::now();
        if now > end {
            calls.failed.push(format!("{} calls have no end", uac.calls()));
            break;
        }
        while let Some(planned) = due.next_if(|planned| *planned <= now) {
            number += 1;
            let invite = invite(number, local, options);
            let call = uac.call(SystemClock.mono(), &invite).ok_or("no INVITE")?;
            // From when it should have left: a caller that is held up must not look fast.
            asked.insert(call, planned);
        }
        standing.retain(|(until, call)| {
            let stands = *until > now;
            if !stands {
                uac.hang_up(SystemClock.mono(), *call, &[], b"");
            }
            stands
        });
        while let Ok(length) = socket.recv(&mut buffer) {
            let bytes = &buffer[..length];
            uac.handle(SystemClock.mono(), Input::Datagram { local, peer: options.to, bytes });
        }
        let mono = SystemClock.mono();
        if uac.next_timeout().is_some_and(|due| due <= mono) {
            uac.handle(mono, Input::Tick);
        }
        while let Some(output) = uac.poll(mono) {
            match output {
                UacOutput::Transmit { bytes, .. } => drop(socket.send(&bytes)),
                UacOutput::Answered { call, .. } => {
                    standing.push((Instant::now() + STANDS, call));
                    if let Some(asked) = asked.remove(&call) {
                        calls.took.push(asked.elapsed().as_secs_f64() * 1_000.0);
                    }
                }
                UacOutput::Refused { message, .. } => {
                    calls.failed.push(format!("refused with {:?}", message.code()));
                }
                UacOutput::Failed { .. } => calls.failed.push("no answer".to_owned()),
                UacOutput::Ended { by_peer: true, .. } => {
                    calls.failed.push("ended by the server".to_owned());
                }
                _ => {}
            }
        }
        std::thread::sleep(LOOK);
    }
    calls.verdict(&format!("calls of {} over UDP", options.user), options.limit_ms)
}

fn invite(number: usize, local: SocketAddr, options: &Options) -> Invite {
    let (Options { to, user, .. }, (kind, body)) = (options, offer(number, local.ip()));
    let headers = [
        ("Contact", format!("<sip:{user}@{local}>;+sip.src")),
        ("Require", "siprec".to_owned()),
        ("Content-Type", kind),
    ];
    Invite {
        target: Target::Udp { local, peer: *to },
        uri: format!("sip:srs@{to}"),
        from: format!("<sip:{user}@{local}>"),
        to: format!("<sip:srs@{to}>"),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        body,
    }
}

/// Calls over a TLS connection each, with a certificate.
pub(crate) fn tls(options: &Options) -> Result<String, String> {
    let begin = Instant::now();
    let mut running = Vec::new();
    for (number, due) in instants(options, begin).enumerate() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let options = options.clone();
        running.push(std::thread::spawn(move || one(number, &options, due)));
    }
    let mut calls = Calls::default();
    for call in running {
        match call.join().expect("no panic") {
            Ok(took) => calls.took.push(took.as_secs_f64() * 1_000.0),
            Err(why) => calls.failed.push(why),
        }
    }
    calls.verdict("calls over TLS, a connection each", options.limit_ms)
}

/// How long one took, from `due` on.
fn one(number: usize, options: &Options, due: Instant) -> Result<Duration, String> {
    let folder = options.folder.join("ca");
    let own = Files { cert: folder.join("client.pem"), key: folder.join("client.key") };
    let words = |error: std::io::Error| format!("call {number}: {error}");
    let connect = || {
        let socket = Socket::new(Domain::for_address(options.to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((options.from, 0)).into())?;
        socket.connect_timeout(&options.to.into(), PATIENCE)?;
        Peer::over(TcpStream::from(socket), &folder.join("ca.pem"), Some(&own))
    };
    let mut peer = connect().map_err(words)?;
    let mut script = Script::new(&format!("siege-{number}-{}", peer.local));
    let hop = ("TLS", peer.local);
    let answer = peer.ask(&script.request("INVITE", 1, hop, "")).map_err(words)?;
    let took = due.elapsed();
    if answer.code() != Some(200) {
        return Err(format!("call {number} is refused with {:?}", answer.code()));
    }
    script.answered(&answer);
    peer.send(&script.request("ACK", 1, hop, "")).map_err(words)?;
    std::thread::sleep(STANDS);
    let bye = peer.ask(&script.request("BYE", 2, hop, "")).map_err(words)?;
    match bye.code() {
        Some(200) => Ok(took),
        code => Err(format!("the BYE of call {number} gets {code:?}")),
    }
}
