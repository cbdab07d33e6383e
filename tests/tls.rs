//! SIP over TLS against the real server: who is taken, who is refused and why, whose a recording is,
//! and what a new certificate does to what is running.

mod pki;
mod script;
mod server;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use floortape::wire::sip::parse_datagram;
use pki::{Ca, Files, Peer};
use rustix::process::Signal;
use script::Script;
use serde_json::Value;
use server::{
    CONTROL, MEDIA, Server, binary, command, free_port, fresh_folder, send, toml_text, until,
};

/// A server with TLS, its CA, and where both lie.
struct Bench {
    server: Server,
    folder: PathBuf,
    ca: Ca,
    own: Files,
    udp: u16,
    tls: u16,
}

impl Bench {
    /// `sip`: further lines of the table `[sip]`.
    fn start(sip: impl Fn(&Ca) -> String) -> Self {
        let folder = fresh_folder();
        let ca = Ca::new(&folder, "ca");
        let own = ca.issue("srs", &["localhost", "127.0.0.1"], 2090);
        let (udp, tls) = (free_port(), free_port());
        let config = folder.join("f.toml");
        let text = format!(
            "[sip]\ntls = [\"127.0.0.1:{tls}\"]\ncert = {}\nkey = {}\n{}\n",
            toml_text(&own.cert),
            toml_text(&own.key),
            sip(&ca)
        );
        std::fs::write(&config, text).expect("ours");
        let mut command = command(&folder, udp);
        command.arg("-c").arg(&config);
        let server = Server::start(command, &folder).ready();
        Bench { server, folder, ca, own, udp, tls }
    }

    fn verb(&self, words: &[&str]) -> Output {
        Command::new(binary()).args(words).output().expect("it runs")
    }

    fn recordings(&self) -> Vec<Value> {
        let store = self.folder.join("store").display().to_string();
        let output = self.verb(&["ls", "--json", "--store", &store]);
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn recording(&self, call_id: &str) -> Value {
        let found = self.recordings().into_iter().find(|found| found["call_id"] == call_id);
        found.unwrap_or_else(|| panic!("{call_id} is not recorded: {:?}", self.recordings()))
    }

    /// `src call` of a second.
    fn call(&self, uri: &str, words: &[&str]) -> Output {
        let to = uri.replace("PORT", &self.tls.to_string());
        let mut all = vec!["src", "call", "--to", &to, "--duration", "0.5", "--json"];
        all.extend(words);
        self.verb(&all)
    }

    fn peer(&self, own: Option<&Files>) -> std::io::Result<Peer> {
        Peer::connect(self.tls, &self.ca.file(), own)
    }

    fn told(&self, text: &str) {
        until(text, Duration::from_secs(3), || self.server.told(text).then_some(()));
    }

    fn reload(&self) {
        self.server.signal(Signal::HUP);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("ASCII")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn client_ca(ca: &Ca) -> String {
    format!("client_ca = {}\n", toml_text(&ca.file()))
}

fn mutual(ca: &Ca) -> String {
    client_ca(ca) + "require_client_cert = true\n"
}

/// Sends an INVITE and its ACK; the dialog.
fn invite(peer: &mut Peer, call_id: &str) -> Script {
    let mut script = Script::new(call_id);
    let hop = ("TLS", peer.local);
    let answer = peer.ask(&script.request("INVITE", 1, hop, "")).expect("an answer");
    script.answered(&answer);
    let contact = answer.contact().expect("one").uri;
    assert!(contact.ends_with(";transport=tls"), "{contact}");
    peer.send(&script.request("ACK", 1, hop, "")).expect("sent");
    script
}

#[test]
fn a_call_over_tls_is_recorded_and_says_how_it_was_protected() {
    let bench = Bench::start(client_ca);
    assert!(bench.server.told(&format!("tls 127.0.0.1:{}", bench.tls)));
    let ca = bench.ca.file();
    let (desk, ca) = (bench.ca.issue("desk", &["desk.example"], 2090), path(&ca));
    let plain = bench.call("sip:srs@127.0.0.1:PORT;transport=tls", &["--tls-ca", ca]);
    assert_eq!(plain.status.code(), Some(0), "{}", stderr(&plain));
    assert_eq!(bench.recordings()[0]["security"]["signalling"], "tls");
    let words = ["--tls-ca", ca, "--tls-cert", path(&desk.cert), "--tls-key", path(&desk.key)];
    let sips = bench.call("sips:srs@localhost:PORT", &words);
    assert_eq!(sips.status.code(), Some(0), "{}", stderr(&sips));
    let all = bench.recordings();
    let mtls: Vec<_> = all.iter().filter(|r| r["security"]["signalling"] == "mtls").collect();
    assert_eq!(mtls.len(), 1, "{all:?}");
    assert_eq!(mtls[0]["src"]["identity"], "desk.example");
    assert!(all.iter().all(|recording| recording["state"] == "ended"), "{all:?}");
}

#[test]
fn req026_a_caller_says_nothing_to_a_server_that_it_cannot_verify() {
    let bench = Bench::start(|_| String::new());
    let (ca, other) = (bench.ca.file(), Ca::new(&bench.folder, "other"));
    let other = other.file();
    let domain = ["--tls-ca", path(&ca), "--tls-domain", "srs.example"];
    let cases: [(&[&str], &str); 3] = [
        (&["--tls-ca", path(&other)], "UnknownIssuer"),
        (&domain, "not valid for name"),
        (&[], "UnknownIssuer"),
    ];
    for (words, why) in cases {
        let call = bench.call("sip:srs@127.0.0.1:PORT;transport=tls", words);
        assert_eq!(call.status.code(), Some(4), "{words:?}: {}", stderr(&call));
        assert!(stderr(&call).contains(why), "{words:?}: {}", stderr(&call));
    }
    assert_eq!(bench.recordings(), Vec::<Value>::new());
    bench.told("the client does not take our certificate or gave up (1 so far");
}

/// Passes a connection on to the server, but for one bit of the first record from the client that can
/// hold an INVITE.
fn tampering(to: u16) -> u16 {
    const APPLICATION_DATA: u8 = 23;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a caller");
        let mut server = TcpStream::connect(("127.0.0.1", to)).expect("it listens");
        let (mut back, mut caller) =
            (server.try_clone().expect("ours"), client.try_clone().expect("ours"));
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut back, &mut caller);
            let _ = caller.shutdown(std::net::Shutdown::Both);
        });
        let (mut head, mut done) = ([0; 5], false);
        while client.read_exact(&mut head).is_ok() {
            let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
            if client.read_exact(&mut record).is_err() {
                break;
            }
            if head[0] == APPLICATION_DATA && record.len() > 200 && !done {
                let middle = record.len() / 2;
                record[middle] ^= 1;
                done = true;
            }
            if server.write_all(&[&head, &record[..]].concat()).is_err() {
                break;
            }
        }
    });
    port
}

/// A document that was changed on its way never arrives; one that arrived is kept as it came, with its
/// digest.
#[test]
fn req027_a_changed_record_ends_the_connection_and_nothing_of_it_is_taken() {
    let bench = Bench::start(|_| String::new());
    let ca = bench.ca.file();
    let port = tampering(bench.tls);
    let mut peer = Peer::connect(port, &ca, None).expect("the handshake is left alone");
    let script = Script::new("tampered");
    let answer = peer.ask(&script.request("INVITE", 1, ("TLS", peer.local), ""));
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(bench.recordings(), Vec::<Value>::new());

    let called = bench.call("sips:srs@127.0.0.1:PORT", &["--tls-ca", path(&ca)]);
    assert_eq!(called.status.code(), Some(0), "{}", stderr(&called));
    let id = bench.recordings()[0]["id"].as_str().expect("an id").to_owned();
    let (store, dir) = (bench.folder.join("store"), bench.folder.join("out"));
    let words = ["export", &id, "-o", path(&dir), "--store", path(&store)];
    assert_eq!(bench.verb(&words).status.code(), Some(0));
    let document = dir.join("metadata/001.xml");
    assert_eq!(bench.verb(&["verify", path(&dir)]).status.code(), Some(0));
    let mut changed = std::fs::read(&document).expect("as it came");
    *changed.last_mut().expect("not empty") ^= 1;
    std::fs::write(&document, changed).expect("ours");
    assert_eq!(bench.verb(&["verify", path(&dir)]).status.code(), Some(1), "its digest tells");
}

#[test]
fn f62_missing_wrong_expired_and_revoked_certificates_are_refused_each_with_its_reason() {
    let bench = Bench::start(|ca| {
        let crl = ca.revoke("lost");
        format!("{}client_crl = {}\n", mutual(ca), toml_text(&crl))
    });
    let other = Ca::new(&bench.folder, "other");
    let cases = [
        (None, "no client certificate (1 so far"),
        (Some(other.issue("desk", &["desk.example"], 2090)), "of an unknown CA (1 so far"),
        (Some(bench.ca.issue("old", &["desk.example"], 2021)), "has expired (1 so far"),
        (
            Some(bench.ca.issue_for("early", &["desk.example"], (2089, 2090))),
            "is not valid yet (1 so far",
        ),
        (Some(bench.ca.issue("lost", &["desk.example"], 2090)), "is revoked (1 so far"),
    ];
    for (own, why) in &cases {
        // In TLS 1.3 the client learns it with its first read.
        let refused = bench.peer(own.as_ref()).and_then(|mut peer| {
            let options = Script::new("refused").request("OPTIONS", 1, ("TLS", peer.local), "");
            peer.ask(&options)
        });
        assert!(refused.is_err(), "{why}: {refused:?}");
        bench.told(why);
    }
    let good = bench.ca.issue("desk", &["sip:desk@example", "sip:example"], 2090);
    let mut peer = bench.peer(Some(&good)).expect("taken");
    let mut script = invite(&mut peer, "good");
    assert_eq!(bench.recording("good")["src"]["identity"], "sip:example");
    assert_eq!(bench.recording("good")["security"]["signalling"], "mtls");
    let bye = peer.ask(&script.request("BYE", 2, ("TLS", peer.local), "")).expect("an answer");
    assert_eq!(bye.code(), Some(200));
    script.to_tag.clear();
    let ca = bench.ca.file();
    let bare = bench.call("sips:srs@127.0.0.1:PORT", &["--tls-ca", path(&ca)]);
    assert_eq!(bare.status.code(), Some(4), "{}", stderr(&bare));
    assert!(stderr(&bare).contains("CertificateRequired"), "{}", stderr(&bare));
}

#[test]
fn f61_a_recording_belongs_to_the_identity_that_started_it() {
    let bench = Bench::start(client_ca);
    let desk = bench.ca.issue("desk", &["sip:desk.example"], 2090);
    let thief = bench.ca.issue("thief", &["sip:thief.example"], 2090);
    let mut peer = bench.peer(Some(&desk)).expect("taken");
    let script = invite(&mut peer, "owned");
    let bye = |peer: &mut Peer, cseq| {
        let text = script.request("BYE", cseq, ("TLS", peer.local), "");
        peer.ask(&text).expect("an answer").code()
    };
    // Numbers above the owner's: they must not be used up.
    let strangers = |cseq| {
        let mut other = bench.peer(Some(&thief)).expect("taken");
        assert_eq!(bye(&mut other, cseq), Some(403));
        let mut nobody = bench.peer(None).expect("taken");
        assert_eq!(bye(&mut nobody, cseq + 1), Some(403));
        let clear = UdpSocket::bind("127.0.0.1:0").expect("a port");
        clear.set_read_timeout(Some(Duration::from_secs(5))).expect("ours");
        let local = clear.local_addr().expect("bound");
        let text = script.request("BYE", cseq + 2, ("UDP", local), "");
        clear.send_to(text.as_bytes(), ("127.0.0.1", bench.udp)).expect("loopback");
        let mut bytes = [0; 4_096];
        let length = clear.recv(&mut bytes).expect("an answer");
        let answer = parse_datagram(&bytes[..length]).expect("whole");
        assert_eq!(answer.code(), Some(403));
    };
    strangers(50);
    bench.told("security: BYE in");
    assert_eq!(bench.recording("owned")["state"], "live");
    // Whose it is outlives control.
    let before = bench.server.child(CONTROL).expect("it runs");
    send(before, Signal::KILL);
    until("a successor that answers", Duration::from_secs(5), || {
        bench.server.child(CONTROL).filter(|pid| *pid != before)?;
        bench.peer(None).ok()
    });
    strangers(60);
    assert_eq!(bench.recording("owned")["state"], "live");
    let mut again = bench.peer(Some(&desk)).expect("taken");
    assert_eq!(bye(&mut again, 2), Some(200));
    until("the end", Duration::from_secs(3), || {
        (bench.recording("owned")["state"] == "ended").then_some(())
    });
}

/// Control dies twice under calls that change their keys all the time: each connection falls with it,
/// another is made as the same identity, and what had no answer is said again.
#[test]
fn f02_calls_over_tls_outlive_their_connection() {
    let bench = Bench::start(mutual);
    let desk = bench.ca.issue("desk", &["desk.example"], 2090);
    let ca = bench.ca.file();
    let call = Command::new(binary())
        .args(["src", "call", "--to", &format!("sips:srs@localhost:{}", bench.tls)])
        .args(["--tls-ca", path(&ca), "--tls-cert", path(&desk.cert), "--tls-key", path(&desk.key)])
        .args(["--streams", "4", "--rekey", "0.1", "--duration", "3", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary is built");
    until("two recordings", Duration::from_secs(10), || {
        (bench.recordings().len() == 2).then_some(())
    });
    for _ in 0..2 {
        let before = bench.server.child(CONTROL).expect("it runs");
        send(before, Signal::KILL);
        until("a successor that answers", Duration::from_secs(5), || {
            bench.server.child(CONTROL).filter(|pid| *pid != before)?;
            bench.peer(Some(&desk)).ok()
        });
    }
    let output = call.wait_with_output().expect("ours");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // Once where it was not back yet at the second death.
    assert!(told["reconnected"].as_u64() >= Some(1), "{told}");
    assert!(told["rekeyed"].as_u64() > Some(20), "{told}");
    assert_eq!(told["rekeys_refused"], 0, "{told}");
    // Ended, and its last packets durable: what is not is not listed yet.
    let is_whole = |recording: &Value| {
        let streams = recording["streams"].as_array().into_iter().flatten();
        let mut sources = streams.flat_map(|stream| stream["sources"].as_array()).flatten();
        recording["state"] == "ended" && sources.all(|source| source["packets"] == 150)
    };
    let all = until("the end", Duration::from_secs(5), || {
        let all = bench.recordings();
        all.iter().all(is_whole).then_some(all)
    });
    assert_eq!(all.len(), 2, "{all:?}");
    for recording in &all {
        assert_eq!(recording["src"]["identity"], "desk.example");
        for stream in recording["streams"].as_array().expect("a list") {
            for source in stream["sources"].as_array().expect("a list") {
                assert_eq!(source["packets"], 150, "{source}");
                assert_eq!(source["unexplained"], 0, "{source}");
            }
        }
    }
}

#[test]
fn f62_a_new_certificate_is_shown_after_reload_and_no_session_drops() {
    let mut bench = Bench::start(|_| String::new());
    let roles = |server: &Server| [MEDIA, CONTROL].map(|name| server.child(name));
    let running = roles(&bench.server);
    let mut peer = bench.peer(None).expect("taken");
    let script = invite(&mut peer, "kept");
    let before = peer.shown();
    // Renewed in place: the same names of files.
    let renewed = bench.ca.issue("srs", &["localhost", "127.0.0.1"], 2091);
    assert_eq!(renewed.cert, bench.own.cert);
    bench.reload();
    until("the new certificate", Duration::from_secs(3), || {
        (bench.peer(None).expect("taken").shown() != before).then_some(())
    });
    let after = bench.peer(None).expect("taken").shown();
    // A broken renewal is refused with its place, and changes nothing.
    std::fs::write(&bench.own.cert, "half a file").expect("ours");
    bench.reload();
    bench.told("f.toml:3:8: error: sip.cert");
    bench.told("not reloaded: 1 fault");
    assert_eq!(bench.peer(None).expect("taken").shown(), after);
    let bye = peer.ask(&script.request("BYE", 2, ("TLS", peer.local), "")).expect("still there");
    assert_eq!(bye.code(), Some(200));
    assert_eq!(roles(&bench.server), running, "nothing was started again");
    bench.server.signal(Signal::TERM);
    assert_eq!(bench.server.wait().code(), Some(0));
}

/// Which clients are taken changes by reload: by the list of those revoked, then by the CA. Whoever is
/// in stays in; what cannot be read changes nothing.
#[test]
fn f62_after_a_reload_other_clients_are_taken_and_no_session_drops() {
    let bench = Bench::start(|ca| {
        let crl = ca.revoke("nobody");
        format!("{}client_crl = {}\n", mutual(ca), toml_text(&crl))
    });
    let reloads = |count: usize| {
        bench.reload();
        until("the reload", Duration::from_secs(3), || {
            // Keeper says it first.
            let told = |line: &&String| line.contains("control::role: configuration reloaded");
            (bench.server.lines().iter().filter(told).count() == count).then_some(())
        });
    };
    let asks = |own: &Files| {
        bench.peer(Some(own)).and_then(|mut peer| {
            peer.ask(&Script::new("asks").request("OPTIONS", 1, ("TLS", peer.local), ""))
        })
    };
    let desk = bench.ca.issue("desk", &["desk.example"], 2090);
    let mut peer = bench.peer(Some(&desk)).expect("taken");
    let script = invite(&mut peer, "kept");
    bench.ca.revoke("desk");
    reloads(1);
    assert!(asks(&desk).is_err(), "revoked");
    bench.told("is revoked (1 so far");
    let second = bench.ca.issue("second", &["second.example"], 2090);
    assert_eq!(asks(&second).expect("taken").code(), Some(200));
    // The CA is another one, under the same name; the list is of the old one.
    let other = Ca::new(&bench.folder, "other");
    let theirs = other.issue("desk", &["desk.example"], 2090);
    assert!(asks(&theirs).is_err(), "of a CA that is not known yet");
    let before = std::fs::read(bench.ca.file()).expect("ours");
    std::fs::copy(other.file(), bench.ca.file()).expect("ours");
    reloads(2);
    // The server's own certificate is still of the old one, which its clients go by.
    let trusted = bench.folder.join("trusted.pem");
    std::fs::write(&trusted, &before).expect("ours");
    let asks = |own: &Files| {
        Peer::connect(bench.tls, &trusted, Some(own)).and_then(|mut peer| {
            peer.ask(&Script::new("asks").request("OPTIONS", 1, ("TLS", peer.local), ""))
        })
    };
    assert_eq!(asks(&theirs).expect("taken").code(), Some(200));
    assert!(asks(&second).is_err(), "of the old CA");
    std::fs::write(bench.ca.file(), "half a file").expect("ours");
    bench.reload();
    bench.told("error: sip.client_ca");
    assert_eq!(asks(&theirs).expect("still taken").code(), Some(200));
    let bye = peer.ask(&script.request("BYE", 2, ("TLS", peer.local), "")).expect("still there");
    assert_eq!(bye.code(), Some(200));
    assert_eq!(bench.recording("kept")["src"]["identity"], "desk.example");
}

#[test]
fn f55_connections_that_say_nothing_hold_up_nobody() {
    let bench = Bench::start(|_| String::new());
    let silent: Vec<TcpStream> =
        (0..256).map(|_| TcpStream::connect(("127.0.0.1", bench.tls)).expect("taken")).collect();
    let started = Instant::now();
    let mut peer = bench.peer(None).expect("taken");
    invite(&mut peer, "through");
    let took = started.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
    // At most eight of one source are left before their time; two seconds later none.
    let open = |streams: &[TcpStream]| {
        let alive = |mut stream: &TcpStream| {
            stream.set_nonblocking(true).expect("ours");
            let kind = stream.read(&mut [0]).map_err(|error| error.kind());
            kind == Err(std::io::ErrorKind::WouldBlock)
        };
        streams.iter().filter(|stream| alive(stream)).count()
    };
    until("those above eight to be closed", Duration::from_secs(1), || {
        (open(&silent) <= 8).then_some(())
    });
    until("the rest", Duration::from_secs(4), || (open(&silent) == 0).then_some(()));
    assert!(bench.server.told("gave way to a newer connection"), "{:?}", bench.server.lines());
    bench.told("nothing came within 2 s");
}

#[test]
fn check_reads_the_files_and_tells_place_and_end() {
    let folder = fresh_folder();
    let ca = Ca::new(&folder, "ca");
    let (one, other) = (ca.issue("one", &["a"], 2090), ca.issue("other", &["a"], 2090));
    let old = ca.issue("old", &["a"], 2021);
    let store = format!("store.dir={}", toml_text(&folder.join("store")));
    let check = |text: &str| {
        let file = folder.join("f.toml");
        std::fs::write(&file, text).expect("ours");
        let words = ["check", "--set", &store, "-c", path(&file)];
        let output = Command::new(binary()).args(words).output().expect("it runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output),
        )
    };
    let text = |cert: &Path, key: &Path, more: &str| {
        format!(
            "[sip]\nudp = []\ntcp = []\ntls = [\"127.0.0.1:5061\"]\ncert = {}\nkey = {}\n{more}",
            toml_text(cert),
            toml_text(key)
        )
    };
    let (code, said) = check(&text(&one.cert, &one.key, ""));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("certificate    ok: lasts"), "{said}");
    let (code, said) = check(&text(&old.cert, &old.key, ""));
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("certificate    expired"), "{said}");
    let missing = folder.join("missing.pem");
    let faults = [
        (text(&one.cert, &other.key, ""), "f.toml:6:7: error: sip.key", "is not the key of"),
        (text(&missing, &one.key, ""), "f.toml:5:8: error: sip.cert", "No such file"),
        (text(&one.key, &other.key, ""), "f.toml:5:8: error: sip.cert", "expected a certificate"),
        (
            text(&one.cert, &one.key, &format!("client_ca = {}\n", toml_text(&one.key))),
            "f.toml:7:13: error: sip.client_ca",
            "expected a CA certificate",
        ),
        (
            text(&one.cert, &one.key, "require_client_cert = true\n"),
            "f.toml:7:23: error: sip.require_client_cert",
            "sip.client_ca",
        ),
        (
            "[sip]\ntls = [\"127.0.0.1:5061\"]\n".to_owned(),
            "f.toml:2:7: error: sip.tls",
            "sip.cert",
        ),
    ];
    for (text, place, why) in faults {
        let (code, said) = check(&text);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(place) && said.contains(why), "{place} {why}: {said}");
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&one.key, mode).expect("ours");
    let (code, said) = check(&text(&one.cert, &one.key, ""));
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("found mode 0644"), "{said}");
    std::fs::remove_dir_all(folder).expect("ours");
}
