//! Where `[cpu]` contradicts itself, the machine or the load: what cannot be is refused, what is only
//! worse than it need be is a doubt, each with its arithmetic.

use super::bounds::Breach;
use super::cores::{self, text};
use super::machine::{Card, Machine, Topology};
use super::model::Config;
use super::placement::Placement;
use crate::base::limits::{PACKETS_PER_STREAM_S, WORKER_STREAMS_MAX, WORKER_STREAMS_SHOWN};

/// The lists of cores, by key.
fn lists(config: &Config) -> [(&'static str, Vec<u16>); 3] {
    [
        ("cpu.rx", &config.cpu.rx),
        ("cpu.spool", &config.cpu.spool),
        ("cpu.control", &config.cpu.control),
    ]
    .map(|(path, list)| (path, cores::parse(list).unwrap_or_default()))
}

/// What no machine could do. `config`'s lists have been read.
pub(super) fn values(config: &Config) -> Vec<Breach> {
    let mut found = Vec::new();
    let workers = u32::from(config.worker_count());
    let [(_, rx), others @ ..] = lists(config);
    if !rx.is_empty() && workers as usize > rx.len() {
        found.push(Breach {
            path: "cpu.workers",
            why: format!(
                "{workers} workers on {} of cpu.rx: each worker needs a core of its own",
                counted(rx.len(), "core")
            ),
            fix: Some(format!(
                "name {workers} cores in cpu.rx, or write workers = 0 for one per core"
            )),
        });
    }
    for (path, list) in others {
        let both: Vec<u16> = list.into_iter().filter(|core| rx.contains(core)).collect();
        if !both.is_empty() {
            let name = path.trim_start_matches("cpu.");
            found.push(Breach {
                path,
                why: format!(
                    "{} in cpu.rx as well: packets of a worker would wait while {name} runs",
                    are(&both)
                ),
                fix: Some(format!(
                    "name other cores, or \"\": {name} then takes what cpu.rx leaves"
                )),
            });
        }
    }
    let streams = config.media.streams_max;
    let each = streams.div_ceil(workers);
    if each > WORKER_STREAMS_MAX {
        found.push(Breach {
            path: "media.streams_max",
            why: format!(
                "{streams} streams × {PACKETS_PER_STREAM_S} packets/s ÷ {} = {} packets/s each; no \
                 worker takes more than {}",
                counted(workers as usize, "worker"),
                each * PACKETS_PER_STREAM_S,
                WORKER_STREAMS_MAX * PACKETS_PER_STREAM_S
            ),
            fix: Some(format!(
                "set cpu.workers to {} or more ({WORKER_STREAMS_SHOWN} streams each is what is measured), \
                 or lower media.streams_max",
                streams.div_ceil(WORKER_STREAMS_SHOWN)
            )),
        });
    }
    found
}

/// What this machine cannot do.
pub(super) fn machine(config: &Config, machine: &Machine) -> Vec<Breach> {
    let mut found = Vec::new();
    for (path, list) in lists(config) {
        let missing: Vec<u16> =
            list.into_iter().filter(|core| !machine.cores.contains(core)).collect();
        if missing.is_empty() {
            continue;
        }
        found.push(Breach {
            path,
            why: format!(
                "{} not among those that we may use, {}{}",
                are(&missing),
                text(&machine.cores),
                why_not(&missing, &machine.topology)
            ),
            fix: None,
        });
    }
    found
}

/// Why the machine does not give us `missing`, as far as it says.
fn why_not(missing: &[u16], topology: &Topology) -> String {
    let online = topology.online.as_ref();
    let absent = |core: &&u16| online.is_some_and(|online| !online.contains(core));
    if let (Some(online), true) = (online, missing.iter().any(|core| absent(&core))) {
        return format!(" (switched on are {})", text(online));
    }
    match &topology.cpuset {
        Some(cpuset) if missing.iter().any(|core| !cpuset.contains(core)) => {
            format!(" (our control group allows {})", text(cpuset))
        }
        _ => String::new(),
    }
}

/// What works, and not as well as it could; most telling first.
pub fn doubts(config: &Config, machine: &Machine) -> Vec<Breach> {
    let plan = Placement::of(config, &machine.topology);
    let mut found = load(config, machine);
    found.extend(siblings(config, &plan, &machine.topology));
    found.extend(distances(&plan, machine));
    found.extend(memory(config, &plan, machine));
    found.extend(isolation(config, &plan, machine));
    found
}

fn doubt(path: &'static str, why: String, fix: impl Into<String>) -> Breach {
    Breach { path, why, fix: Some(fix.into()) }
}

/// More streams than were shown, more workers than cores, a quota below both.
fn load(config: &Config, machine: &Machine) -> Vec<Breach> {
    let mut found = Vec::new();
    let workers = config.worker_count();
    let each = config.media.streams_max.div_ceil(workers.into());
    if each > WORKER_STREAMS_SHOWN {
        let why = format!(
            "{} streams × {PACKETS_PER_STREAM_S} packets/s ÷ {} = {} packets/s each; {} on a core of \
             its own are what is measured (benches/path.sh)",
            config.media.streams_max,
            counted(workers.into(), "worker"),
            each * PACKETS_PER_STREAM_S,
            WORKER_STREAMS_SHOWN * PACKETS_PER_STREAM_S
        );
        let wanted = config.media.streams_max.div_ceil(WORKER_STREAMS_SHOWN);
        found.push(doubt(
            "cpu.workers",
            why,
            format!("set cpu.workers to {wanted}, or measure this machine"),
        ));
    }
    let [(_, rx), ..] = lists(config);
    let cores = machine.cores.len();
    if rx.is_empty() && usize::from(workers) > cores && cores > 0 {
        let why = format!("{workers} workers share {}", counted(cores, "core"));
        found.push(doubt("cpu.workers", why, format!("set cpu.workers to {cores} at most")));
    }
    if let Some(quota) = machine.topology.quota_milli {
        // A worker, and at least as much again for all spools, control and commands.
        let wanted = 1_000 * (u64::from(workers) + 1);
        if quota < wanted {
            let why = format!(
                "our control group allows {} cores' time, {} and the rest need up to {}: once it is \
                 used up, packets wait for the next period",
                thousandths(quota),
                counted(workers.into(), "worker"),
                wanted / 1_000
            );
            let fix = "raise the limit (cpu.max, CPUQuota=, --cpus), or limit by cpuset instead";
            found.push(doubt("cpu.workers", why, fix));
        }
    }
    if rx.len() > usize::from(workers) {
        let unused = &rx[usize::from(workers)..];
        let why = format!("{} named and without a worker: there are {workers}", are(unused));
        found.push(doubt("cpu.rx", why, "write workers = 0 for one per core, or name fewer"));
    }
    found
}

/// Workers that share a physical core, with each other or with what has a list of its own.
fn siblings(config: &Config, plan: &Placement, topology: &Topology) -> Vec<Breach> {
    let pinned: Vec<(usize, u16)> = plan
        .workers
        .iter()
        .enumerate()
        .filter_map(|(worker, place)| Some((worker, place.core?)))
        .collect();
    let mut found = Vec::new();
    let is_worker = |core: u16| pinned.iter().any(|(_, own)| *own == core);
    let [_, others @ ..] = lists(config);
    for (path, list) in others {
        let beside = |core: &u16| topology.siblings_of(*core).any(is_worker);
        let beside: Vec<u16> = list.into_iter().filter(beside).collect();
        if !beside.is_empty() {
            let own = if beside.len() == 1 {
                "thread of a worker's core"
            } else {
                "threads of workers' cores"
            };
            let why = format!(
                "{} the other hardware {own}: what runs there takes its time from the packets",
                are(&beside)
            );
            found.push(doubt(path, why, "name cores of their own; `check` shows which are beside"));
        }
    }
    for (place, (first, core)) in pinned.iter().enumerate() {
        let on_it = |(_, other): &&(usize, u16)| topology.siblings_of(*core).any(|s| s == *other);
        let Some((second, other)) = pinned[place + 1..].iter().find(on_it) else { continue };
        let each = config.media.streams_max.div_ceil(config.worker_count().into());
        let why = format!(
            "workers {first} and {second} are on {core} and {other}, two hardware threads of one core: \
             2 × {} packets/s go through it",
            each * PACKETS_PER_STREAM_S
        );
        let fix = "name one thread of each core; `check` shows which belong together";
        found.push(doubt("cpu.rx", why, fix));
    }
    found
}

/// Workers far from the card, and interrupts far from both.
fn distances(plan: &Placement, machine: &Machine) -> Vec<Breach> {
    let topology = &machine.topology;
    let mut found = Vec::new();
    for card in machine.cards.iter().filter(|card| card.is_device) {
        let Some(node) = card.node else { continue };
        let is_far = |core: &u16| topology.node_of(*core).is_some_and(|own| own != node);
        let far: Vec<u16> = plan.workers.iter().filter_map(|w| w.core).filter(is_far).collect();
        if !far.is_empty() {
            let why = format!(
                "{} on another node than {}, which is next to node {node}: each packet is fetched from \
                 the far memory",
                are(&far),
                card.name
            );
            let near = topology.nodes.iter().find(|one| one.id == node);
            let fix = match near {
                Some(near) => format!("name cores of node {node}: {}", text(&near.cores)),
                None => format!("name cores of node {node}"),
            };
            found.push(doubt("cpu.rx", why, fix));
        }
        found.extend(interrupts(card, node, topology));
    }
    found
}

fn interrupts(card: &Card, node: u16, topology: &Topology) -> Option<Breach> {
    let is_far = |core: &u16| topology.node_of(*core).is_some_and(|own| own != node);
    let goes_far = |cores: &Vec<u16>| !cores.is_empty() && cores.iter().all(is_far);
    let far: Vec<String> = card
        .interrupts
        .iter()
        .filter(|interrupt| interrupt.cores.as_ref().is_some_and(goes_far))
        .map(|interrupt| interrupt.number.to_string())
        .collect();
    let first = far.first()?;
    let why = format!(
        "{} of {} receive interrupts of {} ({}) go to cores of another node than its own, {node}",
        far.len(),
        card.interrupts.len(),
        card.name,
        far.join(", ")
    );
    let fix =
        format!("write cores of node {node} to /proc/irq/{first}/smp_affinity_list and so on");
    Some(doubt("media.address", why, fix))
}

/// Rings that do not fit beside their workers.
fn memory(config: &Config, plan: &Placement, machine: &Machine) -> Vec<Breach> {
    let topology = &machine.topology;
    let on = |node: u16| {
        let here = |core: u16| topology.node_of(core) == Some(node);
        plan.workers.iter().filter(|place| place.core.is_some_and(here)).count()
    };
    let mut found = Vec::new();
    for node in topology.nodes.iter().filter(|_| topology.nodes.len() > 1) {
        let (Some(free), workers) = (node.memory_free_bytes, on(node.id)) else { continue };
        let ring = config.ring_bytes();
        let wanted = ring.saturating_mul(workers as u64);
        if wanted > free {
            let why = format!(
                "{} on node {} need {workers} × {} MiB of ring there, {} MiB are free: the rest lands on \
                 another node",
                counted(workers, "worker"),
                node.id,
                ring >> 20,
                free >> 20
            );
            found.push(doubt(
                "store.ring_seconds",
                why,
                "lower it, or spread cpu.rx over the nodes",
            ));
        }
    }
    found
}

/// Isolated cores that are used wrongly or not at all, and workers that leave nothing to others.
fn isolation(config: &Config, plan: &Placement, machine: &Machine) -> Vec<Breach> {
    let topology = &machine.topology;
    let [(_, rx), others @ ..] = lists(config);
    let mut found = Vec::new();
    let isolated: Vec<u16> = topology.isolated.clone().unwrap_or_default();
    if !isolated.is_empty() && !rx.iter().any(|core| isolated.contains(core)) {
        let why = format!("{} isolated, and no worker is pinned to any", are(&isolated));
        found.push(doubt("cpu.rx", why, "name them in cpu.rx, or isolate them no longer"));
    }
    for (path, list) in others.iter().filter(|(path, _)| *path == "cpu.control") {
        let alone: Vec<u16> =
            list.iter().copied().filter(|core| topology.is_isolated(*core)).collect();
        if !alone.is_empty() && list.len() > 1 {
            let why = format!(
                "{} isolated: the scheduler moves no thread from or to them, so control's threads do \
                 not spread",
                are(&alone)
            );
            found.push(doubt(path, why, "name cores that are not isolated"));
        }
    }
    if !rx.is_empty() && plan.commands.is_empty() {
        let why = format!(
            "workers have all {} that we run on: disk, signalling and reports run between their turns",
            counted(topology.started.len(), "core")
        );
        found.push(doubt("cpu.rx", why, "leave a core to the others"));
    }
    found
}

/// `core 3 is`, `cores 3-5 are`.
fn are(cores: &[u16]) -> String {
    match cores {
        [only] => format!("core {only} is"),
        _ => format!("cores {} are", text(cores)),
    }
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

fn thousandths(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1_000, milli % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::machine::{Interrupt, Node};
    use super::*;

    fn config(rx: &str, streams: u32) -> Config {
        let mut config = Config::default();
        (config.cpu.rx, config.cpu.workers) = (rx.to_owned(), 0);
        config.media.streams_max = streams;
        config
    }

    fn machine_of(cores: u16) -> Machine {
        let all: Vec<u16> = (0..cores).collect();
        let topology =
            Topology { started: all.clone(), online: Some(all.clone()), ..Topology::default() };
        Machine { cores: all, topology, ..Machine::default() }
    }

    fn whys(found: Vec<Breach>) -> Vec<String> {
        assert!(found.iter().all(|one| one.fix.as_ref().is_none_or(|fix| !fix.is_empty())));
        found.into_iter().map(|one| format!("{}: {}", one.path, one.why)).collect()
    }

    #[test]
    fn a_worker_shares_its_core_with_nobody_who_is_named() {
        let mut config = config("2-3", 64);
        assert!(values(&config).is_empty());
        config.cpu.workers = 3;
        (config.cpu.spool, config.cpu.control) = ("4,3".to_owned(), "2-3".to_owned());
        assert_eq!(
            whys(values(&config)),
            [
                "cpu.workers: 3 workers on 2 cores of cpu.rx: each worker needs a core of its own",
                "cpu.spool: core 3 is in cpu.rx as well: packets of a worker would wait while spool runs",
                "cpu.control: cores 2,3 are in cpu.rx as well: packets of a worker would wait while \
                 control runs",
            ]
        );
    }

    #[test]
    fn streams_are_held_against_what_a_worker_takes() {
        assert!(values(&config("2-3", 2 * WORKER_STREAMS_MAX)).is_empty());
        assert_eq!(
            whys(values(&config("2-3", 2 * WORKER_STREAMS_MAX + 1))),
            [
                "media.streams_max: 20001 streams × 50 packets/s ÷ 2 workers = 500050 packets/s each; no \
              worker takes more than 500000"
            ]
        );
        assert!(doubts(&config("2-3", 2 * WORKER_STREAMS_SHOWN), &machine_of(8)).is_empty());
        assert_eq!(
            whys(doubts(&config("2-3", 5_000), &machine_of(8))),
            [
                "cpu.workers: 5000 streams × 50 packets/s ÷ 2 workers = 125000 packets/s each; 100000 on a \
              core of its own are what is measured (benches/path.sh)"
            ]
        );
    }

    #[test]
    fn a_core_that_is_not_ours_is_refused_with_the_reason() {
        let mut small = machine_of(4);
        assert!(machine(&config("3", 64), &small).is_empty());
        assert_eq!(
            whys(machine(&config("3-5", 64), &small)),
            ["cpu.rx: cores 4,5 are not among those that we may use, 0-3 (switched on are 0-3)"]
        );
        small.cores = vec![0, 1];
        small.topology.cpuset = Some(vec![0, 1]);
        assert_eq!(
            whys(machine(&config("1-2", 64), &small)),
            [
                "cpu.rx: core 2 is not among those that we may use, 0,1 (our control group allows 0,1)"
            ]
        );
    }

    #[test]
    fn two_threads_of_one_core_make_a_doubt() {
        let mut both = machine_of(4);
        both.topology.siblings = (0..4).map(|core| (core, vec![core % 2, core % 2 + 2])).collect();
        assert!(doubts(&config("1,2", 64), &both).is_empty());
        let found = whys(doubts(&config("1,3", 2_000), &both));
        assert_eq!(
            found,
            [
                "cpu.rx: workers 0 and 1 are on 1 and 3, two hardware threads of one core: 2 × 50000 \
              packets/s go through it"
            ]
        );
        let mut beside = config("1", 64);
        beside.cpu.spool = "3".to_owned();
        assert_eq!(
            whys(doubts(&beside, &both)),
            [
                "cpu.spool: core 3 is the other hardware thread of a worker's core: what runs there takes its \
              time from the packets"
            ]
        );
    }

    #[test]
    fn what_is_far_from_the_card_is_told_and_what_is_unknown_is_not() {
        let mut far = machine_of(8);
        let node = |id, cores: std::ops::Range<u16>| Node {
            id,
            cores: cores.collect(),
            memory_free_bytes: Some(1 << 30),
        };
        far.topology.nodes = vec![node(0, 0..4), node(1, 4..8)];
        let interrupt = |number, cores| Interrupt { number, name: "eth0-rx".into(), cores };
        far.cards = vec![Card {
            name: "eth0".into(),
            is_device: true,
            node: Some(1),
            interrupts: vec![interrupt(30, Some(vec![1])), interrupt(31, Some(vec![5]))],
            ..Card::default()
        }];
        assert_eq!(
            whys(doubts(&config("2,5", 64), &far)),
            [
                "cpu.rx: core 2 is on another node than eth0, which is next to node 1: each packet is \
                 fetched from the far memory",
                "media.address: 1 of 2 receive interrupts of eth0 (30) go to cores of another node than \
                 its own, 1",
            ]
        );
        far.cards[0].node = None;
        assert!(doubts(&config("2,5", 64), &far).is_empty());
        // 60 s of 4,000 streams are 2,380 MiB, half of it for each worker.
        let tight = whys(doubts(&config("2-3", 4_000), &far));
        assert_eq!(
            tight,
            [
                "store.ring_seconds: 2 workers on node 0 need 2 × 1192 MiB of ring there, 1024 MiB are \
              free: the rest lands on another node"
            ]
        );
    }

    #[test]
    fn quotas_and_isolation_are_looked_at() {
        let mut small = machine_of(4);
        small.topology.quota_milli = Some(1_500);
        let found = whys(doubts(&config("", 64), &small));
        // No list and 0 workers: one worker.
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("allows 1.5 cores' time, 1 worker and the rest need up to 2"));
        small.topology.quota_milli = Some(2_000);
        assert!(doubts(&config("", 64), &small).is_empty());
        small.topology.isolated = Some(vec![2, 3]);
        small.topology.started = vec![0, 1];
        assert!(doubts(&config("2", 64), &small).is_empty());
        let mut wrong = config("1", 64);
        wrong.cpu.control = "0,3".to_owned();
        assert_eq!(
            whys(doubts(&wrong, &small)),
            [
                "cpu.rx: cores 2,3 are isolated, and no worker is pinned to any",
                "cpu.control: core 3 is isolated: the scheduler moves no thread from or to them, so \
                 control's threads do not spread",
            ]
        );
        let greedy = whys(doubts(&config("0-1", 64), &machine_of(2)));
        assert!(greedy[0].contains("workers have all 2 cores that we run on"), "{greedy:?}");
        let mut idle = config("0-2", 64);
        idle.cpu.workers = 2;
        let idle = whys(doubts(&idle, &machine_of(4)));
        assert_eq!(idle, ["cpu.rx: core 2 is named and without a worker: there are 2"]);
    }
}
