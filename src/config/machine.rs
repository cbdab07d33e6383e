//! What the arithmetic checks need to know about the machine. `host::facts` reads it.

/// Resources of this machine as this process may use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Memory that can be had without swapping, bytes.
    pub memory_free_bytes: u64,
    /// Cores this process may run on.
    pub cores: Vec<u16>,
    /// Hard limit of open descriptors.
    pub descriptors_max: u64,
}
