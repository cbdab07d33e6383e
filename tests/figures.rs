//! `/metrics`, `/healthz` and `/readyz` of the real server, as a monitoring system asks for them.

#[expect(dead_code, reason = "shared with tests that need more of it")]
mod server;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use server::{Server, binary, command, free_port, fresh_folder, send, until};

const LIMIT: Duration = Duration::from_secs(10);

struct Bench {
    folder: PathBuf,
    sip: u16,
    http: SocketAddr,
    server: Server,
}

impl Bench {
    fn new() -> Self {
        let (folder, sip, port) = (fresh_folder(), free_port(), free_port());
        let token = folder.join("token");
        std::fs::write(&token, "a-word\n").expect("ours");
        std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).expect("ours");
        let mut command = command(&folder, sip);
        command.args(["--set", &format!("http.listen=[\"127.0.0.1:{port}\"]")]);
        command.arg("--set").arg(format!("http.token={}", token.display()));
        let server = Server::start(command, &folder).ready();
        Bench { folder, sip, http: SocketAddr::from(([127, 0, 0, 1], port)), server }
    }

    /// Status and body; `None`: no answer.
    fn get(&self, path: &str, more: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        stream.set_read_timeout(Some(LIMIT)).expect("a stream");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    fn gets(&self, path: &str, status: u16) -> String {
        let wanted = |(found, body)| (found == status).then_some(body);
        until(path, LIMIT, || self.get(path, "").and_then(wanted))
    }

    /// The value of a line of the page.
    fn figure(&self, line: &str) -> Option<f64> {
        let (status, page) = self.get("/metrics", "Authorization: Bearer a-word\r\n")?;
        assert_eq!(status, 200);
        page.lines().find_map(|own| own.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
    }

    fn reaches(&self, line: &str, value: f64) {
        until(line, LIMIT, || (self.figure(line) == Some(value)).then_some(()));
    }
}

#[test]
fn a_call_shows_in_the_figures_and_ready_means_that_one_would_be_recorded() {
    let mut bench = Bench::new();
    assert_eq!(bench.gets("/readyz", 200), "ready\n");
    assert_eq!(bench.get("/metrics", "").map(|found| found.0), Some(401));
    let before = bench.figure("floortape_recordings_accepted_total").expect("it is there");
    let call = Command::new(binary())
        .args(["src", "call", "--to", &format!("sip:srs@127.0.0.1:{}", bench.sip)])
        .args(["--streams", "2", "--duration", "2"])
        .output()
        .expect("it runs");
    assert!(call.status.success(), "{}", String::from_utf8_lossy(&call.stderr));
    bench.reaches("floortape_recordings_accepted_total", before + 1.0);
    bench.reaches("floortape_recordings_ended_total", before + 1.0);
    let recorded = "floortape_datagrams_total{worker=\"0\",end=\"rtp_recorded\"}";
    until("two streams of two seconds", LIMIT, || {
        bench.figure(recorded).filter(|count| *count >= 200.0)
    });
    bench.reaches("floortape_ready", 1.0);
    // It is sealed, then drawn: until then it waits, and nothing does any more.
    until("a picture of it", 3 * LIMIT, || {
        bench.figure("floortape_peaks_drawn_total").filter(|count| *count >= 1.0)
    });
    bench.reaches("floortape_peaks_waiting", 0.0);
    assert_eq!(bench.figure("floortape_peaks_waiting_since_seconds"), None, "nothing waits");

    // A control that dies is another one a moment later, and its figures begin anew.
    send(bench.server.child("floortape-control").expect("it runs"), Signal::KILL);
    bench.reaches("floortape_recordings_accepted_total", 0.0);
    assert_eq!(bench.gets("/healthz", 200), "ok\n");
    bench.gets("/readyz", 200);
    // Media's count as it was, with the disk where the call lies.
    until("media's count", LIMIT, || bench.figure(recorded).filter(|count| *count >= 200.0));

    // Another token from the next reload on.
    std::fs::write(bench.folder.join("token"), "another").expect("ours");
    bench.server.signal(Signal::HUP);
    until("the new token", LIMIT, || {
        let (status, _) = bench.get("/metrics", "Authorization: Bearer another\r\n")?;
        (status == 200).then_some(())
    });
    assert!(!bench.server.lines().iter().any(|line| line.contains("a-word")), "no secret is told");

    bench.server.signal(Signal::TERM);
    bench.server.wait();
}

#[test]
fn who_asks_without_end_holds_up_nobody() {
    let bench = Bench::new();
    bench.gets("/readyz", 200);
    let silent: Vec<TcpStream> =
        (0..64).filter_map(|_| TcpStream::connect(bench.http).ok()).collect();
    let mut endless = TcpStream::connect(bench.http).expect("a listener");
    let _ = endless.write_all(&vec![b'G'; 1 << 20]);
    // Signalling is another thread's.
    let check = Command::new(binary())
        .args(["src", "call", "--to", &format!("sip:srs@127.0.0.1:{}", bench.sip)])
        .args(["--duration", "0.2"])
        .output()
        .expect("it runs");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    drop(silent);
    bench.gets("/healthz", 200);
}

#[test]
fn a_listener_outside_wants_a_token_that_others_cannot_read() {
    let check = |words: &[&str]| {
        let output = Command::new(binary()).arg("check").args(words).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let open = ["--set", "http.listen=[\"0.0.0.0:9460\"]", "--set", "store.reserve_minutes=0"];
    let (code, said) = check(&open);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("http.listen: 0.0.0.0:9460 can be reached from outside"), "{said}");
    let folder = fresh_folder();
    let token = folder.join("token");
    std::fs::write(&token, "secret-word").expect("ours");
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o644)).expect("ours");
    let set = format!("http.token={}", token.display());
    let (code, said) = check(&[&open[..], &["--set", &set]].concat());
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("mode 0600") && !said.contains("secret-word"), "{said}");
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).expect("ours");
    let (code, said) = check(&[&open[..], &["--set", &set]].concat());
    assert_eq!(code, Some(0), "{said}");
    std::fs::remove_dir_all(folder).expect("ours");
}
