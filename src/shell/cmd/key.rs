//! `floortape key`: the store's signing keys, shown and changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use crate::base::ports::Clock;
use crate::host::clock::SystemClock;
use crate::host::entropy::SystemEntropy;
use crate::host::volume::VolumeError;
use crate::host::{signing, spare, volume};
use crate::shell::cmd::store::{Store, StoreArgs};
use crate::shell::exit::{Exit, Failure};
use crate::store::evidence::Hex;
use crate::store::{log, segment};

/// Show or change the key that signs what the store holds.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Print the public keys, oldest first; who trusts the first can check all that is signed
    Show {
        /// One JSON object a key
        #[arg(long)]
        json: bool,
        /// Write the first key, 32 bytes, to FILE: to be handed to who will verify
        #[arg(short = 'o', value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Make a new key, vouched for by the present one, which is destroyed; the server must not run
    Rotate {
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// One key, as `--json` prints it.
#[derive(Serialize)]
struct Line {
    number: u32,
    public_key: Hex<32>,
    /// When it was made; null for the only one.
    at: Option<String>,
    /// The first segments that it signs, by worker.
    from: BTreeMap<u16, u64>,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    match args.what {
        What::Show { json, out, store } => show(&store.find()?, json, out),
        What::Rotate { store } => rotate(&store.find()?),
    }
}

fn show(store: &Store, json: bool, out: Option<PathBuf>) -> Result<Exit, Failure> {
    let keys = signing::keys(&store.dir)
        .map_err(|error| Failure::new(Exit::Io, format!("evidence/keys: {error}")))?
        .ok_or_else(|| Failure::new(Exit::NotFound, "the store has no signing key yet"))?;
    let listed = signing::statements(&store.dir)?;
    let mut lines: Vec<Line> = listed
        .into_iter()
        .map(|statement| Line {
            number: statement.key.number,
            public_key: statement.key.public_key,
            at: Some(statement.key.at.to_string()),
            from: statement.key.from,
        })
        .collect();
    if lines.is_empty() {
        let (public_key, from) = (Hex(keys.first()), BTreeMap::new());
        lines.push(Line { number: 1, public_key, at: None, from });
    }
    if let Some(path) = out {
        std::fs::write(&path, keys.first())
            .map_err(|error| Failure::new(Exit::Io, format!("{}: {error}", path.display())))?;
    }
    let mut to = std::io::stdout().lock();
    for line in lines {
        if json {
            serde_json::to_writer(&mut to, &line)?;
            to.write_all(b"\n")?;
            continue;
        }
        let since = line.from.iter().map(|(worker, number)| format!("w{worker} from {number}"));
        let since: Vec<String> = since.collect();
        let since = if since.is_empty() { "from the first".to_owned() } else { since.join(", ") };
        writeln!(to, "{}  {}  {since}", line.number, line.public_key)?;
    }
    Ok(Exit::Yes)
}

fn rotate(store: &Store) -> Result<Exit, Failure> {
    // Whoever seals holds it, or has ended.
    let _lock = volume::lock(&store.dir).map_err(|error| match error {
        VolumeError::InUse { .. } => {
            Failure::new(Exit::TryAgain, format!("stop the server first: {error}"))
        }
        error => error.into(),
    })?;
    let volume = volume::read(&store.dir)?;
    let places = spare::strict_places(&store.dir, &store.journal)?;
    let sealed = segment::list(&places, &store.dir)?.into_iter().map(|name| name.worker);
    let logs = log::workers(&places, &store.dir)
        .map_err(|error| Failure::new(Exit::Io, error.to_string()))?;
    let workers: BTreeSet<_> = sealed.chain(logs).collect();
    let mut from = BTreeMap::new();
    for worker in workers {
        let (last, _) = segment::last_segment(&places, &store.dir, worker)?;
        from.insert(worker.0, last + 1);
    }
    let at = SystemClock.map().wall;
    let keys = signing::rotate(&store.dir, &SystemEntropy, &volume.id, at, from)?;
    println!("{}", Hex(keys.last()));
    eprintln!("floortape: the next start signs with it; it descends from {}", Hex(keys.first()));
    Ok(Exit::Yes)
}
