//! The actors. Each does a bounded `turn(now)`; they do not import each other and meet in
//! [`handoff`].

pub mod control;
pub mod handoff;
pub mod keeper;
pub mod reporter;
pub mod retention;
pub mod spool;
pub mod watch;
pub mod worker;
