//! What `[cpu]` could say on this machine, for whoever has not said it yet.

use super::cores::text;
use super::machine::{Machine, Topology};
use super::model::Config;
use crate::base::limits::WORKER_STREAMS_SHOWN;

/// Cores for workers, each a physical one of its own: as many as `media.streams_max` wants, isolated ones
/// first, then those next to the cards, and never the first core that the server was started on, which
/// is left to everything else. Returns the value of `cpu.rx`, to go with `workers = 0`; `None` where
/// there is nothing to choose, or where `cpu.rx` says something already.
pub fn proposal(config: &Config, machine: &Machine) -> Option<String> {
    let topology = &machine.topology;
    if !config.cpu.rx.trim().is_empty() {
        return None;
    }
    let rest = *topology.started.iter().find(|core| machine.cores.contains(core))?;
    let is_whole = |core: &u16| {
        *core != rest && topology.siblings_of(*core).all(|other| other > *core && other != rest)
    };
    let mut free: Vec<u16> = machine.cores.iter().copied().filter(is_whole).collect();
    let near = cards_node(machine);
    let rank = |core: u16| {
        let is_far = near.is_some() && topology.node_of(core) != near;
        (!topology.is_isolated(core), is_far, core)
    };
    free.sort_by_key(|core| rank(*core));
    let wanted = config.media.streams_max.div_ceil(WORKER_STREAMS_SHOWN) as usize;
    free.truncate(wanted.max(usize::from(config.cpu.workers)));
    (!free.is_empty()).then(|| text(&free))
}

/// The node of all cards, where they have one and the same.
fn cards_node(machine: &Machine) -> Option<u16> {
    let Topology { nodes, .. } = &machine.topology;
    let mut found = machine.cards.iter().filter(|card| card.is_device).map(|card| card.node);
    let first = found.next()??;
    let same = found.all(|node| node == Some(first));
    (same && nodes.len() > 1).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::super::machine::{Card, Node};
    use super::*;

    fn machine() -> Machine {
        let all: Vec<u16> = (0..16).collect();
        let node = |id, cores: [std::ops::Range<u16>; 2]| Node {
            id,
            cores: cores.into_iter().flatten().collect(),
            memory_free_bytes: None,
        };
        let topology = Topology {
            started: all.clone(),
            siblings: (0..16).map(|core| (core, vec![core % 8, core % 8 + 8])).collect(),
            nodes: vec![node(0, [0..4, 8..12]), node(1, [4..8, 12..16])],
            ..Topology::default()
        };
        Machine { cores: all, topology, ..Machine::default() }
    }

    fn of(streams: u32, machine: &Machine) -> Option<String> {
        let mut config = Config::default();
        config.media.streams_max = streams;
        proposal(&config, machine)
    }

    #[test]
    fn a_worker_gets_a_whole_core_next_to_the_card() {
        let mut one = machine();
        assert_eq!(of(64, &one).as_deref(), Some("1"));
        assert_eq!(of(5_000, &one).as_deref(), Some("1-3"));
        one.cards = vec![Card { is_device: true, node: Some(1), ..Card::default() }];
        assert_eq!(of(5_000, &one).as_deref(), Some("4-6"));
        one.topology.isolated = Some(vec![2, 10]);
        assert_eq!(of(5_000, &one).as_deref(), Some("2,4,5"));
        // All but the first core, whose other thread is 8.
        assert_eq!(of(32_000, &one).as_deref(), Some("1-7"));
    }

    #[test]
    fn where_there_is_one_core_nothing_is_proposed() {
        let mut one = machine();
        one.cores = vec![3];
        one.topology.started = vec![3];
        assert_eq!(of(64, &one), None);
        // Two threads of one core.
        one.cores = vec![0, 8];
        one.topology.started = vec![0, 8];
        assert_eq!(of(64, &one), None);
        let mut config = Config::default();
        config.cpu.rx = "2".to_owned();
        assert_eq!(proposal(&config, &machine()), None);
    }
}
