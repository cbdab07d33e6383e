//! Writes session descriptions, line by line, in the order of RFC 4566 §5.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::format::Format;

/// Collects the lines of one description.
///
/// ```
/// use floortape::wire::sdp::Writer;
/// let mut sdp = Writer::new("floortape", 1, 2, "192.0.2.20".parse().unwrap());
/// sdp.media("audio", 20_000, "RTP/AVP", ["0"].into_iter());
/// sdp.attribute("recvonly");
/// assert!(sdp.finish().ends_with("m=audio 20000 RTP/AVP 0\r\na=recvonly\r\n"));
/// ```
pub struct Writer {
    text: String,
}

impl Writer {
    /// Begins with the session part.
    pub fn new(username: &str, session_id: u64, version: u64, address: IpAddr) -> Self {
        Self::at(username, session_id, version, address, address)
    }

    /// The same with another address in `c=` than in `o=`.
    pub fn at(
        username: &str,
        session_id: u64,
        version: u64,
        origin: IpAddr,
        connection: IpAddr,
    ) -> Self {
        let (of_origin, of_connection) = (family(origin), family(connection));
        Writer {
            text: format!(
                "v=0\r\no={username} {session_id} {version} IN {of_origin} {origin}\r\ns=-\r\n\
                 c=IN {of_connection} {connection}\r\nt=0 0\r\n"
            ),
        }
    }

    /// Begins a media section.
    pub fn media<'a>(
        &mut self,
        kind: &str,
        port: u16,
        transport: &str,
        formats: impl Iterator<Item = &'a str>,
    ) {
        self.push(format_args!("m={} {port} {}", clean(kind), clean(transport)));
        self.text.truncate(self.text.len() - 2);
        for format in formats {
            self.text.push(' ');
            self.text.push_str(&clean(format));
        }
        self.text.push_str("\r\n");
    }

    /// `c=` of a section whose address differs from the session's.
    pub fn connection(&mut self, address: IpAddr) {
        self.push(format_args!("c=IN {} {address}", family(address)));
    }

    /// `a=rtpmap` and `a=fmtp` of one format.
    pub fn format(&mut self, format: &Format) {
        let Format { payload_type, codec, clock_rate, channels, fmtp, .. } = format;
        // A dynamic type whose meaning the offer did not tell has no map to repeat.
        if codec != "unknown" {
            self.push(format_args!("a=rtpmap:{payload_type} {}/{clock_rate}", clean(codec)));
            if *channels > 1 {
                self.text.truncate(self.text.len() - 2);
                self.push(format_args!("/{channels}"));
            }
        }
        if let Some(fmtp) = fmtp {
            self.push(format_args!("a=fmtp:{payload_type} {}", clean(fmtp)));
        }
    }

    /// Any attribute, `name` or `name:value`.
    pub fn attribute(&mut self, attribute: &str) {
        self.push(format_args!("a={}", clean(attribute)));
    }

    /// The description.
    pub fn finish(mut self) -> String {
        // It is kept as long as its dialog.
        self.text.shrink_to_fit();
        self.text
    }

    fn push(&mut self, line: std::fmt::Arguments<'_>) {
        write!(self.text, "{line}\r\n").expect("a String takes any text");
    }
}

const fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IP4",
        IpAddr::V6(_) => "IP6",
    }
}

/// A peer's text that is echoed must not begin a line of its own.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '\r' | '\n' | '\0')).collect()
}
