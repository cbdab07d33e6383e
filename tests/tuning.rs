//! The profiles in `tuning/` say what the program needs, no less, and fit the machines that they are for:
//! each is checked against what such a machine says of itself (`tests/machines`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use floortape::config::machine::{Card, Machine, Topology};
use floortape::config::model::Config;
use floortape::config::placement::Placement;
use floortape::config::{Fault, doubts, load_for};
use floortape::host::socket::RECEIVE_BUFFER_BYTES;
use floortape::host::{cards, facts, topology};

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What a machine says of itself as a folder; gone with the value.
struct Recorded {
    root: PathBuf,
}

impl Recorded {
    /// That of `tests/machines/NAME.tree`.
    fn named(name: &str) -> Self {
        let path = source(&format!("tests/machines/{name}.tree"));
        Self::of(&fs::read_to_string(path).expect("each profile has its machine"))
    }

    /// `=== PATH` and the file's lines, or `=== PATH -> TARGET`, from the root; `#` above the first.
    fn of(text: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("floortape-machine-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&root);
        let mut parts = text.split("=== ");
        let head = parts.next().expect("one part at least");
        assert!(head.lines().all(|line| line.starts_with('#')), "{head}");
        for part in parts {
            let (name, content) = part.split_once('\n').expect("a line");
            let (path, target) = name.split_once(" -> ").unzip();
            let path = root.join(path.unwrap_or(name));
            fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
            match target {
                Some(target) => {
                    let target = root.join(target);
                    fs::create_dir_all(&target).expect("a folder");
                    symlink(target, path).expect("a link");
                }
                None => fs::write(path, content).expect("a file"),
            }
        }
        Recorded { root }
    }

    /// Interfaces and their addresses, as `ip -o address` lists them.
    fn interfaces(&self) -> Vec<(String, IpAddr)> {
        let text = fs::read_to_string(self.root.join("addresses")).expect("it is recorded");
        let line = |line: &str| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let address = words[3].split('/').next().expect("one part at least");
            (words[1].to_owned(), address.parse().expect("an address"))
        };
        text.lines().map(line).collect()
    }

    /// Addresses that are no loopback's.
    fn addresses(&self) -> Vec<IpAddr> {
        let all = self.interfaces().into_iter().map(|(_, address)| address);
        all.filter(|address| !address.is_loopback()).collect()
    }

    fn cards(&self, addresses: &[IpAddr]) -> Vec<Card> {
        cards::read(&self.root, addresses, &self.interfaces())
    }

    /// The machine, with the cards of all its addresses.
    fn machine(&self) -> Machine {
        Machine { cards: self.cards(&self.addresses()), ..facts::recorded(&self.root) }
    }

    /// The shipped configuration with `profile` above it, checked against this machine.
    fn load(&self, profile: &str) -> Result<Config, Vec<Fault>> {
        let files =
            ["appliance/floortape.toml", &format!("tuning/profiles/{profile}.toml")].map(source);
        let address = format!("media.address={}", self.addresses()[0]);
        load_for(&files, &[address], &self.machine(), |_| Vec::new())
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Names of the files of a folder that end in `extension`.
fn names(folder: &str, extension: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(source(folder)).expect("it is there");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let fitting = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    fitting.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

/// Settings of a sysctl.d file (its leading `-`, "ignore errors", taken off); panics at a line that
/// `sysctl` would not take and at a setting without a reason above it.
fn settings(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut reasoned = false;
    for line in text.lines() {
        if line.is_empty() {
            reasoned = false;
        } else if line.starts_with("# ") {
            reasoned = true;
        } else {
            assert!(reasoned, "no reason above {line:?}");
            let (key, value) = line.split_once(" = ").expect("KEY = VALUE");
            let key = key.strip_prefix('-').unwrap_or(key);
            assert!(key.split('.').count() > 1 && !key.contains(' '), "{line:?}");
            assert!(found.insert(key.to_owned(), value.to_owned()).is_none(), "{key} twice");
        }
    }
    found
}

#[test]
fn the_sysctl_profile_lets_a_media_socket_have_the_queue_it_asks_for() {
    let found = settings(include_str!("../tuning/sysctl/50-floortape.conf"));
    let limit: usize = found["net.core.rmem_max"].parse().expect("bytes");
    assert!(limit >= RECEIVE_BUFFER_BYTES);
    assert_eq!(found["kernel.io_uring_disabled"], "0");
}

#[test]
fn each_profile_fits_the_machine_that_it_is_for_without_a_doubt() {
    let profiles = names("tuning/profiles", "toml");
    assert_eq!(profiles, names("tests/machines", "tree"));
    assert!(profiles.len() >= 4);
    for profile in profiles {
        let recorded = Recorded::named(&profile);
        let config = recorded.load(&profile).unwrap_or_else(|faults| {
            panic!("{profile}: {}", faults.iter().map(Fault::to_string).collect::<String>())
        });
        let machine = recorded.machine();
        let doubts = doubts(&config, &machine);
        assert!(doubts.is_empty(), "{profile}: {doubts:?}");
        assert!(!machine.cards.is_empty(), "{profile}: the cards are looked at as well");
        // Nothing else runs on a worker's core, nor on the thread beside it.
        let plan = Placement::of(&config, &machine.topology);
        let rest = plan.workers.iter().flat_map(|place| &place.spool);
        let rest: BTreeSet<u16> =
            rest.chain(&plan.control).chain(&plan.commands).copied().collect();
        for core in plan.workers.iter().filter_map(|place| place.core) {
            assert!(!rest.contains(&core), "{profile}: core {core}");
            let mut beside = machine.topology.siblings_of(core);
            assert!(beside.all(|other| !rest.contains(&other)), "{profile}: beside core {core}");
        }
    }
}

#[test]
fn a_profile_says_how_it_is_applied_and_why_each_value_is_what_it_is() {
    for profile in names("tuning/profiles", "toml") {
        let path = source(&format!("tuning/profiles/{profile}.toml"));
        let text = fs::read_to_string(path).expect("listed");
        assert!(
            text.contains("floortape serve -c /etc/floortape/floortape.toml -c THIS"),
            "{profile}"
        );
        let mut reasoned = false;
        for line in text.lines() {
            match line {
                "" => reasoned = false,
                _ if line.starts_with('[') => reasoned = false,
                _ if line.starts_with("# ") => reasoned = true,
                _ if line.starts_with('#') => {}
                // Keys that stand together have one reason.
                _ => assert!(reasoned, "{profile}: no reason above {line:?}"),
            }
        }
    }
}

#[test]
fn a_profile_of_another_machine_is_refused_at_its_line() {
    let small = Recorded::named("vm-2-core");
    let faults = small.load("two-socket").expect_err("there are no such cores");
    let said: Vec<String> = faults.iter().map(Fault::to_string).collect();
    let rx = said.iter().find(|text| text.contains("cpu.rx")).expect("it is told");
    assert!(rx.contains("two-socket.toml:"), "{rx}");
    assert!(rx.contains("cores 18-21 are not among those that we may use, 0,1"), "{rx}");
    assert!(rx.contains("| rx = \"18-21\"\n") && rx.contains("^^^^^^^"), "{rx}");
    // In a container the cores are there, and are not ours.
    let faults = Recorded::named("container").load("single-socket-16-core").expect_err("not ours");
    let said: String = faults.iter().map(Fault::to_string).collect();
    assert!(
        said.contains("cores 2,3 are not among those that we may use, 4-7 (our control group"),
        "{said}"
    );
    // One socket has cores of these numbers as well: they are the second threads of others.
    let one = Recorded::named("single-socket-16-core");
    let config = one.load("two-socket").expect("the cores are there");
    let doubts: Vec<String> =
        doubts(&config, &one.machine()).into_iter().map(|doubt| doubt.why).collect();
    let beside = "cores 2-5 are the other hardware threads of workers' cores";
    assert!(doubts.iter().any(|why| why.starts_with(beside)), "{doubts:?}");
}

#[test]
fn cards_are_found_below_what_lies_above_them() {
    let recorded = Recorded::named("two-socket");
    let found = recorded.cards(&["192.0.2.30".parse().expect("an address")]);
    let names: Vec<&str> = found.iter().map(|card| card.name.as_str()).collect();
    assert_eq!(names, ["enp175s0f0np0"]);
    let card = &found[0];
    assert_eq!((card.is_device, card.node, card.queues), (true, Some(1), Some(4)));
    assert_eq!((card.is_threaded, card.spread.as_deref()), (Some(false), Some(&[][..])));
    let interrupts: Vec<_> =
        card.interrupts.iter().map(|one| (one.number, one.cores.clone().expect("known"))).collect();
    assert_eq!(interrupts, [(301, vec![22]), (302, vec![23]), (303, vec![24]), (304, vec![25])]);
    // One card for all addresses.
    assert_eq!(recorded.machine().cards.len(), 1);
}

#[test]
fn threads_that_empty_queues_and_the_spreading_in_software_are_read() {
    let recorded = Recorded::of(
        "=== addresses\n2: eth0    inet 192.0.2.20/24\n\
         === sys/class/net/eth0/device -> sys/devices/pci0000:00/0000:01:00.0\n\
         === sys/class/net/eth0/threaded\n1\n\
         === sys/class/net/eth0/queues/rx-0/rps_cpus\n00000000,00000006\n\
         === proc/77/comm\nnapi/eth0-8193\n=== proc/77/status\nCpus_allowed_list:\t3\n\
         === proc/78/comm\nnapi/eth01-8194\n=== proc/78/status\nCpus_allowed_list:\t4\n\
         === proc/self/status\nCpus_allowed_list:\t0-7\n",
    );
    let found = recorded.machine();
    let card = &found.cards[0];
    assert_eq!(card.is_threaded, Some(true));
    assert_eq!(card.threads, [("napi/eth0-8193".to_owned(), vec![3])]);
    assert_eq!(card.spread, Some(vec![1, 2]));
    assert_eq!((card.node, card.interrupts.len(), card.queues), (None, 0, Some(1)));
    // Without more, what we were started on is what we have.
    assert_eq!(found.cores, (0..8).collect::<Vec<_>>());
}

#[test]
fn what_a_machine_does_not_say_is_unknown() {
    let recorded = Recorded::named("vm-2-core");
    let machine = recorded.machine();
    let card = &machine.cards[0];
    // The bus says -1; its interrupts stand one folder above the virtual device.
    assert_eq!((card.name.as_str(), card.is_device, card.node), ("eth0", true, None));
    assert_eq!(card.interrupts.len(), 1);
    assert_eq!(
        (card.interrupts[0].number, card.interrupts[0].name.as_str()),
        (38, "virtio2-input.0")
    );
    assert_eq!((machine.topology.tickless, machine.topology.isolated), (None, Some(vec![])));
    let recorded = Recorded::named("container");
    let machine = recorded.machine();
    assert_eq!((machine.cards[0].is_device, machine.cards[0].interrupts.len()), (false, 0));
    assert_eq!(machine.cores, [4, 5, 6, 7]);
    assert_eq!(machine.memory_free_bytes, (4 << 30) - (180 << 20));
}

#[test]
fn a_recording_of_this_machine_says_what_this_machine_says() {
    let output = Command::new("sh").arg(source("tests/machines/record.sh")).output().expect("sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recorded = Recorded::of(&String::from_utf8_lossy(&output.stdout));
    let same = |root: &Path| Topology {
        // Free memory moves.
        nodes: topology::read(root).nodes.into_iter().map(without_memory).collect(),
        ..topology::read(root)
    };
    assert_eq!(same(&recorded.root), same(Path::new("/")));
    let (then, now) = (facts::recorded(&recorded.root), facts::machine());
    assert_eq!((then.cores, then.descriptors_max), (now.cores, now.descriptors_max));
    let addresses = recorded.addresses();
    let cards = facts::cards_of(&addresses).expect("netlink is permitted where tests run");
    assert_eq!(recorded.cards(&addresses), cards);
}

fn without_memory(node: floortape::config::machine::Node) -> floortape::config::machine::Node {
    floortape::config::machine::Node { memory_free_bytes: None, ..node }
}
