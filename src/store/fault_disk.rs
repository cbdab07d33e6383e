//! A disk whose nth call of a kind fails, over any other: the faults of the tests come through the
//! port, so that nothing of them is in the product.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use zeroize::Zeroizing;

use crate::base::ports::{Disk, DiskFile, LogKeys};

/// A call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// `create`.
    Create,
    /// `open`, for writing.
    Open,
    /// `open_read`.
    OpenRead,
    /// `write_at`.
    Write,
    /// `read_at`.
    Read,
    /// `cut`.
    Cut,
    /// `sync`.
    Sync,
    /// `rename`.
    Rename,
    /// `list`.
    List,
    /// `remove`.
    Remove,
    /// `device`.
    Device,
    /// `bytes`.
    Bytes,
}

impl Call {
    pub(crate) const ALL: [Call; 12] = [
        Call::Create,
        Call::Open,
        Call::OpenRead,
        Call::Write,
        Call::Read,
        Call::Cut,
        Call::Sync,
        Call::Rename,
        Call::List,
        Call::Remove,
        Call::Device,
        Call::Bytes,
    ];
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// EIO; of a write nothing arrives.
    Io,
    /// ENOSPC; of a write nothing arrives.
    Full,
    /// Half of a write arrives, then EIO.
    Short,
}

#[derive(Default)]
struct Plan {
    call: Option<Call>,
    /// Calls of the kind until the one that fails.
    left: u64,
    fault: Option<Fault>,
}

/// See the module. Clones share the plan.
#[derive(Clone)]
pub(crate) struct FaultDisk<D> {
    pub(crate) disk: D,
    plan: Arc<Mutex<Plan>>,
}

/// A file of it.
pub(crate) struct FaultFile<F> {
    file: F,
    /// A write or sync failed: that is final, nobody may touch it again (F12).
    failed: bool,
    plan: Arc<Mutex<Plan>>,
}

impl<D> FaultDisk<D> {
    pub(crate) fn new(disk: D) -> Self {
        FaultDisk { disk, plan: Arc::default() }
    }

    /// The same plan over another disk: what a crash left.
    pub(crate) fn over<E>(&self, disk: E) -> FaultDisk<E> {
        FaultDisk { disk, plan: Arc::clone(&self.plan) }
    }

    /// The nth call (1: the next) of this kind fails, once.
    pub(crate) fn fail(&self, call: Call, nth: u64, fault: Fault) {
        *self.plan.lock().unwrap() = Plan { call: Some(call), left: nth, fault: Some(fault) };
    }

    /// Nothing fails any more.
    pub(crate) fn calm(&self) {
        *self.plan.lock().unwrap() = Plan::default();
    }

    /// Whether the failure that was asked for has happened.
    pub(crate) fn has_failed(&self) -> bool {
        self.plan.lock().unwrap().fault.is_none()
    }

    fn file<F>(&self, file: F) -> FaultFile<F> {
        FaultFile { file, failed: false, plan: Arc::clone(&self.plan) }
    }
}

fn due(plan: &Mutex<Plan>, call: Call) -> Option<Fault> {
    let mut plan = plan.lock().unwrap();
    if plan.call != Some(call) || plan.fault.is_none() {
        return None;
    }
    plan.left -= 1;
    if plan.left == 0 { plan.fault.take() } else { None }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Full => io::ErrorKind::StorageFull.into(),
        Fault::Io | Fault::Short => io::Error::other("input/output error"),
    }
}

fn check(plan: &Mutex<Plan>, call: Call) -> io::Result<()> {
    due(plan, call).map_or(Ok(()), |fault| Err(error(fault)))
}

impl<D: Disk> Disk for FaultDisk<D> {
    type File = FaultFile<D::File>;

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Self::File> {
        check(&self.plan, Call::Create)?;
        self.disk.create(path, bytes).map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Self::File> {
        check(&self.plan, Call::Open)?;
        self.disk.open(path).map(|file| self.file(file))
    }

    /// A rename whose directory cannot be synced has taken place all the same.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match due(&self.plan, Call::Rename) {
            None => self.disk.rename(from, to),
            Some(Fault::Short) => self.disk.rename(from, to).and(Err(error(Fault::Io))),
            Some(fault) => Err(error(fault)),
        }
    }

    fn open_read(&self, path: &Path) -> io::Result<Self::File> {
        check(&self.plan, Call::OpenRead)?;
        self.disk.open_read(path).map(|file| self.file(file))
    }

    fn open_medium(&self, path: &Path) -> io::Result<Self::File> {
        check(&self.plan, Call::OpenRead)?;
        self.disk.open_medium(path).map(|file| self.file(file))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        check(&self.plan, Call::List)?;
        self.disk.list(folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        check(&self.plan, Call::Remove)?;
        self.disk.remove(path)
    }

    fn device(&self, folder: &Path) -> io::Result<String> {
        check(&self.plan, Call::Device)?;
        self.disk.device(folder)
    }

    fn locate(&self, path: &Path) -> PathBuf {
        self.disk.locate(path)
    }

    fn may_append(&self, path: &Path) -> io::Result<bool> {
        self.disk.may_append(path)
    }

    fn keys(&self, purpose: &str) -> Vec<(u32, Zeroizing<[u8; 32]>)> {
        self.disk.keys(purpose)
    }

    fn log_keys(&self) -> Option<&dyn LogKeys> {
        self.disk.log_keys()
    }
}

impl<F: DiskFile> DiskFile for FaultFile<F> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(!self.failed, "written again after a failure");
        match due(&self.plan, Call::Write) {
            None => self.file.write_at(offset, bytes),
            Some(fault) => {
                self.failed = true;
                if fault == Fault::Short {
                    self.file.write_at(offset, &bytes[..bytes.len() / 2])?;
                }
                Err(error(fault))
            }
        }
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        check(&self.plan, Call::Read)?;
        self.file.read_at(offset, out)
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        assert!(!self.failed, "cut after a failure");
        let result = check(&self.plan, Call::Cut);
        self.failed = result.is_err();
        result.and_then(|()| self.file.cut(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        assert!(!self.failed, "synced again after a failure");
        let result = check(&self.plan, Call::Sync);
        self.failed = result.is_err();
        result.and_then(|()| self.file.sync())
    }

    fn bytes(&self) -> io::Result<u64> {
        check(&self.plan, Call::Bytes)?;
        self.file.bytes()
    }

    fn written(&self, longest: u64) -> io::Result<u64> {
        check(&self.plan, Call::Bytes)?;
        self.file.written(longest)
    }
}
