//! The catalogue's thread: brings the index up to date when a segment is sealed or an RS has ended.
//! It reads what is durable, like any verb would, so that a crash at any point leaves nothing to
//! mend: the next start does the same again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::host::{spare, sqlite, volume};
use crate::store::catalog::Library;
use crate::store::journal::entry::Entry;

/// What makes the index stale.
pub(super) enum Change {
    /// A segment is in place.
    Sealed,
    /// A durable journal entry.
    Entry(Box<Entry>),
}

/// Changes that come together are taken together.
const SETTLE: Duration = Duration::from_millis(200);

/// Starts the thread; it ends when the last sender is gone. The first refresh is with the first change.
pub(super) fn spawn(
    store: PathBuf,
    journal: PathBuf,
) -> io::Result<(Sender<Change>, JoinHandle<()>)> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new()
        .name("catalogue".into())
        .spawn(move || run(&store, &journal, &receiver))?;
    Ok((sender, thread))
}

fn run(store: &Path, journal: &Path, changes: &Receiver<Change>) {
    while let Ok(first) = changes.recv() {
        let mut stale = matters(&first);
        loop {
            match changes.recv_timeout(SETTLE) {
                Ok(change) => stale |= matters(&change),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return refresh(store, journal),
            }
        }
        if stale {
            refresh(store, journal);
        }
    }
}

/// A recording settles when it has ended and is sealed; what comes before is read as it stands.
fn matters(change: &Change) -> bool {
    match change {
        Change::Sealed => true,
        Change::Entry(entry) => matches!(**entry, Entry::Ended { .. }),
    }
}

fn refresh(store: &Path, journal: &Path) {
    // Of a disk that was unmounted the folder is still there: no catalogue is made in it (F18).
    if let Err(error) = volume::read(store) {
        return tracing::warn!("catalogue not updated: {error}");
    }
    let result = sqlite::open_write(store).map_err(Into::into).and_then(|mut index| {
        let library = Library::open(spare::places(store, journal), store, journal, None)?;
        library.refresh(&mut index)
    });
    if let Err(error) = result {
        // Readers go to the segments themselves then; it costs time, not recordings.
        tracing::warn!("catalogue not updated: {error}");
    }
}
