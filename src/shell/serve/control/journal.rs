//! The journal's thread: group commit. Whatever waits when a sync ends is appended together and
//! made durable by the next one, so that a burst of INVITEs costs few syncs. What is durable goes
//! on to the catalogue.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::base::faults::fault;
use crate::base::ports::Disk;
use crate::plane::control::NotDurable;
use crate::shell::serve::control::anchors::JournalHead;
use crate::shell::serve::control::catalogue::Change;
use crate::store::journal::Compacted;
use crate::store::journal::entry::Entry;
use crate::store::journal::{Journal, JournalError, Written};

/// Set by whoever waits for entries to leave the journal; taken by its thread.
pub(super) type TurnOver = Arc<AtomicBool>;

/// Entries that must be durable before `token` is answered.
pub(super) struct Job {
    /// Handed back when they are.
    pub(super) token: u64,
    /// The entries.
    pub(super) entries: Vec<Entry>,
}

/// What the thread has to say.
pub(super) enum Said {
    /// A job is durable, or not.
    Done {
        /// The job's token.
        token: u64,
        /// `None`: durable.
        error: Option<NotDurable>,
    },
    /// The journal takes nothing: why.
    Fails(String),
    /// It takes entries again, and all that it was given meanwhile is durable.
    Works,
}

/// Time between two attempts to go on after a failure (F19).
const RETRY: Duration = Duration::from_secs(1);
/// From a start, or from one snapshot, to the next.
const SNAPSHOT_AFTER: Duration = Duration::from_secs(1);
/// What nobody asks for any more is forgotten this often, while there are entries.
const FORGET_AFTER: Duration = Duration::from_secs(10);
/// What no seal covers is sealed after this, where nothing else does it.
const SEAL_AFTER: Duration = Duration::from_secs(2);
/// How often an idle journal looks whether it is to be turned over.
const TURN_LOOK: Duration = Duration::from_secs(5);
/// Jobs taken into one sync. 1,000 INVITE/s × 10 ms of fdatasync = 10; room for a slow disk.
const GROUP_MAX: usize = 512;

/// Kept for ends on a full disk: those of 2,500 recordings and 5,000 streams, twice.
const RESERVE_BYTES: u64 = 4 << 20;
/// What is said while it is in use.
const TIGHT: &str = "its disk is full; what ends is noted in the room that was kept for it";

/// Room in the journal's folder that only a full disk gives back: a BYE that was answered and is not
/// in the journal would leave a recording that runs again after the next start.
pub(super) struct Reserve<D> {
    disk: D,
    path: PathBuf,
    there: bool,
}

impl<D: Disk> Reserve<D> {
    /// That of `folder`. Nothing is taken yet.
    pub(super) fn new(disk: D, folder: &Path) -> Self {
        Reserve { disk, path: folder.join("reserve"), there: false }
    }

    /// Takes the room where it is not held. False: there is none.
    fn keep(&mut self) -> bool {
        self.there = self.there
            || match self.disk.create(&self.path, RESERVE_BYTES) {
                Ok(_) => true,
                Err(error) => error.kind() == std::io::ErrorKind::AlreadyExists,
            };
        self.there
    }

    /// Gives it back to the disk. False: it was not held, by this start or one before.
    fn give(&mut self) -> bool {
        self.there = false;
        self.disk.remove(&self.path).is_ok()
    }
}

/// Runs until the sender of jobs is gone. What fails is tried again each second; until then it is
/// kept in memory and nothing is promised.
pub(super) fn run<D: Disk + Clone + Send + 'static, R: Disk>(
    mut journal: Journal<D>,
    first: &Entry,
    jobs: &mpsc::Receiver<Job>,
    said: &UnboundedSender<Said>,
    catalogue: &mpsc::Sender<Change>,
    mut reserve: Reserve<R>,
    (head, turn_over): (&JournalHead, &TurnOver),
) {
    let mut retry_at = Instant::now();
    // The room for ends is in use, or cannot be had: nothing new is taken until it is there again.
    let mut tight = false;
    let mut snapshot_at = Instant::now() + SNAPSHOT_AFTER;
    let mut forget_at = Instant::now() + FORGET_AFTER;
    let mut beside = Beside::Nothing;
    // What became durable only later, or has yet to: the journal keeps the same bytes, within a bound.
    let mut owed = Vec::new();
    begin(&mut journal, first);
    if journal.has_failed() && reserve.give() {
        let _ = journal.revive();
    }
    if journal.has_failed() {
        let _ = said.send(Said::Fails("it cannot be written".to_owned()));
    } else if !reserve.keep() {
        tight = true;
        let _ = said.send(Said::Fails(TIGHT.to_owned()));
    }
    loop {
        let wait = if journal.has_failed() || tight {
            retry_at.saturating_duration_since(Instant::now())
        } else if journal.wants_snapshot() || beside.is_busy() {
            snapshot_at.saturating_duration_since(Instant::now())
        } else {
            TURN_LOOK
        };
        *head.lock().expect("nobody panics with it") = journal.head();
        let wait = if journal.is_unsealed() { wait.min(SEAL_AFTER) } else { wait };
        let mut group = Vec::new();
        match jobs.recv_timeout(wait) {
            Ok(job) => group.push(job),
            // What fails here is found by the next group.
            Err(RecvTimeoutError::Timeout) if journal.is_unsealed() => {
                let _ = journal.seal().and_then(|()| journal.sync());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        while !group.is_empty()
            && group.len() < GROUP_MAX
            && let Ok(job) = jobs.try_recv()
        {
            group.push(job);
        }
        fault!("journal.append");
        let failed_before = journal.has_failed();
        let written: Vec<_> = group.iter().map(|job| journal.append_all(&job.entries)).collect();
        let mut durable = if group.is_empty() { Err(JournalError::Failed) } else { journal.sync() };
        // At once after the failure, for there may be a spare folder; then each second.
        if journal.has_failed() && (!failed_before || Instant::now() >= retry_at) {
            retry_at = Instant::now() + RETRY;
            durable = revive(&mut journal, &durable, &written, failed_before);
            if durable.is_err() && reserve.give() {
                durable = journal.revive().map(drop);
                tight = durable.is_ok();
                if tight {
                    tracing::error!("journal: {TIGHT}");
                    let _ = said.send(Said::Fails(TIGHT.to_owned()));
                }
            }
            if durable.is_ok() && failed_before {
                if !tight {
                    let _ = said.send(Said::Works);
                }
                tell(catalogue, owed.drain(..));
                let _ = catalogue.send(Change::Sealed);
            }
        }
        if tight && Instant::now() >= retry_at {
            retry_at = Instant::now() + RETRY;
            if !journal.has_failed() && reserve.keep() {
                tight = false;
                let _ = said.send(Said::Works);
            }
        }
        for (job, written) in group.into_iter().zip(written) {
            let error = not_durable(written, &durable);
            match error {
                None => tell(catalogue, job.entries),
                Some(NotDurable::Journal(_)) => owed.extend(job.entries),
                Some(NotDurable::Entries(_)) => {}
            }
            if said.send(Said::Done { token: job.token, error }).is_err() {
                return beside.wait();
            }
        }
        if !journal.has_failed() && Instant::now() >= forget_at {
            forget_at = Instant::now() + FORGET_AFTER;
            journal.forget();
        }
        if !journal.has_failed() && turn_over.swap(false, Ordering::Relaxed) {
            // What fails is found by the next group.
            let _ = journal.turn_over();
        }
        // Never in the way of a start's first answers.
        if Instant::now() >= snapshot_at {
            snapshot_at = Instant::now() + SNAPSHOT_AFTER;
            beside = beside.next(&mut journal);
        }
    }
    if journal.has_failed()
        && let Err(error) = journal.revive()
    {
        tracing::error!("what was not in the journal yet is lost: {error}");
    }
    if journal.seal().and_then(|()| journal.sync()).is_ok() {
        *head.lock().expect("nobody panics with it") = journal.head();
    }
    // A successor in this process would meet it; one in another has no process to meet.
    beside.wait();
}

/// What is done beside the journal's thread, one thing at a time: both write as much as the files that
/// they stand for, and answers wait for the journal's.
enum Beside {
    Nothing,
    /// What a start reads is written anew, shorter.
    Snapshot(JoinHandle<Result<Written, JournalError>>),
    /// What is over goes into the history.
    Compaction(JoinHandle<()>),
}

impl Beside {
    const fn is_busy(&self) -> bool {
        !matches!(self, Beside::Nothing)
    }

    /// Takes what is finished, and begins what is wanted now.
    fn next<D: Disk + Clone + Send + 'static>(self, journal: &mut Journal<D>) -> Self {
        match self {
            Beside::Snapshot(thread) if thread.is_finished() => match thread.join() {
                Ok(Ok(written)) => {
                    journal.take_snapshot(&written);
                    compact(journal)
                }
                Ok(Err(error)) => {
                    tracing::warn!("the next start reads more of the journal: {error}");
                    Beside::Nothing
                }
                // As if it had been done here.
                Err(panic) => std::panic::resume_unwind(panic),
            },
            Beside::Compaction(thread) if thread.is_finished() => begin_snapshot(journal),
            Beside::Nothing => begin_snapshot(journal),
            busy => busy,
        }
    }

    fn wait(self) {
        match self {
            Beside::Nothing => {}
            Beside::Snapshot(thread) => drop(thread.join()),
            Beside::Compaction(thread) => drop(thread.join()),
        }
    }
}

fn begin_snapshot<D: Disk + Clone + Send + 'static>(journal: &mut Journal<D>) -> Beside {
    let Some(snapshot) = journal.begin_snapshot() else { return Beside::Nothing };
    let thread = std::thread::Builder::new().name("snapshot".into()).spawn(move || snapshot.run());
    match thread {
        Ok(thread) => Beside::Snapshot(thread),
        Err(error) => {
            tracing::warn!("the next start reads more of the journal: {error}");
            Beside::Nothing
        }
    }
}

/// To the catalogue, which is rebuildable: a thread that is gone costs no recording.
fn tell(catalogue: &mpsc::Sender<Change>, durable: impl IntoIterator<Item = Entry>) {
    for entry in durable {
        let _ = catalogue.send(Change::Entry(Box::new(entry)));
    }
}

fn compact<D: Disk + Clone + Send + 'static>(journal: &mut Journal<D>) -> Beside {
    let Some(compaction) = journal.compaction() else { return Beside::Nothing };
    let work = move || match compaction.run() {
        Ok(done) if done == Compacted::default() => {}
        Ok(done) => tracing::info!(
            "journal: {} files went, {} bytes of them into the history",
            done.files,
            done.bytes
        ),
        Err(error) => tracing::warn!("the journal stays as long as it is: {error}"),
    };
    match std::thread::Builder::new().name("history".into()).spawn(work) {
        Ok(thread) => Beside::Compaction(thread),
        Err(error) => {
            tracing::warn!("the journal stays as long as it is: {error}");
            Beside::Nothing
        }
    }
}

/// The first entry of this start. Where this fails nothing is promised, but BYE is answered and the
/// dialogs live on (F19).
fn begin<D: Disk>(journal: &mut Journal<D>, first: &Entry) {
    if let Err(error) = journal.append(first).and_then(|()| journal.sync()) {
        tracing::error!("{error}");
        if let Err(error) = journal.revive() {
            tracing::error!("{error}");
        }
    }
}

fn revive<D: Disk>(
    journal: &mut Journal<D>,
    durable: &Result<(), JournalError>,
    written: &[Result<(), JournalError>],
    failed_before: bool,
) -> Result<(), JournalError> {
    let errors = written.iter().filter_map(|one| one.as_ref().err()).chain(durable.as_ref().err());
    let first = errors.map(ToString::to_string).next().unwrap_or_default();
    match journal.revive() {
        Ok(path) if failed_before => {
            tracing::warn!("the journal works again, in {}", path.display());
            Ok(())
        }
        Ok(path) => {
            tracing::error!("{first}; the journal goes on in {}", path.display());
            Ok(())
        }
        Err(error) => {
            if !failed_before {
                tracing::error!("{first}; and {error}: it is tried again each second");
            }
            Err(error)
        }
    }
}

fn not_durable(
    written: Result<(), JournalError>,
    durable: &Result<(), JournalError>,
) -> Option<NotDurable> {
    match (written, durable) {
        (Err(fault @ JournalError::TooLong), _) => Some(NotDurable::Entries(fault.to_string())),
        // What was not written at first is in the file that came after.
        (_, Ok(())) => None,
        (Err(fault), Err(JournalError::Failed)) => Some(NotDurable::Journal(fault.to_string())),
        (_, Err(fault)) => Some(NotDurable::Journal(fault.to_string())),
    }
}
