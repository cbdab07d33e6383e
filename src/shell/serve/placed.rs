//! Puts our threads where the plan ([`crate::config::placement`]) wants them.

use std::path::Path;

use crate::config::cores;
use crate::config::machine::Topology;
use crate::config::model::Config;
use crate::config::placement::Placement;
use crate::host::{affinity, topology};

/// The plan for this machine. Asked by a thread that is not pinned yet: where it may run is where the rest
/// may.
pub(super) fn plan(config: &Config) -> Placement {
    // Without cores for workers there is no rest either, and nothing to ask the machine for.
    let topology = match config.cpu.rx.trim() {
        "" => Topology::default(),
        _ => topology::read(Path::new("/")),
    };
    Placement::of(config, &topology)
}

/// Pins the calling thread, `what`, and those that it starts, to `cores`; nothing for an empty list. A core
/// that cannot be had, which `check` refuses, is no reason not to record.
pub(super) fn pin(key: &str, what: &str, cores: &[u16]) {
    if let Err(error) = affinity::pin(cores) {
        tracing::warn!("{key}: cannot pin {what} to {}: {error}", cores::text(cores));
    }
}
