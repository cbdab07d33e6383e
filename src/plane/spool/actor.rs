//! [`Spool`]: one worker's way from ring to log to segments, one bounded turn at a time.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use hdrhistogram::Histogram;

use super::buffer::AlignedBuffer;
use super::config::{SpoolConfig, SpoolError};
use super::log_files::LogFiles;
use super::paths::{Check, Paths};
use super::recovery::{LogSource, Wanted, recover};
use super::sealer::{STEP_BYTES, Sealer};
use super::trouble::Trouble;
use crate::base::ids::{Position, StreamId};
use crate::base::ports::{Clock, Disk, Region};
use crate::base::time::{ClockMap, Mono};
use crate::plane::handoff::frame::Notice;
use crate::plane::handoff::layout::{
    AT_CHECK_UNTIL, AT_DURABLE, AT_RING_BYTES, AT_SEALED, AT_SPOOL_HEARTBEAT, AT_TAIL,
};
use crate::store::evidence::{Hash, Salt, SigningKey};
use crate::store::journal;
use crate::store::keys::KeyMaker;
use crate::store::log::{Doubt, Found, GROUP_BYTES_MAX, Mark, group_span};
use crate::store::segment::{self, Span};

/// Attempts to read what only the log holds; 5 s with the pauses between.
const RECOVERY_TRIES: u32 = 8;

/// What the spool has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// For control.
    Notice(Notice),
    /// What was there at the oldest unanswered [`Spool::request_seal`] is sealed.
    SealDone,
    /// Run this on another thread and tell [`Spool::checked`].
    Check(Check),
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// There is more to do at once; otherwise wait, at most the commit interval.
    pub busy: bool,
}

pub(super) struct Sealing<D: Disk> {
    pub(super) sealer: Sealer<D::File>,
    /// Which folder it goes to.
    pub(super) place: usize,
    pub(super) from: Position,
    pub(super) recovered: bool,
}

/// See the module. Generic over the two memories it looks at and the disk it writes.
pub struct Spool<R: Region, S: Region, D: Disk + Clone> {
    pub(super) config: SpoolConfig,
    pub(super) ring: R,
    pub(super) state: S,
    pub(super) disk: D,
    pub(super) key: Arc<SigningKey>,
    /// What makes the keys that segments are encrypted under; `None`: in the clear.
    pub(super) keys: Option<KeyMaker>,
    pub(super) ring_bytes: u64,
    pub(super) salts: HashMap<StreamId, Salt>,
    pub(super) salts_told: bool,
    pub(super) paths: Paths<D>,
    pub(super) log: LogFiles<D>,
    pub(super) group: AlignedBuffer,
    pub(super) piece: AlignedBuffer,
    pub(super) durable: Position,
    pub(super) sealed: Position,
    /// Records below this are in `open` (or sealed). Above the durable mark only after a failure; below
    /// it where a predecessor made records durable that nobody has looked at since
    /// ([`Self::index_some`]).
    pub(super) indexed: Position,
    /// As `doubt_until`, of the walk that indexes what was durable before.
    pub(super) index_doubt_until: Position,
    /// Up to here records have been given to the log; above the durable mark only after a failure.
    pub(super) written: Position,
    pub(super) open: Span,
    pub(super) open_since: Option<Mono>,
    pub(super) doubts: Vec<Doubt>,
    pub(super) doubt_until: Position,
    pub(super) closed: Option<Span>,
    pub(super) recovered: VecDeque<Span>,
    pub(super) recovery_groups: Vec<Found>,
    pub(super) recovery_until: Position,
    /// What the journal says of the log that is recovered.
    pub(super) promised: Mark,
    pub(super) recovery_source: Option<LogSource<D>>,
    /// Where the recovery is to be tried again from.
    pub(super) recovery_from: Option<Position>,
    pub(super) recovery_tries: u32,
    pub(super) sealing: Option<Sealing<D>>,
    pub(super) next_number: u64,
    pub(super) previous: Hash,
    pub(super) last_commit: Mono,
    pub(super) last_bytes: usize,
    pub(super) commit_wanted: bool,
    /// What ends at or below this is read back before it is durable: a file of it has failed.
    pub(super) check_until: Position,
    /// What was said last: whether the disk fails, and which folders are out of use.
    pub(super) said: (bool, u64),
    pub(super) log_trouble: Trouble,
    pub(super) seal_trouble: Trouble,
    pub(super) waits_for: Option<StreamId>,
    pub(super) idle_since: Option<Mono>,
    pub(super) seals_wanted: VecDeque<Position>,
    pub(super) outputs: VecDeque<Output>,
    pub(super) oldest: Option<Mono>,
    pub(super) durable_ns: Histogram<u64>,
}

impl<R: Region, S: Region, D: Disk + Clone> Spool<R, S, D> {
    /// Takes over where the words of `state` and the files say that the last one ended: the same
    /// call after the first start, after a death of media, and after a power cut.
    ///
    /// `ring` and `state` are the worker's memory, initialised (`layout::initialise`) with
    /// [`super::first_position`] where it is new.
    pub fn open(
        config: SpoolConfig,
        ring: R,
        state: S,
        disk: D,
        key: Arc<SigningKey>,
        now: ClockMap,
    ) -> Result<Self, SpoolError> {
        let ring_bytes = ring.bytes() as u64;
        assert_eq!(ring_bytes, state.load(AT_RING_BYTES), "state and ring belong together");
        let check_bytes = config.span_bytes(ring_bytes).max(config.log_file_bytes(ring_bytes));
        let mut paths = Paths::new(disk.clone(), &config, check_bytes);
        let fail = |source| SpoolError::Segments { path: segment::folder(&config.store), source };
        let (highest, trailer) =
            segment::last_segment(&paths.whole(), &config.store, config.worker).map_err(fail)?;
        let in_segments = trailer.as_ref().map_or(Position(0), |trailer| trailer.through);
        let durable = Position(state.load(AT_DURABLE));
        let word = Position(state.load(AT_SEALED));
        if in_segments > durable {
            return Err(SpoolError::Positions { durable, sealed: in_segments });
        }
        let sealed = word.max(in_segments);
        state.store(AT_SEALED, sealed.0);
        let (mut log, groups) =
            LogFiles::open(disk.clone(), &paths, &config, ring_bytes, in_segments, durable)?;
        for place in log.failed_before() {
            // What a predecessor knew (F12): out of use until checked, if there is another one.
            paths.fail(place, "log: a file there failed before the restart", now.mono);
            if !paths.any_sound() {
                paths.works(place);
            }
        }
        let durable_ns = Histogram::new_with_bounds(1_000, 3_600_000_000_000, 2)
            .expect("bounds and digits are in the allowed range");
        let check_until = Position(state.load(AT_CHECK_UNTIL));
        let mut spool = Spool {
            ring,
            state,
            disk,
            key,
            keys: None,
            ring_bytes,
            salts: HashMap::new(),
            salts_told: false,
            paths,
            log,
            group: AlignedBuffer::new(group_span(GROUP_BYTES_MAX as u64) as usize),
            piece: AlignedBuffer::new(STEP_BYTES),
            durable,
            sealed,
            indexed: sealed,
            index_doubt_until: Position(0),
            written: durable,
            open: Span::new(sealed),
            open_since: None,
            doubts: Vec::new(),
            doubt_until: Position(0),
            closed: None,
            recovered: VecDeque::new(),
            recovery_until: word,
            promised: Mark::default(),
            recovery_source: None,
            recovery_from: None,
            recovery_tries: 0,
            sealing: None,
            next_number: highest + 1,
            previous: trailer.map_or([0; 32], |trailer| trailer.head),
            last_commit: now.mono,
            last_bytes: 0,
            commit_wanted: false,
            check_until,
            said: (false, 0),
            log_trouble: Trouble::default(),
            seal_trouble: Trouble::default(),
            waits_for: None,
            idle_since: None,
            seals_wanted: VecDeque::new(),
            outputs: VecDeque::new(),
            oldest: None,
            durable_ns,
            recovery_groups: Vec::new(),
            config,
        };
        if sealed < durable {
            // Not looked at before the span is closed: with packets in the ring nobody waits for what
            // a predecessor has stored, and who dies often must not read the same again and again.
            let first = groups.iter().find(|group| group.header.end() > sealed);
            spool.open.add_clock(first.map_or(now, |group| group.header.clock));
            spool.open_since = Some(now.mono);
        }
        spool.recovery_groups = groups;
        if in_segments < word {
            // The journal is asked only where something is to be recovered: a successor has no time.
            // One that cannot be read proves nothing.
            let marks = journal::marks(&spool.paths.whole(), &spool.config.journal);
            let mark = marks.ok().and_then(|marks| marks.get(&spool.config.worker).copied());
            spool.promised = mark.unwrap_or_default();
            spool.next_number = spool.next_number.max(spool.promised.segment + 1);
            spool.start_recovery(in_segments, now);
        } else {
            spool.recovery_groups.clear();
        }
        spool.report();
        Ok(spool)
    }

    /// Makes spans of what only the log holds from position `from` on. Where it cannot be read it
    /// is tried again (F13); nothing newer is sealed before, because that would give the log's
    /// files back. At last what can be read is taken, and the files are kept aside.
    pub(super) fn start_recovery(&mut self, from: Position, now: ClockMap) {
        self.recovery_tries += 1;
        let no_hope = self.recovery_tries > RECOVERY_TRIES;
        let (groups, until) = (self.recovery_groups.clone(), self.recovery_until);
        let wanted = Wanted { groups, from, until, promised: &self.promised, now, no_hope };
        match recover(&self.disk, &self.config, wanted) {
            Ok((spans, source)) => {
                self.recovered = spans.into();
                self.recovery_source = Some(source);
                self.recovery_from = None;
                if no_hope {
                    self.log.suspect_all();
                }
            }
            Err(error) => {
                self.recovery_from = Some(from);
                self.seal_trouble.note(now.mono, format!("recovery: {error}"));
                self.report();
            }
        }
    }

    /// The salt of a stream's leaves; a span waits for those of all its streams.
    pub fn set_salt(&mut self, stream: StreamId, salt: Salt) {
        self.salts.insert(stream, salt);
    }

    /// Encrypts the extents of all segments from now on. Call it before the first turn.
    pub fn encrypt(&mut self, keys: KeyMaker) {
        self.keys = Some(keys);
    }

    /// All salts that there are have been set: of an INVITE that a power cut took before the journal
    /// had it, nobody knows one.
    pub fn no_more_salts(&mut self) {
        self.salts_told = true;
    }

    /// Commits in the next turn whatever the interval says.
    pub fn commit_now(&mut self) {
        self.commit_wanted = true;
    }

    /// Seals what is in the ring now. Answered by [`Output::SealDone`].
    pub fn request_seal(&mut self) {
        self.seals_wanted.push_back(Position(self.state.load(AT_TAIL)));
    }

    /// The next thing to say.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Durable up to here.
    pub const fn durable(&self) -> Position {
        self.durable
    }

    /// Sealed up to here (in the ring; what is recovered from the log may still be on its way).
    pub const fn sealed(&self) -> Position {
        self.sealed
    }

    /// Why the disk does not take what it is given; `None`: it does.
    pub fn disk_error(&self) -> Option<&str> {
        self.log_trouble.error.as_deref().or(self.seal_trouble.error.as_deref())
    }

    /// What is out of use and where it goes on, while it goes on.
    pub fn disk_warning(&self) -> Option<String> {
        let place = self.paths.choose();
        let failed = self.paths.out_of_use().filter(|_| self.paths.is_sound(place))?;
        Some(format!("{failed}; goes on in {}", self.paths.root(place).display()))
    }

    /// What an [`Output::Check`] of the folder `root` came to.
    pub fn checked(&mut self, root: &Path, passed: bool, now: Mono) {
        if self.paths.checked(root, passed, now) {
            self.report();
        }
    }

    /// The stream without a salt that holds up sealing.
    pub const fn waits_for_salt(&self) -> Option<StreamId> {
        self.waits_for
    }

    /// Commit groups written over the life of the log.
    pub const fn groups(&self) -> u64 {
        self.log.group_sequence()
    }

    /// Arrival to durable, ns, of the oldest record of each commit.
    pub const fn durable_ns(&self) -> &Histogram<u64> {
        &self.durable_ns
    }

    /// Whether everything captured is durable and sealed.
    pub fn is_settled(&self) -> bool {
        self.sealed.0 == self.state.load(AT_TAIL)
            && self.recovered.is_empty()
            && self.recovery_from.is_none()
            && self.sealing.is_none()
    }

    /// Does a bounded amount of work: at most four groups and one sync, four groups of a predecessor's
    /// looked at, one step of sealing.
    /// `streams_open`: streams of this worker that are open now.
    pub fn turn(&mut self, clock: &impl Clock, streams_open: u32) -> Turn {
        let now = clock.map();
        self.state.store(AT_SPOOL_HEARTBEAT, now.mono.0);
        self.look_after_paths(now.mono);
        let mut busy = self.commit(now, clock);
        busy |= self.consider_closing(now, streams_open);
        busy |= self.seal(now);
        while self.seals_wanted.front().is_some_and(|target| *target <= self.sealed)
            && self.recovered.is_empty()
            && self.recovery_from.is_none()
            && self.sealing.as_ref().is_none_or(|sealing| !sealing.recovered)
        {
            self.seals_wanted.pop_front();
            self.outputs.push_back(Output::SealDone);
        }
        if !busy && self.log_trouble.error.is_none() {
            busy = self.log.prepare(&self.paths);
        }
        Turn { busy }
    }
}

/// Copies ring bytes from a position on, around the ring's end.
pub(super) fn copy_ring(ring: &impl Region, ring_bytes: u64, at: Position, out: &mut [u8]) {
    let place = (at.0 % ring_bytes) as usize;
    let head = out.len().min(ring_bytes as usize - place);
    let (first, second) = out.split_at_mut(head);
    ring.copy_out(place, first);
    if !second.is_empty() {
        ring.copy_out(0, second);
    }
}
