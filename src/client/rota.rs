//! When which stream sends: every stream once in each period, their phases spread evenly, all by
//! absolute intended times. A sender that was late catches up, it never slides.

use crate::base::time::Mono;

/// 50 packets/s.
pub const PERIOD_NS: u64 = 20_000_000;

/// The order of sending of `streams` streams.
#[derive(Clone, Debug)]
pub struct Rota {
    start: Mono,
    streams: u64,
    turns: u64,
}

impl Rota {
    /// Starts at `start`; `streams` ≥ 1.
    pub fn new(start: Mono, streams: usize) -> Self {
        Rota { start, streams: streams.max(1) as u64, turns: 0 }
    }

    /// When the next packet is intended to leave.
    pub fn due(&self) -> Mono {
        let (round, place) = (self.turns / self.streams, self.turns % self.streams);
        Mono(self.start.0 + round * PERIOD_NS + place * PERIOD_NS / self.streams)
    }

    /// The stream whose packet is due and the packet's number; `None` before its time.
    pub fn take(&mut self, now: Mono) -> Option<(usize, u64)> {
        if now < self.due() {
            return None;
        }
        let turn = (self.turns % self.streams, self.turns / self.streams);
        self.turns += 1;
        Some((turn.0 as usize, turn.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_sends_fifty_times_a_second_and_a_late_sender_catches_up() {
        let mut rota = Rota::new(Mono(1_000), 7);
        assert_eq!(rota.take(Mono(999)), None);
        let mut sent = [0_u64; 7];
        // Nothing was taken for a whole second: all of it is due at its end.
        while let Some((stream, number)) = rota.take(Mono(1_000 + 1_000_000_000 - 1)) {
            assert_eq!(number, sent[stream]);
            sent[stream] += 1;
        }
        assert_eq!(sent, [50; 7]);
        assert_eq!(rota.due(), Mono(1_000 + 1_000_000_000));
    }

    #[test]
    fn phases_are_spread_over_the_period() {
        let mut rota = Rota::new(Mono(0), 4);
        let due: Vec<u64> = (0..5)
            .map(|_| {
                let due = rota.due();
                rota.take(due).expect("its time has come");
                due.0
            })
            .collect();
        assert_eq!(due, [0, 5_000_000, 10_000_000, 15_000_000, 20_000_000]);
    }
}
