//! What a worker holds besides its engine: shared state, ring, derived keys, and the account of the
//! running batch.

use hdrhistogram::Histogram;

use super::arrival::Step;
use super::keys::Protection;
use super::quarantine::Quarantine;
use super::search::{Search, TAGS_PER_TURN};
use super::writer::Writer;
use crate::base::counter::Counter;
use crate::base::ids::{Index, Slot, SourceId, StreamId, WorkerId};
use crate::base::limits::{BUFFER_COUNT, SHARED_SOCKETS_MAX, SOURCES_PER_STREAM};
use crate::base::ports::{Region, WritableRegion};
use crate::base::time::{ClockMap, Mono};
use crate::plane::handoff::datagram;
use crate::plane::handoff::frame::Notice;
use crate::plane::handoff::layout::{AT_COUNTERS, AT_INCARNATION, AT_SHARED_DROPS, Geometry};
#[cfg(feature = "faults")]
use crate::plane::handoff::layout::{AT_INTENTS, INTENT_NONE};
use crate::plane::handoff::slot::{OPEN, SOCKET_DROPS, SOCKET_DROPS_SEEN, SlotView};
use crate::plane::handoff::source::SourceView;
use crate::store::event::Event;
use crate::store::record::{RecordKind, RecordMeta};

/// Notices that wait for room in the answer queue; more are dropped, the events in the ring stay.
pub(super) const NOTICES_MAX: usize = 256;
/// Keys of slots derived in a turn, 3 µs each: all of 2,500 slots within 40 turns.
const DERIVED_PER_TURN: u32 = 64;
/// wire→captured: 1 µs to 60 s with two significant digits, 21 KiB.
const CAPTURED_NS: (u64, u64) = (1_000, 60_000_000_000);
/// A turn's length: 1 µs to 10 s.
const TURN_NS: (u64, u64) = (1_000, 10_000_000_000);
/// See [`Core::touch`].
const TOUCHED_IN_SLOT: [usize; 4] = [0, 64, 136, 192];
const TOUCHED_IN_SOURCE: [usize; 7] = [0, 64, 128, 192, 256, 320, 384];
/// A packet that waits so long before it is in the ring: the worker has not the processor that it needs (F25).
const BEHIND_NS: u64 = 1_000_000_000;

/// Which slot a local port belongs to. One flat table: 256 KiB, one load per packet.
pub(super) struct Ports(Vec<u32>);

impl Ports {
    const NONE: u32 = u32::MAX;

    /// `rtp_ports[n]` is the RTP port of slot number n; the RTCP port is one above.
    pub(super) fn new(rtp_ports: &[u16]) -> Self {
        let mut table = vec![Self::NONE; 1 << 16];
        for (slot, port) in rtp_ports.iter().enumerate() {
            table[usize::from(*port)] = slot as u32 * 2;
            table[usize::from(*port) + 1] = slot as u32 * 2 + 1;
        }
        Ports(table)
    }

    /// Slot number and whether it is the RTCP port.
    #[inline]
    pub(super) fn find(&self, port: u16) -> Option<(u32, bool)> {
        let entry = self.0[usize::from(port)];
        (entry != Self::NONE).then_some((entry / 2, entry % 2 == 1))
    }
}

pub(super) struct Core<S, G> {
    pub(super) worker: WorkerId,
    pub(super) workers: u16,
    pub(super) geometry: Geometry,
    pub(super) state: S,
    pub(super) writer: Writer<G>,
    pub(super) ports: Ports,
    pub(super) rtp_ports: Vec<u16>,
    /// Which shared socket each slot's ports are steered to; empty where each has sockets of its own.
    steered: Vec<u8>,
    /// Slots of each shared socket.
    sharers: Vec<u32>,
    pub(super) protection: Vec<Protection>,
    /// Slots whose keys have been looked for since the start: the others' stand in shared state only.
    derived: Vec<bool>,
    derived_below: u32,
    /// Slots whose account has moved since evidence was last written.
    pub(super) dirty: Vec<bool>,
    /// Slots that failed authentication without pause: reported once.
    pub(super) failing: Vec<bool>,
    /// The buffer being handled: to blame for a panic.
    pub(super) touching: Option<u16>,
    pub(super) notices: Vec<Notice>,
    /// Both clocks of this turn.
    pub(super) now: ClockMap,
    /// The last step of the wall clock, as shared state has it.
    pub(super) step: Option<Step>,
    /// Low bits of the incarnation.
    pub(super) generation: u16,
    /// The longest datagram of each slot that was longer than a buffer, since evidence was last written.
    pub(super) oversize: Vec<u32>,
    /// Payload types of each slot that were told as not offered.
    told_types: Vec<u128>,
    /// How long the slowest packet of this second waited, and for how many seconds in a row one has waited
    /// too long.
    slowest_ns: u64,
    pub(super) behind_s: u32,
    turns: Histogram<u64>,
    /// Packets that no key verified yet.
    pub(super) quarantine: Quarantine,
    /// What their roll-over counters are.
    pub(super) search: Search,
    /// Tags that may still be tried in this turn, as packets come, to find a lost roll-over counter.
    pub(super) search_tries: u16,
    batch: [u64; Counter::ALL.len()],
    arrivals: Vec<u64>,
    captured: Histogram<u64>,
}

impl<S: Region, G: WritableRegion> Core<S, G> {
    pub(super) fn new(
        worker: WorkerId,
        workers: u16,
        geometry: Geometry,
        state: S,
        ring: G,
        rtp_ports: &[u16],
        steered: &[u8],
    ) -> Self {
        let slot_count = geometry.slot_count as usize;
        assert!(steered.is_empty() || steered.len() == slot_count, "all slots are steered or none");
        let mut sharers = vec![0; SHARED_SOCKETS_MAX];
        steered.iter().for_each(|shared| sharers[usize::from(*shared)] += 1);
        assert_eq!(rtp_ports.len(), slot_count, "a port pair for each slot");
        assert_eq!(ring.bytes() as u64, geometry.ring_bytes, "the ring that the geometry names");
        let captured = Histogram::new_with_bounds(CAPTURED_NS.0, CAPTURED_NS.1, 2)
            .expect("bounds and digits are constants in range");
        Core {
            worker,
            workers,
            geometry,
            generation: state.load(AT_INCARNATION) as u16,
            writer: Writer::new(ring, &state),
            state,
            ports: Ports::new(rtp_ports),
            rtp_ports: rtp_ports.to_vec(),
            steered: steered.to_vec(),
            sharers,
            protection: (0..slot_count).map(|_| Protection::Plain).collect(),
            derived: vec![false; slot_count],
            derived_below: 0,
            dirty: vec![true; slot_count],
            failing: vec![false; slot_count],
            touching: None,
            notices: Vec::with_capacity(NOTICES_MAX),
            now: ClockMap::default(),
            step: None,
            oversize: vec![0; slot_count],
            told_types: vec![0; slot_count],
            slowest_ns: 0,
            behind_s: 0,
            turns: Histogram::new_with_bounds(TURN_NS.0, TURN_NS.1, 2)
                .expect("bounds and digits are constants in range"),
            quarantine: Quarantine::new(slot_count),
            search: Search::new(slot_count),
            search_tries: TAGS_PER_TURN,
            batch: [0; Counter::ALL.len()],
            arrivals: Vec::with_capacity(usize::from(BUFFER_COUNT)),
            captured,
        }
    }

    /// Derives a slot's keys unless that was done. Before anything asks for its protection: a start
    /// that derived all of them first would keep every socket waiting.
    #[inline]
    pub(super) fn derive(&mut self, slot: u32) {
        if !self.derived[slot as usize] {
            self.derived[slot as usize] = true;
            self.protection[slot as usize] = Protection::load(self.slot(slot));
        }
    }

    /// Asks for the memory that a datagram in a filled buffer will need, for all of a batch before its first
    /// is handled: at thousands of streams hardly any of it is in the processor's caches, and what is asked
    /// for at once comes at once. Changes nothing.
    #[inline]
    pub(super) fn touch(&self, bytes: &[u8]) {
        let Some((number, _)) = datagram::port(bytes).and_then(|port| self.ports.find(port)) else {
            return;
        };
        let slot = self.slot(number);
        let source = self.source(number, 0);
        // A word in each line that a recorded packet reads or writes (`slot`, `source` have the layout).
        let words = TOUCHED_IN_SLOT.iter().fold(0, |all, at| all ^ slot.word(*at));
        let words = TOUCHED_IN_SOURCE.iter().fold(words, |all, at| all ^ source.word(*at));
        let keys = match &self.protection[number as usize] {
            Protection::Plain => 0,
            Protection::Secure { current, .. } => current.touch(),
        };
        std::hint::black_box((words, keys));
    }

    /// Derives the keys of the next few slots, so that in steady state no packet does.
    pub(super) fn derive_ahead(&mut self) {
        let end = self.geometry.slot_count.min(self.derived_below + DERIVED_PER_TURN);
        for slot in self.derived_below..end {
            self.derive(slot);
        }
        self.derived_below = end;
    }

    /// The word that holds the drops of the shared socket of a slot; `None` where it has its own.
    #[inline]
    pub(super) fn shared_drops_at(&self, slot: u32) -> Option<usize> {
        let shared = *self.steered.get(slot as usize)?;
        Some(AT_SHARED_DROPS + usize::from(shared) * 8)
    }

    /// What the sockets that receive for a slot have dropped since its stream opened, and whether other
    /// streams' packets may be among it.
    pub(super) fn socket_drops(&self, slot: u32) -> (u64, bool) {
        let view = self.slot(slot);
        match (self.shared_drops_at(slot), self.steered.get(slot as usize)) {
            (Some(at), Some(shared)) => {
                let grown = self.state.load(at).saturating_sub(view.word(SOCKET_DROPS_SEEN));
                (grown, self.sharers[usize::from(*shared)] > 1)
            }
            _ => (view.word(SOCKET_DROPS), false),
        }
    }

    #[inline]
    pub(super) fn slot(&self, slot: u32) -> SlotView<'_, S> {
        SlotView::new(&self.state, &self.geometry, slot)
    }

    pub(super) fn source(&self, slot: u32, place: usize) -> SourceView<'_, S> {
        SourceView::new(&self.state, &self.geometry, slot, place)
    }

    pub(super) fn sources(&self, slot: u32) -> impl Iterator<Item = SourceView<'_, S>> {
        (0..SOURCES_PER_STREAM).map(move |place| self.source(slot, place))
    }

    /// The number by which control knows slot number `slot` of this worker.
    pub(super) fn global_slot(&self, slot: u32) -> Slot {
        Slot(slot * u32::from(self.workers) + u32::from(self.worker.0))
    }

    /// This worker's number of a slot; `None` where it is another worker's or there is none such.
    pub(super) fn local_slot(&self, slot: Slot) -> Option<u32> {
        let local = slot.0 / u32::from(self.workers);
        let ours = slot.0 % u32::from(self.workers) == u32::from(self.worker.0);
        (ours && local < self.geometry.slot_count).then_some(local)
    }

    pub(super) fn is_open(&self, slot: u32) -> bool {
        self.slot(slot).has(OPEN)
    }

    /// Counts a datagram that ended; `arrival` where it was recorded.
    #[inline]
    pub(super) fn count(&mut self, counter: Counter) {
        self.batch[counter as usize] += 1;
    }

    #[inline]
    pub(super) fn note_arrival(&mut self, arrival: Mono) {
        if self.arrivals.len() < self.arrivals.capacity() {
            self.arrivals.push(arrival.0);
        }
    }

    /// Publishes the batch: the tail first, then its account. A kill between the two loses at most
    /// one batch of the account, never a record.
    pub(super) fn commit(&mut self, now: Mono) {
        self.writer.commit(&self.state);
        for (place, count) in self.batch.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            let word = AT_COUNTERS + place * 8;
            self.state.store(word, self.state.load(word) + *count);
            *count = 0;
        }
        for arrival in self.arrivals.drain(..) {
            let waited = now.since(Mono(arrival));
            self.slowest_ns = self.slowest_ns.max(waited);
            self.captured.saturating_record(waited);
        }
    }

    /// A turn has taken so long.
    pub(super) fn note_turn(&mut self, ns: u64) {
        self.turns.saturating_record(ns);
    }

    /// p50, p99, p99.9 and maximum of a turn's length.
    pub(super) fn turn_ns(&self) -> [u64; 4] {
        [50.0, 99.0, 99.9, 100.0].map(|percent| self.turns.value_at_percentile(percent))
    }

    /// Once a second: whether packets have waited too long for a second more.
    pub(super) fn note_waits(&mut self) {
        let waited = std::mem::take(&mut self.slowest_ns) > BEHIND_NS;
        self.behind_s = if waited { self.behind_s + 1 } else { 0 };
    }

    /// Whether a payload type that was not offered comes for the first time.
    #[cold]
    pub(super) fn is_new_type(&mut self, slot: u32, payload_type: u8) -> bool {
        let told = &mut self.told_types[slot as usize];
        let bit = 1 << (payload_type % 128);
        let is_new = *told & bit == 0;
        *told |= bit;
        is_new
    }

    /// The stream of a slot is another one, or its types are.
    pub(super) fn forget_types(&mut self, slot: u32) {
        self.told_types[slot as usize] = 0;
    }

    /// p50, p99, p99.9 and maximum of wire→captured.
    pub(super) fn captured_ns(&self) -> [u64; 4] {
        [50.0, 99.0, 99.9, 100.0].map(|percent| self.captured.value_at_percentile(percent))
    }

    /// Appends an event of a stream; `None` where the ring has no room.
    pub(super) fn append_event(&mut self, stream: StreamId, event: &Event) -> Option<u64> {
        self.append_event_payload(stream, &event.to_payload())
    }

    pub(super) fn append_event_payload(&mut self, stream: StreamId, payload: &[u8]) -> Option<u64> {
        let meta = RecordMeta {
            kind: RecordKind::Event,
            flags: 0,
            generation: self.generation,
            source: SourceId::new(stream, 0),
            index: Index(0),
            arrival: self.now.mono,
        };
        self.writer.append(&meta, payload)
    }

    /// Breaks the rule that receive buffers are read only, as if the packet just recorded had been
    /// decrypted in place: for the negative control.
    #[cfg(feature = "faults")]
    pub(super) fn spoil(
        &self,
        engine: &mut impl crate::base::ports::Datagrams,
        buffer: u16,
        counter: Counter,
    ) {
        use crate::plane::handoff::datagram::AT_PAYLOAD;
        use crate::store::record::HEADER_BYTES;
        let position = self.state.load(AT_INTENTS + usize::from(buffer) * 8);
        if counter == Counter::RtpRecorded && position != INTENT_NONE {
            let mut record = [0; HEADER_BYTES + 64];
            let length = self.writer.peek(position, &mut record);
            engine.overwrite(buffer, AT_PAYLOAD, &record[HEADER_BYTES.min(length)..length]);
        }
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        if self.notices.len() < NOTICES_MAX {
            self.notices.push(notice);
        }
    }
}
