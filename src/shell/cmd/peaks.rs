//! `floortape peaks`: how loud each line was when, and when nothing was heard. What was drawn beforehand is taken
//! from `STORE/peaks.sqlite`; the rest, and short times, are drawn from the records.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::lines_of::lines_of;
use super::remote;
use super::store::{Store, StoreArgs, named};
use super::table::{plain, table};
use crate::base::ids::{RsId, SourceId, StreamId, WorkerId};
use crate::base::ports::Clock;
use crate::base::time::Wall;
use crate::config::access::Right;
use crate::host::clock::SystemClock;
use crate::host::spare::StoreDisk;
use crate::host::sqlite::peaks::{self as file, Known, Peaks};
use crate::shell::access::{Wish, ask_for_ourselves};
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::reading::Read;
use crate::shell::when::{When, ZoneArgs};
use crate::store::archive::{Run, Visit};
use crate::store::audit::action;
use crate::store::catalog::model::Stream;
use crate::store::catalog::{Action, Library, RsEntry};
use crate::store::event::StreamDescription;
use crate::store::export::align::align;
use crate::store::export::timeline::{Evidence, TimeLine};
use crate::store::export::times;
use crate::store::journal::entry::line_name;
use crate::store::peaks::{
    BLOCK_MS, Bucket, Rates, Reason, Silence, Strip, Trace, Tracer, buckets, silences,
};
use crate::store::record::RecordKind;
use crate::store::segment::SegmentName;

/// Buckets in JSON, where nobody says how many.
const POINTS: u32 = 1_000;
/// And at most.
const POINTS_MAX: i64 = 10_000;
/// Columns where there is no terminal.
const COLUMNS: u32 = 100;
/// A level of that length is what is kept; shorter ones are drawn from the records, of so much time at most.
const BLOCK_NS: i64 = BLOCK_MS as i64 * 1_000_000;
const DIRECT_NS: i64 = 600 * 1_000_000_000;
/// Records are drawn in blocks of a bucket's length and this fraction of it.
const FRACTION: i64 = 4;
/// What is sealed and was not drawn beforehand is drawn for so long; of Opus that is some hours of a line.
const PATIENCE: Duration = Duration::from_secs(60);
/// Silences that are told in words.
const TOLD: usize = 8;

/// How loud a recording was when: lowest and highest sample of equal times, and all silences
///
/// Each line is drawn by itself, in the zone's time. Of a recording that goes on, what is on disk is drawn.
/// Buckets of a second and more are of what was drawn when it was sealed; shorter ones, of ten minutes at most,
/// are of the records themselves.
#[derive(clap::Args)]
pub struct Args {
    /// Recording id
    #[arg(value_name = "ID")]
    id: String,
    /// From then on: a time as `search` takes it (RFC 3339, 14:05, 2026-11-30 14:05 Europe/Berlin, -2h), or so
    /// long after its start (+1:30, +90s) [default: its start]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Up to then; of a day, to its end [default: its end]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Only the line of that label; may be given several times
    #[arg(long, value_name = "LABEL")]
    stream: Vec<String>,
    /// How many buckets [default: as many as there are columns, 1000 with --json]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=POINTS_MAX))]
    points: Option<u32>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Why, for the audit trail; `access.reason` may ask for it (exit 4 without it)
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    zone: ZoneArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// What is told.
#[derive(Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
pub(crate) struct Picture {
    pub(crate) id: RsId,
    pub(crate) from: Wall,
    pub(crate) to: Wall,
    /// How many buckets each line has.
    pub(crate) points: u32,
    /// What is sealed was drawn beforehand up to here, what follows now, from the records; null: all that is sealed
    /// was, or times are so short that records are drawn anyway.
    pub(crate) drawn_until: Option<Wall>,
    /// From here on something is not drawn at all: it would have taken too long.
    pub(crate) undrawn_from: Option<Wall>,
    pub(crate) lines: Vec<Drawn>,
}

/// One line.
#[derive(Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
pub(crate) struct Drawn {
    pub(crate) label: String,
    pub(crate) stream: StreamId,
    /// Samples a second.
    pub(crate) rate: u32,
    pub(crate) channels: u8,
    /// What ties it to the other lines, as in an export's `timeline.json`.
    pub(crate) evidence: Evidence,
    pub(crate) buckets: Vec<Bucket>,
    pub(crate) silences: Vec<Silence>,
    /// There were more breaks or silences than are told.
    pub(crate) cut: bool,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let when = args.zone.when()?;
    // Whoever errs hears so at once, and from us.
    let said = when.range(("from", &args.from), &args.to)?;
    let points = args.points.unwrap_or_else(|| if args.json { POINTS } else { columns() });
    let by_server = || {
        Ok(Read::Peaks {
            id: remote::id(&args.id)?,
            from: said.from,
            to: said.to,
            stream: args.stream.clone(),
            points,
            json: args.json,
            tz: when.name(),
            reason: args.reason.clone(),
        })
    };
    if let Some(exit) = remote::instead(&args.store, by_server)? {
        return Ok(exit);
    }
    let store = args.store.find()?;
    let library = store.library()?;
    let rs = named(&library, &args.id, &store.dir)?;
    let range = said.of(rs.start)?;
    let wanted = Wanted::of(&args, range, &rs, points)?;
    ask_for_ourselves(&store.dir, Right::Hear, wish(&args, range, rs.id))?;
    let (picture, visit) = draw(&store, &library, &rs, &wanted)?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &picture)?;
        out.write_all(b"\n")?;
    } else {
        out.write_all(text(&picture, &when).as_bytes())?;
    }
    for damage in &visit.damaged {
        let (path, why) = (damage.path.display(), &damage.why);
        eprintln!("floortape: {path} at {}: not drawn: {why}", damage.offset);
    }
    Ok(if visit.damaged.is_empty() { Exit::Yes } else { Exit::No })
}

/// Columns for a waveform, beside its label.
fn columns() -> u32 {
    let out = io::stdout();
    let size = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten();
    let columns = size.map_or(COLUMNS, |size| u32::from(size.ws_col).max(40));
    columns - LABEL as u32 - 2
}

/// What the audit trail says of it.
fn wish(args: &Args, (from, to): (Option<Wall>, Option<Wall>), rs: RsId) -> Wish {
    Wish::new(action::READ, rs.to_string())
        .because(args.reason.clone())
        .with("verb", Some("peaks"))
        .with("from", from.map(|from| from.to_string()))
        .with("to", to.map(|to| to.to_string()))
        .with("stream", (!args.stream.is_empty()).then(|| args.stream.clone()))
}

/// What is asked for.
pub(crate) struct Wanted {
    streams: BTreeSet<StreamId>,
    range: (Wall, Wall),
    /// The range was given: samples are counted from there, else from the first.
    from_given: bool,
    points: u32,
    patience: Duration,
}

impl Wanted {
    fn of(
        args: &Args,
        (from, to): (Option<Wall>, Option<Wall>),
        rs: &RsEntry,
        points: u32,
    ) -> Result<Self, Failure> {
        let streams = lines_of(rs, &args.stream, None)?;
        let end = rs.end.unwrap_or_else(|| SystemClock.map().wall);
        if from.is_some_and(|from| from >= end) || to.is_some_and(|to| to <= rs.start) {
            let why = format!("recording {} ran from {} to {end}", rs.id, rs.start);
            return Err(Failure::new(Exit::NotFound, why));
        }
        let range = (from.unwrap_or(rs.start), to.unwrap_or(end));
        let (from_given, patience) = (from.is_some(), PATIENCE);
        Ok(Wanted { streams, range, from_given, points, patience }.bounded())
    }

    /// No bucket of a long time is shorter than what is kept, and none than a nanosecond: there are fewer then.
    fn bounded(self) -> Self {
        let length = self.length();
        let most =
            if length > DIRECT_NS { (length / BLOCK_NS).max(1) } else { POINTS_MAX.min(length) };
        Wanted { points: self.points.min(most as u32), ..self }
    }

    fn length(&self) -> i64 {
        self.range.1.0.saturating_sub(self.range.0.0).max(1)
    }

    /// Of each bucket, ns.
    fn width(&self) -> i64 {
        self.length() / i64::from(self.points)
    }

    fn is_direct(&self) -> bool {
        self.length() <= DIRECT_NS && self.width() < BLOCK_NS
    }
}

/// Draws it.
pub(crate) fn draw(
    store: &Store,
    library: &Library<StoreDisk>,
    rs: &RsEntry,
    wanted: &Wanted,
) -> Result<(Picture, Visit), Failure> {
    let mut descriptions: Vec<&StreamDescription> = rs
        .streams
        .values()
        .map(|entry| &entry.description)
        .filter(|one| wanted.streams.contains(&one.stream))
        .collect();
    descriptions.sort_by_key(|one| (one.line, one.stream));
    let block_ms = match wanted.is_direct() {
        true => (wanted.width() / FRACTION / 1_000_000).clamp(1, i64::from(BLOCK_MS)) as u32,
        false => BLOCK_MS,
    };
    let mut traces: BTreeMap<StreamId, Trace<'_>> = descriptions
        .iter()
        .filter_map(|one| Some((one.stream, Trace::new(one, block_ms)?)))
        .collect();
    if traces.is_empty() {
        let why = format!("recording {}: nothing of it is audio that is decoded here", rs.id);
        return Err(Failure::new(Exit::NotFound, why));
    }
    let (visit, late) = match wanted.is_direct() {
        true => (direct(library, rs, wanted, &mut traces)?, Late::default()),
        false => kept(store, library, wanted, (&descriptions, &mut traces))?,
    };
    let timings: Vec<_> = traces.values().map(Trace::timing).collect();
    let lines: BTreeMap<StreamId, TimeLine> = traces.keys().copied().zip(align(&timings)).collect();
    let quick = library.recording_quick(rs.id)?;
    let told = quick.as_ref().map_or(&[][..], |quick| &quick.recording.streams);
    let drawn = descriptions.iter().filter_map(|one| {
        let (trace, line) = (traces.get(&one.stream)?, lines.get(&one.stream)?);
        let told = told.iter().find(|told| told.stream == one.stream);
        Some(drawn(one, (trace, line), told, wanted))
    });
    let (from, to) = wanted.range;
    let picture = Picture {
        id: rs.id,
        from,
        to,
        points: wanted.points,
        drawn_until: late.drawn_until,
        undrawn_from: late.undrawn_from,
        lines: drawn.collect(),
    };
    Ok((picture, visit))
}

fn drawn(
    description: &StreamDescription,
    (trace, line): (&Trace<'_>, &TimeLine),
    told: Option<&Stream>,
    wanted: &Wanted,
) -> Drawn {
    let first = trace.timing().placement().first().map(|(first, _)| first);
    let begins = line.position(wanted.range.0).filter(|_| wanted.from_given);
    // As an export of the same range has it.
    let origin = begins.map(|position| position.round() as i64).or(first).unwrap_or(0);
    let rates = trace.rates();
    Drawn {
        label: line_name(description.label.as_deref(), description.line),
        stream: description.stream,
        rate: rates.rate,
        channels: rates.channels,
        evidence: line.evidence,
        buckets: buckets(trace, line, wanted.range, rates.frames(origin), wanted.points),
        silences: silences(trace, line, wanted.range, &pauses(told)),
        cut: line.cut,
    }
}

/// When a line was paused: by its records where it has settled, else by the journal.
fn pauses(told: Option<&Stream>) -> Vec<(Wall, Wall)> {
    let Some(stream) = told else { return Vec::new() };
    let mut pauses: Vec<(Wall, Wall)> = times::pauses(stream).collect();
    if pauses.is_empty() {
        for control in &stream.controls {
            match control.action {
                Action::Pause => pauses.push((control.at, Wall(i64::MAX))),
                Action::Resume | Action::Stop => {
                    if let Some(last) = pauses.last_mut() {
                        last.1 = last.1.min(control.at);
                    }
                }
                Action::Start => {}
            }
        }
    }
    pauses
}

/// Draws all of it from the records.
fn direct(
    library: &Library<StoreDisk>,
    rs: &RsEntry,
    wanted: &Wanted,
    traces: &mut BTreeMap<StreamId, Trace<'_>>,
) -> Result<Visit, Failure> {
    let (from, to) = wanted.range;
    let visit = library.visit_range(rs, Some(&wanted.streams), from, to, &mut |seen| {
        if let Some(trace) = traces.get_mut(&seen.record.meta.source.stream()) {
            trace.record(&seen.record, seen.wall());
        }
    })?;
    for gone in &visit.expired {
        if let Some(trace) = traces.get_mut(&gone.source.stream()) {
            trace.gone(gone.arrivals.0, gone.arrivals.1);
        }
    }
    Ok(visit)
}

/// Where a strip belongs: what is in no segment yet stands behind all that is.
type Place = (Option<SegmentName>, SourceId);
type Placed = (Place, Strip);

/// What of that which is sealed was not drawn beforehand, by arrivals.
#[derive(Default)]
struct Late {
    /// The earliest of it.
    drawn_until: Option<Wall>,
    /// The earliest of what is still not drawn.
    undrawn_from: Option<Wall>,
}

/// Takes what was drawn beforehand, and draws the rest from the records, as long as that may take.
fn kept(
    store: &Store,
    library: &Library<StoreDisk>,
    wanted: &Wanted,
    (descriptions, traces): (&[&StreamDescription], &mut BTreeMap<StreamId, Trace<'_>>),
) -> Result<(Visit, Late), Failure> {
    let forms: BTreeMap<StreamId, Rates> =
        traces.iter().map(|(stream, trace)| (*stream, trace.rates())).collect();
    let (known, mut strips) = found(&store.dir, wanted, &forms).unwrap_or_default();
    let by_stream: BTreeMap<StreamId, &StreamDescription> =
        descriptions.iter().map(|one| (one.stream, *one)).collect();
    let mut loose: BTreeMap<StreamId, Option<Tracer<'_>>> = BTreeMap::new();
    let streams: BTreeSet<StreamId> = traces.keys().copied().collect();
    let (mut late, mut undrawn) = (Late::default(), Vec::new());
    let (began, mut over) = (Instant::now(), false);
    let mut visitor = |run: &mut Run<'_>| {
        over |= began.elapsed() >= wanted.patience;
        let mut skipped: Option<(StreamId, Wall, Wall)> = None;
        let mut sealed: Option<(Place, Option<Tracer<'_>>)> = None;
        for seen in run {
            let source = seen.record.meta.source;
            let Some(description) = by_stream.get(&source.stream()) else { continue };
            if seen.place.segment.is_some() && seen.record.meta.kind == RecordKind::Rtp {
                let at = seen.wall();
                late.drawn_until = Some(late.drawn_until.map_or(at, |known| known.min(at)));
                if over {
                    let (_, from, to) = skipped.get_or_insert((source.stream(), at, at));
                    (*from, *to) = ((*from).min(at), (*to).max(at));
                    continue;
                }
            }
            let tracer = match seen.place.segment {
                // What is in no segment is one piece, whoever sent between.
                None => loose
                    .entry(source.stream())
                    .or_insert_with(|| Tracer::new(description, BLOCK_MS)),
                Some(segment) => {
                    let place = (Some(segment), source);
                    &mut sealed.get_or_insert_with(|| (place, Tracer::new(description, BLOCK_MS))).1
                }
            };
            if let Some(tracer) = tracer {
                tracer.record(&seen.record, seen.wall());
            }
        }
        if let Some((stream, from, to)) = skipped {
            late.undrawn_from = Some(late.undrawn_from.map_or(from, |known| known.min(from)));
            undrawn.push((stream, from, to));
        }
        if let Some((place, Some(tracer))) = sealed {
            strips.extend(tracer.finish().into_iter().map(|one| (place, Strip::Heard(one))));
        }
    };
    let visit = library.visit_rest(&streams, wanted.range, known, &mut visitor)?;
    for gone in &visit.expired {
        let strip = Strip::Gone(gone.arrivals.0, gone.arrivals.1);
        strips.push(((Some(gone.segment), gone.source), strip));
    }
    // As an export reads them: by worker and segment, then by source.
    strips.sort_by_key(|((segment, source), _)| (segment.is_none(), *segment, *source));
    for (stream, tracer) in loose {
        let last = (None, SourceId::new(stream, 0));
        strips.extend(
            tracer.into_iter().flat_map(Tracer::finish).map(|one| (last, Strip::Heard(one))),
        );
    }
    for ((_, source), strip) in &strips {
        let Some(trace) = traces.get_mut(&source.stream()) else { continue };
        match strip {
            Strip::Heard(envelope) => trace.envelope(envelope),
            Strip::Gone(from, to) => trace.gone(*from, *to),
        }
    }
    for (stream, from, to) in undrawn {
        if let Some(trace) = traces.get_mut(&stream) {
            trace.undrawn(from, to);
        }
    }
    Ok((visit, late))
}

/// What was drawn beforehand, and of which segments that is all; `None`: nothing can be had.
fn found(
    dir: &std::path::Path,
    wanted: &Wanted,
    forms: &BTreeMap<StreamId, Rates>,
) -> Option<(BTreeSet<SegmentName>, Vec<Placed>)> {
    let told = |why: &str| eprintln!("floortape: the records are read instead: {why}");
    let peaks = file::open_read(dir, told)?;
    let known = peaks.segments().ok()?;
    let mut spans: BTreeMap<WorkerId, (SegmentName, SegmentName)> = BTreeMap::new();
    for (name, Known { arrivals, .. }) in &known {
        if arrivals.0 <= wanted.range.1 && arrivals.1 >= wanted.range.0 {
            let (_, last) = spans.entry(name.worker).or_insert((*name, *name));
            *last = *name;
        }
    }
    let mut segments: BTreeSet<SegmentName> = known.into_keys().collect();
    let mut strips = Vec::new();
    for span in spans.into_values() {
        let (found, mut damaged) = strips_of(&peaks, wanted, span)?;
        // The line had another codec then, and is drawn in the form that it has at last.
        let is_other = |source: &SourceId, strip: &Strip| match strip {
            Strip::Heard(one) => forms.get(&source.stream()).is_some_and(|own| *own != one.rates),
            Strip::Gone(..) => false,
        };
        let other = found.iter().filter(|(_, source, strip)| is_other(source, strip));
        damaged.extend(other.map(|(name, ..)| *name).collect::<Vec<_>>());
        segments.retain(|name| !damaged.contains(name));
        let sound = found.into_iter().filter(|(name, ..)| !damaged.contains(name));
        strips.extend(sound.map(|(name, source, strip)| ((Some(name), source), strip)));
    }
    // A transaction between the two looks may have added some: those are drawn once more.
    strips.retain(|((name, _), _)| name.is_some_and(|name| segments.contains(&name)));
    Some((segments, strips))
}

fn strips_of(
    peaks: &Peaks,
    wanted: &Wanted,
    span: (SegmentName, SegmentName),
) -> Option<(Vec<file::Found>, BTreeSet<SegmentName>)> {
    peaks.strips(&wanted.streams, span).ok()
}

/// Columns of a label.
const LABEL: usize = 10;
/// From the quietest to the loudest, 6 dB each.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

fn bar(bucket: &Bucket) -> char {
    if bucket.samples.is_none() {
        return ' ';
    }
    let below = -full_scale_db(bucket) / 6.0;
    let place = BARS.len() as f64 - 1.0 - below.floor();
    BARS[place.clamp(0.0, BARS.len() as f64 - 1.0) as usize]
}

/// How far its loudest sample is from full scale, dB; at most 0.
fn full_scale_db(bucket: &Bucket) -> f64 {
    let peak = bucket.min.unsigned_abs().max(bucket.max.unsigned_abs()).max(1);
    20.0 * (f64::from(peak) / 32_768.0).log10()
}

fn text(picture: &Picture, when: &When) -> String {
    let mut out = table(&[
        vec!["recording".to_owned(), picture.id.to_string()],
        vec!["from".to_owned(), when.both(picture.from)],
        vec!["to".to_owned(), when.both(picture.to)],
    ]);
    let width_s = (picture.to.0 - picture.from.0) as f64 / 1e9 / f64::from(picture.points);
    let _ = writeln!(out, "column     {width_s:.3} s, from -48 dB to full scale");
    if let Some(until) = picture.drawn_until {
        let until = when.text(until);
        let _ = writeln!(
            out,
            "drawn      beforehand until {until}, what follows now, from the records"
        );
    }
    if let Some(from) = picture.undrawn_from {
        let (from, patience) = (when.text(from), PATIENCE.as_secs());
        let _ = writeln!(
            out,
            "not drawn  from {from} on: that takes more than {patience} s; ask for less, or later"
        );
    }
    out.push('\n');
    for line in &picture.lines {
        let label: String = plain(&line.label).chars().take(LABEL).collect();
        let wave: String = line.buckets.iter().map(bar).collect();
        let _ = writeln!(out, "{label:<LABEL$} {}", wave.trim_end());
        let mut longest: Vec<&Silence> = line.silences.iter().collect();
        longest.sort_by_key(|one| std::cmp::Reverse(one.to.0 - one.from.0));
        longest.truncate(TOLD);
        longest.sort_by_key(|one| one.from);
        let head = ["", "SILENT", "SECONDS", "FROM", "TO"].map(str::to_owned).to_vec();
        let rows = longest.iter().map(|one| {
            let seconds = format!("{:.1}", (one.to.0 - one.from.0) as f64 / 1e9);
            let (from, to) = (when.text(one.from), when.text(one.to));
            vec![String::new(), one.why.name().to_owned(), seconds, from, to]
        });
        let rows: Vec<Vec<String>> = [head].into_iter().chain(rows).collect();
        if rows.len() > 1 {
            out.push_str(&table(&rows));
        }
        let more = line.silences.len().saturating_sub(TOLD);
        if more > 0 {
            let _ = writeln!(out, "  and {more} shorter ones: --json");
        }
        let is = |why: Reason| line.silences.iter().any(|one| one.why == why);
        if line.cut {
            let _ = writeln!(out, "  there were more breaks than are told");
        }
        if is(Reason::Lost) {
            let _ = writeln!(out, "  `floortape show` tells what was lost");
        }
    }
    out
}

#[cfg(test)]
#[path = "peaks_tests.rs"]
mod tests;
