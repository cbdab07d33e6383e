//! What the arithmetic checks need to know about the machine. `host::facts` and `host::topology` read
//! it. What the machine does not tell is `None` or empty, and is never guessed: containers hide the
//! network card, virtual machines the sockets.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Resources of this machine as this process may use them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Memory that can be had without swapping, bytes.
    pub memory_free_bytes: u64,
    /// Cores that threads of this process may be pinned to: online, and in its cpuset. Isolated ones are
    /// among them.
    pub cores: Vec<u16>,
    /// Hard limit of open descriptors.
    pub descriptors_max: u64,
    /// How the cores lie.
    pub topology: Topology,
    /// The network cards of `media.address`; only where somebody asked for them.
    pub cards: Vec<Card>,
}

/// How the cores lie, and what the kernel keeps away from them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Cores that threads of ours run on where nobody pins them: without those that are isolated, or that
    /// whoever started us left out.
    pub started: Vec<u16>,
    /// Cores that are switched on.
    pub online: Option<Vec<u16>>,
    /// Cores that our control group allows.
    pub cpuset: Option<Vec<u16>>,
    /// Cores that the scheduler puts nothing on by itself (`isolcpus=`).
    pub isolated: Option<Vec<u16>>,
    /// Cores without a timer tick while one thread runs (`nohz_full=`).
    pub tickless: Option<Vec<u16>>,
    /// By core: all hardware threads of its physical core, itself among them.
    pub siblings: BTreeMap<u16, Vec<u16>>,
    /// Memory nodes; empty where the kernel tells of none.
    pub nodes: Vec<Node>,
    /// Processor time that our control group allows, thousandths of a core.
    pub quota_milli: Option<u64>,
}

/// A memory node and its cores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: u16,
    /// Cores for which its memory is the near one.
    pub cores: Vec<u16>,
    /// Memory there that can be had: free, and what the page cache holds of files that nobody uses now.
    pub memory_free_bytes: Option<u64>,
}

/// A network card that media comes in by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// Name of its interface.
    pub name: String,
    /// Which of `media.address` it has, itself or by an interface that lies above it.
    pub addresses: Vec<IpAddr>,
    /// A device of this machine. Else it is virtual (loopback, veth): its packets are received on the
    /// core of whoever sends them.
    pub is_device: bool,
    /// Memory node that it is next to.
    pub node: Option<u16>,
    /// Receive queues.
    pub queues: Option<u32>,
    /// Interrupts of receive queues; empty where none could be told by its name.
    pub interrupts: Vec<Interrupt>,
    /// Whether its queues are emptied by threads of their own (threaded NAPI).
    pub is_threaded: Option<bool>,
    /// Those threads, with the cores they may run on.
    pub threads: Vec<(String, Vec<u16>)>,
    /// Cores that its packets are spread over in software (RPS); empty: they are not.
    pub spread: Option<Vec<u16>>,
}

/// An interrupt of a card's receive queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// Its name, mostly card and queue.
    pub name: String,
    /// Cores that it goes to.
    pub cores: Option<Vec<u16>>,
}

impl Topology {
    /// The node of `core`.
    pub fn node_of(&self, core: u16) -> Option<u16> {
        self.nodes.iter().find(|node| node.cores.contains(&core)).map(|node| node.id)
    }

    /// The other hardware threads of the physical core of `core`.
    pub fn siblings_of(&self, core: u16) -> impl Iterator<Item = u16> {
        let all = self.siblings.get(&core).map_or(&[][..], Vec::as_slice);
        all.iter().copied().filter(move |other| *other != core)
    }

    /// Whether `core` is isolated; false also where the kernel does not say.
    pub fn is_isolated(&self, core: u16) -> bool {
        self.isolated.as_ref().is_some_and(|cores| cores.contains(&core))
    }

    /// What online cores and control group leave: what we may be pinned to where the kernel is not asked
    /// itself.
    pub fn permitted(&self) -> Vec<u16> {
        let all = self.online.clone().unwrap_or_else(|| self.started.clone());
        let allowed = |core: &u16| self.cpuset.as_ref().is_none_or(|set| set.contains(core));
        all.into_iter().filter(allowed).collect()
    }
}
