//! The thread that draws what is sealed: highest and lowest sample of each second of each line, into
//! `STORE/peaks.sqlite`. It stands behind all else: it gives way to every other thread and to everybody else on the
//! disk, works a quarter of the time at most, and rests while the disk is behind with what is recorded. What it has
//! not come to yet is drawn by whoever asks, from the records.
//!
//! What it costs bounds what it keeps: of very many lines of Opus it comes to a part only, and says how many segments
//! wait ([`Waiting`]). Nothing is lost by that: who asks for a line has that line alone drawn.
//!
//! What is sealed while it runs comes first, then what was there before, the oldest first: so it knows of a stream
//! what that said at its start. A crash leaves nothing to mend: a segment is kept as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::base::ids::StreamId;
use crate::base::time::Wall;
use crate::host::spare::StoreDisk;
use crate::host::sqlite::peaks::{self, Known, Peaks};
use crate::host::{process, spare, volume};
use crate::store::archive::{Archive, ArchiveError};
use crate::store::catalog::{IndexError, Journalled};
use crate::store::event::StreamDescription;
use crate::store::journal;
use crate::store::peaks::{Lines, Made, make};
use crate::store::segment::SegmentName;

/// How often it looks whether there is something to do.
const LOOK: Duration = Duration::from_secs(10);
/// It works one part in so many of the time.
const PARTS: u32 = 4;
/// At least so long at once, so that a pause is worth one.
const WORK: Duration = Duration::from_millis(5);
/// Longest pause at once, so that an end is heard soon.
const PAUSE: Duration = Duration::from_millis(500);
/// What was made is kept in one transaction with what follows within this time, or when it is so much: rows of one
/// stream stand on one page.
const KEEP_AFTER: Duration = Duration::from_secs(60);
const KEEP_BYTES: usize = 4 << 20;

/// What has changed since it last looked.
#[derive(Debug)]
pub(super) struct Stale {
    sealed: AtomicBool,
    thinned: AtomicBool,
}

impl Default for Stale {
    /// After a start anything may have.
    fn default() -> Self {
        Stale { sealed: AtomicBool::new(true), thinned: AtomicBool::new(true) }
    }
}

impl Stale {
    /// A segment is in place.
    pub(super) fn sealed(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// Something is gone by retention.
    pub(super) fn thinned(&self) {
        self.thinned.store(true, Ordering::Release);
    }
}

/// What it has not come to yet, for who watches.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Sealed segments that are to be drawn.
    segments: AtomicU64,
    /// First arrival in the oldest of them, ns; 0: there is none, or it cannot be read.
    since: AtomicI64,
    /// Segments drawn since the start.
    drawn: AtomicU64,
}

/// The same, read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Sealed segments that are to be drawn.
    pub(super) segments: u64,
    /// First arrival in the oldest of them.
    pub(super) since: Option<Wall>,
    /// Segments drawn since the start.
    pub(super) drawn: u64,
}

impl Waiting {
    /// As it is now.
    pub(super) fn read(&self) -> Backlog {
        let since = self.since.load(Ordering::Relaxed);
        Backlog {
            segments: self.segments.load(Ordering::Relaxed),
            since: (since > 0).then_some(Wall(since)),
            drawn: self.drawn.load(Ordering::Relaxed),
        }
    }

    fn tell(&self, segments: usize, since: Option<Wall>) {
        self.segments.store(segments as u64, Ordering::Relaxed);
        self.since.store(since.map_or(0, |since| since.0), Ordering::Relaxed);
    }
}

/// Starts the thread; it ends soon after the sender is gone. `lags`: the disk is behind.
pub(super) fn spawn(
    (store, journal): (PathBuf, PathBuf),
    lags: Arc<AtomicBool>,
    (stale, waiting): (Arc<Stale>, Arc<Waiting>),
) -> io::Result<(Sender<()>, JoinHandle<()>)> {
    let (sender, ends) = channel();
    let mut drawer = Drawer::new((store, journal), lags, ends);
    (drawer.stale, drawer.waiting) = (stale, waiting);
    let thread = std::thread::Builder::new().name("peaks".into()).spawn(move || {
        process::give_way();
        process::give_way_on_disk();
        while drawer.turn() {}
    })?;
    Ok((sender, thread))
}

/// See the module.
struct Drawer {
    store: PathBuf,
    journal: PathBuf,
    pace: Pace,
    /// Segments that were there at the start.
    old: Option<BTreeSet<SegmentName>>,
    /// Segments that cannot be drawn: damaged, or of streams that nobody knows. Tried once a start.
    given_up: BTreeSet<SegmentName>,
    lines: Lines,
    stale: Arc<Stale>,
    waiting: Arc<Waiting>,
    /// Bytes that are kept in one transaction.
    keep_bytes: usize,
}

impl Drawer {
    fn new(
        (store, journal): (PathBuf, PathBuf),
        lags: Arc<AtomicBool>,
        ends: Receiver<()>,
    ) -> Self {
        let pace = Pace { ends, lags, parts: PARTS, since: Instant::now(), over: false };
        let (given_up, lines, stale, waiting) = Default::default();
        Drawer {
            store,
            journal,
            pace,
            old: None,
            given_up,
            lines,
            stale,
            waiting,
            keep_bytes: KEEP_BYTES,
        }
    }

    /// Draws some of what there is to be drawn, and rests when that is all. False: it is over.
    fn turn(&mut self) -> bool {
        let sealed = self.stale.sealed.swap(false, Ordering::AcqRel);
        let thinned = self.stale.thinned.swap(false, Ordering::AcqRel);
        if !sealed && !thinned {
            return self.pace.rest(LOOK);
        }
        match self.draw(thinned) {
            Ok(more) => {
                if more {
                    self.stale.sealed();
                    return !self.pace.over;
                }
                return self.pace.rest(LOOK);
            }
            Err(Fault::Index(IndexError::Damaged(why))) => {
                tracing::warn!("the peaks are damaged and are made anew: {why}");
                peaks::remove(&self.store);
            }
            Err(fault) => tracing::warn!("peaks not drawn: {fault}"),
        }
        // What could not be done is to be done.
        self.stale.sealed();
        self.stale.thinned();
        self.pace.rest(LOOK)
    }

    /// Draws as many segments as are kept together. `thinned`: something that was drawn may be gone. True: there
    /// may be more.
    fn draw(&mut self, thinned: bool) -> Result<bool, Fault> {
        // Of a disk that was unmounted the folder is still there: nothing is made in it (F18).
        volume::read(&self.store).map_err(|error| Fault::Store(error.to_string()))?;
        let places = spare::places(&self.store, &self.journal);
        let archive = Archive::open(places.clone(), &self.store);
        let there: BTreeSet<SegmentName> = archive.segments()?.into_iter().collect();
        let mut file = peaks::open_write(&self.store)?;
        let mut known = file.segments()?;
        if thinned {
            forget_gone(&archive, &there, &mut file, &mut known)?;
            self.given_up.clear();
        }
        let old = self.old.get_or_insert_with(|| there.clone());
        let is_wanted =
            |name: &&SegmentName| !known.contains_key(name) && !self.given_up.contains(name);
        let wanted: Vec<SegmentName> = there.iter().filter(is_wanted).copied().collect();
        let oldest = wanted.iter().map(|name| (name.number, name.worker)).min();
        let oldest = oldest.map(|(number, worker)| SegmentName { worker, number });
        let arrivals = |name| archive.visit_extents(name, &mut |_| false, &mut |_, _, _| ()).ok();
        let since = oldest.and_then(arrivals).map(|extents| extents.arrivals.0);
        self.waiting.tell(wanted.len(), since);
        let mut left = wanted.len();
        let (last, first): (Vec<SegmentName>, Vec<SegmentName>) =
            wanted.into_iter().partition(|name| old.contains(name));
        let (mut running, journal) = (None, &self.journal);
        let mut ask = |stream| {
            // Once a turn: what came later has said itself what it is.
            let streams = running.get_or_insert_with(|| running_streams(&places, journal));
            streams.get(&stream).cloned()
        };
        let (mut made, mut bytes, began) = (Vec::new(), 0, Instant::now());
        let mut more = false;
        self.pace.since = began;
        for name in first.into_iter().chain(last) {
            let mut breathe = || self.pace.breathe();
            match make(&archive, name, &mut self.lines, &mut ask, &mut breathe) {
                Ok(None) => break,
                Ok(Some(one)) if one.is_whole => {
                    bytes += bytes_of(&one);
                    made.push(one);
                }
                // It may have gone since it was listed, or cannot be read.
                Ok(Some(_)) | Err(_) => drop(self.given_up.insert(name)),
            }
            left -= 1;
            more = bytes >= self.keep_bytes || began.elapsed() >= KEEP_AFTER;
            if more {
                break;
            }
        }
        if !made.is_empty() {
            file.put(&made)?;
            self.waiting.drawn.fetch_add(made.len() as u64, Ordering::Relaxed);
        }
        // The oldest may have been among them; the next look says so.
        self.waiting.segments.store(left as u64, Ordering::Relaxed);
        if left == 0 {
            self.waiting.tell(0, None);
        }
        Ok(more)
    }
}

/// What goes wrong with it.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("{0}")]
    Store(String),
}

fn bytes_of(made: &Made) -> usize {
    made.strips.iter().map(|(_, bytes)| bytes.len()).sum()
}

/// What streams are that run, by the journal; nothing where it cannot be read.
fn running_streams(disk: &StoreDisk, journal: &Path) -> BTreeMap<StreamId, StreamDescription> {
    let Ok(replay) = journal::read_standing(disk, journal) else { return BTreeMap::new() };
    let recordings = Journalled::of(&replay.entries).recordings.into_values();
    let streams = recordings.flat_map(|rs| rs.streams.into_iter());
    streams.map(|(stream, entry)| (stream, entry.description)).collect()
}

/// Takes out what was drawn of audio that is gone by retention since. Segments of which something is there are drawn
/// anew.
fn forget_gone(
    archive: &Archive<StoreDisk>,
    there: &BTreeSet<SegmentName>,
    file: &mut Peaks,
    known: &mut BTreeMap<SegmentName, Known>,
) -> Result<(), Fault> {
    let thinned: BTreeMap<SegmentName, u64> = archive.thinned()?.into_iter().collect();
    let names: Vec<SegmentName> = known.keys().copied().collect();
    for name in names {
        let gone = thinned.get(&name).copied().unwrap_or(0);
        if there.contains(&name) && known[&name].gone == gone {
            continue;
        }
        // Its rows name its streams; a segment that is not there names none.
        let rows = there.contains(&name).then(|| archive.rows(name).ok()).flatten();
        let streams =
            rows.map(|footer| footer.rows.iter().map(|row| row.source.stream()).collect());
        file.forget(name, streams.as_ref())?;
        known.remove(&name);
    }
    Ok(())
}

/// How fast it may go.
struct Pace {
    ends: Receiver<()>,
    lags: Arc<AtomicBool>,
    parts: u32,
    /// When it last paused.
    since: Instant,
    over: bool,
}

impl Pace {
    /// Pauses when it has worked for a while, as much longer as it must, and as long as the disk is behind. False:
    /// it is over.
    fn breathe(&mut self) -> bool {
        let worked = self.since.elapsed();
        if worked < WORK {
            return !self.over;
        }
        let mut left = worked * (self.parts - 1);
        while !self.over && (!left.is_zero() || self.lags.load(Ordering::Relaxed)) {
            let pause = if left.is_zero() { PAUSE } else { left.min(PAUSE) };
            self.rest(pause);
            left = left.saturating_sub(pause);
        }
        self.since = Instant::now();
        !self.over
    }

    fn rest(&mut self, length: Duration) -> bool {
        self.over |= matches!(self.ends.recv_timeout(length), Err(RecvTimeoutError::Disconnected));
        !self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    use crate::base::ids::{Index, SourceId, Ssrc, WorkerId};
    use crate::base::prng::Prng;
    use crate::base::time::Mono;
    use crate::host::disk::HostDisk;
    use crate::host::{signing, unlocked};
    use crate::shell::cmd::fixture::{EPOCH, Fixture, MS, description};
    use crate::store::keys::StoreKey;
    use crate::store::peaks::Strip;
    use crate::store::record::RecordKind;
    use crate::store::segment::Thinning;
    use crate::wire::rtp::Fields;
    use zeroize::Zeroizing;

    const NAME: SegmentName = SegmentName { worker: WorkerId(0), number: 1 };

    fn drawer(fixture: &Fixture) -> (Drawer, Sender<()>) {
        let (sender, ends) = channel();
        let folders = (fixture.store(), fixture.store().join("journal"));
        let mut drawer = Drawer::new(folders, Arc::default(), ends);
        drawer.pace.parts = 1;
        (drawer, sender)
    }

    fn kept(fixture: &Fixture) -> Vec<(SourceId, Strip)> {
        let file = peaks::open_read(&fixture.store(), |_| {}).expect("drawn");
        let streams = (0..2).map(|line| description(line).stream).collect();
        let (found, damaged) = file.strips(&streams, (NAME, NAME)).expect("readable");
        assert!(damaged.is_empty());
        found.into_iter().map(|(_, source, strip)| (source, strip)).collect()
    }

    /// The clear bytes of what was heard on a line, as they would stand in the file.
    fn clear(strips: &[(SourceId, Strip)], line: u16) -> Vec<u8> {
        let mine = |of: &&(SourceId, Strip)| of.0.stream() == description(line).stream;
        let (source, strip) = strips.iter().find(mine).expect("heard");
        strip.emit(NAME, *source)
    }

    fn holds(fixture: &Fixture, bytes: &[u8]) -> bool {
        let file = std::fs::read(peaks::path(&fixture.store())).expect("there");
        file.windows(bytes.len()).any(|window| window == bytes)
    }

    #[test]
    fn what_is_sealed_is_drawn_once_and_kept() {
        let fixture = Fixture::new("peaks-drawn");
        let (mut drawer, _sender) = drawer(&fixture);
        assert!(!drawer.draw(true).expect("drawn"), "there is no more");
        let strips = kept(&fixture);
        assert_eq!(strips.len(), 2);
        assert!(holds(&fixture, &clear(&strips, 0)) && holds(&fixture, &clear(&strips, 1)));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(peaks::path(&fixture.store())).expect("there").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        // It is not read again.
        std::fs::write(fixture.segment(), b"").expect("ours");
        drawer.draw(false).expect("nothing to do");
        assert!(drawer.given_up.is_empty());
    }

    #[test]
    fn what_is_gone_by_retention_is_gone_from_what_was_drawn() {
        let fixture = Fixture::new("peaks-thinned");
        let (mut drawer, _sender) = drawer(&fixture);
        drawer.draw(true).expect("drawn");
        let before = kept(&fixture);
        let goes = description(0).stream;
        let store = fixture.store();
        let key = signing::load(&store).expect("there");
        let fate = |row: &crate::store::segment::Row| {
            (row.source.stream() == goes).then(|| "short".to_owned())
        };
        let now = Wall(1_800_000_000_000_000_000);
        let thinning = Thinning { now, audit: 5, key: &key };
        thinning.run(&HostDisk, &store, NAME, &fate, &mut |_| ()).expect("thinned");
        drawer.draw(true).expect("drawn");
        let after = kept(&fixture);
        assert!(matches!(after[0], (source, Strip::Gone(..)) if source.stream() == goes));
        assert_eq!(after[1], before[1], "the other line stays as it was");
        assert!(!holds(&fixture, &clear(&before, 0)), "not a byte of it is left in the file");
        // All of it goes, with its segment.
        std::fs::remove_dir_all(crate::store::segment::folder(&store)).expect("ours");
        std::fs::create_dir(crate::store::segment::folder(&store)).expect("ours");
        drawer.draw(true).expect("drawn");
        assert!(kept(&fixture).is_empty() && !holds(&fixture, &clear(&before, 1)));
    }

    #[test]
    fn of_an_encrypted_store_nothing_is_kept_in_clear() {
        let fixture = Fixture::new("peaks-sealed");
        let (mut plain, _sender) = drawer(&fixture);
        plain.draw(true).expect("drawn");
        let before = kept(&fixture);
        // Keys are kept by volume, and a store that has them has a UUID.
        let id = uuid::Uuid::from_u128(0x0b3e_4bba_7ce1_45f8_9a0a_0c2e_a4ad_3b40);
        let path = fixture.store().join("volume.json");
        let text = std::fs::read_to_string(&path).expect("there");
        let text = text.replace("\"test\"", &format!("\"{id}\""));
        std::fs::write(path, text).expect("ours");
        let id = id.into_bytes();
        unlocked::keep(id, vec![StoreKey::taken_over(1, Zeroizing::new([7; 32]))]);
        let (mut drawer, _sender) = self::drawer(&fixture);
        drawer.draw(true).expect("drawn anew");
        assert_eq!(kept(&fixture), before);
        for line in 0..2 {
            let clear = clear(&before, line);
            assert!(!holds(&fixture, &clear) && !holds(&fixture, &clear[30..60]));
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_to_whoever_asks() {
        let fixture = Fixture::new("peaks-given-up");
        let sound = std::fs::read(fixture.segment()).expect("there");
        let mut bad = sound.clone();
        bad[9_000] ^= 1;
        std::fs::write(fixture.segment(), bad).expect("ours");
        let (mut first, _sender) = drawer(&fixture);
        first.draw(true).expect("the rest is drawn");
        assert_eq!(first.given_up, [NAME].into());
        assert!(kept(&fixture).is_empty());
        // Put back, and the server started again.
        std::fs::write(fixture.segment(), sound).expect("ours");
        let (mut next, _sender) = drawer(&fixture);
        next.draw(true).expect("drawn");
        assert_eq!(kept(&fixture).len(), 2);
    }

    #[test]
    fn a_pipe_in_its_place_is_not_waited_for_and_a_folder_is_named() {
        let fixture = Fixture::new("peaks-alien");
        let (mut drawer, _sender) = drawer(&fixture);
        drawer.draw(true).expect("drawn");
        let (before, store) = (kept(&fixture), fixture.store());
        for end in ["", "-journal"] {
            let mut place = peaks::path(&store).into_os_string();
            place.push(end);
            let _ = std::fs::remove_file(&place);
            rustix::fs::mkfifoat(rustix::fs::CWD, &place, rustix::fs::Mode::RWXU).expect("ours");
            assert!(peaks::open_read(&store, |_| ()).is_none(), "{place:?}");
            drawer.draw(true).expect("drawn anew");
            assert_eq!(kept(&fixture), before);
            let _ = std::fs::remove_file(&place);
            std::fs::create_dir(&place).expect("ours");
            assert!(peaks::open_read(&store, |_| ()).is_none(), "{place:?}");
            let why = peaks::open_write(&store).err().expect("no file").to_string();
            assert!(why.contains(place.to_str().expect("ours")), "{why}");
            std::fs::remove_dir(&place).expect("still there");
        }
    }

    #[test]
    fn whatever_is_left_of_the_file_it_is_drawn_as_before() {
        let fixture = Fixture::new("peaks-torn");
        let (mut drawer, _sender) = drawer(&fixture);
        drawer.draw(true).expect("drawn");
        let (before, store) = (kept(&fixture), fixture.store());
        let sound = std::fs::read(peaks::path(&store)).expect("there");
        let spoilt = |page: usize| {
            let mut bytes = sound.clone();
            bytes[page * 4096..].fill(0x55);
            bytes
        };
        let torn = sound[..5_000].to_vec();
        for bytes in [Vec::new(), torn, spoilt(0), spoilt(1), b"somebody else's".repeat(1_000)] {
            std::fs::write(peaks::path(&store), bytes).expect("ours");
            drop(peaks::open_empty(&store).expect("made anew"));
            drawer.draw(true).expect("drawn");
            assert_eq!(kept(&fixture), before);
        }
    }

    /// Set for a process that draws until it is killed: the folder that it does so in.
    const VICTIM: &str = "FLOORTAPE_TEST_DRAWS";
    const SEGMENTS: u64 = 12;

    fn drawer_in(store: PathBuf) -> (Drawer, Sender<()>) {
        let (sender, ends) = channel();
        let mut drawer = Drawer::new((store.clone(), store.join("journal")), Arc::default(), ends);
        (drawer.pace.parts, drawer.keep_bytes) = (1, 1);
        (drawer, sender)
    }

    /// Draws, one segment a transaction, forgets all and draws again; it never ends by itself.
    #[test]
    fn draws_until_it_is_killed() {
        let Some(store) = std::env::var_os(VICTIM).map(PathBuf::from) else { return };
        let (mut drawer, _sender) = drawer_in(store.clone());
        loop {
            while drawer.draw(true).expect("drawn") {}
            drop(peaks::open_empty(&store).expect("emptied"));
        }
    }

    /// What a file holds, by segment; none of it is damaged.
    fn all(store: &Path) -> BTreeMap<SegmentName, Vec<(SourceId, Strip)>> {
        let Some(file) = peaks::open_read(store, |_| {}) else { return BTreeMap::new() };
        let known = file.segments().expect("readable");
        let streams = (0..2).map(|line| description(line).stream).collect();
        let of = |name: SegmentName| {
            let (found, damaged) = file.strips(&streams, (name, name)).expect("readable");
            assert!(damaged.is_empty(), "{damaged:?}");
            (name, found.into_iter().map(|(_, source, strip)| (source, strip)).collect())
        };
        known.into_keys().map(of).collect()
    }

    #[test]
    fn killed_anywhere_it_leaves_segments_whole_or_not_at_all_and_goes_on() {
        let fixture = Fixture::of("peaks-killed", 20_000, &|ring| {
            for index in 0..SEGMENTS * 50 {
                let at = 1_010 + index * 20;
                if index > 0 && index.is_multiple_of(50) {
                    ring.cut(at);
                }
                for line in 0..2_u16 {
                    let fields = Fields {
                        marker: false,
                        payload_type: 0,
                        seq: Index(index).seq(),
                        timestamp: (index * 160) as u32,
                        ssrc: Ssrc(u32::from(line) + 1),
                    };
                    let packet = [&fields.emit()[..], &[index as u8; 160]].concat();
                    let source = SourceId::new(description(line).stream, 1);
                    ring.put_at(RecordKind::Rtp, source, index, Mono(at * MS), &packet);
                }
            }
        });
        let store = fixture.store();
        let finish = || {
            let (mut drawer, _sender) = drawer_in(store.clone());
            while drawer.draw(true).expect("drawn") {}
            assert_eq!(drawer.waiting.read().segments, 0);
            all(&store)
        };
        let whole = finish();
        assert_eq!(whole.len() as u64, SEGMENTS);
        let own = std::env::current_exe().expect("it runs");
        let mut prng = Prng::new(0x0b5e_55ed);
        let mut parts = BTreeSet::new();
        for round in 0..40 {
            let mut line = Command::new(&own);
            let name = "shell::serve::control::peaks::tests::draws_until_it_is_killed";
            line.args(["--exact", name]).env(VICTIM, &store).stdout(Stdio::null());
            let mut victim = line.spawn().expect("our own");
            std::thread::sleep(Duration::from_millis(prng.below(150)));
            let early = victim.try_wait().expect("ours");
            assert_eq!(early, None, "round {round}: it draws until it is killed");
            victim.kill().expect("ours");
            victim.wait().expect("ours");
            let found = all(&store);
            parts.insert(found.len());
            for (name, strips) in &found {
                assert_eq!(Some(strips), whole.get(name), "round {round}: {name:?}");
            }
            if round % 4 == 0 {
                assert_eq!(finish(), whole, "round {round}");
            }
        }
        assert!(parts.len() > 2, "it was never killed in the middle: {parts:?}");
        assert_eq!(finish(), whole);
    }

    #[test]
    fn what_is_not_drawn_yet_is_told() {
        let fixture = Fixture::new("peaks-waiting");
        let (mut drawer, sender) = drawer(&fixture);
        let waiting = Arc::clone(&drawer.waiting);
        drop(sender);
        drawer.pace.over = true;
        drawer.draw(true).expect("it is over before it has drawn anything");
        let Backlog { segments, since, drawn } = waiting.read();
        assert_eq!((segments, drawn), (1, 0));
        let since = since.expect("it has records").0 - EPOCH;
        assert!((0..10_000_000_000).contains(&since), "{since}");
        let (mut drawer, _sender) = self::drawer(&fixture);
        drawer.waiting = Arc::clone(&waiting);
        drawer.draw(true).expect("drawn");
        assert_eq!(waiting.read(), Backlog { segments: 0, since: None, drawn: 1 });
    }

    #[test]
    fn it_works_its_part_of_the_time_waits_for_the_disk_and_hears_its_end() {
        let (sender, ends) = channel();
        let lags = Arc::new(AtomicBool::new(false));
        let since = Instant::now();
        let mut pace = Pace { ends, lags: Arc::clone(&lags), parts: 4, since, over: false };
        std::thread::sleep(Duration::from_millis(20));
        assert!(pace.breathe());
        assert!(since.elapsed() >= Duration::from_millis(80));
        lags.store(true, Ordering::Relaxed);
        drop(sender);
        std::thread::sleep(WORK);
        assert!(!pace.breathe() && !pace.breathe());
    }
}
