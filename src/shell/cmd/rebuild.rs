//! `floortape rebuild`: makes the catalogue again from journal and segments, and on request what is drawn of the audio.
//!
//! Extents of segments come from their footers; what is said of a recording that is over comes from its records, all
//! of them: gaps, contributors, digits and RTP times stand in no row. What it reads it believes where the sums agree;
//! whether it is what was sealed is `verify`'s to say, which believes no catalogue.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::parts::{Parts, cores};
use super::store::{Store, StoreArgs};
use crate::base::ids::StreamId;
use crate::host::sqlite::{self, peaks};
use crate::shell::exit::{Exit, Failure};
use crate::store::archive::ArchiveError;
use crate::store::catalog::Journalled;
use crate::store::catalog::library::Reading;
use crate::store::event::StreamDescription;
use crate::store::peaks::{Lines, Made, make};

/// Segments of one transaction, some 400 KB each of 2,000 lines: one costs three syncs.
const TOGETHER: usize = 32;

/// Make the catalogue anew from the journal and the segments
///
/// What was drawn of the audio is cleared as well: a server draws it again beside its work, and what is not drawn
/// `peaks` reads for itself.
#[derive(clap::Args)]
pub struct Args {
    /// Draw all audio at once, on all cores: it is decoded for that, which takes several times as long
    #[arg(long)]
    peaks: bool,
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
    drop(peaks::open_empty(&store.dir)?);
    let mut told = format!("{recordings} recordings, {segments} segments");
    if args.peaks {
        let drawn = draw(&store, &known)?;
        told = format!("{told}, {drawn} of them drawn");
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{told}")?;
    // A catalogue of less than there is: what cannot be read has been said.
    Ok(if store.is_unreadable() { Exit::Io } else { Exit::Yes })
}

/// Draws all segments, on all cores. Those that cannot be read as a whole are left out: who asks reads of them what
/// is there. Returns how many there are.
fn draw(store: &Store, known: &Journalled) -> Result<usize, Failure> {
    let streams = known.recordings.values().flat_map(|rs| &rs.streams);
    let streams: BTreeMap<StreamId, &StreamDescription> =
        streams.map(|(stream, entry)| (*stream, &entry.description)).collect();
    let names = store.bare_library()?.archive.segments()?;
    let file = Mutex::new(peaks::open_write(&store.dir)?);
    let (next, drawn) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let some = || -> Result<(), Failure> {
        let library = store.library_beside()?;
        let mut ask = |stream| streams.get(&stream).map(|one| (*one).clone());
        let mut batch = Vec::new();
        let keep = |batch: &mut Vec<Made>| {
            drawn.fetch_add(batch.len(), Ordering::Relaxed);
            file.lock().expect("nobody panics with it").put(&std::mem::take(batch))
        };
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            // Each by itself: the journal says what its streams are.
            let made = make(&library.archive, *name, &mut Lines::default(), &mut ask, &mut || true);
            match made {
                Ok(Some(made)) if made.is_whole => {
                    batch.push(made);
                    if batch.len() >= TOGETHER {
                        keep(&mut batch)?;
                    }
                }
                Ok(_) | Err(ArchiveError::Segment { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        keep(&mut batch)?;
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..cores())
            .map(|_| {
                scope.spawn(|| {
                    // The recorder may be at work beside us.
                    crate::host::process::give_way();
                    some()
                })
            })
            .collect();
        let own = some();
        let others = threads.into_iter().map(|one| match one.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        others.fold(own, |all, one| all.and(one))
    })?;
    Ok(drawn.into_inner())
}
