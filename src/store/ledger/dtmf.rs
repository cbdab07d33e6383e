//! DTMF digits in telephone-event packets (RFC 4733 §2.3, §3.2).

use std::collections::BTreeMap;

use crate::base::time::Wall;
use crate::store::catalog::model::Digit;

/// Digits kept per stream; a trader's line dials a few dozen a day.
const DIGITS_MAX: usize = 10_000;

/// The digits of one stream, by source and RTP timestamp: one event repeats its timestamp.
#[derive(Clone, Debug, Default)]
pub struct Digits(BTreeMap<(u16, u32, u8), Heard>);

#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Wall,
    duration: u16,
    clock_rate: u32,
}

impl Digits {
    /// Takes the payload of a telephone-event packet.
    pub fn packet(
        &mut self,
        ordinal: u16,
        timestamp: u32,
        payload: &[u8],
        clock_rate: u32,
        at: Wall,
    ) {
        // RFC 4733 §2.3: event (8), E R volume (8), duration (16).
        let Some(&[event, _, high, low]) = payload.get(..4).and_then(|four| four.first_chunk())
        else {
            return;
        };
        if event > 15 || self.0.len() >= DIGITS_MAX {
            return;
        }
        let duration = u16::from_be_bytes([high, low]);
        let heard = self.0.entry((ordinal, timestamp, event)).or_insert(Heard {
            at,
            duration,
            clock_rate: clock_rate.max(1),
        });
        heard.at = heard.at.min(at);
        heard.duration = heard.duration.max(duration);
    }

    /// The digits in order of time.
    pub fn digits(&self) -> Vec<Digit> {
        let mut digits: Vec<Digit> = self
            .0
            .iter()
            .map(|((_, _, event), heard)| Digit {
                at: heard.at,
                // RFC 4733 table 3: 0-9, *, #, A-D.
                digit: (b"0123456789*#ABCD"[usize::from(*event)] as char).to_string(),
                ms: u64::from(heard.duration) * 1_000 / u64::from(heard.clock_rate),
            })
            .collect();
        digits.sort_by_key(|digit| digit.at);
        digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_packets_are_one_digit_of_the_longest_duration() {
        let mut digits = Digits::default();
        for (at, duration) in [(10, 160_u16), (30, 320), (50, 800), (50, 800)] {
            let [high, low] = duration.to_be_bytes();
            digits.packet(1, 4_000, &[11, 0x0a, high, low], 8_000, Wall(at));
        }
        digits.packet(1, 9_000, &[5, 0x8a, 0, 80], 8_000, Wall(90));
        digits.packet(1, 9_500, &[16, 0, 0, 80], 8_000, Wall(95));
        digits.packet(1, 9_600, &[1, 0, 0], 8_000, Wall(96));
        assert_eq!(
            digits.digits(),
            [
                Digit { at: Wall(10), digit: "#".to_owned(), ms: 100 },
                Digit { at: Wall(90), digit: "5".to_owned(), ms: 10 },
            ]
        );
    }
}
