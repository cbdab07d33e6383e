//! Children of keeper: the same binary under another `argv[0]`, one link as standard input; and what
//! the service manager, or an older image of this process, hands to keeper.
#![expect(unsafe_code, reason = "inherited descriptors are numbers until somebody claims them")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child as StdChild, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, pidfd_open, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Tells the kernel that nobody here reads a file in order, wherever in this process it is open: an engine
/// opens its files itself. Only advice: whatever comes of it, the bytes are the same.
pub fn advise_random(path: &Path) {
    let Ok(wanted) = std::fs::metadata(path) else { return };
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    for entry in open.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        let is_it = std::fs::metadata(entry.path())
            .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()));
        if let Some(number) = number.filter(|_| is_it) {
            // JUSTIFICATION: the descriptor is SQLite's; a copy of it, once closed, would take its locks.
            // SAFETY: the call takes a number and touches no memory; one that was closed since is refused,
            // or names a file that is then read page by page.
            unsafe { libc::posix_fadvise(number, 0, 0, libc::POSIX_FADV_RANDOM) };
        }
    }
}

/// A running child. Dropping it neither ends nor reaps it.
#[derive(Debug)]
pub struct Child {
    child: StdChild,
    pidfd: OwnedFd,
}

impl Child {
    /// Starts this very binary as `name` (its `argv[0]`) with `link` as standard input.
    ///
    /// It stands in a process group of its own, so that ^C in a terminal reaches keeper first.
    /// `/proc/self/exe` names the running binary even when its file was replaced meanwhile.
    /// `without`: names of the environment that it does not get.
    pub fn start(name: &str, link: OwnedFd, without: &[&str]) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        for name in without {
            command.env_remove(name);
        }
        let child = command
            .arg0(name)
            .process_group(0)
            .stdin(Stdio::from(link))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("the kernel gives children positive numbers");
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Child { child, pidfd })
    }

    /// Process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reaps the child if it has ended. Only this proves its death: a closed link does not (kill
    /// protocol, pitfall 5).
    pub fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Kills it (SIGKILL); reap afterwards.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }
}

impl AsFd for Child {
    /// Readable once the child has ended (pidfd_open(2)).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Makes this process the last that gets anything: time, the disk, memory. It has no privilege beside its user,
/// and does not outlive whoever started it. Each of these is asked for and none is insisted on.
pub fn stand_back() {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = rustix::process::setpriority_process(None, 19);
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let idle = 3 << IOPRIO_CLASS_SHIFT;
    // SAFETY: ioprio_set(2) takes three numbers and touches no memory of ours; 0 means this process.
    // JUSTIFICATION: neither the standard library nor rustix has this call.
    let _ = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, idle) };
    // Root reads others' files by what it would lose.
    if !rustix::process::geteuid().is_root() {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        let _ = rustix::thread::set_capabilities(None, sets);
    }
}

/// Takes back that this process ends with whoever started it.
pub fn outlive() {
    let _ = rustix::process::set_parent_process_death_signal(None);
}

/// ioprio_set(2): a process; where a class stands in the priority. Class 3 is idle.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
const IOPRIO_CLASS_SHIFT: libc::c_int = 13;

/// Takes the link that keeper gave us as standard input, and leaves `/dev/null` there.
pub fn inherited_link() -> io::Result<OwnedFd> {
    let link = io::stdin().as_fd().try_clone_to_owned()?;
    // A descriptor that is no socket means that somebody else started us.
    rustix::net::sockopt::socket_type(&link)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(link)
}

/// First number of the descriptors that a service manager hands over (sd_listen_fds(3)).
const LISTEN_FIRST: RawFd = 3;

/// The descriptors that a service manager has handed to this process (sd_listen_fds(3)), closed on
/// exec from now on. Empty without a manager, and from the second call on.
///
/// Call it before anything else opens descriptors.
pub fn handed_over() -> Vec<OwnedFd> {
    static CLAIMED: AtomicBool = AtomicBool::new(false);
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    // The variables are the children's as well, to whom nothing was handed.
    if number("LISTEN_PID") != Some(std::process::id()) || CLAIMED.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").and_then(|count| RawFd::try_from(count).ok()).unwrap_or(0);
    let claim = |fd| {
        // SAFETY: sd_listen_fds(3) gives these numbers to this process, and `CLAIMED` lets them be
        // claimed once. A number that is not open fails in the first call and is left alone.
        // JUSTIFICATION: there is no safe way to own a descriptor that is known by number only.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC).ok()?;
        // SAFETY: as above; just found to be open.
        // JUSTIFICATION: as above.
        Some(unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) })
    };
    (LISTEN_FIRST..LISTEN_FIRST.saturating_add(count)).filter_map(claim).collect()
}

/// The threads of a process with what they do, for an alarm: `worker-0 S poll_schedule_timeout`.
/// State D waits for a device and cannot be killed (proc(5)).
pub fn threads(pid: u32) -> String {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return "gone".to_owned();
    };
    let describe = |path: std::path::PathBuf| {
        let read = |name| std::fs::read_to_string(path.join(name)).unwrap_or_default();
        let stat = read("stat");
        let state = stat.rsplit_once(')').and_then(|(_, after)| after.split_whitespace().next());
        format!("{} {} {}", read("comm").trim(), state.unwrap_or("?"), read("wchan").trim())
    };
    let threads: Vec<_> = entries.flatten().map(|entry| describe(entry.path())).collect();
    threads.join(", ")
}

/// Lets a descriptor live through the next exec of this process.
pub fn keep_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, FdFlags::empty())?)
}

/// The descriptor whose number the environment gives under `name`: one that an earlier image of this
/// process kept on exec. `None` where there is none, and on every call after the first.
pub fn inherited(name: &'static str) -> Option<OwnedFd> {
    static TAKEN: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().expect("nobody panics while it is held");
    if taken.contains(&name) {
        return None;
    }
    taken.push(name);
    let number: RawFd = std::env::var(name).ok()?.parse().ok().filter(|number| *number > 2)?;
    // A number that the environment made up names nothing, or what we do not know.
    std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).ok()?;
    // SAFETY: the descriptor is open, as just seen, above the standard three, and came through exec:
    // nothing in this image owns it, since `inherit` is called before this process opens anything
    // that it keeps, and `TAKEN` gives each name once.
    // JUSTIFICATION: a descriptor that came through exec has no owner that a safe function could ask.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// Forbids core files for us and our children: they would hold keys.
pub fn forbid_cores() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Has what is freed go back to the system at once where it is large. Of its own glibc learns from each
/// large piece to keep twice as much, in every arena: after one compaction of a journal that is more
/// than all that is in use. Called before there are threads.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    {
        /// Files that are read whole, not the buffers of a turn, which would cost two system calls each.
        const LARGE_BYTES: i32 = 256 * 1024;
        for option in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
            // SAFETY: takes two numbers and changes nothing but where later pieces come from; what it
            // does not know it refuses.
            // JUSTIFICATION: there is no safe way to say it to an allocator.
            unsafe { libc::mallopt(option, LARGE_BYTES) };
        }
    }
}

/// Lets the other threads of this process, and everybody else, go first. Without effect where the kernel
/// refuses it.
pub fn give_way() {
    // setpriority(2): of the calling thread, on Linux.
    let _ = rustix::process::setpriority_process(None, 10);
}

/// The same for the disk: the calling thread reads when nobody else does. Without effect where the
/// scheduler of the disk knows no such class.
pub fn give_way_on_disk() {
    /// ioprio_set(2): of one thread, and the class that waits for all others.
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3 << 13;
    // SAFETY: takes three numbers; 0 is the calling thread.
    // JUSTIFICATION: neither libc nor rustix wraps ioprio_set(2).
    let _ = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE) };
}

/// Gives back what is free between what is in use: pieces of many that came and went together. Each arena
/// is locked while it is looked through, some milliseconds for 100 MiB.
pub fn trim_memory() {
    // SAFETY: takes a number, and touches nothing that is in use.
    // JUSTIFICATION: there is no safe way to say it to an allocator.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Makes `name` our `argv[0]`, in the place of one of the same length: who looks for us by it finds us
/// under the role that we play now.
pub fn rename_self(name: &str) -> io::Result<()> {
    name_self(name);
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let words = std::fs::read("/proc/self/cmdline")?;
    if words.iter().position(|byte| *byte == 0) != Some(name.len()) {
        return Err(wrong("the name that we have is of another length"));
    }
    // proc_pid_stat(5): field 48 is the address of the words; the first after the name is field 3.
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' '));
    let start = fields.and_then(|mut fields| fields.nth(48 - 3)?.parse::<u64>().ok());
    let start =
        start.filter(|start| *start != 0).ok_or_else(|| wrong("no address of the words"))?;
    std::fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/mem")?
        .write_all_at(name.as_bytes(), start)
}

/// Shows `name` in process lists; without it the kernel would say `exe`.
pub fn name_self(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
}
