//! The verb: a request to the server, which does the rest.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};

use crate::shell::cmd::remote;
use crate::shell::cmd::store::StoreArgs;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::reading::{Read, Reply, TapFormat};
use crate::shell::serve::verbs;
use crate::shell::when::SaidArgs;
use crate::store::tap::Mark;

/// A server that is coming back is asked again for so long.
const ABSENT_WAIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// The reader's code where nobody reads of it any more, as shells have it.
const CLOSED_PIPE: u8 = 141;

/// Listen to a recording while it is made: audio to standard output, half a second after it came
///
/// A line each of its own; gaps and pauses are told. It ends with the recording (exit 0), when nobody reads
/// any more, by ^C (130, and it says how to go on from there), or with the server (69). However slowly its
/// output is read, nothing of the recording is lost by that.
#[derive(clap::Args)]
pub struct Args {
    /// Recording id
    #[arg(value_name = "ID")]
    id: String,
    /// From so long ago on (-30s, -5m, -1h), from the start (start), so long after it (+1:30), or from a time on as
    /// `search` takes it (RFC 3339, 14:05, 2026-11-30 14:05 Europe/Berlin); it waits for one to come, and says so
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Only the line of that label; may be given several times
    #[arg(long, value_name = "LABEL")]
    stream: Vec<String>,
    /// Only lines on which somebody of that address or name is heard
    #[arg(long, value_name = "TEXT")]
    party: Option<String>,
    /// wav: a channel a line, for players; raw: 16-bit little-endian samples of one line; jsonl: an object for
    /// each packet, gap and pause
    #[arg(long, value_enum, default_value = "wav")]
    format: Format,
    /// Go on where another tap has ended: what it said at its end, or the `position` of a line of jsonl
    #[arg(long, value_name = "POSITION")]
    resume: Option<String>,
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
    /// One channel a line
    Wav,
    /// Samples of one line
    Raw,
    /// One object a line of text
    Jsonl,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let usage = |why: &str| Failure::new(Exit::Usage, why.to_owned());
    if let Some(text) = &args.resume {
        text.parse::<Mark>().map_err(|error| usage(&format!("--resume: {error}")))?;
        if args.from.is_some() {
            return Err(usage("--from and --resume exclude each other"));
        }
    }
    let from = args.zone.range(&args.from, &None)?.from;
    let dir = args.store.dir()?;
    let read = Read::Tap {
        id: remote::id(&args.id)?,
        from,
        stream: args.stream,
        party: args.party,
        format: match args.format {
            Format::Wav => TapFormat::Wav,
            Format::Raw => TapFormat::Raw,
            Format::Jsonl => TapFormat::Jsonl,
        },
        resume: args.resume,
        reason: args.reason,
    };
    ask(&dir, &read)
}

fn ask(dir: &Path, read: &Read) -> Result<Exit, Failure> {
    let absent = |error: io::Error| {
        let exit = match error.kind() {
            io::ErrorKind::PermissionDenied => Exit::Refused,
            _ => Exit::Unreachable,
        };
        let why = format!(
            "no server runs on {} ({error}); what is recorded is heard by `floortape play`",
            dir.display()
        );
        Failure::new(exit, why)
    };
    let deadline = Instant::now() + ABSENT_WAIT;
    let socket = loop {
        match verbs::connect(dir) {
            Ok(socket) => break socket,
            // Its control has just died; the next one listens in a moment.
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(absent(error)),
        }
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    let (flag, end) = (Arc::clone(&interrupted), socket.try_clone()?);
    ctrlc::set_handler(move || {
        flag.store(true, Ordering::Relaxed);
        // The server sees it, and the reader says how to go on.
        let _ = shutdown(&end, Shutdown::Write);
    })?;
    let (out, errors) = (io::stdout(), io::stderr());
    let reply = verbs::read_over(&socket, read, &[out.as_fd(), errors.as_fd()]);
    let reply = match reply {
        Err(_) if interrupted.load(Ordering::Relaxed) => return Ok(Exit::Interrupted),
        reply => reply.map_err(absent)?,
    };
    match reply {
        Reply::Exited(CLOSED_PIPE) => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        Reply::Exited(code) => {
            let exit = Exit::ALL.into_iter().find(|exit| *exit as u8 == code);
            exit.ok_or_else(|| Failure::new(Exit::Io, format!("the reader ended with {code}")))
        }
        Reply::Missing(why) => Err(Failure::new(Exit::NotFound, why)),
        Reply::Refused(why) => Err(Failure::new(Exit::Refused, format!("refused: {why}"))),
        // Its output stood still, so that it could not say it.
        Reply::Failed(_) if interrupted.load(Ordering::Relaxed) => {
            eprintln!(
                "floortape: interrupted while nobody read: the last `position` read is where to go on"
            );
            Ok(Exit::Interrupted)
        }
        Reply::Failed(why) => Err(Failure::new(Exit::TryAgain, why)),
        Reply::Busy => Err(Failure::new(Exit::TryAgain, "too many tap just now")),
    }
}
