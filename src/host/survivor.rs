//! A process that our predecessor left behind: told apart from whoever has its number today, ended,
//! and waited for. Only its end, not a closed link, lets its successor begin (kill protocol,
//! pitfall 5).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

/// A process by number and start time, as text: `1234 567890`.
pub fn mark(pid: u32) -> io::Result<String> {
    let stat = Stat::read(pid)?;
    Ok(format!("{pid} {}", stat.started))
}

/// Whether a process of that number lives: a zombie does not.
pub fn lives(pid: u32) -> bool {
    Stat::read(pid).is_ok_and(|stat| !stat.ended)
}

/// A living process that a [`mark`] names.
#[derive(Debug)]
pub struct Survivor {
    pid: u32,
    pidfd: OwnedFd,
}

impl Survivor {
    /// The process, if it is the one that was marked and lives.
    pub fn find(mark: &str) -> Option<Self> {
        let (pid, started) = mark.trim().split_once(' ')?;
        let pid: u32 = pid.parse().ok()?;
        let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
        // Opened before it is looked at: from here on the number stays with this process.
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).ok()?;
        let stat = Stat::read(pid).ok()?;
        (stat.started == started && !stat.ended).then_some(Survivor { pid, pidfd })
    }

    /// All living processes that go by `name` (their `argv[0]`) and hold `file` open: who they are
    /// without a mark, which a full disk may not have taken. Processes whose descriptors we may not
    /// see are left out.
    pub fn holding(name: &str, file: &Path) -> io::Result<Vec<Self>> {
        Self::holding_where(file, |found| found == name.as_bytes())
    }

    /// The same of all others: who goes by none of `names` and is not ourselves.
    pub fn holding_besides(names: &[&str], file: &Path) -> io::Result<Vec<Self>> {
        let known = |found: &[u8]| names.iter().any(|name| name.as_bytes() == found);
        let mut all = Self::holding_where(file, |found| !known(found))?;
        all.retain(|one| one.pid != std::process::id());
        Ok(all)
    }

    fn holding_where(file: &Path, is_meant: impl Fn(&[u8]) -> bool) -> io::Result<Vec<Self>> {
        let wanted = std::fs::metadata(file)?;
        let is_wanted = |link: PathBuf| {
            // Sockets and memory are thousands, and no files: their names tell.
            std::fs::read_link(&link).is_ok_and(|target| target.is_absolute())
                && std::fs::metadata(&link)
                    .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if !words.split(|byte| *byte == 0).next().is_some_and(&is_meant) {
                continue;
            }
            let Some(survivor) = mark(pid).ok().and_then(|mark| Self::find(&mark)) else {
                continue;
            };
            let Ok(open) = std::fs::read_dir(entry.path().join("fd")) else { continue };
            if open.flatten().any(|fd| is_wanted(fd.path())) {
                found.push(survivor);
            }
        }
        Ok(found)
    }

    /// Its number.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills it and waits until it is gone; false where it is not within `limit` (state D).
    pub fn end(&self, limit: Duration) -> io::Result<bool> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Ours to reap where this process was its parent under another image.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
        Ok(true)
    }
}

/// What `/proc/PID/stat` says (proc(5)).
struct Stat {
    /// Field 22: start time after boot, clock ticks.
    started: String,
    /// Field 3: zombie or dead.
    ended: bool,
}

impl Stat {
    fn read(pid: u32) -> io::Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in brackets may hold anything, brackets and blanks too.
        let after = text.rsplit_once(')').map_or("", |(_, after)| after);
        let mut fields = after.split_whitespace();
        let ended = matches!(fields.next(), Some("Z" | "X" | "x") | None);
        let started = fields.nth(18).unwrap_or("").to_owned();
        Ok(Stat { started, ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    fn a_marked_process_is_found_ended_and_gone() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep is there");
        let mark = mark(child.id()).expect("it lives");
        assert!(lives(child.id()));
        let other = format!("{} 1", child.id());
        assert!(Survivor::find(&other).is_none(), "another process had that number");
        let survivor = Survivor::find(&mark).expect("it lives");
        assert_eq!(survivor.pid(), child.id());
        assert!(survivor.end(Duration::from_secs(5)).expect("ours"));
        assert!(Survivor::find(&mark).is_none());
        // Reaped already; the handle only has to be put away.
        let _ = child.wait();
    }

    #[test]
    fn a_process_is_found_by_its_name_and_the_file_that_it_holds() {
        let path = std::env::temp_dir().join(format!("floortape-held-{}", std::process::id()));
        let file = std::fs::File::create(&path).expect("a temp folder");
        let name = format!("holder-{}", std::process::id());
        let sleep = |stdin: Stdio| {
            Command::new("sleep").arg0(&name).arg("60").stdin(stdin).spawn().expect("it is there")
        };
        let mut holder = sleep(Stdio::from(file));
        let mut other = sleep(Stdio::null());
        // A process has its name a moment after its start is told.
        let found = loop {
            let found = Survivor::holding(&name, &path).expect("procfs");
            if !found.is_empty() {
                break found;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(found.iter().map(Survivor::pid).collect::<Vec<_>>(), [holder.id()]);
        assert!(found[0].end(Duration::from_secs(5)).expect("ours"));
        assert!(Survivor::holding(&name, &path).expect("procfs").is_empty());
        other.kill().expect("ours");
        let _ = (holder.wait(), other.wait());
        std::fs::remove_file(path).expect("ours");
    }

    #[test]
    fn a_zombie_does_not_live() {
        let mut child = Command::new("true").spawn().expect("true is there");
        let deadline = Instant::now() + Duration::from_secs(5);
        while lives(child.id()) {
            assert!(Instant::now() < deadline, "it ends at once");
            std::thread::yield_now();
        }
        child.wait().expect("ours to reap");
    }
}
