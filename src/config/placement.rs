//! Which thread runs on which core: what `[cpu]` and the machine's cores come to. Media, control and
//! `check` ask the same plan, so that what is shown is what happens.
//!
//! Workers are pinned to one core each. Whatever has no list of its own runs on *the rest*: the cores
//! that the server was started on, without those of the workers, without isolated ones, and, where
//! that leaves any, without the hardware threads beside a worker's. A spool without a list takes the
//! part of the rest that is next to its worker's memory. Where `cpu.rx` is empty nothing is pinned but
//! what has a list.

use super::cores;
use super::machine::Topology;
use super::model::Config;
use crate::base::ids::WorkerId;

/// The plan. An empty list of cores: not pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// By worker.
    pub workers: Vec<Place>,
    /// Control, with the threads that it starts.
    pub control: Vec<u16>,
    /// Media's command thread: commands, RTCP, figures; and the sealing of workers that are no more.
    pub commands: Vec<u16>,
}

/// Where a worker, its spool and its helper run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Core of the worker.
    pub core: Option<u16>,
    /// Cores of its spool, and of the thread that keeps its ring's memory ready.
    pub spool: Vec<u16>,
}

impl Placement {
    /// The plan for `config` on cores that lie like that.
    pub fn of(config: &Config, topology: &Topology) -> Self {
        let list = |text: &str| cores::parse(text).unwrap_or_default();
        let (rx, spool) = (list(&config.cpu.rx), list(&config.cpu.spool));
        let control = list(&config.cpu.control);
        let rest = if rx.is_empty() { Vec::new() } else { rest(&rx, topology) };
        let place = |worker: u16| {
            let core = nth(&rx, worker);
            let spool = match nth(&spool, worker) {
                Some(own) => vec![own],
                None => near(core, &rest, topology),
            };
            Place { core, spool }
        };
        Placement {
            workers: (0..config.worker_count()).map(place).collect(),
            control: if control.is_empty() { rest.clone() } else { control },
            commands: rest,
        }
    }

    /// The place of `worker`; not pinned where the plan has none.
    pub fn worker(&self, worker: WorkerId) -> Place {
        self.workers.get(usize::from(worker.0)).cloned().unwrap_or_default()
    }
}

/// Core number `worker` of a list; workers beyond it begin it again.
fn nth(list: &[u16], worker: u16) -> Option<u16> {
    usize::from(worker).checked_rem(list.len()).map(|place| list[place])
}

/// The rest, see the module; empty where the workers have all cores.
fn rest(rx: &[u16], topology: &Topology) -> Vec<u16> {
    let is_free = |core: &u16| !rx.contains(core) && !topology.is_isolated(*core);
    let free: Vec<u16> = topology.started.iter().copied().filter(is_free).collect();
    let beside = |core: &u16| topology.siblings_of(*core).any(|other| rx.contains(&other));
    let apart: Vec<u16> = free.iter().copied().filter(|core| !beside(core)).collect();
    if apart.is_empty() { free } else { apart }
}

/// The part of `rest` on the node of `core`; all of it where there is none.
fn near(core: Option<u16>, rest: &[u16], topology: &Topology) -> Vec<u16> {
    let node = core.and_then(|core| topology.node_of(core));
    let same = |other: &u16| node.is_some() && topology.node_of(*other) == node;
    let near: Vec<u16> = rest.iter().copied().filter(same).collect();
    if near.is_empty() { rest.to_vec() } else { near }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Node;
    use super::*;

    /// Two nodes of four cores with two hardware threads each: 0-3 and 8-11, 4-7 and 12-15.
    fn two_sockets() -> Topology {
        let node = |id: u16, cores: &str| Node {
            id,
            cores: cores::parse(cores).expect("a list"),
            memory_free_bytes: None,
        };
        Topology {
            started: (0..16).collect(),
            siblings: (0..16).map(|core| (core, vec![core % 8, core % 8 + 8])).collect(),
            nodes: vec![node(0, "0-3,8-11"), node(1, "4-7,12-15")],
            ..Topology::default()
        }
    }

    fn config(rx: &str, workers: u16) -> Config {
        let mut config = Config::default();
        (config.cpu.rx, config.cpu.workers) = (rx.to_owned(), workers);
        config
    }

    #[test]
    fn without_a_list_nothing_is_pinned() {
        let plan = Placement::of(&config("", 2), &two_sockets());
        assert_eq!(plan.workers, [Place::default(), Place::default()]);
        assert!(plan.control.is_empty() && plan.commands.is_empty());
    }

    #[test]
    fn what_has_no_list_keeps_off_the_workers_cores_and_the_threads_beside_them() {
        let plan = Placement::of(&config("2,6", 0), &two_sockets());
        assert_eq!(plan.workers[0].core, Some(2));
        assert_eq!(cores::text(&plan.commands), "0,1,3-5,7-9,11-13,15");
        assert_eq!(plan.control, plan.commands);
        // Each spool beside its worker's memory.
        assert_eq!(cores::text(&plan.workers[0].spool), "0,1,3,8,9,11");
        assert_eq!(cores::text(&plan.workers[1].spool), "4,5,7,12,13,15");
    }

    #[test]
    fn isolated_cores_are_for_who_is_pinned_to_them() {
        let isolated = Some(vec![2, 3, 10, 11]);
        let topology = Topology { isolated, ..two_sockets() };
        let plan = Placement::of(&config("2", 1), &topology);
        assert_eq!(cores::text(&plan.commands), "0,1,4-9,12-15");
        // Whoever starts us without them says the same.
        let topology = Topology { started: vec![0, 1], ..two_sockets() };
        assert_eq!(Placement::of(&config("2", 1), &topology).control, [0, 1]);
    }

    #[test]
    fn a_thread_beside_a_worker_is_better_than_its_core() {
        let topology = Topology {
            started: vec![0, 1],
            siblings: [(0, vec![0, 1]), (1, vec![0, 1])].into(),
            ..Topology::default()
        };
        let plan = Placement::of(&config("1", 1), &topology);
        assert_eq!(
            (plan.commands.as_slice(), plan.workers[0].spool.as_slice()),
            (&[0][..], &[0][..])
        );
        // Nothing is left: not pinned.
        let plan = Placement::of(&config("0-1", 0), &topology);
        assert!(plan.commands.is_empty() && plan.workers[1].spool.is_empty());
    }

    #[test]
    fn lists_are_followed_in_their_order_and_begun_again() {
        let mut config = config("7,2", 3);
        (config.cpu.spool, config.cpu.control) = ("4".to_owned(), "0-1".to_owned());
        let plan = Placement::of(&config, &two_sockets());
        let cores: Vec<_> = plan.workers.iter().map(|place| place.core).collect();
        assert_eq!(cores, [Some(7), Some(2), Some(7)]);
        assert!(plan.workers.iter().all(|place| place.spool == [4]));
        assert_eq!(
            (plan.control.as_slice(), plan.worker(WorkerId(9))),
            (&[0, 1][..], Place::default())
        );
    }
}
