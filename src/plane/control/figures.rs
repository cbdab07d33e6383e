//! What control knows of itself, for whoever watches it.

use super::actor::Control;
use crate::base::family::Family;
use crate::proto::sip::Tally;

/// Counts are since this control's start.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Why a new recording of one stream would be refused; `None`: it would be taken.
    pub obstacle: Option<String>,
    /// Recording Sessions that run.
    pub recordings: usize,
    /// Streams that have a port pair.
    pub streams: usize,
    /// Streams of which no media comes, though by the SRC's own reports or its metadata it should (F40).
    pub without_media: usize,
    /// As many as there may be.
    pub streams_max: usize,
    /// Port pairs that a new stream could have, by family.
    pub pairs_free: Vec<(Family, usize)>,
    /// What signalling has refused or dropped.
    pub refused: Tally,
    /// Calls and lines that the recording policy does not want.
    pub unwanted: u64,
    /// Wrong answers to digest challenges (F56).
    pub guesses: u64,
    /// Requests in a dialog from somebody else than the one who made it (F61).
    pub intruders: u64,
}

impl Control {
    /// As of now.
    pub fn figures(&self) -> Figures {
        let (used, free) = (self.slots.used(), self.slots.free());
        let settled = (!self.is_settled()).then(|| "what ran before is being taken up".to_owned());
        let families = Family::ALL.into_iter().filter(|family| self.slots.has(*family));
        Figures {
            obstacle: self.admission.obstacle(used, free, 1).or(settled),
            recordings: self.sessions.len(),
            streams: used,
            without_media: self.without_media.len(),
            streams_max: self.admission.streams_max,
            pairs_free: families.map(|family| (family, self.slots.free_of(family))).collect(),
            refused: self.sip.tally().clone(),
            unwanted: self.unwanted.total,
            guesses: self.guesses,
            intruders: self.intruders,
        }
    }
}
