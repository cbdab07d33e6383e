//! The reader: everything durable, from the files alone, beside a running server or without one.

mod check;
mod extents;
mod last;
mod meter;
mod proving;
mod reader;
mod run;
mod strays;
mod unsealed;

pub use check::{ChainFault, ChainReport, check_chain};
pub use extents::{Extents, Shown};
pub use last::{LastSeen, LastSource, LastStream, Sought};
pub use meter::Meter;
pub use proving::Proving;
pub use reader::{
    ALWAYS, Archive, ArchiveError, Damaged, Expired, Hint, Hints, Lost, Place, Seen, Visit,
    Watermark,
};
pub use run::Run;
