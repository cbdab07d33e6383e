//! How loud each line was when: lowest and highest sample of each second, made once from what is sealed and
//! kept beside the catalogue, so that a picture of a day needs no audio.
//!
//! Two levels are kept, no more: of each second, and what an extent says of itself (who, from when to when, where
//! packets are missing). A day of a line is some 86,400 seconds in a few hundred to a few thousand rows, which stand
//! together; coarser levels would save nothing that can be measured.
//!
//! All of it is derived: [`Tracer`] makes it from records by the decoders and the places of an export, [`Trace`]
//! joins it again, and what is not there is drawn from the records ([`Trace::record`]). Nothing here knows a file:
//! `host/sqlite` keeps it, `shell` makes it, behind all recording.

mod canvas;
mod envelope;
mod kept;
mod made;
mod overview;
pub mod schema;
mod trace;
mod tracer;

#[cfg(test)]
mod tests;

pub use canvas::Level;
pub use envelope::{Envelope, Mark, Rates};
pub use kept::{Strip, StripError};
pub use made::{Ask, Lines, Made, make};
pub use overview::{Bucket, Reason, Silence, buckets, silences};
pub use trace::Trace;
pub use tracer::Tracer;

/// Samples of a second share a level.
pub const BLOCK_MS: u32 = 1_000;
