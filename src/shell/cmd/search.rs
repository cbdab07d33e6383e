//! `floortape search`: the recordings that a query means, those that run included.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;

use super::ls::{listed, seen};
use super::remote;
use super::store::{StoreArgs, tell_damage};
use crate::base::ids::RsId;
use crate::base::time::Wall;
use crate::host::spare::StoreDisk;
use crate::shell::exit::{Exit, Failure};
use crate::shell::kept::Keeping;
use crate::shell::serve::reading::{Read, Sought};
use crate::shell::when::ZoneArgs;
use crate::store::catalog::model::Recording;
use crate::store::catalog::{Find, Library, Place, RsEntry, sketch};
use crate::store::query::{self, Client, Expr, Facts};

/// Shown at a time where nobody says how many.
const PAGE: usize = 20;
/// Hits that are asked for at a time where all are wanted.
const BATCH: usize = 1_024;

/// Find recordings: how many first, the newest first (exit 3: there is none)
#[derive(clap::Args)]
#[command(after_help = query::HELP)]
pub struct Args {
    /// What to look for; a term that begins with - stands behind --, or is written NOT
    #[arg(value_name = "QUERY")]
    query: Vec<String>,
    /// The same as one text
    #[arg(long = "query", value_name = "TEXT", hide = true)]
    whole: Option<String>,
    /// One JSON object a line, as ls has it; all of them where no --limit is given
    #[arg(long)]
    json: bool,
    /// Only how many there are
    #[arg(long)]
    count: bool,
    /// So many [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// What comes behind: what the page before said, or the id of its last recording
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// The oldest first
    #[arg(long)]
    oldest: bool,
    /// The recorder's own test calls, too
    #[arg(long)]
    own: bool,
    #[command(flatten)]
    zone: ZoneArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// A place as it is told, so that somebody can go on from there.
fn cursor(place: Place) -> String {
    format!("{:016x}", place.0)
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let text = args.whole.clone().unwrap_or_else(|| args.query.join(" "));
    let when = args.zone.when()?;
    let now = when.now();
    // Whoever errs hears so at once, and from us.
    let query =
        query::parse(&text, &now).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let sought = || {
        Ok(Read::Search(Box::new(Sought {
            query: text.clone(),
            json: args.json,
            count: args.count,
            oldest: args.oldest,
            own: args.own,
            limit: args.limit.map(|limit| limit as usize),
            after: args.after.clone(),
            tz: when.name(),
        })))
    };
    if let Some(exit) = remote::instead(&args.store, sought)? {
        return Ok(exit);
    }
    let store = args.store.find()?;
    let library = store.library()?;
    let keeping = Keeping::of(&store.dir, args.store.keeping()?);
    let own = args.own || query.asks_own();
    let query = keeping.with_holds(query);
    let after = args.after.as_deref().map(|text| place(&library, text)).transpose()?;
    let peers = |client: &Client| keeping.peer(client);
    let find = |after, limit, count| Find {
        query: &query,
        own,
        now: now.at,
        peers: &peers,
        oldest: args.oldest,
        after,
        limit,
        count,
    };
    let limit = match (args.limit, args.json) {
        (Some(limit), _) => limit as usize,
        (None, true) => usize::MAX,
        (None, false) => PAGE,
    };
    // What settles between the two looks is found twice, and shown once; the other way round not at all.
    let mut beside = Beside::of(&library, &query, own, now.at, &peers)?;
    if args.oldest {
        beside.hits.reverse();
    }
    let first = library.find(&find(after, if args.count { 0 } else { limit.min(BATCH) }, true))?;
    beside.hits.retain(|(_, id)| !first.hits.iter().any(|(_, other)| other == id));
    tell_damage(&library);
    let count = first.count + beside.hits.len() as u64;
    let exit = match (count, seen(&store)) {
        (0, Exit::Yes) => Exit::NotFound,
        (_, exit) => exit,
    };
    let mut out = std::io::stdout().lock();
    if args.count {
        match args.json {
            true => writeln!(out, "{}", json!({"recordings": count}))?,
            false => writeln!(out, "{count}")?,
        }
        return Ok(exit);
    }
    let noun = if count == 1 { "recording" } else { "recordings" };
    match args.json {
        true => eprintln!("floortape: {count} {noun}"),
        false => writeln!(out, "{count} {noun}")?,
    }
    let mut shown = Vec::new();
    let (mut hits, mut at, mut left, mut more) = (first.hits, after, limit, false);
    loop {
        let wanted = left.min(BATCH);
        let is_all = hits.len() < wanted;
        let mut page = hits;
        page.extend(beside.hits.iter().copied().filter(|(place, _)| match at {
            None => true,
            Some(at) if args.oldest => *place > at,
            Some(at) => *place < at,
        }));
        page.sort_by_key(|(place, id)| (*place, *id));
        if !args.oldest {
            page.reverse();
        }
        let is_all = is_all && page.len() <= wanted;
        page.truncate(wanted);
        at = page.last().map(|(place, _)| *place).or(at);
        for mut recording in beside.recordings(&library, &page)? {
            if let Some(rs) = library.entry(recording.id)? {
                keeping.tell(&mut recording, &rs);
            }
            match args.json {
                true => {
                    serde_json::to_writer(&mut out, &recording)?;
                    out.write_all(b"\n")?;
                }
                false => shown.push(recording),
            }
        }
        left -= page.len();
        if is_all {
            break;
        }
        if left == 0 {
            more = true;
            break;
        }
        hits = library.find(&find(at, left.min(BATCH), false))?.hits;
    }
    if !args.json && count > 0 {
        out.write_all(listed(&shown, &when).as_bytes())?;
    }
    if let Some(at) = at.filter(|_| more) {
        out.flush()?;
        eprintln!("floortape: there may be more: --after {}", cursor(at));
    }
    Ok(exit)
}

/// The place that a cursor names, or a recording.
fn place(library: &Library<StoreDisk>, text: &str) -> Result<Place, Failure> {
    if let Ok(id) = text.parse::<RsId>() {
        let missing = || Failure::new(Exit::NotFound, format!("--after: no recording {text}"));
        let entry = library.entry(id)?.ok_or_else(missing)?;
        return Ok(Place::of(entry.start, entry.id));
    }
    let place = Some(text).filter(|text| text.len() == 16);
    let place = place.and_then(|text| i64::from_str_radix(text, 16).ok());
    place.map(Place).ok_or_else(|| {
        let why = format!("--after: expected what a page has told, or an id, found \"{text}\"");
        Failure::new(Exit::Usage, why)
    })
}

/// Recordings that no index has: those that run, and those that have not settled.
struct Beside {
    /// Those that are meant, the newest first.
    hits: Vec<(Place, RsId)>,
    /// Those of them that were read already.
    read: BTreeMap<RsId, Recording>,
}

impl Beside {
    fn of(
        library: &Library<StoreDisk>,
        query: &Expr,
        own: bool,
        now: Wall,
        peers: &dyn Fn(&Client) -> Option<String>,
    ) -> Result<Self, Failure> {
        let mut entries = library.unsettled()?;
        entries.retain(|rs| own || !rs.own);
        let mut beside = Beside { hits: Vec::new(), read: BTreeMap::new() };
        let mut take = |rs: &RsEntry, recording: &Recording| {
            let mut facts = Facts::of(recording);
            facts.peer = peers(&Client::of(rs));
            let is_meant = query.matches(&facts, now);
            if is_meant {
                beside.hits.push((Place::of(rs.start, rs.id), rs.id));
            }
            is_meant
        };
        if query.asks_ledger() {
            // What only the records tell is read from them.
            let entry: BTreeMap<RsId, &RsEntry> = entries.iter().map(|rs| (rs.id, *rs)).collect();
            for recording in library.read(&entries)?.recordings {
                if entry.get(&recording.id).is_some_and(|rs| take(rs, &recording)) {
                    beside.read.insert(recording.id, recording);
                }
            }
        } else {
            for rs in entries {
                take(rs, &sketch(rs));
            }
        }
        beside.hits.sort();
        beside.hits.reverse();
        Ok(beside)
    }

    /// The recordings of a page, in its order.
    fn recordings(
        &mut self,
        library: &Library<StoreDisk>,
        page: &[(Place, RsId)],
    ) -> Result<Vec<Recording>, Failure> {
        let is_beside = |id: &RsId| {
            self.hits.iter().any(|(_, other)| other == id) && !self.read.contains_key(id)
        };
        let wanted: Vec<RsId> = page.iter().map(|(_, id)| *id).filter(|id| is_beside(id)).collect();
        if !wanted.is_empty() {
            let known = &library.journalled()?.recordings;
            let entries: Vec<&RsEntry> = wanted.iter().filter_map(|id| known.get(id)).collect();
            let read = library.read(&entries)?.recordings;
            self.read.extend(read.into_iter().map(|recording| (recording.id, recording)));
        }
        let mut recordings = Vec::with_capacity(page.len());
        for (_, id) in page {
            match self.read.remove(id) {
                Some(recording) => recordings.push(recording),
                None => recordings.extend(library.recording(*id)?),
            }
        }
        Ok(recordings)
    }
}
