//! What control asks of media, on its way to the workers and spools, and their answers on the way
//! back.

use std::collections::HashMap;

use super::desk::{Desk, ID_BITS};
use super::seat::Seat;
use super::spooler::Request;
use crate::base::ids::{Generation, Slot, StreamId};
use crate::base::limits::FRAME_HELD_MAX;
use crate::plane::handoff::frame::{Envelope, Frame, HeldSlot, Refusal};
use crate::plane::handoff::slot::{OPEN, SlotView};
use crate::plane::spool::Output;
use crate::store::evidence::Salt;

impl Desk {
    /// Passes one request on, or refuses it at once.
    pub(super) fn request(&mut self, id: u64, frame: Frame) {
        let (slot, generation) = match &frame {
            Frame::Open(stream) => (stream.slot, stream.generation),
            Frame::Update { stream, .. } => (stream.slot, stream.generation),
            Frame::Close { slot, generation, .. } => (*slot, *generation),
            Frame::Note { slot, .. } => (*slot, Generation(0)),
            Frame::Resume(past) => (past.open.slot, past.open.generation),
            Frame::Holding => {
                // Control asks this behind the last salt that it knows.
                for seat in &self.seats {
                    if seat.ties.requests.push(Request::NoMoreSalts).is_err() {
                        tracing::error!("spool {} takes no requests", seat.worker.0);
                    }
                }
                if let Some(retired) = &self.retired {
                    retired.ask(Request::NoMoreSalts);
                }
                return self.ask_holding(id);
            }
            Frame::Resumed => return self.gate.open(&self.seats),
            Frame::Heard { slots } => return self.tell_heard(id, slots),
            Frame::Calls { open, over } => return self.watch.expect(open, over),
            Frame::Salts { .. } => return self.salts(id, frame),
            Frame::Seal => return self.seal(id),
            _ => return tracing::warn!("control sent a frame that is not for media"),
        };
        let place = slot.0 as usize % self.seats.len().max(1);
        let refusal = self.refusal(place, slot, &frame);
        let refused = match (refusal, self.seats.get(place)) {
            (Some(why), _) => Some(why),
            (None, None) => Some(Refusal::NoSlot),
            (None, Some(seat)) => {
                let tagged = self.epoch << ID_BITS | id;
                let envelope = Envelope { id: tagged, fds: 0, frame };
                seat.queues.commands.push(envelope).err().map(|_| Refusal::QueueFull)
            }
        };
        match refused {
            Some(why) => self.outbox.push(id, Frame::Refused { slot, generation, why }),
            None => self.asked += 1,
        }
    }

    /// Why `frame` cannot be passed on, if so. A stream that is being recorded already is never
    /// refused for want of disk. The salt of a new stream goes to its spool first.
    fn refusal(&self, place: usize, slot: Slot, frame: &Frame) -> Option<Refusal> {
        let stream = match frame {
            Frame::Open(stream) => stream,
            Frame::Resume(past) => &past.open,
            _ => return None,
        };
        let seat = self.seats.get(place)?;
        if !self.ready {
            return Some(Refusal::NotReady);
        }
        let local = slot.0 / self.seats.len() as u32;
        if local >= seat.geometry.slot_count {
            return Some(Refusal::NoSlot);
        }
        let view = SlotView::new(&seat.state, &seat.geometry, local);
        let running = view.has(OPEN) && view.generation() == stream.generation
            || matches!(frame, Frame::Resume(_));
        let failed = seat.ties.figures.lock().is_ok_and(|figures| figures.error.is_some());
        if !running && (failed || self.disk_full) {
            return Some(Refusal::Disk);
        }
        let salts = Request::Salts(vec![(stream.description.stream, stream.salt)]);
        seat.ties.requests.push(salts).err().map(|_| Refusal::QueueFull)
    }

    /// When anything was authenticated on each slot last: read from shared state, where it is at
    /// most a turn old.
    fn tell_heard(&mut self, id: u64, slots: &[Slot]) {
        let workers = self.seats.len().max(1);
        let last = |slot: &Slot| {
            let seat = self.seats.get(slot.0 as usize % workers)?;
            let local = slot.0 / workers as u32;
            (local < seat.geometry.slot_count).then(|| seat.heard(local))
        };
        let slots = slots.iter().map(|slot| (*slot, last(slot).unwrap_or_default())).collect();
        self.outbox.push(id, Frame::HeardAt { slots });
    }

    fn salts(&mut self, id: u64, frame: Frame) {
        let Frame::Salts { salts, streams } = frame else { return };
        let by_rs: HashMap<_, _> = salts.into_iter().collect();
        let salts: Vec<(StreamId, Salt)> = streams
            .into_iter()
            .filter_map(|(stream, rs)| by_rs.get(&rs).map(|salt| (stream, *salt)))
            .collect();
        for seat in &self.seats {
            if seat.ties.requests.push(Request::Salts(salts.clone())).is_err() {
                tracing::error!("spool {} takes no requests", seat.worker.0);
            }
        }
        if let Some(retired) = &self.retired {
            retired.ask(Request::Salts(salts));
        }
        self.outbox.push(id, Frame::Done);
    }

    fn seal(&mut self, id: u64) {
        let tagged = self.epoch << ID_BITS | id;
        for seat in &mut self.seats {
            if seat.ties.requests.push(Request::Seal).is_ok() {
                seat.seals.push_back(tagged);
                *self.sealing.entry(tagged).or_default() += 1;
            }
        }
    }

    /// What slots were used for is only known when the workers have done what was asked before.
    fn ask_holding(&mut self, id: u64) {
        let tagged = self.epoch << ID_BITS | id;
        let ask = || Envelope { id: tagged, fds: 0, frame: Frame::Holding };
        let room = |seat: &Seat| seat.queues.commands.len() < seat.queues.commands.capacity();
        if !self.seats.iter().all(room) {
            let (slot, generation, why) = (Slot(0), Generation(0), Refusal::QueueFull);
            return self.outbox.push(id, Frame::Refused { slot, generation, why });
        }
        let taken = self.seats.iter().filter(|seat| seat.queues.commands.push(ask()).is_ok());
        let asked = taken.count();
        self.asked += asked as u64;
        self.holding = Some((tagged, asked));
    }

    /// A worker has come to the `Holding` request; after the last one the slots are read.
    fn tell_holding(&mut self, tagged: u64) {
        let Some((_, left)) = self.holding.as_mut().filter(|(id, _)| *id == tagged) else { return };
        *left -= 1;
        if *left > 0 {
            return;
        }
        self.holding = None;
        let held: Vec<HeldSlot> =
            self.seats.iter().flat_map(|seat| seat.held(&self.seats)).collect();
        let id = tagged & ((1 << ID_BITS) - 1);
        for slots in held.chunks(FRAME_HELD_MAX) {
            self.outbox.push(id, Frame::Held { slots: slots.to_vec(), last: false });
        }
        self.outbox.push(id, Frame::Held { slots: Vec::new(), last: true });
    }

    /// Takes what workers and spools have to say.
    pub(super) fn collect(&mut self) {
        let mut barriers = Vec::new();
        for seat in &mut self.seats {
            while let Some(Envelope { id, frame, .. }) = seat.queues.answers.pop() {
                if id == 0 {
                    self.outbox.push(0, frame);
                    continue;
                }
                self.asked = self.asked.saturating_sub(1);
                if self.holding.is_some_and(|(holding, _)| holding == id) {
                    barriers.push(id);
                } else if id >> ID_BITS == self.epoch {
                    self.outbox.push(id & ((1 << ID_BITS) - 1), frame);
                }
            }
            while let Some(output) = seat.ties.outputs.pop() {
                match output {
                    // The spool's thread sees to it.
                    Output::Check(_) => {}
                    Output::Notice(notice) => self.outbox.push(0, Frame::Notice(notice)),
                    Output::SealDone => {
                        let Some(id) = seat.seals.pop_front() else { continue };
                        let Some(left) = self.sealing.get_mut(&id) else { continue };
                        *left -= 1;
                        if *left == 0 {
                            self.sealing.remove(&id);
                            self.outbox.push(id & ((1 << ID_BITS) - 1), Frame::Done);
                        }
                    }
                }
            }
        }
        let retired = self.retired.iter();
        for output in retired.flat_map(|retired| std::iter::from_fn(|| retired.ties.outputs.pop()))
        {
            if let Output::Notice(notice) = output {
                self.outbox.push(0, Frame::Notice(notice));
            }
        }
        barriers.into_iter().for_each(|id| self.tell_holding(id));
        if self.control.is_none() {
            self.outbox.clear();
        }
    }
}
