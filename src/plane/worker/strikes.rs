//! Which buffer a panic is to be blamed on (F05). The worker notes in private what it is touching;
//! only when a panic has been caught does the blame go into shared state, where the successor's
//! scan finds it. A kill blames nobody.

use super::core::Core;
use crate::base::counter::Counter;
use crate::base::limits::BUFFER_COUNT;
use crate::base::ports::{Region, WritableRegion};
use crate::plane::handoff::layout::{AT_STRIKES, STRIKES_PER_WORD, STRIKES_WORDS};

/// A buffer whose handling panicked so often is stored raw.
const STRIKES_MAX: u64 = 2;
/// Where even that panicked so often, it is only counted.
const STRIKES_HOPELESS: u64 = 4;
/// It has been counted as poison: nothing is left to do but to empty it.
const COUNTED: u64 = 5;
const BITS: u32 = 64 / STRIKES_PER_WORD as u32;
const MASK: u64 = (1 << BITS) - 1;
/// Beside it stands whether the stream's count was odd before this buffer was counted in.
const COUNTING: u64 = 8;
const _: () = assert!(STRIKES_HOPELESS < COUNTED && COUNTED < COUNTING && COUNTING < MASK);

/// What is to be done with a buffer, by its strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Handle it.
    Handle,
    /// Store it raw.
    Poison,
    /// Leave it out.
    Hopeless,
    /// It was left out or kept raw before, and counted.
    Counted,
}

const fn place(buffer: u16) -> (usize, u32) {
    let buffer = buffer as usize;
    (AT_STRIKES + buffer / STRIKES_PER_WORD * 8, (buffer % STRIKES_PER_WORD) as u32 * BITS)
}

impl<S: Region, G: WritableRegion> Core<S, G> {
    /// Blames the buffer being touched, if one was, for a panic that was caught.
    pub(super) fn strike(&self) {
        let Some(buffer) = self.touching else { return };
        let strikes = self.strikes(buffer);
        if strikes < STRIKES_HOPELESS {
            self.set_strikes(buffer, strikes + 1);
        }
    }

    fn strikes(&self, buffer: u16) -> u64 {
        let (word, shift) = place(buffer);
        self.state.load(word) >> shift & MASK
    }

    fn set_strikes(&self, buffer: u16, strikes: u64) {
        let (word, shift) = place(buffer);
        let others = self.state.load(word) & !(MASK << shift);
        self.state.store(word, others | strikes << shift);
    }

    /// Counts a buffer that is kept raw in its stream, once, whenever we are killed: the evidence of
    /// its loss is made of that count.
    pub(super) fn count_poison(&self, buffer: u16, slot: u32) {
        let slot = self.slot(slot);
        let odd = slot.drops(Counter::Poison) & 1;
        let strikes = self.strikes(buffer);
        let begun = strikes >= COUNTING;
        if !begun {
            self.set_strikes(buffer, COUNTING | odd);
        }
        // Nobody else counts here meanwhile, so that another parity is our own predecessor's work.
        if !begun || strikes == COUNTING | odd {
            slot.count(Counter::Poison);
        }
        // Not 0: where the ring had no room for it, nothing else says that it has had its turn.
        self.set_strikes(buffer, COUNTED);
    }

    /// What its past says about a buffer.
    pub(super) fn trust(&self, buffer: u16) -> Trust {
        match self.strikes(buffer) {
            0..STRIKES_MAX => Trust::Handle,
            STRIKES_MAX..STRIKES_HOPELESS | COUNTING.. => Trust::Poison,
            STRIKES_HOPELESS => Trust::Hopeless,
            COUNTED => Trust::Counted,
            _ => Trust::Hopeless,
        }
    }

    /// All buffers are empty, or wait in quarantine, where they came without a panic: nothing is to blame any
    /// more.
    pub(super) fn forget_strikes(&self) {
        const { assert!(STRIKES_WORDS * STRIKES_PER_WORD == BUFFER_COUNT as usize) };
        for word in 0..STRIKES_WORDS {
            self.state.store(AT_STRIKES + word * 8, 0);
        }
    }
}
