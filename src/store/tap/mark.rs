//! Where a tap stands, as text: whoever has it can go on from there, by another process or on another day.
//!
//! ```text
//! 1 ; START . WRITTEN ; wWORKER . POSITION ; … ; sSOURCE . INDEX . ARRIVAL . TIMESTAMP . FRAME . WALL ; …
//! ```
//! Without the blanks; all numbers are hexadecimal. `w`: how far that worker's ring was read; `g` in its place:
//! that far and some of the segment behind. `s`: the last RTP
//! packet that was given out of each source, by which what follows is found where the ring holds it no longer,
//! and where in the output it was laid.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::base::ids::{SourceId, WorkerId};
use crate::base::time::Wall;

/// Bytes of text: a request to the server is one frame of 8 KiB.
const TEXT_BYTES_MAX: usize = 6_000;

/// The last packet of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastOf {
    /// Its index.
    pub index: u64,
    /// Its arrival, monotonic ns.
    pub arrival: u64,
    /// Its RTP timestamp.
    pub timestamp: u32,
    /// Where in the output its first sample was laid.
    pub frame: i64,
    /// Its arrival in wall time.
    pub wall: Wall,
}

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Wall time of the output's first sample.
    pub start: Wall,
    /// Frames that were written.
    pub written: u64,
    /// How far each ring was read, and whether exactly so far.
    pub rings: BTreeMap<WorkerId, (u64, bool)>,
    /// By source.
    pub sources: BTreeMap<SourceId, LastOf>,
}

/// Text that is no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a position as `tap` has told it")]
pub struct MarkError;

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1;{:x}.{:x}", self.start.0, self.written)?;
        for (worker, (position, exact)) in &self.rings {
            let key = if *exact { 'w' } else { 'g' };
            write!(f, ";{key}{:x}.{position:x}", worker.0)?;
        }
        for (source, last) in &self.sources {
            let LastOf { index, arrival, timestamp, frame, wall } = last;
            write!(
                f,
                ";s{:x}.{index:x}.{arrival:x}.{timestamp:x}.{frame:x}.{:x}",
                source.0, wall.0
            )?;
        }
        Ok(())
    }
}

impl FromStr for Mark {
    type Err = MarkError;

    fn from_str(text: &str) -> Result<Self, MarkError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(MarkError);
        }
        let mut parts = text.split(';');
        if parts.next() != Some("1") {
            return Err(MarkError);
        }
        let [start, written] = numbers(parts.next().ok_or(MarkError)?)?;
        let mut mark = Mark { start: Wall(start as i64), written, ..Mark::default() };
        for part in parts {
            if let Some(ring) = part.strip_prefix(['w', 'g']) {
                let [worker, position] = numbers(ring)?;
                let worker = u16::try_from(worker).map_err(|_| MarkError)?;
                mark.rings.insert(WorkerId(worker), (position, part.starts_with('w')));
            } else {
                let part = part.strip_prefix('s').ok_or(MarkError)?;
                let [source, index, arrival, timestamp, frame, wall] = numbers(part)?;
                let timestamp = u32::try_from(timestamp).map_err(|_| MarkError)?;
                let (frame, wall) = (frame as i64, Wall(wall as i64));
                let last = LastOf { index, arrival, timestamp, frame, wall };
                mark.sources.insert(SourceId(source), last);
            }
        }
        // What nobody's output can hold would only overflow later.
        let sane = |last: &LastOf| {
            last.frame.unsigned_abs() < 1 << 48 && last.index < 1 << 48 && last.wall.0 >= 0
        };
        let is_sane = mark.start.0 >= 0 && mark.written < 1 << 48;
        (is_sane && mark.sources.values().all(sane)).then_some(mark).ok_or(MarkError)
    }
}

/// `COUNT` hexadecimal numbers with dots between them; signed ones stand as their two's complement.
fn numbers<const COUNT: usize>(text: &str) -> Result<[u64; COUNT], MarkError> {
    let mut all = [0; COUNT];
    let mut parts = text.split('.');
    for one in &mut all {
        let part = parts.next().ok_or(MarkError)?;
        // A sign is none of ours, though the library takes it.
        if part.starts_with('+') {
            return Err(MarkError);
        }
        *one = u64::from_str_radix(part, 16).map_err(|_| MarkError)?;
    }
    if parts.next().is_some() { Err(MarkError) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::StreamId;
    use crate::base::prng::Prng;

    fn mark() -> Mark {
        let last = LastOf {
            index: 65_540,
            arrival: 77,
            timestamp: u32::MAX,
            frame: -160,
            wall: Wall(1_767_225_600_123_456_789),
        };
        Mark {
            start: Wall(1_767_225_600_000_000_000),
            written: 8_000,
            rings: BTreeMap::from([(WorkerId(0), (1 << 40, true)), (WorkerId(3), (0, false))]),
            sources: BTreeMap::from([(SourceId::new(StreamId(9), 1), last)]),
        }
    }

    #[test]
    fn what_is_told_is_understood() {
        let text = mark().to_string();
        assert_eq!(text.parse(), Ok(mark()), "{text}");
        assert_eq!("1;0.0".parse(), Ok(Mark::default()));
    }

    #[test]
    fn other_text_is_refused_and_never_more_than_that() {
        for bad in
            ["", "1", "2;0.0", "1;0", "1;0.0.0", "1;0.0;", "1;0.0;x1.2", "1;0.0;w1", "1;+0.0"]
        {
            assert_eq!(bad.parse::<Mark>(), Err(MarkError), "{bad}");
        }
        assert!(format!("1;0.0;w0.{}", "0".repeat(TEXT_BYTES_MAX)).parse::<Mark>().is_err());
        let good = mark().to_string().into_bytes();
        let mut random = Prng::new(5);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.below(128) as u8;
            let text = String::from_utf8(bytes).expect("ASCII");
            if let Ok(mark) = text.parse::<Mark>() {
                assert_eq!(mark.to_string().parse(), Ok(mark), "{text}");
            }
        }
    }
}
