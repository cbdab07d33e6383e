//! Names of segment files, and what the newest one says.

use std::io;
use std::path::{Path, PathBuf};

use super::footer::Trailer;
use super::read::{SegmentError, read_trailer};
use super::thin::open_segment;
use crate::base::ids::{Position, WorkerId};
use crate::base::ports::Disk;

/// Worker and number of a segment, as its file name tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Whose.
    pub worker: WorkerId,
    /// Its number, 1 first.
    pub number: u64,
}

impl SegmentName {
    /// The file name.
    pub fn file(&self) -> String {
        format!("w{}-{:010}.seg", self.worker.0, self.number)
    }

    /// The file name of what is left of it by retention.
    pub fn thinned_file(&self) -> String {
        format!("w{}-{:010}.kept", self.worker.0, self.number)
    }

    /// Reads a file name, of a whole segment or of a thinned one; `None` where it is neither.
    pub fn parse(file: &str) -> Option<Self> {
        let (stem, _) = file.rsplit_once('.')?;
        let (worker, number) = stem.strip_prefix('w')?.split_once('-')?;
        let name =
            SegmentName { worker: WorkerId(worker.parse().ok()?), number: number.parse().ok()? };
        (name.file() == file || name.thinned_file() == file).then_some(name)
    }
}

/// Where segments are.
pub fn folder(store: &Path) -> PathBuf {
    store.join("segments")
}

/// All segments of a store, whole or thinned, by worker and number.
pub fn list<D: Disk>(disk: &D, store: &Path) -> io::Result<Vec<SegmentName>> {
    let mut names: Vec<SegmentName> =
        disk.list(&folder(store))?.iter().filter_map(|file| SegmentName::parse(file)).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Those of which a thinned one is there.
pub fn list_thinned<D: Disk>(disk: &D, store: &Path) -> io::Result<Vec<SegmentName>> {
    let files = disk.list(&folder(store))?;
    let thinned = files.iter().filter(|file| file.ends_with(".kept"));
    let mut names: Vec<SegmentName> = thinned.filter_map(|file| SegmentName::parse(file)).collect();
    names.sort_unstable();
    Ok(names)
}

/// The highest number that a segment file of `worker` has (0: none), and the newest trailer that is
/// not damaged.
pub fn last_segment<D: Disk>(
    disk: &D,
    store: &Path,
    worker: WorkerId,
) -> io::Result<(u64, Option<Trailer>)> {
    let mine: Vec<SegmentName> =
        list(disk, store)?.into_iter().filter(|name| name.worker == worker).collect();
    let highest = mine.last().map_or(0, |name| name.number);
    for name in mine.iter().rev() {
        // Whatever is there instead, a pipe or a link to nothing: whoever is to take it away must know which.
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", name.file()));
        let file = open_segment(disk, store, *name).map_err(named)?;
        match read_trailer(&file) {
            Ok(trailer) => return Ok((highest, Some(trailer))),
            Err(SegmentError::Disk { source, .. })
                if source.kind() == io::ErrorKind::InvalidData => {}
            // F13: not damaged, only not read. Whoever went on from an older one would use its
            // positions twice and break the chain.
            Err(SegmentError::Disk { source, .. }) => return Err(source),
            Err(_) => {}
        }
    }
    Ok((highest, None))
}

/// Position up to which segments of `worker` exist; 0 where there is none.
pub fn sealed_through<D: Disk>(disk: &D, store: &Path, worker: WorkerId) -> io::Result<Position> {
    let (_, trailer) = last_segment(disk, store, worker)?;
    Ok(trailer.map_or(Position(0), |trailer| trailer.through))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_write_are_segments() {
        let name = SegmentName { worker: WorkerId(3), number: 17 };
        assert_eq!(name.file(), "w3-0000000017.seg");
        assert_eq!(SegmentName::parse(&name.file()), Some(name));
        assert_eq!(SegmentName::parse(&name.thinned_file()), Some(name));
        for other in [
            "w3-0000000017.seg.tmp",
            "w3-0000000017.kept.tmp",
            "w3-17.kept",
            "w3-17.seg",
            "w03-0000000017.seg",
            "x",
            "",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }
}
