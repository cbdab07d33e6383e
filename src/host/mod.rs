//! The adapters: what the ports of `base` mean on this operating system.

pub mod affinity;
pub mod audit;
pub mod bpf;
pub mod bypass;
pub mod cards;
pub mod clock;
pub mod disk;
pub mod door;
pub mod drops;
pub mod engine;
pub mod entropy;
pub mod exported;
pub mod facts;
#[cfg(feature = "faults")]
pub mod faults;
pub mod interfaces;
pub mod keyfile;
pub mod letter;
pub mod listener;
pub mod mapped;
pub mod outlet;
pub mod process;
pub mod recvmmsg;
pub mod reserve;
pub mod ringview;
pub mod sendmmsg;
pub mod seqpacket;
pub mod signal;
pub mod signing;
pub mod socket;
pub mod sockets;
pub mod spare;
pub mod sqlite;
pub mod survivor;
pub mod topology;
pub mod unlocked;
pub mod uring;
pub mod uring_permit;
pub mod users;
pub mod volume;
pub mod xdp;
pub mod xsk;

#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod engine_tests;
