//! F32: the roll-over counter of a source that was lost, or is behind after a long silence, found again by
//! trying, while the source's packets wait in quarantine. A source that nothing is known of is tried from 0
//! on, a known one upwards from what is known: what lies below is refused in any case.
//!
//! The nearest counters are tried as the packet comes ([`nearest`]), all others behind the turn's packets,
//! a bounded number of tags a turn: some with each packet, so that a forged one keeps no other from being
//! known, all of them with the oldest. A search is private memory: a successor finds the packets in their
//! buffers and begins it again.

use super::core::Core;
use super::intake::Packet;
use super::keys::Protection;
use super::quarantine::Again;
use crate::base::ids::{Index, Seq, Ssrc};
use crate::base::limits::{DATAGRAM_BYTES_MAX, SOURCES_PER_STREAM};
use crate::base::ports::{Datagrams, Region, WritableRegion};
use crate::base::suite::Suite;
use crate::base::time::Mono;
use crate::plane::handoff::datagram;
use crate::plane::handoff::source::SourceView;
use crate::store::record::{HEADER_BYTES, record_bytes};
use crate::wire::seq::{self, Verdict};

/// Tags tried in one turn as packets come, of all sources together: 64 × 0.4 µs, less than a full turn's
/// packets cost, so that nobody else's packet waits long.
pub(super) const TAGS_PER_TURN: u16 = 64;
/// And behind them. 65,536 tags are 256 turns: 1.3 s where each waits its whole 5 ms, within what a packet
/// waits. 256 × 0.4 µs are 2 % of such a turn.
pub(super) const SEARCHED_PER_TURN: u32 = 256;
/// As many where a turn was full, and more packets wait in the sockets.
pub(super) const SEARCHED_PER_FULL_TURN: u32 = 64;
/// Counters tried for one source before the next one's turn comes: 32 are half a day at 50 packets/s.
const CHUNK: u32 = 32;
/// Counters tried with each packet: 256 cycles are 93 hours at 50 packets/s. A source that sends as many
/// costs 12,800 tags a second so, a quarter of what there is at least.
const CYCLES: u32 = 256;
/// Counters tried with one packet before a source is given up: 995 days.
const CYCLES_MAX: u32 = 65_536;
/// Counters that every packet is tried with: forged ones must not drive the search past the true
/// one, which is nearly always among the first.
const NEAREST: u32 = 3;
/// A tag of 32 bits passes by chance once in 2^32 tries, and a search makes many: three packets
/// under the same counter prove it.
const SHORT_TAG_HITS: usize = 3;
/// After so long a silence a failing tag may mean a lost roll-over counter.
const RESYNC_SILENT_NS: u64 = 1_000_000_000;
/// Sources searched for at a time, of all streams; of one as many as it may have.
const HUNTS_MAX: usize = 64;
/// In a stream in which no counter fitted, not all are tried again for so long: forged packets cost no more
/// than one whole search in that time.
const REST_NS: u64 = 10_000_000_000;

/// The search for one source.
#[derive(Clone, Copy)]
struct Hunt {
    slot: u32,
    ssrc: Ssrc,
    /// The counter that it begins at, and how many from it on were tried with the oldest packet.
    first: u32,
    tried: u32,
    /// The next chunk is tried with the oldest packet.
    is_oldest_next: bool,
    /// An index that verified.
    near: Option<Index>,
    /// Enough packets did.
    is_found: bool,
    /// When the first packet came.
    since: Mono,
}

/// What is being searched for.
pub(super) struct Search {
    hunts: Vec<Hunt>,
    /// Whose turn it is.
    next: usize,
    /// No other whole search for a slot before.
    rests_until: Vec<Mono>,
}

/// What became of a hunt in its chunk.
enum Step {
    /// There is more to try.
    On,
    /// It waits for more packets.
    Waits,
    /// It has found the counter.
    Found,
    /// Nothing is left to try it with, or nothing to try.
    Over,
}

impl Search {
    pub(super) fn new(slot_count: usize) -> Self {
        let rests_until = vec![Mono(0); slot_count];
        Search { hunts: Vec::with_capacity(HUNTS_MAX), next: 0, rests_until }
    }

    /// An index of that source that was found.
    pub(super) fn found(&self, slot: u32, ssrc: Ssrc) -> Option<Index> {
        let mut hunts = self.hunts.iter();
        hunts.find(|hunt| hunt.is_found && hunt.slot == slot && hunt.ssrc == ssrc)?.near
    }

    /// It is recorded again.
    pub(super) fn end(&mut self, slot: u32, ssrc: Ssrc) {
        self.hunts.retain(|hunt| hunt.slot != slot || hunt.ssrc != ssrc);
    }

    /// The slot's keys are others, or its stream is.
    pub(super) fn forget(&mut self, slot: u32) {
        self.hunts.retain(|hunt| hunt.slot != slot);
        self.rests_until[slot as usize] = Mono(0);
    }
}

fn hits_wanted(suite: Suite) -> usize {
    if suite.rtp_tag_bytes() >= 10 { 1 } else { SHORT_TAG_HITS }
}

/// Whether the source was silent for so long before `arrival` that its counter may be another one.
pub(super) fn was_silent<R: Region>(source: SourceView<'_, R>, arrival: Mono) -> bool {
    arrival.since(Mono(source.account().last_arrival)) > RESYNC_SILENT_NS
}

/// Tries the counters from that of `highest` on with a packet whose nearest index did not verify.
/// `tries`: how many tags may still be tried so in this turn. `verify`: the length of the packet where it
/// is new and authentic under an index.
pub(super) fn nearest(
    highest: Index,
    seq: Seq,
    suite: Suite,
    tries: &mut u16,
    mut verify: impl FnMut(Index) -> Option<usize>,
) -> Option<(Index, usize)> {
    if hits_wanted(suite) > 1 {
        return None;
    }
    (0..NEAREST).find_map(|cycle| {
        *tries = tries.checked_sub(1)?;
        let index = Index::new(highest.roc().checked_add(cycle)?, seq);
        verify(index).map(|length| (index, length))
    })
}

impl<S: Region, G: WritableRegion> Core<S, G> {
    /// Begins a search with a packet that has just been put into quarantine, where its source is unknown
    /// or was silent.
    pub(super) fn seek(&mut self, packet: &Packet<'_>, ssrc: Ssrc) {
        let slot = packet.slot;
        let hunts = &self.search.hunts;
        let of_slot = hunts.iter().filter(|hunt| hunt.slot == slot);
        if hunts.len() >= HUNTS_MAX
            || of_slot.clone().count() >= SOURCES_PER_STREAM
            || of_slot.clone().any(|hunt| hunt.ssrc == ssrc)
        {
            return;
        }
        let first = match self.find_source(packet, ssrc).map(|place| self.source(slot, place)) {
            Some(source) if !was_silent(source, packet.arrival) => return,
            Some(source) => source.highest().map_or(0, |highest| highest.roc()),
            None => 0,
        };
        let since = packet.arrival;
        let rests = self.search.rests_until[slot as usize] > self.now.mono;
        let tried = if rests { CYCLES_MAX } else { CYCLES };
        self.search.hunts.push(Hunt {
            slot,
            ssrc,
            first,
            tried,
            is_oldest_next: false,
            near: None,
            is_found: false,
            since,
        });
    }

    /// Tries up to `tags` more tags, a chunk for each source in turn.
    pub(super) fn search(&mut self, engine: &impl Datagrams, tags: u32) {
        // A full ring has no room to try in.
        if self.writer.place(record_bytes(DATAGRAM_BYTES_MAX)).is_none() {
            return;
        }
        let (mut left, mut idle) = (tags, 0);
        while left > 0 && idle < self.search.hunts.len() {
            let place = self.search.next % self.search.hunts.len();
            let mut hunt = self.search.hunts[place];
            let step = self.follow(engine, &mut hunt, &mut left);
            self.search.hunts[place] = hunt;
            idle = if matches!(step, Step::On) { 0 } else { idle + 1 };
            match step {
                Step::On | Step::Waits => self.search.next = place + 1,
                Step::Found => {
                    self.search.next = place + 1;
                    self.quarantine.again(hunt.slot, Again::Yes);
                }
                Step::Over => {
                    self.search.hunts.swap_remove(place);
                    idle = 0;
                }
            }
        }
    }

    fn follow(&mut self, engine: &impl Datagrams, hunt: &mut Hunt, left: &mut u32) -> Step {
        let Some(oldest) = self.quarantine.of_source(hunt.slot, hunt.ssrc, 0) else {
            return Step::Over;
        };
        let Some(suite) = self.protection[hunt.slot as usize].suite() else { return Step::Over };
        if hunt.is_found {
            return Step::Waits;
        }
        // It is heard without us: what waits is not its own.
        let is_heard = |source: SourceView<'_, S>| {
            source.identity().is_some_and(|(own, _)| own == hunt.ssrc)
                && source.account().last_arrival > hunt.since.0
        };
        if self.sources(hunt.slot).any(is_heard) {
            return Step::Over;
        }
        if hunt.near.is_none() && !self.try_chunk(engine, hunt, oldest, left) {
            return Step::Waits;
        }
        let Some(near) = hunt.near else { return Step::On };
        let wanted = hits_wanted(suite);
        match self.hits(engine, hunt, near, wanted, left) {
            // What spoke for it waits no more, and nothing else does.
            0 => hunt.near = None,
            hits if hits >= wanted => {
                hunt.is_found = true;
                return Step::Found;
            }
            _ => return Step::Waits,
        }
        Step::On
    }

    /// Tries the next counters: the first ones with the oldest packet, then with a packet that is new here and
    /// with the oldest by turns. `false` where nothing is left to try.
    fn try_chunk(
        &mut self,
        engine: &impl Datagrams,
        hunt: &mut Hunt,
        oldest: (u16, Seq),
        left: &mut u32,
    ) -> bool {
        let chunk = CHUNK.min(*left);
        let untried = self.quarantine.untried(hunt.slot, hunt.ssrc, CYCLES);
        let is_over = hunt.tried >= CYCLES_MAX;
        let (from, to, (buffer, seq)) = match untried {
            Some(one) if is_over || !hunt.is_oldest_next || one.buffer == oldest.0 => {
                hunt.is_oldest_next = true;
                let from = one.tried;
                one.tried = CYCLES.min(from + chunk);
                let (_, seq) = one.flow.expect("it is of that SSRC");
                (from, one.tried, (one.buffer, seq))
            }
            None if is_over => return false,
            _ => {
                hunt.is_oldest_next = false;
                let from = hunt.tried;
                hunt.tried = CYCLES_MAX.min(from + chunk);
                if hunt.tried == CYCLES_MAX {
                    let rests_until = Mono(self.now.mono.0 + REST_NS);
                    self.search.rests_until[hunt.slot as usize] = rests_until;
                }
                (from, hunt.tried, oldest)
            }
        };
        for cycle in from..to {
            *left = left.saturating_sub(1);
            let Some(roc) = hunt.first.checked_add(cycle) else { break };
            let index = Index::new(roc, seq);
            if self.verifies(engine, hunt, buffer, index) {
                hunt.near = Some(index);
                break;
            }
        }
        true
    }

    /// How many waiting packets, each of another sequence number, verify near that index.
    fn hits(
        &mut self,
        engine: &impl Datagrams,
        hunt: &Hunt,
        near: Index,
        wanted: usize,
        left: &mut u32,
    ) -> usize {
        // Beyond what is left, if need be: to stop in the middle would forget what was found.
        let mut seqs = [None; SHORT_TAG_HITS];
        let mut hits = 0;
        let mut number = 0;
        while hits < wanted
            && let Some((buffer, seq)) = self.quarantine.of_source(hunt.slot, hunt.ssrc, number)
        {
            number += 1;
            let Some(index) = seq::estimate(Some(near), seq) else { continue };
            if seqs.contains(&Some(seq)) {
                continue;
            }
            *left = left.saturating_sub(1);
            if self.verifies(engine, hunt, buffer, index) {
                seqs[hits] = Some(seq);
                hits += 1;
            }
        }
        hits
    }

    /// Whether a waiting packet is new and authentic under an index. Its plain text goes where the next
    /// record will stand.
    fn verifies(
        &mut self,
        engine: &impl Datagrams,
        hunt: &Hunt,
        buffer: u16,
        index: Index,
    ) -> bool {
        let own =
            |source: &SourceView<'_, S>| source.identity().is_some_and(|(own, _)| own == hunt.ssrc);
        let source = self.sources(hunt.slot).find(own);
        if source.is_some_and(|source| seq::check(&source, index) != Verdict::New) {
            return false;
        }
        let Core { protection, writer, .. } = self;
        let Protection::Secure { current, .. } = &protection[hunt.slot as usize] else {
            return false;
        };
        self.touching = Some(buffer);
        let verifies = engine.look(buffer, |bytes| {
            let Some(datagram) = datagram::read(bytes) else { return false };
            let room = record_bytes(datagram.payload.len());
            writer.place(room).is_some_and(|position| {
                writer.lend(position, room, |out| {
                    current.unprotect_rtp(datagram.payload, index, &mut out[HEADER_BYTES..]).is_ok()
                })
            })
        });
        self.touching = None;
        verifies
    }
}
