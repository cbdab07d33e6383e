//! Closes that wait. What stands in a stream's sockets when its close is asked for came before it: a
//! worker that is behind (after a restart, on a starved machine) would else close the stream first
//! and refuse its last seconds as nobody's.

use super::core::Core;
use crate::base::ids::Slot;
use crate::base::limits::TURN_COMMANDS_MAX;
use crate::base::ports::{Datagrams, Region, WritableRegion};
use crate::base::time::Mono;
use crate::plane::handoff::frame::{Envelope, Frame};
use crate::plane::handoff::slot::LAST_ARRIVAL;

/// A port to which somebody goes on sending what is refused never falls silent: the close is carried
/// out all the same. Longer than any backlog of a restart (F01: an alarm above 1 s).
const WAIT_NS_MAX: u64 = 10_000_000_000;

/// The closes of one worker that are not carried out yet.
pub(super) struct Closing {
    waiting: Vec<(Envelope, Mono)>,
}

impl Closing {
    /// With room for one a slot and a turn's repetitions.
    pub(super) fn new(slot_count: u32) -> Self {
        Closing { waiting: Vec::with_capacity(slot_count as usize + TURN_COMMANDS_MAX) }
    }

    /// Notes a close that was asked for at `now`.
    pub(super) fn hold(&mut self, close: Envelope, now: Mono) {
        self.waiting.push((close, now));
    }

    /// Takes all of them out: whoever comes next carries them out.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Envelope> {
        self.waiting.drain(..).map(|(close, _)| close)
    }

    /// The next close that may be carried out. `drained`: the engine has nothing at hand that was
    /// not looked at.
    pub(super) fn next<S: Region, G: WritableRegion>(
        &mut self,
        core: &Core<S, G>,
        engine: &impl Datagrams,
        drained: bool,
    ) -> Option<Envelope> {
        let place = self.waiting.iter().position(|(close, since)| {
            let Frame::Close { slot, .. } = close.frame else { return true };
            drained && !waits(core, engine, slot)
                || newest(core, slot) > *since
                || core.now.mono.since(*since) > WAIT_NS_MAX
        })?;
        // In order: a repetition is answered after what it repeats.
        Some(self.waiting.remove(place).0)
    }
}

/// Whether a socket of the slot holds a datagram.
fn waits<S: Region, G: WritableRegion>(
    core: &Core<S, G>,
    engine: &impl Datagrams,
    slot: Slot,
) -> bool {
    core.local_slot(slot).is_some_and(|number| {
        let port = core.rtp_ports[number as usize];
        engine.waits(port) || engine.waits(port + 1)
    })
}

/// Arrival of the last packet that was recorded.
fn newest<S: Region, G: WritableRegion>(core: &Core<S, G>, slot: Slot) -> Mono {
    let number = core.local_slot(slot);
    Mono(number.map_or(0, |number| core.slot(number).word(LAST_ARRIVAL)))
}
