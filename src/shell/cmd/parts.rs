//! Recordings read on several cores: whoever waits for all of a store waits that much less. A recording is one
//! thread's, with all its lines; the recorder's own events, by which losses are judged, are read by each.

use std::thread;

use super::store::Store;
use crate::host::process;
use crate::host::spare::StoreDisk;
use crate::shell::exit::Failure;
use crate::store::catalog::{Library, RsEntry};

/// Memory and disks are no faster for more; nor is a thread worth its start for less than one recording.
const PARTS_MAX: usize = 8;

/// Threads that share the work.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(PARTS_MAX)
}

/// Recordings, by who reads them.
pub(crate) struct Parts<'a>(Vec<Vec<&'a RsEntry>>);

impl<'a> Parts<'a> {
    /// As many as there are cores, and one at least.
    pub(crate) fn of(wanted: &[&'a RsEntry]) -> Self {
        Self::in_number(wanted, cores())
    }

    fn in_number(wanted: &[&'a RsEntry], count: usize) -> Self {
        let mut parts = vec![Vec::new(); count.min(wanted.len()).max(1)];
        // Long ones stand together in time: in turn, each gets its share of them.
        let count = parts.len();
        for (place, rs) in wanted.iter().enumerate() {
            parts[place % count].push(*rs);
        }
        Parts(parts)
    }

    /// What `read` makes of each part, given its place, in their order. The first one is read here, with `library`; each other on
    /// a thread of its own, with a library of its own.
    pub(crate) fn read<T: Send>(
        &self,
        store: &Store,
        library: &Library<StoreDisk>,
        read: impl Fn(usize, &Library<StoreDisk>, &[&RsEntry]) -> Result<T, Failure> + Sync,
    ) -> Result<Vec<T>, Failure> {
        let (first, others) = self.0.split_first().expect("one at least");
        let marks = library.archive.promises();
        let apart = |place: usize, part: &[&RsEntry]| {
            // The recorder may be at work beside us: one thread is what it was to reckon with.
            process::give_way();
            let library = store.library_beside()?;
            library.archive.promise(marks.clone());
            read(place, &library, part)
        };
        let apart = &apart;
        thread::scope(|scope| {
            let others = others.iter().enumerate();
            let started: Vec<_> =
                others.map(|(place, part)| scope.spawn(move || apart(place + 1, part))).collect();
            let mut found = vec![read(0, library, first)];
            found.extend(started.into_iter().map(|one| match one.join() {
                Ok(found) => found,
                Err(panic) => std::panic::resume_unwind(panic),
            }));
            found.into_iter().collect()
        })
    }
}
