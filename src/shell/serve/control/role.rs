//! The loop: wait for something, hand it to the actor, do what the actor says.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as channel;
use std::time::Duration;

use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::base::ids::{Slot, StreamId, WorkerId};
use crate::base::limits::SOURCES_PER_STREAM;
use crate::base::ports::{Clock, Entropy};
use crate::base::time::Mono;
use crate::config::model::Config;
use crate::config::room_shortfall;
use crate::host::clock::SystemClock;
use crate::host::disk::{HostDisk, make_folder};
use crate::host::entropy::SystemEntropy;
use crate::host::spare::StoreDisk;
use crate::host::{keyfile, signing, spare, unlocked, volume};
use crate::plane::control::{Asked, Control, Effect, Grave, Input, NotDurable, Outcome, Setup};
use crate::plane::handoff::frame::{Envelope, Frame};
use crate::plane::keeper;
use crate::proto::sip::{self, TlsPeer};
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::control::anchors::{self, JournalHead};
use crate::shell::serve::control::catalogue::{self, Change};
use crate::shell::serve::control::doorway::Doorway;
use crate::shell::serve::control::expirer::Expirer;
use crate::shell::serve::control::http::{self, Service};
use crate::shell::serve::control::journal::{self, Job, Reserve, Said, TurnOver};
use crate::shell::serve::control::lanes::Inbox;
use crate::shell::serve::control::metrics::Snapshot;
use crate::shell::serve::control::net::{Arrival, Bound, Net};
use crate::shell::serve::control::trail::{Note, Trail};
use crate::shell::serve::control::{newer, peaks, scrub};
use crate::shell::serve::estate::{self, Estate, LINGER_S};
use crate::shell::serve::link::{self, AsyncLink, Link, Received, Start};
use crate::shell::serve::placed;
use crate::shell::serve::room::{Load, Room};
use crate::shell::serve::steered;
use crate::shell::serve::tapping::Rings;
use crate::shell::serve::verbs::{self, Call};
use crate::shell::{secrets, tls};
use crate::store::archive::{Archive, LastSeen, Sought};
use crate::store::audit;
use crate::store::event::Event;
use crate::store::journal::entry::Entry;
use crate::store::journal::history;
use crate::store::journal::keybox::{KeyBox, derive};
use crate::store::journal::{Journal, Signer};
use crate::wire::sip::{NameAddr, Uri, parse_datagram};

/// The scrub waits while what was captured is older than this and not on disk, ms.
const LAG_MS: u64 = 2_000;
/// How often keeper hears that the loop turns (F07).
const BEAT: Duration = Duration::from_secs(1);
/// How often the disk's free space is looked at.
const DISK_LOOK: Duration = Duration::from_secs(5);
/// How often our certificate's end is looked at, ms.
const TERM_LOOK_MS: u64 = 3_600_000;
/// Below this an operator should look.
const WARN_MINUTES: u64 = 60;
/// How often the gate hears who has an RS.
const KNOWN_MS: u64 = 200;
/// Time for the writers of connections to send what was queued.
const LAST_WORDS: Duration = Duration::from_millis(20);
/// Frames that may wait for media's link; far above what one burst of INVITEs makes.
const FRAMES_MAX: usize = 65_536;

/// Runs the role until keeper stops it or is gone.
pub fn run(start: Start) -> Result<Exit, Failure> {
    role(start)?;
    Ok(Exit::Yes)
}

fn role(mut start: Start) -> io::Result<()> {
    let handed_over = SystemClock.mono();
    let plan = placed::plan(&start.config);
    placed::pin("cpu.control", "control", &plan.control);
    let bound = Bound::of(&start.config.sip, std::mem::take(&mut start.signalling))?;
    let store = start.config.store.dir.clone();
    let entropy = SystemEntropy;
    let volume = volume::read(&store).map_err(io::Error::other)?;
    // Keeper has made it. Whoever sealed with another one would lose what goes on.
    let machine_key = keyfile::load_known(&store, &volume).map_err(io::Error::other)?;
    let nonce_key = derive(&machine_key, "digest nonces");
    let keys = KeyBox::new(&machine_key).map_err(io::Error::other)?;
    drop(machine_key);
    let folder = start.config.journal_dir();
    make_folder(&folder)?;
    // Strict: entries that cannot be read now would be forgotten by what is written next.
    let places = spare::strict_places(&store, &folder).map_err(io::Error::other)?;
    let past = history::folder(&store);
    let (mut journal, damage) = Journal::open(places, &folder, &past).map_err(io::Error::other)?;
    for spare in start.config.store.more_dirs() {
        let added = spare::folder(spare, &store, "journal")
            .and_then(|folder| journal.add_folder(&folder).map_err(io::Error::other));
        if let Err(error) = added {
            tracing::error!("the journal cannot go on in {}: {error}", spare.display());
        }
    }
    let (head, places, scrubbed) =
        (JournalHead::default(), anchors::Places::default(), scrub::Shared::default());
    let (sealed, witnesses) = witnesses(
        &start.config,
        (&store, &folder),
        &volume.id,
        (&head, &places, &scrubbed),
        &mut journal,
    );
    // Nobody is answered out of what may be gone after a power cut.
    if journal.has_failed() {
        match journal.revive() {
            Ok(path) => tracing::warn!(
                "the journal's last file is not what was read of it; said again in {}",
                path.display()
            ),
            Err(error) => tracing::error!("what was read of the journal is not durable: {error}"),
        }
    }
    for damage in &damage {
        tracing::warn!(
            "journal {}: bytes {} to {} are no entries",
            damage.file,
            damage.from,
            damage.to
        );
    }
    let read = SystemClock.mono();
    let now = SystemClock.map();
    let mut seed = [0; 8];
    entropy.fill(&mut seed);
    let mut control = Control::new(Setup {
        config: start.config.clone(),
        slots: start.slots.iter().map(|slot| (slot.slot, slot.address)).collect(),
        keys,
        entropy: Box::new(entropy),
        seed: u64::from_le_bytes(seed),
    });
    let fresh = start.fresh && !start.successor;
    let files = || unlocked::files(&store, &folder, &volume.spares);
    let newer = fresh.then(|| newer::first_stream(&files(), &store, journal.standings().alive));
    let newer = newer.flatten();
    // A snapshot may know calls whose entries are gone: nobody would ever see or end them.
    if newer.is_some() {
        journal.relearn().map_err(io::Error::other)?;
    }
    control.recover(now, journal.standings());
    if fresh {
        let (free, _) = journal.standings().stream_ids;
        control.begin_streams_at(newer::begin(free, volume.run()).max(newer.unwrap_or_default()));
    }
    let reserve = Reserve::new(HostDisk, &folder);
    let drawn = Arc::<peaks::Stale>::default();
    let undrawn = Arc::<peaks::Waiting>::default();
    let folders = (store.clone(), folder.clone());
    let (drawing, drawer) =
        peaks::spawn(folders, scrubbed.lags.clone(), (Arc::clone(&drawn), Arc::clone(&undrawn)))?;
    let (changes, catalogue) = catalogue::spawn(store.clone(), folder, drawn)?;
    let turn_over = TurnOver::default();
    let (expirer, expiry) = Expirer::spawn(&start.config, changes.clone(), Arc::clone(&turn_over))?;
    let (jobs, received) = channel::channel();
    let (done, finished) = mpsc::unbounded_channel();
    let first =
        Entry::Start { version: 1, volume: volume.id, at: now.wall, kept: false, before: None };
    let writer = std::thread::Builder::new().name("journal".into()).spawn({
        let changes = changes.clone();
        move || {
            journal::run(journal, &first, &received, &done, &changes, reserve, (&head, &turn_over))
        }
    })?;
    // The next start may find nothing odd any more. Token 0 is nobody's.
    if let Some(next) = newer {
        let entries = vec![Entry::StreamIds { next }];
        jobs.send(Job { token: 0, entries }).map_err(|_| io::Error::other("no journal thread"))?;
    }
    let ms = |from: Mono, to: Mono| to.since(from) as f64 / 1e6;
    let recovered = SystemClock.mono();
    tracing::info!(
        "control knows {} recordings {:.1} ms after its start: hand-over {:.1}, journal {:.1}, \
         dialogs {:.1}",
        control.live(),
        ms(start.began, recovered),
        ms(start.began, handed_over),
        ms(handed_over, read),
        ms(read, recovered),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let threads = (jobs, changes, expirer);
        let mut role = Role::new(start, bound, control, store, threads, nonce_key)?;
        (role.witnessed, role.undrawn) = ((places, scrubbed), undrawn);
        role.sealed = sealed;
        role.load_passwords().await?;
        role.serve(finished).await
    });
    // The senders went with the role: the threads end when their queues are empty.
    let _ = writer.join();
    let _ = expiry.join();
    let _ = catalogue.join();
    drop(drawing);
    let _ = drawer.join();
    // Behind the journal's last words, which they vouch for.
    for (sender, thread) in witnesses {
        drop(sender);
        let _ = thread.join();
    }
    result
}

/// A thread of evidence: it ends when the sender is gone.
type Witness = (channel::Sender<()>, std::thread::JoinHandle<()>);

/// Has the journal signed, and starts the threads that vouch for the store and read it over; the sender tells the
/// first one that something was sealed. Without them calls are recorded all the same.
fn witnesses(
    config: &Config,
    (store, folder): (&Path, &Path),
    volume: &str,
    (head, places, scrubbed): (&JournalHead, &anchors::Places, &scrub::Shared),
    journal: &mut Journal<StoreDisk>,
) -> (Option<channel::Sender<()>>, Vec<Witness>) {
    let mut threads = Vec::new();
    let evidence = &config.evidence;
    match signing::load(store) {
        Ok(key) => {
            let (key, volume) = (Arc::new(key), volume.to_owned());
            journal.sign_by(Signer { key: key.clone(), volume: volume.clone() });
            threads.push(anchors::spawn(anchors::Setup {
                store: store.to_owned(),
                journal: folder.to_owned(),
                evidence: evidence.clone(),
                volume,
                key,
                head: head.clone(),
                places: places.clone(),
            }));
        }
        Err(error) => tracing::error!(
            "alarm: the journal is not signed, and no anchor is written: {}: {error}",
            signing::path(store).display()
        ),
    }
    let anchors = threads.first().and_then(|thread| thread.as_ref().ok());
    let sealed = anchors.map(|(sender, _): &Witness| sender.clone());
    let folders = (store.to_owned(), folder.to_owned());
    threads.push(scrub::spawn(folders, evidence, scrubbed.clone()));
    let told = |error: &io::Error| tracing::error!("a thread of evidence does not start: {error}");
    (sealed, threads.into_iter().filter_map(|thread| thread.inspect_err(told).ok()).collect())
}

struct Role {
    control: Control,
    config: Config,
    store: PathBuf,
    /// `None`: it is gone, and what we hold is for the next one.
    keeper: Option<AsyncLink>,
    estate: Option<Estate>,
    room: Room,
    load: Load,
    /// Makes the nonces of digest challenges, for successors too.
    nonce_key: Zeroizing<Vec<u8>>,
    /// When our certificate's end is looked at again.
    term_due: Mono,
    /// Less than [`WARN_MINUTES`] are left, and that was said.
    warned: bool,
    media: Option<AsyncLink>,
    /// Frames that media's link had no room for, in order.
    waiting: VecDeque<Envelope>,
    net: Net,
    /// Where TLS connections come in.
    doorway: Doorway,
    arrivals: Inbox,
    /// When the gate was last told who is known.
    known_at: Mono,
    jobs: channel::Sender<Job>,
    changes: channel::Sender<Change>,
    /// Who removes what may go.
    expirer: Expirer,
    /// What operators ask for, and where each outcome goes.
    verbs: mpsc::UnboundedReceiver<Call>,
    called: HashMap<u64, channel::Sender<Outcome>>,
    calls: u64,
    /// What we say in the audit trail, and its newest entry, from the thread that writes and looks.
    trail: Trail,
    heads: mpsc::UnboundedReceiver<audit::Head>,
    head: Option<audit::Head>,
    /// What is told over HTTP, what of it is counted here, and who tells it.
    told: http::Shared,
    figures: Snapshot,
    service: Option<Service>,
    /// Tells the thread that signs heads that a segment was sealed.
    sealed: Option<channel::Sender<()>>,
    /// What the threads of evidence did.
    witnessed: (anchors::Places, scrub::Shared),
    /// What is to be drawn yet.
    undrawn: Arc<peaks::Waiting>,
    /// What the store says of streams that go on, from the thread that looks.
    past: (mpsc::UnboundedSender<Past>, mpsc::UnboundedReceiver<Past>),
    /// Keeper wants the end, and the actor has no RS left.
    stopping: bool,
    drained: bool,
    /// Keeper died while RSs were running; since when there are none.
    alone: bool,
    over_since: Option<Mono>,
    _lock: OwnedFd,
}

/// What the store knows last, or why it cannot say.
type Past = Result<LastSeen, String>;

/// What woke the loop.
enum Wake {
    Arrival(Arrival),
    Keeper(io::Result<Received>),
    Media(io::Result<Received>),
    MediaSent(io::Result<()>),
    Journal(Said),
    Beat,
    LookedBack(Past),
    Verb(Call),
    Head(audit::Head),
    Time,
    Disk,
}

impl Role {
    fn new(
        start: Start,
        bound: Bound,
        control: Control,
        store: PathBuf,
        (jobs, changes, expirer): (channel::Sender<Job>, channel::Sender<Change>, Expirer),
        nonce_key: Zeroizing<Vec<u8>>,
    ) -> io::Result<Self> {
        let Start { keeper: link, config, lock, peer, workers, slots, .. } = start;
        let rings = Rings::of(&workers).unwrap_or_else(|error| {
            tracing::error!("`floortape tap` will hear nothing: {error}");
            Rings::default()
        });
        let sockets = slots.iter().any(|slot| slot.sockets.is_some());
        let estate = if sockets {
            let estate =
                Estate::of(keeper::Role::Control, &config, lock.as_fd(), &workers, &slots)?;
            let steered = workers.into_iter().map(|memory| memory.steered).collect();
            Some(estate.with(steered::by_worker(slots, steered)))
        } else {
            None
        };
        let doorway = Doorway::default();
        doorway.load(&config.sip);
        let (net, arrivals) = Net::open(bound, |family| config.media.own(family), doorway.clone())?;
        let (calls, verbs) = mpsc::unbounded_channel();
        // A store whose folder takes no socket is recorded into all the same.
        if let Err(error) = verbs::listen(&config, rings, calls) {
            tracing::error!("`floortape rs` will find nobody: {error}");
        }
        verbs::admit(&config);
        let (heads, fresh) = mpsc::unbounded_channel();
        let trail = Trail::start(store.clone(), heads)?;
        trail.say(Note::Configured(Box::new(config.clone())));
        let room = Room::watch(config.store.dirs().map(Path::to_owned).collect())?;
        let told = http::Shared::default();
        let service = Service::start(&config.http, &told)?;
        Ok(Role {
            control,
            config,
            store,
            room,
            load: Load::default(),
            nonce_key,
            term_due: SystemClock.mono().plus_ms(TERM_LOOK_MS),
            warned: false,
            keeper: Some(link.into_async()?),
            estate,
            media: peer.map(Link::into_async).transpose()?,
            waiting: VecDeque::new(),
            net,
            doorway,
            arrivals,
            known_at: Mono(0),
            jobs,
            changes,
            expirer,
            verbs,
            called: HashMap::new(),
            calls: 0,
            trail,
            heads: fresh,
            head: None,
            told,
            figures: Snapshot::default(),
            service,
            sealed: None,
            witnessed: Default::default(),
            undrawn: Arc::default(),
            past: mpsc::unbounded_channel(),
            stopping: false,
            drained: false,
            alone: false,
            over_since: None,
            _lock: lock,
        })
    }

    async fn serve(&mut self, mut finished: mpsc::UnboundedReceiver<Said>) -> io::Result<()> {
        let mut look = tokio::time::interval(DISK_LOOK);
        if self.media.is_some() {
            self.tell(Input::MediaUp).await?;
        }
        let mut beat = tokio::time::interval(BEAT);
        let mut ready = false;
        // Who had an RS before a restart comes back at once.
        self.introduce();
        loop {
            // Ready means that a call would be recorded.
            if !ready && self.control.is_settled() {
                ready = true;
                self.say(Frame::Ready).await;
                // Not before: its reading of the whole store would take our time.
                let _ = self.changes.send(Change::Sealed);
            }
            let deadline = until(self.control.next_timeout());
            let (keeper, media) = (&self.keeper, &self.media);
            let front = self.waiting.front_mut();
            let wake = tokio::select! {
                biased;
                frame = receive(keeper) => Wake::Keeper(frame),
                _ = beat.tick() => Wake::Beat,
                frame = receive(media) => Wake::Media(frame),
                sent = pass_on(media, front) => Wake::MediaSent(sent),
                Some(said) = finished.recv() => Wake::Journal(said),
                Some(seen) = self.past.1.recv() => Wake::LookedBack(seen),
                Some(call) = self.verbs.recv() => Wake::Verb(call),
                Some(head) = self.heads.recv() => Wake::Head(head),
                () = tokio::time::sleep(deadline) => Wake::Time,
                _ = look.tick() => Wake::Disk,
                Some(arrival) = self.arrivals.recv() => Wake::Arrival(arrival),
            };
            match wake {
                Wake::Keeper(Err(_)) => self.go_on_alone().await?,
                Wake::Beat => {
                    self.say(Frame::Beat).await;
                    self.tell_figures();
                }
                Wake::Keeper(Ok(received)) => self.keeper_says(received).await?,
                Wake::Media(Ok(received)) => {
                    if let Frame::Stats(stats) = &received.frame {
                        let tails = stats.iter().map(|worker| worker.tail.0).sum();
                        self.load.note(SystemClock.mono(), tails);
                        self.figures.workers.clone_from(stats);
                        let lags =
                            stats.iter().any(|of| of.lag_ms > LAG_MS || of.disk_error.is_some());
                        self.witnessed.1.lags.store(lags, Ordering::Relaxed);
                    }
                    let envelope = Envelope { id: received.id, fds: 0, frame: received.frame };
                    self.tell(Input::Media(envelope)).await?;
                }
                Wake::MediaSent(Ok(())) => drop(self.waiting.pop_front()),
                Wake::Media(Err(error)) | Wake::MediaSent(Err(error)) => {
                    // Anything else than its end would leave both alive without a link, for ever:
                    // a new control gets a new one.
                    if !is_end(&error) {
                        return Err(error);
                    }
                    self.media = None;
                    self.waiting.clear();
                    self.figures.workers.clear();
                    self.tell(Input::MediaDown).await?;
                }
                Wake::Journal(said) => self.tell(heard(said)).await?,
                Wake::LookedBack(seen) => self.tell(Input::LookedBack(seen)).await?,
                Wake::Verb(Call { uid, verb, reply }) => {
                    self.calls += 1;
                    let id = self.calls;
                    self.called.insert(id, reply);
                    self.tell(Input::Asked(Asked { id, uid, verb })).await?;
                }
                Wake::Head(head) => {
                    self.head = Some(head);
                    self.seal_head();
                }
                Wake::Time => self.tell(Input::Sip(sip::Input::Tick)).await?,
                Wake::Disk => {
                    self.watch_certificate();
                    self.report_odd();
                    let shortfall = self.disk_shortfall();
                    self.tell(Input::DiskFree { shortfall }).await?;
                }
                Wake::Arrival(arrival) => self.arrived(arrival).await?,
            }
            if self.keeper.is_none() && self.drained && self.has_lingered() {
                tracing::warn!("without keeper and without an RS: ending");
                return Ok(());
            }
            // `Stop` means: exit. The end of every RS is in the journal by now.
            if self.stopping && self.drained {
                return Ok(());
            }
            if self.control.is_over() {
                // The last BYEs are on their way to the connections' writers.
                tokio::time::sleep(LAST_WORDS).await;
                return Ok(());
            }
        }
    }

    /// What cannot be read is left out and told; its peers are refused then, never taken unasked.
    async fn load_passwords(&mut self) -> io::Result<()> {
        let (rules, wrong) = secrets::rules(&self.config);
        for why in wrong {
            tracing::error!("digest: {why}");
        }
        let key = self.nonce_key.clone();
        self.tell(Input::Digest { key: &key, rules }).await
    }

    /// F62: our certificate's end is looked for once an hour.
    fn watch_certificate(&mut self) {
        let now = SystemClock.mono();
        if now >= self.term_due {
            self.term_due = now.plus_ms(TERM_LOOK_MS);
            self.doorway.watch_term(tls::term(&self.config.sip));
        }
    }

    /// F11: new RSs are refused when the reserve is touched; before that there is a warning.
    fn disk_shortfall(&mut self) -> Option<String> {
        let free = match self.room.free() {
            Ok(free) => free,
            Err(error) => return Some(format!("its free space cannot be read: {error}")),
        };
        let (load, minutes) = self.present_load(free);
        if (minutes < WARN_MINUTES) != self.warned {
            self.warned = !self.warned;
            tracing::warn!("disk: room for {minutes} minutes of the present load");
        }
        let shortfall = room_shortfall(&self.config, free, load)?;
        // F16: nothing is removed to make room, so whoever needs it must know what keeps it.
        let blockers = self.expirer.blockers();
        Some(if blockers.is_empty() {
            shortfall
        } else {
            format!("{shortfall}; kept by {blockers}")
        })
    }

    /// Bytes a second that are written at present, and the minutes of it that fit.
    fn present_load(&self, free: u64) -> (u64, u64) {
        let streams = self.control.streams_used() as u64;
        let load = self.config.load_bytes_per_s(streams, self.load.bytes_per_s());
        (load, Config::minutes_left(free, load))
    }

    /// F03: keeper is gone. Running RSs go on, new ones are refused, because nobody would start media
    /// again; whoever comes next gets a copy of all that we hold.
    async fn go_on_alone(&mut self) -> io::Result<()> {
        self.keeper = None;
        self.tell(Input::Keeper(Frame::Drain)).await?;
        if !self.drained
            && let Some(estate) = self.estate.take()
        {
            self.alone = true;
            tracing::error!("keeper is gone: running RSs go on without it, new ones get 503");
            if let Err(error) = estate::open_door(estate) {
                tracing::error!("nobody can take over from us: {error}");
            }
        }
        Ok(())
    }

    /// Whether enough time has passed since the last RS ended; at once where there was none when
    /// keeper died.
    fn has_lingered(&mut self) -> bool {
        let now = SystemClock.mono();
        let since = *self.over_since.get_or_insert(now);
        !self.alone || now >= since.plus_ms(LINGER_S * 1_000)
    }

    /// To keeper, if there is one; that it is gone shows in its link.
    async fn say(&self, frame: Frame) {
        if let Some(keeper) = &self.keeper {
            let _ = keeper.send(0, frame, &[]).await;
        }
    }

    async fn keeper_says(&mut self, received: Received) -> io::Result<()> {
        self.stopping |= matches!(received.frame, Frame::Stop);
        match received.frame {
            Frame::Link => {
                if let Some(link) = link::one(received.fds)? {
                    self.media = Some(link.into_async()?);
                    self.waiting.clear();
                    self.tell(Input::MediaUp).await?;
                    // What was under way to its predecessor may be lost.
                    self.seal_head();
                }
                Ok(())
            }
            Frame::Reload { config } => {
                if let Ok(config) = serde_json::from_str::<Config>(&config) {
                    self.trail.say(Note::Configured(Box::new(config.clone())));
                    self.config = config;
                    verbs::admit(&self.config);
                    self.expirer.configure(&self.config);
                    // The token may be another one though the file has its name.
                    self.service = None;
                    self.service = Service::start(&self.config.http, &self.told)?;
                    self.doorway.load(&self.config.sip);
                    self.load_passwords().await?;
                }
                self.tell(Input::Keeper(Frame::Reload { config })).await
            }
            frame => self.tell(Input::Keeper(frame)).await,
        }
    }

    /// Has the trail's newest entry recorded among the first worker's own events.
    fn seal_head(&mut self) {
        let Some(head) = self.head.filter(|_| self.media.is_some()) else { return };
        let event = serde_json::to_string(&Event::Audit { head }).expect("numbers and text");
        let frame = Frame::Note { stream: StreamId::host(WorkerId(0)), slot: Slot(0), event };
        // Id 0 is nobody's: its answer is not waited for.
        if self.waiting.len() < FRAMES_MAX {
            self.waiting.push_back(Envelope { id: 0, fds: 0, frame });
        }
    }

    /// Tells the gate whose messages go first: a new SRC does with its second call at the latest.
    fn introduce(&mut self) {
        let now = SystemClock.mono();
        if now >= self.known_at.plus_ms(KNOWN_MS) {
            self.known_at = now;
            self.arrivals.know(self.control.known());
        }
    }

    /// What a monitoring system sees for the next second.
    fn tell_figures(&mut self) {
        if self.service.is_none() {
            return;
        }
        let (shaken, tls_refused) = self.doorway.figures();
        let snapshot = Snapshot {
            at: SystemClock.mono(),
            control: self.control.figures(),
            over_rate: self.arrivals.held(),
            shaken,
            tls_refused,
            anchors: self.witnessed.0.lock().expect("nobody panics with it").clone(),
            scrubbed: self.witnessed.1.found.lock().expect("nobody panics with it").clone(),
            backlog: self.undrawn.read(),
            disk_left_s: self
                .room
                .free()
                .ok()
                .map(|free| self.present_load(free).1.saturating_mul(60)),
            ..self.figures.clone()
        };
        *self.told.lock().expect("nobody panics with it") = Arc::new(snapshot);
    }

    /// Tells the operator what was refused, dropped or held back at the edge.
    fn report_odd(&mut self) {
        if let Some(refused) = self.control.refused_lately() {
            tracing::info!("SIP since the last look: {refused}");
        }
        if let Some(held) = self.arrivals.report() {
            tracing::warn!("{held}");
        }
    }

    async fn arrived(&mut self, arrival: Arrival) -> io::Result<()> {
        self.introduce();
        match arrival {
            Arrival::Datagram { local, peer, bytes } => {
                self.tell(Input::Sip(sip::Input::Datagram { local, peer, bytes: &bytes })).await
            }
            Arrival::Connected { conn, local, peer, writer, reading, tls } => {
                if !self.net.connected(conn, peer, tls.is_some(), writer, reading) {
                    return Ok(());
                }
                let conn = sip::ConnId(conn);
                let tls = tls.as_ref().map(|found| TlsPeer { identity: found.as_deref() });
                self.tell(Input::Sip(sip::Input::Connected { conn, local, peer, tls })).await
            }
            Arrival::Stream { conn, bytes } => {
                let conn = sip::ConnId(conn);
                self.tell(Input::Sip(sip::Input::Stream { conn, bytes: &bytes })).await
            }
            Arrival::Unreachable { peer, secure } => {
                self.net.unreachable(peer, secure);
                self.tell(Input::Sip(sip::Input::Unreachable { peer, secure })).await
            }
            Arrival::Closed { conn } => {
                self.net.close(conn);
                self.tell(Input::Sip(sip::Input::Closed { conn: sip::ConnId(conn) })).await
            }
        }
    }

    /// Hands the actor one input and does all that it then wants.
    async fn tell(&mut self, input: Input<'_>) -> io::Result<()> {
        self.control.handle(SystemClock.map(), input);
        while let Some(effect) = self.control.poll() {
            self.act(effect).await?;
        }
        Ok(())
    }

    async fn act(&mut self, effect: Effect) -> io::Result<()> {
        match effect {
            Effect::Transmit { target, bytes } => self.transmit(target, bytes),
            Effect::Disconnect { conn } => self.net.close(conn.0),
            Effect::Media(envelope) => {
                // Above the bound media is not reading at all; keeper will replace it, and the new
                // link begins with everything that still holds.
                if self.waiting.len() < FRAMES_MAX {
                    self.waiting.push_back(envelope);
                }
            }
            Effect::Persist { token, entries } => {
                // Without its thread nothing can be promised any more: the next control begins
                // with what is durable.
                let gone = |_| io::Error::other("the journal's thread has ended");
                for entry in &entries {
                    self.figures.accepted += u64::from(matches!(entry, Entry::Opened { .. }));
                    self.figures.ended += u64::from(matches!(entry, Entry::Ended { .. }));
                }
                self.jobs.send(Job { token, entries }).map_err(gone)?;
            }
            Effect::LookBack(sought) => self.look_back(sought)?,
            Effect::Sealed => {
                let _ = self.sealed.as_ref().map(|sealed| sealed.send(()));
                drop(self.changes.send(Change::Sealed));
            }
            Effect::Outcome { id, outcome } => {
                // Whoever asked may have gone.
                let _ = self.called.remove(&id).map(|reply| reply.send(outcome));
            }
            Effect::Keeper(frame) => {
                self.drained |= matches!(frame, Frame::Drained);
                self.say(frame).await;
            }
            Effect::Guessing(guessing) => self.trail.say(Note::Guessing(guessing)),
            Effect::Log { grave: Grave::Info, text } => tracing::info!("{text}"),
            Effect::Log { grave: Grave::Warn, text } => tracing::warn!("{text}"),
            Effect::Log { grave: Grave::Error, text } => tracing::error!("{text}"),
        }
        Ok(())
    }

    /// Reads the store beside the loop: SIP and the links go on meanwhile.
    fn look_back(&self, sought: Vec<Sought>) -> io::Result<()> {
        let (store, said) = (self.store.clone(), self.past.0.clone());
        let places =
            spare::strict_places(&store, &self.config.journal_dir()).map_err(io::Error::other)?;
        let own = volume::read(&store).map_err(io::Error::other)?.incarnation_first();
        let look = move || {
            let archive = Archive::open(places, store);
            let seen = archive.last_seen(&sought, SOURCES_PER_STREAM, own);
            // Without a receiver control is at its end, and the next one looks for itself.
            let _ = said.send(seen.map_err(|error| error.to_string()));
        };
        std::thread::Builder::new().name("look-back".into()).spawn(look).map(drop)
    }

    fn transmit(&mut self, target: sip::Target, bytes: Vec<u8>) {
        match target {
            sip::Target::Udp { local, peer } => self.net.send(local, peer, &bytes),
            sip::Target::Stream { conn, .. } => drop(self.net.write(conn.0, bytes)),
            sip::Target::Dial { peer, secure, .. } => {
                let host = secure.then(|| next_hop(&bytes).unwrap_or_default());
                self.net.dial(peer, host, bytes);
            }
        }
    }
}

/// The host that a message of ours is for: of its first Route or its Request-URI, for a response of
/// its topmost Via (RFC 3261 §8.1.2, §18.2.2). Over TLS the other end must be that one (RFC 5922).
fn next_hop(bytes: &[u8]) -> Option<String> {
    let message = parse_datagram(bytes).ok()?;
    let Some(uri) = message.uri() else { return Some(message.via()?.host) };
    let route = message.headers.list("Route").next();
    let uri = route.and_then(NameAddr::parse).map_or_else(|| uri.to_owned(), |route| route.uri);
    Some(Uri::parse(&uri)?.host)
}

/// What the journal's thread said, as the actor's input.
fn heard(said: Said) -> Input<'static> {
    match said {
        Said::Done { token, error } => Input::Persisted { token, error },
        // Token 0 is nobody's.
        Said::Fails(why) => Input::Persisted { token: 0, error: Some(NotDurable::Journal(why)) },
        Said::Works => Input::JournalWorks,
    }
}

/// Whether the other end of a link is gone.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    [BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof].contains(&error.kind())
}

fn until(deadline: Option<Mono>) -> Duration {
    match deadline {
        Some(deadline) => Duration::from_nanos(deadline.since(SystemClock.mono())),
        None => Duration::from_secs(3_600),
    }
}

async fn receive(link: &Option<AsyncLink>) -> io::Result<Received> {
    match link {
        Some(link) => link.recv().await,
        None => std::future::pending().await,
    }
}

/// Sends the first waiting frame; never ready while there is none or no link.
async fn pass_on(link: &Option<AsyncLink>, front: Option<&mut Envelope>) -> io::Result<()> {
    match (link, front) {
        (Some(link), Some(envelope)) => link.send_envelope(envelope).await,
        _ => std::future::pending().await,
    }
}
