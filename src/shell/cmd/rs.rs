//! `floortape rs`: begin a recording by calling its SRC; pause, resume and stop one that runs.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::store::{Store, StoreArgs, named};
use crate::base::ids::RsId;
use crate::plane::control::{Outcome, Verb};
use crate::shell::client::signalling::Target;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::verbs;

/// A recording in which something else is under way is asked again for so long.
const BUSY_WAIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// Begin a recording by calling its SRC, or control one that runs: pause, resume, stop
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Begin one: call an SRC that a rule in `peers` has as its `call`; prints the new id
    Start {
        /// SIP URI, as the configuration has it
        #[arg(value_name = "URI")]
        to: String,
        #[command(flatten)]
        store: StoreArgs,
    },
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
        What::Start { to, store } => {
            let Target { address, transport, .. } =
                Target::parse(&to).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
            let verb = Verb::Start { to: to.clone(), address, transport };
            ask(&store.find()?, &to, &verb)
        }
        What::Pause(args) => ask_of(&args, |rs| Verb::Pause { rs }),
        What::Resume(args) => ask_of(&args, |rs| Verb::Resume { rs }),
        What::Stop { named, reason } => ask_of(&named, |rs| Verb::Stop { rs, reason }),
    }
}

fn ask_of(args: &Named, verb: impl FnOnce(RsId) -> Verb) -> Result<Exit, Failure> {
    let store = args.store.find()?;
    let rs = named(&store.library()?, &args.id, &store.dir)?.id;
    ask(&store, &rs.to_string(), &verb(rs))
}

/// `what`: what it is about, for messages.
fn ask(store: &Store, what: &str, verb: &Verb) -> Result<Exit, Failure> {
    if let Some(fault) = verb.fault() {
        return Err(Failure::new(Exit::Usage, format!("{what}: {fault}")));
    }
    let deadline = Instant::now() + BUSY_WAIT;
    loop {
        let outcome = verbs::ask(&store.dir, verb).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset => {
                let why = format!("no server runs on {}: {error}", store.dir.display());
                Failure::new(Exit::Unreachable, why)
            }
            io::ErrorKind::PermissionDenied => Failure::new(Exit::Refused, error.to_string()),
            _ => error.into(),
        })?;
        let failure = |exit, why: String| Err(Failure::new(exit, format!("{what}: {why}")));
        return match outcome {
            Outcome::Done => Ok(Exit::Yes),
            Outcome::Started(rs) => {
                println!("{rs}");
                Ok(Exit::Yes)
            }
            Outcome::Unknown => failure(Exit::NotFound, "it is not running".to_owned()),
            Outcome::Busy if Instant::now() < deadline => {
                sleep(PAUSE);
                continue;
            }
            Outcome::Busy => failure(Exit::TryAgain, "another change is under way".to_owned()),
            Outcome::Refused(why) => failure(Exit::Refused, why),
            Outcome::Failed(why) => failure(Exit::TryAgain, why),
        };
    }
}
