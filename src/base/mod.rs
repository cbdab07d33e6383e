//! Words that every layer shares: ids, units, time, limits, suites, counters, and the ports
//! (traits) through which pure code reaches the outside. Nothing here opens, reads or waits.

pub mod counter;
pub mod family;
pub mod faults;
pub mod ids;
pub mod keep;
pub mod keyring;
pub mod limits;
pub mod mki;
pub mod ports;
pub mod prng;
pub mod secret;
pub mod shown;
pub mod suite;
pub mod time;
