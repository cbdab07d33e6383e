//! Lines that should not be silent (F40): by the metadata somebody speaks there in an open Communication
//! Session. Control knows who, media when it heard anything: media is told which lines these are, and says
//! which of them stay silent. A line between calls is none of them, however long.
//!
//! What documents have said is forgotten with control: its successor expects nobody until the next one comes,
//! which it asks for (RFC 7866 §9.2).

use std::collections::BTreeMap;

use super::actor::Control;
use super::effect::Effect;
use super::session::{Phase, Session};
use crate::base::ids::{Generation, Slot};
use crate::base::limits::FRAME_HELD_MAX;
use crate::base::time::Mono;
use crate::plane::handoff::frame::{Envelope, Frame};
use crate::proto::session::Calls;
use crate::wire::metadata::Document;

/// What the metadata of an RS says of now.
#[derive(Default)]
pub(super) struct Speaking {
    calls: Calls,
    /// When the last document came.
    since: Mono,
}

impl Speaking {
    /// Takes a document that came in a request.
    pub(super) fn take(&mut self, now: Mono, document: &Document) {
        self.calls.take(document);
        self.since = now;
    }
}

impl Control {
    /// Tells media on which lines somebody speaks, as far as that has changed; once a second.
    pub(super) fn tell_calls(&mut self) {
        let live = self.sessions.values().filter(|session| session.phase == Phase::Live);
        let speaking: BTreeMap<(Slot, Generation), Mono> =
            live.flat_map(|session| session.speaking()).collect();
        let over: Vec<(Slot, Generation)> =
            self.expected.iter().filter(|line| !speaking.contains_key(line)).copied().collect();
        let fresh = speaking.iter().filter(|(line, _)| !self.expected.contains(line));
        let open: Vec<(Slot, Generation, Mono)> =
            fresh.map(|((slot, generation), since)| (*slot, *generation, *since)).collect();
        for over in over.chunks(FRAME_HELD_MAX) {
            self.say_calls(Vec::new(), over.to_vec());
        }
        for open in open.chunks(FRAME_HELD_MAX) {
            self.say_calls(open.to_vec(), Vec::new());
        }
        if !(over.is_empty() && open.is_empty()) {
            self.expected = speaking.into_keys().collect();
        }
    }

    fn say_calls(&mut self, open: Vec<(Slot, Generation, Mono)>, over: Vec<(Slot, Generation)>) {
        let id = self.number();
        let frame = Frame::Calls { open, over };
        self.effects.push_back(Effect::Media(Envelope { id, fds: 0, frame }));
    }
}

impl Session {
    /// Its lines on which somebody speaks, and since when that is said.
    fn speaking(&self) -> impl Iterator<Item = ((Slot, Generation), Mono)> + '_ {
        let Speaking { calls, since } = &self.speaking;
        let speaks =
            |label: &Option<String>| label.as_deref().is_some_and(|label| calls.speaks(label));
        let lines = self.streams.iter().filter(move |own| speaks(&own.description.label));
        lines.map(|own| ((own.description.slot, own.generation), *since))
    }
}
