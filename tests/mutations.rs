//! A store as a real server leaves it, encrypted, of two workers, its segments in two folders: whatever is
//! flipped, cut, zeroed, exchanged or taken away of any file, `floortape verify --all` does not end with 0.
//! What the library's own test of the kind (`src/shell/cmd/verify/mutations.rs`) does to stores in the
//! clear, by the binary and from outside; `MUTATIONS=10000` makes as many.

#[expect(dead_code, reason = "shared with tests that kill processes")]
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use floortape::base::prng::Prng;
use rustix::process::Signal;
use server::{Server, command, free_port, fresh_folder, toml_text, until};

/// Without being asked for more.
const FEW: u64 = 400;
/// Nothing that anybody is told rests on these: derived, or state of a run; and the pool of the log, all of which
/// is in segments.
const UNTOLD: &[&str] = &[
    "catalog.sqlite",
    "peaks.sqlite",
    "run/",
    "lock",
    "evidence/scrub",
    "reserve",
    "journal/reserve",
    "log/",
];
/// Of these only the id counts: numbers that starts have used up, and where folders are.
const IDENTITY: &str = "volume.json";

fn run(words: &[&str]) -> Option<i32> {
    let mut command = Command::new(server::binary());
    let ended = command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ended.expect("it runs").code()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temp folder has a plain name")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// Records four calls and ends the server, which takes its folder along when it is dropped.
fn record(folder: &Path, kek: &Path, more: &Path) -> Server {
    let port = free_port();
    let mut command = command(folder, port);
    command.args(["--set", "cpu.workers=2", "--set", "store.ring_seconds=10"]);
    command.args(["--set", "store.segment_s=1"]);
    command.args(["--set", &format!("store.encryption={}", toml_text(kek))]);
    command.args(["--set", &format!("store.segment_dirs=[{}]", toml_text(more))]);
    let mut server = Server::start(command, folder).ready();
    let to = format!("sip:srs@127.0.0.1:{port};transport=tcp");
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let mut call = Command::new(server::binary());
            call.args(["src", "call", "--to", &to, "--duration", "3"]);
            call.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs")
        })
        .collect();
    calls.into_iter().for_each(|mut call| assert!(call.wait().expect("ours").success()));
    let store = folder.join("store");
    until("all of it is sealed", Duration::from_secs(20), || {
        let listed = Command::new(server::binary())
            .args(["ls", "--json", "--kek", text(kek), "--store", text(&store)])
            .output()
            .expect("it runs");
        let listed = String::from_utf8(listed.stdout).expect("text");
        (listed.matches("\"state\":\"ended\"").count() == 4).then_some(())
    });
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    server
}

/// Changes files of a folder over and over; each time they are put back.
struct Mutator {
    prng: Prng,
    /// Path, what it holds, and what kind of file it is.
    files: Vec<(PathBuf, Vec<u8>, String)>,
}

impl Mutator {
    fn of(folders: &[&Path]) -> Self {
        let mut paths = Vec::new();
        folders.iter().for_each(|folder| files(folder, &mut paths));
        paths.sort();
        let told = |path: &PathBuf| {
            let name = folders.iter().find_map(|folder| path.strip_prefix(folder).ok());
            let name = name.and_then(Path::to_str).expect("of one of them");
            !UNTOLD.iter().any(|untold| name.starts_with(untold) || name.ends_with("/lock"))
        };
        let read = |path: PathBuf| {
            let kind = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
            let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
            let kind = format!("{}/*.{end}", kind.expect("a folder"));
            let bytes = fs::read(&path).expect("readable");
            (path, bytes, kind)
        };
        let files = paths.into_iter().filter(told).map(read).collect();
        Mutator { prng: Prng::new(1), files }
    }

    fn below(&mut self, count: usize) -> usize {
        self.prng.below(count as u64) as usize
    }

    /// Where a byte counts: anywhere, of an identity file in its id.
    fn position(&mut self, nth: usize) -> usize {
        let (path, bytes, _) = &self.files[nth];
        if !path.ends_with(IDENTITY) {
            let count = bytes.len();
            return self.below(count);
        }
        let id = memchr::memmem::find(bytes, b"\"id\"").expect("it has one") + 4;
        let digits = bytes[id..].iter().position(u8::is_ascii_hexdigit).expect("some");
        id + digits + self.below(36)
    }

    /// Makes one change; what it was, and the files that differ now.
    fn change(&mut self) -> Option<(String, Vec<usize>)> {
        let nth = self.below(self.files.len());
        let at = self.position(nth);
        let (path, held, kind) = self.files[nth].clone();
        let is_identity = path.ends_with(IDENTITY);
        let mut bytes = held.clone();
        let (what, others) = match self.below(8) {
            0..=3 => {
                let bit = self.below(8);
                bytes[at] ^= 1 << bit;
                (format!("bit {bit} of byte {at}"), vec![])
            }
            4 => {
                fs::remove_file(&path).expect("there");
                return Some((format!("{}: gone", path.display()), vec![nth]));
            }
            5 if !is_identity => {
                bytes.truncate(at);
                (format!("cut at byte {at}"), vec![])
            }
            6 if !is_identity => {
                let to = (at + 512).min(bytes.len());
                bytes[at..to].fill(0);
                (format!("zeros from byte {at} to {to}"), vec![])
            }
            7 => {
                let of_kind = |one: &usize| self.files[*one].2 == kind && *one != nth;
                let others: Vec<usize> = (0..self.files.len()).filter(of_kind).collect();
                let other = *others.get(self.prng.below(others.len().max(1) as u64) as usize)?;
                let (theirs, their_bytes, _) = self.files[other].clone();
                write(&theirs, &held);
                bytes = their_bytes;
                (format!("exchanged with {}", theirs.display()), vec![other])
            }
            _ => return None,
        };
        if bytes == held {
            return None;
        }
        write(&path, &bytes);
        Some((format!("{}: {what}", path.display()), [vec![nth], others].concat()))
    }

    fn put_back(&self, changed: &[usize]) {
        changed.iter().for_each(|nth| write(&self.files[*nth].0, &self.files[*nth].1));
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("room");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
}

#[test]
fn no_mutation_of_an_encrypted_store_of_several_workers_and_disks_passes_for_sound() {
    let (folder, beside) = (fresh_folder(), fresh_folder());
    let (kek, more) = (beside.join("kek"), beside.join("more"));
    assert_eq!(run(&["kek", "make", text(&kek)]), Some(0));
    let server = record(&folder, &kek, &more);
    let store = folder.join("store");
    let verify = || run(&["verify", "--all", "--kek", text(&kek), "--store", text(&store)]);
    assert_eq!(verify(), Some(0), "sound");
    let mut mutator = Mutator::of(&[&store, &more]);
    let mut kinds = BTreeMap::<String, u64>::new();
    let asked = std::env::var("MUTATIONS").ok().and_then(|text| text.parse().ok());
    let (asked, mut made, mut passed) = (asked.unwrap_or(FEW), 0, Vec::new());
    while made < asked {
        let Some((what, changed)) = mutator.change() else { continue };
        made += 1;
        *kinds.entry(mutator.files[changed[0]].2.clone()).or_default() += 1;
        let code = verify();
        mutator.put_back(&changed);
        if !matches!(code, Some(1 | 4 | 74 | 78)) {
            passed.push(format!("{code:?}: {what}"));
        }
    }
    assert_eq!(verify(), Some(0), "put back");
    println!("{made} mutations, {} passed for sound; {kinds:?}", passed.len());
    assert!(passed.is_empty(), "{} of {made}:\n{}", passed.len(), passed.join("\n"));
    for kind in ["segments/*.seg", "segments/*.keys", "journal/*.journal", "audit/*.audit"] {
        assert!(kinds.contains_key(kind), "{kind} in {kinds:?}");
    }
    drop(server);
    fs::remove_dir_all(beside).expect("ours");
}
