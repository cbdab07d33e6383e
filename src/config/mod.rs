//! The configuration: TOML, unknown keys refused, every key with a default. `model` is its shape;
//! `appliance/floortape.toml` is the commented default.

pub mod model;
