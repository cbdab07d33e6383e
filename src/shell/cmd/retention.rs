//! `floortape retention`: what would go and when, and the two persons whom it takes to keep something for
//! a shorter time than was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde_json::json;

use super::hold::{check_reason, enter, instead};
use super::store::{Store, StoreArgs};
use super::table::{plain, table};
use crate::base::ids::RsId;
use crate::base::keep::Keep;
use crate::base::ports::Clock;
use crate::base::time::Wall;
use crate::config::model::Config;
use crate::config::retention::DEFAULT_CLASS;
use crate::host::clock::SystemClock;
use crate::host::{audit, users};
use crate::plane::retention::{Member, SegmentPlan, detail};
use crate::shell::access::{Asker, Wish};
use crate::shell::exit::{Exit, Failure};
use crate::shell::kept::{self, Known};
use crate::shell::serve::keeping::{Keeping, refuse_same, same_person};
use crate::shell::when::SaidArgs;
use crate::store::audit::action;

/// What goes and when, and how to have it go earlier than was promised
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// What would go, without touching it
    Plan {
        /// As it would be then: a time as `search` takes it (RFC 3339, 2027-01-01, 2027-01-01 14:05
        /// Europe/Berlin); of a day, its beginning [default: now]
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        at: Option<String>,
        /// One JSON object a recording
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        zone: SaidArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Propose that recordings of a class are kept for a shorter time than was promised; prints the
    /// number that somebody else approves. Never shorter than the configuration says by now
    Shorten {
        /// The class as it was promised; "default" for what no class fitted
        #[arg(value_name = "CLASS")]
        class: String,
        /// How long they are to be kept: "90d", "7y"
        #[arg(value_name = "KEEP")]
        keep: Keep,
        /// Why; it is in the audit trail
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Agree to what somebody else has proposed (exit 4: it was you, 3: there is none of that number)
    Approve {
        /// Its number
        #[arg(value_name = "NUMBER")]
        number: u64,
        /// Why; it is in the audit trail
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// What was proposed, and what was agreed to
    Ls {
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    match args.what {
        What::Plan { at, json, zone, store } => {
            let at = zone.time("at", &at)?;
            match instead(&store, || Ok(Keeping::Plan { at, json }))? {
                Some(exit) => Ok(exit),
                None => plan(&store, at, json),
            }
        }
        What::Shorten { class, keep, reason, store } => {
            check_reason(&reason)?;
            let asked = || {
                let (class, reason) = (class.clone(), reason.clone());
                Ok(Keeping::Shorten { class, keep, reason })
            };
            if let Some(exit) = instead(&store, asked)? {
                return Ok(exit);
            }
            let config = store.keeping()?;
            let store = store.find()?;
            tell_in_vain(&store, &config, &class, keep)?;
            let wish = Wish::new(action::RETENTION_PROPOSED, class.clone()).because(Some(reason));
            let wish = wish.with(detail::CLASS, Some(class));
            let number = enter(&store.dir, wish.with(detail::KEEP, Some(keep.to_string())))?;
            let mut out = std::io::stdout().lock();
            writeln!(out, "proposal {number}")?;
            eprintln!("floortape: somebody else runs: floortape retention approve {number}");
            Ok(Exit::Yes)
        }
        What::Approve { number, reason, store } => {
            let asked = || Ok(Keeping::Approve { number, reason: reason.clone() });
            match instead(&store, asked)? {
                Some(exit) => Ok(exit),
                None => approve(&store.find()?, number, &reason),
            }
        }
        What::Ls { store } => match instead(&store, || Ok(Keeping::Proposals))? {
            Some(exit) => Ok(exit),
            None => ls(&store.find()?),
        },
    }
}

/// Says where a proposal would change nothing: nothing there was promised in that class, or the configuration
/// keeps it as long all the same.
fn tell_in_vain(store: &Store, config: &Config, class: &str, keep: Keep) -> Result<(), Failure> {
    let library = store.bare_library()?;
    let known = Known::read(&store.dir)?;
    let census = kept::census(&library, config, &known.rules, SystemClock.map().wall)?;
    let promised = |member: &Member| match &member.facts.promise {
        Some(promise) => promise.class == class,
        None => class == DEFAULT_CLASS,
    };
    if !census.members().any(promised) {
        eprintln!("floortape: nothing that is there was promised in class {class}");
    }
    let own = match config.retention.iter().find(|one| one.name == class) {
        Some(one) => Some(one.keep),
        None if class == DEFAULT_CLASS => Some(config.store.retention),
        None => None,
    };
    if let Some(own) = own.filter(|own| *own > keep) {
        eprintln!(
            "floortape: the configuration keeps class {class} for {own}, and no proposal goes below that: \
             configure a shorter time for new recordings first"
        );
    }
    Ok(())
}

fn approve(store: &Store, number: u64, reason: &str) -> Result<Exit, Failure> {
    let rules = Known::read(&store.dir)?.rules;
    let Some(proposal) = rules.proposals.get(&number) else {
        let why = format!("no proposal {number} in {}", store.dir.display());
        return Err(Failure::new(Exit::NotFound, why));
    };
    let Asker { uid, pid } = Asker::ourselves();
    let login = audit::login(pid, uid).map(users::name);
    if !proposal.is_by_another(&login.unwrap_or_else(|| users::name(uid))) {
        refuse_same(&store.dir, Asker::ourselves(), number)?;
        return Err(Failure::new(Exit::Refused, same_person(number)));
    }
    let wish = Wish::new(action::RETENTION_APPROVED, number.to_string());
    enter(&store.dir, wish.because(Some(reason.to_owned())))?;
    Ok(Exit::Yes)
}

fn ls(store: &Store) -> Result<Exit, Failure> {
    let known = Known::read(&store.dir)?;
    let mut rows =
        vec![["NUMBER", "CLASS", "KEEP", "SINCE", "BY", "WHY"].map(str::to_owned).to_vec()];
    for (number, one) in &known.rules.proposals {
        let (by, reason) = (plain(&one.by), plain(&one.reason));
        let at = one.at.to_string()[..19].to_owned();
        rows.push(vec![
            number.to_string(),
            plain(&one.class),
            one.keep.to_string(),
            at,
            by,
            reason,
        ]);
    }
    for one in &known.rules.shortenings {
        let at = one.at.to_string()[..19].to_owned();
        let agreed = "two persons".to_owned();
        let words = "agreed: of what was there then".to_owned();
        rows.push(vec!["-".to_owned(), plain(&one.class), one.keep.to_string(), at, agreed, words]);
    }
    std::io::stdout().lock().write_all(table(&rows).as_bytes())?;
    Ok(Exit::Yes)
}

/// What one recording would lose.
#[derive(Default)]
struct Loss {
    bytes: u64,
    segments: BTreeSet<String>,
    class: String,
    since: Option<Wall>,
}

fn plan(args: &StoreArgs, at: Option<Wall>, json: bool) -> Result<Exit, Failure> {
    let store = args.find()?;
    let config = args.keeping()?;
    let library = store.bare_library()?;
    let known = Known::read(&store.dir)?;
    known.faults.iter().for_each(|fault| eprintln!("floortape: {fault}"));
    let census =
        kept::census(&library, &config, &known.rules, at.unwrap_or(SystemClock.map().wall))?;
    let mut losses: BTreeMap<RsId, Loss> = BTreeMap::new();
    let (mut freed, mut waits, mut segments) = (0, 0, 0);
    for name in library.archive.segments()? {
        let plan = match census.plan(&library.archive, name) {
            Ok(Some(plan)) => plan,
            Ok(None) => continue,
            Err(error) => {
                eprintln!("floortape: {error}: it stays");
                continue;
            }
        };
        segments += 1;
        *(if plan.worth { &mut freed } else { &mut waits }) += plan.due_bytes();
        note(&plan, &mut losses);
    }
    let mut out = std::io::stdout().lock();
    let mut rows =
        vec![["ID", "CLASS", "DUE SINCE", "KIB", "SEGMENTS"].map(str::to_owned).to_vec()];
    for (id, loss) in &losses {
        if json {
            let line = json!({
                "id": id.to_string(), "class": loss.class, "due_since": loss.since,
                "bytes": loss.bytes, "segments": loss.segments,
            });
            writeln!(out, "{line}")?;
        }
        rows.push(vec![
            id.to_string(),
            plain(&loss.class),
            loss.since.map_or_else(|| "-".to_owned(), |at| at.to_string()[..19].to_owned()),
            loss.bytes.div_ceil(1_024).to_string(),
            loss.segments.len().to_string(),
        ]);
    }
    if !json {
        out.write_all(table(&rows).as_bytes())?;
    }
    eprintln!(
        "floortape: {} of {} recordings lose something in {segments} segments: {} MiB go, {} MiB wait \
         until more of their segments is due",
        losses.len(),
        census.members().count(),
        freed >> 20,
        waits >> 20,
    );
    Ok(Exit::Yes)
}

fn note(plan: &SegmentPlan, losses: &mut BTreeMap<RsId, Loss>) {
    for due in &plan.due {
        let Some(id) = due.recording else { continue };
        let loss = losses.entry(id).or_default();
        loss.bytes += due.bytes;
        loss.segments.insert(plan.name.file());
        loss.class.clone_from(&due.class);
        loss.since = Some(loss.since.map_or(due.since, |since| since.min(due.since)));
    }
}
