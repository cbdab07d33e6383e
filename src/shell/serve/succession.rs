//! How a keeper comes into a store: nobody has it, a keeper has it, or only the roles of a dead one
//! have (F03). Then one new keeper at a time knocks at their doors; and it ends each role only when
//! it starts that role's successor, so that at every instant some process holds everything.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::host::survivor::Survivor;
use crate::host::volume::{self, Lock, VolumeError};
use crate::plane::keeper::Role;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::estate;
use crate::shell::serve::link::Taken;

/// How long we try to reach the roles of a keeper that was killed. Those that record nothing end by
/// themselves within that time.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// A killed process is gone within milliseconds, unless it hangs in the kernel; then keeper must
/// look after the other one meanwhile, and comes back.
const END_WAIT: Duration = Duration::from_secs(2);

/// What a refusal to take over ends with.
pub(super) const GOES_ON: &str = "the recorder that runs was not touched and goes on; take over \
                                  with the version that started it";

/// What there is to begin with.
pub(super) enum Found {
    /// Nobody has the store.
    Free(Lock),
    /// A dead keeper's roles hold everything.
    Roles(Box<Taken>, Turn),
}

/// The right to take over from the roles of a store, for as long as it lives. Two keepers that took
/// copies of the same memory would both start roles.
pub(super) struct Turn {
    _folder: File,
}

impl Turn {
    /// `None`: somebody else is about to.
    fn take(store: &Path) -> io::Result<Option<Self>> {
        let folder = File::open(estate::make_folder(store)?)?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Turn { _folder: folder })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Takes the store's lock. Where only the roles of a dead keeper hold it, takes a copy of what they
/// hold, or waits for their end.
pub(super) fn find(store: &Path) -> Result<Found, Failure> {
    let deadline = Instant::now() + PREDECESSOR_WAIT;
    loop {
        if let Some(lock) = lock(store)? {
            nobody_lives(store)?;
            return Ok(Found::Free(lock));
        }
        let late = Instant::now() >= deadline;
        if let Some(turn) = Turn::take(store)? {
            // Whoever had the turn before us may be the holder now.
            if let Some(lock) = lock(store)? {
                return Ok(Found::Free(lock));
            }
            if let Some(taken) = knock(store)? {
                return Ok(Found::Roles(Box::new(taken), turn));
            }
            if late {
                end_deaf(store)?;
                return lock(store)?.map(Found::Free).ok_or_else(still_held);
            }
        } else if late {
            return Err(still_held());
        }
        std::thread::sleep(PAUSE);
    }
}

/// The lock; `None` where a dead keeper's roles have it. An error where a keeper lives.
fn lock(store: &Path) -> Result<Option<Lock>, Failure> {
    match volume::lock(store) {
        Ok(lock) => Ok(Some(lock)),
        Err(VolumeError::InUse { holder, .. }) if !holder.lives() => Ok(None),
        Err(error @ VolumeError::InUse { .. }) => {
            Err(Failure::new(Exit::TryAgain, error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a lock that is free is the one that the store's roles held: each of them has a copy of it,
/// so that where one lives it was removed or put back by hand, and two servers would write one store.
fn nobody_lives(store: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + END_WAIT;
    loop {
        let lives = |role: Role| estate::survivor(store, role).map(|one| (role, one.pid()));
        let Some((role, pid)) = [Role::Media, Role::Control].into_iter().find_map(lives) else {
            return Ok(());
        };
        // Whoever is dying has let go of its lock a moment before it is gone.
        if Instant::now() >= deadline {
            let why = format!(
                "{} is not the one that the server in this store holds, whose {} is process {pid}: it \
                 was removed or replaced; end that server first",
                store.join("lock").display(),
                role.name()
            );
            return Err(Failure::new(Exit::TryAgain, why));
        }
        std::thread::sleep(PAUSE);
    }
}

fn still_held() -> Failure {
    Failure::new(Exit::TryAgain, "the store is held by processes that hand nothing over")
}

/// Asks both roles; whoever answers holds everything. Somebody who answers what we cannot read, or
/// whom we may not trust, is at work all the same: an error, and nobody is touched.
fn knock(store: &Path) -> Result<Option<Taken>, Failure> {
    for role in [Role::Media, Role::Control] {
        match estate::knock(store, role) {
            Ok(taken) => return Ok(Some(taken)),
            Err(error) => match error.kind() {
                io::ErrorKind::Unsupported | io::ErrorKind::InvalidData => {
                    let why = format!("the recorder that runs is of another version: {error}");
                    return Err(Failure::new(Exit::Config, format!("{why}; {GOES_ON}")));
                }
                io::ErrorKind::PermissionDenied => {
                    let why = format!("the recorder that runs is another user's: {error}");
                    return Err(Failure::new(Exit::Refused, why));
                }
                _ => tracing::debug!("{}: {error}", role.name()),
            },
        }
    }
    Ok(None)
}

/// Roles that live and hand nothing over hang. Whoever started after them would write the same
/// store: they are ended, and what they held is lost with them.
fn end_deaf(store: &Path) -> Result<(), Failure> {
    if let Some(keeper) = unsigned_keeper(store) {
        let why = format!("the store is in use by another server (process {keeper})");
        return Err(Failure::new(Exit::TryAgain, why));
    }
    let mut survivors = Survivors::of(store);
    for role in [Role::Control, Role::Media] {
        for survivor in survivors.place(role).iter() {
            tracing::error!("{} (process {}) hangs: ending it", role.name(), survivor.pid());
        }
        survivors.end(role)?;
    }
    Ok(())
}

/// A keeper that lives and could not sign the lock, because the disk took no writes when it came
/// (F12): then its roles are no orphans. Others who come hold the lock's file only for a moment, and
/// a keeper for good.
fn unsigned_keeper(store: &Path) -> Option<u32> {
    let others = || -> Vec<u32> {
        let roles = [Role::Control, Role::Media].map(Role::name);
        let found = Survivor::holding_besides(&roles, &store.join("lock")).unwrap_or_default();
        found.iter().map(Survivor::pid).collect()
    };
    let first = others();
    std::thread::sleep(PAUSE);
    others().into_iter().find(|pid| first.contains(pid))
}

/// The roles that a keeper before us left.
#[derive(Default)]
pub(super) struct Survivors {
    media: Vec<Survivor>,
    control: Vec<Survivor>,
}

impl Survivors {
    /// Those of `store`: by their marks, and by who holds its lock.
    pub(super) fn of(store: &Path) -> Self {
        let found = |role: Role| {
            let mut all: Vec<_> = estate::survivor(store, role).into_iter().collect();
            match Survivor::holding(role.name(), &store.join("lock")) {
                Ok(holding) => {
                    for survivor in holding {
                        if !all.iter().any(|known| known.pid() == survivor.pid()) {
                            all.push(survivor);
                        }
                    }
                }
                Err(error) => tracing::warn!("cannot look for {}: {error}", role.name()),
            }
            all
        };
        Survivors { media: found(Role::Media), control: found(Role::Control) }
    }

    fn place(&mut self, role: Role) -> &mut Vec<Survivor> {
        match role {
            Role::Media => &mut self.media,
            Role::Control => &mut self.control,
        }
    }

    /// Kills those who play `role` and waits until they are gone (kill protocol, pitfall 5). An error
    /// where one does not end: no successor may start then, and it is to be tried again.
    pub(super) fn end(&mut self, role: Role) -> Result<(), Failure> {
        let place = self.place(role);
        while let Some(survivor) = place.last() {
            if !survivor.end(END_WAIT)? {
                let why = format!(
                    "{} (process {}) was killed and does not end: it hangs in the kernel, mostly on \
                     a disk",
                    role.name(),
                    survivor.pid()
                );
                return Err(Failure::new(Exit::TryAgain, why));
            }
            place.pop();
        }
        Ok(())
    }
}
