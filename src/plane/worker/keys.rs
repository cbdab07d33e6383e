//! The session keys of each slot, derived from the master keys in shared state. Private memory:
//! a successor derives them again.

use crate::base::ports::Region;
use crate::base::suite::Suite;
use crate::plane::handoff::slot::{Keys, SlotView};
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
        /// Whether that was another one: under the same key, with another MKI, nothing begins anew.
        anew: bool,
    },
}

impl Protection {
    /// Derives what the slot's shared state says.
    pub(super) fn load<R: Region>(slot: SlotView<'_, R>) -> Self {
        let context = |keys: &Keys| Context::of(keys.suite, &keys.remote).ok();
        let (current, previous) = (slot.keys(false), slot.keys(true));
        let anew = current
            .as_ref()
            .zip(previous.as_ref())
            .is_some_and(|(current, previous)| current.remote.expose() != previous.remote.expose());
        match current.as_ref().and_then(context) {
            Some(current) => {
                let previous = previous.as_ref().and_then(context).map(Box::new);
                Protection::Secure { current, previous, anew }
            }
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
