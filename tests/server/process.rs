//! Processes of a `floortape serve` under test: its command, its children, signals to them.

use std::net::{TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) const MEDIA: &str = "floortape-media";
pub(crate) const CONTROL: &str = "floortape-control";

/// The binary under test: `FLOORTAPE`, else the one that cargo built.
pub(crate) fn binary() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_floortape"));
    std::env::var_os("FLOORTAPE").map_or_else(built, PathBuf::from)
}

/// An empty folder in `base`.
pub(crate) fn fresh_folder_in(base: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = base.join(format!("floortape-serve-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a temp folder");
    path
}

/// Media ports of [`command`], shared by parallel tests: keeper skips pairs that are taken.
pub(crate) const MEDIA_PORTS: RangeInclusive<u16> = 42_000..=45_999;

/// Ports for signalling: outside the range that the system lends to whoever asks for any (32768 and
/// more), since a server that has died comes back to the same one.
const SIP_PORTS: RangeInclusive<u16> = 5_000..=9_999;

/// A port of [`SIP_PORTS`] that was free for UDP and TCP a moment ago.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(SIP_PORTS.end() - SIP_PORTS.start()) + 1;
    // Processes that run beside each other begin in different places.
    let begin = std::process::id().wrapping_mul(61);
    for _ in 0..count {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = SIP_PORTS.start() + u16::try_from(number).expect("less than a port");
        if UdpSocket::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            return port;
        }
    }
    panic!("no port of {SIP_PORTS:?} is free");
}

pub(crate) fn command_of(binary: &Path, folder: &Path, port: u16) -> Command {
    let mut command = Command::new(binary);
    command.arg("serve");
    for set in [
        format!("store.dir={}", toml_text(&folder.join("store"))),
        format!("sip.udp=[\"127.0.0.1:{port}\"]"),
        format!("sip.tcp=[\"127.0.0.1:{port}\"]"),
        format!("media.ports={}-{}", MEDIA_PORTS.start(), MEDIA_PORTS.end()),
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

/// Whether there was such a process.
pub(crate) fn try_send(pid: u32, signal: Signal) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process number")).expect("not 0");
    kill_process(pid, signal).is_ok()
}

pub(crate) fn argv0(pid: u32) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(first).into_owned())
}

/// Direct children of `parent` with their `argv[0]`.
pub(crate) fn children(parent: u32) -> Vec<(u32, String)> {
    // Asked every millisecond while something is waited for: a look at every process of the machine
    // takes longer than that, and its time from what is measured.
    if let Ok(tasks) = std::fs::read_dir(format!("/proc/{parent}/task")) {
        let lists: Result<Vec<_>, _> = tasks
            .flatten()
            .map(|task| std::fs::read_to_string(task.path().join("children")))
            .collect();
        if let Ok(lists) = lists {
            let pids = lists.iter().flat_map(|list| list.split_whitespace());
            let pids = pids.filter_map(|pid| pid.parse().ok());
            return pids.filter_map(|pid| Some((pid, argv0(pid)?))).collect();
        }
    }
    // A kernel without these lists (CONFIG_PROC_CHILDREN).
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
