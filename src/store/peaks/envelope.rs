//! What is kept of one source's records that stand together, an extent as a rule.
//!
//! Places are counted from its first packet of audio. A few of its packets are kept as *marks*: the first and the
//! last, one each ten seconds that was late by the least, and those around every hole. They are enough for
//! [`Placement`](crate::store::export::placement::Placement) to find the place of all of it behind other extents,
//! and for [`Timing`](crate::store::export::timing::Timing) to find when that was: it is handed marks as if they
//! were all that came.

use super::canvas::Level;
use crate::base::time::Wall;
use crate::store::export::decoder::Form;

/// How places, samples and RTP time go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Samples a second.
    pub rate: u32,
    /// Ticks of the RTP clock a second.
    pub clock_rate: u32,
    /// Channels.
    pub channels: u8,
}

impl From<Form> for Rates {
    fn from(form: Form) -> Self {
        let Form { rate, clock_rate, channels, .. } = form;
        Rates { rate, clock_rate, channels }
    }
}

impl Rates {
    /// Places in so many ticks, as [`Form::frames`].
    pub fn frames(&self, ticks: i64) -> i64 {
        scaled(ticks, self.rate, self.clock_rate)
    }

    /// Ticks in so many places.
    pub fn ticks(&self, frames: i64) -> i64 {
        scaled(frames, self.clock_rate, self.rate)
    }

    /// Places of a block of so many milliseconds, one at least. A tick is never cut.
    pub fn block(&self, ms: u32) -> i64 {
        let ticks = (u64::from(self.clock_rate) * u64::from(ms) / 1_000).max(1);
        self.frames(ticks as i64).max(1)
    }
}

fn scaled(count: i64, to: u32, from: u32) -> i64 {
    (i128::from(count) * i128::from(to)).div_euclid(i128::from(from.max(1))) as i64
}

/// A packet that says where others lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its RTP timestamp.
    pub timestamp: u32,
    /// When it came.
    pub arrival: Wall,
    /// Ticks from its first sample on in which no hole is told.
    pub ticks: u32,
    /// Packets that are missing in the hole before it.
    pub missing: u64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Number of the source in its stream.
    pub ordinal: u16,
    /// The source.
    pub ssrc: u32,
    /// Of its audio.
    pub rates: Rates,
    /// Lowest and highest index of its packets, audio or not.
    pub indexes: (u64, u64),
    /// In order of arrival; the first one is at place 0.
    pub marks: Vec<Mark>,
    /// Places of a block.
    pub block: u32,
    /// Levels by number of the block, which may be below 0.
    pub levels: Vec<(i64, Level)>,
}
