//! Listening to a line while it is recorded: records in ring order in, samples and what happened out. Pure; who
//! finds the records (a ring, segments) and where the samples go is for the `tap` verb to say.

mod line;
mod mark;
mod timeline;
mod walk;

pub use line::{Happening, Line};
pub use mark::{LastOf, Mark, MarkError};
pub use timeline::Timeline;
pub use walk::{Walked, walk};
