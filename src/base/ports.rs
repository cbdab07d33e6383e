//! The ports: traits through which pure code reaches the outside. Adapters live in `host`,
//! simulated ones in tests.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::time::{ClockMap, Mono};

/// Reads both clocks.
pub trait Clock {
    /// The monotonic clock now.
    fn mono(&self) -> Mono;
    /// Both clocks at one instant.
    fn map(&self) -> ClockMap;
}

/// Random bytes fit for keys.
pub trait Entropy {
    /// Fills `out` with unpredictable bytes.
    fn fill(&self, out: &mut [u8]);
}

/// A shared memory region that outlives the process (a memfd held by keeper).
///
/// Offsets are in bytes; words are 8-byte aligned. Out of range or misaligned is our own bug and
/// panics. No reference into the memory leaves the adapter except for the length of a closure.
pub trait Region {
    /// Size in bytes.
    fn bytes(&self) -> usize;
    /// Acquire-loads the word at `offset`.
    fn load(&self, offset: usize) -> u64;
    /// Release-stores the word at `offset`.
    fn store(&self, offset: usize, value: u64);
    /// Copies `bytes` to `offset`.
    fn copy_in(&self, offset: usize, bytes: &[u8]);
    /// Copies from `offset` into `out`.
    fn copy_out(&self, offset: usize, out: &mut [u8]);
}

/// A region of which this holder is the only writer, so that it may build a record in place.
pub trait WritableRegion: Region {
    /// Lends `length` bytes at `offset` to `fill`. Nobody else reads them until a word that the
    /// caller stores afterwards says so.
    fn with_mut<R>(&mut self, offset: usize, length: usize, fill: impl FnOnce(&mut [u8]) -> R)
    -> R;
}

/// Files of the store: written by the spool and by journals, read by everybody. Errors are the
/// operating system's; a failed `sync` is final for that file (F12).
pub trait Disk {
    /// An open file.
    type File: DiskFile;
    /// Makes a file of `bytes` preallocated bytes, and the folders above it; fails where it exists.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Self::File>;
    /// Opens for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Renames within one file system and syncs the directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Opens for reading only.
    fn open_read(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens for reading what the medium holds, past what the system remembers of it, where that can
    /// be done: after a failed write the one is not the other (F12).
    fn open_medium(&self, path: &Path) -> io::Result<Self::File> {
        self.open_read(path)
    }
    /// Names of files and folders in a folder, sorted; empty where the folder does not exist.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Makes the names in a folder durable, for those who have listed it: whoever renamed a file there
    /// may not have come to it. A folder that does not exist has none.
    fn sync_names(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Which file system a folder lies on, in words that can be compared: another one than before
    /// means that something was unmounted, or mounted over it (F18). Empty where there is but one.
    fn device(&self, _folder: &Path) -> io::Result<String> {
        Ok(String::new())
    }
    /// Bytes that an ordinary user may still write below `folder`.
    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Where a file really is: a store in several folders is read as if it were one.
    fn locate(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
    /// Whether the file at `path` may be appended to where it ends. One that is encrypted may not in another
    /// life of the machine: a power cut may have taken the end of it, and somebody may have that.
    fn may_append(&self, _path: &Path) -> io::Result<bool> {
        Ok(true)
    }
    /// What is derived for `purpose` from each key of the store whose disk it is: the number of that key,
    /// and 32 bytes; newest last. None: the store is in the clear, or nobody has given its key.
    fn keys(&self, _purpose: &str) -> Vec<(u32, Zeroizing<[u8; 32]>)> {
        Vec::new()
    }
    /// What log files are encrypted under; `None`: what is written stands in the clear, and what is
    /// encrypted nobody can read here.
    fn log_keys(&self) -> Option<&dyn LogKeys> {
        None
    }
}

/// A secret as it stands on the disk: nonce, cipher text and tag under a key derived of a store key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Number of the store key.
    pub store_key: u32,
    /// The wrapped secret.
    pub bytes: [u8; 60],
}

/// Why a wrapped secret cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// Nobody here knows the store key.
    NoKey,
    /// The store key is known, and this is not what it has wrapped for that context.
    Changed,
}

/// What log files are encrypted under; wiped on drop.
pub type LogSecret = Zeroizing<[u8; 32]>;

/// Wraps and unwraps the secrets of log files, each of which serves for one use of a file.
pub trait LogKeys {
    /// Draws a secret that never was before, for `context`.
    fn make(&self, context: &str) -> (LogSecret, WrappedKey);
    /// The secret that was wrapped for `context`.
    fn open(&self, key: &WrappedKey, context: &str) -> Result<LogSecret, Unopened>;
}

/// One open file, addressed by offset only.
pub trait DiskFile {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads up to `out.len()` bytes; 0 at the end.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;
    /// Gives back what lies behind the first `bytes`; durable with the next sync.
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
    /// Makes all that was written durable (fdatasync).
    fn sync(&mut self) -> io::Result<()>;
    /// Size in bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Up to where the file was written, as far as the file system tells: what stands behind a hole of
    /// `longest` bytes or more does not count. At most [`Self::bytes`].
    fn written(&self, _longest: u64) -> io::Result<u64> {
        self.bytes()
    }
}

/// Receives datagrams into shared receive buffers (kill protocol §1). One engine belongs to one
/// worker and one thread. Buffers are numbered from 0; each is [`super::limits::BUFFER_BYTES`] long
/// and laid out as `plane::handoff::datagram` reads it.
pub trait Datagrams {
    /// `io_uring` or `recvmmsg`.
    fn name(&self) -> &'static str;
    /// Why this engine was chosen.
    fn reason(&self) -> &str;
    /// Finishes what a dead predecessor left half done in the shared buffers. Called once, after it was
    /// reaped and before the recovery scan; nothing of an engine touches the buffers earlier, since an
    /// engine may be made while the predecessor still receives.
    fn inherit(&mut self);
    /// How many filled buffers may be kept back at a time, turn after turn, without leaving too few.
    fn spare(&self) -> usize;
    /// Offers every buffer whose head is 0 (what is kept back is not) and arms the sockets: those whose
    /// port is `urgent` before it returns, all others at the latest within the next turns. Called once,
    /// after the recovery scan.
    fn start(&mut self, urgent: impl Fn(u16) -> bool) -> io::Result<()>;
    /// Waits at most `wait_ms` and adds the numbers of filled buffers to `taken`, which has room
    /// for [`super::limits::TURN_PACKETS_MAX`]. A buffer stays the caller's until it is offered.
    fn take(&mut self, wait_ms: u64, taken: &mut Vec<u16>) -> io::Result<()>;
    /// Acquire-loads the head word of a buffer; 0 means that it holds nothing.
    fn head(&self, buffer: u16) -> u64;
    /// Release-stores 0 as the head word.
    fn clear(&mut self, buffer: u16);
    /// Lends a filled buffer.
    fn look<R>(&self, buffer: u16, view: impl FnOnce(&[u8]) -> R) -> R;
    /// Writes into a filled buffer, which no engine may do for real: recovery reads it again.
    #[cfg(feature = "faults")]
    fn overwrite(&mut self, buffer: u16, offset: usize, bytes: &[u8]);
    /// Writes the ring entry that gives a cleared buffer back; takes effect with [`Self::publish`].
    fn offer(&mut self, buffer: u16);
    /// Gives back what was offered and notes ended requests to be armed again.
    fn publish(&mut self);
    /// The drop counter of the socket bound to `port`, read now; `None` where it cannot be read.
    fn drops(&self, port: u16) -> Option<u32>;
    /// Whether the socket bound to `port` holds a datagram that was not taken yet.
    fn waits(&self, port: u16) -> bool;
}
