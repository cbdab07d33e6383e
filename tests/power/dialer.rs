//! Calls without media, one after the other, until the power goes: whoever got a 200 must be in
//! the journal afterwards (persist before reply).

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::host::mono;

/// Calls a second.
const PACE: u64 = 25;

/// One who calls, in a thread of its own.
pub(crate) struct Dialer {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(String, u64)>>,
}

impl Dialer {
    pub(crate) fn start(port: u16, name: String) -> std::io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(Duration::from_millis(2)))?;
        let end = Arc::new(AtomicBool::new(false));
        let ended = end.clone();
        let thread = std::thread::spawn(move || call(&socket, &name, &ended));
        Ok(Dialer { end, thread })
    }

    /// Call-IDs that got a 200, and when (monotonic ns).
    pub(crate) fn end(self) -> Vec<(String, u64)> {
        self.end.store(true, Ordering::Release);
        self.thread.join().expect("it only talks")
    }
}

fn call(socket: &UdpSocket, name: &str, end: &AtomicBool) -> Vec<(String, u64)> {
    let local = socket.local_addr().expect("bound");
    let (mut answered, mut number) = (Vec::<(String, u64)>::new(), 0_u64);
    let mut next = Instant::now();
    let mut buffer = vec![0; 65_536];
    while !end.load(Ordering::Acquire) {
        if Instant::now() >= next {
            next += Duration::from_millis(1_000 / PACE);
            number += 1;
            let body = body();
            let head = head("INVITE", 1, name, number, &local.to_string(), "");
            let message = format!(
                "{head}Require: siprec\r\nContact: <sip:rig@{local}>;+sip.src\r\nContent-Type: \
                 multipart/mixed;boundary=edge\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            // Nobody listens once the power is gone.
            let _ = socket.send(message.as_bytes());
        }
        let Ok(bytes) = socket.recv(&mut buffer) else { continue };
        let at = mono();
        let text = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
        let field = |wanted: &str| {
            let line = text.lines().find(|line| line.starts_with(wanted))?;
            Some(line[wanted.len()..].trim().to_owned())
        };
        let (Some(call), Some(cseq), Some(to)) = (field("Call-ID:"), field("CSeq:"), field("To:"))
        else {
            continue;
        };
        if !text.starts_with("SIP/2.0 200")
            || cseq != "1 INVITE"
            || answered.iter().any(|(known, _)| *known == call)
        {
            continue;
        }
        let tag = to.split(";tag=").nth(1).unwrap_or_default();
        let id: u64 = call.split('-').next_back().and_then(|id| id.parse().ok()).unwrap_or(0);
        let tag = format!(";tag={tag}");
        for (method, cseq) in [("ACK", 1), ("BYE", 2)] {
            let head = head(method, cseq, name, id, &local.to_string(), &tag);
            let _ = socket.send(format!("{head}Content-Length: 0\r\n\r\n").as_bytes());
        }
        answered.push((call, at));
    }
    answered
}

fn head(method: &str, cseq: u32, name: &str, number: u64, local: &str, tag: &str) -> String {
    format!(
        "{method} sip:srs@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP \
         {local};branch=z9hG4bK{name}-{number}-{method};rport\r\nFrom: \
         <sip:rig@127.0.0.1>;tag={number}\r\nTo: <sip:srs@127.0.0.1>{tag}\r\nCall-ID: \
         {name}-{number}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n"
    )
}

fn body() -> String {
    let sdp = "v=0\r\no=rig 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
               m=audio 9 RTP/AVP 0\r\na=sendonly\r\na=label:1\r\n";
    let metadata = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<recording \
                    xmlns=\"urn:ietf:params:xml:ns:recording:1\"><datamode>complete</datamode>\
                    </recording>\r\n";
    format!(
        "--edge\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--edge\r\nContent-Type: \
         application/rs-metadata+xml\r\nContent-Disposition: recording-session\r\n\r\n{metadata}\
         \r\n--edge--\r\n"
    )
}
