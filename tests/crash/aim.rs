//! Kills aimed at instructions, by fault points (`src/base/faults`): random kills nearly always hit
//! buffers that are filled and not yet looked at.

use super::prng::Prng;

/// When a point is passed, which decides at which pass to die.
#[derive(Clone, Copy)]
enum Rate {
    /// For each packet or buffer.
    Packet,
    /// For each turn with packets.
    Turn,
    /// Once in a start.
    Start,
    /// In the recovery after a death that left something to recover.
    Recovery,
    /// For each Open.
    Command,
}

/// Every point of the receive path.
const POINTS: &[(&str, Rate)] = &[
    ("after_decrypt", Rate::Packet),
    ("after_body", Rate::Packet),
    ("after_intent", Rate::Packet),
    ("mid_state", Rate::Packet),
    ("after_state", Rate::Packet),
    ("after_head", Rate::Packet),
    ("after_intent_clear", Rate::Packet),
    ("after_fill", Rate::Turn),
    ("before_tail", Rate::Turn),
    ("after_tail", Rate::Turn),
    ("before_offer", Rate::Turn),
    ("before_arm", Rate::Start),
    ("in_recovery_scan", Rate::Recovery),
    ("in_recovery_append", Rate::Recovery),
    ("in_recovery_clear", Rate::Recovery),
    ("in_command", Rate::Command),
    ("after_command", Rate::Command),
];

/// A plan that kills media at each point once, in an order by seed, and the points in that order.
/// The n-th entry is for the n-th incarnation: an entry that is not reached stops them all, so the
/// count of starts proves that every point was hit.
pub(crate) fn plan(prng: &mut Prng, streams: u64) -> (String, Vec<&'static str>) {
    let mut commands: Vec<_> = of(|rate| matches!(rate, Rate::Command));
    let mut rest: Vec<_> = of(|rate| !matches!(rate, Rate::Command));
    for list in [&mut commands, &mut rest] {
        for place in (1..list.len()).rev() {
            list.swap(place, prng.below(place as u64 + 1) as usize);
        }
    }
    let mut entries = Vec::new();
    let mut start = 1;
    let mut points = Vec::new();
    let mut add = |point: &'static str, pass: u64| {
        points.push(point);
        entries.push(format!("worker.kill={point}:{pass}@{start}"));
        start += 1;
    };
    // While the calls are being set up, before there is any packet.
    for (place, (point, _)) in (1..).zip(commands) {
        add(point, 1 + prng.below(place * streams / 8 + 1));
    }
    let second = streams * 50;
    for (point, rate) in rest {
        match rate {
            // Each lives for more than a second, so that keeper answers each death at once.
            Rate::Packet => add(point, second + prng.below(second / 4)),
            Rate::Turn => add(point, 250 + prng.below(100)),
            Rate::Recovery => {
                // Killed with a batch in its hands.
                add("before_tail", 250 + prng.below(50));
                add(point, 1);
            }
            Rate::Start | Rate::Command => add(point, 1),
        }
    }
    (entries.join(","), points)
}

fn of(like: impl Fn(Rate) -> bool) -> Vec<(&'static str, Rate)> {
    POINTS.iter().copied().filter(|(_, rate)| like(*rate)).collect()
}
