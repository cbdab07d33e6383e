//! The processes of `floortape serve`, with the real binary: who runs, who comes back, who ends.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const BINARY: &str = env!("CARGO_BIN_EXE_floortape");
const MEDIA: &str = "floortape-media";
const CONTROL: &str = "floortape-control";

/// Asks `found` again and again until it has an answer; panics after `limit`.
fn until<T>(what: &str, limit: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = found() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn fresh_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path =
        std::env::temp_dir().join(format!("floortape-serve-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a temp folder");
    path
}

/// A port that was free for UDP and TCP a moment ago.
fn free_port() -> u16 {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("some port is free");
        let port = udp.local_addr().expect("bound").port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn command(folder: &Path) -> Command {
    let port = free_port();
    let mut command = Command::new(BINARY);
    command.arg("serve");
    for set in [
        format!("store.dir={}", toml_text(&folder.join("store"))),
        format!("sip.udp=[\"127.0.0.1:{port}\"]"),
        format!("sip.tcp=[\"127.0.0.1:{port}\"]"),
        // Shared by parallel tests: keeper skips pairs that are taken.
        "media.ports=42000-45999".to_owned(),
        "media.streams_max=8".to_owned(),
    ] {
        command.args(["--set", &set]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn toml_text(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

/// A running server; ended, with all its children, on drop.
struct Server {
    keeper: Child,
    said: Arc<Mutex<Vec<String>>>,
    folder: PathBuf,
}

impl Server {
    fn start(folder: &Path) -> Self {
        Self::from_command(command(folder), folder)
    }

    fn from_command(mut command: Command, folder: &Path) -> Self {
        let mut keeper = command.spawn().expect("the binary is built");
        let said = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(keeper.stderr.take().expect("piped"));
        let lines = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().expect("no panic while held").push(line);
            }
        });
        Server { keeper, said, folder: folder.to_owned() }
    }

    fn ready(self) -> Self {
        until("ready", Duration::from_secs(5), || self.heard("ready").then_some(()));
        self
    }

    fn lines(&self) -> Vec<String> {
        self.said.lock().expect("no panic while held").clone()
    }

    /// Whether a line begins with `text`.
    fn heard(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.starts_with(text))
    }

    fn told(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }

    fn signal(&self, signal: Signal) {
        send(self.keeper.id(), signal);
    }

    fn child(&self, name: &str) -> Option<u32> {
        children(self.keeper.id()).into_iter().find(|(_, argv0)| argv0 == name).map(|(pid, _)| pid)
    }

    fn wait(&mut self) -> ExitStatus {
        until("the end of keeper", Duration::from_secs(8), || self.keeper.try_wait().expect("ours"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process number")).expect("not 0");
    kill_process(pid, signal).expect("it is running");
}

fn argv0(pid: u32) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(first).into_owned())
}

/// Direct children of `parent` with their `argv[0]`.
fn children(parent: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("procfs").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // After the name in brackets: state, then the parent.
        let after = stat.rsplit(')').next().unwrap_or_default();
        if after.split_whitespace().nth(1) == Some(&parent.to_string())
            && let Some(argv0) = argv0(pid)
        {
            found.push((pid, argv0));
        }
    }
    found
}

fn runs(pid: u32, name: &str) -> bool {
    argv0(pid).as_deref() == Some(name)
}

#[test]
fn serve_says_ready_and_its_children_carry_their_names() {
    let server = Server::start(&fresh_folder()).ready();
    let mut names: Vec<_> = children(server.keeper.id()).into_iter().map(|(_, n)| n).collect();
    names.sort();
    assert_eq!(names, [CONTROL, MEDIA]);
    let ready = server.lines().iter().filter(|line| line.starts_with("ready")).count();
    assert_eq!(ready, 1, "{:?}", server.lines());
}

#[test]
fn a_killed_child_is_started_again_each_time() {
    let mut server = Server::start(&fresh_folder()).ready();
    for name in [MEDIA, CONTROL, MEDIA, CONTROL] {
        let before = until(name, Duration::from_secs(3), || server.child(name));
        send(before, Signal::KILL);
        let after = until("a successor", Duration::from_secs(3), || {
            server.child(name).filter(|pid| *pid != before)
        });
        assert_ne!(before, after);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.lines());
}

#[test]
fn sigterm_ends_everything_and_leaves_no_orphan() {
    let mut server = Server::start(&fresh_folder()).ready();
    let (media, control) = (server.child(MEDIA), server.child(CONTROL));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.lines());
    assert!(!runs(media.expect("it ran"), MEDIA));
    assert!(!runs(control.expect("it ran"), CONTROL));
}

#[test]
fn sigint_ends_everything_as_interrupted() {
    let mut server = Server::start(&fresh_folder()).ready();
    server.signal(Signal::INT);
    assert_eq!(server.wait().code(), Some(130), "{:?}", server.lines());
}

#[test]
fn a_signal_to_the_whole_group_is_keepers_to_act_on() {
    let mut server = Server::start(&fresh_folder()).ready();
    for name in [MEDIA, CONTROL] {
        send(server.child(name).expect("it runs"), Signal::TERM);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.lines());
    assert!(!server.told("started again"), "{:?}", server.lines());
}

#[test]
fn a_store_in_use_is_refused() {
    let folder = fresh_folder();
    let server = Server::start(&folder).ready();
    let Output { status, stderr, .. } = command(&folder).output().expect("it runs");
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(75), "{said}");
    assert!(said.contains("in use") && said.contains(&server.keeper.id().to_string()), "{said}");
    assert!(server.child(MEDIA).is_some(), "the first one goes on");
}

#[test]
fn roles_of_a_killed_keeper_end_and_the_store_opens_again() {
    let folder = fresh_folder();
    let mut first = Server::start(&folder).ready();
    let (media, control) = (first.child(MEDIA), first.child(CONTROL));
    first.keeper.kill().expect("ours");
    first.wait();
    let second = Server::start(&folder).ready();
    assert!(!runs(media.expect("it ran"), MEDIA), "no two writers of one store");
    until("the old control ends", Duration::from_secs(3), || {
        (!runs(control.expect("it ran"), CONTROL)).then_some(())
    });
    drop(second);
}

#[test]
fn a_faulty_configuration_ends_with_78_and_shows_the_place() {
    let folder = fresh_folder();
    let file = folder.join("f.toml");
    std::fs::write(&file, "[media]\nstream_max = 5\nports = 7\n").expect("ours");
    for verb in ["serve", "check"] {
        let output = Command::new(BINARY).args([verb, "-c"]).arg(&file).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("f.toml:2:1: error: media.stream_max: unknown key"), "{said}");
        assert!(said.contains("did you mean \"streams_max\"?"), "{said}");
        assert!(said.contains("f.toml:3:9: error: media.ports"), "{said}");
        assert!(said.contains("    |         ^\n"), "{said}");
        assert!(output.stdout.is_empty());
    }
    std::fs::remove_dir_all(folder).expect("ours");
}

#[test]
fn f72_a_faulty_reload_keeps_the_running_configuration() {
    let folder = fresh_folder();
    let file = folder.join("f.toml");
    std::fs::write(&file, "[log]\nlevel = \"info\"\n").expect("ours");
    let mut command = command(&folder);
    command.arg("-c").arg(&file);
    let server = Server::from_command(command, &folder).ready();
    std::fs::write(&file, "[log]\nlevel = \"loud\"\n").expect("ours");
    server.signal(Signal::HUP);
    until("the fault", Duration::from_secs(3), || server.told("not reloaded").then_some(()));
    assert!(server.told("f.toml:2:9: error: log.level"), "{:?}", server.lines());
    std::fs::write(&file, "[log]\nlevel = \"warn\"\n[store]\nring_seconds = 900\n").expect("ours");
    server.signal(Signal::HUP);
    until("the fixed key", Duration::from_secs(3), || {
        server.told("not reloaded: store.ring_seconds").then_some(())
    });
    std::fs::write(&file, "[log]\nlevel = \"warn\"\n").expect("ours");
    server.signal(Signal::HUP);
    until("the reload", Duration::from_secs(3), || {
        server.told("configuration reloaded").then_some(())
    });
}

#[test]
fn a_role_name_without_keeper_is_a_usage_error() {
    use std::os::unix::process::CommandExt;
    let output = Command::new(BINARY).arg0(MEDIA).stdin(Stdio::null()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("children of `floortape serve`"), "{said}");
}
