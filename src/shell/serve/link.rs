//! The links between our processes as roles use them: frames with their descriptors, for a thread
//! ([`Link`]) and for tokio ([`AsyncLink`]), and what a child is given at its start ([`Start`]).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::base::ids::{Slot, WorkerId};
use crate::base::limits::FRAME_BYTES_MAX;
use crate::base::ports::Clock;
use crate::base::time::Mono;
use crate::config::model::Config;
use crate::host::bypass::Diverted;
use crate::host::clock::SystemClock;
use crate::host::process;
use crate::host::seqpacket::SeqPacket;
use crate::host::unlocked;
use crate::plane::handoff::frame::{Envelope, Frame, FrameError, Versions, WireStoreKey};
use crate::plane::handoff::layout::Geometry;
use crate::shell::serve::steered::Steered;

/// How often a spare that waits says so.
const BEAT_MS: i64 = 1_000;

/// A frame as it arrived.
pub struct Received {
    /// Request id; 0 for notices.
    pub id: u64,
    /// The body.
    pub frame: Frame,
    /// The descriptors that travelled with it, as many as its head says.
    pub fds: Vec<OwnedFd>,
}

/// One end of a link, for a thread. A link has one reader.
pub struct Link {
    socket: SeqPacket,
    buffer: Vec<u8>,
}

impl Link {
    /// Takes over an end.
    pub fn new(socket: SeqPacket) -> Self {
        Link { socket, buffer: vec![0; FRAME_BYTES_MAX] }
    }

    /// Takes over a descriptor that arrived in a `Link` frame.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        SeqPacket::from_fd(fd).map(Self::new)
    }

    /// Another handle of the same end, for sending from another thread.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.socket.try_clone().map(Self::new)
    }

    /// Sends a frame; waits while the peer's queue is full.
    pub fn send(&self, id: u64, frame: Frame, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.socket.send(&emit(id, frame, fds), fds)
    }

    /// Sends a frame, or `WouldBlock` where the peer's queue is full.
    pub fn try_send(&self, id: u64, frame: Frame, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.socket.try_send(&emit(id, frame, fds), fds)
    }

    /// As [`Self::try_send`] without descriptors; gives the frame back where it did not leave.
    pub fn try_send_or_return(&self, id: u64, frame: Frame) -> Result<(), (Frame, io::Error)> {
        let envelope = Envelope { id, fds: 0, frame };
        self.socket.try_send(&envelope.emit(), &[]).map_err(|error| (envelope.frame, error))
    }

    /// Waits for a frame. `UnexpectedEof` where the peer has closed its end.
    pub fn recv(&mut self) -> io::Result<Received> {
        parse(self.socket.recv(&mut self.buffer))
    }

    /// The next frame, or `WouldBlock`. `UnexpectedEof` where the peer has closed its end.
    pub fn try_recv(&mut self) -> io::Result<Received> {
        parse(self.socket.try_recv(&mut self.buffer))
    }

    /// Waits for a frame, or for the peer to be gone, but no longer than that.
    fn is_readable_within(&self, ms: i64) -> io::Result<bool> {
        let timeout = Timespec { tv_sec: ms / 1_000, tv_nsec: ms % 1_000 * 1_000_000 };
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The same end for tokio; call it within a runtime.
    #[expect(
        deprecated,
        reason = "deprecated for types whose descriptor may change or close while registered; a \
                  SeqPacket owns one descriptor for its whole life, and unsafe stays in host"
    )]
    pub fn into_async(self) -> io::Result<AsyncLink> {
        let both = Interest::READABLE | Interest::WRITABLE;
        let (socket, buffer) = (AsyncFd::with_interest(self.socket, both)?, self.buffer);
        Ok(AsyncLink { socket, buffer: Mutex::new(buffer) })
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One end of a link, for tokio. `send` may be called by several tasks; `recv` by one.
pub struct AsyncLink {
    socket: AsyncFd<SeqPacket>,
    /// Made once: a frame's worth of zeros for each attempt would cost more than all else.
    buffer: Mutex<Vec<u8>>,
}

impl AsyncLink {
    /// Sends a frame. Not cancelled half-way: a frame leaves whole or not at all.
    pub async fn send(&self, id: u64, frame: Frame, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = emit(id, frame, fds);
        self.socket.async_io(Interest::WRITABLE, |socket| socket.try_send(&bytes, fds)).await
    }

    /// Sends a frame that was made ready before; it may be tried again when this is cancelled.
    pub async fn send_envelope(&self, envelope: &Envelope) -> io::Result<()> {
        let bytes = envelope.emit();
        self.socket.async_io(Interest::WRITABLE, |socket| socket.try_send(&bytes, &[])).await
    }

    /// Waits for a frame; may be cancelled without losing one. `UnexpectedEof` where the peer has
    /// closed its end.
    pub async fn recv(&self) -> io::Result<Received> {
        let received = self.socket.async_io(Interest::READABLE, |socket| {
            socket.try_recv(&mut self.buffer.lock().expect("nobody panics with it"))
        });
        parse(received.await)
    }
}

/// The bytes of a frame that travels with `fds`.
pub fn emit(id: u64, frame: Frame, fds: &[BorrowedFd<'_>]) -> Vec<u8> {
    Envelope { id, fds: fds.len() as u16, frame }.emit()
}

/// The frame in what a socket gave.
pub fn parse(received: io::Result<(Vec<u8>, Vec<OwnedFd>)>) -> io::Result<Received> {
    let (bytes, fds) = match received {
        Ok((bytes, _)) if bytes.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
        // A peer that died with frames of ours unread: closed all the same (unix(7)).
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        other => other?,
    };
    let envelope = Envelope::parse(&bytes).map_err(|error| match error {
        FrameError::Version { .. } => io::Error::new(io::ErrorKind::Unsupported, error),
        other => wrong(other),
    })?;
    if fds.len() != usize::from(envelope.fds) {
        let (expected, found) = (envelope.fds, fds.len());
        return Err(wrong(format!("a frame of {expected} descriptors came with {found}")));
    }
    Ok(Received { id: envelope.id, frame: envelope.frame, fds })
}

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Shared memory of one worker: descriptors of state, buffers and ring; and the sockets that its ports
/// are steered to, if they are.
pub struct WorkerMemory {
    /// Worker.
    pub worker: WorkerId,
    /// Sizes.
    pub geometry: Geometry,
    /// State.
    pub state: OwnedFd,
    /// Receive buffers.
    pub buffers: OwnedFd,
    /// Ring.
    pub ring: OwnedFd,
    /// What steers its ports.
    pub steered: Option<Steered>,
    /// What diverts its frames.
    pub diverted: Option<Diverted>,
}

/// A reserved port pair.
pub struct SlotPorts {
    /// Number.
    pub slot: Slot,
    /// Address of the RTP socket; RTCP is one port above.
    pub address: SocketAddr,
    /// RTP and RTCP socket.
    pub sockets: Option<(OwnedFd, OwnedFd)>,
}

/// Everything a child is given before it begins.
pub struct Start {
    /// When this role began.
    pub began: Mono,
    /// When keeper let it go; of a spare, when it had everything else.
    pub go: Mono,
    /// A spare: its predecessor lives, and nothing of what it works on may be touched before
    /// [`Start::wait_for_go`].
    pub spare: bool,
    /// The link to keeper.
    pub keeper: Link,
    /// The validated configuration; `store.dir` is absolute.
    pub config: Config,
    /// How often this role has been started under this keeper, 1 first.
    pub start: u64,
    /// Whether a predecessor died under this keeper.
    pub successor: bool,
    /// Whether the run before this keeper's did not end cleanly (F06).
    pub unclean: bool,
    /// Whether nobody before this keeper recorded into the memory.
    pub fresh: bool,
    /// The store's lock. Hold it to the end: nobody may open the store while a role still writes.
    pub lock: OwnedFd,
    /// Memory by worker; control only holds it, for whoever takes over (F03).
    pub workers: Vec<WorkerMemory>,
    /// All slots, by number.
    pub slots: Vec<SlotPorts>,
    /// Signalling sockets, for control: UDP, TCP and TLS in the order of the configuration.
    pub signalling: Vec<OwnedFd>,
    /// The link to the other role, if it runs; a later one comes as a `Link` frame and replaces it.
    pub peer: Option<Link>,
}

impl Start {
    /// What a spare does once it is ready: says so, and waits until it is needed. `UnexpectedEof` where
    /// keeper has no use for it any more. At once where this is none.
    pub fn wait_for_go(&mut self) -> io::Result<()> {
        if self.spare {
            self.keeper.send(0, Frame::Ready, &[])?;
            while !self.keeper.is_readable_within(BEAT_MS)? {
                // Where keeper is gone the next look says so.
                let _ = self.keeper.try_send(0, Frame::Beat, &[]);
            }
            let Contents { peer, waits, .. } = contents(&mut self.keeper)?;
            if waits {
                return Err(wrong("expected Link or Go after Wait"));
            }
            self.go = SystemClock.mono();
            self.peer = peer;
        }
        Ok(())
    }
}

/// Takes what keeper gives a child, up to `Go` or `Wait`. Call it first in a role.
pub fn start() -> io::Result<Start> {
    start_on(Link::from_fd(process::inherited_link()?)?)
}

/// The same over a link in hand: a role in a thread is handed its start by the very same frames.
pub fn start_on(mut keeper: Link) -> io::Result<Start> {
    let began = SystemClock.mono();
    let Received {
        frame: Frame::Setup { config, start, successor, unclean, fresh }, mut fds, ..
    } = keeper.recv()?
    else {
        return Err(wrong("expected Setup as the first frame"));
    };
    #[cfg(feature = "faults")]
    crate::host::faults::arm(start);
    let lock = fds.pop().ok_or_else(|| wrong("expected the store's lock with Setup"))?;
    let config = serde_json::from_str(&config)?;
    let Contents { workers, slots, signalling, peer, waits: spare } = contents(&mut keeper)?;
    let go = SystemClock.mono();
    Ok(Start {
        began,
        go,
        spare,
        keeper,
        config,
        start,
        successor,
        unclean,
        fresh,
        lock,
        workers,
        slots,
        signalling,
        peer,
    })
}

/// What stands between the first frame and `Go` or `Wait`.
struct Contents {
    workers: Vec<WorkerMemory>,
    slots: Vec<SlotPorts>,
    signalling: Vec<OwnedFd>,
    peer: Option<Link>,
    /// It was `Wait`.
    waits: bool,
}

fn contents(from: &mut Link) -> io::Result<Contents> {
    let (mut workers, mut slots, mut signalling) = (Vec::new(), Vec::new(), Vec::new());
    let mut peer = None;
    loop {
        let received = from.recv()?;
        match received.frame {
            Frame::Memory { .. } => workers.push(memory(received)?),
            Frame::Diverted { worker } => {
                let own =
                    workers.iter_mut().find(|memory: &&mut WorkerMemory| memory.worker == worker);
                let own = own.ok_or_else(|| wrong("expected Memory before Diverted"))?;
                own.diverted = Some(diverted(received.fds)?);
            }
            Frame::Slots { .. } => slots.extend(self::slots(received)?),
            Frame::Signalling => signalling.extend(received.fds),
            // Before anything of the store is read.
            frame @ Frame::Keys { .. } => keep_keys(frame)?,
            Frame::Link => peer = one(received.fds)?,
            Frame::Wait => return Ok(Contents { workers, slots, signalling, peer, waits: true }),
            Frame::Go => {
                #[cfg(feature = "faults")]
                match std::env::args().next().as_deref() {
                    Some("floortape-media" | "floortape-spare") => {
                        crate::base::faults::pass("worker.before_go")
                    }
                    Some("floortape-control") => crate::base::faults::pass("control.before_go"),
                    _ => {}
                }
                return Ok(Contents { workers, slots, signalling, peer, waits: false });
            }
            _ => return Err(wrong("expected Memory, Slots, Link or Go before the start")),
        }
    }
}

/// The keys of the store at `store`, for who comes after us; `None`: it is not encrypted.
pub fn keys_of(store: &Path) -> Option<Frame> {
    let unlocked = unlocked::of_store(store)?;
    let keys = unlocked.keys.iter().map(WireStoreKey::new).collect();
    Some(Frame::Keys { volume: unlocked.volume, keys })
}

/// Keeps what a `Keys` frame says for this process.
pub fn keep_keys(frame: Frame) -> io::Result<()> {
    let Frame::Keys { volume, keys } = frame else { return Err(wrong("expected Keys")) };
    let keys: Option<Vec<_>> = keys.iter().map(WireStoreKey::key).collect();
    unlocked::keep(volume, keys.ok_or_else(|| wrong("expected keys of 32 bytes"))?);
    Ok(())
}

/// The memory in a `Memory` frame.
pub fn memory(received: Received) -> io::Result<WorkerMemory> {
    let Received { frame: Frame::Memory { worker, geometry }, mut fds, .. } = received else {
        return Err(wrong("expected Memory"));
    };
    let steered = Steered::from_fds(fds.split_off(fds.len().min(3)))?;
    let [state, buffers, ring] = <[OwnedFd; 3]>::try_from(fds)
        .map_err(|_| wrong("expected at least three descriptors with Memory"))?;
    Ok(WorkerMemory { worker, geometry, state, buffers, ring, steered, diverted: None })
}

/// What is in the descriptors of a `Diverted` frame.
pub fn diverted(fds: Vec<OwnedFd>) -> io::Result<Diverted> {
    let fds = <[OwnedFd; 5]>::try_from(fds);
    Ok(Diverted::held(fds.map_err(|_| wrong("expected five descriptors with Diverted"))?))
}

/// The slots in a `Slots` frame.
pub fn slots(received: Received) -> io::Result<Vec<SlotPorts>> {
    let Received { frame: Frame::Slots { first, ports }, fds, .. } = received else {
        return Err(wrong("expected Slots"));
    };
    let with_sockets = !fds.is_empty();
    if with_sockets && fds.len() != 2 * ports.len() {
        return Err(wrong("expected two descriptors for each slot"));
    }
    let mut fds = fds.into_iter();
    let slots = ports.into_iter().zip(first.0..).map(|(address, slot)| {
        let sockets = fds.next().zip(fds.next());
        SlotPorts { slot: Slot(slot), address, sockets }
    });
    Ok(slots.collect())
}

/// What a role whose keeper is gone hands to the next keeper.
pub struct Taken {
    /// The configuration that the memory was made for.
    pub config: Config,
    /// The store's lock.
    pub lock: OwnedFd,
    /// Memory by worker.
    pub workers: Vec<WorkerMemory>,
    /// All slots with their sockets, by number.
    pub slots: Vec<SlotPorts>,
}

/// Takes what a role holds. `Unsupported` where it is of a version that this binary cannot go on
/// from: nothing has been touched then.
pub fn take(mut from: Link) -> io::Result<Taken> {
    let Received { frame, mut fds, .. } = from.recv()?;
    let Frame::Estate { versions, config, workers: worker_count, slots: slot_count } = frame else {
        return Err(wrong("expected Estate as the first frame"));
    };
    if versions != Versions::OURS {
        let why = format!("it holds {versions}; this binary knows {}", Versions::OURS);
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    let lock = fds.pop().ok_or_else(|| wrong("expected the store's lock with Estate"))?;
    let config = serde_json::from_str(&config)?;
    let Contents { workers, slots, waits: false, .. } = contents(&mut from)? else {
        return Err(wrong("expected Go after what a role holds"));
    };
    let (expected, found) =
        ((worker_count.into(), slot_count as usize), (workers.len(), slots.len()));
    if expected != found {
        return Err(wrong(format!("expected {expected:?} workers and slots, found {found:?}")));
    }
    Ok(Taken { config, lock, workers, slots })
}

/// The link in the descriptors of a `Link` frame.
pub fn one(mut fds: Vec<OwnedFd>) -> io::Result<Option<Link>> {
    fds.pop().map(Link::from_fd).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::seqpacket;

    #[test]
    fn frames_cross_from_a_thread_to_tokio_with_their_descriptors() {
        let (left, right) = seqpacket::pair().expect("socketpair");
        let left = Link::new(left);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let right = Link::new(right).into_async().expect("within a runtime");
            left.send(7, Frame::Link, &[left.as_fd()]).expect("room");
            let received = right.recv().await.expect("just sent");
            assert_eq!((received.id, received.fds.len()), (7, 1));
            assert!(matches!(received.frame, Frame::Link));
            right.send(8, Frame::Done, &[]).await.expect("room");
            drop((left, received));
            let error = right.recv().await.err().expect("closed");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        });
    }
}
