//! The media worker: takes datagrams from shared receive buffers, authenticates and decrypts them
//! straight into ring records, and commits them by the protocol that survives SIGKILL at any
//! instruction.
//!
//! One pinned thread runs [`Worker::turn`]; everything outside (sockets, clock, shared memory) comes
//! in through the ports of `base`. In steady state a packet costs no allocation, no lock, no page
//! fault and no formatting; a turn costs at most one system call. What others ask for arrives on a
//! bounded queue and is done after the packets of the turn.

mod arrival;
mod closing;
mod command;
mod core;
mod evidence;
mod intake;
mod keys;
mod quarantine;
mod recovery;
mod resume;
mod run;
mod search;
mod state;
mod strikes;
mod turn;
mod writer;

#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod nat_tests;
#[cfg(test)]
mod panic_tests;
#[cfg(test)]
mod path_tests;
#[cfg(test)]
mod quarantine_tests;
#[cfg(test)]
mod stream_tests;

pub use run::{End, run};
pub use state::{BufferState, classify};
pub use turn::{Beginning, Setup, StartError, Worker};
