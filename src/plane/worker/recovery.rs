//! After the predecessor was reaped: what the shared receive buffers still hold is brought into the
//! ring, by the table of [`super::state`]. Dying anywhere in here leaves states that the same table
//! covers.

use std::collections::BTreeMap;

use super::core::Core;
use super::intake::{Packet, Taken, counted};
use super::keys::Protection;
use super::state::{BufferState, classify};
use super::strikes::Trust;
use crate::base::counter::Counter;
use crate::base::faults::fault;
use crate::base::ids::{Index, Seq, SourceId, Ssrc};
use crate::base::limits::{BUFFER_COUNT, DATAGRAM_BYTES_MAX, SOURCES_PER_STREAM};
use crate::base::ports::{Datagrams, Region, WritableRegion};
use crate::base::time::{Mono, Wall};
use crate::plane::handoff::datagram;
use crate::plane::handoff::layout::{AT_CURRENT, AT_INTENTS, AT_TAIL, INTENT_NONE};
use crate::store::record::{
    self, FLAG_AUTHENTICATED, HEADER_BYTES, PAYLOAD_BYTES_MAX, RecordKind, RecordMeta, record_bytes,
};
use crate::wire::rtp::{Header, Kind, classify as kind_of};
use crate::wire::seq;

/// What an uncommitted record says about the packet that it was made of.
#[derive(Clone, Copy)]
struct Hint {
    source: SourceId,
    index: Index,
    arrival: Mono,
    flags: u8,
}

#[derive(Clone, Copy)]
struct Found {
    buffer: u16,
    /// The wall clock was set between its stamp and now.
    before: bool,
    stamp: Wall,
    /// Where the stamp alone may be on either side of such a step: the flow, and the place in it.
    unsure: Option<((u16, Ssrc), Seq)>,
    accepted: Option<Option<Hint>>,
}

impl Found {
    /// Nothing is read of what panics.
    fn unread(buffer: u16) -> Found {
        Found { buffer, before: true, stamp: Wall::default(), unsure: None, accepted: None }
    }
}

/// Brings everything found into the ring and commits it. Returns how many datagrams there were.
pub(super) fn recover<E, S, G>(engine: &mut E, core: &mut Core<S, G>) -> u32
where
    E: Datagrams,
    S: Region,
    G: WritableRegion,
{
    let tail = core.state.load(AT_TAIL);
    let mut found = Vec::new();
    let mut poisoned = Vec::new();
    for buffer in 0..BUFFER_COUNT {
        core.touching = Some(buffer);
        let intent = core.state.load(AT_INTENTS + usize::from(buffer) * 8);
        let accepted = match classify(engine.head(buffer), intent, tail) {
            BufferState::Free => continue,
            BufferState::Committed => {
                // A recovery before this one stored it raw, and may not have come to count it.
                if core.trust(buffer) == Trust::Poison {
                    poisoned.push(buffer);
                }
                continue;
            }
            _ if core.trust(buffer) == Trust::Counted => continue,
            // Nothing is read of what panicked again and again.
            _ if core.trust(buffer) != Trust::Handle => {
                found.push(Found::unread(buffer));
                continue;
            }
            BufferState::Filled => None,
            // Read before anything is appended: the new records go where the old ones stand.
            BufferState::Accepted { position } => Some(engine.look(buffer, |bytes| {
                let datagram = datagram::read(bytes)?;
                core.hint(position, datagram.payload)
            })),
        };
        fault!("worker.in_recovery_scan");
        let one = engine.look(buffer, |bytes| core.found(buffer, bytes, accepted));
        found.push(one);
    }
    // The packet whose handling had begun last may be counted by halves; all others that were
    // accepted are complete. Finish it before another one becomes the current one.
    let current = core.state.load(AT_CURRENT);
    for one in found.iter().filter(|one| u64::from(one.buffer) + 1 == current) {
        core.touching = Some(one.buffer);
        if let Some(hint) = one.accepted {
            engine.look(one.buffer, |bytes| core.complete(one.buffer, bytes, hint));
        }
    }
    core.touching = None;
    core.announce_lost(tail);
    // The kernel's stamp keeps the order within a socket, and so within a flow.
    found.sort_by_key(|one| (!one.before, one.stamp, one.buffer));
    untangle(&mut found);
    for one in &found {
        core.touching = Some(one.buffer);
        let counter = match one.accepted {
            Some(hint) => {
                Some(engine.look(one.buffer, |bytes| core.append_again(one.buffer, bytes, hint)))
            }
            None => {
                core.state.store(AT_CURRENT, u64::from(one.buffer) + 1);
                engine.look(one.buffer, |bytes| match core.trust(one.buffer) {
                    Trust::Handle => core.handle(one.buffer, bytes),
                    Trust::Poison => Some(core.poison(one.buffer, bytes)),
                    Trust::Hopeless | Trust::Counted => Some(Counter::Poison),
                })
            }
        };
        // What waits for its keys goes on waiting where it is.
        if let Some(counter) = counter {
            core.count(counter);
        }
        fault!("worker.in_recovery_append");
    }
    core.touching = None;
    let now = core.now.mono;
    core.commit(now);
    // Not before: a recovery that panics at the next one stores this one again.
    let kept = found.iter().map(|one| one.buffer);
    poisoned.extend(kept.filter(|buffer| core.trust(*buffer) == Trust::Poison));
    for buffer in poisoned {
        let slot = engine.look(buffer, |bytes| core.packet(buffer, bytes).map(|one| one.slot));
        if let Ok(slot) = slot {
            core.count_poison(buffer, slot);
            fault!("worker.in_recovery_count");
        }
    }
    // Those that gave way to others meanwhile are cleared with all others.
    core.quarantine.left();
    for buffer in 0..BUFFER_COUNT {
        if core.quarantine.is_aside(buffer) {
            continue;
        }
        if engine.head(buffer) != 0 {
            engine.clear(buffer);
            fault!("worker.in_recovery_clear");
        }
        core.state.store(AT_INTENTS + usize::from(buffer) * 8, INTENT_NONE);
    }
    core.quarantine.has_grown();
    core.forget_strikes();
    core.state.store(AT_CURRENT, 0);
    found.len() as u32
}

/// Two runs of stamps that a clock which was set back a little has laid over each other: there the
/// sequence numbers say what came first. (F70)
fn untangle(found: &mut [Found]) {
    let mut flows: BTreeMap<(u16, Ssrc), Vec<usize>> = BTreeMap::new();
    for (place, one) in found.iter().enumerate() {
        if let Some((flow, _)) = one.unsure {
            flows.entry(flow).or_default().push(place);
        }
    }
    for places in flows.into_values() {
        let mut ones: Vec<Found> = places.iter().map(|place| found[*place]).collect();
        let seq = |one: &Found| one.unsure.map_or(0, |(_, seq)| seq.0);
        let first = seq(&ones[0]);
        ones.sort_by_key(|one| seq(one).wrapping_sub(first) as i16);
        places.into_iter().zip(ones).for_each(|(place, one)| found[place] = one);
    }
}

impl<S: Region, G: WritableRegion> Core<S, G> {
    fn found(&self, buffer: u16, bytes: &[u8], accepted: Option<Option<Hint>>) -> Found {
        let Some(datagram) = datagram::read(bytes) else {
            return Found { accepted, ..Found::unread(buffer) };
        };
        let arrival = self.arrival(datagram.stamp);
        let flow = || {
            let header = Header::parse(datagram.payload).ok()?;
            (kind_of(datagram.payload) == Kind::Rtp)
                .then_some(((datagram.port, header.ssrc()), header.seq()))
        };
        Found {
            buffer,
            before: arrival.before,
            stamp: datagram.stamp.unwrap_or_default(),
            unsure: arrival.unsure.then(flow).flatten(),
            accepted,
        }
    }

    /// What stands at `position`, if it is still the record of this packet: another kill during a
    /// recovery may have left anything there.
    fn hint(&self, position: u64, payload: &[u8]) -> Option<Hint> {
        let mut bytes = vec![0; record_bytes(PAYLOAD_BYTES_MAX.min(payload.len() + 256))];
        let length = self.writer.peek(position, &mut bytes);
        let record = record::read(&bytes[..length]).ok()?;
        // Header and SSRC are in the clear on the wire, so they must be the same in both.
        let clear = if kind_of(payload) == Kind::Rtp { 12 } else { 8 };
        let same = record.payload.get(..clear)? == payload.get(..clear)?;
        let meta = record.meta;
        let kind = matches!(meta.kind, RecordKind::Rtp | RecordKind::Rtcp);
        (same && kind).then_some(Hint {
            source: meta.source,
            index: meta.index,
            arrival: meta.arrival,
            flags: meta.flags,
        })
    }

    fn accepted_packet<'a>(
        &self,
        buffer: u16,
        bytes: &'a [u8],
        hint: Option<Hint>,
    ) -> Option<Packet<'a>> {
        let packet = self.packet(buffer, bytes).ok()?;
        Some(Packet { arrival: hint.map_or(packet.arrival, |hint| hint.arrival), ..packet })
    }

    fn accepted_place(&self, packet: &Packet<'_>, hint: Option<Hint>) -> Option<usize> {
        let ssrc = Header::parse(packet.datagram.payload).ok()?.ssrc();
        let by_ordinal = |hint: Hint| {
            (0..SOURCES_PER_STREAM).find(|place| {
                let identity = self.source(packet.slot, *place).identity();
                identity == Some((ssrc, hint.source.ordinal()))
            })
        };
        hint.and_then(by_ordinal).or_else(|| self.find_source(packet, ssrc))
    }

    /// Step 4 again for the packet whose step 4 may have been cut. Changes nothing if it was not.
    fn complete(&mut self, buffer: u16, bytes: &[u8], hint: Option<Hint>) {
        let Some(packet) = self.accepted_packet(buffer, bytes, hint) else { return };
        self.derive(packet.slot);
        let payload = packet.datagram.payload;
        // RTCP state (last report, SRTCP window) is overwritten by the next report; nothing of it
        // counts.
        if kind_of(payload) != Kind::Rtp {
            return;
        }
        let (Ok(header), Some(hint)) = (Header::parse(payload), hint) else { return };
        let suite = self.protection[packet.slot as usize].suite();
        let tag_bytes = suite.map_or(0, |suite| suite.rtp_tag_bytes());
        let length = payload.len().saturating_sub(tag_bytes);
        // As intake chose it: a new source may have been given the place of a silent one.
        let free = || self.free_place(&packet);
        let Some(place) = self.accepted_place(&packet, Some(hint)).or_else(free) else { return };
        let source = self.source(packet.slot, place);
        if counted(&source.account(), &packet) {
            return;
        }
        if hint.flags & FLAG_AUTHENTICATED != 0
            && source.highest().is_some_and(|highest| {
                seq::estimate(Some(highest), header.seq()) != Some(hint.index)
            })
        {
            // The record was made under a window that began anew (re-key).
            seq::reset(&mut self.source(packet.slot, place));
        }
        let current = match &self.protection[packet.slot as usize] {
            Protection::Plain => true,
            Protection::Secure { current, .. } => {
                let mut out = [0; DATAGRAM_BYTES_MAX];
                current.unprotect_rtp(payload, hint.index, &mut out).is_ok()
            }
        };
        let taken = Taken { place, ordinal: hint.source.ordinal(), index: hint.index, length };
        self.settle(&packet, taken, &header, current);
    }

    /// Events of sources that are in shared state but were never committed.
    fn announce_lost(&mut self, tail: u64) {
        for slot in 0..self.geometry.slot_count {
            if !self.is_open(slot) {
                continue;
            }
            for place in 0..SOURCES_PER_STREAM {
                let source = self.source(slot, place);
                if source.identity().is_some() && source.announced() >= tail {
                    self.announce(slot, place);
                }
            }
        }
    }

    /// An ACCEPTED packet: steps 2 and 3 without replay check; its state is complete.
    fn append_again(&mut self, buffer: u16, bytes: &[u8], hint: Option<Hint>) -> Counter {
        let Some(packet) = self.accepted_packet(buffer, bytes, hint) else {
            return Counter::Malformed;
        };
        self.derive(packet.slot);
        let payload = packet.datagram.payload;
        let Some(position) = self.writer.place(record_bytes(payload.len())) else {
            return Counter::RingFull;
        };
        if kind_of(payload) == Kind::Rtcp {
            return match self.open_rtcp(&packet, position) {
                Ok((length, proven)) => {
                    self.seal_rtcp(&packet, position, length, proven);
                    self.writer.accept(position, record_bytes(length));
                    Counter::RtcpRecorded
                }
                Err(counter) => counter,
            };
        }
        let Ok(header) = Header::parse(payload) else { return Counter::Malformed };
        let place = self.accepted_place(&packet, hint);
        let highest = place.and_then(|place| self.source(packet.slot, place).highest());
        let index = hint.map(|hint| hint.index).or_else(|| seq::estimate(highest, header.seq()));
        let own = place.and_then(|place| self.source(packet.slot, place).identity());
        // Its place may have gone to another source since, also of its SSRC; the intent knows whose it is.
        let ordinal = hint.map(|hint| hint.source.ordinal()).or(own.map(|(_, ordinal)| ordinal));
        let (Some(index), Some(ordinal)) = (index, ordinal) else { return Counter::Late };
        let bytes = record_bytes(payload.len());
        let Core { protection, writer, .. } = self;
        let (length, flags) = match &protection[packet.slot as usize] {
            Protection::Plain => {
                writer.lend(position, bytes, |out| {
                    out[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
                });
                (Some(payload.len()), 0)
            }
            Protection::Secure { current, previous, .. } => {
                let mut contexts = [Some(current), previous.as_deref()].into_iter().flatten();
                let length = contexts.find_map(|context| {
                    writer.lend(position, bytes, |out| {
                        context.unprotect_rtp(payload, index, &mut out[HEADER_BYTES..]).ok()
                    })
                });
                (length, FLAG_AUTHENTICATED)
            }
        };
        let Some(length) = length else { return Counter::AuthFailed };
        let meta = self.meta(&packet, RecordKind::Rtp, ordinal, index, flags);
        self.seal(buffer, position, length, &meta);
        self.writer.accept(position, record_bytes(length));
        Counter::RtpRecorded
    }

    /// Keeps a datagram raw that cannot be handled. Steps 2 and 3 as of any packet: without the
    /// intent, a kill between the commit and the clearing of its buffer would keep it twice. It has
    /// no state, so step 4 is empty. Where the ring has no room it is only counted.
    fn poison(&mut self, buffer: u16, bytes: &[u8]) -> Counter {
        let Ok(packet) = self.packet(buffer, bytes) else { return Counter::Malformed };
        let meta: RecordMeta = self.meta(&packet, RecordKind::Poison, 0, Index(0), 0);
        if let Some(position) = self.writer.append(&meta, packet.datagram.payload) {
            self.state.store(AT_INTENTS + usize::from(buffer) * 8, position);
            fault!("worker.after_intent");
        }
        Counter::Poison
    }
}
