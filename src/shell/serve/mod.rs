//! The processes behind `floortape serve`: keeper starts media and control from this binary, each
//! under its own `argv[0]`, and hands them what they need over a [`link`].

pub mod control;
mod holdings;
pub mod keeper;
pub mod link;
pub mod media;
pub mod notify;
pub mod role;

#[cfg(test)]
mod threads;
