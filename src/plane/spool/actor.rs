//! [`Spool`]: one worker's way from ring to log to segments, one bounded turn at a time.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use hdrhistogram::Histogram;

use super::buffer::AlignedBuffer;
use super::config::{SpoolConfig, SpoolError};
use super::log_files::LogFiles;
use super::recovery::{LogSource, add_doubt, recover};
use super::sealer::{STEP_BYTES, Sealer, Step};
use crate::base::faults::faulty;
use crate::base::ids::{Position, SourceId, StreamId};
use crate::base::ports::{Clock, Disk, Region};
use crate::base::time::{ClockMap, Mono};
use crate::plane::handoff::frame::Notice;
use crate::plane::handoff::layout::{
    AT_DURABLE, AT_INCARNATION, AT_RING_BYTES, AT_SEALED, AT_SPOOL_HEARTBEAT, AT_TAIL,
};
use crate::store::evidence::{Hash, Salt, SigningKey};
use crate::store::log::{
    self, Doubt, Found, GROUP_BYTES_MAX, GROUP_HEADER_BYTES, Walk, group_span,
};
use crate::store::segment::{self, Emitter, SegmentFacts, SegmentName, Span};

/// Groups written before one sync: 4 MiB, 20 ms of a slow disk.
const GROUPS_PER_TURN: usize = 4;
/// No stream open for this long: what is unsealed is sealed.
const IDLE_MS: u64 = 1_000;
/// First pause after a second failure in a row; doubled up to [`RETRY_MS_MAX`].
const RETRY_MS: u64 = 50;
/// Longest pause between two attempts.
const RETRY_MS_MAX: u64 = 2_000;

/// What the spool has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// For control.
    Notice(Notice),
    /// What was there at the oldest unanswered [`Spool::request_seal`] is sealed.
    SealDone,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// There is more to do at once; otherwise wait, at most the commit interval.
    pub busy: bool,
}

struct Sealing<D: Disk> {
    sealer: Sealer<D::File>,
    from: Position,
    recovered: bool,
}

#[derive(Default)]
struct Trouble {
    failures: u32,
    retry_at: Mono,
    error: Option<String>,
    reported: bool,
}

/// See the module. Generic over the two memories it looks at and the disk it writes.
pub struct Spool<R: Region, S: Region, D: Disk + Clone> {
    config: SpoolConfig,
    ring: R,
    state: S,
    disk: D,
    key: Arc<SigningKey>,
    ring_bytes: u64,
    salts: HashMap<StreamId, Salt>,
    salts_told: bool,
    log: LogFiles<D>,
    group: AlignedBuffer,
    piece: AlignedBuffer,
    durable: Position,
    sealed: Position,
    /// Records below this are in `open` (or sealed); above the durable mark only after a failure.
    indexed: Position,
    open: Span,
    open_since: Option<Mono>,
    doubts: Vec<Doubt>,
    doubt_until: Position,
    closed: Option<Span>,
    recovered: VecDeque<Span>,
    recovery_groups: Vec<Found>,
    recovery_until: Position,
    recovery_source: Option<LogSource<D>>,
    sealing: Option<Sealing<D>>,
    next_number: u64,
    previous: Hash,
    last_commit: Mono,
    last_bytes: usize,
    commit_wanted: bool,
    check_back: bool,
    log_trouble: Trouble,
    seal_trouble: Trouble,
    waits_for: Option<StreamId>,
    idle_since: Option<Mono>,
    seals_wanted: VecDeque<Position>,
    outputs: VecDeque<Output>,
    oldest: Option<Mono>,
    durable_ns: Histogram<u64>,
}

impl<R: Region, S: Region, D: Disk + Clone> Spool<R, S, D> {
    /// Takes over where the words of `state` and the files say that the last one ended: the same
    /// call after the first start, after a death of media, and after a power cut.
    ///
    /// `ring` and `state` are the worker's memory, initialised (`layout::initialise`) with
    /// `store::log::next_position` where it is new.
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
        let fail = |source| SpoolError::Segments { path: segment::folder(&config.store), source };
        let (highest, trailer) =
            segment::last_segment(&disk, &config.store, config.worker).map_err(fail)?;
        let in_segments = trailer.as_ref().map_or(Position(0), |trailer| trailer.through);
        let durable = Position(state.load(AT_DURABLE));
        let word = Position(state.load(AT_SEALED));
        if in_segments > durable {
            return Err(SpoolError::Positions { durable, sealed: in_segments });
        }
        let sealed = word.max(in_segments);
        state.store(AT_SEALED, sealed.0);
        let (log, groups) = LogFiles::open(disk.clone(), &config, ring_bytes, in_segments)?;
        let durable_ns = Histogram::new_with_bounds(1_000, 3_600_000_000_000, 2)
            .expect("bounds and digits are in the allowed range");
        let mut spool = Spool {
            ring,
            state,
            disk,
            key,
            ring_bytes,
            salts: HashMap::new(),
            salts_told: false,
            log,
            group: AlignedBuffer::new(group_span(GROUP_BYTES_MAX as u64) as usize),
            piece: AlignedBuffer::new(STEP_BYTES),
            durable,
            sealed,
            indexed: sealed,
            open: Span::new(sealed),
            open_since: None,
            doubts: Vec::new(),
            doubt_until: Position(0),
            closed: None,
            recovered: VecDeque::new(),
            recovery_until: word,
            recovery_source: None,
            sealing: None,
            next_number: highest + 1,
            previous: trailer.map_or([0; 32], |trailer| trailer.head),
            last_commit: now.mono,
            last_bytes: 0,
            commit_wanted: false,
            check_back: false,
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
        let first = groups.iter().find(|group| group.header.end() > sealed);
        spool.index_ring(first.map_or(now, |group| group.header.clock), now);
        spool.recovery_groups = groups;
        if in_segments < word {
            spool.start_recovery(in_segments);
        } else {
            spool.recovery_groups.clear();
        }
        Ok(spool)
    }

    /// Finds the records between the sealed and the durable mark again.
    fn index_ring(&mut self, clock: ClockMap, now: ClockMap) {
        let mut at = self.sealed;
        while at < self.durable {
            let bytes = self.load_group(at, self.durable, clock);
            at = Position(at.0 + bytes as u64);
            self.open_since = Some(now.mono);
        }
        self.open.through = self.durable;
        self.oldest = None;
    }

    fn start_recovery(&mut self, from: Position) {
        let groups = self.recovery_groups.clone();
        let until = self.recovery_until;
        let (spans, source) = recover(&self.disk, &self.config, groups, from, until);
        self.recovered = spans.into();
        self.recovery_source = Some(source);
    }

    /// The salt of a stream's leaves; a span waits for those of all its streams.
    pub fn set_salt(&mut self, stream: StreamId, salt: Salt) {
        self.salts.insert(stream, salt);
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
            && self.sealing.is_none()
    }

    /// Does a bounded amount of work: at most four groups and one sync, then one step of sealing.
    /// `streams_open`: streams of this worker that are open now.
    pub fn turn(&mut self, clock: &impl Clock, streams_open: u32) -> Turn {
        let now = clock.map();
        self.state.store(AT_SPOOL_HEARTBEAT, now.mono.0);
        let mut busy = self.commit(now, clock);
        self.consider_closing(now.mono, streams_open);
        busy |= self.seal(now);
        while self.seals_wanted.front().is_some_and(|target| *target <= self.sealed)
            && self.recovered.is_empty()
            && self.sealing.as_ref().is_none_or(|sealing| !sealing.recovered)
        {
            self.seals_wanted.pop_front();
            self.outputs.push_back(Output::SealDone);
        }
        if !busy && self.log_trouble.error.is_none() {
            busy = self.log.prepare();
        }
        Turn { busy }
    }

    fn commit(&mut self, now: ClockMap, clock: &impl Clock) -> bool {
        let tail = Position(self.state.load(AT_TAIL));
        let pending = tail.0 - self.durable.0;
        let due = pending >= GROUP_BYTES_MAX as u64
            || now.mono >= self.last_commit.plus_ms(self.config.commit_ms)
            || self.commit_wanted
            || !self.seals_wanted.is_empty();
        if pending == 0 || !due || now.mono < self.log_trouble.retry_at {
            self.commit_wanted &= pending > 0;
            return false;
        }
        match self.write_groups(tail, now) {
            Ok(end) => {
                assert!(
                    end > self.durable && end <= tail,
                    "the mark moves forward, behind the tail"
                );
                self.durable = end;
                self.state.store(AT_DURABLE, end.0);
                if self.indexed == self.durable {
                    self.open.through = end;
                }
                self.open_since.get_or_insert(now.mono);
                self.last_commit = now.mono;
                self.commit_wanted = end < tail && self.commit_wanted;
                if let Some(oldest) = self.oldest.take() {
                    self.durable_ns.saturating_record(clock.mono().since(oldest));
                }
                self.log_trouble.clear();
                self.report();
                tail.0 - end.0 >= GROUP_BYTES_MAX as u64
            }
            Err(error) => {
                self.log.fail();
                self.check_back = true;
                self.log_trouble.note(now.mono, format!("log: {error}"));
                self.report();
                // The first attempt on another file follows at once.
                self.log_trouble.failures == 1
            }
        }
    }

    /// Writes what lies between the durable mark and `tail`, syncs once, and returns how far.
    fn write_groups(&mut self, tail: Position, now: ClockMap) -> io::Result<Position> {
        let incarnation = self.state.load(AT_INCARNATION);
        let mut first = self.durable;
        for _ in 0..GROUPS_PER_TURN {
            let bytes = self.load_group(first, tail, now);
            self.log.write(&mut self.group, first, bytes, incarnation, now)?;
            self.last_bytes = bytes;
            first = Position(first.0 + bytes as u64);
            if first == tail || self.check_back {
                break;
            }
        }
        if faulty!("spool.ack_before_sync") {
            self.state.store(AT_DURABLE, first.0);
        }
        self.log.sync()?;
        if self.check_back {
            if !self.log.reads_back(&self.group, self.last_bytes)? {
                return Err(io::Error::other("what was written does not read back"));
            }
            self.check_back = false;
        }
        Ok(first)
    }

    /// Copies ring bytes from `first` on behind the header's place of the group buffer, up to a
    /// record's end at or before `tail`; indexes the records that are new. Returns the bytes.
    fn load_group(&mut self, first: Position, tail: Position, clock: ClockMap) -> usize {
        let goal = if self.doubt_until > first { self.doubt_until.min(tail) } else { tail };
        let wanted = (goal.0 - first.0).min(GROUP_BYTES_MAX as u64) as usize;
        let payload = &mut self.group.bytes_mut()[GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + wanted];
        copy_ring(&self.ring, self.ring_bytes, first, payload);
        self.open.add_clock(clock);
        if self.doubt_until > first {
            self.indexed = self.indexed.max(Position(first.0 + wanted as u64));
            return wanted;
        }
        let end = Position(first.0 + wanted as u64);
        let mut cut = end;
        for step in Walk::new(payload, first, self.ring_bytes) {
            match step {
                log::Step::Record { at, record } => {
                    if at >= self.indexed {
                        self.open.add(at, &record);
                        let arrival = record.meta.arrival;
                        self.oldest = Some(self.oldest.map_or(arrival, |old| old.min(arrival)));
                    }
                }
                // The last record goes on behind the buffer: the next group begins with it.
                log::Step::Damaged { at, bytes }
                    if end < tail && at > first && at.0 + bytes == end.0 =>
                {
                    cut = at;
                }
                log::Step::Damaged { at, bytes } => {
                    let mut to = Position(at.0 + bytes);
                    if to == end {
                        // Where the next record begins is unknown up to what is the tail now.
                        self.doubt_until = tail;
                        to = tail;
                    }
                    if at >= self.indexed {
                        self.doubts.push(Doubt {
                            path: Default::default(),
                            from: at,
                            to,
                            why: "the ring held no valid record there".to_owned(),
                        });
                    }
                }
            }
        }
        self.indexed = self.indexed.max(cut);
        (cut.0 - first.0) as usize
    }

    fn consider_closing(&mut self, now: Mono, streams_open: u32) {
        self.idle_since =
            if streams_open > 0 { None } else { Some(self.idle_since.unwrap_or(now)) };
        let (from, through) = (self.open.from, self.open.through);
        let ready = self.closed.is_none() && through > from && self.indexed == self.durable;
        if !ready || through != self.durable {
            return;
        }
        let idle = self.idle_since.is_some_and(|since| now >= since.plus_ms(IDLE_MS))
            && self.open.has_streams()
            && through.0 == self.state.load(AT_TAIL);
        let due = through.0 - from.0 >= self.config.span_bytes(self.ring_bytes)
            || self.open_since.is_some_and(|since| now >= since.plus_ms(self.config.segment_ms))
            || self.seals_wanted.iter().any(|target| *target > from && *target <= through)
            || idle;
        if !due {
            return;
        }
        let mut span = std::mem::replace(&mut self.open, Span::new(through));
        let own = SourceId::new(StreamId::host(self.config.worker), 0);
        for doubt in self.doubts.drain(..) {
            add_doubt(&mut span, own, now, &doubt);
        }
        self.open_since = None;
        self.closed = Some(span);
        self.log.close();
    }

    /// Begins or continues to seal; returns whether there is more to do at once.
    fn seal(&mut self, now: ClockMap) -> bool {
        if self.sealing.is_none() && !self.begin_sealing(now) {
            return false;
        }
        if now.mono < self.seal_trouble.retry_at {
            return false;
        }
        let Some(sealing) = &mut self.sealing else { return false };
        let step = if sealing.recovered {
            let source = self.recovery_source.as_mut().expect("recovered spans have a source");
            let mut copy = |at: Position, out: &mut [u8]| source.copy(at, out);
            sealing.sealer.step(&self.disk, &mut self.piece, &self.key, &mut copy)
        } else {
            let (ring, ring_bytes) = (&self.ring, self.ring_bytes);
            let mut copy = |at: Position, out: &mut [u8]| {
                copy_ring(ring, ring_bytes, at, out);
                Ok(())
            };
            sealing.sealer.step(&self.disk, &mut self.piece, &self.key, &mut copy)
        };
        match step {
            Ok(Step::More) => true,
            Ok(Step::Sealed) => {
                self.finish_sealing();
                true
            }
            Err(error) => {
                // Of a recovered span the log may be what failed: look again at what can be read.
                if let Some(from) = sealing.recovered.then_some(sealing.from) {
                    self.sealing = None;
                    self.start_recovery(from);
                }
                self.seal_trouble.note(now.mono, format!("segment: {error}"));
                self.report();
                false
            }
        }
    }

    fn begin_sealing(&mut self, now: ClockMap) -> bool {
        let Some(span) = self.recovered.front().or(self.closed.as_ref()) else { return false };
        let salts = &self.salts;
        let mut streams = span.sources.keys().map(|source| source.stream());
        self.waits_for = streams.find(|stream| !stream.is_host() && !salts.contains_key(stream));
        // A salt hides what a leaf is of; it proves nothing. Rather than wait for one that nobody
        // has, or let the ring fill up for want of it, a salt of zeros is used, which every verifier
        // tries.
        let kept = self.state.load(AT_TAIL) - self.sealed.0;
        let pressed = kept > self.ring_bytes / 4 * 3;
        if self.waits_for.is_some() && !pressed && !self.salts_told {
            return false;
        }
        let recovered = !self.recovered.is_empty();
        let span = self.recovered.pop_front().or_else(|| self.closed.take());
        let Some(span) = span else { return false };
        let name = SegmentName { worker: self.config.worker, number: self.next_number };
        let facts = SegmentFacts {
            worker: self.config.worker,
            volume: self.config.volume,
            number: self.next_number,
            created: now.wall,
            previous: self.previous,
        };
        let from = span.from;
        let salt = |stream: StreamId| Some(salts.get(&stream).copied().unwrap_or([0; 32]));
        let emitter = Emitter::new(facts, span, salt).expect("every stream has some salt");
        let sealer = Sealer::new(&self.config.store, name, emitter);
        self.sealing = Some(Sealing { sealer, from, recovered });
        true
    }

    fn finish_sealing(&mut self) {
        let Some(sealing) = self.sealing.take() else { return };
        let through = sealing.sealer.emitter.through();
        self.previous = sealing.sealer.emitter.head();
        self.next_number += 1;
        if !sealing.recovered {
            self.sealed = through;
            self.state.store(AT_SEALED, through.0);
        }
        self.log.release(through);
        if sealing.recovered && self.recovered.is_empty() {
            self.recovery_source = None;
            self.recovery_groups = Vec::new();
        }
        self.outputs.push_back(Output::Notice(Notice::Sealed {
            worker: self.config.worker,
            file: sealing.sealer.name.file(),
            through,
        }));
        self.seal_trouble.clear();
        self.report();
    }

    /// Says so when the disk begins to fail, or is well again.
    fn report(&mut self) {
        let changed = self.log_trouble.take_change() | self.seal_trouble.take_change();
        if changed {
            self.outputs.push_back(Output::Notice(Notice::Disk {
                worker: self.config.worker,
                error: self.disk_error().map(str::to_owned),
            }));
        }
    }
}

impl Trouble {
    fn note(&mut self, now: Mono, error: String) {
        let pause = match self.failures {
            0 => 0,
            failures => (RETRY_MS << (failures - 1).min(16)).min(RETRY_MS_MAX),
        };
        self.failures += 1;
        self.retry_at = now.plus_ms(pause);
        self.error = Some(error);
    }

    fn clear(&mut self) {
        *self = Trouble { reported: self.reported, ..Trouble::default() };
    }

    fn take_change(&mut self) -> bool {
        let is = self.error.is_some();
        std::mem::replace(&mut self.reported, is) != is
    }
}

/// Copies ring bytes from a position on, around the ring's end.
fn copy_ring(ring: &impl Region, ring_bytes: u64, at: Position, out: &mut [u8]) {
    let place = (at.0 % ring_bytes) as usize;
    let head = out.len().min(ring_bytes as usize - place);
    let (first, second) = out.split_at_mut(head);
    ring.copy_out(place, first);
    if !second.is_empty() {
        ring.copy_out(0, second);
    }
}
