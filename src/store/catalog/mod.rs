//! The catalogue: an index that can be rebuilt from segments, log and journal.

pub mod model;
