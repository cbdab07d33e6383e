//! The processes behind `floortape serve`: keeper starts media and control from this binary, each
//! under its own `argv[0]`, and hands them what they need over a [`link`].

mod holdings;
pub mod keeper;
pub mod link;
pub mod notify;
