//! The configuration: TOML, unknown keys refused, every key with a default. `model` is its shape
//! (`policy` that of `[policy]`, `access` that of `[access]`, `address` that of single values), `load` reads it, `lists` judges what
//! stands in `[[…]]`, `bounds` checks its arithmetic, `sizes` derives what the machine is asked for,
//! `placement` which thread runs on which core, `contradictions` what is wrong with that, `proposal` what
//! could be said instead; `appliance/floortape.toml` is the commented default.

pub mod access;
pub mod address;
mod bounds;
mod contradictions;
pub mod cores;
pub mod encryption;
pub mod fault;
mod keys;
mod lists;
mod load;
pub mod machine;
pub mod model;
pub mod placement;
pub mod policy;
mod proposal;
pub mod retention;
pub mod sizes;

pub use bounds::{Breach, reserve_shortfall, room_shortfall};
pub use contradictions::doubts;
pub use fault::Fault;
pub use load::{DEFAULT, load, load_for};
pub use proposal::proposal;
