//! The spool: copies a worker's ring to the log, moves the durable watermark, and seals closed
//! spans into segments. One per worker, on a thread of its own; the worker never waits for it and
//! never touches what it touches but for the words of the shared state.

mod actor;
mod buffer;
mod config;
mod log_files;
mod recovery;
mod sealer;

pub use actor::{Output, Spool, Turn};
pub use config::{SpoolConfig, SpoolError};

#[cfg(test)]
mod tests;
