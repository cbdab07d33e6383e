//! Frames that are diverted at the card: makes the queues of all workers and puts the program there.

use crate::config::model::{Config, Engine};
use crate::host::bypass::Diverted;
use crate::host::xdp::{Card, Diversion};
use crate::host::xsk::QueueFds;
use crate::shell::exit::{Exit, Failure};

/// For each worker what diverts its frames, where that is wanted: worker n has queue n of the card. `ports`:
/// the RTP port of each slot; slot n belongs to worker n mod workers.
pub(super) fn make(
    config: &Config,
    ports: impl Iterator<Item = u16> + Clone,
) -> Result<Vec<Diverted>, Failure> {
    let (Engine::Xdp, Some(interface)) = (config.media.engine, &config.media.interface) else {
        return Ok(Vec::new());
    };
    let refuse = |what: &str, error: std::io::Error| {
        let why = format!("media.engine is \"xdp\", and {what}: {error}");
        Failure::new(Exit::Config, why)
    };
    let card =
        Card::named(interface).map_err(|error| refuse("media.interface is no card", error))?;
    let workers = config.worker_count();
    let queues = (0..workers)
        .map(|worker| {
            let name = format!("floortape-frames-{worker}");
            QueueFds::make(&name, card.index, worker.into()).map_err(|error| {
                refuse(&format!("worker {worker} cannot have queue {worker} of {interface}"), error)
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let places = ports.enumerate().flat_map(|(slot, port)| {
        let worker = (slot % usize::from(workers)) as u16;
        [(port, worker), (port + 1, worker)]
    });
    let sockets: Vec<_> = queues.iter().map(|queue| queue.fds()[1]).collect();
    let (diversion, place) = Diversion::make(&card, &config.media.address.0, places, &sockets)
        .map_err(|error| refuse(&format!("the program cannot be put at {interface}"), error))?;
    tracing::info!("frames are diverted at {interface}, {place}, to {workers} queues");
    let one = |queue| Ok(Diverted { diversion: diversion.try_clone()?, queue });
    Ok(queues.into_iter().map(one).collect::<std::io::Result<_>>()?)
}
