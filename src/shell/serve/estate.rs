//! What outlives any one of our processes: the store's lock, the workers' memory, the port pairs.
//! Each of the three processes holds all of it, so that one survivor is enough. A role whose keeper
//! is gone goes on working and opens a door ([`open_door`]); the next keeper knocks ([`knock`]),
//! takes a copy of everything, and only then ends the survivors and starts its own roles (F03).

use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::Builder;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::base::ids::Slot;
use crate::base::limits::FRAME_FDS_MAX;
use crate::config::model::Config;
use crate::host::bypass::Diverted;
use crate::host::door;
use crate::host::sockets::Sockets;
use crate::host::survivor::{self, Survivor};
use crate::plane::handoff::frame::{Frame, Versions};
use crate::plane::keeper::Role;
use crate::shell::serve::link::{self, Link, SlotPorts, Taken, WorkerMemory};
use crate::shell::serve::steered::Steered;

/// Slots in one frame: two descriptors each.
const SLOTS_PER_FRAME: usize = FRAME_FDS_MAX / 2;
/// A process that takes longer than this to take what it asked for has changed its mind.
const HAND_OUT_WAIT: Duration = Duration::from_secs(5);

/// A role without keeper ends when nothing has been recorded for this long: a re-INVITE may close
/// every stream before it opens others, and a BYE whose answer was lost comes again within 4 s (T2,
/// RFC 3261 §17.1.2.2).
pub(super) const LINGER_S: u64 = 10;

/// Where the roles of a store can be found.
pub(super) fn folder(store: &Path) -> PathBuf {
    store.join("run")
}

/// The same, made where it is missing: for our own user only.
pub(super) fn make_folder(store: &Path) -> io::Result<PathBuf> {
    let folder = folder(store);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    Ok(folder)
}

fn door_name(role: Role) -> &'static str {
    match role {
        Role::Media => "media.sock",
        Role::Control => "control.sock",
    }
}

fn mark_path(store: &Path, role: Role) -> PathBuf {
    let name = match role {
        Role::Media => "media.pid",
        Role::Control => "control.pid",
    };
    folder(store).join(name)
}

/// Notes which process plays `role`, for a keeper that did not start it. Not synced: after a power
/// cut there is no such process.
pub(super) fn mark(store: &Path, role: Role, pid: u32) -> io::Result<()> {
    make_folder(store)?;
    std::fs::write(mark_path(store, role), survivor::mark(pid)?)
}

/// The process that was marked for `role`, if it still lives.
pub(super) fn survivor(store: &Path, role: Role) -> Option<Survivor> {
    Survivor::find(&std::fs::read_to_string(mark_path(store, role)).ok()?)
}

/// Asks whoever plays `role` for what it holds. `NotFound` or `ConnectionRefused` where nobody
/// opens, `Unsupported` where it is another version's.
pub(super) fn knock(store: &Path, role: Role) -> io::Result<Taken> {
    let (socket, peer) = door::connect(&folder(store), door_name(role))?;
    allowed(peer.uid)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(HAND_OUT_WAIT))?;
    link::take(Link::new(socket))
}

/// Whether a user may have what we hold, or ask for something: our own, or root.
pub(super) fn allowed(uid: u32) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if uid != own && uid != 0 {
        let why = format!("process of user {uid}, expected {own} or 0");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

/// What a role holds for the next keeper.
pub(super) struct Estate {
    role: Role,
    config: Config,
    lock: OwnedFd,
    memory: Vec<WorkerMemory>,
    ports: Vec<SocketAddr>,
    /// By worker: slot n is number n div workers of worker n mod workers.
    sockets: Vec<Sockets>,
}

impl Estate {
    /// All but the sockets, which follow by [`Self::with`]: they are too many to be copied on the way
    /// back from a death.
    pub(super) fn of(
        role: Role,
        config: &Config,
        lock: BorrowedFd<'_>,
        workers: &[WorkerMemory],
        slots: &[SlotPorts],
    ) -> io::Result<Self> {
        let copy = |memory: &WorkerMemory| -> io::Result<WorkerMemory> {
            Ok(WorkerMemory {
                worker: memory.worker,
                geometry: memory.geometry,
                state: memory.state.try_clone()?,
                buffers: memory.buffers.try_clone()?,
                ring: memory.ring.try_clone()?,
                steered: memory.steered.as_ref().map(Steered::try_clone).transpose()?,
                diverted: memory.diverted.as_ref().map(Diverted::try_clone).transpose()?,
            })
        };
        Ok(Estate {
            role,
            config: config.clone(),
            lock: lock.try_clone_to_owned()?,
            memory: workers.iter().map(copy).collect::<io::Result<_>>()?,
            ports: slots.iter().map(|slot| slot.address).collect(),
            sockets: Vec::new(),
        })
    }

    /// Adds the sockets, by worker.
    pub(super) fn with(self, sockets: Vec<Sockets>) -> Self {
        Estate { sockets, ..self }
    }

    fn hand_out(&self, link: &Link) -> io::Result<()> {
        let mut send = |frame, fds: &[BorrowedFd<'_>]| link.send(0, frame, fds);
        let (workers, lock) = (self.memory.len(), self.lock.as_fd());
        emit_head(&self.config, workers, self.ports.len(), Some(lock), &mut send)?;
        for memory in &self.memory {
            emit_memory(memory, &mut send)?;
        }
        let pair = |slot: usize| {
            self.sockets[slot % workers].pair(slot / workers).expect("a pair for each slot")
        };
        emit_slots(&self.ports, pair, &mut send)?;
        link.send(0, Frame::Go, &[])
    }
}

/// Whereto a frame goes with its descriptors: a link, or a letter.
pub(super) trait Sink: FnMut(Frame, &[BorrowedFd<'_>]) -> io::Result<()> {}

impl<F: FnMut(Frame, &[BorrowedFd<'_>]) -> io::Result<()>> Sink for F {}

/// What comes first: versions, the configuration that the memory was made for, the lock; then the keys of
/// an encrypted store, so that a key-encryption key that is gone stops nobody who takes over (F73).
pub(super) fn emit_head(
    config: &Config,
    workers: usize,
    slots: usize,
    lock: Option<BorrowedFd<'_>>,
    to: &mut impl Sink,
) -> io::Result<()> {
    let head = Frame::Estate {
        versions: Versions::OURS,
        config: made_for(config)?,
        workers: workers as u16,
        slots: slots as u32,
    };
    to(head, lock.as_slice())?;
    link::keys_of(&config.store.dir).map_or(Ok(()), |keys| to(keys, &[]))
}

/// Keys that memory, ports and the place of the files depend on.
const MADE_FOR: [(&str, &str); 9] = [
    ("media", "address"),
    ("media", "ports"),
    ("media", "streams_max"),
    ("cpu", "workers"),
    ("cpu", "rx"),
    ("store", "dir"),
    ("store", "journal_dir"),
    ("store", "ring_seconds"),
    ("store", "segment_mib"),
];

/// These keys as JSON of a configuration. No others: whoever reads it may be of a version that does
/// not know them (F09), and takes them from its own file. But what stands for an address that nobody
/// can send to goes with it: a version that does not know that would write the address itself.
fn made_for(config: &Config) -> serde_json::Result<String> {
    let all = serde_json::to_value(config)?;
    let mut part = serde_json::Map::new();
    let stand_in = ("media", "advertise");
    let stands_in = config.media.address.0.iter().any(IpAddr::is_unspecified);
    for (table, key) in MADE_FOR.into_iter().chain(stands_in.then_some(stand_in)) {
        let place = part.entry(table).or_insert_with(|| serde_json::json!({}));
        place[key] = all[table][key].clone();
    }
    serde_json::to_string(&part)
}

/// One worker's memory.
pub(super) fn emit_memory(memory: &WorkerMemory, to: &mut impl Sink) -> io::Result<()> {
    let frame = Frame::Memory { worker: memory.worker, geometry: memory.geometry };
    let own = [memory.state.as_fd(), memory.buffers.as_fd(), memory.ring.as_fd()];
    let steered = memory.steered.iter().flat_map(Steered::fds);
    to(frame, &own.into_iter().chain(steered).collect::<Vec<_>>())?;
    let frame = Frame::Diverted { worker: memory.worker };
    memory.diverted.as_ref().map_or(Ok(()), |diverted| to(frame, &diverted.fds()))
}

/// All slots with their sockets, as many in a frame as it can carry.
pub(super) fn emit_slots<'a>(
    ports: &[SocketAddr],
    pair: impl Fn(usize) -> [BorrowedFd<'a>; 2],
    to: &mut impl Sink,
) -> io::Result<()> {
    for (run, some) in ports.chunks(SLOTS_PER_FRAME).enumerate() {
        let first = run * SLOTS_PER_FRAME;
        let fds: Vec<_> = (first..first + some.len()).flat_map(&pair).collect();
        to(Frame::Slots { first: Slot(first as u32), ports: some.to_vec() }, &fds)?;
    }
    Ok(())
}

/// Lets the next keeper in: a thread of its own hands copies to whoever knocks, until the process
/// ends. It opens once; called again it does nothing.
pub(super) fn open_door(estate: Estate) -> io::Result<()> {
    let folder = folder(&estate.config.store.dir);
    let door = door::listen(&folder, door_name(estate.role))?;
    let serve = move || {
        loop {
            let served = door.accept().and_then(|(socket, peer)| {
                allowed(peer.uid)?;
                set_socket_timeout(&socket, Timeout::Send, Some(HAND_OUT_WAIT))?;
                tracing::info!("process {} takes over", peer.pid);
                estate.hand_out(&Link::new(socket))
            });
            if let Err(error) = served {
                tracing::warn!("a take-over failed: {error}");
            }
        }
    };
    Builder::new().name("estate".into()).spawn(serve)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::address::Listed;

    #[test]
    fn f09_only_what_memory_was_made_for_is_told_and_a_version_without_other_keys_reads_it() {
        let mut config = Config::default();
        config.media.streams_max = 77;
        config.store.ring_seconds = 9;
        config.store.dir = "/srv/tape".into();
        config.store.reserve_minutes += 1;
        let text = made_for(&config).expect("JSON");
        assert!(!text.contains("reserve"), "{text}");
        for (_, key) in MADE_FOR {
            assert!(text.contains(&format!("\"{key}\":")), "{key} of {text}");
        }
        let held: Config = serde_json::from_str(&text).expect("a configuration");
        assert_eq!(held.store.dir, config.store.dir);
        assert_eq!(held.ring_bytes(), config.ring_bytes());
        assert_eq!(held.slot_count(), config.slot_count());
        // As versions before wrote it.
        assert!(text.contains("\"address\":\"127.0.0.1\""), "{text}");
        assert!(!text.contains("advertise"), "{text}");
        config.media.address = Listed(vec![[0, 0, 0, 0].into(), [127, 0, 0, 2].into()]);
        config.media.advertise = Some(Listed(vec![[192, 0, 2, 1].into()]));
        let text = made_for(&config).expect("JSON");
        let held: Config = serde_json::from_str(&text).expect("a configuration");
        assert_eq!(held.media.address, config.media.address);
        assert_eq!(held.media.advertise, config.media.advertise);
    }
}
