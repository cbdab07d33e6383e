//! The four states of a receive buffer, told from three words of shared memory. Everything that a
//! successor does after a kill follows from this table.

use crate::plane::handoff::layout::INTENT_NONE;

/// State of a receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferState {
    /// Offered to the kernel, or about to be: holds nothing.
    Free,
    /// Taken from its socket, never looked at, or looked at and not decided: treat as new.
    Filled,
    /// Passed all checks; its record was complete at this position and is not committed.
    Accepted {
        /// Where its record stood.
        position: u64,
    },
    /// Its record is committed: only clear.
    Committed,
}

/// The state that `head` and `intent` say, given the committed `tail`.
pub const fn classify(head: u64, intent: u64, tail: u64) -> BufferState {
    if head == 0 {
        BufferState::Free
    } else if intent == INTENT_NONE {
        // Asked for before comparing: as a number it is above any tail.
        BufferState::Filled
    } else if intent >= tail {
        BufferState::Accepted { position: intent }
    } else {
        BufferState::Committed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_protocol() {
        assert_eq!(classify(0, INTENT_NONE, 100), BufferState::Free);
        assert_eq!(classify(0, 50, 100), BufferState::Free);
        assert_eq!(classify(0, 150, 100), BufferState::Free);
        assert_eq!(classify(7, INTENT_NONE, 100), BufferState::Filled);
        assert_eq!(classify(7, 100, 100), BufferState::Accepted { position: 100 });
        assert_eq!(classify(7, 99, 100), BufferState::Committed);
        assert_eq!(classify(7, 0, 0), BufferState::Accepted { position: 0 });
    }
}
