//! The map that `check` shows: which core does what, what each worker has to carry, and the cards that
//! it comes in by. What the machine does not say is `?` on it, what is not there is `-`.

use std::net::IpAddr;

use serde::Serialize;

use super::table::table;
use crate::base::ids::WorkerId;
use crate::base::limits::PACKETS_PER_STREAM_S;
use crate::config::Breach;
use crate::config::cores::text;
use crate::config::machine::{Card, Machine, Topology};
use crate::config::model::Config;
use crate::config::placement::Placement;

/// The map.
#[derive(Serialize)]
pub(super) struct Map {
    cores: Vec<Core>,
    workers: Vec<Worker>,
    cards: Vec<CardRow>,
}

/// A core.
#[derive(Serialize)]
struct Core {
    core: u16,
    node: Option<u16>,
    /// The other hardware threads of its physical core; null: unknown.
    siblings: Option<Vec<u16>>,
    isolated: Option<bool>,
    tickless: Option<bool>,
    /// Whether threads of ours may be pinned to it.
    permitted: bool,
    /// What of ours may run there, and nothing else of ours.
    runs: Vec<String>,
    /// What of the cards runs there: interrupts of receive queues, their threads, RPS.
    queues: Vec<String>,
}

/// A worker.
#[derive(Serialize)]
struct Worker {
    worker: u16,
    /// null: not pinned.
    core: Option<u16>,
    /// Node of that core, and so of its ring, buffers and states: it is the first to touch them.
    node: Option<u16>,
    /// Empty: not pinned.
    spool: Vec<u16>,
    streams: u32,
    packets_per_s: u32,
    ring_bytes: u64,
    /// Its slots: every `step`th from `first` on.
    slots: Steps,
    /// Its RTP ports on each address, where no port of the range is taken by somebody else; RTCP is one
    /// above.
    ports: Vec<Ports>,
}

/// `count` numbers, `step` apart, from `first` on.
#[derive(Serialize)]
struct Steps {
    first: u32,
    step: u32,
    count: u32,
}

#[derive(Serialize)]
struct Ports {
    address: IpAddr,
    #[serde(flatten)]
    ports: Steps,
}

/// A network card; null: unknown.
#[derive(Serialize)]
struct CardRow {
    name: String,
    addresses: Vec<IpAddr>,
    /// A device of this machine; else virtual.
    device: bool,
    node: Option<u16>,
    queues: Option<u32>,
    interrupts: Vec<Interrupt>,
    threaded: Option<bool>,
    threads: Vec<Thread>,
    spread: Option<Vec<u16>>,
}

#[derive(Serialize)]
struct Interrupt {
    number: u32,
    name: String,
    cores: Option<Vec<u16>>,
}

#[derive(Serialize)]
struct Thread {
    name: String,
    cores: Vec<u16>,
}

/// What works, and not as well as it could.
#[derive(Serialize)]
pub(super) struct Told {
    pub(super) key: &'static str,
    pub(super) why: String,
    pub(super) fix: String,
}

impl From<Breach> for Told {
    fn from(doubt: Breach) -> Self {
        Told { key: doubt.path, why: doubt.why, fix: doubt.fix.unwrap_or_default() }
    }
}

impl Map {
    /// The map of `config` on `machine`.
    pub(super) fn of(config: &Config, machine: &Machine) -> Self {
        let (plan, topology) = (Placement::of(config, &machine.topology), &machine.topology);
        let mut all = machine.cores.clone();
        all.extend(topology.online.iter().flatten());
        all.sort_unstable();
        all.dedup();
        let says = |list: &Option<Vec<u16>>, core: u16| list.as_ref().map(|l| l.contains(&core));
        let core = |core: u16| Core {
            core,
            node: topology.node_of(core),
            siblings: topology.siblings.get(&core).map(|_| topology.siblings_of(core).collect()),
            isolated: says(&topology.isolated, core),
            tickless: says(&topology.tickless, core),
            permitted: machine.cores.contains(&core),
            runs: runs(&plan, topology, core),
            queues: machine.cards.iter().flat_map(|card| queues(card, core)).collect(),
        };
        let workers = (0..config.worker_count()).map(WorkerId);
        Map {
            cores: all.into_iter().map(core).collect(),
            workers: workers.map(|number| worker(config, &plan, topology, number)).collect(),
            cards: machine.cards.iter().map(card).collect(),
        }
    }

    /// The plan in one line.
    pub(super) fn summary(&self, warnings: usize) -> String {
        let count = self.workers.len();
        let plural = if count == 1 { "" } else { "s" };
        let pinned: Vec<u16> = self.workers.iter().filter_map(|worker| worker.core).collect();
        let place = match pinned.as_slice() {
            [] => "not pinned".to_owned(),
            [only] => format!("on core {only}"),
            _ => format!("on cores {}", text(&pinned)),
        };
        let warned = match warnings {
            0 => String::new(),
            1 => "; 1 warning below".to_owned(),
            _ => format!("; {warnings} warnings below"),
        };
        format!("ok: {count} worker{plural} {place}{warned}")
    }

    /// The map as tables.
    pub(super) fn text(&self) -> String {
        let mut out = self.cores_text();
        out.push('\n');
        out.push_str(&self.workers_text());
        if !self.cards.is_empty() {
            out.push('\n');
            out.push_str(&self.cards_text());
        }
        if out.split_whitespace().any(|cell| cell == "?") {
            out.push_str("\n? = this machine does not say\n");
        }
        out
    }

    /// Cores of which the same is to be said share a row.
    fn cores_text(&self) -> String {
        let mut groups: Vec<Vec<&Core>> = Vec::new();
        for core in &self.cores {
            match groups.iter_mut().find(|group| group[0].is_like(core)) {
                Some(group) => group.push(core),
                None => groups.push(vec![core]),
            }
        }
        let head = ["CORE", "NODE", "BESIDE", "ISOLATED", "RUNS", "QUEUES"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(groups.iter().map(|group| {
            let first = group[0];
            let isolated = match (first.isolated, first.tickless) {
                (None, None) => "?".to_owned(),
                (Some(true), Some(true)) => "yes, tickless".to_owned(),
                (Some(true), _) => "yes".to_owned(),
                (_, Some(true)) => "tickless".to_owned(),
                _ => "-".to_owned(),
            };
            let runs = if first.permitted { listed(&first.runs) } else { "not ours".to_owned() };
            vec![
                text(&group.iter().map(|core| core.core).collect::<Vec<_>>()),
                known(first.node),
                beside(group),
                isolated,
                runs,
                listed(&first.queues),
            ]
        }));
        table(&rows)
    }

    fn workers_text(&self) -> String {
        let head = ["WORKER", "CORE", "NODE", "SPOOL", "STREAMS", "PACKETS/S", "RING", "RTP PORTS"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.workers.iter().map(|worker| {
            let free = || "any".to_owned();
            vec![
                worker.worker.to_string(),
                worker.core.map_or_else(free, |core| core.to_string()),
                if worker.core.is_some() { known(worker.node) } else { "-".to_owned() },
                if worker.spool.is_empty() { free() } else { text(&worker.spool) },
                worker.streams.to_string(),
                worker.packets_per_s.to_string(),
                format!("{} MiB", worker.ring_bytes >> 20),
                worker.ports.iter().map(Ports::text).collect::<Vec<_>>().join("; "),
            ]
        }));
        table(&rows)
    }

    fn cards_text(&self) -> String {
        let head = ["CARD", "NODE", "QUEUES", "INTERRUPTS", "NAPI THREADS", "RPS", "ADDRESSES"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.cards.iter().map(|card| {
            let addresses: Vec<_> = card.addresses.iter().map(IpAddr::to_string).collect();
            let mut row = vec![card.name.clone()];
            if card.device {
                row.extend([
                    known(card.node),
                    known(card.queues),
                    card.interrupts_text(),
                    card.threads_text(),
                    card.spread.as_ref().map_or_else(|| "?".to_owned(), |list| cores_or_none(list)),
                ]);
            } else {
                // Its packets come on the core of whoever sends them.
                row.extend(["virtual", "-", "-", "-", "-"].map(str::to_owned));
            }
            row.push(addresses.join(", "));
            row
        }));
        table(&rows)
    }
}

impl Core {
    /// Whether the same is to be said of both, but for what is beside them.
    fn is_like(&self, other: &Core) -> bool {
        let key = |core: &Core| (core.node, core.isolated, core.tickless, core.permitted);
        key(self) == key(other)
            && self.runs == other.runs
            && self.queues == other.queues
            && self.siblings.is_some() == other.siblings.is_some()
    }
}

impl Ports {
    fn text(&self) -> String {
        let Steps { first, step, count } = self.ports;
        let last = first + step * count.saturating_sub(1);
        match count {
            0 => "-".to_owned(),
            1 => format!("{first} ({})", self.address),
            2 => format!("{first}, {last} ({})", self.address),
            _ => format!("{first}, {} … {last} ({})", first + step, self.address),
        }
    }
}

impl CardRow {
    fn interrupts_text(&self) -> String {
        if self.interrupts.is_empty() {
            return "?".to_owned();
        }
        let numbers: Vec<u32> = self.interrupts.iter().map(|one| one.number).collect();
        let unknown = self.interrupts.iter().any(|one| one.cores.is_none());
        let mut cores: Vec<u16> = self
            .interrupts
            .iter()
            .filter_map(|one| one.cores.as_ref())
            .flatten()
            .copied()
            .collect();
        cores.sort_unstable();
        cores.dedup();
        let on = if unknown { "?".to_owned() } else { text(&cores) };
        let (first, last) = (numbers.first(), numbers.last());
        match (first, last) {
            (Some(first), Some(last)) if first != last => {
                format!("{} of {first}-{last} on {on}", numbers.len())
            }
            _ => format!("{} on {on}", known(first)),
        }
    }

    fn threads_text(&self) -> String {
        match (self.threaded, self.threads.as_slice()) {
            (None, _) => "?".to_owned(),
            (Some(false), _) => "-".to_owned(),
            (Some(true), []) => "yes, on ?".to_owned(),
            (Some(true), threads) => {
                let mut cores: Vec<u16> =
                    threads.iter().flat_map(|thread| thread.cores.iter().copied()).collect();
                cores.sort_unstable();
                cores.dedup();
                format!("{} on {}", threads.len(), text(&cores))
            }
        }
    }
}

/// What of ours may run on `core`.
fn runs(plan: &Placement, topology: &Topology, core: u16) -> Vec<String> {
    // Whatever is not pinned runs where it was started.
    let may = |cores: &[u16]| match cores {
        [] => topology.started.contains(&core),
        cores => cores.contains(&core),
    };
    let numbered = |noun: &str, is_here: &dyn Fn(usize) -> bool| {
        let here: Vec<u16> =
            (0..plan.workers.len()).filter(|n| is_here(*n)).map(|n| n as u16).collect();
        let plural = if here.len() == 1 { "" } else { "s" };
        (!here.is_empty()).then(|| format!("{noun}{plural} {}", text(&here)))
    };
    let mut found = Vec::new();
    found.extend(numbered("worker", &|n| plan.workers[n].core == Some(core)));
    let free = |n: usize| plan.workers[n].core.is_none() && topology.started.contains(&core);
    found.extend(numbered("worker", &free).map(|text| format!("{text} (not pinned)")));
    found.extend(numbered("spool", &|n| may(&plan.workers[n].spool)));
    if may(&plan.control) {
        found.push("control".to_owned());
    }
    if may(&plan.commands) {
        found.push("commands".to_owned());
    }
    found
}

/// What of `card` runs on `core`.
fn queues(card: &Card, core: u16) -> Vec<String> {
    let name = &card.name;
    let here = |cores: &Option<Vec<u16>>| cores.as_ref().is_some_and(|cores| cores.contains(&core));
    let numbers: Vec<String> = card
        .interrupts
        .iter()
        .filter(|interrupt| here(&interrupt.cores))
        .map(|interrupt| interrupt.number.to_string())
        .collect();
    let mut found = Vec::new();
    if !numbers.is_empty() {
        found.push(format!("{name} irq {}", numbers.join(" ")));
    }
    let threads = card.threads.iter().filter(|(_, cores)| cores.contains(&core));
    found.extend(threads.map(|(thread, _)| thread.clone()));
    if here(&card.spread) {
        found.push(format!("{name} rps"));
    }
    found
}

fn worker(config: &Config, plan: &Placement, topology: &Topology, number: WorkerId) -> Worker {
    let place = plan.worker(number);
    let (own, step) = (u32::from(number.0), u32::from(config.worker_count()));
    let slots = config.slot_count();
    let each = config.slots_each();
    let ports = config.media.address.0.iter().enumerate().map(|(at, address)| {
        // Slots of an address follow each other; the first of them that is this worker's.
        let begin = at as u32 * each;
        let first = (own + step - begin % step) % step;
        let count = each.saturating_sub(first).div_ceil(step);
        let range = config.ports_of(at);
        let ports = Steps { first: u32::from(range.first) + 2 * first, step: 2 * step, count };
        Ports { address: *address, ports }
    });
    let streams = config.worker_slots(number, config.media.streams_max);
    Worker {
        worker: number.0,
        core: place.core,
        node: place.core.and_then(|core| topology.node_of(core)),
        spool: place.spool,
        streams,
        packets_per_s: streams * PACKETS_PER_STREAM_S,
        ring_bytes: config.ring_bytes(),
        slots: Steps { first: own, step, count: config.worker_slots(number, slots) },
        ports: ports.collect(),
    }
}

fn card(card: &Card) -> CardRow {
    let Card { name, addresses, is_device, node, queues, interrupts, is_threaded, threads, spread } =
        card.clone();
    let interrupt = |one: crate::config::machine::Interrupt| Interrupt {
        number: one.number,
        name: one.name,
        cores: one.cores,
    };
    CardRow {
        name,
        addresses,
        device: is_device,
        node,
        queues,
        interrupts: interrupts.into_iter().map(interrupt).collect(),
        threaded: is_threaded,
        threads: threads.into_iter().map(|(name, cores)| Thread { name, cores }).collect(),
        spread,
    }
}

/// What is beside the cores of one row: hardware threads of other rows, or which of its own belong
/// together.
fn beside(group: &[&Core]) -> String {
    /// Pairs of one row that are told singly.
    const PAIRS_MAX: usize = 4;
    let own: Vec<u16> = group.iter().map(|core| core.core).collect();
    let mut outside = Vec::new();
    let mut pairs: Vec<Vec<u16>> = Vec::new();
    for core in group {
        let Some(siblings) = &core.siblings else { return "?".to_owned() };
        outside.extend(siblings.iter().copied().filter(|other| !own.contains(other)));
        let mut within: Vec<u16> =
            siblings.iter().copied().filter(|other| own.contains(other)).collect();
        within.push(core.core);
        within.sort_unstable();
        if within.len() > 1 && !pairs.contains(&within) {
            pairs.push(within);
        }
    }
    let mut parts = Vec::new();
    if !outside.is_empty() {
        parts.push(text(&outside));
    }
    let told = pairs
        .iter()
        .take(PAIRS_MAX)
        .map(|pair| pair.iter().map(u16::to_string).collect::<Vec<_>>().join("+"));
    parts.extend(told);
    if pairs.len() > PAIRS_MAX {
        parts.push("…".to_owned());
    }
    if parts.is_empty() { "-".to_owned() } else { parts.join(" ") }
}

fn known(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

fn cores_or_none(list: &[u16]) -> String {
    if list.is_empty() { "-".to_owned() } else { text(list) }
}

fn listed(parts: &[String]) -> String {
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::address::Listed;
    use crate::config::machine::{self, Node};

    fn machine() -> Machine {
        let all: Vec<u16> = (0..8).collect();
        Machine {
            cores: all.clone(),
            topology: Topology {
                started: all.clone(),
                online: Some((0..10).collect()),
                isolated: Some(vec![2, 3]),
                tickless: None,
                siblings: (0..8).map(|core| (core, vec![core % 4, core % 4 + 4])).collect(),
                nodes: vec![Node { id: 0, cores: all, memory_free_bytes: None }],
                ..Topology::default()
            },
            cards: vec![Card {
                name: "eth0".into(),
                addresses: vec![[192, 0, 2, 20].into()],
                is_device: true,
                queues: Some(2),
                interrupts: vec![
                    machine::Interrupt {
                        number: 38,
                        name: "eth0-rx-0".into(),
                        cores: Some(vec![2]),
                    },
                    machine::Interrupt {
                        number: 40,
                        name: "eth0-rx-1".into(),
                        cores: Some(vec![3]),
                    },
                ],
                is_threaded: Some(false),
                spread: Some(vec![]),
                ..Card::default()
            }],
            ..Machine::default()
        }
    }

    fn config() -> Config {
        let mut config = Config::default();
        (config.cpu.rx, config.cpu.workers) = ("2-3".to_owned(), 0);
        config.media.streams_max = 100;
        config.media.address =
            Listed(vec![[192, 0, 2, 20].into(), "2001:db8::20".parse().expect("an address")]);
        config
    }

    #[test]
    fn the_map_is_read_at_one_glance() {
        let text = Map::of(&config(), &machine()).text();
        for line in [
            "CORE     NODE  BESIDE   ISOLATED  RUNS                           QUEUES",
            "0,1,4,5  0     0+4 1+5  -         spools 0,1, control, commands  -",
            "2        0     6        yes       worker 0                       eth0 irq 38",
            "3        0     7        yes       worker 1                       eth0 irq 40",
            "6,7      0     2,3      -         -                              -",
            "8,9      ?     ?        -         not ours                       -",
            "0       2     0     0,1,4,5  50       2500       30 MiB  20000, 20004 … 20248 (192.0.2.20); \
             25002, 25006 … 25246 (2001:db8::20)",
            "eth0  ?     2       2 of 38-40 on 2,3  -             -    192.0.2.20",
            "? = this machine does not say",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn every_port_pair_belongs_to_one_worker() {
        for workers in 1..5 {
            let mut config = config();
            (config.cpu.rx, config.cpu.workers) = (String::new(), workers);
            let map = Map::of(&config, &machine());
            for (at, _) in config.media.address.0.iter().enumerate() {
                let mut ports: Vec<u32> = map
                    .workers
                    .iter()
                    .flat_map(|worker| {
                        let Steps { first, step, count } = worker.ports[at].ports;
                        (0..count).map(move |n| first + n * step)
                    })
                    .collect();
                ports.sort_unstable();
                let first = u32::from(config.ports_of(at).first);
                let wanted: Vec<u32> = (0..config.slots_each()).map(|n| first + 2 * n).collect();
                assert_eq!(ports, wanted, "{workers} workers, address {at}");
            }
            let slots: u32 = map.workers.iter().map(|worker| worker.slots.count).sum();
            assert_eq!(slots, config.slot_count());
            let paired: u32 =
                map.workers.iter().flat_map(|w| &w.ports).map(|ports| ports.ports.count).sum();
            assert_eq!(paired, slots);
        }
    }

    #[test]
    fn json_has_null_for_what_is_unknown() {
        let map = serde_json::to_value(Map::of(&config(), &machine())).expect("plain data");
        assert_eq!(map["cores"][2]["runs"], serde_json::json!(["worker 0"]));
        assert_eq!(map["cores"][8]["node"], serde_json::Value::Null);
        assert_eq!(map["cores"][9]["permitted"], false);
        assert_eq!(map["cards"][0]["node"], serde_json::Value::Null);
        assert_eq!(map["workers"][1]["ports"][0]["first"], 20_002);
        let free = Map::of(&Config::default(), &Machine::default());
        assert_eq!(free.summary(2), "ok: 1 worker not pinned; 2 warnings below");
    }
}
