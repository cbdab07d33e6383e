//! The fault disk: one file in a FUSE file system of our own, with an [`Image`] behind it. A loop
//! device over that file is a block device whose every write and flush passes here.
//!
//! The file is opened for direct I/O, so the kernel keeps no second copy of it: what the loop
//! device writes is in the image's cache at once, and only its flush makes it durable.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::image::{Image, Loss};

const FILE: INodeNo = INodeNo(2);
const NAME: &str = "disk";
const KEPT: Duration = Duration::from_secs(3600);

/// What the disk is told to do wrong.
#[derive(Default)]
struct Faults {
    cut: bool,
    write_delay: Duration,
    flush_delay: Duration,
    stalled_until: Option<Instant>,
    /// Writes, or flushes, until one fails; once.
    fail_write: Option<u64>,
    fail_flush: Option<u64>,
    full: bool,
}

struct Medium {
    image: Image,
    faults: Faults,
    flushes: u64,
}

struct Shared {
    medium: Mutex<Medium>,
    changed: Condvar,
}

impl Shared {
    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock().expect("no panic while held")
    }

    /// Waits as the disk is told to; `None`: there is no power.
    fn ready(&self, delay: impl Fn(&Faults) -> Duration) -> Option<MutexGuard<'_, Medium>> {
        let mut medium = self.medium();
        let mut until = Instant::now() + delay(&medium.faults);
        loop {
            if medium.faults.cut {
                return None;
            }
            until = until.max(medium.faults.stalled_until.unwrap_or(until));
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(medium);
            }
            medium = self.changed.wait_timeout(medium, left).expect("no panic while held").0;
        }
    }
}

/// See the module. Unmounted on drop.
pub(crate) struct FaultDisk {
    shared: Arc<Shared>,
    folder: PathBuf,
    session: Option<BackgroundSession>,
}

impl FaultDisk {
    /// Mounts a disk of `bytes` at `folder`, which is made.
    pub(crate) fn mount(folder: &Path, bytes: usize) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let medium = Medium { image: Image::new(bytes), faults: Faults::default(), flushes: 0 };
        let shared = Arc::new(Shared { medium: Mutex::new(medium), changed: Condvar::new() });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("floortape-fault-disk".to_owned())];
        let session = fuser::spawn_mount(Served(shared.clone()), folder, &config)?;
        Ok(FaultDisk { shared, folder: folder.to_owned(), session: Some(session) })
    }

    /// What a loop device is made of.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// Waits until there are writes that no flush has covered, at most for `limit`.
    pub(crate) fn wait_for_writes(&self, limit: Duration) {
        let end = Instant::now() + limit;
        while Instant::now() < end && self.shared.medium().image.unsynced() == 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// The power goes at this instant: nothing is taken any more, and of what no flush covered only
    /// what `seed` leaves is there when it comes back.
    pub(crate) fn cut(&self, seed: u64) -> Loss {
        let mut medium = self.shared.medium();
        medium.faults.cut = true;
        let loss = medium.image.cut(seed);
        self.shared.changed.notify_all();
        loss
    }

    /// The power is back, and all faults are gone.
    pub(crate) fn revive(&self) {
        self.shared.medium().faults = Faults::default();
    }

    /// Every write takes this long.
    pub(crate) fn delay_writes(&self, time: Duration) {
        self.shared.medium().faults.write_delay = time;
    }

    /// Every flush takes this long.
    pub(crate) fn delay_flushes(&self, time: Duration) {
        self.shared.medium().faults.flush_delay = time;
    }

    /// Nothing moves for this long.
    pub(crate) fn stall(&self, time: Duration) {
        self.shared.medium().faults.stalled_until = Some(Instant::now() + time);
    }

    /// The `nth` write from now on fails with EIO (0: the next).
    pub(crate) fn fail_write(&self, nth: u64) {
        self.shared.medium().faults.fail_write = Some(nth);
    }

    /// The `nth` flush from now on fails with EIO, and all that no flush covered is lost.
    pub(crate) fn fail_flush(&self, nth: u64) {
        self.shared.medium().faults.fail_flush = Some(nth);
    }

    /// Writes fail with ENOSPC.
    pub(crate) fn full(&self, full: bool) {
        self.shared.medium().faults.full = full;
    }

    pub(crate) fn flushes(&self) -> u64 {
        self.shared.medium().flushes
    }
}

impl Drop for FaultDisk {
    fn drop(&mut self) {
        // Whoever still waits for a delayed answer gets it now.
        self.shared.medium().faults.cut = true;
        self.shared.changed.notify_all();
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            eprintln!("power: {}: {error}", self.folder.display());
        }
    }
}

struct Served(Arc<Shared>);

impl Served {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let (kind, perm, size) = match ino {
            INodeNo::ROOT => (FileType::Directory, 0o700, 0),
            _ => (FileType::RegularFile, 0o600, self.0.medium().image.len() as u64),
        };
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

/// Counts a fault down; whether it is due now.
fn due(fault: &mut Option<u64>) -> bool {
    match fault {
        Some(0) => {
            *fault = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

impl Filesystem for Served {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Requests of the loop device come in one piece where the kernel allows it.
        let _ = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == NAME {
            reply.entry(&KEPT, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&KEPT, &self.attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.ready(|_| Duration::ZERO) {
            Some(medium) => reply.data(medium.image.read(offset as usize, size as usize)),
            None => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(mut medium) = self.0.ready(|faults| faults.write_delay) else {
            return reply.error(Errno::EIO);
        };
        if due(&mut medium.faults.fail_write) {
            reply.error(Errno::EIO);
        } else if medium.faults.full || !medium.image.write(offset as usize, data) {
            reply.error(Errno::ENOSPC);
        } else {
            reply.written(data.len() as u32);
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mark = self.0.medium().image.mark();
        let shared = self.0.clone();
        let end = move || {
            let Some(mut medium) = shared.ready(|faults| faults.flush_delay) else {
                return reply.error(Errno::EIO);
            };
            if due(&mut medium.faults.fail_flush) {
                medium.image.lose();
                return reply.error(Errno::EIO);
            }
            medium.image.flushed(mark);
            medium.flushes += 1;
            reply.ok();
        };
        // Writes go on while a flush takes its time, and are not covered by it.
        let slow = !self.0.medium().faults.flush_delay.is_zero();
        if slow {
            std::thread::spawn(end);
        } else {
            end();
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // close() promises nothing.
        reply.ok();
    }
}
