//! `floortape rebuild`: makes the catalogue again from journal and segments.
//!
//! Extents of segments come from their footers; what is said of a recording that is over comes from its records, all
//! of them: gaps, contributors, digits and RTP times stand in no row. What it reads it believes where the sums agree;
//! whether it is what was sealed is `verify`'s to say, which believes no catalogue.

use std::io::Write;

use super::parts::Parts;
use super::store::StoreArgs;
use crate::host::sqlite;
use crate::shell::exit::{Exit, Failure};
use crate::store::catalog::library::Reading;

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
    let known = library.durable_journal()?;
    let stale = library.stale(&index, &known)?;
    let parts = Parts::of(&stale.ended);
    let mut reading = Reading::default();
    for part in parts.read(&store, &library, |_, library, part| Ok(library.read(part)?))? {
        reading.join(part);
    }
    let (segments, recordings) = library.keep(&mut index, &stale, &reading)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{recordings} recordings, {segments} segments")?;
    Ok(Exit::Yes)
}
