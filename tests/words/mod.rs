//! An SRC of plain words: SIP over UDP written out, RTP numbered. For tests of what a real client would
//! not send.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);

/// A client with one dialog.
pub(crate) struct Src {
    pub(crate) socket: UdpSocket,
    pub(crate) cseq: u32,
    pub(crate) to_tag: String,
    pub(crate) call_id: String,
    /// Further header fields of its INVITE and UPDATE.
    pub(crate) fields: &'static str,
}

impl Src {
    pub(crate) fn new(server: u16, fields: &'static str) -> Self {
        Self::to(("127.0.0.1", server), fields)
    }

    /// Of the server at another address.
    pub(crate) fn to(server: (&str, u16), fields: &'static str) -> Self {
        let from = if server.0.contains(':') { "[::1]:0" } else { "127.0.0.1:0" };
        let socket = UdpSocket::bind(from).expect("a free port");
        socket.connect(server).expect("loopback");
        let call_id = format!("flow-{}", socket.local_addr().expect("bound"));
        Src { socket, cseq: 0, to_tag: String::new(), call_id, fields }
    }

    pub(crate) fn send(&self, method: &str, content_type: &str, body: &str) {
        let (cseq, tag, fields, call_id) = (self.cseq, &self.to_tag, self.fields, &self.call_id);
        let own = self.socket.local_addr().expect("bound");
        let kind = match body {
            "" => String::new(),
            _ => format!("Content-Type: {content_type}\r\n"),
        };
        let text = format!(
            "{method} sip:srs@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{method}{cseq};rport\r\n\
             From: <sip:flow@127.0.0.1>;tag=flow\r\nTo: <sip:srs@127.0.0.1>{tag}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\nMax-Forwards: 70\r\nRequire: siprec\r\nContact: <sip:flow@{own}>;+sip.src\r\n\
             {fields}{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.socket.send(text.as_bytes()).expect("loopback");
    }

    /// The next message that `wanted` takes; others are passed over.
    pub(crate) fn next(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + limit;
        let mut buffer = vec![0; 65_536];
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            self.socket
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .expect("a timeout");
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if wanted(&text) {
                return Some(text);
            }
        }
        None
    }

    pub(crate) fn ask(&mut self, method: &str, content_type: &str, body: &str) -> String {
        self.cseq += 1;
        self.send(method, content_type, body);
        let cseq = format!("CSeq: {} {method}\r\n", self.cseq);
        let answer = self.next(LIMIT, |text| {
            text.starts_with("SIP/2.0 ") && !text.starts_with("SIP/2.0 1") && text.contains(&cseq)
        });
        answer.unwrap_or_else(|| panic!("no answer to {method}"))
    }

    /// Begins an RS of one line; returns the answer and our port at the server.
    pub(crate) fn invite(&mut self) -> (String, u16) {
        let answer = self.invite_with("application/sdp", &sdp("sendonly", 1));
        let port = ports(&answer)[0];
        (answer, port)
    }

    /// Begins an RS; returns the answer.
    pub(crate) fn invite_with(&mut self, content_type: &str, body: &str) -> String {
        let answer = self.ask("INVITE", content_type, body);
        assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
        let to = answer.lines().find(|line| line.starts_with("To:")).expect("a To");
        self.to_tag = to[to.find(";tag=").expect("a tag")..].to_owned();
        self.send("ACK", "", "");
        answer
    }

    /// The next request of the server; the same one twice over UDP counts once for `cseq` above.
    pub(crate) fn asked(&self, method: &str, limit: Duration) -> Option<String> {
        self.next(limit, |text| text.starts_with(&format!("{method} ")))
    }

    /// Says 200 to a request of the server.
    pub(crate) fn answer(&self, request: &str, fields: &str) {
        self.answer_with(request, fields, "");
    }

    /// The same with an SDP.
    pub(crate) fn answer_sdp(&self, request: &str, sdp: &str) {
        self.answer_with(request, "Content-Type: application/sdp\r\n", sdp);
    }

    pub(crate) fn answer_with(&self, request: &str, fields: &str, body: &str) {
        let own = self.socket.local_addr().expect("bound");
        let same = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
        let tagged = |line: &str| match line.starts_with("To:") && !line.contains(";tag=") {
            true => format!("{line};tag=flow"),
            false => line.to_owned(),
        };
        let copied: Vec<String> = request
            .lines()
            .filter(|line| same.iter().any(|name| line.starts_with(name)))
            .map(tagged)
            .collect();
        let text = format!(
            "SIP/2.0 200 OK\r\n{}\r\nContact: <sip:flow@{own}>;+sip.src\r\n{fields}Content-Length: {}\r\n\r\n{body}",
            copied.join("\r\n"),
            body.len()
        );
        self.socket.send(text.as_bytes()).expect("loopback");
    }
}

pub(crate) fn value<'t>(message: &'t str, name: &str) -> &'t str {
    let line = message.lines().find_map(|line| line.strip_prefix(name));
    line.map_or("", |rest| rest.trim_start_matches(':').trim())
}

pub(crate) fn cseq(message: &str) -> u32 {
    value(message, "CSeq").split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}

/// Plain RTP of one source, packets numbered.
pub(crate) struct Media {
    pub(crate) socket: UdpSocket,
    pub(crate) host: IpAddr,
    pub(crate) to: u16,
    pub(crate) number: u16,
    pub(crate) payload_type: u8,
    /// Between two packets.
    pub(crate) gap: Duration,
}

impl Media {
    pub(crate) fn new(to: u16) -> Self {
        Self::at("127.0.0.1", to)
    }

    /// To another address of ours.
    pub(crate) fn at(host: &str, to: u16) -> Self {
        let host: IpAddr = host.parse().expect("an address");
        let from = if host.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        Media {
            socket: UdpSocket::bind(from).expect("a free port"),
            host,
            to,
            number: 0,
            payload_type: 0,
            gap: Duration::from_millis(2),
        }
    }

    pub(crate) fn send(&mut self, packets: u16) {
        for _ in 0..packets {
            let [high, low] = self.number.to_be_bytes();
            let [_, a, b, c] = (u32::from(self.number) * 160).to_be_bytes();
            let mut packet = vec![0x80, self.payload_type, high, low, 0, a, b, c, 0, 0, 0, 17];
            packet.resize(172, low);
            self.number = self.number.wrapping_add(1);
            self.socket.send_to(&packet, (self.host, self.to)).expect("loopback");
            std::thread::sleep(self.gap);
        }
    }
}

/// An SDP of one line.
pub(crate) fn sdp(direction: &str, version: u32) -> String {
    format!(
        "v=0\r\no=- 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio 6000 RTP/AVP 0\r\na=label:1\r\na={direction}\r\n"
    )
}

/// Ports of the m-lines of an answer.
pub(crate) fn ports(answer: &str) -> Vec<u16> {
    let lines = answer.lines().filter_map(|line| line.strip_prefix("m="));
    lines
        .map(|line| line.split(' ').nth(1).and_then(|port| port.parse().ok()).expect("a port"))
        .collect()
}
