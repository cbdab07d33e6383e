//! Which buffer a panic is to be blamed on (F05). The worker notes in private what it is touching;
//! only when a panic has been caught does the blame go into shared state, where the successor's
//! scan finds it. A kill blames nobody.

use super::core::Core;
use crate::base::limits::BUFFER_COUNT;
use crate::base::ports::{Region, WritableRegion};
use crate::plane::handoff::layout::{AT_STRIKES, STRIKES_PER_WORD, STRIKES_WORDS};

/// A buffer whose handling panicked so often is stored raw.
const STRIKES_MAX: u64 = 2;
/// Where even that panicked so often, it is only counted.
const STRIKES_HOPELESS: u64 = 4;
const BITS: u32 = 64 / STRIKES_PER_WORD as u32;
const MASK: u64 = (1 << BITS) - 1;

/// What is to be done with a buffer, by its strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Handle it.
    Handle,
    /// Store it raw.
    Poison,
    /// Leave it out.
    Hopeless,
}

const fn place(buffer: u16) -> (usize, u32) {
    let buffer = buffer as usize;
    (AT_STRIKES + buffer / STRIKES_PER_WORD * 8, (buffer % STRIKES_PER_WORD) as u32 * BITS)
}

impl<S: Region, G: WritableRegion> Core<S, G> {
    /// Blames the buffer being touched, if one was, for a panic that was caught.
    pub(super) fn strike(&self) {
        let Some(buffer) = self.touching else { return };
        let (word, shift) = place(buffer);
        let before = self.state.load(word);
        let strikes = (before >> shift & MASK).saturating_add(1).min(MASK);
        self.state.store(word, before & !(MASK << shift) | strikes << shift);
    }

    /// What its past says about a buffer.
    pub(super) fn trust(&self, buffer: u16) -> Trust {
        let (word, shift) = place(buffer);
        match self.state.load(word) >> shift & MASK {
            0..STRIKES_MAX => Trust::Handle,
            STRIKES_MAX..STRIKES_HOPELESS => Trust::Poison,
            _ => Trust::Hopeless,
        }
    }

    /// All buffers are empty: nothing is to blame any more.
    pub(super) fn forget_strikes(&self) {
        const { assert!(STRIKES_WORDS * STRIKES_PER_WORD == BUFFER_COUNT as usize) };
        for word in 0..STRIKES_WORDS {
            self.state.store(AT_STRIKES + word * 8, 0);
        }
    }
}
