//! Where anchors go, outside of the store: a file, a syslog, a webhook. Each write is whole or an error,
//! and waits a few seconds at most.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keyfile::read_secret;

/// Longest wait for a webhook: connecting, writing and its answer each.
const WAIT: Duration = Duration::from_secs(3);
/// Longest token.
const TOKEN_BYTES_MAX: usize = 4_096;
/// Facility 13 (log audit), severity 5 (notice): RFC 5424 §6.2.1.
const PRIORITY: u8 = 13 * 8 + 5;

/// One place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlet {
    /// A file that lines are appended to.
    File(PathBuf),
    /// A syslog on this machine, by its socket.
    Syslog(PathBuf),
    /// A syslog elsewhere, over UDP.
    Remote(SocketAddr),
    /// HTTP POST.
    Webhook {
        /// Host and port.
        authority: String,
        /// From the first slash on.
        path: String,
        /// File with one line, mode 0600: sent as a bearer token.
        token: Option<PathBuf>,
    },
}

impl fmt::Display for Outlet {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outlet::File(path) | Outlet::Syslog(path) => write!(to, "{}", path.display()),
            Outlet::Remote(address) => write!(to, "syslog at {address}"),
            Outlet::Webhook { authority, path, .. } => write!(to, "http://{authority}{path}"),
        }
    }
}

impl Outlet {
    /// A syslog: a socket's path, or an IP address with its port. `None`: neither.
    pub fn syslog(text: &str) -> Option<Self> {
        match text.starts_with('/') {
            true => Some(Outlet::Syslog(text.into())),
            false => text.parse().ok().map(Outlet::Remote),
        }
    }

    /// A URL such as `http://log.example:8080/anchors`. `None`: it is none that we can reach.
    pub fn webhook(url: &str, token: Option<PathBuf>) -> Option<Self> {
        let rest = url.strip_prefix("http://")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || host.contains('@') || !is_plain(rest) {
            return None;
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { host.to_owned() } else { format!("{host}:80") };
        let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
        Some(Outlet::Webhook { authority, path, token })
    }

    /// In one word.
    pub const fn kind(&self) -> &'static str {
        match self {
            Outlet::File(_) => "file",
            Outlet::Syslog(_) | Outlet::Remote(_) => "syslog",
            Outlet::Webhook { .. } => "webhook",
        }
    }

    /// Writes a line (without its end) of that time, as RFC 3339.
    pub fn write(&self, line: &str, at: &str) -> io::Result<()> {
        match self {
            Outlet::File(path) => append(path, line),
            Outlet::Syslog(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(WAIT))?;
                socket.send_to(syslog(line, at).as_bytes(), path).map(drop)
            }
            Outlet::Remote(address) => {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                // Connected: a port that nobody listens on may say so.
                socket.connect(address)?;
                socket.send(syslog(line, at).as_bytes()).map(drop)
            }
            Outlet::Webhook { authority, path, token } => {
                let token = token.as_deref().map(token_in).transpose()?;
                post(authority, path, token.as_deref().map(String::as_str), line)
            }
        }
    }
}

/// RFC 5424 §6: no structured data, the line is the message.
fn syslog(line: &str, at: &str) -> String {
    let host = rustix::system::uname();
    let host = host.nodename().to_str().ok().filter(|name| !name.is_empty()).unwrap_or("-");
    // RFC 5424 §6.2.3 allows six digits of a second.
    let at = match at.split_once('.') {
        Some((seconds, rest)) => format!("{seconds}.{:.6}Z", rest.trim_end_matches('Z')),
        None => at.to_owned(),
    };
    format!("<{PRIORITY}>1 {at} {host} floortape {} anchor - {line}", std::process::id())
}

/// Appends a line as a whole. What is there of one that a full disk or a power cut has stopped must not
/// become the beginning of the next: that would be read as an anchor that somebody changed.
fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut wanted = OpenOptions::new();
    wanted.append(true).create(true).mode(0o640);
    // It may be ours to write and not to read: then nobody can tell how it ends.
    let mut file = wanted.clone().read(true).open(path).or_else(|_| wanted.open(path))?;
    let before = file.metadata()?.len();
    let mut last = [b'\n'];
    if let Some(at) = before.checked_sub(1) {
        let _ = file.read_exact_at(&mut last, at);
    }
    let begin = if last == [b'\n'] { "" } else { "\n" };
    if let Err(error) = file.write_all(format!("{begin}{line}\n").as_bytes()) {
        // A file that can only grow keeps the piece; the next line begins behind it.
        let _ = file.set_len(before);
        return Err(error);
    }
    file.sync_data()
}

/// The token in a file, which is named where there is none.
pub fn token_in(path: &Path) -> io::Result<zeroize::Zeroizing<String>> {
    read_token(path).map_err(|error| {
        io::Error::new(error.kind(), format!("its token in {}: {error}", path.display()))
    })
}

fn read_token(path: &Path) -> io::Result<zeroize::Zeroizing<String>> {
    let bytes = read_secret(path, TOKEN_BYTES_MAX)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "expected one line of text");
    let text = std::str::from_utf8(&bytes).map_err(|_| invalid())?.trim();
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { Ok(text.to_owned().into()) } else { Err(invalid()) }
}

fn post(authority: &str, path: &str, token: Option<&str>, line: &str) -> io::Result<()> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, WAIT) {
            Ok(stream) => return say(stream, authority, path, token, line),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn say(
    mut stream: TcpStream,
    authority: &str,
    path: &str,
    token: Option<&str>,
    line: &str,
) -> io::Result<()> {
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = zeroize::Zeroizing::new(format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\n{token}Content-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{line}\n",
        line.len() + 1
    ));
    stream.write_all(request.as_bytes())?;
    let mut status = String::new();
    // RFC 9112 §4: the status line; the rest is not asked for.
    BufReader::new(io::Read::take(stream, 1_024)).read_line(&mut status)?;
    let code = status.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
    match code {
        Some(200..=299) => Ok(()),
        Some(code) => Err(io::Error::other(format!("answered {code}"))),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "no answer of HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const LINE: &str = r#"{"anchor":{},"signature":"00"}"#;
    const AT: &str = "2026-11-30T18:14:32.239706161Z";

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("floortape-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temp folder");
        path
    }

    #[test]
    fn a_file_gets_line_after_line_and_a_folder_that_is_gone_is_an_error() {
        let folder = folder("outlet-file");
        let outlet = Outlet::File(folder.join("anchors"));
        outlet.write(LINE, AT).expect("writable");
        outlet.write("second", AT).expect("writable");
        let text = std::fs::read_to_string(folder.join("anchors")).expect("there");
        assert_eq!(text, format!("{LINE}\nsecond\n"));
        // A power cut leaves a piece of a line.
        let cut = LINE.len() as u64 + 4;
        let file = OpenOptions::new().write(true).open(folder.join("anchors")).expect("ours");
        file.set_len(cut).expect("ours");
        outlet.write("third", AT).expect("writable");
        let text = std::fs::read_to_string(folder.join("anchors")).expect("there");
        assert_eq!(text, format!("{LINE}\nsec\nthird\n"));
        std::fs::remove_dir_all(&folder).expect("ours");
        assert!(outlet.write(LINE, AT).is_err());
        let token = Some(folder.join("token"));
        let hook = Outlet::webhook("http://127.0.0.1:1/", token).expect("a URL");
        let why = hook.write(LINE, AT).expect_err("no token").to_string();
        assert!(why.contains("outlet-file") && why.contains("token"), "{why}");
    }

    #[test]
    fn a_syslog_on_either_socket_gets_one_message_of_rfc_5424() {
        let folder = folder("outlet-syslog");
        let path = folder.join("log");
        let local = UnixDatagram::bind(&path).expect("ours");
        let remote = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = remote.local_addr().expect("bound").to_string();
        let head = "<109>1 2026-11-30T18:14:32.239706Z ";
        let end = format!(" floortape {} anchor - {LINE}", std::process::id());
        let mut bytes = [0; 2_048];
        Outlet::syslog(path.to_str().expect("text"))
            .expect("a path")
            .write(LINE, AT)
            .expect("sent");
        let length = local.recv(&mut bytes).expect("sent before");
        let text = std::str::from_utf8(&bytes[..length]).expect("text");
        assert!(text.starts_with(head) && text.ends_with(&end), "{text}");
        Outlet::syslog(&address).expect("an address").write(LINE, AT).expect("sent");
        let length = remote.recv(&mut bytes).expect("sent before");
        let text = std::str::from_utf8(&bytes[..length]).expect("text");
        assert!(text.starts_with(head) && text.ends_with(&end), "{text}");
        assert_eq!(Outlet::syslog("log.example"), None);
        std::fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn a_webhook_is_asked_once_and_only_yes_is_yes() {
        let folder = folder("outlet-hook");
        let token = folder.join("token");
        std::fs::write(&token, "secret\n").expect("ours");
        let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&token, mode(0o600)).expect("ours");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/a?b=c", listener.local_addr().expect("bound"));
        let outlet = Outlet::webhook(&url, Some(token.clone())).expect("a URL");
        let answers = ["204 No Content", "500 Internal Server Error"];
        let server = std::thread::spawn(move || {
            answers.map(|answer| {
                let (mut stream, _) = listener.accept().expect("asked");
                let mut request = String::new();
                let mut lines = BufReader::new(stream.try_clone().expect("ours"));
                while !request.ends_with(&format!("{LINE}\n")) {
                    lines.read_line(&mut request).expect("text");
                }
                write!(stream, "HTTP/1.1 {answer}\r\n\r\n").expect("heard");
                request
            })
        });
        outlet.write(LINE, AT).expect("204");
        assert_eq!(outlet.write(LINE, AT).expect_err("500").to_string(), "answered 500");
        let [request, _] = server.join().expect("it answered");
        assert!(request.starts_with("POST /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
        assert!(request.contains("\r\nAuthorization: Bearer secret\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nContent-Length: {}\r\n", LINE.len() + 1)));
        std::fs::set_permissions(&token, mode(0o644)).expect("ours");
        assert!(outlet.write(LINE, AT).is_err(), "a token that others may read");
        for url in ["https://x/", "http://", "http://a b/", "http://u@h/", "ftp://h/"] {
            assert_eq!(Outlet::webhook(url, None), None, "{url}");
        }
        std::fs::remove_dir_all(&folder).expect("ours");
    }
}
