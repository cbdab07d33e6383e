//! Coming to terms with media each time a link to it comes up. Control may have died with streams
//! open that its journal does not know, and media may have died with requests unanswered: media says
//! what it holds, control closes what nobody owns and opens what should be open. Until that is done
//! nothing new is taken, because a slot that is held for another stream records nothing.

use std::collections::{HashMap, HashSet};

use super::actor::Control;
use super::effect::{Effect, Grave};
use super::job::{Job, Purpose};
use super::recover::Owed;
use super::session::{Phase, Session};
use crate::base::ids::{Generation, RsId, Slot, StreamId};
use crate::base::limits::{FRAME_SALTS_MAX, SOURCES_PER_STREAM};
use crate::base::time::{ClockMap, Mono, Wall};
use crate::plane::handoff::frame::{
    Envelope, Frame, HeldSlot, KnownSource, OpenStream, Refusal, ResumeStream,
};
use crate::store::archive::{LastSeen, LastSource, LastStream, Sought};
use crate::store::event::Origin;
use crate::store::journal::entry::StreamOpened;

/// When something that media had no room for is asked again.
const AGAIN_MS: u64 = 1_000;
/// The same for what a recording that runs is waiting for.
const AGAIN_SOON_MS: u64 = 50;

/// A use of a slot as media has it, and since when.
type Applied = (Slot, Generation, ClockMap);

/// Something to ask media again.
pub(super) enum Again {
    /// To close a use of a slot.
    Close(Slot, Generation, Origin),
    /// To open a stream that should be open.
    Open(RsId, StreamId),
    /// What it holds.
    Holding,
}

/// Where control stands with the media at the other end of the link.
#[derive(Default)]
pub(super) struct Settling {
    /// The request that asks what media holds.
    holding: Option<u64>,
    /// What it has said so far.
    held: Vec<HeldSlot>,
    /// Streams asked to be open again, by request.
    reopening: HashMap<u64, (RsId, StreamId)>,
    /// Live streams that media does not hold, while the store is asked about them.
    lost: Vec<(RsId, StreamId)>,
    /// Media has been told that all streams are asked for.
    told: bool,
}

impl Settling {
    /// Whether every stream that should be open is.
    pub(super) fn is_done(&self) -> bool {
        self.told
    }
}

impl Control {
    /// Media is there (again): salts, then the question what it holds.
    pub(super) fn media_up(&mut self) {
        // Also what was asked while no link was there.
        self.forget_asked();
        self.admission.media_up = false;
        self.settling = Settling::default();
        self.salts();
        self.ask_holding();
    }

    /// The link is gone, and with it every answer.
    pub(super) fn unsettle(&mut self) {
        self.settling = Settling::default();
    }

    fn salts(&mut self) {
        let running = self.sessions.values().flat_map(|session| {
            let streams = session.streams.iter();
            streams.map(|stream| (session.rs, session.salt, stream.description.stream))
        });
        let over = self
            .salts
            .values()
            .flat_map(|over| over.streams.iter().map(|stream| (over.rs, over.salt, *stream)));
        let all: Vec<_> = over.chain(running).collect();
        for some in all.chunks(FRAME_SALTS_MAX) {
            let mut salts: Vec<_> = some.iter().map(|(rs, salt, _)| (*rs, *salt)).collect();
            salts.dedup();
            let streams = some.iter().map(|(rs, _, stream)| (*stream, *rs)).collect();
            let salts = Envelope { id: 0, fds: 0, frame: Frame::Salts { salts, streams } };
            self.effects.push_back(Effect::Media(salts));
        }
    }

    fn ask_holding(&mut self) {
        let id = self.number();
        self.settling.holding = Some(id);
        self.settling.held.clear();
        self.effects.push_back(Effect::Media(Envelope { id, fds: 0, frame: Frame::Holding }));
    }

    /// Media says what it holds; after the last part everything is put right.
    pub(super) fn held(&mut self, id: u64, slots: Vec<HeldSlot>, last: bool) {
        if self.settling.holding != Some(id) {
            return;
        }
        self.settling.held.extend(slots);
        if !last {
            return;
        }
        self.settling.holding = None;
        let held = std::mem::take(&mut self.settling.held);
        // A number may have been used before the journal knew that it was set aside.
        let used = held.iter().map(|slot| slot.stream.0 + 1).max().unwrap_or(0);
        self.stream_ids.0.0 = self.stream_ids.0.0.max(used);
        let kept: HashSet<StreamId> = held.iter().map(|slot| slot.stream).collect();
        let mut frames = Vec::new();
        for slot in &held {
            self.slots.learn(slot.slot, slot.generation);
            if let Some(close) = self.reconcile(slot) {
                frames.push(close);
            }
        }
        for session in self.sessions.values().filter(|session| session.phase == Phase::Closing) {
            frames.extend(session.streams.iter().map(|stream| Frame::Close {
                slot: stream.description.slot,
                generation: stream.generation,
                by: Origin::Src,
            }));
        }
        for (_, slot, generation, _) in &self.closing {
            frames.push(Frame::Close { slot: *slot, generation: *generation, by: Origin::Src });
        }
        self.begin(Purpose::Quiet, RsId::default(), None, None, frames, Vec::new());
        let live = |session: &&Session| matches!(session.phase, Phase::Starting | Phase::Live);
        let wanted: Vec<(RsId, Phase, StreamId)> = self
            .sessions
            .values()
            .map(|session| &**session)
            .filter(live)
            .flat_map(|session| {
                let ids = session.streams.iter().map(|stream| stream.description.stream);
                ids.map(|stream| (session.rs, session.phase, stream))
            })
            .collect();
        for (rs, phase, stream) in wanted {
            // What was promised and is not held was lost with the memory of media (F06).
            if phase == Phase::Live && !kept.contains(&stream) && !self.past.contains_key(&stream) {
                self.settling.lost.push((rs, stream));
            } else {
                self.reopen(rs, stream);
            }
        }
        if self.settling.lost.is_empty() {
            return self.take_calls();
        }
        let sought = self.settling.lost.iter().filter_map(|(rs, stream)| {
            let session = self.sessions.get(rs)?;
            let own = session.streams.iter().find(|own| own.description.stream == *stream)?;
            let (since, sender) = (session.since, own.crypto.is_none());
            Some(Sought { stream: *stream, since, sender })
        });
        let sought = sought.collect();
        self.effects.push_back(Effect::LookBack(sought));
    }

    /// Everything is asked for that should be there: new calls are taken.
    fn take_calls(&mut self) {
        self.admission.media_up = true;
        self.tell_resumed();
        self.unpark();
    }

    /// What the store knows of the streams that go on. Where it cannot say, they go on all the same,
    /// as new ones.
    pub(super) fn looked_back(&mut self, seen: Result<LastSeen, String>) {
        let lost = std::mem::take(&mut self.settling.lost);
        if lost.is_empty() {
            // The link fell meanwhile; the next one asks again.
            return;
        }
        let mut seen = seen.unwrap_or_else(|error| {
            self.log(Grave::Error, format!("what was recorded last cannot be read: {error}"));
            LastSeen::default()
        });
        self.report_resumed(&lost, &seen);
        for (rs, stream) in lost {
            let last = seen.streams.remove(&stream).unwrap_or_default();
            self.past.insert(stream, last);
            self.reopen(rs, stream);
        }
        self.take_calls();
    }

    fn report_resumed(&mut self, lost: &[(RsId, StreamId)], seen: &LastSeen) {
        let recordings: HashSet<RsId> = lost.iter().map(|(rs, _)| *rs).collect();
        let mut gaps_ms: Vec<i64> = seen
            .streams
            .values()
            .filter_map(|stream| Some((self.now.wall.0 - stream.durable?.0) / 1_000_000))
            .collect();
        gaps_ms.sort_unstable();
        let at = |place: usize| gaps_ms.get(place).copied().unwrap_or(0);
        let (low, median) = (at(0), at(gaps_ms.len() / 2));
        let high = at(gaps_ms.len().saturating_sub(1));
        let text = format!(
            "{} recordings resumed, {} streams; gap per stream {low} / {median} / {high} ms (least, \
             median, most); {} bytes of the log in doubt",
            recordings.len(),
            lost.len(),
            seen.in_doubt
        );
        self.log(Grave::Warn, text);
        let mut recordings: Vec<RsId> = recordings.into_iter().collect();
        recordings.sort();
        for rs in recordings {
            self.log(Grave::Info, format!("{rs} resumed"));
        }
    }

    /// What is to be done about one slot that media has used. Returns the close of what nobody
    /// owns.
    fn reconcile(&mut self, held: &HeldSlot) -> Option<Frame> {
        let HeldSlot { slot, generation, stream, open } = *held;
        let owner = self.sessions.values_mut().find_map(|session| {
            session.streams.iter_mut().find(|own| own.description.stream == stream)
        });
        if let Some(own) = owner {
            if own.description.slot != slot {
                // Another slot's use of the same stream: control died between taking the stream up
                // again and the journal's knowing of it.
                return open.then(|| self.close_unowned(held)).flatten();
            }
            if open {
                // The same use, or one that the journal missed: its sources live there.
                own.generation = generation;
            } else if own.generation <= generation {
                // That use is over, so the stream needs the next one.
                own.generation = Generation(generation.0 + 1);
                let generation = own.generation;
                self.slots.learn(slot, generation);
            }
            return None;
        }
        if !open || self.closing.iter().any(|(_, s, g, _)| (*s, *g) == (slot, generation)) {
            return None;
        }
        self.close_unowned(held)
    }

    /// A stream of which no RS knows: an INVITE that was never answered. It is closed, and its slot
    /// is kept until that is done.
    fn close_unowned(&mut self, held: &HeldSlot) -> Option<Frame> {
        let HeldSlot { slot, generation, stream, .. } = *held;
        let text = format!("stream {} was open in media and unknown here: closing it", stream.0);
        self.log(Grave::Warn, text);
        if self.slots.claim(slot, generation) {
            self.closing.push((RsId::default(), slot, generation, stream));
            // Asked with all that are closing.
            return None;
        }
        Some(Frame::Close { slot, generation, by: Origin::Srs })
    }

    /// Asks media to record a stream that should be recorded.
    fn reopen(&mut self, rs: RsId, stream: StreamId) {
        let Some(session) = self.sessions.get(&rs) else { return };
        let Some(own) = session.streams.iter().find(|own| own.description.stream == stream) else {
            return;
        };
        let Some(open) = session.open_frame(&self.keys, &self.as_asked(rs, own)) else {
            let text = format!("{rs}: its keys are sealed by another machine; it is not recorded");
            return self.log(Grave::Error, text);
        };
        let id = self.number();
        self.settling.reopening.insert(id, (rs, stream));
        let frame = match self.past.get(&stream) {
            Some(last) => Frame::Resume(Box::new(resume(open, last, self.now.wall))),
            None => Frame::Open(Box::new(open)),
        };
        self.effects.push_back(Effect::Media(Envelope { id, fds: 0, frame }));
    }

    /// A stream as media has been asked for it: a change that came before this, and waits for the
    /// journal, holds, or media would go back to the old keys while the SRC hears of the new ones.
    pub(super) fn as_asked(&self, rs: RsId, own: &StreamOpened) -> StreamOpened {
        let changes = |job: &&Job| job.rs == rs && matches!(job.purpose, Purpose::Change);
        let mut plans = self.jobs.values().filter(changes).filter_map(|job| job.plan.as_deref());
        let planned = plans.find_map(|plan| {
            let same = |new: &&StreamOpened| new.description.stream == own.description.stream;
            plan.streams.iter().find(same)
        });
        // Which use of the slot it is was not known yet when the change came.
        StreamOpened { generation: own.generation, ..planned.unwrap_or(own).clone() }
    }

    /// Media has answered a request of this file; false: it is none.
    pub(super) fn settled(&mut self, id: u64, answer: Result<Applied, &Refusal>) -> bool {
        if self.settling.holding == Some(id) {
            if answer.is_err() {
                self.again.push((self.now.mono.plus_ms(AGAIN_SOON_MS), Again::Holding));
            }
            return true;
        }
        let Some((rs, stream)) = self.settling.reopening.remove(&id) else { return false };
        match answer {
            Ok(applied) => {
                self.past.remove(&stream);
                self.retaken(rs, applied, !self.is_asked(rs));
                self.tell_resumed();
            }
            // Rule 1: what was promised is asked for until media takes it.
            Err(Refusal::NotReady | Refusal::QueueFull | Refusal::RingLag | Refusal::Disk) => {
                let at = self.now.mono.plus_ms(AGAIN_SOON_MS);
                self.again.push((at, Again::Open(rs, stream)));
            }
            Err(why) => {
                self.log(Grave::Error, format!("{rs}: stream {} is not taken: {why}", stream.0));
                self.tell_resumed();
            }
        }
        true
    }

    /// Whether a stream of that RS is yet to be taken up.
    fn is_asked(&self, rs: RsId) -> bool {
        let again = |(_, again): &(Mono, Again)| matches!(again, Again::Open(of, _) if *of == rs);
        self.settling.reopening.values().any(|(of, _)| *of == rs) || self.again.iter().any(again)
    }

    /// Once all streams are taken: media may receive.
    fn tell_resumed(&mut self) {
        let opens = self.again.iter().any(|(_, again)| matches!(again, Again::Open(..)));
        if self.settling.told || !self.settling.reopening.is_empty() || opens {
            return;
        }
        self.settling.told = true;
        let frame = Frame::Resumed;
        self.effects.push_back(Effect::Media(Envelope { id: 0, fds: 0, frame }));
        self.say_owed();
    }

    /// Media records all streams under the keys that the journal knows: what a predecessor may have
    /// answered is said again from now on, for an SRC acts on it at once (RFC 4568 §7.1.4).
    fn say_owed(&mut self) {
        for Owed { dialog, cseq, at, reply } in std::mem::take(&mut self.owed) {
            let age_ms = ((self.now.wall.0 - at.0) / 1_000_000).max(0) as u64;
            self.sip.resume_answer(self.now.mono, dialog, cseq, age_ms, &reply);
        }
        self.sip.release_answers();
    }

    /// Asks media for the streams of an RS as they stand, until it takes them.
    pub(super) fn ask_streams(&mut self, rs: RsId) {
        let Some(session) = self.sessions.get(&rs) else { return };
        let at = self.now.mono.plus_ms(AGAIN_SOON_MS);
        let streams = session.streams.iter().map(|own| own.description.stream);
        self.again.extend(streams.map(|stream| (at, Again::Open(rs, stream))));
    }

    /// A close that media had no room for.
    pub(super) fn close_again(&mut self, close: (Slot, Generation, Origin)) {
        let (slot, generation, by) = close;
        let at = self.now.mono.plus_ms(AGAIN_MS);
        self.again.push((at, Again::Close(slot, generation, by)));
    }

    /// Asks again what is due.
    pub(super) fn ask_again(&mut self) {
        let now = self.now.mono;
        let due: Vec<_> = self.again.extract_if(.., |(at, _)| *at <= now).collect();
        let mut closes = Vec::new();
        for (_, again) in due {
            match again {
                Again::Close(slot, generation, by) => {
                    closes.push(Frame::Close { slot, generation, by });
                }
                Again::Open(rs, stream) => {
                    self.reopen(rs, stream);
                    // It may have ended meanwhile.
                    self.tell_resumed();
                }
                Again::Holding => self.ask_holding(),
            }
        }
        if !closes.is_empty() {
            self.begin(Purpose::Quiet, RsId::default(), None, None, closes, Vec::new());
        }
    }
}

/// A stream with its past.
fn resume(open: OpenStream, last: &LastStream, now: Wall) -> ResumeStream {
    let known = |source: &LastSource| KnownSource {
        ssrc: source.ssrc,
        ordinal: source.ordinal,
        highest: source.highest,
        from: source.from,
    };
    ResumeStream {
        open,
        dark_since: last.durable.unwrap_or(now),
        next_ordinal: last.next_ordinal,
        sources: last.sources.iter().take(SOURCES_PER_STREAM).map(known).collect(),
    }
}
