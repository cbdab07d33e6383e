//! `floortape ls`: the recordings of a store.

use std::io::Write;

use super::remote;
use super::show::name;
use super::store::{Store, StoreArgs};
use super::table::{plain, table};
use crate::shell::exit::{Exit, Failure};
use crate::shell::kept::Keeping;
use crate::shell::serve::reading::Read;
use crate::store::catalog::model::{Recording, SealState, Verdict};

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
    store: StoreArgs,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let Args { json, live, own, .. } = args;
    if let Some(exit) = remote::instead(&args.store, || Ok(Read::Ls { json, live, own }))? {
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
    let head = ["ID", "START", "LENGTH", "STATE", "STREAMS", "VERDICT", "SEAL", "WHO"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(recordings.iter().map(row));
    out.write_all(table(&rows).as_bytes())?;
    Ok(seen(&store))
}

/// What is missing in the list may lie in a folder that could not be read.
fn seen(store: &Store) -> Exit {
    if store.is_unreadable() { Exit::Io } else { Exit::Yes }
}

fn row(recording: &Recording) -> Vec<String> {
    let through = recording.end.or(recording.durable_through).unwrap_or(recording.start);
    let seconds = (through.0 - recording.start.0).max(0) / 1_000_000_000;
    let start = recording.start.to_string();
    vec![
        recording.id.to_string(),
        format!("{} {}", &start[..10], &start[11..19]),
        format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60),
        word(&recording.state),
        recording.streams.len().to_string(),
        is_gone(recording)
            .then(|| "gone".to_owned())
            .or_else(|| {
                recording
                    .streams
                    .iter()
                    .map(|stream| stream.verdict)
                    .max_by_key(|verdict| match verdict {
                        Verdict::Complete => 0,
                        Verdict::Continuous => 1,
                        Verdict::Empty => 2,
                        Verdict::Gaps => 3,
                    })
                    .map(|verdict| word(&verdict))
            })
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
