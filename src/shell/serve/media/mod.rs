//! The media role: receives and stores. One command thread ([`desk`]) owns every send and both
//! links; each worker has a pinned thread that receives ([`receiver`]) and one that writes to disk
//! ([`spooler`]). What workers left that are no more is sealed by one more thread ([`retired`]).
//! The threads meet in bounded queues; nobody waits for a full one.

mod ahead;
mod desk;
mod health;
mod lag;
mod outbox;
mod receiver;
mod requests;
mod retired;
mod seat;
mod spooler;
mod stages;

pub use desk::run;
