//! What a row of the file holds, as bytes.
//!
//! postcard of: version, stream, worker, number of the segment, and what it is: gone (from, to), or an envelope.
//! Numbers that mostly follow each other are kept as differences. The key of the row stands in it, so that a row
//! that has come to stand elsewhere is found out; its sum, and its seal where the store is encrypted, are the
//! file's (`host/sqlite/peaks`).

use serde::{Deserialize, Serialize};

use super::canvas::Level;
use super::envelope::{Envelope, Mark, Rates};
use crate::base::ids::SourceId;
use crate::base::time::Wall;
use crate::store::segment::SegmentName;

/// Of these bytes.
const VERSION: u8 = 1;

/// No packet came before 1970, nor after 2116: what is reckoned from such times does not overflow.
const ARRIVAL_MAX: i64 = 1 << 62;

/// What is kept of one extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strip {
    /// What was heard.
    Heard(Envelope),
    /// It is gone by retention: when it was.
    Gone(Wall, Wall),
}

/// Why bytes are no strip.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StripError {
    /// Not postcard of one.
    #[error("not a row of peaks: {0}")]
    Form(String),
    /// Of another version.
    #[error("a row of peaks of version {0}, this program knows {VERSION}")]
    Version(u8),
    /// It is another row's.
    #[error("a row of peaks of another extent")]
    Elsewhere,
    /// It says what cannot be.
    #[error("a row of peaks that cannot be: {0}")]
    Impossible(&'static str),
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u8,
    source: u64,
    worker: u16,
    number: u64,
    what: What,
}

#[derive(Serialize, Deserialize)]
enum What {
    Gone(i64, i64),
    Heard(Heard),
}

#[derive(Serialize, Deserialize)]
struct Heard {
    ssrc: u32,
    /// Samples and ticks a second, channels, places of a block.
    rates: (u32, u32, u8),
    block: u32,
    /// Lowest, and how many more.
    indexes: (u64, u64),
    /// RTP time and arrival behind the mark before, ticks, packets missing.
    marks: Vec<(i32, i64, u32, u64)>,
    /// Blocks left out before it, lowest, highest, root of the mean square, places without a sample.
    levels: Vec<(i64, i16, i16, u16, u32)>,
}

impl Strip {
    /// The bytes of it as the row of `source` in `segment`.
    pub fn emit(&self, segment: SegmentName, source: SourceId) -> Vec<u8> {
        let what = match self {
            Strip::Gone(from, to) => What::Gone(from.0, to.0),
            Strip::Heard(envelope) => What::Heard(emit(envelope)),
        };
        let (worker, number) = (segment.worker.0, segment.number);
        let kept = Kept { version: VERSION, source: source.0, worker, number, what };
        postcard::to_allocvec(&kept).expect("nothing in it that postcard cannot")
    }

    /// Reads them. A strip has blocks in order and no more in a block than it has places for.
    pub fn parse(
        bytes: &[u8],
        segment: SegmentName,
        source: SourceId,
    ) -> Result<Strip, StripError> {
        let form = |error: postcard::Error| StripError::Form(error.to_string());
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(StripError::Version(other)),
            None => return Err(StripError::Form("it is empty".to_owned())),
        }
        let (kept, rest) = postcard::take_from_bytes::<Kept>(bytes).map_err(form)?;
        if !rest.is_empty() {
            return Err(StripError::Form(format!("{} bytes too many", rest.len())));
        }
        if (kept.source, kept.worker, kept.number) != (source.0, segment.worker.0, segment.number) {
            return Err(StripError::Elsewhere);
        }
        match kept.what {
            What::Gone(from, to) if from <= to => Ok(Strip::Gone(Wall(from), Wall(to))),
            What::Gone(..) => Err(StripError::Impossible("it ended before it began")),
            What::Heard(heard) => {
                let envelope = parse(heard, source.ordinal());
                envelope.map(Strip::Heard).map_err(StripError::Impossible)
            }
        }
    }
}

fn emit(envelope: &Envelope) -> Heard {
    let Rates { rate, clock_rate, channels } = envelope.rates;
    let (lowest, highest) = envelope.indexes;
    let mut before = (0_u32, 0_i64);
    let marks = envelope.marks.iter().map(|mark| {
        let (timestamp, arrival) = before;
        before = (mark.timestamp, mark.arrival.0);
        let step = mark.timestamp.wrapping_sub(timestamp) as i32;
        (step, mark.arrival.0.wrapping_sub(arrival), mark.ticks, mark.missing)
    });
    let marks = marks.collect();
    let mut next = 0;
    let levels = envelope.levels.iter().map(|(number, level)| {
        let skipped = number.wrapping_sub(next);
        next = number.wrapping_add(1);
        let Level { min, max, rms, frames } = *level;
        (skipped, min, max, rms, envelope.block.saturating_sub(frames))
    });
    Heard {
        ssrc: envelope.ssrc,
        rates: (rate, clock_rate, channels),
        block: envelope.block,
        indexes: (lowest, highest.saturating_sub(lowest)),
        marks,
        levels: levels.collect(),
    }
}

fn parse(heard: Heard, ordinal: u16) -> Result<Envelope, &'static str> {
    let Heard { ssrc, rates, block, indexes, marks, levels } = heard;
    let (rate, clock_rate, channels) = rates;
    if rate == 0 || clock_rate == 0 || channels == 0 || block == 0 {
        return Err("rates of nothing");
    }
    if marks.is_empty() && !levels.is_empty() {
        return Err("levels without a place");
    }
    let (lowest, more) = indexes;
    let highest = lowest.checked_add(more).ok_or("indexes beyond all")?;
    let mut before = (0_u32, 0_i64);
    let mut mark = |(step, arrival, ticks, missing): (i32, i64, u32, u64)| {
        before = (before.0.wrapping_add(step as u32), before.1.wrapping_add(arrival));
        Mark { timestamp: before.0, arrival: Wall(before.1), ticks, missing }
    };
    let marks: Vec<Mark> = marks.into_iter().map(&mut mark).collect();
    if marks.iter().any(|mark| !(0..ARRIVAL_MAX).contains(&mark.arrival.0)) {
        return Err("a time that is none");
    }
    let (mut next, mut known) = (0_i64, Vec::with_capacity(levels.len()));
    for (place, (skipped, min, max, rms, silent)) in levels.into_iter().enumerate() {
        if place > 0 && skipped < 0 {
            return Err("blocks out of order");
        }
        let number = next.checked_add(skipped).ok_or("blocks beyond all")?;
        next = number.checked_add(1).ok_or("blocks beyond all")?;
        let frames = block.checked_sub(silent).ok_or("less than nothing in a block")?;
        if min > max {
            return Err("a lowest sample above the highest");
        }
        known.push((number, Level { min, max, rms, frames }));
    }
    Ok(Envelope {
        ordinal,
        ssrc,
        rates: Rates { rate, clock_rate, channels },
        indexes: (lowest, highest),
        marks,
        block,
        levels: known,
    })
}
