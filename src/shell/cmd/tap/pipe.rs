//! Standard output of somebody else, who may not read it for hours. Nothing here waits without looking whether
//! it is wanted any more, and nothing is changed about the descriptor, which is shared with whoever asked.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::base::ports::Clock;
use crate::base::time::Mono;
use crate::host::clock::SystemClock;
use crate::host::ringview::RingView;
use crate::host::seqpacket::SeqPacket;
use crate::host::volume;
use crate::shell::serve::tapping::{Word, is_over, word};

/// A pipe that can be written to takes that many bytes at once without waiting (PIPE_BUF, pipe(7)).
const PIECE_BYTES: usize = 4_096;
const LOOK_MS: i64 = 200;
/// A worker that turns does so each few milliseconds; a successor of a dead one takes less than a second.
const STILL: Duration = Duration::from_secs(2);
/// However it looks otherwise: an upgrade that is taken back takes 15 s.
const STILL_MAX: Duration = Duration::from_secs(20);

/// Why a tap ends.
#[derive(Debug)]
pub(super) enum End {
    /// The recording is over.
    Over,
    /// Whoever asked wants no more.
    Asked,
    /// Nobody reads any more.
    Closed,
    /// Nobody records any more.
    Stopped,
    /// Something failed.
    Failed(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => End::Closed,
            _ => End::Failed(error),
        }
    }
}

/// See the module's description.
pub(super) struct Pipe {
    out: File,
    link: SeqPacket,
    asker: SeqPacket,
    store: PathBuf,
    /// Control is gone.
    pub(super) orphan: bool,
    looked: Instant,
    /// Bytes not written yet, because whoever asked has not read.
    pub(super) bytes: u64,
}

impl Pipe {
    pub(super) fn new(link: SeqPacket, asker: SeqPacket, store: PathBuf) -> io::Result<Self> {
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Pipe { out, link, asker, store, orphan: false, looked: Instant::now(), bytes: 0 })
    }

    pub(super) fn asker(&self) -> &SeqPacket {
        &self.asker
    }

    /// Writes all of `bytes`, however long that takes.
    pub(super) fn write(&mut self, rings: &[&RingView], bytes: &[u8]) -> Result<(), End> {
        for piece in bytes.chunks(PIECE_BYTES) {
            while !self.takes_some(Duration::from_millis(LOOK_MS as u64))? {
                self.look(rings)?;
            }
            self.out.write_all(piece)?;
            self.bytes += piece.len() as u64;
        }
        Ok(())
    }

    /// Waits so long; an error where nobody reads any more.
    pub(super) fn pause(&mut self, rings: &[&RingView], wait: Duration) -> Result<(), End> {
        std::thread::sleep(wait);
        if self.looked.elapsed() >= Duration::from_millis(LOOK_MS as u64) {
            self.takes_some(Duration::ZERO)?;
            self.look(rings)?;
        }
        Ok(())
    }

    fn takes_some(&self, wait: Duration) -> Result<bool, End> {
        let limit = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        let mut fds = [PollFd::new(&self.out, PollFlags::OUT)];
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(End::Failed(error.into())),
        }
        let found = fds[0].revents();
        if found.contains(PollFlags::ERR) {
            return Err(End::Closed);
        }
        Ok(found.contains(PollFlags::OUT))
    }

    /// Whether it is wanted any more, and anybody records.
    fn look(&mut self, rings: &[&RingView]) -> Result<(), End> {
        self.looked = Instant::now();
        if !self.orphan {
            match word(&self.link) {
                Word::None => return Ok(()),
                Word::Stop => return Err(End::Asked),
                Word::Gone => self.orphan = true,
            }
        }
        if is_over(&self.asker) {
            return Err(End::Asked);
        }
        let turned = rings.iter().map(|ring| ring.heartbeat()).max().unwrap_or(Mono(0));
        let still = Duration::from_nanos(SystemClock.mono().since(turned));
        let has_keeper = || volume::holder(&self.store).is_some_and(|holder| holder.lives());
        if still >= STILL_MAX || (still >= STILL && !has_keeper()) {
            return Err(End::Stopped);
        }
        Ok(())
    }
}
