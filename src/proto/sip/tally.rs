//! What was refused or dropped at the edge, by reason: bad input has a count and a name (F53).

use std::collections::BTreeMap;

/// Why something was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oddity {
    /// Answered here with that code, for no reason of its own below.
    Refused(u16),
    /// No message at all, or one that cannot be answered.
    Unreadable,
    /// A response to nothing that we asked.
    StrayResponse,
    /// A stream whose borders were lost; it was closed.
    FramingLost,
    /// A stream that did not finish a message in time; it was closed.
    SlowStream,
    /// A connection that gave way to others.
    Evicted,
}

impl Oddity {
    /// Short label of what is not answered; `None` for [`Oddity::Refused`], whose code says it.
    pub const fn label(self) -> Option<&'static str> {
        match self {
            Oddity::Refused(_) => None,
            Oddity::Unreadable => Some("unreadable"),
            Oddity::StrayResponse => Some("stray_response"),
            Oddity::FramingLost => Some("framing_lost"),
            Oddity::SlowStream => Some("slow_stream"),
            Oddity::Evicted => Some("evicted"),
        }
    }
}

/// Counts since the start.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<Oddity, u64>);

impl Tally {
    pub(super) fn count(&mut self, oddity: Oddity) {
        *self.0.entry(oddity).or_default() += 1;
    }

    /// How often that happened.
    pub fn of(&self, oddity: Oddity) -> u64 {
        self.0.get(&oddity).copied().unwrap_or(0)
    }

    /// All that happened at all.
    pub fn iter(&self) -> impl Iterator<Item = (Oddity, u64)> {
        self.0.iter().map(|(oddity, count)| (*oddity, *count))
    }

    /// What is new since `before`, in words; `None`: nothing.
    pub fn since(&self, before: &Tally) -> Option<String> {
        let new = self.iter().map(|(oddity, count)| (oddity, count - before.of(oddity)));
        let words: Vec<String> = new
            .filter(|(_, count)| *count > 0)
            .map(|(oddity, count)| match oddity {
                Oddity::Refused(code) => format!("{count} answered {code}"),
                Oddity::Unreadable => format!("{count} unreadable"),
                Oddity::StrayResponse => format!("{count} responses to nothing asked"),
                Oddity::FramingLost => format!("{count} streams closed, their framing lost"),
                Oddity::SlowStream => format!("{count} streams closed, too slow"),
                Oddity::Evicted => format!("{count} connections closed to make room"),
            })
            .collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}
