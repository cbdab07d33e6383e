//! `floortape export`: a recording as files that need no store: audio or packets, who and what, and
//! the proof.

mod mixed;
mod packets;
mod proof;
mod text;
mod track;
mod verb;
mod video;
mod wave;

pub use verb::{Args, run};
