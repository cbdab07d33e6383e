//! One file per verb. A verb is a module here with `Args` (clap) and
//! `run(Args) -> Result<Exit, Failure>`, and two lines in [`mod@line`]: a variant and an arm.

pub mod audit;
pub mod check;
mod check_map;
pub mod demo;
mod demo_report;
pub mod doctor;
pub mod export;
pub mod hold;
pub mod kek;
pub mod key;
pub mod line;
mod lines_of;
pub mod ls;
mod parts;
pub mod peaks;
pub mod play;
pub(crate) mod reader;
pub mod rebuild;
mod remote;
pub mod retention;
pub mod rs;
pub mod search;
pub mod serve;
pub mod show;
mod show_session;
pub mod src;
pub mod store;
mod table;
pub mod tap;
pub mod verify;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
