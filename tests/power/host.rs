//! The machine's side of the rig: loop devices, file systems, the shutdown of one, processes.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A file system that a round runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        }
    }
}

/// Runs a program; its output, or why there is none.
pub(crate) fn run(program: &str, words: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{program} {}: {}: {text}{said}", words.join(" "), output.status))
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("our own paths are text")
}

/// A mounted file system on a loop device over `backing`. Unmounted and detached on drop.
pub(crate) struct Mounted {
    pub(crate) kind: Kind,
    pub(crate) folder: PathBuf,
    device: Option<String>,
    mounted: bool,
}

impl Mounted {
    /// Makes a file system on `backing` and mounts it at `folder`.
    pub(crate) fn make(
        kind: Kind,
        backing: &Path,
        folder: &Path,
        direct: bool,
    ) -> Result<Self, String> {
        let mut mounted = Mounted::attach(kind, backing, folder, direct)?;
        let device = mounted.device.clone().expect("attached");
        // No discard: it is of no use here and takes time.
        match kind {
            Kind::Ext4 => run(
                "mkfs.ext4",
                &["-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", &device],
            )?,
            Kind::Xfs => run("mkfs.xfs", &["-q", "-f", "-K", &device])?,
        };
        mounted.mount()?;
        Ok(mounted)
    }

    /// Mounts what is on `backing`: replays the file system's own journal.
    pub(crate) fn again(
        kind: Kind,
        backing: &Path,
        folder: &Path,
        direct: bool,
    ) -> Result<Self, String> {
        let mut mounted = Mounted::attach(kind, backing, folder, direct)?;
        mounted.mount()?;
        Ok(mounted)
    }

    fn attach(kind: Kind, backing: &Path, folder: &Path, direct: bool) -> Result<Self, String> {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let way = if direct { "--direct-io=on" } else { "--direct-io=off" };
        let device = run("losetup", &["--find", "--show", way, path(backing)])?;
        let device = Some(device.trim().to_owned());
        Ok(Mounted { kind, folder: folder.to_owned(), device, mounted: false })
    }

    fn mount(&mut self) -> Result<(), String> {
        let device = self.device.as_deref().expect("attached");
        let options = match self.kind {
            // An error in metadata must show, not be passed over.
            Kind::Ext4 => "errors=remount-ro",
            Kind::Xfs => "nouuid",
        };
        run("mount", &["-t", self.kind.name(), "-o", options, device, path(&self.folder)])?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts and detaches. The last descriptor of a killed process may still be on its way out.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(20);
        while self.mounted {
            match run("umount", &[path(&self.folder)]) {
                Ok(_) => self.mounted = false,
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        if let Some(device) = self.device.take() {
            run("losetup", &["--detach", &device])?;
            // Detaching is lazy while somebody still looks at the device.
            let backing = format!("/sys/block/{}/loop", device.trim_start_matches("/dev/"));
            while Path::new(&backing).exists() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }

    /// Whether the file system itself is sound; call it unmounted, on the device's file.
    pub(crate) fn check(kind: Kind, backing: &Path) -> Result<(), String> {
        let device = run("losetup", &["--find", "--show", "--read-only", path(backing)])?;
        let device = device.trim();
        let found = match kind {
            Kind::Ext4 => run("e2fsck", &["-f", "-n", device]),
            Kind::Xfs => run("xfs_repair", &["-n", device]),
        };
        run("losetup", &["--detach", device])?;
        found.map(drop)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("power: {error}");
        }
    }
}

/// Shuts a file system down without flushing its journal, at once when told to: the ioctl of XFS,
/// which ext4 knows under the same number (XFS_IOC_GOINGDOWN, EXT4_IOC_SHUTDOWN, NOLOGFLUSH = 2).
/// A helper process holds the descriptor ready, so that the cut itself takes no time.
pub(crate) struct Shutdown {
    child: Child,
}

const SHUTDOWN: &str = "
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print('ready', flush=True)
sys.stdin.readline()
fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))
print('down', flush=True)
";

impl Shutdown {
    pub(crate) fn prepare(folder: &Path) -> Result<Self, String> {
        let child = Command::new("python3")
            .args(["-c", SHUTDOWN, path(folder)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("python3: {error}"))?;
        let mut shutdown = Shutdown { child };
        shutdown.line("ready")?;
        Ok(shutdown)
    }

    fn line(&mut self, wanted: &str) -> Result<(), String> {
        let mut line = String::new();
        let out = self.child.stdout.as_mut().expect("piped");
        // One byte at a time is enough for two words, and leaves nothing behind in a buffer.
        BufReader::with_capacity(1, out).read_line(&mut line).map_err(|error| error.to_string())?;
        if line.trim() == wanted {
            Ok(())
        } else {
            Err(format!("the shutdown helper did not say {wanted:?} but {line:?}"))
        }
    }

    pub(crate) fn cut(mut self) -> Result<(), String> {
        let input = self.child.stdin.as_mut().expect("piped");
        input.write_all(b"\n").map_err(|error| error.to_string())?;
        self.line("down")?;
        self.child.wait().map(drop).map_err(|error| error.to_string())
    }
}

/// Monotonic nanoseconds, the clock of the records' arrival.
pub(crate) fn mono() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Direct children of a process with their `argv[0]`.
pub(crate) fn children(parent: u32) -> Vec<(u32, String)> {
    let list = format!("/proc/{parent}/task/{parent}/children");
    let list = std::fs::read_to_string(list).unwrap_or_default();
    let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
    let named = |pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let first = line.split(|byte| *byte == 0).next()?.to_vec();
        Some((pid, String::from_utf8(first).ok()?))
    };
    pids.filter_map(named).collect()
}

/// Kills a process by its number; one that is gone already is no fault.
pub(crate) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Whether a process is there and no zombie.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    !matches!(state, None | Some('Z' | 'X'))
}

/// Waits until `found` has an answer.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut found: impl FnMut() -> Option<T>,
) -> Result<T, String> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = found() {
            return Ok(found);
        }
        if Instant::now() > end {
            return Err(format!("{what}: not within {limit:?}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
