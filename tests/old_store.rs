//! A store and an export of version 0.1.0, read by the version of today: what is kept for years is read by
//! programs that were not there when it was written. The figures are those that its own version told.

mod old;
#[expect(dead_code, reason = "shared with tests that kill processes")]
mod server;

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use old::{Folder, copy, corpus};
use rustix::process::Signal;
use serde_json::Value;
use server::{Server, command, free_port, fresh_folder, until};

/// Ended and sealed, with a loss.
const SEALED: &str = "01a22daa682f75c492ed7cf7c54eda46";
/// In the log alone, of a server that was killed.
const LOGGED: &str = "01a22dab5f7c7ef89a3b331dff860e5f";

/// A copy of the store that may be written to.
fn store(name: &str) -> Folder {
    Folder::store(&std::env::temp_dir(), &format!("old-{name}"))
}

fn run(words: &[&str]) -> Output {
    Command::new(server::binary()).args(words).output().expect("it runs")
}

/// What a verb prints; it must say yes.
fn said(words: &[&str]) -> String {
    let output = run(words);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {}\n{told}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

/// Of each source: label, SSRC, first index, last index, packets, lost on the way.
fn sources(recording: &Value) -> Vec<(String, u64, u64, u64, u64, u64)> {
    let of = |stream: &Value| {
        let label = stream["label"].as_str().expect("a label").to_owned();
        let [source] = &stream["sources"].as_array().expect("a list")[..] else {
            panic!("one SSRC")
        };
        let number = |key: &str| source[key].as_u64().expect("a number");
        assert_eq!((number("unexplained"), number("duplicates")), (0, 0));
        let lost = source["lost"].get("net").map_or(0, |net| net.as_u64().expect("a number"));
        let (first, last) = (number("first_index"), number("last_index"));
        (label, number("ssrc"), first, last, number("packets"), lost)
    };
    recording["streams"].as_array().expect("a list").iter().map(of).collect()
}

fn of_sealed() -> Vec<(String, u64, u64, u64, u64, u64)> {
    vec![
        ("1".into(), 0x5932_0dd7, 550, 649, 97, 3),
        ("2".into(), 0x93f8_8501, 32_620, 32_719, 97, 3),
    ]
}

fn of_logged() -> Vec<(String, u64, u64, u64, u64, u64)> {
    vec![
        ("1".into(), 0xef95_3636, 20_052, 20_126, 75, 0),
        ("2".into(), 0x477d_7801, 22_578, 22_652, 75, 0),
    ]
}

fn all_of(dir: &str) {
    let listed = lines(&said(&["ls", "--json", "--store", dir]));
    let facts = |one: &Value| {
        let text = |key: &str| one[key].as_str().expect("text").to_owned();
        (
            text("id"),
            text("state"),
            text("start"),
            one["seal"]["state"].as_str().expect("text").to_owned(),
        )
    };
    let found: Vec<_> = listed.iter().map(facts).collect();
    let expected = |id: &str, state: &str, start: &str, seal: &str| {
        (id.to_owned(), state.to_owned(), start.to_owned(), seal.to_owned())
    };
    assert_eq!(
        found,
        [
            expected(SEALED, "ended", "2026-11-30T18:14:32.239706161Z", "sealed"),
            expected(LOGGED, "live", "2026-11-30T18:15:35.548971320Z", "open"),
        ]
    );
    for (id, expected) in [(SEALED, of_sealed()), (LOGGED, of_logged())] {
        let shown = lines(&said(&["show", id, "--json", "--store", dir]));
        assert_eq!(sources(&shown[0]), expected, "{id}");
        let names = shown[0]["participants"].as_array().expect("a list").iter();
        let names: Vec<_> =
            names.map(|one| one["names"][0]["aor"].as_str().expect("text")).collect();
        assert_eq!(names, ["sip:anna.1@desk.example", "sip:ben.1@desk.example"], "{id}");
    }
    let head = &lines(&said(&["show", SEALED, "--json", "--store", dir]))[0]["seal"]["head"];
    assert_eq!(head, "d5bbd2dadd61e463c9d19602db05922c5bce9ce603f8a79cd25f3bada7ff08dd");
}

/// What `verify` says of the two, beyond yes.
fn verified(reports: &[Value]) {
    let facts = |report: &Value| {
        assert_eq!(report["integrity"], "ok", "{report}");
        assert_eq!(report["unexplained"], 0);
        let lost = report["lost"].get("net").map_or(0, |net| net.as_u64().expect("a number"));
        (report["id"].as_str().expect("text").to_owned(), lost)
    };
    let found: Vec<_> = reports.iter().map(facts).collect();
    assert_eq!(found, [(SEALED.to_owned(), 6), (LOGGED.to_owned(), 0)]);
}

#[test]
fn a_store_of_version_0_1_0_is_listed_shown_and_verified() {
    let store = store("read");
    let dir = store.0.to_str().expect("text");
    all_of(dir);
    verified(&lines(&said(&["verify", "--all", "--json", "--store", dir])));
    // The same without its catalogue, and by one that is made anew.
    fs::remove_file(store.0.join("catalog.sqlite")).expect("there");
    all_of(dir);
    said(&["rebuild", "--store", dir]);
    all_of(dir);
}

#[test]
fn a_store_of_version_0_1_0_is_exported_bit_for_bit() {
    let store = store("export");
    let dir = store.0.to_str().expect("text");
    for (id, packets) in [(SEALED, 97), (LOGGED, 75)] {
        let to = store.0.join(format!("out-{id}"));
        said(&["export", id, "-o", to.to_str().expect("text"), "--format", "rtp", "--store", dir]);
        for line in ["1.rtpdump", "2.rtpdump"] {
            let bytes = fs::read(to.join(line)).expect("exported");
            // A line of text, 16 bytes, and 8 before each packet of 172.
            let head = bytes.iter().position(|byte| *byte == b'\n').expect("a line") + 17;
            let count = (bytes.len() - head) / 180;
            assert!(count >= packets, "{count} packets of {line}");
            if id == SEALED {
                let before = fs::read(corpus("export-v1").join(line)).expect("checked in");
                assert!(bytes == before, "{line} is not what its own version exported");
            }
        }
        said(&["verify", to.to_str().expect("text"), "--store", dir]);
    }
}

#[test]
fn an_export_of_version_0_1_0_verifies_and_a_flipped_bit_in_it_is_found() {
    let folder = Folder::export(&std::env::temp_dir(), "old-folder");
    let dir = folder.0.to_str().expect("text");
    let report = &lines(&said(&["verify", dir, "--json"]))[0];
    assert_eq!((&report["id"], &report["lost"]["net"]), (&SEALED.into(), &6.into()));
    for path in ["1.rtpdump", "proof/records", "manifest.json", "recording.json"] {
        let path = folder.0.join(path);
        let sound = fs::read(&path).expect("there");
        let mut bad = sound.clone();
        bad[sound.len() / 2] ^= 1;
        fs::write(&path, bad).expect("ours");
        assert_eq!(run(&["verify", dir]).status.code(), Some(1), "{}", path.display());
        fs::write(&path, sound).expect("ours");
    }
    said(&["verify", dir]);
}

/// A server of today starts on it, and what the log alone held is sealed and verifies.
#[test]
fn a_store_of_version_0_1_0_goes_on_under_the_version_of_today() {
    let (from, folder) = (store("goes-on"), fresh_folder());
    let dir = folder.join("store");
    copy(&from.0, &dir);
    let store = dir.to_str().expect("text");
    let mut command = command(&folder, free_port());
    command.args(["--set", "store.ring_seconds=4", "--set", "store.segment_s=1"]);
    let mut server = Server::start(command, &folder).ready();
    // Its port pair was another one: the client that has gone is told so, and the call ends.
    until("the log's records in a segment", Duration::from_secs(20), || {
        let output = run(&["verify", "--json", "--store", store]);
        let reports = lines(&String::from_utf8(output.stdout).expect("text"));
        let proven = reports.iter().find(|one| one["id"] == LOGGED)?["proven"].as_str()?.to_owned();
        // Segments 3 and 4 are of the server that was killed.
        (!proven.contains("checkpoint 4,")).then_some(())
    });
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let reports = lines(&said(&["verify", "--all", "--json", "--store", store]));
    verified(&reports);
    let shown = lines(&said(&["show", LOGGED, "--json", "--store", store]));
    assert_eq!(sources(&shown[0]), of_logged());
}
