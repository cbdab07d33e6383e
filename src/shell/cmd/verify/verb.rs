//! The verb.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::held::Checked;
use super::{folder, held};
use crate::shell::cmd::store::{StoreArgs, damage, named};
use crate::shell::exit::{Exit, Failure};
use crate::store::export::manifest;

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
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let Checked { reports, elsewhere, unreadable } = match &args.what {
        Some(what) if is_folder(what) => {
            let key = match &args.store.store {
                Some(_) => args.store.find()?.public_key(),
                None => None,
            };
            let report = folder::check(Path::new(what), key)?;
            Checked { reports: vec![report], elsewhere: Vec::new(), unreadable: false }
        }
        Some(id) => {
            let store = args.store.find()?;
            let library = store.bare_library()?;
            let rs = named(&library, id, &store.dir)?;
            let checked = held::check(&store, &library, &[&rs], false)?;
            // The store as a whole was not asked about.
            Checked { elsewhere: Vec::new(), ..checked }
        }
        None => {
            let store = args.store.find()?;
            let library = store.bare_library()?;
            let all: Vec<_> = library.journalled()?.recordings.values().collect();
            let mut checked = held::check(&store, &library, &all, true)?;
            checked.elsewhere.extend(damage(&library));
            checked
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
    if reports.is_empty() && elsewhere.is_empty() {
        eprintln!("floortape: the store holds no recording yet");
    }
    let good = elsewhere.is_empty() && reports.iter().all(|report| report.is_good(args.complete));
    // What is not there cannot be told from what cannot be read now, and nobody vouches for a store
    // that was not seen whole.
    let whole = args.what.is_none();
    Ok(if unreadable && (whole || !good) {
        Exit::Io
    } else if good {
        Exit::Yes
    } else {
        Exit::No
    })
}

fn is_folder(what: &str) -> bool {
    let path = PathBuf::from(what);
    path.is_dir() && (what.contains('/') || path.join(manifest::FILE).exists() || what == ".")
}
