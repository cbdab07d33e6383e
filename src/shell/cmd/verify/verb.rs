//! The verb.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::anchored::Anchors;
use super::held::Checked;
use super::report::Report;
use super::{folder, held, journalled, trail};
use crate::base::ids::{RsId, StreamId};
use crate::host::spare::StoreDisk;
use crate::shell::cmd::remote;
use crate::shell::cmd::store::{Store, StoreArgs, named};
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::reading::Read;
use crate::store::catalog::Library;
use crate::store::evidence::{Hex, PublicKey};

/// Verify recordings, or an exported folder: every byte against its proof, every loss against its
/// evidence.
#[derive(clap::Args)]
pub struct Args {
    /// Recording id, or folder written by `export`
    #[arg(value_name = "ID|DIR", conflicts_with = "all")]
    what: Option<String>,
    /// The whole store (also where nothing is named)
    #[arg(long)]
    all: bool,
    /// Any loss is a failure, an explained one too
    #[arg(long)]
    complete: bool,
    /// One JSON object a recording
    #[arg(long)]
    json: bool,
    /// Log with anchors of the store, kept outside of it: every head that it names must be there
    #[arg(long, value_name = "FILE", conflicts_with = "what")]
    anchor: Vec<PathBuf>,
    /// Public key that an export must descend from: 64 hex digits, or a file with the key
    #[arg(long, value_name = "KEY", requires = "what")]
    key: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let mut volume = String::new();
    let Checked { reports, elsewhere, unreadable, unsure } = match &args.what {
        Some(what) if is_folder(what) => {
            let key = match (&args.key, &args.store.store) {
                (Some(key), _) => Some(trusted(key)?),
                (None, Some(_)) => args.store.find()?.signers().0.map(|keys| keys.first()),
                (None, None) => None,
            };
            let report = folder::check(Path::new(what), key)?;
            Checked {
                reports: vec![report],
                elsewhere: Vec::new(),
                unreadable: false,
                unsure: false,
            }
        }
        Some(id) => {
            let read = || {
                let Args { complete, json, .. } = args;
                Ok(Read::Verify { id: remote::id(id)?, complete, json })
            };
            if let Some(exit) = remote::instead(&args.store, read)? {
                return Ok(exit);
            }
            let store = args.store.find()?;
            let library = store.bare_library()?;
            let anchors = Anchors::default();
            let rs = named(&library, id, &store.dir)?;
            let checked = held::check(&store, &library, &[&rs], false, &anchors)?;
            // The store as a whole was not asked about.
            Checked { elsewhere: Vec::new(), ..checked }
        }
        None => {
            let store = args.store.find()?;
            volume = store.volume();
            let mut anchors = Anchors::own(&store.dir);
            anchors.read(&args.anchor)?;
            whole(&store, &anchors, ACCEPTED_WITHIN)?
        }
    };
    let mut out = std::io::stdout().lock();
    for report in &reports {
        if args.json {
            serde_json::to_writer(&mut out, report)?;
            out.write_all(b"\n")?;
        } else {
            out.write_all(report.text().as_bytes())?;
        }
    }
    for fault in &elsewhere {
        eprintln!("floortape: {fault}");
    }
    if args.json && !elsewhere.is_empty() {
        // Whoever reads the lines alone must not take a store for whole because each recording that is
        // left of it is.
        serde_json::to_writer(&mut out, &Report::of_store(volume, &elsewhere))?;
        out.write_all(b"\n")?;
    }
    if reports.is_empty() && elsewhere.is_empty() && !unsure {
        eprintln!("floortape: the store holds no recording yet");
    }
    let good = elsewhere.is_empty() && reports.iter().all(|report| report.is_good(args.complete));
    // What is not there cannot be told from what cannot be read now, and nobody vouches for a store
    // that was not seen whole.
    let whole = args.what.is_none();
    Ok(if unsure || (unreadable && (whole || !good)) {
        Exit::Io
    } else if good {
        Exit::Yes
    } else {
        Exit::No
    })
}

/// Checks everything that the store holds. `patience`: what is on its way into the journal has come by
/// then.
pub(super) fn whole(
    store: &Store,
    anchors: &Anchors,
    patience: Duration,
) -> Result<Checked, Failure> {
    let library = store.bare_library()?;
    let all: Vec<_> = library.journalled()?.recordings.values().collect();
    let mut checked = held::check(store, &library, &all, true, anchors)?;
    checked.elsewhere.extend(journalled::damage(store, &library)?);
    checked.elsewhere.extend(strays(store, &library, patience)?);
    checked.elsewhere.extend(trail::faults(store, &library, anchors.trail())?);
    Ok(checked)
}

/// What arrived of a call while its acceptance was on its way into the journal is known by then.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(1);

/// Streams with packets whose acceptance the journal does not hold: it has been cut, or mixed up. Nobody
/// sends before the 200, and that leaves after the last entry of it.
fn strays(
    store: &Store,
    library: &Library<StoreDisk>,
    patience: Duration,
) -> Result<Vec<String>, Failure> {
    let of = |library: &Library<StoreDisk>| {
        let journal = library.journalled()?;
        let owned = journal.recordings.values().flat_map(|rs| rs.streams.keys());
        let known: BTreeSet<StreamId> = owned.copied().collect();
        Ok::<_, Failure>(library.archive.strays(&|stream| known.contains(&stream))?)
    };
    let mut strays = of(library)?;
    if !strays.is_empty() {
        std::thread::sleep(patience);
        strays = of(&store.bare_library()?)?;
    }
    Ok(journalled::strays(library, strays))
}

/// A public key, by its digits or in a file: as it is, or as digits.
fn trusted(text: &str) -> Result<PublicKey, Failure> {
    if let Some(Hex(key)) = Hex::parse(text) {
        return Ok(key);
    }
    let wrong = |why: String| Failure::new(Exit::Usage, format!("--key {text}: {why}"));
    let bytes = std::fs::read(text).map_err(|error| wrong(error.to_string()))?;
    let digits = || Some(Hex::parse(std::str::from_utf8(&bytes).ok()?.trim())?.0);
    let raw = PublicKey::try_from(bytes.as_slice()).ok();
    raw.or_else(digits).ok_or_else(|| wrong("expected 32 bytes, or 64 hex digits".to_owned()))
}

fn is_folder(what: &str) -> bool {
    let path = PathBuf::from(what);
    path.is_dir() && what.parse::<RsId>().is_err()
}
