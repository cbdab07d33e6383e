//! Chooses the receive engine at the start and says why. Dispatch is static: one predictable branch.

use std::io;
use std::os::fd::BorrowedFd;

use super::bypass::{Bypass, Diverted};
use super::mapped::Mapped;
use super::recvmmsg::Recvmmsg;
use super::sockets::Sockets;
use super::uring::Uring;
use crate::base::faults::faulty;
use crate::base::ports::{Datagrams, Region};
use crate::config::model;

/// The engine in use. Made, used and dropped on the worker's thread.
pub enum Engine {
    /// io_uring.
    Uring(Uring),
    /// epoll and recvmmsg.
    Recvmmsg(Recvmmsg),
    /// AF_XDP, and recvmmsg for what is not diverted.
    Bypass(Bypass),
}

impl Engine {
    /// Maps the shared buffers, faults them in, and sets up the engine that `wanted` names. `Auto`
    /// takes recvmmsg where io_uring is refused; `IoUring` fails there. Where frames are `diverted` to this
    /// worker (its number) nothing else can have them; where `Xdp` is wanted and they are not, since the
    /// memory was made before it was, it is as `Auto`.
    pub fn choose(
        wanted: model::Engine,
        memory: (BorrowedFd<'_>, usize),
        sockets: Sockets,
        diverted: Option<(&Diverted, u16)>,
    ) -> io::Result<Self> {
        if let Some((diverted, worker)) = diverted {
            return Ok(Engine::Bypass(Bypass::new(map(memory)?, sockets, diverted, worker)?));
        }
        let why = match wanted {
            model::Engine::Recvmmsg => "configured".to_owned(),
            model::Engine::IoUring => {
                return Ok(Engine::Uring(Uring::new(map(memory)?, sockets)?));
            }
            model::Engine::Auto | model::Engine::Xdp => {
                match Uring::new(map(memory)?, sockets.clone()) {
                    Ok(engine) => return Ok(Engine::Uring(engine)),
                    Err(error) => format!("io_uring refused: {error}"),
                }
            }
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

/// The same of whichever it is.
macro_rules! whichever {
    ($engine:expr, $one:ident => $what:expr) => {
        match $engine {
            Engine::Uring($one) => $what,
            Engine::Recvmmsg($one) => $what,
            Engine::Bypass($one) => $what,
        }
    };
}

impl Datagrams for Engine {
    fn name(&self) -> &'static str {
        whichever!(self, engine => engine.name())
    }

    fn reason(&self) -> &str {
        whichever!(self, engine => engine.reason())
    }

    fn inherit(&mut self) {
        whichever!(self, engine => engine.inherit());
    }

    fn spare(&self) -> usize {
        whichever!(self, engine => engine.spare())
    }

    fn start(&mut self, urgent: impl Fn(u16) -> bool) -> io::Result<()> {
        whichever!(self, engine => engine.start(urgent))
    }

    fn take(&mut self, wait_ms: u64, taken: &mut Vec<u16>) -> io::Result<()> {
        whichever!(self, engine => engine.take(wait_ms, taken))
    }

    #[inline]
    fn head(&self, buffer: u16) -> u64 {
        whichever!(self, engine => engine.head(buffer))
    }

    #[inline]
    fn clear(&mut self, buffer: u16) {
        whichever!(self, engine => engine.clear(buffer));
    }

    #[inline]
    fn look<R>(&self, buffer: u16, view: impl FnOnce(&[u8]) -> R) -> R {
        whichever!(self, engine => engine.look(buffer, view))
    }

    #[cfg(feature = "faults")]
    fn overwrite(&mut self, buffer: u16, offset: usize, bytes: &[u8]) {
        whichever!(self, engine => engine.overwrite(buffer, offset, bytes));
    }

    #[inline]
    fn offer(&mut self, buffer: u16) {
        whichever!(self, engine => engine.offer(buffer));
    }

    fn publish(&mut self) {
        whichever!(self, engine => engine.publish());
    }

    fn drops(&self, port: u16) -> Option<u32> {
        whichever!(self, engine => engine.drops(port))
    }

    fn waits(&self, port: u16) -> bool {
        whichever!(self, engine => engine.waits(port))
    }
}
