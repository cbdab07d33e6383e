//! Dialogs over TCP that never rest, in place of SIPp, which gives a call up when its connection falls
//! while it writes. Knows nothing of the server's code.
//!
//! All dialogs share one connection. When it falls there is another one as soon as somebody listens,
//! and every request without a final answer goes over that: the first INVITE and a BYE as they were
//! (the server may have taken them), any other every other time so, else as a new one. Some requests
//! that were answered come again as well, and must be answered in the same words. Via and Contact name
//! a port where connections are taken, so that answers which lost their way can follow (RFC 3261
//! §18.2.2).

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::prng::Prng;

/// Mean time between two requests of a dialog, ms; each is within half of it.
const PAUSE_MS: u64 = 1_000;
/// All dialogs come up within this time.
const SETUP_MS: u64 = 5_000;
/// A request that has no final answer after so long is lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// After so many falls of the connection some request must have been without an answer at one of them.
const FALLS_SURE: u64 = 50;
/// What a 503 asks for.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Between two looks at the sockets.
const LOOK: Duration = Duration::from_millis(2);

/// The dialogs at work.
pub(crate) struct Caller(JoinHandle<Vec<String>>);

impl Caller {
    /// Sets up `dialogs` of them with the server at `port`; they last about `seconds`.
    pub(crate) fn start(port: u16, dialogs: u64, seconds: u64, seed: u64) -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        let own = listener.local_addr().map_err(|error| error.to_string())?;
        let begin = Instant::now();
        let dialog = |number| Dialog::new(number, begin + spread(number, dialogs));
        let mut peer = Peer {
            server: ([127, 0, 0, 1], port).into(),
            own,
            listener,
            way: None,
            fell: None,
            taken: Vec::new(),
            by_call: (0..dialogs).map(|number| (call_id(number, own), number as usize)).collect(),
            dialogs: (0..dialogs).map(dialog).collect(),
            end: begin + Duration::from_secs(seconds),
            prng: Prng::new(seed),
            counts: Counts::default(),
            complaints: Vec::new(),
        };
        Ok(Caller(std::thread::spawn(move || peer.play())))
    }

    /// Waits for the end of all dialogs: what it complains of.
    pub(crate) fn end(self) -> Vec<String> {
        self.0.join().unwrap_or_else(|_| vec!["the caller panicked".to_owned()])
    }
}

fn spread(number: u64, dialogs: u64) -> Duration {
    Duration::from_millis(number * SETUP_MS / dialogs.max(1))
}

fn call_id(number: u64, own: SocketAddr) -> String {
    format!("tcp-{number}@{own}")
}

/// What was tried.
#[derive(Debug, Default)]
struct Counts {
    answered: u64,
    falls: u64,
    /// Sent again as they were, and as new ones, after a fall.
    again: u64,
    anew: u64,
    /// Answered requests that came again, and the answers to them, which were the same.
    echoes: u64,
    same: u64,
    /// First INVITEs that got 503 from a server just started again.
    refused: u64,
    /// Answers over connections that the server opened.
    called_back: u64,
}

/// A request that waits for its final answer.
struct Pending {
    method: &'static str,
    text: String,
    since: Instant,
    /// Whether it went out more than once, in whatever form.
    repeated: bool,
}

/// A request that was answered, and the answer.
struct Answered {
    method: &'static str,
    cseq: u32,
    text: String,
    answer: Answer,
}

/// What must be the same each time: status, To with its tag, body.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    to: String,
    body: String,
}

struct Dialog {
    number: u64,
    /// To with its tag, and the server's Contact, from the first 200.
    to: Option<String>,
    target: String,
    cseq: u32,
    /// When it does something next.
    due: Instant,
    next: &'static str,
    pending: Option<Pending>,
    last: Option<Answered>,
    is_over: bool,
}

impl Dialog {
    fn new(number: u64, due: Instant) -> Self {
        Dialog {
            number,
            to: None,
            target: String::new(),
            cseq: 0,
            due,
            next: "INVITE",
            pending: None,
            last: None,
            is_over: false,
        }
    }
}

/// A connection and what of it is no whole message yet.
struct Way {
    stream: TcpStream,
    bytes: Vec<u8>,
}

struct Peer {
    server: SocketAddr,
    own: SocketAddr,
    listener: TcpListener,
    /// Our connection to the server.
    way: Option<Way>,
    /// Since when there is none.
    fell: Option<Instant>,
    /// Connections that the server opened.
    taken: Vec<Way>,
    by_call: HashMap<String, usize>,
    dialogs: Vec<Dialog>,
    end: Instant,
    prng: Prng,
    counts: Counts,
    complaints: Vec<String>,
}

impl Peer {
    fn play(&mut self) -> Vec<String> {
        while self.dialogs.iter().any(|dialog| !dialog.is_over) {
            if self.way.is_none() && !self.connect() {
                break;
            }
            self.listen();
            let now = Instant::now();
            for place in 0..self.dialogs.len() {
                self.turn(place, now);
            }
            std::thread::sleep(LOOK);
        }
        eprintln!("dialogs over TCP: {:?}", self.counts);
        let Counts { falls, again, anew, same, .. } = self.counts;
        // Whether a request is without an answer just then is chance where one comes within a millisecond.
        let untried = falls >= FALLS_SURE && again + anew == 0;
        if falls > 0 && (untried || same == 0) {
            self.complaints.push("nothing came again after a connection fell".to_owned());
        }
        std::mem::take(&mut self.complaints)
    }

    /// Another connection, over which goes what has no answer. Whether there is hope.
    fn connect(&mut self) -> bool {
        let fell = *self.fell.get_or_insert_with(Instant::now);
        let Ok(stream) = TcpStream::connect(self.server) else {
            if fell.elapsed() > PATIENCE {
                self.complaints.push("nobody takes connections".to_owned());
                return false;
            }
            return true;
        };
        let _ = (stream.set_nodelay(true), stream.set_nonblocking(true));
        self.fell = None;
        self.way = Some(Way { stream, bytes: Vec::new() });
        for place in 0..self.dialogs.len() {
            let dialog = &mut self.dialogs[place];
            let is_first = dialog.to.is_none();
            let Some(pending) = &mut dialog.pending else {
                self.echo(place);
                continue;
            };
            pending.repeated = true;
            let (method, text) = (pending.method, pending.text.clone());
            // Another first INVITE would be another RS; a BYE that was taken has ended the dialog, so
            // only the same one has an answer.
            if is_first || method == "BYE" || self.prng.below(2) == 0 {
                self.counts.again += 1;
                self.send(&text);
            } else {
                self.counts.anew += 1;
                self.request(place, method);
            }
        }
        true
    }

    /// Sends an answered request once more, every fourth time.
    fn echo(&mut self, place: usize) {
        let dialog = &self.dialogs[place];
        let Some(last) = dialog.last.as_ref().filter(|_| !dialog.is_over) else { return };
        let text = last.text.clone();
        if self.prng.below(4) == 0 {
            self.counts.echoes += 1;
            self.send(&text);
        }
    }

    /// Reads every connection, and takes those that the server opens.
    fn listen(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let _ = stream.set_nonblocking(true);
            self.taken.push(Way { stream, bytes: Vec::new() });
        }
        let mut messages = Vec::new();
        if let Some(way) = &mut self.way
            && !read(way, &mut messages)
        {
            self.fall();
        }
        let direct = messages.len();
        self.taken.retain_mut(|way| read(way, &mut messages));
        self.counts.called_back += (messages.len() - direct) as u64;
        for (head, body) in messages {
            self.take(&head, body);
        }
    }

    fn fall(&mut self) {
        if self.way.take().is_some() {
            self.counts.falls += 1;
        }
    }

    fn turn(&mut self, place: usize, now: Instant) {
        let dialog = &mut self.dialogs[place];
        if let Some(pending) = dialog.pending.take_if(|own| now - own.since > PATIENCE) {
            dialog.is_over = true;
            let call = call_id(dialog.number, self.own);
            self.complaints.push(format!("{call}: no answer to\n{}", pending.text));
        }
        let dialog = &self.dialogs[place];
        if dialog.is_over || dialog.pending.is_some() || dialog.due > now {
            return;
        }
        let method = if now >= self.end && dialog.to.is_some() { "BYE" } else { dialog.next };
        self.request(place, method);
    }

    /// A new request.
    fn request(&mut self, place: usize, method: &'static str) {
        let dialog = &mut self.dialogs[place];
        dialog.cseq += 1;
        let text = print(dialog, self.own, self.server, method, dialog.cseq);
        let repeated = dialog.pending.as_ref().is_some_and(|own| own.repeated);
        let since = dialog.pending.as_ref().map_or_else(Instant::now, |own| own.since);
        dialog.pending = Some(Pending { method, text: text.clone(), since, repeated });
        self.send(&text);
    }

    /// Sends over our connection; what does not get out is sent again over the next one.
    fn send(&mut self, text: &str) {
        let Some(way) = &mut self.way else { return };
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match way.stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(LOOK),
                Err(_) => return self.fall(),
            }
        }
    }

    /// A response, or a request of the server's, of which there should be none.
    fn take(&mut self, message: &str, body: String) {
        let field = |name: &str| {
            let is_named = |line: &&str| {
                line.split_once(':').is_some_and(|(own, _)| own.eq_ignore_ascii_case(name))
            };
            message.lines().find(is_named).map(|line| line[name.len() + 1..].trim().to_owned())
        };
        let status = message.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let place = field("Call-ID").and_then(|call| self.by_call.get(&call).copied());
        let cseq = field("CSeq").unwrap_or_default();
        let (Some(status), Some(place), Some((number, method))) =
            (status, place, cseq.split_once(' '))
        else {
            self.complaints.push(format!("unexpected: {message}"));
            return;
        };
        let status: u16 = status;
        if status < 200 {
            return;
        }
        let number: u32 = number.parse().unwrap_or(0);
        let dialog = &mut self.dialogs[place];
        let to = field("To").unwrap_or_default();
        if status < 300 && method == "INVITE" {
            // Also one that comes once more is acknowledged (RFC 3261 §13.2.2.4).
            let expected = dialog.to.get_or_insert_with(|| to.clone());
            if *expected != to {
                self.complaints.push(format!("To was {expected}, and is {to}"));
            }
            let contact = field("Contact").unwrap_or_default();
            if let Some(uri) = contact.split(['<', '>']).nth(1) {
                uri.clone_into(&mut dialog.target);
            }
            let ack = print(dialog, self.own, self.server, "ACK", number);
            self.send(&ack);
        }
        let dialog = &mut self.dialogs[place];
        let answer = Answer { status, to, body };
        let is_again = |own: &&Answered| own.method == method && own.cseq == number;
        if let Some(last) = dialog.last.as_ref().filter(is_again) {
            if last.answer == answer {
                self.counts.same += 1;
            } else {
                let Answered { text, answer: first, .. } = last;
                self.complaints.push(format!("{text} got {first:?}, then {answer:?}"));
            }
            return;
        }
        let is_it = |own: &mut Pending| own.method == method && number == dialog.cseq;
        // What was sent as a new request since then has an answer of its own.
        let Some(pending) = dialog.pending.take_if(is_it) else { return };
        if status == 503 && dialog.to.is_none() {
            self.refused(place, number, &answer.to);
            return;
        }
        let is_gone = status == 481 && pending.method == "BYE" && pending.repeated;
        if status >= 300 && !is_gone {
            self.complaints.push(format!("{} was answered by {message}", pending.text));
            dialog.is_over = true;
            return;
        }
        self.counts.answered += 1;
        dialog.is_over = method == "BYE";
        let (method, text) = (pending.method, pending.text);
        dialog.last = Some(Answered { method, cseq: number, text, answer });
        dialog.next = if method == "INVITE" { "UPDATE" } else { "INVITE" };
        let wait = PAUSE_MS / 2 + self.prng.below(PAUSE_MS);
        dialog.due = Instant::now() + Duration::from_millis(wait);
    }

    /// A 503 to a first INVITE: acknowledged, and called again a while later (RFC 3261 §21.5.4).
    fn refused(&mut self, place: usize, cseq: u32, to: &str) {
        self.counts.refused += 1;
        let dialog = &mut self.dialogs[place];
        dialog.due = Instant::now() + RETRY_AFTER;
        // RFC 3261 §17.1.1.3: of the transaction, with the tag of the answer.
        let bare = format!("To: <sip:srs@{}>\r\n", self.server);
        let ack = print(dialog, self.own, self.server, "ACK", cseq)
            .replacen("-ACK\r\n", "-INVITE\r\n", 1)
            .replacen(&bare, &format!("To: {to}\r\n"), 1);
        self.send(&ack);
    }
}

/// Appends the whole messages that have come, heads and bodies. Whether the connection stands.
fn read(way: &mut Way, messages: &mut Vec<(String, String)>) -> bool {
    let mut buffer = [0; 16 * 1024];
    let stands = loop {
        match way.stream.read(&mut buffer) {
            Ok(0) => break false,
            Ok(length) => way.bytes.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
            Err(_) => break false,
        }
    };
    while let Some(end) = way.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&way.bytes[..end]).into_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("Content-Length").then(|| value.trim().parse().ok())?
        });
        let whole = end + 4 + length.unwrap_or(0);
        if way.bytes.len() < whole {
            break;
        }
        let body = String::from_utf8_lossy(&way.bytes[end + 4..whole]).into_owned();
        way.bytes.drain(..whole);
        messages.push((head, body));
    }
    stands
}

/// A request, with an offer and metadata where it is an INVITE.
fn print(dialog: &Dialog, own: SocketAddr, server: SocketAddr, method: &str, cseq: u32) -> String {
    let number = dialog.number;
    let (uri, to) = match &dialog.to {
        Some(to) => (dialog.target.clone(), to.clone()),
        None => (format!("sip:srs@{server};transport=tcp"), format!("<sip:srs@{server}>")),
    };
    let mut text = format!(
        "{method} {uri} SIP/2.0\r\n\
         Via: SIP/2.0/TCP {own};branch=z9hG4bK-{number}-{cseq}-{method}\r\n\
         From: <sip:tcp@{own}>;tag=t{number}\r\nTo: {to}\r\nCall-ID: {}\r\n\
         CSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n",
        call_id(number, own),
    );
    if matches!(method, "INVITE" | "UPDATE") {
        text += &format!("Contact: <sip:tcp@{own};transport=tcp>;+sip.src\r\n");
    }
    let body = if method == "INVITE" { offer(cseq) } else { String::new() };
    if method == "INVITE" {
        text += "Require: siprec\r\nContent-Type: multipart/mixed;boundary=\"edge\"\r\n";
    }
    text + &format!("Content-Length: {}\r\n\r\n{body}", body.len())
}

fn offer(version: u32) -> String {
    let lines = [
        "--edge",
        "Content-Type: application/sdp",
        "",
        "v=0",
        &format!("o=tcp 53655765 {version} IN IP4 127.0.0.1"),
        "s=-",
        "c=IN IP4 127.0.0.1",
        "t=0 0",
        "m=audio 9 RTP/AVP 0",
        "a=label:desk-1",
        "a=sendonly",
        "",
        "--edge",
        "Content-Type: application/rs-metadata+xml",
        "Content-Disposition: recording-session",
        "",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
        "<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\"><datamode>complete</datamode>\
         </recording>",
        "--edge--",
        "",
    ];
    lines.join("\r\n")
}
