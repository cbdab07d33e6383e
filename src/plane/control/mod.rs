//! Control: from SIP requests to recordings. An actor without sockets, files or clocks: signalling
//! bytes, frames and answers of the journal come in, the same go out.
//!
//! Two rules shape it. *Persist before reply*: a 2xx leaves only when the journal is synced. *Never
//! accept what is not stored*: it leaves only when media has confirmed every stream; a refusal, a
//! failure or half a second of silence becomes 503 with Retry-After.

mod actor;
mod admission;
mod agenda;
mod call;
mod change;
mod effect;
mod end;
mod ended_lines;
mod figures;
mod gate;
mod general;
mod hold;
mod job;
mod lines;
mod marks;
mod operator;
mod parked;
mod pictures;
mod recover;
mod renewal;
mod requests;
mod salts;
mod selection;
mod session;
mod settle;
mod silence;
mod slots;
mod snapshot;
mod start;
mod timers;
mod unrecordable;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_addresses;
#[cfg(test)]
mod tests_call;
#[cfg(test)]
mod tests_hold;
#[cfg(test)]
mod tests_marks;
#[cfg(test)]
mod tests_parked;
#[cfg(test)]
mod tests_pictures;
#[cfg(test)]
mod tests_policy;
#[cfg(test)]
mod tests_renewal;
#[cfg(test)]
mod tests_restart;
#[cfg(test)]
mod tests_settle;
#[cfg(test)]
mod tests_silence;
#[cfg(test)]
mod tests_snapshot;
#[cfg(test)]
mod tests_timers;
#[cfg(test)]
mod tests_unrecordable;

pub use actor::{Control, Setup};
pub use effect::{Effect, Grave, Input, NotDurable};
pub use figures::Figures;
pub use gate::{Gate, Pass};
pub use operator::{Asked, Outcome, Verb};
