//! Few sockets for many ports, with real processes and real calls: with the privilege and without it,
//! through deaths, and where somebody takes the steering away.

#[path = "server/copy.rs"]
mod copy;
#[expect(dead_code, reason = "shared with tests that wait for other things")]
mod server;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use copy::copy_program;
use floortape::host::bpf;
use rustix::process::Signal;
use serde_json::Value;
use server::{CONTROL, MEDIA, Server, binary, command_of, free_port, fresh_folder, send, until};

const PATIENCE: Duration = Duration::from_secs(20);
/// What the log says without the privilege.
const EACH: &str = "each port is received from its own socket";

struct Bench {
    folder: PathBuf,
    binary: PathBuf,
    port: u16,
}

impl Bench {
    fn new() -> Self {
        let folder = fresh_folder();
        // Where another user may execute it.
        let binary = folder.join("floortape");
        copy_program(&server::binary(), &binary);
        Bench { folder, binary, port: free_port() }
    }

    /// The words of `serve`.
    fn words(&self, more: &[&str]) -> Vec<String> {
        let command = command_of(&self.binary, &self.folder, self.port);
        let like = command.get_args().map(|word| word.to_string_lossy().into_owned());
        let more = more.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]);
        like.chain(more).collect()
    }

    fn start(&self, mut command: Command, more: &[&str]) -> Server {
        command.args(self.words(more));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Server::start(command, &self.folder)
    }

    fn serve(&self, more: &[&str]) -> Server {
        self.start(Command::new(&self.binary), more).ready()
    }

    fn call(&self, streams: u32, seconds: u32) -> Child {
        let to = format!("sip:srs@127.0.0.1:{}", self.port);
        let call = Command::new(binary())
            .args(["src", "call", "--numbered", "--json", "--to", &to])
            .arg(format!("--streams={streams}"))
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

    fn reaches(&self, packets: u64) {
        let count = |source: &Value| source["packets"].as_u64().expect("a count");
        until("packets on disk", PATIENCE, || {
            let listed = self.listed();
            (listed.iter().flat_map(sources).map(count).sum::<u64>() >= packets).then_some(())
        });
    }

    /// Every stream of the call has all of its packets, once, and nothing is missing.
    fn judge(&self, mut call: Child, server: &Server) {
        let mut out = String::new();
        call.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
        let said = || server.lines().join("\n");
        assert_eq!(call.wait().expect("ours").code(), Some(0), "{}", said());
        let sent: Value = serde_json::from_str(&out).expect("JSON");
        let listed = until("the end of all recordings", PATIENCE, || {
            let listed = self.listed();
            let over = |r: &Value| r["state"] == "ended" && r["durable_through"] == r["end"];
            listed.iter().all(over).then_some(listed)
        });
        let found: Vec<&Value> = listed.iter().flat_map(sources).collect();
        for stream in sent["streams"].as_array().expect("a list") {
            let source = found.iter().find(|s| s["ssrc"] == stream["ssrc"]).expect("its source");
            assert_eq!(source["packets"], stream["sent"], "{source}\n{}", said());
            assert_eq!((&source["duplicates"], &source["unexplained"]), (&0.into(), &0.into()));
            assert_eq!(source["lost"], serde_json::json!({}), "{}", said());
        }
    }
}

fn sources(recording: &Value) -> impl Iterator<Item = &Value> {
    let streams = recording["streams"].as_array().into_iter().flatten();
    streams.flat_map(|stream| stream["sources"].as_array().into_iter().flatten())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether ports are steered in this run; without the privilege what is shown is that it is not needed.
fn may_steer() -> bool {
    let permitted = bpf::permitted();
    assert!(permitted.is_ok() || !is_root(), "root may: {permitted:?}");
    permitted.is_ok()
}

/// The links by which a process steers, as the kernel names them.
fn links(pid: u32) -> Vec<String> {
    let folder = Path::new("/proc").join(pid.to_string()).join("fdinfo");
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let texts = entries.flatten().filter_map(|one| std::fs::read_to_string(one.path()).ok());
    let mut links: Vec<String> = texts
        .filter_map(|text| {
            text.lines().find_map(|line| line.strip_prefix("link_id:").map(String::from))
        })
        .map(|id| id.trim().to_owned())
        .collect();
    links.sort();
    links.dedup();
    links
}

#[test]
fn more_streams_than_sockets_are_recorded_whole() {
    let bench = Bench::new();
    let server = bench.serve(&["media.streams_max=100"]);
    let wanted = if may_steer() { "125 port pairs are steered to 16 sockets" } else { EACH };
    assert!(server.told(wanted), "{:#?}", server.lines());
    let call = bench.call(96, 3);
    bench.judge(call, &server);
}

/// The program as a user that may do nothing; where we are such a user ourselves, as ourselves.
fn unprivileged(bench: &Bench) -> Command {
    if !is_root() {
        return Command::new(&bench.binary);
    }
    let chown = Command::new("chown").args(["-R", "65534:65534"]).arg(&bench.folder).status();
    assert!(chown.expect("coreutils").success());
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&bench.binary);
    command
}

#[test]
fn without_the_privilege_each_port_has_its_own_socket() {
    if !is_root() && may_steer() {
        return;
    }
    let bench = Bench::new();
    let server = bench.start(unprivileged(&bench), &[]).ready();
    assert!(server.told(EACH), "{:#?}", server.lines());
    let call = bench.call(8, 2);
    bench.judge(call, &server);
}

#[test]
fn steering_that_is_wanted_and_not_permitted_is_refused_with_a_reason() {
    if !is_root() && may_steer() {
        return;
    }
    let bench = Bench::new();
    let mut server = bench.start(unprivileged(&bench), &["media.steering=on"]);
    assert_eq!(server.wait().code(), Some(78), "{:#?}", server.lines());
    let why = "media.steering is \"on\", and it is not permitted";
    assert!(server.told(why), "{:#?}", server.lines());
}

/// Of the three processes one is enough: here keeper and media die, and control alone holds the link
/// while packets wait in the sockets.
#[test]
fn f03_the_steering_outlives_keeper_and_media() {
    let bench = Bench::new();
    let mut first = bench.serve(&[]);
    let call = bench.call(8, 8);
    bench.reaches(200);
    let [media, control] = [MEDIA, CONTROL].map(|name| first.child(name).expect("it runs"));
    let held = links(control);
    assert_eq!(held.len(), usize::from(may_steer()));
    first.keeper.kill().expect("ours");
    send(media, Signal::KILL);
    first.wait();
    assert_eq!(links(control), held);
    let second = bench.serve(&[]);
    for name in [MEDIA, CONTROL] {
        assert_eq!(links(second.child(name).expect("it runs")), held, "{name} goes on with it");
    }
    bench.judge(call, &second);
}

/// BPF_LINK_GET_FD_BY_ID, then BPF_LINK_DETACH: what `bpftool link detach id N` does.
const DETACH: &str = r#"
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, *words):
    attr = ctypes.create_string_buffer(struct.pack(f"{len(words)}I", *words).ljust(144, b"\0"), 144)
    result = libc.syscall(321, command, attr, 144)
    assert result >= 0, ctypes.get_errno()
    return result
bpf(34, bpf(30, int(sys.argv[1])))
"#;

#[test]
fn steering_that_somebody_takes_away_costs_nothing_and_is_put_back() {
    if !may_steer() || !cfg!(target_arch = "x86_64") {
        return;
    }
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("not tested: no python3 to take it away by");
        return;
    }
    let bench = Bench::new();
    let server = bench.serve(&[]);
    let call = bench.call(8, 6);
    bench.reaches(200);
    let before = links(server.keeper.id());
    let detached = Command::new("python3").args(["-c", DETACH, &before[0]]).status();
    assert!(detached.expect("python3").success());
    until("it to be put back", PATIENCE, || {
        server.told("took the steering of our ports away: it is back").then_some(())
    });
    let after = links(server.keeper.id());
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
    // The next media is handed the new one.
    send(server.child(MEDIA).expect("it runs"), Signal::KILL);
    until("media again", PATIENCE, || server.told("receives again").then_some(()));
    bench.judge(call, &server);
}
