//! The control role: tokio around the control actor. It owns the signalling sockets, the links to
//! keeper and media, the journal's thread, the catalogue's, that of peaks, and those of evidence;
//! the actor decides.

pub(in crate::shell) mod anchors;
mod catalogue;
mod doorway;
mod expirer;
mod forgetter;
mod http;
mod journal;
mod lanes;
mod metrics;
mod net;
mod newer;
mod peaks;
mod role;
mod scrub;
mod trail;

pub use role::run;
