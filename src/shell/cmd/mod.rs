//! One file per verb. A verb is a module here with `Args` (clap) and
//! `run(Args) -> Result<Exit, Failure>`, and two lines in [`line`]: a variant and an arm.

pub mod check;
pub mod demo;
mod demo_report;
pub mod line;
pub mod serve;
pub mod src;
