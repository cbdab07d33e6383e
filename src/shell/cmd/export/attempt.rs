//! One attempt at an export: all records once, each stream into its files, then the mix.
//!
//! Memory does not grow with what is exported, but for the lists of what it is: a stream takes a write
//! buffer of 256 KB and its time line (0.3 MB a day), a segment an entry of some 300 bytes per stream in
//! the manifest, and records that are in no segment yet (a ring of them at most) wait for their turn.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use super::mixed;
use super::packets::Form;
use super::pen::Pen;
use super::progress::{Interrupt, Progress};
use super::proof::{Carried, Gathered};
use super::survey::{Cut, Survey};
use super::text;
use super::track::{Frame, Heard, Range, Track};
use super::unfinished::{Records, Unfinished};
use crate::base::ids::StreamId;
use crate::base::ports::Disk;
use crate::base::time::Wall;
use crate::host::spare::StoreDisk;
use crate::shell::cmd::show::expiry_words;
use crate::shell::exit::{Exit, Failure};
use crate::store::archive::{ALWAYS, Seen};
use crate::store::catalog::model::{Recording, Stream};
use crate::store::catalog::{Library, Reading, RsEntry, SessionSpan};
use crate::store::event::StreamDescription;
use crate::store::export::align::align;
use crate::store::export::mix::Samples;
use crate::store::export::name::Names;
use crate::store::export::timeline::TimeLine;
use crate::store::export::times::{self, Times, Wav};
use crate::store::export::timing::Timing;
use crate::store::record::RecordKind;

/// Records between two looks at the clock.
const LOOK: u64 = 1_024;

/// What is to be exported.
pub(super) struct Wanted<'a> {
    pub(super) rs: &'a RsEntry,
    pub(super) part: &'a Part,
    pub(super) lines: &'a [LineOf<'a>],
    /// Packets in that form; `None`: audio.
    pub(super) form: Option<Form>,
    pub(super) mono: bool,
    /// Digits are heard.
    pub(super) tones: bool,
}

/// What came of it.
pub(super) enum Attempted {
    Whole(Box<Written>),
    /// It was broken off at a checkpoint.
    Interrupted,
    /// What was read is not what the attempt before has read.
    Changed,
}

/// All but what only lists it.
pub(super) struct Written {
    pub(super) reading: Reading,
    pub(super) carried: Carried,
    pub(super) recording: Recording,
    /// Of its WAVs; of none where packets were wanted.
    pub(super) times: Times,
}

/// What of a recording is wanted.
pub(super) struct Part {
    pub(super) range: Range,
    /// Of this session only.
    pub(super) session: Option<SessionSpan>,
    /// Of lines with these labels; empty: all.
    pub(super) labels: Vec<String>,
}

impl Part {
    /// From when to when records are wanted; `None`: all of them are.
    fn span(&self) -> Option<(Wall, Wall)> {
        let Range { from, to } = self.range;
        let is_part = from.is_some() || to.is_some() || self.session.is_some();
        is_part.then(|| (from.unwrap_or(ALWAYS.0), to.unwrap_or(ALWAYS.1)))
    }

    /// Whether the line had a part in it.
    fn has_line(&self, label: Option<&str>) -> bool {
        let Some(session) = &self.session else { return true };
        session.unnamed || label.is_some_and(|label| session.lines.contains_key(label))
    }

    /// Whether a record goes along. Events say what the line is; nobody is heard in them.
    fn holds(&self, rs: &RsEntry, seen: &Seen<'_>) -> bool {
        let Some(session) = &self.session else { return true };
        let meta = &seen.record.meta;
        let label = rs.streams.get(&meta.source.stream());
        let label = label.and_then(|stream| stream.description.label.as_deref());
        meta.kind == RecordKind::Event || session.holds(label, seen.wall())
    }
}

/// The tracks of an attempt and what is gathered beside them.
struct Desk<'a> {
    tracks: BTreeMap<StreamId, (usize, Track<'a>)>,
    gathered: Gathered,
    records: Records,
    failed: Option<io::Error>,
    /// Nothing more is taken.
    ended: Option<Ended>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Interrupted,
    Changed,
}

impl Desk<'_> {
    fn take(&mut self, wanted: &Wanted<'_>, seen: &Seen<'_>) -> io::Result<bool> {
        let stream = seen.record.meta.source.stream();
        let Some((_, track)) = self.tracks.get_mut(&stream) else { return Ok(false) };
        self.records.add(seen);
        if wanted.part.holds(wanted.rs, seen) {
            self.gathered.record(seen);
            track.record(seen)?;
        } else {
            self.gathered.leave_out(seen);
        }
        Ok(true)
    }

    fn flush(&mut self, sync: bool) -> io::Result<()> {
        for (_, track) in self.tracks.values_mut() {
            track.flush(sync)?;
        }
        self.gathered.flush(sync)
    }
}

/// Reads and writes it, from where `unfinished` stands.
pub(super) fn run(
    library: &Library<StoreDisk>,
    wanted: &Wanted<'_>,
    dir: &Path,
    unfinished: &mut Unfinished,
    interrupt: &Interrupt<'_>,
) -> Result<Attempted, Failure> {
    let Wanted { rs, part, lines, form, tones, .. } = *wanted;
    let before = unfinished.records;
    // Files may be there though no checkpoint was made: then all is written over.
    let pen = Pen::new(true);
    pen.hush(before.count > 0);
    let span = (rs.start, rs.end.unwrap_or(unfinished.created));
    let local = rs.dialog.local.ip();
    let frame = Frame { dir, pen: &pen, range: part.range, local, span, tones };
    let cuts = match form {
        None if part.range != Range::default() => survey(library, rs, part, lines)?,
        _ => BTreeMap::new(),
    };
    let mut tracks = BTreeMap::new();
    for line in lines {
        let stream = line.description.stream;
        let cut = cuts.get(&stream).map(|(cut, _)| *cut);
        let track = Track::new(frame, line.description, &line.stem, form, cut)?;
        tracks.insert(stream, (line.place, track));
    }
    let gathered = Gathered::create(dir, &pen)?;
    let records = Records::default();
    let mut desk = Desk { tracks, gathered, records, failed: None, ended: None };
    let mut progress = Progress::new();
    progress.begin("reading");
    let mut bytes = 0;
    let mut visitor = |seen: &Seen<'_>| {
        if desk.failed.is_some() || desk.ended.is_some() {
            return;
        }
        bytes += seen.record.raw.len() as u64;
        let step = desk.take(wanted, seen).and_then(|taken| match taken {
            true => after(&mut desk, (&pen, before), dir, unfinished, &mut progress, interrupt),
            false => Ok(()),
        });
        desk.failed = step.err();
        if desk.records.count.is_multiple_of(LOOK) {
            let (start, now, end) = (span.0.0, seen.wall().0, span.1.0);
            progress.tell((now - start).max(0) as u64, (end - start).max(1) as u64, bytes);
        }
    };
    let mut reading = match part.span() {
        Some(span) => {
            let streams = lines.iter().map(|line| line.description.stream).collect();
            library.read_range_with(rs, Some(&streams), span, &mut visitor)?
        }
        None => library.read_with(&[rs], &mut visitor)?,
    };
    if let Some(error) = desk.failed {
        return Err(error.into());
    }
    match desk.ended {
        Some(Ended::Interrupted) => return Ok(Attempted::Interrupted),
        Some(Ended::Changed) => return Ok(Attempted::Changed),
        None if pen.is_quiet() => return Ok(Attempted::Changed),
        None => {}
    }
    let gone = reading.recordings.first().and_then(|one| one.retention.as_ref()?.gone.as_ref());
    if let Some(gone) = gone.filter(|gone| gone.whole) {
        let why = format!("recording {}: {}", rs.id, expiry_words(gone));
        return Err(Failure::new(Exit::NotFound, why));
    }
    desk.flush(true)?;
    if desk.records != before {
        // More has come since: the mix of before ends too early.
        unfinished.mixed = 0;
    }
    unfinished.records = desk.records;
    unfinished.save(dir)?;
    let mut in_order: Vec<_> = desk.tracks.into_iter().collect();
    in_order.sort_by_key(|(_, (place, _))| *place);
    let mut heard: Vec<Heard> = Vec::new();
    let mut heard_of: Vec<StreamId> = Vec::new();
    for (stream, (_, track)) in in_order {
        if let Some(track) = track.finish()? {
            heard.push(track);
            heard_of.push(stream);
        }
    }
    let recording = reading.recordings.pop().expect("one was asked for");
    if form.is_none() {
        for line in lines {
            let own = |stream: &&Stream| stream.stream == line.description.stream;
            if let Some(stream) = recording.streams.iter().find(own) {
                text::write(dir, &line.stem, stream, part.range)?;
            }
            text::write_note(dir, &line.stem, line.description)?;
        }
    }
    let mut json = serde_json::to_vec_pretty(&recording)?;
    json.push(b'\n');
    fs::write(dir.join("recording.json"), json)?;
    let mut written = Times { version: times::VERSION, mixed_start: None, wavs: Vec::new() };
    if form.is_none() {
        let timings: Vec<&Timing> = heard.iter().map(|track| &track.timing).collect();
        let lines: Vec<TimeLine> = match cuts.is_empty() {
            true => align(&timings),
            false => heard_of.iter().map(|stream| cuts[stream].1.clone()).collect(),
        };
        written = times(&recording, &heard_of, &heard, &lines, part.range);
        let mut json = serde_json::to_vec(&written)?;
        json.push(b'\n');
        fs::write(dir.join(times::FILE), json)?;
        progress.begin("mixing");
        let path = dir.join("mixed.wav");
        let (read, mut left) = (desk.records.count, false);
        let done = unfinished.mixed;
        let mut block_done = |wave: &mut super::wave::Wave, at: u64, total: u64| {
            progress.tell(at, total, at * wave.frame_bytes());
            left = (interrupt.asked)(read + at);
            if left || progress.is_checkpoint_due() {
                wave.sync()?;
                unfinished.mixed = at;
                unfinished.save(dir)?;
            }
            if left {
                (interrupt.leave)();
            }
            Ok(left)
        };
        let (mono, tracks) = (wanted.mono, (&heard[..], &lines[..]));
        mixed::write((&path, &pen), tracks, part.range, mono, done, &mut block_done)?;
        if left {
            return Ok(Attempted::Interrupted);
        }
    }
    progress.end();
    let carried = desk.gathered.finish(&library.archive)?;
    Ok(Attempted::Whole(Box::new(Written { reading, carried, recording, times: written })))
}

/// After each record: at the place that the attempt before came to, and where it is time to make sure
/// of what is done, or to leave.
fn after(
    desk: &mut Desk<'_>,
    (pen, before): (&Pen, Records),
    dir: &Path,
    unfinished: &mut Unfinished,
    progress: &mut Progress,
    interrupt: &Interrupt<'_>,
) -> io::Result<()> {
    if pen.is_quiet() && desk.records.count == before.count {
        if desk.records != before {
            desk.ended = Some(Ended::Changed);
            return Ok(());
        }
        desk.flush(false)?;
        pen.hush(false);
        return Ok(());
    }
    let asked = (interrupt.asked)(desk.records.count);
    let looks = desk.records.count.is_multiple_of(LOOK);
    if asked || (looks && progress.is_checkpoint_due()) {
        // What an attempt before has made sure of stays so.
        if !pen.is_quiet() {
            desk.flush(true)?;
            unfinished.records = desk.records;
            unfinished.save(dir)?;
        }
        if asked {
            (interrupt.leave)();
            desk.ended = Some(Ended::Interrupted);
        }
    }
    Ok(())
}

/// A line of an export.
pub(super) struct LineOf<'a> {
    pub(super) description: &'a StreamDescription,
    /// Its label, or `mN`.
    pub(super) label: String,
    /// In the order of m-lines.
    pub(super) place: usize,
    /// The name that its files have in an export of everything, too.
    pub(super) stem: String,
}

/// The lines that are wanted.
pub(super) fn lines_of<'a>(rs: &'a RsEntry, part: &Part) -> Vec<LineOf<'a>> {
    let mut streams: Vec<_> = rs.streams.values().map(|entry| &entry.description).collect();
    streams.sort_by_key(|description| (description.line, description.stream));
    let mut names = Names::default();
    let mut lines = Vec::new();
    for (place, description) in streams.into_iter().enumerate() {
        let stem = names.stem(description.label.as_deref(), description.line);
        let unnamed = || format!("m{}", u32::from(description.line) + 1);
        let label = description.label.clone().unwrap_or_else(unnamed);
        let is_asked_for = part.labels.is_empty() || part.labels.contains(&label);
        if is_asked_for && part.has_line(description.label.as_deref()) {
            lines.push(LineOf { description, label, place, stem });
        }
    }
    lines
}

/// Where the lines lie in time, and what of them the range is.
fn survey(
    library: &Library<impl Disk + Clone>,
    rs: &RsEntry,
    part: &Part,
    lines: &[LineOf<'_>],
) -> Result<BTreeMap<StreamId, (Cut, TimeLine)>, Failure> {
    let mut surveys: BTreeMap<StreamId, Survey<'_>> = lines
        .iter()
        .map(|line| line.description)
        .filter_map(|description| Some((description.stream, Survey::new(description)?)))
        .collect();
    let streams: BTreeSet<StreamId> = surveys.keys().copied().collect();
    // The records that are written afterwards, no others: places are counted from the first of them.
    let (from, to) = part.span().unwrap_or(ALWAYS);
    library.visit_range(rs, Some(&streams), from, to, &mut |seen| {
        let stream = seen.record.meta.source.stream();
        if let Some(survey) = surveys.get_mut(&stream)
            && part.holds(rs, &seen)
        {
            survey.record(&seen);
        }
    })?;
    let timings: Vec<&Timing> = surveys.values().map(|survey| &survey.timing).collect();
    let lines = align(&timings);
    let cuts = surveys.iter().zip(lines);
    Ok(cuts.map(|((stream, one), line)| (*stream, (one.cut(&line, part.range), line))).collect())
}

fn times(
    recording: &Recording,
    streams: &[StreamId],
    heard: &[Heard],
    lines: &[TimeLine],
    range: Range,
) -> Times {
    let mut wavs = Vec::new();
    for ((id, track), line) in streams.iter().zip(heard).zip(lines) {
        let Some(stream) = recording.streams.iter().find(|stream| stream.stream == *id) else {
            continue;
        };
        let header = track.wave.header;
        let samples = Samples {
            origin: track.origin.unwrap_or_default(),
            a_tick: f64::from(header.rate) / f64::from(line.rate),
            frames: header.frames,
        };
        let range = (range.from.unwrap_or(Wall(i64::MIN)), range.to.unwrap_or(Wall(i64::MAX)));
        wavs.push(Wav::new(track.file.clone(), stream, line, (samples, track.over), range));
    }
    let mixed_start = mixed::start(heard, lines, range);
    Times { version: times::VERSION, mixed_start, wavs }
}
