//! What a worker writes about itself and its streams between packets: clock maps, host drop
//! counters, and the evidence behind packets that are missing (design: the ledger). Rare, so events
//! may be formatted here.

use std::net::{IpAddr, Ipv4Addr};

use super::arrival::STEP_NS;
use super::core::Core;
use super::intake::UNANNOUNCED;
use super::keys::Protection;
use crate::base::counter::{Cause, Counter};
use crate::base::ids::StreamId;
use crate::base::limits::SOURCES_PER_STREAM;
use crate::base::ports::{Region, WritableRegion};
use crate::base::time::Mono;
use crate::plane::handoff::frame::Notice;
use crate::plane::handoff::layout::{AT_CLOCK_AT, AT_CLOCK_OFFSET};
use crate::plane::handoff::queues::HostSample;
use crate::plane::handoff::slot::{
    CONTROL, EVIDENCE_AT, KEY_CHANGED, LAST_ARRIVAL, OPENED, PREVIOUS, SOCKET_DROPS_EVIDENCED,
    WAITED_SINCE,
};
use crate::store::event::Event;

/// A clock map at least so often (design section 4), and after each step of the wall clock.
const CLOCK_NS: u64 = 10_000_000_000;
/// The old key ends so long after the first hit on the new one (F35).
const OLD_KEY_NS: u64 = 2_000_000_000;
/// Nothing but failing tags for so long means that the keys do not match (F34).
const FAILING_NS: u64 = 1_000_000_000;

/// What a counter proves about a missing index; `None` where such a datagram owns none.
const fn cause(counter: Counter) -> Option<Cause> {
    match counter {
        Counter::AuthFailed | Counter::Unencrypted => Some(Cause::Auth),
        Counter::Late => Some(Cause::Late),
        Counter::Truncated => Some(Cause::Truncated),
        Counter::TooManySources | Counter::Stranger => Some(Cause::Refused),
        Counter::Paused => Some(Cause::Paused),
        Counter::QuarantineExpired => Some(Cause::Quarantine),
        Counter::RingFull => Some(Cause::Ring),
        Counter::Poison => Some(Cause::Poison),
        Counter::RtpRecorded
        | Counter::RtcpRecorded
        | Counter::Malformed
        | Counter::NoStream
        | Counter::Replayed
        | Counter::KeepAlive => None,
    }
}

impl<S: Region, G: WritableRegion> Core<S, G> {
    /// Once a second: evidence of all streams whose account moved, keys that have had their time.
    pub(super) fn each_second(&mut self) {
        for number in 0..self.geometry.slot_count {
            if !self.is_open(number) {
                continue;
            }
            let dropped = self.socket_drops(number).0;
            let due = dropped > self.slot(number).word(SOCKET_DROPS_EVIDENCED);
            if std::mem::take(&mut self.dirty[number as usize]) || due {
                self.note_failing(number);
                self.write_evidence(number);
                for place in 0..SOURCES_PER_STREAM {
                    let source = self.source(number, place);
                    if source.identity().is_some() && source.announced() == UNANNOUNCED {
                        self.announce(number, place);
                    }
                }
            }
            self.begin_evidence(number);
            self.end_old_key(number);
        }
        self.commit(self.now.mono);
    }

    /// What will be counted from now on came after the last packet that is counted: evidence about it
    /// says nothing about what was missing before.
    fn begin_evidence(&self, number: u32) {
        let slot = self.slot(number);
        slot.set(EVIDENCE_AT, slot.word(EVIDENCE_AT).max(slot.word(LAST_ARRIVAL)));
    }

    /// A clock map where one is due.
    pub(super) fn clock(&mut self) {
        let mono = self.now.mono;
        let last = Mono(self.state.load(AT_CLOCK_AT));
        let moved = self.now.offset().abs_diff(self.state.load(AT_CLOCK_OFFSET) as i64);
        if mono.since(last) < CLOCK_NS && moved <= STEP_NS {
            return;
        }
        let host = StreamId::host(self.worker);
        if self.append_event(host, &Event::Clock { map: self.now }).is_some() {
            self.note_clock();
            self.commit(mono);
        }
    }

    /// The ring holds this turn's clock map.
    pub(super) fn note_clock(&self) {
        self.state.store(AT_CLOCK_OFFSET, self.now.offset() as u64);
        self.state.store(AT_CLOCK_AT, self.now.mono.0);
    }

    /// Drop counters of the host over the span between two samples.
    pub(super) fn host_drops(&mut self, before: &HostSample, after: &HostSample) {
        let event = Event::HostDrops {
            from: before.at,
            to: after.at,
            before: before.drops,
            after: after.drops,
        };
        let host = StreamId::host(self.worker);
        if self.append_event(host, &event).is_some() {
            self.commit(self.now.mono);
        }
    }

    /// One `dropped` event per cause that moved since the last ones. What does not fit the ring
    /// stays due.
    pub(super) fn write_evidence(&mut self, number: u32) {
        let slot = self.slot(number);
        let (stream, from, to) = (slot.stream(), Mono(slot.word(EVIDENCE_AT)), self.now.mono);
        let mut due = [0_u64; Cause::ALL.len()];
        for counter in Counter::ALL {
            if let Some(cause) = cause(counter) {
                due[cause as usize] += slot.drops(counter) - slot.evidenced(counter);
            }
        }
        let (socket_drops, shares) = self.socket_drops(number);
        due[Cause::Socket as usize] += socket_drops - slot.word(SOCKET_DROPS_EVIDENCED);
        let opened = Mono(slot.word(OPENED));
        // What was given up in quarantine is missing among packets that were recorded long before.
        let waited = Some(Mono(slot.word(WAITED_SINCE))).filter(|since| *since != Mono(0));
        let mut whole = true;
        let octets = std::mem::take(&mut self.oversize[number as usize]);
        if octets > 0 && self.append_event(stream, &Event::Oversize { octets }).is_none() {
            self.oversize[number as usize] = octets;
        }
        for cause in Cause::ALL.into_iter().filter(|cause| due[*cause as usize] > 0) {
            let count = due[cause as usize];
            let shared = shares && cause == Cause::Socket;
            // What came too late, waited in vain or had to be handled again may be missing among packets
            // that were recorded long before it is counted.
            let old = matches!(cause, Cause::Late | Cause::Quarantine | Cause::Poison);
            let waited = waited.filter(|_| cause != Cause::Socket);
            let from = waited.map_or(from, |since| since.min(from));
            let from = if old { opened.min(from) } else { from };
            let event = Event::Dropped { cause, count, from, to, ssrc: None, range: None, shared };
            if self.append_event(stream, &event).is_none() {
                self.dirty[number as usize] = true;
                whole = false;
                break;
            }
            self.commit(to);
            let slot = self.slot(number);
            for counter in Counter::ALL {
                if self::cause(counter) == Some(cause) {
                    slot.set_evidenced(counter, slot.drops(counter));
                }
            }
            if cause == Cause::Socket {
                slot.set(SOCKET_DROPS_EVIDENCED, socket_drops);
            }
        }
        if whole {
            self.slot(number).set(WAITED_SINCE, 0);
            self.begin_evidence(number);
        }
    }

    /// Says once that nothing but failing tags has come for a second.
    fn note_failing(&mut self, number: u32) {
        let slot = self.slot(number);
        let (stream, generation) = (slot.stream(), slot.generation());
        // What waits in quarantine has failed as well, so far.
        let failed = slot.drops(Counter::AuthFailed) + self.quarantine.count(number);
        let fresh = failed - slot.evidenced(Counter::AuthFailed);
        let last_good = slot.word(LAST_ARRIVAL);
        let signalled = slot.signalled().map(|from| from.ip());
        let silent = self.now.mono.since(Mono(last_good.max(slot.word(OPENED)))) > FAILING_NS;
        let failing = fresh > 0 && silent;
        if failing && !self.failing[number as usize] {
            let from = signalled.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            self.append_event(stream, &Event::AuthFailing { count: failed, from });
            let slot = self.global_slot(number);
            self.notice(Notice::AuthFailing { slot, generation });
        }
        self.failing[number as usize] = failing;
    }

    fn end_old_key(&mut self, number: u32) {
        let slot = self.slot(number);
        let hit = slot.word(KEY_CHANGED);
        if !slot.has(PREVIOUS) || hit == 0 || self.now.mono.since(Mono(hit)) < OLD_KEY_NS {
            return;
        }
        slot.set(CONTROL, slot.word(CONTROL) & !PREVIOUS);
        slot.set_other_keys(None);
        if let Protection::Secure { previous, anew, .. } = &mut self.protection[number as usize] {
            (*previous, *anew) = (None, false);
        }
    }
}
