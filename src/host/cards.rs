//! The network cards that media comes in by: where each is, and what its receive queues interrupt.
//! Read from below a folder like the topology ([`super::topology`]), given which interface has which
//! address ([`super::interfaces`]).

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::topology::{allowed, list, text};
use crate::config::machine::{Card, Interrupt};

/// How deep an interface may lie above a card: bridge, VLAN, bond, card.
const LAYERS_MAX: usize = 4;
/// A virtual device (virtio) has the facts of its bus one or two folders above.
const PARENTS_MAX: usize = 3;
/// The kernel cuts the name of a thread so.
const COMM_BYTES: usize = 15;

/// The cards of `addresses`, each once; `interfaces` says whose they are. An address that no interface
/// has is left out: that it is not ours is said elsewhere.
pub fn read(root: &Path, addresses: &[IpAddr], interfaces: &[(String, IpAddr)]) -> Vec<Card> {
    let mut found: Vec<Card> = Vec::new();
    for address in addresses {
        for (name, own) in interfaces {
            let stands_for_all = address.is_unspecified()
                && address.is_ipv4() == own.is_ipv4()
                && !own.is_loopback();
            if own != address && !stands_for_all {
                continue;
            }
            for name in below(root, name, LAYERS_MAX) {
                match found.iter_mut().find(|card| card.name == name) {
                    Some(card) if card.addresses.contains(address) => {}
                    Some(card) => card.addresses.push(*address),
                    None => found.push(Card { addresses: vec![*address], ..card(root, name) }),
                }
            }
        }
    }
    found
}

/// Receive queues of an interface; `None` where sysfs does not show it.
pub fn queues(interface: &str) -> Option<u32> {
    let names = entries(&folder(Path::new("/"), interface).join("queues"));
    let count = names.iter().filter(|name| name.starts_with("rx-")).count();
    (count > 0).then_some(count as u32)
}

fn folder(root: &Path, interface: &str) -> PathBuf {
    root.join("sys/class/net").join(interface)
}

/// Names of the entries of a folder, in order; none where it cannot be read.
fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// The interfaces that `interface` lies above (bond, bridge, VLAN), down to the lowest; itself where there
/// are none.
fn below(root: &Path, interface: &str, layers: usize) -> Vec<String> {
    let entries = entries(&folder(root, interface));
    let lower: Vec<&str> = entries.iter().filter_map(|name| name.strip_prefix("lower_")).collect();
    if lower.is_empty() || layers == 0 {
        return vec![interface.to_owned()];
    }
    lower.into_iter().flat_map(|name| below(root, name, layers - 1)).collect()
}

fn card(root: &Path, name: String) -> Card {
    let own = folder(root, &name);
    let device = std::fs::canonicalize(own.join("device")).ok();
    let queues: Vec<String> =
        entries(&own.join("queues")).into_iter().filter(|name| name.starts_with("rx-")).collect();
    Card {
        addresses: Vec::new(),
        is_device: device.is_some(),
        // -1 stands for "the bus does not say", and is no number of a node.
        node: device.as_deref().and_then(|device| up(device, "numa_node")?.parse().ok()),
        interrupts: device.as_deref().map(|of| interrupts(root, of)).unwrap_or_default(),
        is_threaded: text(&own.join("threaded")).map(|text| text != "0"),
        threads: threads(root, &name),
        spread: spread(&own, &queues),
        queues: (!queues.is_empty()).then_some(queues.len() as u32),
        name,
    }
}

/// The file `name` of a device or of the nearest one above that has it.
fn up(device: &Path, name: &str) -> Option<String> {
    device.ancestors().take(PARENTS_MAX).find_map(|folder| text(&folder.join(name)))
}

/// Interrupts of receive queues: those of the device whose name says so.
fn interrupts(root: &Path, device: &Path) -> Vec<Interrupt> {
    let numbers =
        device.ancestors().take(PARENTS_MAX).map(|folder| entries(&folder.join("msi_irqs")));
    let mut numbers: Vec<u32> = numbers
        .into_iter()
        .find(|names| !names.is_empty())
        .unwrap_or_default()
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    numbers.sort_unstable();
    let table = text(&root.join("proc/interrupts")).unwrap_or_default();
    let interrupt = |number: u32| {
        let name = interrupt_name(&table, number).filter(|name| is_receive(name))?;
        let own = root.join(format!("proc/irq/{number}"));
        // Where it really goes, on kernels that say so; else where it may go.
        let effective = list(&own.join("effective_affinity_list")).filter(|list| !list.is_empty());
        let cores = effective.or_else(|| list(&own.join("smp_affinity_list")));
        Some(Interrupt { number, name, cores })
    };
    numbers.into_iter().filter_map(interrupt).collect()
}

/// The last column of the line of `number` in /proc/interrupts.
fn interrupt_name(table: &str, number: u32) -> Option<String> {
    let head = format!("{number}:");
    let line = table.lines().find(|line| line.trim_start().starts_with(&head))?;
    line.split_ascii_whitespace().last().map(str::to_owned)
}

/// Whether an interrupt of that name is one of a receive queue: `eth0-rx-0`, `i40e-eth0-TxRx-3`,
/// `eth0-Tx-Rx-1` (ena), `virtio2-input.0`, `mlx5_comp4@pci:…`, `gve-ntfy-blk0@pci:…`, `eth0-fp-0` (bnx2x).
/// Others of a card carry its link state, commands, or what it sends.
fn is_receive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["rx", "input", "_comp", "-ntfy-blk", "-fp-"].iter().any(|part| name.contains(part))
}

/// The threads that empty the queues of `interface`, `napi/NAME-ID`. Others' processes may be hidden from
/// us; then there seem to be none.
fn threads(root: &Path, interface: &str) -> Vec<(String, Vec<u16>)> {
    let head = format!("napi/{interface}-");
    let head = &head[..head.len().min(COMM_BYTES)];
    let processes = entries(&root.join("proc"));
    let numbers = processes.iter().filter(|name| name.parse::<u32>().is_ok());
    numbers
        .filter_map(|pid| {
            let own = root.join("proc").join(pid);
            let name = text(&own.join("comm")).filter(|name| name.starts_with(head))?;
            Some((name, allowed(&own.join("status"))?))
        })
        .collect()
}

/// Cores that packets of any receive queue are spread over in software.
fn spread(own: &Path, queues: &[String]) -> Option<Vec<u16>> {
    let mut all = Vec::new();
    for queue in queues {
        all.extend(mask(&text(&own.join("queues").join(queue).join("rps_cpus"))?)?);
    }
    all.sort_unstable();
    all.dedup();
    (!queues.is_empty()).then_some(all)
}

/// A mask of cores: words of 32 bits in hexadecimal, the highest first, with commas between.
fn mask(text: &str) -> Option<Vec<u16>> {
    let mut cores = Vec::new();
    for (place, word) in text.rsplit(',').enumerate() {
        let word = u32::from_str_radix(word, 16).ok()?;
        let first = u16::try_from(place).ok()?.checked_mul(32)?;
        cores.extend((0..32).filter(|bit| word >> bit & 1 == 1).map(|bit| first + bit));
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_count_from_the_right() {
        assert_eq!(mask("00000000,00000000"), Some(vec![]));
        assert_eq!(mask("1,80000003"), Some(vec![0, 1, 31, 32]));
        assert_eq!(mask("x"), None);
    }

    #[test]
    fn receive_queues_are_told_by_the_names_that_drivers_give() {
        let receive = [
            "eth0-rx-0",
            "i40e-ens1f0-TxRx-3",
            "ens5-Tx-Rx-1",
            "virtio2-input.0",
            "mlx5_comp4@pci:0000:3b:00.0",
            "gve-ntfy-blk0@pci:0000:00:04.0",
            "eth0-fp-0",
        ];
        let others = [
            "virtio2-config",
            "virtio2-output.0",
            "mlx5_async0@pci:0000:3b:00.0",
            "ice-0000:3b:00.0:misc",
            "ens1f0-tx-0",
            "ena-mgmnt@pci:0000:00:05.0",
        ];
        assert!(receive.iter().all(|name| is_receive(name)));
        for name in others {
            assert!(!is_receive(name), "{name}");
        }
    }

    #[test]
    fn an_interrupt_is_found_by_its_number_alone() {
        let table = "           CPU0  CPU1\n  3:  1  0  IO-APIC  5-edge  ACPI:Ged\n 38:  0  9  \
                     PCI-MSIX-0000:00:03.0  1-edge  virtio2-input.0\nNMI:  0  0  Non-maskable interrupts\n";
        assert_eq!(interrupt_name(table, 38).as_deref(), Some("virtio2-input.0"));
        assert_eq!(interrupt_name(table, 8), None);
    }

    #[test]
    fn loopback_is_no_card_of_this_machine() {
        let address = IpAddr::from([127, 0, 0, 1]);
        let found = read(Path::new("/"), &[address], &[("lo".to_owned(), address)]);
        assert_eq!((found.len(), found[0].is_device, found[0].node), (1, false, None));
        assert!(found[0].interrupts.is_empty());
    }
}
