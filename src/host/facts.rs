//! What this machine has and permits, as far as the recorder cares (F75). Reads only; all that is
//! changed are our own limits.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::disk::HostDisk;
use super::{affinity, cards, interfaces, topology};
use crate::base::ports::Disk;
use crate::config::machine::{Card, Machine};

/// The resources that the arithmetic of a configuration is checked against; without the network cards
/// ([`cards_of`]), which not everybody wants to know.
pub fn machine() -> Machine {
    Machine {
        memory_free_bytes: memory_free_bytes(Path::new("/")).unwrap_or(0),
        cores: affinity::permitted(),
        descriptors_max: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
        topology: topology::read(Path::new("/")),
        cards: Vec::new(),
    }
}

/// The same of a machine whose procfs and sysfs were recorded below `root`, by a process that did not ask the
/// kernel otherwise.
pub fn recorded(root: &Path) -> Machine {
    let topology = topology::read(root);
    Machine {
        memory_free_bytes: memory_free_bytes(root).unwrap_or(0),
        cores: topology.permitted(),
        descriptors_max: topology::descriptors_max(root).unwrap_or(u64::MAX),
        topology,
        cards: Vec::new(),
    }
}

/// The network cards that these addresses of ours come in by; an error where the kernel may not be asked.
pub fn cards_of(addresses: &[IpAddr]) -> io::Result<Vec<Card>> {
    Ok(cards::read(Path::new("/"), addresses, &interfaces::read()?))
}

/// Memory that can be had on this machine without swapping; `None`: it does not say.
pub fn memory_free() -> Option<u64> {
    memory_free_bytes(Path::new("/"))
}

/// Memory that can be had without swapping: `MemAvailable`, or what the control group still
/// allows, whichever is less.
fn memory_free_bytes(root: &Path) -> Option<u64> {
    let meminfo = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available = line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1_024;
    Some(group_free_bytes(root).map_or(available, |free| free.min(available)))
}

/// What the memory limit of our control group (version 2) leaves; `None` without a limit.
fn group_free_bytes(root: &Path) -> Option<u64> {
    let own = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = root.join("sys/fs/cgroup").join(path.trim_start_matches('/'));
    let number =
        |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

/// Raises our limit of open descriptors to its hard limit; children inherit it. Returns the limit
/// now in force.
pub fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises our limit of locked memory to its hard limit; children inherit it. Returns the bytes now
/// in force.
pub fn raise_memlock() -> u64 {
    let limit = getrlimit(Resource::Memlock);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let _ = setrlimit(Resource::Memlock, raised);
    }
    getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX)
}

/// The nearest existing folder at or above `path`.
pub fn existing_folder(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Bytes free for us where `path` lies or will lie.
pub fn disk_free_bytes(path: &Path) -> io::Result<u64> {
    let facts = rustix::fs::statvfs(existing_folder(path))?;
    Ok(facts.f_bavail * facts.f_frsize)
}

/// Bytes free for us in all of `folders`, each disk counted once, of those that answer. An error, and of which
/// folder, where none does.
pub fn room_bytes(folders: impl IntoIterator<Item = PathBuf>) -> Result<u64, (PathBuf, io::Error)> {
    let (mut seen, mut free, mut failed) = (BTreeSet::new(), 0, None);
    for folder in folders {
        let found = HostDisk.free_bytes(&folder);
        match found.and_then(|free| Ok((free, HostDisk.device(&folder)?))) {
            Ok((bytes, device)) => free += if seen.insert(device) { bytes } else { 0 },
            Err(error) => drop(failed.get_or_insert((folder, error))),
        }
    }
    failed.filter(|_| seen.is_empty()).map_or(Ok(free), Err)
}

/// Whether files where `path` lies can be written past the page cache (`O_DIRECT`); tried on an
/// unnamed file that is gone with its descriptor.
pub fn direct_writes_permitted(path: &Path) -> io::Result<()> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    rustix::fs::open(existing_folder(path), flags, Mode::RUSR | Mode::WUSR)?;
    Ok(())
}

/// Whether a socket can be bound to `ip` here; tried on a port that the kernel picks.
pub fn address_is_ours(ip: IpAddr) -> io::Result<()> {
    std::net::UdpSocket::bind((ip, 0)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_memory_a_core_and_descriptors() {
        let machine = machine();
        assert!(machine.memory_free_bytes > 0);
        assert!(!machine.cores.is_empty());
        assert!(machine.descriptors_max >= 64);
        assert!(disk_free_bytes(Path::new("./not/there/yet")).expect("statvfs of /") > 0);
        assert!(address_is_ours(IpAddr::from([127, 0, 0, 1])).is_ok());
        // TEST-NET-1 (RFC 5737) is nobody's.
        assert!(address_is_ours(IpAddr::from([192, 0, 2, 9])).is_err());
        assert_eq!(existing_folder(Path::new("/nowhere/at/all")), Path::new("/"));
    }
}
