//! Retention and legal hold, with the real server: what is due goes, what is held stays and plays, and
//! readers beside it see no trouble.

#[expect(dead_code, reason = "shared with tests that kill processes")]
mod server;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use server::{Server, binary, command, free_port, fresh_folder, until};

const LINES: usize = 200;
/// Everything goes so long after it came.
const KEEP_S: u64 = 15;

struct Bench {
    store: PathBuf,
    port: u16,
    server: Server,
}

impl Bench {
    fn new(sets: &[String]) -> Self {
        Bench::at(fresh_folder(), sets)
    }

    fn at(folder: PathBuf, sets: &[String]) -> Self {
        let port = free_port();
        let mut command = command(&folder, port);
        for set in sets {
            command.arg("--set").arg(set);
        }
        let server = Server::start(command, &folder).ready();
        Bench { store: folder.join("store"), port, server }
    }

    fn output(&self, words: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(words).arg("--store").arg(&self.store);
        if matches!(words[0], "ls" | "show" | "hold" | "retention") {
            command.arg("--set").arg(format!("store.retention={KEEP_S}s"));
        }
        command.output().expect("it runs")
    }

    fn code(&self, words: &[&str]) -> Option<i32> {
        self.output(words).status.code()
    }

    fn run(&self, words: &[&str]) -> String {
        let output = self.output(words);
        let said = String::from_utf8_lossy(&output.stderr);
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success(), "{words:?}: {said}{text}");
        text
    }

    fn recordings(&self) -> Vec<Value> {
        let listed = self.run(&["ls", "--json"]);
        listed.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
    }

    /// Bytes of whole segments and of thinned ones, on disk.
    fn bytes(&self) -> (u64, u64) {
        let of = |suffix: &str| {
            let entries = std::fs::read_dir(self.store.join("segments")).expect("a folder");
            let ours = entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().ends_with(suffix));
            ours.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
        };
        (of(".seg"), of(".kept"))
    }

    fn call(&self, streams: usize, seconds: u32) -> Output {
        let mut src = Command::new(binary());
        src.args(["src", "call", "--srtp", "none", "--streams-per-call", "1", "--one-port"]);
        src.arg("--to").arg(format!("sip:load@127.0.0.1:{};transport=tcp", self.port));
        src.arg("--streams").arg(streams.to_string());
        src.arg("--duration").arg(seconds.to_string());
        src.output().expect("it runs")
    }
}

fn id(recording: &Value) -> String {
    recording["id"].as_str().expect("an id").to_owned()
}

fn plays(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).expect("an export");
    entries.flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        // A second of G.711 as 16-bit PCM and more.
        name.ends_with(".wav") && entry.metadata().is_ok_and(|known| known.len() > 16_000)
    })
}

/// 1 of 200 lines is held: the space of the others returns, and of it nothing is missing.
#[test]
fn the_held_line_stays_and_the_space_of_the_others_returns() {
    let bench = Bench::new(&[
        format!("media.streams_max={LINES}"),
        format!("store.retention={KEEP_S}s"),
        "store.retention_check_s=1".to_owned(),
        "log.level=info".to_owned(),
    ]);
    let called = bench.call(LINES, 3);
    assert!(called.status.success(), "{}", String::from_utf8_lossy(&called.stderr));
    let all = bench.recordings();
    assert_eq!(all.len(), LINES);
    let held = id(&all[17]);
    let hold = bench.run(&["hold", "add", &held, "--reason", "case 12"]);
    let hold = hold.trim().strip_prefix("hold ").expect("its number").to_owned();
    assert_eq!(bench.code(&["hold", "why", &held]), Some(0));
    assert_eq!(bench.code(&["hold", "why", &id(&all[18])]), Some(1));
    assert_eq!(bench.code(&["hold", "rm", "999", "--reason", "x"]), Some(3));
    // What would go once all is due is all but the held one.
    let planned = bench.run(&["retention", "plan", "--json", "--at", "2200-01-01T00:00:00Z"]);
    let sealed = until("all lines sealed", Duration::from_secs(8), || {
        let ended = bench.recordings().iter().all(|one| one["seal"]["state"] == "sealed");
        ended.then(|| bench.bytes().0)
    });
    assert!(!planned.contains(&held) && sealed > 3_000_000, "{sealed}");

    // Readers beside it see no trouble, at any instant of it.
    let mut looks = 0;
    until("the end of the others", Duration::from_secs(90), || {
        assert_eq!(bench.code(&["verify", &held]), Some(0));
        let output = bench.output(&["verify", "--all", "--json"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{:#?}", bench.server.lines());
        looks += 1;
        let checked = String::from_utf8_lossy(&output.stdout);
        let gone = checked.lines().filter(|line| line.contains("\"whole\":true")).count();
        (gone == LINES - 1).then_some(())
    });
    assert!(looks > 2, "{looks}");
    // What is left of whole segments is the evidence of the time in which the held line ran.
    let (whole, thinned) = bench.bytes();
    let left = whole + thinned;
    println!("{sealed} bytes before, {left} after: {:.1} %", 100.0 * left as f64 / sealed as f64);
    assert!(left * 20 <= sealed, "{left} of {sealed} bytes are left");

    let verified = bench.run(&["verify", &held]);
    assert!(
        verified.contains("proven up to checkpoint") && !verified.contains("gone"),
        "{verified}"
    );
    let export = bench.store.join("../held");
    bench.run(&["export", &held, "--format", "wav", "-o", &export.display().to_string()]);
    assert!(plays(&export), "the held line plays");
    assert_eq!(bench.code(&["verify", &export.display().to_string()]), Some(0));

    // The others are told as gone, not as lost.
    let other = id(&all[3]);
    let verified = bench.run(&["verify", &other]);
    assert!(
        verified.contains("gone by retention since") && verified.contains("lost 0"),
        "{verified}"
    );
    let shown = until("the catalogue", Duration::from_secs(10), || {
        let shown: Value =
            serde_json::from_str(&bench.run(&["show", &other, "--json"])).expect("JSON");
        (shown["retention"]["gone"]["whole"] == true).then_some(shown)
    });
    assert_eq!(shown["retention"]["class"], "default");
    // The catalogue follows segment by segment.
    let lines = until("all others to be told as gone", Duration::from_secs(60), || {
        let lines = bench.recordings();
        let gone = lines.iter().filter(|one| one["retention"]["gone"]["whole"] == true).count();
        ((lines.len(), gone) == (LINES, LINES - 1)).then_some(lines)
    });
    let own = lines.iter().find(|one| id(one) == held).expect("listed");
    assert_eq!(own["retention"]["held_by"][0].to_string(), hold);

    // Without the hold it goes as well.
    bench.run(&["hold", "rm", &hold, "--reason", "case closed"]);
    until("the end of the last one", Duration::from_secs(60), || {
        bench.run(&["verify", &held]).contains("gone by retention").then_some(())
    });
    bench.run(&["verify", "--all"]);
}

/// What nobody has promised otherwise stays for ever, and one person cannot change that.
#[test]
fn f77_nobody_shortens_alone() {
    let bench = Bench::new(&["store.retention_check_s=1".to_owned()]);
    assert!(bench.call(2, 1).status.success());
    // The configuration of the verb keeps 15 s; the promise is for ever.
    let planned = bench.run(&["retention", "plan", "--json", "--at", "2200-01-01T00:00:00Z"]);
    assert_eq!(planned, "");
    let words = ["retention", "shorten", "default", "1s", "--reason", "less disk"];
    let proposal = bench.run(&words);
    let number = proposal.trim().strip_prefix("proposal ").expect("its number");
    assert_eq!(bench.code(&["retention", "approve", number]), Some(4), "by the same person");
    assert_eq!(bench.code(&["retention", "approve", "999"]), Some(3));
    assert!(bench.run(&["retention", "ls"]).contains("less disk"));
    let planned = bench.run(&["retention", "plan", "--json", "--at", "2200-01-01T00:00:00Z"]);
    assert_eq!(planned, "");
    assert_eq!(bench.code(&["hold", "add", "--reason", "x"]), Some(2), "it would hold everything");
}

fn readyz(port: u16) -> String {
    let mut to = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    to.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    to.read_to_string(&mut text).expect("an answer");
    text
}

/// Held data on a disk without room: not a byte of it goes, and whoever is refused is told what keeps it.
#[test]
fn f16_a_full_disk_names_what_keeps_it_and_nothing_goes() {
    /// What a stream is reckoned with: 10.4 KB/s, and a sixteenth more on disk.
    const STREAM_BYTES_PER_MINUTE: u64 = 10_400 * 60 * 17 / 16;
    let (http, folder) = (free_port(), fresh_folder());
    let room = rustix::fs::statvfs(&folder).expect("a folder");
    let free = room.f_bavail * room.f_frsize;
    // 100 streams want twice what there is, two a twentieth of it.
    let minutes = (free * 2 / (100 * STREAM_BYTES_PER_MINUTE)).clamp(1, 1_440);
    let bench = Bench::at(
        folder,
        &[
            "media.streams_max=120".to_owned(),
            format!("http.listen=[\"127.0.0.1:{http}\"]"),
            format!("store.retention={KEEP_S}s"),
            "store.retention_check_s=1".to_owned(),
            format!("store.reserve_minutes={minutes}"),
        ],
    );
    let hold = bench.run(&["hold", "add", "*", "--reason", "everything"]);
    let hold = hold.trim().to_owned();
    assert!(bench.call(2, 1).status.success());
    until("it is sealed", Duration::from_secs(30), || {
        bench.recordings().iter().all(|one| one["seal"]["state"] == "sealed").then_some(())
    });
    let folder = bench.store.join("segments");
    let segments = || {
        let entries = std::fs::read_dir(&folder).expect("a folder").flatten();
        let read = |entry: std::fs::DirEntry| (entry.file_name(), std::fs::read(entry.path()).ok());
        entries.map(read).collect::<BTreeMap<_, _>>()
    };
    let before = segments();
    assert!(!before.is_empty());
    assert!(readyz(http).starts_with("HTTP/1.1 200"));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| bench.call(100, 25));
        let said = until("the reason", Duration::from_secs(60), || {
            let said = readyz(http);
            (said.starts_with("HTTP/1.1 503") && said.contains("kept by")).then_some(said)
        });
        assert!(said.contains(&format!("kept by {hold}: 1 MiB")), "{said}");
        assert_eq!(bench.call(1, 1).status.code(), Some(75), "a new one is refused");
        // Those that run go on.
        assert!(load.join().expect("no panic").status.success());
    });
    // It was due long ago, and is held.
    let after = segments();
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)), "not a byte went");
    bench.run(&["verify", "--all"]);
}

/// Everything below `folder` that holds one of `words`.
fn holding(folder: &Path, words: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, words));
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let holds = |word: &String| memchr::memmem::find(&bytes, word.as_bytes()).is_some();
            found.extend(words.iter().any(holds).then_some(path));
        }
    }
    found
}

/// When the last record of a recording has gone, who called whom goes as well: no file of the store says
/// it any more, that there was a recording is still told, and the chain of journal and history holds.
#[test]
fn what_was_said_of_a_recording_goes_behind_it() {
    let sets = ["store.retention=2s", "store.retention_check_s=1", "store.segment_s=1"];
    let bench = Bench::new(&sets.map(str::to_owned));
    let hold_words = |recording: &Value| {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let people = recording["participants"].as_array().expect("a list");
        let names = people.iter().map(|one| text(&one["names"][0]["aor"]));
        names.chain([text(&recording["call_id"])]).collect::<Vec<_>>()
    };
    assert!(bench.call(1, 1).status.success());
    let recording = bench.recordings().remove(0);
    let id = id(&recording);
    let words = hold_words(&recording);
    assert!(words.len() > 1);
    let at_first = holding(&bench.store, &words);
    assert!(at_first.iter().any(|path| path.starts_with(bench.store.join("journal"))));
    // A client may still ask for 32 s what became of its call (64·T1), and longer nobody does.
    let goes = std::time::Instant::now();
    while goes.elapsed() < Duration::from_secs(110) && !holding(&bench.store, &words).is_empty() {
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(holding(&bench.store, &words), Vec::<PathBuf>::new(), "{words:?}");
    let shown: Value = serde_json::from_str(&bench.run(&["show", &id, "--json"])).expect("JSON");
    assert_eq!(shown["id"], recording["id"]);
    assert_eq!((&shown["start"], &shown["end"]), (&recording["start"], &recording["end"]));
    assert!(shown["retention"]["forgotten"].is_string(), "{shown}");
    assert_eq!(shown["participants"].as_array().map(Vec::len), Some(0));
    assert!(bench.run(&["show", &id]).contains("forgotten  what was said of it"));
    assert_eq!(bench.recordings().len(), 1);
    let checked = bench.run(&["verify", "--all"]);
    assert!(checked.contains("gone by retention"), "{checked}");
    let trail = bench.run(&["audit", "--action", "retention.forgotten", "--json"]);
    assert!(trail.contains(&id), "{trail}");
    // Whoever reads it over meanwhile takes nothing of that for damage.
    let alarms = bench.server.lines();
    assert!(!alarms.iter().any(|line| line.contains("damage found by reading")), "{alarms:#?}");
    // Whoever reads it over meanwhile takes nothing of that for damage.
    let alarms = bench.server.lines();
    assert!(!alarms.iter().any(|line| line.contains("damage found by reading")), "{alarms:#?}");
}
