//! Requests that nobody has authorised, from many addresses, evenly spread: INVITEs as an SBC sends them,
//! with metadata and keys, OPTIONS, forged credentials, BYEs of no dialog, and bytes that are no SIP.
//! Answers are read and counted, and never acknowledged.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use floortape::base::prng::Prng;
use floortape::host::facts::raise_descriptors;
use floortape::wire::sip::parse_datagram;

use super::call::offer;
use super::options::Options;

/// Requests a second that are asked for, unless another number is.
const RATE: u32 = 5_000;
const SOURCES: u32 = 2_000;
/// Less than this share of them is no such flood.
const SHARE: f64 = 0.98;
/// How long this sender is tried alone.
const ALONE: Duration = Duration::from_millis(500);
/// Answers read of one socket at a time.
const READS_MAX: usize = 16;

/// How one of twenty requests is made, by what it is.
enum Kind {
    Invite,
    Options,
    Forged,
    Bye,
    Garbage,
}

fn kind(number: u64) -> Kind {
    match number % 20 {
        0..8 => Kind::Invite,
        8..14 => Kind::Options,
        14..16 => Kind::Forged,
        16 => Kind::Bye,
        _ => Kind::Garbage,
    }
}

/// What requests are made of.
struct Mill {
    to: SocketAddr,
    content: String,
    prng: Prng,
}

impl Mill {
    fn new(to: SocketAddr, local: IpAddr) -> Self {
        let (kind, body) = offer(0, local);
        let body = String::from_utf8(body).expect("text");
        let content =
            format!("Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Mill { to, content, prng: Prng::new(7) }
    }

    fn request(&mut self, number: u64, local: SocketAddr) -> Vec<u8> {
        let to = self.to;
        let head = |method: &str, tag: &str| {
            format!(
                "{method} sip:srs@{to} SIP/2.0\r\n\
                 Via: SIP/2.0/UDP {local};branch=z9hG4bK{number:x};rport\r\n\
                 From: <sip:desk@{local}>;tag={number:x}\r\nTo: <sip:srs@{to}>{tag}\r\n\
                 Call-ID: {number:x}@{local}\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\n\
                 Contact: <sip:desk@{local}>;+sip.src\r\n"
            )
        };
        let text = match kind(number) {
            Kind::Invite => head("INVITE", "") + "Require: siprec\r\n" + &self.content,
            Kind::Options => head("OPTIONS", "") + "Content-Length: 0\r\n\r\n",
            Kind::Forged => {
                let credentials = format!(
                    "Authorization: Digest username=\"desk\",realm=\"floortape\",\
                     nonce=\"{:032x}\",uri=\"sip:srs@{to}\",response=\"{:064x}\",\
                     algorithm=SHA-256,qop=auth,nc=00000001,cnonce=\"0a4f113b\"\r\n",
                    self.prng.next_u64(),
                    self.prng.next_u64(),
                );
                head("INVITE", "") + "Require: siprec\r\n" + &credentials + &self.content
            }
            Kind::Bye => head("BYE", ";tag=nobody") + "Content-Length: 0\r\n\r\n",
            Kind::Garbage => return self.garbage(number, &head("INVITE", "")),
        };
        text.into_bytes()
    }

    /// Bytes by chance, half a head, or a head with more fields than anybody has.
    fn garbage(&mut self, number: u64, head: &str) -> Vec<u8> {
        match number % 3 {
            0 => (0..100).flat_map(|_| self.prng.next_u64().to_be_bytes()).collect(),
            1 => head.as_bytes()[..head.len() / 2].to_vec(),
            _ => [head, &"X-Flood: 1\r\n".repeat(300), "\r\n"].concat().into_bytes(),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<String, String> {
    raise_descriptors();
    let words = |error: std::io::Error| error.to_string();
    let sources = options.sources.unwrap_or(SOURCES);
    let bind = |number| {
        let socket = UdpSocket::bind((options.source(number), 0))?;
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        Ok((socket, local))
    };
    let sockets: Vec<(UdpSocket, SocketAddr)> =
        (0..sources).map(bind).collect::<Result<_, std::io::Error>>().map_err(words)?;
    let mut mill = Mill::new(options.to, options.source(0));
    let alone = alone(&mut mill, &sockets[0]).map_err(words)?;
    let rate = f64::from(options.rate.unwrap_or(RATE));
    let (mut sent, mut bytes, mut unsent) = (0_u64, 0_u64, 0_u64);
    let mut answers: BTreeMap<u16, u64> = BTreeMap::new();
    let begin = Instant::now();
    loop {
        let passed = begin.elapsed().as_secs_f64().min(options.seconds);
        while sent < (passed * rate) as u64 {
            let (socket, local) = &sockets[(sent % u64::from(sources)) as usize];
            count(socket, &mut answers);
            let request = mill.request(sent, *local);
            match socket.send_to(&request, options.to) {
                Ok(length) => bytes += length as u64,
                Err(_) => unsent += 1,
            }
            sent += 1;
        }
        if passed >= options.seconds {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let seconds = begin.elapsed().as_secs_f64();
    for (socket, _) in &sockets {
        count(socket, &mut answers);
    }
    let reached = (sent - unsent) as f64 / seconds;
    let told = format!(
        "flood: {reached:.0} requests/s for {seconds:.0} s from {sources} addresses, {} bytes each; \
         alone this sender makes {alone:.0}/s; answers by code: {answers:?}",
        bytes / sent.max(1)
    );
    if reached < rate * SHARE { Err(format!("{told}; expected {rate:.0}/s")) } else { Ok(told) }
}

/// Requests a second of this sender to nobody.
fn alone(mill: &mut Mill, (socket, local): &(UdpSocket, SocketAddr)) -> std::io::Result<f64> {
    // Bound and never read: what it cannot hold is dropped.
    let sink = UdpSocket::bind((local.ip(), 0))?;
    let (begin, mut sent) = (Instant::now(), 0_u64);
    while begin.elapsed() < ALONE {
        socket.send_to(&mill.request(sent, *local), sink.local_addr()?)?;
        sent += 1;
    }
    Ok(sent as f64 / begin.elapsed().as_secs_f64())
}

fn count(socket: &UdpSocket, answers: &mut BTreeMap<u16, u64>) {
    let mut buffer = [0; 2_048];
    for _ in 0..READS_MAX {
        let Ok(length) = socket.recv(&mut buffer) else { return };
        let code = parse_datagram(&buffer[..length]).ok().and_then(|message| message.code());
        *answers.entry(code.unwrap_or(0)).or_default() += 1;
    }
}
