//! Death, hang and replacement of keeper and of what it keeps, with real processes and real calls:
//! whoever survives goes on, whoever comes next takes over, and no packet is missing (F03, F07, F09).

mod server;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use server::{
    CONTROL, MEDIA, Server, argv0, binary, command, free_port, fresh_folder, send, until,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A store with whoever serves it.
struct Bench {
    folder: PathBuf,
    port: u16,
    binary: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let folder = fresh_folder();
        // A copy of its own, which a test may replace.
        let binary = folder.join("floortape");
        std::fs::copy(server::binary(), &binary).expect("the binary is built");
        Bench { folder, port: free_port(), binary }
    }

    fn serve(&self) -> Server {
        let like = command(&self.folder, self.port);
        let mut command = Command::new(&self.binary);
        command.args(like.get_args()).args(["--set", "media.streams_max=12"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Server::start(command, &self.folder).ready()
    }

    fn call(&self, seconds: u32) -> Child {
        let to = format!("sip:srs@127.0.0.1:{}", self.port);
        let call = Command::new(binary())
            .args(["src", "call", "--numbered", "--json", "--streams=8", "--to", &to])
            .arg(format!("--duration={seconds}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        call.expect("the binary is built")
    }

    fn listed(&self) -> Vec<Value> {
        let store = self.folder.join("store");
        let out = Command::new(binary()).args(["ls", "--json", "--store"]).arg(store).output();
        let out = String::from_utf8(out.expect("it runs").stdout).expect("text");
        out.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
    }

    fn durable(&self) -> u64 {
        self.listed().iter().flat_map(sources).map(|s| s["packets"].as_u64().expect("count")).sum()
    }

    fn reaches(&self, packets: u64) {
        until("packets on disk", PATIENCE, || (self.durable() >= packets).then_some(()));
    }

    /// The call ended in order, and all that was sent is on disk once.
    fn judge(&self, mut call: Child, server: &Server) {
        let mut out = String::new();
        call.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
        assert_eq!(call.wait().expect("ours").code(), Some(0), "{:#?}", server.lines());
        let sent: Value = serde_json::from_str(&out).expect("JSON");
        let listed = until("the end of all recordings", PATIENCE, || {
            let listed = self.listed();
            let over = |r: &Value| r["state"] == "ended" && r["durable_through"] == r["end"];
            (listed.len() == 4 && listed.iter().all(over)).then_some(listed)
        });
        let said = server.lines().join("\n");
        let found: Vec<&Value> = listed.iter().flat_map(sources).collect();
        for stream in sent["streams"].as_array().expect("a list") {
            let source = found.iter().find(|s| s["ssrc"] == stream["ssrc"]).expect("its source");
            assert_eq!(source["packets"], stream["sent"], "{source}\n{said}");
            assert_eq!((&source["duplicates"], &source["unexplained"]), (&0.into(), &0.into()));
            assert_eq!(source["lost"], serde_json::json!({}), "{said}");
        }
        let store = self.folder.join("store");
        let verified =
            Command::new(binary()).args(["verify", "--all", "--store"]).arg(store).output();
        assert_eq!(verified.expect("it runs").status.code(), Some(0), "{said}");
    }
}

fn sources(recording: &Value) -> impl Iterator<Item = &Value> {
    let streams = recording["streams"].as_array().into_iter().flatten();
    streams.flat_map(|stream| stream["sources"].as_array().into_iter().flatten())
}

fn runs(pid: u32, name: &str) -> bool {
    argv0(pid).as_deref() == Some(name)
}

/// Kills keeper and the roles named, waits until the others are seen to go on, and serves anew.
fn keeper_dies(with: &[&str]) {
    let bench = Bench::new();
    let mut first = bench.serve();
    let call = bench.call(8);
    bench.reaches(200);
    let roles = [MEDIA, CONTROL].map(|name| (name, first.child(name).expect("it runs")));
    first.keeper.kill().expect("ours");
    for (name, pid) in roles {
        if with.contains(&name) {
            send(pid, Signal::KILL);
        }
    }
    first.wait();
    if !with.contains(&MEDIA) {
        // It goes on without keeper, up to the disk.
        let before = bench.durable();
        bench.reaches(before + 50);
    }
    let second = bench.serve();
    for (name, pid) in roles {
        assert!(!runs(pid, name), "no two {name}");
        assert!(second.child(name).is_some(), "{name} is the new keeper's child");
    }
    assert!(second.told("took over memory"), "{:#?}", second.lines());
    bench.judge(call, &second);
}

#[test]
fn f03_a_new_keeper_takes_over_from_roles_that_went_on() {
    keeper_dies(&[]);
}

#[test]
fn f03_media_alone_is_enough_for_a_new_keeper() {
    keeper_dies(&[CONTROL]);
}

#[test]
fn f03_control_alone_is_enough_for_a_new_keeper() {
    keeper_dies(&[MEDIA]);
}

#[test]
fn f03_without_keeper_no_new_rs_is_taken_and_the_roles_end_with_the_last() {
    let bench = Bench::new();
    let mut server = bench.serve();
    let call = bench.call(2);
    bench.reaches(100);
    let roles = [MEDIA, CONTROL].map(|name| server.child(name).expect("it runs"));
    server.keeper.kill().expect("ours");
    server.wait();
    until("control to notice", PATIENCE, || {
        server.told("running RSs go on without it").then_some(())
    });
    assert_eq!(bench.call(1).wait().expect("ours").code(), Some(75), "503");
    bench.judge(call, &server);
    until("the roles to end", PATIENCE, || {
        (!runs(roles[0], MEDIA) && !runs(roles[1], CONTROL)).then_some(())
    });
}

#[test]
fn f07_a_role_that_hangs_is_replaced_and_loses_nothing() {
    let bench = Bench::new();
    let server = bench.serve();
    let call = bench.call(9);
    bench.reaches(100);
    for name in [MEDIA, CONTROL] {
        let before = server.child(name).expect("it runs");
        send(before, Signal::STOP);
        until("a successor", PATIENCE, || server.child(name).filter(|pid| *pid != before));
        assert!(server.told(&format!("{name} (process {before}) hangs")), "{:#?}", server.lines());
    }
    bench.judge(call, &server);
}

#[test]
fn f09_the_binary_is_replaced_in_mid_call() {
    let bench = Bench::new();
    let server = bench.serve();
    let call = bench.call(4);
    bench.reaches(200);
    let roles = [MEDIA, CONTROL].map(|name| server.child(name).expect("it runs"));
    replace(&bench.binary, |new| _ = std::fs::copy(binary(), new).expect("ours"));
    server.signal(Signal::USR2);
    until("the upgrade", PATIENCE, || server.told("upgraded: version").then_some(()));
    let after = [MEDIA, CONTROL].map(|name| server.child(name).expect("it runs"));
    assert!(after[0] != roles[0] && after[1] != roles[1], "both run the new binary");
    bench.judge(call, &server);
}

#[test]
fn f09_what_is_no_newer_floortape_is_not_started() {
    let bench = Bench::new();
    let server = bench.serve();
    let call = bench.call(3);
    bench.reaches(100);
    let roles = [MEDIA, CONTROL].map(|name| server.child(name).expect("it runs"));
    replace(&bench.binary, |new| _ = std::fs::copy("/bin/false", new).expect("ours"));
    server.signal(Signal::USR2);
    until("the refusal", PATIENCE, || server.told("not upgraded").then_some(()));
    assert_eq!(roles, [MEDIA, CONTROL].map(|name| server.child(name).expect("it runs")));
    bench.judge(call, &server);
}

/// As a package manager does it: the old file lives on as long as somebody runs it.
fn replace(binary: &Path, make: impl FnOnce(&Path)) {
    let new = binary.with_extension("new");
    make(&new);
    std::fs::rename(new, binary).expect("ours");
}
