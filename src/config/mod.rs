//! The configuration: TOML, unknown keys refused, every key with a default. `model` is its shape,
//! `load` reads it, `bounds` checks its arithmetic, `sizes` derives what the machine is asked for;
//! `appliance/floortape.toml` is the commented default.

mod bounds;
pub mod cores;
pub mod fault;
mod keys;
mod load;
pub mod machine;
pub mod model;
pub mod sizes;

pub use bounds::{Breach, reserve_shortfall, room_shortfall};
pub use fault::Fault;
pub use load::{DEFAULT, load, load_for};
