//! What control asks for: open, update, close and note, each idempotent by (slot, generation). The
//! event is committed first, then the slot's control word says so, then the answer goes.

use std::collections::BTreeMap;

use super::core::Core;
use super::keys::Protection;
use super::quarantine::Again;
use crate::base::counter::Counter;
use crate::base::ids::{Generation, Slot};
use crate::base::limits::EVENT_BYTES_MAX;
use crate::base::ports::{Datagrams, Region, WritableRegion};
use crate::plane::handoff::frame::{Crypto, Envelope, Frame, OpenStream, Refusal, ResumeStream};
use crate::plane::handoff::layout::AT_DURABLE;
use crate::plane::handoff::slot::{
    ACTIVE, AREA, CLOCK_RATE, CONTROL, EVIDENCE_AT, KEY_CHANGED, Keys, LAST_ARRIVAL, LOCAL_INDEX,
    LOCAL_SSRC, MUX, NAT, NEXT_ORDINAL, OPEN, OPENED, PREVIOUS, SINCE, SOCKET_DROPS_SEEN,
    SRTCP_HIGHEST, SRTCP_SSRC, STRANGE_REPORT, STREAM, STRICT, WAITED_SINCE,
};
use crate::plane::handoff::source::{self, SRTCP_AREA};
use crate::store::event::{Event, Origin};

/// F14: above half of the ring no new stream is taken.
const LAG_256_MAX: u64 = 128;
/// Seconds in a row in which packets waited too long for the worker before it takes no new stream (F25): one
/// may be the backlog of a restart.
const BEHIND_S: u32 = 3;

fn keys(crypto: Option<&Crypto>) -> Result<Option<Keys>, Refusal> {
    let Some(crypto) = crypto else { return Ok(None) };
    let bytes = crypto.suite.suite().master_bytes();
    let fits = |key: &crate::base::secret::MasterKey| key.expose().len() == bytes;
    let remote = crypto.remote.keyring().ok_or(Refusal::Keys)?;
    if remote.key_bytes() != bytes {
        return Err(Refusal::Keys);
    }
    Ok(Some(Keys {
        suite: crypto.suite,
        remote,
        local: crypto.local.key().filter(fits).ok_or(Refusal::Keys)?,
    }))
}

fn flags(stream: &OpenStream) -> u64 {
    let set = |on: bool, flag: u64| if on { flag } else { 0 };
    OPEN | set(stream.active, ACTIVE)
        | set(stream.strict, STRICT)
        | set(stream.rtcp_mux, MUX)
        | set(stream.nat, NAT)
}

impl<S: Region, G: WritableRegion> Core<S, G> {
    /// Does one command and returns its answer.
    pub(super) fn command(&mut self, engine: &impl Datagrams, envelope: Envelope) -> Envelope {
        let frame = match envelope.frame {
            Frame::Open(stream) => {
                let (slot, generation) = (stream.slot, stream.generation);
                answer(slot, generation, self.open_stream(engine, &stream, None))
            }
            Frame::Update { stream, by } => {
                let (slot, generation) = (stream.slot, stream.generation);
                answer(slot, generation, self.update_stream(&stream, by))
            }
            Frame::Close { slot, generation, by } => {
                answer(slot, generation, self.close_stream(engine, slot, generation, by))
            }
            Frame::Note { stream, slot, event } => match self.local_slot(slot) {
                Some(_) if event.len() > EVENT_BYTES_MAX => Frame::Done,
                Some(_) => match self.append_event_payload(stream, event.as_bytes()) {
                    Some(_) => {
                        self.commit(self.now.mono);
                        Frame::Done
                    }
                    None => refused(slot, Generation(0), Refusal::RingLag),
                },
                None => refused(slot, Generation(0), Refusal::NoSlot),
            },
            Frame::Resume(past) => {
                let (slot, generation) = (past.open.slot, past.open.generation);
                answer(slot, generation, self.open_stream(engine, &past.open, Some(&past)))
            }
            // All that was asked before is done now, and shared state says so.
            Frame::Holding => Frame::Done,
            // The queue holds commands only; anything else is ours to answer, never to act on.
            _ => refused(Slot(0), Generation(0), Refusal::NotReady),
        };
        Envelope { id: envelope.id, fds: 0, frame }
    }

    /// `past`: it goes on after the recorder was down, with what the store knows of it.
    fn open_stream(
        &mut self,
        engine: &impl Datagrams,
        stream: &OpenStream,
        past: Option<&ResumeStream>,
    ) -> Result<Frame, Refusal> {
        let number = self.local_slot(stream.slot).ok_or(Refusal::NoSlot)?;
        let slot = self.slot(number);
        let running = slot.generation();
        // The same use by another stream: a control that died opened it and its journal never knew.
        let same = slot.stream() == stream.description.stream;
        if stream.generation == running && slot.has(OPEN) && same {
            if !self.is_as(number, stream)? {
                // A control that died asked for a change that its journal never knew, or knows of a
                // change that never came here: what is asked now is what holds.
                return self.update_stream(stream, Origin::Srs);
            }
            let applied = slot.applied();
            let (slot, generation) = (stream.slot, stream.generation);
            return Ok(Frame::Opened { slot, generation, applied });
        }
        if stream.generation <= running {
            return Err(Refusal::Stale);
        }
        let keys = keys(stream.crypto.as_ref())?;
        // Rule 1: what was promised before the cut is not refused for want of room to spare.
        let lag = self.writer.fill_256(self.state.load(AT_DURABLE));
        if lag > LAG_256_MAX && past.is_none() {
            return Err(Refusal::RingLag);
        }
        if self.behind_s >= BEHIND_S && past.is_none() {
            return Err(Refusal::Behind);
        }
        if self.is_open(number) {
            // Its close was lost; the newer use proves that it has ended.
            self.close_stream(engine, stream.slot, running, Origin::Srs)?;
        }
        let event = Event::Open { description: stream.description.clone() };
        let position = self.append_event(stream.description.stream, &event);
        position.ok_or(Refusal::RingLag)?;
        if let Some(past) = past {
            self.append_gap(stream.description.stream, past).ok_or(Refusal::RingLag)?;
        }

        let now = self.now;
        // What waits in the sockets of a stream that goes on came before this instant.
        let since = if past.is_some() { 0 } else { now.mono.0 };
        let port = self.rtp_ports[number as usize];
        let slot = self.slot(number);
        for (word, value) in [
            (STREAM, stream.description.stream.0),
            (OPENED, since),
            (SINCE, since),
            (NEXT_ORDINAL, past.map_or(1, |past| past.next_ordinal.max(1).into())),
            (EVIDENCE_AT, now.mono.0),
            (LAST_ARRIVAL, past.map_or(0, |_| now.mono.0)),
            (KEY_CHANGED, now.mono.0),
            (LOCAL_SSRC, 0),
            (LOCAL_INDEX, 0),
            (SRTCP_SSRC, 0),
            (SRTCP_HIGHEST, 0),
            (SRTCP_HIGHEST + 8, 0),
            (CLOCK_RATE, clock_rate(stream)),
            (STRANGE_REPORT, 0),
            (WAITED_SINCE, 0),
        ] {
            slot.set(word, value);
        }
        // What the sockets dropped before belongs to nobody.
        let shared_drops = self.shared_drops_at(number);
        for (place, port) in [port, port + 1].into_iter().enumerate() {
            let Some(drops) = engine.drops(port) else { continue };
            match shared_drops {
                Some(_) => self.note_socket_drops(number, place == 1, drops),
                None => self.slot(number).set(SOCKET_DROPS_SEEN + place * 8, u64::from(drops)),
            }
        }
        let slot = self.slot(number);
        if let Some(at) = shared_drops {
            slot.set(SOCKET_DROPS_SEEN, self.state.load(at));
        }
        slot.clear_drops();
        slot.set_rs(stream.description.rs);
        slot.set_signalled(stream.description.remote);
        slot.set_latched(None);
        slot.set_rtcp_to(stream.rtcp_to);
        slot.set_cname(&stream.cname);
        slot.set_offered(offered(stream));
        slot.set_applied(now);
        let area = if slot.set_other_keys(keys.as_ref()) { AREA } else { 0 };
        self.sources(number).for_each(|source| source.end());
        if let Some(past) = past {
            self.begin_known(number, &past.sources, stream.nat);
        }
        self.commit(now.mono);
        let slot = self.slot(number);
        slot.set(CONTROL, u64::from(stream.generation.0) | flags(stream) | area);
        self.protection[number as usize] = Protection::load(self.slot(number));
        self.failing[number as usize] = false;
        self.oversize[number as usize] = 0;
        self.forget_types(number);
        Ok(Frame::Opened { slot: stream.slot, generation: stream.generation, applied: now })
    }

    /// Whether the stream is recorded just as described already.
    fn is_as(&self, number: u32, stream: &OpenStream) -> Result<bool, Refusal> {
        let slot = self.slot(number);
        let same_keys = match (slot.keys(false), keys(stream.crypto.as_ref())?) {
            (Some(is), Some(wanted)) => {
                is.suite == wanted.suite
                    && is.remote.same(&wanted.remote)
                    && is.local.same(&wanted.local)
            }
            (is, wanted) => is.is_none() && wanted.is_none(),
        };
        let control = slot.word(CONTROL) & !(AREA | PREVIOUS);
        Ok(same_keys
            && control == u64::from(stream.generation.0) | flags(stream)
            && slot.signalled() == stream.description.remote
            && slot.rtcp_to() == stream.rtcp_to)
    }

    /// Says that the windows of SRTCP indexes are of the key in that area.
    fn keep_srtcp_windows(&self, number: u32, area: bool) {
        let kept = |word: u64| match word & !SRTCP_AREA {
            0 => 0,
            next => next | if area { SRTCP_AREA } else { 0 },
        };
        for source in self.sources(number) {
            source.set(source::SRTCP_HIGHEST, kept(source.word(source::SRTCP_HIGHEST)));
        }
        let slot = self.slot(number);
        slot.set(SRTCP_HIGHEST, kept(slot.word(SRTCP_HIGHEST)));
    }

    fn update_stream(&mut self, stream: &OpenStream, by: Origin) -> Result<Frame, Refusal> {
        let number = self.local_slot(stream.slot).ok_or(Refusal::NoSlot)?;
        let slot = self.slot(number);
        if stream.generation != slot.generation() || !slot.has(OPEN) {
            return Err(Refusal::Stale);
        }
        let keys = keys(stream.crypto.as_ref())?;
        let before = slot.keys(false);
        let remote_changed = match (&before, &keys) {
            (Some(before), Some(after)) => {
                before.suite != after.suite || !before.remote.same(&after.remote)
            }
            (None, None) => false,
            _ => true,
        };
        let local_changed = match (&before, &keys) {
            (Some(before), Some(after)) => !before.local.same(&after.local),
            _ => remote_changed,
        };
        let was_active = slot.has(ACTIVE);
        let stream_id = stream.description.stream;
        let changed =
            Event::Changed { description: stream.description.clone(), key_changed: remote_changed };
        self.append_event(stream_id, &changed).ok_or(Refusal::RingLag)?;
        if was_active != stream.active {
            let event = if stream.active { Event::Resume { by } } else { Event::Pause { by } };
            self.append_event(stream_id, &event).ok_or(Refusal::RingLag)?;
        }

        let now = self.now;
        let slot = self.slot(number);
        let mut control = u64::from(stream.generation.0) | flags(stream);
        let kept = slot.word(CONTROL) & (AREA | PREVIOUS);
        if remote_changed || local_changed {
            let area = slot.set_other_keys(keys.as_ref());
            control |= if area { AREA } else { 0 };
            // Under the same master keys the indexes of reports go on.
            if let (Some(before), Some(after)) = (&before, &keys)
                && before.remote.expose() == after.remote.expose()
            {
                self.keep_srtcp_windows(number, area);
            }
            let slot = self.slot(number);
            if remote_changed {
                slot.set(KEY_CHANGED, 0);
                // Packets under the old key are still on their way (F35).
                control |= if before.is_some() && keys.is_some() { PREVIOUS } else { 0 };
            }
        } else {
            control |= kept;
        }
        // Until it is heard from where it has moved to, what it says holds.
        if slot.signalled() != stream.description.remote || slot.rtcp_to() != stream.rtcp_to {
            slot.set_heard(None);
        }
        if slot.signalled() != stream.description.remote {
            slot.set_signalled(stream.description.remote);
            slot.set_latched(None);
        }
        slot.set_rtcp_to(stream.rtcp_to);
        slot.set_offered(offered(stream));
        self.forget_types(number);
        let slot = self.slot(number);
        slot.set_cname(&stream.cname);
        slot.set(CLOCK_RATE, clock_rate(stream));
        slot.set_applied(now);
        self.commit(now.mono);
        let slot = self.slot(number);
        if was_active != stream.active {
            slot.set(SINCE, now.mono.0);
        }
        slot.set(CONTROL, control);
        if remote_changed || local_changed {
            self.protection[number as usize] = Protection::load(self.slot(number));
            self.failing[number as usize] = false;
            self.search.forget(number);
            self.quarantine.again(number, Again::Yes);
        }
        // F60: what waits across a pause or a resume is told now or never.
        if was_active != stream.active {
            self.quarantine.again(number, Again::Last);
        }
        Ok(Frame::Opened { slot: stream.slot, generation: stream.generation, applied: now })
    }

    fn close_stream(
        &mut self,
        engine: &impl Datagrams,
        global: Slot,
        generation: Generation,
        by: Origin,
    ) -> Result<Frame, Refusal> {
        let number = self.local_slot(global).ok_or(Refusal::NoSlot)?;
        let slot = self.slot(number);
        if generation != slot.generation() {
            return Err(Refusal::Stale);
        }
        if slot.has(OPEN) {
            // The sockets' counters are read once more: what was dropped last had no successor in
            // the queue to say so.
            let port = self.rtp_ports[number as usize];
            for (rtcp_port, port) in [(false, port), (true, port + 1)] {
                if let Some(drops) = engine.drops(port) {
                    self.note_socket_drops(number, rtcp_port, drops);
                }
            }
            self.give_up(number);
            self.search.forget(number);
            self.write_evidence(number);
            let slot = self.slot(number);
            let drops: BTreeMap<String, u64> = Counter::ALL
                .into_iter()
                .map(|counter| (counter.label().to_owned(), slot.drops(counter)))
                .filter(|(_, count)| *count > 0)
                .collect();
            let stream = slot.stream();
            let (socket_drops, shared) = self.socket_drops(number);
            let event = Event::Close { by, drops, socket_drops, shared };
            self.append_event(stream, &event).ok_or(Refusal::RingLag)?;
            let now = self.now;
            self.slot(number).set_applied(now);
            self.commit(now.mono);
            let slot = self.slot(number);
            slot.set(CONTROL, u64::from(generation.0));
            slot.wipe_keys();
            self.sources(number).for_each(|source| source.end());
            self.protection[number as usize] = Protection::Plain;
            self.dirty[number as usize] = false;
        }
        let through = crate::base::ids::Position(self.writer.cursor());
        let applied = self.slot(number).applied();
        Ok(Frame::Closed { slot: global, generation, applied, through })
    }
}

fn clock_rate(stream: &OpenStream) -> u64 {
    stream.description.formats.first().map_or(8_000, |format| format.clock_rate.into())
}

fn offered(stream: &OpenStream) -> impl Iterator<Item = u8> + '_ {
    stream.description.formats.iter().map(|format| format.payload_type)
}

fn answer(slot: Slot, generation: Generation, result: Result<Frame, Refusal>) -> Frame {
    result.unwrap_or_else(|why| refused(slot, generation, why))
}

fn refused(slot: Slot, generation: Generation, why: Refusal) -> Frame {
    Frame::Refused { slot, generation, why }
}
