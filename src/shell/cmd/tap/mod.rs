//! `floortape tap`: what is said on a line while it is recorded. The verb asks the server ([`verb`]); a process of
//! the server's own, which holds the rings to look at, finds the records ([`feed`]), makes of them what is heard
//! ([`listen`]) and gives it out ([`give`], [`pipe`]).

mod feed;
mod give;
mod listen;
mod pipe;
mod verb;

pub(crate) use give::live_header;
pub(crate) use listen::main;
pub use verb::{Args, run};
