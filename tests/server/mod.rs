//! A real `floortape serve` for tests: started, watched, killed, ended.

mod process;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) use process::*;
use rustix::process::Signal;

/// `serve` of the binary under test.
pub(crate) fn command(folder: &Path, port: u16) -> Command {
    command_of(&binary(), folder, port)
}

/// An empty folder, in memory where there is room: how long a busy disk takes to sync is not what most
/// tests are about, and a journal that is not synced within 500 ms makes a 503 of any INVITE. With
/// TMPDIR set it is there.
pub(crate) fn fresh_folder() -> PathBuf {
    /// What the stores of tests that run beside each other need at most.
    const ROOM: u64 = 2 << 30;
    let memory = || {
        let path = PathBuf::from("/dev/shm");
        let room = rustix::fs::statvfs(&path).ok()?;
        (room.f_bavail * room.f_frsize >= ROOM).then_some(path)
    };
    let base = if std::env::var_os("TMPDIR").is_some() { None } else { memory() };
    fresh_folder_in(&base.unwrap_or_else(std::env::temp_dir))
}

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

pub(crate) fn send(pid: u32, signal: Signal) {
    assert!(try_send(pid, signal), "process {pid} is running");
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
        // Keeper first: it would start the others again, and they outlive it.
        let roles = children(self.keeper.id());
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        for (pid, _) in roles.into_iter().filter(|(pid, name)| argv0(*pid).as_ref() == Some(name)) {
            try_send(pid, Signal::KILL);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
