//! The journal: control's append-only memory. Persist before reply.

pub mod entry;
