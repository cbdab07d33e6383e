//! The thread of evidence: looks which heads the chains of the store have, signs them, keeps them in the
//! store (`STORE/evidence/heads`) and sends them elsewhere as the configuration says. Nobody waits for it;
//! what fails is counted, tried again, and an alarm where it lasts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::base::ids::WorkerId;
use crate::base::ports::{Clock, Disk};
use crate::config::model::Evidence;
use crate::host::clock::SystemClock;
use crate::host::disk::read_small_text;
use crate::host::outlet::Outlet;
use crate::host::spare::StoreDisk;
use crate::host::{audit, process, signing, spare, volume};
use crate::store::audit::{Head, check_sealed};
use crate::store::evidence::{
    ANCHOR_VERSION, Anchor, AuditHead, FileMark, Heads, Hex, SigningKey, WorkerHead,
};
use crate::store::journal::is_signed;
use crate::store::{log, segment};

/// Lines that wait for a place that does not take them; the newest says all that older ones say but
/// when.
const WAITING_MAX: usize = 64;
/// Between two attempts at a place that refused.
const RETRY: Duration = Duration::from_secs(10);
/// A place that takes nothing for so long is an alarm.
const ALARM: Duration = Duration::from_secs(300);
/// Before the first look: who has just begun answers first.
const FIRST: Duration = Duration::from_secs(1);
/// Least time between two looks for what was sealed; a store of so many segments that a look takes long is
/// looked at less often.
const SEALED: Duration = Duration::from_secs(1);
/// See [`SEALED`]: so many times as long as a look takes.
const LOOKS: u32 = 20;

/// Where the journal's thread says how far it is.
pub(super) type JournalHead = Arc<Mutex<Option<FileMark>>>;

/// What a monitoring system sees of one place.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// `file`, `syslog` or `webhook`.
    pub(super) kind: &'static str,
    /// Anchors that it took.
    pub(super) taken: u64,
    /// Attempts in vain.
    pub(super) failed: u64,
    /// Anchors that wait.
    pub(super) waiting: u64,
}

/// By place; shared with whoever tells them.
pub(super) type Places = Arc<Mutex<Vec<Place>>>;

/// What the thread works with.
pub(super) struct Setup {
    pub(super) store: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) evidence: Evidence,
    pub(super) volume: String,
    pub(super) key: Arc<SigningKey>,
    pub(super) head: JournalHead,
    pub(super) places: Places,
}

/// Starts the thread. It looks soon when something was sealed, which the sender tells, and once more when all senders
/// are gone; then it ends.
pub(super) fn spawn(setup: Setup) -> io::Result<(Sender<()>, JoinHandle<()>)> {
    let (sender, receiver) = channel();
    let mut anchors = Anchors::new(setup);
    // A journal that is signed has heads beside it: their absence is a sign, too.
    if !path(&anchors.setup.store).exists() && anchors.trail.lost.is_none() {
        anchors.look(false, true);
    }
    let thread = std::thread::Builder::new().name("anchors".into()).spawn(move || {
        process::give_way();
        anchors.run(&receiver);
    })?;
    Ok((sender, thread))
}

/// The newest entry of the audit trail that is known to be durable; a trail that cannot be read is told of
/// by whoever writes it.
fn trail_head(store: &Path) -> Option<AuditHead> {
    let head = audit::head(store).ok().flatten().filter(|head| head.number > 0)?;
    Some(AuditHead { number: head.number, sha256: Hex(head.hash) })
}

/// The newest entry of the audit trail of which the store has signed that it is there; `Ok(None)`: it says so of
/// none. `Err`: its heads are gone or damaged, and the trail may have lost entries with them; that nobody has
/// them any more is said by an empty file.
pub(in crate::shell) fn trail_signed(store: &Path) -> Result<Option<Head>, String> {
    let text = match read_small_text(&path(store)) {
        Ok(text) if text.is_empty() => return Ok(None),
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !had_heads(store) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("evidence/heads cannot be read: {error}")),
    };
    let anchor = Anchor::parse(&text).map_err(|error| format!("evidence/heads: {error}"))?;
    Ok(anchor.anchor.audit.map(|head| Head { number: head.number, hash: head.sha256.0 }))
}

/// Whether the store has signed its heads at any time: it does before its first journal file that is signed.
fn had_heads(store: &Path) -> bool {
    let Ok(volume) = volume::read(store) else { return false };
    let journal = volume.journal.unwrap_or_else(|| store.join("journal"));
    // One that cannot be read is told by whoever reads it; nothing goes by it.
    is_signed(&spare::places(store, &journal), &journal).unwrap_or(true)
}

/// What the heads say of the audit trail. It never goes back: while the trail does not hold what was signed of
/// it, that is said again, so that whoever verifies, and whoever removes what no hold holds, sees that entries
/// are gone.
#[derive(Default)]
struct Signed {
    head: Option<Head>,
    /// The trail held it, and whoever writes it goes on from there.
    held: bool,
    told: bool,
    /// What was signed of it is not known any more: nothing new is, until somebody has said so.
    lost: Option<String>,
}

impl Signed {
    fn of(store: &Path) -> Self {
        match trail_signed(store) {
            Ok(head) => Signed { head, ..Signed::default() },
            Err(why) => Signed { lost: Some(why), ..Signed::default() },
        }
    }

    fn next(&mut self, store: &Path) -> Option<AuditHead> {
        if let Some(why) = &self.lost {
            if !std::mem::replace(&mut self.told, true) {
                tracing::error!(
                    "alarm: {why}: with it entries of the audit trail may be gone, holds among them, and \
                     nothing goes by retention; bring it back from a copy, or make it an empty file where \
                     it is lost for good, with the server ended"
                );
            }
            return None;
        }
        let fresh = trail_head(store);
        let last = fresh.map_or(0, |head| head.number);
        if let Some(before) = self.head
            && !(self.held && last >= before.number)
        {
            match check_sealed(&audit::files_of(store), store, &[before].into()) {
                Ok(faults) => {
                    self.held = faults.is_empty();
                    if let Some(fault) = faults.first().filter(|_| !self.told) {
                        tracing::error!(
                            "alarm: {fault}: holds may be missing, and nothing goes by retention; bring the \
                             files of the trail back from a copy"
                        );
                    }
                    self.told = !self.held;
                }
                // Told by whoever writes it.
                Err(_) => self.held = false,
            }
            if !self.held {
                return Some(AuditHead { number: before.number, sha256: Hex(before.hash) });
            }
        }
        self.held = true;
        self.head =
            fresh.map(|head| Head { number: head.number, hash: head.sha256.0 }).or(self.head);
        fresh
    }
}

/// What the heads say of the segments of each worker. That never goes back either: where the newest segments
/// are gone it is said again, and `verify` misses them.
#[derive(Default)]
struct Sealed {
    heads: BTreeMap<u16, WorkerHead>,
    told: bool,
}

impl Sealed {
    /// As the heads of that store say that are there.
    fn of(store: &Path, volume: &str) -> Self {
        let before = read_small_text(&path(store)).ok().and_then(|text| Anchor::parse(&text).ok());
        let before = before.map(|anchor| anchor.anchor).filter(|heads| heads.volume == volume);
        let heads = before.map_or_else(Vec::new, |heads| heads.workers);
        let heads = heads.into_iter().map(|head| (head.worker, head)).collect();
        Sealed { heads, told: false }
    }

    fn next(&mut self, found: Vec<WorkerHead>) -> Vec<WorkerHead> {
        let mut gone = self.heads.clone();
        for head in found {
            if gone.get(&head.worker).is_none_or(|known| known.segment < head.segment) {
                self.heads.insert(head.worker, head);
                gone.remove(&head.worker);
            } else if gone.get(&head.worker) == Some(&head) {
                gone.remove(&head.worker);
            }
        }
        if let Some(known) = gone.values().next()
            && !self.told
        {
            tracing::error!(
                "alarm: segment {} of worker {} was signed and is not there, or is another one; bring it back from a \
                 copy",
                known.segment,
                known.worker
            );
        }
        self.told = !gone.is_empty();
        self.heads.values().copied().collect()
    }
}

struct Anchors {
    setup: Setup,
    outlets: Vec<Waiting>,
    trail: Signed,
    sealed: Sealed,
    /// What `evidence/heads` says.
    kept: Option<Heads>,
    /// What was sent last.
    sent: Option<Heads>,
    told: bool,
}

/// A place and what it has not taken.
struct Waiting {
    outlet: Outlet,
    lines: VecDeque<(String, String)>,
    since: Option<Instant>,
    alarmed: bool,
    figures: Place,
}

impl Anchors {
    fn new(setup: Setup) -> Self {
        let evidence = &setup.evidence;
        let file = evidence.anchor_file.clone().map(Outlet::File);
        let syslog = evidence.syslog.as_deref().and_then(Outlet::syslog);
        let token = evidence.webhook_token.clone();
        let webhook = evidence.webhook.as_deref().and_then(|url| Outlet::webhook(url, token));
        let outlets = [file, syslog, webhook].into_iter().flatten();
        let outlets = outlets.map(|outlet| Waiting {
            figures: Place { kind: outlet.kind(), ..Place::default() },
            outlet,
            lines: VecDeque::new(),
            since: None,
            alarmed: false,
        });
        let outlets = outlets.collect();
        let trail = Signed::of(&setup.store);
        let sealed = Sealed::of(&setup.store, &setup.volume);
        Anchors { setup, outlets, trail, sealed, kept: None, sent: None, told: false }
    }

    fn run(mut self, sealed: &Receiver<()>) {
        let every = Duration::from_secs(self.setup.evidence.anchor_s);
        let mut wait = FIRST.min(every);
        let (mut look_at, mut seal_at) = (Instant::now() + wait, None);
        let mut looked = Instant::now();
        let mut pause = SEALED;
        loop {
            let ended = match sealed.recv_timeout(wait) {
                Ok(()) => {
                    seal_at.get_or_insert(looked + pause);
                    false
                }
                Err(error) => error == RecvTimeoutError::Disconnected,
            };
            let began = Instant::now();
            let due = began >= look_at;
            if ended || due || seal_at.is_some_and(|at| began >= at) {
                seal_at = None;
                self.look(ended, due);
                looked = Instant::now();
                pause = SEALED.max(looked.duration_since(began) * LOOKS);
            }
            if ended || due {
                look_at = Instant::now() + every;
            }
            self.send();
            if ended {
                return;
            }
            let waits = self.outlets.iter().any(|one| !one.lines.is_empty());
            let retry = if waits { RETRY } else { every };
            let next = seal_at.map_or(look_at, |at: Instant| at.min(look_at));
            wait = next.saturating_duration_since(Instant::now()).min(retry);
        }
    }

    /// `last`: nobody looks again before the next start. `due`: what has moved is told outside, too.
    fn look(&mut self, last: bool, due: bool) {
        // Of a disk that was unmounted the folder is still there (F18).
        let heads = match volume::read(&self.setup.store) {
            Ok(_) => self.heads(),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        let heads = match heads {
            Ok(heads) => heads,
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::error!("alarm: the heads of the store cannot be read: {error}");
                }
                return;
            }
        };
        self.told = false;
        let anchor = heads.clone().sign(&self.setup.key);
        if self.trail.lost.is_some() {
            // That it is not there is what tells the next start.
            self.kept = Some(heads.clone());
        } else if heads.moved(self.kept.as_ref()) {
            match keep(&self.setup.store, &anchor) {
                Ok(()) => self.kept = Some(heads.clone()),
                Err(error) => tracing::warn!("{}: {error}", path(&self.setup.store).display()),
            }
        }
        // The journal moves all the time while something is recorded; it goes along with segments.
        let new = self
            .sent
            .as_ref()
            .is_none_or(|sent| (&sent.workers, &sent.audit) != (&heads.workers, &heads.audit));
        if new && due || last && heads.moved(self.sent.as_ref()) {
            for one in &mut self.outlets {
                if one.lines.len() >= WAITING_MAX {
                    one.lines.pop_front();
                }
                one.lines.push_back((anchor.line(), heads.at.to_string()));
            }
            self.sent = Some(heads);
        }
    }

    fn heads(&mut self) -> io::Result<Heads> {
        let audit = self.trail.next(&self.setup.store);
        let Setup { store, journal, volume, head, key, .. } = &self.setup;
        // Before the segments: what the journal says of them is there by then.
        let journalled = *head.lock().expect("nobody panics with it");
        let workers = self.sealed.next(worker_heads(store, journal)?);
        Ok(Heads {
            version: ANCHOR_VERSION,
            at: SystemClock.map().wall,
            volume: volume.clone(),
            workers,
            journal: journalled,
            audit,
            key: Hex(key.public_key()),
        })
    }

    fn send(&mut self) {
        for one in &mut self.outlets {
            one.send();
        }
        let figures = self.outlets.iter().map(|one| one.figures.clone()).collect();
        *self.setup.places.lock().expect("nobody panics with it") = figures;
    }
}

/// Where a store keeps its own anchor.
pub(in crate::shell) fn path(store: &Path) -> PathBuf {
    store.join("evidence").join("heads")
}

fn keep(store: &Path, anchor: &Anchor) -> io::Result<()> {
    signing::put(store, &path(store), format!("{}\n", anchor.line()).as_bytes())
}

/// Signs once more what the heads of the store say, with the segments that there are now: at the end of a server
/// media seals its last ones when control, and with it the thread above, has ended.
pub(in crate::shell) fn renew(store: &Path, journal: &Path) -> io::Result<()> {
    let key = signing::load(store)?;
    let text = read_small_text(&path(store))?;
    let before = Anchor::parse(&text).map_err(io::Error::other)?.anchor;
    // What somebody else has put there is for `verify` to judge.
    if before.key.0 != key.public_key() {
        return Ok(());
    }
    let mut sealed = Sealed::of(store, &before.volume);
    let workers = sealed.next(worker_heads(store, journal)?);
    if workers == before.workers {
        return Ok(());
    }
    keep(store, &Heads { at: SystemClock.map().wall, workers, ..before }.sign(&key))
}

/// The newest segment of each worker.
fn worker_heads(store: &Path, journal: &Path) -> io::Result<Vec<WorkerHead>> {
    let disk = spare::places(store, journal);
    // What is signed is there after a power cut, too.
    disk.sync_names(&segment::folder(store))?;
    let mut heads = Vec::new();
    for worker in all_workers(&disk, store)? {
        if let (_, Some(trailer)) = segment::last_segment(&disk, store, worker)? {
            let (segment, head) = (trailer.number, Hex(trailer.head));
            heads.push(WorkerHead { worker: worker.0, segment, head });
        }
    }
    Ok(heads)
}

fn all_workers(disk: &StoreDisk, store: &Path) -> io::Result<BTreeSet<WorkerId>> {
    let names = segment::list(disk, store)?.into_iter().map(|name| name.worker);
    let logs = log::workers(disk, store).map_err(io::Error::other)?;
    Ok(names.chain(logs).collect())
}

impl Waiting {
    fn send(&mut self) {
        while let Some((line, at)) = self.lines.front() {
            match self.outlet.write(line, at) {
                Ok(()) => {
                    self.lines.pop_front();
                    self.figures.taken += 1;
                    self.since = None;
                    if std::mem::take(&mut self.alarmed) {
                        tracing::warn!("anchors are taken again by {}", self.outlet);
                    }
                }
                Err(error) => {
                    self.figures.failed += 1;
                    let since = *self.since.get_or_insert_with(|| {
                        tracing::warn!("no anchor to {}: {error}; tried again", self.outlet);
                        Instant::now()
                    });
                    if since.elapsed() >= ALARM && !std::mem::replace(&mut self.alarmed, true) {
                        tracing::error!(
                            "alarm: {} has taken no anchor for {} s: {error}",
                            self.outlet,
                            since.elapsed().as_secs()
                        );
                    }
                    break;
                }
            }
        }
        self.figures.waiting = self.lines.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::disk::HostDisk;
    use crate::shell::kept::Known;
    use crate::store::audit::{Act, action};
    use crate::store::journal::entry::Entry;
    use crate::store::journal::{Before, Journal};

    fn signed(store: &Path, head: Option<AuditHead>) {
        let key = SigningKey::from_seed(&[7; 32]);
        let heads = Heads {
            version: ANCHOR_VERSION,
            at: SystemClock.map().wall,
            volume: "v".to_owned(),
            workers: Vec::new(),
            journal: None,
            audit: head,
            key: Hex(key.public_key()),
        };
        std::fs::create_dir_all(store.join("evidence")).expect("ours");
        std::fs::write(path(store), format!("{}\n", heads.sign(&key).line())).expect("ours");
    }

    #[test]
    fn heads_that_are_gone_with_the_trail_are_missed_until_somebody_says_so() {
        let pid = std::process::id();
        let store = std::env::temp_dir().join(format!("floortape-lost-heads-{pid}"));
        let _ = std::fs::remove_dir_all(&store);
        std::fs::create_dir_all(&store).expect("a temp folder");
        volume::open(&store, "v").expect("made");
        assert_eq!(trail_signed(&store), Ok(None), "no journal yet");
        let (journal, past) = (store.join("journal"), store.join("history"));
        std::fs::create_dir_all(&journal).expect("ours");
        let (mut open, _) = Journal::open(HostDisk, &journal, &past).expect("fresh");
        let start = |before| Entry::Start {
            version: 1,
            volume: "v".to_owned(),
            at: SystemClock.map().wall,
            kept: false,
            before,
        };
        open.append(&start(None)).and_then(|()| open.sync()).expect("room");
        assert_eq!(trail_signed(&store), Ok(None), "of a version that signed nothing");
        drop(open);
        let (mut open, _) = Journal::open(HostDisk, &journal, &past).expect("there");
        let before = Before::default();
        open.append(&start(Some(before))).and_then(|()| open.sync()).expect("room");
        // Heads and trail are gone together: what begins anew has no holds.
        let gone = || {
            let known = Known::read(&store).expect("readable");
            let said = known.faults.join(" ");
            assert!(said.contains("evidence/heads"), "{said}");
            let mut signs = Signed::of(&store);
            assert_eq!(signs.next(&store), None);
            assert!(signs.told && signs.lost.is_some());
        };
        gone();
        signed(&store, None);
        assert_eq!(trail_signed(&store), Ok(None));
        let mut bad = std::fs::read(path(&store)).expect("there");
        bad[40] ^= 1;
        std::fs::write(path(&store), bad).expect("ours");
        gone();
        std::fs::write(path(&store), "").expect("ours");
        assert!(Known::read(&store).expect("readable").faults.is_empty(), "given up by hand");
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn a_trail_that_was_lost_holds_nothing_and_so_nothing_goes() {
        let pid = std::process::id();
        let store = std::env::temp_dir().join(format!("floortape-lost-trail-{pid}"));
        let hold = |store: &Path| {
            let who = audit::ourselves("owner");
            let query = serde_json::json!({"aors": ["sip:*"]});
            let act = Act::new(SystemClock.map().wall, who, action::HOLD_ADD, "sip:*");
            audit::record(store, act.with("query", query)).expect("recorded");
        };
        std::fs::create_dir_all(&store).expect("a temp folder");
        assert_eq!(Signed::of(&store).next(&store), None, "no trail yet");
        hold(&store);
        let mut signs = Signed::of(&store);
        let before = signs.next(&store).expect("two entries");
        assert_eq!(before.number, 2);
        signed(&store, Some(before));
        hold(&store);
        let known = Known::read(&store).expect("readable");
        assert!(known.faults.is_empty() && known.rules.holds.len() == 2, "{:?}", known.faults);
        assert_eq!(signs.next(&store).map(|head| head.number), Some(3));
        // As a repair of a file system leaves it, and as it is once somebody has written again.
        std::fs::remove_file(store.join("audit/00000001.audit")).expect("there");
        for again in [false, true] {
            if again {
                (0..3).for_each(|_| hold(&store));
            }
            let known = Known::read(&store).expect("readable");
            let said = known.faults.join(" ");
            assert!(said.contains("sealed"), "{said}");
            let mut fresh = Signed::of(&store);
            assert_eq!(fresh.next(&store), Some(before), "it never goes back");
            assert!(fresh.told && !fresh.held);
        }
        // Who writes it meanwhile sees it go.
        std::fs::remove_file(store.join("audit/00000001.audit")).expect("there");
        hold(&store);
        assert_eq!(signs.next(&store).map(|head| head.number), Some(3));
        // Given up by hand.
        std::fs::write(path(&store), "").expect("ours");
        assert!(Known::read(&store).expect("readable").faults.is_empty());
        assert_eq!(Signed::of(&store).next(&store).map(|head| head.number), Some(2));
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn heads_of_workers_never_go_back() {
        let head = |worker, segment, byte| WorkerHead { worker, segment, head: Hex([byte; 32]) };
        let mut sealed = Sealed::default();
        assert_eq!(sealed.next(vec![head(0, 3, 1), head(1, 9, 2)]).len(), 2);
        assert!(!sealed.told);
        assert_eq!(sealed.next(vec![head(0, 4, 3), head(1, 9, 2)])[0], head(0, 4, 3));
        // Gone, of one; of the other it is another one.
        assert_eq!(sealed.next(vec![head(1, 9, 5)]), [head(0, 4, 3), head(1, 9, 2)]);
        assert!(sealed.told);
        // Brought back, and gone on with.
        assert_eq!(sealed.next(vec![head(0, 4, 3), head(1, 10, 6)])[1], head(1, 10, 6));
        assert!(!sealed.told);
    }

    #[test]
    fn heads_are_renewed_by_their_own_key_and_only_forwards() {
        let store = std::env::temp_dir().join(format!("floortape-renew-{}", std::process::id()));
        let journal = store.join("journal");
        std::fs::create_dir_all(&store).expect("a temp folder");
        assert!(renew(&store, &journal).is_err(), "no key");
        signing::load_or_make(&store, &crate::host::entropy::SystemEntropy).expect("made");
        let text = |store: &Path| std::fs::read_to_string(path(store)).expect("there");
        signed(&store, None);
        let foreign = text(&store);
        renew(&store, &journal).expect("left alone");
        assert_eq!(text(&store), foreign);
        std::fs::remove_dir_all(store).expect("ours");
    }
}
