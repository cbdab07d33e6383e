//! Searching a real store: what runs is found with what is over, pages stay as they are while more comes, an
//! encrypted store answers the same and has no word in clear, and who may see may search.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

#[expect(dead_code, reason = "shared with tests that look at its processes")]
mod server;

use server::*;

struct Rig {
    store: PathBuf,
    port: u16,
    kek: Option<PathBuf>,
    _server: Server,
}

impl Rig {
    fn new(encrypted: bool) -> Self {
        let folder = fresh_folder();
        let port = free_port();
        let mut command = command(&folder, port);
        command.args(["--set", "store.ring_seconds=10", "--set", "store.segment_s=1"]);
        command.args(["--set", "media.streams_max=32"]);
        let kek = encrypted.then(|| folder.join("kek"));
        if let Some(kek) = &kek {
            let made =
                Command::new(binary()).args(["kek", "make"]).arg(kek).output().expect("it runs");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            command.args(["--set", &format!("store.encryption={}", toml_text(kek))]);
        }
        let store = folder.join("store");
        Rig { store, port, kek, _server: Server::start(command, &folder).ready() }
    }

    fn output(&self, words: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(words).arg("--store").arg(&self.store);
        if let Some(kek) = &self.kek {
            command.arg("--kek").arg(kek);
        }
        command.output().expect("it runs")
    }

    /// Exit code and what it said on standard output.
    fn said(&self, words: &[&str]) -> (i32, String) {
        let output = self.output(words);
        (output.status.code().unwrap_or(-1), String::from_utf8(output.stdout).expect("text"))
    }

    fn errors(&self, words: &[&str]) -> (i32, String) {
        let output = self.output(words);
        (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).expect("text"))
    }

    /// Recordings that a verb prints as JSON.
    fn json(&self, words: &[&str]) -> Vec<Value> {
        let (code, out) = self.said(words);
        assert!(code == 0 || code == 3, "{words:?}: {code}");
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn ids(&self, words: &[&str]) -> Vec<String> {
        let id = |one: &Value| one["id"].as_str().expect("an id").to_owned();
        self.json(words).iter().map(id).collect()
    }

    fn call(&self, streams: u32, seconds: u32) -> Child {
        let to = format!("sip:srs@127.0.0.1:{}", self.port);
        let mut call = Command::new(binary());
        call.args(["src", "call", "--to", &to, "--streams", &streams.to_string()]);
        call.args(["--duration", &seconds.to_string(), "--retry=20"]);
        call.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary is built")
    }

    /// Until so many recordings are in the catalogue, or would be if they were over.
    fn settled(&self, count: usize) {
        until("sealed recordings", Duration::from_secs(30), || {
            let sealed = self.json(&["ls", "--json"]);
            let is_sealed = |one: &&Value| one["seal"]["state"] == "sealed";
            (sealed.iter().filter(is_sealed).count() >= count).then_some(())
        });
    }
}

fn same(one: &[String], other: &[String]) {
    let set = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(set(one), set(other));
}

/// What is said on one line per condition: each must find the same ended and live recordings.
fn everything_is_found(rig: &Rig) {
    assert!(rig.call(4, 1).wait().expect("ours").success());
    let mut long = rig.call(2, 120);
    until("a live recording", Duration::from_secs(10), || {
        (rig.ids(&["ls", "--live", "--json"]).len() == 1).then_some(())
    });
    rig.settled(2);
    let all = rig.ids(&["ls", "--json"]);
    let live = rig.ids(&["ls", "--live", "--json"]);
    assert_eq!((all.len(), live.len()), (3, 1));
    let newest_first: Vec<String> = all.iter().rev().cloned().collect();
    let find = |query: &str| rig.ids(&["search", "--json", query]);
    assert_eq!(find("*"), newest_first);
    assert_eq!(rig.ids(&["search", "--json", "--oldest", "*"]), all);
    let one = rig.json(&["show", "--json", &live[0]]).remove(0);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let name = &one["participants"][0]["names"][0];
    let (aor, name) = (text(&name["aor"]), text(&name["name"]));
    let first = name.split(' ').next().expect("a word").to_owned();
    let prefix: String = first.chars().take(2).chain(['*']).collect();
    for query in [
        live[0].clone(),
        format!("call:\"{}\"", text(&one["call_id"])),
        format!("session:{}", text(&one["sessions"][0]["session_id"])),
        format!("\"{name}\" is:live"),
        format!("{aor} is:live"),
        format!("party:{aor} NOT is:ended"),
        format!("name:{prefix} is:live"),
        "is:live has:gap OR is:live verdict:continuous OR is:live verdict:complete".to_owned(),
        format!("label:{} is:live", text(&one["streams"][0]["label"])),
        "codec:pcmu src:127 is:live from:-1h to:now duration:<1h".to_owned(),
    ] {
        assert_eq!(find(&query), live, "{query}");
    }
    same(&find("is:ended is:sealed on:today"), &newest_first[1..]);
    same(&find("NOT is:live -is:held"), &newest_first[1..]);
    assert!(find("nobody").is_empty() && find("from:-2d to:-1d").is_empty());
    // The same object as `ls` prints.
    let ended = rig.json(&["search", "--json", "is:ended", "--limit=1"]).remove(0);
    let listed = rig.json(&["ls", "--json"]);
    assert!(listed.contains(&ended), "{ended}");
    // What a hold holds is found, and nothing else.
    assert!(find("is:held").is_empty());
    let (code, said) = rig.errors(&["hold", "add", &all[0], "--from=-1h", "--reason=test"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(find("is:held"), all[..1]);
    assert_eq!(find("is:held OR is:live"), [live[0].clone(), all[0].clone()]);
    let _ = long.kill();
    let _ = long.wait();
}

#[test]
fn what_runs_is_found_with_what_is_over() {
    let rig = Rig::new(false);
    everything_is_found(&rig);
    let (code, out) = rig.said(&["search", "--count", "*"]);
    assert_eq!((code, &*out), (0, "3\n"));
    let (code, out) = rig.said(&["search", "--count", "--json", "nobody"]);
    assert_eq!((code, &*out), (3, "{\"recordings\":0}\n"));
    let (code, out) = rig.said(&["search", "nobody"]);
    assert_eq!((code, &*out), (3, "0 recordings\n"));
    let (code, out) = rig.said(&["search", "*", "--limit=2", "--tz=Asia/Kolkata"]);
    assert!(code == 0 && out.starts_with("3 recordings\nID "), "{out}");
    assert!(out.lines().count() == 4 && out.matches("+05:30").count() == 2, "{out}");
    let (code, said) = rig.errors(&["search", "*", "verdit:gaps"]);
    let wanted =
        "expected a key, found \"verdit\": did you mean verdict:?\n  * verdit:gaps\n    ^^^^^^\n";
    assert!(code == 2 && said.ends_with(wanted), "{said}");
    let (code, said) = rig.errors(&["search", "*", "--tz=Europe/Berli"]);
    assert!(code == 2 && said.contains("expected a zone"), "{said}");
    let (code, said) = rig.errors(&["search", "*", "--after=soon"]);
    assert!(code == 2 && said.contains("--after"), "{said}");
}

#[test]
fn pages_stay_as_they_are_while_more_comes() {
    let rig = Rig::new(false);
    assert!(rig.call(14, 1).wait().expect("ours").success());
    rig.settled(4);
    let all = rig.ids(&["search", "--json", "*"]);
    assert_eq!(all.len(), 7);
    let mut seen: Vec<String> = Vec::new();
    let mut after: Option<String> = None;
    let mut calls = Vec::new();
    loop {
        let mut words = vec!["search", "--json", "--limit=2", "*"];
        let cursor = after.as_ref().map(|after| format!("--after={after}"));
        words.extend(cursor.as_deref());
        let output = rig.output(&words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let one: Value = serde_json::from_str(line).expect("JSON");
            seen.push(one["id"].as_str().expect("an id").to_owned());
        }
        // Meanwhile another begins, and others settle.
        calls.push(rig.call(2, 1));
        std::thread::sleep(Duration::from_millis(300));
        let next = said.split("--after ").nth(1).map(|rest| rest.trim().to_owned());
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, all, "each once, in order, and none of those that came meanwhile");
    let last = format!("--after={}", all[5]);
    assert_eq!(
        rig.ids(&["search", "--json", "*", &last]),
        all[6..],
        "a recording is a cursor, too"
    );
    for mut call in calls {
        let _ = call.wait();
    }
    assert!(rig.ids(&["search", "--json", "*"]).len() > all.len());
}

#[test]
fn an_encrypted_store_answers_the_same_and_has_no_word_in_clear() {
    let rig = Rig::new(true);
    everything_is_found(&rig);
    rig.settled(2);
    let one = rig.json(&["search", "--json", "is:ended", "--limit=1"]).remove(0);
    let name = &one["participants"][0]["names"][0];
    let words: Vec<String> = [&name["name"], &name["aor"], &one["call_id"]]
        .iter()
        .map(|value| value.as_str().expect("text").to_lowercase())
        .collect();
    fn look(folder: &Path, words: &[String]) {
        for entry in fs::read_dir(folder).expect("readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                look(&path, words);
            } else if path.is_file() {
                let bytes = fs::read(&path).unwrap_or_default().to_ascii_lowercase();
                for word in words {
                    let found = memchr::memmem::find(&bytes, word.as_bytes());
                    assert!(found.is_none(), "{word} in {}", path.display());
                }
            }
        }
    }
    look(&rig.store, &words);
}
