//! Evidence that belongs to the whole machine: drop counters of cards and kernel, power cuts, and
//! what the disk has lost.

use crate::base::time::{Mono, Wall};
use crate::store::event::{Event, HostDrops};

/// What the recorder's own event streams say, of all workers together.
#[derive(Clone, Debug, Default)]
pub struct HostEvidence {
    /// Counter samples in order of time; those that add nothing are left out.
    samples: Vec<(Wall, HostDrops)>,
    /// Starts under a new boot id: (last sign of life before, start).
    power_cuts: Vec<(Wall, Wall)>,
    /// Starts with new memory: what was captured before and was not durable is gone.
    absences: Vec<(Wall, Wall)>,
    losses: Vec<Loss>,
    boot: Option<String>,
    last_seen: Option<Wall>,
}

/// Records of a worker that no file holds any more: anybody's who was recorded then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When what stands before them was written.
    pub since: Wall,
    /// When what stands behind them was.
    pub until: Wall,
    /// They were durable: this is damage, and no cut explains it.
    pub durable: bool,
    /// They stand behind all segments of their worker: what is sealed to its end misses none of them.
    pub tail: bool,
    /// What was found.
    pub why: String,
}

/// What the counters say about a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drops {
    /// No samples on both sides: nothing is known.
    Unknown,
    /// The counters moved by this much between the samples around the span.
    Known {
        /// Sample before.
        from: Wall,
        /// Sample after.
        to: Wall,
        /// Card and kernel backlog.
        nic: u64,
        /// Socket layer.
        socket: u64,
    },
}

impl HostEvidence {
    /// Takes one event of a host stream. `wall` converts monotonic times of that boot.
    pub fn event(&mut self, arrival: Wall, wall: impl Fn(Mono) -> Wall, event: &Event) {
        match event {
            Event::HostDrops { from, to, before, after } => {
                self.sample(wall(*from), *before);
                self.sample(wall(*to), *after);
            }
            Event::Started { boot, lost_since, .. } => {
                // Each worker says it of its own records; a stream is one worker's.
                if let Some(lost) = lost_since.filter(|lost| *lost < arrival) {
                    self.absences.push((lost, arrival));
                }
                let since = self.last_seen.unwrap_or(arrival);
                if arrival < since {
                    // Another worker's earlier life, read after a later one.
                    return;
                }
                if self.boot.as_ref().is_some_and(|known| known != boot) {
                    self.power_cuts.push((since, arrival));
                    // Totals start anew with the boot: nothing may be read across it.
                    let place = self.samples.partition_point(|(time, _)| *time <= since);
                    let barrier = HostDrops { nic: u64::MAX, ..HostDrops::default() };
                    self.samples.insert(place, (since, barrier));
                }
                self.boot = Some(boot.clone());
            }
            Event::InDoubt { from, to, why, durable, since, until } => self.lose(Loss {
                since: since.unwrap_or(Wall(i64::MIN)),
                until: until.unwrap_or(arrival),
                durable: *durable,
                tail: false,
                why: format!("positions {from} to {to}: {why}"),
            }),
            _ => {}
        }
        self.last_seen = self.last_seen.max(Some(arrival));
    }

    fn sample(&mut self, at: Wall, drops: HostDrops) {
        let place = self.samples.partition_point(|(time, _)| *time < at);
        if self.samples.get(place).is_some_and(|(time, known)| *time == at && *known == drops) {
            return;
        }
        // A sample between two equal ones proves nothing more than they do.
        let left = place.checked_sub(1).map(|left| self.samples[left].1);
        let left_left = place.checked_sub(2).map(|left| self.samples[left].1);
        let right = self.samples.get(place).map(|(_, known)| *known);
        if left == Some(drops) && right == Some(drops) {
            return;
        }
        if right.is_none() && left == Some(drops) && left_left == Some(drops) {
            self.samples[place - 1].0 = at;
            return;
        }
        self.samples.insert(place, (at, drops));
    }

    /// How far the counters moved over `from..to`, by the nearest samples outside of it.
    pub fn drops(&self, from: Wall, to: Wall) -> Drops {
        let before = self.samples.partition_point(|(time, _)| *time <= from);
        let after = self.samples.partition_point(|(time, _)| *time < to);
        let (Some((start, first)), Some((end, last))) =
            (before.checked_sub(1).map(|place| self.samples[place]), self.samples.get(after))
        else {
            return Drops::Unknown;
        };
        if self.power_cut(start, *end) {
            return Drops::Unknown;
        }
        let moved = |last: u64, first: u64| last.checked_sub(first);
        match (
            moved(last.nic, first.nic),
            moved(last.softnet, first.softnet),
            moved(last.udp, first.udp),
        ) {
            (Some(nic), Some(softnet), Some(udp)) if last.nic != u64::MAX => Drops::Known {
                from: start,
                to: *end,
                nic: nic.saturating_add(softnet),
                socket: udp,
            },
            _ => Drops::Unknown,
        }
    }

    /// The last sample: what happened before it is judged the same, whatever comes.
    pub fn sampled_through(&self) -> Option<Wall> {
        // What bars the way across a boot is no sample.
        let last = self.samples.iter().rfind(|(_, drops)| drops.nic != u64::MAX);
        last.map(|(at, _)| *at)
    }

    /// Takes a loss that no event tells of yet.
    pub fn lose(&mut self, loss: Loss) {
        if !self.losses.contains(&loss) {
            self.losses.push(loss);
        }
    }

    /// What the disk has lost.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// From the last instant of which everything is on disk to the start with new memory, each time.
    pub fn absences(&self) -> &[(Wall, Wall)] {
        &self.absences
    }

    /// Whether the machine lost its power (or was booted anew) within the span.
    pub fn power_cut(&self, from: Wall, to: Wall) -> bool {
        self.power_cuts.iter().any(|(since, start)| *since <= to && *start >= from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono: Mono) -> Wall {
        Wall(mono.0 as i64)
    }

    fn span(host: &mut HostEvidence, from: u64, to: u64, before: u64, after: u64) {
        let drops = |nic| HostDrops { nic, ..HostDrops::default() };
        let event = Event::HostDrops {
            from: Mono(from),
            to: Mono(to),
            before: drops(before),
            after: drops(after),
        };
        host.event(Wall(to as i64), at, &event);
    }

    #[test]
    fn a_span_is_known_only_between_samples() {
        let mut host = HostEvidence::default();
        assert_eq!(host.drops(Wall(1), Wall(2)), Drops::Unknown);
        for second in 0..100 {
            span(&mut host, second * 10, second * 10 + 10, 7, 7);
        }
        assert!(host.samples.len() < 5, "unmoved counters take no memory");
        assert!(matches!(host.drops(Wall(505), Wall(777)), Drops::Known { nic: 0, .. }));
        assert_eq!(host.drops(Wall(990), Wall(1_001)), Drops::Unknown);
        span(&mut host, 1_000, 1_010, 7, 12);
        let Drops::Known { from, to, nic, .. } = host.drops(Wall(1_002), Wall(1_004)) else {
            panic!("covered");
        };
        assert_eq!((from, to, nic), (Wall(1_000), Wall(1_010), 5));
        assert!(matches!(host.drops(Wall(505), Wall(777)), Drops::Known { nic: 0, .. }));
    }

    #[test]
    fn a_new_boot_is_a_power_cut_and_ends_the_totals() {
        let mut host = HostEvidence::default();
        let started = |boot: &str| Event::Started {
            incarnation: 1,
            engine: "io_uring".to_owned(),
            map: Default::default(),
            boot: boot.to_owned(),
            recovered: 0,
            predecessor_last: None,
            lost_since: None,
        };
        host.event(Wall(1), at, &started("a"));
        span(&mut host, 10, 20, 3, 3);
        host.event(Wall(30), at, &started("a"));
        assert!(!host.power_cut(Wall(15), Wall(40)));
        host.event(Wall(50), at, &started("b"));
        span(&mut host, 60, 70, 3, 3);
        assert!(host.power_cut(Wall(35), Wall(55)));
        assert_eq!(host.drops(Wall(15), Wall(65)), Drops::Unknown);
    }
}
