//! The catalogue's thread: brings the index up to date when a segment is sealed. It knows what the
//! journal says of recordings that have not settled: read whole once, then entry by entry as they
//! become durable. Nothing else may go into the index (see [`Library::refresh`]), so a crash at any
//! point leaves nothing to mend: the next start does the same again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::peaks::Stale;
use crate::host::{process, spare, sqlite, volume};
use crate::store::catalog::{Index, IndexError, Library, LibraryError, Unsettled};
use crate::store::journal::entry::Entry;

/// What makes the index stale.
pub(super) enum Change {
    /// A segment is in place.
    Sealed,
    /// Something is gone by retention.
    Thinned,
    /// What was said of recordings of which nothing is left is gone, too.
    Forgotten,
    /// A durable journal entry.
    Entry(Box<Entry>),
}

/// Changes that come together are taken together.
const SETTLE: Duration = Duration::from_millis(200);
/// What came without such a pause is taken after this: what has settled is in memory as long as it is in
/// no index.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// Memory is given back this long after something was heard of recordings: by then their transactions are
/// over as well (64·T1).
const TRIM_AFTER: Duration = Duration::from_secs(40);
/// Recordings that are unpacked and read in one pass, some 10 KiB each.
const PASS_MAX: usize = 2_048;

/// Starts the thread; it ends when the last sender is gone. The first refresh is with the first seal.
///
/// `drawer` hears what concerns it as well.
pub(super) fn spawn(
    store: PathBuf,
    journal: PathBuf,
    drawer: Arc<Stale>,
) -> io::Result<(Sender<Change>, JoinHandle<()>)> {
    let (sender, receiver) = channel();
    let catalogue = Catalogue {
        store,
        journal,
        known: None,
        segments: 0,
        thinned: true,
        trim_at: None,
        drawer,
    };
    let thread = std::thread::Builder::new().name("catalogue".into()).spawn(move || {
        // Under load it works beside those who answer, and nobody waits for it.
        process::give_way();
        catalogue.run(&receiver);
    })?;
    Ok((sender, thread))
}

/// What the thread keeps.
struct Catalogue {
    store: PathBuf,
    journal: PathBuf,
    /// Recordings that have not settled; `None`: the journal is to be read.
    known: Option<Unsettled>,
    /// Segments in the index when that was last looked at.
    segments: u64,
    /// Something may be gone that the index still has; so it is after a start.
    thinned: bool,
    /// When memory is given back.
    trim_at: Option<Instant>,
    /// What has changed for whoever draws what is sealed.
    drawer: Arc<Stale>,
}

impl Catalogue {
    fn run(mut self, changes: &Receiver<Change>) {
        loop {
            let wait = self.trim_at.map(|at| at.saturating_duration_since(Instant::now()));
            let first = match changes.recv_timeout(wait.unwrap_or(Duration::MAX)) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.trim_at.is_some_and(|at| at <= Instant::now()) {
                process::trim_memory();
                self.trim_at = None;
            }
            let Some(first) = first else { continue };
            let mut stale = self.note(first);
            let until = Instant::now() + SETTLE_MAX;
            loop {
                match changes.recv_timeout(SETTLE) {
                    Ok(change) => stale |= self.note(change),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return self.refresh(),
                }
                if Instant::now() >= until {
                    break;
                }
            }
            if let Some(known) = &mut self.known {
                known.pack();
            }
            if stale {
                self.refresh();
            }
        }
    }

    /// Takes a change. Returns whether a recording may have settled by it: the last thing to come is
    /// the segment; what is not sealed is read as it stands.
    fn note(&mut self, change: Change) -> bool {
        match change {
            Change::Sealed => {
                self.drawer.sealed();
                true
            }
            Change::Thinned => {
                self.drawer.thinned();
                self.thinned = true;
                true
            }
            Change::Forgotten => {
                self.known = None;
                true
            }
            // Before the journal has been read it is in there.
            Change::Entry(entry) => {
                if let Some(known) = &mut self.known {
                    known.fold(&entry);
                }
                if entry.rs().is_some() {
                    self.trim_at.get_or_insert_with(|| Instant::now() + TRIM_AFTER);
                }
                false
            }
        }
    }

    fn refresh(&mut self) {
        // Of a disk that was unmounted the folder is still there: no catalogue is made in it (F18).
        if let Err(error) = volume::read(&self.store) {
            return tracing::warn!("catalogue not updated: {error}");
        }
        let mut refreshed = self.try_refresh();
        if let Err(LibraryError::Index(IndexError::Damaged(why))) = refreshed {
            tracing::warn!("the catalogue is damaged and is made anew: {why}");
            sqlite::remove(&self.store);
            self.known = None;
            refreshed = self.try_refresh();
        }
        if let Err(error) = refreshed {
            // Readers go to the segments themselves then; it costs time, not recordings.
            tracing::warn!("catalogue not updated: {error}");
        }
    }

    fn try_refresh(&mut self) -> Result<(), LibraryError> {
        let (store, journal) = (self.store.as_path(), self.journal.as_path());
        let mut index = sqlite::open_write(store)?;
        if index.segments()?.len() < self.segments {
            // Somebody has emptied it, and what had settled is wanted once more.
            self.known = None;
        }
        if self.known.is_none() {
            let rows = index.mend()?;
            if rows > 0 {
                tracing::warn!("the catalogue: {rows} damaged rows are made anew");
            }
        }
        let library = Library::open(spare::places(store, journal), store, journal, None)?;
        if self.thinned {
            if library.refresh_thinned(&mut index)? {
                // What had settled is wanted once more.
                self.known = None;
            }
            self.thinned = false;
        }
        let known = match &mut self.known {
            Some(known) => known,
            none => {
                let mut journalled = library.durable_journal()?;
                for rs in journalled.recordings.values().filter(|rs| rs.forgotten.is_some()) {
                    if index.settled_entry(rs.id)?.is_some_and(|kept| kept.forgotten.is_none()) {
                        index.forget(rs.id)?;
                    }
                }
                journalled.forget(|id| index.is_settled(id))?;
                // It was read whole.
                self.trim_at = Some(Instant::now());
                none.insert(Unsettled::of(journalled))
            }
        };
        let ended = known.ended();
        // Segments are taken though nothing has ended.
        let passes = ended.chunks(PASS_MAX).chain(ended.is_empty().then_some(&[][..]));
        for ids in passes {
            library.refresh(&mut index, &known.journalled(ids))?;
            for id in ids {
                if index.is_settled(*id)? {
                    known.forget(*id);
                }
            }
        }
        self.segments = index.segments()?.len();
        Ok(())
    }
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
