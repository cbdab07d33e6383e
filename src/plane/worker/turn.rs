//! The worker and its turn: take, process, commit, give back; then commands, then what is due.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::closing::Closing;
use super::core::{Core, NOTICES_MAX};
use super::recovery::recover;
use super::search::{SEARCHED_PER_FULL_TURN, SEARCHED_PER_TURN, TAGS_PER_TURN};
use crate::base::faults::{fault, fault_io, faulty};
use crate::base::ids::{Generation, Slot, StreamId, WorkerId};
use crate::base::limits::{TURN_COMMANDS_MAX, TURN_PACKETS_MAX, TURN_WAIT_MS};
use crate::base::ports::{Clock, Datagrams, Region, WritableRegion};
use crate::base::time::{Mono, Wall};
use crate::plane::handoff::frame::{Envelope, Frame, Refusal};
use crate::plane::handoff::layout::{
    self, AT_CURRENT, AT_HEARTBEAT, AT_HELD, AT_INCARNATION, AT_INTENTS, AT_LOST_SINCE, Geometry,
    INTENT_NONE, LayoutError,
};
use crate::plane::handoff::queues::{HostSample, Queues};
use crate::store::event::Event;

/// Evidence, gauges and old keys are looked at so often.
const SECOND_NS: u64 = 1_000_000_000;
/// Commands wait while the sockets still hold packets that came before them, but no longer than
/// this many full turns: 8 × 256 packets are 20 ms at 100,000 packets/s.
const FULL_TURNS_MAX: u32 = 8;

/// What a worker is made of. The predecessor must have been reaped.
pub struct Setup<'a, S, G, E, C> {
    /// Which worker it is.
    pub worker: WorkerId,
    /// How many there are; slot n belongs to worker n mod workers.
    pub workers: u16,
    /// Sizes of its memory.
    pub geometry: Geometry,
    /// RTP port of each of its slots, in the order of its own numbers.
    pub rtp_ports: &'a [u16],
    /// Which shared socket the ports of each slot are steered to; empty where each has its own.
    pub steered: &'a [u8],
    /// State region, checked against `geometry`.
    pub state: S,
    /// Ring region. No other writer exists.
    pub ring: G,
    /// Receive engine over the buffers region, neither started nor its predecessor's heir yet.
    pub engine: E,
    /// The clocks.
    pub clock: C,
    /// Ties it to the command thread.
    pub queues: Queues,
    /// The kernel's boot id, for the `started` event.
    pub boot: String,
}

/// One media worker.
pub struct Worker<S, G, E, C> {
    engine: E,
    core: Core<S, G>,
    clock: C,
    queues: Queues,
    taken: Vec<u16>,
    full_turns: u32,
    second_at: Mono,
    host_before: Option<HostSample>,
    closing: Closing,
    /// Whether the sockets are armed.
    armed: bool,
    beginning: Beginning,
}

/// How a worker took over.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    /// The predecessor's last turn, where there was one.
    pub predecessor_last: Option<Mono>,
    /// Datagrams that it left in the receive buffers.
    pub recovered: u32,
    /// When the keys were derived.
    pub derived: Mono,
    /// When what was left was in the ring.
    pub recovered_at: Mono,
    /// When the sockets were armed: the first turn follows at once.
    pub armed_at: Mono,
}

impl<S, G, E, C> Worker<S, G, E, C>
where
    S: Region,
    G: WritableRegion,
    E: Datagrams,
    C: Clock,
{
    /// Takes over the shared memory: brings what a predecessor left in the receive buffers into the
    /// ring, says so, and arms the sockets (while [`AT_HELD`] is set, the turn after it is cleared
    /// does: until then an unarmed engine only waits). Call it after "go" only.
    pub fn start(setup: Setup<'_, S, G, E, C>) -> Result<Self, StartError> {
        let Setup { worker, workers, geometry, rtp_ports, steered, state, ring, clock, .. } = setup;
        let mut engine = setup.engine;
        layout::check(&state, worker.0, &geometry)?;
        let predecessor = state.load(AT_HEARTBEAT);
        let predecessor_last = (predecessor != 0).then_some(Mono(predecessor));
        engine.inherit();
        let mut core = Core::new(worker, workers, geometry, state, ring, rtp_ports, steered);
        core.quarantine.set_room(engine.spare());
        core.tell_time_first(clock.map());
        let derived = clock.mono();
        // What is private is dropped after a panic, what is shared the kill protocol covers.
        let recovered = catch_unwind(AssertUnwindSafe(|| recover(&mut engine, &mut core)));
        let recovered = recovered.map_err(|_| {
            core.strike();
            StartError::Panicked
        })?;
        setup.queues.gauge.add_recovered(recovered);
        let lost_since = core.state.load(AT_LOST_SINCE);
        let started = Event::Started {
            incarnation: core.state.load(AT_INCARNATION),
            engine: engine.name().to_owned(),
            map: core.now,
            boot: setup.boot,
            recovered,
            predecessor_last,
            lost_since: (lost_since != 0).then_some(Wall(lost_since as i64)),
        };
        // A full ring refuses even this; the clock map below is due until it fits.
        if core.append_event(StreamId::host(worker), &started).is_some() {
            core.note_clock();
            core.commit(core.now.mono);
            core.state.store(AT_LOST_SINCE, 0);
        }
        core.commit(core.now.mono);
        let recovered_at = clock.mono();
        setup.queues.gauge.set_engine(engine.name(), engine.reason());
        fault!("worker.before_arm");
        let armed = core.state.load(AT_HELD) == 0;
        if armed {
            arm(&mut engine, &core)?;
        }
        let second_at = core.now.mono;
        let armed_at = clock.mono();
        Ok(Worker {
            beginning: Beginning { predecessor_last, recovered, derived, recovered_at, armed_at },
            engine,
            core,
            clock,
            queues: setup.queues,
            taken: Vec::with_capacity(TURN_PACKETS_MAX),
            full_turns: 0,
            second_at,
            host_before: None,
            closing: Closing::new(geometry.slot_count),
            armed,
        })
    }

    /// How it took over.
    pub fn beginning(&self) -> &Beginning {
        &self.beginning
    }

    /// One bounded turn: at most [`TURN_PACKETS_MAX`] packets and [`TURN_COMMANDS_MAX`] commands; it
    /// waits at most [`TURN_WAIT_MS`] for the first. Returns how many datagrams it took. An error
    /// is the engine's end: drop the worker and start a new one.
    pub fn turn(&mut self) -> io::Result<usize> {
        self.taken.clear();
        if !self.armed && self.core.state.load(AT_HELD) == 0 {
            arm(&mut self.engine, &self.core)?;
            self.armed = true;
        }
        let wait_ms = if self.queues.commands.is_empty() { TURN_WAIT_MS } else { 0 };
        fault!("worker.turn");
        fault_io!("worker.take")?;
        self.engine.take(wait_ms, &mut self.taken)?;
        self.core.tell_time(self.clock.map());
        self.core.writer.refresh(&self.core.state);
        self.core.search_tries = TAGS_PER_TURN;
        let count = self.taken.len();
        self.packets();
        self.full_turns = if count < TURN_PACKETS_MAX { 0 } else { self.full_turns + 1 };
        if self.full_turns == 0 || self.full_turns >= FULL_TURNS_MAX {
            self.commands();
        }
        self.quarantine();
        self.closes();
        self.leave_quarantine();
        self.due();
        self.core.note_turn(self.clock.mono().since(self.core.now.mono));
        self.core.state.store(AT_HEARTBEAT, self.core.now.mono.0);
        Ok(count)
    }

    /// Steps 1 to 10 of the kill protocol for what was taken.
    fn packets(&mut self) {
        if self.taken.is_empty() {
            self.engine.publish();
            return;
        }
        fault!("worker.after_fill");
        let Worker { engine, core, taken, .. } = self;
        taken.iter().for_each(|buffer| engine.look(*buffer, |bytes| core.touch(bytes)));
        for buffer in taken.iter().copied() {
            if engine.head(buffer) == 0 {
                continue;
            }
            core.state.store(AT_CURRENT, u64::from(buffer) + 1);
            core.touching = Some(buffer);
            let Some(counter) = engine.look(buffer, |bytes| core.handle(buffer, bytes)) else {
                continue;
            };
            core.count(counter);
            #[cfg(feature = "faults")]
            if faulty!("worker.decrypt_in_place") {
                core.spoil(engine, buffer, counter);
            }
        }
        core.touching = None;
        if core.quarantine.has_grown() {
            taken.retain(|buffer| !core.quarantine.is_aside(*buffer));
        }
        if faulty!("worker.offer_before_publish") {
            give_back(engine, core, taken);
            fault!("worker.before_tail");
            return core.commit(self.clock.mono());
        }
        fault!("worker.before_tail");
        // Step 5. The clock is read again: wire→captured ends here.
        core.commit(self.clock.mono());
        fault!("worker.after_tail");
        give_back(engine, core, taken);
    }

    /// What waits for keys or a roll-over counter: handled again where they are there, given up in time.
    fn quarantine(&mut self) {
        if self.core.quarantine.is_empty() {
            return;
        }
        let full = self.full_turns > 0;
        let Worker { engine, core, .. } = self;
        core.search(engine, if full { SEARCHED_PER_FULL_TURN } else { SEARCHED_PER_TURN });
        core.release(engine);
        self.leave_quarantine();
    }

    /// Steps 5 to 8 for what has left the quarantine.
    fn leave_quarantine(&mut self) {
        let Worker { engine, core, .. } = self;
        if core.quarantine.leaving().is_empty() {
            return;
        }
        core.commit(core.now.mono);
        give_back(engine, core, core.quarantine.leaving());
        core.quarantine.left();
    }

    fn commands(&mut self) {
        for _ in 0..TURN_COMMANDS_MAX {
            // An answer must have its place before the command is taken.
            if self.queues.answers.len() >= self.queues.answers.capacity() {
                return;
            }
            let Some(command) = self.queues.commands.pop() else { break };
            if matches!(command.frame, Frame::Close { .. }) {
                self.closing.hold(command, self.core.now.mono);
                continue;
            }
            self.carry_out(command);
        }
    }

    /// Carries out the closes whose sockets hold nothing more that came before them.
    fn closes(&mut self) {
        let drained = self.full_turns == 0;
        while self.queues.answers.len() < self.queues.answers.capacity()
            && let Some(command) = self.closing.next(&self.core, &self.engine, drained)
        {
            self.carry_out(command);
        }
    }

    fn carry_out(&mut self, command: Envelope) {
        let refusal = refused_for(&command);
        let done = catch_unwind(AssertUnwindSafe(|| {
            fault!("worker.in_command");
            let answer = self.core.command(&self.engine, command);
            fault!("worker.after_command");
            answer
        }));
        // F05: whoever asked hears no, so that a command which panics is not asked for ever.
        let (answer, panic) = match done {
            Ok(answer) => (answer, None),
            Err(panic) => (refusal, Some(panic)),
        };
        let pushed = self.queues.answers.push(answer);
        assert!(pushed.is_ok(), "only this worker fills the queue, and it had room");
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn due(&mut self) {
        self.core.clock();
        self.core.derive_ahead();
        while let Some(sample) = self.queues.host.pop() {
            if let Some(before) = self.host_before.replace(sample) {
                self.core.host_drops(&before, &sample);
            }
        }
        if self.core.now.mono.since(self.second_at) >= SECOND_NS {
            self.second_at = self.core.now.mono;
            self.core.each_second();
            self.core.note_waits();
            self.queues.gauge.set_captured_ns(self.core.captured_ns());
            self.queues.gauge.set_turn_ns(self.core.turn_ns());
        }
        // Notices leave half of the queue to answers.
        let room = self.queues.answers.capacity() / 2;
        debug_assert!(self.core.notices.len() <= NOTICES_MAX);
        while self.queues.answers.len() < room
            && let Some(notice) = self.core.notices.pop()
        {
            let _ =
                self.queues.answers.push(Envelope { id: 0, fds: 0, frame: Frame::Notice(notice) });
        }
    }

    /// Notes that a turn panicked, so that a buffer which does it again is kept raw (F05). The
    /// worker must then be dropped: its successor scans the buffers.
    pub fn strike(&self) {
        self.core.strike();
    }

    /// Puts commands that wait in private back into the queue, for whoever comes next. What does not
    /// fit is asked for again, as after a death.
    pub fn leave(&mut self) {
        for command in self.closing.take() {
            let _ = self.queues.commands.push(command);
        }
    }
}

/// Offers all buffers and arms the sockets, those that carry the media of an open stream first.
fn arm<S: Region, G: WritableRegion>(
    engine: &mut impl Datagrams,
    core: &Core<S, G>,
) -> io::Result<()> {
    engine
        .start(|port| core.ports.find(port).is_some_and(|(slot, rtcp)| !rtcp && core.is_open(slot)))
}

/// Steps 6 to 8: clear before offering, or a late clear could wipe a fresh packet.
fn give_back<S, G>(engine: &mut impl Datagrams, core: &Core<S, G>, taken: &[u16])
where
    S: Region,
    G: WritableRegion,
{
    for buffer in taken.iter().copied() {
        engine.clear(buffer);
        fault!("worker.after_head");
        core.state.store(AT_INTENTS + usize::from(buffer) * 8, INTENT_NONE);
        fault!("worker.after_intent_clear");
        engine.offer(buffer);
    }
    fault!("worker.before_offer");
    engine.publish();
}

/// The answer to a command that could not be done.
fn refused_for(command: &Envelope) -> Envelope {
    let (slot, generation) = match &command.frame {
        Frame::Open(stream) | Frame::Update { stream, .. } => (stream.slot, stream.generation),
        Frame::Resume(past) => (past.open.slot, past.open.generation),
        Frame::Close { slot, generation, .. } => (*slot, *generation),
        Frame::Note { slot, .. } => (*slot, Generation(0)),
        _ => (Slot(0), Generation(0)),
    };
    let frame = Frame::Refused { slot, generation, why: Refusal::NotReady };
    Envelope { id: command.id, fds: 0, frame }
}

/// Why a worker cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The shared memory is not what this binary expects.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The recovery panicked; the buffer being looked at is marked (F05). The next start goes further.
    #[error("the recovery panicked")]
    Panicked,
    /// The engine could not be armed.
    #[error("receive engine: {0}")]
    Engine(#[from] io::Error),
}
