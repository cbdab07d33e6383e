//! `floortape verify`: whether every byte is what was sealed, and whether every loss is explained.

mod anchored;
mod folder;
mod held;
mod journalled;
mod report;
mod touched;
mod trail;
mod verb;

pub use verb::{Args, run};

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;
