//! The spool with its memory and its disk in memory: round trips, failures, power cuts.

mod bench;
mod damage;
mod encrypted;
mod encrypted_log;
pub(crate) mod faults;
mod ladder;
mod range;
mod trouble;
