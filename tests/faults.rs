//! Panics and dead engines with real processes: a build with fault points (`tests/crash.sh panics`, or
//! `cargo test --release --features faults --test faults`) fails itself where it hurts, in mid-call.
//! Nothing is missing, nothing is there twice. Aimed kills and the negative controls are
//! `tests/crash.sh`'s.

#[expect(dead_code, reason = "it is made for more tests than these")]
mod server;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use server::{MEDIA, Server, binary, command, free_port, fresh_folder, send, until};

/// Patience with a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(30);
const STREAMS: usize = 4;
const PACKETS: u64 = 150;

struct Outcome {
    /// Per stream: recorded, missing without a cause, twice.
    streams: Vec<(u64, u64, u64)>,
    causes: Vec<String>,
    lines: Vec<String>,
}

impl Outcome {
    fn whole(&self) -> bool {
        self.streams.len() == STREAMS && self.streams.iter().all(|one| *one == (PACKETS, 0, 0))
    }

    fn told(&self, text: &str) -> usize {
        self.lines.iter().filter(|line| line.contains(text)).count()
    }
}

/// One call of four streams for three seconds against a server with these faults.
fn play(faults: &str, settings: &[&str], meanwhile: impl FnOnce(&Server)) -> Outcome {
    let (folder, port): (PathBuf, u16) = (fresh_folder(), free_port());
    let mut serve = command(&folder, port);
    serve.env("FLOORTAPE_FAULTS", faults);
    for setting in settings {
        serve.args(["--set", setting]);
    }
    let server = Server::start(serve, &folder).ready();
    let call = Command::new(binary())
        .args(["src", "call", "--streams=4", "--duration=3", "--numbered", "--json", "--to"])
        .arg(format!("sip:srs@127.0.0.1:{port}"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the binary is built");
    meanwhile(&server);
    let ended = call.wait_with_output().expect("ours");
    assert!(ended.status.success(), "{faults}: {}", server.lines().join("\n"));
    let listed = until("the end of the recordings", PATIENCE, || {
        let mut ls = Command::new(binary());
        let out = ls.args(["ls", "--json", "--store"]).arg(folder.join("store")).output();
        let text = String::from_utf8(out.expect("ls runs").stdout).expect("UTF-8");
        let listed: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
        let settled = |one: &Value| one["state"] == "ended" && one["durable_through"] == one["end"];
        (listed.len() == 2 && listed.iter().all(settled)).then_some(listed)
    });
    let (mut streams, mut causes) = (Vec::new(), Vec::new());
    for stream in listed.iter().flat_map(|one| one["streams"].as_array().into_iter().flatten()) {
        for source in stream["sources"].as_array().into_iter().flatten() {
            let number = |key: &str| source[key].as_u64().unwrap_or(0);
            streams.push((number("packets"), number("unexplained"), number("duplicates")));
            let lost = source["lost"].as_object().into_iter().flatten();
            causes.extend(lost.map(|(cause, _)| cause.clone()));
        }
    }
    Outcome { streams, causes, lines: server.lines() }
}

#[test]
fn f05_a_panic_at_any_point_goes_on_in_the_same_process() {
    for point in
        ["after_fill:50", "after_body:150", "after_intent:150", "mid_state:150", "after_tail:60"]
    {
        let outcome = play(&format!("worker.panic={point}@1"), &[], |_| {});
        assert_eq!(outcome.told("panicked and starts again"), 1, "{point}: {:?}", outcome.lines);
        assert_eq!(outcome.told("media started again"), 0, "{point}: the same process");
        assert!(outcome.whole(), "{point}: {:?} {:?}", outcome.streams, outcome.causes);
    }
}

#[test]
fn f05_a_panic_of_spool_or_desk_is_a_restart_of_media() {
    for faults in ["media.panic=turn:150@1", "spool.panic=turn:150@1"] {
        // A process that says where it panicked takes its time to die: it looks up every name.
        let again = |server: &Server| {
            until("media's restart", PATIENCE, || server.told("media started again").then_some(()));
        };
        let outcome = play(faults, &[], again);
        assert!(outcome.told("media started again") >= 1, "{faults}: {:?}", outcome.lines);
        assert!(outcome.whole(), "{faults}: {:?}", outcome.streams);
    }
}

/// The engine dies (EBADF): the worker goes on with the other one over the same buffers, and the
/// next process has the first again.
#[test]
fn a_dead_engine_is_replaced_and_replaced_back() {
    let outcome = play("worker.errno=take:200:9@1", &[], |server| {
        let back = || server.told("receives again").then_some(());
        until("the other engine", PATIENCE, back);
        assert!(server.told("goes on with recvmmsg"));
        send(server.child(MEDIA).expect("media runs"), Signal::KILL);
    });
    assert!(outcome.told("receives again") >= 2, "{:?}", outcome.lines);
    assert!(outcome.whole(), "{:?}", outcome.streams);
}
