//! `floortape export`: a recording as files that need no store: audio or packets, who and what, and
//! the proof.

mod attempt;
mod mixed;
mod packets;
mod pen;
mod plan;
mod progress;
mod proof;
mod senders;
mod survey;
#[cfg(test)]
mod tests;
mod text;
mod track;
mod unfinished;
mod verb;
mod video;
mod wave;

pub use verb::{Args, run};
