//! The snapshot: what stands of the journal up to a file, so that a start reads from there on.
//!
//! It is derived and never the only copy: one that is damaged, torn or of another version counts as
//! not there, and the journal is read whole. Its frames are those of the journal: a head, the
//! recordings that stand, the ones that are over. It counts what it holds, and is whole or nothing.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::frame;
use super::standing::{Over, Standing, Standings};
use crate::base::ids::{Generation, RsId, Slot, StreamId};
use crate::base::time::Wall;
use crate::store::log::Mark;

/// Version of the format.
pub const VERSION: u32 = 2;

/// What a line is; written first, as in every frame.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// The head: the first line.
    Snapshot,
    /// An RS that is up, or has just ended.
    Standing,
    /// An RS that is over.
    Over,
}

#[derive(Serialize, Deserialize)]
struct Line<T> {
    entry: Kind,
    body: T,
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    /// Id of the store that it was made for. Version 1 did not say it.
    #[serde(default)]
    volume: String,
    /// The last journal file that need not be read.
    through: u32,
    stream_ids: (StreamId, StreamId),
    alive: Wall,
    generations: Vec<(Slot, Generation)>,
    #[serde(default)]
    marks: Vec<Mark>,
    /// Lines of each kind that follow.
    standing: usize,
    over: usize,
}

/// The bytes of a snapshot of `standings`, through the journal file of that number. `None` where a
/// line is longer than a frame may be.
pub fn write(standings: &Standings, through: u32) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let head = Head {
        version: VERSION,
        volume: standings.volume.clone(),
        through,
        stream_ids: standings.stream_ids,
        alive: standings.alive,
        generations: standings.generations.iter().map(|(slot, used)| (*slot, *used)).collect(),
        marks: standings.marks.values().copied().collect(),
        standing: standings.recordings.len(),
        over: standings.over.len(),
    };
    let mut whole = frame::write(&Line { entry: Kind::Snapshot, body: head }, &mut out);
    for (rs, standing) in &standings.recordings {
        let body = (rs, &**standing);
        whole &= frame::write(&Line { entry: Kind::Standing, body }, &mut out);
    }
    for (rs, over) in &standings.over {
        let body = (rs, &**over);
        whole &= frame::write(&Line { entry: Kind::Over, body }, &mut out);
    }
    whole.then_some(out)
}

/// Reads a snapshot: through which file, and what stands. `None` where it is not whole, or of a
/// version that we do not know. Total: any input gives an answer.
pub fn read(bytes: &[u8]) -> Option<(u32, Standings)> {
    let mut at = 0;
    let head: Head = next(bytes, &mut at, Kind::Snapshot)?;
    if head.version != VERSION {
        return None;
    }
    let mut standings = Standings {
        volume: head.volume,
        stream_ids: head.stream_ids,
        alive: head.alive,
        generations: head.generations.into_iter().collect(),
        marks: head.marks.into_iter().map(|mark| (mark.worker, mark)).collect(),
        ..Standings::default()
    };
    for _ in 0..head.standing {
        let (rs, standing): (RsId, Standing) = next(bytes, &mut at, Kind::Standing)?;
        standings.recordings.insert(rs, Arc::new(standing));
    }
    for _ in 0..head.over {
        let (rs, over): (RsId, Over) = next(bytes, &mut at, Kind::Over)?;
        standings.over.insert(rs, Arc::new(over));
    }
    (at == bytes.len()).then_some((head.through, standings))
}

/// The store that a snapshot was made for, by its first frame: nothing else need be there. `None` where that
/// is not whole, or does not say it.
pub fn volume(bytes: &[u8]) -> Option<String> {
    let head: Head = next(bytes, &mut 0, Kind::Snapshot)?;
    (!head.volume.is_empty()).then_some(head.volume)
}

/// Whether a version before this one wrote it, as far as its first frame says.
pub fn is_older(bytes: &[u8]) -> bool {
    let head: Option<Head> = next(bytes, &mut 0, Kind::Snapshot);
    head.is_some_and(|head| head.version < VERSION)
}

fn next<T: DeserializeOwned>(bytes: &[u8], at: &mut usize, kind: Kind) -> Option<T> {
    let (line, size): (Line<T>, usize) = frame::read(&bytes[*at..])?;
    *at += size;
    (line.entry == kind).then_some(line.body)
}

#[cfg(test)]
mod tests {
    use super::super::standing_tests::history;
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_less_than_the_whole() {
        for seed in 0..50 {
            let mut standings = Standings::of(&history(seed, 80));
            standings.forget();
            let bytes = write(&standings, 7).expect("short lines");
            assert_eq!(read(&bytes), Some((7, standings)), "seed {seed}");
        }
        let bytes = write(&Standings::of(&history(1, 20)), 7).expect("short lines");
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_none(), "cut at {cut}");
            let mut bad = bytes.clone();
            bad[cut] ^= 4;
            assert!(read(&bad).is_none(), "byte {cut}");
        }
        assert!(read(&[&bytes[..], &bytes[..]].concat()).is_none(), "twice");
    }

    #[test]
    fn a_snapshot_says_whose_it_is_by_its_first_frame() {
        let standings = Standings { volume: "ours".to_owned(), ..Standings::of(&history(3, 40)) };
        let bytes = write(&standings, 7).expect("short lines");
        let first =
            frame::HEAD_BYTES + u32::from_le_bytes(*bytes.first_chunk().expect("4")) as usize;
        assert_eq!(volume(&bytes[..first]).as_deref(), Some("ours"));
        assert_eq!(volume(&bytes[..first - 1]), None);
        // Version 1, which did not say it, is not read: it might be anybody's.
        let mut at = 0;
        let mut head: Head = next(&bytes, &mut at, Kind::Snapshot).expect("just written");
        (head.version, head.volume) = (1, String::new());
        let mut older = Vec::new();
        frame::write(&Line { entry: Kind::Snapshot, body: head }, &mut older);
        older.extend_from_slice(&bytes[first..]);
        assert!(is_older(&older) && !is_older(&bytes));
        assert!(read(&older).is_none() && volume(&older).is_none());
    }

    #[test]
    fn a_version_that_we_do_not_know_is_not_there() {
        let bytes = write(&Standings::default(), 7).expect("short lines");
        let mut at = 0;
        let mut head: Head = next(&bytes, &mut at, Kind::Snapshot).expect("just written");
        head.version += 1;
        let mut newer = Vec::new();
        frame::write(&Line { entry: Kind::Snapshot, body: head }, &mut newer);
        assert!(read(&newer).is_none());
    }
}
