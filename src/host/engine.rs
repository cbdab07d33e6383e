//! Chooses the receive engine at the start and says why. Dispatch is static: one predictable branch.

use std::io;
use std::os::fd::BorrowedFd;

use super::mapped::Mapped;
use super::recvmmsg::Recvmmsg;
use super::sockets::Sockets;
use super::uring::Uring;
use crate::base::faults::faulty;
use crate::base::ports::{Datagrams, Region};
use crate::config::model;

/// The engine in use. Made, used and dropped on the worker's thread.
#[expect(clippy::large_enum_variant, reason = "one per worker, made once")]
pub enum Engine {
    /// io_uring.
    Uring(Uring),
    /// epoll and recvmmsg.
    Recvmmsg(Recvmmsg),
}

impl Engine {
    /// Maps the shared buffers, faults them in, and sets up the engine that `wanted` names. `Auto`
    /// takes recvmmsg where io_uring is refused; `IoUring` fails there.
    pub fn choose(
        wanted: model::Engine,
        memory: (BorrowedFd<'_>, usize),
        sockets: Sockets,
    ) -> io::Result<Self> {
        let why = match wanted {
            model::Engine::Recvmmsg => "configured".to_owned(),
            model::Engine::IoUring => {
                return Ok(Engine::Uring(Uring::new(map(memory)?, sockets)?));
            }
            model::Engine::Auto => match Uring::new(map(memory)?, sockets.clone()) {
                Ok(engine) => return Ok(Engine::Uring(engine)),
                Err(error) => format!("io_uring refused: {error}"),
            },
        };
        Self::fall_back(memory, sockets, &why)
    }

    /// recvmmsg over the same shared buffers, whatever filled them: `why` another engine cannot be.
    pub fn fall_back(
        memory: (BorrowedFd<'_>, usize),
        sockets: Sockets,
        why: &str,
    ) -> io::Result<Self> {
        Ok(Engine::Recvmmsg(Recvmmsg::new(map(memory)?, sockets, why)?))
    }
}

fn map((buffers, bytes): (BorrowedFd<'_>, usize)) -> io::Result<Mapped> {
    let map = if faulty!("worker.private_buffers") {
        Mapped::anonymous("private buffers", bytes)?
    } else {
        Mapped::map(buffers, bytes)?
    };
    map.populate(0, map.bytes())?;
    // Best effort: RLIMIT_MEMLOCK may be low (F75).
    let _ = map.lock();
    Ok(map)
}

impl Datagrams for Engine {
    fn name(&self) -> &'static str {
        match self {
            Engine::Uring(engine) => engine.name(),
            Engine::Recvmmsg(engine) => engine.name(),
        }
    }

    fn reason(&self) -> &str {
        match self {
            Engine::Uring(engine) => engine.reason(),
            Engine::Recvmmsg(engine) => engine.reason(),
        }
    }

    fn inherit(&mut self) {
        match self {
            Engine::Uring(engine) => engine.inherit(),
            Engine::Recvmmsg(engine) => engine.inherit(),
        }
    }

    fn spare(&self) -> usize {
        match self {
            Engine::Uring(engine) => engine.spare(),
            Engine::Recvmmsg(engine) => engine.spare(),
        }
    }

    fn start(&mut self, urgent: impl Fn(u16) -> bool) -> io::Result<()> {
        match self {
            Engine::Uring(engine) => engine.start(urgent),
            Engine::Recvmmsg(engine) => engine.start(urgent),
        }
    }

    fn take(&mut self, wait_ms: u64, taken: &mut Vec<u16>) -> io::Result<()> {
        match self {
            Engine::Uring(engine) => engine.take(wait_ms, taken),
            Engine::Recvmmsg(engine) => engine.take(wait_ms, taken),
        }
    }

    fn head(&self, buffer: u16) -> u64 {
        match self {
            Engine::Uring(engine) => engine.head(buffer),
            Engine::Recvmmsg(engine) => engine.head(buffer),
        }
    }

    fn clear(&mut self, buffer: u16) {
        match self {
            Engine::Uring(engine) => engine.clear(buffer),
            Engine::Recvmmsg(engine) => engine.clear(buffer),
        }
    }

    fn look<R>(&self, buffer: u16, view: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Engine::Uring(engine) => engine.look(buffer, view),
            Engine::Recvmmsg(engine) => engine.look(buffer, view),
        }
    }

    #[cfg(feature = "faults")]
    fn overwrite(&mut self, buffer: u16, offset: usize, bytes: &[u8]) {
        match self {
            Engine::Uring(engine) => engine.overwrite(buffer, offset, bytes),
            Engine::Recvmmsg(engine) => engine.overwrite(buffer, offset, bytes),
        }
    }

    fn offer(&mut self, buffer: u16) {
        match self {
            Engine::Uring(engine) => engine.offer(buffer),
            Engine::Recvmmsg(engine) => engine.offer(buffer),
        }
    }

    fn publish(&mut self) {
        match self {
            Engine::Uring(engine) => engine.publish(),
            Engine::Recvmmsg(engine) => engine.publish(),
        }
    }

    fn drops(&self, port: u16) -> Option<u32> {
        match self {
            Engine::Uring(engine) => engine.drops(port),
            Engine::Recvmmsg(engine) => engine.drops(port),
        }
    }

    fn waits(&self, port: u16) -> bool {
        match self {
            Engine::Uring(engine) => engine.waits(port),
            Engine::Recvmmsg(engine) => engine.waits(port),
        }
    }
}
