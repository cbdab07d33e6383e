//! One segment by itself, extent by extent, for whoever makes something of each once.

use super::reader::{Archive, ArchiveError};
use super::run::Run;
use crate::base::ports::Disk;
use crate::base::time::Wall;
use crate::store::segment::{
    EXTENT_HEADER_BYTES, ExtentReader, Row, SegmentName, clock_at, read_footer, read_trailer,
};

/// What a segment was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    /// Its first and last arrival; the other way round where nothing came.
    pub arrivals: (Wall, Wall),
    /// Extents that are gone by retention, by what the segment says of itself.
    pub gone: u64,
    /// Extents that could not be read, or not to their end.
    pub damaged: u64,
}

/// Is shown an extent, with its first and last arrival; `None`: it is gone by retention.
pub type Shown<'a> = &'a mut dyn FnMut(&Row, (Wall, Wall), Option<&mut Run<'_>>);

impl<D: Disk> Archive<D> {
    /// Shows `visitor` the extents of segment `name` that are `wanted`, in order of source. No log is looked at,
    /// and no other segment.
    pub fn visit_extents(
        &self,
        name: SegmentName,
        wanted: &mut dyn FnMut(&Row) -> bool,
        visitor: Shown<'_>,
    ) -> Result<Extents, ArchiveError> {
        let (file, path, opener) = (self.file(name)?, self.path(name), self.opener(name));
        let footer = read_trailer(&file).and_then(|trailer| read_footer(&file, trailer));
        let footer = footer.map_err(self.fault(name))?;
        let wall = |mono| clock_at(&footer.clocks, mono).wall(mono);
        let arrivals = |row: &Row| (wall(row.first_arrival), wall(row.last_arrival));
        let first = footer.rows.iter().map(|row| arrivals(row).0).min();
        let last = footer.rows.iter().map(|row| arrivals(row).1).max();
        let mut found = Extents {
            arrivals: (first.unwrap_or(Wall(i64::MAX)), last.unwrap_or(Wall(i64::MIN))),
            gone: file.thinned().map_or(0, |thinned| thinned.tail().gone),
            damaged: 0,
        };
        let mut reader = ExtentReader::default();
        for row in &footer.rows {
            if !wanted(row) {
                continue;
            }
            match reader.open(&file, row.offset, row.bytes, Some(&opener)) {
                Ok(extent)
                    if extent.header.number == name.number
                        && extent.header.source == row.source =>
                {
                    let first = [extent.header.clock];
                    let clocks = if extent.header.clocks > 1 { &*footer.clocks } else { &first };
                    let begins = row.offset + EXTENT_HEADER_BYTES as u64;
                    let of = (name.worker, Some(name));
                    let run = Run::new(of, (&path, begins), clocks, extent.records);
                    let mut run = Run { is_summed: extent.is_summed, ..run };
                    visitor(row, arrivals(row), Some(&mut run));
                    // What nobody wanted to see is checked all the same.
                    run.by_ref().for_each(drop);
                    found.damaged += u64::from(run.fault.is_some());
                }
                Err(error) if error.gone().is_some() => visitor(row, arrivals(row), None),
                _ => found.damaged += 1,
            }
        }
        Ok(found)
    }
}
