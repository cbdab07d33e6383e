//! The verb: what is asked for, in which order the files are made.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;

use super::mixed;
use super::packets::Form;
use super::proof::Gathered;
use super::text;
use super::track::{Frame, Heard, Range, Track};
use crate::base::ids::{RsId, StreamId};
use crate::base::ports::Clock;
use crate::base::time::Wall;
use crate::config::access::Right;
use crate::host::clock::SystemClock;
use crate::host::exported::files;
use crate::shell::access::{Wish, ask_for_ourselves};
use crate::shell::cmd::show::expiry_words;
use crate::shell::cmd::store::{StoreArgs, named, salt};
use crate::shell::cmd::{remote, show_session};
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::reading::{self, Read};
use crate::store::archive::Seen;
use crate::store::audit::action;
use crate::store::catalog::{RsEntry, SessionSpan, session_span};
use crate::store::event::StreamDescription;
use crate::store::export::manifest::{self, Content, Manifest, hex};
use crate::store::export::name::Names;
use crate::store::record::RecordKind;

/// Export a recording: audio or packets, metadata, ledger and proof, verifiable offline.
#[derive(clap::Args)]
pub struct Args {
    /// Recording id
    #[arg(value_name = "ID")]
    id: String,
    /// Folder to write to; made, or there and empty
    #[arg(short = 'o', value_name = "DIR")]
    out: PathBuf,
    /// From this instant on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    from: Option<Wall>,
    /// Up to this instant (RFC 3339)
    #[arg(long, value_name = "TIME")]
    to: Option<Wall>,
    /// Only this Communication Session: while it ran, the lines that carried it
    #[arg(long, value_name = "SESSION_ID")]
    session: Option<String>,
    /// What the streams become
    #[arg(long, value_enum, default_value = "wav")]
    format: Format,
    /// Why, for the audit trail; `access.reason` may ask for it (exit 4 without it)
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
}

/// Output format.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// One WAV per stream, and a mix; packets where there is no decoder
    Wav,
    /// rtpdump, as rtpplay reads it
    Rtp,
    /// pcapng with decrypted RTP and RTCP
    Pcapng,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from >= to
    {
        return Err(Failure::new(Exit::Usage, "--from must lie before --to"));
    }
    if let Some(dir) = args.store.shut() {
        return by_server(&args, &dir);
    }
    let store = args.store.find()?;
    let library = store.library()?;
    let rs = &named(&library, &args.id, &store.dir)?;
    let part = part(&args, rs)?;
    let keys = store.keys()?;
    let salt = salt(&keys, rs).ok_or_else(|| {
        Failure::new(Exit::Io, "the machine key does not open this recording's salt")
    })?;
    let signing = store.signing_key()?;
    make_empty(&args.out)?;
    ask_for_ourselves(&store.dir, Right::Hear, wish(&args, rs.id))?;

    let now = SystemClock.map().wall;
    let frame = Frame {
        dir: &args.out,
        range: part.range,
        local: rs.dialog.local.ip(),
        span: (rs.start, rs.end.unwrap_or(now)),
    };
    let form = match args.format {
        Format::Wav => None,
        Format::Rtp => Some(Form::Rtpdump),
        Format::Pcapng => Some(Form::Pcapng),
    };
    let stems = stems(rs);
    let mut tracks = tracks(rs, &part, &stems, frame, form)?;
    if tracks.is_empty()
        && let Some(session) = &args.session
    {
        let why = format!("{}: no recorded line carried the session {session}", args.id);
        return Err(Failure::new(Exit::NotFound, why));
    }
    let mut gathered = Gathered::create(&args.out)?;
    let mut failed: Option<io::Error> = None;
    let mut reading = library.read_with(&[rs], &mut |seen| {
        let stream = seen.record.meta.source.stream();
        if let Some((_, track)) = tracks.get_mut(&stream) {
            if !part.holds(rs, seen) {
                return gathered.leave_out(seen);
            }
            gathered.record(seen);
            if failed.is_none() {
                failed = track.record(seen).err();
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let gone = reading.recordings.first().and_then(|one| one.retention.as_ref()?.gone.as_ref());
    if let Some(gone) = gone.filter(|gone| gone.whole) {
        let why = format!("recording {}: {}", rs.id, expiry_words(gone));
        return Err(Failure::new(Exit::NotFound, why));
    }
    let mut in_order: Vec<_> = tracks.into_values().collect();
    in_order.sort_by_key(|(place, _)| *place);
    let mut heard: Vec<Heard> = Vec::new();
    for (_, track) in in_order {
        heard.extend(track.finish()?);
    }
    if form.is_none() {
        mixed::write(&args.out.join("mixed.wav"), &heard)?;
    }
    let recording = reading.recordings.pop().expect("one was asked for");
    if form.is_none() {
        for stream in &recording.streams {
            if let Some(stem) = stems.get(&stream.stream) {
                text::write(&args.out, stem, stream, part.range)?;
            }
        }
    }
    let mut json = serde_json::to_vec_pretty(&recording)?;
    json.push(b'\n');
    fs::write(args.out.join("recording.json"), json)?;
    metadata(rs, &args.out)?;

    let records = gathered.finish(&library.archive)?;
    let content = Content {
        version: manifest::VERSION,
        software: concat!("floortape ", env!("CARGO_PKG_VERSION")).to_owned(),
        recording: rs.id,
        created: now,
        from: part.range.from,
        to: part.range.to,
        session: args.session.clone(),
        files: files(&args.out)?,
        salt: hex(&salt),
        records,
        keys: store.key_statements()?,
        public_key: hex(&signing.public_key()),
    };
    fs::write(args.out.join(manifest::FILE), Manifest::sign(content, &signing).emit())?;
    let mut out = io::stdout().lock();
    for file in files(&args.out)? {
        writeln!(out, "{:>12}  {}", file.bytes, args.out.join(&file.path).display())?;
    }
    let damaged: Vec<&str> = reading.damaged.iter().map(|damage| &*damage.why).collect();
    for damage in &reading.damaged {
        eprintln!(
            "floortape: {} at {}: {} bytes not exported: {}",
            damage.path.display(),
            damage.offset,
            damage.bytes,
            damage.why
        );
    }
    // What a start before has found is told by its events.
    let lost = reading.losses.iter().filter(|loss| rs.was_up(loss.since, loss.until));
    let lost: Vec<_> = lost.filter(|loss| !damaged.contains(&&*loss.why)).collect();
    for loss in &lost {
        eprintln!("floortape: stored, lost and not exported: {}", loss.why);
    }
    Ok(if reading.damaged.is_empty() && lost.is_empty() { Exit::Yes } else { Exit::No })
}

/// The same by way of the server.
fn by_server(args: &Args, dir: &Path) -> Result<Exit, Failure> {
    let read = Read::Export {
        id: remote::id(&args.id)?,
        from: args.from,
        to: args.to,
        session: args.session.clone(),
        format: match args.format {
            Format::Wav => reading::Format::Wav,
            Format::Rtp => reading::Format::Rtp,
            Format::Pcapng => reading::Format::Pcapng,
        },
        reason: args.reason.clone(),
    };
    make_empty(&args.out)?;
    let exit = remote::export_instead(dir, &read, &args.out)?;
    let mut out = io::stdout().lock();
    for file in files(&args.out)? {
        writeln!(out, "{:>12}  {}", file.bytes, args.out.join(&file.path).display())?;
    }
    Ok(exit)
}

/// What the audit trail says of it.
fn wish(args: &Args, rs: RsId) -> Wish {
    let format = args.format.to_possible_value().map(|value| value.get_name().to_owned());
    let folder = std::path::absolute(&args.out).unwrap_or_else(|_| args.out.clone());
    Wish::new(action::EXPORT, rs.to_string())
        .because(args.reason.clone())
        .with("format", format)
        .with("from", args.from.map(|from| from.to_string()))
        .with("to", args.to.map(|to| to.to_string()))
        .with("session", args.session.clone())
        .with("folder", Some(folder.display().to_string()))
}

/// What of a recording is wanted.
struct Part {
    range: Range,
    /// Of this session only.
    session: Option<SessionSpan>,
}

impl Part {
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

fn part(args: &Args, rs: &RsEntry) -> Result<Part, Failure> {
    let asked = Range { from: args.from, to: args.to };
    let Some(session) = &args.session else {
        return Ok(Part { range: asked, session: None });
    };
    let span = session_span(rs, &show_session::ids(session)).ok_or_else(|| {
        let why = format!("{}: no document of it tells of the session {session}", args.id);
        Failure::new(Exit::NotFound, why)
    })?;
    let to = asked.to.into_iter().chain(span.to).min();
    let range = Range { from: asked.from.max(Some(span.from)), to };
    if let (Some(from), Some(to)) = (range.from, range.to)
        && from >= to
    {
        let why = format!("the session {session} did not run between --from and --to");
        return Err(Failure::new(Exit::NotFound, why));
    }
    Ok(Part { range, session: Some(span) })
}

/// The name that the files of each stream have: the same ones whatever part of the recording is wanted.
fn stems(rs: &RsEntry) -> BTreeMap<StreamId, String> {
    let mut names = Names::default();
    in_order(rs)
        .into_iter()
        .map(|own| (own.stream, names.stem(own.label.as_deref(), own.line)))
        .collect()
}

/// Its streams in the order of m-lines.
fn in_order(rs: &RsEntry) -> Vec<&StreamDescription> {
    let mut streams: Vec<_> = rs.streams.values().map(|entry| &entry.description).collect();
    streams.sort_by_key(|description| (description.line, description.stream));
    streams
}

/// The tracks by stream, with their place in the order of m-lines.
fn tracks<'a>(
    rs: &'a RsEntry,
    part: &Part,
    stems: &BTreeMap<StreamId, String>,
    frame: Frame<'a>,
    form: Option<Form>,
) -> io::Result<BTreeMap<StreamId, (usize, Track<'a>)>> {
    let streams = in_order(rs).into_iter().enumerate();
    streams
        .filter(|(_, own)| part.has_line(own.label.as_deref()))
        .map(|(place, own)| {
            let track = Track::new(frame, own, &stems[&own.stream], form)?;
            Ok((own.stream, (place, track)))
        })
        .collect()
}

fn make_empty(dir: &Path) -> Result<(), Failure> {
    let named = |error: io::Error| Failure::new(Exit::Io, format!("{}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(named)?;
    if fs::read_dir(dir).map_err(named)?.next().is_some() {
        return Err(Failure::new(Exit::Usage, format!("{} is not empty", dir.display())));
    }
    Ok(())
}

fn metadata(rs: &RsEntry, dir: &Path) -> io::Result<()> {
    let bodies: Vec<_> = rs.bodies.values().filter(|body| body.is_metadata()).collect();
    if !bodies.is_empty() {
        fs::create_dir(dir.join("metadata"))?;
    }
    for (number, body) in bodies.iter().enumerate() {
        fs::write(dir.join("metadata").join(format!("{:03}.xml", number + 1)), &body.bytes)?;
    }
    Ok(())
}
