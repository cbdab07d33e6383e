//! Upgrade in mid-call (F09): keeper becomes the binary that now lies where it was started from. The
//! process stays the same, so a service manager notices nothing; what keeper holds goes through the
//! exec in a socket's queue, and the new image starts the roles again by the path that every death
//! takes. A new image that cannot go on becomes the old one again, whose executable is kept open.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::host::process;
use crate::plane::handoff::frame::{self, Versions};
use crate::shell::exit::Failure;

/// Environment: the descriptor of the queue that holds everything.
const ESTATE: &str = "FLOORTAPE_FD_ESTATE";
/// Environment: the descriptor of the executable before, while there is a way back.
const IMAGE: &str = "FLOORTAPE_FD_IMAGE";
/// Environment: what the queue's contents can be read by.
const VERSIONS: &str = "FLOORTAPE_VERSIONS";
/// Environment: who we were before; for the log.
const FROM: &str = "FLOORTAPE_FROM";
/// All of these; no child inherits them.
pub const ENVIRONMENT: [&str; 4] = [ESTATE, IMAGE, VERSIONS, FROM];

/// A binary that starts at all says its version within milliseconds.
const PROBE_WAIT: Duration = Duration::from_secs(2);

/// What the image before us left.
pub struct Handed {
    estate: Option<OwnedFd>,
    image: Option<OwnedFd>,
    from: String,
    readable: bool,
}

fn versions() -> String {
    format!("frames {}, {}", frame::VERSION, Versions::OURS)
}

fn own_version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

impl Handed {
    /// Takes what the environment names, once in the life of a process.
    pub fn inherit() -> Self {
        let text = |name| std::env::var(name).unwrap_or_default();
        Handed {
            estate: process::inherited(ESTATE),
            image: process::inherited(IMAGE),
            from: text(FROM),
            readable: text(VERSIONS) == versions(),
        }
    }

    /// Whether we are new here and can still go back.
    pub const fn can_go_back(&self) -> bool {
        self.image.is_some()
    }

    /// Takes the queue; an error where its contents are of versions that we cannot read.
    pub fn take(&mut self) -> io::Result<Option<OwnedFd>> {
        if self.estate.is_some() && !self.readable {
            let why = format!("{} wrote what we cannot read; we know {}", self.from, versions());
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        Ok(self.estate.take())
    }

    /// Becomes the image before again; returns only where that fails, or where there is none.
    /// `estate`: the queue, if it was taken and filled again.
    pub fn go_back(self, estate: Option<OwnedFd>, why: &str) -> Option<io::Error> {
        let image = self.image?;
        let estate = estate.or(self.estate)?;
        tracing::error!("going back to version {}: {why}", self.from);
        let path = format!("/proc/self/fd/{}", image.as_raw_fd());
        let from = format!("{}, which did not start: {why}", own_version());
        let error = exec(Path::new(&path), &estate, None, &from);
        tracing::error!("the version before cannot be started: {error}");
        Some(error)
    }

    /// The new image works: the way back ends here.
    pub fn settle(&mut self) {
        if self.image.take().is_some() {
            tracing::warn!("upgraded: version {} took over from {}", own_version(), self.from);
        } else if !self.from.is_empty() {
            tracing::warn!("went back: version {} took over from {}", own_version(), self.from);
        }
        self.from.clear();
    }
}

/// Whether `path` is a Floortape that runs here: a file that is anything else must not take the place
/// of a keeper.
pub fn probe(path: &Path) -> io::Result<String> {
    let mut child = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + PROBE_WAIT;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::Error::other("it does not answer --version"));
            }
        }
    };
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut said)?;
    }
    let said = said.trim().to_owned();
    if !status.success() || !said.starts_with("floortape ") {
        return Err(io::Error::other("it is no floortape that runs on this machine"));
    }
    Ok(said)
}

/// Becomes the binary at `path` with our own arguments; returns only where that fails.
pub fn upgrade(path: &Path, estate: &OwnedFd) -> io::Error {
    match std::fs::File::open("/proc/self/exe") {
        Ok(image) => exec(path, estate, Some(&image.into()), &own_version()),
        Err(error) => error,
    }
}

fn exec(path: &Path, estate: &OwnedFd, image: Option<&OwnedFd>, from: &str) -> io::Error {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_else(|| OsString::from("floortape"));
    let mut command = Command::new(path);
    command.arg0(name).args(words).env_remove(IMAGE);
    // What the service manager handed to the first image is its own by now, under other numbers.
    command.env_remove("LISTEN_PID").env_remove("LISTEN_FDS").env_remove("LISTEN_FDNAMES");
    command.env(VERSIONS, versions()).env(FROM, from);
    for (name, fd) in [(ESTATE, Some(estate)), (IMAGE, image)] {
        let Some(fd) = fd else { continue };
        if let Err(error) = process::keep_on_exec(fd.as_fd()) {
            return error;
        }
        command.env(name, fd.as_raw_fd().to_string());
    }
    command.exec()
}

/// Gives up, or goes back: the end of a start that failed before anything was taken.
pub fn failed(handed: Handed, failure: Failure) -> Failure {
    let why = format!("{:#}", failure.error);
    handed.go_back(None, &why);
    failure
}
