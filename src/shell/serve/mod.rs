//! The processes behind `floortape serve`: keeper starts media and control from this binary, each
//! under its own `argv[0]`, and hands them what they need over a [`link`].

pub mod control;
mod diverted;
mod estate;
mod holdings;
pub mod keeper;
pub(crate) mod keeping;
mod kek;
pub mod link;
pub mod media;
pub mod notify;
mod placed;
pub(crate) mod reading;
pub mod role;
mod room;
mod steered;
mod stored;
mod succession;
pub(crate) mod tapping;
pub mod upgrade;
pub mod verbs;
mod vigil;

#[cfg(test)]
mod threads;
