//! `floortape ls`: the recordings of a store.

use std::io::Write;

use super::remote;
use super::show::name;
use super::store::{Store, StoreArgs};
use super::table::{plain, table};
use crate::shell::exit::{Exit, Failure};
use crate::shell::kept::Keeping;
use crate::shell::serve::reading::Read;
use crate::shell::when::{When, ZoneArgs};
use crate::store::catalog::model::{Recording, SealState};
use crate::store::query::worst;

/// List recordings, oldest first.
#[derive(clap::Args)]
pub struct Args {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Only those whose recording session is up
    #[arg(long)]
    live: bool,
    /// The recorder's own test calls, too
    #[arg(long)]
    own: bool,
    #[command(flatten)]
    zone: ZoneArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let Args { json, live, own, .. } = args;
    let when = args.zone.when()?;
    let read = || Ok(Read::Ls { json, live, own, tz: when.name() });
    if let Some(exit) = remote::instead(&args.store, read)? {
        return Ok(exit);
    }
    let store = args.store.find()?;
    let library = store.library()?;
    let mut recordings =
        library.recordings(|rs| (args.own || !rs.own) && (!args.live || rs.end.is_none()))?;
    let keeping = Keeping::of(&store.dir, args.store.keeping()?);
    let journalled = library.journalled()?;
    for recording in &mut recordings {
        if let Some(rs) = journalled.recordings.get(&recording.id) {
            keeping.tell(recording, rs);
        }
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        for recording in &recordings {
            serde_json::to_writer(&mut out, recording)?;
            out.write_all(b"\n")?;
        }
        return Ok(seen(&store));
    }
    out.write_all(listed(&recordings, &when).as_bytes())?;
    Ok(seen(&store))
}

/// A table of recordings.
pub(super) fn listed(recordings: &[Recording], when: &When) -> String {
    let head = ["ID", "START", "LENGTH", "STATE", "STREAMS", "VERDICT", "SEAL", "WHO"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(recordings.iter().map(|recording| row(recording, when)));
    table(&rows)
}

/// What is missing in the list may lie in a folder that could not be read.
pub(super) fn seen(store: &Store) -> Exit {
    if store.is_unreadable() { Exit::Io } else { Exit::Yes }
}

fn row(recording: &Recording, when: &When) -> Vec<String> {
    let through = recording.end.or(recording.durable_through).unwrap_or(recording.start);
    let seconds = (through.0 - recording.start.0).max(0) / 1_000_000_000;
    vec![
        recording.id.to_string(),
        when.to_the_second(recording.start),
        format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60),
        word(&recording.state),
        recording.streams.len().to_string(),
        is_gone(recording)
            .then(|| "gone".to_owned())
            .or_else(|| worst(recording).map(|verdict| word(&verdict)))
            .unwrap_or_else(|| "-".to_owned()),
        if recording.seal.state == SealState::Sealed { "sealed" } else { "open" }.to_owned(),
        who(recording),
    ]
}

/// Whether nothing of it is left by retention.
fn is_gone(recording: &Recording) -> bool {
    let gone = recording.retention.as_ref().and_then(|retention| retention.gone.as_ref());
    gone.is_some_and(|gone| gone.whole)
}

/// The parties, or the client where its metadata names none.
fn who(recording: &Recording) -> String {
    if recording.participants.is_empty() {
        return plain(&recording.src.identity);
    }
    recording.participants.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// The word by which JSON names a plain variant.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".to_owned(),
    }
}
