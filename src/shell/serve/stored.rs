//! What the service manager holds for us while none of our processes lives (F04): the frames by
//! which a role hands over what it holds, each a letter. They come back at the next start in any
//! order.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::base::ports::Region;
use crate::host::mapped::Mapped;
use crate::host::{letter, volume};
use crate::plane::handoff::frame::{Frame, Versions};
use crate::plane::handoff::layout::AT_INCARNATION;
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
        if made_for != store {
            let why = format!("it belongs to the store {}", made_for.display());
            return Err(io::Error::other(why));
        }
        outrun(&stored.workers, store)?;
        Ok(stored)
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

/// Whether `handed` holds the memory of `workers`: the same files, not only of the same store.
pub(super) fn is_of(handed: &[OwnedFd], workers: &[WorkerMemory]) -> bool {
    let file = |memory: &WorkerMemory| {
        let found = rustix::fs::fstat(&memory.state).ok()?;
        Some((found.st_dev, found.st_ino))
    };
    assemble(handed).is_ok_and(|stored| {
        stored.workers.len() == workers.len()
            && stored.workers.iter().zip(workers).all(|(one, other)| file(one) == file(other))
    })
}

/// An error where the store was used by memory that was made after this one, by a server that the
/// manager did not start: positions of this ring stand for other packets there.
fn outrun(workers: &[WorkerMemory], store: &Path) -> io::Result<()> {
    // What cannot be read refuses the start later on, in its own words.
    let Ok(volume) = volume::read(store) else { return Ok(()) };
    for memory in workers {
        let words = Mapped::map(memory.state.as_fd(), memory.geometry.state_bytes())?;
        let used = words.load(AT_INCARNATION);
        if used < volume.memory_from {
            let why = format!(
                "another server has used the store since: this memory was last used by incarnation \
                 {used}, and other memory was made for {} and later; what of it was not durable \
                 is lost",
                volume.memory_from
            );
            return Err(io::Error::other(why));
        }
    }
    Ok(())
}

fn assemble(handed: &[OwnedFd]) -> io::Result<Stored> {
    let (mut head, mut workers, mut slots) = (None, BTreeMap::new(), BTreeMap::new());
    let mut diverted = BTreeMap::new();
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
            Frame::Diverted { worker } => {
                diverted.insert(worker.0, link::diverted(received.fds)?);
            }
            Frame::Slots { .. } => {
                slots.extend(link::slots(received)?.into_iter().map(|slot| (slot.slot.0, slot)));
            }
            frame @ Frame::Keys { .. } => link::keep_keys(frame)?,
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
    for (worker, memory) in &mut workers {
        memory.diverted = diverted.remove(worker);
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
        let make = |part, bytes| mapped::create(part, bytes).expect("memory");
        let state = make("state", geometry.state_bytes());
        let (buffers, ring) = (make("buffers", 4_096), make("ring", 4_096));
        let worker = WorkerId(worker);
        WorkerMemory { worker, geometry, state, buffers, ring, steered: None, diverted: None }
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

    #[test]
    fn f04_memory_that_the_store_has_outrun_is_refused() {
        let home = std::env::temp_dir().join(format!("floortape-outrun-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).expect("a temp folder");
        let mut config = Config::default();
        config.store.dir = home.clone();
        let workers = [memory(0)];
        let mut letters = Vec::new();
        let mut write = |frame, fds: &[std::os::fd::BorrowedFd<'_>]| {
            letters.push(letter::write(&link::emit(0, frame, fds), fds)?);
            Ok(())
        };
        estate::emit_head(&config, 1, 0, None, &mut write).expect("written");
        estate::emit_memory(&workers[0], &mut write).expect("written");
        let (mut volume, first) = volume::open(&home, "id").expect("fresh");
        let words = Mapped::map(workers[0].state.as_fd(), workers[0].geometry.state_bytes());
        words.expect("ours").store(AT_INCARNATION, first);
        assert!(claim(&letters, &home).is_some(), "made by a version that notes nothing");
        volume::begin_memory(&home, &mut volume, first).expect("room");
        assert!(claim(&letters, &home).is_some(), "its own first incarnation");
        let (mut volume, next) = volume::open(&home, "id").expect("there");
        assert!(claim(&letters, &home).is_some(), "a keeper that died before it made anything");
        volume::begin_memory(&home, &mut volume, next).expect("room");
        assert!(claim(&letters, &home).is_none(), "another run's memory was made since");
        assert!(is_of(&letters, &workers), "the same files");
        assert!(!is_of(&letters, &[memory(0)]), "others of the same sizes");
        std::fs::remove_dir_all(home).expect("ours");
    }
}
