//! Tells a role that hangs from one that is merely slow to be looked at (F07). A heartbeat is a
//! number that changes while its owner turns. Time alone proves nothing: a machine that slept, or a
//! keeper that got no processor, finds every heartbeat old. So a role hangs when keeper has looked
//! often enough, over a long enough time, and has seen no change.

use crate::base::time::Mono;

/// Looks without a change, at least.
const LOOKS_MIN: u32 = 10;

/// One heartbeat under watch.
#[derive(Clone, Copy, Debug)]
struct Pulse {
    value: u64,
    since: Mono,
    looks: u32,
}

/// Watches the heartbeats of one role.
#[derive(Debug)]
pub struct Watch {
    patience_ms: u64,
    pulses: Vec<Pulse>,
}

impl Watch {
    /// A watch that calls a role hung after `patience_ms` without a change of one of its heartbeats.
    pub const fn new(patience_ms: u64) -> Self {
        Watch { patience_ms, pulses: Vec::new() }
    }

    /// The role begins anew: what was seen before says nothing.
    pub fn reset(&mut self) {
        self.pulses.clear();
    }

    /// One look at all heartbeats; the number of one that stands still, if there is one.
    pub fn look(&mut self, now: Mono, values: &[u64]) -> Option<usize> {
        if self.pulses.len() != values.len() {
            self.pulses =
                values.iter().map(|value| Pulse { value: *value, since: now, looks: 0 }).collect();
            return None;
        }
        let mut still = None;
        for (number, (pulse, value)) in self.pulses.iter_mut().zip(values).enumerate() {
            if pulse.value != *value {
                *pulse = Pulse { value: *value, since: now, looks: 0 };
                continue;
            }
            pulse.looks += 1;
            let waited_ms = now.since(pulse.since) / 1_000_000;
            if pulse.looks >= LOOKS_MIN && waited_ms >= self.patience_ms {
                still.get_or_insert(number);
            }
        }
        still
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    #[test]
    fn f07_a_heartbeat_that_stands_still_for_its_patience_is_a_hang() {
        let mut watch = Watch::new(1_000);
        for look in 0..=10 {
            assert_eq!(watch.look(ms(look * 100), &[look, 7]), (look == 10).then_some(1));
        }
    }

    #[test]
    fn f07_a_machine_that_slept_kills_nobody() {
        let mut watch = Watch::new(1_000);
        assert_eq!(watch.look(ms(0), &[1]), None);
        assert_eq!(watch.look(ms(60_000), &[1]), None, "one look is no proof");
        assert_eq!(watch.look(ms(60_100), &[2]), None);
    }

    #[test]
    fn f07_a_new_process_is_watched_from_its_own_start() {
        let mut watch = Watch::new(1_000);
        for look in 0..10 {
            watch.look(ms(look * 100), &[1]);
        }
        watch.reset();
        assert_eq!(watch.look(ms(1_000), &[1]), None);
        assert_eq!(watch.look(ms(1_100), &[1]), None);
    }
}
