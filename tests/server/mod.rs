//! A real `floortape serve` for tests: started, watched, killed, ended.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_floortape");
pub(crate) const MEDIA: &str = "floortape-media";
pub(crate) const CONTROL: &str = "floortape-control";

/// Asks `found` again and again until it has an answer; panics after `limit`.
pub(crate) fn until<T>(what: &str, limit: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = found() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn fresh_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path =
        std::env::temp_dir().join(format!("floortape-serve-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a temp folder");
    path
}

/// A port that was free for UDP and TCP a moment ago.
pub(crate) fn free_port() -> u16 {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("some port is free");
        let port = udp.local_addr().expect("bound").port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn command(folder: &Path, port: u16) -> Command {
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

pub(crate) fn toml_text(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

/// A running server; ended, with all its children, on drop.
pub(crate) struct Server {
    pub(crate) keeper: Child,
    said: Arc<Mutex<Vec<String>>>,
    folder: PathBuf,
}

impl Server {
    pub(crate) fn start(mut command: Command, folder: &Path) -> Self {
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

    pub(crate) fn ready(self) -> Self {
        until("ready", Duration::from_secs(5), || self.heard("ready").then_some(()));
        self
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.said.lock().expect("no panic while held").clone()
    }

    /// Whether a line begins with `text`.
    pub(crate) fn heard(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.starts_with(text))
    }

    pub(crate) fn told(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.keeper.id(), signal);
    }

    pub(crate) fn child(&self, name: &str) -> Option<u32> {
        children(self.keeper.id()).into_iter().find(|(_, argv0)| argv0 == name).map(|(pid, _)| pid)
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
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

pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process number")).expect("not 0");
    kill_process(pid, signal).expect("it is running");
}

pub(crate) fn argv0(pid: u32) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(first).into_owned())
}

/// Direct children of `parent` with their `argv[0]`.
pub(crate) fn children(parent: u32) -> Vec<(u32, String)> {
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
