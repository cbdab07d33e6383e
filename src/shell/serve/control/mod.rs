//! The control role: tokio around the control actor. It owns the signalling sockets, the links to
//! keeper and media, the journal's thread and the catalogue's thread; the actor decides.

mod catalogue;
mod doorway;
mod expirer;
mod http;
mod journal;
mod lanes;
mod metrics;
mod net;
mod newer;
mod role;
mod trail;

pub use role::run;
