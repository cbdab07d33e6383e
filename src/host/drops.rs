//! The host's drop counters: where packets are lost before any socket of ours sees them (F23).

use std::path::Path;

use crate::store::event::HostDrops;

/// Totals since boot. A file that cannot be read counts 0, the same at both ends of a span.
pub fn read() -> HostDrops {
    HostDrops {
        nic: cards(Path::new("/sys/class/net")),
        softnet: std::fs::read_to_string("/proc/net/softnet_stat").map_or(0, |text| softnet(&text)),
        udp: ["/proc/net/snmp", "/proc/net/snmp6"]
            .into_iter()
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .map(|text| memory_errors(&text))
            .sum(),
    }
}

/// rx_dropped + rx_missed_errors + rx_fifo_errors over all interfaces.
fn cards(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .flat_map(|entry| {
            ["rx_dropped", "rx_missed_errors", "rx_fifo_errors"]
                .map(|name| entry.path().join("statistics").join(name))
        })
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .filter_map(|text| text.trim().parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

/// Column 2 of each core's line: packets dropped because the backlog was full. Hexadecimal.
fn softnet(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(1))
        .filter_map(|column| u64::from_str_radix(column, 16).ok())
        .sum()
}

/// `Udp: MemErrors` of /proc/net/snmp (named by a header line), or `Udp6MemErrors` of snmp6.
fn memory_errors(text: &str) -> u64 {
    if let Some(line) = text.lines().find(|line| line.starts_with("Udp6MemErrors")) {
        return line.split_ascii_whitespace().nth(1).and_then(|v| v.parse().ok()).unwrap_or(0);
    }
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    names
        .split_ascii_whitespace()
        .zip(values.split_ascii_whitespace())
        .find(|(name, _)| *name == "MemErrors")
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_texts_are_read() {
        assert_eq!(softnet("00000a 0000000f 0\n00000b 00000001 0\n"), 16);
        let snmp = "Udp: InDatagrams NoPorts MemErrors\nUdp: 5 6 7\nUdpLite: MemErrors\n";
        assert_eq!(memory_errors(snmp), 7);
        assert_eq!(memory_errors("Udp6InErrors 3\nUdp6MemErrors                   	9\n"), 9);
        assert_eq!(memory_errors("garbage"), 0);
        assert_eq!(softnet(""), 0);
    }

    #[test]
    fn totals_never_fall() {
        let before = read();
        let after = read();
        assert!(after.nic >= before.nic && after.softnet >= before.softnet);
        assert!(after.udp >= before.udp);
    }
}
