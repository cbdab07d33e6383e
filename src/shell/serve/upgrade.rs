//! Upgrade in mid-call (F09): keeper becomes the binary that now lies where it was started from. The
//! process stays the same, so a service manager notices nothing; what keeper holds goes through the
//! exec in a socket's queue, and the new image starts the roles again by the path that every death
//! takes. A new image that cannot go on becomes the old one again, whose executable is kept open.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::base::faults::faulty;
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
/// Environment: where newer binaries are looked for. An image that was replaced does not know any
/// more: the kernel calls its file deleted.
const PATH: &str = "FLOORTAPE_PATH";
/// All of these; no child inherits them.
pub const ENVIRONMENT: [&str; 5] = [ESTATE, IMAGE, VERSIONS, FROM, PATH];

/// A binary that starts at all says its version within milliseconds.
const PROBE_WAIT: Duration = Duration::from_secs(2);

/// What the image before us left.
pub struct Handed {
    estate: Option<OwnedFd>,
    image: Option<OwnedFd>,
    from: String,
    path: Option<PathBuf>,
    /// What `estate` can be read by.
    versions: String,
}

fn versions() -> String {
    // A build of other layouts.
    if faulty!("keeper.other_layouts") {
        return "none".to_owned();
    }
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
            path: std::env::var_os(PATH).filter(|path| !path.is_empty()).map(PathBuf::from),
            versions: text(VERSIONS),
        }
    }

    /// Whether we are new here and can still go back.
    pub const fn can_go_back(&self) -> bool {
        self.image.is_some()
    }

    /// Where the first image of this process was started from; `None` where that is ourselves.
    pub fn path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    /// Takes the queue; an error where its contents are of versions that we cannot read and an image
    /// before us can. With no way back they are left to the roles, who have all of it as well.
    pub fn take(&mut self) -> io::Result<Option<OwnedFd>> {
        if self.estate.is_some() && self.versions != versions() {
            let why = format!("{} wrote what we cannot read; we know {}", self.from, versions());
            if self.image.is_some() {
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
            tracing::error!("{why}; asking the roles");
            self.estate = None;
        }
        Ok(self.estate.take())
    }

    /// Becomes the image before again; comes back only where that fails, or where there is none.
    /// `estate`: the queue, if it was taken and filled again. Without one the image before takes over
    /// from the roles, as from those of a dead keeper.
    pub fn go_back(self, estate: Option<OwnedFd>, why: &str) {
        let Some(image) = self.image else { return };
        tracing::error!("going back to version {}: {why}", self.from);
        // What was never opened goes back as it came.
        let versions = if estate.is_some() { versions() } else { self.versions };
        let next = Next {
            path: &self.path.unwrap_or_default(),
            estate: estate.or(self.estate),
            versions,
            image: None,
            from: format!("{}, which did not start: {why}", own_version()),
        };
        let error = next.exec(Path::new(&format!("/proc/self/fd/{}", image.as_raw_fd())));
        tracing::error!("the version before cannot be started: {error}");
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

/// Whether `path` is a Floortape that runs here and understands our command line: a file that is
/// anything else must not take the place of a keeper. Returns its name and version.
pub fn probe(path: &Path) -> io::Result<String> {
    let said = ask(path, &["--version".into()])?;
    if !said.starts_with("floortape ") {
        return Err(io::Error::other("it is no floortape"));
    }
    // Help is given only where all before it was understood.
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    words.push("--help".into());
    ask(path, &words)?;
    Ok(said)
}

/// What a binary says on its standard output when it is asked something harmless.
fn ask(path: &Path, words: &[OsString]) -> io::Result<String> {
    let mut child = Command::new(path)
        .args(words)
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
                return Err(io::Error::other("it does not answer"));
            }
        }
    };
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut said)?;
    }
    if !status.success() {
        let question = words.last().map_or_else(String::new, |word| word.display().to_string());
        return Err(io::Error::other(format!("asked for {question} it ends with {status}")));
    }
    Ok(said.trim().to_owned())
}

/// Becomes the binary at `path` with our own arguments; returns only where that fails.
pub fn upgrade(path: &Path, estate: OwnedFd) -> io::Error {
    match std::fs::File::open("/proc/self/exe") {
        Ok(image) => {
            let image = Some(image.into());
            let versions = versions();
            Next { path, estate: Some(estate), versions, image, from: own_version() }.exec(path)
        }
        Err(error) => error,
    }
}

/// What the next image is told.
struct Next<'a> {
    path: &'a Path,
    estate: Option<OwnedFd>,
    versions: String,
    image: Option<OwnedFd>,
    from: String,
}

impl Next<'_> {
    /// Returns only where it fails.
    fn exec(&self, image: &Path) -> io::Error {
        let mut words = std::env::args_os();
        let name = words.next().unwrap_or_else(|| OsString::from("floortape"));
        let mut command = Command::new(image);
        command.arg0(name).args(words);
        for name in ENVIRONMENT {
            command.env_remove(name);
        }
        // What the service manager handed to the first image is its own by now, under other numbers.
        command.env_remove("LISTEN_PID").env_remove("LISTEN_FDS").env_remove("LISTEN_FDNAMES");
        command.env(VERSIONS, &self.versions).env(FROM, &self.from).env(PATH, self.path);
        for (name, fd) in [(ESTATE, &self.estate), (IMAGE, &self.image)] {
            let Some(fd) = fd else { continue };
            if let Err(error) = process::keep_on_exec(fd.as_fd()) {
                return error;
            }
            command.env(name, fd.as_raw_fd().to_string());
        }
        command.exec()
    }
}

/// Gives up, or goes back: the end of a start that failed before any role was started.
pub fn failed(handed: Handed, failure: Failure) -> Failure {
    let why = format!("{:#}", failure.error);
    handed.go_back(None, &why);
    failure
}
