//! `floortape rebuild`: makes the catalogue again from journal and segments.

use std::io::Write;

use super::store::StoreArgs;
use crate::host::sqlite;
use crate::shell::exit::{Exit, Failure};

/// Make the catalogue anew from the journal and the segments.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let store = args.store.find()?;
    let library = store.bare_library()?;
    let mut index = sqlite::open_write(&store.dir)?;
    index.clear()?;
    let (segments, recordings) = library.refresh(&mut index, &library.durable_journal()?)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{recordings} recordings, {segments} segments")?;
    Ok(Exit::Yes)
}
