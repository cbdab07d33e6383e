//! The spool: copies a worker's ring to the log, moves the durable watermark, and seals closed
//! spans into segments. One per worker, on a thread of its own; the worker never waits for it and
//! never touches what it touches but for the words of the shared state.

mod actor;
mod buffer;
mod commit;
mod config;
mod first;
mod log_files;
mod paths;
mod recovery;
mod sealer;
mod sealing;
mod trouble;

pub use actor::{Output, Spool, Turn};
pub use config::{SpoolConfig, SpoolError};
pub use first::{First, first_position};
pub use paths::Check;

#[cfg(test)]
pub(crate) mod tests;
