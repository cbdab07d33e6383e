//! How the cores of this machine lie, and what we may use of them, as sysfs and procfs say it. Reads
//! only. Everything is read below a folder, `/` or one that holds what another machine says
//! (`tests/machines`); what is not there is unknown, and stays so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::cores;
use crate::config::machine::{Node, Topology};

/// Nodes looked at: the kernel's own bound is 1,024, machines have up to 16.
const NODES_MAX: u16 = 1_024;
/// Depth of control groups looked at.
const GROUPS_MAX: usize = 32;

/// How the cores lie.
pub fn read(root: &Path) -> Topology {
    let cpu = root.join("sys/devices/system/cpu");
    let online = list(&cpu.join("online"));
    let started = started(root).or_else(|| online.clone()).unwrap_or_default();
    let seen = online.as_ref().unwrap_or(&started);
    Topology {
        siblings: siblings(&cpu, seen),
        nodes: nodes(root),
        isolated: list(&cpu.join("isolated")),
        tickless: list(&cpu.join("nohz_full")),
        cpuset: cpuset(root),
        quota_milli: quota_milli(root),
        online,
        started,
    }
}

/// A file's text without what surrounds it.
pub(super) fn text(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// A list of cores. The kernel writes `(null)` for a list that it never made.
pub(super) fn list(path: &Path) -> Option<Vec<u16>> {
    match text(path)?.as_str() {
        "(null)" => Some(Vec::new()),
        text => cores::parse(text).ok(),
    }
}

/// The value of `key` in a file of lines `key: value`.
fn value(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

/// Cores that our threads run on where nobody pins them.
fn started(root: &Path) -> Option<Vec<u16>> {
    allowed(&root.join("proc/self/status"))
}

/// Cores that a thread may run on, by its `status`.
pub(super) fn allowed(status: &Path) -> Option<Vec<u16>> {
    cores::parse(&value(&text(status)?, "Cpus_allowed_list")?).ok()
}

/// The hard limit of open descriptors, by `limits` of a process.
pub(super) fn descriptors_max(root: &Path) -> Option<u64> {
    let limits = text(&root.join("proc/self/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn siblings(cpu: &Path, seen: &[u16]) -> BTreeMap<u16, Vec<u16>> {
    let of = |core: &u16| {
        let folder = cpu.join(format!("cpu{core}/topology"));
        // The second name is the older one.
        let own = list(&folder.join("core_cpus_list"));
        Some((*core, own.or_else(|| list(&folder.join("thread_siblings_list")))?))
    };
    seen.iter().filter_map(of).collect()
}

fn nodes(root: &Path) -> Vec<Node> {
    let folder = root.join("sys/devices/system/node");
    let ids = list(&folder.join("online")).unwrap_or_default();
    let node = |id: u16| {
        let own = folder.join(format!("node{id}"));
        let memory = text(&own.join("meminfo"));
        Some(Node {
            id,
            cores: list(&own.join("cpulist"))?,
            memory_free_bytes: memory.and_then(|text| free_bytes(&text)),
        })
    };
    ids.into_iter().filter(|id| *id < NODES_MAX).filter_map(node).collect()
}

/// Free memory of a node, and what the page cache would give back: `MemFree` and `Inactive(file)`.
fn free_bytes(meminfo: &str) -> Option<u64> {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.split_once(name))?.1;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    };
    Some((kib("MemFree:")? + kib("Inactive(file):").unwrap_or(0)) * 1_024)
}

/// The folders of our control group and of those above it, innermost first, where `controller` is
/// mounted: version 2, or version 1 of it alone. In a container the path may be one of outside; then the
/// mounted root is ours.
fn groups(root: &Path, controller: &str) -> Vec<PathBuf> {
    let own = text(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mount = root.join("sys/fs/cgroup");
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(names), Some(path)) = (parts.next(), parts.next()) else { continue };
        let mounts = match names {
            "" => vec![mount.clone(), mount.join("unified")],
            _ if names.split(',').any(|name| name == controller) => {
                vec![mount.join(controller), mount.join(names)]
            }
            _ => continue,
        };
        for mount in mounts {
            let own = mount.join(path.trim_start_matches('/'));
            let within = own.ancestors().take_while(|folder| folder.starts_with(&mount));
            found.extend(within.take(GROUPS_MAX).map(Path::to_owned));
        }
    }
    found
}

/// What the innermost group that has the controller allows; it is within what those above do.
fn cpuset(root: &Path) -> Option<Vec<u16>> {
    groups(root, "cpuset").into_iter().find_map(|folder| {
        let effective = list(&folder.join("cpuset.cpus.effective"));
        effective.or_else(|| list(&folder.join("cpuset.effective_cpus")))
    })
}

/// The least that any of our groups allows.
fn quota_milli(root: &Path) -> Option<u64> {
    let version_2 = |folder: PathBuf| {
        let text = text(&folder.join("cpu.max"))?;
        let (quota, period) = text.split_once(' ')?;
        Some((quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?))
    };
    let version_1 = |folder: PathBuf| {
        let number = |name: &str| text(&folder.join(name))?.parse::<u64>().ok();
        // -1, no quota, is no such number.
        Some((number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?))
    };
    groups(root, "cpu")
        .into_iter()
        .filter_map(|folder| version_2(folder.clone()).or_else(|| version_1(folder)))
        .filter_map(|(quota, period)| quota.checked_mul(1_000)?.checked_div(period))
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files, gone with the value.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root =
                std::env::temp_dir().join(format!("floortape-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&root);
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
                std::fs::write(path, text).expect("a file");
            }
            std::fs::create_dir_all(&root).expect("a folder");
            Tree(root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_machine_that_says_nothing_is_unknown() {
        let tree = Tree::new("topology-nothing", &[]);
        assert_eq!(read(&tree.0), Topology::default());
    }

    #[test]
    fn nodes_siblings_and_lists_are_read() {
        let tree = Tree::new(
            "topology-nodes",
            &[
                ("sys/devices/system/cpu/online", "0-3\n"),
                ("sys/devices/system/cpu/isolated", "\n"),
                ("sys/devices/system/cpu/nohz_full", "  (null)\n"),
                ("sys/devices/system/cpu/cpu1/topology/core_cpus_list", "1,3\n"),
                ("sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "0,2\n"),
                ("sys/devices/system/node/online", "0-1\n"),
                ("sys/devices/system/node/node0/cpulist", "0-1\n"),
                (
                    "sys/devices/system/node/node0/meminfo",
                    "Node 0 MemTotal: 9 kB\nNode 0 MemFree:    4 kB\nNode 0 Inactive(file): 2 kB\n",
                ),
                ("sys/devices/system/node/node1/cpulist", "2-3\n"),
                ("proc/self/status", "Name:\tx\nCpus_allowed:\tf\nCpus_allowed_list:\t0,2-3\n"),
            ],
        );
        let found = read(&tree.0);
        assert_eq!(found.started, [0, 2, 3]);
        assert_eq!(
            (found.isolated.as_deref(), found.tickless.as_deref()),
            (Some(&[][..]), Some(&[][..]))
        );
        assert_eq!(found.siblings, [(1, vec![1, 3]), (2, vec![0, 2])].into());
        assert_eq!(
            (found.node_of(1), found.node_of(3), found.node_of(9)),
            (Some(0), Some(1), None)
        );
        let free: Vec<_> = found.nodes.iter().map(|node| node.memory_free_bytes).collect();
        assert_eq!(free, [Some(6 << 10), None]);
        assert_eq!(found.permitted(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_control_group_limits_by_its_own_files_or_those_above() {
        let unit = "0::/system.slice/floortape.service\n";
        let tree = Tree::new(
            "topology-v2",
            &[
                ("proc/self/cgroup", unit),
                ("sys/fs/cgroup/cpuset.cpus.effective", "0-7\n"),
                ("sys/fs/cgroup/system.slice/cpuset.cpus.effective", "0-5\n"),
                ("sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n"),
                ("sys/fs/cgroup/system.slice/floortape.service/cpu.max", "max 100000\n"),
            ],
        );
        let found = read(&tree.0);
        assert_eq!(found.cpuset, Some((0..6).collect()));
        assert_eq!(found.quota_milli, Some(1_500));
        // A container of version 1: the path is one of outside, the mounted root is ours.
        let tree = Tree::new(
            "topology-v1",
            &[
                ("proc/self/cgroup", "3:cpuset:/docker/ab\n2:cpu,cpuacct:/docker/ab\n1:name=x:/\n"),
                ("sys/fs/cgroup/cpuset/cpuset.effective_cpus", "4-5\n"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ],
        );
        let found = read(&tree.0);
        assert_eq!((found.cpuset, found.quota_milli), (Some(vec![4, 5]), Some(500)));
    }

    #[test]
    fn this_machine_lies_as_the_kernel_lets_us_run() {
        let found = read(Path::new("/"));
        assert!(!found.started.is_empty());
        // What we may be pinned to can only be more: isolated cores, and those left out at the start.
        let permitted = super::super::affinity::permitted();
        assert!(
            found.started.iter().all(|core| permitted.contains(core)),
            "{found:?} {permitted:?}"
        );
    }
}
