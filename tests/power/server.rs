//! `floortape serve` and those who use it, as processes that a power cut takes.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::host::{alive, children, kill, mono, until};
use crate::ring::{Copy, Follower};

/// Lines that a child says on standard error.
type Said = Arc<Mutex<Vec<String>>>;

fn listen(child: &mut Child) -> Said {
    let said = Said::default();
    let lines = said.clone();
    let stderr = BufReader::new(child.stderr.take().expect("piped"));
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            lines.lock().expect("no panic while held").push(line);
        }
    });
    said
}

fn heard(said: &Said, begins: &str) -> bool {
    said.lock().expect("no panic while held").iter().any(|line| line.starts_with(begins))
}

/// A running server. Killed on drop.
pub(crate) struct Server {
    keeper: Child,
    said: Said,
    begun: Instant,
    follower: Option<Follower>,
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Result<Self, String> {
        let begun = Instant::now();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut keeper = command.spawn().map_err(|error| format!("serve: {error}"))?;
        let said = listen(&mut keeper);
        Ok(Server { keeper, said, begun, follower: None })
    }

    pub(crate) fn lines(&self) -> String {
        self.said.lock().expect("no panic while held").join("\n")
    }

    /// Follows the rings as soon as there are any.
    fn attach(&mut self) -> bool {
        if self.follower.is_none() {
            let media = children(self.keeper.id());
            let media = media.into_iter().find(|(_, name)| name == "floortape-media");
            self.follower = media.and_then(|(pid, _)| Follower::attach(pid));
        }
        self.follower.is_some()
    }

    /// Lets it start for `time` at most, whatever it comes to.
    pub(crate) fn run_for(&mut self, time: Duration) {
        while self.begun.elapsed() < time {
            self.attach();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until it is ready; how long that took.
    pub(crate) fn ready(&mut self) -> Result<Duration, String> {
        let limit = Duration::from_secs(15);
        while !self.attach() || !heard(&self.said, "ready") {
            let ended = self.keeper.try_wait().ok().flatten();
            if ended.is_some() || self.begun.elapsed() > limit {
                return Err(format!("serve is not ready ({ended:?}):\n{}", self.lines()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(self.begun.elapsed())
    }

    /// The durable marks at this instant, by worker; none where nothing is followed yet.
    pub(crate) fn durable(&self) -> Vec<(u32, u64)> {
        self.follower.as_ref().map_or_else(Vec::new, Follower::durable)
    }

    /// What a cut now may take at most, ns; before there is any memory, nothing.
    pub(crate) fn exposed(&self, interval_ns: u64) -> u64 {
        self.follower.as_ref().map_or(interval_ns, |one| one.exposed(interval_ns, mono()))
    }

    pub(crate) fn follower(&self) -> &Follower {
        self.follower.as_ref().expect("attached before it is ready")
    }

    /// Kills all of it at once and returns what its rings held.
    pub(crate) fn kill(mut self) -> Result<Vec<Copy>, String> {
        let keeper = self.keeper.id();
        // Stopped first, so that it starts no successor behind our back.
        let pid = Pid::from_raw(keeper as i32).expect("a process number");
        let _ = kill_process(pid, Signal::STOP);
        let roles = children(keeper);
        // A life that was cut short may have written before we looked.
        self.attach();
        kill(keeper);
        for (pid, _) in &roles {
            kill(*pid);
        }
        self.keeper.wait().map_err(|error| error.to_string())?;
        until("the end of the roles", Duration::from_secs(20), || {
            roles.iter().all(|(pid, _)| !alive(*pid)).then_some(())
        })?;
        Ok(self.follower.take().map_or_else(Vec::new, Follower::end))
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) -> Result<Vec<Copy>, String> {
        let pid = Pid::from_raw(self.keeper.id() as i32).expect("a process number");
        let limit = Duration::from_secs(20);
        // The second asks not to wait for calls that are still up.
        for _ in 0..2 {
            kill_process(pid, Signal::TERM).map_err(|error| format!("SIGTERM: {error}"))?;
            std::thread::sleep(Duration::from_millis(50));
            if let Ok(Some(_)) = self.keeper.try_wait() {
                break;
            }
        }
        let status = until("the end of serve", limit, || self.keeper.try_wait().ok().flatten())?;
        if !status.success() {
            return Err(format!("serve ended with {status}:\n{}", self.lines()));
        }
        Ok(self.follower.take().map_or_else(Vec::new, Follower::end))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.keeper.try_wait() {
            for (pid, _) in children(self.keeper.id()) {
                kill(pid);
            }
            let _ = self.keeper.kill();
            let _ = self.keeper.wait();
        }
    }
}

/// Exit code of a call that got 503.
const TRY_AGAIN: i32 = 75;
/// What [`Load::sending`] says then.
pub(crate) const REFUSED: &str = "src call was refused with 503";

/// `floortape src call` at work. Killed on drop: its calls end with the power.
pub(crate) struct Load {
    child: Child,
    said: Said,
}

impl Load {
    pub(crate) fn start(binary: &Path, port: u16, streams: u32, seed: u64) -> Result<Self, String> {
        let mut child = Command::new(binary)
            .args(["src", "call", "--numbered", "--json", "--duration=600"])
            .arg(format!("--streams={streams}"))
            .arg(format!("--seed={seed}"))
            .arg(format!("--to=sip:srs@127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("src call: {error}"))?;
        let said = listen(&mut child);
        Ok(Load { child, said })
    }

    pub(crate) fn sending(&mut self) -> Result<(), String> {
        let limit = Duration::from_secs(20);
        until("src call sending", limit, || {
            let ended = self.child.try_wait().ok().flatten().is_some();
            (ended || heard(&self.said, "sending")).then_some(())
        })?;
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            // Its last words may still be on their way to the thread that reads them.
            Ok(Some(status)) if status.code() == Some(TRY_AGAIN) => Err(REFUSED.to_owned()),
            _ => {
                let said = self.said.lock().expect("no panic while held").join("\n");
                Err(format!("src call ended early:\n{said}"))
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a verb; exit code, standard output, standard error.
pub(crate) fn verb(binary: &Path, words: &[&str]) -> Result<(i32, String, String), String> {
    let mut child = Command::new(binary)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{words:?}: {error}"))?;
    let said = listen(&mut child);
    let mut out = String::new();
    child
        .stdout
        .take()
        .expect("piped")
        .read_to_string(&mut out)
        .map_err(|error| format!("{words:?}: {error}"))?;
    let status = child.wait().map_err(|error| format!("{words:?}: {error}"))?;
    let said = said.lock().expect("no panic while held").join("\n");
    Ok((status.code().unwrap_or(-1), out, said))
}
