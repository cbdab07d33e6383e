//! What the service manager holds for us while none of our processes lives (F04): the frames by
//! which a role hands over what it holds, each a letter. They come back at the next start in any
//! order.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::host::letter;
use crate::plane::handoff::frame::{Frame, Versions};
use crate::shell::serve::link::{self, SlotPorts, WorkerMemory};

/// What was handed back, complete.
pub(super) struct Stored {
    pub(super) config: crate::config::model::Config,
    pub(super) workers: Vec<WorkerMemory>,
    pub(super) slots: Vec<SlotPorts>,
}

/// Puts together what the manager handed back, made for `store`. `None`: nothing, or nothing that we
/// can go on from; the log says why.
pub(super) fn claim(handed: &[OwnedFd], store: &Path) -> Option<Stored> {
    if handed.is_empty() {
        return None;
    }
    let fits = |stored: Stored| {
        let made_for = &stored.config.store.dir;
        if made_for == store {
            return Ok(stored);
        }
        let why = format!("it belongs to the store {}", made_for.display());
        Err(io::Error::other(why))
    };
    match assemble(handed).and_then(fits) {
        Ok(stored) => Some(stored),
        Err(error) => {
            tracing::error!(
                "what the service manager held cannot be taken up, starting without it: {error}"
            );
            None
        }
    }
}

fn assemble(handed: &[OwnedFd]) -> io::Result<Stored> {
    let (mut head, mut workers, mut slots) = (None, BTreeMap::new(), BTreeMap::new());
    for one in handed {
        let received = link::parse(letter::read(one.as_fd()))?;
        match received.frame {
            Frame::Estate { versions, config, workers, slots } => {
                head = Some((versions, config, workers, slots));
            }
            Frame::Memory { .. } => {
                let memory = link::memory(received)?;
                workers.insert(memory.worker.0, memory);
            }
            Frame::Slots { .. } => {
                slots.extend(link::slots(received)?.into_iter().map(|slot| (slot.slot.0, slot)));
            }
            _ => return Err(io::Error::other("a frame that says nothing of what is held")),
        }
    }
    let (versions, config, workers_wanted, slots_wanted) =
        head.ok_or_else(|| incomplete("the head", 0, 1))?;
    if versions != Versions::OURS {
        let why = format!("it is of {versions}; this binary knows {}", Versions::OURS);
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    if workers.len() != usize::from(workers_wanted) {
        return Err(incomplete("workers", workers.len(), workers_wanted.into()));
    }
    if slots.len() != slots_wanted as usize {
        return Err(incomplete("port pairs", slots.len(), slots_wanted as usize));
    }
    Ok(Stored {
        config: serde_json::from_str(&config)?,
        workers: workers.into_values().collect(),
        slots: slots.into_values().collect(),
    })
}

fn incomplete(what: &str, found: usize, expected: usize) -> io::Error {
    let why = format!("{what}: {found} of {expected} are there");
    io::Error::new(io::ErrorKind::NotFound, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::WorkerId;
    use crate::config::model::Config;
    use crate::host::{mapped, socket};
    use crate::plane::handoff::layout::Geometry;
    use crate::shell::serve::estate;

    fn memory(worker: u16) -> WorkerMemory {
        let geometry = Geometry { slot_count: 1, ring_bytes: 2 << 20 };
        let make = |part| mapped::create(part, 4_096).expect("memory");
        let (state, buffers, ring) = (make("state"), make("buffers"), make("ring"));
        WorkerMemory { worker: WorkerId(worker), geometry, state, buffers, ring }
    }

    #[test]
    fn f04_letters_are_put_together_in_any_order_and_refused_where_one_is_missing() {
        let workers = [memory(0), memory(1)];
        let address = "127.0.0.1".parse().expect("an address");
        let pairs = socket::reserve(address, 41_000, 41_999, 130).expect("ports");
        let ports: Vec<_> = pairs.iter().map(|pair| pair.address).collect();
        let mut letters = Vec::new();
        let mut write = |frame, fds: &[std::os::fd::BorrowedFd<'_>]| {
            letters.push(letter::write(&link::emit(0, frame, fds), fds)?);
            Ok(())
        };
        let config = Config::default();
        estate::emit_head(&config, workers.len(), pairs.len(), None, &mut write).expect("written");
        for memory in &workers {
            estate::emit_memory(memory, &mut write).expect("written");
        }
        let pair = |slot: usize| [pairs[slot].rtp.as_fd(), pairs[slot].rtcp.as_fd()];
        estate::emit_slots(&ports, pair, &mut write).expect("written");
        letters.reverse();
        assert_eq!(letters.len(), 5);
        let home = &config.store.dir;
        let stored = claim(&letters, home).expect("complete");
        assert!(claim(&letters, Path::new("/elsewhere")).is_none(), "another store's");
        let found: Vec<_> = stored.slots.iter().map(|slot| slot.address).collect();
        assert_eq!(found, ports);
        assert_eq!(stored.workers.iter().map(|m| m.worker.0).collect::<Vec<_>>(), [0, 1]);
        for left_out in 0..letters.len() {
            let copy = |fd: &OwnedFd| fd.try_clone().expect("a copy");
            let mut some: Vec<_> = letters.iter().map(copy).collect();
            some.remove(left_out);
            assert!(claim(&some, home).is_none(), "without letter {left_out}");
        }
        assert!(claim(&[], home).is_none());
    }
}
