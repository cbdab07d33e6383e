//! The verb: what is asked for, in which order the files are made.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;

use super::attempt::{self, Attempted, Part, Wanted, Written, lines_of};
use super::packets::Form;
use super::plan;
use super::progress::Interrupt;
use super::track::Range;
use super::unfinished::{self, Request, Unfinished};
use crate::base::ids::RsId;
use crate::base::ports::Clock;
use crate::base::time::Wall;
use crate::config::access::Right;
use crate::host::clock::SystemClock;
use crate::host::exported::{files, sizes};
use crate::shell::access::{Wish, ask_for_ourselves};
use crate::shell::cmd::store::{StoreArgs, named, salt};
use crate::shell::cmd::{remote, show_session};
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::reading::{self, Read};
use crate::shell::when::{Said, SaidArgs};
use crate::store::audit::action;
use crate::store::catalog::{RsEntry, session_span};
use crate::store::evidence::Keys;
use crate::store::export::manifest::{self, Content, Manifest, hex};
use crate::store::export::pack::{self, Pack};

/// Export a recording: audio or packets, metadata, ledger and proof, verifiable offline.
#[derive(clap::Args)]
pub struct Args {
    /// Recording id
    #[arg(value_name = "ID")]
    id: String,
    /// Folder to write to; made, or there and empty
    #[arg(short = 'o', value_name = "DIR", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// From then on: a time as `search` takes it (RFC 3339, 14:05, 2026-11-30 14:05 Europe/Berlin, -2h), or so
    /// long after its start (+1:30, +90s)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Up to then; of a day, to its end
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Only this Communication Session: while it ran, the lines that carried it
    #[arg(long, value_name = "SESSION_ID")]
    session: Option<String>,
    /// Only the line of this label; may be given again
    #[arg(long = "stream", value_name = "LABEL")]
    streams: Vec<String>,
    /// All lines in one channel of the mix
    #[arg(long)]
    mono: bool,
    /// Let the digits of telephone-event packets be heard in the WAVs
    #[arg(long)]
    tones: bool,
    /// Add a page with players, a plain text and the public key: it opens on any PC
    #[arg(long)]
    pack: bool,
    /// Go on with the export in DIR that was broken off
    #[arg(long)]
    resume: bool,
    /// What the streams become
    #[arg(long, value_enum, default_value = "wav")]
    format: Format,
    /// Why, for the audit trail; `access.reason` may ask for it (exit 4 without it)
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    zone: SaidArgs,
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
    // Whoever errs hears so at once, and from us.
    args.zone.range(&args.from, &args.to)?;
    match args.store.shut() {
        Some(dir) => by_server(&args, &dir),
        None => run_until(args, &Interrupt::by_user()),
    }
}

/// From the store's files.
pub(super) fn run_until(args: Args, interrupt: &Interrupt<'_>) -> Result<Exit, Failure> {
    let store = args.store.find()?;
    let library = store.library_of_part()?.for_proofs();
    let rs = &named(&library, &args.id, &store.dir)?;
    let range = args.range(rs.start)?;
    let part = part(&args, rs, range)?;
    let keys = store.keys()?;
    let salt = salt(&keys, rs).ok_or_else(|| {
        Failure::new(Exit::Io, "the machine key does not open this recording's salt")
    })?;
    let signing = store.signing_key()?;
    let lines = lines_of(rs, &part);
    let known = |label: &str| lines.iter().any(|line| line.label == *label);
    if let Some(label) = args.streams.iter().find(|label| !known(label)) {
        let why = format!("{}: no line in it has the label {label}", args.id);
        return Err(Failure::new(Exit::NotFound, why));
    }
    if lines.is_empty()
        && let Some(session) = &args.session
    {
        let why = format!("{}: no recorded line carried the session {session}", args.id);
        return Err(Failure::new(Exit::NotFound, why));
    }
    let now = SystemClock.map().wall;
    let end = rs.end.unwrap_or(now);
    if range.from.is_some_and(|from| from >= end) || range.to.is_some_and(|to| to <= rs.start) {
        let why = format!("recording {} ran from {} to {end}", rs.id, rs.start);
        return Err(Failure::new(Exit::NotFound, why));
    }
    let (form, mono, tones) = (args.form(), args.mono, args.tones);
    let wanted = Wanted { rs, part: &part, lines: &lines, form, mono, tones };
    if args.dry_run {
        // Who may see what there is may know how much it is.
        ask_for_ourselves(&store.dir, Right::See, look(rs.id))?;
        let settled = library.settled(rs.id)?;
        plan::say(&wanted, settled.as_ref(), now, &mut io::stdout().lock())?;
        return Ok(Exit::Yes);
    }
    let out = args.out()?;
    let _own = unfinished::lock(out)?;
    let mut unfinished = Unfinished::open(out, args.request(rs.id, range), args.resume, now)?;
    ask_for_ourselves(&store.dir, Right::Hear, wish(&args, rs.id, range))?;
    // What breaks it off is mostly a disk that is full.
    let broken = |failure: Failure| Failure {
        error: failure.error.context(format!(
            "{}: broken off; the same command with --resume goes on",
            out.display()
        )),
        ..failure
    };
    unfinished.save(out).map_err(|error| broken(error.into()))?;
    let attempted = loop {
        let attempt = attempt::run(&library, &wanted, out, &mut unfinished, interrupt);
        let attempt = attempt.map_err(|failure| match failure.exit {
            Exit::Io => broken(failure),
            _ => failure,
        })?;
        if let Attempted::Changed = attempt {
            eprintln!("floortape: what is stored is not what it was: begun anew");
            unfinished.begin_anew(out)?;
            continue;
        }
        break attempt;
    };
    let Attempted::Whole(written) = attempted else { return Ok(Exit::Interrupted) };
    let Written { reading, carried, recording, times } = *written;
    metadata(rs, out)?;
    let keys = store.key_statements()?;
    if args.pack {
        let own = signing.public_key();
        let first = Keys::of(&keys).map_or(own, |keys| keys.first());
        let range = (part.range.from, part.range.to);
        let created = unfinished.created;
        pack(
            out,
            &Pack {
                recording: &recording,
                times: &times,
                files: &[],
                created,
                range,
                keys: (first, own),
            },
        )?;
    }
    // An attempt may have ended behind its manifest.
    Unfinished::clear(out, manifest::FILE)?;
    let ours = |path: &str| !path.starts_with(unfinished::FILE);
    let files = files(out)?.into_iter().filter(|file| ours(&file.path)).collect();
    let content = Content {
        version: manifest::VERSION,
        software: concat!("floortape ", env!("CARGO_PKG_VERSION")).to_owned(),
        recording: rs.id,
        created: unfinished.created,
        from: part.range.from,
        to: part.range.to,
        session: args.session.clone(),
        files,
        salt: hex(&salt),
        segments: carried.segments,
        unproven: carried.unproven,
        old: Vec::new(),
        keys,
        public_key: hex(&signing.public_key()),
    };
    let manifest = Manifest::sign(content, &signing);
    let mut file = BufWriter::new(File::create(out.join(manifest::FILE))?);
    manifest.emit(&mut file)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?;
    Unfinished::done(out)?;
    list(out)?;
    for line in lines.iter().map(|line| line.description.stream) {
        let of = recording.streams.iter().find(|stream| stream.stream == line);
        if let Some((stream, words)) = of.and_then(|of| Some((of, of.refused_words()?))) {
            eprintln!("floortape: line {}: {words}", stream.label);
        }
    }
    for wav in &times.wavs {
        if let Some(words) = wav.overlap_words() {
            eprintln!("floortape: line {}: {words}", wav.label);
        }
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
    let lost = reading.losses.iter().filter(|loss| reading.may_miss(rs, loss));
    let lost: Vec<_> = lost.filter(|loss| !damaged.contains(&&*loss.why)).collect();
    for loss in &lost {
        eprintln!("floortape: stored, lost and not exported: {}", loss.why);
    }
    Ok(if reading.damaged.is_empty() && lost.is_empty() { Exit::Yes } else { Exit::No })
}

/// The same by way of the server.
fn by_server(args: &Args, dir: &Path) -> Result<Exit, Failure> {
    if args.resume {
        let why = "the server makes this export, and none that was broken off is kept";
        return Err(Failure::new(Exit::Usage, why));
    }
    let Said { from, to } = args.zone.range(&args.from, &args.to)?;
    let read = Read::Export {
        id: remote::id(&args.id)?,
        from,
        to,
        session: args.session.clone(),
        streams: args.streams.clone(),
        mono: args.mono,
        pack: args.pack,
        tones: args.tones,
        dry_run: args.dry_run,
        format: match args.format {
            Format::Wav => reading::Format::Wav,
            Format::Rtp => reading::Format::Rtp,
            Format::Pcapng => reading::Format::Pcapng,
        },
        reason: args.reason.clone(),
    };
    if args.dry_run {
        return remote::here(dir, &read);
    }
    let out = args.out()?;
    let is_ours = !out.exists();
    make_empty(out)?;
    let exit = remote::export_instead(dir, &read, out);
    // What was refused leaves no folder; one that holds anything stays.
    if is_ours && !matches!(exit, Ok(Exit::Yes | Exit::No)) {
        let _ = fs::remove_dir(out);
    }
    let exit = exit?;
    if !out.is_dir() {
        return Ok(exit);
    }
    list(out)?;
    Ok(exit)
}

/// Says what was written.
fn list(dir: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (path, bytes) in sizes(dir)? {
        writeln!(out, "{bytes:>12}  {}", dir.join(&path).display())?;
    }
    Ok(())
}

impl Args {
    fn out(&self) -> Result<&Path, Failure> {
        self.out.as_deref().ok_or_else(|| Failure::new(Exit::Usage, "-o DIR is missing"))
    }

    fn form(&self) -> Option<Form> {
        match self.format {
            Format::Wav => None,
            Format::Rtp => Some(Form::Rtpdump),
            Format::Pcapng => Some(Form::Pcapng),
        }
    }

    /// The range that is asked for. Where a time moves with the clock, an export that goes on has the one that
    /// it began with.
    fn range(&self, start: Wall) -> Result<Range, Failure> {
        let begun = self.out.as_deref().filter(|_| self.resume).and_then(unfinished::begun);
        if let Some(begun) = begun.filter(|begun| begun.said == self.said()) {
            return Ok(Range { from: begun.from, to: begun.to });
        }
        let (from, to) = self.zone.range(&self.from, &self.to)?.of(start)?;
        Ok(Range { from, to })
    }

    /// The times in the words in which they are asked for.
    fn said(&self) -> Option<[Option<String>; 3]> {
        let said = [self.from.clone(), self.to.clone(), self.zone.tz.clone()];
        said.iter().any(Option::is_some).then_some(said)
    }

    fn request(&self, recording: RsId, range: Range) -> Request {
        let format = self.format.to_possible_value();
        Request {
            recording,
            from: range.from,
            to: range.to,
            said: self.said(),
            session: self.session.clone(),
            streams: self.streams.clone(),
            format: format.map_or_else(String::new, |value| value.get_name().to_owned()),
            mono: self.mono,
            pack: self.pack,
            tones: self.tones,
        }
    }
}

/// What the audit trail says of a look at what it would be.
fn look(rs: RsId) -> Wish {
    Wish::new(action::READ, rs.to_string()).with("verb", Some("export --dry-run".to_owned()))
}

/// What the audit trail says of it.
fn wish(args: &Args, rs: RsId, range: Range) -> Wish {
    let format = args.format.to_possible_value().map(|value| value.get_name().to_owned());
    let folder = args
        .out
        .as_ref()
        .map(|out| std::path::absolute(out).unwrap_or_else(|_| out.clone()).display().to_string());
    Wish::new(action::EXPORT, rs.to_string())
        .because(args.reason.clone())
        .with("format", format)
        .with("from", range.from.map(|from| from.to_string()))
        .with("to", range.to.map(|to| to.to_string()))
        .with("session", args.session.clone())
        .with("streams", (!args.streams.is_empty()).then(|| args.streams.join(", ")))
        .with("folder", folder)
}

fn part(args: &Args, rs: &RsEntry, asked: Range) -> Result<Part, Failure> {
    let Some(session) = &args.session else {
        return Ok(Part { range: asked, session: None, labels: args.streams.clone() });
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
    Ok(Part { range, session: Some(span), labels: args.streams.clone() })
}

fn make_empty(dir: &Path) -> Result<(), Failure> {
    let named = |error: io::Error| Failure::new(Exit::Io, format!("{}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(named)?;
    if fs::read_dir(dir).map_err(named)?.next().is_some() {
        return Err(Failure::new(Exit::Usage, format!("{} is not empty", dir.display())));
    }
    Ok(())
}

/// Adds what opens on any PC. `files` of `pack` are found here.
fn pack(dir: &Path, pack: &Pack<'_>) -> io::Result<()> {
    for name in [pack::HTML, pack::TEXT, pack::KEY_HEX, pack::KEY_PEM, manifest::FILE] {
        Unfinished::clear(dir, name)?;
    }
    let files: Vec<String> = sizes(dir)?
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| !path.starts_with(unfinished::FILE))
        .collect();
    let pack = Pack { files: &files, ..*pack };
    fs::write(dir.join(pack::HTML), pack.html())?;
    fs::write(dir.join(pack::TEXT), pack.text())?;
    fs::write(dir.join(pack::KEY_HEX), pack::key_hex(&pack.keys.0))?;
    fs::write(dir.join(pack::KEY_PEM), pack::key_pem(&pack.keys.0))
}

fn metadata(rs: &RsEntry, dir: &Path) -> io::Result<()> {
    let bodies: Vec<_> = rs.bodies.values().filter(|body| body.is_metadata()).collect();
    if !bodies.is_empty() {
        fs::create_dir_all(dir.join("metadata"))?;
    }
    for (number, body) in bodies.iter().enumerate() {
        fs::write(dir.join("metadata").join(format!("{:03}.xml", number + 1)), &body.bytes)?;
    }
    Ok(())
}
