//! `floortape rs`: pause, resume and stop a recording that runs.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::store::{Store, StoreArgs, named};
use crate::base::ids::RsId;
use crate::plane::control::{Outcome, Verb};
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::verbs;

/// A recording in which something else is under way is asked again for so long.
const BUSY_WAIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// Control a recording that runs: pause, resume or stop it.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Store nothing of it from now on, whatever its SRC sends (exit 0: so it is, and the journal has it)
    Pause(Named),
    /// Store it again (exit 4: its SRC does not send)
    Resume(Named),
    /// End it: BYE with a reason
    Stop {
        #[command(flatten)]
        named: Named,
        /// Told to the SRC and kept with the recording
        #[arg(long, default_value = "stopped by the operator")]
        reason: String,
    },
}

#[derive(clap::Args)]
struct Named {
    /// Recording id
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    match args.what {
        What::Pause(named) => ask(&named, |rs| Verb::Pause { rs }),
        What::Resume(named) => ask(&named, |rs| Verb::Resume { rs }),
        What::Stop { named, reason } => {
            // It goes into a quoted string of a SIP header.
            if reason.len() > 200
                || reason.contains(['"', '\\'])
                || reason.contains(char::is_control)
            {
                let why = "--reason: at most 200 bytes without quotes, backslashes and line ends";
                return Err(Failure::new(Exit::Usage, why.to_owned()));
            }
            ask(&named, |rs| Verb::Stop { rs, reason: reason.clone() })
        }
    }
}

fn ask(args: &Named, verb: impl Fn(RsId) -> Verb) -> Result<Exit, Failure> {
    let store: Store = args.store.find()?;
    let rs = named(&store.library()?, &args.id, &store.dir)?;
    let verb = verb(rs.id);
    let deadline = Instant::now() + BUSY_WAIT;
    loop {
        let outcome = verbs::ask(&store.dir, &verb).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset => {
                let why = format!("no server runs on {}: {error}", store.dir.display());
                Failure::new(Exit::Unreachable, why)
            }
            io::ErrorKind::PermissionDenied => Failure::new(Exit::Refused, error.to_string()),
            _ => error.into(),
        })?;
        return match outcome {
            Outcome::Done => Ok(Exit::Yes),
            Outcome::Unknown => {
                Err(Failure::new(Exit::NotFound, format!("{} is not running", rs.id)))
            }
            Outcome::Busy if Instant::now() < deadline => {
                sleep(PAUSE);
                continue;
            }
            Outcome::Busy => {
                let why = format!("{}: another change is under way", rs.id);
                Err(Failure::new(Exit::TryAgain, why))
            }
            Outcome::Refused(why) => Err(Failure::new(Exit::Refused, format!("{}: {why}", rs.id))),
            Outcome::Failed(why) => Err(Failure::new(Exit::TryAgain, format!("{}: {why}", rs.id))),
        };
    }
}
