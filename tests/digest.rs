//! Digest against the real server: who must prove a password, that a restarted control takes the
//! challenges of its predecessor, and whose a recording is then.

mod script;
mod server;

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use floortape::proto::sip::{Algorithm, Challenge, Secret};
use floortape::wire::sip::{Message, parse_datagram};
use rustix::process::Signal;
use script::Script;
use serde_json::Value;
use server::{
    CONTROL, MEDIA, Server, binary, command, free_port, fresh_folder, send, toml_text, until,
};

struct Bench {
    server: Server,
    folder: PathBuf,
    port: u16,
    socket: UdpSocket,
}

/// A file with a password in it.
fn password(folder: &Path, name: &str, line: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, line).expect("ours");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).expect("ours");
    path
}

impl Bench {
    /// A server with the peer `src` (the user of every scripted request), and further keys of it.
    fn start(more: &str) -> Self {
        let folder = fresh_folder();
        let file = password(&folder, "src.password", "src:correct horse\n");
        let config = folder.join("f.toml");
        let text = format!(
            "[[peers]]\nname = \"desk\"\nmatch = \"user:src\"\ndigest = {}\n{more}\n",
            toml_text(&file)
        );
        std::fs::write(&config, text).expect("ours");
        let port = free_port();
        let mut command = command(&folder, port);
        command.arg("-c").arg(&config);
        let server = Server::start(command, &folder).ready();
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("ours");
        socket.connect(("127.0.0.1", port)).expect("loopback");
        Bench { server, folder, port, socket }
    }

    fn local(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    /// The final answer to a request; sent again while nobody listens.
    fn ask(&self, text: &str) -> Message {
        let mut bytes = [0; 8_192];
        let asked = parse_datagram(text.as_bytes()).expect("ours").cseq();
        until("an answer", Duration::from_secs(5), || {
            self.socket.send(text.as_bytes()).ok()?;
            loop {
                let length = self.socket.recv(&mut bytes).ok()?;
                let message = parse_datagram(&bytes[..length]).expect("whole");
                if message.code().is_some_and(|code| code >= 200) && message.cseq() == asked {
                    return Some(message);
                }
            }
        })
    }

    fn request(&self, script: &Script, method: &str, cseq: u32, headers: &str) -> Message {
        self.ask(&script.request(method, cseq, ("UDP", self.local()), headers))
    }

    fn recordings(&self) -> Vec<Value> {
        let store = self.folder.join("store").display().to_string();
        let output = Command::new(binary()).args(["ls", "--json", "--store", &store]).output();
        let text = String::from_utf8(output.expect("it runs").stdout).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn call(&self, words: &[&str]) -> Output {
        let to = format!("sip:srs@127.0.0.1:{};transport=tcp", self.port);
        let all = ["src", "call", "--to", &to, "--duration", "0.5"];
        Command::new(binary()).args(all).args(words).output().expect("it runs")
    }
}

fn challenges(message: &Message) -> Vec<Challenge> {
    assert_eq!(message.code(), Some(401), "{message:?}");
    message.headers.all("WWW-Authenticate").filter_map(Challenge::parse).collect()
}

fn credentials(challenge: &Challenge, method: &str, count: u32) -> String {
    let secret = Secret::parse("src:correct horse").expect("both");
    let answer = challenge.answer(&secret, (method, "sip:srs@127.0.0.1"), (count, "0a4f113b"));
    format!("Authorization: {answer}\r\n")
}

#[test]
fn a_client_that_knows_the_password_is_recorded_and_others_are_not() {
    let mut bench = Bench::start("");
    let right = bench.folder.join("src.password").display().to_string();
    let call = bench.call(&["--digest", &right]);
    assert_eq!(call.status.code(), Some(0), "{}", String::from_utf8_lossy(&call.stderr));
    let all = bench.recordings();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["src"]["identity"], "sip:src@floortape");
    assert_eq!(
        (&all[0]["state"], &all[0]["security"]["signalling"]),
        (&"ended".into(), &"tcp".into())
    );
    let wrong = password(&bench.folder, "wrong.password", "src:battery staple\n");
    for words in [&[][..], &["--digest", &wrong.display().to_string()]] {
        let call = bench.call(words);
        assert_eq!(call.status.code(), Some(4), "{}", String::from_utf8_lossy(&call.stderr));
    }
    assert_eq!(bench.recordings().len(), 1);
    let wrong_told = || bench.server.told("security: a digest answer was wrong").then_some(());
    until("the guess", Duration::from_secs(3), wrong_told);
    for secret in ["correct horse", "battery staple"] {
        assert!(!bench.server.told(secret), "a password in the log");
    }
    assert!(bench.server.child(MEDIA).is_some());
    bench.server.signal(Signal::TERM);
    assert_eq!(bench.server.wait().code(), Some(0));
}

#[test]
fn f61_a_recording_belongs_to_its_user_also_after_a_restart_of_control() {
    let bench = Bench::start("");
    let mut script = Script::new("digest");
    let found = challenges(&bench.request(&script, "INVITE", 1, ""));
    let offered: Vec<_> = found.iter().map(|challenge| challenge.algorithm).collect();
    assert_eq!(offered, [Algorithm::Sha512_256, Algorithm::Sha256]);
    let answer = bench.request(&script, "INVITE", 2, &credentials(&found[0], "INVITE", 1));
    script.answered(&answer);
    let ack = script.request("ACK", 2, ("UDP", bench.local()), "");
    bench.socket.send(ack.as_bytes()).expect("sent");
    assert_eq!(bench.request(&script, "BYE", 90, "").code(), Some(401));
    let before = bench.server.child(CONTROL).expect("it runs");
    send(before, Signal::KILL);
    until("a successor", Duration::from_secs(5), || {
        bench.server.child(CONTROL).filter(|pid| *pid != before)
    });
    assert_eq!(bench.request(&script, "BYE", 91, "").code(), Some(401));
    assert_eq!(bench.recordings()[0]["state"], "live");
    // The challenge of the predecessor, the second algorithm, and a number that was not used up.
    let bye = bench.request(&script, "BYE", 3, &credentials(&found[1], "BYE", 2));
    assert_eq!(bye.code(), Some(200), "{bye:?}");
}

#[test]
fn f56_a_source_that_guesses_waits() {
    let bench = Bench::start("digest_md5 = true");
    let script = Script::new("guess");
    let mut waits = 0;
    for cseq in 1..=5 {
        let fresh = bench.request(&script, "INVITE", cseq * 2, "");
        let found = challenges(&fresh);
        assert_eq!(found.last().map(|challenge| challenge.algorithm), Some(Algorithm::Md5));
        let guess = Secret::parse("src:guess").expect("both");
        let answer = found[0].answer(&guess, ("INVITE", "sip:srs@127.0.0.1"), (1, "c"));
        let headers = format!("Authorization: {answer}\r\n");
        let refused = bench.request(&script, "INVITE", cseq * 2 + 1, &headers);
        waits += usize::from(refused.code() == Some(503));
        if refused.code() == Some(503) {
            assert!(refused.headers.get("Retry-After").is_some(), "{refused:?}");
        }
    }
    assert_eq!(waits, 1, "the fifth guess has to wait");
    assert_eq!(bench.recordings(), Vec::<Value>::new());
}
