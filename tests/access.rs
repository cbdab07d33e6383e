//! Who may do what, by a whole server and users of other numbers: what they are let, what is refused, and
//! that both are in the audit trail. As root the tests take numbers that belong to nobody; else those that
//! need them say that they were left out.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

#[path = "server/copy.rs"]
mod copy;
#[expect(dead_code, reason = "shared with tests that look at its processes")]
mod server;

use copy::copy_program;
use server::*;

/// Numbers that no user of a build machine has.
const LISTENER: u32 = 1_718_001;
const OPERATOR: u32 = 1_718_002;
const AUDITOR: u32 = 1_718_003;
const STRANGER: u32 = 1_718_004;
const COMPLIANCE: u32 = 1_718_005;
const COLLEAGUE: u32 = 1_718_006;

/// A store with a recording, its server, and a program that everybody may start.
struct Rig {
    folder: PathBuf,
    store: String,
    program: PathBuf,
    port: u16,
    server: Option<Server>,
}

/// What a verb came to.
struct Said {
    code: i32,
    out: String,
    errors: String,
}

impl Rig {
    fn new(sets: &[&str]) -> Self {
        let folder = fresh_folder();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).expect("ours");
        let program = folder.join("floortape");
        copy_program(&binary(), &program);
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("ours");
        let store = folder.join("store").display().to_string();
        let mut rig = Rig { folder, store, program, port: free_port(), server: None };
        rig.start(sets);
        let to = format!("sip:srs@127.0.0.1:{}", rig.port);
        let said = rig.run(None, &["src", "call", "--duration=1", "--to", &to]);
        assert_eq!(said.code, 0, "{}", said.errors);
        rig
    }

    fn start(&mut self, sets: &[&str]) {
        let mut command = command(&self.folder, self.port);
        for set in sets {
            command.args(["--set", set]);
        }
        self.server = Some(Server::start(command, &self.folder).ready());
    }

    /// The program as the user of that number, or as we are.
    fn run(&self, uid: Option<u32>, words: &[&str]) -> Said {
        let mut command = Command::new(&self.program);
        command.args(words).current_dir("/").stdin(Stdio::null());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let output = command.output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            errors: text(&output.stderr),
        }
    }

    /// A verb on the store.
    fn verb(&self, uid: Option<u32>, words: &[&str]) -> Said {
        self.run(uid, &[words, &["--store", &self.store]].concat())
    }

    /// A folder that belongs to that user.
    fn home(&self, uid: u32) -> PathBuf {
        let home = self.folder.join(uid.to_string());
        let _ = std::fs::create_dir(&home);
        chown(&home, Some(uid), Some(uid)).expect("root may");
        home
    }

    fn id(&self) -> String {
        until("a sealed recording", Duration::from_secs(10), || {
            let said = self.verb(None, &["ls", "--json"]);
            let one: Value = serde_json::from_str(said.out.lines().next()?).ok()?;
            (one["seal"]["state"] == "sealed").then(|| one["id"].as_str().map(str::to_owned))?
        })
    }

    /// All of the trail.
    fn trail(&self) -> Vec<Value> {
        let said = self.verb(None, &["audit", "--json"]);
        assert_eq!(said.code, 0, "{}", said.errors);
        said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Entries of one user: action, outcome, role.
    fn of(&self, uid: u32) -> Vec<[String; 3]> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let own = self.trail().into_iter().filter(|entry| entry["uid"] == uid);
        own.map(|entry| ["action", "outcome", "role"].map(|key| text(&entry[key]))).collect()
    }
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("left out: only root can become other users");
    }
    is_root
}

/// Buckets of each line of a picture, where something is heard in one of them.
fn buckets_of(json: &str) -> usize {
    let picture: Value = serde_json::from_str(json).expect("JSON");
    let buckets = picture["lines"][0]["buckets"].as_array().expect("one line at least");
    let is_heard =
        |bucket: &Value| bucket["max"].as_i64() > Some(100) && !bucket["samples"].is_null();
    assert!(buckets.iter().any(is_heard), "{json}");
    buckets.len()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_listener_hears_by_way_of_the_server_and_nobody_else_does() {
    if !is_root() {
        return;
    }
    let roles =
        [format!("access.listener=[\"{LISTENER}\"]"), format!("access.auditor=[\"{AUDITOR}\"]")];
    let rig = Rig::new(&[&roles[0], &roles[1]]);
    let id = rig.id();
    until("the configuration in the trail", Duration::from_secs(5), || {
        rig.trail().iter().any(|entry| entry["action"] == "configured").then_some(())
    });
    let said = rig.verb(Some(LISTENER), &["ls"]);
    assert!(said.code == 0 && said.out.contains(&id), "{}: {}", said.code, said.errors);
    let said = rig.verb(Some(LISTENER), &["show", &id]);
    assert!(said.code == 0 && said.out.contains(&id), "{}: {}", said.code, said.errors);
    let said = rig.verb(Some(LISTENER), &["search", "is:ended", "-v"]);
    assert_eq!(said.code, 2, "{}", said.errors);
    let said = rig.verb(Some(LISTENER), &["search", "is:ended", "--limit=1", "--tz=Asia/Kolkata"]);
    assert!(said.code == 0 && said.out.contains(&id), "{}: {}", said.code, said.errors);
    assert!(said.out.starts_with("1 recording\n") && said.out.contains("+05:30"), "{}", said.out);
    // The folder is his own, and what is in it afterwards.
    let out = rig.home(LISTENER).join("export");
    let said = rig.verb(Some(LISTENER), &["export", &id, "-o", &out.display().to_string()]);
    assert_eq!(said.code, 0, "{}", said.errors);
    assert!(said.out.contains("manifest.json") && said.out.contains(".wav"), "{}", said.out);
    let said = rig.run(Some(LISTENER), &["verify", &out.display().to_string()]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.errors);
    // The server keeps none of it.
    assert!(files(&rig.folder.join("store/run")).iter().all(|name| !name.starts_with("export")));
    let said = rig.verb(Some(LISTENER), &["peaks", &id, "--json", "--points=5"]);
    assert_eq!(said.code, 0, "{}", said.errors);
    assert_eq!(buckets_of(&said.out), 5, "{}", said.out);
    for (uid, words) in [
        (LISTENER, &["audit"][..]),
        (LISTENER, &["verify", &*id]),
        (LISTENER, &["rs", "pause", &*id]),
        (AUDITOR, &["export", &*id, "-o", "/tmp/floortape-not-made"]),
        (AUDITOR, &["peaks", &*id]),
        (STRANGER, &["ls"]),
        (STRANGER, &["search", "*"]),
        (STRANGER, &["show", &*id]),
        (STRANGER, &["rs", "stop", &*id]),
    ] {
        let said = rig.verb(Some(uid), words);
        assert_eq!(said.code, 4, "{uid} {words:?}: {}{}", said.out, said.errors);
        assert!(!said.out.contains(&id), "{uid} {words:?}: {}", said.out);
    }
    assert!(!Path::new("/tmp/floortape-not-made").exists(), "a refusal leaves nothing");
    let said = rig.verb(Some(AUDITOR), &["verify", &id]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.errors);
    let said = rig.verb(Some(AUDITOR), &["audit", "--of", &id]);
    assert!(said.code == 0 && said.out.contains("export"), "{}{}", said.out, said.errors);
    // What is not there is not there for him either.
    assert_eq!(rig.verb(Some(LISTENER), &["show", &"0".repeat(32)]).code, 3);
    let row = |text: [&str; 3]| text.map(str::to_owned);
    let wanted = [
        row(["read", "allowed", "listener"]),
        row(["read", "allowed", "listener"]),
        row(["read", "allowed", "listener"]),
        row(["export", "allowed", "listener"]),
        row(["read", "allowed", "listener"]),
        row(["audit", "refused", ""]),
        row(["read", "refused", ""]),
        row(["rs.pause", "refused", ""]),
        row(["read", "allowed", "listener"]),
    ];
    assert_eq!(rig.of(LISTENER), wanted);
    let refused = |action| row([action, "refused", ""]);
    assert_eq!(
        rig.of(STRANGER),
        [refused("read"), refused("read"), refused("read"), refused("rs.stop")]
    );
    assert_eq!(rig.of(AUDITOR)[0], refused("export"));
    // All of it stands.
    let said = rig.verb(None, &["verify", "--all"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.errors);
}

#[test]
fn compliance_holds_and_shortens_by_way_of_the_server_and_it_takes_two() {
    if !is_root() {
        return;
    }
    let roles = format!("access.compliance=[\"{COMPLIANCE}\",\"{COLLEAGUE}\"]");
    let listener = format!("access.listener=[\"{LISTENER}\"]");
    let rig = Rig::new(&[&roles, &listener, "store.retention=\"9d\""]);
    let id = rig.id();
    let said = rig.verb(Some(COMPLIANCE), &["hold", "add", "word:anna", "--reason", "case 12"]);
    assert_eq!(said.code, 0, "{}", said.errors);
    let number = said.out.trim().strip_prefix("hold ").expect("a number").to_owned();
    assert!(said.errors.contains("it holds 1 recordings"), "{}", said.errors);
    let said = rig.verb(Some(COMPLIANCE), &["hold", "why", &id]);
    assert!(said.code == 0 && said.out.contains("case 12"), "{}{}", said.out, said.errors);
    assert!(said.out.contains("9d"), "the server's own classes: {}", said.out);
    let said = rig.verb(Some(COLLEAGUE), &["hold", "ls", "--json"]);
    assert!(said.code == 0 && said.out.contains("\"recordings\":1"), "{}{}", said.out, said.errors);
    let said = rig.verb(Some(COLLEAGUE), &["hold", "rm", "999", "--reason", "over"]);
    assert_eq!(said.code, 3, "{}", said.errors);
    let said = rig.verb(Some(COLLEAGUE), &["hold", "rm", &number, "--reason", "over"]);
    assert_eq!(said.code, 0, "{}", said.errors);
    assert_eq!(rig.verb(Some(COMPLIANCE), &["hold", "why", &id]).code, 1);
    let said = rig.verb(Some(COMPLIANCE), &["retention", "plan", "--at", "2099-01-01T00:00:00Z"]);
    assert!(said.code == 0 && said.out.contains(&id), "{}{}", said.out, said.errors);
    let shorten = ["retention", "shorten", "default", "3d", "--reason", "asked to"];
    let said = rig.verb(Some(COMPLIANCE), &shorten);
    assert_eq!(said.code, 0, "{}", said.errors);
    assert!(
        said.errors.contains("the configuration keeps class default for 9d"),
        "{}",
        said.errors
    );
    let number = said.out.trim().strip_prefix("proposal ").expect("a number").to_owned();
    let approve = ["retention", "approve", &number];
    let said = rig.verb(Some(COMPLIANCE), &approve);
    assert!(said.code == 4 && said.errors.contains("is yours"), "{}: {}", said.code, said.errors);
    assert_eq!(rig.verb(Some(COLLEAGUE), &["retention", "approve", "999"]).code, 3);
    let said = rig.verb(Some(COLLEAGUE), &approve);
    assert_eq!(said.code, 0, "{}", said.errors);
    let said = rig.verb(Some(COLLEAGUE), &["retention", "ls"]);
    assert!(said.code == 0 && said.out.contains("two persons"), "{}{}", said.out, said.errors);
    for uid in [LISTENER, STRANGER] {
        for words in
            [&["hold", "ls"][..], &["hold", "rm", "3", "--reason", "x"], &shorten, &approve]
        {
            let said = rig.verb(Some(uid), words);
            assert_eq!(said.code, 4, "{uid} {words:?}: {}{}", said.out, said.errors);
        }
    }
    let rows = rig.of(COLLEAGUE);
    let row = |text: [&str; 3]| text.map(str::to_owned);
    assert!(rows.contains(&row(["hold.rm", "allowed", "compliance"])), "{rows:?}");
    assert!(rows.contains(&row(["retention.approved", "allowed", "compliance"])), "{rows:?}");
    assert_eq!(rig.of(COMPLIANCE).iter().filter(|row| row[1] == "refused").count(), 1);
    assert_eq!(rig.of(STRANGER).len(), 4);
    let said = rig.verb(None, &["verify", "--all"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.errors);
}

#[test]
fn an_operator_controls_and_hears_nothing_and_a_reload_gives_and_takes_roles() {
    if !is_root() {
        return;
    }
    let folder = fresh_folder();
    let file = folder.join("roles.toml");
    let roles = |text: &str| std::fs::write(&file, format!("[access]\n{text}\n")).expect("ours");
    roles("");
    let rig = {
        let folder = fresh_folder();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).expect("ours");
        let program = folder.join("floortape");
        copy_program(&binary(), &program);
        let store = folder.join("store").display().to_string();
        let port = free_port();
        let mut command = command(&folder, port);
        command.args(["-c", &file.display().to_string()]);
        let server = Server::start(command, &folder).ready();
        Rig { folder, store, program, port, server: Some(server) }
    };
    let begin = ["rs", "start", "sip:x@127.0.0.1:9"];
    let said = rig.verb(Some(OPERATOR), &begin);
    assert_ne!(said.code, 0);
    assert_eq!(rig.of(OPERATOR), [[""; 3]; 0], "the door is shut: nobody has a role");
    roles(&format!("operator = [\"{OPERATOR}\"]"));
    let server = rig.server.as_ref().expect("started");
    server.signal(rustix::process::Signal::HUP);
    until("the new roles", Duration::from_secs(5), || {
        let changed = |entry: &Value| !entry["detail"]["changed"]["access.operator"].is_null();
        rig.trail().iter().any(changed).then_some(())
    });
    // Refused by the peers of the configuration, and not by his role.
    let said = rig.verb(Some(OPERATOR), &begin);
    assert!(said.code == 4 && !said.errors.contains("role"), "{}: {}", said.code, said.errors);
    let said = rig.verb(Some(OPERATOR), &["ls"]);
    assert!(said.code == 4 && said.errors.contains("role"), "{}: {}", said.code, said.errors);
    let row = |text: [&str; 3]| text.map(str::to_owned);
    let wanted = [
        row(["rs.start", "allowed", "operator"]),
        row(["rs.start", "failed", "operator"]),
        row(["read", "refused", ""]),
    ];
    assert_eq!(rig.of(OPERATOR), wanted);
    roles("");
    server.signal(rustix::process::Signal::HUP);
    until("no roles", Duration::from_secs(5), || {
        (rig.trail().iter().filter(|entry| entry["action"] == "configured").count() == 3)
            .then_some(())
    });
    assert_ne!(rig.verb(Some(OPERATOR), &begin).code, 0);
    assert_eq!(rig.of(OPERATOR).len(), 3, "the door is shut again");
    assert!(rig.port > 0);
}

/// By whoever runs this: with a server, and on the files alone.
#[test]
fn a_reason_is_asked_for_before_a_listen_with_a_server_and_without_one() {
    let mut rig = Rig::new(&["access.reason=listen"]);
    let id = rig.id();
    until("the configuration in the trail", Duration::from_secs(5), || {
        rig.trail().iter().any(|entry| entry["action"] == "configured").then_some(())
    });
    let out = |name: &str| rig.folder.join(name).display().to_string();
    let paths = [out("1"), out("2"), out("3"), out("4")];
    let said = rig.verb(None, &["export", &id, "-o", &paths[0]]);
    assert_eq!(said.code, 4, "{}", said.errors);
    assert!(said.errors.contains("--reason"), "{}", said.errors);
    assert_eq!(files(Path::new(&paths[0])), [""; 0], "nothing was read");
    assert_eq!(rig.verb(None, &["peaks", &id]).code, 4);
    let said = rig.verb(None, &["peaks", &id, "--reason", "a complaint"]);
    assert!(said.code == 0 && said.out.contains(&id), "{}", said.errors);
    let said = rig.verb(None, &["export", &id, "-o", &paths[1], "--reason", "a complaint"]);
    assert_eq!(said.code, 0, "{}", said.errors);
    let server = rig.server.as_mut().expect("started");
    server.signal(rustix::process::Signal::TERM);
    server.wait();
    let said = rig.verb(None, &["export", &id, "-o", &paths[2]]);
    assert_eq!(said.code, 4, "the rules stand in the trail: {}", said.errors);
    let said = rig.verb(None, &["export", &id, "-o", &paths[3], "--reason", "an audit"]);
    assert_eq!(said.code, 0, "{}", said.errors);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let exports: Vec<_> = rig
        .trail()
        .into_iter()
        .filter(|entry| entry["action"] == "export")
        .map(|entry| (text(&entry["outcome"]), text(&entry["reason"]), text(&entry["object"])))
        .collect();
    let row = |outcome: &str, reason: &str| (outcome.to_owned(), reason.to_owned(), id.clone());
    let wanted = [
        row("refused", ""),
        row("allowed", "a complaint"),
        row("refused", ""),
        row("allowed", "an audit"),
    ];
    assert_eq!(exports, wanted);
}

/// The trail's newest entry is sealed with the recordings: taking entries off its end shows.
#[test]
fn a_trail_that_is_cut_behind_the_server_s_back_is_found_by_verify() {
    let mut rig = Rig::new(&[]);
    let id = rig.id();
    let out = rig.folder.join("export").display().to_string();
    let said = rig.verb(None, &["export", &id, "-o", &out]);
    assert_eq!(said.code, 0, "{}", said.errors);
    // Its number is in the record stream within a second or two; an ordinary end makes all durable.
    std::thread::sleep(Duration::from_millis(2_500));
    let server = rig.server.as_mut().expect("started");
    server.signal(rustix::process::Signal::TERM);
    server.wait();
    let said = rig.verb(None, &["verify", "--all"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.errors);
    let path = rig.folder.join("store/audit/00000001.audit");
    let bytes = std::fs::read(&path).expect("the trail");
    let last = memchr::memmem::rfind(&bytes, b"{\"entry\":").expect("entries") - 8;
    std::fs::write(&path, &bytes[..last]).expect("ours");
    let said = rig.verb(None, &["verify", "--all"]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.errors);
    assert!(said.errors.contains("was sealed with the recordings"), "{}", said.errors);
    // The export itself is untouched.
    assert_eq!(rig.run(None, &["verify", &out]).code, 0);
}

/// Of an encrypted store whoever may listen needs no key of it: the server has it, and makes what it hands
/// out in memory.
#[test]
fn a_listener_hears_an_encrypted_recording_and_has_no_key() {
    if !is_root() {
        return;
    }
    let keys = fresh_folder();
    let kek = keys.join("kek").display().to_string();
    let made = Command::new(binary()).args(["kek", "make", &kek]).output().expect("it runs");
    assert!(made.status.success());
    let sets = [format!("access.listener=[\"{LISTENER}\"]"), format!("store.encryption=\"{kek}\"")];
    let rig = Rig::new(&[&sets[0], &sets[1]]);
    let said = rig.verb(None, &["ls", "--json", "--kek", &kek]);
    let listed: Value = serde_json::from_str(said.out.lines().next().expect("one")).expect("JSON");
    let id = listed["id"].as_str().expect("text").to_owned();
    assert_eq!(rig.verb(None, &["ls"]).code, 4, "nobody reads the files without the key");
    let said = rig.verb(Some(LISTENER), &["ls"]);
    assert!(said.code == 0 && said.out.contains(&id), "{}: {}", said.code, said.errors);
    let out = rig.home(LISTENER).join("export");
    let said = rig.verb(Some(LISTENER), &["export", &id, "-o", &out.display().to_string()]);
    assert_eq!(said.code, 0, "{}", said.errors);
    assert!(said.out.contains(".wav"), "{}", said.out);
    let said = rig.run(Some(LISTENER), &["verify", &out.display().to_string()]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.errors);
    assert_eq!(rig.verb(Some(STRANGER), &["show", &id]).code, 4);
    let said = rig.verb(Some(LISTENER), &["peaks", &id, "--json", "--points=7"]);
    assert!(said.code == 0 && buckets_of(&said.out) == 7, "{}{}", said.out, said.errors);
    // None of it stands anywhere but with him.
    assert!(files(&rig.folder.join("store/run")).iter().all(|name| !name.starts_with("export")));
    let volume = std::fs::read_to_string(rig.folder.join("store/volume.json")).expect("there");
    let volume: Value = serde_json::from_str(&volume).expect("JSON");
    let room = format!("/dev/shm/floortape-{}", volume["id"].as_str().expect("text"));
    assert_eq!(files(Path::new(&room)), Vec::<String>::new());
    let _ = std::fs::remove_dir(room);
    let _ = std::fs::remove_dir_all(keys);
}
