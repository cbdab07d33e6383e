//! Packets that no key known yet verifies: media under a new key that came before the command with it
//! (F36), or of a source whose roll-over counter is being searched for (F32). They stay in their receive
//! buffers, which are neither cleared nor offered, and are handled again when what they wait for is
//! there, each with its own arrival. To a successor such a buffer is FILLED like any other (kill protocol
//! §1), so that a kill costs nothing: the scan handles it, or keeps it back again until its time is over.
//!
//! Nearly all that fails its tag is forged or broken. So what waits is bounded in time, for the worker,
//! and for each stream; where the bound of all is reached, whoever keeps the most gives way, and before
//! them senders that nobody knows: forgeries on some ports never take the room of a re-key on another.
//! What is refused, gives way, or waits in vain ends in the counter that it would have ended in at once.

use super::core::Core;
use super::intake::Packet;
use crate::base::counter::Counter;
use crate::base::ids::{Seq, Ssrc};
use crate::base::limits::{
    BUFFER_COUNT, QUARANTINE_MS, QUARANTINE_PACKETS, QUARANTINE_PER_STREAM, QUARANTINE_STRANGERS,
};
use crate::base::ports::{Datagrams, Region, WritableRegion};
use crate::base::time::Mono;
use crate::plane::handoff::layout::AT_CURRENT;
use crate::plane::handoff::slot::WAITED_SINCE;
use crate::wire::rtp::{Header, Kind, classify};

const QUARANTINE_NS: u64 = QUARANTINE_MS * 1_000_000;
const _: () = assert!(QUARANTINE_PACKETS * 4 <= BUFFER_COUNT as usize);

/// Whether a packet is to be handled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Nothing has changed for it.
    No,
    /// Once more, and then it goes on waiting.
    Yes,
    /// Once more, and then it is given up.
    Last,
}

/// A packet that waits.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    pub(super) buffer: u16,
    slot: u32,
    /// SSRC and sequence number; `None`: RTCP.
    pub(super) flow: Option<(Ssrc, Seq)>,
    /// Roll-over counters that were tried with it alone.
    pub(super) tried: u32,
    arrival: Mono,
    /// Where it ends if it waits in vain.
    counter: Counter,
    stranger: bool,
    again: Again,
}

/// The packets of one worker that wait. Private memory: a successor makes its own, from the buffers.
pub(super) struct Quarantine {
    /// In the order in which they were put here.
    waiting: Vec<Waiting>,
    /// How many are of each slot.
    of_slot: Vec<u16>,
    strangers: usize,
    room: usize,
    /// Buffers that are neither the turn's nor the engine's, a bit each.
    aside: [u64; BUFFER_COUNT as usize / 64],
    /// Those of them that wait no more, until they are given back.
    leaving: Vec<u16>,
    /// Some were put here since the turn asked.
    grown: bool,
}

impl Quarantine {
    pub(super) fn new(slot_count: usize) -> Self {
        Quarantine {
            waiting: Vec::with_capacity(QUARANTINE_PACKETS),
            of_slot: vec![0; slot_count],
            strangers: 0,
            room: 0,
            aside: [0; _],
            leaving: Vec::with_capacity(usize::from(BUFFER_COUNT)),
            grown: false,
        }
    }

    /// How many buffers the engine can spare.
    pub(super) fn set_room(&mut self, spare: usize) {
        self.room = spare.min(QUARANTINE_PACKETS);
    }

    /// Whether nothing waits or leaves.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.leaving.is_empty()
    }

    /// How many packets of a slot wait.
    pub(super) fn count(&self, slot: u32) -> u64 {
        self.of_slot[slot as usize].into()
    }

    /// Buffer and sequence number of a packet of one source that waits, counted from 0.
    pub(super) fn of_source(&self, slot: u32, ssrc: Ssrc, number: usize) -> Option<(u16, Seq)> {
        let mut of_source = self.waiting.iter().filter_map(|one| {
            let (own, seq) = one.flow?;
            (one.slot == slot && own == ssrc).then_some((one.buffer, seq))
        });
        of_source.nth(number)
    }

    /// The first packet of that source of which fewer than `most` counters were tried with it alone.
    pub(super) fn untried(&mut self, slot: u32, ssrc: Ssrc, most: u32) -> Option<&mut Waiting> {
        self.waiting.iter_mut().find(|one| {
            one.slot == slot && one.tried < most && one.flow.is_some_and(|(own, _)| own == ssrc)
        })
    }

    /// Whether a buffer must be neither cleared nor offered.
    pub(super) fn is_aside(&self, buffer: u16) -> bool {
        self.aside[usize::from(buffer / 64)] & 1 << (buffer % 64) != 0
    }

    /// Whether some were put here since this was asked last.
    #[inline]
    pub(super) fn has_grown(&mut self) -> bool {
        std::mem::take(&mut self.grown)
    }

    /// What a slot's packets wait for may be there.
    pub(super) fn again(&mut self, slot: u32, again: Again) {
        for one in self.waiting.iter_mut().filter(|one| one.slot == slot) {
            one.again = if one.again == Again::Last { Again::Last } else { again };
        }
    }

    /// The buffers that wait no more. Once they are given back, [`Self::left`].
    pub(super) fn leaving(&self) -> &[u16] {
        &self.leaving
    }

    /// They are the engine's again.
    pub(super) fn left(&mut self) {
        for buffer in self.leaving.drain(..) {
            self.aside[usize::from(buffer / 64)] &= !(1 << (buffer % 64));
        }
    }

    fn put(&mut self, one: Waiting) {
        self.of_slot[one.slot as usize] += 1;
        self.strangers += usize::from(one.stranger);
        self.aside[usize::from(one.buffer / 64)] |= 1 << (one.buffer % 64);
        self.grown = true;
        self.waiting.push(one);
    }

    /// `one` is in the list no more.
    fn release(&mut self, one: &Waiting) {
        self.of_slot[one.slot as usize] -= 1;
        self.strangers -= usize::from(one.stranger);
        self.leaving.push(one.buffer);
    }

    /// Who gives way to one more packet of `slot`: a stranger's newest, else the newest of whoever keeps
    /// the most, unless that is not more than `slot` would have then.
    fn gives_way(&self, slot: u32) -> Option<usize> {
        self.waiting.iter().rposition(|one| one.stranger).or_else(|| {
            let kept = |one: &Waiting| self.of_slot[one.slot as usize];
            let most = self.waiting.iter().max_by_key(|one| kept(one))?.slot;
            (self.count(most) > self.count(slot) + 1)
                .then(|| self.waiting.iter().rposition(|one| one.slot == most))?
        })
    }
}

impl<S: Region, G: WritableRegion> Core<S, G> {
    /// Keeps back a packet that no key verified and that would end in `counter`; `false` where there is no
    /// room for it, or it came too long ago.
    #[cold]
    pub(super) fn hold(&mut self, packet: &Packet<'_>, counter: Counter) -> bool {
        let stranger = !self.is_known(packet);
        if self.now.mono.since(packet.arrival) >= QUARANTINE_NS
            || !self.make_room(packet.slot, stranger)
        {
            return false;
        }
        let payload = packet.datagram.payload;
        let header = Header::parse(payload).ok().filter(|_| classify(payload) == Kind::Rtp);
        let flow = header.map(|header| (header.ssrc(), header.seq()));
        self.quarantine.put(Waiting {
            buffer: packet.buffer,
            slot: packet.slot,
            flow,
            tried: 0,
            arrival: packet.arrival,
            counter,
            stranger,
            again: Again::No,
        });
        self.dirty[packet.slot as usize] = true;
        if let Some((ssrc, _)) = flow {
            self.seek(packet, ssrc);
        }
        true
    }

    /// Whether it comes from an address that the SRC named or something proven came from.
    fn is_known(&self, packet: &Packet<'_>) -> bool {
        let (slot, ip) = (self.slot(packet.slot), packet.datagram.from.ip());
        let named = [slot.signalled(), slot.latched(), slot.heard()];
        let heard = self
            .sources(packet.slot)
            .filter(|source| source.identity().is_some())
            .map(|source| source.address());
        named.into_iter().chain(heard).flatten().any(|known| known.ip() == ip)
    }

    fn make_room(&mut self, slot: u32, stranger: bool) -> bool {
        let quarantine = &self.quarantine;
        let own = usize::from(quarantine.of_slot[slot as usize]);
        let (strangers, own_max) = QUARANTINE_STRANGERS;
        if own >= QUARANTINE_PER_STREAM
            || stranger && (own >= own_max || quarantine.strangers >= strangers)
        {
            return false;
        }
        if quarantine.waiting.len() < quarantine.room {
            return true;
        }
        let Some(place) = quarantine.gives_way(slot).filter(|_| !stranger) else { return false };
        let one = self.quarantine.waiting.remove(place);
        self.give_up_one(&one);
        true
    }

    /// Handles again what may be told now, and gives up what has waited too long.
    pub(super) fn release(&mut self, engine: &impl Datagrams) {
        let (mut kept, count) = (0, self.quarantine.waiting.len());
        for place in 0..count {
            let one = self.quarantine.waiting[place];
            let mut ended = None;
            if one.again != Again::No {
                self.state.store(AT_CURRENT, u64::from(one.buffer) + 1);
                self.touching = Some(one.buffer);
                ended = engine.look(one.buffer, |bytes| self.handle_again(one.buffer, bytes));
                self.touching = None;
            }
            let in_vain =
                one.again == Again::Last || self.now.mono.since(one.arrival) >= QUARANTINE_NS;
            if let Some(counter) = ended {
                self.count(counter);
                self.quarantine.release(&one);
            } else if in_vain {
                self.give_up_one(&one);
            } else {
                self.quarantine.waiting[kept] = Waiting { again: Again::No, ..one };
                kept += 1;
            }
        }
        self.quarantine.waiting.truncate(kept);
    }

    /// Gives up all that waits in a slot: its stream ends.
    pub(super) fn give_up(&mut self, slot: u32) {
        while let Some(place) = self.quarantine.waiting.iter().position(|one| one.slot == slot) {
            let one = self.quarantine.waiting.remove(place);
            self.give_up_one(&one);
        }
    }

    fn give_up_one(&mut self, one: &Waiting) {
        self.count_waited(one.slot, one.arrival, one.counter);
        self.count(one.counter);
        self.quarantine.release(one);
    }

    /// Counts a packet in its stream that came long before: the evidence reaches back to it.
    pub(super) fn count_waited(&mut self, number: u32, arrival: Mono, counter: Counter) {
        let slot = self.slot(number);
        let since = slot.word(WAITED_SINCE);
        if since == 0 || arrival.0 < since {
            slot.set(WAITED_SINCE, arrival.0.max(1));
        }
        slot.count(counter);
        self.dirty[number as usize] = true;
    }
}
