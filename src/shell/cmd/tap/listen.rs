//! The process of a tap: finds the records, makes of them what is heard, gives it out, until it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::feed::{At, Feed, Found, Item};
use super::give::{Give, Named};
use super::pipe::{End, Pipe};
use crate::base::ids::{RsId, SourceId, StreamId};
use crate::base::ports::Clock;
use crate::base::time::Wall;
use crate::host::clock::SystemClock;
use crate::host::process;
use crate::host::ringview::RingView;
use crate::host::seqpacket::SeqPacket;
use crate::host::spare::StoreDisk;
use crate::shell::access;
use crate::shell::cmd::line;
use crate::shell::cmd::lines_of::lines_of;
use crate::shell::cmd::reader::keep_keys;
use crate::shell::cmd::store::Store;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::reading::{Read, Reply, TapFormat};
use crate::shell::serve::tapping::{self, Tapping};
use crate::store::catalog::{Library, RsEntry, senders_of};
use crate::store::event::StreamDescription;
use crate::store::journal::entry::line_name;
use crate::store::query::Moment;
use crate::store::record::{RecordKind, RecordMeta};
use crate::store::tap::{Happening, LastOf, Line, Mark};

/// Between two looks at the rings.
const PAUSE: Duration = Duration::from_millis(20);
/// Where all lines are closed, it is looked whether the recording is over: soon, and then ever less often.
const OVER_LOOK: Duration = Duration::from_millis(500);
const OVER_LOOK_MAX: Duration = Duration::from_secs(10);
/// 128 + SIGPIPE, as shells have it.
const CLOSED_PIPE: u8 = 141;

/// What is asked for.
struct Wanted {
    id: RsId,
    from: Option<Moment>,
    labels: Vec<String>,
    party: Option<String>,
    format: TapFormat,
    resume: Option<Mark>,
}

/// Taps as it is told over `link`.
pub(crate) fn main(link: OwnedFd) -> ExitCode {
    // Control may die, and the recording goes on.
    process::outlive();
    let taken = SeqPacket::from_fd(link).and_then(tapping::take);
    let Tapping { mut task, entry, rings, link, asker } = match taken {
        Ok(taken) => taken,
        Err(error) => {
            let why = format!("this name is for the children of `floortape serve` ({error})");
            return line::ended(Err(Failure::new(Exit::Usage, why)));
        }
    };
    let began = Instant::now();
    let store = task.store.clone();
    let mut pipe = match Pipe::new(link, asker, store.clone()) {
        Ok(pipe) => pipe,
        Err(error) => return line::ended(Err(error.into())),
    };
    let done = match keep_keys(&mut task) {
        Some(()) => {
            wanted(task.read).and_then(|wanted| tap(store.clone(), wanted, rings, &mut pipe))
        }
        None => Err(Failure::new(Exit::Usage, "expected keys of 32 bytes")),
    };
    let code = match &done {
        Ok(code) => *code,
        Err(failure) => failure.exit as u8,
    };
    if pipe.orphan {
        let why = format!("it ended with {code}");
        let seconds = began.elapsed().as_secs_f64();
        let listened = access::listened(&store, &entry, seconds, &why);
        listened.unwrap_or_else(|error| eprintln!("floortape: {error}"));
        tapping::reply(pipe.asker(), &Reply::Exited(code));
    }
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => line::ended(Err(failure)),
    }
}

fn wanted(read: Read) -> Result<Wanted, Failure> {
    let Read::Tap { id, from, stream, party, format, resume, reason: _ } = read else {
        return Err(Failure::new(Exit::Usage, "expected a tap"));
    };
    let resume = resume.map(|text| text.parse()).transpose();
    let resume = resume.map_err(|error| Failure::new(Exit::Usage, format!("--resume: {error}")))?;
    Ok(Wanted { id, from, labels: stream, party, format, resume })
}

/// One line of it.
struct Heard {
    line: Line,
    named: Named,
}

/// See the module's description.
struct Tap {
    store: Store,
    wanted: Wanted,
    lines: BTreeMap<StreamId, Heard>,
    mark: Mark,
    give: Give,
}

/// Taps; the code with which it ends.
fn tap(
    dir: std::path::PathBuf,
    wanted: Wanted,
    rings: Vec<RingView>,
    pipe: &mut Pipe,
) -> Result<u8, Failure> {
    let store = Store::at(dir, None);
    let library = store.library()?;
    let rs = entry(&library, wanted.id)?;
    if rs.end.is_some() && wanted.from.is_none() && wanted.resume.is_none() {
        let why = format!("recording {} is over: `floortape play` plays it", rs.id);
        return Err(Failure::new(Exit::NotFound, why));
    }
    let now = SystemClock.map().wall;
    let start = wanted.from.map_or(now, |from| from.of(rs.start).max(rs.start));
    if let Some(end) = rs.end.filter(|end| start >= *end && wanted.resume.is_none()) {
        let why = format!("recording {} ran from {} to {end}", rs.id, rs.start);
        return Err(Failure::new(Exit::NotFound, why));
    }
    if start > now && wanted.resume.is_none() {
        let seconds = (start.0 - now.0) / 1_000_000_000 + 1;
        eprintln!(
            "floortape: it begins at {start}, in {}: nothing is heard before",
            told_length(seconds)
        );
    }
    let mark = wanted.resume.clone().unwrap_or(Mark { start, ..Mark::default() });
    if !mark.sources.keys().all(|source| rs.streams.contains_key(&source.stream())) {
        let why = format!("--resume: this position is of another recording than {}", rs.id);
        return Err(Failure::new(Exit::NotFound, why));
    }
    let mut tap = Tap {
        give: Give::Objects { bytes: Vec::new() },
        lines: BTreeMap::new(),
        mark,
        store,
        wanted,
    };
    tap.begin(&rs)?;
    let mut feeds: Vec<Feed> = rings.into_iter().map(|ring| tap.feed(ring)).collect();
    // What the catalogue and the journal say is not needed any more.
    drop(rs);
    let end = match tap.follow(&library, &mut feeds, pipe) {
        Ok(end) => end,
        Err(Fault::End(end)) => end,
        Err(Fault::Failure(failure)) => return Err(failure),
    };
    tap.end(end, &feeds, pipe)
}

/// What ends the following.
enum Fault {
    End(End),
    Failure(Failure),
}

impl From<End> for Fault {
    fn from(end: End) -> Self {
        Fault::End(end)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Fault::Failure(failure)
    }
}

/// `5s`, `1h02m`: how long somebody has to wait.
fn told_length(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        7_200..172_800 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn entry(library: &Library<StoreDisk>, id: RsId) -> Result<RsEntry, Failure> {
    let missing = || Failure::new(Exit::NotFound, format!("no recording {id}"));
    library.entry(id)?.ok_or_else(missing)
}

impl Tap {
    /// The lines that are to be heard, in the order of their m-lines.
    fn begin(&mut self, rs: &RsEntry) -> Result<(), Failure> {
        let chosen = lines_of(rs, &self.wanted.labels, self.wanted.party.as_deref())?;
        let past = self.wanted.from.is_some() || self.wanted.resume.is_some();
        let mut streams: Vec<_> = rs.streams.values().collect();
        streams.retain(|one| chosen.contains(&one.description.stream));
        streams.retain(|one| one.closed.is_none_or(|at| past && at >= self.mark.start));
        streams.sort_by_key(|one| (one.description.line, one.description.stream));
        let mut order = Vec::new();
        for one in streams {
            if self.add(rs, &one.description, !one.active) {
                let id = one.description.stream;
                order.push((id, self.lines[&id].line.rate()));
            }
        }
        let names: Vec<&str> = order.iter().map(|(id, _)| &*self.lines[id].named.label).collect();
        if order.is_empty() && self.wanted.format != TapFormat::Jsonl {
            let why = format!("recording {}: no line is open that can be heard", rs.id);
            return Err(Failure::new(Exit::NotFound, why));
        }
        if self.wanted.format == TapFormat::Raw && order.len() > 1 {
            let all = names.join(", ");
            let why = format!("raw is of one line: choose one by --stream or --party: {all}");
            return Err(Failure::new(Exit::Usage, why));
        }
        let resumed = self.wanted.resume.is_some();
        self.give = Give::new(self.wanted.format, &order, &self.mark, resumed);
        if resumed {
            self.go_on();
        } else {
            self.tell_lines(rs, &order);
        }
        Ok(())
    }

    fn tell_lines(&mut self, rs: &RsEntry, order: &[(StreamId, u32)]) {
        let lines: Vec<_> = order
            .iter()
            .map(|(id, rate)| {
                let Named { label, paused, who, .. } = &self.lines[id].named;
                json!({ "label": label, "rate": rate, "paused": paused, "participants": who })
            })
            .collect();
        let id = rs.id.to_string();
        let start = json!({ "type": "start", "id": id, "from": self.mark.start, "lines": lines });
        self.give.say(&start);
    }

    /// Goes on behind what another one has given out.
    fn go_on(&mut self) {
        let mut sources: Vec<(SourceId, LastOf)> =
            self.mark.sources.iter().map(|(source, last)| (*source, *last)).collect();
        sources.sort_by_key(|(_, last)| last.wall);
        for (source, last) in sources {
            if let Some(heard) = self.lines.get_mut(&source.stream()) {
                let position = heard.line.go_on(source.ordinal(), &last);
                self.give.go_on(source.stream(), position, last.frame);
            }
        }
    }

    /// False where nothing of it can be heard.
    fn add(&mut self, rs: &RsEntry, description: &StreamDescription, paused: bool) -> bool {
        let Some(line) = Line::new(description) else { return false };
        let who = senders_of(rs).remove(&description.stream).unwrap_or_default();
        let label = line_name(description.label.as_deref(), description.line);
        let named = Named { label, rate: line.rate(), paused, who };
        self.lines.insert(description.stream, Heard { line, named });
        true
    }

    fn feed(&self, ring: RingView) -> Feed {
        let start = self.mark.start;
        match &self.wanted.resume {
            Some(mark) => {
                // One that the mark does not know had nothing to say before.
                let position = mark.rings.get(&ring.worker()).copied();
                let at = position.map(|(position, exact)| At { position, exact });
                let from = at.is_none().then_some(start);
                Feed::new(ring, self.wanted.id, at, from)
            }
            None => Feed::new(ring, self.wanted.id, None, self.wanted.from.map(|_| start)),
        }
    }

    fn follow(
        &mut self,
        library: &Library<StoreDisk>,
        feeds: &mut [Feed],
        pipe: &mut Pipe,
    ) -> Result<End, Fault> {
        let mut found = Found::new();
        let (mut look, mut looked) = (OVER_LOOK, Instant::now());
        loop {
            let now = SystemClock.map().wall;
            let mut idle = true;
            // Whoever is furthest behind first, so that all lines are heard side by side.
            let mut busy: BTreeSet<usize> = (0..feeds.len()).collect();
            while let Some(next) = busy.iter().copied().min_by_key(|one| feeds[*one].frontier()) {
                let streams: BTreeSet<StreamId> = self.lines.keys().copied().collect();
                let feed = &mut feeds[next];
                let known = &self.mark.sources;
                if !feed.step(&library.archive, &streams, known, now, &mut found)? {
                    busy.remove(&next);
                }
                for (at, item) in found.drain(..) {
                    idle = false;
                    let position = (at.position, at.exact);
                    self.mark.rings.insert(feeds[next].worker(), position);
                    self.take(item)?;
                }
                let at = feeds[next].at();
                self.mark.rings.insert(feeds[next].worker(), (at.position, at.exact));
                self.write(feeds, pipe)?;
            }
            self.write(feeds, pipe)?;
            if !idle || !self.lines.values().all(|heard| heard.line.is_closed()) {
                (look, looked) = (OVER_LOOK, Instant::now());
            } else if looked.elapsed() >= look {
                let library = self.store.library()?;
                if entry(&library, self.wanted.id)?.end.is_some() {
                    return Ok(End::Over);
                }
                (look, looked) = ((look * 2).min(OVER_LOOK_MAX), Instant::now());
            }
            let rings: Vec<&RingView> = feeds.iter().map(Feed::view).collect();
            pipe.pause(&rings, PAUSE)?;
        }
    }

    fn write(&mut self, feeds: &[Feed], pipe: &mut Pipe) -> Result<(), End> {
        let horizon = feeds.iter().map(Feed::frontier).min().unwrap_or_default();
        self.give.render(horizon);
        let bytes = self.give.take();
        if bytes.is_empty() {
            return Ok(());
        }
        let rings: Vec<&RingView> = feeds.iter().map(Feed::view).collect();
        pipe.write(&rings, &bytes)
    }

    fn take(&mut self, item: Item) -> Result<(), Failure> {
        match item {
            Item::Record { meta, payload, wall } => self.record(&meta, &payload, wall),
            Item::Opened(description) => self.opened(&description)?,
            Item::Missing { from, to } => {
                eprintln!("floortape: what was recorded from {from} to {to} cannot be found");
                let missing = json!({ "type": "missing", "from": from, "to": to });
                self.give.say(&missing);
            }
        }
        Ok(())
    }

    fn record(&mut self, meta: &RecordMeta, payload: &[u8], wall: Wall) {
        let Some(heard) = self.lines.get_mut(&meta.source.stream()) else { return };
        let mut happened = Vec::new();
        heard.line.record(meta, payload, wall, &mut |one| happened.push(one));
        if meta.kind == RecordKind::Rtp {
            let (index, arrival) = (meta.index.0, meta.arrival.0);
            if let Some(last) = self.mark.sources.get_mut(&meta.source) {
                *last = LastOf { index, arrival, ..*last };
            }
        }
        for one in happened {
            if let Happening::Audio { at, position, samples, .. } = &one {
                let frame = self.give.lay(meta.source, *at, *position, samples);
                let timestamp = timestamp(payload);
                let (index, arrival) = (meta.index.0, meta.arrival.0);
                let last = LastOf { index, arrival, timestamp, frame, wall };
                self.mark.sources.insert(meta.source, last);
            }
            self.give.tell(&heard.named, &one, &self.mark);
        }
    }

    /// A line that was added to the recording since.
    fn opened(&mut self, description: &StreamDescription) -> Result<(), Failure> {
        let label = line_name(description.label.as_deref(), description.line);
        if self.lines.contains_key(&description.stream)
            || (!self.wanted.labels.is_empty() && !self.wanted.labels.contains(&label))
        {
            return Ok(());
        }
        let rs = entry(&self.store.library()?, self.wanted.id)?;
        let party = self.wanted.party.as_deref();
        let is_wanted =
            lines_of(&rs, &[], party).is_ok_and(|lines| lines.contains(&description.stream));
        if !is_wanted {
            return Ok(());
        }
        if self.wanted.format != TapFormat::Jsonl {
            eprintln!("floortape: line {label} was added; it is not in what was begun before");
        } else if self.add(&rs, description, false) {
            let Named { label, rate, who, .. } = &self.lines[&description.stream].named;
            let position = self.mark.to_string();
            let line = json!({
                "type": "line", "label": label, "rate": rate, "participants": who,
                "position": position,
            });
            self.give.say(&line);
        }
        Ok(())
    }

    /// The last of it; the code with which it ends.
    fn end(&mut self, end: End, feeds: &[Feed], pipe: &mut Pipe) -> Result<u8, Failure> {
        self.give.flush();
        let (exit, why) = match end {
            End::Over => (Exit::Yes, "over"),
            End::Asked => (Exit::Interrupted, "interrupted"),
            End::Stopped => (Exit::Unreachable, "the server has ended"),
            End::Closed => return Ok(CLOSED_PIPE),
            End::Failed(error) => return Err(error.into()),
        };
        if let Some((start, written)) = self.give.place() {
            (self.mark.start, self.mark.written) = (start, written);
        }
        let position = self.mark.to_string();
        let last = json!({ "type": "end", "why": why, "position": position });
        self.give.say(&last);
        let rings: Vec<&RingView> = feeds.iter().map(Feed::view).collect();
        let bytes = self.give.take();
        match pipe.write(&rings, &bytes) {
            Err(End::Closed) => return Ok(CLOSED_PIPE),
            // Whoever does not read will not know what was to come either.
            Err(_) => {
                eprintln!("floortape: {why}; what came last was not read");
                return Ok(exit as u8);
            }
            Ok(()) => {}
        }
        if let Some(adjusted) = self.give.adjusted() {
            eprintln!("floortape: {adjusted}");
        }
        if exit != Exit::Yes {
            eprintln!("floortape: {why}; to go on: --resume '{position}'");
        }
        Ok(exit as u8)
    }
}

/// RTP timestamp of a packet that was read before.
fn timestamp(packet: &[u8]) -> u32 {
    packet.get(4..8).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// What failed, where it was not somebody's wish.
impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::End(error.into())
    }
}
