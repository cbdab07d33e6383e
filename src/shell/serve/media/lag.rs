//! How long the oldest byte that is not durable has waited, told from the outside: a spool that
//! hangs in the kernel tells nothing (F14).

use std::collections::VecDeque;

use crate::base::time::Mono;

/// Samples kept at their full rate; beyond, one a second.
const SAMPLES: usize = 64;
/// An hour of stall.
const SAMPLES_MAX: usize = 3_600 + SAMPLES;

/// See the module.
pub(super) struct Lag {
    /// When the tail stood where, oldest first; all beyond the durable mark.
    samples: VecDeque<(Mono, u64)>,
    /// Everything that was there then is durable.
    covered: Mono,
    ms: u64,
}

impl Lag {
    pub(super) fn new(now: Mono) -> Self {
        Lag { samples: VecDeque::new(), covered: now, ms: 0 }
    }

    /// Takes both marks.
    pub(super) fn note(&mut self, now: Mono, tail: u64, durable: u64) {
        while let Some((at, _)) = self.samples.pop_front_if(|(_, tail)| *tail <= durable) {
            self.covered = at;
        }
        if durable >= tail {
            self.covered = now;
        }
        self.ms = now.since(self.covered) / 1_000_000;
        let due = self.samples.back().is_none_or(|(last, _)| now >= last.plus_ms(1_000));
        if durable < tail
            && self.samples.len() < SAMPLES_MAX
            && (due || self.samples.len() < SAMPLES)
        {
            self.samples.push_back((now, tail));
        }
    }

    /// Age of the oldest byte that is not durable, at most a sample's distance too long.
    pub(super) const fn ms(&self) -> u64 {
        self.ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f14_the_lag_grows_while_nothing_becomes_durable_and_falls_when_it_does() {
        let mut lag = Lag::new(Mono(0));
        let at = |ms: u64| Mono(ms * 1_000_000);
        for step in 1..=1_200 {
            lag.note(at(step * 50), step * 100, 200);
        }
        assert_eq!(lag.ms(), 60_000 - 100, "appended just after the second step");
        assert!(lag.samples.len() < 200);
        lag.note(at(60_050), 120_100, 60_000);
        assert!((29_000..=31_100).contains(&lag.ms()), "{}", lag.ms());
        lag.note(at(60_100), 120_100, 120_100);
        assert_eq!(lag.ms(), 0);
    }
}
