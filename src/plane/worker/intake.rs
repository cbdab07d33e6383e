//! One datagram: demultiplexed, authenticated in its receive buffer, decrypted into its record,
//! accepted. The order of the stores is the kill protocol's; each function says which step it is.

use super::core::Core;
use super::keys::Protection;
use super::quarantine::Again;
use super::search::{nearest, was_silent};
use crate::base::counter::Counter;
use crate::base::faults::fault;
use crate::base::ids::{Index, SourceId, Ssrc};
use crate::base::limits::SOURCES_PER_STREAM;
use crate::base::ports::{Region, WritableRegion};
use crate::base::time::Mono;
use crate::plane::handoff::datagram::{self, Datagram};
use crate::plane::handoff::frame::Notice;
use crate::plane::handoff::layout::AT_INTENTS;
use crate::plane::handoff::slot::{
    ACTIVE, AREA, CLOCK_RATE, CONTROL, KEY_CHANGED, LAST_ARRIVAL, MUX, NAT, NEXT_ORDINAL, OPEN,
    OPENED, SINCE, SOCKET_DROPS, SOCKET_DROPS_SEEN, SRTCP_HIGHEST as SLOT_SRTCP_HIGHEST,
    SRTCP_SSRC, STRANGE_REPORT, STRICT, SlotView,
};
use crate::plane::handoff::source::{Account, LastSr, SRTCP_AREA, SRTCP_HIGHEST, SourceView};
use crate::proto::srtp::receiver::{self, Epoch};
use crate::proto::srtp::{Context, Fail};
use crate::store::event::Event;
use crate::store::record::{
    self, FLAG_AUTHENTICATED, FLAG_RTCP_PORT, HEADER_BYTES, RecordKind, RecordMeta, record_bytes,
};
use crate::wire::rtcp::{Compound, Packet as RtcpPacket, SenderInfo};
use crate::wire::rtp::{Header, Kind, classify};
use crate::wire::seq::{self, Verdict};

/// A source that was silent for so long frees its place for a new SSRC (F30).
const SOURCE_SILENT_NS: u64 = 5_000_000_000;
/// Announced later: the ring had no room for the event.
pub(super) const UNANNOUNCED: u64 = u64::MAX;

/// A datagram on a port of ours.
#[derive(Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) buffer: u16,
    pub(super) slot: u32,
    pub(super) rtcp_port: bool,
    pub(super) datagram: Datagram<'a>,
    pub(super) arrival: Mono,
}

/// Where a datagram ends.
#[derive(Clone, Copy)]
struct Fate {
    counter: Counter,
    /// No key that is known verifies it: another one may (F36), or another roll-over counter (F32).
    unproven: bool,
}

impl From<Counter> for Fate {
    fn from(counter: Counter) -> Self {
        Fate { counter, unproven: false }
    }
}

/// What a packet that passed all checks is.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    pub(super) place: usize,
    pub(super) ordinal: u16,
    pub(super) index: Index,
    pub(super) length: usize,
}

/// A packet that passed all checks, its plain text standing in the ring at `position`.
struct Opened {
    position: u64,
    length: usize,
    index: Index,
    /// Its sender began a new context with a new key: a new source of the same SSRC begins with it.
    restart: bool,
    /// The roll-over counter was found again.
    resync: bool,
    /// By the key in force, not by the one before.
    current: bool,
    /// The highest index before, where this one lies more than half a cycle above it.
    jumped_from: Option<Index>,
    flags: u8,
}

impl<S: Region, G: WritableRegion> Core<S, G> {
    /// Finds slot and arrival; the counter says where the datagram ended if there is none.
    pub(super) fn packet<'a>(&self, buffer: u16, bytes: &'a [u8]) -> Result<Packet<'a>, Counter> {
        let datagram = datagram::read(bytes).ok_or(Counter::Malformed)?;
        let (slot, rtcp_port) = self.ports.find(datagram.port).ok_or(Counter::NoStream)?;
        let arrival = self.arrival(datagram.stamp).at;
        Ok(Packet { buffer, slot, rtcp_port, datagram, arrival })
    }

    /// Handles a FILLED buffer and says where its datagram ended; `None`: it waits in quarantine.
    pub(super) fn handle(&mut self, buffer: u16, bytes: &[u8]) -> Option<Counter> {
        let packet = match self.packet(buffer, bytes) {
            Ok(packet) => packet,
            Err(counter) => return Some(counter),
        };
        self.derive(packet.slot);
        if let Some(drops) = packet.datagram.socket_drops {
            self.note_socket_drops(packet.slot, packet.rtcp_port, drops);
        }
        let Fate { counter, unproven } = self.admit(&packet);
        if counter == Counter::Truncated {
            let longest = &mut self.oversize[packet.slot as usize];
            *longest = (*longest).max(packet.datagram.length.try_into().unwrap_or(u32::MAX));
        }
        match counter {
            Counter::RtpRecorded | Counter::RtcpRecorded => self.note_arrival(packet.arrival),
            Counter::NoStream => {}
            _ => {
                if unproven && self.hold(&packet, counter) {
                    return None;
                }
                self.slot(packet.slot).count(counter);
                self.dirty[packet.slot as usize] = true;
            }
        }
        Some(counter)
    }

    /// Handles a packet that waits, now that it may be told what it is; `None`: it cannot be told yet.
    pub(super) fn handle_again(&mut self, buffer: u16, bytes: &[u8]) -> Option<Counter> {
        let packet = match self.packet(buffer, bytes) {
            Ok(packet) => packet,
            Err(counter) => return Some(counter),
        };
        let Fate { counter, unproven } = self.admit(&packet);
        if unproven {
            return None;
        }
        // What it waited is no measure of the worker's pace.
        if !matches!(counter, Counter::RtpRecorded | Counter::RtcpRecorded | Counter::NoStream) {
            self.count_waited(packet.slot, packet.arrival, counter);
        }
        Some(counter)
    }

    /// SO_RXQ_OVFL counts over the socket's life; what it grew by belongs to the stream now open, or to
    /// those that share the socket.
    pub(super) fn note_socket_drops(&mut self, number: u32, rtcp_port: bool, drops: u32) {
        if let Some(at) = self.shared_drops_at(number) {
            let total = self.state.load(at);
            let grown = drops.wrapping_sub(total as u32);
            if grown != 0 && grown <= u32::MAX / 2 {
                self.state.store(at, total + u64::from(grown));
            }
            return;
        }
        let slot = self.slot(number);
        let word = SOCKET_DROPS_SEEN + usize::from(rtcp_port) * 8;
        let grown = drops.wrapping_sub(slot.word(word) as u32);
        // More than half the range is an older value that was queued behind a newer reading.
        if grown == 0 || grown > u32::MAX / 2 {
            return;
        }
        slot.set(word, u64::from(drops));
        slot.set(SOCKET_DROPS, slot.word(SOCKET_DROPS) + u64::from(grown));
        self.dirty[number as usize] = true;
    }

    fn admit(&mut self, packet: &Packet<'_>) -> Fate {
        let slot = self.slot(packet.slot);
        let control = slot.word(CONTROL);
        if control & OPEN == 0 || packet.arrival.0 < slot.word(OPENED) {
            return Counter::NoStream.into();
        }
        if packet.datagram.truncated {
            return Counter::Truncated.into();
        }
        let kind = match classify(packet.datagram.payload) {
            Kind::KeepAlive | Kind::Stun => return Counter::KeepAlive.into(),
            Kind::Dtls | Kind::Malformed => return Counter::Malformed.into(),
            Kind::Rtp if packet.rtcp_port => return Counter::Malformed.into(),
            kind => kind,
        };
        // What arrived before the direction changed is judged by the direction before (F60). A pause
        // is of media: reports go on and prove that nothing was sent (RFC 3264 §5.1).
        let active = (control & ACTIVE != 0) == (packet.arrival.0 >= slot.word(SINCE));
        if !active && kind == Kind::Rtp {
            return Counter::Paused.into();
        }
        let plain = matches!(self.protection[packet.slot as usize], Protection::Plain);
        let is_taken = match () {
            () if !plain => true,
            () if control & NAT != 0 => self.latches(packet, kind),
            () => control & STRICT == 0 || trusted(slot, packet),
        };
        if !is_taken {
            return Counter::Stranger.into();
        }
        if kind == Kind::Rtp { self.rtp(packet) } else { self.rtcp(packet) }
    }

    /// Whether plain RTP of an SRC behind address translation is taken (RFC 4961): from the first that
    /// sent an offered payload type, and from nobody else. Another port of that address with a known SSRC
    /// is that one still, whose binding is another now; anybody, once it has been silent for as long as a
    /// source that loses its place. Reports come from that address too.
    fn latches(&self, packet: &Packet<'_>, kind: Kind) -> bool {
        let (slot, from) = (self.slot(packet.slot), packet.datagram.from);
        let latched = slot.latched();
        if latched == Some(from) {
            return true;
        }
        let is_near = latched.is_some_and(|latched| latched.ip() == from.ip());
        if kind != Kind::Rtp {
            return is_near;
        }
        let Ok(header) = Header::parse(packet.datagram.payload) else { return is_near };
        if is_near && self.find_source(packet, header.ssrc()).is_some() {
            return true;
        }
        // By the accounts: they are whole, whatever a kill has cut.
        let last = self.sources(packet.slot).map(|source| source.account().last_arrival).max();
        let silent = packet.arrival.since(Mono(last.unwrap_or(0))) > SOURCE_SILENT_NS;
        (latched.is_none() || silent) && slot.offers(header.payload_type())
    }

    /// Notes where reports go from now on: to where authenticated ones come from (RFC 4961), and those of
    /// the only sender. On one port for both its media says it as well.
    fn note_way(&self, packet: &Packet<'_>) {
        let (slot, from) = (self.slot(packet.slot), packet.datagram.from);
        let proven = self.protection[packet.slot as usize].suite().is_some() || slot.has(NAT);
        if proven && (packet.rtcp_port || slot.has(MUX)) && slot.heard() != Some(from) {
            slot.set_heard(Some(from));
        }
    }

    fn rtp(&mut self, packet: &Packet<'_>) -> Fate {
        let Ok(header) = Header::parse(packet.datagram.payload) else {
            return Counter::Malformed.into();
        };
        let ssrc = header.ssrc();
        let known = self.find_source(packet, ssrc);
        let Some(place) = known.or_else(|| self.free_place(packet)) else {
            return Counter::TooManySources.into();
        };
        let Some(position) = self.writer.place(record_bytes(packet.datagram.payload.len())) else {
            return Counter::RingFull.into();
        };
        // Step 1: authenticate and replay check, both read only; step 2: the body.
        let opened = match self.open(packet, known, &header, position) {
            Ok(opened) => opened,
            Err(fate) => return fate,
        };
        fault!("worker.after_decrypt");
        // A context that begins anew is another source: its indexes lie anywhere beside those of before,
        // and what is between them was never sent.
        let goes_on = known.filter(|_| !opened.restart);
        let ordinal = match goes_on {
            Some(place) => self.source(packet.slot, place).identity().map_or(0, |(_, own)| own),
            None => self.slot(packet.slot).word(NEXT_ORDINAL) as u16,
        };
        let meta = self.meta(packet, RecordKind::Rtp, ordinal, opened.index, opened.flags);
        self.seal(packet.buffer, position, opened.length, &meta);
        let taken = Taken { place, ordinal, index: opened.index, length: opened.length };
        let is_new_type = self.settle(packet, taken, &header, opened.current);
        fault!("worker.after_state");
        self.writer.accept(opened.position, record_bytes(opened.length));
        if goes_on.is_none() {
            self.announce(packet.slot, place);
        }
        let slot = self.slot(packet.slot);
        let stream = slot.stream();
        let is_strange = is_new_type && slot.knows_types() && !slot.offers(header.payload_type());
        if opened.resync {
            let us = self.now.mono.since(packet.arrival) / 1_000;
            self.append_event(stream, &Event::RocResync { ssrc, roc: opened.index.roc(), us });
            self.search.end(packet.slot, ssrc);
            self.quarantine.again(packet.slot, Again::Yes);
        } else if let Some(from) = opened.jumped_from.filter(|_| goes_on.is_some()) {
            self.append_event(stream, &Event::Jump { ssrc, from, to: opened.index });
        }
        if is_strange && self.is_new_type(packet.slot, header.payload_type()) {
            let payload_type = header.payload_type();
            self.append_event(stream, &Event::PayloadType { ssrc, payload_type });
            let slot = self.global_slot(packet.slot);
            self.notice(Notice::PayloadType { slot, payload_type });
        }
        Counter::RtpRecorded.into()
    }

    /// The place of a source. SRTP: by SSRC, whatever authenticates is one source; so is the only sender
    /// behind address translation. Plain RTP: by SSRC and sender, where any port of the signalled address
    /// is the same sender (F31).
    pub(super) fn find_source(&self, packet: &Packet<'_>, ssrc: Ssrc) -> Option<usize> {
        let secure = self.protection[packet.slot as usize].suite().is_some()
            || self.slot(packet.slot).has(NAT);
        let from = packet.datagram.from;
        (0..SOURCES_PER_STREAM).find(|place| {
            let source = self.source(packet.slot, *place);
            if source.identity().is_none_or(|(own, _)| own != ssrc) {
                return false;
            }
            let Some(address) = source.address().filter(|_| !secure) else { return true };
            let signalled = || self.slot(packet.slot).signalled().map(|to| to.ip());
            address == from || (address.ip() == from.ip() && signalled() == Some(from.ip()))
        })
    }

    pub(super) fn free_place(&self, packet: &Packet<'_>) -> Option<usize> {
        (0..SOURCES_PER_STREAM).find(|place| {
            let source = self.source(packet.slot, *place);
            source.identity().is_none()
                || packet.arrival.since(Mono(source.account().last_arrival)) > SOURCE_SILENT_NS
        })
    }

    /// Steps 1 and 2 for RTP.
    fn open(
        &mut self,
        packet: &Packet<'_>,
        known: Option<usize>,
        header: &Header<'_>,
        position: u64,
    ) -> Result<Opened, Fate> {
        let payload = packet.datagram.payload;
        let bytes = record_bytes(payload.len());
        // Nothing was recorded since the key came: no number can be a repeated one under it.
        let unused = self.slot(packet.slot).word(KEY_CHANGED) == 0;
        let Core { state, geometry, protection, writer, .. } = self;
        let window = known.map(|place| SourceView::new(state, geometry, packet.slot, place));
        let highest = window.and_then(|window| window.highest());
        let verdict = |index| window.map_or(Verdict::New, |window| seq::check(&window, index));
        let mut opened = Opened {
            position,
            length: payload.len(),
            index: Index(0),
            restart: false,
            resync: false,
            current: true,
            jumped_from: None,
            flags: if packet.rtcp_port { FLAG_RTCP_PORT } else { 0 },
        };
        let (current, anew) = match &protection[packet.slot as usize] {
            Protection::Plain => {
                opened.index = plain_index(window, highest, header, verdict)?;
                opened.jumped_from =
                    highest.filter(|highest| opened.index.0 > highest.0 + (1 << 15));
                writer.lend(position, bytes, |out| {
                    out[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
                });
                return Ok(opened);
            }
            Protection::Secure { current, anew, .. } => (current, *anew),
        };
        opened.flags |= FLAG_AUTHENTICATED;
        let mut attempt = |context: &Context, index: Index| {
            writer.lend(position, bytes, |out| {
                context.unprotect_rtp(payload, index, &mut out[HEADER_BYTES..])
            })
        };
        let mut refused = None;
        let epoch = if anew { Epoch::Fresh } else { Epoch::Running };
        for index in receiver::candidates(highest, header.seq(), epoch) {
            opened.restart = anew
                && (receiver::restarts(highest, index) || unused && verdict(index) != Verdict::New);
            match verdict(index) {
                Verdict::Replayed if !opened.restart => refused = Some(Counter::Replayed),
                Verdict::Late if !opened.restart => refused = Some(Counter::Late),
                _ => match attempt(current, index) {
                    Ok(length) => return Ok(Opened { index, length, ..opened }),
                    Err(Fail::Malformed) => return Err(Counter::Malformed.into()),
                    Err(_) => refused = Some(Counter::AuthFailed),
                },
            }
        }
        opened.restart = false;
        self.open_otherwise(packet, known, header, opened, refused)
    }

    /// The same for what the nearest indexes under the key in force did not verify: the key before, another
    /// roll-over counter, or nothing that is known. Apart, so that the usual packet does not pay for it.
    #[inline(never)]
    fn open_otherwise(
        &mut self,
        packet: &Packet<'_>,
        known: Option<usize>,
        header: &Header<'_>,
        opened: Opened,
        refused: Option<Counter>,
    ) -> Result<Opened, Fate> {
        let payload = packet.datagram.payload;
        let Core { state, geometry, protection, writer, search, search_tries: tries, .. } = self;
        let window = known.map(|place| SourceView::new(state, geometry, packet.slot, place));
        let highest = window.and_then(|window| window.highest());
        let verdict = |index| window.map_or(Verdict::New, |window| seq::check(&window, index));
        let Protection::Secure { current, previous, .. } = &protection[packet.slot as usize] else {
            return Err(Counter::Late.into());
        };
        let previous = previous.as_deref();
        let mut attempt = |context: &Context, index: Index| {
            writer.lend(opened.position, record_bytes(payload.len()), |out| {
                context.unprotect_rtp(payload, index, &mut out[HEADER_BYTES..])
            })
        };
        let near = seq::estimate(highest, header.seq());
        if let Some(previous) = previous
            && let Some(index) = near
            && verdict(index) == Verdict::New
            && let Ok(length) = attempt(previous, index)
        {
            return Ok(Opened { index, length, current: false, ..opened });
        }
        // F32: after a silence the nearest index may be cycles behind, or lie where nothing is new.
        let mut verify = |index| {
            (verdict(index) == Verdict::New).then(|| attempt(current, index).ok()).flatten()
        };
        let found = search.found(packet.slot, header.ssrc());
        let found = found.and_then(|found| seq::estimate(Some(found), header.seq()));
        let mut found = found.and_then(|index| Some((index, verify(index)?)));
        if let (None, Some(highest), Some(window)) = (found, highest, window)
            && was_silent(window, packet.arrival)
        {
            found = nearest(highest, header.seq(), current.suite(), tries, verify);
        }
        if let Some((index, length)) = found {
            return Ok(Opened { index, length, resync: true, ..opened });
        }
        // No candidate at all: the nearest index would lie below 0.
        let counter = refused.unwrap_or(Counter::Late);
        // A repetition of what is ours, and nothing that another key could make new.
        let proven = counter != Counter::AuthFailed
            && near.is_some_and(|index| {
                let mut contexts = [Some(current), previous].into_iter().flatten();
                contexts.any(|context| attempt(context, index).is_ok())
            });
        Err(Fate { counter, unproven: !proven })
    }

    pub(super) fn meta(
        &self,
        packet: &Packet<'_>,
        kind: RecordKind,
        ordinal: u16,
        index: Index,
        flags: u8,
    ) -> RecordMeta {
        RecordMeta {
            kind,
            flags,
            generation: self.generation,
            source: SourceId::new(self.slot(packet.slot).stream(), ordinal),
            index,
            arrival: packet.arrival,
        }
    }

    /// Ends step 2 (header and sum), then step 3: the intent, by which a successor knows that the
    /// packet has passed all checks.
    pub(super) fn seal(&mut self, buffer: u16, position: u64, length: usize, meta: &RecordMeta) {
        self.writer.lend(position, record_bytes(length), |out| {
            record::seal_in_place(meta, length, out);
        });
        fault!("worker.after_body");
        self.state.store(AT_INTENTS + usize::from(buffer) * 8, position);
        fault!("worker.after_intent");
    }

    /// Step 4 for RTP: the source's state, in an order in which doing it again changes nothing. `current`: it
    /// is under the key in force. Whether its payload type is another one than that of the packet before.
    pub(super) fn settle(
        &mut self,
        packet: &Packet<'_>,
        taken: Taken,
        header: &Header<'_>,
        current: bool,
    ) -> bool {
        let Taken { place, ordinal, index, length } = taken;
        let (ssrc, timestamp) = (header.ssrc(), header.timestamp());
        let slot = SlotView::new(&self.state, &self.geometry, packet.slot);
        let mut source = SourceView::new(&self.state, &self.geometry, packet.slot, place);
        let from = packet.datagram.from;
        if source.identity() != Some((ssrc, ordinal)) {
            slot.set(NEXT_ORDINAL, slot.word(NEXT_ORDINAL).max(u64::from(ordinal) + 1));
            source.begin(ssrc, ordinal, from, UNANNOUNCED);
            if slot.signalled().is_none() && slot.latched().is_none() {
                slot.set_latched(Some(from));
            }
        }
        if slot.has(NAT) && slot.latched() != Some(from) {
            slot.set_latched(Some(from));
        }
        self.note_way(packet);
        seq::accept(&mut source, index);
        fault!("worker.mid_state");
        let before = source.account();
        let payload_type = u64::from(header.payload_type()) + 1;
        let is_new_type = before.payload_type != payload_type;
        if counted(&before, packet) {
            return is_new_type;
        }
        let mut account = before;
        if before.packets == 0 {
            account.first = index.0;
            account.lowest = index.0;
            account.first_arrival = packet.arrival.0;
        } else {
            let rate = slot.word(CLOCK_RATE);
            account.jitter = jitter(&before, packet.arrival, timestamp, rate);
        }
        account.lowest = account.lowest.min(index.0);
        account.packets += 1;
        account.bytes += length as u64;
        // What waited in quarantine came before what was recorded meanwhile.
        let last_arrival = packet.arrival.0.max(slot.word(LAST_ARRIVAL));
        account.last_arrival = packet.arrival.0.max(before.last_arrival);
        account.last_timestamp = timestamp.into();
        account.last_stamp = packet.datagram.stamp.map_or(0, |stamp| stamp.0 as u64);
        account.last_buffer = packet.buffer.into();
        account.payload_type = payload_type;
        source.set_account(&account);
        slot.set(LAST_ARRIVAL, last_arrival);
        if current && slot.word(KEY_CHANGED) == 0 {
            slot.set(KEY_CHANGED, last_arrival);
        }
        is_new_type
    }

    /// Writes the `source` event of a place that has none yet.
    pub(super) fn announce(&mut self, number: u32, place: usize) {
        let source = self.source(number, place);
        let Some(((ssrc, ordinal), from)) = source.identity().zip(source.address()) else { return };
        let slot = self.slot(number);
        let (stream, generation) = (slot.stream(), slot.generation());
        let event = Event::Source { ordinal, ssrc, from };
        let Some(position) = self.append_event(stream, &event) else {
            self.dirty[number as usize] = true;
            return;
        };
        self.source(number, place).set_announced(position);
        let slot = self.global_slot(number);
        self.notice(Notice::Source { slot, generation, ssrc, from });
    }

    fn rtcp(&mut self, packet: &Packet<'_>) -> Fate {
        let Some(position) = self.writer.place(record_bytes(packet.datagram.payload.len())) else {
            return Counter::RingFull.into();
        };
        let (length, proven) = match self.open_rtcp(packet, position) {
            Ok(opened) => opened,
            Err(counter) => return Fate { counter, unproven: counter == Counter::AuthFailed },
        };
        let sender = packet.datagram.payload[4..8].try_into().map(u32::from_be_bytes);
        let sender = Ssrc(sender.expect("classified as RTCP, so eight octets are there"));
        if let Some(proven) = proven {
            match self.srtcp_window(packet.slot, sender).check(proven) {
                Verdict::New => {}
                Verdict::Replayed => return Counter::Replayed.into(),
                Verdict::Late => return Counter::Late.into(),
            }
        }
        self.seal_rtcp(packet, position, length, proven);
        if let Some(proven) = proven {
            self.srtcp_window(packet.slot, sender).accept(proven, sender);
        }
        let report = self.writer.lend(position, record_bytes(length), |out| {
            sender_report(&out[HEADER_BYTES..HEADER_BYTES + length])
        });
        if let Some((ssrc, info)) = report {
            self.note_report(packet, ssrc, &info);
        }
        self.writer.accept(position, record_bytes(length));
        self.note_way(packet);
        Counter::RtcpRecorded.into()
    }

    /// Steps 1 and 2 for RTCP: length of the plain text, and the SRTCP index with its key.
    pub(super) fn open_rtcp(
        &mut self,
        packet: &Packet<'_>,
        position: u64,
    ) -> Result<(usize, Option<Proven>), Counter> {
        let payload = packet.datagram.payload;
        let bytes = record_bytes(payload.len());
        let area = self.slot(packet.slot).has(AREA);
        let Core { protection, writer, .. } = self;
        match &protection[packet.slot as usize] {
            Protection::Plain => {
                Compound::parse(payload).map_err(|_| Counter::Malformed)?;
                writer.lend(position, bytes, |out| {
                    out[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
                });
                Ok((payload.len(), None))
            }
            Protection::Secure { current, previous, .. } => {
                let mut fail = Fail::Auth;
                let contexts = [(Some(current), true), (previous.as_deref(), false)];
                for (context, current) in contexts {
                    let Some(context) = context else { continue };
                    match writer.lend(position, bytes, |out| {
                        context.unprotect_rtcp(payload, &mut out[HEADER_BYTES..])
                    }) {
                        Ok((length, index)) => {
                            let proven = Proven { index, area: area == current, current };
                            return Ok((length, Some(proven)));
                        }
                        Err(found) => fail = found,
                    }
                }
                Err(match fail {
                    Fail::Malformed | Fail::Room { .. } => Counter::Malformed,
                    Fail::Unencrypted => Counter::Unencrypted,
                    Fail::Auth => Counter::AuthFailed,
                })
            }
        }
    }

    pub(super) fn seal_rtcp(
        &mut self,
        packet: &Packet<'_>,
        position: u64,
        length: usize,
        proven: Option<Proven>,
    ) {
        let flags = if proven.is_some() { FLAG_AUTHENTICATED } else { 0 }
            | if packet.rtcp_port { FLAG_RTCP_PORT } else { 0 };
        let index = Index(proven.map_or(0, |proven| proven.index).into());
        let meta = self.meta(packet, RecordKind::Rtcp, 0, index, flags);
        self.seal(packet.buffer, position, length, &meta);
    }

    fn srtcp_window(&self, slot: u32, sender: Ssrc) -> SrtcpWindow<'_, S> {
        let source = self
            .sources(slot)
            .find(|source| source.identity().is_some_and(|(own, _)| own == sender));
        match source {
            Some(source) => SrtcpWindow::Source(source),
            None => SrtcpWindow::Slot(self.slot(slot), sender),
        }
    }

    pub(super) fn note_report(&mut self, packet: &Packet<'_>, ssrc: Ssrc, info: &SenderInfo) {
        let source = self
            .sources(packet.slot)
            .find(|source| source.identity().is_some_and(|(own, _)| own == ssrc));
        if let Some(source) = source {
            source.set_last_sr(&LastSr {
                ntp: info.ntp,
                timestamp: info.rtp,
                packets: info.packets,
                octets: info.octets,
                arrival: packet.arrival,
                count: source.last_sr().count + 1,
            });
        } else {
            let slot = self.slot(packet.slot);
            let count = (slot.word(STRANGE_REPORT) >> 32) + 1;
            slot.set(STRANGE_REPORT, (count & 0xffff_ffff) << 32 | u64::from(info.packets));
        }
    }
}

/// Whether the source's account already holds this very datagram: its last one has the same buffer
/// and kernel stamp. Only asked for the one packet that a kill may have counted by halves.
pub(super) fn counted(account: &Account, packet: &Packet<'_>) -> bool {
    account.packets > 0
        && account.last_buffer == u64::from(packet.buffer)
        && packet.datagram.stamp.is_some_and(|stamp| stamp.0 as u64 == account.last_stamp)
}

/// Plain RTP from the signalled address (any port), or the first sender where none was signalled.
fn trusted<R: Region>(slot: SlotView<'_, R>, packet: &Packet<'_>) -> bool {
    let from = packet.datagram.from;
    match (slot.signalled(), slot.latched()) {
        (Some(signalled), _) => signalled.ip() == from.ip(),
        (None, Some(latched)) => latched.ip() == from.ip(),
        (None, None) => true,
    }
}

/// The index of a plain packet. A sender that begins anew far below goes on one cycle higher, once
/// two packets in sequence say so (RFC 3550 appendix A.1).
fn plain_index<R: Region>(
    source: Option<SourceView<'_, R>>,
    highest: Option<Index>,
    header: &Header<'_>,
    verdict: impl Fn(Index) -> Verdict,
) -> Result<Index, Counter> {
    /// Word of the source: the sequence number that would confirm a jump, plus 1.
    const JUMP: usize = 40;
    let seq = header.seq();
    let nearest = seq::estimate(highest, seq);
    match nearest.map(&verdict) {
        Some(Verdict::New) => return Ok(nearest.expect("the verdict is about it")),
        Some(Verdict::Replayed) => return Err(Counter::Replayed),
        Some(Verdict::Late) | None => {}
    }
    let (Some(source), Some(highest)) = (source, highest) else { return Err(Counter::Late) };
    if source.word(JUMP) == u64::from(seq.0) + 1 {
        let same = Index::new(highest.roc(), seq);
        let jump = if same > highest { same } else { Index(same.0 + (1 << 16)) };
        return if jump <= Index::MAX { Ok(jump) } else { Err(Counter::Late) };
    }
    source.set(JUMP, u64::from(seq.0.wrapping_add(1)) + 1);
    Err(Counter::Late)
}

/// Interarrival jitter × 16 (RFC 3550 appendix A.8).
fn jitter(before: &Account, arrival: Mono, timestamp: u32, rate: u64) -> u64 {
    let elapsed = arrival.since(Mono(before.last_arrival)).min(3_600_000_000_000);
    // In microseconds: an hour at the highest rate that a word of SDP can hold stays below 2^64.
    let ticks = (elapsed / 1_000 * rate.min(u64::from(u32::MAX)) / 1_000_000) as i64;
    let media = i64::from(timestamp.wrapping_sub(before.last_timestamp as u32) as i32);
    let distance = (ticks - media).unsigned_abs().min(u64::from(u32::MAX));
    (before.jitter + distance).saturating_sub((before.jitter + 8) >> 4)
}

/// The first sender report of a compound that was decrypted.
pub(super) fn sender_report(compound: &[u8]) -> Option<(Ssrc, SenderInfo)> {
    Compound::parse(compound).ok()?.packets().find_map(|packet| match packet {
        RtcpPacket::SenderReport { ssrc, info, .. } => Some((ssrc, info)),
        _ => None,
    })
}

/// An authenticated SRTCP packet.
#[derive(Clone, Copy)]
pub(super) struct Proven {
    index: u32,
    /// Which key area its key is in.
    area: bool,
    /// Whether that is the one in force.
    current: bool,
}

/// The replay window of SRTCP indexes: 64 bits, index i has bit i mod 64. With the SSRC's source
/// where there is one, else with the slot, which remembers one SSRC.
///
/// It is of one key (the highest bit of the word of the highest index says of which area): an SRC that
/// begins a new context with a new key counts from 0 again. What is still under the key before is taken
/// until something comes under the new one.
enum SrtcpWindow<'a, R> {
    Source(SourceView<'a, R>),
    Slot(SlotView<'a, R>, Ssrc),
}

impl<R: Region> SrtcpWindow<'_, R> {
    /// Highest index plus 1, bits, key area. With 0 for the first it is of no key yet.
    fn words(&self) -> (u64, u64, bool) {
        let (next, bits) = self.raw();
        (next & !SRTCP_AREA, bits, next & SRTCP_AREA != 0)
    }

    fn raw(&self) -> (u64, u64) {
        match self {
            SrtcpWindow::Source(source) => {
                (source.word(SRTCP_HIGHEST), source.word(SRTCP_HIGHEST + 8))
            }
            SrtcpWindow::Slot(slot, ssrc) if slot.word(SRTCP_SSRC) == u64::from(ssrc.0) => {
                (slot.word(SLOT_SRTCP_HIGHEST), slot.word(SLOT_SRTCP_HIGHEST + 8))
            }
            SrtcpWindow::Slot(..) => (0, 0),
        }
    }

    fn check(&self, proven: Proven) -> Verdict {
        let (next, bits, area) = self.words();
        let index = u64::from(proven.index);
        if next != 0 && area != proven.area {
            if proven.current { Verdict::New } else { Verdict::Late }
        } else if index >= next {
            Verdict::New
        } else if index + 64 < next {
            Verdict::Late
        } else if bits & 1 << (index % 64) != 0 {
            Verdict::Replayed
        } else {
            Verdict::New
        }
    }

    /// Bits first, highest last, so that a repetition after a kill gives the same window.
    fn accept(&self, proven: Proven, ssrc: Ssrc) {
        let (mut next, mut bits, area) = self.words();
        let index = u64::from(proven.index);
        if area != proven.area {
            (next, bits) = (0, 0);
        }
        for skipped in next.max(index.saturating_sub(64))..index {
            bits &= !(1 << (skipped % 64));
        }
        bits |= 1 << (index % 64);
        let next = next.max(index + 1) | if proven.area { SRTCP_AREA } else { 0 };
        match self {
            SrtcpWindow::Source(source) => {
                source.set(SRTCP_HIGHEST + 8, bits);
                source.set(SRTCP_HIGHEST, next);
            }
            SrtcpWindow::Slot(slot, _) => {
                slot.set(SRTCP_SSRC, u64::from(ssrc.0));
                slot.set(SLOT_SRTCP_HIGHEST + 8, bits);
                slot.set(SLOT_SRTCP_HIGHEST, next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The estimate in RTP ticks after packets at such times with such timestamps.
    fn of(packets: impl IntoIterator<Item = (u64, u32)>, rate: u64) -> u64 {
        let mut account = Account::default();
        for (at_us, timestamp) in packets {
            let at = Mono(at_us * 1_000);
            if account.packets > 0 {
                account.jitter = jitter(&account, at, timestamp, rate);
            }
            account.packets += 1;
            account.last_arrival = at.0;
            account.last_timestamp = timestamp.into();
        }
        (account.jitter + 8) >> 4
    }

    #[test]
    fn jitter_of_a_steady_an_uneven_and_an_odd_stream() {
        assert_eq!(of((1..100).map(|n| (n * 20_000, n as u32 * 160)), 8_000), 0);
        // Every other packet is 5 ms late: 40 ticks each time.
        let late = (1..500).map(|n| (n * 20_000 + n % 2 * 5_000, n as u32 * 160));
        assert_eq!(of(late, 8_000), 40);
        // Overtaken by its follower, and the wrap of the clock.
        assert_eq!(of([(1_000, 160), (2_000, 0)], 8_000), 168 / 16 + 1);
        assert_eq!(of([(1_000, u32::MAX - 59), (21_000, 100)], 8_000), 0);
        let odd = (1..1_000).map(|n| (n << 40, (n as u32) << 31));
        assert!(of(odd, u64::MAX) <= u64::from(u32::MAX));
    }
}
