//! A store whose configuration names a key-encryption key: nothing of what was recorded is in any file of
//! it, the keys open it and no others do, and what goes on after kills goes on encrypted.

#[expect(dead_code, reason = "shared with tests that kill processes")]
mod server;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use server::{CONTROL, MEDIA, Server, command, free_port, fresh_folder, send, toml_text, until};

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

fn text(path: &Path) -> &str {
    path.to_str().expect("a temp folder has a plain name")
}

/// A server with a ring small enough to seal often, encrypted by `kek` where there is one.
fn serve(folder: &Path, port: u16, kek: Option<&Path>) -> Server {
    let mut command = command(folder, port);
    command.args(["--set", "store.ring_seconds=10", "--set", "store.segment_s=1"]);
    if let Some(kek) = kek {
        command.args(["--set", &format!("store.encryption={}", toml_text(kek))]);
    }
    Server::start(command, folder).ready()
}

fn call(port: u16, seconds: u32) -> Child {
    let mut call = Command::new(server::binary());
    call.args(["src", "call", "--to", &format!("sip:srs@127.0.0.1:{port}"), "--json"]);
    call.args(["--duration", &seconds.to_string()]);
    call.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary is built")
}

/// Every file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if path.is_file() => found.push(path),
            false => {}
        }
    }
    found
}

/// In which files of `store` any of `needles` is.
fn holding(store: &Path, needles: &BTreeSet<Vec<u8>>) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        needles.iter().any(|needle| memchr::memmem::find(&bytes, needle).is_some())
    };
    files(store).into_iter().filter(holds).collect()
}

/// What nobody without a key may find: stretches of audio of every line, names, addresses, the call's id
/// and its metadata's own ids.
fn needles(store: &Path, kek: Option<&Path>, out: &Path) -> BTreeSet<Vec<u8>> {
    let key: Vec<&str> = kek.map_or_else(Vec::new, |kek| vec!["--kek", text(kek)]);
    let verb = |words: &[&str]| said(&[words, &["--store", text(store)], &key[..]].concat());
    let listed = verb(&["ls", "--json"]);
    let mut needles = BTreeSet::new();
    for line in listed.lines() {
        let shown: Value = serde_json::from_str(line).expect("a JSON line");
        let id = shown["id"].as_str().expect("text");
        let shown: Value =
            serde_json::from_str(&verb(&["show", id, "--json"])).expect("a JSON line");
        needles.insert(shown["call_id"].as_str().expect("text").as_bytes().to_vec());
        for one in shown["participants"].as_array().expect("a list") {
            for key in ["aor", "name"] {
                let name = one["names"][0][key].as_str().expect("text");
                needles.insert(name.as_bytes().to_vec());
            }
        }
        let to = out.join(id);
        verb(&["export", id, "-o", text(&to), "--format", "rtp"]);
        for file in
            files(&to).iter().filter(|file| file.extension().is_some_and(|e| e == "rtpdump"))
        {
            let bytes = fs::read(file).expect("exported");
            // 40 bytes out of every tenth packet of 180.
            needles
                .extend(bytes[200..].chunks(1_800).filter_map(|c| Some(c.get(60..100)?.to_vec())));
        }
    }
    assert!(needles.len() > 20, "{} stretches", needles.len());
    needles
}

fn kek(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    said(&["kek", "make", text(&path)]);
    path
}

/// Records a call of which a part is sealed, and one that a kill of everything leaves in the log. What is
/// on disk then is copied to `copy`.
fn record(folder: &Path, kek: Option<&Path>, copy: &Path) {
    let (store, port) = (folder.join("store"), free_port());
    let server = serve(folder, port, kek);
    assert!(call(port, 3).wait().expect("ours").success());
    let mut second = call(port, 30);
    std::thread::sleep(Duration::from_millis(2_500));
    let roles = [MEDIA, CONTROL].map(|name| server.child(name).expect("it runs"));
    server.signal(Signal::KILL);
    roles.into_iter().for_each(|pid| send(pid, Signal::KILL));
    second.kill().expect("ours");
    let _ = second.wait();
    until("the end of all three", Duration::from_secs(5), || {
        roles.iter().all(|pid| server::argv0(*pid).is_none_or(|name| name.is_empty())).then_some(())
    });
    // The server removes its folder when it is dropped.
    copy_all(&store, copy);
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("room");
    for entry in fs::read_dir(from).expect("readable").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_all(&path, &target);
        } else if path.is_file() {
            fs::copy(&path, &target).expect("room");
        }
    }
}

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_found_in_a_store_in_clear_is_in_no_file_of_an_encrypted_one() {
    for encrypted in [false, true] {
        let (base, folder) = (Folder(fresh_folder()), fresh_folder());
        let key = encrypted.then(|| kek(&base.0, "kek"));
        let copy = base.0.join("copy");
        record(&folder, key.as_deref(), &copy);
        let needles = needles(&copy, key.as_deref(), &base.0.join("out"));
        let found = holding(&copy, &needles);
        if encrypted {
            assert!(found.is_empty(), "in clear in {found:?}");
        } else {
            // The search finds what there is, in all three.
            for part in ["segments", "log", "journal"] {
                assert!(found.iter().any(|path| path.starts_with(copy.join(part))), "{part}");
            }
        }
    }
}

#[test]
fn only_its_key_opens_a_store_and_another_one_takes_its_place() {
    let (base, folder) = (Folder(fresh_folder()), fresh_folder());
    let (old, new) = (kek(&base.0, "old"), kek(&base.0, "new"));
    let store = folder.join("store");
    let dir = text(&store);
    let port = free_port();
    let mut server = serve(&folder, port, Some(&old));
    assert!(call(port, 2).wait().expect("ours").success());
    said(&["verify", "--all", "--store", dir, "--kek", text(&old)]);
    // A binary of before encryption refuses that version.
    let volume = fs::read(store.join("volume.json")).expect("there");
    let volume: Value = serde_json::from_slice(&volume).expect("JSON");
    assert_eq!(volume["version"], 2);
    for words in [vec![], vec!["--kek", text(&new)]] {
        let refused = run(&[&["ls", "--store", dir][..], &words[..]].concat());
        assert_eq!(refused.status.code(), Some(4), "{words:?}");
        assert!(refused.stdout.is_empty());
    }
    // While it runs.
    said(&["kek", "wrap", "--to", text(&new), "--store", dir, "--kek", text(&old)]);
    assert!(call(port, 2).wait().expect("ours").success());
    assert_eq!(run(&["ls", "--store", dir, "--kek", text(&old)]).status.code(), Some(4));
    let listed = said(&["ls", "--json", "--store", dir, "--kek", text(&new)]);
    assert_eq!(listed.lines().count(), 2);
    // A key that is gone stops nothing that runs (F73).
    fs::remove_file(&old).expect("ours");
    for role in [MEDIA, CONTROL] {
        let pid = server.child(role).expect("it runs");
        send(pid, Signal::KILL);
        until(role, Duration::from_secs(5), || server.child(role).filter(|next| *next != pid));
    }
    until("a call is taken", Duration::from_secs(10), || {
        call(port, 1).wait().expect("ours").success().then_some(())
    });
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    said(&["verify", "--all", "--store", dir, "--kek", text(&new)]);
    // And what is yet to run refuses, in words.
    let mut refused = command(&folder, port);
    refused.args(["--set", &format!("store.encryption={}", toml_text(&base.0.join("old")))]);
    let output = refused.output().expect("it runs");
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("key"), "{told}");
}

/// What retention has taken cannot be had again by whoever kept the blocks of the disk, every key that is
/// left included; that it was there stays proven.
#[test]
fn what_was_shredded_cannot_be_read_from_an_old_image_with_all_keys_that_are_left() {
    let (base, folder) = (Folder(fresh_folder()), fresh_folder());
    let key = kek(&base.0, "kek");
    let store = folder.join("store");
    let port = free_port();
    let mut command = command(&folder, port);
    command.args(["--set", "store.ring_seconds=10", "--set", "store.segment_s=1"]);
    command.args(["--set", "store.retention=6s", "--set", "store.retention_check_s=1"]);
    command.args(["--set", &format!("store.encryption={}", toml_text(&key))]);
    let server = Server::start(command, &folder).ready();
    assert!(call(port, 2).wait().expect("ours").success());
    let verb = |words: &[&str], at: &Path| {
        run(&[words, &["--store", text(at), "--kek", text(&key)]].concat())
    };
    let list = || {
        let listed = verb(&["ls", "--json"], &store);
        let line = String::from_utf8(listed.stdout).expect("text");
        serde_json::from_str::<Value>(line.lines().next().expect("one")).expect("a JSON line")
    };
    until("it is sealed", Duration::from_secs(10), || {
        (list()["seal"]["state"] == "sealed").then_some(())
    });
    let id = list()["id"].as_str().expect("text").to_owned();
    // An image of the disk as it is now, without what destroys: the blocks stay, their keys do not.
    let image = base.0.join("image");
    copy_all(&store, &image);
    assert!(files(&image).iter().any(|path| path.extension().is_some_and(|e| e == "seg")));
    let heard = |at: &Path, out: &str| {
        let out = base.0.join(out);
        let exported = verb(&["export", &id, "-o", text(&out), "--format", "rtp"], at);
        let told = String::from_utf8_lossy(&exported.stderr).into_owned();
        let bytes: u64 = files_if_any(&out)
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "rtpdump"))
            .map(|path| fs::metadata(path).map_or(0, |of| of.len()))
            .sum();
        (bytes, told)
    };
    let (bytes, told) = heard(&image, "before");
    assert!(bytes > 10_000, "with its keys it is heard: {told}");
    until("its end", Duration::from_secs(40), || {
        let shown = verb(&["show", &id, "--json"], &store);
        let shown: Value = serde_json::from_slice(&shown.stdout).ok()?;
        (shown["retention"]["gone"]["whole"] == true).then_some(())
    });
    // Evidence stays: nothing that went is taken for lost, and the chain holds.
    let checked = verb(&["verify", "--all"], &store);
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{told}{}", String::from_utf8_lossy(&checked.stderr));
    assert!(told.contains("gone by retention"), "{told}");
    // All keys that are left, put to the blocks of before.
    for path in files(&store) {
        let target = image.join(path.strip_prefix(&store).expect("below it"));
        let is_key = path.extension().is_some_and(|e| e == "keys");
        let is_log = target.starts_with(image.join("log"));
        if is_key || is_log {
            // Of a log file the first block is what it is now; the groups behind it are as they were.
            let (now, mut then) =
                (fs::read(&path).expect("there"), fs::read(&target).unwrap_or_default());
            let head = if is_key { now.len() } else { now.len().min(4_096) };
            then.resize(then.len().max(head), 0);
            then[..head].copy_from_slice(&now[..head]);
            fs::write(&target, then).expect("room");
        }
    }
    let (bytes, told) = heard(&image, "after");
    assert_eq!(bytes, 0, "{told}");
    drop(server);
}

fn files_if_any(folder: &Path) -> Vec<PathBuf> {
    if folder.is_dir() { files(folder) } else { Vec::new() }
}

/// Of a store that was in clear before nothing that comes is, the audit trail included; what was there reads
/// as ever.
#[test]
fn what_comes_after_it_was_switched_on_is_encrypted_and_what_was_there_is_read() {
    let (base, folder) = (Folder(fresh_folder()), Folder(fresh_folder()));
    let key = kek(&base.0, "kek");
    let (store, port) = (folder.0.join("store"), free_port());
    for kek in [None, Some(&key)] {
        let mut command = command(&folder.0, port);
        if let Some(kek) = kek {
            command.args(["--set", &format!("store.encryption={}", toml_text(kek))]);
        }
        // Not removed with its server: another one goes on in it.
        let mut server = Server::start(command, &base.0).ready();
        assert!(call(port, 1).wait().expect("ours").success());
        server.signal(Signal::TERM);
        assert!(server.wait().success());
        std::mem::forget(server);
    }
    let with_key = ["--store", text(&store), "--kek", text(&key)];
    let out = base.0.join("out");
    let listed = said(&[&["ls", "--json"][..], &with_key[..]].concat());
    let calls: Vec<Value> =
        listed.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    assert_eq!(calls.len(), 2);
    for (place, one) in calls.iter().enumerate() {
        let id = one["id"].as_str().expect("text");
        let reason = format!("reason number {place} of somebody");
        let to = out.join(id);
        let words = ["export", id, "-o", text(&to), "--reason", &reason];
        said(&[&words[..], &with_key[..]].concat());
        // Whoever listens now is not to be read of in clear either.
        assert!(holding(&store, &[reason.into_bytes()].into()).is_empty());
    }
    said(&[&["verify", "--all"][..], &with_key[..]].concat());
    let call_id = |one: &Value| one["call_id"].as_str().expect("text").as_bytes().to_vec();
    assert!(!holding(&store, &[call_id(&calls[0])].into()).is_empty(), "it was in clear");
    assert!(holding(&store, &[call_id(&calls[1])].into()).is_empty());
}
