//! The thread that removes what may go: once in a while it looks which extents are due by class and by no
//! hold, says so in the audit trail, and thins their segments one after the other, slowly. It is in
//! nobody's way: what it cannot do it leaves for the next time.
//!
//! Nothing goes while the clock is in doubt, or while the trail, which knows the holds, cannot be read
//! whole. It also tells what keeps the bytes of a disk that is full: nothing is ever removed to make room.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::base::keep::Keep;
use crate::base::ports::Clock;
use crate::base::time::{ClockMap, Wall};
use crate::config::model::Config;
use crate::host::audit::{self, Locked};
use crate::host::clock::SystemClock;
use crate::host::spare::{self, StoreDisk};
use crate::host::{process, reserve, signing, volume};
use crate::plane::retention::{Census, Classes, SegmentPlan};
use crate::shell::kept::{self, Known};
use crate::shell::serve::control::catalogue::Change;
use crate::shell::serve::control::forgetter;
use crate::shell::serve::control::journal::TurnOver;
use crate::store::audit::{Act, action};
use crate::store::catalog::Library;
use crate::store::segment::{self, SegmentName, ThinError, Thinning, destroy_stray_keys, withdraw};

/// Written at most so fast: the disk is the recordings'.
const BYTES_PER_S: u64 = 32 << 20;
/// Between the thinned segment's name and the end of the whole one: whoever listed the folder before has
/// come to its end by then.
const GRACE: Duration = Duration::from_secs(1);
/// A wall clock that moved by so much against the monotonic one was set, or the machine slept.
const STEP_NS: i64 = 60_000_000_000;
/// Sealed so long after its last record at most.
const SEALED_WITHIN_NS: i64 = 86_400_000_000_000;
/// What keeps a full disk's bytes is looked at so often.
const BLOCKERS_EVERY: Duration = Duration::from_secs(60);
/// What is said of recordings that are gone is looked for so often, whether anything went or not.
const WORDS_EVERY: Duration = Duration::from_secs(86_400);
/// Recordings that one entry of the trail names; of more their number is said.
const NAMED_MAX: usize = 1_000;

/// What the thread is told.
pub(super) enum Order {
    /// Another configuration is in force.
    Config(Box<Config>),
    /// There is too little room: what keeps it?
    Blockers,
}

/// To the thread, and from it.
pub(super) struct Expirer {
    orders: Sender<Order>,
    blockers: Arc<Mutex<String>>,
}

impl Expirer {
    /// Starts the thread; it ends when this is gone.
    pub(super) fn spawn(
        config: &Config,
        changes: Sender<Change>,
        turn_over: TurnOver,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (orders, received) = channel();
        let blockers = Arc::new(Mutex::new(String::new()));
        let work = Work {
            store: config.store.dir.clone(),
            journal: config.journal_dir(),
            config: config.clone(),
            clock: SystemClock.map(),
            changes,
            turn_over,
            words_left: true,
            words_at: Instant::now(),
            orders: received,
            later: VecDeque::new(),
            ending: false,
            blockers: Arc::clone(&blockers),
            asked: None,
        };
        let thread = std::thread::Builder::new().name("expirer".into()).spawn(move || {
            process::give_way();
            work.run();
        })?;
        Ok((Expirer { orders, blockers }, thread))
    }

    /// Another configuration is in force.
    pub(super) fn configure(&self, config: &Config) {
        let _ = self.orders.send(Order::Config(Box::new(config.clone())));
    }

    /// What keeps the disk full, as far as was found by now; empty: not yet, or nothing does.
    pub(super) fn blockers(&self) -> String {
        let _ = self.orders.send(Order::Blockers);
        self.blockers.lock().map_or_else(|_| String::new(), |known| known.clone())
    }
}

struct Work {
    store: PathBuf,
    journal: PathBuf,
    config: Config,
    /// The clocks when they were last compared.
    clock: ClockMap,
    changes: Sender<Change>,
    turn_over: TurnOver,
    /// Something may still be said of recordings of which nothing is left.
    words_left: bool,
    /// When that was last looked for.
    words_at: Instant,
    orders: Receiver<Order>,
    /// Orders that came while something was being done.
    later: VecDeque<Order>,
    /// Nobody waits for us any more but for our end.
    ending: bool,
    blockers: Arc<Mutex<String>>,
    asked: Option<Instant>,
}

/// Why nothing goes this time.
type Stays = anyhow::Error;

impl Work {
    fn run(mut self) {
        let mut next = self.after(Instant::now());
        self.take_reserve();
        while !self.ending {
            let wait = next.saturating_duration_since(Instant::now());
            let order = match self.later.pop_front() {
                Some(order) => Ok(order),
                None => self.orders.recv_timeout(wait),
            };
            match order {
                Ok(Order::Config(config)) => {
                    self.config = *config;
                    next = next.min(self.after(Instant::now()));
                }
                Ok(Order::Blockers) => self.tell_blockers(),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if self.clock_is_steady() && kept::may_go(&Classes::of(&self.config)) {
                        self.look_and_forget();
                    }
                    next = self.after(Instant::now());
                }
            }
        }
    }

    fn after(&self, now: Instant) -> Instant {
        now + Duration::from_secs(self.config.store.retention_check_s)
    }

    /// F70: whether the clock went on as it should since the last look.
    fn clock_is_steady(&mut self) -> bool {
        let now = SystemClock.map();
        let expected = self.clock.wall(now.mono);
        let moved = now.wall.0.saturating_sub(expected.0);
        self.clock = now;
        if moved.abs() > STEP_NS {
            tracing::warn!(
                "retention: the wall clock has moved by {} s against the other one since the last look: \
                 nothing goes this time",
                moved / 1_000_000_000
            );
        }
        moved.abs() <= STEP_NS
    }

    fn look_and_forget(&mut self) {
        let mut looked = self.look();
        if looked.as_ref().is_err_and(reserve::is_full) && reserve::give_back(&self.store) {
            tracing::warn!(
                "retention: the disk is full to its last block: its reserve of {} MiB is given back for \
                 what is due to go",
                reserve::BYTES >> 20
            );
            looked = self.look();
        }
        if let Err(error) = looked {
            tracing::error!("retention: nothing goes: {error:#}");
        }
        if let Err(error) = self.forget() {
            tracing::error!("retention: what was said of what is gone stays: {error:#}");
        }
        self.take_reserve();
    }

    /// Before anything is full, and again once something has gone. A disk with little room has none to keep,
    /// and one that is gone is told elsewhere.
    fn take_reserve(&self) {
        if volume::read(&self.store).is_ok()
            && let Err(error) = reserve::take(&self.store)
        {
            tracing::warn!("retention: no room can be kept for a full disk: {error}");
        }
    }

    /// Takes the words of what is gone as a whole, when something has gone; and once in a while, for there
    /// are recordings that nothing ever came of.
    fn forget(&mut self) -> Result<(), Stays> {
        if self.ending || !self.words_left && self.words_at.elapsed() < WORDS_EVERY {
            return Ok(());
        }
        self.words_at = Instant::now();
        let done = forgetter::forget(&self.config, self.clock.wall)?;
        // One pass is bounded: behind those that went may be more.
        self.words_left = done.waiting + done.left + done.recordings > 0;
        if done.waiting > 0 {
            self.turn_over.store(true, Ordering::Relaxed);
        }
        if done.recordings > 0 {
            let _ = self.changes.send(Change::Forgotten);
            tracing::info!(
                "retention: what was said of {} recordings that are gone is gone, too",
                done.recordings
            );
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), Stays> {
        let classes = Classes::of(&self.config);
        // Of a disk that was unmounted the folder is still there (F18).
        volume::read(&self.store)?;
        let disk = spare::places(&self.store, &self.journal);
        self.withdraw(&disk)?;
        self.destroy_strays(&disk)?;
        let library = Library::open(disk.clone(), &self.store, &self.journal, None)?;
        let now = self.clock.wall;
        let old = old_segments(&library, classes.shortest(), now)?;
        if old.is_empty() {
            return Ok(());
        }
        let facts = kept::facts(&library, &self.config)?;
        let mut known = read_rules(&self.store)?;
        let census = |known: &Known| Census::of(facts.iter().cloned(), &classes, &known.rules, now);
        let mut at = census(&known);
        let (mut extents, mut segments, mut bytes) = (0, 0, 0);
        for name in old {
            if self.ending {
                break;
            }
            // What cannot be read is nobody's to remove; whoever verifies tells of it.
            let Ok(Some(plan)) = at.plan(&library.archive, name) else { continue };
            if !plan.worth {
                continue;
            }
            let (plan, audit) = {
                let mut trail = Locked::take(&self.store)?;
                let fresh = read_rules(&self.store)?;
                let mut plan = plan;
                if fresh.head != known.head {
                    known = fresh;
                    at = census(&known);
                    match at.plan(&library.archive, name) {
                        Ok(Some(again)) if again.worth => plan = again,
                        _ => continue,
                    }
                }
                let entry = trail.append(expired(&plan, now))?;
                // Our own entry changes nothing.
                known.head = audit::head(&self.store)?.unwrap_or_default();
                (plan, entry.number)
            };
            match self.thin(&disk, &plan, audit, now) {
                Ok(Some(report)) => {
                    extents += report.gone;
                    segments += 1;
                    self.words_left = true;
                    bytes += report.bytes.0.saturating_sub(report.bytes.1);
                }
                Ok(None) => {}
                // What is kept of it needs more room than there is; of others less is, and they make some.
                Err(error) if reserve::is_full(&error) && !reserve::path(&self.store).exists() => {
                    tracing::warn!("retention: {} waits for room: {error:#}", plan.name.file());
                }
                // Keys that are damaged are nobody's to destroy by halves; the others have theirs.
                Err(error) if is_keys(&error) => tracing::error!("retention: {error:#}"),
                Err(error) => return Err(error),
            }
        }
        if segments > 0 {
            tracing::info!(
                "retention: {extents} extents of {segments} segments are gone, {} MiB are free again",
                bytes >> 20
            );
        }
        Ok(())
    }

    fn thin(
        &mut self,
        disk: &StoreDisk,
        plan: &SegmentPlan,
        audit: u64,
        now: Wall,
    ) -> Result<Option<segment::ThinReport>, Stays> {
        let key = signing::load(&self.store)?;
        let due: std::collections::BTreeMap<_, _> =
            plan.due.iter().map(|due| (due.source, &*due.class)).collect();
        let fate = |row: &segment::Row| due.get(&row.source).map(|class| (*class).to_owned());
        let store = self.store.clone();
        let thinning = Thinning { now, audit, key: &key };
        let report = thinning.run(disk, &store, plan.name, &fate, &mut |bytes| self.pace(bytes))?;
        let _ = self.changes.send(Change::Thinned);
        Ok(report)
    }

    /// Takes its time, unless somebody waits for the end.
    fn pace(&mut self, bytes: u64) {
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.later.push_back(order),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.ending = true;
                    break;
                }
            }
        }
        if !self.ending {
            let ns = bytes.saturating_mul(1_000_000_000) / BYTES_PER_S;
            std::thread::sleep(if bytes == 0 { GRACE } else { Duration::from_nanos(ns) });
        }
    }

    /// Where whoever thinned a segment died between its two names, the whole one counts.
    fn withdraw(&self, disk: &StoreDisk) -> Result<(), Stays> {
        for name in segment::list_thinned(disk, &self.store)? {
            if withdraw(disk, &self.store, name)? {
                tracing::warn!("retention: {} was not thinned to its end", name.file());
            }
        }
        Ok(())
    }

    /// Keys of segments that were begun in one folder and sealed in another one: under them something may
    /// have been encrypted that stands in blocks which nobody uses.
    fn destroy_strays(&self, disk: &StoreDisk) -> Result<(), Stays> {
        let spares = volume::read(&self.store)?.spares;
        if spares.is_empty() {
            return Ok(());
        }
        for root in std::iter::once(&self.store).chain(&spares) {
            // A spare folder that is not there is told elsewhere.
            let destroyed = destroy_stray_keys(disk, &self.store, root).unwrap_or_default();
            for path in destroyed {
                tracing::info!(
                    "retention: {} held keys of no segment, and is gone",
                    path.display()
                );
            }
        }
        Ok(())
    }

    fn tell_blockers(&mut self) {
        if self.asked.is_some_and(|asked| asked.elapsed() < BLOCKERS_EVERY) {
            return;
        }
        let words = kept::keeps(&self.config, SystemClock.map().wall);
        let words = words.unwrap_or_else(|error| format!("what is not known: {error}"));
        self.asked = Some(Instant::now());
        if let Ok(mut known) = self.blockers.lock()
            && *known != words
        {
            tracing::warn!("nothing is removed to make room: it is kept by {words}");
            *known = words;
        }
    }
}

fn is_keys(error: &Stays) -> bool {
    matches!(error.downcast_ref(), Some(ThinError::Keys { source, .. }) if source.is_damage())
}

/// The rules by the trail; nothing goes by one that may lack a hold.
fn read_rules(store: &std::path::Path) -> Result<Known, Stays> {
    let known = Known::read(store)?;
    match known.faults.first() {
        Some(fault) => Err(anyhow::anyhow!("a hold may be missing: {fault}")),
        None => Ok(known),
    }
}

/// Segments of which something may be due, oldest first.
fn old_segments(
    library: &Library<StoreDisk>,
    shortest: Keep,
    now: Wall,
) -> Result<Vec<SegmentName>, Stays> {
    let mut old = Vec::new();
    let gone: std::collections::BTreeMap<_, _> = library.archive.thinned()?.into_iter().collect();
    for name in library.archive.segments()? {
        let Ok(trailer) = library.archive.trailer(name) else { continue };
        let last = Wall(trailer.created.0.saturating_sub(SEALED_WITHIN_NS));
        let is_old = shortest.until(last).is_some_and(|until| until < now);
        if is_old && gone.get(&name) != Some(&trailer.rows) {
            old.push((trailer.created, name));
        }
    }
    old.sort_unstable();
    Ok(old.into_iter().map(|(_, name)| name).collect())
}

/// What the trail says before anything goes.
fn expired(plan: &SegmentPlan, now: Wall) -> Act {
    let recordings = plan.recordings();
    let named: Vec<String> = recordings.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let classes: std::collections::BTreeSet<&str> =
        plan.due.iter().map(|due| &*due.class).collect();
    Act::new(now, audit::ourselves("server"), action::RETENTION_EXPIRED, plan.name.file())
        .with("extents", plan.due.len())
        .with("bytes", plan.due_bytes())
        .with("classes", classes.into_iter().collect::<Vec<_>>())
        .with("count", recordings.len())
        .with("recordings", named)
}
