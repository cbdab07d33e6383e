//! Causes of gaps, by evidence only.

use std::collections::BTreeMap;

use super::evidence::{Drops, HostEvidence};
use super::presence::SILENCE_NS;
use super::runs::Hole;
use crate::base::counter::Cause;
use crate::base::time::Wall;
use crate::store::catalog::model::{Gap, Pause};

/// A statement that packets of a stream ended for a cause.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) cause: Cause,
    pub(super) from: Wall,
    pub(super) to: Wall,
    pub(super) count: u64,
    pub(super) ssrc: Option<u32>,
    pub(super) range: Option<(u64, u64)>,
    /// Other streams' packets may be among the count.
    pub(super) shared: bool,
}

impl Claim {
    fn meets(&self, ssrc: u32, span: (Wall, Wall)) -> bool {
        self.ssrc.is_none_or(|named| named == ssrc) && self.from <= span.1 && self.to >= span.0
    }

    /// Whether a drop counter of ours moved.
    fn is_local(&self) -> bool {
        matches!(self.cause, Cause::Nic | Cause::Socket | Cause::Ring) && self.count > 0
    }
}

/// A span in which nothing of the stream could be recorded, by its own `gap` event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dark {
    pub(super) cause: Cause,
    pub(super) from: Wall,
    pub(super) to: Wall,
}

/// Where a source ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    /// Its last index.
    pub(super) last: u64,
    /// When that came.
    pub(super) at: Wall,
    /// Mean time between its packets; 0: not known.
    pub(super) step_ns: u64,
}

/// Packets a second apart need no proof that nothing was sent in between ([`SILENCE_NS`]); so a hole
/// that begins and ends within a second of the dark span is that span's.
const EDGE_NS: i64 = SILENCE_NS;

/// Explains the gaps of one stream. What a claim or a counter has explained is used up.
pub(super) struct Blame<'a> {
    claims: &'a [Claim],
    left: Vec<u64>,
    dark: &'a [Dark],
    host: &'a HostEvidence,
    used: Vec<(Wall, Wall, u64, u64)>,
    /// More than one source has gaps: a claim that names none is shared.
    shared: bool,
}

/// The causes of one source's gaps.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    pub(super) lost: BTreeMap<Cause, u64>,
    pub(super) lost_range: BTreeMap<Cause, [u64; 2]>,
    pub(super) unexplained: u64,
    pub(super) gaps: Vec<Gap>,
}

impl Verdicts {
    fn take(&mut self, cause: Cause, count: u64, ambiguous: bool) {
        if count == 0 {
            return;
        }
        *self.lost.entry(cause).or_default() += count;
        let range = self.lost_range.entry(cause).or_default();
        range[0] += if ambiguous { 0 } else { count };
        range[1] += count;
        // A counter that others share moved: perhaps by theirs alone, and then the network took ours.
        if ambiguous && matches!(cause, Cause::Nic | Cause::Socket) {
            self.lost_range.entry(Cause::Net).or_default()[1] += count;
        }
    }

    /// When all is taken: a range that is no range says nothing that `lost` does not.
    pub(super) fn close(&mut self) {
        self.lost_range.retain(|_, [low, high]| low != high);
    }
}

impl<'a> Blame<'a> {
    pub(super) fn new(
        claims: &'a [Claim],
        dark: &'a [Dark],
        host: &'a HostEvidence,
        shared: bool,
    ) -> Self {
        let left = claims.iter().map(|claim| claim.count).collect();
        Blame { claims, left, dark, host, used: Vec::new(), shared }
    }

    pub(super) fn source(&mut self, ssrc: u32, holes: impl Iterator<Item = Hole>) -> Verdicts {
        let mut verdicts = Verdicts::default();
        for hole in holes {
            self.hole(ssrc, hole, &mut verdicts);
        }
        verdicts
    }

    fn hole(&mut self, ssrc: u32, hole: Hole, verdicts: &mut Verdicts) {
        let span = hole.span();
        let mut missing = hole.count();
        let mut causes: Vec<Cause> = Vec::new();
        // Drops of our own were counted in that time: all of them, so what is missing beyond them is
        // the network's. But which hole is whose cannot be told, hence at most.
        let mut beside_own = false;
        let mut local = false;
        // Statements with indexes first: they are exact. Then those that only name a time.
        for exact in [true, false] {
            for (claim, left) in self.claims.iter().zip(&mut self.left) {
                if claim.range.is_some() != exact || !claim.meets(ssrc, span) {
                    continue;
                }
                beside_own |= claim.is_local();
                let room = claim.range.map_or(missing, |(first, last)| {
                    (last.min(hole.last) + 1).saturating_sub(first.max(hole.first)).min(missing)
                });
                let taken = room.min(*left);
                if taken > 0 {
                    *left -= taken;
                    missing -= taken;
                    causes.push(claim.cause);
                    let ambiguous = claim.shared || self.shared && claim.ssrc.is_none();
                    verdicts.take(claim.cause, taken, ambiguous);
                }
            }
        }
        // Then the recorder's own absence: nobody counted anything meanwhile, so the host's counters
        // say nothing about it.
        if missing > 0
            && let Some((cause, sure)) = self.darkness(span)
        {
            verdicts.take(cause, missing, !sure);
            causes.push(cause);
            missing = 0;
        }
        let host = if missing > 0 { self.host.drops(span.0, span.1) } else { Drops::Unknown };
        if let Drops::Known { from, to, nic, socket } = host {
            local |= nic > 0 || socket > 0;
            let (nic_used, socket_used) = self.used_within(from, to);
            let nic = nic.saturating_sub(nic_used).min(missing);
            let socket = socket.saturating_sub(socket_used).min(missing - nic);
            missing -= nic + socket;
            self.used.push((from, to, nic, socket));
            // The host's counters are shared by all streams: perhaps none of it was ours.
            for (cause, count) in [(Cause::Nic, nic), (Cause::Socket, socket)] {
                verdicts.take(cause, count, true);
                causes.extend((count > 0).then_some(cause));
            }
        }
        if missing > 0 {
            let cause = if self.host.power_cut(span.0, span.1) {
                Some(Cause::Power)
            } else if host != Drops::Unknown && !local {
                Some(Cause::Net)
            } else {
                None
            };
            match cause {
                Some(cause) => {
                    verdicts.take(cause, missing, cause == Cause::Net && beside_own);
                    causes.push(cause);
                }
                None => verdicts.unexplained += missing,
            }
            if cause.is_none() {
                causes.clear();
            }
        }
        causes.dedup();
        verdicts.gaps.push(Gap {
            first: hole.first,
            last: hole.last,
            from: hole.from,
            to: hole.to,
            cause: if let [only] = causes[..] { Some(only) } else { None },
        });
    }

    /// A source that was heard until a dark span began and never again after it: nobody knows whether
    /// it went on, so what is missing is at most what it would have sent. No index bounds it.
    /// `absent`: dark spans that only an end can lie in.
    pub(super) fn tail(
        &self,
        tail: &Tail,
        absent: &[Dark],
        pauses: &[Pause],
        verdicts: &mut Verdicts,
    ) {
        let paused = |at: Wall| {
            pauses.iter().any(|pause| pause.from <= at && pause.to.is_none_or(|to| to > at))
        };
        let reaches = |dark: &&Dark| {
            tail.at.0.saturating_add(EDGE_NS) >= dark.from.0
                && tail.at < dark.to
                && !paused(dark.from)
        };
        let dark = self.dark.iter().chain(absent).filter(reaches).max_by_key(|dark| dark.to);
        let Some(dark) = dark else { return };
        let span = (dark.to.0 - tail.at.0) as u64;
        let count = span.checked_div(tail.step_ns).unwrap_or(1);
        if count == 0 {
            // The next one was not due yet.
            return;
        }
        verdicts.take(dark.cause, count, true);
        verdicts.gaps.push(Gap {
            first: tail.last + 1,
            last: tail.last + count,
            from: tail.at,
            to: dark.to,
            cause: Some(dark.cause),
        });
    }

    /// The cause of the dark spans that a hole meets, and whether all of the hole is theirs: packets
    /// that were lost before or after cannot be told from those lost in the dark.
    fn darkness(&self, span: (Wall, Wall)) -> Option<(Cause, bool)> {
        let mut met = self.dark.iter().filter(|dark| dark.from <= span.1 && dark.to >= span.0);
        let first = *met.next()?;
        let whole = met.fold(first, |all, dark| Dark {
            from: all.from.min(dark.from),
            to: all.to.max(dark.to),
            ..all
        });
        let sure = span.0.0.saturating_add(EDGE_NS) >= whole.from.0
            && span.1.0 <= whole.to.0.saturating_add(EDGE_NS);
        Some((whole.cause, sure))
    }

    fn used_within(&self, from: Wall, to: Wall) -> (u64, u64) {
        let overlapping = self.used.iter().filter(|(start, end, ..)| *start < to && *end > from);
        overlapping.fold((0, 0), |sum, (.., nic, socket)| (sum.0 + nic, sum.1 + socket))
    }
}
