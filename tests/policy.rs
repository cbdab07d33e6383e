//! The recording policy with the real server: what it leaves out is on no disk and in no log.

#[expect(dead_code, reason = "shared with tests that speak TLS themselves")]
mod pki;
#[expect(dead_code, reason = "shared with tests that kill processes")]
mod server;
#[expect(dead_code, reason = "shared with tests of flows")]
mod words;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use pki::Ca;
use rustix::process::Signal;
use serde_json::Value;
use server::{Server, binary, command, free_port, fresh_folder, toml_text, until};
use words::{Media, Src, ports};

const LIMIT: Duration = Duration::from_secs(10);
const UPDATE: &str = "Allow: INVITE, UPDATE, BYE\r\n";
const PRIVATE: &str = "[policy]\n[[policy.rules]]\nname = \"no private lines\"\nrecord = false\n\
                       aor = [\"sip:*@private.example\"]\n";

/// A server under a policy.
struct Bench {
    folder: PathBuf,
    port: u16,
    server: Server,
}

impl Bench {
    fn new(config: &str) -> Self {
        /// Media ports of all servers here, 60 each: [`Self::new`] says where.
        static NEXT: AtomicU16 = AtomicU16::new(27_800);
        let (folder, port) = (fresh_folder(), free_port());
        let first = NEXT.fetch_add(60, Ordering::Relaxed);
        assert!(first < 28_340, "no more than ten servers");
        std::fs::write(folder.join("f.toml"), config).expect("ours");
        let mut command = command(&folder, port);
        command.arg("-c").arg(folder.join("f.toml"));
        command.args(["--set", &format!("media.ports={first}-{}", first + 59)]);
        let server = Server::start(command, &folder).ready();
        Bench { folder, port, server }
    }

    fn run(&self, words: &[&str]) -> String {
        let store = self.folder.join("store");
        let output = Command::new(binary()).args(words).arg("--store").arg(store).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn recordings(&self) -> Vec<Value> {
        let listed = self.run(&["ls", "--json"]);
        listed.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
    }

    /// All recordings, once they are over and durable.
    fn over(&self, count: usize) -> Vec<Value> {
        let whole = |one: &Value| one["state"] == "ended" && one["durable_through"] == one["end"];
        until("the end", LIMIT, || {
            Some(self.recordings()).filter(|all| all.len() == count && all.iter().all(whole))
        })
    }

    /// Nothing of these words is in any file of the store, in clear or in base64, or in the log.
    fn holds_nothing_of(&self, words: &[&str]) {
        for word in words {
            let mut found = holds(&self.folder.join("store"), word);
            found.retain(|path| !is_rule_alone(path, word));
            assert!(found.is_empty(), "{word} in {found:?}");
            let told = self.server.lines().into_iter().find(|line| line.contains(word));
            assert_eq!(told, None);
        }
    }

    fn told(&self, text: &str) {
        until(text, LIMIT, || self.server.told(text).then_some(()));
    }
}

/// Whether a file is one of the audit trail, in which the word stands only in the rule's own pattern: the
/// configuration that came into force.
fn is_rule_alone(path: &Path, word: &str) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    let rest = String::from_utf8_lossy(&bytes).replace(&format!("*@{word}"), "");
    path.parent().is_some_and(|folder| folder.ends_with("audit")) && !rest.contains(word)
}

/// Files that hold a word, as it is or inside of base64 wherever that begins.
fn holds(folder: &Path, word: &str) -> Vec<PathBuf> {
    let mut needles = vec![word.as_bytes().to_vec()];
    for shift in 0..3 {
        let text = format!("{}{word}", "?".repeat(shift));
        let encoded = STANDARD_NO_PAD.encode(&text);
        // The first digits hold what is before, the last one may hold what comes behind.
        let inner = &encoded[(shift * 8_usize).div_ceil(6)..text.len() * 8 / 6];
        needles.push(inner.as_bytes().to_vec());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holds(&path, word));
        } else if let Ok(bytes) = std::fs::read(&path)
            && needles.iter().any(|needle| memchr::memmem::find(&bytes, needle).is_some())
        {
            found.push(path);
        }
    }
    found
}

/// A document of calls: who is in each, and on which label.
fn document(calls: &[(&[&str], &str)]) -> String {
    let mut xml = "<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">".to_owned();
    for (people, label) in calls {
        xml += &format!("<session session_id=\"call-{label}\"/>");
        for aor in *people {
            let name = aor.split(['@', ':']).nth(1).expect("a user");
            xml += &format!(
                "<participant participant_id=\"p-{label}-{name}\"><nameID aor=\"{aor}\">\
                 <name>{name}</name></nameID></participant>\
                 <participantsessionassoc participant_id=\"p-{label}-{name}\" \
                 session_id=\"call-{label}\"/>"
            );
        }
        xml += &format!(
            "<stream stream_id=\"stream-{label}\" session_id=\"call-{label}\">\
             <label>{label}</label></stream>"
        );
    }
    xml + "</recording>"
}

fn line(media: &str, formats: &str, label: &str) -> String {
    format!("m={media} 6000 RTP/AVP {formats}\r\na=label:{label}\r\na=sendonly\r\n")
}

fn sdp(version: u32, lines: &[String]) -> String {
    format!(
        "v=0\r\no=- 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n{}",
        lines.concat()
    )
}

fn audio(version: u32, labels: &[&str]) -> String {
    let lines: Vec<String> = labels.iter().map(|label| line("audio", "0", label)).collect();
    sdp(version, &lines)
}

const MIXED: &str = "multipart/mixed;boundary=e";
const METADATA: &str = "application/rs-metadata+xml";

fn body(sdp: &str, xml: &str) -> String {
    format!(
        "--e\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--e\r\nContent-Type: {METADATA}\r\n\
         Content-Disposition: recording-session\r\n\r\n{xml}\r\n--e--\r\n"
    )
}

/// A call of these people on one line, some packets long; the code of its INVITE.
fn call(bench: &Bench, people: &[&str], packets: u16) -> u16 {
    let mut src = Src::new(bench.port, UPDATE);
    let body = body(&audio(1, &["1"]), &document(&[(people, "1")]));
    let answer = src.ask("INVITE", MIXED, &body);
    let code = answer[8..11].parse().expect("a code");
    if code == 200 {
        let to = answer.lines().find(|line| line.starts_with("To:")).expect("a To");
        src.to_tag = to[to.find(";tag=").expect("a tag")..].to_owned();
        src.send("ACK", "", "");
        Media::new(ports(&answer)[0]).send(packets);
        assert!(src.ask("BYE", METADATA, &document(&[(people, "1")])).starts_with("SIP/2.0 200"));
    } else {
        src.send("ACK", "", "");
    }
    code
}

fn packets(recording: &Value) -> Vec<(String, u64)> {
    let streams = recording["streams"].as_array().expect("a list").iter();
    let count = |stream: &Value| {
        let sources = stream["sources"].as_array().into_iter().flatten();
        sources.map(|source| source["packets"].as_u64().expect("a count")).sum()
    };
    streams
        .map(|stream| (stream["label"].as_str().expect("a label").to_owned(), count(stream)))
        .collect()
}

#[test]
fn uc2_of_three_calls_the_private_one_leaves_nothing_but_a_count() {
    let bench = Bench::new(PRIVATE);
    assert_eq!(call(&bench, &["sip:ann@open.example", "sip:cid@open.example"], 20), 200);
    let private = ["sip:ann@open.example", "sips:Bobwhite@PRIVATE.example:5061"];
    assert_eq!(call(&bench, &private, 20), 403);
    assert_eq!(call(&bench, &["sip:dan@open.example"], 30), 200);
    let all = bench.over(2);
    let mut found: Vec<_> = all.iter().flat_map(packets).collect();
    found.sort();
    assert_eq!(found, [("1".to_owned(), 20), ("1".to_owned(), 30)]);
    bench.told("1 not recorded by policy: 1 by rule \"no private lines\"");
    assert!(!holds(&bench.folder.join("store"), "sip:cid@open.example").is_empty());
    bench.holds_nothing_of(&["obwhite", "PRIVATE.example", "private.example"]);
    bench.run(&["verify", "--all"]);
}

#[test]
fn req003_listed_records_the_calls_of_one_extension_and_no_others() {
    let bench = Bench::new(
        "[policy]\nrecord = \"listed\"\n[[policy.rules]]\nname = \"ext 17\"\nrecord = true\n\
         aor = [\"sip:17@*\", \"tel:+4930*\"]\n",
    );
    assert_eq!(call(&bench, &["sip:17@pbx.example", "sip:ann@open.example"], 20), 200);
    assert_eq!(call(&bench, &["sip:18@pbx.example", "sip:zoltan@open.example"], 20), 403);
    // The number of a SIP address of a telephone.
    assert_eq!(call(&bench, &["sip:+49-30-1234@gw.example"], 10), 200);
    assert_eq!(call(&bench, &["sip:zoltan@open.example"], 20), 403);
    // Who tells nothing asks for nothing that could be found.
    let mut mute = Src::new(bench.port, "");
    assert!(mute.ask("INVITE", "application/sdp", &audio(1, &["1"])).starts_with("SIP/2.0 403"));
    bench.over(2);
    bench.told("by no rule asks for it");
    bench.holds_nothing_of(&["zoltan", "18@pbx"]);
    bench.run(&["verify", "--all"]);
}

#[test]
fn req003_lines_are_chosen_by_label_media_codec_and_peer() {
    let rule = |name: &str, rest: &str| {
        format!("[[policy.rules]]\nname = \"{name}\"\nrecord = false\n{rest}\n")
    };
    let config = [
        "[[peers]]\nname = \"turret\"\nmatch = \"127.0.0.1\"\n".to_owned(),
        "[[peers]]\nname = \"nobody\"\nmatch = \"192.0.2.7\"\n[policy]\n".to_owned(),
        rule("never", "peer = [\"nobody\"]"),
        rule("no pictures", "peer = [\"turret\"]\nmedia = [\"video\"]"),
        rule("no a-law", "codec = [\"pcma\"]"),
        rule("not line 3", "label = [\"3\"]"),
    ]
    .concat();
    let bench = Bench::new(&config);
    let mut src = Src::new(bench.port, UPDATE);
    let lines = [
        line("audio", "0", "1"),
        line("video", "96", "2") + "a=rtpmap:96 H264/90000\r\n",
        line("audio", "0", "3") + "a=ssrc:9 cname:quentin@x\r\n",
        line("audio", "8", "4"),
        line("audio", "0 8", "5"),
    ];
    let open = document(&[(&["sip:ann@x"], "1"), (&["sip:quentin@x"], "3"), (&["sip:eve@x"], "5")]);
    let answer = src.invite_with(MIXED, &body(&sdp(1, &lines), &open));
    let to = ports(&answer);
    assert_eq!(
        to.iter().map(|port| *port > 0).collect::<Vec<_>>(),
        [true, false, false, false, true]
    );
    Media::new(to[0]).send(20);
    Media::new(to[4]).send(30);
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
    let over = bench.over(1).remove(0);
    assert_eq!(packets(&over), [("1".to_owned(), 20), ("5".to_owned(), 30)]);
    let quirks = over["quirks"].to_string();
    for (line, name) in [(2, "no pictures"), (3, "not line 3"), (4, "no a-law")] {
        let told = format!(
            "m-line {line} is not recorded: the recording policy leaves it out: rule \\\"{name}"
        );
        assert!(quirks.contains(&told), "{quirks}");
    }
    // Who is only on the line that is left out is not named.
    assert!(!holds(&bench.folder.join("store"), "sip:eve@x").is_empty());
    bench.holds_nothing_of(&["quentin"]);
    bench.run(&["verify", over["id"].as_str().expect("an id")]);
}

#[test]
fn f60_a_call_that_is_transferred_to_a_private_party_rests_until_that_one_has_left() {
    let bench = Bench::new(PRIVATE);
    let mut src = Src::new(bench.port, UPDATE);
    let open = document(&[(&["sip:ann@open.example", "sip:cid@open.example"], "1")]);
    let private = document(&[(&["sip:ann@open.example", "sip:bobwhite@private.example"], "1")]);
    let answer = src.invite_with(MIXED, &body(&audio(1, &["1"]), &open));
    let mut media = Media::new(ports(&answer)[0]);
    media.send(20);
    // By metadata alone: what comes behind the 200 is not stored, and the client is told to rest.
    assert!(src.ask("UPDATE", METADATA, &private).starts_with("SIP/2.0 200"));
    media.send(13);
    let offer = src.asked("UPDATE", LIMIT).expect("an offer");
    assert!(offer.contains("a=inactive"), "{offer}");
    src.answer_sdp(&offer, &audio(2, &["1"]).replace("sendonly", "inactive"));
    media.send(4);
    // An offer of the client does not change that.
    std::thread::sleep(Duration::from_millis(200));
    let answer = src.ask("INVITE", "application/sdp", &audio(3, &["1"]));
    assert!(answer.starts_with("SIP/2.0 200") && answer.contains("a=inactive"), "{answer}");
    src.send("ACK", "", "");
    media.send(6);
    // Nor does the death of control.
    let control = bench.server.child(server::CONTROL).expect("it runs");
    server::send(control, Signal::KILL);
    until("the next control", LIMIT, || {
        bench.server.child(server::CONTROL).filter(|pid| *pid != control)
    });
    let partial = private.replacen(":1\">", ":1\"><datamode>partial</datamode>", 1);
    let answer = src.ask("UPDATE", METADATA, &partial);
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    media.send(8);
    // The private party has left.
    assert!(src.ask("UPDATE", METADATA, &open).starts_with("SIP/2.0 200"));
    let offer = src.next(LIMIT, |text| text.starts_with("UPDATE ") && text.contains("recvonly"));
    src.answer_sdp(&offer.expect("an offer"), &audio(4, &["1"]));
    media.send(25);
    std::thread::sleep(Duration::from_millis(200));
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
    let over = bench.over(1).remove(0);
    let source = &over["streams"][0]["sources"][0];
    assert_eq!(source["packets"], 45, "{over}");
    assert_eq!(source["lost"], serde_json::json!({ "paused": 31 }), "{over}");
    let pauses = over["streams"][0]["pauses"].as_array().expect("a list");
    assert_eq!((pauses.len(), pauses[0]["cause"].as_str()), (1, Some("srs")), "{over}");
    let quirks = over["quirks"].to_string();
    assert!(quirks.contains("m-line 1 rests") && quirks.contains("recorded again"), "{quirks}");
    bench.holds_nothing_of(&["obwhite", "private.example"]);
    bench.run(&["verify", over["id"].as_str().expect("an id")]);
}

#[test]
fn only_peers_record_where_the_policy_says_so_and_a_reload_makes_one() {
    let config = |address: &str| {
        format!("[[peers]]\nname = \"sbc\"\nmatch = \"{address}\"\n[policy]\nsources = \"peers\"\n")
    };
    let bench = Bench::new(&config("192.0.2.7"));
    let mut src = Src::new(bench.port, "");
    let refused = src.ask("INVITE", "application/sdp", &audio(1, &["1"]));
    assert!(refused.starts_with("SIP/2.0 403") && refused.contains("known peers"), "{refused}");
    src.send("ACK", "", "");
    assert!(src.ask("OPTIONS", "", "").starts_with("SIP/2.0 403"));
    assert!(bench.recordings().is_empty());
    bench.told("2 not recorded by policy: 2 by policy.sources");
    std::fs::write(bench.folder.join("f.toml"), config("127.0.0.1")).expect("ours");
    bench.server.signal(Signal::HUP);
    bench.told("configuration reloaded");
    until("a peer", LIMIT, || {
        Src::new(bench.port, "").ask("OPTIONS", "", "").starts_with("SIP/2.0 200").then_some(())
    });
    assert_eq!(call(&bench, &["sip:ann@x"], 5), 200);
    bench.over(1);
}

#[test]
fn what_is_too_weak_for_a_peer_is_refused_and_what_is_not_is_no_quirk() {
    let (folder, tls) = (fresh_folder(), free_port());
    let ca = Ca::new(&folder, "ca");
    let own = ca.issue("srs", &["localhost", "127.0.0.1"], 2090);
    let bench = Bench::new(&format!(
        "[sip]\ntls = [\"127.0.0.1:{tls}\"]\ncert = {}\nkey = {}\n[[peers]]\nname = \"desk\"\n\
         match = \"127.0.0.1\"\nstrict = true\nsrtp = \"require\"\nsecure_signalling = true\n\
         suites = [\"AEAD_AES_256_GCM\", \"AEAD_AES_128_GCM\"]\n",
        toml_text(&own.cert),
        toml_text(&own.key)
    ));
    let ca = ca.file();
    let call = |to: &str, words: &[&str]| -> (Option<i32>, String) {
        let mut command = Command::new(binary());
        command.args(["src", "call", "--to", to, "--duration", "0.5"]).args(words);
        command.args(["--tls-ca", ca.to_str().expect("ASCII")]);
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let secure = format!("sips:srs@localhost:{tls}");
    let (code, said) = call(&format!("sip:srs@127.0.0.1:{};transport=tcp", bench.port), &[]);
    assert!(code == Some(4) && said.contains("403"), "in clear: {code:?} {said}");
    let (code, said) = call(&secure, &["--suite", "AES_CM_128_HMAC_SHA1_80"]);
    assert!(code == Some(4) && said.contains("488"), "a weak suite: {code:?} {said}");
    let (code, said) = call(&secure, &["--srtp", "none"]);
    assert!(code == Some(4) && said.contains("488"), "plain RTP: {code:?} {said}");
    let (code, said) = call(&secure, &["--suite", "AEAD_AES_128_GCM"]);
    assert_eq!(code, Some(0), "{said}");
    let over = bench.over(1).remove(0);
    assert_eq!(over["streams"][0]["suite"], "AEAD_AES_128_GCM", "{over}");
    assert!(!over["quirks"].to_string().contains("unprotected"), "{over}");
}

/// Passes bytes between a client and a server, and keeps them.
fn tap(to: u16) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let pass = |mut from: TcpStream, mut to: TcpStream, kept: Arc<Mutex<Vec<u8>>>| {
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                kept.lock().expect("no panic while held").extend(&buffer[..length]);
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        })
    };
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
            let twice = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
            pass(twice(&client), twice(&server), Arc::clone(&kept));
            pass(server, client, Arc::clone(&kept));
        }
    });
    (port, seen)
}

#[test]
fn req029_over_tls_no_address_is_seen_on_the_wire_and_in_clear_no_metadata_is_taken() {
    let (folder, tls) = (fresh_folder(), free_port());
    let ca = Ca::new(&folder, "ca");
    let own = ca.issue("srs", &["localhost", "127.0.0.1"], 2090);
    let config = |secure: bool| {
        format!(
            "[sip]\ntls = [\"127.0.0.1:{tls}\"]\ncert = {}\nkey = {}\n[policy]\n\
             secure_signalling = {secure}\n",
            toml_text(&own.cert),
            toml_text(&own.key)
        )
    };
    let bench = Bench::new(&config(true));
    let ca = ca.file();
    let call = |to: &str, words: &[&str]| -> Output {
        let mut command = Command::new(binary());
        command.args(["src", "call", "--to", to, "--duration", "0.5", "--json"]).args(words);
        command.output().expect("it runs")
    };
    let (port, seen) = tap(tls);
    let secure =
        call(&format!("sips:srs@localhost:{port}"), &["--tls-ca", ca.to_str().expect("ASCII")]);
    assert_eq!(secure.status.code(), Some(0), "{}", String::from_utf8_lossy(&secure.stderr));
    let over = bench.over(1).remove(0);
    let aor = over["participants"][0]["names"][0]["aor"].as_str().expect("an AoR").to_owned();
    let has = |seen: &Mutex<Vec<u8>>| {
        let seen = seen.lock().expect("no panic while held");
        (seen.len() > 1_000, memchr::memmem::find(&seen, aor.as_bytes()).is_some())
    };
    assert_eq!(has(&seen), (true, false), "{aor}");
    // In clear it would be seen, and is refused: by TCP, by UDP, also without metadata.
    let (port, seen) = tap(bench.port);
    let clear = call(&format!("sip:srs@127.0.0.1:{port};transport=tcp"), &[]);
    assert_eq!(clear.status.code(), Some(4), "{}", String::from_utf8_lossy(&clear.stderr));
    assert_eq!(has(&seen), (true, true), "the tap works");
    let mut src = Src::new(bench.port, "");
    let xml = document(&[(&["sip:ysolde@x"], "1")]);
    let refused = src.ask("INVITE", MIXED, &body(&audio(1, &["1"]), &xml));
    assert!(refused.starts_with("SIP/2.0 403") && refused.contains("over TLS only"), "{refused}");
    src.send("ACK", "", "");
    let bare = Src::new(bench.port, "").ask("INVITE", "application/sdp", &audio(1, &["1"]));
    assert!(bare.starts_with("SIP/2.0 403"), "{bare}");
    assert_eq!(bench.recordings().len(), 1);
    bench.told("by policy.secure_signalling");
    bench.holds_nothing_of(&["ysolde"]);
    // A session of before the policy goes on; metadata in it is refused, its end is taken.
    std::fs::write(bench.folder.join("f.toml"), config(false)).expect("ours");
    bench.server.signal(Signal::HUP);
    until("a clear call", LIMIT, || {
        Src::new(bench.port, "").ask("OPTIONS", "", "").starts_with("SIP/2.0 200").then_some(())
    });
    let mut before = Src::new(bench.port, UPDATE);
    before.invite_with("application/sdp", &audio(1, &["1"]));
    std::fs::write(bench.folder.join("f.toml"), config(true)).expect("ours");
    bench.server.signal(Signal::HUP);
    until("no clear call", LIMIT, || {
        Src::new(bench.port, "").ask("OPTIONS", "", "").starts_with("SIP/2.0 403").then_some(())
    });
    assert!(before.ask("UPDATE", METADATA, &xml).starts_with("SIP/2.0 403"));
    assert!(before.ask("UPDATE", "", "").starts_with("SIP/2.0 200"));
    assert!(before.ask("BYE", METADATA, &xml).starts_with("SIP/2.0 200"));
    bench.over(2);
    bench.holds_nothing_of(&["ysolde"]);
    std::fs::remove_dir_all(folder).expect("ours");
}
