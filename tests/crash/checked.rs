//! `tests/checker.py` as a judge: beside the one in this language, and alone where the store is encrypted.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::judge::{Found, number, numbered, started};

fn streams(loads: &[Value]) -> impl Iterator<Item = &Value> {
    loads.iter().flat_map(|load| load["streams"].as_array().into_iter().flatten())
}

/// Runs it on a store, with what was sent; `None` where there is no Python.
fn run(folder: &Path, store: &Path, loads: &[Value], more: &[&str]) -> Option<Output> {
    let file = folder.join("sent.json");
    let sent: Vec<&Value> = streams(loads).collect();
    std::fs::write(&file, json!({ "streams": sent }).to_string()).ok()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checker.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(store).args(["--numbered", "--proofs"]).args(more);
    python.arg(format!("--sent={}", file.display())).output().ok()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it has to complain about.
pub(crate) fn check(folder: &Path, store: &Path, loads: &[Value]) -> Option<String> {
    let Some(checked) = run(folder, store, loads, &[]) else {
        eprintln!("not checked by other code: no python3");
        return None;
    };
    let (told, complaints) = (text(&checked.stdout), text(&checked.stderr));
    (!checked.status.success()).then(|| format!("checker.py: {told}{complaints}"))
}

/// Judges an encrypted store by its key. An error: it cannot run here.
pub(crate) fn judge(
    folder: &Path,
    store: &Path,
    loads: &[Value],
    kek: &Path,
) -> Result<Found, String> {
    let kek = kek.to_str().expect("a temp folder has a plain name");
    let checked = run(folder, store, loads, &["--events", "--kek", kek]);
    let checked = checked.ok_or("no python3 to read what is encrypted")?;
    let (told, complaints) = (text(&checked.stdout), text(&checked.stderr));
    let mut lines = told.lines().map_while(|line| serde_json::from_str::<Value>(line).ok());
    let Some(sums) = lines.next().filter(|_| matches!(checked.status.code(), Some(0 | 1))) else {
        return Err(format!("checker.py: {}: {complaints}", checked.status));
    };
    let mut found = Found {
        sent: streams(loads).map(|one| number(&one["sent"]) - number(&one["unsent"])).sum(),
        recorded: number(&sums["packets"]),
        missing: number(&sums["missing"]),
        twice: number(&sums["twice"]),
        wrong: number(&sums["unequal"]) + number(&sums["foreign"]),
        disorder: number(&sums["disorder"]),
        damaged: complaints.lines().map(str::to_owned).collect(),
        ..Found::default()
    };
    let starts = lines.filter_map(|one| started(number(&one["stream"]), &one["event"]));
    found.starts.extend(starts);
    found.starts.sort_by_key(|start| start.at_ns);
    Ok(found)
}

/// Where something of the loads stands in the clear in a store: stretches of packets, and words that are
/// in every event and in every entry of the journal.
pub(crate) fn in_clear(store: &Path, loads: &[Value]) -> Result<Option<String>, String> {
    let mut needles = stretches(loads);
    let words = ["{\"event\":\"", "{\"entry\":\"", "application/sdp"];
    needles.extend(words.map(Vec::from));
    Ok(holding(store, &needles)?.map(|path| format!("{} has it in the clear", path.display())))
}

/// The search for stretches of packets is worth something: in a store that is not encrypted it finds them.
pub(crate) fn searches(store: &Path, loads: &[Value]) -> Result<Option<String>, String> {
    let found = holding(store, &stretches(loads))?;
    Ok(found.is_none().then(|| "packets in the clear were searched for and not found".to_owned()))
}

/// 32 bytes out of each of two packets of a few streams.
fn stretches(loads: &[Value]) -> Vec<Vec<u8>> {
    let mut stretches = Vec::new();
    for load in loads {
        let seed = number(&load["seed"]);
        for stream in load["streams"].as_array().into_iter().flatten().take(5) {
            let sent = number(&stream["sent"]);
            let words = |count| numbered(seed ^ number(&stream["ssrc"]), count).skip(1).take(4);
            stretches
                .extend([sent / 5, sent * 4 / 5].map(|count| words(count).flatten().collect()));
        }
    }
    stretches
}

/// A file below `folder` that has any of `needles`.
fn holding(folder: &Path, needles: &[Vec<u8>]) -> Result<Option<PathBuf>, String> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).map_err(|error| error.to_string())?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap_or_default();
            if needles.iter().any(|needle| memchr::memmem::find(&bytes, needle).is_some()) {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}
