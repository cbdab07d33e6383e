//! `floortape rs`: begin a recording by calling its SRC; pause, resume and stop one that runs.

use std::io;
use std::io::Write as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::remote;
use super::store::{StoreArgs, named};
use crate::base::ids::RsId;
use crate::host::volume::{self, Holder};
use crate::plane::control::{Outcome, Verb};
use crate::shell::client::signalling::Target;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::verbs::{self, Unheard};

/// A recording in which something else is under way is asked again for so long.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// A server whose control does not listen is asked again for so long: it is being started.
const ABSENT_WAIT: Duration = Duration::from_secs(3);
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
    /// End it: BYE with a reason; or one line of it, which stays ended (exit 4: it has no such line)
    Stop {
        #[command(flatten)]
        named: Named,
        /// Only this line, by its label as `show` has it; the others go on
        #[arg(long, value_name = "LABEL")]
        line: Option<String>,
        /// Told to the SRC (of a whole recording) and kept with the recording
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
            let dir = match store.shut() {
                Some(dir) => dir,
                None => store.find()?.dir,
            };
            ask(&dir, &to, &verb)
        }
        What::Pause(args) => ask_of(&args, |rs| Verb::Pause { rs }),
        What::Resume(args) => ask_of(&args, |rs| Verb::Resume { rs }),
        What::Stop { named, line: Some(line), reason } => {
            ask_of(&named, |rs| Verb::StopLine { rs, line, reason })
        }
        What::Stop { named, line: None, reason } => ask_of(&named, |rs| Verb::Stop { rs, reason }),
    }
}

fn ask_of(args: &Named, verb: impl FnOnce(RsId) -> Verb) -> Result<Exit, Failure> {
    if let Some(dir) = args.store.shut() {
        let rs = remote::id(&args.id)?;
        return ask(&dir, &rs.to_string(), &verb(rs));
    }
    let store = args.store.find()?;
    let rs = named(&store.library()?, &args.id, &store.dir)?.id;
    ask(&store.dir, &rs.to_string(), &verb(rs))
}

/// `what`: what it is about, for messages.
fn ask(dir: &Path, what: &str, verb: &Verb) -> Result<Exit, Failure> {
    if let Some(fault) = verb.fault() {
        return Err(Failure::new(Exit::Usage, format!("{what}: {fault}")));
    }
    let deadline = Instant::now() + BUSY_WAIT;
    let mut absent_until = None;
    loop {
        let outcome = match verbs::ask(dir, verb) {
            Ok(outcome) => outcome,
            Err(unheard) => {
                let until = *absent_until.get_or_insert_with(|| Instant::now() + ABSENT_WAIT);
                look_again(dir, verb, unheard, Instant::now() >= until)?;
                sleep(PAUSE);
                continue;
            }
        };
        let failure = |exit, why: String| Err(Failure::new(exit, format!("{what}: {why}")));
        return match outcome {
            Outcome::Done => Ok(Exit::Yes),
            Outcome::Started(rs) => {
                // It is started, whether or not anybody reads so.
                let _ = writeln!(std::io::stdout(), "{rs}");
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

/// Whether to ask once more after nobody answered: an error says why not. `late`: it was tried for long
/// enough.
fn look_again(dir: &Path, verb: &Verb, unheard: Unheard, late: bool) -> Result<(), Failure> {
    use io::ErrorKind::{
        BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, PermissionDenied,
    };
    let (error, is_repeatable) = match unheard {
        Unheard::Never(error) => (error, true),
        // Asked twice, both of these come to the same.
        Unheard::Perhaps(error) => (error, !matches!(verb, Verb::Start { .. } | Verb::Stop { .. })),
    };
    match error.kind() {
        NotFound | ConnectionRefused | ConnectionReset | BrokenPipe => {}
        PermissionDenied => return Err(Failure::new(Exit::Refused, error.to_string())),
        _ => return Err(error.into()),
    }
    let store = dir.display();
    let Some(keeper) = volume::holder(dir).filter(Holder::lives) else {
        let why = format!("no server runs on {store}: {error}");
        return Err(Failure::new(Exit::Unreachable, why));
    };
    if !is_repeatable {
        let why = format!(
            "the server on {store} (process {keeper}) lost its control while it was asked: `floortape \
             ls` says whether it was heard"
        );
        return Err(Failure::new(Exit::TryAgain, why));
    }
    if late {
        let why = format!(
            "the server on {store} (process {keeper}) runs, and its control is being started: try \
             again ({error})"
        );
        return Err(Failure::new(Exit::TryAgain, why));
    }
    Ok(())
}
