//! The server under test: started, killed by role, started again, asked to end.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::copy::copy_program;
use super::options::Options;
use super::process::{
    CONTROL, MEDIA, binary, children, command_of, free_port, toml_text, try_send,
};

/// Patience with a machine that does other things as well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A process of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Keeper,
    Media,
    Control,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Keeper => "keeper",
            Role::Media => "media",
            Role::Control => "control",
        }
    }
}

/// A running server with the folder of its store. Ended, with all that is its, on drop.
pub(crate) struct Recorder {
    keeper: Child,
    /// Roles whose keeper died: they are ours now, as we are a subreaper.
    orphans: Vec<u32>,
    said: Arc<Mutex<Vec<String>>>,
    start: Start,
    /// What is started: a copy of its own where builds change.
    image: PathBuf,
}

/// How it is started, each time.
struct Start {
    words: Vec<String>,
    faults: Option<String>,
    nice: Option<i64>,
    folder: PathBuf,
    port: u16,
    kek: Option<PathBuf>,
}

impl Recorder {
    /// Starts a server on an empty store in `folder`; returns once it is ready.
    pub(crate) fn start(options: &Options, folder: &Path, more: &[&str]) -> Result<Self, String> {
        let port = loop {
            let port = free_port();
            let own = options.ports.split_once('-').map(|(from, to)| (from.parse(), to.parse()));
            if !matches!(own, Some((Ok(from), Ok(to))) if (from..=to).contains(&port)) {
                break port;
            }
        };
        let mut words = vec![
            format!("media.streams_max={}", options.streams + options.dialogs),
            format!("media.ports={}", options.ports),
        ];
        if options.workers > 0 {
            words.push(format!("cpu.workers={}", options.workers));
        }
        if options.xdp {
            words.extend(["media.engine=\"xdp\"", "media.interface=\"lo\""].map(str::to_owned));
        }
        words.extend(more.iter().map(|word| (*word).to_owned()));
        let kek = options.encrypted.then(|| folder.join("kek"));
        if let Some(kek) = &kek {
            let made = Command::new(binary()).args(["kek", "make"]).arg(kek).output();
            let made = made.map_err(|error| error.to_string())?;
            if !made.status.success() {
                return Err(format!("kek make: {}", String::from_utf8_lossy(&made.stderr)));
            }
            words.push(format!("store.encryption={}", toml_text(kek)));
        }
        let said = Arc::new(Mutex::new(Vec::new()));
        let faults = options.faults.clone();
        let mut image = binary();
        if options.other.is_some() {
            let own = folder.join("floortape");
            copy_program(&image, &own);
            image = own;
        }
        let (nice, folder) = (options.nice, folder.to_owned());
        let start = Start { words, faults, nice, folder, port, kek };
        let keeper = start.spawn(&image, &said);
        let mut recorder = Recorder { keeper, orphans: Vec::new(), said, start, image };
        recorder.readies(1)?;
        Ok(recorder)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.start.folder
    }

    pub(crate) fn port(&self) -> u16 {
        self.start.port
    }

    /// Waits until "ready" has been said so often.
    fn readies(&mut self, count: usize) -> Result<(), String> {
        self.until("ready", |own| {
            let ready = |line: &&String| line.starts_with("ready");
            (own.lines().iter().filter(ready).count() >= count).then_some(())
        })
    }

    /// Asks `found` again and again until it has an answer. Fails once keeper has ended by itself.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut found: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.reap_orphans();
            if let Some(answer) = found(self) {
                return Ok(answer);
            }
            if Instant::now() > deadline {
                return Err(format!("{what}: not within {PATIENCE:?}; {}", self.tail()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.said.lock().expect("no panic while held").clone()
    }

    /// Where it said that the gaps of its workers went.
    pub(crate) fn gaps(&self) -> Vec<String> {
        let from = |line: &String| Some(line[line.find("receives again after")?..].to_owned());
        self.lines().iter().filter_map(from).collect()
    }

    /// The last it said.
    pub(crate) fn tail(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(12)..].join("\n    ")
    }

    /// The process that plays the role now.
    pub(crate) fn process(&mut self, role: Role) -> Option<u32> {
        let name = match role {
            Role::Keeper => {
                return matches!(self.keeper.try_wait(), Ok(None)).then(|| self.keeper.id());
            }
            Role::Media => MEDIA,
            Role::Control => CONTROL,
        };
        let named = |parent| children(parent).into_iter().find(|(_, own)| own == name);
        named(self.keeper.id()).or_else(|| named(std::process::id())).map(|(pid, _)| pid)
    }

    /// Kills those roles at once: their process numbers and when, monotonic ns.
    pub(crate) fn kill(&mut self, roles: &[Role]) -> Result<(Vec<u32>, u64), String> {
        let mut victims = Vec::new();
        for role in roles {
            victims.push(self.until(role.name(), |own| own.process(*role))?);
        }
        if roles.contains(&Role::Keeper) {
            self.orphans.extend(children(self.keeper.id()).into_iter().map(|(pid, _)| pid));
        }
        let at = monotonic_ns();
        for pid in &victims {
            try_send(*pid, Signal::KILL);
        }
        if roles.contains(&Role::Keeper) {
            let _ = self.keeper.wait();
        }
        Ok((victims, at))
    }

    /// Sends a role a signal: its process number and when, monotonic ns.
    pub(crate) fn signal(&mut self, role: Role, signal: Signal) -> Result<(u32, u64), String> {
        let pid = self.until(role.name(), |own| own.process(role))?;
        let at = monotonic_ns();
        try_send(pid, signal);
        Ok((pid, at))
    }

    /// A new `serve` on the same store.
    pub(crate) fn serve_again(&mut self) -> Result<(), String> {
        let ready = |line: &&String| line.starts_with("ready");
        let before = self.lines().iter().filter(ready).count();
        self.keeper = self.start.spawn(&self.image, &self.said);
        self.readies(before + 1)
    }

    /// Puts another build in the place of the one that runs, as a package manager does, and asks
    /// keeper to become it; waits until it says `outcome` once more. When it was asked.
    pub(crate) fn becomes(&mut self, build: &Path, outcome: &str) -> Result<u64, String> {
        let fresh = self.image.with_extension("new");
        copy_program(build, &fresh);
        std::fs::rename(&fresh, &self.image).map_err(|error| error.to_string())?;
        let count = |own: &Self| own.lines().iter().filter(|l| l.contains(outcome)).count();
        let before = count(self);
        let at = monotonic_ns();
        try_send(self.keeper.id(), Signal::USR2);
        self.until(outcome, |own| (count(own) > before).then_some(()))?;
        Ok(at)
    }

    /// Waits until another process plays the role.
    pub(crate) fn succeeds(&mut self, role: Role, before: u32) -> Result<u32, String> {
        let what = format!("a successor of {}", role.name());
        let deadline = Instant::now() + PATIENCE;
        // Seldom: whoever looks takes time from those who die and start.
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            self.reap_orphans();
            if let Some(pid) = self.process(role).filter(|pid| *pid != before) {
                return Ok(pid);
            }
        }
        Err(format!("{what}: not within {PATIENCE:?}; {}", self.tail()))
    }

    fn reap_orphans(&mut self) {
        self.orphans.retain(|pid| {
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
            !matches!(waitpid(pid, WaitOptions::NOHANG), Ok(Some(_)) | Err(_))
        });
    }

    /// How long signalling takes to answer OPTIONS from now on, ms.
    pub(crate) fn answers_options(&mut self) -> Result<f64, String> {
        let begin = Instant::now();
        let socket = UdpSocket::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let local = socket.local_addr().map_err(|error| error.to_string())?;
        let _ = socket.set_read_timeout(Some(Duration::from_millis(5)));
        let port = self.start.port;
        let mut asked = 0;
        self.until("an answer to OPTIONS", |_| {
            asked += 1;
            let request = format!(
                "OPTIONS sip:srs@127.0.0.1:{port} SIP/2.0\r\n\
                 Via: SIP/2.0/UDP {local};branch=z9hG4bK{asked}.{}\r\nMax-Forwards: 70\r\n\
                 From: <sip:kill@{local}>;tag=1\r\nTo: <sip:srs@127.0.0.1:{port}>\r\n\
                 Call-ID: {}@{local}\r\nCSeq: {asked} OPTIONS\r\nContent-Length: 0\r\n\r\n",
                local.port(),
                monotonic_ns(),
            );
            let _ = socket.send_to(request.as_bytes(), ("127.0.0.1", port));
            let mut answer = [0; 2_048];
            socket.recv(&mut answer).ok().filter(|_| answer.starts_with(b"SIP/2.0 "))
        })?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }

    /// A verb on the store.
    pub(crate) fn verb(&self, words: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(words).arg("--store").arg(self.store());
        if let Some(kek) = self.kek() {
            command.arg("--kek").arg(kek);
        }
        command.env_remove("FLOORTAPE_FAULTS").output().expect("the binary is built")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.start.folder.join("store")
    }

    /// The key-encryption key, where the store is encrypted.
    pub(crate) fn kek(&self) -> Option<&Path> {
        self.start.kek.as_deref()
    }

    /// What `ls --json` lists once every recording has ended and is durable.
    pub(crate) fn ended(&mut self) -> Result<Vec<Value>, String> {
        self.until("the end of all recordings", |own| {
            let listed = own.verb(&["ls", "--json"]);
            // A list that fails lists nothing, and of nothing all is over.
            if !listed.status.success() {
                let why = String::from_utf8_lossy(&listed.stderr).into_owned();
                return Some(Err(format!("ls says {}: {why}", listed.status)));
            }
            let listed: Vec<Value> = String::from_utf8_lossy(&listed.stdout)
                .lines()
                .map_while(|line| serde_json::from_str(line).ok())
                .collect();
            let over =
                |one: &Value| one["state"] == "ended" && one["durable_through"] == one["end"];
            listed.iter().all(over).then_some(Ok(listed))
        })?
    }

    /// Asks it to end, twice, and waits for it.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        for _ in 0..2 {
            try_send(self.keeper.id(), Signal::TERM);
        }
        let status = self.until("the end of keeper", |own| own.keeper.try_wait().ok().flatten())?;
        match status.code() {
            Some(0) => Ok(()),
            _ => Err(format!("keeper ended with {status}; {}", self.tail())),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let mut roles = children(self.keeper.id());
        roles.extend(children(std::process::id()));
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        for (pid, _) in roles.into_iter().filter(|(_, name)| [MEDIA, CONTROL].contains(&&**name)) {
            try_send(pid, Signal::KILL);
            self.orphans.push(pid);
        }
        let end = Instant::now() + Duration::from_secs(5);
        while !self.orphans.is_empty() && Instant::now() < end {
            self.reap_orphans();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Start {
    fn spawn(&self, image: &Path, said: &Arc<Mutex<Vec<String>>>) -> Child {
        let mut command = command_of(image, &self.folder, self.port);
        if let Some(nice) = self.nice {
            // It becomes the server: the same process.
            let mut niced = Command::new("nice");
            niced.arg("-n").arg(nice.to_string()).arg(image).args(command.get_args());
            niced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            command = niced;
        }
        for word in &self.words {
            command.args(["--set", word]);
        }
        let faults = self.faults.as_deref();
        command.env_remove("FLOORTAPE_FAULTS").envs(faults.map(|plan| ("FLOORTAPE_FAULTS", plan)));
        let mut keeper = command.spawn().expect("the binary is built");
        let stderr = BufReader::new(keeper.stderr.take().expect("piped"));
        let lines = Arc::clone(said);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().expect("no panic while held").push(line);
            }
        });
        keeper
    }
}

/// CLOCK_MONOTONIC, as the records on disk have it.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec * 1_000_000_000 + now.tv_nsec) as u64
}
