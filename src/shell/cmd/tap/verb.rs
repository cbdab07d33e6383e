//! The verb: a request to the server, which does the rest.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};

use crate::base::ports::Clock;
use crate::base::time::Wall;
use crate::host::clock::SystemClock;
use crate::shell::cmd::remote;
use crate::shell::cmd::store::StoreArgs;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::reading::{Read, Reply, TapFormat};
use crate::shell::serve::verbs;
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
    /// From so long ago on (-30s, -5m, -1h), from an instant (RFC 3339), or from the start (start)
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
    let now = SystemClock.map().wall;
    let from = args.from.as_deref().map(|text| since(text, now)).transpose();
    let dir = args.store.dir()?;
    let read = Read::Tap {
        id: remote::id(&args.id)?,
        from: from.map_err(|why| usage(&format!("--from: {why}")))?,
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

/// `-30s`, an instant, or `start`.
fn since(text: &str, now: Wall) -> Result<Wall, String> {
    let wrong = || format!("{text:?}: expected -30s, -5m, -1h, start, or an RFC 3339 time");
    if text == "start" {
        return Ok(Wall(0));
    }
    let Some(span) = text.strip_prefix('-') else { return text.parse().map_err(|_| wrong()) };
    let unit = span.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => return Err(wrong()),
    };
    let count: u32 = span[..span.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    Ok(Wall(now.0 - i64::from(count) * seconds * 1_000_000_000))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_an_instant_or_so_long_ago() {
        let now = Wall(1_767_225_600_000_000_000);
        let ago = |text| since(text, now).map(|wall| (now.0 - wall.0) / 1_000_000_000);
        assert_eq!((ago("-30s"), ago("-5m"), ago("-2h")), (Ok(30), Ok(300), Ok(7_200)));
        assert_eq!(since("start", now), Ok(Wall(0)));
        assert_eq!(ago("2025-12-31T23:59:59Z"), Ok(1));
        for bad in ["", "-", "30s", "-s", "-30", "-3d", "--1s", "-1é"] {
            assert!(since(bad, now).is_err(), "{bad}");
        }
    }
}
