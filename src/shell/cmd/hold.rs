//! `floortape hold`: recordings that stay, whatever their class says.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::remote;
use super::store::{Store, StoreArgs, named};
use super::table::{plain, table};
use crate::base::ids::RsId;
use crate::base::ports::Clock;
use crate::config::access::Right;
use crate::host::clock::SystemClock;
use crate::plane::retention::{Census, Classes, Facts, Member, Query, detail};
use crate::shell::access::{self, Answer, Asker, Wish, ask};
use crate::shell::exit::{Exit, Failure};
use crate::shell::kept::{self, Known};
use crate::shell::serve::keeping::Keeping;
use crate::shell::serve::reading::Read;
use crate::shell::when::ZoneArgs;
use crate::store::audit::action;

/// Hold recordings for a case: what is held stays, whatever its class says, now and in future
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Begin a hold; prints its number. All conditions must be met, of the values of one any will do
    Add {
        /// id:ID, aor:PATTERN (* for any characters), session:ID, word:TEXT, peer:NAME; without a kind a
        /// recording's id, an address, or else a word in names
        #[arg(value_name = "QUERY")]
        query: Vec<String>,
        /// Why; it is in the audit trail
        #[arg(long)]
        reason: String,
        /// Only what ran at or after this: a time as `search` takes it
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        from: Option<String>,
        /// Only what ran at or before this; of a day, its end
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        to: Option<String>,
        #[command(flatten)]
        zone: ZoneArgs,
        /// One JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// End a hold (exit 3: there is none of that number)
    Rm {
        /// Its number
        #[arg(value_name = "NUMBER")]
        number: u64,
        /// Why; it is in the audit trail
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// List the holds in force
    Ls {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// What keeps a recording, and until when (exit 0: a hold does, 1: none does)
    Why {
        /// Recording id
        #[arg(value_name = "ID")]
        id: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    match args.what {
        What::Add { query, reason, from, to, zone, json, store } => {
            let when = zone.when()?;
            let from = from.map(|text| when.said("from", &text)).transpose()?;
            let to = to.map(|text| when.said("to", &text)).transpose()?;
            let (from, to) = (from.map(|said| said.from), to.map(|said| said.to));
            let terms = query;
            let query = Query::parse(&terms, from, to)
                .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
            check_reason(&reason)?;
            let asked = || {
                let reason = reason.clone();
                Ok(Keeping::HoldAdd { terms, from, to, reason, json })
            };
            match instead(&store, asked)? {
                Some(exit) => Ok(exit),
                None => add(&store, &query, &reason, json),
            }
        }
        What::Rm { number, reason, store } => {
            check_reason(&reason)?;
            match instead(&store, || Ok(Keeping::HoldRm { number, reason: reason.clone() }))? {
                Some(exit) => Ok(exit),
                None => rm(&store.find()?, number, &reason),
            }
        }
        What::Ls { json, store } => match instead(&store, || Ok(Keeping::HoldLs { json }))? {
            Some(exit) => Ok(exit),
            None => ls(&store, json),
        },
        What::Why { id, json, store } => {
            match instead(&store, || Ok(Keeping::HoldWhy { id: remote::id(&id)?, json }))? {
                Some(exit) => Ok(exit),
                None => why(&store, &id, json),
            }
        }
    }
}

/// Has the server do it, where the store's files are not ours.
pub(super) fn instead(
    store: &StoreArgs,
    asked: impl FnOnce() -> Result<Keeping, Failure>,
) -> Result<Option<Exit>, Failure> {
    remote::instead(store, || Ok(Read::Keep(Box::new(asked()?))))
}

/// The number of the entry by which whoever runs the verb does `wish`, if he may; durable.
pub(super) fn enter(store: &Path, wish: Wish) -> Result<u64, Failure> {
    // The server has, for whom we do it.
    if let Some(number) = access::recorded() {
        return Ok(number);
    }
    match ask(store, Asker::ourselves(), Right::Keep, wish) {
        Ok(Answer::Allowed(entry)) => Ok(entry.number),
        Ok(Answer::Refused(why)) => Err(Failure::new(Exit::Refused, format!("refused: {why}"))),
        Err(error) => {
            let why = format!("not done, because it cannot be recorded: {error}");
            Err(Failure::new(Exit::Io, why))
        }
    }
}

/// A reason is what a hold is judged by later.
pub(super) fn check_reason(reason: &str) -> Result<(), Failure> {
    if reason.trim().is_empty() {
        return Err(Failure::new(Exit::Usage, "expected a reason, found nothing"));
    }
    Ok(())
}

fn add(args: &StoreArgs, query: &Query, reason: &str, json: bool) -> Result<Exit, Failure> {
    let store = args.find()?;
    let said = serde_json::to_value(query)?;
    let wish = Wish::new(action::HOLD_ADD, query.text()).because(Some(reason.to_owned()));
    let number = enter(&store.dir, wish.with(detail::QUERY, Some(said)))?;
    let census = census(args, &store)?;
    let held = kept::held(&census, number);
    let mut out = std::io::stdout().lock();
    if json {
        let ids: Vec<String> = held.iter().map(RsId::to_string).collect();
        writeln!(out, "{}", json!({"hold": number, "holds": ids}))?;
    } else {
        writeln!(out, "hold {number}")?;
        eprintln!("floortape: it holds {} recordings by now", held.len());
    }
    Ok(Exit::Yes)
}

fn rm(store: &Store, number: u64, reason: &str) -> Result<Exit, Failure> {
    let rules = Known::read(&store.dir)?.rules;
    if !rules.holds.contains_key(&number) && !rules.unread.contains(&number) {
        let why = format!("no hold {number} in {}", store.dir.display());
        return Err(Failure::new(Exit::NotFound, why));
    }
    let wish = Wish::new(action::HOLD_RM, number.to_string()).because(Some(reason.to_owned()));
    enter(&store.dir, wish)?;
    Ok(Exit::Yes)
}

fn census(args: &StoreArgs, store: &Store) -> Result<Census, Failure> {
    let config = args.keeping()?;
    let library = store.bare_library()?;
    let known = Known::read(&store.dir)?;
    known.faults.iter().for_each(|fault| eprintln!("floortape: {fault}"));
    Ok(kept::census(&library, &config, &known.rules, SystemClock.map().wall)?)
}

fn ls(args: &StoreArgs, json: bool) -> Result<Exit, Failure> {
    let store = args.find()?;
    let known = Known::read(&store.dir)?;
    let census = census(args, &store)?;
    let mut out = std::io::stdout().lock();
    let mut rows =
        vec![["HOLD", "SINCE", "BY", "RECORDINGS", "WHAT", "WHY"].map(str::to_owned).to_vec()];
    for (number, hold) in &known.rules.holds {
        let held = kept::held(&census, *number).len();
        if json {
            let line = json!({
                "hold": number, "at": hold.at, "by": hold.by, "query": hold.query,
                "reason": hold.reason, "recordings": held,
            });
            writeln!(out, "{line}")?;
        }
        rows.push(vec![
            number.to_string(),
            hold.at.to_string()[..19].to_owned(),
            plain(&hold.by),
            held.to_string(),
            plain(&hold.query.text()),
            plain(&hold.reason),
        ]);
    }
    if !json {
        out.write_all(table(&rows).as_bytes())?;
    }
    Ok(if known.faults.is_empty() { Exit::Yes } else { Exit::No })
}

fn why(args: &StoreArgs, id: &str, json: bool) -> Result<Exit, Failure> {
    let store = args.find()?;
    let config = args.keeping()?;
    let library = store.library()?;
    let rs = named(&library, id, &store.dir)?;
    let known = Known::read(&store.dir)?;
    known.faults.iter().for_each(|fault| eprintln!("floortape: {fault}"));
    let classes = Classes::of(&config);
    let member = Member::of(Facts::of(&rs, &config), &classes, &known.rules);
    let mut out = std::io::stdout().lock();
    let holds = member
        .held_by
        .iter()
        .filter_map(|number| known.rules.holds.get(number).map(|hold| (number, hold)));
    if json {
        let holds: Vec<_> = holds
            .map(|(number, hold)| json!({"hold": number, "by": hold.by, "reason": hold.reason}))
            .collect();
        let line = json!({
            "id": rs.id.to_string(), "class": member.kept.class, "keep": member.kept.keep,
            "keep_until": member.keep_until(), "held_by": holds,
        });
        writeln!(out, "{line}")?;
    } else {
        for (number, hold) in holds {
            let (by, reason) = (plain(&hold.by), plain(&hold.reason));
            writeln!(out, "hold {number} since {} by {by}: {reason}", hold.at)?;
        }
        let until = match member.keep_until() {
            Some(until) => format!("until {until}"),
            None => "without end, or while it is open".to_owned(),
        };
        writeln!(out, "class {} ({}): {until}", plain(&member.kept.class), member.kept.keep)?;
    }
    Ok(if member.held_by.is_empty() { Exit::No } else { Exit::Yes })
}
