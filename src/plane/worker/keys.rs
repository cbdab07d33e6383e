//! The session keys of each slot, derived from the master keys in shared state. Private memory:
//! a successor derives them again.

use crate::base::ports::Region;
use crate::base::suite::Suite;
use crate::plane::handoff::slot::SlotView;
use crate::proto::srtp::Context;

/// How a slot's packets are protected.
pub(super) enum Protection {
    /// Plain RTP.
    Plain,
    /// SRTP under the key in force, and for a while under the one before (F35).
    Secure {
        /// The key in force.
        current: Context,
        /// The key before.
        previous: Option<Box<Context>>,
    },
}

impl Protection {
    /// Derives what the slot's shared state says.
    pub(super) fn load<R: Region>(slot: SlotView<'_, R>) -> Self {
        let context = |previous: bool| {
            let keys = slot.keys(previous)?;
            Context::of(keys.suite, &keys.remote).ok()
        };
        match context(false) {
            Some(current) => Protection::Secure { current, previous: context(true).map(Box::new) },
            None => Protection::Plain,
        }
    }

    /// The suite in force.
    pub(super) fn suite(&self) -> Option<Suite> {
        match self {
            Protection::Plain => None,
            Protection::Secure { current, .. } => Some(current.suite()),
        }
    }
}
