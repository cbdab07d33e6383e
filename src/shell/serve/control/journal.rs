//! The journal's thread: group commit. Whatever waits when a sync ends is appended together and
//! made durable by the next one, so that a burst of INVITEs costs few syncs. What is durable goes
//! on to the catalogue.

use std::sync::mpsc;

use tokio::sync::mpsc::UnboundedSender;

use crate::base::faults::fault;
use crate::base::ports::Disk;
use crate::plane::control::NotDurable;
use crate::shell::serve::control::catalogue::Change;
use crate::store::journal::entry::Entry;
use crate::store::journal::file::{Journal, JournalError};

/// Entries that must be durable before `token` is answered.
pub(super) struct Job {
    /// Handed back when they are.
    pub(super) token: u64,
    /// The entries.
    pub(super) entries: Vec<Entry>,
}

/// A token and whether its entries are durable.
pub(super) struct Done {
    /// The job's token.
    pub(super) token: u64,
    /// `None`: durable.
    pub(super) error: Option<NotDurable>,
}

/// Jobs taken into one sync. 1,000 INVITE/s × 10 ms of fdatasync = 10; room for a slow disk.
const GROUP_MAX: usize = 512;

/// Runs until the sender of jobs is gone.
pub(super) fn run<D: Disk>(
    mut journal: Journal<D>,
    jobs: &mpsc::Receiver<Job>,
    done: &UnboundedSender<Done>,
    catalogue: &mpsc::Sender<Change>,
) {
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(job) = jobs.try_recv()
        {
            group.push(job);
        }
        fault!("journal.append");
        let written = group.iter().map(|job| journal.append_all(&job.entries)).collect::<Vec<_>>();
        let synced = journal.sync();
        for (job, written) in group.into_iter().zip(written) {
            let error = written.err().or(match &synced {
                Ok(()) => None,
                Err(_) => Some(JournalError::Failed),
            });
            let error = error.map(|fault| match fault {
                JournalError::TooLong => NotDurable::Entries(fault.to_string()),
                _ => NotDurable::Journal(fault.to_string()),
            });
            if error.is_none() {
                for entry in job.entries {
                    // The catalogue is rebuildable: a thread that is gone costs no recording.
                    let _ = catalogue.send(Change::Entry(Box::new(entry)));
                }
            }
            if done.send(Done { token: job.token, error }).is_err() {
                return;
            }
        }
    }
}
