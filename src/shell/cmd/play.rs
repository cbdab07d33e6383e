//! `floortape play`: what was recorded, to whoever listens. A window of time after the other is read, so that
//! the first second is heard at once, however long the rest is.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::lines_of::lines_of;
use super::remote;
use super::store::{StoreArgs, named};
use super::tap::live_header;
use crate::base::ids::{RsId, StreamId};
use crate::base::ports::Clock;
use crate::base::time::Wall;
use crate::config::access::Right;
use crate::host::clock::SystemClock;
use crate::host::spare::StoreDisk;
use crate::shell::access::{Wish, ask_for_ourselves};
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::reading::Read;
use crate::shell::when::{Said, SaidArgs};
use crate::store::archive::Damaged;
use crate::store::audit::action;
use crate::store::catalog::{Library, RsEntry};
use crate::store::query::behind_start;
use crate::store::record::RecordMeta;
use crate::store::tap::{Happening, Line, Timeline};

/// The first window, and how long they become: the first is heard at once, and of the later ones few
/// extents are read twice.
const WINDOW_NS: i64 = 5_000_000_000;
const WINDOW_NS_MAX: i64 = 300_000_000_000;
/// Packets that arrive so much earlier than they are heard belong to a range as well.
const MARGIN_NS: i64 = 1_000_000_000;

/// Play a recording: to the sound device where there is one, else a WAV to standard output
///
/// One line is mono, two are left and right; more are mixed to one for a player, and have a channel each in
/// the WAV. Of a recording that goes on, what is on disk is played; `floortape tap` goes on with it.
#[derive(clap::Args)]
pub struct Args {
    /// Recording id
    #[arg(value_name = "ID")]
    id: String,
    /// From so long after its start on (12:30, 1:02:03, 90s), or from a time on as --from takes it, with its day
    #[arg(long, value_name = "TIME", conflicts_with = "from", allow_hyphen_values = true)]
    at: Option<String>,
    /// From then on: a time as `search` takes it (RFC 3339, 14:05, 2026-11-30 14:05 Europe/Berlin, -2h), or so
    /// long after its start (+1:30, +90s)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Up to then; of a day, to its end
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Only the line of that label; may be given several times
    #[arg(long, value_name = "LABEL")]
    stream: Vec<String>,
    /// Only lines on which somebody of that address or name is heard
    #[arg(long, value_name = "TEXT")]
    party: Option<String>,
    /// Why, for the audit trail; `access.reason` may ask for it (exit 4 without it)
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    zone: SaidArgs,
    #[command(flatten)]
    store: StoreArgs,
}

impl Args {
    /// The range that is asked for. What `--at` has as a bare length is after the start: `12:30` is no time of day
    /// there.
    fn range(&self) -> Result<Said, Failure> {
        let Some(at) = &self.at else { return self.zone.range(&self.from, &self.to) };
        let from = match behind_start(at.trim()) {
            Some(_) => format!("+{}", at.trim()),
            None => at.clone(),
        };
        self.zone.range_by(("at", &Some(from)), &self.to)
    }
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    // Whoever errs hears so at once, and from us.
    let said = args.range()?;
    if let Some(dir) = args.store.shut() {
        return by_server(args, said, &dir);
    }
    let store = args.store.find()?;
    let library = store.library_of_part()?;
    let rs = named(&library, &args.id, &store.dir)?;
    let heard = Heard::of(&args, said, &rs)?;
    ask_for_ourselves(&store.dir, Right::Hear, wish(&args, &heard, rs.id))?;
    let mut player = Player::find()?;
    let mixed = player.is_some() && heard.lines.len() > 2;
    let done = match &mut player {
        Some(player) => play(&library, &rs, heard, mixed, &mut player.input()),
        None => play(&library, &rs, heard, mixed, &mut io::stdout().lock()),
    };
    end(player, done.map(|unread| told(&unread)))
}

/// Says what was silent though it is, or was, in the store.
fn told(unread: &[Damaged]) -> Exit {
    for damage in unread {
        let (path, offset) = (damage.path.display(), damage.offset);
        eprintln!("floortape: {path} at {offset}: not played: {}", damage.why);
    }
    if unread.is_empty() { Exit::Yes } else { Exit::No }
}

fn by_server(args: Args, said: Said, dir: &Path) -> Result<Exit, Failure> {
    let read = Read::Play {
        id: remote::id(&args.id)?,
        from: said.from,
        to: said.to,
        stream: args.stream,
        party: args.party,
        reason: args.reason,
    };
    let player = Player::find()?;
    let done = match &player {
        Some(player) => remote::read_to(dir, &read, player.fd()),
        None => remote::read_to(dir, &read, io::stdout().as_fd()),
    };
    end(player, done)
}

/// What the audit trail says of it.
fn wish(args: &Args, heard: &Heard, rs: RsId) -> Wish {
    Wish::new(action::LISTEN, rs.to_string())
        .because(args.reason.clone())
        .with("verb", Some("play"))
        .with("from", heard.from.map(|from| from.to_string()))
        .with("to", heard.to.map(|to| to.to_string()))
        .with("stream", (!args.stream.is_empty()).then(|| args.stream.clone()))
        .with("party", args.party.clone())
}

/// What is to be heard.
struct Heard {
    lines: Vec<Line>,
    /// `None`: from the first sample on.
    from: Option<Wall>,
    to: Option<Wall>,
    /// When the recording ran, as far as it did.
    span: (Wall, Wall),
}

impl Heard {
    fn of(args: &Args, said: Said, rs: &RsEntry) -> Result<Self, Failure> {
        let chosen = lines_of(rs, &args.stream, args.party.as_deref())?;
        let mut streams: Vec<_> = rs.streams.values().map(|one| &one.description).collect();
        streams.retain(|one| chosen.contains(&one.stream));
        streams.sort_by_key(|one| (one.line, one.stream));
        let lines: Vec<Line> = streams.into_iter().filter_map(Line::new).collect();
        if lines.is_empty() {
            let why = format!("recording {}: nothing of it can be played; export it", rs.id);
            return Err(Failure::new(Exit::NotFound, why));
        }
        let (from, to) = said.of(rs.start)?;
        let end = rs.end.unwrap_or_else(|| SystemClock.map().wall);
        if from.is_some_and(|from| from >= end) || to.is_some_and(|to| to <= rs.start) {
            let why = format!("recording {} ran from {} to {end}", rs.id, rs.start);
            return Err(Failure::new(Exit::NotFound, why));
        }
        Ok(Heard { lines, from, to, span: (rs.start, end) })
    }
}

/// A record of one of the lines.
struct Found {
    wall: Wall,
    meta: RecordMeta,
    payload: Vec<u8>,
}

/// Writes a WAV of it to `out`; what of it could not be read comes back.
fn play(
    library: &Library<StoreDisk>,
    rs: &RsEntry,
    heard: Heard,
    mixed: bool,
    out: &mut impl Write,
) -> Result<Vec<Damaged>, Failure> {
    let Heard { lines, from, to, span } = heard;
    let rates: Vec<u32> = lines.iter().map(Line::rate).collect();
    let rate = rates.iter().copied().max().unwrap_or(8_000);
    let channels = if mixed { 1 } else { rates.len() };
    out.write_all(&live_header(channels as u16, rate))?;
    let mut places: BTreeMap<StreamId, (usize, Line)> = BTreeMap::new();
    for (place, line) in lines.into_iter().enumerate() {
        places.insert(line.description().stream, (place, line));
    }
    let streams: BTreeSet<StreamId> = places.keys().copied().collect();
    let ranged = |start| {
        let timeline = Timeline::new(start, 0, &rates);
        to.map_or(timeline, |to| Timeline::new(start, 0, &rates).until(to))
    };
    let mut timeline = from.map(ranged);
    let end = to.map_or(span.1, |to| to.min(span.1));
    let (mut at, mut window) = (from.unwrap_or(span.0).max(span.0), WINDOW_NS);
    let asked = (at, end);
    // An extent may lie in several windows.
    let mut skipped: BTreeMap<(PathBuf, u64), Damaged> = BTreeMap::new();
    let mut newest = at;
    while at.0 < end.0 + MARGIN_NS {
        let until = Wall((at.0 + window).min(end.0 + MARGIN_NS));
        // What is written meanwhile is there in the next window: records are looked for anew each time.
        let (found, damaged) = window_of(library, rs, &streams, (at, until))?;
        let damaged = damaged.into_iter();
        skipped.extend(damaged.map(|damage| ((damage.path.clone(), damage.offset), damage)));
        for Found { wall, meta, payload } in found {
            let Some((place, line)) = places.get_mut(&meta.source.stream()) else { continue };
            let timeline = timeline.get_or_insert_with(|| ranged(wall));
            newest = newest.max(wall);
            line.record(&meta, &payload, wall, &mut |one| {
                if let Happening::Audio { at, source, position, samples } = one {
                    timeline.put(*place, at, (source, position), samples);
                }
            });
        }
        if let Some(timeline) = &mut timeline {
            let mut samples = Vec::new();
            // Silence is where RTP time has it, or up to the end that was asked for.
            timeline.render(newest, &mut samples);
            put(&samples, rates.len(), mixed, out)?;
        }
        (at, window) = (until, (window * 2).min(WINDOW_NS_MAX));
    }
    let unread = library.unread(rs, asked, skipped.into_values().collect())?;
    let Some(mut timeline) = timeline else {
        told(&unread);
        let why = format!("recording {}: nothing of it is there to be played", rs.id);
        return Err(Failure::new(Exit::NotFound, why));
    };
    let mut samples = Vec::new();
    timeline.flush(&mut samples);
    put(&samples, rates.len(), mixed, out)?;
    out.flush()?;
    Ok(unread)
}

/// Records that arrived in a window of time, as they came, and what could not be read of it.
fn window_of(
    library: &Library<StoreDisk>,
    rs: &RsEntry,
    streams: &BTreeSet<StreamId>,
    (from, to): (Wall, Wall),
) -> Result<(Vec<Found>, Vec<Damaged>), Failure> {
    let mut found = Vec::new();
    let visit = library.visit_range(rs, Some(streams), from, to, &mut |seen| {
        let wall = seen.wall();
        if (from..to).contains(&wall) {
            let (meta, payload) = (seen.record.meta, seen.record.payload.to_vec());
            found.push(Found { wall, meta, payload });
        }
    })?;
    found.sort_by_key(|one| one.wall);
    Ok((found, visit.damaged))
}

fn put(samples: &[i16], channels: usize, mixed: bool, out: &mut impl Write) -> io::Result<()> {
    let bytes: Vec<u8> = if mixed {
        let sum = |frame: &[i16]| frame.iter().map(|one| i32::from(*one)).sum::<i32>();
        let clipped = |sum: i32| sum.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        samples.chunks_exact(channels).flat_map(|one| clipped(sum(one)).to_le_bytes()).collect()
    } else {
        samples.iter().flat_map(|one| one.to_le_bytes()).collect()
    };
    out.write_all(&bytes)
}

/// A program that plays a WAV from its standard input.
struct Player(Child);

impl Player {
    /// The first that is there, where a person at a terminal would hear it.
    fn find() -> Result<Option<Self>, Failure> {
        const PLAYERS: [(&str, &[&str]); 3] =
            [("pw-play", &["-"]), ("paplay", &["/dev/stdin"]), ("aplay", &["-q", "-"])];
        if !io::stdout().is_terminal() {
            return Ok(None);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = PLAYERS.iter().find_map(|(name, words)| Some((in_path(&path, name)?, words)));
        let Some((program, words)) = there else {
            let why = "no sound device here (pw-play, paplay or aplay): send the WAV on, \
                       `floortape play ID > call.wav`";
            return Err(Failure::new(Exit::NotFound, why));
        };
        let player = Command::new(program).args(*words).stdin(Stdio::piped()).spawn()?;
        Ok(Some(Player(player)))
    }

    fn input(&mut self) -> io::BufWriter<&mut std::process::ChildStdin> {
        io::BufWriter::new(self.0.stdin.as_mut().expect("piped, and not taken"))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.stdin.as_ref().expect("piped, and not taken").as_fd()
    }
}

fn in_path(path: &OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Waits until all of it was heard.
fn end(player: Option<Player>, done: Result<Exit, Failure>) -> Result<Exit, Failure> {
    let Some(Player(mut player)) = player else { return done };
    drop(player.stdin.take());
    let status = player.wait()?;
    let exit = done?;
    if exit == Exit::Yes && !status.success() {
        return Err(Failure::new(Exit::Io, format!("the player ended by {status}")));
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::base::ids::{Index, SourceId, Ssrc};
    use crate::base::time::Mono;
    use crate::shell::cmd::fixture::{Fixture, MS, RS, description};
    use crate::shell::cmd::rebuild;
    use crate::store::record::RecordKind;
    use crate::wire::rtp::Fields;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[derive(clap::Parser)]
    struct Rebuilt {
        #[command(flatten)]
        args: rebuild::Args,
    }

    /// What could not be read of it; `None`: there was nothing to be played.
    fn unread(fixture: &Fixture, more: &[&str]) -> Option<Vec<Damaged>> {
        let (id, store) = (RS.to_string(), fixture.store().display().to_string());
        let words = [&["play", &id, "--store", &store], more].concat();
        let args = Line::try_parse_from(words).expect("a command line").args;
        let store = args.store.find().expect("there");
        let library = store.library().expect("readable");
        let rs = named(&library, &args.id, &store.dir).expect("there");
        let heard = Heard::of(&args, args.range().expect("no times"), &rs).expect("audio");
        play(&library, &rs, heard, false, &mut Vec::new()).ok()
    }

    #[test]
    fn what_is_damaged_or_gone_is_told_and_is_no_yes() {
        let fixture = Fixture::new("play-damaged");
        let store = fixture.store().display().to_string();
        let rebuilt =
            Rebuilt::try_parse_from(["rebuild", "--store", &store]).expect("a command line");
        assert!(rebuild::run(rebuilt.args).is_ok());
        let whole = unread(&fixture, &[]).expect("played");
        assert!(whole.is_empty(), "{whole:?}");
        assert_eq!(told(&whole), Exit::Yes);
        let mut bytes = std::fs::read(fixture.segment()).expect("there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(fixture.segment(), bytes).expect("ours");
        let damaged = unread(&fixture, &[]).expect("the other line is played");
        assert!(damaged[0].why.contains("damaged"), "{damaged:?}");
        assert_eq!((damaged.len(), told(&damaged)), (1, Exit::No));
        std::fs::remove_file(fixture.segment()).expect("ours");
        assert!(unread(&fixture, &[]).is_none());
    }

    #[test]
    fn two_ssrcs_that_talk_at_once_are_both_heard() {
        let stream = description(0).stream;
        let fixture = Fixture::of("play-together", 5_000, &|ring| {
            for index in 0..100 {
                for (source, octet) in [(1_u16, 0x8f), (2, 0x9f)] {
                    let fields = Fields {
                        marker: false,
                        payload_type: 0,
                        seq: Index(index).seq(),
                        timestamp: 7_000 * u32::from(source) + (index * 160) as u32,
                        ssrc: Ssrc(u32::from(source)),
                    };
                    let packet = [&fields.emit()[..], &[octet; 160]].concat();
                    // The second begins a second after the first, and goes on for as much longer.
                    let at = 1_000 + index * 20 + u64::from(source - 1) * 1_000;
                    let source = SourceId::new(stream, source);
                    ring.put_at(RecordKind::Rtp, source, index, Mono(at * MS), &packet);
                }
            }
        });
        let (id, store) = (RS.to_string(), fixture.store().display().to_string());
        let words = ["play", &id, "--store", &store, "--stream", "../a"];
        let args = Line::try_parse_from(words).expect("a command line").args;
        let store = args.store.find().expect("there");
        let library = store.library().expect("readable");
        let rs = named(&library, &args.id, &store.dir).expect("there");
        let heard = Heard::of(&args, args.range().expect("no times"), &rs).expect("audio");
        let mut out = Vec::new();
        let unread = play(&library, &rs, heard, false, &mut out).expect("played");
        assert!(unread.is_empty());
        let mut runs: Vec<(i16, usize)> = Vec::new();
        for one in out[44..].chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])) {
            match runs.last_mut() {
                Some((level, count)) if *level == one => *count += 1,
                _ => runs.push((one, 1)),
            }
        }
        // Behind the end of it silence may follow.
        assert_eq!(runs[..3], [(16_764, 8_000), (16_764 + 8_316, 8_000), (8_316, 8_000)]);
    }

    #[test]
    fn a_place_is_an_instant_or_so_far_behind_the_start() {
        let said = |words: &[&str]| {
            let words = [&["play", "ID", "--tz=Europe/Berlin"], words].concat();
            Line::try_parse_from(words).expect("a command line").args.range()
        };
        let from = |words: &[&str]| said(words).map(|said| said.from.map(|from| from.to_string()));
        let behind = |text| from(&["--at", text]).ok().flatten();
        assert_eq!(
            [behind("90s"), behind("12:30"), behind("1:02:03"), behind("+12:30")],
            ["+0:01:30", "+0:12:30", "+1:02:03", "+0:12:30"].map(|text| Some(text.to_owned()))
        );
        assert_eq!(
            behind("2026-11-30 14:05"),
            Some("2026-11-30T13:05:00.000000000Z".to_owned()),
            "with its day it is a time"
        );
        assert_eq!(
            behind("2026-01-01T00:00:00Z"),
            Some("2026-01-01T00:00:00.000000000Z".to_owned())
        );
        let ago = behind("-5s").expect("no flag, though it begins like one");
        assert!(ago.ends_with('Z'), "{ago}");
        for bad in ["", "s", "90", "1:2:3:4", "1:x", "soon", "2026-10-25 02:30"] {
            let why = match from(&["--at", bad]) {
                Err(failure) => failure.error.to_string(),
                Ok(from) => panic!("{bad}: {from:?}"),
            };
            assert!(why.starts_with("--at: ") && why.ends_with('^'), "{bad}: {why}");
        }
        assert!(said(&["--from", "+1:30", "--to", "+1:30"]).is_err(), "nothing lies between");
        assert!(said(&["--from", "+1:30", "--to", "2026-11-30"]).is_ok());
        assert!(said(&["--from", "-2h", "--to", "-1h"]).is_ok());
    }

    #[test]
    fn many_lines_are_mixed_to_one_and_loud_ones_are_cut() {
        let mut out = Vec::new();
        put(&[1, 2, 3, 30_000, 30_000, 0], 3, true, &mut out).expect("a Vec takes all");
        assert_eq!(out, [6_i16, i16::MAX].map(i16::to_le_bytes).concat());
    }
}
